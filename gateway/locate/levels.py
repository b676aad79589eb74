"""What level a reader should hear at each place: a path-loss law and, where a walk test was made, a map.

Law: level = p0[reader] - 10 n log10(distance) + body * cos(bearing to the reader - facing). It is fitted with priors:
any survey helps, and none is needed. Map: the law plus a Gaussian process on the difference between survey and law.
That difference is alike at places near each other. For the share `turned` of its variance, it is alike only at similar
facings too: a walk one way says little of the way back. The law knows the antennas (`gateway.antenna`), and of walls
what was measured. Levels in dBm (or dB above the tag's power), places in metres,
facings in radians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.antenna import gain_db
from gateway.locate.shapes import crossing, side
from gateway.locate.ways import PathLine

EXPONENT, EXPONENT_SD = 2.2, 0.5
"""2.1 in sight (3GPP UMi), 1.4-2.2 measured indoors, 2.5 in a street with a crowd."""
SURVEYED_SD, UNSURVEYED_SD = 0.1, 0.5
"""Sd of a tag's own exponent with a survey, and without one."""
TAG_SD_DB, KIND_SD_DB, UNKNOWN_SD_DB = 2.0, 4.0, 8.0
"""Sd of a tag's power: for the kind that was surveyed, for a known kind, for any kind."""
OFFSET_SD_DB = 3.0
"""Readers differ by 2.2 dB (54 pairs of links, Lille), and by more with the place where they are mounted."""
BODY_DB, BODY_SD_DB, RIG_SD_DB = 3.0, 3.0, 1.5
"""A tag on the chest: 6.1-6.8 dB between facing a reader and facing away (girolami, every split)."""
ANTENNA_SD = 0.3
"""Sd of by how much more or less directed the readers' antennas are than `gateway.antenna` says."""
WALL_SD_DB = 2.0
"""Sd of the loss in a place's wall, with a mean of 0: a wall that is not there is not believed, and of one that is, a
walk test finds most. Wrongly believed walls gave ten false words in sixty episodes at a fence."""
HINGE_M = 5.0
"""Distance at which laws with different exponents have the same level: devices are tried out there."""
P0_DBM, P0_SD_DB = -45.0, 30.0
SIGMA_DB = 6.0
"""Spread around a law that nothing confirms."""
SIGMA_ROWS = 5.0
"""How many survey rows SIGMA_DB counts as: a few rows always lie near a law that is fitted to them."""
DISTANCE_MIN_M = 0.3
CELL_M, FACINGS = 0.4, 8
"""A survey's readings of one reader within a cell and an eighth of a turn are one row."""
ROWS_OF_LAW = 50
"""A survey counts as at most this many independent rows, or as a tenth of its rows if that is more: shadowing makes
neighbours alike."""
ROWS_MAX, ROWS_TRIED = 900, 250
"""The most rows of a reader that its map keeps, and that are used to choose its length."""
LENGTHS_M, TURNED = (1.0, 2.0, 4.0, 8.0), (0.0, 0.3, 0.6)
SPREADS_DB, NUGGETS = (3.0, 3.5, 4.0, 5.0, 6.0, 8.0), (0.67, 0.9)
"""Tried for the sd of the map around the law, and for that of a row around the map relative to it. In simulated streets
2 to 2.5 dB and 0.5 fit the rows better, and the mean error of tags grows by 4 %: the person who walks the test is not
the one who is located."""
SPREAD_DB = 3.5
"""Sd of the map around the law if the rows show none."""
BLOCKS, BLOCK_MIN_M = 36, 1.0
"""Length, share, sd and nugget are chosen by how well the rows of a tile are predicted from all other tiles. Leaving
out single rows prefers longer lengths and surer maps than are good for a walk, because a row's neighbours were measured
by the same person a moment later. With 3 and 2 dB fixed, the map claimed 2.2-2.5 dB off the survey where there were
4.8-5.4 dB."""
GOOD_ENOUGH = 0.015
"""Log-density per row by which a length may be worse than the best and still be chosen."""
KAPPA = 2.0
"""Narrowness in facing: at 50 degrees half of the covariance is gone."""
FREEDOM = 4.0

LevelRows = tuple[Any, Any, Any, Any, Any]
"""xy_m [rows, 2], facing (nan: unknown), reader, level, number of readings."""


@dataclass(frozen=True, slots=True)
class Law:
    """A path-loss law."""

    readers_m: Any
    """float [readers, 3]."""
    tag_height_m: float
    p0_dbm: Any
    """float [readers]: level at 1 m."""
    exponent: float
    body_db: float
    sigma_db: float
    """Spread of a place's mean around the law."""
    look: Any | None = None
    """float [readers]: where antennas look, see `gateway.antenna`; None: all are dipoles."""
    directed: float = 1.0
    """By how much more directed the antennas are than that says."""
    walls: tuple[PathLine, ...] = ()
    """Outlines in which a level may lose something, metres."""
    wall_db: tuple[float, ...] = ()
    """What was measured of that: loss of each of `walls` between a tag and a reader on different sides."""

    def expect(self, xy_m: Any, facing: Any | None = None) -> Any:
        """Return the level [places, readers]. facing [places]: without a body term where nan or None."""
        to = self.readers_m[None, :, :2] - xy_m[:, None]
        rise = self.readers_m[:, 2] - self.tag_height_m
        distance = np.maximum(np.sqrt((to**2).sum(axis=-1) + rise**2), DISTANCE_MIN_M)
        level = self.p0_dbm - 10 * self.exponent * np.log10(distance)
        if facing is not None and self.body_db:
            turned = np.cos(np.arctan2(to[..., 1], to[..., 0]) - np.nan_to_num(facing)[:, None])
            level += self.body_db * np.where(np.isfinite(facing)[:, None], turned, 0.0)
        if self.look is not None:
            level += self.directed * gain_db(-to, self.look)
        for wall, loss_db in zip(self.walls, self.wall_db, strict=True):
            if loss_db:
                level -= loss_db * crossing(side(xy_m, wall)[:, None], side(self.readers_m[:, :2], wall)[None])
        return level

    def steepness(self, xy_m: Any) -> Any:
        """Return the change in dB [places, readers] when the exponent grows by 1 and the level at `HINGE_M` stays."""
        to = self.readers_m[None, :, :2] - xy_m[:, None]
        rise = self.readers_m[:, 2] - self.tag_height_m
        distance = np.maximum(np.sqrt((to**2).sum(axis=-1) + rise**2), DISTANCE_MIN_M)
        return -10 * np.log10(distance / HINGE_M)


@dataclass(frozen=True, slots=True)
class Lawful:
    """A law as a model: one spread everywhere, and less sure the farther a distance is from `HINGE_M`."""

    law: Law
    exponent_sd: float
    power_sd_db: float

    def expect(self, xy_m: Any, facing: Any | None = None) -> tuple[Any, Any]:
        """Return (level, its sd), both [places, readers]."""
        level = self.law.expect(xy_m, facing)
        return level, np.sqrt(self.law.sigma_db**2 + (self.exponent_sd * self.steepness(xy_m)) ** 2)

    def steepness(self, xy_m: Any) -> Any:
        return self.law.steepness(xy_m)


def rows_of(xy_m: Any, heading_deg: Any, reader: Any, level: Any, count: Any) -> LevelRows:
    """Return a survey averaged into rows: one for each cell, facing and reader."""
    known = np.isfinite(heading_deg)
    angle = np.radians(np.nan_to_num(heading_deg))
    sector = np.where(known, np.round(np.nan_to_num(heading_deg) / (360 / FACINGS)) % FACINGS, -1)
    keys = np.column_stack([np.round(xy_m / CELL_M), sector, reader]).astype(np.int64)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    total = np.bincount(group, weights=count)

    def mean(values: Any) -> Any:
        return np.bincount(group, weights=count * values) / total

    middle = np.stack([mean(xy_m[:, 0]), mean(xy_m[:, 1])], axis=1)
    facing = np.where(known[first], np.arctan2(mean(np.sin(angle)), mean(np.cos(angle))), np.nan)
    return middle, facing, reader[first], mean(level), total


def fit_law(
    readers_m: Any,
    tag_height_m: float,
    rows: LevelRows,
    *,
    worn: bool,
    body_db: float | None = None,
    look: Any | None = None,
    walls: Sequence[PathLine] = (),
) -> Law:
    """Return the law fitted to a survey's rows, with a prior for each unknown and Huber's weights. worn: by a body.

    body_db: the mean of the body term's prior; None: `BODY_DB` if worn, else 0. look, walls: as in `Law`.
    """
    xy_m, facing, reader, level, _ = rows
    readers = len(readers_m)
    middle = (BODY_DB if worn else 0.0) if body_db is None else body_db
    at = readers_m[reader]
    to = at[:, :2] - xy_m
    distance = np.maximum(np.sqrt((to**2).sum(axis=1) + (at[:, 2] - tag_height_m) ** 2), DISTANCE_MIN_M)
    turned = np.where(np.isfinite(facing), np.cos(np.arctan2(to[:, 1], to[:, 0]) - np.nan_to_num(facing)), 0.0)
    terms = np.zeros((len(level), 4 + readers + len(walls)))
    terms[:, 0], terms[:, 1], terms[:, 2] = 1.0, -10 * np.log10(distance), turned
    if look is not None:
        terms[:, 3] = gain_db(-to, look[reader])
    terms[np.arange(len(level)), 4 + reader] = 1.0
    for n, wall in enumerate(walls):
        terms[:, 4 + readers + n] = -crossing(side(xy_m, wall), side(readers_m[:, :2], wall)[reader])
    prior = np.concatenate([[P0_DBM, EXPONENT, middle, 1.0], np.zeros(readers + len(walls))])
    body_sd = BODY_SD_DB if worn else RIG_SD_DB
    offsets = np.full(readers, OFFSET_SD_DB), np.full(len(walls), WALL_SD_DB)
    spread = np.concatenate([[P0_SD_DB, EXPONENT_SD, body_sd, ANTENNA_SD], *offsets])
    if not len(level):
        p0_dbm = np.full(readers, P0_DBM)
        return Law(readers_m, tag_height_m, p0_dbm, EXPONENT, middle, SIGMA_DB, look)
    share = max(min(1.0, ROWS_OF_LAW / len(level)), 0.1)
    sigma, weight = 5.0, np.ones(len(level))
    for _ in range(12):
        weighted = terms * (share * weight / sigma**2)[:, None]
        left = weighted.T @ terms + np.diag(1 / spread**2)
        found = np.linalg.solve(left, weighted.T @ level + prior / spread**2)
        off = level - terms @ found
        sigma = _spread(1.4826 * float(np.median(np.abs(off))) + 0.5, len(off))
        weight = np.minimum(1.0, 1.5 * sigma / np.maximum(np.abs(off), 1e-6))
    kept = np.clip(off, -4 * sigma, 4 * sigma)
    sigma_db = _spread(float(kept.std()) + 0.5, len(off))
    p0_dbm, wall_db = found[0] + found[4 : 4 + readers], tuple(map(float, found[4 + readers :]))
    return Law(
        readers_m, tag_height_m, p0_dbm, float(found[1]), float(found[2]), sigma_db, look, float(found[3]),
        tuple(walls), wall_db,
    )  # fmt: skip


def _spread(found_db: float, rows: int) -> float:
    return math.sqrt((SIGMA_ROWS * SIGMA_DB**2 + rows * found_db**2) / (SIGMA_ROWS + rows))


class LevelMap:
    """A law and, for each reader, a Gaussian process on the difference between survey and law."""

    def __init__(self, law: Law, rows: LevelRows) -> None:
        xy_m, facing, reader, level, _count = rows
        expected = law.expect(xy_m, facing)[np.arange(len(level)), reader]
        beside = level - expected
        turned = TURNED if np.isfinite(facing).any() else (0.0,)
        parts = []
        for number in range(len(law.readers_m)):
            mine = np.flatnonzero(reader == number)
            parts.append((xy_m[mine], facing[mine], beside[mine]))
        trials = [(length, part, share) for length in LENGTHS_M for part in turned for share in NUGGETS]
        self.law = law
        self.exponent_sd, self.power_sd_db = SURVEYED_SD, TAG_SD_DB
        tried = [_thinned(part, ROWS_TRIED) for part in parts]
        rows_tried = sum(len(part[2]) for part in tried)
        blocks = [_blocks(part[0]) for part in tried]
        found: dict[tuple[float, float, float, float], float] = {}
        for trial in trials:
            scores = sum(
                (_left_out(*each, *trial) for each in zip(tried, blocks, strict=True)), np.zeros(len(SPREADS_DB))
            )
            found |= {(*trial, spread): float(score) for spread, score in zip(SPREADS_DB, scores, strict=True)}
        # Take the shortest length that is nearly as good as the best: a map with a too short length only knows less.
        good = max(found.values()) - GOOD_ENOUGH * rows_tried
        self.length_m, self.turned, share, self.spread_db = min(
            (each for each in found if found[each] >= good),
            key=lambda each: (each[0], -found[each], abs(each[3] - SPREAD_DB)),
        )
        self.nugget_db = share * self.spread_db
        self._solved = [self._solve(_thinned(part, ROWS_MAX)) for part in parts]

    def expect(self, xy_m: Any, facing: Any | None = None) -> tuple[Any, Any]:
        """Return (level, its sd without the changes from packet to packet), both [places, readers]."""
        known = np.full(len(xy_m), np.nan) if facing is None else facing
        level = self.law.expect(xy_m, facing)
        sd_db = np.full(level.shape, self.spread_db)
        for number, solved in enumerate(self._solved):
            if solved is None:
                continue
            near_m, near_facing, low, pull = solved
            for first in range(0, len(xy_m), 4096):
                part = slice(first, first + 4096)
                like = _covariance(near_m, near_facing, xy_m[part], known[part], self.length_m, self.turned)
                across = low @ like
                level[part, number] += across.T @ pull
                sd_db[part, number] = self.spread_db * np.sqrt(np.maximum(1.0 - (across**2).sum(axis=0), 0.005))
        return level, sd_db

    def steepness(self, xy_m: Any) -> Any:
        """See `Law.steepness`."""
        return self.law.steepness(xy_m)

    def _solve(self, part: tuple[Any, Any, Any]) -> tuple[Any, Any, Any, Any] | None:
        xy_m, facing, beside = part
        if not len(beside):
            return None
        whole = _covariance(xy_m, facing, xy_m, facing, self.length_m, self.turned)
        whole += (self.nugget_db / self.spread_db) ** 2 * np.eye(len(beside))
        low = np.linalg.inv(np.linalg.cholesky(whole))
        return xy_m, facing, low, low @ beside


def _covariance(xy_m: Any, facing: Any, other_m: Any, other_facing: Any, length_m: float, turned: float) -> Any:
    """Return the correlation: exponential in distance. The share `turned` also depends on the facings, averaged
    where one is unknown."""
    gap_m = np.sqrt(np.maximum((xy_m**2).sum(1)[:, None] + (other_m**2).sum(1)[None] - 2 * xy_m @ other_m.T, 0.0))
    like = np.exp(-gap_m / length_m)
    if turned:
        average = math.exp(-KAPPA) * float(np.i0(KAPPA))
        both = np.isfinite(facing)[:, None] & np.isfinite(other_facing)[None]
        angle = np.nan_to_num(facing)[:, None] - np.nan_to_num(other_facing)[None]
        like *= (1 - turned) + turned * np.where(both, np.exp(KAPPA * (np.cos(angle) - 1)), average)
    return like


def _blocks(xy_m: Any) -> list[Any]:
    """Return the indices of the rows in each of about BLOCKS tiles."""
    if not len(xy_m):
        return []
    low, size = xy_m.min(axis=0), np.ptp(xy_m, axis=0)
    side_m = max(math.sqrt(float(size[0] * size[1]) / BLOCKS), float(size.max()) / BLOCKS, BLOCK_MIN_M)
    _, group = np.unique(np.floor((xy_m - low) / side_m).astype(int), axis=0, return_inverse=True)
    return [np.flatnonzero(group.ravel() == n) for n in range(int(group.max()) + 1)]


def _left_out(part: tuple[Any, Any, Any], blocks: Sequence[Any], length_m: float, turned: float, nugget: float) -> Any:
    """Return the sum of each row's log-density (Student's, without its constant) for each of SPREADS_DB, predicted from
    all rows of other blocks."""
    xy_m, facing, beside = part
    if len(beside) < 3 or len(blocks) < 2:
        return np.zeros(len(SPREADS_DB))
    whole = _covariance(xy_m, facing, xy_m, facing, length_m, turned) + nugget**2 * np.eye(len(beside))
    inverse = np.linalg.inv(whole)
    pulled = inverse @ beside
    off2, variance = np.zeros(len(beside)), np.zeros(len(beside))
    for block in blocks:
        own = np.linalg.inv(inverse[np.ix_(block, block)])
        off2[block], variance[block] = (own @ pulled[block]) ** 2, np.diag(own)
    spread2 = variance * np.array(SPREADS_DB)[:, None] ** 2
    return (-0.5 * np.log(spread2) - 0.5 * (FREEDOM + 1) * np.log1p(off2 / spread2 / FREEDOM)).sum(axis=1)


def _thinned(part: tuple[Any, Any, Any], most: int) -> tuple[Any, Any, Any]:
    """Return at most `most` rows of a part, picked evenly."""
    if len(part[2]) <= most:
        return part
    pick = np.linspace(0, len(part[2]) - 1, most).astype(int)
    return part[0][pick], part[1][pick], part[2][pick]
