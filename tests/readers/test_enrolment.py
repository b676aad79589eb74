"""A module that cannot be a reader is refused, and one number belongs to one module."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import readers.__main__ as command
from readers import build as building
from readers import flash as flashing
from readers.inventory import InventoryError, InventoryUnusable, NumberTaken
from readers.line import LineError, PortTaken, PortUnusable
from readers.provision import ReaderRefused
from sim.xbee.module import Factory, Faults
from tests.readers.bed import EUI64, Bench
from tests.roots import ROOT


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
    shutil.rmtree(bench.folder / "module")
    bench.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    taken = bench.flash()
    assert taken.exit_code == 1
    assert EUI64 in taken.output
    assert "0013a20041a06e61" in taken.output
    assert "--number 8" in taken.output
    counts = bench.module.counts
    assert (counts["WR"], counts["FS PUT"], counts["settings changed"]) == (0, 0, 0), "else two would speak as reader 7"
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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PortTaken, 5), (NumberTaken, 5), (PortUnusable, 3), (LineError, 4), (ReaderRefused, 4),
        (flashing.TransferFailed, 4), (flashing.VerifyFailed, 1), (InventoryUnusable, 6), (InventoryError, 1),
        (building.CompilerMissing, 6), (building.BuildError, 1), (OSError, 6), (KeyboardInterrupt, 130),
    ],
)  # fmt: skip
def test_each_failure_has_its_exit_code(error: type[BaseException], code: int) -> None:
    with pytest.raises(typer.Exit) as ended, command._session(None):
        raise error.__new__(error, "it failed")
    assert ended.value.exit_code == code


def test_a_known_reader_with_a_new_key_is_of_no_use_until_its_gateway_has_it(flashed: Bench) -> None:
    told = "it has a new key: hand readers.json and reader_keys.json"
    key = flashed.key()
    assert told not in flashed.flash().output
    assert flashed.key() == key
    assert told in flashed.flash("--new-key").output
    assert flashed.key() != key


def test_a_new_key_of_a_run_that_was_cut_off_is_reported_by_the_run_that_ends_well(flashed: Bench) -> None:
    flashed.new_module(faults=Faults(cut_power_after_put_b=1024, stay_off=True))
    cut = flashed.run("flash", "--full", "--wait", "0")
    assert cut.exit_code == 4
    assert "hand no reader_keys.json to its gateway before this has ended well" in cut.output
    assert "not finished: flash it again" in listed(flashed)
    flashed.new_module()
    ended = flashed.run("flash", "--wait", "0")
    assert ended.exit_code == 0
    assert ended.output.splitlines()[-1].startswith("join    it has a new key: hand readers.json and reader_keys.json")
    assert "not finished" not in listed(flashed)
    assert "new key" not in flashed.run("flash", "--wait", "0").output


def test_a_number_that_somebody_else_flashes_now_is_refused_before_anything_is_written(bench: Bench) -> None:
    script = (
        "import sys, pathlib\nfrom readers.inventory import Inventory\n"
        "with Inventory(pathlib.Path(sys.argv[1])).claim(7):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(bench.inventory)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused = bench.flash()
        assert refused.exit_code == 5
        assert "reader 7 is being flashed by another run" in refused.output
        assert bench.module.counts["FS PUT"] == 0
        assert not (bench.inventory / "reader_keys.json").exists()
        assert bench.run("flash", "--number", "8", "--ext-pan-id", "0", "--wait", "0").exit_code == 0
    bench.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    assert bench.flash().exit_code == 0, "the lock ends with its process"


def test_a_log_that_can_take_no_more_stops_no_flash(bench: Bench) -> None:
    bench.log = Path("/dev/full")
    whole = bench.run("flash", "--number", "7", "--ext-pan-id", "0", "--wait", "0")
    assert whole.exit_code == 2, "a log that takes nothing from the start is refused before the module is touched"
    bench.log = bench.folder / "log"

    class Full:
        """A disk that is full after the first lines."""

        left = 3

    original = open

    def filling(path: object, *words: object, **options: object) -> object:
        if path == bench.log:
            Full.left -= 1
            if Full.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, *words, **options)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open", filling, raising=False)
        done = bench.flash()
    assert done.exit_code == 0, done.output
    assert done.output.count("cannot be written any more: No space left on device") == 1
    assert bench.run("verify").exit_code == 0
    assert bench.module.running


def listed(bench: Bench) -> str:
    return CliRunner().invoke(command.app, ["list", "--inventory", str(bench.inventory)]).output
