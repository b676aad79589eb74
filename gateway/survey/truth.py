"""Where and when a person walked: points tapped on a plan or a map, or a GPS track, as text files.

    t_s,x_m,y_m              tapped: seconds of the recording, metres of the site
    t_s,lon,lat              tapped on a map; the site must have an origin
    time,lon,lat,accuracy_m  GPS: ISO 8601 or unix seconds; accuracy_m or hdop; smoothed
    NAME.gpx                 GPS, GPX 1.0 or 1.1

Times from 1e9 on are unix seconds; for them the start of the recording must be known.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from gateway.recording import Floats, RecordedSite
from gateway.survey.read import fields, number, text_of
from gateway.survey.write import RecordingError
from gateway.zone import Plane

POINTS_MAX = 200_000
UNIX_MIN_S = 1e9
HDOP_M = 4.0
"""Metres for an hdop of 1: the user range error of a telephone under an open sky."""
ACCURACY_M, ACCURACY_MAX_M = 6.0, 12.0
"""The accuracy used if none is given; a point with a worse accuracy than the second is left out."""
SMOOTH_S = 4.0
GAP_TAPPED_S, GAP_GPS_S = 90.0, 15.0
"""Between two points further apart in time, the walker's position is not known."""
_TIME, _LON, _LAT = ("t_s", "time", "timestamp", "utc"), ("lon", "lng", "longitude"), ("lat", "latitude")
_ACCURACY, _HDOP = ("accuracy_m", "accuracy"), ("hdop",)


@dataclass(frozen=True, slots=True)
class TrueWalk:
    """Where a walker was. Times are of the recording and strictly increasing; between points the walk is straight and
    even."""

    t_s: Floats
    xy_m: Floats
    gap_s: float
    source: str
    skipped: dict[str, int]

    def at(self, t_s: Floats) -> tuple[Floats, Floats]:
        """Return position and velocity (m/s) of the walker, (times, 2) each; NaN where they are not known."""
        if len(self.t_s) < 2:
            return np.full((len(t_s), 2), np.nan), np.full((len(t_s), 2), np.nan)
        right = np.clip(np.searchsorted(self.t_s, t_s, side="right"), 1, len(self.t_s) - 1)
        t0, t1 = self.t_s[right - 1], self.t_s[right]
        known = (t_s >= t0) & (t_s <= t1) & (t1 - t0 <= self.gap_s)
        velocity = (self.xy_m[right] - self.xy_m[right - 1]) / (t1 - t0)[:, None]
        where = self.xy_m[right - 1] + velocity * (t_s - t0)[:, None]
        return np.where(known[:, None], where, np.nan), np.where(known[:, None], velocity, np.nan)


def load_walk(path: Path, site: RecordedSite, start_utc_s: float | None) -> TrueWalk:
    """Return a walk. start_utc_s: the time when the recording's t_s was 0. Raises RecordingError."""
    skipped: Counter[str] = Counter()
    text = text_of(path, "name the file of tapped points, or the GPX file")
    gpx = path.suffix.lower() == ".gpx" or text.lstrip()[:5] == "<?xml" or "<gpx" in text[:1000]
    rows, gps, on_map = _of_gpx(path, text, skipped) if gpx else _of_csv(path, text, skipped)
    table = np.array(rows[:POINTS_MAX], dtype=float).reshape(-1, 4)
    skipped["beyond the limit"] += max(0, len(rows) - POINTS_MAX)
    if on_map:
        if site.origin_lonlat is None:
            what = "the points are degrees, and site.json has no origin"
            raise RecordingError(path, 0, what, 'give the site "origin": {"lon": .., "lat": ..}, or points in metres')
        plane = Plane(*site.origin_lonlat)
        table[:, 1:3] = np.array([plane.to_xy_m(*point) for point in table[:, 1:3].tolist()]).reshape(-1, 2)
    unix = table[:, 0] >= UNIX_MIN_S
    if unix.any():
        if start_utc_s is None:
            what = "its times are dates, and nobody knows when the recording began"
            raise RecordingError(path, 0, what, "give --start, the date and time (UTC) at which t_s was 0")
        table[unix, 0] -= start_utc_s
    good = np.isnan(table[:, 3]) | (table[:, 3] <= ACCURACY_MAX_M)
    skipped[f"GPS worse than {ACCURACY_MAX_M:.0f} m"] += int((~good).sum())
    table = table[good]
    table = table[np.argsort(table[:, 0], kind="stable")]
    table = table[np.append(np.diff(table[:, 0]) > 0, True)] if len(table) else table
    if len(table) < 2:
        why = ", ".join(f"{n} {reason}" for reason, n in skipped.items() if n)
        raise RecordingError(path, 0, f"fewer than two usable points ({why or 'empty'})", "look at its columns")
    xy_m = _smoothed(table) if gps else table[:, 1:3].copy()
    left_out = {reason: n for reason, n in skipped.items() if n}
    return TrueWalk(table[:, 0].copy(), xy_m, GAP_GPS_S if gps else GAP_TAPPED_S, "GPS" if gps else "tapped", left_out)


def _of_csv(path: Path, text: str, skipped: Counter[str]) -> tuple[list[list[float]], bool, bool]:
    lines = text.splitlines()
    header = [name.strip().lower() for name in fields(lines[0])] if lines else []

    if twice := [name for name in (*_TIME, *_LON, *_LAT, "x_m", "y_m") if header.count(name) > 1]:
        raise RecordingError(path, 1, f"the column {twice[0]} is there twice", "keep one of them")

    def place(names: tuple[str, ...]) -> int:
        return next((header.index(name) for name in names if name in header), -1)

    time, x, y, on_map = place(_TIME), place(("x_m",)), place(("y_m",)), False
    if x < 0 or y < 0:
        x, y, on_map = place(_LON), place(_LAT), True
    if min(time, x, y) < 0:
        raise RecordingError(path, 1, "no time and place", "its first line must be t_s,x_m,y_m or t_s,lon,lat")
    accuracy, hdop = place(_ACCURACY), place(_HDOP)
    rows = []
    for line in lines[1:]:
        found = [text.strip() for text in fields(line)]
        if not line.strip():
            continue
        if len(found) <= max(time, x, y):
            skipped["row too short"] += 1
            continue
        t_s, x_m, y_m = _moment(found[time]), number(found[x]), number(found[y])
        if t_s is None or x_m is None or y_m is None or (on_map and not (abs(x_m) <= 180 and abs(y_m) <= 90)):
            exchanged = x_m is not None and y_m is not None and abs(x_m) <= 90 < abs(y_m) <= 180
            skipped["with lon and lat exchanged" if on_map and exchanged else "no time or place"] += 1
            continue
        rows.append([t_s, x_m, y_m, _accuracy_m(found, accuracy, hdop)])
    return rows, accuracy >= 0 or hdop >= 0, on_map


def _accuracy_m(found: list[str], accuracy: int, hdop: int) -> float:
    for place, factor in ((accuracy, 1.0), (hdop, HDOP_M)):
        value = number(found[place]) if 0 <= place < len(found) else None
        if value is not None and value > 0:
            return value * factor
    return math.nan


def _of_gpx(path: Path, text: str, skipped: Counter[str]) -> tuple[list[list[float]], bool, bool]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RecordingError(path, error.position[0], f"not XML there ({error})", "export the track again") from None
    rows = []
    for point in root.iter():
        if point.tag.rpartition("}")[2] not in ("trkpt", "wpt"):
            continue
        inner = {child.tag.rpartition("}")[2]: child.text or "" for child in point.iter()}
        t_s, lon, lat = _moment(inner.get("time", "")), number(point.get("lon")), number(point.get("lat"))
        if t_s is None or lon is None or lat is None or abs(lon) > 180 or abs(lat) > 90:
            skipped["no time or place"] += 1
            continue
        rows.append([t_s, lon, lat, _accuracy_m([inner.get("accuracy", ""), inner.get("hdop", "")], 0, 1)])
    return rows, True, True


def _moment(text: str) -> float | None:
    """Return seconds of the recording or unix seconds, from a number or a date and time (UTC if without zone)."""
    plain = number(text)
    if plain is not None:
        return plain if abs(plain) <= 1e11 else plain / 1000  # unix milliseconds of a telephone
    if not re.match(r"\d{4}-\d\d-\d\dT", text.strip()):
        return None
    return moment_of(text)


def moment_of(text: str) -> float | None:
    """Return the unix seconds of an ISO 8601 date and time (UTC if it has no time zone), or None."""
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _smoothed(table: Floats) -> Floats:
    """Smooth each point by a straight line through its neighbours in time, weighted by time distance and accuracy."""
    t_s, xy_m = table[:, 0], table[:, 1:3]
    weight = 1 / np.where(np.isnan(table[:, 3]), ACCURACY_M, np.maximum(table[:, 3], 1.0)) ** 2
    smooth: Floats = xy_m.copy()
    first, last = np.searchsorted(t_s, t_s - 3 * SMOOTH_S), np.searchsorted(t_s, t_s + 3 * SMOOTH_S, side="right")
    for n, (start, end) in enumerate(zip(first, last, strict=True)):
        away = t_s[start:end] - t_s[n]
        w = weight[start:end] * np.exp(-0.5 * (away / SMOOTH_S) ** 2)
        total, mean = w.sum(), (w * away).sum() / w.sum()
        middle = (w[:, None] * xy_m[start:end]).sum(axis=0) / total
        spread = (w * (away - mean) ** 2).sum()
        slope = (w[:, None] * (away - mean)[:, None] * (xy_m[start:end] - middle)).sum(axis=0) / max(spread, 1e-9)
        smooth[n] = middle - slope * mean
    return smooth
