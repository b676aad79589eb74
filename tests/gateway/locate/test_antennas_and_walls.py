"""Antennas enter the law as they are mounted; of a wall, what was measured, and never what was only drawn."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.locate.ground import Ground
from gateway.locate.levels import Law, LevelRows, fit_law
from gateway.locate.locator import ZoneLocator
from gateway.locate.models import models_of_street
from gateway.locate.pathloss import BeaconLink, fit
from gateway.locate.shapes import crossing, side
from gateway.zone import Gate, Reader
from tests.gateway.core.bed import at
from tests.gateway.locate.bed import HEIGHT_M, poles
from tests.gateway.locate.bed_ground import GATE, STREET, XY, path, place, school

WALL: list[XY] = [(-30.0, 10.0), (30.0, 10.0), (30.0, 50.0), (-30.0, 50.0)]
POSTS = poles((-2.0, 8.0), (2.0, 8.0), (-2.0, 13.0), (2.0, 13.0), (-30.0, 0.0), (30.0, 0.0))
LOOK = np.array([-math.pi / 2, -math.pi / 2, math.pi / 2, math.pi / 2, math.nan, math.nan])


def walked(seed: int, truth: Law, rows: int = 150, spread_db: float = 4.0) -> LevelRows:
    rng = np.random.default_rng(seed)
    xy_m = np.concatenate(
        [rng.uniform((-40.0, -5.0), (40.0, 8.0), (rows, 2)), rng.uniform((-28, 12), (28, 40), (rows, 2))]
    )
    facing = rng.uniform(-math.pi, math.pi, len(xy_m))
    level = truth.expect(xy_m, facing) + spread_db * rng.normal(size=(len(xy_m), len(POSTS)))
    return (
        np.repeat(xy_m, len(POSTS), axis=0), np.repeat(facing, len(POSTS)), np.tile(np.arange(len(POSTS)), len(xy_m)),
        level.ravel(), np.ones(level.size),
    )  # fmt: skip


def truth(wall_db: float, directed: float = 1.0) -> Law:
    return Law(POSTS, HEIGHT_M, np.full(len(POSTS), -5.0), 2.4, -3.0, 4.0, LOOK, directed, (WALL,), (wall_db,))


def fitted(rows: LevelRows) -> Law:
    return fit_law(POSTS, HEIGHT_M, rows, worn=True, look=LOOK, walls=(WALL,))


def test_a_walk_test_finds_a_wall_and_none_where_there_is_none() -> None:
    print("seeds 0..9")
    walls = np.array([[fitted(walked(seed, truth(loss))).wall_db[0] for loss in (0.0, 7.0)] for seed in range(10)])
    assert np.abs(walls[:, 0]).max() < 1.0, "a wall that is not there is not believed"
    assert (walls[:, 1] > 4.0).all(), "most of one that is"
    assert (walls[:, 1] < 8.0).all()


def test_a_walk_test_finds_how_directed_the_antennas_really_are() -> None:
    print("seeds 0..4")
    for seed in range(5):
        assert fitted(walked(seed, truth(0.0, 0.7))).directed == pytest.approx(0.7, abs=0.12)


def test_without_a_walk_test_no_wall_is_believed_and_antennas_are() -> None:
    [model] = models_of_street([tuple(reader) for reader in POSTS], LOOK.tolist())
    level, _ = model.expect(np.array([[0.0, 4.0], [0.0, 17.0]]))
    assert (level[0, :2] > level[0, 2:4] + 8.0).all()
    assert (level[1, 2:4] > level[1, :2] + 8.0).all()
    inside, outside = np.array([[0.0, 20.0]]), np.array([[0.0, 0.0]])
    [walled] = models_of_street([tuple(reader) for reader in POSTS], LOOK.tolist(), [WALL], [6.0])
    for xy_m, heard in ((inside, [6, 6, 0, 0, 6, 6]), (outside, [0, 0, 6, 6, 0, 0])):
        assert (model.expect(xy_m)[0] - walled.expect(xy_m)[0])[0] == pytest.approx(heard)


def beacons(seed: int, wall_db: float) -> tuple[list[tuple[float, float, float]], list[BeaconLink]]:
    """Twelve poles, half of them in the yard; what they hear of each other."""
    rng = np.random.default_rng(seed)
    spots = [(x, y) for x in (-25.0, 0.0, 25.0) for y in (-20.0, 3.0, 20.0, 40.0)]
    sides = side(np.array(spots), WALL)
    links = []
    for i in range(len(spots)):
        for j in range(i):
            through, shadow_db = float(crossing(sides[i], sides[j])), 4.0 * rng.normal()
            for one, other in ((i, j), (j, i)):
                level = -32 - 25 * math.log10(math.dist(spots[i], spots[j])) - wall_db * through + shadow_db
                walls = ((0, through),) if through else ()
                links.append(BeaconLink(one, other, level + 2.0 * rng.normal(), 0.25, -30, 0.0, walls))
    return [(x, y, 3.5) for x, y in spots], links


def test_beacons_measure_a_wall_and_none_where_there_is_none() -> None:
    print("seeds 0..9")
    walls = np.array([[fit(*beacons(seed, loss), walls=1).wall_db[0] for loss in (0.0, 8.0)] for seed in range(10)])
    assert abs(walls[:, 0].mean()) < 0.5
    assert np.abs(walls[:, 0]).max() < 2.2
    assert 3.5 < walls[:, 1].mean() < 8.0


def test_antennas_do_not_make_a_reader_look_deaf() -> None:
    print("seed 1")
    spots, links = beacons(1, 0.0)
    plain = fit(spots, links, walls=1)
    at_post = [replace(x, level_dbm=x.level_dbm - 11.0, gain_db=-11.0) for x in links if 0 in (x.receiver, x.sender)]
    turned = [*at_post, *(x for x in links if 0 not in (x.receiver, x.sender))]
    assert fit(spots, turned, walls=1).received_db == pytest.approx(plain.received_db, abs=0.6)


def test_measured_walls_reach_the_engine_while_it_runs() -> None:
    locator = ZoneLocator(Ground(school()), Counter())
    before = locator._hearings[0][0].mean.copy()
    locator.set_offsets({}, {"school": 0.4})
    assert np.array_equal(locator._hearings[0][0].mean, before), "not worth computing anew"
    locator.set_offsets({}, {"school": 6.0, "elsewhere": 9.0})
    lost = before - locator._hearings[0][0].mean
    assert lost.max() == pytest.approx(6.0, abs=1e-3)
    assert lost.min() == pytest.approx(0.0, abs=1e-3)


def doors(*gates: Gate, lines: Any = (STREET, GATE), **more: Any) -> list[tuple[XY, XY]]:
    ground = Ground(school(*lines, gates=gates, **more))
    return [tuple((float(x), float(y)) for x, y in ground.space.xy_m[list(door)]) for door in ground.space.doors]  # type: ignore[misc]


def test_a_place_with_gates_has_its_doors_there_alone() -> None:
    into = Gate("main", "school", *at(20.0, 10.0), inward_deg=0.0)
    [(outside, inside)] = doors(into)
    assert math.dist(outside, (20.0, 0.0)) < 4.0, "the nearest footpath, though it does not lead to the gate"
    assert math.dist(inside, (20.0, 10.0)) < 4.0
    notes = Ground(school(gates=(into,))).notes
    assert len(notes) == 1
    assert notes[0].endswith("place school")
    at_path = Gate("main", "school", *at(0.0, 10.0), inward_deg=0.0)
    assert Ground(school(gates=(at_path,))).notes == []
    assert len(doors(at_path, into)) == 2


def test_a_gate_between_two_places_joins_their_yards() -> None:
    zone = school(gates=(Gate("back", "field", *at(30.0, 30.0), inward_deg=90.0),))
    places = (*zone.places, place("field", 30.0, 10.0, 60.0, 50.0))
    ground = Ground(type(zone)(readers=zone.readers, places=places, footpaths=zone.footpaths, gates=zone.gates))
    between = [door for door in ground.space.doors if all(ground.space.xy_m[cell][1] > 20.0 for cell in door)]
    assert len(between) == 1


def test_the_engine_knows_the_antennas_of_its_zone() -> None:
    zone = school()
    looking = Reader(9, "9" * 16, *at(0.0, 8.0), antenna="patch", look_deg=180.0)
    ground = Ground(type(zone)(readers=(*zone.readers, looking), places=zone.places, footpaths=(path(*STREET),)))
    hearing = ZoneLocator(ground, Counter())._hearings[0][0]
    cells = ground.space.xy_m
    street = int(np.argmin(np.hypot(*(cells - (0.0, 0.0)).T)))
    yard = int(np.argmin(np.hypot(*(cells - (0.0, 16.0)).T)))
    path_block, yard_block = ground.space.blocks[0], ground.space.blocks[-1]
    heard_in_yard = hearing.mean[3, yard_block.first_look + yard - yard_block.first_cell]
    assert hearing.mean[3, path_block.first_look + street] > heard_in_yard + 6.0
