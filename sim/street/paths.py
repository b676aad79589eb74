"""The footpath graph: where a child can walk, and the cheapest way between two points. Metres, x east, y north."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

Spot = tuple[float, float]

JOIN_M = 0.05
"""Two street points within this distance are one junction: the site file rounds to 0.1 m and repeats them exactly."""


class Unreachable(ValueError):
    """No footpath leads there: the site's streets are not all connected, or there are none."""


class Paths:
    """Streets as a graph of points. Each street has a cost; it multiplies the length when a way is chosen."""

    def __init__(self, streets: Iterable[tuple[Sequence[Spot], float]] = ()) -> None:
        self.points: list[Spot] = []
        self._edges: list[dict[int, float]] = []
        self._known: dict[tuple[int, int], int] = {}
        for line, cost in streets:
            for a, b in pairwise(line):
                self._link(self._node(a), self._node(b), cost)

    def attach(self, point: Spot) -> int:
        """Return the node of the street point nearest to `point`. Split a street there when it has no node yet.

        Raises Unreachable when there is no street at all.
        """
        best: tuple[float, int, int, Spot] | None = None
        for a, edges in enumerate(self._edges):
            for b in edges:
                if a < b:
                    foot = nearest_on_segment(point, self.points[a], self.points[b])
                    distance = math.dist(point, foot)
                    if best is None or distance < best[0] - 1e-9:
                        best = (distance, a, b, foot)
        if best is None:
            raise Unreachable("the site has no streets; derive it again with a larger radius")
        _, a, b, foot = best
        node = self._node(foot)
        if node not in (a, b):
            cost = self._edges[a].pop(b)
            del self._edges[b][a]
            self._link(a, node, cost)
            self._link(node, b, cost)
        return node

    def neighbours(self, node: int) -> list[int]:
        """Return the nodes that one street piece connects to `node`, in a fixed order."""
        return sorted(self._edges[node])

    def distances_m(self, source: int) -> dict[int, float]:
        """Return the walking distance, weighted by cost, from `source` to every node that it reaches."""
        return {node: distance for node, (distance, _) in self._dijkstra(source).items()}

    def route(self, source: int, target: int) -> list[int]:
        """Return the nodes of the cheapest way, both ends included. Raises Unreachable."""
        before = self._dijkstra(target)
        if source not in before:
            raise Unreachable(f"no footpath from {self.points[source]} to {self.points[target]}")
        way = [source]
        while way[-1] != target:
            way.append(before[way[-1]][1])
        return way

    def _dijkstra(self, source: int) -> dict[int, tuple[float, int]]:
        done: dict[int, tuple[float, int]] = {}
        heap = [(0.0, source, source)]
        while heap:
            distance, node, before = heapq.heappop(heap)
            if node in done:
                continue
            done[node] = (distance, before)
            for other, cost in self._edges[node].items():
                if other not in done:
                    step = cost * math.dist(self.points[node], self.points[other])
                    heapq.heappush(heap, (distance + step, other, node))
        return done

    def _node(self, point: Spot) -> int:
        key = (round(point[0] / JOIN_M), round(point[1] / JOIN_M))
        for dx in (0, -1, 1):
            for dy in (0, -1, 1):
                known = self._known.get((key[0] + dx, key[1] + dy))
                if known is not None and math.dist(self.points[known], point) <= JOIN_M:
                    return known
        self.points.append((float(point[0]), float(point[1])))
        self._edges.append({})
        self._known[key] = len(self.points) - 1
        return len(self.points) - 1

    def _link(self, a: int, b: int, cost: float) -> None:
        if a != b:
            self._edges[a][b] = self._edges[b][a] = min(cost, self._edges[a].get(b, math.inf))


def nearest_on_segment(p: Spot, a: Spot, b: Spot) -> Spot:
    """Return the point of the segment a-b that is nearest to p."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = dx * dx + dy * dy
    t = max(0.0, min(1.0, ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length2)) if length2 else 0.0
    return a[0] + t * dx, a[1] + t * dy


def inside(p: Spot, ring: Sequence[Spot]) -> bool:
    """Return whether p lies in the polygon (open or closed ring)."""
    odd = False
    x1, y1 = ring[-1]
    for x2, y2 in ring:
        if (y1 > p[1]) != (y2 > p[1]) and p[0] < (x2 - x1) * (p[1] - y1) / (y2 - y1) + x1:
            odd = not odd
        x1, y1 = x2, y2
    return odd


def distance_to_edge_m(p: Spot, ring: Sequence[Spot]) -> float:
    """Return the distance from p to the polygon's outline, from inside or outside."""
    closed = [*ring, ring[0]]
    return min(math.dist(p, nearest_on_segment(p, a, b)) for a, b in pairwise(closed))
