"""One press, one alarm, whoever tells it and whatever is lost; the lamp shows what is true; no cry is dropped."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from gateway.core import pipeline
from gateway.core.alarms import ALARMS_HARD_MAX, ALARMS_MAX, Alarms
from gateway.core.sos import REPEAT_FOR_S, REVISE_S, REVISIONS_MAX, UNVERIFIED_MAX
from gateway.effects import Commit, Downlink, Remember
from gateway.events import UNKNOWN_TAG, Bell, Sos, Told
from readers import wire
from readers.advertisement import EPOCH_S, TagKeys, build, epoch_at
from tests.gateway.core.bed import UTC_S, Pole, Shell, advertisement, alarms, events, stages, told, zone

SOS = wire.FLAG_SOS


def cry(press: int = 1, counter: int = 50, tag: str = "tag-003", **more: int) -> bytes:
    return advertisement(tag, flags=SOS | more.pop("flags", 0), press=press, counter=counter, **more)


def stranger(n: int, press: int = 1) -> bytes:
    return build(TagKeys(n.to_bytes(16, "big"), bytes(16)), epoch_at(UTC_S), flags=SOS, press=press)


# ---- the first word --------------------------------------------------------------------------------------------------


def test_a_press_is_committed_before_its_reader_is_told() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.beat())
    done = shell.frame(pole.sos(cry(press=7), age_ms=800))
    assert isinstance(done[0], Commit)
    event = done[0].event
    assert isinstance(event, Sos)
    assert (event.alarm, event.revision, event.tag, event.trust, event.drill) == (
        "gw1-e1-1", 0, "tag-003", "verified", False,
    )  # fmt: skip
    assert (event.press, event.readers, event.clock) == (7, (4,), "good")
    assert event.observed_at.timestamp() == pytest.approx(UTC_S - 0.8)
    assert event.where is not None
    assert event.where.evidence[0].reader == 4
    assert done[0].memory is not None
    assert done[0].memory.stage == wire.RECEIVED
    assert isinstance(done[1], Downlink)
    assert done[1].urgent
    assert stages(done, pole) == [(1, wire.RECEIVED)]


def test_if_the_commit_fails_nobody_is_told_and_the_next_frame_says_the_same() -> None:
    shell, pole = Shell(), Pole(4)
    step = pipeline.on_frame(
        shell.state, pole.sos(cry()).__class__(1, None, None, pole.sos(cry()).payload), shell.now_s
    )
    first = next(step)
    step.close()  # type: ignore[attr-defined]
    assert isinstance(first, Commit)
    assert shell.downlinks == []
    other = Pole(5)
    again = shell.frame(other.sos(cry(counter=51), rssi_dbm=-50), later_s=0.4)
    assert isinstance(again[0], Commit)
    assert again[0].event == first.event, "the same bytes, so that an outbox which kept it can tell"
    assert stages(again, other) == [(1, wire.RECEIVED)]
    assert alarms(shell.events) == {"gw1-e1-1"}


def test_an_sos_of_the_second_row_comes_before_any_locating_of_the_first() -> None:
    shell, pole = Shell(), Pole(4)
    frame = pole.bind((1, advertisement("tag-001")), (2, cry()))
    step = pipeline.on_frame(shell.state, frame, shell.now_s)
    first = next(step)
    assert isinstance(first, Commit)
    assert isinstance(first.event, Sos)
    assert shell.state.locator.followed() == 0
    done = shell.carry(step)
    assert shell.state.locator.followed() == 2
    assert events(done, Sos) == []


def test_an_sos_survives_a_locator_that_breaks() -> None:
    shell, pole = Shell(), Pole(4)

    def broken(*_: object) -> None:
        raise RuntimeError("locator")

    shell.state.locator.hear = broken  # type: ignore[method-assign]
    shell.state.locator.step = broken  # type: ignore[assignment,method-assign]
    step = pipeline.on_frame(shell.state, pole.sos(cry()), shell.now_s)
    assert isinstance(next(step), Commit)
    assert isinstance(next(step), Downlink)
    with pytest.raises(RuntimeError):
        list(step)
    step = pipeline.on_stage(shell.state, "gw1-e1-1", wire.ACKNOWLEDGED, shell.now_s)
    assert isinstance(next(step), Downlink)
    list(step)
    shell.state.locator.deadline_s = lambda: shell.now_s  # type: ignore[method-assign]
    step = pipeline.on_tick(shell.state, shell.now_s + 1)
    assert isinstance(next(step), Downlink), "the lamp is told again before anything is located"
    with pytest.raises(RuntimeError):
        list(step)


@pytest.mark.parametrize("flags", [0, wire.FLAG_DRILL])
def test_a_drill_says_so(flags: int) -> None:
    [event] = events(Shell().frame(Pole(4).sos(cry(flags=flags))), Sos)
    assert event.drill == bool(flags)


@pytest.mark.parametrize(
    "raw",
    [
        stranger(1),
        cry()[:15] + b"\0\0\0\0",
        b"\x20" + cry()[1:],
        advertisement(press=1),
    ],
    ids=["a tag of another zone", "a wrong MIC", "another version", "a reader says SOS, the tag does not"],
)
def test_what_cannot_be_proven_is_raised_as_unverified(raw: bytes) -> None:
    shell, pole = Shell(), Pole(4)
    done = shell.frame(pole.sos(raw))
    [event] = events(done, Sos)
    assert (event.trust, event.tag) == ("unverified", UNKNOWN_TAG)
    assert stages(done, pole) == [(1, wire.RECEIVED)]


def test_a_reader_without_a_position_still_raises_an_alarm() -> None:
    shell = Shell(zone_=zone(3))
    [event] = events(shell.frame(Pole(4).sos(cry())), Sos)
    assert event.where is None


# ---- one press, one alarm --------------------------------------------------------------------------------------------


def test_more_readers_of_a_press_are_answered_at_once_and_told_of_later() -> None:
    shell = Shell()
    shell.frame(Pole(4).sos(cry()))
    other = Pole(5)
    done = shell.frame(other.sos(cry(counter=52), number=9), later_s=0.3)
    assert stages(done, other) == [(9, wire.RECEIVED)]
    assert events(done, Sos) == []
    [revised] = events(shell.wait(REVISE_S + 0.1), Sos)
    assert (revised.alarm, revised.revision, revised.readers) == ("gw1-e1-1", 1, (4, 5))
    assert revised.where is not None


def test_a_row_of_a_report_raises_it_too_and_is_the_same_press() -> None:
    shell = Shell()
    [first] = events(shell.frame(Pole(4).bind((1, cry()))), Sos)
    pole = Pole(5)
    done = shell.frame(pole.sos(cry(counter=51)), later_s=0.2)
    assert events(done, Sos) == []
    assert stages(done, pole) == [(1, wire.RECEIVED)]
    assert alarms(shell.events) == {first.alarm}


def test_another_press_is_another_alarm() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1), number=1))
    shell.frame(pole.sos(cry(press=2, counter=60), number=2), later_s=5)
    shell.frame(pole.sos(cry(press=2, counter=61, tag="tag-004"), number=3), later_s=5)
    assert len(alarms(shell.events)) == 3


def test_the_same_count_long_after_the_last_cry_is_another_press() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1, counter=1)))
    shell.wait(1201)
    raw = advertisement(flags=SOS, press=1, counter=2000, utc_s=UTC_S + 1201)
    shell.frame(Pole(5).sos(raw))
    assert len(alarms(shell.events)) == 2


def test_a_replayed_cry_is_the_old_press_for_a_day() -> None:
    shell, pole = Shell(), Pole(4)
    old = cry(press=1, counter=10)
    shell.frame(pole.sos(old))
    shell.frame(pole.bind((1, advertisement(counter=700))), later_s=690)
    shell.wait(1300)
    shell.frame(Pole(5).bind((1, old)))
    assert len(alarms(shell.events)) == 1
    assert shell.counts["advertisements_replayed"] >= 1


def test_a_press_over_the_turn_of_an_epoch_is_one_press() -> None:
    """The id rolls, so the reader takes it for another alarm; the tag and its count say it is the same."""
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1, counter=10), number=1))
    shell.wait(EPOCH_S - 100)
    raw = advertisement(flags=SOS, press=1, counter=900, utc_s=UTC_S + EPOCH_S)
    done = shell.frame(pole.sos(raw, number=2), later_s=1)
    assert stages(done, pole) == [(2, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_press_is_known_by_its_bare_id_when_no_table_can_resolve_it_any_more() -> None:
    shell = Shell()
    shell.frame(Pole(4).sos(cry(press=1, counter=10)))
    rolled = advertisement(flags=SOS, press=1, counter=900, utc_s=UTC_S + EPOCH_S)
    shell.frame(Pole(5).sos(rolled), later_s=EPOCH_S - 100)
    pipeline.set_clock(shell.state, 5.0, shell.now_s, "unsure")
    for n, raw in ((6, rolled), (7, cry(press=1, counter=10))):
        pole = Pole(n)
        assert stages(shell.frame(pole.sos(raw), later_s=1), pole) == [(1, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_poll_hours_later_raises_nothing() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    shell.stage("gw1-e1-1", wire.STORED)
    for _ in range(3):
        done = shell.frame(pole.sos(cry(), shown=1, age_ms=10_000_000), later_s=4000)
        assert stages(done, pole) == [(1, wire.STORED)]
    shell.frame(pole.sos(cry(), shown=2, age_ms=10_000_000), later_s=30)
    assert stages(shell.frame(pole.sos(cry(), shown=2, age_ms=10_000_000), later_s=30), pole) == []
    assert len(alarms(shell.events)) == 1


def test_a_poll_by_a_reader_whose_first_word_was_lost_with_our_memory_of_it_is_the_same_press() -> None:
    """Reader 5's frames never arrived, the gateway was away for an hour; now its alarm is older than its scale."""
    shell = Shell()
    shell.frame(Pole(4).sos(cry()))
    shell.now_s += 3600
    shell.restart()
    pole = Pole(5)
    done = shell.frame(pole.sos(cry(counter=51), age_ms=10_000_000))
    assert stages(done, pole) == [(1, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_duplicate_frame_yields_just_the_stage_again() -> None:
    shell, pole = Shell(), Pole(4)
    frame = pole.sos(cry())
    shell.frame(frame)
    done = shell.frame(frame, later_s=0.2)
    assert [type(effect) for effect in done] == [Downlink]
    assert stages(done, pole) == [(1, wire.RECEIVED)]
    for _ in range(70):
        shell.frame(pole.beat())
    assert stages(shell.frame(frame), pole) == [(1, wire.RECEIVED)], "stale, but known"
    assert len(shell.events) == len([e for e in shell.events if not isinstance(e, Sos)]) + 1


def test_a_stale_frame_raises_what_can_be_proven_and_nothing_else() -> None:
    shell, pole = Shell(), Pole(4)
    proven, unproven, bell = pole.sos(cry()), pole.sos(stranger(1), number=2), pole.bell(number=3)
    for _ in range(70):
        shell.frame(pole.beat())
    assert len(events(shell.frame(unproven), Sos)) == 0
    assert len(events(shell.frame(bell), Bell)) == 0
    assert len(events(shell.frame(proven), Sos)) == 1
    assert (shell.counts["cries_refused"], shell.counts["bells_refused"]) == (1, 1)


def test_a_reader_with_a_wiped_flash_is_still_heard_when_somebody_cries() -> None:
    shell = Shell()
    shell.frame(Pole(4, boot=900).beat())
    [event] = events(shell.frame(Pole(4, boot=1).sos(cry())), Sos)
    assert event.trust == "verified"


# ---- unproven cries --------------------------------------------------------------------------------------------------


def test_unproven_cries_are_merged_above_five_a_minute_and_proven_ones_never() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(50):
        done = shell.frame(pole.sos(stranger(n), number=1 + n), later_s=0.5)
        assert stages(done, pole) == [(1 + n, wire.RECEIVED)], "each is answered"
    assert len(alarms(shell.events)) == UNVERIFIED_MAX
    assert shell.counts["cries_merged"] == 50 - UNVERIFIED_MAX
    shell.frame(Pole(5).sos(stranger(99)))
    assert len(alarms(shell.events)) == UNVERIFIED_MAX + 1, "each reader has its own measure"
    for n in range(20):
        shell.frame(pole.sos(cry(tag=f"tag-{n:03d}"), number=100 + n))
    assert len(alarms(shell.events)) == UNVERIFIED_MAX + 1 + 20
    shell.now_s += 61
    shell.frame(pole.sos(stranger(200), number=200))
    assert len(alarms(shell.events)) == UNVERIFIED_MAX + 2 + 20


def test_a_cry_is_not_merged_into_an_alarm_that_was_closed() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(UNVERIFIED_MAX):
        shell.frame(pole.sos(stranger(n), number=1 + n))
    shell.stage(f"gw1-e1-{UNVERIFIED_MAX}", wire.CLOSED)
    assert len(events(shell.frame(pole.sos(stranger(77), number=77)), Sos)) == 1


def test_a_forgery_that_was_closed_does_not_swallow_the_true_cry() -> None:
    shell = Shell()
    forged = cry()[:15] + b"\0\0\0\0"
    [event] = events(shell.frame(Pole(4).sos(forged)), Sos)
    shell.stage(event.alarm, wire.CLOSED)
    [true] = events(shell.frame(Pole(5).sos(cry()), later_s=5), Sos)
    assert (true.trust, true.alarm != event.alarm) == ("verified", True)


def test_an_unproven_cry_that_is_proven_later_is_the_same_alarm_revised() -> None:
    """The clock was hours off, so the id was in no column; then it was set."""
    shell = Shell(utc_s=UTC_S - 40 * EPOCH_S)
    pole = Pole(4)
    [first] = events(shell.frame(pole.sos(cry())), Sos)
    assert first.trust == "unverified"
    shell.utc_offset_s = UTC_S - shell.now_s
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.frame(pole.sos(cry(counter=53), shown=1), later_s=1)
    [proven] = events(shell.wait(0.1), Sos)
    assert (proven.alarm, proven.trust, proven.tag, proven.revision) == (first.alarm, "verified", "tag-003", 1)
    other = Pole(5)
    assert stages(shell.frame(other.sos(cry(counter=54))), other) == [(1, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_merged_cry_that_is_proven_later_gets_its_own_alarm() -> None:
    shell = Shell(utc_s=UTC_S - 40 * EPOCH_S)
    pole = Pole(4)
    for n in range(UNVERIFIED_MAX):
        shell.frame(pole.sos(stranger(n), number=1 + n))
    shell.frame(pole.sos(cry(), number=50))
    assert len(alarms(shell.events)) == UNVERIFIED_MAX
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    done = shell.frame(pole.sos(cry(counter=51), number=50, shown=1), later_s=1)
    [event] = events(done, Sos)
    assert (event.trust, event.tag, event.revision) == ("verified", "tag-003", 0)
    assert event.alarm == f"gw1-e1-{UNVERIFIED_MAX + 1}"


@pytest.mark.parametrize("off_epochs", [-8, -3, 3, 8])
def test_a_tag_or_a_gateway_with_a_wrong_clock_still_cries_by_name(off_epochs: int) -> None:
    shell, pole = Shell(utc_s=UTC_S - off_epochs * EPOCH_S), Pole(4)
    [first] = events(shell.frame(pole.sos(cry())), Sos)
    later = events(shell.wait(30), Sos)
    assert (first.trust == "verified") or later[-1].trust == "verified"


# ---- revisions -------------------------------------------------------------------------------------------------------


def test_revisions_need_news_and_end() -> None:
    shell, pole = Shell(), Pole(1)
    shell.frame(pole.sos(cry()))
    found = []
    for n in range(400):
        if n % 60 == 59:
            pole = Pole(2 + n // 60)  # it walks along the street
        shell.frame(pole.sos(cry(counter=60 + n), shown=1), later_s=1)
        found += events(shell.wait(0.01), Sos)
    assert [event.revision for event in found] == list(range(1, REVISIONS_MAX + 1))
    assert {event.alarm for event in found} == {"gw1-e1-1"}

    quiet, one = Shell(), Pole(4)
    quiet.frame(one.sos(cry(), rssi_dbm=-60))
    where = events(quiet.wait(REVISE_S + 1), Sos)
    for n in range(60):
        quiet.frame(one.sos(cry(counter=60 + n), shown=1, rssi_dbm=-60), later_s=1)
        where += events(quiet.wait(0), Sos)
    assert len(where) <= 1, "nothing new to say"
    assert all(e.where is not None and e.where.radius_50_m < 20 for e in where), "never vaguer than the first word"


# ---- stages and lamps ------------------------------------------------------------------------------------------------


def test_a_stage_goes_to_every_lamp_and_only_rises() -> None:
    shell, poles = Shell(), [Pole(4), Pole(5), Pole(6)]
    for pole in poles:
        shell.frame(pole.sos(cry(), number=pole.number))
        shell.frame(pole.sos(cry(), number=pole.number, shown=1))
    done = shell.stage("gw1-e1-1", wire.ACKNOWLEDGED)
    assert [stages(done, pole) for pole in poles] == [[(pole.number, wire.ACKNOWLEDGED)] for pole in poles]
    assert isinstance(done[-1], Remember)
    assert shell.memories[done[-1].memory.key].stage == wire.ACKNOWLEDGED
    assert shell.stage("gw1-e1-1", wire.STORED) == []
    assert shell.stage("gw1-e1-1", wire.ACKNOWLEDGED) == []
    assert stages(shell.frame(poles[0].sos(cry(), number=4, shown=2)), poles[0]) == [(4, wire.ACKNOWLEDGED)]


@pytest.mark.parametrize(("alarm", "stage"), [("gw1-e1-99", 3), ("", 3), ("gw1-e1-1", 0), ("gw1-e1-1", 6)])
def test_a_stage_of_nothing_known_is_refused(alarm: str, stage: int) -> None:
    shell = Shell()
    shell.frame(Pole(4).sos(cry()))
    assert shell.stage(alarm, stage) == []
    assert shell.counts["stages_refused"] == 1


def test_a_stage_is_repeated_with_growing_pauses_until_it_is_shown_or_ten_minutes_passed() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    shell.frame(pole.sos(cry(), shown=1), later_s=0.1)
    shell.stage("gw1-e1-1", wire.ACKNOWLEDGED)
    sent: list[float] = []
    begun = shell.now_s
    while shell.now_s - begun < 800:
        if stages(shell.wait(0.1), pole):
            sent.append(shell.now_s - begun)
    gaps = [b - a for a, b in pairwise(sent)]
    assert gaps[0] < 1.5
    assert gaps == sorted(gaps) or max(b - a for a, b in pairwise(gaps)) <= 10.2
    assert 50 < len(sent) < 80
    assert sent[-1] < REPEAT_FOR_S + 1
    done = shell.frame(pole.sos(cry(), shown=1))
    assert stages(done, pole) == [(1, wire.ACKNOWLEDGED)], "asked, it is answered all the same"
    shell.frame(pole.sos(cry(), shown=3))
    assert stages(shell.wait(30), pole) == []


def test_what_a_lamp_shows_is_told_once_a_stage() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    for shown, stage in ((1, 0), (1, 3), (3, 0), (3, 5), (1, 0), (5, 0), (5, 0)):
        if stage:
            shell.stage("gw1-e1-1", stage)
        shell.frame(pole.sos(cry(), shown=shown), later_s=1)
    assert [(t.alarm, t.reader, t.stage) for t in told(shell.events)] == [
        ("gw1-e1-1", 4, "received"),
        ("gw1-e1-1", 4, "acknowledged"),
        ("gw1-e1-1", 4, "closed"),
    ]
    shell.frame(pole.sos(cry(), shown=200))
    assert len(told(shell.events)) == 3


def test_a_rebooted_readers_old_numbers_get_no_stage() -> None:
    shell, pole = Shell(), Pole(4, boot=1)
    shell.frame(pole.sos(cry(), number=1))
    reborn = Pole(4, boot=2)
    shell.frame(reborn.bell(number=1))
    shell.downlinks.clear()
    shell.stage("gw1-e1-1", wire.ACKNOWLEDGED)
    shell.wait(20)
    for downlink in shell.downlinks:
        kind, body = reborn.read(downlink.payload)
        if kind == wire.STAGE:
            assert (1, wire.ACKNOWLEDGED) not in wire.decode_stage(body), "that would light the bell's lamp"


def test_a_lamp_that_was_not_told_before_a_restart_is_told_after_it() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    shell.frame(pole.sos(cry(), shown=1), later_s=1)
    shell.stage("gw1-e1-1", wire.ACKNOWLEDGED)
    shell.restart()
    assert (1, wire.ACKNOWLEDGED) in stages(shell.wait(2), pole)
    shell.frame(pole.sos(cry(), shown=3), later_s=1)
    shell.restart()
    assert stages(shell.wait(5), pole) == []
    assert [t.stage for t in told(shell.events)] == ["received", "acknowledged"], "and not told of twice"


def test_the_citys_word_counts_even_if_our_own_disk_would_not_commit() -> None:
    shell, pole = Shell(), Pole(4)
    shell.carry(pipeline.on_frame(shell.state, pole.sos(cry()), shell.now_s), stop_before_commit=0)
    assert shell.memories == {}
    done = shell.stage("gw1-e1-1", wire.STORED)
    assert stages(done, pole) == [(1, wire.STORED)]
    assert isinstance(done[-1], Remember)


# ---- bells -----------------------------------------------------------------------------------------------------------


def test_a_bell_is_named_by_the_zone_or_by_its_wire() -> None:
    shell = Shell()
    [gate] = events(shell.frame(Pole(2).bell(age_ms=500)), Bell)
    [bare] = events(shell.frame(Pole(3).bell(bell_input=1)), Bell)
    assert (gate.bell, gate.reader, gate.presses, gate.revision) == ("gate-bell", 2, 1, 0)
    assert bare.bell == "reader3-input1"
    assert gate.where is not None
    assert gate.where.radius_50_m <= 5
    assert gate.observed_at.timestamp() == pytest.approx(UTC_S - 0.5)


def test_more_presses_of_an_open_bell_are_revisions() -> None:
    shell, pole = Shell(), Pole(2)
    shell.frame(pole.bell())
    shell.frame(pole.bell(shown=1, presses=4), later_s=1)
    [revised] = events(shell.wait(REVISE_S), Bell)
    assert (revised.presses, revised.revision, revised.alarm) == (4, 1, "gw1-e1-1")
    shell.frame(pole.bell(shown=1, presses=4), later_s=10)
    assert events(shell.wait(30), Bell) == []


def test_a_bells_number_that_comes_round_is_a_new_alarm() -> None:
    shell, pole = Shell(), Pole(2)
    [first] = events(shell.frame(pole.bell(number=7)), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    shell.frame(pole.bell(number=7, shown=5), later_s=1)
    assert events(shell.frame(pole.bell(number=7, shown=0, age_ms=6000), later_s=3), Bell) == [], "a late frame of it"
    [second] = events(shell.frame(pole.bell(number=7), later_s=3600), Bell)
    assert second.alarm != first.alarm
    [third] = events(shell.frame(pole.bell(number=7, bell_input=1), later_s=1), Bell)
    assert third.alarm != second.alarm


def test_a_bell_polled_for_hours_is_one_bell() -> None:
    shell, pole = Shell(), Pole(2)
    age_ms = 0
    shell.frame(pole.bell())
    for _ in range(400):
        age_ms += 60_000
        shell.frame(pole.bell(shown=1, age_ms=age_ms), later_s=60)
    assert len(alarms(shell.events)) == 1


def test_a_press_after_a_close_its_reader_has_not_heard_of_is_a_new_alarm() -> None:
    shell, pole = Shell(), Pole(2)
    [first] = events(shell.frame(pole.bell(presses=2)), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    assert events(shell.frame(pole.bell(shown=3, presses=2, age_ms=60_000), later_s=60), Bell) == []
    [second] = events(shell.frame(pole.bell(shown=3, presses=3, age_ms=61_000), later_s=1), Bell)
    assert second.alarm != first.alarm
    assert second.presses == 3
    shell.frame(pole.bell(shown=3, presses=3, age_ms=70_000), later_s=9)
    shell.stage(second.alarm, wire.CLOSED)
    [third] = events(shell.frame(pole.bell(shown=3, presses=4, age_ms=655_350), later_s=3600), Bell)
    shell.stage(third.alarm, wire.CLOSED)
    shell.frame(pole.bell(shown=5, presses=5, age_ms=655_350), later_s=1)
    assert len(alarms(shell.events)) == 3, "a lamp that shows closed begins a new number with the next press"


# ---- bells whose reader lost its power -------------------------------------------------------------------------------


@pytest.mark.parametrize("gateway_restarts", [False, True])
def test_a_press_told_again_after_a_readers_power_cut_is_the_alarm_it_was(gateway_restarts: bool) -> None:
    shell, pole = Shell(), Pole(2, boot=7)
    [bell] = events(shell.frame(pole.bell(number=5, presses=3)), Bell)
    for boot, stage in ((8, wire.RECEIVED), (9, wire.ACKNOWLEDGED), (10, wire.CLOSED)):
        if stage > wire.RECEIVED:
            shell.stage(bell.alarm, stage)
        if gateway_restarts:
            shell.restart(keep_snapshot=boot != 9)
        reborn = Pole(2, boot=boot)
        done = shell.frame(reborn.bell(number=1, before=(7, 5)), later_s=600)
        assert events(done, Bell) == []
        assert stages(done, reborn) == [(1, stage)], "the lamp shows the truth again"
    assert alarms(shell.events) == {bell.alarm}
    shell.frame(reborn.bell(number=1, shown=5, before=(7, 5)), later_s=0.1)
    assert told(shell.events)[-1].stage == "closed"
    assert told(shell.events)[-1].alarm == bell.alarm


def test_a_press_nobody_had_heard_is_told_once_by_all_later_boots() -> None:
    shell = Shell()
    shell.frame(Pole(2, boot=7).beat())
    reborn = Pole(2, boot=8)
    done = shell.frame(reborn.bell(before=(7, 5)), later_s=5)
    [bell] = events(done, Bell)
    assert (bell.bell, bell.presses) == ("gate-bell", 1)
    assert bell.observed_at.timestamp() == pytest.approx(UTC_S + 5 - 655.35), "its age is not known"
    assert isinstance(done[0], Commit)
    assert stages(done, reborn) == [(1, wire.RECEIVED)]
    again = Pole(2, boot=9)
    shell.frame(again.bell(number=3, before=(7, 5)), later_s=30)
    shell.frame(again.bell(number=4, age_ms=20), later_s=1)
    assert len(alarms(shell.events)) == 2, "pressed anew"


def test_another_press_is_told_however_short_ago_the_last_one_was_closed() -> None:
    """Both of unknown age and of one bell: what tells them apart is what their reader called them, not a clock."""
    shell, pole = Shell(), Pole(2, boot=7)
    [first] = events(shell.frame(pole.bell(number=5)), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    shell.frame(pole.bell(number=5, shown=5), later_s=1)
    [second] = events(shell.frame(Pole(2, boot=8).bell(before=(7, 6)), later_s=10), Bell)
    [third] = events(shell.frame(Pole(3, boot=8).bell(before=(7, 5)), later_s=1), Bell)
    assert len({first.alarm, second.alarm, third.alarm}) == 3


@pytest.mark.parametrize(
    ("shown", "hours_off", "told_anew"),
    [(0, 0.1, False), (0, 20.0, False), (0, 25.0, True), (1, 0.1, False), (1, 0.3, False), (1, 0.4, True)],
)
def test_how_long_a_press_told_again_is_known(shown: int, hours_off: float, told_anew: bool) -> None:
    """While no lamp showed an answer its reader may tell it: a day. A reader that had one should have forgotten it."""
    shell, pole = Shell(), Pole(2, boot=7)
    [first] = events(shell.frame(pole.bell(number=5, shown=shown)), Bell)
    shell.stage(first.alarm, wire.CLOSED)
    found = events(shell.frame(Pole(2, boot=8).bell(before=(7, 5)), later_s=hours_off * 3600), Bell)
    assert bool(found) is told_anew


def test_a_number_that_came_round_to_another_bell_is_not_the_same_press() -> None:
    shell, pole = Shell(), Pole(2, boot=7)
    shell.frame(pole.bell(number=5, bell_input=0))
    assert len(events(shell.frame(Pole(2, boot=8).bell(bell_input=1, before=(7, 5))), Bell)) == 1


def test_a_stale_frame_of_a_press_told_again_is_answered_if_it_is_known() -> None:
    shell, pole = Shell(), Pole(2, boot=7)
    shell.frame(pole.bell(number=5))
    reborn = Pole(2, boot=8)
    known, unknown = reborn.bell(number=1, before=(7, 5)), reborn.bell(number=2, before=(7, 6))
    for _ in range(70):
        shell.frame(reborn.beat())
    assert stages(shell.frame(known), reborn) == [(1, wire.RECEIVED)]
    assert events(shell.frame(unknown), Bell) == []
    assert len(alarms(shell.events)) == 1


# ---- power cuts, losses, floods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_a_press_told_by_three_readers_through_losses_and_restarts_is_one_alarm(seed: int) -> None:
    """Frames and answers are lost, the gateway is killed (memories stay), and its clock may be unsure after.

    The bell's reader loses its power too, and tells its press again as long as it had no answer.
    """
    rng = random.Random(seed)
    shell = Shell()
    poles = [Pole(n) for n in (4, 5, 6)]
    shown = {pole.number: 0 for pole in poles}
    next_s = {pole.number: shell.now_s + rng.random() for pole in poles}
    pause = dict.fromkeys(next_s, 0.3)
    begun, counter, bell_pole = shell.now_s, 100, Pole(2)
    bell_shown, bell_next = 0, shell.now_s
    cuts = random.Random(seed)
    bell_before, bell_cuts = (0, 0), sorted(cuts.uniform(0, 4) for _ in range(3))
    stage_plan = {5.0: 2, 9.0: 3}
    restarts = sorted(rng.uniform(0, 20) for _ in range(3))
    while shell.now_s - begun < 40:
        shell.wait(0.05)
        counter += rng.random() < 0.3
        passed = shell.now_s - begun
        for at_s in [at_s for at_s in stage_plan if at_s <= passed]:
            stage = stage_plan.pop(at_s)
            for name in alarms(shell.events):
                shell.stage(name, stage)
        if restarts and passed > restarts[0]:
            restarts.pop(0)
            if rng.random() < 0.5:
                shell.utc_offset_s = None if rng.random() < 0.5 else UTC_S - begun
            shell.restart(keep_snapshot=rng.random() < 0.5)
            for name in alarms(shell.events):
                if passed > 9:
                    shell.stage(name, 3)  # the city says it again at our birth
        sent = len(shell.downlinks)
        for pole in poles:
            if shell.now_s >= next_s[pole.number]:
                raw = cry(press=1, counter=counter)
                frame = pole.sos(raw, number=1, shown=shown[pole.number], age_ms=int(passed * 1000))
                if rng.random() < 0.6:
                    shell.frame(frame)
                    if rng.random() < 0.2:
                        shell.frame(frame)
                pause[pole.number] = min(2 * pause[pole.number], 10.0 if shown[pole.number] else 2.0)
                next_s[pole.number] = shell.now_s + pause[pole.number]
        if bell_cuts and passed > bell_cuts[0]:
            bell_cuts.pop(0)
            if not bell_shown:
                bell_pole, bell_before = Pole(2, boot=bell_pole.boot + 1), (1, 1)
        if shell.now_s >= bell_next:
            bell_next = shell.now_s + (10 if bell_shown else 0.5)
            frame = bell_pole.bell(shown=bell_shown, age_ms=int(passed * 1000), before=bell_before)
            if rng.random() < 0.6:
                shell.frame(frame)
        for downlink in shell.downlinks[sent:]:
            if rng.random() < 0.5:
                for pole in [*poles, bell_pole]:
                    if pole.number == downlink.reader:
                        kind, body = pole.read(downlink.payload)
                        for _, stage in wire.decode_stage(body) if kind == wire.STAGE else ():
                            if pole is bell_pole:
                                bell_shown = max(bell_shown, stage)
                            elif stage > shown[pole.number]:
                                shown[pole.number], next_s[pole.number] = stage, shell.now_s
    cries = [e for e in shell.events if isinstance(e, Sos)]
    bells = [e for e in shell.events if isinstance(e, Bell)]
    assert len({e.alarm for e in cries}) == 1
    assert len({e.alarm for e in bells}) == 1
    assert len({e.revision for e in cries}) == len(cries)
    assert sum(e.revision == 0 for e in cries) == 1
    lit = told(shell.events)
    assert len({(t.alarm, t.reader, t.stage) for t in lit}) == len(lit), "told twice"
    assert {shown[pole.number] for pole in poles} <= {1, 2, 3}
    assert max(shown.values()) == 3


def test_names_go_on_after_a_restart() -> None:
    shell, pole = Shell(), Pole(4)
    for n in range(12):
        shell.frame(pole.sos(cry(press=n), number=1 + n))
    shell.restart(keep_snapshot=False)
    shell.frame(pole.sos(cry(press=99), number=99))
    assert len(alarms(shell.events)) == 13
    shell.memories.clear()
    shell.restart()
    shell.frame(pole.sos(cry(press=100), number=100))
    assert len(alarms(shell.events)) == 14, "the snapshot remembers the number when every memory is gone"


def test_a_memory_that_cannot_be_read_costs_nothing_but_itself() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1), number=1))
    shell.frame(pole.sos(cry(press=2), number=2))
    key = next(iter(shell.memories))
    shell.memories[key] = replace(shell.memories[key], data=b"\xc1")
    shell.restart()
    assert shell.counts["memories_unreadable"] == 1
    shell.frame(pole.sos(cry(press=3, counter=70), number=3))
    assert len(alarms(shell.events)) == 3


def test_a_full_table_forgets_the_closed_first_and_never_a_fresh_proven_press() -> None:
    shell = Shell()
    table: Alarms = shell.state.alarms
    first = table.open("sos", b"=first", 0.0, shell.now_s)
    first.verified = True
    old = table.open("sos", b"=old", 0.0, shell.now_s - 90_000)
    for n in range(ALARMS_MAX + 200):
        table.open("sos", b"=%d" % n, 0.0, shell.now_s).stage = wire.CLOSED
    assert len(table) <= ALARMS_MAX + 64
    assert first.name in table.by_name
    assert old.name in table.by_name, "closed ones are enough"
    for n in range(ALARMS_HARD_MAX + 200):
        table.open("sos", b"!%d" % n, 0.0, shell.now_s).verified = True
    assert len(table) <= ALARMS_HARD_MAX + 64
    assert old.name not in table.by_name
    assert shell.counts["alarms_forgotten"] > 0
    assert all(table.of(alarm.who) is alarm for alarm in table.by_name.values())


def test_stages_for_a_told_event_come_from_the_lamps_own_word() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    [event] = events(shell.frame(pole.sos(cry(), shown=1), later_s=2), Told)
    assert event.observed_at.timestamp() == pytest.approx(UTC_S + 2)
