"""Changes become events with time and names, promptly but not too often; a danger's alarm survives a power cut."""

from collections import Counter
from collections.abc import Sequence

from gateway.core.alarms import Alarms
from gateway.core.conclude import POSITION_RESTING_S, POSITION_S, Concluder
from gateway.core.resolve import Resolver
from gateway.core.sightings import WallClock
from gateway.effects import AlarmMemory, Commit
from gateway.events import Arrival, Danger, Departure, Event, Position, Presence, RouteDeviation
from gateway.fix import Fix
from gateway.presence import changes
from gateway.uplink import encode_row
from gateway.zone import Field
from tests.gateway.core.bed import TAGS, UTC_S, zone

FIX = Fix(12.0, 30.0, 8.0, 20.0, (), 100.0)
ROW = 3


class Bed:
    def __init__(self, memories: Sequence[AlarmMemory] = (), *, now_s: float = 100.0) -> None:
        self.wall = WallClock(now_s)
        self.wall.set(UTC_S, now_s, "good")
        self.counts: Counter[str] = Counter()
        self.alarms = Alarms("gw1", "e1", self.wall, self.counts)
        self.alarms.restore(memories, now_s)
        self.concluder = Concluder(Field(zone()), Resolver(TAGS, self.counts), self.alarms, self.wall, self.counts)
        self.near = self.concluder.restore()
        self.now_s = now_s

    def say(self, change: changes.Change, now_s: float = 100.0) -> list[Commit]:
        return list(self.concluder.step(change, now_s))


def one(commits: list[Commit]) -> Event:
    [commit] = commits
    return commit.event


def test_an_arrival_and_a_departure_name_the_place_and_the_tag() -> None:
    bed = Bed()
    arrival = one(bed.say(changes.Arrived(ROW, "school", FIX), 107.5))
    assert isinstance(arrival, Arrival)
    assert (arrival.tag, arrival.place, arrival.clock) == ("tag-003", "school", "good")
    assert arrival.observed_at.timestamp() == UTC_S + 7.5
    assert arrival.where.accuracy_95_m == 20.0
    departure = one(bed.say(changes.Left(ROW, "school", FIX)))
    assert isinstance(departure, Departure)
    assert bed.counts["arrivals"] == bed.counts["departures"] == 1
    assert encode_row(arrival)


def test_a_presence_may_have_no_position() -> None:
    presence = one(Bed().say(changes.PresenceChange(ROW, "unseen", "school", None)))
    assert isinstance(presence, Presence)
    assert (presence.state, presence.place, presence.where) == ("unseen", "school", None)


def test_a_still_bag_and_a_strayed_tag_are_told() -> None:
    bed = Bed()
    presence = one(bed.say(changes.PresenceChange(ROW, "at", "school", FIX, still=True)))
    assert isinstance(presence, Presence)
    assert (presence.state, presence.place, presence.still) == ("at", "school", True)
    off = one(bed.say(changes.Strayed(ROW, "by-the-park", True, 0.98765, FIX)))
    back = one(bed.say(changes.Strayed(ROW, "by-the-park", False, 0.1, FIX)))
    assert isinstance(off, RouteDeviation)
    assert isinstance(back, RouteDeviation)
    assert (off.tag, off.route, off.off, off.probability, back.off) == ("tag-003", "by-the-park", True, 0.988, False)
    assert bed.counts["route_deviations"] == 1, "ways back are not counted"


def test_positions_are_rationed_a_tag() -> None:
    bed = Bed()

    def told(seconds: int, *, resting: bool, tag: int = ROW) -> int:
        found = []
        for n in range(seconds * 2):
            found += list(
                bed.concluder.position(tag, FIX, resting=resting, moving=not resting, now_s=bed.now_s + n / 2)
            )
        bed.now_s += seconds
        assert all(isinstance(commit.event, Position) and commit.memory is None for commit in found)
        return len(found)

    assert told(600, resting=False) == 600 // POSITION_S
    assert told(600, resting=True) in (600 // POSITION_RESTING_S - 1, 600 // POSITION_RESTING_S)
    bed.now_s -= 600
    assert told(10, resting=False, tag=4) == 2, "each tag for itself"


def test_a_danger_is_one_alarm_from_near_to_clear() -> None:
    bed = Bed()
    [near] = bed.say(changes.DangerChange(ROW, "river", True, 0.61234, FIX))
    assert isinstance(near.event, Danger)
    assert (near.event.alarm, near.event.revision, near.event.near, near.event.probability) == (
        "gw1-e1-1", 0, True, 0.612,
    )  # fmt: skip
    assert near.memory is not None
    [clear] = bed.say(changes.DangerChange(ROW, "river", False, 0.05, FIX))
    assert isinstance(clear.event, Danger)
    assert (clear.event.alarm, clear.event.revision, clear.event.near) == ("gw1-e1-1", 1, False)
    [again] = bed.say(changes.DangerChange(ROW, "river", True, 0.7, FIX))
    assert isinstance(again.event, Danger)
    assert again.event.alarm == "gw1-e1-2"


def test_a_danger_goes_on_after_a_power_cut() -> None:
    bed = Bed()
    [near] = bed.say(changes.DangerChange(ROW, "river", True, 0.6, FIX))
    assert near.memory is not None
    again = Bed([near.memory], now_s=5.0)
    assert again.near == [(ROW, "river")]
    [clear] = again.say(changes.DangerChange(ROW, "river", False, 0.1, FIX))
    assert isinstance(clear.event, Danger)
    assert (clear.event.alarm, clear.event.revision) == ("gw1-e1-1", 1)
    assert clear.memory is not None
    assert Bed([clear.memory]).near == [], "over"


def test_a_danger_forgotten_under_pressure_ends_in_silence() -> None:
    assert Bed().say(changes.DangerChange(ROW, "river", False, 0.1, FIX)) == []
