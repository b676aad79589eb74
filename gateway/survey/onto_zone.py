"""A zone's walk test: read from a recorded site and moved to the zone's own plane and readers."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from gateway.antenna import look_of
from gateway.recording import RecordedSite, Survey, moved
from gateway.survey.read import load_site, load_survey
from gateway.survey.write import RecordingError
from gateway.zone import Field, Plane, Zone

MOVED_MAX_M = 3.0
"""A reader mounted further than this from its place at the walk test has other levels."""
TURNED_MAX_DEG = 30.0
"""An antenna that looks further from where it looked has other levels: 14 dB (1 - cos 30) / 2 are 1 dB ahead, 3.5 dB at
its sides."""
AWAY_MAX_M = 1000.0


def walk_test_of_zone(folder: Path, zone: Zone) -> tuple[RecordedSite, Survey, list[str]]:
    """Return the walk test of a zone, in metres on its `Field`'s plane, and notes on what may need attention.

    Raises RecordingError. Rows of readers that are no longer in the zone are left out; newer readers have none.
    """
    site = load_site(folder)
    survey = load_survey(folder, site)
    path = folder / "site.json"
    if site.origin_lonlat is None:
        raise RecordingError(
            path, 0, "it has no origin, so nobody knows where its metres lie", "use ansim-gateway record"
        )
    if not len(survey):
        raise RecordingError(
            folder / "calibration", 0, "no walk test is there", "make one with ansim-gateway calibrate"
        )
    here, there = Field(zone).plane, Plane(*site.origin_lonlat)
    readers_m = site.readers_m.copy()
    readers_m[:, :2] = moved(site.readers_m[:, :2], there, here)
    now_m = {str(r.number): here.to_xy_m(r.lon, r.lat) for r in zone.readers}
    elsewhere = [
        f"reader {name} hangs {far_m:.0f} m away"
        for name, at in zip(site.reader_ids, readers_m, strict=True)
        if name in now_m and (far_m := float(np.hypot(*(at[:2] - now_m[name])))) > MOVED_MAX_M
    ]
    if elsewhere:
        what = f"not where it was at the walk test: {', '.join(elsewhere[:5])}{' ..' if len(elsewhere) > 5 else ''}"
        raise RecordingError(path, 0, what, "walk again, or give the reader's right lon and lat")
    look = {str(reader.number): look_of(reader) for reader in zone.readers}
    turned = [] if site.look is None else [
        f"reader {name}" for name, then in zip(site.reader_ids, site.look.tolist(), strict=True)
        if name in look and not _same_way(then, look[name])
    ]  # fmt: skip
    if turned:
        what = f"another antenna than at the walk test, or turned: {', '.join(turned[:5])}"
        raise RecordingError(path, 0, what, "walk again, or give the reader's right antenna and look_deg")
    kept = np.array([name in now_m for name in site.reader_ids])[survey.reader]
    notes = [f"walk test: {note}" for note in site.notes]
    notes += [f"walk test: {count} rows left out: {reason}" for reason, count in survey.skipped.items()]
    if not kept.all():
        gone = sorted({site.reader_ids[number] for number in survey.reader[~kept]})
        notes.append(f"walk test: readers {', '.join(gone[:20])} are not in this file; their rows are left out")
    unheard = sorted(set(now_m) - {site.reader_ids[number] for number in survey.reader}, key=int)
    if unheard:
        notes.append(f"walk test: it holds nothing of readers {', '.join(unheard[:20])}: walk past them too")
    x0, y0, x1, y1 = site.bounds_m
    corners = moved(np.array([[x0, y0], [x1, y1]]), there, here)
    bounds_m = (float(corners[0, 0]), float(corners[0, 1]), float(corners[1, 0]), float(corners[1, 1]))
    origin = (here.lon, here.lat)
    footpaths = tuple(moved(line, there, here) for line in site.footpaths)
    places, dangers = (
        None if areas is None else tuple(replace(area, ring_m=moved(area.ring_m, there, here)) for area in areas)
        for areas in (site.places, site.dangers)
    )
    patches = [name for name, angle in look.items() if np.isfinite(angle)]
    if site.look is None and patches:
        listed = ", ".join(patches[:20])
        notes.append(f"walk test: it knows no antennas; walk again if the patches of readers {listed} came later")
    came = [r for r in zone.readers if str(r.number) not in site.reader_ids]
    new_readers_m = [(*now_m[str(r.number)], r.height_m) for r in came]
    names = (*site.reader_ids, *(str(r.number) for r in came))
    site = replace(
        site, look=np.array([look.get(name, np.nan) for name in names]), reader_ids=names, bounds_m=bounds_m,
        origin_lonlat=origin, readers_m=np.concatenate([readers_m, np.array(new_readers_m).reshape(-1, 3)]),
        footpaths=footpaths, places=places, dangers=dangers, gates=(), guards=(),  # the zone has those of today
    )  # fmt: skip
    xy_m = moved(survey.xy_m[kept], there, here)
    if len(xy_m) and np.abs(xy_m).max() > AWAY_MAX_M + max(abs(value) for value in bounds_m):
        raise RecordingError(folder / "calibration", 0, "it was walked far from this zone", "look at the truth it had")
    heading_deg, reader, rssi_dbm, count = (
        column[kept] for column in (survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count)
    )
    return site, Survey(xy_m, heading_deg, reader, rssi_dbm, count, survey.skipped), notes


def _same_way(then: float, now: float) -> bool:
    """Return whether two looks are those of one antenna. Not a number: a dipole."""
    if not (np.isfinite(then) and np.isfinite(now)):
        return bool(np.isnan(then) and np.isnan(now))
    return float(np.cos(then - now)) >= float(np.cos(np.radians(TURNED_MAX_DEG)))
