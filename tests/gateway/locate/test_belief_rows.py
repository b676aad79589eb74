"""Rows of a batch: each tag is located as if it were alone, can be forgotten, and can move to another batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gateway.locate.bed import hear, law, street_and_yard
from tests.gateway.locate.bed_belief import READERS, TRUTH, beliefs, ground, walk


def five(rng: np.random.Generator, seconds: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what the readers of five tags hear: some packets, some silence, one tag not heard at all."""
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
