"""When a danger notice is due: what is sure at once, what is likely within seconds, and more of a tag that is new."""

import math

import pytest

from gateway.fix import Fix
from gateway.presence import danger
from gateway.presence.danger import GAP_S, NEAR_ODDS, NEAR_PROOF, Near

AREAS = ("road", "river")


def fix(p: float, area: str = "road") -> Fix:
    return Fix(0.0, 0.0, 8.0, 20.0, (), 0.0, dangers={area: p})


def told_after(odds: list[float], *, heard_s: float = 60.0, step_s: float = 1.0) -> int | None:
    """Return after how many of these fixes a tag is near that was heard far away for heard_s before; None: never."""
    near: dict[str, Near] = {}
    now_s = 100.0
    while now_s < 100.0 + heard_s:
        assert list(danger.step(near, AREAS, 1, fix(0.0), now_s)) == []
        now_s += step_s
    for n, p in enumerate(odds, 1):
        if found := list(danger.step(near, AREAS, 1, fix(p), now_s)):
            assert [(change.near, change.area, change.probability) for change in found] == [(True, "road", p)]
            return n
        now_s += step_s
    return None


@pytest.mark.parametrize(
    ("p", "fixes"), [(0.99, 1), (0.93, 1), (0.8, 2), (0.67, 2), (0.45, 4), (0.3, 14), (0.24, None)]
)
def test_the_surer_the_sooner(p: float, fixes: int | None) -> None:
    assert told_after([p] * 600) == fixes


def test_who_is_new_must_be_surer_for_the_first_seconds_and_then_is_as_all_others() -> None:
    assert told_after([0.99], heard_s=0.0) == 1, "sure is sure"
    assert told_after([0.8] * 60, heard_s=0.0) == 4
    assert told_after([0.72, 0.6, 0.7, 0.3, 0.1, 0.0], heard_s=0.0) is None, "wrong by the same metres for seconds"
    assert told_after([0.72, 0.6, 0.7, 0.3, 0.1, 0.0]) == 2
    later = [told_after([0.7] * 60, heard_s=heard_s) for heard_s in (0.0, 5.0, 10.0, 15.0, GAP_S, 100.0)]
    assert later == sorted(later, reverse=True)
    assert later[-1] == later[-2] < later[0]
    assert told_after([0.35] * 60, heard_s=0.0) is not None, "likely for long enough is near, new or not"


def test_what_speaks_against_it_is_subtracted_and_a_silence_forgets_it() -> None:
    assert told_after([0.6, 0.02] * 50) is None
    near: dict[str, Near] = {}
    for n in range(60):
        list(danger.step(near, AREAS, 1, fix(0.0), float(n)))
    list(danger.step(near, AREAS, 1, fix(0.85), 60.0))
    assert near["road"].proof > 0.7 * NEAR_PROOF
    assert list(danger.step(near, AREAS, 1, fix(0.85), 60.0 + GAP_S + 1.0)) == [], "new again"
    assert near["road"].heard_since_s == 60.0 + GAP_S + 1.0


def test_the_pace_of_fixes_changes_nothing_but_the_steps() -> None:
    seconds = [told_after([0.5] * 400, step_s=step_s) for step_s in (0.25, 0.5, 1.0)]
    assert [None if n is None else math.ceil(n * s) for n, s in zip(seconds, (0.25, 0.5, 1.0), strict=True)] == [4] * 3


def test_areas_do_not_mix_and_a_second_approach_is_told_again() -> None:
    near: dict[str, Near] = {}
    found = []
    for n in range(200):
        p = 0.95 if n < 20 or n >= 120 else 0.0
        found += [(n, c.near) for c in danger.step(near, AREAS, 1, fix(p, "river"), float(n))]
    assert [is_near for _, is_near in found] == [True, False, True]
    assert found[2][0] in (120, 121), "it was heard all the time, so it is not new"
    assert not near["road"].alarmed


def test_a_clock_that_steps_back_and_odds_that_are_none_are_survived() -> None:
    near: dict[str, Near] = {}
    for now_s in (1000.0, 1001.0, 10.0, 11.0, 12.0, 13.0):
        assert list(danger.step(near, ("road",), 1, fix(math.nan), now_s)) == []
        assert list(danger.step(near, ("river",), 1, fix(0.5, "river"), now_s)) == []
    assert "road" not in near
    assert near["river"].heard_since_s == 10.0
    assert 0.0 <= near["river"].proof <= 4 * (-NEAR_ODDS)
