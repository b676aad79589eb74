"""A walk becomes rows of a walk test, or is refused with a text that says what would help."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.recording import Area, Floats, RecordedGate, RecordedSite, Survey, TimedFix, Track
from gateway.survey import calibrate, calibrate_command, read, write
from gateway.survey.calibrate import WalkRefused
from gateway.survey.truth import TrueWalk
from tests import programs
from tests.roots import RECORDED

SEED = 7
READERS = np.array([[0.0, 4, 3.5], [30, -4, 3.5], [60, 4, 3.5], [90, -4, 3.5]])
SITE = RecordedSite("street", (-10.0, -10.0, 100.0, 10.0), ("1", "2", "3", "4"), READERS)


def levels(xy_m: Floats, heading: Floats, rng: np.random.Generator, sigma_db: float = 4.0) -> Floats:
    to = READERS[None, :, :2] - xy_m[:, None]
    distance = np.sqrt((to**2).sum(axis=2) + 2.5**2)
    ahead = np.cos(np.arctan2(to[..., 1], to[..., 0]) - heading[:, None])
    return -48 - 23 * np.log10(distance) + 3 * ahead + rng.normal(0, sigma_db, distance.shape)


def walked(*, back: bool = True, late_s: float = 0.0, seconds: int = 75, seed: int = SEED) -> tuple[Track, TrueWalk]:
    """Walk along the street at 1.2 m/s and, if `back`, back; two packets a second per reader; truth late_s late."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    t = np.arange(0.0, seconds * (2 if back else 1), 0.5)
    out = t <= seconds
    x = np.where(out, 1.2 * t, 1.2 * (2 * seconds - t))
    xy = np.column_stack([x, np.zeros(len(t))])
    level = levels(xy, np.where(out, 0.0, math.pi), rng)
    times = np.repeat(t, 4)
    track = Track("w", times, np.tile(np.arange(4), len(t)), level.ravel().round())
    ends = [0.0, float(seconds)] + ([2.0 * seconds] if back else [])
    xs = [0.0, 1.2 * seconds] + ([0.0] if back else [])
    truth_t, truth_x = np.arange(0.0, ends[-1] + 1, 5.0), np.interp(np.arange(0.0, ends[-1] + 1, 5.0), ends, xs)
    return track, TrueWalk(truth_t + late_s, np.column_stack([truth_x, 0 * truth_x]), 90.0, "tapped", {})


def test_a_row_is_the_mean_of_a_second_where_the_walker_was() -> None:
    track = Track(
        "w", np.array([0.1, 0.5, 0.9, 1.2, 9.0]), np.array([0, 0, 1, 0, 0]), np.array([-60.0, -64, -80, -70, -50])
    )
    walk = TrueWalk(np.array([0.0, 4.0]), np.array([[0.0, 0.0], [0.0, 8.0]]), 90.0, "tapped", {})
    survey = calibrate.rows(track, walk.at).survey
    assert survey.rssi_dbm.tolist() == [-62.0, -80.0, -70.0]
    assert survey.count.tolist() == [2.0, 1.0, 1.0]
    assert survey.heading_deg.tolist() == [90.0, 90.0, 90.0]
    np.testing.assert_allclose(survey.xy_m[:, 1], [0.6, 1.8, 2.4])


def test_packets_weigh_and_who_stands_has_no_heading() -> None:
    track = Track(
        "w", np.array([0.2, 0.4]), np.zeros(2, dtype=np.int64), np.array([-60.0, -70]), packets=np.array([3, 1])
    )
    walk = TrueWalk(np.array([0.0, 9.0]), np.zeros((2, 2)), 90.0, "tapped", {})
    survey = calibrate.rows(track, walk.at).survey
    assert survey.rssi_dbm.tolist() == [-62.5]
    assert survey.count.tolist() == [4.0]
    assert np.isnan(survey.heading_deg).all()


def test_the_way_back_makes_both_directions() -> None:
    for back, low, high in ((True, 0.95, 1.0), (False, 0.0, 0.05)):
        track, walk = walked(back=back)
        assert low <= calibrate.both_ways(calibrate.rows(track, walk.at).survey) <= high


@pytest.mark.parametrize("late_s", [-20.0, -6.0, 6.0, 20.0])
def test_a_clock_that_differs_is_found_and_how_much(late_s: float) -> None:
    track, walk = walked(late_s=late_s)
    found = calibrate.clock(SITE, track, walk.at)
    assert found.suspected
    assert abs(found.shift_s - late_s) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_a_clock_that_agrees_is_not_suspected(seed: int) -> None:
    for back in (True, False):
        track, walk = walked(back=back, seed=seed)
        found = calibrate.clock(SITE, track, walk.at)
        assert not found.suspected
        assert found.explained > 0.3


@pytest.mark.skipif(not RECORDED.is_dir(), reason=programs.NO_RECORDINGS)
def test_no_recorded_clock_is_suspected_and_one_set_wrong_is() -> None:
    found = 0
    for folder in sorted(path for path in RECORDED.glob("*") if path.is_dir()):
        site = read.load_site(folder)
        for track in read.load_tracks(folder, site):
            assert track.truth_t_s is not None
            assert track.truth_xy_m is not None
            walk = TrueWalk(track.truth_t_s, track.truth_xy_m, 90.0, "tapped", {})
            assert not calibrate.clock(site, track, walk.at).suspected, (site.name, track.name)
            found += calibrate.clock(site, calibrate.shifted(track, 8.0), walk.at).suspected
    assert found >= 8, "a walker's 8 s are found; a slow robot's may not be"


def refused(track: Track, walk: TrueWalk) -> str:
    with pytest.raises(WalkRefused) as caught:
        calibrate.check(SITE, track, calibrate.rows(track, walk.at))
    return str(caught.value)


def test_a_walk_that_cannot_help_is_refused_in_words() -> None:
    track, walk = walked()
    nothing = Track("w", np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0))
    assert "no sighting of the tag" in refused(nothing, walk)
    assert "no moment in common" in refused(calibrate.shifted(track, 1e6), walk)
    assert "too short: 20 s" in refused(*walked(seconds=20, back=False))
    assert "stays within 0.0 m" in refused(track, TrueWalk(walk.t_s, 0 * walk.xy_m, 90.0, "tapped", {}))
    assert "only one reader" in refused(Track("w", track.t_s, 0 * track.reader, track.rssi_dbm), walk)
    assert "far from the readers" in refused(track, TrueWalk(walk.t_s, walk.xy_m + 5000.0, 90.0, "tapped", {}))
    calibrate.check(SITE, track, calibrate.rows(track, walk.at))


def nearest(survey: Survey, track: Track) -> list[TimedFix]:
    """A test engine that knows only the walk test: for each second, the place with the most similar levels."""
    fixes = []
    places, which = np.unique(survey.xy_m.round(1), axis=0, return_inverse=True)
    known = np.full((len(places), 4), np.nan)
    known[which.reshape(-1), survey.reader] = survey.rssi_dbm
    for second in np.unique(np.floor(track.t_s)):
        mine = np.floor(track.t_s) == second
        level = np.full(4, np.nan)
        level[track.reader[mine]] = track.rssi_dbm[mine]
        off = np.nanmean(np.abs(known - level), axis=1) if len(places) else np.zeros(0)
        at = places[int(np.argmin(off))] if len(off) else np.zeros(2)
        fixes.append(TimedFix(float(second) + 1.0, float(at[0]), float(at[1]), 1.0, 2.0))
    return fixes


def test_no_fix_is_made_with_a_row_from_its_own_moment() -> None:
    track, walk = walked()
    found = calibrate.rows(track, walk.at)
    seen: list[tuple[float, float]] = []

    def spy(survey: Survey, part: Track) -> list[TimedFix]:
        if len(survey):
            rows = {tuple(row) for row in survey.xy_m.round(6)}
            held = [t for t, xy in zip(found.t_s, found.survey.xy_m.round(6), strict=True) if tuple(xy) not in rows]
            fixes = [TimedFix(t, 0.0, 0.0, 1.0, 2.0) for t in np.arange(0.0, 151.0)]
            seen.append((min(held), max(held)))
            return fixes
        return []

    before, after = calibrate.before_and_after(Survey.empty(), found, track, spy)
    assert not before
    assert len(seen) == calibrate.FOLDS
    assert [fix.t_s for fix in after] == sorted({fix.t_s for fix in after}), "each moment in one part alone"
    edges = np.linspace(found.t_s.min(), found.t_s.max(), calibrate.FOLDS + 1)
    for (low, high), start, end in zip(seen, edges, edges[1:], strict=False):
        assert low <= max(start - calibrate.GUARD_S + 1, found.t_s.min())
        assert high >= min(end + calibrate.GUARD_S - 1, found.t_s.max())


def test_a_walk_there_and_back_is_located_by_its_other_parts() -> None:
    track, walk = walked()
    found = calibrate.rows(track, walk.at)
    before, after = calibrate.before_and_after(Survey.empty(), found, track, nearest)
    errors = [
        np.hypot(*(np.array([fix[1:3] for fix in fixes]) - walk.at(np.array([fix.t_s for fix in fixes]))[0]).T)
        for fixes in (before, after)
    ]
    assert np.nanmean(errors[1]) < 0.5 * np.nanmean(errors[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write.save_site(tmp_path, SITE)
    track, walk = walked()
    write.save_track(tmp_path, SITE, track)
    lines = [f"{t},{x},{y}" for t, (x, y) in zip(walk.t_s, walk.xy_m, strict=True)]
    (tmp_path / "taps.csv").write_text("\n".join(["t_s,x_m,y_m", *lines]))
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["calibrate", str(folder), "--truth", str(folder / "taps.csv"), *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_calibrate_writes_rows_truth_and_pictures_and_says_before_and_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []

    @contextmanager
    def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
        yield lambda done: shown.append(done / total)

    monkeypatch.setattr(calibrate_command, "progress", bar)
    code, said = run(folder)
    assert code == 0, said
    parts = 2 * calibrate.FOLDS
    assert shown == [n / parts for n in range(parts)], "a bar over each part of the walk, without it and with it"
    for word in (
        "150 s with truth (tapped), 4 of 4 readers",
        "before",
        "after",
        "written:",
        "next: ansim-gateway locate",
    ):
        assert word in said, word
    site = read.load_site(folder)
    assert site.seen_tracks == ("w",)
    survey = read.load_survey(folder, site)
    assert len(survey) == 4 * 150
    assert not survey.skipped
    assert read.load_track(folder, site, "w").truth_t_s is not None
    for name in ("w.walk.svg", "expected.svg"):
        assert "</svg>" in (folder / name).read_text()
    again, _ = run(folder)
    assert again == 0
    assert len(read.load_survey(folder, site)) == len(survey), "the same walk is not taken twice"


def test_calibrate_keeps_what_the_recording_says_of_the_tag_and_the_footpaths(folder: Path) -> None:
    line = np.array([[-10.0, 0.0], [100.0, 0.0]])
    yard = Area("yard", np.array([[20.0, 4.0], [60.0, 4.0], [60.0, 20.0]]))
    there = replace(SITE, tag_power_dbm=-57.0, footpaths=(line,), origin_lonlat=(126.95, 37.54), places=(yard,))
    gate = RecordedGate("main", "yard", (40.0, 4.0), 90.0, 3.0)
    there = replace(there, gates=(gate,), guards=(None, ("main", "outer"), ("main", "inner"), None))
    write.save_site(folder, there)
    code, said = run(folder)
    assert code == 0, said
    assert "gate main: both sides heard for 9 s outside and 0 s inside, 10 s are the least: stand 3 m outside" in said
    assert "next: name the folder in the gateway's file" in said
    site = read.load_site(folder)
    assert site.tag_power_dbm == -57.0
    assert site.gates == there.gates
    assert site.guards == there.guards
    assert np.array_equal(site.footpaths, (line,))
    assert [place.id for place in site.places or ()] == ["yard"]
    assert ">yard</text>" in (folder / "w.walk.svg").read_text()
    assert site.seen_tracks == ("w",)


def test_calibrate_refuses_a_clock_that_differs_until_it_is_told_how_much(folder: Path) -> None:
    text = (folder / "taps.csv").read_text().splitlines()
    late = [f"{float(line.split(',')[0]) + 9},{line.split(',', 1)[1]}" for line in text[1:]]
    (folder / "taps.csv").write_text("\n".join([text[0], *late]))
    code, said = run(folder)
    assert code == 1
    assert "its clocks seem to differ" in said
    assert not (folder / "calibration").exists()
    code, said = run(folder, "--clock-offset", "9")
    assert code == 0, said
    back = read.load_track(folder, SITE, "w")
    assert back.truth_t_s is not None
    assert back.truth_t_s[0] == pytest.approx(0.0), "the truth is kept on the clock of the sightings"


def test_calibrate_says_what_to_do_about_what_it_cannot_read(folder: Path) -> None:
    write.save_track(folder, SITE, Track("x", np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0)))
    code, said = run(folder)
    assert code == 1
    assert "2 tracks are there (w, x); name one with --track" in said
    code, said = run(folder, "--track", "x")
    assert code == 1
    assert "this walk is not used: no sighting of the tag" in said
    code, said = run(folder, "--track", "w", "--start", "noon")
    assert code == 1
    assert "is no date and time" in said
    (folder / "taps.csv").write_text("time,x_m,y_m\n2026-03-02T08:15:00Z,0,0\n2026-03-02T08:15:20Z,24,0\n")
    code, said = run(folder, "--track", "w")
    assert code == 1
    assert "give --start" in said
    (folder / "tracks" / "w.info.json").write_text(json.dumps({"started_at": "2026-03-02T08:15:00Z"}))
    code, said = run(folder, "--track", "w")
    assert "too short: 20 s" in said


def test_what_was_walked_twice_is_told_from_what_was_walked_once() -> None:
    for back, low, high in ((True, 0.7, 0.95), (False, 0.0, 0.15)):  # there and back, except for the part of the turn
        track, walk = walked(back=back)
        assert low <= calibrate.walked_again(calibrate.rows(track, walk.at)) <= high
