"""Waiting in a test, until something is true or until a whole story is over, with a limit that ends a hung test."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

LIMIT_S = 20.0
STORY_MAX_S = 60.0


async def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Return the first value of a condition that is true. `what` says in a failure what was waited for."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {limit_s:.0f} s for {what}"
        await asyncio.sleep(0.005)
    return value


def run(story: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine to its end."""

    async def limited() -> None:
        async with asyncio.timeout(STORY_MAX_S):
            await story()

    asyncio.run(limited())
