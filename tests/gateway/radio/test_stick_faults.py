"""A stick that resets, is pulled out, replaced, deaf or missing: the radio starts again, or says the next step."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.options import Installation
from gateway.radio import coordinator
from gateway.radio.coordinator import RadioGone
from sim.ncp import ash_link
from sim.ncp.nvm import Nvm
from tests.gateway.box.bed import STICK, load, plugged
from tests.gateway.core.bed import Pole
from tests.gateway.radio.bed import listening
from tests.waiting import run, until

OTHER_STICK = bytes.fromhex("f4ce3600000000ff")


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


def with_radio(settings: Installation, **fields: Any) -> Installation:
    """Set radio options to values that no configuration file may have."""
    radio = msgspec.structs.replace(settings.config.radio, **fields)
    object.__setattr__(settings, "config", msgspec.structs.replace(settings.config, radio=radio))
    return settings


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
            pole = Pole(1)

            def trusts() -> bool:
                stick.hear(pole.beat())  # all the time: one beat could be a second old again at the next look
                return heard.radio._deaf_s == 1

            await until(trusts, "trust in the radio")
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
