"""The zone that a gateway watches: readers, places, danger areas, bells. `Zone` has degrees, `Field` metres."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
Latitude = Annotated[float, Meta(ge=-90, le=90)]
LonLat = tuple[Longitude, Latitude]
Polygon = Annotated[tuple[LonLat, ...], Meta(min_length=3, max_length=200)]
Line = Annotated[tuple[LonLat, ...], Meta(min_length=2, max_length=500)]
Bearing = Annotated[float, Meta(ge=0, lt=360)]
TagId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")]
"""A tag's pseudonym."""

EARTH_RADIUS_M = 6_371_008.8  # IUGG mean radius
FOOTPATHS_MAX, FOOTPATH_PIECES_MAX = 2000, 4000
"""Most lines of footpaths, and most straight pieces in all of them. A zone of 100 readers has about 300."""
FRAMES_A_S = 30
"""Routine frames a second for one coordinator: a third of what its radio channel and its serial line carry."""


class Reader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reader on its pole."""

    number: Annotated[int, Meta(ge=1, le=65534)]
    eui64: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    """16 hexadecimal digits, MSB first, lower case."""
    lon: Longitude
    lat: Latitude
    height_m: Annotated[float, Meta(gt=0, le=30)] = 3.5
    pole: str = ""
    """The name that technicians use for the pole."""
    antenna: Literal["dipole", "patch"] = "dipole"
    """A dipole hears all round; a patch hears best where it looks."""
    look_deg: Bearing | None = None
    """Where a patch looks: degrees from north, clockwise, as a compass shows it."""
    gate: Id | None = None
    """The gate that this reader guards, with `side`."""
    side: Literal["outer", "inner"] | None = None
    """Which side of its gate a gate reader looks to: outer to the street, inner to the yard."""
    scan_interval_ms: Annotated[int, Meta(ge=3, le=255)] | None = None
    scan_window_ms: Annotated[int, Meta(ge=3, le=255)] | None = None
    frames_per_min: Annotated[int, Meta(ge=6, le=600)] | None = None
    """This reader's own settings, interval and window together; None: those of the zone, or of a gate reader."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named place where a child can be."""

    id: Id
    kind: Literal["school", "academy", "playground", "home", "other"]
    polygon: Polygon


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An opening in the edge of a place, that children pass. All gates of a place share what is known of who is in."""

    id: Id
    place: Id
    lon: Longitude
    lat: Latitude
    inward_deg: Bearing
    """The direction in which one enters: degrees from north, clockwise."""
    width_m: Annotated[float, Meta(ge=0.5, le=40)] = 3.0


class DangerArea(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A river, a building site or a road. The alarm starts when a tag is within warn_m."""

    id: Id
    polygon: Polygon
    warn_m: Annotated[float, Meta(ge=0, le=200)] = 15.0


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way that was agreed with the guardians of some tags. A tag has one route at most."""

    id: Id
    line: Line
    corridor_m: Annotated[float, Meta(ge=5, le=200)] = 25.0
    """A tag this far from the line, to either side, is still on the route."""
    tags: Annotated[tuple[TagId, ...], Meta(max_length=10_000)] = ()


class Footpath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A way that people walk on. Ways that cross, touch or end at each other are connected."""

    line: Line


class BellInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bell wired to an input of a reader."""

    id: Id
    reader: Annotated[int, Meta(ge=1, le=65534)]
    input: Annotated[int, Meta(ge=0, le=7)] = 0


class ReaderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings for every reader of the zone. A reader takes them when `version` is newer than its own."""

    version: Annotated[int, Meta(ge=1, le=65535)] = 1
    """Increase it with every change."""
    window_ms: Annotated[int, Meta(ge=500, le=60000)] = 2000
    scan_interval_ms: Annotated[int, Meta(ge=3, le=255)] = 20
    scan_window_ms: Annotated[int, Meta(ge=3, le=255)] = 5
    """At most the interval. The reader scans for this part of each interval; the rest is left to the mesh. Of the same
    part, short windows lose fewer frames than long ones: a frame is tried four times in about 10 ms."""
    heartbeat_s: Annotated[int, Meta(ge=10, le=3600)] = 60
    frames_per_min: Annotated[int, Meta(ge=6, le=600)] | None = None
    """Routine frames a reader may send; None: its share of 30 a second for the zone. Emergencies are not counted."""
    company_id: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0xFFFF

    def __post_init__(self) -> None:
        if self.scan_window_ms > self.scan_interval_ms:
            raise ValueError(f"scan_window_ms {self.scan_window_ms} is over scan_interval_ms {self.scan_interval_ms}")


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All parts of a zone. Plain values, checked where the configuration is loaded."""

    readers: tuple[Reader, ...]
    places: tuple[Place, ...] = ()
    dangers: tuple[DangerArea, ...] = ()
    bells: tuple[BellInput, ...] = ()
    settings: ReaderSettings = ReaderSettings()
    routes: tuple[Route, ...] = ()
    footpaths: tuple[Footpath, ...] = ()
    gates: tuple[Gate, ...] = ()


class Plane:
    """Metres east (x) and north (y) of an origin, on a sphere: up to 0.4 % off the ellipsoid, the same everywhere."""

    def __init__(self, lon: float, lat: float) -> None:
        self.lon, self.lat = lon, lat
        self._m_per_degree = math.radians(1) * EARTH_RADIUS_M
        self._cos = math.cos(math.radians(lat))

    def to_xy_m(self, lon: float, lat: float) -> tuple[float, float]:
        return (lon - self.lon) * self._m_per_degree * self._cos, (lat - self.lat) * self._m_per_degree

    def to_lonlat(self, x_m: float, y_m: float) -> LonLat:
        return self.lon + x_m / (self._m_per_degree * self._cos), self.lat + y_m / self._m_per_degree


class Field:
    """The zone in metres, on a plane round the middle of its readers (or of the areas' corners if it has none)."""

    def __init__(self, zone: Zone) -> None:
        points: list[LonLat] = [(r.lon, r.lat) for r in zone.readers]
        areas = [p.polygon for p in zone.places] + [d.polygon for d in zone.dangers]
        points = points or [point for polygon in areas for point in polygon] or [(0.0, 0.0)]
        lon = sum(point[0] for point in points) / len(points)
        lat = sum(point[1] for point in points) / len(points)
        self.plane = Plane(lon, lat)
        self.readers = {r.number: (*self.plane.to_xy_m(r.lon, r.lat), r.height_m) for r in zone.readers}
        """Number -> (x, y, height), m."""
        self.dangers = frozenset(danger.id for danger in zone.dangers)


def direction(bearing_deg: float) -> tuple[float, float]:
    """Return a compass bearing as (east, north) of length 1."""
    return math.sin(math.radians(bearing_deg)), math.cos(math.radians(bearing_deg))


def offset_m(east_m: float, north_m: float, inward_deg: float) -> tuple[float, float]:
    """Return what lies so far east and north of a gate as metres (inwards, to the right of who enters)."""
    east, north = direction(inward_deg)
    return east_m * east + north_m * north, east_m * north - north_m * east


def distance_to_polygon_m(x_m: float, y_m: float, ring: Sequence[tuple[float, float]]) -> float:
    """Return the distance to a polygon in metres; 0 inside. ring: (x, y), open or closed, 3 points or more."""
    return max(0.0, -depth_m(x_m, y_m, ring))


def depth_m(x_m: float, y_m: float, ring: Sequence[tuple[float, float]]) -> float:
    """Return how far inside a polygon a point is: metres to the nearest edge, negative outside."""
    inside, nearest = False, math.inf
    x1, y1 = ring[-1]
    for x2, y2 in ring:
        if (y1 > y_m) != (y2 > y_m) and x_m < (x2 - x1) * (y_m - y1) / (y2 - y1) + x1:
            inside = not inside
        nearest = min(nearest, _to_segment_m(x_m, y_m, x1, y1, x2, y2))
        x1, y1 = x2, y2
    return nearest if inside else -nearest


def distance_to_line_m(x_m: float, y_m: float, line: Sequence[tuple[float, float]]) -> float:
    """Return the distance in metres to a line of straight pieces. line: (x, y), 2 points or more."""
    return min(_to_segment_m(x_m, y_m, *one, *other) for one, other in itertools.pairwise(line))


def _to_segment_m(x_m: float, y_m: float, x1: float, y1: float, x2: float, y2: float) -> float:
    dx, dy = x2 - x1, y2 - y1
    length2 = dx * dx + dy * dy
    t = max(0.0, min(1.0, ((x_m - x1) * dx + (y_m - y1) * dy) / length2)) if length2 else 0.0
    return math.hypot(x_m - x1 - t * dx, y_m - y1 - t * dy)
