# Alarms: a tag's cry or a bell's press makes one. It is sent until the gateway has it; lamp and buzzer show its stage.
#
# An alarm is 27 bytes of `_state` and 5 numbers of `_times`; there are 8 places. A bell's press without an answer is on
# flash (docs/adr/0010-a-bells-press-outlives-its-reader.md): a tag still cries after a power cut, a bell does not.
#
# Anybody can send a cry. Which alarm a cry is of, and what that alarm may take from others, is this table:
#
#   the cry                              its alarm is           places  frames    closed
#   carries the mark of its id's row     (id, press, mark); a   8       at once   stays closed while the tag cries on
#                                        third press with one
#                                        mark is a stranger's
#   carries other bytes there: a         (id, press, bytes)     3       1 second  is forgotten: if it goes on, it is
#   stranger's, a forgery, or of a tag                                  each      a new alarm
#   that the gateway has not seen yet
#   (a bell)                             (input), until closed  8       at once   a press is new
#
#   a cry of an alarm that               is
#   has no answer                        the same; the first advertisement is sent, for a copy may come later
#   is answered, and the beacon count    the same; the newest advertisement is sent
#   is the last one's or 1..1024 ahead
#   is answered, and the count is any    a new alarm with a new number: perhaps the tag lost its counter; the gateway
#   other, or no cry came for 60 s, for  decides. At most one in 2 s; meanwhile such a cry counts for nothing
#   10 s if it is closed
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
_STRANGERS = const(3)  # places that alarms without a mark may hold
_SIZE = const(27)
_KIND = const(0)  # 0 free, wire.SOS, wire.BELL
_NUMBER = const(1)
_STAGE = const(2)
_TRIES = const(3)
_PACKETS = const(4)  # in the last 2 s
_DONE = const(5)  # nothing more to send
_REVISED = const(6)  # SOS: sent again with more packets
_KEPT = const(6)  # BELL: belongs on flash until it is received
_BODY = const(7)  # SOS: the advertisement to send; BELL: boot u16 and number of its first report, input, presses
_MARKED = const(26)  # a bell, or a cry with the mark of a tag that the gateway knows
_KEPT_SIZE = const(4)  # bytes of a BELL's body that go to flash
_FIRST = const(0)  # ticks of the first cry
_LAST = const(1)  # ticks of the newest cry
_PICTURE = const(2)  # ticks of the first packet in `_PACKETS`
_DUE = const(3)
_LOSS = const(4)  # sum of -rssi over `_PACKETS`; -1: none of them had a level
_PICTURE_MS = const(2000)
_RETRY_MS = const(300)
_POLL_MS = const(10000)
_OVER_MS = const(600000)
_PAUSE_MS = const(60000)  # a cry after so long without is another press; of a closed alarm, after
_CLOSED_PAUSE_MS = const(10000)
_RENEW_MS = const(2000)  # of an alarm's new numbers
_AHEAD_MAX = const(1024)  # a crying tag counts ten beacons a second, and not all are heard
_BUDGET_MS = const(1000)  # a frame of a stranger's alarm costs so much, or four times what it took; one may be saved up
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
# Of 12 marked and answered alarms that gave up their place: bytes 7..14 of the newest advertisement (of the id, flags,
# press, beacon count, mark), ticks of the last cry in steps of 64 ms, u16.
_gone = bytearray(120)
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
# Level of the lamp, of the buzzer, stage on the lamp, ticks when it began, alarms not closed, ticks of the last look,
# ticks until which strangers' frames are paid, strangers' alarms that wanted a place since one was sent.
lit = [0, 0, 0, 0, 0, 0, 0, 0]


def cry(data: bytes, loss: int, now: int, mark: bool) -> None:
    """Take a tag's cry. data: its 19 bytes; loss: -rssi, below 0: no level; mark: it has the mark of its id's row."""
    count = struct.unpack_from(">H", data, 11)[0]
    i = -1
    twins = 0
    for j in range(_MAX):
        at = j * _SIZE
        body = at + _BODY
        if (
            _state[body + 13] != data[13]
            or _state[at] != wire.SOS
            or _state[body + 14] != data[14]
            or _state[body + 1 : body + 9] != data[1:9]
        ):
            continue
        if _state[body + 10] == data[10]:
            i = j
            break
        twins += _state[at + _MARKED]
    mark = mark and twins < 2
    if i < 0:
        for j in range(0, 120, 10):
            if _gone[j + 3] == data[10] and _gone[j + 6 : j + 8] == data[13:15] and _gone[j : j + 2] == data[7:9]:
                last, _, ticks = struct.unpack_from(">HHH", _gone, j + 4)
                if count - last & 0xFFFF <= _AHEAD_MAX and (now >> 6) - ticks & 0xFFFF <= _PAUSE_MS >> 6:
                    struct.pack_into(">8sH", _gone, j, data[7:15], now >> 6 & 0xFFFF)
                    return
                mark = True
                _gone[j + 6] = _gone[j + 7] = 0  # no mark is 0
        i = _open(wire.SOS, mark, now, -1)
        if i < 0:
            return
    elif mark and _state[at + _STAGE] < wire.CLOSED:
        _state[at + _MARKED] = 1  # its tag was not known when it began to cry
    at = i * _SIZE
    clock = i * 5
    if _state[at + _STAGE] and (
        (_state[at + _STAGE] == wire.CLOSED and not _state[at + _MARKED])
        or time.ticks_diff(now, _times[clock + _LAST])
        > (_PAUSE_MS if _state[at + _STAGE] < wire.CLOSED else _CLOSED_PAUSE_MS)
        or count - struct.unpack_from(">H", _state, at + _BODY + 11)[0] & 0xFFFF > _AHEAD_MAX
    ):
        if time.ticks_diff(now, _times[clock]) < _RENEW_MS:
            return
        _open(wire.SOS, _state[at + _MARKED] > 0, now, i)
    _times[clock + _LAST] = now
    if _state[at + _STAGE] or not _state[at + _PACKETS]:
        struct.pack_into("19s", _state, at + _BODY, data)
    if time.ticks_diff(now, _times[clock + _PICTURE]) > _PICTURE_MS or _state[at + _PACKETS] == 255:
        _times[clock + _PICTURE] = now
        _times[clock + _LOSS] = _state[at + _PACKETS] = 0
    if loss >= 0 > _times[clock + _LOSS]:
        _times[clock + _LOSS] = _state[at + _PACKETS] = 0  # only packets with a level count, if there are any
    if loss >= 0 or _times[clock + _LOSS] < 0 or not _state[at + _PACKETS]:
        _times[clock + _LOSS] = -1 if loss < 0 else _times[clock + _LOSS] + loss
        _state[at + _PACKETS] += 1
    if not _state[at + _REVISED] and time.ticks_diff(now, _times[clock + _FIRST]) > _PICTURE_MS - 200:
        _state[at + _REVISED] = 1  # send again when there are enough packets to locate
        if _state[at + _STAGE] < wire.CLOSED:
            _times[clock + _DUE] = now


def _open(kind: int, mark: bool, now: int, place: int) -> int:
    """Begin an alarm, in a place or (-1) where it may; return the place, -1 if there is none for it.

    A bell or a marked cry takes a free place, then a stranger's, then that of the alarm of the highest stage; of equals
    a tag's before a bell's, because a tag that still cries comes back; of those the one with the oldest last cry.

    A stranger's takes a free place while strangers hold fewer than three, then that of a stranger who was sent, then,
    as the n-th since one was sent, with a chance of 3 in n, that of any stranger: no arrangement of times is of use.
    """
    global _last_number, _gone_at
    drawn = int.from_bytes(os.urandom(2), "big")
    worst = free = stranger = -1
    strangers = sent = oldest = number = tries = 0
    for j in range(_MAX if place < 0 else 0):
        at = j * _SIZE
        if not _state[at]:
            free = free if free >= 0 else j
        elif not _state[at + _MARKED]:
            strangers += 1
            told = _state[at + _TRIES] | _state[at + _STAGE]
            if (
                stranger < 0
                or (told and not sent)
                or (told > 0) == (sent > 0)
                and (drawn >> strangers) % strangers == 0
            ):
                stranger = j
                sent = told
        else:
            rank = _state[at + _STAGE] << 24
            if _state[at] == wire.SOS:
                rank |= min(max(time.ticks_diff(now, _times[j * 5 + _LAST]), 1), 0xFFFFFF)
            if rank > worst:
                worst = rank
                oldest = j
    if place < 0:
        if mark:
            place = free if free >= 0 else stranger if stranger >= 0 else oldest
        else:
            lit[7] = min(lit[7] + 1, 9999)
            if strangers < _STRANGERS and (free >= 0 or _state[oldest * _SIZE + _DONE]):
                place = free if free >= 0 else oldest
            elif stranger >= 0 and (sent or drawn * lit[7] < _STRANGERS << 16):
                place = stranger
                if not sent:
                    number = _state[place * _SIZE + _NUMBER]  # nobody was told it, and a flood would use up all 255
            else:
                link.counters[_DISCARDS] += 1
                return -1
        at = place * _SIZE
        if _state[at] and _state[at + _STAGE] < wire.CLOSED:
            link.counters[_DISCARDS] += 1
        if _state[at] == wire.SOS and _state[at + _MARKED]:
            if _state[at + _STAGE]:
                ticks = _times[place * 5 + _LAST] >> 6 & 0xFFFF
                struct.pack_into(">8sH", _gone, _gone_at, _state[at + _BODY + 7 : at + _BODY + 15], ticks)
                _gone_at = (_gone_at + 10) % 120
            elif kind == wire.SOS:
                tries = min(_state[at + _TRIES], 1)  # nine cry, nobody answers: a place that changes hands is not new
    at = place * _SIZE
    while not number:
        number = _last_number = _last_number % 255 + 1
        for j in range(0, _MAX * _SIZE, _SIZE):
            if _state[j] and _state[j + _NUMBER] == _last_number:
                number = 0
    struct.pack_into("7B", _state, at, kind, number, 0, tries, 0, 0, 0)
    _state[at + _MARKED] = mark
    clock = place * 5
    _times[clock + _LOSS] = 0
    _times[clock] = _times[clock + _LAST] = _times[clock + _PICTURE] = _times[clock + _DUE] = now
    lit[4] += 1  # until `show` counts them: the scan heeds it in this pass
    return place


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
            j = _open(wire.BELL, True, now, -1)
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
        i = _open(wire.BELL, True, time.ticks_add(now, -_AGE_MAX_MS), -1)
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
    """Raise an alarm to a stage; it never falls, but to 0: its number means another alarm now, or what was sent was
    only a copy. It begins again with the next cry. The frame that reports the new lamp is due soon."""
    for i in range(_MAX):
        at = i * _SIZE
        if not _state[at] or _state[at + _NUMBER] != number:
            continue
        if stage & wire.PROVEN:
            _state[at + _MARKED] = 1
            stage &= 127
        if _state[at + _STAGE] < stage <= wire.CLOSED or not stage:
            _state[at + _STAGE] = stage
            _state[at + _DONE] = 0
            _state[at + _TRIES] = not (stage or _state[at + _MARKED])  # its number was told: it gives way as one sent
            _times[i * 5 + _DUE] = time.ticks_add(now, 0 if stage else 100)
            _state[at + _PACKETS] *= stage > 0


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
    """Drive lamp and buzzer by the lowest stage of the open alarms: of bells and marked cries, if there is one, else of
    strangers'. So nobody whose own call no person has sees that help comes. Received, stored: 1 s on, 1 s off.
    Acknowledged, dispatched: a pause and two short flashes, and two short beeps when it begins. No stage is a steady
    light, so a broken reader cannot promise help."""
    stage = low = wire.CLOSED
    lit[4] = 0
    for at in range(0, _MAX * _SIZE, _SIZE):
        if _state[at] and _state[at + _STAGE] < wire.CLOSED:
            lit[4] += 1
            if _state[at + _MARKED]:
                stage = min(stage, _state[at + _STAGE])
            else:
                low = min(low, _state[at + _STAGE])
    stage = (stage if stage < wire.CLOSED else low) % wire.CLOSED
    comes = stage >= wire.ACKNOWLEDGED
    if stage != lit[2]:
        for i in range(_MAX):  # the lamp changed for others too: their frames say so soon
            own = _state[i * _SIZE + _STAGE]
            soon = time.ticks_add(now, _RETRY_MS)
            if min(own, stage) != min(own, lit[2]) and time.ticks_diff(_times[i * 5 + _DUE], soon) > 0:
                _times[i * 5 + _DUE] = soon
        if comes != (lit[2] >= wire.ACKNOWLEDGED) or not lit[2] or not stage:
            # Soon after a light, "received" begins with the dark second: two lights must not become a long one.
            soon = stage and (lit[2] > stage or time.ticks_diff(now, lit[3]) < 1000)
            lit[3] = time.ticks_add(now, -1000) if soon and not comes else now
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
    """Return the place of the alarm to send: of those due a bell's or a marked one, of these one that nobody has
    answered, of these the one tried least often, of these the one that waits longest; -1 if none is due."""
    pause = link.pausing(now)
    if time.ticks_diff(now, lit[6]) > 0:
        lit[6] = now
    broke = time.ticks_diff(lit[6], now) > _BUDGET_MS
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
                _state[at] *= _state[at + _MARKED]  # a stranger's is forgotten
                continue
            _times[clock + _LAST] = time.ticks_add(now, -_OVER_MS)  # else it is young again when the ticks wrap
        late = time.ticks_diff(now, _times[clock + _DUE])
        marked = _state[at + _MARKED]
        if late >= 0 and not (pause and _state[at + _TRIES]) and (marked or not broke):
            rank = (1 - marked << 29) + ((stage > 0) << 28) + (_state[at + _TRIES] << 24) - min(late, 0xFFFFFF)
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
    shown = stage if stage == wire.CLOSED else min(stage, lit[2])
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
            shown,
            age,
            None if _times[clock + _LOSS] < 0 else -((_times[clock + _LOSS] + packets // 2) // packets),
            packets,
            _state[at + _BODY : at + _BODY + 19],
        )
    else:
        boot, number, place, presses = struct.unpack_from(">HBBB", _state, at + _BODY)
        if boot == link.boot:
            boot = 0
        end = wire.pack_bell(link.buf, end, _state[at + _NUMBER], shown, age, place, presses, boot, number)
    result = link.send(end)
    wait = 100
    if result != 1:
        wait = min(_RETRY_MS << _state[at + _TRIES], _POLL_MS)
        wait += wait * os.urandom(1)[0] >> 10  # random: several readers hear one cry
        _state[at + _TRIES] = min(_state[at + _TRIES] + 1, 6)
    if result == 0 and stage:
        wait = _POLL_MS
        _state[at + _DONE] = stage == wire.CLOSED
    ended = time.ticks_ms()
    if not _state[at + _MARKED]:
        lit[7] = 0
        if result != 1:
            took = time.ticks_diff(ended, now) * 4
            lit[6] = time.ticks_add(lit[6], min(max(took, _BUDGET_MS), _POLL_MS))
        if _state[at + _DONE]:
            _state[at] = 0  # forgotten: if the cry goes on, it was perhaps not the one that was closed
    _times[clock + _DUE] = time.ticks_add(ended, wait)
    _keep(now, False)
    return True
