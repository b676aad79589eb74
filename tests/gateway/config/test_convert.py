"""Every key has a type, limits and a hint of what is right. A wrong, unknown or missing key is reported."""

import re
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.options import HINTS, LISTS, TABLES, GatewayConfig
from tests.gateway.config.bed import GOOD, faults, only, written


def test_every_key_has_a_hint() -> None:
    keys = {key for key in GatewayConfig.__struct_fields__ if key not in (*TABLES, *LISTS)}
    for table, kind in (TABLES | LISTS).items():
        keys |= {f"{table}.{name}" for name in kind.__struct_fields__}
    tables = {"radio", "store", "mqtt", "readers"}
    assert keys == set(HINTS) - tables
    assert not re.search(r"[^ -~]", "".join(HINTS.values()))


BAD: list[tuple[str, str, str]] = [
    # text of the good file, the text in its place, pattern of the problem after its line number
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
    (
        '"0013a20041234568"',
        '"1.3A2E+15"',
        r"readers\[1\].eui64: '1.3A2E\+15' is what a spreadsheet makes of an address",
    ),
    (
        '"0013a20041234568"',
        '"13a20041234568"',
        r"readers\[1\].eui64: .* 14 digits, not 16.*Then it is 0013a20041234568",
    ),
    ('"0013a20041234568"', "1320041234568", r"readers\[1\].eui64: int, not text; write the 16 digits .* in quotes"),
    ('"0013a20041234568"', '"0013a2004l234568"', r"readers\[1\].eui64: .* has 'l', no hexadecimal digit"),
    ('"0013a20041234568"', '"00:13:A2:00:41:23:45:67"', r"readers\[1\].eui64: '0013a20041234567' is given twice"),
    ('folder = "outbox"', 'folder = "outbox\u00a0"', r"store.folder: 'outbox\\xa0' has a blank at one end"),
    ('host = "127.0.0.1"', 'host = "mqtt\u200b.example.org"', r"mqtt.host: .* has zero width space, which nobody sees"),
    (
        'host = "127.0.0.1"',
        'host = "mqtt://127.0.0.1"',
        r'mqtt.host: .* it has a scheme; write host = "127.0.0.1"\Z',
    ),
    (
        'host = "127.0.0.1"',
        'host = "127.0.0.1:1883"',
        r'mqtt.host: .* write host = "127.0.0.1" and port = 1883\Z',
    ),
    ('host = "127.0.0.1"', 'host = "127.0.0.1/"', r'mqtt.host: .* it has a slash or a path; write host = "127.0.0.1"'),
    ('port = "socket://127.0.0.1:6638"', 'port = "COM3"', r"radio.port: 'COM3' is a port of Windows; on this box: ls"),
    ('port = "socket://127.0.0.1:6638"', 'port = "socket://127.0.0.1"', r"radio.port: .* has no host or no port"),
    ("lon = 126.9530", "lon = 1" + "0" * 400, r"readers\[1\].lon: Number out of range"),
    ("lon = 126.9530", "lon = " + "[" * 90 + "]" * 90, r"readers\[1\].lon: Expected `float`, got `array`"),
    ('"0013a20041234568"', '"0013a20041234567"', r"readers\[1\].eui64: .* is given twice \(first in line 20\)"),
    ("lon = 126.9530", "lon = 37.5", r"readers\[1\].lon: \d+ km from the middle of the zone; right is degrees east"),
    ("lon = 126.9530", "lon = nan", r"readers\[1\].lon: Expected `float`.*\(it is nan\)"),
    (
        "lat = 37.5440\npole",
        "lat = 127.0\npole",
        r"readers\[0\].lat: Expected `float` <= 90.0 \(it is 127.0\); are lon and lat exchanged\?",
    ),
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


@pytest.mark.parametrize("key", ["site", "gateway", "radio", "store", "mqtt", "readers"])
def test_what_is_needed_is_asked_for(folder: Path, key: str) -> None:
    table = rf"\[?\[{key}\]\]?\n(?:[^\[\n].*\n)*"
    text = re.sub(rf"^{key} = .*\n", "", GOOD, flags=re.M) if key in ("site", "gateway") else re.sub(table, "", GOOD)
    found = [fault for fault in faults(folder, text) if re.match(rf"line \d+: {key}: missing; right is", fault)]
    assert len(found) == 1, faults(folder, text)


def test_an_address_may_be_written_as_a_label_or_a_spreadsheet_has_it(folder: Path) -> None:
    for text in ("0013A20041234568", "00:13:a2:00:41:23:45:68", "0013A200 41234568", " 0013a200-4123-4568"):
        loaded = load(written(folder, GOOD.replace("0013a20041234568", text)))
        assert [reader.eui64 for reader in loaded.zone.readers] == ["0013a20041234567", "0013a20041234568"]


def test_the_wrong_kind_of_table_is_told(folder: Path) -> None:
    assert "readers: must be written as [[readers]] tables" in only(
        folder, re.sub(r"\[\[readers\]\](\n.+)+\n", "", GOOD, count=1).replace("[[readers]]", "[readers]")
    )
    assert "radio: must be a table, got list" in only(folder, GOOD.replace("[radio]", "[[radio]]"))
    assert "bells[0]: must be a table, got int" in only(folder, "bells = [1]\n" + GOOD[: GOOD.index("[[bells]]")])
    assert "readers: is empty" in only(folder, "readers = []\n" + re.sub(r"\[\[\w+\]\]\n(.+\n)+", "", GOOD))


def test_a_list_of_pauses_that_is_none_is_told(folder: Path) -> None:
    assert "paused: Expected `array`" in only(folder, 'paused = "t-01"\n' + GOOD)


def test_settings_that_do_not_go_together_are_told(folder: Path) -> None:
    text = GOOD.replace("version = 3", "version = 3\nscan_window_ms = 50")
    assert only(folder, text).startswith("line 15: settings: scan_window_ms 50 is over scan_interval_ms 20")
