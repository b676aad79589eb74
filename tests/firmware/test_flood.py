"""A flood of a thousand advertisements a second round a real reader, and the cry of a child whom the gateway knows.

Real MicroPython here, 24 runs; `make bench BENCH=flood` makes 1,000 in CPython, of the same source.
"""

import random
from collections.abc import Callable

import pytest

from readers import advertisement, wire
from tests.firmware.flood import FAST_MS, JITTER_MS, KINDS, Flood, HostedTrial

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
KNOWN = 6


def flood(s: "Street", kind: str, poisson: bool, seconds: float) -> None:  # noqa: F821
    made = Flood(random.Random(s.seed), kind, 1000, poisson, lambda: s.tags[0].body())
    until_ms = s.now_ms + 1000 * seconds

    def forge() -> None:
        s.reader.hear(s.now_ms, bytes(6), -30 - made.random.randrange(60), advertisement.payload(made.body()))
        if s.now_ms < until_ms:
            s.at(s.now_ms + made.wait_ms(), forge)

    forge()


def bound(s: "Street") -> None:  # noqa: F821
    """Let the gateway get to know the tags."""
    s.add_tags(KNOWN, period_ms=300)
    s.start()
    s.run(12)
    assert {tag.body()[1:9] for tag in s.tags} == {body for body, _ in s.slots.values()}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_a_known_childs_cry_leaves_within_a_second(street: Make, kind: str, seed: int) -> None:
    latency_ms = (8, 20, 50)[seed % 3]
    s = street(seed=seed, latency_ms=latency_ms, auto_stage=wire.RECEIVED)
    bound(s)
    flood(s, kind, poisson=seed % 2 == 1, seconds=9)
    s.run(2 + s.random.random())
    tag = s.tags[0]
    tag.flags, tag.press = wire.FLAG_SOS, tag.press + 1
    heard: list[float] = []

    def cry() -> None:
        if s.advertise(tag):
            heard.append(s.now_ms)
        s.at(s.now_ms + FAST_MS + JITTER_MS * s.random.random(), cry)

    cry()
    s.run(2.5)
    told = [at_ms for at_ms, *_, body in s.sos() if body[1:11] == tag.body()[1:11] and body[13:15] == tag.body()[13:15]]
    print(f"{s.reader.scan_drops} advertisements lost; told after {told[0] - heard[0]:.0f} ms")
    assert told[0] - heard[0] <= 1000
    strangers = [row for row in s.sos() if row[0] > 12_000 and row[6][13:15] != tag.body()[13:15]]
    assert len(strangers) <= (s.now_ms - 12_000) / 1000 + 2
    assert s.log == []
    assert s.reader.boots == 1
    assert all(tag.body()[1:9] in {body for body, _ in s.slots.values()} for tag in s.tags[1:])


def test_a_bell_rings_at_once_in_a_flood(street: Make) -> None:
    s = street(auto_stage=wire.RECEIVED, latency_ms=50)
    bound(s)
    flood(s, "all", poisson=True, seconds=10)
    s.run(3)
    s.reader.pin("D4", 0)
    pressed_ms = s.now_ms
    s.run(0.5)
    assert s.bells()[0][0] - pressed_ms <= 50 + 2 * 75, "two looks 50 ms apart, and a frame that was on the air"


def test_the_runs_of_the_bench_are_of_this_reader() -> None:
    """One run in CPython, and what it is made of: frames go out, the tags are known, the queue is as deep."""
    trial = HostedTrial(1, "cries", 1000, True, (8, 50))
    result = trial.run()
    assert result.left_ms is not None
    assert result.left_ms <= 1000
    assert result.frames[wire.SIGHTINGS] > 0
    assert 0 < result.strangers <= result.flood_s + 2
