"""Near a danger area or clear of it: quick in, slow out. A false warning costs less than a late one."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.fix import Fix
from gateway.presence.changes import DangerChange
from gateway.presence.evidence import GAP_S, probability

NEAR_AT_ONCE, NEAR, NEAR_S, NEAR_FIXES = 0.75, 0.4, 3.0, 3
"""Near: one fix above NEAR_AT_ONCE, or NEAR_FIXES in a row above NEAR, over NEAR_S or longer. On the simulated zone,
with an engine error of 14 m (median), all 25 who came within the warning distance were reported, 5 s after it
(median). So were 6 of 172 who stayed 15 m clear of it."""
CLEAR, CLEAR_S, CLEAR_FIXES = 0.12, 15.0, 5
"""Clear again: CLEAR_FIXES in a row at or below CLEAR, over CLEAR_S or longer."""


@dataclass(slots=True)
class Near:
    """A danger area a tag is near, or may be. fixes: how many in a row contradict `alarmed`; since_s: since when."""

    at_s: float
    alarmed: bool = False
    fixes: int = 0
    since_s: float = 0.0


def step(near: dict[str, Near], areas: tuple[str, ...], tag: int, fix: Fix, now_s: float) -> Iterator[DangerChange]:
    """Take a fix. `near` is the tag's own memory, at most one entry for each area."""
    for area in areas:
        p = probability(fix.dangers.get(area, 0.0))
        if p is None:
            continue
        one = near.get(area)
        if one is None or not one.alarmed:
            if p <= NEAR:
                near.pop(area, None)
                continue
            if one is None or now_s - one.at_s > GAP_S:
                one = near[area] = Near(now_s, since_s=now_s)
            one.at_s = now_s
            one.fixes += 1
            if p > NEAR_AT_ONCE or (one.fixes >= NEAR_FIXES and now_s - one.since_s >= NEAR_S):
                one.alarmed, one.fixes = True, 0
                yield DangerChange(tag, area, True, p, fix)
            continue
        silent, one.at_s = now_s - one.at_s > GAP_S, now_s
        if p > CLEAR:
            one.fixes = 0
            continue
        if silent or not one.fixes:
            one.fixes, one.since_s = 0, now_s
        one.fixes += 1
        if one.fixes >= CLEAR_FIXES and now_s - one.since_s >= CLEAR_S:
            del near[area]
            yield DangerChange(tag, area, False, p, fix)
