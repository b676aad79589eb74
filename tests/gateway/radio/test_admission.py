"""Only enrolled readers join the network, each with its own install code; after a long silence they may join again."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway.radio import admission
from sim.air.mesh import link_key
from sim.ncp import zdo
from sim.xbee.module import install_code
from tests.gateway.box.bed import eui64, load, nwk, plugged
from tests.gateway.radio.bed import listening
from tests.waiting import run, until

STRANGER, STRANGER_NWK = bytes.fromhex("0013a20041f00d99"), 0x7777


def test_only_an_enrolled_reader_with_its_install_code_gets_in(tmp_path: Path) -> None:
    """bellows alone lets any device with the well-known key join for five minutes after every start."""

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
                heard.radio.learn(number, nwk(number))  # a frame of each: no reader counts as out
            await until(lambda: heard.counters["admitted"] == 6, "all silent again, and let in again", 5)

    run(story)
