"""The NCP's end of an ASH link: windows, acknowledgements, time-outs, re-transmission, the FAILED state.

Nothing here reads a clock or a file descriptor: bytes and `now_s` come in, payloads and bytes go out. Numbers: UG101,
chapters 5 to 7, unless stated otherwise.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields

from sim.ncp.ash import (
    ASH_VERSION,
    DATA_FIELD_MAX,
    FRAME_MAX,
    RAW_MAX,
    AshFrame,
    Decoder,
    FrameKind,
    MalformedAsh,
    encode,
)

T_RX_ACK_START_S, T_RX_ACK_MIN_S, T_RX_ACK_MAX_S = 1.6, 0.4, 3.2
T_TX_ACK_DELAY_S = 0.02
"""How long an acknowledgement waits for a DATA frame that can carry it."""
T_REMOTE_NOT_READY_S = 1.0
T_XOFF_MAX_S = 3.2
"""Our own limit, not from UG101: a stray 0x13 on a noisy line must not silence the NCP permanently."""
ACK_TIMEOUTS = 4
WINDOW_MAX = 5
IN_FLIGHT_BYTES_MAX = 1000
"""Maximum of unacknowledged bytes: some hosts drop what exceeds a 1,024-byte receive buffer. Ours, not from UG101."""
INBOX_MAX = 8
OUTBOX_MAX = 16

RESET_UNKNOWN, RESET_EXTERNAL, RESET_POWER_ON, RESET_WATCHDOG, RESET_ASSERT = 0x00, 0x01, 0x02, 0x03, 0x06
RESET_SOFTWARE = 0x0B
ERROR_ACK_TIMEOUTS = 0x51


@dataclass
class Counters:
    """What the link has seen since it was created: bytes or events. No counter falls, even when the link is reset."""

    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    data_in: int = 0
    data_out: int = 0
    retransmitted: int = 0
    duplicates: int = 0
    out_of_sequence: int = 0
    malformed: int = 0
    naks_in: int = 0
    naks_out: int = 0
    bad_ack_numbers: int = 0
    ack_timeouts: int = 0
    inbox_full: int = 0
    outbox_full: int = 0
    raw_dropped: int = 0
    resets: int = 0
    failures: int = 0

    def as_dict(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class _Sent:
    payload: bytes
    number: int
    size: int
    sent_s: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The host sent RST: everything above the link must restart. Answer with `AshLink.reset`."""


@dataclass
class AshLink:
    """The NCP's end of one ASH link.

    Give bytes from the host to `receive_data`. `next_frame` returns EZSP payloads and `Reset` in order, None when there
    are none. `send` queues a payload; False means it was not taken: OUTBOX_MAX payloads wait, or the link has FAILED.
    `data_to_send` returns the bytes to write now; call it after each of the others. Call `on_time` at `next_deadline_s`
    (None: no call is needed).
    """

    window: int = WINDOW_MAX
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        if not 1 <= self.window <= WINDOW_MAX:
            raise ValueError(f"the NCP's transmit window is 1..{WINDOW_MAX}, not {self.window}")
        self._decoder = Decoder()
        self._inbox: deque[bytes | Reset] = deque()
        self._now_s = 0.0
        self._raw_out = bytearray()
        self.failed_code: int | None = None
        self._booting = False
        self._start()

    def _start(self) -> None:
        self._outbox: deque[bytes] = deque()
        self._in_flight: deque[_Sent] = deque()
        self._tx_number = 0
        self._rx_number = 0
        self._t_rx_ack_s = T_RX_ACK_START_S
        self._ack_deadline_s: float | None = None
        self._timeouts = 0
        self._owe_ack_s: float | None = None
        self._rejecting = False
        self._go_back = False
        self._not_ready_until_s: float | None = None
        self._xoff_until_s: float | None = None

    @property
    def t_rx_ack_s(self) -> float:
        """The current acknowledgement time-out in s, T_RX_ACK_MIN_S..T_RX_ACK_MAX_S."""
        return self._t_rx_ack_s

    @property
    def in_flight(self) -> int:
        """The number of DATA frames sent and not yet acknowledged, 0..window."""
        return len(self._in_flight)

    @property
    def host_ready(self) -> bool:
        """Whether the host takes callbacks. False for at most T_REMOTE_NOT_READY_S after it reports "not ready"."""
        return self._not_ready_until_s is None

    @property
    def room(self) -> bool:
        """Whether a payload given to `send` now would go out at once (unless XOFF holds it)."""
        return (
            self.failed_code is None and not self._outbox and len(self._in_flight) < self.window and self._bytes_fit()
        )

    def receive_data(self, data: bytes, now_s: float) -> None:
        """Take bytes from the line and act on every whole frame in them. Never raise, whatever the bytes are."""
        self._now_s = now_s
        self.counters.bytes_in += len(data)
        for start in range(0, len(data), RAW_MAX):
            self._decoder.receive_data(data[start : start + RAW_MAX])
            while (frame := self._decoder.next_frame()) is not None:
                if isinstance(frame, bool):
                    self._xoff_until_s = None if frame else now_s + T_XOFF_MAX_S
                elif isinstance(frame, MalformedAsh):
                    self._on_malformed(frame)
                else:
                    self.counters.frames_in += 1
                    self._on_frame(frame)
        self.counters.raw_dropped = self._decoder.raw_dropped

    def next_frame(self) -> bytes | Reset | None:
        """Return the next EZSP payload or Reset, None when there is none."""
        return self._inbox.popleft() if self._inbox else None

    def send(self, payload: bytes) -> bool:
        """Queue one EZSP payload. Raise ValueError if it is longer than DATA_FIELD_MAX."""
        if len(payload) > DATA_FIELD_MAX:
            raise ValueError(f"an ASH data field holds at most {DATA_FIELD_MAX} bytes, not {len(payload)}")
        if self.failed_code is not None or len(self._outbox) >= OUTBOX_MAX:
            self.counters.outbox_full += 1
            return False
        self._outbox.append(payload)
        return True

    def reset(self, code: int = RESET_SOFTWARE) -> None:
        """Restart the link and report it to the host with RSTACK. All queued and unacknowledged payloads are lost."""
        self.counters.resets += 1
        self._begin(FrameKind.RSTACK, code, failed_code=None)

    def fail(self, code: int) -> None:
        """Enter the FAILED state: send ERROR now, and in answer to every frame until the host sends RST."""
        self.counters.failures += 1
        self._begin(FrameKind.ERROR, code, failed_code=code)

    def data_to_send(self, now_s: float) -> bytes:
        """Return all to write now: NAK, RSTACK or ERROR; re-transmissions; new DATA in the window; an owed ACK."""
        self._now_s = now_s
        if self.failed_code is None and self._xoff_until_s is None:
            if self._go_back:
                self._go_back = False
                for sent in self._in_flight:
                    sent.again, sent.sent_s = True, now_s
                    self.counters.retransmitted += 1
                    self._write_data(sent)
                self._arm()
            while self._outbox and len(self._in_flight) < self.window and self._bytes_fit():
                sent = _Sent(self._outbox.popleft(), self._tx_number, 0, now_s)
                self._tx_number = (self._tx_number + 1) & 7
                self._in_flight.append(sent)
                self._write_data(sent)
                if self._ack_deadline_s is None:
                    self._arm()
            if self._owe_ack_s is not None and now_s >= self._owe_ack_s:
                self._owe_ack_s = None
                self._write(AshFrame(FrameKind.ACK, ack=self._rx_number))
        out = bytes(self._raw_out)
        self._raw_out.clear()
        self.counters.bytes_out += len(out)
        return out

    def next_deadline_s(self) -> float | None:
        """Return the earliest time at which `on_time` or `data_to_send` has something to do, None if there is none."""
        owe_ack_s = self._owe_ack_s if self._xoff_until_s is None else None
        times = (self._ack_deadline_s, owe_ack_s, self._not_ready_until_s, self._xoff_until_s)
        return min((t for t in times if t is not None), default=None)

    def on_time(self, now_s: float) -> None:
        """Act on every deadline that has passed."""
        self._now_s = now_s
        if self._not_ready_until_s is not None and now_s >= self._not_ready_until_s:
            self._not_ready_until_s = None
        if self._xoff_until_s is not None and now_s >= self._xoff_until_s:
            self._xoff_until_s = None
        if self._ack_deadline_s is None or now_s < self._ack_deadline_s:
            return
        self.counters.ack_timeouts += 1
        self._timeouts += 1
        if self._timeouts >= ACK_TIMEOUTS:
            self.fail(ERROR_ACK_TIMEOUTS)
            return
        self._set_timeout(2 * self._t_rx_ack_s)
        self._go_back = True
        self._arm()

    def _begin(self, kind: FrameKind, code: int, *, failed_code: int | None) -> None:
        self.failed_code = failed_code
        self._booting = False
        self._start()
        self._raw_out.clear()
        self._inbox.clear()
        self._write(AshFrame(kind, bytes((ASH_VERSION, code))))

    def _on_malformed(self, bad: MalformedAsh) -> None:
        self.counters.malformed += 1
        if self.failed_code is not None:
            self._write_error()
        elif bad.looks_like_data and not self._booting:
            self._reject()

    def _on_frame(self, frame: AshFrame) -> None:
        if frame.kind is FrameKind.RST:
            self._inbox.clear()
            self._inbox.append(Reset())
            self.failed_code = None
            self._booting = True
            self._start()
        elif self._booting:
            pass  # a chip that restarts ignores all but RST until `reset`
        elif self.failed_code is not None:
            self._write_error()
        elif frame.kind is FrameKind.DATA:
            self._on_ack(frame.ack)
            self._on_data(frame)
        elif frame.kind in (FrameKind.ACK, FrameKind.NAK):
            self._not_ready_until_s = self._now_s + T_REMOTE_NOT_READY_S if frame.not_ready else None
            self._on_ack(frame.ack)
            if frame.kind is FrameKind.NAK:
                self.counters.naks_in += 1
                if self._in_flight and frame.ack == self._in_flight[0].number:
                    self._go_back = True

    def _on_data(self, frame: AshFrame) -> None:
        if frame.number == self._rx_number:
            if len(self._inbox) >= INBOX_MAX:
                self.counters.inbox_full += 1
                self._reject()
                return
            self.counters.data_in += 1
            self._rx_number = (self._rx_number + 1) & 7
            self._rejecting = False
            self._inbox.append(frame.data)
            if self._owe_ack_s is None:
                self._owe_ack_s = self._now_s + T_TX_ACK_DELAY_S
        elif frame.retransmitted:
            self.counters.duplicates += 1
            self._owe_ack_s = self._now_s
        else:
            self.counters.out_of_sequence += 1
            self._reject()

    def _on_ack(self, wanted: int) -> None:
        first = self._in_flight[0].number if self._in_flight else self._tx_number
        done = (wanted - first) & 7
        if done > len(self._in_flight):
            self.counters.bad_ack_numbers += 1
            return
        if done == 0:
            return
        newest = self._in_flight[0]
        for _ in range(done):
            newest = self._in_flight.popleft()
        self._timeouts = 0
        self._set_timeout(7 / 8 * self._t_rx_ack_s + (self._now_s - newest.sent_s) / 2)
        if self._in_flight:
            self._arm()
        else:
            self._ack_deadline_s = None
            self._go_back = False

    def _reject(self) -> None:
        if not self._rejecting:
            self._rejecting = True
            self.counters.naks_out += 1
            self._owe_ack_s = None
            self._write(AshFrame(FrameKind.NAK, ack=self._rx_number))

    def _set_timeout(self, seconds: float) -> None:
        self._t_rx_ack_s = min(max(seconds, T_RX_ACK_MIN_S), T_RX_ACK_MAX_S)

    def _arm(self) -> None:
        self._ack_deadline_s = self._now_s + self._t_rx_ack_s if self._in_flight else None

    def _bytes_fit(self) -> bool:
        return sum(sent.size for sent in self._in_flight) < IN_FLIGHT_BYTES_MAX - 2 * FRAME_MAX

    def _write_data(self, sent: _Sent) -> None:
        raw = encode(AshFrame(FrameKind.DATA, sent.payload, sent.number, sent.again, self._rx_number))
        sent.size = len(raw)
        self.counters.data_out += 1
        self._owe_ack_s = None
        self._raw_out += raw

    def _write(self, frame: AshFrame) -> None:
        self._raw_out += encode(frame)

    def _write_error(self) -> None:
        if not self._raw_out and self.failed_code is not None:
            self._write(AshFrame(FrameKind.ERROR, bytes((ASH_VERSION, self.failed_code))))
