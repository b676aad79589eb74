# The mesh: sends and receives single frames. Holds the frame buffer, the sequence and the counters of the link.
import errno
import struct

import config
import wire
import xbee
from auth import mac
from micropython import const

_FAILED = const(2)  # in counters
_BUSY = const(3)
_REFUSED = const(4)
_FRESH_MAX = const(64)  # frames that a downlink may be behind; older ones are refused as replays

buf = bytearray(wire.FRAME_MAX)
boot = 0
sequence = 0
failed = False  # the newest frame was not sent: perhaps no gateway is there
counters = [0, 0, 0, 0, 0, 0, 0]  # evictions, discards, failed, busy, refused, heard, foreign: as in a heartbeat


def begin(kind: int) -> int:
    """Start the next frame in `buf` and return the offset of its body."""
    global sequence
    sequence += 1
    return wire.begin(buf, kind, config.READER, boot, sequence)


def beacon(burst: int, power_dbm: int) -> bytes:
    """Return the 19 bytes of this reader's own beacon."""
    body = struct.pack(">BHHHb7x", wire.ADVERTISEMENT_VERSION | 1, config.READER, boot, burst, power_dbm)
    return body + mac(b"B" + body)[:4]


def send(end: int) -> int:
    """Seal and transmit what is in `buf`. Return 0 sent, 1 busy (try again soon), 2 failed. It may block for long."""
    global failed
    try:
        xbee.transmit(
            xbee.ADDR_COORDINATOR,
            wire.seal(buf, end, mac),
            source_ep=xbee.ENDPOINT_DIGI_DATA,
            dest_ep=xbee.ENDPOINT_DIGI_DATA,
            cluster=xbee.CLUSTER_DIGI_SERIAL_DATA,
            profile=xbee.PROFILE_DIGI_XBEE,
        )
        failed = False
        return 0
    except OSError as error:
        if error.args[0] == errno.EAGAIN:
            counters[_BUSY] += 1
            return 1
        counters[_FAILED] += 1
        failed = True
        return 2


def receive() -> tuple[int, bytes] | None:
    """Return (kind, body) of the next fresh frame from our gateway to this reader; None if the queue is empty."""
    while True:
        message = xbee.receive()
        if message is None:
            return None
        frame = message["payload"]
        try:
            kind, reader, number, echoed = wire.peek(frame)
            if (
                message["sender_nwk"] == 0
                and reader == config.READER
                and number == boot
                and 0 <= sequence - echoed <= _FRESH_MAX
                and kind >= wire.ACK
            ):
                return kind, wire.body_of(frame, mac)
        except wire.WireError:
            pass
        counters[_REFUSED] += 1
