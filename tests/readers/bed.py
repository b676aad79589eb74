"""What the tests of `ansim-reader` share: a technician's table with a virtual XBee on a pty, and short waits."""

import json
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

import readers.__main__ as command
from readers.line import Timing
from sim.reader.switches import Switches
from sim.xbee.interpreter import Surroundings, VolumeProgram
from sim.xbee.module import Factory, Faults, Pty, VirtualXBee
from sim.xbee.network import NearNetwork

FAST = Timing(guard_s=0.03, answer_s=0.6, silence_s=0.8, boot_s=5, poll_s=0.002, attempts=2, look_s=0.02)
EUI64 = "0013a20041a06e60"
EXT_PAN_ID = "a774001122334455"
COMMAND = (
    sys.executable,
    "-c",
    "import readers.__main__ as it, tests.readers.bed as bed; it.TIMING = bed.FAST; it.app(prog_name='ansim-reader')",
)
"""The command as a process of its own, with short waits."""


class Bench:
    """A technician's table: one module, one inventory, one folder of firmware."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory, self.log, self.link = folder / "inventory", folder / "log", folder / "tty"
        self.firmware = folder / "src" / "firmware"
        if not self.firmware.exists():
            self._write_firmware(folder)
        self.module = self.new_module()

    def _write_firmware(self, folder: Path) -> None:
        self.firmware.mkdir(parents=True)
        (folder / "src" / "wire.py").write_text("import struct\nVERSION = 1\n")
        (self.firmware / "main.py").write_text("import app\n")
        (self.firmware / "app.py").write_text("import config, wire\nSEEN = b'" + "x" * 2500 + "'\n")
        (self.firmware / "manifest.txt").write_text(
            "# a small one\nmain.py\napp.py  # compiled\n../wire.py\nconfig.py\n"
        )
        self.module = self.new_module()

    def new_module(
        self,
        factory: Factory | None = None,
        faults: Faults | None = None,
        network: NearNetwork | None = None,
    ) -> VirtualXBee:
        self.module = VirtualXBee(
            self.folder / "module", factory, guard_s=0.02, prompt_s=0.03, faults=faults, network=network
        )
        return self.module

    def run(self, verb: str, *options: str) -> Result:
        firmware = () if verb == "probe" else ("--firmware", str(self.firmware), "--inventory", str(self.inventory))
        with Pty(self.module, self.link):
            return CliRunner().invoke(
                command.app, [verb, "--port", str(self.link), "--log", str(self.log), *firmware, *options]
            )

    def flash(self, *options: str) -> Result:
        return self.run("flash", "--number", "7", "--ext-pan-id", EXT_PAN_ID, "--wait", "0", *options)

    def on_module(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "module" / "flash").iterdir()}

    def key(self) -> str:
        return str(json.loads((self.inventory / "reader_keys.json").read_text())["7"])


class Lab:
    """A module that runs its program, a phone and a stick beside it, and the file that a bring-up of it writes."""

    def __init__(
        self, folder: Path, switches: Switches | None = None, *, speed: float = 20.0, joined: bool = True
    ) -> None:
        self.folder, self.link, self.out = folder, folder / "tty", folder / "out.json"
        self.flash, self.log = folder / "module" / "flash", folder / "log"
        near = Surroundings(speed=speed, joined=joined)
        self.program = VolumeProgram(self.flash, switches or Switches(), near)
        self.module = VirtualXBee(
            folder / "module", Factory(ai=0 if joined else 0x22), guard_s=0.02, prompt_s=0.03, interpreter=self.program
        )

    def measure(self, *options: str, silence_s: float = 12.0) -> Result:
        words = ["bringup", "--port", str(self.link), "--out", str(self.out), "--log", str(self.log)]
        with Pty(self.module, self.link):
            return CliRunner().invoke(command.app, [*words, "--silence", str(silence_s), *options])

    def only(self, *steps: str) -> dict[str, Any]:
        """Measure these steps, with short counts, and return the file."""
        result = self.measure("--seconds", "3", *(word for step in steps for word in ("--only", step)))
        assert result.exit_code == 0, result.output
        return self.found()

    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.flash.iterdir()}
