# Alarms: a tag's cry or a bell's press makes one. It is sent until the gateway has it; lamp and buzzer show its stage.
#
# An alarm is 26 bytes of `_state` and 5 numbers of `_times`; there are 8 places. A bell's press without an answer is on
# flash (docs/adr/0010-a-bells-press-outlives-its-reader.md): a tag still cries after a power cut, a bell does not.
import os
import struct
import time

import config
import health
import link
import machine
import settings
import wire
from micropython import const

_MAX = const(8)
_SIZE = const(26)
_KIND = const(0)  # 0 free, wire.SOS, wire.BELL
_NUMBER = const(1)
_STAGE = const(2)
_TRIES = const(3)
_PACKETS = const(4)  # in the last 2 s
_DONE = const(5)  # nothing more to send
_REVISED = const(6)  # SOS: sent again with more packets
_KEPT = const(6)  # BELL: belongs on flash until it is received
_BODY = const(7)  # SOS: the newest advertisement; BELL: boot u16 and number of its first report, input, presses
_KEPT_SIZE = const(4)  # bytes of a BELL's body that go to flash
_FIRST = const(0)  # ticks of the first cry
_LAST = const(1)  # ticks of the newest cry
_PICTURE = const(2)  # ticks of the first packet in `_PACKETS`
_DUE = const(3)
_LOSS = const(4)  # sum of -rssi over `_PACKETS`
_PICTURE_MS = const(2000)
_RETRY_MS = const(300)
_POLL_MS = const(10000)
_OVER_MS = const(600000)
_AGE_MAX_MS = const(655350)  # this or more, or not known
_KEEP_MS = const(150)  # an answer that comes sooner saves a flash write
_DEBOUNCE_MS = const(50)
_BELL_GAP_MS = const(300)
_DISCARDS = const(1)  # in link.counters
_FAULT_PINS = const(0)  # place in wire.FAULTS

_state = bytearray(_MAX * _SIZE)
_times = [0] * (_MAX * 5)
_last_number = 0
_kept = b""  # what is on flash
_gone = bytearray(128)  # press and three bytes of the id of 32 tags whose answered alarm gave up its place
_gone_at = 0


def _pin(name: str, out: bool) -> "machine.Pin | None":
    try:
        if out:
            return machine.Pin(name, machine.Pin.OUT, value=0)
        return machine.Pin(name, machine.Pin.IN, machine.Pin.PULL_UP)
    except Exception:
        health.fault(_FAULT_PINS)  # the others work
        return None


_bells = [_pin(name, False) for name in getattr(config, "BELLS", ("D4",))]
_bell = bytearray(b"\1" * (2 * len(_bells)))  # level, stable level of each; not pressed: high
_since = [0] * len(_bells)
_lamp = _pin(getattr(config, "LAMP", "D2"), True)
_buzzer = _pin(getattr(config, "BUZZER", "D3"), True)
# Level of the lamp, of the buzzer, stage on the lamp, ticks when it began, alarms not closed, ticks of the last look.
lit = [0, 0, 0, 0, 0, 0]


def cry(data: bytes, loss: int, now: int) -> None:
    """Take a tag's cry. data: its 19 bytes; loss: -rssi. Cries with the same id and press counter are one alarm.

    A tag whose answered alarm gave up its place makes no new one while it cries on: nine tags would take eight places
    from each other for ever, and each would be a first report. The gateway has it, and asks all readers.
    """
    for i in range(_MAX):
        at = i * _SIZE
        if (
            _state[at] == wire.SOS
            and _state[at + _BODY + 10] == data[10]
            and _state[at + _BODY + 1 : at + _BODY + 9] == data[1:9]
        ):
            break
    else:
        for i in range(0, 128, 4):
            if _gone[i] == data[10] and _gone[i + 1 : i + 4] == data[1:4]:
                return
        i = _open(wire.SOS, now)
        at = i * _SIZE
    clock = i * 5
    _times[clock + _LAST] = now
    struct.pack_into("19s", _state, at + _BODY, data)
    if time.ticks_diff(now, _times[clock + _PICTURE]) > _PICTURE_MS or _state[at + _PACKETS] == 255:
        _times[clock + _PICTURE] = now
        _times[clock + _LOSS] = _state[at + _PACKETS] = 0
    _times[clock + _LOSS] += loss
    _state[at + _PACKETS] += 1
    if not _state[at + _REVISED] and time.ticks_diff(now, _times[clock + _FIRST]) > _PICTURE_MS - 200:
        _state[at + _REVISED] = 1  # send again when there are enough packets to locate
        if _state[at + _STAGE] < wire.CLOSED:
            _times[clock + _DUE] = now


def _open(kind: int, now: int) -> int:
    """Return the place of a new alarm. If all are taken, the alarm of the highest stage is dropped; of equals a tag's
    before a bell's, because a tag that still cries comes back; of those the one with the oldest last cry."""
    global _last_number, _gone_at
    worst = -1
    tries = 0
    i = 0
    for j in range(_MAX):
        at = j * _SIZE
        rank = 0x7FFFFFF
        if _state[at]:
            rank = _state[at + _STAGE] << 24
            if _state[at] == wire.SOS:
                rank |= min(max(time.ticks_diff(now, _times[j * 5 + _LAST]), 1), 0xFFFFFF)
        if rank > worst:
            worst = rank
            i = j
    at = i * _SIZE
    if _state[at] and _state[at + _STAGE] < wire.CLOSED:
        link.counters[_DISCARDS] += 1
    if _state[at] == wire.SOS:
        if _state[at + _STAGE]:
            _gone[_gone_at] = _state[at + _BODY + 10]
            _gone[_gone_at + 1 : _gone_at + 4] = _state[at + _BODY + 1 : at + _BODY + 4]
            _gone_at = (_gone_at + 4) % 128
        elif kind == wire.SOS:
            tries = _state[at + _TRIES]  # nine cry and nobody answers: a place that changes hands is no first report
    _last_number = _last_number % 255 + 1
    struct.pack_into("7B", _state, at, kind, _last_number, 0, tries, 0, 0, 0)
    _times[i * 5 + _LOSS] = 0
    _times[i * 5] = _times[i * 5 + _LAST] = _times[i * 5 + _PICTURE] = _times[i * 5 + _DUE] = now
    return i


def ring(now: int) -> None:
    """Read the bells. A press is a level that stays low for 50 ms."""
    for i in range(len(_bells)):
        pin = _bells[i]
        if pin is None:
            continue
        try:
            level = pin.value()
        except Exception:
            health.fault(_FAULT_PINS)  # and the others are read
            continue
        if level != _bell[2 * i]:
            _bell[2 * i] = level
            _since[i] = now
        if level == _bell[2 * i + 1] or time.ticks_diff(now, _since[i]) < _DEBOUNCE_MS:
            continue
        if level:
            _bell[2 * i + 1] = level
            continue
        due = time.ticks_add(now, _BELL_GAP_MS)
        for j in range(_MAX):
            at = j * _SIZE
            if _state[at] == wire.BELL and _state[at + _STAGE] < wire.CLOSED and _state[at + _BODY + 3] == i:
                if struct.unpack_from(">H", _state, at + _BODY)[0] == link.boot:
                    break
                if not _state[at + _STAGE]:
                    _state[at] = 0  # of an earlier boot and never answered: this press replaces it
        else:
            due = now
            j = _open(wire.BELL, now)
            at = j * _SIZE
            struct.pack_into(">HBBB", _state, at + _BODY, link.boot, _state[at + _NUMBER], i, 0)
        _state[at + _BODY + 4] = min(_state[at + _BODY + 4] + 1, 255)
        _times[j * 5 + _LAST] = now
        if time.ticks_diff(_times[j * 5 + _DUE], due) > 0:  # a child who presses on must not postpone it
            _times[j * 5 + _DUE] = due
        _bell[2 * i + 1] = level  # last: an interrupt before this line makes the next pass look again


def restore(now: int) -> None:
    """Report again, with unknown age, the presses that had no answer when the power failed."""
    global _kept
    _kept = settings.load("bell") or b""
    for kept in range(0, len(_kept) - _KEPT_SIZE + 1, _KEPT_SIZE):
        i = _open(wire.BELL, time.ticks_add(now, -_AGE_MAX_MS))
        at = i * _SIZE
        struct.pack_into("4sB", _state, at + _BODY, _kept[kept : kept + _KEPT_SIZE], 1)
        _state[at + _KEPT] = 1
        _times[i * 5 + _LAST] = now


def _keep(now: int, before: bool) -> None:
    """Keep waiting presses on flash. before: ahead of sending, when the mesh fails or blocks; only adds."""
    global _kept
    rows = b""
    for i in range(_MAX):
        at = i * _SIZE
        if _state[at] != wire.BELL or _state[at + _STAGE]:
            continue
        if _state[at + _KEPT] or before or link.failed or time.ticks_diff(now, _times[i * 5]) >= _KEEP_MS:
            _state[at + _KEPT] = 1  # and stays set: a link that comes and goes must not wear out the flash
            rows += _state[at + _BODY : at + _BODY + _KEPT_SIZE]
    if rows == _kept or (before and len(rows) <= len(_kept)):
        return
    _kept = rows
    settings.keep("bell", rows)  # a full flash must not prevent sending; one attempt is enough


def reach(number: int, stage: int, now: int) -> None:
    """Raise an alarm to a stage; it never falls. The frame that reports the new lamp is due at once."""
    for i in range(_MAX):
        at = i * _SIZE
        if _state[at] and _state[at + _NUMBER] == number and _state[at + _STAGE] < stage <= wire.CLOSED:
            _state[at + _STAGE] = stage
            _state[at + _TRIES] = 0
            _times[i * 5 + _DUE] = now


def light(lamp: int = 0, buzzer: int = 0) -> None:
    """Drive the pins. Without arguments both go low: before anything that may block or end the program."""
    if lamp != lit[0]:
        try:
            if _lamp is not None:
                _lamp.value(lamp)
            lit[0] = lamp
        except Exception:
            health.fault(_FAULT_PINS)
    if buzzer != lit[1]:
        try:
            if _buzzer is not None:
                _buzzer.value(buzzer)
            lit[1] = buzzer
        except Exception:
            health.fault(_FAULT_PINS)


health.hush = light


def show(now: int) -> None:
    """Drive lamp and buzzer by the highest stage of an open alarm. Received, stored: 1 s on, 1 s off. Acknowledged,
    dispatched: a pause and two short flashes, and two short beeps when it begins. No stage is a steady light, so a
    broken reader cannot promise help."""
    stage = lit[4] = 0
    for at in range(0, _MAX * _SIZE, _SIZE):
        if _state[at] and _state[at + _STAGE] < wire.CLOSED:
            stage = max(stage, _state[at + _STAGE])
            lit[4] += 1
    comes = stage >= wire.ACKNOWLEDGED
    if stage != lit[2]:
        if comes != (lit[2] >= wire.ACKNOWLEDGED) or not lit[2]:
            # From "help" to "received" with the dark second first: two lights must not become a long one.
            lit[3] = time.ticks_add(now, -1000) if lit[2] > stage and stage else now
        lit[2] = stage
    elif not comes and time.ticks_diff(now, lit[5]) > 100:
        lit[3] = time.ticks_add(now, -1000)  # something blocked: a dark second first, its pieces could look like help
    lit[5] = now
    since = time.ticks_diff(now, lit[3])
    if comes:
        phase = since % 1500
        light(int(700 <= phase < 900 or 1100 <= phase < 1300), int(0 <= since < 450 and since % 300 < 150))
    else:
        light(int(stage > 0 and since % 2000 < 1000), 0)


def _next(now: int) -> int:
    """Return the place of the alarm to send: of those due one that nobody has answered, of these the one tried least
    often, of these the one that waits longest; -1 if none is due."""
    pause = link.pausing(now)
    least = 0x7FFFFFFF
    best = -1
    for i in range(_MAX):
        at = i * _SIZE
        clock = i * 5
        if not _state[at] or _state[at + _DONE]:
            continue
        stage = _state[at + _STAGE]
        if time.ticks_diff(now, _times[clock + _LAST]) > _OVER_MS:
            if wire.WAITING < stage < wire.CLOSED:
                _state[at + _STAGE] = wire.CLOSED  # no cry for 10 minutes, and nobody closed it: end it
                _state[at + _DONE] = 1
                continue
            _times[clock + _LAST] = time.ticks_add(now, -_OVER_MS)  # else it is young again when the ticks wrap
        late = time.ticks_diff(now, _times[clock + _DUE])
        if late >= 0 and not (pause and _state[at + _TRIES]):
            rank = ((stage > 0) << 28) + (_state[at + _TRIES] << 24) - min(late, 0xFFFFFF)
            if rank < least:
                least = rank
                best = i
    return best


def tick(now: int) -> bool:
    """Send one alarm, if one is due. Return whether one was: then the mesh is for alarms alone in this pass."""
    if link.failed or link.resting(now):
        _keep(now, True)
    i = _next(now)
    if i < 0:
        _keep(now, False)
        return False
    at = i * _SIZE
    clock = i * 5
    stage = _state[at + _STAGE]
    packets = max(_state[at + _PACKETS], 1)
    age = time.ticks_diff(now, _times[clock])
    if age > _AGE_MAX_MS:
        _times[clock] = time.ticks_add(now, -_AGE_MAX_MS)  # else it is young again when the ticks wrap
    end = link.begin(_state[at])
    if _state[at] == wire.SOS:
        end = wire.pack_sos(
            link.buf,
            end,
            _state[at + _NUMBER],
            stage,
            age,
            -((_times[clock + _LOSS] + packets // 2) // packets),
            packets,
            _state[at + _BODY : at + _BODY + 19],
        )
    else:
        boot, number, place, presses = struct.unpack_from(">HBBB", _state, at + _BODY)
        if boot == link.boot:
            boot = 0
        end = wire.pack_bell(link.buf, end, _state[at + _NUMBER], stage, age, place, presses, boot, number)
    result = link.send(end)
    wait = 100
    if result != 1:
        wait = min(_RETRY_MS << _state[at + _TRIES], _POLL_MS)
        wait += wait * os.urandom(1)[0] >> 10  # random: several readers hear one cry
        _state[at + _TRIES] = min(_state[at + _TRIES] + 1, 6)
    if result == 0 and stage:
        wait = _POLL_MS
        _state[at + _DONE] = stage == wire.CLOSED
    _times[clock + _DUE] = time.ticks_add(time.ticks_ms(), wait)
    _keep(now, False)
    return True
