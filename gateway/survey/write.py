"""Writes recorded sites; `gateway.survey.read` reads them. A file is written completely, or the old one stays."""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gateway.recording import Area, Floats, RecordedSite, Survey, TimedFix, Track
from readers.files import BadFile, bytes_of, table_of

SIGHTINGS = ("t_s", "reader", "rssi_dbm")
PACKETS = "packets"
"""An optional fourth column of sightings: how many packets the row stands for."""
INFO = ".info.json"
"""tracks/NAME.info.json: when (UTC) the t_s of a track was 0, so that GPS times can be compared with it, and the level
at 1 m that the tag states."""
TRUTH = ("t_s", "x_m", "y_m")
PATH = ("x_m", "y_m")
SURVEY = ("x_m", "y_m", "heading_deg", "reader", "rssi_dbm", "count")
FIXES = ("t_s", "x_m", "y_m", "r50_m", "r90_m", "lag_s")
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\]{1,100}")


class RecordingError(Exception):
    """A recording cannot be read or written as it is. Permanent until a person repairs the file."""

    def __init__(self, path: Path, line: int, what: str, next_step: str) -> None:
        super().__init__(f"{path}{f', line {line}' if line else ''}: {what}; {next_step}")
        self.path, self.line, self.what, self.next_step = path, line, what, next_step


def json_object(path: Path, hint: str) -> dict[str, Any]:
    """Return the object of a JSON file. Raises RecordingError: with the hint if there is no such file to read."""
    try:
        return table_of(bytes_of(path))
    except OSError as error:
        raise RecordingError(path, 0, f"cannot be read ({error.strerror})", hint) from None
    except BadFile as error:
        raise RecordingError(path, error.line, error.what, "repair it there") from None


def save_site(folder: Path, site: RecordedSite) -> None:
    """Write site.json. Raises RecordingError."""
    tag: dict[str, Any] = {"worn": site.worn, "height_m": site.tag_height_m}
    if site.tag_power_dbm is not None:
        tag["power_dbm"] = site.tag_power_dbm
    readers = [
        {"id": name, "x_m": round(float(x), 3), "y_m": round(float(y), 3), "z_m": round(float(z), 3)}
        for name, (x, y, z) in zip(site.reader_ids, site.readers_m, strict=True)
    ]
    readers = [row | more for row, more in zip(readers, _antennas(site), strict=True)]
    raw: dict[str, Any] = {"name": site.name, "frame": "local metres", "bounds": list(site.bounds_m)}
    raw |= {"readers": readers, "tag": tag, "radio": site.radio}
    if site.channel is not None:
        channel = site.channel
        raw["channel"] = {"p0_dbm": channel.p0_dbm, "exponent": channel.exponent, "sigma_db": channel.sigma_db}
    if site.footpaths:
        raw["footpaths"] = [_corners(line) for line in site.footpaths]
    raw |= _areas(site)
    if site.origin_lonlat is not None:
        raw["origin"] = {"lon": site.origin_lonlat[0], "lat": site.origin_lonlat[1]}
    if site.seen_tracks:
        raw["seen_tracks"] = list(site.seen_tracks)
    write_text(folder / "site.json", json.dumps(raw, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _areas(site: RecordedSite) -> dict[str, Any]:
    """An empty list means that the zone has none; a missing key means that this is not known."""

    def row(area: Area) -> dict[str, Any]:
        return {"id": area.id, "polygon": _corners(area.ring_m)}

    raw: dict[str, Any] = {}
    if site.places is not None:
        raw["places"] = [row(place) for place in site.places]
    if site.dangers is not None:
        raw["dangers"] = [row(danger) | {"warn_m": danger.warn_m} for danger in site.dangers]
    if site.gates:
        raw["gates"] = [
            {"id": gate.id, "place": gate.place, "x_m": round(gate.at_m[0], 3), "y_m": round(gate.at_m[1], 3)}
            | {"inward_deg": turned_deg(gate.inward_deg), "width_m": gate.width_m}
            for gate in site.gates
        ]
    return raw


def _antennas(site: RecordedSite) -> list[dict[str, Any]]:
    """Return for each reader what is said of its antenna and of the gate that it guards."""
    looks = [math.nan] * len(site.reader_ids) if site.look is None else site.look.tolist()
    rows: list[dict[str, Any]] = []
    for look, guard in zip(looks, site.guards or [None] * len(looks), strict=True):
        row: dict[str, Any] = {}
        if not math.isnan(look):
            row |= {"antenna": "patch", "look_deg": turned_deg(math.degrees(look))}
        rows.append(row | ({"gate": guard[0], "side": guard[1]} if guard else {}))
    return rows


def turned_deg(angle_deg: float) -> float:
    """Return a heading (anticlockwise from x) as a compass bearing (clockwise from y), or a bearing as a heading.

    site.json has bearings, as the configuration of a gateway. Rounded to 0.001 degrees; 0 to below 360.
    """
    return round((90.0 - angle_deg) % 360.0, 3) % 360.0


def _corners(line: Floats) -> list[list[float]]:
    return [[round(float(x), 3), round(float(y), 3)] for x, y in line]


def save_survey(folder: Path, site: RecordedSite, name: str, survey: Survey) -> Path:
    """Write calibration/NAME.csv and return its path. Raises RecordingError."""

    def turned(heading: float) -> str:
        return "" if math.isnan(heading) else f"{heading:g}"

    columns = zip(survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count, strict=True)
    rows = (
        (f"{x:.3f}", f"{y:.3f}", turned(heading), site.reader_ids[reader], f"{rssi:.2f}", f"{count:g}")
        for (x, y), heading, reader, rssi, count in columns
    )

    path = folder / "calibration" / f"{checked_name(folder, name)}.csv"
    _write_rows(path, SURVEY, rows)
    return path


def save_track(folder: Path, site: RecordedSite, track: Track) -> None:
    """Write tracks/NAME.sightings.csv, and the truth and path if the track has them. Raises RecordingError."""
    base = folder / "tracks"
    name = checked_name(folder, track.name)
    packets = np.ones(len(track.t_s), dtype=np.int64) if track.packets is None else track.packets
    seen = zip(track.t_s, track.reader, track.rssi_dbm, packets, strict=True)
    rows = ((f"{t:.3f}", site.reader_ids[reader], f"{rssi:g}", f"{n}") for t, reader, rssi, n in seen)
    if (packets == 1).all():
        _write_rows(base / f"{name}.sightings.csv", SIGHTINGS, (row[:3] for row in rows))
    else:
        _write_rows(base / f"{name}.sightings.csv", (*SIGHTINGS, PACKETS), rows)
    if track.truth_t_s is not None and track.truth_xy_m is not None:
        save_truth(folder, name, track.truth_t_s, track.truth_xy_m)
    if track.path_xy_m is not None:
        _write_rows(base / f"{name}.path.csv", PATH, ((f"{x:.3f}", f"{y:.3f}") for x, y in track.path_xy_m))


def save_truth(folder: Path, name: str, t_s: Floats, xy_m: Floats) -> None:
    """Write tracks/NAME.truth.csv. Raises RecordingError."""
    truth = zip(t_s, xy_m, strict=True)
    path = folder / "tracks" / f"{checked_name(folder, name)}.truth.csv"
    _write_rows(path, TRUTH, ((f"{t:.3f}", f"{x:.3f}", f"{y:.3f}") for t, (x, y) in truth))


def add_seen_track(folder: Path, name: str) -> None:
    """Add a track to those that are part of the walk test in site.json; the rest stays. Raises RecordingError."""
    raw = _site_again(folder)
    seen = raw.get("seen_tracks")
    seen = seen if isinstance(seen, list) else []
    if name not in seen:
        _save_again(folder, raw | {"seen_tracks": [*seen, name]})


def set_tag_power(folder: Path, power_dbm: float) -> None:
    """Set in site.json the level at 1 m that a tag states; the rest stays. Raises RecordingError."""
    raw = _site_again(folder)
    tag = raw.get("tag")
    _save_again(folder, raw | {"tag": {**(tag if isinstance(tag, dict) else {}), "power_dbm": power_dbm}})


def set_areas(folder: Path, site: RecordedSite) -> None:
    """Set in site.json the places, gates and danger areas of a site; the rest stays. Raises RecordingError."""
    _save_again(folder, _site_again(folder) | _areas(site))


def _site_again(folder: Path) -> dict[str, Any]:
    return json_object(folder / "site.json", "look at the file")


def _save_again(folder: Path, raw: dict[str, Any]) -> None:
    write_text(folder / "site.json", json.dumps(raw, indent=1, ensure_ascii=False) + "\n")


def write_fixes(path: Path, fixes: Iterable[TimedFix]) -> int:
    """Write the fixes that an engine made of a track; return how many rows. Raises RecordingError."""
    rows = [
        (f"{f.t_s:.3f}", f"{f.x_m:.3f}", f"{f.y_m:.3f}", f"{f.r50_m:.3f}", f"{f.r90_m:.3f}", f"{f.lag_s:g}")
        for f in fixes
    ]
    _write_rows(path, FIXES, rows)
    return len(rows)


def checked_name(folder: Path, name: str) -> str:
    """Return the name if a file can have it. Raises RecordingError."""
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise RecordingError(folder, 0, f"{name[:60]!r} cannot name a file", "use letters, digits, _ and -")
    return name


def write_text(path: Path, text: str) -> None:
    """Write a whole file or leave the old one: first next to it, then in its place. Raises RecordingError."""
    aside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise RecordingError(
            path, 0, f"cannot be written ({error.strerror})", "look at the folder and the disk"
        ) from None


def _write_rows(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    def line(row: tuple[str, ...]) -> str:
        return ",".join('"' + text.replace('"', '""') + '"' if {",", '"'} & set(text) else text for text in row)

    write_text(path, "\n".join([",".join(header), *map(line, rows), ""]))
