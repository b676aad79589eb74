"""Which tag made an advertisement, and whether it is new: epochs, drift, replays, restarts, unsure clocks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resolve import (
    DRIFT_MAX,
    EPOCHS_MAX,
    GUESS_MARGIN,
    MOTION_LATE_S,
    RANGES_MAX,
    REACH,
    REORDER_S,
    SAME_S,
    UNKNOWN_IDS_MAX,
    UNRESOLVED,
    Resolver,
)
from readers.advertisement import TagKeys, build, epoch_at, parse
from readers.wire import FLAG_CLOCK_UNSURE, FLAG_MOVING, FLAG_SOS
from tests.gateway.core.bed import TAGS, UTC_S, on_air, tag_keys

NOW = epoch_at(UTC_S)
TAG = "tag-003"


def resolver(*, unsure: bool = False, epoch: int = NOW) -> Resolver:
    made = Resolver(TAGS, Counter())
    made.set_epoch(epoch, unsure=unsure)
    while made.unfinished:
        made.fill()
    return made


def resolver_of_one() -> Resolver:
    made = Resolver({TAG: TAGS[TAG]}, Counter())
    made.set_epoch(NOW, unsure=False)
    return made


def hear(
    made: Resolver, *, epoch: int = NOW, counter: int = 1, at_s: float = 0.0, flags: int = 0, keys: TagKeys = TAGS[TAG]
) -> str:
    identity = made.identify(parse(build(keys, epoch, count=counter, flags=flags)), at_s)
    if identity.outcome in ("good", "replayed", "stale_epoch"):
        assert made.tags[identity.tag].name == TAG
        assert identity.epoch == epoch
    else:
        assert identity.tag == UNRESOLVED
    return identity.outcome


@pytest.mark.parametrize("off", range(-REACH - 1, REACH + 2))
def test_routine_is_believed_one_epoch_either_side(off: int) -> None:
    expected = "good" if abs(off) <= 1 else "stale_epoch" if abs(off) <= REACH else "unknown"
    assert hear(resolver(), epoch=NOW + off) == expected


@pytest.mark.parametrize("off", range(-REACH, REACH + 1))
@pytest.mark.parametrize(("unsure", "flags"), [(True, 0), (False, FLAG_SOS), (False, FLAG_CLOCK_UNSURE)])
def test_while_a_clock_is_unsure_or_somebody_cries_the_whole_table_is_searched(
    off: int, unsure: bool, flags: int
) -> None:
    assert hear(resolver(unsure=unsure), epoch=NOW + off, flags=flags) == "good"


def test_a_wrong_mic_is_forged_and_a_strange_id_unknown() -> None:
    made = resolver()
    raw = bytearray(build(TAGS[TAG], NOW))
    raw[12] ^= 1
    assert made.identify(parse(bytes(raw)), 0.0).outcome == "forged"
    assert hear(made, keys=TagKeys(bytes(16), bytes(16))) == "unknown"
    assert made.unknown_ids() == 1
    assert hear(made, counter=1) == "good", "a forgery must not move the counters"


def test_counters_rise_and_what_was_heard_does_not_come_again() -> None:
    made = resolver()
    assert hear(made, counter=100, at_s=0.0) == "good"
    assert hear(made, counter=130, at_s=30.0) == "good"
    assert hear(made, counter=110, at_s=30.0 + REORDER_S) == "good", "late by the mesh"
    assert hear(made, counter=110, at_s=31.0 + REORDER_S) == "replayed"
    assert hear(made, counter=130, at_s=30.0 + SAME_S) == "good", "a resting tag repeats itself"
    assert hear(made, counter=130, at_s=31.0 + SAME_S) == "replayed"
    assert hear(made, counter=131, at_s=1000.0) == "good"


def test_the_counter_wraps() -> None:
    made = resolver()
    assert hear(made, counter=65530, at_s=0.0) == "good"
    assert hear(made, counter=3, at_s=10.0) == "good"
    assert hear(made, counter=65531, at_s=100.0) == "replayed"
    assert hear(made, counter=4, at_s=101.0) == "good"


def test_a_tag_that_lost_its_counter_is_new_wherever_it_goes_on_and_what_was_heard_never_is() -> None:
    made = resolver()
    assert hear(made, counter=5000, at_s=0.0) == "good"
    assert hear(made, counter=5100, at_s=100.0) == "good"
    assert hear(made, counter=5050, at_s=200.0) == "replayed", "within what this epoch has seen"
    assert hear(made, counter=1, at_s=200.0) == "good", "set back to where it never was: a new battery"
    assert hear(made, counter=2, at_s=201.0) == "good"
    assert hear(made, counter=65000, at_s=300.0) == "good", "a contact that is loose, twice in 15 minutes"
    for counter in (5000, 5077, 5100, 1, 2, 65000):
        assert hear(made, counter=counter, at_s=500.0) == "replayed"
    assert hear(made, counter=5101, at_s=501.0) == "good"


def test_what_is_remembered_of_a_tag_has_a_limit() -> None:
    made = resolver()
    for n in range(50):
        assert hear(made, counter=n * 1200, at_s=20.0 * n) == "good"
    for n in range(9):
        hear(made, epoch=NOW - 8 + n, counter=n, at_s=2000.0 + n, flags=FLAG_CLOCK_UNSURE)
    heard = made.tags[made.rows[TAG]].heard
    assert max(len(ranges) for ranges in heard.values()) <= RANGES_MAX
    assert len(heard) <= EPOCHS_MAX


def test_an_advertisement_of_an_unsure_clock_is_new_once_in_each_epoch() -> None:
    """A tag that lost its clock may be behind. Who repeats it must not set it back again and again."""
    made = resolver()
    assert hear(made, epoch=NOW, counter=10, at_s=0.0) == "good"
    assert hear(made, epoch=NOW - 5, counter=700, at_s=60.0, flags=FLAG_CLOCK_UNSURE) == "good"
    assert hear(made, epoch=NOW, counter=11, at_s=120.0, flags=FLAG_CLOCK_UNSURE) == "good"
    assert hear(made, epoch=NOW - 5, counter=700, at_s=180.0, flags=FLAG_CLOCK_UNSURE) == "replayed"


def test_an_epoch_that_is_over_is_not_heard_again() -> None:
    made = resolver()
    assert hear(made, epoch=NOW - 1, counter=500, at_s=0.0) == "good"
    assert hear(made, epoch=NOW, counter=501, at_s=10.0) == "good"
    assert hear(made, epoch=NOW - 1, counter=499, at_s=10.0 + REORDER_S) == "good"
    assert hear(made, epoch=NOW - 1, counter=502, at_s=11.0 + REORDER_S) == "replayed"


def test_a_replay_is_known_after_a_restart() -> None:
    made = resolver()
    hear(made, counter=100, at_s=50.0)
    hear(made, counter=120, at_s=70.0)
    again = resolver()
    again.restore(made.snapshot(), 80.0)
    assert hear(again, counter=110, at_s=81.0) == "replayed"
    assert hear(again, counter=121, at_s=82.0) == "good"


def test_drift_is_learned_a_little_and_no_farther() -> None:
    made = resolver()
    assert hear(made, epoch=NOW + 1, counter=1, at_s=0.0) == "good"
    assert hear(made, epoch=NOW + 2, counter=2, at_s=900.0) == "good", "one ahead of where this tag is known to be"
    assert hear(made, epoch=NOW + 3, counter=3, at_s=1800.0) == "good"
    assert made.tags[made.rows[TAG]].drift == DRIFT_MAX
    assert hear(made, epoch=NOW + 4, counter=4, at_s=2700.0) == "stale_epoch"


def test_a_tag_that_ran_ahead_and_was_set_right_is_believed() -> None:
    made = resolver()
    assert hear(made, epoch=NOW + 6, counter=9, flags=FLAG_CLOCK_UNSURE) == "good"
    made.tags[made.rows[TAG]].drift = 0
    assert hear(made, epoch=NOW, counter=10, at_s=60.0) == "good"
    assert hear(made, epoch=NOW + 6, counter=11, at_s=120.0) == "stale_epoch"


def test_bound_rows_move_the_counter_only_up_and_only_in_their_epoch() -> None:
    made = resolver()
    hear(made, counter=100, at_s=0.0)
    row = made.rows[TAG]
    made.heard_counter(row, NOW, on_air(250), 20.0, None)
    assert made.tags[row].guessed == -1, "a tag cannot have sent so many in 20 s"
    made.heard_counter(row, NOW, on_air(250), 120.0, None)
    made.heard_counter(row, NOW + 1, on_air(999, epoch=NOW + 1), 122.0, None)
    assert made.tags[row].guessed == on_air(250 - GUESS_MARGIN)
    assert hear(made, counter=250 - GUESS_MARGIN, at_s=140.0) == "replayed"
    assert hear(made, counter=150, at_s=140.0, flags=FLAG_SOS) == "good", "a cry is judged by what a MIC proved"
    assert hear(made, counter=251 - GUESS_MARGIN, at_s=140.0) == "good", "the counter of a row is a guess"


def test_bound_rows_say_when_a_tag_starts_and_stops() -> None:
    made = resolver()
    hear(made, counter=100, at_s=0.0)
    tag = made.tags[made.rows[TAG]]
    assert (tag.moving, tag.still_since_s) == (False, 0.0)
    made.heard_counter(made.rows[TAG], NOW, on_air(102), 2.0, False)
    assert (tag.moving, tag.still_since_s) == (False, 0.0), "still since the first word of it"
    made.heard_counter(made.rows[TAG], NOW, on_air(104), 4.0, True)
    assert (tag.moving, tag.still_since_s) == (True, None)
    made.heard_counter(made.rows[TAG], NOW, on_air(106), 6.0, None)
    assert tag.moving, "a row that nobody knows the time of says nothing"
    made.heard_counter(made.rows[TAG], NOW, on_air(108), 8.0, False)
    assert (tag.moving, tag.still_since_s) == (False, 8.0)


@pytest.mark.parametrize("first", [100, 0xFFFE])
def test_an_older_beacon_does_not_undo_a_newer_word_by_whichever_way_it_comes(first: int) -> None:
    made = resolver()
    row = made.rows[TAG]
    tag = made.tags[row]
    hear(made, counter=first, at_s=0.0)
    made.heard_counter(row, NOW, on_air(first + 4), 4.0, True)
    made.heard_counter(row, NOW, on_air(first + 3), 5.0, False)
    assert tag.moving, "an older row"
    assert hear(made, counter=(first + 2) & 0xFFFF, at_s=6.0) == "good"
    assert tag.moving, "an older advertisement, from a reader that binds"
    made.heard_counter(row, NOW, on_air(first + 4), 6.0, True)
    made.heard_counter(row, NOW, on_air(first + 3), 4.0 + MOTION_LATE_S, False)
    assert tag.moving
    assert hear(made, counter=(first + 5) & 0xFFFF, at_s=5.0) == "good"
    assert not tag.moving, "newer by its counter, though heard before the late ones"


def test_a_counter_that_was_guessed_too_high_silences_a_tag_for_seconds_only() -> None:
    made = resolver()
    row = made.rows[TAG]
    hear(made, counter=100, at_s=0.0)
    made.heard_counter(row, NOW, on_air(160), 30.0, False)  # in truth 128: one lap of the 5 bits too many
    moved_at_s = next(
        30.0 + later_s
        for later_s in range(1, 33)
        if made.heard_counter(row, NOW, on_air(128 + later_s), 30.0 + later_s, True) is None and made.tags[row].moving
    )
    assert MOTION_LATE_S < moved_at_s - 30.0 <= MOTION_LATE_S + 1.0


def test_the_word_of_an_epoch_that_is_over_does_not_count() -> None:
    made = resolver()
    row = made.rows[TAG]
    hear(made, epoch=NOW - 1, counter=500, at_s=0.0)
    assert hear(made, epoch=NOW, counter=7, at_s=10.0, flags=FLAG_MOVING) == "good"
    assert made.tags[row].moving, "the first word of an epoch, whatever its counter"
    assert hear(made, epoch=NOW - 1, counter=499, at_s=11.0) == "good"
    made.heard_counter(row, NOW - 1, 510, 12.0, False)
    assert made.tags[row].moving
    assert made.tags[row].still_since_s is None


def test_a_forged_or_replayed_advertisement_says_nothing_of_motion() -> None:
    made = resolver()
    tag = made.tags[made.rows[TAG]]
    hear(made, counter=100, at_s=0.0)
    hear(made, counter=160, at_s=60.0)
    forged = bytearray(build(TAGS[TAG], NOW, count=161))
    forged[9] |= FLAG_MOVING
    assert made.identify(parse(bytes(forged)), 61.0).outcome == "forged"
    assert hear(made, counter=120, at_s=80.0, flags=FLAG_MOVING) == "replayed"
    assert (tag.moving, tag.still_since_s) == (False, 0.0)


@given(
    st.lists(st.booleans(), min_size=1, max_size=40).flatmap(
        lambda words: st.tuples(st.just(words), st.permutations(range(len(words))))
    ),
    st.lists(st.floats(0.0, MOTION_LATE_S), min_size=40, max_size=40),
    st.integers(0, 0xFFFF),
)
def test_the_newest_beacons_word_holds_in_whatever_order_readers_tell_of_it(
    told: tuple[list[bool], list[int]], heard_at_s: list[float], first: int
) -> None:
    made = resolver_of_one()
    words, order = told
    tag = made.tags[0]
    tag.epoch = NOW
    for which, at_s in zip(order, heard_at_s, strict=False):
        made.heard_counter(0, NOW, (first + which) & 0xFFFF, at_s, words[which])
    assert tag.moving == words[-1]
    assert (tag.still_since_s is None) == words[-1]


def test_a_new_epoch_adds_one_column_a_little_at_a_time() -> None:
    made = resolver()
    made.set_epoch(NOW + 1, unsure=False)
    assert made.unfinished, "the outermost column is built in the idle time"
    assert hear(made, epoch=NOW + 2) == "good"
    rows = 0
    while made.unfinished:
        made.fill(7)
        rows += 7
    assert rows <= len(TAGS) + 7
    assert hear(made, epoch=NOW + 1 + REACH, flags=FLAG_SOS, counter=2) == "good"
    assert hear(made, epoch=NOW - REACH, flags=FLAG_SOS, counter=3) == "unknown", "the oldest column is gone"


@pytest.mark.parametrize("epoch", [0, 1, NOW - 4, NOW + 4, NOW + 40000, 0xFFFFFFFF])
def test_a_clock_may_jump_anywhere(epoch: int) -> None:
    made = resolver()
    made.set_epoch(epoch, unsure=True)
    assert hear(made, epoch=epoch) == "good"
    made.set_epoch(NOW, unsure=False)
    assert hear(made, epoch=NOW, counter=2, at_s=1.0) == ("good" if epoch <= NOW or epoch > NOW + 1 else "replayed")
    while made.unfinished:
        made.fill()
    assert len(made._ids) == len(TAGS) * (2 * REACH + 1)


def test_unknown_ids_are_counted_within_bounds() -> None:
    made = Resolver(tag_keys(1), Counter())
    made.set_epoch(NOW, unsure=False)
    advertisement = parse(build(TAGS[TAG], NOW))
    for n in range(UNKNOWN_IDS_MAX + 100):
        object.__setattr__(advertisement, "rotating_id", n.to_bytes(8, "big"))
        made.identify(advertisement, 0.0)
    assert made.unknown_ids() == UNKNOWN_IDS_MAX
    made.set_epoch(NOW + 1, unsure=False)
    assert made.unknown_ids() == 0


def test_a_cry_that_comes_again_is_new_for_seconds_only() -> None:
    """A resting tag repeats its advertisement for a minute, a crying one never: what comes again was recorded."""
    made = resolver()
    assert hear(made, counter=100, at_s=0.0, flags=FLAG_SOS) == "good"
    assert hear(made, counter=100, at_s=REORDER_S, flags=FLAG_SOS) == "good", "told by another reader"
    assert hear(made, counter=100, at_s=REORDER_S + 1, flags=FLAG_SOS) == "replayed"
