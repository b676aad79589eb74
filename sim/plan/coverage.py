"""Where a press would be heard, and located within 20 m: every few metres of footpath, in simulated air.

A child stands at each point for BEFORE_S, looks some way, and presses its tag: ten cries a second for 3 s, then one a
second (docs/TAG.md). Readers hear while they scan. The gateway's engine, with its walk test, gets the readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.fix import Reading
from gateway.locate.locator import ZoneLocator
from gateway.zone import Field, Zone
from sim import chance
from sim.air.radio import Air, rssi_of
from sim.chance import Floats
from sim.street.site import Site
from sim.street.tag import BEACON_S, FAST_FOR_S, FAST_S, POWER_DBM, POWER_SIGMA_DB

HEARD_IN_S = 3
"""A press counts as heard when one cry reached a reader within this: the time of the quick cries."""
BEFORE_S, LOCATED_IN_S = 20, 10
LOCATED_M = 20.0
"""A press counts as located when the fix LOCATED_IN_S after it is this near: one looks round and sees the child. The
child has stood there for BEFORE_S, with beacons."""
PRESSED = 1_000_000
"""Tags that press have numbers from here: none of the scenes' children has one of them."""
WINDOW_S = 2
"""A reader reports what it heard in a window, with the level of the mean."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of presses on the footpaths. presses: how many were simulated, over all airs."""

    presses: int
    heard: int
    located: int
    unheard_m: tuple[tuple[float, float], ...]
    """Points where a press was heard in fewer than half of the airs."""
    radius_m: float

    @property
    def heard_share(self) -> float:
        return self.heard / max(self.presses, 1)

    @property
    def located_share(self) -> float:
        return self.located / max(self.presses, 1)


def press_everywhere(
    site: Site,
    zone: Zone,
    points_m: Floats,
    airs: Sequence[tuple[int, Air, ZoneLocator]],
    duty: Sequence[float],
    *,
    radius_m: float,
) -> Coverage:
    """Return what becomes of one press at each of (points, 2) metres on the site's plane, in each of the airs.

    airs: each with its seed and an engine that follows no tag yet. duty: the share of the time that each reader
    listens, in the order of an air's ears.
    """
    dx_m, dy_m = Field(zone).plane.to_xy_m(site.plane.lon, site.plane.lat)
    heard = np.zeros((len(airs), len(points_m)), bool)
    located = np.zeros_like(heard)
    for n, (seed, air, locator) in enumerate(airs):
        rows = [_press(air, seed, k, float(x), float(y), np.asarray(duty)) for k, (x, y) in enumerate(points_m)]
        due: dict[float, list[tuple[int, Reading]]] = {}
        for k, readings in enumerate(rows):
            for reading in readings:
                due.setdefault(reading.heard_at_s, []).append((k, reading))
        for second in np.arange(1.0, BEFORE_S + LOCATED_IN_S + 1).tolist():
            for k, reading in due.get(second, ()):
                locator.hear(k, reading, second)
            while locator.deadline_s() <= second:
                for _ in locator.step(second, lambda _: False):
                    pass
        first_s, last_s = BEFORE_S, BEFORE_S + HEARD_IN_S + 1
        for k, (x, y) in enumerate(points_m):
            heard[n, k] = any(first_s < reading.heard_at_s <= last_s for reading in rows[k])
            fix = locator.latest(k)
            located[n, k] = fix is not None and math.dist((fix.x_m, fix.y_m), (x + dx_m, y + dy_m)) <= LOCATED_M
    poor = heard.mean(axis=0) < 0.5 if len(airs) else np.zeros(len(points_m), bool)
    unheard = tuple((float(x), float(y)) for x, y in points_m[poor])
    return Coverage(heard.size, int(heard.sum()), int((heard & located).sum()), unheard, radius_m)


def _press(air: Air, seed: int, number: int, x_m: float, y_m: float, duty: Floats) -> list[Reading]:
    """Return what the readers report of a child that stands and then presses, by the end of each window."""
    heading = math.tau * chance.one(seed, number, "press faces")
    own_db = POWER_SIGMA_DB * float(chance.normal(seed, number, "press power")[0])
    end_s = BEFORE_S + LOCATED_IN_S
    at_s = np.r_[
        np.arange(0.0, BEFORE_S, BEACON_S), BEFORE_S + np.arange(0.0, FAST_FOR_S, FAST_S),
        np.arange(BEFORE_S + FAST_FOR_S, end_s, BEACON_S),
    ]  # fmt: skip
    events = np.arange(len(at_s), dtype=np.int64)[:, None]
    ids = np.array([ear.number for ear in air.ears], np.int64)
    mean = air.mean_dbm(x_m, y_m, heading, own_db)
    dbm, readable = air.listen(PRESSED + number, events, np.broadcast_to(mean, (len(at_s), len(mean))))
    heard = readable & (chance.uniform(seed, number, "press scan", events, ids) < duty)
    found = []
    for second in range(WINDOW_S, end_s + 1, WINDOW_S):
        window = (at_s >= second - WINDOW_S) & (at_s < second)
        for k in np.flatnonzero(heard[window].any(axis=0)).tolist():
            levels = dbm[window, k][heard[window, k]]
            found.append(Reading(int(ids[k]), rssi_of(float(levels.mean())), len(levels), float(second), POWER_DBM))
    return found
