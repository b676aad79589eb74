"""The site file of a school zone: streets, school, danger areas and poles, as GeoJSON made from a map by `osm`.

It is a FeatureCollection with "attribution" and "site" at the top. `properties.kind` says what a feature is:

    street    LineString  class (the map's highway=*)      school    Polygon  id
    building  Polygon                                      danger    Polygon  id, what, warn_m
    crossing  Point       where a walker waits for cars    reader    Point    number, pole, height_m
    gate      Point       on the school's edge             home      Point    id

The file is in degrees. This module works in metres: x east and y north of the school's first gate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.zone import Plane
from sim.street.paths import Paths, Spot, distance_to_edge_m, inside, nearest_on_segment

SITES = Path(__file__).resolve().parent / "sites"
GONGDEOK = SITES / "gongdeok.geojson"
STREET_COST = {"tertiary": 1.2, "secondary": 1.6, "primary": 3.0, "steps": 1.3, "service": 1.1}
"""How many times longer a street of this class seems to a child; 1.0 for others. Our guess: only the order counts."""
SITE_MAX_B = 4 * 1024 * 1024
NEAR_M = 100.0
"""A gateway gets the footpaths within this distance of a reader: a little further than the reader hears."""
GATE_DEPTH_M = 4.0


class SiteError(ValueError):
    """The site file is not usable. The message names the file and, where known, the feature and what would be right."""


@dataclass(frozen=True, slots=True)
class Pole:
    """A reader on its pole."""

    number: int
    name: str
    at: Spot
    height_m: float


@dataclass(frozen=True, slots=True)
class DangerPatch:
    """A danger area: what it is, its outline, and the distance within which a child causes a warning."""

    id: str
    what: str
    ring: tuple[Spot, ...]
    warn_m: float


@dataclass(frozen=True, slots=True)
class Site:
    """A school zone. Rings are open: the last point does not repeat the first."""

    name: str
    attribution: str
    plane: Plane
    streets: tuple[tuple[str, tuple[Spot, ...]], ...]
    crossings: tuple[Spot, ...]
    school_id: str
    school: tuple[Spot, ...]
    gates: tuple[Spot, ...]
    dangers: tuple[DangerPatch, ...]
    poles: tuple[Pole, ...]
    homes: tuple[tuple[str, Spot], ...]

    def paths(self) -> Paths:
        """Return the footpath graph: all streets except those where children do not walk (primary and larger)."""
        return Paths([(line, STREET_COST.get(kind, 1.0)) for kind, line in self._walked()])

    def footpaths(self, spots: Sequence[Spot], within_m: float = NEAR_M) -> list[list[Spot]]:
        """Return the footpaths that a gateway gets: walked streets and a way through each gate, if near a spot.

        The way through a gate leads from the street to GATE_DEPTH_M inside the school, as the children walk.
        """
        near = [list(line) for _, line in self._walked() if _gap_m(line, spots) <= within_m]
        paths = self.paths()
        for gate in self.gates:
            turns = [n * math.tau / 72 for n in range(72)]
            spot = max(
                ((gate[0] + GATE_DEPTH_M * math.cos(a), gate[1] + GATE_DEPTH_M * math.sin(a)) for a in turns),
                key=lambda p: (inside(p, self.school), round(distance_to_edge_m(p, self.school), 3), p),
            )
            way = [paths.points[paths.attach(gate)], gate, spot]
            near += [way] if _gap_m(way, spots) <= within_m else []
        return near

    def _walked(self) -> list[tuple[str, tuple[Spot, ...]]]:
        return [(kind, line) for kind, line in self.streets if kind != "primary"]

    def at_school(self, point: Spot) -> bool:
        return inside(point, self.school)


def load(path: Path = GONGDEOK) -> Site:
    """Read a site file. Raises SiteError."""
    try:
        if path.stat().st_size > SITE_MAX_B:
            raise SiteError(f"{path} has over {SITE_MAX_B} bytes; derive it again with a smaller --radius")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise SiteError(f"cannot read {path}: {error.strerror}; `ansim-sim site derive` makes one") from error
    except ValueError as error:
        raise SiteError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("features"), list):
        raise SiteError(f"{path} is no GeoJSON FeatureCollection")
    for key in ("attribution", "site"):
        if not isinstance(data.get(key), str) or not data[key]:
            raise SiteError(f"{path} lacks {key!r} at the top; map data needs its attribution, a zone its name")
    return _build(path, data)


def _build(path: Path, data: dict[str, Any]) -> Site:
    kinds: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for row, feature in enumerate(data["features"]):
        try:
            properties, geometry = feature["properties"], feature["geometry"]
            kind, shape, coordinates = properties["kind"], geometry["type"], geometry["coordinates"]
            wanted = _SHAPES.get(kind)
            if wanted is not None and shape != wanted:
                raise SiteError(f"{path} feature {row}: a {kind} is a {wanted}, not a {shape}")
            kinds.setdefault(kind, []).append((properties, coordinates))
        except (KeyError, TypeError) as error:
            raise SiteError(f"{path} feature {row}: {error} missing or of the wrong type") from error
    for kind, least in (("street", 1), ("school", 1), ("gate", 1), ("reader", 1), ("home", 1)):
        if len(kinds.get(kind, [])) < least:
            raise SiteError(f"{path} has no {kind}; derive it again")
    try:
        return _site(data, kinds)
    except (KeyError, TypeError, ValueError) as error:
        raise SiteError(f"{path}: {error!r} in a feature's properties or coordinates") from error


_SHAPES = {
    "street": "LineString",
    "building": "Polygon",
    "school": "Polygon",
    "danger": "Polygon",
    "reader": "Point",
    "gate": "Point",
    "home": "Point",
    "crossing": "Point",
}


def _site(data: dict[str, Any], kinds: dict[str, list[tuple[dict[str, Any], Any]]]) -> Site:
    lon, lat = kinds["gate"][0][1]
    plane = Plane(float(lon), float(lat))

    def xy(point: Any) -> Spot:
        return plane.to_xy_m(float(point[0]), float(point[1]))

    def ring(polygon: Any) -> tuple[Spot, ...]:
        points = tuple(xy(point) for point in polygon[0])
        return points[:-1] if points[0] == points[-1] else points

    poles = tuple(
        Pole(int(p["number"]), str(p.get("pole", "")), xy(c), float(p.get("height_m", 3.5))) for p, c in kinds["reader"]
    )
    numbers = [pole.number for pole in poles]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"a reader number is given twice in {numbers}")
    return Site(
        name=data["site"],
        attribution=data["attribution"],
        plane=plane,
        streets=tuple((str(p["class"]), tuple(xy(point) for point in c)) for p, c in kinds["street"]),
        crossings=tuple(xy(c) for _, c in kinds.get("crossing", [])),
        school_id=str(kinds["school"][0][0]["id"]),
        school=ring(kinds["school"][0][1]),
        gates=tuple(xy(c) for _, c in kinds["gate"]),
        dangers=tuple(
            DangerPatch(str(p["id"]), str(p["what"]), ring(c), float(p["warn_m"])) for p, c in kinds.get("danger", [])
        ),
        poles=tuple(sorted(poles, key=lambda pole: pole.number)),
        homes=tuple((str(p["id"]), xy(c)) for p, c in kinds["home"]),
    )


def _gap_m(line: Sequence[Spot], spots: Sequence[Spot]) -> float:
    """The distance from a line to the nearest of the spots; infinite without spots or with a line of one point."""
    legs = list(pairwise(line))
    return min((math.dist(p, nearest_on_segment(p, a, b)) for p in spots for a, b in legs), default=math.inf)
