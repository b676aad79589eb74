"""A tag: the rhythm of its advertisements, what they contain, and that only its keys open them."""

import itertools

import pytest

from readers import advertisement
from readers.wire import FLAG_MOVING, FLAG_SOS
from sim.street.tag import CRY_FOR_S, Advert, Tag

UNIX_S = 1_700_000_100.0


def beacons(tag: Tag, until_s: float, moving: bool = False) -> list[Advert]:
    found = []
    while tag.next_s < until_s:
        found.append(tag.advertise(moving))
    return found


def body(advert: Advert) -> advertisement.Advertisement:
    assert advert.payload[:3] == b"\x02\x01\x06"
    return advertisement.parse(advert.payload[7:])


def test_it_beacons_once_a_second_with_up_to_ten_milliseconds_added() -> None:
    sent = [a.sent_s for a in beacons(Tag(1, 1, "tag-001", UNIX_S), 600)]
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= 1.010
    assert max(gaps) - min(gaps) > 0.005


def test_a_press_is_out_at_once_then_every_100_ms_for_3_s_then_every_second_for_10_minutes() -> None:
    tag = Tag(1, 2, "tag-002", UNIX_S)
    before = beacons(tag, 20)
    tag.press(20.0)
    after = beacons(tag, 20 + CRY_FOR_S + 60)
    assert after[0].sent_s == 20.0
    cries = [a.sent_s for a in after if body(a).flags & FLAG_SOS]
    fast = [s for s in cries if s < 23]
    assert 27 <= len(fast) <= 31
    slow = [b - a for a, b in itertools.pairwise(cries) if a >= 23]
    assert min(slow) >= 1.0
    assert max(slow) <= 1.010
    assert 20 + CRY_FOR_S - 2 < cries[-1] < 20 + CRY_FOR_S
    assert not body(after[-1]).flags & FLAG_SOS
    assert {body(a).press for a in after} == {(body(before[-1]).press + 1) & 0xFF}


def test_every_advertisement_is_new_and_opens_with_the_tags_own_keys_only() -> None:
    tag, other = Tag(1, 3, "tag-003", UNIX_S), Tag(1, 4, "tag-004", UNIX_S)
    counters = []
    for advert in beacons(tag, 30):
        epoch = advertisement.epoch_at(UNIX_S + advert.sent_s + tag.clock_offset_s)
        parsed = body(advert)
        counters.append(parsed.counter)
        assert parsed.verify(tag.keys, epoch)
        assert not parsed.verify(other.keys, epoch)
        assert parsed.rotating_id == advertisement.rotating_id(tag.keys.k_id, epoch)
    assert counters == list(range(counters[0], counters[0] + len(counters)))


def test_id_and_address_roll_together() -> None:
    tag = Tag(1, 5, "tag-005", UNIX_S)
    pairs = [(a.address, body(a).rotating_id) for a in beacons(tag, 2 * advertisement.EPOCH_S)]
    assert len(set(pairs)) == len({address for address, _ in pairs}) == len({i for _, i in pairs}) == 3


def test_the_motion_flag_outlives_the_last_step_by_five_seconds() -> None:
    tag = Tag(1, 6, "tag-006", UNIX_S)
    beacons(tag, 10, moving=True)
    still = beacons(tag, 25, moving=False)
    up = [a.sent_s for a in still if body(a).flags & FLAG_MOVING]
    assert 13 < max(up) < 15.1


def test_a_tag_is_the_same_for_a_seed_and_another_for_another() -> None:
    assert Tag(1, 7, "t").keys == Tag(1, 7, "t").keys
    assert Tag(1, 7, "t").keys != Tag(2, 7, "t").keys
    assert Tag(1, 7, "t").keys != Tag(1, 8, "t").keys
    assert Tag(1, 7, "t").clock_offset_s == pytest.approx(Tag(1, 7, "t").clock_offset_s)
