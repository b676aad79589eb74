"""Counter-based random numbers: each is a hash of a seed and of what it is for, so the order of calls changes none.

The mixing step is the finaliser of splitmix64 (Steele, Lea, Flood 2014). As a counter-based generator it passes
BigCrush.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def words(*keys: int | str | NDArray[np.int64]) -> Words:
    """Return 64 random bits for every combination of keys. Arrays among the keys broadcast as in numpy."""
    state = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            if isinstance(key, str):
                key = zlib.crc32(key.encode())
            word = key.astype(np.uint64) if isinstance(key, np.ndarray) else np.uint64(key & 0xFFFFFFFFFFFFFFFF)
            state = _mix((state ^ word) + _GOLDEN)
    return state


def uniform(*keys: int | str | NDArray[np.int64]) -> Floats:
    """Return uniform numbers between 0 and 1, never 0 and never 1."""
    result: Floats = ((words(*keys) >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return result


def normal(*keys: int | str | NDArray[np.int64]) -> Floats:
    """Return standard normal numbers (Box-Muller)."""
    result: Floats = np.sqrt(-2.0 * np.log(uniform(*keys, 1))) * np.cos(2.0 * np.pi * uniform(*keys, 2))
    return result


def one(*keys: int | str) -> float:
    """Return one uniform number between 0 and 1, never 0 and never 1."""
    return float(uniform(*keys)[0])


def _mix(z: Words) -> Words:
    z = (z ^ (z >> np.uint64(30))) * _MIX_A
    z = (z ^ (z >> np.uint64(27))) * _MIX_B
    result: Words = z ^ (z >> np.uint64(31))
    return result
