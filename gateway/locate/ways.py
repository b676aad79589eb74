"""Lines of footpaths -> chains between junctions, each cut into equal cells. Metres on the zone's plane."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SNAP_M = 0.75
"""An end this near to another line meets it."""
SEGMENTS_MAX = 5000

PointM = tuple[float, float]
PathLine = Sequence[PointM]


@dataclass(frozen=True, slots=True)
class Chain:
    """A way between two nodes, with no junction on it."""

    start: int
    end: int
    points: tuple[PointM, ...]

    @property
    def length_m(self) -> float:
        return sum(math.dist(a, b) for a, b in zip(self.points, self.points[1:], strict=False))

    def cut(self, step_m: float) -> tuple[Any, Any, float]:
        """Return equal cells of about step_m: middles [cells, 2], facings [cells] in radians; and the length."""
        xy = np.array(self.points)
        legs = np.hypot(*np.diff(xy, axis=0).T)
        along = np.append(0.0, np.cumsum(legs))
        count = max(1, round(along[-1] / step_m))
        at = (np.arange(count) + 0.5) * along[-1] / count
        middles = np.stack([np.interp(at, along, xy[:, 0]), np.interp(at, along, xy[:, 1])], axis=1)
        leg = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(legs) - 1)
        dx, dy = np.diff(xy, axis=0)[leg].T
        return middles, np.arctan2(dy, dx), float(along[-1])


def chains(lines: Sequence[PathLine]) -> list[Chain]:
    """Return the chains of lines that cross, touch or end at each other. Raise ValueError over SEGMENTS_MAX pieces."""
    pieces = _split(lines)
    nodes: list[PointM] = []
    by_place: dict[tuple[int, int], list[int]] = {}

    def node(p: PointM) -> int:
        column, row = math.floor(p[0] / SNAP_M), math.floor(p[1] / SNAP_M)
        for i in range(column - 1, column + 2):
            for j in range(row - 1, row + 2):
                for n in by_place.get((i, j), ()):
                    if math.dist(nodes[n], p) <= SNAP_M:
                        return n
        nodes.append(p)
        by_place.setdefault((column, row), []).append(len(nodes) - 1)
        return len(nodes) - 1

    links: dict[int, list[int]] = {}
    for a, b in pieces:
        i, j = node(a), node(b)
        if i != j and j not in links.get(i, ()):
            links.setdefault(i, []).append(j)
            links.setdefault(j, []).append(i)
    found: list[Chain] = []
    used: set[tuple[int, int]] = set()
    starts = [n for n in links if len(links[n]) != 2] or list(links)[:1]
    for start in [*starts, *links]:
        for second in links[start]:
            if (start, second) in used or (
                len(links[start]) == 2 and start not in starts and _done(start, links, used)
            ):
                continue
            way = [start, second]
            while len(links[way[-1]]) == 2 and way[-1] != start and way[-1] not in starts:
                one, other = links[way[-1]]
                way.append(other if one == way[-2] else one)
            used.update(itertools.pairwise(way))
            used.update(zip(way[1:], way, strict=False))
            found.append(Chain(start, way[-1], tuple(nodes[n] for n in way)))
    return found


def _done(node: int, links: dict[int, list[int]], used: set[tuple[int, int]]) -> bool:
    return any((node, other) in used for other in links[node])


def _split(lines: Sequence[PathLine]) -> list[tuple[PointM, PointM]]:
    """Return the legs (straight pieces) of all lines, cut where another leg crosses them or ends at them."""
    legs = [(a, b) for line in lines for a, b in itertools.pairwise(line) if math.dist(a, b) > 1e-6]
    if len(legs) > SEGMENTS_MAX:
        raise ValueError(f"{len(legs)} pieces of footpath, at most {SEGMENTS_MAX}; draw them with fewer corners")
    pieces = []
    ends = np.array(list(legs)).reshape(-1, 2, 2)
    for a, b in legs:
        length = math.dist(a, b)
        cuts = {0.0, 1.0}
        u = ((b[0] - a[0]) / length, (b[1] - a[1]) / length)
        # Ends of other legs that lie on this one.
        flat = ends.reshape(-1, 2) - a
        along, off = flat @ u, np.abs(flat[:, 1] * u[0] - flat[:, 0] * u[1])
        for t in along[(off < SNAP_M) & (along > SNAP_M) & (along < length - SNAP_M)]:
            cuts.add(round(float(t) / length, 6))
        # Legs that cross this one in the middle of both.
        start, way = ends[:, 0] - a, ends[:, 1] - ends[:, 0]
        cross = u[0] * way[:, 1] - u[1] * way[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (start[:, 0] * way[:, 1] - start[:, 1] * way[:, 0]) / cross
            s = (start[:, 0] * u[1] - start[:, 1] * u[0]) / cross
        for each in t[(np.abs(cross) > 1e-9) & (t > SNAP_M) & (t < length - SNAP_M) & (s > 0) & (s < 1)]:
            cuts.add(round(float(each) / length, 6))
        order = sorted(cuts)
        spots = [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for t in order]
        pieces += list(itertools.pairwise(spots))
    return pieces
