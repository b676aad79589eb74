"""The table of alarms survives lost frames, restarts and floods: one press stays one alarm, no name is used twice."""

import random
from dataclasses import replace

import pytest

from gateway.core.alarms import ALARMS_HARD_MAX, ALARMS_MAX, Alarms
from gateway.events import Bell, Sos
from readers import wire
from tests.gateway.core.bed import UTC_S, Pole, Shell, alarms, cry, told


@pytest.mark.parametrize("seed", range(25))
def test_a_press_told_by_three_readers_through_losses_and_restarts_is_one_alarm(seed: int) -> None:
    """Frames and answers are lost, the gateway is killed (memories stay), and its clock may be unsure afterwards.

    The bell's reader loses its power too. It reports its press again until it has an answer.
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
        counter += rng.random() < (0.5 if shell.now_s - begun < 3 else 0.05)  # ten a second, then one
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
                    shell.stage(name, 3)  # the city sends it again when the gateway starts
        sent = len(shell.downlinks)
        for pole in poles:
            if shell.now_s >= next_s[pole.number]:
                raw = cry(press=1, count=counter)
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
                        rows = wire.decode_stage(body) if kind == wire.STAGE else ()
                        for stage in [stage & ~wire.PROVEN for _, stage in rows]:
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
    shell.frame(pole.sos(cry(press=3, count=70), number=3))
    assert len(alarms(shell.events)) == 3


def test_a_full_table_forgets_the_closed_first_and_never_a_fresh_proven_press() -> None:
    shell = Shell()
    table: Alarms = shell.state.alarms
    first = table.open("sos", b"=first", 0.0, shell.now_s)
    first.trust = "verified"
    old = table.open("sos", b"=old", 0.0, shell.now_s - 90_000)
    for n in range(ALARMS_MAX + 200):
        table.open("sos", b"=%d" % n, 0.0, shell.now_s).stage = wire.CLOSED
    assert len(table) <= ALARMS_MAX + 64
    assert first.name in table.by_name
    assert old.name in table.by_name, "closed ones are enough"
    for n in range(ALARMS_HARD_MAX + 200):
        table.open("sos", b"!%d" % n, 0.0, shell.now_s).trust = "verified"
    assert len(table) <= ALARMS_HARD_MAX + 64
    assert old.name not in table.by_name
    assert shell.counts["alarms_forgotten"] > 0
    assert all(table.of(alarm.who) is alarm for alarm in table.by_name.values())
