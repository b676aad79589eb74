"""Which readers may join the network: enrolled ones that are not in it, each with its install code, in batches."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import zigpy.types as zt
import zigpy.util

from gateway.health import OnHealth

BATCH_MAX = 12
"""Readers admitted at once: a stick holds only a few transient keys."""
OPEN_S = 180
AGAIN_S = 60.0
LOOK_S = 5.0
ADMIT_MAX_S = 30.0
OUT_S = 600.0
"""A reader that is silent longer than this may have lost the network; it is admitted again with its own key."""


def eui64_of(text: str) -> Any:
    """Return 16 hexadecimal digits (MSB first) as zigpy's EUI64."""
    return zt.EUI64(bytes(reversed(bytes.fromhex(text))))


class Admission:
    """Admits readers in turns. codes: EUI64 (hexadecimal, MSB first) -> install code; numbers: EUI64 -> reader."""

    def __init__(
        self, codes: Mapping[str, bytes], numbers: Mapping[str, int], counters: Counter[str], *, on_health: OnHealth
    ) -> None:
        self._codes, self._numbers, self._counters, self._on_health = (
            dict(sorted(codes.items())),
            numbers,
            counters,
            on_health,
        )
        self._heard_at_s: dict[int, float] = {}
        self._began_s = time.monotonic()
        self._next_s = float("-inf")
        self._turn = 0
        self._batch: list[str] = []

    def heard(self, reader: int) -> None:
        """Note that a frame with this reader's valid MAC arrived: the reader is in the network."""
        self._heard_at_s[reader] = time.monotonic()

    def begin(self) -> None:
        """Note that the stack was started: the network is closed again."""
        self._next_s, self._batch = float("-inf"), []

    async def step(self, app: Any) -> None:
        """Open the network for the next batch if it is due. Call it every second while the stack runs."""
        if time.monotonic() < self._next_s and not self._batch_is_in(app):
            return
        again_s = await self._admit(app)
        self._next_s = time.monotonic() + again_s

    async def _admit(self, app: Any) -> float:
        """Admit a batch; return the seconds until the next attempt."""
        waiting = [eui64 for eui64 in self._codes if self._is_out(app, eui64)]
        self._batch = []
        if not waiting:
            return LOOK_S
        start = self._turn % len(waiting)
        batch = (waiting[start:] + waiting[:start])[:BATCH_MAX]
        joins = [(eui64_of(eui64), zigpy.util.convert_install_code(self._codes[eui64])) for eui64 in batch]
        try:
            async with asyncio.timeout(ADMIT_MAX_S):
                done = await app.admit(joins, OPEN_S)
        except Exception as error:
            self._on_health("admission_failed", False, f"readers cannot be admitted: {type(error).__name__}: {error}")
            return AGAIN_S
        self._turn, self._batch = start + done, batch[:done]
        self._counters["admitted"] += done
        return OPEN_S - 20.0 if len(waiting) <= done else AGAIN_S

    def _is_out(self, app: Any, eui64: str) -> bool:
        """True if not heard and not in zigpy's table, or silent for OUT_S: its radio may be erased or replaced."""
        heard_at_s = self._heard_at_s.get(self._numbers[eui64], float("-inf"))
        if eui64_of(eui64) in app.devices:
            heard_at_s = max(heard_at_s, self._began_s)
        return time.monotonic() - heard_at_s > OUT_S

    def _batch_is_in(self, app: Any) -> bool:
        """True if every reader of the last batch has joined: the next batch need not wait."""
        return bool(self._batch) and not any(self._is_out(app, eui64) for eui64 in self._batch)
