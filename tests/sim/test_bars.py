"""A bar is for a person who waits: it is drawn in a terminal, below the lines, and never in a pipe or a file."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.demo.terminal import in_terminal

WORK = """
from readers.terminal import progress, say
with progress("sites", 2) as done:
    for number in (1, 2):
        say(f"site {number}")
        done(number)
"""
LINES = "site 1\nsite 2\n"


def in_a_terminal(tmp_path: Path, tail: str = "") -> str:
    (tmp_path / "work.py").write_text(WORK)
    command = ["/bin/sh", "-c", f"{sys.executable} work.py {tail}"]
    screen = in_terminal(command, tmp_path, (80, 24), then=lambda _: None, limit_s=60)
    assert screen.returncode == 0, screen.output
    return screen.output


def test_the_lines_stand_above_the_bar(tmp_path: Path) -> None:
    output = in_a_terminal(tmp_path)
    assert "\x1b[2Ksite 1\r\n" in output, "a line of its own, where the bar was"
    assert "100 %" in output


def test_a_file_gets_the_lines_while_the_terminal_gets_the_bar(tmp_path: Path) -> None:
    assert "100 %" in in_a_terminal(tmp_path, "> lines")
    assert (tmp_path / "lines").read_text() == LINES


@pytest.mark.parametrize("setting", ["NO_COLOR=1", "TERM=dumb", "TERM="])
def test_a_terminal_where_nothing_moves_has_no_bar(tmp_path: Path, setting: str) -> None:
    (tmp_path / "work.py").write_text(WORK)
    command = ["/usr/bin/env", setting, sys.executable, "work.py"]
    screen = in_terminal(command, tmp_path, (80, 24), then=lambda _: None, limit_s=60)
    assert screen.output == LINES.replace("\n", "\r\n")


def test_a_pipe_has_no_bar() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (LINES, "")
