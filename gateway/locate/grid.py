"""First engine: the likelihood in dB of what was heard in the last seconds, on a lattice round the loudest reader.

Level at a reader: power - 10 n log10(distance) + body, Student-t about it. The body stands between tag and reader or
does not, so it depends on the way the child faces, which is one of `FACES` and summed out. No motion model, no map, no
use of silence: a Bayesian filter takes this engine's place behind `Locator` later.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gateway.events import Heard
from gateway.locate import Fix, Reading
from gateway.locate.field import STEP_M, Field, cell_of

WINDOW_S = 6.0
READERS_MAX = 6
"""Loudest readers of a fix; more add cost and, being far, next to nothing."""
EXPONENT = 2.5
"""Street, reader on a pole, tag at 1 m: 2.0-2.5 in sight, more behind a corner. Unverified for our streets."""
TAG_HEIGHT_M = 1.0
BODY_DB, TURN_DB, FACES = -7.0, 5.0, 4
"""A tag on a bag: 2 dB less than calibrated when the bag looks at the reader, 12 when the child is between. Measured
elsewhere: 6-7 dB between facing and not; unverified for our tags."""
SLOW_DB, FAST_DB = 4.0, 3.0
"""Spread of a place's mean, and of packets about it (only the second shrinks with packets)."""
AGE_DB_PER_S = 1.0
"""A walking child's level drifts by about so much: 1.4 m/s at 15 m."""
FREEDOM = 7
"""Of Student's t. Odd, so that a likelihood is a whole power and costs no logarithm."""
RSSI_MIN_DBM, RSSI_MAX_DBM = -110, -20
POWER_MIN_DBM, POWER_MAX_DBM = -90, -30
GUESS_DBM, GUESS_DB = -80.0, 14.0
"""A reader that heard a tag and gave no level: somewhere in its reach."""
_HALF = 12
_SIDE = 2 * _HALF + 1
_MAP_HALF = 28
"""Cells a reader's map goes: one farther than (28 - 12) * 5 m = 80 m from the loudest has no say."""


class GridLocator:
    """`Locator` without memory beyond WINDOW_S."""

    def __init__(self, field: Field, counts: Counter[str]) -> None:
        self._field, self._counts = field, counts
        self._maps = {number: _map(x, y, height) for number, (x, y, height) in field.readers.items()}
        self._cells = {number: cell_of(x, y) for number, (x, y, _) in field.readers.items()}
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
        usable = [r for r in heard if r.reader in self._maps and r.heard_at_s >= now_s - WINDOW_S]
        if not usable:
            return None
        usable.sort(key=_level, reverse=True)
        del usable[READERS_MAX:]
        centre = self._cells[usable[0].reader]
        odds: Any = None
        for reading in usable:
            expected = self._around(reading.reader, centre)
            if expected is None:
                self._counts["readings_too_far"] += 1
                continue
            off = _off(reading, expected, now_s)
            odds = off if odds is None else np.multiply(odds, off, out=odds)
        self._counts["fixes"] += 1
        np.divide(odds.min(), odds, out=odds)
        odds *= odds
        odds *= odds  # to the power of (FREEDOM + 1) / 2
        mass = odds.sum(axis=0)
        mass /= mass.sum()
        corner = (centre[0] - _HALF, centre[1] - _HALF)
        fix = _fix(mass, corner, usable, now_s)
        places = {name: region.share(mass, corner) for name, region in self._field.places.items()}
        dangers = {name: region.share(mass, corner) for name, region in self._field.dangers.items()}
        return replace(fix, places=places, dangers=dangers)

    def _around(self, reader: int, centre: tuple[int, int]) -> Any:
        own = self._cells[reader]
        column = centre[0] - own[0] + _MAP_HALF - _HALF
        row = centre[1] - own[1] + _MAP_HALF - _HALF
        most = 2 * (_MAP_HALF - _HALF)
        if not (0 <= column <= most and 0 <= row <= most):
            return None
        return self._maps[reader][:, column : column + _SIDE, row : row + _SIDE]


_INDEX: Any = np.arange(_SIDE, dtype=float)


def _level(reading: Reading) -> float:
    return GUESS_DBM if reading.rssi_dbm is None else reading.rssi_dbm


def _off(reading: Reading, expected: Any, now_s: float) -> Any:
    """1 + z^2 / FREEDOM of a reading in every cell, for every way to face: the t-likelihood to the power -2 / 8."""
    age_s = max(now_s - reading.heard_at_s, 0.0)
    variance = SLOW_DB**2 + FAST_DB**2 / max(reading.packets, 1) + (AGE_DB_PER_S * age_s) ** 2
    if reading.rssi_dbm is None:
        variance += GUESS_DB**2
    level = min(max(_level(reading), RSSI_MIN_DBM), RSSI_MAX_DBM)
    power = min(max(reading.power_dbm, POWER_MIN_DBM), POWER_MAX_DBM)
    off = (level - power) - expected
    off *= off
    off *= 1.0 / (FREEDOM * variance)
    off += 1.0
    return off


def _fix(mass: Any, corner: tuple[int, int], usable: Sequence[Reading], now_s: float) -> Fix:
    columns, rows = mass.sum(axis=1), mass.sum(axis=0)
    column, row = float(columns @ _INDEX), float(rows @ _INDEX)
    far = np.sqrt(((_INDEX - column) ** 2)[:, None] + ((_INDEX - row) ** 2)[None, :])
    held = np.cumsum(np.bincount((far * STEP_M).astype(np.intp).ravel(), weights=mass.ravel()))
    evidence = tuple(Heard(r.reader, r.rssi_dbm, r.packets, round(max(now_s - r.heard_at_s, 0.0), 2)) for r in usable)
    return Fix(
        (corner[0] + column) * STEP_M,
        (corner[1] + row) * STEP_M,
        max(float(np.searchsorted(held, 0.5)) + 1.0, STEP_M / 2),
        max(float(np.searchsorted(held, 0.95)) + 1.0, 2 * STEP_M),
        evidence,
        now_s,
        mass,
        corner,
    )


def _map(x_m: float, y_m: float, height_m: float) -> Any:
    """Level at a reader less the tag's power, dB: [face, column, row], cells round the reader's own."""
    own = cell_of(x_m, y_m)
    cells = np.arange(-_MAP_HALF, _MAP_HALF + 1)
    dx = ((own[0] + cells) * STEP_M - x_m)[:, None]
    dy = ((own[1] + cells) * STEP_M - y_m)[None, :]
    # Within a cell the distance varies by a third of its side or so: no cell is nearer than that.
    flat2 = dx**2 + dy**2 + (STEP_M / 3) ** 2
    loss = 5 * EXPONENT * np.log10(flat2 + (height_m - TAG_HEIGHT_M) ** 2)
    flat = np.sqrt(flat2)
    faces = [(math.cos(a), math.sin(a)) for a in (2 * math.pi * n / FACES for n in range(FACES))]
    turned = [(dx * east + dy * north) / flat for east, north in faces]  # 1: it walks away from the reader
    return np.stack([BODY_DB + TURN_DB * away - loss for away in turned]).astype(np.float32)
