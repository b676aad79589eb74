"""The store itself: turns of the writers, bad rows, retention, and the statements that a database server would get."""

import contextlib
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_mock_engine, func, select
from sqlalchemy.dialects import postgresql

from city import incident_store, intake
from city import tables as t
from city.intake import MessageRefused
from city.store import Store, StoreError, Turn, counters, prune
from gateway import uplink
from gateway.events import (
    EMERGENCY_TYPES,
    Bell,
    Danger,
    Emergency,
    ReaderHealth,
    Routine,
    Sos,
)
from gateway.uplink import Batch, Poison, Row, Urgent
from tests.city import postgres
from tests.city.bed import arrival, danger, place, position, sos, strayed, told, when

NOW_S = 1_800_000_000.0
TOPIC = "ansim/v2/s/gw/gw1/sos"


def urgent(seq: int, event: Emergency | Poison, after: int | None = None) -> Urgent:
    return Urgent(
        gateway="gw1",
        epoch="e1",
        seq=seq,
        after=seq - 1 if after is None else after,
        queued_at=datetime.fromtimestamp(NOW_S, UTC),
        event=event,
    )


def batch(first: int, *events: Routine | Poison, after: int | None = None) -> Batch:
    rows = tuple(Row(first + i, event) for i, event in enumerate(events))
    sent_at = datetime.fromtimestamp(NOW_S, UTC)
    return Batch(gateway="gw1", epoch="e1", after=first - 1 if after is None else after, sent_at=sent_at, rows=rows)


def total(store: Store, table: Any) -> int:
    with store.read() as c:
        return int(c.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_emergency_takes_its_turn_before_all_who_wait() -> None:
    turn, order = Turn(), []
    ready = threading.Barrier(4)

    def wait_for_turn(name: str, urgent_: bool) -> None:
        ready.wait()
        with turn.take(urgent=urgent_):
            order.append(name)

    threads = [
        threading.Thread(target=wait_for_turn, args=(name, name == "cry")) for name in ("bulk 1", "bulk 2", "cry")
    ]
    with turn.take(urgent=False):
        for thread in threads:
            thread.start()
        ready.wait()
        while turn._urgent == 0:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order[0] == "cry"


def test_pragmas_hold_on_every_connection(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'city.db'}")
    with store.write() as c:
        settings = {name: c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()


def test_a_row_the_database_refuses_is_kept_aside_and_its_neighbours_are_stored(store: Store) -> None:
    refuse = (
        "CREATE TRIGGER no_13 BEFORE INSERT ON event WHEN NEW.subject = 't-13' BEGIN SELECT RAISE(ABORT, 'no'); END"
        if store.is_sqlite
        else "ALTER TABLE event ADD CONSTRAINT no_13 CHECK (subject <> 't-13')"
    )
    with store.write() as c:
        c.exec_driver_sql(refuse)
    stored = intake.store_batch(store, TOPIC, batch(1, position("t-12"), position("t-13"), position("t-14")), NOW_S)
    assert (stored.new, stored.upto) == (3, 3)
    cried = intake.store_urgent(store, TOPIC, urgent(1, sos("a1", tag="t-13")), NOW_S)
    assert (cried.new, cried.upto, len(cried.incidents)) == (1, 1, 1)
    with store.read() as c:
        assert counters(c)["stored.poison"] == 2
        assert [view["kind"] for view in incident_store.views(c)] == ["unreadable"]


def test_every_emergency_opens_an_incident_but_a_lamps_report(store: Store) -> None:
    """A new type of emergency that the city does not act on would be stored, acknowledged and seen by no dispatcher."""
    bell = Bell(
        observed_at=when(), clock="good", alarm="a2", revision=0, bell="gate", reader=8, presses=1, where=None
    )  # fmt: skip
    events: list[Emergency] = [sos("a1"), bell, danger("a3", "t-01"), told("a1", "received")]
    assert {type(event) for event in events} == set(EMERGENCY_TYPES)
    opened = {
        type(event): len(intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S).incidents)
        for seq, event in enumerate(events[:3], 1)
    }
    assert opened == {Sos: 1, Bell: 1, Danger: 1}
    intake.store_urgent(store, TOPIC, urgent(4, events[3]), NOW_S)
    assert total(store, t.incident) == 3


def test_the_same_emergency_twice_is_one_row_and_one_incident(store: Store) -> None:
    cry = sos("a1")
    for _ in range(3):
        stored = intake.store_urgent(store, TOPIC, urgent(1, cry), NOW_S)
    assert (stored.new, stored.duplicates, stored.upto) == (0, 1, 1)
    assert total(store, t.incident) == total(store, t.event) == 1


def test_each_counter_has_one_writer_a_row_and_its_value_is_the_sum(store: Store) -> None:
    for gateway in ("gw1", "gw2"):
        for seq in (1, 2):
            message = msgspec.structs.replace(
                urgent(seq, sos(f"{gateway}-{seq}", tag=f"t-{gateway}-{seq}")), gateway=gateway
            )
            assert intake.store_urgent(store, TOPIC, message, NOW_S).new == 1
        rows = msgspec.structs.replace(batch(1, position("t-01"), position("t-02")), gateway=gateway)
        for new in (2, 0):
            assert intake.store_batch(store, TOPIC, rows, NOW_S).new == new
    intake.count(store, "refused.bad_topic", "sos")
    with store.read() as c:
        counts = counters(c)
        owners = set(c.execute(select(t.counter.c.owner).where(t.counter.c.name == "stored.sos")).scalars())
        marks = c.execute(select(func.sum(t.watermark.c.rows), func.sum(t.watermark.c.duplicates))).one()
    assert (counts["stored.sos"], counts["stored.position"], counts["refused.bad_topic"]) == (4, 4, 1)
    assert owners == {"sos/gw1", "sos/gw2"}
    assert tuple(marks) == (8, 4)


def test_an_open_transaction_of_one_gateway_keeps_no_other_waiting(server: postgres.Server) -> None:
    """Where a server locks rows: none is shared by two consumers."""
    store = Store(server.database())
    first = msgspec.structs.replace(urgent(1, sos("b1", tag="t-2")), gateway="gw2")
    intake.store_urgent(store, TOPIC, first, NOW_S)
    intake.store_urgent(store, TOPIC, urgent(1, sos("a1")), NOW_S)
    with store.write() as c:  # as a routine message of gw1 that is being stored
        store.count(c, {"stored.sos": 1, "quarantine.seen": 1, "incidents.opened": 1}, owner="events/gw1")
        for seq, message in enumerate((urgent(2, sos("a2", tag="t-3")), first), 2):
            again = msgspec.structs.replace(message, seq=seq, event=sos(f"c{seq}", tag=f"t-c{seq}"))
            assert intake.store_urgent(store, TOPIC, again, NOW_S).new == 1  # lock_timeout would end it after 2 s
    store.close()


def test_two_gateways_have_a_reader_1_each(store: Store) -> None:
    for gateway, state in (("gw1", "silent"), ("gw2", "ok")):
        event = ReaderHealth(observed_at=when(NOW_S), clock="good", reader=1, state=state, counters={})
        message = msgspec.structs.replace(batch(1, event), gateway=gateway)
        (view,) = intake.store_batch(store, TOPIC, message, NOW_S).changed
        assert (view["subject"], view["reader"], view["gateway"]) == (f"{gateway}/1", 1, gateway)
    with store.read() as c:
        views = [intake.latest_view(row) for row in c.execute(select(t.latest).order_by(t.latest.c.subject)).mappings()]
    assert [(view["subject"], view["state"]) for view in views] == [("gw1/1", "silent"), ("gw2/1", "ok")]


def test_a_lamps_word_before_its_alarm_is_not_lost(store: Store) -> None:
    intake.store_urgent(store, TOPIC, urgent(2, told("a1", "received")), NOW_S)
    intake.store_urgent(store, TOPIC, urgent(1, sos("a1")), NOW_S)
    with store.read() as c:
        (view,) = incident_store.views(c)
    assert [one["stage"] for one in view["alarms"][0]["told"]] == ["received"]


def test_notices_wait_for_the_lamp_and_are_found_again_after_a_restart(store: Store) -> None:
    intake.store_urgent(store, TOPIC, urgent(1, sos("a1")), NOW_S)
    again = Store(store.url)
    with again.read() as c:
        assert [a.alarm for a in incident_store.waiting(c, NOW_S + 1)] == ["a1"]
        assert incident_store.waiting(c, NOW_S + 24 * 3600 + 1) == []
    again.close()
    intake.store_urgent(store, TOPIC, urgent(2, told("a1", "stored")), NOW_S)
    with store.read() as c:
        assert incident_store.waiting(c, NOW_S + 1) == []
    with store.write() as c:
        incident_store.acknowledge(c, 1, "kim", NOW_S + 5)
    with store.read() as c:
        (waits,) = incident_store.waiting(c, NOW_S + 6)
        assert (waits.stage, waits.stage_at, waits.told) == ("acknowledged", NOW_S + 5, "stored")


def test_an_incidents_log_ends_but_a_persons_word_is_always_written(store: Store) -> None:
    for seq in range(1, incident_store.LOG_MAX + 20):
        intake.store_urgent(store, TOPIC, urgent(seq, sos("a1", revision=seq)), NOW_S)
    with store.write() as c:
        incident_store.acknowledge(c, 1, "kim", NOW_S)
    with store.read() as c:
        words = [line["word"] for line in incident_store.views(c)[0]["log"]]
    assert len(words) == incident_store.LOG_MAX + 2
    assert words[-2:] == ["log_full", "acknowledged"]


def test_retention_deletes_positions_first_and_a_pruned_row_does_not_come_back(store: Store, tmp_path: Path) -> None:
    where = place(126.123456789, 37.987654321)
    message = batch(1, *[position(f"t-{i:02}", NOW_S, where) for i in range(90)], arrival("t-01", NOW_S))
    intake.store_batch(store, TOPIC, message, NOW_S)
    intake.store_urgent(store, TOPIC, urgent(1, sos("a1", at_s=NOW_S)), NOW_S)
    assert prune(store, NOW_S + 2 * 86400, positions_days=3, events_days=90, chunk=20)["event"] == 0
    gone = prune(store, NOW_S + 4 * 86400, positions_days=3, events_days=90, chunk=20)
    assert (gone["event"], gone["latest"]) == (90, 90)
    again = intake.store_batch(store, TOPIC, message, NOW_S + 4 * 86400)
    assert (again.new, again.duplicates) == (0, 91)
    assert total(store, t.event) == 2  # the arrival and the SOS
    prune(store, NOW_S + 91 * 86400, positions_days=3, events_days=90)
    assert total(store, t.event) == 1  # emergencies stay
    store.close()
    if not store.is_sqlite:
        return
    with contextlib.closing(sqlite3.connect(tmp_path / "city.db")) as db, db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"126.123456789" not in (tmp_path / "city.db").read_bytes()  # nor in the free pages


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (batch(1), "bad_seq"),
        (batch(5, position("t-01"), after=5), "bad_seq"),
        (batch(2**63, position("t-01")), "bad_seq"),
        (batch(1, *[position("t-01")] * 101), "bad_batch"),
        (urgent(3, sos("a1"), after=3), "bad_seq"),
        (urgent(0, sos("a1"), after=-1), "bad_seq"),
    ],
)
def test_impossible_numbers_are_refused(message: Urgent | Batch, reason: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        intake.check_envelope("gw1", message)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "event",
    [
        position("t-01", where=place(float("nan"), 37.5)),
        position("t-01", where=place(181.0, 37.5)),
        position("t-01", where=place(accuracy_m=float("inf"))),
        position("t\x00"),
        position("x" * 129),
        position(""),
        strayed("t-01", route="r\n"),
    ],
)
def test_what_no_page_could_show_is_poison(store: Store, event: Routine) -> None:
    row = uplink.encode_row(event)
    data = uplink.encode_batch(gateway="gw1", epoch="e1", after=0, sent_at=datetime.now(UTC), rows=[(1, row)])
    stored = intake.store_batch(store, TOPIC, uplink.decode_batch(data), NOW_S)
    assert (stored.new, stored.upto) == (1, 1)
    with store.read() as c:
        assert counters(c)["stored.poison"] == 1


def test_a_cry_from_nowhere_on_earth_is_still_a_cry(store: Store) -> None:
    stored = intake.store_urgent(store, TOPIC, urgent(1, sos("a1", where=place(1e9, 0))), NOW_S)
    with store.read() as c:
        (view,) = incident_store.views(c, numbers=list(stored.incidents))
    assert (view["kind"], view["subject"], view["where"]) == ("sos", "t-01", None)


def test_a_position_from_the_future_does_not_stay_the_newest(store: Store) -> None:
    intake.store_batch(store, TOPIC, batch(1, position("t-01", NOW_S + 10_000, place(1, 1))), NOW_S)
    intake.store_batch(store, TOPIC, batch(2, position("t-01", NOW_S + 5, place(2, 2))), NOW_S + 6)
    with store.read() as c:
        (row,) = c.execute(select(t.latest)).mappings()
    assert intake.latest_view(row)["where"]["geometry"]["coordinates"] == [2, 2]


def test_quarantine_is_bounded_and_counts_what_it_drops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "QUARANTINE_MAX", 5)
    for i in range(8):
        intake.store_unreadable(store, TOPIC, "gw1", "events", bytes([i]), "bad", NOW_S)
    intake.store_unreadable(store, TOPIC, "gw1", "events", b"\x00", "bad", NOW_S)
    assert total(store, t.quarantine) == 5
    with store.read() as c:
        counts = counters(c)
    assert (counts["quarantine.seen"], counts["quarantine.dropped"]) == (9, 3)


def test_another_schema_is_refused_and_not_guessed_at(store: Store) -> None:
    with store.write() as c:
        c.execute(t.schema_version.update().values(version=99))
    with pytest.raises(StoreError, match=r"schema \[99\]"):
        Store(store.url)


def test_tables_and_conflict_clauses_are_postgresqls_too() -> None:
    """The statements are compiled, not run. Where PostgreSQL is installed, the other tests run them."""
    statements: list[str] = []
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    engine = create_mock_engine(
        "postgresql://", lambda sql, *_a, **_k: statements.append(str(sql.compile(dialect=dialect)))
    )
    t.metadata.create_all(engine, checkfirst=False)
    assert any("CREATE TABLE event" in s and "PRIMARY KEY (gateway, epoch, lane, seq)" in s for s in statements)
    store = Store.__new__(Store)
    store.is_sqlite = False
    insert = store.insert(t.event).on_conflict_do_nothing()
    assert "ON CONFLICT DO NOTHING" in str(insert.compile(dialect=dialect))
