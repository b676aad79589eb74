"""A broker that would fill the memory of those who connect to it: both ends hold little, say so, and go on."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway import uplink
from gateway.mqtt import connection
from gateway.packets import PACKET_MAX_B, UNSENT_MAX
from tests.city.bed import City, wait_for
from tests.gateway.mqtt.bed import GATEWAY, SITE, bed
from tests.gateway.mqtt.fake_broker import fake_broker, publish

ACK, SOS = uplink.topic(SITE, GATEWAY, "ack"), uplink.topic(SITE, GATEWAY, "sos")
PIECE = b"x" * 100_000
HUGE_B = 200_000_000
HELD_MAX_B = 60_000_000
"""Most that the city's process may grow by. Whole, the packets here took it 200 to 500 MB."""


class Endless:
    """Messages of QoS 2, one after the other, up to 200 MB."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version, self.sent = name, version, 0

    def __iter__(self) -> Iterator[bytes]:
        self.sent = 0
        for mid in range(1, 2001):
            self.sent += len(PIECE)
            yield publish(self.name, PIECE, qos=2, version=self.version, mid=mid)


class Huge:
    """One message of 200 MB, then a short one."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version

    def __iter__(self) -> Iterator[bytes]:
        yield publish(self.name, b"", qos=1, version=self.version, size=HUGE_B)
        for _ in range(HUGE_B // len(PIECE)):
            yield PIECE
        yield publish(self.name, b"short", qos=1, version=self.version, mid=2)


class Deaf:
    """Messages that it wants an answer to, and it reads none."""

    def __init__(self, name: str, version: str) -> None:
        self.many = publish(name, b"x" * 20, qos=1, version=version) * 100

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(10_000):
            yield self.many


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.3)


def held_b(city: City) -> int:
    """Return the most memory that the process ever had."""
    assert city.process is not None
    text = Path(f"/proc/{city.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


async def told(city: City, reason: str, said: str) -> None:
    """Wait until the city counts and reports what its broker did."""
    async with asyncio.timeout(30):
        while True:
            stats = await asyncio.to_thread(city.get, "/api/stats")
            if any(name.endswith(reason) for name in stats["forged"]):
                break
            await asyncio.sleep(0.1)
    assert any(said in text for text in stats["problems"]), stats["problems"]


@contextlib.asynccontextmanager
async def city_at(port: int, folder: Path, version: str) -> AsyncIterator[City]:
    city = City(folder, port)
    city.config.write_text(city.config.read_text().replace("[mqtt]\n", f'[mqtt]\nprotocol = "{version}"\n'))
    try:
        await asyncio.to_thread(city.start)
        yield city
    finally:
        await asyncio.to_thread(city.stop)


VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@VERSIONS
@pytest.mark.parametrize(
    ("attack", "reason", "said"),
    [
        (Endless, ".breach", "the broker sent a message with QoS 2"),
        (Huge, ".size", "bytes; a sealed message has"),
    ],
)
def test_a_greedy_broker_does_not_fill_the_memory_of_the_city(
    tmp_path: Path, version: str, attack: type[Endless | Huge], reason: str, said: str
) -> None:
    async def main() -> None:
        async with fake_broker({}) as fake, city_at(fake.port, tmp_path, version) as city:
            before = held_b(city)
            fake.attack = attack(SOS, version)
            fake.hang_up()
            await told(city, reason, said)
            await asyncio.sleep(1.0)  # let it send on, if somebody still takes it
            assert held_b(city) - before < HELD_MAX_B
            assert fake.attacks

    asyncio.run(main())


@VERSIONS
def test_the_gateway_leaves_a_greedy_broker_says_why_and_comes_back(tmp_path: Path, version: str) -> None:
    async def main() -> None:
        async with fake_broker({}) as fake, bed(tmp_path / "store", fake.port, version) as gateway:
            await gateway.connected()
            fake.attack = Endless(ACK, version)
            fake.hang_up()
            sos = gateway.uplink.sos
            await gateway.until("two breaches", lambda: sos.counters["breaches"] >= 2)
            said = [d for what, ok, d in gateway.said if (what, ok) == ("sos_broker_away", False)]
            fake.attack = None
            await gateway.cry()
            await gateway.until("the cry", lambda: any(t.endswith("/sos") for _, t in fake.published))
            assert sos.version == version
            assert said

    asyncio.run(main())


@VERSIONS
def test_a_huge_packet_is_cut_and_what_follows_it_is_read(tmp_path: Path, version: str) -> None:
    """It must not end the connection: a broker of 3.1.1 that keeps a session would send it again for ever."""

    async def main() -> None:
        async with fake_broker({}) as fake, bed(tmp_path / "store", fake.port, version) as gateway:
            await gateway.connected()
            heard: list[int] = []
            for each in gateway.uplink.connections:
                each._on_ack = lambda lane, payload: heard.append(len(payload))
            fake.attack = Huge(ACK, version)
            fake.hang_up()
            await gateway.until("the short message after it", lambda: heard.count(len(b"short")) == 2)
            assert sorted(heard)[:2] == [5, 5]
            assert uplink.MESSAGE_MAX_B < max(heard) < PACKET_MAX_B

    asyncio.run(main())


@VERSIONS
def test_a_broker_that_reads_no_answer_is_left(version: str) -> None:
    """Small buffers of the kernel on both sides, so that the packets wait in paho."""

    async def main() -> None:
        async with fake_broker({}, buffer_b=4096) as fake:
            fake.attack = Deaf(ACK, version)
            client = connection._BrokerClient(
                CallbackAPIVersion.VERSION2,
                protocol=paho.MQTTv5 if version == "5" else paho.MQTTv311,
                reconnect_on_failure=False,
            )
            client.on_socket_open = lambda c, u, sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.on_connect = lambda c, *_: c.subscribe(ACK, qos=1)
            said: list[str] = []
            client.on_breach = said.append
            await asyncio.to_thread(client.connect, "127.0.0.1", fake.port)
            client.loop_start()
            try:
                await asyncio.to_thread(wait_for, "the end of the connection", lambda: client.socket() is None)
                assert said == [f"the broker did not read {UNSENT_MAX} of our packets; look at the broker and the line"]
                assert len(client._out_packet) <= UNSENT_MAX + 2
            finally:
                await asyncio.to_thread(client.loop_stop)

    asyncio.run(main())
