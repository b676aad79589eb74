"""Rotating id -> tag, and whether to trust it: the MIC proves who made an advertisement, the counters that it is new.

The table holds the ids of all enrolled tags for `REACH` epochs before and after now. So a new epoch needs only one new
column, which is built in small parts; only a jump of the clock builds the nearest three columns at once. A routine
advertisement is accepted within one epoch of the tag's own clock, as far as it is known. A cry is accepted anywhere in
the table. So is everything while a clock is unsure: the gateway's, or the tag's according to its own flag.

New is a beacon whose counter was not heard before in its epoch. The MIC binds it to the epoch, so a recording of it can
repeat nothing else. A tag that lost its counter (a new battery) draws another: it was not heard either, so it is new.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from readers.advertisement import Advertisement, Contents, TagKeys, mark, rotating_id
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
REORDER_MAX = 64
"""And this many beacons behind it at most: a crying tag sends 50 in REORDER_S. What is farther behind was recorded."""
SAME_S = 60.0
"""The same counter is accepted again for this long: a resting tag may repeat one advertisement."""
COUNT_RATE_MAX, BURST = 1.2, 40
"""Most beacons a second of a tag, but for the 30 of a press's first seconds and some slack."""
SKIP_MAX = 1024
"""Beacons of one tag that may go unheard before a higher counter counts as a restart."""
RANGES_MAX = 4
EPOCHS_MAX = 2 * REACH + 1
"""Ranges of heard counters that are kept of a tag in an epoch, and its epochs. With one more the oldest is dropped."""
GUESS_MARGIN = 64
"""A counter that was completed from 5 bits may be wrong by a lap or two of 32. What is this far behind was heard."""
MOTION_LATE_S = 10.0
"""For this long, a beacon with a counter behind the newest counts as older: its frame came late. After that, either the
newest counter was wrong (it was guessed from 5 bits) or the tag restarted, and what is heard now counts."""
UNKNOWN_IDS_MAX = 4096
_ROW_BITS = 20
TAGS_MAX = 1 << _ROW_BITS

KeptTag = tuple[str, int, int, dict[int, list[tuple[int, int]]]]
Outcome = Literal["good", "unknown", "forged", "stale_epoch", "replayed"]


@dataclass(slots=True)
class EnrolledTag:
    """One enrolled tag: its keys, the newest accepted counter, and what it last reported about itself."""

    name: str
    keys: TagKeys
    epoch: int = -1
    """The newest epoch that was heard, unless its clock was set right since."""
    heard: dict[int, list[list[int]]] = field(default_factory=dict)
    """Epoch -> ranges [first, last] of counters heard in it, the range that was extended last at the end."""
    high: int = -1
    """The newest counter that a MIC proved, and when it was first heard (`high_at_s`). -1: before a restart."""
    high_at_s: float = 0.0
    rolled_at_s: float = 0.0
    """When this epoch was first heard."""
    guessed: int = -1
    """What a bound row reports, less GUESS_MARGIN: routine beacons of `epoch` up to this were heard. -1: none."""
    drift: int = 0
    """How many epochs this tag's clock is ahead of the gateway's; negative: behind."""
    power_dbm: int = -59
    battery_mv: int = 0
    press: int | None = None
    """The press counter of the newest beacon."""
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
    contents: Contents | None = None
    """What it says; None unless the MIC is right."""
    current_until_s: float = float("-inf")
    """For a beacon that is not new: until when it was, at the latest. Who hears it later hears a repetition."""


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
        contents = advertisement.open(tag.keys, epoch)
        if contents is None:
            self._counts["advertisements_forged"] += 1
            return Identity("forged", UNRESOLVED)
        cries, unsure = bool(contents.flags & FLAG_SOS), bool(contents.flags & FLAG_CLOCK_UNSURE)
        loose = self.unsure or cries or unsure
        if not loose and abs(epoch - self._now - tag.drift) > 1:
            self._counts["advertisements_stale_epoch"] += 1
            return Identity("stale_epoch", row, epoch, contents, _current_until_s(tag, epoch, advertisement.counter))
        if not self._newer(tag, epoch, advertisement.counter, heard_at_s, cries=cries, unsure=unsure):
            self._counts["advertisements_replayed"] += 1
            return Identity("replayed", row, epoch, contents, _current_until_s(tag, epoch, advertisement.counter))
        if not self.unsure and (loose or epoch != self._now + tag.drift):
            reach = REACH if unsure else DRIFT_MAX
            tag.drift = max(-reach, min(reach, epoch - self._now))
        tag.press = contents.press
        if contents.power_dbm is not None and contents.battery_mv is not None:
            tag.power_dbm, tag.battery_mv = contents.power_dbm, contents.battery_mv
        _take_motion(tag, epoch, advertisement.counter, bool(contents.flags & FLAG_MOVING), heard_at_s)
        return Identity("good", row, epoch, contents)

    def knows(self, advertisement: Advertisement) -> bool:
        """Return whether a tag has this id, now or in one of the epochs that are searched."""
        return advertisement.rotating_id in self._ids

    def copies(self, advertisement: Advertisement) -> bool:
        """Return whether a cry with a wrong MIC carries the right mark. Only the tag knows that before it cries: so it
        has cried, and somebody copies it."""
        packed = self._ids.get(advertisement.rotating_id)
        if packed is None or not advertisement.signed:
            return False
        keys, epoch = self.tags[packed & (TAGS_MAX - 1)].keys, packed >> _ROW_BITS
        return advertisement.signed[13:15] == mark(keys, epoch, advertisement.press(keys, epoch)).to_bytes(2, "big")

    def mark_of_next_cry(self, row: int, epoch: int, contents: Contents) -> int:
        """Return the mark that the next cry of a tag carries in this epoch, or the present one's if it cries."""
        return mark(self.tags[row].keys, epoch, contents.press + (0 if contents.flags & FLAG_SOS else 1))

    def heard_counter(self, row: int, epoch: int, counter: int, heard_at_s: float, moving: bool | None) -> None:
        """Note the counter of a bound row (here it only rises) and what the row reports about motion.

        moving None: the row reports nothing about it.
        """
        tag = self.tags[row]
        if moving is not None:
            _take_motion(tag, epoch, counter, moving, heard_at_s)
        ahead = (counter - GUESS_MARGIN - tag.high) & 0xFFFF
        # No row has a MIC: it may move this by no more than the tag can have sent since its newest proven beacon.
        if epoch == tag.epoch and tag.high >= 0 and 0 < ahead <= COUNT_RATE_MAX * (heard_at_s - tag.high_at_s):
            tag.guessed = (counter - GUESS_MARGIN) & 0xFFFF

    def unknown_ids(self) -> int:
        """Return how many different unknown ids were heard in this epoch, at most UNKNOWN_IDS_MAX."""
        return len(self._unknown)

    def snapshot(self) -> list[KeptTag]:
        """Return (pseudonym, epoch, drift, heard) of every tag that was heard, for `restore`."""
        heard = [tag for tag in self.tags if tag.epoch >= 0]
        return [
            (tag.name, tag.epoch, tag.drift, {e: [(low, high) for low, high in r] for e, r in tag.heard.items()})
            for tag in heard
        ]

    def restore(self, rows: list[KeptTag], now_s: float) -> None:
        """Restore a snapshot. Tags that are not enrolled any more are skipped."""
        for name, epoch, drift, heard in rows:
            row = self.rows.get(name)
            if row is not None:
                tag = self.tags[row]
                tag.epoch, tag.drift = epoch, max(-REACH, min(REACH, drift))
                for each, ranges in list(heard.items())[-EPOCHS_MAX:]:
                    whole = [[low & 0xFFFF, high & 0xFFFF] for low, high in ranges[-RANGES_MAX:]]
                    if whole:
                        tag.heard[each] = whole
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

    def _newer(
        self, tag: EnrolledTag, epoch: int, counter: int, heard_at_s: float, *, cries: bool, unsure: bool
    ) -> bool:
        """Return whether a beacon is new, and note it. One that comes late counts as new for REORDER_S."""
        ranges = tag.heard.get(epoch)
        if epoch < tag.epoch:
            set_right = not self.unsure and tag.epoch > self._now + 1 and abs(epoch - self._now) <= 1
            if not (set_right or unsure):  # else its clock was ahead and was corrected, or it says that it has lost it
                recorded = ranges is not None and _holds(ranges, counter) and _behind(ranges, counter) > REORDER_MAX
                return heard_at_s <= tag.rolled_at_s + REORDER_S and not recorded
        if ranges is None:
            while len(tag.heard) >= EPOCHS_MAX:
                del tag.heard[next(iter(tag.heard))]
            ranges = tag.heard[epoch] = []
        if epoch != tag.epoch:
            tag.rolled_at_s = heard_at_s
        guessed = -1 if cries or epoch != tag.epoch else tag.guessed
        if epoch == tag.epoch and counter == tag.high:
            fresh = heard_at_s <= tag.high_at_s + (REORDER_S if cries else SAME_S)
        elif _holds(ranges, counter) or (
            guessed >= 0 and 0 < (counter - tag.high) & 0xFFFF <= (guessed - tag.high) & 0xFFFF
        ):
            fresh = epoch == tag.epoch and heard_at_s <= tag.high_at_s + REORDER_S
            fresh = fresh and _behind(ranges, counter) <= REORDER_MAX
        else:
            fresh = True
            self._note(tag, ranges, counter)
            tag.high, tag.high_at_s, tag.guessed = counter, heard_at_s, -1
        if fresh:
            tag.epoch = epoch
        return fresh

    def _note(self, tag: EnrolledTag, ranges: list[list[int]], counter: int) -> None:
        """Extend the range that this counter belongs to, or begin one: the tag restarted."""
        for at in range(len(ranges) - 1, -1, -1):
            low, high = ranges[at]
            if (counter - high) & 0xFFFF <= SKIP_MAX or (low - counter) & 0xFFFF <= GUESS_MARGIN:
                after = (counter - high) & 0xFFFF <= SKIP_MAX
                ranges.append(ranges.pop(at))
                ranges[-1][after] = counter
                return
        if ranges:
            self._counts["tag_restarts"] += 1
        ranges.append([counter, counter])
        del ranges[:-RANGES_MAX]


def _current_until_s(tag: EnrolledTag, epoch: int, counter: int) -> float:
    """Return until when a heard beacon can have been its tag's newest, by the counts that came after it."""
    if epoch != tag.epoch:
        return tag.rolled_at_s
    ranges = tag.heard.get(epoch)
    newest = tag.high if tag.high >= 0 else ranges[-1][1] if ranges else counter
    behind = (newest - counter) & 0xFFFF
    return tag.high_at_s - (max(0.0, behind - BURST) / COUNT_RATE_MAX if behind < 0x8000 else 0.0)


def _behind(ranges: list[list[int]], counter: int) -> int:
    return (ranges[-1][1] - counter) & 0xFFFF if ranges else 0


def _holds(ranges: list[list[int]] | None, counter: int) -> bool:
    return any((counter - low) & 0xFFFF <= (high - low) & 0xFFFF for low, high in ranges or ())


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
