"""The ground of a zone: places, dangers and routes keep their area, the number of cells is limited."""

import math

import numpy as np
import pytest

from gateway.locate.ground import PATH_STEP_M, YARD_CELLS, Ground
from gateway.zone import DangerArea, Field, Place, Route, Zone, depth_m, distance_to_line_m
from tests.gateway.core import bed
from tests.gateway.core.bed import at, box
from tests.gateway.locate.bed import nearest
from tests.gateway.locate.bed_ground import STREET, YARD, of_yard, path, place, poles, school, town


@pytest.mark.parametrize("corners", [(-30, 10, 30, 50), (-31.7, 12.3, 18.9, 33.1), (-200, -200, 200, 200)])
def test_shares_of_a_place_add_up_to_its_area_without_a_map(corners: tuple[float, float, float, float]) -> None:
    zone = Zone(readers=poles((-30, 0), (0, 0), (30, 0)), places=(place("p", *corners),))
    ground = Ground(zone)
    (low_x, low_y), (high_x, high_y) = ground.space.xy_m.min(axis=0) - 1.5, ground.space.xy_m.max(axis=0) + 1.5
    x0, y0, x1, y1 = corners
    area_m2 = (min(x1, high_x) - max(x0, low_x)) * (min(y1, high_y) - max(y0, low_y))
    found_m2 = float((ground.space.size_m**2 * ground.shares[:, 0]).sum())
    assert found_m2 == pytest.approx(area_m2, rel=0.06)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_a_yard_has_the_area_of_its_place_however_it_is_turned(angle: float) -> None:
    c, t = math.cos(angle), math.sin(angle)
    corners = [(c * x - t * y, t * x + c * y) for x, y in ((-31, 11), (29, 11), (29, 52), (-31, 52))]
    zone = Zone(
        readers=poles((0, 0)),
        places=(Place("p", "school", tuple(at(*corner) for corner in corners)),),
        footpaths=(path((-60.0, -5.0), (60.0, -5.0)),),
    )
    ground = Ground(zone)
    yard = of_yard(ground) & ground.space.within
    assert float((ground.space.size_m[yard] ** 2).sum()) == pytest.approx(60 * 41, rel=0.04)
    assert ground.shares[yard, 0] == pytest.approx(1.0)
    assert ground.space.within[of_yard(ground)].mean() > 0.9  # the grid of cells is parallel to the wall
    for x, y in ground.space.xy_m[yard]:
        assert depth_m(x, y, corners) > 0


def test_dangers_hold_their_margin_and_routes_their_corridor() -> None:
    river = DangerArea("river", box(-60, -40, 60, -12), warn_m=10.0)
    route = Route("way", (at(-60.0, 0.0), at(0.0, 0.0)), 5.0)
    ground = Ground(school(dangers=(river,), routes=(route, Route("far", (at(900.0, 0.0), at(990.0, 0.0))))))
    assert (ground.places, ground.dangers, ground.routes) == (("school",), ("river",), {"way": 0, "far": 1})
    assert ground.shares.shape == (ground.space.cells, 4)
    assert ground.shares.dtype == np.float32
    assert ((ground.shares >= 0) & (ground.shares <= 1)).all()
    street = nearest(ground.space, -20.0, 0.0)
    # The street is 3 m wide along y = 0. The middle of its southern third is 11 m from the river at y = -12.
    assert ground.shares[street].tolist() == [0.0, 0.0, 1.0, 0.0]
    wider = Ground(school(dangers=(DangerArea("river", river.polygon, warn_m=11.3),)))
    assert wider.shares[street, 1] == pytest.approx(1 / 3)
    assert not ground.shares[:, 3].any()
    away = [distance_to_line_m(x, y, STREET) > 9 for x, y in ground.space.xy_m]
    assert not ground.shares[away, 2].any()


def test_probabilities_are_shares_of_one_belief() -> None:
    """The probabilities of a place and of its complement add up to 1. A place cut in two has the sum of its halves."""
    whole, west, east = place("all", *YARD), place("west", -30, 10, 0, 50), place("east", 0, 10, 30, 50)
    zone = Zone(readers=poles((-30, 0), (0, 0), (30, 0)), places=(whole, west, east), footpaths=school().footpaths)
    ground = Ground(zone)
    print("seed 5")
    rng = np.random.default_rng(5)
    belief = rng.random((4, ground.space.states), np.float32) ** 4 * (ground.space.prior > 0)
    belief /= belief.sum(axis=1, keepdims=True)
    odds = ground.space.by_cell(belief) @ ground.shares
    assert odds[:, 0] == pytest.approx(odds[:, 1] + odds[:, 2], abs=1e-5)
    assert (odds >= 0).all()
    assert (odds <= 1 + 1e-5).all()
    outside = ground.space.by_cell(belief) @ (1 - ground.shares[:, 0])
    assert odds[:, 0] + outside == pytest.approx(1.0, abs=1e-5)


def test_of_two_places_that_overlap_the_cells_are_there_once() -> None:
    zone = school()
    zone = Zone(
        readers=zone.readers,
        places=(place("playground", 10, 20, 20, 30), *zone.places, place("annex", 25, 30, 50, 60)),
        footpaths=zone.footpaths,
    )
    ground = Ground(zone)
    yard = of_yard(ground) & ground.space.within
    assert float((ground.space.size_m[yard] ** 2).sum()) == pytest.approx(60 * 40 + 25 * 30 - 5 * 20, rel=0.05)
    assert float((ground.space.size_m[yard] ** 2 * ground.shares[yard, 0]).sum()) == pytest.approx(100, rel=0.1)
    inside = ground.space.xy_m[ground.shares[:, 0] == 1.0]
    assert all(10 <= x <= 20 and 20 <= y <= 30 for x, y in inside)
    assert ground.shares[nearest(ground.space, 15, 25)].tolist() == [1.0, 1.0, 0.0]


def test_a_yard_is_of_so_many_cells_at_the_most() -> None:
    ground = Ground(school())
    assert of_yard(ground).sum() <= 1.1 * YARD_CELLS
    assert ground.space.size_m[~of_yard(ground)].max() < 1.25 * PATH_STEP_M


def test_the_plane_and_the_readers_are_those_of_the_field() -> None:
    for zone in (bed.zone(), school(), Zone(readers=(), places=(place("p", 0, 0, 10, 10),)), Zone(readers=())):
        field, ground = Field(zone), Ground(zone)
        assert (ground.plane.lon, ground.plane.lat) == (field.plane.lon, field.plane.lat)
        assert ground.readers == field.readers


def test_the_same_zone_has_the_same_ground() -> None:
    one, other = Ground(town()), Ground(town())
    assert (one.space.xy_m == other.space.xy_m).all()
    assert one.space.doors == other.space.doors
    assert [sector.home for sector in one.sectors] == [sector.home for sector in other.sectors]
    assert (one.shares == other.shares).all()
