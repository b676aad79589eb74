"""How a signal ends a run: at any moment, within 3 s, with one line and exit code 130, and nothing of it is left.

The first signal asks the run to end in order. What has not ended IN_ORDER_S later is killed, and so it is by a second
signal. Before a run has begun, and after its end, only this process is there to end.

`ansim-sim` imports this file before all others, which take half a second: a signal while they load is answered, too.
So it needs nothing but what Python has loaded anyway.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
IN_ORDER_S = 2.0
HURRIED_S = 0.8
"""How long a program of a run that ends before its time may take to end in order."""
GONE_S = 0.5
ENDED = 130
"""`readers.terminal.Exit.ENDED`; that file takes long to load."""
COMMAND = "ansim-sim demo"
_SHOW_CURSOR = "\x1b[?25h"


class Ending:
    """The end of one run. `ask`: asks the run to end in order; None while no run is there.

    `clean`: removes what only a living run has. Called once when the run is ended by force.
    """

    def __init__(self) -> None:
        self.ask: Callable[[], object] | None = None
        self.clean: Callable[[], None] | None = None
        self.name = ""
        """Of the signal that came; the first counts."""
        self._told = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer signals until the end of the block. Only in the main thread. `nohup` stays what it is."""
        heard = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: self.force())
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            for number, action in before.items():
                signal.signal(number, signal.SIG_DFL if action is None else action)

    def force(self) -> NoReturn:
        """Kill what was started, remove what must not stay, say so, and end this process."""
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        kill_children()
        if self.clean is not None:
            with suppress(OSError):
                self.clean()
            _leave_screen()
        self.tell()
        os._exit(ENDED)

    def tell(self) -> None:
        """Say once, in one line, that a signal has ended the run."""
        if not self._told:
            self._told = True
            _say(f"{COMMAND}: ended by {self.name}; nothing that it started is left")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        first, self.name = not self.name, self.name or signal.Signals(number).name
        if not first or self.ask is None:
            self.force()
        signal.setitimer(signal.ITIMER_REAL, IN_ORDER_S)
        self.ask()


def kill_children() -> None:
    """Kill every process below this one (kill -9), and wait GONE_S at most until they are gone."""
    killed = below(os.getpid())
    for pid in killed:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline and any(_lives(pid) for pid in killed):
        time.sleep(0.01)


def below(pid: int) -> list[int]:
    """Return the processes below this one, in any session, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError, ValueError, IndexError), open(f"/proc/{entry}/stat", "rb") as file:
                children.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    found = [pid]
    for each in found:
        found += children.get(each, ())
    return found[1:]


def _lives(pid: int) -> bool:
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] != b"Z"
    return False


def leave() -> None:
    """End this process now, if it is the command: Python's own end takes a while, and no longer answers signals."""
    _detach()
    if _is_demo():
        os._exit(ENDED)


def _detach() -> None:
    """Point outputs that nobody reads any more at nothing, so that Python does not complain of them when it ends."""
    for file in (sys.stdout, sys.stderr):
        if file is None:  # it was closed before we began
            continue
        try:
            file.flush()
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, file.fileno())
            os.close(nothing)


def _leave_screen() -> None:
    """Give a terminal its own screen back: a live picture has another one."""
    if os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
        with suppress(OSError):
            os.write(1, b"\x1b[?1049l")


def _say(text: str) -> None:
    """Write a line without what may be in the middle of something: the signal came between two instructions."""
    with suppress(OSError):
        shown = _SHOW_CURSOR if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" else ""
        os.write(2, f"{shown}{text}\n".encode())


def _early(number: int, _: FrameType | None) -> None:
    _say(f"{COMMAND}: ended by {signal.Signals(number).name}; nothing was started")
    os._exit(ENDED)


def _is_demo() -> bool:
    """Return whether this process is the command: no test, and none of the other commands."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name in ("ansim-sim", "__main__.py", "-m") and "demo" in sys.argv[1:2]


if _is_demo():
    for _number in SIGNALS:
        if _number != signal.SIGHUP or signal.getsignal(_number) != signal.SIG_IGN:
            signal.signal(_number, _early)
