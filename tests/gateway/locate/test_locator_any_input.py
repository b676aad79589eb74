"""Any readings, in any order and at any time, give a sound fix or none."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fix import Fix, Reading, too_far_apart, where_of
from gateway.locate.ground import Ground
from gateway.locate.tracker import EVIDENCE_MAX, WINDOW_S
from gateway.zone import Field
from tests.gateway.core.bed import zone
from tests.gateway.locate.bed_locator import Gateway

readings = st.builds(
    Reading,
    st.integers(0, 12),
    st.none() | st.integers(-128, 127),
    st.integers(0, 255),
    st.floats(-100, 200),
    st.integers(-128, 127),
)
_GROUND = Ground(zone())
_ONCE = Gateway(_GROUND).locator
_FIELD = Field(zone())


def sound(fix: Fix) -> None:
    assert all(map(math.isfinite, (fix.x_m, fix.y_m, fix.radius_50_m, fix.radius_90_m, fix.accuracy_95_m)))
    assert 0 <= fix.radius_50_m <= fix.radius_90_m <= fix.accuracy_95_m
    assert all(0 <= p <= 1 for p in (*fix.places.values(), *fix.dangers.values()))
    assert set(fix.places) == {"school"}
    assert set(fix.dangers) == {"river"}
    assert len(fix.evidence) <= EVIDENCE_MAX
    assert all(h.age_s >= 0 for h in fix.evidence)
    where_of(_FIELD, fix)
    too_far_apart(_FIELD, fix)


@given(st.lists(readings, max_size=20), st.floats(0, 150))
@settings(max_examples=150, deadline=None)
def test_any_readings_give_a_sound_fix_or_none(heard: list[Reading], now_s: float) -> None:
    fix = _ONCE.once(heard, now_s)
    usable = [r for r in heard if 1 <= r.reader <= 10 and r.heard_at_s >= now_s - WINDOW_S]
    assert fix is None or usable
    if fix is not None:
        sound(fix)


@given(st.lists(st.tuples(st.lists(st.tuples(st.integers(0, 3), readings), max_size=6), st.floats(0, 20)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_story_gives_sound_fixes(story: list[tuple[list[tuple[int, Reading]], float]]) -> None:
    """Levels that no radio reports, times in any order and from the future, unknown readers, gaps of any length."""
    gateway = Gateway(_GROUND)
    for heard, later_s in story:
        for tag, r in heard:
            at_s = gateway.now_s - 100.0 + min(r.heard_at_s, 130.0)
            gateway.locator.hear(tag, Reading(r.reader, r.rssi_dbm, r.packets, at_s, r.power_dbm), gateway.now_s)
        for fix, late in gateway.wait(later_s).values():
            sound(fix)
            if late is not None:
                sound(late)
    assert gateway.locator.followed() <= 4
