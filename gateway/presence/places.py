"""At which named place a tag is. It enters and leaves a place only on evidence that a shifted fix cannot give.

Where a place has gates with readers on both sides, that evidence is a crossing (`crossing`), within seconds. All else
here is for a place without them, and for who enters or leaves a place otherwise: over the wall, or past a dead reader.
A tag that stands still is located with an error that stays for minutes (`evidence`). So near an edge the probability
alone decides nothing: it is weighed together with how far inside or outside the fixes lie. Far beyond the edge, seconds
are enough. A few metres beyond it, many minutes are needed, or it never happens.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from gateway.fix import Fix
from gateway.presence.changes import Arrived, Left
from gateway.presence.crossing import AtGates, Gates
from gateway.presence.evidence import Evidence, log_odds, probability
from gateway.zone import Plane, Zone, depth_m

UNLIKELY = 0.2
"""Below this probability, no evidence for a place is started."""
IN_ODDS, IN_MOST, IN_PROOF = 1.8, 2.5, 24.0
"""Evidence for being inside grows each second by the log-odds of a fix less IN_ODDS, at most IN_MOST. IN_PROOF is an
arrival: 10 s of certainty. Below 86 % the evidence shrinks."""
DEEP_SHARE, DEEP_M, DEEP_LATER_M, NEW_S = 0.5, (18.0, 24.0), (30.0, 36.0), 240.0
"""It grows in full only at this depth behind the edge: DEEP_SHARE of the fix's accuracy_95_m, within DEEP_M. Nearer to
the edge it grows less, by the 6th power. The depth is limited because a yard is not deeper, and because p already
includes how vague a fix is.

A tag that is near a place for NEW_S without entering waits next to it, and every further minute is one more chance to
be wrong. Then DEEP_LATER_M, IN_LATER_ODDS and PROOF_LATER_DBM hold. Found with invented errors
(`tests/bench/presence.py`) and with the engine on the simulated zone (`tests/bench/edge.py`), together: ADR 6 has the
figures."""
VAGUE_SHARE, VAGUE_M = 0.4, 36.0
"""A fix with an accuracy_95_m over 60 m must lie VAGUE_SHARE of it deep, at most VAGUE_M. Without this, in a zone
without a walk test, three of 64 who stood outside for 10 min were reported as arrived; with it, one."""
IN_LATER_ODDS = 3.0
"""Used instead of IN_ODDS: only fixes that are sure (95 %) count at all."""
FAR_AWAY_M, AWAY_S, FORGET_S = 60.0, 900.0, 6 * 3600.0
"""A tag that is this far away for AWAY_S without a break, or is unheard for FORGET_S, counts as new the next time. A
person who stands before the gate is from time to time believed 70 m away for minutes. When that ends, the person must
not count as new."""
REPLACE_LOG_RATIO = 0.5
"""To replace the place the tag is at, another place must be likelier by more than this (log of the ratio)."""
OUT_ODDS, OUT_MOST, OUT_PROOF = -2.0, 1.5, 15.0
"""The same for having left: only fixes that are sure (log-odds of being inside under -2: 12 %) count at all."""
FAR_M = 45.0
"""Evidence for having left grows in full this far outside, and less by the 6th power when nearer: it takes 10 s at
45 m, 2 min at 30 m, 20 min at 20 m. Found with `tests/bench/presence.py`: errors of 6 m that stay for 3 to 10 min and
of 4-8 m that do not, with a belief as wide as the errors or 1.5 times too sure. In 4000 school days of standing 3-8 m
inside, no false "left" was reported. With 30 m and the 4th power, there was one in ten to twenty days."""
PROOF_DBM = -88.0
"""A tag that no reader hears at this level or louder proves nothing, in or out: at the weakest levels a tag is far from
every reader, and its fixes wander with each fade. On a simulated edge, such wandering caused the only false "left" in
30 hours of children."""
PROOF_LATER_DBM = -84.0
"""The same for the arrival of a tag that waits next to a place. One child was 17 m outside, where no footpath leads and
no reader heard it over -86 dBm. Its fixes drifted 26 m inside with 99 % within minutes."""
PASSED_SHARE = 0.4
"""Of FAR_M and of WALKED_M, for who was at a gate of the place (`crossing.PASSED_DB`): a pavement along the wall lies
beside the readers' view, and who goes that way is 4 to 10 m from the wall for minutes. Of 180 who left 98.9 % were told
within 60 s, with it all; no false word of 120 who played at the gate for 15 min and of 12 who sat for an hour (3 airs
that chose nothing; measured with 1/3)."""
INSIDE, WALKED_M = 0.5, 80.0
"""A street often runs along a school's wall, and a child who leaves by it is never far from the edge. So WALKED_M away
from where it was last inside (probability INSIDE or more) counts like FAR_M from the edge. With invented errors, 60 m
reported a false "left" of one child in 8 to 30 school days of standing and moving 3-8 m inside; 80 m reported none."""
BLUR_M = 24.0
"""When a fix has an accuracy_95_m above this, the distance for full evidence of having left grows in proportion."""


@dataclass(slots=True)
class About:
    """What is known about a tag and one place that it is at, or may be at."""

    evidence: Evidence
    since_s: float
    """Since when it is near the place or at it."""
    near_s: float
    """When it was last not far away."""
    inside_m: tuple[float, float] | None = None
    """Where it was when it was last believed inside."""


@dataclass(slots=True)
class Whereabouts:
    """The places of one tag."""

    place: str | None = None
    """The place it is at; kept while it is unseen there."""
    about: dict[str, About] = field(default_factory=dict)
    crossings: dict[str, AtGates] = field(default_factory=dict)
    """By place: what its gates say."""
    anew: Evidence | None = None
    """Set after a pause: the first place then found is no arrival, unless the tag was seen outside before. This is the
    evidence for being outside."""


class Places:
    """The named places of a zone, in metres on a plane."""

    def __init__(self, zone: Zone, plane: Plane) -> None:
        self.rings = {p.id: tuple(plane.to_xy_m(lon, lat) for lon, lat in p.polygon) for p in zone.places}
        self.gates = Gates(zone)

    def probabilities(self, fix: Fix) -> dict[str, float]:
        """Return the probability of each place. A place with NaN is left out."""
        each = ((place, probability(fix.places.get(place, 0.0))) for place in self.rings)
        return {place: p for place, p in each if p is not None}

    def outside_m(self, at_m: tuple[float, float]) -> float:
        """Return the distance to the nearest place: 0 inside one, inf if the zone has no places."""
        return min((max(0.0, -depth_m(*at_m, ring)) for ring in self.rings.values()), default=float("inf"))

    def restored(self, place: str | None, about_s: Mapping[str, float], now_s: float) -> Whereabouts:
        """Return what was settled before a restart. about_s: for how long the tag had been near each place."""
        about = {name: About(Evidence(now_s), now_s - s, now_s) for name, s in about_s.items() if name in self.rings}
        return Whereabouts(place if place in self.rings else None, about)

    def step(
        self, own: Whereabouts, odds: dict[str, float], tag: int, fix: Fix, at_m: tuple[float, float], now_s: float
    ) -> Iterator[Arrived | Left]:
        """Take a fix. odds: its `probabilities`; at_m: the tag's smoothed position."""
        if own.anew is not None:
            best = max(odds.values(), default=0.0)
            if outside(own.anew, best, lambda: self.outside_m(at_m), FAR_M, fix, now_s):
                own.anew = None
        here = odds.get(own.place, 0.0) if own.place is not None else 0.0
        for place, p in odds.items():
            crossing = own.crossings.get(place)
            if crossing is not None and self.gates.crossed(crossing, place, place == own.place, p, now_s):
                here = p if place != own.place else 0.0
                yield from self._cross(own, place, tag, fix, now_s)
                continue
            about = own.about.get(place)
            if about is None:
                if p < UNLIKELY and place != own.place:
                    continue
                about = own.about[place] = About(Evidence(now_s), now_s, now_s)
            elif now_s - about.evidence.at_s > FORGET_S:
                about.since_s = now_s
            if place == own.place:
                if p >= INSIDE:
                    about.inside_m = at_m
                far_m = FAR_M * (PASSED_SHARE if self.gates.passed(crossing, place, now_s) else 1.0)
                if outside(about.evidence, p, partial(self._beyond_m, about, place, at_m), far_m, fix, now_s):
                    own.about[place] = About(Evidence(now_s), now_s, now_s)
                    own.place = None
                    yield Left(tag, place, fix)
            elif self._inside(about, p, here, place, fix, at_m, now_s):
                about.evidence.proof = 0.0
                left, own.place, here = own.place, place, p
                if left is not None:
                    own.about[left] = About(Evidence(now_s), now_s, now_s)
                    yield Left(tag, left, fix)
                if own.anew is None:
                    yield Arrived(tag, place, fix)
                own.anew = None
            elif p >= UNLIKELY or -depth_m(*at_m, self.rings[place]) <= FAR_AWAY_M:
                about.near_s = now_s
            elif about.evidence.proof <= 0.0 and now_s - about.near_s > AWAY_S:
                del own.about[place]

    def doubtful(self, own: Whereabouts, odds: Mapping[str, float]) -> bool:
        """Return whether a tag may have left its place unseen: it seems outside, and a gate of the place is blind."""
        return own.place is not None and odds.get(own.place, 0.0) < UNLIKELY and self.gates.blind(own.place)

    @staticmethod
    def _cross(own: Whereabouts, place: str, tag: int, fix: Fix, now_s: float) -> Iterator[Arrived | Left]:
        """Take a crossing of a gate of a place, in or out."""
        own.about[place] = About(Evidence(now_s), now_s, now_s)
        if own.place == place:
            own.place = None
            yield Left(tag, place, fix)
            return
        left, own.place = own.place, place
        if left is not None:
            own.about[left] = About(Evidence(now_s), now_s, now_s)
            yield Left(tag, left, fix)
        if own.anew is None:
            yield Arrived(tag, place, fix)
        own.anew = None

    def _beyond_m(self, about: About, place: str, at_m: tuple[float, float]) -> float:
        """Return how far outside a tag is: from the edge, or its scaled distance from where it was inside, if more."""
        beyond_m = -depth_m(*at_m, self.rings[place])
        if beyond_m > 0.0 and about.inside_m is not None:
            beyond_m = max(beyond_m, math.dist(at_m, about.inside_m) * FAR_M / WALKED_M)
        return beyond_m

    def _inside(
        self, about: About, p: float, here: float, place: str, fix: Fix, at_m: tuple[float, float], now_s: float
    ) -> bool:
        """Return whether an arrival at a place is proven. here: probability of the place the tag is at so far."""
        later = now_s - about.since_s >= NEW_S
        gain = log_odds(p) - (IN_LATER_ODDS if later else IN_ODDS)
        if here > 0.0 and p > 0.0:  # places may be nested: the inner one is never likelier than the outer
            gain = min(gain, math.log(p / here) - REPLACE_LOG_RATIO)
        if gain > 0.0:
            gain *= proves(fix, PROOF_LATER_DBM if later else PROOF_DBM)
            least_m, most_m = DEEP_LATER_M if later else DEEP_M
            vague_m = min(VAGUE_M, VAGUE_SHARE * fix.accuracy_95_m)  # NaN counts as vague
            deep_m = max(least_m, min(most_m, DEEP_SHARE * fix.accuracy_95_m), vague_m)
            gain = min(gain, IN_MOST) * _share(depth_m(*at_m, self.rings[place]), deep_m)
        return about.evidence.weigh(gain, IN_MOST, now_s) >= IN_PROOF


def proves(fix: Fix, least_dbm: float = PROOF_DBM) -> bool:
    """Return whether a fix has a reading loud enough to prove something. A fix without evidence counts as one."""
    return not fix.evidence or any(h.rssi_dbm is not None and h.rssi_dbm >= least_dbm for h in fix.evidence)


def outside(
    evidence: Evidence, p: float, distance_m: Callable[[], float], far_m: float, fix: Fix, now_s: float
) -> bool:
    """Weigh a fix as evidence that a tag is outside an area; return whether that is proven.

    p: probability of being inside; distance_m: how far outside the smoothed position is, called only when p is small;
    far_m: the distance at which the evidence counts in full.
    """
    gain = OUT_ODDS - log_odds(p)
    if gain > 0.0 and not proves(fix):
        gain = 0.0
    if gain > 0.0:
        gain = min(gain, OUT_MOST) * _share(distance_m(), far_m * max(1.0, fix.accuracy_95_m / BLUR_M))
    return evidence.weigh(gain, OUT_MOST, now_s) >= OUT_PROOF


def _share(distance_m: float, full_m: float) -> float:
    return min(max(distance_m, 0.0) / full_m, 1.0) ** 6
