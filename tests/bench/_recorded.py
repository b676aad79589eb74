"""The recorded sites and the comparison tools of ../shared, and our engine run on these sites."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.recording import Survey
from gateway.survey import read
from gateway.survey.replay import ReplayEngine
from sim.walks import faults
from tests.roots import SHARED

SITES = SHARED / "data" / "rssi"
STILL = SHARED / "data" / "rssi_still"
TOOLS = SHARED / "bench"
LAG_S = 2.0
HEADINGS = "HMM heading + body"
FINE_MAX_M2 = 500.0
"""No recorded walk of a worn tag is on more ground. The reference has eight headings for every half metre of it."""


def missing() -> str | None:
    """Return a message about what is missing, or None."""
    for path in (TOOLS / "score.py", SITES):
        if not path.exists():
            return f"../shared/{path.relative_to(SHARED)} is not there; next: put ../shared next to the checkout"
    return None


def tools() -> Any:
    """Return the site reader, scorer, peers and reference of ../shared/bench. They import each other by name."""
    names = ("site_io", "channel", "peers", "reference", "score")
    sys.path.insert(0, str(TOOLS))
    try:
        return SimpleNamespace(**{name: import_module(name) for name in names})
    finally:
        sys.path.remove(str(TOOLS))


def site_folders(*, still: bool = False) -> list[Path]:
    """Return the recorded walks; still: also the sites whose tags never move."""
    homes = (SITES, STILL) if still else (SITES,)
    return sorted((path.parent for home in homes for path in home.glob("*/site.json")), key=lambda path: path.name)


@dataclass(frozen=True)
class Ours:
    """Fixes of our engine on one site, by track; the time per instant fix, lagged one included, and the start time."""

    fixes: dict[str, list[Any]]
    ms_per_fix: float
    start_ms: float


def ours(folder: Path) -> Ours:
    """Run our engine on every track of a site, as a technician would."""
    site = read.load_site(folder)
    survey = read.load_survey(folder, site)
    tracks = read.load_tracks(folder, site)
    started_s = time.perf_counter()
    engine = ReplayEngine(site, survey)
    begun_s = time.perf_counter()
    fixes: dict[str, list[Any]] = {track.name: list(engine.replay(track, lag_s=LAG_S)) for track in tracks}
    spent_s = time.perf_counter() - begun_s
    count = sum(fix.lag_s <= 0 for each in fixes.values() for fix in each)
    return Ours(fixes, 1e3 * spent_s / max(count, 1), 1e3 * (begun_s - started_s))


def faulty(folder: Path, fault: str, seed: int) -> "tempfile.TemporaryDirectory[str]":
    """Return a folder with a faulty copy of the site, as `folder.name`. It is deleted with the returned object."""
    home = tempfile.TemporaryDirectory(prefix="ansim-fault-")
    faults.copy(folder, Path(home.name) / folder.name, [fault], seed)
    return home


def scored(shared: Any, folder: Path, fixes: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the scorer's figures for fixes of the tracks of a site."""
    site = shared.site_io.load_site(folder)
    survey, tracks = shared.site_io.load_survey(folder, site), shared.site_io.load_tracks(folder, site)
    theirs = {name: [shared.peers.Fix(*fix) for fix in each] for name, each in fixes.items()}
    return dict(shared.score.score(site, survey, tracks, theirs))


def by_peers(shared: Any, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the scorer's figures for every peer and the reference, with `ms_per_fix`.

    A rule that needs a survey is left out where there is none, and headings where the tags never move.
    """
    site = shared.site_io.load_site(folder)
    survey, tracks = shared.site_io.load_survey(folder, site), shared.site_io.load_tracks(folder, site)
    makers = {**shared.peers.PEERS, **shared.reference.REFERENCES}
    if not len(survey.rssi_dbm):
        makers = {k: v for k, v in makers.items() if k not in shared.peers.NEEDS_SURVEY | shared.reference.NEEDS_SURVEY}
    if site.worn == "static":
        makers.pop(HEADINGS)
    found = {}
    for name, make in makers.items():
        fixes, spent_s, steps = {}, 0.0, 0
        for track in tracks:
            peer, cut = make(site, survey), shared.site_io.epochs(track, len(site.reader_ids))
            begun_s = time.perf_counter()
            fixes[track.name] = [fix for epoch in cut for fix in peer.step(epoch)] + peer.finish()
            spent_s, steps = spent_s + time.perf_counter() - begun_s, steps + len(cut)
        figures = shared.score.score(site, survey, tracks, fixes)
        found[name] = {**figures, "ms_per_fix": round(1e3 * spent_s / max(steps, 1), 3)}
    return found


def by_reference(shared: Any, folder: Path) -> dict[str, Any]:
    """Return the scorer's figures for the reference alone."""
    site = shared.site_io.load_site(folder)
    survey, tracks = shared.site_io.load_survey(folder, site), shared.site_io.load_tracks(folder, site)
    theirs = {name: [shared.peers.Fix(*fix) for fix in each] for name, each in reference_fixes(shared, folder).items()}
    return dict(shared.score.score(site, survey, tracks, theirs))


def reference_fixes(
    shared: Any, folder: Path, survey: Survey | None = None, only: Sequence[str] | None = None
) -> dict[str, list[Any]]:
    """Return the reference's fixes by track, with the site's survey or another one; only: names of tracks.

    For a worn tag on more than FINE_MAX_M2 its grid takes seconds a fix: there it is the EKF of ../shared.
    """
    site = shared.site_io.load_site(folder)
    if survey is None:
        known = shared.site_io.load_survey(folder, site)
    else:
        columns = survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count
        known = shared.site_io.Survey(*columns)
    coarse = site.worn == "body" and site.area_m2 > FINE_MAX_M2
    fixes: dict[str, list[Any]] = {}
    for track in (t for t in shared.site_io.load_tracks(folder, site) if only is None or t.name in only):
        peer = shared.peers.PEERS["EKF"](site, known) if coarse else shared.reference.reference(site, known)
        cut = shared.site_io.epochs(track, len(site.reader_ids))
        found = [fix for epoch in cut for fix in peer.step(epoch)] + peer.finish()
        fixes[track.name] = [(f.t_s, f.x_m, f.y_m, f.r50_m, f.r90_m, f.lag_s) for f in found]
    return fixes
