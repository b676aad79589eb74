"""A module that cannot be a reader is refused, and one number belongs to one module."""

import json

import pytest

from sim.xbee.module import Factory
from tests.readers.bed import EUI64, Bench


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Factory(vr=0x100B), "firmware 100B is older than 1014"),
        (Factory(vr=0x2014), "2014 is not the Zigbee firmware"),
        (Factory(hv=0x5247), "5247 is not an XBee 3"),
    ],
)
def test_a_module_that_cannot_be_a_reader_is_refused_untouched(bench: Bench, factory: Factory, words: str) -> None:
    module = bench.new_module(factory)
    for verb in ("probe", "flash"):
        result = bench.run(verb, *(["--number", "7"] if verb == "flash" else []))
        assert result.exit_code == 4
        assert words in result.output
    assert (module.counts["WR"], module.counts["FS PUT"], module.counts["settings changed"]) == (0, 0, 0)
    assert not bench.inventory.exists(), "and nothing is enrolled"


def test_a_new_module_needs_a_number_and_one_number_is_one_module(bench: Bench) -> None:
    assert bench.run("flash").exit_code == 2
    bench.flash()
    bench.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    taken = bench.flash()
    assert taken.exit_code == 1
    assert EUI64 in taken.output
    assert "0013a20041a06e61" in taken.output
    assert "--number 8" in taken.output
    key = bench.key()
    assert bench.flash("--replace").exit_code == 0
    assert bench.key() != key, "the broken module's key is worth nothing any more"


def test_a_module_that_is_not_enrolled_cannot_be_verified(bench: Bench) -> None:
    result = bench.run("verify")
    assert result.exit_code == 1
    assert "not enrolled" in result.output


def test_a_reader_enrolled_with_a_pin_that_is_refused_now_says_what_to_do(flashed: Bench) -> None:
    path = flashed.inventory / "readers.json"
    rows = json.loads(path.read_text())
    rows["7"]["lamp"] = "P3"
    path.write_text(json.dumps(rows))
    checked = flashed.run("verify")
    assert checked.exit_code == 1
    assert "reader 7 is enrolled with a refused pin: lamp pin 'P3' is DOUT" in checked.output
    refused = flashed.run("flash")
    assert refused.exit_code == 2
    assert "lamp pin 'P3'" in refused.output
    assert flashed.run("flash", "--wait", "0", "--lamp", "d2").exit_code == 0
    assert flashed.run("verify").exit_code == 0


def test_a_reader_flashed_before_there_was_an_update_key_is_told_to_be_flashed(flashed: Bench) -> None:
    (flashed.inventory / "update_key.pem").unlink()
    checked = flashed.run("verify")
    assert checked.exit_code == 1
    assert "update_key.pem; flash a reader, which makes it" in checked.output
    assert flashed.flash().exit_code == 0
    assert flashed.run("verify").exit_code == 0
