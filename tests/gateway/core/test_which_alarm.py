"""A press is never swallowed by what came before it: a forgery, an old alarm of the same number, a repetition."""

import random

import pytest

from gateway.core import pipeline
from gateway.core.lamps import COPIES_MAX
from gateway.core.sos import DOUBTED_MAX
from gateway.events import UNKNOWN_TAG, Bell, Sos
from readers import wire
from readers.advertisement import epoch_at, mark, parse
from tests.gateway.core.bed import (
    SOS,
    SPACING_M,
    TAGS,
    UTC_S,
    Child,
    Pole,
    Shell,
    ack_rows,
    advertisement,
    alarms,
    cry,
    events,
    stages,
    told,
    zone,
)

FORGED = cry(press=1, count=60)[:13] + bytes(6)
"""What a sender without keys makes of a tag's current id: the next press number, any MIC."""
EPOCH = epoch_at(UTC_S)


@pytest.mark.parametrize("stage", [wire.RECEIVED, wire.STORED, wire.ACKNOWLEDGED, wire.DISPATCHED, wire.CLOSED])
def test_a_forgery_never_swallows_the_true_cry_whatever_a_person_did_with_it(stage: int) -> None:
    shell, pole = Shell(), Pole(4)
    [forged] = events(shell.frame(pole.sos(FORGED)), Sos)
    shell.stage(forged.alarm, stage)
    assert (forged.trust, forged.tag) == ("unverified", UNKNOWN_TAG)
    done = shell.frame(pole.sos(cry(press=1, count=61), number=2), later_s=20)
    [true] = events(done, Sos)
    assert (true.trust, true.tag, true.revision, true.alarm != forged.alarm) == ("verified", "tag-003", 0, True)
    assert stages(done, pole) == [(2, wire.RECEIVED)], "its lamp shows what a person gave it: nothing yet"
    shell.stage(true.alarm, wire.ACKNOWLEDGED)
    assert shell.state.alarms.by_name[forged.alarm].stage == max(stage, wire.RECEIVED)


def test_a_number_that_meant_a_forgery_begins_again_for_the_true_cry() -> None:
    """The reader has no mark for this tag yet, so both have one number. "Help is coming" was not for this child."""
    shell, pole = Shell(), Pole(4)
    [forged] = events(shell.frame(pole.sos(FORGED)), Sos)
    shell.stage(forged.alarm, wire.ACKNOWLEDGED)
    done = shell.frame(pole.sos(cry(press=1, count=61), shown=wire.ACKNOWLEDGED), later_s=5)
    [true] = events(done, Sos)
    assert stages(done, pole) == [(1, wire.WAITING), (1, wire.RECEIVED)]
    assert stages(shell.frame(pole.sos(FORGED, shown=wire.ACKNOWLEDGED)), pole)[-2:] == [(1, 0), (1, wire.RECEIVED)]
    assert stages(shell.frame(pole.sos(FORGED, shown=0)), pole) == [(1, wire.RECEIVED)], "the number stays the child's"
    shell.stage(true.alarm, wire.DISPATCHED)
    assert stages(shell.frame(pole.sos(cry(press=1, count=62), shown=1)), pole) == [(1, wire.DISPATCHED)]
    assert not [event for event in shell.events if getattr(event, "event", "") == "told"]


def test_a_copy_that_is_heard_before_the_true_cry_does_not_stand_in_its_way() -> None:
    """A stranger who hears the press repeats it with its mark. Nobody else can know the mark: the tag has cried."""
    shell, pole = Shell(), Pole(4)
    for n in range(COPIES_MAX + 9):
        copy = cry(press=1, count=60 + n)[:15] + bytes((n // 3, 2, 3, 4))  # a reader may send one again
        done = shell.frame(pole.sos(copy), later_s=0.1)
        assert stages(done, pole) == [(1, wire.WAITING if n < COPIES_MAX else wire.RECEIVED)]
    assert {event.trust for event in shell.events if isinstance(event, Sos)} == {"unverified"}, "it is told at once"
    [true] = events(shell.frame(pole.sos(cry(press=1, count=120))), Sos)
    assert (true.trust, true.revision) == ("verified", 0)


def test_what_is_forged_after_the_true_cry_does_not_touch_it() -> None:
    shell, pole = Shell(), Pole(4)
    [true] = events(shell.frame(pole.sos(cry(press=1, count=61))), Sos)
    for n in range(40):
        shell.frame(Pole(9).sos(cry(press=1, count=61 + n)[:15] + bytes((n, 1, 2, 3)), number=1 + n), later_s=0.1)
    shell.wait(5)
    own = [event for event in shell.events if isinstance(event, Sos) and event.alarm == true.alarm]
    assert all(event.trust == "verified" and 9 not in event.readers for event in own)


@pytest.mark.parametrize("closed_ago_s", [60, 300, 1190, 2 * 3600, 23 * 3600])
@pytest.mark.parametrize("seed", range(4))
def test_a_press_number_that_is_used_again_after_a_battery_change_cries(closed_ago_s: int, seed: int) -> None:
    rng = random.Random(f"{seed} {closed_ago_s}")
    shell, pole = Shell(), Pole(4)
    count = rng.randrange(65536)
    [first] = events(shell.frame(pole.sos(cry(press=7, count=count))), Sos)
    shell.stage(first.alarm, wire.CLOSED)
    for later_s in range(1, 31):
        shell.frame(pole.bind((1, advertisement(press=7, count=count + later_s))), later_s=1)
    shell.now_s += closed_ago_s - 30
    pipeline.set_clock(shell.state, UTC_S + shell.now_s - 1000.0, shell.now_s, "good")
    shell.wait(1)
    epoch = epoch_at(UTC_S + shell.now_s - 1000.0)
    drawn = (count + 2000 + rng.randrange(60000)) & 0xFFFF
    [again] = events(shell.frame(pole.sos(cry(press=7, count=drawn, epoch=epoch), number=2)), Sos)
    assert (again.trust, again.revision, again.alarm != first.alarm) == ("verified", 0, True)


@pytest.mark.parametrize("away_s", [5, 70, 300, 590])
def test_a_press_that_a_mesh_delivers_late_stays_one_alarm(away_s: int) -> None:
    """The reader sends the first cry until it is answered, and then the newest, which is many beacons ahead."""
    shell, pole = Shell(), Pole(4)
    for n, (count, age_s) in enumerate([(100, away_s), (130 + away_s, away_s + 1), (150 + away_s, away_s + 20)]):
        shell.frame(pole.sos(cry(press=1, count=count), age_ms=1000 * age_s, shown=min(n, 1)), later_s=[0, 1, 19][n])
    assert len(alarms(shell.events)) == 1


def test_a_tag_that_cries_on_after_the_alarm_was_closed_is_no_new_press() -> None:
    shell, pole = Shell(), Pole(4)
    [first] = events(shell.frame(pole.sos(cry(press=7, count=100))), Sos)
    shell.stage(first.alarm, wire.CLOSED)
    for n in range(1, 500):
        done = shell.frame(pole.sos(cry(press=7, count=127 + n), number=2), later_s=1)
        assert stages(done, pole) == [(2, wire.CLOSED)]
    assert alarms(shell.events) == {first.alarm}


@pytest.mark.parametrize("minutes", [0.2, 5, 12, 40])
def test_a_repetition_moves_nothing_and_is_an_alarm_of_its_own(minutes: float) -> None:
    shell, far = Shell(), Pole(10)
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(2).sos(recorded)), Sos)
    shell.wait(3)
    epoch = epoch_at(UTC_S + shell.now_s + minutes * 60 - 1000.0)
    near = Pole(3)
    shell.frame(
        near.bind((1, advertisement(press=1, count=100 + int(minutes * 60), epoch=epoch))), later_s=minutes * 60
    )
    row = shell.state.resolver.rows["tag-003"]
    before = shell.state.locator.latest(row)
    found = events(shell.frame(far.sos(recorded), later_s=6), Sos) + events(shell.wait(8), Sos)
    assert {(event.trust, event.tag, event.alarm != true.alarm) for event in found} == {("replayed", "tag-003", True)}
    assert found[0].readers == (10,)
    after = shell.state.locator.latest(row)
    assert (after is None) == (before is None)
    if after is not None:
        assert all(heard.reader != 10 for heard in after.evidence)


def test_a_frame_that_comes_late_is_no_repetition() -> None:
    """Reader 5 heard the same press and could not report it for a minute. It says when."""
    shell, late = Shell(), Pole(5)
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(4).sos(recorded)), Sos)
    for n in range(60):
        shell.frame(Pole(4).sos(cry(press=1, count=101 + n), shown=1), later_s=1)
    shell.frame(late.sos(recorded, age_ms=60_000))
    assert alarms(shell.events) == {true.alarm}


def test_a_live_relay_is_an_alarm_of_its_own() -> None:
    street = zone(readers=10)
    assert 9 * SPACING_M > 250
    shell, near, far = Shell(zone_=street), Pole(1), Pole(10)
    [true] = events(shell.frame(near.sos(cry(press=1, count=100), rssi_dbm=-60)), Sos)
    [relayed] = events(shell.frame(far.sos(cry(press=1, count=101), rssi_dbm=-60), later_s=0.2), Sos)
    assert (relayed.trust, relayed.alarm != true.alarm) == ("replayed", True)
    for n in range(50):
        shell.frame(near.sos(cry(press=1, count=102 + 2 * n), rssi_dbm=-60, shown=1), later_s=0.5)
        shell.frame(far.sos(cry(press=1, count=103 + 2 * n), rssi_dbm=-60, shown=1), later_s=0.5)
    shell.wait(3)
    assert alarms(shell.events) == {true.alarm, relayed.alarm}
    own = [event for event in shell.events if isinstance(event, Sos) and event.alarm == true.alarm]
    assert all(10 not in event.readers for event in own)


def test_a_reader_whose_flash_was_erased_is_heard_and_answered() -> None:
    shell, old = Shell(), Pole(2, boot=900)
    for _ in range(5):
        shell.frame(old.beat(), later_s=1)
    [first] = events(shell.frame(Pole(2, boot=1).bell(number=1), later_s=10), Bell)  # another life of boot 1
    shell.stage(first.alarm, wire.CLOSED)
    erased = Pole(2, boot=1)
    erased.sequence = 40
    done = shell.frame(erased.bell(number=1, age_ms=100), later_s=300)
    [bell] = events(done, Bell)
    assert (bell.trust, bell.alarm != first.alarm) == ("unverified", True)
    assert stages(done, erased) == [(1, wire.WAITING), (1, wire.RECEIVED)]
    assert alarms(events(shell.frame(erased.bell(number=1, age_ms=1100, shown=1), later_s=1), Bell)) <= {bell.alarm}
    done = shell.frame(erased.sos(cry(press=3, count=9), number=2), later_s=1)
    [sos] = events(done, Sos)
    assert (sos.trust, stages(done, erased)) == ("verified", [(2, wire.RECEIVED)])


def test_recorded_frames_of_bells_are_told_and_do_not_flood() -> None:
    shell, pole = Shell(), Pole(2)
    recorded = [pole.bell(number=n + 1) for n in range(60)]
    pole.sequence += 200
    shell.frame(pole.beat())
    for frame in recorded:
        shell.frame(frame, later_s=0.5)
    found = [event for event in shell.events if isinstance(event, Bell)]
    assert {event.trust for event in found} == {"unverified"}
    assert len({event.alarm for event in found}) == 1
    shell.stage(found[0].alarm, wire.ACKNOWLEDGED)
    [again] = events(shell.frame(recorded[0], later_s=5), Bell)
    assert again.alarm != found[0].alarm, "never into what a person has judged"


@pytest.mark.parametrize("stage", [wire.ACKNOWLEDGED, wire.CLOSED])
def test_a_cry_is_never_merged_into_what_a_person_has_judged(stage: int) -> None:
    shell, pole = Shell(utc_s=UTC_S - 40 * 900), Pole(4)  # a wrong clock: no cry can be proven
    for n in range(DOUBTED_MAX):
        shell.frame(pole.sos(cry(press=1, count=n, tag=f"tag-{n:03d}"), number=1 + n), later_s=1)
    shell.frame(pole.sos(cry(press=1, count=9, tag="tag-020"), number=20), later_s=1)
    assert len(alarms(shell.events)) == DOUBTED_MAX, "more of them join the last, at which nobody has looked"
    shell.stage(f"gw1-e1-{DOUBTED_MAX}", stage)
    done = shell.frame(pole.sos(cry(press=1, count=9, tag="tag-009"), number=9), later_s=1)
    assert len(events(done, Sos)) == 1
    assert stages(done, pole) == [(9, wire.RECEIVED)]
    pipeline.set_clock(shell.state, UTC_S + 7, shell.now_s, "good")
    shell.wait(3)
    named = {event.tag for event in shell.events if isinstance(event, Sos) and event.trust == "verified"}
    assert named >= {f"tag-{n:03d}" for n in (0, 1, 2, 3, 4, 9, 20)}, "those that were merged too"


def test_a_stranger_who_cries_for_hours_takes_no_memory() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(600):
        raw = b"\x20" + n.to_bytes(8, "big") + b"\x01" + bytes(9)
        shell.frame(pole.sos(raw, number=1 + n % 8), later_s=15)
    kept = shell.state.alarms
    assert len(kept._by_lamp) <= 8
    assert len(kept._by_cause) <= 8


@pytest.mark.parametrize("minutes", [5, 14, 30, 70])
def test_a_recording_of_a_cry_that_was_never_heard_here_is_no_verified_call(minutes: int) -> None:
    """The tag cried on after its call was closed. Somebody recorded one of those cries where no reader heard it."""
    shell, near = Shell(), Pole(2)
    [true] = events(shell.frame(near.sos(cry(press=1, count=100))), Sos)
    shell.stage(true.alarm, wire.CLOSED)
    recorded = cry(press=1, count=400)
    for second in range(0, minutes * 60, 5):
        utc_s = UTC_S + shell.now_s - 1000.0
        shell.frame(near.bind((1, advertisement(press=1, count=700 + second, utc_s=utc_s))), later_s=5)
        if second % 60 == 0:
            pipeline.set_clock(shell.state, utc_s + 5, shell.now_s, "good")
    for age_ms in (0, 700_000):
        found = events(
            shell.frame(Pole(10).sos(recorded, age_ms=age_ms, number=1 + age_ms // 1000 % 9), later_s=6), Sos
        )
        assert all(event.trust != "verified" for event in found)
    own = [event for event in shell.events if isinstance(event, Sos) and event.trust == "verified"]
    assert all(10 not in event.readers for event in own)


def test_a_relay_that_is_faster_than_the_tag_is_not_where_the_child_is() -> None:
    shell = Shell()
    child = Child(shell)
    child.stand(10.0, -3.0, 40)
    count = child.counter + 5
    [relayed] = events(shell.frame(Pole(10).sos(cry(press=1, count=count), rssi_dbm=-50)), Sos)
    [true] = events(shell.frame(child.poles[1].sos(cry(press=1, count=count), rssi_dbm=-60), later_s=0.1), Sos)
    assert (relayed.trust, true.trust) == ("replayed", "verified")


def test_rows_that_nobody_proves_make_no_cry_old() -> None:
    """Copies of an id, with a counter that runs ahead: the true beacons and the true cry are new all the same."""
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.bind((1, advertisement(count=100))))
    for n in range(600):
        shell.frame(pole.see((1, n * 5)), later_s=0.1)
    [event] = events(shell.frame(Pole(6).sos(cry(press=1, count=162))), Sos)
    assert event.trust == "verified"
    assert shell.state.resolver.identify(parse(advertisement(count=163)), shell.now_s).outcome == "good"


def test_a_true_cry_after_a_copy_was_closed_has_its_lamp() -> None:
    shell, pole = Shell(), Pole(4)
    copy = cry(press=1, count=60)[:15] + b"\1\2\3\4"
    [copied] = events(shell.frame(pole.sos(copy)), Sos)
    shell.stage(copied.alarm, wire.ACKNOWLEDGED)
    assert (1, wire.ACKNOWLEDGED) not in stages(shell.frame(pole.sos(copy, shown=1), later_s=1), pole)
    assert stages(shell.stage(copied.alarm, wire.CLOSED), pole) == [(1, wire.WAITING)], "it begins again"
    [true] = events(shell.frame(pole.bind((1, cry(press=1, count=70))), later_s=1), Sos)
    sent = shell.stage(true.alarm, wire.ACKNOWLEDGED)
    assert stages(sent, pole) == [(1, wire.WAITING), (1, wire.ACKNOWLEDGED)]


def test_a_binding_is_acknowledged_with_the_mark_of_the_tags_next_cry_and_a_stranger_with_none() -> None:
    shell, pole = Shell(), Pole(4)
    stranger = b"\x20" + bytes(range(18))
    sent = shell.frame(pole.bind((3, advertisement(press=7)), (9, stranger))) + shell.wait(1)
    [(_, rows)] = ack_rows(sent, pole)
    assert rows == [(3, 1, mark(TAGS["tag-003"], EPOCH, 8)), (9, 1, 0)]
    next_cry = cry(press=8, count=2)
    assert int.from_bytes(next_cry[13:15], "big") == rows[0][2]
    sent = shell.frame(pole.bind((3, next_cry)), later_s=1) + shell.wait(1)
    [(_, rows)] = ack_rows(sent, pole)
    assert rows == [(3, 2, mark(TAGS["tag-003"], EPOCH, 8))], "while it cries: the mark that it carries"


def test_a_stranger_that_becomes_known_gets_its_mark() -> None:
    shell, pole = Shell(utc_s=UTC_S - 40 * 900), Pole(4)
    raw = advertisement(press=7)
    assert [rows for _, rows in ack_rows(shell.frame(pole.bind((3, raw))) + shell.wait(1), pole)] == [[(3, 1, 0)]]
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    sent = shell.frame(pole.see((3, parse(raw).counter + 1)), later_s=1) + shell.wait(3)
    assert any(flags & wire.ACK_REBIND for flags, _ in ack_rows(sent, pole))


def test_drills_and_unread_cries_are_alarms_like_others() -> None:
    shell, pole = Shell(), Pole(4)
    drill = cry(press=1, count=60, flags=wire.FLAG_DRILL)
    [event] = events(shell.frame(pole.sos(drill)), Sos)
    assert (event.drill, event.trust) == (True, "verified")
    shell.stage(event.alarm, wire.CLOSED)
    [true] = events(shell.frame(pole.sos(cry(press=2, count=90), number=2), later_s=30), Sos)
    assert (true.drill, true.alarm != event.alarm) == (False, True)
    assert SOS == wire.FLAG_SOS


@pytest.mark.parametrize(("beacons", "later_s", "age_ms"), [(0, 8, 8000), (1, 700, 10_000_000)])
def test_a_late_frame_is_no_repetition_however_little_or_much_later(beacons: int, later_s: float, age_ms: int) -> None:
    """Reader 5 was slow by seconds, or for longer than its age field can say. A child would be shown as a replay."""
    shell, late = Shell(), Pole(5)
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(4).sos(recorded)), Sos)
    for n in range(beacons):
        shell.frame(Pole(4).sos(cry(press=1, count=101 + n), shown=1), later_s=1)
    shell.frame(late.sos(recorded, age_ms=age_ms), later_s=later_s - beacons)
    assert alarms(shell.events) == {true.alarm}


def test_a_cry_that_is_loud_at_a_reader_near_one_of_those_that_hear_it_is_no_relay() -> None:
    """Reader 1 may be on the map where it is not. Readers 6 and 10 are 120 m apart and agree."""
    shell = Shell()
    [true] = events(shell.frame(Pole(6).sos(cry(press=1, count=100), rssi_dbm=-60)), Sos)
    shell.frame(Pole(1).sos(cry(press=1, count=101), rssi_dbm=-60), later_s=0.2)
    shell.frame(Pole(10).sos(cry(press=1, count=102), rssi_dbm=-60), later_s=0.2)
    assert alarms(shell.events) == {true.alarm}


def test_a_forgery_with_the_very_count_of_the_true_cry_does_not_swallow_it() -> None:
    """Both come under one number of the reader, which has no mark for this tag. Only the MIC tells them apart."""
    shell, pole = Shell(), Pole(4)
    [forged] = events(shell.frame(pole.sos(FORGED)), Sos)
    [true] = events(shell.frame(pole.sos(cry(press=1, count=60), shown=1), later_s=1), Sos)
    assert (true.trust, true.tag, true.alarm != forged.alarm) == ("verified", "tag-003", True)


def test_an_acknowledgement_of_a_slots_old_tag_has_not_the_mark_of_its_new_one() -> None:
    shell, pole = Shell(), Pole(4)
    sent = shell.frame(pole.bind((3, advertisement("tag-001", press=7))))
    sent += shell.frame(pole.bind((3, advertisement("tag-002", press=7)))) + shell.wait(1)
    [(_, rows)] = ack_rows(sent, pole)
    assert rows == [(3, 1, 0), (3, 2, mark(TAGS["tag-002"], EPOCH, 8))]


def test_a_crying_child_that_is_driven_away_is_no_relay() -> None:
    shell = Shell()
    [true] = events(shell.frame(Pole(1).sos(cry(press=1, count=100), rssi_dbm=-60)), Sos)
    shell.frame(Pole(10).sos(cry(press=1, count=115), rssi_dbm=-60), later_s=15)
    [moved] = events(shell.wait(3), Sos)
    assert (moved.alarm, moved.trust, moved.readers) == (true.alarm, "verified", (1, 10))
    assert [event.alarm for event in shell.events if isinstance(event, Sos)] == [true.alarm] * 2


def test_a_repetition_is_shown_where_it_is_heard_and_not_where_its_tag_is() -> None:
    shell = Shell()
    child = Child(shell)
    recorded = cry(press=1, count=50)
    shell.frame(child.poles[2].sos(recorded))
    child.stand(60, -3, 20)
    assert shell.state.locator.latest(shell.state.resolver.rows["tag-003"]) is not None
    [event] = events(shell.frame(child.poles[10].sos(recorded), later_s=6), Sos)
    assert (event.trust, event.where is not None) == ("replayed", True)
    assert event.where is not None
    assert [heard.reader for heard in event.where.evidence] == [10]


def test_a_frame_that_comes_late_says_nothing_of_where_the_child_is_now() -> None:
    shell, late = Shell(), Pole(8)
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(4).sos(recorded)), Sos)
    for n in range(60):
        shell.frame(Pole(4).sos(cry(press=1, count=101 + n), shown=1), later_s=1)
    shell.frame(late.sos(recorded, age_ms=66_000, rssi_dbm=-50), later_s=6)
    assert set(shell.state.alarms.by_name[true.alarm].readings) == {4}
    found = events(shell.wait(5), Sos)
    assert not [event for event in found if event.where and any(heard.reader == 8 for heard in event.where.evidence)]


def test_a_press_number_used_again_with_a_count_a_little_ahead_cries() -> None:
    """After a new battery the count is drawn: it may be one that the old one would have passed long ago."""
    shell, pole = Shell(), Pole(4)
    [first] = events(shell.frame(pole.sos(cry(press=7, count=100))), Sos)
    shell.stage(first.alarm, wire.CLOSED)
    [again] = events(shell.frame(pole.sos(cry(press=7, count=140), number=2), later_s=600), Sos)
    assert (again.trust, again.revision, again.alarm != first.alarm) == ("verified", 0, True)


def test_a_frame_that_comes_after_a_restart_of_the_gateway_is_no_repetition() -> None:
    shell, late = Shell(), Pole(5)
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(4).sos(recorded)), Sos)
    shell.frame(Pole(4).sos(cry(press=1, count=101), shown=1), later_s=1)
    shell.now_s += 60
    shell.restart()
    shell.frame(late.sos(recorded, age_ms=63_000), later_s=2)
    assert alarms(shell.events) == {true.alarm}


def test_a_repeated_frame_says_nothing_of_the_lamp() -> None:
    """Its number meant a stranger's alarm then, and the light was the stranger's."""
    shell, pole = Shell(), Pole(4)
    [forged] = events(shell.frame(pole.sos(FORGED)), Sos)
    shell.stage(forged.alarm, wire.ACKNOWLEDGED)
    recorded = pole.sos(cry(press=1, count=61), shown=wire.ACKNOWLEDGED)
    [true] = events(shell.frame(recorded, later_s=1), Sos)
    shell.frame(pole.sos(cry(press=1, count=61), shown=wire.WAITING))
    shell.frame(pole.sos(cry(press=1, count=61), shown=wire.RECEIVED), later_s=1)
    shell.stage(true.alarm, wire.ACKNOWLEDGED)
    shell.frame(recorded, later_s=1)
    assert [event.stage for event in told(shell.events) if event.alarm == true.alarm] == ["received"]
    assert (1, wire.ACKNOWLEDGED) in stages(shell.wait(20), pole), "it is repeated until the lamp shows it"


@pytest.mark.parametrize("later_s", [2, 4.9, 6])
@pytest.mark.parametrize("pause_s", [30, 300, 700])
def test_a_recorded_cry_is_never_verified_though_its_tag_was_just_heard(later_s: float, pause_s: float) -> None:
    """A recorded cry that is repeated just after the tag was bound at a reader, in the epoch of its press."""
    shell = Shell()
    recorded = cry(press=1, count=100)
    [true] = events(shell.frame(Pole(2).sos(recorded)), Sos)
    shell.stage(true.alarm, wire.CLOSED)
    shell.wait(pause_s)
    shell.frame(Pole(3).bind((1, advertisement(press=1, count=100 + int(pause_s)))))
    found = events(shell.frame(Pole(5).sos(recorded, rssi_dbm=-60), later_s=later_s), Sos)
    assert {event.trust for event in found} <= {"replayed"}
