"""The city's log: one JSON line an entry. Whoever logs never waits and never gets an error.

Log lines go into a bounded queue, and a thread of their own writes them. A full disk, a closed pipe or a reader that
stands still costs lines, which are counted and reported, and no lane. Entries of the standard library (uvicorn,
asyncio) take the same way.
"""

import json
import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import MutableMapping
from typing import Any

import structlog

from city.threads import Kept

LINES_MAX = 2000
LINE_MAX = 8192
"""Characters. A longer line is cut: it may quote a peer."""
TOLD_S = 600.0
"""Seconds for which the page reports lost lines after the last one was lost."""
STUCK_S = 5.0


class Logbook:
    """Writes lines to a file descriptor. It is also the logger factory of structlog."""

    def __init__(self, descriptor: int = 1) -> None:
        self.lost = 0
        """Lines that could not be written, or came while the queue was full."""
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._torn = False
        self._told = 0
        self._why, self._lost_at = "", float("-inf")
        self._writing_since: float | None = None
        self._thread = Kept("log", self._run)

    def start(self) -> "Logbook":
        self._thread.start()
        return self

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, as far as that works within the time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def take(self, line: str) -> None:
        """Queue a line, or count it as lost if the queue is full."""
        with self._changed:
            if len(self._lines) >= LINES_MAX:
                self._lose("the reader of the log stands still")
                return
            self._lines.append(line[:LINE_MAX])
            self._changed.notify_all()

    debug = info = warning = error = critical = exception = msg = log = take

    def __call__(self, *_arguments: Any) -> "Logbook":
        return self

    @property
    def problem(self) -> str:
        """What is wrong with the log, empty if nothing."""
        since, now_s = self._writing_since, time.monotonic()
        if since is not None and now_s - since > STUCK_S:
            return (
                f"the log is stuck: nobody has read it for {now_s - since:.0f} s; look at what reads the city's output"
            )
        if now_s - self._lost_at < TOLD_S:
            return f"{self.lost} lines of the log are lost ({self._why}); look at the disk of the log"
        return ""

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._why, self._lost_at = why, time.monotonic()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closing:
                    self._changed.wait()
                if not self._lines:
                    return
                line = self._lines.popleft()
            lost = self.lost
            if lost > self._told and not self._put(json.dumps({"event": "log_lost", "lines": lost})):
                self._told = lost
            if why := self._put(line):
                self._lose(why)

    def _put(self, line: str) -> str:
        """Write a line. Return why it could not be written, empty if it was."""
        data = (("\n" if self._torn else "") + line + "\n").encode("utf-8", "backslashreplace")
        self._writing_since = time.monotonic()
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._torn = written < len(data)
                data = data[written:]
            return ""
        except OSError as error:
            return str(error.strerror)
        finally:
            self._writing_since = None


class Handler(logging.Handler):
    """Sends the entries of the standard library's `logging` to the logbook."""

    def __init__(self, book: Logbook) -> None:
        super().__init__()
        self._book = book

    def emit(self, record: logging.LogRecord) -> None:
        entry: dict[str, Any] = {"event": "library", "logger": record.name}
        try:
            entry["detail"] = record.getMessage()
        except Exception as error:  # a wrong format string of a library
            entry["detail"] = f"{record.msg!r}: {error}"
        if record.exc_info:
            entry["exception"] = "".join(traceback.format_exception(*record.exc_info))
        self._book.take(render(None, "", entry | {"level": record.levelname.lower()}))


def render(_logger: Any, _name: str, entry: MutableMapping[str, Any]) -> str:
    """Return an entry as JSON. A value that cannot be shown is replaced, and never an error for who logs."""
    try:
        if entry.pop("exc_info", None):
            entry["exception"] = traceback.format_exc()
        return json.dumps(entry, default=repr)
    except Exception as error:
        return json.dumps({"event": "unloggable", "of": str(entry.get("event"))[:100], "error": type(error).__name__})


def open_log(descriptor: int = 1) -> Logbook:
    """Send everything that this process logs to a descriptor, and return the logbook.

    Closed standard descriptors become /dev/null first. Otherwise the next opened file, perhaps the store, would get the
    number 1, and every log line would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    book = Logbook(descriptor).start()
    structlog.configure(
        processors=[structlog.processors.add_log_level, render],
        logger_factory=book,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [Handler(book)]
    root.setLevel(logging.WARNING)
    threading.excepthook = lambda of: structlog.get_logger().error(
        "thread_ended", thread=of.thread.name if of.thread else "", detail=repr(of.exc_value)[:200]
    )
    return book
