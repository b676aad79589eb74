"""Which pins a bell, lamp or buzzer may have, why the others are refused, and what each is before the program runs."""

import re
import runpy
from pathlib import Path

import pytest

from readers.provision import BadPin, WantedReader, pin_setting, render_config, wanted_settings

ALLOWED = ("D1", "D2", "D3", "D4", "D10", "D11", "D12", "P0", "P1", "P2")
WHY = {
    "D0": "commissioning button", "D5": "association light", "D6": "RTS", "D7": "CTS", "D8": "sleep and bootloader",
    "D9": "ON light", "P3": "DOUT", "P4": "DIN",
    "P5": "no pin of MicroPython", "P6": "no pin of MicroPython", "P7": "no pin of MicroPython",
    "P8": "no pin of MicroPython", "P9": "no pin of MicroPython",
}  # fmt: skip


def with_pin(use: str, pin: str) -> WantedReader:
    """A reader with this pin for this use, and pins for the other two that it does not touch."""
    free = [other for other in ("D1", "D2", "D3", "D4") if other != pin]
    pins = {"bell": free[0], "lamp": free[1], "buzzer": free[2], use: pin}
    return WantedReader(7, bells=(pins["bell"],), lamp=pins["lamp"], buzzer=pins["buzzer"])


@pytest.mark.parametrize("use", ["bell", "lamp", "buzzer"])
@pytest.mark.parametrize("pin", ALLOWED)
def test_an_allowed_pin_stands_in_config_and_is_safe_before_the_program_runs(
    pin: str, use: str, tmp_path: Path
) -> None:
    reader = with_pin(use, pin)
    (tmp_path / "config.py").write_bytes(render_config(reader, bytes(16)))
    names = runpy.run_path(str(tmp_path / "config.py"))
    assert {"bell": names["BELLS"], "lamp": names["LAMP"], "buzzer": names["BUZZER"]}[use] in (pin, (pin,))
    at_boot = {wish.name: wish.value for wish in wanted_settings(reader)}
    assert at_boot[{"D10": "P0", "D11": "P1", "D12": "P2"}.get(pin, pin)] == ("3" if use == "bell" else "4")
    assert at_boot["D0"] == "0", "and no commissioning button"


@pytest.mark.parametrize("use", ["bell", "lamp", "buzzer"])
@pytest.mark.parametrize("pin", WHY)
def test_a_dangerous_pin_is_refused_with_the_reason_and_the_pins_that_exist(pin: str, use: str) -> None:
    with pytest.raises(BadPin, match=f"{use} pin '{pin}' .*{WHY[pin]}.*give --{use} one of D1, D2, .*, P2$"):
        with_pin(use, pin)


def test_nothing_else_is_a_pin() -> None:
    names = {f"{kind}{number}" for kind in "DP" for number in range(40)}
    for pin in [*sorted(names - set(ALLOWED) - set(WHY)), "", "4", "d4", "D04", "D4 ", "D4\n", 'D2"', "X1", "D٤"]:
        with pytest.raises(BadPin, match=re.compile(r"is no pin of an XBee 3.*give --lamp one of", re.DOTALL)):
            with_pin("lamp", pin)


@pytest.mark.parametrize(("one", "other"), [("D10", "P0"), ("D11", "P1"), ("D12", "P2"), ("D4", "D4")])
def test_one_pin_of_the_module_has_one_use_under_whatever_name(one: str, other: str) -> None:
    assert pin_setting(one) == pin_setting(other)
    with pytest.raises(ValueError, match="one pin, two uses"):
        WantedReader(7, bells=(one,), lamp=other)


def test_the_usual_pins_are_two_low_outputs_and_an_input() -> None:
    at_boot = {wish.name: wish.value for wish in wanted_settings(WantedReader(7))}
    assert (at_boot["D2"], at_boot["D3"], at_boot["D4"]) == ("4", "4", "3")
    without_bell = [wish.name for wish in wanted_settings(WantedReader(7, bells=()))]
    assert "D4" not in without_bell
