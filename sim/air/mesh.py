"""The ZigBee mesh between readers and coordinator: joins, frames up and down, delays and losses.

First version: no packets of other nodes, no changing routes. A frame needs a few milliseconds per hop. From time to
time it is lost in spite of the stack's own retries; the sender then sees a time-out. From time to time a reader's frame
arrives but its acknowledgement is lost; the reader sees a time-out too. Every random number is a hash of (seed, reader,
its frame), so the fate of a frame does not depend on other readers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from sim import chance
from sim.clock import Clock
from sim.ncp import zdo
from sim.ncp.chip import Coordinator
from sim.ncp.messages import Broadcast, Unicast
from sim.reader.process import ReaderProcess
from sim.street.paths import Spot
from sim.xbee.module import install_code

HOP_M = 90.0
HOPS_MAX = 5
HOP_MS = (4.0, 16.0)
"""Latency of one hop: back-off, 66 bytes at 250 kbit/s, time in a router. Assumed; measured hops lie between."""
LOSS = 0.004
"""Probability per hop that a frame is lost after all retries of the stack."""
ACK_LOSS = 0.002
"""Probability per hop that a reader's frame arrives but its end-to-end acknowledgement does not."""
TIMEOUT_MS = 1600.0
"""How long xbee.transmit waits for the acknowledgement: three tries of the APS layer. Unverified."""
JOIN_EVERY_S = 2.0
NOT_JOINED, LOST = "ENOTCONN", "ETIMEDOUT"


@dataclass(slots=True)
class Station:
    """A reader as a node of the mesh."""

    reader: ReaderProcess
    eui64: bytes
    hops: int
    nwk: int
    joined_at_s: float | None = None
    up: int = 0
    down: int = 0
    wake_ms: float = math.inf


@dataclass(slots=True)
class Counts:
    """Counts of what the mesh did, for the report."""

    frames_up: int = 0
    lost_up: int = 0
    refused_up: int = 0
    """Frames that arrived but that the coordinator could not take, because its host did not listen."""
    ack_lost: int = 0
    not_joined: int = 0
    frames_down: int = 0
    lost_down: int = 0
    joins: int = 0
    joins_refused: int = 0
    logs: Counter[str] = field(default_factory=Counter)


class Mesh:
    """All readers of a zone and one coordinator, on the story's clock.

    Callbacks: `on_frame(number, sent_s, payload, arrived)` for every frame that a joined reader sent,
    `on_pin_change(number, now_s, pin, level)` for every write to an output pin, `on_line(number, now_s, text)` for
    every line of a reader's console.
    """

    def __init__(self, clock: Clock, coordinator: Coordinator, seed: int) -> None:
        self.clock, self.coordinator, self.seed = clock, coordinator, seed
        self.stations: dict[int, Station] = {}
        self.counts = Counts()
        self.on_frame: Callable[[int, float, bytes, bool], None] | None = None
        self.on_pin_change: Callable[[int, float, str, int], None] | None = None
        self.on_line: Callable[[int, float, str], None] | None = None
        self.deaf = False
        """A fault: no frame gets through, in either direction."""
        self._by_nwk: dict[int, Station] = {}
        coordinator.on_unicast = self._on_unicast
        coordinator.on_broadcast = self._on_broadcast

    def add(self, reader: ReaderProcess, eui64: bytes, at: Spot, centre: Spot) -> Station:
        """Add a reader to the mesh. centre: the position of the coordinator. The caller gives the reader power."""
        hops = min(HOPS_MAX, 1 + int(math.dist(at, centre) // HOP_M))
        nwk = 0x1000 + (int(chance.words(self.seed, "nwk", reader.number)[0]) % 0xE000)
        while nwk in self._by_nwk:
            nwk = 0x1000 + (nwk - 0x1000 + 1) % 0xE000
        station = Station(reader, eui64, hops, nwk)
        self.stations[reader.number] = self._by_nwk[nwk] = station
        return station

    def start_joining(self) -> None:
        """Let every reader with power try to join until it has joined, as the radio module does by itself."""
        for number, station in self.stations.items():
            self.clock.after(JOIN_EVERY_S * chance.one(self.seed, "join", number), partial(self._join, station))

    def joined(self) -> Sequence[int]:
        return [number for number, station in self.stations.items() if station.joined_at_s is not None]

    def touch(self, station: Station) -> None:
        """Plan the next run of the reader. Call it after anything that may change when the reader wakes."""
        wake_ms = station.reader.wake_at_ms
        if wake_ms < station.wake_ms:
            station.wake_ms = wake_ms
            self.clock.at(wake_ms / 1000, lambda: self._run(station, wake_ms))

    def power(self, number: int, on: bool) -> None:
        """Cut a reader's power, or give it power. If it had joined, it announces itself again, as a router does."""
        station = self.stations[number]
        if not on:
            station.reader.kill()
            station.wake_ms = math.inf
            return
        station.reader.start(self.clock.now_s * 1000)
        self.touch(station)
        if station.joined_at_s is not None:
            node = zdo.Node(station.eui64, station.nwk, endpoints=_endpoints())
            self.coordinator.rejoin(station.eui64, station.nwk, node=node)

    # ---- what a reader asks of its radio (sim.reader.process.ReaderRadio) ----

    def on_transmit(
        self, reader: ReaderProcess, now_ms: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> None:
        station = self.stations[reader.number]
        station.up += 1
        if station.joined_at_s is None:
            self.counts.not_joined += 1
            reader.transmit_done(now_ms, NOT_JOINED)
            return
        self.counts.frames_up += 1
        latency_ms = self._latency_ms(station, "up", station.up)
        drawn = chance.one(self.seed, "loss", reader.number, station.up)
        lost = self.deaf or drawn < LOSS * station.hops
        ack_lost = not lost and drawn < (LOSS + ACK_LOSS) * station.hops
        self.clock.at(
            (now_ms + latency_ms) / 1000,
            lambda: self._arrive(station, now_ms, payload, endpoints, lost=lost, ack_lost=ack_lost),
        )

    def on_pin(self, reader: ReaderProcess, now_ms: float, name: str, level: int) -> None:
        if self.on_pin_change is not None:
            self.on_pin_change(reader.number, now_ms / 1000, name, level)

    def on_log(self, reader: ReaderProcess, line: str) -> None:
        self.counts.logs[line.split(":")[0][:40]] += 1
        if self.on_line is not None:
            self.on_line(reader.number, self.clock.now_s, line)

    # ---- inside ----

    def _run(self, station: Station, wake_ms: float) -> None:
        if station.wake_ms != wake_ms:
            return  # an earlier run was planned meanwhile; that one has planned the next
        station.wake_ms = math.inf
        station.reader.run(max(self.clock.now_s * 1000, wake_ms))  # now_s * 1000 may be just under wake_ms: rounding
        self.touch(station)

    def _join(self, station: Station) -> None:
        if station.reader.alive and station.joined_at_s is None:
            node = zdo.Node(station.eui64, station.nwk, endpoints=_endpoints())
            key = link_key(install_code(station.eui64))
            if self.coordinator.join(station.eui64, station.nwk, link_key=key, node=node):
                station.joined_at_s = self.clock.now_s
                self.counts.joins += 1
                return
            self.counts.joins_refused += 1
        if station.joined_at_s is None:
            self.clock.after(JOIN_EVERY_S, lambda: self._join(station))

    def _arrive(
        self,
        station: Station,
        sent_ms: float,
        payload: bytes,
        endpoints: tuple[int, int, int, int],
        *,
        lost: bool,
        ack_lost: bool,
    ) -> None:
        source, destination, cluster, profile = endpoints
        taken = not lost and self.coordinator.receive(
            nwk=station.nwk,
            profile_id=profile,
            cluster_id=cluster,
            source_endpoint=source,
            destination_endpoint=destination,
            payload=payload,
            lqi=140 + int(110 * chance.one(self.seed, "lqi", station.reader.number, station.up)),
            rssi_dbm=-75 + int(25 * chance.one(self.seed, "rssi", station.reader.number)),
            sequence=station.up & 0xFF,
        )
        self.counts.lost_up += lost
        self.counts.refused_up += not lost and not taken
        self.counts.ack_lost += ack_lost
        if self.on_frame is not None:
            self.on_frame(station.reader.number, sent_ms / 1000, payload, taken)
        if taken and not ack_lost:
            back_ms = self._latency_ms(station, "ack", station.up)
            self.clock.after(back_ms / 1000, lambda: self._done(station, None))
        else:
            self.clock.at((sent_ms + TIMEOUT_MS) / 1000, lambda: self._done(station, LOST))

    def _done(self, station: Station, error: str | None) -> None:
        station.reader.transmit_done(self.clock.now_s * 1000, error)
        self.touch(station)

    def _on_unicast(self, unicast: Unicast) -> None:
        station = self._by_nwk.get(unicast.nwk)
        if station is None or station.joined_at_s is None:
            self.clock.after(TIMEOUT_MS / 1000, lambda: self._delivered(unicast, False))
            return
        station.down += 1
        self.counts.frames_down += 1
        lost = self.deaf or chance.one(self.seed, "down", station.reader.number, station.down) < LOSS * station.hops
        latency_s = self._latency_ms(station, "down", station.down) / 1000
        # The clock may be behind. A frame of the gateway is sent at wall time, not at the time of the last event.
        self.clock.at(
            max(self.clock.now_s, self.clock.wall_s()) + latency_s, lambda: self._descend(station, unicast, lost)
        )

    def _descend(self, station: Station, unicast: Unicast, lost: bool) -> None:
        now_ms = self.clock.now_s * 1000
        taken = not lost and station.reader.deliver(
            now_ms,
            unicast.payload,
            endpoints=(unicast.source_endpoint, unicast.destination_endpoint, unicast.cluster_id, unicast.profile_id),
        )
        self.touch(station)
        self.counts.lost_down += not taken
        wait_s = self._latency_ms(station, "back", station.down) / 1000 if taken else TIMEOUT_MS / 1000
        self.clock.after(wait_s, lambda: self._delivered(unicast, taken))

    def _delivered(self, unicast: Unicast, ok: bool) -> None:
        if unicast.handle:
            self.coordinator.delivered(unicast.handle, ok)

    def _on_broadcast(self, broadcast: Broadcast) -> None:
        """Do nothing: the gateway sends no broadcast to readers."""

    def _latency_ms(self, station: Station, way: str, frame: int) -> float:
        low, high = HOP_MS
        return station.hops * (low + (high - low) * chance.one(self.seed, way, station.reader.number, frame, "ms"))


def link_key(code: bytes) -> bytes:
    """Return the link key of an install code (16 bytes and their CRC): its AES-MMO hash, ZigBee spec. 05-3474 B.6."""
    bits = 8 * len(code)
    padded = code + b"\x80"
    padded += bytes(-(len(padded) + 2) % 16) + bits.to_bytes(2, "big")
    hashed = bytes(16)
    for offset in range(0, len(padded), 16):
        block = padded[offset : offset + 16]
        cipher = Cipher(AES(hashed), ECB()).encryptor().update(block)
        hashed = bytes(a ^ b for a, b in zip(cipher, block, strict=True))
    return hashed


def _endpoints() -> dict[int, zdo.Endpoint]:
    """Return the endpoints that an XBee 3 reports."""
    return {
        number: zdo.Endpoint(number, zdo.XBEE_PROFILE, 1, 0, (0x0011,), (0x0011,))
        for number in (zdo.XBEE_COMMAND_ENDPOINT, zdo.XBEE_DATA_ENDPOINT)
    }
