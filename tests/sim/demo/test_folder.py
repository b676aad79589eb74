"""A run holds its folder, so no other start removes it; a disk without room is told before a run, and at once in it."""

import asyncio
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.__main__ import app
from sim.demo import folder
from sim.demo.processes import Program, StartError
from sim.demo.run import Demo, Options
from sim.demo.show import Show


def names(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.iterdir())


def free(monkeypatch: pytest.MonkeyPatch, free_b: int) -> None:
    """Let so much be free on every disk."""
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free_b // 4096, f_frsize=4096))


def test_run_folders_are_private_and_only_the_newest_stay(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"demo-2020010{n + 1}-000000").mkdir()
    kept = ["demo-20200101-000000.kept", "demo-20200101-000000-mine", "mine"]
    for name in kept:
        (tmp_path / name).mkdir()
    with folder.made(tmp_path) as made:
        assert made.stat().st_mode & 0o077 == 0
        assert names(tmp_path) == sorted(["demo-20200104-000000", "demo-20200105-000000", made.name, *kept])


def test_the_folder_of_a_demo_that_runs_stays_however_many_start_after_it(tmp_path: Path) -> None:
    with folder.made(tmp_path) as first:
        (first / "outbox").write_text("a cry")
        later = []
        for _ in range(5):
            with folder.made(tmp_path) as made:
                later.append(made)
        assert (first / "outbox").read_text() == "a cry"
        assert [path.exists() for path in later] == [False, False, True, True, True], "three stay, and the first"
    with folder.made(tmp_path):
        assert not first.exists(), "nobody holds it any more"


def test_the_folder_of_another_process_stays_until_that_is_killed(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from sim.demo import folder
with folder.made(Path({str(tmp_path)!r})) as made:
    print(made, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        held = Path(other.stdout.readline().strip())
        with folder.made(tmp_path, kept=1):
            assert held.exists()
        folder.write_console(held, "http://127.0.0.1:1/", "passcode")
        with folder.made(tmp_path):
            assert (held / folder.CONSOLE).exists()
        other.kill()
    with folder.made(tmp_path, kept=9):
        assert held.exists()
        assert not (held / folder.CONSOLE).exists(), "no console answers there"
    with folder.made(tmp_path, kept=1) as made:
        assert names(tmp_path) == [made.name]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with (
        pytest.raises(StartError, match=r"cannot make a folder.*choose one with --runs"),
        folder.made(tmp_path / "run"),
    ):
        pass


def test_a_run_that_has_no_room_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 30_000_000)
    result = CliRunner().invoke(app, ["demo", "--runs", str(tmp_path / "run")])
    assert result.exit_code == 6
    assert f"{tmp_path / 'run'}: 30 MB are free, a run needs 100 MB; make room there" in result.output
    assert names(tmp_path / "run") == []


def test_the_watch_ends_a_run_whose_disk_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = Demo(Options(runs=tmp_path), Show(io.StringIO(), live=False))
    demo.folder = tmp_path
    free(monkeypatch, 5_000_000)
    with pytest.raises(folder.DiskFull, match=rf"the disk is full: 5 MB are free for {tmp_path}; make room there"):
        asyncio.run(asyncio.wait_for(demo._watching(), 5))


def test_the_watch_ends_a_run_of_which_a_program_has_ended(tmp_path: Path) -> None:
    def ended() -> None:
        raise StartError("city ended by itself (exit 6)")

    demo = Demo(Options(runs=tmp_path), Show(io.StringIO(), live=False))
    demo.folder = tmp_path
    programs: Any = {"broker": SimpleNamespace(check=lambda: None), "city": SimpleNamespace(check=ended)}
    demo.programs = programs
    with pytest.raises(StartError, match="city ended by itself"):
        asyncio.run(asyncio.wait_for(demo._watching(), 5))


def test_of_two_reasons_to_end_the_first_is_told(tmp_path: Path) -> None:
    """The second usually follows from the first: the gateway loses its broker because that was killed."""
    demo = Demo(Options(runs=tmp_path), Show(io.StringIO(), live=False))
    first = StartError("broker ended by itself")
    demo._end_with(first)
    demo._end_with(StartError("gateway ended by itself"))
    assert demo._why is first


def test_whatever_fails_on_a_full_disk_the_disk_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = Demo(Options(runs=tmp_path), Show(io.StringIO(), live=False))
    demo.folder = tmp_path
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "gateway.log"))
    assert f"0 MB are free for {tmp_path / 'gateway.log'}" in str(demo._reason("a task", error))
    ended = StartError("city ended by itself (exit 6)\nits last lines")
    assert demo._reason("the run", ended) is ended
    free(monkeypatch, 300_000)
    assert isinstance(demo._reason("the run", ended), folder.DiskFull)


def test_output_of_a_program_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    async def story() -> None:
        program = Program("city", [sys.executable, "-c", "print('words')"], tmp_path / "nowhere" / "log")
        await program.start()
        try:
            reader: Any = program._reader
            await asyncio.wait([reader])
            with pytest.raises(FileNotFoundError):
                program.check()
        finally:
            await program.stop()

    asyncio.run(story())


def test_the_console_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = folder.write_console(tmp_path, "http://127.0.0.1:8080/", "word")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "address   http://127.0.0.1:8080/\nname      desk\npasscode  word\n"
