"""The law of path loss between readers, fitted to what they hear of each other; numpy, no state.

    level[i, j] = P - 10 n log10(d[i, j]) + G[i, j] + g[i] + t[j] - w[i, j] + b[i, j] + a[i, j]     dB

level: what reader i reads of reader j's beacon, minus the power at 1 m that j states. n: exponent. P: what all readers
have in common. G: gain of both antennas towards each other (`gateway.antenna`), known. w: loss in the walls of places
between the two poles, one figure for each wall. g: receive offset of a reader, t: its transmit offset. b: what stands
in the street between two poles, the same both ways (reciprocity), sd 4 dB. a: the difference between the two ways, sd
2 dB (54 links of IoT-LAB Lille: 2.2 dB). So the two directions of a pair are turned into their sum, which has b in it,
and their difference, which has not.

Priors: n 2.5 sd 0.4, g and t 0 sd 2.5 dB with heavy tails (a broken antenna follows no normal law), P 0 sd 10 dB,
w 0 sd 2 dB.
The likelihood has the tails of Student's t with 4 degrees of freedom, by reweighting. What the links do not show stays
at its prior, with the prior's sd. Gauge: the g of all readers that take part sum to 0, and so do the t.

These links run from pole to pole, without a body and without a child's height. So g is valid for tags and P is not. n
is only a hint, because a tag near the ground loses more with distance than a pole does.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXPONENT, EXPONENT_SD = 2.5, 0.4
OFFSET_SD_DB = 2.5
POWER_SD_DB, WALL_SD_DB = 10.0, 2.0
WALLS_MAX = 2
"""The most walls of a link that count; who hears through more of them hears by luck."""
SHADOW_SD_DB, ASYMMETRY_SD_DB = 4.0, 2.0
SD_WORTH = 8.0
"""Each of the two prior sd above counts as this many pairs when it is estimated."""
FREEDOM = 4.0
SURE_DBM = -88.0
"""A pair with an expected level below this is heard only by luck (sensitivity -95 dBm). Its mean is too high: it is not
fitted."""
ROUNDS = 7
NEIGHBOURS_MIN = 3
"""A reader that has links with fewer others cannot be located."""
GRID, FINE_SDS = 33, 4.5
MARGIN_M = 80.0
_GAUSS = 0.7865
"""E[w x^2] of a standard normal x with the weights w of FREEDOM: it turns a scale into a standard deviation."""
_LOST = 1.1
"""Factor of variance that those weights cost if errors are normal, and that the reweighted information hides."""
_P, _N, _FIRST = 0, 1, 2  # indices of P, n and the first g among the parameters


@dataclass(frozen=True, slots=True)
class BeaconLink:
    """One directed pair: `receiver` hears `sender` at level_dbm on average. Both are indices of the fit's positions."""

    receiver: int
    sender: int
    level_dbm: float
    variance_db2: float
    """Variance of that mean, by sampling alone."""
    power_dbm: int
    """The power at 1 m that the sender states."""
    gain_db: float = 0.0
    """What the two antennas add to the level towards each other, by `gateway.antenna`."""
    walls: tuple[tuple[int, float], ...] = ()
    """Walls between the two: their number, and how surely they are between (0..1)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted law. `received_..` and `sent_..` are by reader, in the order of the positions it was fitted with."""

    exponent: float
    exponent_sd: float
    received_db: Any
    received_sd_db: Any
    sent_db: Any
    sent_sd_db: Any
    shadow_db: float
    asymmetry_db: float
    wall_db: Any
    """float [walls]: loss of each wall."""
    links: int
    """Directed pairs that took part."""
    silent: frozenset[int]
    at_m: Any
    all_links: Sequence[BeaconLink]
    rows: "_Rows"
    weights: Any
    information: Any
    right: Any


@dataclass(frozen=True, slots=True)
class LocatedReader:
    """Where the others locate a reader, without the use of its configured position."""

    error_m: float
    """Distance from there to the position it is configured with."""
    expected_m: float
    """What that distance should be by the geometry and the spread of the levels (rms)."""
    deviations: float
    """`error_m` in standard deviations along its own direction."""
    neighbours: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Independent observations: value = sum of coefficients x parameters + error. Each has few parameters."""

    columns: Any
    coefficients: Any
    values: Any
    sampling: Any
    """Variance by sampling, dB2."""
    shadows: Any
    """How many variances of b are in the error: 2 in a sum, 0 in a difference, 1 in a single direction."""
    losses: Any
    """-10 log10 of the distance: the change in dB for one unit of exponent."""
    powers: Any
    """Stated power and antennas' gain, dBm, to compute the level that the law expects."""


def fit(
    at_m: Sequence[tuple[float, float, float]], links: Sequence[BeaconLink], silent: Sequence[int] = (), walls: int = 0
) -> Fit:
    """Return the law for readers at these positions (x, y, height; metres). silent: readers; their links do not count.

    walls: how many walls the links name.

    It never fails because links are missing: with none, it is the prior.
    """
    work = fitting(at_m, links, silent, walls)
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Fit = done.value
            return result


def fitting(
    at_m: Sequence[tuple[float, float, float]], links: Sequence[BeaconLink], silent: Sequence[int] = (), walls: int = 0
) -> Generator[None, None, Fit]:
    """Do what `fit` does in slices of a few milliseconds, one for each `next`."""
    at = np.asarray(at_m, float).reshape(-1, 3)
    readers = len(at)
    rows = _rows(at, links)
    stop = _FIRST + 2 * readers
    size = stop + walls
    counts = np.ones(len(rows.values), bool)
    for k in set(silent):
        counts &= ~_touches(rows, k, readers)
    mean = np.zeros(size)
    mean[_N] = EXPONENT
    precision = np.full(size, OFFSET_SD_DB**-2)
    precision[_P], precision[_N], precision[stop:] = POWER_SD_DB**-2, EXPONENT_SD**-2, WALL_SD_DB**-2
    shadow2, asymmetry2 = SHADOW_SD_DB**2, ASYMMETRY_SD_DB**2
    tail, prior, taken, weights = np.ones(len(rows.values)), precision.copy(), counts, counts
    for turn in range(ROUNDS):
        variance = rows.shadows * shadow2 + asymmetry2 + rows.sampling
        weights = taken * tail / variance
        information = _information(rows.columns, rows.coefficients, weights, size) + np.diag(prior)
        right = _gather(rows.columns, rows.coefficients, weights * rows.values, size) + prior * mean
        theta = np.linalg.solve(information, right)
        residual2 = (rows.values - (rows.coefficients * theta[rows.columns]).sum(axis=1)) ** 2
        if turn in (2, 4):
            free = 1 - weights * _leverage(rows, np.linalg.inv(information))
            over = tail * residual2 / _GAUSS - rows.sampling
            asymmetry2 = _variance(over, free, taken & (rows.shadows == 0), ASYMMETRY_SD_DB)
            share = (over - asymmetry2) / np.maximum(rows.shadows, 1)
            shadow2 = _variance(share, free, taken & (rows.shadows > 0), SHADOW_SD_DB)
            variance = rows.shadows * shadow2 + asymmetry2 + rows.sampling
        tail = (FREEDOM + 1) / (FREEDOM + residual2 / variance)
        offsets = slice(_FIRST, stop)
        prior[offsets] = precision[offsets] * (FREEDOM + 1) / (FREEDOM + theta[offsets] ** 2 * precision[offsets])
        if turn in (1, 3):
            taken = counts & (rows.powers + theta[_P] + theta[_N] * rows.losses >= SURE_DBM)
        yield
    covariance = np.linalg.inv(information)
    used = taken[:, None] & (rows.columns >= _FIRST) & (rows.columns < stop) & (rows.coefficients != 0)
    part = np.isin(np.arange(readers), (rows.columns[used] - _FIRST) % max(readers, 1))
    half = _FIRST + readers
    received, received_sd = _gauged(theta[_FIRST:half], covariance[_FIRST:half, _FIRST:half], part)
    sent, sent_sd = _gauged(theta[half:stop], covariance[half:stop, half:stop], part)
    pairs = int(2 * (taken & (rows.shadows == 0)).sum() + (taken & (rows.shadows == 1)).sum())
    return Fit(
        float(theta[_N]), float(np.sqrt(covariance[_N, _N] * _LOST)), received, received_sd, sent, sent_sd,
        float(np.sqrt(shadow2)), float(np.sqrt(asymmetry2)), theta[stop:], pairs, frozenset(silent), at, links, rows,
        weights, information, right,
    )  # fmt: skip


def locate(law: Fit, k: int) -> LocatedReader | None:
    """Return where the others locate reader k, by the law fitted without it; None with fewer than NEIGHBOURS_MIN.

    Both directions count: what others hear of its beacon and what it hears of theirs. Its own offsets are unknown and
    are estimated. Others that were silent in the fit do not count.
    """
    readers, size = len(law.at_m), len(law.right)
    shut = law.silent - {k}
    mine = [
        (link, link.sender if link.receiver == k else link.receiver)
        for link in law.all_links
        if k in (link.receiver, link.sender) and link.receiver != link.sender
        if link.receiver not in shut and link.sender not in shut
    ]
    others = sorted({other for _, other in mine})
    if len(others) < NEIGHBOURS_MIN:
        return None
    own = _touches(law.rows, k, readers)
    columns, shares, weights = law.rows.columns[own], law.rows.coefficients[own], law.weights[own]
    information = law.information - _information(columns, shares, weights, size)
    right = law.right - _gather(columns, shares, weights * law.rows.values[own], size)
    asked = [*(_FIRST + i for i in others), *(_FIRST + readers + i for i in others)]
    sides = np.zeros((size, 1 + len(asked)))
    sides[:, 0] = right
    sides[asked, np.arange(1, 1 + len(asked))] = 1.0
    solved = np.linalg.solve(information, sides)
    theta, doubts = solved[:, 0], dict(zip(asked, solved[asked, np.arange(1, 1 + len(asked))], strict=True))
    count, place = len(others), {i: n for n, i in enumerate(others)}
    value, doubt = np.full((2, count), np.nan), np.zeros((2, count))
    for link, other in mine:
        way, n = int(link.sender == other), place[other]
        column = _FIRST + other + readers * way
        value[way, n] = link.level_dbm - link.power_dbm - link.gain_db - theta[_P] - theta[column]
        value[way, n] += sum(share * theta[_FIRST + 2 * readers + wall] for wall, share in link.walls)
        doubt[way, n] = doubts[column] + law.asymmetry_db**2 + link.variance_db2
    known = ~np.isnan(value)
    both = known.all(axis=0)
    leans = [0.0]
    if both.any():  # where both ways are heard, they show how its two offsets differ; the common part is unknown
        lean = float(np.median(value[1, both] - value[0, both])) / 2
        value -= np.array([[-lean], [lean]])
        leans = [lean, -lean]
    ways = known.sum(axis=0)
    variance = law.shadow_db**2 + doubt.sum(axis=0) / ways**2
    value = np.nansum(value, axis=0) / ways
    near = law.at_m[others]
    low, high = near[:, :2].min(axis=0) - MARGIN_M, near[:, :2].max(axis=0) + MARGIN_M
    for _ in range(3):  # the whole neighbourhood, then two times only its likely part
        x, y = np.linspace(low[0], high[0], GRID), np.linspace(low[1], high[1], GRID)
        points = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
        belief = _belief(points, float(law.at_m[k, 2]), near, value, variance, float(theta[_N]), leans)
        middle = belief @ points
        off = points - middle
        covariance = (belief[:, None] * off).T @ off
        step = (high - low) / (GRID - 1)
        covariance += np.diag(step**2 / 12)
        reach = FINE_SDS * np.sqrt(np.diag(covariance)) + step
        low, high = np.maximum(low, middle - reach), np.minimum(high, middle + reach)
    gap = middle - law.at_m[k, :2]
    return LocatedReader(
        float(np.hypot(*gap)),
        float(np.sqrt(np.trace(covariance))),
        float(np.sqrt(gap @ np.linalg.solve(covariance, gap))),
        len(others),
    )


def _belief(
    points: Any, height_m: float, near: Any, value: Any, variance: Any, exponent: float, leans: Sequence[float]
) -> Any:
    """Return the posterior over points, sum 1. The common part of the reader's own offsets is fitted at each point."""
    away = near[None, :, :2] - points[:, None, :]
    distance = np.sqrt((away**2).sum(axis=2) + (near[:, 2] - height_m) ** 2 + 1.0)
    left = value + 10 * exponent * np.log10(distance)
    own = left.mean(axis=1)
    for _ in range(4):
        weight = (FREEDOM + 1) / (FREEDOM + (left - own[:, None]) ** 2 / variance) / variance
        top, bottom = (weight * left).sum(axis=1), weight.sum(axis=1)
        for lean in leans:
            loose = (FREEDOM + 1) / (FREEDOM * OFFSET_SD_DB**2 + (own + lean) ** 2)
            top, bottom = top - loose * lean, bottom + loose
        own = top / bottom
    surprise = np.log1p((left - own[:, None]) ** 2 / (FREEDOM * variance)).sum(axis=1)
    for lean in leans:
        surprise += np.log1p((own + lean) ** 2 / (FREEDOM * OFFSET_SD_DB**2))
    belief = np.exp(-0.5 * (FREEDOM + 1) * (surprise - surprise.min()))
    return belief / belief.sum()


def _rows(at: Any, links: Sequence[BeaconLink]) -> _Rows:
    links = [link for link in links if link.receiver != link.sender]
    data = np.array(
        [(x.receiver, x.sender, x.level_dbm - x.gain_db, x.variance_db2, x.power_dbm) for x in links]
    ).reshape(-1, 5)
    gain = np.array([link.gain_db for link in links])
    wall, crossed = np.zeros((len(links), WALLS_MAX), int), np.zeros((len(links), WALLS_MAX))
    for row, link in enumerate(links):
        for n, (number, share) in enumerate(link.walls[:WALLS_MAX]):
            wall[row, n], crossed[row, n] = _FIRST + 2 * len(at) + number, share
    i, j = data[:, 0].astype(int), data[:, 1].astype(int)
    distance = np.sqrt(((at[i] - at[j]) ** 2).sum(axis=1))
    loss, level = -10 * np.log10(np.maximum(distance, 1.0)), data[:, 2] - data[:, 4]
    g, t = _FIRST, _FIRST + len(at)
    place = np.full((len(at), len(at)), -1)
    place[i, j] = np.arange(len(data))
    back = place[j, i]
    lone, one = np.flatnonzero(back < 0), np.flatnonzero((back >= 0) & (i < j))
    two = back[one]
    nothing, both = np.zeros(len(one)), np.full(len(one), np.sqrt(0.5))
    power = np.minimum(data[one, 4], data[two, 4]) + gain[one]
    pair = [nothing + _P, nothing + _N, g + i[one], t + j[one], g + j[one], t + i[one]]
    sums = [2 * both, 2 * both * loss[one], both, both, both, both]
    differences = [nothing, nothing, both, both, -both, -both]
    alone, single = np.zeros(len(lone)), [np.ones(len(lone)), loss[lone], np.ones(len(lone)), np.ones(len(lone))]
    noise = (data[one, 3] + data[two, 3]) / 2
    other = np.stack([alone + _P, alone + _N, g + i[lone], t + j[lone], alone, alone], 1)
    through = np.concatenate([-2 * both[:, None] * crossed[one], 0 * crossed[one], -crossed[lone]])
    shares = np.concatenate([np.stack(sums, 1), np.stack(differences, 1), np.stack([*single, alone, alone], 1)])
    columns = np.concatenate([np.stack(pair, 1), np.stack(pair, 1), other]).astype(int)
    return _Rows(
        np.concatenate([columns, wall[np.concatenate([one, one, lone])]], axis=1),
        np.concatenate([shares, through], axis=1),
        np.concatenate([(level[one] + level[two]) * both, (level[one] - level[two]) * both, level[lone]]),
        np.concatenate([noise, noise, data[lone, 3]]),
        np.concatenate([nothing + 2, nothing, alone + 1]).astype(int),
        np.concatenate([loss[one], loss[one], loss[lone]]),
        np.concatenate([power, power, data[lone, 4] + gain[lone]]),
    )  # fmt: skip


def _touches(rows: _Rows, k: int, readers: int) -> Any:
    return ((rows.columns == _FIRST + k) | (rows.columns == _FIRST + readers + k)).any(axis=1)


def _information(columns: Any, coefficients: Any, weights: Any, size: int) -> Any:
    flat = columns[:, :, None] * size + columns[:, None, :]
    terms = weights[:, None, None] * coefficients[:, :, None] * coefficients[:, None, :]
    return np.bincount(flat.ravel(), terms.ravel(), size * size).reshape(size, size)


def _gather(columns: Any, coefficients: Any, values: Any, size: int) -> Any:
    return np.bincount(columns.ravel(), (coefficients * values[:, None]).ravel(), size)


def _leverage(rows: _Rows, covariance: Any) -> Any:
    """Return the variance of each row's fitted value."""
    parts = covariance[rows.columns[:, :, None], rows.columns[:, None, :]]
    return np.einsum("ni,nij,nj->n", rows.coefficients, parts, rows.coefficients)


def _variance(over: Any, free: Any, taken: Any, prior_sd: float) -> float:
    """Return an error's variance from squared residuals and the freedom that each has left. The prior counts as
    SD_WORTH rows."""
    total = SD_WORTH * prior_sd**2 + float((taken * over).sum())
    return max(total / (SD_WORTH + float((taken * np.maximum(free, 0.0)).sum())), 0.25 * prior_sd**2)


def _gauged(offsets: Any, covariance: Any, part: Any) -> tuple[Any, Any]:
    """Return offsets, relative to their mean for readers that take part, and the sd of all."""
    if not part.any():
        return offsets, np.sqrt(np.diag(covariance))
    to_all = covariance[:, part].mean(axis=1)
    variance = np.diag(covariance) + part * (to_all[part].mean() - 2 * to_all)
    return offsets - part * offsets[part].mean(), np.sqrt(np.maximum(variance, 0.0) * _LOST)
