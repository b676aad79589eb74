"""Gates and gate readers: what would make a gate lie is refused with the next step, what makes it slower is noted."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import zone
from gateway.config import gates as rules_of_gates
from gateway.config.findings import Findings
from gateway.config.load import load, summary
from gateway.core import reader_settings
from gateway.zone import Plane
from tests.gateway.config.bed import GOOD, faults, only, secret, written
from tests.roots import ROOT

SEED = 3
MIDDLE = (126.9505, 37.543)
"""The gate: in the southern edge of the school's triangle, entered to the north."""
PLANE = Plane(*MIDDLE)
HEAD, _, REST = GOOD.partition("[[readers]]\nnumber = 2")
BARE = HEAD + REST[REST.index("[[places]]") :].replace("reader = 2", "reader = 1")
"""The good configuration with reader 1 alone."""
LAYOUT = {11: ("outer", -2.0, -1.5), 12: ("outer", -2.0, 1.5), 13: ("inner", 3.0, -1.5), 14: ("inner", 3.0, 1.5)}
"""number -> side, metres inwards, metres to the right."""


def gate(**changed: Any) -> str:
    row = {"id": '"main"', "place": '"school"', "lon": MIDDLE[0], "lat": MIDDLE[1], "inward_deg": 0.0, "width_m": 3.0}
    return "[[gates]]\n" + "".join(f"{key} = {value}\n" for key, value in (row | changed).items())


def reader(number: int, **changed: Any) -> str:
    side, inwards_m, right_m = LAYOUT[number]
    lon, lat = PLANE.to_lonlat(right_m, inwards_m)
    row: dict[str, Any] = {
        "number": number, "eui64": f'"0013a200412345{number:02x}"', "lon": lon, "lat": lat, "antenna": '"patch"',
        "look_deg": 180 if side == "outer" else 0, "gate": '"main"', "side": f'"{side}"', "scan_interval_ms": 10,
        "scan_window_ms": 5,
    }  # fmt: skip
    rows = {key: value for key, value in (row | changed).items() if value is not None}
    return "[[readers]]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items())


def site(*, gates: str | None = None, missing: tuple[int, ...] = (), **changed: dict[str, Any]) -> str:
    """Return the good configuration with a guarded gate. changed: r11=... for what another reader 11 has."""
    readers = [reader(n, **changed.get(f"r{n}", {})) for n in LAYOUT if n not in missing]
    return "\n".join([BARE, *readers, gate() if gates is None else gates])


@pytest.fixture(autouse=True)
def keys(folder: Path) -> None:
    secret(folder / "reader_keys.json", {str(number): f"{number:032x}" for number in (1, 2, *LAYOUT)})


def at(inwards_m: float, right_m: float) -> dict[str, Any]:
    lon, lat = PLANE.to_lonlat(right_m, inwards_m)
    return {"lon": lon, "lat": lat}


def test_a_guarded_gate_reaches_the_zone_and_needs_no_note(folder: Path) -> None:
    loaded = load(written(folder, site()))
    assert loaded.notes == ()
    assert loaded.zone.gates == (zone.Gate("main", "school", *MIDDLE, 0.0, 3.0),)
    guards = {r.number: (r.gate, r.side, r.antenna, r.look_deg) for r in loaded.zone.readers if r.number != 1}
    assert guards == {n: ("main", side, "patch", 180.0 if side == "outer" else 0.0) for n, (side, *_) in LAYOUT.items()}
    said = "gate main of school, 3 m wide, one enters to 0 degrees: readers outer 11 and 12, inner 13 and 14"
    assert said in summary(loaded).splitlines()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"place": '"scool"'}, "gates[0].place: there is no place scool; there are school; right is the id of the"),
        (at(-5.5, 0), "gates[0].lon: gate main is 6 m from the outline of school, 5 m are the most; move the gate or"),
        ({"lon": MIDDLE[1], "lat": MIDDLE[0] - 90}, "km from the outline of school, 5 m are the most; are lon and lat"),
        ({"inward_deg": 180}, "gates[0].inward_deg: 180 leads out of school; the opposite is 0; right is 0 up to 360"),
        ({"inward_deg": 215}, "gates[0].inward_deg: 215 leads out of school; the opposite is 35;"),
        ({"inward_deg": 90}, "gates[0].inward_deg: 90 leads along the edge of school; straight in is about 0;"),
        ({"width_m": 0}, "gates[0].width_m: Expected"),
        ({"inward_deg": 360}, "gates[0].inward_deg: Expected"),
        ({"look_deg": 3}, "gates[0].look_deg: unknown key"),
    ],
)
def test_a_gate_that_would_lie_is_refused(folder: Path, changed: dict[str, Any], said: str) -> None:
    assert said in only(folder, BARE + gate(**changed))


def test_a_gate_a_little_off_the_outline_is_taken_on_both_sides_of_it(folder: Path) -> None:
    for inwards_m in (-4.5, 4.5):
        load(written(folder, BARE + gate(**at(inwards_m, 0.0))))


def test_two_gates_do_not_share_an_id(folder: Path) -> None:
    other = gate(**at(0.0, 30.0))
    assert "gates[1].id: 'main' is given twice (first in line" in only(folder, site(gates=gate() + other))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gate": '"mian"'}, "readers[1].gate: there is no gate mian; there are main; right is the id of the gate"),
        ({"side": None}, 'readers[1].side: missing beside gate; right is "outer" (looks to the street)'),
        ({"gate": None}, "readers[1].gate: missing beside side; right is the id of the gate"),
        ({"look_deg": None}, "readers[1].look_deg: missing beside a patch; right is 0 up to 360"),
        ({"antenna": None}, 'readers[1].look_deg: a dipole looks nowhere: antenna = "patch"?; right is'),
        (
            {"look_deg": 80},
            "look_deg: 80 looks into school; an outer reader of gate main looks to about 180;",
        ),
        ({"look_deg": 271}, "readers[1].look_deg: 271 looks into school"),
        (at(-45.0, 0.0), "readers[1].gate: reader 11 is 45 m from gate main, 40 m are the most; name the gate"),
        ({"scan_window_ms": 11}, "readers[1].scan_window_ms: scan_window_ms 11 is over scan_interval_ms 10;"),
        (
            {"scan_interval_ms": None},
            "readers[1].scan_interval_ms: missing beside scan_window_ms: give this reader both",
        ),
        ({"scan_window_ms": None}, "readers[1].scan_window_ms: missing beside scan_interval_ms: give this reader both"),
        ({"side": '"middle"'}, "readers[1].side: Invalid enum value"),
    ],
)
def test_a_gate_reader_that_would_lie_is_refused(folder: Path, changed: dict[str, Any], said: str) -> None:
    assert said in only(folder, site(r11=changed))


def test_an_inner_reader_looks_in(folder: Path) -> None:
    said = only(folder, site(r14={"look_deg": 135}))
    assert "readers[4].look_deg: 135 looks out of school; an inner reader of gate main looks to about 0;" in said
    for look_deg in (90, 270):  # along the wall: useless, but no lie
        load(written(folder, site(r14={"look_deg": look_deg})))


def test_without_a_single_gate_a_gate_reader_is_told_so(folder: Path) -> None:
    assert "readers[1].gate: there is no gate main; there are none" in faults(folder, site(gates=""))[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            BARE + gate(),
            "gate main: no reader guards it, so who passes it is reported by the depth inside school, ",
        ),
        (site(missing=(13, 14)), "gate main: only outer readers (11, 12), so who passes it is reported by the depth"),
        (site(missing=(11, 12)), "gate main: only inner readers (13, 14), so who passes it is reported by the depth"),
        (site(r11=at(-4.2, -1.5)), "gate main: reader 11 (outer) stands 4.2 m before the wall: who waits at the gate"),
        (site(r11=at(4.2, -1.5)), "gate main: reader 11 (outer) stands 4.2 m behind the wall; move it"),
        (site(r13=at(9.0, -1.5)), "gate main: reader 13 (inner) stands 9.0 m behind the wall: who leaves is noticed"),
        (site(r13=at(-1.5, -1.5)), "gate main: reader 13 (inner) stands 1.5 m before the wall; move it inside"),
        (site(missing=(12, 14)), "gate main: its readers stand on one post, and it is 3 m wide: one arrival in ten"),
        (site(r11={"antenna": None, "look_deg": None}), "gate main: reader 11 (outer) has a dipole, which hears both"),
        (
            site(r11={"scan_interval_ms": 20}),
            "gate main: reader 11 (outer) listens 25% of the time, so many",
        ),
    ],
    ids=["none", "outer only", "inner only", "far out", "behind", "deep", "before", "one post", "dipole", "quarter"],
)
def test_what_makes_a_gate_slower_is_noted_and_stops_nothing(folder: Path, text: str, said: str) -> None:
    loaded = load(written(folder, text))
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith(said)
    assert any(note.startswith(said) for note in loaded.notes), loaded.notes


def test_a_gate_reader_without_own_settings_needs_no_note(folder: Path) -> None:
    """The gateway gives it those of a gate reader."""
    plain = {"scan_interval_ms": None, "scan_window_ms": None}
    assert load(written(folder, site(r11=plain))).notes == ()


def test_one_post_is_enough_for_a_door(folder: Path) -> None:
    assert load(written(folder, site(missing=(12, 14), gates=gate(width_m=1.5)))).notes == ()


def test_own_frame_rates_fit_into_what_the_coordinator_carries(folder: Path) -> None:
    most = (1800 - rules_of_gates.FRAMES_MIN_PER_MIN) // 4
    rates = {f"r{n}": {"frames_per_min": most} for n in LAYOUT}
    assert load(written(folder, site(**rates))).notes == ()
    said = only(folder, site(**(rates | {"r12": {"frames_per_min": most + 3}})))
    assert "readers[4].frames_per_min: the own rates of 4 readers are 1795 frames a minute together, and the" in said
    assert "has 1794 for them; at most 448 each" in said
    assert zone.FRAMES_A_S == reader_settings.FRAMES_A_S
    assert reader_settings.FRAMES_PER_MIN_MIN == rules_of_gates.FRAMES_MIN_PER_MIN


def test_offsets_count_inwards_and_to_the_right_of_who_enters() -> None:
    for inward_deg, inwards, right in ((0.0, (0, 1), (1, 0)), (90.0, (1, 0), (0, -1)), (180.0, (0, -1), (-1, 0))):
        assert zone.offset_m(*inwards, inward_deg) == pytest.approx((1.0, 0.0), abs=1e-9)
        assert zone.offset_m(*right, inward_deg) == pytest.approx((0.0, 1.0), abs=1e-9)


def test_a_gate_anywhere_and_of_any_shape_of_place_is_checked_without_a_fault(folder: Path) -> None:
    chance, seen = random.Random(SEED), set[str]()
    good = load(written(folder, site())).config
    for _ in range(300):
        corner = [(chance.choice((126.95, 126.9501, 0.0, -180.0, 180.0)), chance.choice((37.543, 37.5431, 90.0, -90.0)))
                  for _ in range(chance.randrange(3, 6))]  # fmt: skip
        place = zone.Place("school", "school", tuple(corner))
        lon, lat = chance.choice((*corner, (37.543, 126.95 - 90), (180.0, -90.0)))
        opening = zone.Gate("main", "school", lon, lat, chance.choice((0.0, 90.0, 359.999)), chance.choice((0.5, 40.0)))
        config = msgspec.structs.replace(good, places=(place,), gates=(opening, opening))
        findings = Findings(folder / "gateway.toml", {})
        for rule in rules_of_gates.RULES:
            rule(findings, config)
        seen |= {problem.key for problem in findings.problems}
        assert all(problem.text.isprintable() for problem in findings.problems)
    assert {"gates[0].lon", "gates[0].inward_deg", "readers[1].gate"} <= seen


def test_the_example_of_the_document_is_a_good_gate(folder: Path) -> None:
    page = (ROOT / "docs" / "GATEWAY.md").read_text(encoding="utf-8")
    part = page.partition("### A gate and its readers")[2]
    example = "\n".join(line[4:] for line in part.splitlines() if line.startswith("    "))
    assert example.count("[[readers]]") == 4
    ring = [[126.9530, 37.5455], [126.9540, 37.5455], [126.9540, 37.5460], [126.9530, 37.5460]]
    head, _, tail = GOOD.partition('[[places]]\nid = "school"')
    place = f'[[places]]\nid = "school"\nkind = "school"\npolygon = {ring}\n'
    text = "\n".join([head, example, place, tail[tail.index("[[dangers]]") :]])
    secret(folder / "reader_keys.json", {str(number): f"{number:032x}" for number in (1, 2, 21, 22, 23, 24)})
    loaded = load(written(folder, text))
    assert loaded.notes == ()
    assert (
        "gate main of school, 3.4 m wide, one enters to 0 degrees: readers outer 21 and 22, inner 23 and 24"
        in summary(loaded)
    )
