"""Errors and radii of fixes by site, standing and walking apart, with intervals that resample whole sites.

Fixes of one site err alike, so their number says little: an interval here asks how the figure would differ with other
sites of the same kind. It resamples the sites at hand (bootstrap), so with fewer than SITES_MIN of them there is none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.recording import Track

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

STANDING_M_S, AROUND_S = 0.1, 1.0
"""A tag stands at t if it moves less than this from AROUND_S before to AROUND_S after."""
EDGE_S = 1.0
"""Fixes this long before or after the truth are scored, as ../shared/bench/score.py does."""
SITES_MIN, RESAMPLED = 5, 400
SEED = 1


@dataclass(frozen=True)
class Held:
    """The fixes of one method on one site, one row each."""

    site: str
    off_m: Floats
    r50_m: Floats
    r90_m: Floats
    lagged: Bools
    standing: Bools
    at_m: Floats
    """(rows, 2): where the tag was."""

    def only(self, rows: Bools) -> "Held":
        return Held(
            self.site, self.off_m[rows], self.r50_m[rows], self.r90_m[rows], self.lagged[rows], self.standing[rows],
            self.at_m[rows],
        )  # fmt: skip


def held(site: str, tracks: Iterable[Track], fixes: Mapping[str, Sequence[Any]]) -> Held:
    """Compare fixes (t_s, x_m, y_m, r50_m, r90_m, lag_s) by track with the tracks' timed truth."""
    rows: list[tuple[float, ...]] = []
    for track in tracks:
        if track.truth_t_s is None or track.truth_xy_m is None:
            continue
        table = np.array([tuple(fix) for fix in fixes.get(track.name, ())], float).reshape(-1, 6)
        t_s = table[:, 0]
        real, before, after = (_at(track, t_s + shift_s) for shift_s in (0.0, -AROUND_S, AROUND_S))
        standing = np.linalg.norm(after - before, axis=1) < 2 * AROUND_S * STANDING_M_S
        off_m = np.linalg.norm(table[:, 1:3] - real, axis=1)
        inside = (t_s >= track.truth_t_s[0] - EDGE_S) & (t_s <= track.truth_t_s[-1] + EDGE_S)
        columns = np.column_stack([off_m, table[:, 3], table[:, 4], table[:, 5] > 0, standing, real])
        rows += [tuple(row) for row in columns[inside].tolist()]
    table = np.array(rows, float).reshape(-1, 7)
    lagged, standing = table[:, 3] > 0, table[:, 4] > 0
    return Held(site, table[:, 0], table[:, 1], table[:, 2], lagged, standing, table[:, 5:7])


def _at(track: Track, t_s: Floats) -> Floats:
    assert track.truth_t_s is not None
    assert track.truth_xy_m is not None
    return np.stack([np.interp(t_s, track.truth_t_s, track.truth_xy_m[:, axis]) for axis in (0, 1)], axis=1)


def cut(parts: Iterable[Held], *, lagged: bool, standing: bool | None = None) -> list[Held]:
    """Return the fixes of one kind; parts without any are left out. standing None: both."""
    found = []
    for part in parts:
        rows = part.lagged == lagged
        if standing is not None:
            rows &= part.standing == standing
        if rows.any():
            found.append(part.only(rows))
    return found


def mean_m(parts: Sequence[Held]) -> float:
    return float(np.concatenate([part.off_m for part in parts]).mean()) if parts else float("nan")


def quantile_m(parts: Sequence[Held], share: float) -> float:
    return float(np.quantile(np.concatenate([part.off_m for part in parts]), share)) if parts else float("nan")


def cover(parts: Sequence[Held], percent: int) -> float:
    """Return the share of fixes whose radius (50 or 90) held the truth."""
    if not parts:
        return float("nan")
    inside = [part.off_m <= (part.r50_m if percent == 50 else part.r90_m) for part in parts]
    return float(np.concatenate(inside).mean())


def ratio(mine: Sequence[Held], theirs: Sequence[Held]) -> float:
    """Return the geometric mean over sites of mean error to mean error: each site counts once, whatever its size."""
    other = {part.site: float(part.off_m.mean()) for part in theirs}
    logs = [np.log(float(part.off_m.mean()) / other[part.site]) for part in mine if other.get(part.site)]
    return float(np.exp(np.mean(logs))) if logs else float("nan")


def interval(parts: Sequence[Held], figure: Callable[[Sequence[Held]], float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure, sites resampled; None with fewer than SITES_MIN sites."""
    if len(parts) < SITES_MIN:
        return None
    rng = np.random.default_rng(SEED)
    found = [figure([parts[i] for i in rng.integers(0, len(parts), len(parts))]) for _ in range(RESAMPLED)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
