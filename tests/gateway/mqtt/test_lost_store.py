"""The city hears which emergencies were lost with a gateway's store: as an incident, and as a word on its health."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.events import GatewayHealth
from gateway.uplink import POISON_MAX_B, Poison, Urgent, decode_urgent, encode_urgent
from tests.gateway.mqtt.bed import Bed, Broker, City, bed, needs_mosquitto

AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@needs_mosquitto
def test_the_city_is_told_which_emergencies_are_gone_with_a_lost_store(tmp_path: Path) -> None:
    async def story() -> None:
        with Broker(tmp_path / "broker") as broker:
            gateway = Bed(tmp_path / "store", broker.port)
            await gateway.cry(5)
            epoch = gateway.outbox.sos.epoch
            await gateway.outbox.sos.acknowledged(epoch, 2)
            await gateway.outbox.close()
            (tmp_path / "store" / "sos.db").unlink()
            city = City(broker.port)
            try:
                async with bed(tmp_path / "store", broker.port) as again:
                    await again.connected()
                    [(what, ok, detail)] = again.said[:1]
                    event = GatewayHealth(observed_at=AT, clock="good", what=what, ok=ok, detail=detail)
                    await again.outbox.queue(event)
                    await again.until("empty outboxes", lambda: not any(again.backlog().values()))
                    [lost] = [event for (lane, _, _), event in city.rows.items() if lane == "sos"]
                    assert isinstance(lost, Poison)
                    assert f"rows 3 to 5 of epoch {epoch} were lost on the gateway" in lost.reason
                    [word] = [event for (lane, _, _), event in city.rows.items() if lane == "events"]
                    assert (word.what, word.ok) == ("sos_store_rolled_back", False)
                    assert f"rows 3 to 5 of epoch {epoch} are gone" in word.detail
            finally:
                city.close()

    asyncio.run(story())


def test_what_a_gateway_says_of_a_row_that_it_cannot_read_reaches_the_city() -> None:
    def sent(event: Poison) -> Poison:
        message = Urgent(gateway="gw1", epoch="e1", seq=7, after=5, queued_at=AT, event=event)
        read = decode_urgent(encode_urgent(message)).event
        assert isinstance(read, Poison)
        return read

    assert sent(Poison(b"\xff\x00", "no JSON")) == Poison(b"\xff\x00", "no JSON")
    long = sent(Poison(bytes(2 * POISON_MAX_B), "x" * 500))
    assert (len(long.raw), len(long.reason)) == (POISON_MAX_B, 200)
    message = msgspec.json.decode(encode_urgent(Urgent(gateway="gw1", epoch="e1", seq=7, after=5, queued_at=AT,
                                                       event=Poison(b"", ""))))  # fmt: skip
    message["event"] = {"raw": "no base64", "reason": "r"}
    foreign = decode_urgent(msgspec.json.encode(message)).event
    assert isinstance(foreign, Poison)
    assert b"no base64" in foreign.raw
