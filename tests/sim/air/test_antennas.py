"""Patch antennas and deaf readers in the air, and many levels at once."""

import numpy as np
import pytest

from sim.air.radio import Air, Channel, ReaderEar

RING = ((-40.0, 0.0), (40.0, 0.0), (40.0, 70.0), (-40.0, 70.0))
PLAIN = Channel(shadow_sigma_db=0.0, reader_sigma_db=0.0, body_min_db=6.0, body_max_db=6.0)


def ears() -> list[ReaderEar]:
    dipoles = [ReaderEar(n, (9.0 * n, 5.0 * n - 20), 3.5) for n in range(1, 6)]
    patches = [ReaderEar(10 + n, (2.0 * n, -2.0), 3.0, "patch", 77.0 * n, float(n)) for n in range(4)]
    return dipoles + patches


def test_many_levels_at_once_are_the_levels_one_by_one() -> None:
    rng = np.random.default_rng(1)
    air = Air(5, ears(), walled=RING)
    xy, heading, own = rng.uniform(-90, 90, (400, 2)), rng.uniform(-3, 3, 400), rng.normal(size=400)
    xy[0] = 9.0, -15.0  # at the foot of a pole
    many = air.means_dbm(xy, heading, own)
    one = [air.mean_dbm(x, y, h, o) for (x, y), h, o in zip(xy.tolist(), heading.tolist(), own.tolist(), strict=True)]
    assert np.abs(many - np.array(one)).max() < 1e-9


def test_a_patch_hears_14_db_less_behind_and_3_db_more_ahead_than_a_dipole() -> None:
    """Far away, where the height no longer turns the angle."""
    at = (0.0, 0.0)
    air = Air(1, [ReaderEar(1, at, 0.8), ReaderEar(2, at, 0.8, "patch", 90.0)], PLAIN)
    east, west, north = (air.mean_dbm(x, y, 0.0) for x, y in ((50.0, 0.0), (-50.0, 0.0), (0.0, 50.0)))
    assert east[1] - east[0] == pytest.approx(3.0)
    assert west[1] - west[0] == pytest.approx(-11.0)
    assert north[1] - north[0] == pytest.approx(-4.0)


def test_front_and_back_are_of_the_channel() -> None:
    channel = Channel(shadow_sigma_db=0.0, reader_sigma_db=0.0, patch_gain_db=5.0, patch_front_back_db=20.0)
    air = Air(1, [ReaderEar(1, (0.0, 0.0), 0.8, "patch", 180.0)], channel)
    assert air.mean_dbm(0.0, -30.0, 0.0)[0] - air.mean_dbm(0.0, 30.0, 0.0)[0] == pytest.approx(20.0)


def test_a_deaf_reader_hears_all_children_and_readers_weaker() -> None:
    well, deaf = (
        Air(3, [ReaderEar(1, (0.0, 0.0), 3.5, deaf_db=db), ReaderEar(2, (20.0, 0.0), 3.5)], walled=RING)
        for db in (0.0, 8.0)
    )
    assert well.mean_dbm(5.0, 9.0, 1.0) - deaf.mean_dbm(5.0, 9.0, 1.0) == pytest.approx([8.0, 0.0])
    assert well.pole_dbm(2)[0] - deaf.pole_dbm(2)[0] == pytest.approx(8.0)
    assert well.pole_dbm(1)[1] == deaf.pole_dbm(1)[1]


def test_readers_back_to_back_hear_each_other_through_both_antennas() -> None:
    dipoles = Air(1, [ReaderEar(1, (0.0, 0.0), 3.0), ReaderEar(2, (0.0, -5.0), 3.0)], PLAIN)
    patches = Air(
        1, [ReaderEar(1, (0.0, 0.0), 3.0, "patch", 0.0), ReaderEar(2, (0.0, -5.0), 3.0, "patch", 180.0)], PLAIN
    )
    assert patches.pole_dbm(1)[1] - dipoles.pole_dbm(1)[1] == pytest.approx(-22.0)


def test_equal_seeds_give_a_zone_of_dipoles_the_numbers_that_it_always_had() -> None:
    air = Air(7, [ReaderEar(n, (11.0 * n, 3.0 * n), 3.5) for n in range(1, 5)], walled=RING)
    assert air.mean_dbm(4.0, -9.0, 1.0, 0.5).tolist() == [
        -87.11954727276566,
        -96.29625159897141,
        -102.63760334296428,
        -99.84666919941665,
    ]
    assert air.pole_dbm(2)[2:].tolist() == [-51.097957874848646, -64.29635765175017]
