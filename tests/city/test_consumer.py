"""The lanes over real brokers: each row is stored once, even if messages come twice, late, out of order or broken."""

import contextlib
import json
import random
import sqlite3
import time
from pathlib import Path

import httpx

from gateway import uplink
from gateway.uplink import Urgent
from tests import programs
from tests.city.bed import (
    City,
    Gateway,
    arrival,
    free_port,
    mosquitto,
    on_both_brokers,
    position,
    sos,
    told,
    wait_for,
    when,
)


def rows(city: City, lane: str) -> list[int]:
    with contextlib.closing(sqlite3.connect(city.folder / "city.db")) as db, db:
        return [seq for (seq,) in db.execute("SELECT seq FROM event WHERE lane = ? ORDER BY seq", (lane,))]


@on_both_brokers
def test_sos_is_stored_acknowledged_and_answered_by_a_lamp(city: City, gateway: Gateway) -> None:
    gateway.status()
    gateway.urgent(1, sos("gw1-e1-1"))
    wait_for("the watermark", lambda: gateway.upto("sos") == 1)
    wait_for("stage stored", lambda: "stored" in gateway.stages("gw1-e1-1"))
    (incident,) = city.incidents()
    assert incident["state"] == "new"
    assert incident["subject"] == "t-01"
    assert incident["late_s"] is None
    assert incident["observed_at"] <= incident["queued_at"] <= incident["stored_at"]

    wait_for("the notice again", lambda: len(gateway.stages("gw1-e1-1")) >= 2)  # no lamp has reported yet
    gateway.urgent(2, told("gw1-e1-1", "stored"))
    wait_for("the lamp's word", lambda: city.incidents()[0]["alarms"][0]["told"])

    answer = city.post(f"/api/incidents/{incident['number']}/acknowledge")
    assert answer.json()["state"] == "acknowledged"
    wait_for("stage acknowledged", lambda: gateway.stages("gw1-e1-1")[-1] == "acknowledged")
    gateway.urgent(3, told("gw1-e1-1", "acknowledged"))
    wait_for("both words", lambda: len(city.incidents()[0]["alarms"][0]["told"]) == 2)
    said = len(gateway.stages("gw1-e1-1"))
    gateway.urgent(4, sos("gw1-e1-2", tag="t-02"))  # its lamp says nothing, so its stage is repeated
    wait_for("a repeat, sent after the time of ours", lambda: len(gateway.stages("gw1-e1-2")) >= 2)
    assert len(gateway.stages("gw1-e1-1")) == said

    assert city.post(f"/api/incidents/{incident['number']}/close").json()["closed_by"] == "program"
    wait_for("stage closed", lambda: gateway.stages("gw1-e1-1")[-1] == "closed")


@on_both_brokers
def test_duplicates_reordering_and_gaps_store_each_row_once(city: City, gateway: Gateway) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    batches = [(1 + 10 * i, [position(f"t-{j:02}") for j in range(10)]) for i in range(20)]
    order = [*batches, *chance.sample(batches, 10)]
    chance.shuffle(order)
    for first, events in order:
        gateway.batch(first, events)
    wait_for("all rows", lambda: len(rows(city, "events")) == 200)
    for first, events in batches:  # a gateway rewinds to its watermark and sends everything again, in order
        gateway.batch(first, events)
    wait_for("the watermark", lambda: gateway.upto("events") == 200)
    assert rows(city, "events") == list(range(1, 201))
    stats = city.get("/api/stats")
    assert stats["stored"]["position"] == 200
    assert stats["duplicates"]["events"] == 100 + 200
    assert stats["gaps"]["events"] > 0


def test_watermark_waits_for_a_lost_message_and_not_for_a_shed_row(city: City, gateway: Gateway) -> None:
    gateway.batch(1, [position("t-01")] * 5)
    wait_for("5", lambda: gateway.upto("events") == 5)
    gateway.batch(8, [position("t-02")] * 3, after=7)  # 6 and 7 are lost on the way
    wait_for("the gap", lambda: city.get("/api/stats")["gaps"]["events"] == 1)
    assert gateway.upto("events") == 5
    gateway.batch(8, [position("t-02")] * 3, after=5)  # 6 and 7 were dropped by the gateway
    wait_for("10", lambda: gateway.upto("events") == 10)
    assert rows(city, "events") == [1, 2, 3, 4, 5, 8, 9, 10]


def test_flood_of_three_hours_ago_alarms_nobody_but_an_old_sos_does(city: City, gateway: Gateway) -> None:
    then_s = time.time() - 3 * 3600
    gateway.batch(1, [position("t-01")])
    for i in range(10):
        gateway.batch(2 + 100 * i, [position("t-01", then_s + j) for j in range(99)] + [arrival("t-01", then_s)])
    gateway.urgent(1, sos("gw1-e1-1", at_s=then_s))
    wait_for("the flood", lambda: gateway.upto("events") == 1001)
    (incident,) = wait_for("the incident", city.incidents)
    assert 3 * 3600 <= incident["late_s"] < 3 * 3600 + 60
    assert incident["state"] == "new"
    (shown,) = [w for w in city.get("/api/state")["words"] if w["subject"] == "t-01"]
    assert time.time() - shown["as_of"] < 60  # the old positions did not replace the new one


def test_poison_is_kept_and_passed_and_an_unreadable_emergency_opens_an_incident(city: City, gateway: Gateway) -> None:
    good = json.loads(
        uplink.encode_urgent(Urgent(gateway="gw1", epoch="e1", seq=1, after=0, queued_at=when(), event=sos("gw1-e1-1")))
    )
    good["event"]["trust"] = "perhaps"
    gateway.send("sos", json.dumps(good).encode())
    wait_for("the watermark passes it", lambda: gateway.upto("sos") == 1)
    gateway.send("sos", b"\xff not even an envelope")
    gateway.send("sos", b"[" * 100_000)
    gateway.urgent(2, sos("gw1-e1-2", tag="t-02"))
    wait_for("the next alarm", lambda: gateway.upto("sos") == 2)
    kinds = {i["kind"]: i for i in wait_for("both", lambda: len(city.incidents()) == 2 and city.incidents())}
    assert kinds["unreadable"]["gateway"] == "gw1"
    assert kinds["sos"]["subject"] == "t-02"

    bad = uplink.encode_row(position("t-01")).replace(b"position", b"positiom")
    row = uplink.encode_row(position("t-01"))
    gateway.send(
        "events",
        uplink.encode_batch(gateway="gw1", epoch="e1", after=0, sent_at=when(), rows=[(1, row), (2, bad), (3, row)]),
    )
    gateway.send("events", b"\x00")
    wait_for("the watermark passes it", lambda: gateway.upto("events") == 3)
    stats = city.get("/api/stats")
    assert stats["stored"] == {"position": 2, "poison": 2, "sos": 1}
    assert stats["counters"]["quarantine.seen"] == 5
    with contextlib.closing(sqlite3.connect(city.folder / "city.db")) as db, db:
        kept = dict(db.execute("SELECT seq, raw FROM quarantine WHERE topic LIKE '%/events' AND seq IS NOT NULL"))
    assert kept[2] == bad


def test_a_gateway_speaks_only_for_itself(city: City, gateway: Gateway) -> None:
    message = Urgent(gateway="gw2", epoch="e1", seq=1, after=0, queued_at=when(), event=sos("gw2-e1-1"))
    gateway.send("sos", uplink.encode_urgent(message))
    gateway.urgent(1, sos("gw1-e1-1"))
    wait_for("the honest one", lambda: gateway.upto("sos") == 1)
    assert [i["gateway"] for i in city.incidents()] == ["gw1"]
    assert city.get("/api/stats")["counters"]["refused.wrong_gateway"] == 1


@on_both_brokers
def test_kill_9_mid_stream_stores_every_row_exactly_once(city: City, gateway: Gateway) -> None:
    gateway.status()
    batches = {1 + 50 * i: [position(f"t-{j:02}") for j in range(50)] for i in range(120)}
    cries = {i: sos(f"gw1-e1-{i}", tag=f"t-{i:02}") for i in range(1, 31)}

    def send_from_watermark() -> None:
        for first, events in batches.items():
            if first + 49 > gateway.upto("events"):
                gateway.batch(first, events)
        for seq, cry in cries.items():
            if seq > gateway.upto("sos"):
                gateway.urgent(seq, cry)

    for after_rows in (500, 2500, 4500):
        send_from_watermark()
        wait_for(f"{after_rows} rows", lambda n=after_rows: len(rows(city, "events")) >= n)  # type: ignore[misc]
        city.kill()
        city.start()

    send_from_watermark()
    wait_for("everything", lambda: (gateway.upto("events"), gateway.upto("sos")) == (6000, 30), 60)
    assert rows(city, "events") == list(range(1, 6001))
    assert rows(city, "sos") == list(range(1, 31))
    assert len(city.incidents()) == 30
    assert city.get("/api/stats")["stored"] == {"position": 6000, "sos": 30}


def test_a_gateway_that_comes_online_hears_its_watermarks_and_its_open_alarms(city: City, gateway: Gateway) -> None:
    gateway.urgent(1, sos("gw1-e1-1"))
    gateway.urgent(2, told("gw1-e1-1", "stored"))
    gateway.batch(1, [position("t-01")])
    wait_for("stored", lambda: gateway.upto("sos") == 2 and gateway.upto("events") == 1)
    gateway.forget()
    gateway.status()
    wait_for("its alarms", lambda: "stored" in gateway.stages("gw1-e1-1"))
    wait_for("its watermarks", lambda: (gateway.upto("sos"), gateway.upto("events")) == (2, 1))


@on_both_brokers
def test_mqtt_5_where_the_broker_speaks_it_and_else_3_1_1(city: City, gateway: Gateway, broker_kind: str) -> None:
    lanes = city.get("/api/stats")["lanes"]
    expected = "5" if broker_kind == "mosquitto" else "3.1.1"
    assert {lane["protocol"] for lane in lanes.values()} == {expected}


def test_broker_killed_and_restarted_is_subscribed_again(tmp_path: Path) -> None:
    programs.find_or_skip("mosquitto")
    port = free_port()
    city = City(tmp_path, port)
    try:
        with mosquitto(tmp_path, port):
            city.start()
        wait_for("unhealthy", lambda: not city.healthy())
        with mosquitto(tmp_path, port):
            wait_for("healthy", city.healthy)
            gateway = Gateway(port)
            gateway.urgent(1, sos("gw1-e1-1"))
            wait_for("the watermark", lambda: gateway.upto("sos") == 1)
            gateway.close()
    finally:
        city.stop()


@on_both_brokers
def test_a_cry_sent_while_the_city_is_away_comes_when_it_is_back(city: City, gateway: Gateway) -> None:
    city.kill()
    gateway.urgent(1, sos("gw1-e1-1"))  # sent once: the broker keeps it in the lane's session
    city.start()
    wait_for("the watermark", lambda: gateway.upto("sos") == 1)


def test_the_city_stops_at_once_with_a_page_open_and_says_nothing_untoward(city: City) -> None:
    headers = {"Authorization": f"Bearer {city.token}"}
    with httpx.stream("GET", f"{city.address}/events", headers=headers, timeout=10) as stream:
        assert next(stream.iter_lines()) != ""
        assert city.process is not None
        began_s = time.monotonic()
        city.process.terminate()
        assert city.process.wait(10) == 0
        assert time.monotonic() - began_s < 2.5
    log = city.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
