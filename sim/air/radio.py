"""The Bluetooth channel from tags and readers to readers: the level of an advertisement at each, and who can read it.

First version, all in numpy: log-distance loss, shadowing fixed in space, Rician fading per packet, offsets per device,
the body between tag and reader, the school's wall, a soft edge at the sensitivity, and a constant share of losses by
interference (the plateau). Other walls, capture and collisions come with the full channel, in `Air.listen`. Every
random number is a hash of the seed and of what it is for (transmission or place, and reader), so the order of calls
changes nothing.

Numbers: exponent 2.5, between a street in line of sight (2.0-2.2) and a crowd and parked cars (2.7); shadowing 4 dB
over 12 m; K 6 dB; body 2 dB when the child's back faces the reader, 14 dB when the child is between tag and reader;
plateau 8 % (measured networks: 12-30 %). From pole to pole, above people's heads: exponent 2.2, shadowing 3 dB that is
the same in both directions, and 1.5 dB that differ by direction. None is calibrated on our streets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import chance
from sim.chance import Floats
from sim.street.paths import Spot, distance_to_edge_m, inside
from sim.street.tag import POWER_DBM

RSSI_MIN_DBM, RSSI_MAX_DBM = -110, 20
FLOOR_DB = 10.0
"""Nothing is read that is more than this far under the sensitivity."""
CORNERS_MAX = 20_000
"""Lattice points kept: 2.9 km2 of 12 m cells. Beyond that all are dropped, and made again with the same values."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Parameters of the channel, in dB, dBm and metres."""

    exponent: float = 2.5
    shadow_sigma_db: float = 4.0
    shadow_cell_m: float = 12.0
    shadow_common: float = 0.5
    """Share of the shadowing's power that is the same for all readers: objects around the child."""
    rice_k_db: float = 6.0
    body_min_db: float = 2.0
    body_max_db: float = 14.0
    reader_sigma_db: float = 2.0
    reader_gain_db: float = 2.0
    """A dipole on the pole (2.1 dBi), minus its cable."""
    sensitivity_dbm: float = -95.0
    """1 % packet errors at 1 Mbit/s, typical of this class of chip (EFR32MG12: -94.8). Unverified for XBee 3."""
    edge_db: float = 0.8
    """Scale of the edge below the sensitivity: packet errors go from 1 % to 50 % in 3.7 dB, to 99 % in 7.4 dB."""
    plateau_loss: float = 0.08
    tag_height_m: float = 0.8
    wall_db: float = 6.0
    """Loss in the school's wall, between a child on the street and a pole in the yard, or the reverse: brick 6-8 dB."""
    gate_m: float = 3.0
    """A child or reader nearer than this to the wall's line counts as in the gate or above the wall: no wall loss."""
    pole_power_dbm: float = -30.0
    """Level of a reader's own beacon at 1 m: 8 dBm plus 2 dBi minus 40 dB."""
    pole_exponent: float = 2.2
    pole_shadow_db: float = 3.0
    pole_asymmetry_db: float = 1.5
    pole_sigma_db: float = 2.0
    """Spread of the readers' transmitters. The spread of their receivers is `reader_sigma_db`."""


@dataclass(frozen=True, slots=True)
class ReaderEar:
    """A reader as a receiver: its number, position and height."""

    number: int
    at: Spot
    height_m: float


class Air:
    """The channel from all tags and readers to the given readers. walled: the outline of what a wall encloses.

    `noise_db` raises the sensitivity edge of all readers (a fault).
    """

    def __init__(
        self, seed: int, ears: Sequence[ReaderEar], channel: Channel | None = None, *, walled: Sequence[Spot] = ()
    ) -> None:
        self.channel = channel or Channel()
        self._walled = tuple(walled)
        self._side: Floats = np.array([self._side_of(ear.at) for ear in ears])
        self.ears = tuple(ears)
        self.noise_db = 0.0
        self._seed = seed
        self._x: Floats = np.array([ear.at[0] for ear in ears], np.float64)
        self._y: Floats = np.array([ear.at[1] for ear in ears], np.float64)
        self._rise: Floats = np.array([ear.height_m for ear in ears], np.float64) - self.channel.tag_height_m
        self._numbers: NDArray[np.int64] = np.array([ear.number for ear in ears], np.int64)
        self._corners: dict[tuple[int, int], Floats] = {}
        spread = self.channel.reader_sigma_db * chance.normal(seed, "ear", self._numbers)
        self._offset_db = self.channel.reader_gain_db + spread

    def mean_dbm(self, x_m: float, y_m: float, heading: float, tag_offset_db: float = 0.0) -> Floats:
        """Return the level at each reader without fading: all that is constant while the child stands still."""
        c = self.channel
        dx, dy = self._x - x_m, self._y - y_m
        distance = np.maximum(1.0, np.sqrt(dx * dx + dy * dy + self._rise * self._rise))
        facing = np.cos(np.arctan2(dy, dx) - heading)  # 1: the child walks towards the reader, its bag on its back
        body = c.body_min_db + (c.body_max_db - c.body_min_db) * (1.0 + facing) / 2.0
        loss = 10.0 * c.exponent * np.log10(distance)
        wall = c.wall_db * (self._side * self._side_of((x_m, y_m)) < 0)
        result: Floats = POWER_DBM + tag_offset_db - loss - body - wall + self._offset_db + self._shadow(x_m, y_m)
        return result

    def pole_dbm(self, sender: int) -> Floats:
        """Return the level of a reader's beacon at each reader, without fading; -inf at the sender itself."""
        c = self.channel
        k = next(i for i, ear in enumerate(self.ears) if ear.number == sender)
        rise = self._rise - self._rise[k]
        distance = np.maximum(1.0, np.sqrt((self._x - self._x[k]) ** 2 + (self._y - self._y[k]) ** 2 + rise * rise))
        low, high = np.minimum(self._numbers, sender), np.maximum(self._numbers, sender)
        shadow = c.pole_shadow_db * chance.normal(self._seed, "poles", low, high)
        shadow = shadow + c.pole_asymmetry_db * chance.normal(self._seed, "pole to pole", sender, self._numbers)
        sent = c.pole_sigma_db * float(chance.normal(self._seed, "mouth", sender)[0])
        wall = c.wall_db * (self._side * self._side[k] < 0)
        loss = 10.0 * c.pole_exponent * np.log10(distance)
        result: Floats = c.pole_power_dbm + sent - loss - wall + shadow + self._offset_db
        return np.where(self._numbers == sender, -np.inf, result)

    def listen(self, tag: int, event: int | NDArray[np.int64], mean_dbm: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return (dBm at each reader, whether its radio can read this transmission if it listens).

        tag: number of the sender, negative for a reader. For many events: a column of events, and a row of means for
        each.
        """
        c = self.channel
        k = 10.0 ** (c.rice_k_db / 10.0)
        sigma = math.sqrt(0.5 / (k + 1.0))
        real = math.sqrt(k / (k + 1.0)) + sigma * chance.normal(self._seed, "fade", tag, event, 1, self._numbers)
        imaginary = sigma * chance.normal(self._seed, "fade", tag, event, 2, self._numbers)
        rssi = mean_dbm + 10.0 * np.log10(real * real + imaginary * imaginary)
        margin = (rssi - c.sensitivity_dbm - self.noise_db) / c.edge_db + 4.6  # 99 % are read at the sensitivity
        margin = np.where(rssi < c.sensitivity_dbm + self.noise_db - FLOOR_DB, -np.inf, margin)
        read = (1.0 - c.plateau_loss) / (1.0 + np.exp(-np.maximum(margin, -500.0)))
        return rssi, chance.uniform(self._seed, "read", tag, event, self._numbers) < read

    def _side_of(self, at: Spot) -> float:
        """Return 1 inside the wall, -1 outside, 0 in the gate, on the line or without a wall."""
        if not self._walled or distance_to_edge_m(at, self._walled) < self.channel.gate_m:
            return 0.0
        return 1.0 if inside(at, self._walled) else -1.0

    def _shadow(self, x_m: float, y_m: float) -> Floats:
        """Return normal numbers on a lattice, blended between corners so that their spread is the same everywhere."""
        c = self.channel
        gx, gy = x_m / c.shadow_cell_m, y_m / c.shadow_cell_m
        ix, iy = math.floor(gx), math.floor(gy)
        fx, fy = gx - ix, gy - iy
        total: Floats = np.zeros(len(self._numbers))
        power = 0.0
        for jx, jy, weight in (
            (ix, iy, (1 - fx) * (1 - fy)),
            (ix + 1, iy, fx * (1 - fy)),
            (ix, iy + 1, (1 - fx) * fy),
            (ix + 1, iy + 1, fx * fy),
        ):
            total = total + weight * self._corner(jx, jy)
            power += weight * weight
        result: Floats = c.shadow_sigma_db * total / math.sqrt(power)
        return result

    def _corner(self, jx: int, jy: int) -> Floats:
        known = self._corners.get((jx, jy))
        if known is None:
            if len(self._corners) >= CORNERS_MAX:
                self._corners.clear()
            own = chance.normal(self._seed, "shadow", jx, jy, self._numbers)
            common = chance.normal(self._seed, "shadow of all", jx, jy)
            share = self.channel.shadow_common
            known = self._corners[jx, jy] = math.sqrt(1 - share) * own + math.sqrt(share) * common
        return known


def rssi_of(dbm: float) -> int:
    """Return the RSSI that a radio reports: whole dBm, RSSI_MIN_DBM to RSSI_MAX_DBM."""
    return max(RSSI_MIN_DBM, min(RSSI_MAX_DBM, round(dbm)))
