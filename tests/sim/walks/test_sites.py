"""Simulated recordings: the channel they claim, walks a child can walk, files the gateway reads, faults as named."""

import filecmp
import json
import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.survey import read
from readers.terminal import Exit
from sim.walks import command, sites
from sim.walks import faults as walk_faults
from sim.walks.channel import WalkAir, WalkChannel
from sim.walks.faults import FaultError, TrackRows
from sim.walks.places import KINDS

SEED = 11
PLAIN = WalkChannel(slow_db=0, body_db=0, reader_sigma_db=0, rice_k_db=60, loss=0, edge_dbm=-200)
READERS = np.array([(0.0, 0.0, 1.0), (30.0, 5.0, 3.5), (60.0, -5.0, 3.5)])


def standing(x: float, y: float, seconds: int) -> sites.SimulatedWalk:
    n = seconds * 10 + 1
    return sites.SimulatedWalk(np.arange(n) * sites.STEP_S, np.tile([x, y], (n, 1)), np.zeros(n))


# ------------------------------------------------------------------ the channel
def test_ten_times_the_distance_costs_ten_times_the_exponent() -> None:
    air = WalkAir(SEED, READERS[:1], 1.0, PLAIN)
    near, far = air.mean_dbm(np.array([[10.0, 0.0], [100.0, 0.0]]), np.zeros(2))[:, 0]
    assert near - far == pytest.approx(10 * PLAIN.exponent)
    assert near == pytest.approx(PLAIN.p0_dbm - 10 * PLAIN.exponent)


def test_the_body_dims_what_is_behind_it() -> None:
    air = WalkAir(SEED, READERS[:1], 1.0, WalkChannel(slow_db=0, reader_sigma_db=0, body_db=3.0))
    towards, away = air.mean_dbm(np.tile([10.0, 0.0], (2, 1)), np.array([math.pi, 0.0]))[:, 0]
    assert towards - away == pytest.approx(6.0)


def test_shadowing_has_its_spread_and_an_exponential_correlation_that_depends_on_nothing_but_distance() -> None:
    many = np.tile([5.0, 5.0, 3.0], (600, 1))
    air = WalkAir(SEED, many, 1.0, WalkChannel(slow_db=4.0, slow_m=10.0, reader_sigma_db=0, body_db=0))
    places = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 5.0], [6.0, 8.0], [0.0, 30.0], [500.0, -400.0]])
    flat = WalkAir(SEED, many, 1.0, WalkChannel(slow_db=0.0, reader_sigma_db=0, body_db=0))
    shadow = air.mean_dbm(places, np.zeros(6)) - flat.mean_dbm(places, np.zeros(6))
    assert shadow.std(axis=1) == pytest.approx(np.full(6, 4.0), rel=0.1)
    found = np.corrcoef(shadow)[0]
    for place, correlation in zip(places, found, strict=True):
        assert correlation == pytest.approx(math.exp(-math.hypot(*place) / 10.0), abs=0.12)


def test_shadowing_of_length_zero_is_another_number_every_second_and_for_every_reader() -> None:
    air = WalkAir(
        SEED, READERS, 1.0, WalkChannel(slow_m=0, slow_db=5, reader_sigma_db=0, rice_k_db=60, loss=0, edge_dbm=-200)
    )
    track = sites.record(air, standing(30.0, 0.0, 600), 4.0, "tag", SEED)
    means = [
        [track.rssi_dbm[(track.reader == k) & (np.ceil(track.t_s) == s)].mean() for s in range(2, 600)]
        for k in range(3)
    ]
    assert np.std(means, axis=1) == pytest.approx([5.0] * 3, rel=0.12)
    assert np.abs(np.corrcoef(means) - np.eye(3)).max() < 0.15
    assert abs(np.corrcoef(means[0][1:], means[0][:-1])[0, 1]) < 0.15


def test_half_of_the_packets_arrive_at_the_edge_and_nearly_all_well_above_it() -> None:
    xy, n = np.array([[10.0, 0.0]]), 4000
    level = float(WalkAir(SEED, READERS[:1], 1.0, PLAIN).mean_dbm(xy, np.zeros(1))[0, 0])
    shares = {}
    for above in (0.0, 12.0):
        channel = WalkChannel(slow_db=0, body_db=0, reader_sigma_db=0, rice_k_db=60, loss=0.0, edge_dbm=level - above)
        air = WalkAir(SEED, READERS[:1], 1.0, channel)
        got, _, dbm = air.hear("tag", np.arange(n) / 5.0, air.mean_dbm(xy, np.zeros(1)))
        shares[above] = len(got) / n
        assert np.all(dbm == np.round(dbm))
    assert shares[0.0] == pytest.approx(0.5, abs=0.03)
    assert shares[12.0] > 0.99


def test_a_packet_sounds_the_same_whoever_else_listens_and_whatever_comes_after() -> None:
    n = 200
    t, xy = np.arange(n) / 3.0, np.c_[np.linspace(0, 60, n), np.zeros(n)]
    three, one = WalkAir(SEED, READERS, 1.0, WalkChannel()), WalkAir(SEED, READERS[:1], 1.0, WalkChannel())
    whole = three.hear("tag", t, three.mean_dbm(xy, np.zeros(n)))
    half = three.hear("tag", t[:100], three.mean_dbm(xy[:100], np.zeros(100)))
    alone = one.hear("tag", t, one.mean_dbm(xy, np.zeros(n)))
    early, first = whole[0] < 100, whole[1] == 0
    for i in range(3):
        assert np.array_equal(whole[i][early], half[i])
        assert np.array_equal(whole[i][first], alone[i])


# ------------------------------------------------------------------ the walks
@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_is_one_that_a_child_can_walk(kind: str) -> None:
    for seed in range(SEED, SEED + 3):
        site = sites.make(kind, seed)  # type: ignore[arg-type]
        x0, y0, x1, y1 = site.facts["bounds"]
        for track in site.tracks.values():
            xy, step = track.walk.xy_m, np.linalg.norm(np.diff(track.walk.xy_m, axis=0), axis=1)
            assert np.all((xy >= [x0, y0]) & (xy <= [x1, y1])), (kind, seed)
            assert step.max() / sites.STEP_S < 4.0
            assert len(track.t_s) > 100
            assert np.all(np.diff(track.t_s) >= 0)
            assert 0 <= track.t_s[0] <= track.t_s[-1] <= track.walk.t_s[-1]


def test_children_stop_on_the_street_and_stay_by_the_footpaths() -> None:
    still_s = 0.0
    for seed in range(SEED, SEED + 4):
        site = sites.make("street", seed)
        lines = [np.array(line) for line in site.facts["footpaths"]]
        pieces = [(a, b) for line in lines for a, b in pairwise(line)]
        for track in site.tracks.values():
            xy = track.walk.xy_m
            off = np.min([_distance_m(xy, a, b) for a, b in pieces], axis=0)
            assert off.max() < 2.0
            still_s += sites.STEP_S * int((np.linalg.norm(np.diff(xy, axis=0), axis=1) < 1e-6).sum())
    assert still_s > 60


def _distance_m(xy: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    u = b - a
    s = np.clip((xy - a) @ u / (u @ u), 0, 1)
    return np.linalg.norm(xy - a - s[:, None] * u, axis=1)


def test_streets_are_walked_both_ways() -> None:
    site = sites.make("street", SEED)
    axis = int(np.ptp(np.array(site.facts["footpaths"][0]), axis=0).argmax())
    ways = {np.sign(t.walk.xy_m[-1, axis] - t.walk.xy_m[0, axis]) for t in site.tracks.values()}
    assert ways == {-1.0, 1.0}


# ------------------------------------------------------------------ the files
def test_the_same_seed_writes_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    first, again = (sites.write(sites.make("room", SEED, worn="body"), tmp_path / name) for name in "ab")
    names = sorted(str(p.relative_to(first)) for p in first.rglob("*.*"))
    assert filecmp.cmpfiles(first, again, names, shallow=False) == (names, [], [])
    other = sites.make("room", SEED + 1)
    assert other.facts["bounds"] != sites.make("room", SEED).facts["bounds"]


@pytest.mark.parametrize("number", range(4))
def test_the_gateway_reads_every_row_that_was_written(tmp_path: Path, number: int) -> None:
    made = list(sites.collection(4, SEED))[number]
    home = sites.write(made, tmp_path)
    site = read.load_site(home)
    assert not site.notes
    assert site.worn == made.facts["tag"]["worn"]
    survey = read.load_survey(home, site)
    assert len(survey.rssi_dbm) == len(made.survey)
    assert not survey.skipped
    assert np.isnan(survey.heading_deg).all() == (site.worn == "rig" or not made.survey)
    for track in read.load_tracks(home, site):
        assert len(track.t_s) == len(made.tracks[track.name].t_s)
        assert not track.skipped
        assert track.truth_t_s is not None
        assert (site.channel is None) == bool(made.survey)


def test_a_walked_survey_goes_both_ways() -> None:
    site = sites.make("street", SEED, survey=True)
    headings = np.array([row[2] for row in site.survey], float)
    along = np.array(site.facts["footpaths"][0])
    course = math.degrees(math.atan2(*(along[-1] - along[0])[::-1]))
    turn = np.abs((headings - course + 180) % 360 - 180)
    assert (turn < 30).mean() > 0.2
    assert (turn > 150).mean() > 0.2


# ------------------------------------------------------------------ faults
@cache
def _rows() -> TrackRows:
    track = sites.make("room", SEED).tracks["walk_1"]
    return TrackRows(track.t_s, track.reader, track.rssi_dbm)


def test_outliers_hit_their_share_by_20_to_40_db_both_ways() -> None:
    rows = _rows()
    off = walk_faults.apply("outliers=0.05", rows, 1).rssi_dbm - rows.rssi_dbm
    hit = np.abs(off[off != 0])
    assert (off != 0).mean() == pytest.approx(0.05, abs=0.02)
    assert hit.min() >= 20
    assert hit.max() <= 40
    assert 0.3 < (off[off != 0] > 0).mean() < 0.7


def test_one_reader_off_is_one_reader_off_everywhere() -> None:
    rows = _rows()
    off = walk_faults.apply("reader_off=-8", rows, 1).rssi_dbm - rows.rssi_dbm
    victim = walk_faults.reader_of(rows, 1)
    assert np.all(off[rows.reader == victim] == -8)
    assert np.all(off[rows.reader != victim] == 0)


def test_losing_and_shuffling_lose_and_shuffle_and_change_no_row() -> None:
    rows = _rows()
    table = set(zip(rows.t_s, rows.reader, rows.rssi_dbm, strict=True))
    lost, mixed = walk_faults.apply("lose=0.5", rows, 1), walk_faults.apply("shuffle", rows, 1)
    assert len(lost.t_s) == pytest.approx(len(rows.t_s) / 2, rel=0.1)
    assert set(zip(lost.t_s, lost.reader, lost.rssi_dbm, strict=True)) < table
    assert set(zip(mixed.t_s, mixed.reader, mixed.rssi_dbm, strict=True)) == table
    assert (np.diff(mixed.t_s) < 0).mean() > 0.4


def test_a_dead_reader_is_silent_from_its_time_on() -> None:
    rows = _rows()
    victim, middle = walk_faults.reader_of(rows, 1), float(rows.t_s[-1] / 2)
    assert victim not in walk_faults.apply("dead", rows, 1).reader
    half = walk_faults.apply(f"dead={middle}", rows, 1)
    of = half.t_s[half.reader == victim]
    assert len(of)
    assert of.max() < middle
    assert set(half.reader[half.t_s >= middle]) == set(rows.reader) - {victim}


@pytest.mark.parametrize("fault", ["fire", "lose=half", "lose=1.5", "outliers=-0.1", "reader_off=inf", ""])
def test_a_fault_that_is_none_is_refused_with_what_to_write(fault: str) -> None:
    with pytest.raises(FaultError, match="fault"):
        walk_faults.apply(fault, _rows(), 1)


def test_no_rows_stay_no_rows() -> None:
    none = TrackRows(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
    for fault in walk_faults.DEFAULTS:
        assert len(walk_faults.apply(fault, none, 1).t_s) == 0


def test_the_command_copies_a_site_with_faults_and_leaves_survey_and_truth(tmp_path: Path) -> None:
    runner = CliRunner()
    made = runner.invoke(command.app, ["make", str(tmp_path), "--sites", "1", "--kind", "room", "--seed", str(SEED)])
    assert made.exit_code == 0, made.output
    home, out = tmp_path / f"room_{SEED:04d}", tmp_path / "faulty"
    for path in home.rglob("*.csv"):
        path.chmod(0o444)  # recordings are kept read-only
    faults = ["--fault", "spikes=0.1", "--fault", "dead", "--fault", "shuffle"]
    done = runner.invoke(command.app, ["fault", str(home), str(out), *faults])
    assert done.exit_code == 0, done.output
    site = read.load_site(out)
    heard: set[int] = set()
    for sound, faulty in zip(read.load_tracks(home, site), read.load_tracks(out, site), strict=True):
        assert faulty.skipped["no possible level"] == pytest.approx(0.1 * len(faulty.t_s), rel=0.5)
        assert len(faulty.t_s) < len(sound.t_s)
        assert np.array_equal(sound.truth_xy_m, faulty.truth_xy_m)
        heard |= set(faulty.reader.tolist())
    assert len(heard) == len(site.reader_ids) - 1
    assert filecmp.cmp(home / "calibration" / "survey.csv", out / "calibration" / "survey.csv", shallow=False)
    assert json.loads((out / "site.json").read_text()) == json.loads((home / "site.json").read_text())


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, word, code in (
        (["make", str(tmp_path / "x"), "--kind", "moon"], "street, room, yard or mixed", Exit.USAGE),
        (["fault", str(tmp_path), str(tmp_path / "y"), "--fault", "dead"], "site.json", Exit.NO),
        (["fault", str(tmp_path), str(tmp_path / "y"), "--fault", "fire"], "none of", Exit.USAGE),
    ):
        result = runner.invoke(command.app, arguments)
        assert result.exit_code == code
        assert word in result.output
    assert not list(tmp_path.iterdir())
