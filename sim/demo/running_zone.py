"""A running simulated school zone: children, tags, the air, readers with their firmware, and the mesh.

Everything is counted where it happens. A packet is heard when a reader's scanner takes it for the firmware. It is
reported when the firmware sends a frame that contains it. What a lamp shows is judged from its pin (sim/demo/lamp.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from readers import wire
from sim import chance
from sim.air.mesh import Mesh, Station
from sim.air.radio import Air, rssi_of
from sim.clock import Clock
from sim.street.children import Child, World
from sim.street.tag import Tag

PDU_S = (0.0, 0.0005, 0.0010)
"""Start of the three copies of one advertising event, on the channels 37, 38, 39: 376 us each and a short gap."""
FIRST_CHANNEL = 37
ADVERTISE_JITTER_S = 0.010
"""Bluetooth LE adds a random 0-10 ms to every interval (Core 5.4, vol 6 B 4.4.2.2.1)."""
PRESS_FOR_S = 0.3
"""How long a person holds the button of a bell."""
DIGEST_FRAMES_MAX = 20_000
SCAN_NEAR_DBM = -108.0


@dataclass(frozen=True, slots=True)
class PinChange:
    """A change of an output pin of a reader."""

    reader: int
    at_s: float
    pin: str
    level: int


class RunningZone:
    """The zone of one story, on one clock. Children stand still and tags are silent until `begin`.

    mac_of: reader number -> its MAC function, to read a reader's frames on the mesh. bell_pin: the input of a bell.
    """

    # ---- inside ----

    def __init__(
        self,
        clock: Clock,
        world: World,
        tags: Mapping[int, Tag],
        air: Air,
        mesh: Mesh,
        *,
        mac_of: Callable[[int], Callable[[bytes], bytes]],
        bell_pin: str,
    ) -> None:
        self.clock, self.world, self.tags, self.air, self.mesh = clock, world, dict(tags), air, mesh
        self.counts: Counter[str] = Counter()
        self.beating: set[int] = set()
        """The readers whose heartbeat came or was tried."""
        self.on_change: Callable[[PinChange], None] | None = None
        self.on_alarm_frame: Callable[[int, float, int, int], None] | None = None
        """Called once per SOS or BELL frame: (reader, time sent, wire.SOS or wire.BELL, the stage its lamp shows)."""
        self.began_s: float | None = None
        self._mac_of, self._bell_pin = mac_of, bell_pin
        self._levels: dict[tuple[int, str], int] = {}
        self._planned: dict[int, float] = {}
        self._frames: dict[tuple[int, int, int], None] = {}
        self._stations = [mesh.stations[ear.number] for ear in air.ears]
        self._pole_events: Counter[int] = Counter()
        for station in self._stations:
            station.reader.on_advertise = lambda reader, now_ms, station=station: self._on_advertise(station, now_ms)
        mesh.on_frame = self._on_frame
        mesh.on_pin_change = self._on_pin

    @property
    def story_s(self) -> float:
        """Seconds since `begin`; 0 before."""
        return 0.0 if self.began_s is None else self.clock.now_s - self.began_s

    def child(self, tag: int) -> Child:
        return self.world.children[tag - 1]

    def begin(self, unix_s: float) -> None:
        """Start the story now, which is unix_s in UTC: the children walk and their tags advertise."""
        self.began_s = self.clock.now_s
        for tag in self.tags.values():
            tag.begin(unix_s)
            self._plan(tag)

    def end(self) -> None:
        """Silence every tag. Readers and mesh continue."""
        self._planned.clear()

    def press_tag(self, number: int) -> float:
        """Press the button of a tag now; return the story time of the press."""
        tag = self.tags[number]
        tag.press(self.story_s)
        self._plan(tag)
        return self.story_s

    def press_bell(self, reader: int) -> float:
        """Press the bell of a reader now and release it after PRESS_FOR_S; return the story time of the press."""
        station = self.mesh.stations[reader]
        station.reader.pin(self._bell_pin, 0)
        self.clock.after(PRESS_FOR_S, lambda: station.reader.pin(self._bell_pin, 1))
        return self.story_s

    def power(self, reader: int, on: bool) -> None:
        """Cut a reader's power, or give it power. Without power its lamp and its buzzer are off."""
        self.mesh.power(reader, on)
        if not on:
            for number, pin in list(self._levels):
                if number == reader:
                    self._on_pin(reader, self.clock.now_s, pin, 0)

    def _plan(self, tag: Tag) -> None:
        assert self.began_s is not None
        due_s = self.began_s + tag.next_s
        self._planned[tag.number] = due_s
        self.clock.at(due_s, partial(self._beacon, tag, due_s))

    def _beacon(self, tag: Tag, due_s: float) -> None:
        if self._planned.get(tag.number) != due_s or self.began_s is None:
            return  # the tag was pressed meanwhile, or the story is over
        child = self.child(tag.number)
        where = child.at(tag.next_s)
        advert = tag.advertise(where.moving)
        self.counts["beacons"] += 1
        self._plan(tag)
        mean = self.air.mean_dbm(where.x_m, where.y_m, where.heading, tag.power_offset_db)
        if mean.max() < SCAN_NEAR_DBM:
            self.counts["beacons_nobody_near"] += 1
            return
        strength, readable = self.air.listen(tag.number, advert.event, mean)
        in_reach = False
        for station, dbm, read in zip(self._stations, strength, readable, strict=True):
            if not read:
                continue
            in_reach = True
            for copy, after_s in enumerate(PDU_S):
                at_ms = (due_s + after_s) * 1000
                if station.reader.hear(at_ms, advert.address, rssi_of(dbm), advert.payload, FIRST_CHANNEL + copy):
                    self.counts["heard"] += 1
                    self.mesh.touch(station)
        self.counts["beacons_in_reach"] += in_reach

    def _on_advertise(self, station: Station, now_ms: float) -> None:
        advertising = station.reader.advertising
        if advertising is not None:
            self.counts["pole_bursts"] += 1
            self.clock.at(now_ms / 1000, partial(self._pole_beacon, station, advertising, now_ms / 1000))

    def _pole_beacon(self, station: Station, advertising: tuple[float, int, bytes], due_s: float) -> None:
        """Send one advertising event of a reader. The next comes after its interval and 0-10 ms, if nothing changes."""
        if station.reader.advertising is not advertising:
            return
        number = station.reader.number
        self._pole_events[number] += 1
        event = self._pole_events[number]
        strength, readable = self.air.listen(-number, event, self.air.pole_dbm(number))
        for other, dbm, read in zip(self._stations, strength, readable, strict=True):
            for copy, after_s in enumerate(PDU_S):
                at_ms = (due_s + after_s) * 1000
                if read and other.reader.hear(
                    at_ms, station.eui64[2:], rssi_of(dbm), advertising[2], FIRST_CHANNEL + copy
                ):
                    self.counts["pole_heard"] += 1
                    self.mesh.touch(other)
        due_s += advertising[1] / 1e6 + ADVERTISE_JITTER_S * chance.one(number, "advertise", event)
        self.clock.at(due_s, partial(self._pole_beacon, station, advertising, due_s))

    def _on_frame(self, number: int, sent_s: float, payload: bytes, arrived: bool) -> None:
        """Read a frame of the mesh, each only once: a repetition by the firmware has the same sequence number."""
        try:
            kind, reader, boot, sequence = wire.peek(payload)
            body = wire.body_of(payload, self._mac_of(number))
        except wire.WireError:
            self.counts["frames_unreadable"] += 1
            return
        self.counts[f"frames_{_KINDS.get(kind, 'other')}"] += 1
        self.counts["bytes_up"] += len(payload)
        self.counts["frames_arrived"] += arrived
        if (reader, boot, sequence) in self._frames:
            self.counts["frames_repeated"] += 1
            return
        self._frames[reader, boot, sequence] = None
        if len(self._frames) > DIGEST_FRAMES_MAX:
            del self._frames[next(iter(self._frames))]
        if kind == wire.SIGHTINGS:
            rows = wire.decode_sightings(body)
            self.counts["rows"] += len(rows)
            self.counts["reported"] += sum(row[3] for row in rows)
        elif kind == wire.BINDINGS:
            bindings = wire.decode_bindings(body)
            self.counts["bindings"] += len(bindings)
            self.counts["reported"] += sum(row[3] for row in bindings)
        elif kind == wire.HEARTBEAT:
            self.beating.add(number)
        elif kind == wire.NEIGHBOURS:
            self.counts["pole_reported"] += sum(row[6] for row in wire.decode_neighbours(body))
        elif kind == wire.SOS:
            self.counts["cries_reported"] += wire.decode_sos(body)[4]
            self._tell_shown(number, sent_s, kind, wire.decode_sos(body)[1])
        elif kind == wire.BELL:
            self._tell_shown(number, sent_s, kind, wire.decode_bell(body)[1])

    def _tell_shown(self, number: int, sent_s: float, kind: int, shown: int) -> None:
        if self.on_alarm_frame is not None:
            self.on_alarm_frame(number, sent_s, kind, shown)

    def _on_pin(self, reader: int, now_s: float, pin: str, level: int) -> None:
        if self._levels.get((reader, pin)) == level:
            return
        self._levels[reader, pin] = level
        change = PinChange(reader, now_s, pin, level)
        if self.on_change is not None:
            self.on_change(change)


_KINDS = {
    wire.SIGHTINGS: "sightings",
    wire.BINDINGS: "bindings",
    wire.SOS: "sos",
    wire.BELL: "bell",
    wire.HEARTBEAT: "heartbeat",
    wire.NEIGHBOURS: "neighbours",
}
