"""Disturbed sites: the rough air does what it says, the two families differ, and the gateway reads every site."""

import filecmp
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.survey import read
from gateway.survey.replay import zone_of
from sim.walks import command, families, sites
from sim.walks.channel import WalkAir, WalkChannel
from sim.walks.families import FAMILIES, KINDS, RANGES, FamilyName
from sim.walks.rough import RoughAir, Roughness
from sim.walks.shapes import fewer
from sim.walks.sites import SimulatedSite

SEED = 5
PLAIN = WalkChannel(slow_db=0, body_db=0, reader_sigma_db=0, rice_k_db=-60, loss=0, edge_dbm=-200, quantum_db=0.01)
READERS = np.array([(0.0, 0.0, 1.0), (30.0, 5.0, 3.5), (60.0, -5.0, 3.5)])


@cache
def family(name: FamilyName) -> tuple[SimulatedSite, ...]:
    return tuple(families.family_of(name, len(KINDS), SEED))


def heard(air: WalkAir, xy: tuple[float, float], seconds: int = 60, heading: float = 0.0) -> np.ndarray:
    """Levels of the first reader for a tag at one place, five packets a second, all received."""
    n = 5 * seconds
    _, reader, dbm = air.listen("tag", np.arange(n) / 5.0, np.tile(xy, (n, 1)), np.full(n, heading))
    return dbm[reader == 0]


# ------------------------------------------------------------------ the air
def test_without_roughness_the_air_is_the_plain_one() -> None:
    channel = WalkChannel(body_db=3.0)
    rough, plain = RoughAir(SEED, READERS, 1.0, channel, Roughness()), WalkAir(SEED, READERS, 1.0, channel)
    t, xy = np.arange(200) / 3.0, np.c_[np.linspace(0, 60, 200), np.zeros(200)]
    for one, other in zip(rough.listen("a", t, xy, t), plain.listen("a", t, xy, t), strict=True):
        assert np.array_equal(one, other)


def test_on_one_channel_a_tag_that_hangs_still_keeps_its_luck_and_another_place_has_another() -> None:
    air = RoughAir(SEED, READERS[:1], 1.0, PLAIN, Roughness(channels=1, frozen=1.0))
    luck = []
    for i in range(60):
        dbm = heard(air, (10.0 + 0.5 * i, 0.0), seconds=4)
        assert np.ptp(dbm) < 0.3
        luck.append(dbm.mean() - air.mean_dbm(np.array([[10.0 + 0.5 * i, 0.0]]), np.zeros(1))[0, 0])
    assert 4.0 < np.std(luck) < 8.0  # 4.8-7.1 dB were measured between channels at one place


def test_three_channels_give_a_still_tag_three_levels() -> None:
    air = RoughAir(SEED, READERS[:1], 1.0, PLAIN, Roughness(channels=3, frozen=1.0))
    assert len(np.unique(np.round(heard(air, (10.0, 0.0)), 1))) == 3


def test_a_tag_that_sways_hears_more_of_the_multipath() -> None:
    still, swaying = (
        heard(RoughAir(SEED, READERS[:1], 1.0, PLAIN, Roughness(channels=1, frozen=1.0, sway_m=sway)), (10.0, 0.0))
        for sway in (0.0, 0.05)
    )
    assert swaying.std() > 2.0 > 0.1 > still.std()


def test_a_car_hides_a_low_link_and_not_one_that_passes_above_it() -> None:
    car = np.array([[10.0, 0.0, 1.2, 0.0, 1.6, 8.0]])
    readers = np.array([(30.0, 0.0, 1.2), (30.0, 0.0, 6.0), (-10.0, 0.0, 1.2)])
    clear, hidden = (
        RoughAir(SEED, readers, 0.9, PLAIN, Roughness(), obstacles=each).mean_dbm(np.zeros((1, 2)), np.zeros(1))[0]
        for each in (None, car)
    )
    assert clear - hidden == pytest.approx([8.0, 0.0, 0.0])


def test_the_body_has_a_dip_behind_it_only() -> None:
    channel = WalkChannel(slow_db=0, reader_sigma_db=0, body_db=3.0)
    plain, dipped = (RoughAir(SEED, READERS[:1], 1.0, channel, Roughness(dip_db=db)) for db in (0.0, 10.0))
    at, ways = np.tile([10.0, 0.0], (3, 1)), np.array([math.pi, math.pi / 2, 0.0])  # the reader is in the west
    lost = plain.mean_dbm(at, ways)[:, 0] - dipped.mean_dbm(at, ways)[:, 0]
    assert lost == pytest.approx([0.0, 0.0, 10.0])


def test_a_companion_hides_some_readers_for_some_of_the_time() -> None:
    t = np.arange(300.0)
    lost = []
    for tag in map(str, range(20)):
        alone, beside = (
            RoughAir(SEED, READERS, 1.0, PLAIN, Roughness(companions=4, companion_db=db)).listen(
                tag, t, np.tile([10.0, 0.0], (300, 1)), t
            )
            for db in (0.0, 6.0)
        )
        lost.append(alone[2] - beside[2])
    hidden = np.concatenate(lost) > 1.0
    assert 0.1 < hidden.mean() < 0.4  # four people there half of the time, each hides a seventh of the horizon
    assert np.concatenate(lost).min() > -0.02


@pytest.mark.parametrize("shadow", ["exponential", "gaussian"])
def test_what_moved_since_the_survey_is_its_share_of_the_shadowing(shadow: str) -> None:
    many = np.tile([5.0, 5.0, 3.0], (500, 1))
    channel = WalkChannel(slow_db=4.0, slow_m=5.0, reader_sigma_db=0)
    at = np.array([[0.0, 0.0], [5.0, 0.0]])
    then, now = (
        RoughAir(SEED, many, 1.0, channel, Roughness(shadow=shadow, moved=moved)).mean_dbm(at, np.zeros(2))
        for moved in (0.0, 0.5)
    )
    assert then[0].std() == pytest.approx(4.0, rel=0.12)
    assert now[0].std() == pytest.approx(4.0, rel=0.12)
    assert np.corrcoef(then[0], now[0])[0, 1] == pytest.approx(math.sqrt(0.5), abs=0.1)
    near = math.exp(-1.0) if shadow == "exponential" else math.exp(-0.5)
    assert np.corrcoef(then)[0, 1] == pytest.approx(near, abs=0.12)


# ------------------------------------------------------------------ the families
def test_the_judge_draws_other_numbers_than_the_training_ground() -> None:
    train, judge = RANGES["train"], RANGES["judge"]
    assert train.shadow != judge.shadow
    for name in ("exponent_indoors", "exponent_outdoors", "slow_db", "dip_db", "frozen", "moved", "companion_db"):
        (low, high), (lower, higher) = getattr(train, name), getattr(judge, name)
        assert (lower, higher) != (low, high), name
        assert higher > high, name
    shapes = {name: [(site.facts["bounds"], len(site.facts["readers"])) for site in family(name)] for name in FAMILIES}
    assert not set(map(str, shapes["train"])) & set(map(str, shapes["judge"]))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gateway_reads_every_row_of_every_kind(name: FamilyName, tmp_path: Path) -> None:
    kinds = []
    for made in family(name):
        home = sites.write(made, tmp_path)
        site = read.load_site(home)
        assert not site.notes
        assert len(read.load_survey(home, site)) == len(made.survey)
        for track in read.load_tracks(home, site):
            assert len(track.t_s) == len(made.tracks[track.name].t_s) >= families.HEARD_MIN
            assert track.truth_t_s is not None
        kinds.append(made.facts["simulated"]["kind"])
        assert (zone_of(site) is not None) == (kinds[-1] == "zone")
        assert kinds[-1] != "field" or (len(site.reader_ids) <= 4 and not made.survey)
    assert tuple(kinds) == KINDS


@pytest.mark.parametrize("name", FAMILIES)
def test_some_tags_stand_for_minutes_and_turn_and_some_hang_still(name: FamilyName) -> None:
    turned = 0
    for made in family(name):
        stands = made.tracks["stands_and_turns"].walk
        still = np.linalg.norm(np.diff(stands.xy_m, axis=0), axis=1) < 1e-6
        assert still.sum() * sites.STEP_S > 20
        turned += int((np.abs(np.diff(stands.heading))[still] > 0.02).sum() * sites.STEP_S > 1)
        if "hangs" in made.tracks:
            assert np.ptp(made.tracks["hangs"].walk.xy_m, axis=0).max() == 0
    assert turned >= len(KINDS) - 1


def test_disturbances_are_dealt_out_evenly_and_a_survey_can_be_one_way() -> None:
    dealt = [families.dealt("judge", number, SEED) for number in range(200)]
    for what in families.EVEN:
        shares = np.array([each[what] for each in dealt])
        for first in range(0, 200, 40):
            assert (shares[first : first + 40] < 0.5).mean() == pytest.approx(0.5, abs=0.1), what
    table = np.array([[each[what] for what in families.EVEN] for each in dealt])
    assert np.abs(np.corrcoef(table.T) - np.eye(len(families.EVEN))).max() < 0.3
    ways = {False: 0, True: 0}
    for number in (3, 9, 15, 21):
        made = families.make("train", number, SEED)
        heading = np.radians([row[2] for row in made.survey if row[2] is not None])
        one_way = made.facts["simulated"]["wrong"]["survey_one_way"]
        assert (np.hypot(np.cos(heading).mean(), np.sin(heading).mean()) > 0.25) == one_way
        ways[one_way] += 1
    assert min(ways.values()) > 0


def test_a_802_15_4_tag_is_heard_less_often_than_a_ble_tag() -> None:
    rates: dict[str, list[float]] = {"ble": [], "802.15.4": []}
    for seed in range(2):
        for number in (2, 5):
            facts = families.make("judge", number, seed).facts
            rates[facts["radio"]].append(facts["simulated"]["rate_hz"])
    assert max(rates["802.15.4"]) <= 1.2
    assert min(rates["ble"]) >= 1.0


def test_of_many_readers_the_few_that_are_kept_are_far_apart() -> None:
    x, y = np.meshgrid(np.arange(5.0), np.arange(5.0))
    grid = np.stack([x.ravel(), y.ravel(), np.zeros(25)], axis=1)
    kept = fewer(grid, 4)
    assert sorted(map(tuple, kept[:, :2].tolist())) == [(0, 0), (0, 4), (4, 0), (4, 4)]
    assert len(fewer(grid[:2], 4)) == 2


def test_the_command_writes_a_family_again_and_another_seed_another(tmp_path: Path) -> None:
    runner = CliRunner()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        arguments = ["make", str(tmp_path / name), "--family", "judge", "--sites", "1", "--seed", str(seed)]
        done = runner.invoke(command.app, arguments)
        assert done.exit_code == 0, done.output
    first, again, other = (next((tmp_path / name).iterdir()) for name in "abc")
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*.*"))
    assert filecmp.cmpfiles(first, again, names, shallow=False) == (names, [], [])
    assert read.load_site(other).bounds_m != read.load_site(first).bounds_m
    for wrong in (["--family", "jury"], ["--family", "judge", "--kind", "yard"]):
        refused = runner.invoke(command.app, ["make", str(tmp_path / "x"), *wrong])
        assert refused.exit_code == 2
        assert "train or judge" in refused.output
