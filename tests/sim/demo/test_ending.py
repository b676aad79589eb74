"""Whatever ends a run, a signal or the end of one of its parts, all that it started is gone, and one line says why."""

import asyncio
import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from readers.terminal import Exit
from sim import ending
from sim.demo import folder
from sim.demo.processes import StartError
from sim.demo.run import Demo, Options
from sim.demo.show import Show
from sim.ending import below
from tests.roots import ROOT
from tests.sim.demo.ended import Running, began

MAKE = ("make", "-C", str(ROOT), "-o", ".venv/.demo.stamp", "demo")
SMALL = ("--readers", "2", "--children", "2")
BEGUN = "run folder"
RADIO = "ZigBee network formed"
"""Lines of a start: the keys are being made; readers have power, and join next."""


@pytest.mark.parametrize(
    ("words", "number", "group", "again_s"),
    [
        ("", signal.SIGTERM, False, None),
        ("", signal.SIGINT, True, None),
        (BEGUN, signal.SIGINT, True, None),
        (RADIO, signal.SIGINT, True, 0.1),
    ],
)
def test_a_signal_at_any_stage_of_the_start_ends_everything(
    tmp_path: Path, words: str, number: signal.Signals, group: bool, again_s: float | None
) -> None:
    with Running(tmp_path, *SMALL) as run:
        run.until_heard()
        run.until(words)
        outcome = run.end(number, group=group, again_s=again_s)
        assert (outcome.code, outcome.wrong) == (Exit.ENDED, ()), run.text


def test_ctrl_c_under_make_ends_everything_and_make_says_so_itself(tmp_path: Path) -> None:
    with Running(tmp_path, *SMALL, argv=MAKE) as run:
        run.until(BEGUN)
        outcome = run.end(signal.SIGINT, group=True)
        assert outcome.wrong == ()
        assert outcome.code in (2, -signal.SIGINT), "make's own: a shell sees 2 or 130"


def test_where_the_console_is_stands_in_a_file_for_its_owner_which_the_first_line_names(tmp_path: Path) -> None:
    with Running(tmp_path, *SMALL) as run:
        run.until("broker:")
        first = run.text.splitlines()[0]
        path = Path(first.rsplit(maxsplit=1)[-1])
        assert path.name == "console.txt"
        assert path.stat().st_mode & 0o777 == 0o600
        address, name, passcode = (line.split()[-1] for line in path.read_text().splitlines())
        assert address.startswith("http://127.0.0.1:")
        assert name == folder.OPERATOR
        outcome = run.end(signal.SIGHUP)
        assert (outcome.code, outcome.wrong) == (Exit.ENDED, ()), run.text
        assert passcode not in run.text, "what a pipe gets ends in logs"
        assert not path.exists(), "it is there only while the console answers"


def living_of(started: dict[int, str]) -> list[int]:
    """Return which of these processes still live when they had 5 s to end. started: pid -> when it began."""
    deadline = time.monotonic() + 5
    while (living := [pid for pid, at in started.items() if began(pid) == at]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return living


def part_of(run: Running, words: str) -> list[int]:
    """Return the processes of a run whose command line has these words."""
    found = []
    for pid in below(run.process.pid):
        with contextlib.suppress(OSError):  # it has just ended
            if words in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def test_nothing_lives_on_when_the_demo_itself_is_killed(tmp_path: Path) -> None:
    with Running(tmp_path, *SMALL) as run:
        run.until("readers joined")  # until then a reader may not be a process yet
        started = {pid: began(pid) for pid in below(run.process.pid)}
        assert len(started) >= 4, "broker, city, gateway and a reader"
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        assert living_of(started) == []


def test_a_demo_ends_in_order_when_its_make_is_killed(tmp_path: Path) -> None:
    with Running(tmp_path, *SMALL, argv=MAKE) as run:
        run.until(RADIO)
        started = {pid: began(pid) for pid in below(run.process.pid)}
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        assert living_of(started) == []
        assert "ended by SIGTERM" in run.text


@pytest.mark.parametrize(
    ("victim", "why"), [("-m\0_boot", "its MicroPython was killed by SIGKILL"), ("ansim-city", "city ended by itself")]
)
def test_a_part_that_ends_before_the_story_ends_the_run_with_its_reason(tmp_path: Path, victim: str, why: str) -> None:
    with Running(tmp_path, *SMALL) as run:
        run.until(RADIO)
        deadline = time.monotonic() + 20  # a reader becomes a process a moment later than the network
        while not (found := part_of(run, victim)) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(found[0], signal.SIGKILL)
        assert run.process.wait(20) == Exit.FAULT
        assert why in run.text
        assert "Traceback" not in run.text


def demo_that(tmp_path: Path, start: Callable[[Demo], Coroutine[Any, Any, None]]) -> Demo:
    """Return a demo that starts nothing but this."""
    demo = Demo(Options(runs=tmp_path), Show(io.StringIO(), live=False))
    demo._start = lambda began: start(demo)  # type: ignore[method-assign]
    return demo


async def fails() -> None:
    raise KeyError("a tag that nobody has")


async def returns() -> None:
    return


async def spawn_and_wait(demo: Demo, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    demo._spawn(work(), "the clock", ends=False)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("work", "why"),
    [(fails, "the clock failed: KeyError: 'a tag that nobody has'"), (returns, "the clock ended by itself")],
)
def test_a_task_that_ends_ends_the_run_even_while_it_starts(
    tmp_path: Path, work: Callable[[], Coroutine[Any, Any, None]], why: str
) -> None:
    demo = demo_that(tmp_path, lambda demo: spawn_and_wait(demo, work))
    with pytest.raises(StartError, match=why):
        asyncio.run(demo.run())
    kept = demo.folder / "error.txt"
    assert kept.exists() == (work is fails)
    assert work is returns or "in fails" in kept.read_text(), "the traceback is kept for who looks for it"


def test_a_failure_on_the_coordinators_line_ends_the_run(tmp_path: Path) -> None:
    async def start(demo: Demo) -> None:
        asyncio.get_running_loop().call_soon(lambda: [][1])  # the line is read in callbacks of the loop
        await asyncio.Event().wait()

    with pytest.raises(StartError, match="a callback failed: IndexError"):
        asyncio.run(demo_that(tmp_path, start).run())


def test_a_task_that_ends_as_it_should_does_not_end_the_run(tmp_path: Path) -> None:
    async def start(demo: Demo) -> None:
        demo._spawn(returns(), "an answer")
        await asyncio.sleep(0)
        raise StartError("the next step")

    with pytest.raises(StartError, match="the next step"):
        asyncio.run(demo_that(tmp_path, start).run())


def test_the_code_is_that_of_every_command() -> None:
    assert ending.ENDED == Exit.ENDED
