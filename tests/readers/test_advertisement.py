"""The tag's advertisement: published test vectors of its cipher, our own of its layout, and what must be refused."""

import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from readers import advertisement, wire
from readers.advertisement import (
    AdvertisementError,
    Contents,
    TagKeys,
    build,
    epoch_at,
    mark,
    parse,
    payload,
    rotating_id,
)

# RFC 4493, section 4: AES-CMAC test vectors.
RFC_4493_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
RFC_4493_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC_4493 = [
    (0, "bb1d6929e95937287fa37d129b756746"),
    (16, "070a16b46b4d4144f79bdd9dd04a287c"),
    (40, "dfa66747de9ae63030ca32611497c827"),
    (64, "51f0bebf7e3b9d92fc49741779363cfe"),
]
KEYS = TagKeys(bytes(range(16)), bytes(range(16, 32)))
EPOCH = 1_984_000

u8, u16 = st.integers(0, 255), st.integers(0, 0xFFFF)


@pytest.mark.parametrize(("size", "tag"), RFC_4493)
def test_published_cmac_vectors(size: int, tag: str) -> None:
    assert advertisement._cmac(RFC_4493_KEY, RFC_4493_MESSAGE[:size]).hex() == tag


def cmac(key: bytes, data: bytes) -> bytes:
    made = CMAC(AES(key))
    made.update(data)
    return made.finalize()


@pytest.mark.parametrize("cries", [False, True])
def test_the_layout_byte_by_byte(cries: bool) -> None:
    """Built here from the drawing at the top of the file `advertisement.py`; only the cipher is shared."""
    flags = 0x1E | cries
    body = build(KEYS, EPOCH, flags=flags, press=250, count=0xFFF0, power_dbm=-59, battery_mv=2960)
    block = cmac(KEYS.k_id, struct.pack(">I", EPOCH))
    front = b"\x20" + block[:8]
    front += bytes([flags ^ (block[8] & 0xFA), 250 + block[9] & 0xFF])
    front += (0xFFF0 + int.from_bytes(block[10:12], "big") & 0xFFFF).to_bytes(2, "big")
    if cries:
        front += cmac(KEYS.k_mic, b"cry" + struct.pack(">IB", EPOCH, 250))[:2]
    else:
        front += bytes([-59 + block[12] & 0xFF, 148 + block[13] & 0xFF])
    assert body == front + cmac(KEYS.k_mic, struct.pack(">I", EPOCH) + front)[:4]
    assert len(body) == wire.ADVERTISEMENT_SIZE


OLD_TAG = {"flags": 1, "press": 7, "count": 65535, "power_dbm": -70, "battery_mv": 2500}
FULL_TAG = {"flags": 0x1E, "press": 255, "power_dbm": 8, "battery_mv": 9999}


@pytest.mark.parametrize(
    ("epoch", "fields", "frame"),
    [
        (0, {}, "20c998d2315876534bc0aeac8c8e5666a8c2e7"),
        (EPOCH, OLD_TAG, "20529ff10a87475f9d6998a2108cf989645e9c"),
        (0xFFFFFFFF, FULL_TAG, "20fdf3fb89d0027d68dce0c42bb60e63edf698"),
    ],
)
def test_golden_advertisements(epoch: int, fields: dict[str, int], frame: str) -> None:
    assert build(KEYS, epoch, **fields).hex() == frame


def test_the_payload_is_a_flags_element_and_one_manufacturer_element() -> None:
    data = payload(build(KEYS, EPOCH), 0x02E5)
    assert data[:3] == b"\x02\x01\x06"
    assert data[3:7] == bytes([22, 0xFF, 0xE5, 0x02])
    assert data[7:] == build(KEYS, EPOCH)
    assert len(data) <= 31


@given(u8, u8, u16, st.integers(-128, 127), u8)
def test_what_was_built_opens_with_its_keys_in_its_epoch(
    flags: int, press: int, count: int, power: int, battery: int
) -> None:
    body = build(KEYS, EPOCH, flags=flags, press=press, count=count, power_dbm=power, battery_mv=battery * 20)
    heard = parse(body)
    assert heard.flags == flags & (wire.FLAG_SOS | wire.FLAG_MOVING)
    assert heard.rotating_id == rotating_id(KEYS.k_id, EPOCH)
    cries = bool(flags & wire.FLAG_SOS)
    assert heard.open(KEYS, EPOCH) == Contents(
        flags, press, count, None if cries else power, None if cries else battery * 20
    )
    if cries:
        assert body[13:15] == mark(KEYS, EPOCH, press).to_bytes(2, "big") != bytes(2)
    assert heard.open(KEYS, EPOCH + 1) is None
    assert heard.open(TagKeys(KEYS.k_id, bytes(16)), EPOCH) is None


@given(u8, u16)
def test_within_an_epoch_a_press_and_a_beacon_are_one_more_than_the_last(press: int, count: int) -> None:
    first = parse(build(KEYS, EPOCH, press=press, count=count))
    second = parse(build(KEYS, EPOCH, press=press + 1, count=count + 1))
    assert (second.sealed_press - first.sealed_press) & 0xFF == 1
    assert (second.counter - first.counter) & 0xFFFF == 1


def test_a_mark_is_never_zero_and_belongs_to_one_press_of_one_epoch() -> None:
    marks = {mark(KEYS, EPOCH + e, press) for e in range(4) for press in range(256)}
    assert 0 not in marks
    assert len(marks) > 1000, "of 1024; two of 65535 may be alike"
    assert mark(KEYS, EPOCH, 256) == mark(KEYS, EPOCH, 0)


def test_every_flipped_bit_is_refused() -> None:
    body = build(KEYS, EPOCH, flags=1, press=1)
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        if bit >> 3 == 0:
            with pytest.raises(AdvertisementError):
                parse(bytes(flipped))
        else:
            assert parse(bytes(flipped)).open(KEYS, EPOCH) is None


@given(st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_advertisement_error(data: bytes) -> None:
    try:
        assert parse(data).open(KEYS, EPOCH) is None
    except AdvertisementError:
        assert len(data) != wire.ADVERTISEMENT_SIZE or data[0] != wire.ADVERTISEMENT_VERSION


def test_no_byte_of_one_epoch_predicts_one_of_the_next() -> None:
    """A tag that rests: the same contents in 2,000 epochs. Every byte but the version looks drawn anew each time.

    Differences, sums and XOR of each byte with each byte of the next epoch: no value is more frequent than chance lets
    it be. Of 2,000 draws from 256 values the most frequent of one table comes 8 +- 3 times; of all 1,000 tables 23.
    """
    epochs = range(EPOCH, EPOCH + 2000)
    rows = np.array([list(build(KEYS, e, press=7, count=40_000, battery_mv=2960)) for e in epochs], np.int64)
    assert set(rows[:, 0]) == {0x20}
    assert set(rows[:, 9] & 0x05) == {0}, "the two flags in clear"
    sealed = [c for c in range(19) if c not in (0, 9)]
    before, after = rows[:-1], rows[1:]
    for p in sealed:
        assert np.bincount(rows[:, p], minlength=256).max() < 30
        for q in sealed:
            for made in (after[:, q] - before[:, p], after[:, q] + before[:, p], after[:, q] ^ before[:, p]):
                assert np.bincount(made & 0xFF, minlength=256).max() < 30, (p, q)
    sealed_flags = rows[:, 9] & 0xFA
    assert len(set(sealed_flags)) == 64
    assert np.bincount(sealed_flags[1:] ^ sealed_flags[:-1]).max() < 75, "of 64 values, 31 +- 6 times each"


def test_two_tags_with_the_same_contents_differ_in_every_sealed_byte() -> None:
    bodies = [build(TagKeys(bytes([n]) * 16, KEYS.k_mic), EPOCH, battery_mv=2960) for n in range(100)]
    for place in (*range(1, 9), 10, 11, 12, 13, 14):
        assert len({body[place] for body in bodies}) > 70, place


def test_an_id_tells_neither_the_tag_nor_the_next_id() -> None:
    ids = {rotating_id(KEYS.k_id, EPOCH + i) for i in range(100)}
    assert len(ids) == 100
    assert len({rotating_id(bytes([i]) * 16, EPOCH) for i in range(100)}) == 100


def test_epochs_are_quarters_of_an_hour() -> None:
    assert epoch_at(0) == 0
    assert epoch_at(899.999) == 0
    assert epoch_at(900) == 1
    assert epoch_at(-5) == 0
    assert epoch_at(1e15) == 0xFFFFFFFF


def test_keys_have_sixteen_bytes_and_never_show() -> None:
    with pytest.raises(ValueError, match="16 bytes, got 16 and 15"):
        TagKeys(bytes(16), bytes(15))
    assert "0" not in repr(KEYS)
