"""Sends what happened to every open page, from a bounded ring. A page resumes after the id of the last event it saw.

Producers are threads and never wait; pages are tasks of one event loop. Updates about tags, readers and gateways are
gathered and sent at most four times a second, so a gateway's backlog does not flood a page. Incidents are sent at once.
"""

import asyncio
import contextlib
import re
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import structlog

from city.store import UnixClock

RING_MAX = 1024
GATHERED_MAX = 5000
GATHER_S = 0.25
TICK_S = 2.0
"""Seconds. A page that receives nothing for longer than two of these gives the stream up and asks for the state."""
STREAMS_MAX = 200
STREAMS_ACCOUNT_MAX = 20
"""Of one operator, or of all programs together. A browser needs one; no account can take the places of the others."""


log = structlog.get_logger()


class StreamsFull(RuntimeError):
    """No place for one more stream. The message says whose are open. Transient."""


EVIDENCE_MAX = 16
"""Rows of evidence that a page is sent with a place: what the strongest readers heard. The store keeps all."""
LOG_FIRST, LOG_LAST = 10, 50
"""Lines of an incident's log that a page is sent: the first and the newest."""
TOLD_MAX = 100
ALARMS_MAX = 100


class Item(msgspec.Struct, frozen=True):
    """One event of the stream."""

    id: str
    event: str
    data: str
    incident: int | None = None


def shortened(view: dict[str, Any]) -> dict[str, Any]:
    """Return a view as a page gets it, with long lists cut. `evidence_more`, `log_more`, ... say how many are left out.

    A cry that 3,500 rows of evidence came with must not make each page's next state megabytes.
    """
    short = dict(view)
    where = view.get("where")
    if where and len(where.get("evidence") or ()) > EVIDENCE_MAX:
        strongest = sorted(where["evidence"], key=lambda row: -(row.get("rssi_dbm") or -128))[:EVIDENCE_MAX]
        more = len(where["evidence"]) - EVIDENCE_MAX
        short["where"] = {**where, "evidence": strongest, "evidence_more": more}
    log = view.get("log") or ()
    if len(log) > LOG_FIRST + LOG_LAST:
        more = len(log) - LOG_FIRST - LOG_LAST
        gap = {"at": log[LOG_FIRST]["at"], "word": "left_out", "who": "city", "detail": f"{more} lines are not shown"}
        short["log"], short["log_more"] = [*log[:LOG_FIRST], gap, *log[-LOG_LAST:]], more
    alarms = view.get("alarms") or ()
    if len(alarms) > ALARMS_MAX:
        short["alarms"], short["alarms_more"] = list(alarms[-ALARMS_MAX:]), len(alarms) - ALARMS_MAX
    if any(len(alarm["told"]) > TOLD_MAX for alarm in short.get("alarms") or ()):
        short["alarms"] = [{**alarm, "told": alarm["told"][-TOLD_MAX:]} for alarm in short["alarms"]]
    return short


class PageStream:
    """The ring of events, and the pages that listen to it."""

    def __init__(
        self, clock: UnixClock, lanes: Callable[[], dict[str, Any]], problems: Callable[[], list[str]] = list
    ) -> None:
        self._clock, self._lanes, self._problems = clock, lanes, problems
        self._boot = secrets.token_hex(4)
        """Random, new at each start. A page cannot resume from an id of an earlier start: that ring is gone."""
        self._last = 0
        self._ring: deque[tuple[int, Item]] = deque(maxlen=RING_MAX)
        self._gathered: dict[tuple[str, str], Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self.most = STREAMS_MAX
        self._seats: Counter[str] = Counter()
        self.dropped = 0
        self.failures = 0
        """How often what was gathered could not be sent. The next is tried all the same."""
        self.problem = ""

    @property
    def streams(self) -> int:
        """How many places are taken."""
        return self._seats.total()

    @contextlib.contextmanager
    def seat(self, account: str) -> Iterator[None]:
        """Hold a place for one stream, from before it is answered until it has ended. Raises StreamsFull.

        Call it in the event loop: there nothing comes between the count and the place.
        """
        if self.streams >= self.most:
            raise StreamsFull(f"{self.most} streams are open; close a page")
        if self._seats[account] >= STREAMS_ACCOUNT_MAX:
            raise StreamsFull(f"{STREAMS_ACCOUNT_MAX} streams of {account} are open; close a page")
        self._seats[account] += 1
        try:
            yield
        finally:
            self._seats -= Counter((account,))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event loop of the pages. What was published before is not sent: a page begins with a snapshot."""
        self._loop = loop

    @property
    def position(self) -> str:
        """Id of the newest event. Read it before a snapshot: the page resumes from it."""
        return f"{self._boot}-{self._last}"

    def publish_incident(self, number: int, view: dict[str, Any]) -> None:
        """Send an incident at once. Call it from any thread."""
        self._call(self._append, "incident", {"at": self._clock(), "incident": view}, number)

    def publish_words(self, kind: str, words: tuple[dict[str, Any], ...] | list[dict[str, Any]]) -> None:
        """Send updates about tags, readers or gateways soon, only the newest of each subject. From any thread."""
        if words:
            self._call(self._gather, kind, words)

    def close(self) -> None:
        """End every stream. Call it from any thread or from a signal handler."""
        self._closed = True
        self._call(self._turn_wake)

    async def run(self) -> None:
        """Send what was gathered, every GATHER_S until `close`."""
        while not self._closed:
            await asyncio.sleep(GATHER_S)
            if self._gathered:
                words, self._gathered = list(self._gathered.values()), {}
                try:
                    self._append("words", {"at": self._clock(), "words": words})
                    self.problem = ""
                except Exception as error:  # whatever a word holds: no other task sends them
                    self.failures += 1
                    self.problem = f"{len(words)} updates could not be sent ({type(error).__name__}); reload the page"
                    detail = f"{type(error).__name__}: {error}"[:200]
                    log.error("words_failed", failures=self.failures, detail=detail)

    async def listen(self, after: str | None) -> AsyncIterator[Item]:
        """Yield every event after an id, `reset` if the ring no longer reaches back to it, `tick` every TICK_S."""
        loop = asyncio.get_running_loop()
        boot, _, number = (after or self.position).partition("-")
        seen = int(number) if boot == self._boot and re.fullmatch(r"[0-9]{1,18}", number) else -1
        tick_at = loop.time()
        while not self._closed:
            oldest = self._ring[0][0] if self._ring else self._last + 1
            if not oldest - 1 <= seen <= self._last:
                seen = self._last
                yield Item(self.position, "reset", msgspec.json.encode({"at": self._clock()}).decode())
            wake = self._wake
            for number_, item in [pair for pair in self._ring if pair[0] > seen]:
                seen = number_
                yield item
            if loop.time() >= tick_at:
                tick_at = loop.time() + TICK_S
                tick = {"at": self._clock(), "lanes": self._lanes(), "problems": self._problems()}
                yield Item("", "tick", msgspec.json.encode(tick).decode())
            if seen >= self._last:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), max(0.0, tick_at - loop.time()))

    def _call(self, function: Any, *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(function, *arguments)
            except RuntimeError:  # the loop closed after the check: the city is stopping
                pass

    def _gather(self, kind: str, words: Any) -> None:
        for word in words:
            key = (f"{kind}.{word.get('kind', '')}", str(word.get("subject", word.get("gateway", ""))))
            if key not in self._gathered and len(self._gathered) >= GATHERED_MAX:
                self.dropped += 1
                continue
            self._gathered[key] = {"about": kind, **shortened(word)}

    def _append(self, event: str, data: dict[str, Any], incident: int | None = None) -> None:
        self._last += 1
        item = Item(self.position, event, msgspec.json.encode(data).decode(), incident)
        self._ring.append((self._last, item))
        self._turn_wake()

    def _turn_wake(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()
