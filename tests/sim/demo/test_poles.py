"""Readers hear each other through the simulated air: real firmware, real mesh timing, the gateway's own core."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from gateway.locate import crosscheck
from sim.air.radio import Channel
from sim.clock import Clock
from sim.demo.running_zone import RunningZone
from sim.street import site
from sim.street.children import World
from tests.sim.demo.bed import AT, Gateway, air_of_readers, mac_of, mesh_of_readers, powered

SEED = 5


def test_firmware_readers_hear_each_other_and_the_core_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crosscheck, "ROUND_S", 300.0)
    print(f"seed {SEED}")
    clock = Clock(None)
    gateway = Gateway(clock)
    mesh = mesh_of_readers(clock, gateway, tmp_path, SEED)
    channel = Channel()
    air = air_of_readers(channel, SEED)
    air._offset_db[3] -= 8.0  # reader 4: a bad connector on the receiving side
    zone = RunningZone(clock, World(site.load(), SEED, 1), {}, air, mesh, mac_of=mac_of, bell_pin="D4")
    with powered(mesh):
        clock.after(1.0, gateway.tick)
        asyncio.run(clock.run(345.0))
        logs = dict(mesh.counts.logs)
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
