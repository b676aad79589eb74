"""A walk through a gate shows whether in can be told from out there, and if not, what a technician can do about it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gateway.antenna import gain_db
from gateway.config import gates
from gateway.recording import Floats, Ints, RecordedGate, RecordedSite, Survey, Track
from gateway.survey import calibrate, calibrate_command
from gateway.survey.calibrate import SurveyRows
from gateway.survey.truth import TrueWalk

SEED = 11
IN, OUT = math.pi / 2, -math.pi / 2
"""Looks: the yard lies to the north (y > 0) of the gate at 0, 0."""
READERS = np.array([[-1.7, -2.0, 3.5], [1.7, -2.0, 3.5], [-1.7, 3.0, 3.5], [1.7, 3.0, 3.5], [40.0, 0.0, 3.5]])
LOOKS = np.array([OUT, OUT, IN, IN, math.nan])
SITE = RecordedSite(
    "yard", (-50.0, -50.0, 50.0, 50.0), ("11", "12", "13", "14", "1"), READERS,
    gates=(RecordedGate("main", "school", (0.0, 0.0), 90.0, 3.4),), look=LOOKS,
    guards=(("main", "outer"), ("main", "outer"), ("main", "inner"), ("main", "inner"), None),
    origin_lonlat=(126.95, 37.54),
)  # fmt: skip


def level(xy_m: Floats, readers_m: Floats, looks: Floats) -> Floats:
    to = xy_m[:, None] - readers_m[None, :, :2]
    distance = np.maximum(1.0, np.sqrt((to**2).sum(axis=2) + 2.5**2))
    found: Floats = -48 - 25 * np.log10(distance) + gain_db(to, looks[None, :])
    return found


def stood(
    readers_m: Floats = READERS, looks: Floats = LOOKS, deaf_db: tuple[float, ...] = (0,) * 5, *, seconds: int = 20
) -> SurveyRows:
    """Stand 3 m outside, then 3 m inside for some seconds, one packet a second; 3 dB of packets."""
    rng = np.random.default_rng(SEED)
    y = np.repeat([-3.0, 3.0], seconds)
    xy = np.column_stack([rng.uniform(-1, 1, len(y)), y])
    heard = level(xy, readers_m, looks) - np.array(deaf_db) + rng.normal(0, 3, (len(y), 5))
    reader: Ints = np.tile(np.arange(5), len(y))
    survey = Survey(np.repeat(xy, 5, axis=0), np.full(5 * len(y), np.nan), reader, heard.ravel(), np.ones(5 * len(y)))
    return SurveyRows(np.repeat(np.arange(len(y)) + 0.5, 5), survey)


def told(found: SurveyRows, site: RecordedSite = SITE, source: str = "tapped") -> str:
    lines: list[str] = []
    calibrate_command.gates_told(site, found, source, lines.append)
    return "\n".join(lines)


def test_a_sound_gate_is_told_with_its_rows_and_needs_nothing() -> None:
    trial = calibrate.gate_trials(SITE, stood())[0]
    assert trial.walked
    assert trial.apart_db == pytest.approx(32.0, abs=3.0), "what GATE_LEAST_DB says of four patches"
    assert trial.outside_db < -12 < 10 < trial.inside_db
    assert {(r.side, r.rows_outside, r.rows_inside) for r in trial.readers} == {("outer", 20, 20), ("inner", 20, 20)}
    assert all(reader.louder_db == pytest.approx(16, abs=4) for reader in trial.readers)
    said = told(stood())
    assert said.splitlines()[0].startswith("gate main: inner - outer is -1")
    assert "dB apart, 6 dB are the least" in said
    assert "  reader 11 outer: 20 rows outside, 20 inside, +1" in said
    assert "next:" not in said
    assert "warning:" not in said


def test_dipoles_are_weak_and_none_of_them_is_blamed_alone() -> None:
    found = stood(looks=np.full(5, math.nan))
    assert calibrate.gate_trials(SITE, found)[0].apart_db == pytest.approx(15.0, abs=3.0)
    said = told(found)
    assert "warning: gate main is weak" in said
    assert said.endswith("next: are there patch antennas on all its readers, and does each look away from the wall?")


def test_a_patch_that_looks_the_wrong_way_is_named_with_its_bearing() -> None:
    said = told(stood(looks=np.array([OUT, IN, IN, IN, math.nan])))
    steps = [line for line in said.splitlines() if "next:" in line]
    assert len(steps) == 1
    assert "reader 12 (outer) hears the other side as well as its own: turn its antenna to 180 degrees" in steps[0]
    said = told(stood(looks=np.array([OUT, OUT, OUT, IN, math.nan])))
    assert "reader 13 (inner) hears the other side as well as its own: turn its antenna to 0 degrees" in said


def test_a_gate_that_tells_nothing_is_said_so_and_readers_too_far_out_are_named() -> None:
    far = READERS.copy()
    far[:4, 1] = [-30.0, -30.0, 30.0, 30.0]
    looks = np.full(5, math.nan)
    said = told(stood(far, looks), replace(SITE, readers_m=far))
    assert "warning: cannot tell in from out at this gate: gate main" in said
    assert calibrate_command.OUTER_BEFORE_MAX_M == gates.OUTER_BEFORE_MAX_M
    assert "reader 11 (outer) stands 30.0 m before the wall, too far out: move it to 2 m at most" in said


def test_deaf_inner_readers_make_the_gate_lean() -> None:
    said = told(stood(deaf_db=(0, 0, 8, 8, 0)))
    assert "next: the inner readers hear about 1" in said
    assert "too little: check their antennas and cables" in said


def test_who_did_not_stand_long_enough_is_asked_to() -> None:
    assert "gate main: both sides heard for 5 s outside and 5 s inside, 10 s are the least: stand" in told(
        stood(seconds=5)
    )


def test_a_second_with_one_side_only_does_not_count_and_a_silent_reader_is_named() -> None:
    found = stood()
    deaf = (found.survey.reader != 2) & ((found.survey.reader != 3) | (found.t_s > 5))
    cut = SurveyRows(found.t_s[deaf], found.only(deaf))
    trial = calibrate.gate_trials(SITE, cut)[0]
    assert (trial.seconds_outside, trial.seconds_inside) == (15, 20)
    assert "next: reader 13 (inner) was not heard at the gate: is it alive" in told(cut)


def test_a_gate_with_one_side_is_said_and_a_gate_without_readers_is_not() -> None:
    one_side = replace(SITE, guards=(("main", "outer"), ("main", "outer"), None, None, None))
    assert "next: mount an inner reader" in told(stood(), one_side)
    assert not told(stood(), replace(SITE, guards=()))
    assert not told(stood(), replace(SITE, gates=(), guards=()))


def test_gps_is_too_coarse_for_a_gate() -> None:
    assert told(stood(), source="GPS").startswith("note: GPS is off by metres")


def test_rows_far_from_the_gate_do_not_count() -> None:
    found = stood()
    moved = replace(found.survey, xy_m=found.survey.xy_m + np.array([5.0, 0.0]))
    trial = calibrate.gate_trials(SITE, SurveyRows(found.t_s, moved))[0]
    assert (trial.seconds_outside, trial.seconds_inside) == (0, 0)
    assert math.isnan(trial.apart_db)
    assert "stand 3 m outside" in told(SurveyRows(found.t_s, moved))


def test_a_recorded_walk_through_a_gate_is_judged_from_its_sightings() -> None:
    """From a track and tapped points, as the command has them: 25 s outside, through the gate, 25 s inside."""
    t = np.arange(0.0, 60.0, 0.5)
    y = np.interp(t, [0.0, 25.0, 32.0, 60.0], [-3.0, -3.0, 3.0, 3.0])
    heard = level(np.column_stack([0 * y, y]), READERS, LOOKS)
    track = Track("w", np.repeat(t, 5), np.tile(np.arange(5), len(t)), heard.ravel().round())
    walk = TrueWalk(
        np.array([0.0, 25.0, 32.0, 60.0]), np.array([[0, -3.0], [0, -3.0], [0, 3.0], [0, 3.0]]), 90.0, "tapped", {}
    )
    trial = calibrate.gate_trials(SITE, calibrate.rows(track, walk.at))[0]
    assert trial.seconds_outside >= 25
    assert trial.seconds_inside >= 25
    assert trial.apart_db > calibrate.GATE_SOUND_DB
