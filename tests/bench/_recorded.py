"""The recorded sites and the comparison tools of ../shared, and our engine run on these sites."""

import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.survey import read
from gateway.survey.replay import ReplayEngine
from sim.walks import faults
from tests.roots import SHARED

SITES = SHARED / "data" / "rssi"
TOOLS = SHARED / "bench"
LAG_S = 2.0


def missing() -> str | None:
    """Return a message about what is missing, or None."""
    for path in (TOOLS / "score.py", SITES):
        if not path.exists():
            return f"../shared/{path.relative_to(SHARED)} is not there"
    return None


def tools() -> Any:
    """Return the site reader, scorer, peers and reference of ../shared/bench. They import each other by name."""
    names = ("site_io", "channel", "peers", "reference", "score")
    sys.path.insert(0, str(TOOLS))
    try:
        return SimpleNamespace(**{name: import_module(name) for name in names})
    finally:
        sys.path.remove(str(TOOLS))


def site_folders() -> list[Path]:
    return sorted(path.parent for path in SITES.glob("*/site.json"))


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


def by_reference(shared: Any, folder: Path) -> dict[str, Any]:
    """Return the scorer's figures for the reference alone."""
    site = shared.site_io.load_site(folder)
    survey, tracks = shared.site_io.load_survey(folder, site), shared.site_io.load_tracks(folder, site)
    fixes = {}
    for track in tracks:
        peer = shared.reference.reference(site, survey)
        cut = shared.site_io.epochs(track, len(site.reader_ids))
        fixes[track.name] = [fix for epoch in cut for fix in peer.step(epoch)] + peer.finish()
    return dict(shared.score.score(site, survey, tracks, fixes))
