"""The air: independent of order, true to distance, and never better than the receiver."""

import math

import numpy as np
import pytest

from sim import chance
from sim.air.radio import Air, Channel, ReaderEar, rssi_of

EARS = [ReaderEar(n, (10.0 * n, 5.0 * n), 3.5) for n in range(1, 7)]
PLAIN = Channel(shadow_sigma_db=0, reader_sigma_db=0, reader_gain_db=0, body_min_db=0, body_max_db=0)


def test_what_a_reader_hears_does_not_depend_on_who_else_listens_or_who_asked_before() -> None:
    together, alone = Air(5, EARS), Air(5, [EARS[3]])
    for event in range(50):
        together.listen(9, event, together.mean_dbm(1.0, 2.0, 0.0))
    for event in reversed(range(50)):
        mean, mean_alone = together.mean_dbm(event, 2.0, 0.3), alone.mean_dbm(event, 2.0, 0.3)
        assert mean[3] == pytest.approx(mean_alone[0])
        dbm, read = together.listen(1, event, mean)
        dbm_alone, read_alone = alone.listen(1, event, mean_alone)
        assert dbm[3] == pytest.approx(dbm_alone[0])
        assert read[3] == read_alone[0]


def test_another_seed_is_another_air() -> None:
    assert not np.allclose(Air(1, EARS).mean_dbm(3, 4, 0), Air(2, EARS).mean_dbm(3, 4, 0))


def test_ten_times_the_distance_costs_ten_times_the_exponent() -> None:
    air = Air(1, [ReaderEar(1, (0.0, 0.0), 0.8)], PLAIN)
    assert air.mean_dbm(10, 0, 0)[0] - air.mean_dbm(100, 0, 0)[0] == pytest.approx(25.0)


def test_walking_towards_a_reader_hides_the_tag_behind_the_child() -> None:
    channel = Channel(shadow_sigma_db=0, reader_sigma_db=0)
    air = Air(1, [ReaderEar(1, (0.0, 0.0), 3.5)], channel)
    away, towards = air.mean_dbm(20, 0, 0.0)[0], air.mean_dbm(20, 0, math.pi)[0]
    assert away - towards == pytest.approx(channel.body_max_db - channel.body_min_db)


def test_a_wall_stands_between_the_street_and_the_yard_and_not_in_the_gate() -> None:
    yard = [(0.0, 0.0), (50.0, 0.0), (50.0, 50.0), (0.0, 50.0)]
    ears = [ReaderEar(1, (25.0, 25.0), 3.5), ReaderEar(2, (-20.0, 25.0), 3.5), ReaderEar(3, (0.5, 25.0), 3.5)]
    with_wall, without = Air(1, ears, walled=yard), Air(1, ears)
    street = without.mean_dbm(-10, 25, 0.0) - with_wall.mean_dbm(-10, 25, 0.0)
    inside = without.mean_dbm(10, 25, 0.0) - with_wall.mean_dbm(10, 25, 0.0)
    assert street == pytest.approx([6.0, 0.0, 0.0])
    assert inside == pytest.approx([0.0, 6.0, 0.0])


def test_a_stronger_tag_is_heard_exactly_so_much_stronger() -> None:
    air = Air(1, EARS)
    assert air.mean_dbm(7, 8, 0.1, 3.0) - air.mean_dbm(7, 8, 0.1) == pytest.approx(np.full(6, 3.0))


def test_fading_keeps_the_mean_power_and_shadowing_its_spread_everywhere() -> None:
    air = Air(3, [ReaderEar(n, (0.0, 0.0), 3.5) for n in range(1, 201)])
    dbm = np.concatenate([air.listen(1, event, np.zeros(200))[0] for event in range(200)])
    assert 10 * np.log10(np.mean(10 ** (dbm / 10))) == pytest.approx(0.0, abs=0.1)
    many = Air(3, [ReaderEar(n, (0.0, 0.0), 3.5) for n in range(1, 2001)], Channel(shadow_common=0.0))
    for x, y in ((0.0, 0.0), (6.0, 6.0), (3.0, 11.0)):
        assert np.std(many._shadow(x, y)) == pytest.approx(4.0, rel=0.06)


def test_shadowing_changes_slowly_over_a_step_and_wholly_over_a_street() -> None:
    air = Air(4, [ReaderEar(n, (0.0, 0.0), 3.5) for n in range(1, 1001)], Channel(shadow_common=0.0))
    here, step, street = air._shadow(5, 5), air._shadow(6, 5), air._shadow(65, 5)
    assert np.corrcoef(here, step)[0, 1] > 0.95
    assert abs(np.corrcoef(here, street)[0, 1]) < 0.15


def test_reception_has_an_edge_a_plateau_and_no_miracles() -> None:
    air = Air(1, [ReaderEar(1, (0.0, 0.0), 3.5)], Channel(rice_k_db=60.0))

    def share(dbm: float) -> float:
        return float(np.mean([air.listen(1, event, np.array([dbm]))[1][0] for event in range(3000)]))

    sensitivity = air.channel.sensitivity_dbm
    assert share(sensitivity - 12) == 0.0
    assert share(sensitivity) == pytest.approx(0.99 * (1 - air.channel.plateau_loss), abs=0.02)
    assert share(-50) == pytest.approx(1 - air.channel.plateau_loss, abs=0.02)
    air.noise_db = 25.0
    assert share(sensitivity + 10) == 0.0


def test_a_radio_reports_whole_numbers_in_its_range() -> None:
    assert rssi_of(-71.6) == -72
    assert rssi_of(-300) == -110
    assert rssi_of(300) == 20


def test_chance_is_even_and_its_streams_have_nothing_in_common() -> None:
    numbers = np.arange(20000)
    first, second = chance.uniform(1, "a", numbers), chance.uniform(1, "b", numbers)
    assert np.mean(first) == pytest.approx(0.5, abs=0.01)
    assert np.std(chance.normal(1, "c", numbers)) == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03
    assert chance.one(1, "x", 2) == chance.one(1, "x", 2) != chance.one(1, "x", 3)


def test_from_pole_to_pole_what_stands_between_is_the_same_both_ways() -> None:
    ears = [ReaderEar(n, (37.0 * n, 11.0 * (n % 3)), 3.5) for n in range(1, 41)]
    air = Air(7, ears, Channel(pole_sigma_db=0.0, reader_sigma_db=0.0))
    levels = np.array([air.pole_dbm(ear.number) for ear in ears])  # [sender, receiver]
    assert np.isneginf(np.diag(levels)).all()
    one, other = np.triu_indices(len(ears), 1)
    there, back = levels[one, other], levels[other, one]
    assert ((there - back) / math.sqrt(2)).std() == pytest.approx(1.5, rel=0.1)
    distance = np.array([math.dist(ears[i].at, ears[j].at) for i, j in zip(one, other, strict=True)])
    law = -30 + 2 - 22 * np.log10(distance)
    assert ((there + back) / 2 - law).std() == pytest.approx(math.sqrt(9 + 1.5**2 / 2), rel=0.1)


def test_a_weak_transmitter_is_weak_everywhere_and_a_deaf_receiver_for_everyone() -> None:
    still = Channel(pole_shadow_db=0.0, pole_asymmetry_db=0.0, pole_exponent=0.0)
    air = Air(8, EARS, still)
    levels = np.array([air.pole_dbm(ear.number) for ear in EARS])
    for i in (0, 1):
        assert levels[i, 3] - levels[i, 4] == pytest.approx(levels[2, 3] - levels[2, 4])  # the receivers'
        assert levels[i, 3] - levels[2, 3] == pytest.approx(levels[i, 4] - levels[2, 4])  # the senders'
    assert abs(levels[0, 3] - levels[0, 4]) > 0.1
    assert abs(levels[0, 3] - levels[2, 3]) > 0.1
