"""What is written of a recorded site is read back the same, and a write that fails leaves the old file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gateway.recording import Survey, TimedFix, Track
from gateway.survey import read, write
from gateway.survey.write import RecordingError
from tests.gateway.survey.bed import SITE, put


def test_a_site_comes_back_as_it_was_written(folder: Path) -> None:
    back = read.load_site(folder)
    assert np.array_equal(back.readers_m, SITE.readers_m)
    for name in (
        "name",
        "bounds_m",
        "reader_ids",
        "worn",
        "tag_height_m",
        "radio",
        "channel",
        "seen_tracks",
        "notes",
        "gates",
        "guards",
    ):
        assert getattr(back, name) == getattr(SITE, name), name
    assert back.look is not None
    assert SITE.look is not None
    np.testing.assert_array_equal(back.look, SITE.look)
    assert back.tag_power_dbm == SITE.tag_power_dbm
    for got, wrote in zip(back.footpaths, SITE.footpaths, strict=True):
        assert np.array_equal(got, wrote)


def test_places_and_dangers_come_back_and_none_is_not_the_same_as_nobody_says(folder: Path) -> None:
    back = read.load_site(folder)
    for got, wrote in ((back.places, SITE.places), (back.dangers, SITE.dangers)):
        assert got is not None
        assert wrote is not None
        for one, other in zip(got, wrote, strict=True):
            assert (one.id, one.warn_m) == (other.id, other.warn_m)
            assert np.array_equal(one.ring_m, other.ring_m)
    write.save_site(folder, replace(SITE, places=(), dangers=None, gates=(), guards=()))
    assert read.load_site(folder).places == ()
    assert read.load_site(folder).dangers is None


def test_a_survey_comes_back_file_by_file(folder: Path) -> None:
    first = Survey(
        np.array([[1.0, 2.0], [3.5, 4.25]]),
        np.array([90.0, math.nan]),
        np.array([1, 0]),
        np.array([-61.5, -80.0]),
        np.array([3.0, 1.0]),
    )
    write.save_survey(folder, SITE, "b", first)
    write.save_survey(folder, SITE, "a", Survey(*(column[:1] for column in _columns(first))))
    back = read.load_survey(folder, SITE)
    assert len(back) == 3
    assert not back.skipped
    for got, wrote in zip(_columns(back), _columns(first), strict=True):
        np.testing.assert_array_equal(got[1:], wrote)
        np.testing.assert_array_equal(got[:1], wrote[:1])


def _columns(survey: Survey) -> tuple[np.ndarray, ...]:
    return survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count


def test_a_track_comes_back_with_its_truth(folder: Path) -> None:
    track = Track(
        "home ward",
        np.array([0.0, 0.5, 0.5]),
        np.array([1, 0, 2]),
        np.array([-70.0, -71.5, -90.0]),
        np.array([0.0, 2.0]),
        np.array([[1.0, 1.0], [2.0, 3.0]]),
    )
    write.save_track(folder, SITE, track)
    (back,) = read.load_tracks(folder, SITE)
    assert back.name == track.name
    assert not back.skipped
    assert back.path_xy_m is None
    for name in ("t_s", "reader", "rssi_dbm", "truth_t_s", "truth_xy_m"):
        np.testing.assert_array_equal(getattr(back, name), getattr(track, name))


def test_a_path_without_times_comes_back(folder: Path) -> None:
    walked = np.array([[0.0, 0.0], [4.0, 1.0], [4.0, 9.0]])
    write.save_track(
        folder, SITE, Track("w", np.zeros(1), np.zeros(1, dtype=np.int64), np.array([-60.0]), None, None, walked)
    )
    back = read.load_track(folder, SITE, "w")
    np.testing.assert_array_equal(back.path_xy_m, walked)
    assert back.truth_t_s is None


def test_fixes_have_the_agreed_header(tmp_path: Path) -> None:
    path = tmp_path / "out" / "w.fixes.csv"
    assert write.write_fixes(path, [TimedFix(1.0, 2.0, 3.0, 0.5, 1.5), TimedFix(0.0, 2.0, 3.0, 0.5, 1.5, 3.0)]) == 2
    assert path.read_text().splitlines() == [
        "t_s,x_m,y_m,r50_m,r90_m,lag_s",
        "1.000,2.000,3.000,0.500,1.500,0",
        "0.000,2.000,3.000,0.500,1.500,3",
    ]


def test_a_write_that_fails_leaves_the_old_file(folder: Path) -> None:
    put(folder, "calibration/walk.csv", "old")
    (folder / "calibration" / "walk.csv.new").mkdir()  # in the way of the write, for root as well
    with pytest.raises(RecordingError, match=r"walk\.csv: cannot be written"):
        write.save_survey(folder, SITE, "walk", Survey.empty())
    assert (folder / "calibration" / "walk.csv").read_text() == "old"
