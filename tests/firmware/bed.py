"""A pole with one real reader, and the gateway's real core at the other end of the mesh: which presses become alarms,
how long the reader looks at no bell, and whether its lamp says what is true.

`Trial` is the street of conftest.py with that core in place of its few lines. A press of a bell is *told* when the core
commits a `Bell` event for it, a tag's when it commits an `Sos`. Three rules judge the rest:

- The reader *works* at a moment if it looks at its bells at least every GAP_MS. A press of 0.5 s cannot be missed then:
  it needs two looks, 50 ms apart. Whatever is longer counts whole as time without a working bell.
- It *comes back* when it looks at its bells again.
- What the lamp may show follows from the answers that reached this boot of the reader: `LampJudge`.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Commit, Downlink, Effect
from gateway.events import Bell, Sos
from gateway.zone import Plane, Zone
from gateway.zone import Reader as ZoneReader
from readers import wire
from readers.advertisement import epoch_at
from sim.reader.process import BROWNOUT, POWER_ON, ReaderProcess
from tests.firmware.conftest import KEY, NUMBER, Sent, Street, Tag, mac
from tests.firmware.lamp import LampJudge
from tests.gateway.core.bed import UTC_S, Shell

GAP_MS = 200.0
DEBOUNCE_MS = 50.0
UNKNOWN_MS = 650_000.0
"""A press said to be so old is reported without its age."""
ANSWERS = ((0.3, wire.STORED), (3.0, wire.ACKNOWLEDGED), (5.0, wire.DISPATCHED), (9.0, wire.CLOSED))
"""What the city answers to every alarm, and so many seconds after its event."""
BELLS = ("D4", "D12", "D10")
CONFIG = f"BELLS = {BELLS}\n"


class PoleGateway(Shell):
    """The core of a zone with one reader, and its disk."""

    def __init__(self, tags: Sequence[Tag]) -> None:
        self.tags = {name_of(tag): tag.keys for tag in tags}
        plane = Plane(126.95, 37.54)
        super().__init__(zone_=Zone((ZoneReader(NUMBER, f"{NUMBER:016x}", *plane.to_lonlat(0, 0)),)), now_s=0.0)

    def _start(self) -> pipeline.State:
        state = pipeline.State.new(
            self.zone, {NUMBER: KEY}, self.tags, gateway="gw1", epoch="e1", now_s=self.now_s,
            memories=list(self.memories.values()),
        )  # fmt: skip
        pipeline.set_clock(state, self.now_s + UTC_S, self.now_s, "good")
        if self.snapshot:
            pipeline.restore(state, self.snapshot)
        return state

    def tick(self, now_s: float) -> list[Effect]:
        due_s = pipeline.next_deadline_s(self.state)
        self.now_s = due_s if now_s < due_s < now_s + 1e-6 else now_s  # milliseconds and seconds round differently
        return self.carry(pipeline.on_tick(self.state, self.now_s))


def name_of(tag: Tag) -> str:
    return f"tag-{tag.number:03d}"


@dataclass
class Press:
    """A press of a bell (its input) or of a tag (its number), and what became of it."""

    what: str
    number: int
    at_ms: float
    until_ms: float
    press: int = 0
    told_ms: float | None = None
    first_look_ms: float | None = None
    last_look_ms: float = 0.0
    why: set[str] = field(default_factory=set)
    """What kept the reader from looking, in each gap that touched the press; and what came before it was told."""

    @property
    def seen(self) -> bool:
        """Whether the reader had two looks at the pressed bell that are far enough apart."""
        return self.first_look_ms is not None and self.last_look_ms - self.first_look_ms >= DEBOUNCE_MS


@dataclass
class Trial(Street):
    """Call `run(seconds)`; look at `presses`, `lamp_judge`, `dead_ms`, `resets`, `beats`.

    lapse_ms: time-lapse. While nothing is going to happen a pass is made to last so long instead of 20 ms: no press, no
    advertisement that the scanner takes, no frame, no change of a switch, no lamp that may be lit. The firmware then
    runs as on a module whose passes are slow. Such stretches are no gaps.
    """

    config: str = CONFIG
    tag_count: int = 3
    loss: float = 0.0
    """Of 1: frames lost without a word, each way."""
    answers: Sequence[tuple[float, int]] = ANSWERS
    lapse_ms: float = 0.0
    presses: list[Press] = field(default_factory=list)
    beats: list[dict[str, int]] = field(default_factory=list)
    """Heartbeats that the core took as new."""
    dead_ms: Counter[str] = field(default_factory=Counter)
    """Time without a working bell by what happened in it; "power": it had none."""
    longest_ms: dict[str, float] = field(default_factory=dict)
    twice: int = 0
    """Alarms that are about no press that was not told before."""
    resets: Counter[int] = field(default_factory=Counter)
    """By cause, but for power."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.add_tags(self.tag_count, period_ms=1000)
        self.gateway = PoleGateway(self.tags)
        self.lamp_judge = LampJudge()
        self.mesh = "up"
        """raises: transmit ends in ENOTCONN. loses: frames are sent and arrive nowhere. box: the gateway is off."""
        self._levels = {"D2": self.lamp_judge.lamp, "D3": self.lamp_judge.buzzer}
        self._look_ms = self.reader.looked_at_ms  # the newest look
        self._dead_from_ms: float | None = None  # since the reader has power, or looked last
        self._off_ms: float | None = None
        self._why: set[str] = set()
        self.newest_why = ""
        self._lapsed_ms = 0.0
        self._lapse_until_ms: float | None = None
        self._awake_until_ms = 0.0
        self._causes = self.reader.causes
        self.at(60_000, self._set_clock)

    # ---- what may happen ----

    def start(self, cause: int = POWER_ON) -> None:
        super().start(cause)
        if self._off_ms is not None:
            self.dead_ms["power"] += round(self.now_ms - self._off_ms)
        self._dead_from_ms, self._lapsed_ms = self.now_ms, 0.0
        self._why = {"start"}
        self._observe()

    def cut(self) -> None:
        """Switch its power off."""
        self._wake()
        self._gap(self.now_ms)
        self.reader.kill()
        self.lamp_judge.reset(self.now_ms)
        self._dead_from_ms, self._off_ms = None, self.now_ms
        self._note("power")

    @property
    def powered(self) -> bool:
        return self._dead_from_ms is not None

    def renew_gateway(self) -> None:
        """Let the gateway know the tags that were added."""
        self.gateway = PoleGateway(self.tags)

    def press_bell(self, place: int, ms: float) -> Press:
        press = Press("bell", place, self.now_ms, self.now_ms + ms)
        if self._dead_from_ms is None:
            press.why.add("power")
        self.presses.append(press)
        self.reader.pin(BELLS[place], 0)
        self.at(press.until_ms, partial(self._release, place))
        self.stir(2000)
        return press

    def _release(self, place: int) -> None:
        self.reader.pin(BELLS[place], 1)
        self.stir(1000)

    def press_tag(self, tag: Tag, fast_s: float = 10.0, slow_s: float = 60.0) -> Press:
        """The tag cries ten times a second, then once a second until it is told or so many seconds are over."""
        tag.flags |= wire.FLAG_SOS
        tag.press = tag.press + 1 & 0xFF
        press = Press("sos", tag.number, self.now_ms, self.now_ms + 1000 * (fast_s + slow_s), tag.press)
        self.presses.append(press)
        self._cry(tag, press, self.now_ms + 1000 * fast_s)
        return press

    def _cry(self, tag: Tag, press: Press, fast_until_ms: float) -> None:
        fast = self.now_ms < fast_until_ms
        if self.now_ms >= press.until_ms or (press.told_ms is not None and not fast):
            tag.flags &= ~wire.FLAG_SOS
            return
        self.advertise(tag)
        period_ms = (100 if fast else 1000) + 10 * self.random.random()  # as Bluetooth has it: no phase is kept
        self.at(self.now_ms + period_ms, partial(self._cry, tag, press, fast_until_ms))

    def advertise(self, tag: Tag) -> bool:
        tag.epoch = epoch_at(UTC_S + self.now_ms / 1000)
        heard = super().advertise(tag)
        if heard:
            self.stir(60)
        return heard

    def switch(self, **changes: object) -> None:
        self.reader.switches = self.reader.switches.but(**changes)
        self.stir(1000)

    # ---- time ----

    def run(self, seconds: float) -> None:
        end_ms = self.now_ms + seconds * 1000
        while True:
            event_ms = self._events[0][0] if self._events else float("inf")
            tick_ms = self._tick_ms()
            wake_ms = self.reader.wake_at_ms
            if self._lapse_until_ms is not None:
                wake_ms = max(wake_ms, self._lapse_until_ms)
            self.now_ms = max(self.now_ms, min(event_ms, tick_ms, wake_ms, end_ms))
            if event_ms <= self.now_ms and event_ms <= end_ms:
                heapq.heappop(self._events)[2]()
            elif tick_ms <= self.now_ms and tick_ms <= end_ms:
                self._carry(self.gateway.tick(self.now_ms / 1000))
            elif wake_ms <= end_ms:
                self._wake()
                self.reader.run(self.now_ms)
            else:
                self.now_ms = end_ms
                return
            self._observe()

    def _wake(self) -> None:
        """End the time-lapse: what it added to the reader's sleep is no gap."""
        if self._lapse_until_ms is not None:
            self._lapsed_ms += max(0.0, self.now_ms - self.reader.wake_at_ms)
            self._lapse_until_ms = None

    def _tick_ms(self) -> float:
        if self.mesh == "box":
            return float("inf")
        due_ms = pipeline.next_deadline_s(self.gateway.state) * 1000
        return max(due_ms, self.gateway.now_s * 1000 + 5000) if self._lapse_until_ms is not None else due_ms

    def stir(self, awake_ms: float) -> None:
        """Something happens: the reader's next pass is at a moment within 20 ms, and so long there is no time-lapse."""
        self._awake_until_ms = max(self._awake_until_ms, self.now_ms + awake_ms)
        if self._lapse_until_ms is not None:
            self._lapse_until_ms = min(self._lapse_until_ms, self.now_ms + 20 * self.random.random())

    def _observe(self) -> None:
        """See what the reader did in the step before."""
        reader = self.reader
        if reader.causes is not self._causes:
            self._causes = reader.causes
            if (cause := reader.causes[-1]) not in (POWER_ON, BROWNOUT):
                self.resets[cause] += 1
                self._note(f"reset {cause}")
            self.lamp_judge.reset(self.now_ms)
        if reader.looked_at_ms != self._look_ms:
            self._look()
        if reader.transmitting:
            self._why.add("sending")
        if reader.scan_stalled:
            self._why.add("stalled")

    def _look(self) -> None:
        """The reader looked at its bells."""
        reader = self.reader
        self._look_ms = reader.looked_at_ms
        self._gap(self._look_ms)
        for press in self.presses:
            if press.what == "bell" and press.at_ms <= self._look_ms <= press.until_ms:
                press.last_look_ms = self._look_ms
                if press.first_look_ms is None:
                    press.first_look_ms = self._look_ms
        self._lapse_until_ms = None
        passes = 0 <= reader.wake_at_ms - self.now_ms <= GAP_MS and not reader.transmitting
        if self.lapse_ms and passes and self.now_ms >= self._awake_until_ms:
            self._lapse_until_ms = self.now_ms + self._lapse()

    def _lapse(self) -> float:
        if self.lamp_judge.answered(self.now_ms):
            return 0.0
        waits = any(press.told_ms is None and self.now_ms < press.until_ms + 60_000 for press in self.presses)
        most_ms = min(self.lapse_ms, 200.0 if waits else self.lapse_ms)
        every_s = self.reader.switches.interrupt_every_s
        return min(most_ms, 1000 * every_s) if every_s else most_ms

    def _gap(self, until_ms: float) -> None:
        """The reader looked, or lost its power: what was since the look before?"""
        if self._dead_from_ms is None:
            return
        from_ms, gap_ms = self._dead_from_ms, until_ms - self._dead_from_ms - self._lapsed_ms
        why = self.newest_why = " and ".join(sorted(self._why)) or "nothing known"
        if gap_ms > GAP_MS:
            self.dead_ms[why] += round(gap_ms)
            self.longest_ms[why] = max(gap_ms, self.longest_ms.get(why, 0.0))
            for press in self.presses:
                if press.told_ms is None and press.until_ms > from_ms:
                    press.why |= self._why
        self._dead_from_ms, self._why, self._lapsed_ms = until_ms, set(), 0.0

    def _note(self, what: str) -> None:
        """Remember for all presses that nobody was told of so far."""
        self._why.add(what)
        for press in self.presses:
            if press.told_ms is None:
                press.why.add(what)

    def finish(self) -> None:
        """Judge what is under way."""
        self._wake()
        self._gap(self.now_ms)
        self.lamp_judge.end(self.now_ms)

    # ---- the mesh and the gateway ----

    def on_transmit(
        self, reader: ReaderProcess, now_ms: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> None:
        kind, _, boot, sequence = wire.peek(payload)
        sent = Sent(now_ms, kind, boot, sequence, wire.body_of(payload, mac), payload)
        self.sent.append(sent)
        error = "ENOTCONN" if self.mesh == "raises" else None
        if self.mesh == "up" and self.random.random() >= self.loss:
            self.at(now_ms + self.latency_ms / 2, partial(self._receive, sent))
        transmission = reader.transmissions
        self.at(now_ms + self.latency_ms, lambda: self._done(error, transmission))

    def _done(self, error: str | None, transmission: int) -> None:
        self.reader.transmit_done(self.now_ms, error, transmission)
        self.stir(60)

    def _receive(self, sent: Sent) -> None:
        if self.mesh == "box":
            return
        if sent.kind in (wire.SOS, wire.BELL):
            self.lamp_judge.shown(sent.body[0], sent.body[1], bell=sent.kind == wire.BELL)
        self.gateway.now_s = self.now_ms / 1000
        beats = self.gateway.state.counts["frames_kind_5"]
        self._carry(self.gateway.frame(Frame(0x1007, 200, -60, sent.frame)))
        if self.gateway.state.counts["frames_kind_5"] > beats:
            values = wire.decode_heartbeat(sent.body)
            self.beats.append(dict(zip(wire.HEARTBEAT_FIELDS, values, strict=True)))

    def _carry(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Commit) and isinstance(effect.event, Bell | Sos):
                self._told(effect.event)
            elif isinstance(effect, Downlink):
                arrives = self.mesh == "up" and self.random.random() >= self.loss
                self.at(self.now_ms + self.latency_ms, partial(self._down, effect.payload, arrives))
        self.gateway.events.clear()
        self.gateway.downlinks.clear()

    def _down(self, payload: bytes, arrives: bool) -> None:
        delivered = arrives and self.reader.deliver(self.now_ms, payload)
        kind, _, boot, _ = wire.peek(payload)
        if delivered and kind == wire.STAGE and boot == self.sent[-1].boot:
            for number, stage in wire.decode_stage(wire.body_of(payload, mac)):
                self.lamp_judge.told(self.now_ms, number, stage & ~wire.PROVEN)
        if delivered:
            self.stir(300)
        if self.mesh != "box":
            pipeline.on_sent(self.gateway.state, NUMBER, delivered, self.now_ms / 1000)

    def _told(self, event: Bell | Sos) -> None:
        """The core commits an alarm, or more of it: which press is that?"""
        meant = self._meant(event)
        new = [press for press in meant if press.told_ms is None]
        self.twice += bool(meant) and not new and not event.revision
        for press in new:
            press.told_ms = self.now_ms
        if not event.revision:
            for after_s, stage in self.answers:
                self.at(self.now_ms + 1000 * after_s, partial(self._stage, event.alarm, stage))

    def _meant(self, event: Bell | Sos) -> list[Press]:
        """Return the presses that an event is about: for a bell as many as it says, from the first of the alarm on."""
        if isinstance(event, Sos):
            return [
                p for p in self.presses if p.what == "sos" and p.press == event.press
                and event.tag in (f"tag-{p.number:03d}", "unknown")
            ]  # fmt: skip
        mine = [
            p for p in self.presses if p.what == "bell" and event.bell == f"reader{NUMBER}-input{p.number}" and p.seen
        ]
        pressed_ms = 1000 * (event.observed_at.timestamp() - UTC_S)
        if self.now_ms - pressed_ms > UNKNOWN_MS:  # told again after a power cut, without the age
            return mine
        return [p for p in mine if p.until_ms > pressed_ms - 1500][: event.presses]

    def _stage(self, alarm: str, stage: int) -> None:
        if self.mesh == "box":
            self.at(self.now_ms + 1000, partial(self._stage, alarm, stage))
            return
        self.gateway.now_s = self.now_ms / 1000
        self._carry(self.gateway.stage(alarm, stage))

    def restart_gateway(self, keep_snapshot: bool) -> None:
        self.gateway.now_s = self.now_ms / 1000
        self.gateway.restart(keep_snapshot=keep_snapshot)

    def _set_clock(self) -> None:
        self.at(self.now_ms + 60_000, self._set_clock)
        if self.mesh != "box":
            now_s = self.now_ms / 1000
            pipeline.set_clock(self.gateway.state, UTC_S + now_s, now_s, "good")

    def on_pin(self, reader: ReaderProcess, now_ms: float, name: str, level: int) -> None:
        if name in self._levels:
            self._levels[name](now_ms, level)
