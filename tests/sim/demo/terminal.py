"""A terminal of a given size for a command: what is on its screen, picture by picture, as a person sees it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_HOME, OWN_SCREEN = "\x1b[H", "\x1b[?1049l"


@dataclass
class Screen:
    """What a command wrote. The live pictures first, each begun at the corner of the screen; then what stays."""

    returncode: int
    output: str

    @property
    def pictures(self) -> list[list[str]]:
        """The lines of each picture, without colours."""
        live = self.output.rpartition(OWN_SCREEN)[0]
        return [_CODES.sub("", each).splitlines() for each in live.split(_HOME)[1:] if _CODES.sub("", each)]

    @property
    def after(self) -> str:
        """What stays on the screen after the live picture."""
        return _CODES.sub("", self.output.rpartition(OWN_SCREEN)[2])


def in_terminal(
    command: list[str],
    cwd: Path,
    size: tuple[int, int],
    *,
    then: Callable[[str], tuple[int, int] | None],
    limit_s: float,
) -> Screen:
    """Run a command in a terminal of (columns, rows) until it ends; raise TimeoutError after limit_s.

    then: called with all output so far, each time there is more. It returns a new size, or None for no change.
    """
    master, slave = pty.openpty()
    output, deadline = b"", time.monotonic() + limit_s
    try:
        _resize(master, size)
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        running = subprocess.Popen(
            command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=environment | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(slave)
        try:
            while data := _read(master, deadline):
                output += data
                if changed := then(output.decode(errors="replace")):
                    _resize(master, changed)
            running.wait(max(deadline - time.monotonic(), 1))
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    finally:
        os.close(master)
    return Screen(running.returncode, output.decode(errors="replace"))


def _read(master: int, deadline: float) -> bytes:
    """Return what came next; nothing when the command has closed its terminal."""
    if not select.select([master], [], [], max(deadline - time.monotonic(), 0))[0]:
        raise TimeoutError("the command has not ended")
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: nobody has the other end open any more
        return b""


def _resize(master: int, size: tuple[int, int]) -> None:
    columns, rows = size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
