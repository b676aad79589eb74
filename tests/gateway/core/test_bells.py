"""A press of a bell makes one alarm, also when its number repeats and when its reader loses its power."""

import pytest

from gateway.core.sos import REVISE_S
from gateway.effects import Commit
from gateway.events import Bell
from readers import wire
from tests.gateway.core.bed import UTC_S, Pole, Shell, alarms, events, stages, told

# ---- a reader with power ---------------------------------------------------------------------------------------------


def test_a_bell_is_named_by_the_zone_or_by_its_wire() -> None:
    shell = Shell()
    [gate] = events(shell.frame(Pole(2).bell(age_ms=500)), Bell)
    [bare] = events(shell.frame(Pole(3).bell(bell_input=1)), Bell)
    assert (gate.bell, gate.reader, gate.presses, gate.revision) == ("gate-bell", 2, 1, 0)
    assert bare.bell == "reader3-input1"
    assert gate.where is not None
    assert gate.where.radius_50_m <= 5
    assert gate.observed_at.timestamp() == pytest.approx(UTC_S - 0.5, abs=0.01)


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


# ---- a reader that lost its power ------------------------------------------------------------------------------------


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
    assert bell.observed_at.timestamp() == pytest.approx(UTC_S + 5 - 655.35, abs=0.01), "its age is not known"
    assert isinstance(done[0], Commit)
    assert stages(done, reborn) == [(1, wire.RECEIVED)]
    again = Pole(2, boot=9)
    shell.frame(again.bell(number=3, before=(7, 5)), later_s=30)
    shell.frame(again.bell(number=4, age_ms=20), later_s=1)
    assert len(alarms(shell.events)) == 2, "pressed anew"


def test_another_press_is_told_however_short_ago_the_last_one_was_closed() -> None:
    """The age of the later presses is not known. Reader, boot and number tell presses apart, not a clock."""
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
    """If no lamp showed an answer, the reader may report the press again for a day. If a lamp did, the reader should
    have forgotten the press: 20 minutes later it is a new one."""
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
    [told] = events(shell.frame(unknown), Bell)
    assert (told.trust, len(alarms(shell.events))) == ("unverified", 2), (
        "freshness decides trust, not whether it is told"
    )
