# The mesh: one frame out, one frame in. Owns the frame buffer, the sequence and the counters of the link.
import errno

import config
import wire
import xbee
from auth import mac
from micropython import const

_FRESH_MAX = const(64)  # frames a downlink may be behind; older ones are replays

SENT = 0
BUSY = 1
FAILED = 2

buf = bytearray(wire.FRAME_MAX)
boot = 0
sequence = 0
failed = 0
busy = 0
refused = 0


def begin(kind: int) -> int:
    """Start the next frame in `buf` and return the offset of its body."""
    global sequence
    sequence += 1
    return wire.begin(buf, kind, config.READER, boot, sequence)


def send(end: int) -> int:
    """Seal and transmit what is in `buf` and return SENT, BUSY or FAILED. May block for the mesh's time-out."""
    global failed, busy
    try:
        xbee.transmit(
            xbee.ADDR_COORDINATOR,
            wire.seal(buf, end, mac),
            source_ep=xbee.ENDPOINT_DIGI_DATA,
            dest_ep=xbee.ENDPOINT_DIGI_DATA,
            cluster=xbee.CLUSTER_DIGI_SERIAL_DATA,
            profile=xbee.PROFILE_DIGI_XBEE,
        )
        return SENT
    except OSError as error:
        if error.args[0] == errno.EAGAIN:
            busy += 1
            return BUSY
        failed += 1
        return FAILED


def receive() -> tuple[int, bytes] | None:
    """Return (kind, body) of the next frame that is our gateway's, ours and fresh; None when the queue is empty."""
    global refused
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
        refused += 1
