"""A program in place of the dispatcher: it watches the stream of the console and presses Acknowledge.

It records when an incident first came on the stream: at that time a page shows it. A broken stream resumes where it
ended. Where that is not possible, the program reads the whole state again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

RETRY_S = 0.2
ANSWER_S = 5.0
SILENCE_S = 15.0
"""The city sends something every 5 s. A stream that is silent for this time is dead."""
TRIES_MAX = 100
INCIDENTS_MAX = 5000
WORD_MAX_B = 4 * 1024 * 1024


@dataclass
class Seen:
    """An incident as the stream reported it. Times are Unix seconds of this machine's clock."""

    view: dict[str, Any]
    first_at: float
    acknowledged_at: float | None = None
    """When Acknowledge was pressed here. If the city was away, the time of the try that it accepted."""


@dataclass
class AutoOperator:
    """One simulated operator of one city."""

    address: str
    token: str
    on_incident: Callable[[Seen], None] | None = None
    on_word: Callable[[dict[str, Any]], None] | None = None
    seen: dict[int, Seen] = field(default_factory=dict)
    connects: int = 0
    resets: int = 0
    _client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        self._client = httpx.AsyncClient(base_url=self.address, headers=headers, timeout=ANSWER_S, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def healthy(self) -> bool:
        """Return whether the city answers and both of its lanes are connected."""
        try:
            return (await self._client.get("/healthz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def get(self, path: str) -> dict[str, Any]:
        """Return the city's answer; try again while it is away. Raise httpx.HTTPError after TRIES_MAX tries."""
        for attempt in range(TRIES_MAX):
            try:
                answer = await self._client.get(path)
                answer.raise_for_status()
                result: dict[str, Any] = answer.json()
                return result
            except httpx.HTTPError:
                if attempt == TRIES_MAX - 1:
                    raise
                await asyncio.sleep(RETRY_S)
        raise AssertionError

    async def acknowledge(self, number: int) -> bool:
        """Press Acknowledge, and again while the city is away. Return whether the city accepted it."""
        seen = self.seen.get(number)
        for _ in range(TRIES_MAX):
            if seen is not None:
                seen.acknowledged_at = time.time()
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._client.post(f"/api/incidents/{number}/acknowledge")
                if answer.status_code == 200:
                    return True
                if answer.status_code in (404, 409):
                    break
            await asyncio.sleep(RETRY_S)
        if seen is not None:
            seen.acknowledged_at = None
        return False

    async def watch(self) -> None:
        """Follow the stream until this task is cancelled."""
        last: str | None = None
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                if last is None:
                    last = await self._read_state()
                last = await self._follow(last)
            await asyncio.sleep(RETRY_S)

    async def _read_state(self) -> str:
        state = await self.get("/api/state")
        now = time.time()
        for view in state["incidents"]:
            self._incident(view, now)
        for word in [*state["words"], *reversed(state["passages"])]:
            self._word(word)
        return str(state["position"])

    async def _follow(self, last: str) -> str | None:
        """Read the stream. Return the id to resume from, or None when the state must be read."""
        timeout = httpx.Timeout(ANSWER_S, read=SILENCE_S)
        async with self._client.stream("GET", "/events", headers={"Last-Event-ID": last}, timeout=timeout) as answer:
            answer.raise_for_status()
            self.connects += 1
            name, data = "", ""
            with contextlib.suppress(httpx.HTTPError):
                async for line in answer.aiter_lines():
                    if line.startswith("event:"):
                        name = line[6:].strip()
                    elif line.startswith("data:"):
                        data = (data + line[5:].strip())[:WORD_MAX_B]
                    elif line.startswith("id:"):
                        last = line[3:].strip()
                    elif not line:
                        if name == "reset":
                            self.resets += 1
                            return None
                        self._happened(name, data)
                        name, data = "", ""
        return last

    def _happened(self, name: str, data: str) -> None:
        if name == "incident":
            self._incident(json.loads(data)["incident"], time.time())
        elif name == "words":
            for word in json.loads(data)["words"]:
                self._word(word)

    def _incident(self, view: dict[str, Any], now: float) -> None:
        number = int(view["number"])
        seen = self.seen.get(number)
        if seen is None:
            if len(self.seen) >= INCIDENTS_MAX:
                self.seen.pop(min(self.seen))
            seen = self.seen[number] = Seen(view, now)
        seen.view = view
        if self.on_incident is not None:
            self.on_incident(seen)

    def _word(self, word: dict[str, Any]) -> None:
        if self.on_word is not None:
            self.on_word(word)
