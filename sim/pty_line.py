"""A pseudo-terminal with a sans-I/O device on its far side, and faults for the serial line between them.

The clock is the event loop's. The device must be built with the same clock (`now=loop.time`, CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import os
import pty
import random
import termios
import tty
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

READ_MAX = 4096
PTS = "/dev/pts/"
OUT_MAX = 16384
STALLED_MAX = 65536


class Device(Protocol):
    """The device at the far end of the line."""

    def receive_data(self, data: bytes, now_s: float) -> None: ...
    def data_to_send(self, now_s: float) -> bytes: ...
    def next_deadline_s(self) -> float | None: ...
    def on_time(self, now_s: float) -> None: ...


@dataclass
class LineFaults:
    """Faults of a serial line in both directions, repeatable by seed. Rates are per byte, 0..1.

    `mute` loses all bytes from the device, `deaf` all bytes from the host. `stall(until_s)` holds the bytes from the
    device until that time, in order. It holds at most STALLED_MAX bytes; more are dropped.
    """

    seed: int = 0
    corrupt_rate: float = 0.0
    drop_rate: float = 0.0
    mute: bool = False
    deaf: bool = False
    corrupted: int = 0
    dropped: int = 0
    stalled_until_s: float = 0.0
    _rng: random.Random = field(init=False, repr=False)
    _held: bytearray = field(init=False, repr=False, default_factory=bytearray)

    def __post_init__(self) -> None:
        if not (0 <= self.corrupt_rate <= 1 and 0 <= self.drop_rate <= 1):
            raise ValueError("fault rates are 0..1 per byte")
        self._rng = random.Random(self.seed)

    def stall(self, until_s: float) -> None:
        self.stalled_until_s = until_s

    def to_device(self, data: bytes) -> bytes:
        return b"" if self.deaf else self._damage(data)

    def to_host(self, data: bytes, now_s: float) -> bytes:
        if self.mute:
            self.dropped += len(data)
            return b""
        self._held += self._damage(data)
        if len(self._held) > STALLED_MAX:
            self.dropped += len(self._held) - STALLED_MAX
            del self._held[STALLED_MAX:]
        if now_s < self.stalled_until_s:
            return b""
        out = bytes(self._held)
        self._held.clear()
        return out

    def next_deadline_s(self) -> float | None:
        return self.stalled_until_s if self._held else None

    def _damage(self, data: bytes) -> bytes:
        if not self.corrupt_rate and not self.drop_rate:
            return data
        out = bytearray()
        for byte in data:
            if self._rng.random() < self.drop_rate:
                self.dropped += 1
            elif self._rng.random() < self.corrupt_rate:
                self.corrupted += 1
                out.append(byte ^ 1 << self._rng.randrange(8))
            else:
                out.append(byte)
        return bytes(out)


class PtyLine:
    """Owner of the pseudo-terminal. It keeps its own slave descriptor open, so hosts may close and open the port.

    Bytes that no host reads are bounded: they fill the terminal's own buffer, then OUT_MAX bytes here. More bytes are
    dropped and counted in `dropped`.
    """

    def __init__(self, device: Device, path: Path | None, *, faults: LineFaults | None = None) -> None:
        self._endpoint = device
        self.path = path
        self.faults = faults or LineFaults()
        self.device = ""
        self.dropped = 0
        self._out = bytearray()
        self._master = self._slave = -1
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = os.ttyname(self._slave)
        try:
            if self.path is not None:
                if self.path.is_symlink() and os.readlink(self.path).startswith(PTS):
                    self.path.unlink()  # left by a killed process of ours; a link to a real port stays
                self.path.symlink_to(self.device)
        except OSError:
            self._close_descriptors()
            raise
        self._loop.add_reader(self._master, self._readable)
        self.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._master)
            if self._writing:
                self._loop.remove_writer(self._master)
        if self._timer is not None:
            self._timer.cancel()
        if self.path is not None and self.path.is_symlink() and os.readlink(self.path) == self.device:
            self.path.unlink()
        self._close_descriptors()

    def flush(self) -> None:
        """Write what the device has to send now, and set the timer for its next deadline."""
        if self._loop is None or self._master < 0:
            return
        now_s = self._loop.time()
        if len(self._out) < OUT_MAX:
            self._out += self.faults.to_host(self._endpoint.data_to_send(now_s), now_s)
        self._write()
        self._set_timer(now_s)

    def forget_unread(self) -> None:
        """Drop what no host has read: a host that opens the port must not see the frames of the host before it."""
        self._out.clear()
        termios.tcflush(self._slave, termios.TCIFLUSH)

    def _readable(self) -> None:
        assert self._loop is not None
        try:
            data = os.read(self._master, READ_MAX)
        except (BlockingIOError, InterruptedError):
            return
        data = self.faults.to_device(data)
        if data:
            self._endpoint.receive_data(data, self._loop.time())
        self.flush()

    def _write(self) -> None:
        assert self._loop is not None
        while self._out:
            try:
                sent = os.write(self._master, self._out)
            except (BlockingIOError, InterruptedError):
                break
            del self._out[:sent]
        if len(self._out) > OUT_MAX:
            self.dropped += len(self._out) - OUT_MAX
            del self._out[OUT_MAX:]
        if self._out and not self._writing:
            self._loop.add_writer(self._master, self._writable)
        elif not self._out and self._writing:
            self._loop.remove_writer(self._master)
        self._writing = bool(self._out)

    def _writable(self) -> None:
        self.flush()

    def _set_timer(self, now_s: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [self._endpoint.next_deadline_s(), self.faults.next_deadline_s()]
        when_s = min((t for t in times if t is not None), default=None)
        if when_s is not None:
            self._timer = self._loop.call_at(max(when_s, now_s), self._on_timer)

    def _on_timer(self) -> None:
        assert self._loop is not None
        self._timer = None
        self._endpoint.on_time(self._loop.time())
        self.flush()

    def _close_descriptors(self) -> None:
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1
