"""What can be expected of a zone's readers before a walk test: the Cramer-Rao bound of the path-loss law.

A reading is level = p0 - 10 n log10(d) + noise. Its Fisher information about the position is g g^T / s^2 with
g = (10 n / ln 10) (p - p_reader) / d^2, d in three dimensions. The information of readings adds up. A weak prior (no
tag is SPREAD_M away from where the readers hear it) keeps the sum invertible. No estimator without a map or a history
is better on average. A walk test makes it better, and so does a tag that walks.

Right below a reader the law is flat and that bound is infinite, although a tag a few steps away can be distinguished
from there. So the information is taken as its mean over NEAR_M to each side.

A patch antenna (`gateway.antenna`) hears further ahead and less far behind, and its level also tells the direction.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.antenna import FRONT_BACK_DB, gain_db
from gateway.recording import DeviceLaw, Floats

SPREAD_M = 50.0
NEAREST_M = 1.0
NEAR_M = 2.0
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class ExpectedLaw:
    """A path-loss law and the weakest level that a reader receives."""

    p0_dbm: float = -55.0
    """At 1 m from a worn tag: -48 for a tag that sends with 10 dBm, less 7 dB for the body, which is often between."""
    exponent: float = 2.5
    sigma_db: float = 5.0
    """4 dB of the mean at a place and 3 dB of packets around that mean, together: the engine's own constants."""
    floor_dbm: float = -95.0

    @classmethod
    def of(cls, channel: DeviceLaw | None, floor_dbm: float = -95.0) -> "ExpectedLaw":
        """Return the law of a device type, or the usual law if there is none."""
        return cls() if channel is None else cls(channel.p0_dbm, channel.exponent, channel.sigma_db, floor_dbm)

    def reach_m(self) -> float:
        """Return the distance at which the mean level is the weakest that a reader receives."""
        return float(10 ** ((self.p0_dbm - self.floor_dbm) / (10 * self.exponent)))


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of readers at (readers, 3) metres and a tag at a given height."""

    readers_m: Floats
    tag_height_m: float = 1.0
    law: ExpectedLaw = ExpectedLaw()
    look: Floats | None = None
    """(readers,): where each antenna looks (`gateway.antenna`); None: all are dipoles."""

    def readers_in_reach(self, xy_m: Floats) -> Floats:
        """Return how many readers hear a tag by its mean level, at each of (points, 2)."""
        counts = [self._distances_m(part)[2].sum(axis=1) for part in _parts(xy_m)]
        return np.concatenate(counts).astype(float)

    def error_m(self, xy_m: Floats) -> Floats:
        """Return the least rms error in metres with one reading of every reader in reach, at each of (points, 2)."""
        return np.concatenate([self._bound_m(part) for part in _parts(xy_m)])

    def _distances_m(self, xy_m: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the offsets from each reader, the distances, and who hears a tag there."""
        flat = xy_m[:, None, :] - self.readers_m[None, :, :2]
        rise = self.readers_m[None, :, 2] - self.tag_height_m
        far = np.maximum(np.sqrt((flat**2).sum(axis=2) + rise**2), NEAREST_M)
        gain = 0.0 if self.look is None else gain_db(flat, self.look[None, :])
        return flat, far, far <= self.law.reach_m() * 10 ** (gain / (10 * self.law.exponent))

    def _bound_m(self, xy_m: Floats) -> Floats:
        flat, far, heard = self._distances_m(xy_m)
        x, y = flat[:, :, 0], flat[:, :, 1]
        fall = 10 * self.law.exponent / math.log(10) / self.law.sigma_db / far**2 * heard
        gx, gy = fall * x, fall * y  # how the level falls, in sigmas a metre
        if self.look is not None:
            off = np.where(np.isfinite(self.look), np.arctan2(y, x) - np.nan_to_num(self.look), 0.0)
            turn = FRONT_BACK_DB / 2 * np.sin(off) / self.law.sigma_db / np.maximum(x**2 + y**2, NEAR_M**2) * heard
            gx, gy = gx - turn * y, gy + turn * x
        prior, near = 1 / SPREAD_M**2, (fall * NEAR_M) ** 2
        xx = (gx**2 + near).sum(axis=1) + prior
        yy = (gy**2 + near).sum(axis=1) + prior
        xy = (gx * gy).sum(axis=1)
        bound: Floats = np.sqrt((xx + yy) / (xx * yy - xy**2))
        return bound


def _parts(xy_m: Floats) -> list[Floats]:
    return [xy_m[at : at + _CHUNK] for at in range(0, max(len(xy_m), 1), _CHUNK)]
