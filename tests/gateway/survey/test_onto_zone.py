"""The walk test in a zone's configuration: found, moved onto the zone's plane; its faults reported like any other."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.box import runner
from gateway.config import load
from gateway.config.findings import ConfigError
from gateway.core import pipeline
from gateway.core.pipeline import State
from gateway.effects import Commit
from gateway.events import GatewayHealth, Sos
from gateway.fix import Reading
from gateway.locate.locator import ZoneLocator
from gateway.options import Installation
from gateway.recording import RecordedSite, Survey
from gateway.survey import write
from gateway.survey.record import site_of
from gateway.zone import Field, Plane
from readers import wire
from tests.gateway.box.bed import READERS, plugged, rows, running, write_config
from tests.gateway.core.bed import SPACING_M, Pole, advertisement, zone
from tests.waiting import LIMIT_S, run, until

EXTRA = '[locate]\nsurvey = "walk"'


def survey_of(site: RecordedSite, *rows: tuple[float, float, str]) -> Survey:
    xy_m = np.array([row[:2] for row in rows], dtype=float).reshape(-1, 2)
    reader = np.array([site.reader_ids.index(row[2]) for row in rows], dtype=np.int64)
    far_m = np.hypot(np.hypot(*(site.readers_m[reader, :2] - xy_m).T), 2.5)
    levels = np.maximum(-58 - 25 * np.log10(far_m), -100.0)
    return Survey(xy_m, np.full(len(rows), np.nan), reader, levels, np.ones(len(rows)))


def box(folder: Path, site: RecordedSite, *rows: tuple[float, float, str]) -> Path:
    write.save_site(folder / "walk", site)
    if rows:
        write.save_survey(folder / "walk", site, "w", survey_of(site, *rows))
    return write_config(folder, folder / "stick", extra=EXTRA)


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load.load(path)
    [found] = caught.value.problems
    assert found.key == "locate.survey"
    assert path.read_text().splitlines()[found.line - 1] == 'survey = "walk"'
    assert "right is the folder of a recorded site" in found.text
    return found.text


def taken(path: Path) -> tuple[Installation, RecordedSite, Survey]:
    loaded = load.load(path)
    assert loaded.site is not None
    assert loaded.survey is not None
    return loaded, loaded.site, loaded.survey


def test_a_walk_test_lies_on_the_zones_plane(tmp_path: Path) -> None:
    """The same zone had a fourth reader at the time of the walk, so its origin was 15 m to the east."""
    site = site_of(zone(READERS + 1), "here")
    loaded, found, survey = taken(
        box(tmp_path, site, (5.0, 2.0, "1"), (6.0, 2.0, "2"), (7.0, 2.0, "4"), (1.0, 2.0, "3"))
    )
    assert survey.reader.tolist() == [0, 1, 2], "rows of the reader that is gone are left out"
    np.testing.assert_allclose(survey.xy_m[0], [5.0 + SPACING_M / 2, 2.0], atol=0.02)
    field = Field(loaded.zone)
    for n, name in enumerate(found.reader_ids[:3]):
        np.testing.assert_allclose(found.readers_m[n], field.readers[int(name)], atol=0.02)
    assert any("readers 4 are not in this file" in note for note in loaded.notes)


def test_a_reader_hung_since_the_walk_is_in_the_zone_without_rows_and_the_gateway_starts(tmp_path: Path) -> None:
    site = replace(site_of(zone(READERS - 1), "here"), tag_power_dbm=-55.0)
    rows = [(x, -3.0, str(n)) for x in np.arange(-60.0, 60.0, 2.0) for n in range(1, READERS)]
    loaded, found, survey = taken(box(tmp_path, site, *rows))
    assert found.reader_ids == ("1", "2", "3")
    np.testing.assert_allclose(found.readers_m[2], Field(loaded.zone).readers[3], atol=0.02)
    assert 2 not in survey.reader
    assert found.tag_power_dbm == -55.0
    assert any("it holds nothing of readers 3" in note for note in loaded.notes)
    state = State.new(loaded.zone, loaded.reader_keys, loaded.tag_keys, gateway="g", epoch="e", now_s=0.0)
    for part in pipeline.fit(state, (found, survey)):
        assert list(pipeline.learn(state, *part, 0.0)) == [], "nothing to tell"
    for second in range(3):
        state.locator.hear(0, Reading(3, -60, 3, float(second), -50), float(second))
        fixes = [fix for _, fix, _ in state.locator.step(float(second), lambda _: False)]
    x_m, _, _ = Field(loaded.zone).readers[3]
    assert abs(fixes[0].x_m - x_m) < 25, "it is located by the reader that nobody walked past"


def test_a_walk_test_of_no_use_is_told_and_the_zone_is_located_without_it(tmp_path: Path) -> None:
    walked = [(x, 2.0, str(1 + x % READERS)) for x in range(60)]
    loaded, found, survey = taken(box(tmp_path, site_of(zone(READERS), "here"), *walked))
    state = State.new(loaded.zone, loaded.reader_keys, loaded.tag_keys, gateway="g", epoch="e", now_s=0.0)
    endless = replace(survey, rssi_dbm=np.full(len(survey), np.nan))
    with np.errstate(all="ignore"):
        parts = list(pipeline.fit(state, (found, endless)))
    effects = [effect for part in parts for effect in pipeline.learn(state, *part, 0.0)]
    assert len(effects) == len(parts)
    for effect in effects:
        assert isinstance(effect, Commit)
        assert isinstance(effect.event, GatewayHealth)
        assert (effect.event.what, effect.event.ok) == ("walk_test_unusable", False)
        assert "cannot be fitted round readers" in effect.event.detail
    named = ", ".join(re.findall(r"round readers ([0-9, ]+);", " ".join(e.event.detail for e in effects)))
    assert sorted(map(int, named.split(", "))) == list(range(1, READERS + 1))
    assert pipeline.counters(state)["walk_tests_unusable"] == len(parts)
    state.locator.hear(0, Reading(3, -60, 3, 0.0, -50), 0.0)
    assert len(list(state.locator.step(0.0, lambda _: False))) == 1


def test_a_gateway_listens_before_its_walk_test_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting the map of a large zone takes seconds: a cry just after a power cut does not wait for it."""
    go_on = threading.Event()
    fitted = ZoneLocator.fitted

    def slow(self: ZoneLocator, *arguments: Any) -> Any:
        assert go_on.wait(LIMIT_S)
        return fitted(self, *arguments)

    monkeypatch.setattr(ZoneLocator, "fitted", slow)
    monkeypatch.setattr(runner, "FIT_AFTER_S", 0.0)
    path = box(tmp_path, site_of(zone(READERS), "here"), *((x, 2.0, str(1 + x % READERS)) for x in range(60)))

    async def story() -> None:
        settings = load.load(path)
        async with plugged(tmp_path) as stick, running(settings) as gateway:
            pole, street = Pole(2), gateway.runner.state.locator._trackers[0]
            try:
                assert stick.hear(pole.sos(advertisement(flags=wire.FLAG_SOS, press=1, count=1, utc_s=time.time())))
                await until(lambda: (1, wire.RECEIVED) in stick.stages(pole), "the lamp's stage")
                assert [type(event) for event in rows(settings.folder, "sos")][:1] == [Sos]
                assert gateway.runner.state.locator._trackers[0] is street, "still the street's law"
            finally:
                go_on.set()
            await until(lambda: gateway.runner.state.locator._trackers[0] is not street, "the map")
            assert gateway.runner.counters["frame_faults"] == 0

    run(story)


def test_footpaths_of_the_walk_lie_on_the_zones_plane_too(tmp_path: Path) -> None:
    site = site_of(zone(READERS + 1), "here")
    loaded, found, _ = taken(box(tmp_path, site, (5.0, 2.0, "1")))
    [line] = found.footpaths
    assert len(loaded.zone.readers) == READERS
    np.testing.assert_allclose(line, site.footpaths[0] + [SPACING_M / 2, 0.0], atol=0.02)


def test_without_one_there_is_none(tmp_path: Path) -> None:
    loaded = load.load(write_config(tmp_path, tmp_path / "stick"))
    assert loaded.site is None
    assert loaded.survey is None
    assert "walk test: none" in load.summary(loaded)


def test_readers_it_lacks_are_told(tmp_path: Path) -> None:
    loaded, _, _ = taken(box(tmp_path, site_of(zone(READERS), "here"), (5.0, 2.0, "1")))
    assert "walk test: 1 rows" in load.summary(loaded)
    assert "walk test: it holds nothing of readers 2, 3: walk past them too" in loaded.notes


def test_every_fault_is_told_with_its_line_and_what_would_be_right(tmp_path: Path) -> None:
    site = site_of(zone(READERS), "here")
    path = write_config(tmp_path, tmp_path / "stick", extra=EXTRA)
    assert "a recorded site is a folder with a site.json" in problem(path)
    assert "no walk test is there; make one with ansim-gateway calibrate" in problem(box(tmp_path, site))
    rows = (5.0, 2.0, "1"), (6.0, 2.0, "2")
    assert "it has no origin" in problem(box(tmp_path, replace(site, origin_lonlat=None), *rows))
    moved = site.readers_m.copy()
    moved[1, 1] += 12.0
    assert "reader 2 hangs 12 m away; walk again" in problem(box(tmp_path, replace(site, readers_m=moved), *rows))
    assert "walked far from this zone" in problem(box(tmp_path, site, (9e4, 0.0, "1")))
    (tmp_path / "walk" / "calibration" / "w.csv").write_text("x,y\n1,2\n")
    assert "w.csv, line 1: no column x_m, y_m, reader, rssi_dbm" in problem(path)


def test_a_zone_elsewhere_is_refused(tmp_path: Path) -> None:
    site = site_of(zone(READERS), "here")
    lon, lat = Plane(*site.origin_lonlat).to_lonlat(500.0, 0.0) if site.origin_lonlat else (0, 0)
    text = problem(box(tmp_path, replace(site, origin_lonlat=(lon, lat)), (5.0, 2.0, "1")))
    assert "reader 1 hangs 500 m away, reader 2 hangs 500 m away" in text


def test_a_zone_is_drawn_with_its_places_and_dangers(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "stick")
    text = path.read_text()
    corners = [[126.9500, 37.5398], [126.9505, 37.5398], [126.9505, 37.5402]]
    path.write_text(text + f'[[places]]\nid = "our-school"\nkind = "school"\npolygon = {corners}\n')
    for arguments, word in (((), "Expected error"), (("--reach",), "How many readers hear")):
        done = CliRunner().invoke(app, ["picture", str(path), str(tmp_path / "zone.svg"), *arguments])
        assert done.exit_code == 0, done.output
        svg = (tmp_path / "zone.svg").read_text()
        assert word in svg
        assert "our-school" in svg
        assert "has walked here yet" in svg
        assert "OpenStreetMap" not in svg


def test_a_zone_is_drawn_with_its_footpaths_and_whose_map_they_are(tmp_path: Path) -> None:
    path = write_config(tmp_path, tmp_path / "stick")
    whose = 'attribution = "(c) OpenStreetMap contributors, ODbL 1.0"\n'
    line = [[126.9500, 37.5398], [126.9505, 37.5402]]
    path.write_text(f"{whose}{path.read_text()}[[footpaths]]\nline = {line}\n")
    done = CliRunner().invoke(app, ["picture", str(path), str(tmp_path / "zone.svg")])
    assert done.exit_code == 0, done.output
    svg = (tmp_path / "zone.svg").read_text()
    assert "footpath" in svg
    assert "OpenStreetMap contributors, ODbL 1.0" in svg
