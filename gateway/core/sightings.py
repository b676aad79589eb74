"""Report -> sightings: slots become tags, ages become times, and a packet that is reported twice counts once.

A slot is a number that a reader uses for a tag after the gateway acknowledged the BINDINGS frame that named it. A row
is accepted only if its frame's sequence is newer than the binding's. So a slot that is given to another tag can cost a
row, but it never puts one child in another child's place.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.core import frames
from gateway.core.frames import ReaderLinks, Report
from gateway.core.losses import Losses
from gateway.core.resolve import UNRESOLVED, Identity, Resolver
from gateway.effects import Downlink
from gateway.events import ClockQuality
from readers import wire
from readers.advertisement import Advertisement, AdvertisementError, Contents, parse

REBIND_QUIET_S = 2.0
"""A reader is asked for all its bindings at most once in this time."""
ACK_WAIT_S = 0.2
"""Acknowledgements wait this long to share one downlink: downlinks are the most expensive traffic of the mesh."""
REPEATED_S = 0.3
"""The same counter from the same reader, heard within this time: one packet that is reported twice."""
AGE_UNKNOWN_MS = 255 * wire.AGE_STEP_MS
RATE_MIN, RATE_MAX = 0.02, 10.0
"""Beacons a second of one tag. A pressed tag advertises every 100 ms."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC_MAX_S = 253_402_300_799.0  # 9999-12-31, the limit of datetime


class WallClock:
    """Converts the monotonic `now_s` to UTC, which only dates things. It may jump: no timer uses it."""

    def __init__(self, now_s: float) -> None:
        self.quality: ClockQuality = "unsure"
        self._offset_s = -now_s

    def set(self, utc_s: float, now_s: float, quality: ClockQuality) -> None:
        self._offset_s, self.quality = utc_s - now_s, quality

    def utc_s(self, at_s: float) -> float:
        return min(max(at_s + self._offset_s, 0.0), _UTC_MAX_S)

    def utc(self, at_s: float) -> datetime:
        """Return the UTC time of a moment on the clock of `now_s`, to the millisecond, within 1970..9999."""
        return self.date(self.utc_s(at_s))

    def date(self, utc_s: float) -> datetime:
        """Return UTC seconds as a datetime, within 1970..9999."""
        return _EPOCH + timedelta(milliseconds=round(min(max(utc_s, 0.0), _UTC_MAX_S) * 1000))


@dataclass(slots=True)
class Binding:
    """The tag that a slot of a reader stands for."""

    sequence: int
    advertisement: Advertisement | None
    tag: int = UNRESOLVED
    epoch: int = -1
    contents: Contents | None = None
    """What the advertisement says, once its tag is known."""
    refused: bool = False
    """The advertisement was refused (for example a replay): rows of this slot belong to no tag."""
    tried: int = -1
    """Generation of the resolver's table at the last look-up."""
    counter: int = 0
    heard_at_s: float = 0.0
    told: int = 0
    """Newest sequence of a frame with a row for this slot."""
    rate: float = 1.0


@dataclass(slots=True)
class Sighting:
    """One tag heard by one reader: a whole advertisement, or the row of a bound slot."""

    reader: int
    rssi_dbm: int | None
    heard_at_s: float
    packets: int
    counter: int
    """The beacon's whole counter. For a bound slot it is computed from 5 bits."""
    advertisement: Advertisement | None
    """The advertisement as heard. For a bound slot: the one that bound it; None if it could not be read."""
    whole: bool
    """The sighting has its own advertisement, so there is a MIC to check."""
    binding: Binding | None
    tag: int = UNRESOLVED
    timely: bool = True
    """False: heard at `heard_at_s` or earlier; the time is not known, so it cannot be used for a fix."""
    moving: bool | None = None
    """Whether a timely row reports its tag as moving. None: the advertisement says so, or the row is not timely."""
    cries: bool = False
    """It is a cry, by the tag's own flag or because the reader reports it as an SOS."""
    pressed_at_s: float | None = None
    """For a cry: when the button was pressed, as far as this reader knows. None: too long ago for the age field."""
    identity: Identity | None = None
    """The resolver's answer about the advertisement; None: not asked yet."""


@dataclass(slots=True)
class Slots:
    """The bindings of one reader in its current boot."""

    by_number: dict[int, Binding] = field(default_factory=dict)
    asked_at_s: float = float("-inf")
    ack_due_s: float | None = None
    acks: list[tuple[int, int]] = field(default_factory=list)
    """(Slot, sequence) of what waits for an acknowledgement; at most ACKS_MAX."""
    unknown: bool = False
    """Whether all bindings are needed: a row named a slot that is not bound here, or a stranger became known."""


class Table:
    """The slots of all readers: at most 256 a reader, because a slot number has 8 bits."""

    def __init__(self, links: ReaderLinks, losses: Losses, resolver: Resolver, counts: Counter[str]) -> None:
        self._links, self._losses, self._resolver, self._counts = links, losses, resolver, counts
        self._slots: dict[int, Slots] = {}

    def read(self, report: Report, now_s: float) -> list[Sighting]:
        """Return the sightings of a report. A report that is not new gives none; an SOS always gives one."""
        slots = self._slots.setdefault(report.reader, Slots())
        if report.rebooted:  # what another boot bound or waits for means nothing in this one
            slots.by_number.clear()
            slots.acks.clear()
            slots.ack_due_s = None
        if report.kind == wire.SOS:
            return [self._cry(report, now_s)]
        if report.freshness == "new":
            if report.kind == wire.SIGHTINGS:
                return self._bound(slots, report, now_s)
            if report.kind == wire.BINDINGS:
                return self._bind(slots, report, now_s)
        return []

    def answer(self, report: Report, now_s: float) -> Iterator[Downlink]:
        """Yield what a reader must get at once; leave the rest to `flush`. Call it after a report was processed.

        Bindings and heartbeats are acknowledged, unless a binding was refused: then the reader repeats it with the
        newest advertisement. If a row has an unknown slot, ask for all bindings, at most once in REBIND_QUIET_S.
        """
        slots = self._slots.setdefault(report.reader, Slots())
        for ack in self._to_acknowledge(slots, report):
            if ack not in slots.acks:
                slots.acks.append(ack)
            if slots.ack_due_s is None:
                slots.ack_due_s = now_s + ACK_WAIT_S
        ask = slots.unknown and now_s - slots.asked_at_s >= REBIND_QUIET_S
        slots.unknown = False
        if ask:
            slots.asked_at_s = now_s
            self._counts["rebinds_asked"] += 1
        if ask or len(slots.acks) >= wire.ACKS_MAX:
            yield from self._send_acks(report.reader, slots, wire.ACK_REBIND if ask else 0, now_s)

    def flush(self, now_s: float) -> Iterator[Downlink]:
        """Yield the acknowledgements that are due now."""
        for reader, slots in self._slots.items():
            if slots.ack_due_s is not None and slots.ack_due_s <= now_s:
                yield from self._send_acks(reader, slots, 0, now_s)

    def deadline_s(self) -> float:
        """Return when `flush` next has work; inf when never."""
        return min((s.ack_due_s for s in self._slots.values() if s.ack_due_s is not None), default=float("inf"))

    def bound(self) -> int:
        """Return how many slots are bound."""
        return sum(len(slots.by_number) for slots in self._slots.values())

    def rebind(self, reader: int) -> None:
        """Ask this reader for all its bindings, because one of its strangers is known now: it needs the mark."""
        self._slots.setdefault(reader, Slots()).unknown = True

    def _send_acks(self, reader: int, slots: Slots, flags: int, now_s: float) -> Iterator[Downlink]:
        acks, slots.acks, slots.ack_due_s = slots.acks, [], None
        if self._losses.tell(reader, now_s):
            flags |= wire.ACK_LOSSES
        rows = [(slot, sequence, self._mark(slots, slot, sequence)) for slot, sequence in acks]
        for first in range(0, max(len(rows), 1), wire.ACKS_MAX):
            body = wire.encode_ack(flags, rows[first : first + wire.ACKS_MAX])
            payload = frames.answer(self._links, reader, wire.ACK, body)
            if payload is not None:
                yield Downlink(reader, payload)

    def _mark(self, slots: Slots, slot: int, sequence: int) -> int:
        """Return what the next cry of this slot's tag carries; 0 if no tag of this zone has the slot."""
        binding = slots.by_number.get(slot)
        if binding is None or binding.sequence != sequence or binding.tag == UNRESOLVED or binding.contents is None:
            return 0
        return self._resolver.mark_of_next_cry(binding.tag, binding.epoch, binding.contents)

    def _to_acknowledge(self, slots: Slots, report: Report) -> list[tuple[int, int]]:
        if report.freshness == "stale" or report.boot != frames.boot_of(self._links, report.reader):
            return []  # the number of another boot's frame would acknowledge a frame of this boot
        if report.kind == wire.HEARTBEAT:
            return [(wire.ACK_HEARTBEAT, report.sequence)]
        if report.kind != wire.BINDINGS:
            return []
        named = [slots.by_number.get(slot) for slot, *_ in report.content]
        return [
            (slot, report.sequence)
            for (slot, *_), binding in zip(report.content, named, strict=True)
            if binding is not None and binding.sequence == report.sequence and not binding.refused
        ]

    def _bound(self, slots: Slots, report: Report, now_s: float) -> list[Sighting]:
        sightings = []
        for slot, rssi_dbm, age_ms, packets, bits, moving in report.content:
            binding = slots.by_number.get(slot)
            if binding is None:
                self._counts["rows_unknown_slot"] += 1
                slots.unknown = True
                continue
            if report.sequence <= binding.sequence:
                self._counts["rows_before_binding"] += 1
                continue
            if binding.refused:
                self._counts["rows_refused_slot"] += 1
                continue
            heard_at_s = now_s - age_ms / 1000
            if report.sequence < binding.told:  # this frame came late: its row was heard before the one that came first
                heard_at_s = min(heard_at_s, binding.heard_at_s)
            binding.told = max(binding.told, report.sequence)
            elapsed_s = heard_at_s - binding.heard_at_s
            if bits == binding.counter & 31 and abs(elapsed_s) < REPEATED_S:
                self._counts["rows_repeated"] += 1
                continue
            counter = _whole(binding, bits, elapsed_s)
            if elapsed_s > 0:
                binding.counter, binding.heard_at_s = counter, heard_at_s
            timely = age_ms < AGE_UNKNOWN_MS
            sightings.append(
                Sighting(
                    report.reader, rssi_dbm, heard_at_s, packets, counter, binding.advertisement, False, binding,
                    binding.tag, timely, moving if timely else None,
                )
            )  # fmt: skip
        return sightings

    def _bind(self, slots: Slots, report: Report, now_s: float) -> list[Sighting]:
        sightings = []
        for slot, rssi_dbm, age_ms, packets, raw in report.content:
            known = slots.by_number.get(slot)
            if known is not None and report.sequence <= known.sequence:
                self._counts["rows_before_binding"] += 1
                continue
            heard_at_s = now_s - age_ms / 1000
            advertisement = self._parse(raw)
            binding = slots.by_number[slot] = Binding(report.sequence, advertisement, heard_at_s=heard_at_s)
            if advertisement is None:
                continue
            binding.counter = advertisement.counter
            if (
                known is not None
                and known.advertisement is not None
                and known.advertisement.rotating_id == advertisement.rotating_id
                and not known.refused
            ):
                binding.tag, binding.epoch, binding.rate = known.tag, known.epoch, known.rate
                binding.contents = known.contents
                if known.counter == binding.counter and abs(heard_at_s - known.heard_at_s) < REPEATED_S:
                    binding.tried = known.tried
                    self._counts["rows_repeated"] += 1
                    continue
            sightings.append(
                Sighting(
                    report.reader, rssi_dbm, heard_at_s, packets, advertisement.counter, advertisement, True, binding,
                    timely=age_ms < AGE_UNKNOWN_MS, cries=bool(advertisement.flags & wire.FLAG_SOS),
                    pressed_at_s=heard_at_s,
                )
            )  # fmt: skip
        return sightings

    def _cry(self, report: Report, now_s: float) -> Sighting:
        _, _, age_ms, rssi_dbm, packets, raw = report.content
        # A reader's SOS counts even if its advertisement cannot be read here. Then its tag is not known.
        advertisement = self._parse(raw) or Advertisement(raw[1:9], wire.FLAG_SOS, raw[10], 0, b"", b"")
        pressed_at_s = now_s - age_ms / 1000 if age_ms < 0xFFFF * wire.ALARM_AGE_STEP_MS else None
        # The age is that of the press. The advertisement is the newest one, heard now or earlier.
        return Sighting(
            report.reader, rssi_dbm, now_s, packets, advertisement.counter, advertisement, True, None, cries=True,
            pressed_at_s=pressed_at_s,
        )  # fmt: skip

    def _parse(self, raw: bytes) -> Advertisement | None:
        try:
            return parse(raw)
        except AdvertisementError:
            self._counts["advertisements_unreadable"] += 1
            return None


def _whole(binding: Binding, bits: int, elapsed_s: float) -> int:
    """Return the counter with these low 5 bits that best fits the tag's rate; before the last one only if late."""
    step = (bits - binding.counter) & 31
    if elapsed_s <= 0:  # reported late: the nearest counter at or before the last
        return (binding.counter - (-step & 31)) & 0xFFFF
    if elapsed_s * binding.rate < 16:
        binding.rate = min(RATE_MAX, max(RATE_MIN, binding.rate * 0.8 + step / max(elapsed_s, 0.1) * 0.2))
        return (binding.counter + step) & 0xFFFF
    laps = max(0, round((elapsed_s * binding.rate - step) / 32))
    return (binding.counter + step + 32 * laps) & 0xFFFF
