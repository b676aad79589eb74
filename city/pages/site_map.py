"""Reads the site's map for the page. What a browser could not draw is left out, and said: file, feature, fault."""

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

DRAWN: dict[str, tuple[str, ...]] = {
    "street": ("LineString", "MultiLineString"),
    "building": ("Polygon", "MultiPolygon"),
    "school": ("Polygon", "MultiPolygon"),
    "danger": ("Polygon", "MultiPolygon"),
    "reader": ("Point",),
    "gate": ("Point",),
    "crossing": ("Point",),
}
"""Kinds of features that are drawn, with their geometries. Homes are not drawn: dispatchers do not need them."""
TOLD = ("kind", "number", "id", "what", "class")
"""Properties that the page gets."""
FILE_MAX_B = 16 * 1024 * 1024
FAULTS_MAX = 50
"""Faults that are said one by one; the others are counted."""
FAR_DEG = 0.5
"""Degrees, some 50 km. A feature farther from the middle of the others is not of this site: the map would show both,
and nothing of either."""
_DEPTH = {"Point": 0, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}
_LEAST = {"LineString": 2, "MultiLineString": 2, "Polygon": 4, "MultiPolygon": 4}


class SiteMap(msgspec.Struct, frozen=True):
    """The map as the page gets it, and what is wrong with the file."""

    site: dict[str, Any]
    """A GeoJSON FeatureCollection; `left_out` says what is not in it."""
    faults: tuple[str, ...]
    """Each names file, feature, what is wrong, and what would be right. Empty: the file is good."""


class _Wrong(ValueError):
    pass


def read_map(path: Path) -> SiteMap:
    """Return what can be drawn of the site's GeoJSON file. Never raises: no map keeps the city from starting."""
    try:
        collection = _collection(path)
        attribution = collection.get("attribution")
        if not isinstance(attribution, str) or not attribution.strip():
            raise _Wrong('it names no source of the map; right would be "attribution": "© OpenStreetMap contributors"')
        features = collection.get("features")
        if not isinstance(features, list):
            raise _Wrong('it has no list of features; right would be {"type": "FeatureCollection", "features": [...]}')
    except (OSError, _Wrong) as error:
        fault = f"map {path}: {error}"
        empty: dict[str, Any] = {"type": "FeatureCollection", "attribution": "", "features": []}
        return SiteMap(empty | {"left_out": [fault.replace(str(path), path.name)]}, (fault,))
    drawn: dict[int, dict[str, Any]] = {}
    faults: list[str] = []
    numbers: dict[int, int] = {}
    for index, feature in enumerate(features):
        try:
            taken = _feature(feature)
            if taken is not None:
                number = taken["properties"].get("number")
                if taken["properties"]["kind"] == "reader" and numbers.setdefault(number, index) != index:
                    raise _Wrong(f"feature {numbers[number]} has this number too; right would be one feature a reader")
                drawn[index] = taken
        except _Wrong as error:
            faults.append(f"{_name(feature, index)}: {error}")
    for index in _far(drawn):
        faults.append(
            f"{_name(drawn.pop(index), index)}: it is far from all others; right would be a place of this site"
        )
    said = faults[:FAULTS_MAX] + ([f"{len(faults) - FAULTS_MAX} more"] if len(faults) > FAULTS_MAX else [])
    site = {
        "type": "FeatureCollection",
        "attribution": _printable(attribution),
        "features": list(drawn.values()),
        "left_out": said,
    }
    return SiteMap(site, tuple(f"map {path}: {fault}" for fault in said))


def _collection(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    if len(raw) > FILE_MAX_B:
        raise _Wrong(
            f"it has {len(raw)} bytes; right would be at most {FILE_MAX_B}: leave out what is not of this site"
        )
    try:
        found = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once)
    except _Wrong:
        raise
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"it is not JSON: {error}; right would be a GeoJSON FeatureCollection in UTF-8") from None
    if not isinstance(found, dict):
        raise _Wrong("it is not a JSON object; right would be a GeoJSON FeatureCollection")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Wrong(f'an object has the key "{twice}" twice; right would be once')
    return found


def _feature(feature: Any) -> dict[str, Any] | None:
    """Return a feature with what the page draws; None if its kind is not drawn."""
    if not isinstance(feature, dict):
        raise _Wrong('it is not an object; right would be {"type": "Feature", "properties": {...}, "geometry": {...}}')
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        raise _Wrong(
            f'"properties" is {_shown(properties)}; right would be {{"kind": ...}} with one of {", ".join(DRAWN)}'
        )
    kind = properties.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise _Wrong(f'"kind" is {_shown(kind)}; right would be one of {", ".join(DRAWN)}')
    if kind not in DRAWN:
        return None
    if kind == "reader":
        number = properties.get("number")
        if type(number) is not int or number < 1:
            raise _Wrong(f'"number" is {_shown(number)}; right would be a whole number from 1, without quotation marks')
    geometry = feature.get("geometry")
    shape = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or shape not in DRAWN[kind]:
        raise _Wrong(f"its geometry is {_shown(shape or geometry)}; right for a {kind} is {' or '.join(DRAWN[kind])}")
    coordinates = _places(geometry.get("coordinates"), _DEPTH[shape], _LEAST.get(shape, 1))
    told = {key: _told(properties[key]) for key in TOLD if isinstance(properties.get(key), (str, int))}
    return {"type": "Feature", "properties": told, "geometry": {"type": shape, "coordinates": coordinates}}


def _told(value: str | int) -> str | int:
    return _plain(value) if isinstance(value, str) else value


def _places(value: Any, depth: int, least: int) -> list[Any]:
    """Return coordinates without altitudes. depth: lists round one place."""
    if not isinstance(value, list) or not value:
        raise _Wrong(f"its coordinates are {_shown(value)}; right would be [longitude, latitude] in degrees")
    if depth == 0:
        return _place(value)
    if depth == 1 and len(value) < least:
        raise _Wrong(f"a line of it has {len(value)} place(s); right would be {least} or more")
    return [_places(each, depth - 1, least) for each in value]


def _place(value: list[Any]) -> list[float]:
    if len(value) < 2 or not all(type(each) in (int, float) for each in value):
        raise _Wrong(f"its coordinates have {_shown(value)}; right would be two numbers, without quotation marks")
    lon, lat = value[:2]
    if not all(math.isfinite(each) for each in value if isinstance(each, float)):
        raise _Wrong(f"its coordinates have {_shown(value)}; right would be two finite numbers")
    if abs(lon) > 180 and abs(lat) > 90:
        raise _Wrong(
            f"its coordinates {_shown(value)} are metres (EPSG:5179?), not degrees; "
            "right would be an export in WGS 84 (EPSG:4326)"
        )
    if abs(lat) > 90 and abs(lon) <= 90:
        raise _Wrong(f"its coordinates {_shown(value)} are latitude first; right would be [longitude, latitude]")
    if abs(lon) > 180 or abs(lat) > 90:
        raise _Wrong(
            f"its coordinates {_shown(value)} are no place on earth; right would be degrees, [longitude, latitude]"
        )
    return [float(lon), float(lat)]


def _far(features: dict[int, dict[str, Any]]) -> list[int]:
    firsts = [next(_flat(feature["geometry"]["coordinates"])) for feature in features.values()]
    if not firsts:
        return []
    lon, lat = (statistics.median(place[axis] for place in firsts) for axis in (0, 1))

    def is_far(feature: dict[str, Any]) -> bool:
        return any(
            max(abs(at[0] - lon), abs(at[1] - lat)) > FAR_DEG for at in _flat(feature["geometry"]["coordinates"])
        )

    return [index for index, feature in features.items() if is_far(feature)]


def _flat(coordinates: list[Any]) -> Iterator[list[float]]:
    if isinstance(coordinates[0], list):
        for each in coordinates:
            yield from _flat(each)
    else:
        yield coordinates


def _name(feature: Any, index: int) -> str:
    """Return `feature 12 (reader 5)`."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict) or not isinstance(properties.get("kind"), str):
        return f"feature {index}"
    name = properties.get("number", properties.get("id", ""))
    return f"feature {index} ({_plain(properties['kind'])}{f' {_plain(str(name))}' if name != '' else ''})"


def _shown(value: Any) -> str:
    try:
        return _plain(json.dumps(value, ensure_ascii=False))
    except (RecursionError, ValueError):  # deeply nested, or a number of thousands of digits
        return f"a {type(value).__name__}"


def _plain(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:1000])
