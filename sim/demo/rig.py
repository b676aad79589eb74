"""The set-up of a simulated zone: coordinator on a pty, reader processes with firmware, tags, mesh and air."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from sim.air.mesh import Mesh
from sim.air.radio import Air, Channel, ReaderEar
from sim.clock import Clock
from sim.demo.folder import eui64_of
from sim.demo.running_zone import RunningZone
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.nvm import Nvm
from sim.reader.flash import compiling, prepare_flash
from sim.reader.process import ReaderProcess
from sim.reader.switches import Switches
from sim.street.children import World
from sim.street.site import Pole
from sim.street.tag import Tag

COORDINATOR_EUI64 = bytes.fromhex("f4ce36a1b2c3d4e5")
BELL_PIN, LAMP_PIN, BUZZER_PIN = "D4", "D2", "D3"
"""The defaults of firmware/alarm.py; the config.py of these readers does not change them."""
POWER_EVERY_S = 0.05


class Rig:
    """All simulated parts of one run, made by `set_up`. `wall_of` and `clock` share one origin."""

    def __init__(
        self, clock: Clock, coordinator: Coordinator, mesh: Mesh, zone: RunningZone, sizes: dict[str, int]
    ) -> None:
        self.clock, self.coordinator, self.mesh, self.zone, self.firmware_sizes = clock, coordinator, mesh, zone, sizes

    def wall_of(self, now_s: float) -> float:
        """Return the Unix time of an instant of the clock."""
        began = time.time() - self.clock.now_s if self.clock.started_unix_s is None else self.clock.started_unix_s
        return began + now_s / (self.clock.speed or 1.0)

    def power_on(self) -> None:
        """Give all readers power, one after another."""
        for n, number in enumerate(self.mesh.stations):
            self.clock.after(n * POWER_EVERY_S, partial(self.mesh.power, number, True))


def ears_of(poles: Sequence[Pole]) -> list[ReaderEar]:
    """Return the readers on these poles as the air knows them."""
    return [ReaderEar(pole.number, pole.at, pole.height_m, pole.antenna, pole.look_deg or 0.0) for pole in poles]


@asynccontextmanager
async def set_up(
    folder: Path,
    world: World,
    poles: Sequence[Pole],
    reader_keys: Mapping[int, bytes],
    *,
    speed: float | None = 1.0,
    channel: Channel | None = None,
    pty: bool = True,
    switches: Mapping[int, Switches] | None = None,
) -> AsyncIterator[Rig]:
    """Build the simulated side in `folder`. At the end, close the pty and stop the reader processes.

    switches: what the modules of some readers do to their program.
    """
    seed = world.seed
    clock = Clock(speed)
    loop = asyncio.get_running_loop()
    coordinator = Coordinator(Nvm(COORDINATOR_EUI64), seed=seed, now=loop.time, state=folder / "coordinator.json")
    mesh = Mesh(clock, coordinator, seed)
    flash = folder / "readers"
    flash.mkdir()
    sizes: dict[str, int] = {}
    gate = poles[0].at
    for _ in compiling():
        await asyncio.sleep(0)  # a signal waits for no more than one file
    for pole in poles:
        sizes = prepare_flash(flash / f"{pole.number:02d}", pole.number, reader_keys[pole.number])
        reader = ReaderProcess(
            pole.number, flash / f"{pole.number:02d}", radio=mesh, seed=seed, switches=(switches or {}).get(pole.number)
        )
        mesh.add(reader, eui64_of(seed, pole.number), pole.at, gate)
        await asyncio.sleep(0)
    air = Air(seed, ears_of(poles), channel, walled=world.site.school)
    tags = {child.number: Tag(seed, child.number, child.tag) for child in world.children}
    macs = {number: _mac(key) for number, key in reader_keys.items()}
    zone = RunningZone(clock, world, tags, air, mesh, mac_of=macs.__getitem__, bell_pin=BELL_PIN)
    rig = Rig(clock, coordinator, mesh, zone, sizes)
    async with AsyncExitStack() as stack:
        for station in mesh.stations.values():
            stack.callback(station.reader.stop)
        if pty:
            await stack.enter_async_context(PtyCoordinator(coordinator, folder / "coordinator"))
        yield rig


def _mac(key: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(key, data, hashlib.sha256).digest()
