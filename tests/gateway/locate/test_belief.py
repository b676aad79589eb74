"""Beliefs find tags that stand and follow those that walk, learn what is a tag's own, and survive whatever is heard."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gateway.locate import belief
from gateway.locate.belief import TICKS_MAX, TRUST_MIN, Beliefs
from gateway.locate.hearing import FLOOR_DBM, FLOOR_WIDTH_DB, Hearing
from gateway.locate.levels import Law
from gateway.locate.space import Space
from tests.gateway.locate.bed import Known, hear, law, mean_m, poles, street_and_yard, way, yard

SIDE_M = 24.0
READERS = poles((0.0, 0.0), (SIDE_M, 0.0), (SIDE_M, SIDE_M), (0.0, SIDE_M), (12.0, 12.0))
TRUTH = law(READERS)
PACKETS, LOUD = np.full((1, 5), 2.0), np.zeros((1, 5))
Walk = list[tuple[tuple[float, float], float]]


def ground() -> Space:
    return yard(SIDE_M, 1.0)


def beliefs(space: Space, *laws: Law, rows: int = 1, look_back: int = 3) -> Beliefs:
    return Beliefs(space, [Hearing(space, Known(each)) for each in laws or (TRUTH,)], rows, look_back=look_back)


def walk(rng: np.random.Generator, seconds: int, speed: float = 0.9) -> Walk:
    """(place, facing) second by second: straight, and on to somewhere else where one arrives."""
    place, goal, found = rng.uniform(3, SIDE_M - 3, 2), rng.uniform(3, SIDE_M - 3, 2), []
    for _ in range(seconds):
        while np.hypot(*(goal - place)) < 2 * speed:
            goal = rng.uniform(3, SIDE_M - 3, 2)
        ahead = (goal - place) / np.hypot(*(goal - place))
        place = place + speed * ahead
        found.append(((float(place[0]), float(place[1])), math.atan2(ahead[1], ahead[0])))
    return found


def follow(
    believed: Beliefs,
    rng: np.random.Generator,
    route: Walk,
    truth: Law = TRUTH,
    *,
    add_db: Any = 0.0,
    facing: bool = False,
) -> Iterator[Any]:
    """Step through a walk; yield the error now, metres, after every second."""
    for place, angle in route:
        level = hear(rng, truth, place, angle if facing else math.nan) + add_db
        believed.step(level, PACKETS, LOUD, 1)
        yield math.dist(mean_m(believed.space, believed.now[0])[0], place)


def is_belief(mass: Any) -> bool:
    return bool(np.isfinite(mass).all() and (mass >= 0).all() and np.allclose(mass.sum(axis=1), 1.0, atol=1e-3))


def test_before_anything_is_heard_a_tag_is_anywhere() -> None:
    space = ground()
    assert beliefs(space).by_cell()[0] == pytest.approx(space.by_cell(space.prior[None])[0])


def test_a_tag_that_stands_is_found_and_stays_found() -> None:
    print("seeds 0..7")
    late = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        place = tuple(rng.uniform(3, SIDE_M - 3, 2))
        errors = list(follow(beliefs(ground()), rng, [(place, 0.0)] * 60))
        late += errors[20:]
    print(f"mean {np.mean(late):.2f} m")
    assert np.mean(late) < 2.0
    assert np.percentile(late, 95) < 4.0


def test_a_walker_is_followed_better_than_by_each_second_alone() -> None:
    print("seeds 0..7")
    filtered, alone = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        space, route = ground(), walk(rng, 60)
        filtered += list(follow(beliefs(space), rng, route))[5:]
        for place, _ in route[5:]:
            alone += list(follow(beliefs(space), rng, [(place, 0.0)]))
    print(f"filter {np.mean(filtered):.2f} m, each second alone {np.mean(alone):.2f} m")
    assert np.mean(filtered) < 0.85 * np.mean(alone)
    assert np.mean(filtered) < 3.2


def test_looking_back_is_better_than_the_moment() -> None:
    print("seeds 0..7")
    instant, late = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        space, route = ground(), walk(rng, 60)
        believed = beliefs(space, look_back=4)
        for n, error in enumerate(follow(believed, rng, route)):
            past = believed.smoothed(4)
            assert (past is None) == (n < 4)
            if past is not None and n >= 8:
                assert is_belief(past)
                late.append(math.dist((past @ space.xy_m)[0], route[n - 4][0]))
            if 4 <= n < len(route) - 4:
                instant.append(error)
    print(f"instant {np.mean(instant):.2f} m, 4 s late {np.mean(late):.2f} m")
    assert np.mean(late) < 0.93 * np.mean(instant)


def test_looking_back_no_step_is_the_moment_and_no_further_than_kept() -> None:
    print("seed 1")
    believed = beliefs(ground(), look_back=10 * TICKS_MAX)
    for _ in follow(believed, rng := np.random.default_rng(1), walk(rng, TICKS_MAX + 5)):
        pass
    assert believed.smoothed(0) == pytest.approx(believed.by_cell(), abs=1e-6)
    assert believed.smoothed(TICKS_MAX) is not None
    assert believed.smoothed(TICKS_MAX + 1) is None
    assert believed.seconds_back(3) == 3


def test_looking_back_over_a_gap_counts_its_seconds() -> None:
    print("seed 2")
    rng = np.random.default_rng(2)
    believed = beliefs(ground())
    for seconds in (1, 4, 2):
        believed.step(hear(rng, TRUTH, (8.0, 8.0)), PACKETS, LOUD, seconds)
    assert (believed.seconds_back(0), believed.seconds_back(1), believed.seconds_back(2)) == (0, 2, 6)
    past = believed.smoothed(2)
    assert past is not None
    assert is_belief(past)


def test_looking_back_is_what_forward_and_backward_by_whole_matrices_give() -> None:
    """On a short path nobody is lost, so a second is one matrix; what came later is then a product of such matrices."""
    print("seed 13")
    rng = np.random.default_rng(13)
    space = way(24.0, 2.0)
    readers = poles((2.0, 4.0), (20.0, -4.0))
    truth = law(readers)
    hearing = Hearing(space, Known(truth))
    believed = Beliefs(space, [hearing], 1, look_back=4)
    second = space.walk(np.eye(space.states, dtype=np.float32)).astype(float)
    packets, loud = np.full((1, 2), 3.0), np.zeros((1, 2))
    forward, likely, apart_s = [], [], np.full((1, 2), np.inf)
    steps = [1, 1, 3, 1, 2, 1]
    for n, seconds in enumerate(steps):
        level = hear(rng, truth, (3.0 + 2.5 * n, 0.0))
        own = level - believed.own[:, :1] - believed.faults_db()
        log, _ = hearing.log_likelihood(own, packets, loud, believed.own[:, 1].copy(), apart_s + seconds)
        apart_s = np.zeros((1, 2))
        states = np.ones((1, space.states), np.float32)
        space.weigh(states, np.exp(log))
        likely.append(states[0].astype(float))
        before = space.prior.astype(float) if not forward else forward[-1]
        after = before @ np.linalg.matrix_power(second, seconds) * likely[-1]
        forward.append(after / after.sum())
        believed.step(level, packets, loud, seconds)
        assert believed.now[0][0] == pytest.approx(forward[-1], rel=0.01, abs=1e-6)
    for lag in range(5):
        later = np.ones(space.states)
        for k in range(len(steps) - 1, len(steps) - 1 - lag, -1):
            later = np.linalg.matrix_power(second, steps[k]) @ (later * likely[k])
        want = forward[len(steps) - 1 - lag] * later
        got = believed.smoothed(lag)
        assert got is not None
        assert got[0] == pytest.approx(space.by_cell((want / want.sum())[None])[0], rel=0.01, abs=1e-5), f"lag {lag}"


@pytest.mark.parametrize("own_db", [-5.0, 5.0])
def test_a_tag_that_sends_otherwise_than_its_kind_is_learned_and_found(own_db: float) -> None:
    print("seeds 0..5")
    powers, knowing, deaf = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        route = walk(rng, 180)
        believed = beliefs(ground())
        knowing += list(follow(believed, rng, route, add_db=own_db))[60:]
        powers.append(float(believed.own[0, 0]))
        rigid = beliefs(ground())
        for n, (place, _) in enumerate(route):
            rigid.own[:], rigid._own_spread[:] = 0.0, rigid._own_prior * 1e-9
            rigid.step(hear(rng, TRUTH, place) + own_db, PACKETS, LOUD, 1)
            if n >= 60:
                deaf.append(math.dist(mean_m(rigid.space, rigid.now[0])[0], place))
    print(f"learned {np.mean(powers):+.1f} dB; error {np.mean(knowing):.2f} m, without {np.mean(deaf):.2f} m")
    assert np.mean(powers) == pytest.approx(own_db, abs=2.0)
    assert np.mean(knowing) < np.mean(deaf)


def test_another_device_than_foreseen_is_learned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers hear each place otherwise than the law says, so that the first places bend to the wrong power."""
    print("seeds 0..5")
    missed: dict[float, list[float]] = {belief.OTHER_SD_DB: [], 0.0: []}
    for sd_db, found in missed.items():
        monkeypatch.setattr(belief, "OTHER_SD_DB", sd_db)
        for own_db in (-8.0, 8.0):
            for seed in range(6):
                rng = np.random.default_rng(seed)
                space = ground()
                believed = Beliefs(space, [Hearing(space, Known(TRUTH, sd_db=4.0))], 1)
                for _ in follow(believed, rng, walk(rng, 60), add_db=own_db + rng.normal(0.0, 3.0, (1, 5))):
                    pass
                found.append(abs(own_db - float(believed.own[0, 0])))
    learned, half_learned = (float(np.mean(found)) for found in missed.values())
    print(f"off by {learned:.2f} dB after a minute, without {half_learned:.2f} dB")
    assert learned < 0.9 * half_learned


def test_what_only_fades_bring_over_the_floor_makes_no_tag_louder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that hear a tag at the floor hear it when it fades up alone: that is no power of its own."""
    print("seeds 0..7")
    faint = law(READERS, p0_dbm=FLOOR_DBM + 24)

    def learned_db() -> float:
        powers = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            space = ground()
            believed = Beliefs(space, [Hearing(space, Known(faint, sd_db=4.0))], 1)
            for place, _ in walk(rng, 90):
                level = hear(rng, faint, place) + rng.normal(0.0, 4.0, (1, 5))
                read = rng.random((1, 5)) < 1 / (1 + np.exp(-(level - FLOOR_DBM) / FLOOR_WIDTH_DB))
                believed.step(np.where(read, level, 0.0), 2.0 * read, LOUD, 1)
            powers.append(float(believed.own[0, 0]))
        return float(np.mean(powers))

    found_db = learned_db()
    monkeypatch.setattr(Hearing, "lift_db", lambda self, level, power_dbm=None: np.zeros_like(level))
    fooled_db = learned_db()
    print(f"learned {found_db:+.1f} dB, without {fooled_db:+.1f} dB")
    assert abs(found_db) < 1.0
    assert fooled_db > found_db + 1.0


def test_a_tag_of_its_kind_is_not_given_a_power_of_its_own() -> None:
    print("seeds 0..5")
    powers = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        believed = beliefs(ground())
        for _ in follow(believed, rng, walk(rng, 120)):
            pass
        powers.append(float(believed.own[0, 0]))
    assert np.abs(powers).max() < 2.0


def test_trust_goes_to_the_model_that_foresees() -> None:
    """The tag hangs on the back: readers before the walker hear it worse. Two laws, one for each side."""
    print("seeds 0..3")
    chest, back = law(READERS, body_db=4.0), law(READERS, body_db=-4.0)
    for right, truth in ((0, chest), (1, back)):
        trust = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            believed = beliefs(ground(), chest, back)
            for _ in follow(believed, rng, walk(rng, 120), truth, facing=True):
                assert believed.trust.sum() == pytest.approx(1.0)
                assert believed.trust.min() >= 0.99 * TRUST_MIN / 2
            trust.append(believed.trust[0, right])
        print(f"trust in the right one {np.round(trust, 2)}")
        assert np.mean(trust) > 0.75


def test_trust_turns_when_the_world_does() -> None:
    print("seed 3")
    rng = np.random.default_rng(3)
    chest, back = law(READERS, body_db=4.0), law(READERS, body_db=-4.0)
    believed = beliefs(ground(), chest, back)
    for _ in follow(believed, rng, walk(rng, 150), chest, facing=True):
        pass
    before = float(believed.trust[0, 1])
    for _ in follow(believed, rng, walk(rng, 150), back, facing=True):
        pass
    assert before < 0.3
    assert believed.trust[0, 1] > 0.7


def test_one_deaf_reader_is_found_out_and_does_less_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    print("seeds 0..5")
    ways = [walk(np.random.default_rng(seed), 160) for seed in range(6)]
    deaf = np.array([[0.0, -12.0, 0.0, 0.0, 0.0]])

    def errors_m(add_db: Any) -> tuple[float, Any]:
        errors, faults = [], []
        for seed, each in enumerate(ways):
            believed = beliefs(ground())
            errors += list(follow(believed, np.random.default_rng(100 + seed), each, add_db=add_db))[60:]
            faults.append(believed.faults_db()[0])
        return float(np.mean(errors)), np.mean(faults, axis=0)

    clean_m, nothing = errors_m(0.0)
    found_m, fault = errors_m(deaf)
    monkeypatch.setattr(belief, "FAULT_KEPT", 0.0)
    monkeypatch.setattr(belief, "FAULT_BEGUN", 1e9)
    believed_m, _ = errors_m(deaf)
    print(f"clean {clean_m:.2f} m; one reader 12 dB deaf {found_m:.2f} m, believed {believed_m:.2f} m; {fault} dB")
    assert found_m < 0.9 * believed_m
    assert fault[1] < -4.0
    assert np.abs(fault[[0, 2, 3, 4]]).max() < 2.5
    assert np.abs(nothing).max() < 1.0


def test_a_reader_that_was_mended_is_believed_again() -> None:
    print("seeds 0..3")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        believed = beliefs(ground())
        deaf = np.array([[0.0, -12.0, 0.0, 0.0, 0.0]])
        for _ in follow(believed, rng, walk(rng, 120), add_db=deaf):
            pass
        assert believed.faults_db()[0, 1] < -3.0
        for _ in follow(believed, rng, walk(rng, 90)):
            pass
        assert believed.faults_db()[0, 1] > -1.0


def five(rng: np.random.Generator, seconds: int) -> Iterator[tuple[Any, Any, Any]]:
    """What five tags' readers hear: some packets, some silence, one tag not heard at all."""
    ways = [walk(rng, seconds) for _ in range(5)]
    for moment in zip(*ways, strict=True):
        level = np.concatenate([hear(rng, TRUTH, place, angle) for place, angle in moment])
        packets = rng.integers(0, 4, level.shape).astype(float)
        packets[4] = 0.0
        silent = ((packets == 0) & (packets.sum(axis=1, keepdims=True) > 0)).astype(float)
        yield level, packets, silent


def test_a_batch_of_five_is_five_batches_of_one() -> None:
    print("seed 4")
    space = street_and_yard()
    laws = (law(READERS, body_db=3.0), law(READERS, body_db=-3.0))
    whole, each = beliefs(space, *laws, rows=5), [beliefs(space, *laws) for _ in range(5)]
    for level, packets, silent in five(np.random.default_rng(4), 25):
        whole.step(level, packets, silent, 1)
        for i, one in enumerate(each):
            one.step(level[i : i + 1], packets[i : i + 1], silent[i : i + 1], 1)
    past = whole.smoothed(3)
    assert past is not None
    for i, one in enumerate(each):
        assert whole.by_cell()[i] == pytest.approx(one.by_cell()[0], rel=0.02, abs=1e-5)
        assert past[i] == pytest.approx(one.smoothed(3)[0], rel=0.02, abs=1e-5)
        assert whole.trust[i] == pytest.approx(one.trust[0], abs=2e-3)
        assert whole.own[i] == pytest.approx(one.own[0], abs=2e-3)
        assert whole.faults_db()[i] == pytest.approx(one.faults_db()[0], abs=5e-3)


def test_a_row_forgotten_has_nothing_of_the_tag_before() -> None:
    print("seed 5")
    laws = (law(READERS, body_db=3.0), law(READERS, body_db=-3.0))
    used = beliefs(ground(), *laws, rows=5)
    for level, packets, silent in five(np.random.default_rng(5), 30):
        used.step(level + np.array([[9.0, 0.0, 0.0, -9.0, 0.0]]), packets, silent, 1)
    others = np.delete(used.by_cell(), 2, axis=0)
    used.forget(2)
    assert np.delete(used.by_cell(), 2, axis=0) == pytest.approx(others)
    fresh = beliefs(ground(), *laws, rows=5)
    assert used.by_cell()[2] == pytest.approx(fresh.by_cell()[2])
    for level, packets, silent in five(np.random.default_rng(6), 12):
        used.step(level, packets, silent, 1)
        fresh.step(level, packets, silent, 1)
        assert used.by_cell()[2] == pytest.approx(fresh.by_cell()[2], rel=1e-3, abs=1e-7)
        assert used.trust[2] == pytest.approx(fresh.trust[2], abs=1e-4)
        assert used.own[2] == pytest.approx(fresh.own[2], abs=1e-4)
        assert used.faults_db()[2] == pytest.approx(fresh.faults_db()[2], abs=1e-4)
    assert used.smoothed(3)[2] == pytest.approx(fresh.smoothed(3)[2], rel=1e-3, abs=1e-7)  # type: ignore[index]


def test_a_forgotten_row_looks_back_on_nothing() -> None:
    print("seed 7")
    space = ground()
    believed = beliefs(space, rows=5)
    for level, packets, silent in five(np.random.default_rng(7), 10):
        believed.step(level, packets, silent, 1)
    believed.forget(1)
    past = believed.smoothed(3)
    assert past is not None
    assert past[1] == pytest.approx(space.by_cell(space.prior[None])[0], rel=0.35), (
        "anywhere, not where the old tag was"
    )


def test_a_row_taken_elsewhere_goes_on_as_it_would_have_here() -> None:
    print("seed 8")
    laws = (law(READERS, body_db=3.0), law(READERS, body_db=-3.0))
    here, there = beliefs(ground(), *laws, rows=5), beliefs(ground(), *laws, rows=2)
    for level, packets, silent in five(np.random.default_rng(8), 12):
        here.step(level + np.array([[-12.0, 0.0, 0.0, 0.0, 0.0]]), packets, silent, 1)
        there.step(level[:2], packets[:2], silent[:2], 1)
    taken = here.row(3)
    there.set_row(1, taken)
    other = there.by_cell()[0].copy()
    assert there.by_cell()[1] == pytest.approx(here.by_cell()[3])
    for level, packets, silent in five(np.random.default_rng(9), 8):
        here.step(level, packets, silent, 1)
        there.step(level[[0, 3]], packets[[0, 3]], silent[[0, 3]], 1)
        assert there.by_cell()[1] == pytest.approx(here.by_cell()[3], rel=1e-3, abs=1e-7)
        assert there.trust[1] == pytest.approx(here.trust[3], abs=1e-4)
        assert there.own[1] == pytest.approx(here.own[3], abs=1e-4)
        assert there.faults_db()[1] == pytest.approx(here.faults_db()[3], abs=1e-4)
    assert not np.allclose(there.by_cell()[0], other)


def test_a_row_taken_is_a_copy() -> None:
    print("seed 9")
    believed = beliefs(ground(), rows=5)
    for level, packets, silent in five(np.random.default_rng(9), 5):
        believed.step(level, packets, silent, 1)
    taken = believed.row(0)
    before = (taken.now[0].copy(), taken.trust.copy(), taken.own.copy(), taken.faults.copy(), taken.apart_s.copy())
    believed.forget(0)
    for level, packets, silent in five(np.random.default_rng(10), 5):
        believed.step(level, packets, silent, 1)
    after = (taken.now[0], taken.trust, taken.own, taken.faults, taken.apart_s)
    for one, other in zip(before, after, strict=True):
        assert (one == other).all()


ABSURD: Sequence[tuple[str, Any, Any, Any, int]] = [
    ("all silent", np.zeros((2, 5)), np.zeros((2, 5)), np.ones((2, 5)), 1),
    ("nothing at all", np.zeros((2, 5)), np.zeros((2, 5)), np.zeros((2, 5)), 1),
    ("a gap of 200 s", np.full((2, 5), -60.0), np.ones((2, 5)), np.zeros((2, 5)), 200),
    ("no time", np.full((2, 5), -60.0), np.ones((2, 5)), np.zeros((2, 5)), 0),
    ("+42 dBm everywhere", np.full((2, 5), 42.0), np.full((2, 5), 9.0), np.zeros((2, 5)), 1),
    ("-300 dBm everywhere", np.full((2, 5), -300.0), np.full((2, 5), 9.0), np.zeros((2, 5)), 1),
    ("both", np.array([[42.0, -300.0, 42.0, -300.0, 42.0]] * 2), np.full((2, 5), 1e6), np.zeros((2, 5)), 1),
]


@pytest.mark.parametrize("often", [1, 40])
def test_absurd_input_leaves_a_belief(often: int) -> None:
    print("seed 10")
    rng = np.random.default_rng(10)
    for make in (ground, street_and_yard):
        for name, level, packets, silent, seconds in ABSURD:
            believed = beliefs(make(), law(READERS, body_db=3.0), law(READERS, body_db=-3.0), rows=2)
            for _ in range(3):
                believed.step(np.repeat(hear(rng, TRUTH, (8.0, 8.0)), 2, 0), np.full((2, 5), 2.0), np.zeros((2, 5)), 1)
            for _ in range(often if seconds < 10 else 2):
                believed.step(level, packets, silent, seconds)
                assert is_belief(believed.by_cell()), name
            past = believed.smoothed(2)
            assert past is not None
            assert is_belief(past), name
            assert np.isfinite(believed.trust).all(), name
            assert np.isfinite(believed.own).all(), name
            assert np.isfinite(believed.faults_db()).all(), name


def test_after_absurd_input_a_tag_is_found_again() -> None:
    print("seed 11")
    rng = np.random.default_rng(11)
    for name, level, packets, silent, seconds in ABSURD:
        believed = beliefs(ground())
        for _ in range(20):
            believed.step(level[:1], packets[:1], silent[:1], seconds)
        errors = list(follow(believed, rng, [((6.0, 18.0), 0.0)] * 200))
        assert np.mean(errors[160:]) < 6.0, name  # in a ground of 20 m; what was learned of readers fades slowly


def test_a_tag_in_a_house_that_nobody_can_enter_is_somewhere_all_the_same() -> None:
    """What is heard points where nobody can be, as surely as float32 can say; the belief stays one."""
    ground_ = ground()
    inside = (np.abs(ground_.xy_m - 12.0) <= 3.0).all(axis=1)
    space = Space(
        ground_.xy_m, ground_.size_m, ground_.blocks, ground_.behind, ground_.ahead, ground_.weights, within=~inside
    )
    print("seed 12")
    many = poles(*map(tuple, np.random.default_rng(12).uniform(9.0, 15.0, (60, 2))))
    near = law(many, exponent=6.0)
    believed = Beliefs(space, [Hearing(space, Known(near, sd_db=0.1))], 1)
    level = near.expect(np.array([[12.0, 12.0]]))
    for _ in range(5):
        believed.step(level, np.full((1, 60), 50.0), np.zeros((1, 60)), 1)
        assert is_belief(believed.by_cell())
        assert believed.by_cell()[0, inside].sum() == 0.0
