"""Absurd input leaves a belief finite, not negative and of sum 1, and a tag is found again afterwards."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gateway.locate.belief import Beliefs
from gateway.locate.hearing import Hearing
from gateway.locate.space import Space
from tests.gateway.locate.bed import Known, hear, law, poles, street_and_yard
from tests.gateway.locate.bed_belief import READERS, TRUTH, beliefs, follow, ground, is_belief

ABSURD: Sequence[tuple[str, Any, Any, Any, int]] = [
    ("all silent", np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5)), 1),
    ("nothing at all", np.zeros((2, 5)), np.zeros((2, 5)), np.zeros((2, 5)), 1),
    ("a gap of 200 s", np.full((2, 5), -60.0), np.ones((2, 5)), np.zeros((2, 5)), 200),
    ("no time", np.full((2, 5), -60.0), np.ones((2, 5)), np.zeros((2, 5)), 0),
    ("+42 dBm everywhere", np.full((2, 5), 42.0), np.full((2, 5), 9.0), np.zeros((2, 5)), 1),
    ("-300 dBm everywhere", np.full((2, 5), -300.0), np.full((2, 5), 9.0), np.zeros((2, 5)), 1),
    ("both", np.array([[42.0, -300.0, 42.0, -300.0, 42.0]] * 2), np.full((2, 5), 1e6), np.zeros((2, 5)), 1),
]


@pytest.mark.parametrize("often", [1, 40])
def test_absurd_input_leaves_a_belief(often: int) -> None:
    print("seed 10")
    rng = np.random.default_rng(10)
    for make in (ground, street_and_yard):
        for name, level, packets, silent, seconds in ABSURD:
            believed = beliefs(make(), law(READERS, body_db=3.0), law(READERS, body_db=-3.0), rows=2)
            for _ in range(3):
                believed.step(np.repeat(hear(rng, TRUTH, (8.0, 8.0)), 2, 0), np.full((2, 5), 2.0), np.zeros((2, 5)), 1)
            for _ in range(often if seconds < 10 else 2):
                believed.step(level, packets, silent, seconds)
                assert is_belief(believed.by_cell()), name
            past = believed.smoothed(2)
            assert past is not None
            assert is_belief(past), name
            assert np.isfinite(believed.trust).all(), name
            assert np.isfinite(believed.own).all(), name
            assert np.isfinite(believed.faults_db()).all(), name


def test_after_absurd_input_a_tag_is_found_again() -> None:
    print("seed 11")
    rng = np.random.default_rng(11)
    for name, level, packets, silent, seconds in ABSURD:
        believed = beliefs(ground())
        for _ in range(20):
            believed.step(level[:1], packets[:1], silent[:1], seconds)
        errors = list(follow(believed, rng, [((6.0, 18.0), 0.0)] * 200))
        assert np.mean(errors[160:]) < 6.0, name  # on a ground of 24 m; what was learned of readers fades slowly


def test_a_tag_in_a_house_that_nobody_can_enter_is_somewhere_all_the_same() -> None:
    """What is heard points to where no tag can be, as clearly as float32 can express it. The belief stays a belief."""
    ground_ = ground()
    inside = (np.abs(ground_.xy_m - 12.0) <= 3.0).all(axis=1)
    space = Space(
        ground_.xy_m, ground_.size_m, ground_.blocks, ground_.behind, ground_.ahead, ground_.weights, within=~inside
    )
    print("seed 12")
    many = poles(*map(tuple, np.random.default_rng(12).uniform(9.0, 15.0, (60, 2))))
    near = law(many, exponent=6.0)
    believed = Beliefs(space, [Hearing(space, Known(near, sd_db=0.1))], 1)
    level = near.expect(np.array([[12.0, 12.0]]))
    for _ in range(5):
        believed.step(level, np.full((1, 60), 50.0), np.zeros((1, 60)), 1)
        assert is_belief(believed.by_cell())
        assert believed.by_cell()[0, inside].sum() == 0.0
