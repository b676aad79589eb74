"""One second of walking over states, as a few products of large arrays. `gateway.locate.space` explains the states.

Within a chain of footpath, and within a row of open ground, the next state always has the same distance in the array.
So most of a walk is a few even runs. What goes through forks is small matrices.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_ENDS = 128
"""The most columns of a crossing's matrix."""

EvenRun = tuple[slice, slice, Any]
"""From, to, and the weight of each state in `from`."""
Crossing = tuple[Any, Any, Any]
"""From, to, and the weights [from, to]."""


def flows(
    planes: Sequence[tuple[int, int]], ahead: Any, weights: Any, forks: Iterable[tuple[Any, Any, Any]]
) -> tuple[list[EvenRun], list[Crossing]]:
    """Return all moves from one state to another within a second. Staying (weights[0]) is not included.

    planes: first state and number of states of each plane of walkers. ahead, weights, forks: as in `Space`.
    """
    runs: list[EvenRun] = []
    onward: dict[int, list[tuple[int, float]]] = {}
    for starts, ends, shares in forks:
        for start, end, share in zip(starts.tolist(), ends.tolist(), shares.tolist(), strict=True):
            onward.setdefault(start, []).append((end, share))
    states = len(ahead)
    forked = np.zeros(states, bool)
    forked[list(onward)] = True
    rest: dict[int, dict[int, float]] = {}
    for low, cells in planes:
        here = np.arange(low, low + cells)
        gaps = (ahead[here] - here)[ahead[here] < states]
        gap = int(np.bincount(gaps - gaps.min()).argmax() + gaps.min()) if len(gaps) else 1
        at, even, uneven = here, np.ones(cells, bool), np.zeros(cells, bool)
        for shift in range(1, len(weights)):
            goes = even & (ahead[at] == at + gap)
            uneven |= even & ~goes & ((ahead[at] < states) | forked[at])
            at, even = np.where(goes, at + gap, at), goes
            weight = np.where(goes, weights[shift, here], np.float32(0))
            if len(used := np.flatnonzero(weight)):
                first, stop = low + int(used[0]), low + int(used[-1]) + 1
                moved = slice(first + shift * gap, stop + shift * gap)
                runs.append((slice(first, stop), moved, weight[first - low : stop - low]))
        for start in here[uneven].tolist():
            _follow(start, gap, ahead, weights[:, start], onward, rest)
    return runs, _matrices(rest)


def onward(start: int, planes: int, wide: tuple[int, int]) -> list[tuple[int, Any]]:
    """Return (gap, array) for both axes of open ground: 1 where a state and the one `gap` after it are neighbours.

    wide: columns and rows. The array is for the states start..start + planes * columns * rows - gap.
    """
    columns, rows = wide
    cell = np.arange(planes * columns * rows) % (columns * rows)
    return [
        (rows, (cell < columns * rows - rows)[:-rows].astype(np.float32)),
        (1, (cell % rows < rows - 1)[:-1].astype(np.float32)),
    ]


def _follow(
    start: int, gap: int, ahead: Any, weights: Any, onward: Mapping[int, Sequence[tuple[int, float]]], rest: Any
) -> None:
    """Add the moves from one state that are in no even run to `rest`: to -> from -> weight."""
    states, even = len(ahead), True
    now = {start: 1.0}
    for shift in range(1, len(weights)):
        then: dict[int, float] = {}
        for state, share in now.items():
            for end, part in [(int(ahead[state]), 1.0), *onward.get(state, ())]:
                if end < states:
                    then[end] = then.get(end, 0.0) + share * part
        even = even and ahead[start + (shift - 1) * gap] == start + shift * gap
        now = then
        if weights[shift] and not even:
            for end, share in now.items():
                into = rest.setdefault(end, {})
                into[start] = into.get(start, 0.0) + float(weights[shift]) * share


def _matrices(rest: Mapping[int, Mapping[int, float]]) -> list[Crossing]:
    found = []
    order = sorted(rest)
    for first in range(0, len(order), _ENDS):
        ends = order[first : first + _ENDS]
        starts = sorted({start for end in ends for start in rest[end]})
        row = {start: i for i, start in enumerate(starts)}
        matrix = np.zeros((len(starts), len(ends)), np.float32)
        for column, end in enumerate(ends):
            for start, weight in rest[end].items():
                matrix[row[start], column] = weight
        found.append((np.array(starts), np.array(ends), matrix))
    return found
