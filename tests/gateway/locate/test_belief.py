"""A belief finds a tag that stands and follows one that walks; looking back is more exact than the moment."""

import math

import numpy as np
import pytest

from gateway.locate.belief import TICKS_MAX, Beliefs
from gateway.locate.hearing import Hearing
from tests.gateway.locate.bed import Known, hear, law, poles, way
from tests.gateway.locate.bed_belief import LOUD, PACKETS, SIDE_M, TRUTH, beliefs, follow, ground, is_belief, walk


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
    """On a short path no belief is lost, so one second is one matrix. What came later is a product of such matrices."""
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
        log, _ = hearing.log_likelihood(
            own, packets, loud, believed.own[:, 1].copy(), apart_s + seconds, temper=believed.tempers()
        )
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
