"""A run of the demo in processes of its own, a signal to it, and what is left of it afterwards."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.demo.processes import ends_with
from sim.ending import below

COMMAND = Path(sys.executable).with_name("ansim-sim")
END_MAX_S = 3.0
LINE = re.compile(r"ansim-sim demo: ended by SIG[A-Z]+; nothing (was started|that it started is left)")


@dataclass(frozen=True)
class Outcome:
    """code: of the command. after_s: from the signal to the end of the command. wrong: what should not be."""

    code: int
    after_s: float
    wrong: tuple[str, ...]


class Running:
    """One demo in `folder`, with its temporary files there. At the end of the block it is killed, if it still runs."""

    def __init__(self, folder: Path, *options: str, argv: Sequence[str] = (str(COMMAND), "demo")) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.out = folder / "out.txt"
        words = [*options, "--runs", str(folder / "run")]
        argv = [*argv, *words] if Path(argv[0]).name != "make" else [*argv, f"DEMO={' '.join(words)}"]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=ends_with(os.getpid()),
                env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (*below(self.process.pid), self.process.pid):
            if self.process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def until(self, words: str, limit_s: float = 200.0) -> None:
        """Wait for the line of a stage. An end of the run or no such line in time is a failure."""
        deadline = time.monotonic() + limit_s
        while words not in self.text:
            assert self.process.poll() is None, f"ended by itself before {words!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {words!r} in {limit_s:g} s:\n{self.text}"
            time.sleep(0.02)

    def until_heard(self, limit_s: float = 20.0) -> None:
        """Wait until the command answers signals: before that, Python itself has not read our first line."""
        deadline = time.monotonic() + limit_s
        while not any(_answers(pid) for pid in (self.process.pid, *below(self.process.pid))):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def end(self, number: signal.Signals, *, group: bool = False, again_s: float | None = None) -> Outcome:
        """Send the signal, also to the whole process group as a terminal does, and a second time after so long."""
        started = {pid: began(pid) for pid in below(self.process.pid)}
        before = self.text
        send = (lambda: os.killpg(self.process.pid, number)) if group else (lambda: self.process.send_signal(number))
        sent_at_s = time.monotonic()
        send()
        second = None if again_s is None else threading.Timer(again_s, lambda: self.process.poll() is None and send())
        if second is not None:
            second.start()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            return Outcome(-99, 20.0, ("it has not ended in 20 s",))
        finally:
            if second is not None:
                second.cancel()
                second.join()
        after_s = time.monotonic() - sent_at_s
        return Outcome(self.process.returncode, after_s, tuple(self._wrong(after_s, started, before)))

    def _wrong(self, after_s: float, started: dict[int, str], before: str) -> list[str]:
        text = self.text
        told = [line for line in text.splitlines() if "ended by" in line]
        wrong = [] if after_s <= END_MAX_S else [f"it took {after_s:.2f} s"]
        if len(told) != 1 or not LINE.fullmatch(told[0].replace("\x1b[?25h", "")):
            wrong.append(f"what it said of its end: {told}")
        wrong += [
            f"it said {word!r}" for word in ("Traceback", "Exception ignored", "Error:") if word in text[len(before) :]
        ]
        wrong += [f"process {pid} lives" for pid, at in started.items() if at and began(pid) == at]
        wrong += [f"process {pid} names the folder" for pid in _naming(str(self.folder))]
        wrong += [f"{path} is left" for path in self.temporary.iterdir()]
        wrong += [f"{path} is left" for name in ("tmp", "console.txt") for path in self.folder.glob(f"run/*/{name}")]
        return wrong


def began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks: with its id the name of a process. Empty: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _answers(pid: int) -> bool:
    """Return whether this process is the demo and has a handler for SIGTERM; Python alone has none."""
    try:
        if b"demo" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2:3]:
            return False
        found = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def _naming(text: str) -> list[int]:
    """Return the processes that have this text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
