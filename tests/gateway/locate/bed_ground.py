"""Zones for the tests of ground, sectors and locator: poles, footpaths, a school with a yard, a town."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gateway.locate import space as s
from gateway.locate.ground import Ground
from gateway.locate.space import Space
from gateway.zone import Footpath, Place, Reader, Route, Zone
from tests.gateway.core.bed import at, box

XY = tuple[float, float]
STREET = ((-60.0, 0.0), (60.0, 0.0))
GATE = ((0.0, 0.0), (0.0, 14.0))
"""A path from the street through the wall of YARD, ending 4 m inside."""
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
    """Return a street with three poles, and a yard north of it. The origin of its metres is that of `at`."""
    return Zone(
        readers=poles((-30.0, 0.0), (0.0, 0.0), (30.0, 0.0)),
        places=(place("school", *YARD),),
        footpaths=tuple(path(*line) for line in lines or (STREET, GATE)),
        **more,
    )


def town(*, mapped: bool = True) -> Zone:
    """Return 100 readers in 400 x 700 m: streets every 50 m one way and every 70 m the other, five yards, a route."""
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


def of_yard(ground: Ground) -> Any:
    """Return for each cell whether it is open ground."""
    found = np.zeros(ground.space.cells, bool)
    for block in ground.space.blocks:
        found[block.span] = block.wide is not None
    return found


def no_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no tag jump to another place."""
    monkeypatch.setattr(s, "JUMP", 0.0)


def by_look(space: Space, by_cell: Any) -> Any:
    """Return a likelihood that depends on the place alone, [1, looks]."""
    return np.concatenate([np.tile(by_cell[block.span], block.headings) for block in space.blocks])[None]
