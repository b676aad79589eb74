"""The gateway's engine as the benchmarks call it: the one place to touch when its interface changes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.locate import Field, Reading
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
    known: dict[str, Any] = {
        "name": "street", "bounds_m": (0.0, float(low), length_m, float(high)), "worn": "rig",
        "reader_ids": tuple(f"r{i}" for i in range(len(readers_m))), "readers_m": readers_m,
        "tag_height_m": tag_height_m,
    }  # fmt: skip
    if "footpaths" in {field.name for field in fields(Site)}:
        known["footpaths"] = (np.array([(0.0, 0.0), (length_m, 0.0)]),)
    return Site(**known)


def path_survey(x_m: Floats, level_dbm: Floats) -> Survey:
    """Return readings (N, K; NaN: none) at known places on y = 0 as a walk test without headings."""
    row, reader = np.nonzero(np.isfinite(level_dbm))
    xy = np.stack([x_m[row], np.zeros(len(row))], axis=1)
    return Survey(xy, np.full(len(row), np.nan), reader, level_dbm[row, reader], np.ones(len(row)))


def once_on_path(
    readers_m: Floats, tag_height_m: float, length_m: float, survey_x_m: Floats, survey_dbm: Floats
) -> Callable[[Floats], float] | None:
    """Return our single-second estimator: dBm of each reader (NaN: not heard) -> metres along the path.

    None until the engine can be built from a recorded site for single seconds.
    """
    return None


def walk_on_path(
    readers_m: Floats, tag_height_m: float, length_m: float, survey_x_m: Floats, survey_dbm: Floats, level_dbm: Floats
) -> dict[str, Floats] | None:
    """Run our filter over readings (row i: second i + 1) and return "instant" and "lagged": rows (t_s, metres along).

    None until there is a gateway.replay.
    """
    try:
        replay = import_module("gateway.replay").replay
    except ModuleNotFoundError as error:
        if error.name != "gateway.replay":
            raise
        return None
    site = path_site(readers_m, tag_height_m, length_m)
    row, reader = np.nonzero(np.isfinite(level_dbm))
    track = Track("walk", row + 1.0, reader, level_dbm[row, reader])
    found = list(replay(site, path_survey(survey_x_m, survey_dbm), track, lag_s=LAG_S))
    table = np.array([(fix.t_s, fix.x_m, fix.lag_s) for fix in found]).reshape(-1, 3)
    lagged = table[:, 2] > 0
    return {"instant": table[~lagged, :2], "lagged": table[lagged, :2]}
