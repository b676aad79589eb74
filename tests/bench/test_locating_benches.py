"""Check that the locating benches still run, on small data made here, before a person needs their figures."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from gateway.locate.tracker import LATE_EVERY
from gateway.recording import Floats, RecordedSite, Survey, Track
from gateway.survey import write
from tests.bench import __main__ as bench
from tests.bench import _ours, _recorded, _speed, _zones, street
from tests.roots import SHARED

READERS: Floats = np.array([[0.0, 0.0, 2.5], [9.0, 0.0, 2.5], [9.0, 6.0, 2.5], [0.0, 6.0, 2.5]])
TOOLS = pytest.mark.skipif(_recorded.missing() is not None, reason=f"{_recorded.missing()}")


def level_dbm(xy_m: Floats) -> Floats:
    gap_m = np.sqrt(((READERS[None, :, :2] - xy_m[:, None]) ** 2).sum(-1) + 1.5**2)
    found: Floats = -50.0 - 22.0 * np.log10(gap_m)
    return found


def make_site(folder: Path) -> Path:
    """A room with a reader in each corner, a walk test on a grid, and a walk along its length and back."""
    site = RecordedSite("room", (0.0, 0.0, 9.0, 6.0), ("a", "b", "c", "d"), READERS, worn="rig")
    write.save_site(folder, site)
    x, y = np.meshgrid([1.0, 3.0, 5.0, 7.0], [1.0, 3.0, 5.0])
    at = np.stack([x.ravel(), y.ravel()], axis=1)
    place, reader = np.indices((len(at), 4)).reshape(2, -1)
    ones = np.ones(len(place))
    write.save_survey(folder, site, "grid", Survey(at[place], np.nan * ones, reader, level_dbm(at).ravel(), ones))
    seconds = np.arange(24)
    xy = np.stack([1.0 + 7.0 * (1.0 - np.abs(seconds - 12) / 12.0), np.full(24, 2.0)], axis=1)
    row, reader = np.indices((24, 4)).reshape(2, -1)
    level = level_dbm(xy).ravel() + np.random.default_rng(4).normal(0.0, 1.0, len(row))
    track = Track("there_and_back", row + 0.9, reader, level, truth_t_s=seconds + 1.0, truth_xy_m=xy)
    write.save_track(folder, site, track)
    return folder


@TOOLS
def test_a_site_is_scored_beside_the_reference_and_survives_a_fault(tmp_path: Path) -> None:
    shared, folder = _recorded.tools(), make_site(tmp_path / "room")
    mine = _recorded.ours(folder)
    found = _recorded.scored(shared, folder, mine.fixes)["pooled"]
    assert found["instant"]["mean_m"] < 1.5
    assert found["lagged"]["mean_m"] < 1.5
    assert mine.ms_per_fix > 0
    assert _recorded.by_reference(shared, folder)["pooled"]["instant"]["fixes"] == found["instant"]["fixes"]
    with _recorded.faulty(folder, "lose=0.5", 1) as home:
        broken = _recorded.scored(shared, folder, _recorded.ours(Path(home) / folder.name).fixes)["pooled"]
    assert broken["instant"]["mean_m"] < 2.0


@TOOLS
def test_zones_are_counted_by_the_gateways_words(tmp_path: Path) -> None:
    shared, folder = _recorded.tools(), make_site(tmp_path / "room")
    found = _zones.counted(shared, folder)
    assert len(found) == len(_zones.WAYS) * len(_zones.LAYOUTS) * 2
    for key in found:
        counted = _zones.summary(shared, [found], key)
        assert counted is not None
        assert counted["true_changes_per_min"] > 0 or key[2] == "merged"
        assert counted["accuracy"] > 0.6, key


def test_a_single_second_and_a_walk_are_located_on_a_street_of_readers() -> None:
    air = street.channel(2.2, 2.0, 0.0)
    road = street.Street.new(2, 3.0, air, street.SEED)
    survey_x = np.linspace(0.0, street.LENGTH_M, 60)
    arguments = road.readers_m, street.TAG_HEIGHT_M, street.LENGTH_M, survey_x, road.read(survey_x, "held out")
    x = np.linspace(60.0, 96.0, 31)
    level = road.read(x, "walk")
    once = _ours.once_on_path(*arguments)
    assert np.median(np.abs([once(row) - at for row, at in zip(level, x, strict=True)])) < 6.0
    for kind, fixes in _ours.walk_on_path(*arguments, level).items():
        assert len(fixes) >= 28, kind
        assert np.median(np.abs(fixes[10:, 1] - np.interp(fixes[10:, 0], np.arange(1.0, 32.0), x))) < 4.0, kind


@pytest.mark.parametrize("walk_test", [False, True])
def test_every_tag_gets_a_fix_every_second(walk_test: bool) -> None:
    zone, tags = _speed.zone(school=True), 40  # more than one batch
    engine = _ours.locator(zone, tags, walked=_speed._walked(zone) if walk_test else None)
    for now_s in range(LATE_EVERY + 1):
        engine.hear(_speed.second(tags, now_s), float(now_s))
        assert engine.step(float(now_s)) == tags


def test_an_unknown_benchmark_is_told_of_and_known_ones_write_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench.main(["nonsense"]) == 2
    assert "locating" in capsys.readouterr().out
    monkeypatch.setattr(_recorded, "SITES", SHARED / "nowhere")
    assert bench.main(["locating"]) == 0
    written = json.loads((tmp_path / "bench-results.json").read_text())["results"]["locating"]
    assert "is not there" in written["skipped"]
    assert "| locating | skipped |" in (tmp_path / "bench-results.md").read_text()


def test_every_benchmark_that_make_bench_runs_can_be_run() -> None:
    assert {"core", "frames", "lanes", "locating"} <= set(bench.known())
    for name in bench.known():
        assert callable(importlib.import_module(f"tests.bench.{name}").run), name
