"""All tags of one sector: readings in, one step of every belief each second, fixes out.

Tags share batches of `BATCH`. `step` does one batch, so an alarm never waits for more than one. Readings are kept by
tag and reader until it is their batch's turn. A tag that no reader heard for QUIET_S is forgotten; its last fix is not.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gateway.events import Heard
from gateway.fix import Fix, Reading
from gateway.locate.belief import Beliefs, TagBelief
from gateway.locate.hearing import Hearing
from gateway.locate.space import Space

STEP_S = 1.0
BATCH = 32
TAGS_MAX = 4000
WINDOW_S = 6.0
"""A reading that is older than this when it arrives says nothing about now."""
QUIET_S = 60.0
LATE_EVERY = 5
"""Steps from one smoothed fix of a tag to the next."""
LOOK_BACK = 3
"""How many steps back a smoothed fix lies."""
LEVELS_KEPT, LEAP_DB = 5, 12.0
"""A level farther than LEAP_DB from the median of a reader's last LEVELS_KEPT levels is cut to LEAP_DB. Otherwise the
one packet in twenty that is 20-40 dB off would spoil its second."""
LEVEL_MIN_DB, LEVEL_MAX_DB = -110.0, -20.0
SILENCE_S, HEALTHY_S = 2.5, 20.0
"""A reader counts as silent about a tag after SILENCE_S, and as listening if it heard any tag within HEALTHY_S."""
EVIDENCE_MAX = 6
SECONDS_MAX = 5
"""The most seconds that a belief walks on in one step; the rest of a gap is left to the readings."""
_BINS = 512


@dataclass(slots=True)
class _HeardBy:
    """What one reader heard of one tag recently."""

    levels: deque[float] = field(default_factory=lambda: deque(maxlen=LEVELS_KEPT))
    total: float = 0.0
    packets: int = 0
    newest: Reading | None = None
    heard_at_s: float = -math.inf


@dataclass(slots=True)
class _Followed:
    batch: "_Batch"
    row: int
    ears: dict[int, _HeardBy] = field(default_factory=dict)
    heard_at_s: float = -math.inf
    power_dbm: float = 0.0
    """The power that the tag states."""


@dataclass(slots=True)
class Leaving:
    """What a tag takes along from one tracker to another."""

    row: TagBelief
    readers: tuple[int, ...]
    """The order of the readers in `row`."""
    ears: dict[int, _HeardBy]


class _Batch:
    """One batch: rows of beliefs, and the tag of each row."""

    def __init__(self, beliefs: Beliefs) -> None:
        self.beliefs = beliefs
        self.tags: list[int | None] = [None] * len(beliefs.trust)
        self.stepped_at_s: float | None = None
        self.steps = 0

    def begin(self, row: int, tag: int) -> None:
        """Give a row to a tag."""
        self.tags[row] = tag
        self.beliefs.forget(row)


UNSURVEYED = 1.2, 1.35
"""Factors of the 50 %, and of the 90 and 95 % radii, where no walk test was made: the law of such a place is wrong
in the same way for minutes, which no single second shows. On simulated places to choose constants on, 50 and 90 % radii
held 46 and 84 % of walkers without them, and 41 and 81 % of those who stood; with them 55 and 93, and 48 and 90 %."""

LATE_WIDER = 1.1
"""Factor of the 90 and 95 % radii of a smoothed fix: the seconds after it share its errors, and smoothing takes them
for agreement."""


class Tracker:
    """The engine of one sector. Readers are known by number; `readers` is their order in the hearings' arrays."""

    def __init__(
        self,
        space: Space,
        hearings: Sequence[Hearing],
        readers: Sequence[int],
        counts: Counter[str],
        *,
        shares: Any | None = None,
        places: Sequence[str] = (),
        dangers: Sequence[str] = (),
        routes: Mapping[int, int] | None = None,
        surveyed: bool = True,
        look_back: int = LOOK_BACK,
        late_every: int = LATE_EVERY,
        batch: int = BATCH,
    ) -> None:
        """shares [cells, places + dangers + routes]: how much of each cell lies in each area, in that order.

        routes: tag -> column of its agreed route among the routes. surveyed: a walk test was made here. late_every 0:
        no smoothed fixes.
        """
        self._space, self._hearings, self._counts = space, tuple(hearings), counts
        self._columns = {number: i for i, number in enumerate(readers)}
        self._shares = None if shares is None else np.ascontiguousarray(shares, np.float32)
        self._places, self._dangers, self._routes = tuple(places), tuple(dangers), dict(routes or {})
        self._surveyed = surveyed
        self._look_back, self._late_every, self._rows = look_back, late_every, batch
        self._tags: dict[int, _Followed] = {}
        self._batches: list[_Batch] = []
        self._queue: deque[_Batch] = deque()
        self._latest: dict[int, Fix] = {}
        self._heard_any_s = np.full(len(self._columns), -np.inf)
        self._offsets_db = np.zeros(len(self._columns))
        self._due_s = -math.inf
        self._moments = np.column_stack([space.xy_m, (space.xy_m**2).sum(axis=1)]).astype(np.float32)
        self._half_m2 = (space.half_m**2).astype(np.float32)
        self._bin_m = float(space.size_m.min()) / 4

    # ---- in ----------------------------------------------------------------------------------------------------------

    def hear(self, tag: int, reading: Reading, now_s: float) -> None:
        """Take a reading; it counts at the tag's next step. Unknown readers and old readings are only counted."""
        if reading.reader not in self._columns:
            self._counts["readings_unknown_reader"] += 1
            return
        if reading.heard_at_s < now_s - WINDOW_S:
            self._counts["readings_too_old"] += 1
            return
        followed = self._tags.get(tag)
        if followed is None:
            if len(self._tags) >= TAGS_MAX:
                self._counts["readings_too_many_tags"] += 1
                return
            followed = self._tags[tag] = self._assign_row(tag)
        followed.heard_at_s = max(followed.heard_at_s, reading.heard_at_s)
        followed.power_dbm = reading.power_dbm
        self._into(followed.ears.setdefault(reading.reader, _HeardBy()), reading)
        column = self._columns[reading.reader]
        self._heard_any_s[column] = max(self._heard_any_s[column], reading.heard_at_s)

    def set_offsets(self, offsets_db: Mapping[int, float]) -> None:
        """Take what the readers' check of each other found: by how many dB each hears too loud."""
        for number, offset_db in offsets_db.items():
            if number in self._columns and math.isfinite(offset_db):
                self._offsets_db[self._columns[number]] = offset_db

    def set_hearings(self, hearings: Sequence[Hearing]) -> None:
        """Take as many other hearings on the same space. What is believed stays."""
        self._hearings = tuple(hearings)
        for batch in self._batches:
            batch.beliefs.hearings = self._hearings

    # ---- out ---------------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether batches of the current second still wait for `step`."""
        return bool(self._queue)

    def deadline_s(self) -> float:
        """Return when the next second begins; inf without tags."""
        return self._due_s if self._tags else math.inf

    def step(self, now_s: float, is_silent: Callable[[int], bool]) -> Iterator[tuple[int, Fix, Fix | None]]:
        """Do one batch; yield (tag, fix, smoothed fix or None) for every tag heard within WINDOW_S.

        is_silent(reader): whether a reader is known to be dead; its silence then says nothing.
        """
        if not self._queue:
            if now_s < self._due_s:
                return
            self._due_s = now_s + STEP_S
            self._leave(now_s)
            self._queue.extend(self._batches)
        if self._queue:
            yield from self._work(self._queue.popleft(), now_s, is_silent)

    def latest(self, tag: int) -> Fix | None:
        """Return the last fix of a tag."""
        return self._latest.get(tag)

    def back(self, tag: int, steps: int) -> Fix | None:
        """Return the smoothed fix of a tag `steps` steps ago; None if that is not remembered."""
        followed = self._tags.get(tag)
        past = None if followed is None else followed.batch.beliefs.smoothed(steps)
        if followed is None or past is None or followed.batch.stepped_at_s is None:
            return None
        lag_s = followed.batch.beliefs.seconds_back(steps) * STEP_S
        row = followed.row
        at_s = followed.batch.stepped_at_s - lag_s
        return next(self._fixes(past[row : row + 1], [tag], [followed.ears], at_s, lag_s), None)

    def once(self, heard: Sequence[Reading], now_s: float) -> Fix | None:
        """Return a fix from these readings alone: for a tag that is not enrolled, so without history."""
        ears = self._ears(heard, now_s)
        if not ears:
            return None
        level, packets, silent = self._arrays([ears], now_s, lambda _: False)
        whole = None
        for hearing in self._hearings:
            likely, top = hearing.log_likelihood(
                level, packets, silent, np.zeros(1), np.ones_like(level), temper=np.ones((1, 1)), complete=True
            )
            belief = self._space.prior[None].copy()
            self._space.weigh(belief, np.exp(likely))
            belief *= np.exp(np.float32(np.clip(top, -80, 0)))
            whole = belief if whole is None else whole + belief
        by_cell = self._space.by_cell(whole)
        total = by_cell.sum(axis=1, keepdims=True)
        if not total[0, 0] > 0:
            return None
        return next(self._fixes(by_cell / total, [None], [ears], now_s, 0.0), None)

    def followed(self) -> int:
        """Return how many tags have a belief."""
        return len(self._tags)

    def follows(self, tag: int) -> bool:
        """Return whether a tag has a belief here."""
        return tag in self._tags

    def heard_at_s(self, tag: int) -> float:
        """Return when a tag was last heard here; -inf for never."""
        followed = self._tags.get(tag)
        return -math.inf if followed is None else followed.heard_at_s

    def leave(self, tag: int) -> Leaving:
        """Stop following a tag and return what is believed of it."""
        followed = self._tags.pop(tag)
        followed.batch.tags[followed.row] = None
        return Leaving(followed.batch.beliefs.row(followed.row), tuple(self._columns), followed.ears)

    def enter(self, tag: int, leaving: Leaving) -> None:
        """Follow a tag, starting with what was believed of it. leaving.row.now is in this tracker's states."""
        followed = self._tags[tag] = self._assign_row(tag)
        row = leaving.row
        order = [leaving.readers.index(n) if n in leaving.readers else -1 for n in self._columns]
        faults = np.concatenate([row.faults, np.zeros((2, 1))], axis=1)[:, order]
        apart_s, lasting_db = np.append(row.apart_s, np.inf)[order], np.append(row.lasting_db, 0.0)[order]
        here = replace(row, faults=faults, apart_s=apart_s, lasting_db=lasting_db)
        followed.batch.beliefs.set_row(followed.row, here)
        followed.ears = {n: ear for n, ear in leaving.ears.items() if n in self._columns}
        followed.heard_at_s = max((ear.heard_at_s for ear in followed.ears.values()), default=-math.inf)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _assign_row(self, tag: int) -> _Followed:
        for batch in self._batches:
            if None in batch.tags:
                break
        else:
            batch = _Batch(Beliefs(self._space, self._hearings, self._rows, look_back=self._look_back))
            self._batches.append(batch)
        row = batch.tags.index(None)
        batch.begin(row, tag)
        return _Followed(batch, row)

    def _leave(self, now_s: float) -> None:
        for tag in [tag for tag, each in self._tags.items() if each.heard_at_s < now_s - QUIET_S]:
            followed = self._tags.pop(tag)
            followed.batch.tags[followed.row] = None
        self._batches = [batch for batch in self._batches if any(tag is not None for tag in batch.tags)]

    def _into(self, ear: _HeardBy, reading: Reading) -> None:
        if reading.rssi_dbm is not None:
            level: float = reading.rssi_dbm
            if not LEVEL_MIN_DB <= level <= LEVEL_MAX_DB:
                level = LEVEL_MIN_DB if level < LEVEL_MIN_DB else LEVEL_MAX_DB
            level -= reading.power_dbm
            levels = ear.levels
            levels.append(level)
            if (kept := len(levels)) >= 3:
                middle = sorted(levels)[kept // 2]
                if not -LEAP_DB <= level - middle <= LEAP_DB:
                    level = middle - LEAP_DB if level < middle else middle + LEAP_DB
            packets = reading.packets if reading.packets > 1 else 1
            ear.total += packets * level
            ear.packets += packets
        if ear.newest is None or reading.heard_at_s >= ear.heard_at_s:
            ear.newest, ear.heard_at_s = reading, reading.heard_at_s

    def _ears(self, heard: Sequence[Reading], now_s: float) -> dict[int, _HeardBy]:
        ears: dict[int, _HeardBy] = {}
        for reading in heard:
            if reading.reader in self._columns and reading.heard_at_s >= now_s - WINDOW_S:
                self._into(ears.setdefault(reading.reader, _HeardBy()), reading)
        return ears

    def _arrays(
        self, rows: Sequence[Mapping[int, _HeardBy]], now_s: float, is_silent: Callable[[int], bool] | None
    ) -> tuple[Any, Any, Any]:
        """Return level, packets, silent [rows, readers]. is_silent None: silence says nothing."""
        shape = len(rows), len(self._columns)
        all_ears = [ear for ears in rows for ear in ears.values()]
        at = [i * shape[1] + self._columns[number] for i, ears in enumerate(rows) for number in ears]
        counts = np.array([ear.packets for ear in all_ears], float)
        level, packets, recent = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        packets.ravel()[at] = counts
        level.ravel()[at] = np.array([ear.total for ear in all_ears], float) / np.maximum(counts, 1.0)
        recent.ravel()[at] = np.array([ear.heard_at_s for ear in all_ears], float) >= now_s - SILENCE_S
        silent = np.zeros_like(level)
        if is_silent is not None:
            listens = np.array([not is_silent(number) for number in self._columns], bool)
            listens &= self._heard_any_s >= now_s - HEALTHY_S
            heard = packets.sum(axis=1) > 0
            silent = (heard[:, None] & listens[None] & ~recent).astype(np.float64)
        return level - self._offsets_db, packets, silent

    def _work(
        self, batch: _Batch, now_s: float, is_silent: Callable[[int], bool]
    ) -> Iterator[tuple[int, Fix, Fix | None]]:
        nobody: dict[int, _HeardBy] = {}
        rows = [nobody if tag is None else self._tags[tag].ears for tag in batch.tags]
        level, packets, silent = self._arrays(rows, now_s, is_silent)
        first = batch.stepped_at_s is None
        passed = 0 if batch.stepped_at_s is None else max(1, round((now_s - batch.stepped_at_s) / STEP_S))
        power_dbm = [0.0 if tag is None else self._tags[tag].power_dbm for tag in batch.tags]
        batch.beliefs.step(level, packets, silent, 0 if first else min(passed, SECONDS_MAX), power_dbm)
        batch.stepped_at_s = now_s
        batch.steps += 1
        fresh = [tag is not None and self._tags[tag].heard_at_s >= now_s - WINDOW_S for tag in batch.tags]
        self._counts["fixes"] += sum(fresh)
        fixes = list(self._fixes(batch.beliefs.by_cell(), batch.tags, rows, now_s, 0.0, fresh))
        late: list[Fix] = []
        if self._late_every and batch.steps % self._late_every == 0:
            past = batch.beliefs.smoothed(self._look_back)
            if past is not None:
                back_s = batch.beliefs.seconds_back(self._look_back) * STEP_S
                late = list(self._fixes(past, batch.tags, rows, now_s - back_s, back_s, fresh))
        for ears in rows:
            for ear in ears.values():
                ear.total, ear.packets = 0.0, 0
        named = [tag for tag, is_fresh in zip(batch.tags, fresh, strict=True) if is_fresh]
        for i, tag in enumerate(named):
            assert tag is not None
            self._latest[tag] = fixes[i]
            yield tag, fixes[i], late[i] if late else None

    def _fixes(
        self,
        mass: Any,
        tags: Sequence[int | None],
        rows: Sequence[Mapping[int, _HeardBy]],
        at_s: float,
        lag_s: float,
        which: Sequence[bool] | None = None,
    ) -> Iterator[Fix]:
        """Yield the fix of each row (of `which`): mean, radii, areas, evidence."""
        if which is not None:
            pick = np.flatnonzero(which).tolist()
            mass, tags, rows = mass[pick], [tags[i] for i in pick], [rows[i] for i in pick]
        if not len(mass):
            return
        middle = mass @ self._moments[:, :2]
        far_m = np.subtract.outer(middle[:, 0], self._moments[:, 0]) ** 2
        far_m += np.subtract.outer(middle[:, 1], self._moments[:, 1]) ** 2
        far_m += self._half_m2
        np.sqrt(far_m, out=far_m)
        radii_m = _held(far_m, mass, self._bin_m, (0.5, 0.9, 0.95))
        if not self._surveyed:
            radii_m *= (UNSURVEYED[0], UNSURVEYED[1], UNSURVEYED[1])
        if lag_s:
            radii_m[:, 1:] *= LATE_WIDER
        areas = np.zeros((len(mass), 0)) if self._shares is None else np.minimum(mass @ self._shares, 1.0)
        n, m = len(self._places), len(self._places) + len(self._dangers)
        oldest_s, heard_s = at_s - WINDOW_S, at_s + lag_s
        for tag, ears, (x_m, y_m), (r50_m, r90_m, r95_m), within in zip(
            tags, rows, middle.tolist(), radii_m.tolist(), areas.tolist(), strict=True
        ):
            heard = [ear.newest for ear in ears.values() if ear.newest is not None and ear.heard_at_s >= oldest_s]
            heard.sort(key=_loudness, reverse=True)
            route = None if tag is None else self._routes.get(tag)
            yield Fix(
                x_m,
                y_m,
                r50_m,
                r95_m,
                tuple(
                    [
                        Heard(r.reader, r.rssi_dbm, r.packets, int(100 * max(heard_s - r.heard_at_s, 0.0) + 0.5) / 100)
                        for r in heard[:EVIDENCE_MAX]
                    ]
                ),
                at_s,
                radius_90_m=r90_m,
                lag_s=lag_s,
                places=dict(zip(self._places, within, strict=False)),
                dangers=dict(zip(self._dangers, within[n:], strict=False)),
                on_route=None if route is None else within[m + route],
            )


def _loudness(reading: Reading) -> float:
    return -200.0 if reading.rssi_dbm is None else reading.rssi_dbm


def _held(far_m: Any, mass: Any, bin_m: float, parts: Sequence[float]) -> Any:
    """Return the radii [rows, parts] that hold these shares of the mass, accurate to a fraction of a bin."""
    width = np.maximum(bin_m, far_m.max(axis=1, keepdims=True) / (_BINS - 1))
    bins = (far_m / width).astype(np.intp)
    count = int(bins.max()) + 1
    first = np.arange(len(mass))[:, None] * count
    bins += first
    held = np.bincount(bins.ravel(), weights=mass.ravel(), minlength=len(mass) * count).cumsum()
    before_row = np.append(0.0, held[count - 1 :: count])
    want = before_row[:-1, None] + np.diff(before_row)[:, None] * parts
    at = np.minimum(np.searchsorted(held, want), first + count - 1)
    before = np.where(at > 0, held[at - 1], 0.0)
    here = held[at] - before
    return (at - first + np.where(here > 0, (want - before) / np.maximum(here, 1e-12), 1.0)) * width
