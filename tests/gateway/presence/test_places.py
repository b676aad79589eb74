"""Days near an edge: no false "left" and no false arrival is reported; a child who really walks is reported in time."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from gateway.events import Heard
from gateway.fix import Fix
from gateway.presence.changes import Arrived, Left
from gateway.presence.settle import Settler
from tests.bench.presence import AIRS, DAY_S, DAYS, PLANE, ZONE, Air, delays_s, false_words


def test_thirty_days_inside_near_the_edge_and_never_left() -> None:
    """30 school days of 6 h, 3-8 m inside, a fix a second; the gateway restarts every other night."""
    assert (DAYS, DAY_S) == (30, 6 * 3600)
    assert false_words(1, AIRS["honest"], -8.0, -3.0) == (0, 0), "seed 1"


@pytest.mark.parametrize("air", ["rough", "too_sure", "slow"])
def test_nor_when_the_engine_is_too_sure_or_its_errors_stay_longer(air: str) -> None:
    assert false_words(2, AIRS[air], -8.0, -3.0, days=8) == (0, 0), "seed 2"


def test_who_waits_outside_near_the_edge_for_days_has_not_arrived() -> None:
    for name in ("honest", "too_sure"):
        assert false_words(3, AIRS[name], 3.0, 8.0, days=12) == (0, 0), f"seed 3, {name}"


def test_errors_of_another_kind_than_the_belief_says_are_not_borne() -> None:
    """Shows that the days above can fail: lasting errors of 16 m, and a belief of 4 m."""
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


def fix(depth_m: float, p: float, accuracy_95_m: float, rssi_dbm: int = -70) -> Fix:
    """A fix at this depth inside the school's eastern side."""
    return Fix(
        -depth_m, 0.0, accuracy_95_m / 2, accuracy_95_m, (Heard(1, rssi_dbm, 1, 0.0),), 0.0, places={"school": p}
    )


def left_after_s(way_m: Iterator[tuple[float, float]], p: float = 0.01, accuracy_95_m: float = 20.0) -> float:
    """Return when "left" is reported for a child who was inside for a while and then walks this way, surely outside."""
    settler = Settler(ZONE, PLANE, {})
    settler.restore(0, "at", "school", 0.0)
    for n in range(30):
        assert list(settler.step(0, fix(10.0, 0.99, 20.0), None, float(n))) == []
    for n, (x_m, y_m) in enumerate(way_m, 1):
        one = replace(fix(-x_m, p, accuracy_95_m), y_m=y_m)
        if any(isinstance(change, Left) for change in settler.step(0, one, None, 30.0 + n)):
            return n
    return float("inf")


def along(pace_m_s: float, seconds: int = 600, most_m: float = 1e9) -> Iterator[tuple[float, float]]:
    """A way next to the wall, 4 m outside."""
    return ((4.0, min(pace_m_s * n, most_m)) for n in range(seconds))


def test_who_leaves_by_the_street_along_the_wall_is_told_of_and_who_stands_there_is_not() -> None:
    assert 50 < left_after_s(along(1.2)) < 90
    assert left_after_s(along(0.0)) == math.inf, "a fix that was shifted over the wall"
    assert left_after_s(along(1.2, most_m=30.0)) == math.inf, "and one that wanders there"
    assert left_after_s(along(1.2), p=0.2) == math.inf, "who may as well be inside"
    assert left_after_s(along(1.2), accuracy_95_m=48.0) > 1.3 * left_after_s(along(1.2)), "vague fixes must go farther"


def told_after_s(settler: Settler, one: Fix, seconds: int, start_s: int = 0) -> float:
    """Give the same fix each second; return when the arrival is reported, inf if never."""
    for n in range(1, seconds + 1):
        if any(isinstance(change, Arrived) for change in settler.step(0, one, None, float(start_s + n))):
            return n
    return float("inf")


@pytest.mark.parametrize(
    ("depth_m", "p", "accuracy_95_m", "within_s"),
    [
        (18, 0.99, 20.0, 15),
        (24, 0.99, 60.0, 15),  # a yard is only so deep, and the belief is sure
        (24, 0.99, 90.0, 150),
        (36, 0.99, 200.0, 15),
        (36, 0.99, float("nan"), 15),
        (18, 0.99, 48.0, 80),
        (18, 0.85, 20.0, math.inf),  # such fixes speak against it
        (9, 0.99, 20.0, math.inf),
        (24, 0.99, float("nan"), 150),  # NaN counts as vague
    ],
)
def test_the_depth_asked_for_is_half_the_fixs_accuracy_within_bounds(
    depth_m: float, p: float, accuracy_95_m: float, within_s: float
) -> None:
    found = told_after_s(Settler(ZONE, PLANE, {}), fix(depth_m, p, accuracy_95_m), 300)
    if within_s == math.inf:
        assert found == math.inf
    else:
        assert within_s / 3 < found <= within_s


def waited(seconds: int = 250) -> Settler:
    """A gateway that saw a tag next to the school for this long."""
    settler = Settler(ZONE, PLANE, {})
    assert told_after_s(settler, fix(-5.0, 0.3, 20.0), seconds) == math.inf
    return settler


def test_who_waited_beside_a_place_is_told_of_when_it_goes_in_and_is_surely_there() -> None:
    deep = fix(32.0, 0.99, 50.0)
    assert told_after_s(waited(), deep, 60, 250) <= 30
    assert told_after_s(waited(100), deep, 60, 100) < told_after_s(waited(), deep, 60, 250), "later it takes longer"


@pytest.mark.parametrize("vain", [fix(32.0, 0.94, 50.0), fix(32.0, 0.99, 50.0, -86), fix(16.0, 0.99, 20.0)])
def test_but_not_by_fixes_that_are_unsure_or_rest_on_faint_readings_or_lie_near_the_edge(vain: Fix) -> None:
    assert told_after_s(waited(), vain, 300, 250) == math.inf


def test_who_is_believed_far_off_for_some_minutes_has_not_gone_and_come_anew() -> None:
    unsure = fix(32.0, 0.94, 50.0)
    settler = waited()
    assert told_after_s(settler, fix(-80.0, 0.0, 30.0), 600, 250) == math.inf
    assert told_after_s(settler, unsure, 200, 850) == math.inf, "still one who waits there"
    settler = waited()
    assert told_after_s(settler, fix(-80.0, 0.0, 30.0), 1000, 250) == math.inf
    assert told_after_s(settler, unsure, 200, 1250) < 60, "so long away: it comes anew"
