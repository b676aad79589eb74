"""The gateway's core: one function, one direction. Frame, sightings, SOS first, resolve, locate, settle, conclude.

Steps are generators of `gateway.effects`: the shell carries out each effect before it asks for the next, and finishes
(or closes) one step before it begins another. `now_s` is one monotonic clock for everything; UTC comes by `set_clock`,
only labels events and picks the tags' epoch, and may step by hours or years without disturbing a timer.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.core import frames
from gateway.core.alarms import Alarms
from gateway.core.conclude import Concluder
from gateway.core.frames import Frame, Malformed, ReaderLinks, Report
from gateway.core.neighbours import Neighbours
from gateway.core.reader_health import Health
from gateway.core.reader_settings import SettingsAnswers
from gateway.core.resolve import UNRESOLVED, Resolver
from gateway.core.sightings import Sighting, Table, WallClock
from gateway.core.sos import Emergencies
from gateway.effects import AlarmMemory, Effect
from gateway.events import ClockQuality, PresenceState
from gateway.fix import Fix, Reading, torn
from gateway.locate.crosscheck import Calibration, Crosscheck
from gateway.locate.ground import Ground
from gateway.locate.hearing import Hearing
from gateway.locate.locator import ZoneLocator
from gateway.presence.settle import Settler
from gateway.recording import RecordedSite, Survey
from gateway.zone import Field, Zone
from readers import wire
from readers.advertisement import TagKeys, epoch_at

SILENCE_S = 1.0
FILL_S = 0.05
_NEVER = float("inf")


@dataclass(slots=True)
class State:
    """Everything the core knows. Made by `new`; the functions of this module are its only users."""

    counts: Counter[str]
    wall: WallClock
    links: ReaderLinks
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
    now_s: float
    silence_at_s: float
    fill_at_s: float
    changes: int = 0
    """Arrivals and departures so far: when it rose, a snapshot is worth taking soon."""
    calibrated: Calibration | None = None
    """What the readers' check of each other last told the locator."""
    tap: Callable[[str, Reading], None] | None = None
    """Told each reading of a tag (by its pseudonym) that is followed, while somebody records. Must not raise."""

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
        """Start a core. epoch: of the emergency lane's store; memories: all it kept; then `set_clock` and `restore`.

        paused: tags that are not to be followed; their SOS is heard as ever. A walk test comes by `fit` and `learn`.

        The epoch must change when that store was lost: it names alarms, with a number that `memories` carry on.
        """
        counts: Counter[str] = Counter()
        wall = WallClock(now_s)
        links = ReaderLinks.of(reader_keys)
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
            counts, wall, links, Table(links, counts), resolver, field, locator, alarms, emergencies, settler,
            concluder, Health(reader_keys, wall, counts, now_s),
            SettingsAnswers(zone.settings, len(reader_keys), links, counts), Neighbours(links, counts),
            Crosscheck(field.readers, counts, now_s), now_s, now_s + SILENCE_S, now_s,
        )  # fmt: skip


def on_frame(state: State, frame: Frame, now_s: float) -> Iterator[Effect]:
    """Yield what one frame means, the most urgent first. Never raises for what came from the air."""
    report = frames.read(state.links, frame.payload)
    if isinstance(report, Malformed):
        yield from state.health.noise(report, now_s)
        return
    heard = state.table.read(report, now_s)
    for sighting in heard:  # all of them first: no later stage can drop or break an SOS
        if sighting.cries:
            yield from state.emergencies.cry(report, sighting, now_s)
    if report.kind == wire.BELL:
        yield from state.emergencies.bell(report, now_s)
    yield from state.health.heard(report, now_s)
    if report.freshness == "new":
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


def on_stage(state: State, alarm: str, stage: int, now_s: float) -> Iterator[Effect]:
    """Yield what the city's word on an alarm means. stage: as `readers.wire` numbers them."""
    yield from state.emergencies.stage(alarm, stage, now_s)


def on_tick(state: State, now_s: float) -> Iterator[Effect]:
    """Yield what time alone brings: repeats, revisions, silence. Call it at `next_deadline_s`, or any time."""
    yield from state.emergencies.tick(now_s)
    yield from state.table.flush(now_s)
    yield from state.health.tick(now_s)
    for word in state.crosscheck.tick(now_s):
        yield from state.health.crosscheck(word, now_s)
    if state.crosscheck.calibration is not state.calibrated:
        state.calibrated = state.crosscheck.calibration
        state.locator.set_offsets({} if state.calibrated is None else state.calibrated.offsets_db)
    if now_s >= state.silence_at_s:
        state.silence_at_s = now_s + SILENCE_S
        for change in state.settler.silence(now_s, state.health.is_silent):
            yield from state.concluder.step(change, now_s)
    if state.resolver.unfinished and now_s >= state.fill_at_s:
        state.fill_at_s = now_s + FILL_S
        state.resolver.fill()
    # Last: whatever goes wrong in it keeps nothing else from its turn.
    if state.locator.deadline_s() <= now_s:
        for tag, fix, late in state.locator.step(now_s, state.health.is_silent):
            yield from _settle(state, tag, fix, late, now_s)


def next_deadline_s(state: State) -> float:
    """Return when `on_tick` next has work; never inf, a core looks round every second."""
    return min(
        state.silence_at_s,
        state.health.deadline_s(),
        state.crosscheck.deadline_s(),
        state.emergencies.deadline_s(),
        state.table.deadline_s(),
        state.locator.deadline_s(),
        state.fill_at_s if state.resolver.unfinished else _NEVER,
    )


def set_clock(state: State, utc_s: float, now_s: float, quality: ClockQuality) -> None:
    """Tell the wall clock's time (UTC, seconds) at `now_s`. Any value is taken; no timer listens."""
    state.wall.set(utc_s, now_s, quality)
    state.resolver.set_epoch(epoch_at(state.wall.utc_s(now_s)), unsure=quality != "good")
    state.alarms.date(now_s)


def pause(state: State, tag: str) -> None:
    """Follow a tag no more: no position, place or danger of it is told. Its SOS is. Raises KeyError if not enrolled.

    Lasts until `resume` or a restart; a pause of the configuration lasts until the file is changed.
    """
    state.settler.pause(state.resolver.rows[tag])


def resume(state: State, tag: str, now_s: float) -> None:
    """End a pause; the tag begins anew, without an arrival or a departure. Raises KeyError if not enrolled."""
    state.settler.resume(state.resolver.rows[tag], now_s)


def fit(state: State, survey: tuple[RecordedSite, Survey]) -> Iterator[tuple[int, list[Hearing] | None]]:
    """Fit the zone's walk test, as `gateway.config` loads it, and yield what `learn` takes, a part of the zone each.

    A part takes up to seconds. Any thread may do it beside a core that runs.
    """
    for sector in range(state.locator.sectors):
        yield sector, state.locator.fitted(sector, survey)


def learn(state: State, sector: int, hearings: list[Hearing] | None, now_s: float) -> Iterator[Effect]:
    """Yield what it means to take a part of what `fit` found."""
    state.locator.learn(sector, hearings)
    if hearings is None:
        yield from state.health.unfit(state.locator.home(sector), now_s)


def deaf(state: State, now_s: float) -> bool:
    """Return whether every reader has been silent for so long that our own radio must be suspected."""
    return state.health.deaf(now_s)


def readers_ok_and_silent(state: State) -> tuple[int, int]:
    """Return how many readers speak and how many are silent."""
    return state.health.ok_and_silent()


def counters(state: State) -> dict[str, int]:
    """Return every count since the start, and the levels of every table."""
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
    """Return what the readers say of each other, by name: levels, not counts."""
    return state.crosscheck.figures()


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """MessagePack; new fields only at the end, with a default."""

    alarms: int
    links: list[tuple[int, int, int, int, bytes]]
    tags: list[tuple[str, int, int, int, int]]
    settled: list[tuple[str, PresenceState, str | None]]
    off_route: list[str] = []
    about_s: dict[str, dict[str, float]] = {}
    crosscheck: list[tuple[int, float, float, float, bool]] = []


def snapshot(state: State) -> bytes:
    """Return what should survive a restart besides memories: readers' boots and sequences, tags' counters, presence,
    and what the readers say of each other."""
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
        )
    )


def restore(state: State, data: bytes) -> None:
    """Take a snapshot back into a new state. Raises ValueError, and changes nothing, when it cannot be read."""
    try:
        kept = msgspec.msgpack.decode(data, type=_Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{len(data)} bytes are no snapshot of a core: {error}; start without it") from None
    state.alarms.number = max(state.alarms.number, kept.alarms)
    frames.restore(state.links, kept.links)
    state.resolver.restore(kept.tags, state.now_s)
    state.crosscheck.restore(kept.crosscheck, state.now_s)
    for name, presence, place in kept.settled:
        row = state.resolver.rows.get(name)
        if row is not None:
            state.settler.restore(
                row, presence, place, state.now_s, off=name in kept.off_route, about_s=kept.about_s.get(name, {})
            )


def _resolve(state: State, report: Report, sighting: Sighting) -> None:
    """Give a sighting its tag: from its own advertisement if it has one, else from its slot's."""
    binding, advertisement = sighting.binding, sighting.advertisement
    if sighting.whole and advertisement is not None:
        if report.kind == wire.SOS and not sighting.timely:
            return  # a reader that asks again, not a tag heard again
        identity = sighting.identity or state.resolver.identify(advertisement, sighting.heard_at_s)
        if identity.outcome == "good":
            sighting.tag = identity.tag
        if binding is not None:
            binding.tag = sighting.tag
            binding.epoch = -1 if identity.epoch is None else identity.epoch
            binding.refused = identity.outcome not in ("good", "unknown")
            binding.tried = state.resolver.generation
    elif binding is not None:
        if binding.tag == UNRESOLVED and advertisement is not None and binding.tried != state.resolver.generation:
            identity = state.resolver.identify(advertisement, binding.heard_at_s)
            binding.tried = state.resolver.generation
            if identity.outcome == "good":
                binding.tag, binding.epoch = identity.tag, identity.epoch or -1
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


def _settle(state: State, tag: int, fix: Fix, late: Fix | None, now_s: float) -> Iterator[Effect]:
    """Settle and conclude what a tag's fix means; its path is told by the smoothed ones."""
    if state.settler.is_paused(tag):
        return  # it was located for the sake of an SOS alone
    known = state.resolver.tags[tag]
    apart = torn(state.field, fix)
    if apart is not None:
        yield from state.health.two_places(known.name, apart, now_s)
    for change in state.settler.step(tag, fix, known.still_since_s, now_s):
        yield from state.concluder.step(change, now_s)
    state.changes = state.counts["arrivals"] + state.counts["departures"]
    if late is not None:
        resting = state.settler.tags[tag].state in ("at", "idle")
        yield from state.concluder.position(tag, late, resting=resting, moving=known.moving, now_s=now_s)
