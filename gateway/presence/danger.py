"""Near a danger area or clear of it: quick in, slow out. A false warning costs less than a late one."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from gateway.fix import Fix
from gateway.presence.changes import DangerChange
from gateway.presence.evidence import GAP_S, Evidence, log_odds, probability

NEAR_ODDS, NEAR_PROOF = -1.1, 3.5
"""Evidence for being near grows each second by the log-odds of a fix less NEAR_ODDS: it grows above 25 %. NEAR_PROOF is
near: one fix of 92 %, two of 66 %, four of 44 %."""
NEW_DOUBT = 1.5
"""More log-odds are asked of a tag that was not heard before. This falls to 0 over GAP_S: in its first seconds a
belief does not know how strong the tag is nor what stands around it, and all its fixes are wrong by the same metres.
Children who stood still 25-45 m from the road were believed on it, with up to 79 %, for 5 to 10 s.

Sought with the demo's children in 56 stories (1360 children, 210 of them near). Before, one fix over 75 % or three in a
row over 40 % were near.

| | false | told after, half / nine in ten of those near | and of those heard 12 s before |
|---|---|---|---|
| before | 2 | 5.8 / 14.1 s | 4.9 / 11.8 s |
| NEAR_PROOF 3.0 | 0 | 6.1 / 14.1 | 4.3 / 10.3 |
| 3.5 | 0 | 6.4 / 14.4 | 4.7 / 10.8 |
| 4.0 | 0 | 6.4 / 14.9 | 4.8 / 10.8 |
| NEAR_PROOF 3.0, NEW_DOUBT 0 | 5 | 4.6 / 12.6 | |
| NEAR_ODDS -1.4 (20 %), NEAR_PROOF 3.0, NEW_DOUBT 2 | 1 | 5.4 / 13.1 | 3.8 / 8.8 |
| NEAR_ODDS -0.85 (30 %) | 0 | 7.0 / 16.4 | 5.1 / 11.8 |

On 20 other stories (seeds 501-520 of `tests/bench/stories.py`, 71 near): before, 1 false, 5.6 / 16.8 and 4.8 / 12.8 s;
now none, 5.9 / 19.8 and 4.3 / 10.8 s."""
FIRST_S = 1.0
"""A tag's first fix, and the first after a gap, counts as a second."""
CLEAR, CLEAR_S, CLEAR_FIXES = 0.12, 15.0, 5
"""Clear again: CLEAR_FIXES in a row at or below CLEAR, over CLEAR_S or longer."""


@dataclass(slots=True)
class Near(Evidence):
    """A tag and a danger area: the evidence that it is near, and when it is `alarmed`, how many fixes contradict."""

    alarmed: bool = False
    heard_since_s: float = -inf
    """Since when it is heard without a gap of GAP_S."""
    fixes: int = 0
    """In a row that contradict `alarmed`, since `since_s`."""
    since_s: float = 0.0


def step(near: dict[str, Near], areas: tuple[str, ...], tag: int, fix: Fix, now_s: float) -> Iterator[DangerChange]:
    """Take a fix. `near` is the tag's own memory, one entry for each area."""
    for area in areas:
        p = probability(fix.dangers.get(area, 0.0))
        if p is None:
            continue
        one = near.get(area)
        if one is None:
            one = near[area] = Near(-inf)
        silent = not 0.0 <= now_s - one.at_s <= GAP_S
        if silent:
            one.at_s, one.proof, one.heard_since_s = now_s - FIRST_S, 0.0, now_s
        if not one.alarmed:
            new = max(1.0 - (now_s - one.heard_since_s) / GAP_S, 0.0)
            if one.weigh(log_odds(p) - NEAR_ODDS - NEW_DOUBT * new, inf, now_s) >= NEAR_PROOF:
                one.alarmed, one.fixes, one.proof = True, 0, 0.0
                yield DangerChange(tag, area, True, p, fix)
            continue
        one.at_s = now_s
        if p > CLEAR:
            one.fixes = 0
            continue
        if silent or not one.fixes:
            one.fixes, one.since_s = 0, now_s
        one.fixes += 1
        if one.fixes >= CLEAR_FIXES and now_s - one.since_s >= CLEAR_S:
            one.alarmed = False
            yield DangerChange(tag, area, False, p, fix)
