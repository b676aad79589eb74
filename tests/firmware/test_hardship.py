"""Hardship that examiners brought on: crowds, hammering, flash that lies, scanners that hang in every boot."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from readers import wire
from sim.reader.switches import parse
from tests.firmware.conftest import Sent

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street


def faults(s: "Street") -> set[str]:  # noqa: F821
    """Return what the newest heartbeat reports."""
    bits = s.heartbeats()[-1]["faults"]
    return {name for place, name in enumerate(wire.FAULTS) if bits >> place & 1}


@pytest.mark.parametrize("count", [8, 9, 14])
def test_more_cries_than_places_are_no_storm(street: Make, count: int) -> None:
    s = street(auto_stage=wire.RECEIVED)
    tags = s.add_tags(count, until_ms=25_000)
    s.start()
    s.run(30)
    s.sent.clear()
    for tag in tags:
        s.cry(tag, seconds=60)
    s.run(62)
    frames = Counter(wire.decode_sos(sent.body)[5][1:9] for sent in s.frames(wire.SOS))
    numbers = {(wire.decode_sos(sent.body)[5][1:9], sent.body[0]) for sent in s.frames(wire.SOS)}
    print(f"{count} tags: {sum(frames.values())} frames")
    assert len(frames) == count
    assert len(numbers) == count, "one alarm each"
    assert sum(frames.values()) < 12 * count
    assert s.heartbeats()[-1]["uptime_s"] > 40, "and the rest goes on"


def test_a_crowd_that_nobody_answers_leaves_time_to_look_at_the_bell(street: Make) -> None:
    """Twelve cry, each send blocks 2 s and fails: a bell held for 3 s is seen each time."""
    s = street(switches=parse("transmit=EIO,transmit_ms=2000"))
    tags = s.add_tags(12, period_ms=1e9)
    s.start()
    s.run(5)
    for tag in tags:
        s.cry(tag, seconds=200)
    s.run(20)
    for _ in range(10):
        s.reader.pin("D4", 0)
        s.run(3)
        s.reader.pin("D4", 1)
        s.run(12)
    s.reader.switches = parse("")
    s.run(40)
    assert max(row[5] for row in s.bells()) == 10
    assert s.reader.boots == 1


def test_a_child_who_hammers_does_not_postpone_the_first_retry(street: Make) -> None:
    s = street()
    s.start()
    s.run(5)
    s.lost = lambda sent: len(s.bells()) <= 1
    for _ in range(40):
        s.reader.pin("D4", 0)
        s.run(0.12)
        s.reader.pin("D4", 1)
        s.run(0.13)
    first, second = s.bells()[:2]
    assert second[0] - first[0] < 500


def test_flash_that_takes_half_of_what_it_is_given_is_found_out(street: Make) -> None:
    s = street(switches=parse("flash=short"))
    s.start()
    s.run(5)
    assert {"flash", "boot"} <= faults(s)
    assert s.sent[-1].boot & wire.BOOT_DRAWN
    s.reader.pin("D4", 0)
    s.run(0.5)
    assert s.bells()


def test_a_boot_that_nobody_answers_for_an_hour_is_drawn(street: Make) -> None:
    """Its gateway has a newer one: this reader booted thousands of times unheard, and would be refused."""
    s = street(acks=False)
    s.start()
    s.run(3500)
    assert s.sent[-1].boot == 1
    s.run(300)
    assert s.sent[-1].boot & wire.BOOT_DRAWN
    assert "boot" in faults(s)
    s.reader.pin("D4", 0)
    s.run(0.5)
    assert s.bells()[-1][1] == 1


def test_an_outage_is_no_reason_to_draw_a_boot(street: Make) -> None:
    s = street()
    s.error = lambda sent: "ETIMEDOUT"
    s.start()
    s.run(4000)
    s.error = lambda sent: None
    s.run(120)
    assert s.sent[-1].boot == 1


def test_a_scanner_that_hangs_in_every_boot_leaves_the_bell_its_time(street: Make) -> None:
    s = street()
    s.add_tags(3)
    s.start()
    s.reader.scan_stalled = True
    told = 0
    for _ in range(20):
        before = len(s.bells())
        s.reader.pin("D4", 0)
        s.run(1)
        s.reader.pin("D4", 1)
        s.run(59)
        told += len(s.bells()) > before
    print(f"told {told} of 20, {s.reader.boots} boots")
    assert told >= 12
    assert s.reader.boots <= 9


def test_a_module_that_refuses_to_scan_again_is_reset_after_minutes(street: Make) -> None:
    s = street(switches=parse("gap_scan_again=ENODEV"))
    s.add_tags(3)
    s.start()
    s.run(20)
    bad_ms = s.now_ms + 20_000

    def error(sent: Sent) -> str | None:
        return "EAGAIN" if s.now_ms < bad_ms else None

    s.error = error
    s.run(500)
    assert s.reader.boots == 2
    assert len(s.seen(since_ms=s.now_ms - 60_000)) == 3


def test_received_in_pieces_does_not_look_like_help(street: Make) -> None:
    """Sends of 300 ms cut the lit second of "received"; after each the dark second comes first."""
    s = street(switches=parse("transmit_ms=300"), auto_stage=wire.STORED)
    tags = s.add_tags(4, period_ms=1e9)
    s.start()
    s.run(5)
    for tag in tags:
        s.cry(tag, seconds=30)
    s.run(40)
    lit = [(at, level) for at, level in s.edges() if at > 6000]
    short = [b[0] - a[0] for a, b in itertools.pairwise(lit) if a[1] and 120 < b[0] - a[0] < 280]
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(lit) if not a[1] and 120 < b[0] - a[0] < 280]
    assert lit
    assert not (len(short) > 1 and gaps), (short, gaps)
