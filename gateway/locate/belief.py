"""The beliefs of one batch of tags: the filter, the trust between models, and smoothing.

Every model keeps its own belief, and gains trust when it predicts what is heard. A tag's own power is one more unknown.
It is learned from the leftovers: heard level minus expected level. All values are arrays over the tags of one batch.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.locate.hearing import FREEDOM, Hearing
from gateway.locate.space import Space

POWER_DRIFT_DB = 0.05
"""Sd of the change of a tag's power from step to step (usually 1 s): the battery, the way it is worn."""
OTHER_SD_DB = 1.0
"""A tag whose learned power is off by more than the prior's sd is not the expected device. The sd of its power then
keeps a lower limit, which reaches this value at twice the prior's sd. Reason: in the first seconds the believed places
adapt to a wrong power and leave too little of it over. It would be half learned, and then believed for minutes."""
FAULT_KEPT, FAULT_BEGUN = 0.97, 4.0
"""A reader's leftover relative to all others is averaged over about 30 s. The average begins as if the leftover had
been 0 for FAULT_BEGUN s."""
TOO_LOUD_DB, TOO_WEAK_DB = (2.5, 5.0), (1.8, 3.5)
"""A mean leftover up to the first value comes from the place and stays. From the second value on it comes from the
reader and is taken off. A belief moves away from a weak reader, so a reader that is too weak leaves less over than one
that is too loud."""
LASTING_READINGS, NEWS_KEPT, NEWS_BEGUN = 12.0, 0.98, 30.0
"""Leftovers are averaged over LASTING_READINGS readings of a reader, and their squares over about 50 s. In the
beginning `Hearing.temper` holds, and counts as NEWS_BEGUN s. With 10 s the median error near the school's edge was
20.5 m and the 95 % circle held 99 %, with 50 s 18.2 m and 98 %; without a walk test 90 % radii held 88 and 83 %."""
TEMPER_MIN, TEMPER_MAX = 0.03, 0.6
"""Limits of what a second is worth."""
TRUST_KEPT = 0.98
"""Trust is remembered for about 50 s: a model that was wrong at another place may be right here."""
TRUST_MIN = 0.02
TICKS_MAX = 10
"""The most steps that can be looked back."""


@dataclass(slots=True)
class _Tick:
    """One step: what each model believed at its end, and the likelihood of what was heard in it."""

    believed: list[Any]
    likely: list[Any]
    seconds: int


@dataclass(slots=True)
class TagBelief:
    """What is believed of one tag."""

    now: list[Any]
    """float32 [states] of each model."""
    trust: Any
    own: Any
    spread: Any
    faults: Any
    """[2, readers]"""
    apart_s: Any
    """[readers]"""
    lasting_db: Any
    """[readers]"""
    news: Any
    """[2]"""


class Beliefs:
    """The beliefs of a batch of `rows` tags."""

    def __init__(self, space: Space, hearings: Sequence[Hearing], rows: int, *, look_back: int = 3) -> None:
        self.space, self.hearings = space, tuple(hearings)
        self.now = [np.tile(space.prior, (rows, 1)) for _ in hearings]
        self.trust = np.full((rows, len(hearings)), 1 / len(hearings))
        self.own = np.zeros((rows, 2))
        """What is learned of each tag, both relative to the model's value: its power in dB, and the exponent."""
        power_sd_db = max(hearing.power_sd_db for hearing in hearings)
        exponent_sd = max(hearing.exponent_sd for hearing in hearings)
        self._own_prior = np.diag([power_sd_db**2, exponent_sd**2])
        self._own_spread = np.tile(self._own_prior, (rows, 1, 1))
        self._faults = np.zeros((2, rows, len(hearings[0].mean)))
        """Sums of each reader's weighted leftovers and of their weights."""
        self._lasting_db = np.zeros((rows, len(hearings[0].mean)))
        """Running mean of each reader's leftovers."""
        self._news = np.zeros((2, rows))
        """Sums of the squares of the leftovers, and of their running means."""
        self._apart_s = np.full((rows, len(hearings[0].mean)), np.inf)
        """Seconds since each reader heard each tag."""
        self._ticks: deque[_Tick] = deque(maxlen=min(look_back, TICKS_MAX) + 1)

    def forget(self, row: int) -> None:
        """Reset a row for another tag."""
        for belief in self.now:
            belief[row] = self.space.prior
        self.trust[row] = 1 / len(self.hearings)
        self.own[row], self._own_spread[row], self._faults[:, row] = 0.0, self._own_prior, 0.0
        self._apart_s[row] = np.inf
        self._lasting_db[row], self._news[:, row] = 0.0, 0.0
        for tick in self._ticks:
            for believed, likely in zip(tick.believed, tick.likely, strict=True):
                believed[row], likely[row] = self.space.prior, 1.0

    def row(self, row: int) -> TagBelief:
        """Return what is believed of one tag now, without its earlier steps."""
        return TagBelief(
            [belief[row].copy() for belief in self.now],
            self.trust[row].copy(),
            self.own[row].copy(),
            self._own_spread[row].copy(),
            self._faults[:, row].copy(),
            self._apart_s[row].copy(),
            self._lasting_db[row].copy(),
            self._news[:, row].copy(),
        )

    def set_row(self, row: int, known: TagBelief) -> None:
        """Begin a row with what another `Beliefs` believed of its tag.

        If that had another number of models, only the belief of where the tag is comes along: a walk test may end
        between the two.
        """
        self.forget(row)
        self._apart_s[row] = known.apart_s
        self._lasting_db[row], self._news[:, row] = known.lasting_db, known.news
        if len(known.now) != len(self.now):
            mixed = np.tensordot(known.trust.astype(np.float32), np.stack(known.now), 1)
            for belief in self.now:
                belief[row] = mixed
            return
        for belief, taken in zip(self.now, known.now, strict=True):
            belief[row] = taken
        self.trust[row], self.own[row], self._own_spread[row] = known.trust, known.own, known.spread
        self._faults[:, row] = known.faults

    def seconds_back(self, lag: int) -> int:
        """Return how many seconds the last `lag` steps took."""
        return sum(tick.seconds for tick in list(self._ticks)[len(self._ticks) - lag :])

    def step(self, level: Any, packets: Any, silent: Any, seconds: int, power_dbm: Any | None = None) -> None:
        """Let time pass, then take what was heard ([rows, readers], as in `Hearing.log_likelihood`).

        power_dbm [rows]: the power that was taken off the levels; None: the power of the hearings.
        """
        sent_dbm = None if power_dbm is None else np.asarray(power_dbm, float)[:, None]
        self._apart_s += seconds
        apart_s = self._apart_s.copy()
        self._apart_s[packets > 0] = 0.0
        faults = self.faults_db()
        known = self.own[:, :1] + faults
        own = level - known
        evidence = np.zeros((len(level), len(self.hearings)))
        tick = _Tick([], [], seconds)
        left, weight = np.zeros((len(level), 2)), np.zeros((len(level), 2, 2))
        leftover, shares = np.zeros(level.shape), np.zeros(level.shape)
        unlike, temper = np.zeros(level.shape), self.tempers()
        for n, hearing in enumerate(self.hearings):
            belief = self.now[n]
            for _ in range(seconds):
                belief = self.space.walk(belief)
            log, top = hearing.log_likelihood(own, packets, silent, self.own[:, 1], apart_s, temper=temper)
            likely = np.exp(log, out=log)
            if not seconds:
                belief = belief.copy()
            self.space.weigh(belief, likely)
            total = belief.sum(axis=1)
            if (lost := ~(total > 1e-30)).any():  # no state explains it: begin again from what is heard
                anew = np.tile(self.space.prior, (int(lost.sum()), 1))
                self.space.weigh(anew, likely[lost])
                anew[~(anew.sum(axis=1) > 1e-30)] = self.space.prior  # it points to where no tag can be
                belief[lost] = anew
                total[lost] = anew.sum(axis=1)
            belief /= total[:, None]
            evidence[:, n] = np.log(total) + top
            self.now[n] = belief
            tick.believed.append(belief)
            tick.likely.append(likely)
            share, off, slope = self._leftover(hearing, belief, own, packets, known, sent_dbm)
            share *= self.trust[:, n, None]
            pulls, turns = share * off, share * slope
            left += np.stack([pulls.sum(axis=1), (pulls * slope).sum(axis=1)], axis=1)
            cross = turns.sum(axis=1)
            weight += np.stack([share.sum(axis=1), cross, cross, (turns * slope).sum(axis=1)], axis=1).reshape(-1, 2, 2)
            unlike += self.trust[:, n, None] * off
            leftover += pulls + share * faults
            shares += share
        self._ticks.append(tick)
        self._weigh_news(unlike, packets > 0)
        self._trust(evidence)
        self._learn(left * temper, weight * temper[:, :, None])
        self._faults = FAULT_KEPT**seconds * self._faults + np.stack([leftover, shares])

    def by_cell(self) -> Any:
        """Return what is believed now, [rows, cells]."""
        return self._mixed(self.now)

    def smoothed(self, lag: int) -> Any | None:
        """Return what is now believed of `lag` steps ago, [rows, cells]; None too soon after the start."""
        if lag >= len(self._ticks):
            return None
        ticks = list(self._ticks)[-1 - lag :]
        beliefs = []
        for n, believed in enumerate(ticks[0].believed):
            later = np.ones_like(believed)
            for tick in ticks[:0:-1]:
                self.space.weigh(later, tick.likely[n])
                for _ in range(tick.seconds):
                    later = self.space.recall(later)
            whole = believed * later
            whole /= whole.sum(axis=1, keepdims=True)
            beliefs.append(whole)
        return self._mixed(beliefs)

    def _mixed(self, beliefs: Sequence[Any]) -> Any:
        if len(beliefs) == 1:
            return self.space.by_cell(beliefs[0])
        trust = self.trust.astype(np.float32)
        mixed = trust[:, 0, None] * self.space.by_cell(beliefs[0])
        for n in range(1, len(beliefs)):
            mixed += trust[:, n, None] * self.space.by_cell(beliefs[n])
        return mixed

    def _trust(self, evidence: Any) -> None:
        if evidence.shape[1] == 1:
            return
        log = TRUST_KEPT * np.log(self.trust) + evidence
        trust = np.exp(log - log.max(axis=1, keepdims=True))
        trust /= trust.sum(axis=1, keepdims=True)
        self.trust = (1 - TRUST_MIN) * trust + TRUST_MIN / trust.shape[1]

    def faults_db(self) -> Any:
        """Return by how many dB each reader hears each tag relative to all others; 0 where the place may explain it."""
        total, weight = self._faults
        mean = total / (weight + FAULT_BEGUN / self.hearings[0].usual_db2)
        (loud, all_loud), (weak, all_weak) = TOO_LOUD_DB, TOO_WEAK_DB
        loud_share, weak_share = (mean - loud) / (all_loud - loud), (-mean - weak) / (all_weak - weak)
        return mean * np.clip(np.maximum(loud_share, weak_share), 0.0, 1.0)

    def _leftover(
        self, hearing: Hearing, belief: Any, level: Any, packets: Any, known: Any, sent_dbm: Any | None
    ) -> tuple[Any, Any, Any]:
        """Return what is left over between heard and expected: weights, differences, slopes; each [rows, readers].

        known [rows, readers]: what was taken off the level for the tag's own power and the reader's fault. sent_dbm:
        what was taken off as the power that the tag states.
        """
        looks = self.space.by_look(belief)
        slope = looks @ hearing.slope.T
        heard = packets > 0
        expected = looks @ hearing.mean.T + self.own[:, 1:] * slope
        off = np.where(heard, level - expected - hearing.lift_db(expected + known, sent_dbm), 0.0)
        share = heard / hearing.usual_db2 / (1 + off**2 / hearing.usual_db2 / FREEDOM)
        return share, off, slope

    def tempers(self) -> Any:
        """Return what a second's readings of each tag are worth as news, [rows, 1].

        Errors of a place last: n seconds of leftovers that are alike say no more than one. So the squares of the
        leftovers' running means are compared with what they would be if each second were new. Where a tag moves
        through changing shadows they differ little; where it stands in one they differ by a factor of ten.
        """
        usual = float(np.median(self.hearings[0].usual_db2))
        fresh = 1 / (2 * LASTING_READINGS - 1)
        now, lasting = self._news + NEWS_BEGUN * usual * np.array([[1.0], [fresh / self.hearings[0].temper]])
        return np.clip(fresh * now / lasting, TEMPER_MIN, TEMPER_MAX)[:, None]

    def _weigh_news(self, off: Any, heard: Any) -> None:
        off = off / (1 + off**2 / self.hearings[0].usual_db2 / FREEDOM)  # what is far off shows nothing that lasts
        self._lasting_db += np.where(heard, (off - self._lasting_db) / LASTING_READINGS, 0.0)
        count = np.maximum(heard.sum(axis=1), 1)
        squares = np.stack([np.where(heard, each**2, 0.0).sum(axis=1) / count for each in (off, self._lasting_db)])
        self._news = np.where(heard.any(axis=1), NEWS_KEPT * self._news + squares, self._news)

    def _learn(self, left: Any, weight: Any) -> None:
        """Do a Kalman step of each tag's own power and exponent."""
        other = np.clip(np.abs(self.own[:, 0]) / self._own_prior[0, 0] ** 0.5 - 1.0, 0.0, 1.0)
        power = self._own_spread[:, 0, 0] + POWER_DRIFT_DB**2
        self._own_spread[:, 0, 0] = np.maximum(power, (other * OTHER_SD_DB) ** 2)
        self._own_spread = _inverse(_inverse(self._own_spread) + weight)
        self.own += np.einsum("tij,tj->ti", self._own_spread, left)


def _inverse(of: Any) -> Any:
    """Return the inverses of [rows, 2, 2]."""
    a, b, c, d = of[:, 0, 0], of[:, 0, 1], of[:, 1, 0], of[:, 1, 1]
    return np.stack([d, -b, -c, a], axis=1).reshape(-1, 2, 2) / (a * d - b * c)[:, None, None]
