"""All faults are reported at once, each on one line of text, with the line of its key or of the nearest table."""

import re
from pathlib import Path

import pytest

from gateway.config.findings import ConfigError, Findings
from gateway.config.load import load
from tests.gateway.config.bed import GOOD, faults, only, secret, written


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_all_faults_are_told_at_once(folder: Path) -> None:
    text = GOOD.replace("channel = 20", "channel = 9").replace("port = 1883", "port = 0").replace("number = 1", "n = 1")
    found = faults(folder, text)
    assert [fault.split(": ")[1] for fault in found] == [
        "radio.channel", "mqtt.port", "readers[0].number", "readers[0].n",
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


def test_a_wrong_table_a_missing_file_a_wrong_place_and_an_unreadable_file_are_told_in_one_run(folder: Path) -> None:
    text = GOOD.replace("channel = 20", "chanel = 20").replace("[126.951, 37.544],\n", "[127.951, 37.544],\n")
    text = text.replace("port = 1883", 'port = 1883\nusername = "u"\npassword_file = "word"')
    text = text.replace("socket://127.0.0.1:6638", f"{folder}/usb-stick")
    (folder / "tag_keys.json").unlink()
    secret(folder / "word", "")
    (folder / "word").write_bytes("password".encode("utf-16"))
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, here=True)
    found = str(caught.value).split("\n")
    assert [line.split(": ")[:2] for line in found] == [
        [f"{path}:1", "keys.tags"],
        [f"{path}:{line_of(text, 'chanel')}", "radio.chanel"],
        [f"{path}:{line_of(text, 'password_file')}", "mqtt.password_file"],
        [f"{path}:{line_of(text, 'polygon')}", "places[0].polygon"],
    ]
    assert "word:1: begins with a byte-order mark (BOM) of UTF-16" in found[2]
    assert "the stick is not there" in caught.value.notes[0]
    assert not any("no tags are enrolled" in note for note in caught.value.notes), "that is not known"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("number = 2", "number = 0", "readers[1].number"),
        ("lon = 126.9530", "lon = 200", "readers[1].lon"),
        ("number = 1\n", "", "readers[0].number"),
        ('id = "school"', 'id = "the school"', "places[0].id"),
        ('id = "main"', 'id = "main gate"', "gates[0].id"),
        ('place = "school"', "place = 1", "gates[0].place"),
        ('host = "127.0.0.1"', "host = 1", "mqtt.host"),
        ('folder = "outbox"', "", "store.folder"),
    ],
)
def test_one_fault_is_not_told_as_two(folder: Path, old: str, new: str, key: str) -> None:
    gate = '[[gates]]\nid = "main"\nplace = "school"\nlon = 126.9505\nlat = 37.543\ninward_deg = 0\n'
    guard = 'gate = "main"\nside = "outer"\nlon = 126.9505\nlat = 37.543\n'
    text = GOOD.replace("lon = 126.9520\nlat = 37.5440\n", guard) + gate
    load(written(folder, text))
    assert text.count(old) == 1
    assert f" {key}: " in only(folder, text.replace(old, new))


def test_places_after_a_wrong_one_keep_their_numbers_and_lines(folder: Path) -> None:
    text = GOOD.replace("number = 1", "number = 0") + GOOD[GOOD.index("[[readers]]") : GOOD.index("[[places]]")]
    found = faults(folder, text.replace("number = 1\n", "number = 3\n"))
    second = text.rindex('"0013a20041234568"')
    assert f"line {text[:second].count(chr(10)) + 1}: readers[3].eui64: '0013a20041234568' is given twice" in found[-1]


def test_longitude_and_latitude_that_are_exchanged_are_asked_for(folder: Path) -> None:
    text = GOOD.replace("126.9", "8.5").replace("37.54", "47.37")  # where both are in range
    found = only(folder, text.replace("lon = 8.5530\nlat = 47.3740", "lon = 47.3740\nlat = 8.5530"))
    assert re.search(r"readers\[1\].lon: \d+ km from the middle of the zone; are lon and lat exchanged\?", found), found
    found = only(folder, text.replace("[[8.540, 47.373], [8.541, 47.373], [8.541, 47.374]]",
                                      "[[47.373, 8.540], [47.373, 8.541], [47.374, 8.541]]"))  # fmt: skip
    assert "dangers[0].polygon: a corner is over 20 km from the middle of the zone; are lon and lat exchanged?" in found


def test_a_key_is_not_right_in_a_wrong_table_nor_a_table_with_a_wrong_key() -> None:
    findings = Findings(Path("gateway.toml"), {})
    findings.say("mqtt", "must be a table")
    findings.say("readers[0].lon", "is text")
    assert not any(map(findings.right, ("mqtt", "mqtt.port", "readers", "readers[0]", "readers[0].lon")))
    assert all(map(findings.right, ("radio", "mqtt_other", "readers[1]", "readers[0].lat")))
