"""`flash.sh` finds the tool and the one port, and passes on every option and the exit code."""

import os
import subprocess
from pathlib import Path

from readers.terminal import Exit
from tests.roots import ROOT


def test_flash_sh_finds_the_tool_and_the_one_port(tmp_path: Path) -> None:
    script = tmp_path / "flash.sh"
    script.write_bytes((ROOT / "flash.sh").read_bytes())
    ports = tmp_path / "by id"
    ports.mkdir()
    env = {"PATH": os.environ["PATH"], "ANSIM_PORTS": str(ports)}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", str(script), *options], env=env, capture_output=True, text=True, check=False)

    missing = run()
    assert missing.returncode == Exit.FAULT
    assert "make venv" in missing.stderr
    tool = tmp_path / ".venv" / "bin" / "ansim-reader"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\nfor word in "$@"; do echo "[$word]"; done\nexit 6\n')
    tool.chmod(0o755)
    none = run("--number", "7")
    assert none.returncode == Exit.DEVICE
    assert "plug the reader in" in none.stderr
    assert run("--version").stdout == "[--version]\n"
    assert run("--port", "/dev/x").stdout == "[flash]\n[--port]\n[/dev/x]\n"
    (ports / "usb-one").touch()
    one = run("--name", "pole 17, gate")
    assert one.returncode == 6, "the tool's exit code is the script's"
    assert one.stdout.splitlines()[1:] == ["[flash]", "[--port]", f"[{ports}/usb-one]", "[--name]", "[pole 17, gate]"]
    (ports / "usb-two").touch()
    two = run()
    assert two.returncode == Exit.USAGE
    assert "usb-two" in two.stderr
