"""All faults are reported at once, each on one line of text, with the line of its key or of the nearest table."""

import re
from pathlib import Path

import pytest

from tests.gateway.config.bed import GOOD, faults, only


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_all_faults_are_told_at_once(folder: Path) -> None:
    text = GOOD.replace("channel = 20", "channel = 9").replace("port = 1883", "port = 0").replace("number = 1", "n = 1")
    found = faults(folder, text)
    assert [fault.split(": ")[1] for fault in found] == [
        "radio.channel", "mqtt.port", "readers[0].n", "readers[0].number",
    ]  # fmt: skip


def test_the_line_of_a_corner_is_that_of_its_polygon(folder: Path) -> None:
    line = line_of(GOOD, "polygon = [\n")
    for old, new, said in (
        ("[126.951, 37.543],\n", '"here",\n', r"places\[0\].polygon\[1\]: Expected `array`, got `str`"),
        ("[126.951, 37.543],\n", "[126.951],\n", r"places\[0\].polygon\[1\]: Expected `array` of length 2"),
        ("[126.951, 37.543],\n", "[126.951, 137.543],\n", r"places\[0\].polygon\[1\]\[1\]: Expected `float` <= 90.0"),
        ("[126.951, 37.543],\n", "\n", r"places\[0\].polygon: Expected `array` of length >= 3"),
        ("[126.951, 37.543],\n", "[126.950, 37.543],\n", r"places\[0\].polygon: fewer than 3 different corners"),
        ("[126.951, 37.544],\n", "[126.952, 37.543],\n", r"places\[0\].polygon: encloses less than a square metre"),
        ("[126.951, 37.544],\n", "[127.951, 37.544],\n", r"places\[0\].polygon: a corner is over 20 km"),
        (
            "[126.951, 37.544],\n",
            "[126.950, 37.544], [126.951, 37.5445],\n",
            r"places\[0\].polygon: its edges cross each other",
        ),
        (
            "[126.951, 37.544],\n",
            "[126.951, 37.544], [126.951, 37.543], [126.950, 37.544],\n",
            r"places\[0\].polygon: the same corner twice",
        ),
    ):
        found = only(folder, GOOD.replace(old, new, 1))
        assert re.match(rf"line {line}: {said}", found), found


@pytest.mark.parametrize("key", ["radio.port", "store.folder", "mqtt.host", "readers[0].number", "bells[0].id"])
def test_a_missing_key_is_told_at_its_table(folder: Path, key: str) -> None:
    table, _, name = key.partition(".")
    at = GOOD.index(f"[{table.removesuffix('[0]')}]")
    start = GOOD.index(f"{name} = ", at)
    text = GOOD[:start] + GOOD[GOOD.index("\n", start) + 1 :]
    line = text[: text.index(f"[{table.removesuffix('[0]')}]")].count("\n") + 1
    found = faults(folder, text)
    assert any(fault.startswith(f"line {line}: {key}: missing; right is ") for fault in found), found


def test_a_key_of_odd_characters_makes_no_second_line(folder: Path) -> None:
    found = only(folder, GOOD.replace("channel = 20", '"chan\\nnel" = 20'))
    assert found == "line 4: radio.chan?nel: unknown key; did you mean 'channel'?"
