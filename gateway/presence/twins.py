"""Readers on one side of a gate hear the same children pass. One that hears them weaker than it used to, compared with
the others, has become deaf.

Only traffic is used: no person, no map, no beacon. A deaf gate reader would shift the balance of its gate, which is
what arrivals and departures are read from. So what it lacks is given back to it, and a technician is told.

What is usual is learned from the first children, because two sound readers at one gate lie 5 dB apart (sd): modules
differ by 2 dB, and what stands around each post shadows the gate for good. No common threshold would tell that from a
fault.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.fix import Reading
from gateway.zone import Zone

LOUD_DBM = -78.0
"""A tag counts while one reader of the side hears it at this level or louder: within about 12 m, where every sound
reader of the side hears it too."""
BUCKET_S = 4.0
"""Levels of two readers belong together if they are of the same 4 s: two reports."""
MEMORY_S = 3600.0
JUDGE_S = 300.0
TAGS_MIN = 12
"""This many tags must have passed within MEMORY_S. One tag counts once, whatever time it spends at the gate: who waits
beside one post is nearer to it."""
USUAL_TAGS, USUAL_MAX_DB = 60, 10.0
"""What is usual is the median of this many tags. A reader that begins farther off than USUAL_MAX_DB is deaf from its
first day: that is 2 sd of what sound ones differ by, and nothing but a walk test can do better."""
DEAF_DB, DEAF_OVER_DB = 4.0, 2.5
"""Less than usual by this is taken off, and by less than that no longer. From one hour of 30 children to the next the
median wanders by 1.0 dB (sd, simulated)."""
OFFSET_MAX_DB = 15.0
NEXT_STEP = "check its antenna, its cable and where it looks"
SAMPLES_MAX, OPEN_MAX, SAMPLES_OF_TAG_MAX = 512, 512, 12
"""Kept for a side: samples of the last MEMORY_S, and tags that are heard right now; the oldest give way. And samples of
one tag: a few who linger at a gate must not push out all who pass it."""


@dataclass(frozen=True, slots=True)
class TwinFinding:
    """A gate reader is deaf (ok False), or is not any more. offset_db: by how much it hears too loud: negative."""

    reader: int
    ok: bool
    offset_db: float
    detail: str


@dataclass(slots=True)
class _Bucket:
    since_s: float
    levels: dict[int, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Side:
    name: str
    readers: tuple[int, ...]
    open: dict[int, _Bucket] = field(default_factory=dict)
    samples: deque[tuple[float, int, dict[int, float]]] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    """(when, tag, reader -> its mean level in a bucket)."""
    first: dict[int, dict[int, float]] = field(default_factory=dict)
    """Reader -> tag -> how much louder it heard the tag than the others did, until enough is known to say what is
    usual."""


class Twins:
    """All sides of gates with two readers or more."""

    def __init__(self, zone: Zone, now_s: float) -> None:
        sides: dict[tuple[str, str], list[int]] = {}
        for reader in zone.readers:
            if reader.gate is not None and reader.side is not None:
                sides.setdefault((reader.gate, reader.side), []).append(reader.number)
        self._sides = [
            _Side(f"{side} side of gate {gate}", tuple(numbers))
            for (gate, side), numbers in sides.items()
            if len(numbers) > 1
        ]
        self._of = {number: side for side in self._sides for number in side.readers}
        self._judge_at_s = now_s + JUDGE_S
        self.offsets_db: Mapping[int, float] = {}
        """Reader -> by how much it hears too loud; readers without an entry are sound, or not judged yet."""
        self._told: dict[int, str] = {}
        """Reader -> what was last said of it, if it was "weak" or "deaf"."""
        self._eui64 = {reader.number: reader.eui64 for reader in zone.readers if reader.number in self._of}
        self.usual_db: dict[int, float] = {}
        """Reader -> how much louder than the others on its side it usually hears, once that is known."""

    def hear(self, tag: int, reading: Reading, now_s: float) -> None:
        """Take a reading of a tag. Readings of other readers and without a level are ignored."""
        side = self._of.get(reading.reader)
        if side is None or reading.rssi_dbm is None:
            return
        bucket = side.open.get(tag)
        if bucket is not None and not 0.0 <= now_s - bucket.since_s < BUCKET_S:
            self._close(side, tag, now_s)
            bucket = None
        if bucket is None:
            if len(side.open) >= OPEN_MAX:
                self._close(side, next(iter(side.open)), now_s)
            bucket = side.open[tag] = _Bucket(now_s)
        bucket.levels.setdefault(reading.reader, []).append(reading.rssi_dbm)

    def tick(self, now_s: float) -> Iterator[TwinFinding]:
        """Judge when it is time; yield each reader that became deaf, and each that no longer is."""
        if now_s < self._judge_at_s:
            return
        self._judge_at_s = now_s + JUDGE_S
        offsets_db = dict(self.offsets_db)
        for side in self._sides:
            for tag in [tag for tag, bucket in side.open.items() if now_s - bucket.since_s >= BUCKET_S]:
                self._close(side, tag, now_s)
            while side.samples and now_s - side.samples[0][0] > MEMORY_S:
                side.samples.popleft()
            for reader in side.readers:
                yield from self._judge(side, reader, offsets_db)
        self.offsets_db = offsets_db

    def deadline_s(self) -> float:
        """Return when `tick` next has work; inf without twins."""
        return self._judge_at_s if self._sides else float("inf")

    def snapshot(self) -> dict[str, float]:
        """Return what is usual, by the module's EUI64: for another module on the pole it is learned again."""
        return {self._eui64[reader]: level_db for reader, level_db in self.usual_db.items()}

    def restore(self, usual_db: Mapping[str, float]) -> None:
        """Take over what was usual before a restart. Modules without a twin and numbers that are none are ignored."""
        for reader, eui64 in self._eui64.items():
            level_db = usual_db.get(eui64, math.inf)
            if -USUAL_MAX_DB <= level_db <= USUAL_MAX_DB:
                self.usual_db[reader] = level_db

    def _judge(self, side: _Side, reader: int, offsets_db: dict[int, float]) -> Iterator[TwinFinding]:
        beside = self._beside_db(side, reader)
        if beside is None or (beside > -math.inf and reader not in self.usual_db):
            return
        beside -= self.usual_db.get(reader, 0.0)
        weak = beside <= -(DEAF_OVER_DB if reader in self._told else DEAF_DB)
        now = "deaf" if beside == -math.inf else "weak" if weak else ""
        offsets_db.pop(reader, None)
        if now == "weak":
            offsets_db[reader] = max(beside, -OFFSET_MAX_DB)
        if now == self._told.get(reader, ""):
            return
        self._told.pop(reader, None)
        if not now:
            detail = f"reader {reader} hears as well as the others on the {side.name}"
        elif now == "deaf":
            detail = f"reader {reader} hears none of the children that the others hear on the {side.name}; {NEXT_STEP}"
        else:
            weaker = (
                f"{-beside:.0f} dB weaker than it used to, beside the others on the {side.name}; that is made up for"
            )
            detail = f"reader {reader} hears children {weaker}; {NEXT_STEP}"
        if now:
            self._told[reader] = now
        yield TwinFinding(reader, not now, offsets_db.get(reader, 0.0), detail)

    @staticmethod
    def _beside_db(side: _Side, reader: int) -> float | None:
        """Return how much louder a reader hears than the median of the others: -inf if it hears nothing. None: too few
        tags passed."""
        by_tag: dict[int, list[float]] = {}
        passed: set[int] = set()
        for _, tag, levels in side.samples:
            others = [level for number, level in levels.items() if number != reader]
            if others and max(others) >= LOUD_DBM:
                passed.add(tag)
            if reader in levels and others:
                by_tag.setdefault(tag, []).append(levels[reader] - statistics.median(others))
        if len(by_tag) < TAGS_MIN:
            return -math.inf if len(passed) >= TAGS_MIN and not by_tag else None
        return statistics.median(statistics.fmean(each) for each in by_tag.values())

    def _close(self, side: _Side, tag: int, now_s: float) -> None:
        levels = {number: statistics.fmean(each) for number, each in side.open.pop(tag).levels.items()}
        if max(levels.values()) < LOUD_DBM:
            return
        if sum(of == tag for _, of, _ in side.samples) < SAMPLES_OF_TAG_MAX:
            side.samples.append((now_s, tag, levels))
        for reader in levels.keys() - self.usual_db.keys():
            others = [level for number, level in levels.items() if number != reader]
            if others:
                first = side.first.setdefault(reader, {})
                first.setdefault(tag, levels[reader] - statistics.median(others))
                if len(first) >= USUAL_TAGS:
                    usual_db = statistics.median(side.first.pop(reader).values())
                    self.usual_db[reader] = min(max(usual_db, -USUAL_MAX_DB), USUAL_MAX_DB)
