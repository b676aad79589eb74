"""Where the planner puts readers, and what it says where it cannot."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gateway.zone import offset_m
from sim.plan import layout
from sim.plan.command import planned
from sim.plan.draft import Draft
from sim.plan.layout import LayoutError
from sim.street import site as sites
from sim.street.gates import Entrance
from sim.street.paths import distance_to_edge_m, inside
from tests.sim.plan.bed import SIDE_M, SOUTH, feature, written


def draft(folder: Path, **made: Any) -> Draft:
    return Draft(written(folder, **made))


def test_a_gate_gets_outer_and_inner_readers_on_both_sides(tmp_path: Path) -> None:
    made = draft(tmp_path)
    found, notes = layout.at_gate(made.site.entrances[0], made.site.school)
    assert not notes
    places = []
    for reader in found:
        pole, gate = reader.pole, made.site.entrances[0]
        assert pole.antenna == "patch"
        assert pole.gate == "south"
        inward_m, right_m = offset_m(pole.at[0] - gate.at[0], pole.at[1] - gate.at[1], gate.inward_deg)
        assert pole.look_deg == (0.0 if pole.side == "inner" else 180.0)
        places.append((pole.side, "left" if right_m < 0 else "right"))
        assert abs(right_m) > gate.width_m / 2
        assert -2.0 <= inward_m < 0 if pole.side == "outer" else 2.0 < inward_m < 4.0
    assert sorted(places) == [("inner", "left"), ("inner", "right"), ("outer", "left"), ("outer", "right")]


def test_flank_readers_stand_inside_the_wall_to_both_sides(tmp_path: Path) -> None:
    site = draft(tmp_path).site
    left, right = (reader.pole.at for reader in layout.beside_gate(site.entrances[0], site.school))
    gate = site.gates[0]
    assert left[0] == pytest.approx(gate[0] - layout.FLANK_ALONG_M, abs=0.5), "the gate is in the south, left is west"
    assert right[0] == pytest.approx(gate[0] + layout.FLANK_ALONG_M, abs=0.5)
    assert all(at[1] - gate[1] == pytest.approx(layout.FLANK_DEPTH_M, abs=0.5) for at in (left, right))


def test_more_poles_are_heard_on_more_of_the_footpaths_and_none_is_in_the_danger_or_too_near(tmp_path: Path) -> None:
    made = draft(tmp_path)
    points = layout.footpath_points(made.site, 100.0)
    shares = []
    for count in (0, 4, 12):
        plan = planned(made, poles=count, radius_m=100.0, flanks=False)
        assert plan.count("street") + plan.count("yard") <= count
        shares.append(float((layout.heard_by(made.site, plan.poles, points) >= 1).mean()))
    assert shares == sorted(shares)
    assert shares[0] < 0.4
    assert shares[-1] > 0.95
    streets = [reader.pole.at for reader in plan.readers if reader.role == "street"]
    assert min(math.dist(a, b) for a in streets for b in streets if a is not b) >= layout.POLE_APART_M
    assert not any(inside(at, made.site.school) for at in streets)
    assert len({pole.number for pole in plan.poles}) == len(plan.poles)
    assert [pole.number for pole in plan.poles[:4]] == [1, 2, 3, 4], "gate readers first: a demo takes the first ones"


def test_poles_go_first_where_ways_to_school_lead(tmp_path: Path) -> None:
    made = draft(tmp_path)
    plan = planned(made, poles=2, radius_m=100.0, flanks=False)
    at = [reader.pole.at for reader in plan.readers if reader.role == "street"]
    south = made.site.school[0][1]
    assert at
    assert all(spot[1] < south + SIDE_M for spot in at), "nobody's way leads past the northern wall"


def test_the_same_site_gives_the_same_plan_also_from_its_own_result(tmp_path: Path) -> None:
    made = draft(tmp_path)
    plan = planned(made, poles=5, radius_m=80.0, flanks=True)
    again = tmp_path / "again.geojson"
    sites_file = made.planned(plan)
    again.write_text(json.dumps(sites_file))
    other = planned(Draft(again), poles=5, radius_m=80.0, flanks=True)
    assert [(r.role, r.pole.number, r.pole.name) for r in other.readers] == [
        (r.role, r.pole.number, r.pole.name) for r in plan.readers
    ]
    assert max(math.dist(a.at, b.at) for a, b in zip(plan.poles, other.poles, strict=True)) < 0.05


def test_readers_that_a_person_drew_stay_with_their_numbers(tmp_path: Path) -> None:
    own = feature("reader", "Point", [(40.0, -30.0)], number=2, pole="town lamp 7", height_m=4.5)
    ours = feature("reader", "Point", [(40.0, -60.0)], number=9, pole="P09 street", origin="ansim")
    made = draft(tmp_path, more=[own, ours])
    plan = planned(made, poles=3, radius_m=100.0, flanks=False)
    kept = [reader for reader in plan.readers if reader.role == "kept"]
    assert [(r.pole.number, r.pole.name, r.pole.height_m) for r in kept] == [(2, "town lamp 7", 4.5)]
    assert [reader.pole.number for reader in plan.readers] == [1, 2, 3, 4, 5, 6, 7, 8]
    names = [f["properties"].get("pole") for f in made.planned(plan)["features"]]
    assert "town lamp 7" in names
    assert all(math.dist(r.pole.at, kept[0].pole.at) >= layout.POLE_APART_M for r in plan.readers if r.role == "street")


def test_the_result_is_a_site_file_with_guarded_gates(tmp_path: Path) -> None:
    made = draft(tmp_path)
    plan = planned(made, poles=3, radius_m=100.0, flanks=False)
    path = tmp_path / "planned.geojson"
    path.write_text(json.dumps(made.planned(plan)))
    site = sites.load(path)
    assert [pole.number for pole in site.poles] == [pole.number for pole in plan.poles]
    assert {(pole.gate, pole.side) for pole in site.poles} == {("south", "outer"), ("south", "inner"), (None, None)}
    assert max(math.dist(a.at, b.at) for a, b in zip(site.poles, plan.poles, strict=True)) < 0.05


def test_three_gates_are_each_guarded_with_numbers_of_their_own(tmp_path: Path) -> None:
    gates = [SOUTH, {"at": (80.0, 40.0), "id": "east"}, {"at": (20.0, 80.0), "id": "north", "width_m": 14.0}]
    plan = planned(draft(tmp_path, gates=gates), poles=2, radius_m=60.0, flanks=False)
    assert [reader.pole.gate for reader in plan.readers if reader.role == "gate"] == [
        name for name in ("south", "east", "north") for _ in range(4)
    ]
    assert any("north is 14 m wide" in note for note in plan.notes)


def test_a_gate_with_readers_drawn_by_hand_gets_no_others(tmp_path: Path) -> None:
    own = feature(
        "reader", "Point", [(37.0, -1.0)], number=1, antenna="patch", look_deg=180, gate="south", side="outer"
    )
    plan = planned(draft(tmp_path, more=[own]), poles=0, radius_m=60.0, flanks=False)
    assert len(plan.readers) == 1
    assert any("one side only" in note for note in plan.notes)


def test_a_gate_on_a_corner_is_guarded_and_said(tmp_path: Path) -> None:
    plan = planned(draft(tmp_path, gates=[{"at": (79.0, 0.0), "id": "corner"}]), poles=0, radius_m=60.0, flanks=False)
    assert any("corner" in note for note in plan.notes)
    ring = draft(tmp_path, gates=[{"at": (79.0, 0.0), "id": "corner"}]).site.school
    for pole in plan.poles:
        assert inside(pole.at, ring) == (pole.side == "inner")
        assert distance_to_edge_m(pole.at, ring) > 0.4


@pytest.mark.parametrize(
    ("wrong_deg", "why"), [(180.0, "out of the school"), (200.0, "out of the school"), (90.0, "along the wall")]
)
def test_a_wrong_inward_direction_is_refused_with_the_right_one(tmp_path: Path, wrong_deg: float, why: str) -> None:
    made = draft(tmp_path, gates=[{**SOUTH, "inward_deg": wrong_deg}])
    with pytest.raises(LayoutError, match=rf"gate south has inward_deg {wrong_deg:g}, which leads {why}.* 0 \(degrees"):
        planned(made, poles=0, radius_m=60.0, flanks=False)


def test_a_gate_in_no_wall_is_refused(tmp_path: Path) -> None:
    made = draft(tmp_path, gates=[{"at": (40.0, -30.0), "id": "lost"}])
    with pytest.raises(LayoutError, match="gate lost is 30 m from the school's outline: move the gate onto the wall"):
        planned(made, poles=0, radius_m=60.0, flanks=False)


def test_a_gate_that_no_way_leads_to_is_refused(tmp_path: Path) -> None:
    alone = feature("street", "LineString", [(36.0, -2.0), (44.0, -2.0)], **{"class": "footway"})
    with pytest.raises(LayoutError, match=r"no way leads from a home to gate south.* connect it"):
        planned(draft(tmp_path, more=[alone]), poles=0, radius_m=60.0, flanks=False)


def test_a_site_without_a_gate_is_refused_with_what_to_draw(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="has no gate: add a Point with properties"):
        draft(tmp_path, gates=[])


def test_a_side_without_room_is_said_and_a_gate_without_a_side_refused() -> None:
    passage = [(0.0, 0.0), (30.0, 0.0), (30.0, 2.0), (0.0, 2.0)]
    with pytest.raises(LayoutError, match="no room for any inner reader"):
        layout.at_gate(Entrance("thin", "school", (15.0, 0.0), 0.0, 3.0), passage)
