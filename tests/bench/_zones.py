"""Zone changes and zone accuracy of our engine on recorded sites, counted as ../shared/bench/score.py does for peers.

A zone is the area nearest to one reader, or to either of two readers that are nearest to each other (merged). Two ways
to name a tag's zone both use the gateway's `Cells`, whose answer changes when the evidence is strong enough: "belief"
gives it the belief's mass in each zone, "circle" the mass of a round Gaussian as wide as the fix states.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.fix import Fix
from gateway.locate.tracker import LOOK_BACK, STEP_S
from gateway.presence.evidence import Cells
from gateway.survey import read
from gateway.survey.replay import ReplayEngine

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = dict[str, int]
Found = dict[tuple[str, str, str], list[Counts]]
"""(way, "instant" or "lagged", "single" or "merged") -> changes, true_changes, right and epochs of each track."""

LAG_S = LOOK_BACK * STEP_S
"""Lag of the lagged fixes: as far as a gateway looks back."""
WAYS = ("belief", "circle")
LAYOUTS = ("single", "merged")
R50_SDS = 1.1774
"""The radius that holds half of a round Gaussian, in standard deviations."""


def counted(shared: Any, folder: Path) -> Found:
    """Run our engine on those tracks of a site that have a timed truth and are not part of the survey."""
    site = read.load_site(folder)
    theirs = shared.site_io.load_site(folder)
    assert tuple(theirs.reader_ids) == site.reader_ids
    engine = ReplayEngine(site, read.load_survey(folder, site))
    found: Found = {}
    timed = [t for t in shared.site_io.load_tracks(folder, theirs) if t.truth_t_s is not None]
    ours = {track.name: track for track in read.load_tracks(folder, site)}
    for track in (t for t in timed if t.name not in theirs.seen_tracks):
        for layout in LAYOUTS:
            zone = shared.score.zones(theirs, layout == "merged")
            of = _zone_of(zone, theirs.readers_m[:, :2])
            shares = np.eye(len(zone))[of(engine.space.xy_m)]
            places = [str(n) for n in range(len(zone))]
            fixes = list(engine.fixes(ours[track.name], lag_s=LAG_S, shares=shares, places=places))
            for way in WAYS:
                for kind in ("instant", "lagged"):
                    some = sorted((f for f in fixes if (f.lag_s > 0) == (kind == "lagged")), key=_at_s)
                    said = list(_words(some, _circle(engine.space.xy_m, shares) if way == "circle" else _belief))
                    counts = _count(shared, track, of, said)
                    found.setdefault((way, kind, layout), []).extend(counts)
    return found


def summary(shared: Any, found: Iterable[Found], key: tuple[str, str, str]) -> dict[str, float] | None:
    """Return changes_per_min, true_changes_per_min and accuracy over several sites together; None if there are none."""
    summed = shared.score.zone_summary([counts for each in found for counts in each.get(key, [])])
    return None if summed is None else dict(summed)


def _words(fixes: Iterable[Fix], mass_of: Callable[[Fix], list[float]]) -> Iterator[tuple[float, int]]:
    zones = Cells()
    for fix in fixes:
        zone = zones.step(mass_of(fix), fix.fixed_at_s)
        if zone is not None:
            yield fix.fixed_at_s, zone


def _belief(fix: Fix) -> list[float]:
    return list(fix.places.values())


def _circle(xy_m: Floats, shares: Floats) -> Callable[[Fix], list[float]]:
    def mass(fix: Fix) -> list[float]:
        off2 = ((xy_m - (fix.x_m, fix.y_m)) ** 2).sum(axis=1) / (fix.radius_50_m / R50_SDS) ** 2
        weight = np.exp(-(off2 - off2.min()) / 2)
        found: list[float] = (weight @ shares / weight.sum()).tolist()
        return found

    return mass


def _zone_of(zone: Ints, readers_m: Floats) -> Callable[[Floats], Ints]:
    def of(xy_m: Floats) -> Ints:
        found: Ints = zone[np.argmin(((xy_m[:, None] - readers_m[None]) ** 2).sum(axis=-1), axis=1)]
        return found

    return of


def _count(shared: Any, track: Any, of: Callable[[Floats], Ints], said: list[tuple[float, int]]) -> list[Counts]:
    """Compare the newest answer with the truth at every whole second, as the scorer does with the newest fix."""
    t_s = shared.score.whole_epochs_s(track)
    at = np.searchsorted([s for s, _ in said], t_s + 1e-9, side="right") - 1
    t_s, at = t_s[at >= 0], at[at >= 0]
    if not len(t_s):
        return []
    got, real = np.array([zone for _, zone in said])[at], of(shared.score.truth_at(track, t_s))
    changes, true_changes = (int((each[1:] != each[:-1]).sum()) for each in (got, real))
    return [{"changes": changes, "true_changes": true_changes, "right": int((got == real).sum()), "epochs": len(t_s)}]


def _at_s(fix: Fix) -> float:
    return fix.fixed_at_s
