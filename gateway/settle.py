"""Fixes -> where a tag settled: at a place, moving, uncertain, unseen, not covered, idle; and near a danger or clear.

Two opposite biases. A place is entered and left slowly: belief averaged over seconds must be inside (outside) for some
time, because a false "arrived" costs a parent's trust and five seconds cost nothing. A danger is near quickly and clear
slowly, because the other error costs more. Silence says nothing: a tag not heard is "unseen", never "left", and
"not covered" when every reader that heard it last is silent itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway import locate
from gateway.events import PresenceState
from gateway.locate import Field, Fix

UNSEEN_S = 60.0
STILL_S = 600.0
"""A tag that says "not moving" for so long, away from every place, is idle: lost, or on a shelf."""
AVERAGE_S = 6.0
"""Time constant of the averaged belief: a fix's error stays for some steps, then changes."""
INSIDE, OUTSIDE = 0.72, 0.12
INSIDE_S, OUTSIDE_S = 7.0, 8.0
INSIDE_FIXES, OUTSIDE_FIXES = 4, 4
VAGUE_M = 90.0
"""accuracy_95_m above which "moving" would be a guess."""
HOLD_S = 10.0
"""moving, uncertain and idle take over from each other only after so long."""
NEAR = 0.4
"""One fix is enough. At 0.4 a wrong alarm is likelier than a right one, on purpose: it costs a look at a camera."""
CLEAR, CLEAR_S, CLEAR_FIXES = 0.12, 15.0, 5
GAP_S = 15.0
"""Belief older than this is not averaged with what comes after."""


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
class _Belief:
    """How sure one area is for one tag, over time."""

    mean: float
    at_s: float
    fixes: int = 0
    since_s: float = 0.0
    """Fixes in a row, and since when, on the side that would change things."""


@dataclass(slots=True)
class Settled:
    """What is settled of one tag."""

    state: PresenceState = "unseen"
    place: str | None = None
    """The place it is at; kept while it is unseen there."""
    fix: Fix | None = None
    heard_at_s: float = float("-inf")
    next_state: PresenceState = "unseen"
    next_since_s: float = 0.0
    places: dict[str, _Belief] = field(default_factory=dict)
    near: dict[str, _Belief] = field(default_factory=dict)


class Settler:
    """All tags, by their row."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.tags: dict[int, Settled] = {}

    def step(self, tag: int, fix: Fix, still_since_s: float | None, now_s: float) -> Iterator[Change]:
        """Take a fix. still_since_s: since when the tag says it does not move; None: it moves."""
        settled = self.tags.setdefault(tag, Settled())
        settled.fix, settled.heard_at_s = fix, now_s
        yield from self._dangers(tag, settled, fix, now_s)
        best = 0.0
        for place, region in self._field.places.items():
            p = locate.probability(fix, region)
            belief = settled.places.get(place)
            if belief is None:
                if p < OUTSIDE and place != settled.place:
                    continue
                belief = settled.places[place] = _Belief(p, now_s)
            _average(belief, p, now_s)
            best = max(best, belief.mean)
            if place == settled.place:
                _count(belief, belief.mean <= OUTSIDE and p <= OUTSIDE, now_s)
                if belief.fixes >= OUTSIDE_FIXES and now_s - belief.since_s >= OUTSIDE_S:
                    belief.fixes = 0
                    settled.place = None
                    yield Left(tag, place, fix)
            else:
                _count(belief, belief.mean >= INSIDE and p >= INSIDE, now_s)
                if belief.fixes >= INSIDE_FIXES and now_s - belief.since_s >= INSIDE_S:
                    belief.fixes = 0
                    if settled.place is not None:
                        yield Left(tag, settled.place, fix)
                    settled.place = place
                    yield Arrived(tag, place, fix)
                elif belief.mean < OUTSIDE / 2 and belief.fixes == 0:
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
        self.tags[tag] = Settled(state, place, None, now_s, state, now_s)

    def restore_near(self, tag: int, area: str, now_s: float) -> None:
        """Take back that a tag is near a danger."""
        self.tags.setdefault(tag, Settled()).near[area] = _Belief(1.0, now_s)

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
            belief = settled.near.get(area)
            if belief is None:
                if p > NEAR:
                    settled.near[area] = _Belief(p, now_s)
                    yield Danger(tag, area, True, p, fix)
                continue
            _average(belief, p, now_s)
            _count(belief, belief.mean <= CLEAR and p <= CLEAR, now_s)
            if belief.fixes >= CLEAR_FIXES and now_s - belief.since_s >= CLEAR_S:
                del settled.near[area]
                yield Danger(tag, area, False, p, fix)


def _average(belief: _Belief, p: float, now_s: float) -> None:
    passed_s = now_s - belief.at_s
    if passed_s > GAP_S:
        belief.mean, belief.fixes = p, 0
    else:
        share = passed_s / (AVERAGE_S + passed_s)
        belief.mean += share * (p - belief.mean)
    belief.at_s = now_s


def _count(belief: _Belief, holds: bool, now_s: float) -> None:
    if not holds:
        belief.fixes = 0
    else:
        if not belief.fixes:
            belief.since_s = now_s
        belief.fixes += 1
