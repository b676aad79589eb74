"""A press makes one alarm, however many frames and readers report it. The alarm is on disk before any answer."""

import pytest

from gateway.core import pipeline
from gateway.core.sos import REVISE_S, REVISIONS_MAX
from gateway.effects import Commit, Downlink
from gateway.events import Sos
from readers import wire
from readers.advertisement import EPOCH_S
from tests.gateway.core.bed import SOS, UTC_S, Pole, Shell, advertisement, alarms, cry, events, stages, zone

# ---- the first report ------------------------------------------------------------------------------------------------


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
    assert event.observed_at.timestamp() == pytest.approx(UTC_S - 0.8, abs=0.01)
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
    again = shell.frame(other.sos(cry(count=51), rssi_dbm=-50), later_s=0.4)
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


def test_a_reader_without_a_position_still_raises_an_alarm() -> None:
    shell = Shell(zone_=zone(3))
    [event] = events(shell.frame(Pole(4).sos(cry())), Sos)
    assert event.where is None


# ---- one press, one alarm --------------------------------------------------------------------------------------------


def test_more_readers_of_a_press_are_answered_at_once_and_told_of_later() -> None:
    shell = Shell()
    shell.frame(Pole(4).sos(cry()))
    other = Pole(5)
    done = shell.frame(other.sos(cry(count=52), number=9), later_s=0.3)
    assert stages(done, other) == [(9, wire.RECEIVED)]
    assert events(done, Sos) == []
    [revised] = events(shell.wait(REVISE_S + 0.1), Sos)
    assert (revised.alarm, revised.revision, revised.readers) == ("gw1-e1-1", 1, (4, 5))
    assert revised.where is not None


def test_a_row_of_a_report_raises_it_too_and_is_the_same_press() -> None:
    shell = Shell()
    [first] = events(shell.frame(Pole(4).bind((1, cry()))), Sos)
    pole = Pole(5)
    done = shell.frame(pole.sos(cry(count=51)), later_s=0.2)
    assert events(done, Sos) == []
    assert stages(done, pole) == [(1, wire.RECEIVED)]
    assert alarms(shell.events) == {first.alarm}


def test_another_press_is_another_alarm() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1), number=1))
    shell.frame(pole.sos(cry(press=2, count=60), number=2), later_s=5)
    shell.frame(pole.sos(cry(press=2, count=61, tag="tag-004"), number=3), later_s=5)
    assert len(alarms(shell.events)) == 3


def test_the_same_count_long_after_the_last_cry_is_another_press() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry(press=1, count=1)))
    shell.wait(1201)
    raw = advertisement(flags=SOS, press=1, count=2000, utc_s=UTC_S + 1201)
    shell.frame(Pole(5).sos(raw))
    assert len(alarms(shell.events)) == 2


def test_a_cry_that_somebody_repeats_later_is_shown_as_that_and_moves_nothing() -> None:
    shell, pole = Shell(), Pole(4)
    old = cry(press=1, count=10)
    [first] = events(shell.frame(pole.sos(old)), Sos)
    shell.wait(20)
    shell.frame(pole.bind((1, advertisement(count=700))), later_s=670)
    shell.wait(1300)
    before = len(shell.events)
    for later_s in (0, 1, 30, 400):
        shell.frame(Pole(9).bind((1, old)), later_s=later_s)
        shell.wait(20)
    found = [event for event in shell.events[before:] if isinstance(event, Sos)]
    assert {(event.alarm, event.trust, event.tag) for event in found} == {("gw1-e1-2", "replayed", "tag-003")}
    assert found[0].readers == (9,)
    assert first.alarm == "gw1-e1-1"


def test_a_press_over_the_turn_of_an_epoch_is_one_press() -> None:
    """The id changes, so the reader takes it for another alarm. The tag and its press count show that it is not."""
    shell, pole = Shell(), Pole(4)
    shell.wait(500)
    shell.frame(pole.sos(cry(press=1, count=10), number=1))
    shell.wait(EPOCH_S - 600)
    raw = advertisement(flags=SOS, press=1, count=340, utc_s=UTC_S + EPOCH_S)
    done = shell.frame(pole.sos(raw, number=2), later_s=1)
    assert stages(done, pole) == [(2, wire.RECEIVED)]
    assert len(alarms(shell.events)) == 1


def test_a_press_is_known_by_its_bare_id_when_no_table_can_resolve_it_any_more() -> None:
    shell = Shell()
    shell.frame(Pole(4).sos(cry(press=1, count=10)))
    rolled = advertisement(flags=SOS, press=1, count=410, utc_s=UTC_S + EPOCH_S)
    shell.frame(Pole(5).sos(rolled), later_s=EPOCH_S - 500)
    pipeline.set_clock(shell.state, 5.0, shell.now_s, "unsure")
    for n, raw in ((6, rolled), (7, cry(press=1, count=10))):
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
    """Reader 5's frames were lost and the gateway was off for an hour. The age is now over the highest on the wire."""
    shell = Shell()
    shell.frame(Pole(4).sos(cry()))
    shell.now_s += 3600
    shell.restart()
    pole = Pole(5)
    done = shell.frame(pole.sos(cry(count=51), age_ms=10_000_000))
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


def test_a_reader_with_a_wiped_flash_is_still_heard_when_somebody_cries() -> None:
    shell = Shell()
    shell.frame(Pole(4, boot=900).beat())
    [event] = events(shell.frame(Pole(4, boot=1).sos(cry())), Sos)
    assert event.trust == "verified"


# ---- revisions -------------------------------------------------------------------------------------------------------


def test_revisions_need_news_and_end() -> None:
    shell, pole = Shell(), Pole(1)
    shell.frame(pole.sos(cry()))
    found = []
    for n in range(400):
        if n % 60 == 59:
            pole = Pole(2 + n // 60)  # the tag walks along the street
        shell.frame(pole.sos(cry(count=60 + n), shown=1), later_s=1)
        found += events(shell.wait(0.01), Sos)
    assert [event.revision for event in found] == list(range(1, REVISIONS_MAX + 1))
    assert {event.alarm for event in found} == {"gw1-e1-1"}

    quiet, one = Shell(), Pole(4)
    quiet.frame(one.sos(cry(), rssi_dbm=-60))
    where = events(quiet.wait(REVISE_S + 1), Sos)
    for n in range(60):
        quiet.frame(one.sos(cry(count=60 + n), shown=1, rssi_dbm=-60), later_s=1)
        where += events(quiet.wait(0), Sos)
    assert len(where) <= 1, "nothing new to say"
    assert all(e.where is not None and e.where.radius_50_m < 20 for e in where), "never vaguer than the first word"


def test_a_cry_older_than_its_age_field_is_never_dated_now() -> None:
    [event] = events(Shell().frame(Pole(4).sos(cry(), age_ms=10_000_000)), Sos)
    assert event.observed_at.timestamp() == pytest.approx(UTC_S - 655.35, abs=0.01), "at least so old"


def test_if_the_commit_fails_the_same_frame_again_is_committed_before_it_is_answered() -> None:
    """A reader repeats its first advertisement until it is answered: this is how most cries come a second time."""
    shell, pole = Shell(), Pole(4)
    raw = cry()
    shell.carry(pipeline.on_frame(shell.state, pole.sos(raw), shell.now_s), stop_before_commit=0)
    assert (shell.downlinks, shell.events) == ([], [])
    done = shell.frame(pole.sos(raw), later_s=0.4)
    assert isinstance(done[0], Commit)
    assert isinstance(done[0].event, Sos)
    assert stages(done, pole) == [(1, wire.RECEIVED)]
    assert alarms(shell.events) == {"gw1-e1-1"}
