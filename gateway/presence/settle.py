"""Fixes -> what is settled about a tag: its place, presence, near dangers and route. Pure: `now_s` is passed in.

The biases are opposite. A place is entered and left slowly (`places`), because a false message costs a parent's trust
and a few seconds cost nothing. A danger area is near quickly and clear slowly (`danger`). Silence proves nothing: a tag
that is not heard is "unseen", never "left". It is "not covered" when the readers that heard it best are silent
themselves. A tag at a place that the engine believes elsewhere, while a gate of the place is blind, is "uncertain".
Nothing is concluded, kept or reported about a paused tag; after the pause it starts again.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.events import PresenceState
from gateway.fix import Fix, Reading
from gateway.presence import danger
from gateway.presence.changes import Change, PresenceChange
from gateway.presence.danger import Near
from gateway.presence.evidence import GAP_S, Evidence
from gateway.presence.places import Places, Whereabouts
from gateway.presence.route import Routes, RouteState
from gateway.zone import Plane, Zone

UNSEEN_S = 60.0
BEST_DB = 10
"""The best readers heard a tag within this of the loudest. If all of them are silent, the rest would not hear it."""
STILL_S = 600.0
"""A tag that reports "not moving" for longer than this is reported: away from every place as idle (lost, or on a
shelf), at a place as still (a bag on its hook)."""
CARRIED_M = 40.0
"""A tag that was carried this far is not still, whatever its motion sensor reports."""
SMOOTH_S = 6.0
VAGUE_M = 90.0
"""Above this accuracy_95_m, "moving" would be a guess."""
HOLD_S = 10.0
"""moving, uncertain and idle replace each other only after this long; idle ends at once when the tag moves."""
_AT_ONCE: tuple[PresenceState, ...] = ("unseen", "not_covered", "paused")
_NOWHERE: Mapping[str, float] = {}


@dataclass(slots=True)
class Settled:
    """What is settled about one tag."""

    state: PresenceState = "unseen"
    still: bool = False
    paused: bool = False
    where: Whereabouts = field(default_factory=Whereabouts)
    fix: Fix | None = None
    heard_at_s: float = float("-inf")
    about_m: tuple[float, float] | None = None
    """Its smoothed position."""
    rest_m: tuple[float, float] | None = None
    """Where it was when it began to report that it does not move; None: it moves."""
    next_state: PresenceState = "unseen"
    next_since_s: float = 0.0
    near: dict[str, Near] = field(default_factory=dict)
    way: RouteState | None = None

    @property
    def place(self) -> str | None:
        """The place it is at; kept while the tag is unseen there."""
        return self.where.place


class Settler:
    """Settles all tags; each is known by its row."""

    def __init__(self, zone: Zone, plane: Plane, rows: Mapping[str, int]) -> None:
        """rows: the row of each enrolled tag by its pseudonym, because routes name pseudonyms."""
        self._places = Places(zone, plane)
        self._dangers = tuple(area.id for area in zone.dangers)
        self._routes = Routes(zone, plane, rows, self._places)
        self.tags: dict[int, Settled] = {}

    def hear(self, tag: int, reading: Reading, now_s: float) -> None:
        """Take a reading; it counts at the tag's next step. Only those of gate readers matter."""
        settled = self.tags.get(tag)
        if settled is None:
            settled = self.tags[tag] = Settled()
        if not settled.paused:
            self._places.gates.hear(settled.where.crossings, reading)

    def set_offsets(self, offsets_db: Mapping[int, float]) -> None:
        """Take by how many dB gate readers hear too loud; one that is not named hears as it should."""
        self._places.gates.set_offsets(offsets_db)

    def set_walked(self, offsets_db: Mapping[int, float]) -> None:
        """Take by how many dB gate readers hear louder than others by the walk test. `set_offsets` comes on top."""
        self._places.gates.set_walked(offsets_db)

    def step(self, tag: int, fix: Fix, still_since_s: float | None, now_s: float) -> Iterator[Change]:
        """Take a fix. still_since_s: since when the tag reports that it does not move; None: it moves."""
        settled = self.tags.setdefault(tag, Settled())
        if settled.paused or not math.isfinite(fix.x_m + fix.y_m):
            return
        at_m = settled.about_m = _smooth(settled.about_m, fix, now_s - settled.heard_at_s)
        settled.fix, settled.heard_at_s = fix, now_s
        yield from danger.step(settled.near, self._dangers, tag, fix, now_s)
        odds = self._places.probabilities(fix)
        yield from self._places.step(settled.where, odds, tag, fix, at_m, now_s)
        if tag in self._routes.of:
            if settled.way is None:
                settled.way = RouteState(Evidence(now_s))
            yield from self._routes.step(settled.way, odds, tag, fix, at_m, now_s)
        still = _still(settled, at_m, still_since_s, now_s)
        wanted = _wanted(settled, fix, max(odds.values(), default=0.0), still)
        if wanted == "at" and self._places.doubtful(settled.where, odds):
            wanted = "uncertain"
        yield from _told(tag, settled, wanted, still, now_s)

    def silence(self, now_s: float, is_silent: Callable[[int], bool]) -> Iterator[Change]:
        """Yield changes of tags that no reader hears, and of paused tags. is_silent(reader): whether it is silent."""
        self._places.gates.set_silent(is_silent)
        for tag, settled in self.tags.items():
            state: PresenceState
            if settled.paused:
                state = "paused"
            elif now_s - settled.heard_at_s < UNSEEN_S:
                continue
            else:
                state = "not_covered" if _deaf(settled.fix, is_silent) else "unseen"
            if settled.state != state:
                settled.state, settled.next_state, settled.still = state, state, False
                yield PresenceChange(tag, state, settled.place if state == "unseen" else None, settled.fix)

    def pause(self, tag: int) -> None:
        """Stop conclusions about a tag and forget where it was. `silence` yields the pause, once.

        A danger area that was reported as near stays near: during the pause it is not reported as clear or near again.
        """
        known = self.tags.get(tag, Settled())
        near = {area: one for area, one in known.near.items() if one.alarmed}
        self.tags[tag] = Settled(known.state, paused=True, near=near)

    def resume(self, tag: int, now_s: float) -> None:
        """End a pause. The tag starts again: the place where it is first found is no arrival, and it leaves none."""
        known = self.tags.get(tag)
        if known is not None and known.paused:
            self.tags[tag] = _anew(known.state, known.near, now_s)

    def is_paused(self, tag: int) -> bool:
        settled = self.tags.get(tag)
        return settled is not None and settled.paused

    def restore(
        self,
        tag: int,
        state: PresenceState,
        place: str | None,
        now_s: float,
        *,
        off: bool = False,
        about_s: Mapping[str, float] = _NOWHERE,
    ) -> None:
        """Restore what was settled before a restart. Call it after `pause` and `restore_near`.

        off: it was off its route; about_s: for how long it had been near each place (`about_s`).
        """
        known = self.tags.get(tag, Settled())
        if known.paused:
            known.state = state
        elif state == "paused":
            self.tags[tag] = _anew(state, known.near, now_s)
        else:
            where = self._places.restored(place, about_s, now_s)
            way = RouteState(Evidence(now_s), off) if tag in self._routes.of else None
            self.tags[tag] = Settled(
                state, where=where, heard_at_s=now_s, next_state=state, next_since_s=now_s, near=known.near, way=way
            )

    def about_s(self, tag: int) -> dict[str, float]:
        """Return for how long a tag has been heard near each place, for `restore`."""
        about = self.tags[tag].where.about
        return {place: round(max(one.evidence.at_s - one.since_s, 0.0), 1) for place, one in about.items()}

    def restore_near(self, tag: int, area: str, now_s: float) -> None:
        """Restore that a tag is near a danger area."""
        self.tags.setdefault(tag, Settled()).near[area] = Near(now_s, alarmed=True)


def _anew(state: PresenceState, near: dict[str, Near], now_s: float) -> Settled:
    where = Whereabouts(anew=Evidence(now_s))
    return Settled(state, where=where, heard_at_s=now_s, next_state=state, next_since_s=now_s, near=near)


def _wanted(settled: Settled, fix: Fix, best: float, still: bool) -> PresenceState:
    if settled.place is not None:
        return "at"
    if still:
        return "idle"
    return "uncertain" if fix.accuracy_95_m > VAGUE_M or best >= 0.5 else "moving"


def _told(tag: int, settled: Settled, wanted: PresenceState, still: bool, now_s: float) -> Iterator[PresenceChange]:
    if wanted != settled.next_state:
        settled.next_state, settled.next_since_s = wanted, now_s
    doubted = settled.place is not None and "uncertain" in (wanted, settled.state)
    at_once = (not doubted and "at" in (wanted, settled.state)) or settled.state in _AT_ONCE
    moved = settled.state == "idle" and settled.rest_m is None
    if wanted != settled.state and not (at_once or moved) and now_s - settled.next_since_s < HOLD_S:
        return
    still = still and wanted in ("at", "idle")
    if (wanted, still) != (settled.state, settled.still):
        settled.state, settled.still = wanted, still
        yield PresenceChange(tag, wanted, settled.place if wanted == "at" else None, settled.fix, still)


def _still(settled: Settled, at_m: tuple[float, float], still_since_s: float | None, now_s: float) -> bool:
    if still_since_s is None:
        settled.rest_m = None
        return False
    if settled.rest_m is None:
        settled.rest_m = at_m
    return now_s - still_since_s > STILL_S and math.dist(at_m, settled.rest_m) < CARRIED_M


def _deaf(fix: Fix | None, is_silent: Callable[[int], bool]) -> bool:
    """Return whether the readers that would hear a tag are silent themselves."""
    if fix is None or not fix.evidence:
        return False
    levels = [-80 if heard.rssi_dbm is None else heard.rssi_dbm for heard in fix.evidence]
    best = [heard.reader for heard, level in zip(fix.evidence, levels, strict=True) if level >= max(levels) - BEST_DB]
    return all(is_silent(reader) for reader in best)


def _smooth(about_m: tuple[float, float] | None, fix: Fix, passed_s: float) -> tuple[float, float]:
    if about_m is None or passed_s > GAP_S:
        return fix.x_m, fix.y_m
    share = max(passed_s, 0.0) / (SMOOTH_S + max(passed_s, 0.0))
    return about_m[0] + share * (fix.x_m - about_m[0]), about_m[1] + share * (fix.y_m - about_m[1])
