"""Fixes on streets whose truth is known: errors within what is claimed, strange input harmless, cost small."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.locate import Field, Reading, beside, probability, torn, where
from gateway.locate.field import STEP_M, Region, cell_of
from gateway.locate.grid import READERS_MAX, WINDOW_S, GridLocator
from gateway.zone import Place, Reader, Zone, distance_to_polygon_m
from tests.gateway.corebed import at, box, zone

WIDE = (-500.0, -500.0, 500.0, 500.0)


def level_dbm(distance_m: float, power_dbm: float, rng: random.Random | None, *, body_db: float = 7.0) -> int:
    spread = rng.gauss(0, 4.5) if rng else 0.0
    return round(power_dbm - 25 * math.log10(max(distance_m, 1.0)) - body_db + spread)


def hear(field: Field, x_m: float, y_m: float, now_s: float, rng: random.Random | None, face: float) -> list[Reading]:
    readings = []
    offset_db = rng.gauss(0, 2) if rng else 0.0
    for number, (x, y, height) in field.readers.items():
        distance = math.dist((x, y, height), (x_m, y_m, 1.0))
        turned = math.cos(math.atan2(y - y_m, x - x_m) - face)
        rssi = level_dbm(distance, -50, rng, body_db=7 + 5 * turned + offset_db)
        if rssi > -95:
            readings.append(Reading(number, rssi, 2, now_s - (rng.random() * 2 if rng else 0), -50))
    return readings


def block() -> Zone:
    """Poles every 30 m along four streets round a block."""
    spots = [(x, y) for x in range(0, 121, 30) for y in (0, 60)] + [(0, 30), (120, 30)]
    return Zone(
        readers=tuple(
            Reader(number=n, eui64=f"{n:016x}", lon=at(*spot)[0], lat=at(*spot)[1])
            for n, spot in enumerate(spots, start=1)
        ),
        places=(Place(id="yard", kind="playground", polygon=box(30, 10, 90, 50)),),
    )


def test_the_radii_hold_what_they_promise() -> None:
    """2000 places, shadowing 4.5 dB, tags off by 2 dB, bodies: generous, never wrong, and not useless."""
    rng, field = random.Random(1), Field(block())
    locator = GridLocator(field, Counter())
    in_50 = in_95 = fixes = 0
    errors = []
    for n in range(2000):
        x_m, y_m = rng.uniform(-10, 130), rng.uniform(-10, 70)
        dx, dy = field.plane.to_xy_m(*at(x_m, y_m))
        fix = locator.once(hear(field, dx, dy, 50.0 + n, rng, rng.random() * 6.3), 50.0 + n)
        if fix is None:
            continue
        fixes += 1
        error = math.dist((fix.x_m, fix.y_m), (dx, dy))
        errors.append(error)
        in_50 += error <= fix.radius_50_m
        in_95 += error <= fix.accuracy_95_m
        assert fix.radius_50_m <= fix.accuracy_95_m
    assert fixes > 1900
    assert 0.5 <= in_50 / fixes <= 0.85
    assert in_95 / fixes >= 0.95
    assert sorted(errors)[fixes // 2] < 16


def test_probability_is_calibrated_enough_for_a_yard() -> None:
    """Of all moments with a belief of about p, about p are inside."""
    rng, field = random.Random(2), Field(block())
    locator, yard = GridLocator(field, Counter()), field.places["yard"]
    bins: dict[int, list[bool]] = {}
    for n in range(3000):
        x_m, y_m = rng.uniform(-30, 150), rng.uniform(-30, 90)
        dx, dy = field.plane.to_xy_m(*at(x_m, y_m))
        fix = locator.once(hear(field, dx, dy, 50.0 + n, rng, rng.random() * 6.3), 50.0 + n)
        if fix is not None:
            bins.setdefault(int(probability(fix, yard) * 5), []).append(30 <= x_m <= 90 and 10 <= y_m <= 50)
    shares = {k: sum(v) / len(v) for k, v in bins.items() if len(v) > 50}
    assert shares[0] < 0.1
    assert shares[max(shares)] > 0.6
    assert [shares[k] for k in sorted(shares)] == sorted(shares.values())


def test_one_reader_alone_is_a_ring_round_it() -> None:
    field = Field(zone())
    fix = GridLocator(field, Counter()).once([Reading(4, -75, 3, 10.0, -50)], 10.0)
    assert fix is not None
    x, y, _ = field.readers[4]
    assert math.dist((fix.x_m, fix.y_m), (x, y)) < STEP_M
    assert fix.accuracy_95_m > 15
    far = GridLocator(field, Counter()).once([Reading(4, -92, 3, 10.0, -50)], 10.0)
    assert far is not None
    assert far.radius_50_m > fix.radius_50_m


def test_a_louder_tag_is_not_a_nearer_tag() -> None:
    """The tag's own calibrated power is used, so 10 dB more at both ends is the same place."""
    field = Field(zone())
    locator = GridLocator(field, Counter())
    quiet = locator.once([Reading(4, -75, 3, 10.0, -55), Reading(5, -70, 3, 10.0, -55)], 10.0)
    loud = locator.once([Reading(4, -65, 3, 10.0, -45), Reading(5, -60, 3, 10.0, -45)], 10.0)
    assert quiet is not None
    assert loud is not None
    assert (quiet.x_m, quiet.y_m, quiet.radius_50_m) == (loud.x_m, loud.y_m, loud.radius_50_m)


def test_one_absurd_reading_among_good_ones_moves_little() -> None:
    field = Field(block())
    locator = GridLocator(field, Counter())
    x_m, y_m = field.plane.to_xy_m(*at(60, 30))
    good = hear(field, x_m, y_m, 10.0, None, 0.0)
    clean = locator.once(good, 10.0)
    bad = locator.once([*good[1:], Reading(good[0].reader, 20, 1, 10.0, -50)], 10.0)
    assert clean is not None
    assert bad is not None
    assert math.dist((clean.x_m, clean.y_m), (bad.x_m, bad.y_m)) < 15


def test_old_readings_are_forgotten_and_newer_ones_replace_their_readers() -> None:
    field = Field(zone())
    locator = GridLocator(field, Counter())
    assert locator.step(7, [Reading(4, -60, 3, 10.0, -50)], 10.0) is not None
    fix = locator.step(7, [Reading(5, -60, 3, 12.0, -50)], 12.0)
    assert fix is not None
    assert {h.reader for h in fix.evidence} == {4, 5}
    fix = locator.step(7, [Reading(5, -90, 3, 11.0, -50)], 12.5)
    assert fix is not None
    assert [h.rssi_dbm for h in fix.evidence if h.reader == 5] == [-60], "told late: the newer one stands"
    fix = locator.step(7, [], 10.1 + WINDOW_S)
    assert fix is not None
    assert {h.reader for h in fix.evidence} == {5}
    assert locator.step(7, [], 12.1 + WINDOW_S) is None
    assert locator.latest(7) is fix, "the last word stays"


readings = st.builds(
    Reading,
    st.integers(0, 12),
    st.none() | st.integers(-128, 127),
    st.integers(0, 255),
    st.floats(-100, 200),
    st.integers(-128, 127),
)


@given(st.lists(readings, max_size=20), st.floats(0, 150))
@settings(max_examples=300, deadline=None)
def test_any_reading_gives_a_finite_fix_or_none(heard: list[Reading], now_s: float) -> None:
    field = Field(zone())
    fix = _LOCATOR.once(heard, now_s)
    usable = [r for r in heard if r.reader in field.readers and r.heard_at_s >= now_s - WINDOW_S]
    assert (fix is None) == (not usable)
    if fix is not None:
        numbers = (fix.x_m, fix.y_m, fix.radius_50_m, fix.accuracy_95_m, float(fix.mass.sum()))
        assert all(map(math.isfinite, numbers))
        assert fix.mass.sum() == pytest.approx(1)
        assert fix.mass.min() >= 0
        assert len(fix.evidence) <= READERS_MAX
        assert all(h.age_s >= 0 for h in fix.evidence)
        where(field, fix)
        torn(field, fix)
        for region in (*field.places.values(), *field.dangers.values()):
            assert 0 <= probability(fix, region) <= 1


_LOCATOR = GridLocator(Field(zone()), Counter())


@pytest.mark.parametrize(
    ("ring", "margin_m"),
    [
        ([(0.0, 0.0), (60.0, 0.0), (60.0, 40.0), (0.0, 40.0)], 0.0),
        ([(0.0, 0.0), (60.0, 0.0), (60.0, 40.0), (0.0, 40.0)], 12.0),
        ([(0.0, 0.0), (80.0, 10.0), (20.0, 20.0), (10.0, 70.0)], 7.0),
        ([(5.0, 5.0), (5.0, 5.0), (40.0, 5.0), (5.0, 40.0)], 3.0),
        ([(1.0, 1.0), (4.0, 1.0), (4.0, 4.0)], 0.0),
    ],
)
def test_a_region_covers_what_its_polygon_does(ring: list[tuple[float, float]], margin_m: float) -> None:
    region = Region(ring, margin_m, WIDE)
    rng = random.Random(5)
    mass = np.zeros((60, 60))
    truth = 0
    for _ in range(6000):
        x, y = rng.uniform(-100, 195), rng.uniform(-100, 195)
        column, row = cell_of(x, y)
        mass[column + 20, row + 20] += 1
        truth += distance_to_polygon_m(x, y, ring) <= margin_m
    assert region.share(mass / 6000, (-20, -20)) == pytest.approx(truth / 6000, abs=0.012)
    assert region.share(mass / 6000, (500, 500)) == 0.0


def test_an_area_beyond_every_reader_is_never_likely() -> None:
    region = Region([(9000.0, 9000.0), (9100.0, 9000.0), (9000.0, 9100.0)], 50.0, WIDE)
    assert region.share(np.ones((25, 25)) / 625, cell_of(9000, 9000)) == 0.0


def test_the_first_word_is_at_its_reader_and_never_fails() -> None:
    field = Field(zone())
    near, far, mute = (beside(field, Reading(4, rssi, 1, 9.0, -50), 10.0) for rssi in (-55, -95, None))
    for fix in (near, far, mute):
        assert fix is not None
        assert (fix.x_m, fix.y_m) == field.readers[4][:2]
    assert near is not None
    assert far is not None
    assert near.radius_50_m < far.radius_50_m <= 60
    assert where(field, near).evidence[0].age_s == 1.0
    assert beside(field, Reading(77, -60, 1, 9.0, -50), 10.0) is None


def test_a_tag_loud_at_both_ends_of_a_long_street_is_two_tags() -> None:
    field = Field(zone())
    locator = GridLocator(field, Counter())
    both = locator.once([Reading(1, -60, 1, 9.0, -50), Reading(10, -62, 1, 9.0, -50)], 10.0)
    near = locator.once([Reading(1, -60, 1, 9.0, -50), Reading(3, -62, 1, 9.0, -50)], 10.0)
    weak = locator.once([Reading(1, -60, 1, 9.0, -50), Reading(10, -90, 1, 9.0, -50)], 10.0)
    assert both is not None
    assert near is not None
    assert weak is not None
    assert torn(field, both) == (1, 10)
    assert torn(field, near) is None
    assert torn(field, weak) is None


def test_a_zone_without_readers_or_without_anything_has_a_field() -> None:
    assert Field(Zone(readers=())).readers == {}
    assert Field(Zone(readers=(), places=zone().places)).places
