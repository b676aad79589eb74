"""The files that a configuration names: each one is checked, key files entry by entry; no problem text shows a key."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from readers.files import FILE_MAX_B
from tests.gateway.config.bed import GOOD, READER_KEYS, TAG_KEYS, certificate, only, secret, written


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("reader_keys.json", "{", r"keys.readers: .*reader_keys.json:1: not JSON \(Expecting property name"),
        ("reader_keys.json", "[" * 100_000, "keys.readers: .*reader_keys.json:1: over 100 brackets"),
        ("reader_keys.json", [1], "keys.readers: .*reader_keys.json:1: not a JSON object; it must begin with {"),
        (
            "reader_keys.json",
            {"1": READER_KEYS["1"], "2": "00"},
            "keys.readers: .*:1: entry 2: not a number and its key: the key has 2, not 32, hex",
        ),
        (
            "reader_keys.json",
            {READER_KEYS["1"]: "1"},
            "keys.readers: .*entry 1: the name of the entry is not a reader's n",
        ),
        ("reader_keys.json", {"1": "x" * 32}, "keys.readers: .*entry 1: .*: the key has a character that is no hex"),
        (
            "reader_keys.json",
            {"1": READER_KEYS["1"], "٢": READER_KEYS[str(2)]},
            "keys.readers: .*entry 2: the name of the entry is not a reader's number",
        ),
        ("reader_keys.json", {"1": READER_KEYS["1"], "2": READER_KEYS[str(1)]}, "keys.readers: .*another reader's key"),
        (
            "reader_keys.json",
            {"1": READER_KEYS[str(1)]},
            r"readers\[1\].number: no key for reader 2 in reader_keys.json",
        ),
        (
            "tag_keys.json",
            '{"t-01": {"k_id": "00", "k_mic": "00"},\n"t-01": {"k_id": "11", "k_mic": "00"}}',
            "tag_keys.json:2: the key 't-01' is given twice .first in line 1.; keep one",
        ),
        (
            "reader_keys.json",
            f'{{"1": "{READER_KEYS[str(1)]}",\n\n"1": "{READER_KEYS[str(2)]}"}}',
            "reader_keys.json:3: the key '1' is given twice .first in line 1.; keep one",
        ),
        (
            "reader_keys.json",
            f'{{"{READER_KEYS[str(1)]}": "1", "{READER_KEYS[str(1)]}": "2"}}',
            "reader_keys.json:1: the key '0011...' is given twice",
        ),
        (
            "tag_keys.json",
            {"t-01": {"k_id": "01" * 16}},
            "keys.tags: .*entry 1: not a pseudonym and its two keys: no k_mic",
        ),
        ("tag_keys.json", {"t 01": TAG_KEYS["t-01"]}, "keys.tags: .*entry 1: not a pseudonym"),
        ("tag_keys.json", {"t-01": "01" * 16}, "keys.tags: .*entry 1: not a pseudonym"),
        (
            "tag_keys.json",
            {"t-01": TAG_KEYS["t-01"], "t-09": TAG_KEYS["t-01"]},
            "keys.tags: .*tag_keys.json:1: entry 2 has the k_id of .*tag_keys.json:1: entry 1: one of two children",
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
    own = 'ca_file = "own"\ncert_file = "own"\nkey_file = "key"\nusername = "u"\npassword_file = "word"'
    for name, value in (("own", certificate()[0]), ("key", certificate()[1]), ("word", "x")):
        secret(folder / name, value)
    text = GOOD.replace("port = 1883", f"port = 8883\n{own}")
    load(written(folder, text))
    for name in ("key", "word"):
        (folder / name).chmod(0o644)
        assert f"{folder / name} can be read by others (mode 0644)" in only(folder, text)
        (folder / name).chmod(0o600)


def test_a_file_it_names_must_be_a_file_of_sense(folder: Path) -> None:
    (folder / "tag_keys.json").unlink()
    assert "tag_keys.json cannot be read (No such file or directory); `ansim-gateway tag new` makes it" in only(
        folder, GOOD
    )
    os.mkfifo(folder / "tag_keys.json", 0o600)
    assert "tag_keys.json is a pipe or a device, not a file; name a file" in only(folder, GOOD)
    (folder / "tag_keys.json").unlink()
    (folder / "tag_keys.json").mkdir()
    assert "tag_keys.json is a folder, not a file; name a file" in only(folder, GOOD)
    (folder / "tag_keys.json").rmdir()
    secret(folder / "tag_keys.json", "")
    assert "tag_keys.json is empty; `ansim-gateway tag new` makes it" in only(folder, GOOD)
    (folder / "tag_keys.json").unlink()
    secret(folder / "tag_keys.json", " " * (FILE_MAX_B + 1))
    assert f"is over {FILE_MAX_B} bytes" in only(folder, GOOD)


@pytest.mark.parametrize(
    ("more", "files", "said"),
    [
        (
            'username = "u"\npassword_file = "w"',
            {"w": "\nx"},
            "line 15: mqtt.password_file: .*w:1: its first line is empty; write",
        ),
        (
            'password_file = "w"',
            {"w": "word"},
            "mqtt.username: missing: the password in password_file needs one; right is a name",
        ),
        (
            'cert_file = "c"\nca_file = "c"',
            {"c": "-----BEGIN X"},
            "mqtt.key_file: missing: cert_file is given, and they are used together only",
        ),
        ('key_file = "c"\nca_file = "c"', {"c": "-----BEGIN X"}, "mqtt.cert_file: missing: key_file is given"),
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


def test_certificates_are_loaded_as_the_connection_does(folder: Path) -> None:
    text = GOOD.replace("port = 1883", 'port = 8883\nca_file = "ca"\ncert_file = "own"\nkey_file = "key"')
    for name, value in (("ca", certificate(31)[0]), ("own", certificate()[0]), ("key", certificate()[1])):
        secret(folder / name, value)
    assert load(written(folder, text)).notes == ()
    for name, value, said in (
        ("key", certificate(31)[1], "line 15: mqtt.cert_file: .* are no pair that can be used .*; the key must"),
        ("ca", certificate()[0][:300], "line 14: mqtt.ca_file: .*ca holds no certificate that can be read; copy"),
        ("ca", "\ufeff" + certificate()[0], "line 14: mqtt.ca_file: .*ca begins with a byte-order mark"),
    ):  # fmt: skip
        before = (folder / name).read_text()
        secret(folder / name, value)
        found = only(folder, text)
        assert re.match(said, found), found
        assert "PRIVATE" not in found
        secret(folder / name, before)
    secret(folder / "ca", certificate(-3)[0])
    [note] = load(written(folder, text)).notes
    assert re.match(
        r"mqtt.ca_file: .*ca ended on 20\d\d-\d\d-\d\d: the broker is refused if this box's clock is right", note
    )


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
            ":1: entry 1, 1: the install code is not 16 bytes and their checksum; copy the entry anew",
        ),
        ({"2": good}, "module 0013a20041234567 is reader '2' there, but 1 in this file"),
        ({"1": {"install_code": code}}, ":1: entry 1, '1': no eui64"),
        ({"1": good, "9": good}, "module 0013a20041234567 has two numbers there, '1' and '9'; remove the wrong one"),
        ({"1": good, "9": good | {"eui64": "0013a200 41234567"}}, "has two numbers there, '1' and '9'"),
        ({"1": good, "9": {"eui64": "1.3A2E+15"}}, "entry 2, '9': eui64 '1.3A2E+15' is what a spreadsheet makes"),
        (
            {"1": good, "9": {"eui64": "13a20041234567"}},
            "were leading zeros lost, as in a spreadsheet? Then it is 0013a2",
        ),
    ):
        secret(folder / "readers.json", value)
        found = only(folder, text)
        assert found.startswith("line 7: radio.enrolment: ")
        assert said in found


def test_a_mark_of_an_editor_is_no_part_of_a_password_or_a_key_file(folder: Path) -> None:
    secret(folder / "word", "\ufeffhunter2\r\n")
    secret(folder / "reader_keys.json", "\ufeff" + json.dumps(READER_KEYS))
    text = GOOD.replace("port = 1883", 'port = 1883\nusername = "u"\npassword_file = "word"')
    loaded = load(written(folder, text))
    assert loaded.password == "hunter2"
    assert set(loaded.reader_keys) == {1, 2}
