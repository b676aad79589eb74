"""A large ground is cut into small sectors that together cover it, and a belief goes from one to the next unchanged."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from gateway.locate import sectors as cut
from gateway.locate.ground import Ground
from gateway.locate.sectors import HEARD_M, READERS_M, SECTOR_STATES, part
from tests.gateway.core import bed
from tests.gateway.locate.bed import state, surely
from tests.gateway.locate.bed_ground import by_look, no_jumps, school, town


def _neighbours(ground: Ground) -> tuple[cut.Sector, cut.Sector]:
    """Return the two sectors that have the most cells in common."""
    pairs = [(a, b) for i, a in enumerate(ground.sectors) for b in ground.sectors[i + 1 :]]
    return max(pairs, key=lambda pair: len(np.intersect1d(pair[0].cells, pair[1].cells)))


def ground_headings(ground: Ground, sector: cut.Sector) -> Any:
    """Return [states, 2]: the direction in which each state faces."""
    ways = np.zeros((ground.space.states, 2), np.float32)
    for block in ground.space.blocks:
        facings = np.tile(block.facings.ravel(), block.planes // block.headings)
        ways[block.start : block.stop] = np.stack([np.cos(facings), np.sin(facings)], axis=1)
    return ways[sector.states]


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
    one.space.weigh(belief, np.tile(by_look(one.space, spot), (3, 1)))
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
    """This holds far from the sector's edge."""
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
