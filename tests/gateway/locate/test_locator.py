"""Fixes on streets whose truth is known: radii hold what they claim, strange input is harmless, memory is bounded."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fix import Fix, Reading, fix_at_reader, too_far_apart, where_of
from gateway.locate import sectors, tracker
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.locate.tracker import BATCH, EVIDENCE_MAX, LATE_EVERY, LOOK_BACK, QUIET_S, WINDOW_S
from gateway.recording import RecordedSite, Survey
from gateway.zone import Field, Footpath, Place, Reader, Route, Zone
from tests.gateway.core.bed import at, box, zone

POWER_DBM, FLOOR_DBM = -50, -95
OWN_DB, SHADOW_DB, FAST_DB = 2.5, 5.0, 4.0
"""Spread of tags, of what a place does to a reader's level, and of packets."""
XY = tuple[float, float]


def street_zone(spots: Sequence[XY], lines: Sequence[Sequence[XY]], **more: object) -> Zone:
    readers = tuple(
        Reader(number=n, eui64=f"{n:016x}", lon=at(*spot)[0], lat=at(*spot)[1]) for n, spot in enumerate(spots, 1)
    )
    return Zone(readers, footpaths=tuple(Footpath(tuple(at(*xy) for xy in line)) for line in lines), **more)  # type: ignore[arg-type]


def block() -> Zone:
    """Poles every 30 m along the streets round a block of houses with a yard in it, whose gate is in the south."""
    spots = [(x, y) for x in range(0, 121, 30) for y in (-2.0, 62.0)] + [(-2.0, 30.0), (122.0, 30.0)]
    ring = [(0.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 0.0)]
    yard = Place(id="yard", kind="playground", polygon=box(30, 10, 90, 50))
    return street_zone(spots, [ring, [(60.0, 0.0), (60.0, 14.0)]], places=(yard,))


def town(columns: int = 10, rows: int = 10) -> Zone:
    """A reader at every crossing of streets 30 m apart in x and 40 m in y."""
    spots = [(30.0 * i, 40.0 * j - 2.0) for j in range(rows) for i in range(columns)]
    along = [[(-20.0, 40.0 * j), (30.0 * columns, 40.0 * j)] for j in range(rows)]
    across = [[(30.0 * i, 0.0), (30.0 * i, 40.0 * (rows - 1))] for i in range(columns)]
    return street_zone(spots, along + across)


class Air:
    """One tag's radio: a law, a body, shadows that stay for some seconds, fast fading, its own power."""

    def __init__(self, ground: Ground, seed: int, *, calm: bool = False) -> None:
        self.rng = random.Random(seed)
        self.readers, self.calm = ground.readers, calm
        self.own_db = 0.0 if calm else self.rng.gauss(0, OWN_DB)
        self.shadow = {n: self._gauss(SHADOW_DB) for n in ground.readers}

    def _gauss(self, sd_db: float) -> float:
        return 0.0 if self.calm else self.rng.gauss(0, sd_db)

    def hear(self, xy_m: XY, facing: float, now_s: float) -> list[Reading]:
        heard = []
        for n, (x, y, height) in self.readers.items():
            self.shadow[n] = 0.85 * self.shadow[n] + self._gauss(SHADOW_DB * math.sqrt(1 - 0.85**2))
            to_m = math.hypot(math.dist((x, y), xy_m), height - 1.0)
            behind = -math.cos(math.atan2(y - xy_m[1], x - xy_m[0]) - facing)
            level = POWER_DBM - 8 + 5 * behind - 25 * math.log10(max(to_m, 1.0)) + self.own_db + self.shadow[n]
            level += self._gauss(FAST_DB)
            if level > FLOOR_DBM and (self.calm or self.rng.random() < 0.8):
                heard.append(Reading(n, round(level), 2, now_s - 0.3, POWER_DBM))
        return heard


def walk(*way: XY, pace_mps: float = 1.3, stand_s: int = 0) -> Iterator[tuple[XY, float]]:
    """A place and a facing each second, and at the end a stand."""
    facing, at_m, over_m = 0.0, way[0], 0.0
    for (x1, y1), (x2, y2) in itertools.pairwise(way):
        length, facing = math.dist((x1, y1), (x2, y2)), math.atan2(y2 - y1, x2 - x1)
        while over_m < length:
            at_m = (x1 + (x2 - x1) * over_m / length, y1 + (y2 - y1) * over_m / length)
            yield at_m, facing
            over_m += pace_mps
        over_m -= length
    for _ in range(stand_s):
        yield at_m, facing


class Gateway:
    """A locator and its clock; a second is worked off at each deadline, as the pipeline does."""

    def __init__(self, ground: Zone | Ground, *, routes: dict[int, int] | None = None) -> None:
        self.ground = Ground(ground) if isinstance(ground, Zone) else ground
        self.counts, self.now_s = Counter[str](), 1000.0
        self.locator = ZoneLocator(self.ground, self.counts, routes=routes)
        self.shift = self.ground.plane.to_xy_m(*at(0.0, 0.0))
        self.steps = 0

    def here(self, x_m: float, y_m: float) -> XY:
        """A place of the test's own metres on the ground's plane."""
        return x_m + self.shift[0], y_m + self.shift[1]

    def second(self, heard: dict[int, list[Reading]]) -> dict[int, tuple[Fix, Fix | None]]:
        for tag, readings in heard.items():
            for reading in readings:
                self.locator.hear(tag, reading, self.now_s)
        return self.wait(1.0)

    def wait(self, seconds: float) -> dict[int, tuple[Fix, Fix | None]]:
        fixes: dict[int, tuple[Fix, Fix | None]] = {}
        until_s = self.now_s + seconds
        while (due_s := self.locator.deadline_s()) < until_s:
            self.now_s = max(self.now_s, due_s)
            for tag, fix, late in self.locator.step(self.now_s, lambda _: False):
                assert tag not in fixes or fix.fixed_at_s > fixes[tag][0].fixed_at_s + 0.5, "one fix a second"
                fixes[tag] = fix, late
            self.steps += 1
            assert self.locator.deadline_s() > self.now_s, "a deadline that does not pass is a busy loop"
        self.now_s = until_s
        return fixes


Walked = list[tuple[XY, Fix, Fix | None]]


def follow(gateway: Gateway, airs: Sequence[Air], ways: Sequence[Iterator[tuple[XY, float]]]) -> list[Walked]:
    """Walk tags 0, 1, .. their ways at once; return (truth, fix, smoothed fix) second by second, of each."""
    found: list[Walked] = [[] for _ in ways]
    for spots in itertools.zip_longest(*ways):
        here = {tag: (gateway.here(*spot[0]), spot[1]) for tag, spot in enumerate(spots) if spot is not None}
        fixes = gateway.second({tag: airs[tag].hear(*spot, gateway.now_s) for tag, spot in here.items()})
        for tag, (xy_m, _) in here.items():
            if tag in fixes:
                found[tag].append((xy_m, *fixes[tag]))
    return found


def off_m(xy_m: XY, fix: Fix) -> float:
    return math.dist(xy_m, (fix.x_m, fix.y_m))


def loud(*levels: tuple[int, int | None], power_dbm: int = POWER_DBM, at_s: float = 1000.0) -> list[Reading]:
    return [Reading(reader, rssi_dbm, 3, at_s, power_dbm) for reader, rssi_dbm in levels]


ROUND = ((10.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 20.0))


# ---- what is promised ------------------------------------------------------------------------------------------------


def test_the_radii_hold_what_they_promise() -> None:
    """Twenty walks round the block: tags that send otherwise, shadows that stay, bodies, a fifth of it lost."""
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
    """Who walks into the yard is believed in it, who walks past it is not; on_route follows the tag's own route."""
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
    assert on[-1] < 0.5, "35 m inside the yard is beyond the corridor"
    assert all(fix.on_route is None for _, fix, _ in outside)


def test_a_louder_tag_is_not_a_nearer_tag() -> None:
    """The tag's own calibrated power is used, so 10 dB more at both ends is the same place."""
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
    """Readers 3 and 4, 30 m apart, hear alike; once 4 is known to hear 8 dB too loud, the tag is nearer to 3."""

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


@pytest.mark.parametrize("level_dbm", [math.nan, math.inf, 1e200])
def test_a_walk_test_that_cannot_be_fitted_keeps_no_gateway_from_locating(level_dbm: float) -> None:
    ground, counts = Ground(zone()), Counter[str]()
    readers = np.array(list(ground.readers.values()))
    site = RecordedSite("zone", (-200.0, -50.0, 200.0, 50.0), tuple(str(number) for number in ground.readers), readers)
    rows = 200
    survey = Survey(
        readers[np.arange(rows) % len(readers), :2] + 1.0, np.full(rows, np.nan), np.arange(rows) % len(readers),
        np.full(rows, level_dbm), np.ones(rows),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        locator = ZoneLocator(ground, counts, survey=(site, survey))
    assert counts["walk_tests_unusable"] == len(ground.sectors)
    locator.hear(1, Reading(3, -60, 2, 10.0, -50), 10.5)
    [(tag, fix, _)] = list(locator.step(11.0, lambda _: False))
    assert tag == 1
    assert math.dist((fix.x_m, fix.y_m), ground.readers[3][:2]) < 60


def test_a_walk_test_of_one_tag_serves_tags_of_another_power() -> None:
    """The survey's levels are less the power of the tag that walked; readers' offsets are in them already."""
    ground = Ground(block())
    rng = np.random.default_rng(11)
    spots = np.array([xy for (xy, _) in walk((0.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 0.0))])
    spots = spots + ground.plane.to_xy_m(*at(0.0, 0.0))
    readers_m = np.array(list(ground.readers.values()))
    row, reader = np.indices((len(spots), len(readers_m))).reshape(2, -1)
    far_m = np.hypot(np.hypot(*(spots[row] - readers_m[reader, :2]).T), readers_m[reader, 2] - 1.0)
    levels = POWER_DBM - 12 - 25 * np.log10(far_m) + rng.normal(0, 2, len(far_m))
    bounds_m = (-150.0, -150.0, 150.0, 150.0)
    names = tuple(str(number) for number in ground.readers)
    survey = Survey(spots[row], np.full(len(row), np.nan), reader, levels, np.ones(len(row)))

    def located(power_dbm: int, *, quieter_db: int = 0, said_dbm: float | None = POWER_DBM) -> Fix:
        site = RecordedSite("block", bounds_m, names, readers_m, worn="rig", tag_power_dbm=said_dbm)
        locator = ZoneLocator(ground, Counter(), survey=(site, survey))
        locator.set_offsets({1: 20.0})
        for second in range(5):
            for number, (x, y, z) in ground.readers.items():
                level = POWER_DBM - 12 - 25 * math.log10(math.hypot(math.dist((x, y), here), z - 1.0))
                if level > FLOOR_DBM:
                    heard = Reading(number, round(level) - quieter_db, 3, float(second), power_dbm)
                    locator.hear(7, heard, float(second))
            [(_, fix, _)] = locator.step(float(second), lambda _: False)
        return fix

    here = ground.plane.to_xy_m(*at(72.0, 0.0))

    same, quiet = located(POWER_DBM), located(POWER_DBM - 10, quieter_db=10)
    assert off_m((quiet.x_m, quiet.y_m), same) < 1, "only the floor of hearing is nearer"
    assert off_m(here, same) < 6
    assert off_m(here, located(POWER_DBM, said_dbm=POWER_DBM - 12.0)) > 6, "what the site says of the tag counts"


# ---- tags come and go ------------------------------------------------------------------------------------------------


def test_a_tag_that_goes_quiet_is_forgotten_and_its_last_word_stays() -> None:
    gateway = Gateway(zone())
    for reading in loud((4, -60), (5, -72)):
        gateway.locator.hear(7, reading, 1000.0)
    [(fix, late)] = gateway.wait(1.0).values()
    assert late is None
    assert {h.reader for h in fix.evidence} == {4, 5}
    assert gateway.locator.latest(7) is fix
    assert [h.rssi_dbm for h in fix.evidence] == [-60, -72], "the loudest first"
    later = gateway.wait(WINDOW_S + 1)
    assert later[7][0].fixed_at_s <= 1000.0 + WINDOW_S, "nothing heard within the window: no fix"
    last = gateway.locator.latest(7)
    assert gateway.locator.followed() == 1, "a belief is kept a while longer"
    assert gateway.wait(QUIET_S) == {}
    assert gateway.locator.followed() == 0
    assert gateway.locator.deadline_s() == math.inf, "nobody to follow: no work"
    assert gateway.locator.latest(7) is last
    assert gateway.locator.latest(8) is None


def test_a_tag_that_comes_back_elsewhere_is_there() -> None:
    gateway = Gateway(zone())
    for number in (3, 8):
        for _ in range(8):
            levels = ((number - 1, -85), (number, -66), (number + 1, -85))
            fixes = gateway.second({7: loud(*levels, at_s=gateway.now_s)})
        assert off_m(gateway.ground.readers[number][:2], fixes[7][0]) < 15
        gateway.wait(QUIET_S + 10)


def test_a_reading_told_late_or_of_nobody_counts_for_nothing() -> None:
    gateway = Gateway(zone())
    gateway.locator.hear(7, loud((77, -50))[0], 1000.0)
    gateway.locator.hear(7, loud((4, -50), at_s=1000.0 - WINDOW_S - 0.1)[0], 1000.0)
    assert gateway.wait(2.0) == {}
    assert (gateway.counts["readings_unknown_reader"], gateway.counts["readings_too_old"]) == (1, 1)
    gateway.locator.hear(7, loud((5, -60), at_s=1002.0)[0], 1002.0)
    gateway.locator.hear(7, loud((5, -90), at_s=1001.0)[0], 1002.0)
    [(fix, _)] = gateway.wait(1.0).values()
    assert [h.rssi_dbm for h in fix.evidence] == [-60], "the newer one stands"


def test_more_tags_than_fit_are_counted_and_cost_nobody_else_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "TAGS_MAX", 40)
    gateway = Gateway(zone())
    fixes = gateway.second({tag: loud((4, -60), at_s=gateway.now_s) for tag in range(60)})
    assert set(fixes) == set(range(40))
    assert gateway.locator.followed() == 40
    assert gateway.counts["readings_too_many_tags"] == 20


def test_four_hundred_tags_have_their_fix_each_second_one_batch_a_step() -> None:
    gateway = Gateway(zone())
    rng = random.Random(5)
    for second in range(3):
        heard = {
            tag: loud(*((n, rng.randint(-90, -60)) for n in rng.sample(range(1, 11), 3)), at_s=gateway.now_s)
            for tag in range(400)
        }
        before = gateway.steps
        fixes = gateway.second(heard)
        assert set(fixes) == set(range(400))
        assert gateway.steps - before >= 400 // BATCH, "no step is more than a batch"
        assert gateway.counts["fixes"] == 400 * (second + 1)
    assert gateway.locator.followed() == 400


# ---- sectors ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide() -> Ground:
    """100 readers, cut smaller than a gateway cuts them, so that a walk comes through many sectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sectors, "SECTOR_STATES", 2500)
        return Ground(town())


def test_a_large_zone_is_several_sectors_and_a_tag_is_carried_from_one_to_the_next(wide: Ground) -> None:
    assert len(wide.sectors) > 5
    gateway = Gateway(wide)
    way = [(5.0, 0.0), (240.0, 0.0), (240.0, 360.0), (60.0, 360.0)]
    air, walked, moved = Air(gateway.ground, 3), [], []
    for spot in walk(*way, pace_mps=1.4):
        before = gateway.counts["tags_moved_on"]
        walked += follow(gateway, [air], [iter([spot])])[0]
        if gateway.counts["tags_moved_on"] > before:
            moved.append(len(walked))
    assert len(walked) > 500, "never without a fix"
    assert len(moved) >= 4
    assert gateway.counts["tags_lost_and_found"] == 0
    assert gateway.locator.followed() == 1
    fixes = [fix for _, fix, _ in walked]
    jumps = [math.dist((a.x_m, a.y_m), (b.x_m, b.y_m)) for a, b in itertools.pairwise(fixes[10:])]
    print(f"median {np.median([off_m(xy, fix) for xy, fix, _ in walked]):.1f} m, farthest step {max(jumps):.0f} m")
    assert np.mean([off_m(xy, fix) <= fix.radius_90_m for xy, fix, _ in walked]) > 0.75
    assert max(jumps) < 40
    for n in moved:
        here, there = fixes[n - 1], fixes[n]
        assert math.dist((here.x_m, here.y_m), (there.x_m, there.y_m)) < 15, "it does not jump from sector to sector"
        assert there.radius_90_m < 1.5 * here.radius_90_m + 5, "a belief is carried along, not begun anew"


def test_who_stays_is_known_to_stay_in_the_next_sector_too() -> None:
    gateway = Gateway(block())
    for _ in range(90):
        fixes = gateway.second({7: loud((1, -70), (3, -78), at_s=gateway.now_s)})
    [tracker_] = gateway.locator._trackers
    assert tracker_._batches[0].wider[0] > 1.3, "it stays"
    before = fixes[7][0].radius_90_m
    tracker_.enter(7, tracker_.leave(7))
    after = gateway.second({7: loud((1, -70), (3, -78), at_s=gateway.now_s)})[7][0].radius_90_m
    assert after == pytest.approx(before, rel=0.1)


def test_a_tag_is_carried_out_of_where_somebody_walked_and_back(wide: Ground) -> None:
    """A walk test of half the zone: what the two halves believe in differs, where the tag is does not."""
    gateway = Gateway(wide)
    air = Air(gateway.ground, 3)
    surveyor, rows = Air(gateway.ground, 4), []
    for y_m in (0.0, 40.0):
        for spot, facing in (*walk((0.0, y_m), (280.0, y_m)), *walk((280.0, y_m), (0.0, y_m))):
            xy_m = gateway.here(*spot)
            rows += [(*xy_m, math.degrees(facing), r.reader - 1, r.rssi_dbm) for r in surveyor.hear(xy_m, facing, 0.0)]
    x, y, heading_deg, reader, level = np.array(rows).T
    names, readers_m = tuple(str(number) for number in wide.readers), np.array(list(wide.readers.values()))
    site = RecordedSite("town", (-500, -500, 500, 500), names, readers_m, worn="body", tag_power_dbm=POWER_DBM)
    survey = Survey(np.column_stack([x, y]), heading_deg, reader.astype(int), level, np.ones(len(rows)))
    known = 0
    for sector in range(gateway.locator.sectors):
        hearings = gateway.locator.fitted(sector, (site, survey))
        known += bool(hearings)
        gateway.locator.learn(sector, hearings)
    assert 0 < known < gateway.locator.sectors, known
    way = [(5.0, 0.0), (5.0, 360.0), (60.0, 360.0), (60.0, 0.0)]
    fixes = follow(gateway, [air], [walk(*way, pace_mps=1.4)])[0]
    assert gateway.counts["tags_moved_on"] >= 2
    assert gateway.locator.followed() == 1
    assert len(fixes) > 500, "never without a fix"
    assert np.median([off_m(xy, fix) for xy, fix, _ in fixes]) < 20


def test_a_tag_taken_away_by_a_car_is_lost_and_found_in_another_sector(wide: Ground) -> None:
    gateway = Gateway(wide)
    far = max(wide.readers, key=lambda n: math.dist(wide.readers[n][:2], wide.readers[1][:2]))
    assert far not in wide.sectors[wide.home[1]].readers
    for _ in range(5):
        gateway.second({7: loud((1, -60), (2, -75), at_s=gateway.now_s)})
    gateway.wait(5.0)
    for _ in range(5):
        fixes = gateway.second({7: loud((far, -60), (far - 1, -75), at_s=gateway.now_s)})
    assert gateway.counts["tags_lost_and_found"] == 1
    assert off_m(wide.readers[far][:2], fixes[7][0]) < 30
    assert gateway.locator.followed() == 1


def test_a_far_reader_does_not_carry_a_tag_off_that_its_own_readers_hear(wide: Ground) -> None:
    """A copy of its advertisement, or a reflection over a hill."""
    gateway = Gateway(wide)
    for _ in range(6):
        fixes = gateway.second({7: loud((1, -60), (2, -75), (100, -60), at_s=gateway.now_s)})
    assert gateway.counts["tags_lost_and_found"] == 0
    assert off_m(gateway.ground.readers[1][:2], fixes[7][0]) < 30


# ---- any input -------------------------------------------------------------------------------------------------------

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
    """Levels of no radio, times in any order and from the future, strangers among the readers, gaps of any length."""
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


# ---- without history -------------------------------------------------------------------------------------------------


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


def test_once_asks_the_sector_of_the_loudest(wide: Ground) -> None:
    gateway = Gateway(wide)
    fix = gateway.locator.once(loud((100, -60), (99, -75), (1, None)), 1000.0)
    assert fix is not None
    assert off_m(gateway.ground.readers[100][:2], fix) < 30


def test_the_first_word_is_at_its_reader_and_never_fails() -> None:
    field = Field(zone())
    near, far, mute = (fix_at_reader(field, Reading(4, rssi, 1, 9.0, -50), 10.0) for rssi in (-55, -95, None))
    for fix in (near, far, mute):
        assert fix is not None
        assert (fix.x_m, fix.y_m) == field.readers[4][:2]
    assert near is not None
    assert far is not None
    assert near.radius_50_m < far.radius_50_m <= 60
    assert where_of(field, near).evidence[0].age_s == 1.0
    assert fix_at_reader(field, Reading(77, -60, 1, 9.0, -50), 10.0) is None


def test_a_tag_loud_at_both_ends_of_a_long_street_is_two_tags() -> None:
    field, locator = Field(zone()), Gateway(zone()).locator
    both = locator.once(loud((1, -60), (10, -62)), 1000.0)
    near = locator.once(loud((1, -60), (3, -62)), 1000.0)
    weak = locator.once(loud((1, -60), (10, -90)), 1000.0)
    assert both is not None
    assert near is not None
    assert weak is not None
    assert too_far_apart(field, both) == (1, 10)
    assert too_far_apart(field, near) is None
    assert too_far_apart(field, weak) is None


def test_a_zone_without_readers_or_without_anything_has_a_locator() -> None:
    for empty in (Zone(readers=()), Zone(readers=(), places=zone().places)):
        gateway = Gateway(empty)
        assert Field(empty).readers == {}
        gateway.locator.hear(7, loud((1, -50))[0], 1000.0)
        assert gateway.wait(5.0) == {}
        assert gateway.locator.once(loud((1, -50)), 1000.0) is None
        gateway.locator.set_offsets({1: 3.0})
