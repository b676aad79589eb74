"""Whether a tag is on its agreed route: off it only when seen well outside the corridor and at no named place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.fix import Fix
from gateway.presence.changes import Strayed
from gateway.presence.evidence import Evidence, log_odds, probability
from gateway.presence.places import Places, outside
from gateway.zone import Plane, Zone, distance_to_line_m

OFF_ROUTE_M = 15.0
"""This far outside the corridor, a deviation is proven in 10 s; at 10 m in 2 min, at 5 m in 2 h (`places.outside`).
Less than for a place, because the corridor is already a margin and the error of a tag that walks changes all the
time."""
BACK_MOST, BACK_PROOF = 3.0, 12.0
"""Back on the route: after 4 s of certainty, or 15 s of "70 %"."""


@dataclass(slots=True)
class RouteState:
    """One tag and its route. evidence: for the next change, off the route or back on it."""

    evidence: Evidence
    off: bool = False


class Routes:
    """The agreed routes of a zone, by tag."""

    def __init__(self, zone: Zone, plane: Plane, rows: Mapping[str, int], places: Places) -> None:
        self._places = places
        self._lines = {r.id: tuple(plane.to_xy_m(lon, lat) for lon, lat in r.line) for r in zone.routes}
        self._corridors_m = {r.id: r.corridor_m for r in zone.routes}
        self.of = {rows[tag]: route.id for route in zone.routes for tag in route.tags if tag in rows}
        """The route of each tag that has one."""

    def step(
        self, way: RouteState, odds: Mapping[str, float], tag: int, fix: Fix, at_m: tuple[float, float], now_s: float
    ) -> Iterator[Strayed]:
        """Take a fix of a tag with a route. odds: probability of each place; at_m: the tag's smoothed position."""
        p = probability(fix.on_route)
        if p is None:
            return
        p = min(p + sum(odds.values()), 1.0)  # the most it can be for "on it or at a place": no false deviation
        if way.off:
            changed = way.evidence.weigh(log_odds(p), BACK_MOST, now_s) >= BACK_PROOF
        else:
            changed = outside(way.evidence, p, lambda: self._beside_m(self.of[tag], at_m), OFF_ROUTE_M, fix, now_s)
        if changed:
            way.evidence.proof, way.off = 0.0, not way.off
            yield Strayed(tag, self.of[tag], way.off, 1.0 - p, fix)

    def _beside_m(self, route: str, at_m: tuple[float, float]) -> float:
        beside_m = distance_to_line_m(*at_m, self._lines[route]) - self._corridors_m[route]
        return min(beside_m, self._places.outside_m(at_m))
