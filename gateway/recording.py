"""What was recorded at a site: readers, a walk test, tracks. Plain values; `gateway.survey.read` reads and writes them.

Lengths in metres in a local right-handed frame (x east, y north where the site has a map), times in seconds, levels in
dBm, headings in degrees counter-clockwise from +x. `reader` is everywhere a row of `RecordedSite.reader_ids`.
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
    """A law of the kind of device: mean level = p0_dbm - 10 exponent log10(metres), spread sigma_db about it."""

    p0_dbm: float
    exponent: float
    sigma_db: float


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A named place of a zone, or a danger area of it."""

    id: str
    ring_m: Floats
    """(corners, 2)"""
    warn_m: float = 0.0
    """Of a danger area: the alarm comes so far from it already."""


@dataclass(frozen=True, slots=True)
class RecordedSite:
    """Where the readers of a recording are, and what its tags are like."""

    name: str
    bounds_m: tuple[float, float, float, float]
    """x0, y0, x1, y1: nothing was recorded outside."""
    reader_ids: tuple[str, ...]
    readers_m: Floats
    """(readers, 3): x, y and height."""
    worn: Worn = "body"
    tag_height_m: float = 1.0
    tag_power_dbm: float | None = None
    """The tag's own calibrated level at 1 m, where its advertisements say it."""
    radio: RadioKind = "ble"
    channel: DeviceLaw | None = None
    """Where there is no walk test, what is known of the devices."""
    seen_tracks: tuple[str, ...] = ()
    """Tracks that are part of the walk test as well: their errors flatter."""
    footpaths: tuple[Floats, ...] = ()
    """Lines of footpaths, (corners, 2) each; none: open ground."""
    places: tuple[Area, ...] | None = None
    dangers: tuple[Area, ...] | None = None
    """Of the zone a gateway watched; None: nobody says."""
    origin_lonlat: tuple[float, float] | None = None
    """Degrees of x = y = 0, where the site lies on the map with x east and y north."""
    notes: tuple[str, ...] = ()
    """What the file left open or had wrong, and what was taken instead."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A walk test: `count` readings at a place had (on average) this level. All arrays have one entry a row."""

    xy_m: Floats
    """(rows, 2)"""
    heading_deg: Floats
    """The way of walking, which the wearer of a tag faces; NaN: unknown, or the tag was still."""
    reader: Ints
    rssi_dbm: Floats
    count: Floats
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows of the files that could not be used, by reason."""

    def __len__(self) -> int:
        return len(self.reader)

    @classmethod
    def empty(cls) -> "Survey":
        """Return a walk test nobody has made."""
        nothing = np.zeros(0)
        return cls(np.zeros((0, 2)), nothing, np.zeros(0, dtype=np.int64), nothing, nothing)


@dataclass(frozen=True, slots=True)
class Track:
    """One tag on its way. Sightings are in the order of time, and every value in them is finite."""

    name: str
    t_s: Floats
    reader: Ints
    rssi_dbm: Floats
    truth_t_s: Floats | None = None
    """Strictly increasing, with `truth_xy_m` (rows, 2); straight and even in between."""
    truth_xy_m: Floats | None = None
    path_xy_m: Floats | None = None
    """(corners, 2) of the line walked, where the times are not known."""
    packets: Ints | None = None
    """Readings behind each sighting, whose level is their mean or newest; None: one each."""
    power_dbm: float | None = None
    """This tag's own calibrated level at 1 m; None: the site's."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Rows of the files that could not be used, by reason."""


class TimedFix(NamedTuple):
    """Where a tag was at t_s. The radii are claimed to hold the truth 50 and 90 times in 100."""

    t_s: float
    x_m: float
    y_m: float
    r50_m: float
    r90_m: float
    lag_s: float = 0.0
    """0: only what was heard up to t_s; else what was heard up to t_s + lag_s."""


def moved(xy_m: Floats, there: Plane, here: Plane) -> Floats:
    """Return points (points, 2) of one plane on another."""
    return np.array([here.to_xy_m(*there.to_lonlat(float(x), float(y))) for x, y in xy_m]).reshape(-1, 2)
