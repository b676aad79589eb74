"""The radio: unmodified bellows on an emulated stick takes readers' frames only, and starts and stops cleanly."""

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.core.frames import Frame
from gateway.radio import coordinator
from readers import wire
from tests.gateway.box.bed import eui64, load, nwk, plugged
from tests.gateway.core.bed import Pole, advertisement
from tests.gateway.radio.bed import listening
from tests.waiting import run, until


def test_the_very_first_start_on_a_blank_stick_hears_readers_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            frame = Pole(1).beat()
            assert stick.hear(frame), "the stick knows the readers' endpoint"
            await until(lambda: heard.frames, "the frame")
            assert heard.frames == [(Frame(nwk(1), 200, -60, frame.payload), False)]
            assert heard.counters["starts"] == 1
            assert stick.coordinator.nvm.network is not None
            assert stick.coordinator.nvm.network.channel == 15

    run(story)


def test_cries_and_bells_are_urgent_before_anything_else_is_known_of_them(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            pole = Pole(1)
            sent = [pole.beat(), pole.sos(advertisement(flags=wire.FLAG_SOS)), pole.bell()]
            forged = bytes((wire.VERSION << 4 | wire.SOS,)) + bytes(40)
            for frame in (*sent, Frame(0x2222, 1, -90, forged)):
                assert stick.hear(frame)
            await until(lambda: len(heard.frames) == 4, "all four")
            assert [urgent for _, urgent in heard.frames] == [False, True, True, True]

    run(story)


def test_what_is_not_a_readers_frame_is_not_taken_for_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            pole = Pole(1)
            assert stick.hear(pole.beat(), destination_endpoint=0xE6)
            assert stick.hear(pole.beat(), cluster_id=0x92)
            assert stick.hear(pole.beat(), cluster_id=0x92, payload=b"")
            await heard.hears(stick, pole.beat())
            assert len(heard.frames) == 1
            assert heard.counters["other_packets"] == 3

    run(story)


def test_strangers_cost_one_broadcast_not_one_each(tmp_path: Path) -> None:
    """zigpy alone asks the whole mesh about each packet from an unknown sender: 200 packets, 200 broadcasts."""

    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            await until(lambda: stick.coordinator.nvm.network and not heard.radio._app._tasks, "a quiet stack", 5)
            before = len(stick.broadcasts)
            pole = Pole(1)
            for n in range(100):
                stick.hear(pole.beat(), nwk=0x3000 + n)
                stick.hear(pole.beat(), nwk=0x4000 + n, profile_id=0x0104, cluster_id=0x0500, destination_endpoint=1)
                stick.coordinator.route_record(0x5000 + n, eui64(900 + n), [], lqi=200, rssi_dbm=-60)
                await until(
                    lambda n=n: heard.counters["unknown_senders"] == n + 1, "the stranger"
                )  # a stick's buffers are few
            await until(lambda: heard.counters["look_ups_saved"] == 199, "the look-ups that were not made")
            await until(lambda: len(heard.frames) == 100, "the readers' frames")
            assert len(stick.broadcasts) - before <= 1
            assert heard.counters["look_ups"] == 1

    run(story)


@pytest.mark.parametrize("damage", ["no database at all", "a torn page"])
def test_a_broken_database_is_set_aside_and_the_network_stays(tmp_path: Path, damage: str) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with listening(settings) as heard:
                await heard.hears(stick, Pole(1).beat())
            network = stick.nvm.network
            data = settings.database.read_bytes()
            torn = b"not a database" if damage == "no database at all" else data[:4096] + b"\xff" * (len(data) - 4096)
            settings.database.write_bytes(torn)
            async with listening(settings) as heard:
                await heard.hears(stick, Pole(1, boot=2).beat())
                assert stick.nvm.network == network
                assert heard.counters["databases_set_aside"] == 1
                assert settings.database.with_name("zigbee.db.aside").read_bytes() == torn
                assert [what for what, ok, _ in heard.notices if not ok] == ["zigbee_database", "radio"]

    run(story)


def test_a_disk_that_takes_nothing_makes_no_box_deaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake of the disk: SQLite opens no database on one that is read-only, or so full that its WAL cannot grow."""
    memory, bad = tmp_path / "memory", [False]
    memory.mkdir()
    monkeypatch.setattr(coordinator, "MEMORY", str(memory))
    connect = sqlite3.connect

    def connected(path: Any, *words: Any, **options: Any) -> Any:
        if bad[0] and memory not in Path(path).parents:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(path, *words, **options)

    monkeypatch.setattr(sqlite3, "connect", connected)

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with listening(settings) as heard:
                await heard.hears(stick, Pole(1).beat())
            network, bad[0] = stick.nvm.network, True
            async with listening(settings) as heard:
                await heard.hears(stick, Pole(1, boot=2).beat())
                assert stick.nvm.network == network
                told = [detail for what, ok, detail in heard.notices if what == "zigbee_database" and not ok]
                assert len(told) == 1
                assert "a copy in memory is used; look at this disk" in told[0]
                [copy] = memory.iterdir()
                assert copy.stat().st_mode & 0o777 == 0o700
                bad[0] = False
                heard.radio.restart("test")
                await until(lambda: heard.counters["starts"] == 2 and heard.radio.up, "the disk is tried again", 5)
                assert list(memory.iterdir()) == []
                words = [ok for what, ok, _ in heard.notices if what == "zigbee_database"]
                assert words == [False, True], "it is reported that the disk is good again"

    run(story)


def test_without_a_database_no_other_network_is_made_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "MEMORY", str(tmp_path))

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        settings.database.mkdir()  # SQLite cannot open it, and there is nothing to copy
        async with plugged(tmp_path) as stick, listening(settings, up=False) as heard:
            await until(lambda: heard.counters["start_failures"] >= 2, "two tries", 10)
            assert not stick.coordinator.nvm.network
            assert not list(tmp_path.glob("ansim-*"))

    run(story)


def test_a_serial_line_that_cannot_be_closed_does_not_lock_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "DISCONNECT_MAX_S", 0.2)

    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            ezsp = heard.radio._app._ezsp
            disconnect = ezsp.disconnect

            async def stuck() -> None:
                await disconnect()
                await asyncio.Event().wait()  # bellows waits like this for a thread that has ended

            monkeypatch.setattr(ezsp, "disconnect", stuck)
            heard.radio.restart("test")
            await until(lambda: heard.counters["starts"] == 2 and heard.radio.up, "the second start", 5)
            await heard.hears(stick, Pole(1).beat())
            assert heard.counters["start_failures"] == 0

    run(story)


def test_stopping_in_the_middle_of_a_start_is_quick(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick:
            stick.line.faults.mute = True
            async with listening(load(tmp_path, stick.path), up=False) as heard:
                await until(lambda: stick.coordinator.drop_counts or True, "a try")
                await asyncio.sleep(0.3)
                began = time.monotonic()
                heard.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await heard.task
                assert time.monotonic() - began < 5

    run(story)
