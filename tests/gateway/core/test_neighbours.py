"""Beacons of readers in the core: proven, counted once, never taken for tags, and turned from frames into findings."""

import math
from collections import Counter

import numpy as np
import pytest

from gateway.core import frames, neighbours, pipeline
from gateway.core.frames import Frame, ReaderLinks, Report
from gateway.core.neighbours import Burst, Neighbours
from gateway.events import GatewayHealth
from readers import wire
from readers.advertisement import build_beacon
from tests.gateway.core.bed import KEYS, MACS, SPACING_M, Pole, Shell

Row = tuple[int, int, int, int, bytes, int | None, int]


def row(sender: int, counter: int = 1, *, boot: int = 1, rssi_dbm: int | None = -70, key: int | None = None) -> Row:
    beacon = build_beacon(MACS[key or sender], sender, boot, counter)
    return sender, boot, counter, -30, beacon[-4:], rssi_dbm, 5


def near(pole: Pole, *rows: Row) -> Frame:
    return pole.frame(wire.NEIGHBOURS, wire.encode_neighbours(rows))


class Desk:
    """The part of a core that reads NEIGHBOURS reports, without the rest."""

    def __init__(self) -> None:
        self.links, self.counts = ReaderLinks.of(KEYS), Counter[str]()
        self.neighbours = Neighbours(self.links, self.counts)

    def read(self, pole: Pole, *rows: Row) -> list[Burst]:
        report = frames.read(self.links, near(pole, *rows).payload)
        assert isinstance(report, Report)
        return list(self.neighbours.read(report))


def test_a_true_beacon_is_a_burst_once_for_each_that_heard_it() -> None:
    desk, one, two = Desk(), Pole(1), Pole(2)
    assert desk.read(one, row(3)) == [Burst(1, 3, -70, 5, -30)]
    assert desk.read(two, row(3, rssi_dbm=-81)) == [Burst(2, 3, -81, 5, -30)]
    assert desk.read(one, row(3, rssi_dbm=-71)) == []
    assert desk.read(one, row(3, 2), row(2, rssi_dbm=None)) == [Burst(1, 3, -70, 5, -30), Burst(1, 2, None, 5, -30)]
    assert desk.counts == {"beacons_heard": 4, "beacons_repeated": 1}


def test_forged_beacons_are_refused_whatever_is_changed_in_them() -> None:
    desk, one = Desk(), Pole(1)
    sender, boot, counter, power, proof, rssi, packets = row(3, 7)
    forged: list[Row] = [
        (4, boot, counter, power, proof, rssi, packets),
        (sender, boot + 1, counter, power, proof, rssi, packets),
        (sender, boot, counter + 1, power, proof, rssi, packets),
        (sender, boot, counter, power + 20, proof, rssi, packets),
        (sender, boot, counter, power, bytes(4), rssi, packets),
        row(3, 7, key=1),
    ]
    for each in forged:
        assert desk.read(one, each) == []
    assert desk.read(one, row(3, 7, key=3), (99, 1, 1, -30, bytes(4), -70, 5), row(1)) == [Burst(1, 3, -70, 5, -30)]
    assert desk.counts == {"beacons_forged": len(forged), "beacons_heard": 1, "beacons_unknown": 2}


def test_a_frame_of_a_reader_cannot_be_turned_into_its_beacon() -> None:
    """Both are made with one key, but a beacon's MAC covers bytes that begin with b"B", as no frame does."""
    body = wire.encode_sightings([(1, -60, 0, 1, 1, True)])
    frame = wire.encode(wire.SIGHTINGS, 3, 1, 2, body, MACS[3])
    assert frame[0] & 15 == wire.BEACON_VERSION & 15, "they differ in the version alone"
    beacon = build_beacon(MACS[3], 3, 1, 2)
    assert MACS[3](beacon[:15])[:4] != beacon[15:]


def test_old_beacons_are_stale_and_slow_reports_are_not() -> None:
    desk, one, two = Desk(), Pole(1), Pole(2)
    assert desk.read(one, row(3, 100, boot=7))
    assert desk.read(two, row(3, 100 - neighbours.BEHIND, boot=7))
    assert desk.read(two, row(3, 99 - neighbours.BEHIND, boot=7)) == []  # a replay that is an hour old
    assert desk.read(two, row(3, 50, boot=6)) == []
    assert desk.read(two, row(3, 1, boot=8))  # the sender rebooted
    assert desk.read(two, row(3, 101, boot=7)) == []
    assert desk.counts["beacons_stale"] == 3
    assert isinstance(frames.read(desk.links, Pole(4, boot=9).beat().payload), Report)
    assert desk.read(one, row(4, 5, boot=8)) == []  # the sender's own frames already come from a later boot
    assert desk.read(one, row(4, 1, boot=9))


def test_beacons_of_a_drawn_boot_count_once_the_sender_itself_was_heard_in_it() -> None:
    desk, one, drawn = Desk(), Pole(1), wire.BOOT_DRAWN | 77
    assert desk.read(one, row(3, 1, boot=drawn)) == [], "any recording could say so"
    frames.read(desk.links, Pole(3, drawn).beat().payload)
    assert desk.read(one, row(3, 2, boot=drawn))
    assert desk.read(one, row(3, 3, boot=drawn))
    assert desk.read(one, row(3, 1, boot=wire.BOOT_DRAWN | 78)) == []
    assert desk.read(one, row(3, 900, boot=5)) == [], "a kept boot from before"
    frames.read(desk.links, Pole(3, 6).beat().payload)
    assert desk.read(one, row(3, 1, boot=6)), "its flash works again"
    assert desk.read(one, row(3, 4, boot=drawn)) == []


def test_a_counter_wraps() -> None:
    desk, one = Desk(), Pole(1)
    for counter in (65534, 65535, 0, 1):
        assert desk.read(one, row(3, counter))
    assert desk.read(one, row(3, 65535)) != []  # behind by two: heard late
    assert desk.read(one, row(3, 65000)) == []


def test_what_was_told_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TOLD_MAX", 3)
    desk, one = Desk(), Pole(1)
    for sender in (2, 3, 4, 5, 6):
        desk.read(one, row(sender))
    assert len(desk.neighbours._reported) == 3
    assert desk.read(one, row(6)) == []


def test_beacons_are_no_tags_and_count_for_none() -> None:
    shell = Shell()
    shell.frame(near(Pole(1), row(2), row(3), row(4)))
    assert shell.counts["frames_kind_6"] == 1
    assert shell.counts["beacons_heard"] == 3
    assert shell.counts["unknown_ids"] == 0
    assert shell.counts["tags_followed"] == 0
    assert "sightings" not in +Counter(shell.counts)
    assert "advertisements_unknown" not in shell.counts
    assert shell.events == []


class Street:
    """The poles of the core's test zone, 30 m apart, which report each other's beacons to the core."""

    def __init__(self, seed: int) -> None:
        print(f"seed {seed}")
        self.shell = Shell()
        self.poles = {n: Pole(n) for n in KEYS}
        self.x_m = {n: SPACING_M * (n - 1) for n in KEYS}
        self.random = np.random.default_rng(seed)
        self.shadow = {(i, j): 2.0 * self.random.normal() for i in KEYS for j in KEYS if i < j}
        self.received: Counter[int] = Counter()
        self.counter = 0

    def live(self, minutes: float) -> list[GatewayHealth]:
        before = len(self.shell.events)
        for _ in range(round(minutes / 4)):
            self.counter += 1
            for receiver, pole in self.poles.items():
                rows = []
                for sender in self.poles:
                    if sender != receiver:
                        distance = max(abs(self.x_m[receiver] - self.x_m[sender]), 1.0)
                        pair = min(receiver, sender), max(receiver, sender)
                        level = -32 - 23 * math.log10(distance) + self.shadow[pair] + self.received[receiver]
                        rssi = round(level + self.random.normal())
                        rows += [row(sender, self.counter, rssi_dbm=rssi)] if rssi > -95 else []
                for at in range(0, len(rows), wire.NEIGHBOURS_MAX):
                    self.shell.frame(near(pole, *rows[at : at + wire.NEIGHBOURS_MAX]))
            self.shell.wait(240)
        return [e for e in self.shell.events[before:] if isinstance(e, GatewayHealth)]


def test_a_deaf_reader_is_told_of_once_and_the_figures_have_names() -> None:
    street = Street(1)
    street.received[4] = -10
    told = [e for e in street.live(60) if e.what.startswith("reader_")]
    assert [(e.what, e.ok, e.counters) for e in told] == [("reader_offset", False, {"reader": 4})]
    assert told[0].detail.startswith("reader 4 hears ")
    figures = pipeline.figures(street.shell.state)
    assert figures["reader_4_offset_db"] < -5
    assert 0 <= figures["reader_5_error_m"] < 60
    assert 2.0 < figures["reader_exponent"] < 2.6
    assert figures["readers_misplaced"] == 0


def test_what_is_known_survives_a_restart_in_the_snapshot() -> None:
    street = Street(2)
    street.live(24)
    known = street.shell.state.crosscheck.calibration
    assert known is not None
    street.shell.restart()
    again = street.shell.state.crosscheck.calibration
    assert again is not None
    assert again.offsets_db == known.offsets_db
    assert again.pairs == known.pairs


def test_a_report_costs_a_frames_step_no_fit() -> None:
    street = Street(3)
    street.live(8)
    street.shell.now_s += 3600  # a round is due
    fits = street.shell.state.counts["calibrations"]
    street.shell.frame(near(street.poles[1], row(2, 99)))
    assert street.shell.state.counts["calibrations"] == fits
    street.shell.wait(60)
    assert street.shell.state.counts["calibrations"] == fits + 1
