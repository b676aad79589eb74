"""Only the city's watermark removes rows from the outbox; rows that the city does not acknowledge are sent again."""

from pathlib import Path

import pytest

from gateway.mqtt import sender
from gateway.uplink import Poison, StageNotice, Watermark, seal, topic
from tests.city.bed import KEYS
from tests.gateway.mqtt.bed import AT, GATEWAY, SITE, Bed, Broker, City, bed, needs_mosquitto, needs_nats, over


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
        # The number is counted after the rows are gone from the outbox.
        await gateway.until("the watermark", lambda: gateway.uplink.counters()["uplink_events_watermark"] == 1200)
        await gateway.until("the rows", lambda: gateway.uplink.counters()["uplink_sos_acknowledged_rows"] == 70)
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
        name = topic(SITE, GATEWAY, "ack")
        for rubbish in (b"", b"\xff", b"[" * 5000, b'{"ack":"watermark"}'):
            city.client.publish(name, seal(KEYS, name, rubbish), qos=1)
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
