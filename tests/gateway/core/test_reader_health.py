"""Readers that send, readers that fall silent, frames from unknown senders: reported, but not too often."""

import pytest

from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.core.reader_health import NOISE_MAX, NOISE_S, OK_S, OLD_BOOTS, SILENT_S
from gateway.events import GatewayHealth, ReaderHealth
from readers import wire
from tests.gateway.core.bed import READERS, Pole, Shell, acks, events


def test_a_heartbeat_is_acknowledged_and_told_of_once_in_five_minutes() -> None:
    shell, pole = Shell(), Pole(3)
    [first] = events(shell.frame(pole.beat(uptime_s=60, tags=7, temperature_c=-9)), ReaderHealth)
    assert (first.reader, first.state) == (3, "ok")
    assert set(first.counters) == set(wire.HEARTBEAT_FIELDS)
    assert (first.counters["tags"], first.counters["temperature_c"]) == (7, -9)
    assert acks(shell.wait(1), pole) == [(0, [1])]
    told = 0
    for n in range(20):
        told += len(events(shell.frame(pole.beat(uptime_s=120 + 60 * n), later_s=60), ReaderHealth))
    assert told == 20 * 60 // OK_S


@pytest.mark.parametrize(
    ("was", "now", "news"),
    [
        ({"uptime_s": 100}, {"uptime_s": 160}, False),
        ({"uptime_s": 100, "evictions": 5}, {"uptime_s": 160, "evictions": 6}, False),
        ({"uptime_s": 100, "evictions": 5}, {"uptime_s": 160, "evictions": 50}, True),
        ({"uptime_s": 100, "discards": 65530}, {"uptime_s": 160, "discards": 20}, True),
        ({"uptime_s": 100, "refused": 65530}, {"uptime_s": 160, "refused": 2}, False),
        ({"uptime_s": 9999}, {"uptime_s": 5}, True),
    ],
)
def test_what_got_worse_is_told_at_once(was: dict[str, int], now: dict[str, int], news: bool) -> None:
    shell, pole = Shell(), Pole(3)
    shell.frame(pole.beat(**was))
    assert len(events(shell.frame(pole.beat(**now), later_s=60), ReaderHealth)) == news


def test_silence_is_told_once_and_the_return_too() -> None:
    shell, pole = Shell(), Pole(3)
    shell.frame(pole.beat(uptime_s=9))
    silent = events(shell.wait(SILENT_S + 2), ReaderHealth)
    assert sorted(event.reader for event in silent) == list(range(1, READERS + 1))
    assert {event.state for event in silent} == {"silent"}
    assert all(event.counters == {} for event in silent)
    assert events(shell.wait(3600), ReaderHealth) == []
    assert pipeline.readers_ok_and_silent(shell.state) == (0, READERS)
    [back] = events(shell.frame(pole.see((1, 1))), ReaderHealth)
    assert (back.reader, back.state) == (3, "ok")
    assert pipeline.readers_ok_and_silent(shell.state) == (1, READERS - 1)


def test_any_new_frame_is_life_and_a_repeated_one_is_not() -> None:
    shell, pole = Shell(), Pole(3)
    frame = pole.see((1, 1))
    for _ in range(10):
        shell.frame(pole.see((1, 1)), later_s=60)
    assert not shell.state.health.is_silent(3)
    for _ in range(5):
        shell.frame(frame, later_s=60)
        shell.wait(1)
    assert shell.state.health.is_silent(3), "somebody plays an old frame again and again"


def test_deaf_is_when_nobody_at_all_is_heard() -> None:
    shell = Shell()
    assert not pipeline.deaf(shell.state, shell.now_s + SILENT_S - 1)
    assert pipeline.deaf(shell.state, shell.now_s + SILENT_S + 1)
    shell.frame(Pole(7).beat(), later_s=SILENT_S + 1)
    assert not pipeline.deaf(shell.state, shell.now_s)
    shell.frame(Frame(1, None, None, b"noise"), later_s=SILENT_S + 1)
    assert pipeline.deaf(shell.state, shell.now_s)


def test_a_strange_reader_is_told_of_once_an_hour() -> None:
    shell = Shell()
    payload = wire.encode(wire.BELL, 999, 1, 1, bytes(6), lambda _: bytes(32))
    found = []
    for _ in range(100):
        found += events(shell.frame(Frame(1, None, None, payload), later_s=40), GatewayHealth)
    assert len(found) == 1 + 99 * 40 // NOISE_S
    assert found[0].what == "frames_unknown_reader"
    assert "999" in found[0].detail
    assert shell.counts["frames_unknown_reader"] == 100


def test_what_is_said_of_strangers_is_bounded() -> None:
    shell, found = Shell(), 0
    for number in range(1000, 1000 + 3 * NOISE_MAX):
        payload = wire.encode(wire.BELL, number, 1, 1, bytes(6), lambda _: bytes(32))
        found += len(events(shell.frame(Frame(1, None, None, payload)), GatewayHealth))
    assert found == NOISE_MAX
    assert shell.counts["noise_untold"] == 2 * NOISE_MAX


def test_a_wrong_mac_names_the_reader_and_the_next_step() -> None:
    payload = wire.encode(wire.BELL, 3, 1, 1, bytes(6), lambda _: bytes(32))
    [event] = events(Shell().frame(Frame(1, None, None, payload)), GatewayHealth)
    assert (event.what, event.ok, event.counters) == ("frames_wrong_mac", False, {"reader": 3})
    assert "provision" in event.detail


def test_a_reader_with_a_wiped_flash_is_told_of_and_a_straggler_is_not() -> None:
    shell = Shell()
    old, new = Pole(3, boot=8), Pole(3, boot=9)
    shell.frame(new.beat())
    for _ in range(20):
        assert events(shell.frame(old.beat()), GatewayHealth) == []
        shell.frame(new.beat())
    wiped = Pole(3, boot=1)
    found = [e for _ in range(OLD_BOOTS) for e in events(shell.frame(wiped.beat()), GatewayHealth)]
    assert [event.what for event in found] == ["frames_old_boot"]
