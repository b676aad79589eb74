"""A small site for the planner's tests: a square school, streets round it, homes, and gates where a test wants them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.zone import Plane

ORIGIN = Plane(127.0, 37.5)
SIDE_M = 80.0
"""The school is a square from (0, 0); the streets lie 8 m outside it."""
SOUTH = {"at": (40.0, 0.0), "id": "south", "inward_deg": 0.0, "width_m": 4.0}


def feature(kind: str, shape: str, points: Sequence[tuple[float, float]], **properties: Any) -> dict[str, Any]:
    places: Any = [list(ORIGIN.to_lonlat(*point)) for point in points]
    coordinates = places[0] if shape == "Point" else [places] if shape == "Polygon" else places
    return {
        "type": "Feature",
        "properties": {"kind": kind, **properties},
        "geometry": {"type": shape, "coordinates": coordinates},
    }


def gate(at: tuple[float, float], **properties: Any) -> dict[str, Any]:
    return feature("gate", "Point", [at], **properties)


def data(gates: Sequence[dict[str, Any]] = (SOUTH,), more: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return a site file with these gates (properties and `at`) and more features."""
    square = [(0.0, 0.0), (SIDE_M, 0.0), (SIDE_M, SIDE_M), (0.0, SIDE_M)]
    low, high = -8.0, SIDE_M + 8.0
    ring = [(low, low), (high, low), (high, high), (low, high), (low, low)]
    streets = [ring, [(40.0, low), (40.0, -150.0)], [(high, 40.0), (high + 140.0, 40.0)], [(low, low), (-150.0, low)]]
    homes = [(40.0, -146.0), (44.0, -100.0), (high + 130.0, 44.0), (-140.0, low - 4.0), (high + 4.0, high)]
    features = [
        *(feature("street", "LineString", line, **{"class": "residential"}) for line in streets),
        feature("school", "Polygon", [*square, square[0]], id="school"),
        feature("danger", "Polygon", [(-170, -40), (-160, -40), (-160, 40)], id="road", what="a road", warn_m=5),
        *(feature("gate", "Point", [each["at"]], **{k: v for k, v in each.items() if k != "at"}) for each in gates),
        *more,
        *(feature("home", "Point", [at], id=f"home{n}") for n, at in enumerate(homes)),
    ]
    return {"type": "FeatureCollection", "site": "try", "attribution": "(c) nobody", "features": features}


def written(folder: Path, **made: Any) -> Path:
    """Write a site file made by `data` and return its path."""
    path = folder / "site.geojson"
    path.write_text(json.dumps(data(**made)))
    return path
