"""Which alarm a cry is of, row by row of the table at the head of firmware/alarm.py; and what a row of tags keeps."""

import random
from collections import Counter
from typing import Any

import pytest

from readers import advertisement, wire
from tests.firmware.flood import KEY, NUMBER, mac
from tests.firmware.hosted import Hosted


class Pole:
    """The firmware's functions, and what they sent. `now_ms` moves when told."""

    def __init__(self, seed: int = 1) -> None:
        print(f"seed {seed}")
        self.sent: list[tuple[int, bytes]] = []
        self.reader = Hosted(number=NUMBER, key=KEY, seed=seed, radio=self._on_frame)
        self.alarm, self.scan = self.reader.alarm, self.reader.scan
        self.reader.link.boot = 1
        self.wait(5000)

    def _on_frame(self, now_ms: float, frame: bytes) -> None:
        self.sent.append((wire.peek(frame)[0], wire.body_of(frame, mac)))

    @property
    def now(self) -> int:
        return self.reader.ticks()

    def wait(self, ms: float) -> None:
        self.reader.now_ms += ms

    def cry(self, body: bytes, loss: int = 60, *, mark: bool = False) -> None:
        self.reader.call(self.alarm.cry, body, loss, self.now, mark)

    def hear(self, body: bytes, rssi_dbm: int = -60) -> None:
        self.reader.call(self.scan._take, advertisement.payload(body), -rssi_dbm, self.now)

    def tick(self, times: int = 1) -> list[tuple[Any, ...]]:
        """Return the SOS frames of so many passes."""
        before = len(self.sent)
        for _ in range(times):
            self.reader.call(self.alarm.show, self.now)
            self.reader.call(self.alarm.tick, self.now)
            self.wait(20)
        return [wire.decode_sos(body) for kind, body in self.sent[before:] if kind == wire.SOS]

    def stage(self, number: int, stage: int) -> None:
        self.reader.call(self.alarm.reach, number, stage, self.now)
        self.reader.call(self.alarm.show, self.now)

    def bind(self, body: bytes, mark: int) -> int:
        """Bind the row of this id as the gateway does. Return its slot."""
        table = self.scan.table
        slot = next(i for i in range(128) if table[29 * i + 24] and table[29 * i + 1 : 29 * i + 9] == body[1:9])
        self.reader.link.sequence += 1
        low = self.reader.link.sequence & 0xFFFF
        if not (table[29 * slot + 27] | table[29 * slot + 28]):
            table[29 * slot + 27 : 29 * slot + 29] = low.to_bytes(2, "big")
        self.reader.call(self.scan.bind, slot, low, mark, self.now)
        return slot


class Child:
    def __init__(self, seed: int) -> None:
        self.keys = advertisement.TagKeys(bytes([seed]) * 16, bytes([seed, 1]) * 8)
        self.press, self.count = 0, 100

    def body(self, *, cries: bool = True, count: int | None = None) -> bytes:
        if count is None:
            count = self.count = self.count + 1
        flags = wire.FLAG_SOS if cries else 0
        return advertisement.build(self.keys, 1000, flags=flags, press=self.press, count=count)

    def pressed(self) -> bytes:
        self.press += 1
        return self.body()

    def next_mark(self) -> int:
        return advertisement.mark(self.keys, 1000, self.press + 1)


def forged(dice: random.Random, like: bytes | None = None) -> bytes:
    body = bytearray(dice.randbytes(19))
    body[0], body[9] = wire.ADVERTISEMENT_VERSION, body[9] | wire.FLAG_SOS
    if like is not None:
        body[1:9] = like[1:9]
    return bytes(body)


def test_a_forged_cry_with_the_same_id_and_press_is_another_alarm() -> None:
    pole, child = Pole(), Child(1)
    pole.hear(child.body(cries=False))
    pole.bind(child.body(cries=False), child.next_mark())
    press = child.pressed()
    false = press[:13] + b"\1\2" + press[15:]
    pole.hear(false)
    [told] = pole.tick()
    assert told[5] == false
    pole.stage(told[0], wire.ACKNOWLEDGED)
    pole.tick(3)
    pole.hear(press)
    [true] = pole.tick()
    assert true[5] == press
    assert true[0] != told[0]
    assert true[1] == wire.WAITING
    assert pole.alarm.lit[2] == wire.WAITING, "the lamp says of the child what is true for the child"


def test_the_first_advertisement_is_sent_until_it_is_answered_then_the_newest() -> None:
    pole, child = Pole(), Child(1)
    first = child.pressed()
    pole.cry(first, mark=True)
    copy = child.body()[:15] + b"copy"
    pole.cry(copy, mark=True)
    for _ in range(3):
        [told] = pole.tick()
        assert told[5] == first
        pole.wait(3000)
    pole.stage(told[0], wire.RECEIVED)
    newest = child.body()
    pole.cry(newest, mark=True)
    assert pole.tick()[-1][5] == newest


def test_an_alarm_becomes_marked_when_the_gateway_has_told_its_mark() -> None:
    pole, child = Pole(), Child(1)
    pole.hear(child.pressed())
    [told] = pole.tick()
    assert not pole.alarm._state[pole.alarm._MARKED :: pole.alarm._SIZE].count(1)
    pole.bind(child.body(), advertisement.mark(child.keys, 1000, child.press))
    pole.hear(child.body())
    assert pole.alarm._state[pole.alarm._MARKED :: pole.alarm._SIZE].count(1) == 1
    pole.wait(2000)
    assert {row[0] for row in pole.tick(3)} == {told[0]}


def numbers(pole: Pole, seconds: float) -> Counter[bytes]:
    """Return how often each advertisement's id is sent in so many seconds."""
    return Counter(bytes(row[5][1:9]) for row in pole.tick(round(seconds * 1000 / 28)))


def test_strangers_hold_three_places_and_none_of_a_known_child_or_a_bell() -> None:
    pole, dice = Pole(), random.Random(3)
    children = [Child(i) for i in range(8)]
    for _ in range(50):
        pole.cry(forged(dice))
    for child in children[:5]:
        pole.cry(child.pressed(), mark=True)
    for _ in range(500):
        pole.cry(forged(dice))
    state, size = pole.alarm._state, pole.alarm._SIZE
    assert sum(state[size * i] == wire.SOS and not state[size * i + 26] for i in range(8)) == 3
    for child in children[5:]:
        pole.cry(child.pressed(), mark=True)
    for _ in range(500):
        pole.cry(forged(dice))
    told = pole.tick(8)
    assert {row[5][1:9] for row in told} == {child.body()[1:9] for child in children}
    assert pole.reader.link.counters[1] > 900, "what it dropped is counted"
    for number in [row[0] for row in told]:
        pole.stage(number, wire.CLOSED)
    pole.tick(20)
    stranger = forged(dice)
    pole.cry(stranger)
    assert [row[5] for row in pole.tick(2)] == [stranger], "where alarms are closed there is a place"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("turn", [0, 5, 10])
def test_no_arrangement_of_times_keeps_a_strangers_cry_from_being_told(seed: int, turn: int) -> None:
    """In each second the true cry comes first, in the middle or last, and 10 forged ones come round it."""
    pole, dice, child = Pole(seed), random.Random(seed), Child(1)
    press = child.pressed()
    told: Counter[bool] = Counter()
    for _ in range(400):
        for k in range(11):
            pole.cry(press[:11] + child.body()[11:] if k == turn else forged(dice))
        for row in pole.tick(36):
            told[row[5][1:9] == press[1:9]] += row[1] < wire.CLOSED
            pole.stage(row[0], wire.CLOSED)
    print(f"at {turn} of 10: {told[True]} of {told.total()}")
    assert told[True] >= told.total() / 11 / 3, "a third of a fair share, with luck against it"


def test_strangers_frames_have_a_budget_and_a_lone_one_leaves_at_once() -> None:
    pole, dice = Pole(), random.Random(5)
    lone = forged(dice)
    pole.cry(lone)
    assert [row[5] for row in pole.tick()] == [lone]
    count = 0
    for _ in range(3000):
        pole.cry(forged(dice))
        count += len(pole.tick())
    seconds = 3000 * 0.028
    print(f"{count} frames in {seconds:.0f} s")
    assert count <= seconds + 2
    child = Child(1)
    pole.cry(child.pressed(), mark=True)
    assert pole.tick()[0][5][1:9] == child.body()[1:9], "and a known child waits for none of them"


def test_a_flood_does_not_use_up_the_numbers_of_alarms() -> None:
    pole, dice, child = Pole(), random.Random(6), Child(1)
    pole.cry(child.pressed(), mark=True)
    [told] = pole.tick()
    for _ in range(3000):
        pole.cry(forged(dice))
    pole.cry(Child(2).pressed(), mark=True)
    [other] = [row for row in pole.tick(2) if row[5][1:9] == Child(2).body()[1:9]]
    assert 0 < other[0] - told[0] <= 4


def test_a_closed_stranger_is_forgotten_and_a_closed_child_stays_closed_while_it_cries_on() -> None:
    pole, dice, child = Pole(), random.Random(7), Child(1)
    false, press = forged(dice), child.pressed()
    pole.cry(false)
    pole.cry(press, mark=True)
    told = pole.tick(2)
    pole.wait(5000)
    for row in told:
        pole.stage(row[0], wire.CLOSED)
    assert {row[1] for row in pole.tick(5)} == {wire.CLOSED}
    pole.cry(false)
    pole.cry(child.body(), mark=True)
    [again] = pole.tick(5)
    assert again[5] == false
    assert again[0] not in [row[0] for row in told]
    assert again[1] == wire.WAITING


@pytest.mark.parametrize("gone", [False, True])
def test_a_press_number_that_is_used_again_is_told(gone: bool) -> None:
    """Of a closed alarm: after a pause, or with a count that does not go on. Repeats and what goes on are not told."""
    pole, child = Pole(), Child(1)
    pole.cry(child.pressed(), mark=True)
    [(number, *_)] = pole.tick()
    pole.stage(number, wire.CLOSED)
    pole.tick()
    if gone:
        for i in range(8):
            pole.cry(Child(10 + i).pressed(), mark=True)
        assert len(pole.tick(8)) == 8
    pole.wait(3000)
    same = child.body()
    for _ in range(30):
        pole.wait(1000)
        pole.cry(same)
        pole.cry(child.body(count=child.count + 30))
        child.count += 30
        same = child.body()
        pole.cry(same)
    assert [row for row in pole.tick(3) if row[5][1:9] == same[1:9]] == []
    pole.cry(child.body(count=child.count - 20))
    told = [row for row in pole.tick(9) if row[5][1:9] == same[1:9]]
    assert len(told) == 1
    assert told[0][0] != number
    pole.stage(told[0][0], wire.CLOSED)
    pole.tick(3)
    pole.wait(61_000 if gone else 11_000)
    pole.cry(child.body(count=child.count - 18))
    assert len([row for row in pole.tick(9) if row[5][1:9] == same[1:9]]) == 1


def test_an_old_packet_between_true_ones_makes_no_number_each_time() -> None:
    pole, child = Pole(), Child(1)
    old = child.body(count=3)
    child.press, child.count = 0, 5000
    told = []
    for _ in range(600):  # a minute: a true one, the old one, a true one
        for body in (child.body(), old):
            pole.cry(body, mark=True)
            for row in pole.tick():
                told.append(row[0])
                pole.stage(row[0], wire.CLOSED)
            pole.wait(22)
    print(f"{len(set(told))} numbers in a minute")
    assert 2 <= len(set(told)) <= 32


def test_the_lamp_shows_the_lowest_stage_of_known_children_and_bells_then_of_strangers() -> None:
    pole, dice = Pole(), random.Random(8)
    false, one, two = forged(dice), Child(1), Child(2)
    pole.cry(false)
    [(stranger, *_)] = pole.tick()
    pole.stage(stranger, wire.ACKNOWLEDGED)
    assert pole.alarm.lit[2] == wire.ACKNOWLEDGED
    pole.cry(one.pressed(), mark=True)
    [(first, shown, *_)] = pole.tick()
    assert (shown, pole.alarm.lit[2]) == (wire.WAITING, wire.WAITING), "help comes, but not to this child so far"
    pole.wait(1500)
    assert [row[:2] for row in pole.tick(3) if row[0] == stranger] == [(stranger, wire.WAITING)], (
        "and its frame says so"
    )
    pole.stage(first, wire.DISPATCHED)
    assert pole.alarm.lit[2] == wire.DISPATCHED
    pole.cry(two.pressed(), mark=True)
    [(second, *_)] = [row for row in pole.tick(4) if row[5][1:9] == two.body()[1:9]]
    for stage in (wire.WAITING, wire.RECEIVED, wire.ACKNOWLEDGED):
        if stage:
            pole.stage(second, stage)
        assert pole.alarm.lit[2] == stage
        pole.wait(400)
        assert {row[1] for row in pole.tick(4) if row[0] in (first, second)} == {stage}
    pole.stage(second, wire.CLOSED)
    assert pole.alarm.lit[2] == wire.DISPATCHED
    assert (second, wire.CLOSED) in [row[:2] for row in pole.tick(2)]
    pole.stage(first, wire.CLOSED)
    assert pole.alarm.lit[2] == wire.ACKNOWLEDGED, "now the stranger's"


@pytest.mark.parametrize(
    ("levels", "told"),
    [((127,), None), ((20, 1), None), ((0,), 0), ((-60, 127, -70), -65), ((127, -60, 3, 127), -60), ((-128,), -126)],
)
def test_a_level_that_is_not_known_is_none_and_never_0_dbm(levels: tuple[int, ...], told: int | None) -> None:
    pole, child = Pole(), Child(1)
    press = child.pressed()
    beacon = advertisement.build_beacon(mac, 9, 1, 1)
    for level in levels:
        pole.hear(press, level)
        pole.hear(beacon, level)
    [row] = pole.tick()
    assert row[3] == told
    for kind in (wire.BINDINGS, wire.SIGHTINGS):
        pole.sent.clear()
        pole.reader.report._now[1:3] = [256, 256]  # both looks through the table
        pole.reader.call(pole.reader.report._rows, pole.now, (kind == wire.SIGHTINGS and 2) or 1)
        [(_, body)] = pole.sent
        assert (wire.decode_bindings if kind == wire.BINDINGS else wire.decode_sightings)(body)[0][1] == told
        slot = pole.bind(press, 0)
        for level in levels:
            pole.reader.call(pole.scan.take, pole.scan.table, slot * 29, min(-level, 126))
    pole.sent.clear()
    pole.reader.report._now[18] = 30
    pole.reader.call(pole.reader.report._neighbours)
    assert wire.decode_neighbours(pole.sent[0][1])[0][5] == told


def test_a_copied_id_takes_no_mark_from_its_row_and_a_flood_no_row() -> None:
    pole, dice = Pole(), random.Random(9)
    children = [Child(i) for i in range(40)]
    for child in children:
        pole.hear(child.body(cries=False))
        pole.bind(child.body(cries=False), child.next_mark())
    for _ in range(20):
        for child in children:
            pole.hear(forged(dice, like=child.body()))
        pole.bind(children[0].body(), 0)  # the gateway does not know what to say of a copy
    for _ in range(3000):
        pole.wait(4)
        pole.hear(forged(dice))
    marks = pole.alarm._state
    for child in children[:5]:
        press = child.pressed()
        pole.hear(press)
        at = next(i for i in range(0, 8 * 27, 27) if marks[i + 8 : i + 16] == press[1:9] and marks[i + 17] == press[10])
        assert marks[at + 26], "known"
    assert pole.scan.tags == 128


def test_a_crowd_of_known_tags_leaves_an_eighth_of_the_table_to_those_that_come() -> None:
    pole = Pole()
    crowd = [Child(i) for i in range(200)]
    for child in crowd:
        pole.wait(200)
        pole.hear(child.body(cries=False))
        pole.bind(child.body(cries=False), child.next_mark())
    table = pole.scan.table
    rows = [table[29 * i : 29 * i + 29] for i in range(128) if table[29 * i + 24]]
    known = {bytes(row[1:9]) for row in rows if row[25] | row[26]}
    assert len(known) == 112
    assert known <= {child.body()[1:9] for child in crowd[80:]}, "of equally loud ones those heard longest ago went"
    dice = random.Random(10)
    seen = set()
    for _ in range(100):
        body = forged(dice)
        pole.wait(250)
        pole.hear(body)
        seen |= {bytes(table[29 * i + 1 : 29 * i + 9]) for i in range(128)} & {body[1:9]}
    assert len(seen) >= 90, "a row without a mark gives way after 2 s to who is as loud"
    assert known <= {bytes(table[29 * i + 1 : 29 * i + 9]) for i in range(128)}


def test_a_third_press_with_one_mark_is_a_strangers() -> None:
    """Who hears a cry can repeat its mark with other presses: two alarms may come of it, not eight."""
    pole, child = Pole(), Child(1)
    pole.hear(child.body(cries=False))
    pole.bind(child.body(cries=False), child.next_mark())
    press = child.pressed()
    for k in range(50):
        pole.hear(press[:10] + bytes([press[10] + k & 0xFF]) + press[11:])
    state, size = pole.alarm._state, pole.alarm._SIZE
    assert sum(state[i] == wire.SOS and state[i + 26] for i in range(0, 8 * size, size)) == 2


def test_a_mark_of_zero_is_no_mark() -> None:
    """A row without a mark has zeros there. Who sends zeros must not take the places and the frames of known tags."""
    pole, dice = Pole(), random.Random(11)
    for _ in range(20):
        body = bytearray(forged(dice))
        body[13:15] = b"\0\0"
        pole.hear(bytes(body))
        pole.hear(bytes(body))
    state, size = pole.alarm._state, pole.alarm._SIZE
    assert not any(state[i + 26] for i in range(0, 8 * size, size) if state[i])
    assert sum(state[i] == wire.SOS for i in range(0, 8 * size, size)) == 3


def test_an_alarm_that_was_closed_and_begins_again_is_told_and_polled_again() -> None:
    pole, child = Pole(), Child(1)
    pole.cry(child.pressed(), mark=True)
    [(number, *_)] = pole.tick()
    pole.stage(number, wire.CLOSED)
    assert [row[1] for row in pole.tick(5)] == [wire.CLOSED]
    pole.stage(number, wire.WAITING)  # the number means another alarm now
    assert [row[:2] for row in pole.tick(9)] == [(number, wire.WAITING)]
    pole.stage(number, wire.RECEIVED)
    assert [row[:2] for row in pole.tick(2)] == [(number, wire.RECEIVED)]


def test_an_acknowledgement_of_an_older_frame_binds_no_row() -> None:
    """The row has a press that the gateway has not seen: four bytes would be read as what the slot was before."""
    pole, child = Pole(), Child(1)
    pole.hear(child.body(cries=False))
    slot = pole.bind(child.body(cries=False), child.next_mark())
    table, old = pole.scan.table, pole.reader.link.sequence
    assert table[29 * slot + 24] == 2
    child.press += 1
    pole.hear(child.body(cries=False))
    pole.reader.link.sequence += 1
    table[29 * slot + 27 : 29 * slot + 29] = (pole.reader.link.sequence & 0xFFFF).to_bytes(2, "big")
    pole.reader.call(pole.scan.bind, slot, old & 0xFFFF, child.next_mark(), pole.now)
    assert table[29 * slot + 24] == 1
    pole.bind(child.body(cries=False), child.next_mark())
    assert table[29 * slot + 24] == 2
