"""Runs the engine over a recorded site and reports its errors. The engine is passed as a function: see `replay`."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.recording import Floats, RecordedSite, Survey, TimedFix, Track

TrackReplay = Callable[[Track], Iterable[TimedFix]]


@dataclass(frozen=True, slots=True)
class Score:
    """The errors of the fixes of one kind, in metres; NaN if there is no truth."""

    fixes: int
    median_m: float
    mean_m: float
    p90_m: float
    cover_50: float
    """Share of fixes with the truth within their 50 % radius."""
    cover_90: float


@dataclass(frozen=True, slots=True)
class LocatedTrack:
    """A track, its fixes, and the computing time."""

    track: Track
    fixes: tuple[TimedFix, ...]
    ms_per_fix: float
    """Milliseconds for one instant fix, including the late fix made with it."""

    def kinds(self) -> list[float]:
        """Return the kinds of fixes: 0 for instant ones, then the longest lag of late ones if there are any."""
        late = max((fix.lag_s for fix in self.fixes), default=0.0)
        return [0.0, late] if late else [0.0]

    def of(self, kind: float) -> list[TimedFix]:
        """Return the fixes of a kind. At the end of a track late ones have less lag, because nothing more comes."""
        return [fix for fix in self.fixes if (fix.lag_s > 0) == (kind > 0)]


def located(track: Track, engine: TrackReplay) -> LocatedTrack:
    """Run the engine over a track."""
    start_s = time.perf_counter()
    fixes = tuple(engine(track))
    took_s = time.perf_counter() - start_s
    return LocatedTrack(track, fixes, 1000 * took_s / max(sum(fix.lag_s == 0 for fix in fixes), 1))


def errors_m(track: Track, fixes: Iterable[TimedFix]) -> Floats:
    """Return (fixes, 3): the error of each and its two radii. Fixes before and after the truth are left out.

    If only the path is known, the error is the distance to the path, which is too good.
    """
    table = np.array([fix[:5] for fix in fixes], dtype=float).reshape(-1, 5)
    if track.truth_t_s is not None and track.truth_xy_m is not None:
        table = table[(table[:, 0] >= track.truth_t_s[0]) & (table[:, 0] <= track.truth_t_s[-1])]
        truth = [np.interp(table[:, 0], track.truth_t_s, track.truth_xy_m[:, axis]) for axis in (0, 1)]
        off = np.hypot(table[:, 1] - truth[0], table[:, 2] - truth[1])
    elif track.path_xy_m is not None:
        off = _distance_to_line_m(table[:, 1:3], track.path_xy_m)
    else:
        return np.zeros((0, 3))
    return np.column_stack([off, table[:, 3:5]])


def score(fixes: int, errors: Floats) -> Score:
    """Return the figures of `errors_m`."""
    if not len(errors):
        return Score(fixes, *[float("nan")] * 5)
    off = errors[:, 0]
    held_50, held_90 = (off <= errors[:, 1]).mean(), (off <= errors[:, 2]).mean()
    median_m, p90_m = np.percentile(off, [50, 90])
    return Score(fixes, float(median_m), float(off.mean()), float(p90_m), float(held_50), float(held_90))


def table(runs: Sequence[LocatedTrack], site: RecordedSite) -> Iterator[str]:
    """Yield the lines of a table: one for each track and kind of fix, and one for all tracks not in the walk test."""
    yield (
        f"{'track':24} {'rows':>7} {'skipped':>7} {'kind':>8} {'fixes':>6} {'median':>7} {'mean':>7} {'90 %':>7} "
        f"{'in r50':>6} {'in r90':>6} {'ms/fix':>7}"
    )
    pooled: dict[float, list[Floats]] = {}
    for run in runs:
        track = run.track
        seen = track.name in site.seen_tracks
        name = f"{track.name[:22]} *" if seen else track.name[:24]
        for lag_s in run.kinds():
            fixes = run.of(lag_s)
            errors = errors_m(track, fixes)
            if not seen:
                pooled.setdefault(lag_s, []).append(errors)
            first = f"{name:24} {len(track.t_s):7} {sum(track.skipped.values()):7}" if not lag_s else " " * 40
            cost = "" if lag_s else f" {run.ms_per_fix:7.2f}"
            yield f"{first} {_row(lag_s, score(len(fixes), errors))}{cost}"
        for reason, count in track.skipped.items():
            yield f"    {count} rows left out: {reason}"
    if any(run.track.name in site.seen_tracks for run in runs):
        yield "* is in the walk test as well: its errors flatter, and count in no sum"
    for lag_s, parts in sorted(pooled.items()):
        together = np.concatenate(parts)
        if len(together) and len(parts) > 1:
            yield f"{'all unseen tracks':24} {'':7} {'':7} {_row(lag_s, score(len(together), together))}"


def _row(lag_s: float, s: Score) -> str:
    kind = f"lag {lag_s:g} s" if lag_s else "instant"
    metres = " ".join(f"{value:7.2f}" if value == value else f"{'-':>7}" for value in (s.median_m, s.mean_m, s.p90_m))
    held = " ".join(f"{100 * v:4.0f} %" if v == v else f"{'-':>6}" for v in (s.cover_50, s.cover_90))
    return f"{kind:>8} {s.fixes:6} {metres} {held}"


def _distance_to_line_m(points: Floats, line: Floats) -> Floats:
    nearest: Floats = np.full(len(points), np.inf)
    for a, b in itertools.pairwise(line):
        along = b - a
        length2 = float(along @ along)
        part = np.clip((points - a) @ along / length2, 0, 1) if length2 else np.zeros(len(points))
        nearest = np.minimum(nearest, np.hypot(*(points - a - part[:, None] * along).T))
    return nearest


def inputs_line(site: RecordedSite, survey: Survey) -> str:
    """Return one line on what the engine can use."""
    walked = "a walk test" if len(survey) else "no walk test"
    directions = int(np.isfinite(survey.heading_deg).sum())
    rows = f" of {len(survey)} rows, {directions} with a direction" if len(survey) else ""
    return f"{site.name}: {len(site.reader_ids)} readers, {walked}{rows}, tag worn: {site.worn}, {site.radio}"
