"""Readers check each other by their beacons: one law for all, offsets, drift, and readers mounted at another place.

A round starts every few minutes. It runs in slices of a few milliseconds, one a tick: fit the law (`pathloss`), locate
each reader by all others, conclude. Only the worst misplaced reader counts in a round, because it makes its neighbours
look wrong too. If it is the worst in two rounds in a row, it is reported and taken out of the fit.
"""

import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from gateway.antenna import gain_db
from gateway.locate import pathloss, shapes
from gateway.locate.pathloss import BeaconLink, LocatedReader
from gateway.locate.ways import PathLine

ROUND_S = 600.0
SLICE_S = 0.05
MEMORY_S = 6 * 3600.0
"""What was heard of a pair this long ago counts a third (1/e) of what is heard now."""
PAIRS_MAX = 24
"""The most senders kept for a receiver. The farthest one is dropped, never the weakest: that would bias the law."""
WORTH_MIN, GONE_S = 1.0, 86400.0
"""Bursts that a pair needs before it is fitted; silence after which it is forgotten."""
SCALE_DB, SCALE_MIN_DB, SCALE_WORTH, STEP_VARIANCE_DB2 = 4.0, 1.0, 2.0, 0.25
"""Spread of a new pair; the least spread; how many bursts the first one counts as; what whole dB add to a variance."""
CLIP = 1.5
"""A level that is farther from a pair's mean than this many spreads moves the mean no further (Huber)."""
RSSI_MIN_DBM, RSSI_MAX_DBM = -110, 0
HOLD_S = 2 * 3600.0
"""A law kept over a restart stays valid this long, or until half of its pairs are heard again."""
MISPLACED_M, MISPLACED_DEVIATIONS, PLACED_DEVIATIONS = 15.0, 3.5, 2.5
STRIKES = 2
SUSPECTS_SHARE = 0.25
"""If a larger share of the readers is misplaced, the map or the law is wrong, and no further reader is reported."""
DRIFT_DB, DRIFT_OVER_DB, HISTORY_S, HISTORY_MIN_S = 4.0, 2.0, 7 * 86400.0, 86400.0
OFFSET_DB, OFFSET_OVER_DB, OFFSET_DEVIATIONS = 5.0, 3.5, 3.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the check found. Offsets in dB: a reader with +3 reads all tags 3 dB stronger than most readers do."""

    exponent: float
    exponent_sd: float
    offsets_db: dict[int, float]
    offsets_sd_db: dict[int, float]
    loo_error_m: dict[int, float]
    """Distance from a reader's configured position to where all others locate it; only with 3 neighbours or more."""
    pairs: int
    """Directed pairs behind the law."""
    fitted_at_s: float
    walls_db: dict[str, float] = field(default_factory=dict)
    """Place -> the loss in its wall. Not kept over a restart: until it is measured again, none is believed."""


@dataclass(frozen=True, slots=True)
class ReaderFinding:
    """A finding about one reader, for people."""

    what: str
    reader: int
    ok: bool
    detail: str


@dataclass(slots=True)
class _Pair:
    level_db: float
    """Mean of the RSSI minus the sender's power."""
    spread_db: float
    worth: float
    """Bursts behind the mean; older ones count less."""
    at_s: float
    power_dbm: int
    history_db: float
    history_s: float = 0.0
    """How long the slow mean has been kept."""


@dataclass(slots=True)
class _Checked:
    strikes: Counter[str] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)


class Crosscheck:
    """The check of all readers of a zone. at_m: reader -> (x, y, height), metres on one plane."""

    def __init__(
        self,
        at_m: Mapping[int, tuple[float, float, float]],
        counts: Counter[str],
        now_s: float,
        *,
        look: Mapping[int, float] | None = None,
        walls: Mapping[str, PathLine] | None = None,
    ) -> None:
        """look: reader -> where its antenna looks (`gateway.antenna`). walls: place -> its outline, m."""
        self.calibration: Calibration | None = None
        """Of the last complete round or of `restore`; None before either."""
        self._numbers = sorted(at_m)
        self._at = [at_m[number] for number in self._numbers]
        self._index = {number: i for i, number in enumerate(self._numbers)}
        looks = [math.nan if look is None else look.get(number, math.nan) for number in self._numbers]
        self._look, self._walls = np.array(looks, float), tuple(walls or {})
        spots = np.array(self._at, float).reshape(-1, 3)[:, :2]
        self._sides = [shapes.side(spots, ring) for ring in (walls or {}).values()]
        self._pairs: dict[int, dict[int, _Pair]] = {number: {} for number in self._numbers}
        self._readers = {number: _Checked() for number in self._numbers}
        self._suspects: set[int] = set()
        self._counts = counts
        self._round_at_s = now_s + ROUND_S
        self._slice_at_s = math.inf
        self._work: Generator[None, None, list[ReaderFinding]] | None = None
        self._heard = False
        self._hold_until_s = -math.inf

    def hear(
        self, receiver: int, sender: int, rssi_dbm: int | None, packets: int, power_dbm: int, now_s: float
    ) -> None:
        """Take one burst of a sender's beacon as a receiver heard it (mean of its packets). Fast: it fits nothing."""
        if receiver == sender or receiver not in self._index or sender not in self._index:
            return
        if rssi_dbm is None or not RSSI_MIN_DBM <= rssi_dbm <= RSSI_MAX_DBM or packets < 1:
            self._counts["beacons_without_level"] += 1
            return
        pairs = self._pairs[receiver]
        pair = pairs.get(sender)
        if pair is None:
            if not self._room(receiver, sender):
                return
            pair = pairs[sender] = _Pair(rssi_dbm - power_dbm, SCALE_DB, 0.0, now_s, power_dbm, rssi_dbm - power_dbm)
        self._heard = True
        worth = packets / (packets + 2)
        kept = pair.worth * math.exp(-max(now_s - pair.at_s, 0.0) / MEMORY_S)
        off = rssi_dbm - power_dbm - pair.level_db
        limit = CLIP * pair.spread_db
        pair.level_db += worth / (kept + worth) * min(max(off, -limit), limit)
        spread = 1.25 * min(abs(off), 2 * limit)  # 1.25: from a mean deviation to a standard one
        pair.spread_db += worth / (kept + worth + SCALE_WORTH) * (spread - pair.spread_db)
        pair.spread_db = max(pair.spread_db, SCALE_MIN_DB)
        passed_s = max(now_s - pair.at_s, 0.0)
        pair.history_s = memory_s = min(pair.history_s + passed_s, HISTORY_S)
        if pair.history_s > HISTORY_MIN_S and abs(pair.level_db - pair.history_db) > DRIFT_OVER_DB:
            memory_s = HISTORY_S  # a short history must not follow what it should show
        pair.history_db += (pair.level_db - pair.history_db) * passed_s / max(memory_s, passed_s, 1.0)
        pair.worth, pair.at_s, pair.power_dbm = kept + worth, now_s, power_dbm

    def tick(self, now_s: float) -> Iterator[ReaderFinding]:
        """Do one slice of a round that is due; yield its findings when the round is complete."""
        if self._work is None:
            if now_s < self._round_at_s:
                return
            self._round_at_s = now_s + ROUND_S
            if not self._heard:
                return
            self._heard = False
            self._work = self._round(now_s)
        elif now_s < self._slice_at_s:
            return
        try:
            next(self._work)
            self._slice_at_s = now_s + SLICE_S
        except StopIteration as done:
            self._work, self._slice_at_s = None, math.inf
            words: list[ReaderFinding] = done.value or []  # None when an earlier slice failed
            yield from words

    def deadline_s(self) -> float:
        """Return when `tick` next has work."""
        return self._round_at_s if self._work is None else self._slice_at_s

    def figures(self) -> dict[str, float]:
        """Return what a technician watches, by name: two counts, the exponent, each reader's error and offset."""
        known = self.calibration
        found: dict[str, float] = {"readers_misplaced": len(self._suspects), "reader_pairs": 0}
        if known is not None:
            found |= {"reader_pairs": known.pairs, "reader_exponent": known.exponent}
            found |= {f"reader_{number}_error_m": error for number, error in known.loo_error_m.items()}
            found |= {f"reader_{number}_offset_db": offset for number, offset in known.offsets_db.items()}
        return found

    def snapshot(self) -> list[tuple[int, float, float, float, bool]]:
        """Return plain values for `restore`: the law as reader 0 (exponent, sd, pairs), then a row for each reader."""
        known = self.calibration
        if known is None:
            return []
        rows = [(0, known.exponent, known.exponent_sd, float(known.pairs), False)]
        for number, offset in known.offsets_db.items():
            error, suspect = known.loo_error_m.get(number, -1.0), number in self._suspects
            rows.append((number, offset, known.offsets_sd_db[number], error, suspect))
        return rows

    def restore(self, rows: list[tuple[int, float, float, float, bool]], now_s: float) -> None:
        """Take a snapshot back; skip readers that no longer exist. Heard levels are not in it: they come again."""
        law = next((row for row in rows if row[0] == 0), None)
        if law is None or not all(math.isfinite(value) for row in rows for value in row[1:4]):
            return
        mine = [row for row in rows if row[0] in self._index]
        self.calibration = Calibration(
            law[1], law[2], {row[0]: row[1] for row in mine}, {row[0]: row[2] for row in mine},
            {row[0]: row[3] for row in mine if row[3] >= 0}, int(law[3]), now_s,
        )  # fmt: skip
        self._hold_until_s = now_s + HOLD_S
        for number in (row[0] for row in mine if row[4]):
            self._suspects.add(number)
            self._readers[number].told.add("reader_misplaced")

    # ---- a round ----------------------------------------------------------------------------------------------------

    def _round(self, now_s: float) -> Generator[None, None, list[ReaderFinding]]:
        links = self._links(now_s)
        silent = [self._index[number] for number in self._suspects]
        law = yield from pathloss.fitting(self._at, links, silent, len(self._walls))
        known = self.calibration
        if known is not None and now_s < self._hold_until_s and law.links < known.pairs / 2:
            return []
        self._hold_until_s = -math.inf
        located: dict[int, LocatedReader] = {}
        for number, k in self._index.items():
            found = pathloss.locate(law, k)
            if found is not None:
                located[number] = found
                yield
        offsets = {number: float(law.received_db[k]) for number, k in self._index.items()}
        deviations = {number: float(law.received_sd_db[k]) for number, k in self._index.items()}
        errors = {number: found.error_m for number, found in located.items()}
        walls = {place: max(float(loss_db), 0.0) for place, loss_db in zip(self._walls, law.wall_db, strict=True)}
        self.calibration = Calibration(
            law.exponent, law.exponent_sd, offsets, deviations, errors, law.links, now_s, walls
        )
        self._counts["calibrations"] += 1
        off = {
            number
            for number, found in located.items()
            if found.error_m > MISPLACED_M
            and found.deviations > MISPLACED_DEVIATIONS
            # A reader that hears much less than it is heard, or the reverse, is half deaf. That makes it look far.
            and abs(law.received_db[self._index[number]] - law.sent_db[self._index[number]]) < OFFSET_DB
        }
        heard = {self._numbers[k] for link in links for k in (link.receiver, link.sender)} - self._suspects
        return [*self._misplaced(located, off), *self._offset(heard - off), *self._drifted(heard)]

    def _links(self, now_s: float) -> list[BeaconLink]:
        links = []
        for receiver, pairs in self._pairs.items():
            for sender, pair in list(pairs.items()):
                silent_s = max(now_s - pair.at_s, 0.0)
                if silent_s > GONE_S:
                    del pairs[sender]
                elif pair.worth >= WORTH_MIN:
                    worth = pair.worth * math.exp(-silent_s / MEMORY_S)
                    links.append(
                        BeaconLink(
                            self._index[receiver], self._index[sender], pair.level_db + pair.power_dbm,
                            pair.spread_db**2 / worth + STEP_VARIANCE_DB2, pair.power_dbm,
                            self._gain_db(receiver, sender), self._between(receiver, sender),
                        )
                    )  # fmt: skip
        return links

    def _gain_db(self, one: int, other: int) -> float:
        i, j = self._index[one], self._index[other]
        to_m = np.array(self._at[j][:2]) - self._at[i][:2]
        return float(gain_db(to_m, self._look[i]) + gain_db(-to_m, self._look[j]))

    def _between(self, one: int, other: int) -> tuple[tuple[int, float], ...]:
        i, j = self._index[one], self._index[other]
        shares = (float(shapes.crossing(sides[i], sides[j])) for sides in self._sides)
        return tuple((wall, share) for wall, share in enumerate(shares) if share > 0)

    def _room(self, receiver: int, sender: int) -> bool:
        pairs = self._pairs[receiver]
        if len(pairs) < PAIRS_MAX:
            return True
        farthest = max(pairs, key=lambda number: self._distance_m(receiver, number))
        self._counts["beacon_pairs_dropped"] += 1
        if self._distance_m(receiver, sender) >= self._distance_m(receiver, farthest):
            return False
        del pairs[farthest]
        return True

    def _distance_m(self, one: int, other: int) -> float:
        return math.dist(self._at[self._index[one]], self._at[self._index[other]])

    # ---- what it means ----------------------------------------------------------------------------------------------

    def _misplaced(self, located: Mapping[int, LocatedReader], off: set[int]) -> Iterator[ReaderFinding]:
        fresh = off - self._suspects
        worst = max(fresh, key=lambda number: located[number].deviations, default=None)
        for number in self._numbers:
            reader, found = self._readers[number], located.get(number)
            if number in self._suspects:
                if found is not None and found.deviations < PLACED_DEVIATIONS:
                    self._suspects.discard(number)
                    yield from self._say(number, "reader_misplaced", False, "is again where its neighbours hear it")
            elif number == worst and found is not None:
                reader.strikes["reader_misplaced"] += 1
                if reader.strikes["reader_misplaced"] < STRIKES:
                    continue
                if len(self._suspects) + 1 > max(1, int(SUSPECTS_SHARE * len(self._numbers))):
                    self._counts["readers_misplaced_untold"] += 1
                    continue
                self._suspects.add(number)
                detail = (
                    f"is heard {found.error_m:.0f} m from its configured position ({found.neighbours} neighbours, "
                    f"expected {found.expected_m:.0f} m); check on which pole it hangs, its antenna and the "
                    "configuration"
                )
                yield from self._say(number, "reader_misplaced", True, detail)
            else:
                reader.strikes["reader_misplaced"] = 0

    def _offset(self, heard: set[int]) -> Iterator[ReaderFinding]:
        assert self.calibration is not None
        for number in heard:
            offset, sd = self.calibration.offsets_db[number], self.calibration.offsets_sd_db[number]
            wrong = abs(offset) > OFFSET_DB and abs(offset) > OFFSET_DEVIATIONS * sd
            way = "less" if offset < 0 else "more"
            detail = f"hears {abs(offset):.0f} dB {way} than its neighbours; check antenna, cable and connector"
            yield from self._judge(number, "reader_offset", wrong, abs(offset) < OFFSET_OVER_DB, detail)

    def _drifted(self, heard: set[int]) -> Iterator[ReaderFinding]:
        """Compare what each reader hears with its own slow history. A change that all readers share is weather."""
        moved = {}
        for number in heard:
            by = [p.level_db - p.history_db for p in self._pairs[number].values() if p.history_s > HISTORY_MIN_S]
            if len(by) >= pathloss.NEIGHBOURS_MIN:
                moved[number] = median(by)
        alike = median(moved.values()) if len(moved) >= pathloss.NEIGHBOURS_MIN else 0.0
        for number, by_db in moved.items():
            own = by_db - alike
            way = "less" if own < 0 else "more"
            detail = f"hears {abs(own):.0f} dB {way} than in the last days; check its antenna and what stands before it"
            yield from self._judge(number, "reader_drift", abs(own) > DRIFT_DB, abs(own) < DRIFT_OVER_DB, detail)

    def _judge(self, number: int, what: str, wrong: bool, right: bool, detail: str) -> Iterator[ReaderFinding]:
        reader = self._readers[number]
        reader.strikes[what] = reader.strikes[what] + 1 if wrong else 0
        if reader.strikes[what] >= STRIKES:
            yield from self._say(number, what, True, detail)
        elif right:
            yield from self._say(number, what, False, "hears as it should again")

    def _say(self, number: int, what: str, wrong: bool, detail: str) -> Iterator[ReaderFinding]:
        told = self._readers[number].told
        if wrong == (what in told):
            return
        (told.add if wrong else told.discard)(what)
        self._counts[what] += wrong
        yield ReaderFinding(what, number, not wrong, f"reader {number} {detail}")
