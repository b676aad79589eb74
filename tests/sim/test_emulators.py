"""The emulators as commands: what they say, and the exit codes that all commands share."""

import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readers.terminal import Exit
from sim.__main__ import app
from sim.demo.processes import console

RUNS = {"coordinator": [], "xbee": ["--flash", "flash"]}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_emulator_says_where_it_is_at_once_and_ends_by_a_signal(
    tmp_path: Path, name: str, number: signal.Signals
) -> None:
    command = [console("ansim-sim"), name, "--pty", "port", *RUNS[name]]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert "on port" in running.stdout.readline()
            assert (tmp_path / "port").is_char_device()
            running.send_signal(number)
            assert running.wait(20) == Exit.ENDED
            assert not (tmp_path / "port").is_symlink(), "it leaves no port behind"
        finally:
            running.kill()


@pytest.mark.parametrize("name", RUNS)
def test_a_port_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [name, "--pty", "nowhere/port", *RUNS[name]])
    assert result.exit_code == Exit.FAULT
    assert result.stderr.startswith(f"ansim-sim {name}: ")
    assert "--pty" in result.stderr


@pytest.mark.parametrize("name", RUNS)
def test_a_wrong_address_is_a_wrong_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [name, "--pty", "port", "--eui64", "0013a2", *RUNS[name]])
    assert result.exit_code == Exit.USAGE
    assert "0013a2" in result.stderr


def test_a_stick_whose_memory_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("[]")
    result = CliRunner().invoke(
        app, ["coordinator", "--pty", str(tmp_path / "port"), "--state", str(tmp_path / "state")]
    )
    assert result.exit_code == Exit.NO
    assert "move the file away" in result.stderr
