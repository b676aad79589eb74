"""The city's file, its operators and its map, damaged in thousands of ways: read, or refused by their own error."""

import json
import random
from functools import partial
from pathlib import Path

import pytest

from city.config import CityConfigError, load
from city.pages.login import OperatorsError, add_operator, read_operators
from city.pages.site_map import read_map
from tests.mutations import damaged, json_bytes, odd_paths, outcome, refused

SEED = 25
TOML = """site = "gongdeok"

[mqtt]
host = "127.0.0.1"
port = 1883

[store]
url = "sqlite:///city.db"

[web]
operators_file = "operators.json"
timezone = "Asia/Seoul"
token_file = "token"
proxies = ["127.0.0.1"]

[map]
file = "site.geojson"
"""
RING = [[[126.95, 37.54], [126.951, 37.54], [126.951, 37.541], [126.95, 37.54]]]
MAP = {
    "type": "FeatureCollection",
    "attribution": "(c) somebody",
    "features": [
        {"type": "Feature", "properties": properties, "geometry": {"type": shape, "coordinates": coordinates}}
        for properties, shape, coordinates in (
            ({"kind": "school", "id": "school"}, "Polygon", RING),
            ({"kind": "street", "class": "residential"}, "LineString", RING[0]),
            ({"kind": "reader", "number": 1, "pole": "P01 gate"}, "Point", [126.95, 37.54]),
            ({"kind": "reader", "number": 2, "pole": "P02 yard"}, "Point", [126.951, 37.54]),
        )
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("kim", "lee"):
        add_operator(tmp_path / "operators.json", name)
    (tmp_path / "token").write_text("t" * 40)
    (tmp_path / "site.geojson").write_text(json.dumps(MAP))
    return tmp_path


def test_the_configuration_is_loaded_or_refused(folder: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = folder / "city.toml"
    for _ in range(2000):
        path.write_bytes(damaged(chance, TOML.encode()))
        counts[refused(partial(load, path), CityConfigError)] += 1
    assert min(counts) > 50
    for name in ("~nobody-at-all/x", "x" * 300, "\\u0000", "/", "."):
        for key in ('"operators.json"', '"token"', '"site.geojson"', '"sqlite:///city.db"'):
            assert key in TOML
            path.write_text(TOML.replace(key, f'"{key.strip(chr(34)).partition("city.db")[0]}{name}"'))
            refused(partial(load, path), CityConfigError)


def test_the_operators_are_read_whole_or_refused(folder: Path) -> None:
    chance, counts = random.Random(SEED), [0, 0]
    path = folder / "operators.json"
    good = json.loads(path.read_text())
    for _ in range(2000):
        path.write_bytes(json_bytes(chance, good))
        found = outcome(partial(read_operators, path), OperatorsError)
        counts[found is None] += 1
        if found is not None:
            assert found.keys() == json.loads(path.read_text("utf-8-sig")).keys()
    assert min(counts) > 100


def test_an_operator_who_is_there_twice_is_named_and_nothing_is_written(folder: Path) -> None:
    path = folder / "operators.json"
    rows = json.loads(path.read_text())
    path.write_text(text := f'{{"kim": {json.dumps(rows["kim"])}, "kim": {json.dumps(rows["lee"])}}}')
    with pytest.raises(OperatorsError, match=r"operators\.json: 'kim' is there twice; keep one"):
        add_operator(path, "park")
    assert path.read_text() == text


def test_a_map_is_shown_as_far_as_it_is_good(folder: Path) -> None:
    chance, drawn = random.Random(SEED), 0
    path = folder / "site.geojson"
    for _ in range(2000):
        path.write_bytes(json_bytes(chance, MAP))
        found = read_map(path)
        drawn += bool(found.site["features"])
        json.dumps(found.site, allow_nan=False).encode()
    assert drawn > 500


def test_no_odd_path_stops_the_city(tmp_path: Path) -> None:
    for odd in odd_paths(tmp_path):
        if odd.name in ("pipe", "zero", "null", "mem"):
            continue  # the check of the configuration takes files alone
        assert refused(partial(load, odd), CityConfigError)
        assert refused(partial(read_operators, odd), OperatorsError)
        assert read_map(odd).faults
