"""The table of alarms. Each press has one alarm, whichever readers report it, however often, and across a power cut.

The table has a limit. When it is full, alarms leave in this order: closed ones, then those not heard of for a day, then
open ones not heard of for `SAME_PRESS_S`, unverified before verified. This never loses an emergency: at worst a reader
that still reports the press raises a second alarm.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from gateway.core.sightings import WallClock
from gateway.cries import Attention, Trust
from gateway.effects import AlarmMemory
from gateway.events import UNKNOWN_TAG, Bell, Sos
from gateway.fix import Reading
from readers import wire
from readers.advertisement import Advertisement, AdvertisementError, parse

ALARMS_MAX = 4096
ALARMS_HARD_MAX = 4 * ALARMS_MAX
"""Reached only by this many open alarms that were all heard of within SAME_PRESS_S."""
LAMPS_MAX = 48
"""Most lamps of one alarm; with READERS_MAX this keeps a memory under 4 KiB."""
READERS_MAX = 64
MERGED_MAX = 32
SAME_PRESS_S = 1200.0
"""How long after its last cry a press counter still names the same press. A tag cries 10 minutes at most."""
OLD_S = 86_400.0

AlarmKind = Literal["sos", "bell", "danger"]
LampKey = tuple[int, int, int]
"""(Reader, its boot, its number for the alarm)."""


@dataclass(slots=True)
class Lamp:
    """The lamp of one reader for one alarm."""

    cause: bytes
    """Why the reader raised it: rotating id and press counter, or the bell's input. Needed because numbers repeat."""
    shown: int = wire.WAITING
    told: int = wire.WAITING
    """Highest stage of this lamp that was reported to the city."""
    counter: int = -1
    """Beacon counter of the newest advertisement that this reader sent for the alarm."""
    mic: bytes = b""
    """Its MIC."""
    copies: int = 0
    """How often its reader was asked for the next cry, because it sent a copy with a wrong MIC."""
    again: bool = False
    """Its number meant another alarm before, so it may show a stage that nobody gave this one: it begins again."""
    send_at_s: float = float("inf")
    pause_s: float = 0.0
    until_s: float = float("inf")


@dataclass(slots=True)
class Alarm:
    """One press, or one tag near one danger area."""

    name: str
    kind: AlarmKind
    key: bytes
    who: bytes
    """Identity of the press, without the alarm's number. The cries of other readers are compared with it."""
    pressed_at_s: float
    heard_at_s: float
    """When a report about the alarm last came."""
    raised_utc_s: float
    dated: bool
    """Whether raised_utc_s comes from a good clock."""
    restored: bool = False
    """Restored after a restart: raised_utc_s is a better time of the press than pressed_at_s."""
    stage: int = wire.RECEIVED
    committed: bool = False
    first: Sos | Bell | None = None
    """The first event, kept until it is committed, so that a second try sends the same event."""
    tag: str = UNKNOWN_TAG
    trust: Trust = "verified"
    drill: bool = False
    press: int = 0
    battery_mv: int = 0
    bell: str = ""
    area: str = ""
    counts: tuple[int, int] | None = None
    """The first and the newest of the tag's own beacon counts that belong to this press; None: not known."""
    counted_at_s: float = float("-inf")
    """When the newest of them was heard; -inf: not known."""
    over: bool = False
    """For a danger alarm: the tag is clear of the area again."""
    revision: int = 0
    revise_at_s: float = float("inf")
    news: bool = False
    """Whether something changed since the last revision."""
    proven: bool = False
    """Whether its tag became known since the last revision: that is reported after any number of revisions."""
    opened_at_s: float = float("inf")
    """When it was opened here. inf: before a restart."""
    at_m: tuple[float, float] | None = None
    readers: list[int] = field(default_factory=list)
    lamps: dict[LampKey, Lamp] = field(default_factory=dict)
    readings: dict[int, Reading] = field(default_factory=dict)
    advertisement: Advertisement | None = None
    """The advertisement of an unverified cry. It is looked up again when more ids are known."""
    merged: list[tuple[Advertisement, int]] = field(default_factory=list)
    """Those of cries that were merged into it, with their readers; at most MERGED_MAX."""
    copied: bool = False
    """Unverified, with a mark that only a tag of this zone can know: somebody copies its cry."""
    tried: int = -1

    @property
    def done(self) -> bool:
        return self.stage >= wire.CLOSED or self.over

    @property
    def state(self) -> Attention:
        """What a person did about it."""
        return "closed" if self.done else "taken" if self.stage >= wire.ACKNOWLEDGED else "new"


class KeptAlarm(msgspec.Struct, frozen=True, array_like=True):
    """`AlarmMemory.data`: what an alarm needs after a power cut. MessagePack; add new fields only at the end."""

    kind: AlarmKind
    who: bytes
    dated: bool
    tag: str
    trust: Trust
    drill: bool
    press: int
    battery_mv: int
    bell: str
    area: str
    over: bool
    revision: int
    readers: tuple[int, ...]
    lamps: tuple[tuple[int, int, int, int, bytes], ...]
    """(reader, boot, number, told, cause)."""
    counts: tuple[int, int] | None = None
    advertisement: bytes = b""


class Alarms:
    """All alarms by name, by press and by lamp."""

    def __init__(self, gateway: str, epoch: str, wall: WallClock, counts: Counter[str]) -> None:
        self.by_name: dict[str, Alarm] = {}
        self.number = 0
        """Number of the newest alarm."""
        self._prefix = f"{gateway}-{epoch}-"
        self._wall, self._counts = wall, counts
        self._by_who: dict[bytes, Alarm] = {}
        self._by_lamp: dict[LampKey, Alarm] = {}
        self._by_cause: dict[bytes, Alarm] = {}
        self._undated: list[Alarm] = []

    def __len__(self) -> int:
        return len(self.by_name)

    def open(self, kind: AlarmKind, who: bytes, pressed_at_s: float, now_s: float) -> Alarm:
        """Add a new alarm, give it a name and return it. It replaces an older alarm of the same `who`."""
        self._make_room(now_s)
        self.number += 1
        name = f"{self._prefix}{self.number}"
        alarm = Alarm(
            name, kind, kind[:1].encode() + who + b"/" + str(self.number).encode(), who, pressed_at_s, now_s,
            self._wall.utc_s(pressed_at_s), self._wall.quality == "good", opened_at_s=now_s,
        )  # fmt: skip
        self.by_name[name] = self._by_who[who] = alarm
        self._counts[f"alarms_{kind}"] += 1
        return alarm

    def of(self, who: bytes) -> Alarm | None:
        """Return the newest alarm of a press, or None."""
        return self._by_who.get(who)

    def rename(self, alarm: Alarm, who: bytes) -> None:
        """Give an alarm another identity: its tag is known now."""
        if self._by_who.get(alarm.who) is alarm:
            del self._by_who[alarm.who]
        alarm.who = who
        self._by_who[who] = alarm

    def caused(self, cause: bytes) -> Alarm | None:
        """Return the newest alarm that a reader raised for this cause: a cry's bytes as they are heard without keys."""
        return self._by_cause.get(cause)

    def shown_by(self, key: LampKey, cause: bytes) -> Alarm | None:
        """Return the alarm that a reader means by its own number, or None if the cause is another one."""
        alarm = self._by_lamp.get(key)
        return alarm if alarm is not None and alarm.lamps[key].cause == cause else None

    def lamp(self, alarm: Alarm, key: LampKey, cause: bytes) -> Lamp:
        """Return the lamp of a reader for an alarm. A new lamp is made if needed; then no other alarm has this key."""
        lamp = alarm.lamps.get(key)
        if lamp is not None and lamp.cause == cause:
            return lamp
        other = self._by_lamp.pop(key, None)
        before = None if other is None else other.lamps.pop(key, None)
        if other is not None and before is not None:
            self._forget_cause(other, before)
        if len(alarm.lamps) >= LAMPS_MAX:  # the oldest one: its reader reports again if it still shows the alarm
            first = next(iter(alarm.lamps))
            self._forget_cause(alarm, alarm.lamps.pop(first))
            del self._by_lamp[first]
            self._counts["lamps_forgotten"] += 1
        lamp = alarm.lamps[key] = Lamp(cause, again=before is not None and before.cause == cause)
        self._by_lamp[key] = self._by_cause[cause] = alarm
        return lamp

    def _forget_cause(self, alarm: Alarm, lamp: Lamp) -> None:
        if self._by_cause.get(lamp.cause) is alarm:
            del self._by_cause[lamp.cause]

    def memory(self, alarm: Alarm) -> AlarmMemory:
        """Return what must survive of an alarm when the gateway restarts."""
        lamps = tuple((*key, lamp.told, lamp.cause) for key, lamp in alarm.lamps.items())
        cry = b"" if alarm.advertisement is None else alarm.advertisement.signed + alarm.advertisement.mic
        data = msgspec.msgpack.encode(
            KeptAlarm(
                alarm.kind, alarm.who, alarm.dated, alarm.tag, alarm.trust, alarm.drill, alarm.press,
                alarm.battery_mv, alarm.bell, alarm.area, alarm.over, alarm.revision, tuple(alarm.readers), lamps,
                alarm.counts, cry,
            )
        )  # fmt: skip
        return AlarmMemory(alarm.key, alarm.name, alarm.stage, alarm.raised_utc_s, data)

    def restore(self, memories: Iterable[AlarmMemory], now_s: float) -> None:
        """Restore alarms from memories, the oldest first. `date` sets their age once the clock is good. Until then they
        count as heard just now, so that a press that is reported again stays one alarm."""
        for memory in memories:
            number = memory.alarm.removeprefix(self._prefix)
            if number != memory.alarm and number.isascii() and number.isdigit():
                self.number = max(self.number, int(number))
            try:
                kept = msgspec.msgpack.decode(memory.data, type=KeptAlarm)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self._counts["memories_unreadable"] += 1
                continue
            self._make_room(now_s)
            alarm = Alarm(
                memory.alarm, kept.kind, memory.key, kept.who, now_s, now_s, memory.raised_utc_s, kept.dated,
                restored=True, stage=min(max(memory.stage, wire.RECEIVED), wire.CLOSED), committed=True, tag=kept.tag,
                trust=kept.trust, drill=kept.drill, press=kept.press, battery_mv=kept.battery_mv, bell=kept.bell,
                area=kept.area, over=kept.over, revision=kept.revision, readers=list(kept.readers), counts=kept.counts,
            )  # fmt: skip
            try:
                alarm.advertisement = parse(kept.advertisement)
            except AdvertisementError:  # a proven alarm has none, and one that could not be read has no bytes
                alarm.advertisement = None
            self.by_name[alarm.name] = self._by_who[alarm.who] = alarm
            for reader, boot, number_there, told, cause in kept.lamps[:LAMPS_MAX]:
                lamp = self.lamp(alarm, (reader, boot, number_there), cause)
                lamp.shown = lamp.told = told
            self._undated.append(alarm)

    def date(self, now_s: float) -> None:
        """Set the age of restored alarms if the clock is good. An alarm that was heard since, or never had a good date,
        keeps its times."""
        if self._wall.quality != "good":
            return
        utc_s = self._wall.utc_s(now_s)
        for alarm in self._undated:
            if alarm.dated and alarm.heard_at_s == alarm.pressed_at_s:
                alarm.pressed_at_s = alarm.heard_at_s = now_s - max(0.0, utc_s - alarm.raised_utc_s)
                alarm.counted_at_s = alarm.heard_at_s
        self._undated.clear()

    def observed_at(self, alarm: Alarm) -> datetime:
        """Return the time of the press by the present clock. A restored alarm keeps its stored date."""
        return self._wall.date(alarm.raised_utc_s) if alarm.restored else self._wall.utc(alarm.pressed_at_s)

    def _make_room(self, now_s: float) -> None:
        if len(self.by_name) < ALARMS_MAX or len(self.by_name) % _BATCH:
            return
        ranked = sorted(self.by_name.values(), key=lambda alarm: (_worth(alarm, now_s), alarm.heard_at_s))
        for alarm in ranked[:_BATCH]:  # in batches: sorting is slow
            if _worth(alarm, now_s) >= _NEEDED and len(self.by_name) < ALARMS_HARD_MAX:
                break
            self._counts["alarms_forgotten"] += 1
            del self.by_name[alarm.name]
            for key, lamp in alarm.lamps.items():
                del self._by_lamp[key]
                self._forget_cause(alarm, lamp)
            if self._by_who.get(alarm.who) is alarm:
                del self._by_who[alarm.who]


_NEEDED = 4
_BATCH = 64


def _worth(alarm: Alarm, now_s: float) -> int:
    quiet_s = now_s - alarm.heard_at_s
    if alarm.done:
        return 0
    if quiet_s > OLD_S:
        return 1
    if quiet_s > SAME_PRESS_S:
        return 3 if alarm.trust == "verified" or alarm.kind == "bell" else 2
    return _NEEDED
