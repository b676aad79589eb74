"""The whole way of a technician: `ansim-reader` against a virtual XBee on a pty, through the vendor's own client."""

import errno
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import readers.__main__ as command
from readers import build as building
from readers import flash as flashing
from readers.line import PortUnusable, SerialLine, SerialPort, Timing, explain_open
from sim.xbee.module import Factory, Faults, Pty, VirtualXBee
from tests.roots import ROOT

FAST = Timing(guard_s=0.03, answer_s=0.6, silence_s=0.8, boot_s=5, poll_s=0.002, attempts=2)
EUI64 = "0013a20041a06e60"


class Bench:
    """A technician's table: one module, one inventory, one firmware folder."""

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

    def run(self, verb: str, *options: str, stop_at: str = "") -> Result:
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


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMING", FAST)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def flashed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flashed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "TIMING", FAST)
        assert Bench(folder).flash().exit_code == 0
    return folder


@pytest.fixture
def flashed(flashed_once: Path, tmp_path: Path) -> Bench:
    """A bench whose module is reader 7 already: a copy of one that was flashed in full."""
    return Bench(shutil.copytree(flashed_once, tmp_path / "bench"))


def test_a_new_module_becomes_an_enrolled_reader(bench: Bench) -> None:
    result = bench.flash("--name", "pole 17", "--ext-pan-id", "dddddddddddddddd", "--bell", "d4", "--bell", "D5")
    assert result.exit_code == 0, result.output
    files = bench.on_module()
    assert set(files) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}
    assert {content[:4] for name, content in files.items() if name != "config.py"} == {building.MPY_HEADER}
    config = files["config.py"].decode()
    assert "READER = 7\n" in config
    assert 'BELLS = ("D4", "D5",)' in config
    key = bytes.fromhex(bench.key())
    assert 'KEY = b"' + "".join(f"\\x{byte:02x}" for byte in key) + '"' in config
    module = bench.module
    assert module.running, "restarted, and its program is on"
    saved = json.loads((bench.folder / "module" / "settings.json").read_text())
    assert (saved["PS"], saved["AP"], saved["BD"], saved["DC"], saved["NI"]) == (1, 4, 7, 0x21, "ansim-7")
    assert saved["ID"] == 0xDDDDDDDDDDDDDDDD
    row = json.loads((bench.inventory / "readers.json").read_text())["7"]
    assert (row["number"], row["eui64"], row["name"], row["key_file"]) == (7, EUI64, "pole 17", "reader_keys.json")
    assert len(row["install_code"]) == 36
    assert row["module_firmware"] == "1014"
    assert stat.S_IMODE((bench.inventory / "reader_keys.json").stat().st_mode) == 0o600
    steps = [line.split()[0] for line in result.output.splitlines()]
    assert [step for n, step in enumerate(steps) if steps[n - 1 : n] != [step]] == ["probe", "flash", "verify"]
    assert bench.run("verify").exit_code == 0


def test_no_secret_is_ever_shown(bench: Bench) -> None:
    first = bench.flash()
    shown = first.output + bench.run("verify").output + bench.run("probe").output
    shown += CliRunner().invoke(command.app, ["list", "--inventory", str(bench.inventory)]).output
    (bench.folder / "module" / "flash" / "config.py").write_text("KEY = 0")
    broken = bench.run("verify")
    assert broken.exit_code == 7
    assert "config.py" in broken.output
    shown += broken.output + repr(broken.exception)
    code = json.loads((bench.inventory / "readers.json").read_text())["7"]["install_code"]
    for text in (shown.lower(), bench.log.read_text().lower()):
        assert "probe" in text
        for secret in (bench.key(), code):
            assert secret not in text
            assert "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(secret)) not in text


def test_flashing_again_changes_nothing(flashed: Bench) -> None:
    before, counts = flashed.on_module(), flashed.module.counts.copy()
    inventory = {path.name: path.read_bytes() for path in flashed.inventory.iterdir()}
    again = flashed.run("flash")  # a known module needs no number
    assert again.exit_code == 0, again.output
    assert "nothing to do" in again.output
    assert flashed.on_module() == before
    assert {path.name: path.read_bytes() for path in flashed.inventory.iterdir()} == inventory
    for what in ("FS PUT", "FS MV", "FS RM", "WR", "boots", "settings changed"):
        assert flashed.module.counts[what] == counts[what], what
    assert flashed.module.running


def test_only_the_file_that_changed_is_sent(flashed: Bench) -> None:
    key, puts = flashed.key(), flashed.module.counts["FS PUT"]
    (flashed.firmware / "app.py").write_text("import config, wire\n")
    result = flashed.flash()
    assert result.exit_code == 0, result.output
    assert flashed.module.counts["FS PUT"] == puts + 1
    assert "sending app.mpy" in result.output
    assert flashed.key() == key
    assert flashed.module.running


def test_a_power_cut_in_an_upload_keeps_the_old_program_and_the_next_run_goes_on(flashed: Bench) -> None:
    old = flashed.on_module()
    (flashed.folder / "src" / "wire.py").write_text("VERSION = 2\n")
    (flashed.firmware / "app.py").write_text("SEEN = b'" + "y" * 4000 + "'\n")
    # The name order of a build puts app first; its second block never arrives, wire is never begun.
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
    assert failed.exit_code == 6
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
    assert result.exit_code == 6, result.output
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


def test_a_file_that_would_hide_a_new_one_goes(bench: Bench) -> None:
    flash = bench.folder / "module" / "flash"
    (flash / "APP.py").write_text("old source, imported before app.mpy")
    (flash / "main.py").write_text("old, started before main.mpy")
    (flash / "boot.new").write_text("17, the program's own")
    result = bench.flash()
    assert result.exit_code == 0, result.output
    assert set(bench.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py", "boot.new"}
    (flash / "app.py").write_text("back again")
    differs = bench.run("verify")
    assert differs.exit_code == 7
    assert "app.py hides a file" in differs.output


def test_verify_names_every_difference(flashed: Bench) -> None:
    (flashed.folder / "module" / "flash" / "wire.mpy").unlink()
    flashed.module.settings["NW"] = 0
    result = flashed.run("verify")
    assert result.exit_code == 7
    assert "2 differences" in result.output
    assert "wire.mpy" in result.output
    assert "ATNW is 0, not A" in result.output
    assert flashed.flash().exit_code == 0
    assert flashed.run("verify").exit_code == 0


def test_full_erases_first_and_gives_a_new_key(flashed: Bench) -> None:
    key = flashed.key()
    (flashed.folder / "module" / "flash" / "junk.bin").write_text("x")
    result = flashed.flash("--full")
    assert result.exit_code == 0, result.output
    assert set(flashed.on_module()) == {"main.mpy", "app.mpy", "wire.mpy", "config.py"}
    assert flashed.key() != key, "its boot counter is gone, so frames under the old key would count as stale"
    assert flashed.module.running


def test_a_flash_too_small_is_said_before_anything_is_sent(bench: Bench) -> None:
    bench.new_module(Factory(volume_b=6144))
    result = bench.flash()
    assert result.exit_code == 6
    assert "6144 bytes free" in result.output
    assert bench.module.counts["FS PUT"] == 0


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (Factory(vr=0x100B), "firmware 100B is older than 1014"),
        (Factory(vr=0x2014), "2014 is not the Zigbee firmware"),
        (Factory(hv=0x5247), "5247 is not an XBee 3"),
    ],
)
def test_a_module_that_cannot_be_a_reader_is_refused_untouched(bench: Bench, factory: Factory, words: str) -> None:
    module = bench.new_module(factory)
    for verb in ("probe", "flash"):
        result = bench.run(verb, *(["--number", "7"] if verb == "flash" else []))
        assert result.exit_code == 5
        assert words in result.output
    assert (module.counts["WR"], module.counts["FS PUT"], module.counts["settings changed"]) == (0, 0, 0)
    assert not bench.inventory.exists(), "and nothing is enrolled"


def test_a_silent_module_is_told_with_the_next_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMING", Timing(0.01, 0.02, 1, 1, 0.005, 1))
    bench.new_module(faults=Faults(silent=True))
    result = bench.run("probe")
    assert result.exit_code == 4
    assert "115200 and 9600 baud; check power and cable" in result.output


def test_a_new_module_needs_a_number_and_one_number_is_one_module(bench: Bench) -> None:
    assert bench.run("flash").exit_code == 2
    bench.flash()
    bench.new_module(Factory(eui64=bytes.fromhex("0013a20041a06e61")))
    taken = bench.flash()
    assert taken.exit_code == 8
    assert EUI64 in taken.output
    assert "0013a20041a06e61" in taken.output
    assert "--number 8" in taken.output
    key = bench.key()
    assert bench.flash("--replace").exit_code == 0
    assert bench.key() != key, "the broken module's key is worth nothing any more"


def test_a_module_that_is_not_enrolled_cannot_be_verified(bench: Bench) -> None:
    result = bench.run("verify")
    assert result.exit_code == 8
    assert "not enrolled" in result.output


def test_a_module_left_in_command_mode_is_found(bench: Bench) -> None:
    with Pty(bench.module, bench.link):
        first = SerialLine(str(bench.link), FAST)
        first.open()
        first.port.close()  # as if killed
        second = SerialLine(str(bench.link), FAST)
        second.open()
        assert second.ask("VR") == "1014"
        second.close()


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Path]:
    with Pty(VirtualXBee(tmp_path / "m"), tmp_path / "tty"):
        yield tmp_path / "tty"


def test_a_port_that_does_not_open_says_what_to_do(taken: Path, tmp_path: Path) -> None:
    with pytest.raises(PortUnusable, match=r"no port .*/gone.*ls /dev/serial/by-id"):
        SerialPort(str(tmp_path / "gone"), FAST).open()
    holder = SerialPort(str(taken), FAST)
    holder.open()
    with pytest.raises(PortUnusable, match=r"another program uses .*fuser"):
        SerialPort(str(taken), FAST).open()
    holder.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(PortUnusable, match="is it a serial port"):
        SerialPort(str(tmp_path / "file"), FAST).open()
    assert "dialout" in explain_open("/dev/ttyUSB0", errno.EACCES, "")


def test_an_earlier_build_can_be_flashed_but_not_one_that_was_changed(bench: Bench) -> None:
    building.build(bench.folder / "one", bench.firmware)
    result = bench.flash("--build", str(bench.folder / "one"))
    assert result.exit_code == 0, result.output
    (bench.folder / "one" / "app.mpy").write_bytes(b"M\x06\x00\x1fother")
    assert bench.flash("--build", str(bench.folder / "one")).exit_code == 9


def test_flash_sh_finds_the_tool_and_the_one_port(tmp_path: Path) -> None:
    script = tmp_path / "flash.sh"
    script.write_bytes((ROOT / "flash.sh").read_bytes())
    ports = tmp_path / "by id"
    ports.mkdir()
    env = {"PATH": os.environ["PATH"], "ANSIM_PORTS": str(ports)}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", str(script), *options], env=env, capture_output=True, text=True, check=False)

    assert "make venv" in run().stderr
    tool = tmp_path / ".venv" / "bin" / "ansim-reader"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\nfor word in "$@"; do echo "[$word]"; done\nexit 6\n')
    tool.chmod(0o755)
    none = run("--number", "7")
    assert none.returncode == 3
    assert "plug the reader in" in none.stderr
    assert run("--port", "/dev/x").stdout == "[flash]\n[--port]\n[/dev/x]\n"
    (ports / "usb-one").touch()
    one = run("--name", "pole 17, gate")
    assert one.returncode == 6, "the tool's exit code is the script's"
    assert one.stdout.splitlines()[1:] == ["[flash]", "[--port]", f"[{ports}/usb-one]", "[--name]", "[pole 17, gate]"]
    (ports / "usb-two").touch()
    two = run()
    assert two.returncode == 3
    assert "usb-two" in two.stderr


def test_no_thread_is_left_behind() -> None:
    assert [thread.name for thread in threading.enumerate() if thread.name == "virtual xbee"] == []
