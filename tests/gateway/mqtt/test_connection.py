"""No broker stops a connection: not one that is down, killed, silent, without MQTT 5, or that forbids a topic."""

import asyncio
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from gateway.mqtt import connection
from gateway.uplink import topic
from tests.gateway.mqtt.bed import GATEWAY, SITE, Bed, Broker, City, bed, needs_mosquitto, needs_nats, over


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
def test_what_stops_answering_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port accepts the connection and never sends a byte."""
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
    """mosquitto 2.0.11 closes the older of two connections with the same client id and gives no reason."""
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
