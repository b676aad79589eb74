"""The gateway's engine as the benchmarks call it: the one place to touch when its interface changes."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from gateway.locate import Field, Reading
from gateway.locate.tracker import Tracker
from gateway.replay import Engine
from gateway.site import Site, Survey, Track
from gateway.zone import Zone

Floats = NDArray[np.float64]

LAG_S = 2.0

Step = Callable[[Mapping[int, Sequence[Reading]], float], object]
"""The update of all tags at once: readings by tag, now in seconds."""


def locator(zone: Zone) -> Step | None:
    """Return the engine's update of all tags of a zone; None while there is none."""
    try:
        grid = import_module("gateway.locate.grid")
    except ModuleNotFoundError as error:
        if error.name != "gateway.locate.grid":
            raise
        return None
    engine = grid.GridLocator(Field(zone), Counter())
    return lambda heard, now_s: [engine.step(tag, readings, now_s) for tag, readings in heard.items()]


def path_site(readers_m: Floats, tag_height_m: float, length_m: float) -> Site:
    """Return a street as a recorded site: readers along x, one footpath on y = 0 from 0 to length_m."""
    low, high = min(readers_m[:, 1].min(), 0.0) - 2.0, max(readers_m[:, 1].max(), 0.0) + 2.0
    return Site(
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
    engine = Engine(site, path_survey(survey_x_m, survey_dbm))
    tracker = Tracker(engine.space, engine.hearings, range(len(readers_m)), Counter())
    for k in range(len(readers_m)):  # other tags are about, so that every reader is known to listen
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
    engine = Engine(path_site(readers_m, tag_height_m, length_m), path_survey(survey_x_m, survey_dbm))
    row, reader = np.nonzero(np.isfinite(level_dbm))
    track = Track("walk", row + 1.0, reader, level_dbm[row, reader])
    table = np.array([(fix.t_s, fix.x_m, fix.lag_s) for fix in engine.replay(track, lag_s=LAG_S)]).reshape(-1, 3)
    lagged = table[:, 2] > 0
    return {"instant": table[~lagged, :2], "lagged": table[lagged, :2]}
