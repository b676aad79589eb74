"""One reader: the compiled firmware in a real MicroPython process, driven in lock-step virtual time.

The process blocks on a socket at every wait of the firmware (sleep, transmit, a read of a queue). Between two waits no
time passes for the firmware. The caller owns the clock:

    reader = ReaderProcess(7, flash_dir, radio=mesh)    # flash_dir made by `prepare_flash`
    reader.start(now_ms)
    while ...:
        now_ms = the earliest of reader.wake_at_ms and the world's own events
        reader.hear(now_ms, address, rssi_dbm, payload)     # an advertisement is on the air
        reader.deliver(now_ms, payload)                     # a mesh frame arrives
        if reader.wake_at_ms <= now_ms: reader.run(now_ms)

Nothing here depends on what the firmware does. What the module itself may do is in sim/reader/switches.py, the
stand-ins of its own modules are in sim/reader/device/.
Times are milliseconds of the caller's clock (any origin; they may be floats for the air, the firmware sees whole
milliseconds). The same calls and the same seed give the same bytes.
"""

import contextlib
import math
import os
import random
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from readers import wire
from sim.reader.flash import BLOCK_B, boot_folder, image_file
from sim.reader.switches import ERRORS, Switches

ENDED_S = 1.0  # real time between the end of a process's line and its own
WALL_LIMIT_S = 5.0  # real time in which the firmware must reach its next wait
PAYLOAD_MAX = 66  # encrypted unicast; a longer one goes out in fragments, which bellows cannot put together
PRODUCT_NAME = b"\x02\x01\x06\x0d\x09XBee3 Zigbee"  # what it advertises when the firmware sets nothing else
USABLE_PINS = ("D1", "D2", "D3", "D4", "D10", "D11", "D12", "P0", "P1", "P2")
TICKS_MASK = 0x3FFFFFFF
LOG_MAX = 4000  # newest bytes of the console that are logged per boot

POWER_ON, HARD_RESET, WATCHDOG, SOFT_RESET, BROWNOUT = 4, 3, 5, 6, 11  # machine.reset_cause()
FLASH_OPEN, FLASH_SYNC, FLASH_REPLACE, FLASH_READ, FLASH_REMOVE, FLASH_RENAME = range(6)

_HEAD = struct.Struct("<BBBBI")
_REPLY = struct.Struct("<IBBBBIB")
_STATUS = {"works": 0, "ValueError": 253, "TypeError": 254, "raises": 255} | ERRORS  # as _host.py reads them
_NO_ADDRESS, _NO_PAYLOAD = 128, 64
_ATCMD = {"int": 0, "bytes": 1, "str": 2, "none": 3, "raises": 255}
# MicroPython from the wheel is a CPython extension. The image of the stand-ins is outside its heap.
_LAUNCH = """
import ctypes, os, sys, micropython_unix
path = sys.argv.pop(1)
image = open(path, "rb").read()
os.unlink(path)
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: killed with the simulator, even in a loop that never waits
os.getppid() == int(sys.argv.pop(1)) or os._exit(1)
rom = ctypes.create_string_buffer(image, len(image))
os.environ["ANSIM_ROM"] = "%d %d" % (ctypes.addressof(rom), len(image))
sys.exit(micropython_unix.main())
"""


class ReaderRadio(Protocol):
    """The world round a reader: it gets what the reader does. Called inside `run`, `hear`, `transmit_done`, `kill`."""

    def on_transmit(
        self, reader: "ReaderProcess", now_ms: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> None:
        """The reader waits in xbee.transmit to the coordinator. Call `reader.transmit_done` now or later.

        endpoints: (source endpoint, destination endpoint, cluster, profile).
        """

    def on_pin(self, reader: "ReaderProcess", now_ms: float, name: str, level: int) -> None:
        """The firmware wrote level 0 or 1 to an output pin (called at every write, changed or not)."""

    def on_log(self, reader: "ReaderProcess", line: str) -> None:
        """A line of the console (a traceback), or of `ReaderProcess` itself (a hang, a watchdog reset)."""


class ReaderProcess:
    """One XBee 3 with the firmware on it. Not thread-safe. While it runs, it is one process of about 12 MB.

    number: the number that `prepare_flash` wrote, for the caller's use. switches: what this module does to its program;
    they may be replaced at any time (heap and what exists count from the next boot). in_place: .mpy files run from
    flash as after os.bundle(); False: they are loaded into the heap, as from files. seed: of os.urandom on the device
    and of torn writes. ticks_at_boot_ms: where time.ticks_ms() starts (0 on the device; near 2**30 to see it wrap).
    """

    def __init__(
        self,
        number: int,
        flash_dir: Path,
        *,
        radio: ReaderRadio,
        switches: Switches | None = None,
        in_place: bool = True,
        seed: int = 0,
        ticks_at_boot_ms: int = 0,
        wall_limit_s: float = WALL_LIMIT_S,
    ) -> None:
        self.number = number
        self.flash_dir = flash_dir
        self.switches = switches or Switches()
        self.supply_mv = 3300
        self.temperature_c = 20
        self.boots = 0  # processes started
        self.causes: list[int] = []  # reset causes of the newest 100 starts
        self.hangs = 0  # processes that did not reach their next wait within wall_limit_s
        self.scan_drops = 0  # advertisements lost to a full queue
        self.receive_drops = 0  # frames lost to a full queue
        self.exchanges = 0
        self.transmissions = 0  # calls of xbee.transmit
        self.flash_writes = 0  # files opened for writing: they wear the flash
        self.interrupts = 0  # bytes 0x03 on its serial line
        self.looked_at_ms = -math.inf  # when the firmware last read an input pin: a bell
        self.heartbeat: dict[str, int] | None = None  # the newest that was sent, by wire.HEARTBEAT_FIELDS
        self.scan_stalled = False  # fault: the scanner never returns its next advertisement
        self.cut_at_flash_step: int | None = None  # fault: power fails after this many more flash steps (torn writes)
        self.on_lost: Callable[[str], None] | None = None
        """Called with the reason when somebody else has killed its process: that is no fault of a module."""
        self.on_advertise: Callable[[ReaderProcess, float], None] | None = None
        """Called with (reader, now_ms) whenever `advertising` changes."""
        self.advertising: tuple[float, int, bytes] | None = None
        """(since ms, interval us, payload) of what its Bluetooth advertises now. None: silent or off."""
        self._radio = radio
        self._random = random.Random(f"{seed}/{number}")
        self._in_place = in_place
        self._lost_b = 0  # of the flash that never frees
        self._ticks_at_boot_ms = ticks_at_boot_ms
        self._wall_limit_s = wall_limit_s
        self._levels = 0xFFFFFFFF  # inputs are high when idle: pull-ups
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._console: Path = flash_dir.parent / f"{flash_dir.name}.console"
        self._buffer = b""
        self._now_ms = self._booted_at_ms = self._sent_at_ms = self._typed_at_ms = 0.0
        self._powered = False
        self._clear()

    def _clear(self) -> None:
        self._start_at_ms: float | None = None  # when the next process begins
        self._sleep_until_ms: float | None = None
        self._wants_advertisement = False
        self._in_transmit = False
        self._outcome: int | None = None
        self._in_exchange = False
        self._watchdog_ms = 0
        self._watchdog_soft = False
        self._watchdog_at_ms: float | None = None
        self._scan: tuple[float, int, int] | None = None  # since ms, interval us, window us
        self._scan_until_ms = math.inf  # a scan that was stopped may go on for a while
        self._scans = 0  # gap_scan calls that this boot has seen
        self._ble_on = not self.switches.ble_off
        self._owed_ms = 0.0  # time that calls took without waiting; the next sleep is longer by it
        self._interrupted = False  # a byte 0x03 came that the program has not seen
        self._interrupted_at_ms = math.inf  # the newest of `interrupt_every_s`
        self._held: tuple[float, int] | None = None  # when transmit may return at the earliest, with which status
        self._advertise(None)
        self._advertised = PRODUCT_NAME
        self._heard: deque[bytes] = deque()
        self._received: deque[bytes] = deque()
        self._unsynced: set[str] = set()

    # ---- what the caller does ----

    @property
    def alive(self) -> bool:
        """Whether it has power, and runs, boots or waits for its watchdog."""
        return self._powered and (self._process is not None or self.wake_at_ms < math.inf)

    @property
    def transmitting(self) -> bool:
        return self._in_transmit

    @property
    def wake_at_ms(self) -> float:
        """When `run` must be called next. inf: only `hear`, `transmit_done` or `start` can wake it."""
        held = self._held and self._held[0]
        times = [t for t in (self._start_at_ms, self._sleep_until_ms, self._watchdog_at_ms, held) if t is not None]
        return min(times, default=math.inf)

    def start(self, now_ms: float, cause: int = POWER_ON) -> None:
        """Switch the power on: the firmware starts boot_ms later. Raises ValueError when the power is on already."""
        if self._powered:
            raise ValueError(f"reader {self.number} is running; call kill() first")
        self._powered = True
        self._begin(now_ms, cause)

    def kill(self) -> None:
        """Cut its power: the process ends. Files that were not synced to flash may be cut short. The folder stays."""
        self._end_process()
        for name in sorted(self._unsynced):
            path = self.flash_dir / name
            if path.exists():
                data = path.read_bytes()
                path.write_bytes(data[: self._random.randrange(len(data) + 1)])
        self._clear()
        self._powered = False

    def stop(self) -> None:
        """End the process and drop everything pending. The flash folder stays as the firmware left it."""
        self._unsynced.clear()
        self.kill()

    def run(self, now_ms: float) -> None:
        """Let the firmware run until its next wait. Does nothing before `wake_at_ms`."""
        self._now_ms = max(self._now_ms, now_ms)
        if self._watchdog_at_ms is not None and now_ms >= self._watchdog_at_ms:
            self._log(f"watchdog: {self._watchdog_ms} ms without progress")
            self._reset(SOFT_RESET if self._watchdog_soft else WATCHDOG)
        if self._start_at_ms is not None and now_ms >= self._start_at_ms:
            self._start_at_ms = None
            self._spawn()
            self._exchange()
        elif self._sleep_until_ms is not None and now_ms >= self._sleep_until_ms:
            self._sleep_until_ms = None
            self._reply()
            self._exchange()
        elif self._held is not None and now_ms >= self._held[0]:
            status, self._held, self._in_transmit = self._held[1], None, False
            self._reply(status=status)
            self._exchange()

    def scan_channel(self, now_ms: float) -> int | None:
        """Return the Bluetooth channel that it listens to now: 37, 38, 39 in turn, one per interval. None: not now."""
        if self._scan is None or self._in_exchange or now_ms >= self._scan_until_ms:
            return None
        since_ms, interval_us, window_us = self._scan
        interval, phase_us = divmod((now_ms - since_ms) * 1000, interval_us)
        return 37 + int(interval) % 3 if now_ms >= since_ms and phase_us < window_us else None

    def scanning(self, now_ms: float) -> bool:
        return self.scan_channel(now_ms) is not None

    def hear(self, now_ms: float, address: bytes, rssi_dbm: int, payload: bytes, channel: int | None = None) -> bool:
        """Offer one advertisement. Return whether the scanner took it: the window is open, on that channel if given.

        address: 6 bytes. payload: up to 31 bytes of advertising data, as on the air.
        """
        listens = self.scan_channel(now_ms)
        if listens is None or (channel is not None and channel != listens) or len(payload) > 31:
            return False
        draw = self._random.random
        missing = _NO_ADDRESS if self.switches.address_none_pct and 100 * draw() < self.switches.address_none_pct else 0
        self._queue_advertisement(address + bytes([1 | missing, rssi_dbm & 0xFF]) + payload)
        if self.switches.payload_none_pct and 100 * draw() < self.switches.payload_none_pct:
            self._queue_advertisement(address + bytes([1 | _NO_PAYLOAD, rssi_dbm & 0xFF]))
        if self._wants_advertisement and not self.scan_stalled:
            self._now_ms = max(self._now_ms, now_ms)
            self._wants_advertisement = False
            self._reply(self._heard.popleft())
            self._exchange()
        return True

    def _queue_advertisement(self, row: bytes) -> None:
        if len(self._heard) >= self.switches.scan_queue:
            self._heard.popleft()
            self.scan_drops += 1
        self._heard.append(row)

    def type_in(self, now_ms: float, data: bytes) -> None:
        """Let bytes arrive on its serial line. 0x03 raises KeyboardInterrupt at the program's next step."""
        if b"\x03" in data and self._process is not None:
            self.interrupts += 1
            self._interrupted = True

    def deliver(
        self,
        now_ms: float,
        payload: bytes,
        *,
        sender_nwk: int = 0,
        sender_eui64: bytes = bytes(8),
        endpoints: tuple[int, int, int, int] = (0xE8, 0xE8, 0x11, 0xC105),
        broadcast: bool = False,
    ) -> bool:
        """Put a mesh frame into the receive queue. False: the queue is full or off, and the sender sees status 0x24."""
        if self._process is None:
            return False
        if len(self._received) >= self.switches.receive_queue:
            self.receive_drops += 1
            return False
        head = struct.pack(">H8sBBHHB", sender_nwk, sender_eui64, *endpoints, broadcast)
        self._received.append(head + payload)
        return True

    def transmit_done(self, now_ms: float, error: str | None = None, transmission: int | None = None) -> None:
        """Let xbee.transmit return, or raise OSError(errno.<error>), one of `switches.ERRORS`.

        transmission: the value of `reader.transmissions` in on_transmit. Give it when a reset may come before the call.
        """
        if not self._in_transmit or self._held is not None or transmission not in (None, self.transmissions):
            return  # the reader was reset meanwhile, or the module itself decides
        status = 0 if error is None else ERRORS[error]
        if self._in_exchange:  # called directly from on_transmit: the loop there continues
            self._outcome = status
            return
        self._now_ms = max(self._now_ms, now_ms)
        if self._sent_at_ms + self.switches.transmit_ms > now_ms:
            self._held = (self._sent_at_ms + self.switches.transmit_ms, status)
            return
        self._in_transmit = False
        self._reply(status=status)
        self._exchange()

    def pin(self, name: str, level: int) -> None:
        """Set an input pin, one of USABLE_PINS, to level 0 or 1. The firmware can see it after its current wait."""
        bit = 1 << _pin_index(name)
        self._levels = self._levels | bit if level else self._levels & ~bit

    # ---- the process ----

    def _begin(self, now_ms: float, cause: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)
        self._start_at_ms = now_ms + self.switches.boot_ms
        self.causes = [*self.causes[-99:], cause]

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(self._wall_limit_s)
        image = image_file(self.flash_dir, in_place=self._in_place)
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(image), str(os.getpid()),
                 "-X", f"heapsize={self.switches.heap_b}", "-m", "_boot"],
                stdin=theirs.fileno(),
                stdout=console,
                stderr=console,
                cwd=self.flash_dir,
                env={**os.environ, "MICROPYPATH": str(boot_folder())},
                start_new_session=True,  # so that only the simulator gets a Ctrl-C
            )  # fmt: skip
        theirs.close()
        self._socket = ours
        self._buffer = b""
        self._booted_at_ms = self._now_ms
        self._interrupted_at_ms = self._typed_at_ms = self._now_ms
        self.boots += 1

    def _end_process(self, lost: bool = False) -> None:
        """End the process. lost: its line has ended already."""
        if self._process is None:
            return
        if lost:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDED_S)
            code = self._process.returncode
            if code is not None and code < 0 and self.on_lost is not None:
                self.on_lost(f"reader {self.number}: its MicroPython was killed by {signal.Signals(-code).name}")
        self._process.kill()  # before its line is closed: the program would take that for a crash, and say so
        self._process.wait()
        if self._socket is not None:
            self._socket.close()
        self._process = self._socket = None
        with contextlib.suppress(OSError):
            for line in self._console.read_bytes()[-LOG_MAX:].decode(errors="replace").splitlines():
                self._log(line)
            self._console.unlink()

    def _reset(self, cause: int) -> None:
        self._end_process()
        unsynced = self._unsynced
        self._clear()
        self._unsynced = unsynced
        self._begin(self._now_ms, cause)

    def _log(self, line: str) -> None:
        self._radio.on_log(self, "".join(c if c.isprintable() else "?" for c in line[:200]))

    def _reply(self, data: bytes = b"", status: int = 0) -> None:
        ticks = int(self._now_ms - self._booted_at_ms + self._ticks_at_boot_ms) & TICKS_MASK
        self._hear_serial_line()
        scans = self._scan is not None and self._now_ms < self._scan_until_ms
        flags = self._interrupted | scans << 1
        self._interrupted = False
        head = _REPLY.pack(ticks, len(self._heard), len(self._received), len(data), status, self._levels, flags)
        assert self._socket is not None
        with contextlib.suppress(OSError):  # the next read finds that the process has ended
            self._socket.sendall(head + data)

    def _hear_serial_line(self) -> None:
        """Let the bytes arrive that the switches send since the last look."""
        every_ms = self.switches.interrupt_every_s * 1000
        if every_ms and self._now_ms - self._interrupted_at_ms >= every_ms:
            self._interrupted_at_ms = self._now_ms
            self.type_in(self._now_ms, b"\x03")
        noise = self.switches.stdin_b_s and (self._now_ms - self._typed_at_ms) * self.switches.stdin_b_s / 256_000
        if noise and self._random.random() < noise:
            self.type_in(self._now_ms, b"\x03")
        self._typed_at_ms = self._now_ms

    def _read(self) -> tuple[int, int, int, bytes] | None:
        """Return the next (op, done, argument, data). None: the process has ended or hangs."""
        while True:
            if len(self._buffer) >= 8:
                op, length, done, _, argument = _HEAD.unpack_from(self._buffer)
                if len(self._buffer) >= 8 + length:
                    data = self._buffer[8 : 8 + length]
                    self._buffer = self._buffer[8 + length :]
                    return op, done, argument, data
            assert self._socket is not None
            try:
                more = self._socket.recv(4096)
            except TimeoutError:
                self.hangs += 1
                self._log(f"hang: no wait reached in {self._wall_limit_s} s of real time; killed")
                return None
            except OSError:
                return None
            if not more:
                return None
            self._buffer += more

    def _exchange(self) -> None:
        self._in_exchange = True
        try:
            while self._step():
                self.exchanges += 1
        finally:
            self._in_exchange = False

    def _step(self) -> bool:
        """Handle one message. Return whether the firmware continues now."""
        hangs = self.hangs
        message = self._read()
        if message is None:
            self._end_process(lost=self.hangs == hangs)  # now only the watchdog is left, if it was armed
            self._scan = self._sleep_until_ms = None
            return False
        op, done, argument, data = message
        if done & 2:
            self.looked_at_ms = self._now_ms
        if done & 1 and self._watchdog_at_ms is not None:
            self._watchdog_at_ms = self._now_ms + self._watchdog_ms
        match chr(op):
            case "S":
                self._sleep_until_ms = self._now_ms + argument + self._owed_ms
                self._owed_ms = 0.0
                return False
            case "A":
                if not self._heard or self.scan_stalled:
                    self._wants_advertisement = True
                    return False
                self._reply(self._heard.popleft())
            case "R":
                self._reply(self._received.popleft() if self._received else b"")
            case "T":
                return self._transmit(argument, data)
            case "P":
                self._owed_ms += self.switches.call_ms
                self._radio.on_pin(self, self._now_ms, _pin_name(argument >> 1), argument & 1)
            case "I":
                name = data.decode(errors="replace")
                refused = name not in USABLE_PINS or name in self.switches.pins_refused.split(",")
                self._reply(status=_STATUS["ValueError" if refused else "works"])
            case "E":
                self._ble_on = self._ble_on if argument == 2 else bool(argument)
                self._reply(bytes([self._ble_on]))
            case "G":
                self._reply(status=_STATUS[self._gap_scan(argument, int.from_bytes(data, "little"))])
            case "X":
                self._scan_until_ms = min(self._scan_until_ms, self._now_ms + self.switches.stop_late_ms)
                self._reply()
            case "V":
                self._reply(status=_STATUS[self._gap_advertise(argument >> 1, data if argument & 1 else None)])
            case "W":
                self._watchdog_ms, self._watchdog_soft = argument >> 1, not argument & 1
                self._watchdog_at_ms = self._now_ms + self._watchdog_ms
            case "U":
                self._reply(self._random.randbytes(argument))
            case "C":
                self._reply(self._at_command(data), status=_ATCMD[self.switches.atcmd])
            case "B":
                has = self.switches.gc_threshold | self.switches.kbd_intr << 1 | self.switches.watchdog << 2
                at = bytes([has]) + self.switches.interrupt_at_step.to_bytes(3, "little")
                self._reply(at, status=self.causes[-1])
            case "F":
                return self._flash_step(argument, data.decode(errors="replace"))
            case "Z":
                self._unsynced.clear()
                self._reset(argument)
                return False
            case other:
                raise AssertionError(f"sim/reader/device and sim/reader/process.py disagree: op {other!r}")
        return True

    def _gap_scan(self, interval_us: int, window_us: int) -> str:
        """Start a scan, or return the error."""
        self._scans += 1
        wish = self.switches.gap_scan if self._scans == 1 else self.switches.gap_scan_again
        if wish == "works" and not self._ble_on:
            wish = "ENODEV"
        if wish == "works" and self._scan is not None and self._now_ms < self._scan_until_ms:
            wish = "EALREADY"
        if wish == "works":
            self._scan, self._scan_until_ms = (self._now_ms, interval_us, window_us), math.inf
            self._heard.clear()
        return wish

    def _gap_advertise(self, interval_us: int, data: bytes | None) -> str:
        """Act as the module: interval 0 stops, data None keeps the payload, b"" is the product name. Or an error."""
        if self.switches.gap_advertise != "works":
            return self.switches.gap_advertise
        if not self._ble_on:
            return "ENODEV"
        if (interval_us and not 20_000 <= interval_us <= 40_959_375) or len(data or b"") > 31:
            return "ValueError"
        if data is not None:
            self._advertised = data or PRODUCT_NAME
        self._advertise((self._now_ms, interval_us // 625 * 625, self._advertised) if interval_us else None)
        return "works"

    def _advertise(self, what: tuple[float, int, bytes] | None) -> None:
        if what != self.advertising:
            self.advertising = what
            if self.on_advertise is not None:
                self.on_advertise(self, self._now_ms)

    def _transmit(self, argument: int, data: bytes) -> bool:
        if len(data) > PAYLOAD_MAX:
            raise AssertionError(f"reader {self.number} sends {len(data)} bytes; over {PAYLOAD_MAX} it is fragmented")
        with contextlib.suppress(wire.WireError):
            if wire.peek(data)[0] == wire.HEARTBEAT:
                values = wire.decode_heartbeat(data[wire.HEADER_SIZE : -wire.MAC_SIZE])
                self.heartbeat = dict(zip(wire.HEARTBEAT_FIELDS, values, strict=True))
        self._in_transmit, self._outcome = True, None
        self._sent_at_ms = self._now_ms
        self.transmissions += 1
        switches = self.switches
        if switches.transmit != "works" and 100 * self._random.random() < switches.transmit_pct:
            self._outcome = _STATUS[switches.transmit]  # and nothing leaves the antenna
        else:
            endpoints = (argument >> 16, argument >> 8 & 0xFF, argument & 0xFF, 0xC105)
            self._radio.on_transmit(self, self._now_ms, data, endpoints)
        outcome: int | None = self._outcome
        if outcome is None:
            return False
        if switches.transmit_ms:
            self._held = (self._now_ms + switches.transmit_ms, outcome)
            return False
        self._in_transmit = False
        self._reply(status=outcome)
        return True

    def _at_command(self, command: bytes) -> bytes:
        values = {b"%V": self.supply_mv, b"TP": self.temperature_c & 0xFFFF, b"AI": 0}
        return values[command].to_bytes(2, "big") if command in values else b""

    def _flash_step(self, step: int, name: str) -> bool:
        """Let the step happen, or answer with its error. A power cut may come instead of any step but a read."""
        how = self.switches.flash
        if step == FLASH_READ:
            self._reply(status=ERRORS["EIO"] if how == "unreadable" else 0)
            return True
        self._owed_ms += self.switches.call_ms
        if self.cut_at_flash_step is not None:
            if self.cut_at_flash_step <= 0:
                self.cut_at_flash_step = None
                self.kill()
                return False
            self.cut_at_flash_step -= 1
        error = ""
        if step == FLASH_OPEN:
            if how == "full" or (how == "never_frees" and self._lost_b + BLOCK_B > self.switches.flash_b):
                error = "ENOSPC"
            else:
                self.flash_writes += 1
                self._lost_b += BLOCK_B
                self._unsynced.add(name)
        elif step == FLASH_SYNC:
            error = "EIO" if how == "no_sync" else ""
            for short in sorted(self._unsynced) if how == "short" else ():
                with contextlib.suppress(OSError):
                    os.truncate(self.flash_dir / short, (self.flash_dir / short).stat().st_size // 2)
            self._unsynced.clear()
        elif step == FLASH_REPLACE and how == "no_replace":
            error = "EEXIST"
        self._reply(status=ERRORS[error] if error else 0)
        return True


def _pin_index(name: str) -> int:
    if name not in USABLE_PINS:
        raise ValueError(f"no pin {name!r} for a program on an XBee 3; there are {', '.join(USABLE_PINS)}")
    return int(name[1:]) + (16 if name[0] == "P" else 0)


def _pin_name(index: int) -> str:
    return f"P{index - 16}" if index >= 16 else f"D{index}"
