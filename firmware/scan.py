# Bluetooth: advertisement -> row of the table, and this reader's own beacon. Holds the table and sets the scan duty.
#
# A row has 29 bytes; its number is the slot on the wire:
#   0..18 newest advertisement (its id at 1..8) | 19..20 sum of -rssi since the last report (0xFFFF: no packet had a
#   level); without a packet since then, -rssi as it was reported | 21 packets since then | 22..23 last heard, 8 ms
#   steps, wraps | 24 state: 0 free, 1 unbound, 2 bound |
#   25..26 mark: what its next cry carries (0: of no tag that the gateway knows); stays while the row is bound anew |
#   27..28 low half of the sequence of the first BINDINGS frame since it was unbound (0: none)
# A row of `neighbours` has 22 bytes, one burst of another reader's beacon: 0..18 the beacon (first byte 0: free) |
# 19..20 sum of -rssi | 21 packets
#
# Anybody can advertise any id. So a row with a mark gives way to no row without one (at most _KNOWN_MAX have one, the
# rest of the table is for those that the gateway has not seen yet). Among the others, and among those with a mark, who
# is louder stays: near the reader a row says where a child is, and far from it another reader hears the child better.
# Rows with the same first id byte (mod 64) form a chain: `_head` by that byte, `_next` by slot; slot + 1, 0 ends it.
import os
import struct
import time

import alarm
import health
import link
import settings
import wire
from digi import ble
from micropython import const

_SIZE = const(29)
_ROWS = const(128)
_KNOWN_MAX = const(112)
_LOUDER_DB = const(4)  # than a row is worth: so much a newcomer must be, or two rows would take turns
_LOOKS = const(32)  # rows that a newcomer is looked for: a search through the whole table takes too long
_ANY = const(247)  # of 255: one newcomer in 32 takes any row without a mark, so that none is kept out for ever
_FRESH = const(7500)  # 60 s in 8 ms steps
_NO_LEVEL = const(0xFFFF)
_DRAIN_MS = const(30)  # of a pass, for what the scanner has queued
_WINDOW_MIN_US = const(2500)  # Digi's own minimum
_INTERVAL_MS = const(2)  # in settings.values
_WINDOW_MS = const(3)
_COMPANY_ID = const(6)
_EVICTIONS = const(0)  # in link.counters
_HEARD = const(5)
_FOREIGN = const(6)
_FAULT_SCAN = const(4)  # places in wire.FAULTS
_FAULT_ADVERTISEMENT = const(5)
_FAULT_BEACON = const(6)

_BURST_US = const(100000)  # between two packets of a burst
_BURST_MS = const(2000)
_PAUSE_MS = const(240000)
_POWER_DBM = const(-30)  # at 1 m: 8 dBm + 2 dBi - 40 dB; nominal, the gateway fits the rest
_NEIGHBOURS = const(88)  # 4 rows of 22: one frame
_DUE = const(0)  # ticks when a burst begins or ends next
_PAUSE = const(1)
_BURSTING = const(2)
_BURSTS = const(3)
_JITTER = const(4)
_OLDEST = const(5)  # row of `neighbours` that is overwritten next
_TRY = const(6)  # ticks when the scan is started next
_DOWN = const(7)  # ticks since when there is no scan
_WAIT_MS = const(5000)  # between two starts that fail; the first second every pass tries: a stop may be late
_WORKED = const(8)  # there was a scan in this boot
_USED = const(9)  # the interval of the scan that runs
_ALARM = const(4)

table = health.table
_head = bytearray(64)
_next = bytearray(_ROWS)
tags = 0
shift = 0  # how often the settings' interval is doubled because the mesh suffers
neighbours = bytearray(_NEIGHBOURS)
_turn = [-1, 7500, 1, 0, 0, 0, 0, 0, 0, 0]  # as if a burst ended at the first call
_scanner: "ble._gap_scan | None" = None


def restart() -> None:
    """End the scan. `drain` starts it anew, with what the settings, `shift` and the alarms ask for then."""
    global _scanner
    _turn[_TRY] = _turn[_DOWN] = time.ticks_ms()
    old = _scanner
    _scanner = None
    if old is not None:
        try:
            old.stop()
        except Exception:
            health.fault(_FAULT_SCAN)


def _start(now: int) -> None:
    global _scanner
    if time.ticks_diff(now, _turn[_TRY]) < 0:
        return
    alarm.light()
    try:
        ble.active(True)
        _turn[_USED] = _interval_us()
        _scanner = ble.gap_scan(0, interval_us=_turn[_USED], window_us=_window_us())
        _turn[_WORKED] = 1
    except Exception:
        if time.ticks_diff(now, _turn[_DOWN]) > 1000:
            health.fault(_FAULT_SCAN)
            _turn[_TRY] = time.ticks_add(now, _WAIT_MS)


def _window_us() -> int:
    return max(settings.values[_WINDOW_MS] * 1000, _WINDOW_MIN_US)


def _interval_us() -> int:
    """Return the settings' interval; while a press waits for a person at least _ALARM windows, or its answer may not
    come. Once help is shown the scan goes on: others arrive meanwhile."""
    waits = alarm.lit[4] and alarm.lit[2] < wire.ACKNOWLEDGED
    return max(settings.values[_INTERVAL_MS], waits and settings.values[_WINDOW_MS] * _ALARM) * 1000 << shift


def later(wait_ms: int) -> None:
    """Start the scan only after this time."""
    _turn[_TRY] = time.ticks_add(time.ticks_ms(), wait_ms)


def duty() -> int:
    """Return the share of time in which the scanner listens, in percent; 0 while there is no scan."""
    return 0 if _scanner is None else _window_us() * 100 // _interval_us()


def hopeless(now: int) -> bool:
    """Return whether there was no scan for an hour, or for 5 minutes after one had worked. A reset may help then."""
    return _scanner is None and time.ticks_diff(now, _turn[_DOWN]) > (300000 if _turn[_WORKED] else 3600000)


def drain(now: int) -> None:
    """Take what the scanner has queued; start it if it does not run. What it raises costs the scan, not the pass."""
    try:
        if _scanner is None or _scanner.stopped():
            if _scanner is not None:
                restart()
            _start(now)
        elif _scanner.any():
            alarm.light()  # nobody knows that the next line never waits
            for advertisement in _scanner:
                try:
                    data = advertisement["payload"]
                    if data:
                        _take(data, -advertisement["rssi"], now)
                except Exception:
                    health.fault(_FAULT_ADVERTISEMENT)
                if not _scanner.any() or time.ticks_diff(time.ticks_ms(), now) > _DRAIN_MS:
                    break
        if _scanner is not None and _turn[_USED] != _interval_us():
            restart()  # if an alarm has begun, it is sent before there is a scan again
    except Exception:
        health.fault(_FAULT_SCAN)
        restart()
        _turn[_TRY] = time.ticks_add(now, _WAIT_MS)


def forget() -> None:
    """Empty the table: an interrupt may have come while a chain was half changed."""
    global tags
    tags = 0
    for i in range(_ROWS):
        _next[i] = 0
        table[i * _SIZE + 24] = 0
    for i in range(64):
        _head[i] = 0


def _take(data: bytes, loss: int, now: int) -> None:
    global tags
    end = len(data)
    i = 0
    while i + 23 <= end and data[i]:
        if (
            data[i] == 22
            and data[i + 1] == 0xFF
            and data[i + 2] | data[i + 3] << 8 == settings.values[_COMPANY_ID]
            and data[i + 4] & 0xFE == wire.ADVERTISEMENT_VERSION
        ):
            break
        i += data[i] + 1
    else:
        link.counters[_FOREIGN] += 1
        return
    link.counters[_HEARD] += 1
    data = data[i + 4 : i + 23]
    loss = min(loss, 126)  # below 0: above 0 dBm, or not known (127); such a packet has no level
    if data[0] & 1:  # another reader's; only identical packets are added up
        for row in range(0, _NEIGHBOURS, 22):
            if neighbours[row] and neighbours[row + 1 : row + 3] == data[1:3]:
                break
        else:
            row = _turn[_OLDEST]
            _turn[_OLDEST] = (row + 22) % _NEIGHBOURS
        if neighbours[row : row + 19] != data:
            struct.pack_into("19s3B", neighbours, row, data, 0, 0, 0)
        take(neighbours, row, loss)
        return
    slot = _head[data[1] & 63]
    row = -1
    while slot:
        row = (slot - 1) * _SIZE
        if table[row + 1 : row + 9] == data[1:9]:
            break
        slot = _next[slot - 1]
    if data[9] & wire.FLAG_SOS:
        alarm.cry(data, loss, now, slot > 0 and table[row + 25 : row + 27] == data[13:15] != b"\0\0")
    if slot:
        # Every report says whether the tag moves; other flags and presses need the whole advertisement.
        if (table[row + 9] ^ data[9]) & ~wire.FLAG_MOVING or table[row + 10] != data[10]:
            unbind(row)
    else:
        slot = _room(now, _LOUDER_DB if data[9] & wire.FLAG_SOS else -loss) + 1
        if not slot:
            return
        row = (slot - 1) * _SIZE
        struct.pack_into("HHHHH", table, row + 19, 0, 0, 0, 0, 0)
        table[row + 24] = 1
        _next[slot - 1] = _head[data[1] & 63]
        _head[data[1] & 63] = slot
        tags += 1
    struct.pack_into("19s", table, row, data)
    take(table, row, loss)
    struct.pack_into(">H", table, row + 22, now >> 3 & 0xFFFF)


def take(buf: bytearray, row: int, loss: int) -> None:
    """Add a packet to the mean of a row. One without a level counts only as long as no other has one."""
    packets = buf[row + 21]
    total = buf[row + 19] << 8 | buf[row + 20]
    if packets == 255 or (loss < 0 and packets and total != _NO_LEVEL):
        return
    if loss < 0:
        total = _NO_LEVEL
    elif not packets or total == _NO_LEVEL:
        total = loss
        packets = 0
    else:
        total += loss
    struct.pack_into(">HB", buf, row + 19, total, packets + 1)


def rssi(buf: bytearray, row: int) -> int:
    """Return the mean level of a row's packets, wire.RSSI_NONE if none had one; without a packet the reported one."""
    total = buf[row + 19] << 8 | buf[row + 20]
    packets = max(buf[row + 21], 1)
    return wire.RSSI_NONE if total == _NO_LEVEL else -((total + packets // 2) // packets)


def beacon(now: int) -> None:
    """Begin or end a burst of our own when it is due: 15 s after boot, then after 30 s, 1, 2, 4, 4 .. min, each +-20 %.

    While an alarm is open, none begins and a running one ends. The first call stops the module's own advertisement.
    """
    early = _turn[_DUE] >= 0 and time.ticks_diff(now, _turn[_DUE]) < 0
    if not _turn[_BURSTING] if alarm.lit[4] and _turn[_DUE] >= 0 else early:
        return
    alarm.light()
    try:
        if _turn[_BURSTING]:
            _turn[_BURSTING] = 0
            _turn[_PAUSE] = min(_turn[_PAUSE] * 2, _PAUSE_MS)
            wait = _turn[_PAUSE] * 4 // 5 + (_turn[_PAUSE] * 2 // 5) * _turn[_JITTER] // 255
            _turn[_DUE] = time.ticks_add(now, wait)
            ble.gap_advertise(None)
        elif not alarm.lit[4]:
            _turn[_BURSTING] = 1
            _turn[_BURSTS] = _turn[_BURSTS] + 1 & 0xFFFF
            _turn[_DUE] = time.ticks_add(now, _BURST_MS)
            body = link.beacon(_turn[_BURSTS], _POWER_DBM)
            _turn[_JITTER] = body[18]  # of its MAC: it serves as a random number
            ble.gap_advertise(_BURST_US, struct.pack("<5BH", 2, 1, 6, 22, 0xFF, settings.values[_COMPANY_ID]) + body)
    except Exception:
        health.fault(_FAULT_BEACON)


def age(row: int, now: int) -> int:
    """Return how long ago a row was heard, in 8 ms steps."""
    return (now >> 3) - (table[row + 22] << 8 | table[row + 23]) & 0xFFFF


def _worth(row: int, now: int) -> int:
    """Return what keeps a row: its level, 2 dB less for each second since it was heard; a cry comes before all."""
    return 0 if table[row + 9] & wire.FLAG_SOS else rssi(table, row) - (age(row, now) >> 6)


def _room(now: int, level: int) -> int:
    """Return a free slot. If none is free: one that is stale, or that has no mark and is worth less than this level, or
    now and then any without a mark; -1: none of those looked at."""
    i = dice = os.urandom(1)[0]
    for n in range(_ROWS):
        i = (i + 1) % _ROWS
        row = i * _SIZE
        if not table[row + 24]:
            return i
        if tags == _ROWS:
            if age(row, now) >= _FRESH:
                break
            if not (table[row + 25] | table[row + 26]) and (dice > _ANY or _worth(row, now) + _LOUDER_DB <= level):
                link.counters[_EVICTIONS] += 1
                break
            if n > _LOOKS and dice <= _ANY:
                return -1
    free(i)
    return i


def free(slot: int) -> None:
    global tags
    i = table[slot * _SIZE + 1] & 63
    if _head[i] == slot + 1:
        _head[i] = _next[slot]
    else:
        i = _head[i] - 1
        while _next[i] != slot + 1:
            i = _next[i] - 1
        _next[i] = _next[slot]
    table[slot * _SIZE + 24] = 0
    tags -= 1


def sweep(now: int) -> None:
    """Free the rows of tags that are gone. Call it at least every 8 minutes: the 16 bits of `last heard` wrap."""
    for i in range(_ROWS):
        if table[i * _SIZE + 24] and age(i * _SIZE, now) >= _FRESH:
            free(i)


def unbind(row: int) -> None:
    """Send the whole advertisement again; row -1: of all rows. An acknowledgement under way no longer counts."""
    for row in (row,) if row >= 0 else range(0, _SIZE * _ROWS, _SIZE):
        if table[row + 24]:
            table[row + 24] = 1
            table[row + 27] = table[row + 28] = 0


def bind(slot: int, sequence: int, mark: int, now: int) -> None:
    """The gateway has the BINDINGS frame with these low 16 bits of its sequence: the slot's row takes 4 bytes from now
    on. mark: of its next cry; 0 changes nothing, for whoever copies a tag's id must not make the tag a stranger."""
    row = slot * _SIZE
    if slot >= _ROWS or not table[row + 24]:
        return
    first = table[row + 27] << 8 | table[row + 28]
    if not first or link.sequence - sequence & 0xFFFF > link.sequence - first & 0xFFFF:
        return  # of what was in the slot before
    table[row + 24] = 2
    if not mark:
        return
    struct.pack_into(">H", table, row + 25, mark)
    known = least = 0
    quietest = slot
    for i in range(_ROWS):
        row = i * _SIZE
        if table[row + 24] and table[row + 25] | table[row + 26]:
            known += 1
            worth = _worth(row, now)
            if i != slot and (quietest == slot or worth < least):
                least = worth
                quietest = i
    if known > _KNOWN_MAX:
        struct.pack_into("2s", table, quietest * _SIZE + 25, b"")
