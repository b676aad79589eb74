"""The gateway's core, in one direction: frame, sightings, SOS first, then resolve, locate, settle, conclude.

Steps are generators of `gateway.effects`. The shell carries out each effect before it asks for the next one, and it
finishes (or closes) one step before it begins another. `now_s` is one monotonic clock for everything. UTC comes from
`set_clock`. It only dates events and selects the tags' epoch; it may jump by hours or years without changing a timer.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.core import frames
from gateway.core.alarms import Alarms
from gateway.core.buttons import ButtonFrame, Buttons
from gateway.core.conclude import Concluder
from gateway.core.frames import Frame, Malformed, ReaderLinks, Report
from gateway.core.losses import Losses
from gateway.core.neighbours import Neighbours
from gateway.core.reader_health import Health
from gateway.core.reader_settings import SettingsAnswers, gate_duty_pct
from gateway.core.resolve import UNRESOLVED, KeptTag, Resolver
from gateway.core.sightings import Sighting, Table, WallClock
from gateway.core.sos import Emergencies
from gateway.effects import AlarmMemory, Effect
from gateway.events import ClockQuality, PresenceState
from gateway.fix import Fix, Reading, too_far_apart
from gateway.locate.crosscheck import Calibration, Crosscheck, ReaderFinding
from gateway.locate.ground import Ground
from gateway.locate.hearing import Hearing
from gateway.locate.locator import ZoneLocator
from gateway.presence.settle import Settler
from gateway.presence.twins import Twins
from gateway.recording import RecordedSite, Survey
from gateway.zone import Field, Zone
from readers import wire
from readers.advertisement import TagKeys, epoch_at

SILENCE_S = 1.0
FILL_S = 0.05
_NEVER = float("inf")


@dataclass(slots=True)
class State:
    """Everything the core knows. `new` makes it, and the functions of this module work on it."""

    counts: Counter[str]
    wall: WallClock
    links: ReaderLinks
    losses: Losses
    table: Table
    resolver: Resolver
    field: Field
    locator: ZoneLocator
    alarms: Alarms
    emergencies: Emergencies
    settler: Settler
    concluder: Concluder
    health: Health
    settings: SettingsAnswers
    neighbours: Neighbours
    crosscheck: Crosscheck
    buttons: Buttons
    twins: Twins
    now_s: float
    silence_at_s: float
    fill_at_s: float
    changes: int = 0
    """Arrivals and departures so far. When it rises, a snapshot should be taken soon."""
    calibrated: Calibration | None = None
    """The newest result of the crosscheck that the locator has."""
    tap: Callable[[str, Reading], None] | None = None
    """Called with the pseudonym and the reading of each followed tag while a recording runs. It must not raise."""

    @classmethod
    def new(
        cls,
        zone: Zone,
        reader_keys: Mapping[int, bytes],
        tag_keys: Mapping[str, TagKeys],
        *,
        gateway: str,
        epoch: str,
        now_s: float,
        memories: Sequence[AlarmMemory] = (),
        paused: Collection[str] = (),
    ) -> "State":
        """Return a new core. Call `set_clock` and `restore` next; `fit` and `learn` add a walk test.

        epoch: of the emergency lane's store. memories: all that this store kept. paused: tags that are not followed;
        their SOS still counts. The epoch must change when the store was lost: alarm names have the epoch and a number,
        and the number continues from `memories`.
        """
        counts: Counter[str] = Counter()
        wall = WallClock(now_s)
        links = ReaderLinks.of(reader_keys)
        losses = Losses(reader_keys, counts)
        resolver = Resolver(tag_keys, counts)
        field = Field(zone)
        ground = Ground(zone)
        own = {resolver.rows[tag]: ground.routes[r.id] for r in zone.routes for tag in r.tags if tag in resolver.rows}
        locator = ZoneLocator(ground, counts, routes=own)
        alarms = Alarms(gateway, epoch, wall, counts)
        alarms.restore(memories, now_s)
        settler = Settler(zone, field.plane, resolver.rows)
        for row in sorted(resolver.rows[tag] for tag in set(paused) & resolver.rows.keys()):
            settler.pause(row)
        concluder = Concluder(field, resolver, alarms, wall, counts)
        for tag, area in concluder.restore():
            settler.restore_near(tag, area, now_s)
        emergencies = Emergencies(zone, field, links, alarms, resolver, locator, wall, counts)
        emergencies.relight(now_s)
        return cls(
            counts, wall, links, losses, Table(links, losses, resolver, counts), resolver, field, locator, alarms,
            emergencies, settler, concluder, Health(reader_keys, wall, counts, now_s, gate_duty_pct(zone)),
            SettingsAnswers(zone, reader_keys, links, counts), Neighbours(links, counts),
            Crosscheck(field.readers, counts, now_s, look=ground.look, walls=ground.walls),
            Buttons(alarms, wall, counts), Twins(zone, now_s), now_s, now_s + SILENCE_S, now_s,
        )  # fmt: skip


def on_frame(state: State, frame: Frame, now_s: float) -> Iterator[Effect]:
    """Yield the effects of one frame, the most urgent ones first. Never raise, whatever the frame contains."""
    report = frames.read(state.links, frame.payload)
    if isinstance(report, Malformed):
        yield from state.health.noise(report, now_s)
        return
    heard = state.table.read(report, now_s)
    for sighting in heard:  # all of them first: no later step can drop or break an SOS
        if sighting.cries:
            yield from state.emergencies.cry(report, sighting, now_s)
    if report.kind == wire.BELL:
        yield from state.emergencies.bell(report, now_s)
    yield from state.health.heard(report, now_s)
    if report.freshness == "new":
        state.losses.heard(report, now_s)
        state.counts[f"frames_kind_{report.kind}"] += 1
        state.counts["sightings"] += len(heard)
        if report.kind == wire.NEIGHBOURS:
            for burst in state.neighbours.read(report):
                state.crosscheck.hear(
                    burst.receiver, burst.sender, burst.rssi_dbm, burst.packets, burst.power_dbm, now_s
                )  # fmt: skip
        if report.kind != wire.SOS:  # a cry is reported as a sighting too
            state.counts["packets"] += sum(sighting.packets for sighting in heard)
        for sighting in heard:
            _resolve(state, report, sighting)
            if sighting.tag != UNRESOLVED and sighting.timely:
                _follow(state, sighting, now_s)
    yield from state.table.answer(report, now_s)
    yield from state.settings.answer(report)


def on_button(state: State, frame: ButtonFrame, now_s: float) -> Iterator[Effect]:
    """Yield the effects of an alarm of a ZigBee button (`buttons.read`). When they are carried out, it is on disk."""
    yield from state.buttons.alarm(frame, now_s)


def on_stage(state: State, alarm: str, stage: int, now_s: float) -> Iterator[Effect]:
    """Yield the effects of a stage that the city reports for an alarm. stage: a number of `readers.wire`."""
    yield from state.emergencies.stage(alarm, stage, now_s)


def on_sent(state: State, reader: int, delivered: bool, now_s: float) -> None:
    """Take the end of a downlink: its reader acknowledged it, or did not in spite of all the radio's tries."""
    state.losses.sent(reader, delivered, now_s)


def on_radio_start(state: State) -> None:
    """Note that the gateway's radio was away: frames that readers sent meanwhile are not lost on their way."""
    state.losses.forget()


def on_tick(state: State, now_s: float) -> Iterator[Effect]:
    """Yield the effects of time alone: repeats, revisions, silence. Call it at `next_deadline_s`, or at any time."""
    yield from state.emergencies.tick(now_s)
    yield from state.table.flush(now_s)
    yield from state.health.tick(now_s)
    for word in state.crosscheck.tick(now_s):
        yield from state.health.crosscheck(word, now_s)
    if state.crosscheck.calibration is not state.calibrated:
        state.calibrated = state.crosscheck.calibration
        known = state.calibrated
        state.locator.set_offsets({} if known is None else known.offsets_db, None if known is None else known.walls_db)
    if state.twins.deadline_s() <= now_s:
        for finding in state.twins.tick(now_s):
            word = ReaderFinding("gate_reader_deaf", finding.reader, finding.ok, finding.detail)
            yield from state.health.crosscheck(word, now_s)
        state.settler.set_offsets(state.twins.offsets_db)
    if now_s >= state.silence_at_s:
        state.silence_at_s = now_s + SILENCE_S
        for change in state.settler.silence(now_s, state.health.is_silent):
            yield from state.concluder.step(change, now_s)
    if state.resolver.unfinished and now_s >= state.fill_at_s:
        state.fill_at_s = now_s + FILL_S
        state.resolver.fill()
    # Last: a fault in it cannot stop the other work.
    if state.locator.deadline_s() <= now_s:
        for tag, fix, late in state.locator.step(now_s, state.health.is_silent):
            yield from _settle(state, tag, fix, late, now_s)


def next_deadline_s(state: State) -> float:
    """Return when `on_tick` next has work. It is never inf: the core checks for silence every second."""
    return min(
        state.silence_at_s,
        state.health.deadline_s(),
        state.crosscheck.deadline_s(),
        state.twins.deadline_s(),
        state.emergencies.deadline_s(),
        state.table.deadline_s(),
        state.locator.deadline_s(),
        state.fill_at_s if state.resolver.unfinished else _NEVER,
    )


def set_clock(state: State, utc_s: float, now_s: float, quality: ClockQuality) -> None:
    """Set the wall clock: its time at `now_s` is utc_s (UTC, seconds). Any value is accepted; no timer uses it."""
    state.wall.set(utc_s, now_s, quality)
    state.resolver.set_epoch(epoch_at(state.wall.utc_s(now_s)), unsure=quality != "good")
    state.alarms.date(now_s)


def pause(state: State, tag: str) -> None:
    """Stop following a tag: no position, place or danger of it is reported. Its SOS is. Raise KeyError if not enrolled.

    It lasts until `resume` or a restart. A pause in the configuration comes back at each start until the file changes.
    """
    state.settler.pause(state.resolver.rows[tag])


def resume(state: State, tag: str, now_s: float) -> None:
    """End a pause. The tag starts again, without an arrival or a departure. Raise KeyError if it is not enrolled."""
    state.settler.resume(state.resolver.rows[tag], now_s)


def fit(state: State, survey: tuple[RecordedSite, Survey]) -> Iterator[tuple[int, list[Hearing] | None]]:
    """Fit the walk test that `gateway.config` loaded. Yield for each part of the zone what `learn` takes.

    A part can take seconds. Any thread may do this while the core runs.
    """
    for sector in range(state.locator.sectors):
        yield sector, state.locator.fitted(sector, survey)


def learn(state: State, sector: int, hearings: list[Hearing] | None, now_s: float) -> Iterator[Effect]:
    """Take one part that `fit` yielded; yield the effects. hearings None: the walk test cannot be used there."""
    state.locator.learn(sector, hearings)
    state.settler.set_walked(state.locator.walked_db())
    if hearings is None:
        yield from state.health.unfit(state.locator.home(sector), now_s)


def deaf(state: State, now_s: float) -> bool:
    """Return whether no reader was heard for `reader_health.SILENT_S`: then the gateway's own radio may be at fault."""
    return state.health.deaf(now_s)


def readers_ok_and_silent(state: State) -> tuple[int, int]:
    """Return how many readers are heard and how many are silent."""
    return state.health.ok_and_silent()


def counters(state: State) -> dict[str, int]:
    """Return all counts since the start, and the present size of each table."""
    ok, silent = state.health.ok_and_silent()
    return dict(state.counts) | {
        "alarms": len(state.alarms),
        "slots_bound": state.table.bound(),
        "tags_enrolled": len(state.resolver.tags),
        "tags_followed": len(state.settler.tags),
        "unknown_ids": state.resolver.unknown_ids(),
        "readers_ok": ok,
        "readers_silent": silent,
    }


def figures(state: State) -> dict[str, float]:
    """Return the results of the crosscheck by name: present values, not counts."""
    return state.crosscheck.figures()


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """MessagePack. Add new fields only at the end, with a default."""

    alarms: int
    links: list[tuple[int, int, int, int, bytes]]
    tags: list[KeptTag]
    settled: list[tuple[str, PresenceState, str | None]]
    off_route: list[str] = []
    about_s: dict[str, dict[str, float]] = {}
    crosscheck: list[tuple[int, float, float, float, bool]] = []
    faults: list[tuple[int, int]] = []
    usual_db: dict[str, float] = {}


def snapshot(state: State) -> bytes:
    """Return what should survive a restart in addition to memories: readers' boots and sequences, tags' counters,
    presence, the crosscheck, the readers' faults that were reported, and how loud gate readers usually hear."""
    settled = [(state.resolver.tags[tag].name, s.state, s.place) for tag, s in state.settler.tags.items()]
    off = [state.resolver.tags[tag].name for tag, s in state.settler.tags.items() if s.way is not None and s.way.off]
    about = {
        state.resolver.tags[tag].name: state.settler.about_s(tag)
        for tag, s in state.settler.tags.items()
        if s.where.about
    }
    return msgspec.msgpack.encode(
        _Snapshot(
            state.alarms.number,
            frames.snapshot(state.links),
            state.resolver.snapshot(),
            settled,
            off,
            about,
            state.crosscheck.snapshot(),
            state.health.snapshot(),
            state.twins.snapshot(),
        )
    )


def restore(state: State, data: bytes) -> None:
    """Restore a snapshot into a new state. Raise ValueError, and change nothing, if it cannot be read."""
    try:
        kept = msgspec.msgpack.decode(data, type=_Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{len(data)} bytes are no snapshot of a core: {error}; start without it") from None
    state.alarms.number = max(state.alarms.number, kept.alarms)
    frames.restore(state.links, kept.links)
    state.resolver.restore(kept.tags, state.now_s)
    state.crosscheck.restore(kept.crosscheck, state.now_s)
    state.health.restore(kept.faults)
    state.twins.restore(kept.usual_db)
    for name, presence, place in kept.settled:
        row = state.resolver.rows.get(name)
        if row is not None:
            state.settler.restore(
                row, presence, place, state.now_s, off=name in kept.off_route, about_s=kept.about_s.get(name, {})
            )


def _resolve(state: State, report: Report, sighting: Sighting) -> None:
    """Set the tag of a sighting: from its own advertisement if it has one, else from its slot."""
    binding, advertisement = sighting.binding, sighting.advertisement
    if sighting.whole and advertisement is not None:
        if report.kind == wire.SOS and not sighting.timely:
            return  # the reader asks again; the tag was not heard again
        identity = sighting.identity or state.resolver.identify(advertisement, sighting.heard_at_s)
        if identity.outcome == "good":
            sighting.tag = identity.tag
        if binding is not None:
            binding.tag, binding.contents = sighting.tag, identity.contents
            binding.epoch = -1 if identity.epoch is None else identity.epoch
            binding.refused = identity.outcome not in ("good", "unknown")
            binding.tried = state.resolver.generation
    elif binding is not None:
        if binding.tag == UNRESOLVED and advertisement is not None and binding.tried != state.resolver.generation:
            identity = state.resolver.identify(advertisement, binding.heard_at_s)
            binding.tried = state.resolver.generation
            if identity.outcome == "good":
                binding.tag, binding.epoch, binding.contents = identity.tag, identity.epoch or -1, identity.contents
                state.table.rebind(report.reader)
        sighting.tag = binding.tag
        if sighting.tag != UNRESOLVED:
            state.resolver.heard_counter(
                sighting.tag, binding.epoch, sighting.counter, sighting.heard_at_s, sighting.moving
            )


def _follow(state: State, sighting: Sighting, now_s: float) -> None:
    tag = state.resolver.tags[sighting.tag]
    reading = Reading(sighting.reader, sighting.rssi_dbm, sighting.packets, sighting.heard_at_s, tag.power_dbm)
    if state.tap is not None and not state.settler.is_paused(sighting.tag):
        state.tap(tag.name, reading)
    state.locator.hear(sighting.tag, reading, now_s)
    state.settler.hear(sighting.tag, reading, now_s)
    state.twins.hear(sighting.tag, reading, now_s)


def _settle(state: State, tag: int, fix: Fix, late: Fix | None, now_s: float) -> Iterator[Effect]:
    """Settle and conclude what a fix means. Position events use the smoothed fixes (`late`)."""
    if state.settler.is_paused(tag):
        return  # it is located only for an SOS
    known = state.resolver.tags[tag]
    apart = too_far_apart(state.field, fix)
    if apart is not None:
        yield from state.health.two_places(known.name, apart, now_s)
    for change in state.settler.step(tag, fix, known.still_since_s, now_s):
        yield from state.concluder.step(change, now_s)
    state.changes = state.counts["arrivals"] + state.counts["departures"]
    if late is not None:
        resting = state.settler.tags[tag].state in ("at", "idle")
        yield from state.concluder.position(tag, late, resting=resting, moving=known.moving, now_s=now_s)
