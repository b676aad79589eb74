"""A child's tag: what it advertises and when. It has its own clock, keys and counters. It receives nothing.

It sends a beacon every second plus 0-10 ms, as Bluetooth LE requires (Core 5.4, vol 6 B 4.4.2.2). Round each change of
its id it is silent (docs/TAG.md). A pressed tag sends cries every 100 ms for 3 s, then every second, and is never
silent. It stops after 10 minutes, because it cannot know that a person answered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from readers import advertisement
from readers.advertisement import COMPANY_ID_TEST, EPOCH_S, TagKeys
from readers.wire import FLAG_BATTERY_LOW, FLAG_CLOCK_UNSURE, FLAG_MOVING, FLAG_SOS
from sim import chance

BEACON_S = 1.0
JITTER_S = 0.010
FAST_S = 0.1
FAST_FOR_S = 3.0
CRY_FOR_S = 600.0
SILENT_S = 20.0
"""A tag falls silent at a moment of its own in the last so many seconds of an epoch, and begins with its new id at
another in the first so many seconds of the next. Both moments are drawn again each time. By measurement:
docs/MEASURED.md."""
POWER_DBM = -48
"""Stated power at 1 m: +4 dBm, minus 40 dB for the first metre, minus 12 dB for chip antenna and bag. Assumed."""
POWER_SIGMA_DB = 1.5
"""Standard deviation of a tag's true power from its stated power: chip and antenna spread. Assumed."""
CLOCK_SIGMA_S = 2.0
CLOCK_SIGMA_PPM = 20.0
"""Spread of the tags' crystals. Assumed; data sheets state 20 to 50 as a limit."""
CALM_S = SILENT_S + 3 * CLOCK_SIGMA_S
"""Before and after each change of the ids, some tags may be silent for so long."""
BATTERY_LOW_MV = 2400
MOVING_FOR_S = 60.0
"""How long the motion flag stays set after the last step. A shorter time tells children apart by how they play."""


def calm_in_s(unix_s: float, seconds: float) -> float:
    """Return after how long a time of `seconds` begins in which no tag is silent; 0: now. seconds: under 840."""
    since_s = unix_s % EPOCH_S
    if since_s < CALM_S:
        return CALM_S - since_s
    return EPOCH_S - since_s + CALM_S if since_s + seconds > EPOCH_S - CALM_S else 0.0


@dataclass(frozen=True, slots=True)
class Advert:
    """One advertising event as it leaves the tag."""

    tag: int
    event: int
    """Number of this tag's event. With `tag` it selects the random numbers of the channel for this transmission."""
    sent_s: float
    address: bytes
    """Random device address, 6 bytes. It changes with the id, once an epoch."""
    payload: bytes
    cry: bool


class Tag:
    """One tag. Times are seconds since the story (the simulated run) began; `unix0_s` is the true UTC time then.

    Every number is drawn from (seed, number), so other tags have no effect on this one.
    """

    def __init__(
        self, seed: int, number: int, name: str, unix0_s: float = 0.0, *, company_id: int = COMPANY_ID_TEST
    ) -> None:
        self.number, self.name, self.unix0_s = number, name, unix0_s
        self.keys = TagKeys(_key(seed, number, "k_id"), _key(seed, number, "k_mic"))
        self.clock_offset_s = CLOCK_SIGMA_S * float(chance.normal(seed, number, "clock")[0])
        self.clock_rate = 1 + 1e-6 * CLOCK_SIGMA_PPM * float(chance.normal(seed, number, "crystal")[0])
        self.power_offset_db = POWER_SIGMA_DB * float(chance.normal(seed, number, "power")[0])
        self.battery_mv = 2700 + int(400 * chance.one(seed, number, "battery"))
        self.clock_unsure = False
        self._seed, self._company_id = seed, company_id
        self._batteries = self._event = 0
        self._pressed_s: float | None = None
        self._moved_s = -MOVING_FOR_S
        self.press_count, self.count = self._drawn_counters()
        self.begin(unix0_s)

    def begin(self, unix0_s: float) -> None:
        """Let the story begin at this true UTC time. Only before the first advertisement."""
        self.unix0_s = unix0_s
        self.next_s = self._not_silent(BEACON_S * chance.one(self._seed, self.number, "phase"))

    @property
    def crying(self) -> bool:
        return self._pressed_s is not None

    def clock_s(self, at_s: float) -> float:
        """Return what the tag's clock shows then: UTC in seconds, as far as the tag knows it."""
        return self.unix0_s + at_s * self.clock_rate + self.clock_offset_s

    def press(self, now_s: float) -> None:
        """Press the button: the next advertisement is due now, also in a silence, and has the SOS flag."""
        self.press_count = (self.press_count + 1) & 0xFF
        self._pressed_s = now_s
        self.next_s = now_s

    def change_battery(self, now_s: float, without_s: float = 30.0, *, keeps_clock: bool = True) -> None:
        """Take the battery out and put a full one in after `without_s`. Both counters are lost and drawn again.

        A cry that was under way ends. Without keeps_clock the clock stood still meanwhile, and the tag says so.
        """
        self._batteries += 1
        self.press_count, self.count = self._drawn_counters()
        self.battery_mv = 3000
        self._pressed_s, self._moved_s = None, now_s - MOVING_FOR_S
        if not keeps_clock:
            self.clock_offset_s -= without_s
            self.clock_unsure = True
        phase = chance.one(self._seed, self.number, "phase", self._batteries)
        self.next_s = self._not_silent(now_s + without_s + BEACON_S * phase)

    def advertise(self, moving: bool) -> Advert:
        """Return the advertisement that is due at `next_s`, and set `next_s` for the one after it."""
        now_s = self.next_s
        if moving:
            self._moved_s = now_s
        flags = FLAG_SOS if self.crying else 0
        flags |= FLAG_MOVING if now_s - self._moved_s < MOVING_FOR_S else 0
        flags |= FLAG_BATTERY_LOW if self.battery_mv < BATTERY_LOW_MV else 0
        flags |= FLAG_CLOCK_UNSURE if self.clock_unsure else 0
        epoch = advertisement.epoch_at(self.clock_s(now_s))
        self.count = (self.count + 1) & 0xFFFF
        body = advertisement.build(
            self.keys, epoch, flags=flags, press=self.press_count, count=self.count, power_dbm=POWER_DBM,
            battery_mv=self.battery_mv,
        )  # fmt: skip
        address = (int(chance.words(self._seed, self.number, "address", epoch)[0]) & 0x3FFFFFFFFFFF).to_bytes(6, "big")
        advert = Advert(
            self.number, self._event, now_s, address, advertisement.payload(body, self._company_id), self.crying
        )
        self._plan_next(now_s)
        self._event += 1
        return advert

    def _plan_next(self, now_s: float) -> None:
        jitter_s = JITTER_S * chance.one(self._seed, self.number, "jitter", self._event)
        fast = self._pressed_s is not None and now_s - self._pressed_s < FAST_FOR_S
        self.next_s = now_s + ((FAST_S if fast else BEACON_S) + jitter_s) / self.clock_rate
        if self._pressed_s is not None and self.next_s - self._pressed_s >= CRY_FOR_S:
            self._pressed_s = None
        if not self.crying:
            self.next_s = self._not_silent(self.next_s)

    def _not_silent(self, at_s: float) -> float:
        """Return `at_s`, or when the silence round the change of the id ends, if it is in one."""
        clock_s = self.clock_s(at_s)
        epoch = advertisement.epoch_at(clock_s)
        since_s = clock_s - epoch * EPOCH_S
        if since_s >= EPOCH_S - self._drawn_s("falls silent", epoch):
            epoch += 1
            since_s = -1.0
        if since_s >= (begins_s := self._drawn_s("begins", epoch)):
            return at_s
        return (epoch * EPOCH_S + begins_s - self.unix0_s - self.clock_offset_s) / self.clock_rate

    def _drawn_s(self, what: str, epoch: int) -> float:
        return SILENT_S * chance.one(self._seed, self.number, what, epoch, self._batteries)

    def _drawn_counters(self) -> tuple[int, int]:
        """Return the press counter and the beacon count that a tag draws when it has lost them."""
        press, count = chance.uniform(self._seed, self.number, "counters", self._batteries, np.arange(2))
        return int(256 * press), int(65536 * count)


def _key(seed: int, number: int, what: str) -> bytes:
    return b"".join(int(chance.words(seed, number, what, half)[0]).to_bytes(8, "big") for half in (0, 1))
