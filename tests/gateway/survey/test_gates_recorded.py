"""A recording keeps gates, and the antennas and gates of readers, as the configuration has them: compass bearings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.recording import RecordedSite, Survey
from gateway.survey import onto_zone, read, record, replay, write
from gateway.survey.write import RecordingError
from gateway.zone import Gate, Place, Reader, Zone
from tests.gateway.core.bed import at, box
from tests.gateway.survey.bed import put

YARD = Place("yard", "school", box(0, 0, 60, 40))


def guard(number: int, x_m: float, y_m: float, side: Any, look_deg: float) -> Reader:
    lon, lat = at(x_m, y_m)
    return Reader(number, f"{number:016x}", lon, lat, antenna="patch", look_deg=look_deg, gate="south", side=side)


ZONE = Zone(
    (
        guard(1, 28, -2, "outer", 180.0), guard(2, 32, -2, "outer", 170.5), guard(3, 28, 3, "inner", 0.0),
        guard(4, 32, 3, "inner", 359.5), Reader(5, f"{5:016x}", *at(55, 35)),
    ),
    places=(YARD,),
    gates=(Gate("south", "yard", *at(30, 0), 0.0, 3.5), Gate("east", "yard", *at(60, 20), 270.25)),
)  # fmt: skip


def raw(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "site.json").read_text())
    return found


def test_a_zone_with_gates_comes_back_from_its_recording(tmp_path: Path) -> None:
    write.save_site(tmp_path, record.site_of(ZONE, "here"))
    back = replay.zone_of(read.load_site(tmp_path))
    assert back is not None
    for ours, theirs in zip(back.readers, ZONE.readers, strict=True):
        for name in ("number", "antenna", "gate", "side", "height_m"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.look_deg == (None if theirs.look_deg is None else pytest.approx(theirs.look_deg, abs=0.01))
    for gate, was in zip(back.gates, ZONE.gates, strict=True):
        assert (gate.id, gate.place, gate.width_m) == (was.id, was.place, was.width_m)
        assert gate.inward_deg % 360 == pytest.approx(was.inward_deg, abs=0.01)
        assert (gate.lon, gate.lat) == pytest.approx((was.lon, was.lat), abs=1e-7)


def test_site_json_has_the_names_and_bearings_of_the_configuration(tmp_path: Path) -> None:
    write.save_site(tmp_path, record.site_of(ZONE, "here"))
    site = raw(tmp_path)
    extra = [{k: v for k, v in row.items() if k not in ("id", "x_m", "y_m", "z_m")} for row in site["readers"]]
    assert extra[1] == {"antenna": "patch", "look_deg": 170.5, "gate": "south", "side": "outer"}
    assert extra[4] == {}, "a dipole at no gate is written as it always was"
    assert [(gate["id"], gate["place"], gate["inward_deg"], gate["width_m"]) for gate in site["gates"]] == [
        ("south", "yard", 0.0, 3.5),
        ("east", "yard", 270.25, 3.0),
    ]
    plain = record.site_of(msgspec.structs.replace(ZONE, readers=ZONE.readers[4:], gates=()), "here")
    assert (plain.gates, plain.look, plain.guards) == ((), None, ())
    write.save_site(tmp_path, plain)
    assert "gates" not in raw(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gates": {}}, "gates: not a list of at most 2000"),
        ({"gates": [{"place": "yard"}]}, "gates, entry 1: no id of its own"),
        ({"gates": [{"id": "a", "place": "yrad", "x_m": 0, "y_m": 0, "inward_deg": 0}]}, "its place is not in this"),
        ({"gates": [{"id": "a", "place": "yard", "x_m": "?", "y_m": 0, "inward_deg": 0}]}, "('a'): no x_m and y_m"),
        ({"gates": [{"id": "a", "place": "yard", "x_m": 0, "y_m": 0}]}, "inward_deg is not 0 to below 360"),
        ({"gates": [{"id": "a", "place": "yard", "x_m": 0, "y_m": 0, "inward_deg": 360}]}, "inward_deg is not 0"),
        (
            {"gates": [{"id": "a", "place": "yard", "x_m": 0, "y_m": 0, "inward_deg": 0, "width_m": 0}]},
            "width_m is not",
        ),
        ({"readers": [{"id": "1", "x_m": 0, "y_m": 0, "antenna": "patch"}]}, "reader '1': its antenna is no dipole"),
        ({"readers": [{"id": "1", "x_m": 0, "y_m": 0, "antenna": "horn"}]}, "reader '1': its antenna is no dipole"),
    ],
)
def test_what_is_no_gate_or_antenna_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    write.save_site(tmp_path, record.site_of(ZONE, "here"))
    put(tmp_path, "site.json", json.dumps(raw(tmp_path) | changed))
    with pytest.raises(RecordingError) as caught:
        read.load_site(tmp_path)
    assert said in str(caught.value)


def test_a_reader_of_no_known_gate_guards_none_and_is_noted(tmp_path: Path) -> None:
    write.save_site(tmp_path, record.site_of(ZONE, "here"))
    site = raw(tmp_path)
    site["readers"][0]["gate"] = "north"
    del site["readers"][1]["side"]
    put(tmp_path, "site.json", json.dumps(site))
    found = read.load_site(tmp_path)
    assert found.guards[:3] == (None, None, ("south", "inner"))
    assert "2 readers guard a gate that is not in the file, or no side of it: they guard none" in found.notes


def test_another_gate_is_said_and_a_turned_antenna_is_another_zone(tmp_path: Path) -> None:
    site, said = record.site_of(ZONE, "here"), list[str]()
    write.save_site(tmp_path, site)
    record._begin_site(tmp_path, site, said.append)
    assert not said
    wider = (msgspec.structs.replace(ZONE.gates[0], width_m=5.0), ZONE.gates[1])
    record._begin_site(tmp_path, record.site_of(msgspec.structs.replace(ZONE, gates=wider), "here"), said.append)
    assert "places, gates, danger areas or footpaths of the zone are not those of" in said[0]
    turned = (msgspec.structs.replace(ZONE.readers[0], look_deg=90.0), *ZONE.readers[1:])
    with pytest.raises(RecordingError, match="another zone"):
        record._begin_site(tmp_path, record.site_of(msgspec.structs.replace(ZONE, readers=turned), "here"), said.append)


def walked(folder: Path, site: RecordedSite) -> None:
    write.save_site(folder, site)
    rows = np.array([[0.0, 0.0], [3.0, 0.0]])
    write.save_survey(
        folder, site, "w", Survey(rows, np.full(2, np.nan), np.array([0, 4]), np.full(2, -60.0), np.ones(2))
    )


def test_a_walk_test_of_an_antenna_that_was_turned_is_refused(tmp_path: Path) -> None:
    walked(tmp_path, record.site_of(ZONE, "here"))
    found, _, notes = onto_zone.walk_test_of_zone(tmp_path, ZONE)
    assert found.look is not None
    assert np.degrees(found.look[:4]).round(1).tolist() == [270.0, 279.5, 90.0, 90.5]
    assert not [note for note in notes if "antenna" in note]
    a_little = (msgspec.structs.replace(ZONE.readers[0], look_deg=205.0), *ZONE.readers[1:])
    onto_zone.walk_test_of_zone(tmp_path, msgspec.structs.replace(ZONE, readers=a_little))
    for changed in ({"look_deg": 90.0}, {"antenna": "dipole", "look_deg": None}):
        readers = (msgspec.structs.replace(ZONE.readers[0], **changed), *ZONE.readers[1:])
        with pytest.raises(RecordingError, match="another antenna than at the walk test, or turned: reader 1; walk"):
            onto_zone.walk_test_of_zone(tmp_path, msgspec.structs.replace(ZONE, readers=readers))


def test_a_walk_test_that_knows_no_antennas_is_taken_with_a_note(tmp_path: Path) -> None:
    walked(tmp_path, replace(record.site_of(ZONE, "here"), look=None, guards=(), gates=()))
    _, _, notes = onto_zone.walk_test_of_zone(tmp_path, ZONE)
    assert "walk test: it knows no antennas; walk again if the patches of readers 1, 2, 3, 4 came later" in notes
