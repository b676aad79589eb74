"""A virtual XBee that runs its program: MicroPython on the volume, its console on the serial line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from sim.reader.switches import Switches
from sim.xbee.interpreter import PHONE, Surroundings, VolumeProgram
from sim.xbee.module import VirtualXBee
from tests.roots import ROOT

COUNTS = """import time
n = 0
while True:
    print("line", n)
    n += 1
    time.sleep_ms(1000)
"""


class Clocked:
    """A module with a program, and a clock that moves when told."""

    def __init__(self, folder: Path, main: str, switches: Switches | None = None, *, ap: int = 4) -> None:
        self.program = VolumeProgram(folder / "flash", switches or Switches(boot_ms=100), Surroundings())
        (folder / "flash" / "main.py").write_text(main)
        self.module = VirtualXBee(folder, guard_s=0.5, interpreter=self.program)
        self.module.settings |= {"PS": 1, "AP": ap}
        self.now_s = 0.0
        self.module._save()
        self.module._boot()

    def wait(self, seconds: float) -> str:
        printed, until_s = b"", self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 0.02
            printed += self.module.on_tick(self.now_s)
        return printed.decode()

    def type(self, text: str) -> str:
        return self.module.receive_data(text.encode(), self.now_s).decode()

    def command(self, text: str) -> str:
        if not self.module._command_mode:
            self.wait(0.6)
            self.type("+++")
            assert self.wait(0.6).endswith("OK\r")
        return self.type(f"AT{text}\r")


@pytest.fixture(autouse=True)
def _off() -> object:
    made: list[Clocked] = []
    real = Clocked.__init__

    def init(self: Clocked, *data: object, **options: object) -> None:
        real(self, *data, **options)  # type: ignore[arg-type]
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clocked, "__init__", init)
        yield
    for each in made:
        each.module.close()


def test_what_the_program_prints_comes_out_of_the_line_as_it_runs(tmp_path: Path) -> None:
    at = Clocked(tmp_path, COUNTS)
    assert at.wait(2.5) == "line 0\r\nline 1\r\nline 2\r\n"
    assert at.wait(1) == "line 3\r\n"


def test_in_command_mode_and_without_ap_4_nothing_comes_out(tmp_path: Path) -> None:
    at = Clocked(tmp_path / "a", COUNTS)
    assert at.command("VR") == "1014\r"
    assert at.wait(3) == ""
    assert at.command("CN") == "OK\r"
    assert "line" in at.wait(1.5)
    assert Clocked(tmp_path / "b", COUNTS, ap=1).wait(3) == ""


def test_a_restart_starts_it_again_and_ps_0_does_not(tmp_path: Path) -> None:
    at = Clocked(tmp_path, COUNTS)
    at.wait(1)
    assert at.command("FR") == "OK\r"
    assert at.wait(0.5) == "line 0\r\n"
    for command in ("PS0", "WR", "FR"):
        assert at.command(command) == "OK\r"
    assert at.wait(3) == ""
    assert at.program.reader.causes == [4, 3]


def test_a_program_that_ends_or_crashes_prints_its_last_words(tmp_path: Path) -> None:
    at = Clocked(tmp_path, "print('first')\nraise ValueError(7)\n")
    printed = at.wait(1)
    assert printed.startswith("first\r\nTraceback")
    assert printed.endswith("ValueError: 7\r\n")
    assert at.wait(1) == ""


def test_main_py_goes_before_main_mpy(tmp_path: Path) -> None:
    at = Clocked(tmp_path, "print('source')\n")
    (tmp_path / "flash" / "main.mpy").write_bytes(b"M")
    assert at.wait(0.5) == "source\r\n"


def test_the_byte_03_interrupts_it_and_a_reset_brings_it_back(tmp_path: Path) -> None:
    at = Clocked(
        tmp_path,
        f"import machine\ntry:\n    {COUNTS.replace(chr(10), chr(10) + '    ')}\nfinally:\n    machine.reset()\n",
    )
    at.wait(1)
    at.type("\x03")
    assert "line 0" in at.wait(2)
    assert at.program.reader.causes == [4, 3]


def test_a_phone_is_heard_and_no_stick_answers_outside_a_network(tmp_path: Path) -> None:
    program = """from digi import ble
import time, xbee
ble.active(True)
scan = ble.gap_scan(0, interval_us=20000, window_us=20000)
for found in scan:
    print(found["address"])
    break
try:
    xbee.transmit(xbee.ADDR_COORDINATOR, b"hello")
except OSError as error:
    print(error.args[0])
"""
    assert Clocked(tmp_path / "a", program).wait(1.5) == f"{PHONE!r}\r\n7107\r\n"


def test_what_never_comes_back_is_missing_from_the_volume(tmp_path: Path) -> None:
    saves = "for n in range(10):\n    open('a', 'w').close()\n"
    at = Clocked(tmp_path, saves, Switches(boot_ms=100, flash="never_frees"))
    at.wait(1)
    _, _, free, *_ = at.command("FS INFO").split()
    assert int(free) == 256 * 1024 - (1 + 10) * 2048, "main.py, and what ten writes of an empty file took"


def test_the_command_runs_a_program(tmp_path: Path) -> None:
    link, folder = tmp_path / "tty", tmp_path / "m"
    (folder / "flash").mkdir(parents=True)
    (folder / "flash" / "main.py").write_text(COUNTS)
    (folder / "settings.json").write_text('{"PS": 1, "AP": 4}')
    program = "import typer; from sim.xbee.command import xbee_command; typer.run(xbee_command)"
    options = ["--pty", str(link), "--flash", str(folder), "--run", "--joined", "--speed", "20"]
    options += ["--switches", "boot_ms=50"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert "Ctrl-C ends it" in run.stdout.readline()
        with serial.Serial(str(link), 115200, timeout=20) as port:
            assert port.read_until(b"line 3\r\n").endswith(b"line 3\r\n")
            time.sleep(1.1)
            port.write(b"+++")
            assert b"OK\r" in port.read_until(b"OK\r")
            port.write(b"ATAI\r")
            assert port.read_until(b"\r").endswith(b"0\r")
        run.terminate()
        assert "ended: " in run.stdout.read()
    assert run.returncode == 130, "ended by a signal"


def test_a_wrong_switch_is_refused(tmp_path: Path) -> None:
    program = "import typer; from sim.xbee.command import xbee_command; typer.run(xbee_command)"
    options = ["--pty", str(tmp_path / "t"), "--flash", str(tmp_path / "m"), "--run", "--switches", "flash=empty"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "switch flash" in done.stderr
