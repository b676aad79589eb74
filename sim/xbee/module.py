"""A virtual XBee 3 (Zigbee) on a pty: command mode, settings that survive a reset, and the file system with YMODEM.

    silence GT, "+++", silence GT  ->  OK            command mode, until ATCN, ATFR or CT of silence
    AT<two characters>[ value]CR   ->  value | OK | ERROR
    ATPYB, ATPYE, ATPY^            ->  two lines on bundled code | erase it | stop the program
    ATFS PWD|CD|MD|LS|PUT|GET|MV|RM|HASH|INFO|FORMAT CONFIRM

It sees only the serial line and depends neither on our flasher nor on Digi's host library. Where the manual leaves a
choice it takes the stricter one (PUT and MV refuse a name that exists). It has no API mode, no REPL and no radio. With
an `Interpreter` it runs the program that PS=1 starts; what that prints goes to the line, except in command mode.
Sources: Digi 90001539 (XBee 3 Zigbee user guide), chapters "Command mode", "AT commands", "File system commands".
"""

import json
import os
import pty
import select
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from zlib import crc32

from sim.xbee.network import JOINED, NearNetwork
from sim.xbee.settings import HEX_SETTINGS, public_key_command
from sim.xbee.volume import FileRefused, Volume
from sim.xbee.ymodem import CAN, CRC_REQUEST, NAK, PROMPT_S, YmodemReceiver, YmodemSender

LINE_MAX = 320  # a command line: "ATFS MV " and two paths; bytes beyond it are ignored, as by a fixed buffer
ANSWER_TICK_S = 0.01
ANY_EXT_PAN_ID = 0xDDDDDDDDDDDDDDDD  # of the network of a module that is said to be in one, whatever its settings
COMPILED = "2000-01-01T00:00:00"  # what PYB prints if the clock was not set


@dataclass
class Faults:
    """What goes wrong. Each count goes down when its fault happens. With the defaults the module is healthy."""

    silent: bool = False
    cut_power_after_put_b: int | None = None
    stay_off: bool = False  # after a power cut: silent until the user sets `silent` to False
    wrong_hashes: int = 0
    corrupt_puts: int = 0
    wr_errors: int = 0
    unknown: frozenset[str] = frozenset()  # names of settings and sub-commands ("PYB") that this module does not know


@dataclass
class Factory:
    """Values from the factory. No command changes them. ai: what ATAI answers if no `NearNetwork` is given."""

    hv: int = 0x4247
    vr: int = 0x1014
    eui64: bytes = bytes.fromhex("0013a20041a06e60")
    ai: int = 0x22
    volume_b: int = 256 * 1024  # size of /flash; unverified, Digi gives no size for the Zigbee module


class Interpreter(Protocol):
    """Runs main of the volume, in its own time. `lost_b`: space of the volume that its writes used up for good."""

    lost_b: int

    def start(self, now_s: float) -> None: ...
    def stop(self) -> None: ...
    def receive_data(self, data: bytes, now_s: float) -> None: ...
    def data_to_send(self, now_s: float) -> bytes:
        """Let it run until now_s, and return what it printed since the last call."""


class VirtualXBee:
    """The module itself: `receive_data` and `on_tick` take the time in seconds and return bytes for the line.

    `folder/flash` holds the files, `folder/settings.json` what WR saved, `folder/bundle` (any bytes) the code that
    os.bundle() stored, if it exists. `guard_s` replaces GT, `prompt_s` is the interval at which an upload repeats 'C'
    (both make tests quick). `running`: PS=1 started its program, and nothing has interrupted it since; `interpreter`
    really runs it. `network` is what it may join; without one, ATAI always answers the factory's `ai`. `counts` counts
    what was done.
    """

    def __init__(
        self,
        folder: Path,
        factory: Factory | None = None,
        *,
        guard_s: float | None = None,
        prompt_s: float = PROMPT_S,
        faults: Faults | None = None,
        interpreter: Interpreter | None = None,
        network: NearNetwork | None = None,
    ) -> None:
        self.network = network
        self._now_s = self._booted_at = 0.0
        self.interpreter = interpreter
        self._started = False  # whether the interpreter was
        self.factory = factory or Factory()
        self.faults = faults or Faults()
        self.counts: Counter[str] = Counter()
        self.volume = Volume(folder / "flash", self.factory.volume_b)
        self.running = False
        self.settings: dict[str, int | str] = {}
        self.bundle = folder / "bundle"
        self._saved = folder / "settings.json"
        self._guard_s = guard_s
        self._prompt_s = prompt_s
        self._heard_at = float("-inf")
        self._plus = b""
        self._line = bytearray()
        self._command_mode = False
        self._transfer: YmodemReceiver | YmodemSender | None = None
        self._put_path = ""
        self._boot()

    # --- the serial line ---

    def receive_data(self, data: bytes, now_s: float) -> bytes:
        """Take bytes that the host sent at `now_s`. Return the answer."""
        quiet_s, self._heard_at = now_s - self._heard_at, now_s
        self._now_s = now_s
        if self.faults.silent:
            return b""
        if self._transfer is not None:
            answer = self._transfer.receive_data(data, now_s)
            return b"" if self._power_fails() else answer + self._after_transfer(now_s)
        if self._command_mode:
            return self._receive_command(data, now_s)
        if self.interpreter is not None and self._started:
            self.interpreter.receive_data(data, now_s)
        if quiet_s >= self.guard_s:
            self._plus = b""
        elif not self._plus:
            data = b"x" + data  # no silence before "+++"
        self._plus = (self._plus + data)[:4]
        return b""

    def on_tick(self, now_s: float) -> bytes:
        """Let time pass: guard times, the end of command mode, prompts and timeouts of a transfer; its program runs."""
        return self._let_run(now_s) + self._let_pass(now_s)

    def close(self) -> None:
        """Switch it off. With the next tick it is on again."""
        if self.interpreter is not None and self._started:
            self.interpreter.stop()
        self._started = False

    def _let_run(self, now_s: float) -> bytes:
        if self.interpreter is None or not self.running:
            return b""
        if not self._started:
            self.interpreter.start(now_s)
            self._started = True
        printed = self.interpreter.data_to_send(now_s)
        self.volume.lost_b = self.interpreter.lost_b
        console = not self._command_mode and self.settings["AP"] == 4 and not self.faults.silent
        return printed if console else b""

    def _let_pass(self, now_s: float) -> bytes:
        quiet_s = now_s - self._heard_at
        if self.faults.silent:
            return b""
        if self._transfer is not None:
            return self._transfer.on_tick(now_s) + self._after_transfer(now_s)
        if self._command_mode and quiet_s >= int(self.settings["CT"]) / 10:
            self._command_mode = False
        elif self._plus == b"+++" and quiet_s >= self.guard_s:
            self._plus, self._command_mode = b"", True
            self._line.clear()
            return b"OK\r"
        return b""

    @property
    def guard_s(self) -> float:
        return int(self.settings["GT"]) / 1000 if self._guard_s is None else self._guard_s

    # --- commands ---

    def _receive_command(self, data: bytes, now_s: float) -> bytes:
        answer = bytearray()
        for byte in data:
            if byte != 0x0D:
                if len(self._line) < LINE_MAX and 0x20 <= byte < 0x7F:
                    self._line.append(byte)
                else:
                    self.counts["bytes ignored"] += 1
                continue
            line = self._line.decode("ascii").strip()
            self._line.clear()
            if line:
                self.counts["commands"] += 1
                answer += self._command(line, now_s)
            if self._transfer is not None or not self._command_mode:
                break
        return bytes(answer)

    def _command(self, line: str, now_s: float) -> bytes:
        if line[:2].upper() != "AT":
            return b"ERROR\r"
        name, value = line[2:4].upper(), line[4:].strip()
        if name in self.faults.unknown:
            return b"ERROR\r"
        if name == "FS":
            return self._file_command(value, now_s)
        if name == "PY":
            return self._program_command(value.upper())
        if name == "FK":
            return self._public_key_command(value)
        actions: dict[str, Callable[[], bytes]] = {
            "": lambda: b"OK\r",
            "AC": lambda: b"OK\r",
            "CN": self._leave,
            "FR": self._reset,
            "RE": self._defaults,
            "WR": self._save,
        }
        if name in actions and not value:
            return actions[name]()
        return self._set(name, value) if value else self._get(name)

    def _get(self, name: str) -> bytes:
        made = self.factory
        fixed: dict[str, str] = {
            "HV": f"{made.hv:X}",
            "VR": f"{made.vr:X}",
            "SH": made.eui64[:4].hex().upper().lstrip("0") or "0",
            "SL": made.eui64[4:].hex().upper().lstrip("0") or "0",
            "AI": f"{self.association():X}",
            "I?": install_code(made.eui64).hex().upper(),
            **self._operating(),
            "CC": "2B",
        }
        if name in fixed:
            return fixed[name].encode() + b"\r"
        value = self.settings.get(name)
        if value is None:
            return b"ERROR\r"
        return (value if isinstance(value, str) else f"{value:X}").encode() + b"\r"

    def association(self) -> int:
        """Return what ATAI answers: 0 joined, or why not."""
        if self.network is None:
            return self.factory.ai
        return self.network.association(self.settings, self._now_s - self._booted_at)

    def _operating(self) -> dict[str, str]:
        """Return what it says of the network that it is in: extended PAN id, PAN id, channel, its address there."""
        if self.association() != JOINED:
            return {"OP": "0", "OI": "FFFF", "CH": "0", "MY": "FFFE"}
        near = self.network or NearNetwork(int(self.settings["ID"]) or ANY_EXT_PAN_ID)
        return {"OP": f"{near.ext_pan_id:X}", "OI": f"{near.pan_id:X}", "CH": f"{near.channel:X}", "MY": "5A17"}

    def _public_key_command(self, value: str) -> bytes:
        stored, answer = public_key_command(str(self.settings["FK"]), value)
        self.counts["settings changed"] += stored != self.settings["FK"]
        self.settings["FK"] = stored
        return answer.encode() + b"\r"

    def _set(self, name: str, value: str) -> bytes:
        if name == "NI" and len(value) <= 20:
            self.settings["NI"] = value
            return b"OK\r"
        limits = HEX_SETTINGS.get(name)
        try:
            number = int(value, 16)
        except ValueError:
            return b"ERROR\r"
        if limits is None or not limits[1] <= number <= limits[2]:
            return b"ERROR\r"
        self.settings[name] = number
        self.counts["settings changed"] += 1
        return b"OK\r"

    def _save(self) -> bytes:
        if self.faults.wr_errors:
            self.faults.wr_errors -= 1
            return b"ERROR\r"
        self.counts["WR"] += 1
        fresh = self._saved.with_suffix(".new")
        fresh.write_text(json.dumps(self.settings))
        os.replace(fresh, self._saved)
        return b"OK\r"

    def _defaults(self) -> bytes:
        self.settings = {name: limits[0] for name, limits in HEX_SETTINGS.items()} | {"NI": " ", "FK": "0"}
        return b"OK\r"

    def _leave(self) -> bytes:
        self._command_mode = False
        return b"OK\r"

    def _reset(self) -> bytes:
        self._boot()
        return b"OK\r"

    def _boot(self) -> None:
        self.counts["boots"] += 1
        self._booted_at = self._now_s
        self._defaults()
        if self._saved.exists():
            self.settings |= json.loads(self._saved.read_text())
        self._command_mode, self._transfer, self._plus = False, None, b""
        self._line.clear()
        self.volume.here = "/flash"
        self._start_program()

    def _start_program(self) -> None:
        self.close()
        self.running = self.settings["PS"] == 1 and any(map(self.volume.is_file, ("/flash/main.py", "/flash/main.mpy")))

    def _program_command(self, value: str) -> bytes:
        if f"PY{value}" in self.faults.unknown:
            return b"ERROR\r"
        match value:
            case "^":
                self.close()
                self.running = False
                return b"OK\r"
            case "V":
                return b"MicroPython v1.20\r"
            case "B":
                code = self.bundle.read_bytes() if self.bundle.exists() else b""
                return f"bytecode: {len(code)} bytes (hash=0x{crc32(code):08X})\rcompiled: {COMPILED}\r".encode()
            case "E":
                self.bundle.unlink(missing_ok=True)
                self._start_program()  # after the erasing MicroPython boots again, though not the module
                return b"OK\r"
        return b"ERROR\r"

    # --- files ---

    def _file_command(self, text: str, now_s: float) -> bytes:
        words = text.split()
        if not words:
            return b"ATFS commands: FORMAT INFO HASH PWD CD MD LS PUT GET MV RM\r"
        verb, args = words[0].upper(), words[1:]
        self.counts[f"FS {verb}"] += 1
        try:
            answer = self._file_verb(verb, args, now_s).encode() + b"\r"
        except FileRefused as refused:
            return f"{refused}\r".encode()
        ready = {YmodemReceiver: CRC_REQUEST, YmodemSender: NAK}.get(type(self._transfer))
        return answer if ready is None else answer + bytes((ready,))

    def _file_verb(self, verb: str, args: list[str], now_s: float) -> str:
        volume = self.volume
        match verb, args:
            case "PWD", []:
                return volume.here
            case "CD", [path]:
                return volume.change(path)
            case "LS", [] | [_]:
                return volume.list(args[0] if args else ".")
            case "MD", [path]:
                return volume.make(path)
            case "RM", [path]:
                return volume.remove(path)
            case "MV", [source, target]:
                return volume.move(source, target)
            case "INFO", []:
                return volume.info()
            case "FORMAT", [word] if word.upper() == "CONFIRM":
                return volume.format()
            case "HASH", [path]:
                return f"sha256 {self._hash(volume.read(path))}"
            case "PUT", [path]:
                self._put_path = volume.claim(path)
                self._transfer = YmodemReceiver(now_s, self._prompt_s)
                return "Receiving file with YMODEM..."
            case "GET", [path]:
                self._transfer = YmodemSender(path.rsplit("/", 1)[-1], volume.read(path), now_s)
                return "Sending file with YMODEM..."
        raise FileRefused("EINVAL", "unknown or incomplete file system command")

    def _hash(self, content: bytes) -> str:
        if self.faults.wrong_hashes:
            self.faults.wrong_hashes -= 1
            return sha256(content + b"x").hexdigest()
        return sha256(content).hexdigest()

    def _power_fails(self) -> bool:
        transfer, cut_b = self._transfer, self.faults.cut_power_after_put_b
        if not isinstance(transfer, YmodemReceiver) or cut_b is None or len(transfer.content) < cut_b:
            return False
        self.faults.cut_power_after_put_b = None
        with suppress(FileRefused):  # the bytes that reached the flash before the cut
            self.volume.write(self._put_path, bytes(transfer.content))
        self.counts["power cuts"] += 1
        self.faults.silent = self.faults.stay_off
        self._boot()
        return True

    def _after_transfer(self, now_s: float) -> bytes:
        transfer = self._transfer
        if transfer is None or not (transfer.done or transfer.failed):
            return b""
        self._transfer = None
        self._heard_at = now_s
        if transfer.failed:
            self.counts["transfers failed"] += 1
            return bytes((CAN, CAN)) + f"ECANCELED {transfer.failed}\r".encode()
        if isinstance(transfer, YmodemReceiver):
            content = bytearray(transfer.content)
            if self.faults.corrupt_puts and content:
                self.faults.corrupt_puts -= 1
                content[len(content) // 2] ^= 0x10
            try:
                self.volume.write(self._put_path, bytes(content))
            except FileRefused as refused:
                return f"{refused}\r".encode()
        return b"OK\r"


def install_code(eui64: bytes) -> bytes:
    """Return the 16-byte install code of this EUI64, always the same, and its CRC-16/X-25, LSB first."""
    code = sha256(b"virtual xbee install code" + eui64).digest()[:16]
    crc = 0xFFFF
    for byte in code:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return code + (crc ^ 0xFFFF).to_bytes(2, "little")


@dataclass
class Pty:
    """Serves one module on a pty, in a thread, inside a `with` block. `link` becomes a symbolic link to the pty."""

    module: VirtualXBee
    link: Path
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _fds: tuple[int, int] = (-1, -1)

    def __enter__(self) -> "Pty":
        self._fds = pty.openpty()
        tty.setraw(self._fds[1])  # and stays open: a client that closes its end must not close the line
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(self._fds[1]))
        self._thread = threading.Thread(target=self._serve, name="virtual xbee", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.module.close()
        self.link.unlink(missing_ok=True)
        for fd in self._fds:
            os.close(fd)

    def _serve(self) -> None:
        master = self._fds[0]
        while not self._stop.is_set():
            ready, _, _ = select.select([master], [], [], ANSWER_TICK_S)
            answer = self.module.receive_data(os.read(master, 4096), time.monotonic()) if ready else b""
            answer += self.module.on_tick(time.monotonic())
            if answer:
                os.write(master, answer)
