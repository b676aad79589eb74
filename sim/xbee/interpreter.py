"""The program on a virtual XBee, really run: MicroPython with the stand-ins of sim/reader/device, a phone, a stick.

On its desk lies a phone that advertises every `advertise_ms`. If it has `joined`, there is a coordinator's stick: a
frame takes `ack_ms` to it, and when asked (`SEND`) it sends 12 frames to the module. Its time is the line's, times
`speed`.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sim.reader.flash import BLOCK_B
from sim.reader.process import HARD_RESET, POWER_ON, ReaderProcess
from sim.reader.switches import Switches

PHONE = bytes.fromhex("5af0f0f0f0f0")
PHONE_DBM = -40
JITTER_MS = 10.0  # between two advertisements, so that no scan is in step with them (Bluetooth Core, advDelay)
PHONE_PAYLOAD = bytes.fromhex("02010605ffffff0102")
SEND = b"ansim bring-up: send 12 frames"
WALL_LIMIT_S = 30.0  # a test machine may be busy; what hangs is found by whoever listens
LOADED_B = 24 * 1024  # the switch is meant for a program that runs in place; here its files are loaded into the heap
EVENTS_MAX = 500  # in one turn, so that the line is served meanwhile
TURN_S_MAX = 0.03  # time stands rather than leaps when the machine is busy: whoever listens must be able to answer


@dataclass
class Surroundings:
    """What is near the module, and how fast time passes there. advertise_ms None: no phone."""

    speed: float = 1.0
    advertise_ms: float | None = 100.0
    joined: bool = False
    ack_ms: float = 30.0


@dataclass
class VolumeProgram:
    """Runs main of the folder `flash`. `switches` may be replaced at any time."""

    flash: Path
    switches: Switches = field(default_factory=Switches)
    near: Surroundings = field(default_factory=Surroundings)
    lost_b: int = 0
    levels: dict[str, int] = field(default_factory=dict)
    """What the program wrote to its pins last."""

    def __post_init__(self) -> None:
        self.flash.mkdir(parents=True, exist_ok=True)
        self.reader = ReaderProcess(
            1, self.flash, radio=self, switches=self.switches, in_place=False, wall_limit_s=WALL_LIMIT_S
        )
        self.now_ms = 0.0
        self._until_s: float | None = None
        self._events: list[tuple[float, Callable[[], object]]] = []
        self._advertises_at_ms = 0.0
        self._random = random.Random(1)
        self._console = -1  # descriptor
        self._printed = bytearray()

    # ---- what the module does ----

    def start(self, now_s: float) -> None:
        self.reader.switches = self.switches.but(heap_b=self.switches.heap_b + LOADED_B)
        self._until_s = now_s
        self.reader.start(self.now_ms, HARD_RESET if self.reader.boots else POWER_ON)

    def stop(self) -> None:
        self.reader.stop()
        self._events.clear()
        self._printed.clear()
        self._forget_console()

    def receive_data(self, data: bytes, now_s: float) -> None:
        self.reader.type_in(self.now_ms, data)

    def data_to_send(self, now_s: float) -> bytes:
        """Let it run until now_s, or until as much has happened as fits into a turn. Return what it printed."""
        assert self._until_s is not None
        until_ms = self.now_ms + min(now_s - self._until_s, TURN_S_MAX) * 1000 * self.near.speed
        self._until_s = now_s
        for _ in range(EVENTS_MAX):
            times = [self.reader.wake_at_ms, *(at_ms for at_ms, _ in self._events)]
            if self.near.advertise_ms is not None:
                times.append(self._advertises_at_ms)
            if min(times) > until_ms:
                self.now_ms = until_ms
                break
            self.now_ms = max(self.now_ms, min(times))
            self._turn()
        if self.switches.flash == "never_frees":
            self.lost_b = self.reader.flash_writes * BLOCK_B
        out = bytes(self._printed)
        self._printed.clear()
        return out

    def _turn(self) -> None:
        """Do what is due now."""
        due = [event for event in self._events if event[0] <= self.now_ms]
        self._events = [event for event in self._events if event[0] > self.now_ms]
        for _, action in due:
            action()
        if self.near.advertise_ms is not None and self._advertises_at_ms <= self.now_ms:
            self._advertises_at_ms = self.now_ms + self.near.advertise_ms + self._random.uniform(0, JITTER_MS)
            self.reader.hear(self.now_ms, PHONE, PHONE_DBM, PHONE_PAYLOAD)
        self._follow_console()
        self.reader.run(self.now_ms)
        self._read_console()

    # ---- its console: a file that the process writes, and removes when it ends ----

    @property
    def _path(self) -> Path:
        return self.flash.parent / f"{self.flash.name}.console"

    def _follow_console(self) -> None:
        """Open the file before its process does, so that nothing of a short life is missed."""
        if self._console < 0 or not self._is_same_file():
            self._read_console()
            self._forget_console()
            self._console = os.open(self._path, os.O_RDONLY | os.O_CREAT, 0o600)

    def _is_same_file(self) -> bool:
        try:
            return self._path.stat().st_ino == os.fstat(self._console).st_ino
        except OSError:
            return False

    def _read_console(self) -> None:
        while self._console >= 0 and (data := os.read(self._console, 4096)):
            self._printed += data.replace(b"\n", b"\r\n")

    def _forget_console(self) -> None:
        if self._console >= 0:
            os.close(self._console)
        self._console = -1

    # ---- what is near: sim.reader.process.ReaderRadio ----

    def on_transmit(
        self, reader: ReaderProcess, now_ms: float, payload: bytes, endpoints: tuple[int, int, int, int]
    ) -> None:
        if not self.near.joined:
            reader.transmit_done(now_ms, "ENOTCONN")
            return
        number = reader.transmissions
        self._events.append((now_ms + self.near.ack_ms, lambda: reader.transmit_done(self.now_ms, None, number)))
        if payload == SEND:
            for frame in range(12):
                self._events.append((now_ms + 1000, partial(reader.deliver, now_ms + 1000, bytes([frame]))))

    def on_pin(self, reader: ReaderProcess, now_ms: float, name: str, level: int) -> None:
        self.levels[name] = level

    def on_log(self, reader: ReaderProcess, line: str) -> None:
        """The console's lines come from its file; the process itself reports hangs here."""
