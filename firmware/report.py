# Routine reports: rows of the table -> SIGHTINGS and BINDINGS frames, and the heartbeat. One frame a pass, so that an
# emergency never waits behind more than the frame that is on the air.
import gc
import os
import struct

import alarm
import link
import machine
import scan
import settings
import time
import wire
import xbee
from micropython import const

_SIZE = const(29)  # of scan's rows
_ROWS = const(128)
_BINDINGS_MAX = const(4)  # frames a window
_FRAME = const(60000)  # what one frame costs in the budget, which grows by frames a minute every millisecond
_BURST = const(16 * 60000)
_FIRMWARE = const(0x0001)  # major << 8 | minor

discards = 0
_left = bytearray(4)  # by state of a row: how many rows this round has still to look at
_at = bytearray(4)  # by state: the row looked at last; rounds cut short go on where they stopped
_turn = 1
_bindings = 0
_budget = 8 * 60000
_budget_at = 0
_due = 0
_beat_due = 0
_beat_wait = 2000
_beats = [0, 0]  # sequences of the last two heartbeats
_busy_seen = 0
_duty_due = 0
_calm = 0
uptime_s = 0
_uptime_at = 0


def start(now: int) -> None:
    global _due, _beat_due, _budget_at, _duty_due, _uptime_at
    _due = _budget_at = _beat_due = _duty_due = _uptime_at = now


def tick(now: int) -> None:
    """Send at most one frame."""
    global _due, _turn, _bindings, _budget, _budget_at, discards
    if time.ticks_diff(now, _beat_due) >= 0:
        _beat(now)
        return
    if not (_left[1] or _left[2]):
        if time.ticks_diff(now, _due) < 0:
            return
        window = settings.values[settings.WINDOW_MS]
        _due = time.ticks_add(now, window * 4 // 5 + (window * 2 // 5) * os.urandom(1)[0] // 255)
        passed = min(time.ticks_diff(now, _budget_at), 60000)
        _budget_at = now
        _budget = min(_budget + passed * settings.values[settings.FRAMES_PER_MIN], _BURST)
        _left[1] = _left[2] = _ROWS
        _bindings = _BINDINGS_MAX
    if _budget < _FRAME:
        if _waiting():
            discards += 1
        _left[1] = _left[2] = 0
        return
    _turn = 3 - _turn
    if not _left[_turn] or (_turn == 1 and not _bindings):
        _left[1] = _left[1] if _bindings else 0
        _turn = 3 - _turn
    if _left[_turn] and _rows(now, _turn):
        _budget -= _FRAME
        if _turn == 1:
            _bindings -= 1


def _waiting() -> bool:
    for row in range(0, _SIZE * _ROWS, _SIZE):
        if scan.table[row + 24] and scan.table[row + 21]:
            return True
    return False


def _rows(now: int, state: int) -> bool:
    """Send the next rows of a state (1 unbound, 2 bound); return whether a frame was made."""
    table = scan.table
    size = wire.BINDING_SIZE if state == 1 else wire.ROW_SIZE
    most = wire.BODY_MAX // size
    slot = _at[state]
    left = _left[state]
    end = 0
    rows = 0
    while left and rows < most:
        slot = (slot + 1) % _ROWS
        left -= 1
        row = slot * _SIZE
        packets = table[row + 21]
        if table[row + 24] != state or not packets:
            continue
        if not rows:
            end = link.begin(wire.BINDINGS if state == 1 else wire.SIGHTINGS)
        rssi = -(((table[row + 19] << 8 | table[row + 20]) + packets // 2) // packets)
        age = scan.age(row, now) << 3
        if state == 1:
            end = wire.pack_binding(link.buf, end, slot, rssi, age, packets, table[row : row + 19])
            struct.pack_into(">HH", table, row + 25, link.sequence & 0xFFFF, table[row + 25] << 8 | table[row + 26])
        else:
            end = wire.pack_row(link.buf, end, slot, rssi, age, packets, table[row + 12])
        rows += 1
    if not rows:
        _left[state] = 0
        return False
    if link.send(end) != link.SENT:
        _left[1] = _left[2] = 0  # rescheduled: the rows keep what they have for the next window
        return True
    while rows:
        rows -= 1
        struct.pack_into("3s", table, link.buf[wire.HEADER_SIZE + rows * size] * _SIZE + 19, b"")
    _left[state] = left
    _at[state] = slot
    return True


def acknowledged(sequence: int) -> None:
    """The gateway has the frame of this sequence: bind its rows, or be content with the heartbeat."""
    global _beat_due, _beat_wait
    if sequence in _beats:
        _beats[0] = _beats[1] = 0
        _beat_wait = settings.values[settings.HEARTBEAT_S] * 1000
        _beat_due = time.ticks_add(time.ticks_ms(), _beat_wait)
    else:
        scan.bind(sequence)


def beat_soon(now: int) -> None:
    global _beat_due, _beat_wait
    _beat_due = time.ticks_add(now, 500)
    _beat_wait = 2000


def _beat(now: int) -> None:
    """Send a heartbeat; until one is acknowledged the next comes after 2 s, 4 s, 8 s .. the settings' interval."""
    global _beat_due, _beat_wait
    scan.sweep(now)
    gc.collect()
    temperature = xbee.atcmd("TP") or 0
    values = settings.values
    interval = values[settings.SCAN_INTERVAL_MS]
    end = wire.pack_heartbeat(
        link.buf,
        link.begin(wire.HEARTBEAT),
        uptime_s,
        machine.reset_cause() & 0xFF,
        _FIRMWARE,
        values[0],
        scan.tags,
        alarm.open_alarms(),
        scan.evictions & 0xFFFF,
        (discards + alarm.dropped) & 0xFFFF,
        link.failed & 0xFFFF,
        link.busy & 0xFFFF,
        link.refused & 0xFFFF,
        scan.heard & 0x3FFFFFFF,
        scan.foreign & 0xFFFF,
        min(gc.mem_free(), 0xFFFF),
        min(gc.mem_alloc(), 0xFFFF),
        (xbee.atcmd("%V") or 0) & 0xFFFF,
        (temperature + 128 & 0xFF) - 128,
        (values[settings.SCAN_WINDOW_MS] >> scan.shift) * 100 // interval,
    )
    _beats[1] = _beats[0]
    _beats[0] = link.sequence
    link.send(end)
    _beat_wait = min(_beat_wait * 2, values[settings.HEARTBEAT_S] * 1000)
    _beat_due = time.ticks_add(now, _beat_wait)


def adapt(now: int) -> None:
    """Once in 10 s: count the uptime on, scan less where the mesh pushes back, more again after a calm minute."""
    global _duty_due, _busy_seen, _calm, uptime_s, _uptime_at
    passed = time.ticks_diff(now, _uptime_at) // 1000
    if passed < 10:
        return
    uptime_s += passed
    _uptime_at = time.ticks_add(_uptime_at, passed * 1000)
    pushed = link.busy - _busy_seen
    _busy_seen = link.busy
    _calm = 0 if pushed else _calm + 1
    if pushed >= 3 and scan.shift < 2:
        scan.shift += 1
        scan.restart()
    elif _calm >= 6 and scan.shift:
        scan.shift -= 1
        _calm = 0
        scan.restart()
