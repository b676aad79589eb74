"""The score of a recorded track's fixes: how far off they are, checked against hand-made truth."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.__main__ import app
from gateway.recording import Floats, RecordedSite, TimedFix, Track
from gateway.survey import commands, write
from gateway.survey.replay import LAG_MAX_S, LAG_S
from gateway.survey.score import errors_m, located, score, table

SITE = RecordedSite("yard", (0.0, 0.0, 30.0, 30.0), ("a", "b", "c"), np.array([[0.0, 0, 3], [30, 0, 3], [15, 30, 3]]))
T = np.arange(0.0, 20.0, 0.5)
TRUTH: Floats = np.array([[0.0, 5.0], [20.0, 5.0]])


def track(name: str = "w", **truth: Floats | None) -> Track:
    known: dict[str, Floats | None] = {"truth_t_s": np.array([0.0, 20.0]), "truth_xy_m": TRUTH}
    return Track(
        name, T, np.zeros(len(T), dtype=np.int64), np.full(len(T), -60.0), **(known | truth), skipped={"no time": 2}
    )


def test_an_error_is_the_distance_to_the_truth_at_that_time() -> None:
    fixes = [TimedFix(5.0, 8.0, 9.0, 1.0, 5.0), TimedFix(-1.0, 0, 0, 1, 1), TimedFix(20.5, 0, 0, 1, 1)]
    assert errors_m(track(), fixes).tolist() == [[5.0, 1.0, 5.0]]  # truth at 5 s: (5, 5); it lasts from 0 to 20 s


def test_where_only_the_way_is_known_it_is_the_distance_to_it() -> None:
    walked = track(
        truth_t_s=None, truth_xy_m=None, path_xy_m=np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    )
    fixes = [TimedFix(0.0, 4.0, 3.0, 1, 1), TimedFix(99.0, 13.0, 14.0, 1, 1), TimedFix(1.0, -3.0, -4.0, 1, 1)]
    np.testing.assert_allclose(errors_m(walked, fixes)[:, 0], [3.0, 5.0, 5.0])


def test_figures_count_what_the_radii_held() -> None:
    s = score(4, np.array([[1.0, 1.0, 2.0], [2.0, 1.0, 2.0], [3.0, 1.0, 2.0], [6.0, 1.0, 2.0]]))
    assert (s.fixes, s.median_m, s.mean_m, s.cover_50, s.cover_90) == (4, 2.5, 3.0, 0.25, 0.5)
    assert s.p90_m == pytest.approx(5.1)
    assert math.isnan(score(7, np.zeros((0, 3))).mean_m)


def test_the_table_has_both_kinds_the_rows_left_out_and_no_seen_track_in_its_sum() -> None:
    site = RecordedSite("yard", SITE.bounds_m, SITE.reader_ids, SITE.readers_m, seen_tracks=("seen",))

    def off_by(metres: float) -> list[TimedFix]:
        return [TimedFix(t, t, 5.0 + metres, 3.0, 6.0, lag) for t in range(20) for lag in (0.0, 3.0)]

    runs = [
        located(track(name), lambda t: off_by(100.0 if t.name == "seen" else 2.0)) for name in ("one", "two", "seen")
    ]
    lines = list(table(runs, site))
    assert sum("instant" in line for line in lines) == 4
    assert sum("lag 3 s" in line for line in lines) == 4
    assert sum("2 rows left out: no time" in line for line in lines) == 3
    together = [line.split() for line in lines if line.startswith("all unseen tracks")]
    assert together[0][-8:] == ["40", "2.00", "2.00", "2.00", "100", "%", "100", "%"]
    nothing = located(track("x", truth_t_s=None, truth_xy_m=None), lambda t: [])
    assert "-" in list(table([nothing], site))[1]


def test_locate_writes_fixes_a_table_and_a_picture(tmp_path: Path) -> None:
    write.save_site(tmp_path, SITE)
    write.save_track(tmp_path, SITE, track())
    arguments = ["locate", str(tmp_path), "--out", str(tmp_path / "fixes"), "--plot", str(tmp_path / "w.svg")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "yard: 3 readers, no walk test" in done.output
    rows = np.genfromtxt(tmp_path / "fixes" / "w.fixes.csv", delimiter=",", names=True)
    assert set(rows["lag_s"]) == {0.0, 1.0, 2.0, LAG_S}, "the last seconds' late fixes come as soon as nothing more can"
    assert f"lag {LAG_S:g} s" in done.output
    assert "lag 1 s" not in done.output
    assert np.isfinite(rows["x_m"]).all()
    assert "</svg>" in (tmp_path / "w.svg").read_text()
    late = CliRunner().invoke(app, [*arguments, "--lag", f"{LAG_MAX_S + 1:g}"])
    assert late.exit_code == 2
    assert f"less than or equal to {LAG_MAX_S:g}" in " ".join(late.output.split())


def test_a_bar_shows_the_seconds_of_each_track_and_none_is_in_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.save_site(tmp_path, SITE)
    write.save_track(tmp_path, SITE, track())
    shown: dict[str, list[float]] = {}
    lengths: dict[str, float] = {}

    @contextmanager
    def bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
        lengths[what] = total
        yield shown.setdefault(what, []).append

    arguments = ["locate", str(tmp_path), "--out", str(tmp_path / "fixes"), "--lag", "0"]
    plain = CliRunner().invoke(app, arguments)
    monkeypatch.setattr(commands, "progress", bar)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    numbers = re.compile(r"[0-9.]+")  # a fix takes another time each time
    assert numbers.sub("", done.output) == numbers.sub("", plain.output), (
        "in a pipe there are the same lines without it"
    )
    assert list(lengths) == ["the map of the walk test", "locating w"]
    assert shown["locating w"] == sorted(shown["locating w"])
    assert 0.9 * lengths["locating w"] <= shown["locating w"][-1] <= lengths["locating w"]


def test_a_track_that_cannot_be_read_does_not_cost_the_others(tmp_path: Path) -> None:
    write.save_site(tmp_path, SITE)
    write.save_track(tmp_path, SITE, track())
    (tmp_path / "tracks" / "a.sightings.csv").write_text("wrong,header\n1,2\n")
    (tmp_path / "tracks" / "empty.sightings.csv").write_text("")
    done = CliRunner().invoke(app, ["locate", str(tmp_path), "--out", str(tmp_path / "fixes"), "--lag", "0"])
    assert done.exit_code == 1
    assert "a.sightings.csv, line 1: no column t_s, reader, rssi_dbm; its first line must be" in done.output
    assert (tmp_path / "fixes" / "w.fixes.csv").exists()
    assert (tmp_path / "fixes" / "empty.fixes.csv").read_text() == "t_s,x_m,y_m,r50_m,r90_m,lag_s\n"


def test_a_folder_that_is_no_site_is_told_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["locate", str(tmp_path), "--out", str(tmp_path / "fixes")])
    assert done.exit_code == 1
    assert "a recorded site is a folder with a site.json" in done.output
