"""A patch hears best where it looks, a dipole all round, and a compass is not a heading."""

import math

import numpy as np
import pytest

from gateway.antenna import AHEAD_DB, FRONT_BACK_DB, gain_db, look_of, looks_of
from gateway.zone import Reader, direction

DIPOLE = Reader(1, "0" * 16, 126.9, 37.5)


def test_a_patch_looks_where_the_compass_says() -> None:
    for look_deg in (0.0, 90.0, 200.0):
        patch = Reader(2, "1" * 16, 126.9, 37.5, antenna="patch", look_deg=look_deg)
        ahead = np.array(direction(look_deg)) * 7.0
        beside = np.array(direction(look_deg + 90.0)) * 7.0
        look = np.full(3, look_of(patch))
        assert gain_db(np.stack([ahead, -ahead, beside]), look) == pytest.approx(
            [AHEAD_DB, AHEAD_DB - FRONT_BACK_DB, AHEAD_DB - FRONT_BACK_DB / 2]
        )


def test_a_dipole_and_a_patch_of_unknown_look_hear_all_round() -> None:
    unknown = Reader(2, "1" * 16, 126.9, 37.5, antenna="patch")
    assert looks_of([DIPOLE, unknown]) is None
    assert gain_db(np.array([[1.0, 0.0], [0.0, -3.0]]), math.nan) == pytest.approx([0.0, 0.0])


def test_at_its_foot_a_patch_has_no_direction() -> None:
    middle = AHEAD_DB - FRONT_BACK_DB / 2
    assert gain_db(np.zeros((1, 2)), np.zeros(1)) == pytest.approx([middle])
