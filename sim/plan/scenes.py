"""Children at the gates of a place: who comes, goes, waits, passes, plays at the gate or sits in school, and the truth.

A scene is one child with one story, from a random generator of its own. Distances are measured from a gate's line:
`out_m` outside (negative: inside), `along_m` along it. Times of a crossing are when the child is on that line. Waits,
plays and runs are as near to the line as children come who do not pass it: they decide about false words.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.zone import depth_m
from sim.chance import Floats
from sim.street.children import SPEED_MAX, SPEED_MEAN, SPEED_MIN, SPEED_SIGMA, Walk, last_metres
from sim.street.gates import Entrance
from sim.street.paths import Spot, inside
from sim.street.site import Site

COMES_M, HOME_M = (60.0, 110.0), 90.0
"""How far up the street a child begins, and the least walking distance of the home that it goes to."""
FIRST_S = (15.0, 23.0)
"""A child stands so long where it begins."""
ASIDE_M, GATE_PART = 0.7, 0.4
"""A child walks at most so far beside the line of a street, and passes a gate within so much of its width from the
middle."""
YARD_M, YARD_EDGE_M = (15.0, 42.0), 10.0
"""Where children stay in school: so far from their gate, and so far from the edge."""
WAIT_OUT_M, WAIT_S, PLAY_S, STAND_S = 3.0, 600.0, 900.0, (15.0, 60.0)
RUN_M_S = 2.5
WATCHED_S = 150.0
"""A child that came in or went away is watched for so long after it."""
TRIES = 300


@dataclass(frozen=True, slots=True)
class GateScene:
    """One child: where it is at each instant, and when it crosses the edge of the place.

    crossings: (second, whether it goes in). began_inside: at second 0. turns: (second, heading) of one who stands.
    """

    kind: str
    walk: Walk
    crossings: tuple[tuple[float, bool], ...]
    began_inside: bool
    turns: tuple[tuple[float, float], ...] = ()

    @property
    def end_s(self) -> float:
        return self.walk.times_s[-1]


class Premises:
    """A site's school with its gates, and the streets before them. All in metres on the site's plane."""

    def __init__(self, site: Site, gates: Sequence[Entrance] = ()) -> None:
        """gates: those that children use; none: all of the site."""
        self.ring, self.gates = site.school, tuple(gates) or site.entrances
        self._paths = site.paths()
        self._doors = [self._paths.attach(gate.at) for gate in self.gates]
        homes = [self._paths.attach(spot) for _, spot in site.homes]
        self._ways: dict[tuple[int, int], list[Spot]] = {}
        self._homes: list[list[int]] = []
        for door in self._doors:
            far_m = self._paths.distances_m(door)
            known = sorted({node for node in homes if node in far_m}, key=lambda node: (far_m[node], node))
            self._homes.append([node for node in known if far_m[node] > HOME_M] or known[-3:])

    def inside(self, spot: Spot) -> bool:
        return inside(spot, self.ring)

    def way_home(self, gate: int, chance: random.Random) -> list[Spot]:
        """Return the points of a street's way from before a gate to some home."""
        home = chance.choice(self._homes[gate])
        known = self._ways.get((gate, home))
        if known is None:
            known = [self._paths.points[node] for node in self._paths.route(self._doors[gate], home)]
            self._ways[gate, home] = known
        return known


@dataclass
class _Story:
    """A scene while it is written."""

    kind: str
    place: Premises
    chance: random.Random
    gate: Entrance = field(init=False)
    number: int = field(init=False)
    speed: float = field(init=False)
    walk: Walk = field(init=False)
    crossings: list[tuple[float, bool]] = field(default_factory=list)
    turns: list[tuple[float, float]] = field(default_factory=list)
    began_inside: bool = False

    def __post_init__(self) -> None:
        self.number = self.chance.randrange(len(self.place.gates))
        self.gate = self.place.gates[self.number]
        self.speed = min(max(self.chance.gauss(SPEED_MEAN, SPEED_SIGMA), SPEED_MIN), SPEED_MAX)

    @property
    def now_s(self) -> float:
        return self.walk.times_s[-1]

    def between(self, low: float, high: float) -> float:
        return self.chance.uniform(low, high)

    def aside(self, spot: Spot, most_m: float = ASIDE_M) -> Spot:
        return spot[0] + self.between(-most_m, most_m), spot[1] + self.between(-most_m, most_m)

    def at(self, out_m: float, along_m: float) -> Spot:
        return self.gate.spot(-out_m, along_m)

    def come(self) -> None:
        """Begin up the street and walk to before the gate."""
        way = last_metres(self.place.way_home(self.number, self.chance)[::-1], self.between(*COMES_M))
        self.walk = Walk([0.0], [self.aside(way[0])])
        self.walk.stay(self.between(*FIRST_S))
        for spot in way[1:]:
            self.walk.go(self.aside(spot), self.speed)

    def begin_inside(self, spot: Spot) -> None:
        self.began_inside = True
        self.walk = Walk([0.0], [spot])

    def pass_gate(self, inwards: bool) -> None:
        half_m = GATE_PART * self.gate.width_m
        self.walk.go(self.at(0.0, self.between(-half_m, half_m)), self.speed)
        self.crossings.append((self.now_s, inwards))

    def go_home(self) -> None:
        for spot in self.place.way_home(self.number, self.chance):
            self.walk.go(self.aside(spot), self.speed)

    def stand(
        self, spot: Spot, seconds: float, every_s: tuple[float, float] = (10.0, 60.0), step_m: float = 0.7
    ) -> None:
        """Stay about a spot: turn now and then, and step to another place at most step_m from it."""
        end_s, turn_s = self.now_s + seconds, self.now_s
        while turn_s < end_s:
            self.turns.append((turn_s, self.between(-math.pi, math.pi)))
            turn_s += self.between(*STAND_S)
        while self.now_s < end_s:
            self.walk.stay(min(self.between(*every_s), end_s - self.now_s + 0.1))
            self.walk.go(self.aside(spot, step_m), 0.8)

    def yard(
        self, near_m: tuple[float, float] = YARD_M, edge_m: float = YARD_EDGE_M, about: Spot | None = None
    ) -> Spot:
        """Return a place in the yard at this distance from the gate (about: 2-8 m from there); the best of TRIES."""
        best, deepest_m = self.at(-near_m[0], 0.0), -math.inf
        for _ in range(TRIES):
            reach_m, angle = self.between(*(near_m if about is None else (2.0, 8.0))), self.between(-math.pi, math.pi)
            x, y = self.gate.at if about is None else about
            spot = x + reach_m * math.cos(angle), y + reach_m * math.sin(angle)
            if not near_m[0] <= math.dist(spot, self.gate.at) <= near_m[1]:
                continue
            deep_m = depth_m(*spot, self.place.ring)
            if deep_m >= edge_m:
                return spot
            if deep_m > deepest_m:
                best, deepest_m = spot, deep_m
        return best

    def stay_in_yard(self, seconds: float) -> None:
        """Walk to a place in the yard, and stay and walk about there."""
        self.walk.go(self.yard(), self.speed)
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.turns.append((self.now_s, self.between(-math.pi, math.pi)))
            self.walk.stay(self.between(10, 40))
            self.walk.go(self.yard(about=self.walk.points[-1]), self.speed)

    def along_wall(self, out_m: float, length_m: float, times: int) -> None:
        """Run to and fro along the wall, past the gate, and never over the edge."""
        for n in range(times):
            spot = self.at(out_m + self.between(-0.5, 0.5), (1 if n % 2 else -1) * length_m / 2)
            if self.place.inside(spot) == (out_m < 0):
                self.walk.go(spot, RUN_M_S)

    def told(self) -> GateScene:
        return GateScene(self.kind, self.walk, tuple(self.crossings), self.began_inside, tuple(self.turns))


def arrive(story: _Story) -> None:
    """Come up the street, in by the gate and to a place in the yard; stay and walk about there."""
    story.come()
    story.pass_gate(True)
    story.stay_in_yard(WATCHED_S)


def leave(story: _Story) -> None:
    """Stay in the yard for one to three minutes, out by the gate and home."""
    spot = story.yard((4.0, 30.0), 4.0)
    story.begin_inside(spot)
    story.stand(spot, story.between(60, 200), step_m=1.0)
    story.pass_gate(False)
    story.go_home()
    story.walk.stay(WATCHED_S)


def wait(story: _Story) -> None:
    """Wait ten minutes 3 m outside the gate. One half then goes in, the other away."""
    story.come()
    spot = story.at(WAIT_OUT_M, story.between(-2, 2))
    story.walk.go(spot, story.speed)
    story.stand(spot, WAIT_S)
    if story.chance.random() < 0.5:
        story.pass_gate(True)
        story.stay_in_yard(WATCHED_S)
    else:
        story.go_home()


def beside(story: _Story) -> None:
    """Wait ten minutes 1.5 to 12 m outside, up to 15 m to either side of the gate; then go away."""
    story.come()
    spot = story.at(WAIT_OUT_M, 0.0)
    for _ in range(TRIES):
        drawn = story.at(story.between(1.5, 12), story.between(-15, 15))
        if 1.5 <= -depth_m(*drawn, story.place.ring) <= 12:
            spot = drawn
            break
    story.walk.go(spot, story.speed)
    story.stand(spot, WAIT_S)
    story.go_home()


def passer(story: _Story) -> None:
    """Walk along the pavement past the gate."""
    story.come()
    begun = story.walk.points[0]
    ways = [story.place.way_home(story.number, story.chance) for _ in range(6)]
    for spot in max(ways, key=lambda way: math.dist(way[-1], begun)):
        story.walk.go(story.aside(spot), story.speed)


def runs_outside(story: _Story) -> None:
    """Run to and fro along the outside of the wall, 1.5 to 4 m from it, six times past the gate."""
    story.come()
    story.along_wall(story.between(1.5, 4.0), story.between(16, 30), 6)
    story.go_home()


def plays(story: _Story) -> None:
    """Play for fifteen minutes 2 to 6 m inside the gate, and run along the inside of the wall now and then."""
    spot = story.yard()
    story.begin_inside(spot)
    story.stand(spot, 60.0, step_m=1.0)
    spot = story.at(-story.between(2, 6), story.between(-4, 4))
    story.walk.go(spot, story.speed)
    end_s = story.now_s + PLAY_S
    while story.now_s < end_s:
        story.stand(spot, story.between(40, 120), step_m=1.0)
        story.along_wall(-story.between(2, 6), story.between(16, 24), 4)
        story.walk.go(spot, 1.5)
    spot = story.yard()
    story.walk.go(spot, story.speed)
    story.stand(spot, 100.0, step_m=1.0)


def in_and_out(story: _Story) -> None:
    """Come in 4 to 12 m, and straight out again."""
    story.come()
    story.pass_gate(True)
    story.walk.go(story.at(-story.between(4, 12), story.between(-3, 3)), story.speed)
    story.walk.stay(story.between(0, 6))
    story.pass_gate(False)
    story.go_home()
    story.walk.stay(WATCHED_S)


def bag(story: _Story) -> None:
    """Throw the bag over the wall, 10 to 18 m beside the gate; it lies 4 to 8 m inside for twenty minutes."""
    story.come()
    along_m = story.chance.choice((-1, 1)) * story.between(10, 18)
    story.walk.go(story.at(2.5, along_m), story.speed)
    story.walk.go(story.at(0.0, along_m), 8.0)
    story.crossings.append((story.now_s, True))
    story.walk.go(story.at(-story.between(4, 8), along_m), 8.0)
    story.walk.stay(1200.0)


def over_edge(story: _Story) -> None:
    """Come in over the edge 8 to 18 m beside the gate, as on an open campus, and to a place in the yard."""
    story.come()
    along_m = story.chance.choice((-1, 1)) * story.between(8, 18)
    story.walk.go(story.at(2.5, along_m), story.speed)
    story.walk.go(story.at(0.0, along_m), story.speed)
    story.crossings.append((story.now_s, True))
    story.stay_in_yard(600.0)


def sits(story: _Story, seconds: float = 3600.0) -> None:
    """Sit in school, 12 to 60 m from the gate and 6 m from the edge; another place each 20 to 50 minutes."""
    spot = story.yard((12.0, 60.0), 6.0)
    story.begin_inside(spot)
    while story.now_s < seconds:
        story.stand(spot, min(story.between(1200, 3000), seconds), (60.0, 240.0), 1.0)
        spot = story.yard((12.0, 60.0), 6.0)
        story.walk.go(spot, 1.0)


KINDS: dict[str, Callable[[_Story], None]] = {
    each.__name__: each
    for each in (arrive, leave, wait, beside, passer, runs_outside, plays, in_and_out, bag, over_edge, sits)
}
"""All kinds of scenes by name."""


def scene(kind: str, place: Premises, seed: int, number: int) -> GateScene:
    """Return one scene. Equal seeds give equal scenes."""
    story = _Story(kind, place, random.Random(f"{seed}/{kind}/{number}"))
    KINDS[kind](story)
    return story.told()


def sampled(scenes: Sequence[GateScene], t_s: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return (places [scenes, n, 2] in m, headings [scenes, n] in radians, moving [scenes, n]) at t_s [scenes, n]."""
    places, headings, moving = np.empty((*t_s.shape, 2)), np.empty(t_s.shape), np.empty(t_s.shape, bool)
    for k, one in enumerate(scenes):
        t, times, points = t_s[k], np.array(one.walk.times_s), np.array(one.walk.points)
        places[k, :, 0], places[k, :, 1] = np.interp(t, times, points[:, 0]), np.interp(t, times, points[:, 1])
        steps = np.diff(points, axis=0)
        goes = np.hypot(*steps.T) > 1e-9
        last = np.maximum.accumulate(np.where(goes, np.arange(len(steps)), -1))
        n = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(steps) - 1)
        angle = np.arctan2(steps[:, 1], steps[:, 0])
        headings[k] = np.where(last[n] >= 0, angle[last[n]], 0.0)
        moving[k] = goes[n] & (t >= times[0]) & (t < times[-1])
        if one.turns:
            at, to = np.array(one.turns).T
            turned = np.searchsorted(at, t, side="right") - 1
            headings[k] = np.where(moving[k] | (turned < 0), headings[k], to[turned])
    return places, headings, moving
