"""Walls and gates: a walker enters a yard by a gate and nowhere else, and no cell has two doors."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gateway.locate.ground import GATE_M, PATH_STEP_M, Ground
from gateway.zone import depth_m
from tests.gateway.locate.bed import state, surely
from tests.gateway.locate.bed_ground import GATE, STREET, XY, YARD, by_look, no_jumps, of_yard, school


def mass_in(ground: Ground, belief: Any, column: int = 0) -> float:
    return float((ground.space.by_cell(belief) @ ground.shares)[0, column])


def _corners(bounds: tuple[float, float, float, float]) -> list[XY]:
    x0, y0, x1, y1 = bounds
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _spots(way: Sequence[XY], speed: float) -> list[XY]:
    """Return where a walker is each second."""
    corners = np.array(way)
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T)))
    return [
        (float(np.interp(d, along, corners[:, 0])), float(np.interp(d, along, corners[:, 1])))
        for d in np.arange(0.0, along[-1], speed)
    ]


def test_the_gate_is_the_only_door() -> None:
    ground = Ground(school())
    assert len(ground.space.doors) == 1
    outside, inside = (ground.space.xy_m[cell] for cell in ground.space.doors[0])
    assert outside == pytest.approx((0.0, 9.0), abs=1.1)
    assert inside == pytest.approx((0.0, 11.0), abs=1.6)
    paths = ground.space.xy_m[~of_yard(ground)]
    assert not [xy for xy in paths if depth_m(*xy, _corners(YARD)) > 0]


def test_a_dead_end_at_the_wall_is_a_gate_and_a_street_that_goes_on_is_none() -> None:
    to_wall = ((20.0, 0.0), (20.0, 10.0 - GATE_M + 0.5))
    short = ((-20.0, 0.0), (-20.0, 10.0 - GATE_M - 1.5))
    ground = Ground(school(STREET, to_wall, short))
    assert [ground.space.xy_m[i][0] for i, _ in ground.space.doors] == pytest.approx([20.0])
    # Two streets meet 2 m before the wall and go on along it.
    along = Ground(school(((-60.0, 8.0), (0.0, 8.0)), ((0.0, 8.0), (60.0, 8.0)), STREET, GATE))
    assert [along.space.xy_m[i][0] for i, _ in along.space.doors] == pytest.approx([0.0], abs=0.1)


def test_a_path_that_only_touches_the_wall_is_no_gate_and_not_broken() -> None:
    ground = Ground(school(((-60.0, 9.8), (0.0, 10.4), (60.0, 9.8)), GATE))
    assert len(ground.space.doors) == 1
    xs = np.sort(ground.space.xy_m[~of_yard(ground) & (ground.space.xy_m[:, 1] > 9)][:, 0])
    assert np.diff(xs).max() < 1.25 * PATH_STEP_M


def test_a_yard_without_a_gate_has_a_door_where_the_street_is_nearest() -> None:
    ground = Ground(school(((-60.0, 0.0), (-40.0, 0.0)), ((20.0, 3.0), (60.0, 0.0))))
    [at] = [ground.space.xy_m[i] for i, _ in ground.space.doors]
    assert np.hypot(*(at - (20.0, 3.0))) < PATH_STEP_M
    assert len(ground.notes) == 1
    assert ground.notes[0].startswith("no footpath leads into place school, so its door is where one comes nearest")
    assert Ground(school()).notes == []


def test_no_cell_has_two_doors_though_many_ways_lead_in() -> None:
    ways = [((x, 0.0), (x, 14.0)) for x in np.arange(-28.0, 29.0, 1.5)]
    ground = Ground(school(STREET, *ways))
    cells = [cell for door in ground.space.doors for cell in door]
    assert len(cells) == len(set(cells))
    assert len(ground.space.doors) >= 10
    assert all(ground.space.within[cell] for cell in cells)
    for i, j in ground.space.doors:
        assert math.dist(ground.space.xy_m[i], ground.space.xy_m[j]) < 8.0


def test_who_walks_through_the_gate_is_in_the_yard_and_nobody_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    no_jumps(monkeypatch)
    ground = Ground(school())
    space = ground.space
    before_gate = surely(space, state(space, 0.0, 5.0, pace=1, heading=math.pi / 2))
    at_wall = surely(space, state(space, -58.0, 0.0, pace=0, heading=0.0))
    for second in range(60):
        before_gate, at_wall = space.walk(before_gate), space.walk(at_wall)
        assert before_gate.sum() == pytest.approx(1.0, abs=1e-5)
        if second < 4:  # 58 m to the gate, 10 m to the wall
            assert mass_in(ground, at_wall) < 1e-6
    assert mass_in(ground, before_gate) > 0.3
    yard = of_yard(ground)
    assert not space.by_cell(before_gate)[0, yard & ~space.within].any()
    inside = surely(space, state(space, 20.0, 40.0, pace=None))
    for _ in range(60):
        inside = space.walk(inside)
    assert mass_in(ground, inside) > 0.8, "a yard does not run empty over its walls"


def test_a_walk_to_school_is_followed_through_the_gate() -> None:
    """The readings give the place within 8 m: along the street, through the gate, into the yard, and at rest there."""
    ground = Ground(school())
    space = ground.space
    way = [(-50.0, 0.0), (0.0, 0.0), (0.0, 10.0), (12.0, 35.0)]
    belief, walked, odds = np.tile(space.prior, (1, 1)), _spots(way, 1.3), []
    for x, y in [*walked, *[way[-1]] * 20]:
        belief = space.walk(belief)
        near = np.exp(-((space.xy_m - (x, y)) ** 2).sum(axis=1) / 2 / 8.0**2).astype(np.float32) + 1e-9
        space.weigh(belief, by_look(space, near))
        belief /= belief.sum()
        odds.append(mass_in(ground, belief))
    gate = round(60 / 1.3)
    assert max(odds[10 : gate - 20]) < 0.2
    assert min(odds[gate + 15 :]) > 0.9
