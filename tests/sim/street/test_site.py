"""The site file: the one in the repository is complete, and a map can be made into one."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.zone import Plane, depth_m, direction, distance_to_polygon_m
from readers.terminal import Exit
from sim.__main__ import app
from sim.street import osm, site
from sim.street.extract import OsmError, read_extract
from sim.street.gates import WIDTH_M, inward_deg
from sim.street.zone import duty, zone_of
from tests.sim.street.bed import LAT, LON, osm_text


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    path = tmp_path / "map.osm"
    path.write_text(osm_text())
    return path


def test_the_repositorys_site_has_what_a_story_needs() -> None:
    zone = site.load()
    assert "OpenStreetMap" in zone.attribution
    assert "ODbL" in zone.attribution
    assert len(zone.poles) >= 24
    assert [pole.number for pole in zone.poles] == list(range(1, len(zone.poles) + 1))
    assert all("gate" in pole.name and math.dist(pole.at, zone.gates[0]) < 5.5 for pole in zone.poles[:5])
    assert zone.dangers[0].what == "carriageway of Mapo-daero"
    near = [pole for pole in zone.poles[:12] if distance_to_polygon_m(*pole.at, list(zone.dangers[0].ring)) < 20]
    assert near, "one of the first twelve poles stands at the danger area"
    street = [pole for pole in zone.poles if "street" in pole.name]
    assert all(not zone.at_school(pole.at) for pole in street)
    gaps = [min(math.dist(a.at, b.at) for b in street if b is not a) for a in street]
    assert min(gaps) > 25
    assert max(gaps) < 60
    paths = zone.paths()
    homes = [paths.attach(home) for _, home in zone.homes]
    assert set(homes) <= paths.distances_m(paths.attach(zone.gates[0])).keys()


def test_a_gateway_is_told_of_the_streets_near_its_readers_and_of_the_gate() -> None:
    zone = site.load()
    ways = zone.footpaths([pole.at for pole in zone.poles[:12]])
    assert 5 < len(ways) < len(zone.footpaths([pole.at for pole in zone.poles]))
    street, gate, yard = ways[-1]
    assert gate == zone.gates[0]
    assert zone.at_school(yard)
    assert math.dist(gate, yard) == pytest.approx(site.GATE_DEPTH_M)
    walked = {point for kind, line in zone.streets if kind != "primary" for point in line}
    assert all(set(way) <= walked for way in ways[:-1])
    paths = zone.paths()
    assert math.dist(paths.points[paths.attach(street)], street) < 1e-6
    assert zone.footpaths([]) == []


def test_the_repositorys_site_holds_no_names_but_the_danger_roads() -> None:
    text = site.GONGDEOK.read_text("utf-8")
    assert len(text) < 100_000
    allowed = {"kind", "class", "id", "what", "warn_m", "number", "pole", "height_m", "origin"}
    allowed |= {"place", "inward_deg", "width_m", "gate", "side", "antenna", "look_deg"}
    assert {key for f in json.loads(text)["features"] for key in f["properties"]} <= allowed
    assert text.isascii()


def test_a_map_becomes_a_site(extract: Path, tmp_path: Path) -> None:
    gate = Plane(LON, LAT).to_lonlat(0, 60)
    made = osm.derive(read_extract(extract), "100", gate, site="try")
    osm.write(made, tmp_path / "site.geojson")
    zone = site.load(tmp_path / "site.geojson")
    inset = [zone.plane.to_xy_m(*Plane(LON, LAT).to_lonlat(x, y)) for x, y in ((4, 4), (116, 4), (116, 116), (4, 116))]
    assert all(min(math.dist(corner, p) for p in zone.school) < 0.3 for corner in inset)
    assert math.hypot(*zone.gates[0]) < 0.2, "metres are counted from the gate"
    assert zone.dangers[0].what == "carriageway of Main Road"
    assert distance_to_polygon_m(-100, 0, list(zone.dangers[0].ring)) == 0
    assert guards_of(zone) == guards_of(site.load()) == [(1, "outer"), (2, "inner"), (3, "outer"), (4, "inner")]
    assert [(gate.id, gate.place, gate.inward_deg) for gate in zone.entrances] == [("gate1", "school", 90.0)]
    assert osm.derive(read_extract(extract), "100", gate, site="try") == made, "the same map gives the same file"
    assert "a name" not in (tmp_path / "site.geojson").read_text()


def test_gate_readers_that_a_corner_puts_on_the_wrong_side_are_named(extract: Path) -> None:
    for y_m, readers in ((60.0, []), (114.0, [2])):
        notes: list[str] = []
        osm.derive(read_extract(extract), "100", Plane(LON, LAT).to_lonlat(0, y_m), site="try", notes=notes)
        found = [note for note in notes if "the wall bends" in note]
        assert len(found) == len(readers), notes
        for number, note in zip(readers, found, strict=True):
            assert f"reader {number} is on the wrong side of it; move it to the inner side by hand" in note


def guards_of(zone: site.Site) -> list[tuple[int, str | None]]:
    """Check the readers of the first gate, and return their numbers and sides: they are the first of the zone."""
    gate = zone.entrances[0]
    assert [pole for pole in zone.poles if pole.gate is not None] == list(zone.poles[: osm.GUARDS])
    inward = direction(gate.inward_deg)
    assert zone.at_school((gate.at[0] + 2 * inward[0], gate.at[1] + 2 * inward[1]))
    for pole in zone.poles[: osm.GUARDS]:
        deep_m = depth_m(*pole.at, zone.school)
        assert (pole.gate, pole.antenna) == (gate.id, "patch")
        if pole.side == "outer":
            assert -2.0 <= deep_m <= -1.8, "who waits 2 m before the wall is not behind it"
        else:
            assert 3.0 < deep_m < 3.4
        assert pole.look_deg is not None
        looks = sum(a * b for a, b in zip(inward, direction(pole.look_deg), strict=True))
        assert looks == pytest.approx(1.0 if pole.side == "inner" else -1.0)
        assert gate.width_m / 2 < math.dist(pole.at, gate.at) < gate.width_m / 2 + 3.0, "on a post beside the opening"
    return [(pole.number, pole.side) for pole in zone.poles[: osm.GUARDS]]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--school", "999", "--gate", "126.95,37.55"], "way 999 is not in the extract", Exit.NO),
        (["--school", "102", "--gate", "126.95,37.55"], "not closed", Exit.NO),
        (["--school", "100", "--gate", "here"], "is not LON,LAT", Exit.USAGE),
    ],
)
def test_derive_says_what_is_wrong(extract: Path, tmp_path: Path, arguments: list[str], words: str, code: Exit) -> None:
    out = str(tmp_path / "out.geojson")
    result = CliRunner().invoke(app, ["site", "derive", str(extract), "--name", "try", "--out", out, *arguments])
    assert result.exit_code == code
    assert words in result.output


def test_a_file_that_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.osm").write_text("no map")
    with pytest.raises(OsmError, match=r"is no \.osm file"):
        read_extract(tmp_path / "x.osm")


def at(kind: str, n: int = 0) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that finds a feature of a kind in a site file."""
    return lambda data: [f for f in data["features"] if f["properties"]["kind"] == kind][n]


def told(of: str, /, **properties: object) -> Callable[[dict[str, Any]], None]:
    return lambda data: at(of)(data)["properties"].update(properties)


def drawn(kind: str, coordinates: object, n: int = 0) -> Callable[[dict[str, Any]], None]:
    return lambda data: at(kind, n)(data)["geometry"].update(coordinates=coordinates)


SQUARE = [[[126.9500, 37.5400], [126.9510, 37.5400], [126.9510, 37.5410], [126.9500, 37.5400]]]
BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d.pop("attribution"), "attribution"),
    (lambda d: d.update(site="the zone"), "site 'the zone': 1 to 32 of"),
    (lambda d: d.update(features=[f for f in d["features"] if f["properties"]["kind"] != "gate"]), "no gate"),
    (lambda d: [f["properties"].update({"class": "primary"}) for f in d["features"] if "class" in f["properties"]],
     "no street on which children walk"),
    (lambda d: d["features"][0]["geometry"].update(type="Point"), r"feature 1 .street.: a street is a LineString"),
    (lambda d: d["features"][0].pop("properties"), "feature 1: its properties are missing"),
    (lambda d: d["features"][0].update(properties=None), "feature 1: its properties are missing"),
    (lambda d: d["features"][0].update(geometry=None), "feature 1 .street.: a street is a LineString, not a None"),
    (lambda d: d["features"].insert(2, 7), "feature 3: its properties are missing"),
    (lambda d: d["features"].extend(f for f in d["features"][-200:] if "number" in f["properties"]),
     r"feature \d+ .reader.: its number 1 is given twice .first in feature \d+ .reader."),
    (lambda d: d["features"].append(at("school")(d)), "a site has one school, and this is a second one"),
    (lambda d: d["features"].append(at("home")(d)), "its id home01 is given twice"),
    (told("reader", kind="raeder"), r"feature \d+: its kind is 'raeder', none of street, building"),
    (told("reader", number=-1), "its number is -1, and must be a number from 1 to 65534"),
    (told("reader", number="7"), "its number is '7', and must be a number"),
    (told("reader", number=1.5), "its number is 1.5, and must be whole"),
    (told("reader", height_m=-3.5), "its height_m is -3.5, and must be a number from 0.1 to 30"),
    (told("gate", id="the gate"), "its id is 'the gate': 1 to 32 of A-Z"),
    (told("gate", place="yard"), "its place is 'yard'; the site's only place is school"),
    (told("gate", inward_deg=-10), "its inward_deg is -10, and must be a number from 0 to 360"),
    (told("gate", inward_deg=360), "its inward_deg is 360; north is 0"),
    (told("gate", width_m=0.2), "its width_m is 0.2, and must be a number from 0.5 to 40"),
    (lambda d: d["features"].append(at("gate")(d)), "its id gate1 is given twice"),
    (told("reader", gate="gate9"), "its gate is 'gate9'; the gates are gate1"),
    (told("reader", gate=["gate1"]), r"its gate is \['gate1'\]; the gates are gate1"),
    (told("reader", side="left"), "its side is 'left', and must be outer or inner"),
    (told("reader", side=["outer"]), r"its side is \['outer'\], and must be outer or inner"),
    (lambda d: at("reader")(d)["properties"].pop("side"), "a gate reader has both gate and side"),
    (lambda d: at("reader")(d)["properties"].pop("gate"), "a gate reader has both gate and side"),
    (told("reader", antenna="yagi"), "its antenna is 'yagi', and must be dipole or patch"),
    (told("reader", antenna="dipole"), "it has look_deg, and a dipole hears all round"),
    (told("reader", look_deg="north"), "its look_deg is 'north', and must be a number from 0 to 360"),
    (lambda d: at("reader", 6)(d)["properties"].update(antenna="patch"), "a patch antenna; say where it looks"),
    (told("danger", warn_m=-12), "its warn_m is -12, and must be a number from 0 to 200"),
    (told("danger", id=""), "its id is '', and must be text"),
    (told("home", id=5), "its id is 5, and must be text"),
    (drawn("school", []), r"feature \d+ .school.: it has no coordinates"),
    (drawn("school", [[]]), "it has 0 different places, and a Polygon has 3 or more"),
    (drawn("street", []), "it has 0 different places, and a LineString has 2 or more"),
    (drawn("street", [[126.95, 37.54]] * 3), "it has 1 different places"),
    (drawn("reader", []), r"feature \d+ .reader.: \[\] is no place \[longitude, latitude\]"),
    (drawn("gate", [126.95]), r"feature \d+ .gate.: \[126.95\] is no place"),
    (drawn("gate", ["126.95", "37.54"]), "is no place of two numbers, without quotes"),
    (drawn("gate", [37.544, 126.951]), r"\[37.544, 126.951\] is no place in degrees: longitude comes first"),
    (drawn("reader", [950_000.0, 1_950_000.0]), r"no place in degrees: save the file in degrees .WGS 84, EPSG:4326."),
    (drawn("home", [37.544, 37.544]), "km from the gate; longitude comes first"),
    (drawn("danger", [[*SQUARE[0][:2], SQUARE[0][0]]]), "it has 2 different places, and a Polygon has 3"),
    (drawn("danger", [[[126.95, 37.54], [126.951, 37.54], [126.952, 37.54]]]), "encloses less than a square metre"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_a_broken_site_file_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    data = json.loads(site.GONGDEOK.read_text())
    change(data)
    path = tmp_path / "site.geojson"
    path.write_text(json.dumps(data))
    with pytest.raises(site.SiteError, match=words) as raised:
        site.load(path)
    assert str(path) in str(raised.value)


def test_what_a_site_file_does_not_say_of_a_gate_follows_from_the_outline(tmp_path: Path) -> None:
    """A file from before gates were guarded, and one whose gate readers say no more than which gate and side."""
    data = json.loads(site.GONGDEOK.read_text())
    for feature in data["features"]:
        for key in ("id", "place", "inward_deg", "width_m") if feature["properties"]["kind"] == "gate" else ():
            del feature["properties"][key]
        feature["properties"].pop("look_deg", None)
    path = tmp_path / "site.geojson"
    path.write_text(json.dumps(data))
    zone, whole = site.load(path), site.load()
    assert zone.poles[: osm.GUARDS] == whole.poles[: osm.GUARDS]
    assert zone.entrances == (replace(whole.entrances[0], width_m=WIDTH_M),)


@pytest.mark.parametrize("clockwise", [False, True])
def test_inward_is_straight_through_the_wall_whichever_way_the_outline_runs(clockwise: bool) -> None:
    ring = [(0.0, 0.0), (40.0, 0.0), (40.0, 30.0), (0.0, 30.0)][:: -1 if clockwise else 1]
    sides = {(20.0, 0.3): 0.0, (39.0, 10.0): 270.0, (12.0, 31.0): 180.0, (0.0, 20.0): 90.0}
    assert {spot: inward_deg(spot, ring) for spot in sides} == sides


def test_a_gateways_zone_has_the_gates_that_a_reader_guards() -> None:
    whole = site.load()
    zone = zone_of(whole, whole.poles[:12])
    assert [(r.number, r.gate, r.side, r.scan_window_ms, r.scan_interval_ms) for r in zone.readers[:5]] == [
        (1, "gate1", "outer", 7, 16), (2, "gate1", "inner", 7, 16), (3, "gate1", "outer", 7, 16),
        (4, "gate1", "inner", 7, 16), (5, None, None, None, None),
    ]  # fmt: skip
    assert [duty(pole) for pole in whole.poles[3:6]] == [7 / 16, 0.25, 0.25]
    assert [(gate.id, gate.place, gate.inward_deg) for gate in zone.gates] == [
        (gate.id, zone.places[0].id, gate.inward_deg) for gate in whole.entrances
    ]
    assert [bell.reader for bell in zone.bells] == [reader.number for reader in zone.readers]
    assert zone_of(whole, whole.poles[4:12]).gates == (), "nobody would hear who passes there"


def test_a_height_in_a_place_and_a_mark_of_an_editor_are_left_out(tmp_path: Path) -> None:
    data = json.loads(site.GONGDEOK.read_text())
    for feature in data["features"]:
        if feature["geometry"]["type"] == "Point":
            feature["geometry"]["coordinates"].append(12.5)
    path = tmp_path / "site.geojson"
    path.write_text("\ufeff" + json.dumps(data))
    assert replace(site.load(path), plane=None) == replace(site.load(), plane=None)  # type: ignore[arg-type]


def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    text = site.GONGDEOK.read_text().replace('"kind":"gate",', '"kind":"gate",\n"kind":"home",')
    (tmp_path / "site.geojson").write_text(text)
    with pytest.raises(site.SiteError, match=r"site\.geojson: line \d+: the key 'kind' is given twice"):
        site.load(tmp_path / "site.geojson")
