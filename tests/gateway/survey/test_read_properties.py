"""No content of a recorded site's files can raise anything but RecordingError, or stop a replay (hypothesis)."""

import json
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.recording import Survey
from gateway.survey import read, write
from gateway.survey.replay import ReplayEngine
from gateway.survey.write import RecordingError
from tests.gateway.survey.bed import SITE, put

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
