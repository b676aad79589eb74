"""The gateway process: its start and end, its signs of life, and health reports when it loses and finds the stick."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.box import daemon
from gateway.box.daemon import Daemon
from gateway.events import Bell
from gateway.radio import coordinator
from tests.gateway.box.bed import LOG, load, of, plugged, rows, running, told
from tests.gateway.core.bed import Pole
from tests.waiting import run, until


def test_losing_the_stick_and_finding_it_is_told_to_the_city(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            await stick.unplug()
            await until(lambda: not gateway.radio.up, "the loss")
            await stick.plug()
            await until(lambda: gateway.radio.up, "the stick again")
            await until(lambda: [e.ok for e in told(settings, "radio")] == [True, False, True], "three words")

    run(story)


def test_a_store_that_is_taken_away_is_told_to_the_city_and_one_that_is_lost_with_its_numbers(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        store = settings.folder / "sos.db"
        async with running(settings, radio_up=False) as gateway:
            gateway.frame(Pole(2).bell(number=1), True)
            await until(lambda: of(Bell, rows(settings.folder, "sos")), "the first bell")
            Path(f"{store}-wal").unlink()
            gateway.frame(Pole(2, boot=2).bell(number=2), True)
            await until(lambda: told(settings, "sos_store_lost"), "the word about the log")
            assert "sos.db-wal was removed under a running gateway" in told(settings, "sos_store_lost")[0].detail
            await until(lambda: len(of(Bell, rows(settings.folder, "sos"))) == 2, "both bells, read from the disk")
            epoch, last = gateway.outbox.sos.epoch, gateway.outbox.sos.store.last_seq
        store.unlink()
        async with running(settings, radio_up=False) as gateway:
            await until(lambda: told(settings, "sos_store_rolled_back"), "the word about the file")
            detail = told(settings, "sos_store_rolled_back")[0].detail
            assert f"rows 1 to {last} of epoch {epoch} are gone" in detail
            assert gateway.outbox.sos.backlog == 1, "one row, for which the city opens an incident"

    run(story)


def test_without_a_stick_the_gateway_ends_so_that_all_of_it_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "FAILURES_MAX", 2)
    monkeypatch.setattr(coordinator, "BACKOFF_MAX_S", 0.05)

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "nothing")
        assert await Daemon(settings).run() == 3
        assert [event.ok for event in told(settings, "radio")] == [False]
        [last] = told(settings, "failed")
        assert "code 3" in last.detail

    run(story)


def test_a_core_that_stands_still_is_not_called_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[str] = []
    monkeypatch.setattr(daemon, "notify", words.append)
    monkeypatch.setattr(daemon, "watchdog_s", lambda: 0.03)
    monkeypatch.setitem(daemon.BEAT_MAX_S, "core", 1.5)  # an idle core makes a turn of its loop every second

    async def story() -> None:
        async with running(load(tmp_path, tmp_path / "stick"), radio_up=False) as gateway:
            await until(lambda: words.count("WATCHDOG=1") > 3, "signs of life")
            go_on = asyncio.Event()
            commit = gateway.outbox.commit_emergency

            async def slow(*arguments: Any) -> int:
                await go_on.wait()  # a disk that neither accepts nor refuses a write
                return await commit(*arguments)

            gateway.outbox.commit_emergency = slow  # type: ignore[method-assign]
            gateway.frame(Pole(2).bell(), True)
            await until(lambda: '"loops": "core"' in LOG.getvalue(), "the word in the log")
            alive = words.count("WATCHDOG=1")
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert words.count("WATCHDOG=1") == alive
            go_on.set()
            await until(lambda: words.count("WATCHDOG=1") > alive, "life again")

    run(story)


def test_a_stick_in_trouble_does_not_keep_the_gateway_from_stopping(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with running(settings) as gateway:
                gateway.radio.learn(1, 0x1001)
                stick.coordinator.hung = True
                gateway.radio.send(1, b"x", True)
                await until(lambda: stick.coordinator.drop_counts["commands_while_hung"], "a command without an answer")
                began_s = time.monotonic()
            assert time.monotonic() - began_s < 5

    run(story)
