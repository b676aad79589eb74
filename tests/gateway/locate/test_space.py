"""A belief walks: nothing of it is lost, none of it gets to where no child can be, and recall is walking in reverse."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from gateway.locate import space as s
from gateway.locate.space import Space
from gateway.locate.ways import chains
from tests.gateway.locate.bed import crossing, mean_m, nearest, state, street_and_yard, surely, way, yard

SLOW, WALK = 0, 1
SPACES = pytest.mark.parametrize("make", [yard, way, crossing, street_and_yard])


def masked() -> Space:
    """A yard with a house in it: no child is in 8..12 x 8..12."""
    ground = yard()
    inside = (np.abs(ground.xy_m - 10.0) <= 2.0).all(axis=1)
    return Space(ground.xy_m, ground.size_m, ground.blocks, ground.behind, ground.ahead, ground.weights, within=~inside)


def mean_speed(pace: int) -> float:
    return sum(speed * share for speed, share in s.PACES[pace])


def walked(space: Space, belief: np.ndarray, seconds: int) -> np.ndarray:
    for _ in range(seconds):
        belief = space.walk(belief)
    return belief


def only_walking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walker keeps walking and facing the same way, and never jumps."""
    monkeypatch.setattr(s, "PACE_CHANGES", ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    monkeypatch.setattr(s, "TURN", 0.0)
    monkeypatch.setattr(s, "ABOUT", 0.0)
    monkeypatch.setattr(s, "JUMP", 0.0)


@SPACES
def test_a_belief_sums_to_one_and_is_nowhere_negative_however_long_it_walks(make: Callable[[], Space]) -> None:
    space = make()
    print("seed 0")
    rng = np.random.default_rng(0)
    belief = rng.random((3, space.states), np.float32) ** 8
    for _ in range(60):
        belief = space.walk(belief)
        assert belief.dtype == np.float32
        assert (belief >= 0).all()
        assert belief.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert space.prior.sum() == pytest.approx(1.0, abs=1e-5)


@SPACES
def test_walking_changes_nothing_of_what_it_is_given(make: Callable[[], Space]) -> None:
    space = make()
    belief, likely = np.tile(space.prior, (2, 1)), np.random.default_rng(1).random((2, space.states), np.float32)
    before, also = belief.copy(), likely.copy()
    space.walk(belief)
    space.recall(likely)
    assert (belief == before).all()
    assert (likely == also).all()


@pytest.mark.parametrize("make", [yard, way, crossing, street_and_yard, masked])
def test_recalling_is_walking_turned_round(make: Callable[[], Space]) -> None:
    """<walk(p), l> is <p, recall(l)>, except that walk gives back what it lost and that recall has its own scale.

    For each p, one state, the loss is undone; then their ratio must be the same for all.
    """
    space = make()
    print("seed 2")
    rng = np.random.default_rng(2)
    likely = rng.random((1, space.states), np.float32) ** 4
    states = rng.permutation(np.flatnonzero(space.prior > 0))[:64]
    one = np.zeros((len(states), space.states), np.float32)
    one[np.arange(len(states)), states] = 1.0
    kept = unscaled_sum(space, one)
    forward = ((space.walk(one) - s.JUMP * space.prior) * kept[:, None] + s.JUMP * space.prior) @ likely[0]
    backward = space.recall(likely)[0, states]
    ratio = forward / backward
    assert ratio == pytest.approx(np.full(len(states), np.median(ratio)), rel=2e-3)


def unscaled_sum(space: Space, belief: np.ndarray) -> np.ndarray:
    """Return how much of a belief one second leaves in the space, before scaling to a sum of 1: recall of ones."""
    back = space.recall(np.ones((1, space.states), np.float32))[0]
    return belief @ back  # recall's largest value is 1: at some place nothing is lost


@SPACES
def test_recalled_likelihoods_stay_in_scale(make: Callable[[], Space]) -> None:
    space = make()
    likely = np.zeros((1, space.states), np.float32)
    likely[0, space.states // 2] = 1e-20
    for _ in range(10):
        likely = space.recall(likely)
        assert likely.max() == pytest.approx(1.0, abs=1e-5)
        assert (likely >= 0).all()


@SPACES
def test_everybody_anywhere_stays_anywhere(make: Callable[[], Space]) -> None:
    """After minutes without readings, no part of the zone has become empty or full compared with its area."""
    space = make()
    late = space.by_cell(walked(space, np.tile(space.prior, (1, 1)), 120))[0]
    early = space.by_cell(space.prior[None])[0]
    ratio = late / early
    assert ratio.min() > 0.4
    assert ratio.max() < 3.8, "most beside a door: a path is believed denser than a yard, and some of it goes in"


@pytest.mark.parametrize("pace", [SLOW, WALK])
@pytest.mark.parametrize("step_m", [0.5, 1.0, 2.3])
def test_a_walker_on_a_path_gets_on_at_its_pace(monkeypatch: pytest.MonkeyPatch, pace: int, step_m: float) -> None:
    only_walking(monkeypatch)
    space = way(120.0, step_m)
    start = state(space, 20.0, 0.0, pace=pace, heading=0.0)
    belief = surely(space, start)
    from_m = mean_m(space, belief)[0, 0]
    for seconds in range(1, 8):
        belief = space.walk(belief)
        # On fine cells, SHIFTS_MAX cuts off the fastest.
        possible = [(v, p) for v, p in s.PACES[pace] if v < s.SHIFTS_MAX * step_m]
        speed = sum(v * p for v, p in possible) / sum(p for _, p in possible)
        assert mean_m(space, belief)[0, 0] - from_m == pytest.approx(speed * seconds, rel=0.02, abs=0.02)
        behind = space.by_cell(belief)[0, space.xy_m[:, 0] < from_m - 0.01]
        assert behind.sum() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("heading", range(8))
def test_a_walker_on_open_ground_goes_where_it_faces(monkeypatch: pytest.MonkeyPatch, heading: int) -> None:
    only_walking(monkeypatch)
    monkeypatch.setattr(s, "WANDER", 0.0)
    space = yard(60.0, 1.0)
    angle = heading * math.tau / 8
    belief = surely(space, state(space, 30.0, 30.0, pace=SLOW, heading=angle))
    moved = mean_m(space, walked(space, belief, 10))[0] - (30.0, 30.0)
    want = 10 * mean_speed(SLOW) * np.array([math.cos(angle), math.sin(angle)])
    assert moved == pytest.approx(want, abs=0.05)


def test_who_stands_spreads_to_all_sides_alike() -> None:
    space = yard(60.0, 1.0)
    faced = [state(space, 30.0, 30.0, pace=None, heading=n * math.pi / 4) for n in range(8)]
    belief = walked(space, surely(space, *faced), 15)
    grid = space.by_cell(belief)[0].reshape(61, 61)
    assert grid == pytest.approx(grid[::-1], abs=1e-6)
    assert grid == pytest.approx(grid[:, ::-1], abs=1e-6)
    assert grid == pytest.approx(grid.T, abs=1e-6)
    east = grid[30 + 3 : 30 + 8, 30 - 2 : 30 + 3].sum()
    assert east > 0.02, "a quarter of a minute on, somebody has gone"


def test_at_a_junction_a_walker_takes_any_other_way_and_never_its_own_back(monkeypatch: pytest.MonkeyPatch) -> None:
    only_walking(monkeypatch)
    ends = ((40.0, 0.0), (0.0, 40.0), (-40.0, 0.0), (0.0, -40.0))
    space = s.footpaths(chains([[(0.0, 0.0), end] for end in ends]), 1.0)
    belief = walked(space, surely(space, state(space, -5.0, 0.0, pace=WALK, heading=0.0)), 8)
    mass = space.by_cell(belief)[0]
    x, y = space.xy_m.T
    west, east, north, south = (mass[side].sum() for side in (x < -0.1, x > 0.1, y > 0.1, y < -0.1))
    assert east == pytest.approx(north, rel=1e-3)
    assert east == pytest.approx(south, rel=1e-3)
    assert east > 0.25
    block = space.blocks[0]
    facing_in = [i for i in range(block.cells) if x[i] < -0.1]
    back = [h for h in range(2) if math.cos(block.facings[h, facing_in[0]] - math.pi) > 0.9]
    gone_back = sum(
        belief[0, block.start + (pace * 2 + h) * block.cells + np.array(facing_in)].sum()
        for pace in range(len(s.PACES))
        for h in back
    )
    assert gone_back == pytest.approx(0.0, abs=1e-6)
    assert west < 0.25


def test_at_a_dead_end_a_walker_turns_about(monkeypatch: pytest.MonkeyPatch) -> None:
    only_walking(monkeypatch)
    space = way(60.0, 1.0)
    belief = surely(space, state(space, 55.0, 0.0, pace=WALK, heading=0.0))
    belief = walked(space, belief, 20)
    block = space.blocks[0]
    back = WALK * 2 + next(h for h in range(2) if math.cos(block.facings[h, 0] - math.pi) > 0.9)
    plane = slice(back * block.cells, (back + 1) * block.cells)
    assert belief[0, plane].sum() > 0.95, "20 s after 5 m before the end nearly all walk back"
    assert belief.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_walker_in_a_ring_comes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    only_walking(monkeypatch)
    monkeypatch.setattr(s, "PACES", (s.SLOW, ((1.0, 1.0),)))
    corners = [(0.0, 0.0), (20.0, 0.0), (20.0, 20.0), (0.0, 20.0), (0.0, 0.0)]
    space = s.footpaths(chains([corners]), 1.0)
    belief = surely(space, start := state(space, 10.4, 0.0, pace=WALK, heading=0.0))
    half_round = walked(space, belief, 40)
    assert mean_m(space, half_round)[0] == pytest.approx((9.5, 20.0), abs=0.1)
    assert walked(space, half_round, 40)[0, start] == pytest.approx(1.0, abs=1e-4)


def test_doors_let_through_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "JUMP", 0.0)
    space = street_and_yard()
    path = space.blocks[0]
    far = surely(space, state(space, 2.0, 0.0, pace=WALK, heading=0.0))
    early, late = walked(space, far, 3), walked(space, far, 60)
    in_yard = space.xy_m[:, 1] > 1.0
    assert space.by_cell(early)[0, in_yard].sum() < 0.01, "3 s are not enough for 28 m"
    assert 0.05 < space.by_cell(late)[0, in_yard].sum() < 0.95
    out = surely(space, state(space, 30.0, 18.0, pace=SLOW, heading=-math.pi / 2))
    assert space.by_cell(walked(space, out, 90))[0, : path.cells].sum() > 0.05
    shut = Space(space.xy_m, space.size_m, space.blocks, space.behind, space.ahead, space.weights, space.forks)
    assert shut.by_cell(walked(shut, far, 60))[0, in_yard].sum() == 0.0
    assert shut.by_cell(walked(shut, out, 60))[0, ~in_yard].sum() == 0.0


def test_nobody_is_where_nobody_can_be() -> None:
    space = masked()
    house = ~space.within
    assert house.sum() == 25
    belief = surely(space, state(space, 10.0, 5.0, pace=WALK, heading=math.pi / 2))
    for _ in range(20):
        belief = space.walk(belief)
        assert space.by_cell(belief)[0, house].sum() == 0.0
        assert belief.sum() == pytest.approx(1.0, abs=1e-5)
    assert space.by_cell(space.prior[None])[0, house].sum() == 0.0
    beyond = np.abs(space.xy_m - (10.0, 16.0)).max(axis=1) <= 3
    assert space.by_cell(belief)[0, beyond].sum() > 0.02, "but one can walk round it"


def test_a_batch_walks_as_each_alone() -> None:
    space = street_and_yard()
    print("seed 3")
    belief = np.random.default_rng(3).random((5, space.states), np.float32)
    together, back = space.walk(belief), space.recall(belief)
    for i in range(5):
        assert together[i] == pytest.approx(space.walk(belief[i : i + 1])[0], rel=1e-4, abs=1e-9)
        assert back[i] == pytest.approx(space.recall(belief[i : i + 1])[0], rel=1e-4, abs=1e-9)


def test_looks_weigh_every_pace_and_sum_over_it() -> None:
    space = street_and_yard()
    print("seed 4")
    rng = np.random.default_rng(4)
    belief, likely = rng.random((2, space.states), np.float32), rng.random((2, space.looks), np.float32)
    want = space.by_look(belief) * likely
    assert belief.sum(axis=1) == pytest.approx(space.by_cell(belief).sum(axis=1), rel=1e-5)
    assert belief.sum(axis=1) == pytest.approx(space.by_look(belief).sum(axis=1), rel=1e-5)
    weighed = belief.copy()
    space.weigh(weighed, likely)
    assert space.by_look(weighed) == pytest.approx(want, rel=1e-4)


def test_joined_spaces_keep_their_cells_and_walk_as_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "JUMP", 0.0)
    path, ground = crossing(), yard()
    both = s.joined([path, ground], [])
    assert (both.cells, both.states, both.looks) == (
        path.cells + ground.cells,
        path.states + ground.states,
        path.looks + ground.looks,
    )
    for part, first in ((path, 0), (ground, path.states)):
        belief = np.zeros((1, both.states), np.float32)
        belief[0, first : first + part.states] = part.prior
        alone = walked(part, part.prior[None], 5)
        assert walked(both, belief, 5)[0, first : first + part.states] == pytest.approx(alone[0], rel=1e-3, abs=1e-8)


def test_open_ground_covers_its_rectangle() -> None:
    space = s.open_ground(-3.0, 2.0, 5.0, 4.0, 2.0)
    assert sorted(map(tuple, space.xy_m)) == [(x, y) for x in (-3.0, -1.0, 1.0, 3.0, 5.0) for y in (2.0, 4.0)]
    one = s.open_ground(0.0, 0.0, 0.0, 0.0, 2.0)
    assert one.cells == 1
    assert one.walk(one.prior[None]).sum() == pytest.approx(1.0, abs=1e-5)


def test_nearest_cells_of_a_path_are_its_own() -> None:
    """A check of the tests' own helper: the nearest cell of each place is within a step of it."""
    space = crossing()
    for x, y in ((-33.0, 0.0), (17.0, 0.0), (0.0, 24.5), (9.0, -20.0)):
        assert math.dist(space.xy_m[nearest(space, x, y)], (x, y)) < 2.0
