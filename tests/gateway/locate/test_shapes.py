"""Many points at once give the same as each point alone, and a line that is cut loses nothing."""

import itertools
import math

import numpy as np
import pytest

from gateway.locate.shapes import (
    AWAY,
    OUT,
    SHALLOW_M,
    clusters,
    cut,
    depths_m,
    frame_of,
    inside,
    near,
    off_line_m,
    turned,
)
from gateway.zone import depth_m, distance_to_line_m

L_SHAPE = [(0.0, 0.0), (40.0, 0.0), (40.0, 10.0), (10.0, 10.0), (10.0, 30.0), (0.0, 30.0)]
POLES = np.array([[0.0, 0.0], [60.0, 0.0]])


def length_m(points: list[tuple[float, float]]) -> float:
    return sum(math.dist(a, b) for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("ring", [L_SHAPE, [*L_SHAPE, L_SHAPE[0]], L_SHAPE[::-1]])
def test_depths_and_distances_are_those_of_the_zone(ring: list[tuple[float, float]]) -> None:
    print("seed 1")
    points = np.random.default_rng(1).uniform(-20, 60, (500, 2))
    assert depths_m(points, ring) == pytest.approx([depth_m(x, y, ring) for x, y in points])
    assert off_line_m(points, ring) == pytest.approx([distance_to_line_m(x, y, ring) for x, y in points])
    assert (inside(points, ring) == (depths_m(points, ring) > 0)).all()
    missed = ~near(points, ring, 5.0)
    assert missed.any()
    assert off_line_m(points[missed], ring).min() > 5.0


def test_a_point_on_a_common_edge_is_in_one_of_two_polygons() -> None:
    west, east = [(0, 0), (5, 0), (5, 9), (0, 9)], [(5, 0), (9, 0), (9, 9), (5, 9)]
    points = np.array([(5.0, y) for y in np.arange(0.5, 9.0)])
    assert (inside(points, west) != inside(points, east)).all()


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.5, 3.0])
def test_a_frame_lies_along_the_longest_walls(angle: float) -> None:
    corners = turned(np.array(L_SHAPE), angle)
    found, x0, y0, x1, y1 = frame_of([(float(x), float(y)) for x, y in corners])
    assert (x1 - x0) * (y1 - y0) == pytest.approx(1200.0, abs=0.01)
    flat = turned(corners, -found)
    assert flat.min(axis=0) == pytest.approx((x0, y0))
    assert flat.max(axis=0) == pytest.approx((x1, y1))


def test_points_are_together_where_steps_are_short() -> None:
    spots = [(0.0, 0.0), (100.0, 0.0), (9.0, 0.0), (18.0, 0.0), (100.0, 9.0)]
    assert clusters(spots, 10.0) == [[0, 2, 3], [1, 4]]
    assert clusters([], 10.0) == []


def test_a_line_is_cut_at_outlines_and_where_nobody_reaches() -> None:
    through = [(-300.0, 5.0), (20.0, 5.0), (300.0, 5.0)]
    (runs,) = cut([through], [L_SHAPE], POLES, 80.0)
    assert [label for label, _ in runs] == [AWAY, OUT, 0, OUT, AWAY]
    edge_m = math.sqrt(80.0**2 - 5.0**2)
    ends = [points[-1][0] for _, points in runs]
    assert ends == pytest.approx([-edge_m, 0.0, 40.0, 60.0 + edge_m, 300.0])
    assert runs[2][1] == [pytest.approx((0.0, 5.0)), (20.0, 5.0), pytest.approx((40.0, 5.0))]


def test_what_only_touches_a_polygon_stays_whole_and_gets_no_corners_from_a_circle() -> None:
    shallow = [(-10.0, SHALLOW_M / 2), (55.0, SHALLOW_M / 2)]
    (runs,) = cut([shallow], [L_SHAPE], POLES, 80.0)
    assert [label for label, _ in runs] == [OUT]
    far = [(200.0, 0.2), (210.0, 0.2)]
    assert cut([far], [[(195.0, 0.0), (300.0, 0.0), (300.0, 90.0), (195.0, 90.0)]], POLES, 80.0) == [[(AWAY, far)]]
    beside = [(-60.0, -20.0), (120.0, -20.0)]
    assert cut([beside], [L_SHAPE], POLES, 80.0) == [[(OUT, beside)]]


def test_cutting_keeps_every_metre_in_order() -> None:
    print("seed 2")
    rng = np.random.default_rng(2)
    rings = [L_SHAPE, [(x + 30.0, y + 5.0) for x, y in L_SHAPE]]
    lines = [[(float(x), float(y)) for x, y in rng.uniform(-150, 200, (7, 2))] for _ in range(40)]
    for line, runs in zip(lines, cut(lines, rings, POLES, 80.0), strict=True):
        assert sum(length_m(points) for _, points in runs) == pytest.approx(length_m(line))
        assert runs[0][1][0] == line[0]
        assert runs[-1][1][-1] == line[-1]
        assert all(one[1][-1] == other[1][0] and one[0] != other[0] for one, other in itertools.pairwise(runs))
        for label, points in runs:
            middles = np.array([((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in itertools.pairwise(points)])
            if label >= 0:
                assert (depths_m(middles, rings[label]) > -SHALLOW_M).all()
            if label == AWAY:
                assert np.hypot(*(middles[:, None] - POLES).transpose(2, 0, 1)).min() > 79.9


def test_lines_without_length_have_no_runs() -> None:
    assert cut([[(1.0, 1.0), (1.0, 1.0)]], [L_SHAPE], POLES, 80.0) == [[]]
    assert cut([[(1.0, 1.0), (1.0, 1.0)], [(0.0, -5.0), (9.0, -5.0)]], [], POLES, 80.0)[0] == []
    assert cut([], [L_SHAPE], POLES, 80.0) == []
