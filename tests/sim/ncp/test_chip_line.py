"""Unmodified zigpy under load: bursts arrive whole and in order, losses are counted, a damaged line only costs time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sim.ncp import ash_link
from sim.pty_line import LineFaults
from tests.sim.ncp.bed import SEED, report, started, stick
from tests.waiting import run, until


def test_a_burst_of_200_reports_arrives_whole_in_order_within_the_window(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            widest = 0
            send = coordinator.data_to_send

            def watched(now_s: float) -> bytes:
                nonlocal widest
                out = send(now_s)
                widest = max(widest, coordinator.link.in_flight)
                return out

            coordinator.data_to_send = watched  # type: ignore[method-assign]
            for number in range(200):
                assert report(coordinator, number.to_bytes(2, "big") * 30)
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= 200, "200 reports")
            assert got() == [number.to_bytes(2, "big") * 30 for number in range(200)]
            assert 2 <= widest <= ash_link.WINDOW_MAX

    run(story)


def test_reports_beyond_the_buffers_are_dropped_counted_and_flagged(tmp_path: Path) -> None:
    async def story() -> None:
        faults = LineFaults()
        async with stick(faults=faults) as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            faults.stall(asyncio.get_running_loop().time() + 0.3)
            taken = sum(report(coordinator, number.to_bytes(2, "big")) for number in range(400))
            assert 240 <= taken <= 260
            assert coordinator.drop_counts["callbacks_dropped"] == 400 - taken
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= taken, "what was taken")
            assert got() == [number.to_bytes(2, "big") for number in range(taken)]

    run(story)


def test_damaged_bytes_on_the_line_cost_time_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        faults = LineFaults(seed=SEED)
        async with stick(faults=faults) as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            faults.corrupt_rate, faults.drop_rate = 0.001, 0.0005
            for number in range(150):
                assert report(coordinator, number.to_bytes(2, "big") * 30)
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= 150, "150 reports", 40)
            faults.corrupt_rate = faults.drop_rate = 0.0
            assert got() == [number.to_bytes(2, "big") * 30 for number in range(150)]
            counters = coordinator.link.counters
            assert faults.corrupted > 0
            assert counters.retransmitted > 0, (faults, counters)

    run(story)
