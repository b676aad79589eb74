"""The ZigBee mesh between readers and coordinator: joins, frames up and down over relays, repetitions and losses.

A frame travels hop by hop (`sim.air.hops`) over other readers, and so does its end-to-end acknowledgement. If none
comes back, the sender repeats the frame, three tries in all; then it sees a time-out. A repetition of a frame that
arrived is dropped. Besides what scan windows and dead relays cost, from time to time a frame is lost in spite of all
this, or arrives while none of its acknowledgements does. Every random number is a hash of (seed, reader, its frame), so
the fate of a frame does not depend on the random numbers of other readers. It does depend on when they scan.

Not modelled: frames that meet on the air or wait in a router, the readers' Bluetooth beacons, joins over relays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from sim import chance
from sim.air.hops import Mac, Relays, cross
from sim.clock import Clock
from sim.ncp import zdo
from sim.ncp.chip import Coordinator
from sim.ncp.messages import Broadcast, Unicast
from sim.reader.process import ReaderProcess
from sim.street.paths import Spot
from sim.xbee.module import install_code

HOP_MS = (4.0, 16.0)
"""Latency of one hop that no window disturbs: back-off, up to 66 bytes at 250 kbit/s, time in a router. Assumed;
measured hops lie between."""
LOSS = 0.004
"""Probability per hop that a frame is lost after all retries of the stack, without any scan window. Assumed."""
ACK_LOSS = 0.002
"""Probability per hop that a reader's frame arrives but none of its acknowledgements does. Assumed."""
APS_TRIES = 3
"""One attempt and two retries: Digi 90001539, "Transmission timeouts" (p. 119)."""
READER_WAIT_MS = 50.0 * 10 + 100
"""How long each try of a reader waits for its acknowledgement: 50 x NH + 100 ms (same page). NH is A."""
STICK_WAIT_MS = 1600.0
"""The same for the coordinator: EZSP configuration value 0x1F, by default 50 x 30 + 100 ms."""
TIMEOUT_MS = APS_TRIES * READER_WAIT_MS
"""How long xbee.transmit waits at most."""
PAYLOAD_MAX = 66
"""Bytes of an encrypted unicast. A source route takes 2 of them, and 2 for each relay (Digi 90001539)."""
JOIN_EVERY_S = 2.0
NOT_JOINED, LOST = "ENOTCONN", "ETIMEDOUT"
NO_ROUTE = "ENOTCONN"
"""Delivery status 0x25, "Route not found", was seen as ENOTCONN (Digi's forum 22565)."""


@dataclass(slots=True)
class Station:
    """A reader as a node of the mesh. hops: of its newest route."""

    reader: ReaderProcess
    eui64: bytes
    nwk: int
    hops: int = 1
    joined_at_s: float | None = None
    up: int = 0
    down: int = 0
    wake_ms: float = math.inf


@dataclass(slots=True)
class Counts:
    """Counts of what the mesh did, for the report."""

    frames_up: int = 0
    lost_up: int = 0
    lost_up_scanning: int = 0
    """Of `lost_up`, those of which at least one try ended in scan windows."""
    refused_up: int = 0
    """Frames that arrived but that the coordinator could not take, because its host did not listen."""
    ack_lost: int = 0
    """Frames that the coordinator took and that the reader reports as failed."""
    ack_lost_scanning: int = 0
    not_joined: int = 0
    frames_down: int = 0
    lost_down: int = 0
    lost_down_scanning: int = 0
    too_long_down: int = 0
    """Of `lost_down`, those that were not sent: no room for them beside the source route."""
    aps_repeats: int = 0
    hops: int = 0
    """Hops that frames and acknowledgements began."""
    hops_lost_scanning: int = 0
    """Hops of which every MAC try met a scan window."""
    hops_lost_power: int = 0
    """Hops from or to a reader without power."""
    no_route: int = 0
    """Tries of frames for which there was no relay."""
    tries_lost_own: int = 0
    """MAC tries lost in a scan window of the sender."""
    tries_lost_theirs: int = 0
    """MAC tries lost in a scan window of the receiver."""
    joins: int = 0
    joins_refused: int = 0
    logs: Counter[str] = field(default_factory=Counter)

    def numbers(self) -> dict[str, int]:
        """Return all counts but those of the logs, by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


@dataclass(slots=True)
class Flight:
    """One frame on its way from end to end, with all its tries."""

    station: Station
    leg: str
    """Its first: up or down. Its acknowledgement's is the other of `_ANSWERED`."""
    number: int
    """Which of this reader's frames on this leg."""
    size_b: int
    take: Callable[[], bool]
    """Give the frame to its receiver. It is called again after a repetition until it returns True."""
    ended: Callable[[Flight], None]
    """Called once: acknowledged, or given up."""
    waits: Callable[[], bool]
    """Whether the sender still waits. A module that was reset forgets its frame."""
    wait_ms: float
    lost: bool
    ack_lost: bool = False
    tries: int = APS_TRIES
    first_hop: Callable[[bool], None] | None = None
    """Without an end-to-end acknowledgement: called when the first hop has taken the frame or has not."""
    began_s: float = 0.0
    tried: int = 0
    arrived: bool = False
    taken: bool = False
    acknowledged: bool = False
    over: bool = False
    scanned: bool = False
    """Whether scan windows stopped a try or an acknowledgement of it."""
    unrouted: bool = False
    """Whether its newest try found no relay."""


Way = tuple[Station | None, ...]
"""The nodes from a reader to the coordinator, which is None."""


class Mesh:
    """All readers of a zone and one coordinator, on the story's clock.

    Callbacks: `on_frame(number, sent_s, payload, arrived)` for every frame that a joined reader sent, when it arrives
    or is given up; `on_delivery`, the same for every frame to a reader; `on_pin_change(number, now_s, pin, level)` for
    every write to an output pin; `on_line(number, now_s, text)` for every line of a reader's console.
    """

    def __init__(self, clock: Clock, coordinator: Coordinator, seed: int, mac: Mac | None = None) -> None:
        self.clock, self.coordinator, self.seed = clock, coordinator, seed
        self.mac = mac or Mac()
        self.stations: dict[int, Station] = {}
        self.counts = Counts()
        self.on_frame: Callable[[int, float, bytes, bool], None] | None = None
        self.on_delivery: Callable[[int, float, bytes, bool], None] | None = None
        self.on_pin_change: Callable[[int, float, str, int], None] | None = None
        self.on_line: Callable[[int, float, str], None] | None = None
        self.deaf = False
        """A fault: no frame gets through, in either direction."""
        self._by_nwk: dict[int, Station] = {}
        self._relays = Relays()
        coordinator.on_unicast = self._on_unicast
        coordinator.on_broadcast = self._on_broadcast

    def add(self, reader: ReaderProcess, eui64: bytes, at: Spot, centre: Spot) -> Station:
        """Add a reader to the mesh. centre: the position of the coordinator. The caller gives the reader power."""
        nwk = 0x1000 + (int(chance.words(self.seed, "nwk", reader.number)[0]) % 0xE000)
        while nwk in self._by_nwk:
            nwk = 0x1000 + (nwk - 0x1000 + 1) % 0xE000
        station = Station(reader, eui64, nwk)
        self.stations[reader.number] = self._by_nwk[nwk] = station
        self._relays.add(reader.number, at, centre)
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
        number, sent_s, transmission = station.up, now_ms / 1000, reader.transmissions
        self._way(station)
        drawn = chance.one(self.seed, "loss", reader.number, number)

        def ended(flight: Flight) -> None:
            self._ended_up(flight, sent_s, payload)
            error = None if flight.acknowledged else NO_ROUTE if flight.unrouted else LOST
            reader.transmit_done(self.clock.now_s * 1000, error, transmission)
            self.touch(station)

        flight = Flight(
            station, "up", number, len(payload), ended=ended, wait_ms=READER_WAIT_MS,
            take=lambda: self._take_up(station, number, sent_s, payload, endpoints),
            waits=lambda: reader.alive and reader.transmitting and reader.transmissions == transmission,
            lost=drawn < LOSS * station.hops,
            ack_lost=LOSS * station.hops <= drawn < (LOSS + ACK_LOSS) * station.hops,
        )  # fmt: skip
        self._send(flight, sent_s)

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
                self._relays.look_again()  # it may be the relay that others lack
                self._way(station)
                return
            self.counts.joins_refused += 1
        if station.joined_at_s is None:
            self.clock.after(JOIN_EVERY_S, lambda: self._join(station))

    def _can_relay(self, number: int) -> bool:
        station = self.stations[number]
        return station.reader.alive and station.joined_at_s is not None

    def _way(self, station: Station) -> Way | None:
        relays = self._relays.way(station.reader.number, self.clock.now_s, self._can_relay)
        if relays is None:
            return None
        station.hops = len(relays) + 1
        return (station, *(self.stations[number] for number in relays), None)

    # ---- from end to end ----

    def _send(self, flight: Flight, now_s: float) -> None:
        flight.began_s = now_s
        self.clock.at(now_s, partial(self._try, flight))

    def _try(self, flight: Flight) -> None:
        """Send the frame; again if no acknowledgement has come; or give it up."""
        if flight.over:
            return
        if flight.tried == flight.tries or not flight.waits():
            self._end(flight)
            return
        flight.tried += 1
        self.counts.aps_repeats += flight.tried > 1
        self.clock.at(flight.began_s + flight.tried * flight.wait_ms / 1000, partial(self._try, flight))
        way = self._way(flight.station)
        flight.unrouted = way is None
        if way is None:
            self.counts.no_route += 1
        elif flight.leg == "down" and flight.size_b + _route_b(way) > PAYLOAD_MAX:
            self.counts.too_long_down += 1
            self._end(flight)
        elif not (flight.lost or self.deaf):
            self._hop(flight, flight.leg, way, 0)

    def _hop(self, flight: Flight, leg: str, way: Way, done: int) -> None:
        """Carry a frame ("up", "down") or its acknowledgement ("ack", "back") over the next hop. done: hops behind."""
        number, answer = flight.station.reader.number, leg in _ANSWERED.values()
        nodes = way if leg in ("up", "back") else way[::-1]
        sender, receiver = nodes[done : done + 2]
        self.counts.hops += 1
        dead = [each for each in (sender, receiver) if each is not None and not each.reader.alive]
        if dead:
            self.counts.hops_lost_power += 1
            if dead != [flight.station]:
                self._relays.broke(number, self.clock.now_s)
            self._landed(flight, leg, way, done, False)
            return
        low, high = HOP_MS
        again = () if flight.tried == 1 else (flight.tried,)
        crossing = cross(
            self.mac,
            None if sender is None else sender.reader,
            None if receiver is None else receiver.reader,
            self.clock.now_s * 1000,
            0 if answer else flight.size_b + (_route_b(way) if leg == "down" else 0),
            low + (high - low) * chance.one(self.seed, leg, number, flight.number, "ms", *again),
            self.seed, "back-off", leg, number, flight.number, flight.tried, done,
        )  # fmt: skip
        self.counts.tries_lost_own += crossing.own
        self.counts.tries_lost_theirs += crossing.theirs
        self.counts.hops_lost_scanning += not crossing.ok
        flight.scanned |= not crossing.ok
        self.clock.at(crossing.end_ms / 1000, partial(self._landed, flight, leg, way, done, crossing.ok))

    def _landed(self, flight: Flight, leg: str, way: Way, done: int, ok: bool) -> None:
        if done == 0 and flight.first_hop is not None:
            flight.first_hop(ok)
        if not ok:
            return
        if done + 2 < len(way):
            self._hop(flight, leg, way, done + 1)
        elif leg == flight.leg:
            flight.arrived = True
            flight.taken = flight.taken or flight.take()  # the receiver drops a repetition, and acknowledges it
            if flight.taken and not flight.ack_lost and flight.first_hop is None:
                self._hop(flight, _ANSWERED[leg], way, 0)
        else:
            flight.acknowledged = True
            self._end(flight)

    def _end(self, flight: Flight) -> None:
        if not flight.over:
            flight.over = True
            flight.ended(flight)

    # ---- up ----

    def _take_up(
        self, station: Station, number: int, sent_s: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> bool:
        source, destination, cluster, profile = endpoints
        reader = station.reader.number
        taken = self.coordinator.receive(
            nwk=station.nwk,
            profile_id=profile,
            cluster_id=cluster,
            source_endpoint=source,
            destination_endpoint=destination,
            payload=payload,
            lqi=140 + int(110 * chance.one(self.seed, "lqi", reader, number)),
            rssi_dbm=-75 + int(25 * chance.one(self.seed, "rssi", reader)),
            sequence=number & 0xFF,
        )
        if taken and self.on_frame is not None:
            self.on_frame(reader, sent_s, payload, True)
        return taken

    def _ended_up(self, flight: Flight, sent_s: float, payload: bytes) -> None:
        counts = self.counts
        if flight.taken:
            counts.ack_lost += not flight.acknowledged
            counts.ack_lost_scanning += not flight.acknowledged and flight.scanned
            return
        counts.refused_up += flight.arrived
        counts.lost_up += not flight.arrived
        counts.lost_up_scanning += not flight.arrived and flight.scanned
        if self.on_frame is not None:
            self.on_frame(flight.station.reader.number, sent_s, payload, False)

    # ---- down ----

    def _on_unicast(self, unicast: Unicast) -> None:
        station = self._by_nwk.get(unicast.nwk)
        if station is None or station.joined_at_s is None:
            self.clock.after(APS_TRIES * STICK_WAIT_MS / 1000, lambda: self._delivered(unicast, False))
            return
        station.down += 1
        self.counts.frames_down += 1
        self._way(station)
        # The clock may be behind. A frame of the gateway is sent at wall time, not at the time of the last event.
        sent_s = max(self.clock.now_s, self.clock.wall_s())

        def ended(flight: Flight) -> None:
            self.counts.lost_down += not flight.taken
            self.counts.lost_down_scanning += not flight.taken and flight.scanned
            if not flight.taken and self.on_delivery is not None:
                self.on_delivery(station.reader.number, sent_s, unicast.payload, False)
            if unicast.wants_ack:
                self._delivered(unicast, flight.acknowledged)

        flight = Flight(
            station, "down", station.down, len(unicast.payload), ended=ended, wait_ms=STICK_WAIT_MS,
            take=lambda: self._take_down(station, sent_s, unicast),
            waits=lambda: True,
            lost=chance.one(self.seed, "down", station.reader.number, station.down) < LOSS * station.hops,
            tries=APS_TRIES if unicast.wants_ack else 1,
            first_hop=None if unicast.wants_ack else partial(self._delivered, unicast),
        )  # fmt: skip
        self._send(flight, sent_s)

    def _take_down(self, station: Station, sent_s: float, unicast: Unicast) -> bool:
        taken = station.reader.deliver(
            self.clock.now_s * 1000,
            unicast.payload,
            endpoints=(unicast.source_endpoint, unicast.destination_endpoint, unicast.cluster_id, unicast.profile_id),
        )
        self.touch(station)
        if taken and self.on_delivery is not None:
            self.on_delivery(station.reader.number, sent_s, unicast.payload, True)
        return taken

    def _delivered(self, unicast: Unicast, ok: bool) -> None:
        if unicast.handle:
            self.coordinator.delivered(unicast.handle, ok)

    def _on_broadcast(self, broadcast: Broadcast) -> None:
        """Do nothing: the gateway sends no broadcast to readers."""


_ANSWERED = {"up": "ack", "down": "back"}
"""The names of a frame's leg and of that of its acknowledgement. They choose random numbers."""


def _route_b(way: Way) -> int:
    """Return what the source route of a frame down this way takes of its payload."""
    relays = len(way) - 2
    return 2 + 2 * relays if relays else 0


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
