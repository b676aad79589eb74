"""Bytes in, reports out: nothing raises, only a right MAC counts, and nothing is taken twice."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import frames
from gateway.core.frames import WINDOW, Malformed, ReaderLinks, Report, is_urgent, mac_of, read
from readers import wire
from tests.gateway.core.bed import KEYS, Pole
from tests.roots import ROOT


def links() -> ReaderLinks:
    return ReaderLinks.of(KEYS)


def freshness(known: ReaderLinks, payload: bytes) -> str:
    found = read(known, payload)
    assert isinstance(found, Report), found
    return found.freshness


def bell(pole: Pole, sequence: int | None = None) -> bytes:
    return pole.frame(wire.BELL, wire.encode_bell(1, 0, 0, 0, 1), sequence=sequence).payload


def sealed(data: bytes, key: bytes) -> bytes:
    return data + mac_of(key)(data)[: wire.MAC_SIZE]


def test_mac_is_hmac_sha256() -> None:
    """RFC 4231, test case 2."""
    mac = mac_of(b"Jefe")(b"what do ya want for nothing?")
    assert mac.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@given(st.binary(max_size=80))
@settings(max_examples=500, deadline=None)
def test_random_bytes_are_malformed_and_move_nothing(payload: bytes) -> None:
    known = links()
    found = read(known, payload)
    assert isinstance(found, Malformed)
    assert found.raw == payload
    assert frames.snapshot(known) == []
    is_urgent(payload)


@given(st.integers(1, 15), st.integers(0, 0xFFFF), st.binary(max_size=wire.BODY_MAX))
@settings(max_examples=300, deadline=None)
def test_any_body_under_a_right_mac_never_raises(kind: int, boot: int, body: bytes) -> None:
    payload = wire.encode(kind, 3, boot, 7, body, mac_of(KEYS[3]))
    found = read(links(), payload)
    if isinstance(found, Malformed):
        assert found.reason in ("downlink", "unknown_kind", "wrong_body")


def test_every_flipped_bit_is_refused() -> None:
    payload = bell(Pole(3))
    for bit in range(8 * len(payload)):
        broken = bytearray(payload)
        broken[bit // 8] ^= 1 << bit % 8
        known = links()
        assert isinstance(read(known, bytes(broken)), Malformed)
        assert frames.snapshot(known) == []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_ours"),
        (wire.encode(wire.BELL, 999, 1, 1, bytes(6), mac_of(KEYS[3])), "unknown_reader"),
        (wire.encode(wire.BELL, 3, 1, 1, bytes(6), mac_of(KEYS[4])), "wrong_mac"),
        (wire.encode(wire.STAGE, 3, 1, 1, bytes(2), mac_of(KEYS[3])), "downlink"),
        (wire.encode(7, 3, 1, 1, bytes(6), mac_of(KEYS[3])), "unknown_kind"),
        (wire.encode(wire.BELL, 3, 1, 1, bytes(5), mac_of(KEYS[3])), "wrong_body"),
        (sealed(b"\x14" + bytes((0, 3, 0, 1, 0, 0, 1)) + bytes(6), KEYS[3]), "other_version"),
        (sealed(b"\x14" + bytes((0, 3, 0, 1, 0, 0, 1)) + bytes(6), KEYS[4]), "not_ours"),
        (sealed(b"\x14" + bytes((9, 9, 0, 1, 0, 0, 1)) + bytes(6), KEYS[3]), "not_ours"),
    ],
)
def test_what_is_wrong_is_named(payload: bytes, reason: str) -> None:
    found = read(links(), payload)
    assert isinstance(found, Malformed)
    assert found.reason == reason


def test_a_sequence_is_taken_once_within_the_window() -> None:
    known, pole = links(), Pole(3)
    taken: set[int] = set()
    order = list(range(1, 400)) * 3
    rng = random.Random(4)
    order.sort(key=lambda n: n + rng.uniform(-40, 40))
    top = 0
    for sequence in order:
        fresh = freshness(known, bell(pole, sequence))
        if sequence in taken:
            assert fresh in ("again", "stale")
        else:
            assert fresh == ("new" if top - sequence < WINDOW else "stale")
        if fresh == "new":
            taken.add(sequence)
        top = max(top, sequence)
    assert taken == set(range(1, 400))


def test_the_windows_edge() -> None:
    known, pole = links(), Pole(3)
    assert freshness(known, bell(pole, 100)) == "new"
    assert freshness(known, bell(pole, 100 - WINDOW + 1)) == "new"
    assert freshness(known, bell(pole, 100 - WINDOW)) == "stale"
    assert freshness(known, bell(pole, 100 - WINDOW + 1)) == "again"
    assert freshness(known, bell(pole, wire.SEQUENCE_MAX)) == "new"
    assert freshness(known, bell(pole, 100)) == "stale"


@pytest.mark.parametrize(
    ("was", "now", "fresh"),
    [
        (5, 6, "new"),
        (5, 4, "stale"),
        (0x7FFF, 1, "new"),
        (1, 0x7FFF, "stale"),
        (10, 10 + 0x3FFF, "new"),
        (10, 10 + 0x4000, "stale"),
    ],
)
def test_kept_boots_count_in_serial_arithmetic(was: int, now: int, fresh: str) -> None:
    known = links()
    assert freshness(known, bell(Pole(3, was), 50)) == "new"
    found = read(known, bell(Pole(3, now), 1))
    assert isinstance(found, Report)
    assert (found.freshness, found.rebooted, found.old_boot) == (fresh, fresh == "new", fresh == "stale")
    assert frames.boot_of(known, 3) == (now if fresh == "new" else was)


def test_a_new_boot_begins_its_sequences_anew() -> None:
    known = links()
    assert freshness(known, bell(Pole(3, 1), 1000)) == "new"
    assert freshness(known, bell(Pole(3, 2), 1)) == "new"
    assert freshness(known, bell(Pole(3, 1), 1001)) == "stale"
    assert freshness(known, bell(Pole(3, 2), 1)) == "again"


def test_replays_are_known_after_a_restart() -> None:
    known = links()
    seen = [bell(Pole(3, 9), sequence) for sequence in (1, 2, 40)]
    for payload in seen:
        read(known, payload)
    again = links()
    frames.restore(again, frames.snapshot(known))
    assert [freshness(again, payload) for payload in seen] == ["again"] * 3
    assert freshness(again, bell(Pole(3, 9), 3)) == "new"


def test_a_reader_with_a_new_key_starts_anew() -> None:
    known = links()
    read(known, bell(Pole(3, 9), 50))
    again = ReaderLinks.of({3: bytes(16)})
    frames.restore(again, frames.snapshot(known))
    assert frames.boot_of(again, 3) is None
    assert freshness(again, wire.encode(wire.BELL, 3, 1, 1, bytes(6), mac_of(bytes(16)))) == "new"


def test_downlinks_quote_the_newest_sequence() -> None:
    known, pole = links(), Pole(3, 7)
    assert frames.answer(known, 3, wire.ACK, wire.encode_ack(0, [])) is None
    for sequence in (5, 9, 6):
        read(known, bell(pole, sequence))
    payload = frames.answer(known, 3, wire.STAGE, wire.encode_stage([(1, 1)]))
    assert payload is not None
    assert wire.peek(payload) == (wire.STAGE, 3, 7, 9)
    assert wire.body_of(payload, mac_of(KEYS[3])) == bytes([1, 1])


def test_no_frame_to_a_reader_is_longer_than_relays_allow() -> None:
    known, pole = links(), Pole(3, 7)
    read(known, bell(pole))
    fullest = {
        wire.ACK: wire.encode_ack(3, [(1, 2, 3)] * wire.ACKS_MAX),
        wire.STAGE: wire.encode_stage([(1, 1)] * wire.STAGES_MAX),
        wire.SETTINGS: wire.encode_settings([0xFFFF, 0xFFFF, 255, 255, 0xFFFF, 0xFFFF, 0xFFFF]),
    }
    golden = json.loads((ROOT / "tests/vectors/downlink.json").read_text())
    assert set(fullest) == {vector["kind"] for vector in golden}, "every kind of frame to a reader"
    for kind, body in fullest.items():
        payload = frames.answer(known, 3, kind, body)
        assert payload is not None
        assert len(payload) <= wire.DOWN_MAX
    for kind in range(wire.ACK, 16):
        with pytest.raises(ValueError, match="35 bytes for reader 3, at most 34 fit: split its rows"):
            frames.answer(known, 3, kind, bytes(35))


def test_only_cries_and_bells_are_urgent() -> None:
    pole = Pole(3)
    urgent = [pole.frame(kind, b"").payload for kind in (wire.SOS, wire.BELL)]
    calm = [pole.frame(kind, b"").payload for kind in (wire.SIGHTINGS, wire.BINDINGS, wire.HEARTBEAT, wire.ACK)]
    assert all(map(is_urgent, urgent))
    assert not any(map(is_urgent, [*calm, b"", b"\x23", b"\x13" + bytes(20)]))
