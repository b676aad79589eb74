"""Geometry on the plane for many points at once: depth in a polygon, distance to a line, lines cut at outlines.

Metres, x east and y north. Points are arrays [points, 2]. Lines and rings are lists of (x, y), rings open or closed.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.locate.ways import PathLine, PointM

SHALLOW_M = 1.0
"""A line that is never this deep in a polygon only touches it: maps are not drawn more exactly."""
OUT, AWAY = -1, -2
"""Labels of a piece of a line that is in no polygon: within reach; out of reach of every centre."""


def inside(xy_m: Any, ring: PathLine) -> Any:
    """Return which points are in a polygon. A point on an edge of two polygons is in exactly one of them."""
    x, y = xy_m[:, 0], xy_m[:, 1]
    odd = np.zeros(len(xy_m), bool)
    for (x1, y1), (x2, y2) in itertools.pairwise([ring[-1], *ring]):
        if y2 != y1:
            odd ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return odd


def depths_m(xy_m: Any, ring: PathLine) -> Any:
    """Return `gateway.zone.depth_m` for each point: metres to the nearest edge, negative outside."""
    away = off_line_m(xy_m, [ring[-1], *ring])
    return np.where(inside(xy_m, ring), away, -away)


def side(xy_m: Any, ring: PathLine) -> Any:
    """Return 1 for points inside an outline, -1 for those outside, and in between within SHALLOW_M of it."""
    return np.clip(depths_m(xy_m, ring) / SHALLOW_M, -1.0, 1.0)


def crossing(side: Any, other: Any) -> Any:
    """Return 1 for points on different sides (`side`) of an outline, 0 on the same side or if one is on its line."""
    return np.maximum(-side * other, 0.0)


def off_line_m(xy_m: Any, line: PathLine) -> Any:
    """Return `gateway.zone.distance_to_line_m` for each point."""
    nearest2 = np.full(len(xy_m), np.inf)
    for one, other in itertools.pairwise(line):
        nearest2 = np.minimum(nearest2, _to_leg2(xy_m, one, other))
    return np.sqrt(nearest2)


def near(xy_m: Any, line: PathLine, margin_m: float) -> Any:
    """Return which points are in the line's box widened by margin_m. All others are surely farther away than that."""
    corners = np.array(line)
    low, high = corners.min(axis=0) - margin_m, corners.max(axis=0) + margin_m
    return ((xy_m >= low) & (xy_m <= high)).all(axis=1)


def frame_of(ring: PathLine) -> tuple[float, float, float, float, float]:
    """Return (angle, x0, y0, x1, y1): the smallest box around a ring with a side along an edge, turned by -angle."""
    corners = np.array(ring)
    best: tuple[float, ...] = ()
    for one, other in itertools.pairwise([ring[-1], *ring]):
        if one == other:
            continue
        angle = math.atan2(other[1] - one[1], other[0] - one[0]) % (math.pi / 2)
        flat = turned(corners, -angle)
        (x0, y0), (x1, y1) = flat.min(axis=0), flat.max(axis=0)
        size = round((x1 - x0) * (y1 - y0), 3)
        if not best or size < best[0]:
            best = (size, angle, float(x0), float(y0), float(x1), float(y1))
    return (best[1], best[2], best[3], best[4], best[5]) if best else (0.0, *ring[0], *ring[0])


def turned(xy_m: Any, angle: float) -> Any:
    """Return points turned anticlockwise about the origin."""
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([c * xy_m[:, 0] - s * xy_m[:, 1], s * xy_m[:, 0] + c * xy_m[:, 1]], axis=1)


def clusters(points: Sequence[PointM], link_m: float) -> list[list[int]]:
    """Return groups of point indices. Steps of at most link_m connect all points of a group."""
    left = list(range(len(points)))
    found = []
    while left:
        group = [left.pop(0)]
        for one in group:
            beside = [n for n in left if math.dist(points[one], points[n]) <= link_m]
            group += beside
            left = [n for n in left if n not in beside]
        found.append(sorted(group))
    return found


LinePart = tuple[int, list[PointM]]
"""A part of a line: its label (see `cut`), and its points."""


def cut(lines: Sequence[PathLine], rings: Sequence[PathLine], centres: Any, reach_m: float) -> list[list[LinePart]]:
    """Return each line as runs. The label of a run is the index of the first ring that holds it, or OUT, or AWAY.

    AWAY: in no ring and farther than reach_m from all centres [n, 2]. What is less than SHALLOW_M deep in a ring counts
    as in no ring.
    """
    edges = np.array([edge for ring in rings for edge in itertools.pairwise([ring[-1], *ring])]).reshape(-1, 2, 2)
    spots = [_spots(line, edges, centres, reach_m) for line in lines]
    if not any(spots):
        return [[] for _ in lines]
    middles = np.concatenate([_middles(each) for each in spots if each])
    bare = np.where(_within(middles, centres, reach_m), OUT, AWAY)
    labels = bare.copy()
    depth = np.zeros(len(middles))
    for n, ring in reversed(list(enumerate(rings))):
        some = np.flatnonzero(near(middles, ring, 0.0))
        deep = depths_m(middles[some], ring)
        labels[some[deep > 0]], depth[some[deep > 0]] = n, deep[deep > 0]
    found, at = [], 0
    for each in spots:
        stop = at + max(len(each) - 1, 0)
        _leave_shallow(each, labels[at:stop], depth[at:stop], bare[at:stop], rings)
        found.append(_runs(each, labels[at:stop].tolist()))
        at = stop
    return found


def _spots(line: PathLine, edges: Any, centres: Any, reach_m: float) -> list[tuple[PointM, bool]]:
    """Return a line's corners (True) and where its label may change between them; [] if it has no length."""
    spots: list[tuple[PointM, bool]] = []
    for a, b in itertools.pairwise(line):
        length2 = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
        if length2 < 1e-12:
            continue
        start, way = np.array(a), np.array([b[0] - a[0], b[1] - a[1]])
        side, to_side = edges[:, 1] - edges[:, 0], edges[:, 0] - start
        cross = way[0] * side[:, 1] - way[1] * side[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (to_side[:, 0] * side[:, 1] - to_side[:, 1] * side[:, 0]) / cross
            s = (to_side[:, 0] * way[1] - to_side[:, 1] * way[0]) / cross
        crossed = t[(np.abs(cross) > 1e-9) & (s >= 0) & (s <= 1)]
        away = start - centres
        half = away @ way / length2
        square = half**2 - ((away**2).sum(axis=1) - reach_m**2) / length2
        half, root = half[square > 0], np.sqrt(square[square > 0])
        cuts = np.concatenate([crossed, -half - root, -half + root])
        spots.append((a, True))
        spots += [
            ((a[0] + t * float(way[0]), a[1] + t * float(way[1])), False)
            for t in sorted({round(float(t), 9) for t in cuts if 1e-9 < t < 1 - 1e-9})
        ]
    return [*spots, (line[-1], True)] if spots else []


def _middles(spots: Sequence[tuple[PointM, bool]]) -> Any:
    points = np.array([point for point, _ in spots])
    return (points[1:] + points[:-1]) / 2


def _within(xy_m: Any, centres: Any, reach_m: float) -> Any:
    found = np.zeros(len(xy_m), bool)
    for centre in centres:
        found |= ((xy_m - centre) ** 2).sum(axis=1) <= reach_m**2
    return found


def _leave_shallow(
    spots: Sequence[tuple[PointM, bool]], labels: Any, depth: Any, bare: Any, rings: Sequence[PathLine]
) -> None:
    """Label pieces that only touch a polygon as if it did not exist, in place."""
    at = 0
    for label, group in itertools.groupby(labels.tolist()):
        stop = at + len(list(group))
        if label >= 0:
            ends = depths_m(np.array([point for point, _ in spots[at : stop + 1]]), rings[label])
            if max(depth[at:stop].max(), ends.max()) < SHALLOW_M:
                labels[at:stop] = bare[at:stop]
        at = stop


def _runs(spots: Sequence[tuple[PointM, bool]], labels: Sequence[int]) -> list[LinePart]:
    runs: list[LinePart] = []
    at = 0
    for label, group in itertools.groupby(labels):
        stop = at + len(list(group))
        corners = (point for point, corner in spots[at + 1 : stop] if corner)
        runs.append((label, [spots[at][0], *corners, spots[stop][0]]))
        at = stop
    return runs


def _to_leg2(xy_m: Any, one: PointM, other: PointM) -> Any:
    dx, dy = other[0] - one[0], other[1] - one[1]
    length2 = dx * dx + dy * dy
    from_x, from_y = xy_m[:, 0] - one[0], xy_m[:, 1] - one[1]
    t = np.clip((from_x * dx + from_y * dy) / length2, 0.0, 1.0) if length2 else 0.0
    return (from_x - t * dx) ** 2 + (from_y - t * dy) ** 2
