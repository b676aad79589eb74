"""Changes -> events: what is reported, on which lane, and how often."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.alarms import Alarm, Alarms
from gateway.core.resolve import Resolver
from gateway.core.sightings import WallClock
from gateway.effects import Commit
from gateway.events import Arrival, Danger, Departure, Position, Presence, RouteDeviation
from gateway.fix import Fix, where_of
from gateway.presence import changes
from gateway.zone import Field

POSITION_S = 5.0
"""Shortest time between two position events of a tag that is not resting."""
POSITION_RESTING_S = 60.0
"""The same for a tag that is at a place, or idle."""


@dataclass(slots=True)
class _Said:
    position_at_s: float = float("-inf")


class Concluder:
    """Makes events: adds the tag's pseudonym and the time, and opens and ends danger alarms."""

    def __init__(self, field: Field, resolver: Resolver, alarms: Alarms, wall: WallClock, counts: Counter[str]) -> None:
        self._field, self._resolver, self._alarms, self._wall, self._counts = field, resolver, alarms, wall, counts
        self._last_positions: dict[int, _Said] = {}
        self._dangers: dict[tuple[int, str], Alarm] = {}

    def step(self, change: changes.Change, now_s: float) -> Iterator[Commit]:
        """Yield the event for a change."""
        tag = self._resolver.tags[change.tag].name
        at, clock = self._wall.utc(now_s), self._wall.quality
        if isinstance(change, changes.DangerChange):
            yield from self._danger(change, tag, now_s)
        elif isinstance(change, changes.Arrived):
            self._counts["arrivals"] += 1
            where = where_of(self._field, change.fix)
            yield Commit(Arrival(observed_at=at, clock=clock, tag=tag, place=change.place, where=where))
        elif isinstance(change, changes.Left):
            self._counts["departures"] += 1
            where = where_of(self._field, change.fix)
            yield Commit(Departure(observed_at=at, clock=clock, tag=tag, place=change.place, where=where))
        elif isinstance(change, changes.Strayed):
            self._counts["route_deviations"] += change.off
            yield Commit(
                RouteDeviation(
                    observed_at=at,
                    clock=clock,
                    tag=tag,
                    route=change.route,
                    off=change.off,
                    probability=round(change.probability, 3),
                    where=where_of(self._field, change.fix),
                )
            )
        else:
            yield Commit(
                Presence(
                    observed_at=at,
                    clock=clock,
                    tag=tag,
                    state=change.state,
                    place=change.place,
                    where=None if change.fix is None else where_of(self._field, change.fix),
                    still=change.still,
                )
            )

    def position(self, tag: int, fix: Fix, *, resting: bool, moving: bool, now_s: float) -> Iterator[Commit]:
        """Yield a tag's position, with the time of the fix, if it is due."""
        said = self._last_positions.setdefault(tag, _Said())
        if now_s - said.position_at_s >= (POSITION_RESTING_S if resting else POSITION_S):
            said.position_at_s = now_s
            self._counts["positions"] += 1
            yield Commit(
                Position(
                    observed_at=self._wall.utc(fix.fixed_at_s),
                    clock=self._wall.quality,
                    tag=self._resolver.tags[tag].name,
                    where=where_of(self._field, fix),
                    moving=moving,
                )
            )

    def restore(self) -> list[tuple[int, str]]:
        """Take over the danger alarms that were restored; return the (tag, area) pairs that are still near."""
        for alarm in self._alarms.by_name.values():
            row = self._resolver.rows.get(alarm.tag)
            if alarm.kind == "danger" and not alarm.over and row is not None and alarm.area in self._field.dangers:
                self._dangers[row, alarm.area] = alarm
        return list(self._dangers)

    def _danger(self, change: changes.DangerChange, tag: str, now_s: float) -> Iterator[Commit]:
        key = (change.tag, change.area)
        alarm = self._dangers.pop(key, None)
        if change.near:
            who = f"{tag}/{change.area}".encode()
            alarm = self._alarms.open("danger", who, now_s, now_s)
            alarm.tag, alarm.area = tag, change.area
            self._dangers[key] = alarm
        elif alarm is None:
            return  # the full table dropped it: there is no alarm left to end
        else:
            alarm.over = True
            alarm.revision += 1
        alarm.heard_at_s = now_s
        yield Commit(
            Danger(
                observed_at=self._wall.utc(now_s),
                clock=self._wall.quality,
                alarm=alarm.name,
                revision=alarm.revision,
                tag=tag,
                area=change.area,
                near=change.near,
                probability=round(change.probability, 3),
                where=where_of(self._field, change.fix),
            ),
            self._alarms.memory(alarm),
        )
        alarm.committed = True
