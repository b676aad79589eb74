"""An ordinary ZigBee button in a reader's place: its alarm is on disk, and on its way, before it is told "success"."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.box import runner
from gateway.box.daemon import Daemon
from gateway.events import UNKNOWN_BUTTON, Sos
from gateway.options import Installation
from gateway.outbox.lane_file import NotCommitted
from gateway.radio.coordinator import Radio
from sim.ncp.messages import Unicast
from tests.gateway.box.bed import eui64, load, of, plugged, rows, running, told
from tests.gateway.box.bed_button import IAS_ACE, IAS_WD, IAS_ZONE, Button
from tests.waiting import run, until

ALARM = 0x0001
NWK = 0x4B1D


@asynccontextmanager
async def joined(folder: Path) -> AsyncIterator[tuple[Button, Daemon, Installation]]:
    """A gateway, and a button that joined under the EUI64 of reader 2 and was interviewed by bellows."""
    settings = load(folder, folder / "stick", enrolled=True)
    async with plugged(folder) as stick, running(settings) as gateway:
        button = Button(stick, eui64(2), NWK)
        await until(lambda: gateway.radio.counters["admitted"] == 3, "an open network")
        assert button.join()
        await until(lambda: gateway.radio.address_of(2) == NWK, "its address")

        def interviewed() -> bool:
            device: Any = next(d for d in gateway.radio._app.devices.values() if d.nwk == NWK)
            return bool(device.is_initialized)

        await until(interviewed, "the interview")
        yield button, gateway, settings


def cries(settings: Installation) -> list[Sos]:
    return of(Sos, rows(settings.folder, "sos"))


def test_zigpy_alone_says_success_to_an_alarm_that_nobody_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an ordinary stack does, and the gateway did: the reason for all of this."""
    monkeypatch.setattr(Radio, "take_button", lambda self, packet: False)

    async def story() -> None:
        async with joined(tmp_path) as (button, _, settings):
            assert button.status(ALARM)
            await until(button.answers, "an answer")
            assert button.answers() == [(button.sequence, 0x00, 0x00)]
            assert cries(settings) == []

    run(story)


def test_a_button_in_a_readers_place_opens_an_alarm_and_only_then_is_told_success(tmp_path: Path) -> None:
    async def story() -> None:
        async with joined(tmp_path) as (button, _, settings):
            on_disk: list[int] = []
            interview = button.stick.fate

            def fate(message: Unicast) -> bool:
                if message.cluster_id == IAS_ZONE:
                    on_disk.append(len(cries(settings)))
                return interview(message)

            button.stick.fate = fate
            assert button.status(ALARM)
            await until(button.answers, "an answer")
            assert button.answers() == [(button.sequence, 0x00, 0x00)]
            assert on_disk == [1], "on disk before the answer"
            [event] = cries(settings)
            assert event.tag == f"{UNKNOWN_BUTTON} 0002, enrolled as reader 2"
            assert (event.trust, event.revision, event.press, event.drill) == ("unverified", 0, 1, False)
            assert (event.readers, event.where) == ((), None), "nobody knows where it is"
            await until(lambda: told(settings, "unknown_button"), "the word to the operator")
            assert "device 0002 says alarm, and is no reader" in told(settings, "unknown_button")[0].detail

    run(story)


def test_what_is_no_alarm_opens_nothing_and_each_command_that_is_one_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with joined(tmp_path) as (button, gateway, settings):
            for bits in (0x0000, 0x0004, 0x0008, 0x0010, 0x0020, 0x0040, 0x03FC):  # tamper, battery, supervision, ..
                assert button.status(bits)
            assert button.says(b"", IAS_ACE, control=0x01, command=0x07)  # how is the panel?
            await until(lambda: gateway.radio.counters["buttons_quiet"] == 8, "all of them")
            await until(lambda: len(button.answers()) >= 7, "bellows' own answers")
            assert cries(settings) == []
            assert button.says(b"", IAS_ACE, control=0x01, command=0x02)  # emergency
            await until(lambda: len(cries(settings)) == 1, "the alarm")
            assert button.says(b"\x34\x00", IAS_WD, control=0x01, command=0x00)  # sound the siren, mode 3
            assert button.says(b"\x02\x00\x19\x02\x00", command=0x0A, control=0x18)  # a report of its status, alarm 2
            await until(lambda: gateway.radio.counters["buttons"] == 3, "the others")
            await until(lambda: len(cries(settings)) == 2, "the revision with two")
            assert {event.alarm for event in cries(settings)} == {cries(settings)[0].alarm}, "one device, one minute"

    run(story)


def test_a_button_is_not_told_success_while_no_disk_takes_its_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with joined(tmp_path) as (button, gateway, settings):
            good = gateway.outbox.sos.commit

            async def refuse(*_: Any) -> list[int]:
                raise NotCommitted("the disk is gone")

            monkeypatch.setattr(gateway.outbox.sos, "commit", refuse)
            assert button.status(ALARM)
            await until(lambda: gateway.runner.counters["steps_cut"] == 1, "the try")
            assert gateway.outbox.ring.backlog == 1, "the city hears it all the same"
            assert button.status(ALARM, again=True)
            await until(lambda: gateway.runner.counters["steps_cut"] == 2, "the second try")
            assert gateway.outbox.ring.backlog == 1, "one press"
            assert button.answers() == []
            monkeypatch.setattr(gateway.outbox.sos, "commit", good)
            assert button.status(ALARM, again=True)
            await until(button.answers, "an answer")
            assert len({event.alarm for event in cries(settings)}) == 1

    run(story)


def test_a_button_that_zigpy_does_not_know_is_heard_and_a_broadcast_alarm_too(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            button = Button(stick, eui64(77), 0x1234)
            assert button.status(ALARM)
            await until(lambda: cries(settings), "the alarm")
            assert cries(settings)[0].tag == f"{UNKNOWN_BUTTON} at 1234"
            await until(button.answers, "an answer")
            assert gateway.radio.counters["unknown_senders"] == 1
            fields: dict[str, Any] = {"nwk": 0x1235, "profile_id": 0xC105, "cluster_id": IAS_ZONE}
            endpoints: dict[str, Any] = {"source_endpoint": 0xE8, "destination_endpoint": 0xE8}
            assert stick.coordinator.receive(
                **fields, **endpoints, payload=b"\x09\x01\x00\x01\x00", lqi=1, rssi_dbm=-90
            )
            await until(lambda: len(cries(settings)) == 2, "of any profile")
            assert stick.coordinator.receive(**fields, **endpoints, payload=b"\x09", lqi=1, rssi_dbm=-90)
            await until(lambda: gateway.radio.counters["buttons_malformed"] == 1, "the torn frame")

    run(story)


def test_a_flood_of_one_button_makes_one_incident_and_delays_no_cry(tmp_path: Path) -> None:
    async def story() -> None:
        async with joined(tmp_path) as (button, gateway, settings):
            done, taken = gateway.radio.counters, 0

            def through() -> bool:
                return done["buttons"] == taken

            while taken < 300:
                taken += button.status(ALARM)
                with contextlib.suppress(AssertionError):
                    await until(through, "the frame", 0.05)
            await until(lambda: not gateway.runner._buttons and done["buttons"] == 300, "the flood's end")
            events = cries(settings)
            assert len({event.alarm for event in events}) == 1
            assert [event.press for event in events] == [2**n for n in range(len(events))]
            assert len(events) <= 9
            assert gateway.runner.counters["buttons_dropped"] < 300 - runner.BUTTONS_EACH_MAX

    run(story)
