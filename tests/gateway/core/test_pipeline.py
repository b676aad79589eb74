"""The core as a whole, from frames to events: a child's morning, restarts, paused and copied tags, positions."""

import pytest

from gateway.core import pipeline
from gateway.core.resolve import SAME_S
from gateway.events import Arrival, Danger, Departure, Event, GatewayHealth, Position, Presence, Sos
from gateway.locate.tracker import LATE_EVERY, LOOK_BACK
from readers import wire
from tests.gateway.core.bed import INSIDE, UTC_S, Child, Pole, Shell, acks, advertisement, at, events


def test_a_childs_morning() -> None:
    """Along the street, into the school, no signal for 18 minutes, then out along the street to the river and back."""
    shell = Shell()
    child = Child(shell)
    done = child.walk(150, 40)
    assert events(done, Arrival) == []
    positions = events(done, Position)
    assert len(positions) > 8
    assert all(p.tag == "tag-003" and p.moving for p in positions)
    done = child.stand(*INSIDE, 60)
    [arrival] = events(done, Arrival)
    assert arrival.place == "school"
    assert [p.state for p in events(done, Presence)][-1] == "at"
    resting = events(child.stand(*INSIDE, 300), Position)
    assert len(resting) <= 6
    silent = shell.wait(100)
    assert [(p.state, p.place) for p in events(silent, Presence)] == [("unseen", "school")]
    assert events(shell.wait(1000), Departure) == [], "silence is no departure"
    assert len(events(shell.wait(1), Presence)) == 0
    done = child.walk(70, 262)
    [departure] = events(done, Departure)
    assert departure.place == "school"
    [near] = events(done, Danger)
    assert (near.area, near.near) == ("river", True)
    done = child.walk(262, 120)
    [clear] = events(done, Danger)
    assert (clear.alarm, clear.near, clear.revision) == (near.alarm, False, 1)


def test_a_restart_in_the_school_is_no_second_arrival() -> None:
    shell = Shell()
    child = Child(shell)
    assert len(events(child.stand(*INSIDE, 60), Arrival)) == 1
    before = pipeline.snapshot(shell.state)
    shell.restart()
    assert pipeline.snapshot(shell.state) == before
    done = child.stand(*INSIDE, 120)
    assert events(done, Arrival) == []
    assert events(done, Departure) == []
    assert child.bound, "the rows of forgotten slots asked for their bindings"


def test_changes_count_what_a_snapshot_is_worth_for() -> None:
    shell = Shell()
    child = Child(shell)
    child.walk(150, 120)
    assert shell.state.changes == 0
    child.stand(*INSIDE, 60)
    assert shell.state.changes == 1


def test_a_dead_reader_is_not_covered() -> None:
    shell = Shell()
    done = Child(shell).stand(*INSIDE, 60)
    assert [p.state for p in events(done, Presence)][-1] == "at"
    states = [p.state for p in events(shell.wait(200), Presence)]
    assert states == ["unseen", "not_covered"]


def test_a_paused_tag_is_not_followed_and_its_cry_is_heard() -> None:
    shell = Shell()
    child = Child(shell)
    child.stand(*INSIDE, 60)
    pipeline.pause(shell.state, "tag-003")
    done = child.stand(*INSIDE, 30) + child.walk(40, 262)
    [told] = events(done, Presence)
    assert (told.state, told.place, told.where) == ("paused", None, None)
    assert [e for kind in (Position, Arrival, Departure, Danger) for e in events(done, kind)] == []
    [sos] = events(shell.frame(Pole(9).sos(advertisement(flags=wire.FLAG_SOS, press=1, count=5000))), Sos)
    assert (sos.tag, sos.trust) == ("tag-003", "verified")
    assert sos.where is not None
    shell.restart()
    pipeline.resume(shell.state, "tag-003", shell.now_s)
    child.counter = 6000
    done = child.stand(*INSIDE, 120)
    assert events(done, Arrival) == [], "it may have been there all the time"
    assert [(p.state, p.place) for p in events(done, Presence)][-1] == ("at", "school")
    assert len(events(done, Position)) > 0
    with pytest.raises(KeyError):
        pipeline.pause(shell.state, "nobody")


def test_a_tag_paused_in_the_configuration_is_told_of_once_over_restarts() -> None:
    shell = Shell(paused=("tag-003", "tag-that-is-gone"))
    told = [e for _ in range(3) for e in (shell.restart(), events(shell.wait(5), Presence))[1]]
    assert [(p.tag, p.state) for p in told] == [("tag-003", "paused")]


def test_a_copied_tag_at_both_ends_of_the_street_is_told_of() -> None:
    shell = Shell()
    raw = advertisement()
    found: list[Event] = []
    for n in (1, 10):
        done = shell.frame(Pole(n).bind((1, raw), rssi_dbm=-58), later_s=1) + shell.wait(1.1)
        found += events(done, GatewayHealth)
    assert [e.what for e in found if isinstance(e, GatewayHealth)] == ["tag_in_two_places"]


def test_a_replayed_advertisement_is_not_followed_and_its_slot_not_bound() -> None:
    shell = Shell()
    old = advertisement(count=100)
    shell.frame(Pole(2).bind((1, old)))
    shell.frame(Pole(2).bind((1, advertisement(count=200))), later_s=100)
    far = Pole(9)
    done = shell.frame(far.bind((1, old)), later_s=SAME_S) + shell.wait(1)
    assert acks(done, far) == [], "not acknowledged, so it says it again with what it hears next"
    assert events(done, Position) == []
    done = shell.frame(far.see((1, 7))) + shell.wait(1)
    assert events(done, Position) == []
    assert shell.counts["rows_refused_slot"] == 1
    done = shell.frame(far.bind((1, advertisement(count=301)))) + shell.wait(1)
    assert len(acks(done, far)) == 1


def test_what_readers_hear_within_a_second_makes_one_fix() -> None:
    shell = Shell()
    shell.wait(1)
    for n in (3, 4):
        shell.frame(Pole(n).bind((1, advertisement())))
    assert "fixes" not in shell.counts, "a frame is read without waiting for any locating"
    shell.wait(0.01)
    assert shell.counts["fixes"] == 1
    fix = shell.state.locator.latest(shell.state.resolver.rows["tag-003"])
    assert fix is not None
    assert {h.reader for h in fix.evidence} == {3, 4}
    shell.frame(Pole(5).bind((1, advertisement(count=2))), later_s=0.5)
    shell.wait(0.4)
    assert shell.counts["fixes"] == 1
    shell.wait(0.2)
    assert shell.counts["fixes"] == 2


def test_positions_are_told_of_smoothed_fixes_and_dated_when_they_were_true() -> None:
    shell = Shell()
    child = Child(shell)
    done = [(shell.now_s, effect) for _ in range(20) for effect in child.stand(135, -3, 2)]
    lived_s = shell.now_s - 1000.0
    told = [(now_s, position) for now_s, effect in done for position in events([effect], Position)]
    assert len(told) == pytest.approx(lived_s / LATE_EVERY, abs=2)
    for now_s, position in told:
        late_s = UTC_S + now_s - 1000.0 - position.observed_at.timestamp()
        assert LOOK_BACK - 1.5 < late_s < LOOK_BACK + 4.0
        assert position.where.geometry.coordinates == pytest.approx(at(135, -3), abs=3e-4)
    assert shell.counts["fixes"] == pytest.approx(lived_s, abs=3), "a fix a second, told or not"
