"""Bundled code hides files from MicroPython: it is found, and erased before the files are exchanged."""

import pytest

from readers.line import SerialLine
from tests.readers.bed import Bench


def test_a_stale_bundle_is_erased_although_every_file_is_right(flashed: Bench) -> None:
    flashed.module.bundle.write_bytes(b"an old wire" * 60)
    found = flashed.run("verify")
    assert found.exit_code == 1
    assert "660 bytes of bundled code hide files" in found.output
    assert flashed.module.bundle.exists(), "verify changes nothing"
    puts = flashed.module.counts["FS PUT"]
    result = flashed.flash()
    assert result.exit_code == 0, result.output
    assert "erasing 660 bytes of bundled code" in result.output
    assert not flashed.module.bundle.exists()
    assert flashed.module.counts["FS PUT"] == puts, "the files were right"
    assert flashed.module.running
    assert "nothing to do" in flashed.flash().output
    assert flashed.run("verify").exit_code == 0


@pytest.mark.parametrize("option", [(), ("--full",)])
def test_a_used_module_loses_its_bundle_on_the_way_to_a_reader(bench: Bench, option: tuple[str, ...]) -> None:
    bench.module.bundle.write_bytes(b"x")
    result = bench.flash(*option)
    assert result.exit_code == 0, result.output
    assert not bench.module.bundle.exists(), "formatting alone would leave it"
    lines = result.output.splitlines()
    erased = next(n for n, line in enumerate(lines) if "erasing 1 bytes of bundled code" in line)
    assert erased < next(n for n, line in enumerate(lines) if "files in place" in line)


def test_a_bundle_that_stays_is_no_success(flashed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flashed.module.bundle.write_bytes(b"stays")
    real = SerialLine.ask
    monkeypatch.setattr(SerialLine, "ask", lambda line, command: "OK" if command == "PYE" else real(line, command))
    result = flashed.flash()
    assert result.exit_code == 4
    assert "5 bytes of bundled code are left" in result.output
    assert "stays off until it has been flashed" in result.output
    assert not flashed.module.running
    monkeypatch.undo()


def test_an_answer_that_is_no_size_is_no_empty_bundle(flashed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerialLine, "ask_lines", lambda line, command: ["whatever", "compiled: never"])
    result = flashed.run("verify")
    assert result.exit_code == 4
    assert "firmware 1014 answers 'whatever compiled: never' to ATPYB" in result.output
