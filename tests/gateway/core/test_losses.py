"""The gateway sees what a reader cannot: frames lost on their way to it. It says so, and nothing else changes."""

import random
from collections import Counter

import pytest

from gateway.core import losses, pipeline
from gateway.core.frames import Report
from gateway.core.losses import LOST_MIN, SPAN_S, Losses
from gateway.effects import Downlink
from readers import wire
from tests.gateway.core.bed import Pole, Shell, acks, stages

SEEDS = range(101, 111)
"""The rule was chosen on the seeds 1 to 5 and is judged on these."""


def up(sequence: int, boot: int = 1, reader: int = 1) -> Report:
    return Report(wire.SIGHTINGS, reader, boot, sequence, "new", False, None)


def watched() -> Losses:
    return Losses([1, 2], Counter())


# ---- counting --------------------------------------------------------------------------------------------------------


def test_gaps_and_undelivered_downlinks_count_alike() -> None:
    for gaps, failed in ((3, 0), (0, 3), (2, 1), (1, 2)):
        seen = watched()
        seen.heard(up(10), 0.0)
        for n in range(gaps):
            assert not seen.tell(1, 1.0)
            seen.heard(up(12 + 2 * n), 1.0 + n)
        for _ in range(failed):
            assert not seen.tell(1, 4.0)
            seen.sent(1, False, 4.0)
        assert seen.tell(1, 5.0)
        assert not seen.tell(2, 5.0), "its neighbour is well"


def test_one_frame_in_ten_is_the_border() -> None:
    for delivered, expected in ((27, True), (28, False)):
        seen = watched()
        for _ in range(delivered):
            seen.sent(1, True, 1.0)
        for _ in range(LOST_MIN):
            seen.sent(1, False, 1.0)
        assert seen.tell(1, 2.0) is expected


def test_a_loss_counts_for_a_minute_and_is_told_once() -> None:
    seen = watched()
    for at_s in (0.0, 30.0, 59.0):
        seen.sent(1, False, at_s)
    assert not watched().tell(1, 59.5)
    assert seen.tell(1, 59.5)
    assert not seen.tell(1, 59.6)
    for at_s in (100.0, 130.0, 100.0 + SPAN_S):
        seen.sent(1, False, at_s)
    assert not seen.tell(1, 100.0 + SPAN_S), "the first is a minute ago"


def test_a_frame_that_was_overtaken_is_not_lost() -> None:
    seen = watched()
    rng = random.Random(5)
    order = sorted(range(1, 400), key=lambda n: n + rng.uniform(-1.5, 1.5))
    assert order != sorted(order)
    for n, sequence in enumerate(order):
        seen.heard(up(sequence), n / 3)
        assert not seen.tell(1, n / 3)


@pytest.mark.parametrize("what", ["a restart of the reader", "a restart of the gateway", "silence", "our own radio"])
def test_a_gap_with_another_reason_is_no_loss(what: str) -> None:
    seen, sequence, boot, at_s = watched(), 500, 1, 3.0
    seen.heard(up(1), 0.0)
    if what == "a restart of the reader":
        boot = 2
    elif what == "a restart of the gateway":
        seen = watched()
    elif what == "silence":
        at_s = SPAN_S + 1
    else:
        seen.forget()
    seen.heard(up(sequence, boot), at_s)
    assert not seen.tell(1, at_s)
    seen.heard(up(sequence + 4, boot), at_s + 1)
    assert seen.tell(1, at_s + 1)


def test_what_is_kept_is_bounded_and_strangers_are_not_kept() -> None:
    seen = watched()
    for n in range(5000):
        seen.sent(1, n % 2 == 0, n / 3)
        seen.sent(77, False, n / 3)
        seen.heard(up(2 * n), n / 3)
    assert set(seen._readers) == {1, 2}
    assert len(seen._readers[1].buckets) <= SPAN_S / losses._BUCKET_S


# ---- how often -------------------------------------------------------------------------------------------------------


def told_an_hour(frames_a_minute: int, lost_part: float, hours: int = 10) -> float:
    """Frames at random times, a quarter of them downlinks; up to five acknowledgements a minute that can tell."""
    told = 0
    for seed in SEEDS:
        rng, seen, now_s, sequence, ack_s = random.Random(seed), watched(), 0.0, 0, 0.0
        while now_s < hours * 3600:
            now_s += rng.expovariate(frames_a_minute / 60)
            lost = rng.random() < lost_part
            if rng.random() < 0.25:
                seen.sent(1, not lost, now_s)
            else:
                sequence += 1
                if not lost:
                    seen.heard(up(sequence), now_s)
            if now_s >= ack_s:
                ack_s = now_s + rng.expovariate(min(5, frames_a_minute / 4) / 60)
                told += seen.tell(1, now_s)
    return told / hours / len(SEEDS)


@pytest.mark.parametrize(
    ("frames_a_minute", "lost_part", "least", "most"),
    [
        (12, 0.004, 0, 0.1),  # one hop in a healthy mesh, by the simulator's figures
        (35, 0.004, 0, 0.1),
        (12, 0.02, 0, 0.4),  # five hops
        (35, 0.02, 0, 2),
        (70, 0.02, 0, 0.5),
        (35, 0.10, 30, 60),  # ill
        (70, 0.10, 40, 80),
        (12, 0.20, 20, 40),
        (35, 0.20, 60, 120),
    ],
)
def test_an_ill_mesh_is_told_and_a_healthy_one_hardly_ever(
    frames_a_minute: int, lost_part: float, least: float, most: float
) -> None:
    found = told_an_hour(frames_a_minute, lost_part)
    print(f"seeds {SEEDS}: {found:.2f} an hour")
    assert least <= found <= most


# ---- with the whole core ---------------------------------------------------------------------------------------------


def test_the_next_acknowledgement_carries_it_and_no_frame_is_sent_for_it() -> None:
    shell, pole, other = Shell(), Pole(3), Pole(4)
    shell.frame(pole.beat())
    assert acks(shell.wait(1), pole) == [(0, [1])]
    pole.sequence += 4  # these were lost
    assert acks(shell.frame(pole.bell()) + shell.wait(30), pole) == []
    shell.frame(pole.beat())
    shell.frame(other.beat())
    done = shell.wait(1)
    assert acks(done, pole) == [(wire.ACK_LOSSES, [pole.sequence])]
    assert acks(done, other) == [(0, [1])]
    shell.frame(pole.beat())
    assert acks(shell.wait(1), pole) == [(0, [pole.sequence])]
    assert shell.counts["losses_told"] == 1


def test_downlinks_that_no_reader_acknowledged_count_in_the_core() -> None:
    shell, pole = Shell(), Pole(3)
    for _ in range(LOST_MIN):
        pipeline.on_sent(shell.state, 3, False, shell.now_s)
        pipeline.on_sent(shell.state, 999, False, shell.now_s)
    shell.frame(pole.beat())
    assert acks(shell.wait(1), pole) == [(wire.ACK_LOSSES, [1])]
    for _ in range(LOST_MIN):
        pipeline.on_sent(shell.state, 3, False, shell.now_s)
    pipeline.on_radio_start(shell.state)
    shell.frame(pole.beat())
    assert acks(shell.wait(1), pole) == [(0, [2])]


def test_it_changes_nothing_about_an_emergency() -> None:
    calm, ill = Shell(), Shell()
    for shell in (calm, ill):
        pole = Pole(2)
        for n in range(12):
            shell.frame(pole.bell(number=1 + n // 6, presses=n % 6 + 1), later_s=0.3)
            shell.wait(0.1)
            if shell is ill:
                pipeline.on_sent(shell.state, 2, False, shell.now_s)
        shell.frame(pole.beat(uptime_s=5))
        shell.wait(1)
    assert calm.events == ill.events
    kinds = [
        [(d.urgent, *wire.peek(d.payload), stages([Downlink(2, d.payload)], pole)) for d in shell.downlinks if d.urgent]
        for shell in (calm, ill)
    ]
    assert kinds[0] == kinds[1] != []
    assert (calm.counts.get("losses_told"), ill.counts["losses_told"]) == (None, 1)
