"""Threads that do not end by an exception: each is started again, counted, and reported until it runs well again."""

import contextlib
import threading
import time
from collections.abc import Callable

import structlog

PAUSE_MIN_S = 0.25
CALM_S = 60.0
"""A run that lasted this long was a good one: the pause begins small again, and the thread is no longer reported."""

log = structlog.get_logger()


class Kept:
    """A thread that runs `work` until it returns. After an exception it runs again, with a pause that doubles.

    work is called again from its beginning, so it must begin with what it needs. It returns when it was asked to stop.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        *,
        pause_max_s: float = 10.0,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """wait: sleeps so many seconds, and returns True at once when the city stops. None: an ordinary sleep."""
        self.name = name
        self.restarts = 0
        """How often an exception ended the work."""
        self._work, self._pause_max_s, self._wait = work, pause_max_s, wait or _sleep
        self._began_at = time.monotonic()
        self._why = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the work. Do nothing if it was never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def problem(self) -> str:
        """What ended the work, until it has run for CALM_S again; else empty."""
        if self._why and time.monotonic() - self._began_at < CALM_S:
            return f"thread {self.name} ended and was started again ({self.restarts} times): {self._why}"
        return ""

    def _run(self) -> None:
        pause_s = PAUSE_MIN_S
        while True:
            self._began_at = time.monotonic()
            try:
                self._work()
                return
            except BaseException as error:  # whatever it is: the thread must not end
                if time.monotonic() - self._began_at > CALM_S:
                    pause_s = PAUSE_MIN_S
                self.restarts += 1
                self._why = f"{type(error).__name__}: {error}"[:200]
                self._began_at = time.monotonic()
                with contextlib.suppress(Exception):
                    log.exception("thread_ended", thread=self.name, restarts=self.restarts, pause_s=pause_s)
            if self._wait(pause_s):
                return
            pause_s = min(2 * pause_s, self._pause_max_s)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
