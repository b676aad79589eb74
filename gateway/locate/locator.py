"""The locating engine of a whole zone: one tracker for each sector of its ground. Tags move from one to the next."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.hearing import Hearing
from gateway.locate.models import models_of, models_of_street, of_readers
from gateway.locate.sectors import Sector
from gateway.locate.tracker import STEP_S, Tracker
from gateway.recording import RecordedSite, Survey

Walked = tuple[RecordedSite, Survey]
"""A zone's walk test on its ground's plane. Its reader ids are the readers' numbers as text."""

POWER_DBM = -59.0
"""Level of a tag at 1 m, if a walk test does not say it; also used for the floor of hearing."""
WALKED_ROWS, WALKED_SHARE = 10, 0.5
"""A sector was walked if WALKED_SHARE of its home readers have WALKED_ROWS rows each. A few packets heard from the next
street say nothing about this one, but would give it the radii of a measured street."""
MOVE_STEPS = 3
"""After this many fixes in a row nearest to a reader of another sector, a tag moves there."""
LOST_S = 3.0
"""If for this long only readers outside its sector hear a tag, it begins again in their sector."""
CARRIED_MIN = 0.2
"""With a smaller share of its belief in the new sector, a tag begins again there."""
WALL_STEP_DB = 1.0
"""A wall's loss that changed by less is not worth computing the expected levels again."""
BREATH_S = 0.002
"""Pause between two batches, for all other work."""


class ZoneLocator:
    """The `Locator` of a zone. `hear` takes readings. `step` does a second's work in batches and yields fixes."""

    def __init__(
        self,
        ground: Ground,
        counts: Counter[str],
        *,
        routes: Mapping[int, int] | None = None,
        survey: Walked | None = None,
    ) -> None:
        """routes: tag -> index of its own route in the ground's routes. survey: a walk test to be fitted at once. A
        gateway listens first; later it passes the result of `fitted` for each sector to `learn`.
        """
        self._ground, self._counts, self._routes = ground, counts, dict(routes or {})
        self._surveyed = [False] * len(ground.sectors)
        self._walls_db: dict[str, float] = {}
        self._hearings: list[Sequence[Hearing]] = [_of_street(ground, sector, {}) for sector in ground.sectors]
        self._options: dict[str, int] = {}
        self._trackers = [self._tracker(sector) for sector in range(len(ground.sectors))]
        self._sector: dict[int, int] = {}
        self._away: dict[int, tuple[int, int]] = {}
        """Tag -> (sector it seems to be in, fixes in a row that say so)."""
        self._latest: dict[int, Fix] = {}
        self._worked_at_s = -math.inf
        self._spots = np.array([at[:2] for at in ground.readers.values()]).reshape(-1, 2)
        self._homes = [ground.home[number] for number in ground.readers]
        if survey is not None:
            for sector in range(self.sectors):
                self.learn(sector, self.fitted(sector, survey))

    @property
    def sectors(self) -> int:
        """Number of sectors of the ground."""
        return len(self._trackers)

    def home(self, sector: int) -> tuple[int, ...]:
        """Return the home readers of a sector."""
        return self._ground.sectors[sector].home

    def fitted(self, sector: int, survey: Walked) -> list[Hearing] | None:
        """Return a sector's hearings by a walk test; [] if the sector was not walked, None if the test is unusable.

        This may take seconds. It reads only what never changes, so another thread may call it.
        """
        part = self._ground.sectors[sector]
        try:
            site, rows = of_readers(*survey, [str(number) for number in part.readers])
            if not self._walked(part, rows):
                return []
            power_dbm = POWER_DBM if site.tag_power_dbm is None else site.tag_power_dbm
            site = replace(site, look=np.array(_looks(self._ground, part)))
            models = models_of(site, rows, power_dbm=power_dbm, walls=tuple(self._ground.walls.values()))
            hearings = [Hearing(part.space, model, power_dbm=power_dbm) for model in models]
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            return None
        usable = all(np.isfinite(each.mean).all() and np.isfinite(each.usual_db2).all() for each in hearings)
        return hearings if usable else None

    def learn(self, sector: int, hearings: Sequence[Hearing] | None) -> None:
        """Take what `fitted` returned. With new hearings the sector's beliefs begin again. Not while `step` runs."""
        if hearings is None:
            self._counts["walk_tests_unusable"] += 1
        if hearings:
            self._surveyed[sector], self._hearings[sector] = True, hearings
            self._trackers[sector] = self._tracker(sector)

    def walked_db(self) -> dict[int, float]:
        """Return by how many dB readers hear louder than the mean of their sector, by the walk test; {} without one."""
        found: dict[int, float] = {}
        for part, hearings, surveyed in zip(self._ground.sectors, self._hearings, self._surveyed, strict=True):
            p0_db = hearings[0].p0_db if surveyed else None
            if p0_db is not None:
                offsets = zip(part.readers, p0_db - p0_db.mean(), strict=True)
                found |= {number: float(db) for number, db in offsets if number in part.home}
        return found

    def anew(self, **options: int) -> "ZoneLocator":
        """Return a locator with the same hearings that follows no tag yet, for a replay. options: `Tracker`'s
        look_back, late_every and batch, which change what is reported of a belief and not what is believed.
        """
        other = copy(self)
        other._options = options
        other._trackers = [other._tracker(sector) for sector in range(self.sectors)]
        other._sector, other._away, other._latest = {}, {}, {}
        other._worked_at_s = -math.inf
        return other

    def hear(self, tag: int, reading: Reading, now_s: float) -> None:
        """Take a reading of a tag; it counts at the tag's next step."""
        home = self._ground.home.get(reading.reader)
        if home is None:
            self._counts["readings_unknown_reader"] += 1
            return
        at = self._sector.get(tag)
        if at is None or not self._trackers[at].follows(tag):
            at = self._sector[tag] = home
        elif (
            reading.reader not in self._ground.sectors[at].readers
            and self._trackers[at].heard_at_s(tag) < reading.heard_at_s - LOST_S
        ):
            self._trackers[at].leave(tag)
            self._counts["tags_lost_and_found"] += 1
            at = self._sector[tag] = home
        if reading.reader in self._ground.sectors[at].readers:
            self._trackers[at].hear(tag, reading, now_s)

    def step(self, now_s: float, is_silent: Callable[[int], bool]) -> Iterator[tuple[int, Fix, Fix | None]]:
        """Do one batch of tags; yield (tag, fix, smoothed fix or None). `deadline_s` says when to call again."""
        self._worked_at_s = now_s
        ready = next((t for t in self._trackers if t.busy), None) or min(self._trackers, key=Tracker.deadline_s)
        for tag, fix, late in ready.step(now_s, is_silent):
            last = self._latest.get(tag)
            if last is not None and fix.fixed_at_s < last.fixed_at_s + STEP_S / 2:
                continue  # it moved into this sector within this second and has its fix
            self._latest[tag] = fix
            yield tag, fix, late
            if len(self._trackers) > 1:
                self._look_round(tag, fix)

    def deadline_s(self) -> float:
        """Return when `step` next has work; inf when never."""
        if any(tracker.busy for tracker in self._trackers):
            return self._worked_at_s + BREATH_S
        return max(min(tracker.deadline_s() for tracker in self._trackers), self._worked_at_s + BREATH_S)

    def latest(self, tag: int) -> Fix | None:
        """Return the last fix of a tag."""
        return self._latest.get(tag)

    def back(self, tag: int, steps: int) -> Fix | None:
        """Return the smoothed fix of a tag `steps` steps ago; None if that is not remembered."""
        at = self._sector.get(tag)
        return None if at is None else self._trackers[at].back(tag, steps)

    def once(self, heard: Sequence[Reading], now_s: float) -> Fix | None:
        """Return a fix from these readings alone, in the sector of the loudest one; None if that fails."""
        known = [reading for reading in heard if reading.reader in self._ground.home]
        if not known:
            return None
        loudest = max(known, key=lambda reading: -200.0 if reading.rssi_dbm is None else reading.rssi_dbm)
        return self._trackers[self._ground.home[loudest.reader]].once(known, now_s)

    def set_offsets(self, offsets_db: Mapping[int, float], walls_db: Mapping[str, float] | None = None) -> None:
        """Take by how many dB readers hear too loud, and the loss in the walls of places that their beacons measured.

        In walked sectors the walk test's levels already contain both.
        """
        for tracker, surveyed in zip(self._trackers, self._surveyed, strict=True):
            if not surveyed:
                tracker.set_offsets(offsets_db)
        known = {place: loss_db for place, loss_db in (walls_db or {}).items() if place in self._ground.walls}
        if all(abs(known.get(p, 0.0) - self._walls_db.get(p, 0.0)) < WALL_STEP_DB for p in {*known, *self._walls_db}):
            return
        self._walls_db = known
        for n, sector in enumerate(self._ground.sectors):
            if not self._surveyed[n]:
                self._hearings[n] = _of_street(self._ground, sector, known)
                self._trackers[n].set_hearings(self._hearings[n])

    def followed(self) -> int:
        """Return how many tags have a belief."""
        return sum(tracker.followed() for tracker in self._trackers)

    # ---- inside ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _walked(part: Sector, rows: Survey) -> bool:
        counts = np.bincount(rows.reader, minlength=len(part.readers))
        at_home = np.isin(part.readers, part.home)
        return bool((counts[at_home] >= WALKED_ROWS).mean() >= WALKED_SHARE)

    def _tracker(self, sector: int) -> Tracker:
        part = self._ground.sectors[sector]
        return Tracker(
            part.space, self._hearings[sector], part.readers, self._counts, shares=self._ground.shares[part.cells],
            places=self._ground.places, dangers=self._ground.dangers, routes=self._routes,
            surveyed=self._surveyed[sector], **self._options,
        )  # fmt: skip

    def _look_round(self, tag: int, fix: Fix) -> None:
        """Move a tag when `MOVE_STEPS` fixes in a row were nearest to a reader of another sector."""
        at = self._sector[tag]
        nearest = int(np.hypot(self._spots[:, 0] - fix.x_m, self._spots[:, 1] - fix.y_m).argmin())
        seems = self._homes[nearest]
        if seems == at:
            self._away.pop(tag, None)
            return
        to, times = self._away.get(tag, (seems, 0))
        if to == seems and times + 1 >= MOVE_STEPS:
            self._away.pop(tag, None)
            self._move(tag, at, seems)
        else:
            self._away[tag] = (seems, times + 1 if to == seems else 1)

    def _move(self, tag: int, one: int, other: int) -> None:
        leaving = self._trackers[one].leave(tag)
        here, there = self._ground.sectors[one], self._ground.sectors[other]
        carried = []
        for belief in leaving.row.now:
            whole = here.carry(belief, there)
            kept = float(whole.sum())
            carried.append(whole / np.float32(kept) if kept > CARRIED_MIN else there.space.prior.copy())
        leaving.row.now = carried
        self._trackers[other].enter(tag, leaving)
        self._sector[tag] = other
        self._counts["tags_moved_on"] += 1


def _looks(ground: Ground, sector: Sector) -> list[float]:
    return [ground.look[number] for number in sector.readers]


def _of_street(ground: Ground, sector: Sector, walls_db: Mapping[str, float]) -> list[Hearing]:
    models = models_of_street(
        [ground.readers[number] for number in sector.readers],
        _looks(ground, sector),
        [ground.walls[place] for place in walls_db],
        list(walls_db.values()),
    )
    return [Hearing(sector.space, each, power_dbm=POWER_DBM) for each in models]
