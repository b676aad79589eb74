"""The engine over a recorded site: what it would have said, second by second. The very engine of a live gateway.

Nothing is set by hand: footpaths where the site has them, else open ground; a map where there is a survey, else the law
of the devices, for a body before the tag and one behind it, where nobody measured which.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gateway.locate import Fix, Reading
from gateway.locate.hearing import TEMPER, TEMPER_UNSURVEYED, Hearing
from gateway.locate.models import models_of
from gateway.locate.space import Space, footpaths, open_ground
from gateway.locate.tracker import Tracker
from gateway.locate.ways import chains
from gateway.site import Site, Survey, TimedFix, Track

LAG_S, LAG_MAX_S = 3.0, 10.0
CELLS, STEP_MIN_M = 1600, 0.25
"""Of open ground: about so many, and none smaller."""
PATH_CELLS, PATH_STEP_MIN_M = 800, 0.5
GAP_S = 60.0
"""After such a silence a track begins anew."""
TAG = 0


class Engine:
    """What a site's engine is built of; it serves all tracks of the site."""

    def __init__(self, site: Site, survey: Survey) -> None:
        self.site = site
        self.space = space_of(site)
        self._surveyed = len(survey) > 0
        temper = TEMPER if self._surveyed else TEMPER_UNSURVEYED
        self.hearings = [Hearing(self.space, model, temper=temper) for model in models_of(site, survey)]

    def replay(self, track: Track, *, lag_s: float = LAG_S) -> Iterator[TimedFix]:
        """Yield a fix at the end of every second in which the tag was heard, and with lag_s > 0 its smoothed one.

        A smoothed fix has heard what came up to lag_s (whole seconds, at most LAG_MAX_S) later, or up to the end.
        """
        for fix in self.fixes(track, lag_s=lag_s):
            yield TimedFix(fix.fixed_at_s, fix.x_m, fix.y_m, fix.radius_50_m, fix.radius_90_m, fix.lag_s)

    def fixes(
        self, track: Track, *, lag_s: float = LAG_S, shares: Any | None = None, places: Sequence[str] = ()
    ) -> Iterator[Fix]:
        """Yield what `replay` does, as the gateway has it. shares [cells of `space`, places]: see `Tracker`."""
        lag = max(0, min(round(lag_s), round(LAG_MAX_S)))

        def new() -> Tracker:
            readers = range(len(self.site.reader_ids))
            return Tracker(
                self.space, self.hearings, readers, Counter(), shares=shares, places=places, look_back=lag,
                late_every=1 if lag else 0, batch=1, surveyed=self._surveyed,
            )  # fmt: skip

        tracker, began_s, told = new(), -math.inf, set[float]()
        at_s = -math.inf
        for second, rows in _seconds(track):
            if second - at_s > GAP_S:
                yield from _rest(tracker, lag, told)
                tracker, began_s = new(), second
            for i in rows:
                packets = 1 if track.packets is None else int(track.packets[i])
                level = float(track.rssi_dbm[i])
                # `Reading.rssi_dbm` is whole in a live gateway; a recording may hold means.
                tracker.hear(TAG, Reading(int(track.reader[i]), level, packets, float(track.t_s[i]), 0), second)  # type: ignore[arg-type]
            told.add(second)
            for passed_s in np.arange(max(at_s + 1, began_s), second + 0.5):
                for _, fix, late in tracker.step(float(passed_s), _lives):
                    if passed_s == second:
                        yield fix
                    if late is not None and late.fixed_at_s in told:
                        yield late
            at_s = second
        yield from _rest(tracker, lag, told)


def replay(site: Site, survey: Survey, track: Track, *, lag_s: float = LAG_S) -> Iterator[TimedFix]:
    """Yield what the engine would have said of a track: see `Engine.replay`."""
    yield from Engine(site, survey).replay(track, lag_s=lag_s)


def space_of(site: Site) -> Space:
    """Return the states of a site: its footpaths where it has some, else the ground within its bounds."""
    lines = [[(float(x), float(y)) for x, y in line] for line in site.footpaths]
    ways = chains(lines)
    if ways:
        length_m = sum(way.length_m for way in ways)
        return footpaths(ways, max(PATH_STEP_MIN_M, length_m / PATH_CELLS))
    x0, y0, x1, y1 = site.bounds_m
    step_m = max(STEP_MIN_M, math.sqrt(max((x1 - x0) * (y1 - y0), 1e-6) / CELLS), (x1 - x0 + y1 - y0) / CELLS)
    return open_ground(x0, y0, x1, y1, step_m)


def _seconds(track: Track) -> Iterator[tuple[float, Any]]:
    """Yield (end of the second, rows of the track within it); the last, broken second is left out as it is nowhere."""
    if not len(track.t_s):
        return
    ends = np.maximum(np.ceil(track.t_s - 1e-9), 1.0)
    last_s = track.t_s[-1]
    starts = np.flatnonzero(np.diff(ends, prepend=-1.0))
    for first, stop in zip(starts, [*starts[1:], len(ends)], strict=True):
        if ends[first] <= last_s + 1e-9:
            yield float(ends[first]), range(first, stop)


def _rest(tracker: Tracker, lag: int, told: set[float]) -> Iterator[Fix]:
    """The smoothed fixes of the last seconds, which heard less of what came after."""
    for back in range(lag - 1, 0, -1):
        fix = tracker.back(TAG, back)
        if fix is not None and fix.fixed_at_s in told:
            yield fix


def _lives(reader: int) -> bool:
    return False
