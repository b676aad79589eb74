"""Check that the locating benches still run, on small data made here, before a person needs their figures."""

import importlib
import json
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.locate.tracker import LATE_EVERY
from gateway.recording import Floats, RecordedSite, Survey, Track
from gateway.survey import read, write
from tests.bench import __main__ as bench
from tests.bench import _families, _folds, _held, _ours, _recorded, _speed, _zones, speed, street
from tests.roots import SHARED

READERS: Floats = np.array([[0.0, 0.0, 2.5], [9.0, 0.0, 2.5], [9.0, 6.0, 2.5], [0.0, 6.0, 2.5]])
TOOLS = pytest.mark.skipif(_recorded.missing() is not None, reason=_recorded.missing() or "")


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


@TOOLS
def test_what_is_left_out_of_a_survey_is_not_in_it_and_the_fixes_there_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_folds, "ROUTE_M", 1.5)  # the lattice's rows are 1 m beside the walk
    folder = make_site(tmp_path / "room")
    site = read.load_site(folder)
    survey, track = read.load_survey(folder, site), read.load_track(folder, site, "there_and_back")
    for fold in ("thinned", "route", "quarter"):
        for left, tracks, where in _folds._parts(site, survey, [track], fold):
            assert len(left) < len(survey)
            assert len(tracks) == 1
            if fold == "route":
                assert np.abs(left.xy_m[:, 1] - 2.0).min() >= _folds.ROUTE_M  # the walk is on y = 2
            if fold == "quarter":
                assert not where(left.xy_m).any()
    quarters = [where for *_, where in _folds._parts(site, survey, [track], "quarter")]
    inside = np.array([where(np.array([[1.0, 1.0], [8.0, 5.0], [4.4, 2.9]])) for where in quarters])
    assert (inside.sum(axis=0) == 1).all()  # each place is in one quarter
    folds = list(_folds.folds_of(_recorded.tools(), folder, ("whole", "none", "one way")))
    assert [fold.name for fold in folds] == ["whole", "none"]  # this survey has no headings
    whole, none = folds
    assert whole.ours is not None
    assert none.ours is not None
    assert none.rows == 0
    means = [_held.mean_m(_held.cut([fold.ours], lagged=False)) for fold in folds if fold.ours]
    assert means[0] < means[1]
    for text in (_folds.overview(folds), _folds.table(folds)):
        assert "| room |" in text
        assert f"{means[0]:.2f}" in text


def test_a_radius_factor_is_what_the_other_sites_ask_for() -> None:
    def part(site: str, off_m: float) -> _held.Held:
        off = np.linspace(0.0, off_m, 101)
        rows = np.zeros(101, dtype=bool)
        return _held.Held(site, off, np.full(101, 1.0), np.full(101, 2.0), rows, rows, np.zeros((101, 2)))

    folds = [_folds.Fold(name, "whole", 9, part(name, off), None) for name, off in (("danis_room", 4.0), ("x", 2.0))]
    assert _folds._factor([part("x", 2.0)], 50) == pytest.approx(1.0)
    assert _folds._factor([part("x", 2.0)], 90) == pytest.approx(0.9)
    row = next(line for line in _folds.radii_left_out(folds).splitlines() if "danis_room" in line)
    assert "| 26/50 |" in row  # radii of 1 and 2 m, errors spread over 0 to 4 m
    assert "1.00 and 0.90" in row


def test_standing_is_told_from_walking_and_intervals_resample_sites() -> None:
    truth = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 0.0]])
    track = Track("a", np.arange(20.0), np.zeros(20, dtype=np.int64), np.zeros(20), np.array([0.0, 10.0, 20.0]), truth)
    fixes = [(float(t), min(float(t), 10.0), 0.5, 0.4, 0.6, 0.0) for t in range(1, 20)]
    found = _held.held("a", [track], {"a": [*fixes, (25.0, 0.0, 0.0, 1.0, 1.0, 0.0), (5.0, 5.0, 0.0, 1.0, 1.0, 2.0)]})
    assert len(found.off_m) == 20  # 25 s is after the truth
    walking, standing = (_held.cut([found], lagged=False, standing=each) for each in (False, True))
    assert [len(parts[0].off_m) for parts in (walking, standing)] == [10, 9]
    assert _held.mean_m(standing) == pytest.approx(0.5)
    assert (_held.cover(walking, 50), _held.cover(walking, 90)) == (0.0, 1.0)
    assert _held.interval(standing, _held.mean_m) is None  # one site says nothing about others
    sites = [
        _held.held(str(n), [track], {"a": [(t, x, y + n, 1.0, 1.0, 0.0) for t, x, y, *_ in fixes]}) for n in range(6)
    ]
    ends = _held.interval(sites, _held.mean_m)
    assert ends is not None
    assert 0.5 < ends[0] < _held.mean_m(sites) < ends[1] < 5.5
    assert _held.ratio(sites[1:], sites[1:]) == pytest.approx(1.0)


def test_a_family_is_judged_and_its_table_has_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.walks.families.WALK_S", 25.0)
    monkeypatch.setattr("sim.walks.families.STILL_S", (25.0, 30.0))
    said: list[str] = []
    table = _families.judge("judge", 2, 3, reference=False, said=said.append)
    assert len(said) == len(table.judged) == 2
    figures, text = table.figures(), table.text("Judge")
    assert 0.0 < float(figures["instant_ours_mean_m"]) < 60.0
    assert 0.0 <= float(figures["lagged_standing_ours_cover90"]) <= 1.0
    assert "instant_reference_mean_m" not in figures
    assert "| every site | 2 |" in text
    assert "| kind: street | 1 |" in text


def test_the_yardstick_is_work_and_the_speed_bench_has_both_parts() -> None:
    assert 0.5 < _speed.yardstick_ms(time.process_time) < 500.0
    assert speed.PARTS == ("engine", "gateway")
    assert set(_speed.GATEWAY) >= {"us_a_fix", "longest_tick_with_fixes_ms"}
