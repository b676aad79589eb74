"""Who follows a child: the strongest matching of old ids to new ids that we could think of.

A clue compares every old id with every new one: a matrix of numbers. What a number is worth is learned on streets where
the answer is known: how often true pairs and wrong pairs have it. Only clues that tell the two apart beyond chance are
kept. Their log likelihood ratios are summed, and the pairs with the largest sum are chosen, once each for itself and
once as an assignment that uses every new id once. Streets on which it is judged are others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from readers.advertisement import EPOCH_S
from sim.street.tag import BEACON_S
from tests.bench._strangers import Ids, Rhythm

TAILS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)

Clue = Callable[["Seen", Any, Any], Any]
"""Compares the old ids `i` with the new ids `j`, two arrays of rows that broadcast."""


@dataclass(frozen=True)
class Seen:
    """What a follower has: all that was heard of a few epochs before, and of one later. Rows are the same tags."""

    before: Sequence[Ids]
    after: Ids
    rhythm: Rhythm

    @property
    def last(self) -> Ids:
        return self.before[-1]


def byte_clues() -> dict[str, Clue]:
    """Every byte of the old id's last packet with every byte of the new id's first: difference, sum, XOR.

    And the beacon counter as 16 bits: does it go on by as many as were sent meanwhile?
    """

    def clue(p: int, q: int, op: str) -> Clue:
        def compare(seen: Seen, i: Any, j: Any) -> Any:
            a, b = seen.last.last[i, p], seen.after.first[j, q]
            return ((b - a) if op == "-" else (b + a) if op == "+" else b ^ a) & 0xFF

        return compare

    def goes_on(seen: Seen, i: Any, j: Any) -> Any:
        sent = np.round(_between(seen, i, j) / seen.last.interval_s[i]).astype(int)
        return np.minimum((_word(seen.after.first)[j] - _word(seen.last.last)[i] - sent + 128) % 65536, 256)

    def begins(seen: Seen, i: Any, j: Any) -> Any:
        """Where the counter begins in the old id against where it begins in the new."""
        return (_word(seen.after.first)[j] - _word(seen.last.first)[i]) % 65536 >> 8

    found = {f"byte {p} {op} {q}": clue(p, q, op) for p in range(25) for q in range(25) for op in "-+^"}
    return {**found, "count goes on": goes_on, "count begins": begins}


def moving_clues() -> dict[str, Clue]:
    """The one flag in clear that lives on: its state at the change, and a child's habits."""

    def state(seen: Seen, i: Any, j: Any) -> Any:
        return (2 * seen.last.moving[i, 1] + seen.after.moving[j, 0]).astype(int)

    def habit(seen: Seen, i: Any, j: Any) -> Any:
        return _nearness(seen, 2, i, j)

    def pace(seen: Seen, i: Any, j: Any) -> Any:
        return _nearness(seen, 3, i, j)

    return {"moving": state, "moving share": habit, "moving changes": pace}


def timing_clues() -> dict[str, Clue]:
    """When an id was last heard, when one was first heard, and at which rhythm."""

    def phase(seen: Seen, i: Any, j: Any) -> Any:
        """Log likelihood that the new id's first packet is one of the old id's series, against any phase."""
        jitter_s = seen.rhythm.jitter_s
        gap_s, mean_s, spread_s = _between(seen, i, j), BEACON_S + jitter_s / 2, jitter_s / 12**0.5
        found = np.full(gap_s.shape, 1e-12)
        nearest = np.maximum(np.round(gap_s / mean_s), 1)
        for n in (nearest - 1, nearest, nearest + 1):
            sigma = spread_s * np.sqrt(np.maximum(n, 1))
            found += np.where(n >= 1, np.exp(-(((gap_s - n * mean_s) / sigma) ** 2) / 2) / sigma, 0.0)
        return np.log(found)

    def clock(seen: Seen, i: Any, j: Any) -> Any:
        """Log likelihood that one error of the clock explains all moments of both ids, against two errors."""
        rhythm = seen.rhythm
        o = np.linspace(-5 * rhythm.clock_s, 5 * rhythm.clock_s, 401)
        prior = np.exp(-((o / rhythm.clock_s) ** 2) / 2)
        prior /= prior.sum()
        old = np.prod([_moments(ids, o, rhythm) for ids in seen.before], axis=0)
        new = _moments(seen.after, o, rhythm)
        joint = np.log((old * prior) @ new.T + 1e-300)
        return (joint - np.log(old @ prior)[:, None] - np.log(new @ prior)[None, :])[i, j]

    def crystal(seen: Seen, i: Any, j: Any) -> Any:
        """Log likelihood that one crystal made both intervals, against two crystals."""
        rhythm = seen.rhythm
        mean_s = BEACON_S + rhythm.jitter_s / 2
        noise = rhythm.jitter_s / 12**0.5 / mean_s / np.sqrt(seen.after.packets.mean())
        if rhythm.step_s:
            mean_s, noise = 1.0, 2e-9
        own = 1e-6 * rhythm.clock_ppm
        x = (np.mean([ids.interval_s for ids in seen.before], axis=0) / mean_s - 1)[i]
        y = (seen.after.interval_s / mean_s - 1)[j]
        vx, vy = own**2 + noise**2 / len(seen.before), own**2 + noise**2
        joint = (vy * x**2 - 2 * own**2 * x * y + vx * y**2) / (vx * vy - own**4)
        return (x**2 / vx + y**2 / vy - joint) / 2

    def order(seen: Seen, i: Any, j: Any) -> Any:
        return np.abs(_rank(seen.last.last_s)[i] - _rank(seen.after.first_s)[j])

    def reverse(seen: Seen, i: Any, j: Any) -> Any:
        return _rank(seen.last.last_s)[i] + _rank(seen.after.first_s)[j]

    def packets(seen: Seen, i: Any, j: Any) -> Any:
        return np.abs(seen.last.packets[i] - seen.after.packets[j])

    return {
        "silence": _between, "phase": phase, "clock": clock, "crystal": crystal, "order": order,
        "reverse order": reverse, "packets": packets,
    }  # fmt: skip


def level_clues() -> dict[str, Clue]:
    """Where the old id was last heard and where the new one is first heard: mean levels at three sniffers."""

    def level(seen: Seen, i: Any, j: Any) -> Any:
        return ((seen.last.last_dbm[i] - seen.after.first_dbm[j]) ** 2).sum(axis=-1)

    return {"level": level}


class Follower:
    """Learns what clues are worth, then links."""

    def __init__(self, clues: dict[str, Clue], known: Sequence[Seen]) -> None:
        self.worth: dict[str, tuple[Clue, Any, Any]] = {}
        i = np.arange(len(known[0].after.first_s))
        j = np.stack([(i + by) % len(i) for by in range(6)])
        sigmas = 6.0 if len(clues) > 100 else 3.0
        for name, clue in clues.items():
            pairs = np.concatenate([clue(seen, i, j) for seen in known], axis=1)
            found = _worth(pairs[0], pairs[1:].ravel(), sigmas)
            if found is not None:
                self.worth[name] = (clue, *found)

    def scores(self, seen: Seen) -> Any:
        """Return the log likelihood ratio of every pair: a row for each old id, a column for each new one."""
        i = np.arange(len(seen.after.first_s))
        total = np.zeros((len(i), len(i)))
        for clue, edges, ratios in self.worth.values():
            total += ratios[_bins(clue(seen, i[:, None], i[None, :]), edges)]
        return total


def links(scores: Any, rng: Any) -> tuple[int, int]:
    """Return how many links are right: each old id with its best new one, and as an assignment. Ties are drawn."""
    n = len(scores)
    shuffled = rng.permutation(n)  # so that no tie is broken in the order of the truth
    mixed, truth = (scores + rng.uniform(0, 1e-6, (n, n)))[:, shuffled], np.argsort(shuffled)
    each = int((mixed.argmax(axis=1) == truth).sum())
    return each, int((linear_sum_assignment(mixed, maximize=True)[1] == truth).sum())


def _worth(true: Any, wrong: Any, sigmas: float) -> tuple[Any, Any] | None:
    """Return (edges of bins, log likelihood ratio of each bin); None if true pairs look like wrong ones."""
    if np.issubdtype(true.dtype, np.integer):
        edges = np.arange(0.5, max(true.max(), wrong.max()) + 1)
    else:
        edges = np.unique(np.quantile(wrong, [*(1 - t for t in reversed(TAILS)), *np.linspace(0.1, 0.9, 17), *TAILS]))
    bins = len(edges) + 1
    t = np.bincount(_bins(true, edges), minlength=bins).astype(float)
    w = np.bincount(_bins(wrong, edges), minlength=bins).astype(float)
    expected = (t + w) * len(true) / (len(true) + len(wrong))
    used = t + w > 0
    spread = expected[used] * len(wrong) / (len(true) + len(wrong))
    chi, free = float(((t - expected)[used] ** 2 / spread).sum()), max(int(used.sum()) - 1, 1)
    if chi - free < sigmas * (2 * free) ** 0.5 + sigmas:
        return None
    share = (w + 1) / (w.sum() + bins)
    return edges, np.log((t + 2 * share * bins) / (t.sum() + 2 * bins) / share)


def _bins(values: Any, edges: Any) -> Any:
    return np.searchsorted(edges, values, side="right")


def _between(seen: Seen, i: Any, j: Any) -> Any:
    return seen.after.first_s[j] - seen.last.last_s[i]


def _nearness(seen: Seen, column: int, i: Any, j: Any) -> Any:
    """Both ranks in twelfths: a number from 0 to 143."""
    known = _twelfth(np.mean([ids.moving[:, column] for ids in seen.before], axis=0))
    return 12 * known[i] + _twelfth(seen.after.moving[:, column])[j]


def _moments(ids: Ids, o: Any, rhythm: Rhythm) -> Any:
    """Return how likely both moments of each id are for each clock error. An error shows the moment earlier by it."""
    since = ids.first_s[:, None] - ids.epoch * EPOCH_S + o[None, :]
    until = (ids.epoch + 1) * EPOCH_S - ids.last_s[:, None] - o[None, :]
    return _falls(since, rhythm) * _falls(until, rhythm) + 1e-9


def _falls(x: Any, rhythm: Rhythm) -> Any:
    """Density of a moment x after (before) the change: uniform over the silence, then within one interval."""
    return np.clip(np.minimum(x, rhythm.silent_s + BEACON_S - x), 0, BEACON_S)


def _word(packets: Any) -> Any:
    return packets[:, 11] << 8 | packets[:, 12]


def _rank(values: Any) -> Any:
    return np.argsort(np.argsort(values))


def _twelfth(values: Any) -> Any:
    return 12 * _rank(values) // len(values)
