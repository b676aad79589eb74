"""What no type can check: numbers given twice, bells that share an input, routes, pauses, footpaths."""

from pathlib import Path

import pytest

from gateway import zone
from gateway.config.load import load, summary
from tests.gateway.config.bed import GOOD, only, written


def test_a_reader_is_not_given_twice(folder: Path) -> None:
    text = GOOD.replace("number = 2", "number = 1").replace("reader = 2", "reader = 1")
    assert only(folder, text).startswith(
        "line 26: readers[1].number: 1 is given twice (first in line 19); right is 1 to"
    )


def test_two_bells_do_not_share_an_input(folder: Path) -> None:
    text = GOOD + '[[bells]]\nid = "door"\nreader = 2\ninput = 3\n'
    assert only(folder, text).startswith(f"line {GOOD.count(chr(10)) + 4}: bells[1].input: input 3 of reader 2 has a b")


ROUTES = """
[[routes]]
id = "by-the-park"
line = [[126.950, 37.543], [126.951, 37.543], [126.951, 37.544]]
corridor_m = 30
tags = ["t-01"]
"""


def test_routes_and_pauses_are_of_tags(folder: Path) -> None:
    loaded = load(written(folder, 'paused = ["t-02"]\n' + GOOD + ROUTES))
    line = ((126.95, 37.543), (126.951, 37.543), (126.951, 37.544))
    assert loaded.zone.routes == (zone.Route("by-the-park", line, 30.0, ("t-01",)),)
    assert loaded.config.paused == ("t-02",)
    assert loaded.notes == ()
    assert "1 routes, 1 tags paused" in summary(loaded)


def test_a_route_or_a_pause_of_nobody_is_noted_and_stops_nothing(folder: Path) -> None:
    loaded = load(written(folder, 'paused = ["t-99"]\n' + GOOD + ROUTES.replace('"t-01"', '"t-01", "t-98"')))
    assert [note.partition(" names ")[::2] for note in loaded.notes] == [
        ("routes", "1 tags without keys, so nothing is done for them: t-98"),
        ("paused", "1 tags without keys, so nothing is done for them: t-99"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["t-01"]', '["t 01"]', "routes[0].tags"),
        ("corridor_m = 30", "corridor_m = 1", "routes[0].corridor_m: Expected"),
        ("[126.951, 37.543], [126.951, 37.544]", "[126.950, 37.543]", "fewer than 2 different points"),
        ("[126.951, 37.544]", "[127.951, 37.544]", "a point is over 20 km"),
        (
            ROUTES,
            ROUTES + ROUTES.replace("by-the-park", "by-the-river"),
            "routes[1].tags: t-01 has the route by-",
        ),
        (ROUTES, ROUTES + ROUTES.replace('["t-01"]', "[]"), "routes[1].id: 'by-the-park' is given twice"),
        (ROUTES, ROUTES + 'paused = ["t-02"]', "routes[0].paused: unknown key"),
    ],
)
def test_a_route_that_is_none_is_told(folder: Path, old: str, new: str, said: str) -> None:
    assert said in only(folder, GOOD + ROUTES.replace(old, new, 1))


FOOTPATHS = """
[[footpaths]]
line = [[126.950, 37.543], [126.951, 37.543]]
"""


def test_footpaths_and_whose_map_they_are_reach_the_zone(folder: Path) -> None:
    loaded = load(written(folder, 'attribution = "(c) OpenStreetMap contributors"\n' + GOOD + FOOTPATHS))
    assert loaded.zone.footpaths == (zone.Footpath(((126.95, 37.543), (126.951, 37.543))),)
    assert loaded.config.attribution == "(c) OpenStreetMap contributors"
    assert "1 footpaths" in summary(loaded)
    assert loaded.notes == (
        "over 80 m from every reader, so nobody is seen there: place school",
        "footpaths: none comes within 80 m of a reader",
    )
    assert "0 footpaths: everybody may walk everywhere" in summary(load(written(folder, GOOD)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FOOTPATHS.replace("[126.951, 37.543]", "[126.950, 37.543]"), "fewer than 2 different points"),
        (FOOTPATHS.replace("126.951", "127.951"), "a point is over 20 km"),
        (FOOTPATHS.replace(", [126.951, 37.543]", ""), "footpaths[0].line: Expected"),
        (FOOTPATHS + 'name = "x"', "footpaths[0].name: unknown key"),
        (FOOTPATHS * (zone.FOOTPATHS_MAX + 1), "footpaths: 2001 lines of 2001 pieces, at most 2000 of 4000"),
        (
            9 * ("[[footpaths]]\nline = [" + 250 * "[126.950, 37.543], [126.951, 37.543], " + "]\n"),
            "footpaths: 9 lines of 4491 pieces",
        ),
    ],
)
def test_a_footpath_that_is_none_is_told(folder: Path, text: str, said: str) -> None:
    assert said in only(folder, GOOD + text)


def test_a_reader_in_another_town_is_told(folder: Path) -> None:
    found = only(folder, GOOD.replace("lon = 126.9530", "lon = 127.9530"))
    assert found.startswith("line 28: readers[1].lon: 88 km from the middle of the zone")


@pytest.mark.parametrize(("table", "name"), [("places", "school"), ("dangers", "river"), ("bells", "gate")])
def test_two_of_a_kind_do_not_share_an_id(folder: Path, table: str, name: str) -> None:
    again = GOOD[GOOD.index(f"[[{table}]]") :].split("\n\n")[0].replace("input = 3", "input = 2")
    assert f"{table}[1].id: {name!r} is given twice (first in line " in only(folder, f"{GOOD}\n{again}\n")
