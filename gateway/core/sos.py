"""The alarms of tags and bells: one press makes one alarm. Also the lamps that answer a press.

This step comes before all others. It does not wait for locating, and no later failure can undo a cry. The order is
guaranteed: first `Commit`; when the shell asks for the next effect, the event is on disk, and only then the reader gets
its answer.

A cry is refused in one case only: its frame is stale, its press is not known here, and its tag cannot be proven. Any
other cry that cannot be proven (unknown tag, wrong MIC) is raised as unverified. After `UNVERIFIED_MAX` such alarms of
one reader within a minute, more of them are merged into the last one. In a boot that its reader drew at random nothing
is refused: a number that was drawn twice makes true frames look stale.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator

from gateway.core import frames
from gateway.core.alarms import OLD_S, READERS_MAX, SAME_PRESS_S, Alarm, Alarms, Lamp, LampKey, unproven
from gateway.core.frames import ReaderLinks, Report
from gateway.core.resolve import UNRESOLVED, Resolver
from gateway.core.sightings import Sighting, WallClock
from gateway.effects import Commit, Downlink, Effect, Remember
from gateway.events import STAGES, UNKNOWN_TAG, Bell, Sos, Told, Where
from gateway.fix import Fix, Locator, Reading, fix_at_reader, where_of
from gateway.zone import Field, Zone
from readers import wire

REVISE_S = 2.0
"""Time from the first event to the first revision, made only if there is news. It doubles for each next revision."""
REVISIONS_MAX = 5
MOVED_M = 10.0
"""A fix is news if it is farther than this, and farther than its own 50 % radius, from the position reported before.
The first fixes of a tag are vague, so the position of the reader that heard it is the better report."""
FIX_FRESH_S = 10.0
REPEAT_MIN_S, REPEAT_MAX_S, REPEAT_FOR_S = 0.5, 10.0, 600.0
"""A stage is repeated to a lamp with growing pauses until the lamp shows it, for ten minutes at most. After that it is
sent only when the reader asks."""
UNVERIFIED_MAX = 5
UNVERIFIED_S = 60.0
_BELL_RADIUS_M = 2.0
AGE_MAX_S = 0xFFFF * wire.ALARM_AGE_STEP_MS / 1000
"""The highest age on the wire. It means: this age or more, or not known."""
_NEVER = float("inf")


class Emergencies:
    """Takes cries and bells; makes alarms and lights lamps."""

    def __init__(
        self, zone: Zone, field: Field, links: ReaderLinks, alarms: Alarms, resolver: Resolver, locator: Locator,
        wall: WallClock, counts: Counter[str],
    ) -> None:  # fmt: skip
        self._bells = {(bell.reader, bell.input): bell.id for bell in zone.bells}
        self._field, self._links, self._alarms, self._resolver = field, links, alarms, resolver
        self._locator, self._wall, self._counts = locator, wall, counts
        self._busy: dict[str, Alarm] = {}
        """Alarms that need a stage repeated to a lamp, or a revision."""
        self._due_s = _NEVER
        """No alarm in `_busy` is due before this."""
        self._unverified: dict[int, deque[tuple[float, Alarm]]] = {}

    # ---- in --------------------------------------------------------------------------------------------------------

    def cry(self, report: Report, sighting: Sighting, now_s: float) -> Iterator[Effect]:
        """Raise an alarm for a cry, or find its alarm; answer its reader. This may set sighting.identity."""
        advertisement = sighting.advertisement
        assert advertisement is not None
        id_and_press = advertisement.rotating_id + bytes((advertisement.press,))
        key: LampKey | None = None
        shown = wire.WAITING
        if report.kind == wire.SOS:
            key, shown = (report.reader, report.boot, report.content[0]), report.content[1]
        alarm = None if key is None else self._alarms.shown_by(key, b"s" + id_and_press)
        if alarm is None or (not alarm.verified and alarm.tried != self._resolver.generation):
            alarm = self._identify(alarm, sighting, report, now_s)
            if alarm is None:
                self._counts["cries_refused"] += 1
                return
        if report.freshness == "new":
            alarm.heard_at_s = max(alarm.heard_at_s, now_s)
        heard_again = self._hear(alarm, key, b"s" + id_and_press, report, sighting, now_s)
        if not alarm.committed:
            yield from self._commit_first(alarm, self._sos(alarm, self._first_where(alarm, sighting, now_s)), now_s)
        if key is not None:
            yield from self._answer(alarm, key, b"s" + id_and_press, shown, report, now_s)
        if heard_again:
            self._schedule(alarm, now_s)

    def bell(self, report: Report, now_s: float) -> Iterator[Effect]:
        """Raise an alarm for a bell, or find its alarm; answer its reader.

        boot_before, number_before: the reader lost its power before it had our answer. It repeats, with an unknown
        age, an alarm that it may have reported before."""
        number, shown, age_ms, bell_input, presses, boot_before, number_before = report.content
        key = (report.reader, report.boot, number)
        first_key = (report.reader, boot_before, number_before) if boot_before else key
        cause = b"b" + bytes((bell_input,))
        pressed_at_s = now_s - age_ms / 1000
        alarm = self._alarms.shown_by(key, cause)
        if alarm is not None and not _is_repeated(report):
            # A reader's numbers repeat after 255 alarms: a press after this alarm was closed, or long after it, is new.
            dated = age_ms < AGE_MAX_S * 1000
            closed_before = dated and alarm.done and pressed_at_s > alarm.heard_at_s + REVISE_S
            long_after = dated and pressed_at_s > alarm.heard_at_s + SAME_PRESS_S
            # Pressed again, while the alarm is closed here but not yet there: no person would look at a revision.
            pressed_on = alarm.done and shown < wire.CLOSED and presses > alarm.press and report.freshness == "new"
            if closed_before or long_after or pressed_on:
                alarm = None
        elif boot_before:
            alarm = self._raised_before_boot(first_key, cause, now_s)
        if alarm is None:
            if report.freshness == "stale" and not frames.is_drawn(report.boot):
                self._counts["bells_refused"] += 1
                return
            alarm = self._alarms.open("bell", _who(first_key), pressed_at_s, now_s)
            alarm.bell = self._bells.get((report.reader, bell_input), f"reader{report.reader}-input{bell_input}")
            alarm.readers.append(report.reader)
        if report.freshness == "new":
            alarm.heard_at_s = max(alarm.heard_at_s, now_s)
            if presses > alarm.press:
                alarm.press, alarm.news = presses, True
        self._alarms.lamp(alarm, key, cause)  # before the first event, whose memory it belongs to
        if not alarm.committed:
            alarm.news = False
            yield from self._commit_first(alarm, self._bell(alarm), now_s)
        yield from self._answer(alarm, key, cause, shown, report, now_s)
        self._schedule(alarm, now_s)

    def stage(self, name: str, stage: int, now_s: float) -> Iterator[Effect]:
        """Raise an alarm's stage (a `readers.wire` number), as the city reports; send it to the lamps. Never lower."""
        alarm = self._alarms.by_name.get(name)
        if alarm is None or not wire.RECEIVED <= stage <= wire.CLOSED:
            self._counts["stages_refused"] += 1
            return
        if stage <= alarm.stage:
            return
        alarm.stage = stage
        alarm.committed, alarm.first = True, None  # the city has it, even if our own disk failed
        self._light(alarm, now_s)
        yield from self._repeat([alarm], now_s, urgent=True)
        yield Remember(self._alarms.memory(alarm))  # last: the city repeats it until the lamp is known to show it

    def relight(self, now_s: float) -> None:
        """Send the stage to the lamps of restored alarms again: they may not show it."""
        for alarm in self._alarms.by_name.values():
            if alarm.lamps and not alarm.done:
                self._light(alarm, now_s)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> Iterator[Effect]:
        """Repeat stages that lamps do not show yet; revise alarms that have news."""
        if now_s < self._due_s:
            return
        yield from self._repeat(list(self._busy.values()), now_s, urgent=False)
        for alarm in list(self._busy.values()):
            if alarm.revise_at_s <= now_s:
                yield from self._revise(alarm, now_s)
        next_s = {name: self._next_s(alarm) for name, alarm in self._busy.items()}
        self._busy = {name: alarm for name, alarm in self._busy.items() if next_s[name] < _NEVER}
        self._due_s = min(next_s.values(), default=_NEVER)

    def deadline_s(self) -> float:
        """Return when `tick` may next have work; inf when never."""
        return self._due_s

    # ---- who ---------------------------------------------------------------------------------------------------------

    def _identify(self, known: Alarm | None, sighting: Sighting, report: Report, now_s: float) -> Alarm | None:
        """Find or open the alarm of a cry; None: refused. `known`: the alarm its reader means, not verified so far."""
        advertisement = sighting.advertisement
        assert advertisement is not None
        identity = sighting.identity = self._resolver.identify(advertisement, now_s)
        verified = identity.tag != UNRESOLVED and bool(advertisement.flags & wire.FLAG_SOS)
        if known is not None:
            own = known.advertisement is not None and known.advertisement.rotating_id == advertisement.rotating_id
            if verified and own and known.press == advertisement.press:
                self._prove(known, sighting, now_s)
            if not verified or known.verified:
                known.tried = self._resolver.generation
                return known
            # It was one of several merged unproven cries. Now its tag is proven: it gets its own alarm.
        press = bytes((advertisement.press,))
        heard_as = unproven(advertisement.rotating_id + press)
        who = b"=" + self._resolver.tags[identity.tag].name.encode() + b"/" + press if verified else heard_as
        alarm = self._alarms.of(who)
        if alarm is not None:
            # A replayed advertisement, or one of unknown age, can only be of an earlier press: known for a day.
            # Otherwise a press counter names one press for as long as a tag may cry, plus a margin.
            pressed_at_s, lasts_s = sighting.pressed_at_s, SAME_PRESS_S
            if identity.outcome == "replayed" or pressed_at_s is None:
                lasts_s = OLD_S
            if (now_s if pressed_at_s is None else pressed_at_s) <= alarm.heard_at_s + lasts_s:
                if verified:
                    self._alarms.also(alarm, heard_as)
                return alarm
        if verified:
            alarm = self._alarms.of(heard_as)  # it cried before the clock, or the table, could show which tag it was
            fits = alarm is not None and not alarm.verified and not alarm.done  # a closed one was the forgery
            if alarm is not None and fits and now_s <= alarm.heard_at_s + SAME_PRESS_S:
                self._prove(alarm, sighting, now_s)
                return alarm
        if report.freshness == "stale" and not verified and not frames.is_drawn(report.boot):
            return None
        if not verified and (merged := self._merge(report.reader, now_s)) is not None:
            return merged
        pressed_at_s = sighting.pressed_at_s
        alarm = self._alarms.open("sos", who, now_s - AGE_MAX_S if pressed_at_s is None else pressed_at_s, now_s)
        alarm.press, alarm.battery_mv = advertisement.press, advertisement.battery_mv
        alarm.drill = bool(advertisement.flags & wire.FLAG_DRILL)
        if verified:
            alarm.verified, alarm.tag = True, self._resolver.tags[identity.tag].name
            self._alarms.also(alarm, heard_as)
        else:
            alarm.advertisement, alarm.tried = advertisement, self._resolver.generation
            self._unverified.setdefault(report.reader, deque(maxlen=UNVERIFIED_MAX)).append((now_s, alarm))
        return alarm

    def _prove(self, alarm: Alarm, sighting: Sighting, now_s: float) -> None:
        advertisement, identity = sighting.advertisement, sighting.identity
        assert advertisement is not None
        assert identity is not None
        alarm.tag, alarm.verified, alarm.advertisement = self._resolver.tags[identity.tag].name, True, None
        alarm.battery_mv, alarm.drill = advertisement.battery_mv, bool(advertisement.flags & wire.FLAG_DRILL)
        self._alarms.also(alarm, b"=" + alarm.tag.encode() + b"/" + bytes((advertisement.press,)))
        self._counts["alarms_proven_later"] += 1
        alarm.news = True
        alarm.revise_at_s = now_s
        self._keep(alarm)

    def _merge(self, reader: int, now_s: float) -> Alarm | None:
        """Return the alarm that takes one more unproven cry of this reader if it had too many in a minute, or None."""
        recent = self._unverified.get(reader)
        if recent is None or len(recent) < UNVERIFIED_MAX or recent[0][0] < now_s - UNVERIFIED_S:
            return None
        last = recent[-1][1]
        if last.done or last.name not in self._alarms.by_name:
            return None
        self._counts["cries_merged"] += 1
        return last

    def _raised_before_boot(self, key: LampKey, cause: bytes, now_s: float) -> Alarm | None:
        """Return the alarm that an earlier boot of a reader raised as its number key[2], if it can be no other press.

        A reader forgets a press once it has our answer. If no lamp showed an answer, it can only be that press. It is
        known for a day, because its reader may be without power. Otherwise the reader did not forget the press, or its
        numbers repeat: after SAME_PRESS_S it counts as a new press. Better to report it twice than to lose it.
        """
        alarm = self._alarms.of(_who(key))
        if alarm is None or all(lamp.cause != cause for lamp in alarm.lamps.values()):
            return None
        lasts_s = SAME_PRESS_S if any(lamp.shown for lamp in alarm.lamps.values()) else OLD_S
        return alarm if now_s <= alarm.heard_at_s + lasts_s else None

    # ---- events ------------------------------------------------------------------------------------------------------

    def _hear(
        self, alarm: Alarm, key: LampKey | None, cause: bytes, report: Report, sighting: Sighting, now_s: float
    ) -> bool:
        """Note which reader heard it and how. Return True if the tag was heard again, False if the reader repeats."""
        if report.reader not in alarm.readers and len(alarm.readers) < READERS_MAX:
            alarm.readers.append(report.reader)
            alarm.news = alarm.committed
        if key is not None:
            lamp = self._alarms.lamp(alarm, key, cause)
            if lamp.counter == sighting.counter or report.freshness != "new":
                sighting.timely = False
                return False
            lamp.counter = sighting.counter
        power_dbm = sighting.advertisement.power_dbm if sighting.advertisement is not None else -59
        if report.reader in alarm.readings or len(alarm.readings) < READERS_MAX:
            alarm.readings[report.reader] = Reading(
                report.reader, sighting.rssi_dbm, sighting.packets, sighting.heard_at_s, power_dbm
            )
        return True

    def _commit_first(self, alarm: Alarm, event: Sos | Bell, now_s: float) -> Iterator[Effect]:
        if alarm.first is None:
            alarm.first = event
        yield Commit(alarm.first, self._alarms.memory(alarm))
        if not alarm.committed:  # it is on disk: the shell asked for the next effect
            alarm.committed, alarm.first = True, None
            alarm.revise_at_s = now_s + REVISE_S

    def _first_where(self, alarm: Alarm, sighting: Sighting, now_s: float) -> Where | None:
        fix = self._fresh_fix(alarm, now_s)
        if fix is None:
            power_dbm = sighting.advertisement.power_dbm if sighting.advertisement is not None else -59
            reading = Reading(sighting.reader, sighting.rssi_dbm, sighting.packets, sighting.heard_at_s, power_dbm)
            fix = fix_at_reader(self._field, reading, now_s)
        if fix is None:
            return None
        alarm.at_m = (fix.x_m, fix.y_m)
        return where_of(self._field, fix)

    def _revise(self, alarm: Alarm, now_s: float) -> Iterator[Effect]:
        alarm.revise_at_s = _NEVER
        if not alarm.committed or alarm.revision >= REVISIONS_MAX:
            return
        event: Sos | Bell
        if alarm.kind == "bell":
            if not alarm.news:
                return
            alarm.revision += 1
            event = self._bell(alarm)
        else:
            if alarm.advertisement is not None and alarm.tried != self._resolver.generation:
                self._look_again(alarm, now_s)
            fix = self._fresh_fix(alarm, now_s) or self._locator.once(list(alarm.readings.values()), now_s)
            if fix is not None:
                was = alarm.at_m
                far = was is None or math.dist(was, (fix.x_m, fix.y_m)) > max(MOVED_M, fix.radius_50_m)
                alarm.news = alarm.news or far
                if alarm.news:
                    alarm.at_m = (fix.x_m, fix.y_m)
            if not alarm.news:
                self._plan(alarm, now_s)
                return
            found = None if fix is None else where_of(self._field, fix)
            alarm.revision += 1
            event = self._sos(alarm, found or self._last_where(alarm, now_s))
        alarm.news = False
        yield Commit(event, self._alarms.memory(alarm))
        self._plan(alarm, now_s)

    def _look_again(self, alarm: Alarm, now_s: float) -> None:
        advertisement = alarm.advertisement
        assert advertisement is not None
        alarm.tried = self._resolver.generation
        identity = self._resolver.identify(advertisement, now_s)
        if identity.tag != UNRESOLVED and advertisement.flags & wire.FLAG_SOS:
            again = Sighting(0, None, now_s, 0, advertisement.counter, advertisement, True, None, identity=identity)
            self._prove(alarm, again, now_s)
            alarm.revise_at_s = _NEVER

    def _last_where(self, alarm: Alarm, now_s: float) -> Where | None:
        for reading in sorted(alarm.readings.values(), key=lambda reading: -reading.heard_at_s):
            fix = fix_at_reader(self._field, reading, now_s)
            if fix is not None:
                return where_of(self._field, fix)
        return None

    def _fresh_fix(self, alarm: Alarm, now_s: float) -> Fix | None:
        row = self._resolver.rows.get(alarm.tag) if alarm.verified else None
        fix = None if row is None else self._locator.latest(row)
        return fix if fix is not None and now_s - fix.fixed_at_s <= FIX_FRESH_S else None

    def _sos(self, alarm: Alarm, where: Where | None) -> Sos:
        return Sos(
            observed_at=self._alarms.observed_at(alarm),
            clock=self._wall.quality,
            alarm=alarm.name,
            revision=alarm.revision,
            tag=alarm.tag if alarm.verified else UNKNOWN_TAG,
            trust="verified" if alarm.verified else "unverified",
            drill=alarm.drill,
            press=alarm.press,
            battery_mv=alarm.battery_mv,
            readers=tuple(alarm.readers),
            where=where,
        )

    def _bell(self, alarm: Alarm) -> Bell:
        reader = alarm.readers[0]
        at = self._field.readers.get(reader)
        where = None
        if at is not None:
            where = where_of(self._field, Fix(at[0], at[1], _BELL_RADIUS_M, 2 * _BELL_RADIUS_M, (), alarm.pressed_at_s))
        return Bell(
            observed_at=self._alarms.observed_at(alarm),
            clock=self._wall.quality,
            alarm=alarm.name,
            revision=alarm.revision,
            bell=alarm.bell,
            reader=reader,
            presses=alarm.press,
            where=where,
        )

    # ---- lamps -------------------------------------------------------------------------------------------------------

    def _answer(
        self, alarm: Alarm, key: LampKey, cause: bytes, shown: int, report: Report, now_s: float
    ) -> Iterator[Effect]:
        """Send a reader the stage if its lamp shows less. Report to the city if it shows more than was reported."""
        lamp = self._alarms.lamp(alarm, key, cause)
        if shown > wire.CLOSED:
            self._counts["stages_refused"] += 1
            shown = lamp.shown
        if report.freshness == "new":
            lamp.shown = max(lamp.shown, shown)  # frames can come out of order; a lamp never goes back
        if shown < alarm.stage:
            payload = frames.answer(self._links, key[0], wire.STAGE, wire.encode_stage([(key[2], alarm.stage)]))
            if lamp.shown < alarm.stage and lamp.send_at_s == _NEVER:
                self._light_one(lamp, now_s + REPEAT_MIN_S)
                self._keep(alarm)
            if payload is not None and frames.boot_of(self._links, key[0]) == key[1]:
                yield Downlink(key[0], payload, urgent=True)
        if lamp.shown >= alarm.stage:
            lamp.send_at_s = _NEVER
        if lamp.shown > lamp.told:
            lamp.told = lamp.shown
            told = Told(
                observed_at=self._wall.utc(now_s), clock=self._wall.quality, alarm=alarm.name, reader=key[0],
                stage=STAGES[lamp.told - 1],
            )  # fmt: skip
            yield Commit(told, self._alarms.memory(alarm))

    def _light(self, alarm: Alarm, now_s: float) -> None:
        for lamp in alarm.lamps.values():
            if lamp.shown < alarm.stage:
                self._light_one(lamp, now_s)
        self._keep(alarm)

    def _light_one(self, lamp: Lamp, at_s: float) -> None:
        lamp.send_at_s, lamp.pause_s, lamp.until_s = at_s, REPEAT_MIN_S, at_s + REPEAT_FOR_S

    def _repeat(self, alarms: list[Alarm], now_s: float, *, urgent: bool) -> Iterator[Downlink]:
        rows: dict[int, list[tuple[int, int]]] = {}
        for alarm in alarms:
            for (reader, boot, number), lamp in alarm.lamps.items():
                if lamp.send_at_s > now_s:
                    continue
                over = frames.is_over(self._links, reader, boot)
                if lamp.shown >= alarm.stage or now_s > lamp.until_s or over:
                    lamp.send_at_s = _NEVER
                    continue
                lamp.send_at_s = now_s + lamp.pause_s
                lamp.pause_s = min(2 * lamp.pause_s, REPEAT_MAX_S)
                if frames.boot_of(self._links, reader) == boot:  # the number means another alarm in another boot
                    rows.setdefault(reader, []).append((number, alarm.stage))
        for reader, stages in rows.items():
            for i in range(0, len(stages), wire.STAGES_MAX):
                body = wire.encode_stage(stages[i : i + wire.STAGES_MAX])
                payload = frames.answer(self._links, reader, wire.STAGE, body)
                if payload is not None:
                    yield Downlink(reader, payload, urgent)

    # ---- when --------------------------------------------------------------------------------------------------------

    def _schedule(self, alarm: Alarm, now_s: float) -> None:
        if alarm.revise_at_s == _NEVER and alarm.revision < REVISIONS_MAX:
            self._plan(alarm, now_s)
        if self._next_s(alarm) < _NEVER:
            self._keep(alarm)

    def _plan(self, alarm: Alarm, now_s: float) -> None:
        """Plan the next revision while the press is still heard."""
        crying = now_s - alarm.heard_at_s < FIX_FRESH_S and not alarm.done
        more = alarm.committed and alarm.revision < REVISIONS_MAX
        alarm.revise_at_s = now_s + REVISE_S * 2**alarm.revision if crying and more else _NEVER

    def _keep(self, alarm: Alarm) -> None:
        self._busy[alarm.name] = alarm
        self._due_s = min(self._due_s, self._next_s(alarm))

    def _next_s(self, alarm: Alarm) -> float:
        return min([alarm.revise_at_s, *(lamp.send_at_s for lamp in alarm.lamps.values())])


def _is_repeated(report: Report) -> bool:
    """Return whether a frame can report no other press than the one known by its number: it was read already, or is an
    old one of a drawn boot. (An old one of a kept boot is refused unless its press is known.)"""
    return report.freshness == "again" or (report.freshness == "stale" and frames.is_drawn(report.boot))


def _who(key: LampKey) -> bytes:
    """Return the identity of a bell's press: reader, boot, and its first number there."""
    return b"%d/%d/%d" % key
