"""Runs the engine over a recorded site: what it would have reported, second by second. A live gateway has the same one.

Nothing is set by hand. A recorded zone (`zone_of`) uses the parts of a gateway: the ground with yards and doors, the
sectors, the walk test or the law of streets. Any other site uses its footpaths if it has them, else open ground; and a
map if there is a survey, else the law of the devices. For a worn tag that law is used twice, with the body in front of
the tag and behind it, because it was not measured which is true.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.hearing import Hearing
from gateway.locate.locator import POWER_DBM, ZoneLocator
from gateway.locate.models import models_of
from gateway.locate.space import Space, footpaths, open_ground
from gateway.locate.tracker import Tracker
from gateway.locate.ways import chains
from gateway.presence.changes import Arrived, DangerChange, Left
from gateway.presence.settle import Settler
from gateway.recording import Floats, RecordedSite, Survey, TimedFix, Track, moved
from gateway.zone import DangerArea, Footpath, Gate, LonLat, Place, Plane, Reader, Zone

LAG_S, LAG_MAX_S = 3.0, 10.0
CELLS, STEP_MIN_M = 1600, 0.25
"""Cells of open ground: about this many, and none smaller than STEP_MIN_M."""
PATH_CELLS, PATH_STEP_MIN_M = 800, 0.5
GAP_S = 60.0
"""After a longer silence, a track starts again."""
LAT_MAX_DEG = 85.0
"""No zone is nearer to a pole, where metres no longer fit degrees."""
TAG = 0
OnChange = Callable[[float, Arrived | Left | DangerChange], None]
"""Called with the second of the track and the change."""
_NUMBER = re.compile(r"[1-9][0-9]{0,4}")


class ReplayEngine:
    """The engine of one site and what it is built of; it serves all tracks of the site."""

    def __init__(self, site: RecordedSite, survey: Survey) -> None:
        self.site = site
        self.notes: list[str] = []
        """Where the ground is other than expected, and where the walk test is of no use."""
        self._surveyed = len(survey) > 0
        self._locator: ZoneLocator | None = None
        self._numbers: Sequence[int] = range(len(site.reader_ids))
        zone = zone_of(site)
        if zone is None or site.origin_lonlat is None:
            self.space = space_of(site)
            self.hearings = [Hearing(self.space, model) for model in models_of(site, survey)]
            return
        self._zone, ground = zone, Ground(zone)
        self.notes += ground.notes
        self.space = ground.space
        self.hearings = []  # each sector of a zone has its own hearings
        self._numbers = [reader.number for reader in zone.readers]
        self._there, self._here = ground.plane, Plane(*site.origin_lonlat)
        self._locator = ZoneLocator(ground, Counter())
        if self._surveyed:
            self._learn(self._locator, survey)

    def replay(self, track: Track, *, lag_s: float = LAG_S, told: OnChange | None = None) -> Iterator[TimedFix]:
        """Yield a fix at the end of every second in which the tag was heard, and with lag_s > 0 its smoothed fix too.

        A smoothed fix uses what was heard up to lag_s (whole seconds, at most LAG_MAX_S) later, or up to the end.
        told: called with what the gateway of a recorded zone would have concluded about places and danger areas.
        """
        for fix in self.fixes(track, lag_s=lag_s, told=told):
            yield TimedFix(fix.fixed_at_s, fix.x_m, fix.y_m, fix.radius_50_m, fix.radius_90_m, fix.lag_s)

    def fixes(
        self,
        track: Track,
        *,
        lag_s: float = LAG_S,
        shares: Any | None = None,
        places: Sequence[str] = (),
        told: OnChange | None = None,
    ) -> Iterator[Fix]:
        """Yield the fixes of `replay` as a gateway has them. In a zone they include its places and danger areas.

        shares [cells of `space`, places] and places: see `Tracker`; a zone does not use them.
        """
        lag = max(0, min(round(lag_s), round(LAG_MAX_S)))
        locator = self._locator
        if locator is not None:
            power_dbm = next((p for p in (track.power_dbm, self.site.tag_power_dbm) if p is not None), POWER_DBM)
            settler = Settler(self._zone, self._there, {})
            for fix in self._run(
                track, lag, lambda: locator.anew(look_back=lag, late_every=min(lag, 1), batch=1), power_dbm,
                lambda reading, now_s: settler.hear(TAG, reading, now_s),
            ):  # fmt: skip
                if told is not None and not fix.lag_s:
                    for change in settler.step(TAG, fix, None, fix.fixed_at_s):
                        if isinstance(change, Arrived | Left | DangerChange):
                            told(fix.fixed_at_s, change)
                x_m, y_m = self._here.to_xy_m(*self._there.to_lonlat(fix.x_m, fix.y_m))
                yield replace(fix, x_m=x_m, y_m=y_m)
            return

        def new() -> Tracker:
            return Tracker(
                self.space, self.hearings, self._numbers, Counter(), shares=shares, places=places, look_back=lag,
                late_every=min(lag, 1), batch=1, surveyed=self._surveyed,
            )  # fmt: skip

        yield from self._run(track, lag, new, 0.0)

    def _run(
        self,
        track: Track,
        lag: int,
        new: Callable[[], Tracker | ZoneLocator],
        power_dbm: float,
        heard: Callable[[Reading, float], None] | None = None,
    ) -> Iterator[Fix]:
        tracker, began_s, told = new(), -math.inf, set[float]()
        at_s = -math.inf
        for second, rows in _seconds(track):
            if second - at_s > GAP_S:
                yield from _rest(tracker, lag, told)
                tracker, began_s = new(), second
            for passed_s in np.arange(max(at_s + 1, began_s), second - 0.5).tolist():
                for _, _, late in _step(tracker, passed_s):
                    if late is not None and late.fixed_at_s in told:
                        yield late
            for i in rows:
                packets = 1 if track.packets is None else int(track.packets[i])
                number, level = self._numbers[int(track.reader[i])], float(track.rssi_dbm[i])
                # `Reading`'s levels are whole in a live gateway; a recording may hold means.
                reading = Reading(number, level, packets, float(track.t_s[i]), power_dbm)  # type: ignore[arg-type]
                tracker.hear(TAG, reading, second)
                if heard is not None:
                    heard(reading, second)
            told.add(second)
            for _, fix, late in _step(tracker, second):
                yield fix
                if late is not None and late.fixed_at_s in told:
                    yield late
            at_s = second
        yield from _rest(tracker, lag, told)

    def _learn(self, locator: ZoneLocator, survey: Survey) -> None:
        """Give each sector the walk test of its part, as a gateway does after its start."""
        names = tuple(map(str, self._numbers))
        readers_m = np.column_stack(
            [moved(self.site.readers_m[:, :2], self._here, self._there), self.site.readers_m[:, 2]]
        )
        walked = (
            replace(self.site, reader_ids=names, readers_m=readers_m),
            replace(survey, xy_m=moved(survey.xy_m, self._here, self._there)),
        )
        unwalked = 0
        for sector in range(locator.sectors):
            hearings = locator.fitted(sector, walked)
            unwalked += not hearings
            locator.learn(sector, hearings)
        if unwalked:
            parts = f"{unwalked} of {locator.sectors} parts of the zone" if locator.sectors > 1 else "the zone"
            self.notes.append(
                f"{parts}: the walk test holds too little, so the law of streets is taken as on a gateway"
            )


def replay(site: RecordedSite, survey: Survey, track: Track, *, lag_s: float = LAG_S) -> Iterator[TimedFix]:
    """Yield the fixes that the engine would have made of a track: see `ReplayEngine.replay`."""
    yield from ReplayEngine(site, survey).replay(track, lag_s=lag_s)


def zone_of(site: RecordedSite) -> Zone | None:
    """Return the zone of the gateway that recorded a site; None if no gateway did.

    Such a site has an origin, and places, danger areas or footpaths. It has no `channel`, a law that no gateway has.
    Readers keep their numbers if all their ids are numbers.
    """
    mapped = site.places is not None or site.dangers is not None or site.footpaths
    if site.origin_lonlat is None or abs(site.origin_lonlat[1]) > LAT_MAX_DEG or site.channel is not None or not mapped:
        return None
    plane = Plane(*site.origin_lonlat)

    def shape(points_m: Floats) -> tuple[LonLat, ...]:
        return tuple(plane.to_lonlat(float(x), float(y)) for x, y in points_m)

    named = all(_NUMBER.fullmatch(name) for name in site.reader_ids)
    numbers = [int(name) if named else n for n, name in enumerate(site.reader_ids, 1)]
    look = np.full(len(numbers), math.nan) if site.look is None else site.look
    guards = site.guards or (None,) * len(numbers)
    readers_m = site.readers_m
    spots = zip(numbers, shape(readers_m[:, :2]), readers_m[:, 2].tolist(), look.tolist(), guards, strict=True)
    return Zone(
        readers=tuple(
            Reader(
                n,
                f"{n:016x}",
                lon,
                lat,
                height_m,
                antenna="dipole" if math.isnan(angle) else "patch",
                look_deg=None if math.isnan(angle) else _compass(math.degrees(angle)),
                gate=guard[0] if guard else None,
                side=guard[1] if guard else None,
            )
            for n, (lon, lat), height_m, angle, guard in spots
        ),
        gates=tuple(
            Gate(gate.id, gate.place, *plane.to_lonlat(*gate.at_m), _compass(gate.inward_deg), gate.width_m)
            for gate in site.gates
        ),
        places=tuple(Place(area.id, "other", shape(area.ring_m)) for area in site.places or ()),
        dangers=tuple(DangerArea(area.id, shape(area.ring_m), area.warn_m) for area in site.dangers or ()),
        footpaths=tuple(Footpath(shape(line)) for line in site.footpaths),
    )


def _compass(heading_deg: float) -> float:
    """Return a heading as a compass shows it: degrees clockwise from north."""
    return (90.0 - heading_deg) % 360.0


def space_of(site: RecordedSite) -> Space:
    """Return the states of a site that is no zone: its footpaths if it has some, else the ground in its bounds."""
    lines = [[(float(x), float(y)) for x, y in line] for line in site.footpaths]
    ways = chains(lines)
    if ways:
        length_m = sum(way.length_m for way in ways)
        return footpaths(ways, max(PATH_STEP_MIN_M, length_m / PATH_CELLS))
    x0, y0, x1, y1 = site.bounds_m
    step_m = max(STEP_MIN_M, math.sqrt(max((x1 - x0) * (y1 - y0), 1e-6) / CELLS), (x1 - x0 + y1 - y0) / CELLS)
    return open_ground(x0, y0, x1, y1, step_m)


def _seconds(track: Track) -> Iterator[tuple[float, Any]]:
    """Yield (end of the second, rows of the track within it). The last second is left out if the track ends in it."""
    if not len(track.t_s):
        return
    ends = np.maximum(np.ceil(track.t_s - 1e-9), 1.0)
    last_s = track.t_s[-1]
    starts = np.flatnonzero(np.diff(ends, prepend=-1.0))
    for first, stop in zip(starts, [*starts[1:], len(ends)], strict=True):
        if ends[first] <= last_s + 1e-9:
            yield float(ends[first]), range(first, stop)


def _step(tracker: Tracker | ZoneLocator, now_s: float) -> Iterator[tuple[int, Fix, Fix | None]]:
    yield from tracker.step(now_s, _never_silent)
    if isinstance(tracker, ZoneLocator):  # a tag that changed sectors starts in the new one at once, as on a gateway
        yield from tracker.step(now_s, _never_silent)


def _rest(tracker: Tracker | ZoneLocator, lag: int, told: set[float]) -> Iterator[Fix]:
    """Yield the smoothed fixes of the last seconds, for which less was heard afterwards."""
    for back in range(lag - 1, 0, -1):
        fix = tracker.back(TAG, back)
        if fix is not None and fix.fixed_at_s in told:
            yield fix


def _never_silent(reader: int) -> bool:
    return False
