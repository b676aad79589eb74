"""A pole with one real reader, tags round it, and a gateway of a few lines that believes exactly what the wire allows.

The reader is the compiled firmware in real MicroPython with a 32 KB heap. The gateway here keeps slots as the head of
readers/wire.py says, and knows the truth: every tag has a signal strength of its own, so a sighting that is put on
another tag shows.
"""

import hashlib
import heapq
import hmac
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from readers import advertisement, wire
from sim.reader.flash import prepare_flash
from sim.reader.process import ReaderProcess
from sim.reader.switches import Switches

NUMBER = 7
DIP_MS = 60
KEY = bytes(range(100, 116))


def mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


@dataclass
class Tag:
    number: int
    keys: advertisement.TagKeys
    rssi_dbm: int
    epoch: int = 1000
    counter: int = 0
    press: int = 0
    flags: int = 0
    address: bytes = b"\x40\x01\x02\x03\x04\x05"
    from_ms: float = 0
    until_ms: float = float("inf")

    def body(self) -> bytes:
        return advertisement.build(
            self.keys, self.epoch, flags=self.flags, press=self.press, count=self.counter, power_dbm=-59
        )

    def next_mark(self) -> int:
        """Return what its gateway gives to readers: the mark of its next press, of the present one while it cries."""
        return advertisement.mark(self.keys, self.epoch, self.press + (0 if self.flags & wire.FLAG_SOS else 1))


@dataclass
class Sent:
    """One frame the reader gave to its radio."""

    at_ms: float
    kind: int
    boot: int
    sequence: int
    body: bytes
    frame: bytes
    error: str | None = None


@dataclass
class Street:
    """Call `run(seconds)`; look at `sent`, `sightings`, `pins`, `log`."""

    flash_dir: Path
    seed: int = 1
    config: str = ""
    switches: Switches = field(default_factory=Switches)
    in_place: bool = True
    latency_ms: float = 8
    ticks_at_boot_ms: int = 0
    acks: bool = True  # the gateway answers BINDINGS and HEARTBEAT
    auto_stage: int | None = None  # it answers SOS and BELL with this stage
    marks: bool = True  # it knows the tags
    now_ms: float = 0
    sent: list[Sent] = field(default_factory=list)
    sightings: list[tuple[float, int]] = field(default_factory=list)  # (ms, tag number) the gateway believed
    motions: list[tuple[float, int, bool]] = field(default_factory=list)  # (ms, tag number, whether it moves) of each
    wrong: list[str] = field(default_factory=list)
    unknown_rows: int = 0
    rebinds: int = 0
    pins: list[tuple[float, str, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    stages: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        print(f"seed {self.seed}")
        self.tags: list[Tag] = []
        self.slots: dict[int, tuple[bytes, int]] = {}
        self.ids: dict[bytes, Tag] = {}
        self.error: Callable[[Sent], str | None] = lambda sent: None  # what transmit raises
        self.lost: Callable[[Sent], bool] = lambda sent: False  # sent well, and yet the gateway has it not
        self.drop_downlink: Callable[[], bool] = lambda: False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        prepare_flash(self.flash_dir, NUMBER, KEY, config=self.config)
        self.reader = ReaderProcess(
            NUMBER,
            self.flash_dir,
            radio=self,
            switches=self.switches,
            in_place=self.in_place,
            seed=self.seed,
            ticks_at_boot_ms=self.ticks_at_boot_ms,
        )

    # ---- the world ----

    def at(self, at_ms: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (max(at_ms, self.now_ms), next(self._order), what))

    def add_tags(self, count: int, *, period_ms: float = 1000, from_ms: float = 0, until_ms: float = 1e12) -> list[Tag]:
        new = []
        for _ in range(count):
            number = len(self.tags)
            seed = bytes([number & 0xFF, number >> 8]) * 8
            tag = Tag(number, advertisement.TagKeys(seed, seed), -35 - number % 60)
            tag.from_ms, tag.until_ms = from_ms, until_ms
            self.tags.append(tag)
            new.append(tag)
            self.at(
                max(from_ms, self.now_ms) + self.random.random() * period_ms, lambda t=tag: self._beacon(t, period_ms)
            )
        return new

    def _beacon(self, tag: Tag, period_ms: float) -> None:
        if self.now_ms >= tag.until_ms:
            return
        self.advertise(tag)
        self.at(self.now_ms + period_ms + self.random.random() * 10, lambda: self._beacon(tag, period_ms))

    def advertise(self, tag: Tag) -> bool:
        tag.counter = tag.counter + 1 & 0xFFFF
        body = tag.body()
        self.ids[body[1:9]] = tag
        return self.reader.hear(self.now_ms, tag.address, tag.rssi_dbm, advertisement.payload(body))

    def cry(self, tag: Tag, seconds: float = 3, period_ms: float = 100) -> None:
        """Press the tag's button: it advertises SOS fast for so long."""
        tag.flags |= wire.FLAG_SOS
        tag.press = tag.press + 1 & 0xFF
        for i in range(int(seconds * 1000 / period_ms)):
            self.at(self.now_ms + i * period_ms, lambda: self.advertise(tag))

    def start(self, cause: int = 4) -> None:
        self.reader.start(self.now_ms, cause)

    def run(self, seconds: float) -> None:
        end_ms = self.now_ms + seconds * 1000
        while True:
            event_ms = self._events[0][0] if self._events else float("inf")
            self.now_ms = max(self.now_ms, min(event_ms, self.reader.wake_at_ms, end_ms))
            if event_ms <= self.now_ms and event_ms <= end_ms:
                heapq.heappop(self._events)[2]()
            elif self.reader.wake_at_ms <= end_ms:
                self.reader.run(self.now_ms)
            else:
                self.now_ms = end_ms
                return

    # ---- the gateway ----

    def downlink(self, kind: int, body: bytes, *, echoed: int | None = None, boot: int | None = None) -> bool:
        last = self.sent[-1]
        frame = wire.encode(
            kind, NUMBER, last.boot if boot is None else boot, last.sequence if echoed is None else echoed, body, mac
        )
        return self.reader.deliver(self.now_ms, frame)

    def settings(self, version: int, **changes: int) -> bytes:
        values = dict(zip(wire.SETTINGS_FIELDS, (version, 2000, 40, 10, 60, 60, 0xFFFF), strict=True)) | changes
        return wire.encode_settings(list(values.values()))

    def on_transmit(
        self, reader: ReaderProcess, now_ms: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> None:
        assert endpoints == (0xE8, 0xE8, 0x11, 0xC105)
        assert len(payload) <= wire.FRAME_MAX
        kind, number, boot, sequence = wire.peek(payload)
        assert number == NUMBER
        sent = Sent(now_ms, kind, boot, sequence, wire.body_of(payload, mac), payload)
        sent.error = self.error(sent)
        self.sent.append(sent)
        if sent.error is None and not self.lost(sent):
            self.at(now_ms + self.latency_ms / 2, lambda: self._receive(sent))
        self.at(now_ms + self.latency_ms, lambda: reader.transmit_done(self.now_ms, sent.error))

    def _receive(self, sent: Sent) -> None:
        if sent.kind == wire.BINDINGS:
            for slot, rssi, _, _, body in wire.decode_bindings(sent.body):
                self.slots[slot] = (body[1:9], sent.sequence)
                if body[1:9] in self.ids:
                    self._believe(self.ids[body[1:9]], rssi, bool(body[9] & wire.FLAG_MOVING))
        elif sent.kind == wire.SIGHTINGS:
            for slot, rssi, _, _, _, moving in wire.decode_sightings(sent.body):
                if slot not in self.slots:
                    self.unknown_rows += 1
                elif sent.sequence > self.slots[slot][1] and self.slots[slot][0] in self.ids:
                    self._believe(self.ids[self.slots[slot][0]], rssi, moving)
        elif sent.kind in (wire.SOS, wire.BELL) and self.auto_stage is not None:
            stage = max(self.auto_stage, self.stages.get(sent.body[0], 0))
            self._answer(wire.STAGE, wire.encode_stage([(sent.body[0], stage)]), sent)
        if not self.acks:
            return
        if self.unknown_rows:
            self.unknown_rows = 0
            self.rebinds += 1
            self._answer(wire.ACK, wire.encode_ack(True, []), sent)
        if sent.kind in (wire.BINDINGS, wire.HEARTBEAT):
            self._answer(wire.ACK, wire.encode_ack(False, self.acknowledges(sent)), sent)

    def acknowledges(self, sent: Sent) -> list[tuple[int, int, int]]:
        """Return the rows of the ACK for a frame."""
        if sent.kind == wire.HEARTBEAT:
            return [(wire.ACK_HEARTBEAT, sent.sequence, 0)]
        return [
            (slot, sent.sequence, self.ids[body[1:9]].next_mark() if self.marks and body[1:9] in self.ids else 0)
            for slot, _, _, _, body in wire.decode_bindings(sent.body)
        ]

    def _answer(self, kind: int, body: bytes, sent: Sent) -> None:
        frame = wire.encode(kind, NUMBER, sent.boot, sent.sequence, body, mac)
        if not self.drop_downlink():
            self.at(self.now_ms + self.latency_ms, lambda: self.reader.deliver(self.now_ms, frame))

    def _believe(self, tag: Tag, rssi: int | None, moving: bool) -> None:
        self.sightings.append((self.now_ms, tag.number))
        self.motions.append((self.now_ms, tag.number, moving))
        if rssi != tag.rssi_dbm:
            self.wrong.append(f"{self.now_ms}: tag {tag.number} at {tag.rssi_dbm} dBm reported with {rssi}")

    def on_pin(self, reader: ReaderProcess, now_ms: float, name: str, level: int) -> None:
        self.pins.append((now_ms, name, level))

    def on_log(self, reader: ReaderProcess, line: str) -> None:
        self.log.append(line)

    # ---- what tests ask ----

    def frames(self, *kinds: int, since_ms: float = 0) -> list[Sent]:
        return [sent for sent in self.sent if sent.kind in kinds and sent.at_ms >= since_ms]

    def sos(self) -> list[tuple[Any, ...]]:
        return [(sent.at_ms, *wire.decode_sos(sent.body)) for sent in self.frames(wire.SOS)]

    def bells(self) -> list[tuple[Any, ...]]:
        return [(sent.at_ms, *wire.decode_bell(sent.body)[:5]) for sent in self.frames(wire.BELL)]

    def heartbeats(self) -> list[dict[str, int]]:
        return [
            dict(zip(wire.HEARTBEAT_FIELDS, wire.decode_heartbeat(sent.body), strict=True))
            for sent in self.frames(wire.HEARTBEAT)
        ]

    def seen(self, since_ms: float = 0) -> Counter[int]:
        return Counter(number for at_ms, number in self.sightings if at_ms >= since_ms)

    def edges(self, pin: str = "D2", since_ms: float = 0) -> list[tuple[float, int]]:
        """Return (ms, level) of the changes that a person sees: low for under DIP_MS, before what may block, is not."""
        found: list[tuple[float, int]] = []
        for at_ms, name, level in self.pins:
            if name != pin or (found and level == found[-1][1]):
                continue
            if level and len(found) > 1 and at_ms - found[-1][0] < DIP_MS:
                found.pop()
            else:
                found.append((at_ms, level))
        return [edge for edge in found if edge[0] >= since_ms]

    def lamp(self) -> int:
        """Return the level of the lamp as a person sees it now, -1 before the first."""
        edges = self.edges()
        dips = len(edges) > 1 and not edges[-1][1] and self.now_ms - edges[-1][0] < DIP_MS
        return 1 if dips else edges[-1][1] if edges else -1


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Callable[..., Street]]:
    made: list[Street] = []

    def make(**options: Any) -> Street:
        made.append(Street(tmp_path / f"flash{len(made)}", **options))
        return made[-1]

    yield make
    for one in made:
        one.reader.stop()
