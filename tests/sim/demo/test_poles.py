"""Readers hear each other through the simulated air: real firmware, real mesh timing, the gateway's own core."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Downlink
from gateway.locate import crosscheck
from gateway.zone import Plane, Zone
from gateway.zone import Reader as ZoneReader
from readers.advertisement import TagKeys
from sim.air.mesh import Mesh
from sim.air.radio import Air, Channel, ReaderEar
from sim.clock import Clock
from sim.demo.motion import SimulatedZone
from sim.ncp.messages import Unicast
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess
from sim.street import site
from sim.street.children import World

SEED = 5
PLANE = Plane(126.95, 37.54)
AT = {1: (0.0, 0.0), 2: (32.0, 3.0), 3: (61.0, -4.0), 4: (3.0, 29.0), 5: (30.0, 34.0), 6: (64.0, 31.0)}
HEIGHT_M = 3.5


def key(number: int) -> bytes:
    return bytes([number]) * 16


def mac_of(number: int) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(key(number), data, hashlib.sha256).digest()


class Gateway:
    """The core behind a stick that takes everything: frames in, downlinks back into the mesh."""

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


def test_firmware_readers_hear_each_other_and_the_core_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crosscheck, "ROUND_S", 300.0)
    print(f"seed {SEED}")
    clock = Clock(None)
    gateway = Gateway(clock)
    mesh = Mesh(clock, gateway, SEED)  # type: ignore[arg-type]
    channel = Channel()
    air = Air(SEED, [ReaderEar(n, at, HEIGHT_M) for n, at in AT.items()], channel)
    air._offset_db[3] -= 8.0  # reader 4: a bad connector on the receiving side
    for n, at in AT.items():
        prepare_flash(tmp_path / f"{n}", n, key(n))
        mesh.add(ReaderProcess(n, tmp_path / f"{n}", radio=mesh, seed=SEED), bytes(7) + bytes([n]), at, AT[1])
    zone = SimulatedZone(clock, World(site.load(), SEED, 1), {}, air, mesh, mac_of=mac_of, bell_pin="D4")
    try:
        for n in AT:
            mesh.power(n, True)
        mesh.start_joining()
        clock.after(1.0, gateway.tick)
        asyncio.run(clock.run(345.0))
        logs = dict(mesh.counts.logs)
    finally:
        for station in mesh.stations.values():
            station.reader.stop()
    counts, known = gateway.state.counts, gateway.state.crosscheck.calibration
    assert logs == {}
    assert known is not None
    print(f"{zone.counts['pole_bursts']} bursts, {zone.counts['pole_heard']} packets heard")
    print(f"{counts['beacons_heard']} bursts proven; exponent {known.exponent:.2f} +- {known.exponent_sd:.2f}")
    assert zone.counts["pole_bursts"] >= 4 * len(AT)
    assert counts["beacons_heard"] > 60
    assert not counts["beacons_forged"] + counts["beacons_stale"] + counts["beacons_unknown"]
    assert not gateway.state.resolver.unknown_ids()
    assert known.pairs == len(AT) * (len(AT) - 1)
    assert abs(known.exponent - channel.pole_exponent) < 2.5 * known.exponent_sd
    true = air._offset_db - air._offset_db.mean()
    off = np.array([known.offsets_db[n] for n in AT]) - true
    sd = np.array([known.offsets_sd_db[n] for n in AT])
    print("offsets fitted - true, in sd:", np.round(off / sd, 1))
    assert np.abs(off / sd).max() < 3
    assert min(known.offsets_db, key=lambda n: known.offsets_db[n]) == 4
    assert set(known.loo_error_m) == set(AT)
