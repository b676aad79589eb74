"""The settings that keep a pole safe: written and read back. A module that does not know one is refused by its name."""

import json
import stat
import subprocess

import pytest

from readers.provision import WantedReader, plan, public_key_text, same, wanted_settings
from sim.xbee.module import Factory, Faults
from tests.readers.bed import Bench

POINT = bytes([4, *range(1, 65)])
PRIME_1024 = int(
    "EEAF0AB9ADB38DD69C33F80AFA8FC5E86072618775FF3C0B9EA2314C9C256576D674DF7496EA81D3383B4813D692C6E0"
    "E0D5D8E250B98BE48E495C1D6089DAD15DC7D7B46154D6B6CE8EF4AD69B15D4982559B297BCF1885C529F566660E57EC"
    "68EDBC3C05726CC02FD4CBF4976EAA9AFD5138FE8376435B9FC61D2FC0EB06E3",
    16,
)  # RFC 5054, appendix A


def values(reader: WantedReader) -> dict[str, str]:
    return {wish.name: wish.value for wish in wanted_settings(reader)}


def test_remote_commands_and_the_bluetooth_login_are_closed() -> None:
    settings = values(WantedReader(7))
    assert settings["SA"] == "2"
    assert settings["$S"] == "0"
    assert int(settings["*S"], 16) > 0, "SA needs a password, and a salt of 0 is none"
    verifier = int("".join(f"{int(settings[f'*{part}'], 16):064X}" for part in "VWXY"), 16)
    assert 1 < verifier < PRIME_1024
    assert values(WantedReader(8)) | {"NI": ""} == settings | {"NI": ""}, (
        "the same on every reader, so it can be compared"
    )


def test_a_blocked_send_ends_before_two_seconds_and_no_press_makes_an_io_sample() -> None:
    settings = values(WantedReader(7))
    assert 3 * (50 * int(settings["NH"], 16) + 100) <= 1800
    assert (settings["IC"], settings["IR"]) == ("0", "0")


def test_the_update_key_is_compared_as_the_module_returns_it_in_two_parts() -> None:
    wish = next(wish for wish in wanted_settings(WantedReader(7, update_key=POINT)) if wish.name == "FK")
    assert wish.value == POINT.hex().upper(), "leading zeros too: all 65 bytes are written"
    upper, lower = POINT[:48].hex(), POINT[48:].hex()
    for answers in ((upper, lower), (upper.lstrip("0"), lower), (upper.upper(), lower.upper())):
        assert same(wish, public_key_text(*answers))
    zeros = bytes([4, *bytes(47), *bytes(16), 9])  # a lower part that begins with zeros
    wish = next(wish for wish in wanted_settings(WantedReader(7, update_key=zeros)) if wish.name == "FK")
    assert same(wish, public_key_text("4" + "00" * 47, "9"))
    for answers in (("", ""), ("ERROR", "0"), ("0", "0"), (upper, upper)):
        assert not same(wish, public_key_text(*answers))


@pytest.mark.parametrize("key", [POINT[:-1], POINT + b"x", b"\2" + POINT[1:], b"4"])
def test_what_is_no_point_is_no_update_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="update key: 65 bytes that begin with 04"):
        WantedReader(7, update_key=key)


def test_only_what_differs_is_written_of_the_new_settings_too() -> None:
    reader = WantedReader(7, update_key=POINT)
    printed = values(reader) | {"D0": "1", "$S": "1A2B", "*W": "0", "FK": "0"}
    assert [wish.name for wish in plan(reader, printed)] == ["D0", "*W", "$S", "FK"]


def test_a_flashed_module_has_them_saved_and_keeps_them(flashed: Bench) -> None:
    saved = json.loads((flashed.folder / "module" / "settings.json").read_text())
    assert [saved[name] for name in ("D0", "D2", "D3", "D4", "NH", "SA", "$S", "DC", "IC")] == [
        0, 4, 4, 3, 0xA, 2, 0, 0x21, 0,
    ]  # fmt: skip
    key = flashed.inventory / "update_key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shown = subprocess.run(
        ["openssl", "ec", "-in", str(key), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    digits = "".join(shown.split("pub:")[1].split("ASN1")[0].split()).replace(":", "")
    assert saved["FK"] == digits.upper()
    flashed.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61"), ai=0))
    (flashed.folder / "module" / "settings.json").unlink()
    flashed.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    assert flashed.run("flash", "--wait", "0", "--number", "8", "--ext-pan-id", "0").exit_code == 0
    assert flashed.module.settings["FK"] == saved["FK"], "one key for all readers of an inventory"


def test_somebody_elses_settings_are_found_and_set_right(flashed: Bench) -> None:
    used = {"D0": 1, "D2": 5, "$S": 0x1A2B, "SA": 0, "*V": 1, "FK": "04" + "00" * 64}
    flashed.module.settings |= used
    differs = flashed.run("verify")
    assert differs.exit_code == 1
    for text in (
        "6 differences",
        "ATD0 is 1, not 0",
        "ATD2 is 5, not 4",
        "AT$S is 1A2B, not 0",
        "ATSA",
        "AT*V",
        "ATFK",
    ):
        assert text in differs.output, text
    assert flashed.flash().exit_code == 0
    assert flashed.run("verify").exit_code == 0


@pytest.mark.parametrize("name", ["NH", "SA", "$S", "*V", "D0", "IC", "PYB"])
def test_a_module_that_does_not_know_a_setting_is_refused_by_its_name_and_left_alone(bench: Bench, name: str) -> None:
    bench.new_module(Factory(vr=0x1014), Faults(unknown=frozenset({name})))
    result = bench.flash()
    assert result.exit_code == 4
    assert f"failed  module firmware 1014 answers 'ERROR' to AT{name}, which a reader needs" in result.output
    assert "load the newest 'XBee 3 Zigbee' with Digi XCTU" in result.output
    assert "Traceback" not in result.output
    assert (bench.module.counts["settings changed"], bench.module.counts["FS PUT"]) == (0, 0)


def test_a_module_that_takes_no_update_key_is_refused_by_its_name(bench: Bench) -> None:
    bench.new_module(faults=Faults(unknown=frozenset({"FK"})))
    result = bench.flash()
    assert result.exit_code == 4
    assert "answers 'ERROR' to ATFK 04" in result.output
    assert "Traceback" not in result.output
