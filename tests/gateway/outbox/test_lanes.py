"""The two lanes: an emergency waits for no routine event, and is kept in memory if it cannot be written to disk."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from gateway.effects import AlarmMemory
from gateway.events import GatewayHealth, Point, Position, Routine, Told, Where
from gateway.outbox.lane_file import NotCommitted
from gateway.outbox.lanes import RING_MAX, Outbox, OutboxBusy
from tests.gateway.outbox.bed import NOW, HealthLog, store

T = TypeVar("T")


def told_event(alarm: str = "gw1-e-1") -> Told:
    return Told(observed_at=NOW, clock="good", alarm=alarm, reader=1, stage="received")


def position(i: int) -> Position:
    where = Where(geometry=Point((127.0, 37.5)), radius_50_m=3.0, accuracy_95_m=9.0)
    return Position(observed_at=NOW, clock="good", tag=f"t{i}", where=where, moving=True)


def in_loop(folder: Path, work: Callable[[Outbox], Coroutine[Any, Any, T]], **over: Any) -> tuple[T, HealthLog]:
    told = HealthLog()

    async def main() -> T:
        over_ = {"bulk_max_b": 10_000_000, "ballast_b": 1 << 16} | over
        outbox = Outbox(folder, utc_now=lambda: NOW, on_health=told, **over_)
        groups = asyncio.create_task(outbox.run_groups(lambda: None))
        try:
            return await work(outbox)
        finally:
            groups.cancel()
            await asyncio.gather(groups, return_exceptions=True)
            await outbox.close()

    return asyncio.run(main()), told


def test_a_second_gateway_on_the_folder_is_refused(tmp_path: Path) -> None:
    async def twice(outbox: Outbox) -> None:
        with pytest.raises(OutboxBusy, match=str(os.getpid())):
            Outbox(tmp_path, utc_now=lambda: NOW, on_health=HealthLog(), bulk_max_b=10**7, ballast_b=4096)

    in_loop(tmp_path, twice)
    in_loop(tmp_path, lambda outbox: asyncio.sleep(0))


def test_a_second_gateway_is_refused_though_the_lock_was_removed(tmp_path: Path) -> None:
    async def removed(outbox: Outbox) -> None:
        (tmp_path / "lock").unlink()
        await outbox.tend()
        with pytest.raises(OutboxBusy, match=str(os.getpid())):
            Outbox(tmp_path, utc_now=lambda: NOW, on_health=HealthLog(), bulk_max_b=10**7, ballast_b=4096)
        (tmp_path / "lock").unlink()
        other = Outbox(tmp_path, utc_now=lambda: NOW, on_health=HealthLog(), bulk_max_b=10**7, ballast_b=4096)
        for _ in range(2):
            await outbox.tend()
        await other.close()
        await outbox.tend()

    _, told = in_loop(tmp_path, removed)
    assert [said[:2] for said in told.said] == [("outbox_shared", False), ("outbox_shared", True)]


def test_routine_events_are_committed_in_groups(tmp_path: Path) -> None:
    async def many(outbox: Outbox) -> int:
        done = [outbox.queue(position(i)) for i in range(250)]
        assert all(await asyncio.gather(*done))
        return len(outbox.events.commit_s)

    commits, _ = in_loop(tmp_path, many)
    assert 3 <= commits <= 6
    kept, _ = store(tmp_path, "events", max_b=10**7)
    assert kept.backlog == 250


def test_an_emergency_does_not_wait_behind_a_slow_bulk_commit(tmp_path: Path) -> None:
    async def race(outbox: Outbox) -> bool:
        committed = threading.Event()
        slow = asyncio.ensure_future(outbox.events.run(committed.wait, 20.0))
        done = [outbox.queue(position(i)) for i in range(500)]
        await outbox.commit_emergency(told_event(), AlarmMemory(b"k", "gw1-e-1", 1, 0.0))
        committed.set()
        await asyncio.gather(*done)
        return await slow

    before_the_bulk, _ = in_loop(tmp_path, race)
    assert before_the_bulk


def test_an_emergency_no_disk_takes_is_kept_in_the_ring_and_moved_when_it_can_be(tmp_path: Path) -> None:
    async def broken(outbox: Outbox) -> tuple[int, int, int]:
        outbox.sos.store._db.execute("PRAGMA query_only=ON")  # type: ignore[union-attr]
        opened = outbox.sos.store._open
        outbox.sos.store._open = lambda: None  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(NotCommitted):
                await outbox.commit_emergency(told_event())
        in_ring = outbox.ring.backlog
        assert (await outbox.ring.read(0, 10, 10**6)).rows[0].body == msgspec.json.encode(told_event())
        assert outbox.ring.epoch != outbox.sos.epoch
        outbox.sos.store._open = opened  # type: ignore[method-assign]
        await outbox.tend()
        return in_ring, outbox.ring.backlog, outbox.sos.backlog

    found, told = in_loop(tmp_path, broken)
    assert found == (1, 0, 1), "one press said three times is one row"
    assert ("sos_not_durable", False) in [said[:2] for said in told.said]


def test_the_ring_is_bounded_and_counts(tmp_path: Path) -> None:
    async def fill(outbox: Outbox) -> tuple[int, int]:
        for i in range(RING_MAX + 5):
            outbox.ring.keep(i, b"%d" % i)
        assert await outbox.ring.acknowledged("other", RING_MAX) == 0
        assert await outbox.ring.acknowledged(outbox.ring.epoch, RING_MAX + 6) == 0, "more than was ever sent"
        assert [row.seq for row in (await outbox.ring.read(0, 10, 2)).rows] == [6, 7], "two bytes, two rows"
        page = await outbox.ring.read(RING_MAX, 3, 10**6)
        assert page.before == RING_MAX
        gone = await outbox.ring.acknowledged(outbox.ring.epoch, RING_MAX + 5)
        return gone, outbox.ring.dropped

    assert in_loop(tmp_path, fill)[0] == (RING_MAX, 5)


def test_emergencies_dropped_from_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbox.lanes.RING_MAX", 2)

    async def fill(outbox: Outbox) -> None:
        def no_disk(*_: object) -> list[int]:
            raise NotCommitted("no disk")

        monkeypatch.setattr(outbox.sos.store, "commit", no_disk)
        for i in range(3):
            with pytest.raises(NotCommitted):
                await outbox.commit_emergency(told_event(f"gw1-e-{i}"))

    _, told = in_loop(tmp_path, fill)
    assert [(what, ok) for what, ok, _ in told.said] == [("ring_full", False)]
    assert told.said[0][2].startswith("1 emergencies dropped: no disk, no city, and 2 more in memory; look at the disk")


def test_a_group_being_committed_is_not_lost_when_its_loop_is_cancelled(tmp_path: Path) -> None:
    async def stop(outbox: Outbox) -> int:
        slow = asyncio.ensure_future(outbox.events.run(time.sleep, 0.2))  # the thread is busy, so the group waits
        loop = asyncio.create_task(outbox.run_groups(lambda: None))
        done = [outbox.queue(position(i)) for i in range(150)]
        while outbox.counters()["events_waiting"] == 150:  # noqa: ASYNC110 - until the first group is taken
            await asyncio.sleep(0.005)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await outbox.flush()
        await slow
        assert all([await one for one in done])
        return outbox.events.backlog

    told = HealthLog()

    async def main() -> int:
        outbox = Outbox(tmp_path, utc_now=lambda: NOW, on_health=told, bulk_max_b=10**7, ballast_b=4096)
        try:
            return await stop(outbox)
        finally:
            await outbox.close()

    assert asyncio.run(main()) == 150


def test_a_bulk_commit_that_fails_keeps_its_events_and_tells(tmp_path: Path) -> None:
    async def fail(outbox: Outbox) -> tuple[bool, int]:
        opened = outbox.events.store._open
        outbox.events.store._db.execute("PRAGMA query_only=ON")  # type: ignore[union-attr]
        outbox.events.store._open = lambda: None  # type: ignore[method-assign]
        event: Routine = GatewayHealth(observed_at=NOW, clock="good", what="w", ok=True, detail="d")
        kept = await outbox.queue(event)
        outbox.events.store._open = opened  # type: ignore[method-assign]
        await outbox.flush()
        return kept, outbox.events.backlog

    assert in_loop(tmp_path, fail)[0] == (False, 1)


def test_the_cores_snapshot_comes_back(tmp_path: Path) -> None:
    in_loop(tmp_path, lambda outbox: outbox.save(b"\x00state"))

    async def read(outbox: Outbox) -> bytes | None:
        return outbox.snapshot()

    assert in_loop(tmp_path, read)[0] == b"\x00state"
