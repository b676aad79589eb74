"""Children at a gate: what they do is what is said of them, and the same seed makes the same child."""

import numpy as np
import pytest

from sim.plan.scenes import KINDS, Premises, sampled, scene
from sim.street import site as sites
from sim.street.site import Site


@pytest.fixture(scope="module")
def site() -> Site:
    return sites.load()


@pytest.fixture(scope="module")
def place(site: Site) -> Premises:
    return Premises(site)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_truth_of_a_scene_is_where_its_child_walks(kind: str, site: Site, place: Premises) -> None:
    for number in range(4):
        one = scene(kind, place, 3, number)
        assert site.at_school(one.walk.points[0]) == one.began_inside
        now_in, wrong_s = one.began_inside, 0.0
        crossings = list(one.crossings)
        for t in np.arange(0.0, min(one.end_s, 1500.0), 0.5).tolist():
            while crossings and crossings[0][0] <= t:
                now_in = crossings.pop(0)[1]
            at = one.walk.at(t)
            wrong_s += 0.5 * (site.at_school((at.x_m, at.y_m)) != now_in)
        assert wrong_s <= 3.0, f"{kind} {number}: on the other side for {wrong_s} s, in the gate's own width at most"


def test_equal_seeds_make_equal_scenes_and_others_do_not(place: Premises) -> None:
    assert scene("plays", place, 5, 2) == scene("plays", place, 5, 2)
    assert scene("plays", place, 5, 2) != scene("plays", place, 5, 3)
    assert scene("plays", place, 5, 2) != scene("plays", place, 6, 2)


def test_many_places_at_once_are_the_places_one_by_one(place: Premises) -> None:
    scenes = [scene(kind, place, 9, 0) for kind in ("arrive", "passer")]
    t_s = np.tile(np.arange(0.25, 200.0, 1.7), (2, 1))
    spots, heading, moving = sampled(scenes, t_s)
    for k, one in enumerate(scenes):
        for n, t in enumerate(t_s[k].tolist()):
            at = one.walk.at(t)
            assert np.hypot(spots[k, n, 0] - at.x_m, spots[k, n, 1] - at.y_m) < 1e-9
            assert moving[k, n] == at.moving
            assert not at.moving or abs(heading[k, n] - at.heading) < 1e-9


def test_who_stands_turns(place: Premises) -> None:
    one = scene("wait", place, 4, 1)
    _, heading, _ = sampled([one], np.arange(200.0, 700.0, 1.0)[None])
    assert len(set(np.round(heading[0], 6).tolist())) > 10
