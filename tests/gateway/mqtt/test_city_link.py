"""The way to the city over real brokers: rows leave by the watermark alone; what is lost on the way is sent again."""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.events import Told
from gateway.mqtt import connection, sender
from gateway.outbox.lane_file import NotCommitted
from gateway.uplink import Poison, StageNotice, Watermark, encode_ack, topic
from tests.gateway.mqtt.bed import AT, GATEWAY, SITE, Bed, Broker, City, bed, needs_mosquitto, needs_nats, told

Work = Callable[[Bed, City, Broker], Coroutine[Any, Any, None]]


def over(tmp_path: Path, work: Work, kind: str = "mosquitto", protocol: str = "auto", **city: Any) -> None:
    """Run a story over a broker, a city and a gateway."""

    async def main() -> None:
        with Broker(tmp_path / "broker", kind) as broker:
            there = City(broker.port, **city)
            try:
                async with bed(tmp_path / "store", broker.port, protocol) as gateway:
                    await gateway.connected()
                    await work(gateway, there, broker)
            finally:
                there.close()

    asyncio.run(main())


# ---- the watermark ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [pytest.param("mosquitto", marks=needs_mosquitto), pytest.param("nats", marks=needs_nats)],
)
def test_rows_leave_when_the_city_has_them(tmp_path: Path, kind: str) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(70)
        await gateway.routine(1200)
        await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()))
        assert sorted(set(city.seqs("sos"))) == list(range(1, 71))
        assert sorted(set(city.seqs("events"))) == list(range(1, 1201))
        alarms = [city.rows["sos", gateway.outbox.sos.epoch, i + 1].alarm for i in range(70)]
        assert alarms == [f"gw1-e-{i}" for i in range(70)]
        counters = gateway.uplink.counters()
        assert counters["uplink_sos_acknowledged_rows"] == 70
        assert counters["uplink_events_watermark"] == 1200
        version = "3.1.1" if kind == "nats" else "5"
        assert [each.version for each in gateway.uplink.connections] == [version, version]

    over(tmp_path, story, kind)


@needs_mosquitto
def test_a_puback_deletes_nothing_and_a_silent_city_is_told_of_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "REWIND_MIN_S", 0.05)
    monkeypatch.setattr(sender, "STALLED_S", 0.5)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(3)
        await gateway.routine(10)
        await gateway.until("a second telling", lambda: city.seqs("sos").count(1) >= 3)
        await gateway.until("PUBACKs", lambda: gateway.uplink.counters()["mqtt_sos_pubacks"] >= 9)
        assert gateway.backlog() == {"sos": 3, "events": 10}
        assert gateway.uplink.counters()["uplink_sos_rewinds"] >= 2
        await gateway.until("the word", lambda: ("sos_stalled", False) in gateway.words())
        city.acks = True
        await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()))
        await gateway.until("the good word", lambda: ("sos_stalled", True) in gateway.words())

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_resending_backs_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        one = gateway.uplink.senders[0]
        await gateway.cry()
        waits = []
        for now_s in (1e6, 2e6, 3e6, 4e6):
            one._in_flight.append(1)
            one._watch(now_s)
            waits.append(one._rewind_s)
        assert waits == [4.0, 5.0, 5.0, 5.0], "never above the lane's most"
        await one.acknowledged(gateway.outbox.sos.epoch, 1)
        assert one._rewind_s == sender.REWIND_MIN_S, "progress makes it quick again"

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_another_epochs_word_and_rubbish_delete_nothing(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(2)
        await gateway.until("arrival", lambda: set(city.seqs("sos")) == {1, 2})
        city.send(Watermark(epoch="00000000", lane="sos", upto=2))
        city.send(Watermark(epoch=gateway.outbox.sos.epoch, lane="events", upto=2))
        city.send(Watermark(epoch=gateway.outbox.sos.epoch, lane="sos", upto=-5))
        for rubbish in (b"", b"\xff", b"[" * 5000, b'{"ack":"watermark"}'):
            city.client.publish(topic(SITE, GATEWAY, "ack"), rubbish, qos=1)
        city.send(StageNotice(alarm="last", stage="stored", at=AT))
        await gateway.until("the last of it", lambda: gateway.stages)
        assert gateway.backlog()["sos"] == 2
        assert gateway.uplink.unreadable_acks >= 4
        city.send(Watermark(epoch=gateway.outbox.sos.epoch, lane="sos", upto=1))
        await gateway.until("one row less", lambda: gateway.backlog()["sos"] == 1)

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_a_city_that_knows_more_than_we_do_gets_everything_in_a_new_epoch(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(3)
        await gateway.until("arrival", lambda: len(set(city.seqs("sos"))) == 3)
        old = gateway.outbox.sos.epoch
        city.acks = True
        city.send(Watermark(epoch=old, lane="sos", upto=900))
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
        assert gateway.outbox.sos.epoch != old
        assert city.upto["sos", gateway.outbox.sos.epoch] == 3
        assert ("sos_store_rolled_back", False) in gateway.words()

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_shed_rows_leave_no_gap_that_stops_the_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "REWIND_MIN_S", 0.2)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.routine(2500)
        await gateway.until("a full window", lambda: len(city.seqs("events")) >= 800)
        store = gateway.outbox.events.store
        await gateway.outbox.events.run(store.shed, store.used_b() // 2)
        assert store.counters["shed_others"] == 2000
        city.acks = True
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["events"])
        assert city.upto["events", store.epoch] == 2500
        assert set(range(2001, 2501)) <= set(city.seqs("events"))

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_a_row_that_cannot_be_read_goes_as_it_is_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "REWIND_MIN_S", 0.2)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(3)
        await gateway.routine(3)
        for source in (gateway.outbox.sos, gateway.outbox.events):
            db = source.store._db
            assert db is not None
            await source.run(db.execute, "UPDATE outbox SET body = x'c1ff00' WHERE seq = 2")
        city.rows.clear()
        city.upto.clear()
        city.acks = True
        await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()))
        rows = city.rows
        for source in (gateway.outbox.sos, gateway.outbox.events):
            kinds = [type(rows[source.lane, source.epoch, seq]) for seq in (1, 2, 3)]
            assert kinds == [kinds[0], Poison, kinds[0]]
        counters = gateway.uplink.counters()
        assert counters["uplink_sos_poison"] > 0
        assert counters["uplink_events_poison"] > 0

    over(tmp_path, story, acks=False)


# ---- brokers that go and come ----------------------------------------------------------------------------------------


@needs_mosquitto
def test_a_broker_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        for _ in range(3):
            cries = asyncio.create_task(gateway.cry(20))
            rows = asyncio.create_task(gateway.routine(600))
            await asyncio.sleep(chance.uniform(0, 0.05))
            broker.kill()
            await asyncio.gather(cries, rows)
            broker.start()
        await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()), 60)
        assert set(city.seqs("sos")) == set(range(1, 61))
        assert set(city.seqs("events")) == set(range(1, 1801))
        assert gateway.uplink.counters()["mqtt_sos_connects"] >= 2
        assert ("sos_broker_away", False) in gateway.words()
        assert ("sos_broker_away", True) in gateway.words()

    over(tmp_path, story)


@needs_mosquitto
def test_a_broker_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        broker = Broker(tmp_path / "broker")
        async with bed(tmp_path / "store", broker.port) as gateway:
            await gateway.cry(2)
            await gateway.until("the word", lambda: ("sos_broker_away", False) in gateway.words())
            detail = next(detail for what, _, detail in gateway.said if what == "sos_broker_away")
            assert f"127.0.0.1:{broker.port}" in detail
            assert "keeps its rows" in detail
            with broker:
                city = City(broker.port)
                try:
                    await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
                finally:
                    city.close()
            assert gateway.uplink.sos.version == "5", "a refused connection is no reason to speak an older MQTT"

    asyncio.run(main())


@needs_mosquitto
def test_a_crashed_gateway_sends_again_from_the_watermark(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry(5)
        await gateway.until("arrival", lambda: len(set(city.seqs("sos"))) == 5)
        city.send(Watermark(epoch=gateway.outbox.sos.epoch, lane="sos", upto=2))
        await gateway.until("two rows less", lambda: gateway.backlog()["sos"] == 3)
        await gateway.crash()
        await gateway.outbox.close()
        gateway.closed = True
        city.seen.clear()
        city.acks = True
        async with bed(tmp_path / "store", broker.port) as again:
            await again.until("an empty outbox", lambda: not again.backlog()["sos"])
        assert city.seqs("sos")[:3] == [3, 4, 5]

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_what_stops_answering_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes the connection and never says a word."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.2)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with bed(tmp_path / "store", silent.getsockname()[1]) as gateway:
                await gateway.until("the word", lambda: ("sos_broker_away", False) in gateway.words())
                assert "no answer to CONNECT" in next(detail for _, _, detail in gateway.said)

    asyncio.run(main())


@needs_mosquitto
def test_connections_made_again_leave_no_socket_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.3)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        def sockets() -> int:
            return sum("socket" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                       if os.path.islink(f"/proc/self/fd/{fd}"))  # fmt: skip

        before = sockets()
        for n in range(2, 7):
            gateway.uplink.sos._end(None)
            await gateway.until("another session", lambda n=n: gateway.uplink.sos.session == n)
        await gateway.connected()
        assert sockets() <= before

    over(tmp_path, story)


# ---- what a broker says ----------------------------------------------------------------------------------------------


@needs_mosquitto
def test_a_forbidden_topic_is_counted_told_and_keeps_its_rows(tmp_path: Path) -> None:
    acl = f"topic readwrite {topic(SITE, GATEWAY, 'status')}\ntopic read {topic(SITE, GATEWAY, 'ack')}\n"

    async def main() -> None:
        with Broker(tmp_path / "broker", acl=acl) as broker:
            async with bed(tmp_path / "store", broker.port) as gateway:
                await gateway.connected()
                await gateway.cry(2)
                await gateway.until("the count", lambda: gateway.uplink.sos.counters["not_authorized"] >= 2)
                said = [detail for what, ok, detail in gateway.said if (what, ok) == ("sos_not_authorized", False)]
                assert said == [f"the broker will not let us publish to {topic(SITE, GATEWAY, 'sos')}; mend its ACL"]
                assert gateway.backlog()["sos"] == 2
                gateway.uplink.publish_status()
                await gateway.until("its PUBACK", lambda: not gateway.uplink.sos._unacked)
                assert ("sos_not_authorized", True) not in gateway.words(), "another topic's success mends nothing"

    asyncio.run(main())


@needs_mosquitto
def test_a_city_that_does_not_listen_is_told_of(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry()
        await gateway.until("the word", lambda: ("sos_no_subscriber", False) in gateway.words())
        assert gateway.uplink.sos.counters["no_subscriber"] >= 1
        assert gateway.backlog()["sos"] == 1
        listening = City(broker.port)
        try:
            await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
            assert ("sos_no_subscriber", True) in gateway.words()
        finally:
            listening.close()

    over(tmp_path, story, listens=False)


@needs_mosquitto
def test_a_twin_of_this_box_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mosquitto 2.0.11 closes the older of two connections of one name without a word."""
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.3)

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        twin = Bed(tmp_path / "twin", broker.port).start()
        try:
            await gateway.until("the word", lambda: {("sos_flapping", False), ("sos_taken_over", False)}
                                & gateway.words())  # fmt: skip
            detail = next(d for what, _, d in gateway.said if what in ("sos_flapping", "sos_taken_over"))
            assert f"ansim-{SITE}-{GATEWAY}-sos" in detail
        finally:
            await twin.close()
        monkeypatch.setattr(connection, "ALONE_S", 0.1)
        await gateway.until("the good word", lambda: {("sos_flapping", True), ("sos_taken_over", True)}
                            & gateway.words())  # fmt: skip

    over(tmp_path, story)


@needs_nats
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.cry()
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
        assert gateway.uplink.sos.version == "3.1.1"
        gateway.uplink.sos._end(None)
        await gateway.until("another session", lambda: gateway.uplink.sos.session == 2)
        assert gateway.uplink.sos.version == "3.1.1", "it is remembered"

    over(tmp_path, story, "nats")


@needs_mosquitto
def test_one_connection_closed_without_an_answer_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    async def main() -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal calls
            calls += 1
            writer.close()

        calls = 0
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        gateway = Bed(tmp_path / "store", server.sockets[0].getsockname()[1])
        sos = gateway.uplink.sos
        gateway.tasks = [asyncio.create_task(sos.run(lambda: None))]
        try:
            await gateway.until("the first", lambda: calls == 1 and ("sos_broker_away", False) in gateway.words())
            assert sos.version == "5"
            await gateway.until("the second", lambda: calls >= 2 and sos.version == "3.1.1")
            await gateway.until("5 again, since 3.1.1 is no better", lambda: sos.version == "5")
        finally:
            await gateway.close()
            server.close()

    asyncio.run(main())


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@needs_mosquitto
def test_a_version_asked_for_is_kept_to(tmp_path: Path, protocol: str) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        assert [each.version for each in gateway.uplink.connections] == [protocol, protocol]
        await gateway.cry()
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])

    over(tmp_path, story, protocol=protocol)


@needs_mosquitto
def test_no_more_is_under_way_than_the_broker_asked_for(tmp_path: Path) -> None:
    """mosquitto's CONNACK says Receive Maximum 20."""

    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        assert gateway.uplink.sos.room() <= 20 < connection.UNACKED_MAX["sos"]
        most = 0
        publish = gateway.uplink.sos.publish

        def watched(*arguments: Any, **more: Any) -> bool:
            nonlocal most
            done = publish(*arguments, **more)
            most = max(most, len(gateway.uplink.sos._unacked))
            return done

        gateway.uplink.sos.publish = watched  # type: ignore[method-assign]
        gateway.uplink.sos._end(None)
        await gateway.cry(100)
        await gateway.until("an empty outbox", lambda: not gateway.backlog()["sos"])
        assert 0 < most <= 20

    over(tmp_path, story)


# ---- status, stages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [pytest.param("mosquitto", marks=needs_mosquitto), pytest.param("nats", marks=needs_nats)],
)
def test_the_status_is_retained_and_a_crash_leaves_a_will(tmp_path: Path, kind: str) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.until("online", lambda: [status.online for status in city.statuses][-1:] == [True])
        late = City(broker.port)
        try:
            await gateway.until("the retained one", lambda: late.statuses)
            assert (late.statuses[0].online, late.retained[0]) == (True, True)
        finally:
            late.close()
        await gateway.crash()
        gateway.uplink.sos._down()
        await gateway.until("the will", lambda: not city.statuses[-1].online)

    over(tmp_path, story, kind)


@needs_mosquitto
def test_a_goodbye_is_said_and_is_no_fault(tmp_path: Path) -> None:
    async def main() -> None:
        with Broker(tmp_path / "broker") as broker:
            city = City(broker.port)
            try:
                async with bed(tmp_path / "store", broker.port) as gateway:
                    await gateway.connected()
                    await gateway.until("online", lambda: city.statuses and city.statuses[-1].online)
                late = City(broker.port)
                try:
                    await gateway.until("offline", lambda: late.statuses)
                    assert (late.statuses[0].online, late.retained[0]) == (False, True)
                finally:
                    late.close()
                assert {what for what, ok in gateway.words() if not ok} == set()
            finally:
                city.close()

    asyncio.run(main())


@needs_mosquitto
def test_stages_reach_the_daemon_once_though_both_connections_hear_them(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        for stage in ("stored", "acknowledged"):
            city.send(StageNotice(alarm="gw1-e-1", stage=stage, at=AT))  # type: ignore[arg-type]
        await gateway.until("both", lambda: len(gateway.stages) >= 2)
        city.send(StageNotice(alarm="gw1-e-2", stage="closed", at=AT))
        await gateway.until("the last", lambda: gateway.stages[-1].alarm == "gw1-e-2")
        assert [stage.stage for stage in gateway.stages] == ["stored", "acknowledged", "closed"]
        gateway.uplink._ack("events", encode_ack(StageNotice(alarm="x", stage="stored", at=AT)))
        assert len(gateway.stages) == 3
        gateway.uplink.sos.up.clear()
        gateway.uplink._ack("events", encode_ack(StageNotice(alarm="x", stage="stored", at=AT)))
        assert len(gateway.stages) == 4, "heard by the other one while the emergency connection is away"
        gateway.uplink.sos.up.set()

    over(tmp_path, story)


# ---- the emergency lane ----------------------------------------------------------------------------------------------


@needs_mosquitto
def test_an_emergency_overtakes_a_backlog_of_routine(tmp_path: Path) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        await gateway.routine(5000)
        await gateway.until("a full window", lambda: len(city.seqs("events")) >= 800)
        before = len(city.seqs("events"))
        await gateway.cry()
        await gateway.until("the cry", lambda: city.seqs("sos"))
        assert len(city.seqs("events")) == before == 800, "routine stands still at its window, the cry does not"
        city.acks = True
        city.acknowledge("events", gateway.outbox.events.epoch)
        await gateway.cry()
        await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()))
        last_cry = max(i for i, (lane, _, _) in enumerate(city.seen) if lane == "sos")
        assert city.seen[last_cry + 1 :], "the second cry passed the rest of the backlog"

    over(tmp_path, story, acks=False)


@needs_mosquitto
def test_an_emergency_no_disk_takes_is_sent_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(gateway: Bed, city: City, broker: Broker) -> None:
        def no_disk(*_: object) -> list[int]:
            raise NotCommitted("no disk")

        monkeypatch.setattr(gateway.outbox.sos.store, "commit", no_disk)
        with pytest.raises(NotCommitted):
            await gateway.outbox.commit_emergency(told("gw1-e-9"))
        ring = gateway.outbox.ring
        await gateway.until("the cry", lambda: ("sos", ring.epoch, 1) in city.rows)
        event = city.rows["sos", ring.epoch, 1]
        assert isinstance(event, Told)
        assert event.alarm == "gw1-e-9"
        await gateway.until("its watermark", lambda: not ring.backlog)

    over(tmp_path, story)
