"""Other people's programs, unmodified and in their own processes, against `ansim-sim coordinator`."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from readers.terminal import Exit
from tests.roots import ROOT

BIN = Path(sys.executable).parent
LIMIT_S = 60


@contextmanager
def coordinator(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "sim.ncp.command",
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
    assert process.returncode == Exit.ENDED
    assert not path.is_symlink(), "the port is gone with the process"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@dataclass
class Story:
    """What zigpy-cli said and wrote, command by command: one stick, restarted, then a blank one that takes over."""

    formed: str
    first: dict[str, Any]
    second: dict[str, Any]
    restored: str
    scan: str
    restarted: str
    replaced: str
    state_mode: int


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("peers")
    stick, state, first, second = (folder / name for name in ("stick", "state.json", "a.json", "b.json"))

    def zigpy(*arguments: str) -> str:
        return run(str(BIN / "zigpy"), "radio", "ezsp", str(stick), *arguments)

    with coordinator(stick, "--state", str(state)):
        zigpy("form")
        formed = zigpy("info")
        zigpy("backup", str(first))
        zigpy("restore", str(first))
        zigpy("backup", str(second))
        restored = zigpy("info")
        scan = zigpy("energy-scan", "-n", "1")
    with coordinator(stick, "--state", str(state)):
        restarted = zigpy("info")
    with coordinator(stick, "--eui64", "f4:ce:36:00:00:00:00:99"):
        zigpy("restore", str(first))
        replaced = zigpy("info")
    backups = [json.loads(path.read_text()) for path in (first, second)]
    return Story(formed, backups[0], backups[1], restored, scan, restarted, replaced, os.stat(state).st_mode & 0o777)


NETWORK = ("PAN ID", "Extended PAN ID", "Channel", "Device IEEE", "Network key")


def shown(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\s+(.*)$", text, re.MULTILINE)
    assert found, (name, text)
    return found[1]


def network(text: str) -> list[str]:
    return [shown(text, name) for name in NETWORK]


def counter(text: str) -> int:
    return int(shown(text, "Network key counter"))


def test_zigpy_cli_forms_a_network(story: Story) -> None:
    assert shown(story.formed, "Device IEEE") == "f4:ce:36:00:00:00:00:07"
    assert 11 <= int(shown(story.formed, "Channel")) <= 26
    assert shown(story.formed, "Network key") != ":".join(["00"] * 16)


def test_a_backup_restored_is_the_same_network_with_a_higher_frame_counter(story: Story) -> None:
    before, after = story.first, story.second
    assert after["network_key"]["frame_counter"] >= before["network_key"]["frame_counter"] + 10_000
    for backup in (before, after):
        del backup["network_key"]["frame_counter"]
        del backup["metadata"]["internal"]["creation_time"]
    assert before == after
    assert network(story.restored) == network(story.formed)


def test_an_energy_scan_covers_all_channels(story: Story) -> None:
    assert len(set(re.findall(r"- [ \[](\d\d)[ *]", story.scan))) == 16, story.scan


def test_a_stick_keeps_its_network_when_its_process_ends(story: Story) -> None:
    assert network(story.restarted) == network(story.restored)
    assert counter(story.restarted) > counter(story.restored)
    assert story.state_mode == 0o600, "it holds the network's key"


def test_a_backup_goes_onto_another_stick_address_and_all(story: Story) -> None:
    assert network(story.replaced) == network(story.formed)
    assert counter(story.replaced) > counter(story.formed)


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
    command = [sys.executable, "-m", "sim.ncp.command", "--pty", str(tmp_path / "stick"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode != 0
    assert says in " ".join((done.stdout + done.stderr).split()), done
