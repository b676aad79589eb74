"""A deaf reader at a gate is found from the children who pass, made up for, and told once."""

import random
from collections.abc import Iterator, Mapping

from gateway.fix import Reading
from gateway.presence import twins
from gateway.presence.twins import TwinFinding, Twins
from gateway.zone import Gate, Reader, Zone

SEED = 20


def zone(*, posts: int = 2) -> Zone:
    readers = tuple(
        Reader(
            number=number,
            eui64=f"{number:016x}",
            lon=127.0,
            lat=37.5,
            antenna="patch",
            look_deg=0.0,
            gate="main",
            side="inner" if number % 2 else "outer",
        )
        for number in range(1, 2 * posts + 1)
    )
    return Zone(readers, gates=(Gate(id="main", place="school", lon=127.0, lat=37.5, inward_deg=0.0),))


def pass_by(
    each: Twins,
    tag: int,
    at_s: float,
    deaf_db: Mapping[int, float],
    chance: random.Random,
    *,
    level: float = -68.0,
    deaf: tuple[int, ...] = (),
) -> Iterator[TwinFinding]:
    """Let a child pass: 12 s, each reader that is not deaf hears it every 2 s with 4 dB of fading."""
    for step in range(6):
        now_s = at_s + 2 * step
        for reader in {1, 2, 3, 4} - set(deaf):
            dbm = round(level - deaf_db.get(reader, 0.0) + chance.gauss(0.0, 4.0))
            each.hear(tag, Reading(reader, dbm, 2, now_s, -59), now_s)
        yield from each.tick(now_s)


def morning(
    each: Twins,
    from_s: float,
    children: int,
    deaf_db: Mapping[int, float],
    *,
    level: float = -68.0,
    deaf: tuple[int, ...] = (),
) -> list[TwinFinding]:
    """Let an hour pass in which so many children come."""
    chance = random.Random(f"{SEED}/{from_s}/{children}")
    found: list[TwinFinding] = []
    for tag in range(children):
        found += pass_by(each, tag, from_s + 3600.0 * tag / children, deaf_db, chance, level=level, deaf=deaf)
    return [*found, *each.tick(from_s + 3600.0)]


def test_a_deaf_reader_is_found_within_an_hour_made_up_for_and_told_once() -> None:
    each = Twins(zone(), -7200.0)
    assert not morning(each, -7200.0, 2 * twins.USUAL_TAGS, {1: -5.0}), "5 dB between two is usual"
    found = morning(each, 0.0, 60, {1: -5.0, 3: 8.0})
    assert [(one.reader, one.ok) for one in found] == [(3, False)], "its twin is 13 dB louder and is not to blame"
    assert "reader 3 hears children" in found[0].detail
    assert "check its antenna" in found[0].detail
    assert set(each.offsets_db) == {3}
    assert -9.0 <= each.offsets_db[3] <= -7.0
    assert not morning(each, 3600.0, 60, {1: -5.0, 3: 8.0}), "told once"
    mended = morning(each, 7200.0, 60, {1: -5.0}) + morning(each, 10_800.0, 60, {1: -5.0})
    assert [(one.reader, one.ok) for one in mended] == [(3, True)]
    assert each.offsets_db == {}


def test_readers_that_differ_as_modules_do_are_left_alone() -> None:
    each = Twins(zone(), 0.0)
    assert not morning(each, 0.0, 100, {})
    assert not morning(each, 3600.0, 60, {3: 2.0, 2: 1.0})
    assert each.offsets_db == {}


def test_one_who_waits_beside_a_post_proves_nothing() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 100, {})
    assert each.usual_db
    chance = random.Random(SEED)
    found = [one for n in range(300) for one in pass_by(each, 7, 12.0 * n, {3: 8.0}, chance)]
    found += [one for n in range(twins.TAGS_MIN - 2) for one in pass_by(each, 1000 + n, 3600.0 + n, {3: 8.0}, chance)]
    assert not found
    assert each.offsets_db == {}


def test_a_reader_that_hears_nothing_is_told_and_nothing_is_made_up() -> None:
    each = Twins(zone(), 0.0)
    chance = random.Random(SEED)
    found: list[TwinFinding] = []
    for tag in range(40):
        now_s = 60.0 * tag
        for reader in (1, 2, 4):
            each.hear(tag, Reading(reader, round(chance.gauss(-66, 4)), 2, now_s, -59), now_s)
        found += each.tick(now_s)
    assert [(one.reader, one.ok, one.offset_db) for one in found] == [(3, False, 0.0)]
    assert "hears none of the children" in found[0].detail
    assert each.offsets_db == {}


def test_children_far_away_prove_nothing() -> None:
    """Far off, the deaf reader hears only what fades up, which would make it look sound."""
    each = Twins(zone(), 0.0)
    assert not morning(each, 0.0, 60, {3: 8.0}, level=-90.0)
    assert each.offsets_db == {}


def test_a_gate_with_one_post_has_no_twins() -> None:
    each = Twins(zone(posts=1), 0.0)
    assert not morning(each, 0.0, 60, {1: 8.0})
    assert each.deadline_s() == float("inf")


def test_strangers_and_crowds_are_bounded() -> None:
    each = Twins(zone(), 0.0)
    for tag in range(5000):
        each.hear(tag, Reading(1, -60, 1, 1.0, -59), 1.0)
        each.hear(tag, Reading(3, -60, 1, 1.0, -59), 1.0)
        each.hear(tag, Reading(99, -60, 1, 1.0, -59), 1.0)
        each.hear(tag, Reading(1, None, 1, 1.0, -59), 1.0)
    assert all(len(side.open) <= twins.OPEN_MAX for side in each._sides)
    assert all(len(side.samples) <= twins.SAMPLES_MAX for side in each._sides)
    assert not list(each.tick(400.0))


def test_a_few_who_linger_do_not_hide_a_deaf_reader() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 100, {})
    chance = random.Random(SEED)
    found: list[TwinFinding] = []
    for minute in range(60):
        for tag in (901, 902, 903):
            for step in range(4):
                found += pass_by(each, tag, 60.0 * minute + 13 * step, {}, chance)
        if minute % 3 == 0:
            found += pass_by(each, minute, 60.0 * minute + 55, {3: 10.0}, chance)
    assert [(one.reader, one.ok) for one in found] == [(3, False)]


def test_a_weak_reader_that_hears_nothing_any_more_is_told_again() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 100, {})
    assert [one.reader for one in morning(each, 0.0, 60, {3: 8.0})] == [3]
    dead = morning(each, 3600.0, 60, {3: 200.0}, deaf=(3,)) + morning(each, 7200.0, 60, {}, deaf=(3,))
    assert [(one.reader, one.ok) for one in dead] == [(3, False)]
    assert "hears none" in dead[0].detail
    assert each.offsets_db == {}


def test_a_level_far_off_is_limited() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 100, {})
    (found,) = morning(each, 0.0, 60, {1: 24.0})
    assert (found.reader, found.offset_db) == (1, -twins.OFFSET_MAX_DB)


def test_a_reader_deaf_from_its_first_day_is_told_when_it_is_too_far_off() -> None:
    each = Twins(zone(), 0.0)
    morning(each, 0.0, 100, {1: 18.0})
    found = morning(each, 3600.0, 60, {1: 18.0})
    assert each.usual_db[1] == -twins.USUAL_MAX_DB
    assert [(one.reader, one.ok) for one in found] in ([(1, False)], []), "told in this hour or in the first"
    assert -9.5 <= each.offsets_db[1] <= -6.5


def test_what_is_usual_outlives_a_restart() -> None:
    before = Twins(zone(), 0.0)
    morning(before, 0.0, 100, {1: 5.0})
    after = Twins(zone(), 3600.0)
    kept = before.snapshot()
    after.restore({**kept, "another module": 3.0, f"{2:016x}": float("nan")})
    assert set(after.usual_db) == {1, 3, 4}, "unknown readers and odd numbers are left out"
    assert not morning(after, 3600.0, 30, {1: 5.0})
    assert [one.reader for one in morning(after, 7200.0, 40, {1: 13.0})] == [1]


def test_children_far_away_make_no_known_reader_deaf() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 100, {})
    assert not morning(each, 0.0, 60, {3: 8.0}, level=-94.0)
    assert each.offsets_db == {}


def test_six_db_less_are_made_up_for_until_it_is_mended() -> None:
    each = Twins(zone(), -7200.0)
    morning(each, -7200.0, 2 * twins.USUAL_TAGS, {})
    assert [(one.reader, one.ok) for one in morning(each, 0.0, 60, {3: 5.5})] == [(3, False)]
    assert not morning(each, 3600.0, 60, {3: 3.0}) + morning(each, 7200.0, 60, {3: 3.0})
    assert set(each.offsets_db) == {3}


def test_a_usual_level_that_cannot_be_is_not_restored() -> None:
    each = Twins(zone(), 0.0)
    each.restore({f"{1:016x}": 40.0, f"{3:016x}": -40.0, f"{2:016x}": twins.USUAL_MAX_DB})
    assert each.usual_db == {2: twins.USUAL_MAX_DB}
