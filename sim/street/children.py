"""Children of a school zone: where each one is at every instant, from a seed. There is no clock and no radio here.

Most walk to school, wait at crossings, enter by the gate and stay in the yard. Some pass the gate and do not enter.
Some stop at the kerb of the danger area on their way. In a story that ends, some only bring something and go home; else
nobody would leave in it. Speeds: N(1.22, 0.17) m/s, a group 0.12 m/s slower, limited to
0.8-1.7 (adult walkers; we found no published street speed of children with school bags that we could check).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gateway.zone import distance_to_polygon_m
from sim.street.paths import Paths, Spot, distance_to_edge_m
from sim.street.site import Site

Role = Literal["pupil", "passer", "kerb", "errand"]

SPEED_MEAN, SPEED_SIGMA, SPEED_MIN, SPEED_MAX, GROUP_SLOWER = 1.22, 0.17, 0.8, 1.7, 0.12
GROUP_SIZES = ((1, 0.55), (2, 0.28), (3, 0.12), (4, 0.05))
"""Shares of groups of 1, 2, 3 and 4 children. Assumed."""
PASSERS, KERB = 0.15, 0.1
"""Shares of groups that pass by, and that stop at the danger area."""
CROSSING_WAIT_S = (0.0, 20.0)
KERB_WAIT_S = (18.0, 30.0)
KERB_GAP_M = 1.0
"""A child at the kerb stands about this far outside the danger area."""
START_M = (20.0, 150.0)
"""Least and largest walking distance from the gate at the start. Role "kerb": 0.4 times this from the kerb."""
START_NEAR_M, START_NEAR = 60.0, 0.6
"""Six in ten groups start within this distance, so that children arrive even in a story of 90 s."""
START_DELAY_S = 8.0
ERRAND_START_M, ERRAND_DEPTH_M, ERRAND_S = (20.0, 30.0), (15.0, 20.0), (12.0, 18.0)
"""Who brings something starts so near, goes so far in, stays so long and does not dawdle: it leaves within 80 s."""
YARD_DEPTH_M = (15.0, 42.0)
"""How far from the gate children are once inside: at the school's doors and in the yard before them."""
YARD_EDGE_M = 10.0
SCHOOL_S = (150.0, 240.0)
"""How long a child stays at school before it walks home. Only in an endless story."""
HOME_S = (20.0, 60.0)
STEP_M = 0.05
PRECISION_M = 0.01


@dataclass(frozen=True, slots=True)
class ChildAt:
    """A child at one instant: metres, heading in radians (0 is east, counter-clockwise), walking or not."""

    x_m: float
    y_m: float
    heading: float
    moving: bool


@dataclass
class Walk:
    """A way in time: straight pieces at constant speed. Before the first and after the last point the child stands."""

    times_s: list[float] = field(default_factory=list)
    points: list[Spot] = field(default_factory=list)

    def go(self, to: Spot, speed: float) -> None:
        distance = math.dist(self.points[-1], to)
        if distance > STEP_M:
            self._add(self.times_s[-1] + distance / speed, to)

    def stay(self, seconds: float) -> None:
        if seconds > 0:
            self._add(self.times_s[-1] + seconds, self.points[-1])

    def at(self, t_s: float) -> ChildAt:
        """Return where the child is at t_s."""
        n = int(np.searchsorted(self.times_s, t_s, side="right"))
        if n == 0 or n == len(self.times_s):
            x, y = self.points[0 if n == 0 else -1]
            return ChildAt(x, y, self._heading(n - 1), False)
        (xa, ya), (xb, yb) = self.points[n - 1], self.points[n]
        ta, tb = self.times_s[n - 1], self.times_s[n]
        part = (t_s - ta) / (tb - ta)
        moving = (xa, ya) != (xb, yb)
        heading = math.atan2(yb - ya, xb - xa) if moving else self._heading(n - 1)
        return ChildAt(xa + part * (xb - xa), ya + part * (yb - ya), heading, moving)

    def _heading(self, n: int) -> float:
        for k in range(min(n, len(self.points) - 1), 0, -1):
            if self.points[k] != self.points[k - 1]:
                return math.atan2(self.points[k][1] - self.points[k - 1][1], self.points[k][0] - self.points[k - 1][0])
        return 0.0

    def _add(self, t_s: float, point: Spot) -> None:
        self.times_s.append(t_s)
        self.points.append(point)


@dataclass
class Child:
    """A child with a tag. `tag` is the pseudonym that the gateway and the city know; the child has no other name."""

    number: int
    tag: str
    role: Role
    group: int
    speed: float
    walk: Walk
    legs: Iterator[None]

    def at(self, t_s: float) -> ChildAt:
        while self.walk.times_s[-1] <= t_s and next(self.legs, StopIteration) is not StopIteration:
            pass
        return self.walk.at(t_s)


class World:
    """All children of one story, as a function of time in seconds since its start.

    endless: children go home after school and come again, for a demonstration that runs until a person ends it.
    """

    def __init__(self, site: Site, seed: int, children: int, *, endless: bool = False) -> None:
        if not 0 < children <= 3000:
            raise ValueError(f"{children} children; 1..3000 fit one zone")
        self.site, self.seed, self.endless = site, seed, endless
        self._paths = site.paths()
        self._door = self._paths.attach(site.gates[0])
        self._kerb = self._kerb_spot()
        self._homes = self._homes_by_distance()
        self._crossings = {(round(x, 1), round(y, 1)) for x, y in site.crossings}
        self.children = self._people(children)

    def inside_since_s(self, child: Child, end_s: float, step_s: float = 0.5) -> float | None:
        """Return since when the child is in the school without a break until end_s. None: it is outside at end_s."""
        since, t = None, end_s
        while t >= 0 and self.at_school(child, t):
            since, t = t, t - step_s
        return since

    def crossings_s(self, child: Child, until_s: float, step_s: float = 0.5) -> list[tuple[float, bool]]:
        """Return when the child went in (True) or out of the school, to a step, from the story's start to until_s."""
        found, before = list[tuple[float, bool]](), False
        for n in range(int(until_s / step_s) + 1):
            inside_now = self.at_school(child, n * step_s)
            if inside_now != before:
                found.append((n * step_s, inside_now))
            before = inside_now
        return found

    def at_school(self, child: Child, t_s: float) -> bool:
        where = child.at(t_s)
        return self.site.at_school((where.x_m, where.y_m))

    def danger_distance_m(self, child: Child, t_s: float) -> float:
        """Return the distance to the nearest danger area: 0 inside, infinite when the site has none."""
        where = child.at(t_s)
        rings = [list(danger.ring) for danger in self.site.dangers]
        return min((distance_to_polygon_m(where.x_m, where.y_m, ring) for ring in rings), default=math.inf)

    def digest(self, until_s: float) -> str:
        """Return a short hash of all children and their ways until until_s. Equal seeds give equal digests."""
        told = hashlib.sha256()
        for child in self.children:
            child.at(until_s)
            told.update(f"{child.tag} {child.role} {child.group} {child.speed:.3f}\n".encode())
            for t, (x, y) in zip(child.walk.times_s, child.walk.points, strict=True):
                if t <= until_s:
                    told.update(f"{t:.2f} {x:.2f} {y:.2f}\n".encode())
        return told.hexdigest()[:16]

    def _people(self, count: int) -> list[Child]:
        people: list[Child] = []
        group = 0
        while len(people) < count:
            chance = random.Random(f"{self.seed}/group/{group}")
            size = chance.choices([n for n, _ in GROUP_SIZES], [p for _, p in GROUP_SIZES])[0]
            role = self._role(group, chance)
            speed = chance.gauss(SPEED_MEAN, SPEED_SIGMA) - (GROUP_SLOWER if size > 1 else 0)
            speed = min(max(speed, SPEED_MEAN if role == "errand" else SPEED_MIN), SPEED_MAX)
            home, start_m, delay_s = self._start(chance, role)
            for member in range(min(size, count - len(people))):
                number = len(people) + 1
                own = random.Random(f"{self.seed}/child/{number}")
                aside = (own.uniform(-0.7, 0.7), own.uniform(-0.7, 0.7))
                walk = Walk()
                plan = _Plan(self, walk, role, home, start_m, delay_s + 1.2 * member, speed, aside, chance, own)
                legs = plan.legs()
                next(legs)
                people.append(Child(number, f"tag-{number:03d}", role, group, round(speed, 3), walk, legs))
            group += 1
        return people

    def _role(self, group: int, chance: random.Random) -> Role:
        """Group 1 runs an errand, 2 passes by, 4 stops at the kerb, so that any seed shows each. Others are drawn."""
        if group == 1 and not self.endless:
            return "errand"
        if group in (2, 4):
            return "passer" if group == 2 else "kerb" if self._kerb else "pupil"
        drawn = chance.random()
        if drawn < PASSERS:
            return "passer"
        return "kerb" if drawn < PASSERS + KERB and self._kerb else "pupil"

    def _start(self, chance: random.Random, role: Role) -> tuple[int, float, float]:
        far = [node for node, distance in self._homes if distance > START_M[0] + 10]
        near = chance.random() < START_NEAR
        start_m = chance.uniform(START_M[0], START_NEAR_M) if near else chance.uniform(START_NEAR_M, START_M[1])
        home, delay_s = chance.choice(far), chance.uniform(0, START_DELAY_S)
        return home, chance.uniform(*ERRAND_START_M) if role == "errand" else start_m, delay_s

    def _homes_by_distance(self) -> list[tuple[int, float]]:
        nodes = [self._paths.attach(home) for _, home in self.site.homes]
        distances = self._paths.distances_m(self._door)
        return sorted({(node, distances[node]) for node in nodes if node in distances}, key=lambda pair: pair[::-1])

    def _kerb_spot(self) -> int | None:
        """The street point that is nearest to KERB_GAP_M from a danger area, if possible near the gate."""
        found: tuple[float, Spot] | None = None
        for danger in self.site.dangers:
            ring = list(danger.ring)
            for a in self._paths.distances_m(self._door):
                for b in self._paths.neighbours(a):
                    (xa, ya), (xb, yb) = self._paths.points[a], self._paths.points[b]
                    steps = max(1, int(math.hypot(xb - xa, yb - ya) / 0.5))
                    for n in range(steps + 1):
                        p = (xa + n / steps * (xb - xa), ya + n / steps * (yb - ya))
                        gap = abs(distance_to_polygon_m(*p, ring) - KERB_GAP_M)
                        score = gap + 0.01 * math.dist(p, self.site.gates[0])
                        if found is None or score < found[0] - 1e-9:
                            found = (score, p)
        return None if found is None else self._paths.attach(found[1])


@dataclass
class _Plan:
    """One child's day. `legs` writes it into the walk, one part each time it is advanced."""

    world: World
    walk: Walk
    role: Role
    home: int
    start_m: float
    delay_s: float
    speed: float
    aside: Spot
    shared: random.Random
    own: random.Random

    def legs(self) -> Iterator[None]:
        world, door = self.world, self.world._door
        if self.role == "kerb" and world._kerb is not None:
            self.start_m = 0.4 * self.start_m + world._paths.distances_m(door)[world._kerb]
        way = last_metres(_points(world._paths, self._way(self.home, door)), self.start_m)
        self.walk.times_s, self.walk.points = [0.0], [self._with_offset(way[0])]
        self.walk.stay(self.delay_s)
        first = True
        while True:
            if not first:
                way = _points(world._paths, self._way(self.home, door))
            first = False
            if self.role == "passer":
                other = self._other_side()
                self._follow([*way, *_points(world._paths, world._paths.route(door, other))[1:]])
                self.home = other
            else:
                self._follow(way)
                self._enter()
                if world.endless or self.role == "errand":
                    self.walk.stay(self.own.uniform(*(SCHOOL_S if world.endless else ERRAND_S)))
                    self._follow([world.site.gates[0], *_points(world._paths, world._paths.route(door, self.home))])
                else:
                    yield from self._play_for_ever()
            yield
            self.walk.stay(self.own.uniform(*HOME_S))
            if not world.endless:
                return

    def _way(self, a: int, b: int) -> list[int]:
        paths, kerb = self.world._paths, self.world._kerb
        if self.role == "kerb" and kerb is not None:
            return [*paths.route(a, kerb), *paths.route(kerb, b)[1:]]
        return paths.route(a, b)

    def _other_side(self) -> int:
        homes = [node for node, distance in self.world._homes if distance > 60 and node != self.home]
        a = self.world._paths.points[self.home]
        return max(
            self.shared.sample(homes, min(6, len(homes))), key=lambda n: math.dist(a, self.world._paths.points[n])
        )

    def _follow(self, way: list[Spot]) -> None:
        kerb = None if self.world._kerb is None else self.world._paths.points[self.world._kerb]
        for point in way:
            self.walk.go(self._with_offset(point), self.speed)
            if self.role == "kerb" and point == kerb:
                self.walk.stay(self.shared.uniform(*KERB_WAIT_S))
            elif (round(point[0], 1), round(point[1], 1)) in self.world._crossings:
                self.walk.stay(self.shared.uniform(*CROSSING_WAIT_S))

    def _enter(self) -> None:
        self.walk.go(self.world.site.gates[0], self.speed)
        self.walk.go(self._yard_spot(), self.speed)

    def _play_for_ever(self) -> Iterator[None]:
        while True:
            yield
            self.walk.stay(self.own.uniform(10, 40))
            self.walk.go(self._yard_spot(near=self.walk.points[-1]), self.speed)

    def _yard_spot(self, near: Spot | None = None) -> Spot:
        """A spot at least YARD_EDGE_M inside the outline. near: 2-8 m from there, so the straight way stays inside too.

        Without a fit in 200 tries it is the start: `near`, or the gate.
        """
        site = self.world.site
        start = near or site.gates[0]
        deep_m = ERRAND_DEPTH_M if self.role == "errand" else YARD_DEPTH_M
        for _ in range(200):
            reach = self.own.uniform(*(deep_m if near is None else (2.0, 8.0)))
            angle = self.own.uniform(-math.pi, math.pi)
            spot = (start[0] + reach * math.cos(angle), start[1] + reach * math.sin(angle))
            depth = math.dist(spot, site.gates[0])
            fits = YARD_DEPTH_M[0] <= depth <= YARD_DEPTH_M[1]
            if fits and site.at_school(spot) and distance_to_edge_m(spot, site.school) >= YARD_EDGE_M:
                return spot
        return start

    def _with_offset(self, point: Spot) -> Spot:
        x, y = point[0] + self.aside[0], point[1] + self.aside[1]
        return round(x / PRECISION_M) * PRECISION_M, round(y / PRECISION_M) * PRECISION_M


def _points(paths: Paths, nodes: list[int]) -> list[Spot]:
    return [paths.points[node] for node in nodes]


def last_metres(way: Sequence[Spot], metres: float) -> list[Spot]:
    """Return the last `metres` of a way; all of a shorter way."""
    kept = [way[-1]]
    for a, b in zip(reversed(way[:-1]), reversed(way), strict=False):
        length = math.dist(a, b)
        if length >= metres:
            t = metres / length
            return [(b[0] + t * (a[0] - b[0]), b[1] + t * (a[1] - b[1])), *kept]
        metres -= length
        kept.insert(0, a)
    return kept
