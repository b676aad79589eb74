"""The hop between readers and coordinator: which readers are in, what is late or lost, and that senders learn it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sim.air.mesh import LOSS, TIMEOUT_MS, Mesh, link_key
from sim.clock import Clock
from sim.ncp.messages import Unicast

ENDPOINTS = (0xE8, 0xE8, 0x11, 0xC105)


class Coordinator:
    """Stands in for the radio of the stick: keeps what comes in."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.fates: list[tuple[int, bool]] = []
        self.open = True
        self.keys: list[bytes] = []
        self.on_unicast: Callable[[Unicast], None]
        self.on_broadcast: Callable[[Any], None]

    def join(self, eui64: bytes, nwk: int, *, link_key: bytes, node: Any) -> bool:
        self.keys.append(link_key)
        return self.open

    def rejoin(self, eui64: bytes, nwk: int, *, node: Any) -> bool:
        return True

    def receive(self, **message: Any) -> bool:
        self.received.append(message)
        return True

    def delivered(self, handle: int, ok: bool) -> bool:
        self.fates.append((handle, ok))
        return True


class Reader:
    """The radio side of a reader: its answers to transmit, and its receive queue."""

    def __init__(self, number: int) -> None:
        self.number, self.alive, self.wake_at_ms = number, True, float("inf")
        self.done: list[tuple[float, str | None]] = []
        self.queue: list[bytes] = []
        self.room = 4

    def transmit_done(self, now_ms: float, error: str | None = None) -> None:
        self.done.append((now_ms, error))

    def deliver(self, now_ms: float, payload: bytes, **_: Any) -> bool:
        if len(self.queue) >= self.room:
            return False
        self.queue.append(payload)
        return True

    def start(self, now_ms: float) -> None:
        self.alive = True

    def kill(self) -> None:
        self.alive = False


def mesh(readers: int = 1, seed: int = 1, away_m: float = 10.0) -> SimpleNamespace:
    clock, coordinator = Clock(None), Coordinator()
    made = Mesh(clock, coordinator, seed)  # type: ignore[arg-type]
    devices = [Reader(n) for n in range(1, readers + 1)]
    for device in devices:
        made.add(device, bytes(7) + bytes([device.number]), (away_m * device.number, 0.0), (0.0, 0.0))  # type: ignore[arg-type]
    return SimpleNamespace(clock=clock, coordinator=coordinator, mesh=made, readers=devices)


def run(made: SimpleNamespace, until_s: float) -> None:
    asyncio.run(made.clock.run(until_s))


def test_the_link_key_of_an_install_code_is_the_standards_own_example() -> None:
    code = bytes.fromhex("83FED3407A939723A5C639B26916D505C3B5")
    assert link_key(code).hex() == "66b6900981e1ee3ca4206b6b861c02bb"


def test_a_reader_that_is_not_in_is_told_so_at_once() -> None:
    made = mesh()
    made.mesh.on_transmit(made.readers[0], 0.0, b"x", ENDPOINTS)
    assert made.readers[0].done == [(0.0, "ENOTCONN")]


def test_readers_try_until_they_are_let_in_with_their_own_keys() -> None:
    made = mesh(3)
    made.coordinator.open = False
    made.mesh.start_joining()
    run(made, 10.0)
    assert made.mesh.joined() == []
    made.coordinator.open = True
    run(made, 13.0)
    assert made.mesh.joined() == [1, 2, 3]
    assert len(set(made.coordinator.keys)) == 3
    assert made.mesh.counts.joins == 3


def test_a_frame_arrives_late_and_its_sender_learns_later_still() -> None:
    made = mesh(1, away_m=200.0)
    made.mesh.start_joining()
    run(made, 3.0)
    made.mesh.on_transmit(made.readers[0], 3000.0, b"report", ENDPOINTS)
    run(made, 6.0)
    (message,) = made.coordinator.received
    assert message["payload"] == b"report"
    assert (message["profile_id"], message["cluster_id"]) == (0xC105, 0x11)
    ((at_ms, error),) = made.readers[0].done
    assert error is None
    assert 3 * 2 * 4 <= at_ms - 3000 <= 3 * 2 * 16, "three hops there and three back"


def test_fates_are_in_proportion_and_a_time_out_takes_its_time() -> None:
    made = mesh(1)
    made.mesh.start_joining()
    run(made, 3.0)
    seen: list[bool] = []
    made.mesh.on_frame = lambda number, sent_s, payload, arrived: seen.append(arrived)
    for n in range(4000):
        made.mesh.on_transmit(made.readers[0], 3000.0 + n, b"x", ENDPOINTS)
    run(made, 60.0)
    lost = seen.count(False)
    assert lost == made.mesh.counts.lost_up
    assert 0.4 * LOSS * 4000 < lost < 2 * LOSS * 4000
    errors = [error for _, error in made.readers[0].done if error]
    assert len(errors) == lost + made.mesh.counts.ack_lost
    assert set(errors) == {"ETIMEDOUT"}


def test_one_readers_frames_change_nothing_for_anothers() -> None:
    def fates(others: int) -> list[tuple[float, str | None]]:
        made = mesh(2)
        made.mesh.start_joining()
        run(made, 3.0)
        for n in range(200):
            made.mesh.on_transmit(made.readers[0], 3000.0 + n, b"x", ENDPOINTS)
            for _ in range(others):
                made.mesh.on_transmit(made.readers[1], 3000.0 + n, b"y", ENDPOINTS)
        run(made, 30.0)
        return made.readers[0].done

    assert fates(0) == fates(3)


@pytest.mark.parametrize(("room", "ok"), [(4, True), (0, False)])
def test_the_gateway_learns_whether_a_reader_took_its_frame(room: int, ok: bool) -> None:
    made = mesh()
    made.mesh.start_joining()
    run(made, 3.0)
    made.readers[0].room = room
    nwk = made.mesh.stations[1].nwk
    made.coordinator.on_unicast(Unicast(7, nwk, 0xC105, 0x11, 0xE8, 0xE8, b"stage", 1, True))
    made.coordinator.on_unicast(Unicast(8, 0x0BAD, 0xC105, 0x11, 0xE8, 0xE8, b"stage", 1, True))
    run(made, 3.0 + 2 * TIMEOUT_MS / 1000)
    assert sorted(made.coordinator.fates) == [(7, ok), (8, False)]
    assert made.readers[0].queue == ([b"stage"] if ok else [])


def test_nothing_gets_through_a_deaf_mesh() -> None:
    made = mesh()
    made.mesh.start_joining()
    run(made, 3.0)
    made.mesh.deaf = True
    made.mesh.on_transmit(made.readers[0], 3000.0, b"x", ENDPOINTS)
    run(made, 6.0)
    assert made.coordinator.received == []
    assert made.readers[0].done == [(3000.0 + TIMEOUT_MS, "ETIMEDOUT")]
