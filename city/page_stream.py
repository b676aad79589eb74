"""Sends what happened to every open page, from a bounded ring. A page resumes after the id of the last event it saw.

Producers are threads and never wait; pages are tasks of one event loop. Updates about tags, readers and gateways are
gathered and sent at most four times a second, so a gateway's backlog does not flood a page. Incidents are sent at once.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from city.store import UnixClock

RING_MAX = 1024
GATHERED_MAX = 5000
GATHER_S = 0.25
TICK_S = 5.0
"""Seconds. A page that receives nothing for longer than two of these shows that it is cut off."""
STREAMS_MAX = 200


class Item(msgspec.Struct, frozen=True):
    """One event of the stream."""

    id: str
    event: str
    data: str
    incident: int | None = None


class PageStream:
    """The ring of events, and the pages that listen to it."""

    def __init__(self, clock: UnixClock, lanes: Callable[[], dict[str, bool]]) -> None:
        self._clock, self._lanes = clock, lanes
        self._boot = secrets.token_hex(4)
        """Random, new at each start. A page cannot resume from an id of an earlier start: that ring is gone."""
        self._last = 0
        self._ring: deque[tuple[int, Item]] = deque(maxlen=RING_MAX)
        self._gathered: dict[tuple[str, str], Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self.streams = 0
        self.dropped = 0

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
                self._append("words", {"at": self._clock(), "words": words})

    async def listen(self, after: str | None) -> AsyncIterator[Item]:
        """Yield every event after an id, `reset` if the ring no longer reaches back to it, `tick` every TICK_S."""
        self.streams += 1
        loop = asyncio.get_running_loop()
        try:
            boot, _, number = (after or self.position).partition("-")
            seen = int(number) if boot == self._boot and number.isascii() and number.isdigit() else -1
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
                    tick = {"at": self._clock(), "lanes": self._lanes()}
                    yield Item("", "tick", msgspec.json.encode(tick).decode())
                if seen >= self._last:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(wake.wait(), max(0.0, tick_at - loop.time()))
        finally:
            self.streams -= 1

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
            self._gathered[key] = {"about": kind, **word}

    def _append(self, event: str, data: dict[str, Any], incident: int | None = None) -> None:
        self._last += 1
        item = Item(self.position, event, msgspec.json.encode(data).decode(), incident)
        self._ring.append((self._last, item))
        self._turn_wake()

    def _turn_wake(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()
