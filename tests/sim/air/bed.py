"""A mesh of stand-ins: readers that are only radios, with any scan windows, and a coordinator that keeps what comes."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sim.air.hops import Mac
from sim.air.mesh import Mesh
from sim.clock import Clock
from sim.ncp.messages import Unicast

ENDPOINTS = (0xE8, 0xE8, 0x11, 0xC105)
JOINED_S = 9.0
"""All readers of `mesh` have joined by now, and have looked for a route since."""


class Coordinator:
    """Stands in for the radio of the stick: keeps what comes in."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.fates: list[tuple[int, bool]] = []
        self.open = True
        self.listens = True
        self.keys: list[bytes] = []
        self.on_unicast: Callable[[Unicast], None]
        self.on_broadcast: Callable[[Any], None]

    def join(self, eui64: bytes, nwk: int, *, link_key: bytes, node: Any) -> bool:
        self.keys.append(link_key)
        return self.open

    def rejoin(self, eui64: bytes, nwk: int, *, node: Any) -> bool:
        return True

    def receive(self, **message: Any) -> bool:
        if self.listens:
            self.received.append(message)
        return self.listens

    def delivered(self, handle: int, ok: bool) -> bool:
        self.fates.append((handle, ok))
        return True


class Scanner:
    """A node that listens to Bluetooth in windows. duty in ms: (window, interval, phase); None: it does not scan."""

    def __init__(self, duty: tuple[float, float, float] | None = None) -> None:
        self.duty = duty

    def scanning(self, now_ms: float) -> bool:
        if self.duty is None:
            return False
        window_ms, interval_ms, phase_ms = self.duty
        return (now_ms - phase_ms) % interval_ms < window_ms


class Reader(Scanner):
    """The radio side of a reader: its answers to transmit, and its receive queue."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.alive, self.wake_at_ms = number, True, float("inf")
        self.transmitting, self.transmissions = True, 0
        self.done: list[tuple[float, str | None]] = []
        self.queue: list[bytes] = []
        self.room = 4

    def transmit_done(self, now_ms: float, error: str | None = None, transmission: int | None = None) -> None:
        self.done.append((now_ms, error))

    def deliver(self, now_ms: float, payload: bytes, **_: Any) -> bool:
        if not self.alive or len(self.queue) >= self.room:
            return False
        self.queue.append(payload)
        return True

    def start(self, now_ms: float) -> None:
        self.alive = True

    def kill(self) -> None:
        self.alive = False


def mesh(readers: int = 1, seed: int = 1, away_m: float = 10.0, mac: Mac | None = None) -> SimpleNamespace:
    """Return a clock, a coordinator and readers 1, 2, .. in a line from it, away_m apart."""
    clock, coordinator = Clock(None), Coordinator()
    made = Mesh(clock, coordinator, seed, mac)  # type: ignore[arg-type]
    devices = [Reader(n) for n in range(1, readers + 1)]
    for device in devices:
        made.add(device, bytes(7) + bytes([device.number]), (away_m * device.number, 0.0), (0.0, 0.0))  # type: ignore[arg-type]
    return SimpleNamespace(clock=clock, coordinator=coordinator, mesh=made, readers=devices)


def joined_mesh(readers: int = 1, seed: int = 1, away_m: float = 10.0, mac: Mac | None = None) -> SimpleNamespace:
    made = mesh(readers, seed, away_m, mac)
    made.mesh.start_joining()
    run(made, JOINED_S)
    assert sorted(made.mesh.joined()) == [reader.number for reader in made.readers]
    return made


def run(made: SimpleNamespace, until_s: float) -> None:
    asyncio.run(made.clock.run(until_s))


def up(made: SimpleNamespace, number: int, payload: bytes = b"report", at_s: float | None = None) -> None:
    """Let a reader send a frame now, or at a later time."""
    reader = made.readers[number - 1]
    if at_s is None:
        made.mesh.on_transmit(reader, made.clock.now_s * 1000, payload, ENDPOINTS)
    else:
        made.clock.at(at_s, lambda: up(made, number, payload))


def down(made: SimpleNamespace, number: int, payload: bytes = b"stage", handle: int = 1) -> None:
    nwk = made.mesh.stations[number].nwk
    made.coordinator.on_unicast(Unicast(handle, nwk, 0xC105, 0x11, 0xE8, 0xE8, payload, 1, True))
