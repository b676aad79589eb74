"""Only a holder of the key can seal a message, and only for its topic; key files are read strictly and never quoted."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uplink import (
    KEYS_MAX,
    MESSAGE_MAX_B,
    TRAILER_B,
    CityKey,
    Forged,
    UplinkError,
    format_keys,
    parse_keys,
    seal,
    sealed_with,
    topic,
    unseal,
    with_new_key,
)

OLD, NEW, STRANGE = CityKey(1, b"o" * 32), CityKey(2, b"n" * 32), CityKey(2, b"s" * 32)
TOPIC = topic("s", "gw1", "ack")


def test_the_bytes_are_as_the_contract_draws_them() -> None:
    sealed = seal((NEW, OLD), "t", b"body")
    assert sealed[:5] == b"body\x02"
    assert sealed[5:].hex() == "6d6d9f475138520ddd2701c6c48283b5"
    assert sealed_with(sealed) == 2


@given(st.binary(max_size=300), st.sampled_from([(NEW,), (OLD,), (NEW, OLD)]))
def test_what_is_sealed_is_unsealed_with_any_key_of_the_file(body: bytes, keys: tuple[CityKey, ...]) -> None:
    assert unseal((NEW, OLD), TOPIC, seal(keys, TOPIC, body)) == body


@pytest.mark.parametrize(
    ("keys", "name", "reason"),
    [
        ((STRANGE,), TOPIC, "wrong_mac"),
        ((CityKey(3, NEW.secret),), TOPIC, "no_key"),
        ((NEW,), topic("s", "gw2", "ack"), "wrong_mac"),
        ((NEW,), topic("s", "gw1", "sos"), "wrong_mac"),
        ((NEW,), topic("t", "gw1", "ack"), "wrong_mac"),
    ],
)
def test_another_key_number_gateway_kind_or_site_is_forged(keys: tuple[CityKey, ...], name: str, reason: str) -> None:
    with pytest.raises(Forged) as caught:
        unseal((NEW, OLD), TOPIC, seal(keys, name, b'{"ack":"watermark"}'))
    assert caught.value.reason == reason


def test_a_hundred_thousand_forged_acks_are_refused() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    good = seal((NEW, OLD), TOPIC, b'{"ack":"watermark","epoch":"e","lane":"sos","upto":5}')
    accepted = 0
    for n in range(100_000):
        forged = bytearray(good)
        if n % 2:  # some bits flipped
            for _ in range(chance.randint(1, 3)):
                forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
            if forged == good:
                continue
        else:  # another body with any MAC
            forged[:-TRAILER_B] = good[:-TRAILER_B].replace(b"5", b"%d" % chance.randrange(10))
            forged[-16:] = chance.randbytes(16)
        try:
            unseal((NEW, OLD), TOPIC, bytes(forged))
            accepted += 1
        except Forged:
            pass
    assert accepted == 0


@pytest.mark.parametrize("size", [0, 1, TRAILER_B - 1, MESSAGE_MAX_B + TRAILER_B + 1])
def test_what_has_no_room_for_a_mac_or_is_huge_is_not_even_hashed(size: int) -> None:
    with pytest.raises(Forged, match=f"^{size} bytes") as caught:
        unseal((NEW,), TOPIC, bytes(size))
    assert caught.value.reason == "size"


def test_nothing_is_sealed_or_believed_without_a_key() -> None:
    with pytest.raises(UplinkError, match="ansim-city gateway enrol"):
        seal((), TOPIC, b"")
    with pytest.raises(Forged, match="this side has none"):
        unseal((), TOPIC, seal((NEW,), TOPIC, b""))


def test_a_key_file_is_read_as_it_was_written_and_its_keys_are_never_shown() -> None:
    assert parse_keys(format_keys((NEW, OLD))) == (NEW, OLD)
    assert parse_keys("# of gw1\n\n" + format_keys((OLD,))) == (OLD,)
    assert OLD.secret.hex() not in repr(OLD)
    assert str(OLD.secret) not in repr(OLD)


HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 keys"),
        (f"0 {HEX}", "line 1 is not a key number"),
        (f"256 {HEX}", "line 1 is not a key number"),
        (f"1 {HEX}\n2 {HEX[:-2]}", "line 2 is not"),
        (f"1 {HEX}00", "line 1 is not"),
        (f"1{HEX}", "line 1 is not"),
        (f"\u0661 {HEX}", "line 1 is not"),
        (f"1 {HEX}\n1 {'cd' * 32}", "line 2 has the number or the key"),
        (f"1 {HEX}\n2 {HEX.upper()}", "line 2 has the number or the key"),
        ("".join(f"{n} {n:064x}\n" for n in range(1, KEYS_MAX + 2)), "5 keys; a key file has 1 to 4"),
    ],
)
def test_a_key_file_that_is_wrong_is_refused_without_being_quoted(text: str, said: str) -> None:
    with pytest.raises(UplinkError, match=said) as caught:
        parse_keys(text)
    assert "ababab" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_a_key_file_or_refused(text: str) -> None:
    try:
        keys = parse_keys(text)
    except UplinkError:
        return
    assert 1 <= len(keys) <= KEYS_MAX


def test_new_keys_come_first_numbers_go_round_and_the_oldest_leaves() -> None:
    keys: tuple[CityKey, ...] = ()
    for n in range(300):
        keys = with_new_key(keys, n.to_bytes(32))
        assert parse_keys(format_keys(keys)) == keys
        assert int.from_bytes(keys[0].secret) == n
    assert [key.number for key in keys] == [45, 44, 43, 42]
    with pytest.raises(UplinkError, match="32 bytes"):
        with_new_key(keys, b"short")
