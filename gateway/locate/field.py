"""The zone in metres, on one lattice: what engines and areas share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.zone import LonLat, Plane, Zone

STEP_M = 5.0
"""Side of a lattice cell. A reading's distance is uncertain by half of itself, so a finer one would tell nothing."""
REACH_M = 180.0
"""Areas are drawn this far beyond the outermost readers: nothing is located farther out."""
_SUBSAMPLES = 3


class Region:
    """An area with a margin, as shares of lattice cells."""

    def __init__(self, ring: Sequence[tuple[float, float]], margin_m: float, bounds: tuple[float, float, float, float]):
        xs, ys = [x for x, _ in ring], [y for _, y in ring]
        west, south = max(min(xs) - margin_m, bounds[0]), max(min(ys) - margin_m, bounds[1])
        east, north = min(max(xs) + margin_m, bounds[2]), min(max(ys) + margin_m, bounds[3])
        self.column, self.row = cell_of(west, south)
        last_column, last_row = cell_of(max(east, west), max(north, south))
        columns, rows = last_column - self.column + 1, last_row - self.row + 1
        self.shares: Any = np.zeros((columns, rows))
        if east < west or north < south:
            return  # beyond every reader's reach
        offsets = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
        for dx in offsets:
            for dy in offsets:
                x = (self.column + np.arange(columns) + dx)[:, None] * STEP_M + np.zeros((1, rows))
                y = (self.row + np.arange(rows) + dy)[None, :] * STEP_M + np.zeros((columns, 1))
                self.shares += _within(x, y, ring, margin_m)
        self.shares /= _SUBSAMPLES**2

    def share(self, mass: Any, corner: tuple[int, int]) -> float:
        """Return how much of a belief (its [0, 0] at this lattice cell) lies in the region."""
        columns, rows = self.shares.shape
        dc, dr = self.column - corner[0], self.row - corner[1]
        c0, c1 = max(dc, 0), min(dc + columns, mass.shape[0])
        r0, r1 = max(dr, 0), min(dr + rows, mass.shape[1])
        if c0 >= c1 or r0 >= r1:
            return 0.0
        inside = self.shares[c0 - dc : c1 - dc, r0 - dr : r1 - dr]
        return min(1.0, float((mass[c0:c1, r0:r1] * inside).sum()))


class Field:
    """Readers, places and dangers of a zone on a plane round the readers' middle."""

    def __init__(self, zone: Zone) -> None:
        points: list[LonLat] = [(r.lon, r.lat) for r in zone.readers]
        areas = [p.polygon for p in zone.places] + [d.polygon for d in zone.dangers]
        points = points or [point for polygon in areas for point in polygon] or [(0.0, 0.0)]
        lon = sum(point[0] for point in points) / len(points)
        lat = sum(point[1] for point in points) / len(points)
        self.plane = Plane(lon, lat)
        self.readers = {r.number: (*self.plane.to_xy_m(r.lon, r.lat), r.height_m) for r in zone.readers}
        xs = [x for x, _, _ in self.readers.values()] or [0.0]
        ys = [y for _, y, _ in self.readers.values()] or [0.0]
        bounds = (min(xs) - REACH_M, min(ys) - REACH_M, max(xs) + REACH_M, max(ys) + REACH_M)
        self.places = {p.id: Region(self._ring(p.polygon), 0.0, bounds) for p in zone.places}
        self.dangers = {d.id: Region(self._ring(d.polygon), d.warn_m, bounds) for d in zone.dangers}

    def _ring(self, polygon: Sequence[LonLat]) -> list[tuple[float, float]]:
        return [self.plane.to_xy_m(lon, lat) for lon, lat in polygon]


def cell_of(x_m: float, y_m: float) -> tuple[int, int]:
    """Return the lattice cell (column east, row north) whose middle is nearest."""
    return math.floor(x_m / STEP_M + 0.5), math.floor(y_m / STEP_M + 0.5)


def _within(x: Any, y: Any, ring: Sequence[tuple[float, float]], margin_m: float) -> Any:
    """`gateway.zone.distance_to_polygon_m(...) <= margin_m`, for arrays."""
    inside = np.zeros(x.shape, dtype=bool)
    nearest2 = np.full(x.shape, np.inf)
    x1, y1 = ring[-1]
    for x2, y2 in ring:
        dx, dy = x2 - x1, y2 - y1
        if dy:
            inside ^= ((y1 > y) != (y2 > y)) & (x < dx * (y - y1) / dy + x1)
        length2 = dx * dx + dy * dy
        t = np.clip(((x - x1) * dx + (y - y1) * dy) / length2, 0.0, 1.0) if length2 else 0.0
        nearest2 = np.minimum(nearest2, (x - x1 - t * dx) ** 2 + (y - y1 - t * dy) ** 2)
        x1, y1 = x2, y2
    return inside | (nearest2 <= margin_m * margin_m) if margin_m > 0 else inside
