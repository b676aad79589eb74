"""JSON in which nothing is lost, text that editors have touched, and addresses of modules as people bring them."""

import json
import re
from pathlib import Path

import pytest

from readers.files import (
    NESTING_MAX,
    BadFile,
    bytes_of,
    eui64_of,
    host_fault,
    is_local,
    json_of,
    table_of,
    text_of,
    tls_note,
)
from tests.mutations import odd_paths


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"t-01": 1,\n "t-02": 2,\n "t-01": 3}', "line 3: the key 't-01' is given twice (first in line 1); keep one"),
        ('{"a": [{"b": 1,\n"\\u0062": 2}]}', "line 2: the key 'b' is given twice (first in line 1)"),
        ('{"a": {"b": 1},\n"c": {"b": 1}, "b": ["b", "b"]}', ""),
        (
            '{"00112233445566778899aabbccddeeff": 1, "00112233445566778899aabbccddeeff": 2}',
            "the key '0011...' is given",
        ),
        ("{", "line 1: not JSON (Expecting property name"),
        ('{"a": 1,\n 2}', "line 2: not JSON"),
        ('{"a": 1,}', "line 1: not JSON"),
        ("\n[NaN]", "line 2: NaN is no usable number; give a finite one, or null"),
        ("[-Infinity]", "line 1: -Infinity is no usable number"),
        ("[1,\n1e999]", "line 2: 1e999 is no usable number"),
        ("[\n" + "1" * 5000 + "]", "line 2: 11111111111111111111 is no usable number"),
        ("\n" + "[" * 100_000, f"line 2: over {NESTING_MAX} brackets within each other"),
        ("\n" + "[" * 150 + "]" * 150, f"line 2: over {NESTING_MAX} brackets within each other"),
        ("[" * NESTING_MAX + "]" * NESTING_MAX, ""),
        ('["\\ud800"]', "line 1: half a character"),
        ('["\\ud83d\\ude00", "\\\\ud800", ":", "}{", "\\""]', ""),
        ("", "line 1: not JSON"),
    ],
)
def test_json_is_read_whole_or_refused_with_its_line(text: str, said: str) -> None:
    if said:
        with pytest.raises(BadFile) as caught:
            json_of(text.encode())
        assert said in str(caught.value)
        return
    assert json_of(text.encode()) == json.loads(text)
    assert json_of(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


def test_what_is_no_object_or_no_utf8_is_named() -> None:
    with pytest.raises(BadFile, match=r"line 1: not a JSON object; it must begin with \{"):
        table_of(b"[1]")
    with pytest.raises(BadFile, match="line 2: not UTF-8 text; save it as UTF-8"):
        text_of(b"a\n\xff")
    with pytest.raises(BadFile, match=r"line 1: begins with a byte-order mark \(BOM\) of UTF-16, .*: UTF-8\)"):
        text_of("{}".encode("utf-16"))
    with pytest.raises(BadFile, match="line 1: is UTF-16, not UTF-8 text"):
        text_of("{}".encode("utf-16-le"))
    assert text_of("\ufeff{}".encode()) == "{}"


def test_no_pipe_device_or_endless_file_is_read(tmp_path: Path) -> None:
    for path in odd_paths(tmp_path):
        with pytest.raises((BadFile, OSError)):
            bytes_of(path)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(BadFile, match=f"{tmp_path} is a folder, not a file; give the path of a file"):
        bytes_of(tmp_path)
    with pytest.raises(BadFile, match="over 10 bytes"):
        bytes_of(tmp_path / "long", 10)
    assert bytes_of(tmp_path / "long", 11) == b"x" * 11


@pytest.mark.parametrize(
    "text",
    [
        "0013a20041a06e60",
        "0013A20041A06E60",
        "00:13:A2:00:41:A0:6E:60",
        "0013A200 41A06E60",
        "0013.a200.41a0.6e60",
        "0x0013A20041A06E60",
        "0013A200\u201341A06E60",
    ],
)
def test_an_address_is_taken_in_every_form_that_has_its_digits(text: str) -> None:
    assert eui64_of(text) == "0013a20041a06e60"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1.3A2E+15", "a spreadsheet makes of an address, and digits are lost; format the column as text, and copy"),
        ("1.32E+12", "a spreadsheet makes of an address"),
        (
            "13a20041a06e60",
            "has 14 digits, not 16; were leading zeros lost, as in a spreadsheet? Then it is 0013a20041a06e60",
        ),
        ("41a06e60", "has 8 digits, not 16; copy it from the module"),
        ("0013a20041a06e600", "has 17 digits"),
        ("0013a20041a06e6O", "has 'o', no hexadecimal digit"),
        ("００13a20041a06e60", "no hexadecimal digit"),
        (1320041234567, "int, not text; write the 16 digits of the module in quotes"),
        (None, "NoneType, not text"),
        ("0" * 16, "is no module's address"),
        ("f" * 16, "is no module's address"),
        ("", "has 0 digits"),
    ],
)
def test_no_digit_of_an_address_is_guessed(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        eui64_of(value)


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "mqtt.example.org", "mqtt.example.org.", "broker", "브로커.kr"])
def test_a_name_or_an_address_is_a_host(name: str) -> None:
    assert host_fault(name) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt://b.org", 'it has a scheme; write host = "b.org"'),
        ("HTTPS://b.org/", 'it has a scheme, a slash or a path; write host = "b.org"'),
        ("mqtts://b.org:8883", 'it has a scheme, a port; write host = "b.org" and port = 8883'),
        ("b.org/", 'it has a slash or a path; write host = "b.org"'),
        ("b.org:1883", 'it has a port; write host = "b.org" and port = 1883'),
        ("10.0.0.1:1883", 'write host = "10.0.0.1" and port = 1883'),
        ("[::1]:1883", 'it has a port; write host = "::1" and port = 1883'),
        ("[::1]", 'it has blanks or brackets; write host = "::1"'),
        ("gw1:hunter2@b.org", 'it has a user; write host = "b.org", and the user at its own key'),
        (" b.org", 'it has blanks or brackets; write host = "b.org"'),
        ("b org", "is no name and no address of a host"),
        ("1.2.3", "is no name and no address of a host"),
        ("mqtt://", "is no name and no address of a host"),
        ("", "is no name and no address of a host"),
        ("x" * 64, "is no name and no address of a host"),
    ],
)
def test_what_is_more_than_a_host_is_taken_apart(text: str, said: str) -> None:
    found = host_fault(text)
    assert found is not None
    assert said in found
    assert "hunter2" not in found


def test_a_port_and_tls_that_are_unusual_together_are_noted() -> None:
    assert tls_note(8883, "ca.pem") is None
    assert tls_note(1883, None) is None
    assert tls_note(18883, None) is None
    assert "is port = 8883 meant?" in str(tls_note(1883, "ca.pem"))
    assert "there is no ca_file" in str(tls_note(8883, None))


def test_only_this_machine_is_local() -> None:
    assert all(map(is_local, ("127.0.0.1", "127.0.1.1", "::1", "localhost", "LOCALHOST.")))
    assert not any(map(is_local, ("10.0.0.1", "localhost.example.org", "fe80::1")))
