"""A simulated street and the Cramer-Rao bound of its readings: how much of their information an estimator uses.

Readers 3.5 m high every 30 m, on one side of the footpath or on both; a tag at 1 m on the path, heard within 60 m, one
reading per reader and second. The place across the street is known, the place along it is estimated. The readings are
drawn as the bound assumes: normal in dB about the law, independent between readers and seconds. p0, n and the spread
are fitted on held-out readings, for the bound and for the estimators.

Bound of one second: rms = sqrt(mean(1 / J)), J = sum over readers heard of ((10 n / ln 10) (x - x_k) / d_k^2 / s)^2.
Efficiency = bound rms / RMSE over the same seconds. Two things are outside the bound and can lift it above 1. One is
which readers are silent: `plain_silence` uses it. The other plain estimators do not, so they mistake one side of a pole
for the other, which no local bound includes. The second, for a filter, is the other seconds. Shadowing that is fixed in
space changes nothing for a single second; but the seconds of a walk then err alike, and the filter's error shows it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import chance
from sim.walks.channel import WalkAir, WalkChannel
from tests.bench import _ours

Floats = NDArray[np.float64]

SEED = 7
SPACING_M, READERS, REACH_M, HEIGHT_M, TAG_HEIGHT_M = 30.0, 9, 60.0, 3.5, 1.0
LENGTH_M = SPACING_M * (READERS - 1)
MARGIN_M = 45.0
"""Seconds nearer than this to an end of the street do not count: there the end itself shows where a tag is."""
LATERALS_M = (1.0, 3.0, 5.0)
WIDTH_M = 10.0
"""Distance between the two rows of readers; the path is at a distance of LATERALS_M from the near row."""
CHANNELS = ((2.2, 4.0), (2.5, 6.0))
"""Exponent and spread in dB: a street with a clear line of sight, and a crowded one."""
SECONDS = 600
"""For each lateral distance, for the single-second estimators."""
WALKS, SPEED_M_S = 6, 1.2
STEP_M = 0.5
GRID_M: Floats = np.arange(0.0, LENGTH_M + STEP_M / 2, STEP_M)
FREEDOM = 4.0
EDGE_M = 10.0
"""Width of the soft edge that `plain_silence` gives the reach."""


@dataclass(frozen=True)
class Law:
    """Level = p0_dbm - 10 exponent log10(metres), spread sigma_db."""

    p0_dbm: float
    exponent: float
    sigma_db: float


@dataclass(frozen=True)
class Street:
    """Readers along x, the path on y = 0, and the air between."""

    readers_m: Floats
    air: WalkAir

    @classmethod
    def new(cls, sides: int, lateral_m: float, channel: WalkChannel, seed: int) -> "Street":
        rows = [(SPACING_M * i, lateral_m, HEIGHT_M) for i in range(READERS)]
        rows += [(SPACING_M * i, lateral_m - WIDTH_M, HEIGHT_M) for i in range(READERS)] if sides == 2 else []
        readers = np.array(rows)
        return cls(readers, WalkAir(seed, readers, TAG_HEIGHT_M, channel))

    def distance_m(self, x_m: Floats) -> Floats:
        """Return the distance in space from each place on the path to each reader (N, K)."""
        x, y, z = self.readers_m.T
        result: Floats = np.sqrt((x_m[:, None] - x) ** 2 + y**2 + (z - TAG_HEIGHT_M) ** 2)
        return result

    def read(self, x_m: Floats, tag: str) -> Floats:
        """Return one reading per second (row) and reader at the given places, NaN where the reader is out of reach."""
        table = np.full((len(x_m), len(self.readers_m)), np.nan)
        xy = np.stack([x_m, np.zeros(len(x_m))], axis=1)
        level = self.air.mean_dbm(xy, np.zeros(len(x_m)))
        second, reader, dbm = self.air.hear(tag, np.arange(1.0, len(x_m) + 1.0) - 0.5, level)
        table[second, reader] = dbm
        return np.where(self.distance_m(x_m) <= REACH_M, table, np.nan)


def channel(exponent: float, sigma_db: float, slow_m: float) -> WalkChannel:
    """Return a channel with this law and spread and nothing else. slow_m 0: a new shadowing every second."""
    return WalkChannel(
        exponent=exponent, slow_db=sigma_db, slow_m=slow_m, rice_k_db=60.0, body_db=0.0, reader_sigma_db=0.0,
        edge_dbm=-300.0, loss=0.0, quantum_db=0.01,
    )  # fmt: skip


def fit(distance_m: Floats, level_dbm: Floats) -> Law:
    """Return the law by least squares."""
    heard = np.isfinite(level_dbm)
    x = np.stack([np.ones(int(heard.sum())), -10.0 * np.log10(distance_m[heard])], axis=1)
    (p0, n), *_ = np.linalg.lstsq(x, level_dbm[heard], rcond=None)
    return Law(float(p0), float(n), float((level_dbm[heard] - x @ [p0, n]).std()))


def bound_m2(street: Street, law: Law, x_m: Floats, heard: NDArray[np.bool_]) -> Floats:
    """Return the Cramer-Rao bound of the variance along the path for each second, in square metres."""
    slope = 10.0 * law.exponent / math.log(10.0) * (x_m[:, None] - street.readers_m[:, 0]) / street.distance_m(x_m) ** 2
    result: Floats = 1.0 / (np.where(heard, slope / law.sigma_db, 0.0) ** 2).sum(1)
    return result


def log_likelihood(street: Street, law: Law, level_dbm: Floats) -> Floats:
    """Return a plain Student-t log-likelihood of each second on the grid (N, grid)."""
    expected = law.p0_dbm - 10.0 * law.exponent * np.log10(street.distance_m(GRID_M))
    off = np.nan_to_num((level_dbm[:, None] - expected) / law.sigma_db)
    result: Floats = -(FREEDOM + 1.0) / 2.0 * np.log1p(off**2 / FREEDOM).sum(-1)
    return result


def log_silence(street: Street, level_dbm: Floats) -> Floats:
    """Return the log-likelihood of hearing and not hearing on the grid, with a soft edge at the reach (N, grid)."""
    near = 1.0 / (1.0 + np.exp((street.distance_m(GRID_M) - REACH_M) / EDGE_M))
    heard = np.isfinite(level_dbm)[:, None]
    result: Floats = np.where(heard, np.log(near + 1e-3), np.log(1.0 - near + 1e-2)).sum(-1)
    return result


def most_likely_m(log: Floats) -> Floats:
    result: Floats = GRID_M[log.argmax(1)]
    return result


def mean_m(log: Floats) -> Floats:
    weight = np.exp(log - log.max(1, keepdims=True))
    result: Floats = weight @ GRID_M / weight.sum(1)
    return result


def filtered_m(log: Floats) -> Floats:
    """Return the means of a plain forward filter: place on the grid x (walks back, stands, walks on)."""
    reach, spread = round(SPEED_M_S / STEP_M), np.exp(-0.5 * (np.arange(-4, 5) * STEP_M / 0.6) ** 2)
    turning = np.full((3, 3), 0.03) + np.eye(3) * 0.91
    belief = np.full((3, len(GRID_M)), 1.0)
    means = []
    for each in log:
        belief = turning.T @ belief
        moved = [np.roll(belief[i], way * reach) for i, way in enumerate((-1, 0, 1))]
        moved[0][-reach:] = moved[2][:reach] = 0.0
        belief = np.stack([np.convolve(row, spread, mode="same") for row in moved]) + 1e-9
        belief = belief * np.exp(each - each.max())
        belief /= belief.sum()
        means.append(belief.sum(0) @ GRID_M)
    return np.array(means)


def run() -> dict[str, float | int | str]:
    """Return figures in metres; `plain` is the textbook estimator of this file, `ours` the gateway's."""
    figures: dict[str, float | int | str] = {"seed": SEED, "spacing_m": SPACING_M}
    for sides in (1, 2):
        for exponent, sigma_db in CHANNELS:
            label = f"{('one_side', 'both_sides')[sides - 1]}_n{exponent}_s{sigma_db:g}"
            figures |= {f"{label}_{key}": value for key, value in _single(sides, exponent, sigma_db).items()}
            for kind, slow_m in (("white", 0.0), ("shadowing_10m", 10.0)):
                found = _walked(sides, exponent, sigma_db, slow_m)
                figures |= {f"{label}_walk_{kind}_{key}": value for key, value in found.items()}
    for name, value in figures.items():
        print(f"  {name:58} {value}")
    return figures


def _single(sides: int, exponent: float, sigma_db: float) -> dict[str, float]:
    """Score single seconds at random places, all lateral distances together."""
    off: dict[str, list[Floats]] = {"plain_most_likely": [], "plain_mean": [], "plain_silence": [], "ours": []}
    bounds: list[Floats] = []
    for lateral_m in LATERALS_M:
        street = Street.new(sides, lateral_m, channel(exponent, sigma_db, 0.0), SEED)
        n: NDArray[np.int64] = np.arange(SECONDS, dtype=np.int64)
        held_out = LENGTH_M * chance.uniform(SEED, "street held out", sides, n)
        survey = street.read(held_out, "held out")
        law = fit(street.distance_m(held_out), survey)
        x_m = MARGIN_M + (LENGTH_M - 2 * MARGIN_M) * chance.uniform(SEED, "street place", sides, n)
        level = street.read(x_m, "single")
        bounds.append(bound_m2(street, law, x_m, np.isfinite(level)))
        log = log_likelihood(street, law, level)
        off["plain_most_likely"].append(most_likely_m(log) - x_m)
        off["plain_mean"].append(mean_m(log) - x_m)
        off["plain_silence"].append(mean_m(log + log_silence(street, level)) - x_m)
        once = _ours.once_on_path(street.readers_m, TAG_HEIGHT_M, LENGTH_M, held_out, survey)
        off["ours"].append(np.array([once(row) for row in level]) - x_m)
    bound = math.sqrt(float(np.concatenate(bounds).mean()))
    figures = {"bound_m": round(bound, 2)}
    for name, parts in off.items():
        rmse = _rms(np.concatenate(parts))
        figures |= {f"{name}_rmse_m": round(rmse, 2), f"{name}_efficiency": round(bound / rmse, 3)}
    return figures


def _walked(sides: int, exponent: float, sigma_db: float, slow_m: float) -> dict[str, float]:
    """Score walks there and back. Every walk is on another street, so that no single shadowing decides."""
    off: dict[str, list[Floats]] = {"plain_filter": [], "ours_instant": [], "ours_lagged": []}
    bounds: list[Floats] = []
    there = np.arange(0.0, LENGTH_M, SPEED_M_S)
    x_m = np.concatenate([there, there[::-1]])
    scored = (x_m >= MARGIN_M) & (x_m <= LENGTH_M - MARGIN_M)
    for walk in range(WALKS):
        lateral_m = LATERALS_M[walk % len(LATERALS_M)]
        street = Street.new(sides, lateral_m, channel(exponent, sigma_db, slow_m), SEED + walk)
        held_out = LENGTH_M * chance.uniform(SEED, "street held out", walk, np.arange(SECONDS, dtype=np.int64))
        other = Street.new(sides, lateral_m, channel(exponent, sigma_db, slow_m), SEED + 100 + walk)
        survey = other.read(held_out, "held out")  # the law only: not the map of the shadowing of this walk
        law = fit(street.distance_m(held_out), survey)
        level = street.read(x_m, "walk")
        bounds.append(bound_m2(street, law, x_m[scored], np.isfinite(level[scored])))
        off["plain_filter"].append((filtered_m(log_likelihood(street, law, level)) - x_m)[scored])
        ours = _ours.walk_on_path(street.readers_m, TAG_HEIGHT_M, LENGTH_M, held_out, survey, level)
        for name, fixes in ours.items():
            truth = np.interp(fixes[:, 0], np.arange(1.0, len(x_m) + 1.0), x_m)
            inside = (truth >= MARGIN_M) & (truth <= LENGTH_M - MARGIN_M)
            off[f"ours_{name}"].append((fixes[:, 1] - truth)[inside])
    bound = math.sqrt(float(np.concatenate(bounds).mean()))
    figures = {"bound_of_one_second_m": round(bound, 2)}
    for name, parts in off.items():
        rmse = _rms(np.concatenate(parts))
        figures |= {f"{name}_rmse_m": round(rmse, 2), f"{name}_efficiency": round(bound / rmse, 3)}
    return figures


def _rms(off_m: Floats) -> float:
    return math.sqrt(float((off_m**2).mean()))


if __name__ == "__main__":
    run()
