"""What a reader has caught and lives with is said in words: once when it begins, once when it is over."""

import pytest

from gateway.core import reader_faults
from gateway.core.reader_health import FAULT_OVER_S, NOISE_S
from gateway.events import GatewayHealth, ReaderHealth
from readers import wire
from tests.gateway.core.bed import Pole, Shell, events


def bits(*names: str) -> int:
    return sum(1 << wire.FAULTS.index(name) for name in names)


def said(shell: Shell, pole: Pole, *, later_s: float = 60.0, **fields: int) -> list[tuple[str, bool]]:
    """Return (what, ok) of what one heartbeat makes the gateway say."""
    return [(e.what, e.ok) for e in events(shell.frame(pole.beat(**fields), later_s=later_s), GatewayHealth)]


def test_every_fault_of_the_wire_has_its_sentence_and_next_step() -> None:
    assert list(reader_faults.WORDS) == list(wire.FAULTS)
    for trouble, step in [*reader_faults.WORDS.values(), reader_faults.UNKNOWN]:
        assert 4 <= len(trouble.split()) <= 25
        assert 2 <= len(step.split()) <= 25
        assert not {"TODO", "FIXME"} & set(f"{trouble} {step}".split())
    assert len({trouble for trouble, _ in reader_faults.WORDS.values()}) == len(wire.FAULTS)


def test_a_fault_is_said_once_with_its_reader_and_what_to_do() -> None:
    shell, pole = Shell(), Pole(7)
    assert said(shell, pole, uptime_s=60) == []
    done = shell.frame(pole.beat(uptime_s=120, faults=bits("boot")), later_s=60)
    [event] = events(done, GatewayHealth)
    assert (event.what, event.ok, event.counters) == ("reader_7_fault_boot", False, {"reader": 7})
    assert event.detail == (
        "reader 7 draws its boot numbers: its flash keeps none, or for an hour nobody answered the number it had; "
        "replace the module soon if this comes back after a restart. Its bell works"
    )
    [health] = events(done, ReaderHealth)
    assert health.counters["faults"] == bits("boot"), "news, so not only after five minutes"
    for minute in range(3, 200):
        assert said(shell, pole, uptime_s=60 * minute, faults=bits("boot")) == []
    assert said(shell, pole, uptime_s=12_000, faults=bits("boot", "scan")) == [("reader_7_fault_scan", False)]


@pytest.mark.parametrize("name", wire.FAULTS)
def test_each_bit_says_its_own_sentence_of_its_own_reader(name: str) -> None:
    shell = Shell()
    for number in (3, 8):
        [event] = events(shell.frame(Pole(number).beat(faults=bits(name))), GatewayHealth)
        assert event.what == f"reader_{number}_fault_{name}"
        assert event.detail == f"reader {number} {'; '.join(reader_faults.WORDS[name])}"


def test_a_bit_of_a_newer_firmware_is_said_too() -> None:
    [event] = events(Shell().frame(Pole(3).beat(faults=0x8000)), GatewayHealth)
    assert event.what == "reader_3_fault_bit15"
    assert event.detail.endswith("update the gateway")


def test_a_fault_is_over_when_its_reader_ran_ten_minutes_without_it() -> None:
    shell, first, second = Shell(), Pole(7, 1), Pole(7, wire.BOOT_DRAWN | 5)
    said(shell, first, uptime_s=900, faults=bits("flash", "crash"))
    assert said(shell, second, uptime_s=5, faults=bits("crash")) == []
    assert said(shell, second, uptime_s=int(FAULT_OVER_S) - 1, faults=bits("crash")) == []
    [event] = events(shell.frame(second.beat(uptime_s=int(FAULT_OVER_S), faults=bits("crash"))), GatewayHealth)
    assert (event.what, event.ok) == ("reader_7_fault_flash", True)
    assert event.detail.startswith("not true any more since its restart: reader 7 cannot read or write a file")
    assert said(shell, second, uptime_s=9000, faults=bits("crash")) == []


def test_a_reader_that_crashes_again_and_again_is_said_once() -> None:
    shell, found = Shell(), []
    for boot in range(1, 100):
        pole = Pole(7, boot)
        found += said(shell, pole, later_s=5, uptime_s=1)
        found += said(shell, pole, later_s=200, uptime_s=200, faults=bits("crash"))
    assert found == [("reader_7_fault_crash", False)]


def test_a_fault_that_comes_and_goes_is_said_once_an_hour_at_most() -> None:
    shell, found = Shell(), []
    for boot in range(1, 121, 2):
        found += said(shell, Pole(7, boot), later_s=60, uptime_s=60, faults=bits("beacon"))
        found += said(shell, Pole(7, boot + 1), later_s=660, uptime_s=660)
    hours = 60 * 720 / NOISE_S
    assert [ok for _, ok in found[:4]] == [False, True, False, True]
    assert hours * 0.8 <= found.count(("reader_7_fault_beacon", False)) <= hours + 1


def test_a_heartbeat_that_was_overtaken_ends_no_fault() -> None:
    shell, pole = Shell(), Pole(7)
    early = pole.beat(uptime_s=1000)
    assert said(shell, pole, uptime_s=1060, faults=bits("scan")) == [("reader_7_fault_scan", False)]
    assert events(shell.frame(early), GatewayHealth) == []
    assert said(shell, pole, uptime_s=1120, faults=bits("scan")) == []


def test_what_was_said_is_known_after_a_restart() -> None:
    shell, pole = Shell(), Pole(7)
    said(shell, pole, uptime_s=60, faults=bits("pins"))
    shell.restart()
    assert said(shell, pole, uptime_s=120, faults=bits("pins")) == []
    assert said(shell, Pole(7, 2), uptime_s=700) == [("reader_7_fault_pins", True)], (
        "else the console shows it for ever"
    )
