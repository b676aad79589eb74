"""A flash that is cut off or damaged leaves the old program, or a reader that is off; the next flash repairs it."""

from hashlib import sha256

import pytest

from readers import build as building
from readers import flash as flashing
from sim.xbee.module import Faults, VirtualXBee
from tests.readers.bed import Bench


def test_a_power_cut_in_an_upload_keeps_the_old_program_and_the_next_run_goes_on(flashed: Bench) -> None:
    old = flashed.on_module()
    (flashed.folder / "src" / "wire.py").write_text("VERSION = 2\n")
    (flashed.firmware / "app.py").write_text("SEEN = b'" + "y" * 4000 + "'\n")
    # A build is sent in order of names: app is first, its second block never arrives, and wire is never started.
    flashed.module.faults.cut_power_after_put_b = 1024
    failed = flashed.flash()
    assert failed.exit_code == 4, failed.output
    assert flashed.module.counts["power cuts"] == 1
    assert "run the same command again" in failed.output
    assert {name: content for name, content in flashed.on_module().items() if not name.endswith(".new")} == old
    assert flashed.module.running, "the old program was started again"
    done = flashed.flash()
    assert done.exit_code == 0, done.output
    assert set(flashed.on_module()) == set(old)
    assert flashed.on_module()["app.mpy"] != old["app.mpy"]
    assert flashed.module.running


def test_a_reader_that_stays_dark_is_said_to_be_off_and_flashing_it_later_starts_it(flashed: Bench) -> None:
    (flashed.firmware / "app.py").write_text("SEEN = b'" + "y" * 4000 + "'\n")
    flashed.new_module(faults=Faults(cut_power_after_put_b=1024, stay_off=True))
    failed = flashed.flash()
    assert failed.exit_code == 4
    assert "does not answer: its program may be off until it has been flashed" in failed.output
    assert not flashed.new_module().running, "the power is back, and half an update starts nothing"
    assert flashed.flash().exit_code == 0
    assert flashed.module.running


def test_what_arrived_before_an_interruption_is_not_sent_twice(bench: Bench) -> None:
    puts_before = bench.module.counts["FS PUT"]
    bench.module.faults.cut_power_after_put_b = 2048  # only app.mpy is that long; it is sent first
    assert bench.flash().exit_code == 4
    (bench.folder / "module" / "flash" / "wire.mpy.new").write_bytes(b"of an older firmware")
    out = bench.folder / "by hand"
    app = next(a for a in building.build(out, bench.firmware) if a.name == "app.mpy")
    (bench.folder / "module" / "flash" / "app.mpy.new").write_bytes(app.path.read_bytes())
    result = bench.flash()
    assert result.exit_code == 0, result.output
    assert "app.mpy was sent before" in result.output
    assert bench.module.counts["FS PUT"] - puts_before == 1 + 3
    assert set(bench.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}


def test_a_reader_cut_off_while_names_are_exchanged_stays_off_until_flashed(
    flashed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (flashed.firmware / "app.py").write_text("SEEN = 1\n")
    (flashed.folder / "src" / "wire.py").write_text("VERSION = 2\n")
    moved: list[str] = []

    def move_once(self: flashing.Files, path: str, new_path: str) -> None:
        if moved:
            raise flashing.TransferFailed("the cable was pulled")
        moved.append(path)
        real(self, path, new_path)

    real = flashing.Files.move
    monkeypatch.setattr(flashing.Files, "move", move_once)
    failed = flashed.flash()
    assert failed.exit_code == 4
    assert "stays off until it has been flashed" in failed.output
    assert not flashed.module.running
    assert VirtualXBee(flashed.folder / "module").running is False, "nor after a power cycle"
    monkeypatch.setattr(flashing.Files, "move", real)
    done = flashed.flash()
    assert done.exit_code == 0, done.output
    assert flashed.module.running
    assert set(flashed.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}


def test_a_damaged_upload_is_found_by_its_hash_and_sent_again(bench: Bench) -> None:
    bench.module.faults.corrupt_puts = 1
    result = bench.flash()
    assert result.exit_code == 0, result.output
    assert "did not arrive whole" in result.output
    assert bench.module.counts["FS PUT"] == 5
    for artifact in building.build(bench.folder / "again", bench.firmware):
        assert sha256(bench.on_module()[artifact.name]).hexdigest() == artifact.sha256


def test_a_flash_that_damages_every_upload_fails_and_leaves_the_old_program(flashed: Bench) -> None:
    old = flashed.on_module()
    (flashed.firmware / "app.py").write_text("SEEN = 1\n")
    flashed.module.faults.corrupt_puts = 99
    result = flashed.flash()
    assert result.exit_code == 4, result.output
    assert "app.mpy failed 3 times" in result.output
    assert {name: content for name, content in flashed.on_module().items() if not name.endswith(".new")} == old
    assert flashed.module.running


def test_one_wrong_hash_costs_one_more_upload(bench: Bench) -> None:
    bench.module.faults.wrong_hashes = 1
    assert bench.flash().exit_code == 0
    assert bench.module.counts["FS PUT"] == 5


def test_settings_that_cannot_be_saved_fail_loudly(bench: Bench) -> None:
    bench.module.faults.wr_errors = 99
    result = bench.flash()
    assert result.exit_code == 4
    assert "refused ATWR" in result.output
