"""The programs that a run starts: broker, gateway, city. Each ends when we end; each can be killed and started again.

Their output goes line by line into a file of bounded size. Lines that are JSON objects also go to `on_record`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_MAX_B = 8 * 1024 * 1024
LINE_MAX_B = 256 * 1024
TAIL_LINES = 12
STOP_S = 8.0
READ_S = 1.0
"""How long the last lines of a program that has ended may take: something that it started may hold its output."""
READY_S = 30.0
POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class StartError(RuntimeError):
    """A run cannot start or continue. The message says why; if a program ended, with its last lines and its log."""


@dataclass(slots=True)
class Usage:
    """Memory and processor time of a program so far, over all its restarts."""

    rss_max_mb: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the processes that have ended. `sample` adds the one that runs."""


@dataclass
class Program:
    """One program: its command, its output, and the memory and time it uses."""

    name: str
    argv: Sequence[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    on_record: Callable[[dict[str, Any]], None] | None = None
    starts: int = 0
    usage: Usage = field(default_factory=Usage)
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    _logged_b: int = 0
    _cpu_s: float = 0.0
    _wanted: bool = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    async def start(self) -> None:
        """Start the program. Raise StartError when it cannot be started."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self.env},
                limit=LINE_MAX_B,
                start_new_session=True,  # only this process gets a Ctrl-C, and ends the others in order
                preexec_fn=ends_with(os.getpid()),
            )
        except OSError as error:
            raise StartError(f"{self.name}: cannot start {self.argv[0]}: {error.strerror}; run `make venv`") from error
        self._wanted = True
        self._cpu_s = 0.0
        self.starts += 1
        self._reader = asyncio.create_task(self._read(self._process), name=f"log of {self.name}")

    async def kill(self) -> None:
        """Kill the program (kill -9) and wait until it is gone."""
        self._wanted = False
        await self._end(signal.SIGKILL)

    async def stop(self, limit_s: float = STOP_S) -> None:
        """Ask the program to end (SIGTERM); kill it after limit_s."""
        self._wanted = False
        await self._end(signal.SIGTERM, limit_s)

    def check(self) -> None:
        """Raise StartError when the program has ended by itself, and the error when its output cannot be kept."""
        if self._reader is not None and self._reader.done() and not self._reader.cancelled():
            self._reader.result()
        if self._wanted and not self.running:
            code = None if self._process is None else self._process.returncode
            raise StartError(f"{self.name} ended by itself (exit {code}); log: {self.log}\n" + "\n".join(self._tail))

    def sample(self) -> Usage:
        """Read /proc and return what the program has used until now."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                rss_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
                self.usage.rss_max_mb = max(self.usage.rss_max_mb, rss_mb)
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self._cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return Usage(self.usage.rss_max_mb, self.usage.cpu_s + self._cpu_s)

    async def _end(self, how: signal.Signals, limit_s: float = STOP_S) -> None:
        process = self._process
        if process is None:
            return
        self.sample()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            try:
                await asyncio.wait_for(process.wait(), limit_s)
            except TimeoutError:
                process.kill()
                await process.wait()
                with contextlib.suppress(OSError):
                    self._note(f"[sim] no end {limit_s:g} s after {how.name}: killed")
        if self._reader is not None:
            with contextlib.suppress(Exception):  # why its output could not be kept, `check` has said
                await asyncio.wait_for(self._reader, min(READ_S, limit_s / 4))
        self.usage.cpu_s += self._cpu_s
        self._cpu_s = 0.0
        self._process = self._reader = None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than LINE_MAX_B: its beginning is dropped
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip("\n")
            self._note(text)
            if self.on_record is not None and text.startswith("{"):
                with contextlib.suppress(ValueError):
                    record = json.loads(text)
                    if isinstance(record, dict):
                        self.on_record(record)

    def _note(self, text: str) -> None:
        self._tail.append(text[:500])
        data = text.encode() + b"\n"
        if self._logged_b + len(data) <= LOG_MAX_B:
            self._logged_b += len(data)
            with self.log.open("ab") as file:
                file.write(data)


def ends_with(parent: int) -> Callable[[], None]:
    """Return what a new process must do before anything else, so that it is killed when its parent dies."""

    def end_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return end_with_parent


async def output_of(argv: Sequence[str], limit_s: float) -> str:
    """Run a command to its end and return what it printed. Raise StartError when it fails or takes longer."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, preexec_fn=ends_with(os.getpid()),
        )  # fmt: skip
    except OSError as error:
        raise StartError(f"cannot start {argv[0]}: {error.strerror}; run `make venv`") from error
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    except TimeoutError:
        raise StartError(f"`{' '.join(argv)}` has not ended within {limit_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StartError(f"`{' '.join(argv)}` failed: {(err or out).decode(errors='replace').strip()[-500:]}")
    return out.decode(errors="replace")


def console(name: str) -> str:
    """Return the path of one of our commands: next to this Python, else on PATH. Raise StartError if it is missing."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise StartError(f"no command {name} beside {sys.executable}; run `make venv`")
    return found


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports of 127.0.0.1 that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def until(true: Callable[[], bool], what: str, *programs: Program, limit_s: float = READY_S) -> float:
    """Wait until `true()`; return the seconds it took. Raise StartError after limit_s, or when a program ends."""
    began = time.monotonic()
    while not true():
        for program in programs:
            program.check()
        if time.monotonic() - began > limit_s:
            logs = ", ".join(str(program.log) for program in programs)
            raise StartError(f"{what}: not within {limit_s:g} s; logs: {logs}")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - began


def listens(port: int) -> bool:
    """Return whether a program accepts connections at this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
