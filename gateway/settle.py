"""Fixes -> where a tag settled: at a place, moving, uncertain, unseen, not covered, idle; and near a danger or clear.

Two opposite biases. A place is entered and left slowly: evidence is summed over seconds until it is beyond doubt,
because a false "arrived" costs a parent's trust and some seconds cost nothing. A danger is near quickly and clear
slowly, because the other error costs more. Silence says nothing: a tag not heard is "unseen", never "left", and
"not covered" when every reader that heard it last is silent itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway import locate
from gateway.events import PresenceState
from gateway.locate import Field, Fix

UNSEEN_S = 60.0
STILL_S = 600.0
"""A tag that says "not moving" for so long, away from every place, is idle: lost, or on a shelf."""
IN_ODDS, IN_MOST, IN_PROOF = -0.3, 3.0, 34.0
"""Evidence for being inside grows each second by the log-odds of a fix less IN_ODDS, at most IN_MOST, and never under
zero; IN_PROOF is an arrival: 12 s of certainty, 49 s of "60 %". Tuned on the simulated zone (8 readers, 8 seeds of 20
children, 150 s), where a fix errs by 14 m (median) and the yard begins at the gate: none of 32 who never entered
"arrived", the median pupil did 40 s after the gate, nine in ten within 60 s. On 3 fresh seeds (60 children, 120 s) one
who waited before the gate "arrived" 38 s early, and two had not after 65 and 75 s in the yard: this engine's limit."""
OUT_ODDS, OUT_MOST, OUT_PROOF = -2.0, 1.5, 15.0
"""The same for having left, from the other side: only fixes that are sure (log-odds under -2: 12 %) count at all."""
AGAINST_MOST = 3.0
"""One fix speaks at most so much a second against what the evidence says so far."""
STAYS_M, SMOOTH_S = 32.0, 6.0
"""Evidence for an arrival is of one spot: who moved on by so much (smoothed over so long) walks along the fence, or has
yet to come to rest."""
STEP_MAX_S = 3.0
"""A fix stands for the time since the last one, at most this long."""
UNLIKELY = 0.2
"""Below, no evidence for a place begins to be kept."""
GAP_S = 20.0
"""After such a silence the evidence begins anew."""
VAGUE_M = 90.0
"""accuracy_95_m above which "moving" would be a guess."""
HOLD_S = 10.0
"""moving, uncertain and idle take over from each other only after so long."""
NEAR_AT_ONCE, NEAR, NEAR_S, NEAR_FIXES = 0.75, 0.4, 3.0, 3
"""Near: one fix that is sure, or some in a row that say "rather yes". In the same simulation all of 25 who came within
the warning distance were told of, 5 s after it (median), and 6 of 172 who stayed 15 m clear of it were too."""
CLEAR, CLEAR_S, CLEAR_FIXES = 0.12, 15.0, 5
"""Clear again: so unlikely, for so long, in so many fixes in a row."""


@dataclass(frozen=True, slots=True)
class Arrived:
    tag: int
    place: str
    fix: Fix


@dataclass(frozen=True, slots=True)
class Left:
    tag: int
    place: str
    fix: Fix


@dataclass(frozen=True, slots=True)
class Became:
    """A presence changed."""

    tag: int
    state: PresenceState
    place: str | None
    fix: Fix | None


@dataclass(frozen=True, slots=True)
class Danger:
    tag: int
    area: str
    near: bool
    probability: float
    fix: Fix


Change = Arrived | Left | Became | Danger


@dataclass(slots=True)
class _Evidence:
    """How much speaks for a change (in, or out) at one place, over time."""

    at_s: float
    anchor_m: tuple[float, float]
    """Where the tag was when it began."""
    proof: float = 0.0


@dataclass(slots=True)
class _Near:
    """A danger a tag is near, or may be: fixes in a row, and since when, that say otherwise than `alarmed`."""

    at_s: float
    alarmed: bool = False
    fixes: int = 0
    since_s: float = 0.0


@dataclass(slots=True)
class Settled:
    """What is settled of one tag."""

    state: PresenceState = "unseen"
    place: str | None = None
    """The place it is at; kept while it is unseen there."""
    fix: Fix | None = None
    heard_at_s: float = float("-inf")
    about_m: tuple[float, float] | None = None
    """Its fixes, smoothed."""
    next_state: PresenceState = "unseen"
    next_since_s: float = 0.0
    places: dict[str, _Evidence] = field(default_factory=dict)
    near: dict[str, _Near] = field(default_factory=dict)


class Settler:
    """All tags, by their row."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.tags: dict[int, Settled] = {}

    def step(self, tag: int, fix: Fix, still_since_s: float | None, now_s: float) -> Iterator[Change]:
        """Take a fix. still_since_s: since when the tag says it does not move; None: it moves."""
        settled = self.tags.setdefault(tag, Settled())
        about_m = settled.about_m = _smooth(settled.about_m, fix, now_s - settled.heard_at_s)
        settled.fix, settled.heard_at_s = fix, now_s
        yield from self._dangers(tag, settled, fix, now_s)
        best = 0.0
        for place, region in self._field.places.items():
            p = locate.probability(fix, region)
            best = max(best, p)
            evidence = settled.places.get(place)
            if evidence is None:
                if p < UNLIKELY and place != settled.place:
                    continue
                evidence = settled.places[place] = _Evidence(now_s, about_m)
            if place == settled.place:
                if _weigh(evidence, OUT_ODDS - _log_odds(p), OUT_MOST, now_s) >= OUT_PROOF:
                    del settled.places[place]
                    settled.place = None
                    yield Left(tag, place, fix)
                continue
            if math.dist(about_m, evidence.anchor_m) > STAYS_M:
                evidence.anchor_m, evidence.proof = about_m, 0.0
            if _weigh(evidence, _log_odds(p) - IN_ODDS, IN_MOST, now_s) >= IN_PROOF:
                evidence.proof = 0.0
                if settled.place is not None:
                    yield Left(tag, settled.place, fix)
                settled.place = place
                yield Arrived(tag, place, fix)
            elif evidence.proof <= 0.0 and p < UNLIKELY:
                del settled.places[place]
        yield from self._state(tag, settled, self._wanted(settled, fix, best, still_since_s, now_s), now_s)

    def silence(self, now_s: float, is_silent: Callable[[int], bool]) -> Iterator[Change]:
        """Look for tags nobody hears. is_silent(reader) tells whether a reader is."""
        for tag, settled in self.tags.items():
            if now_s - settled.heard_at_s < UNSEEN_S:
                continue
            heard_by = () if settled.fix is None else settled.fix.evidence
            covered = not heard_by or not all(is_silent(heard.reader) for heard in heard_by)
            state: PresenceState = "unseen" if covered else "not_covered"
            if settled.state != state:
                settled.state = settled.next_state = state
                yield Became(tag, state, settled.place if state == "unseen" else None, settled.fix)

    def restore(self, tag: int, state: PresenceState, place: str | None, now_s: float) -> None:
        """Take back what was settled before a restart."""
        if place is not None and place not in self._field.places:
            place = None
        self.tags[tag] = Settled(state, place, heard_at_s=now_s, next_state=state, next_since_s=now_s)

    def restore_near(self, tag: int, area: str, now_s: float) -> None:
        """Take back that a tag is near a danger."""
        self.tags.setdefault(tag, Settled()).near[area] = _Near(now_s, alarmed=True)

    def _wanted(
        self, settled: Settled, fix: Fix, best: float, still_since_s: float | None, now_s: float
    ) -> PresenceState:
        if settled.place is not None:
            return "at"
        if still_since_s is not None and now_s - still_since_s > STILL_S:
            return "idle"
        if fix.accuracy_95_m > VAGUE_M or best >= 0.5:
            return "uncertain"
        return "moving"

    def _state(self, tag: int, settled: Settled, wanted: PresenceState, now_s: float) -> Iterator[Change]:
        if wanted != settled.next_state:
            settled.next_state, settled.next_since_s = wanted, now_s
        at_once = "at" in (wanted, settled.state) or settled.state in ("unseen", "not_covered")
        if wanted != settled.state and (at_once or now_s - settled.next_since_s >= HOLD_S):
            settled.state = wanted
            yield Became(tag, wanted, settled.place, settled.fix)

    def _dangers(self, tag: int, settled: Settled, fix: Fix, now_s: float) -> Iterator[Change]:
        for area, region in self._field.dangers.items():
            p = locate.probability(fix, region)
            near = settled.near.get(area)
            if near is None or not near.alarmed:
                if p <= NEAR:
                    settled.near.pop(area, None)
                    continue
                if near is None or now_s - near.at_s > GAP_S:
                    near = settled.near[area] = _Near(now_s, since_s=now_s)
                near.at_s = now_s
                near.fixes += 1
                if p > NEAR_AT_ONCE or (near.fixes >= NEAR_FIXES and now_s - near.since_s >= NEAR_S):
                    near.alarmed, near.fixes = True, 0
                    yield Danger(tag, area, True, p, fix)
            elif p > CLEAR:
                near.fixes = 0
            else:
                near.since_s = near.since_s if near.fixes else now_s
                near.fixes += 1
                if near.fixes >= CLEAR_FIXES and now_s - near.since_s >= CLEAR_S:
                    del settled.near[area]
                    yield Danger(tag, area, False, p, fix)


def _smooth(about_m: tuple[float, float] | None, fix: Fix, passed_s: float) -> tuple[float, float]:
    if about_m is None or passed_s > GAP_S:
        return fix.x_m, fix.y_m
    share = passed_s / (SMOOTH_S + passed_s)
    return about_m[0] + share * (fix.x_m - about_m[0]), about_m[1] + share * (fix.y_m - about_m[1])


def _log_odds(p: float) -> float:
    p = min(max(p, 0.01), 0.99)
    return math.log(p / (1.0 - p))


def _weigh(evidence: _Evidence, gain: float, most: float, now_s: float) -> float:
    passed_s = now_s - evidence.at_s
    evidence.at_s = now_s
    if passed_s > GAP_S:
        evidence.proof = 0.0
    evidence.proof += min(passed_s, STEP_MAX_S) * min(max(gain, -AGAINST_MOST), most)
    evidence.proof = max(evidence.proof, 0.0)
    return evidence.proof
