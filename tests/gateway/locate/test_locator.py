"""Fixes on streets whose truth is known: the radii hold what they promise, a tag without history is located too."""

import math

import numpy as np
import pytest

from gateway.fix import Reading
from gateway.locate.ground import Ground
from gateway.locate.tracker import LATE_EVERY, LOOK_BACK
from gateway.zone import Field, Route, Zone
from tests.gateway.core.bed import at, zone
from tests.gateway.locate.bed_locator import POWER_DBM, Air, Gateway, block, follow, loud, off_m, walk

ROUND = ((10.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 20.0))


def test_the_radii_hold_what_they_promise() -> None:
    """Twenty walks round the block: tags of another power, shadows that stay, bodies, a fifth of the readings lost."""
    gateway = Gateway(block())
    airs = [Air(gateway.ground, seed) for seed in range(20)]
    ways = [walk(*(ROUND if n % 2 else ROUND[::-1]), stand_s=15) for n in range(20)]
    fixes, late = [], []
    for walked in follow(gateway, airs, ways):
        fixes += [(off_m(xy_m, fix), fix) for xy_m, fix, _ in walked[5:]]
        late += [(off_m(walked[n - LOOK_BACK][0], fix), fix) for n, (_, _, fix) in enumerate(walked[8:], 8) if fix]
    print("walks", len(fixes), "fixes")
    assert len(fixes) > 4000
    assert len(late) == pytest.approx(len(fixes) / LATE_EVERY, rel=0.1)
    for found in (fixes, late):
        errors = np.array([error for error, _ in found])
        radii = np.array([(fix.radius_50_m, fix.radius_90_m, fix.accuracy_95_m) for _, fix in found])
        assert (radii > 0).all()
        assert (np.diff(radii, axis=1) >= 0).all()
        in_50, in_90, in_95 = (errors[:, None] <= radii).mean(axis=0)
        print(f"median {np.median(errors):.1f} m, held {in_50:.2f} {in_90:.2f} {in_95:.2f}")
        assert 0.4 <= in_50 <= 0.85
        assert in_90 >= 0.85
        assert in_95 >= 0.9
        assert np.median(errors) < 9


def test_a_smoothed_fix_is_dated_back_and_nearer_to_the_truth() -> None:
    gateway = Gateway(block())
    airs = [Air(gateway.ground, 100 + seed) for seed in range(16)]
    instant, smoothed = [], []
    for walked in follow(gateway, airs, [walk(*ROUND) for _ in airs]):
        for n, (_, fix, late) in enumerate(walked[8:], 8):
            if late is not None:
                assert late.lag_s == pytest.approx(LOOK_BACK, abs=0.2)
                assert late.fixed_at_s == pytest.approx(fix.fixed_at_s - late.lag_s)
                then, was, _ = walked[n - LOOK_BACK]
                instant.append(off_m(then, was))
                smoothed.append(off_m(then, late))
    assert np.mean(smoothed) < np.mean(instant)


def test_a_place_is_a_share_of_the_same_belief() -> None:
    """A tag that walks into the yard is believed in it, one that walks past is not. on_route is about its own route."""
    line = (at(0, 0), at(120, 0))
    routed = block()
    routed = Zone(routed.readers, routed.places, footpaths=routed.footpaths, routes=(Route("r", line, 25.0),))
    gateway = Gateway(routed, routes={0: 0})
    airs = [Air(gateway.ground, seed, calm=True) for seed in (1, 2)]
    into = walk((10.0, 0.0), (60.0, 0.0), (60.0, 45.0), stand_s=30)
    past = walk((120.0, 0.0), (120.0, 60.0), (60.0, 60.0), stand_s=30)
    inside, outside = follow(gateway, airs, (into, past))
    assert inside[-1][1].places["yard"] > 0.6
    assert max(fix.places["yard"] for _, fix, _ in outside[-20:]) < 0.3
    on = [fix.on_route or 0.0 for _, fix, _ in inside]
    assert min(on[5:35]) > 0.8
    assert on[-1] < 0.6, "35 m inside the yard is beyond the corridor"
    assert all(fix.on_route is None for _, fix, _ in outside)


def test_a_louder_tag_is_not_a_nearer_tag() -> None:
    """The tag's calibrated power is used, so 10 dB more at both ends gives the same place."""
    locator = Gateway(zone()).locator
    quiet = locator.once(loud((4, -75), (5, -70), power_dbm=-55), 1000.0)
    shout = locator.once(loud((4, -65), (5, -60), power_dbm=-45), 1000.0)
    assert quiet is not None
    assert shout is not None
    assert (quiet.x_m, quiet.y_m, quiet.radius_50_m) == pytest.approx((shout.x_m, shout.y_m, shout.radius_50_m))


def test_one_absurd_reading_among_good_ones_moves_little() -> None:
    gateway = Gateway(block())
    here = gateway.here(60.0, 0.0)
    good = Air(gateway.ground, 1, calm=True).hear(here, 0.0, 1000.0)
    clean = gateway.locator.once(good, 1000.0)
    bad = gateway.locator.once([Reading(2, 20, 1, 1000.0, POWER_DBM), *(r for r in good if r.reader != 2)], 1000.0)
    assert clean is not None
    assert bad is not None
    assert off_m((clean.x_m, clean.y_m), bad) < 15


def test_what_a_reader_hears_too_loud_is_taken_off() -> None:
    """Readers 3 and 4, 30 m apart, hear the same level. If 4 is known to hear 8 dB too loud, the tag is nearer to 3."""

    def x_m(offsets_db: dict[int, float]) -> float:
        gateway = Gateway(zone())
        gateway.locator.set_offsets(offsets_db)
        for _ in range(8):
            fixes = gateway.second({7: loud((2, -91), (3, -84), (4, -84), (5, -91), at_s=gateway.now_s)})
        return fixes[7][0].x_m

    middle = x_m({})
    third, fourth, _ = (Ground(zone()).readers[n][0] for n in (3, 4, 5))
    assert third + 5 < middle < fourth - 5
    assert x_m({4: 8.0, 5: 8.0}) < middle - 3
    assert x_m({2: 8.0, 3: 8.0}) > middle + 3
    assert x_m({77: 5.0, 4: math.nan, 3: math.inf}) == middle, "what is no figure of a reader of ours is nothing"


def test_a_tag_without_history_is_located_from_what_is_heard_now() -> None:
    gateway = Gateway(block())
    here = gateway.here(60.0, 0.0)
    fix = gateway.locator.once(Air(gateway.ground, 4, calm=True).hear(here, 0.0, 1000.0), 1000.0)
    assert fix is not None
    assert off_m(here, fix) < 20
    assert fix.on_route is None
    assert gateway.locator.followed() == 0, "nothing is kept of it"
    assert gateway.locator.once([], 1000.0) is None
    assert gateway.locator.once(loud((77, -50)), 1000.0) is None
    assert gateway.locator.once(loud((4, -50), at_s=1.0), 1000.0) is None


def test_one_reader_alone_is_somewhere_near_it() -> None:
    gateway = Gateway(zone())
    near, far = (gateway.locator.once(loud((4, rssi)), 1000.0) for rssi in (-65, -92))
    assert near is not None
    assert far is not None
    assert off_m(gateway.ground.readers[4][:2], near) < 15
    assert far.radius_50_m > near.radius_50_m > 1


def test_a_zone_without_readers_or_without_anything_has_a_locator() -> None:
    for empty in (Zone(readers=()), Zone(readers=(), places=zone().places)):
        gateway = Gateway(empty)
        assert Field(empty).readers == {}
        gateway.locator.hear(7, loud((1, -50))[0], 1000.0)
        assert gateway.wait(5.0) == {}
        assert gateway.locator.once(loud((1, -50)), 1000.0) is None
        gateway.locator.set_offsets({1: 3.0})
