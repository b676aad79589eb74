"""ASH, the serial link between an EZSP host and a network co-processor (NCP), seen from the NCP.

    frame on the line:  stuffed(control, data field, CRC high, CRC low)  FLAG

    control   0 FFF R AAA   DATA    F frame number, R re-transmitted, A next frame number wanted from the peer
              100 r N AAA   ACK     N the sender (a host) is not ready for callbacks
              101 r N AAA   NAK     go back to frame A
              1100 0000     RST     host asks for a software reset
              1100 0001     RSTACK  data field: 2 (ASH version), reset code
              1100 0010     ERROR   data field: 2, reset or error code; the NCP has failed

    7E FLAG ends a frame      7D ESC: next byte ^ 20      11 XON, 13 XOFF: flow control, never part of a frame
    18 SUB: a receiver lost bytes, ignore up to the next FLAG      1A CANCEL: ignore all since the last FLAG

CRC: CRC-CCITT, initial value FFFF, over control and data field as sent, high byte first. A DATA frame's data field is
xored with a fixed sequence (`pseudo_random`) before the CRC is taken. Numbers: UG101, chapters 2 to 7.

This file holds the frames and their decoder. The NCP's end of a link is in `sim/ncp/ash_link.py`.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass
from enum import IntEnum

FLAG, ESC, XON, XOFF, SUB, CANCEL = 0x7E, 0x7D, 0x11, 0x13, 0x18, 0x1A
RESERVED = frozenset((FLAG, ESC, XON, XOFF, SUB, CANCEL))
ASH_VERSION = 2

DATA_FIELD_MAX = 220
FRAME_MIN, FRAME_MAX = 3, 1 + DATA_FIELD_MAX + 2
RAW_MAX = 4096


class FrameKind(IntEnum):
    """The kind of a frame. The values are the control bytes with all variable bits clear."""

    DATA = 0x00
    ACK = 0x80
    NAK = 0xA0
    RST = 0xC0
    RSTACK = 0xC1
    ERROR = 0xC2


@dataclass(frozen=True, slots=True)
class AshFrame:
    """One valid frame. Only DATA uses `number` and `retransmitted`; only ACK and NAK use `not_ready`."""

    kind: FrameKind
    data: bytes = b""
    number: int = 0
    retransmitted: bool = False
    ack: int = 0
    not_ready: bool = False


@dataclass(frozen=True, slots=True)
class MalformedAsh:
    """A frame that cannot be used: the reason, its unstuffed bytes, and whether its control byte is that of DATA."""

    reason: str
    raw: bytes
    looks_like_data: bool


def pseudo_random(length: int) -> bytes:
    """Return the first `length` bytes of the fixed sequence that DATA fields are xored with (UG101 section 4.3)."""
    out = bytearray()
    value = 0x42
    for _ in range(length):
        out.append(value)
        value = (value >> 1) ^ (0xB8 if value & 1 else 0)
    return bytes(out)


_SEQUENCE = pseudo_random(DATA_FIELD_MAX)


def randomise(data: bytes) -> bytes:
    """Xor a data field (at most DATA_FIELD_MAX bytes) with the fixed sequence. A second call restores the field."""
    if len(data) > DATA_FIELD_MAX:
        raise ValueError(f"an ASH data field holds at most {DATA_FIELD_MAX} bytes, not {len(data)}")
    return bytes(a ^ b for a, b in zip(data, _SEQUENCE, strict=False))


def stuff(raw: bytes) -> bytes:
    """Escape every reserved byte."""
    out = bytearray()
    for byte in raw:
        if byte in RESERVED:
            out += bytes((ESC, byte ^ 0x20))
        else:
            out.append(byte)
    return bytes(out)


def encode(frame: AshFrame) -> bytes:
    """Return one frame as sent on the line, stuffed and ended by FLAG. Raise ValueError if DATA are too long."""
    control, data = int(frame.kind), frame.data
    if frame.kind is FrameKind.DATA:
        control = (frame.number & 7) << 4 | frame.retransmitted << 3 | frame.ack & 7
        data = randomise(data)
    elif frame.kind in (FrameKind.ACK, FrameKind.NAK):
        control |= frame.not_ready << 3 | frame.ack & 7
    raw = bytes((control,)) + data
    return stuff(raw + crc_hqx(raw, 0xFFFF).to_bytes(2, "big")) + bytes((FLAG,))


def parse(raw: bytes) -> AshFrame | MalformedAsh:
    """Read one unstuffed frame (control to CRC). Never raise."""
    looks_like_data = bool(raw) and raw[0] < 0x80
    if not FRAME_MIN <= len(raw) <= FRAME_MAX:
        return MalformedAsh("length", raw, looks_like_data)
    if crc_hqx(raw[:-2], 0xFFFF) != int.from_bytes(raw[-2:], "big"):
        return MalformedAsh("crc", raw, looks_like_data)
    control, data = raw[0], raw[1:-2]
    if control < 0x80:
        return AshFrame(FrameKind.DATA, randomise(data), control >> 4, bool(control & 8), control & 7)
    if control < 0xC0:
        if data:
            return MalformedAsh("length", raw, False)
        kind = FrameKind.NAK if control & 0x20 else FrameKind.ACK
        return AshFrame(kind, ack=control & 7, not_ready=bool(control & 8))
    if control == FrameKind.RST and not data:
        return AshFrame(FrameKind.RST)
    if control in (FrameKind.RSTACK, FrameKind.ERROR) and len(data) == 2:
        return AshFrame(FrameKind(control), data)
    return MalformedAsh("control", raw, False)


class Decoder:
    """Turn the bytes of a line, split anywhere, into frames. Hold at most RAW_MAX unread bytes and a partial frame."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._partial = bytearray()
        self._escaped = False
        self._skipping = False
        self.raw_dropped = 0

    def receive_data(self, data: bytes) -> None:
        """Store bytes. Bytes above RAW_MAX are dropped, oldest first, and counted in `raw_dropped`."""
        self._raw += data
        if len(self._raw) > RAW_MAX:
            excess = len(self._raw) - RAW_MAX
            del self._raw[:excess]
            self.raw_dropped += excess

    def next_frame(self) -> AshFrame | MalformedAsh | bool | None:
        """Return the next frame, True for XON, False for XOFF, None when more bytes are needed."""
        for used, byte in enumerate(self._raw, 1):
            out = self._take(byte)
            if out is not None:
                del self._raw[:used]
                return out
        self._raw.clear()
        return None

    def _take(self, byte: int) -> AshFrame | MalformedAsh | bool | None:
        if byte in (XON, XOFF):
            return byte == XON
        if byte == CANCEL:
            self._restart(skipping=False)
        elif byte == SUB:
            self._restart(skipping=True)
        elif byte == FLAG:
            raw, escaped, skipping = bytes(self._partial), self._escaped, self._skipping
            self._restart(skipping=False)
            if skipping or not (raw or escaped):
                return None
            return MalformedAsh("escape", raw, bool(raw) and raw[0] < 0x80) if escaped else parse(raw)
        elif self._skipping:
            pass
        elif byte == ESC:
            self._escaped = True
        else:
            self._partial.append(byte ^ 0x20 if self._escaped else byte)
            self._escaped = False
            if len(self._partial) > FRAME_MAX:
                raw = bytes(self._partial)
                self._restart(skipping=True)
                return MalformedAsh("length", raw, raw[0] < 0x80)
        return None

    def _restart(self, *, skipping: bool) -> None:
        self._partial.clear()
        self._escaped = False
        self._skipping = skipping
