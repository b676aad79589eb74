"""A rougher air for recorded walks: what a real place adds to the law, the shadowing and the fading of `WalkAir`.

multipath   partly fixed in space, on one channel or a few: whoever stands still keeps its luck, good or bad
obstacles   parked cars and trees: a link through one is weaker, by its height there and its depth
companions  people who walk or stand beside the wearer: readers behind them are heard less, for a while
body        besides the cosine, a deeper dip behind (in front of a bag)
changes     since the survey: shadowing partly another one, obstacles moved, one reader's gain or place
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import chance
from sim.chance import Floats
from sim.walks.channel import WAVES, Ints, WalkAir, WalkChannel, smooth

WAVELENGTH_M = 0.122
"""Of 2.45 GHz."""
SCATTERERS = 24
"""Waves that arrive from all around: enough for Rayleigh statistics within a few per cent."""
SWAY_S = 4.0
"""A standing person sways with about this period; uncalibrated."""
COMPANION_RAD, COMPANION_M = 0.45, 0.7
"""Half the angle that a person hides at COMPANION_M, arm's length: 0.2 m half width and the soft edge; uncalibrated."""
COMPANION_S = 25.0
"""A companion changes sides, comes or goes in about this time; uncalibrated."""
SHADOW_KINDS = ("exponential", "gaussian")


@dataclass(frozen=True, slots=True)
class Roughness:
    """Numbers of one site. All zero: the air is `WalkAir`'s. "uncalibrated": no measurement is known to us."""

    channels: int = 3
    """1: 802.15.4 on one channel; a level differs by 4.8-7.1 dB (sd) from channel to channel at one place (Rennes).
    3: advertising channels of BLE, of which a scanner hears one at a time."""
    frozen: float = 0.0
    """Share of the scattered power that is fixed in space. Rennes, an empty building: over 0.99, 0.2-0.3 dB within a
    channel. With people about: uncalibrated."""
    sway_m: float = 0.0
    """Spread of a tag's small movements on a person who stands; uncalibrated."""
    companions: int = 0
    companion_db: float = 0.0
    """Loss behind one person, half a metre from the tag: 3 to 8 dB, uncalibrated (bodies: 6 dB mean, Girolami)."""
    dip_db: float = 0.0
    """More loss within `dip_rad` of straight behind the body: up to 20 dB for a tag against the skin (published)."""
    dip_rad: float = 0.6
    shadow: str = "exponential"
    """Correlation of the shadowing over distance, "exponential" or "gaussian" (smooth over short ways)."""
    moved: float = 0.0
    """Share of the shadowing's variance that is another one than in the survey: furniture, cars, leaves. Maps of
    recorded sites miss routes off the survey by 4.8-5.4 dB; the share itself is uncalibrated."""


OBSTACLE_COLUMNS = 6
"""x, y, radius, lowest and highest point in metres, loss in dB through the middle: a row of `RoughAir.obstacles`."""


class RoughAir(WalkAir):
    """`WalkAir` of one site on one day.

    obstacles: rows of OBSTACLE_COLUMNS. gain_db (K,): added to each reader, a fault since the survey.
    """

    def __init__(
        self,
        seed: int,
        readers_m: Floats,
        tag_height_m: float,
        channel: WalkChannel,
        roughness: Roughness,
        *,
        obstacles: Floats | None = None,
        gain_db: Floats | None = None,
    ) -> None:
        super().__init__(seed, readers_m, tag_height_m, channel)
        self.roughness = roughness
        self.obstacles: Floats = np.zeros((0, OBSTACLE_COLUMNS)) if obstacles is None else obstacles
        if gain_db is not None:
            self.offset_db = self.offset_db + gain_db

    def mean_dbm(self, xy_m: Floats, heading: Floats) -> Floats:
        """Return the level without fading and companions: see `WalkAir.mean_dbm`."""
        level = super().mean_dbm(xy_m, heading)
        if self.roughness.dip_db and self.channel.body_db:
            towards = self._bearing(xy_m) - heading[:, None] + (math.pi if self.channel.body_db > 0 else 0.0)
            level = level - self.roughness.dip_db * _lobe(towards, self.roughness.dip_rad)
        result: Floats = level - self._through_db(xy_m)
        return result

    def listen(
        self, tag: str, t_s: Floats, xy_m: Floats, heading: Floats, offset_db: float = 0.0
    ) -> tuple[Ints, Ints, Floats]:
        """Return what is received of packets sent at t_s: (packet, reader, dBm), see `WalkAir.hear`."""
        level = self.level_dbm(xy_m, heading) + offset_db - self._companions_db(tag, t_s, xy_m)
        packet: Ints = np.arange(len(t_s), dtype=np.int64)[:, None]
        free = math.sqrt(1.0 - self.roughness.frozen)
        real, imaginary = (free * self.packet_fading(tag, packet, part) for part in (1, 2))
        if self.roughness.frozen > 0:
            field = math.sqrt(self.roughness.frozen) * self._field(tag, t_s, xy_m)
            real, imaginary = real + field.real, imaginary + field.imag
        return self.receive(tag, level + self.fading_db(real, imaginary))

    def _shadow(self, reader: int, xy_m: Floats) -> Floats:
        then = self._wave_sum("", reader, xy_m)
        if (moved := self.roughness.moved) <= 0:
            return then
        result: Floats = math.sqrt(1.0 - moved) * then + math.sqrt(moved) * self._wave_sum(" since", reader, xy_m)
        return result

    def _wave_sum(self, when: str, reader: int, xy_m: Floats) -> Floats:
        key, phases = "wave" + when, "phase" + when
        if self.roughness.shadow == "exponential":
            return self.shadow(key, phases, reader, xy_m)
        wave: Ints = np.arange(WAVES, dtype=np.int64)  # a normal spectrum gives exp(-(r / D)^2 / 2)
        number = np.stack([chance.normal(self._seed, key, reader, wave, axis) for axis in (1, 2)]) / self.channel.slow_m
        phase = 2.0 * np.pi * chance.uniform(self._seed, phases, reader, wave)
        result: Floats = np.cos(xy_m @ number + phase).sum(1) * math.sqrt(2.0 / WAVES)
        return result

    def _bearing(self, xy_m: Floats) -> Floats:
        to = self.readers_m[None, :, :2] - xy_m[:, None]
        result: Floats = np.arctan2(to[..., 1], to[..., 0])
        return result

    def _through_db(self, xy_m: Floats) -> Floats:
        """Return what obstacles take from each link (N, K): the chord's loss, where the link is at their height."""
        loss = np.zeros((len(xy_m), len(self.readers_m)))
        rise = self.readers_m[:, 2] - self.tag_height_m
        to = self.readers_m[None, :, :2] - xy_m[:, None]
        length2 = np.maximum((to**2).sum(-1), 1e-6)
        for x, y, radius_m, low_m, high_m, db in self.obstacles:
            off = np.array([x, y]) - xy_m
            share = np.clip((to * off[:, None]).sum(-1) / length2, 0.0, 1.0)
            gap2 = ((share[..., None] * to - off[:, None]) ** 2).sum(-1)
            height_m = self.tag_height_m + share * rise
            within = (gap2 < radius_m**2) & (height_m > low_m) & (height_m < high_m)
            loss += np.where(within, db * np.sqrt(np.maximum(1.0 - gap2 / radius_m**2, 0.0)), 0.0)
        return loss

    def _companions_db(self, tag: str, t_s: Floats, xy_m: Floats) -> Floats:
        """Return the loss behind people beside the wearer (N, K). Each is there half of the time."""
        loss = np.zeros((len(t_s), len(self.readers_m)))
        bearing = self._bearing(xy_m)
        for each in range(self.roughness.companions):
            key = f"{tag} companion {each}"
            side = 2.0 * math.pi * chance.one(self._seed, key, "side") + smooth(t_s / COMPANION_S, self._seed, key)
            there = smooth(t_s / COMPANION_S, self._seed, key + " there") > 0
            loss += self.roughness.companion_db * there[:, None] * _lobe(bearing - side[:, None], COMPANION_RAD)
        return loss

    def _field(self, tag: str, t_s: Floats, xy_m: Floats) -> NDArray[np.complex128]:
        """Return the scattered field at places (N, 2) for each packet's channel and each reader, parts of spread 1."""
        sway = [self.roughness.sway_m * smooth(t_s / SWAY_S, self._seed, f"{tag} sway {axis}") for axis in (0, 1)]
        at = xy_m + np.stack(sway, axis=1)
        wave: Ints = np.arange(SCATTERERS, dtype=np.int64)
        packet: Ints = np.arange(len(t_s), dtype=np.int64)
        field = np.zeros((len(t_s), len(self.readers_m)), dtype=np.complex128)
        for k in range(len(self.readers_m)):
            on = (chance.uniform(self._seed, "channel", tag, packet, k) * self.roughness.channels).astype(np.int64)
            for number in range(self.roughness.channels):
                angle, phase = (
                    2.0 * np.pi * chance.uniform(self._seed, what, k, number, wave) for what in ("from", "with phase")
                )
                along = np.stack([np.cos(angle), np.sin(angle)]) * (2.0 * np.pi / WAVELENGTH_M)
                rows = np.flatnonzero(on == number)
                field[rows, k] = np.exp(1j * (at[rows] @ along + phase)).sum(1) * math.sqrt(2.0 / SCATTERERS)
        return field


def _lobe(angle: Floats, half: float) -> Floats:
    """Return 1 straight ahead, 0 from the angle `half` on, round between."""
    result: Floats = np.clip((np.cos(angle) - math.cos(half)) / (1.0 - math.cos(half)), 0.0, 1.0)
    return result
