"""The alarms of tags and bells: one press makes one alarm.

This step comes before all others. It does not wait for locating, and no later failure can undo a cry. The order is
guaranteed: first `Commit`; when the shell asks for the next effect, the event is on disk, and only then the reader gets
its answer.

Which alarm a cry belongs to is decided in one place, by the table in `gateway.cries`. This module finds what the table
asks for: what the keys prove, and the alarm that it could be. No cry is refused. After `DOUBTED_MAX` new alarms of one
reader within a minute that no key proves, or that repeat others, more of them are merged into the last one.
"""

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core import frames
from gateway.core.alarms import MERGED_MAX, OLD_S, READERS_MAX, SAME_PRESS_S, Alarm, Alarms, LampKey
from gateway.core.frames import ReaderLinks, Report
from gateway.core.lamps import COPIES_MAX, Lamps
from gateway.core.resolve import REORDER_S, UNRESOLVED, Identity, Resolver
from gateway.core.sightings import Sighting, WallClock
from gateway.cries import TRUST, Case, Kin, Nearness, Proof, Trust, Verdict, belongs
from gateway.effects import Commit, Effect, Remember
from gateway.events import UNKNOWN_TAG, Bell, Sos, Where
from gateway.fix import LOUD_DBM, TOO_FAR_APART_M, Fix, Locator, Reading, fix_at_reader, where_of
from gateway.zone import Field, Zone
from readers import wire
from readers.advertisement import Advertisement, Contents

REVISE_S = 2.0
"""Time from the first event to the first revision, made only if there is news. It doubles for each next revision."""
REVISIONS_MAX = 5
MOVED_M = 10.0
"""A fix is news if it is farther than this, and farther than its own 50 % radius, from the position reported before.
The first fixes of a tag are vague, so the position of the reader that heard it is the better report."""
FIX_FRESH_S = 10.0
DOUBTED_MAX = 5
DOUBTED_S = 60.0
CRY_MAX_S = 660.0
"""A tag cries for 600 s at most. What it cries longer than this after a press is another press."""
COUNT_RATE_MIN, COUNT_RATE_MAX, COUNT_SLACK, COUNT_BURST = 0.5, 1.2, 64, 128
"""Beacons a second of a crying tag after its first seconds, and how many more or fewer there may be: it sends 30 in the
first 3 s, and readers report in any order. A count outside belongs to another press, of a tag that restarted."""
LOUD_WITHIN_M = 100.0
"""A tag that is heard at LOUD_DBM is nearer than this. A fix that is less sure says nothing about where it is not."""
GOES_ON_S = 60.0
"""A cry that repeats another counts as the one heard this short before, whatever its count."""
_BELL_RADIUS_M = 2.0
AGE_MAX_S = 0xFFFF * wire.ALARM_AGE_STEP_MS / 1000
"""The highest age on the wire. It means: this age or more, or not known."""
_NEVER = float("inf")
_POWER_DBM = -59
"""Assumed of a tag that is not known."""


@dataclass(slots=True)
class _Decision:
    """What was decided about one cry."""

    alarm: Alarm
    verdict: Verdict
    proof: Proof
    place: Nearness
    count: int | None = None
    """The tag's own count of this beacon, if a key proves it."""
    power_dbm: int = _POWER_DBM


class Emergencies:
    """Takes cries and bells, and makes alarms."""

    def __init__(
        self, zone: Zone, field: Field, links: ReaderLinks, alarms: Alarms, resolver: Resolver, locator: Locator,
        wall: WallClock, counts: Counter[str],
    ) -> None:  # fmt: skip
        self._bells = {(bell.reader, bell.input): bell.id for bell in zone.bells}
        self._field, self._alarms, self._resolver = field, alarms, resolver
        self._locator, self._wall, self._counts = locator, wall, counts
        self._lamps = Lamps(links, alarms, wall, counts)
        self._busy: dict[str, Alarm] = {}
        """Alarms that need a stage repeated to a lamp, or a revision."""
        self._due_s = _NEVER
        """No alarm in `_busy` is due before this."""
        self._doubted: dict[tuple[int, Trust], deque[tuple[float, Alarm]]] = {}
        self._doubted_bells: dict[tuple[int, int], Alarm] = {}
        """The newest unverified alarm of each bell."""
        self._looked = resolver.generation
        """Generation of the resolver's table at the last look at unverified alarms."""

    # ---- in --------------------------------------------------------------------------------------------------------

    def cry(self, report: Report, sighting: Sighting, now_s: float) -> Iterator[Effect]:
        """Raise an alarm for a cry, or find its alarm; answer its reader. This may set sighting.identity."""
        advertisement = sighting.advertisement
        assert advertisement is not None
        cause = b"s" + advertisement.rotating_id + bytes((advertisement.sealed_press,))
        key: LampKey | None = None
        shown = wire.WAITING
        if report.kind == wire.SOS:
            key, shown = (report.reader, report.boot, report.content[0]), report.content[1]
        meant = None if key is None else self._alarms.shown_by(key, cause)
        if key is not None and meant is not None and self._said_before(meant, key, sighting):
            sighting.timely = False
            if report.freshness == "new":
                meant.heard_at_s = max(meant.heard_at_s, now_s)
            if not meant.committed:
                yield from self._commit_first(meant, self._sos(meant, None), now_s)
            if meant.copied and self._may_ask(meant, key, advertisement):
                yield from self._lamps.ask_for_next(meant, key, cause, report)
            else:
                yield from self._answer(meant, key, cause, shown, report, now_s)
            return
        found = self._find(report.reader, report.freshness, cause, sighting, now_s)
        alarm = found.alarm
        if meant is not None and meant is not alarm and meant.trust == "verified":
            lit, key_here = meant, None  # the number stays with the child whom a key proves
        else:
            lit, key_here = alarm, key
        if report.freshness == "new":
            alarm.heard_at_s = max(alarm.heard_at_s, now_s)
        heard_again = self._hear(found, key_here, cause, report, sighting)
        if not alarm.committed:
            where = self._first_where(alarm, sighting, found.power_dbm, now_s)
            yield from self._commit_first(alarm, self._sos(alarm, where), now_s)
        if key is not None and found.proof == "none" and lit is alarm and self._may_ask(alarm, key, advertisement):
            yield from self._lamps.ask_for_next(alarm, key, cause, report)
        elif key is not None:
            yield from self._answer(lit, key, cause, shown, report, now_s)
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
        if alarm is None and boot_before:
            alarm = self._raised_before_boot(first_key, cause, now_s)
            kin: Kin = "no" if alarm is None else "same"
        elif alarm is None:
            kin = "no"
        else:
            kin = self._kin_of_bell(alarm, report, pressed_at_s)
        proof: Proof = "now" if report.freshness == "new" else "old"
        if alarm is not None and kin == "same" and alarm.trust == "verified" and proof == "old":
            proof = "late"  # it says when it was pressed, and that is this alarm's press
        case = Case(proof, kin) if alarm is None else Case(proof, kin, alarm.trust, alarm.state)
        verdict = belongs(case)
        if alarm is None or verdict == "new":
            doubted = self._doubted_bells.get((report.reader, bell_input))
            if (
                proof == "old"
                and doubted is not None
                and doubted.state == "new"
                and now_s < doubted.heard_at_s + DOUBTED_S
            ):
                alarm = doubted  # of the same bell, and nobody has looked at it yet
                self._counts["cries_merged"] += 1
            else:
                alarm = self._new(report.reader, "bell", _who(first_key), TRUST[proof, "here"], pressed_at_s, now_s)
                alarm.bell = self._bells.get((report.reader, bell_input), f"reader{report.reader}-input{bell_input}")
                alarm.readers.append(report.reader)
            if proof == "old":
                self._doubted_bells[report.reader, bell_input] = alarm
        if report.freshness == "new":
            alarm.heard_at_s = max(alarm.heard_at_s, now_s)
            if presses > alarm.press:
                alarm.press, alarm.news = presses, True
        alarm.press = max(alarm.press, 1)
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
        self._lamps.light(alarm, now_s)
        self._keep(alarm)
        yield from self._lamps.repeat([alarm], now_s, urgent=True)
        yield Remember(self._alarms.memory(alarm))  # last: the city repeats it until the lamp is known to show it

    def relight(self, now_s: float) -> None:
        """Send the stage to the lamps of restored alarms again: they may not show it."""
        for alarm in self._alarms.by_name.values():
            if alarm.lamps and not alarm.done:
                self._lamps.light(alarm, now_s)
                self._keep(alarm)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> Iterator[Effect]:
        """Repeat stages that lamps do not show yet; revise alarms that have news; look for the tags of strangers."""
        if self._looked != self._resolver.generation and not self._resolver.unfinished:
            self._looked = self._resolver.generation
            for alarm in list(self._alarms.by_name.values()):
                if alarm.advertisement is not None and not alarm.done:
                    yield from self._look_again(alarm, now_s)
        if now_s < self._due_s:
            return
        yield from self._lamps.repeat(list(self._busy.values()), now_s, urgent=False)
        for alarm in list(self._busy.values()):
            if alarm.revise_at_s <= now_s:
                yield from self._revise(alarm, now_s)
        next_s = {name: self._next_s(alarm) for name, alarm in self._busy.items()}
        self._busy = {name: alarm for name, alarm in self._busy.items() if next_s[name] < _NEVER}
        self._due_s = min(next_s.values(), default=_NEVER)

    def deadline_s(self) -> float:
        """Return when `tick` may next have work; inf when never."""
        return self._due_s

    # ---- which alarm -------------------------------------------------------------------------------------------------

    def _said_before(self, alarm: Alarm, key: LampKey, sighting: Sighting) -> bool:
        """Return whether a reader repeats the very cry that it reported last for this alarm, or one of unknown age
        under the number of this alarm: a press of now has another number."""
        lamp, advertisement = alarm.lamps[key], sighting.advertisement
        assert advertisement is not None
        if alarm.advertisement is not None and alarm.tried != self._resolver.generation:
            return False
        aged = sighting.pressed_at_s is None and alarm.trust != "unverified"
        return aged or (lamp.counter, lamp.mic) == (advertisement.counter, advertisement.mic)

    def _may_ask(self, alarm: Alarm, key: LampKey, advertisement: Advertisement) -> bool:
        """Return whether a reader should send its next cry at once: this is a copy, so the true one is on the air."""
        return alarm.lamps[key].copies < COPIES_MAX and self._resolver.copies(advertisement)

    def _find(self, reader: int, freshness: str, cause: bytes, sighting: Sighting, now_s: float) -> _Decision:
        """Find or open the alarm of a cry, as the table says. cause: its bytes as they are heard without keys."""
        advertisement = sighting.advertisement
        assert advertisement is not None
        identity = sighting.identity = self._resolver.identify(advertisement, sighting.heard_at_s)
        contents = identity.contents if identity.tag != UNRESOLVED else None
        if contents is not None and not contents.flags & wire.FLAG_SOS:
            contents = None  # a reader calls it a cry, its tag does not
        proof = _proof(identity, contents, sighting)
        claim = b"?" + cause
        stranger = self._alarms.of(claim)
        if contents is None:
            alarm = self._alarms.caused(cause) if proof == "unread" and stranger is None else stranger
            kin: Kin = "no"
            if alarm is not None:
                lasts_s = SAME_PRESS_S if freshness == "new" and sighting.pressed_at_s is not None else OLD_S
                kin = "same" if now_s <= alarm.heard_at_s + lasts_s else "other"
            found = self._settle(reader, Case(proof, kin), alarm, claim, sighting, now_s)
            if found.verdict == "new":
                self._keep_cry(found.alarm, advertisement, reader)
            found.alarm.copied = found.alarm.copied or self._resolver.copies(advertisement)
            return found
        name = self._resolver.tags[identity.tag].name
        press = name.encode() + b"/" + bytes((contents.press,))
        alarm, case = self._candidate(proof, press, identity, stranger, sighting, now_s)
        who = (b"!" if TRUST[case.proof, case.place] == "replayed" else b"=") + press
        found = self._settle(reader, case, alarm, who, sighting, now_s)
        found.count, found.power_dbm = contents.count, self._resolver.tags[identity.tag].power_dbm
        alarm = found.alarm
        if found.verdict == "new" and not alarm.committed:
            alarm.tag, alarm.press = name, contents.press
            alarm.drill = bool(contents.flags & wire.FLAG_DRILL)
            alarm.battery_mv = self._resolver.tags[identity.tag].battery_mv
        elif found.verdict == "revise" and alarm.trust == "unverified":
            self._prove(alarm, who, name, contents, now_s)
        if stranger is not None and stranger.copied and stranger is not alarm and alarm.trust == "verified":
            for key, lamp in list(stranger.lamps.items()):  # by its mark that number was this child's from the start
                self._alarms.lamp(alarm, key, lamp.cause)
            self._lamps.light(alarm, now_s)
            self._keep(alarm)
        if alarm.tag == name and (proof == "now" or alarm.counts is None or alarm.trust == "replayed"):
            _note_count(alarm, contents.count, sighting.heard_at_s)
        return found

    def _candidate(
        self, proof: Proof, press: bytes, identity: Identity, stranger: Alarm | None, sighting: Sighting, now_s: float
    ) -> tuple[Alarm | None, Case]:
        """Return the alarm that a proven cry could belong to, and how the two compare."""
        assert identity.contents is not None
        count = identity.contents.count
        own, doubted = self._alarms.of(b"=" + press), self._alarms.of(b"!" + press)
        kin = "no" if own is None else _kin(own, proof, count, sighting, now_s)
        if proof == "late" and sighting.pressed_at_s is None and kin != "same":
            proof = "old"  # of unknown age, and of no press that is known
        far = proof != "old" and self._is_far(own if kin == "same" else None, identity.tag, sighting)
        place: Nearness = "far" if far else "here"
        if doubted is not None and (proof == "old" or far) and _goes_on(doubted, count, now_s):
            return doubted, Case(proof, "same", doubted.trust, doubted.state, place)
        if own is not None and kin == "same":
            return own, Case(proof, "same", own.trust, own.state, place)
        if stranger is not None and self._made(identity, stranger) and now_s <= stranger.heard_at_s + OLD_S:
            return stranger, Case(proof, "same", stranger.trust, stranger.state)
        return own, Case(proof, kin, place=place) if own is None else Case(proof, kin, own.trust, own.state, place)

    def _made(self, identity: Identity, stranger: Alarm) -> bool:
        """Return whether this tag made the very cry that opened a stranger's alarm: its key was not known here then."""
        advertisement, epoch = stranger.advertisement, identity.epoch
        if advertisement is None or epoch is None:
            return False
        contents = advertisement.open(self._resolver.tags[identity.tag].keys, epoch)
        return contents is not None and bool(contents.flags & wire.FLAG_SOS)

    def _settle(
        self, reader: int, case: Case, alarm: Alarm | None, who: bytes, sighting: Sighting, now_s: float
    ) -> _Decision:
        """Do what the table says about a case. `alarm`: its candidate."""
        if alarm is not None:
            case = Case(case.proof, case.kin, alarm.trust, alarm.state, case.place)
        verdict = belongs(case)
        if alarm is None or verdict == "new":
            pressed_at_s = now_s - AGE_MAX_S if sighting.pressed_at_s is None else sighting.pressed_at_s
            alarm = self._new(reader, "sos", who, TRUST[case.proof, case.place], pressed_at_s, now_s)
        return _Decision(alarm, verdict, case.proof, case.place)

    def _new(self, reader: int, kind: str, who: bytes, trust: Trust, pressed_at_s: float, now_s: float) -> Alarm:
        """Return a new alarm; or, if this reader had too many in a minute that are not verified, the last of them."""
        recent = None
        if kind == "sos" and trust != "verified":
            recent = self._doubted.setdefault((reader, trust), deque(maxlen=DOUBTED_MAX))
        if kind == "sos" and recent is not None and len(recent) == DOUBTED_MAX and recent[0][0] >= now_s - DOUBTED_S:
            last = recent[-1][1]
            if last.state == "new" and last.name in self._alarms.by_name:  # else no person would look
                self._counts["cries_merged"] += 1
                return last
        alarm = self._alarms.open("bell" if kind == "bell" else "sos", who, pressed_at_s, now_s)
        alarm.trust = trust
        if recent is not None:
            self._counts["cries_replayed" if trust == "replayed" else "cries_unverified"] += 1
            recent.append((now_s, alarm))
        return alarm

    def _keep_cry(self, alarm: Alarm, advertisement: Advertisement, reader: int) -> None:
        """Keep the advertisement of a cry that no key proves: its tag may become known."""
        alarm.tried = self._resolver.generation
        if alarm.advertisement is None:
            alarm.advertisement, alarm.press = advertisement, advertisement.sealed_press
        elif len(alarm.merged) < MERGED_MAX:
            alarm.merged.append((advertisement, reader))

    def _prove(self, alarm: Alarm, who: bytes, tag: str, contents: Contents, now_s: float) -> None:
        """A stranger's alarm, of which nobody took notice yet, was a tag of this zone: its key is known here now."""
        self._alarms.rename(alarm, who)
        alarm.trust, alarm.tag, alarm.advertisement = "verified", tag, None
        alarm.press, alarm.drill = contents.press, bool(contents.flags & wire.FLAG_DRILL)
        alarm.battery_mv = self._resolver.tags[self._resolver.rows[tag]].battery_mv
        self._counts["alarms_proven_later"] += 1
        alarm.news = alarm.proven = True
        alarm.revise_at_s = now_s
        self._keep(alarm)

    def _look_again(self, alarm: Alarm, now_s: float) -> Iterator[Effect]:
        """Look whether the tag of a stranger's cry is known now. If a person judged it already, it cries again."""
        if alarm.advertisement is None or alarm.tried == self._resolver.generation or not alarm.committed:
            return
        alarm.tried = self._resolver.generation
        for advertisement, reader in [*alarm.merged, (alarm.advertisement, alarm.readers[0])]:
            if not self._resolver.knows(advertisement):
                continue
            again = Sighting(
                reader, None, alarm.heard_at_s, 0, advertisement.counter, advertisement, True, None, cries=True,
                pressed_at_s=alarm.pressed_at_s,
            )  # fmt: skip
            cause = b"s" + advertisement.rotating_id + bytes((advertisement.sealed_press,))
            found = self._find(reader, "new", cause, again, now_s)
            if found.alarm is alarm or found.proof == "none":
                continue
            if reader not in found.alarm.readers:
                found.alarm.readers.append(reader)
            if reader in alarm.readings:
                found.alarm.readings.setdefault(reader, alarm.readings[reader])
            if not found.alarm.committed:
                event = self._sos(found.alarm, self._last_where(found.alarm, now_s))
                yield from self._commit_first(found.alarm, event, now_s)

    def _is_far(self, alarm: Alarm | None, tag: int, sighting: Sighting) -> bool:
        """Return whether a cry is heard loudly at a reader where its tag cannot be: it was just located, or is heard
        loudly, elsewhere."""
        at = self._field.readers.get(sighting.reader)
        if at is None or sighting.rssi_dbm is None or sighting.rssi_dbm < LOUD_DBM:
            return False
        fix = self._locator.latest(tag)
        fresh = fix is not None and abs(sighting.heard_at_s - fix.fixed_at_s) <= FIX_FRESH_S
        if fix is not None and fresh and fix.accuracy_95_m < LOUD_WITHIN_M:
            return math.dist(at[:2], (fix.x_m, fix.y_m)) > TOO_FAR_APART_M
        if alarm is None:
            return False
        loud = [
            self._field.readers[reading.reader]
            for reading in alarm.readings.values()
            if reading.rssi_dbm is not None
            and reading.rssi_dbm >= LOUD_DBM
            and abs(sighting.heard_at_s - reading.heard_at_s) <= FIX_FRESH_S
            and reading.reader in self._field.readers
        ]
        return bool(loud) and all(math.dist(at[:2], other[:2]) > TOO_FAR_APART_M for other in loud)

    def _kin_of_bell(self, alarm: Alarm, report: Report, pressed_at_s: float) -> Kin:
        """Return whether a bell's report is of the press of this alarm, which its reader's number means.

        A reader's numbers repeat after 255 alarms, and from 1 if its flash was erased: a press after this alarm was
        closed, or long after it, is another.
        """
        _, shown, age_ms, _, presses, _, _ = report.content
        if _is_repeated(report):
            return "same"
        dated = age_ms < AGE_MAX_S * 1000
        closed_before = dated and alarm.done and pressed_at_s > alarm.heard_at_s + REVISE_S
        long_after = dated and pressed_at_s > alarm.heard_at_s + SAME_PRESS_S
        # A frame that is not new was pressed after all that is known of this alarm: not this alarm's.
        erased = dated and report.freshness == "stale" and pressed_at_s > alarm.heard_at_s + REVISE_S
        # Pressed again, while the alarm is closed here but not yet there: no person would look at a revision.
        pressed_on = alarm.done and shown < wire.CLOSED and presses > alarm.press and report.freshness == "new"
        return "other" if closed_before or long_after or erased or pressed_on else "same"

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

    def _hear(self, found: _Decision, key: LampKey | None, cause: bytes, report: Report, sighting: Sighting) -> bool:
        """Note which reader heard it and how. Return True if the tag was heard again, False if the reader repeats.

        Only a cry that is made now says where its tag is. One that comes late, or that somebody repeats, moves nothing.
        """
        alarm, advertisement = found.alarm, sighting.advertisement
        assert advertisement is not None
        heard_here = found.verdict != "repeat" or found.proof in ("now", "late")
        if heard_here and report.reader not in alarm.readers and len(alarm.readers) < READERS_MAX:
            alarm.readers.append(report.reader)
            alarm.news = alarm.committed
        if found.proof in ("late", "old") or found.place == "far" or report.freshness != "new":
            sighting.timely = False
        if key is not None:
            lamp = self._alarms.lamp(alarm, key, cause)
            if report.freshness != "new":
                return False
            lamp.counter, lamp.mic = advertisement.counter, advertisement.mic
        if found.verdict != "new" and (not sighting.timely or found.verdict == "repeat"):
            return False
        if report.reader in alarm.readings or len(alarm.readings) < READERS_MAX:
            alarm.readings[report.reader] = Reading(
                report.reader, sighting.rssi_dbm, sighting.packets, sighting.heard_at_s, found.power_dbm
            )
        return True

    def _commit_first(self, alarm: Alarm, event: Sos | Bell, now_s: float) -> Iterator[Effect]:
        if alarm.first is None:
            alarm.first = event
        yield Commit(alarm.first, self._alarms.memory(alarm))
        if not alarm.committed:  # it is on disk: the shell asked for the next effect
            alarm.committed, alarm.first = True, None
            alarm.revise_at_s = now_s + REVISE_S

    def _first_where(self, alarm: Alarm, sighting: Sighting, power_dbm: int, now_s: float) -> Where | None:
        fix = self._fresh_fix(alarm, now_s)
        if fix is None:
            reading = Reading(sighting.reader, sighting.rssi_dbm, sighting.packets, sighting.heard_at_s, power_dbm)
            fix = fix_at_reader(self._field, reading, now_s)
        if fix is None:
            return None
        alarm.at_m = (fix.x_m, fix.y_m)
        return where_of(self._field, fix)

    def _revise(self, alarm: Alarm, now_s: float) -> Iterator[Effect]:
        alarm.revise_at_s = _NEVER
        yield from self._look_again(alarm, now_s)
        alarm.revise_at_s = _NEVER
        if not alarm.committed or (alarm.revision >= REVISIONS_MAX and not alarm.proven):
            return
        alarm.proven = False
        event: Sos | Bell
        if alarm.kind == "bell":
            if not alarm.news:
                return
            alarm.revision += 1
            event = self._bell(alarm)
        else:
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

    def _last_where(self, alarm: Alarm, now_s: float) -> Where | None:
        for reading in sorted(alarm.readings.values(), key=lambda reading: -reading.heard_at_s):
            fix = fix_at_reader(self._field, reading, now_s)
            if fix is not None:
                return where_of(self._field, fix)
        return None

    def _fresh_fix(self, alarm: Alarm, now_s: float) -> Fix | None:
        row = self._resolver.rows.get(alarm.tag) if alarm.trust == "verified" else None
        fix = None if row is None else self._locator.latest(row)
        return fix if fix is not None and now_s - fix.fixed_at_s <= FIX_FRESH_S else None

    def _sos(self, alarm: Alarm, where: Where | None) -> Sos:
        return Sos(
            observed_at=self._alarms.observed_at(alarm),
            clock=self._wall.quality,
            alarm=alarm.name,
            revision=alarm.revision,
            tag=UNKNOWN_TAG if alarm.trust == "unverified" else alarm.tag,
            trust=alarm.trust,
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
            trust="verified" if alarm.trust == "verified" else "unverified",
        )

    # ---- when --------------------------------------------------------------------------------------------------------

    def _answer(
        self, alarm: Alarm, key: LampKey, cause: bytes, shown: int, report: Report, now_s: float
    ) -> Iterator[Effect]:
        yield from self._lamps.answer(alarm, key, cause, shown, report, now_s)
        if self._next_s(alarm) < _NEVER:
            self._keep(alarm)

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


def _proof(identity: Identity, contents: Contents | None, sighting: Sighting) -> Proof:
    """Return what the keys say about a cry. contents: None unless a key proves it."""
    if contents is None:
        return "unread" if identity.outcome == "unknown" else "none"
    if identity.outcome == "good":
        return "now"
    pressed_at_s = sighting.pressed_at_s
    late = pressed_at_s is None or pressed_at_s <= identity.current_until_s + REORDER_S
    return "late" if late else "old"


def _kin(alarm: Alarm, proof: Proof, count: int, sighting: Sighting, now_s: float) -> Kin:
    """Return whether a proven cry with this count belongs to the press of an alarm of its tag and press counter."""
    quiet_s = now_s - alarm.heard_at_s
    if quiet_s > (SAME_PRESS_S if proof == "now" and sighting.pressed_at_s is not None else OLD_S):
        return "other"
    if proof == "now" and sighting.heard_at_s - alarm.opened_at_s > CRY_MAX_S:
        return "other"
    if alarm.counts is None or alarm.counted_at_s == -_NEVER:
        return "same"
    first, newest = alarm.counts
    ahead = ((count - newest + 0x8000) & 0xFFFF) - 0x8000
    if ahead <= 0:  # an earlier beacon of it: at most as far before its first as this reader heard it earlier
        earlier_s = 0.0 if sighting.pressed_at_s is None else max(alarm.pressed_at_s - sighting.pressed_at_s, 0.0)
        most_before = COUNT_RATE_MAX * earlier_s + COUNT_BURST
        return "same" if -ahead <= ((newest - first) & 0xFFFF) + most_before else "other"
    # At least: since the newest count was heard. At most: since the press, because a reader sends the first cry until
    # it is answered, which takes minutes when the mesh is away.
    least = COUNT_RATE_MIN * max(sighting.heard_at_s - alarm.counted_at_s, 0.0) - COUNT_SLACK
    most = COUNT_RATE_MAX * max(sighting.heard_at_s - alarm.pressed_at_s, 0.0) + COUNT_BURST
    return "same" if least <= ahead and (count - first) & 0xFFFF <= most else "other"


def _goes_on(alarm: Alarm, count: int, now_s: float) -> bool:
    """Return whether a repeated cry is one that this alarm of repeated cries already tells of."""
    quiet_s = now_s - alarm.heard_at_s
    if quiet_s <= (GOES_ON_S if alarm.done else SAME_PRESS_S):
        return True
    seen = (
        alarm.counts is not None and (count - alarm.counts[0]) & 0xFFFF <= (alarm.counts[1] - alarm.counts[0]) & 0xFFFF
    )
    return seen and quiet_s <= OLD_S


def _note_count(alarm: Alarm, count: int, heard_at_s: float) -> None:
    if alarm.counts is None:
        alarm.counts, alarm.counted_at_s = (count, count), heard_at_s
        return
    first, newest = alarm.counts
    if 0 < (count - newest) & 0xFFFF < 0x8000:
        alarm.counts, alarm.counted_at_s = (first, count), heard_at_s
    elif 0 < (first - count) & 0xFFFF < 0x8000:
        alarm.counts = (count, newest)


def _is_repeated(report: Report) -> bool:
    """Return whether a frame can report no other press than the one known by its number: it was read already, or is an
    old one of a drawn boot."""
    return report.freshness == "again" or (report.freshness == "stale" and frames.is_drawn(report.boot))


def _who(key: LampKey) -> bytes:
    """Return the identity of a bell's press: reader, boot, and its first number there."""
    return b"%d/%d/%d" % key
