"""What the locator's tests share: zones whose streets are known, tags that walk there, and a locator with its clock."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.zone import Place, Zone
from tests.gateway.core.bed import at, box
from tests.gateway.locate.bed_ground import XY, path, poles

POWER_DBM, FLOOR_DBM = -50, -95
OWN_DB, SHADOW_DB, FAST_DB = 2.5, 5.0, 4.0
"""Standard deviations: of a tag's own power, of what a place does to a reader's level, and of single packets."""


def street_zone(spots: Sequence[XY], lines: Sequence[Sequence[XY]], **more: object) -> Zone:
    """Return a zone with a reader at each spot and a footpath along each line."""
    return Zone(poles(*spots), footpaths=tuple(path(*line) for line in lines), **more)  # type: ignore[arg-type]


def block() -> Zone:
    """Return poles every 30 m along the streets round a block of houses. The yard in it has its gate in the south."""
    spots = [(x, y) for x in range(0, 121, 30) for y in (-2.0, 62.0)] + [(-2.0, 30.0), (122.0, 30.0)]
    ring = [(0.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 0.0)]
    yard = Place(id="yard", kind="playground", polygon=box(30, 10, 90, 50))
    return street_zone(spots, [ring, [(60.0, 0.0), (60.0, 14.0)]], places=(yard,))


class Air:
    """The radio of one tag: a law, a body, shadows that stay for a few seconds, fast fading, a power of its own.

    calm: no level varies by chance, and no reading is lost.
    """

    def __init__(self, ground: Ground, seed: int, *, calm: bool = False) -> None:
        self.rng = random.Random(seed)
        self.readers, self.calm = ground.readers, calm
        self.own_db = 0.0 if calm else self.rng.gauss(0, OWN_DB)
        self.shadow = {n: self._gauss(SHADOW_DB) for n in ground.readers}

    def _gauss(self, sd_db: float) -> float:
        return 0.0 if self.calm else self.rng.gauss(0, sd_db)

    def hear(self, xy_m: XY, facing: float, now_s: float) -> list[Reading]:
        heard = []
        for n, (x, y, height) in self.readers.items():
            self.shadow[n] = 0.85 * self.shadow[n] + self._gauss(SHADOW_DB * math.sqrt(1 - 0.85**2))
            to_m = math.hypot(math.dist((x, y), xy_m), height - 1.0)
            behind = -math.cos(math.atan2(y - xy_m[1], x - xy_m[0]) - facing)
            level = POWER_DBM - 8 + 5 * behind - 25 * math.log10(max(to_m, 1.0)) + self.own_db + self.shadow[n]
            level += self._gauss(FAST_DB)
            if level > FLOOR_DBM and (self.calm or self.rng.random() < 0.8):
                heard.append(Reading(n, round(level), 2, now_s - 0.3, POWER_DBM))
        return heard


def walk(*way: XY, pace_mps: float = 1.3, stand_s: int = 0) -> Iterator[tuple[XY, float]]:
    """Yield a place and a facing for each second; at the end the walker stands for `stand_s`."""
    facing, at_m, over_m = 0.0, way[0], 0.0
    for (x1, y1), (x2, y2) in itertools.pairwise(way):
        length, facing = math.dist((x1, y1), (x2, y2)), math.atan2(y2 - y1, x2 - x1)
        while over_m < length:
            at_m = (x1 + (x2 - x1) * over_m / length, y1 + (y2 - y1) * over_m / length)
            yield at_m, facing
            over_m += pace_mps
        over_m -= length
    for _ in range(stand_s):
        yield at_m, facing


class Gateway:
    """A locator and its clock. It steps at each of the locator's deadlines, as the pipeline does."""

    def __init__(self, ground: Zone | Ground, *, routes: dict[int, int] | None = None) -> None:
        self.ground = Ground(ground) if isinstance(ground, Zone) else ground
        self.counts, self.now_s = Counter[str](), 1000.0
        self.locator = ZoneLocator(self.ground, self.counts, routes=routes)
        self.shift = self.ground.plane.to_xy_m(*at(0.0, 0.0))
        self.steps = 0

    def here(self, x_m: float, y_m: float) -> XY:
        """Return a place, given in the test's own metres, on the ground's plane."""
        return x_m + self.shift[0], y_m + self.shift[1]

    def second(self, heard: dict[int, list[Reading]]) -> dict[int, tuple[Fix, Fix | None]]:
        for tag, readings in heard.items():
            for reading in readings:
                self.locator.hear(tag, reading, self.now_s)
        return self.wait(1.0)

    def wait(self, seconds: float) -> dict[int, tuple[Fix, Fix | None]]:
        fixes: dict[int, tuple[Fix, Fix | None]] = {}
        until_s = self.now_s + seconds
        while (due_s := self.locator.deadline_s()) < until_s:
            self.now_s = max(self.now_s, due_s)
            for tag, fix, late in self.locator.step(self.now_s, lambda _: False):
                assert tag not in fixes or fix.fixed_at_s > fixes[tag][0].fixed_at_s + 0.5, "one fix a second"
                fixes[tag] = fix, late
            self.steps += 1
            assert self.locator.deadline_s() > self.now_s, "a deadline that does not pass is a busy loop"
        self.now_s = until_s
        return fixes


Walked = list[tuple[XY, Fix, Fix | None]]


def follow(gateway: Gateway, airs: Sequence[Air], ways: Sequence[Iterator[tuple[XY, float]]]) -> list[Walked]:
    """Walk tags 0, 1, .. along their ways at once; return (truth, fix, smoothed fix) of each second, for each tag."""
    found: list[Walked] = [[] for _ in ways]
    for spots in itertools.zip_longest(*ways):
        here = {tag: (gateway.here(*spot[0]), spot[1]) for tag, spot in enumerate(spots) if spot is not None}
        fixes = gateway.second({tag: airs[tag].hear(*spot, gateway.now_s) for tag, spot in here.items()})
        for tag, (xy_m, _) in here.items():
            if tag in fixes:
                found[tag].append((xy_m, *fixes[tag]))
    return found


def off_m(xy_m: XY, fix: Fix) -> float:
    return math.dist(xy_m, (fix.x_m, fix.y_m))


def loud(*levels: tuple[int, int | None], power_dbm: int = POWER_DBM, at_s: float = 1000.0) -> list[Reading]:
    return [Reading(reader, rssi_dbm, 3, at_s, power_dbm) for reader, rssi_dbm in levels]
