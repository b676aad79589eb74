"""Alarms of the real firmware: sent at once, repeated until the gateway has them, and shown on the pole."""

import itertools
import random
from collections.abc import Callable

import pytest

from readers import wire

HELP = ([2, 2, 2, 9], [2, 2, 9, 2], [2, 9, 2, 2], [9, 2, 2, 2])  # in 100 ms: two flashes and a pause, from any edge
Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street


def test_a_cry_goes_out_at_once_and_before_any_sighting(street: Make) -> None:
    s = street(seed=2)
    tags = s.add_tags(40)
    s.start()
    s.run(30)
    for tag in tags[:10]:
        waiting = s.reader.transmitting
        tag.flags, tag.press = wire.FLAG_SOS, tag.press + 1
        while not s.advertise(tag):
            s.run(0.005)
        heard_ms = s.now_ms
        s.run(0.06)
        after = [sent for sent in s.sent if sent.at_ms >= heard_ms and not waiting]
        first = next(sent for sent in s.sent if sent.kind == wire.SOS and sent.body[6:] == tag.body())
        assert first.at_ms - heard_ms <= 20 + s.latency_ms
        assert after[0] is first
        assert wire.decode_sos(first.body)[2] <= 10 + s.latency_ms
        tag.flags = 0
        s.run(0.5)


def test_a_cry_is_retried_with_back_off_until_the_gateway_has_it(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=1)
    s.run(60)
    times = [at_ms for at_ms, *_ in s.sos()]
    gaps = [round(b - a) for a, b in itertools.pairwise(times)]
    print(f"retries after {gaps} ms")
    for gap, wanted in zip(gaps, (300, 600, 1200, 2400, 4800, 9600, 10000), strict=False):
        assert wanted <= gap <= wanted * 1.25 + 30
    assert max(gaps) <= 12600
    numbers = {number for _, number, *_ in s.sos()}
    assert len(numbers) == 1
    ages = [age_ms for _, _, _, age_ms, *_ in s.sos()]
    assert all(abs((b - a) - (y - x)) <= 10 for a, b, x, y in zip(times, times[1:], ages, ages[1:], strict=False))


def test_one_press_is_one_alarm_with_one_better_picture_after_two_seconds(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED)
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=3)
    pressed_ms = s.now_ms
    s.run(8)
    rows = s.sos()
    assert {number for _, number, *_ in rows} == {1}
    assert [shown for _, _, shown, *_ in rows] == [0, 1, 1]
    assert 1800 <= rows[2][0] - pressed_ms <= 2400
    assert rows[2][5] >= 4  # packets that the better picture is made of
    assert rows[0][5] == 1
    s.cry(tag, seconds=1)
    s.run(5)
    assert {number for _, number, *_ in s.sos()} == {1, 2}


def test_a_received_cry_is_polled_slowly_until_it_is_closed(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED)
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=1)
    s.run(60)
    times = [at_ms for at_ms, *_ in s.sos() if at_ms > 10000]
    assert 4 <= len(times) <= 6
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.CLOSED)]))
    s.run(1)
    assert s.sos()[-1][2] == wire.CLOSED
    count = len(s.sos())
    s.run(60)
    assert len(s.sos()) == count
    assert s.heartbeats()[-1]["alarms"] == 0


def test_an_alarm_nobody_closes_rests_ten_minutes_after_the_last_cry(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED)
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=1)
    s.run(595)
    assert s.sos()[-1][0] > 585000
    s.run(30)
    count = len(s.sos())
    assert s.lamp() == 0
    s.run(60)
    assert len(s.sos()) == count


def test_an_alarm_waits_for_hours_while_the_gateway_is_away(street: Make) -> None:
    s = street(acks=False)
    [tag] = s.add_tags(1, period_ms=1e9)
    s.error = lambda sent: "EIO" if sent.at_ms < 3600000 else None
    s.start()
    s.run(5)
    s.cry(tag, seconds=1)
    s.run(3620)
    delivered = [sent for sent in s.frames(wire.SOS) if sent.error is None]
    assert delivered
    assert wire.decode_sos(delivered[0].body)[2] == 655350  # older than the field can express
    assert s.reader.boots == 1


def test_through_a_storm_of_full_buffers_the_cry_comes_first(street: Make) -> None:
    s = street()
    tags = s.add_tags(40, period_ms=300)
    s.start()
    s.run(20)
    storm_ms = s.now_ms + 4000
    s.error = lambda sent: "EAGAIN" if sent.at_ms < storm_ms else None
    s.cry(tags[3], seconds=0.5)
    s.run(4)
    tried = [sent for sent in s.sent if sent.error == "EAGAIN" and sent.at_ms > storm_ms - 3500]
    assert [sent for sent in tried if sent.kind == wire.SOS]
    assert len(tried) <= 60  # tried again every 100 ms, never in a tight loop
    s.run(5)
    through = next(sent for sent in s.sent if sent.at_ms >= storm_ms)
    assert through.kind == wire.SOS
    assert through.at_ms - storm_ms <= 150


def test_the_lamp_and_the_buzzer_follow_the_stages(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    assert s.lamp() == 0
    s.cry(tag, seconds=1)
    s.run(2)
    assert [level for _, level in s.edges()] == [0]  # waiting: dark, so as not to promise help

    def reach(stage: int) -> float:
        s.downlink(wire.STAGE, wire.encode_stage([(1, stage)]))
        since_ms = s.now_ms
        s.run(0.1)
        last = s.sos()[-1]
        assert (last[1], last[2]) == (1, stage), "the frame that proves the lamp"
        assert last[0] - since_ms <= 50
        return since_ms

    since_ms = reach(wire.RECEIVED)
    assert s.lamp() == 1
    s.run(5)
    edges = [at_ms for at_ms, _ in s.edges(since_ms=since_ms)]
    assert len(edges) == 6
    assert all(980 <= b - a <= 1020 for a, b in itertools.pairwise(edges))  # slow blink
    reach(wire.STORED)
    s.run(2)
    since_ms = reach(wire.ACKNOWLEDGED)
    s.run(5)
    flashes = s.edges(since_ms=since_ms + 30)
    assert [level for _, level in flashes[:4]] == [1, 0, 1, 0]
    lengths = [round((b[0] - a[0]) / 100) for a, b in itertools.pairwise(flashes)]
    assert lengths[:8] == [2, 2, 2, 9, 2, 2, 2, 9]  # two flashes and a pause: no frozen lamp looks like that
    assert 600 < flashes[0][0] - since_ms < 800, "a pause first: the light before must not run into it"
    beeps = [(at_ms - since_ms, level) for at_ms, level in s.edges("D3", since_ms)]
    assert [level for _, level in beeps] == [1, 0, 1, 0]
    assert beeps[-1][0] <= 520
    reach(wire.DISPATCHED)
    s.run(2)
    assert len(s.edges("D3", since_ms)) == 4  # no second beeping
    assert max(b[0] - a[0] for a, b in itertools.pairwise(s.edges(since_ms=since_ms))) < 1000
    reach(wire.CLOSED)
    assert s.lamp() == 0


def test_a_stage_never_falls_but_to_the_beginning(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=1)
    s.run(1)
    for stage in (wire.ACKNOWLEDGED, wire.RECEIVED, 200):
        s.downlink(wire.STAGE, wire.encode_stage([(1, stage), (99, 5)]))
        s.run(0.2)
    s.run(12)
    assert [round((b[0] - a[0]) / 100) for a, b in itertools.pairwise(s.edges()[-5:])] in HELP
    assert s.sos()[-1][2] == wire.ACKNOWLEDGED
    s.downlink(wire.STAGE, wire.encode_stage([(1, 0)]))  # the number means another alarm now
    began_ms = s.now_ms
    s.run(3)
    assert s.lamp() == 0
    assert s.edges(since_ms=began_ms + 300) == []
    [again, *_] = [row for row in s.sos() if row[0] >= began_ms]
    assert (again[1], again[2]) == (1, wire.WAITING)
    assert again[0] - began_ms <= 140, "due soon"
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.RECEIVED)]))
    s.run(0.1)
    assert s.sos()[-1][2] == wire.RECEIVED


def test_the_bell_is_debounced_and_counts_presses(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED)
    s.start()
    s.run(5)

    def hold(level: int, ms: float) -> None:
        s.reader.pin("D4", level)
        s.run(ms / 1000)

    for ms in (5, 15, 30, 45):  # glitches
        hold(0, ms)
        hold(1, 100)
    s.run(1)
    assert s.bells() == []
    for _ in range(6):  # a bouncing press
        hold(0, 12)
        hold(1, 12)
    pressed_ms = s.now_ms
    hold(0, 400)
    [first, shown] = s.bells()
    assert first[0] - pressed_ms <= 50 + 20 + 20
    assert first[1:] == (1, 0, first[3], 0, 1)
    assert first[3] <= 20
    assert shown[1:3] == (1, wire.RECEIVED)
    assert s.lamp() == 1
    hold(1, 200)
    hold(0, 200)  # pressed again while the alarm is still open
    hold(1, 800)
    assert s.bells()[-1][1] == 1
    assert s.bells()[-1][5] == 2
    s.downlink(wire.STAGE, wire.encode_stage([(1, wire.CLOSED)]))
    s.run(1)
    assert s.lamp() == 0
    hold(0, 200)
    hold(1, 500)
    assert s.bells()[-1][1:6] == (2, 1, s.bells()[-1][3], 0, 1)


def test_two_bells_are_two_inputs(street: Make) -> None:
    s = street(config='BELLS = ("D4", "D12")\nLAMP = "P0"\n')
    s.start()
    s.run(5)
    s.reader.pin("D12", 0)
    s.run(1)
    assert {(number, bell) for _, number, _, _, bell, _ in s.bells()} == {(1, 1)}
    s.downlink(wire.STAGE, wire.encode_stage([(1, 3)]))
    s.run(1)
    assert ("P0", 1) in [(name, level) for _, name, level in s.pins]


def test_a_full_ring_gives_up_what_is_furthest_and_never_a_waiting_cry_first(street: Make) -> None:
    s = street()
    tags = s.add_tags(12, until_ms=25_000)  # they beacon until the gateway knows them
    s.start()
    s.run(30)
    for tag in tags[:8]:
        s.cry(tag, seconds=0.6)
        s.run(0.7)
    assert s.heartbeats()[-1]["alarms"] == 0  # that heartbeat was sent before the presses
    by_id = {wire.decode_sos(sent.body)[5][1:9]: sent.body[0] for sent in s.frames(wire.SOS)}
    assert len(by_id) == 8
    s.downlink(wire.STAGE, wire.encode_stage([(3, wire.ACKNOWLEDGED), (5, wire.RECEIVED), (2, wire.RECEIVED)]))
    s.run(0.5)
    for tag, gone in zip(tags[8:11], (3, 2, 5), strict=True):
        s.cry(tag, seconds=0.6)
        s.run(25)
        recent = {sent.body[0] for sent in s.frames(wire.SOS, since_ms=s.now_ms - 12500)}
        assert gone not in recent
        assert len(recent) == 8
    s.cry(tags[11], seconds=0.6)
    s.run(25)
    recent = {sent.body[0] for sent in s.frames(wire.SOS, since_ms=s.now_ms - 12500)}
    assert 12 in recent
    assert 1 not in recent  # all are waiting: the alarm with the oldest last cry goes
    s.run(60)
    assert s.heartbeats()[-1]["discards"] >= 4
    assert s.heartbeats()[-1]["alarms"] == 8


@pytest.mark.parametrize("seed", range(3))
def test_every_cry_reaches_a_gateway_behind_a_bad_mesh(street: Make, seed: int) -> None:
    """A third of all frames and answers is lost, some calls fail, 30 tags: eight presses give eight staged alarms."""
    s = street(seed=seed, auto_stage=wire.RECEIVED)
    dice = random.Random(seed)
    tags = s.add_tags(30)
    s.lost = lambda sent: dice.random() < 0.3
    s.drop_downlink = lambda: dice.random() < 0.3
    s.error = lambda sent: dice.choice(["EAGAIN", "EIO", "ETIMEDOUT", None, None, None, None, None])
    s.start()
    s.run(20)
    for tag in tags[:8]:
        s.at(s.now_ms + dice.random() * 20000, lambda tag=tag: s.cry(tag, seconds=3))
    s.run(180)
    shown = {sent.body[6 + 1 : 6 + 9]: sent.body[1] for sent in s.frames(wire.SOS)}
    assert len(shown) == 8
    assert set(shown.values()) == {wire.RECEIVED}
    assert s.wrong == []
