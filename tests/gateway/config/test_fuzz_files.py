"""The gateway's file and every file that it names, damaged in thousands of ways: loaded, or refused with a reason."""

import json
import random
from functools import partial
from pathlib import Path

import pytest

from gateway.config.findings import ConfigError
from gateway.config.load import load, summary
from tests.gateway.config.bed import GOOD, READER_KEYS, TAG_KEYS, certificate, secret, written
from tests.mutations import damaged, json_bytes, odd_paths, outcome, refused

SEED = 25
CODE = "83FED3407A939723A5C639B26916D505C3B5"
READERS = {
    "1": {"number": 1, "eui64": "0013A20041234567", "install_code": CODE},
    "9": {"number": 9, "eui64": "0013a20041234599", "install_code": None},
}
MORE = """
[keys]
readers = "reader_keys.json"
tags = "tag_keys.json"

[[routes]]
id = "by-the-park"
line = [[126.950, 37.543], [126.951, 37.543], [126.951, 37.544]]
tags = ["t-01"]
"""
FOOTPATHS = """
[[footpaths]]
line = [[126.950, 37.543], [126.951, 37.543]]
"""
GATES = """
[[gates]]
id = "main"
place = "school"
lon = 126.9505
lat = 37.543
inward_deg = 0.0
width_m = 3
"""
GUARD = """antenna = "patch"
look_deg = 180
gate = "main"
side = "outer"
scan_interval_ms = 10
scan_window_ms = 5
frames_per_min = 60
"""
PLACED = GOOD.replace("lon = 126.9520\nlat = 37.5440\n", "lon = 126.9505\nlat = 37.54298\n" + GUARD)
ALL = PLACED.replace("channel = 20", 'channel = 20\nenrolment = "readers.json"') + MORE + GATES
ALL = ALL.replace("port = 1883", 'port = 1883\nusername = "u"\npassword_file = "word"\nca_file = "ca.pem"')


@pytest.fixture
def whole(folder: Path) -> Path:
    """A folder with every file that a configuration can name, all of them good."""
    secret(folder / "readers.json", READERS)
    secret(folder / "word", "hunter2\n")
    secret(folder / "ca.pem", certificate()[0])
    assert load(written(folder, ALL)).zone.readers[0].gate == "main"
    return folder


def test_a_configuration_is_loaded_or_refused(whole: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = whole / "gateway.toml"
    for n in range(2000):
        text = ALL if n % 50 else ALL + FOOTPATHS  # their ground takes long
        path.write_bytes(damaged(chance, text.encode()))
        loaded = outcome(partial(load, path), ConfigError)
        counts[loaded is None] += 1
        assert loaded is None or summary(loaded)
    assert min(counts) > 50


ODD = ("nan", "-inf", "1e400", "1" + "0" * 400, "-1", "0", "37.5", '""', '"“x”"', '"x\\u200b"', "[]", "[[]]", "{}",
       "{a = 1}", "1979-05-27", "07:32:00", "true", "[" * 99 + "]" * 99, '"' + "x" * 300 + '"', '"1.3A2E+15"',
       "[1, 2, 3]", '"-1"', "[[126.95, 37.54, 20.0]]", "[[37.54, 126.95]]", '["t-01", "t-01"]',
       "9223372036854775808")  # fmt: skip


def test_every_value_may_be_anything(whole: Path) -> None:
    lines = ALL.split("\n")
    places = [n for n, line in enumerate(lines) if " = " in line and not line.endswith("[")]
    for n in places:
        name = lines[n].split(" = ")[0]
        for odd in ODD:
            text = "\n".join([*lines[:n], f"{name} = {odd}", *lines[n + 1 :]])
            refused(partial(load, written(whole, text), here=True), ConfigError)


@pytest.mark.parametrize(
    ("name", "good"), [("reader_keys.json", READER_KEYS), ("tag_keys.json", TAG_KEYS), ("readers.json", READERS)]
)
def test_a_file_of_secrets_is_read_whole_or_refused(whole: Path, name: str, good: dict[str, object]) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = written(whole, ALL)
    for _ in range(1000):
        (whole / name).write_bytes(json_bytes(chance, good))
        loaded = outcome(partial(load, path), ConfigError)
        counts[loaded is None] += 1
        if loaded is None:
            continue
        rows = json.loads((whole / name).read_text("utf-8-sig"))
        if name == "tag_keys.json":
            assert loaded.tag_keys.keys() == rows.keys(), "no child's tag is dropped"
        elif name == "reader_keys.json":
            assert {str(number): key.hex() for number, key in loaded.reader_keys.items()}.items() <= {
                number: key.lower() for number, key in rows.items()
            }.items()
    assert min(counts) > 100


def test_a_password_and_a_certificate_are_read_or_refused(whole: Path) -> None:
    chance, path = random.Random(SEED), written(whole, ALL)
    for _ in range(500):
        (whole / "word").write_bytes(damaged(chance, b"hunter2\nsecond line\n"))
        (whole / "ca.pem").write_bytes(damaged(chance, certificate()[0].encode()))
        refused(partial(load, path), ConfigError)


def test_no_odd_path_stops_the_check(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for n, odd in enumerate(odd_paths(tmp_path_factory.mktemp("odd"))):
        assert refused(partial(load, odd, here=True), ConfigError)
        for name in ("reader_keys.json", "tag_keys.json", "readers.json", "word", "ca.pem"):
            (whole / f"{n}{name}").symlink_to(odd)
            assert refused(partial(load, written(whole, ALL.replace(name, f"{n}{name}")), here=True), ConfigError)
        survey = ALL + f'[locate]\nsurvey = "{odd}"\n'
        assert refused(partial(load, written(whole, survey)), ConfigError)
        for old in ("socket://127.0.0.1:6638", "outbox"):
            refused(partial(load, written(whole, ALL.replace(old, str(odd))), here=True), ConfigError)
