"""The site file: the one in the repository is complete, and a map can be made into one."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.zone import Plane, distance_to_polygon_m
from sim.__main__ import app
from sim.street import osm, site

LON, LAT = 126.95, 37.55


def node(number: int, x_m: float, y_m: float, tags: str = "") -> str:
    lon, lat = Plane(LON, LAT).to_lonlat(x_m, y_m)
    return f'<node id="{number}" lon="{lon:.7f}" lat="{lat:.7f}">{tags}</node>'


def way(number: int, nodes: list[int], **tags: str) -> str:
    refs = "".join(f'<nd ref="{n}"/>' for n in nodes)
    return f'<way id="{number}">{refs}' + "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items()) + "</way>"


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    """A square school of 120 m with a street all around, a side street, and a main road 100 m to the west."""
    nodes = [(1, 0, 0), (2, 120, 0), (3, 120, 120), (4, 0, 120), (5, -90, 0), (6, -100, -200), (7, -100, 200),
             (8, 250, 0), (9, 30, 30), (10, 40, 30), (11, 40, 40), (12, -90, 60)]  # fmt: skip
    ways = [
        way(100, [1, 2, 3, 4, 1], amenity="school", name="a name"),
        way(101, [1, 2, 3, 4, 1], highway="residential", name="a name"),
        way(102, [5, 1], highway="residential"),
        way(103, [2, 8], highway="residential"),
        way(104, [6, 7], highway="primary", **{"name:en": "Main Road"}),
        way(105, [9, 10, 11, 9], building="yes"),
    ]
    path = tmp_path / "map.osm"
    path.write_text("<osm>" + "".join(node(*n) for n in nodes) + "".join(ways) + "</osm>")
    return path


def test_the_repositorys_site_has_what_a_story_needs() -> None:
    zone = site.load()
    assert "OpenStreetMap" in zone.attribution
    assert "ODbL" in zone.attribution
    assert len(zone.poles) >= 24
    assert [pole.number for pole in zone.poles] == list(range(1, len(zone.poles) + 1))
    assert "gate" in zone.poles[0].name
    assert math.dist(zone.poles[0].at, zone.gates[0]) < 3
    assert zone.dangers[0].what == "carriageway of Mapo-daero"
    near = [pole for pole in zone.poles[:8] if distance_to_polygon_m(*pole.at, list(zone.dangers[0].ring)) < 20]
    assert near, "one of the first eight poles stands at the danger area"
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
    ways = zone.footpaths([pole.at for pole in zone.poles[:8]])
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
    assert {key for f in json.loads(text)["features"] for key in f["properties"]} <= allowed
    assert text.isascii()


def test_a_map_becomes_a_site(extract: Path, tmp_path: Path) -> None:
    gate = Plane(LON, LAT).to_lonlat(0, 60)
    made = osm.derive(osm.read_extract(extract), "100", gate, site="try")
    osm.write(made, tmp_path / "site.geojson")
    zone = site.load(tmp_path / "site.geojson")
    inset = [zone.plane.to_xy_m(*Plane(LON, LAT).to_lonlat(x, y)) for x, y in ((4, 4), (116, 4), (116, 116), (4, 116))]
    assert all(min(math.dist(corner, p) for p in zone.school) < 0.3 for corner in inset)
    assert math.hypot(*zone.gates[0]) < 0.2, "metres are counted from the gate"
    assert zone.dangers[0].what == "carriageway of Main Road"
    assert distance_to_polygon_m(-100, 0, list(zone.dangers[0].ring)) == 0
    assert osm.derive(osm.read_extract(extract), "100", gate, site="try") == made, "the same map gives the same file"
    assert "a name" not in (tmp_path / "site.geojson").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--school", "999", "--gate", "126.95,37.55"], "way 999 is not in the extract"),
        (["--school", "102", "--gate", "126.95,37.55"], "not closed"),
        (["--school", "100", "--gate", "here"], "is not LON,LAT"),
    ],
)
def test_derive_says_what_is_wrong(extract: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    out = str(tmp_path / "out.geojson")
    result = CliRunner().invoke(app, ["site", "derive", str(extract), "--name", "try", "--out", out, *arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_a_file_that_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.osm").write_text("no map")
    with pytest.raises(osm.OsmError, match=r"is no \.osm file"):
        osm.read_extract(tmp_path / "x.osm")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("attribution"), "attribution"),
        (lambda d: d.update(features=[f for f in d["features"] if f["properties"]["kind"] != "gate"]), "no gate"),
        (lambda d: d["features"][0]["geometry"].update(type="Point"), "a street is a LineString"),
        (lambda d: d["features"][0].pop("properties"), "properties"),
        (lambda d: d["features"].extend(f for f in d["features"][-200:] if "number" in f["properties"]), "twice"),
    ],
)  # fmt: skip
def test_a_broken_site_file_is_refused_by_name(tmp_path: Path, change, words: str) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(site.GONGDEOK.read_text())
    change(data)
    path = tmp_path / "site.geojson"
    path.write_text(json.dumps(data))
    with pytest.raises(site.SiteError, match=words) as raised:
        site.load(path)
    assert str(path) in str(raised.value)
