"""What a promise counts, and that a plan from the command line can be built, run and accepted."""

import json
import math
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gateway.config.load import load
from gateway.recording import Floats
from readers.terminal import Exit
from sim.__main__ import app
from sim.demo import technician
from sim.plan import accept
from sim.plan.accept import Figure, Limit, WalkRows
from sim.plan.chain import Conditions, GateWord, air_of
from sim.plan.coverage import Coverage
from sim.plan.promise import BARS, Delays, Promise, air_seed, delays_of, least_share, most_of
from sim.plan.scenes import GateScene
from sim.street import site as sites
from sim.street.children import Walk
from sim.street.zone import zone_of
from tests.gateway.config.bed import GOOD, LINK_KEYS, TAG_KEYS, secret
from tests.gateway.config.bed import written as config_written
from tests.sim.plan.bed import SOUTH, written

PLAN = ("--poles", "2", "--flanks", "no", "--days", "1", "--airs", "1", "--radius-m", "40")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a small plan and what the command printed."""
    folder = tmp_path_factory.mktemp("plan")
    result = CliRunner().invoke(app, ["plan", str(written(folder)), "--out", str(folder / "out"), *PLAN])
    assert result.exit_code == 0, result.output
    return folder / "out", result.output


# ---- counting --------------------------------------------------------------------------------------------------------


def promised(**other: object) -> Promise:
    covered = Coverage(100, 97, 90, (), 100.0)
    good = Promise(Delays((8.0,) * 1000), Delays((9.0,) * 1000), (), 4000, covered, 4, 1)
    return replace(good, **other)  # type: ignore[arg-type]


def test_a_word_that_never_came_is_not_told_in_time() -> None:
    tally = Delays((5.0, 20.0, 20.1, math.inf))
    assert [tally.within(seconds) for seconds in (4, 20, 60)] == [0, 2, 3]
    assert tally.share(20) == 0.5
    assert [tally.percentile_s(part) for part in (25, 50, 75, 99)] == [5.0, 20.0, 20.1, math.inf]
    assert Delays(()).share(20) == 0.0
    assert Delays((5.0, 30.0, 6.0, 7.0), (0, 0, 1, 1)).poorest(20) == 0.5


@pytest.mark.parametrize(
    ("got", "of", "least"), [(0, 10, 0.0), (100, 100, 0.9705), (97, 100, 0.9242), (990, 1000, 0.9831)]
)
def test_bounds_of_shares_are_those_of_clopper_and_pearson(got: int, of: int, least: float) -> None:
    assert least_share(got, of) == pytest.approx(least, abs=2e-4)


@pytest.mark.parametrize(("events", "most"), [(0, 2.996), (1, 4.744), (3, 7.754), (10, 16.962)])
def test_bounds_of_false_words_are_those_of_poisson(events: int, most: float) -> None:
    assert most_of(events) == pytest.approx(most, abs=2e-3)


def test_a_promise_says_what_it_does_not_reach_and_what_it_does_not_prove() -> None:
    assert promised().shortfalls() == []
    name, seconds, bar = BARS[0]
    late = promised(arrivals=Delays((seconds + 1.0,) * 100 + (5.0,) * 900))
    assert late.shortfalls() == [
        f"{name.capitalize()} reported within {seconds} s: 90.0 %, the bar is {100 * bar:g} %."
    ]
    assert any("--days 3000 proves 1" in text for text in promised(child_days=100).shortfalls())
    false = promised(false_kinds=(("plays", 5), ("wait", 1)))
    assert false.false_words == 6
    assert false.false_per_1000 == pytest.approx(1.5)
    assert any(text.startswith("False reports: 1.5 per 1000") for text in false.shortfalls())
    assert any("Presses heard: 50.0 %" in text for text in promised(coverage=Coverage(2, 1, 1, (), 9.0)).shortfalls())


def test_delays_are_those_of_the_scenes_of_a_kind() -> None:
    walk = Walk([0.0, 100.0], [(0.0, 0.0), (1.0, 0.0)])
    comes = GateScene("arrive", walk, ((50.0, True),), False)
    goes = GateScene("leave", walk, ((30.0, False),), True)
    words = [GateWord(0, 40.0, False), GateWord(1, 61.0, True), GateWord(0, 38.0, False)]
    assert delays_of([goes, comes, goes], words, "arrive") == (11.0,)
    assert delays_of([goes, comes, goes], words, "leave") == (10.0, math.inf)


def test_airs_of_two_seeds_differ() -> None:
    assert len({air_seed(seed, n) for seed in range(20) for n in range(20)}) == 400


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_plan_is_a_site_for_the_demo_and_lines_for_the_gateway(plan: tuple[Path, str]) -> None:
    folder, _ = plan
    site = sites.load(folder / "site.geojson")
    assert [pole.side for pole in site.poles[:4]] == ["outer", "inner", "outer", "inner"]
    told = tomllib.loads((folder / "readers.toml").read_text())
    assert [reader["number"] for reader in told["readers"]] == [pole.number for pole in site.poles]
    assert told["gates"] == [
        {"id": "south", "place": "school", "lon": told["gates"][0]["lon"], "lat": told["gates"][0]["lat"],
         "inward_deg": 0.0, "width_m": 4.0}
    ]  # fmt: skip
    assert told["readers"][0]["look_deg"] == 180.0
    assert told["places"][0]["id"] == "school"


def test_the_gateway_takes_the_planned_readers_without_a_note_on_the_gate(
    plan: tuple[Path, str], tmp_path: Path
) -> None:
    text = (plan[0] / "readers.toml").read_text()
    numbers = [pole.number for pole in sites.load(plan[0] / "site.geojson").poles]
    for number in numbers:
        text = text.replace('eui64 = "0000000000000000"', f'eui64 = "0013a200{number:08x}"', 1)
    secret(tmp_path / "reader_keys.json", {str(number): f"{number:032x}" for number in numbers})
    secret(tmp_path / "tag_keys.json", TAG_KEYS)
    secret(tmp_path / "city.keys", LINK_KEYS)
    loaded = load(config_written(tmp_path, 'attribution = "(c) nobody"\n' + GOOD.partition("[[readers]]")[0] + text))
    assert [note for note in loaded.notes if "gate" in note] == []
    assert {reader.number: reader.side for reader in loaded.zone.readers if reader.side} == {
        1: "outer", 2: "inner", 3: "outer", 4: "inner",
    }  # fmt: skip
    assert loaded.zone.gates[0].inward_deg == 0.0
    assert len(loaded.zone.footpaths) > 3
    assert [danger.id for danger in loaded.zone.dangers] == ["road"]


def test_the_page_has_every_reader_the_promise_and_the_limits(plan: tuple[Path, str]) -> None:
    folder, printed = plan
    page = (folder / "plan.html").read_text()
    site, figures = sites.load(folder / "site.geojson"), json.loads((folder / "plan.json").read_text())
    for pole in site.poles:
        lon, lat = site.plane.to_lonlat(*pole.at)
        assert pole.name in page
        assert f"{lon:.6f}" in page
        assert f"{lat:.6f}" in page
    assert figures["told"]["arrivals"]["of"] == 1
    for limit in figures["limits"]:
        assert limit["words"] in page
        assert f"{limit['least']:.1f} {limit['unit']}" in page
    assert {limit["key"] for limit in figures["limits"]} == {
        "inside south",
        "outside south",
        "apart south",
        "heard",
        "two",
    }
    assert page.count("(c) nobody") == 2, "the map's source stands with the picture and at the end"
    assert "Gate south: 4 m wide, one enters to 0 degrees" in page
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=", page) == []
    assert "1 child-days" in printed.replace("simulated ", "")
    picture = ElementTree.parse(folder / "plan.svg").getroot()
    assert picture.tag.endswith("svg")


def test_the_same_command_gives_the_same_plan_and_another_seed_another_promise(
    plan: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = plan
    again = CliRunner().invoke(app, ["plan", str(written(tmp_path)), "--out", str(tmp_path / "out"), *PLAN])
    assert again.exit_code == 0, again.output
    for name in ("site.geojson", "plan.svg", "plan.html", "plan.json", "readers.toml"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({"gates": []}, (), "has no gate: add a Point"),
        ({"gates": [{**SOUTH, "inward_deg": 180.0}]}, (), "leads out of the school"),
        ({"gates": [{**SOUTH, "at": (40.0, 40.0)}]}, (), "from the school's outline"),
        ({}, ("--flanks", "maybe"), "auto, yes or no"),
    ],
)
def test_a_site_that_cannot_be_planned_is_said(
    tmp_path: Path, change: dict[str, object], arguments: tuple[str, ...], says: str
) -> None:
    path = written(tmp_path, **change)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out"), "--days", "1", *arguments])
    assert result.exit_code == (Exit.USAGE if arguments else Exit.NO)
    assert says in result.stderr
    assert result.stderr.startswith("ansim-sim plan: ")


def test_a_file_that_is_no_site_is_said(tmp_path: Path) -> None:
    for text, says in (("", "JSON"), ("[]", "JSON"), ('{"features": 3}', "no GeoJSON FeatureCollection")):
        path = tmp_path / "site.geojson"
        path.write_text(text)
        result = CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "out")])
        assert result.exit_code == Exit.NO
        assert says in result.stderr
    result = CliRunner().invoke(app, ["plan", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert result.exit_code == Exit.NO
    assert "site derive" in result.stderr


# ---- acceptance ------------------------------------------------------------------------------------------------------


def walk_rows(folder: Path, seed: int, conditions: Conditions | None = None) -> WalkRows:
    site = sites.load(folder / "site.geojson")
    return accept.simulated(site, site.poles, seed, conditions or Conditions())


def judged(folder: Path, rows: WalkRows) -> dict[str, str]:
    site = sites.load(folder / "site.geojson")
    got = {each.key: each for each in accept.figures(site, site.poles, 40.0, rows)}
    limits = [Limit(**row) for row in json.loads((folder / "plan.json").read_text())["limits"]]
    return {limit.key: limit.judge(got.get(limit.key)) for limit in limits}


def test_another_simulated_walk_of_the_plan_is_accepted(plan: tuple[Path, str]) -> None:
    reached = [set(judged(plan[0], walk_rows(plan[0], seed)).values()) == {"reached"} for seed in (901, 902, 903, 904)]
    assert sum(reached) >= 3


def test_antennas_that_look_the_wrong_way_are_not_accepted(plan: tuple[Path, str]) -> None:
    rows = walk_rows(plan[0], 901)
    other = {1: 2, 2: 1, 3: 4, 4: 3}  # the cables of both posts are exchanged
    swapped = rows._replace(reader=np.array([other.get(n, n) for n in rows.reader.tolist()]))
    verdicts = judged(plan[0], swapped)
    assert "NOT reached" in verdicts["apart south"]
    assert verdicts["heard"] == "reached"


def test_dead_readers_and_ways_not_walked_are_not_accepted(plan: tuple[Path, str]) -> None:
    rows = walk_rows(plan[0], 901)
    site = sites.load(plan[0] / "site.geojson")
    dead = ~np.isin(rows.reader, [1, 2, *(pole.number for pole in site.poles if pole.gate is None)])
    assert "NOT reached" in judged(plan[0], _only(rows, dead))["heard"]
    gate: Floats = rows.xy_m - np.array(site.gates[0])
    assert "not walked" in judged(plan[0], _only(rows, np.hypot(*gate.T) > 12))["inside south"]


def test_the_command_reads_a_recorded_walk_test_and_says_each_figure(plan: tuple[Path, str], tmp_path: Path) -> None:
    site = sites.load(plan[0] / "site.geojson")
    air = air_of(site, zone_of(site, site.poles), 905, Conditions())
    walk = technician.write(tmp_path, technician.walk(site, site.poles, air, 905))
    result = CliRunner().invoke(app, ["accept", str(plan[0]), str(walk)])
    lines = result.output.splitlines()
    assert len(lines) == 5, result.output
    assert lines[3].startswith("of the footpath where the plan says so, heard by one reader: ")
    assert lines[3].endswith(": reached"), "the walk's metres are the plan's metres"
    assert result.exit_code == (0 if all(line.endswith(": reached") for line in lines) else 1)


@pytest.mark.parametrize("missing", ["plan", "walk"])
def test_what_cannot_be_accepted_is_said(plan: tuple[Path, str], tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "none" if missing == "plan" else plan[0]
    result = CliRunner().invoke(app, ["accept", str(folder), str(tmp_path / "walk")])
    assert result.exit_code == Exit.NO
    assert result.stderr.startswith("ansim-sim accept: ")


def test_a_figure_without_rows_is_no_figure() -> None:
    limit = Limit("heard", "words", "%", 90.0, 99.0)
    assert limit.judge(None) == limit.judge(Figure("heard", "words", "%", math.nan))
    assert limit.judge(Figure("heard", "words", "%", 90.0)) == "reached"


def _only(rows: WalkRows, kept: np.ndarray) -> WalkRows:  # type: ignore[type-arg]
    return WalkRows(rows.xy_m[kept], rows.reader[kept], rows.rssi_dbm[kept])
