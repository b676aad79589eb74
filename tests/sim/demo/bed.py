"""Six readers with real firmware in a simulated mesh and air, and the gateway's core behind a stick."""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Downlink
from gateway.zone import Plane, Zone
from gateway.zone import Reader as ZoneReader
from readers.advertisement import TagKeys
from sim.air.mesh import Mesh
from sim.air.radio import Air, Channel, ReaderEar
from sim.clock import Clock
from sim.ncp.messages import Unicast
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess

PLANE = Plane(126.95, 37.54)
AT = {1: (0.0, 0.0), 2: (32.0, 3.0), 3: (61.0, -4.0), 4: (3.0, 29.0), 5: (30.0, 34.0), 6: (64.0, 31.0)}
HEIGHT_M = 3.5


def key(number: int) -> bytes:
    return bytes([number]) * 16


def mac_of(number: int) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(key(number), data, hashlib.sha256).digest()


class Gateway:
    """The core behind a stick that accepts everything: frames go in, downlinks go back into the mesh."""

    def __init__(self, clock: Clock, tags: Mapping[str, TagKeys] | None = None) -> None:
        self.clock = clock
        self.on_unicast: Callable[[Unicast], None]
        self.on_broadcast: Callable[[Any], None]
        readers = tuple(
            ZoneReader(n, f"{n:016x}", *PLANE.to_lonlat(*at), height_m=HEIGHT_M, pole=f"pole {n}")
            for n, at in AT.items()
        )
        self.state = pipeline.State.new(
            Zone(readers), {n: key(n) for n in AT}, tags or {}, gateway="gw1", epoch="e1", now_s=0.0
        )  # fmt: skip
        self.nwk: dict[int, int] = {}

    def join(self, eui64: bytes, nwk: int, **_: Any) -> bool:
        self.nwk[eui64[-1]] = nwk
        return True

    def receive(self, *, nwk: int, payload: bytes, lqi: int, rssi_dbm: int, **_: Any) -> bool:
        self.carry(pipeline.on_frame(self.state, Frame(nwk, lqi, rssi_dbm, payload), self.clock.now_s))
        return True

    def delivered(self, handle: int, ok: bool) -> bool:
        return ok

    def carry(self, step: Any) -> None:
        for effect in step:
            if isinstance(effect, Downlink):
                nwk = self.nwk[effect.reader]
                self.on_unicast(Unicast(0, nwk, 0xC105, 0x11, 0xE8, 0xE8, effect.payload, 0, False, 0))

    def tick(self) -> None:
        self.carry(pipeline.on_tick(self.state, self.clock.now_s))
        self.clock.after(0.2, self.tick)


def mesh_of_readers(clock: Clock, gateway: Gateway, folder: Path, seed: int) -> Mesh:
    """Return a mesh with a reader at each spot of AT, its flash in `folder`. No reader has power yet."""
    mesh = Mesh(clock, gateway, seed)  # type: ignore[arg-type]
    for n, at in AT.items():
        prepare_flash(folder / f"{n}", n, key(n))
        mesh.add(ReaderProcess(n, folder / f"{n}", radio=mesh, seed=seed), bytes(7) + bytes([n]), at, AT[1])
    return mesh


def air_of_readers(channel: Channel, seed: int) -> Air:
    """Return the air with the ear of each reader of AT."""
    return Air(seed, [ReaderEar(n, at, HEIGHT_M) for n, at in AT.items()], channel)


@contextmanager
def powered(mesh: Mesh) -> Iterator[None]:
    """Give every reader power and let it join. At the end, stop all readers."""
    try:
        for n in AT:
            mesh.power(n, True)
        mesh.start_joining()
        yield
    finally:
        for station in mesh.stations.values():
            station.reader.stop()
