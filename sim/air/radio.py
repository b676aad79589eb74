"""The Bluetooth channel from tags and readers to readers: the level of an advertisement at each, and who can read it.

First version, all in numpy: log-distance loss, shadowing fixed in space, Rician fading per packet, offsets per device,
the body between tag and reader, the school's wall, a soft edge at the sensitivity, and a constant share of losses by
interference (the plateau). Other walls, capture and collisions come with the full channel, in `Air.listen`. Every
random number is a hash of the seed and of what it is for (transmission or place, and reader), so the order of calls
changes nothing.

Numbers: exponent 2.5, between a street in line of sight (2.0-2.2) and a crowd and parked cars (2.7); shadowing 4 dB
over 12 m; K 6 dB; body 2 dB when the child's back faces the reader, 14 dB when the child is between tag and reader;
plateau 8 % (measured networks: 12-30 %). From pole to pole, above people's heads: exponent 2.2, shadowing 3 dB that is
the same in both directions, and 1.5 dB that differ by direction. A patch antenna gains 3 dB on a dipole where it looks
and loses 11 dB behind. None is calibrated on our streets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.zone import direction
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
    patch_gain_db: float = 3.0
    """What a patch antenna hears more than a dipole where it looks."""
    patch_front_back_db: float = 14.0
    """What it hears less behind than ahead, in proportion to (1 - cos) / 2 of the angle off its look. Assumed; data
    sheets say 15 to 25 for a patch in free air, and a wall behind it makes it worse."""
    pole_power_dbm: float = -30.0
    """Level of a reader's own beacon at 1 m: 8 dBm plus 2 dBi minus 40 dB."""
    pole_exponent: float = 2.2
    pole_shadow_db: float = 3.0
    pole_asymmetry_db: float = 1.5
    pole_sigma_db: float = 2.0
    """Spread of the readers' transmitters. The spread of their receivers is `reader_sigma_db`."""


@dataclass(frozen=True, slots=True)
class ReaderEar:
    """A reader as a receiver: its number, position, height and antenna.

    look_deg: where a patch looks, degrees from north, clockwise. deaf_db: what a fault takes from all that it hears.
    """

    number: int
    at: Spot
    height_m: float
    antenna: Literal["dipole", "patch"] = "dipole"
    look_deg: float = 0.0
    deaf_db: float = 0.0


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
        self._patches = np.flatnonzero([ear.antenna == "patch" for ear in ears])
        self._looks: Floats = np.array([direction(ear.look_deg) for ear in ears], np.float64).reshape(-1, 2)
        spread = self.channel.reader_sigma_db * chance.normal(seed, "ear", self._numbers)
        self._offset_db = self.channel.reader_gain_db + spread - np.array([ear.deaf_db for ear in ears])

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
        self._antennas(result, -dx, -dy, self._rise)
        return result

    def means_dbm(self, xy_m: Floats, heading: Floats, tag_offset_db: Floats | float = 0.0) -> Floats:
        """Return `mean_dbm` of many children at once: [n, readers].

        xy_m [n, 2]; heading [n], radians; tag_offset_db [n] or one for all. It is equal to `mean_dbm` but for rounding.
        """
        c = self.channel
        x, y = xy_m[:, 0], xy_m[:, 1]
        dx, dy = self._x - x[:, None], self._y - y[:, None]
        flat2 = dx * dx + dy * dy
        loss = 5.0 * c.exponent * np.log10(np.maximum(1.0, flat2 + self._rise * self._rise))
        away = np.where(flat2 > 0.0, np.sqrt(flat2), 1.0)
        facing = (dx * np.cos(heading)[:, None] + dy * np.sin(heading)[:, None]) / away
        facing = np.where(flat2 > 0.0, facing, np.cos(heading)[:, None])
        result: Floats = self._offset_db - loss - (c.body_max_db - c.body_min_db) * (1.0 + facing) / 2.0
        result += (POWER_DBM - c.body_min_db + np.broadcast_to(tag_offset_db, len(x)))[:, None]
        if self._walled:
            result -= c.wall_db * (self._side * self._sides_of(x, y)[:, None] < 0)
        result += self._shadows(x, y)
        self._antennas(result, -dx, -dy, self._rise)
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
        dx, dy = self._x - self._x[k], self._y - self._y[k]
        self._antennas(result, -dx, -dy, rise)
        if self.ears[k].antenna == "patch":
            result += self._pattern_db(dx * self._looks[k, 0] + dy * self._looks[k, 1], dx, dy, rise)
        return np.where(self._numbers == sender, -np.inf, result)

    def listen(
        self, tag: int | NDArray[np.int64], event: int | NDArray[np.int64], mean_dbm: Floats
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return (dBm at each reader, whether its radio can read this transmission if it listens).

        tag: number of the sender, negative for a reader. For many events: a column of events (and of tags, if there are
        several), and a row of means for each.
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

    def _antennas(self, level_dbm: Floats, dx: Floats, dy: Floats, rise: Floats) -> None:
        """Add what the readers' patch antennas gain. dx, dy [.., readers]: from each reader to the sender, m."""
        for k in self._patches:
            ahead = dx[..., k] * self._looks[k, 0] + dy[..., k] * self._looks[k, 1]
            level_dbm[..., k] += self._pattern_db(ahead, dx[..., k], dy[..., k], rise[k])

    def _pattern_db(self, ahead_m: Floats, dx: Floats, dy: Floats, rise: Floats) -> Floats:
        """Return what a patch hears more than a dipole. ahead_m: how far along its look the other end is."""
        c = self.channel
        cos = ahead_m / np.maximum(np.sqrt(dx * dx + dy * dy + rise * rise), 1e-9)
        result: Floats = c.patch_gain_db - c.patch_front_back_db * (1.0 - cos) / 2.0
        return result

    def _sides_of(self, x: Floats, y: Floats) -> Floats:
        """Return `_side_of` of many places."""
        within = np.zeros(len(x), bool)
        nearest2 = np.full(len(x), np.inf)
        x1, y1 = self._walled[-1]
        for x2, y2 in self._walled:
            ux, uy = x2 - x1, y2 - y1
            if uy:
                within ^= ((y1 > y) != (y2 > y)) & (x < ux / uy * (y - y1) + x1)
            gx, gy = x - x1, y - y1
            part = np.clip((gx * ux + gy * uy) / max(ux * ux + uy * uy, 1e-12), 0.0, 1.0)
            gx, gy = gx - part * ux, gy - part * uy
            np.minimum(nearest2, gx * gx + gy * gy, out=nearest2)
            x1, y1 = x2, y2
        return np.where(nearest2 < self.channel.gate_m**2, 0.0, np.where(within, 1.0, -1.0))

    def _shadows(self, x: Floats, y: Floats) -> Floats:
        """Return `_shadow` of many places: [n, readers]."""
        c = self.channel
        gx, gy = x / c.shadow_cell_m, y / c.shadow_cell_m
        ix, iy = np.floor(gx).astype(np.int64), np.floor(gy).astype(np.int64)
        fx, fy = gx - ix, gy - iy
        x0, y0, wide = int(ix.min()), int(iy.min()), int(iy.max() - iy.min()) + 2
        cells, at = np.unique((ix - x0) * wide + iy - y0, return_inverse=True)
        corners = [
            np.array([self._corner(x0 + int(cell) // wide + a, y0 + int(cell) % wide + b) for cell in cells])
            for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]
        weights = ((1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy)
        total = sum(w[:, None] * corner[at] for w, corner in zip(weights, corners, strict=True))
        power = sum(w * w for w in weights)
        result: Floats = total * (c.shadow_sigma_db / np.sqrt(power))[:, None]
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
