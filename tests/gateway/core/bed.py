"""A street for the tests of the core: readers that encode as real ones do, tags with keys, a child, and a shell."""

import math
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from gateway.core import frames, pipeline
from gateway.core.frames import Frame
from gateway.core.pipeline import State
from gateway.effects import AlarmMemory, Commit, Downlink, Effect, Remember
from gateway.events import Bell, Danger, Event, Sos, Told
from gateway.zone import BellInput, DangerArea, Footpath, Place, Plane, Reader, Zone
from readers import wire
from readers.advertisement import TagKeys, build, epoch_at, parse

UTC_S = 1_800_000_100.0
"""2027-01-15 08:01:40 UTC, 100 s into an epoch of the tags."""
PLANE = Plane(126.95, 37.54)
SPACING_M = 30.0
READERS = 10
INSIDE = (30.0, 6.0)
"""In the school, at least 30 m from its edges, and 6 m from a reader."""
SOS = wire.FLAG_SOS


def at(x_m: float, y_m: float) -> tuple[float, float]:
    return PLANE.to_lonlat(x_m, y_m)


def box(x1: float, y1: float, x2: float, y2: float) -> tuple[tuple[float, float], ...]:
    return at(x1, y1), at(x2, y1), at(x2, y2), at(x1, y2)


def zone(readers: int = READERS) -> Zone:
    """A street along y = 0 with a pole every 30 m from x = 0, a school from x = -40 to 60, and a river at its far end.

    Its footpath is 3 m south of the poles and leads into the school at x = 60.
    """
    return Zone(
        readers=tuple(
            Reader(number=n, eui64=f"{n:016x}", lon=at((n - 1) * SPACING_M, 0)[0], lat=at(0, 0)[1])
            for n in range(1, readers + 1)
        ),
        places=(Place(id="school", kind="school", polygon=box(-40, -30, 60, 80)),),
        dangers=(DangerArea(id="river", polygon=box(240, -60, 330, 60), warn_m=10.0),),
        bells=(BellInput(id="gate-bell", reader=2, input=0),),
        footpaths=(Footpath(line=(at(-60, -3), at(340, -3))),),
    )


KEYS = {n: bytes([n]) * 16 for n in range(1, READERS + 1)}
MACS = {n: frames.mac_of(key) for n, key in KEYS.items()}


def tag_keys(count: int = 30) -> dict[str, TagKeys]:
    return {f"tag-{n:03d}": TagKeys(struct.pack(">QQ", 1, n), struct.pack(">QQ", 2, n)) for n in range(count)}


TAGS = tag_keys()


def advertisement(
    tag: str = "tag-003", *, count: int = 1, flags: int = 0, press: int = 0, epoch: int | None = None,
    power_dbm: int = -50, utc_s: float = UTC_S,
) -> bytes:  # fmt: skip
    return build(
        TAGS[tag], epoch_at(utc_s) if epoch is None else epoch, flags=flags, press=press, count=count,
        power_dbm=power_dbm,
    )  # fmt: skip


def on_air(count: int, tag: str = "tag-003", *, epoch: int = epoch_at(UTC_S)) -> int:
    """Return a tag's beacon counter as it is heard in an epoch."""
    return parse(build(TAGS[tag], epoch, count=count)).counter


def cry(press: int = 1, count: int = 50, tag: str = "tag-003", **more: int) -> bytes:
    """Return an advertisement that says SOS."""
    return advertisement(tag, flags=SOS | more.pop("flags", 0), press=press, count=count, **more)


class Pole:
    """A reader's side of the wire."""

    def __init__(self, number: int, boot: int = 1) -> None:
        self.number, self.boot, self.sequence = number, boot, 0

    def frame(self, kind: int, body: bytes, *, sequence: int | None = None) -> Frame:
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        payload = wire.encode(kind, self.number, self.boot, sequence, body, MACS[self.number])
        return Frame(0x1000 + self.number, 200, -60, payload)

    def sos(self, raw: bytes, *, number: int = 1, shown: int = 0, age_ms: int = 0, rssi_dbm: int | None = -70) -> Frame:
        return self.frame(wire.SOS, wire.encode_sos(number, shown, age_ms, rssi_dbm, 3, raw))

    def bell(
        self, *, number: int = 1, shown: int = 0, age_ms: int = 0, bell_input: int = 0, presses: int = 1,
        before: tuple[int, int] = (0, 0),
    ) -> Frame:  # fmt: skip
        """before: (boot, number) of a press that an earlier boot reported, or could no longer report."""
        age_ms = 655_350 if before[0] else age_ms
        return self.frame(wire.BELL, wire.encode_bell(number, shown, age_ms, bell_input, presses, *before))

    def bind(self, *rows: tuple[int, bytes], rssi_dbm: int = -65, age_ms: int = 0) -> Frame:
        body = wire.encode_bindings([(slot, rssi_dbm, age_ms, 2, raw) for slot, raw in rows])
        return self.frame(wire.BINDINGS, body)

    def see(
        self, *rows: tuple[int, int], rssi_dbm: int = -65, age_ms: int = 0, moving: bool = False,
        sequence: int | None = None,
    ) -> Frame:  # fmt: skip
        """rows: (slot, beacon counter as heard)."""
        body = wire.encode_sightings([(slot, rssi_dbm, age_ms, 2, counter, moving) for slot, counter in rows])
        return self.frame(wire.SIGHTINGS, body, sequence=sequence)

    def beat(self, **fields: int) -> Frame:
        values = [fields.get(name, 0) for name in wire.HEARTBEAT_FIELDS]
        return self.frame(wire.HEARTBEAT, wire.encode_heartbeat(values))

    def read(self, payload: bytes) -> tuple[int, bytes]:
        """Read a downlink as the firmware does. Raise WireError unless boot, freshness and MAC are right."""
        assert len(payload) <= wire.DOWN_MAX, "it would not arrive behind relays"
        kind, reader, boot, echoed = wire.peek(payload)
        if (reader, boot) != (self.number, self.boot) or not 0 <= self.sequence - echoed <= 64:
            raise wire.WireError("not for me, or not fresh")
        return kind, wire.body_of(payload, MACS[self.number])


class Shell:
    """Carries out effects as the runner does. Keeps over a restart what a disk keeps: events, memories, a snapshot."""

    def __init__(
        self, *, zone_: Zone | None = None, now_s: float = 1000.0, utc_s: float | None = UTC_S,
        paused: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.zone = zone_ or zone()
        self.events: list[Event] = []
        self.downlinks: list[Downlink] = []
        self.memories: dict[bytes, AlarmMemory] = {}
        self.snapshot = b""
        self.paused = paused
        self.now_s = now_s
        self.utc_offset_s = None if utc_s is None else utc_s - now_s
        self.state = self._start()

    def _start(self) -> State:
        state = State.new(
            self.zone, KEYS, TAGS, gateway="gw1", epoch="e1", now_s=self.now_s,
            memories=list(self.memories.values()), paused=self.paused,
        )  # fmt: skip
        if self.utc_offset_s is not None:
            pipeline.set_clock(state, self.now_s + self.utc_offset_s, self.now_s, "good")
        if self.snapshot:
            pipeline.restore(state, self.snapshot)
        return state

    def restart(self, *, keep_snapshot: bool = True) -> None:
        """Cut the power: what is on disk stays, what only the core holds is lost."""
        if keep_snapshot:
            self.snapshot = pipeline.snapshot(self.state)
        self.state = self._start()

    def carry(self, step: Iterator[Effect], *, stop_before_commit: int | None = None) -> list[Effect]:
        """Carry out a step. stop_before_commit: the disk fails at that commit (0: the first), so the step is closed."""
        done: list[Effect] = []
        commits = 0
        for effect in step:
            if isinstance(effect, Commit):
                if commits == stop_before_commit:
                    step.close()  # type: ignore[attr-defined]
                    break
                commits += 1
                self.events.append(effect.event)
                if effect.memory is not None:
                    self._keep(effect.memory)
            elif isinstance(effect, Remember):
                self._keep(effect.memory)
            else:
                self.downlinks.append(effect)
            done.append(effect)
        return done

    def _keep(self, memory: AlarmMemory) -> None:
        assert len(memory.data) <= 4096
        self.memories[memory.key] = memory

    def frame(self, frame: Frame, *, later_s: float = 0.0) -> list[Effect]:
        self.now_s += later_s
        return self.carry(pipeline.on_frame(self.state, frame, self.now_s))

    def stage(self, alarm: str, stage: int) -> list[Effect]:
        return self.carry(pipeline.on_stage(self.state, alarm, stage, self.now_s))

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass and tick at every deadline, as the runner does."""
        done: list[Effect] = []
        until_s = self.now_s + seconds
        while (due_s := pipeline.next_deadline_s(self.state)) <= until_s:
            self.now_s = max(self.now_s, due_s)
            done += self.carry(pipeline.on_tick(self.state, self.now_s))
            assert pipeline.next_deadline_s(self.state) > self.now_s, "a deadline that does not pass is a busy loop"
        self.now_s = until_s
        return done

    @property
    def counts(self) -> dict[str, int]:
        return pipeline.counters(self.state)


E = TypeVar("E")


def events(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    return [e.event for e in effects if isinstance(e, Commit) and isinstance(e.event, kind)]


def stages(effects: Iterable[Effect], pole: Pole) -> list[tuple[int, int]]:
    """Return the (alarm number, stage) rows sent to a pole, as its firmware would read them."""
    rows: list[tuple[int, int]] = []
    for effect in effects:
        if isinstance(effect, Downlink) and effect.reader == pole.number:
            kind, body = pole.read(effect.payload)
            if kind == wire.STAGE:
                rows += [(number, stage & ~wire.PROVEN) for number, stage in wire.decode_stage(body)]
    return rows


def acks(effects: Iterable[Effect], pole: Pole) -> list[tuple[int, list[int]]]:
    """Return the (flags, low halves of sequences) acknowledgements sent to a pole."""
    return [
        (flags, list(dict.fromkeys(sequence for _, sequence, _ in rows))) for flags, rows in ack_rows(effects, pole)
    ]


def ack_rows(effects: Iterable[Effect], pole: Pole) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """Return the (flags, (slot, low half of the sequence, mark) ..) acknowledgements sent to a pole."""
    found = []
    for effect in effects:
        if isinstance(effect, Downlink) and effect.reader == pole.number:
            kind, body = pole.read(effect.payload)
            if kind == wire.ACK:
                found.append(wire.decode_ack(body))
    return found


def alarms(found: Sequence[Event]) -> set[str]:
    return {e.alarm for e in found if isinstance(e, Sos | Bell | Danger)}


def told(found: Sequence[Event]) -> list[Told]:
    return [e for e in found if isinstance(e, Told)]


class Child:
    """A tag on a child, heard by the two or three poles next to it, which report every 2 s as the firmware does."""

    def __init__(self, shell: Shell, tag: str = "tag-003", *, seed: int = 1) -> None:
        self.shell, self.tag, self.counter = shell, tag, 100
        self.poles = {n: Pole(n) for n in KEYS}
        self.bound: set[int] = set()
        self.rng = random.Random(seed)

    def stand(self, x_m: float, y_m: float, seconds: float, *, moving: bool = True) -> list[Effect]:
        done: list[Effect] = []
        until_s = self.shell.now_s + seconds
        while self.shell.now_s < until_s:
            self.counter += 2
            for n, pole in self.poles.items():
                distance = math.dist(((n - 1) * SPACING_M, 0, 3.5), (x_m, y_m, 1))
                rssi = round(-50 - 25 * math.log10(distance) + self.rng.gauss(0, 2))
                if rssi < -92:
                    continue
                flags = wire.FLAG_MOVING if moving else 0
                utc_s = UTC_S + self.shell.now_s - 1000.0
                raw = advertisement(self.tag, count=self.counter, flags=flags, power_dbm=-50, utc_s=utc_s)
                if n in self.bound:
                    frame = pole.see((1, parse(raw).counter), rssi_dbm=rssi, moving=moving)
                else:
                    frame = pole.bind((1, raw), rssi_dbm=rssi)
                sent = self.shell.frame(frame)
                sent += self.shell.wait(0.25)
                for flags, sequences in acks(sent, pole):
                    if flags & wire.ACK_REBIND:
                        self.bound.discard(n)
                    elif pole.sequence in sequences:
                        self.bound.add(n)
                done += sent
            done += self.shell.wait(2)
        return done

    def walk(self, x1: float, x2: float, y_m: float = -3.0) -> list[Effect]:
        steps = int(abs(x2 - x1) / 2.4)
        return [e for n in range(steps) for e in self.stand(x1 + (x2 - x1) * n / steps, y_m, 0.1)]
