"""Children: the same for the same seed, on footpaths, at walking speed, and where their part in the story puts them."""

import itertools
import math

import pytest

from sim.street import site
from sim.street.children import KERB_GAP_M, SPEED_MAX, SPEED_MIN, Child, World
from sim.street.paths import nearest_on_segment

ZONE = site.load()
END_S = 240


def steps(child: Child, step_s: float = 0.5) -> list[tuple[float, float]]:
    return [(w.x_m, w.y_m) for w in (child.at(n * step_s) for n in range(int(END_S / step_s)))]


def test_a_seed_is_a_story_and_another_seed_another() -> None:
    assert World(ZONE, 1, 20).digest(90) == World(ZONE, 1, 20).digest(90)
    assert World(ZONE, 1, 20).digest(90) != World(ZONE, 2, 20).digest(90)


def test_asking_in_another_order_changes_nobodys_way() -> None:
    forward, backward = World(ZONE, 3, 12), World(ZONE, 3, 12)
    for child in reversed(backward.children):
        child.at(400.0)
    assert [steps(child) for child in forward.children] == [steps(child) for child in backward.children]


def test_more_children_change_nothing_for_the_first_ones() -> None:
    few, many = World(ZONE, 4, 5), World(ZONE, 4, 50)
    assert [steps(child) for child in few.children] == [steps(child) for child in many.children[:5]]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_jumps_and_nobody_leaves_the_streets_but_into_the_school(seed: int) -> None:
    world = World(ZONE, seed, 25)
    lines = [pair for kind, line in ZONE.streets if kind != "primary" for pair in itertools.pairwise(line)]
    for child in world.children:
        assert SPEED_MIN <= child.speed <= SPEED_MAX
        way = steps(child)
        assert max(math.dist(a, b) for a, b in itertools.pairwise(way)) <= SPEED_MAX * 0.5 + 0.05
        for point in way[::4]:
            off = min(math.dist(point, nearest_on_segment(point, a, b)) for a, b in lines)
            assert off < 6 or ZONE.at_school(point), (child.tag, point)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everybody_does_its_part(seed: int) -> None:
    world = World(ZONE, seed, 25)
    assert {"pupil", "passer", "kerb", "errand"} == {child.role for child in world.children}
    for child in world.children:
        inside = [world.at_school(child, t) for t in range(END_S)]
        if child.role == "passer":
            assert not any(inside)
        elif child.role == "errand":
            (came_s, comes), (left_s, leaves) = world.crossings_s(child, END_S)
            assert (comes, leaves) == (True, False)
            assert left_s - came_s > 25, "long enough for a gateway to say so"
            assert not inside[-1]
        else:
            assert inside[-1]
            assert inside == sorted(inside), "who has entered stays"
            assert world.inside_since_s(child, END_S - 1) == pytest.approx(inside.index(True), abs=1.0)
        if child.role == "kerb":
            nearest = min(world.danger_distance_m(child, t) for t in range(END_S))
            assert 0 < nearest < KERB_GAP_M + 1.5, "at the kerb, never on the road"


def test_several_of_twenty_arrive_within_ninety_seconds_whatever_the_seed() -> None:
    for seed in range(1, 9):
        world = World(ZONE, seed, 20)
        assert sum(world.at_school(child, 80) for child in world.children) >= 3, seed


def test_crossings_are_when_a_child_is_on_the_line() -> None:
    world = World(ZONE, 2, 20)
    for child in world.children:
        crossings = world.crossings_s(child, 120.0)
        inside = [n for n in range(241) if world.at_school(child, 0.5 * n)]
        assert [arrives for _, arrives in crossings] == [n % 2 == 0 for n in range(len(crossings))]
        assert bool(crossings) == bool(inside)
        if crossings:
            assert crossings[0][0] == 0.5 * inside[0]


def test_an_endless_story_goes_home_and_comes_again() -> None:
    world = World(ZONE, 1, 8, endless=True)
    assert "errand" not in {child.role for child in world.children}, "everybody goes home in it"
    pupil = next(child for child in world.children if child.role == "pupil")
    inside = [world.at_school(pupil, t) for t in range(0, 3600, 5)]
    assert sum(a and not b for a, b in itertools.pairwise(inside)) >= 2


@pytest.mark.parametrize("count", [0, 3001])
def test_a_senseless_number_of_children_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="children"):
        World(ZONE, 1, count)
