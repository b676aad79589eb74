"""Recorded sites on disk: site.json, calibration/*.csv, tracks/NAME.sightings.csv with NAME.truth.csv or NAME.path.csv.

The code is tolerant where a recording may be poor (an unusable row is left out and counted by its reason), and strict
where nothing sensible could be done (`RecordingError`). What it returns is finite, in order of time, and bounded, so
that no file can surprise the code that uses it. `docs/GATEWAY.md` describes the format.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gateway.recording import Area, DeviceLaw, Floats, RecordedGate, RecordedSite, Survey, Track
from gateway.survey.write import (
    INFO,
    PACKETS,
    PATH,
    SIGHTINGS,
    SURVEY,
    TRUTH,
    RecordingError,
    json_object,
    turned_deg,
)
from readers.files import BadFile, bytes_of

FILE_MAX_B = 1 << 30
ROWS_MAX = 5_000_000
"""Rows read from one file; the rest is left out and counted. A day of 40 tags at one reading a second has 3.5 million
rows."""
READERS_MAX = 1000
SPAN_MAX_M = 20_000.0
"""No two readers of one zone are further apart along an axis; more means degrees, millimetres or a typing error."""
FOOTPATHS_MAX, FOOTPATH_PIECES_MAX = 2000, 4000
"""Footpath lines at most, and straight pieces of all lines together."""
AREAS_MAX, CORNERS_MAX = 2000, 200
"""Places or danger areas at most, and corners of one of them: a gateway takes no more corners."""
WARN_M, WARN_MAX_M = 15.0, 200.0
"""Warning distance of a danger area: the default and the maximum of a gateway's configuration."""
GATE_M, GATE_MAX_M = 3.0, 40.0
"""Width of a gate: the default and the maximum of a gateway's configuration."""
SPAN_MAX_S = 7 * 86400.0
"""A sighting further than this from the median time of its track has a wrong clock."""
RSSI_MIN_DBM, RSSI_MAX_DBM = -127.0, 20.0
"""The range a radio can report: Bluetooth Core 5.4, vol. 4 part E, 7.7.65.2. There, 127 means "not known"."""
PACKETS_MAX = 1000.0
HEIGHT_READER_M, HEIGHT_TAG_M, MARGIN_M = 2.5, 1.0, 5.0
"""Used if site.json has no z_m, no height_m, no bounds (then the bounds are the readers' box and this margin)."""


def load_site(folder: Path) -> RecordedSite:
    """Return the site of a folder. Raises RecordingError; `RecordedSite.notes` says what was left out or assumed."""
    path = folder / "site.json"
    raw = json_object(path, "a recorded site is a folder with a site.json")
    notes: list[str] = []
    ids, readers = _readers(path, raw.get("readers"), notes)
    tag = raw.get("tag")
    tag = tag if isinstance(tag, dict) else {}
    height_m = number(tag.get("height_m"))
    if height_m is None or not 0 <= height_m <= 100:
        notes.append(f"no height of the tag: {HEIGHT_TAG_M} m taken")
        height_m = HEIGHT_TAG_M
    seen = raw.get("seen_tracks")
    places = _areas(path, "places", raw.get("places"))
    gates = _gates(path, raw.get("gates"), places or ())
    return RecordedSite(
        name=str(raw.get("name") or folder.resolve().name)[:200],
        bounds_m=_bounds(raw.get("bounds"), readers, notes),
        reader_ids=ids,
        readers_m=readers,
        worn=_one_of(tag.get("worn"), ("body", "rig", "static"), "how the tag was worn", notes),
        tag_height_m=height_m,
        tag_power_dbm=_power(tag.get("power_dbm")),
        radio=_one_of(raw.get("radio"), ("ble", "802.15.4"), "the radio", notes),
        channel=_channel(raw.get("channel"), notes),
        seen_tracks=tuple(str(name) for name in seen) if isinstance(seen, list) else (),
        footpaths=_footpaths(raw.get("footpaths"), notes),
        places=places,
        dangers=_areas(path, "dangers", raw.get("dangers")),
        gates=gates,
        look=_look(path, raw["readers"]),
        guards=_guards(raw["readers"], gates, notes),
        origin_lonlat=_origin(raw.get("origin"), notes),
        notes=tuple(notes),
    )


def _power(raw: Any) -> float | None:
    power_dbm = number(raw)
    return power_dbm if power_dbm is not None and RSSI_MIN_DBM <= power_dbm <= RSSI_MAX_DBM else None


def _footpaths(raw: Any, notes: list[str]) -> tuple[Floats, ...]:
    """Return lines of [x, y]. What is not a line, or is over the limits, is left out and noted."""
    lines: list[Floats] = []
    pieces = wrong = more = 0
    for line in raw if isinstance(raw, list) else []:
        points = [_point(each) for each in line] if isinstance(line, list) else []
        known = [point for point in points if point is not None]
        if len(known) < 2 or len(known) < len(points):
            wrong += 1
        elif len(lines) == FOOTPATHS_MAX or pieces + len(known) - 1 > FOOTPATH_PIECES_MAX:
            more += 1
        else:
            lines.append(np.array(known, dtype=float))
            pieces += len(known) - 1
    if wrong:
        notes.append(f"{wrong} footpaths that are no line of [x, y] were left out")
    if more:
        notes.append(f"{more} footpaths over {FOOTPATHS_MAX} lines or {FOOTPATH_PIECES_MAX} pieces were left out")
    return tuple(lines)


def _areas(path: Path, key: str, raw: Any) -> tuple[Area, ...] | None:
    """Refuse what is not an area: without it the ground would be different, and no one would notice."""
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) > AREAS_MAX:
        raise RecordingError(path, 0, f"{key}: not a list of at most {AREAS_MAX}", "give each its id and polygon")
    areas: dict[str, Area] = {}
    for n, row in enumerate(raw, 1):
        row = row if isinstance(row, dict) else {}
        name, corners, warn = row.get("id"), row.get("polygon"), row.get("warn_m", WARN_M)
        if not isinstance(name, str) or not name.strip() or name in areas:
            raise RecordingError(path, 0, f"{key}, entry {n}: no id of its own", 'like "id": "school", each once')
        points = [_point(corner) for corner in corners] if isinstance(corners, list) else []
        ring = [point for point in points if point is not None]
        if len(ring) < len(points) or not 3 <= len(set(ring)) <= len(ring) <= CORNERS_MAX:
            raise RecordingError(
                path, 0, f"{key}, entry {n} ({name[:60]!r}): its polygon is not 3 to {CORNERS_MAX} corners [x, y]",
                "in the site's metres, like [[0, 0], [40, 0], [40, 30]]",
            )  # fmt: skip
        warn_m = number(warn)
        if key == "dangers" and (warn_m is None or not 0 <= warn_m <= WARN_MAX_M):
            raise RecordingError(
                path, 0, f"{key}, entry {n} ({name[:60]!r}): warn_m is not 0 to {WARN_MAX_M:.0f} metres",
                f"leave it out for {WARN_M:.0f}",
            )  # fmt: skip
        areas[name] = Area(name, np.array(ring, dtype=float), warn_m or 0.0 if key == "dangers" else 0.0)
    return tuple(areas.values())


def _gates(path: Path, raw: Any, places: tuple[Area, ...]) -> tuple[RecordedGate, ...]:
    """Refuse what is not a gate: without it the wall would have no door there, and no one would notice."""
    if raw is None:
        return ()
    if not isinstance(raw, list) or len(raw) > AREAS_MAX:
        raise RecordingError(path, 0, f"gates: not a list of at most {AREAS_MAX}", "give each its id, place, x_m, y_m")
    gates: dict[str, RecordedGate] = {}
    for n, row in enumerate(raw, 1):
        row = row if isinstance(row, dict) else {}
        name, place = row.get("id"), row.get("place")
        at = _point([row.get("x_m"), row.get("y_m")])
        inward_deg, width_m = number(row.get("inward_deg")), number(row.get("width_m", GATE_M))
        if not isinstance(name, str) or not name.strip() or name in gates:
            raise RecordingError(path, 0, f"gates, entry {n}: no id of its own", 'like "id": "main", each once')
        if place not in [area.id for area in places]:
            what, right = "its place is not in this file", "name one of places"
        elif at is None:
            what, right = "no x_m and y_m", "give them in the site's metres"
        elif inward_deg is None or not 0 <= inward_deg < 360:
            what, right = "inward_deg is not 0 to below 360", "the compass bearing at which one enters"
        elif width_m is None or not 0 < width_m <= GATE_MAX_M:
            what, right = f"width_m is not 0 to {GATE_MAX_M:.0f} metres", f"leave it out for {GATE_M:.0f}"
        else:
            gates[name] = RecordedGate(name, str(place), at, turned_deg(inward_deg), width_m)
            continue
        raise RecordingError(path, 0, f"gates, entry {n} ({name[:60]!r}): {what}", right)
    return tuple(gates.values())


def _guards(
    rows: list[dict[str, Any]], gates: tuple[RecordedGate, ...], notes: list[str]
) -> tuple[tuple[str, Literal["outer", "inner"]] | None, ...]:
    known = {gate.id for gate in gates}
    guards: list[tuple[str, Literal["outer", "inner"]] | None] = []
    for row in rows:
        gate, side = row.get("gate"), row.get("side")
        guards.append((gate, side) if isinstance(gate, str) and gate in known and side in ("outer", "inner") else None)
    said = sum(row.get("gate") is not None or row.get("side") is not None for row in rows)
    if unknown := said - sum(guard is not None for guard in guards):
        notes.append(f"{unknown} readers guard a gate that is not in the file, or no side of it: they guard none")
    return tuple(guards) if any(guards) else ()


def _point(raw: Any) -> tuple[float, float] | None:
    if not isinstance(raw, list) or len(raw) not in (2, 3):  # a third number is a height, which no outline needs
        return None
    x_m, y_m = number(raw[0]), number(raw[1])
    return None if x_m is None or y_m is None or max(abs(x_m), abs(y_m)) > SPAN_MAX_M else (x_m, y_m)


def load_survey(folder: Path, site: RecordedSite, *, without: str = "") -> Survey:
    """Return everything in calibration/, file by file in the order of their names. Empty if there is nothing.

    without: the name of a walk to leave out. Raises RecordingError.
    """
    skipped: Counter[str] = Counter()
    numbers = {name: i for i, name in enumerate(site.reader_ids)}
    rows: list[tuple[float, float, float, int, float, float]] = []
    for path in sorted((folder / "calibration").glob("*.csv")):
        if path.stem == without:
            continue
        for x, y, heading, reader, rssi, count in _rows(path, SURVEY, skipped, optional=("heading_deg", "count")):
            x_m, y_m, rssi_dbm = number(x), number(y), number(rssi)
            weight = 1.0 if not count.strip() else number(count)
            if reader not in numbers:
                skipped["unknown reader"] += 1
            elif x_m is None or y_m is None or max(abs(x_m), abs(y_m)) > 1e9:
                skipped["no position"] += 1
            elif rssi_dbm is None or not RSSI_MIN_DBM <= rssi_dbm <= RSSI_MAX_DBM:
                skipped["no possible level"] += 1
            elif weight is None or not 0 < weight <= 1e9:
                skipped["no count"] += 1
            else:
                heading_deg = number(heading)
                turned = math.nan if heading_deg is None else heading_deg % 360.0
                rows.append((x_m, y_m, turned, numbers[reader], rssi_dbm, weight))
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return Survey(
        table[:, :2].copy(), table[:, 2].copy(), table[:, 3].astype(np.int64), table[:, 4].copy(), table[:, 5].copy(),
        dict(skipped),
    )  # fmt: skip


def track_names(folder: Path) -> list[str]:
    """Return the names of a site's tracks, in order. Raises RecordingError if there are none."""
    ends = ".sightings.csv"
    names = sorted(path.name.removesuffix(ends) for path in (folder / "tracks").glob("*" + ends))
    if not names:
        raise RecordingError(folder / "tracks", 0, "no NAME.sightings.csv there", "name the folder of a recorded site")
    return names


def load_tracks(folder: Path, site: RecordedSite) -> Iterator[Track]:
    """Yield every track of a site. Raises RecordingError at the first that cannot be read."""
    for name in track_names(folder):
        yield load_track(folder, site, name)


def load_track(folder: Path, site: RecordedSite, name: str) -> Track:
    """Return one track, sorted by time. Raises RecordingError if its sightings are missing or columns are wrong."""
    skipped: Counter[str] = Counter()
    numbers = {reader: i for i, reader in enumerate(site.reader_ids)}
    rows: list[tuple[float, int, float, float]] = []
    columns = (*SIGHTINGS, PACKETS)
    found = _rows(folder / "tracks" / f"{name}.sightings.csv", columns, skipped, optional=(PACKETS,))
    for t, reader, rssi, packets in found:
        t_s, rssi_dbm = number(t), number(rssi)
        if t_s is None:
            skipped["no time"] += 1
        elif reader not in numbers:
            skipped["unknown reader"] += 1
        elif rssi_dbm is None or not RSSI_MIN_DBM <= rssi_dbm <= RSSI_MAX_DBM:
            skipped["no possible level"] += 1
        else:
            rows.append((t_s, numbers[reader], rssi_dbm, min(max(number(packets) or 1.0, 1.0), PACKETS_MAX)))
    table = np.array(rows, dtype=float).reshape(-1, 4)
    if len(table):
        near = np.abs(table[:, 0] - np.median(table[:, 0])) <= SPAN_MAX_S
        skipped["far off in time"] += int(len(table) - near.sum())
        table = table[near]
        table = table[np.argsort(table[:, 0], kind="stable")]
    truth = load_truth(folder / "tracks" / f"{name}.truth.csv", skipped)
    path = _points(folder / "tracks" / f"{name}.path.csv", PATH, skipped)
    power_dbm = _own_power(folder / "tracks" / f"{name}{INFO}", skipped)
    return Track(
        name=name,
        t_s=table[:, 0].copy(),
        reader=table[:, 1].astype(np.int64),
        rssi_dbm=table[:, 2].copy(),
        truth_t_s=truth[:, 0].copy() if len(truth) else None,
        truth_xy_m=truth[:, 1:].copy() if len(truth) else None,
        path_xy_m=path if len(path) > 1 else None,
        packets=table[:, 3].astype(np.int64),
        power_dbm=power_dbm,
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _own_power(path: Path, skipped: Counter[str]) -> float | None:
    """Return the tag's level at 1 m. None if it cannot be read: then the site's is used, as in older recordings."""
    try:
        return _power(json_object(path, "").get("power_dbm")) if path.exists() else None
    except RecordingError:
        skipped["no readable " + INFO.lstrip(".")] += 1
        return None


def load_truth(path: Path, skipped: Counter[str]) -> Floats:
    """Return (rows, 3) t_s, x_m, y_m with strictly increasing times; no rows if there is no such file."""
    table = _points(path, TRUTH, skipped)
    if not len(table):
        return table
    table = table[np.argsort(table[:, 0], kind="stable")]
    later = np.append(np.diff(table[:, 0]) > 0, True)  # of several rows at one time, the last counts
    skipped["truth repeated"] += int(len(table) - later.sum())
    good: Floats = table[later]
    return good


def _points(path: Path, columns: tuple[str, ...], skipped: Counter[str]) -> Floats:
    rows: list[list[float]] = []
    if path.exists():
        for texts in _rows(path, columns, skipped):
            values = [value for value in map(number, texts) if value is not None and abs(value) <= 1e12]
            if len(values) == len(columns):
                rows.append(values)
            else:
                skipped["truth unreadable"] += 1
    return np.array(rows, dtype=float).reshape(-1, len(columns))


def _rows(
    path: Path, columns: tuple[str, ...], skipped: Counter[str], optional: tuple[str, ...] = ()
) -> Iterator[list[str]]:
    """Yield the wanted columns of each row as text. One line is one row: a stray quote spoils only its own line."""
    lines = text_of(path, "the file is part of the recording").splitlines()
    if not any(line.strip() for line in lines):
        return  # the recording had started and nothing was heard
    header = [name.strip().lower() for name in fields(lines[0])]
    if twice := [name for name in columns if header.count(name) > 1]:
        raise RecordingError(path, 1, f"the column {twice[0]} is there twice", "keep one of them")
    missing = [name for name in columns if name not in header and name not in optional]
    if missing:
        raise RecordingError(path, 1, f"no column {', '.join(missing)}", f"its first line must be {','.join(columns)}")
    places = [header.index(name) if name in header else -1 for name in columns]
    for n, line in enumerate(lines[1:]):
        if n >= ROWS_MAX:
            skipped["beyond the limit"] += len(lines) - 1 - n
            return
        if not line.strip():
            continue
        found = fields(line)
        if len(found) > max(places):
            yield [found[place].strip() if place >= 0 else "" for place in places]
        else:
            skipped["row too short"] += 1


def fields(line: str) -> list[str]:
    """Return the fields of one line; a field may be in quotes. Return none if the line cannot be read."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def text_of(path: Path, hint: str) -> str:
    """Return a file's text; bytes that are not UTF-8 are replaced. Raises RecordingError with the hint."""
    try:
        return bytes_of(path, FILE_MAX_B).decode("utf-8-sig", "replace")
    except OSError as error:
        raise RecordingError(path, 0, f"cannot be read ({error.strerror})", hint) from None
    except BadFile as error:
        raise RecordingError(path, 0, error.what, "a long recording is cut into several tracks") from None


def number(value: Any) -> float | None:
    """Return a finite number, or None for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _readers(path: Path, raw: Any, notes: list[str]) -> tuple[tuple[str, ...], Floats]:
    if not isinstance(raw, list) or not 1 <= len(raw) <= READERS_MAX:
        raise RecordingError(path, 0, f"readers: not a list of 1 to {READERS_MAX}", "give each its id, x_m, y_m, z_m")
    ids: list[str] = []
    places: list[tuple[float, float, float]] = []
    without = 0
    for n, row in enumerate(raw, 1):
        x_m, y_m = (number(row.get(key)) if isinstance(row, dict) else None for key in ("x_m", "y_m"))
        name = str(row.get("id", "")).strip() if isinstance(row, dict) else ""
        if not name or name in ids:
            raise RecordingError(path, 0, f"readers, entry {n}: no id of its own", 'like "id": "r1", each once')
        if x_m is None or y_m is None:
            raise RecordingError(path, 0, f"reader {name[:60]!r}: no x_m and y_m", "give its place in metres")
        z_m = number(row.get("z_m"))
        without += z_m is None
        ids.append(name)
        places.append((x_m, y_m, HEIGHT_READER_M if z_m is None else z_m))
    readers = np.array(places)
    if float(np.ptp(readers, axis=0).max()) > SPAN_MAX_M:
        raise RecordingError(path, 0, f"readers are over {SPAN_MAX_M:.0f} m apart", "positions are local metres")
    if without:
        notes.append(f"no height of {without} readers: {HEIGHT_READER_M} m taken")
    return tuple(ids), readers


def _look(path: Path, raw: list[dict[str, Any]]) -> Floats | None:
    """Return where the readers' antennas look; refuse what is neither kind: all their levels would be misread."""
    look = np.full(len(raw), math.nan)
    for n, row in enumerate(raw):
        kind, look_deg = row.get("antenna", "dipole"), number(row.get("look_deg"))
        if kind not in ("dipole", "patch") or (kind == "patch" and (look_deg is None or not 0 <= look_deg < 360)):
            raise RecordingError(
                path, 0, f"reader {str(row['id'])[:60]!r}: its antenna is no dipole, and no patch with a look_deg",
                "leave it out for a dipole; look_deg: a compass bearing, clockwise from y",
            )  # fmt: skip
        if kind == "patch" and look_deg is not None:
            look[n] = math.radians(turned_deg(look_deg))
    return look if np.isfinite(look).any() else None


def _bounds(raw: Any, readers: Floats, notes: list[str]) -> tuple[float, float, float, float]:
    values = [number(value) for value in raw] if isinstance(raw, list) else []
    good = [value for value in values if value is not None]
    if len(values) == len(good) == 4:
        x0, x1 = sorted(good[0::2])
        y0, y1 = sorted(good[1::2])
        if 0 < x1 - x0 <= SPAN_MAX_M and 0 < y1 - y0 <= SPAN_MAX_M:
            return x0, y0, x1, y1
    notes.append(f"no usable bounds: the readers' box and {MARGIN_M:.0f} m round it taken")
    (x0, y0), (x1, y1) = readers[:, :2].min(axis=0) - MARGIN_M, readers[:, :2].max(axis=0) + MARGIN_M
    return float(x0), float(y0), float(x1), float(y1)


def _one_of(value: Any, known: tuple[Any, ...], what: str, notes: list[str]) -> Any:
    """Return the value if it is known; else return the first known one and add a note."""
    if value in known:
        return value
    notes.append(f"{what} is not said ({', '.join(known)}): {known[0]} taken")
    return known[0]


def _origin(raw: Any, notes: list[str]) -> tuple[float, float] | None:
    if raw is None:
        return None
    lon, lat = (number(raw.get(key)) if isinstance(raw, dict) else None for key in ("lon", "lat"))
    if lon is None or lat is None or not (abs(lon) <= 180 and abs(lat) < 90):
        notes.append("origin is not a lon and a lat in degrees: left out")
        return None
    return lon, lat


def _channel(raw: Any, notes: list[str]) -> DeviceLaw | None:
    if raw is None:
        return None
    p0, exponent, sigma = (
        number(raw.get(key)) if isinstance(raw, dict) else None for key in ("p0_dbm", "exponent", "sigma_db")
    )
    if p0 is None or exponent is None or sigma is None or not (-120 <= p0 <= 20 and 0 < exponent <= 10 and sigma > 0):
        notes.append("channel is not a p0_dbm, an exponent and a sigma_db: left out")
        return None
    return DeviceLaw(p0, exponent, sigma)
