"""Split a large ground into sectors, so that the work for a tag depends on its surroundings, not on the whole zone.

Each reader has one home sector. A sector holds the cells around its home readers. So neighbouring sectors overlap, and
a belief is carried from one to another long before a walker comes to the edge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.locate.space import Block, Space

SECTOR_STATES = 7000
"""A ground with more states is split: the work for one tag's second grows in proportion."""
HEARD_M = 90.0
"""The cells of a sector are this near to a home reader."""
READERS_M = 100.0
"""Another reader this near to a home reader counts in the sector."""


@dataclass(frozen=True, slots=True, eq=False)
class Sector:
    """A part of a ground."""

    space: Space
    home: tuple[int, ...]
    """Readers that have this sector as their home sector."""
    readers: tuple[int, ...]
    """Readers that count here, the home readers included, in the ground's order."""
    cells: Any
    """[cells of space]: the ground's cell."""
    states: Any
    """[states of space]: the ground's state."""

    def carry(self, belief: Any, other: "Sector") -> Any:
        """Return a belief [..., states] of this sector as one of another. States the other does not have are left out.

        The sum says how much came along. It is 0 where the sectors have nothing in common.
        """
        size = max(int(self.states.max()), int(other.states.max())) + 1
        whole = np.zeros((*belief.shape[:-1], size), belief.dtype)
        whole[..., self.states] = belief
        return whole[..., other.states] * (other.space.prior > 0)


def sectors(space: Space, readers: Mapping[int, tuple[float, float, float]]) -> tuple[Sector, ...]:
    """Return a ground's sectors: one, the whole ground, unless that has more than SECTOR_STATES.

    The readers are halved across their longer side until the surroundings of each half are small enough, or it has one
    reader.
    """
    numbers = tuple(readers)
    whole = Sector(space, numbers, numbers, np.arange(space.cells), np.arange(space.states))
    if space.states <= SECTOR_STATES or len(numbers) < 2:
        return (whole,)
    spots = np.array([readers[number][:2] for number in numbers])
    heard = np.stack([np.hypot(*(space.xy_m - spot).T) <= HEARD_M for spot in spots])
    for n, spot in enumerate(spots):  # each reader has at least one cell on any ground
        heard[n, np.where(space.within, np.hypot(*(space.xy_m - spot).T), np.inf).argmin()] = True
    found = []
    for home in _halved(space, spots, heard, list(range(len(numbers)))):
        cells, states, small = part(space, heard[home].any(axis=0))
        near = np.hypot(*(spots[:, None] - spots[None, home]).transpose(2, 0, 1)).min(axis=1) <= READERS_M
        at_home = tuple(numbers[n] for n in sorted(home))
        found.append(Sector(small, at_home, tuple(numbers[n] for n in np.flatnonzero(near)), cells, states))
    return tuple(found)


def part(space: Space, keep: Any) -> tuple[Any, Any, Space]:
    """Return (cells, states, space): the space of the kept cells (keep: bool [cells]), and what it was made of.

    Of open ground, the box around the kept cells stays; no tag can be in its other cells. Raise ValueError if no cell
    is kept.
    """
    keep = keep & space.within
    taken, blocks, at = [], [], [0, 0, 0]
    for block in space.blocks:
        chosen, wide = _chosen(block, keep[block.span])
        if not len(chosen):
            continue
        cells = block.first_cell + chosen
        states = block.start + (np.arange(block.planes)[:, None] * block.cells + chosen).ravel()
        taken.append((cells, states))
        small = replace(
            block, start=at[0], first_look=at[1], first_cell=at[2], cells=len(chosen), facings=block.facings[:, chosen],
            wide=wide,
        )  # fmt: skip
        blocks.append(small)
        at = [small.stop, small.last_look, small.first_cell + small.cells]
    if not blocks:
        raise ValueError("none of the cells is kept, or nobody can be in those that are")
    cells, states = (np.concatenate(each) for each in zip(*taken, strict=True))
    new = np.full(space.states + 1, len(states))
    new[states] = np.arange(len(states))
    forks = []
    for start, end, share in space.forks:
        both = (new[start] < len(states)) & (new[end] < len(states))
        if both.any():
            forks.append((new[start[both]], new[end[both]], share[both]))
    place = {int(cell): i for i, cell in enumerate(cells)}
    doors = [(place[a], place[b]) for a, b in space.doors if a in place and b in place]
    small_space = Space(
        space.xy_m[cells], space.size_m[cells], blocks, new[space.behind[states]], new[space.ahead[states]],
        space.weights[:, states], forks, doors, keep[cells],
    )  # fmt: skip
    return cells, states, small_space


def _chosen(block: Block, keep: Any) -> tuple[Any, tuple[int, int] | None]:
    """Return the block's own cells that stay, and their columns and rows."""
    if block.wide is None or not keep.any():
        return np.flatnonzero(keep), block.wide
    column, row = np.nonzero(keep.reshape(block.wide))
    box = np.s_[column.min() : column.max() + 1, row.min() : row.max() + 1]
    inside = np.arange(block.cells).reshape(block.wide)[box]
    return inside.ravel(), inside.shape


def _states(space: Space, keep: Any) -> int:
    keep = keep & space.within
    return sum(block.planes * len(_chosen(block, keep[block.span])[0]) for block in space.blocks)


def _halved(space: Space, spots: Any, heard: Any, home: list[int]) -> Sequence[list[int]]:
    if len(home) < 2 or _states(space, heard[home].any(axis=0)) <= SECTOR_STATES:
        return [home]
    across = int(np.ptp(spots[home], axis=0).argmax())
    order = sorted(home, key=lambda n: (float(spots[n, across]), n))
    half = len(order) // 2
    return [*_halved(space, spots, heard, order[:half]), *_halved(space, spots, heard, order[half:])]
