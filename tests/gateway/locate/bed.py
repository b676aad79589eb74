"""Spaces and models that the tests of the engine's parts share."""

import math
from typing import Any

import numpy as np

from gateway.locate.levels import Law
from gateway.locate.space import STANDING, Space, footpaths, joined, open_ground
from gateway.locate.ways import chains

HEIGHT_M, POLE_M = 1.0, 3.5


class Known:
    """A model that is sure of its law: what `Hearing` asks of one, and no more."""

    def __init__(self, law: Law, sd_db: float = 1.0, exponent_sd: float = 0.1, power_sd_db: float = 2.0) -> None:
        self.law, self.sd_db, self.exponent_sd, self.power_sd_db = law, sd_db, exponent_sd, power_sd_db

    def expect(self, xy_m: Any, facing: Any | None = None) -> tuple[Any, Any]:
        level = self.law.expect(xy_m, facing)
        return level, np.full(level.shape, self.sd_db)

    def steepness(self, xy_m: Any) -> Any:
        return self.law.steepness(xy_m)


def poles(*xy_m: tuple[float, float]) -> Any:
    return np.array([(x, y, POLE_M) for x, y in xy_m], float)


def law(readers_m: Any, *, p0_dbm: float = -45.0, exponent: float = 2.2, body_db: float = 0.0) -> Law:
    return Law(readers_m, HEIGHT_M, np.full(len(readers_m), p0_dbm), exponent, body_db, 4.0)


def yard(side_m: float = 20.0, step_m: float = 1.0) -> Space:
    return open_ground(0.0, 0.0, side_m, side_m, step_m)


def way(length_m: float = 60.0, step_m: float = 1.0) -> Space:
    """One straight footpath along x."""
    return footpaths(chains([[(0.0, 0.0), (length_m, 0.0)]]), step_m)


def crossing(step_m: float = 2.0) -> Space:
    """Four arms of different length, so cells of different size, round (0, 0); and a ring that hangs on the last."""
    ring = [(0.0, -13.3), (9.0, -20.0), (0.0, -28.0), (-9.0, -20.0), (0.0, -13.3)]
    arms = [[(0.0, 0.0), end] for end in ((-33.0, 0.0), (17.0, 0.0), (0.0, 24.5), (0.0, -13.3))]
    return footpaths(chains([*arms, ring]), step_m)


def street_and_yard() -> Space:
    """A footpath of 60 m with a yard to its north, joined by a door in the middle."""
    path, ground = way(60.0, 2.0), open_ground(20.0, 6.0, 40.0, 20.0, 2.0)
    return joined([path, ground], [(0, nearest(path, 30.0, 0.0), 1, nearest(ground, 30.0, 6.0))])


def nearest(space: Space, x_m: float, y_m: float) -> int:
    """The cell next to a place."""
    return int(np.argmin(np.hypot(*(space.xy_m - (x_m, y_m)).T)))


def state(space: Space, x_m: float, y_m: float, *, pace: int | None, heading: float = 0.0) -> int:
    """The state of who is there, at this pace (None: stands), facing so."""
    cell = nearest(space, x_m, y_m)
    block = next(b for b in space.blocks if b.first_cell <= cell < b.first_cell + b.cells)
    within = cell - block.first_cell
    off = np.cos(block.facings[:, within] - heading)
    return (
        block.start
        + ((STANDING if pace is None else pace) * block.headings + int(np.argmax(off))) * block.cells
        + within
    )


def surely(space: Space, *states: int) -> Any:
    """A belief in these states alone, alike in each."""
    belief = np.zeros((1, space.states), np.float32)
    belief[0, list(states)] = 1 / len(states)
    return belief


def mean_m(space: Space, belief: Any) -> Any:
    """Middle of a belief, [tags, 2]."""
    return space.by_cell(belief) @ space.xy_m


def hear(
    rng: np.random.Generator, truth: Law, xy_m: tuple[float, float], facing: float = math.nan, spread_db: float = 4.0
) -> Any:
    """Levels [1, readers] of a tag, Student's t about the law."""
    level = truth.expect(np.array([xy_m]), np.array([facing]))
    return level + spread_db * rng.standard_t(4.0, level.shape) / math.sqrt(2.0)
