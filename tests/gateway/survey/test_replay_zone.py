"""A field recording is a test case the next day: its replay repeats what the gateway said about the tag.

The same readings, so the same fixes. The only difference: a recording has millimetres where a gateway has degrees.
"""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.antenna import gain_db, look_of
from gateway.fix import Fix, Reading
from gateway.locate import sectors
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.presence.changes import Arrived, Change, DangerChange, Left
from gateway.recording import RecordedSite, Survey, Track
from gateway.survey import onto_zone, read, write
from gateway.survey import record as record_live
from gateway.survey.commands import words
from gateway.survey.record_socket import Recorder, _Client
from gateway.survey.replay import ReplayEngine
from gateway.zone import DangerArea, Footpath, Gate, Place, Plane, Reader, Zone, depth_m
from tests.gateway.core.bed import UTC_S, Pole, Shell, advertisement, at, box

XY = tuple[float, float]
POWER_DBM = -50
YARD = (30.0, 10.0, 90.0, 50.0)
APART_M, RADII_APART_M = 0.02, 0.75
"""Largest differences of two fixes that should be the same. Radii come in steps of a quarter of a cell, so from time to
time a millimetre makes one step.
"""


def block(**more: Any) -> Zone:
    """Poles along two streets; between them a yard with a gate in the south, two poles, and a pond in its corner."""
    spots = [*((30.0 * i, -2.0) for i in range(5)), *((60.0 * i, 62.0) for i in range(3)), (42.0, 32.0), (76.0, 30.0)]
    ring = [(0.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 0.0)]
    lines = (ring, [(60.0, 0.0), (60.0, 14.0)])
    parts: dict[str, Any] = {
        "places": (Place("yard", "school", box(*YARD)),),
        "dangers": (DangerArea("pond", box(70, 35, 85, 48), 4.0),),
        "footpaths": tuple(Footpath(tuple(at(*xy) for xy in line)) for line in lines),
    }
    readers = tuple(Reader(n, f"{n:016x}", *at(*spot)) for n, spot in enumerate(spots, 1))
    return Zone(readers, **(parts | more))


def guarded() -> Zone:
    """The block with four readers at the gate of its yard, and fewer in the streets."""
    zone, spots = block(), [(58.3, 8.0), (61.7, 8.0), (58.3, 13.0), (61.7, 13.0)]
    readers = [
        Reader(
            n, f"{n:016x}", *at(*spot), antenna="patch", look_deg=180.0 if spot[1] < 10 else 0.0, gate="south",
            side="outer" if spot[1] < 10 else "inner",
        )
        for n, spot in enumerate(spots, 5)
    ]  # fmt: skip
    gate = Gate("south", "yard", *at(60.0, 10.0), 0.0, 3.4)
    return msgspec.structs.replace(zone, readers=(*zone.readers[:4], *readers, *zone.readers[8:]), gates=(gate,))


def street() -> Zone:
    """A long street with a pole every 30 m, a footpath on either side, and a playground at its end."""
    spots = [(30.0 * i, 4.0 * (-1) ** i) for i in range(10)]
    lines = ([(-20.0, -3.0), (290.0, -3.0)], [(-20.0, 3.0), (290.0, 3.0)], [(135.0, -3.0), (135.0, 3.0)])
    return Zone(
        tuple(Reader(n, f"{n:016x}", *at(*spot)) for n, spot in enumerate(spots, 1)),
        places=(Place("playground", "playground", box(240, 3, 290, 40)),),
        footpaths=tuple(Footpath(tuple(at(*xy) for xy in line)) for line in lines),
    )


def walk(*way: XY, stand_s: int = 0) -> list[XY]:
    """Where a child is in each second: it walks at 1.3 m/s, then stands at the end."""
    corners = np.array(way)
    gone = np.r_[0.0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T))]
    along = np.arange(0.0, gone[-1], 1.3)
    x, y = (np.interp(along, gone, corners[:, axis]) for axis in (0, 1))
    return [*zip(x.tolist(), y.tolist(), strict=True), *[way[-1]] * stand_s]


class Air:
    """Levels by distance, shadows that last for a few seconds, some loss. Places as in `block`."""

    def __init__(self, zone: Zone, seed: int) -> None:
        plane = Ground(msgspec.structs.replace(zone, places=(), dangers=(), footpaths=())).plane
        shift = plane.to_xy_m(*at(0.0, 0.0))
        self.spots = {r.number: np.subtract(plane.to_xy_m(r.lon, r.lat), shift) for r in zone.readers}
        self._looks = {r.number: look_of(r) for r in zone.readers}
        self._rng, self._shadow_db = random.Random(seed), dict.fromkeys(self.spots, 0.0)

    def hear(self, xy_m: XY) -> Iterator[tuple[int, int]]:
        """Yield (reader, dBm)."""
        for number, spot in self.spots.items():
            self._shadow_db[number] = 0.85 * self._shadow_db[number] + self._rng.gauss(0, 2.0)
            level = POWER_DBM - 6 - 25 * math.log10(math.hypot(math.dist(spot, xy_m), 2.5)) + self._shadow_db[number]
            level += float(gain_db(np.subtract(xy_m, spot), self._looks[number]))
            if level > -97 and self._rng.random() < 0.8:
                yield number, round(level)


def table(path: Path) -> list[list[float]]:
    return [[float(text) for text in line.split(",")] for line in path.read_text().splitlines()[1:]]


def same(ours: Sequence[float], fix: Fix, site_m: XY) -> bool:
    """Whether a row of fixes (t_s, x, y, r50, r90) equals a gateway's fix. site_m: that fix on the site's plane."""
    return math.dist(ours[1:3], site_m) < APART_M and ours[3:5] == pytest.approx(
        (fix.radius_50_m, fix.radius_90_m), abs=RADII_APART_M
    )


# ---- the whole path from frames to the replay ------------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "told_within_s"), [(block(), 115.0), (guarded(), 25.0)], ids=["depth", "gate"])
def test_a_child_in_the_yard_is_replayed_where_the_gateway_saw_it(
    tmp_path: Path, zone: Zone, told_within_s: float
) -> None:
    shell, air, poles = Shell(zone_=zone), Air(zone, seed=4), {r.number: Pole(r.number) for r in zone.readers}
    start_s = shell.now_s - 1.0
    recorder = Recorder(tmp_path, "gw1", on_health=lambda *_: None, on_change=lambda _: None)
    recorder._clients.add(client := _Client(frozenset()))
    shell.state.tap = recorder.reading
    locator, told = shell.state.locator, list[tuple[Fix, Fix | None]]()
    step, settle = locator.step, shell.state.settler.step
    concluded: list[str] = []

    def overheard(*when: Any) -> Iterator[tuple[int, Fix, Fix | None]]:
        for row in step(*when):
            told.append(row[1:])
            yield row

    def settled(tag: int, fix: Fix, *more: Any) -> Iterator[Change]:
        for change in settle(tag, fix, *more):
            if isinstance(change, Arrived | Left | DangerChange):
                concluded.append(f"tag-003, {round(fix.fixed_at_s - start_s)} s: {words(change)}")
            yield change

    locator.step, shell.state.settler.step = overheard, settled  # type: ignore[method-assign]
    way = walk((10.0, 0.0), (60.0, 0.0), (60.0, 14.0), (57.0, 31.0), stand_s=95)
    for n, xy_m in enumerate(way):  # the gateway's seconds begin with the first reading; the others come within them
        raw = advertisement(count=n + 1, power_dbm=POWER_DBM, utc_s=UTC_S + n)
        for number, rssi_dbm in air.hear(xy_m):
            shell.frame(poles[number].bind((1, raw), rssi_dbm=rssi_dbm))
        shell.wait(1.0 if n else 0.7)

    site = tmp_path / "site"
    write.save_site(site, record_live.site_of(zone, "block"))
    writer = record_live._Writer(site, read.load_site(site), start_s, None, lambda _: None)
    for line in client.queue:
        writer.reading(json.loads(json.dumps(line)))
    writer.close()
    done = CliRunner().invoke(app, ["locate", str(site), "--out", str(tmp_path / "fixes")])
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if " s: " in line] == concluded
    [arrived] = [line for line in concluded if "arrived at yard" in line]
    entered_s = next(n for n, (x, y) in enumerate(way) if y > YARD[1] and x > YARD[0])
    assert 0 < int(re.findall(r" (\d+) s:", arrived)[0]) - entered_s < told_within_s, arrived

    here, there = shell.state.field.plane, Plane(*(read.load_site(site).origin_lonlat or ()))
    rows = table(tmp_path / "fixes" / "tag-003.fixes.csv")
    ours = {kind: {row[0]: row for row in rows if row[5] == kind} for kind in (0.0, 3.0)}
    live: dict[float, dict[float, Fix]] = {0.0: {}, 3.0: {}}
    for fix in (fix for pair in told for fix in pair if fix is not None):
        live[fix.lag_s][round(fix.fixed_at_s - start_s)] = fix
    assert len(live[0.0]) == len(way)
    assert len(live[3.0]) > len(way) / 5 - 2
    assert ours[0.0].keys() >= live[0.0].keys() - {max(live[0.0])}, "all but the last, broken second"
    for kind, fixes in live.items():
        for at_s in fixes.keys() & ours[kind].keys():
            fix = fixes[at_s]
            site_m = there.to_xy_m(*here.to_lonlat(fix.x_m, fix.y_m))
            assert same(ours[kind][at_s], fix, site_m), (kind, at_s, ours[kind][at_s], site_m, fix)

    shift = there.to_xy_m(*at(0.0, 0.0))
    yard = [(x + shift[0], y + shift[1]) for x, y in ((30, 10), (90, 10), (90, 50), (30, 50))]
    stood = [row for row in ours[0.0].values() if row[0] > len(way) - 35]
    assert len(stood) > 30
    assert min(depth_m(row[1], row[2], yard) for row in stood) > 3, "in the yard, not on the street"


def test_what_a_gateway_makes_of_places_is_in_the_fixes_too() -> None:
    zone = block()
    track, locator = recorded(zone, walk((60.0, 0.0), (60.0, 14.0), (75.0, 40.0), stand_s=15), seed=2)
    found = {fix.fixed_at_s: fix for fix in ReplayEngine(site_of(zone), Survey.empty()).fixes(track, lag_s=0.0)}
    ours, theirs = found[max(found)], locator.told[max(found)]
    assert ours.places.keys() == {"yard"}
    assert ours.dangers.keys() == {"pond"}
    assert ours.places == pytest.approx(theirs.places, abs=0.01)
    assert ours.dangers == pytest.approx(theirs.dangers, abs=0.01)
    assert ours.places["yard"] > 0.5


def site_of(zone: Zone) -> RecordedSite:
    """The site as `record` writes and `locate` reads it, without the power that the first tag states."""
    return record_live.site_of(zone, "here")


class Live(ZoneLocator):
    """A gateway's locator that keeps its fixes, by second."""

    told: dict[float, Fix]
    smoothed: dict[float, Fix]


def recorded(
    zone: Zone, way: Sequence[XY], *, seed: int, survey: tuple[RecordedSite, Survey] | None = None, counts: Any = None
) -> tuple[Track, Live]:
    """Let a locator hear a walk; return the walk as it is recorded, and the locator."""
    locator, air = Live(Ground(zone), Counter() if counts is None else counts, survey=survey), Air(zone, seed)
    locator.told, locator.smoothed = {}, {}
    rows: list[tuple[float, int, int]] = []
    for n, xy_m in enumerate(way):
        for number, rssi_dbm in air.hear(xy_m):
            rows.append((n + 0.6, number - 1, rssi_dbm))
            locator.hear(7, Reading(number, rssi_dbm, 1, n + 0.6, POWER_DBM), n + 0.8)
        now_s = n + 1.0
        while now_s < n + 1.5:  # batch after batch, at a gateway's deadlines
            for _, fix, late in locator.step(now_s, lambda _: False):
                locator.told[round(fix.fixed_at_s)] = fix
                if late is not None:
                    locator.smoothed[round(late.fixed_at_s)] = late
            now_s = locator.deadline_s()
    t_s, reader, rssi_dbm = (np.array(column) for column in zip(*rows, strict=True))
    return Track("walk", t_s, reader, rssi_dbm.astype(float), power_dbm=float(POWER_DBM)), locator


# ---- large zones, walk tests -----------------------------------------------------------------------------------------


def walk_test(zone: Zone, folder: Path) -> None:
    """A walk test on both footpaths, there and back: a row every four metres for each reader."""
    site, air = replace(site_of(zone), tag_power_dbm=float(POWER_DBM)), Air(zone, seed=9)
    plane = Plane(*(site.origin_lonlat or ()))
    shift = plane.to_xy_m(*at(0.0, 0.0))
    rows = [
        (x + shift[0], y + shift[1], heading, number - 1, level)
        for y in (-3.0, 3.0) for heading in (0.0, 180.0) for x in np.arange(0.0, 270.0, 4.0)
        for number, level in air.hear((float(x), y))
    ]  # fmt: skip
    column = np.array(rows)
    write.save_site(folder, site)
    survey = Survey(column[:, :2], column[:, 2], column[:, 3].astype(int), column[:, 4], np.ones(len(rows)))
    write.save_survey(folder, site, "w", survey)


@pytest.mark.parametrize("walked", [False, True])
def test_a_walk_through_sectors_is_replayed_sector_by_sector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walked: bool
) -> None:
    monkeypatch.setattr(sectors, "SECTOR_STATES", 800)
    zone, counts = street(), Counter[str]()
    walk_test(zone, tmp_path)
    survey = onto_zone.walk_test_of_zone(tmp_path, zone)[:2] if walked else None
    way = walk((10.0, -3.0), (135.0, -3.0), (135.0, 3.0), (260.0, 3.0), (265.0, 15.0), stand_s=10)
    track, locator = recorded(zone, way, seed=5, survey=survey, counts=counts)
    assert locator.sectors > 1
    assert counts["tags_moved_on"] > 0
    site = read.load_site(tmp_path)
    engine = ReplayEngine(site, read.load_survey(tmp_path, site) if walked else Survey.empty())
    here, there = Ground(zone).plane, Plane(*(site.origin_lonlat or ()))
    seen = Counter[float]()
    for row in engine.replay(track, lag_s=3.0):
        fix = (locator.smoothed if row.lag_s else locator.told).get(row.t_s)
        if fix is not None and fix.lag_s == row.lag_s:
            assert same(row, fix, there.to_xy_m(*here.to_lonlat(fix.x_m, fix.y_m))), (row, fix)
            seen[row.lag_s] += 1
    heard_s = set(np.ceil(track.t_s).tolist())
    assert len(heard_s) < len(way), "some seconds are silent"
    assert seen[0.0] == len(heard_s) - 1, "every second but the last, broken one"
    assert seen[3.0] > len(way) / 5 - 5
