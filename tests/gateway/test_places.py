"""Near an edge for days: nobody is told to have left or arrived who did not; who really walks is told of in time."""

import numpy as np
import pytest

from tests.bench.presence import AIRS, DAY_S, DAYS, Air, delays_s, false_words


def test_thirty_days_inside_near_the_edge_and_never_left() -> None:
    """30 school days of 6 h, 3-8 m inside, a fix a second; the gateway starts anew every other night."""
    assert (DAYS, DAY_S) == (30, 6 * 3600)
    assert false_words(1, AIRS["honest"], -8.0, -3.0) == (0, 0), "seed 1"


@pytest.mark.parametrize("air", ["rough", "too_sure", "slow"])
def test_nor_when_the_engine_is_too_sure_or_its_errors_stay_longer(air: str) -> None:
    assert false_words(2, AIRS[air], -8.0, -3.0, days=8) == (0, 0), "seed 2"


def test_who_waits_outside_near_the_edge_for_days_has_not_arrived() -> None:
    for name in ("honest", "too_sure"):
        assert false_words(3, AIRS[name], 3.0, 8.0, days=12) == (0, 0), f"seed 3, {name}"


def test_errors_of_another_kind_than_the_belief_says_are_not_borne() -> None:
    """So these days can tell: 16 m that stay, and a belief of 4 m."""
    assert false_words(4, Air(slow_m=16.0, sure=4.0), -8.0, -3.0, days=2)[1] > 0


@pytest.mark.parametrize("air", sorted(AIRS))
def test_who_walks_away_is_told_to_have_left_within_a_minute(air: str) -> None:
    found = delays_s(5, AIRS[air], 300.0, walks=50)
    assert max(found) < 75, "seed 5"
    assert np.median(found) < 55
    assert np.median(delays_s(5, AIRS[air], 40.0, walks=50)) < 75, "to the bus stop"


@pytest.mark.parametrize("air", sorted(AIRS))
def test_who_walks_in_is_told_to_have_arrived_within_a_minute(air: str) -> None:
    found = delays_s(6, AIRS[air], -40.0, walks=50)
    assert max(found) < 60, "seed 6"
    assert np.median(found) < 35
    assert np.median(delays_s(6, AIRS[air], -15.0, walks=50)) < 60
