"""Six readers with real firmware in a simulated mesh and air, and the gateway's core behind a stick."""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Downlink
from gateway.zone import Plane, ReaderSettings, Zone
from gateway.zone import Reader as ZoneReader
from readers.advertisement import TagKeys
from sim import chance
from sim.air.hops import Mac
from sim.air.mesh import Mesh
from sim.air.radio import Air, Channel, ReaderEar
from sim.clock import Clock
from sim.ncp.messages import Unicast
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess
from sim.street.paths import Spot

PLANE = Plane(126.95, 37.54)
AT = {1: (0.0, 0.0), 2: (32.0, 3.0), 3: (61.0, -4.0), 4: (3.0, 29.0), 5: (30.0, 34.0), 6: (64.0, 31.0)}
HEIGHT_M = 3.5
POWER_S = 0.5


def key(number: int) -> bytes:
    return bytes([number]) * 16


def mac_of(number: int) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(key(number), data, hashlib.sha256).digest()


class Gateway:
    """The core behind a stick that accepts everything: frames go in, downlinks go back into the mesh."""

    def __init__(
        self,
        clock: Clock,
        tags: Mapping[str, TagKeys] | None = None,
        *,
        at: Mapping[int, Spot] = AT,
        settings: ReaderSettings | None = None,
    ) -> None:
        self.clock = clock
        self.on_unicast: Callable[[Unicast], None]
        self.on_broadcast: Callable[[Any], None]
        readers = tuple(
            ZoneReader(n, f"{n:016x}", *PLANE.to_lonlat(*spot), height_m=HEIGHT_M, pole=f"pole {n}")
            for n, spot in at.items()
        )
        zone = Zone(readers, settings=settings or ReaderSettings())
        self.state = pipeline.State.new(
            zone, {n: key(n) for n in at}, tags or {}, gateway="gw1", epoch="e1", now_s=0.0
        )  # fmt: skip
        self.nwk: dict[int, int] = {}
        self.sent: list[int] = []
        """Which reader each downlink was for. Its handle is its place here, from 1."""

    def join(self, eui64: bytes, nwk: int, **_: Any) -> bool:
        self.nwk[eui64[-1]] = nwk
        return True

    def receive(self, *, nwk: int, payload: bytes, lqi: int, rssi_dbm: int, **_: Any) -> bool:
        self.carry(pipeline.on_frame(self.state, Frame(nwk, lqi, rssi_dbm, payload), self.clock.now_s))
        return True

    def delivered(self, handle: int, ok: bool) -> bool:
        pipeline.on_sent(self.state, self.sent[handle - 1], ok, self.clock.now_s)
        return True

    def carry(self, step: Any) -> None:
        for effect in step:
            if isinstance(effect, Downlink):
                self.send(effect.reader, effect.payload)

    def send(self, reader: int, payload: bytes) -> None:
        self.sent.append(reader)
        nwk = self.nwk[reader]
        self.on_unicast(Unicast(len(self.sent), nwk, 0xC105, 0x11, 0xE8, 0xE8, payload, 0, True))

    def tick(self) -> None:
        self.carry(pipeline.on_tick(self.state, self.clock.now_s))
        self.clock.after(0.2, self.tick)


def mesh_of_readers(
    clock: Clock,
    gateway: Gateway,
    folder: Path,
    seed: int,
    *,
    at: Mapping[int, Spot] = AT,
    centre: Spot = AT[1],
    mac: Mac | None = None,
    config: str = "",
    kind: Callable[..., ReaderProcess] = ReaderProcess,
) -> Mesh:
    """Return a mesh with a reader at each spot, its flash in `folder`. No reader has power yet."""
    mesh = Mesh(clock, gateway, seed, mac)  # type: ignore[arg-type]
    for n, spot in at.items():
        prepare_flash(folder / f"{n}", n, key(n), config=config)
        mesh.add(kind(n, folder / f"{n}", radio=mesh, seed=seed), bytes(7) + bytes([n]), spot, centre)
    return mesh


def air_of_readers(channel: Channel, seed: int, at: Mapping[int, Spot] = AT) -> Air:
    """Return the air with the ear of each reader."""
    return Air(seed, [ReaderEar(n, spot, HEIGHT_M) for n, spot in at.items()], channel)


@contextmanager
def powered(mesh: Mesh) -> Iterator[None]:
    """Give every reader power and let it join. At the end, stop all readers.

    They begin at any time within POWER_S: if all scanned in step, a tag would be heard by all or by none.
    """
    try:
        for n in mesh.stations:
            mesh.clock.after(POWER_S * chance.one(mesh.seed, n, "power"), partial(mesh.power, n, True))
        mesh.start_joining()
        yield
    finally:
        for station in mesh.stations.values():
            station.reader.stop()
