"""Rotating id -> tag, and whether to trust it: the MIC proves who made an advertisement, the counters that it is new.

The table holds the ids of all enrolled tags for `REACH` epochs before and after now. So a new epoch needs only one new
column, which is built in small parts; only a jump of the clock builds the nearest three columns at once. A routine
advertisement is accepted within one epoch of the tag's own clock, as far as it is known. A cry is accepted anywhere in
the table. So is everything while a clock is unsure: the gateway's, or the tag's according to its own flag.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from readers.advertisement import Advertisement, TagKeys, rotating_id
from readers.wire import FLAG_CLOCK_UNSURE, FLAG_MOVING, FLAG_SOS

UNRESOLVED = -1
REACH = 8
"""Epochs (of 15 minutes) that are searched before and after now."""
DRIFT_MAX = 2
"""Largest clock error, in epochs, that is learned for a tag that does not flag its clock as unsure."""
FILL_ROWS = 64
"""Ids that one `fill` computes: about 0.2 ms."""
REORDER_S = 5.0
"""A packet with an older counter is accepted up to this long after the newest: mesh retries, and steps of ages."""
SAME_S = 60.0
"""The same counter is accepted again for this long: a resting tag may repeat one advertisement."""
MOTION_LATE_S = 10.0
"""For this long, a beacon with a counter behind the newest counts as older: its frame came late. After that, either the
newest counter was wrong (it was guessed from 5 bits) or the tag restarted, and what is heard now counts."""
UNKNOWN_IDS_MAX = 4096
_ROW_BITS = 20
TAGS_MAX = 1 << _ROW_BITS

Outcome = Literal["good", "unknown", "forged", "stale_epoch", "replayed"]


@dataclass(slots=True)
class EnrolledTag:
    """One enrolled tag: its keys, the newest accepted counter, and what it last reported about itself."""

    name: str
    keys: TagKeys
    epoch: int = -1
    low: int = 0
    """First counter accepted in this epoch (or since the tag restarted in it)."""
    high: int = 0
    """Newest counter accepted in this epoch."""
    high_at_s: float = 0.0
    """When that counter was first heard."""
    rolled_at_s: float = 0.0
    """When this epoch was first heard."""
    restart_epoch: int = -1
    """Epoch of the last accepted restart (counter set back). One restart is accepted in an epoch."""
    drift: int = 0
    """How many epochs this tag's clock is ahead of the gateway's; negative: behind."""
    power_dbm: int = -59
    battery_mv: int = 0
    moving: bool = True
    still_since_s: float | None = None
    said_epoch: int = -1
    """Epoch and counter (`said`) of the beacon that `moving` comes from, and when it was heard (`said_at_s`)."""
    said: int = 0
    said_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who made an advertisement. tag is UNRESOLVED unless the MIC is right."""

    outcome: Outcome
    tag: int
    epoch: int | None = None


class Resolver:
    """The enrolled tags and their ids. A tag keeps its row until a restart; rows are in the order of the pseudonyms."""

    def __init__(self, tag_keys: Mapping[str, TagKeys], counts: Counter[str]) -> None:
        if len(tag_keys) > TAGS_MAX:
            raise ValueError(f"{len(tag_keys)} tags, a gateway resolves at most {TAGS_MAX}")
        self.tags = [EnrolledTag(name, tag_keys[name]) for name in sorted(tag_keys)]
        self.rows = {tag.name: row for row, tag in enumerate(self.tags)}
        self.generation = 0
        """It rises when ids are added: an unknown id may be known now."""
        self.unsure = True
        self._now = -1
        self._counts = counts
        self._ids: dict[bytes, int] = {}
        self._columns: dict[int, list[bytes]] = {}
        self._todo: deque[int] = deque()
        self._unknown: set[bytes] = set()

    @property
    def unfinished(self) -> bool:
        """Whether `fill` has work to do."""
        return bool(self._todo)

    def set_epoch(self, epoch: int, *, unsure: bool) -> None:
        """Follow the wall clock. Cheap within an epoch; else it builds three columns (three ids a tag) at most."""
        self.unsure = unsure
        if epoch == self._now:
            return
        self._now = epoch
        self._unknown.clear()
        wanted = [epoch + step for distance in range(REACH + 1) for step in {distance, -distance}]
        wanted = [each for each in wanted if 0 <= each <= 0xFFFFFFFF]
        for gone in self._columns.keys() - set(wanted):
            for identity in self._columns.pop(gone):
                if self._ids.get(identity, -1) >> _ROW_BITS == gone:
                    del self._ids[identity]
        self._todo = deque(each for each in wanted if len(self._columns.get(each, ())) < len(self.tags))
        while self._todo and abs(self._todo[0] - epoch) <= 1:
            self._fill(self._todo[0], len(self.tags))
            self._todo.popleft()

    def fill(self, rows: int = FILL_ROWS) -> None:
        """Compute up to `rows` ids of the outer epochs."""
        while self._todo and rows > 0:
            rows -= self._fill(self._todo[0], rows)
            if len(self._columns[self._todo[0]]) >= len(self.tags):
                self._todo.popleft()

    def identify(self, advertisement: Advertisement, heard_at_s: float) -> Identity:
        """Return who made an advertisement and if routine work may trust it. A trusted one updates the tag's counters.

        A cry (FLAG_SOS) with a right MIC is `good` or `replayed`, never `stale_epoch`. The caller raises both.
        """
        packed = self._ids.get(advertisement.rotating_id)
        if packed is None:
            self._counts["advertisements_unknown"] += 1
            if len(self._unknown) < UNKNOWN_IDS_MAX:
                self._unknown.add(advertisement.rotating_id)
            return Identity("unknown", UNRESOLVED)
        row, epoch = packed & (TAGS_MAX - 1), packed >> _ROW_BITS
        tag = self.tags[row]
        if not advertisement.verify(tag.keys, epoch):
            self._counts["advertisements_forged"] += 1
            return Identity("forged", UNRESOLVED)
        cries = bool(advertisement.flags & FLAG_SOS)
        loose = self.unsure or cries or bool(advertisement.flags & FLAG_CLOCK_UNSURE)
        if not loose and abs(epoch - self._now - tag.drift) > 1:
            self._counts["advertisements_stale_epoch"] += 1
            return Identity("stale_epoch", row, epoch)
        if not self._newer(tag, epoch, advertisement.counter, heard_at_s):
            self._counts["advertisements_replayed"] += 1
            return Identity("replayed", row, epoch)
        if not self.unsure and (loose or epoch != self._now + tag.drift):
            reach = REACH if advertisement.flags & FLAG_CLOCK_UNSURE else DRIFT_MAX
            tag.drift = max(-reach, min(reach, epoch - self._now))
        tag.power_dbm, tag.battery_mv = advertisement.power_dbm, advertisement.battery_mv
        _take_motion(tag, epoch, advertisement.counter, bool(advertisement.flags & FLAG_MOVING), heard_at_s)
        return Identity("good", row, epoch)

    def heard_counter(self, row: int, epoch: int, counter: int, heard_at_s: float, moving: bool | None) -> None:
        """Note the counter of a bound row (here it only rises) and what the row reports about motion.

        moving None: the row reports nothing about it.
        """
        tag = self.tags[row]
        if moving is not None:
            _take_motion(tag, epoch, counter, moving, heard_at_s)
        if epoch == tag.epoch and 0 < (counter - tag.high) & 0xFFFF < 0x8000 and heard_at_s >= tag.high_at_s:
            tag.high, tag.high_at_s = counter, heard_at_s

    def unknown_ids(self) -> int:
        """Return how many different unknown ids were heard in this epoch, at most UNKNOWN_IDS_MAX."""
        return len(self._unknown)

    def snapshot(self) -> list[tuple[str, int, int, int, int]]:
        """Return (pseudonym, epoch, low, high, drift) of every tag that was heard, for `restore`."""
        return [(tag.name, tag.epoch, tag.low, tag.high, tag.drift) for tag in self.tags if tag.epoch >= 0]

    def restore(self, rows: list[tuple[str, int, int, int, int]], now_s: float) -> None:
        """Restore a snapshot. Tags that are not enrolled any more are skipped."""
        for name, epoch, low, high, drift in rows:
            row = self.rows.get(name)
            if row is not None:
                tag = self.tags[row]
                tag.epoch, tag.low, tag.high = epoch, low & 0xFFFF, high & 0xFFFF
                tag.drift = max(-REACH, min(REACH, drift))
                tag.high_at_s = tag.rolled_at_s = now_s - REORDER_S  # nothing heard after now counts as older

    def _fill(self, epoch: int, rows: int) -> int:
        column = self._columns.setdefault(epoch, [])
        first = len(column)
        for row in range(first, min(first + rows, len(self.tags))):
            identity = rotating_id(self.tags[row].keys.k_id, epoch)
            self._ids[identity] = epoch << _ROW_BITS | row
            column.append(identity)
        self.generation += 1
        return len(column) - first

    def _newer(self, tag: EnrolledTag, epoch: int, counter: int, heard_at_s: float) -> bool:
        """Return whether a counter is accepted. A tag's counter and epoch only rise; only a late one may be lower."""
        if epoch > tag.epoch:
            tag.epoch, tag.low, tag.high = epoch, counter, counter
            tag.high_at_s = tag.rolled_at_s = heard_at_s
            return True
        if epoch < tag.epoch:
            set_right = not self.unsure and tag.epoch > self._now + 1 and abs(epoch - self._now) <= 1
            if set_right:  # its clock was ahead and was corrected; what it reports now is current
                tag.epoch, tag.low, tag.high = epoch, counter, counter
                tag.high_at_s = tag.rolled_at_s = heard_at_s
            return set_right or heard_at_s <= tag.rolled_at_s + REORDER_S
        ahead = (counter - tag.high) & 0xFFFF
        if ahead == 0:
            return heard_at_s <= tag.high_at_s + SAME_S
        if ahead < 0x8000:
            tag.high, tag.high_at_s = counter, heard_at_s
            return True
        if heard_at_s <= tag.high_at_s + REORDER_S:
            return True
        seen_already = (counter - tag.low) & 0xFFFF <= (tag.high - tag.low) & 0xFFFF
        if seen_already or tag.restart_epoch == epoch:
            return False
        # Set back to a counter that this epoch never had: a new battery, not a replay. Accepted once in an epoch.
        self._counts["tag_restarts"] += 1
        tag.low = tag.high = counter
        tag.high_at_s, tag.restart_epoch = heard_at_s, epoch
        return True


def _take_motion(tag: EnrolledTag, epoch: int, counter: int, moving: bool, heard_at_s: float) -> None:
    """Take the motion that a beacon reports, unless a newer beacon was taken: readers report them in any order."""
    if epoch < tag.epoch:
        return
    behind = (tag.said - counter) & 0xFFFF
    if epoch == tag.said_epoch and behind < 0x8000 and heard_at_s <= tag.said_at_s + MOTION_LATE_S:
        return
    tag.said_epoch, tag.said, tag.said_at_s = epoch, counter, heard_at_s
    tag.moving = moving
    if moving:
        tag.still_since_s = None
    elif tag.still_since_s is None:
        tag.still_since_s = heard_at_s
