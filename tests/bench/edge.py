"""Arrivals and departures near the school's edge, with the real engine and places, the demo's zone and its walk test.

Who stays: thirty children stand 3 to 8 m inside the school's outline for an hour each, turning and stepping about, then
thirty outside. No child comes or goes, so every "left" and every arrival is false. Who waits: children walk up the
street and stop in front of the gate for ten minutes. Who comes: the demo's own stories, each with its own air. Who
goes: children stand in the yard, walk out of the gate and home. The simulated air reaches the readers, readings come as
the firmware sends them, and what `Settler` concludes is counted. `presence.py` has thirty whole days, with invented
errors that are longer and worse.
"""

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gateway import recording as gateway_site
from gateway.fix import Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.presence.changes import Arrived, Left
from gateway.presence.settle import Settler
from gateway.survey import onto_zone
from gateway.zone import Zone, depth_m
from sim.air.radio import Air, ReaderEar, rssi_of
from sim.chance import Floats, one
from sim.demo import technician as walk_test
from sim.street import site as sites
from sim.street.children import ChildAt, Walk, World
from sim.street.paths import Spot
from sim.street.site import Pole, Site
from sim.street.tag import POWER_DBM, POWER_SIGMA_DB
from sim.street.zone import duty, zone_of

CHILDREN, READERS, HOURS, SEED = 30, 8, 1.0, 1
NEAR_M, FAR_M, REACH_M = 3.0, 8.0, 45.0
"""How far from the edge the children stand, and how far from a reader at most."""
MOVES_S = 180.0
"""At this interval a child that stays turns about and goes to another spot within a metre."""
STORIES, STORY_S, PUPILS = (2, 3, 4, 5), 330, 20
"""Seeds and length of the stories, and the number of children in each."""
WAIT_S, BEFORE_M, BESIDE_M = 600.0, (1.5, 12.0), 15.0
"""A child waits this long, this far outside the edge and at most this far from the gate in each axis."""
YARD_M, LEAVES_S, GONE_S = (4.0, 30.0), (60.0, 240.0), 360.0
"""A child that leaves first stands this deep in the yard, until a time in LEAVES_S; it is watched for GONE_S more."""
WINDOW_S = 2
"""A reader reports a tag at this interval. A tag beacons each second; a reader listens `duty` of the time."""

Way = Callable[[float], ChildAt]
Word = tuple[int, int, bool]
"""Which tag, after how many seconds, and whether it arrived (otherwise it left)."""


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"children": CHILDREN, "hours_each": HOURS, "seed": SEED}
    started, seconds = time.perf_counter(), 0
    for where in ("inside", "outside"):
        street = _Street(SEED, CHILDREN)
        spots = _spots(street.site, where == "inside", NEAR_M, FAR_M)
        words = list(street.run([_staying(spot, SEED, n) for n, spot in enumerate(spots)], int(HOURS * 3600)))
        seconds += len(street.errors_m)
        found |= {
            f"{where}_false_left": sum(not arrived for _, _, arrived in words),
            f"{where}_arrivals": sum(arrived for _, _, arrived in words),
            f"{where}_error_median_m": round(float(np.median(street.errors_m)), 1),
            f"{where}_95_holds_pct": round(100 * street.held_95 / len(street.errors_m), 1),
        }
    street = _Street(SEED, CHILDREN)
    words = list(street.run([_waiting(street, n) for n in range(CHILDREN)], int(WAIT_S) + 120))
    found |= {"gate_waiting": CHILDREN, "gate_false_arrivals": sum(arrived for _, _, arrived in words)}
    found |= _coming() | _going()
    seconds += len(street.errors_m)
    found["tag_seconds_per_s"] = round(seconds / (time.perf_counter() - started))
    for name, value in found.items():
        print(f"  {name:28} {value}")
    return found


def _coming() -> dict[str, float | int | str]:
    """Run the demo's children; compare those who truly come in and stay with those who are reported."""
    delays_s: list[float] = []
    false = 0
    for seed in STORIES:
        street = _Street(seed, PUPILS)
        world = World(street.site, seed, PUPILS)
        told: dict[int, int] = {}
        for n, second, arrived in street.run([child.at for child in world.children], STORY_S):
            if arrived:
                told.setdefault(n, second)
        for n, child in enumerate(world.children):
            since_s = world.inside_since_s(child, STORY_S)
            if since_s is not None and since_s < STORY_S - 120:
                delays_s.append(told.get(n, math.inf) - since_s)
            false += n in told and not any(world.at_school(child, t) for t in range(told[n] + 1))
    within = np.array(delays_s)
    p50, p90 = np.percentile(within, (50, 90), method="lower").tolist()
    return {
        "pupils_arrived": len(within),
        "pupils_told": int(np.isfinite(within).sum()),
        "pupils_told_in_60_s": int((within <= 60).sum()),
        "pupils_told_in_120_s": int((within <= 120).sum()),
        "pupils_delay_p50_s": round(p50) if p50 < math.inf else "not told",
        "pupils_delay_p90_s": round(p90) if p90 < math.inf else "not told",
        "pupils_false_arrivals": false,
    }


def _going() -> dict[str, float | int | str]:
    """Run children who are at school and leave it by the gate and along the street."""
    street = _Street(SEED, CHILDREN)
    ways = [_leaving(street, n, spot) for n, spot in enumerate(_spots(street.site, True, *YARD_M))]
    for n in range(CHILDREN):
        street.settler.restore(n, "at", street.site.school_id, 0.0)
    told: dict[int, int] = {}
    early = 0
    for n, second, arrived in street.run([way for way, _ in ways], int(LEAVES_S[1] + GONE_S)):
        if not arrived:
            early += second < ways[n][1]
            told.setdefault(n, second)
    return {"leaving": CHILDREN, "leaving_told": len(told) - early, "leaving_false_left": early}


class _Street:
    """The demo's zone, its air for one seed, and a gateway's engine and conclusions."""

    def __init__(self, seed: int, children: int) -> None:
        self.site = sites.load()
        poles = _poles(self.site)
        zone = zone_of(self.site, poles)
        ground = Ground(zone)
        self.seed = seed
        self.world = World(self.site, seed, 1)
        self.dx, self.dy = ground.plane.to_xy_m(self.site.plane.lon, self.site.plane.lat)
        self.air = Air(seed, [ReaderEar(p.number, p.at, p.height_m) for p in poles], walled=self.site.school)
        self.numbers = [pole.number for pole in poles]
        self.listens = np.array([duty(pole) for pole in poles])
        self.locator = ZoneLocator(ground, Counter(), survey=_walk_test(self.site, zone, self.air, seed))
        self.settler = Settler(zone, ground.plane, {f"tag-{n}": n for n in range(children)})
        self.offsets_db = [POWER_SIGMA_DB * (2 * one(seed, "edge power", n) - 1) for n in range(children)]
        self.errors_m: list[float] = []
        self.held_95 = 0

    def run(self, ways: Sequence[Way], seconds: int) -> Iterator[Word]:
        """Let time pass; yield each arrival and departure that is concluded."""
        rng = np.random.default_rng(self.seed)
        still: dict[int, tuple[ChildAt, Floats]] = {}
        window: list[tuple[int, Reading]] = []
        for second in range(seconds):
            for n, way in enumerate(ways):
                where = way(second)
                if n not in still or still[n][0] != where:
                    mean = self.air.mean_dbm(where.x_m, where.y_m, where.heading, self.offsets_db[n])
                    still[n] = where, mean
                dbm, read = self.air.listen(n + 1, second, still[n][1])
                for k in np.flatnonzero(read & (rng.random(READERS) < self.listens)):
                    heard_at_s = second + rng.uniform(0, 1)
                    window.append((n, Reading(self.numbers[k], rssi_of(float(dbm[k])), 1, heard_at_s, POWER_DBM)))
            if second % WINDOW_S == WINDOW_S - 1:
                for n, reading in window:
                    self.locator.hear(n, reading, second + 1)
                window.clear()
            yield from self._step(second + 1, ways)

    def _step(self, now_s: int, ways: Sequence[Way]) -> Iterator[Word]:
        while self.locator.deadline_s() <= now_s:
            for tag, fix, _ in self.locator.step(now_s, lambda _: False):
                at = ways[tag](now_s)
                error_m = math.hypot(fix.x_m - self.dx - at.x_m, fix.y_m - self.dy - at.y_m)
                self.errors_m.append(error_m)
                self.held_95 += error_m <= fix.accuracy_95_m
                for change in self.settler.step(tag, fix, None, now_s):
                    if isinstance(change, Arrived | Left):
                        yield tag, now_s, isinstance(change, Arrived)


def _staying(spot: Spot, seed: int, n: int) -> Way:
    """Stand near a spot; every MOVES_S, turn about and go to another spot within a metre of it."""
    moves = np.random.default_rng((seed, n)).uniform(-1, 1, (int(HOURS * 3600 / MOVES_S) + 1, 3))

    def at(t_s: float) -> ChildAt:
        x, y, turn = moves[int(t_s / MOVES_S)].tolist()
        return ChildAt(spot[0] + x, spot[1] + y, math.pi * turn, False)

    return at


def _waiting(street: _Street, n: int) -> Way:
    """Come up the street and wait in front of the gate."""
    chance = random.Random(f"{street.seed}/waits/{n}")
    gate = street.site.gates[0]
    way = _home(street, chance)[::-1]
    while True:
        spot = (gate[0] + chance.uniform(-BESIDE_M, BESIDE_M), gate[1] + chance.uniform(-BESIDE_M, BESIDE_M))
        if BEFORE_M[0] <= -depth_m(*spot, street.site.school) <= BEFORE_M[1] and _outside(street.site, way[-1], spot):
            break
    walk = Walk([0.0], [way[-2] if math.dist(way[-2], way[-1]) < 60 else way[-1]])
    for point in (way[-1], spot):
        walk.go(point, 1.2)
    _fidget(walk, spot, WAIT_S + 120, chance)
    return walk.at


def _leaving(street: _Street, n: int, spot: Spot) -> tuple[Way, float]:
    """Stand in the yard, leave by the gate and walk home; return also the time when the child is out."""
    chance = random.Random(f"{street.seed}/leaves/{n}")
    walk = Walk([0.0], [spot])
    _fidget(walk, spot, chance.uniform(*LEAVES_S), chance)
    walk.go(street.site.gates[0], 1.2)
    out_s = walk.times_s[-1]
    for point in _home(street, chance):
        walk.go(point, 1.2)
    return walk.at, out_s


def _home(street: _Street, chance: random.Random) -> list[Spot]:
    """Return the way from the gate to some home."""
    world = street.world
    node = chance.choice([node for node, distance in world._homes if distance > 90])
    return [world._paths.points[each] for each in world._paths.route(world._door, node)]


def _fidget(walk: Walk, spot: Spot, seconds: float, chance: random.Random) -> None:
    """Stay near a spot; from time to time, step to another within a metre."""
    end_s = walk.times_s[-1] + seconds
    while walk.times_s[-1] < end_s:
        walk.stay(chance.uniform(30, MOVES_S))
        walk.go((spot[0] + chance.uniform(-1, 1), spot[1] + chance.uniform(-1, 1)), 0.8)


def _outside(site: Site, a: Spot, b: Spot) -> bool:
    """Return whether the straight way from a to b stays outside the school."""
    steps = [k / 40 for k in range(41)]
    return all(depth_m(a[0] + k * (b[0] - a[0]), a[1] + k * (b[1] - a[1]), site.school) < 0 for k in steps)


def _spots(site: Site, inside: bool, near_m: float, far_m: float) -> Iterator[Spot]:
    """Yield places at this distance from the school's edge, inside or outside, with a reader in reach."""
    rng, found = np.random.default_rng(SEED + inside), 0
    poles = [pole.at for pole in _poles(site)]
    xs, ys = zip(*site.school, strict=True)
    while found < CHILDREN:
        x, y = rng.uniform(min(xs) - 10, max(xs) + 10), rng.uniform(min(ys) - 10, max(ys) + 10)
        depth = depth_m(x, y, site.school) * (1 if inside else -1)
        if near_m <= depth <= far_m and min(math.dist((x, y), pole) for pole in poles) < REACH_M:
            found += 1
            yield x, y


def _walk_test(site: Site, zone: Zone, air: Air, seed: int) -> tuple[gateway_site.RecordedSite, gateway_site.Survey]:
    with tempfile.TemporaryDirectory() as folder:
        walked = walk_test.walk(site, _poles(site), air, seed)
        found, survey, _ = onto_zone.walk_test_of_zone(walk_test.write(Path(folder), walked), zone)
    return found, survey


def _poles(site: Site) -> Sequence[Pole]:
    """Return the demo's poles without those that guard its gate: here depth alone decides."""
    return [pole for pole in site.poles if pole.gate is None][:READERS]


if __name__ == "__main__":
    run()
