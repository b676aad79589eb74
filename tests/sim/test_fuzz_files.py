"""Every file that `ansim-sim` reads, damaged in thousands of ways: it is used, or refused by the reader's own error."""

import json
import random
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from gateway.zone import Plane
from sim.ncp import nvm
from sim.reader.switches import SwitchError, Switches
from sim.reader.switches import read as read_switches
from sim.street import osm, site
from sim.street.extract import OsmError, read_extract
from sim.walks import faults
from tests.mutations import damaged, json_bytes, odd_paths, outcome, refused
from tests.sim.street.bed import LAT, LON, osm_text, relation, way

SEED = 25
GATE = Plane(LON, LAT).to_lonlat(0, 60)
HALVES = way(100, [1, 2, 3], amenity="school") + way(106, [1, 4, 3])
MAP = osm_text(school=HALVES, more=relation(7, [(100, "outer"), (106, "outer")], type="multipolygon"))


def swapped(chance: random.Random, text: str) -> bytes:
    """Return a map with some of its numbers, elements or attributes exchanged, doubled or away; perhaps damaged."""
    rows = text.splitlines(keepends=True)
    for _ in range(chance.randrange(1, 4)):
        n = chance.randrange(1, len(rows) - 1)
        match chance.randrange(7):
            case 0:
                rows[n] = ""
            case 1:
                rows[n] += chance.choice(rows[1:-1])
            case 2:
                rows[n] = re.sub(
                    r' (lon|lat|ref|k|v|id|role)="', lambda m: f' {m[1]}{chance.choice("x ")}="', rows[n], count=1
                )
            case 3:
                rows[n] = re.sub(
                    r'"(-?[0-9.]+)"', lambda m: f'"{chance.choice(ODD)}"', rows[n], count=chance.randrange(3)
                )
            case 4:
                rows[n] = re.sub(r'(<nd ref="\d+"/>)', r"\1" * chance.randrange(3), rows[n])
            case 5:
                rows[n] = rows[n].replace(" id=", chance.choice((' action="delete" id=', ' visible="false" id=')), 1)
            case _:
                rows[n] = rows[n].replace('<nd ref="1"/>', f'<nd ref="{chance.randrange(13)}"/>')
    data = "".join(rows).encode()
    return damaged(chance, data) if chance.random() < 0.2 else data


ODD = (
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e300",
    "126.95",
    "37.55",
    "126.9500001",
    "37.5500001",
    "90",
    "-180",
    "x",
    "٣",
    "1",
    "2",
    "7",
)


def derived(path: Path, out: Path, school: str) -> site.Site:
    osm.write(osm.derive(read_extract(path), school, GATE, site="try"), out)
    return site.load(out)


def test_a_map_becomes_a_site_that_is_whole_or_is_refused(tmp_path: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path, out = tmp_path / "map.osm", tmp_path / "site.geojson"
    path.write_text(MAP)
    derived(path, out, "7")
    for n in range(1500):
        school = ("7", "101")[n % 2]
        path.write_bytes(swapped(chance, MAP))
        # what is derived can be loaded: no SiteError is passed
        zone = outcome(partial(derived, path, out, school), OsmError)
        counts[zone is None] += 1
        if zone is not None:
            wide = max(x for x, _ in zone.school) - min(x for x, _ in zone.school)
            assert 30 < wide < 300
            assert zone.footpaths([zone.poles[0].at])
    assert min(counts) > 200


def test_a_site_file_is_loaded_or_refused(tmp_path: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = tmp_path / "site.geojson"
    (tmp_path / "map.osm").write_text(MAP)
    derived(tmp_path / "map.osm", path, "7")
    whole = json.loads(path.read_text())
    few = {feature["properties"]["kind"]: feature for feature in whole["features"]}
    good = whole | {"features": [*few.values(), *(f for f in whole["features"] if "class" in f["properties"])][:16]}
    for _ in range(2500):
        path.write_bytes(json_bytes(chance, good))
        zone = outcome(partial(site.load, path), site.SiteError)
        counts[zone is None] += 1
        if zone is not None:
            zone.footpaths([pole.at for pole in zone.poles])
            assert zone.at_school(zone.school[0]) in (True, False)
    assert min(counts) > 200


def test_switches_are_read_or_refused(tmp_path: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = tmp_path / "bringup.json"
    good = {"module": {"eui64": "0013a20041a06e60"}, "switches": asdict(Switches()), "notes": []}
    for _ in range(2000):
        path.write_bytes(json_bytes(chance, good))
        counts[refused(partial(read_switches, path), SwitchError)] += 1
    assert min(counts) > 200


def test_the_memory_of_a_coordinator_is_read_or_refused(tmp_path: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = tmp_path / "coordinator.json"
    nvm.save(path, nvm.Nvm(bytes(8)))
    good = json.loads(path.read_text())
    for _ in range(1500):
        path.write_bytes(json_bytes(chance, good))
        counts[refused(partial(nvm.load, path, eui64=bytes(8)), nvm.StateFileError)] += 1
    assert min(counts) > 200


def test_a_recording_gets_its_faults_or_is_refused(tmp_path: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    home = tmp_path / "site"
    (home / "tracks").mkdir(parents=True)
    (home / "site.json").write_text("{}")
    text = b't_s,reader,rssi_dbm\n0.5,r1,-70\n1.5,3,-71\n2.5,"gate, north",-60\n' * 2
    for n in range(400):
        (home / "tracks" / "w.sightings.csv").write_bytes(damaged(chance, text))
        made = partial(faults.copy, home, tmp_path / str(n), ["lose=0.5", "shuffle"], 1)
        counts[refused(made, faults.FaultError)] += 1
    assert counts[1] > 20


def test_no_odd_path_stops_the_program(tmp_path: Path) -> None:
    for odd in odd_paths(tmp_path):
        assert refused(partial(read_extract, odd), OsmError)
        assert refused(partial(site.load, odd), site.SiteError)
        assert refused(partial(read_switches, odd), SwitchError)
        refused(partial(nvm.load, odd, eui64=bytes(8)), nvm.StateFileError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"switches": {"heap_b": 5,\n"heap_b": 6}}', "line 2: the key 'heap_b' is given twice"),
        ("[]", "not a JSON object"),
        ('{"switches": []}', 'it has no "switches": {...}'),
        ('{"switches": {"heap_b": -5}}', "switch heap_b: -5 is below 0"),
    ],
)
def test_a_file_that_has_no_switches_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bringup.json"
    path.write_text(text)
    with pytest.raises(SwitchError, match=re.escape(said)) as caught:
        read_switches(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["gate, north", 'a "big" gate'])
def test_a_reader_with_a_comma_in_its_name_stays_one_reader(tmp_path: Path, name: str) -> None:
    home = tmp_path / "site"
    (home / "tracks").mkdir(parents=True)
    (home / "site.json").write_text("{}")
    quoted = '"' + name.replace('"', '""') + '"'
    (home / "tracks" / "w.sightings.csv").write_text(f"t_s,reader,rssi_dbm\n1,{quoted},-70\n2,r1,-71\n")
    faults.copy(home, tmp_path / "out", ["shuffle"], 1)
    assert f"{quoted},-70" in (tmp_path / "out" / "tracks" / "w.sightings.csv").read_text()
