"""Slots, ages and acknowledgements: a row never names the wrong child, and the table recovers from lost frames."""

import random
from collections import Counter

import pytest

from gateway.core import frames
from gateway.core.frames import Frame, ReaderLinks, Report
from gateway.core.losses import Losses
from gateway.core.resolve import Resolver
from gateway.core.sightings import ACK_WAIT_S, REBIND_QUIET_S, Sighting, Table, WallClock
from gateway.effects import Downlink
from readers import wire
from tests.gateway.core.bed import KEYS, TAGS, Pole, acks, advertisement, on_air


class Bed:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.links = ReaderLinks.of(KEYS)
        self.losses = Losses(KEYS, self.counts)
        self.resolver = Resolver(TAGS, self.counts)
        self.table = Table(self.links, self.losses, self.resolver, self.counts)

    def hear(self, frame: Frame, now_s: float, *, answer: bool = True) -> tuple[list[Sighting], list[Downlink]]:
        report = frames.read(self.links, frame.payload)
        assert isinstance(report, Report)
        heard = self.table.read(report, now_s)
        return heard, list(self.table.answer(report, now_s)) if answer else []


def id_of(sighting: Sighting) -> bytes:
    assert sighting.advertisement is not None
    return sighting.advertisement.rotating_id


def test_a_bound_slot_is_its_tag_and_ages_become_times() -> None:
    bed, pole = Bed(), Pole(2)
    raw = advertisement("tag-001", count=100)
    [bound], _ = bed.hear(pole.bind((5, raw), rssi_dbm=-61, age_ms=300), 50.0)
    assert (bound.whole, bound.reader, bound.rssi_dbm, bound.counter) == (True, 2, -61, on_air(100, "tag-001"))
    assert bound.heard_at_s == pytest.approx(49.7)
    [row], _ = bed.hear(pole.see((5, on_air(103, "tag-001")), rssi_dbm=-70, age_ms=1000), 53.0)
    assert (row.whole, row.counter, row.rssi_dbm, row.packets, row.timely) == (
        False,
        on_air(103, "tag-001"),
        -70,
        2,
        True,
    )
    assert row.heard_at_s == pytest.approx(52.0)
    assert id_of(row) == raw[1:9]
    [late], _ = bed.hear(pole.see((5, on_air(104, "tag-001")), age_ms=60_000, moving=True), 100.0)
    assert not late.timely
    assert (bound.moving, row.moving, late.moving) == (None, False, None)
    [moves], _ = bed.hear(pole.see((5, on_air(106, "tag-001")), moving=True), 102.0)
    assert moves.moving


def test_a_frame_that_another_overtook_tells_of_an_older_beacon() -> None:
    bed, pole = Bed(), Pole(2)
    bed.hear(pole.bind((5, advertisement("tag-001", count=100))), 50.0)
    heard = {count: on_air(count, "tag-001") for count in (102, 104, 106)}
    first, second = pole.see((5, heard[102]), moving=True), pole.see((5, heard[104]))
    [newer], _ = bed.hear(second, 54.0)
    [older], _ = bed.hear(first, 56.0)
    assert (newer.counter, older.counter) == (heard[104], heard[102]), "not the next lap of the five bits"
    assert older.heard_at_s <= newer.heard_at_s
    [next_one], _ = bed.hear(pole.see((5, heard[106])), 57.0)
    assert next_one.counter == heard[106]


def test_an_unknown_slot_asks_for_all_bindings_and_not_too_often() -> None:
    bed, pole = Bed(), Pole(2)
    heard, sent = bed.hear(pole.see((5, 1), (6, 2)), 10.0)
    assert heard == []
    assert acks(sent, pole) == [(wire.ACK_REBIND, [])]
    assert bed.hear(pole.see((5, 1)), 10.0 + REBIND_QUIET_S - 0.1)[1] == []
    assert acks(bed.hear(pole.see((5, 1)), 10.0 + REBIND_QUIET_S)[1], pole) == [(wire.ACK_REBIND, [])]
    other = Pole(3)
    assert acks(bed.hear(other.see((5, 1)), 12.0)[1], other) == [(wire.ACK_REBIND, [])], "each reader for itself"
    assert bed.counts["rows_unknown_slot"] == 5


def test_bindings_and_heartbeats_are_acknowledged_together() -> None:
    bed, pole = Bed(), Pole(2)
    bed.hear(pole.bind((1, advertisement("tag-001"))), 10.0)
    bed.hear(pole.bind((2, advertisement("tag-002"))), 10.1)
    bed.hear(pole.beat(), 10.15)
    assert list(bed.table.flush(10.0 + ACK_WAIT_S - 0.01)) == []
    assert bed.table.deadline_s() == pytest.approx(10.0 + ACK_WAIT_S)
    assert acks(bed.table.flush(10.0 + ACK_WAIT_S), pole) == [(0, [1, 2, 3])]
    assert bed.table.deadline_s() == float("inf")


def test_owed_acknowledgements_are_bounded() -> None:
    bed, pole = Bed(), Pole(2)
    found = [ack for _ in range(100) for ack in acks(bed.hear(pole.beat(), 10.0)[1], pole)]
    found += acks(bed.table.flush(99.0), pole)
    assert [s for _, sequences in found for s in sequences] == list(range(1, 101))
    assert max(len(sequences) for _, sequences in found) == wire.ACKS_MAX


def test_a_repeated_binding_is_acknowledged_again_but_not_heard_again() -> None:
    bed, pole = Bed(), Pole(2)
    frame = pole.bind((1, advertisement("tag-001")))
    bed.hear(frame, 10.0)
    assert acks(bed.table.flush(11.0), pole) == [(0, [1])]
    assert bed.hear(frame, 11.5)[0] == []
    assert acks(bed.table.flush(12.0), pole) == [(0, [1])], "its acknowledgement was lost"


def test_after_our_own_restart_a_repeated_binding_is_not_acknowledged() -> None:
    """The sequence is remembered, the slot is not. After an acknowledgement the reader would use an unknown slot."""
    bed, pole = Bed(), Pole(2)
    frame = pole.bind((1, advertisement("tag-001")))
    bed.hear(frame, 10.0)
    again = Bed()
    frames.restore(again.links, frames.snapshot(bed.links))
    again.hear(frame, 11.0)
    assert list(again.table.flush(99.0)) == []


def test_one_packet_told_twice_counts_once() -> None:
    bed, pole = Bed(), Pole(2)
    raw = advertisement("tag-001", count=10)
    assert len(bed.hear(pole.bind((1, raw), age_ms=0), 10.0)[0]) == 1
    assert bed.hear(pole.bind((1, raw), age_ms=1000), 11.0)[0] == [], "no acknowledgement came, so it says it again"
    assert len(bed.hear(pole.see((1, 11), age_ms=0), 12.0)[0]) == 1
    assert bed.hear(pole.see((1, 11), age_ms=1000), 13.0)[0] == []
    assert len(bed.hear(pole.see((1, 11), age_ms=0), 15.0)[0]) == 1, "a resting tag repeats its counter"
    assert bed.counts["rows_repeated"] == 2


def test_several_readers_keep_their_own_sighting_of_one_beacon() -> None:
    bed = Bed()
    raw = advertisement("tag-001", count=10)
    heard = [bed.hear(Pole(n).bind((1, raw)), 10.0)[0] for n in (1, 2, 3)]
    assert [[s.reader for s in each] for each in heard] == [[1], [2], [3]]


def test_a_new_boot_forgets_the_slots() -> None:
    bed, pole = Bed(), Pole(2, boot=4)
    bed.hear(pole.bind((1, advertisement("tag-001"))), 10.0)
    reborn = Pole(2, boot=5)
    heard, sent = bed.hear(reborn.see((1, 2)), 12.0)
    assert heard == []
    assert acks(sent, reborn) == [(wire.ACK_REBIND, [])]


def test_a_row_overtaken_by_its_slots_new_binding_is_nobodys() -> None:
    bed, pole = Bed(), Pole(2)
    bed.hear(pole.bind((1, advertisement("tag-001"))), 10.0)
    old_row = pole.see((1, 5))
    bed.hear(pole.bind((1, advertisement("tag-002"))), 11.0)
    assert bed.hear(old_row, 11.2)[0] == []
    assert bed.counts["rows_before_binding"] == 1


def test_a_replayed_binding_of_a_drawn_boot_names_no_other_child() -> None:
    """A boot that was drawn and forgotten looks new when it is replayed. The reader's own rows are not read by it."""
    bed, old, own = Bed(), Pole(2, wire.BOOT_DRAWN | 1), Pole(2, wire.BOOT_DRAWN | 99)
    recorded = old.bind((5, advertisement("tag-009")))
    bed.hear(recorded, 10.0)
    for n in range(2, 2 + frames.DRAWN_MAX):
        bed.hear(Pole(2, wire.BOOT_DRAWN | n).beat(), 20.0)
    raw = advertisement("tag-001", count=100)
    bed.hear(own.bind((5, raw)), 30.0)
    assert acks(bed.table.flush(31.0), own) == [(0, [1])]
    bed.hear(recorded, 32.0)
    assert frames.boot_of(bed.links, 2) == old.boot, "taken as new"
    heard, sent = bed.hear(own.see((5, 102)), 33.0)
    assert (heard, acks(sent, own)) == ([], [(wire.ACK_REBIND, [])]), "asked again, never guessed"
    bed.hear(own.bind((5, raw)), 34.0)
    [row] = bed.hear(own.see((5, 104)), 36.0)[0]
    assert id_of(row) == raw[1:9]


def test_a_frame_of_another_boot_acknowledges_nothing() -> None:
    """Sequences repeat from boot to boot: 2 of the old boot would acknowledge 2 of the present one, which was lost."""
    bed, old, own = Bed(), Pole(2, wire.BOOT_DRAWN | 1), Pole(2, wire.BOOT_DRAWN | 99)
    recorded = [old.bind((5, advertisement("tag-009"))), old.beat()]
    for frame in recorded:
        bed.hear(frame, 10.0)
    bed.hear(own.beat(), 20.0)
    assert acks(bed.table.flush(21.0), own) == [(0, [1])]
    for frame in recorded:
        bed.hear(frame, 22.0)
    assert list(bed.table.flush(23.0)) == []


@pytest.mark.parametrize("seed", range(20))
def test_slot_reuse_never_misattributes(seed: int) -> None:
    """A reader gives few slots to many tags; frames are lost, repeated or overtaken; acknowledgements are lost too."""
    rng = random.Random(seed)
    bed, pole = Bed(), Pole(2)
    raws = {name: advertisement(name) for name in TAGS}
    owner: dict[int, str] = {}
    bound: set[int] = set()
    binding_of: dict[int, tuple[int, int]] = {}  # sequence -> (slot, generation of it)
    generation = dict.fromkeys(range(4), 0)
    air: list[tuple[float, Frame, dict[int, str]]] = []
    believed = 0
    for step in range(1500):
        now_s = step * 0.1
        if rng.random() < 0.05 or len(owner) < 4:
            slot = rng.randrange(4)
            owner[slot] = rng.choice(sorted(TAGS))
            bound.discard(slot)
            generation[slot] += 1
        unbound = [slot for slot in owner if slot not in bound]
        if unbound and rng.random() < 0.5:
            slot = rng.choice(unbound)
            frame = pole.bind((slot, raws[owner[slot]]))
            binding_of[pole.sequence] = (slot, generation[slot])
            air.append((now_s + rng.random() * 0.5, frame, {slot: owner[slot]}))
        elif bound:
            truth = {slot: owner[slot] for slot in bound}
            air.append((now_s + rng.random() * 0.5, pole.see(*((slot, step) for slot in sorted(bound))), truth))
        sent: list[Downlink] = []
        for due_s, frame, truth in [each for each in air if each[0] <= now_s]:
            air.remove((due_s, frame, truth))
            if rng.random() < 0.2:
                continue
            for _ in range(1 + (rng.random() < 0.2)):
                for sighting in bed.hear(frame, now_s)[0]:
                    assert id_of(sighting) in [raws[name][1:9] for name in truth.values()]
                    believed += not sighting.whole
        sent += bed.table.flush(now_s)
        for _, sequences in acks([d for d in sent if rng.random() < 0.7], pole):
            for sequence in sequences:
                slot, was = binding_of[sequence]
                if generation[slot] == was:
                    bound.add(slot)
    assert believed > 100


def test_the_counter_is_made_whole_through_gaps() -> None:
    rng = random.Random(7)
    bed, pole = Bed(), Pole(2)
    counter, now_s = 65_000, 100.0
    bed.hear(pole.bind((1, advertisement("tag-001", count=counter))), now_s)
    for _ in range(300):
        passed = rng.choice((1, 2, 3, 5, 20, 60))
        counter, now_s = (counter + passed) & 0xFFFF, now_s + passed + rng.uniform(-0.05, 0.05)
        heard = on_air(counter, "tag-001")
        [row], _ = bed.hear(pole.see((1, heard)), now_s)
        assert row.counter == heard


def test_a_row_told_late_does_not_move_the_counter() -> None:
    bed, pole = Bed(), Pole(2)
    bed.hear(pole.bind((1, advertisement("tag-001", count=100))), 10.0)
    heard = {count: on_air(count, "tag-001") for count in (105, 110, 112)}
    [new], _ = bed.hear(pole.see((1, heard[110])), 20.0)
    [late], _ = bed.hear(pole.see((1, heard[105]), age_ms=5000), 20.1)
    [next_], _ = bed.hear(pole.see((1, heard[112])), 22.0)
    assert (new.counter, late.counter, next_.counter) == (heard[110], heard[105], heard[112])


def test_an_unreadable_advertisement_is_bound_to_nobody() -> None:
    bed, pole = Bed(), Pole(2)
    assert bed.hear(pole.bind((1, bytes([0x30]) + bytes(18))), 10.0)[0] == []
    assert acks(bed.table.flush(11.0), pole) == [(0, [1])], "it would be sent for ever otherwise"
    assert bed.counts["advertisements_unreadable"] == 1


def test_an_sos_is_told_whatever_its_frame() -> None:
    bed, pole = Bed(), Pole(2)
    frame = pole.sos(advertisement("tag-001", flags=wire.FLAG_SOS, press=9), age_ms=1500)
    for _ in range(2):
        [sighting], _ = bed.hear(frame, 10.0)
        assert sighting.cries
        assert sighting.pressed_at_s == pytest.approx(8.5)
    [unreadable], _ = bed.hear(pole.sos(b"\x30" + bytes(range(18))), 11.0)
    assert unreadable.cries
    assert unreadable.advertisement is not None
    assert unreadable.advertisement.sealed_press == 9
    [old], _ = bed.hear(pole.sos(advertisement(), age_ms=10_000_000), 12.0)
    assert old.pressed_at_s is None


@pytest.mark.parametrize("utc_s", [-1e12, 0.0, 1.8e9, 1e12, float("-1e300")])
def test_any_wall_clock_labels(utc_s: float) -> None:
    wall = WallClock(5.0)
    wall.set(utc_s, 5.0, "unsure")
    assert 1970 <= wall.utc(5.0).year <= 9999
    assert 1970 <= wall.utc(-1e9).year <= 9999
