"""The reader's firmware, its very source, in CPython: for thousands of runs, and to ask one function at a time.

Time is virtual, as on the emulator, and stands while the firmware computes. What the emulator does better: the
interpreter, the heap, flash, and every answer that a module may give (sim/reader/switches.py). What is here is as its
defaults are: a scanner's queue of 20 that loses its oldest, a receive queue of 4, and no error from any call.
"""

import errno
import heapq
import io
import itertools
import math
import random
import struct
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from readers.build import FIRMWARE
from tests.roots import ROOT

OURS = ("health", "wire", "settings", "auth", "link", "alarm", "scan", "report", "loop")
TICKS_MASK = 0x3FFFFFFF
BOOT_MS = 1500.0


class _End(BaseException):
    """The run's time is over. The firmware catches every Exception."""


def _sources() -> dict[str, types.CodeType]:
    places = {name: FIRMWARE / f"{name}.py" for name in OURS} | {"wire": ROOT / "readers" / "wire.py"}
    return {name: compile(path.read_text(), str(path), "exec") for name, path in places.items()}


_CODE = _sources()


class Hosted:
    """One reader. Call `at(ms, what)` for the world's events, then `run(ms)` once; or ask `alarm`, `scan`, `link`.

    send_ms: how long each send blocks. radio: called with (ms, frame) for each frame; `deliver` answers it.
    """

    def __init__(
        self,
        *,
        number: int = 7,
        key: bytes = bytes(range(100, 116)),
        seed: int = 1,
        send_ms: Callable[[], float] = lambda: 8.0,
        scan_queue: int = 20,
        radio: Callable[[float, bytes], None] = lambda ms, frame: None,
    ) -> None:
        self.now_ms = BOOT_MS
        self.heard = 0
        self.scan_drops = 0
        self.pins: dict[str, int] = {}
        self.supplied: dict[str, int] = {}
        """Levels of input pins that are not high."""
        self.random = random.Random(seed)
        self._send_ms, self._radio, self._scan_queue = send_ms, radio, scan_queue
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._queue: deque[tuple[bytes, int]] = deque()
        self._received: deque[bytes] = deque()
        self._scan: tuple[float, float, float] | None = None
        self._end_ms = math.inf
        self._flash = _Flash()
        self._modules = self._stand_ins(number, key)
        self._load()

    # ---- the world ----

    def at(self, ms: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (ms, next(self._order), what))

    def scanning(self) -> bool:
        if self._scan is None:
            return False
        since_ms, interval_ms, window_ms = self._scan
        return (self.now_ms - since_ms) % interval_ms < window_ms

    def hear(self, payload: bytes, rssi_dbm: int = -60) -> bool:
        """Let an advertisement be on the air now. Return whether the scanner took it."""
        if not self.scanning():
            return False
        if len(self._queue) >= self._scan_queue:
            self._queue.popleft()
            self.scan_drops += 1
        self._queue.append((payload, rssi_dbm))
        self.heard += 1
        return True

    def deliver(self, frame: bytes) -> bool:
        if len(self._received) >= 4:
            return False
        self._received.append(frame)
        return True

    def run(self, until_ms: float) -> None:
        """Run the firmware's own loop from its start to this moment. A reader runs once."""
        self._end_ms = until_ms
        with _in_place(self._modules):
            try:
                self.loop.run()
            except _End:
                return
        raise AssertionError("the firmware's loop ended")

    def end(self, ms: float) -> None:
        """Let `run` end at this moment, if it is sooner."""
        self._end_ms = min(self._end_ms, max(ms, self.now_ms))

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """Call one function of the firmware."""
        with _in_place(self._modules):
            return function(*given)

    def _pass_time(self, ms: float) -> None:
        until_ms = self.now_ms + ms
        while self._events and self._events[0][0] <= min(until_ms, self._end_ms):
            at_ms, _, what = heapq.heappop(self._events)
            self.now_ms = max(self.now_ms, at_ms)
            what()
        self.now_ms = min(until_ms, self._end_ms)
        if until_ms >= self._end_ms:
            raise _End

    # ---- the module ----

    def _load(self) -> None:
        with _in_place(self._modules):
            for name in OURS:
                module = types.ModuleType(name)
                vars(module)["open"] = self._flash.open
                self._modules[name] = sys.modules[name] = module
                exec(_CODE[name], module.__dict__)  # noqa: S102  - our own sources
        self.alarm: Any = self._modules["alarm"]
        self.scan: Any = self._modules["scan"]
        self.link: Any = self._modules["link"]
        self.report: Any = self._modules["report"]
        self.loop: Any = self._modules["loop"]
        self.wire: Any = self._modules["wire"]

    def ticks(self) -> int:
        return int(self.now_ms - BOOT_MS) & TICKS_MASK

    def _stand_ins(self, number: int, key: bytes) -> dict[str, Any]:
        def module(name: str, **names: Any) -> types.ModuleType:
            made = types.ModuleType(name)
            vars(made).update(names)
            return made

        scanner = _Scanner(self)
        ble = module(
            "ble", active=lambda on=None: True, gap_scan=scanner.start, gap_advertise=lambda every, adv_data=None: None
        )
        return {
            "config": module("config", READER=number, KEY=key),
            "micropython": module("micropython", const=lambda value: value),
            "struct": struct,
            "errno": errno,
            "gc": module("gc", collect=lambda: 0, mem_free=lambda: 9999, mem_alloc=lambda: 9999),
            "os": module(
                "os",
                urandom=self.random.randbytes,
                sync=lambda: None,
                listdir=lambda: list(self._flash.files),
                replace=self._flash.replace,
            ),
            "time": module(
                "time",
                ticks_ms=self.ticks,
                ticks_add=lambda a, b: (a + b) & TICKS_MASK,
                ticks_diff=lambda a, b: ((a - b + 0x20000000) & TICKS_MASK) - 0x20000000,
                sleep_ms=self._pass_time,
            ),
            "machine": module(
                "machine", Pin=self._pin(), reset_cause=lambda: 4, HARD_RESET=3, PWRON_RESET=4, BROWNOUT_RESET=11
            ),
            "xbee": module(
                "xbee", ADDR_COORDINATOR=0, ENDPOINT_DIGI_DATA=0xE8, CLUSTER_DIGI_SERIAL_DATA=0x11,
                PROFILE_DIGI_XBEE=0xC105, transmit=self._transmit, receive=self._receive, atcmd=lambda command: 3300,
            ),
            "digi": module("digi", ble=ble),
        }  # fmt: skip

    def _pin(reader: "Hosted") -> type:
        class Pin:
            IN, OUT, PULL_UP = 0, 1, 1

            def __init__(self, name: str, mode: int, pull: int = 0, value: int = 0) -> None:
                self.name = name

            def value(self, level: int | None = None) -> int:
                if level is None:
                    return reader.supplied.get(self.name, 1)
                reader.pins[self.name] = level
                return level

        return Pin

    def _transmit(self, to: int, payload: bytes, **_: int) -> None:
        self._radio(self.now_ms, bytes(payload))
        self._pass_time(self._send_ms())

    def _receive(self) -> dict[str, Any] | None:
        return {"sender_nwk": 0, "payload": self._received.popleft()} if self._received else None


class _Flash:
    def __init__(self) -> None:
        self.files: dict[str, io.BytesIO] = {}

    def open(self, name: str, mode: str) -> io.BytesIO:
        if "w" in mode:
            self.files[name] = io.BytesIO()
        if name not in self.files:
            raise OSError(errno.ENOENT)
        self.files[name].close = lambda: None  # type: ignore[method-assign]  # what is in it stays
        self.files[name].seek(0)
        return self.files[name]

    def replace(self, old: str, new: str) -> None:
        self.files[new] = self.files.pop(old)


class _Scanner:
    def __init__(self, reader: Hosted) -> None:
        self._reader = reader

    def start(self, duration: int, interval_us: int, window_us: int) -> "_Scanner":
        self._reader._scan = (self._reader.now_ms, interval_us / 1000, window_us / 1000)
        self._reader._queue.clear()
        return self

    def stop(self) -> None:
        self._reader._scan = None

    def stopped(self) -> bool:
        return self._reader._scan is None

    def any(self) -> bool:
        return bool(self._reader._queue)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            payload, rssi_dbm = self._reader._queue.popleft()
            yield {"payload": payload, "rssi": rssi_dbm}


class _in_place:
    """While this lasts, these modules are what `import` finds."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self._modules = modules

    def __enter__(self) -> None:
        self._before = {name: sys.modules.get(name) for name in (*self._modules, *OURS)}
        sys.modules.update(self._modules)

    def __exit__(self, *_: object) -> None:
        for name, module in self._before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
