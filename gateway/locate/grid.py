"""First engine: the likelihood in dB of what was heard in the last seconds, on a lattice round the loudest reader.

Level at a reader: power - 10 n log10(distance) + body, Student-t (4 degrees) about it; `body` (a bag, a back, a bad
calibration) is common to all readers of a fix and summed out over `BODY_DB`. No motion model, no map, no use of
silence: a Bayesian filter takes this engine's place behind `Locator` later.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.events import Heard
from gateway.locate import Fix, Reading
from gateway.locate.field import STEP_M, Field, cell_of

WINDOW_S = 6.0
READERS_MAX = 8
"""Loudest readers of a fix; more add cost and, being far, next to nothing."""
EXPONENT = 2.5
"""Street, reader on a pole, tag at 1 m: 2.0-2.5 in sight, more behind a corner. Unverified for our streets."""
TAG_HEIGHT_M = 1.0
SLOW_DB, FAST_DB = 6.5, 4.0
"""Spread of a place's mean, and of packets about it (only the second shrinks with packets)."""
AGE_DB_PER_S = 1.0
"""A walking child's level drifts by about so much: 1.4 m/s at 15 m."""
FREEDOM = 4.0
BODY_DB = (-7.0, -3.0, 1.0)
RSSI_MIN_DBM, RSSI_MAX_DBM = -110, -20
POWER_MIN_DBM, POWER_MAX_DBM = -90, -30
GUESS_DBM, GUESS_DB = -80.0, 14.0
"""A reader that heard a tag and gave no level: somewhere in its reach."""
_HALF = 12
_SIDE = 2 * _HALF + 1
_MAP_HALF = 36


class GridLocator:
    """`Locator` without memory beyond WINDOW_S."""

    def __init__(self, field: Field, counts: Counter[str]) -> None:
        self._field, self._counts = field, counts
        self._loss = {number: _loss_map(x, y, height) for number, (x, y, height) in field.readers.items()}
        self._recent: dict[int, dict[int, Reading]] = {}
        self._latest: dict[int, Fix] = {}

    def step(self, tag: int, heard: Sequence[Reading], now_s: float) -> Fix | None:
        recent = self._recent.setdefault(tag, {})
        for reading in heard:
            known = recent.get(reading.reader)
            if known is None or reading.heard_at_s >= known.heard_at_s:
                recent[reading.reader] = reading
        for reader in [reader for reader, reading in recent.items() if reading.heard_at_s < now_s - WINDOW_S]:
            del recent[reader]
        fix = self.once(list(recent.values()), now_s)
        if fix is not None:
            self._latest[tag] = fix
        return fix

    def latest(self, tag: int) -> Fix | None:
        return self._latest.get(tag)

    def once(self, heard: Sequence[Reading], now_s: float) -> Fix | None:
        usable = [r for r in heard if r.reader in self._loss and r.heard_at_s >= now_s - WINDOW_S]
        if not usable:
            return None
        usable.sort(key=_level, reverse=True)
        del usable[READERS_MAX:]
        x0, y0, _ = self._field.readers[usable[0].reader]
        centre = cell_of(x0, y0)
        surprise = []
        for reading in usable:
            loss = self._around(reading.reader, centre)
            if loss is not None:
                surprise.append(self._surprise(reading, loss, now_s))
        self._counts["fixes"] += 1
        log_belief = np.sum(surprise, axis=0)
        log_belief -= log_belief.max()
        belief = np.exp(log_belief, out=log_belief).sum(axis=0)
        mass = belief / belief.sum()
        return self._fix(mass, (centre[0] - _HALF, centre[1] - _HALF), usable, now_s)

    def _around(self, reader: int, centre: tuple[int, int]) -> Any:
        x, y, _ = self._field.readers[reader]
        own = cell_of(x, y)
        column = centre[0] - own[0] + _MAP_HALF - _HALF
        row = centre[1] - own[1] + _MAP_HALF - _HALF
        if not (0 <= column <= 2 * (_MAP_HALF - _HALF) and 0 <= row <= 2 * (_MAP_HALF - _HALF)):
            self._counts["readings_too_far"] += 1
            return None
        return self._loss[reader][column : column + _SIDE, row : row + _SIDE]

    def _surprise(self, reading: Reading, loss: Any, now_s: float) -> Any:
        age_s = max(now_s - reading.heard_at_s, 0.0)
        variance = SLOW_DB**2 + FAST_DB**2 / max(reading.packets, 1) + (AGE_DB_PER_S * age_s) ** 2
        level = min(max(_level(reading), RSSI_MIN_DBM), RSSI_MAX_DBM)
        if reading.rssi_dbm is None:
            variance += GUESS_DB**2
        power = min(max(reading.power_dbm, POWER_MIN_DBM), POWER_MAX_DBM)
        off = (level - power - _BODY) + loss
        off *= off
        off *= 1.0 / (FREEDOM * variance)
        return np.log1p(off, out=off) * (-(FREEDOM + 1) / 2)

    def _fix(self, mass: Any, corner: tuple[int, int], usable: Sequence[Reading], now_s: float) -> Fix:
        columns, rows = mass.sum(axis=1), mass.sum(axis=0)
        column, row = float(columns @ _INDEX), float(rows @ _INDEX)
        distance = np.hypot(_INDEX[:, None] - column, _INDEX[None, :] - row)
        held = np.cumsum(np.bincount((distance * STEP_M).astype(np.int64).ravel(), weights=mass.ravel()))
        radius_50_m = float(np.searchsorted(held, 0.5)) + 1.0
        accuracy_95_m = float(np.searchsorted(held, 0.95)) + 1.0
        evidence = tuple(
            Heard(r.reader, r.rssi_dbm, r.packets, round(max(now_s - r.heard_at_s, 0.0), 2)) for r in usable
        )
        return Fix(
            (corner[0] + column) * STEP_M,
            (corner[1] + row) * STEP_M,
            max(radius_50_m, STEP_M / 2),
            max(accuracy_95_m, 2 * STEP_M),
            evidence,
            now_s,
            mass,
            corner,
        )


_INDEX: Any = np.arange(_SIDE, dtype=float)
_BODY: Any = np.array(BODY_DB)[:, None, None]


def _level(reading: Reading) -> float:
    return GUESS_DBM if reading.rssi_dbm is None else reading.rssi_dbm


def _loss_map(x_m: float, y_m: float, height_m: float) -> Any:
    column, row = cell_of(x_m, y_m)
    cells = np.arange(-_MAP_HALF, _MAP_HALF + 1)
    dx = (column + cells) * STEP_M - x_m
    dy = (row + cells) * STEP_M - y_m
    # Within a cell the distance varies by a third of its side or so: no cell is nearer than that.
    distance2 = dx[:, None] ** 2 + dy[None, :] ** 2 + (height_m - TAG_HEIGHT_M) ** 2 + (STEP_M / 3) ** 2
    return 5 * EXPONENT * np.log10(distance2)
