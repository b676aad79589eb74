"""The serial line: what does not open or answer is reported with the next step, and no thread is left behind."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import readers.__main__ as command
from readers.line import PortTaken, PortUnusable, SerialLine, SerialPort, Timing, explain_open
from sim.xbee.module import Faults, Pty, VirtualXBee
from tests.readers.bed import FAST, Bench


def test_a_silent_module_is_told_with_the_next_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TIMING", Timing(0.01, 0.02, 1, 1, 0.005, 1))
    bench.new_module(faults=Faults(silent=True))
    result = bench.run("probe")
    assert result.exit_code == 4
    assert "115200 and 9600 baud; check power and cable" in result.output


def test_a_module_left_in_command_mode_is_found(bench: Bench) -> None:
    with Pty(bench.module, bench.link):
        first = SerialLine(str(bench.link), FAST)
        first.open()
        first.port.close()  # as if the program was killed
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
    with pytest.raises(PortTaken, match=r"another program uses .*fuser"):
        SerialPort(str(taken), FAST).open()
    holder.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(PortUnusable, match=r"file is a file or another device, no serial port.*by-id"):
        SerialPort(str(tmp_path / "file"), FAST).open()
    with pytest.raises(PortUnusable, match=r" is a folder, no serial port.*by-id"):
        SerialPort(str(tmp_path), FAST).open()
    assert "dialout" in explain_open("/dev/ttyUSB0", errno.EACCES, "")


# This is the last file here that uses a virtual XBee, so the test sees what all of them left behind.
def test_no_thread_is_left_behind() -> None:
    assert [thread.name for thread in threading.enumerate() if thread.name == "virtual xbee"] == []
