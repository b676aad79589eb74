"""Every file of a recorded site and every file of a true walk, damaged: read, or refused by `RecordingError`."""

import json
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gateway.recording import RecordedSite
from gateway.survey import read, write
from gateway.survey.truth import load_walk
from gateway.survey.write import RecordingError
from tests.gateway.survey.bed import SITE, put
from tests.mutations import damaged, json_bytes, odd_paths, outcome, refused

SEED = 25
SIGHTINGS = 't_s,reader,rssi_dbm,packets\n0.5,r1,-70,1\n1.5,3,-71,2\n2.5,"gate, north",-60,1\n3.5,r1,-70,\n' * 3
SURVEY = "x_m,y_m,heading_deg,reader,rssi_dbm,count\n1,2,90,r1,-70,3\n2,2,,3,-80,1\n" * 3
TRUTH = "t_s,x_m,y_m\n0,0,0\n2,3,0\n4,6,0.5\n"
WALKS = {
    "walk.csv": TRUTH,
    "map.csv": "t_s,lon,lat,accuracy_m\n0,126.95,37.54,3\n5,126.9501,37.54,4\n9,126.9502,37.54,\n",
    "dates.csv": "time,lat,lng,hdop\n2026-03-02T08:15:05Z,37.54,126.95,0.8\n2026-03-02T08:15:15Z,37.54,126.9501,1\n",
    "walk.gpx": '<?xml version="1.0" encoding="UTF-8"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
    '<trkpt lat="37.54" lon="126.95"><time>2026-03-02T08:15:05Z</time><hdop>0.8</hdop></trkpt>'
    '<trkpt lat="37.54" lon="126.9501"><time>2026-03-02T08:15:15Z</time></trkpt></trkseg></trk></gpx>',
}
START_S = 1_772_439_300.0


def test_a_site_is_read_or_refused_and_never_loses_a_key_when_saved_again(folder: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    good = json.loads((folder / "site.json").read_text()) | {"origin": {"lon": 126.95, "lat": 37.54}}
    path = folder / "site.json"
    for n in range(2000):
        path.write_bytes(data := json_bytes(chance, good))
        site = outcome(partial(read.load_site, folder), RecordingError)
        counts[site is None] += 1
        if site is not None:
            assert np.isfinite(site.readers_m).all()
            assert np.isfinite(site.bounds_m).all()
        if n % 10 == 0 and not refused(partial(write.set_tag_power, folder, -55.5), RecordingError):
            was, now = json.loads(data.decode("utf-8-sig")), json.loads(path.read_text())
            assert {key: now[key] for key in was if key != "tag"} == {key: was[key] for key in was if key != "tag"}
    assert min(counts) > 200


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tracks/w.sightings.csv", SIGHTINGS),
        ("tracks/w.truth.csv", TRUTH),
        ("tracks/w.path.csv", "x_m,y_m\n0,0\n9,0\n9,9\n"),
        ("tracks/w.info.json", '{"started_at": "2026-03-02T08:15:00Z", "power_dbm": -57}'),
        ("calibration/walk.csv", SURVEY),
    ],
)
def test_a_recording_is_read_or_refused(folder: Path, name: str, text: str) -> None:
    chance = random.Random(SEED)
    put(folder, "tracks/w.sightings.csv", SIGHTINGS)
    put(folder, name, text)
    reading = (
        partial(read.load_survey, folder, SITE) if "calib" in name else partial(read.load_track, folder, SITE, "w")
    )
    read_whole = 0
    for _ in range(1000):
        (folder / name).write_bytes(damaged(chance, text.encode()))
        read_whole += not refused(reading, RecordingError)
    assert read_whole > 200


@pytest.mark.parametrize("name", WALKS)
def test_a_true_walk_is_read_or_refused(folder: Path, name: str) -> None:
    chance = random.Random(SEED)
    origin = RecordedSite("yard", (0, 0, 100, 100), ("1",), np.array([[0.0, 0, 3]]), origin_lonlat=(126.95, 37.54))
    put(folder, name, WALKS[name])
    load_walk(folder / name, origin, START_S)
    read_whole = 0
    for _ in range(1000):
        (folder / name).write_bytes(damaged(chance, WALKS[name].encode()))
        walk = outcome(partial(load_walk, folder / name, origin, START_S), RecordingError)
        read_whole += walk is not None
        if walk is not None:
            assert np.isfinite(walk.xy_m).all()
            assert np.isfinite(walk.t_s).all()
            assert (np.diff(walk.t_s) > 0).all()
    assert read_whole > 50


def test_no_odd_path_stops_the_reading(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for n, odd in enumerate(odd_paths(tmp_path_factory.mktemp("odd"))):
        assert refused(partial(load_walk, odd, SITE, None), RecordingError)
        assert refused(partial(read.load_site, odd), RecordingError)
        home = folder / str(n)
        for name in ("tracks/w.sightings.csv", "tracks/w.truth.csv", "tracks/w.info.json", "calibration/c.csv"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(odd)
        (home / "site.json").symlink_to(odd)
        assert refused(partial(read.load_site, home), RecordingError)
        assert refused(partial(write.set_tag_power, home, -55.0), RecordingError)
        assert refused(partial(read.load_track, home, SITE, "w"), RecordingError)
        refused(partial(read.load_survey, home, SITE), RecordingError)
