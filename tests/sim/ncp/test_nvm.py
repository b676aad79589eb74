"""The stick's memory: what survives a reset and a restart, what tokens change, and state files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.ncp import zdo
from sim.ncp.ezsp import KeyContext
from sim.ncp.ezsp_ids import Ember, Ezsp, KeyType, Sl, Token, ValueId
from sim.ncp.nvm import FRAME_COUNTER_STEP, StateFileError, load, save
from tests.sim.ncp.bed import EUI64, HASHED, NETWORK_KEY, Host


def test_what_survives_a_reset_and_what_does_not() -> None:
    host = Host()
    host("addEndpoint", 0xE8, 0xC105, 0, 0, 1, 0, [0x11], [])
    host("importLinkKey", 2, bytes(8), HASHED)
    host.form()
    network = host("getNetworkParameters")
    host.reset()
    assert host("networkState") == (0,)
    assert host("getExtendedValue", 0, 0xE8) == (Ezsp.INVALID_VALUE, bytes(2)), "two bytes even then"
    assert host("networkInit", 0) == (Ember.SUCCESS,)
    assert host("getNetworkParameters") == network
    assert host("exportLinkKeyByIndex", 2)[1::2] == (HASHED, Sl.OK)
    assert host("exportKey", KeyContext(KeyType.NETWORK)) == (NETWORK_KEY, Sl.OK)
    assert host("exportKey", KeyContext(KeyType.TC_LINK)) == (HASHED, Sl.OK)
    assert host("getCurrentSecurityState")[1].bitmask == 0x0094


def test_the_frame_counter_honours_the_host_grows_and_is_never_used_twice() -> None:
    host = Host()
    assert host("setValue", ValueId.NWK_FRAME_COUNTER, (50_000).to_bytes(4, "little")) == (Ezsp.SUCCESS,)
    host.form()
    assert host("setValue", ValueId.NWK_FRAME_COUNTER, bytes(4)) == (Ezsp.INVALID_CALL,)
    host.wait(61)
    counter = host("getNetworkKeyInfo")[1].frame_counter
    assert 50_004 <= counter <= 50_010, "a link status every 15 s"
    host.reset()
    assert host.stick.nvm.nwk_frame_counter >= counter + FRAME_COUNTER_STEP


def test_tokens_move_the_address_and_the_update_id() -> None:
    host = Host()
    other = bytes.fromhex("0011223344556677")
    assert host("getTokenData", 0x12345, 0) == (Ember.FATAL,)
    assert host("getTokenData", Token.NODE_DATA, 0) == (Ember.FATAL,), "no network yet"
    assert host("setTokenData", Token.RESTORED_EUI64, 0, other[::-1]) == (Ember.SUCCESS,)
    assert host("getEui64") == (other,)
    host.form()
    management = host("getTokenData", Token.NETWORK_MANAGEMENT, 0)[1]
    assert host("setTokenData", Token.NETWORK_MANAGEMENT, 0, management[:6] + b"\x07\x00") == (Ember.SUCCESS,)
    assert host("setTokenData", Token.NETWORK_MANAGEMENT, 0, b"short") == (Ember.BAD_ARGUMENT,)
    assert host("getNetworkParameters")[2].nwk_update_id == 7
    for token in Token:
        data = host("getTokenData", token, 0)
        assert len(data) == (1 if token is Token.CHILD_TABLE else 2), token


def test_a_manufacturing_token_is_written_once() -> None:
    host = Host()
    assert host("getMfgToken", 0x0C) == (b"\xff" * 8,)
    assert host("setMfgToken", 0x0C, bytes(range(8))) == (Ember.SUCCESS,)
    assert host("setMfgToken", 0x0C, bytes(range(1, 9))) == (Ember.INVALID_CALL,)
    assert host("getEui64") == (bytes(range(8))[::-1],)


def test_the_state_file_brings_the_stick_back_with_a_higher_counter(tmp_path: Path) -> None:
    path = tmp_path / "stick.json"
    host = Host(load(path, eui64=EUI64), state=path)
    host.form()
    host("importLinkKey", 1, EUI64[::-1], HASHED)
    host("permitJoining", 60)
    host("importTransientKey", b"\xff" * 8, b"ZigBeeAlliance09", 0)
    assert host.stick.join(EUI64[::-1], 0x99, logical_type=zdo.END_DEVICE)
    before = host.stick.nvm
    after = load(path, eui64=bytes(8))
    for name in ("eui64", "network", "network_key", "link_key", "link_keys", "children", "security_bitmask"):
        assert getattr(after, name) == getattr(before, name), name
    again = Host(after, state=path)
    assert again.stick.nvm.nwk_frame_counter > before.nwk_frame_counter
    assert again("networkInit", 0) == (Ember.SUCCESS,)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 99}', "\x00", '{"version": 1, "eui64": 3}'])
def test_a_damaged_state_file_says_so_and_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stick.json"
    path.write_text(text)
    with pytest.raises(StateFileError, match="move the file away"):
        load(path, eui64=EUI64)
    assert path.read_text() == text


def test_a_disk_that_is_full_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    host = Host(state=tmp_path / "missing" / "stick.json")
    host.form()
    assert any(name.startswith("state_not_saved") for name in host.stick.drop_counts)
    with pytest.raises(OSError, match="missing"):
        save(tmp_path / "missing" / "stick.json", host.stick.nvm)
