"""The process behind `speed`: one thread, figures as JSON on standard output."""

import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import least_squares

from gateway.locate import Reading
from gateway.zone import Plane, Reader, Zone
from sim import chance
from tests.bench import _ours

COLUMNS, ROWS, SPACING_M, HEIGHT_M, TAG_HEIGHT_M = 4, 3, 20.0, 3.5, 1.0
P0_DBM, EXPONENT, NOISE_DB = -50, 2.3, 4.0
TAGS = (1, 40, 400)
WARM, UPDATES = 5, 1600
"""Seconds before the clock starts; tag-updates of each count of tags, at the least ROUNDS seconds."""
ROUNDS = 20
SOLVED = 200
SEED = 3

XY_M = np.array([(SPACING_M * (i % COLUMNS), SPACING_M * (i // COLUMNS)) for i in range(COLUMNS * ROWS)])


def zone() -> Zone:
    plane = Plane(126.95, 37.54)
    readers = []
    for n, (x, y) in enumerate(XY_M, 1):
        lon, lat = plane.to_lonlat(float(x), float(y))
        readers.append(Reader(number=n, eui64=f"{n:016x}", lon=lon, lat=lat, height_m=HEIGHT_M))
    return Zone(readers=tuple(readers))


def second(tags: int, now_s: int) -> dict[int, list[Reading]]:
    """Return a second's readings: every tag walks round its own place and is heard by all readers."""
    tag = np.arange(tags, dtype=np.int64)
    turn = now_s / 20.0 + 2.0 * np.pi * chance.uniform(SEED, "turn", tag)
    x = SPACING_M * (COLUMNS - 1) * chance.uniform(SEED, "x", tag) + 8.0 * np.cos(turn)
    y = SPACING_M * (ROWS - 1) * chance.uniform(SEED, "y", tag) + 8.0 * np.sin(turn)
    d2 = (x[:, None] - XY_M[:, 0]) ** 2 + (y[:, None] - XY_M[:, 1]) ** 2 + (HEIGHT_M - TAG_HEIGHT_M) ** 2
    noise = NOISE_DB * chance.normal(SEED, "noise", now_s, tag[:, None], np.arange(len(XY_M), dtype=np.int64))
    level = np.round(P0_DBM - 5.0 * EXPONENT * np.log10(d2) + noise).astype(int)
    return {
        t: [Reading(k + 1, int(level[t, k]), 2, now_s - 0.2, P0_DBM) for k in range(len(XY_M))] for t in range(tags)
    }


def ours(found: dict[str, float | int | str]) -> None:
    for tags in TAGS:
        step = _ours.locator(zone())
        if step is None:
            found["ours"] = "no engine for many tags yet"
            return
        rounds = max(ROUNDS, UPDATES // tags)
        seconds = [second(tags, s) for s in range(WARM + rounds)]
        taken = [_timed_s(step, heard, float(s)) for s, heard in enumerate(seconds)][WARM:]
        found[f"ours_{tags}_tags_us_a_tag_update"] = round(statistics.median(taken) / tags * 1e6, 1)
        found[f"ours_{tags}_tags_p99_ms_a_second"] = round(sorted(taken)[int(len(taken) * 0.99) - 1] * 1e3, 2)
    found["ours_bytes_a_tag"] = _bytes_a_tag()


def _timed_s(step: _ours.Step, heard: Mapping[int, Sequence[Reading]], now_s: float) -> float:
    started = time.perf_counter()
    step(heard, now_s)
    return time.perf_counter() - started


def _bytes_a_tag() -> int:
    """Return what the engine holds more with all tags than with one, a tag, after some seconds."""
    tags = TAGS[-1]
    seconds = [second(tags, s) for s in range(WARM)]
    tracemalloc.start()
    step = _ours.locator(zone())
    assert step is not None
    held = []
    for few in (True, False):
        for s, heard in enumerate(seconds):
            step({0: heard[0]} if few else heard, float(s + (0 if few else WARM)))
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return round((held[1] - held[0]) / (tags - 1))


def by_scipy(found: dict[str, float | int | str]) -> None:
    """Ranges from the law, soft-L1 loss, weights one over the range, started at the centroid weighted by power."""
    taken = []
    rise = HEIGHT_M - TAG_HEIGHT_M
    for heard in second(SOLVED, 0).values():
        started = time.perf_counter()
        level = np.array([reading.rssi_dbm for reading in heard], float)
        ranges = 10.0 ** ((P0_DBM - level) / (10.0 * EXPONENT))
        power = 10.0 ** ((level - level.max()) / 20.0)
        begin = power @ XY_M / power.sum()

        def residual(at: np.ndarray, ranges: np.ndarray = ranges) -> np.ndarray:
            return (np.sqrt(((at - XY_M) ** 2).sum(1) + rise**2) - ranges) / np.maximum(ranges, 0.5)

        least_squares(residual, begin, loss="soft_l1", max_nfev=40)
        taken.append(time.perf_counter() - started)
    found["scipy_soft_l1_us_a_tag_update"] = round(statistics.median(taken) * 1e6, 1)


def main() -> None:
    found: dict[str, float | int | str] = {"readers": len(XY_M), "threads": 1}
    ours(found)
    by_scipy(found)
    for tags in TAGS:
        if (mine := found.get(f"ours_{tags}_tags_us_a_tag_update")) is not None:
            found[f"scipy_to_ours_{tags}_tags"] = round(float(found["scipy_soft_l1_us_a_tag_update"]) / float(mine), 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
