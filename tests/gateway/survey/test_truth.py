"""The true way of a walker: every format of the file, what is left out, and how GPS is smoothed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.recording import RecordedSite
from gateway.survey.truth import ACCURACY_MAX_M, TrueWalk, load_walk, moment_of
from gateway.survey.write import RecordingError
from gateway.zone import Plane

ORIGIN = (126.95, 37.54)
PLANE = Plane(*ORIGIN)
SITE = RecordedSite("yard", (0, 0, 100, 100), ("1", "2"), np.array([[0.0, 0, 3], [100, 0, 3]]), origin_lonlat=ORIGIN)
START_S = 1_772_439_300.0  # 2026-03-02T08:15:00Z
SEED = 20260302


def walk(
    tmp_path: Path, text: str, *, name: str = "walk.csv", site: RecordedSite = SITE, start: float | None = None
) -> TrueWalk:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_walk(path, site, start)


def test_tapped_points_are_straight_and_even_in_between(tmp_path: Path) -> None:
    w = walk(tmp_path, "t_s,x_m,y_m\n30,30,40\n0,0,0\n40,30,40\n")
    where, velocity = w.at(np.array([15.0, 35.0, -1.0, 41.0]))
    np.testing.assert_allclose(where[:2], [[15, 20], [30, 40]])
    np.testing.assert_allclose(np.hypot(*velocity[:2].T), [50 / 30, 0], atol=1e-9)
    assert np.isnan(where[2:]).all()
    assert w.source == "tapped"


def test_nobody_knows_where_the_walker_was_in_a_long_gap(tmp_path: Path) -> None:
    w = walk(tmp_path, "t_s,x_m,y_m\n0,0,0\n60,60,0\n200,200,0\n230,230,0\n")
    known = np.isfinite(w.at(np.array([30.0, 130.0, 215.0]))[0]).all(axis=1)
    assert known.tolist() == [True, False, True]


def test_degrees_are_laid_on_the_site(tmp_path: Path) -> None:
    (lon1, lat1), (lon2, lat2) = PLANE.to_lonlat(10, 20), PLANE.to_lonlat(50, 20)
    w = walk(tmp_path, f"t_s,lat,lng\n0,{lat1},{lon1}\n40,{lat2},{lon2}\n")
    np.testing.assert_allclose(w.xy_m, [[10, 20], [50, 20]], atol=1e-3)


@pytest.mark.parametrize(
    "times",
    [
        ("2026-03-02T08:15:05Z", "2026-03-02T08:15:15Z"),
        ("2026-03-02T17:15:05+09:00", "2026-03-02T17:15:15+09:00"),
        ("2026-03-02T08:15:05", "2026-03-02T08:15:15.000"),
        (f"{START_S + 5}", f"{START_S + 15}"),
        (f"{(START_S + 5) * 1000:.0f}", f"{(START_S + 15) * 1000:.0f}"),
    ],
)
def test_dates_are_told_from_seconds(tmp_path: Path, times: tuple[str, str]) -> None:
    w = walk(tmp_path, f"time,x_m,y_m\n{times[0]},0,0\n{times[1]},9,0\n", start=START_S)
    np.testing.assert_allclose(w.t_s, [5, 15])


GPX = """<?xml version="1.0"?><gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{}</trkseg></trk></gpx>"""


def test_a_gpx_track_is_smoothed_and_its_bad_points_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    points, true = [], []
    for n in range(120):
        x, y = 1.2 * n, 10.0
        bad = n % 30 == 7
        dx, dy = rng.normal(0, 3, 2) if not bad else (80.0, 80.0)
        lon, lat = PLANE.to_lonlat(x + dx, y + dy)
        at = f"2026-03-02T08:{15 + n // 60:02d}:{n % 60:02d}Z"
        points.append(
            f'<trkpt lat="{lat:.8f}" lon="{lon:.8f}"><time>{at}</time><hdop>{9 if bad else 0.8}</hdop></trkpt>'
        )
        if not bad:
            true.append((x, y))
    w = walk(tmp_path, GPX.format("".join(points)), name="walk.gpx", start=START_S)
    assert w.source == "GPS"
    assert w.skipped == {f"GPS worse than {ACCURACY_MAX_M:.0f} m": 4}
    off = np.hypot(*(w.xy_m - np.array(true)).T)
    assert off[5:-5].mean() < 2.0, "raw points are 3.8 m off"


def test_a_csv_of_gps_says_how_good_it_is(tmp_path: Path) -> None:
    rows = [(n, *PLANE.to_lonlat(2.0 * n, 0.0), 4 if n != 3 else 50) for n in range(6)]
    w = walk(tmp_path, "time,lon,lat,accuracy_m\n" + "\n".join(",".join(map(str, row)) for row in rows))
    assert w.source == "GPS"
    assert w.t_s.tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_allclose(w.xy_m[:, 0], 2 * w.t_s, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no time and place"),
        ("a,b\n1,2\n", "its first line must be t_s,x_m,y_m or t_s,lon,lat"),
        ("t_s,x_m,y_m\n1,2,3\n", "fewer than two usable points"),
        ("t_s,x_m,y_m\n1,2\nx,1,1\n,,\n", "1 row too short, 2 no time or place"),
        ("time,x_m,y_m\n2026-03-02T08:15:05Z,0,0\n2026-03-02T08:15:06Z,0,0\n", "give --start"),
        ("t_s,lon,lat\n0,400,10\n1,10,95\n", "1 no time or place, 1 with lon and lat exchanged"),
        ("<?xml version='1.0'?><gpx><trk>", "line 1: not XML"),
        ("<gpx><trkpt lat='x' lon='1'/></gpx>", "1 no time or place"),
    ],
)
def test_a_walk_that_cannot_be_read_says_what_is_missing(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(RecordingError) as caught:
        walk(tmp_path, text)
    assert word in str(caught.value)


def test_degrees_need_an_origin(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"site\.json has no origin; give the site"):
        walk(
            tmp_path,
            "t_s,lon,lat\n0,127,37\n9,127,37\n",
            site=RecordedSite("y", (0, 0, 1, 1), ("1",), np.zeros((1, 3))),
        )
    with pytest.raises(RecordingError, match="cannot be read"):
        load_walk(tmp_path / "nothing.csv", SITE, None)


def test_moments() -> None:
    assert moment_of("2026-03-02T08:15:00Z") == START_S
    assert moment_of("yesterday") is None


CELL = (
    st.text(max_size=6) | st.floats().map(str) | st.sampled_from(["1", "2.5", "126.95", "37.5", "2026-03-02T08:15:05Z"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    header=st.sampled_from(["t_s,x_m,y_m", "time,lon,lat,accuracy_m", "utc,latitude,longitude,hdop", "<gpx"]),
    lines=st.lists(st.lists(CELL, max_size=5).map(",".join), max_size=20),
)
def test_junk_is_left_out_or_refused_in_words(tmp_path: Path, header: str, lines: list[str]) -> None:
    try:
        w = walk(tmp_path, "\n".join([header, *lines]), start=START_S)
    except RecordingError:
        return
    assert (np.diff(w.t_s) > 0).all()
    assert np.isfinite(w.xy_m).all()
