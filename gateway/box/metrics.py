"""Metrics for Prometheus on loopback, and log lines on standard output that never block the gateway."""

import contextlib
import logging
import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "ansim_gateway_"
LEVELS = (
    *("_backlog", "_waiting", "_up", "_watermark", "_queued", "_ms", "_ok", "_silent", "_good", "_bytes"),
    *("_error_m", "_offset_db", "core_reader_exponent", "core_reader_pairs", "core_readers_misplaced"),
    *("core_alarms", "core_slots_bound", "core_tags_enrolled", "core_tags_followed", "core_unknown_ids"),
    "record_clients",
)
"""Names, or their endings, of gauges: values that go up and down. All others are counters."""
TEXT_MAX = 400
TRACE_MAX = 4000
LINES_MAX = 2000
LIBRARY_LINES_A_MINUTE = 60

log = structlog.get_logger()


class _Figures:
    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        for name, value in sorted(self._read().items()):
            if name.endswith(LEVELS):
                yield GaugeMetricFamily(PREFIX + name, "see docs/GATEWAY.md", value)
            else:
                yield CounterMetricFamily(PREFIX + name, "see docs/GATEWAY.md", value)


def serve(port: int, read: Callable[[], Mapping[str, float]]) -> Callable[[], None]:
    """Answer GET /metrics on 127.0.0.1; return a function that stops this. Raises OSError if the port is in use."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(read))
    ProcessCollector(registry=registry)
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(2.0)

    return stop


class Lines:
    """A file of log lines behind a bounded queue: if its consumer stalls, lines are lost and counted, never frames."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._queue: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread flushes."""

    def close(self) -> None:
        """Write what is queued, and wait for it at most 1.5 s."""
        try:
            self._queue.put(None, timeout=0.5)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _run(self) -> None:
        while (text := self._queue.get()) is not None:
            try:
                self._file.write(text)
                if self._queue.empty():
                    self._file.flush()
            except (OSError, ValueError):
                self.dropped += 1


def printable(text: str, most: int = TEXT_MAX) -> str:
    """Return a peer's text safe for a log: at most `most` characters, "?" for each unprintable one."""
    text = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c if c.isprintable() else "?" for c in text)


def _cap(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    trace = event.pop("exception", None)  # its end says the most; JSON escapes its line breaks
    found = {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}
    return found if trace is None else found | {"exception": str(trace)[-TRACE_MAX:]}


def log_to(lines: Lines) -> None:
    """Send our own log to `lines` as JSON, and with it the libraries' warnings that `Libraries` logs."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _cap,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=lines),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


def stdout_lines() -> Lines:
    """Return the log lines that go to standard output."""
    return Lines(sys.stdout)


class Libraries(logging.Handler):
    """Warnings of zigpy, bellows and asyncio as lines of our log: LIBRARY_LINES_A_MINUTE at most, the rest counted."""

    def __init__(self, counters: Counter[str]) -> None:
        super().__init__()
        self._counters = counters
        self._lines: deque[float] = deque(maxlen=LIBRARY_LINES_A_MINUTE)

    def emit(self, record: logging.LogRecord) -> None:
        now_s = time.monotonic()
        if len(self._lines) == LIBRARY_LINES_A_MINUTE and now_s - self._lines[0] < 60:
            self._counters["library_lines_dropped"] += 1
            return
        self._lines.append(now_s)
        with contextlib.suppress(Exception):
            log.warning("library", name=record.name, level_name=record.levelname, text=record.getMessage())
