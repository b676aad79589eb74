"""From children at a gate to a gateway's words: scenes, the air, rows as readers report them, the real gateway code.

All scenes of a batch happen in the same zone at the same time, each from its second 0: a batch is a crowd. Readers
listen for their share of the time, lose packets, gather what they hear of a tag over their window into one row (mean
level in whole dBm, packets, time of the newest) and report it at the window's end. The mesh's delay is not in it.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.presence.changes import Arrived, Left
from gateway.presence.settle import Settler
from gateway.survey import onto_zone
from gateway.zone import Plane, Reader, Zone
from readers.advertisement import EPOCH_S
from sim import chance
from sim.air.radio import RSSI_MAX_DBM, RSSI_MIN_DBM, Air, Channel, ReaderEar
from sim.chance import Floats
from sim.demo import technician
from sim.plan.scenes import GateScene, sampled
from sim.street.gates import Entrance, guards
from sim.street.site import Pole, Site
from sim.street.tag import BEACON_S, JITTER_S, POWER_DBM, POWER_SIGMA_DB
from sim.street.tag import SILENT_S as SILENT_TAG_S

SILENT_S = 150.0
"""A gateway knows so long after its last frame that a reader is dead (`reader_health.SILENT_S`)."""
BODY_EVERY_S = 2.0
"""In a crowd, the bodies between a tag and a reader are others after this."""
EARLY_S = 3.0
"""A word this much before the line is right: a child in the gate is on both sides."""
EVENTS_MAX = 400_000
"""Transmissions computed at once."""

GATE_HEIGHT_M = 3.0
"""Height of a gate reader on its post."""


@dataclass(frozen=True)
class Conditions:
    """What differs from a good day. Levels in dB, shares 0..1."""

    channel: Channel = field(default_factory=Channel)
    gate_duty: float | None = None
    """Share of the time that gate readers listen; None: as the zone says."""
    loss: float = 0.0
    """Share of packets lost besides."""
    bodies_db: float = 0.0
    """A crowd's bodies take 0 to this much from each path, drawn anew every BODY_EVERY_S."""
    shed: float = 0.0
    """Share of a reader's rows that find no place in its frames, in each window."""
    loud_first: bool = True
    """Whether the quiet rows are shed; otherwise any."""
    deaf_db: Mapping[int, float] = field(default_factory=dict)
    dead_s: Mapping[int, float] = field(default_factory=dict)
    """Reader -> second from which it hears nothing."""
    moving_beacon_s: float = BEACON_S
    """A tag's interval while it moves: BEACON_S, or half of it."""
    silences: bool = False
    """Whether tags are silent round the change of their id (`sim.street.tag`), each at a time of its own."""


class Rows(NamedTuple):
    """What readers report, in the order of time. tag is the number of a scene."""

    at_s: Floats
    tag: NDArray[np.int64]
    reader: NDArray[np.int64]
    rssi_dbm: NDArray[np.int64]
    packets: NDArray[np.int64]
    heard_at_s: Floats


class GateWord(NamedTuple):
    """A word of the gateway about a scene's child: it arrived, or else it left."""

    tag: int
    at_s: float
    arrived: bool


def gate_poles(gate: Entrance, first: int, posts: Sequence[int] = (0, 1)) -> list[Pole]:
    """Return the readers of the default layout at a gate, numbered from `first`. posts: 0 left, 1 right."""
    kept = [each for n, each in enumerate(guards(gate)) if n // 2 in posts]
    return [
        Pole(first + n, f"{gate.id} {each.side}", each.at, GATE_HEIGHT_M, "patch", each.look_deg, gate.id, each.side)
        for n, each in enumerate(kept)
    ]


def air_of(site: Site, zone: Zone, seed: int, conditions: Conditions) -> Air:
    """Return the air from children to a zone's readers, in the order of zone.readers."""
    ears = [
        ReaderEar(r.number, site.plane.to_xy_m(r.lon, r.lat), r.height_m, r.antenna, r.look_deg or 0.0,
                  conditions.deaf_db.get(r.number, 0.0))
        for r in zone.readers
    ]  # fmt: skip
    return Air(seed, ears, conditions.channel, walled=site.school)


def duty_of(zone: Zone, reader: Reader) -> float:
    """Return the share of the time in which a reader scans, by its own settings or the zone's."""
    window_ms = zone.settings.scan_window_ms if reader.scan_window_ms is None else reader.scan_window_ms
    interval_ms = zone.settings.scan_interval_ms if reader.scan_interval_ms is None else reader.scan_interval_ms
    return min(window_ms / interval_ms, 1.0)


def reported(
    scenes: Sequence[GateScene],
    zone: Zone,
    air: Air,
    seed: int,
    conditions: Conditions | None = None,
    *,
    only: Callable[[Reader], bool] = lambda _: True,
    numbers: Sequence[int] | None = None,
) -> Rows:
    """Return the rows that a zone's readers report of these scenes. air: as `air_of` makes it; only: which readers.

    numbers: of each scene's tag, from which its power and its packets' luck are drawn; None: 0, 1, 2 ..
    """
    wanted = conditions or Conditions()
    tags = np.array(range(len(scenes)) if numbers is None else numbers, np.int64)
    heard = [
        each
        for at in range(0, len(scenes), 50)
        for each in _heard(scenes[at : at + 50], at, tags[at : at + 50], zone, air, seed, wanted, only)
    ]
    tag, k, t, rssi = (np.concatenate(parts) for parts in zip(*heard, strict=True))
    return _gathered(zone, seed, wanted, tag, k, t, rssi)


def _heard(
    scenes: Sequence[GateScene],
    first: int,
    numbers: NDArray[np.int64],
    zone: Zone,
    air: Air,
    seed: int,
    wanted: Conditions,
    only: Callable[[Reader], bool],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Floats, NDArray[np.int64]]]:
    """Yield (tag, index of the reader, time, dBm) of the packets that were heard, in pieces."""
    step_s = min(wanted.moving_beacon_s, BEACON_S)
    per_beacon = round(BEACON_S / step_s)
    phase_s = chance.uniform(seed, "gate phase", numbers)
    power_db = POWER_SIGMA_DB * chance.normal(seed, "gate power", numbers)
    use = np.array([only(reader) for reader in zone.readers])
    duty = np.array([
        wanted.gate_duty if wanted.gate_duty is not None and r.gate is not None else duty_of(zone, r)
        for r in zone.readers
    ]) * use * (1.0 - wanted.loss)  # fmt: skip
    dead_s = np.array([wanted.dead_s.get(r.number, math.inf) for r in zone.readers])
    columns = np.arange(len(zone.readers), dtype=np.int64)
    interval_s = step_s * (1.0 + JITTER_S / 2 / BEACON_S)
    events = int(max(one.end_s for one in scenes) / interval_s) + 1
    ends_s = np.array([one.end_s for one in scenes])
    piece = max(EVENTS_MAX // len(scenes), 1)
    for begin in range(0, events, piece):
        event = np.arange(begin, min(begin + piece, events), dtype=np.int64)
        t = phase_s[:, None] + event * interval_s
        xy, heading, moving = sampled(scenes, t)
        sent = (t < ends_s[:, None]) & (moving | (event % per_beacon == 0))
        if wanted.silences:
            sent &= ~_silent(t, numbers, seed)
        who, n = np.nonzero(sent)
        if not len(who):
            continue
        mean = air.means_dbm(xy[who, n], heading[who, n], power_db[who])
        tag, number = numbers[who][:, None], event[n][:, None]
        at_s = t[who, n][:, None]
        if wanted.bodies_db:
            part = np.floor(at_s / BODY_EVERY_S).astype(np.int64)
            mean -= wanted.bodies_db * chance.uniform(seed, "bodies", tag, part, columns)
        dbm, read = air.listen(tag + 1, number, mean)
        read &= (chance.uniform(seed, "gate scan", tag, number, columns) < duty) & (at_s < dead_s)
        row, k = np.nonzero(read)
        rssi = np.clip(np.round(dbm[row, k]), RSSI_MIN_DBM, RSSI_MAX_DBM).astype(np.int64)
        yield first + who[row], k.astype(np.int64), at_s[row, 0], rssi


def _silent(t_s: Floats, numbers: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Return whether each tag is silent at its times [tags, n], because its id changes."""
    since_s = t_s + EPOCH_S * chance.uniform(seed, "gate epoch", numbers)[:, None]
    epoch = np.floor(since_s / EPOCH_S).astype(np.int64)
    since_s = since_s - EPOCH_S * epoch
    begins_s = SILENT_TAG_S * chance.uniform(seed, "begins", numbers[:, None], epoch)
    ends_s = EPOCH_S - SILENT_TAG_S * chance.uniform(seed, "falls silent", numbers[:, None], epoch)
    result: NDArray[np.bool_] = (since_s < begins_s) | (since_s >= ends_s)
    return result


def _gathered(
    zone: Zone,
    seed: int,
    wanted: Conditions,
    tag: NDArray[np.int64],
    k: NDArray[np.int64],
    t: Floats,
    rssi: NDArray[np.int64],
) -> Rows:
    """Return packets as rows: one for each reader, window and tag."""
    window_s = zone.settings.window_ms / 1000.0
    begins = window_s * chance.uniform(seed, "gate window", np.arange(len(zone.readers), dtype=np.int64))
    window = np.floor((t - begins[k]) / window_s).astype(np.int64)
    order = np.lexsort((t, tag, window, k))
    tag, k, t, rssi, window = tag[order], k[order], t[order], rssi[order], window[order]
    new = (
        np.r_[True, (np.diff(tag) != 0) | (np.diff(window) != 0) | (np.diff(k) != 0)] if len(tag) else np.zeros(0, bool)
    )
    at = np.flatnonzero(new)
    packets = np.diff(np.r_[at, len(tag)])
    level = np.round(np.add.reduceat(rssi, at) / packets).astype(np.int64) if len(at) else rssi
    last = at + packets - 1
    tag, k, window, heard_s = tag[at], k[at], window[at], t[last]
    at_s = begins[k] + (window + 1) * window_s
    if wanted.shed:
        rank = chance.uniform(seed, "shed", tag, window, k)
        order = np.lexsort((-level if wanted.loud_first else rank, window, k))
        group = np.r_[True, (np.diff(window[order]) != 0) | (np.diff(k[order]) != 0)]
        begin = np.maximum.accumulate(np.where(group, np.arange(len(order)), 0))
        size = np.bincount(np.cumsum(group) - 1)[np.cumsum(group) - 1]
        kept = order[np.arange(len(order)) - begin < np.ceil((1.0 - wanted.shed) * size)]
        tag, k, at_s, level, packets, heard_s = (x[kept] for x in (tag, k, at_s, level, packets, heard_s))
    order = np.lexsort((k, tag, at_s))
    numbers = np.array([reader.number for reader in zone.readers], np.int64)
    return Rows(at_s[order], tag[order], numbers[k[order]], level[order], packets[order], heard_s[order])


def walked(site: Site, poles: Sequence[Pole], zone: Zone, air: Air, seed: int) -> ZoneLocator:
    """Return the gateway's engine for `zone_of(site, poles)`, after a technician's walk test in this air."""
    with tempfile.TemporaryDirectory() as folder:
        made = technician.walk(site, poles, air, seed)
        found, survey, _ = onto_zone.walk_test_of_zone(technician.write(Path(folder), made), zone)
    return ZoneLocator(Ground(zone), Counter(), survey=(found, survey))


class Decider:
    """What hears readings and fixes and speaks words: `Settler` as the gateway runs it, for one zone."""

    def __init__(self, zone: Zone, plane: Plane, scenes: Sequence[GateScene], place: str) -> None:
        self.place = place
        self.settler = Settler(zone, plane, {})
        for tag, one in enumerate(scenes):
            if one.began_inside:
                self.settler.restore(tag, "at", place, 0.0)

    def hear(self, tag: int, reading: Reading, now_s: float) -> None:
        self.settler.hear(tag, reading, now_s)

    def step(self, tag: int, fix: Fix, now_s: float) -> Iterator[GateWord]:
        for change in self.settler.step(tag, fix, None, now_s):
            if isinstance(change, Arrived | Left):
                yield GateWord(tag, now_s, isinstance(change, Arrived))

    def silence(self, now_s: float, is_silent: Callable[[int], bool]) -> None:
        for _ in self.settler.silence(now_s, is_silent):
            pass


def run(
    rows: Rows,
    deciders: Sequence[Decider],
    locator: ZoneLocator | None,
    dead_s: Mapping[int, float] | None = None,
    *,
    inside: float = 0.5,
) -> list[list[GateWord]]:
    """Let a gateway take rows and return the words of each decider. All deciders see the same readings and fixes.

    locator None: only the gate readers decide. Each tag that they hear gets a fix each second that says `inside`: the
    probability of being in the place. 0.5 says nothing.
    """
    said: list[list[GateWord]] = [[] for _ in deciders]
    if locator is not None:
        for decider in deciders:
            decider.settler.set_walked(locator.walked_db())  # as `pipeline.learn` does
    if not len(rows.at_s):
        return said
    dead = dict(dead_s or {})
    unknown = {decider.place: inside for decider in deciders}
    columns = [column.tolist() for column in rows]
    row, count = 0, len(columns[0])
    heard_s: dict[int, float] = {}
    for second in range(1, int(columns[0][-1]) + 8):
        now_s = float(second)
        while row < count and columns[0][row] <= now_s:
            at_s, tag, reader, rssi, packets, newest_s = (column[row] for column in columns)
            reading = Reading(reader, rssi, packets, newest_s, POWER_DBM)
            if locator is None:
                heard_s[tag] = newest_s
            else:
                locator.hear(tag, reading, now_s)
            for decider in deciders:
                decider.hear(tag, reading, at_s)
            row += 1
        is_silent = {n for n, since_s in dead.items() if now_s - since_s > SILENT_S}.__contains__
        for decider in deciders:
            decider.silence(now_s, is_silent)
        for tag, fix in _fixes(locator, heard_s, unknown, now_s, is_silent):
            for words, decider in zip(said, deciders, strict=True):
                words.extend(decider.step(tag, fix, now_s))
    return said


def _fixes(
    locator: ZoneLocator | None,
    heard_s: dict[int, float],
    unknown: Mapping[str, float],
    now_s: float,
    is_silent: Callable[[int], bool],
) -> Iterator[tuple[int, Fix]]:
    if locator is None:
        for tag in [tag for tag, at_s in heard_s.items() if now_s - at_s > 6.0]:
            del heard_s[tag]
        for tag in heard_s:
            yield tag, Fix(0.0, 0.0, 100.0, 250.0, (), now_s, places=unknown)
        return
    while locator.deadline_s() <= now_s:
        for tag, fix, _ in locator.step(now_s, is_silent):
            yield tag, fix


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What words were worth: seconds from each crossing to its word (inf: none), and the false words."""

    arrivals_s: tuple[float, ...]
    departures_s: tuple[float, ...]
    false: tuple[GateWord, ...]


def judged(scenes: Sequence[GateScene], words: Sequence[GateWord]) -> GateVerdict:
    """Hold words against the truth. A crossing is told by the first word of its direction from EARLY_S before it until
    the next crossing of that direction; every other word is false."""
    by_tag: dict[int, list[GateWord]] = {}
    for word in words:
        by_tag.setdefault(word.tag, []).append(word)
    late: dict[bool, list[float]] = {True: [], False: []}
    false: list[GateWord] = []
    for tag, one in enumerate(scenes):
        left = by_tag.get(tag, [])
        for n, (at_s, inwards) in enumerate(one.crossings):
            until_s = next((t for t, way in one.crossings[n + 1 :] if way == inwards), math.inf)
            told = next((w for w in left if w.arrived == inwards and at_s - EARLY_S <= w.at_s < until_s), None)
            late[inwards].append(math.inf if told is None else max(told.at_s - at_s, 0.0))
            if told is not None:
                left.remove(told)
        false += left
    return GateVerdict(tuple(late[True]), tuple(late[False]), tuple(false))
