"""The cost of an event on its way into the gateway's outbox and onto the wire: commits and codec of each lane.

Real parts: both stores on the disk of the temporary folder (TMPDIR), each behind its own thread as in the gateway.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.effects import AlarmMemory
from gateway.events import Heard, Point, Position, Sos, Where
from gateway.outbox.lanes import Outbox
from gateway.uplink import BATCH_MAX, Urgent, decode_batch, encode_batch, encode_row, encode_urgent

SYNCS = 200
CRIES = 1500
ROWS = 60_000
QUEUED_MAX = 2000
"""Rows handed over before the first of them is committed: as many as a busy radio has under way."""
ROUNDS = 200
AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def run() -> dict[str, float | int | str]:
    figures: dict[str, float | int | str] = {}
    with tempfile.TemporaryDirectory() as name:
        _quantiles(figures, "fdatasync_16kB", _syncs(Path(name)))
        asyncio.run(_commits(Path(name), figures))
    _codec(figures)
    return figures


def _syncs(folder: Path) -> list[float]:
    """Return how long this disk takes to store data durably: no commit is faster."""
    taken = []
    with open(folder / "sync", "wb", buffering=0) as file:
        for _ in range(SYNCS):
            began_s = time.perf_counter()
            file.write(b"x" * 16_384)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began_s)
    return taken


async def _commits(folder: Path, figures: dict[str, float | int | str]) -> None:
    outbox = Outbox(
        folder, utc_now=lambda: datetime.now(UTC), on_health=lambda *_: None, bulk_max_b=10**9, ballast_b=1 << 20
    )
    groups = asyncio.create_task(outbox.run_groups(lambda: None))
    try:
        started_s = time.perf_counter()
        alone = await _cry(outbox, CRIES)
        figures["sos_commits_per_s"] = round(CRIES / (time.perf_counter() - started_s))
        _quantiles(figures, "sos_commit", alone)
        started_s = time.perf_counter()
        bulk = asyncio.create_task(_queue(outbox, ROWS))
        beside = []
        while not bulk.done():
            beside += await _cry(outbox, 1)
            await asyncio.sleep(0.005)
        await bulk
        figures["events_rows_per_s"] = round(ROWS / (time.perf_counter() - started_s))
        _quantiles(figures, "events_commit", outbox.events.commit_s)
        _quantiles(figures, "sos_commit_beside_bulk", beside)
        assert (outbox.sos.backlog, outbox.events.backlog) == (CRIES + len(beside), ROWS)
        figures["events_disk_per_row_B"] = round(outbox.events.store.used_b() / ROWS)
    finally:
        groups.cancel()
        await asyncio.gather(groups, return_exceptions=True)
        await outbox.close()


async def _cry(outbox: Outbox, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        began_s = time.perf_counter()
        await outbox.commit_emergency(_sos(), AlarmMemory(b"press", "gw1-e-1", 1, 0.0, b"x" * 100))
        taken.append(time.perf_counter() - began_s)
    return taken


async def _queue(outbox: Outbox, count: int) -> None:
    for start in range(0, count, QUEUED_MAX):
        done = [outbox.queue(_position(i)) for i in range(start, min(start + QUEUED_MAX, count))]
        assert all(await asyncio.gather(*done))


def _codec(figures: dict[str, float | int | str]) -> None:
    positions = [_position(i) for i in range(BATCH_MAX)]
    rows = [(1 + i, encode_row(position)) for i, position in enumerate(positions)]

    def batch() -> bytes:
        return encode_batch(gateway="gw1", epoch="00000000", after=0, sent_at=AT, rows=rows)

    message = Urgent(gateway="gw1", epoch="00000000", seq=1, after=0, queued_at=AT, event=_sos())
    payload = batch()
    figures["events_encode_row_us"] = _each_us(lambda: [encode_row(position) for position in positions], BATCH_MAX)
    figures["events_encode_batch_us_per_row"] = _each_us(batch, BATCH_MAX)
    figures["events_decode_batch_us_per_row"] = _each_us(lambda: decode_batch(payload), BATCH_MAX)
    figures["events_message_B_per_row"] = round(len(payload) / BATCH_MAX, 1)
    figures["events_json_would_be_B_per_row"] = len(msgspec.json.encode(positions[0]))
    figures["sos_encode_us"] = _each_us(lambda: encode_urgent(message), 1)
    figures["sos_message_B"] = len(encode_urgent(message))


def _each_us(work: Callable[[], object], per_call: int) -> float:
    best_s = float("inf")
    for _ in range(5):
        started_s = time.perf_counter()
        for _ in range(ROUNDS):
            work()
        best_s = min(best_s, time.perf_counter() - started_s)
    return round(best_s / ROUNDS / per_call * 1e6, 2)


def _quantiles(figures: dict[str, float | int | str], name: str, taken_s: Iterable[float]) -> None:
    ordered = sorted(taken_s)
    for percent in (50, 99):
        figures[f"{name}_p{percent}_ms"] = round(ordered[len(ordered) * percent // 100] * 1000, 3)


def _where() -> Where:
    heard = tuple(Heard(reader=n, rssi_dbm=-60 - n, packets=4, age_s=0.5 * n) for n in (1, 2, 3))
    return Where(geometry=Point((126.9577123, 37.5480456)), radius_50_m=6.5, accuracy_95_m=14.2, evidence=heard)


def _position(i: int) -> Position:
    return Position(observed_at=AT, clock="good", tag=f"t-{i % 667:04}", where=_where(), moving=True)


def _sos() -> Sos:
    return Sos(
        observed_at=AT, clock="good", alarm="gw1-00000000-1", revision=0, tag="t-0001", trust="verified", drill=False,
        press=7, battery_mv=2980, readers=(1, 2, 3), where=_where(),
    )  # fmt: skip


if __name__ == "__main__":
    for figure, value in run().items():
        print(f"{figure:32} {value}")
