"""The judge of the lamp finds each way to lie, and lets pass what a reader may show."""

from collections.abc import Iterable

from readers import wire
from tests.firmware.lamp import CLOSE_MS, LampJudge


def blink(judge: LampJudge, *lit: tuple[float, float]) -> None:
    for since_ms, until_ms in lit:
        judge.lamp(since_ms, 1)
        judge.lamp(until_ms, 0)


def help_from(at_ms: float, times: int) -> Iterable[tuple[float, float]]:
    for k in range(times):
        yield at_ms + 1500 * k, at_ms + 1500 * k + 200
        yield at_ms + 1500 * k + 400, at_ms + 1500 * k + 600


def false_ms(judge: LampJudge, now_ms: float = 1e6) -> dict[str, int]:
    judge.end(now_ms)
    return dict(judge.false_ms)


def test_an_alarm_from_received_to_closed_is_true() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.RECEIVED)
    blink(judge, (0, 1000), (2000, 3000))
    judge.told(4000, 1, wire.ACKNOWLEDGED)
    judge.buzzer(4000, 1)
    judge.buzzer(4150, 0)
    blink(judge, *help_from(4000, 5))
    judge.shown(1, wire.CLOSED)
    assert not judge.answered(20_000)
    assert false_ms(judge) == {}


def test_a_lamp_that_answers_nobody_is_false() -> None:
    judge = LampJudge()
    blink(judge, (5000, 6000))
    assert false_ms(judge) == {"answers nobody": 1000}


def test_after_a_reset_the_same_blinking_is_false_until_an_answer_comes() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.STORED)
    judge.lamp(100, 1)
    judge.reset(700)
    blink(judge, (3000, 4000))
    judge.told(5000, 1, wire.STORED)
    blink(judge, (5000, 6000))
    assert false_ms(judge) == {"answers nobody": 1000}


def test_a_frozen_lamp_is_false_whole_and_dips_do_not_hide_it() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.RECEIVED)
    blink(judge, *((k * 500, k * 500 + 480) for k in range(6)))  # dark for 20 ms in between: no eye sees that
    assert false_ms(judge) == {"steady": 2980}
    judge = LampJudge()
    judge.told(0, 1, wire.ACKNOWLEDGED)
    judge.lamp(0, 1)
    assert false_ms(judge, 5100) == {"steady": 5100}, "still lit at the end"


def test_help_is_false_before_it_comes_and_two_short_flashes_of_a_cut_blink_are_not_help() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.STORED)
    blink(judge, *help_from(1000, 2))
    assert false_ms(judge) == {"help": 1200}
    judge = LampJudge()
    judge.told(0, 1, wire.STORED)
    blink(judge, (0, 200), (400, 600), (800, 1000))  # sends that made it low, and no pause
    assert false_ms(judge) == {}


def test_a_beep_is_false_before_help_comes_and_when_it_does_not_end() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.STORED)
    judge.buzzer(100, 1)
    judge.buzzer(250, 0)
    judge.told(300, 1, wire.ACKNOWLEDGED)
    judge.buzzer(400, 1)
    judge.buzzer(1400, 0)
    assert false_ms(judge) == {"buzzer": 1150}


def test_a_closed_alarm_may_be_shown_only_for_a_while() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.STORED)
    judge.told(1000, 1, wire.CLOSED)
    blink(judge, (2000, 3000), (1000 + CLOSE_MS + 1000, 1000 + CLOSE_MS + 2000))
    assert false_ms(judge) == {"answers nobody": 1000}


def test_help_is_false_while_another_bell_waits_and_after_its_number_means_another_alarm() -> None:
    judge = LampJudge()
    judge.told(0, 1, wire.ACKNOWLEDGED)
    judge.shown(2, wire.WAITING, bell=True)
    blink(judge, *help_from(1000, 2))
    judge.told(5000, 2, wire.ACKNOWLEDGED)
    blink(judge, *help_from(6000, 2))
    judge.told(10_000, 1, wire.WAITING)
    judge.told(10_000, 2, wire.WAITING)
    blink(judge, (11_000, 12_000))
    assert false_ms(judge) == {"help": 1200, "answers nobody": 1000}
