"""Where the readers of a zone go: at its gates, along its streets, and, if the promise asks for it, beside its gates.

A gate gets four readers with patch antennas, on both sides of the opening: outer ones before the wall that look to the
street, inner ones behind it that look into the yard. Streets get dipoles: again and again the spot from which most
footpath is heard that too few readers hear so far. Metres on the site's plane, x east, y north.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.antenna import gain_db
from gateway.survey.expected import ExpectedLaw
from gateway.zone import offset_m
from sim.chance import Floats
from sim.street.gates import INNER_M, Entrance, guards
from sim.street.paths import Spot, distance_to_edge_m, inside, nearest_on_segment
from sim.street.site import Pole, Site

ReaderRole = Literal["gate", "flank", "yard", "street", "kept"]

NEARER = (1.0, 0.6, 0.2)
"""Where a gate reader has no room at its post, it moves to so much of the way from the middle of the gate."""
WIDE_M = 12.0
"""Who passes in the middle of a wider gate is over 6 m from every post, and as far off the beam as who waits beside."""
OFF_WALL_M = 5.0
"""A gate further from the school's outline is in no wall."""
TURNED_DEG = 60.0
"""An inward direction that differs more from the wall's own is wrong, or the gate is on a corner."""
WALL_MIN_M = 0.5
"""A shorter edge of an outline says nothing about the wall's direction."""
CORNER_M, CORNER_DEG = 3.0, 30.0
"""A gate this near to an edge's end (beyond its half width), where the wall turns by more, is on a corner."""
FLANK_ALONG_M, FLANK_DEPTH_M = 18.0, 3.0
"""A flank reader: this far along the wall from the gate, and this far inside. The late ones of the simulated arrivals
went 24 to 32 m along the inside of the wall, 8 to 12 m from it, out of the inner readers' beam."""
HEIGHT_M = 3.5
POLE_ASIDE_M, POLE_APART_M = 2.5, 20.0
"""From the middle of a street to a pole; least distance between two poles: nearer, they hear the same."""
STEP_M, YARD_STEP_M, YARD_EDGE_M = 4.0, 8.0, 6.0
"""Steps at which footpaths and the yard are looked at; a yard pole is this far from the wall."""
STREET_WORTH, YARD_WORTH = (1.0, 0.7, 0.3), (0.2,)
"""What the first, second and third reader that hears a point are worth: one hears a press, two tell which way, three
locate it. For the yard the first alone: where in it a child is, nobody needs to know to 20 m."""
EVERYWHERE, ON_WAY_M = 0.2, 6.0
"""Worth of a piece of footpath that no child's way to school leads over, relative to one that all ways lead over; a way
leads over what is this near to it."""
WORTH_MIN = 2.0
"""A pole worth less is not proposed: it would be the first to hear 40 m of footpath on nobody's way to school."""
WALL_DB = 6.0
"""Planned loss in the school's wall: brick 6-8 dB. The walk test shows the true one."""


class LayoutError(ValueError):
    """The readers cannot be placed. The message says at what, why, and what to change in the site file."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A reader to be mounted, or one that is there already (kept), and what it is for."""

    role: ReaderRole
    pole: Pole


@dataclass(frozen=True, slots=True)
class Layout:
    """All gates and readers of a plan, by number. notes: what a person must look at, in sentences."""

    gates: tuple[Entrance, ...]
    readers: tuple[Planned, ...]
    notes: tuple[str, ...] = ()

    @property
    def poles(self) -> tuple[Pole, ...]:
        return tuple(reader.pole for reader in self.readers)

    def count(self, role: ReaderRole) -> int:
        return sum(reader.role == role for reader in self.readers)


def check_gate(gate: Entrance, ring: Sequence[Spot]) -> None:
    """Raise LayoutError when a gate is in no wall, or when its direction leads outwards. ring: the school's outline."""
    off_m = distance_to_edge_m(gate.at, ring)
    if off_m > OFF_WALL_M:
        raise LayoutError(
            f"{called(gate.id)} is {off_m:.0f} m from the school's outline: move the gate onto the wall, or draw the "
            "outline where one enters"
        )
    own_deg = _mean_deg([inward for _, inward in _walls(gate, ring)])
    turned = abs((gate.inward_deg - own_deg + 180) % 360 - 180)
    if turned > TURNED_DEG:
        leads = "out of the school" if turned > 120 else "along the wall"
        raise LayoutError(
            f"{called(gate.id)} has inward_deg {gate.inward_deg:g}, which leads {leads}: by the wall there it is "
            f"{own_deg:.0f} (degrees from north, clockwise); write that, or move the gate to its own wall"
        )


def check_ways(site: Site) -> None:
    """Raise LayoutError when no home has a way to a gate: nobody could come, so nothing can be promised."""
    paths = site.paths()
    homes = {paths.attach(spot) for _, spot in site.homes}
    for gate in site.entrances:
        if homes.isdisjoint(paths.distances_m(paths.attach(gate.at))):
            raise LayoutError(
                f"no way leads from a home to {called(gate.id)}: the street nearest to it is not connected to the "
                "others; connect it (both lines need the same point), or move the gate"
            )


def at_gate(gate: Entrance, ring: Sequence[Spot]) -> tuple[list[Planned], list[str]]:
    """Return the readers of a gate, not numbered yet, and notes. Raises LayoutError when a side has no room at all."""
    found: list[Planned] = []
    notes: list[str] = []
    for n, guard in enumerate(guards(gate)):
        name = "left" if n < 2 else "right"
        east_m, north_m = guard.at[0] - gate.at[0], guard.at[1] - gate.at[1]
        inward_m, right_m = offset_m(east_m, north_m, gate.inward_deg)
        spots = [gate.spot(inward_m, share * right_m) for share in NEARER]
        good = next((spot for spot in spots if _fits(spot, ring, guard.side == "inner")), None)
        where = f"the {guard.side} reader on the {name} (seen from the street)"
        if good is None:
            notes.append(f"{called(gate.id)}: no room for {where}; the wall bends there. Choose its place by hand.")
            continue
        if good is not spots[0]:
            notes.append(f"{called(gate.id)}: {where} stands nearer to the middle, because the wall bends there.")
        post = f"{called(gate.id)} {name} {guard.side}"
        found.append(
            Planned(
                "gate", Pole(0, post, good, HEIGHT_M, "patch", round(guard.look_deg, 1) % 360.0, gate.id, guard.side)
            )
        )
    if gate.width_m > WIDE_M:
        notes.append(
            f"{called(gate.id)} is {gate.width_m:g} m wide: who passes in the middle is far from both posts. "
            "Close a part of it, or guard it as two gates."
        )
    if len(_walls(gate, ring)) > 1:
        notes.append(f"{called(gate.id)} is at a corner of the wall: look at its four places before you drill.")
    for side in ("outer", "inner"):
        if not any(reader.pole.side == side for reader in found):
            raise LayoutError(
                f"{called(gate.id)} has no room for any {side} reader, and a gate with one side tells nothing; move "
                "the gate, or correct the school's outline there"
            )
    return found, notes


def called(gate_id: str) -> str:
    """Return how a gate is called in a sentence: "gate main", and "gate1" as it is."""
    return gate_id if gate_id.startswith("gate") else f"gate {gate_id}"


def beside_gate(gate: Entrance, ring: Sequence[Spot]) -> list[Planned]:
    """Return the flank readers of a gate, not numbered yet: along the wall to both sides, inside. Fewer if no room."""
    found = []
    for name, edge in zip(("left", "right"), _along_ring(gate.at, ring, FLANK_ALONG_M), strict=True):
        spot = _inwards(edge, ring, FLANK_DEPTH_M)
        if spot is not None and math.dist(spot, gate.at) > FLANK_ALONG_M / 2:
            found.append(Planned("flank", Pole(0, f"wall {name} of {called(gate.id)} inside", spot, HEIGHT_M)))
    return found


@dataclass(frozen=True, slots=True)
class _Demand:
    """Points to be heard: (points, 2) metres, whether each lies within the wall, and what each hearing is worth."""

    xy_m: Floats
    within: NDArray[np.bool_]
    worth: Floats
    """(points, 3)"""


def along_streets(site: Site, have: Sequence[Planned], *, poles: int, radius_m: float) -> list[Planned]:
    """Return at most `poles` readers on poles along the walked streets and in the yard, the most useful first.

    have: readers that stand already. radius_m: how far from the school's outline footpaths count. Fewer than `poles`
    come back when one more would be worth less than WORTH_MIN.
    """
    demand = _demand(site, radius_m)
    spots, roles = _candidates(site, radius_m)
    if not len(demand.xy_m) or not len(spots):
        return []
    hears = _hears(site, [Pole(0, "", (x, y), HEIGHT_M) for x, y in spots.tolist()], demand)
    count = _hears(site, [reader.pole for reader in have], demand).sum(axis=0)
    free = np.ones(len(spots), bool)
    for reader in have:
        if reader.role != "gate":
            free &= np.hypot(*(spots - np.array(reader.pole.at)).T) >= POLE_APART_M
    found: list[Planned] = []
    rows = np.arange(len(demand.xy_m))
    while len(found) < poles:
        gain = np.where(free, hears @ demand.worth[rows, np.minimum(count, demand.worth.shape[1] - 1)], 0.0)
        best = int(gain.argmax())
        if gain[best] < WORTH_MIN:
            break
        x, y = spots[best].tolist()
        found.append(Planned(roles[best], Pole(0, roles[best], (x, y), HEIGHT_M)))
        count = count + hears[best]
        free &= np.hypot(*(spots - spots[best]).T) >= POLE_APART_M
    return found


def heard_by(site: Site, poles: Sequence[Pole], xy_m: Floats) -> NDArray[np.int64]:
    """Return how many readers are planned to hear a tag at each of (points, 2), by the law without shadows."""
    within = np.array([inside((x, y), site.school) for x, y in xy_m.tolist()], bool)
    demand = _Demand(xy_m, within, np.zeros((len(xy_m), 1)))
    count: NDArray[np.int64] = _hears(site, poles, demand).sum(axis=0)
    return count


def footpath_points(site: Site, radius_m: float, step_m: float = STEP_M) -> Floats:
    """Return points on the walked streets within radius_m of the school's outline, step_m apart, none twice."""
    points: dict[tuple[int, int], Spot] = {}
    for kind, line in site.streets:
        if kind != "primary":
            for spot, _ in _steps(line, step_m):
                near = inside(spot, site.school) or distance_to_edge_m(spot, site.school) <= radius_m
                if near and not any(inside(spot, danger.ring) for danger in site.dangers):
                    points.setdefault((round(spot[0] / 2), round(spot[1] / 2)), spot)
    return np.array(list(points.values()), float).reshape(-1, 2)


def numbered(groups: Iterable[Sequence[Planned]], kept: Sequence[Planned], middle: Spot) -> list[Planned]:
    """Return all readers by number: kept ones have theirs, the others get free ones, group after group.

    Poles of streets and yards are numbered by their distance from `middle`, because a demo uses the first ones.
    """
    used, found, number = {reader.pole.number for reader in kept}, list(kept), 1
    for group in groups:
        ordered = list(group)
        if any(reader.role in ("street", "yard") for reader in ordered):
            ordered.sort(key=lambda reader: math.dist(reader.pole.at, middle))
        for reader in ordered:
            while number in used:
                number += 1
            used.add(number)
            name = f"P{number:02d} {reader.pole.name}"
            found.append(Planned(reader.role, replace(reader.pole, number=number, name=name)))
    return sorted(found, key=lambda reader: reader.pole.number)


# ---- inside ----------------------------------------------------------------------------------------------------------


def _walls(gate: Entrance, ring: Sequence[Spot]) -> list[tuple[float, float]]:
    """Return the walls at a gate as (distance, inward bearing): the nearest, and another if the wall turns there."""
    edges = []
    for a, b in pairwise([*ring, ring[0]]):
        length = math.dist(a, b)
        if length < WALL_MIN_M:
            continue
        normal = (-(b[1] - a[1]) / length, (b[0] - a[0]) / length)
        middle, step = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2), min(0.1, length / 4)
        sign = 1 if inside((middle[0] + step * normal[0], middle[1] + step * normal[1]), ring) else -1
        bearing = math.degrees(math.atan2(sign * normal[0], sign * normal[1])) % 360
        edges.append((math.dist(gate.at, nearest_on_segment(gate.at, a, b)), bearing))
    first = min(edges)
    near_m = max(gate.width_m / 2 + CORNER_M, first[0])
    turned = [edge for edge in edges if edge[0] <= near_m and abs((edge[1] - first[1] + 180) % 360 - 180) > CORNER_DEG]
    return [first, *sorted(turned)[:1]]


def _mean_deg(bearings: Sequence[float]) -> float:
    east = sum(math.sin(math.radians(b)) for b in bearings)
    north = sum(math.cos(math.radians(b)) for b in bearings)
    return math.degrees(math.atan2(east, north)) % 360


def _fits(spot: Sequence[float], ring: Sequence[Spot], within: bool) -> bool:
    at = (spot[0], spot[1])
    return inside(at, ring) == within and distance_to_edge_m(at, ring) >= 0.5


def _along_ring(at: Spot, ring: Sequence[Spot], by_m: float) -> tuple[Spot, Spot]:
    """Return the two points of the outline that are by_m along it from the point nearest to `at`; left one first.

    Left and right are as seen from the street.
    """
    legs = list(pairwise([*ring, ring[0]]))
    start = min(range(len(legs)), key=lambda n: math.dist(at, nearest_on_segment(at, *legs[n])))
    foot = nearest_on_segment(at, *legs[start])

    def walk(step: int) -> Spot:
        here, left_m, n = foot, by_m, start
        for _ in range(2 * len(legs)):
            end = legs[n][1] if step > 0 else legs[n][0]
            length = math.dist(here, end)
            if length >= left_m and length > 0:
                t = left_m / length
                return here[0] + t * (end[0] - here[0]), here[1] + t * (end[1] - here[1])
            here, left_m, n = end, left_m - length, (n + step) % len(legs)
        return here

    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in legs)
    ahead, back = walk(1), walk(-1)  # ahead on a counter-clockwise ring is to the right of who looks in from the street
    return (back, ahead) if area > 0 else (ahead, back)


def _inwards(edge: Spot, ring: Sequence[Spot], by_m: float) -> Spot | None:
    """Return a point by_m inside from a point of the outline, where it is furthest from the outline; None: no room."""
    turns = [n * math.tau / 36 for n in range(36)]
    spots = [(edge[0] + by_m * math.cos(a), edge[1] + by_m * math.sin(a)) for a in turns]
    fits = [spot for spot in spots if inside(spot, ring) and distance_to_edge_m(spot, ring) >= by_m / 2]
    return max(fits, key=lambda spot: (round(distance_to_edge_m(spot, ring), 3), spot), default=None)


def _steps(line: Sequence[Spot], step_m: float) -> list[tuple[Spot, Spot]]:
    """Return points about step_m apart on a line, each with the unit vector across the line there."""
    found = []
    for a, b in pairwise(line):
        length = math.dist(a, b)
        if length > 0:
            across = ((a[1] - b[1]) / length, (b[0] - a[0]) / length)
            parts = max(1, round(length / step_m))
            for n in range(parts):
                t = (n + 0.5) / parts
                found.append(((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])), across))
    return found


def _yard(site: Site, reach_m: float, edge_m: float) -> list[Spot]:
    (x0, y0), (x1, y1) = np.min(site.school, axis=0), np.max(site.school, axis=0)
    spots = [(float(x), float(y)) for x in np.arange(x0, x1, YARD_STEP_M) for y in np.arange(y0, y1, YARD_STEP_M)]
    return [
        spot
        for spot in spots
        if min(math.dist(spot, gate) for gate in site.gates) <= reach_m
        and inside(spot, site.school)
        and distance_to_edge_m(spot, site.school) >= edge_m
    ]


def _demand(site: Site, radius_m: float) -> _Demand:
    streets = footpath_points(site, radius_m)
    yard = np.array(_yard(site, radius_m, 1.0), float).reshape(-1, 2)
    both = np.vstack([streets, yard])
    within = np.array([inside((x, y), site.school) for x, y in both.tolist()], bool)
    worth = np.zeros((len(both), len(STREET_WORTH) + 1))
    worth[: len(streets), : len(STREET_WORTH)] = np.outer(_walked(site, streets), STREET_WORTH)
    worth[len(streets) :, : len(YARD_WORTH)] = YARD_WORTH
    return _Demand(both, within, worth)


def _walked(site: Site, xy_m: Floats) -> Floats:
    """Return for each of (points, 2) the share of homes whose way to their nearest gate leads there, or EVERYWHERE."""
    paths = site.paths()
    homes = [paths.attach(spot) for _, spot in site.homes]
    doors = [paths.attach(gate) for gate in site.gates]
    far_m = [paths.distances_m(door) for door in doors]
    counts = np.zeros(len(xy_m))
    ways = 0
    for home in homes:
        gate = min(range(len(doors)), key=lambda n: far_m[n].get(home, math.inf))
        if home not in far_m[gate]:
            continue
        ways += 1
        nodes = [paths.points[node] for node in paths.route(doors[gate], home)]
        steps = np.array([spot for spot, _ in _steps(nodes, STEP_M)] or nodes)
        apart = np.hypot(xy_m[:, None, 0] - steps[None, :, 0], xy_m[:, None, 1] - steps[None, :, 1])
        counts += (apart <= ON_WAY_M).any(axis=1)
    return np.maximum(counts / max(ways, 1), EVERYWHERE)


def _candidates(site: Site, radius_m: float) -> tuple[Floats, list[ReaderRole]]:
    spots: list[Spot] = []
    for kind, line in site.streets:
        if kind == "primary":
            continue
        for spot, across in _steps(line, STEP_M):
            if distance_to_edge_m(spot, site.school) > radius_m or inside(spot, site.school):
                continue
            for sign in (1, -1):
                side = (spot[0] + sign * POLE_ASIDE_M * across[0], spot[1] + sign * POLE_ASIDE_M * across[1])
                dangerous = any(inside(side, danger.ring) for danger in site.dangers)
                if not dangerous and not inside(side, site.school):
                    spots.append(side)
    yard = _yard(site, radius_m, YARD_EDGE_M)
    roles: list[ReaderRole] = ["street" for _ in spots]
    return np.array([*spots, *yard], float).reshape(-1, 2), roles + ["yard" for _ in yard]


def _hears(site: Site, poles: Sequence[Pole], demand: _Demand) -> NDArray[np.bool_]:
    """Return which point each reader hears by its mean level, [readers, points]."""
    law = ExpectedLaw()
    spots = np.array([pole.at for pole in poles]).reshape(-1, 2)
    looks = np.array([math.nan if p.look_deg is None else math.radians(90 - p.look_deg) for p in poles])
    apart = demand.xy_m[None, :, :] - spots[:, None, :]
    far = np.sqrt((apart**2).sum(axis=2) + (HEIGHT_M - 1.0) ** 2)
    within = np.array([inside((x, y), site.school) for x, y in spots.tolist()], bool)
    edge = np.array([distance_to_edge_m((x, y), site.school) < INNER_M for x, y in spots.tolist()], bool)
    walled = (within[:, None] != demand.within[None, :]) & ~edge[:, None]
    level_db = gain_db(apart, np.broadcast_to(looks[:, None], far.shape)) - WALL_DB * walled
    heard: NDArray[np.bool_] = far <= law.reach_m() * 10 ** (level_db / (10 * law.exponent))
    return heard
