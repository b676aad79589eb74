"""A crowd at a gate, and what the gateway gets of each child that passes: four gate readers with their own firmware.

Children come up the street one after the other, pass the gate and stay in the yard, where the gate's readers go on
hearing them; in `gathered` as many stand before the gate the whole time. Each has a tag that beacons once a second, a
body that takes 0 to 12 dB anew every 2 s, and 40 % of all packets are lost in the crowd besides. Told is a packet of
which a row reaches the gateway within TOLD_S; `near` is what was heard of a child within NEAR_M of the gate while it
passes, `loud` of that what came with LOUD_DBM or more. `arrivals` judges by the simplest rule there is, the summed
difference of both sides (`_words`): not by the product's, so that it stays the same when that one changes. `all_rows`
is the same rule with a row for everything that a scanner took, at the end of each window. The firmware is the very
source of a reader in CPython (tests/firmware/hosted.py), the mesh loses nothing.
"""

import bisect
import hashlib
import hmac
import math
import os
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gateway.core.reader_settings import GATE_FRAMES_PER_MIN, GATE_SCAN_MS
from readers import advertisement, wire
from sim.air.radio import Channel
from sim.street.tag import POWER_DBM, POWER_SIGMA_DB
from tests.firmware.hosted import Hosted

Floats = NDArray[np.float64]

SEEDS = (11, 12, 13)
"""The level from which a tag is loud was chosen on seeds 1 to 3."""
CASES = {"200": (200, 300.0, 0), "400": (400, 300.0, 0), "gathered": (100, 240.0, 200)}
"""Name -> (children that pass, in how many seconds, tags that stand before the gate the whole time)."""
READERS = {1: (-2.0, -2.0, -1), 2: (-2.0, 3.2, 1), 3: (2.0, -2.0, -1), 4: (2.0, 3.2, 1)}
"""Number -> (metres along the wall, metres inside its line, 1: the antenna looks in, -1: out)."""
FRAMES = {"60": 60, "own": GATE_FRAMES_PER_MIN, "600": 600}
"""Frames a minute of each: the zone's, a gate reader's, and as many as the settings allow."""
WARM_S, AFTER_S = 20.0, 60.0
NEAR_M = 10.0
LOUD_DBM = -80
TOLD_S = 4.0
WORD_WITHIN_S = 20.0
SILENT_DBM = -94.0
"""The level of a side that heard nothing, for `_words`: about what its radio can just read."""
CROWD_DB, CROWD_LOSS = 12.0, 0.4
FRONT_DB, FRONT_BACK_DB = 3.0, 14.0
"""A patch antenna relative to a dipole, and how much less it hears behind itself. Assumed."""
TAG_HEIGHT_M, READER_HEIGHT_M = 0.8, 3.5
EPOCH = 1000
KEY = bytes(range(100, 116))


@dataclass
class Outcome:
    """What one or more runs gave."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        c = self.counts
        return {
            "loud_told_pct": _pct(c["loud_told"], c["loud_heard"]),
            "near_told_pct": _pct(c["near_told"], c["near_heard"]),
            "all_told_pct": _pct(c["told"], c["heard"]),
            "arrivals_20_s_pct": _pct(c["words"], c["children"]),
            "all_rows_20_s_pct": _pct(c["words_heard"], c["children"]),
            "frames_a_s": round(c["frames"] / self.seconds, 2),
            "busiest_s_frames": c["busiest"],
            "bindings_frames_a_s": round(c["bindings"] / self.seconds, 2),
            "evictions_a_reader_min": round(c["evictions"] / self.seconds * 60 / len(READERS), 1),
            "rounds_cut_pct": _pct(c["discards"], c["rounds"]),
            "queue_drops_pct": _pct(c["drops"], c["drops"] + c["heard"]),
        }


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"seeds": str(SEEDS)}
    rows: list[tuple[str, dict[str, float]]] = []
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        runs = {
            f"{case}_{name}": [pool.submit(measure, seed, case, frames) for seed in SEEDS]
            for case in CASES
            for name, frames in FRAMES.items()
        }
        for name, each in runs.items():
            total = Outcome()
            for one in each:
                total = joined(total, one.result())
            rows.append((name, total.figures()))
            print(f"  {name:14} {rows[-1][1]}", flush=True)
            found |= {f"case_{name}_{figure}": value for figure, value in rows[-1][1].items()}
    names = list(rows[0][1])
    lines = ["| case, frames a minute | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(figures[each]) for each in names) + " |" for name, figures in rows]
    found["_markdown"] = "\n".join(lines)
    return found


def joined(one: Outcome, other: Outcome) -> Outcome:
    busiest = max(one.counts["busiest"], other.counts["busiest"])
    counts = one.counts + other.counts
    counts["busiest"] = busiest
    return Outcome(counts, one.seconds + other.seconds)


# ---- children, and what the readers could hear of them ----


@dataclass
class Child:
    """Where a child is at every second, and when it passes the gate's line; inf: it stands before the gate."""

    at: Floats
    """(seconds, 2): metres along the wall, metres inside its line."""
    heading: Floats
    passes_s: float


def children(rng: np.random.Generator, passing: int, within_s: float, standing: int, until_s: int) -> list[Child]:
    t = np.arange(until_s, dtype=float)
    made = []
    for k in range(passing + standing):
        turned = rng.uniform(-math.pi, math.pi, until_s)[(t // 20).astype(int)]  # who stands turns every 20 s
        if k >= passing:
            spot = np.array([rng.uniform(-8, 8), rng.uniform(-15, -2)])
            made.append(Child(np.repeat(spot[None], until_s, 0), turned, math.inf))
            continue
        speed, angle, deep = rng.normal(1.22, 0.17), rng.uniform(-0.9, 0.9), rng.uniform(15, 42)
        way = np.array([
            [rng.uniform(-3, 3), -80.0],
            [rng.uniform(-1.2, 1.2), 0.0],
            [deep * math.sin(angle), deep * math.cos(angle)],
        ])  # fmt: skip
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(way, axis=0).T))])
        begins_s = WARM_S + within_s * rng.random()
        gone = np.clip((t - begins_s) * max(speed, 0.7), 0.0, along[-1])
        at = np.stack([np.interp(gone, along, way[:, 0]), np.interp(gone, along, way[:, 1])], 1)
        step = np.gradient(at, axis=0)
        heading = np.where(np.hypot(*step.T) > 0.1, np.arctan2(step[:, 1], step[:, 0]), turned)
        made.append(Child(at, heading, begins_s + along[1] / max(speed, 0.7)))
    return made


def packets(rng: np.random.Generator, who: list[Child]) -> Iterator[tuple[float, int, Floats, NDArray[np.bool_]]]:
    """Yield (s, child, dBm at each reader, whether its radio can read it) of every beacon, in order of time."""
    c, n = Channel(), len(who[0].at)
    ears = np.array([spot[:2] for spot in READERS.values()])
    look = np.array([spot[2] for spot in READERS.values()], float)
    offset = c.reader_gain_db + c.reader_sigma_db * rng.standard_normal(len(ears))
    shadows = c.shadow_sigma_db * rng.standard_normal((3, 24, 24, len(ears)))  # lattice; two parts own, one common
    shadows[0] = shadows[0, :, :, :1]
    rows: list[tuple[float, int, Floats, NDArray[np.bool_]]] = []
    for k, child in enumerate(who):
        d = ears - child.at[:, None]
        flat = np.maximum(np.hypot(d[..., 0], d[..., 1]), 0.5)
        distance = np.maximum(1.0, np.sqrt(flat**2 + (READER_HEIGHT_M - TAG_HEIGHT_M) ** 2))
        facing = np.cos(np.arctan2(d[..., 1], d[..., 0]) - child.heading[:, None])
        body = c.body_min_db + (c.body_max_db - c.body_min_db) * (1 + facing) / 2
        ahead = -d[..., 1] * look / flat
        antenna = FRONT_DB - FRONT_BACK_DB * (1 - ahead) / 2
        depth = child.at[:, 1:2]
        sides = np.where(np.abs(depth) < c.gate_m, 0.0, np.sign(depth))
        wall = c.wall_db * (sides * np.where(np.abs(ears[:, 1]) < c.gate_m, 0.0, np.sign(ears[:, 1])) < 0)
        level = POWER_DBM + POWER_SIGMA_DB * rng.standard_normal() - 10 * c.exponent * np.log10(distance)
        level = level - body - wall + antenna + offset + _shadow(shadows, child.at, c.shadow_cell_m)
        level = level - np.repeat(rng.uniform(0, CROWD_DB, (n // 2 + 1, len(ears))), 2, 0)[:n]
        sigma = math.sqrt(0.5 / (10 ** (c.rice_k_db / 10) + 1))
        mean = math.sqrt(1 - 2 * sigma**2)
        fade = (mean + sigma * rng.standard_normal(level.shape)) ** 2 + (sigma * rng.standard_normal(level.shape)) ** 2
        level = level + 10 * np.log10(fade)
        margin = np.clip((level - c.sensitivity_dbm) / c.edge_db + 4.6, -500, 500)
        chance = (1 - c.plateau_loss) * (1 - CROWD_LOSS) / (1 + np.exp(-margin))
        read = rng.random(level.shape) < chance
        at_s = rng.random() + np.cumsum(1.0 + 0.010 * rng.random(n))  # the jitter that Bluetooth asks for
        seen = at_s.astype(int).clip(0, n - 1)
        rows += [(float(at_s[j]), k, level[s], read[s]) for j, s in enumerate(seen) if read[s].any()]
    rows.sort(key=lambda row: row[0])
    yield from rows


def _shadow(lattice: Floats, at: Floats, cell_m: float) -> Floats:
    g = np.clip(at / cell_m + 11.0, 0, 22.9)
    i = g.astype(int)
    f = g - i
    total: Floats = np.zeros((len(at), lattice.shape[-1]))
    power: Floats = np.zeros(len(at))
    both = math.sqrt(0.5) * (lattice[0] + lattice[1])
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (f[:, 0] if dx else 1 - f[:, 0]) * (f[:, 1] if dy else 1 - f[:, 1])
            total += weight[:, None] * both[i[:, 0] + dx, i[:, 1] + dy]
            power += weight**2
    return total / np.sqrt(power)[:, None]


# ---- one reader, and the gateway's half ----


class _Gate:
    """One gate reader, what its scanner took, and what the gateway has of it."""

    def __init__(self, number: int, seed: int, frames_per_min: int, bodies: list[bytearray], marks: list[int]) -> None:
        dice = random.Random(f"{seed}/{number}")
        self.reader = Hosted(
            number=number, key=KEY, seed=dice.randrange(1 << 30), send_ms=lambda: dice.uniform(8, 30), radio=self._frame
        )
        interval_ms, window_ms = GATE_SCAN_MS
        self.reader.scan.settings.values = (0, 2000, interval_ms, window_ms, 60, frames_per_min, 0xFFFF)
        self._bodies, self._marks = bodies, marks
        self._ids = {bytes(body[1:9]): k for k, body in enumerate(bodies)}
        self._slots: dict[int, tuple[int, int]] = {}
        self._waiting: dict[int, deque[tuple[float, int]]] = defaultdict(deque)
        self.heard: list[tuple[float, int, int]] = []
        """(s, child, dBm) of what the scanner took."""
        self.told: dict[tuple[int, float], float] = {}
        """(child, s heard) -> s told."""
        self.rows: list[tuple[float, int, int]] = []
        """(s, child, dBm) as the gateway gets them."""
        self.sent: list[tuple[float, int]] = []
        self.beat: tuple[int, ...] = ()

    def hear(self, at_s: float, child: int, rssi_dbm: int) -> None:
        body = self._bodies[child]
        body[11:13] = int(at_s).to_bytes(2, "big")
        if self.reader.hear(advertisement.payload(bytes(body)), rssi_dbm):
            self.heard.append((at_s, child, rssi_dbm))
            self._waiting[child].append((at_s, rssi_dbm))

    def _frame(self, now_ms: float, frame: bytes) -> None:
        kind, number, boot, sequence = wire.peek(frame)
        body = frame[wire.HEADER_SIZE : -wire.MAC_SIZE]
        self.sent.append((now_ms / 1000, kind))
        acks: list[tuple[int, int, int]] = []
        if kind == wire.HEARTBEAT:
            self.beat = wire.decode_heartbeat(body)
            acks = [(wire.ACK_HEARTBEAT, sequence, 0)]
        elif kind == wire.BINDINGS:
            for slot, rssi_dbm, age_ms, count, said in wire.decode_bindings(body):
                child = self._ids[said[1:9]]
                self._slots[slot] = (child, sequence)
                acks.append((slot, sequence, self._marks[child]))
                self._row(now_ms, child, rssi_dbm, age_ms, count)
        elif kind == wire.SIGHTINGS:
            for slot, rssi_dbm, age_ms, count, _, _ in wire.decode_sightings(body):
                if slot in self._slots and sequence > self._slots[slot][1]:
                    self._row(now_ms, self._slots[slot][0], rssi_dbm, age_ms, count)
        if acks:
            answer = wire.encode(wire.ACK, number, boot, sequence, wire.encode_ack(0, acks), _mac)
            self.reader.at(now_ms + 200, lambda: self.reader.deliver(answer))

    def _row(self, now_ms: float, child: int, rssi_dbm: int | None, age_ms: int, count: int) -> None:
        now_s, waiting = now_ms / 1000, self._waiting[child]
        for at_s, _ in list(waiting)[-count:]:
            self.told[child, at_s] = now_s
        waiting.clear()
        self.rows.append((now_s, child, -127 if rssi_dbm is None else rssi_dbm))


def _mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


def measure(seed: int, case: str, frames_per_min: int) -> Outcome:
    """Run one crowd through the gate."""
    passing, within_s, standing = CASES[case]
    rng = np.random.default_rng([seed, passing, standing])
    until_s = int(WARM_S + within_s + AFTER_S + 60)
    who = children(rng, passing, within_s, standing, until_s)
    keys = [advertisement.TagKeys(rng.bytes(16), rng.bytes(16)) for _ in who]
    bodies = [bytearray(advertisement.build(key, EPOCH, flags=0, press=0, count=0)) for key in keys]
    marks = [advertisement.mark(key, EPOCH, 1) for key in keys]
    gates = {n: _Gate(n, seed, frames_per_min, bodies, marks) for n in READERS}
    for k, gate in enumerate(gates.values()):
        on_air = packets(np.random.default_rng([seed, passing, standing, 1]), who)
        _feed(gate, on_air, k)
        gate.reader.run(1000.0 * until_s)
    return _outcome(gates, who, until_s)


def _feed(gate: _Gate, on_air: Iterator[tuple[float, int, Floats, NDArray[np.bool_]]], k: int) -> None:
    """Let the reader hear each packet at its time, one event after the other."""
    heard = ((s, child, round(float(level[k]))) for s, child, level, read in on_air if read[k] and s > 2.0)

    def one(at_s: float, child: int, rssi_dbm: int) -> None:
        gate.hear(at_s, child, rssi_dbm)
        plan()

    def plan() -> None:
        if (row := next(heard, None)) is not None:
            gate.reader.at(1000 * row[0], partial(one, *row))

    plan()


def _outcome(gates: dict[int, _Gate], who: list[Child], until_s: int) -> Outcome:
    c: Counter[str] = Counter()
    begin_s, end_s = WARM_S, until_s - 10.0
    names = wire.HEARTBEAT_FIELDS
    a_second: Counter[int] = Counter()
    for gate in gates.values():
        for at_s, child, rssi_dbm in gate.heard:
            if not begin_s <= at_s < end_s:
                continue
            told = gate.told.get((child, at_s), math.inf) - at_s <= TOLD_S
            c["heard"] += 1
            c["told"] += told
            walker = who[child]
            if walker.passes_s < math.inf and math.hypot(*walker.at[int(at_s)]) < NEAR_M:
                c["near_heard"] += 1
                c["near_told"] += told
                c["loud_heard"] += rssi_dbm >= LOUD_DBM
                c["loud_told"] += told and rssi_dbm >= LOUD_DBM
        for at_s, kind in gate.sent:
            if begin_s <= at_s < end_s:
                a_second[int(at_s)] += 1
                c["frames"] += 1
                c["bindings"] += kind == wire.BINDINGS
        c["evictions"] += gate.beat[names.index("evictions")]
        c["discards"] += gate.beat[names.index("discards")]
        c["rounds"] += int((end_s - begin_s) / 2)
        c["drops"] += gate.reader.scan_drops
    c["busiest"] = max(a_second.values())
    heard = {n: _windows(gate.heard) for n, gate in gates.items()}
    rows = {n: gate.rows for n, gate in gates.items()}
    for child, walker in enumerate(who):
        if walker.passes_s < end_s - WORD_WITHIN_S:
            c["children"] += 1
            c["words"] += _words(rows, child, walker.passes_s)
            c["words_heard"] += _words(heard, child, walker.passes_s)
    return Outcome(c, end_s - begin_s)


def _windows(heard: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """Return the rows of a reader that reports everything at the end of each window of 2 s."""
    levels: dict[tuple[float, int], list[int]] = defaultdict(list)
    for at_s, child, rssi_dbm in heard:
        levels[2.0 * (at_s // 2 + 1), child].append(rssi_dbm)
    return [(at_s, child, round(sum(each) / len(each))) for (at_s, child), each in sorted(levels.items())]


def _words(rows: dict[int, list[tuple[float, int, int]]], child: int, passes_s: float) -> bool:
    """Return whether the summed difference of inner and outer levels says within WORD_WITHIN_S that a child came in.

    Windows of 2 s; a side's newest level stands for 4 s; a window says at most 3; 4 are a word. Below -90 dBm: nothing.
    """
    sides: dict[int, list[tuple[float, int]]] = {1: [], -1: []}
    for number, each in rows.items():
        first = bisect.bisect_left(each, passes_s - 30, key=lambda row: row[0])
        for at_s, whose, rssi_dbm in each[first:]:
            if at_s > passes_s + WORD_WITHIN_S:
                break
            if whose == child:
                sides[READERS[number][2]].append((at_s, rssi_dbm))
    proof = 0.0
    for k in range(int((30 + WORD_WITHIN_S) / 2)):
        end_s = passes_s - 30 + 2 * (k + 1)
        fresh = {side: [level for at_s, level in told if end_s - 4 < at_s <= end_s] for side, told in sides.items()}
        if not any(end_s - 2 < at_s <= end_s for told in sides.values() for at_s, _ in told):
            continue
        if max(fresh[1] + fresh[-1], default=SILENT_DBM) >= -90:
            inner, outer = (sum(told) / len(told) if told else SILENT_DBM for told in (fresh[1], fresh[-1]))
            difference = inner - outer
            proof = max(0.0, proof + max(-3.0, min(3.0, (difference - 1.0) / 4.0)) - 0.5)
        if proof >= 4.0 and end_s > passes_s:
            return True
    return False


def _pct(part: int, whole: int) -> float:
    return round(100 * part / max(whole, 1), 2)
