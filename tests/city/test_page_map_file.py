"""The site's map file: what the page cannot draw is refused by `check`, by file and feature, and the rest is drawn."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from city.pages.site_map import FAULTS_MAX, read_map
from tests.city.bed import City
from tests.roots import GONGDEOK

SEED = 20261201
READER = {"kind": "reader", "number": 5}
HERE = [126.9577, 37.5480]


def feature(properties: Any = READER, shape: str = "Point", coordinates: Any = HERE) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": shape, "coordinates": coordinates},
    }


def other(number: int) -> dict[str, Any]:
    return feature({"kind": "reader", "number": number})


def read(folder: Path, features: Any, **more: Any) -> tuple[list[Any], list[str]]:
    """Return (numbers of the readers drawn, faults without the file's name)."""
    path = folder / "site.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "attribution": "us", "features": features} | more))
    found = read_map(path)
    assert all(fault.startswith(f"map {path}: ") for fault in found.faults)
    json.dumps(found.site, allow_nan=False).encode()  # as the page gets it
    numbers = [each["properties"].get("number") for each in found.site["features"]]
    return numbers, [fault.removeprefix(f"map {path}: ") for fault in found.faults]


BAD = {
    "nan": (feature(coordinates=[float("nan"), 37.5]), "finite numbers"),
    "infinite": (feature(coordinates=[126.9, float("inf")]), "finite numbers"),
    "empty": (feature(coordinates=[]), "its coordinates are []"),
    "no coordinates": ({"type": "Feature", "properties": READER, "geometry": {"type": "Point"}}, "are null"),
    "no geometry": ({"type": "Feature", "properties": READER, "geometry": None}, "its geometry is null"),
    "metres": (feature(coordinates=[953898.2, 1951234.5]), "are metres (EPSG:5179?), not degrees"),
    "latitude first": (feature(coordinates=[37.548, 126.9577]), "latitude first"),
    "coordinates as text": (feature(coordinates=["126.9577", "37.548"]), "without quotation marks"),
    "one number": (feature(coordinates=[126.9577]), "two numbers"),
    "true": (feature(coordinates=[True, False]), "two numbers"),
    "huge": (feature(coordinates=[10**400, 1]), "no place on earth"),
    "number as text": (feature({"kind": "reader", "number": "5"}), '"number" is "5"'),
    "number as a fraction": (feature({"kind": "reader", "number": 5.0}), "a whole number from 1"),
    "no number": (feature({"kind": "reader"}), '"number" is null'),
    "twice": (other(1), "feature 0 has this number too"),
    "no properties": (feature(None), '"properties" is null'),
    "kind as a number": (feature({"kind": 7}), '"kind" is 7'),
    "wrong shape": (feature(shape="LineString", coordinates=[HERE, HERE]), "right for a reader is Point"),
    "ring of three": (feature({"kind": "school"}, "Polygon", [[HERE, HERE, HERE]]), "right would be 4 or more"),
    "empty ring": (feature({"kind": "school"}, "Polygon", [[]]), "its coordinates are []"),
    "line of one": (feature({"kind": "street"}, "LineString", [HERE]), "right would be 2 or more"),
    "too flat": (feature({"kind": "building"}, "Polygon", [HERE, HERE, HERE, HERE]), "right would be 4 or more"),
    "another town": (feature(coordinates=[129.07, 35.18]), "far from all others"),
    "zero": (feature(coordinates=[0, 0]), "far from all others"),
    "not an object": ("reader 5", "it is not an object"),
}  # fmt: skip


@pytest.mark.parametrize("bad", list(BAD))
def test_a_bad_feature_is_named_and_the_others_are_drawn(tmp_path: Path, bad: str) -> None:
    spoilt, words = BAD[bad]
    numbers, faults = read(tmp_path, [other(1), other(2), spoilt, other(3)])
    assert numbers == [1, 2, 3]
    assert len(faults) == 1
    assert faults[0].startswith("feature 2")
    assert words in faults[0]
    assert "right" in faults[0] or bad == "latitude first"


def test_altitudes_and_kinds_that_are_not_drawn_are_no_fault(tmp_path: Path) -> None:
    homes = [feature({"kind": "home"}, coordinates=[]), feature({"name": "x"}), {"properties": {}}]
    assert read(tmp_path, [feature(coordinates=[*HERE, 12.5]), *homes]) == ([5], [])


def test_what_the_page_gets_of_a_feature_is_short_text_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "site.geojson"
    wild = {"kind": "danger", "id": "x" * 5000, "what": "\ud800\u0007", "warn_m": float("nan"), "secret": "home"}
    ring = [[HERE, [126.958, 37.548], [126.958, 37.549], HERE]]
    site = {"attribution": "us\ud800", "features": [feature(wild, "Polygon", ring)]}
    path.write_text(json.dumps(site))
    found = read_map(path)
    assert found.faults == ()
    told = found.site["features"][0]["properties"]
    assert (set(told), len(told["id"]), told["what"]) == ({"kind", "id", "what"}, 60, "??")
    json.dumps(found.site, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is not JSON"),
        ("[1]", "it is not a JSON object"),
        ('{"features": []}', "it names no source of the map"),
        ('{"attribution": "us"}', "it has no list of features"),
        ('{"attribution": "us", "features": [], "features": []}', 'the key "features" twice'),
        ("[" * 100_000, "it is not JSON"),
        ('{"attribution": "us", "features": [' + "9" * 5000 + "]}", "it is not JSON"),
    ],
)
def test_a_file_that_is_no_map_is_refused_with_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "site.geojson"
    path.write_text(text)
    found = read_map(path)
    assert len(found.faults) == 1
    assert found.faults[0].startswith(f"map {path}: ")
    assert words in found.faults[0]
    assert "right would be" in found.faults[0]
    assert found.site["left_out"] == [found.faults[0].replace(str(path), "site.geojson")]


def test_the_shipped_map_is_good_also_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_map(GONGDEOK).faults == ()
    marked = tmp_path / "site.geojson"
    marked.write_bytes(b"\xef\xbb\xbf" + GONGDEOK.read_bytes())
    assert read_map(marked).site == read_map(GONGDEOK).site


def test_many_faults_are_counted(tmp_path: Path) -> None:
    numbers, faults = read(tmp_path, [other(1), *([None] * (FAULTS_MAX + 7))])
    assert (numbers, len(faults), faults[-1]) == ([1], FAULTS_MAX + 1, "7 more")


def test_no_file_raises_whatever_is_in_it(tmp_path: Path) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    whole = GONGDEOK.read_bytes()
    path = tmp_path / "site.geojson"
    site = json.loads(whole)
    junk = [
        None,
        True,
        -1,
        1e308,
        float("nan"),
        10**400,
        "",
        "5",
        [],
        [[]],
        [[[[]]]],
        {},
        {"kind": None},
        HERE,
        "\ud800",
    ]
    for _ in range(300):
        raw = bytearray(whole[: chance.randrange(1, 4000)])
        for _ in range(chance.randrange(1, 9)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        path.write_bytes(raw)
        assert read_map(path).faults
    for _ in range(300):
        chosen = chance.sample(site["features"], 5)
        changed = json.loads(json.dumps(chosen))
        for each in changed:
            target = chance.choice([each, each["properties"], each["geometry"]])
            target[chance.choice([*target])] = chance.choice(junk)
        read(tmp_path, changed)
    assert read_map(tmp_path / "gone").faults
    assert read_map(tmp_path).faults


def test_check_refuses_a_map_with_a_bad_feature_by_its_name(tmp_path: Path) -> None:
    site = json.dumps({"attribution": "us", "features": [other(1), feature(coordinates=[])]})
    city = City(tmp_path, 1883, site_map=site)
    done = subprocess.run(
        [sys.executable, "-m", "city", "check", str(city.config)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"map {tmp_path / 'site.geojson'}: feature 1 (reader 5): its coordinates are []" in done.stderr
    assert "Traceback" not in done.stderr
