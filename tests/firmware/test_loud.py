"""Who is loud at a reader is near it: its rows go first, and keep their place in a full table.

Most of it asks the firmware's source in CPython (tests/firmware/hosted.py); two runs are on real MicroPython.
"""

import random
from collections.abc import Callable

import pytest

from readers import wire
from tests.firmware.hosted import Hosted

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
ROWS, KNOWN_MAX, SIZE = 128, 112, 29


def body(number: int, *, flags: int = 0) -> bytes:
    return bytes([wire.ADVERTISEMENT_VERSION]) + number.to_bytes(8, "little") + bytes([flags]) + bytes(9)


class Asked:
    """A reader whose functions are called one by one. Its clock stands unless `now_ms` is moved."""

    def __init__(self, seed: int = 1) -> None:
        self.reader = Hosted(seed=seed)
        self.scan = self.reader.scan
        self.sequence = 0

    def hear(self, number: int, dbm: int, *, flags: int = 0) -> None:
        data = b"\x02\x01\x06\x16\xff\xff\xff" + body(number, flags=flags)
        self.reader.call(self.scan._take, data, -dbm, self.reader.ticks())

    def later(self, seconds: float) -> None:
        self.reader.now_ms += 1000 * seconds

    def slot(self, number: int) -> int | None:
        key = body(number)[1:9]
        for slot in range(ROWS):
            row = slot * SIZE
            if self.scan.table[row + 24] and self.scan.table[row + 1 : row + 9] == key:
                return slot
        return None

    def bind(self, number: int, mark: int = 0x1234) -> None:
        """Let the gateway acknowledge this tag's row."""
        slot = self.slot(number)
        assert slot is not None
        self.reader.link.sequence += 1
        self.scan.table[slot * SIZE + 27 : slot * SIZE + 29] = self.reader.link.sequence.to_bytes(2, "big")
        self.reader.call(self.scan.bind, slot, self.reader.link.sequence, mark, self.reader.ticks())

    def mark(self, number: int) -> int:
        slot = self.slot(number)
        return -1 if slot is None else int.from_bytes(self.scan.table[slot * SIZE + 25 : slot * SIZE + 27], "big")

    def marked(self, numbers: range) -> set[int]:
        return {number for number in numbers if self.mark(number) > 0}


def full(seed: int, dbm: Callable[[int], int]) -> Asked:
    """Return a reader whose table is full: KNOWN_MAX known tags 0.., the others have no mark. dbm: of a tag."""
    asked = Asked(seed)
    for number in range(ROWS):
        asked.hear(number, dbm(number))
        if number < KNOWN_MAX:
            asked.bind(number)
    assert asked.scan.tags == ROWS
    assert asked.marked(range(ROWS)) == set(range(KNOWN_MAX))
    return asked


# ---- the level of a row ----


def test_a_rows_level_outlives_its_report_and_the_next_packet_begins_a_new_mean(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(3)
    for dbm in (-90, -50, -127, -70):
        tag.rssi_dbm = 127 if dbm == -127 else dbm
        before = len(s.sent)
        while not s.advertise(tag):
            s.run(0.007)
        s.run(4)
        rows = [wire.decode_bindings(f.body)[0][1] for f in s.sent[before:] if f.kind == wire.BINDINGS]
        rows += [wire.decode_sightings(f.body)[0][1] for f in s.sent[before:] if f.kind == wire.SIGHTINGS]
        assert rows == [None if dbm == -127 else dbm]


# ---- who goes first ----


def test_with_a_short_budget_loud_tags_are_told_in_each_window_and_the_others_in_turn(street: Make) -> None:
    s = street(seed=6)
    tags = s.add_tags(110, period_ms=200)
    for tag in tags:
        tag.rssi_dbm = -60 if tag.number % 11 == 0 else -90
    s.start()
    s.run(60)
    s.downlink(wire.SETTINGS, s.settings(1, frames_per_min=60, scan_interval_ms=10, scan_window_ms=5))
    s.run(30)
    since_ms = s.now_ms
    s.run(60)
    seen = s.seen(since_ms=since_ms)
    loud = [seen[tag.number] for tag in tags if tag.rssi_dbm == -60]
    quiet = [seen[tag.number] for tag in tags if tag.rssi_dbm == -90]
    print(f"seed {s.seed}: loud {min(loud)} to {max(loud)}, others {min(quiet)} to {max(quiet)} rows in 30 windows")
    assert min(loud) >= 28
    assert max(quiet) < 15, "the budget is short"
    assert min(quiet) >= 0.5 * max(quiet), "none is left out"
    assert s.wrong == []
    assert s.heartbeats()[-1]["discards"] > 0


# ---- who stays in a full table ----


@pytest.mark.parametrize("seed", range(5))
def test_a_loud_newcomer_gets_the_row_of_a_quieter_stranger_and_never_that_of_a_known_tag(seed: int) -> None:
    asked = full(seed, lambda number: -85)
    for number in range(1000, 1000 + (ROWS - KNOWN_MAX) // 2):
        heard = 0
        while asked.slot(number) is None:
            asked.hear(number, -60)
            heard += 1
        assert heard <= 8, "it looks at a quarter of the table each time"
    assert asked.marked(range(ROWS)) == set(range(KNOWN_MAX))


def test_quiet_newcomers_do_not_push_out_a_loud_one_that_waits_for_its_binding() -> None:
    kept = 0
    for seed in range(40):
        asked = full(seed, lambda number: -85)
        asked.hear(500, -65)
        for number in range(1000, 1080):
            asked.hear(number, -88)
        kept += asked.slot(500) is not None
    assert kept >= 26, "of 40: one in 32 of the 80 quiet ones takes any of the 16 rows without a mark"


def test_nobody_is_kept_out_for_ever() -> None:
    asked = full(3, lambda number: -50)
    tries = 0
    while asked.slot(700) is None:
        asked.hear(700, -97)
        tries += 1
        assert tries < 400
    assert tries > 1


def test_who_is_gone_gives_way_to_a_quieter_one() -> None:
    asked = full(4, lambda number: -50)
    asked.later(30)
    asked.hear(800, -90)
    assert asked.slot(800) is not None, "-50 dBm half a minute ago is worth less than -90 now"
    assert asked.marked(range(ROWS)) == set(range(KNOWN_MAX))


def test_the_quietest_known_tag_loses_its_mark_to_a_new_one_but_not_its_row() -> None:
    asked = full(5, lambda number: -60 - number % 30)
    quietest = {number for number in range(KNOWN_MAX) if number % 30 == 29}
    asked.hear(120, -55)
    asked.bind(120)
    lost = set(range(KNOWN_MAX)) - asked.marked(range(KNOWN_MAX))
    assert len(lost) == 1
    assert lost <= quietest
    assert asked.mark(120) > 0
    assert all(asked.slot(number) is not None for number in lost)


def test_a_cry_gets_a_row_however_quiet_and_keeps_its_mark() -> None:
    asked = full(6, lambda number: -50)
    asked.hear(900, -97, flags=wire.FLAG_SOS)
    assert asked.slot(900) is not None
    asked.bind(900)
    for number in range(KNOWN_MAX, ROWS):
        if asked.slot(number) is not None:
            asked.bind(number)
    assert asked.mark(900) > 0


def test_a_flood_of_loud_strangers_pushes_out_no_known_tag() -> None:
    dice = random.Random(7)
    asked = full(7, lambda number: -95)
    for _ in range(3000):
        asked.hear(dice.getrandbits(60), -30, flags=dice.choice((0, wire.FLAG_SOS)))
    assert asked.marked(range(KNOWN_MAX)) == set(range(KNOWN_MAX))
    assert asked.scan.tags == ROWS
