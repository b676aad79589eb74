"""The places of simulated walks: streets with readers on poles, rooms with readers on walls, school yards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from sim import chance
from sim.chance import Floats
from sim.walks.channel import WalkChannel

PlaceKind = Literal["street", "room", "yard"]
KINDS: tuple[PlaceKind, ...] = get_args(PlaceKind)


@dataclass(frozen=True, slots=True)
class WalkPlace:
    """A place drawn from a seed: its readers and its walks, without any radio. Metres."""

    readers_m: Floats
    bounds_m: tuple[float, float, float, float]
    footpaths: tuple[Floats, ...]
    lines: tuple[Floats, ...]
    """What is walked: one polyline per track."""
    speed_m_s: float
    stop_gap_m: float
    wander_m: float
    height_m: float
    worn: str
    radio: str


class Draw:
    """Random numbers in (0, 1). The arguments of a call say what the number is for, and select it."""

    def __init__(self, seed: int, key: str) -> None:
        self._seed, self._key = seed, key

    def __call__(self, *what: int | str) -> float:
        return chance.one(self._seed, "walks", self._key, *what)


def place_of(kind: PlaceKind, seed: int) -> WalkPlace:
    """Return the place of this kind that the seed draws."""
    return {"street": _street, "room": _room, "yard": _yard}[kind](seed)


def channel_of(kind: PlaceKind, worn: str, seed: int) -> WalkChannel:
    """Return the channel that the seed draws, from ranges measured indoors and on streets (see docs/SIMULATOR.md)."""
    u = Draw(seed, "channel")
    indoors = kind == "room"
    body = (3.0, 6.0, -3.0)[int(3 * u("body"))] if worn == "body" else 0.0
    return WalkChannel(
        p0_dbm=round(-50.0 + 6.0 * (u("p0") - 0.5), 1),
        exponent=round((1.6 if indoors else 2.0) + 1.0 * u("n"), 2),
        slow_db=round(3.0 + 2.0 * u("slow"), 1),
        slow_m=1.5 if indoors else 10.0,
        rice_k_db=round(3.0 + 7.0 * u("k"), 1),
        body_db=body,
    )


def _street(seed: int) -> WalkPlace:
    """A straight street: readers every 30 m on one side or both, a footpath on each side, three crossings."""
    u = Draw(seed, "street")
    both, count, spacing_m = u("sides") < 0.5, 5 + int(4 * u("count")), 30.0
    lateral_m, half_m = 1.0 + 4.0 * u("lateral"), 4.0 + 3.0 * u("width")
    length_m = spacing_m * (count - 1)
    x = spacing_m * np.arange(count)
    pole_y = half_m + lateral_m
    sides = (1.0, -1.0) if both else (1.0,)
    readers = np.array([(a, side * pole_y, 3.5) for side in sides for a in x])
    ends = (-10.0, length_m / 2.0, length_m + 10.0)
    paths = [np.array([(a, side * half_m) for a in ends]) for side in (1.0, -1.0)]
    crossings = [np.array([(a, half_m), (a, -half_m)]) for a in ends]
    there = paths[0]
    back = paths[1][::-1]
    over = np.array([(ends[0], half_m), (ends[1], half_m), (ends[1], -half_m), (ends[2], -half_m)])
    lines = [there, back, over, over[::-1]]
    if u("turned") < 0.5:  # swap x and y: a street is not always along x
        readers = readers[:, [1, 0, 2]]
        paths, crossings, lines = ([line[:, ::-1] for line in each] for each in (paths, crossings, lines))
    low, high = readers[:, :2].min(0), readers[:, :2].max(0)
    walked = np.concatenate(paths)
    low, high = np.minimum(low, walked.min(0)) - 3.0, np.maximum(high, walked.max(0)) + 3.0
    return WalkPlace(
        readers, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), (*paths, *crossings), tuple(lines),
        speed_m_s=1.2, stop_gap_m=70.0, wander_m=0.5, height_m=0.9, worn="body",
        radio=_radio(u("radio")),
    )  # fmt: skip


def _room(seed: int) -> WalkPlace:
    """A room 6-26 m long with 4-12 readers on its walls; of 8 or more, a quarter on pillars. Walks of three shapes."""
    u = Draw(seed, "room")
    long_m = 6.0 + 20.0 * u("long")
    wide_m = max(4.0, long_m * (0.45 + 0.5 * u("wide")))
    count = 4 + int(9 * u("count"))
    inner = count // 4 if count >= 8 else 0
    readers = [
        (*_on_wall((i + u("first")) / (count - inner), long_m, wide_m), 2.0 + 0.6 * u("z", i))
        for i in range(count - inner)
    ]
    readers += [(long_m * (0.3 + 0.4 * u("px", i)), wide_m * (0.3 + 0.4 * u("py", i)), 1.3) for i in range(inner)]
    return WalkPlace(
        np.array(readers), (0.0, 0.0, long_m, wide_m), (), _indoor_lines(long_m, wide_m, u),
        speed_m_s=0.4 + 0.6 * u("speed"), stop_gap_m=25.0, wander_m=0.1, height_m=1.2,
        worn="rig" if u("worn") < 0.5 else "body", radio=_radio(u("radio")),
    )  # fmt: skip


def _yard(seed: int) -> WalkPlace:
    """A school yard 35-75 m long with 5-9 readers round its edge. Children go between random points, with stops."""
    u = Draw(seed, "yard")
    long_m = 35.0 + 40.0 * u("long")
    wide_m = long_m * (0.5 + 0.4 * u("wide"))
    count = 5 + int(5 * u("count"))
    readers = [(*_on_wall((i + u("first")) / count, long_m, wide_m), 3.5) for i in range(count)]
    lines = tuple(_random_line(long_m, wide_m, 9, 2.0, u, i) for i in range(3))
    return WalkPlace(
        np.array(readers), (0.0, 0.0, long_m, wide_m), (), lines,
        speed_m_s=1.0 + 1.2 * u("speed"), stop_gap_m=50.0, wander_m=0.3, height_m=0.9, worn="body",
        radio=_radio(u("radio")),
    )  # fmt: skip


def _indoor_lines(long_m: float, wide_m: float, u: Draw) -> tuple[Floats, ...]:
    a, b = min(1.0, wide_m / 5.0), wide_m - min(1.0, wide_m / 5.0)
    left, right = a, long_m - a
    box = [(left, a), (right, a), (right, b), (left, b)]
    first = int(4 * u("corner"))
    ring = np.array([box[(first + i) % 4] for i in range(9)])
    x = np.linspace(left, right, 7)
    zigzag = np.array([(each, a if i % 2 else b) for i, each in enumerate(x)])
    return ring, zigzag, zigzag[::-1], *(_random_line(long_m, wide_m, 10, a, u, i) for i in range(2))


def _random_line(long_m: float, wide_m: float, corners: int, edge_m: float, u: Draw, number: int) -> Floats:
    points = [
        (edge_m + (long_m - 2 * edge_m) * u("x", number, i), edge_m + (wide_m - 2 * edge_m) * u("y", number, i))
        for i in range(corners)
    ]
    return np.array(points)


def _on_wall(share: float, long_m: float, wide_m: float) -> tuple[float, float]:
    """Return the point at this share of the way round the walls."""
    d = share % 1.0 * 2.0 * (long_m + wide_m)
    for x, y, dx, dy, length_m in (
        (0.0, 0.0, 1, 0, long_m),
        (long_m, 0.0, 0, 1, wide_m),
        (long_m, wide_m, -1, 0, long_m),
        (0.0, wide_m, 0, -1, wide_m),
    ):
        if d <= length_m:
            return x + dx * d, y + dy * d
        d -= length_m
    return 0.0, 0.0


def _radio(share: float) -> str:
    return "ble" if share < 0.6 else "802.15.4"
