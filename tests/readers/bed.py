"""What the tests of `ansim-reader` share: a technician's table with a virtual XBee on a pty, and short waits."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

import readers.__main__ as command
from readers.line import Timing
from sim.xbee.module import Factory, Faults, Pty, VirtualXBee

FAST = Timing(guard_s=0.03, answer_s=0.6, silence_s=0.8, boot_s=5, poll_s=0.002, attempts=2)
EUI64 = "0013a20041a06e60"


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

    def new_module(self, factory: Factory | None = None, faults: Faults | None = None) -> VirtualXBee:
        self.module = VirtualXBee(self.folder / "module", factory, guard_s=0.02, prompt_s=0.03, faults=faults)
        return self.module

    def run(self, verb: str, *options: str) -> Result:
        firmware = () if verb == "probe" else ("--firmware", str(self.firmware), "--inventory", str(self.inventory))
        with Pty(self.module, self.link):
            return CliRunner().invoke(
                command.app, [verb, "--port", str(self.link), "--log", str(self.log), *firmware, *options]
            )

    def flash(self, *options: str) -> Result:
        return self.run("flash", "--number", "7", *options)

    def on_module(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "module" / "flash").iterdir()}

    def key(self) -> str:
        return str(json.loads((self.inventory / "reader_keys.json").read_text())["7"])
