"""What the tests of beliefs share: a square with five readers, walks through it, and the error of a belief."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gateway.locate.belief import Beliefs
from gateway.locate.hearing import Hearing
from gateway.locate.levels import Law
from gateway.locate.space import Space
from tests.gateway.locate.bed import Known, hear, law, mean_m, poles, yard

SIDE_M = 24.0
READERS = poles((0.0, 0.0), (SIDE_M, 0.0), (SIDE_M, SIDE_M), (0.0, SIDE_M), (12.0, 12.0))
TRUTH = law(READERS)
PACKETS, LOUD = np.full((1, 5), 2.0), np.zeros((1, 5))
Walk = list[tuple[tuple[float, float], float]]


def ground() -> Space:
    return yard(SIDE_M, 1.0)


def beliefs(space: Space, *laws: Law, rows: int = 1, look_back: int = 3) -> Beliefs:
    return Beliefs(space, [Hearing(space, Known(each)) for each in laws or (TRUTH,)], rows, look_back=look_back)


def walk(rng: np.random.Generator, seconds: int, speed: float = 0.9) -> Walk:
    """Return (place, facing) of each second: straight to a place, then on to another one."""
    place, goal, found = rng.uniform(3, SIDE_M - 3, 2), rng.uniform(3, SIDE_M - 3, 2), []
    for _ in range(seconds):
        while np.hypot(*(goal - place)) < 2 * speed:
            goal = rng.uniform(3, SIDE_M - 3, 2)
        ahead = (goal - place) / np.hypot(*(goal - place))
        place = place + speed * ahead
        found.append(((float(place[0]), float(place[1])), math.atan2(ahead[1], ahead[0])))
    return found


def follow(
    believed: Beliefs,
    rng: np.random.Generator,
    route: Walk,
    truth: Law = TRUTH,
    *,
    add_db: Any = 0.0,
    facing: bool = False,
) -> Iterator[Any]:
    """Step through a walk; yield the error of the moment in metres after every second."""
    for place, angle in route:
        level = hear(rng, truth, place, angle if facing else math.nan) + add_db
        believed.step(level, PACKETS, LOUD, 1)
        yield math.dist(mean_m(believed.space, believed.now[0])[0], place)


def is_belief(mass: Any) -> bool:
    return bool(np.isfinite(mass).all() and (mass >= 0).all() and np.allclose(mass.sum(axis=1), 1.0, atol=1e-3))
