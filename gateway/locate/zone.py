"""The engine of a whole zone: a tracker for each sector of its ground, and tags that go from one to the next."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from gateway.locate import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.hearing import TEMPER, TEMPER_UNSURVEYED, Hearing
from gateway.locate.models import models_of, models_of_street, of_readers
from gateway.locate.sectors import Sector
from gateway.locate.tracker import Tracker
from gateway.site import Site, Survey

POWER_DBM = -59.0
"""Of a tag at 1 m, where a walk test does not say it; and for the floor of hearing."""
MOVE_STEPS = 3
"""So many fixes in a row nearest to a reader of another sector, and a tag goes there."""
LOST_S = 3.0
"""A tag that only readers beyond its sector hear, for so long, is taken up anew where they are."""
CARRIED_MIN = 0.2
"""With less of its belief in the new sector a tag begins anew there."""
BREATH_S = 0.002
"""Between two batches everything else has its turn."""


class ZoneLocator:
    """`Locator` of a zone: readings in by `hear`, a second's work by `step` batch after batch, fixes out."""

    def __init__(
        self,
        ground: Ground,
        counts: Counter[str],
        *,
        routes: Mapping[int, int] | None = None,
        survey: tuple[Site, Survey] | None = None,
    ) -> None:
        """routes: tag -> which of the ground's routes is its own. survey: the zone's walk test in the ground's plane,
        its reader ids the readers' numbers as text.
        """
        self._ground, self._counts = ground, counts
        self._surveyed = survey is not None and len(survey[1]) > 0
        self._trackers = [self._tracker(sector, dict(routes or {}), survey) for sector in ground.sectors]
        self._sector: dict[int, int] = {}
        self._away: dict[int, tuple[int, int]] = {}
        """Tag -> (sector it seems to be in, fixes in a row that say so)."""
        self._latest: dict[int, Fix] = {}
        self._worked_at_s = -math.inf
        self._spots = np.array([at[:2] for at in ground.readers.values()]).reshape(-1, 2)
        self._homes = [ground.home[number] for number in ground.readers]

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
        """Work off one batch of tags; yield (tag, fix, smoothed fix or None). `deadline_s` tells when to come again."""
        self._worked_at_s = now_s
        ready = next((t for t in self._trackers if t.busy), None) or min(self._trackers, key=Tracker.deadline_s)
        for tag, fix, late in ready.step(now_s, is_silent):
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

    def once(self, heard: Sequence[Reading], now_s: float) -> Fix | None:
        """Return a fix from these readings alone, in the loudest one's sector."""
        known = [reading for reading in heard if reading.reader in self._ground.home]
        if not known:
            return None
        loudest = max(known, key=lambda reading: -200.0 if reading.rssi_dbm is None else reading.rssi_dbm)
        return self._trackers[self._ground.home[loudest.reader]].once(known, now_s)

    def set_offsets(self, offsets_db: Mapping[int, float]) -> None:
        """Take by how much readers hear too loud, dB. A walk test has it in its levels already."""
        if not self._surveyed:
            for tracker in self._trackers:
                tracker.set_offsets(offsets_db)

    def followed(self) -> int:
        """Return how many tags have a belief."""
        return sum(tracker.followed() for tracker in self._trackers)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _tracker(self, sector: Sector, routes: Mapping[int, int], survey: tuple[Site, Survey] | None) -> Tracker:
        hearings = self._surveyed_hearings(sector, survey)
        surveyed = bool(hearings)
        if not hearings:
            models = models_of_street([self._ground.readers[number] for number in sector.readers])
            hearings = [Hearing(sector.space, each, power_dbm=POWER_DBM, temper=TEMPER_UNSURVEYED) for each in models]
        return Tracker(
            sector.space, hearings, sector.readers, self._counts, shares=self._ground.shares[sector.cells],
            places=self._ground.places, dangers=self._ground.dangers, routes=routes, surveyed=surveyed,
        )  # fmt: skip

    def _surveyed_hearings(self, sector: Sector, survey: tuple[Site, Survey] | None) -> list[Hearing]:
        """What the walk test says of a sector; none where it says nothing. What cannot be fitted stops nobody."""
        if survey is None or not len(survey[1]):
            return []
        try:
            site, rows = of_readers(*survey, [str(number) for number in sector.readers])
            if not len(rows):
                return []
            power_dbm = POWER_DBM if site.tag_power_dbm is None else site.tag_power_dbm
            models = models_of(site, rows, power_dbm=power_dbm)
            hearings = [Hearing(sector.space, model, power_dbm=power_dbm, temper=TEMPER) for model in models]
            if all(np.isfinite(hearing.mean).all() and np.isfinite(hearing.usual_db2).all() for hearing in hearings):
                return hearings
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            pass
        self._counts["walk_tests_unusable"] += 1
        return []

    def _look_round(self, tag: int, fix: Fix) -> None:
        """Move a tag that came nearest to a reader of another sector, some fixes in a row."""
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
        luggage = self._trackers[one].leave(tag)
        here, there = self._ground.sectors[one], self._ground.sectors[other]
        carried = []
        for belief in luggage.row.now:
            whole = here.carry(belief, there)
            kept = float(whole.sum())
            carried.append(whole / np.float32(kept) if kept > CARRIED_MIN else there.space.prior.copy())
        luggage.row.now = carried
        self._trackers[other].enter(tag, luggage)
        self._sector[tag] = other
        self._counts["tags_moved_on"] += 1
