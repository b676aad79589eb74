"""Lines of footpaths become chains between junctions: whatever was drawn, nothing is doubled and nothing is lost."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.locate.space import footpaths
from gateway.locate.ways import SEGMENTS_MAX, SNAP_M, Chain, PathLine, chains


def total_m(found: list[Chain]) -> float:
    return sum(chain.length_m for chain in found)


def degrees(found: list[Chain]) -> list[int]:
    """How many chains meet at each node, highest first."""
    ends = Counter(node for chain in found for node in (chain.start, chain.end))
    return sorted(ends.values(), reverse=True)


def test_lines_that_cross_in_the_middle_meet_there() -> None:
    found = chains([[(-20.0, 0.0), (20.0, 0.0)], [(3.0, -10.0), (3.0, 30.0)]])
    assert degrees(found) == [4, 1, 1, 1, 1]
    assert sorted(round(chain.length_m, 6) for chain in found) == [10.0, 17.0, 23.0, 30.0]


def test_a_line_that_ends_at_another_or_nearly_meets_it() -> None:
    for gap in (0.0, 0.8 * SNAP_M, -0.8 * SNAP_M):
        found = chains([[(-20.0, 0.0), (20.0, 0.0)], [(3.0, gap), (3.0, 30.0)]])
        assert degrees(found) == [3, 1, 1, 1], f"gap {gap}"
        assert total_m(found) == pytest.approx(70.0, abs=2 * SNAP_M)


def test_a_line_that_ends_well_before_another_does_not_meet_it() -> None:
    found = chains([[(-20.0, 0.0), (20.0, 0.0)], [(3.0, 1.2 * SNAP_M), (3.0, 30.0)]])
    assert degrees(found) == [1, 1, 1, 1]


def test_ends_that_lie_beside_each_other_are_one_node() -> None:
    found = chains([[(0.0, 0.0), (20.0, 0.0)], [(20.3, 0.3), (20.0, 30.0)]])
    assert len(found) == 1, "two lines, no junction: one chain with a bend"
    assert total_m(found) == pytest.approx(50.0, abs=2 * SNAP_M)


def test_a_ring_is_one_chain_that_ends_where_it_begins() -> None:
    ring = [(0.0, 0.0), (20.0, 0.0), (20.0, 10.0), (0.0, 10.0), (0.0, 0.0)]
    (chain,) = chains([ring])
    assert chain.start == chain.end
    assert chain.length_m == pytest.approx(60.0)
    two = chains([ring, [(x + 100.0, y) for x, y in ring]])
    assert [c.length_m for c in two] == pytest.approx([60.0, 60.0])


def test_a_ring_on_a_stalk_has_one_junction() -> None:
    ring = [(0.0, 0.0), (10.0, 5.0), (0.0, 10.0), (-10.0, 5.0), (0.0, 0.0)]
    found = chains([[(0.0, -20.0), (0.0, 0.0)], ring])
    assert degrees(found) == [3, 1]
    assert sum(chain.start == chain.end for chain in found) == 1
    assert total_m(found) == pytest.approx(20.0 + 4 * math.hypot(10, 5))


def test_what_is_drawn_twice_counts_once() -> None:
    line = [(0.0, 0.0), (10.0, 3.0), (25.0, 3.0)]
    once = chains([line])
    for again in (line, line[::-1], line[1:], [(5.0, 1.5), (10.0, 3.0)]):
        assert total_m(chains([line, again])) == pytest.approx(total_m(once), abs=0.05)
    overlapping = chains([[(0.0, 0.0), (10.0, 0.0)], [(5.0, 0.0), (15.0, 0.0)]])
    assert total_m(overlapping) == pytest.approx(15.0)


def test_points_drawn_too_densely_do_no_harm() -> None:
    dense = [(0.1 * i, math.sin(0.02 * i)) for i in range(500)]
    found = chains([dense])
    assert len(found) == 1
    assert total_m(found) == pytest.approx(sum(math.dist(a, b) for a, b in pairwise(dense)), rel=0.02)


@pytest.mark.parametrize("lines", [[], [[]], [[(1.0, 2.0)]], [[(1.0, 2.0), (1.0, 2.0)]], [[(0.0, 0.0), (0.2, 0.0)]]])
def test_what_is_no_line_gives_no_chain(lines: list[PathLine]) -> None:
    assert chains(lines) == []


def test_too_many_pieces_are_refused_with_the_number_and_what_to_do() -> None:
    line = [(2.0 * i, 0.0) for i in range(SEGMENTS_MAX + 2)]
    with pytest.raises(ValueError, match=rf"{SEGMENTS_MAX + 1} pieces.*at most {SEGMENTS_MAX}.*draw"):
        chains([line])


def test_a_chain_is_cut_into_even_cells_that_face_along_it() -> None:
    (chain,) = chains([[(0.0, 0.0), (10.0, 0.0), (10.0, 11.0)]])
    middles, facings, length_m = chain.cut(2.0)
    assert length_m == pytest.approx(21.0)
    assert len(middles) == round(21.0 / 2.0)
    along = (np.arange(len(middles)) + 0.5) * 21.0 / len(middles)
    forward = chain.points[0] == (0.0, 0.0)
    for at, (x, y), angle in zip(along if forward else 21.0 - along, middles, facings, strict=True):
        assert (x, y) == pytest.approx((at, 0.0) if at <= 10 else (10.0, at - 10.0))
        want = (0.0 if at <= 10 else math.pi / 2) + (0.0 if forward else math.pi)
        assert math.cos(angle - want) == pytest.approx(1.0)
    short, _, _ = Chain(0, 1, ((0.0, 0.0), (1.0, 0.0))).cut(50.0)
    assert short.tolist() == [[0.5, 0.0]]


Spot = tuple[float, float]
spots = st.tuples(st.floats(-50, 50), st.floats(-50, 50)).map(lambda p: (round(p[0], 2), round(p[1], 2)))
grid_spots = st.tuples(st.integers(-3, 3), st.integers(-3, 3)).map(lambda p: (10.0 * p[0], 10.0 * p[1]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(spots, max_size=6), max_size=6))
def test_whatever_is_drawn_its_length_is_kept_and_it_can_be_walked(lines: list[PathLine]) -> None:
    found = chains(lines)
    drawn = [(a, b) for line in lines for a, b in pairwise(line)]
    pieces = sum(len(chain.points) - 1 for chain in found)
    # Each piece may move by SNAP_M at its ends; what lies on top of something else counts once.
    assert total_m(found) <= sum(math.dist(a, b) for a, b in drawn) + 2 * SNAP_M * pieces + 1e-6
    longest = max((math.dist(a, b) for a, b in drawn), default=0.0)
    assert total_m(found) >= longest - 2 * SNAP_M
    for chain in found:
        assert len(chain.points) >= 2
        assert chain.length_m > 0
    if found:
        space = footpaths(found, 2.0)
        assert np.isfinite(space.xy_m).all()
        assert space.walk(space.prior[None]).sum() == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(grid_spots, grid_spots), max_size=8))
def test_ways_on_a_grid_keep_their_length_to_the_metre(
    legs: list[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    """Legs along the grid's lines, so that the true length can be counted: each unit of 10 m once."""
    units, lines = set(), []
    for (x1, y1), (x2, y2) in legs:
        lines.append([(x1, y1), (x2, y1), (x2, y2)])
        for (ax, ay), (bx, by) in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2))):
            steps = round(max(abs(bx - ax), abs(by - ay)) / 10)
            stops = [(ax + (bx - ax) * i / max(steps, 1), ay + (by - ay) * i / max(steps, 1)) for i in range(steps + 1)]
            units |= {frozenset((a, b)) for a, b in pairwise(stops)}
    found = chains(lines)
    assert total_m(found) == pytest.approx(10.0 * len(units), abs=0.01)
    walked = [frozenset(pair) for chain in found for pair in pairwise(chain.points)]
    assert len(walked) == len(set(walked)), "a piece is in two chains"
    around: Counter[tuple[float, float]] = Counter(spot for unit in units for spot in unit)
    junctions = sum(count > 2 for count in around.values())
    assert sum(count > 2 for count in degrees(found)) == junctions
