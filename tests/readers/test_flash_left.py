"""What a failed flash leaves behind is what it says: each stage, with a program that ran before and without one."""

from collections.abc import Callable

import pytest

from readers import flash as flashing
from sim.xbee.module import Faults, VirtualXBee
from tests.readers.bed import Bench

Break = Callable[[Bench, pytest.MonkeyPatch], None]


def old(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    bench.module.faults.corrupt_puts = 99


def mixed(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def move(files: flashing.Files, path: str, new_path: str) -> None:
        raise flashing.TransferFailed("the cable was pulled")

    patch.setattr(flashing.Files, "move", move)


def new(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    bench.module.faults.unknown = frozenset({"FK"})


def settings_are_set(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def compare(*_: object) -> None:
        raise flashing.VerifyFailed(["something"])

    patch.setattr(flashing, "_compare", compare)


@pytest.mark.parametrize(
    ("breaks", "was_on", "says", "runs"),
    [
        (old, True, "the reader is started again with the files it had", True),
        (old, False, "its files are as they were, and the reader's program stays off, as it was", False),
        (mixed, True, "its files are incomplete or mixed: the reader's program stays off", False),
        (mixed, False, "its files are incomplete or mixed: the reader's program stays off", False),
        (new, True, "the reader is started with the new files, and some settings are still the old ones", True),
        (new, False, "the new files are in place, the settings are not: its program stays off", False),
        (settings_are_set, True, "files and settings were written, and the reader is started with them", True),
        (settings_are_set, False, "files and settings were written, and the reader is started with them", True),
    ],
)
def test_the_reader_is_left_as_said(
    breaks: Break, was_on: bool, says: str, runs: bool, flashed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not was_on:
        flashed.module.settings["PS"] = 0
        (flashed.folder / "module" / "settings.json").unlink()
        flashed.new_module()
    assert flashed.module.running is was_on
    (flashed.firmware / "app.py").write_text("SEEN = 1\n")
    breaks(flashed, monkeypatch)
    result = flashed.flash()
    assert result.exit_code in (1, 4), result.output
    assert f"stopped; {says}" in result.output, result.output
    assert result.output.count("stopped") == 1
    assert flashed.module.running is runs
    assert VirtualXBee(flashed.folder / "module").running is runs, "and after a power cycle"
    monkeypatch.undo()


def test_a_reader_that_refuses_to_save_is_said_to_refuse_not_to_be_silent(flashed: Bench) -> None:
    (flashed.firmware / "app.py").write_text("SEEN = 1\n")
    flashed.new_module(faults=Faults(wr_errors=99))
    result = flashed.flash()
    assert result.exit_code == 4
    assert "stopped, and the reader refuses ATWR: its program may be off until it has been flashed" in result.output
