"""Report -> sightings: slots given their tag back, ages turned into times, what was heard twice counted once.

A slot is a number a reader uses for a tag once the gateway has acknowledged the BINDINGS frame that named it. A row is
believed only if its frame's sequence is newer than the binding's, so a slot given to another tag can cost a row and
never puts one child in another's place.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.core import frames
from gateway.core.frames import ReaderLinks, Report
from gateway.core.resolve import UNRESOLVED, Identity
from gateway.effects import Downlink
from gateway.events import ClockQuality
from readers import wire
from readers.advertisement import Advertisement, AdvertisementError, parse

REBIND_QUIET_S = 2.0
"""A reader is asked for all its bindings once in so long."""
ACK_WAIT_S = 0.2
"""Acknowledgements wait so long for company: a downlink a frame is the mesh's dearest traffic."""
REPEATED_S = 0.3
"""One counter, one reader, heard within this of each other: the same packet told twice."""
AGE_UNKNOWN_MS = 255 * wire.AGE_STEP_MS
RATE_MIN, RATE_MAX = 0.02, 10.0
"""Beacons a second; a pressed tag advertises every 100 ms."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC_MAX_S = 253_402_300_799.0  # 9999-12-31: what datetime can say


class WallClock:
    """Maps the monotonic `now_s` of everything to UTC, which only labels. It may step: nothing is timed by it."""

    def __init__(self, now_s: float) -> None:
        self.quality: ClockQuality = "unsure"
        self._offset_s = -now_s

    def set(self, utc_s: float, now_s: float, quality: ClockQuality) -> None:
        self._offset_s, self.quality = utc_s - now_s, quality

    def utc_s(self, at_s: float) -> float:
        return min(max(at_s + self._offset_s, 0.0), _UTC_MAX_S)

    def utc(self, at_s: float) -> datetime:
        """Return the UTC time of a moment of `now_s`, to the millisecond, within 1970..9999."""
        return self.date(self.utc_s(at_s))

    def date(self, utc_s: float) -> datetime:
        """Return UTC seconds as a datetime, within 1970..9999."""
        return _EPOCH + timedelta(milliseconds=round(min(max(utc_s, 0.0), _UTC_MAX_S) * 1000))


@dataclass(slots=True)
class Binding:
    """What a slot of a reader stands for."""

    sequence: int
    advertisement: Advertisement | None
    tag: int = UNRESOLVED
    epoch: int = -1
    refused: bool = False
    """The advertisement was refused (a replay, say): rows of this slot are nobody's."""
    tried: int = -1
    """Generation of the resolver's table when it was last looked up."""
    counter: int = 0
    heard_at_s: float = 0.0
    told: int = 0
    """Newest sequence of which a row was read."""
    rate: float = 1.0


@dataclass(slots=True)
class Sighting:
    """One tag heard by one reader: a whole advertisement, or the row of a bound slot."""

    reader: int
    rssi_dbm: int | None
    heard_at_s: float
    packets: int
    counter: int
    """The beacon's whole counter, made whole from 5 bits for a bound slot."""
    advertisement: Advertisement | None
    """The advertisement as heard; for a bound slot the one that bound it, None if it could not be read."""
    whole: bool
    """It came with its own advertisement, so there is a MIC to check."""
    binding: Binding | None
    tag: int = UNRESOLVED
    timely: bool = True
    """False: heard at `heard_at_s` or earlier, nobody knows when, so good for no fix."""
    moving: bool | None = None
    """What a timely row says of its tag; None: its advertisement says it, or the row is not timely."""
    cries: bool = False
    """It says SOS, by its own flag or by its reader's word."""
    pressed_at_s: float | None = None
    """When the button was pressed, as far as this reader knows; None: longer ago than its scale."""
    identity: Identity | None = None
    """What the resolver made of the advertisement, once asked."""


@dataclass(slots=True)
class Slots:
    """The bindings of one reader in its present boot."""

    by_number: dict[int, Binding] = field(default_factory=dict)
    asked_at_s: float = float("-inf")
    ack_due_s: float | None = None
    acks: list[int] = field(default_factory=list)
    """Sequences owed; ACKS_MAX at the most."""
    unknown: bool = False
    """A row named a slot that is not bound here."""


class Table:
    """The slots of all readers; 256 a reader at the most, by their width."""

    def __init__(self, links: ReaderLinks, counts: Counter[str]) -> None:
        self._links, self._counts = links, counts
        self._slots: dict[int, Slots] = {}

    def read(self, report: Report, now_s: float) -> list[Sighting]:
        """Return what a report says was heard. One read before gives nothing, except an SOS, which is always told."""
        slots = self._slots.setdefault(report.reader, Slots())
        if report.rebooted:
            slots.by_number.clear()
            slots.acks.clear()
        if report.kind == wire.SOS:
            return [self._cry(report, now_s)]
        if report.freshness == "new":
            if report.kind == wire.SIGHTINGS:
                return self._bound(slots, report, now_s)
            if report.kind == wire.BINDINGS:
                return self._bind(slots, report, now_s)
        return []

    def answer(self, report: Report, now_s: float) -> Iterator[Downlink]:
        """Yield what a reader must hear at once, owe the rest to `flush`. Call it when a report has been dealt with.

        BINDINGS and HEARTBEAT are acknowledged, unless a binding was refused: the reader then repeats it with what it
        heard last. A row of an unknown slot asks for all bindings, at most once in REBIND_QUIET_S.
        """
        slots = self._slots.setdefault(report.reader, Slots())
        if report.kind in (wire.BINDINGS, wire.HEARTBEAT) and self._holds(slots, report):
            if report.sequence not in slots.acks:
                slots.acks.append(report.sequence)
            if slots.ack_due_s is None:
                slots.ack_due_s = now_s + ACK_WAIT_S
        ask = slots.unknown and now_s - slots.asked_at_s >= REBIND_QUIET_S
        slots.unknown = False
        if ask:
            slots.asked_at_s = now_s
            self._counts["rebinds_asked"] += 1
        if ask or len(slots.acks) >= wire.ACKS_MAX:
            yield from self._pay(report.reader, slots, ask)

    def flush(self, now_s: float) -> Iterator[Downlink]:
        """Yield the acknowledgements that are due."""
        for reader, slots in self._slots.items():
            if slots.ack_due_s is not None and slots.ack_due_s <= now_s:
                yield from self._pay(reader, slots, False)

    def deadline_s(self) -> float:
        """Return when `flush` next has work; inf when never."""
        return min((s.ack_due_s for s in self._slots.values() if s.ack_due_s is not None), default=float("inf"))

    def bound(self) -> int:
        """Return how many slots are bound."""
        return sum(len(slots.by_number) for slots in self._slots.values())

    def _pay(self, reader: int, slots: Slots, rebind: bool) -> Iterator[Downlink]:
        acks, slots.acks, slots.ack_due_s = slots.acks, [], None
        payload = frames.answer(self._links, reader, wire.ACK, wire.encode_ack(rebind, acks))
        if payload is not None:
            yield Downlink(reader, payload)

    def _holds(self, slots: Slots, report: Report) -> bool:
        if report.kind == wire.HEARTBEAT:
            return report.freshness != "stale"
        mine = [binding for binding in slots.by_number.values() if binding.sequence == report.sequence]
        return bool(mine) and not any(binding.refused for binding in mine)

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
            if report.sequence < binding.told:  # overtaken on the mesh: heard before what came first
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
        # A reader's SOS is one even if its advertisement cannot be read here: then nobody is behind it by name.
        advertisement = self._parse(raw) or Advertisement(raw[1:9], wire.FLAG_SOS, raw[10], 0, -59, 0, b"", b"")
        pressed_at_s = now_s - age_ms / 1000 if age_ms < 0xFFFF * wire.ALARM_AGE_STEP_MS else None
        # The age is the press's; the advertisement is the newest heard, by now at the latest.
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
    """The counter with these low 5 bits that is nearest to where this tag's own rate puts it, not before the last."""
    step = (bits - binding.counter) & 31
    if elapsed_s <= 0:  # told late: the nearest one at or before the last
        return (binding.counter - (-step & 31)) & 0xFFFF
    if elapsed_s * binding.rate < 16:
        binding.rate = min(RATE_MAX, max(RATE_MIN, binding.rate * 0.8 + step / max(elapsed_s, 0.1) * 0.2))
        return (binding.counter + step) & 0xFFFF
    laps = max(0, round((elapsed_s * binding.rate - step) / 32))
    return (binding.counter + step + 32 * laps) & 0xFFFF
