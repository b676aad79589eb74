"""The gateway's locating engine as the benchmarks call it. When its interface changes, only this file has to change."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.fix import Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.locate.tracker import Tracker
from gateway.recording import RecordedSite, Survey, Track
from gateway.survey.replay import ReplayEngine
from gateway.zone import LonLat, Zone

Floats = NDArray[np.float64]

LAG_S = 2.0
SECOND_S = 0.9
"""The batches of one second are processed one after the other, well before those of the next second are due."""

Walked = tuple[RecordedSite, Survey]


class Locator:
    """The live engine of a zone for tags 0..tags - 1. All are on the zone's first route, if it has routes."""

    def __init__(self, zone: Zone, tags: int, survey: Walked | None) -> None:
        routes = dict.fromkeys(range(tags), 0) if zone.routes else {}
        self._engine = ZoneLocator(Ground(zone), Counter(), routes=routes, survey=survey)

    def hear(self, heard: Mapping[int, Sequence[Reading]], now_s: float) -> None:
        """Take in readings by tag."""
        for tag, readings in heard.items():
            for reading in readings:
                self._engine.hear(tag, reading, now_s)

    def step(self, now_s: float) -> int:
        """Process all batches of one second; return how many instant fixes that gave."""
        fixes = 0
        while (due_s := self._engine.deadline_s()) < now_s + SECOND_S:
            for _ in self._engine.step(max(due_s, now_s), _never_silent):
                fixes += 1
        return fixes


def locator(zone: Zone, tags: int, *, walked: Walked | None = None) -> Locator:
    """Return the engine of a zone as a gateway runs it, with or without a walk test."""
    return Locator(zone, tags, walked)


def walked(zone: Zone, places: Sequence[LonLat], heading_deg: Floats, level_dbm: Floats) -> Walked:
    """Return readings (places, readers) of a worn tag as the walk test of a zone."""
    ground = Ground(zone)
    site = RecordedSite(
        name="zone",
        bounds_m=(-1e3, -1e3, 1e3, 1e3),
        reader_ids=tuple(str(number) for number in ground.readers),
        readers_m=np.array(list(ground.readers.values())),
    )
    row, reader = np.indices(level_dbm.shape).reshape(2, -1)
    xy = np.array([ground.plane.to_xy_m(lon, lat) for lon, lat in places])
    return site, Survey(xy[row], heading_deg[row], reader, level_dbm.ravel(), np.ones(len(row)))


def _never_silent(reader: int) -> bool:
    return False


def path_site(readers_m: Floats, tag_height_m: float, length_m: float) -> RecordedSite:
    """Return a street as a recorded site: readers along x, one footpath on y = 0 from 0 to length_m."""
    low, high = min(readers_m[:, 1].min(), 0.0) - 2.0, max(readers_m[:, 1].max(), 0.0) + 2.0
    return RecordedSite(
        name="street",
        bounds_m=(0.0, float(low), length_m, float(high)),
        worn="rig",
        reader_ids=tuple(f"r{i}" for i in range(len(readers_m))),
        readers_m=readers_m,
        tag_height_m=tag_height_m,
        footpaths=(np.array([(0.0, 0.0), (length_m, 0.0)]),),
    )


def path_survey(x_m: Floats, level_dbm: Floats) -> Survey:
    """Return readings (N, K; NaN: none) at known places on y = 0 as a walk test without headings."""
    row, reader = np.nonzero(np.isfinite(level_dbm))
    xy = np.stack([x_m[row], np.zeros(len(row))], axis=1)
    return Survey(xy, np.full(len(row), np.nan), reader, level_dbm[row, reader], np.ones(len(row)))


def once_on_path(
    readers_m: Floats, tag_height_m: float, length_m: float, survey_x_m: Floats, survey_dbm: Floats
) -> Callable[[Floats], float]:
    """Return our single-second estimator: dBm of each reader (NaN: not heard) -> metres along the path."""
    site = path_site(readers_m, tag_height_m, length_m)
    engine = ReplayEngine(site, path_survey(survey_x_m, survey_dbm))
    tracker = Tracker(engine.space, engine.hearings, range(len(readers_m)), Counter())
    for k in range(len(readers_m)):  # other tags are near, so every reader is known to listen
        tracker.hear(0, Reading(k, -60, 1, 0.0, 0), 0.0)

    def once(level_dbm: Floats) -> float:
        heard = [Reading(int(k), float(level_dbm[k]), 1, 0.0, 0) for k in np.flatnonzero(np.isfinite(level_dbm))]  # type: ignore[arg-type]
        fix = tracker.once(heard, 0.0)
        return math.nan if fix is None else fix.x_m

    return once


def walk_on_path(
    readers_m: Floats, tag_height_m: float, length_m: float, survey_x_m: Floats, survey_dbm: Floats, level_dbm: Floats
) -> dict[str, Floats]:
    """Run our filter over readings (row i: second i + 1); return "instant" and "lagged": rows (t_s, metres along)."""
    engine = ReplayEngine(path_site(readers_m, tag_height_m, length_m), path_survey(survey_x_m, survey_dbm))
    row, reader = np.nonzero(np.isfinite(level_dbm))
    track = Track("walk", row + 1.0, reader, level_dbm[row, reader])
    table = np.array([(fix.t_s, fix.x_m, fix.lag_s) for fix in engine.replay(track, lag_s=LAG_S)]).reshape(-1, 3)
    lagged = table[:, 2] > 0
    return {"instant": table[~lagged, :2], "lagged": table[lagged, :2]}
