"""The states a tag can be in: cells of footpaths and of open ground, each with the directions a walker can face there.

A block is one kind of ground. On footpaths a walker faces along the path or back; on open ground one of `HEADINGS`.
Who stands faces somewhere too. `Space.walk` carries a belief one second forward,
`Space.recall` a likelihood one second back. Both are linear except for scaling; each is the other's transpose.

Beliefs are float32 [tags, states], plane by plane, block after block. Metres, seconds, radians anticlockwise from east.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.locate.flows import flows, onward
from gateway.locate.ways import Chain

HEADINGS = 8
SLOW: tuple[tuple[float, float], ...] = ((0.15, 0.25), (0.4, 0.35), (0.7, 0.28), (1.0, 0.12))
WALK: tuple[tuple[float, float], ...] = ((0.9, 0.25), (1.25, 0.4), (1.6, 0.23), (2.5, 0.08), (4.0, 0.03), (8.0, 0.01))
"""Two paces: speed in m/s and its share. SLOW: slow walking in rooms and yards. WALK: walking (children 0.8-1.7 m/s),
with a little running and a vehicle. One pace alone loses 10 to 30 % on the walks of the other kind."""
PACES = (SLOW, WALK)
PACE_CHANGES = ((0.85, 0.05, 0.1), (0.04, 0.92, 0.04), (0.1, 0.05, 0.85))
"""Chance per second to change from (slow, walking, standing) to each of them. Without standing as a separate state the
mean error rises by 5 to 45 % on recorded walks."""
STANDING = len(PACES)
"""The pace of who stands."""
TURN, ABOUT = 0.12, 0.03
"""Chance per second to turn on open ground, and to turn back on a footpath; who stands turns as often. While a heading
was forgotten at rest, a wearer who stood and turned was 1.7 m off along the last one (girolami_path3). On a footpath
who sets off again goes either way: with the old heading a tag on a wrong way stayed there for longer."""
SHIFTS_MAX = 5
"""The most cells that a walker crosses in a second; a faster one is left to `JUMP`."""
WANDER = 0.2
"""Share of an open cell's belief that spreads to its neighbours per second: no walker keeps to eight directions."""
JUMP = 1e-4
"""Chance per second to be anywhere: a car takes the tag along, or the belief was wrong."""
DOOR = 0.35
"""Share of a door's belief that moves between path and open ground per second, either way."""
GROUND_SHARE = 0.25
"""Open ground's share of the belief before anything is heard, where there are footpaths. A child who is heard for the
first time came on a footpath, and a vague belief must not say "school" because a yard is large. In three simulated
mornings of 20 children there was one false arrival with a half, none with a quarter; by area there were 16 to 21."""
PATH_WIDTH_M = 3.0
"""Width of a footpath's cell, for the radii and for its share in each area."""


@dataclass(frozen=True, slots=True)
class Block:
    """Cells of one kind. States `start`..`stop`: a plane for each pace and heading, those of who stands last.

    What is heard depends on the cell and the facing, not on the pace. So a *look* is a cell and a heading. Looks from
    `first_look` on lie heading by heading.
    """

    start: int
    first_look: int
    first_cell: int
    cells: int
    facings: Any
    """float [headings, cells]: the direction that a walker of this heading and cell faces."""
    turning: Any
    """float32 [planes, planes], rows sum to 1: from plane (row) to plane (column) within a second."""
    wide: tuple[int, int] | None = None
    """Columns and rows of open ground; None for footpaths."""

    @property
    def headings(self) -> int:
        return len(self.facings)

    @property
    def planes(self) -> int:
        return len(self.turning)

    @property
    def stop(self) -> int:
        return self.start + self.planes * self.cells

    @property
    def stand(self) -> int:
        """First state of who stands."""
        return self.stop - self.headings * self.cells

    @property
    def last_look(self) -> int:
        """One after the last look."""
        return self.first_look + self.headings * self.cells

    @property
    def span(self) -> slice:
        """The block's cells."""
        return slice(self.first_cell, self.first_cell + self.cells)


class Space:
    """All blocks of a zone. Made by `open_ground`, `footpaths` and `joined`."""

    def __init__(
        self,
        xy_m: Any,
        size_m: Any,
        blocks: Sequence[Block],
        behind: Any,
        ahead: Any,
        weights: Any,
        forks: Sequence[tuple[Any, Any, Any]] = (),
        doors: Sequence[tuple[int, int]] = (),
        within: Any | None = None,
    ) -> None:
        """xy_m [cells, 2], size_m [cells]; behind, ahead [states]: the neighbour along the facing, `states` for none.

        weights [shifts + 1, states]: chance to be 0, 1, 2 .. cells ahead after a second. forks: (from, to, share) of
        the moves where `ahead` is none; within one fork no state is twice in from or twice in to. doors: (cell of a
        path or of open ground, cell of open ground), no cell twice. within [cells]: False where no tag can be; None:
        it can be everywhere.
        """
        self.xy_m, self.size_m, self.blocks = xy_m, size_m, tuple(blocks)
        self.states, self.looks, self.cells = self.blocks[-1].stop, self.blocks[-1].last_look, len(xy_m)
        self.behind, self.ahead, self.weights, self.forks = behind, ahead, weights, tuple(forks)
        planes = [(low, b.cells) for b in self.blocks for low in range(b.start, b.stand, b.cells)]
        self._runs, self._crossings = flows(planes, ahead, weights, self.forks)
        self._beside = [
            (b.start, b.stop, gap, np.float32(WANDER / 2) * near)
            for b in self.blocks
            if b.wide is not None
            for gap, near in onward(b.start, b.planes, b.wide)
        ]
        self.doors = tuple(doors)
        self._doors = [(self._of_cell(a), self._of_cell(b)) for a, b in doors]
        self.within = np.ones(self.cells, bool) if within is None else within
        cells = np.concatenate([np.tile(self.within[b.span], b.planes) for b in self.blocks])
        self._kept = None if self.within.all() else cells.astype(np.float32)
        self.prior = self._prior()
        side = [np.full(b.cells, PATH_WIDTH_M / 4) if b.wide is None else size_m[b.span] / 4 for b in self.blocks]
        self.half_m = np.concatenate(side)
        """[cells]: about how far a point of a cell is from its middle, across a path or anywhere on open ground."""

    def by_look(self, belief: Any) -> Any:
        """Return a belief summed over paces: [tags, looks]."""
        parts = []
        for b in self.blocks:
            parts.append(belief[:, b.start : b.stop].reshape(len(belief), -1, b.headings * b.cells).sum(axis=1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def by_cell(self, belief: Any) -> Any:
        """Return a belief summed over paces and facings: [tags, cells]."""
        parts = [belief[:, b.start : b.stop].reshape(len(belief), b.planes, b.cells).sum(axis=1) for b in self.blocks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def weigh(self, belief: Any, likely: Any) -> None:
        """Multiply a belief by a likelihood [tags, looks], in place."""
        for b in self.blocks:
            whole = belief[:, b.start : b.stop].reshape(len(belief), -1, b.headings * b.cells)
            whole *= likely[:, None, b.first_look : b.last_look]

    def walk(self, belief: Any) -> Any:
        """Return a belief one second later; each row sums to 1."""
        moved = self._advanced(self._turned(belief, back=False), back=False)
        self._wander(moved)
        if self._kept is not None:
            moved *= self._kept
        if len(self.blocks) > 1:
            self._refill(moved, belief)
        self._through_doors(moved, back=False)
        moved *= (1.0 - JUMP) / moved.sum(axis=1, keepdims=True)
        moved += JUMP * self.prior
        return moved

    def recall(self, likelihood: Any) -> Any:
        """Return a likelihood of later readings carried one second back; each row's largest is 1."""
        anywhere = JUMP * (likelihood @ self.prior)[:, None]
        moved = likelihood.copy()
        self._through_doors(moved, back=True)
        if self._kept is not None:
            moved *= self._kept
        self._wander(moved)
        earlier = self._turned(self._advanced(moved, back=True), back=True)
        earlier *= 1.0 - JUMP
        earlier += anywhere
        earlier /= earlier.max(axis=1, keepdims=True)
        return earlier

    def _turned(self, belief: Any, *, back: bool) -> Any:
        out = np.empty_like(belief)
        for b in self.blocks:
            shape = (len(belief), b.planes, b.cells)
            matrix = b.turning if back else b.turning.T
            np.matmul(matrix, belief[:, b.start : b.stop].reshape(shape), out=out[:, b.start : b.stop].reshape(shape))
        return out

    def _advanced(self, belief: Any, *, back: bool) -> Any:
        """Spread walkers over the cells ahead; who stands stays. Back: gather from those cells.

        A pace counts in cells of the starting cell's size, so no belief is lost where smaller or larger cells follow.
        """
        out = belief * self.weights[0]
        scratch = np.empty_like(belief)
        for start, end, weight in self._runs:
            of, to = (end, start) if back else (start, end)
            out[:, to] += np.multiply(belief[:, of], weight, out=scratch[:, : len(weight)])
        for starts, ends, weight in self._crossings:
            if back:
                out[:, starts] += belief[:, ends] @ weight.T
            else:
                out[:, ends] += belief[:, starts] @ weight
        return out

    def _wander(self, belief: Any) -> None:
        """Even out neighbouring cells of open ground. This is its own transpose."""
        for start, stop, gap, share in self._beside:
            low, high = belief[:, start : stop - gap], belief[:, start + gap : stop]
            flow = high - low
            flow *= share
            low += flow
            high -= flow

    def _refill(self, moved: Any, before: Any) -> None:
        """Give open ground back what walked over its edge: only doors lead out, and silence must not empty a yard."""
        for b in self.blocks:
            if b.wide is not None:
                now = moved[:, b.start : b.stop]
                now *= (before[:, b.start : b.stop].sum(axis=1) / np.maximum(now.sum(axis=1), 1e-30))[:, None]

    def _through_doors(self, belief: Any, *, back: bool) -> None:
        for path, ground in self._doors:
            out, into = belief[:, path], belief[:, ground]
            if back:
                to_path, to_ground = into.mean(axis=1), out.mean(axis=1)
            else:
                to_path, to_ground = into.sum(axis=1) / len(path), out.sum(axis=1) / len(ground)
            belief[:, path] = (1 - DOOR) * out + DOOR * to_path[:, None]
            belief[:, ground] = (1 - DOOR) * into + DOOR * to_ground[:, None]

    def _of_cell(self, cell: int) -> Any:
        """Return the states of a cell."""
        for b in self.blocks:
            if b.first_cell <= cell < b.first_cell + b.cells:
                return b.start + np.arange(b.planes) * b.cells + cell - b.first_cell
        raise ValueError(f"cell {cell} is in no block")

    def _prior(self) -> Any:
        """Return float32 [states], sum 1: by area, with GROUND_SHARE for open ground if there are paths; 40 % stand."""
        parts = []
        for b in self.blocks:
            size_m = self.size_m[b.span]
            area_m2 = self.within[b.span] * size_m * (PATH_WIDTH_M if b.wide is None else size_m)
            share = np.repeat([0.3, 0.3, 0.4], b.headings) / b.headings
            parts.append((share[:, None] * area_m2).ravel())
        whole = np.concatenate(parts)
        open_ground = np.concatenate([np.full(b.planes * b.cells, b.wide is not None) for b in self.blocks])
        onward = whole[open_ground].sum(), whole[~open_ground].sum()
        if min(onward) > 0:
            whole[open_ground] *= GROUND_SHARE / onward[0]
            whole[~open_ground] *= (1 - GROUND_SHARE) / onward[1]
        return (whole / whole.sum()).astype(np.float32)


def open_ground(x0: float, y0: float, x1: float, y1: float, step_m: float, headings: int = HEADINGS) -> Space:
    """Return a rectangle's cells of `step_m`, the first one's middle at (x0, y0).

    headings: 8, or 4 where the cells are coarse: about half the states, and a diagonal walk is made of turns.
    """
    if headings not in (4, 8):
        raise ValueError(f"{headings} headings; a square cell has 4 or 8 neighbours")
    columns = max(1, math.floor((x1 - x0) / step_m + 1e-9) + 1)
    rows = max(1, math.floor((y1 - y0) / step_m + 1e-9) + 1)
    cells = columns * rows
    x, y = np.meshgrid(x0 + step_m * np.arange(columns), y0 + step_m * np.arange(rows), indexing="ij")
    turn = (1 - TURN) * np.eye(headings) + 0.2 * TURN / headings
    for h in range(headings):
        turn[h, [(h + 1) % headings, h - 1]] += 0.4 * TURN
    planes = (len(PACES) + 1) * headings
    states = planes * cells
    behind = np.full((planes, columns, rows), states)
    ahead = behind.copy()
    gap_m = np.zeros((headings, cells))
    for h in range(headings):
        dx, dy = round(math.cos(h * math.tau / headings)), round(math.sin(h * math.tau / headings))
        gap_m[h] = step_m * math.hypot(dx, dy)
        here = np.s_[max(dx, 0) : columns + min(dx, 0), max(dy, 0) : rows + min(dy, 0)]
        back = np.s_[max(-dx, 0) : columns + min(-dx, 0), max(-dy, 0) : rows + min(-dy, 0)]
        for plane in range(h, STANDING * headings, headings):
            index = plane * cells + np.arange(cells).reshape(columns, rows)
            behind[(plane, *here)] = index[back]
            ahead[(plane, *back)] = index[here]
    facings = np.repeat(np.arange(headings)[:, None] * (math.tau / headings), cells, axis=1)
    block = Block(0, 0, 0, cells, facings, _turning(turn), (columns, rows))
    xy_m = np.stack([x.ravel(), y.ravel()], axis=1)
    return Space(xy_m, np.full(cells, step_m), [block], behind.ravel(), ahead.ravel(), _weights(gap_m.ravel()))


def footpaths(chains: Sequence[Chain], step_m: float) -> Space:
    """Return a graph of footpaths in cells of about `step_m`. Where chains meet, a walker takes any other chain."""
    spots, facing, size, ends, first = [], [], [], [], 0
    for chain in chains:
        middles, angles, length_m = chain.cut(step_m)
        spots.append(middles)
        facing.append(angles)
        size.append(np.full(len(middles), length_m / len(middles)))
        ends.append((chain.start, chain.end, first, first + len(middles) - 1))
        first += len(middles)
    cells = first
    states = 2 * (len(PACES) + 1) * cells
    behind, ahead = np.full(states, states), np.full(states, states)
    into: dict[tuple[int, int], list[int]] = {}
    out: dict[tuple[int, int], list[int]] = {}
    for pace in range(len(PACES)):
        on, back = 2 * pace * cells, (2 * pace + 1) * cells
        for start, end, low, high in ends:
            inner = np.arange(low, high)
            ahead[on + inner], behind[on + inner + 1] = on + inner + 1, on + inner
            ahead[back + inner + 1], behind[back + inner] = back + inner, back + inner + 1
            # At each node, both in the same order: the state that arrives on a chain, and the one that leaves on it.
            into.setdefault((pace, end), []).append(on + high)
            out.setdefault((pace, end), []).append(back + high)
            into.setdefault((pace, start), []).append(back + low)
            out.setdefault((pace, start), []).append(on + low)
    angles, sizes = np.concatenate(facing), np.concatenate(size)
    turn = np.array([[1 - ABOUT, ABOUT], [ABOUT, 1 - ABOUT]])
    block = Block(0, 0, 0, cells, np.stack([angles, angles + math.pi]), _turning(turn, np.full((2, 2), 0.5)))
    weights = _weights(np.concatenate([sizes, sizes]))
    return Space(np.concatenate(spots), sizes, [block], behind, ahead, weights, _forks(into, out))


def joined(spaces: Sequence[Space], doors: Sequence[tuple[int, int, int, int]]) -> Space:
    """Return several spaces as one. doors: (space, cell, space, cell), two cells that lie next to each other."""
    states = sum(space.states for space in spaces)
    shifts = max(len(space.weights) for space in spaces)
    behind, ahead, weights, forks, blocks, first_cell = [], [], [], [], [], []
    at_state = at_look = at_cell = 0
    for space in spaces:
        first_cell.append(at_cell)
        behind.append(np.where(space.behind == space.states, states, space.behind + at_state))
        ahead.append(np.where(space.ahead == space.states, states, space.ahead + at_state))
        forks += [(a + at_state, b + at_state, share) for a, b, share in space.forks]
        blocks += [
            replace(b, start=b.start + at_state, first_look=b.first_look + at_look, first_cell=b.first_cell + at_cell)
            for b in space.blocks
        ]
        weights.append(np.pad(space.weights, ((0, shifts - len(space.weights)), (0, 0))))
        at_state, at_look, at_cell = at_state + space.states, at_look + space.looks, at_cell + space.cells
    return Space(
        np.concatenate([space.xy_m for space in spaces]),
        np.concatenate([space.size_m for space in spaces]),
        blocks,
        np.concatenate(behind),
        np.concatenate(ahead),
        np.concatenate(weights, axis=1),
        forks,
        [
            *((a + at, b + at) for space, at in zip(spaces, first_cell, strict=True) for a, b in space.doors),
            *((first_cell[a] + i, first_cell[b] + j) for a, i, b, j in doors),
        ],
        np.concatenate([space.within for space in spaces]),
    )


def _turning(turn: Any, sets_off: Any | None = None) -> Any:
    """Return float32 [planes, planes]: headings change by `turn`, paces by `PACE_CHANGES`.

    sets_off: how headings change when who stands sets off; None: by `turn`.
    """
    changes, first = np.array(PACE_CHANGES), STANDING * len(turn)
    whole = np.kron(changes, turn)
    if sets_off is not None:
        whole[first:, :first] = np.kron(changes[STANDING:, :STANDING], sets_off)
    return whole.astype(np.float32)


def _weights(gap_m: Any) -> Any:
    """Return float32 [shifts + 1, states]: chance to be 0, 1, 2 .. cells ahead after a second. Each column sums to 1.

    gap_m [headings * cells]: how far the cell ahead is.
    """
    planes = []
    index = np.arange(len(gap_m))
    for speeds in PACES:
        out = np.zeros((SHIFTS_MAX + 1, len(gap_m)))
        for speed, share in speeds:
            ahead = speed / gap_m
            low = np.floor(ahead).astype(int)
            within = low < SHIFTS_MAX
            np.add.at(out, (np.minimum(low, SHIFTS_MAX), index), np.where(within, share * (1 - ahead + low), 0.0))
            np.add.at(out, (np.minimum(low + 1, SHIFTS_MAX), index), np.where(within, share * (ahead - low), 0.0))
        out /= np.maximum(out.sum(axis=0), 1e-9)
        planes.append(out)
    stand = np.zeros((SHIFTS_MAX + 1, len(gap_m)))
    stand[0] = 1.0
    whole = np.concatenate([*planes, stand], axis=1)
    most = int(np.flatnonzero(whole.max(axis=1) > 0)[-1])
    return whole[: most + 1].astype(np.float32)


def _forks(into: Mapping[Any, list[int]], out: Mapping[Any, list[int]]) -> list[tuple[Any, Any, Any]]:
    """Return all ways through all nodes, in at most as many entries as the largest node has ways."""
    entries: dict[int, list[tuple[int, int, float]]] = {}
    for node, comes in into.items():
        goes, ways = out[node], len(comes)
        for turn in range(1, ways) if ways > 1 else (0,):
            share = 1.0 / max(ways - 1, 1)
            entries.setdefault(turn, []).extend(
                (state, goes[(i + turn) % ways], share) for i, state in enumerate(comes)
            )
    found = []
    for rows in entries.values():
        starts, ends = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
        found.append((starts, ends, np.array([row[2] for row in rows], np.float32)))
    return found
