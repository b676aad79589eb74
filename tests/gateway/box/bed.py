"""A gateway box on the bench: its configuration, an emulated stick on a pseudo-terminal, and readers that send."""

import asyncio
import contextlib
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway import uplink
from gateway.box import metrics
from gateway.box.daemon import Daemon
from gateway.config import load as config
from gateway.core.frames import Frame
from gateway.events import Emergency, GatewayHealth
from gateway.options import Installation
from readers import wire
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.messages import Broadcast, Unicast
from sim.ncp.nvm import Nvm
from sim.xbee.module import install_code
from tests.city.bed import KEYS as LINK
from tests.city.bed import write_keys
from tests.gateway.core.bed import KEYS, TAGS, Pole, zone
from tests.waiting import until

SEED = 20261123
READERS = 3
STICK = bytes.fromhex("f4ce360000000001")

LOG = io.StringIO()
metrics.log_to(metrics.Lines(LOG))


def eui64(number: int) -> bytes:
    return bytes.fromhex(f"{number:016x}")


def nwk(number: int) -> int:
    """Return the network address that `tests.gateway.core.bed.Pole` puts on its frames."""
    return 0x1000 + number


def write_config(folder: Path, port: Path, *, enrolled: bool = False, extra: str = "", mqtt_port: int = 9) -> Path:
    """Write a box's configuration and secrets. No broker listens at mqtt_port 9: these tests end at the outbox."""
    folder.mkdir(exist_ok=True)

    def secret(name: str, rows: dict[str, Any]) -> None:
        (folder / name).write_text(json.dumps(rows))
        (folder / name).chmod(0o600)

    write_keys(folder / "city.keys", LINK)
    street = zone(READERS)
    secret("reader_keys.json", {str(reader.number): KEYS[reader.number].hex() for reader in street.readers})
    secret("tag_keys.json", {tag: {"k_id": k.k_id.hex(), "k_mic": k.k_mic.hex()} for tag, k in TAGS.items()})
    lines = ['site = "testsite"', 'gateway = "gw1"', "[radio]", f'port = "{port}"']
    if enrolled:
        rows = {r.eui64: install_code(bytes.fromhex(r.eui64)).hex() for r in street.readers}
        numbers = {str(r.number): {"eui64": r.eui64, "install_code": rows[r.eui64]} for r in street.readers}
        secret("enrolment.json", numbers)
        lines.append('enrolment = "enrolment.json"')
    lines += ["[store]", 'folder = "outbox"', "[mqtt]", 'host = "127.0.0.1"', f"port = {mqtt_port}"]
    lines += ["[clock]", "trusted = true", extra]
    for reader in street.readers:
        lines += ["[[readers]]", f"number = {reader.number}", f'eui64 = "{reader.eui64}"']
        lines += [f"lon = {reader.lon}", f"lat = {reader.lat}"]
    lines += ["[[bells]]", 'id = "gate-bell"', "reader = 2"]
    path = folder / "gateway.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def load(folder: Path, port: Path, **kwargs: Any) -> Installation:
    return config.load(write_config(folder, port, **kwargs))


class Stick:
    """An emulated stick and what it was asked to send. It can be plugged in, pulled out and replaced."""

    def __init__(self, path: Path, nvm: Nvm | None = None) -> None:
        self.path, self.nvm = path, nvm or Nvm(STICK)
        self.unicasts: list[Unicast] = []
        self.zcl: list[Unicast] = []
        """What was sent to devices of other makers."""
        self.broadcasts: list[Broadcast] = []
        self.fate: Callable[[Unicast], bool] = lambda message: True
        self.coordinator: Coordinator
        self.line: PtyCoordinator
        self._plugs = contextlib.AsyncExitStack()

    async def plug(self, nvm: Nvm | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.nvm = nvm or self.nvm
        self.coordinator = Coordinator(
            self.nvm, seed=SEED, now=loop.time, on_unicast=self._unicast, on_broadcast=self.broadcasts.append
        )
        self.line = await self._plugs.enter_async_context(PtyCoordinator(self.coordinator, self.path))

    async def unplug(self) -> None:
        await self._plugs.aclose()

    def hear(self, frame: Frame, **kwargs: Any) -> bool:
        """Let a reader's frame arrive by radio; return whether the stick acknowledges it."""
        fields: dict[str, Any] = {
            "nwk": frame.nwk, "profile_id": 0xC105, "cluster_id": 0x11, "source_endpoint": 0xE8,
            "destination_endpoint": 0xE8, "payload": frame.payload, "lqi": frame.lqi, "rssi_dbm": frame.rssi_dbm,
        }  # fmt: skip
        return self.coordinator.receive(**fields | kwargs)

    def stages(self, pole: Pole) -> list[tuple[int, int]]:
        """Return the (alarm, stage) rows that reached this reader's address, as its firmware reads them."""
        rows: list[tuple[int, int]] = []
        for message in self.unicasts:
            if message.nwk == nwk(pole.number):
                kind, body = pole.read(message.payload)
                stages = wire.decode_stage(body) if kind == wire.STAGE else []
                rows += [(number, stage & ~wire.PROVEN) for number, stage in stages]
        return rows

    def _unicast(self, message: Unicast) -> None:
        if message.profile_id == 0xC105:
            self.unicasts.append(message)
        elif message.profile_id == 0x0104:
            self.zcl.append(message)
        ok = self.fate(message)
        asyncio.get_running_loop().call_soon(self.coordinator.delivered, message.handle, ok)


@asynccontextmanager
async def plugged(folder: Path, nvm: Nvm | None = None) -> AsyncIterator[Stick]:
    stick = Stick(folder / "stick", nvm)
    await stick.plug()
    try:
        yield stick
    finally:
        await stick.unplug()


@asynccontextmanager
async def running(settings: Installation, *, radio_up: bool = True) -> AsyncIterator[Daemon]:
    """Run a daemon in this process; at the end, stop it as SIGTERM does."""
    daemon = Daemon(settings)
    task = asyncio.create_task(daemon.run())
    try:
        if radio_up:
            await until(lambda: daemon.radio.up or task.done(), "the radio")
        yield daemon
        assert not task.done(), "the gateway ended by itself"
    finally:
        daemon.stop()
        assert await task == 0


def rows(folder: Path, lane: uplink.Lane) -> list[Any]:
    """Return the events that are in an outbox on disk now, the oldest first, read by another connection."""
    path = folder / f"{lane}.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as db:
        found = [bytes(body) for (body,) in db.execute("SELECT body FROM outbox ORDER BY seq")]
    if lane == "sos":
        return [msgspec.json.decode(body, type=Emergency) for body in found]
    events: list[Any] = []
    for body in found:
        batch = uplink.encode_batch(gateway="gw1", epoch="e", after=0, sent_at=datetime.now(UTC), rows=[(1, body)])
        events += [row.event for row in uplink.decode_batch(batch).rows]
    return events


def of(kind: type, events: list[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def told(settings: Installation, what: str) -> list[GatewayHealth]:
    """Return the health reports about `what` that are on disk."""
    return [event for event in of(GatewayHealth, rows(settings.folder, "events")) if event.what == what]
