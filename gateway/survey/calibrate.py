"""A walk with known truth -> rows of a walk test, and whether they can be trusted.

It looks at the clocks, at the directions, at the gates, and at the errors before and after. Pure; the engine is passed
in.

A walk must be long enough, its levels must fall with distance, and its truth must be on the same clock as the
sightings. It is reported how much of the way was walked in both directions, because the map of a worn tag holds only
in the directions walked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.recording import Floats, Ints, RecordedGate, RecordedSite, Survey, TimedFix, Track

ROW_S = 1.0
"""One row for each second and reader: at walking pace, a row every 1.3 m."""
MOVING_MPS = 0.3
WALK_MIN_S, EXTENT_MIN_M, READERS_MIN, ROWS_MIN = 30, 4.0, 2, 60
SHIFT_MAX_S, SHIFT_MIN_S, SHIFT_GAIN = 60, 4, 0.1
"""A clock is suspected when a shift of the truth by SHIFT_MIN_S or more, later or earlier, reduces the variance of the
levels that distance does not explain by the share SHIFT_GAIN. Shifts beyond a third of the walk, or that lose a third
of its rows, do not count. On the recorded sites, clocks of walkers that agree give at most 0.12 at 3 s; clocks 8 s
apart give 0.1 to 0.4."""
FALL_MIN = 0.02
"""If distance explains less than this share, the levels may belong to another walk."""
CELL_M, AGAIN_M, OPPOSITE_DEG, BOTH_MIN = 4.0, 2.0, 120.0, 0.5
FOLDS, GUARD_S, LEAD_S = 5, 3.0, 10.0
"""The walk is cut into FOLDS parts. Each is located with a map of the other parts, without the rows within GUARD_S of
it, and with the LEAD_S of sightings before it."""

GATE_FROM_M, GATE_TO_M, GATE_ASIDE_M = 2.0, 4.0, 1.0
"""A gate is judged this far before and behind its line, and so far beyond its width."""
GATE_SECONDS_MIN = 10
"""On each side, with readers of both sides heard."""
GATE_LEAST_DB, GATE_SOUND_DB = 6.0, 20.0
"""Inner minus outer, inside minus outside. By the law of distance and `gateway.antenna`, four patches 2 m before and
3 m behind the wall have 32 dB, with or without a loss in the wall; with one of them turned round 22, with dipoles 15.
Shadows of 4 dB, half of them common, blur it by 3 dB: a gate that tells nothing has 6 dB once in forty walks."""
GATE_LEAN_MAX_DB = 8.0
"""The middle between outside and inside: -3 dB at a sound gate, -11 if both inner readers are 8 dB deaf."""
READER_LEAST_DB = 4.0
"""How much louder a gate reader is on its own side: a patch 16 dB, a dipole 7, a patch turned round -2."""

At = Callable[[Floats], tuple[Floats, Floats]]
"""Times -> position (times, 2) and velocity (times, 2) of the walker; NaN where they are not known."""
SurveyReplay = Callable[[Survey, Track], Iterable[TimedFix]]


class WalkRefused(ValueError):
    """The walk is of no use. The text says why and what would help."""


@dataclass(frozen=True, slots=True)
class SurveyRows:
    """The rows of a walk test, each with its time in seconds."""

    t_s: Floats
    survey: Survey

    def only(self, wanted: NDArray[np.bool_]) -> Survey:
        """Return the wanted rows."""
        s = self.survey
        return Survey(s.xy_m[wanted], s.heading_deg[wanted], s.reader[wanted], s.rssi_dbm[wanted], s.count[wanted])


@dataclass(frozen=True, slots=True)
class ClockFit:
    """How well truth and sightings agree in time."""

    shift_s: int
    """Distance explains the levels best with the truth of this many seconds later (negative: earlier)."""
    explained: float
    """Share (0..1) of the levels' variance that distance explains with this shift."""
    explained_now: float
    """The same without a shift."""

    @property
    def suspected(self) -> bool:
        gain = 1 - (1 - self.explained) / max(1 - self.explained_now, 1e-9)
        return abs(self.shift_s) >= SHIFT_MIN_S and gain >= SHIFT_GAIN


@dataclass(frozen=True, slots=True)
class GateReaderTrial:
    """What one gate reader heard at its gate."""

    reader: int
    side: str
    rows_outside: int
    rows_inside: int
    louder_db: float
    """By how much its median level on its own side is louder than on the other. NaN: not heard on one of them."""


@dataclass(frozen=True, slots=True)
class GateTrial:
    """Whether a walk test can tell inside from outside at a gate."""

    gate: RecordedGate
    readers: tuple[GateReaderTrial, ...]
    seconds_outside: int
    seconds_inside: int
    outside_db: float
    """Median of inner minus outer readers, GATE_FROM_M to GATE_TO_M before the gate. NaN: no such second."""
    inside_db: float
    """The same behind the gate."""

    @property
    def walked(self) -> bool:
        return min(self.seconds_outside, self.seconds_inside) >= GATE_SECONDS_MIN

    @property
    def apart_db(self) -> float:
        return self.inside_db - self.outside_db


def rows(track: Track, at: At, shift_s: float = 0.0) -> SurveyRows:
    """Return the mean level for each second and reader, at the walker's position. shift_s: added to sighting times.

    Headings are the direction of walking, NaN below MOVING_MPS.
    """
    t_s = track.t_s + shift_s
    weight = np.ones(len(t_s)) if track.packets is None else track.packets.astype(float)
    second = np.floor(t_s / ROW_S).astype(np.int64)
    keys = np.column_stack([second, track.reader])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    count = np.bincount(group, weights=weight, minlength=len(first)).astype(float)
    level = np.bincount(group, weights=weight * track.rssi_dbm, minlength=len(first)) / np.maximum(count, 1e-9)
    middle_s = np.bincount(group, weights=weight * t_s, minlength=len(first)) / np.maximum(count, 1e-9)
    where, velocity = at(middle_s)
    known = np.isfinite(where).all(axis=1)
    pace = np.hypot(velocity[:, 0], velocity[:, 1])
    heading = np.degrees(np.arctan2(velocity[:, 1], velocity[:, 0])) % 360.0
    heading = np.where(pace >= MOVING_MPS, heading.round(), np.nan)
    reader: Ints = track.reader[first]
    survey = Survey(where[known], heading[known], reader[known], level[known], count[known])
    return SurveyRows(middle_s[known], survey)


def check(site: RecordedSite, track: Track, found: SurveyRows) -> None:
    """Raise WalkRefused, with the reason, for a walk that is of no use."""
    survey = found.survey
    if not len(track.t_s):
        raise WalkRefused("no sighting of the tag: was it switched on, and the right one?")
    if not len(survey):
        raise WalkRefused("truth and sightings have no moment in common: look at their clocks")
    seconds = len(np.unique(np.floor(found.t_s)))
    if seconds < WALK_MIN_S or len(survey) < ROWS_MIN:
        raise WalkRefused(
            f"too short: {seconds} s and {len(survey)} rows with truth; {WALK_MIN_S} s and {ROWS_MIN} rows are the "
            "least, some minutes are good"
        )
    extent_m = float(np.ptp(survey.xy_m, axis=0).max())
    if extent_m < EXTENT_MIN_M:
        raise WalkRefused(f"it stays within {extent_m:.1f} m: walk along the ways that children walk")
    if len(np.unique(survey.reader)) < READERS_MIN:
        raise WalkRefused("only one reader heard the tag: are the others alive?")
    x0, y0, x1, y1 = site.bounds_m
    margin_m = max(x1 - x0, y1 - y0)
    middle = np.median(survey.xy_m, axis=0)
    if not (x0 - margin_m <= middle[0] <= x1 + margin_m and y0 - margin_m <= middle[1] <= y1 + margin_m):
        raise WalkRefused("it lies far from the readers: are its metres those of the site, x before y, lon before lat?")


def clock(site: RecordedSite, track: Track, at: At) -> ClockFit:
    """Compare truth and sightings at every shift: levels fall with distance most clearly where the clocks agree."""
    span_s = float(np.ptp(track.t_s)) if len(track.t_s) else 0.0
    most = int(min(SHIFT_MAX_S, span_s / 3))
    found = {shift: rows(track, at, float(shift)).survey for shift in range(-most, most + 1)}
    enough = 2 / 3 * max(len(survey) for survey in found.values())
    share = {shift: _explained(site, survey) for shift, survey in found.items() if len(survey) >= enough}
    best = max(share, key=lambda shift: (share[shift], -abs(shift)))
    return ClockFit(best, share[best], share.get(0, 0.0))


def _explained(site: RecordedSite, survey: Survey) -> float:
    """Return the share of the levels' variance around each reader's mean that distance explains; outliers are clipped.

    A body between tag and reader makes the wearer seem ahead of the true position, so for a worn tag this term is used
    in addition to distance.
    """
    to_m = site.readers_m[survey.reader, :2] - survey.xy_m
    rise_m = site.readers_m[survey.reader, 2] - site.tag_height_m
    fall = -10 * np.log10(np.maximum(np.hypot(np.hypot(to_m[:, 0], to_m[:, 1]), rise_m), 0.5))
    ahead = np.cos(np.arctan2(to_m[:, 1], to_m[:, 0]) - np.radians(survey.heading_deg))
    each = np.maximum(np.bincount(survey.reader, minlength=len(site.readers_m)), 1)

    def beside_mean(values: Floats) -> Floats:
        mean = np.bincount(survey.reader, weights=values, minlength=len(each)) / each
        rest: Floats = np.clip(values - mean[survey.reader], -15, 15)
        return rest

    x, body, y = beside_mean(fall), beside_mean(np.nan_to_num(ahead)), beside_mean(survey.rssi_dbm)
    if site.worn == "body":  # what is left of both after the body's effect is removed
        share = max(float(body @ body), 1e-9)
        x, y = x - (x @ body) / share * body, y - (y @ body) / share * body
    slope = float(np.clip((x @ y) / max(float(x @ x), 1e-9), 0.0, 6.0))
    return float(1 - ((y - slope * x) ** 2).sum() / max(float((y**2).sum()), 1e-9))


def both_ways(survey: Survey) -> float:
    """Return the share (0..1) of moving rows where the way was walked in both directions. NaN: the tag never moved."""
    moving = np.isfinite(survey.heading_deg)
    if not moving.any():
        return float("nan")
    cells = np.floor(survey.xy_m[moving] / CELL_M).astype(np.int64)
    heading = survey.heading_deg[moving]
    _, group = np.unique(cells, axis=0, return_inverse=True)
    group = group.reshape(-1)
    met = np.zeros(len(heading), dtype=bool)
    for cell in range(int(group.max()) + 1):
        mine = np.flatnonzero(group == cell)
        turned = np.abs((heading[mine][:, None] - np.unique(heading[mine])[None, :] + 180) % 360 - 180)
        met[mine] = (turned >= OPPOSITE_DEG).any(axis=1)
    return float(met.mean())


def gate_trials(site: RecordedSite, found: SurveyRows) -> list[GateTrial]:
    """Return for each gate with readers what they heard before and behind it. A second counts if both sides heard."""
    guards = [guard or ("", "") for guard in site.guards] or [("", "")] * len(site.reader_ids)
    trials = []
    for gate in site.gates:
        inwards = np.array([np.cos(np.radians(gate.inward_deg)), np.sin(np.radians(gate.inward_deg))])
        off_m = found.survey.xy_m - np.array(gate.at_m)
        deep_m, aside_m = off_m @ inwards, np.abs(off_m @ np.array([inwards[1], -inwards[0]]))
        near = (np.abs(deep_m) >= GATE_FROM_M) & (np.abs(deep_m) <= GATE_TO_M)
        near &= aside_m <= gate.width_m / 2 + GATE_ASIDE_M
        places = {"outer": near & (deep_m < 0), "inner": near & (deep_m > 0)}
        mine = {side: [n for n, guard in enumerate(guards) if guard == (gate.id, side)] for side in places}
        if not any(mine.values()):
            continue
        differences = [_differences(found, place, mine) for place in places.values()]
        readers = []
        for side, numbers in mine.items():
            for number in numbers:
                of_it = [found.survey.rssi_dbm[place & (found.survey.reader == number)] for place in places.values()]
                own, other = of_it if side == "outer" else of_it[::-1]
                readers.append(
                    GateReaderTrial(number, side, len(of_it[0]), len(of_it[1]), _median(own) - _median(other))
                )
        outside, inside = differences
        trials.append(GateTrial(gate, tuple(readers), len(outside), len(inside), _median(outside), _median(inside)))
    return trials


def _differences(found: SurveyRows, place: NDArray[np.bool_], mine: dict[str, list[int]]) -> Floats:
    """Return mean inner minus mean outer level for each second in which readers of both sides were heard."""
    second = np.floor(found.t_s / ROW_S)
    inner, outer = (place & np.isin(found.survey.reader, mine[side]) for side in ("inner", "outer"))
    both = np.intersect1d(second[inner], second[outer])
    level = found.survey.rssi_dbm
    means = [level[inner & (second == one)].mean() - level[outer & (second == one)].mean() for one in both]
    return np.array(means, dtype=np.float64)


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def walked_again(found: SurveyRows) -> float:
    """Return the share (0..1) of rows near another part of the walk, so that the parts can be compared there."""
    cells, cell = np.unique(np.floor(found.survey.xy_m / AGAIN_M).astype(np.int64), axis=0, return_inverse=True)
    edges = np.linspace(found.t_s.min(), found.t_s.max() + 1e-6, FOLDS + 1)
    part = np.searchsorted(edges, found.t_s, side="right")
    parts = np.zeros((len(cells), FOLDS + 2), dtype=bool)
    parts[cell.reshape(-1), part] = True
    return float((parts.sum(axis=1) > 1)[cell.reshape(-1)].mean())


def joined(one: Survey, other: Survey) -> Survey:
    """Return both walk tests as one."""
    return Survey(
        np.concatenate([one.xy_m, other.xy_m]),
        np.concatenate([one.heading_deg, other.heading_deg]),
        np.concatenate([one.reader, other.reader]),
        np.concatenate([one.rssi_dbm, other.rssi_dbm]),
        np.concatenate([one.count, other.count]),
    )


def before_and_after(
    known: Survey, found: SurveyRows, track: Track, engine: SurveyReplay
) -> tuple[list[TimedFix], list[TimedFix]]:
    """Return the fixes of the walk without its own rows, and the fixes of each part with the rows of the other parts.

    No fix uses a row within GUARD_S of it. track: its times must be on the clock of the truth.
    """
    start_s, end_s = float(found.t_s.min()), float(found.t_s.max()) + 1e-6
    edges = np.linspace(start_s, end_s, FOLDS + 1)
    before: list[TimedFix] = []
    after: list[TimedFix] = []
    for from_s, to_s in pairwise(edges):
        part = _cut(track, from_s - LEAD_S, to_s)
        others = found.only((found.t_s < from_s - GUARD_S) | (found.t_s > to_s + GUARD_S))
        for fixes, survey in ((before, known), (after, joined(known, others))):
            fixes += [fix for fix in engine(survey, part) if from_s <= fix.t_s < to_s and fix.lag_s == 0]
    return before, after


def shifted(track: Track, shift_s: float) -> Track:
    """Return the track with its sightings shifted to another clock."""
    return replace(track, t_s=track.t_s + shift_s)


def _cut(track: Track, from_s: float, to_s: float) -> Track:
    kept = (track.t_s >= from_s) & (track.t_s < to_s)
    packets = None if track.packets is None else track.packets[kept]
    return replace(
        track, t_s=track.t_s[kept], reader=track.reader[kept], rssi_dbm=track.rssi_dbm[kept], packets=packets
    )
