"""The tag's advertisement: published test vectors of its cipher, our own of its layout, and what must be refused."""

import struct

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given
from hypothesis import strategies as st

from readers import advertisement, wire
from readers.advertisement import AdvertisementError, TagKeys, build, epoch_at, parse, payload, rotating_id

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


def test_the_layout_byte_by_byte() -> None:
    """Built here from the drawing at the top of the file `advertisement.py`; only the cipher is shared."""
    body = build(KEYS, EPOCH, flags=0x05, press=3, counter=0x1234, power_dbm=-59, battery_mv=2960)
    identity = CMAC(AES(KEYS.k_id))
    identity.update(struct.pack(">I", EPOCH))
    front = b"\x10" + identity.finalize()[:8] + b"\x05\x03\x12\x34" + bytes([256 - 59, 148])
    mic = CMAC(AES(KEYS.k_mic))
    mic.update(struct.pack(">I", EPOCH) + front)
    assert body == front + mic.finalize()[:4]
    assert len(body) == wire.ADVERTISEMENT_SIZE


OLD_TAG = {"flags": 1, "press": 7, "counter": 65535, "power_dbm": -70, "battery_mv": 2500}
FULL_TAG = {"flags": 0x1F, "press": 255, "power_dbm": 8, "battery_mv": 9999}


@pytest.mark.parametrize(
    ("epoch", "fields", "frame"),
    [
        (0, {}, "10c998d2315876534b00000000c5962746778c"),
        (EPOCH, OLD_TAG, "10529ff10a87475f9d0107ffffba7d28701386"),
        (0xFFFFFFFF, FULL_TAG, "10fdf3fb89d0027d681fff000008ffae9da2e3"),
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
def test_what_was_built_is_parsed_and_verified(flags: int, press: int, counter: int, power: int, battery: int) -> None:
    body = build(KEYS, EPOCH, flags=flags, press=press, counter=counter, power_dbm=power, battery_mv=battery * 20)
    heard = parse(body)
    assert (heard.flags, heard.press, heard.counter) == (flags, press, counter)
    assert (heard.power_dbm, heard.battery_mv) == (power, battery * 20)
    assert heard.rotating_id == rotating_id(KEYS.k_id, EPOCH)
    assert heard.verify(KEYS, EPOCH)
    assert not heard.verify(KEYS, EPOCH + 1)
    assert not heard.verify(TagKeys(KEYS.k_id, bytes(16)), EPOCH)


def test_every_flipped_bit_is_refused() -> None:
    body = build(KEYS, EPOCH, flags=1, press=1)
    for bit in range(8 * len(body)):
        flipped = bytearray(body)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        if bit >> 3 == 0:
            with pytest.raises(AdvertisementError):
                parse(bytes(flipped))
        else:
            assert not parse(bytes(flipped)).verify(KEYS, EPOCH)


@given(st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_advertisement_error(data: bytes) -> None:
    try:
        assert not parse(data).verify(KEYS, EPOCH)
    except AdvertisementError:
        assert len(data) != wire.ADVERTISEMENT_SIZE or data[0] != wire.ADVERTISEMENT_VERSION


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
