"""The ground of a zone: areas keep their size, walls hold, gates let through, sectors stay small and hand over."""

import math
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gateway.locate import sectors as cut
from gateway.locate import space as s
from gateway.locate.ground import GATE_M, PATH_CELLS, PATH_STEP_M, REACH_M, YARD_CELLS, Ground
from gateway.locate.sectors import HEARD_M, READERS_M, SECTOR_STATES, part
from gateway.locate.space import Space
from gateway.zone import DangerArea, Field, Footpath, Place, Reader, Route, Zone, depth_m, distance_to_line_m
from tests.gateway.core import bed
from tests.gateway.core.bed import at, box
from tests.gateway.locate.bed import nearest, state, surely

XY = tuple[float, float]
STREET = ((-60.0, 0.0), (60.0, 0.0))
GATE = ((0.0, 0.0), (0.0, 14.0))
"""From the street through the wall of YARD, 4 m into it."""
YARD = (-30.0, 10.0, 30.0, 50.0)


def poles(*spots: XY) -> tuple[Reader, ...]:
    return tuple(
        Reader(number=n, eui64=f"{n:016x}", lon=at(*spot)[0], lat=at(*spot)[1]) for n, spot in enumerate(spots, 1)
    )


def path(*line: XY) -> Footpath:
    return Footpath(tuple(at(*point) for point in line))


def place(name: str, *corners: float) -> Place:
    return Place(name, "school", box(*corners))  # type: ignore[arg-type]


def school(*lines: Sequence[XY], **more: Any) -> Zone:
    """A street with three poles and a yard north of it; the plane's origin is corebed's."""
    return Zone(
        readers=poles((-30.0, 0.0), (0.0, 0.0), (30.0, 0.0)),
        places=(place("school", *YARD),),
        footpaths=tuple(path(*line) for line in lines or (STREET, GATE)),
        **more,
    )


def mass_in(ground: Ground, belief: Any, column: int = 0) -> float:
    return float((ground.space.by_cell(belief) @ ground.shares)[0, column])


def of_yard(ground: Ground) -> Any:
    """Which cells are open ground."""
    found = np.zeros(ground.space.cells, bool)
    for block in ground.space.blocks:
        found[block.span] = block.wide is not None
    return found


def no_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "JUMP", 0.0)


# ---- areas -----------------------------------------------------------------------------------------------------------


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
    assert ground.space.within[of_yard(ground)].mean() > 0.9  # the lattice lies along the wall
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
    # A street 3 m wide along y = 0: its southern third lies within 12 m of a river at y = -12, were warn_m 11.
    assert ground.shares[street].tolist() == [0.0, 0.0, 1.0, 0.0]
    wider = Ground(school(dangers=(DangerArea("river", river.polygon, warn_m=11.3),)))
    assert wider.shares[street, 1] == pytest.approx(1 / 3)
    assert not ground.shares[:, 3].any()
    away = [distance_to_line_m(x, y, STREET) > 9 for x, y in ground.space.xy_m]
    assert not ground.shares[away, 2].any()


def test_probabilities_are_shares_of_one_belief() -> None:
    """A place's and its complement's add up to 1, and a place cut in two has the sum of its halves."""
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


# ---- walls and gates -------------------------------------------------------------------------------------------------


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
    # Two streets that meet 2 m before the wall and go on along it.
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
    """Readings that tell the place within 8 m: along the street, through the gate, into the yard, and at rest there."""
    ground = Ground(school())
    space = ground.space
    way = [(-50.0, 0.0), (0.0, 0.0), (0.0, 10.0), (12.0, 35.0)]
    belief, walked, odds = np.tile(space.prior, (1, 1)), _spots(way, 1.3), []
    for x, y in [*walked, *[way[-1]] * 20]:
        belief = space.walk(belief)
        near = np.exp(-((space.xy_m - (x, y)) ** 2).sum(axis=1) / 2 / 8.0**2).astype(np.float32) + 1e-9
        space.weigh(belief, _by_look(space, near))
        belief /= belief.sum()
        odds.append(mass_in(ground, belief))
    gate = round(60 / 1.3)
    assert max(odds[10 : gate - 20]) < 0.2
    assert min(odds[gate + 15 :]) > 0.9


# ---- odd zones -------------------------------------------------------------------------------------------------------


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
        "the whole street in a place": corebed_in_place(),
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


def corebed_in_place() -> Zone:
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


# ---- sectors ---------------------------------------------------------------------------------------------------------


def town(*, mapped: bool = True) -> Zone:
    """100 readers in 400 x 700 m: streets every 50 m one way and 70 the other, five yards, a route."""
    spots = [(float(x), float(y)) for x in range(0, 400, 40) for y in range(0, 700, 70)]
    streets = [((x, -20.0), (x, 680.0)) for x in np.arange(-10.0, 400.0, 50.0)]
    streets += [((-20.0, y), (400.0, y)) for y in np.arange(0.0, 700.0, 70.0)]
    yards = [place(f"yard-{n}", 45, 140 * n + 5, 85, 140 * n + 65) for n in range(5)]
    return Zone(
        readers=poles(*spots),
        places=tuple(yards),
        routes=(Route("way", (at(0.0, 0.0), at(0.0, 600.0)), 15.0),),
        footpaths=tuple(path(*street) for street in streets) if mapped else (),
    )


def test_a_small_zone_is_one_sector() -> None:
    for zone in (school(), bed.zone()):
        ground = Ground(zone)
        (only,) = ground.sectors
        assert only.space is ground.space
        assert only.home == only.readers == tuple(ground.readers)
        assert set(ground.home) == set(ground.readers)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_town_is_cut_into_sectors_that_are_small(mapped: bool) -> None:
    tracemalloc.start()
    ground = Ground(town(mapped=mapped))
    size_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    states = [sector.space.states for sector in ground.sectors]
    print(
        f"{ground.space.states} states whole; {len(states)} sectors of {min(states)} to {max(states)}, {size_mb:.0f} MB"
    )
    assert 4 < len(states) <= 100
    assert max(states) <= 1.1 * SECTOR_STATES
    assert sum(states) < 400_000
    assert size_mb < 60
    assert sorted(number for sector in ground.sectors for number in sector.home) == list(range(1, 101))
    for n, sector in enumerate(ground.sectors):
        assert set(sector.home) <= set(sector.readers)
        assert all(ground.home[number] == n for number in sector.home)
        homes = np.array([ground.readers[number][:2] for number in sector.home])
        for number in ground.readers:
            far_m = float(np.hypot(*(homes - ground.readers[number][:2]).T).min())
            assert (number in sector.readers) == (far_m <= READERS_M)
        assert (sector.space.xy_m == ground.space.xy_m[sector.cells]).all()
        around = np.min([np.hypot(*(ground.space.xy_m - home).T) for home in homes], axis=0)
        wanted = np.flatnonzero((around <= HEARD_M) & ground.space.within)
        assert set(wanted) == set(sector.cells[sector.space.within])


def test_a_belief_is_handed_on_where_it_was() -> None:
    ground = Ground(town())
    one, other = _neighbours(ground)
    shared = np.intersect1d(one.cells[one.space.within], other.cells[other.space.within])
    middle = ground.space.xy_m[shared].mean(axis=0)
    spot = np.exp(-((one.space.xy_m - middle) ** 2).sum(axis=1) / 2 / 6.0**2).astype(np.float32)
    spot[~np.isin(one.cells, shared)] = 0
    belief = np.tile(one.space.prior, (3, 1))
    one.space.weigh(belief, np.tile(_by_look(one.space, spot), (3, 1)))
    belief /= belief.sum(axis=1, keepdims=True)
    laid = one.carry(belief, other)
    assert laid.shape == (3, other.space.states)
    assert laid.dtype == np.float32
    assert laid.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert other.space.by_cell(laid) @ other.space.xy_m == pytest.approx(
        one.space.by_cell(belief) @ one.space.xy_m, abs=0.01
    )
    assert other.carry(laid, one) == pytest.approx(belief, abs=1e-7)
    assert laid @ ground_headings(ground, other) == pytest.approx(belief @ ground_headings(ground, one), abs=1e-5)


def test_what_the_other_sector_has_not_is_left_behind() -> None:
    ground = Ground(town())
    far = max(ground.sectors, key=lambda sector: float(sector.space.xy_m[:, 1].mean()))
    here = min(ground.sectors, key=lambda sector: float(sector.space.xy_m[:, 1].mean()))
    assert not here.carry(here.space.prior[None], far).any()
    one, other = _neighbours(ground)
    laid = one.carry(one.space.prior[None], other)
    assert 0.05 < laid.sum() < 0.95
    assert not laid[:, other.space.prior == 0].any()


def test_a_belief_walks_in_a_sector_as_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is far from the sector's edge."""
    no_jumps(monkeypatch)
    ground = Ground(town())
    sector = ground.sectors[0]
    x, y, _ = ground.readers[sector.home[0]]
    small = surely(sector.space, state(sector.space, x, y, pace=1), state(sector.space, x, y, pace=None))
    whole = np.zeros((1, ground.space.states), np.float32)
    whole[:, sector.states] = small
    for _ in range(15):
        small, whole = sector.space.walk(small), ground.space.walk(whole)
    assert small == pytest.approx(whole[:, sector.states], abs=1e-5)
    assert whole[:, sector.states].sum() == pytest.approx(1.0, abs=1e-4)


def test_a_part_of_nothing_is_refused() -> None:
    ground = Ground(school())
    with pytest.raises(ValueError, match="none of the cells is kept"):
        part(ground.space, np.zeros(ground.space.cells, bool))


def test_a_part_of_everything_is_the_whole() -> None:
    space = Ground(school()).space
    cells, states, same = part(space, np.ones(space.cells, bool))
    assert (cells == np.arange(space.cells)).all()
    assert (states == np.arange(space.states)).all()
    assert (same.behind == space.behind).all()
    assert (same.ahead == space.ahead).all()
    assert (same.prior == space.prior).all()
    assert same.doors == space.doors
    assert [block.facings.shape for block in same.blocks] == [block.facings.shape for block in space.blocks]


def test_a_limit_that_is_lower_cuts_a_small_zone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "SECTOR_STATES", 500)
    ground = Ground(school())
    assert [sector.home for sector in ground.sectors] == [(1,), (2,), (3,)]
    assert ground.home == {1: 0, 2: 1, 3: 2}


# ---- of the tests ----------------------------------------------------------------------------------------------------


def _corners(bounds: tuple[float, float, float, float]) -> list[XY]:
    x0, y0, x1, y1 = bounds
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _spots(way: Sequence[XY], speed: float) -> list[XY]:
    """Where a walker is each second."""
    corners = np.array(way)
    along = np.append(0.0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T)))
    return [
        (float(np.interp(d, along, corners[:, 0])), float(np.interp(d, along, corners[:, 1])))
        for d in np.arange(0.0, along[-1], speed)
    ]


def _by_look(space: Space, by_cell: Any) -> Any:
    """A likelihood that depends on the place alone, [1, looks]."""
    return np.concatenate([np.tile(by_cell[block.span], block.headings + 1) for block in space.blocks])[None]


def _neighbours(ground: Ground) -> tuple[cut.Sector, cut.Sector]:
    """The two sectors that have most in common."""
    pairs = [(a, b) for i, a in enumerate(ground.sectors) for b in ground.sectors[i + 1 :]]
    return max(pairs, key=lambda pair: len(np.intersect1d(pair[0].cells, pair[1].cells)))


def ground_headings(ground: Ground, sector: cut.Sector) -> Any:
    """[states, 2]: which way each state faces, 0 for who stands."""
    ways = np.zeros((ground.space.states, 2), np.float32)
    for block in ground.space.blocks:
        facings = np.tile(block.facings.ravel(), (block.planes - 1) // block.headings)
        ways[block.start : block.stand] = np.stack([np.cos(facings), np.sin(facings)], axis=1)
    return ways[sector.states]
