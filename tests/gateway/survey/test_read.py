"""A recorded site is read, or refused with the next step; rows that cannot be used are counted and never raise."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from gateway.recording import Survey
from gateway.survey import read, write
from gateway.survey.replay import ReplayEngine
from gateway.survey.write import RecordingError
from gateway.zone import DangerArea
from tests import programs
from tests.gateway.survey.bed import SITE, put
from tests.roots import RECORDED

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


def test_a_site_without_a_survey_has_an_empty_one(folder: Path) -> None:
    assert len(read.load_survey(folder, SITE)) == 0
    assert read.load_survey(folder, SITE).xy_m.shape == (0, 2)


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
        ('{"readers": [{"id": "a", "x_m": "nan", "y_m": 1}]}', "'a': no x_m and y_m"),
        ('{"readers": [{"id": "a", "x_m": NaN, "y_m": 1}]}', "line 1: NaN is no usable number"),
        ('{"readers": [{"id": "a", "x_m": 1, "y_m": 1,\n"x_m": 2}]}', "line 2: the key 'x_m' is given twice"),
        ('{"readers": [{"id": "a", "x_m": 0, "y_m": 0}, {"id": "b", "x_m": 9e9, "y_m": 1}]}', "over 20000 m apart"),
    ],
)
def test_a_site_that_cannot_be_used_says_why(tmp_path: Path, text: str, word: str) -> None:
    put(tmp_path, "site.json", text)
    with pytest.raises(RecordingError, match=r"site\.json") as caught:
        read.load_site(tmp_path)
    assert word in str(caught.value)
    assert "; " in str(caught.value)


def test_a_site_with_a_key_twice_is_never_saved_again_without_one_of_them(folder: Path) -> None:
    text = (folder / "site.json").read_text().replace('"radio"', '"name": "another",\n"radio"', 1)
    put(folder, "site.json", text)
    for write_again in (lambda: write.add_seen_track(folder, "w"), lambda: write.set_tag_power(folder, -55.0)):
        with pytest.raises(RecordingError, match=r"site\.json, line \d+: the key 'name' is given twice .*keep one"):
            write_again()
    assert (folder / "site.json").read_text() == text


def test_a_column_that_is_there_twice_is_refused(folder: Path) -> None:
    put(folder, "tracks/w.sightings.csv", "t_s,reader,rssi_dbm,rssi_dbm\n1,r1,-60,-70\n")
    with pytest.raises(RecordingError, match="line 1: the column rssi_dbm is there twice; keep one of them"):
        read.load_track(folder, SITE, "w")


def test_heights_of_corners_and_of_footpaths_are_left_out(folder: Path) -> None:
    raw = json.loads((folder / "site.json").read_text())
    raw["footpaths"] = [[[*point, 12.5] for point in line] for line in raw["footpaths"]]
    raw["places"][0]["polygon"] = [[*point, 12.5] for point in raw["places"][0]["polygon"]]
    before = read.load_site(folder)
    put(folder, "site.json", json.dumps(raw))
    after = read.load_site(folder)
    assert after.notes == before.notes
    assert all((a == b).all() for a, b in zip(after.footpaths, before.footpaths, strict=True))
    assert after.places is not None
    assert before.places is not None
    assert (after.places[0].ring_m == before.places[0].ring_m).all()


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


@pytest.mark.skipif(not RECORDED.is_dir(), reason=programs.NO_RECORDINGS)
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
