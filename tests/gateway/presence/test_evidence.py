"""The cell that a tag is in changes seldom and is often right; evidence takes any rate of calls, and NaN."""

import itertools
import math
import random

import pytest

from gateway.presence.evidence import GAP_S, Cells, Evidence, log_odds, probability

SIDE_M = 6.0


def walk(seed: int, seconds: int = 1200) -> list[tuple[int, list[float]]]:
    """(true zone, belief) per second: a child walks and rests in a corridor of five zones; errors of 2 m that drift."""
    rng, x_m, goal_m, error_m, found = random.Random(seed), 15.0, 15.0, 0.0, []
    for _ in range(seconds):
        if abs(goal_m - x_m) < 0.5 and rng.random() < 0.05:
            goal_m = rng.uniform(0, 5 * SIDE_M)
        x_m += max(-0.8, min(0.8, goal_m - x_m))
        error_m = 0.8 * error_m + rng.gauss(0, 2 * 0.6)
        ends = [0.5 * (1 + math.erf((n * SIDE_M - x_m - error_m) / 2 / math.sqrt(2))) for n in range(1, 5)]
        found.append((min(int(x_m / SIDE_M), 4), [b - a for a, b in zip([0.0, *ends], [*ends, 1.0], strict=True)]))
    return found


def changes(zones: list[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(zones))


def test_the_word_does_not_flap_and_is_right_as_often_as_the_likeliest_zone() -> None:
    ours = theirs = true = right = their_right = 0
    for seed in range(10):
        story, zones = walk(seed), Cells()
        said = [zones.step(mass, float(n)) or 0 for n, (_, mass) in enumerate(story)]
        likeliest = [max(range(5), key=mass.__getitem__) for _, mass in story]
        truth = [zone for zone, _ in story]
        ours, theirs, true = ours + changes(said), theirs + changes(likeliest), true + changes(truth)
        right += sum(a == b for a, b in zip(said, truth, strict=True))
        their_right += sum(a == b for a, b in zip(likeliest, truth, strict=True))
    assert ours <= 1.5 * true < theirs, f"seeds 0-9: {ours}, {theirs} of the likeliest, {true} true"
    assert right >= 0.99 * their_right, f"seeds 0-9: {right}, {their_right} of the likeliest"


def test_a_sure_move_is_followed_within_two_seconds_and_one_wild_second_is_not() -> None:
    zones = Cells()
    assert zones.step([0.1, 0.8, 0.1], 0.0) == 1
    assert [zones.step([0.9, 0.05, 0.05], float(n)) for n in (1, 2)][-1] == 0
    slow = Cells()
    slow.step([0.9, 0.1], 0.0)
    assert all(slow.step([0.45, 0.55], float(n)) == 0 for n in range(1, 600)), "a lead that small is none"


def test_a_partition_that_is_none_has_no_zone() -> None:
    zones = Cells()
    assert zones.step([], 0.0) is None
    assert zones.step([math.nan, 0.4], 1.0) == 1
    assert zones.step([1.0], 2.0) == 0, "the zone it was in is gone"


@pytest.mark.parametrize(("p", "said"), [(0.3, 0.3), (-1.0, 0.0), (7.0, 1.0), (math.inf, 1.0), (math.nan, None)])
def test_a_probability_is_within_bounds_or_none(p: float, said: float | None) -> None:
    assert probability(p) == said
    assert probability(None) is None
    assert abs(log_odds(said or 0.0)) < 4.6


def test_evidence_is_of_seconds_and_begins_anew_after_a_gap() -> None:
    evidence = Evidence(0.0)
    assert evidence.weigh(2.0, 3.0, 0.0) == 0.0, "no time, no evidence"
    assert evidence.weigh(2.0, 3.0, 1.0) == 2.0
    assert evidence.weigh(9.0, 3.0, 2.0) == 5.0, "at most 3 a second"
    assert evidence.weigh(3.0, 3.0, 12.0) == 14.0, "a fix stands for 3 s"
    assert evidence.weigh(-99.0, 3.0, 13.0) == 11.0
    assert evidence.weigh(3.0, 3.0, 5.0) == 11.0, "a clock that goes back adds nothing"
    assert evidence.weigh(1.0, 3.0, 6.0 + GAP_S) == 3.0
