"""The gateway's file: everything wrong with it is told at once, each fault by key, line and what would be right."""

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import zone
from gateway.config.files import FILE_MAX_B
from gateway.config.findings import ConfigError
from gateway.config.load import load, summary
from gateway.config.toml_lines import key_lines
from gateway.options import HINTS, LISTS, TABLES, GatewayConfig

GOOD = """site = "gongdeok"
gateway = "gw1"

[radio]
port = "socket://127.0.0.1:6638"
channel = 20

[store]
folder = "outbox"

[mqtt]
host = "127.0.0.1"
port = 1883

[settings]
version = 3

[[readers]]
number = 1
eui64 = "0013a20041234567"
lon = 126.9520
lat = 37.5440
pole = "corner of the school"

[[readers]]
number = 2
eui64 = "0013a20041234568"
lon = 126.9530
lat = 37.5440
height_m = 4

[[places]]
id = "school"
kind = "school"
polygon = [
    [126.950, 37.543],  # a corner [this bracket counts for nothing]
    [126.951, 37.543],
    [126.951, 37.544],
]

[[dangers]]
id = "river"
polygon = [[126.940, 37.543], [126.941, 37.543], [126.941, 37.544]]

[[bells]]
id = "gate"
reader = 2
input = 3
"""
READER_KEYS = {"1": "00112233445566778899aabbccddeeff", "2": "00112233445566778899AABBCCDDEE00"}
TAG_KEYS = {"t-01": {"k_id": "01" * 16, "k_mic": "02" * 16}, "t-02": {"k_id": "03" * 16, "k_mic": "02" * 16}}


def secret(path: Path, value: object, mode: int = 0o600) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secret(tmp_path / "reader_keys.json", READER_KEYS)
    secret(tmp_path / "tag_keys.json", TAG_KEYS)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "gateway.toml"
    path.write_bytes(text.encode())
    return path


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return [str(problem) for problem in caught.value.problems]


def only(folder: Path, text: str) -> str:
    found = faults(folder, text)
    assert len(found) == 1, found
    return found[0]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


# ---- what is right ---------------------------------------------------------------------------------------------------


def test_a_good_file_comes_through_whole(folder: Path) -> None:
    loaded = load(written(folder, GOOD))
    config = loaded.config
    assert (config.site, config.gateway, config.radio.channel, config.radio.baudrate) == ("gongdeok", "gw1", 20, 115200)
    assert loaded.zone == zone.Zone(
        (
            zone.Reader(1, "0013a20041234567", 126.952, 37.544, pole="corner of the school"),
            zone.Reader(2, "0013a20041234568", 126.953, 37.544, 4.0),
        ),
        (zone.Place("school", "school", ((126.95, 37.543), (126.951, 37.543), (126.951, 37.544))),),
        (zone.DangerArea("river", ((126.94, 37.543), (126.941, 37.543), (126.941, 37.544))),),
        (zone.BellInput("gate", 2, 3),),
        zone.ReaderSettings(3),
    )
    assert loaded.reader_keys == {int(n): bytes.fromhex(key) for n, key in READER_KEYS.items()}
    assert loaded.tag_keys["t-01"].k_mic == b"\x02" * 16
    assert (loaded.folder, loaded.database) == (folder / "outbox", folder / "zigbee.db")
    assert loaded.notes == ()
    assert msgspec.convert(msgspec.to_builtins(config), GatewayConfig) == config


def test_neither_the_summary_nor_the_repr_shows_a_secret(folder: Path) -> None:
    secret(folder / "word", "hunter2\n")
    text = GOOD.replace("port = 1883", 'port = 1883\nusername = "gw1"\npassword_file = "word"')
    loaded = load(written(folder, text))
    assert loaded.password == "hunter2"
    for shown in (summary(loaded), repr(loaded)):
        for hidden in ("hunter2", *READER_KEYS.values(), "02" * 16, str(b"\x02" * 16)):
            assert hidden not in shown
    assert "2 readers, 1 bells, 2 tags, 1 places, 1 danger areas" in summary(loaded)


def test_no_tls_to_another_machine_is_noted(folder: Path) -> None:
    loaded = load(written(folder, GOOD.replace('host = "127.0.0.1"', 'host = "mqtt.example.org"')))
    assert "no TLS to mqtt.example.org" in loaded.notes[0]


def test_every_key_has_a_hint() -> None:
    keys = {key for key in GatewayConfig.__struct_fields__ if key not in (*TABLES, *LISTS)}
    for table, kind in (TABLES | LISTS).items():
        keys |= {f"{table}.{name}" for name in kind.__struct_fields__}
    tables = {"radio", "store", "mqtt", "readers"}
    assert keys == set(HINTS) - tables
    assert not re.search(r"[^ -~]", "".join(HINTS.values()))


# ---- what is wrong ---------------------------------------------------------------------------------------------------

BAD: list[tuple[str, str, str]] = [
    # what stands in the good file, what stands there instead, what is said behind its line
    ('site = "gongdeok"', 'site = "gong deok"', "site: .*; right is 1-32 of A-Z a-z 0-9"),
    ('site = "gongdeok"', r'site = "gongdeok\n"', "site: "),
    ('gateway = "gw1"', "gateway = 1", r"gateway: Expected `str`, got `int` \(it is 1\)"),
    ('port = "socket://127.0.0.1:6638"', 'port = ""', "radio.port: .*; right is the coordinator, like"),
    ('port = "socket://127.0.0.1:6638"', r'port = "/dev/tty\u0000x"', "radio.port: "),
    ("channel = 20", "channel = 27", r"radio.channel: Expected `int` <= 26 \(it is 27\); right is a ZigBee channel"),
    ("channel = 20", "channel = true", "radio.channel: Expected `int`, got `bool`"),
    ("channel = 20", "channel = 20\nbaudrate = 9600", "radio.baudrate: Invalid enum value 9600.*57600"),
    ("channel = 20", 'channel = 20\nflow_control = "none"', 'radio.flow_control: .*right is "software" or "hardware"'),
    ("channel = 20", "channel = 20\npan_id = 0xFFFF", r"radio.pan_id: Expected `int` <= 65534 \(it is 65535\)"),
    ("channel = 20", "channel = 20\ntx_power_dbm = 1979-05-27", "radio.tx_power_dbm: Expected `int`, got `date`"),
    ("channel = 20", 'channel = 20\ncountry = "KR\\n"', "radio.country: .*two capital letters"),
    ("channel = 20", "channel = 20\nchanel = 20", "radio.chanel: unknown key; did you mean 'channel'"),
    ("channel = 20", "channel = 20\ndeaf_after_s = inf", "radio.deaf_after_s: Expected `int`, got `float`"),
    ('folder = "outbox"', 'folder = "outbox"\nbulk_max_mb = 1', r"store.bulk_max_mb: Expected `int` >= 4 \(it is 1\)"),
    ("port = 1883", "port = 70000", "mqtt.port: .* <= 65535.*; right is 1 to 65535; 1883 plain"),
    ("port = 1883", 'port = 1883\nprotocol = "4"', "mqtt.protocol: Invalid enum value '4'.*right is \"auto\""),
    ("port = 1883", 'port = 1883\npassword = "x"', "mqtt.password: unknown key; did you mean 'password_file'"),
    ("version = 3", "version = 0", "settings.version: .*raised with every change"),
    ("[settings]", "[setings]", "setings: unknown key; did you mean 'settings'"),
    ("number = 2", "number = 0", r"readers\[1\].number: Expected `int` >= 1 \(it is 0\); right is 1 to 65534"),
    ('"0013a20041234568"', '"0013A20041234568"', r"readers\[1\].eui64: .*16 hexadecimal digits in lower case"),
    ('"0013a20041234568"', '"0013a20041234567"', r"readers\[1\].eui64: .* is given twice \(first in line 20\)"),
    ("lon = 126.9530", "lon = 37.5", r"readers\[1\].lon: \d+ km from the first reader; right is degrees east"),
    ("lon = 126.9530", "lon = nan", r"readers\[1\].lon: Expected `float`.*\(it is nan\)"),
    ("lat = 37.5440\npole", "lat = 127.0\npole", r"readers\[0\].lat: Expected `float` <= 90.0 \(it is 127.0\)"),
    ("height_m = 4", "height_m = 0", r"readers\[1\].height_m: Expected `float` > 0.0"),
    ("height_m = 4", "height_m = 4\nhight_m = 4", r"readers\[1\].hight_m: unknown key; did you mean 'height_m'"),
    ('kind = "school"', 'kind = "shop"', r'places\[0\].kind: Invalid enum value \'shop\'.*right is "school"'),
    ('id = "river"', 'id = "the river"', r"dangers\[0\].id: "),
    ("polygon = [[126.940", "warn_m = -1\npolygon = [[126.940", r"dangers\[0\].warn_m: "),
    ("reader = 2\n", "reader = 7\n", r"bells\[0\].reader: there is no reader 7; there are 1, 2"),
    ("input = 3", "input = 8", r"bells\[0\].input: .*right is the input of the reader, 0 to 7"),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD, ids=[new[:40] for _, new, _ in BAD])
def test_a_fault_is_told_by_key_line_and_what_is_right(folder: Path, old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1, old
    text = GOOD.replace(old, new)
    found = only(folder, text)
    lines = zip(GOOD.split("\n"), text.split("\n"), strict=False)
    line = next(n for n, (before, after) in enumerate(lines, 1) if before != after)
    assert re.match(rf"line {line}: {said}", found), found
    assert "\n" not in found


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


@pytest.mark.parametrize("key", ["site", "gateway", "radio", "store", "mqtt", "readers"])
def test_what_is_needed_is_asked_for(folder: Path, key: str) -> None:
    table = rf"\[?\[{key}\]\]?\n(?:[^\[\n].*\n)*"
    text = re.sub(rf"^{key} = .*\n", "", GOOD, flags=re.M) if key in ("site", "gateway") else re.sub(table, "", GOOD)
    found = [fault for fault in faults(folder, text) if re.match(rf"line \d+: {key}: missing; right is", fault)]
    assert len(found) == 1, faults(folder, text)


@pytest.mark.parametrize("key", ["radio.port", "store.folder", "mqtt.host", "readers[0].number", "bells[0].id"])
def test_a_missing_key_is_told_at_its_table(folder: Path, key: str) -> None:
    table, _, name = key.partition(".")
    at = GOOD.index(f"[{table.removesuffix('[0]')}]")
    start = GOOD.index(f"{name} = ", at)
    text = GOOD[:start] + GOOD[GOOD.index("\n", start) + 1 :]
    line = text[: text.index(f"[{table.removesuffix('[0]')}]")].count("\n") + 1
    found = faults(folder, text)
    assert any(fault.startswith(f"line {line}: {key}: missing; right is ") for fault in found), found


def test_all_faults_are_told_at_once(folder: Path) -> None:
    text = GOOD.replace("channel = 20", "channel = 9").replace("port = 1883", "port = 0").replace("number = 1", "n = 1")
    found = faults(folder, text)
    assert [fault.split(": ")[1] for fault in found] == [
        "radio.channel", "mqtt.port", "readers[0].n", "readers[0].number",
    ]  # fmt: skip


def test_the_wrong_kind_of_table_is_told(folder: Path) -> None:
    assert "readers: must be written as [[readers]] tables" in only(
        folder, re.sub(r"\[\[readers\]\](\n.+)+\n", "", GOOD, count=1).replace("[[readers]]", "[readers]")
    )
    assert "radio: must be a table, got list" in only(folder, GOOD.replace("[radio]", "[[radio]]"))
    assert "bells[0]: must be a table, got int" in only(folder, "bells = [1]\n" + GOOD[: GOOD.index("[[bells]]")])
    assert "readers: is empty" in only(folder, "readers = []\n" + re.sub(r"\[\[\w+\]\]\n(.+\n)+", "", GOOD))


def test_a_key_of_odd_characters_makes_no_second_line(folder: Path) -> None:
    found = only(folder, GOOD.replace("channel = 20", '"chan\\nnel" = 20'))
    assert found == "line 4: radio.chan?nel: unknown key; did you mean 'channel'?"


def test_a_reader_is_not_given_twice(folder: Path) -> None:
    text = GOOD.replace("number = 2", "number = 1").replace("reader = 2", "reader = 1")
    assert only(folder, text).startswith(
        "line 26: readers[1].number: 1 is given twice (first in line 19); right is 1 to"
    )


def test_two_bells_do_not_share_an_input(folder: Path) -> None:
    text = GOOD + '[[bells]]\nid = "door"\nreader = 2\ninput = 3\n'
    assert only(folder, text).startswith(f"line {GOOD.count(chr(10)) + 4}: bells[1].input: input 3 of reader 2 has a b")


ROUTES = """
[[routes]]
id = "by-the-park"
line = [[126.950, 37.543], [126.951, 37.543], [126.951, 37.544]]
corridor_m = 30
tags = ["t-01"]
"""


def test_routes_and_pauses_are_of_tags(folder: Path) -> None:
    loaded = load(written(folder, 'paused = ["t-02"]\n' + GOOD + ROUTES))
    line = ((126.95, 37.543), (126.951, 37.543), (126.951, 37.544))
    assert loaded.zone.routes == (zone.Route("by-the-park", line, 30.0, ("t-01",)),)
    assert loaded.config.paused == ("t-02",)
    assert loaded.notes == ()
    assert "1 routes, 1 tags paused" in summary(loaded)


def test_a_route_or_a_pause_of_nobody_is_noted_and_stops_nothing(folder: Path) -> None:
    loaded = load(written(folder, 'paused = ["t-99"]\n' + GOOD + ROUTES.replace('"t-01"', '"t-01", "t-98"')))
    assert [note.partition(" names ")[::2] for note in loaded.notes] == [
        ("routes", "1 tags without keys, so nothing is done for them: t-98"),
        ("paused", "1 tags without keys, so nothing is done for them: t-99"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["t-01"]', '["t 01"]', "routes[0].tags"),
        ("corridor_m = 30", "corridor_m = 1", "routes[0].corridor_m: Expected"),
        ("[126.951, 37.543], [126.951, 37.544]", "[126.950, 37.543]", "fewer than 2 different points"),
        ("[126.951, 37.544]", "[127.951, 37.544]", "a point is over 20 km"),
        (
            ROUTES,
            ROUTES + ROUTES.replace("by-the-park", "by-the-river"),
            "routes[1].tags: t-01 has the route by-",
        ),
        (ROUTES, ROUTES + ROUTES.replace('["t-01"]', "[]"), "routes[1].id: 'by-the-park' is given twice"),
        (ROUTES, ROUTES + 'paused = ["t-02"]', "routes[0].paused: unknown key"),
    ],
)
def test_a_route_that_is_none_is_told(folder: Path, old: str, new: str, said: str) -> None:
    assert said in only(folder, GOOD + ROUTES.replace(old, new, 1))


FOOTPATHS = """
[[footpaths]]
line = [[126.950, 37.543], [126.951, 37.543]]
"""


def test_footpaths_and_whose_map_they_are_reach_the_zone(folder: Path) -> None:
    loaded = load(written(folder, 'attribution = "(c) OpenStreetMap contributors"\n' + GOOD + FOOTPATHS))
    assert loaded.zone.footpaths == (zone.Footpath(((126.95, 37.543), (126.951, 37.543))),)
    assert loaded.config.attribution == "(c) OpenStreetMap contributors"
    assert "1 footpaths" in summary(loaded)
    assert loaded.notes == (
        "over 80 m from every reader, so nobody is seen there: place school",
        "footpaths: none comes within 80 m of a reader",
    )
    assert "0 footpaths: everybody may walk everywhere" in summary(load(written(folder, GOOD)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FOOTPATHS.replace("[126.951, 37.543]", "[126.950, 37.543]"), "fewer than 2 different points"),
        (FOOTPATHS.replace("126.951", "127.951"), "a point is over 20 km"),
        (FOOTPATHS.replace(", [126.951, 37.543]", ""), "footpaths[0].line: Expected"),
        (FOOTPATHS + 'name = "x"', "footpaths[0].name: unknown key"),
        (FOOTPATHS * (zone.FOOTPATHS_MAX + 1), "footpaths: 2001 lines of 2001 pieces, at most 2000 of 4000"),
        (
            9 * ("[[footpaths]]\nline = [" + 250 * "[126.950, 37.543], [126.951, 37.543], " + "]\n"),
            "footpaths: 9 lines of 4491 pieces",
        ),
    ],
)
def test_a_footpath_that_is_none_is_told(folder: Path, text: str, said: str) -> None:
    assert said in only(folder, GOOD + text)


def test_a_list_of_pauses_that_is_none_is_told(folder: Path) -> None:
    assert "paused: Expected `array`" in only(folder, 'paused = "t-01"\n' + GOOD)


def test_settings_that_do_not_go_together_are_told(folder: Path) -> None:
    text = GOOD.replace("version = 3", "version = 3\nscan_window_ms = 50")
    assert only(folder, text).startswith("line 15: settings: scan_window_ms 50 is over scan_interval_ms 40")


# ---- files that are no TOML ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"site = \n", r"line 1: file: not TOML here: Invalid value"),
        (b'site = "a"\n[mqtt\n', r"line 2: file: not TOML here: "),
        (b'a = 1\na = 2\n', r"line 2: file: not TOML here: .*overwrite"),
        (b"site = [", r"line 1: file: not TOML here: .*end of document"),
        (b"\n\xff\n", r"line 2: file: not UTF-8 text; save it as UTF-8"),
        (b"a = " + b"[" * 100_000, r"file: no parser can take this"),
        (b"a = " + b"1" * 5000, r"file: no parser can take this"),
        (b"#" * (FILE_MAX_B + 1), r"file: over \d+ bytes: not a gateway's configuration"),
        (b"", r"line 1: site: missing; right is"),
    ],
    ids=["value", "header", "twice", "end", "utf8", "brackets", "digits", "size", "empty"],
)  # fmt: skip
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert re.match(said, str(caught.value.problems[0])), caught.value
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file: cannot be read \(No such file or directory\); check the path"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"file: cannot be read \(Is a directory\)"):
        load(tmp_path)


def test_mutated_files_are_refused_or_taken_never_crash(folder: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    parts = ["[", "]", '"', "'", "\n", "=", ".", "#", "\\", "-1", "nan", "1e99", "[[readers]]", "{", "}", "\u2028", "é"]
    refused: list[ConfigError] = []
    for _ in range(400):
        text = GOOD
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(parts) + text[at + chance.randrange(3) :]
        try:
            load(written(folder, text))
        except ConfigError as error:
            refused.append(error)
    assert 0 < len(refused) < 400
    assert all(problem.text and problem.line >= 0 for error in refused for problem in error.problems)


# ---- the files it names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("reader_keys.json", "{", "keys.readers: .*is not such a file"),
        ("reader_keys.json", "[" * 100_000, "keys.readers: .*is not such a file"),
        ("reader_keys.json", [1], "keys.readers: .*is not such a file"),
        ("reader_keys.json", {"1": READER_KEYS["1"], "2": "00"}, "keys.readers: .*entry 2: not a number and its key"),
        ("reader_keys.json", {READER_KEYS["1"]: "1"}, "keys.readers: .*entry 1: not a number and its key"),
        ("reader_keys.json", {"1": READER_KEYS["1"], "٢": READER_KEYS["2"]}, "keys.readers: .*entry 2: not a number"),
        ("reader_keys.json", {"1": READER_KEYS["1"], "2": READER_KEYS["1"]}, "keys.readers: .*another reader's key"),
        ("reader_keys.json", {"1": READER_KEYS["1"]}, r"readers\[1\].number: no key for reader 2 in reader_keys.json"),
        ("tag_keys.json", {"t-01": {"k_id": "01" * 16}}, "keys.tags: .*entry 1: not a pseudonym and its two keys"),
        ("tag_keys.json", {"t 01": TAG_KEYS["t-01"]}, "keys.tags: .*entry 1: not a pseudonym"),
        ("tag_keys.json", {"t-01": "01" * 16}, "keys.tags: .*entry 1: not a pseudonym"),
        (
            "tag_keys.json",
            {"t-01": TAG_KEYS["t-01"], "t-09": TAG_KEYS["t-01"]},
            "keys.tags: .*entry 2 has the k_id of entry 1",
        ),
    ],
)
def test_a_file_of_keys_is_checked_entry_by_entry(folder: Path, name: str, value: Any, said: str) -> None:
    secret(folder / name, value)
    found = only(folder, GOOD)
    assert re.search(said, found), found
    assert "right is " in found
    for key in (*READER_KEYS.values(), "01" * 16):
        assert key not in found, "a key in the wrong place is not repeated"


def test_a_secret_others_can_read_is_refused(folder: Path) -> None:
    for mode in (0o640, 0o604, 0o644, 0o660):
        (folder / "tag_keys.json").chmod(mode)
        path = folder / "tag_keys.json"
        assert f"{path} can be read by others (mode {mode:04o}); do: chmod 600 {path}" in only(folder, GOOD)
    (folder / "tag_keys.json").chmod(0o400)
    load(written(folder, GOOD))


def test_a_file_it_names_must_be_a_file_of_sense(folder: Path) -> None:
    (folder / "tag_keys.json").unlink()
    assert "tag_keys.json cannot be read (No such file or directory)" in only(folder, GOOD)
    os.mkfifo(folder / "tag_keys.json", 0o600)
    assert "tag_keys.json is not a file" in only(folder, GOOD)
    (folder / "tag_keys.json").unlink()
    secret(folder / "tag_keys.json", " " * (FILE_MAX_B + 1))
    assert f"is over {FILE_MAX_B} bytes" in only(folder, GOOD)


@pytest.mark.parametrize(
    ("more", "files", "said"),
    [
        ('username = "u"\npassword_file = "w"', {"w": "\n"}, "line 15: mqtt.password_file: its first line is empty"),
        ('password_file = "w"', {"w": "word"}, "mqtt.username: missing beside password_file; right is a name"),
        ('cert_file = "c"\nca_file = "c"', {"c": "-----BEGIN X"}, "mqtt.key_file: missing beside the other one"),
        ('key_file = "c"\nca_file = "c"', {"c": "-----BEGIN X"}, "mqtt.cert_file: missing beside the other one"),
        ('key_file = "c"\ncert_file = "c"', {"c": "-----BEGIN X"}, "mqtt.ca_file: missing: a certificate of our own"),
        ('ca_file = "c"', {"c": "MII"}, "line 14: mqtt.ca_file: .*c is not PEM; right is the PEM file"),
        ('ca_file = "nowhere"', {}, "line 14: mqtt.ca_file: .*nowhere cannot be read"),
    ],
)
def test_the_brokers_files_go_together(folder: Path, more: str, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        secret(folder / name, text)
    found = only(folder, GOOD.replace("port = 1883", f"port = 1883\n{more}"))
    assert re.search(said, found), found


def test_install_codes_are_taken_from_the_enrolment(folder: Path) -> None:
    text = GOOD.replace("channel = 20", 'channel = 20\nenrolment = "readers.json"')
    code = "83FED3407A939723A5C639B26916D505C3B5"  # the example of ZigBee Base Device Behavior 3.0, section 10.1.1
    good = {"eui64": "0013A20041234567", "install_code": code}
    secret(folder / "readers.json", {"1": good, "9": {"eui64": "0013a20000000000", "install_code": code}})
    loaded = load(written(folder, text))
    assert loaded.install_codes == {"0013a20041234567": bytes.fromhex(code)}
    assert loaded.notes == ("no install code for 1 readers: they must have joined already",)
    for value, said in (
        (
            {"1": good | {"install_code": code[:-1] + "6"}},
            "entry 1: the install code is not 16 bytes and their checksum",
        ),
        ({"2": good}, "module 0013a20041234567 is reader '2' there, but 1 in this file"),
        ({"1": {"install_code": code}}, "entry '1': no eui64"),
    ):
        secret(folder / "readers.json", value)
        found = only(folder, text)
        assert found.startswith("line 7: radio.enrolment: ")
        assert said in found


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_lines_are_counted_as_toml_counts_them() -> None:
    text = (
        'a = """\n[not.a.table]\nb = 1\n"""\n'  # 1-4
        "'quoted key' = 1 # \u2028 c = 2\n"  # 5: no line ends at U+2028
        "[ t . 'u' ]\n"  # 6
        "x.y = [\n  { z = 1 }, # ]\n]\n"  # 7-9
        "[[r]]\n[r.s]\nk = 1\n[[ r ]]\nk = 2\r\n"  # 10-14
    )
    assert key_lines(text) == {
        "a": 1, "quoted key": 5, "t.u": 6, "t.u.x.y": 7, "r": 10, "r[0]": 10, "r[0].s": 11, "r[0].s.k": 12,
        "r[1]": 13, "r[1].k": 14,
    }  # fmt: skip


def test_a_long_line_of_blanks_costs_no_time() -> None:
    assert key_lines(" " * 200_000 + "x\n" + "a " * 100_000 + "\nb = 1\n") == {"b": 3}
