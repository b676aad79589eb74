"""Wanted state -> AT settings and config.py; which modules are refused, and with which next step."""

import runpy
from pathlib import Path

import pytest

from readers.provision import (
    BadInstallCode,
    Module,
    WantedReader,
    WrongFirmware,
    WrongHardware,
    install_code_valid,
    join_text,
    leaves_network,
    plan,
    refuse,
    render_config,
    wanted_settings,
)

CODE = bytes.fromhex("83FED3407A939723A5C639B26916D505C3B5")  # the example of the ZigBee specification
GOOD = Module(hv=0x4247, vr=0x1014, eui64=bytes(8), install_code=CODE, ai=0)


def printed(reader: WantedReader) -> dict[str, str]:
    return {wish.name: wish.value for wish in wanted_settings(reader)}


def test_an_xbee3_with_zigbee_1014_or_newer_is_welcome() -> None:
    for hv, vr in ((0x4147, 0x1014), (0x4247, 0x1015), (0x43FF, 0x10FF)):
        refuse(Module(hv, vr, bytes(8), CODE, 0))


@pytest.mark.parametrize("hv", [0x1E41, 0x2D00, 0x5247, 0x5747, 0x0042])
def test_other_hardware_is_refused(hv: int) -> None:
    with pytest.raises(WrongHardware, match=f"{hv:04X}.*take an XBee 3"):
        refuse(Module(hv, 0x1014, bytes(8), CODE, 0))


@pytest.mark.parametrize(
    ("vr", "why"),
    [(0x100B, "older than 1014"), (0x1013, "older"), (0x2014, "not the Zigbee"), (0x3014, "not the Zigbee")],
)  # fmt: skip
def test_other_firmware_is_refused_with_what_to_load(vr: int, why: str) -> None:
    with pytest.raises(WrongFirmware, match=f"{vr:04X} .*{why}.*'XBee 3 Zigbee' 1014 or newer.*XCTU"):
        refuse(Module(0x4247, vr, bytes(8), CODE, 0))


def test_a_wrong_install_code_is_refused() -> None:
    assert install_code_valid(CODE)
    for position in range(18):
        broken = bytearray(CODE)
        broken[position] ^= 1
        assert not install_code_valid(bytes(broken))
    for code in (b"", CODE[:-1], CODE + b"\0"):
        with pytest.raises(BadInstallCode):
            refuse(Module(0x4247, 0x1014, bytes(8), code, 0))


def test_a_module_that_is_right_gets_no_command() -> None:
    reader = WantedReader(7, ext_pan_id=0xDDDDDDDDDDDDDDDD, channel_mask=0x800)
    assert plan(reader, printed(reader)) == []
    assert plan(reader, printed(reader) | {"SC": "0800", "DC": "0021", "NI": "ansim-7 "}) == [], "as any module prints"


def test_only_what_differs_is_written_and_ps_comes_last() -> None:
    reader = WantedReader(7)
    assert [(s.name, s.value) for s in plan(reader, printed(reader) | {"NW": "0", "ZS": "junk"})] == [
        ("ZS", "2"),
        ("NW", "A"),
    ]
    assert plan(reader, {}) == wanted_settings(reader)
    assert wanted_settings(reader)[-1].name == "PS"


def test_a_reader_is_a_router_that_never_leaves_sleeps_or_opens_the_network() -> None:
    settings = printed(WantedReader(1))
    assert (settings["CE"], settings["SM"], settings["NJ"]) == ("0", "0", "0")
    assert int(settings["DC"], 16) & 0x21 == 0x21, "install code; rejoin, never leave"
    assert int(settings["NW"], 16) > 0
    assert not int(settings["SC"], 16) & 0x8000, "not channel 26"
    assert (settings["AP"], settings["PS"], settings["BT"]) == ("4", "1", "1")


def test_leaving_the_network_is_foretold() -> None:
    reader = WantedReader(7)
    assert leaves_network(plan(reader, printed(WantedReader(7, ext_pan_id=1))))
    assert not leaves_network(plan(reader, printed(WantedReader(8))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0}, {"number": 65_535}, {"number": -1}, {"number": 1, "ext_pan_id": 1 << 64},
        {"number": 1, "channel_mask": 0},
        {"number": 1, "channel_mask": 0x10000}, {"number": 1, "name": "x" * 41}, {"number": 1, "name": "a\nb"},
        {"number": 1, "company_id": 0x10000}, {"number": 1, "bells": ("D1", "D1")}, {"number": 1, "lamp": "D4"},
        {"number": 1, "buzzer": ""}, {"number": 1, "bells": ("4",)}, {"number": 1, "lamp": 'D2"'},
    ],
)  # fmt: skip
def test_what_no_reader_can_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"number|PAN|mask|name|company|pin"):
        WantedReader(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key", [bytes(16), bytes(range(240, 256)), b"'\"\\\n\r\t{}%\x00\x7f\xff# "[:16].ljust(16, b'"')]
)
def test_config_is_python_with_just_these_constants(key: bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    for bells in ((), ("D4",), ("D4", "P1")):
        path.write_bytes(render_config(WantedReader(7, company_id=0x0059, bells=bells, lamp="P0"), key))
        names = {name: value for name, value in runpy.run_path(str(path)).items() if not name.startswith("__")}
        pins = {"BELLS": bells, "LAMP": "P0", "BUZZER": "D3"}
        assert names == {"READER": 7, "KEY": key, "COMPANY_ID": 0x59, **pins}


def test_config_needs_a_whole_key() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        render_config(WantedReader(7), b"short")


def test_join_status_is_told_in_words() -> None:
    assert join_text(0) == "joined"
    assert "AI=FF" in join_text(0xFF)
