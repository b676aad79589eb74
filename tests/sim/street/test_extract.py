"""An extract as people export it: deleted, missing, repeated things, a school of several ways: mended or named."""

import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.zone import Plane
from readers.terminal import Exit
from sim.__main__ import app
from sim.street import osm, site
from sim.street.extract import OsmError, read_extract
from tests.sim.street.bed import LAT, LON, node, osm_text, relation, way

SCHOOL = {"amenity": "school"}


def derived(tmp_path: Path, text: str, school: str = "100", notes: list[str] | None = None) -> site.Site:
    (tmp_path / "map.osm").write_text(text)
    made = osm.derive(
        read_extract(tmp_path / "map.osm"), school, Plane(LON, LAT).to_lonlat(0, 60), site="try", notes=notes
    )
    osm.write(made, tmp_path / "site.geojson")
    return site.load(tmp_path / "site.geojson")


def size_m(zone: site.Site) -> tuple[int, int]:
    x, y = zip(*zone.school, strict=True)
    return round(max(x) - min(x)), round(max(y) - min(y))


def why(tmp_path: Path, text: str, school: str = "100") -> str:
    with pytest.raises(OsmError) as caught:
        derived(tmp_path, text, school)
    return str(caught.value)


def test_a_node_without_a_place_is_named_by_the_way_that_needs_it(tmp_path: Path) -> None:
    text = osm_text(without=(3,), more='<node id="3" version="2"/>')
    assert "way 100 has nodes that the extract lacks or that have no place: 3; export a larger part" in why(
        tmp_path, text
    )
    assert size_m(derived(tmp_path, osm_text(more='<node id="99" version="2"/>'))) == (112, 112)


@pytest.mark.parametrize("without", [(3,), (2, 3), (1,)])
def test_a_school_never_shrinks_silently(tmp_path: Path, without: tuple[int, ...]) -> None:
    said = why(tmp_path, osm_text(without=without))
    assert f"way 100 has nodes that the extract lacks or that have no place: {', '.join(map(str, without))}" in said
    assert "export a larger part of the map round the school" in said


@pytest.mark.parametrize("mark", [' action="delete"', ' visible="false"'])
def test_what_is_deleted_is_not_there(tmp_path: Path, mark: str) -> None:
    before = derived(tmp_path, osm_text())
    more = way(110, [1, 3], mark, highway="residential") + way(111, [4, 9, 2], mark, building="yes")
    more += node(50, 5, 60, '<tag k="highway" v="crossing"/>', mark)
    after = derived(tmp_path, osm_text(more=more))
    assert (after.streets, after.crossings, after.poles) == (before.streets, before.crossings, before.poles)
    gone = osm_text(school=way(100, [1, 2, 3, 4, 1], mark, **SCHOOL))
    assert "way 100 is deleted on this map; give the number of" in why(tmp_path, gone)
    corner = osm_text(without=(3,), more=node(3, 120, 120, more=mark))
    assert "way 100 has nodes that the extract lacks or that have no place: 3" in why(tmp_path, corner)


def test_a_street_with_a_missing_node_has_a_gap_and_is_no_short_cut(tmp_path: Path) -> None:
    notes: list[str] = []
    street = way(120, [4, 77, 78, 13, 14], highway="residential")
    more = node(13, 0, 260) + node(14, 60, 260) + street + way(121, [9, 10, 77, 9], building="yes")
    zone = derived(tmp_path, osm_text(more=more), notes=notes)
    corner = zone.plane.to_xy_m(*Plane(LON, LAT).to_lonlat(0, 260))
    assert all(math.dist(point, corner) > 1 for _, line in zone.streets for point in line), "nobody can walk there"
    assert notes == [
        "1 streets have gaps or are left out: the extract lacks some of their nodes",
        "1 buildings are left out: the extract lacks some of their nodes",
    ]


def test_a_building_with_a_misplaced_corner_is_left_out_and_told(tmp_path: Path) -> None:
    notes: list[str] = []
    derived(tmp_path, osm_text(without=(11,), more=node(11, 0, 90_000)), notes=notes)
    assert notes == ["1 buildings are left out: a corner is over 3000 m away"]


def test_repeated_nodes_change_nothing(tmp_path: Path) -> None:
    before = derived(tmp_path, osm_text())
    school = way(100, [1, 1, 2, 2, 2, 3, 30, 4, 1, 1], **SCHOOL)
    text = osm_text(school=school, more=node(30, 120, 120)).replace(
        '<nd ref="5"/><nd ref="1"/>', '<nd ref="5"/><nd ref="5"/><nd ref="1"/><nd ref="1"/>'
    )
    after = derived(tmp_path, text)
    assert (after.school, after.streets, after.poles) == (before.school, before.streets, before.poles)


def test_a_school_of_several_ways_is_put_together(tmp_path: Path) -> None:
    halves = way(100, [1, 2, 3], **SCHOOL) + way(106, [1, 4, 3]) + way(107, [9, 10, 11, 9])
    members = [(100, "outer"), (106, "outer"), (107, "inner")]
    notes: list[str] = []
    text = osm_text(school=halves, more=relation(7, members, type="multipolygon", **SCHOOL))
    zone = derived(tmp_path, text, "7", notes)
    assert zone.school == derived(tmp_path, osm_text()).school
    assert notes == ["relation 7 has holes; they count as school"]
    assert derived(tmp_path, text, "relation/7").school == zone.school
    assert "way 100 is not closed, so it is no school's outline" in why(tmp_path, text)


@pytest.mark.parametrize(
    ("members", "tags", "said"),
    [
        ([(100, "outer")], {"type": "multipolygon"}, "relation 7: its outer ways do not close at node 3; mend it"),
        ([(100, "outer"), (999, "outer")], {"type": "multipolygon"}, "has ways that the extract lacks: 999; export a"),
        ([(107, "outer"), (101, "outer")], {"type": "multipolygon"},
         "2 outer rings, and a site has one school; give one of way/107, way/101"),
        ([(107, "")], {"type": "site"}, "relation 7 is no multipolygon with outer ways; give the school's closed way"),
        ([], {"type": "multipolygon"}, "relation 7 is no multipolygon with outer ways"),
        ([(108, "outer")], {"type": "multipolygon"}, "has ways of fewer than two nodes: 108"),
    ],
)  # fmt: skip
def test_a_relation_that_is_no_outline_says_what_to_give(
    tmp_path: Path, members: list[tuple[int, str]], tags: dict[str, Any], said: str
) -> None:
    ways = way(100, [1, 2, 3], **SCHOOL) + way(107, [9, 10, 11, 9]) + way(108, [9])
    assert said in why(tmp_path, osm_text(school=ways, more=relation(7, members, **tags)), "relation/7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html></html>", "it begins with <html>, not with <osm>"),
        ("<osmChange><create/></osmChange>", "it begins with <osmChange>"),
        ('<?xml version="1.0" encoding="klingon"?><osm/>', "is no .osm file"),
        ('<osm><node lon="1" lat="1"/></osm>', "a node has the id '', which is no number"),
        ('<osm><node id="5" lon="37.5" lat="126.9"/></osm>', "node 5 has lon='37.5' lat='126.9', which is no place in"
         " degrees; are the two exchanged?"),
        ('<osm><node id="5" lon="east" lat="1"/></osm>', "node 5 has lon='east' lat='1', which is no place in degrees"),
        ('<osm><node id="5" lon="nan" lat="1"/></osm>', "which is no place in degrees"),
        ('<osm><way id="5"/><way id="5"><nd ref="1"/></way></osm>', "way 5 is there twice, and not the same; give an"),
        (osm_text(more=relation(100, [(101, "outer")], type="multipolygon")),
         "there are a way 100 and a relation 100; give way/100 or relation/100"),
        (osm_text(school=way(100, [1, 2, 5, 1])), "100 encloses no ground: its nodes lie in one line"),
        (osm_text(school=way(100, [1, 2, 4, 3, 1])), "100 crosses itself"),
        (osm_text(without=(3,), more=node(3, 90_000, 90_000)), "100 has a corner 127 km from the gate; mend its place"),
        (osm_text(without=(6, 7), more=node(6, -9e4, 0) + node(7, -9e4, 9e4)), "no main road within 3000 m"),
        (osm_text(school=way(100, [9, 10, 11, 9])), "the school is smaller than 30 m"),
    ],
)  # fmt: skip
def test_an_extract_that_cannot_be_used_says_which_element(tmp_path: Path, text: str, said: str) -> None:
    assert said in why(tmp_path, text)


@pytest.mark.parametrize(
    ("gate", "name", "said"),
    [
        (
            "37.5505,126.95",
            "try",
            "--gate 37.5505,126.95 is no LON,LAT in degrees, longitude first; are the two exchanged",
        ),
        ("126.95", "try", "--gate '126.95' is not LON,LAT in degrees, like 126.9511,37.5443"),
        ("nan,nan", "try", "--gate 'nan,nan' is not LON,LAT"),
        ("127.95,37.5505", "try", "m from 100; give LON,LAT in degrees"),
        ("126.95,37.5505", "the zone", "--name 'the zone': 1 to 32 of A-Z a-z 0-9 _ -"),
    ],
)
def test_the_gate_and_the_name_are_checked(tmp_path: Path, gate: str, name: str, said: str) -> None:
    (tmp_path / "map.osm").write_text(osm_text())
    (tmp_path / "out").write_text("the old one")
    result = CliRunner().invoke(
        app, ["site", "derive", str(tmp_path / "map.osm"), "--school", "100", "--gate", gate, "--name", name,
              "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert result.exit_code == (Exit.USAGE if "is not LON,LAT" in said else Exit.NO)
    assert said in result.output
    assert (tmp_path / "out").read_text() == "the old one"


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "map.osm").write_text(osm_text())
    made = osm.derive(read_extract(tmp_path / "map.osm"), "100", (LON, LAT), site="try")
    with pytest.raises(OsmError, match=r"cannot write .*nowhere/out: No such file or directory; give another --out"):
        osm.write(made, tmp_path / "nowhere" / "out")
