"""The demo's own evaluation: what became of a press, what is a true arrival, and when a promise is broken."""

import asyncio
import contextlib
import json
import math
import os
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.config import load
from gateway.locate.ground import Ground
from readers import wire
from readers.advertisement import TagKeys
from sim.__main__ import app
from sim.air.radio import Air
from sim.demo import folder, records, report, technician
from sim.demo.auto_operator import Seen
from sim.demo.presses import Presses
from sim.demo.rig import BUZZER_PIN, LAMP_PIN, ears_of
from sim.demo.running_zone import PinChange
from sim.demo.scenario import Press
from sim.street import site
from sim.street.children import World
from sim.street.zone import zone_of

ZONE = site.load()
NOTICE = {"tag": "tag-004", "area": "road", "at_s": 31.2, "away_m": 4.0, "warn_m": 12.0, "probability": 0.81,
          "true": True}  # fmt: skip
FALSE = {"tag": "tag-007", "at_s": 33.3, "away_m": 41.25, "accuracy_95_m": 12.0, "again": False}
LATE = {"tag": "tag-009", "at_s": 31.0, "after_s": None, "told_s": 60.0}
GOOD: dict[str, Any] = {
    "lost_events": 0,
    "undelivered_events": 0,
    "duplicate_events": 0,
    "arrivals_detail": {"late": [], "false": []},
    "departures_detail": {"late": [], "false": []},
    "dangers_detail": {"notices": [NOTICE]},
    "sos": [{"press_to_gateway_ms": 1.0, "acknowledge_to_lamp_help_ms": 2.0, "who": "tag-001"}],
    "bell": [{"press_to_gateway_ms": 1.0, "acknowledge_to_lamp_help_ms": 2.0, "who": "bell01"}],
}


def incident(number: int, kind: str, subject: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "kind": kind, "subject": subject, "state": "new", "queued_at": 100.2, "stored_at": 100.3,
            "acknowledged_at": None, "alarms": [{"alarm": f"a{number}"}], **more}  # fmt: skip


def presses() -> Presses:
    made = Presses(lambda text, kind: None)
    made.add(Press(30, "sos", tag=1), "tag-001", 100.0, 30.0)
    made.add(Press(45, "bell", reader=4), "bell04", 120.0, 50.0)
    return made


def blink(made: Presses, reader: int, at: float, times: int = 1) -> None:
    """The lamp shows received: 1 s on, 1 s off, with a dip before a send."""
    for n in range(times):
        for after_s, level in ((0.0, 1), (0.4, 0), (0.44, 1), (1.0, 0)):
            made.on_pin(PinChange(reader, 0.0, LAMP_PIN, level), at + 2 * n + after_s)


def promise(made: Presses, reader: int, at: float, beep: bool = True, times: int = 2) -> None:
    """The lamp shows help: two flashes and a pause; the buzzer beeps twice when it begins."""
    for n in range(times):
        for after_s, level in ((0.0, 1), (0.2, 0), (0.4, 1), (0.6, 0)):
            made.on_pin(PinChange(reader, 0.0, LAMP_PIN, level), at + 1.5 * n + after_s)
            if beep and not n:
                made.on_pin(PinChange(reader, 0.0, BUZZER_PIN, level), at + 0.75 * after_s)


def test_a_press_is_followed_from_hop_to_hop() -> None:
    made = presses()
    made.on_gateway_record({"event": "committed", "kind": "sos", "alarm": "a1", "at": 100.15})
    seen = Seen(incident(1, "sos", "tag-001"), 100.35)
    assert made.on_incident(seen) is made.all[0]
    assert made.on_incident(seen) is None, "told once"
    blink(made, 2, 100.4)
    seen.acknowledged_at = 103.0
    promise(made, 2, 103.05)
    h = made.hops(made.all[0])
    hops = [h.ms(at) for at in (h.committed_at, h.stored_at, h.page_at, h.received_at)]
    assert hops == pytest.approx([150, 300, 350, 400])
    assert h.ms(h.help_at, h.acknowledged_at) == pytest.approx(50)


def test_what_has_not_happened_is_none_and_another_readers_lamp_is_not_the_bells() -> None:
    made = presses()
    blink(made, 2, 120.1)
    h = made.hops(made.all[1])
    assert (h.committed_at, h.stored_at, h.page_at, h.received_at, h.acknowledged_at, h.help_at) == (None,) * 6


def test_a_lamp_that_blinks_already_proves_nothing_but_the_readers_frame_does() -> None:
    made = presses()
    blink(made, 4, 110.0, times=5)  # for the child
    for n in range(5):  # sends cut it; then it blinks again
        for after_s, level in ((0.0, 1), (0.3, 0)):
            made.on_pin(PinChange(4, 0.0, LAMP_PIN, level), 120.0 + 0.8 * n + after_s)
    assert made.lamps(124.0) == {4: "unclear"}
    blink(made, 4, 124.0, times=2)
    assert made.hops(made.all[1]).received_at is None
    made.on_alarm_frame(4, 120.5, wire.SOS, wire.RECEIVED)
    assert made.hops(made.all[1]).received_at is None, "that was the child's"
    made.on_alarm_frame(4, 120.6, wire.BELL, wire.RECEIVED)
    assert made.hops(made.all[1]).received_at == 120.6
    assert made.hops(made.all[1]).received_by == "frame of reader 4"


def test_a_frame_proves_no_light_before_there_is_any() -> None:
    """The lamp is lit, and at once low again for the send of the very frame that says so."""
    made = presses()
    made.on_pin(PinChange(4, 0.0, LAMP_PIN, 1), 120.1)
    made.on_pin(PinChange(4, 0.0, LAMP_PIN, 0), 120.1)
    made.on_alarm_frame(4, 120.1, wire.BELL, wire.RECEIVED)
    assert made.hops(made.all[1]).received_at is None
    blink(made, 4, 120.15)
    h = made.hops(made.all[1])
    assert (h.received_at, h.received_by) == (120.15, "pin of reader 4")


def test_help_before_the_answer_is_no_help() -> None:
    made = presses()
    made.on_incident(Seen(incident(1, "sos", "tag-001", acknowledged_at=105.0), 100.3))
    promise(made, 2, 104.0)
    assert made.hops(made.all[0]).help_at is None


def test_light_without_a_pattern_proves_nothing_and_is_called_stuck() -> None:
    said: list[tuple[str, str]] = []
    made = Presses(lambda text, kind: said.append((text, kind)))
    made.add(Press(45, "bell", reader=4), "bell04", 120.0, 50.0)
    made.on_incident(Seen(incident(1, "bell", "bell04", acknowledged_at=121.0), 120.3))
    for pin in (LAMP_PIN, BUZZER_PIN):
        made.on_pin(PinChange(4, 0.0, pin, 1), 121.2)
    made.on_alarm_frame(4, 121.3, wire.BELL, wire.ACKNOWLEDGED)
    assert made.lamps(140.0) == {4: "steady"}
    made.on_pin(PinChange(4, 0.0, LAMP_PIN, 0), 141.0)
    h = made.hops(made.all[0])
    assert (h.received_at, h.help_at) == (None, None), "a reader that freezes says help is coming, and nobody sees it"
    assert said == [("pole 4 is lit and does not blink: that means nothing, its reader is stuck", "warning")]


def test_a_watching_person_reads_what_a_person_at_the_pole_sees() -> None:
    said: list[str] = []
    made = Presses(lambda text, kind: said.append(text))
    made.add(Press(45, "bell", reader=4), "bell04", 120.0, 50.0)
    blink(made, 4, 120.1, times=2)
    promise(made, 4, 124.0)
    promise(made, 3, 124.0, beep=False)
    assert said == [
        "pole 4 blinks: received",
        "pole 4 beeps, flashes twice and pauses: help is coming",
        "pole 3 flashes twice and pauses: help is coming",
    ], "pole 3 was dark, and never received"
    assert made.lamps(126.5) == {3: "help", 4: "help"}
    assert made.lamps(130.0) == {3: "dark", 4: "dark"}


def test_two_incidents_for_one_press_are_seen() -> None:
    made = presses()
    made.on_incident(Seen(incident(1, "sos", "tag-001"), 100.3))
    made.on_incident(Seen(incident(2, "sos", "tag-001"), 100.9))
    made.on_incident(Seen(incident(3, "danger", "tag-001"), 100.9))
    assert len(made.all[0].incidents) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"lost_events": 1}, "1 committed events are in no store"),
        ({"undelivered_events": 3}, "3 events are still with the gateway"),
        ({"duplicate_events": 1}, "stored twice"),
        ({"arrivals_detail": {"late": [], "false": [FALSE]}},
         "falsely reported at school: tag-007 at 33 s, 41.2 m outside"),
        ({"departures_detail": {"late": [], "false": [FALSE]}},
         "falsely reported away: tag-007 at 33 s, 41.2 m inside"),
        ({"arrivals_detail": {"late": [], "false": [FALSE | {"again": True}]}}, "tag-007 at 33 s, for the second time"),
        ({"arrivals_detail": {"late": [], "false": [FALSE | {"away_m": None}]}}, "tag-007 at 33 s, no child"),
        ({"arrivals_detail": {"late": [LATE], "false": []}},
         "not reported at school within 60 s: tag-009, entered at 31 s, reported not at all"),
        ({"departures_detail": {"late": [LATE | {"after_s": 71.0}], "false": []}},
         "not reported away within 60 s: tag-009, left at 31 s, reported 71 s after it"),
        ({"dangers_detail": {"notices": [NOTICE, NOTICE | {"away_m": 33.0, "probability": 0.63, "true": False}]}},
         "false danger notice: tag-004 at 31 s, 33 m away from road (a warning is due at 12 m), probability 0.63"),
        ({"dangers_detail": {"notices": [NOTICE | {"away_m": None, "warn_m": None, "true": False}]}},
         "tag-004 at 31 s, no child, or no such area from road, probability 0.81"),
        ({"sos": []}, "no sos was pressed"),
        (
            {"sos": [], "switches": [{"reader": 3}, {"reader": 0}, {"reader": 3}]},
            "no sos was pressed; with switches: all readers, reader 3",
        ),
        ({"bell": [{"press_to_lamp_received_ms": None}]}, "bell: never measured: press_to_lamp_received_ms"),
    ],
)  # fmt: skip
def test_every_promise_is_checked(change: dict[str, Any], words: str | None) -> None:
    broken = report.broken_promises({**GOOD, **change})
    assert broken == [] if words is None else words in broken[0]


def stores(tmp_path: Path, committed: int, waiting: list[int], stored: list[int]) -> tuple[Path, Path]:
    """A gateway's and a city's store with these rows in the sos lane."""
    outbox, city = tmp_path / "outbox", tmp_path / "city.db"
    outbox.mkdir()
    for lane in records.LANES:
        with contextlib.closing(sqlite3.connect(outbox / f"{lane}.db")) as db, db:
            db.execute("CREATE TABLE meta(key, value)")
            db.execute("INSERT INTO meta VALUES('epoch', 'E')")
            db.execute("CREATE TABLE outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, body)")
            if lane == "sos":
                db.executemany("INSERT INTO outbox(seq) VALUES(?)", [(n,) for n in range(1, committed + 1)])
                gone = [(n,) for n in range(1, committed + 1) if n not in waiting]
                db.executemany("DELETE FROM outbox WHERE seq = ?", gone)
        db.close()
    with contextlib.closing(sqlite3.connect(city)) as db, db:
        db.execute("CREATE TABLE event(epoch, lane, seq, type, subject, observed_at, stored_at, body)")
        db.execute("CREATE TABLE incident(number, body)")
        db.execute("CREATE TABLE quarantine(digest)")
        rows = [("E", "sos", n, "sos", "tag-001", 1.0 * n, 2.0, "{}") for n in stored]
        db.executemany("INSERT INTO event VALUES(?, ?, ?, ?, ?, ?, ?, ?)", rows)
    db.close()
    return outbox, city


@pytest.mark.parametrize(
    ("committed", "waiting", "stored", "lost", "undelivered"),
    [
        (3, [], [1, 2, 3], 0, 0),
        (3, [3], [1, 2], 0, 1),
        (3, [2, 3], [1, 2], 0, 1),
        (3, [], [1, 3], 1, 1),
        (0, [], [], 0, 0),
    ],
)
def test_a_row_is_lost_when_it_is_nowhere(
    tmp_path: Path, committed: int, waiting: list[int], stored: list[int], lost: int, undelivered: int
) -> None:
    outbox, city = stores(tmp_path, committed, waiting, stored)
    lanes, found = records.read_gateway(outbox), records.read_city(city)
    assert records.lost(lanes, found) == lost
    assert records.undelivered(lanes, found) == undelivered
    assert found.types == Counter({"sos": len(stored)} if stored else {})


def test_the_same_thing_stored_twice_is_seen(tmp_path: Path) -> None:
    _, city = stores(tmp_path, 2, [], [1])
    with contextlib.closing(sqlite3.connect(city)) as db, db:
        db.execute("INSERT INTO event VALUES('E', 'sos', 2, 'sos', 'tag-001', 1.0, 9.0, '{}')")
    db.close()
    assert records.read_city(city).same == 1


def test_notices_of_a_danger_are_read_and_the_word_that_it_is_clear_is_none(tmp_path: Path) -> None:
    _, city = stores(tmp_path, 2, [], [])
    with contextlib.closing(sqlite3.connect(city)) as db, db:
        for seq, near in ((1, True), (2, False)):
            body = json.dumps({"area": "road", "near": near, "probability": 0.6})
            db.execute(
                "INSERT INTO event VALUES('E', 'sos', ?, 'danger', 'tag-001', ?, 9.0, ?)", (seq, float(seq), body)
            )
    db.close()
    assert [(row["tag"], row["area"], row["observed_at_unix"]) for row in records.read_city(city).dangers] == [
        ("tag-001", "road", 1.0)
    ]


def test_records_that_are_not_there_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(records.RecordsError, match="is not there"):
        records.read_gateway(tmp_path)


def test_the_configurations_are_ones_the_programs_accept(tmp_path: Path) -> None:
    poles = ZONE.poles[:3]
    secrets = asyncio.run(folder.make_secrets(tmp_path, [pole.number for pole in poles]))
    world = World(ZONE, 1, 2)
    walked = technician.walk(ZONE, poles, Air(1, ears_of(poles)), 1)
    tags = {child.tag: TagKeys(os.urandom(16), os.urandom(16)) for child in world.children}
    gateway = folder.write_gateway(
        tmp_path, ZONE, poles, tags, secrets, seed=1, radio_port=tmp_path / "pty", broker_port=1883, metrics_port=9100,
        walked=walked,
    )  # fmt: skip
    city = folder.write_city(tmp_path, ZONE, site.GONGDEOK, poles, secrets, broker_port=1883, web_port=8080)
    from city.__main__ import app as city_app
    from gateway.__main__ import app as gateway_app

    for program, path in ((gateway_app, gateway), (city_app, city)):
        result = CliRunner().invoke(program, ["check", str(path)])
        assert result.exit_code == 0, result.output
        assert program is city_app or f"walk test: {len(walked.survey)} rows" in result.output
    loaded = load.load(gateway)
    assert loaded.config.attribution == ZONE.attribution
    wanted = zone_of(ZONE, poles, partial(folder.eui64_of, 1))
    assert (loaded.zone.readers, loaded.zone.gates) == (wanted.readers, wanted.gates), (
        "gates, antennas, scan of its own"
    )
    assert loaded.zone == wanted
    ground = Ground(loaded.zone)
    assert len(ground.space.doors) == 1, "the gate"
    gate = ground.plane.to_xy_m(*ZONE.plane.to_lonlat(*ZONE.gates[0]))
    assert all(math.dist(ground.space.xy_m[cell], gate) < 6 for cell in ground.space.doors[0])
    assert len(ground.sectors) == 1
    secret = [
        p for p in tmp_path.rglob("*") if p.is_file() and ("key" in p.name or "password" in p.name or p.name == "token")
    ]
    assert len(secret) >= 5
    assert all(p.stat().st_mode & 0o077 == 0 for p in secret)
    shown = json.loads((tmp_path / "city" / "site.geojson").read_text())
    assert sum(f["properties"]["kind"] == "reader" for f in shown["features"]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "kill-moon@3"], "kill-gateway"),
        (["--once", "--fault", "noise@95"], "behind the end"),
        (["--switch", "flash=ful"], "is none of works, full"),
        (["--switch", "flsh=full:3"], "there is no switch 'flsh'"),
        (["--switch", "@3"], "NAME=VALUE"),
        (["--once", "--switch", "flash=full@95"], "behind the end"),
        (["--switch", "flash=full:13"], "the readers are 1..12"),
        (["--switches", "nowhere.json"], "cannot read nowhere.json"),
        (["--readers", "99"], "has 1..36"),
        (["--broker", "rabbit"], "auto, mosquitto or nats"),
        (["--json", "nowhere/out.json"], "there is no folder"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.iterdir()) == []
