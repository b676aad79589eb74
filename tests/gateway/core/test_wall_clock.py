"""The wall clock dates events and selects ids. It may be unsure or jump by years: no timer is disturbed."""

import pytest

from gateway.core import pipeline
from gateway.effects import Commit, Downlink, Effect
from gateway.events import Position, Sos
from readers import wire
from tests.gateway.core.bed import UTC_S, Pole, Shell, advertisement, events


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 10 * 365 * 86400.0, -10 * 365 * 86400.0])
def test_no_step_of_the_wall_clock_disturbs_a_timer(step_s: float) -> None:
    """Two gateways hear the same. The clock of one jumps and comes back. Both do the same at the same times."""

    def live(shell: Shell, steps: dict[int, float]) -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []
        pole, counter = Pole(4), 100

        def note(effects: list[Effect]) -> None:
            for effect in effects:
                if isinstance(effect, Downlink):
                    log.append((round(shell.now_s, 3), f"down {effect.payload.hex()}"))
                elif isinstance(effect, Commit) and not isinstance(effect.event, Position):
                    log.append((round(shell.now_s, 3), type(effect.event).__name__))

        for second in range(300):
            if second in steps:
                pipeline.set_clock(shell.state, UTC_S + second + steps[second], shell.now_s, "good")
            counter += 1
            if second == 20:
                raw = advertisement(flags=wire.FLAG_SOS, press=1, count=counter)
                note(shell.frame(pole.sos(raw)))
            if second == 90:
                note(shell.stage("gw1-e1-1", wire.ACKNOWLEDGED))
            if second % 60 == 30:
                note(shell.frame(pole.beat(uptime_s=second)))
            if second == 2:
                note(shell.frame(pole.bind((1, advertisement(count=counter)))))
            elif second < 200:
                note(shell.frame(pole.see((1, counter))))
            note(shell.wait(1))
        return log

    calm = live(Shell(), {})
    assert calm == live(Shell(), {50: step_s, 150: 0.0})
    assert {"Sos", "Presence", "ReaderHealth"} <= {what for _, what in calm}


def test_an_unsure_clock_says_so_and_stops_nothing() -> None:
    shell, pole = Shell(utc_s=None), Pole(4)
    [event] = events(shell.frame(pole.sos(advertisement(flags=wire.FLAG_SOS))), Sos)
    assert event.clock == "unsure"
    shell.wait(10)
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    done = shell.frame(pole.beat(), later_s=1)
    assert {e.event.clock for e in done if isinstance(e, Commit)} == {"good"}


def test_a_slot_bound_before_the_clock_was_right_finds_its_tag_after() -> None:
    shell, pole = Shell(utc_s=UTC_S - 40 * 900), Pole(4)
    shell.frame(pole.bind((1, advertisement())))
    shell.wait(1.1)
    assert shell.counts["tags_followed"] == 0
    pipeline.set_clock(shell.state, UTC_S, shell.now_s, "good")
    shell.frame(pole.see((1, 3)), later_s=1)
    shell.wait(1.1)
    assert shell.counts["tags_followed"] == 1
