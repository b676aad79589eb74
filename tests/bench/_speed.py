"""The processes that `speed` starts: one thread each, figures as JSON on standard output.

The zone: a street of 150 m with a reader every 30 m on both sides, footpaths on both, three crossings, a danger area
and an agreed route; one row also has a school's yard, one also a walk test. Every tag walks and is heard by all 12
readers every second. Every update gives the fix with its radii, areas, route and evidence; every fifth also gives a
smoothed fix.
"""

import contextlib
import gc
import json
import resource
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from gateway.fix import Reading
from gateway.locate.tracker import LATE_EVERY
from gateway.zone import DangerArea, Footpath, Place, Plane, Reader, Route, Zone
from sim import chance
from tests.bench import _ours, core

SPACING_M, POLES, SIDE_M, HEIGHT_M, TAG_HEIGHT_M = 30.0, 6, 7.0, 3.5, 1.0
PATH_M, BEYOND_M = 6.0, 5.0
"""Distance from the street's middle to each footpath; length of the footpaths beyond the last reader."""
P0_DBM, EXPONENT, NOISE_DB, FLOOR_DBM = -50, 2.3, 4.0, -100.0
PACE_M_S = 1.2
TAGS = (1, 40, 400)
WARM, CYCLES, UPDATES = 2, 6, 1600
"""Cycles (from one smoothed fix to the next) that are not timed; fewest timed cycles; tag updates to time."""
SOLVED = 200
YARDSTICK_ROUNDS = 15
GATEWAY = ("us_a_fix", "fixes_per_s", "longest_tick_with_fixes_ms", "p99_tick_with_fixes_ms", "start_ms",
           "load_of_this_zone_with_fixes_pct", "open_ground_us_a_fix", "sightings_us_a_frame")  # fmt: skip
"""Figures of `core` that belong here too."""
SEED = 3

END_M = SPACING_M * (POLES - 1)
XY_M = np.array([(SPACING_M * i, side) for i in range(POLES) for side in (-SIDE_M, SIDE_M)])
_PLANE = Plane(126.95, 37.54)
Line = tuple[tuple[float, float], ...]


def zone(*, school: bool = False) -> Zone:
    low, high = -BEYOND_M, END_M + BEYOND_M
    paths: list[Line] = [((low, side), (high, side)) for side in (-PATH_M, PATH_M)]
    paths += [((x, -PATH_M), (x, PATH_M)) for x in (0.0, END_M / 2, END_M)]
    if school:
        paths.append(((END_M / 2, PATH_M), (END_M / 2, 12.0)))
    yard = (END_M / 2 - 25, 10.0), (END_M / 2 + 25, 10.0), (END_M / 2 + 25, 50.0), (END_M / 2 - 25, 50.0)
    return Zone(
        readers=tuple(
            Reader(number=n, eui64=f"{n:016x}", lon=lon, lat=lat, height_m=HEIGHT_M)
            for n, (lon, lat) in enumerate(_lonlat(XY_M.tolist()), 1)
        ),
        places=(Place(id="school", kind="school", polygon=_lonlat(yard)),) if school else (),
        dangers=(DangerArea(id="site", polygon=_lonlat(((120, 10), (140, 10), (140, 30), (120, 30)))),),
        routes=(Route(id="way", line=_lonlat(((low, PATH_M), (END_M / 2, PATH_M)))),),
        footpaths=tuple(Footpath(line=_lonlat(line)) for line in paths),
    )


def second(tags: int, now_s: int) -> dict[int, list[Reading]]:
    """Return the readings of one second: every tag walks up and down one side of the street."""
    tag: NDArray[np.int64] = np.arange(tags, dtype=np.int64)
    gone = PACE_M_S * now_s + 2 * END_M * chance.uniform(SEED, "start", tag)
    x = END_M - np.abs(gone % (2 * END_M) - END_M)
    y = np.where(chance.uniform(SEED, "side", tag) < 0.5, -PATH_M, PATH_M)
    d2 = (x[:, None] - XY_M[:, 0]) ** 2 + (y[:, None] - XY_M[:, 1]) ** 2 + (HEIGHT_M - TAG_HEIGHT_M) ** 2
    noise = NOISE_DB * chance.normal(SEED, "noise", now_s, tag[:, None], np.arange(len(XY_M), dtype=np.int64))
    level = np.maximum(np.round(P0_DBM - 5.0 * EXPONENT * np.log10(d2) + noise), FLOOR_DBM).astype(int)
    return {
        t: [Reading(k + 1, int(level[t, k]), 2, now_s - 0.2, P0_DBM) for k in range(len(XY_M))] for t in range(tags)
    }


def ours(found: dict[str, float | int | str]) -> None:
    for tags in TAGS:
        found |= _figures(f"ours_{tags}_tags", _ours.locator(zone(), tags), tags)
    found |= _figures("ours_400_tags_with_yard", _ours.locator(zone(school=True), 400), 400)
    found |= _figures("ours_400_tags_walk_test", _ours.locator(zone(), 400, walked=_walked(zone())), 400)
    found["ours_bytes_a_tag"] = _bytes_a_tag()


def _figures(label: str, engine: _ours.Locator, tags: int) -> dict[str, float | int | str]:
    """Return the cost of one tag's update: the engine's step alone (`update_us`), and with taking its readings in."""
    cycles = WARM + max(CYCLES, UPDATES // tags // LATE_EVERY)
    steps, wholes, longest_s = [], [], 0.0
    now_s = 0
    for _ in range(cycles):
        step_s = hear_s = 0.0
        for _ in range(LATE_EVERY):
            heard = second(tags, now_s)
            begun = time.process_time()
            engine.hear(heard, float(now_s))
            told = time.process_time()
            fixes = engine.step(float(now_s))
            done = time.process_time()
            assert fixes == tags, f"{fixes} fixes of {tags} tags"
            hear_s, step_s = hear_s + told - begun, step_s + done - told
            longest_s = max(longest_s, done - begun) if len(steps) >= WARM else 0.0
            now_s += 1
        steps.append(step_s)
        wholes.append(step_s + hear_s)
    a_tag = 1e6 / tags / LATE_EVERY
    return {
        f"{label}_update_us": round(statistics.median(steps[WARM:]) * a_tag, 1),
        f"{label}_with_readings_us": round(statistics.median(wholes[WARM:]) * a_tag, 1),
        f"{label}_longest_second_ms": round(longest_s * 1e3, 2),
    }


def _bytes_a_tag() -> int:
    """Return the bytes that each further tag adds in the engine, after a few seconds: all tags compared with one."""
    tags = TAGS[-1]
    seconds = [second(tags, s) for s in range(2 * LATE_EVERY)]
    tracemalloc.start()
    engine = _ours.locator(zone(), tags)
    held = []
    for few in (True, False):
        for s, heard in enumerate(seconds):
            now_s = float(s + (0 if few else len(seconds)))
            engine.hear(_at({0: heard[0]} if few else heard, now_s), now_s)
            engine.step(now_s)
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return round((held[1] - held[0]) / (tags - 1))


def _at(heard: Mapping[int, Sequence[Reading]], now_s: float) -> dict[int, list[Reading]]:
    return {
        tag: [Reading(r.reader, r.rssi_dbm, r.packets, now_s - 0.2, r.power_dbm) for r in readings]
        for tag, readings in heard.items()
    }


def _walked(zone: Zone) -> _ours.Walked:
    """A walk test on both footpaths, there and back: a row for each metre and reader."""
    x = np.arange(0.0, END_M, 1.0)
    there = np.stack([np.tile(x, 4), np.repeat([-PATH_M, -PATH_M, PATH_M, PATH_M], len(x))], axis=1)
    heading_deg = np.tile(np.repeat([0.0, 180.0], len(x)), 2)
    gap_m = np.sqrt(((there[:, None] - XY_M) ** 2).sum(-1) + (HEIGHT_M - TAG_HEIGHT_M) ** 2)
    row: NDArray[np.int64] = np.arange(len(there), dtype=np.int64)
    noise = NOISE_DB * chance.normal(SEED, "walk test", row[:, None], np.arange(len(XY_M), dtype=np.int64))
    return _ours.walked(zone, _lonlat(there.tolist()), heading_deg, P0_DBM - 10 * EXPONENT * np.log10(gap_m) + noise)


def _lonlat(points: Sequence[Sequence[float]]) -> Line:
    return tuple(_PLANE.to_lonlat(float(x), float(y)) for x, y in points)


def by_scipy(found: dict[str, float | int | str]) -> None:
    """Ranges from the law, soft-L1 loss, weights of one over the range, start at the power-weighted centroid."""
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


def yardstick_ms(clock: Callable[[], float]) -> float:
    """Return the median time of a fixed piece of work: array arithmetic like a filter's, and dicts in plain Python."""
    rng = np.random.default_rng(SEED)
    level, belief = (rng.random((400, 1500), dtype=np.float32) for _ in range(2))
    cells = rng.integers(0, 1500, 3000)
    taken = []
    for _ in range(YARDSTICK_ROUNDS):
        begun = clock()
        weighed = belief * np.exp(-np.log1p(level * level))
        weighed = weighed / weighed.sum(axis=1, keepdims=True)
        weighed[:, cells].sum(axis=1)
        counted: dict[int, int] = {}
        for number in range(20_000):
            counted[number % 997] = counted.get(number % 997, 0) + number
        taken.append(clock() - begun)
    return 1e3 * statistics.median(taken)


def of_engine() -> dict[str, float | int | str]:
    found: dict[str, float | int | str] = {"readers": len(XY_M), "threads": 1}
    before_ms = yardstick_ms(time.process_time)
    ours(found)
    by_scipy(found)
    yard_ms = (before_ms + yardstick_ms(time.process_time)) / 2
    found["yardstick_cpu_ms"] = round(yard_ms, 2)
    for tags in TAGS:
        mine = float(found[f"ours_{tags}_tags_with_readings_us"])
        found[f"scipy_to_ours_{tags}_tags"] = round(float(found["scipy_soft_l1_us_a_tag_update"]) / mine, 1)
    for name in [name for name in found if "_400_" in name and name.endswith("with_readings_us")]:
        found[name.replace("_us", "_yardsticks")] = round(400 * float(found[name]) / 1e3 / yard_ms, 3)
    found["engine_peak_mb"] = _peak_mb()
    return found


def of_gateway() -> dict[str, float | int | str]:
    """Return the figures of `core`: 100 readers, 2000 tags. Its process holds two such zones, one after the other."""
    bare_mb, before_ms = _peak_mb(), yardstick_ms(time.process_time)
    cpu_time = patch("tests.bench.core.time.perf_counter", time.process_time)
    with contextlib.redirect_stdout(sys.stderr), cpu_time:
        all_figures = core.run()
    yard_ms = (before_ms + yardstick_ms(time.process_time)) / 2
    found: dict[str, float | int | str] = {
        "gateway_readers": all_figures["readers"], "gateway_tags": all_figures["tags"],
        "gateway_yardstick_cpu_ms": round(yard_ms, 2),
    }  # fmt: skip
    found |= {f"gateway_{name}": all_figures[name] for name in GATEWAY}
    fixes_ms = core.TAGS * float(all_figures["us_a_fix"]) / 1e3
    found["gateway_second_of_fixes_yardsticks"] = round(fixes_ms / yard_ms, 3)
    found |= {"gateway_peak_mb": _peak_mb(), "gateway_peak_without_zones_mb": bare_mb}
    return found


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main() -> None:
    print(json.dumps(of_gateway() if sys.argv[1:] == ["gateway"] else of_engine()))


if __name__ == "__main__":
    main()
