"""A recorded site: what is written is read back; what is junk is counted and never raises."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.recording import Area, DeviceLaw, RecordedSite, Survey, TimedFix, Track
from gateway.survey import read, write
from gateway.survey.replay import ReplayEngine
from gateway.survey.write import RecordingError
from gateway.zone import DangerArea
from tests.roots import RECORDED

"""Recorded sites, where a checkout has them beside it."""

SITE = RecordedSite(
    name="yard",
    bounds_m=(-5.0, -2.0, 40.0, 20.5),
    reader_ids=("r1", "gate, north", "3"),
    readers_m=np.array([[0.0, 0.0, 3.5], [30.25, 1.5, 2.5], [12.0, 18.125, 4.0]]),
    worn="body",
    tag_height_m=1.1,
    radio="802.15.4",
    channel=DeviceLaw(-52.0, 2.3, 6.0),
    seen_tracks=("morning",),
    tag_power_dbm=-57.5,
    footpaths=(np.array([[0.0, -3.0], [30.125, -3.0], [30.125, 9.5]]), np.array([[0.0, -3.0], [-5.0, -2.0]])),
    places=(Area("school", np.array([[0.0, 0.0], [20.5, 0.0], [20.5, 9.25]])),),
    dangers=(Area("river", np.array([[30.0, 0.0], [40.0, 0.0], [40.0, 8.0], [30.0, 8.0]]), 12.5),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write.save_site(tmp_path, SITE)
    return tmp_path


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_site_comes_back_as_it_was_written(folder: Path) -> None:
    back = read.load_site(folder)
    assert np.array_equal(back.readers_m, SITE.readers_m)
    for name in ("name", "bounds_m", "reader_ids", "worn", "tag_height_m", "radio", "channel", "seen_tracks", "notes"):
        assert getattr(back, name) == getattr(SITE, name), name
    assert back.tag_power_dbm == SITE.tag_power_dbm
    for got, wrote in zip(back.footpaths, SITE.footpaths, strict=True):
        assert np.array_equal(got, wrote)


def test_places_and_dangers_come_back_and_none_is_not_the_same_as_nobody_says(folder: Path) -> None:
    back = read.load_site(folder)
    for got, wrote in ((back.places, SITE.places), (back.dangers, SITE.dangers)):
        assert got is not None
        assert wrote is not None
        for one, other in zip(got, wrote, strict=True):
            assert (one.id, one.warn_m) == (other.id, other.warn_m)
            assert np.array_equal(one.ring_m, other.ring_m)
    write.save_site(folder, replace(SITE, places=(), dangers=None))
    assert read.load_site(folder).places == ()
    assert read.load_site(folder).dangers is None


CORNERS = [[0, 0], [9, 0], [9, 9]]


@pytest.mark.parametrize(
    ("key", "areas", "word"),
    [
        ("places", {"id": "a"}, "places: not a list of at most 2000"),
        ("places", [{"id": f"{n}", "polygon": CORNERS} for n in range(2001)], "places: not a list of at most 2000"),
        ("places", ["school"], "places, entry 1: no id of its own"),
        ("dangers", [{"id": 7, "polygon": CORNERS}], "dangers, entry 1: no id of its own"),
        ("places", [{"id": "a", "polygon": CORNERS}] * 2, "places, entry 2: no id of its own"),
        ("places", [{"id": "a"}], "places, entry 1 ('a'): its polygon is not 3 to 200 corners [x, y]"),
        ("places", [{"id": "a", "polygon": [[0, 0], [9, 0], [0, 0]]}], "entry 1 ('a'): its polygon is not 3 to 200"),
        ("places", [{"id": "a", "polygon": [*CORNERS, [1, 1e9]]}], "entry 1 ('a'): its polygon is not 3 to 200"),
        ("places", [{"id": "a", "polygon": [*CORNERS, [1, None]]}], "entry 1 ('a'): its polygon is not 3 to 200"),
        ("places", [{"id": "a", "polygon": CORNERS * 67}], "entry 1 ('a'): its polygon is not 3 to 200"),
        ("dangers", [{"id": "a", "polygon": CORNERS, "warn_m": -1}], "entry 1 ('a'): warn_m is not 0 to 200 metres"),
        ("dangers", [{"id": "a", "polygon": CORNERS, "warn_m": "x"}], "entry 1 ('a'): warn_m is not 0 to 200 metres"),
    ],
)
def test_an_area_that_is_none_is_refused_with_its_entry_and_what_would_be_right(
    folder: Path, key: str, areas: object, word: str
) -> None:
    raw = json.loads((folder / "site.json").read_text()) | {key: areas}
    put(folder, "site.json", json.dumps(raw))
    with pytest.raises(RecordingError, match=r"site\.json") as caught:
        read.load_site(folder)
    assert word in str(caught.value)
    assert "; " in str(caught.value)


def test_a_danger_without_a_distance_has_that_of_a_gateways_configuration(folder: Path) -> None:
    raw = json.loads((folder / "site.json").read_text()) | {"dangers": [{"id": "a", "polygon": CORNERS}]}
    put(folder, "site.json", json.dumps(raw))
    (danger,) = read.load_site(folder).dangers or ()
    assert danger.warn_m == DangerArea("a", ()).warn_m


@pytest.mark.parametrize(
    ("text", "power_dbm"),
    [('{"power_dbm": -57}', -57.0), ("{}", None), ("[", None), ("[1]", None), ('{"power_dbm": "loud"}', None),
     ('{"power_dbm": 1e9}', None), ("", None)],
)  # fmt: skip
def test_a_track_may_say_its_tags_own_power(folder: Path, text: str, power_dbm: float | None) -> None:
    put(folder, "tracks/w.sightings.csv", "t_s,reader,rssi_dbm\n0,r1,-70\n")
    assert read.load_track(folder, SITE, "w").power_dbm is None
    put(folder, "tracks/w.info.json", text)
    assert read.load_track(folder, SITE, "w").power_dbm == power_dbm


@pytest.mark.parametrize(
    ("footpaths", "kept", "note"),
    [
        ([[[0, 0], [9, 0]], "x", [[1, 2]], [[0, 0], [1, None]], 7], 1, "4 footpaths that are no line"),
        ([[[0, n], [9, n]] for n in range(2003)], 2000, "3 footpaths over 2000 lines"),
        ([[[n, k] for n in range(1500)] for k in range(4)], 2, "2 footpaths over 2000 lines or 4000 pieces"),
        ([[[0, 0], [1e9, 0]]], 0, "1 footpaths that are no line"),
        ({"a": 1}, 0, ""),
    ],
)
def test_footpaths_that_cannot_be_used_are_left_out_and_told(
    folder: Path, footpaths: object, kept: int, note: str
) -> None:
    raw = json.loads((folder / "site.json").read_text()) | {"footpaths": footpaths}
    put(folder, "site.json", json.dumps(raw))
    site = read.load_site(folder)
    assert len(site.footpaths) == kept
    assert not note or any(note in told for told in site.notes)
    ReplayEngine(site, Survey.empty())


def test_a_survey_comes_back_file_by_file(folder: Path) -> None:
    first = Survey(
        np.array([[1.0, 2.0], [3.5, 4.25]]),
        np.array([90.0, math.nan]),
        np.array([1, 0]),
        np.array([-61.5, -80.0]),
        np.array([3.0, 1.0]),
    )
    write.save_survey(folder, SITE, "b", first)
    write.save_survey(folder, SITE, "a", Survey(*(column[:1] for column in _columns(first))))
    back = read.load_survey(folder, SITE)
    assert len(back) == 3
    assert not back.skipped
    for got, wrote in zip(_columns(back), _columns(first), strict=True):
        np.testing.assert_array_equal(got[1:], wrote)
        np.testing.assert_array_equal(got[:1], wrote[:1])


def _columns(survey: Survey) -> tuple[np.ndarray, ...]:
    return survey.xy_m, survey.heading_deg, survey.reader, survey.rssi_dbm, survey.count


def test_a_site_without_a_survey_has_an_empty_one(folder: Path) -> None:
    assert len(read.load_survey(folder, SITE)) == 0
    assert read.load_survey(folder, SITE).xy_m.shape == (0, 2)


def test_a_track_comes_back_with_its_truth(folder: Path) -> None:
    track = Track(
        "home ward",
        np.array([0.0, 0.5, 0.5]),
        np.array([1, 0, 2]),
        np.array([-70.0, -71.5, -90.0]),
        np.array([0.0, 2.0]),
        np.array([[1.0, 1.0], [2.0, 3.0]]),
    )
    write.save_track(folder, SITE, track)
    (back,) = read.load_tracks(folder, SITE)
    assert back.name == track.name
    assert not back.skipped
    assert back.path_xy_m is None
    for name in ("t_s", "reader", "rssi_dbm", "truth_t_s", "truth_xy_m"):
        np.testing.assert_array_equal(getattr(back, name), getattr(track, name))


def test_a_path_without_times_comes_back(folder: Path) -> None:
    walked = np.array([[0.0, 0.0], [4.0, 1.0], [4.0, 9.0]])
    write.save_track(
        folder, SITE, Track("w", np.zeros(1), np.zeros(1, dtype=np.int64), np.array([-60.0]), None, None, walked)
    )
    back = read.load_track(folder, SITE, "w")
    np.testing.assert_array_equal(back.path_xy_m, walked)
    assert back.truth_t_s is None


def test_fixes_have_the_agreed_header(tmp_path: Path) -> None:
    path = tmp_path / "out" / "w.fixes.csv"
    assert write.write_fixes(path, [TimedFix(1.0, 2.0, 3.0, 0.5, 1.5), TimedFix(0.0, 2.0, 3.0, 0.5, 1.5, 3.0)]) == 2
    assert path.read_text().splitlines() == [
        "t_s,x_m,y_m,r50_m,r90_m,lag_s",
        "1.000,2.000,3.000,0.500,1.500,0",
        "0.000,2.000,3.000,0.500,1.500,3",
    ]


def test_rows_that_say_nothing_usable_are_counted_by_reason(folder: Path) -> None:
    text = (
        "\ufeffT_s , reader,rssi_dbm,channel\n3.0,3,-70,37\n1.0,r1,-71,38\n,r1,-70,37\nnan,r1,-70,37\n2.0,r9,-70,37\n"
        "2.0,r1,42,37\n2.0,r1,,37\n2.0,r1,127,37\n2.0,r1,inf,37\n2.0\n\n1e9,r1,-60,37\n"
        '2.0,"gate, north",-72,37\n2.5,"r1,-70,37\n'
    )
    put(folder, "tracks/w.sightings.csv", text)
    track = read.load_track(folder, SITE, "w")
    assert track.t_s.tolist() == [1.0, 2.0, 3.0]
    assert track.reader.tolist() == [0, 1, 2]
    assert track.skipped == {
        "no time": 2,
        "unknown reader": 1,
        "no possible level": 4,
        "row too short": 2,
        "far off in time": 1,
    }


def test_truth_is_sorted_and_each_time_is_there_once(folder: Path) -> None:
    put(folder, "tracks/w.sightings.csv", "t_s,reader,rssi_dbm\n0,r1,-70\n")
    put(folder, "tracks/w.truth.csv", "t_s,x_m,y_m\n2,2,2\n0,0,0\n2,3,3\n1,,5\nx,1,1\n")
    track = read.load_track(folder, SITE, "w")
    assert track.truth_t_s is not None
    assert track.truth_xy_m is not None
    assert track.truth_t_s.tolist() == [0.0, 2.0]
    assert track.truth_xy_m.tolist() == [[0.0, 0.0], [3.0, 3.0]]
    assert track.skipped == {"truth unreadable": 2, "truth repeated": 1}


@pytest.mark.parametrize("text", ["", "\n\n", "t_s,reader,rssi_dbm\n"])
def test_a_track_of_nothing_is_a_track(folder: Path, text: str) -> None:
    put(folder, "tracks/w.sightings.csv", text)
    assert len(read.load_track(folder, SITE, "w").t_s) == 0


def test_survey_rows_that_say_nothing_are_counted(folder: Path) -> None:
    text = "x_m,y_m,reader,rssi_dbm,heading_deg\n1,2,r1,-60,-90\n1,2,r1,-60,\n1,,r1,-60,\n1,2,q,-60,\n1,2,r1,99,\n"
    put(folder, "calibration/walk.csv", text)
    put(folder, "calibration/more.csv", ",".join(write.SURVEY) + "\n1,2,,r1,-60,0\n1,2,450,r1,-60,2\n")
    survey = read.load_survey(folder, SITE)
    assert survey.count.tolist() == [2.0, 1.0, 1.0]
    np.testing.assert_array_equal(survey.heading_deg, [90.0, 270.0, math.nan])
    assert survey.skipped == {"no position": 1, "unknown reader": 1, "no possible level": 1, "no count": 1}


def test_the_least_a_site_may_say(tmp_path: Path) -> None:
    raw = {"readers": [{"id": 7, "x_m": "1", "y_m": 2}, {"id": 8, "x_m": 11, "y_m": 4}], "bounds": [0, 0, "a", 1]}
    raw |= {"surprise": [1, 2], "tag": {"worn": "on a drone", "height_m": None}, "channel": {"p0_dbm": 5}}
    put(tmp_path, "site.json", json.dumps(raw))
    site = read.load_site(tmp_path)
    assert site.reader_ids == ("7", "8")
    assert site.readers_m[:, 2].tolist() == [2.5, 2.5]
    assert site.bounds_m == (-4.0, -3.0, 16.0, 9.0)
    assert (site.worn, site.tag_height_m, site.radio, site.channel) == ("body", 1.0, "ble", None)
    assert site.name == tmp_path.name
    assert len(site.notes) == 6


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "line 1: not JSON"),
        ('{"name": "x",\n "readers": ]}', "line 2: not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "readers: not a list"),
        ('{"readers": []}', "readers: not a list"),
        ('{"readers": [{"x_m": 1, "y_m": 1}]}', "entry 1: no id"),
        (
            '{"readers": [{"id": "a", "x_m": 1, "y_m": 1}, {"id": "a", "x_m": 1, "y_m": 1}]}',
            "entry 2: no id of its own",
        ),
        ('{"readers": [{"id": "a", "x_m": NaN, "y_m": 1}]}', "'a': no x_m and y_m"),
        ('{"readers": [{"id": "a", "x_m": 0, "y_m": 0}, {"id": "b", "x_m": 9e9, "y_m": 1}]}', "over 20000 m apart"),
    ],
)
def test_a_site_that_cannot_be_used_says_why(tmp_path: Path, text: str, word: str) -> None:
    put(tmp_path, "site.json", text)
    with pytest.raises(RecordingError, match=r"site\.json") as caught:
        read.load_site(tmp_path)
    assert word in str(caught.value)
    assert "; " in str(caught.value)


def test_a_missing_folder_a_missing_column_and_a_wrong_name_say_what_to_do(folder: Path) -> None:
    with pytest.raises(RecordingError, match=r"a recorded site is a folder with a site\.json"):
        read.load_site(folder / "nowhere")
    with pytest.raises(RecordingError, match="name the folder of a recorded site"):
        read.track_names(folder)
    put(folder, "tracks/w.sightings.csv", "time,reader,rssi\n1,r1,-60\n")
    with pytest.raises(RecordingError, match=r"line 1: no column t_s, rssi_dbm; .* t_s,reader,rssi_dbm"):
        read.load_track(folder, SITE, "w")
    with pytest.raises(RecordingError, match="cannot name a file"):
        write.save_survey(folder, SITE, "../up", Survey.empty())


def test_a_write_that_fails_leaves_the_old_file(folder: Path) -> None:
    put(folder, "calibration/walk.csv", "old")
    (folder / "calibration" / "walk.csv.new").mkdir()  # in the way of the write, for root as well
    with pytest.raises(RecordingError, match=r"walk\.csv: cannot be written"):
        write.save_survey(folder, SITE, "walk", Survey.empty())
    assert (folder / "calibration" / "walk.csv").read_text() == "old"


CELL = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["r1", "3", "gate, north", "-70", "42", "nan", "-inf", "1e308", "0", '"', "", "1_0", "\x00", "٣"]),
    st.floats().map(str),
)
LINES = st.lists(st.lists(CELL, max_size=8).map(",".join), max_size=30).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(sightings=LINES, truth=LINES, walk=LINES, survey=LINES)
def test_no_row_can_surprise_what_works_on_it(folder: Path, sightings: str, truth: str, walk: str, survey: str) -> None:
    put(folder, "tracks/w.sightings.csv", "t_s,reader,rssi_dbm\n" + sightings)
    put(folder, "tracks/w.truth.csv", "t_s,x_m,y_m\n" + truth)
    put(folder, "tracks/w.path.csv", "x_m,y_m\n" + walk)
    put(folder, "calibration/walk.csv", ",".join(write.SURVEY) + "\n" + survey)
    track = read.load_track(folder, SITE, "w")
    found = read.load_survey(folder, SITE)
    for array in (track.t_s, track.rssi_dbm, track.truth_t_s, track.truth_xy_m, track.path_xy_m, found.xy_m,
                  found.rssi_dbm, found.count):  # fmt: skip
        assert array is None or np.isfinite(array).all()
    for readers in (track.reader, found.reader):
        assert ((readers >= 0) & (readers < 3)).all()
    assert (np.diff(track.t_s) >= 0).all()
    assert len(track.t_s) == 0 or np.ptp(track.t_s) <= 2 * read.SPAN_MAX_S
    assert track.truth_t_s is None or (np.diff(track.truth_t_s) > 0).all()


METRES = st.sampled_from([0.0, 1.0, 1.0001, -40.0, 90.0, 250.0, 19_999.0]) | st.floats(-300, 300)
RINGS = st.lists(st.tuples(METRES, METRES).map(list), min_size=3, max_size=7)
AREAS = st.lists(st.fixed_dictionaries({"id": st.sampled_from("abcd"), "polygon": RINGS}), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(places=AREAS, dangers=AREAS, footpaths=st.lists(RINGS, max_size=3), lat=st.sampled_from([0.0, 37.5, -84.9]))
def test_whatever_ground_is_read_can_be_replayed_on(
    folder: Path, places: object, dangers: object, footpaths: object, lat: float
) -> None:
    raw = json.loads((folder / "site.json").read_text()) | {"origin": {"lon": 179.999, "lat": lat}}
    raw |= {"places": places, "dangers": dangers, "footpaths": footpaths}
    raw.pop("channel", None)
    put(folder, "site.json", json.dumps(raw))
    put(folder, "tracks/w.sightings.csv", "t_s,reader,rssi_dbm\n0.5,r1,-70\n1.2,3,-80\n1.3,r1,-60\n4,r1,-60\n")
    try:
        site = read.load_site(folder)
    except RecordingError:
        return
    engine = ReplayEngine(site, Survey.empty())
    assert engine.space.cells < 5000
    fixes = list(engine.replay(read.load_track(folder, SITE, "w"), lag_s=2.0))
    assert len(fixes) > 2
    assert np.isfinite(fixes).all()
    assert np.abs([fix[1:3] for fix in fixes]).max() < 400, "near a reader, wherever the areas are"


KEYS = st.sampled_from(
    [
        "readers",
        "id",
        "x_m",
        "y_m",
        "z_m",
        "bounds",
        "tag",
        "channel",
        "seen_tracks",
        "worn",
        "places",
        "dangers",
        "polygon",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
GOOD_READER = {"readers": [{"id": "a", "x_m": 1, "y_m": 2}]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.binary(max_size=60) | VALUES | st.dictionaries(KEYS, VALUES).map(lambda junk: junk | GOOD_READER))
def test_a_site_is_read_or_refused_in_words(folder: Path, data: object) -> None:
    (folder / "site.json").write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    try:
        site = read.load_site(folder)
    except RecordingError:
        return
    assert np.isfinite(site.readers_m).all()
    assert np.isfinite(site.bounds_m).all()


@pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded sites in {RECORDED}")
@pytest.mark.parametrize("name", sorted(path.name for path in RECORDED.glob("*")) if RECORDED.is_dir() else [])
def test_every_recorded_site_is_read_whole(name: str) -> None:
    folder = RECORDED / name
    site = read.load_site(folder)
    assert not site.notes
    survey = read.load_survey(folder, site)
    assert len(survey) > 100
    assert not survey.skipped
    tracks = list(read.load_tracks(folder, site))
    for track in tracks:
        assert len(track.t_s) > 500
        assert track.truth_t_s is not None
        lines = (folder / "tracks" / f"{track.name}.sightings.csv").read_text().splitlines()
        assert len(track.t_s) + sum(track.skipped.values()) == len(lines) - 1
    impossible = sum(track.skipped.get("no possible level", 0) for track in tracks)
    assert impossible == (2 if name == "danis_room" else 0)
