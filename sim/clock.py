"""Virtual time: actions run in one fixed order, as fast as wanted or in step with the wall clock.

Actions due at the same instant run in the order in which they were planned. The wall clock is read only through the
functions that `Clock` is given.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Action = Callable[[], object]
"""Its result is awaited if it is awaitable; any other result is ignored."""

PLANNED_MAX = 1_000_000
"""More planned actions than this mean an error in the story: every tag plans only one at a time."""
NAP_S = 0.25
"""The longest sleep. An action planned during a sleep, and due before its end, is at most this late."""

YIELD_TURNS, YIELD_S = 32, 0.02
"""After so many actions, or so long, others get their turn, however far the clock is behind."""


@dataclass(order=True, slots=True)
class _Planned:
    due_s: float
    order: int
    action: Action = field(compare=False)


class Clock:
    """A clock of seconds since the story began. `lag_max_s`: the most that it was ever behind the wall clock."""

    def __init__(
        self,
        speed: float | None = 1.0,
        wall: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
    ) -> None:
        if speed is not None and not 0 < speed <= 1000:
            raise ValueError(f"speed {speed}; it must be over 0 and at most 1000 (None: as fast as the machine can)")
        self.now_s = 0.0
        self.lag_max_s = 0.0
        self.speed = speed
        self._wall, self._utc = wall, utc
        self.started_unix_s: float | None = None
        """UTC on the wall clock when `now_s` was 0. None before the first `run`, and without a speed."""
        self._started: float | None = None
        self._heap: list[_Planned] = []
        self._order = itertools.count()
        self._stopped = False

    def at(self, due_s: float, action: Action) -> None:
        """Plan an action. A time in the past means now. The action may be a coroutine function."""
        if len(self._heap) >= PLANNED_MAX:
            raise RuntimeError(f"over {PLANNED_MAX} planned actions; a story plans without end")
        heapq.heappush(self._heap, _Planned(max(due_s, self.now_s), next(self._order), action))

    def after(self, delay_s: float, action: Action) -> None:
        self.at(self.now_s + delay_s, action)

    def next_due_s(self) -> float | None:
        return self._heap[0].due_s if self._heap else None

    def wall_s(self) -> float:
        """Return the story time by the wall clock. Without a speed, and before the first `run`: `now_s`."""
        if self.speed is None or self._started is None:
            return self.now_s
        return (self._wall() - self._started) * self.speed

    def stop(self) -> None:
        self._stopped = True

    async def run(self, until_s: float) -> None:
        """Let time pass until until_s or `stop`, and run what is due. Unless stopped, now_s is until_s at the end."""
        if self._started is None and self.speed is not None:
            self._started = self._wall() - self.now_s / self.speed
            self.started_unix_s = self._utc() - self.now_s / self.speed
        self._stopped = False
        turns, yielded = 0, self._wall()
        while not self._stopped:
            due = self.next_due_s()
            target = until_s if due is None else min(due, until_s)
            if self.speed is not None:
                ahead_s = (target - self.wall_s()) / self.speed
                if ahead_s > 0:
                    await asyncio.sleep(min(ahead_s, NAP_S))
                    yielded = self._wall()
                    continue
                self.lag_max_s = max(self.lag_max_s, -ahead_s)
            if due is None or due > until_s:
                self.now_s = max(self.now_s, until_s)
                return
            planned = heapq.heappop(self._heap)
            self.now_s = planned.due_s
            done = planned.action()
            if inspect.isawaitable(done):
                await done
            turns += 1
            if turns % YIELD_TURNS == 0 or self._wall() - yielded > YIELD_S:
                await asyncio.sleep(0)  # the coordinator's serial line uses the same loop; a signal waits for it, too
                yielded = self._wall()
