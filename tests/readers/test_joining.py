"""A reader is called ready only when its module says that it has joined; else the reason and the next step are told."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from digi.xbee.models.status import AssociationIndicationStatus

from readers.joining import JOINED, REASONS, Joining, await_join, not_yet_texts, ready_text
from readers.provision import WantedReader
from sim.xbee.module import Factory, Faults, Pty
from sim.xbee.network import ADMISSION, NearNetwork
from tests.readers.bed import COMMAND, EXT_PAN_ID, Bench
from tests.roots import ROOT

NETWORK = int(EXT_PAN_ID, 16)
READER = WantedReader(7, ext_pan_id=NETWORK)
NEAR = NearNetwork(NETWORK, join_s=0.0)


def test_the_first_flash_says_that_no_gateway_knows_the_reader_yet(bench: Bench) -> None:
    bench.new_module(network=NearNetwork(NETWORK, "closed", join_s=0.0))
    result = bench.flash()
    assert result.exit_code == 0, "it may lie on a desk"
    assert "ready" not in result.output
    assert (
        "join    reader 7: it has not joined yet because its gateway does not know it: "
        f"hand readers.json and reader_keys.json from {bench.inventory} to the gateway\n"
    ) in result.output
    again = bench.flash()
    assert "has not joined yet because the network is closed; has its gateway the newest readers.json?" in again.output
    assert "ready" not in bench.run("verify").output


def test_it_is_ready_when_it_has_joined_and_named_as_the_gateway_names_it(flashed: Bench) -> None:
    flashed.new_module(network=NEAR)
    joined = "join    reader 7 is ready: it has joined network 0x1A62/a7:74:00:11:22:33:44:55, channel 15\n"
    for result in (flashed.flash(), flashed.run("verify")):
        assert result.exit_code == 0, result.output
        assert joined in result.output
        assert "not joined" not in result.output


def test_it_waits_for_the_join_as_long_as_it_is_told(flashed: Bench) -> None:
    (flashed.firmware / "app.py").write_text("SEEN = 1\n")  # so it is restarted
    flashed.new_module(network=NearNetwork(NETWORK, join_s=1.5))
    impatient = flashed.flash("--wait", "0")
    assert "it has not joined yet because it is still looking for its network; wait a minute" in impatient.output
    (flashed.firmware / "app.py").write_text("SEEN = 2\n")
    assert "is ready" in flashed.flash("--wait", "30").output


@pytest.mark.parametrize("state", sorted(set(ADMISSION) - {"open"}))
def test_each_way_not_to_be_admitted_has_its_words(flashed: Bench, state: str) -> None:
    flashed.new_module(network=NearNetwork(NETWORK, state, join_s=0.0))
    result = flashed.flash("--wait", "0.05")
    assert result.exit_code == 0
    reason, step = REASONS[ADMISSION[state]]
    assert f"it has not joined yet because {reason}; {step}\n" in result.output
    assert "ready" not in result.output


def test_another_network_and_another_channel_are_told_apart(flashed: Bench) -> None:
    flashed.new_module(network=NearNetwork(1))
    other = flashed.flash().output
    assert "it hears no network with the extended PAN id a7:74:00:11:22:33:44:55 on channels 11 to 25;" in other
    assert "is ready" in flashed.flash("--ext-pan-id", "0", "--wait", "30").output
    flashed.new_module(network=NearNetwork(NETWORK, channel=26, join_s=0.0))
    assert "it hears no network on channels 11 to 25; switch the gateway on" in flashed.flash().output
    assert "is ready" in flashed.flash("--channels", "FFFF", "--wait", "30").output


def test_a_module_that_is_still_in_another_network_is_not_ready() -> None:
    elsewhere = Joining(JOINED, 0x1234, 1, 20)
    assert not elsewhere.is_in_network_of(READER)
    assert elsewhere.is_in_network_of(WantedReader(7, ext_pan_id=0)), "any network was asked for"
    (text,) = not_yet_texts(READER, elsewhere)
    assert "because it is still in another network, 0x1234/00:00:00:00:00:00:00:01;" in text


def test_every_code_that_digi_knows_has_words_and_an_unknown_one_is_named() -> None:
    ours = {status.code for status in AssociationIndicationStatus if status.code > 0x20}  # below: 802.15.4 only
    assert ours == set(REASONS)
    for code in range(1, 256):
        for unknown_to_gateway in ("", "/somewhere"):
            texts = not_yet_texts(READER, Joining(code), unknown_to_gateway=unknown_to_gateway)
            assert texts[0].startswith("reader 7: it has not joined yet because ")
            assert not any("{" in text or "ready" in text for text in texts)
    assert "the module says AI=77, which this program does not know" in not_yet_texts(READER, Joining(0x77))[0]


def test_a_new_reader_out_of_reach_is_told_both_reasons() -> None:
    first, second = not_yet_texts(READER, Joining(0x21), unknown_to_gateway="/inventory")
    assert "its gateway does not know it: hand readers.json and reader_keys.json from /inventory" in first
    assert second.startswith("besides, it hears no network on channels 11 to 25;")


def test_a_module_that_does_not_say_which_network_it_is_in_has_joined_all_the_same(bench: Bench) -> None:
    bench.new_module(Factory(ai=0), Faults(unknown=frozenset({"OP", "OI", "CH"})))
    assert "reader 7 is ready: it has joined network ?/?, channel ?" in bench.flash().output
    assert ready_text(READER, Joining(0, 1, NETWORK, 11)).endswith("0x0001/a7:74:00:11:22:33:44:55, channel 11")


def test_a_new_module_must_be_told_its_network(bench: Bench) -> None:
    lacks = bench.run("flash", "--number", "7")
    assert lacks.exit_code == 2
    assert "--ext-pan-id a774001122334455" in " ".join(lacks.output.replace("│", " ").split())
    bench.flash("--ext-pan-id", "00124b0012345678")
    bench.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    second = " ".join(bench.run("flash").output.replace("│", " ").split())
    assert "a number, e.g. --number 8, and its network, e.g. --ext-pan-id 00124b0012345678" in second


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_it_while_it_waits_leaves_an_enrolled_reader_that_runs(
    flashed: Bench, number: signal.Signals
) -> None:
    flashed.new_module(network=NearNetwork(NETWORK, "closed", join_s=0.0))
    words = ["flash", "--port", str(flashed.link), "--inventory", str(flashed.inventory), "--wait", "600"]
    words += ["--firmware", str(flashed.firmware), "--log", str(flashed.folder / "waiting.log")]
    with (
        Pty(flashed.module, flashed.link),
        subprocess.Popen(
            [*COMMAND, *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as ran,
    ):
        try:
            _until_it_asks(flashed.folder / "waiting.log", ran)
            os.kill(ran.pid, number)
            _, told = ran.communicate(timeout=30)
        finally:
            ran.kill()
    assert ran.returncode == 130
    assert told == "stopped by you; run the same command again to go on\n"
    assert flashed.module.running


def _until_it_asks(log: Path, ran: "subprocess.Popen[str]") -> None:
    """Wait until the command has asked for AI after it said that there is nothing to do."""
    while ran.poll() is None:
        text = log.read_text() if log.exists() else ""
        if text.rpartition("enrolled")[2].count("ATAI") > 1:
            return
        time.sleep(0.02)
    raise AssertionError(f"it ended by itself: {ran.returncode}")


@pytest.mark.parametrize("ai", [0x23, 0x24, 0x27, 0xAD, 0xAF, 0xFF])
def test_a_new_reader_that_is_not_admitted_is_told_only_to_hand_its_keys_over(ai: int) -> None:
    (text,) = not_yet_texts(READER, Joining(ai), unknown_to_gateway="/inventory")
    assert "hand readers.json and reader_keys.json from /inventory to the gateway" in text


@pytest.mark.parametrize(
    ("answers", "ai"), [(["22", "FF", "22", "FF"], 0x22), (["FF", "AF", "FF"], 0xAF), (["22", "24", "FF"], 0x24)]
)
def test_of_what_a_module_says_while_it_looks_again_the_reason_is_kept(answers: list[str], ai: int) -> None:
    said = iter(answers)
    line = SimpleNamespace(ask=lambda _: next(said, "FF"), timing=SimpleNamespace(look_s=0.001))
    found = await_join(line, READER, 0.05, lambda *_: None)  # type: ignore[arg-type]
    assert found == Joining(ai)
