"""A flash in a terminal has a bar with bytes and colours; a pipe, a dumb terminal and the log have neither."""

import os
import pty
import re
import subprocess
import termios
from dataclasses import dataclass

import pytest

from sim.xbee.module import Pty
from sim.xbee.network import NearNetwork
from tests.readers.bed import COMMAND, EXT_PAN_ID, Bench
from tests.roots import ROOT

GREEN, YELLOW, RED = (rf"\x1b\[{hue}m(\x1b\[22m)?" for hue in (32, 33, 31))
LINE = re.compile(r"(probe|flash|verify|join) {1,4}\S.*|failed  \S.*")
COLUMNS = 200


@dataclass
class Shown:
    """What a person saw, and what the log kept."""

    code: int
    text: str
    log: str

    def lines(self) -> list[str]:
        return self.text.replace("\r\n", "\n").splitlines()


def flash_on_terminal(bench: Bench, *options: str, verb: str = "flash", **env: str) -> Shown:
    """Run the command on a real pseudo-terminal of 200 columns, as a person does, and keep all that it shows."""
    words = [verb, "--port", str(bench.link), "--inventory", str(bench.inventory), "--firmware", str(bench.firmware)]
    words += ["--log", str(bench.folder / "terminal.log"), *options]
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, COLUMNS))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    with Pty(bench.module, bench.link):
        ran = subprocess.Popen(
            [*COMMAND, *words],
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**clean, "TERM": "xterm-256color", **env},
        )
        os.close(slave)
        shown = bytearray()
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # the last one has closed it
            pass
        finally:
            os.close(master)
        code = ran.wait(timeout=30)
    return Shown(code, shown.decode(), (bench.folder / "terminal.log").read_text())


@pytest.fixture
def near(bench: Bench) -> Bench:
    bench.new_module(network=NearNetwork(int(EXT_PAN_ID, 16), join_s=0.0))
    return bench


NEW = ("--number", "7", "--ext-pan-id", EXT_PAN_ID)


def test_a_terminal_shows_a_bar_with_bytes_and_a_green_end(near: Bench) -> None:
    shown = flash_on_terminal(near, *NEW)
    assert shown.code == 0
    found = [(float(done), float(all_of)) for done, all_of in re.findall(r"(\d+\.?\d*)/(\d+\.?\d*) kB", shown.text)]
    assert found, "no bar with bytes"
    done, totals = zip(*found, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert max(done) == totals[0]
    assert len(set(done)) > 2, "it moved"
    assert re.search(f"{GREEN}join    reader 7 is ready: it has joined", shown.text)
    assert "\x1b" not in shown.log
    assert "join: reader 7 is ready: it has joined" in shown.log


def test_what_failed_is_red_and_what_waits_for_a_person_is_yellow(near: Bench) -> None:
    near.module.network = NearNetwork(int(EXT_PAN_ID, 16), "closed", join_s=0.0)
    waits = flash_on_terminal(near, *NEW, "--wait", "0").text
    assert re.search(f"{YELLOW}join    reader 7: it has not joined yet because", waits)
    (near.folder / "module" / "flash" / "app.mpy").unlink()
    shown = flash_on_terminal(near, verb="verify")
    assert shown.code == 1
    assert re.search(f"{RED}failed  1 differences: file app.mpy", shown.text)
    assert "\x1b" not in shown.log


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_dumb_terminal_and_no_color_get_plain_lines(near: Bench, env: dict[str, str]) -> None:
    shown = flash_on_terminal(near, *NEW, **env)
    assert shown.code == 0
    assert "\x1b" not in shown.text
    assert all(LINE.fullmatch(line) for line in shown.lines()), shown.lines()


def test_a_pipe_gets_plain_lines_though_the_person_sees_the_bar(near: Bench) -> None:
    near.flash()
    near.module.settings["NW"] = 0
    (near.firmware / "app.py").write_text("SEEN = 1\n")
    result = near.flash()  # standard output is no terminal
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert all(LINE.fullmatch(line) for line in result.output.splitlines()), result.output
