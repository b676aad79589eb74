"""Record what a running gateway hears as a recorded site: site.json from its zone, and one track for each tag.

Rows are appended as they come and flushed every second, so that an interruption loses one second; at the end they are
sorted by time. One reading of a reader is one row: its level is the reader's, of `packets` packets. Times count from
the start.
"""

import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from gateway.antenna import looks_of
from gateway.locate import shapes
from gateway.locate.ground import REACH_M
from gateway.recording import Area, RecordedGate, RecordedSite
from gateway.survey import read, write
from gateway.survey.record_socket import SOCKET
from gateway.survey.write import (
    INFO,
    PACKETS,
    SIGHTINGS,
    RecordingError,
    checked_name,
    set_areas,
    set_tag_power,
    turned_deg,
    write_text,
)
from gateway.zone import LonLat, Plane, Zone

TAGS_MAX = 500
"""Tracks of one recording at most; readings of further tags are left out and counted."""
MARGIN_M = 40.0
"""The bounds of the site go this far beyond readers, places and danger areas."""
OTHER_POWER_DB = 3.0
"""A tag is reported when the level at 1 m that it states differs by more from the site's: a walk test holds for one
kind of tag."""
SILENT_MAX_S = 10.0
"""A gateway that sends nothing for this long, not even its clock, has stopped working."""
FLUSH_S = 1.0


def site_of(zone: Zone, name: str) -> RecordedSite:
    """Return a zone as a recorded site: metres east and north of the readers' middle, readers named by their number.

    It has the footpaths as far as readers hear, and all places, gates and danger areas.
    """
    lon = sum(reader.lon for reader in zone.readers) / len(zone.readers)
    lat = sum(reader.lat for reader in zone.readers) / len(zone.readers)
    lon, lat = round(lon, 7), round(lat, 7)
    plane = Plane(lon, lat)
    at = [plane.to_xy_m(reader.lon, reader.lat) for reader in zone.readers]
    areas = [*(place.polygon for place in zone.places), *(danger.polygon for danger in zone.dangers)]
    points = np.array(at + [plane.to_xy_m(*corner) for polygon in areas for corner in polygon])

    def ring_m(polygon: Sequence[LonLat]) -> Any:
        return np.array([plane.to_xy_m(*corner) for corner in polygon]).round(3)

    lines = [[plane.to_xy_m(*corner) for corner in path.line] for path in zone.footpaths]
    runs = [run for found in shapes.cut(lines, [], np.array(at), REACH_M) for run in found]
    guards = tuple((r.gate, r.side) if r.gate is not None and r.side is not None else None for r in zone.readers)
    (x0, y0), (x1, y1) = points.min(axis=0) - MARGIN_M, points.max(axis=0) + MARGIN_M
    return RecordedSite(
        name=name,
        bounds_m=(round(float(x0), 1), round(float(y0), 1), round(float(x1), 1), round(float(y1), 1)),
        reader_ids=tuple(str(reader.number) for reader in zone.readers),
        readers_m=np.array([(x, y, r.height_m) for (x, y), r in zip(at, zone.readers, strict=True)]).round(3),
        origin_lonlat=(lon, lat),
        footpaths=tuple(np.array(corners).round(3) for label, corners in runs if label == shapes.OUT),
        places=tuple(Area(place.id, ring_m(place.polygon)) for place in zone.places),
        dangers=tuple(Area(danger.id, ring_m(danger.polygon), danger.warn_m) for danger in zone.dangers),
        gates=tuple(
            RecordedGate(gate.id, gate.place, (round(x, 3), round(y, 3)), turned_deg(gate.inward_deg), gate.width_m)
            for gate in zone.gates
            for x, y in [plane.to_xy_m(gate.lon, gate.lat)]
        ),
        look=looks_of(zone.readers),
        guards=guards if any(guards) else (),
    )


def record(
    folder: Path,
    site: RecordedSite,
    out: Path,
    *,
    tags: Sequence[str],
    minutes: float | None,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
) -> int:
    """Record until the time is over, the gateway stops, or `stopped` returns true; return how many rows were written.

    folder: the gateway's store. Raises RecordingError.
    """
    power_dbm = _begin_site(out, site, say).tag_power_dbm
    path = folder / SOCKET
    with _connect(path, tags) as line:
        lines = _lines(line, path)
        hello = next(lines, {})
        if "now_s" not in hello:
            raise RecordingError(path, 0, "the gateway closed the line at once", "look at its log")
        start_s = float(hello["now_s"])
        end_s = float("inf") if minutes is None else start_s + 60 * minutes
        say(f"recording gateway {hello.get('gateway')} into {out}; Ctrl-C ends it")
        writer = _Writer(out, site, start_s, power_dbm, say)
        ended: dict[str, Any] | None = None
        asked = False
        try:
            for said in lines:
                if "end" in said:
                    ended = said
                elif "t_s" in said:
                    writer.reading(said)
                elif not asked and (stopped() or said.get("now_s", 0.0) >= end_s):
                    asked = True  # it still sends what it holds for us, and then its last line
                    line.shutdown(socket.SHUT_WR)
                writer.flush()
        except OSError as error:
            raise RecordingError(out, 0, f"cannot be written ({error.strerror})", "look at the disk") from None
        finally:
            writer.close()
    if ended is None:
        say("the gateway went away without a word; what it had sent is written")
    elif not asked:
        say("the gateway stopped")
    lost = ("this program was too slow", int((ended or {}).get("dropped", 0)))
    for reason, count in (*sorted(writer.skipped.items()), lost):
        if count:
            say(f"{count} readings left out: {reason}")
    say(f"{writer.rows} readings of {len(writer.tracks)} tags")
    return writer.rows


def _begin_site(out: Path, site: RecordedSite, say: Callable[[str], None]) -> RecordedSite:
    """Return the site as it is in the folder; write what is not there yet. Raises RecordingError for another zone."""
    if not (out / "site.json").exists():
        write.save_site(out, site)
        return site
    known = read.load_site(out)
    same = known.reader_ids == site.reader_ids and known.origin_lonlat == site.origin_lonlat
    same = same and np.allclose(known.readers_m, site.readers_m, atol=0.01)
    if not same or not _same_look(known.look, site.look):
        raise RecordingError(out / "site.json", 0, "another zone, or its readers were moved", "name a new folder")
    if known.places is None and known.dangers is None:
        set_areas(out, site)
    elif not _same_zone(known, site):
        say(
            f"note: places, gates, danger areas or footpaths of the zone are not those of {out / 'site.json'}, which "
            "stay: a replay runs on them. Name a new folder to record the zone as it is now"
        )
    return known


def _same_look(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    turned = np.abs((one - other + np.pi) % (2 * np.pi) - np.pi)
    return bool((np.isnan(one) == np.isnan(other)).all() and (np.nan_to_num(turned) < 0.01).all())


def _same_zone(one: RecordedSite, other: RecordedSite) -> bool:
    """Return whether two sites have the same areas, gates and footpaths."""

    def shapes_of(site: RecordedSite) -> list[tuple[str, float, Any]]:
        areas = (*(site.places or ()), *(site.dangers or ()))
        return [(area.id, area.warn_m, area.ring_m) for area in areas] + [("", 0.0, line) for line in site.footpaths]

    here, there = shapes_of(one), shapes_of(other)
    return (
        (one.gates, one.guards) == (other.gates, other.guards)
        and len(here) == len(there)
        and all(
            a[:2] == b[:2] and a[2].shape == b[2].shape and np.allclose(a[2], b[2], atol=0.01)
            for a, b in zip(here, there, strict=True)
        )
    )


def _connect(path: Path, tags: Sequence[str]) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(SILENT_MAX_S)
    try:
        line.connect(str(path))
        line.sendall(json.dumps({"tags": list(tags)}).encode() + b"\n")
    except OSError as error:
        line.close()
        why = f"no gateway answers there ({error.strerror or error})"
        raise RecordingError(path, 0, why, "start it, and record as its own user: sudo -u ansim ...") from None
    return line


def _lines(line: socket.socket, path: Path) -> Iterator[dict[str, Any]]:
    """Yield each line that the gateway sends until it closes. Raises RecordingError."""
    rest = b""
    while True:
        try:
            data = line.recv(65_536)
        except TimeoutError:
            raise RecordingError(
                path, 0, f"the gateway said nothing for {SILENT_MAX_S:.0f} s", "look at its log"
            ) from None
        except OSError as error:
            raise RecordingError(path, 0, f"the gateway is gone ({error.strerror})", "look at its log") from None
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for text in whole:
            said = json.loads(text)
            if "error" in said:
                raise RecordingError(path, 0, f"the gateway refuses: {said['error']}", "try again later")
            yield said


class _Writer:
    """The tracks of one recording. A track is opened when its tag is first heard."""

    def __init__(
        self, out: Path, site: RecordedSite, start_s: float, power_dbm: float | None, say: Callable[[str], None]
    ) -> None:
        """power_dbm: the tags' level at 1 m in site.json; None: take it from the first tag that states one."""
        self._out, self._start_s, self._say = out / "tracks", start_s, say
        self._site, self._power_dbm = out, power_dbm
        self._readers = {int(name) for name in site.reader_ids}
        self.tracks: dict[str, Path] = {}
        self._files: dict[str, IO[str]] = {}
        self._flushed_s = time.monotonic()
        self._start_utc_s = time.time() - (time.monotonic() - start_s)
        self.skipped: Counter[str] = Counter()
        self.rows = 0

    def reading(self, said: dict[str, Any]) -> None:
        t_s = said["t_s"] - self._start_s
        if said["rssi_dbm"] is None:
            self.skipped["the reader gave no level"] += 1
        elif t_s < 0:
            self.skipped["heard before the start"] += 1
        elif said["reader"] not in self._readers:
            self.skipped["a reader that is not in the configuration"] += 1
        elif said["tag"] not in self._files and len(self._files) >= TAGS_MAX:
            self.skipped[f"more than {TAGS_MAX} tags"] += 1
        else:
            file = self._files.get(said["tag"]) or self._open(said["tag"], said.get("power_dbm"))
            file.write(f"{t_s:.3f},{said['reader']},{said['rssi_dbm']},{said['packets']}\n")
            self.rows += 1

    def flush(self) -> None:
        if time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flushed_s = time.monotonic()
            for file in self._files.values():
                file.flush()

    def close(self) -> None:
        """Close the files and sort their rows by time."""
        for tag, file in self._files.items():
            file.close()
            header, *rows = self.tracks[tag].read_text(encoding="utf-8").splitlines()
            rows.sort(key=lambda row: float(row.partition(",")[0]))
            write_text(self.tracks[tag], "\n".join([header, *rows, ""]))

    def _open(self, tag: str, power_dbm: int | None) -> IO[str]:
        name, number = checked_name(self._out, tag), 1
        while (path := self._out / f"{name}{f'-{number}' if number > 1 else ''}.sightings.csv").exists():
            number += 1
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            file = path.open("x", encoding="utf-8")
            file.write(",".join((*SIGHTINGS, PACKETS)) + "\n")
        except OSError as error:
            raise RecordingError(path, 0, f"cannot be written ({error.strerror})", "look at the folder") from None
        info: dict[str, Any] = {
            "started_at": datetime.fromtimestamp(self._start_utc_s, UTC).isoformat(timespec="milliseconds")
        }
        if power_dbm is not None:
            info["power_dbm"] = power_dbm
        write_text(path.with_name(path.name.replace(".sightings.csv", INFO)), json.dumps(info) + "\n")
        self.tracks[tag], self._files[tag] = path, file
        self._say(f"{tag}: {path.name}")
        self._power(tag, power_dbm)
        return file

    def _power(self, tag: str, power_dbm: int | None) -> None:
        """Store in the site the level at 1 m that the first tag states: the gateway compares other tags with it."""
        if power_dbm is None:
            return
        if self._power_dbm is None:
            set_tag_power(self._site, power_dbm)
            self._power_dbm = power_dbm
        elif abs(power_dbm - self._power_dbm) > OTHER_POWER_DB:
            self._say(
                f"note: {tag} says {power_dbm} dBm at 1 m, site.json {self._power_dbm:g} dBm: put a walk test of other "
                "tags into another folder"
            )
