# The mesh: sends and receives single frames. Holds the frame buffer, the sequence and the counters of the link.
import errno
import struct
import time

import config
import health
import wire
import xbee
from auth import mac
from micropython import const

TYPE_CHECKING = False
if TYPE_CHECKING:  # only for the type checker: the interpreter does not run it
    import machine

_FAILED = const(2)  # in counters
_BUSY = const(3)
_REFUSED = const(4)
_FAULT_SEND = const(8)  # place in wire.FAULTS
_FRESH_MAX = const(64)  # frames that a downlink may be behind; older ones are refused as replays
_SLOW_MS = const(200)  # after a send that blocks for longer others wait: a reader that sends does not see its bells
_REST = const(4)  # routine frames: so many times as long as it took
_REST_MAX_MS = const(60000)
_PAUSE_MAX_MS = const(10000)  # an alarm's repetitions: as long as it took, but no longer than this

buf = bytearray(wire.FRAME_MAX)
boot = 0
sequence = 0
failed = False  # the newest frame was not sent: perhaps no gateway is there
counters = [0, 0, 0, 0, 0, 0, 0]  # evictions, discards, failed, busy, refused, heard, foreign: as in a heartbeat
watchdog: "machine.WDT | None" = None
_rest = [0, 0]  # ticks when routine frames began to wait, for how long


def resting(now: int) -> bool:
    """Return whether routine frames wait because sending blocks."""
    if _rest[1] and time.ticks_diff(now, _rest[0]) >= _rest[1]:
        _rest[1] = 0
    return _rest[1] > 0


def pausing(now: int) -> bool:
    """Return whether repetitions of alarms wait too. A first report never waits."""
    return resting(now) and time.ticks_diff(now, _rest[0]) < min(_rest[1] // _REST, _PAUSE_MAX_MS)


def begin(kind: int) -> int:
    """Start the next frame in `buf` and return the offset of its body."""
    global sequence
    sequence += 1
    return wire.begin(buf, kind, config.READER, boot, sequence)


def beacon(burst: int, power_dbm: int) -> bytes:
    """Return the 19 bytes of this reader's own beacon."""
    body = struct.pack(">BHHHb", wire.ADVERTISEMENT_VERSION | 1, config.READER, boot, burst, power_dbm) + bytes(7)
    return body + mac(b"B" + body)[:4]


def send(end: int) -> int:
    """Seal and transmit what is in `buf`. Return 0 sent, 1 busy (try again soon), 2 failed. It may block for long."""
    global failed
    health.hush()
    began = time.ticks_ms()
    result = 0
    try:
        xbee.transmit(
            xbee.ADDR_COORDINATOR,
            wire.seal(buf, end, mac),
            source_ep=xbee.ENDPOINT_DIGI_DATA,
            dest_ep=xbee.ENDPOINT_DIGI_DATA,
            cluster=xbee.CLUSTER_DIGI_SERIAL_DATA,
            profile=xbee.PROFILE_DIGI_XBEE,
        )
    except OSError as error:
        result = 1 if error.args and error.args[0] == errno.EAGAIN else 2
    except Exception:
        health.fault(_FAULT_SEND)
        result = 2
    if watchdog is not None:
        watchdog.feed()  # it returned: to wait for a mesh that is away is no reason to reset
    took = time.ticks_diff(time.ticks_ms(), began)
    if took > _SLOW_MS:
        _rest[0] = time.ticks_add(began, took)
        _rest[1] = min(took * _REST, _REST_MAX_MS)
        result = 2 if result else 0  # busy for so long is no "try again soon"
    if result == 1:
        counters[_BUSY] += 1
    else:
        failed = result == 2
        counters[_FAILED] += failed
    return result


def receive() -> tuple[int, bytes] | None:
    """Return (kind, body) of the next fresh frame from our gateway to this reader; None if the queue is empty."""
    while True:
        try:
            message = xbee.receive()
        except Exception:
            health.fault(_FAULT_SEND)
            return None
        if message is None:
            return None
        try:
            frame = message["payload"]
            kind, reader, number, echoed = wire.peek(frame)
            if (
                message["sender_nwk"] == 0
                and reader == config.READER
                and number == boot
                and 0 <= sequence - echoed <= _FRESH_MAX
                and kind >= wire.ACK
            ):
                return kind, wire.body_of(frame, mac)
        except Exception:
            pass  # too short, a wrong MAC, no payload at all
        counters[_REFUSED] += 1
