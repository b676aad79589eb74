# Routine reports: rows of the tables -> SIGHTINGS, BINDINGS and NEIGHBOURS frames, and the heartbeat. One frame a pass,
# so that an alarm never waits for more than the frame that is on the air.
import gc
import os
import struct
import time

import alarm
import health
import link
import machine
import scan
import settings
import wire
import xbee
from micropython import const

_SIZE = const(29)  # of scan's rows
_ROWS = const(128)
_LOUD_DBM = const(-84)
_BINDINGS_MAX = const(4)  # frames a window
_FRAME = const(60000)  # cost of one frame in the budget, which grows every millisecond by the frames a minute
_BURST = const(960000)  # 16 frames
_SPARE = const(240000)  # 4 frames: neighbours are reported only when tags leave this much of the budget
_DISCARDS = const(1)  # in link.counters
_LINK_FAILED = const(2)
_LINK_BUSY = const(3)
_FAULT_MEASURE = const(7)  # place in wire.FAULTS
_FIRMWARE = const(0x0004)  # major << 8 | minor

_WINDOW_MS = const(1)  # in settings.values
_INTERVAL_MS = const(2)
_SCAN_MS = const(3)
_HEARTBEAT_S = const(4)
_FRAMES = const(5)

_LEFT = const(0)  # +1 unbound, +2 bound: looks left in this round, for loud rows first, then for the rest
_AT = const(2)  # +1, +2: the row looked at last; after a round cut short the next continues there
_TURN = const(5)
_BINDINGS = const(6)  # BINDINGS frames that this round may still send
_BUDGET = const(7)
_BUDGET_AT = const(8)
_DUE = const(9)
_BEAT_DUE = const(10)
_BEAT_WAIT = const(11)
_BEAT = const(12)  # sequence of the newest heartbeat; 13: of the one before
_BUSY = const(14)  # frames that the mesh had not taken at the last look, since boot
_CALM = const(15)  # periods of 10 s in which the mesh took everything
_UPTIME_S = const(16)
_UPTIME_AT = const(17)
_NEAR = const(18)  # windows since neighbours were reported
_PUSHED = const(19)  # frames that the mesh did not take, since the scan changed or the mesh was calm for a minute
_SWEPT = const(20)  # seconds of uptime at the last sweep
_ANSWERED = const(21)  # a heartbeat of this boot was acknowledged
_UNHEARD_S = const(3600)
_FAULT_BOOT = const(2)
_now = [0, 0, 0, 0, 0, 1, 0, 8 * _FRAME, 0, 0, 0, 2000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


def start(now: int) -> None:
    _now[_BUDGET_AT] = _now[_DUE] = _now[_BEAT_DUE] = _now[_UPTIME_AT] = now


def tick(now: int) -> None:
    """Send at most one frame, and none for a while after one that blocked: a reader that sends sees no bell."""
    if link.resting(now):
        return
    if time.ticks_diff(now, _now[_BEAT_DUE]) >= 0:
        _beat(now)
        return
    if not (_now[_LEFT + 1] or _now[_LEFT + 2]):
        if time.ticks_diff(now, _now[_DUE]) < 0:
            if _now[_NEAR] and _now[_BUDGET] >= _SPARE:
                _neighbours()
            return
        _now[_NEAR] += 1
        window = settings.values[_WINDOW_MS]
        _now[_DUE] = time.ticks_add(now, window * 4 // 5 + (window * 2 // 5) * os.urandom(1)[0] // 255)
        passed = min(time.ticks_diff(now, _now[_BUDGET_AT]), 60000)
        _now[_BUDGET_AT] = now
        _now[_BUDGET] = min(_now[_BUDGET] + passed * settings.values[_FRAMES], _BURST)
        _now[_LEFT + 1] = _now[_LEFT + 2] = 2 * _ROWS
        _now[_BINDINGS] = _BINDINGS_MAX
    state = 3 - _now[_TURN]
    if not _now[_LEFT + state]:
        state = 3 - state
    if _now[_BUDGET] < _FRAME:
        for row in range(0, _SIZE * _ROWS, _SIZE):
            if scan.table[row + 24] and scan.table[row + 21]:
                link.counters[_DISCARDS] += 1  # a round cut short
                break
        _now[_LEFT + 1] = _now[_LEFT + 2] = 0
    elif _rows(now, state):
        _now[_TURN] = state
        _now[_BUDGET] -= _FRAME
        if state == 1:
            _now[_BINDINGS] -= 1
            if not _now[_BINDINGS]:
                _now[_LEFT + 1] = 0


def _rows(now: int, state: int) -> bool:
    """Send the next rows of a state (1 unbound, 2 bound). Return whether there were any."""
    table = scan.table
    size = wire.BINDING_SIZE if state == 1 else wire.ROW_SIZE
    most = wire.BODY_MAX // size
    slot = _now[_AT + state]
    left = _now[_LEFT + state]
    end = 0
    rows = 0
    # The first frame of a round is for tags that the gateway knows: their mark may be another, and a flood of strangers
    # must not keep them waiting.
    known = state == 1 and _now[_BINDINGS] == _BINDINGS_MAX
    while left and rows < most:
        slot = (slot + 1) % _ROWS
        left -= 1
        row = slot * _SIZE
        packets = table[row + 21]
        if table[row + 24] != state or not packets or (known and not table[row + 25] | table[row + 26]):
            continue
        rssi = scan.rssi(table, row)
        if (left < _ROWS) == (_LOUD_DBM <= rssi <= 0):
            continue
        if not rows:
            end = link.begin(wire.BINDINGS if state == 1 else wire.SIGHTINGS)
        age = scan.age(row, now) << 3
        if state == 1:
            end = wire.pack_binding(link.buf, end, slot, rssi, age, packets, table[row : row + 19])
            if not (table[row + 27] | table[row + 28]):
                struct.pack_into(">H", table, row + 27, link.sequence & 0xFFFF)
        else:
            moving = table[row + 9] & wire.FLAG_MOVING
            end = wire.pack_row(link.buf, end, slot, rssi, age, packets, table[row + 12], moving)
        rows += 1
    if not rows:
        if known:
            _now[_BINDINGS] -= 1
        else:
            _now[_LEFT + state] = 0
        return False
    if link.send(end):
        _now[_LEFT + 1] = _now[_LEFT + 2] = 0  # not sent: the rows keep their values for the next window
        return True
    while rows:
        rows -= 1
        row = link.buf[wire.HEADER_SIZE + rows * size] * _SIZE
        struct.pack_into(">hB", table, row + 19, -scan.rssi(table, row), 0)
    if not known:
        _now[_LEFT + state] = left
        _now[_AT + state] = slot
    return True


def _neighbours() -> None:
    """Send what was heard of other readers in one frame, when three rows wait, or after 30 windows. Rows that the mesh
    did not take wait for the next frame."""
    table = scan.neighbours
    if _now[_NEAR] < 30 and table[0] + table[22] + table[44] + table[66] < 99:  # a row in use begins with 33
        return
    _now[_NEAR] = end = 0
    for row in range(0, 88, 22):
        if table[row]:
            end = end or link.begin(wire.NEIGHBOURS)
            end = wire.pack_neighbour(link.buf, end, scan.rssi(table, row), table[row + 21], table[row : row + 19])
    if end:
        _now[_BUDGET] -= _FRAME
        if not link.send(end):
            table[0] = table[22] = table[44] = table[66] = 0


def acknowledged(slot: int, sequence: int, mark: int, now: int) -> None:
    """The gateway has the frame with these low 16 bits of its sequence. Bind a slot's row, or send the next heartbeat
    after the interval."""
    if slot != wire.ACK_HEARTBEAT:
        scan.bind(slot, sequence, mark, now)
    elif sequence == _now[_BEAT] & 0xFFFF or sequence == _now[_BEAT + 1] & 0xFFFF:
        _now[_BEAT] = _now[_BEAT + 1] = 0
        _now[_ANSWERED] = 1
        beat_in(settings.values[_HEARTBEAT_S] * 1000)


def beat_in(wait_ms: int) -> None:
    _now[_BEAT_DUE] = time.ticks_add(time.ticks_ms(), wait_ms)
    _now[_BEAT_WAIT] = 2000


def _beat(now: int) -> None:
    """Send a heartbeat. Until one is acknowledged, the next comes after 2 s, 4 s, 8 s .. the settings' interval."""
    values = settings.values
    _now[_BEAT_DUE] = time.ticks_add(now, _now[_BEAT_WAIT])  # first: a heartbeat that fails is not tried in every pass
    _now[_BEAT_WAIT] = min(_now[_BEAT_WAIT] * 2, values[_HEARTBEAT_S] * 1000)
    if not (_now[_ANSWERED] or link.failed or link.boot & wire.BOOT_DRAWN) and _now[_UPTIME_S] > _UNHEARD_S:
        # Frames leave and nobody takes this boot: the gateway has a newer one, after thousands that it never heard.
        link.boot = wire.BOOT_DRAWN | int.from_bytes(os.urandom(2), "big")
        health.fault(_FAULT_BOOT)
    gc.collect()
    end = wire.pack_heartbeat(
        link.buf,
        link.begin(wire.HEARTBEAT),
        _now[_UPTIME_S],
        machine.reset_cause() & 0xFF,
        _FIRMWARE,
        values[0],
        scan.tags,
        alarm.lit[4],
        *[count & 0xFFFF for count in link.counters[:5]],
        link.counters[5] & 0x3FFFFFFF,
        link.counters[6] & 0xFFFF,
        min(gc.mem_free(), 0xFFFF),
        min(gc.mem_alloc(), 0xFFFF),
        _measure("%V") & 0xFFFF,
        (_measure("TP") + 128 & 0xFF) - 128,
        scan.duty(),
        health.faults[0],
    )
    _now[_BEAT + 1] = _now[_BEAT]
    _now[_BEAT] = link.sequence
    link.send(end)


def _measure(command: str) -> int:
    """Return what the module measures, 0 if it does not tell."""
    try:
        value = xbee.atcmd(command)
        return value if isinstance(value, int) else int.from_bytes(value, "big")  # type: ignore[arg-type]
    except Exception:
        health.fault(_FAULT_MEASURE)
        return 0


def losses() -> None:
    """The gateway says that frames to or from this reader get lost. The reader cannot see that itself."""
    _now[_PUSHED] += 3


def adapt(now: int) -> None:
    """Every 10 s: add to the uptime. Scan less if the mesh did not take frames or the gateway says that some get lost,
    more again after a calm minute. Every minute: free the rows of tags that are gone."""
    passed = time.ticks_diff(now, _now[_UPTIME_AT]) // 1000
    if passed < 10:
        return
    _now[_UPTIME_S] += passed
    _now[_UPTIME_AT] = time.ticks_add(_now[_UPTIME_AT], passed * 1000)
    if _now[_UPTIME_S] - _now[_SWEPT] >= 60:
        _now[_SWEPT] = _now[_UPTIME_S]
        scan.sweep(now)
    pushed = link.counters[_LINK_BUSY] + link.counters[_LINK_FAILED]
    _now[_PUSHED] += pushed - _now[_BUSY]
    _now[_CALM] = 0 if pushed != _now[_BUSY] else _now[_CALM] + 1
    _now[_BUSY] = pushed
    if _now[_PUSHED] >= 3 or _now[_CALM] >= 6:
        scan.shift = min(scan.shift + 1, 2) if _now[_PUSHED] >= 3 else max(scan.shift - 1, 0)
        _now[_PUSHED] = _now[_CALM] = 0
