"""A stranger who floods a reader with advertisements, and a child among them whose tag the gateway knows.

`Flood` makes the advertisements, for the emulator and for `Hosted` alike. `hosted_trial` is one run in CPython.
"""

import hashlib
import hmac
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from readers import advertisement, wire
from tests.firmware.hosted import Hosted

NUMBER, KEY = 7, bytes(range(100, 116))
KINDS = ("cries", "copies", "beacons", "all")
FAST_MS, FAST_FOR_MS, SLOW_MS, JITTER_MS = 100.0, 3000.0, 1000.0, 10.0
"""How a pressed tag cries (sim/street/tag.py)."""


def mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


@dataclass
class Flood:
    """kind: cries of ids that nobody has; copies: cries with a known tag's id, any press and no true mark; beacons: of
    ids that nobody has, without a cry; all: one of these each time. a_second: on the air. poisson: else in step."""

    random: random.Random
    kind: str
    a_second: float
    poisson: bool
    copied: Callable[[], bytes]
    """Returns what a known tag advertises now."""

    def wait_ms(self) -> float:
        mean_ms = 1000 / self.a_second
        return self.random.expovariate(1 / mean_ms) if self.poisson else mean_ms

    def body(self) -> bytes:
        kind = self.random.choice(KINDS[:3]) if self.kind == "all" else self.kind
        body = bytearray(self.random.randbytes(wire.ADVERTISEMENT_SIZE))
        body[0] = wire.ADVERTISEMENT_VERSION
        body[9] = body[9] & ~wire.FLAG_SOS if kind == "beacons" else body[9] | wire.FLAG_SOS
        if kind == "copies":
            body[1:9] = self.copied()[1:9]
        return bytes(body)


@dataclass
class Result:
    """One run. Times are milliseconds after the scanner took the cry's first packet; None: never."""

    left_ms: float | None = None
    pressed_ms: float = 0.0
    first_heard_ms: float | None = None
    frames: dict[int, int] = field(default_factory=dict)
    """Frames sent while the flood lasts, by kind."""
    strangers: int = 0
    """SOS frames of others than the child's tag."""
    flood_s: float = 0.0
    drops: int = 0


class HostedTrial:
    """Forty known tags, a flood from 30 s on, and the cry of one of them 3 to 4 s later."""

    def __init__(self, seed: int, kind: str, a_second: float, poisson: bool, send_ms: tuple[float, float]) -> None:
        self.random = random.Random(seed)
        self.reader = Hosted(
            number=NUMBER, key=KEY, seed=seed, send_ms=lambda: self.random.uniform(*send_ms), radio=self._on_frame
        )
        self.keys = [advertisement.TagKeys(self.random.randbytes(16), self.random.randbytes(16)) for _ in range(40)]
        self.count = [self.random.randrange(65536) for _ in self.keys]
        self.press = [self.random.randrange(256) for _ in self.keys]
        self.crying = False
        self.ids = {advertisement.rotating_id(keys.k_id, 1000): i for i, keys in enumerate(self.keys)}
        self.result = Result()
        self.flood = Flood(self.random, kind, a_second, poisson, lambda: b"\0" + next(iter(self.ids)))
        self.flood_from_ms = 30_000.0
        self.press_at_ms = 33_000 + 1000 * self.random.random()
        for i in range(1, len(self.keys)):
            self.reader.at(1500 + 1000 * self.random.random(), lambda i=i: self._beacon(i))
        self.reader.at(1500 + 1000 * self.random.random(), lambda: self._beacon(0))
        self.reader.at(self.flood_from_ms, self._forge)
        self.reader.at(self.press_at_ms, self._pressed)

    def run(self) -> Result:
        """Run until the cry has left and 3 s are over; at most half a minute, if the scanner happens to hear none."""
        self.reader.run(self.press_at_ms + 30_000)
        self.result.flood_s = (self.reader.now_ms - self.flood_from_ms) / 1000
        self.result.drops = self.reader.scan_drops
        return self.result

    def _body(self, i: int) -> bytes:
        flags = wire.FLAG_SOS if self.crying and not i else 0
        return advertisement.build(self.keys[i], 1000, flags=flags, press=self.press[i], count=self.count[i])

    def _advertise(self, i: int) -> bool:
        self.count[i] += 1
        return self.reader.scanning() and self.reader.hear(advertisement.payload(self._body(i)), -40 - i)

    def _beacon(self, i: int) -> None:
        if i or not self.crying:
            self._advertise(i)
        self.reader.at(self.reader.now_ms + SLOW_MS + JITTER_MS * self.random.random(), lambda: self._beacon(i))

    def _pressed(self) -> None:
        self.crying = True
        self.press[0] += 1
        self.result.pressed_ms = self.reader.now_ms
        self._cry()

    def _cry(self) -> None:
        now_ms = self.reader.now_ms
        if self._advertise(0) and self.result.first_heard_ms is None:
            self.result.first_heard_ms = now_ms
        period_ms = FAST_MS if now_ms < self.press_at_ms + FAST_FOR_MS else SLOW_MS
        self.reader.at(now_ms + period_ms + JITTER_MS * self.random.random(), self._cry)

    def _forge(self) -> None:
        if self.reader.scanning():  # else it need not be made
            self.reader.hear(advertisement.payload(self.flood.body()), -30 - self.random.randrange(60))
        self.reader.at(self.reader.now_ms + self.flood.wait_ms(), self._forge)

    def _on_frame(self, now_ms: float, frame: bytes) -> None:
        kind, _, boot, sequence = wire.peek(frame)
        body = wire.body_of(frame, mac)
        result = self.result
        if now_ms >= self.flood_from_ms:
            result.frames[kind] = result.frames.get(kind, 0) + 1
        down = None
        if kind == wire.HEARTBEAT:
            down = (wire.ACK, wire.encode_ack(0, [(wire.ACK_HEARTBEAT, sequence, 0)]))
        elif kind == wire.BINDINGS:
            rows = [(row[0], sequence, self._mark(row[4])) for row in wire.decode_bindings(body)]
            down = (wire.ACK, wire.encode_ack(0, rows))
        elif kind == wire.SOS:
            number, *_, cry = wire.decode_sos(body)
            true = self.crying and cry[1:11] == self._body(0)[1:11] and cry[13:15] == self._body(0)[13:15]
            result.strangers += not true
            if true and result.left_ms is None and result.first_heard_ms is not None:
                result.left_ms = now_ms - result.first_heard_ms
                self.reader.end(self.press_at_ms + 3000)
            down = (wire.STAGE, wire.encode_stage([(number, wire.RECEIVED)]))
        if down is not None:
            answer = wire.encode(down[0], NUMBER, boot, sequence, down[1], mac)
            self.reader.at(now_ms + 30 + 20 * self.random.random(), lambda: self.reader.deliver(answer))

    def _mark(self, body: bytes) -> int:
        """As the gateway: a forged copy proves no press, and gets none."""
        i = self.ids.get(bytes(body[1:9]))
        if i is None:
            return 0
        contents = advertisement.parse(bytes(body)).open(self.keys[i], 1000)
        if contents is None:
            return 0
        return advertisement.mark(self.keys[i], 1000, contents.press + (0 if contents.flags & wire.FLAG_SOS else 1))
