"""A step that hangs or resets costs its own result; a bring-up that is cut off leaves a module that can be put back."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import readers.__main__ as command
from readers.bringup import KEPT, PLAN, STARTER, STARTER_TEXT
from readers.build import compile_source
from readers.line import SerialLine
from readers.transcript import Transcript
from sim.reader.switches import Switches
from sim.xbee.interpreter import VolumeProgram
from sim.xbee.module import VirtualXBee
from tests.readers.bed import FAST, Bench, Lab

OWN = b'print("my own program")\nimport time\nwhile True:\n    time.sleep_ms(1000)\n'
OLDER = b"not even a program"
BROWNOUT = 11


def when(patch: pytest.MonkeyPatch, what: str, action: Callable[[], object]) -> None:
    """Let something happen once, when the host has read a line with this key or value."""
    left, real = [action], Transcript.receive_data

    def receive_data(self: Transcript, data: bytes) -> list[tuple[str, Any]]:
        found = real(self, data)
        if left and any(what in (key, str(value)) for key, value in found):
            left.pop()()
        return found

    patch.setattr(Transcript, "receive_data", receive_data)


def owned(lab: Lab) -> dict[str, bytes]:
    """Give the module a program of its own, main.py and main.mpy, that runs. Return its files."""
    (lab.flash / "main.py").write_bytes(OWN)
    (lab.flash / "main.mpy").write_bytes(OLDER)
    lab.module.settings |= {"PS": 1, "AP": 1, "BD": 7}
    lab.module._save()
    return lab.files()


def as_it_was(lab: Lab, files: dict[str, bytes]) -> None:
    assert lab.files() == files
    assert {name: lab.module.settings[name] for name in ("PS", "AP", "BD", "BT")} == {
        "PS": 1,
        "AP": 1,
        "BD": 7,
        "BT": 0,
    }
    assert lab.module.running
    assert lab.found()["before"] is None


def test_a_step_that_hangs_is_given_up_and_the_others_are_measured(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.program.reader.scan_stalled = True  # the step `count` waits for an advertisement that never comes
    result = lab.measure("--only", "count", "--only", "transmit", "--only", "scan", "--seconds", "1", silence_s=1)
    assert result.exit_code == 0, result.output
    found = lab.found()
    assert found["measured"]["count"]["lost_s"] == 2
    assert "count: no line for 2 s: the program hung, or the module reset without a word" in found["notes"]
    assert found["switches"]["transmit"] == "works"
    assert found["switches"]["gap_scan"] == "works"
    assert found["ended"]
    assert lab.files() == {}


def test_a_reset_in_a_step_is_its_result_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path)
    reader = lab.program.reader
    when(monkeypatch, "probe_parts.clock", lambda: (reader.stop(), reader.start(lab.program.now_ms, BROWNOUT)))
    found = lab.only("names", "clock", "stack")
    assert found["measured"]["clock"]["reset_cause"] == BROWNOUT
    assert f"clock: the module reset in the middle of it, cause {BROWNOUT}" in found["notes"]
    assert "gc.threshold" in found["measured"]["names"]
    assert found["measured"]["stack"]["calls"] > 1
    assert lab.files() == {}


def test_a_module_without_a_watchdog_is_told_of(tmp_path: Path) -> None:
    found = Lab(tmp_path, Switches(watchdog=False)).only("names", "watchdog")
    assert found["switches"]["watchdog"] is False
    assert "watchdog: it did not reset the module" in found["notes"]


def test_a_module_that_starts_no_program_is_put_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    files = owned(lab)
    lab.module.interpreter = None
    result = lab.measure("--only", "names", "--seconds", "1", silence_s=0.5)
    assert result.exit_code == 4
    assert "no program spoke" in result.output
    assert "stopped; the module is as it was" in result.output
    as_it_was(lab, files)
    assert lab.found()["measured"]["names"] == {"not_started": True}


def test_stopped_by_a_person_it_puts_the_module_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path)
    files = owned(lab)

    def stop() -> None:
        assert set(lab.files()) >= {KEPT, "probe.mpy"}
        raise KeyboardInterrupt

    when(monkeypatch, "probe_parts.clock", stop)
    result = lab.measure("--only", "names", "--only", "clock", "--only", "nest")
    assert result.exit_code == 130, result.output
    assert "stopped; the module is as it was" in result.output
    as_it_was(lab, files)
    assert not lab.found()["ended"]


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module whose cable was pulled in the middle of a measurement, and the file of that."""
    lab = Lab(tmp_path_factory.mktemp("cut"))
    owned(lab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "TIMING", FAST)
        when(patch, "probe_parts.clock", lambda: setattr(lab.module.faults, "silent", True))
        result = lab.measure("--only", "clock", "--seconds", "1", silence_s=0.5)
    assert result.exit_code == 4
    assert "could not be put back" in result.output
    assert "run the same command again" in result.output
    assert lab.found()["before"]["settings"] == {"AP": "1", "BT": "0", "BD": "7", "PS": "1"}
    assert KEPT in lab.files()
    return lab.folder


def test_cut_off_the_same_command_puts_the_module_back(cut_once: Path, tmp_path: Path) -> None:
    lab = Lab(shutil.copytree(cut_once, tmp_path / "lab", symlinks=True))
    again = lab.measure("--only", "names")
    assert again.exit_code == 0, again.output
    assert "what it kept will be put back" in again.output
    as_it_was(lab, {"main.py": OWN, "main.mpy": OLDER})


def test_cut_off_the_programs_remove_their_own_start(cut_once: Path, tmp_path: Path) -> None:
    """A module that nobody puts back measures once more at most; then its main.mpy is what starts."""
    folder = shutil.copytree(cut_once, tmp_path / "lab", symlinks=True)
    (tmp_path / "own.py").write_bytes(OWN)
    (folder / "module" / "flash" / STARTER).write_bytes(STARTER_TEXT)  # as if it had been cut off before it began
    (folder / "module" / "flash" / PLAN).write_text("STEPS = 'probe_parts.clock'")
    compile_source(tmp_path / "own.py", folder / "module" / "flash" / "main.mpy", "main.py")
    printed = []
    for _ in range(2):
        module = VirtualXBee(folder / "module", interpreter=VolumeProgram(folder / "module" / "flash"))
        printed.append(b"".join(module.on_tick(tick * 0.02) for tick in range(500)))
        module.close()
    print(printed)
    assert b"@done='probe_parts.clock';" in printed[0]
    assert b"my own program" in printed[1]
    assert not {STARTER, PLAN} & {path.name for path in (folder / "module" / "flash").iterdir()}


def test_cut_off_flashing_makes_it_a_reader(cut_once: Path, tmp_path: Path) -> None:
    bench = Bench(shutil.copytree(cut_once, tmp_path / "lab", symlinks=True))
    (bench.folder / "module" / "flash" / STARTER).write_bytes(STARTER_TEXT)  # cut off before it began
    bench.link.unlink(missing_ok=True)
    done = bench.flash()
    assert done.exit_code == 0, done.output
    assert STARTER not in bench.on_module()
    assert bench.module.running
    files, settings = (
        {name: data for name, data in bench.on_module().items() if name[:5] != "probe"},
        bench.module.settings,
    )
    assert set(files) == {KEPT, "app.mpy", "config.py", "main.mpy", "wire.mpy"}
    lab = Lab(bench.folder)
    later = lab.measure("--only", "names")
    assert later.exit_code == 0, later.output
    assert lab.files() == {name: data for name, data in files.items() if name != KEPT}, (
        "not what it was before all that"
    )
    assert lab.module.settings == settings
    assert lab.module.running


def test_a_kept_main_without_its_file_is_not_lost(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.flash / KEPT).write_bytes(OWN)
    result = lab.measure("--only", "names")
    assert result.exit_code == 4
    assert "give its file with --out" in result.output.replace("\n", " ")
    assert lab.files() == {KEPT: OWN}


def test_stopped_at_its_first_command_the_module_is_on_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path)
    files = owned(lab)
    real, left = SerialLine.restart, [1]

    def restart(self: SerialLine, baud: int) -> None:
        if left:
            left.clear()
            raise KeyboardInterrupt
        real(self, baud)

    monkeypatch.setattr(SerialLine, "restart", restart)
    assert lab.measure("--only", "names").exit_code == 130
    as_it_was(lab, files)


def test_damaged_uploads_are_sent_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.module.faults.corrupt_puts = 2
    assert "gc.threshold" in lab.only("names")["measured"]["names"]
    lab.module.faults.corrupt_puts = 99
    result = lab.measure("--only", "names")
    assert result.exit_code == 4
    assert "failed 3 times" in result.output
    assert lab.files() == {}


@pytest.mark.parametrize(("left", "torn"), [(bytes(range(8)), False), (b"\0\1", True)])
def test_a_record_that_a_power_cut_left_is_looked_at(left: bytes, torn: bool, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    (lab.flash / "probe.record").write_bytes(left)
    found = lab.only("flash")
    assert found["measured"]["flash"]["left_record"] == (["ValueError"] if torn else None)
    assert any("not atomic" in note for note in found["notes"]) == torn
    assert lab.files() == {}
