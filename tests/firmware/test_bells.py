"""A bell's press survives a power loss of its reader, hardly wears the flash, and does not wait for it."""

import random
from collections.abc import Callable

import pytest

from gateway.core import frames, pipeline
from gateway.events import Bell
from readers import wire
from tests.firmware.conftest import KEY, NUMBER
from tests.gateway.core import bed

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
UNKNOWN_AGE_MS = 655_350


def press(s: "Street", pin: str = "D4", ms: float = 120) -> None:  # noqa: F821
    s.reader.pin(pin, 0)
    s.run(ms / 1000)
    s.reader.pin(pin, 1)


def power_cut(s: "Street", off_s: float = 3) -> None:  # noqa: F821
    s.reader.kill()
    s.run(off_s)
    s.start()


def told(s: "Street", boot: int) -> list[tuple[int, ...]]:  # noqa: F821
    return [wire.decode_bell(sent.body) for sent in s.frames(wire.BELL) if sent.boot == boot]


def test_a_press_nobody_had_answered_is_told_again_after_a_power_cut(street: Make) -> None:
    s = street()
    s.start()
    s.run(5)
    press(s)
    s.run(0.3)
    power_cut(s)
    s.run(1.7)
    assert told(s, 1)[0] == (1, 0, told(s, 1)[0][2], 0, 1, 0, 0)
    first = s.frames(wire.BELL, since_ms=8000)[0]
    assert first.body == wire.encode_bell(1, 0, UNKNOWN_AGE_MS, 0, 1, 1, 1)
    assert next(sent for sent in s.sent if sent.boot == 2) is first, "before anything else"
    s.run(20)
    assert len(told(s, 2)) >= 5, "again and again"
    power_cut(s)  # no second write is needed for that
    s.run(5)
    assert set(told(s, 3)) == {(1, 0, UNKNOWN_AGE_MS, 0, 1, 1, 1)}
    assert s.reader.flash_writes == 3 + 1
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.RECEIVED)]))
    s.run(1)
    assert s.lamp() == 1
    assert told(s, 3)[-1] == (1, 1, UNKNOWN_AGE_MS, 0, 1, 1, 1)
    power_cut(s)
    s.run(20)
    assert s.sent[-1].boot == 4
    assert told(s, 4) == [], "the gateway has it"
    assert s.log == []


def test_a_press_that_is_answered_at_once_costs_no_write(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED)
    s.start()
    s.run(5)
    for _ in range(20):
        press(s)
        s.run(1)
    assert s.bells()[-1][5] == 20
    power_cut(s)
    s.run(5)
    assert told(s, 2) == []
    assert s.reader.flash_writes == 2, "the boots"


def test_an_alarm_costs_two_writes_however_often_it_is_pressed(street: Make) -> None:
    s = street()
    s.start()
    s.run(5)
    for alarm in (1, 2):
        for _ in range(40):
            press(s)
            s.run(0.2)
        assert s.reader.flash_writes == 2 * alarm, "the boot's; the first press's"
        for stage in (wire.RECEIVED, wire.STORED, wire.ACKNOWLEDGED, wire.CLOSED):
            press(s)
            s.run(0.5)
            s.downlink(wire.STAGE, wire.encode_stage([(alarm, stage)]))
            s.run(0.5)
        assert s.bells()[-1][1:3] == (alarm, wire.CLOSED)
        assert s.bells()[-1][5] == 44
        assert s.reader.flash_writes == 1 + 2 * alarm


@pytest.mark.parametrize("step", range(4))
def test_the_frame_goes_before_the_flash_and_a_torn_record_is_none(street: Make, step: int) -> None:
    """Steps of a write: open, sync, swap in, sync. The second and third writes here are the bell's: kept, emptied."""
    s = street(seed=step)
    s.start()
    s.run(5)
    s.reader.cut_at_flash_step = step
    press(s)
    s.run(1)
    assert not s.reader.alive
    assert told(s, 1)[0][:2] == (1, 0), "sent, whatever became of the flash"
    s.start()
    s.run(3)
    again = bool(told(s, 2))
    assert again is (step >= 2) or step == 1, "once synced it is there; before it may be"
    if not again:
        press(s)
        s.run(1)
    s.reader.cut_at_flash_step = step
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.RECEIVED)]))
    s.run(1)
    assert not s.reader.alive
    assert told(s, 2)[-1][1] == wire.RECEIVED, "the lamp's proof goes before the flash too"
    s.start()
    s.run(3)
    assert bool(told(s, 3)) is (step < 3), "the old record or the new one"
    assert s.log == []


def test_a_record_that_was_never_swapped_in_survives_the_next_torn_write(street: Make) -> None:
    s = street(config='BELLS = ("D4", "D12")\n')
    s.start()
    s.run(5)
    s.reader.cut_at_flash_step = 2
    press(s, "D4")
    s.run(1)
    assert not s.reader.alive
    for seed in range(3):
        s.reader.cut_at_flash_step = None
        s.start()
        s.run(3)
        assert {(row[3], row[5], row[6]) for row in told(s, 2 + seed)} == {(0, 1, 1)}
        s.reader.cut_at_flash_step = 0 if seed == 2 else 1
        press(s, "D12")
        s.run(1)
        assert not s.reader.alive


def test_where_the_mesh_fails_the_flash_comes_first(street: Make) -> None:
    """Sending may block for long then, and whoever cut the power of the gateway may cut this reader's power next."""
    s = street()
    s.error = lambda sent: "EIO"
    s.add_tags(3)
    s.start()
    s.run(10)
    s.latency_ms = 1e9
    s.reader.pin("D4", 0)
    s.run(0.5)
    if not told(s, 1):  # a routine frame is being sent: let that one return
        s.reader.transmit_done(s.now_ms, "EIO")
        s.run(0.5)
    assert told(s, 1)
    assert s.reader.transmitting
    assert s.reader.flash_writes == 2
    s.reader.pin("D4", 1)
    s.latency_ms, s.error = 8, lambda sent: None
    power_cut(s)
    s.run(3)
    assert told(s, 2)[0] == (1, 0, UNKNOWN_AGE_MS, 0, 1, 1, 1)


FULL = """import os
replace = os.replace
def full(a, b):
    if b == "bell":
        print("tried")
        raise ERROR
    replace(a, b)
os.replace = full
"""


@pytest.mark.parametrize("error", ["OSError(28)", "MemoryError()"])
def test_a_flash_that_will_not_write_keeps_no_press_from_being_sent(street: Make, error: str) -> None:
    s = street(config=FULL.replace("ERROR", error))
    s.start()
    s.run(5)
    press(s)
    s.run(30)
    assert len(s.bells()) >= 7
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.RECEIVED)]))
    s.run(5)
    assert s.lamp() in (0, 1)
    assert s.bells()[-1][2] == wire.RECEIVED
    assert s.reader.boots == 1
    s.reader.kill()
    assert s.log == ["tried", "tried"], "once kept, once emptied: not in every pass"


def test_a_new_press_stands_for_the_one_before_the_power_cut(street: Make) -> None:
    s = street(config='BELLS = ("D4", "D12")\n')
    s.start()
    s.run(5)
    press(s, "D4")
    press(s, "D12")
    s.run(1)
    power_cut(s)
    s.run(3)
    assert {(number, place, boot, before) for number, _, _, place, _, boot, before in told(s, 2)} == {
        (1, 0, 1, 1), (2, 1, 1, 2),
    }  # fmt: skip
    press(s, "D4")
    count = len(told(s, 2))
    s.run(20)
    assert {(row[0], row[3], row[5]) for row in told(s, 2)[count:]} == {(2, 1, 1), (3, 0, 0)}
    assert all(row[2] < 25_000 for row in told(s, 2) if row[0] == 3), "its age is known"
    power_cut(s)
    s.run(3)
    assert {(row[3], row[5], row[6]) for row in told(s, 3)} == {(1, 1, 2), (0, 2, 3)}
    for stage in (wire.RECEIVED, wire.ACKNOWLEDGED):
        s.downlink(wire.STAGE, wire.encode_stage([(1, stage), (2, stage)]))
        s.run(0.5)
    press(s, "D4")
    s.run(1)
    assert s.edges(since_ms=s.now_ms - 900) == [], "help comes for the others, but not for this press so far"
    assert told(s, 3)[-1][:2] == (3, 0)
    assert {row[0] for row in told(s, 3) if row[1] == 0} == {1, 2, 3}, "and their frames say what the lamp shows"
    s.downlink(wire.STAGE, wire.encode_stage([(3, wire.ACKNOWLEDGED)]))
    s.run(3)
    assert len(s.edges(since_ms=s.now_ms - 1500)) >= 3
    assert {row[0] for row in told(s, 3) if row[1] == wire.ACKNOWLEDGED} == {1, 2, 3}


def test_a_press_is_kept_in_a_heap_that_is_as_full_as_it_gets(street: Make) -> None:
    s = street()
    tags = s.add_tags(150, period_ms=500)
    s.start()
    s.run(40)
    for tag in tags[:20]:
        s.cry(tag, seconds=2)
    s.run(20)
    press(s)
    s.run(60)
    beat = s.heartbeats()[-1]
    print(f"heap: {beat['heap_used']} bytes used, {beat['heap_free']} free")
    assert (beat["tags"], beat["alarms"]) == (128, 8)
    assert beat["heap_free"] > 3000
    assert s.reader.flash_writes == 2
    number = s.bells()[-1][1]
    assert (s.flash_dir / "bell").read_bytes()[:4] == bytes((0, 1, number, 0))
    power_cut(s)
    s.run(3)
    assert told(s, 2)[0] == (1, 0, UNKNOWN_AGE_MS, 0, 1, 1, number)
    assert s.log == []


def test_tags_that_cry_do_not_push_a_waiting_bell_out_of_the_ring(street: Make) -> None:
    s = street()
    tags = s.add_tags(12, period_ms=1e9)
    s.start()
    s.run(5)
    press(s)
    for tag in tags:
        s.cry(tag, seconds=0.6)
        s.run(0.7)
    s.run(70)
    assert s.bells()[-1][0] > s.now_ms - 12_600
    assert s.heartbeats()[-1]["discards"] >= 4


FAST = """import time
ticks = time.ticks_ms
time.ticks_ms = lambda: ticks() * 4096 & 0x3FFFFFFF
"""


def test_a_press_that_waits_for_weeks_never_gets_younger(street: Make) -> None:
    """Ticks wrap round after 12 days; on this reader's clock they do so in four minutes."""
    s = street(config=FAST, acks=False)
    s.start()
    s.run(3)
    press(s)
    s.run(600)
    ages = [row[3] for row in s.bells()]
    assert len(ages) > 100
    assert ages == sorted(ages)
    assert ages[100] == UNKNOWN_AGE_MS
    assert s.log == []


class Gateway(bed.Shell):
    """The gateway's core with this pole's key; what is on its disk survives `restart`."""

    def _start(self) -> pipeline.State:
        state = pipeline.State.new(
            bed.zone(), {NUMBER: KEY}, {}, gateway="gw1", epoch="e1", now_s=self.now_s,
            memories=list(self.memories.values()),
        )  # fmt: skip
        pipeline.set_clock(state, self.now_s + bed.UTC_S, self.now_s, "good")
        if self.snapshot:
            pipeline.restore(state, self.snapshot)
        return state


@pytest.mark.parametrize("seed", range(12))
def test_one_press_is_one_alarm_of_the_gateway_whoever_loses_power_and_when(street: Make, seed: int) -> None:
    """Real firmware, the gateway's core, a mesh that loses a third each way; power fails at random on both sides."""
    dice = random.Random(seed)
    s = street(seed=seed, acks=False)
    gateway = Gateway(now_s=0.0)
    cuts = sorted(5 + 0.4 + dice.random() * 6 for _ in range(3))
    restarts = sorted(5 + dice.random() * 8 for _ in range(2))
    away_until_s = 5 + dice.choice([0.0, 1.0, 5.0])
    s.at(5000, lambda: s.reader.pin("D4", 0))
    s.at(5120, lambda: s.reader.pin("D4", 1))
    s.start()
    taken = told_down = 0
    while s.now_ms < 40_000:
        s.run(0.01)
        now_s = s.now_ms / 1000
        if cuts and now_s > cuts[0]:
            cuts.pop(0)
            if s.reader.alive:
                s.reader.cut_at_flash_step = dice.choice([None, 0, 1, 2, 3])  # it writes at boot: cut there too
                s.reader.kill()
                s.start()
        elif not s.reader.alive:
            s.start()
        if restarts and now_s > restarts[0]:
            restarts.pop(0)
            gateway.restart(keep_snapshot=dice.random() < 0.5)
        gateway.wait(max(0.0, now_s - gateway.now_s))
        for sent in s.sent[taken:]:
            if now_s > away_until_s and (now_s > 20 or dice.random() < 0.67):
                gateway.frame(frames.Frame(0x1007, 200, -60, sent.frame))
        taken = len(s.sent)
        for downlink in gateway.downlinks[told_down:]:
            if s.reader.alive and (now_s > 20 or dice.random() < 0.67):
                s.reader.deliver(s.now_ms, downlink.payload)
        told_down = len(gateway.downlinks)
    bells = [event for event in gateway.events if isinstance(event, Bell)]
    print(f"{s.reader.boots} boots, {len(s.frames(wire.BELL))} frames, told as {[told.reader for told in bells]}")
    assert len({event.alarm for event in bells}) == 1
    assert s.frames(wire.BELL)[-1].body[1] == wire.RECEIVED
    assert s.log == []
