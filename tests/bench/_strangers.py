"""What strangers with sniffers hear of many tags: every packet of every id, without a loss, to the microsecond.

The rhythm is that of sim/street/tag.py, written again for all tags at once so that a hundred streets take a minute
(tests/bench/test_privacy.py compares the two). `OLD` is the format and the rhythm before ADR 14, frozen here: an
attacker who cannot follow those tags is too weak to say anything about the new ones.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from readers.advertisement import EPOCH_S, TagKeys, _cmac, build, rotating_id
from readers.wire import FLAG_MOVING
from sim.street.tag import (
    BEACON_S,
    CLOCK_SIGMA_PPM,
    CLOCK_SIGMA_S,
    JITTER_S,
    MOVING_FOR_S,
    POWER_DBM,
    POWER_SIGMA_DB,
    SILENT_S,
    Tag,
)

EPOCH_0 = 1_984_000
TAGS = 200
SNIFFERS_M = ((0.0, 0.0), (60.0, 30.0), (120.0, 0.0))
YARD_M = (120.0, 60.0)
HEARD_OF = 60
"""Packets of each id of a tag of the simulator before the part that is left out."""
FADING_DB, LEVEL_OF = 5.0, 10
"""Standard deviation of one packet's level, and how many of the last and of the first packets are averaged."""
REST_S, MOVE_S = 60.0, 20.0
"""Mean rest and mean movement of a child; HABIT spreads both between children (sigma of the logarithm)."""


@dataclass(frozen=True)
class Rhythm:
    """How tags send, and in which format."""

    silent_s: float = SILENT_S
    jitter_s: float = JITTER_S
    step_s: float = 0.0
    """The jitter is a multiple of this; 0: any."""
    clock_s: float = CLOCK_SIGMA_S
    clock_ppm: float = CLOCK_SIGMA_PPM
    sealed: bool = True
    moving_for_s: float = MOVING_FOR_S
    habit: float = 0.5


NEW = Rhythm()
OLD = Rhythm(silent_s=0.0, sealed=False, moving_for_s=5.0)


@dataclass
class Ids:
    """What was heard of the ids of one epoch: a row for each tag, in the same order in every epoch."""

    epoch: int
    first_s: Any
    last_s: Any
    """Relative to the first epoch's begin, true time."""
    packets: Any
    interval_s: Any
    """The mean interval; with a grid in the jitter: how long one second of the tag's crystal took."""
    first: Any
    last: Any
    """Bytes of the first and of the last packet: body, then address."""
    moving: Any
    """Moving in the first packet, moving in the last; share of the time; changes an hour."""
    first_dbm: Any
    last_dbm: Any
    """Mean level of LEVEL_OF packets at each sniffer."""


def old_build(keys: TagKeys, epoch: int, flags: int, press: int, counter: int, power_dbm: int, battery: int) -> bytes:
    """The advertisement of version 1: everything but the id in clear."""
    signed = struct.pack(">B8sBBHbB", 0x10, rotating_id(keys.k_id, epoch), flags, press, counter, power_dbm, battery)
    return signed + _cmac(keys.k_mic, struct.pack(">I", epoch) + signed)[:4]


class Street:
    """Tags and where their children are. `hear` gives one epoch after another; epochs between are lived through.

    only_times: neither bytes nor movements, which take most of the time.
    """

    def __init__(self, seed: int, rhythm: Rhythm, tags: int = TAGS, *, only_times: bool = False) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.rhythm, self.tags = rhythm, tags
        self.keys = [TagKeys(rng.bytes(16), rng.bytes(16)) for _ in range(tags)]
        self.offset_s = rng.normal(0, rhythm.clock_s, tags)
        self.rate = 1 + 1e-6 * rng.normal(0, rhythm.clock_ppm, tags)
        self.press = rng.integers(0, 200, tags)
        self.count = rng.integers(0, 60000, tags)
        self.battery_mv = 2700 + rng.integers(0, 400, tags)
        self.power_db = rng.normal(0, POWER_SIGMA_DB, tags)
        self.at_m = rng.uniform(0, 1, (tags, 2)) * YARD_M
        self.rest_s = REST_S * np.exp(rng.normal(0, rhythm.habit, tags))
        self.move_s = MOVE_S * np.exp(rng.normal(0, rhythm.habit, tags))
        self.moves = rng.uniform(0, 1, tags) < self.move_s / (self.move_s + self.rest_s)
        self.next_s = rng.uniform(0, BEACON_S, tags)
        self.lived_s = 0.0
        self._only_times = only_times

    def hear(self, epoch: int) -> Ids:
        """Return what was heard of all ids of this epoch, counted from the first. Only forwards."""
        rng, rhythm, n = self.rng, self.rhythm, self.tags
        begin_s = (epoch * EPOCH_S - self.offset_s) / self.rate
        end_s = ((epoch + 1) * EPOCH_S - self.offset_s) / self.rate
        mean_s = (BEACON_S + rhythm.jitter_s / 2) / self.rate
        skipped = np.maximum(np.floor((begin_s - self.next_s) / mean_s) - 2, 0)
        self.count = (self.count + skipped.astype(int)) & 0xFFFF
        self.next_s = self.next_s + skipped * mean_s + rng.normal(0, 1, n) * rhythm.jitter_s * np.sqrt(skipped / 12)
        while (late := self.next_s < begin_s).any():
            self.next_s = np.where(late, self.next_s + self._intervals_s(1)[:, 0], self.next_s)
            self.count = self.count + late & 0xFFFF
        if rhythm.silent_s:
            self.next_s = begin_s + rng.uniform(0, rhythm.silent_s, n) / self.rate
            end_s = end_s - rng.uniform(0, rhythm.silent_s, n) / self.rate
        gaps_s = self._intervals_s(int(EPOCH_S / BEACON_S) + 20)
        times_s = self.next_s[:, None] + np.cumsum(np.hstack([np.zeros((n, 1)), gaps_s]), axis=1)
        packets = (times_s < end_s[:, None]).sum(axis=1)
        rows = np.arange(n)
        first_s, last_s = times_s[:, 0], times_s[rows, packets - 1]
        self.next_s = times_s[rows, packets]
        interval_s = (last_s - first_s) / (packets - 1)
        if rhythm.step_s:
            steps = np.round((gaps_s - BEACON_S) / rhythm.step_s) * rhythm.step_s + BEACON_S
            sent = np.arange(gaps_s.shape[1])[None, :] < packets[:, None] - 1
            stamps = rng.normal(0, 1e-6, n)
            interval_s = (last_s - first_s + stamps) / (steps * sent).sum(axis=1)
        if self._only_times:
            return Ids(epoch, first_s, last_s, packets, interval_s, *np.zeros((5, n, 25), np.int64))
        first_dbm, began, moving, changes, last_dbm, ended = self._walk(first_s, last_s)
        first = self._bytes(epoch, began, self.count + 1)
        self.count = self.count + packets & 0xFFFF
        address = first[:, 19:]
        last = np.hstack([self._bytes(epoch, ended, self.count)[:, :19], address])
        return Ids(
            epoch, first_s, last_s, packets, interval_s, first, last, np.column_stack([began, ended, moving, changes]),
            first_dbm, last_dbm,
        )  # fmt: skip

    def _intervals_s(self, count: int) -> Any:
        jitter_s = self.rng.uniform(0, self.rhythm.jitter_s, (self.tags, count))
        if self.rhythm.step_s:
            jitter_s = np.floor(jitter_s / self.rhythm.step_s) * self.rhythm.step_s
        return (BEACON_S + jitter_s) / self.rate[:, None]

    def _bytes(self, epoch: int, moving: Any, count: Any) -> Any:
        rows = []
        for n, keys in enumerate(self.keys):
            flags, press, battery = FLAG_MOVING * int(moving[n]), int(self.press[n]), int(self.battery_mv[n])
            if self.rhythm.sealed:
                body = build(
                    keys, EPOCH_0 + epoch, flags=flags, press=press, count=int(count[n]), power_dbm=POWER_DBM,
                    battery_mv=battery,
                )  # fmt: skip
            else:
                body = old_build(keys, EPOCH_0 + epoch, flags, press, int(count[n]) & 0xFFFF, POWER_DBM, battery // 20)
            rows.append(list(body + self.rng.bytes(6)))
        return np.array(rows, np.int64)

    def _walk(self, first_s: Any, last_s: Any) -> tuple[Any, ...]:
        """Let the children rest and move until the last packet, second by second; the flag outlives a movement."""
        n = self.tags
        if (gone_s := float(first_s.min()) - self.lived_s) > 4 * EPOCH_S / 2:
            self.at_m = self.rng.uniform(0, 1, (n, 2)) * YARD_M  # after hours a child is anywhere
            gone_s = 300.0
        self.lived_s = float(first_s.min()) - max(min(gone_s, 300.0), 0.0)
        flag_for = np.zeros(n)
        began = ended = np.zeros(n)
        before, share, changes = np.zeros(n, bool), np.zeros(n), np.zeros(n)
        first_m, last_m = self.at_m, self.at_m
        heading = self.rng.uniform(-np.pi, np.pi, n)
        while self.lived_s < last_s.max():
            turn = self.rng.uniform(0, 1, n) < 1 / np.where(self.moves, self.move_s, self.rest_s)
            heading = np.where(turn, self.rng.uniform(-np.pi, np.pi, n), heading)
            self.moves = self.moves ^ turn
            step_m = 1.2 * self.moves[:, None] * np.column_stack([np.cos(heading), np.sin(heading)])
            self.at_m = np.clip(self.at_m + step_m, 0, YARD_M)
            flag_for = np.where(self.moves, self.rhythm.moving_for_s, flag_for - 1)
            flag = flag_for > 0
            heard = (self.lived_s >= first_s - 1) & (self.lived_s <= last_s)
            starts = (self.lived_s >= first_s - 1) & (self.lived_s < first_s)
            began = np.where(starts, flag, began)
            first_m = np.where(starts[:, None], self.at_m, first_m)
            ended, last_m = np.where(heard, flag, ended), np.where(heard[:, None], self.at_m, last_m)
            share, changes = share + (heard & flag), changes + (heard & (flag != before))
            before = flag
            self.lived_s += 1.0
        long_s = np.maximum(last_s - first_s, 1.0)
        return self._level(first_m), began, share / long_s, 3600 * changes / long_s, self._level(last_m), ended

    def _level(self, at_m: Any) -> Any:
        away_m = np.hypot(*(at_m[:, None, :] - np.array(SNIFFERS_M)).transpose(2, 0, 1)) + 1.0
        noise = self.rng.normal(0, FADING_DB / np.sqrt(LEVEL_OF), away_m.shape)
        return POWER_DBM + self.power_db[:, None] - 25 * np.log10(away_m) + noise


def of_simulated_tags(seed: int, epochs: int, tags: int = TAGS) -> list[Ids]:
    """Return what is heard of tags of sim/street/tag.py itself, epochs 0 .. epochs - 1, without their middle part.

    The tags rest, and say so.
    """
    street = Street(seed, NEW, tags, only_times=True)
    ids = [street.hear(epoch) for epoch in range(epochs)]
    for n in range(tags):
        tag = Tag(seed, n + 1, f"tag-{n + 1}", float(EPOCH_0 * EPOCH_S))
        for each in ids:
            sent = [tag.advertise(False)]
            while True:
                if len(sent) == HEARD_OF:
                    skipped = int(EPOCH_S - 3 * SILENT_S) - HEARD_OF
                    tag.next_s, tag.count = tag.next_s + skipped, tag.count + skipped & 0xFFFF
                coming = tag.clock_s(tag.next_s) // EPOCH_S - EPOCH_0
                if coming > each.epoch:
                    break
                sent.append(tag.advertise(False))
            each.first_s[n], each.last_s[n] = sent[0].sent_s, sent[-1].sent_s
            each.packets[n] = len(sent)
            each.interval_s[n] = (sent[HEARD_OF - 1].sent_s - sent[0].sent_s) / (HEARD_OF - 1)
            each.first[n], each.last[n] = (list(a.payload[7:] + a.address) for a in (sent[0], sent[-1]))
    return ids
