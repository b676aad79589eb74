"""What the MQTT tests share: a real broker, a gateway with a real outbox, and a city that the test controls."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.events import GatewayHealth, Told
from gateway.mqtt.city_link import CityLink
from gateway.mqtt.connection import BrokerAccess
from gateway.mqtt.keys import KeyFile
from gateway.options import MqttTable
from gateway.outbox.lanes import Outbox
from gateway.uplink import (
    LANES,
    Ack,
    Lane,
    StageNotice,
    Status,
    Watermark,
    decode_batch,
    decode_status,
    decode_urgent,
    encode_ack,
    seal,
    topic,
    unseal,
)
from sim.demo import broker as brokers
from tests import programs
from tests.city.bed import KEYS, free_port, write_keys

SITE, GATEWAY = "testsite", "gw1"
WAIT_S = 20.0
AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)

needs_mosquitto = programs.needs("mosquitto")
needs_nats = programs.needs("nats-server")


class Broker:
    """mosquitto (MQTT 5) or nats-server (3.1.1 only) as a process that a test can kill and start again."""

    def __init__(self, folder: Path, kind: str = "mosquitto", acl: str = "") -> None:
        self.folder, self.kind, self.port = folder, kind, free_port()
        folder.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        config = folder / "broker.conf"
        if kind == "mosquitto":
            lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", "log_type all"]
            if acl:
                (folder / "acl").write_text(acl)
                (folder / "acl").chmod(0o600)
                lines += [f"acl_file {folder / 'acl'}", "user root"]
            config.write_text("\n".join(lines) + "\n")
            self.command = [str(brokers._mosquitto()), "-c", str(config)]
        else:
            config.write_text(
                f'server_name: t\nhost: "127.0.0.1"\nport: {free_port()}\n'
                f'jetstream {{ store_dir: "{folder}/data" }}\nmqtt {{ host: "127.0.0.1", port: {self.port} }}\n'
            )
            self.command = [str(brokers._nats()), "-c", str(config)]

    def start(self) -> "Broker":
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        end_s = time.monotonic() + WAIT_S
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.01)
        raise AssertionError(f"{self.kind} did not start: {(self.folder / 'log').read_text()[-1000:]}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class City:
    """A city that keeps what arrives, in order, and acknowledges it if `acks`. Its watermark is as in the contract."""

    def __init__(self, port: int, *, version: Any = paho.MQTTv311, acks: bool = True, listens: bool = True) -> None:
        self.acks, self.port, self.keys = acks, port, KEYS
        self.seen: list[tuple[Lane, str, int]] = []
        """(lane, epoch, seq) of every row in order of arrival, with repetitions."""
        self.rows: dict[tuple[Lane, str, int], Any] = {}
        self.upto: dict[tuple[Lane, str], int] = {}
        self.statuses: list[Status] = []
        self.retained: list[bool] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"city-{time.monotonic_ns()}",
                                  protocol=version)  # fmt: skip
        self.client.reconnect_delay_set(1, 1)
        kinds = ("sos", "events", "status") if listens else ("status",)
        self.client.on_connect = lambda c, *_: c.subscribe([(topic(SITE, GATEWAY, kind), 1) for kind in kinds])
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self._take
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(WAIT_S), "the broker answers no SUBSCRIBE"

    def _take(self, _client: Any, _data: Any, message: Any) -> None:
        payload = unseal(self.keys, message.topic, bytes(message.payload))
        if message.topic.endswith("/status"):
            self.statuses.append(decode_status(payload))
            self.retained.append(message.retain)
            return
        found: list[tuple[int, Any]]
        if message.topic.endswith("/sos"):
            urgent = decode_urgent(payload)
            lane, epoch, after, found = "sos", urgent.epoch, urgent.after, [(urgent.seq, urgent.event)]
        else:
            batch = decode_batch(payload)
            lane, epoch, after = "events", batch.epoch, batch.after
            found = [(row.seq, row.event) for row in batch.rows]
        name: Lane = "sos" if lane == "sos" else "events"
        for seq, event in found:
            self.seen.append((name, epoch, seq))
            self.rows[name, epoch, seq] = event
        if after <= self.upto.get((name, epoch), 0):
            self.upto[name, epoch] = max(self.upto.get((name, epoch), 0), found[-1][0])
        if self.acks:
            self.acknowledge(name, epoch)

    def acknowledge(self, lane: Lane, epoch: str) -> None:
        self.send(Watermark(epoch=epoch, lane=lane, upto=self.upto.get((lane, epoch), 0)))

    def send(self, ack: Ack) -> None:
        name = topic(SITE, GATEWAY, "ack")
        self.client.publish(name, seal(self.keys, name, encode_ack(ack)), qos=1)

    def seqs(self, lane: Lane) -> list[int]:
        return [seq for of, _, seq in self.seen if of == lane]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Bed:
    """A running gateway: its outbox and its uplink."""

    def __init__(self, folder: Path, port: int, protocol: Any = "auto", gateway: str = GATEWAY) -> None:
        self.said: list[tuple[str, bool, str]] = []
        self.stages: list[StageNotice] = []
        self.outbox = Outbox(
            folder,
            utc_now=lambda: datetime.now(UTC),
            on_health=self._on_health,
            bulk_max_b=50_000_000,
            ballast_b=1 << 16,
        )
        self.key_file = folder.parent / f"{folder.name}.keys"
        write_keys(self.key_file, KEYS)
        self.address = BrokerAccess(SITE, gateway, MqttTable(host="127.0.0.1", port=port, protocol=protocol))
        self.uplink = CityLink(
            self.address,
            self.outbox.sources,
            KeyFile(self.key_file, on_health=self._on_health),
            on_health=self._on_health,
            on_stage=self.stages.append,
            status=self._status,
        )
        self.tasks: list[asyncio.Task[Any]] = []
        self.closed = False

    def _on_health(self, what: str, ok: bool, detail: str) -> None:
        self.said.append((what, ok, detail))

    def _status(self, online: bool) -> Status:
        return Status(online=online, gateway=GATEWAY, site=SITE, at=datetime.now(UTC), version="test")

    def start(self) -> "Bed":
        loops = [self.outbox.run_groups, *(c.run for c in self.uplink.connections),
                 *(s.run for s in self.uplink.senders)]  # fmt: skip
        self.tasks = [asyncio.create_task(run(lambda: None)) for run in loops]
        return self

    async def until(self, what: str, true: Callable[[], Any], seconds: float = WAIT_S) -> None:
        end_s = time.monotonic() + seconds
        while not true():
            for task in self.tasks:
                assert not task.done(), f"a loop ended: {task}"
            assert time.monotonic() < end_s, (
                f"waited {seconds} s for {what}; said {self.said}; {self.uplink.counters()}"
            )
            await asyncio.sleep(0.01)

    async def connected(self) -> None:
        await self.until("both connections", lambda: all(c.up.is_set() for c in self.uplink.connections))

    async def cry(self, n: int = 1) -> None:
        for i in range(n):
            await self.outbox.commit_emergency(told(f"gw1-e-{i}"))

    async def routine(self, n: int) -> None:
        assert all(await asyncio.gather(*(self.outbox.queue(health(i)) for i in range(n))))

    def backlog(self) -> dict[Lane, int]:
        return {lane: source.backlog for lane, source in zip(LANES, (self.outbox.sos, self.outbox.events), strict=True)}

    def words(self) -> set[tuple[str, bool]]:
        return {(what, ok) for what, ok, _ in self.said}

    async def crash(self) -> None:
        """End without a DISCONNECT: what is being sent is lost, and the broker publishes the last will."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.uplink.stop()
            await self.crash()
            await self.outbox.close()


@contextlib.asynccontextmanager
async def bed(folder: Path, port: int, protocol: Any = "auto") -> AsyncIterator[Bed]:
    made = Bed(folder, port, protocol).start()
    try:
        yield made
    finally:
        await made.close()


Work = Callable[[Bed, City, Broker], Coroutine[Any, Any, None]]


def over(tmp_path: Path, work: Work, kind: str = "mosquitto", protocol: str = "auto", **city: Any) -> None:
    """Run a story with a broker, a city and a connected gateway."""

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


def told(alarm: str) -> Told:
    return Told(observed_at=AT, clock="good", alarm=alarm, reader=1, stage="received")


def health(i: int) -> GatewayHealth:
    return GatewayHealth(observed_at=AT, clock="good", what=f"w{i}", ok=True, detail="d")
