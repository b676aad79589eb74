"""The extended PAN id of the gateway's log is the one that a reader gets, digit by digit and in the same order."""

import json
import re
from pathlib import Path

import pytest
import zigpy.types as zt

from readers.provision import channel_mask_of, channels_text, company_id_of, ext_pan_id_of, ext_pan_id_text
from sim.xbee.network import NearNetwork, network_of
from tests.gateway.box.bed import load, plugged
from tests.gateway.radio.bed import listening
from tests.readers.bed import Bench
from tests.waiting import run


def test_a_reader_joins_the_network_whose_id_was_copied_from_the_log_of_a_gateway(tmp_path: Path, bench: Bench) -> None:
    found: list[tuple[str, bytes]] = []

    async def story() -> None:
        async with plugged(tmp_path / "box") as stick, listening(load(tmp_path / "box", stick.path)) as heard:
            network = stick.coordinator.nvm.network
            assert network is not None
            found.append((heard.notices[0][2], network.extended_pan_id))

    (tmp_path / "box").mkdir()
    run(story)
    ((line, msb_first),) = found
    printed = re.search(r"network 0x[0-9A-F]{4}/([0-9a-f:]+), channel 15", line)
    assert printed, line
    near = NearNetwork(int.from_bytes(msb_first, "big"), join_s=0.0)  # 802.15.4 sends it LSB first
    bench.new_module(network=near)
    flashed = bench.flash("--ext-pan-id", printed[1])
    assert "reader 7 is ready: it has joined network" in flashed.output
    assert f"/{printed[1]}, channel 15" in flashed.output, "it is named as the gateway names it"
    saved = json.loads((bench.folder / "module" / "settings.json").read_text())
    assert saved["ID"] == near.ext_pan_id
    backwards = ":".join(reversed(printed[1].split(":")))
    assert "is ready" not in bench.flash("--ext-pan-id", backwards).output


def test_the_order_of_bytes_is_that_of_zigpys_own_type() -> None:
    on_air = bytes.fromhex("55443322110074a7")  # a beacon carries it LSB first
    printed = str(zt.ExtendedPanId.deserialize(on_air)[0])
    assert printed == "a7:74:00:11:22:33:44:55"
    assert ext_pan_id_of(printed) == int.from_bytes(on_air, "little") == zt.uint64_t.deserialize(on_air)[0]
    assert ext_pan_id_text(ext_pan_id_of(printed)) == printed


@pytest.mark.parametrize(
    "text", ["a774001122334455", "A774001122334455", "A7:74:00:11:22:33:44:55", " a774001122334455\n"]
)
def test_every_way_to_write_it_is_taken(text: str) -> None:
    assert ext_pan_id_of(text) == 0xA774001122334455


def test_leading_zeros_are_digits_too() -> None:
    assert ext_pan_id_of("00124b0012345678") == 0x124B0012345678
    assert ext_pan_id_text(0x124B0012345678) == "00:12:4b:00:12:34:56:78"


def test_zero_is_any_network_and_only_if_typed_so() -> None:
    assert ext_pan_id_of("0") == 0
    for text in ("", "00", "0000000000000000", "ffffffffffffffff", "0x0"):
        with pytest.raises(ValueError, match="gateway's log has it"):
            ext_pan_id_of(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a774", "'a774' has 4 hexadecimal digits, not 16"),
        ("a77400112233", "has 12 hexadecimal digits, not 16"),
        ("a7740011223344556", "has 17 hexadecimal digits, not 16"),
        ("a7:74:00:11:22:33:44", "has 14 hexadecimal digits, not 16"),
        ("a7:74:00:11:22:33:44:5", "has 15 hexadecimal digits, not 16"),
        ("a774:0011:2233:4455", "has colons elsewhere than between its 8 bytes"),
        ("0xa774001122334455", "has 'x', which is no hexadecimal digit"),
        ("0x1A62/a7:74:00:11:22:33:44:55", "has 'x', which is no hexadecimal digit"),
        ("a77400112233445g", "has 'g', which is no hexadecimal digit"),
    ],
)
def test_a_refusal_says_what_was_typed_how_long_it_is_and_where_it_is_found(bench: Bench, text: str, says: str) -> None:
    result = bench.flash("--ext-pan-id", text)
    assert result.exit_code == 2
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert "--ext-pan-id" in told
    assert says in told
    assert 'the gateway\'s log has it behind the / of its line "network 0x1A62/a7:74:..."' in told
    assert (bench.module.counts["commands"], bench.inventory.exists()) == (0, False), "and nothing was touched"


def test_a_mask_for_other_bits_is_refused_with_the_right_one() -> None:
    assert channel_mask_of("7FFF") == channel_mask_of(" 0x7fff\n") == 0x7FFF
    assert channel_mask_of("FFFF") == company_id_of("0XFFFF") == 0xFFFF
    for text in ("10001", "0x1FFFF"):
        with pytest.raises(ValueError, match=r"is above FFFF: bit 0 is channel 11, bit 15 channel 26$"):
            channel_mask_of(text)
    with pytest.raises(ValueError, match="no channel"):
        channel_mask_of("0")
    with pytest.raises(ValueError, match=r"7FFF800 is above FFFF: .*give FFFF$"):
        channel_mask_of("7FFF800")
    with pytest.raises(ValueError, match=r"8000000 is above FFFF: bit 0 is channel 11, bit 15 channel 26$"):
        channel_mask_of("8000000")
    assert [channels_text(mask) for mask in (0x7FFF, 0x10, 0x11)] == [
        "channels 11 to 25",
        "channel 15",
        "channels 11, 15",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--number", "0"), "reader number 0: give one from 1 to 65534"),
        (("--number", "70000"), "reader number 70000: give one from 1 to 65534"),
        (("--channels", "0"), "channel mask 0 is no channel"),
        (("--channels", "11-26"), "channel mask '11-26' is not hexadecimal"),
        (("--company-id", "10000"), "company id 10000 has 5 hexadecimal digits: at most 4"),
        (("--name", " "), "the name is empty"),
        (("--name", "x" * 41), "reader name of 41 characters: at most 40"),
        (("--name", "pole\t17"), "no tab, line end or control character"),
        (("--lamp", "D4", "--bell", "d4"), "pin D4 is for bell and for lamp: one pin, two uses"),
        (("--lamp", ""), "lamp pin '' is no pin of an XBee 3"),
        (("--bell", "none", "--bell", "D1"), "'none' and a pin exclude each other"),
        (("--wait", "-1"), "give 0 to 3600 seconds"),
        (("--wait", "nan"), "give 0 to 3600 seconds"),
    ],
)
def test_a_wrong_option_is_named_before_the_module_is_touched(
    bench: Bench, options: tuple[str, ...], says: str
) -> None:
    result = bench.flash(*options)
    assert result.exit_code == 2
    assert says in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert (bench.module.counts["commands"], bench.inventory.exists()) == (0, False)


def test_the_virtual_module_is_given_a_network_in_the_same_words() -> None:
    assert network_of("A7:74:00:11:22:33:44:55") == NearNetwork(0xA774001122334455, "open")
    assert network_of("a774001122334455,closed") == NearNetwork(0xA774001122334455, "closed")
    for text in ("a774", "a774001122334455,shut", "g774001122334455", "closed"):
        with pytest.raises(ValueError, match="give 16 hexadecimal digits"):
            network_of(text)
