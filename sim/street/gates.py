"""A gate in a school's wall: which way leads in, and where the readers hang that guard it.

On each of two posts two readers stand back to back with patch antennas: the outer one OUTER_M before the line of the
wall looks to the street, the inner one INNER_M behind it looks to the yard. So who is outside is heard louder by one
and who is inside by the other, whatever the tag's power and body. Why there: docs/LOCATING.md, docs/SIMULATOR.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.zone import direction
from sim.street.paths import Spot, inside, nearest_on_segment

Side = Literal["outer", "inner"]

WIDTH_M = 3.0
"""Of a gate whose width is not given; as in a gateway's configuration."""
OUTER_M, INNER_M = 2.0, 3.2
"""With the outer readers 3 m before the wall, a child that waits 2 m before it stands behind them, and in a simulation
13 of 1000 such children were reported as arrived; with 2 m none. Nearer than 3 m behind the wall an inner reader hears
over it."""
POST_ASIDE_M = 0.5
"""From the end of the opening to the reader on its post."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """A gate of a site, in metres. inward_deg: the direction in which one enters, degrees from north, clockwise."""

    id: str
    place: str
    at: Spot
    inward_deg: float
    width_m: float

    def spot(self, inward_m: float, aside_m: float) -> Spot:
        """Return the point so far behind the gate's middle (negative: before it) and so far to the right of it."""
        east, north = direction(self.inward_deg)
        return self.at[0] + inward_m * east + aside_m * north, self.at[1] + inward_m * north - aside_m * east


@dataclass(frozen=True, slots=True)
class Guard:
    """A gate reader of the default layout: where it hangs, its side, and where its patch antenna looks."""

    at: Spot
    side: Side
    look_deg: float


def inward_deg(at: Spot, ring: Sequence[Spot]) -> float:
    """Return the bearing that leads from a gate straight through the nearest edge into the ring, 0 to below 360."""
    edges = [(a, b) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True) if a != b]
    a, b = min(edges, key=lambda edge: math.dist(at, nearest_on_segment(at, *edge)))
    foot, length = nearest_on_segment(at, a, b), math.dist(a, b)
    right = (b[1] - a[1]) / length, (a[0] - b[0]) / length
    within = inside((foot[0] + 0.1 * right[0], foot[1] + 0.1 * right[1]), ring)
    east, north = right if within else (-right[0], -right[1])
    return round(math.degrees(math.atan2(east, north)), 1) % 360.0


def look_deg(gate: Entrance, side: Side) -> float:
    """Return where a reader on this side of a gate looks: straight out to the street, or straight in."""
    return gate.inward_deg if side == "inner" else (gate.inward_deg + 180.0) % 360.0


def guards(gate: Entrance) -> list[Guard]:
    """Return the four readers of a guarded gate: outer and inner of the left post, then of the right post."""
    aside_m = gate.width_m / 2 + POST_ASIDE_M
    layout: tuple[tuple[Side, float], ...] = (("outer", -OUTER_M), ("inner", INNER_M))
    return [
        Guard(gate.spot(inward_m, right * aside_m), side, look_deg(gate, side))
        for right in (-1, 1)
        for side, inward_m in layout
    ]
