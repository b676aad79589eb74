"""A recorded site: readers, a walk test, tracks. Plain values; `gateway.survey` reads and writes their files.

Lengths are in metres in a local right-handed frame (x east, y north where the site has a map), times in seconds, levels
in dBm, headings in degrees counter-clockwise from +x. `reader` is always a row of `RecordedSite.reader_ids`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.zone import Plane

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Worn = Literal["body", "rig", "static"]
RadioKind = Literal["ble", "802.15.4"]


@dataclass(frozen=True, slots=True)
class DeviceLaw:
    """How the level of a kind of device falls: mean = p0_dbm - 10 exponent log10(metres), with spread sigma_db."""

    p0_dbm: float
    exponent: float
    sigma_db: float


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A named place or a danger area of a zone."""

    id: str
    ring_m: Floats
    """(corners, 2)"""
    warn_m: float = 0.0
    """For a danger area: the alarm starts at this distance from it."""


@dataclass(frozen=True, slots=True)
class RecordedGate:
    """An opening in the outline of a place of a recorded zone."""

    id: str
    place: str
    at_m: tuple[float, float]
    inward_deg: float
    """The direction in which one enters, like a heading."""
    width_m: float = 3.0


@dataclass(frozen=True, slots=True)
class RecordedSite:
    """Where the readers of a recording are, and what is known of its tags."""

    name: str
    bounds_m: tuple[float, float, float, float]
    """x0, y0, x1, y1. Nothing was recorded outside of it."""
    reader_ids: tuple[str, ...]
    readers_m: Floats
    """(readers, 3): x, y and height."""
    worn: Worn = "body"
    tag_height_m: float = 1.0
    tag_power_dbm: float | None = None
    """The calibrated level at 1 m that the tags state in their advertisements; None: they do not."""
    radio: RadioKind = "ble"
    channel: DeviceLaw | None = None
    """What is known of the devices, for a site without a walk test."""
    seen_tracks: tuple[str, ...] = ()
    """Tracks that are also part of the walk test: their errors come out too small."""
    footpaths: tuple[Floats, ...] = ()
    """Lines of footpaths, (corners, 2) each. Empty: open ground."""
    places: tuple[Area, ...] | None = None
    dangers: tuple[Area, ...] | None = None
    """`places` and `dangers` of the zone that a gateway watched; None: not recorded."""
    gates: tuple[RecordedGate, ...] = ()
    look: Floats | None = None
    """(readers,): where each reader's antenna looks (`gateway.antenna`); None: all are dipoles."""
    guards: tuple[tuple[str, Literal["outer", "inner"]] | None, ...] = ()
    """The gate that each reader guards, and its side; None: it guards none. Empty: no reader does."""
    origin_lonlat: tuple[float, float] | None = None
    """Longitude and latitude of x = y = 0, if the site is on the map with x east and y north."""
    notes: tuple[str, ...] = ()
    """What is missing or wrong in the file, and what is used instead."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A walk test: `count` readings at one point had this mean level. All arrays have one entry for each row."""

    xy_m: Floats
    """(rows, 2)"""
    heading_deg: Floats
    """Direction of walking, which is where the wearer faces. NaN: unknown, or the tag was still."""
    reader: Ints
    rssi_dbm: Floats
    count: Floats
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows in the files that could not be used, by reason."""

    def __len__(self) -> int:
        return len(self.reader)

    @classmethod
    def empty(cls) -> "Survey":
        """Return a walk test without rows."""
        nothing = np.zeros(0)
        return cls(np.zeros((0, 2)), nothing, np.zeros(0, dtype=np.int64), nothing, nothing)


@dataclass(frozen=True, slots=True)
class Track:
    """The sightings of one tag on its way, in the order of time. Every value in them is finite."""

    name: str
    t_s: Floats
    reader: Ints
    rssi_dbm: Floats
    truth_t_s: Floats | None = None
    """Times of `truth_xy_m` (rows, 2), strictly increasing. Between two rows the tag moves straight and evenly."""
    truth_xy_m: Floats | None = None
    path_xy_m: Floats | None = None
    """(corners, 2): the line that was walked, where its times are not known."""
    packets: Ints | None = None
    """Readings behind each sighting, whose level is their mean or the newest one; None: one each."""
    power_dbm: float | None = None
    """This tag's own calibrated level at 1 m; None: use the site's."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows in the files that could not be used, by reason."""


class TimedFix(NamedTuple):
    """Where a tag was at t_s. The radii should hold the true position 50 and 90 times in 100."""

    t_s: float
    x_m: float
    y_m: float
    r50_m: float
    r90_m: float
    lag_s: float = 0.0
    """0: uses only what was heard up to t_s. Otherwise: what was heard up to t_s + lag_s."""


def moved(xy_m: Floats, there: Plane, here: Plane) -> Floats:
    """Return the points (points, 2) of plane `there` as points of plane `here`."""
    return np.array([here.to_xy_m(*there.to_lonlat(float(x), float(y))) for x, y in xy_m]).reshape(-1, 2)
