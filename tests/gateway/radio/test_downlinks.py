"""Downlinks go to the address of the reader's last frame; each that is lost or dropped is counted, none blocks."""

from pathlib import Path

import pytest
import zigpy.types as zt
from bellows.types import EmberStatus, sl_Status
from zigpy.exceptions import DeliveryError

from gateway.radio import coordinator
from tests.gateway.box.bed import STICK, load, nwk, plugged
from tests.gateway.radio.bed import Heard, listening
from tests.waiting import run, until


def test_a_word_for_a_lamp_waits_for_a_stack_that_is_starting(tmp_path: Path) -> None:
    """After a restart, cries arrive before the stack can send. A routine message is dropped: the core repeats it."""

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
            assert sorted(heard.ends) == [(1, False), (1, False), (1, True), (1, True)], "none of the one never sent"

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
            assert heard.ends == [], "the stick's own fault says nothing of the reader"

    run(story)


@pytest.mark.parametrize(
    ("error", "undelivered"),
    [
        (DeliveryError("no acknowledgement", EmberStatus.DELIVERY_FAILED), True),
        (DeliveryError("no acknowledgement", sl_Status.ZIGBEE_DELIVERY_FAILED), True),
        (DeliveryError("not taken", EmberStatus.NETWORK_BUSY), False),
        (DeliveryError("not taken", EmberStatus.MAX_MESSAGE_LIMIT_REACHED), False),
        (DeliveryError("already pending"), False),
        (TimeoutError(), False),
    ],
)
def test_only_a_frame_that_was_sent_in_vain_is_undelivered(error: Exception, undelivered: bool) -> None:
    assert coordinator._is_undelivered(error) is undelivered


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
