"""The gateway's radio: unmodified bellows on an emulated stick that is reset, pulled out, replaced, deaf."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zigpy.types as zt

from gateway.core.frames import Frame
from gateway.options import Installation
from gateway.radio import admission, coordinator
from gateway.radio.coordinator import Radio, RadioGone
from readers import wire
from sim.air.mesh import link_key
from sim.ncp import ash_link, zdo
from sim.ncp.nvm import Nvm
from sim.xbee.module import install_code
from tests.gateway.box.bed import STICK, Stick, eui64, load, nwk, plugged, run, until
from tests.gateway.core.bed import Pole, advertisement

OTHER_STICK = bytes.fromhex("f4ce3600000000ff")
STRANGER, STRANGER_NWK = bytes.fromhex("0013a20041f00d99"), 0x7777


class Heard:
    """Where a radio's frames go, and its words."""

    def __init__(self, settings: Installation) -> None:
        self.frames: list[tuple[Frame, bool]] = []
        self.notices: list[tuple[str, bool, str]] = []
        self.radio = Radio(settings, self, on_health=lambda what, ok, detail: self.notices.append((what, ok, detail)))
        self.task: asyncio.Task[None]

    def frame(self, frame: Frame, urgent: bool) -> None:
        self.frames.append((frame, urgent))

    @property
    def counters(self) -> dict[str, int]:
        return self.radio.counters

    @property
    def payloads(self) -> list[bytes]:
        return [frame.payload for frame, _ in self.frames]

    async def hears(self, stick: Stick, frame: Frame) -> None:
        """Send until it arrives, as a reader does."""

        def arrived() -> bool:
            if frame.payload not in self.payloads:
                stick.hear(frame)
            return frame.payload in self.payloads

        for _ in range(100):
            if arrived():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the frame did not come through")


@asynccontextmanager
async def listening(settings: Installation, *, up: bool = True) -> AsyncIterator[Heard]:
    heard = Heard(settings)
    radio = heard.radio
    heard.task = asyncio.create_task(radio.run(lambda: None))
    workers = [asyncio.create_task(radio.run_downlinks(urgent, lambda: None)) for urgent in (True, False)]
    try:
        if up:
            await until(lambda: radio.up or heard.task.done(), "the radio")
        yield heard
    finally:
        for task in (heard.task, *workers):
            task.cancel()
        await asyncio.wait([heard.task, *workers])


def with_radio(settings: Installation, **fields: Any) -> Installation:
    """Settings that no configuration file could have."""
    radio = msgspec.structs.replace(settings.config.radio, **fields)
    object.__setattr__(settings, "config", msgspec.structs.replace(settings.config, radio=radio))
    return settings


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
    """zigpy by itself asks the whole mesh about each packet of an unknown sender: 200 packets, 200 broadcasts."""

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


def test_only_an_enrolled_reader_with_its_install_code_gets_in(tmp_path: Path) -> None:
    """bellows, left alone, lets anybody with the well-known key in for five minutes after every start."""

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick", enrolled=True)
        async with plugged(tmp_path) as stick, listening(settings) as heard:
            await until(lambda: heard.counters["admitted"] == 3, "an open network")
            assert stick.coordinator.ram.permit_until_s > asyncio.get_running_loop().time()
            end = time.monotonic() + 2.5  # bellows' own task would change the policy 2 s after the start
            while time.monotonic() < end:
                assert not stick.coordinator.join(STRANGER, STRANGER_NWK), "the well-known key opens nothing"
                await asyncio.sleep(0.1)
            wrong = link_key(install_code(STRANGER))
            assert not stick.coordinator.join(eui64(1), nwk(1), link_key=wrong)
            right = link_key(install_code(eui64(1)))
            node = zdo.xbee(eui64(1), nwk(1))
            assert stick.coordinator.join(eui64(1), nwk(1), link_key=right, node=node)
            await until(lambda: heard.radio.address_of(1) == nwk(1), "its address")
            assert heard.radio.address_of(2) is None

    run(story)


def test_a_reader_silent_for_long_is_let_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "OUT_S", 0.3)
    monkeypatch.setattr(admission, "LOOK_S", 0.05)
    monkeypatch.setattr(admission, "OPEN_S", 20)

    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick", enrolled=True)
        async with plugged(tmp_path), listening(settings) as heard:
            await until(lambda: heard.counters["admitted"] == 3, "a network open to all three")
            for number in (1, 2, 3):
                heard.radio.learn(number, nwk(number))  # a frame of each: nobody is out
            await until(lambda: heard.counters["admitted"] == 6, "all silent again, and let in again", 5)

    run(story)


@pytest.mark.parametrize("dead", [False, True], ids=["RSTACK", "ERROR"])
def test_a_stick_that_resets_itself_is_back_with_the_next_frames(tmp_path: Path, dead: bool) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            pole = Pole(1)
            await heard.hears(stick, pole.beat())
            network = stick.coordinator.nvm.network
            stick.coordinator.crash(ash_link.RESET_WATCHDOG, dead=dead)
            await until(lambda: heard.counters["starts"] == 2 and heard.radio.up, "the second start")
            await heard.hears(stick, pole.beat())
            assert stick.coordinator.nvm.network == network
            assert [ok for what, ok, _ in heard.notices if what == "radio"] == [True, False, True]

    run(story)


def test_a_stick_pulled_out_and_plugged_in_again_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            pole = Pole(1)
            await heard.hears(stick, pole.beat())
            await stick.unplug()
            await until(lambda: not heard.radio.up, "the loss")
            heard.radio.send(1, b"into the void", True)
            await until(lambda: heard.counters["send_unrouted"] == 1, "a downlink that has no way")
            await until(lambda: heard.counters["start_failures"], "a start without a stick")
            await stick.plug()
            await until(lambda: heard.radio.up, "the stick again")
            await heard.hears(stick, pole.beat())
            words = [detail for what, ok, detail in heard.notices if what == "radio" and not ok]
            assert all(str(stick.path) in text and "check plug and power" in text for text in words)

    run(story)


def test_a_word_for_a_lamp_waits_for_a_stack_that_is_starting(tmp_path: Path) -> None:
    """After a restart cries come in before the stack can send; a routine word is left to its repetition."""

    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path), up=False) as heard:
            heard.radio.learn(1, nwk(1))
            heard.radio.send(1, b"received", True)
            heard.radio.send(1, b"routine", False)
            await until(lambda: heard.counters["send_unrouted"] == 1, "the routine word's end")
            assert not heard.radio.up
            await until(lambda: heard.counters["sent"], "the word")
            assert [m.payload for m in stick.unicasts] == [b"received"]

    run(story)


def test_a_blank_stick_takes_over_the_network_of_the_one_that_died(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path, tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            old = stick.nvm
            async with listening(settings) as heard:
                await heard.hears(stick, Pole(1).beat())
                await until(lambda: heard.radio._app.backups.most_recent_backup(), "a backup")
            await stick.unplug()
            await stick.plug(Nvm(OTHER_STICK))
            async with listening(settings) as heard:
                new = stick.nvm
                assert new is not old
                assert (new.network, new.network_key, new.own_eui64) == (old.network, old.network_key, STICK)
                assert new.nwk_frame_counter > old.nwk_frame_counter
                assert stick.hear(Pole(1, boot=2).beat()), "it knows the readers' endpoint at once"
                await until(lambda: heard.frames, "the frame")

    run(story)


def test_a_stick_of_another_network_is_refused_with_the_next_step(tmp_path: Path) -> None:
    async def story() -> None:
        settings = load(tmp_path / "one", tmp_path / "stick")
        async with plugged(tmp_path) as stick:
            async with listening(settings) as heard:
                await until(lambda: heard.radio._app.backups.most_recent_backup(), "a backup")
            await stick.unplug()
            await stick.plug(Nvm(OTHER_STICK))
            async with listening(load(tmp_path / "two", stick.path)):
                pass  # another gateway forms its own network on it
            network = stick.nvm.network
            async with listening(settings, up=False) as heard:
                await until(lambda: heard.notices, "a word")
                what, ok, detail = heard.notices[0]
                assert (what, ok) == ("radio", False)
                assert "belongs to another network" in detail
                assert "put the old stick back" in detail
            assert stick.nvm.network == network, "nothing was written to it"

    run(story)


def test_downlinks_go_where_the_readers_frame_came_from_and_failures_are_counted(tmp_path: Path) -> None:
    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            stick.fate = lambda message: message.payload != b"lost"
            heard.radio.send(1, b"nobody knows where", True)
            await until(lambda: heard.counters["send_unrouted"] == 1, "the one without an address")
            heard.radio.learn(1, nwk(1))
            for payload in (b"lost", b"good", b"lost"):
                heard.radio.send(1, payload, True)
            heard.radio.send(1, b"routine", False)
            await until(lambda: heard.counters["sent"] == 2 and heard.counters["send_failed"] == 2, "their fates")
            assert {(m.nwk, m.payload) for m in stick.unicasts} == {
                (nwk(1), b"lost"), (nwk(1), b"good"), (nwk(1), b"routine"),
            }  # fmt: skip
            assert all(
                (m.cluster_id, m.destination_endpoint, m.wants_ack) == (0x11, 0xE8, True) for m in stick.unicasts
            )

    run(story)


def test_downlinks_that_pile_up_are_dropped_oldest_first_and_counted(tmp_path: Path) -> None:
    async def story() -> None:
        radio = Heard(load(tmp_path, tmp_path / "nothing")).radio
        for n in range(coordinator.DOWN_MAX + 3):
            radio.send(1, bytes((n % 256,)), False)
        assert radio.counters["send_dropped"] == 3
        assert radio._down[False][0] == (1, bytes((3,)))

    run(story)


def test_a_hung_stick_does_not_hold_the_next_downlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "SEND_MAX_S", 0.2)

    async def story() -> None:
        async with plugged(tmp_path) as stick, listening(load(tmp_path, stick.path)) as heard:
            heard.radio.learn(1, nwk(1))
            stick.coordinator.hung = True
            for _ in range(3):
                heard.radio.send(1, b"x", True)
            await until(lambda: heard.counters["send_failed"] == 3, "all three given up", 5)

    run(story)


def test_a_stick_that_hears_nobody_is_started_anew_ever_more_seldom(tmp_path: Path) -> None:
    async def story() -> None:
        settings = with_radio(load(tmp_path, tmp_path / "stick"), deaf_after_s=1)
        async with plugged(tmp_path) as stick, listening(settings) as heard:
            stick.coordinator.deaf = True
            await until(lambda: heard.counters["restarts"] == 1, "the first restart")
            assert heard.radio._deaf_s == 2
            assert "no reader was heard" in heard.notices[-1][2]
            stick.coordinator.deaf = False
            await until(lambda: heard.counters["starts"] == 2 and heard.radio.up, "the second start")
            await heard.hears(stick, Pole(1).beat())
            await until(lambda: heard.radio._deaf_s == 1, "trust in the radio")
            assert heard.counters["start_failures"] == 0

    run(story)


def test_without_a_stick_the_process_gives_up_after_many_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "FAILURES_MAX", 3)
    monkeypatch.setattr(coordinator, "BACKOFF_MAX_S", 0.05)

    async def story() -> None:
        async with listening(load(tmp_path, tmp_path / "nothing"), up=False) as heard:
            await until(heard.task.done, "the end")
            with pytest.raises(RadioGone, match="after 3 tries"):
                heard.task.result()
            assert heard.counters["start_failures"] == 3
            assert len(heard.notices) == 1, "one fault, one word"
            assert "check plug and power" in heard.notices[0][2]

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
                await asyncio.Event().wait()  # bellows waits so for a thread that has ended

            monkeypatch.setattr(ezsp, "disconnect", stuck)
            heard.radio.restart("test")
            await until(lambda: heard.counters["starts"] == 2 and heard.radio.up, "the second start", 5)
            await heard.hears(stick, Pole(1).beat())
            assert heard.counters["start_failures"] == 0

    run(story)


def test_a_readers_address_changes_with_its_frames(tmp_path: Path) -> None:
    async def story() -> None:
        radio = Heard(load(tmp_path, tmp_path / "nothing")).radio
        assert radio.address_of(1) is None
        assert radio.address_of(99) is None
        radio.learn(1, 0x1234)
        radio.learn(1, 0x4321)
        assert radio.address_of(1) == 0x4321
        assert radio.hex_of(zt.EUI64(STICK[::-1])) == STICK.hex()

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
