"""The recorded sites with parts of their surveys left out, and radii fitted on other sites than they are judged on.

Every fold runs the unchanged engine. What is left out of the survey is what the engine may not know of the fixes that
are then scored:

    whole        nothing: the survey as recorded
    thinned      all but every tenth place
    one way      rows whose heading is more than ONE_WAY_DEG from the commonest one
    route        places nearer than ROUTE_M to the way that the scored track takes
    quarter      a quarter of the ground and MARGIN_M round it; fixes within that quarter are scored, four times
    none         everything

The reference of ../shared gets the same survey. A fold that leaves fewer than ROWS_MIN rows says so.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.recording import RecordedSite, Survey, Track
from gateway.survey import read
from gateway.survey.replay import ReplayEngine
from tests.bench import _held, _recorded
from tests.bench._held import Bools, Floats, Held

FOLDS = ("whole", "thinned", "one way", "route", "quarter", "none")
THINNED_TO, ROUTE_M, MARGIN_M, ONE_WAY_DEG = 10, 0.75, 0.5, 60.0
ROWS_MIN = 30
LOOKED_AT = {
    "danis_room": "yes: constants, radii",
    "kolakowski_flat": "yes: constants, radii",
    "girolami_path1": "yes: body term",
    "girolami_path3": "yes: causes of errors",
    "lora_field": "yes: causes of errors",
}
"""Was the recording looked at while the engine's constants were chosen? No recording is left that was not."""
SAME_ROOM = {"girolami_path1": "girolami", "girolami_path3": "girolami"}
"""Recordings that are one site: the same room, readers and wearer. path3's survey is path 1's four runs, mirrored."""


@dataclass(frozen=True)
class Fold:
    """Fixes of ours and of the reference on one site with one part left out."""

    site: str
    name: str
    rows: int
    """Survey rows that were left, the mean over the fold's runs."""
    ours: Held | None
    reference: Held | None


def folds_of(shared: Any | None, folder: Path, names: Sequence[str] = FOLDS) -> Iterator[Fold]:
    """Run a site's folds; without the tools of ../shared, ours alone.

    A fold that its survey cannot have (no headings, too few rows) is left out or empty.
    """
    site = read.load_site(folder)
    survey = read.load_survey(folder, site)
    tracks = [t for t in read.load_tracks(folder, site) if t.truth_t_s is not None]
    unseen = [track for track in tracks if track.name not in site.seen_tracks]
    for name in names:
        if name in ("thinned", "one way", "route", "quarter") and not len(survey):
            continue
        if name == "none" and not len(survey):
            continue  # it is "whole"
        if name == "one way" and np.isnan(survey.heading_deg).all():
            continue
        yield _run(shared, folder, site, survey, unseen, name)


def _run(shared: Any | None, folder: Path, site: RecordedSite, survey: Survey, tracks: list[Track], name: str) -> Fold:
    ours: list[Held] = []
    theirs: list[Held] = []
    rows = []
    for left, scored, where in _parts(site, survey, tracks, name):
        rows.append(len(left))
        if name not in ("none", "whole") and len(left) < ROWS_MIN:
            continue
        engine = ReplayEngine(site, left)
        fixes = {track.name: list(engine.replay(track, lag_s=_recorded.LAG_S)) for track in scored}
        found = _held.held(site.name, scored, fixes)
        ours.append(found.only(where(found.at_m)))
        if shared is not None:
            other = _recorded.reference_fixes(shared, folder, left, only=[track.name for track in scored])
            found = _held.held(site.name, scored, other)
            theirs.append(found.only(where(found.at_m)))
    return Fold(site.name, name, round(float(np.mean(rows))), _together(ours), _together(theirs))


def _parts(
    site: RecordedSite, survey: Survey, tracks: list[Track], name: str
) -> Iterator[tuple[Survey, list[Track], Callable[[Floats], Bools]]]:
    """Yield (survey that is left, tracks to run, which places to score)."""
    if name == "whole":
        yield survey, tracks, _everywhere
    elif name == "none":
        yield Survey.empty(), tracks, _everywhere
    elif name == "thinned":
        places = np.unique(survey.xy_m, axis=0, return_inverse=True)[1].ravel()
        yield without(survey, places % THINNED_TO != 0), tracks, _everywhere
    elif name == "one way":
        heading = np.radians(survey.heading_deg)
        bins = np.round(survey.heading_deg[np.isfinite(heading)] / 45.0) % 8
        common = math.radians(45.0 * float(np.bincount(bins.astype(int)).argmax()))
        yield without(survey, ~(np.cos(heading - common) > math.cos(math.radians(ONE_WAY_DEG)))), tracks, _everywhere
    elif name == "route":
        for track in tracks:
            yield without(survey, _near(survey.xy_m, track)), [track], _everywhere
    else:
        x0, y0, x1, y1 = site.bounds_m
        for left, low in ((x0, y0), (x0, (y0 + y1) / 2), ((x0 + x1) / 2, y0), ((x0 + x1) / 2, (y0 + y1) / 2)):
            inside = _box(left, low, (x1 - x0) / 2, (y1 - y0) / 2)
            around = _box(left - MARGIN_M, low - MARGIN_M, (x1 - x0) / 2 + 2 * MARGIN_M, (y1 - y0) / 2 + 2 * MARGIN_M)
            yield without(survey, around(survey.xy_m)), tracks, inside


def without(survey: Survey, out: Bools) -> Survey:
    """Return a survey without some of its rows."""
    kept = ~out
    return Survey(
        survey.xy_m[kept], survey.heading_deg[kept], survey.reader[kept], survey.rssi_dbm[kept], survey.count[kept]
    )


def _everywhere(xy_m: Floats) -> Bools:
    return np.ones(len(xy_m), dtype=bool)


def _box(left_m: float, low_m: float, wide_m: float, high_m: float) -> Callable[[Floats], Bools]:
    def inside(xy_m: Floats) -> Bools:
        off = xy_m - (left_m, low_m)
        found: Bools = np.all((off >= 0) & (off < (wide_m, high_m)), axis=1)
        return found

    return inside


def _near(xy_m: Floats, track: Track) -> Bools:
    """Return which places are near the way of a track: its truth, every half second."""
    assert track.truth_t_s is not None
    assert track.truth_xy_m is not None
    t_s = np.arange(track.truth_t_s[0], track.truth_t_s[-1] + 0.5, 0.5)
    way = np.stack([np.interp(t_s, track.truth_t_s, track.truth_xy_m[:, axis]) for axis in (0, 1)], axis=1)
    places, place = np.unique(xy_m, axis=0, return_inverse=True)
    gap_m = np.array([np.linalg.norm(way - at, axis=1).min() for at in places])
    found: Bools = (gap_m < ROUTE_M)[place.ravel()]
    return found


def _together(parts: Sequence[Held]) -> Held | None:
    parts = [part for part in parts if len(part.off_m)]
    if not parts:
        return None
    return Held(
        parts[0].site, np.concatenate([p.off_m for p in parts]), np.concatenate([p.r50_m for p in parts]),
        np.concatenate([p.r90_m for p in parts]), np.concatenate([p.lagged for p in parts]),
        np.concatenate([p.standing for p in parts]), np.concatenate([p.at_m for p in parts]),
    )  # fmt: skip


def overview(folds: Sequence[Fold]) -> str:
    """Return Markdown: a row for each site as it was recorded, standing and walking apart."""
    lines = [
        "### Recorded sites, standing and walking apart", "",
        "| site | looked at before | fixes | ours, m | lagged | reference, m | lagged | 50/90 % walking | standing |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for fold in (fold for fold in folds if fold.name == "whole" and fold.ours is not None):
        fixes = int((~fold.ours.lagged).sum()) if fold.ours is not None else 0
        cells = [fold.site, LOOKED_AT.get(fold.site, "?"), str(fixes), *_means_and_shares(fold)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _means_and_shares(fold: Fold) -> list[str]:
    """Return the last six cells of a row: means of ours and of the reference, shares held walking and standing."""
    cells = []
    for method in (fold.ours, fold.reference):
        for lagged in (False, True):
            cells.append(_m(_held.mean_m(_held.cut([method] if method else [], lagged=lagged))))
    for standing in (False, True):
        parts = _held.cut([fold.ours] if fold.ours else [], lagged=False, standing=standing)
        cells.append("/".join(percent(_held.cover(parts, q)) for q in (50, 90)) if parts else "-")
    return cells


def table(folds: Sequence[Fold]) -> str:
    """Return Markdown: a row for each site and fold."""
    lines = [
        "### Parts of the survey left out", "",
        "| site | left out | rows left | ours, m | lagged | reference, m | lagged | 50/90 % walking | standing |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for fold in folds:
        cells = [fold.site, "-" if fold.name == "whole" else fold.name, str(fold.rows)]
        if fold.ours is None:
            lines.append(f"| {' | '.join([*cells, 'too few rows left', *['-'] * 5])} |")
            continue
        cells += _means_and_shares(fold)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def radii_left_out(folds: Sequence[Fold]) -> str:
    """Return Markdown: radii as they are, and multiplied by what all other sites would ask for; one room is one site.

    Only fixes with a survey: those without one have radii of their own, and one site.
    """
    whole = [fold.ours for fold in folds if fold.name == "whole" and fold.rows and fold.ours is not None]
    lines = [
        "### Radii judged on a site that their factor was not fitted on", "",
        "| site left out | kind | looked at before | as it is, 50/90 % | factors of the others | with these, 50/90 % |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for room in dict.fromkeys(SAME_ROOM.get(part.site, part.site) for part in whole):
        for kind, lagged in (("instant", False), ("lagged", True)):
            here, others = [
                _held.cut([p for p in whole if (SAME_ROOM.get(p.site, p.site) == room) == same], lagged=lagged)
                for same in (True, False)
            ]
            if not here or not others:
                continue
            factors = [_factor(others, q) for q in (50, 90)]
            then = [replace(p, r50_m=p.r50_m * factors[0], r90_m=p.r90_m * factors[1]) for p in here]
            shares = ["/".join(percent(_held.cover(parts, q)) for q in (50, 90)) for parts in (here, then)]
            known = next((words for name, words in LOOKED_AT.items() if SAME_ROOM.get(name, name) == room), "?")
            scales = " and ".join(f"{factor:.2f}" for factor in factors)
            lines.append(f"| {room} | {kind} | {known} | {shares[0]} | {scales} | {shares[1]} |")
    return "\n".join([*lines, ""])


def _factor(parts: Sequence[Held], q: int) -> float:
    """Return what the radii must be multiplied by so that they hold q per cent, each site counting the same."""
    ratios = [part.off_m / np.maximum(part.r50_m if q == 50 else part.r90_m, 1e-6) for part in parts]
    weights = np.concatenate([np.full(len(each), 1.0 / len(each)) for each in ratios])
    every = np.concatenate(ratios)
    order = np.argsort(every)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(every[order][min(int(np.searchsorted(reached, q / 100.0)), len(every) - 1)])


def figures(folds: Iterable[Fold]) -> dict[str, float | int | str]:
    found: dict[str, float | int | str] = {}
    for fold in folds:
        if fold.ours is None:
            continue
        label = f"{fold.site}_without_{fold.name.replace(' ', '_')}" if fold.name != "whole" else f"{fold.site}_whole"
        for kind, lagged in (("instant", False), ("lagged", True)):
            parts = _held.cut([fold.ours], lagged=lagged)
            found[f"{label}_{kind}_ours_mean_m"] = round(_held.mean_m(parts), 3)
            if fold.reference is not None:
                other = _held.cut([fold.reference], lagged=lagged)
                found[f"{label}_{kind}_reference_mean_m"] = round(_held.mean_m(other), 3)
            for q in (50, 90):
                found[f"{label}_{kind}_ours_cover{q}"] = round(_held.cover(parts, q), 3)
    return found


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f}"


def _m(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
