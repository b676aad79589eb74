"""Every lamp shows the stage of its alarm: a stage only rises, and is repeated until the lamp shows it."""

from itertools import pairwise

import pytest

from gateway.core import pipeline
from gateway.core.lamps import REPEAT_FOR_S
from gateway.effects import Remember
from gateway.events import Told
from readers import wire
from tests.gateway.core.bed import UTC_S, Pole, Shell, cry, events, stages, told


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
            rows = wire.decode_stage(body)
            assert not {(1, wire.ACKNOWLEDGED), (1, wire.ACKNOWLEDGED | wire.PROVEN)} & set(rows), (
                "that would light the bell's lamp"
            )


def test_many_stages_for_one_reader_are_split_into_frames_that_arrive_behind_relays() -> None:
    shell, pole = Shell(), Pole(4)
    numbers = range(1, 2 * wire.STAGES_MAX + 7)
    for number in numbers:
        shell.frame(pole.bell(number=number, bell_input=number % 8))
    shell.restart()
    shell.downlinks.clear()
    found = stages(shell.wait(0.1), pole)
    assert found == [(number, wire.RECEIVED) for number in numbers]
    assert [len(d.payload) for d in shell.downlinks] == [wire.DOWN_MAX, wire.DOWN_MAX, 8 + 6 + 2 * 6]


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


def test_stages_for_a_told_event_come_from_the_lamps_own_word() -> None:
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    [event] = events(shell.frame(pole.sos(cry(), shown=1), later_s=2), Told)
    assert event.observed_at.timestamp() == pytest.approx(UTC_S + 2, abs=0.01)


def test_a_stage_of_an_alarm_that_was_quiet_for_long_is_repeated_too() -> None:
    """A person often answers minutes after the cry, when nothing else of the alarm is due. A frame may be lost."""
    shell, pole = Shell(), Pole(4)
    shell.frame(pole.sos(cry()))
    shell.frame(pole.sos(cry(), shown=1), later_s=0.1)
    shell.wait(60)
    shell.stage("gw1-e1-1", wire.ACKNOWLEDGED)
    assert stages(shell.wait(5), pole).count((1, wire.ACKNOWLEDGED)) >= 2
