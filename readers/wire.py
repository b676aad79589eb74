# The wire format: every byte between a reader and its gateway. One source for CPython and MicroPython 1.20.
#
# Everything is big-endian. A frame is one ZigBee unicast payload and is never fragmented: at most 66 bytes
# (XBee 3 with network encryption; Digi 90001539, "Maximum RF payload size").
#
#   frame            0       1       3        5           8                n      n+6
#                    +-------+-------+--------+-----------+----------------+------+
#                    |ver|typ| reader|  boot  | sequence  | body           | MAC  |
#                    +-------+-------+--------+-----------+----------------+------+
#     ver   4 bits   3
#     typ   4 bits   1..7 reader -> gateway, 8..15 gateway -> reader, so a frame is not valid in the other direction
#     reader   u16   number of the reader, unique in its zone, given when it is provisioned
#     boot     u16   1..32767: how often that reader booted, kept in its flash, wraps; a frame of an older boot is
#                    stale. 32768..65535: drawn at this boot, because its flash refused to keep a number
#     sequence u24   up: +1 for each frame, from 1 in every boot. A reader reboots before it would wrap.
#                    down: the newest sequence that the gateway has from this reader in this boot. It proves that the
#                    frame is fresh, so the gateway needs neither a counter nor a clock that survives a power cut.
#     MAC   6 bytes  HMAC-SHA256(reader's key, all bytes before)[:6]
#
#   1 SIGHTINGS      rows of 4 bytes, at most 13: tags whose slot is bound
#     slot u8 | moving (1 bit), dB below 0 dBm (7 bits; 127: none) | age u8 (50 ms steps; 255: this or older) |
#     packets-1 (3 bits; 7: 8 or more), beacon counter mod 32 (5 bits). moving and counter are of the newest packet.
#   2 BINDINGS       rows of 23 bytes, at most 2: tags whose slot the gateway has not acknowledged yet
#     slot u8 | rssi i8 | age u8 | packets u8 (255: this or more) | advertisement 19 bytes, newest, as it was heard
#   3 SOS            alarm u8 | shown u8 | age u16 (10 ms steps) | rssi i8 | packets u8 | advertisement 19 bytes
#   4 BELL           alarm u8 | shown u8 | age u16 (10 ms steps) | input u8 | presses u8 [| boot u16 | alarm u8]
#     alarm is the number of this alarm in this boot; shown is the stage that its lamp shows now. Sent at once, again
#     whenever the lamp changes, again until a STAGE >= RECEIVED comes, then slowly until the alarm is closed.
#     age 65535: 655 s or more, or not known. A BELL of 9 bytes reports a press of an earlier boot again, after a power
#     cut; its last two fields are that boot and its alarm number there. Its age is not known.
#   5 HEARTBEAT      see HEARTBEAT_FIELDS
#   6 NEIGHBOURS     rows of 13 bytes, at most 4: bursts of other readers' beacons; never repeated or acknowledged
#     reader u16 | boot u16 | counter u16 | power i8 | MAC 4 bytes | rssi i8 | packets u8 (255: this or more)
#     bytes 1..7 and 15..18 of a beacon as it was heard (layout: readers/advertisement.py). The gateway checks its MAC.
#     rssi is the mean of `packets` identical packets.
#
#   8 ACK            flags u8 (bit 0: the gateway does not know the slots, bind all again; bit 1: frames to or from this
#                    reader get lost, scan less) | rows of 5 bytes, at most 6: what arrived
#     slot u8 (255: a heartbeat) | low 16 bits of the frame's sequence | mark u16
#     mark is what the next cry of this slot's tag carries (readers/advertisement.py), so that the reader knows it from
#     a stranger's; 0: the tag is not of this zone.
#   9 STAGE          rows of 2 bytes, at most 17: alarm u8 | stage u8 (0: the number now means another alarm, or what
#                    came was a copy of a cry: its lamp begins again, and the next cry is sent; + 128: a key proves
#                    that the alarm is a known child's)
#  10 SETTINGS       version u16 | report window u16 ms | scan interval u8 ms | scan window u8 ms | heartbeat u16 s |
#                    frames a minute u16 | company id u16
#     A frame to a reader has at most 48 bytes: a source route takes 2 bytes and 2 more for each relay.
#
# A slot is bound when its BINDINGS frame was acknowledged. The gateway accepts a SIGHTINGS row only if its sequence is
# newer than that of the binding. If a row has an unknown slot, the gateway asks for all bindings. So a lost frame, a
# restart of either side or a slot given to another tag can cause a repetition, but never a wrong child.
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # only for the type checker: neither interpreter runs it
    from collections.abc import Callable, Iterable, Sequence

    Mac = Callable[[bytes], bytes]

VERSION = 3
FRAME_MAX = 66
MAC_SIZE = 6
HEADER_SIZE = 8
BODY_MAX = FRAME_MAX - HEADER_SIZE - MAC_SIZE
SEQUENCE_MAX = 0xFFFFFF

SIGHTINGS = 1
BINDINGS = 2
SOS = 3
BELL = 4
HEARTBEAT = 5
NEIGHBOURS = 6
ACK = 8
STAGE = 9
SETTINGS = 10

# Stages of an alarm, in the order in which a child sees them. A lamp never goes back, except to 0.
WAITING = 0  # in a STAGE frame: the number means another alarm now
RECEIVED = 1  # the gateway has committed it
STORED = 2  # the city has committed it
ACKNOWLEDGED = 3  # a person has it: help is coming
DISPATCHED = 4
CLOSED = 5
PROVEN = 0x80  # this bit of a stage in a STAGE frame

ADVERTISEMENT_SIZE = 19
ADVERTISEMENT_VERSION = 0x20  # high nibble 2: version; low nibble 0: type, a tag
FLAG_SOS = 0x01  # these two are in clear, because a reader acts on them; the others are below
FLAG_MOVING = 0x04

RSSI_NONE = 127
AGE_STEP_MS = 50
ROW_SIZE = 4
BINDING_SIZE = 4 + ADVERTISEMENT_SIZE
ALARM_AGE_STEP_MS = 10
DOWN_MAX = 48
STAGES_MAX = (DOWN_MAX - HEADER_SIZE - MAC_SIZE) // 2
ACK_SIZE = 5
ACKS_MAX = (DOWN_MAX - HEADER_SIZE - MAC_SIZE - 1) // ACK_SIZE
ACK_HEARTBEAT = 255  # in place of a slot
ACK_REBIND = 0x01
ACK_LOSSES = 0x02
BOOT_DRAWN = 0x8000  # this bit of a boot: not kept in flash

HEARTBEAT_FORMAT = ">IBHHBBHHHHHIHHHHbBH"  # HEARTBEAT_FIELDS, below
SETTINGS_FORMAT = ">HHBBHHH"


class WireError(Exception):
    """These bytes are not a valid frame: too short, too long, another version, a wrong MAC, or an unfit body."""


# ---- encoding. The pack_* functions write into a buffer that the reader allocated once. ----


def begin(buf: bytearray, kind: int, reader: int, boot: int, sequence: int) -> int:
    """Write a frame's header into buf (FRAME_MAX bytes or more) and return the offset of the body."""
    struct.pack_into(">BHHBH", buf, 0, VERSION << 4 | kind, reader, boot, sequence >> 16, sequence & 0xFFFF)
    return HEADER_SIZE


def pack_row(
    buf: bytearray, offset: int, slot: int, rssi_dbm: int | None, age_ms: int, packets: int, counter: int, moving: int
) -> int:
    """Write one SIGHTINGS row and return the offset after it. rssi_dbm None or above 0: not known; at least -126.

    moving: a bool, or the flags masked with FLAG_MOVING (zero is false).
    """
    level = RSSI_NONE if rssi_dbm is None or rssi_dbm > 0 else min(-rssi_dbm, RSSI_NONE - 1)
    struct.pack_into(
        "4B",
        buf,
        offset,
        slot,
        level | 0x80 if moving else level,
        min(age_ms // AGE_STEP_MS, 255),
        (min(packets, 8) - 1) << 5 | counter & 31,
    )
    return offset + ROW_SIZE


def pack_binding(
    buf: bytearray,
    offset: int,
    slot: int,
    rssi_dbm: int | None,
    age_ms: int,
    packets: int,
    advertisement: bytes | bytearray,
) -> int:
    """Write one BINDINGS row and return the offset after it. advertisement: 19 bytes."""
    struct.pack_into(
        "BbBB19s",
        buf,
        offset,
        slot,
        RSSI_NONE if rssi_dbm is None else rssi_dbm,
        min(age_ms // AGE_STEP_MS, 255),
        min(packets, 255),
        advertisement,
    )
    return offset + BINDING_SIZE


def pack_neighbour(buf: bytearray, offset: int, rssi_dbm: int, packets: int, advertisement: bytes | bytearray) -> int:
    """Write one NEIGHBOURS row and return the offset after it. advertisement: 19 bytes of another reader's beacon."""
    struct.pack_into("7s4sbB", buf, offset, advertisement[1:8], advertisement[15:19], rssi_dbm, min(packets, 255))
    return offset + 13


def pack_sos(
    buf: bytearray,
    offset: int,
    alarm: int,
    shown: int,
    age_ms: int,
    rssi_dbm: int | None,
    packets: int,
    advertisement: bytes | bytearray,
) -> int:
    """Write the body of an SOS and return the offset after it."""
    struct.pack_into(
        ">BBHbB19s",
        buf,
        offset,
        alarm,
        shown,
        min(age_ms // ALARM_AGE_STEP_MS, 0xFFFF),
        RSSI_NONE if rssi_dbm is None else rssi_dbm,
        min(packets, 255),
        advertisement,
    )
    return offset + 6 + ADVERTISEMENT_SIZE


def pack_bell(
    buf: bytearray,
    offset: int,
    alarm: int,
    shown: int,
    age_ms: int,
    bell_input: int,
    presses: int,
    boot: int = 0,
    number: int = 0,
) -> int:
    """Write a BELL body and return the offset after it. boot, number: of an earlier boot's press, 0 for one of now."""
    age = min(age_ms // ALARM_AGE_STEP_MS, 0xFFFF)
    struct.pack_into(">BBHBB", buf, offset, alarm, shown, age, bell_input, presses & 0xFF)
    if not boot:
        return offset + 6
    struct.pack_into(">HB", buf, offset + 6, boot, number)
    return offset + 9


def pack_heartbeat(buf: bytearray, offset: int, *values: int) -> int:
    """Write the body of a HEARTBEAT (values in the order of HEARTBEAT_FIELDS, in range); return the offset after it."""
    struct.pack_into(HEARTBEAT_FORMAT, buf, offset, *values)
    return offset + struct.calcsize(HEARTBEAT_FORMAT)


def seal(buf: bytearray, end: int, mac: "Mac") -> bytes:
    """Append the MAC and return the whole frame as bytes. mac(data) has at least MAC_SIZE bytes."""
    frame = bytes(buf[:end])
    return frame + mac(frame)[:MAC_SIZE]


# ---- decoding. Whatever the bytes are, nothing here raises anything except WireError. ----


def peek(frame: bytes) -> tuple[int, int, int, int]:
    """Return (kind, reader, boot, sequence) of a frame before its MAC is checked, to find the key of its reader."""
    if len(frame) < HEADER_SIZE + MAC_SIZE:
        raise WireError("%d bytes, a frame has at least %d" % (len(frame), HEADER_SIZE + MAC_SIZE))
    if len(frame) > FRAME_MAX:
        raise WireError("%d bytes, a frame has at most %d" % (len(frame), FRAME_MAX))
    first, reader, boot, high, low = struct.unpack_from(">BHHBH", frame, 0)
    if first >> 4 != VERSION:
        raise WireError("version %d, this side speaks %d" % (first >> 4, VERSION))
    return first & 15, reader, boot, high << 16 | low


def body_of(frame: bytes, mac: "Mac") -> bytes:
    """Check the MAC and return the body. Call peek first."""
    end = len(frame) - MAC_SIZE
    good = mac(frame[:end])
    difference = 0
    for i in range(MAC_SIZE):
        difference |= good[i] ^ frame[end + i]
    if difference:
        raise WireError("wrong MAC")
    return frame[HEADER_SIZE:end]


def _rows(body: bytes, size: int, rows_max: int) -> range:
    if len(body) % size or not 0 < len(body) <= size * rows_max:
        raise WireError("body of %d bytes, expected 1..%d rows of %d" % (len(body), rows_max, size))
    return range(0, len(body), size)


def _fixed(body: bytes, size: int) -> None:
    if len(body) != size:
        raise WireError("body of %d bytes, expected %d" % (len(body), size))


def decode_ack(body: bytes) -> tuple[int, list[tuple[int, int, int]]]:
    """Return (flags, list of (slot, low 16 bits of the sequence, mark))."""
    if not body or (len(body) - 1) % ACK_SIZE or len(body) > 1 + ACK_SIZE * ACKS_MAX:
        raise WireError("body of %d bytes is no ACK" % len(body))
    return body[0], [struct.unpack_from(">BHH", body, offset) for offset in range(1, len(body), ACK_SIZE)]


def decode_stage(body: bytes) -> list[tuple[int, int]]:
    """Return a list of (alarm, stage)."""
    return [(body[offset], body[offset + 1]) for offset in _rows(body, 2, STAGES_MAX)]


def decode_settings(body: bytes) -> tuple[int, ...]:
    """Return a tuple in the order of SETTINGS_FIELDS."""
    _fixed(body, struct.calcsize(SETTINGS_FORMAT))
    return struct.unpack(SETTINGS_FORMAT, body)


# ---- the gateway's half: the reader's build stops at this line (its heap is 30 KB and it needs nothing below) ----

BEACON_VERSION = ADVERTISEMENT_VERSION | 1  # type 1: a reader's own beacon

FLAG_BATTERY_LOW = 0x02
FLAG_DRILL = 0x08
FLAG_CLOCK_UNSURE = 0x10

ROWS_MAX = BODY_MAX // ROW_SIZE
BINDINGS_MAX = BODY_MAX // BINDING_SIZE
NEIGHBOUR_SIZE = 13
NEIGHBOURS_MAX = BODY_MAX // NEIGHBOUR_SIZE

# The values of a heartbeat, in this order. Counters start at boot and wrap at their width.
HEARTBEAT_FIELDS = (
    "uptime_s",
    "reset_cause",  # the module's own number (machine.reset_cause())
    "firmware",  # major << 8 | minor
    "settings_version",
    "tags",  # rows of the table in use
    "alarms",  # alarms not closed
    "evictions",  # rows given to another tag while still fresh
    "discards",  # alarms dropped by a full ring, reports cut short by the frame budget
    "transmit_failed",
    "transmit_busy",  # EAGAIN: the module had no buffer
    "refused",  # downlinks with a wrong MAC, boot or age
    "heard",  # advertisements of our format
    "foreign",  # other advertisements
    "heap_free",  # bytes, 65535: this or more
    "heap_used",
    "supply_mv",
    "temperature_c",
    "scan_duty_pct",
    "faults",  # bits of FAULTS, set since boot
)
# What a reader has caught and lives with, one bit each from bit 0.
FAULTS = (
    "pins",  # the module refused a pin of config.py
    "flash",  # a file could not be read or written
    "boot",  # the boot number is drawn, not kept
    "settings",  # the settings on flash could not be used
    "scan",  # the scanner does not start, or broke
    "advertisement",  # an advertisement raised an error
    "beacon",  # the own beacon could not be sent
    "measure",  # a value of the heartbeat could not be measured: it is 0
    "send",  # transmit refused a frame for another reason than the mesh
    "report",  # a routine report raised an error
    "interrupt",  # bytes on its serial line interrupted the program
    "crash",  # the boot before this one ended in a crash
    "watchdog",  # there is no watchdog
    "memory",  # the heap was full for a moment
)
SETTINGS_FIELDS = (
    "version",
    "window_ms",
    "scan_interval_ms",
    "scan_window_ms",
    "heartbeat_s",
    "frames_per_min",
    "company_id",
)


def encode(kind: int, reader: int, boot: int, sequence: int, body: bytes, mac: "Mac") -> bytes:
    """Return one complete frame. Raises WireError if the body has more than BODY_MAX bytes."""
    if len(body) > BODY_MAX:
        raise WireError("body of %d bytes, at most %d fit one frame" % (len(body), BODY_MAX))
    buf = bytearray(FRAME_MAX)
    offset = begin(buf, kind, reader, boot, sequence)
    buf[offset : offset + len(body)] = body
    return seal(buf, offset + len(body), mac)


def encode_sightings(rows: "Sequence[tuple[int, int | None, int, int, int, bool]]") -> bytes:
    """Return a SIGHTINGS body. rows: (slot, rssi_dbm, age_ms, packets, counter, moving), at most ROWS_MAX."""
    buf = bytearray(ROW_SIZE * len(rows))
    offset = 0
    for slot, rssi_dbm, age_ms, packets, counter, moving in rows:
        offset = pack_row(buf, offset, slot, rssi_dbm, age_ms, packets, counter, moving)
    return bytes(buf)


def encode_bindings(rows: "Sequence[tuple[int, int | None, int, int, bytes]]") -> bytes:
    """Return a BINDINGS body. rows: (slot, rssi_dbm, age_ms, packets, advertisement), at most BINDINGS_MAX."""
    buf = bytearray(BINDING_SIZE * len(rows))
    offset = 0
    for slot, rssi_dbm, age_ms, packets, advertisement in rows:
        offset = pack_binding(buf, offset, slot, rssi_dbm, age_ms, packets, advertisement)
    return bytes(buf)


def encode_neighbours(rows: "Sequence[tuple[int, int, int, int, bytes, int | None, int]]") -> bytes:
    """Return a NEIGHBOURS body. rows: as `decode_neighbours` returns them, at most NEIGHBOURS_MAX."""
    return b"".join(
        [
            struct.pack(
                ">HHHb4sbB",
                reader,
                boot,
                counter,
                power_dbm,
                mac,
                RSSI_NONE if rssi_dbm is None else rssi_dbm,
                min(packets, 255),
            )
            for reader, boot, counter, power_dbm, mac, rssi_dbm, packets in rows
        ]
    )


def encode_sos(alarm: int, shown: int, age_ms: int, rssi_dbm: int | None, packets: int, advertisement: bytes) -> bytes:
    buf = bytearray(6 + ADVERTISEMENT_SIZE)
    pack_sos(buf, 0, alarm, shown, age_ms, rssi_dbm, packets, advertisement)
    return bytes(buf)


def encode_bell(
    alarm: int, shown: int, age_ms: int, bell_input: int, presses: int, boot: int = 0, number: int = 0
) -> bytes:
    buf = bytearray(9)
    return bytes(buf[: pack_bell(buf, 0, alarm, shown, age_ms, bell_input, presses, boot, number)])


def encode_heartbeat(values: "Sequence[int]") -> bytes:
    return struct.pack(HEARTBEAT_FORMAT, *values)


def encode_ack(flags: int, rows: "Iterable[tuple[int, int, int]]") -> bytes:
    """Return an ACK body. flags: ACK_REBIND, ACK_LOSSES or both. rows: (slot, sequence, mark), at most ACKS_MAX."""
    return bytes([flags]) + b"".join(
        [struct.pack(">BHH", slot, sequence & 0xFFFF, mark) for slot, sequence, mark in rows]
    )


def encode_stage(rows: "Iterable[tuple[int, int]]") -> bytes:
    """Return a STAGE body. rows: (alarm, stage), at most STAGES_MAX."""
    return b"".join([bytes([alarm, stage]) for alarm, stage in rows])


def encode_settings(values: "Sequence[int]") -> bytes:
    """Return a SETTINGS body (values in the order of SETTINGS_FIELDS)."""
    return struct.pack(SETTINGS_FORMAT, *values)


def _rssi(value: int) -> int | None:
    return None if value == RSSI_NONE else value


def decode_sightings(body: bytes) -> list[tuple[int, int | None, int, int, int, bool]]:
    """Return a list of (slot, rssi_dbm -126..0 | None, age_ms, packets 1..8, counter 0..31, moving)."""
    rows = []
    for offset in _rows(body, ROW_SIZE, ROWS_MAX):
        slot, first, age, last = struct.unpack_from("4B", body, offset)
        level = first & 0x7F
        rssi_dbm = None if level == RSSI_NONE else -level
        rows.append((slot, rssi_dbm, age * AGE_STEP_MS, (last >> 5) + 1, last & 31, first > 0x7F))
    return rows


def decode_bindings(body: bytes) -> list[tuple[int, int | None, int, int, bytes]]:
    """Return a list of (slot, rssi_dbm | None, age_ms, packets, advertisement)."""
    rows = []
    for offset in _rows(body, BINDING_SIZE, BINDINGS_MAX):
        slot, rssi, age, packets = struct.unpack_from("BbBB", body, offset)
        rows.append((slot, _rssi(rssi), age * AGE_STEP_MS, packets, bytes(body[offset + 4 : offset + BINDING_SIZE])))
    return rows


def decode_neighbours(body: bytes) -> list[tuple[int, int, int, int, bytes, int | None, int]]:
    """Return a list of (reader, boot, counter, power_dbm, mac, rssi_dbm | None, packets)."""
    rows = []
    for offset in _rows(body, NEIGHBOUR_SIZE, NEIGHBOURS_MAX):
        reader, boot, counter, power_dbm, mac, rssi, packets = struct.unpack_from(">HHHb4sbB", body, offset)
        rows.append((reader, boot, counter, power_dbm, mac, _rssi(rssi), packets))
    return rows


def decode_sos(body: bytes) -> tuple[int, int, int, int | None, int, bytes]:
    """Return (alarm, shown, age_ms, rssi_dbm | None, packets, advertisement)."""
    _fixed(body, 6 + ADVERTISEMENT_SIZE)
    alarm, shown, age, rssi, packets = struct.unpack_from(">BBHbB", body, 0)
    return alarm, shown, age * ALARM_AGE_STEP_MS, _rssi(rssi), packets, bytes(body[6:])


def decode_bell(body: bytes) -> tuple[int, int, int, int, int, int, int]:
    """Return (alarm, shown, age_ms, input, presses, boot, number). boot is 0 except for a press of an earlier boot."""
    boot = number = 0
    if len(body) == 9:
        boot, number = struct.unpack_from(">HB", body, 6)
    else:
        _fixed(body, 6)
    alarm, shown, age, bell_input, presses = struct.unpack_from(">BBHBB", body, 0)
    return alarm, shown, age * ALARM_AGE_STEP_MS, bell_input, presses, boot, number


def decode_heartbeat(body: bytes) -> tuple[int, ...]:
    """Return a tuple in the order of HEARTBEAT_FIELDS."""
    _fixed(body, struct.calcsize(HEARTBEAT_FORMAT))
    return struct.unpack(HEARTBEAT_FORMAT, body)
