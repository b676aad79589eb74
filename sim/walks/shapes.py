"""More places for simulated walks, of shapes that `places` does not draw: crossroads, halls, open yards, fields."""

from __future__ import annotations

import math

import numpy as np

from sim.chance import Floats
from sim.walks.places import Draw, WalkPlace


def crossroads(seed: int) -> WalkPlace:
    """Two streets that cross at an angle; poles 22-40 m apart on alternating sides. Walks turn at the crossing."""
    u = Draw(seed, "crossroads")
    spacing_m, arm_m = 22.0 + 18.0 * u("spacing"), 45.0 + 40.0 * u("arm")
    courses = [u("course") * math.pi, 0.0]
    courses[1] = courses[0] + math.pi / 2.0 + 0.7 * (u("angle") - 0.5)
    beside_m, half_m = 1.0 + 4.0 * u("beside"), 3.0 + 2.0 * u("half")
    readers: list[tuple[float, float, float]] = []
    lines: list[Floats] = []
    for course in courses:
        along = np.array([math.cos(course), math.sin(course)])
        across = np.array([-along[1], along[0]])
        lines.append(np.array([-arm_m * along, np.zeros(2), arm_m * along]))
        for i, at in enumerate(np.arange(-arm_m + 5.0, arm_m, spacing_m)):
            x, y = at * along + (1 if i % 2 else -1) * (half_m + beside_m) * across
            readers.append((float(x), float(y), 2.8 + 1.7 * u("height", i)))
    (a, middle, b), (c, _, d) = lines
    walked = (np.array([a, middle, d]), np.array([c, middle, b]), np.array([b, middle, a]), np.array([d, middle, c]))
    return WalkPlace(
        np.array(readers), _bounds(np.concatenate([*lines, np.array(readers)[:, :2]]), 4.0), tuple(lines), walked,
        speed_m_s=1.2, stop_gap_m=45.0, wander_m=0.8, height_m=0.9, worn="body", radio="ble",
    )  # fmt: skip


def hall(seed: int) -> WalkPlace:
    """A corridor or a hall, 12-45 m long and up to five times as long as wide; 4-10 readers on ceiling and walls."""
    u = Draw(seed, "hall")
    long_m = 12.0 + 33.0 * u("long")
    wide_m = max(3.0, long_m * (0.2 + 0.6 * u("wide")))
    count = 4 + int(7 * u("count"))
    x = long_m * (np.arange(count) + u("first")) / count
    readers = np.array([(a, wide_m * u("y", i), 2.2 + 1.0 * u("z", i)) for i, a in enumerate(x)])
    return WalkPlace(
        readers, (0.0, 0.0, long_m, wide_m), (), tuple(_between(long_m, wide_m, 8, u, i) for i in range(4)),
        speed_m_s=0.4 + 0.8 * u("speed"), stop_gap_m=15.0, wander_m=0.1, height_m=1.2, worn="body", radio="ble",
    )  # fmt: skip


def scattered_yard(seed: int) -> WalkPlace:
    """A yard of 25-90 m with 4-8 readers anywhere in and round it, on walls, masts and trees."""
    u = Draw(seed, "scattered yard")
    long_m = 25.0 + 65.0 * u("long")
    wide_m = long_m * (0.4 + 0.6 * u("wide"))
    count = 4 + int(5 * u("count"))
    readers = np.array(
        [
            (long_m * ((i % 3) + u("x", i)) / 3.0, wide_m * ((i // 3 % 2) + u("y", i)) / 2.0, 2.5 + 2.0 * u("z", i))
            for i in range(count)
        ]
    )
    return WalkPlace(
        readers, (0.0, 0.0, long_m, wide_m), (), tuple(_between(long_m, wide_m, 9, u, i) for i in range(4)),
        speed_m_s=0.9 + 1.2 * u("speed"), stop_gap_m=30.0, wander_m=0.5, height_m=0.9, worn="body", radio="ble",
    )  # fmt: skip


def field(seed: int) -> WalkPlace:
    """An open field of 20-60 m with readers at its corners, 1.3-4 m high."""
    u = Draw(seed, "field")
    long_m = 20.0 + 40.0 * u("long")
    wide_m = long_m * (0.5 + 0.5 * u("wide"))
    readers = np.array([(x, y, 1.3 + 2.7 * u("z")) for x in (0.0, long_m) for y in (0.0, wide_m)])
    return WalkPlace(
        readers, (-4.0, -4.0, long_m + 4.0, wide_m + 4.0), (),
        tuple(_between(long_m, wide_m, 7, u, i) for i in range(4)),
        speed_m_s=1.0 + 0.8 * u("speed"), stop_gap_m=30.0, wander_m=0.3, height_m=1.0, worn="body", radio="ble",
    )  # fmt: skip


def fewer(readers_m: Floats, count: int) -> Floats:
    """Return `count` of the readers, those that are farthest from each other, in their order."""
    kept = [0]
    while len(kept) < min(count, len(readers_m)):
        gap_m = np.linalg.norm(readers_m[:, None, :2] - readers_m[None, kept, :2], axis=-1).min(axis=1)
        kept.append(int(gap_m.argmax()))
    return readers_m[sorted(kept)]


def _between(long_m: float, wide_m: float, corners: int, u: Draw, number: int) -> Floats:
    """Return a line from point to point, no nearer than a twentieth to the edge."""
    points = [
        (long_m * (0.05 + 0.9 * u("to x", number, i)), wide_m * (0.05 + 0.9 * u("to y", number, i)))
        for i in range(corners)
    ]
    return np.array(points)


def _bounds(points_m: Floats, margin_m: float) -> tuple[float, float, float, float]:
    low, high = points_m.min(0) - margin_m, points_m.max(0) + margin_m
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
