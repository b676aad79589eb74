"""The wire on both interpreters: golden frames, and what random bytes must never cause."""

import ast
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readers import wire
from tests.roots import ROOT

KEY = bytes(range(16))
DECODERS: dict[int, Callable[[bytes], Any]] = {
    wire.SIGHTINGS: wire.decode_sightings,
    wire.BINDINGS: wire.decode_bindings,
    wire.SOS: wire.decode_sos,
    wire.BELL: wire.decode_bell,
    wire.HEARTBEAT: wire.decode_heartbeat,
    wire.NEIGHBOURS: wire.decode_neighbours,
    wire.ACK: wire.decode_ack,
    wire.STAGE: wire.decode_stage,
    wire.SETTINGS: wire.decode_settings,
}
MICROPYTHON = [sys.executable, "-m", "micropython_unix"]

DOWN_BODY_MAX = wire.DOWN_MAX - wire.HEADER_SIZE - wire.MAC_SIZE

u8, u16, u24 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF)
rssi = st.none() | st.integers(-128, 126)
row_rssi = st.none() | st.integers(-126, 0)
age = st.integers(0, 255).map(lambda steps: steps * wire.AGE_STEP_MS)
sighting = st.tuples(u8, row_rssi, age, st.integers(1, 8), st.integers(0, 31), st.booleans())
alarm_age = u16.map(lambda steps: steps * wire.ALARM_AGE_STEP_MS)
advertisement = st.binary(min_size=19, max_size=19)


def mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


@pytest.mark.parametrize("interpreter", [[sys.executable], MICROPYTHON], ids=["cpython", "micropython"])
def test_golden_frames_are_the_same_on_both_interpreters(interpreter: list[str]) -> None:
    done = subprocess.run(
        [*interpreter, "tests/vectors_run.py"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
    *counts, last = done.stdout.splitlines()
    assert last == ("ok on cpython" if interpreter == [sys.executable] else "ok on micropython")
    assert all(int(line.split()[1]) >= 7 for line in counts)
    assert len(counts) == 3


def test_golden_frames_cover_every_kind() -> None:

    vectors = [
        v for name in ("uplink", "downlink") for v in json.loads((ROOT / f"tests/vectors/{name}.json").read_text())
    ]
    assert {vector["kind"] for vector in vectors} == set(DECODERS)
    sizes = {vector["name"]: len(vector["frame"]) // 2 for vector in vectors}
    assert max(sizes.values()) == wire.FRAME_MAX
    assert max(sizes[vector["name"]] for vector in vectors if vector["kind"] >= wire.ACK) == wire.DOWN_MAX
    assert any(vector["boot"] & wire.BOOT_DRAWN for vector in vectors)


def test_every_pack_format_is_one_of_micropython_1_20() -> None:
    """The interpreter of a module has no pad code `x`: it came with 1.21, and these tests run on a newer one."""
    tree = ast.parse((ROOT / "readers" / "wire.py").read_text())
    found = [
        str(node.args[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "struct"
        and isinstance(node.args[0], ast.Constant)
    ]
    found += [wire.HEARTBEAT_FORMAT, wire.SETTINGS_FORMAT]
    assert len(found) > 15
    assert not [text for text in found if set(text) - set("@<>!0123456789bBhHiIlLqQfdsP")]


def test_the_firmwares_hmac_is_the_librarys() -> None:
    source = (ROOT / "firmware" / "auth.py").read_text().replace("import config\n", "")
    for size in (1, 16, 32, 64):
        key = bytes(range(size))
        auth: dict[str, Any] = {}
        exec(source.replace("config.KEY", repr(key)), auth)  # noqa: S102  - our own file, its key filled in
        for data in (b"", b"Hi There", bytes(200)):
            assert auth["mac"](data) == hmac.new(key, data, hashlib.sha256).digest()


def open_frame(data: bytes) -> bytes:
    wire.peek(data)
    return wire.body_of(data, mac)


@given(st.binary(max_size=80))
def test_random_bytes_raise_nothing_but_wire_error(data: bytes) -> None:
    for read in (wire.peek, *DECODERS.values()):
        try:
            read(data)
        except wire.WireError:
            pass
    with pytest.raises(wire.WireError):
        open_frame(data)


@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=wire.BODY_MAX))
def test_authentic_frames_with_random_bodies_raise_nothing_but_wire_error(kind: int, body: bytes) -> None:
    frame = wire.encode(kind, 1, 2, 3, body, mac)
    assert wire.peek(frame) == (kind, 1, 2, 3)
    assert wire.body_of(frame, mac) == body
    try:
        DECODERS[kind](body)
    except wire.WireError:
        pass


@settings(max_examples=25)
@given(st.sampled_from(sorted(DECODERS)), u16, u16, u24, st.binary(max_size=wire.BODY_MAX))
def test_every_single_flipped_bit_is_refused(kind: int, reader: int, boot: int, sequence: int, body: bytes) -> None:
    frame = wire.encode(kind, reader, boot, sequence, body, mac)
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(wire.WireError):
            open_frame(bytes(flipped))


@given(u16, u16, u24, st.sampled_from(sorted(DECODERS)))
def test_a_header_comes_back(reader: int, boot: int, sequence: int, kind: int) -> None:
    frame = wire.encode(kind, reader, boot, sequence, b"", mac)
    assert wire.peek(frame) == (kind, reader, boot, sequence)
    assert len(frame) == wire.HEADER_SIZE + wire.MAC_SIZE


@given(st.lists(sighting, min_size=1, max_size=wire.ROWS_MAX))
def test_sightings_come_back_at_four_bytes_a_row(rows: list[tuple[int, int | None, int, int, int, bool]]) -> None:
    body = wire.encode_sightings(rows)
    assert len(body) == 4 * len(rows) <= wire.BODY_MAX
    assert wire.decode_sightings(body) == rows


def test_every_level_and_either_motion_come_back_on_both_interpreters() -> None:
    """All 256 values of the level byte, each from a row that the reader's own half packs."""
    script = (
        "import sys; sys.path.insert(0, 'readers'); import wire\n"
        "for motion in (0, wire.FLAG_MOVING):\n"
        "    for rssi in [None] + list(range(-128, 21)):\n"
        "        row = bytearray(4); wire.pack_row(row, 0, 9, rssi, 100, 3, 17, motion)\n"
        "        print(rssi, bool(motion), row[1], wire.decode_sightings(bytes(row))[0])\n"
    )
    told = [
        subprocess.run([*run, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        for run in ([sys.executable], MICROPYTHON)
    ]
    assert told[0] == told[1]
    expected = []
    for moving in (False, True):
        for rssi_dbm in (None, *range(-128, 21)):
            back = None if rssi_dbm is None or rssi_dbm > 0 else max(rssi_dbm, -126)
            level = (127 if back is None else -back) + 128 * moving
            expected.append(f"{rssi_dbm} {moving} {level} {(9, back, 100, 3, 17, moving)}")
    assert told[0].splitlines() == expected
    assert len({line.split()[2] for line in expected}) == 256


@given(st.binary(min_size=4, max_size=4))
def test_every_row_of_four_bytes_has_one_meaning(raw: bytes) -> None:
    assert wire.encode_sightings(wire.decode_sightings(raw)) == raw


@given(u8, st.integers(-300, 300), st.integers(0, 10**6), st.integers(1, 300), u16, st.booleans())
def test_a_level_above_0_dbm_is_none_and_one_below_the_scale_its_end(
    slot: int, rssi_dbm: int, age_ms: int, packets: int, counter: int, moving: bool
) -> None:
    [row] = wire.decode_sightings(wire.encode_sightings([(slot, rssi_dbm, age_ms, packets, counter, moving)]))
    assert (row[1], row[5]) == (None if rssi_dbm > 0 else max(rssi_dbm, -126), moving)


@given(st.lists(st.tuples(u8, rssi, age, u8, advertisement), min_size=1, max_size=wire.BINDINGS_MAX))
def test_bindings_come_back(rows: list[tuple[int, int | None, int, int, bytes]]) -> None:
    body = wire.encode_bindings(rows)
    assert len(body) <= wire.BODY_MAX
    assert wire.decode_bindings(body) == rows


@given(u8, u8, alarm_age, rssi, u8, advertisement)
def test_a_cry_comes_back(alarm: int, shown: int, age_ms: int, rssi_dbm: int | None, packets: int, body: bytes) -> None:
    fields = (alarm, shown, age_ms, rssi_dbm, packets, body)
    assert wire.decode_sos(wire.encode_sos(*fields)) == fields


@given(u8, u8, alarm_age, u8, u8, st.just((0, 0)) | st.tuples(st.integers(1, 0xFFFF), u8))
def test_a_bell_comes_back(
    alarm: int, shown: int, age_ms: int, bell_input: int, presses: int, before: tuple[int, int]
) -> None:
    fields = (alarm, shown, age_ms, bell_input, presses, *before)
    assert wire.decode_bell(wire.encode_bell(*fields)) == fields
    assert len(wire.encode_bell(*fields)) == (9 if before[0] else 6)


@given(u8, st.lists(st.tuples(u8, u24, u16), max_size=wire.ACKS_MAX))
def test_an_acknowledgement_comes_back_with_the_low_half_of_each_sequence(
    flags: int, rows: list[tuple[int, int, int]]
) -> None:
    body = wire.encode_ack(flags, rows)
    assert len(body) <= DOWN_BODY_MAX
    assert wire.decode_ack(body) == (flags, [(slot, sequence & 0xFFFF, mark) for slot, sequence, mark in rows])


@given(st.lists(st.tuples(u8, u8), min_size=1, max_size=wire.STAGES_MAX))
def test_stages_come_back(rows: list[tuple[int, int]]) -> None:
    body = wire.encode_stage(rows)
    assert len(body) <= DOWN_BODY_MAX
    assert wire.decode_stage(body) == rows


@given(st.tuples(u16, u16, u8, u8, u16, u16, u16))
def test_settings_come_back(values: tuple[int, ...]) -> None:
    body = wire.encode_settings(values)
    assert len(body) <= DOWN_BODY_MAX
    assert wire.decode_settings(body) == values
    assert len(values) == len(wire.SETTINGS_FIELDS)


def test_a_frame_to_a_reader_has_room_for_the_route_to_it() -> None:
    """A source route takes 2 bytes and 2 for each relay. As many rows as fit are used, and not one more."""
    assert wire.DOWN_MAX + 2 + 2 * 8 <= wire.FRAME_MAX, "eight relays"
    assert [DOWN_BODY_MAX - 1 - wire.ACK_SIZE * wire.ACKS_MAX, DOWN_BODY_MAX - 2 * wire.STAGES_MAX] == [3, 0]
    assert wire.ACK_SIZE > 3


def test_faults_fit_their_field() -> None:
    assert len(set(wire.FAULTS)) == len(wire.FAULTS) <= 16


def test_a_heartbeat_has_a_value_for_every_field() -> None:
    values = tuple(range(1, len(wire.HEARTBEAT_FIELDS) + 1))
    body = wire.encode_heartbeat(values)
    assert wire.decode_heartbeat(body) == values
    assert len(body) <= wire.BODY_MAX


def test_a_body_too_long_is_the_callers_error_in_words() -> None:
    with pytest.raises(wire.WireError, match="body of 53 bytes, at most 52 fit one frame"):
        wire.encode(wire.STAGE, 1, 1, 1, bytes(53), mac)
