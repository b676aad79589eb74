"""The serial line to a module: opens the port, enters command mode, sends AT commands.

Its errors are written for a technician. Digi's file-system client also uses a `SerialPort`, so a silent module is
noticed there too.
"""

import errno
import os
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import serial

BAUDS = (115_200, 9_600)  # ours, and a module's factory setting
ANSWER_MAX = 512  # characters of one answer; the longest we ask for has 36


class LineError(Exception):
    """The connection between this program and the module failed. The text says what, where, and the next step."""


class PortUnusable(LineError):
    """The serial port cannot be opened: it is missing, forbidden, or in use."""


class PortTaken(PortUnusable):
    """Another program has the serial port open."""


class ReaderSilent(LineError):
    """The port is open but the module does not answer, or stopped answering."""

    def __init__(self, port: str, doing: str) -> None:
        super().__init__(
            f"no answer from the module on {port} while {doing}; check power and cable, "
            "press the board's reset button, run the same command again"
        )
        self.port = port


class CommandRefused(LineError):
    """The module answered ERROR."""

    def __init__(self, port: str, command: str) -> None:
        super().__init__(f"the module on {port} refused AT{command}; is it an XBee 3 with Zigbee firmware? run `probe`")
        self.command = command


@dataclass(frozen=True)
class Timing:
    """Seconds. guard_s: silence before and after +++ (the module's GT is 1 s). silence_s: longest wait for any byte,
    longer than the slowest answer we know (formatting, 10 s in Digi's client). poll_s: timeout of one read; for Digi's
    client an empty read ends an answer. look_s: between two looks at whether it has joined."""

    guard_s: float = 1.1
    answer_s: float = 2.0
    silence_s: float = 12.0
    boot_s: float = 15.0
    poll_s: float = 0.05
    attempts: int = 2
    look_s: float = 0.5


class SerialPort:
    """A pyserial port that raises ReaderSilent if the module was asked and sends nothing for `silence_s`."""

    def __init__(self, name: str, timing: Timing) -> None:
        self.name = name
        self.timing = timing
        self._serial = serial.Serial(baudrate=BAUDS[0], timeout=timing.poll_s, write_timeout=10, exclusive=True)
        self._serial.port = name
        self._asked_at: float | None = None

    def open(self) -> None:
        """Open the port unless it is open. Raises PortUnusable with the reason and the next step."""
        if self._serial.is_open:
            return
        try:
            self._serial.open()
        except serial.SerialException as error:
            kind = PortTaken if error.errno in (errno.EBUSY, errno.EAGAIN) else PortUnusable
            raise kind(explain_open(self.name, error.errno, str(error))) from error

    def close(self) -> None:
        self._serial.close()

    def read(self, size: int = 1) -> bytes:
        """Return what came, at most `size` bytes, after at most `poll_s`; b"" if nothing."""
        with self._watched():
            data = bytes(self._serial.read(size))
        if data:
            self._asked_at = None
        elif self._asked_at is not None and time.monotonic() - self._asked_at > self.timing.silence_s:
            raise ReaderSilent(self.name, "sending it a file")
        return data

    def write(self, data: bytes) -> None:
        with self._watched():
            self._serial.write(data)
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    def flush(self) -> None:
        with self._watched():
            self._serial.flush()

    def purge_port(self) -> None:
        with self._watched():
            self._serial.reset_input_buffer()
            self._serial.reset_output_buffer()

    def isOpen(self) -> bool:  # the name that Digi's client calls
        return bool(self._serial.is_open)

    def get_read_timeout(self) -> float:
        return float(self._serial.timeout)

    def set_read_timeout(self, timeout_s: float) -> None:
        self._serial.timeout = min(timeout_s, self.timing.poll_s)

    def set_baud(self, baud: int) -> None:
        self._serial.baudrate = baud

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (OSError, termios.error) as error:  # serial.SerialException is an OSError
            raise LineError(f"{self.name} went away ({error}); plug it in and run the same command again") from error

    def expect_silence(self) -> None:
        """Expect no answer any more: the module may stay silent now."""
        self._asked_at = None


class SerialLine:
    """A module in command mode. `log` gets one line for every command, without the answers to SECRETS."""

    SECRETS = ("I?", "KY", "NK")

    def __init__(self, port: str, timing: Timing | None = None, log: Callable[[str], None] = lambda line: None) -> None:
        self.timing = timing or Timing()
        self.port = SerialPort(port, self.timing)
        self.log = log
        self.baud = BAUDS[0]
        self._in_command_mode = False

    def open(self) -> int:
        """Open the port, find the baud rate, enter command mode. Return the baud rate."""
        self.port.open()
        for baud in BAUDS:
            self.baud = baud
            self.port.set_baud(baud)
            for attempt in range(self.timing.attempts + 1):
                if attempt == self.timing.attempts:  # it may wait for a file that a killed run had begun to send
                    self.port.write(b"\x18" * 8)
                    self._read_answer(self.timing.answer_s)
                if self._enter():
                    self.log(f"command mode at {baud} baud")
                    return baud
        raise ReaderSilent(self.port.name, f"calling it at {' and '.join(map(str, BAUDS))} baud")

    def close(self) -> None:
        """Close the port. A module that is still in command mode leaves it first."""
        if self._in_command_mode and self.port.isOpen():
            with suppress(LineError):
                self.port.write(b"ATCN\r")
                self.port.flush()
        self.port.close()

    def ask(self, command: str) -> str:
        """Send `AT<command>` and return the answer without its CR. Raises CommandRefused, ReaderSilent."""
        for attempt in (1, 2):
            self.port.purge_port()
            self.port.write(f"AT{command}\r".encode("ascii"))
            answer = self._read_answer(self.timing.answer_s)
            if answer is not None:
                break
            if attempt == 2 or not self._enter():  # command mode ends by itself after 10 s of silence
                raise ReaderSilent(self.port.name, f"asking AT{command}")
        assert answer is not None
        self.log(f"AT{command} -> {'(not logged)' if command in self.SECRETS else answer}")
        if answer == "ERROR":
            raise CommandRefused(self.port.name, command)
        return answer

    def ask_lines(self, command: str) -> list[str]:
        """Send `AT<command>` and return every line of its answer, which silence ends. Raises as `ask`."""
        lines = [self.ask(command)]
        while (line := self._read_answer(self.timing.answer_s / 2)) is not None:
            lines.append(line)
        return lines

    def restart(self, baud: int) -> None:
        """Reset the module, enter command mode again at `baud`, the rate that it has saved. Raises ReaderSilent."""
        self.ask("FR")
        self.baud = baud
        self.port.set_baud(baud)
        deadline = time.monotonic() + self.timing.boot_s
        while not self._enter():
            if time.monotonic() > deadline:
                raise ReaderSilent(self.port.name, "restarting it")

    def leave(self) -> None:
        """Leave command mode, so that the reader's program gets the line again."""
        self.ask("CN")
        self._in_command_mode = False

    def cancel(self) -> None:
        """End a file transfer that is stuck and return to command mode. Raises ReaderSilent."""
        self.port.expect_silence()
        self.port.write(b"\x18" * 8)
        self._read_answer(self.timing.answer_s)
        if not any(self._enter() for _ in range(self.timing.attempts)):
            raise ReaderSilent(self.port.name, "ending a file transfer")

    def _enter(self) -> bool:
        self._in_command_mode = self._call()
        return self._in_command_mode

    def _call(self) -> bool:
        port = self.port
        port.expect_silence()
        time.sleep(self.timing.guard_s)
        port.purge_port()
        port.write(b"+++")
        if self._read_answer(self.timing.guard_s + self.timing.answer_s) == "OK":
            return True
        port.write(b"\rAT\r")  # in command mode already, it took +++ as the start of a line
        while (answer := self._read_answer(self.timing.answer_s / 2)) is not None:
            if answer == "OK":
                return True
        return False

    def _read_answer(self, timeout_s: float) -> str | None:
        deadline = time.monotonic() + timeout_s
        answer = bytearray()
        while time.monotonic() < deadline and len(answer) < ANSWER_MAX:
            byte = self.port.read(1)
            if byte == b"\r":
                text = bytes(b for b in answer if 0x20 <= b < 0x7F).decode("ascii").strip()
                # A running program may print before OK; only the end of the line is the module's answer.
                return "OK" if text.endswith("OK") else text
            answer += byte
        self.port.expect_silence()
        return None


def explain_open(port: str, code: int | None, why: str) -> str:
    """Return what a technician can do about a port that does not open. `code` is the errno, if there was one."""
    if code == errno.ENOENT:
        thief = "; brltty is running and takes such adapters: sudo apt-get remove brltty, plug it in again"
        return (
            f"there is no port {port}{thief if _brltty_runs() else ''}; plug the reader in, then: ls /dev/serial/by-id/"
        )
    if code in (errno.EACCES, errno.EPERM):
        return f"no right to use {port}; run: sudo usermod -aG dialout $USER, then log out and in again"
    if code in (errno.EBUSY, errno.EAGAIN):
        return f"another program uses {port} (a terminal, XCTU, ModemManager); close it, see: fuser -v {port}"
    listed = "give a serial port, one of: ls /dev/serial/by-id/"
    if code == errno.EISDIR:
        return f"{port} is a folder, no serial port; {listed}"
    if code == errno.ENOTTY or f"({errno.ENOTTY}," in why:  # pyserial tells this one in its text only
        return f"{port} is a file or another device, no serial port; {listed}"
    return f"cannot open {port}: {why}; is it a serial port?"


def _brltty_runs() -> bool:
    for process in Path("/proc").glob("[0-9]*/comm"):
        try:
            if process.read_text().strip() == "brltty":
                return True
        except OSError:
            continue  # it ended meanwhile
    return os.path.exists("/run/brltty")
