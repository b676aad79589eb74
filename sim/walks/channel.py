"""The air of a recorded walk: what readers hear of one tag on a known path, through a channel with known parameters.

It tests locating engines, so it has what misleads them: offsets of readers and tags, shadowing that is fixed in space
with an exponential correlation, fading per packet, the wearer's body, a soft edge of reception, whole dBm. `sim.air`
is the air of the live simulator (scan windows, walls, SOS). This air computes a whole walk at once. Every random
number is a hash of the seed and of the number's purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import chance
from sim.chance import Floats

Ints = NDArray[np.int64]

WAVES = 256
"""Plane waves in one reader's shadowing: enough for a normal distribution at one place within a few per cent."""
DISTANCE_MIN_M = 0.3
RSSI_MIN_DBM, RSSI_MAX_DBM = -110, 20


@dataclass(frozen=True, slots=True)
class WalkChannel:
    """Parameters of the air, dB and metres. `sim.walks.places` draws them from the ranges of measured channels."""

    p0_dbm: float = -50.0
    """Mean level at 1 m for a tag and a reader without offsets."""
    exponent: float = 2.2
    slow_db: float = 4.0
    """Spread (standard deviation) of the shadowing."""
    slow_m: float = 1.5
    """Correlation of the shadowing: exp(-distance / slow_m). 0: not fixed in space, new per reader and whole second."""
    rice_k_db: float = 6.0
    """Rician factor of the fading per packet: 3 dB spreads the readings by 4.3 dB, 10 dB by 2.0 dB."""
    body_db: float = 0.0
    """The body adds body_db * cos(bearing to the reader - heading). Above 0: worn in front. Below 0: on the bag."""
    reader_sigma_db: float = 2.0
    edge_dbm: float = -91.0
    """At this level half of the packets are received."""
    edge_db: float = 2.0
    """This far above edge_dbm it is 73 % (logistic). Both are from 802.15.4 links: delivery is 95 % above -85 dBm."""
    loss: float = 0.05
    """Share of packets lost at any level."""
    quantum_db: float = 1.0


class WalkAir:
    """One channel between readers (rows x, y, z in metres) and tags at one height."""

    def __init__(self, seed: int, readers_m: Floats, tag_height_m: float, channel: WalkChannel) -> None:
        self.channel, self.readers_m, self.tag_height_m = channel, readers_m, tag_height_m
        self._seed = seed
        self._numbers: Ints = np.arange(len(readers_m), dtype=np.int64)
        self.offset_db: Floats = channel.reader_sigma_db * chance.normal(seed, "reader offset", self._numbers)

    def mean_dbm(self, xy_m: Floats, heading: Floats) -> Floats:
        """Return the level without fading at each place (N, 2), for headings in radians (N,), for K readers: (N, K)."""
        c = self.channel
        to = self.readers_m[None, :, :2] - xy_m[:, None]
        rise = self.readers_m[:, 2] - self.tag_height_m
        distance = np.maximum(np.sqrt((to**2).sum(-1) + rise**2), DISTANCE_MIN_M)
        level = c.p0_dbm - 10.0 * c.exponent * np.log10(distance) + self.offset_db
        if c.body_db:
            level = level + c.body_db * np.cos(np.arctan2(to[..., 1], to[..., 0]) - heading[:, None])
        if c.slow_m > 0 and c.slow_db > 0:
            level = level + c.slow_db * np.stack([self._shadow(k, xy_m) for k in range(len(rise))], axis=1)
        result: Floats = level
        return result

    def listen(
        self, tag: str, t_s: Floats, xy_m: Floats, heading: Floats, offset_db: float = 0.0
    ) -> tuple[Ints, Ints, Floats]:
        """Return what is received (see `hear`) of packets sent at t_s (N,) from places (N, 2), facing heading (N,)."""
        return self.hear(tag, t_s, self.level_dbm(xy_m, heading) + offset_db)

    def level_dbm(self, xy_m: Floats, heading: Floats) -> Floats:
        """Return `mean_dbm`, computed once for a tag that does not move or turn."""
        if len(xy_m) > 1 and (xy_m == xy_m[0]).all() and (heading == heading[0]).all():
            return np.repeat(self.mean_dbm(xy_m[:1], heading[:1]), len(xy_m), axis=0)
        return self.mean_dbm(xy_m, heading)

    def hear(self, tag: str, t_s: Floats, level_dbm: Floats) -> tuple[Ints, Ints, Floats]:
        """Return what is received of packets sent at t_s (N,): (packet, reader, dBm) of all readings, sorted by packet.

        level_dbm is `mean_dbm` plus the tag's offset, (N, K), or (1, K) for a tag that stands still.
        """
        c = self.channel
        packet: Ints = np.arange(len(t_s), dtype=np.int64)[:, None]
        level = level_dbm
        if c.slow_m <= 0:
            second: Ints = np.ceil(t_s).astype(np.int64)[:, None]
            level = level + c.slow_db * chance.normal(self._seed, "white", tag, second, self._numbers)
        real, imaginary = (self.packet_fading(tag, packet, part) for part in (1, 2))
        return self.receive(tag, level + self.fading_db(real, imaginary))

    def packet_fading(self, tag: str, packet: Ints, part: int) -> Floats:
        """Return the scattered part of the field, real (1) or imaginary (2), new for each packet (N, K): spread 1."""
        return chance.normal(self._seed, "fade", tag, part, packet, self._numbers)

    def fading_db(self, real: Floats, imaginary: Floats) -> Floats:
        """Return the gain of a steady wave together with a scattered field of spread 1 in each part (Rice)."""
        k = 10.0 ** (self.channel.rice_k_db / 10.0)
        sigma = math.sqrt(0.5 / (k + 1.0))
        found: Floats = 10.0 * np.log10((math.sqrt(k / (k + 1.0)) + sigma * real) ** 2 + (sigma * imaginary) ** 2)
        return found

    def receive(self, tag: str, level: Floats) -> tuple[Ints, Ints, Floats]:
        """Return which packets (N, K) are received and with what level: see `hear`."""
        c = self.channel
        packet: Ints = np.arange(len(level), dtype=np.int64)[:, None]
        chances = (1.0 - c.loss) / (1.0 + np.exp(-np.clip((level - c.edge_dbm) / c.edge_db, -60.0, 60.0)))
        got, reader = np.nonzero(chance.uniform(self._seed, "read", tag, packet, self._numbers) < chances)
        dbm = np.clip(np.round(level[got, reader] / c.quantum_db) * c.quantum_db, RSSI_MIN_DBM, RSSI_MAX_DBM)
        return got.astype(np.int64), reader.astype(np.int64), dbm

    def _shadow(self, reader: int, xy_m: Floats) -> Floats:
        return self.shadow("wave", "phase", reader, xy_m)

    def shadow(self, waves: str, phases: str, reader: int, xy_m: Floats) -> Floats:
        """Return shadowing of spread 1 at places (N, 2) as a sum of plane waves; the two keys select the draw.

        exp(-r / D) in the plane is the characteristic function of a bivariate Cauchy distribution of scale 1 / D (the
        Matern class with index 1/2). So waves drawn from it have exactly this correlation (Rahimi and Recht 2007).
        """
        wave: Ints = np.arange(WAVES, dtype=np.int64)
        draw = [chance.normal(self._seed, waves, reader, wave, axis) for axis in (1, 2, 3)]
        number = np.stack(draw[:2]) / np.abs(draw[2]) / self.channel.slow_m
        phase = 2.0 * np.pi * chance.uniform(self._seed, phases, reader, wave)
        result: Floats = np.cos(xy_m @ number + phase).sum(1) * math.sqrt(2.0 / WAVES)
        return result


def smooth(x: Floats, seed: int, key: str) -> Floats:
    """Return a smooth random function of x (N,), the sum of eight cosines: spread 1, scale about 1."""
    n: Ints = np.arange(8, dtype=np.int64)
    waves = chance.normal(seed, key, "smooth wave", n)
    phases = 2.0 * np.pi * chance.uniform(seed, key, "smooth phase", n)
    result: Floats = np.cos(np.multiply.outer(x, waves) + phases).sum(-1) / 2.0
    return result
