"""Who came in or went out by a gate: one belief of a tag and a place, from the gate's readers and from the engine.

The readers of a gate look two ways: the inner ones into the place, the outer ones to the street. The difference of
their levels (inner - outer) says on which side a tag is. The tag's power, the body that carries it and what stands
round it are in both levels and cancel out. What that difference says for the other side is summed over the seconds, and
the engine's probability of being inside is added, both as log-odds. A crossing is a belief of ARRIVED or LEFT.

Neither suffices alone: the sum is bounded below what a crossing needs, and so is the engine. Between the readers of a
gate both are weak witnesses, but they err in different ways.

All gates of a place share one sum: only the gate that hears a tag best speaks, so who came in by one may go out by
another. A side that hears nothing says nothing, for it may be dead. Nor does a reader whose mate on the same post is
deaf: it would be weighed against both readers of the other side. Where nothing is summed, the place is entered and left
as one without gates (`places`), which is slower.

The curves below are of 3 airs with 632 children of `sim.plan.scenes`, whose gate readers listen half of the time.
Other seeds and airs judge them: `tests/bench/gates.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.fix import Reading
from gateway.presence.evidence import GAP_S, STEP_MAX_S, log_odds
from gateway.zone import Plane, Zone

PAIR_S = 4.0
"""A level of a reader stands for so long: two reports. With 6 s departures are 1 % fewer within 30 s, for a tag that
walks out is held inside by its last levels."""
SCALE_DB = 4.0
"""So many dB beyond the strip are worth 1 (log-odds) a second. 2.5 to 6 tell the same arrivals and departures."""
STRIP_DB = (-4.0, 3.0)
"""Differences of a tag in the gate, on neither side. Only a lower one speaks for having left, a higher one for having
arrived. Without the strip, one in 70 children who play in the gate or stand behind it was told to have left."""
CLOSE_DB, CLOSE_S = -40.0, 45.0
"""A tag that a reader of the gate hears louder than this, relative to its power at 1 m, is near the gate (-88 dBm of a
usual tag: 15 to 30 m), and only who was so within CLOSE_S passes it. Without this, 2 of 200 who had left were told to
have come back minutes later, 70 m away. A threshold that only who is in the gate reaches does not hold elsewhere: with
-24 dB and the shadows of another street 24 % of departures were lost."""
WAITS_S, WAITS_DB = 60.0, 8.0
"""Who has been near the gate for WAITS_S without a word waits there, perhaps beside it at the wall, where both sides
hear it alike. Then only a difference over WAITS_DB speaks for having arrived; inside it is 15 dB and more."""
PASSED_S = 180.0
"""Who was near a gate so recently may have passed it beside its readers' view: `places.PASSED_SHARE`."""
SUM_MAX = 6.0
"""The most that the readers of the gates can say. With 7 and a belief of 8 (an engine of 73 %), 3 of 24 children who
play 2 m inside the gate were told to have left; with 14 (the readers alone) 7 of 24."""
ARRIVED, LEFT = 7.0, 8.0
"""The belief that is a crossing: with SUM_MAX, an engine of 73 % inside, or of 12 %. At 8 and 8.5, in two airs whose
shadows lie over the gate, 92 instead of 97 % of arrivals were told within 20 s, and 95 instead of 97 % of departures
within 30 s; one of 120 who stood beside the gate was told to be in at 7, none of 100 at 8. Departures at 9.5 come 2 s
later; at 7 one in 7 children at play in the gate was told to have left."""
ENGINE_S = 1.5
"""The engine's log-odds are smoothed over this. Without it 4 of 48 children at play in the gate were told to have left;
with 2 s words come 0.5 s later."""
LOUD_DB, UNANSWERED_MAX = -24.0, 40
"""A gate reader is deaf when it hears nothing while the others of its gate hear so many readings over LOUD_DB: at that
level all of them hear a tag. Ten children pass in that many."""
AUDIBLE_DBM = -85
"""And at least so loud in all, whatever power the tag states: no reader hears a weaker tag."""


@dataclass(slots=True)
class AtGates:
    """What speaks for one tag having changed sides at the gates of a place, since it last did."""

    heard: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Gate reader -> (level relative to the tag's power at 1 m in dB, when)."""
    at_s: float = -math.inf
    close_s: float = -math.inf
    """When it was last near a gate."""
    since_s: float = math.inf
    """Since when it has been near a gate without a word."""
    total: float = 0.0
    """Log-odds that the gate's readers gave for the change: 0 to SUM_MAX."""
    engine: float = 0.0
    """Log-odds of being inside, by the engine."""


class Gates:
    """The guarded gates of a zone: those with a reader on each side."""

    def __init__(self, zone: Zone) -> None:
        places = {gate.id: gate.place for gate in zone.gates}
        sides: dict[str, dict[int, bool]] = {}
        for reader in zone.readers:
            if reader.gate in places and reader.side is not None:
                sides.setdefault(str(reader.gate), {})[reader.number] = reader.side == "inner"
        sides = {gate: each for gate, each in sides.items() if len(set(each.values())) == 2}
        self._places = {number: places[gate] for gate, each in sides.items() for number in each}
        self._gates: dict[str, dict[str, dict[int, bool]]] = {}
        """Place -> gate -> reader -> whether it is an inner one."""
        for gate, each in sides.items():
            self._gates.setdefault(places[gate], {})[gate] = each
        self._sides = {number: gate for gate, each in sides.items() for number in each}
        self._mates = _mates(zone, sides)
        self._unanswered = dict.fromkeys(self._sides, 0)
        """By reader: loud readings of the others of its gate since it heard anything."""
        self._walked_db: dict[int, float] = {}
        self._offsets_db: dict[int, float] = {}
        self._silent: frozenset[int] = frozenset()

    def set_offsets(self, offsets_db: Mapping[int, float]) -> None:
        """Take by how many dB readers hear too loud; a reader that is not named hears as it should."""
        self._offsets_db = {reader: db for reader, db in offsets_db.items() if math.isfinite(db)}

    def set_walked(self, offsets_db: Mapping[int, float]) -> None:
        """Take by how many dB readers hear louder than others by the walk test."""
        self._walked_db = {reader: db for reader, db in offsets_db.items() if math.isfinite(db)}

    def set_silent(self, is_silent: Callable[[int], bool]) -> None:
        """Take which readers are known to be silent."""
        self._silent = frozenset(reader for reader in self._sides if is_silent(reader))

    def blind(self, place: str) -> bool:
        """Return whether a gate of the place has a side that is silent, or deaf to what the others hear."""
        return any(
            all(self._deaf(reader) for reader, side in readers.items() if side == inner)
            for readers in self._gates.get(place, {}).values()
            for inner in (False, True)
        )

    def hear(self, crossings: dict[str, AtGates], reading: Reading) -> None:
        """Take a reading of one tag. crossings: the tag's own memory, one entry for each place with gates."""
        place = self._places.get(reading.reader)
        if place is None or reading.rssi_dbm is None:
            return
        crossing = crossings.setdefault(place, AtGates())
        level_db = float(reading.rssi_dbm - reading.power_dbm)
        for offsets_db in (self._walked_db, self._offsets_db):
            level_db -= offsets_db.get(reading.reader, 0.0)
        if level_db >= LOUD_DB and reading.rssi_dbm >= AUDIBLE_DBM:
            for other in self._gates[place][self._sides[reading.reader]]:
                self._unanswered[other] += 1
        self._unanswered[reading.reader] = 0
        if level_db >= CLOSE_DB:
            if reading.heard_at_s - crossing.close_s > GAP_S:
                crossing.since_s = reading.heard_at_s
            crossing.close_s = max(crossing.close_s, reading.heard_at_s)
        known = crossing.heard.get(reading.reader)
        if known is None or reading.heard_at_s >= known[1]:
            crossing.heard[reading.reader] = level_db, reading.heard_at_s

    def crossed(self, crossing: AtGates, place: str, at: bool, p: float, now_s: float) -> bool:
        """Let time pass to now_s; return whether the tag changed sides. at: it is at the place so far; p: probability
        of being inside by the engine."""
        passed_s = now_s - crossing.at_s
        crossing.at_s = now_s
        if passed_s > GAP_S:
            crossing.total, crossing.engine = 0.0, log_odds(p)
        passed_s = min(max(passed_s, 0.0), STEP_MAX_S)
        share = passed_s / (ENGINE_S + passed_s)
        crossing.engine += share * (log_odds(p) - crossing.engine)
        difference_db = self._difference_db(crossing, place, now_s)
        if now_s - crossing.close_s > CLOSE_S:
            crossing.total = 0.0
        elif difference_db is not None:
            waits = now_s - crossing.close_s <= GAP_S and now_s - crossing.since_s > WAITS_S
            least_db = WAITS_DB if waits else STRIP_DB[1]
            beyond_db = STRIP_DB[0] - difference_db if at else difference_db - least_db
            crossing.total = min(max(crossing.total + passed_s * beyond_db / SCALE_DB, 0.0), SUM_MAX)
        belief = crossing.total + (-crossing.engine if at else crossing.engine)
        if belief < (LEFT if at else ARRIVED):
            return False
        crossing.total, crossing.since_s = 0.0, -math.inf  # who has just left does not come back at once
        return True

    def passed(self, crossing: AtGates | None, place: str, now_s: float) -> bool:
        """Return whether a tag was at a gate a while ago: it may have gone through beside the readers' view. Never
        while a reader of the gates is deaf, for the engine lacks it too."""
        if crossing is None or now_s - crossing.close_s > PASSED_S:
            return False
        return not any(self._deaf(reader) for readers in self._gates[place].values() for reader in readers)

    def _deaf(self, reader: int) -> bool:
        return reader in self._silent or self._unanswered[reader] >= UNANSWERED_MAX

    def _difference_db(self, crossing: AtGates, place: str, now_s: float) -> float | None:
        """Return inner - outer at the gate that hears the tag best; None if one of its sides does not hear it."""
        loudest_db, best = -math.inf, None
        for gate in self._gates[place].values():
            sides: tuple[list[float], list[float]] = [], []
            for reader, inner in gate.items():
                level_db, at_s = crossing.heard.get(reader, (0.0, -math.inf))
                if now_s - at_s <= PAIR_S and not self._deaf(self._mates[reader]):
                    sides[inner].append(level_db)
            here_db = max(max(levels, default=-math.inf) for levels in sides)
            if here_db > loudest_db:
                loudest_db, best = here_db, sides
        if best is None or not all(best):
            return None
        outside, within = best
        return math.fsum(within) / len(within) - math.fsum(outside) / len(outside)


def _mates(zone: Zone, gates: Mapping[str, Mapping[int, bool]]) -> dict[int, int]:
    """Return for each gate reader the nearest one of the other side: the one on its post."""
    spots = {r.number: Plane(r.lon, r.lat) for r in zone.readers}
    at = {r.number: (r.lon, r.lat) for r in zone.readers}
    return {
        reader: min(
            (other for other, side in readers.items() if side != inner),
            key=lambda other: (math.hypot(*spots[reader].to_xy_m(*at[other])), other),
        )
        for readers in gates.values()
        for reader, inner in readers.items()
    }
