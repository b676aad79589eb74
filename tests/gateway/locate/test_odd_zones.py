"""Odd zones have a usable ground too: without readers or map, or with paths and places that are far or overlap."""

import math

import numpy as np
import pytest

from gateway.locate.ground import PATH_CELLS, REACH_M, Ground
from gateway.zone import DangerArea, Place, Zone
from tests.gateway.core import bed
from tests.gateway.core.bed import at, box
from tests.gateway.locate.bed_ground import STREET, YARD, of_yard, path, place, poles, school


def odd_zones() -> dict[str, Zone]:
    one = poles((0.0, 0.0))
    ring = [(30 * math.cos(a), 30 * math.sin(a)) for a in np.linspace(0, math.tau, 25)]
    return {
        "nothing": Zone(readers=()),
        "no reader but a place": Zone(readers=(), places=(place("p", 0, 0, 10, 10),)),
        "no reader but a footpath": Zone(readers=(), footpaths=(path((0, 0), (50, 0)),)),
        "one reader": Zone(readers=one),
        "one reader, one path": Zone(readers=one, footpaths=(path((-40, 3), (40, 3)),)),
        "a place out of reach": Zone(readers=one, places=(place("p", 500, 0, 600, 90),), footpaths=(path(*STREET),)),
        "a danger out of reach": Zone(readers=one, dangers=(DangerArea("d", box(500, 0, 600, 90)),)),
        "paths out of reach": Zone(readers=one, footpaths=(path((500, 0), (600, 0)),)),
        "paths that do not touch": Zone(readers=one, footpaths=(path((-40, 0), (40, 0)), path((-40, 20), (40, 20)))),
        "a ring without a junction": Zone(readers=one, footpaths=(path(*ring),)),
        "a path without a length": Zone(readers=one, footpaths=(path((5, 5), (5, 5)), path((1, 1), (1, 1), (1, 1)))),
        "a path of a hand": Zone(readers=one, footpaths=(path((5, 5), (5.3, 5)),)),
        "a path there and back": Zone(readers=one, footpaths=(path((-9, 0), (9, 0), (-9, 0)),)),
        "the whole street in a place": street_in_a_place(),
        "a place like a thread": Zone(
            readers=one, places=(place("p", -40, 5, 40, 5.2),), footpaths=(path((-40, 0), (40, 0)),)
        ),
        "a place that crosses itself": Zone(
            readers=one,
            places=(Place("p", "other", (at(-9, -9), at(9, 9), at(9, -9), at(-9, 9))),),
            footpaths=(path((-40, 0), (40, 0)),),
        ),
        "two places wall to wall": Zone(
            readers=one,
            places=(place("a", -20, 5, 0, 30), place("b", 0, 5, 20, 30)),
            footpaths=(path((-10, 0), (-10, 15), (10, 15)),),
        ),
        "the same place twice": Zone(
            readers=one, places=(place("a", *YARD), place("b", *YARD)), footpaths=(path(*STREET),)
        ),
        "readers on one pole": Zone(readers=poles((0, 0), (0, 0)), footpaths=(path(*STREET),)),
        "readers 15 km apart": Zone(readers=poles((0, 0), (15e3, 0), (15e3, 15e3)), footpaths=(path(*STREET),)),
        "readers 15 km apart, no map": Zone(readers=poles((0, 0), (15e3, 0), (15e3, 15e3))),
        "a park of a square kilometre": Zone(
            readers=poles((0, 0)), places=(place("p", 20, -500, 1020, 500),), footpaths=(path(*STREET),)
        ),
    }


def street_in_a_place() -> Zone:
    zone = bed.zone()
    return Zone(zone.readers, (place("all", -300, -300, 600, 300),), zone.dangers, footpaths=(path(*STREET),))


@pytest.mark.parametrize("name", list(odd_zones()))
def test_an_odd_zone_has_a_ground(name: str) -> None:
    zone = odd_zones()[name]
    ground = Ground(zone)
    space = ground.space
    belief = np.tile(space.prior, (2, 1))
    belief[1] = 0
    belief[1, int(space.prior.argmax())] = 1
    for _ in range(3):
        belief = space.walk(belief)
    assert np.isfinite(belief).all()
    assert belief.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
    assert space.prior.sum() == pytest.approx(1.0, abs=1e-4)
    assert np.isfinite(ground.shares).all()
    assert ground.shares.shape == (space.cells, len(zone.places) + len(zone.dangers))
    assert sorted(number for sector in ground.sectors for number in sector.home) == sorted(ground.readers)
    here = space.xy_m[space.within]
    for x, y, _ in ground.readers.values():
        assert float(np.hypot(*(here - (x, y)).T).min()) <= 30.0, "no reader is without ground"


def test_a_reader_far_from_every_footpath_has_ground_of_its_own() -> None:
    ground = Ground(Zone(readers=poles((0, 0), (0, 200)), footpaths=(path(*STREET),)))
    yard = ground.space.xy_m[of_yard(ground) & ground.space.within]
    middle = ground.readers[2][:2]
    assert float(np.abs(yard - middle).max()) <= 40.0
    assert float(np.hypot(*(yard - middle).T).min()) < 3.0
    assert len(ground.space.doors) == 1


def test_a_danger_no_footpath_comes_near_can_be_believed_in() -> None:
    far, near = DangerArea("far", box(-20, -50, 20, -30), 5.0), DangerArea("near", box(-20, -60, 20, -4), 5.0)
    ground = Ground(school(dangers=(far,)))
    assert float(ground.shares[:, 1].max()) == 1.0
    assert [block.wide is not None for block in ground.space.blocks] == [False, True, True]
    assert len(Ground(school(dangers=(near,))).space.blocks) == 2


def test_footpaths_out_of_reach_are_left_out_and_cells_are_bounded() -> None:
    lines = [((-400.0, y), (400.0, y)) for y in np.arange(-400.0, 400.0, 8.0)]
    ground = Ground(Zone(readers=poles((0, 0), (40, 0)), footpaths=tuple(path(*line) for line in lines)))
    far_m = np.min([np.hypot(*(ground.space.xy_m - reader[:2]).T) for reader in ground.readers.values()], axis=0)
    assert far_m.max() <= REACH_M
    assert ground.space.cells <= 1.1 * PATH_CELLS
    assert ground.space.size_m.max() < 4.4
