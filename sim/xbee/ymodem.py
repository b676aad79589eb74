"""YMODEM as an XBee's `ATFS PUT` and `ATFS GET` use it: bytes in, bytes out; the caller gives the time.

    block      SOH 128 bytes | STX 1024 bytes, each: header, seq, 255 - seq, data, CRC-16/XMODEM (MSB first)
    block 0    name, 0, size in decimal, then a space or 0; an empty name ends the batch
    answers    'C' (send, with CRC), ACK, NAK, CAN; EOT ends a file

Written from the protocol description (Forsberg, "XMODEM/YMODEM protocol reference", 1988), not from Digi's client.
"""

SOH, STX, EOT, ACK, NAK, CAN = 0x01, 0x02, 0x04, 0x06, 0x15, 0x18
CRC_REQUEST = 0x43

BLOCK_S_MAX = 10.0  # the module gives up a transfer after this silence; unverified on hardware
PROMPT_S = 1.0  # interval of the 'C's until block 0 comes; unverified on hardware
PROMPTS_MAX = 10
TRIES_MAX = 10
SIZE_MAX = 1 << 20  # bytes, largest size a file may announce: the largest /flash of any XBee 3
SETTLE_S = 0.02  # after ACK a sender waits for a quiet line: receivers may send ACK twice, or ACK and 'C'


def crc16(data: bytes) -> int:
    """Return the CRC-16/XMODEM of `data`: polynomial 0x1021, start 0, nothing reflected."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc


class YmodemReceiver:
    """The receiving side of one file. `content`: the bytes so far. At the end `done` is True, or `failed` says why."""

    def __init__(self, now_s: float, prompt_s: float = PROMPT_S) -> None:
        self.content = bytearray()
        self.size: int | None = None
        self.done = False
        self.failed: str | None = None
        self.repeats = 0
        self._buffer = bytearray()
        self._expected = 0
        self._ended = False
        self._heard_at = now_s
        self._prompts = 1
        self._prompt_s = prompt_s

    def receive_data(self, data: bytes, now_s: float) -> bytes:
        """Take bytes from the line and return the answer."""
        self._heard_at = now_s
        self._buffer += data
        answer = bytearray()
        while self._buffer and not (self.done or self.failed):
            head = self._buffer[0]
            if head == CAN:
                self.failed = "the sender cancelled"
            elif head == EOT:
                del self._buffer[0]
                self._ended, self._expected = True, 0
                answer += bytes((ACK, CRC_REQUEST))
            elif head in (SOH, STX):
                length = 3 + (128 if head == SOH else 1024) + 2
                if len(self._buffer) < length:
                    break
                block = bytes(self._buffer[:length])
                del self._buffer[:length]
                answer += self._take(block)
            else:
                del self._buffer[0]  # noise between blocks
        return bytes(answer)

    def on_tick(self, now_s: float) -> bytes:
        """Repeat the prompt until block 0 comes; give up after a silence."""
        if self.done or self.failed:
            return b""
        quiet_s = now_s - self._heard_at
        if self.size is None and not self._buffer:
            if quiet_s < self._prompt_s * self._prompts:
                return b""
            self._prompts += 1
            if self._prompts > PROMPTS_MAX:
                self.failed = "no sender"
            return bytes((CRC_REQUEST,))
        if quiet_s > BLOCK_S_MAX:
            self.failed = "the sender fell silent"
        return b""

    def _take(self, block: bytes) -> bytes:
        sequence, data = block[1], block[3:-2]
        if sequence ^ block[2] != 0xFF or crc16(data) != int.from_bytes(block[-2:], "big"):
            return bytes((NAK,))
        if sequence == (self._expected - 1) & 0xFF and (self._expected or self.content):
            self.repeats += 1  # our ACK was lost
            return bytes((ACK,))
        if sequence != self._expected & 0xFF:
            self.failed = f"block {sequence} came where {self._expected & 0xFF} was due"
            return bytes((CAN, CAN))
        if self._ended:
            self.done = True
            return bytes((ACK,))
        if self.size is None:
            return self._take_header(data)
        self.content += data
        del self.content[self.size :]  # the last block is padded
        self._expected += 1
        return bytes((ACK,))

    def _take_header(self, data: bytes) -> bytes:
        words = data.split(b"\0", 2)
        size = words[1].split(b" ")[0]
        if not words[0] or not size.isdigit() or int(size) > SIZE_MAX:
            self.failed = "block 0 names no file and no size the flash could hold"
            return bytes((CAN, CAN))
        self.size = int(size)
        self._expected = 1
        return bytes((ACK, CRC_REQUEST))


class YmodemSender:
    """The sending side of one file, for `ATFS GET`."""

    def __init__(self, name: str, content: bytes, now_s: float) -> None:
        self.done = False
        self.failed: str | None = None
        blocks = [_block(0, (name.encode() + b"\0" + str(len(content)).encode()).ljust(128, b"\0"))]
        for start in range(0, len(content), 1024):
            piece = content[start : start + 1024]
            padded = piece.ljust(128 if len(piece) <= 128 else 1024, b"\x1a")
            blocks.append(_block((len(blocks)) & 0xFF, padded))
        self._parts = [*blocks, bytes((EOT,)), _block(0, bytes(128))]
        self._at = -1  # -1: waiting for the first 'C'
        self._acked_at: float | None = None
        self._heard_at = now_s
        self._tries = 0

    def receive_data(self, data: bytes, now_s: float) -> bytes:
        """Take the receiver's answers. Return a block only to repeat it; the next one comes from `on_tick`."""
        self._heard_at = now_s
        if CAN in data:
            self.failed = "the receiver cancelled"
        elif ACK in data or (self._at < 0 and CRC_REQUEST in data):
            self._acked_at = now_s
        elif NAK in data and self._at >= 0:
            return self._again()
        return b""

    def on_tick(self, now_s: float) -> bytes:
        """Return the next part when the line was quiet for SETTLE_S after the ACK."""
        if self.done or self.failed:
            return b""
        if self._acked_at is not None and now_s - self._heard_at >= SETTLE_S:
            self._acked_at, self._tries, self._heard_at = None, 0, now_s
            self._at += 1
            if self._at == len(self._parts):
                self.done = True
                return b""
            return self._parts[self._at]
        if now_s - self._heard_at > BLOCK_S_MAX:
            self.failed = "the receiver fell silent"
        return b""

    def _again(self) -> bytes:
        self._tries += 1
        if self._tries > TRIES_MAX:
            self.failed = "the receiver refused a block ten times"
            return bytes((CAN, CAN))
        return self._parts[self._at]


def _block(sequence: int, data: bytes) -> bytes:
    head = SOH if len(data) == 128 else STX
    return bytes((head, sequence, 255 - sequence)) + data + crc16(data).to_bytes(2, "big")
