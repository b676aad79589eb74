"""The link to the city: status and last will, stages for the lamps, and emergencies that overtake routine events."""

import asyncio
from pathlib import Path

import pytest

from gateway.events import Told
from gateway.outbox.lane_file import NotCommitted
from gateway.uplink import StageNotice, encode_ack, seal, topic
from tests.city.bed import KEYS
from tests.gateway.mqtt.bed import (
    AT,
    GATEWAY,
    SITE,
    Bed,
    Broker,
    City,
    bed,
    needs_mosquitto,
    needs_nats,
    over,
    told,
)


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
        stage = seal(KEYS, topic(SITE, GATEWAY, "ack"), encode_ack(StageNotice(alarm="x", stage="stored", at=AT)))
        gateway.uplink._ack("events", stage)
        assert len(gateway.stages) == 3
        gateway.uplink.sos.up.clear()
        gateway.uplink._ack("events", stage)
        assert len(gateway.stages) == 4, "heard by the other one while the emergency connection is away"
        gateway.uplink.sos.up.set()

    over(tmp_path, story)


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
