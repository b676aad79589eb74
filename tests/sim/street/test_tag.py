"""A tag: the rhythm of its advertisements, what they contain, when it is silent, and that only its keys open them."""

import itertools

import pytest

from readers import advertisement
from readers.advertisement import EPOCH_S
from readers.wire import FLAG_BATTERY_LOW, FLAG_CLOCK_UNSURE, FLAG_MOVING, FLAG_SOS
from sim.street.tag import CRY_FOR_S, MOVING_FOR_S, SILENT_S, Advert, Tag

UNIX_S = 1_700_000_100.0  # an epoch begins
QUIET_S = 100.0
"""Some time after the epoch's begin: every tag sends."""


def beacons(tag: Tag, until_s: float, moving: bool = False) -> list[Advert]:
    found = []
    while tag.next_s < until_s:
        found.append(tag.advertise(moving))
    return found


def body(advert: Advert) -> advertisement.Advertisement:
    assert advert.payload[:3] == b"\x02\x01\x06"
    return advertisement.parse(advert.payload[7:])


def contents(tag: Tag, advert: Advert) -> advertisement.Contents:
    opened = body(advert).open(tag.keys, advertisement.epoch_at(tag.clock_s(advert.sent_s)))
    assert opened is not None
    return opened


def made(number: int, unix_s: float = UNIX_S + QUIET_S) -> Tag:
    return Tag(1, number, f"tag-{number:03d}", unix_s)


def test_it_beacons_once_a_second_with_up_to_ten_milliseconds_added() -> None:
    sent = [a.sent_s for a in beacons(made(1), 600)]
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert len(gaps) > 590
    assert min(gaps) >= 0.9999, "its crystal may be fast by some ten parts in a million"
    assert max(gaps) <= 1.0101
    assert max(gaps) - min(gaps) > 0.005


def test_a_press_is_out_at_once_then_every_100_ms_for_3_s_then_every_second_for_10_minutes() -> None:
    tag = made(2)
    before = beacons(tag, 20)
    tag.press(20.0)
    after = beacons(tag, 20 + CRY_FOR_S + 60)
    assert after[0].sent_s == 20.0
    cries = [a.sent_s for a in after if body(a).flags & FLAG_SOS]
    fast = [s for s in cries if s < 23]
    assert 27 <= len(fast) <= 31
    slow = [b - a for a, b in itertools.pairwise(cries) if a >= 23]
    assert min(slow) >= 0.9999
    assert max(slow) <= 1.0101
    assert 20 + CRY_FOR_S - 2 < cries[-1] < 20 + CRY_FOR_S
    assert not body(after[-1]).flags & FLAG_SOS
    assert {contents(tag, a).press for a in after} == {(contents(tag, before[-1]).press + 1) & 0xFF}


def test_every_advertisement_is_new_and_opens_with_the_tags_own_keys_only() -> None:
    tag, other = made(3, UNIX_S + 800), made(4, UNIX_S + 800)
    counts = []
    for advert in beacons(tag, 200):
        epoch = advertisement.epoch_at(tag.clock_s(advert.sent_s))
        counts.append(contents(tag, advert).count)
        assert body(advert).open(other.keys, epoch) is None
        assert body(advert).rotating_id == advertisement.rotating_id(tag.keys.k_id, epoch)
    assert [(c - counts[0]) & 0xFFFF for c in counts] == list(range(len(counts))), "over the change of the id too"


def test_id_and_address_change_in_the_same_packet() -> None:
    tag = made(5, UNIX_S)
    pairs = [(a.address, body(a).rotating_id) for a in beacons(tag, 2.5 * EPOCH_S)]
    assert len(set(pairs)) == len({address for address, _ in pairs}) == len({i for _, i in pairs}) == 3
    changes = [n for n, (a, b) in enumerate(itertools.pairwise(pairs)) if a != b]
    assert len(changes) == 2, "no id and no address comes back"


def silences(tag: Tag, changes: int) -> list[tuple[float, float]]:
    """When it fell silent before each change of the id, and when it began after it: seconds by its own clock."""
    found: list[tuple[float, float]] = []
    last = tag.advertise(False)
    while len(found) < changes:
        advert = tag.advertise(False)
        if body(advert).rotating_id != body(last).rotating_id:
            change_s = tag.clock_s(advert.sent_s) // EPOCH_S * EPOCH_S
            found.append((change_s - tag.clock_s(last.sent_s), tag.clock_s(advert.sent_s) - change_s))
        else:
            assert advert.sent_s - last.sent_s < 1.02, "silent only round a change"
        last = advert
        since_s = tag.clock_s(tag.next_s) % EPOCH_S
        if SILENT_S + 5 < since_s < EPOCH_S - SILENT_S - 5:
            tag.next_s += EPOCH_S - SILENT_S - 5 - since_s  # to save time; test_id_and_address runs through all of it
            last = tag.advertise(False)
    return found


def test_it_is_silent_round_each_change_of_its_id_at_moments_drawn_anew() -> None:
    print("seed 1")
    found = [pair for number in range(10, 20) for pair in silences(made(number, UNIX_S + 600), 4)]
    for until_s, begins_s in found:
        assert 0 < until_s <= SILENT_S + 1.02
        assert 0 <= begins_s <= SILENT_S
    assert len({round(until_s, 3) for until_s, _ in found}) == len({round(b, 3) for _, b in found}) == 40
    mean = sum(a for a, _ in found) / 40 - 0.5, sum(b for _, b in found) / 40
    assert all(SILENT_S / 2 - 4 < m < SILENT_S / 2 + 4 for m in mean)
    together = sum((a - 0.5 - SILENT_S / 2) * (b - SILENT_S / 2) for a, b in found) / 40
    assert abs(together) < 0.4 * SILENT_S**2 / 12, "the moment of vanishing tells nothing about that of appearing"


@pytest.mark.parametrize("at_s", [49.5, 50.5])
def test_a_press_in_the_silence_cries_at_once_with_the_id_of_that_moment(at_s: float) -> None:
    """The id changes after 50 s by a true clock: once a press before that, once after it."""
    silent = 0
    for number in range(100, 130):
        tag = made(number, UNIX_S + EPOCH_S - 50)
        beacons(tag, at_s)
        silent += tag.next_s > at_s + 2
        tag.press(at_s)
        cries = beacons(tag, at_s + 2)
        assert cries[0].sent_s == at_s
        assert len(cries) > 15
        for cry in cries:
            assert contents(tag, cry).flags & FLAG_SOS
            epoch = advertisement.epoch_at(tag.clock_s(cry.sent_s))
            assert body(cry).rotating_id == advertisement.rotating_id(tag.keys.k_id, epoch)
    assert silent > 20


def test_a_crying_tag_changes_its_id_without_a_silence_and_is_silent_again_afterwards() -> None:
    tag = made(6, UNIX_S)
    press_s = EPOCH_S - 300.0
    beacons(tag, press_s)
    tag.press(press_s)
    cries = beacons(tag, press_s + CRY_FOR_S - 1.1)
    assert max(b.sent_s - a.sent_s for a, b in itertools.pairwise(cries)) < 1.02
    assert len({body(a).rotating_id for a in cries}) == 2
    [pair] = silences(tag, 1)  # the next change, when the cry is over
    assert sum(pair) > 2


def test_a_cry_that_ends_in_the_silence_ends_in_silence() -> None:
    number = next(
        n for n in range(100, 400) if (t := made(n, UNIX_S)) and beacons(t, EPOCH_S) and t.next_s > EPOCH_S + 8
    )
    tag = made(number, UNIX_S)
    tag.press(EPOCH_S + 2 - CRY_FOR_S)
    sent = beacons(tag, EPOCH_S + 60)
    last = max(a.sent_s for a in sent if a.cry)
    assert EPOCH_S < last <= EPOCH_S + 2
    assert min(a.sent_s for a in sent if not a.cry) > EPOCH_S + 8


def test_the_motion_flag_outlives_the_last_step_by_a_minute() -> None:
    tag = made(7)
    beacons(tag, 10, moving=True)
    still = beacons(tag, 90, moving=False)
    up = [a.sent_s for a in still if body(a).flags & FLAG_MOVING]
    assert MOVING_FOR_S == 60
    assert 68 < max(up) < 70.1


def test_a_new_battery_draws_both_counters_and_keeps_keys_clock_and_ids() -> None:
    tag, other = made(8), made(8)
    before = beacons(tag, 50)
    old = contents(tag, before[-1])
    tag.change_battery(50.0, 20.0)
    after = beacons(tag, 200)
    new = contents(tag, after[0])
    assert 70 <= after[0].sent_s < 71
    assert body(after[0]).rotating_id == body(before[-1]).rotating_id
    assert (new.press, (new.count - old.count) & 0xFFFF > 200) != (old.press, False)
    assert not new.flags & (FLAG_SOS | FLAG_BATTERY_LOW | FLAG_CLOCK_UNSURE)
    beacons(other, 50)
    other.change_battery(50.0, 20.0)
    assert contents(other, other.advertise(False)) == new, "drawn from the seed"
    tag.change_battery(200.0)
    assert contents(tag, tag.advertise(False)).count not in range(new.count, new.count + 300)


def test_a_cry_ends_with_its_battery_and_the_next_press_is_told_with_a_drawn_number() -> None:
    tag = made(9)
    tag.press(5.0)
    assert beacons(tag, 8)[-1].cry
    tag.change_battery(8.0, 30.0)
    assert not tag.crying
    drawn = contents(tag, tag.advertise(False)).press
    tag.press(60.0)
    assert contents(tag, tag.advertise(False)).press == (drawn + 1) & 0xFF


def test_a_tag_that_lost_its_clock_says_so_and_lags_by_the_time_without_power() -> None:
    tag = made(20)
    before_s = tag.clock_s(50.0)
    tag.change_battery(50.0, 400.0, keeps_clock=False)
    assert tag.clock_s(450.0) == pytest.approx(before_s, abs=0.1)
    assert contents(tag, tag.advertise(False)).flags & FLAG_CLOCK_UNSURE


def test_a_story_may_begin_in_a_silence() -> None:
    tag = made(21, UNIX_S + EPOCH_S - 0.01)
    tag.begin(UNIX_S + QUIET_S)
    assert tag.next_s < 1
    tag.begin(UNIX_S + EPOCH_S - 0.01)
    assert advertisement.epoch_at(tag.clock_s(tag.next_s)) == UNIX_S // EPOCH_S + 1
    assert tag.next_s < 2 * SILENT_S


def test_a_tag_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert Tag(1, 7, "t").keys == Tag(1, 7, "t").keys
    assert Tag(1, 7, "t").keys != Tag(2, 7, "t").keys
    assert Tag(1, 7, "t").keys != Tag(1, 8, "t").keys
    assert Tag(1, 7, "t").clock_offset_s == pytest.approx(Tag(1, 7, "t").clock_offset_s)
