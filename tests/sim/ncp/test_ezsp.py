"""EZSP 13: our tables agree with another implementation's, and every request gets an answer that fits its layout."""

from __future__ import annotations

import inspect
import random
from dataclasses import fields, is_dataclass
from typing import Any

import bellows.ezsp.v13.commands as theirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.ncp.ash import AshFrame, FrameKind, encode
from sim.ncp.ezsp import STRUCTS, EzspError, decode_fields, encode_fields, read_request, struct_schema, write_request
from sim.ncp.ezsp_commands import COMMANDS
from sim.ncp.ezsp_ids import Ezsp
from tests.sim.ncp.bed import Host

SIZES = {"u8": 1, "s8": 1, "bool": 1, "u16": 2, "u32": 4, "eui64": 8, "key": 16, "bytes8": 8, "lv": 1, "lv16s": 1}


def width(schema: Any) -> int:
    """Return the smallest number of bytes that these parameters need."""
    total = 0
    for _, kind in schema:
        if kind in STRUCTS:
            total += width(struct_schema(kind))
        elif "*" in kind:
            item, _, count = kind.partition("*")
            total += SIZES[item] * (int(count) if count.isdigit() else 0)
        else:
            total += 4 if kind.startswith("lv32") else SIZES[kind]
    return total


def some_value(kind: str, rng: random.Random) -> Any:
    """Return a random value of this wire type. Two fields of it are unlikely to be equal."""
    kind = kind.rstrip("?")
    if kind in STRUCTS:
        return STRUCTS[kind](*(some_value(k, rng) for _, k in struct_schema(kind)))
    if "*" in kind:
        item, _, count = kind.partition("*")
        return [some_value(item, rng) for _ in range(int(count))]
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "lv16s":
        return [rng.randrange(1 << 16) for _ in range(3)]
    if kind in ("lv", "lv32"):
        return rng.randbytes(5)
    if kind in ("u8", "s8", "u16", "u32"):
        return rng.randrange({"u8": 1 << 8, "s8": 1 << 7, "u16": 1 << 16, "u32": 1 << 32}[kind])
    return rng.randbytes(SIZES[kind])


def flat(value: Any) -> list[int]:
    """Return a value decoded by either implementation as a list of numbers. An address starts with its highest byte."""
    if isinstance(value, list | tuple | bytes):
        numbers = [n for item in value for n in flat(item)]
        return numbers[::-1] if type(value).__name__ in ("EUI64", "ExtendedPanId") else numbers
    if is_dataclass(value):
        return [n for field in fields(value) for n in flat(getattr(value, field.name))]
    if hasattr(value, "as_dict"):
        return [n for field in value.fields for n in flat(getattr(value, field.name))]
    return [int(value) % 256 if -128 <= int(value) < 0 else int(value)]


def test_ids_and_number_of_parameters_agree_with_another_implementation() -> None:
    for command in COMMANDS.values():
        number, request, answer = theirs.COMMANDS[command.name]
        assert command.frame_id == number
        for ours, other in ((command.request, request), (command.answer, answer)):
            assert len(ours) == len(other if isinstance(other, dict) else other.fields), command.name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_another_implementation_reads_our_bytes_field_by_field(name: str) -> None:
    rng = random.Random(name)
    command = COMMANDS[name]
    _, request, answer = theirs.COMMANDS[name]
    for ours, other in ((command.request, request), (command.answer, answer)):
        if (name == "addEndpoint" and ours is command.request) or not isinstance(other, dict):
            continue  # a greedy list, or no plain layout; test_chip.py sends these two from and to the real one
        values = tuple(some_value(kind, rng) for _, kind in ours)
        data = encode_fields(ours, values)
        assert decode_fields(ours, data) == (values, b"")
        for (field, _), wanted, kind in zip(ours, values, other.values(), strict=True):
            got, data = kind.deserialize(data)
            assert flat(got) == flat(wanted), (name, field)
        assert not data, name


def test_every_command_has_an_answer_that_fits_its_layout() -> None:
    for up in (False, True):
        for command in COMMANDS.values():
            if command.callback or command.name in ("invalidCommand", "version", "resetNode"):
                continue
            host = Host()
            if up:
                host.form()
            method = getattr(host.stick, f"do_{command.name}")
            assert len(inspect.signature(method).parameters) == len(command.request), command.name
            for filler in (b"\x00", b"\x01", b"\xff"):
                parameters = filler * width(command.request)
                if command.name == "addEndpoint":
                    parameters = bytes((5, 0, 0, 0, 0, 0, 1, 1, 6, 0, 7, 0))
                elif any(k == "lv" for _, k in command.request):
                    parameters += bytes(300)
                host.sequence = (host.sequence + 1) & 0xFF
                answer = host.take(host.raw(write_request(host.sequence, command.frame_id, parameters[:200])))
                assert answer is not None
                assert answer[0] in (command.name, "invalidCommand"), command.name


@given(data=st.binary(max_size=60))
@settings(max_examples=300)
def test_any_request_is_answered_and_none_raises(data: bytes) -> None:
    host = Host()
    host.raw(data)
    try:
        read_request(data)
    except EzspError:
        assert host.stick.drop_counts["frames_too_short"] >= 1


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=100)
def test_random_commands_with_random_parameters_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    host = Host()
    if rng.random() < 0.7:
        host.form()
    for _ in range(20):
        command = rng.choice(list(COMMANDS.values()))
        if command.name == "resetNode":
            continue
        parameters = rng.randbytes(rng.choice((0, width(command.request), width(command.request) + 20)))
        assert host.raw(write_request(rng.randrange(256), command.frame_id, parameters)), command.name
        host.now_s += rng.random() * 3


def test_nothing_but_version_is_answered_before_version() -> None:
    host = Host()
    host.stick.receive_data(b"\x1a" + encode(AshFrame(FrameKind.RST)), host.now_s)
    host.line()
    host.tx = host.rx = 0
    assert host.raw(write_request(1, 0x05, b"")) == [bytes((1, 0x80, 1, 0x58, 0, Ezsp.VERSION_NOT_SET))]
    assert host.raw(write_request(2, 0x00, b"\x04", legacy=True)) == [bytes((2, 0x80, 0, 13, 2, 0x40, 0x74))]
    assert host.raw(write_request(3, 0x05, b"")) == [bytes((3, 0x80, 1, 0x58, 0, Ezsp.VERSION_NOT_SET))]
    assert host.raw(write_request(4, 0x00, b"\x0d")) == [bytes((4, 0x80, 1, 0, 0, 13, 2, 0x40, 0x74))]
    assert host.raw(write_request(5, 0x05, b"")) == [bytes((5, 0x80, 1, 5, 0))]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (write_request(9, 0x7777, b""), Ezsp.INVALID_FRAME_ID),
        (write_request(9, 0x19, b"\x90"), Ezsp.WRONG_DIRECTION),
        (write_request(9, 0x52, b""), Ezsp.TRUNCATED),
        (write_request(9, 0x02, bytes((1, 0, 0, 0, 0, 0, 9, 9, 1, 0))), Ezsp.TRUNCATED),
    ],
)
def test_a_frame_it_cannot_use_is_an_invalid_command_with_the_reason(frame: bytes, reason: Ezsp) -> None:
    assert Host().raw(frame) == [bytes((9, 0x80, 1, 0x58, 0, reason))]
