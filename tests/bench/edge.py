"""Near the edge with everything real behind the air: the engine, the demo's zone and its walk test, its places.

Thirty children stand 3 to 8 m inside the school's outline for an hour each, turning and stepping about; the simulated
air reaches the readers, readings come as the firmware sends them, and what `Settler` concludes is counted. Nobody
leaves, so every "left" is false. Then thirty outside, 3 to 8 m before the edge: every arrival is false. `presence.py`
has thirty whole days, with errors that are made up, longer and worse.
"""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gateway import record_survey
from gateway import site as gateway_site
from gateway.changes import Arrived, Left
from gateway.locate import Reading
from gateway.locate.ground import Ground
from gateway.locate.zone import ZoneLocator
from gateway.settle import Settler
from gateway.zone import DangerArea, Footpath, Place, Reader, Zone, depth_m
from sim import site as sites
from sim import walk_test
from sim.chance import one
from sim.radio import Air, Ear, rssi_of
from sim.site import Site
from sim.tag import POWER_DBM, POWER_SIGMA_DB

CHILDREN, READERS, HOURS, SEED = 30, 8, 1.0, 1
NEAR_M, FAR_M, REACH_M = 3.0, 8.0, 45.0
"""How far from the edge they stand, and how far from a reader at the most."""
STEP_S, MOVES_S = 2.0, 180.0
"""A reader tells of a tag so often; a child goes to another spot within a metre and turns about so often."""
HEARD = 0.8
"""Chance that a reader's scan catches one of the two beacons of its window."""


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"children": CHILDREN, "hours_each": HOURS, "seed": SEED}
    started = time.perf_counter()
    for where in ("inside", "outside"):
        days = _Days(where == "inside")
        left, arrived, errors_m, held_95 = days.run()
        found |= {
            f"{where}_false_left": left,
            f"{where}_arrivals": arrived,
            f"{where}_error_median_m": round(float(np.median(errors_m)), 1),
            f"{where}_95_holds_pct": round(100 * held_95, 1),
        }
    found["tag_seconds_per_s"] = round(2 * CHILDREN * HOURS * 3600 / (time.perf_counter() - started))
    for name, value in found.items():
        print(f"  {name:28} {value}")
    return found


class _Days:
    def __init__(self, inside: bool) -> None:
        site = sites.load()
        poles = site.poles[:READERS]
        zone = _zone(site)
        self.ground = Ground(zone)
        self.dx, self.dy = self.ground.plane.to_xy_m(site.plane.lon, site.plane.lat)
        self.air = Air(SEED, [Ear(p.number, p.at, p.height_m) for p in poles], walled=site.school)
        self.numbers = [pole.number for pole in poles]
        self.locator = ZoneLocator(self.ground, Counter(), survey=_walk_test(site, zone, self.air))
        self.settler = Settler(zone, self.ground.plane, {f"tag-{n}": n for n in range(CHILDREN)})
        self.spots = list(_spots(site, inside))
        self.offsets_db = [POWER_SIGMA_DB * (2 * one(SEED, "edge power", n) - 1) for n in range(CHILDREN)]

    def run(self) -> tuple[int, int, list[float], float]:
        left = arrived = held = 0
        errors_m: list[float] = []
        mean_dbm = [np.zeros(READERS)] * CHILDREN
        at = list(self.spots)
        now_s, event = 0.0, 0
        rng = np.random.default_rng(SEED)
        while now_s < HOURS * 3600:
            if event % int(MOVES_S / STEP_S) == 0:
                for n, (x, y) in enumerate(self.spots):
                    at[n] = (x + rng.uniform(-1, 1), y + rng.uniform(-1, 1))
                    mean_dbm[n] = self.air.mean_dbm(*at[n], rng.uniform(-math.pi, math.pi), self.offsets_db[n])
            for n in range(CHILDREN):
                dbm, read = self.air.listen(n, event, mean_dbm[n])
                for k in np.flatnonzero(read & (rng.random(READERS) < HEARD)):
                    heard_at_s = now_s + rng.uniform(0, 1)
                    reading = Reading(self.numbers[k], rssi_of(float(dbm[k])), 1, heard_at_s, POWER_DBM)
                    self.locator.hear(n, reading, now_s + 1)
            event += 1
            for step_s in (now_s + 1, now_s + 2):
                while self.locator.deadline_s() <= step_s:
                    for tag, fix, _ in self.locator.step(step_s, lambda _: False):
                        error_m = math.hypot(fix.x_m - self.dx - at[tag][0], fix.y_m - self.dy - at[tag][1])
                        errors_m.append(error_m)
                        held += error_m <= fix.accuracy_95_m
                        for change in self.settler.step(tag, fix, None, step_s):
                            left += isinstance(change, Left)
                            arrived += isinstance(change, Arrived)
                    break
            now_s += STEP_S
        return left, arrived, errors_m, held / max(len(errors_m), 1)


def _spots(site: Site, inside: bool) -> Iterator[tuple[float, float]]:
    """Places so near the school's edge, in or out, that a reader is in reach."""
    rng, found = np.random.default_rng(SEED + inside), 0
    poles = [pole.at for pole in site.poles[:READERS]]
    xs, ys = zip(*site.school, strict=True)
    while found < CHILDREN:
        x, y = rng.uniform(min(xs) - 10, max(xs) + 10), rng.uniform(min(ys) - 10, max(ys) + 10)
        depth = depth_m(x, y, site.school) * (1 if inside else -1)
        if NEAR_M <= depth <= FAR_M and min(math.dist((x, y), pole) for pole in poles) < REACH_M:
            found += 1
            yield x, y


def _walk_test(site: Site, zone: Zone, air: Air) -> tuple[gateway_site.Site, gateway_site.Survey]:
    with tempfile.TemporaryDirectory() as folder:
        walked = walk_test.walk(site, site.poles[:READERS], air, SEED)
        found, survey, _ = record_survey.of_zone(walk_test.write(Path(folder), walked), zone)
    return found, survey


def _zone(site: Site) -> Zone:
    """The demo's zone as the gateway is told of it."""

    def lonlat(points: object) -> tuple[tuple[float, float], ...]:
        return tuple(site.plane.to_lonlat(x, y) for x, y in points)  # type: ignore[attr-defined]

    poles = site.poles[:READERS]
    readers = [(p, site.plane.to_lonlat(*p.at)) for p in poles]
    return Zone(
        readers=tuple(
            Reader(number=p.number, eui64=f"{p.number:016x}", lon=lon, lat=lat, height_m=p.height_m)
            for p, (lon, lat) in readers
        ),
        places=(Place(id=site.school_id, kind="school", polygon=lonlat(site.school)),),
        dangers=tuple(DangerArea(id=d.id, polygon=lonlat(d.ring), warn_m=d.warn_m) for d in site.dangers),
        footpaths=tuple(Footpath(line=lonlat(line)) for line in site.footpaths([p.at for p in poles])),
    )


if __name__ == "__main__":
    run()
