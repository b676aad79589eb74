"""The site file of a school zone: streets, school, danger areas and poles, as GeoJSON made from a map by `osm`.

It is a FeatureCollection with "attribution" and "site" at the top. `properties.kind` says what a feature is:

    street    LineString  class (the map's highway=*)      school    Polygon  id
    building  Polygon                                      danger    Polygon  id, what, warn_m
    crossing  Point       where a walker waits for cars    reader    Point    number, pole, height_m
    gate      Point       on the school's edge             home      Point    id

A gate may have `id` (gate1, gate2, .. if not), `place` (the school's id), `inward_deg` (straight through the nearest
edge) and `width_m`. A reader that guards a gate has `gate` (its id) and `side` (outer or inner). Any reader may have
`antenna` (dipole, or patch) and a patch `look_deg`; a gate reader's patch looks away from the wall if it has none.
Bearings are degrees from north, clockwise.

The file is in degrees. This module works in metres: x east and y north of the school's first gate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from gateway.zone import LonLat, Plane
from readers.files import BadFile, bytes_of, printable, table_of
from sim.street.gates import WIDTH_M, Entrance, Side, inward_deg, look_deg
from sim.street.paths import Paths, Spot, distance_to_edge_m, inside, nearest_on_segment

SITES = Path(__file__).resolve().parent / "sites"
GONGDEOK = SITES / "gongdeok.geojson"
STREET_COST = {"tertiary": 1.2, "secondary": 1.6, "primary": 3.0, "steps": 1.3, "service": 1.1}
"""How many times longer a street of this class seems to a child; 1.0 for others. Our guess: only the order counts."""
SITE_MAX_B = 4 * 1024 * 1024
NEAR_M = 100.0
"""A gateway gets the footpaths within this distance of a reader: a little further than the reader hears."""
GATE_DEPTH_M = 4.0
LAT_MAX, SITE_SPAN_M, READER_MAX = 85.0, 20_000.0, 65_534
"""Degrees from the equator; metres from the gate, as a gateway takes them; a reader's largest number on the wire."""


class SiteError(ValueError):
    """The site file is not usable. The message names the file and, where known, the feature and what would be right."""


@dataclass(frozen=True, slots=True)
class Pole:
    """A reader on its pole. look_deg: where a patch looks; gate, side: what a gate reader guards."""

    number: int
    name: str
    at: Spot
    height_m: float
    antenna: Literal["dipole", "patch"] = "dipole"
    look_deg: float | None = None
    gate: str | None = None
    side: Side | None = None


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
    entrances: tuple[Entrance, ...]
    """The gates. Children of the demo use the first."""
    dangers: tuple[DangerPatch, ...]
    poles: tuple[Pole, ...]
    homes: tuple[tuple[str, Spot], ...]

    @property
    def gates(self) -> tuple[Spot, ...]:
        """The middle of each gate."""
        return tuple(gate.at for gate in self.entrances)

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


def load(path: Path = GONGDEOK, *, bare: bool = False) -> Site:
    """Read a site file. bare: one without readers is good too, they are still to be planned. Raises SiteError."""
    try:
        data = table_of(bytes_of(path, SITE_MAX_B))
    except OSError as error:
        raise SiteError(f"cannot read {path}: {error.strerror}; `ansim-sim site derive` makes one") from error
    except BadFile as error:
        raise SiteError(f"{path}: {error}") from error
    if not isinstance(data.get("features"), list):
        raise SiteError(f"{path} is no GeoJSON FeatureCollection: it has no list of features")
    for key in ("attribution", "site"):
        if not isinstance(data.get(key), str) or not data[key]:
            raise SiteError(f"{path} lacks {key!r} at the top; map data needs its attribution, a zone its name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", data["site"]):
        raise SiteError(f"{path}: site {printable(data['site'], 40)!r}: 1 to 32 of A-Z a-z 0-9 _ -, no blank")
    try:
        return _site(data, [_Feature(n, raw) for n, raw in enumerate(data["features"], 1)], bare)
    except _BadFeature as error:
        raise SiteError(f"{path}, {error}") from error


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


class _BadFeature(ValueError):
    """What is wrong with one feature, or with all of them together."""


class _Feature:
    """One feature of the file. Every method raises _BadFeature, which says which feature it is."""

    def __init__(self, place: int, raw: Any) -> None:
        self.name = f"feature {place}"
        properties = raw.get("properties") if isinstance(raw, dict) else None
        if not isinstance(properties, dict):
            raise self.bad('its properties are missing; write {"kind": ...}')
        self.kind, self.properties = properties.get("kind"), properties
        if not isinstance(self.kind, str) or self.kind not in _SHAPES:
            raise self.bad(f"its kind is {printable(repr(self.kind), 40)}, none of {', '.join(_SHAPES)}")
        self.name += f" ({self.kind})"
        geometry = raw.get("geometry")
        shape = geometry.get("type") if isinstance(geometry, dict) else None
        if shape != _SHAPES[self.kind]:
            raise self.bad(f"a {self.kind} is a {_SHAPES[self.kind]}, not a {printable(str(shape), 40)}")
        raw_places = geometry.get("coordinates")
        rows: Any = [raw_places] if shape == "Point" else raw_places
        if shape == "Polygon":  # holes do not count
            rows = raw_places[0] if isinstance(raw_places, list) and raw_places else None
        if not isinstance(rows, list):
            raise self.bad("it has no coordinates")
        self.places = [self._place(row) for row in rows]
        least = {"Point": 1, "LineString": 2, "Polygon": 3}[shape]
        if len(set(self.places)) < least:
            raise self.bad(f"it has {len(set(self.places))} different places, and a {shape} has {least} or more")

    def _place(self, raw: Any) -> LonLat:
        said = printable(json.dumps(raw), 60)
        if not isinstance(raw, list) or len(raw) not in (2, 3):  # a third number is a height, which nothing here needs
            raise self.bad(f"{said} is no place [longitude, latitude]")
        if any(type(value) not in (int, float) for value in raw):
            raise self.bad(f"{said} is no place of two numbers, without quotes")
        lon, lat = float(raw[0]), float(raw[1])
        if abs(lon) <= 180 and abs(lat) <= LAT_MAX:
            return lon, lat
        exchanged = abs(lon) <= LAT_MAX and abs(lat) <= 180
        why = "longitude comes first" if exchanged else "save the file in degrees (WGS 84, EPSG:4326)"
        raise self.bad(f"{said} is no place in degrees: {why}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.properties.get(key, default)
        if not isinstance(value, str) or (not value and default is None):
            raise self.bad(f"its {key} is {printable(repr(value), 40)}, and must be text")
        return value

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        value: Any = self.properties.get(key, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.bad(
                f"its {key} is {printable(repr(value), 40)}, and must be a number from {least:g} to {most:g}"
            )
        return float(value)

    def bearing(self, key: str, default: float | None = None) -> float:
        if self.properties.get(key) == 360:
            raise self.bad(f"its {key} is 360; north is 0")
        return self.number(key, 0, 360, default)

    def one_of(self, key: str, *names: str) -> str | None:
        """Return one of the names; None when the key is not there."""
        value = self.properties.get(key)
        if value is not None and value not in names:
            raise self.bad(f"its {key} is {printable(repr(value), 40)}, and must be {' or '.join(names)}")
        return value

    def bad(self, what: str) -> _BadFeature:
        return _BadFeature(f"{self.name}: {what}")


def _site(data: dict[str, Any], features: Sequence[_Feature], bare: bool = False) -> Site:
    kinds: dict[str, list[_Feature]] = {kind: [] for kind in _SHAPES}
    for each in features:
        kinds[str(each.kind)].append(each)
    for kind in ("street", "school", "gate", "reader", "home"):
        if not kinds[kind] and not (bare and kind == "reader"):
            raise _BadFeature(f"the whole file: it has no {kind}; derive it again")
    if all(each.text("class") == "primary" for each in kinds["street"]):
        raise _BadFeature("the whole file: it has no street on which children walk, only primary ones; derive it again")
    if len(kinds["school"]) > 1:
        raise kinds["school"][1].bad("a site has one school, and this is a second one; remove one")
    plane = Plane(*kinds["gate"][0].places[0])
    for each in features:
        far_m = max(math.hypot(*plane.to_xy_m(*place)) for place in each.places)
        if far_m > SITE_SPAN_M:
            raise each.bad(f"it is {far_m / 1000:.0f} km from the gate; longitude comes first")

    def spots(feature: _Feature) -> tuple[Spot, ...]:
        return tuple(plane.to_xy_m(*place) for place in feature.places)

    def ring(feature: _Feature) -> tuple[Spot, ...]:
        points = spots(feature)
        points = points[:-1] if points[0] == points[-1] else points
        if abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise([*points, points[0]]))) < 2.0:
            raise feature.bad("it encloses less than a square metre")
        return points

    school, school_id = ring(kinds["school"][0]), kinds["school"][0].text("id")
    gates = [_gate(each, n, spots(each)[0], school, school_id) for n, each in enumerate(kinds["gate"], 1)]
    by_id = {gate.id: gate for gate in gates}
    poles = [_pole(each, spots(each)[0], by_id) for each in kinds["reader"]]
    homes = [(each.text("id"), spots(each)[0]) for each in kinds["home"]]
    dangers = [
        DangerPatch(each.text("id"), each.text("what"), ring(each), each.number("warn_m", 0, 200))
        for each in kinds["danger"]
    ]
    for kind, what, names in (
        ("reader", "number", [str(pole.number) for pole in poles]),
        ("gate", "id", [gate.id for gate in gates]),
        ("home", "id", [name for name, _ in homes]),
        ("danger", "id", [danger.id for danger in dangers]),
    ):
        for n, (name, each) in enumerate(zip(names, kinds[kind], strict=True)):
            if name in names[:n]:
                first = kinds[kind][names.index(name)].name
                raise each.bad(f"its {what} {printable(name, 40)} is given twice (first in {first}); each has its own")
    for each in kinds["building"]:
        ring(each)
    return Site(
        name=data["site"],
        attribution=data["attribution"],
        plane=plane,
        streets=tuple((each.text("class"), spots(each)) for each in kinds["street"]),
        crossings=tuple(spots(each)[0] for each in kinds["crossing"]),
        school_id=school_id,
        school=school,
        entrances=tuple(gates),
        dangers=tuple(dangers),
        poles=tuple(sorted(poles, key=lambda pole: pole.number)),
        homes=tuple(homes),
    )


def _gate(feature: _Feature, n: int, at: Spot, school: Sequence[Spot], school_id: str) -> Entrance:
    name, place = feature.text("id", f"gate{n}"), feature.text("place", school_id)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name):
        raise feature.bad(f"its id is {printable(repr(name), 40)}: 1 to 32 of A-Z a-z 0-9 _ -, a letter or digit first")
    if place != school_id:
        raise feature.bad(f"its place is {printable(repr(place), 40)}; the site's only place is {school_id}")
    inward = feature.bearing("inward_deg", inward_deg(at, school))
    return Entrance(name, place, at, inward, feature.number("width_m", 0.5, 40, WIDTH_M))


def _pole(feature: _Feature, at: Spot, gates: Mapping[str, Entrance]) -> Pole:
    gate, side = feature.properties.get("gate"), cast(Side | None, feature.one_of("side", "outer", "inner"))
    if gate is not None and (not isinstance(gate, str) or gate not in gates):
        raise feature.bad(f"its gate is {printable(repr(gate), 40)}; the gates are {', '.join(gates)}")
    if (gate is None) != (side is None):
        raise feature.bad("a gate reader has both gate and side (outer or inner); give both or neither")
    antenna = cast(Literal["dipole", "patch"], feature.one_of("antenna", "dipole", "patch") or "dipole")
    look = None
    if "look_deg" in feature.properties:
        look = feature.bearing("look_deg")
        if antenna == "dipole":
            raise feature.bad("it has look_deg, and a dipole hears all round; give antenna patch, or leave it out")
    elif antenna == "patch":
        if gate is None or side is None:
            raise feature.bad("it has a patch antenna; say where it looks: look_deg, degrees from north, clockwise")
        look = look_deg(gates[gate], side)
    return Pole(
        _reader_number(feature), feature.text("pole", ""), at, feature.number("height_m", 0.1, 30, 3.5),
        antenna, look, gate, side,
    )  # fmt: skip


def _reader_number(feature: _Feature) -> int:
    number = feature.number("number", 1, READER_MAX)
    if number != int(number):
        raise feature.bad(f"its number is {number:g}, and must be whole")
    return int(number)


def _gap_m(line: Sequence[Spot], spots: Sequence[Spot]) -> float:
    """The distance from a line to the nearest of the spots; infinite without spots or with a line of one point."""
    legs = list(pairwise(line))
    return min((math.dist(p, nearest_on_segment(p, a, b)) for p in spots for a, b in legs), default=math.inf)
