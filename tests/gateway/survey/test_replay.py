"""The engine on recorded walks: the largest error allowed, without and with faults in a recording; odd recordings.

The recorded sites lie next to the repository (`../shared/data/rssi`): BLE, indoors, a tag on a body and one on a robot.
Tests that need them are skipped where they are absent. The limits leave room for other machines, not for another
engine.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gateway.recording import Floats, RecordedSite, Survey, TimedFix, Track
from gateway.survey import read
from gateway.survey.replay import ReplayEngine
from sim.walks import faults
from tests import programs
from tests.roots import RECORDED

needs_recordings = pytest.mark.skipif(not RECORDED.is_dir(), reason=programs.NO_RECORDINGS)
RANKED = ("danis_room", "kolakowski_flat")
LAG_S = 2.0
EDGE_S = 1.0
"""A fix this long before or after the truth still counts, as in the scores of the comparison."""
SEED = 1
INSTANT_M, LAGGED_M = 1.06, 0.96


class Score(NamedTuple):
    mean_m: float
    cover_90: float


@cache
def site(name: str) -> tuple[RecordedSite, ReplayEngine, tuple[Track, ...]]:
    folder = RECORDED / name
    known = read.load_site(folder)
    return known, ReplayEngine(known, read.load_survey(folder, known)), tuple(read.load_tracks(folder, known))


def scores(tracks_of: Callable[[str], tuple[Track, ...]]) -> dict[str, Score]:
    """Run tracks of the ranked sites and pool instant and lagged fixes, each against the sound track's truth."""
    rows: dict[str, list[tuple[float, bool]]] = {"instant": [], "lagged": []}
    for name in RANKED:
        _, engine, sound = site(name)
        for track, known in zip(tracks_of(name), sound, strict=True):
            assert known.truth_t_s is not None
            assert known.truth_xy_m is not None
            for fix in engine.replay(track, lag_s=LAG_S):
                assert np.isfinite(fix).all(), (name, track.name, fix)
                if known.truth_t_s[0] - EDGE_S <= fix.t_s <= known.truth_t_s[-1] + EDGE_S:
                    x, y = (np.interp(fix.t_s, known.truth_t_s, known.truth_xy_m[:, axis]) for axis in (0, 1))
                    off_m = float(np.hypot(fix.x_m - x, fix.y_m - y))
                    rows["lagged" if fix.lag_s else "instant"].append((off_m, off_m <= fix.r90_m))
    return {kind: Score(*(float(mean) for mean in np.mean(table, axis=0))) for kind, table in rows.items()}


@cache
def sound() -> dict[str, Score]:
    return scores(lambda name: site(name)[2])


def faulty(fault: str, folder: Path) -> dict[str, Score]:
    print(f"fault {fault}, seed {SEED}")

    def tracks_of(name: str) -> tuple[Track, ...]:
        faults.copy(RECORDED / name, folder / name, [fault], SEED)
        return tuple(read.load_tracks(folder / name, site(name)[0]))

    return scores(tracks_of)


@needs_recordings
def test_recorded_walks_are_located_and_the_radii_hold_them() -> None:
    found = sound()
    assert found["instant"].mean_m <= INSTANT_M, found
    assert found["lagged"].mean_m <= LAGGED_M, found
    assert all(0.85 <= each.cover_90 <= 0.98 for each in found.values()), found


@needs_recordings
@pytest.mark.parametrize("fault", ["outliers=0.05", "lose=0.5"])
def test_outliers_and_loss_cost_little_and_do_not_fool_the_radii(fault: str, tmp_path: Path) -> None:
    for kind, found in faulty(fault, tmp_path).items():
        assert found.mean_m < 1.15 * sound()[kind].mean_m, (kind, found)
        assert 0.80 <= found.cover_90 <= 0.99, (kind, found)


@needs_recordings
@pytest.mark.parametrize("fault", ["reader_off=8", "reader_off=-8"])
def test_a_reader_that_is_off_does_not_fool_the_radii(fault: str, tmp_path: Path) -> None:
    for kind, found in faulty(fault, tmp_path).items():
        assert 0.80 <= found.cover_90 <= 0.99, (kind, found)


@needs_recordings
@pytest.mark.parametrize("fault", ["dead", "spikes=0.01"])
def test_a_dead_reader_and_absurd_levels_cost_little(fault: str, tmp_path: Path) -> None:
    for kind, found in faulty(fault, tmp_path).items():
        assert found.mean_m < 1.15 * sound()[kind].mean_m, (kind, found)


@needs_recordings
def test_rows_in_any_order_give_the_same_fixes(tmp_path: Path) -> None:
    for kind, found in faulty("shuffle", tmp_path).items():
        assert found == pytest.approx(sound()[kind])


# ---- recordings with almost no content -------------------------------------------------------------------------------

SQUARE: Floats = np.array([[0.0, 0.0, 2.5], [8.0, 0.0, 2.5], [8.0, 6.0, 2.5], [0.0, 6.0, 2.5]])
YARD = RecordedSite("yard", (0.0, 0.0, 8.0, 6.0), ("a", "b", "c", "d"), SQUARE)


@cache
def yard() -> ReplayEngine:
    """A site whose walk test is a line of five places."""
    place, reader = (each.ravel() for each in np.indices((5, 4)))
    xy = np.stack([1.0 + 1.5 * np.arange(5), np.full(5, 3.0)], axis=1)
    gap_m = np.sqrt(((SQUARE[None, :, :2] - xy[:, None]) ** 2).sum(-1) + 1.5**2)
    level = (-50.0 - 22.0 * np.log10(gap_m)).ravel()
    return ReplayEngine(YARD, Survey(xy[place], np.full(20, np.nan), reader, level, np.ones(20)))


def walk(seconds: int, readers: tuple[int, ...] = (0, 1, 2, 3)) -> Track:
    """A walk straight along the yard's middle, one reading per second and reader."""
    t_s = np.repeat(np.arange(seconds) + 0.5, len(readers))
    reader = np.tile(np.array(readers, dtype=np.int64), seconds)
    x = 1.0 + 6.0 * t_s / max(seconds, 1)
    gap_m = np.sqrt((SQUARE[reader, 0] - x) ** 2 + (SQUARE[reader, 1] - 3.0) ** 2 + 1.5**2)
    return Track("walk", t_s, reader, -50.0 - 22.0 * np.log10(gap_m))


def instants(fixes: Iterator[TimedFix]) -> list[TimedFix]:
    found = list(fixes)
    assert np.isfinite(found).all()
    assert all(0 < fix.r50_m <= fix.r90_m for fix in found)
    x0, y0, x1, y1 = YARD.bounds_m
    assert all(x0 - 1e-6 <= fix.x_m <= x1 + 1e-6 and y0 - 1e-6 <= fix.y_m <= y1 + 1e-6 for fix in found)
    return [fix for fix in found if fix.lag_s == 0]


def test_a_track_without_rows_gives_no_fix() -> None:
    assert list(yard().replay(walk(0), lag_s=LAG_S)) == []


def test_three_rows_give_a_fix_a_second() -> None:
    few = walk(4)
    keep = np.array([0, 5, 10])
    track = dataclasses.replace(few, t_s=few.t_s[keep], reader=few.reader[keep], rssi_dbm=few.rssi_dbm[keep])
    assert [fix.t_s for fix in instants(yard().replay(track, lag_s=LAG_S))] == [1.0, 2.0]  # the third is incomplete


def test_one_reader_alone_gives_wide_fixes_and_four_give_narrow_ones() -> None:
    alone = instants(yard().replay(walk(20, readers=(2,)), lag_s=LAG_S))
    together = instants(yard().replay(walk(20), lag_s=LAG_S))
    assert len(alone) == len(together) == 19
    assert np.median([fix.r90_m for fix in alone]) > 1.5 * np.median([fix.r90_m for fix in together])


def test_readers_that_all_die_end_the_fixes_and_a_later_life_begins_them_anew() -> None:
    first, later = walk(10), walk(10)
    track = Track(
        "died",
        np.concatenate([first.t_s, later.t_s + 300.0]),
        np.concatenate([first.reader, later.reader]),
        np.concatenate([first.rssi_dbm, later.rssi_dbm]),
    )
    times = [fix.t_s for fix in instants(yard().replay(track, lag_s=LAG_S))]
    assert times == [*range(1, 11), *range(301, 310)]


def test_absurd_levels_neither_break_it_nor_leave_the_yard() -> None:
    track = walk(20)
    absurd = track.rssi_dbm.copy()
    absurd[::7], absurd[3::11] = 42.0, -200.0
    assert len(instants(yard().replay(dataclasses.replace(track, rssi_dbm=absurd), lag_s=LAG_S))) == 19


def test_a_lag_of_nothing_gives_instant_fixes_alone_and_the_same() -> None:
    both = list(yard().replay(walk(15), lag_s=LAG_S))
    assert list(yard().replay(walk(15), lag_s=0.0)) == [fix for fix in both if fix.lag_s == 0]
