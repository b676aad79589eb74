"""The ground of a zone: the cells where a tag can be, in metres around the readers' middle, and the areas they lie in.

With footpaths: cells along them, and a patch of open ground for each place near the readers. A place's outline is a
wall. It has doors where a footpath crosses it or ends at it. Without footpaths: open ground around the readers.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gateway.antenna import look_of
from gateway.locate import shapes
from gateway.locate.sectors import HEARD_M, Sector, sectors
from gateway.locate.space import PATH_WIDTH_M, Space, footpaths, joined, open_ground
from gateway.locate.ways import SEGMENTS_MAX, Chain, PointM, chains
from gateway.zone import LonLat, Plane, Zone, direction

REACH_M = 80.0
"""Footpaths and places farther than this from every reader are left out: no tag is located there."""
PATH_STEP_M, PATH_CELLS = 3.0, 800
"""Size of a footpath's cells, larger if there would be more than PATH_CELLS, but at most PATH_STEP_MAX_M."""
PATH_STEP_MAX_M = 4.0
YARD_STEP_M, YARD_CELLS = 4.5, 300
OPEN_STEP_M, OPEN_CELLS = 3.0, 700
"""The same for a place's ground, and for open ground without a map, up to GROUND_STEP_MAX_M."""
GROUND_STEP_MAX_M, CELLS_MAX = 10.0, 20_000
"""A distance from a reading is uncertain by half of itself, so smaller cells add little. CELLS_MAX: limit of one patch,
whatever its step then is; readers may be mounted kilometres apart."""
OPEN_MARGIN_M, BARE_MARGIN_M, BARE_M = 60.0, 40.0, 30.0
"""How far open ground goes beyond the readers: in a zone without footpaths; and around readers with no footpath and no
place within BARE_M."""
GATE_M, DOOR_M = 4.0, 6.0
"""A dead end this near to a wall is at a gate. A door is this near to its footpath, unless it is the only door."""
OUTSIDE_M = 2.0
"""So far before a gate is what it leads out to."""
DOOR_GAP_M, SEAM_GAP_M = 3.0, 10.0
"""Least distance between doors: in a wall; and at an edge where only the map ends."""
HEADINGS = 4
NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class _Patch:
    """Open ground within a ring. place: the place that the ring is the wall of; None: no wall."""

    ring: list[PointM]
    space: Space
    place: str | None


class Ground:
    """A zone's cells, areas and sectors. `plane` and `readers` (number -> x, y, height) are in metres.

    places, dangers: their ids; routes: id -> index of the route. shares, float32 [cells, places + dangers + routes] in
    that order: how much of each cell lies in each area (a danger area with its warning distance, a route with its
    corridor). So `mass by cell @ shares` are probabilities.
    """

    def __init__(self, zone: Zone) -> None:
        places = [place.polygon for place in zone.places]
        dangers = [danger.polygon for danger in zone.dangers]
        points: list[LonLat] = [(r.lon, r.lat) for r in zone.readers]
        points = points or [point for polygon in (*places, *dangers) for point in polygon] or [(0.0, 0.0)]
        self.plane = Plane(
            sum(point[0] for point in points) / len(points), sum(point[1] for point in points) / len(points)
        )
        self.readers = {r.number: (*self.plane.to_xy_m(r.lon, r.lat), r.height_m) for r in zone.readers}
        self.look = {reader.number: look_of(reader) for reader in zone.readers}
        self.places = tuple(place.id for place in zone.places)
        self.dangers = tuple(danger.id for danger in zone.dangers)
        self.routes = {route.id: i for i, route in enumerate(zone.routes)}
        self.notes: list[str] = []
        """What a person who draws the zone wants to know."""
        rings = [self._shape(polygon) for polygon in places]
        self.walls = dict(zip(self.places, rings, strict=True))
        warned = [(self._shape(danger.polygon), danger.warn_m) for danger in zone.dangers]
        lines = [self._shape(path.line) for path in zone.footpaths]
        self._spots = np.array([(x, y) for x, y, _ in self.readers.values()] or [(0.0, 0.0)])
        self._patches: list[_Patch] = []
        self._ways: list[Chain] = []
        self._crossings: list[tuple[PointM, int, int]] = []
        self._gates: dict[str, list[tuple[PointM, PointM]]] = {}
        for gate in zone.gates:
            (x, y), (east, north) = self.plane.to_xy_m(gate.lon, gate.lat), direction(gate.inward_deg)
            self._gates.setdefault(gate.place, []).append(((x, y), (x - OUTSIDE_M * east, y - OUTSIDE_M * north)))
        if lines:
            self._lay_yards(list(zip(self.places, rings, strict=True)))
            self._lay_paths(lines)
        self._paths = self._path_space()
        if lines:
            self._lay_dangers(warned)
        self._lay_open_ground(OPEN_MARGIN_M if not lines else BARE_MARGIN_M)
        self.space = self._whole()
        self.shares = self._shares(
            [(ring, 0.0, True) for ring in rings]
            + [(ring, warn_m, True) for ring, warn_m in warned]
            + [(self._shape(route.line), route.corridor_m, False) for route in zone.routes]
        )
        self.sectors: tuple[Sector, ...] = sectors(self.space, self.readers)
        self.home = {number: i for i, sector in enumerate(self.sectors) for number in sector.home}
        """Reader -> its home sector."""

    def _shape(self, points: Sequence[LonLat]) -> list[PointM]:
        return [self.plane.to_xy_m(lon, lat) for lon, lat in points]

    # ---- what is walked on -------------------------------------------------------------------------------------------

    def _lay_yards(self, places: Sequence[tuple[str, list[PointM]]]) -> None:
        """Lay a patch for each place near a reader. Where two overlap, the larger place gets the ground."""
        far = []
        for name, ring in sorted(places, key=lambda place: -abs(_area_m2(place[1]))):
            if float(shapes.depths_m(self._spots, ring).max()) >= -REACH_M:
                self._lay(ring, YARD_STEP_M, YARD_CELLS, place=name)
            else:
                far.append(name)
        if far:
            self.notes.append(f"over {REACH_M:.0f} m from every reader, so nobody is seen there: place {_named(far)}")

    def _lay_paths(self, lines: Sequence[list[PointM]]) -> None:
        """Keep the parts of footpaths in reach and outside the patches, and find where they lead into a patch."""
        kept: list[list[PointM]] = []
        pieces = 0
        for runs in shapes.cut(lines, [patch.ring for patch in self._patches], self._spots, REACH_M):
            for (one, points), (other, _) in itertools.pairwise(runs):
                if max(one, other) >= 0 and min(one, other) != shapes.AWAY:
                    self._crossings.append((points[-1], one, other))
            for points in (points for label, points in runs if label == shapes.OUT):
                pieces += len(points) - 1
                if pieces <= SEGMENTS_MAX:
                    kept.append(points)
        if pieces > SEGMENTS_MAX:
            self.notes.append(f"footpaths: {pieces} pieces near readers, only the first {SEGMENTS_MAX} are used")
        self._ways = chains(kept) if kept else []
        if not self._ways and not self._crossings:
            self.notes.append(f"footpaths: none comes within {REACH_M:.0f} m of a reader")

    def _path_space(self) -> Space | None:
        length_m = sum(chain.length_m for chain in self._ways)
        step_m = min(max(PATH_STEP_M, length_m / PATH_CELLS), PATH_STEP_MAX_M)
        return footpaths(self._ways, step_m) if self._ways else None

    def _lay_dangers(self, warned: Sequence[tuple[list[PointM], float]]) -> None:
        """Lay a patch for a danger area with no cell near it: without it, no tag could be believed there."""
        for ring, warn_m in warned:
            cells = self._cells()
            in_reach = float(shapes.depths_m(self._spots, ring).max()) >= -REACH_M
            if in_reach and not (len(cells) and float(shapes.depths_m(cells, ring).max()) >= -warn_m):
                self._lay(ring, YARD_STEP_M, YARD_CELLS)

    def _lay_open_ground(self, margin_m: float) -> None:
        """Lay open ground around readers with nothing else near; in an empty zone, around the plane's origin."""
        cells = self._cells()
        spots = [(x, y) for x, y, _ in self.readers.values()] or ([] if len(cells) else [(0.0, 0.0)])
        bare = [at for at in spots if not len(cells) or float(np.hypot(*(cells - at).T).min()) > BARE_M]
        boxes = []
        for group in shapes.clusters(bare, 2 * margin_m):
            x, y = [bare[n][0] for n in group], [bare[n][1] for n in group]
            boxes.append((min(x) - margin_m, min(y) - margin_m, max(x) + margin_m, max(y) + margin_m))
        area_m2 = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
        for x0, y0, x1, y1 in boxes:
            cells = OPEN_CELLS * (x1 - x0) * (y1 - y0) / area_m2
            self._lay([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], OPEN_STEP_M, cells)

    def _lay(self, ring: list[PointM], step_m: float, cells: float, place: str | None = None) -> None:
        space = _patch(ring, step_m, cells, self._spots, [patch.ring for patch in self._patches])
        if space is not None:
            self._patches.append(_Patch(ring, space, place))

    def _cells(self) -> Any:
        parts = [patch.space.xy_m[patch.space.within] for patch in self._patches]
        return np.concatenate([np.zeros((0, 2)), *parts, *([] if self._paths is None else [self._paths.xy_m])])

    def _whole(self) -> Space:
        spaces = [patch.space for patch in self._patches]
        doors = _Doors(self._paths, spaces)
        guarded = {n for n, patch in enumerate(self._patches) if patch.place in self._gates}
        unguarded = []
        for n in sorted(guarded):
            place = str(self._patches[n].place)
            for at, before in self._gates[place]:
                doors.cut(at, n, 0.0, beyond=self._patch_at(before, n), near_m=math.inf)
        for at, one, other in self._crossings:
            if guarded.isdisjoint((one, other)):
                doors.cut(at, max(one, other), DOOR_GAP_M, beyond=min(one, other))
            else:
                unguarded += [
                    str(self._patches[n].place)
                    for n in guarded.intersection((one, other))
                    if min(math.dist(at, gate) for gate, _ in self._gates[str(self._patches[n].place)]) > DOOR_M
                ]
        if unguarded:
            away = f"over {DOOR_M:.0f} m from its gates, and nobody is believed to enter there: place"
            self.notes.append(f"a footpath leads in {away} {_named(sorted(set(unguarded)))}")
        if self._paths is None:
            return joined(spaces, doors.found)
        dead_ends = _dead_ends(self._ways)
        shut: list[str] = []
        for n, patch in enumerate(self._patches):
            if n in guarded:
                continue
            spots, near_m, deep_m, gap_m = self._paths.xy_m, DOOR_M, math.inf, SEAM_GAP_M
            if patch.place is not None:
                spots, near_m, deep_m, gap_m = dead_ends, GATE_M, shapes.SHALLOW_M, DOOR_GAP_M
            depth = shapes.depths_m(spots, patch.ring)
            for x, y in spots[(depth > -near_m) & (depth < deep_m)].tolist():
                doors.cut((x, y), n, gap_m)
            if doors.cut_one(n) and patch.place is not None:
                shut.append(patch.place)
        if shut:
            way = "its door is where one comes nearest; draw the way through its gate"
            self.notes.append(f"no footpath leads into place {_named(shut)}, so {way}")
        return joined([self._paths, *spaces], doors.found)

    def _patch_at(self, at: PointM, but: int) -> int:
        """Return the patch of a place that holds a point, -1 if none does."""
        here = np.array([at])
        for n, patch in enumerate(self._patches):
            if n != but and bool(shapes.inside(here, patch.ring)[0]):
                return n
        return -1

    # ---- areas -------------------------------------------------------------------------------------------------------

    def _shares(self, areas: Sequence[tuple[list[PointM], float, bool]]) -> Any:
        """areas: (shape, margin, whether it is a ring)."""
        samples, counted = self._samples()
        flat = samples.reshape(-1, 2)
        shares = np.zeros((self.space.cells, len(areas)), np.float32)
        for n, (shape, margin_m, is_ring) in enumerate(areas):
            some = np.flatnonzero(shapes.near(flat, shape, margin_m))
            if is_ring:
                holds = shapes.inside(flat[some], shape)
                if margin_m > 0:
                    holds |= shapes.depths_m(flat[some], shape) >= -margin_m
            else:
                holds = shapes.off_line_m(flat[some], shape) <= margin_m
            within = np.zeros(len(flat), bool)
            within[some[holds]] = True
            shares[:, n] = (within.reshape(counted.shape) & counted).sum(axis=1) / counted.sum(axis=1)
        return shares

    def _samples(self) -> tuple[Any, Any]:
        """Return points of each cell [cells, 9, 2], and whether they count: paths and yards stop at a wall."""
        along, across = np.meshgrid([-1 / 3, 0.0, 1 / 3], [-1 / 3, 0.0, 1 / 3])
        parts = []
        for block in self.space.blocks:
            long_m = self.space.size_m[block.span, None]
            wide_m = PATH_WIDTH_M if block.wide is None else long_m
            c, s = np.cos(block.facings[0])[:, None], np.sin(block.facings[0])[:, None]
            x, y = long_m * along.ravel(), wide_m * across.ravel()
            parts.append(np.stack([c * x - s * y, s * x + c * y], axis=2))
        samples = self.space.xy_m[:, None] + np.concatenate(parts)
        counted = np.ones(samples.shape[:2], bool)
        patches = [None] * (len(self.space.blocks) - len(self._patches)) + self._patches
        walled = [patch for patch in self._patches if patch.place is not None]
        for block, own in zip(self.space.blocks, patches, strict=True):
            flat = samples[block.span].reshape(-1, 2)
            behind_wall = np.zeros(len(flat), bool)
            for ring in [own.ring] if own is not None and own.place is not None else [patch.ring for patch in walled]:
                some = shapes.near(flat, ring, 0.0)
                behind_wall[some] |= shapes.inside(flat[some], ring)
            good = behind_wall if own is not None and own.place is not None else ~behind_wall
            counted[block.span] = good.reshape(-1, counted.shape[1])
        counted[~counted.any(axis=1)] = True
        return samples, counted


class _Doors:
    """Doors between paths (space 0, if any) and patches. No cell is used twice."""

    def __init__(self, paths: Space | None, patches: Sequence[Space]) -> None:
        self._spaces = [*([] if paths is None else [paths]), *patches]
        self._first = 0 if paths is None else 1
        self._free = [space.within.copy() for space in self._spaces]
        self._at: dict[int, list[PointM]] = {}
        self.found: list[tuple[int, int, int, int]] = []

    def cut(self, at: PointM, patch: int, gap_m: float, beyond: int = -1, near_m: float = DOOR_M) -> None:
        """Add a door into a patch, from the footpaths or the patch `beyond`, unless it has a door within gap_m.

        near_m: how far the cells on its two sides may be from it.
        """
        if any(math.dist(at, other) < gap_m for other in self._at.get(patch, ())):
            return
        if beyond < 0 and not self._first:
            return
        one, other = self._first + beyond if beyond >= 0 else 0, self._first + patch
        i, j = self._nearest(one, at, near_m), self._nearest(other, at, near_m)
        if i is not None and j is not None:
            self._use(one, i, other, j)
            for each in {patch, beyond} - {-1}:
                self._at.setdefault(each, []).append(at)

    def cut_one(self, patch: int) -> bool:
        """Give a patch without a door one where it is nearest to a footpath. Return whether it had none."""
        if patch in self._at:
            return False
        paths, ground = self._spaces[0], self._spaces[self._first + patch]
        ours, theirs = np.flatnonzero(self._free[0]), np.flatnonzero(self._free[self._first + patch])
        if not len(ours) or not len(theirs):
            return True
        apart = [np.hypot(*(paths.xy_m[ours] - at).T) for at in ground.xy_m[theirs]]
        best = min(range(len(theirs)), key=lambda n: float(apart[n].min()))
        at = ground.xy_m[theirs[best]]
        self._use(0, int(ours[apart[best].argmin()]), self._first + patch, int(theirs[best]))
        self._at[patch] = [(float(at[0]), float(at[1]))]
        return True

    def _nearest(self, n: int, at: PointM, near_m: float) -> int | None:
        space = self._spaces[n]
        far = np.where(self._free[n], np.hypot(*(space.xy_m - at).T), np.inf)
        cell = int(far.argmin())
        return cell if np.isfinite(far[cell]) and far[cell] <= near_m + space.size_m[cell] else None

    def _use(self, one: int, i: int, other: int, j: int) -> None:
        self._free[one][i] = self._free[other][j] = False
        self.found.append((one, i, other, j))


def _patch(ring: list[PointM], step_m: float, cells: float, spots: Any, taken: Sequence[list[PointM]]) -> Space | None:
    """Return the cells of a ring that are within hearing and in none of the rings `taken`; None if there are none."""
    angle, x0, y0, x1, y1 = shapes.frame_of(ring)
    flat = shapes.turned(spots, -angle)
    (low_x, low_y), (high_x, high_y) = flat.min(axis=0) - HEARD_M, flat.max(axis=0) + HEARD_M
    x0, y0, x1, y1 = max(x0, low_x), max(y0, low_y), min(x1, high_x), min(y1, high_y)
    if x1 <= x0 or y1 <= y0:
        return None
    area_m2 = (x1 - x0) * (y1 - y0)
    step_m = min(max(step_m, math.sqrt(area_m2 / cells)), GROUND_STEP_MAX_M)
    step_m = max(step_m, math.sqrt(area_m2 / CELLS_MAX), max(x1 - x0, y1 - y0) / CELLS_MAX)
    half_x = step_m * (max(1, round((x1 - x0) / step_m)) - 1) / 2
    half_y = step_m * (max(1, round((y1 - y0) / step_m)) - 1) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    space = open_ground(x - half_x, y - half_y, x + half_x, y + half_y, step_m, HEADINGS)
    xy_m = shapes.turned(space.xy_m, angle)
    within = shapes.inside(xy_m, ring)
    if not within.any():  # thinner than a cell
        within = shapes.depths_m(xy_m, ring) > -step_m / 2
    for other in taken:
        within &= ~shapes.inside(xy_m, other)
    heard = np.zeros(len(xy_m), bool)
    for spot in spots:
        heard |= np.hypot(*(xy_m - spot).T) <= HEARD_M
    within &= heard
    if not within.any():
        return None
    blocks = [replace(block, facings=block.facings + angle) for block in space.blocks]
    return Space(xy_m, space.size_m, blocks, space.behind, space.ahead, space.weights, within=within)


def _dead_ends(ways: Sequence[Chain]) -> Any:
    ends = Counter(node for way in ways for node in (way.start, way.end))
    found = [(way.points[i], node) for way in ways for i, node in ((0, way.start), (-1, way.end))]
    return np.array([point for point, node in found if ends[node] == 1]).reshape(-1, 2)


def _named(names: Sequence[str]) -> str:
    return f"{', '.join(names[:NAMED_MAX])}{' ..' if len(names) > NAMED_MAX else ''}"


def _area_m2(ring: Sequence[PointM]) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in itertools.pairwise([ring[-1], *ring])) / 2
