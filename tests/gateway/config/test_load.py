"""A good configuration is loaded completely. A file that is missing, damaged or not TOML is refused with a reason."""

import random
import re
from pathlib import Path

import msgspec
import pytest

from gateway import zone
from gateway.config.findings import ConfigError
from gateway.config.load import load, summary
from gateway.options import GatewayConfig
from readers.files import FILE_MAX_B
from tests.gateway.config.bed import GOOD, READER_KEYS, secret, written


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


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"site = \n", r"line 1: file: not TOML here: Invalid value"),
        (b'site = "a"\n[mqtt\n', r"line 2: file: not TOML here: "),
        (b'a = 1\na = 2\n', r"line 2: file: not TOML here: .*overwrite"),
        (b"site = [", r"line 1: file: not TOML here: .*end of document"),
        (b"\n\xff\n", r"line 2: file: not UTF-8 text; save it as UTF-8 \(in Notepad"),
        (b"\na = " + b"[" * 100_000, r"line 2: file: no parser can take this"),
        (b"\na = " + b"1" * 5000, r"line 2: file: no parser can take this"),
        (b"#" * (FILE_MAX_B + 1), r"file: over \d+ bytes; is it another file\?"),
        ("site = “a”".encode(), r"line 1: file: not TOML here: .*; column 8 is left double quotation mark .*write \""),
        ("[mqtt]\nhost = \"a”".encode(), r"line 2: file: .*column 10 is right double quotation mark .*write \""),
        ("\u00a0site = 1".encode(), r"line 1: file: .*column 1 is no-break space \(U\+00A0\): write a blank"),
        ("site\u200b = 1".encode(), r"line 1: file: .*column 5 is zero width space \(U\+200B\): delete it"),
        ("site ＝ 1".encode(), r"line 1: file: .*column 6 is fullwidth equals sign \(U\+FF1D\): write ="),
        ('site = "a"'.encode("utf-16"), r"line 1: file: begins with a byte-order mark \(BOM\) of UTF-16"),
        (b"\n", r"file: it is empty; docs/GATEWAY.md has a file to begin with"),
    ],
    ids=["value", "header", "twice", "end", "utf8", "brackets", "digits", "size", "quotes", "quote", "blank",
         "nothing", "wide", "utf16", "empty"],
)  # fmt: skip
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert re.match(said, str(caught.value.problems[0])), caught.value
    line = caught.value.problems[0].line
    assert str(caught.value).startswith(f"{path}:{line}: file: " if line else f"{path}: file: ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lon = 126.9530", "lon = 126,9530", "a decimal point is meant? Write 126.9530"),
        ('"gongdeok"', "gongdeok", 'text stands in quotes: site = "..."'),
        ("channel = 20", "channel: 20", "write = between a key and its value"),
        ("channel = 20", "channel =", "a value is missing behind channel ="),
        ("[settings]", "[clock]\ntrusted = True\n[settings]", "write true, in small letters"),
        ('"outbox"', '"C:\\Users\\a"', "a backslash has a meaning in double quotes: write the text in single quotes"),
        ("[settings]", "[mqtt]\nusername = 'u'\n[settings]", "there is [mqtt] in line 11 already: put both together"),
        ("channel = 20", "channel = 20\nchannel = 21", "channel stands in this table already: keep one of the two"),
        ("[[readers]]", "[readers]", "write [[readers]] with two brackets for each, the first in line 18 too"),
        ('site = "gongdeok"', 'site = "gongdeok', "a quote is missing at one end of the text"),
    ],
)
def test_what_was_meant_is_said_where_toml_ends_to_be_toml(folder: Path, old: str, new: str, said: str) -> None:
    text = GOOD.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    [problem] = caught.value.problems
    assert f"; {said}" in problem.text
    assert caught.value.rest_unread
    lines = [n for n, (a, b) in enumerate(zip(GOOD.split("\n"), text.split("\n"), strict=False), 1) if a != b]
    assert lines[0] <= problem.line <= lines[0] + 7


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file: cannot be read \(No such file or directory\); check the path"):
        load(tmp_path / "nowhere.toml")
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(
            ConfigError, match=rf"file: {path} is a (folder|pipe or a device), not a file; give the path of a file"
        ):
            load(path)


def test_a_mark_that_editors_of_windows_write_is_left_out(folder: Path) -> None:
    path = written(folder, "\ufeff" + GOOD.replace("\n", "\r\n"))
    assert load(path).config.site == "gongdeok"


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
