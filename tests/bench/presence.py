"""Places under errors that last: days of standing near the school's edge, walks out of the school and into it.

A fix has a slow error (SLOW_M in each axis; it decorrelates over SLOW_S, or over WAY_M of walking) and a fast one. The
belief is a Gaussian as wide as both together, or narrower by the factor `sure`. One fix a second, through
`Settler.step`. The school is a box of 100 m by 110 m; the child stands inside or outside of one of its sides.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.fix import Fix
from gateway.presence.changes import Arrived, Left
from gateway.presence.settle import Settler
from gateway.zone import Place, Plane, Zone

SLOW_M, SLOW_S, WAY_M = 6.0, 180.0, 15.0
DAY_S, DAYS = 6 * 3600, 30
"""Length of a school day, and how many of them."""
WALK_M_S = 1.2
EAST_M, NORTH_M, SOUTH_M, WEST_M = 0.0, 55.0, -55.0, -100.0
"""The school's sides; x is the distance outside the eastern one."""
PLANE = Plane(126.95, 37.54)
ZONE = Zone(
    readers=(),
    places=(
        Place(
            id="school",
            kind="school",
            polygon=tuple(
                PLANE.to_lonlat(x, y)
                for x, y in ((WEST_M, SOUTH_M), (EAST_M, SOUTH_M), (EAST_M, NORTH_M), (WEST_M, NORTH_M))
            ),
        ),
    ),
)
_GRID: Any = np.linspace(-8.0, 8.0, 4001)
_NORMAL: Any = np.cumsum(np.exp(-(_GRID**2) / 2))
_NORMAL /= _NORMAL[-1]


@dataclass(frozen=True)
class Air:
    """The errors of the fixes."""

    slow_m: float = SLOW_M
    fast_m: float = 6.0
    fast_s: float = 3.0
    sure: float = 1.0
    """Factor by which the belief is narrower than the errors."""
    slow_s: float = SLOW_S


def standing(rng: Any, low_m: float, high_m: float, seconds: int) -> Any:
    """Return where a child stands, a row per second: between two distances from the side, moving 6 times an hour."""
    moves = rng.random(seconds) < 1 / 600
    moves[0] = True
    spots = np.column_stack([rng.uniform(low_m, high_m, moves.sum()), rng.uniform(-20, 20, moves.sum())])
    return spots[np.cumsum(moves) - 1]


def walking(from_m: float, to_m: float, then_s: int) -> Any:
    """Return a walk straight across the side, then standing at its end."""
    steps = int(abs(to_m - from_m) / WALK_M_S)
    x = np.concatenate([np.linspace(from_m, to_m, steps), np.full(then_s, to_m)])
    return np.column_stack([x, np.zeros(len(x))])


def fixes(rng: Any, air: Air, truth: Any, start_s: float = 0.0) -> Iterator[Fix]:
    """Yield one fix for each second of a way."""
    moved_m = np.concatenate([[1e9], np.hypot(*np.diff(truth, axis=0).T)])
    keeps = np.exp(-1 / air.slow_s - moved_m / WAY_M)
    error = _drifting(rng, keeps) * air.slow_m
    error += _drifting(rng, np.full(len(truth), np.exp(-1 / air.fast_s) if air.fast_s else 0.0)) * air.fast_m
    seen = truth + error
    spread_m = float(np.hypot(air.slow_m, air.fast_m)) / air.sure
    p = _within(seen[:, 0], WEST_M, EAST_M, spread_m) * _within(seen[:, 1], SOUTH_M, NORTH_M, spread_m)
    r50, r95 = 1.18 * spread_m, 2.45 * spread_m
    for n, (x, y, inside) in enumerate(zip(*seen.T.tolist(), p.tolist(), strict=True), 1):
        yield Fix(x, y, r50, r95, (), start_s + n, places={"school": inside})


def false_words(seed: int, air: Air, low_m: float, high_m: float, *, days: int = DAYS) -> tuple[int, int]:
    """Return (arrivals, departures) of a child who never crosses the edge. Inside, it arrives only after it "left"."""
    rng = np.random.default_rng(seed)
    settler = Settler(ZONE, PLANE, {})
    settler.restore(0, "at" if high_m < 0 else "moving", "school" if high_m < 0 else None, 0.0)
    arrived = left = 0
    every_s = 86400.0 if high_m < 0 else DAY_S  # a pupil goes home unseen; a child that waits outside goes on waiting
    for day in range(days):
        for fix in fixes(rng, air, standing(rng, low_m, high_m, DAY_S), day * every_s):
            for change in settler.step(0, fix, None, fix.fixed_at_s):
                arrived += isinstance(change, Arrived)
                left += isinstance(change, Left)
        if day % 2:  # every other night the gateway restarts
            kept, about_s = settler.tags[0], settler.about_s(0)
            settler = Settler(ZONE, PLANE, {})
            settler.restore(0, kept.state, kept.place, (day + 1) * every_s, about_s=about_s)
    return arrived, left


def delays_s(seed: int, air: Air, to_m: float, *, walks: int = 100, then_s: int = 1200) -> list[float]:
    """Return the seconds from the side to the report, for walks out (to_m > 0) or in; inf for none within `then_s`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(walks):
        settler = Settler(ZONE, PLANE, {})
        inside = to_m > 0
        settler.restore(0, "at" if inside else "moving", "school" if inside else None, 0.0)
        truth = walking(-40.0 if inside else 90.0, to_m, then_s)
        crossed_s = float(np.argmax((truth[:, 0] > 0) == inside)) + 1
        told = float("inf")
        for fix in fixes(rng, air, truth):
            if any(isinstance(c, Left if inside else Arrived) for c in settler.step(0, fix, None, fix.fixed_at_s)):
                told = fix.fixed_at_s - crossed_s
                break
        found.append(told)
    return found


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"seed": 1, "days": DAYS, "hours_a_day": DAY_S // 3600}
    for name, air in AIRS.items():
        _, found[f"{name}_inside_3_to_8_m_false_left"] = false_words(1, air, -8.0, -3.0)
        found[f"{name}_outside_3_to_8_m_false_arrivals"], _ = false_words(1, air, 3.0, 8.0)
        for where, to_m in (("left_walking_on", 300.0), ("left_to_20_m_off", 20.0)):
            _tell(found, f"{name}_{where}", delays_s(1, air, to_m))
        for depth_m in (40, 20, 12):
            _tell(found, f"{name}_arrived_{depth_m}_m_inside", delays_s(1, air, -float(depth_m)))
    settler, rng = Settler(ZONE, PLANE, {}), np.random.default_rng(1)
    made = list(fixes(rng, Air(), standing(rng, -8.0, -3.0, 50_000)))
    started = time.perf_counter()
    for fix in made:
        for _ in settler.step(0, fix, None, fix.fixed_at_s):
            pass
    found["step_us"] = round((time.perf_counter() - started) / len(made) * 1e6, 2)
    for name, value in found.items():
        print(f"  {name:48} {value}")
    return found


AIRS = {
    "honest": Air(),
    "rough": Air(fast_m=8.0, fast_s=5.0),
    "too_sure": Air(sure=1.5),
    "slow": Air(fast_m=4.0, slow_s=600.0, sure=1.5),
}


def _tell(found: dict[str, float | int | str], name: str, delays: list[float]) -> None:
    for word, share in (("p50", 50), ("p90", 90)):
        value = float(np.percentile(delays, share, method="lower"))
        found[f"{name}_{word}_s"] = round(value) if value < 1e9 else "not told"


def _drifting(rng: Any, keeps: Any) -> Any:
    """Return unit Gauss-Markov noise in both axes. keeps: the share of a row that stays in the next."""
    fresh = rng.standard_normal((len(keeps), 2)) * np.sqrt(1 - keeps**2)[:, None]
    rows, last = np.empty_like(fresh), (0.0, 0.0)
    for n, ((x, y), keep) in enumerate(zip(fresh.tolist(), keeps.tolist(), strict=True)):
        last = rows[n] = (keep * last[0] + x, keep * last[1] + y)
    return rows


def _within(at: Any, low: float, high: float, spread_m: float) -> Any:
    return np.interp((high - at) / spread_m, _GRID, _NORMAL) - np.interp((low - at) / spread_m, _GRID, _NORMAL)
