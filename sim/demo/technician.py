"""The walk test of a zone before the story: a technician with a tag walks every way, and what readers hear is kept.

The air is that of the story: the same seed and the same ears, so the same shadows and offsets. Only the fading is drawn
separately. The result is a recorded site (`sim.walks.sites.SimulatedSite`) for a gateway's `[locate] survey`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from sim import chance
from sim.air.radio import Air, rssi_of
from sim.chance import Floats
from sim.street.paths import Spot, inside
from sim.street.site import Pole, Site
from sim.street.tag import BEACON_S, POWER_DBM, POWER_SIGMA_DB
from sim.street.zone import duty
from sim.walks import sites

NAME = "walk_test"
"""Name of the recorded site, and of its folder in the gateway's folder."""
TECHNICIAN = 0
"""Number of the technician's tag in the air. Children have numbers from 1 up, readers below 0."""
SPEED_M_S = 1.1
WANDER_M = 0.3
LANE_M = 8.0
"""Distance between two lanes walked over the school's yard."""
LANE_STEP_M = 2.0
REACH_M = 70.0
"""A yard is walked only where a reader is nearer than this."""
TAP_EVERY_M = 20.0
TAP_SIGMA_M = 1.0
"""The technician taps the map about every TAP_EVERY_M. A tap has this error (sigma) on each axis; between two taps the
error changes linearly."""
MARGIN_M = 5.0


def walk(site: Site, poles: Sequence[Pole], air: Air, seed: int) -> sites.SimulatedSite:
    """Return the walk test of a zone whose readers are mounted on `poles`, in metres on the site's plane.

    It covers every footpath in the configuration of a gateway with these poles, and lanes over the yard, in both
    directions. A row is one packet at one reader. A reader hears at most one of the three copies of a beacon, which
    leave within 1 ms: the one on its channel. How long its scan windows are changes nothing in this, only which share
    of the time they take. The technician's tag differs from its calibrated power as any tag does.
    air: the air of these poles, in this order.
    """
    spots = [pole.at for pole in poles]
    lines = [np.array(line, float) for line in (*site.footpaths(spots), *lanes(site.school, spots))]
    ids = np.array([ear.number for ear in air.ears], np.int64)
    listens = np.array([duty(pole) for pole in poles])
    own_db = POWER_SIGMA_DB * float(chance.normal(seed, TECHNICIAN, "power")[0])
    rows: list[sites.SurveyRow] = []
    event = 0
    for n, way in enumerate(each for line in lines for each in (line, line[::-1])):
        walked = sites.along(way, SPEED_M_S, seed, f"{NAME} {n}", wander_m=WANDER_M)
        at = np.arange(0, len(walked.t_s), round(BEACON_S / sites.STEP_S))
        xy, heading = walked.xy_m[at], walked.heading[at]
        events = (event + np.arange(len(at), dtype=np.int64))[:, None]
        event += len(at)
        dbm, readable = air.listen(TECHNICIAN, events, air.means_dbm(xy, heading, own_db))
        heard = readable & (chance.uniform(seed, TECHNICIAN, "scan", events, ids) < listens)
        tapped = xy + _tap_error_m(xy, seed, n)
        degrees = np.round(np.degrees(heading)) % 360
        rows += [
            (float(tapped[i, 0]), float(tapped[i, 1]), float(degrees[i]), int(k), float(rssi_of(dbm[i, k])), 1)
            for i, k in np.argwhere(heard)
        ]
    return sites.SimulatedSite(_facts(site, poles, air, lines), tuple(rows), {})


def write(folder: Path, walked: sites.SimulatedSite) -> Path:
    """Write the walk test as a recorded site into `folder`/walk_test and return that path."""
    return sites.write(walked, folder)


def lanes(ring: Sequence[Spot], spots: Sequence[Spot]) -> list[list[Spot]]:
    """Return lanes LANE_M apart, west to east, over the area inside the ring and within REACH_M of the spots."""
    (x0, y0), (x1, y1) = np.min(ring, axis=0), np.max(ring, axis=0)
    found: list[list[Spot]] = []
    for y in np.arange(y0 + LANE_M / 2, y1, LANE_M):
        row = [(float(x), float(y)) for x in np.arange(x0, x1, LANE_STEP_M)]
        for good, run in groupby(row, lambda p: inside(p, ring) and _gap_m(p, spots) < REACH_M):
            points = list(run)
            if good and len(points) > 2:
                found.append([points[0], points[-1]])
    return found


def _gap_m(point: Spot, spots: Sequence[Spot]) -> float:
    return float(np.hypot(*(np.array(spots) - point).T).min())


def _tap_error_m(xy_m: Floats, seed: int, way: int) -> Floats:
    """Return the error of the tapped position at each point of a way, in m, [points, 2]."""
    gone = np.r_[0.0, np.cumsum(np.hypot(*np.diff(xy_m, axis=0).T))]
    taps = np.linspace(0.0, max(gone[-1], 1.0), 2 + int(gone[-1] / TAP_EVERY_M))
    number = np.arange(len(taps), dtype=np.int64)
    errors = [TAP_SIGMA_M * chance.normal(seed, NAME, "tap", way, axis, number) for axis in (0, 1)]
    return np.stack([np.interp(gone, taps, error) for error in errors], axis=1)


def _facts(site: Site, poles: Sequence[Pole], air: Air, lines: Sequence[Floats]) -> dict[str, Any]:
    points = np.vstack([*lines, np.array([pole.at for pole in poles])])
    low, high = points.min(axis=0) - MARGIN_M, points.max(axis=0) + MARGIN_M
    return {
        "name": NAME, "frame": "local metres", "bounds": np.round([*low, *high], 1).tolist(),
        "origin": {"lon": site.plane.lon, "lat": site.plane.lat},
        "readers": [
            {"id": str(p.number), "x_m": round(p.at[0], 3), "y_m": round(p.at[1], 3), "z_m": p.height_m}
            | ({"antenna": p.antenna, "look_deg": p.look_deg} if p.antenna == "patch" else {})
            for p in poles
        ],
        "tag": {"worn": "body", "height_m": air.channel.tag_height_m, "power_dbm": POWER_DBM}, "radio": "ble",
    }  # fmt: skip
