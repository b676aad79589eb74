"""Other people's programs, unmodified and in their own processes, against `ansim-sim coordinator`."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60


@contextmanager
def coordinator(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "sim.cli_coordinator",
        "--pty",
        str(path),
        "--seed",
        "7",
        "--scan-speed",
        "20",
        *options,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
        assert ready, "the emulator did not start"
        assert "EZSP 13 coordinator" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert not path.is_symlink(), "the port is gone with the process"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def zigpy(tmp_path: Path) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        return run(str(BIN / "zigpy"), "radio", "ezsp", str(tmp_path / "stick"), *arguments)

    return call


def shown(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(.*)$", text, re.MULTILINE)
    assert found, (name, text)
    return found[1]


def test_zigpy_cli_forms_informs_backs_up_restores_and_scans(tmp_path: Path, zigpy: Callable[..., str]) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    with coordinator(tmp_path / "stick"):
        zigpy("form")
        info = zigpy("info")
        assert shown(info, "Device IEEE") == "f4:ce:36:00:00:00:00:07"
        zigpy("backup", str(first))
        zigpy("restore", str(first))
        zigpy("backup", str(second))
        assert shown(zigpy("info"), "PAN ID") == shown(info, "PAN ID")
        scan = zigpy("energy-scan", "-n", "1")
        assert len(set(re.findall(r"- [ \[](\d\d)[ *]", scan))) == 16, scan
    before, after = json.loads(first.read_text()), json.loads(second.read_text())
    counters = [b["network_key"].pop("frame_counter") for b in (before, after)]
    assert counters[1] >= counters[0] + 10_000
    for backup in (before, after):
        del backup["metadata"]["internal"]["creation_time"]
    assert before == after


def test_a_stick_keeps_its_network_when_its_process_ends(tmp_path: Path, zigpy: Callable[..., str]) -> None:
    options = ("--state", str(tmp_path / "state.json"))
    with coordinator(tmp_path / "stick", *options):
        zigpy("form")
        before = zigpy("info")
    with coordinator(tmp_path / "stick", *options):
        after = zigpy("info")
    for name in ("PAN ID", "Extended PAN ID", "Channel", "Device IEEE", "Network key"):
        assert shown(before, name) == shown(after, name)
    assert int(shown(after, "Network key counter")) > int(shown(before, "Network key counter"))
    assert os.stat(tmp_path / "state.json").st_mode & 0o077 == 0, "it holds the network's key"


def test_a_backup_goes_onto_another_stick(tmp_path: Path, zigpy: Callable[..., str]) -> None:
    with coordinator(tmp_path / "stick"):
        zigpy("form")
        before = zigpy("info")
        zigpy("backup", str(tmp_path / "a.json"))
    with coordinator(tmp_path / "stick", "--eui64", "f4:ce:36:00:00:00:00:99"):
        zigpy("restore", str(tmp_path / "a.json"))
        after = zigpy("info")
    for name in ("PAN ID", "Extended PAN ID", "Device IEEE", "Network key"):
        assert shown(before, name) == shown(after, name)


def test_universal_silabs_flasher_recognises_it(tmp_path: Path) -> None:
    with coordinator(tmp_path / "stick"):
        flasher = (str(BIN / "universal-silabs-flasher"), "--device", str(tmp_path / "stick"))
        text = run(*flasher, "--probe-methods", "ezsp:115200", "probe")
    assert "Detected ApplicationType.EZSP, version '7.4.4.0 build 0' (7.4.4.0.0) at 115200 baudrate" in text, text
    assert "CONFIG_KEY_TABLE_SIZE=12" in text
    assert "CONFIG_STACK_PROFILE=2" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--eui64", "12"], "16 hexadecimal digits"),
        (["--state", "damaged"], "move the file away"),
        (["--pty", "/proc/none/stick"], "choose another --pty"),
    ],
)
def test_a_mistake_on_the_command_line_says_what_would_be_right(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "damaged").write_text("{}")
    options = [str(tmp_path / o) if o == "damaged" else o for o in options]
    command = [sys.executable, "-m", "sim.cli_coordinator", "--pty", str(tmp_path / "stick"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode != 0
    assert says in " ".join((done.stdout + done.stderr).split()), done
