"""A gate is passed when its readers and the engine agree. Levels and probabilities are made by hand here."""

import re
from collections.abc import Iterator

import pytest

from gateway.fix import Fix, Reading
from gateway.presence import crossing
from gateway.presence.changes import Arrived, Change, Left, PresenceChange
from gateway.presence.crossing import ARRIVED, LEFT, SUM_MAX, UNANSWERED_MAX, AtGates, Gates
from gateway.presence.evidence import Evidence, log_odds
from gateway.presence.places import About, Places, Whereabouts
from gateway.presence.settle import HOLD_S, Settler
from gateway.zone import Gate, Place, Plane, Reader, Zone
from tests.roots import ROOT

PLANE = Plane(126.95, 37.54)
POWER_DBM = -48
RING = ((-60.0, 0.0), (60.0, 0.0), (60.0, 80.0), (-60.0, 80.0))
"""The school; its gates are on the southern side, and one enters northwards."""
OUTER, INNER, OUTER_B, INNER_B = (1, 3), (2, 4), 5, 6
STREET, YARD = (0.0, -12.0), (0.0, 12.0)


def zone() -> Zone:
    def reader(number: int, x_m: float, gate: str, inner: bool) -> Reader:
        lon, lat = PLANE.to_lonlat(x_m, 3.0 if inner else -2.0)
        return Reader(
            number=number, eui64=f"{number:016x}", lon=lon, lat=lat, antenna="patch", look_deg=0.0 if inner else 180.0,
            gate=gate, side="inner" if inner else "outer",
        )  # fmt: skip

    def gate(name: str, x_m: float) -> Gate:
        lon, lat = PLANE.to_lonlat(x_m, 0.0)
        return Gate(name, "school", lon, lat, inward_deg=0.0)

    posts = [(1, -2.0, "main", False), (2, -2.0, "main", True), (3, 2.0, "main", False), (4, 2.0, "main", True)]
    back = [(5, 50.0, "back", False), (6, 50.0, "back", True)]
    school = Place(id="school", kind="school", polygon=tuple(PLANE.to_lonlat(x, y) for x, y in RING))
    return Zone(
        readers=tuple(reader(*each) for each in posts + back),
        places=(school,),
        gates=(gate("main", 0.0), gate("back", 50.0)),
    )


class Child:
    """One tag that is heard each second, as readers report it every two seconds."""

    def __init__(self, settler: Settler | None = None) -> None:
        self.settler = settler or Settler(zone(), PLANE, {})
        self.now_s = 100.0

    def hear(self, levels: dict[int, int]) -> None:
        for reader, rssi_dbm in levels.items():
            self.settler.hear(1, Reading(reader, rssi_dbm, 2, self.now_s - 0.3, POWER_DBM), self.now_s)

    def stay(self, seconds: int, p: float, levels: dict[int, int], at_m: tuple[float, float] = STREET) -> list[Change]:
        found: list[Change] = []
        for second in range(seconds):
            self.now_s += 1.0
            if second % 2:
                self.hear(levels)
            fix = Fix(*at_m, 4.0, 10.0, (), self.now_s, places={"school": p})
            found += self.settler.step(1, fix, None, self.now_s)
        return found


def gate_of(outer_dbm: int, inner_dbm: int) -> dict[int, int]:
    return dict.fromkeys(OUTER, outer_dbm) | dict.fromkeys(INNER, inner_dbm)


def words(found: list[Change]) -> list[type]:
    return [type(change) for change in found if isinstance(change, Arrived | Left)]


OUTSIDE, INSIDE = gate_of(-64, -80), gate_of(-80, -64)


def test_who_comes_in_is_told_within_ten_seconds_and_who_goes_out_too() -> None:
    child = Child()
    assert words(child.stay(60, 0.1, OUTSIDE)) == []
    assert words(child.stay(10, 0.95, INSIDE, YARD)) == [Arrived]
    assert words(child.stay(600, 0.99, INSIDE, YARD)) == [], "once"
    assert words(child.stay(10, 0.01, OUTSIDE)) == [Left]


def test_neither_the_readers_of_the_gate_nor_the_engine_suffice_alone() -> None:
    assert log_odds(1.0) < ARRIVED, "an engine that is sure"
    assert SUM_MAX < ARRIVED, "readers that are sure"
    assert log_odds(1.0) + SUM_MAX > LEFT
    child = Child()
    assert words(child.stay(900, 0.5, INSIDE)) == [], "the engine knows nothing"
    assert words(child.stay(900, 0.9, OUTSIDE)) == [], "they contradict each other"
    child.stay(60, 0.97, INSIDE, YARD)
    assert words(child.stay(900, 0.5, OUTSIDE, YARD)) == []
    assert words(child.stay(900, 0.02, INSIDE, YARD)) == []


@pytest.mark.parametrize("heard", [dict.fromkeys(OUTER, -64), dict.fromkeys(INNER, -64)])
def test_one_side_alone_says_nothing(heard: dict[int, int]) -> None:
    gates, crossings = Gates(zone()), dict[str, AtGates]()
    for now_s in range(100, 700):
        for reader, rssi_dbm in heard.items():
            gates.hear(crossings, Reading(reader, rssi_dbm, 2, float(now_s), POWER_DBM))
        assert not gates.crossed(crossings["school"], "school", True, 0.01, float(now_s))
        assert not gates.crossed(crossings["school"], "school", False, 0.99, float(now_s))
    assert crossings["school"].total == 0.0


def test_one_post_of_two_is_enough() -> None:
    child = Child()
    assert words(child.stay(12, 0.95, {1: -80, 2: -64}, YARD)) == [Arrived]
    assert words(child.stay(12, 0.01, {3: -64, 4: -80})) == [Left]


def test_a_dead_readers_mate_is_not_weighed_against_the_other_post() -> None:
    """A child beside the left post, whose inner reader is dead. The right post hears it alike on both sides."""
    for known_silent in (False, True):
        child = Child()
        child.stay(12, 0.95, INSIDE, YARD)
        assert list(child.settler.silence(child.now_s, {2 if known_silent else 99}.__contains__)) == []
        told = words(child.stay(60, 0.02, {1: -62, 3: -76, 4: -76}))
        assert told == ([] if known_silent else [Left])


def test_gates_of_a_place_share_what_is_known() -> None:
    child = Child()
    assert words(child.stay(12, 0.95, INSIDE, YARD)) == [Arrived]
    out_by_the_other = {OUTER_B: -62, INNER_B: -78} | gate_of(-90, -84)
    assert words(child.stay(12, 0.01, out_by_the_other)) == [Left], "the gate that hears it best speaks"


def test_a_tag_in_the_gate_says_nothing() -> None:
    child = Child()
    assert words(child.stay(300, 0.99, gate_of(-66, -65))) == []


def test_a_deaf_reader_is_made_up_for() -> None:
    deaf = dict.fromkeys(OUTER, -68) | {2: -68, 4: -68}  # the inner side lacks 8 dB
    child = Child()
    assert words(child.stay(30, 0.95, deaf)) == []
    child.settler.set_offsets({2: -8.0, 4: -8.0, 1: float("nan")})
    assert words(child.stay(12, 0.95, deaf)) == [Arrived]
    child.settler.set_offsets({})
    assert words(child.stay(12, 0.01, gate_of(-60, -74))) == [Left]


def test_what_the_walk_test_found_is_taken_off_too() -> None:
    child = Child()
    child.settler.set_walked({2: -4.0, 4: -4.0, 1: float("inf")})
    child.settler.set_offsets({2: -4.0, 4: -4.0})
    assert words(child.stay(12, 0.95, dict.fromkeys(OUTER, -68) | {2: -68, 4: -68})) == [Arrived]


def test_who_waits_beside_the_gate_needs_a_clearer_difference() -> None:
    """6 dB: enough for who comes, not for who stood there for a minute; 16 dB are enough for both."""
    assert words(Child().stay(14, 0.97, gate_of(-74, -68))) == [Arrived]
    child = Child()
    child.stay(70, 0.3, gate_of(-74, -72))
    assert words(child.stay(300, 0.97, gate_of(-74, -68))) == []
    assert words(child.stay(14, 0.97, gate_of(-82, -66), YARD)) == [Arrived]


def test_what_the_gate_said_of_one_who_went_away_is_forgotten() -> None:
    child = Child()
    assert words(child.stay(30, 0.3, gate_of(-82, -66))) == [], "the readers are sure, the engine is not"
    assert words(child.stay(60, 0.3, gate_of(-97, -96))) == []
    assert words(child.stay(60, 0.97, gate_of(-97, -96))) == []


def test_who_has_just_left_does_not_come_back_on_a_small_difference() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    assert words(child.stay(12, 0.01, OUTSIDE)) == [Left]
    assert words(child.stay(60, 0.97, gate_of(-74, -68))) == []
    child.stay(30, 0.1, gate_of(-95, -95))
    assert words(child.stay(14, 0.97, gate_of(-74, -68))) == [Arrived], "away for a while, it may come again"


@pytest.mark.parametrize(("at_the_gate", "told"), [(-70, [Left]), (-92, [])])
def test_who_was_at_the_gate_and_goes_along_the_wall_needs_less_distance(at_the_gate: int, told: list[type]) -> None:
    """18 m from the edge, where the readers of the gate tell no side."""
    child = Child()
    child.stay(12, 0.97, INSIDE, YARD)
    child.stay(200, 0.99, gate_of(-92, -92), YARD)
    child.stay(4, 0.9, gate_of(at_the_gate, at_the_gate))
    assert words(child.stay(40, 0.01, gate_of(-92, -92), (20.0, -18.0))) == told


def test_after_a_long_silence_old_evidence_is_gone() -> None:
    gates, old = Gates(zone()), AtGates(at_s=100.0, total=SUM_MAX, engine=4.0)
    assert not gates.crossed(old, "school", False, 0.9, 150.0)
    assert old.total == 0.0


def test_what_was_settled_survives_a_restart() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    kept = child.settler.tags[1]
    other = Child(Settler(zone(), PLANE, {}))
    other.settler.restore(1, kept.state, kept.place, other.now_s)
    assert words(other.stay(60, 0.97, INSIDE, YARD)) == [], "no second arrival"
    assert words(other.stay(12, 0.01, OUTSIDE)) == [Left]


def test_nothing_is_kept_of_a_paused_tag_and_the_place_where_it_is_found_is_no_arrival() -> None:
    child = Child()
    child.settler.pause(1)
    child.hear(INSIDE)
    assert child.settler.tags[1].where.crossings == {}
    child.settler.resume(1, child.now_s)
    assert words(child.stay(12, 0.95, INSIDE, YARD)) == []
    assert child.settler.tags[1].place == "school"


def dying(child: Child, p: float, seconds: int) -> Iterator[PresenceChange]:
    """The inner side is dead: outer readers alone hear the child go."""
    for change in child.stay(seconds, p, dict.fromkeys(OUTER, -64)):
        assert isinstance(change, PresenceChange), "no arrival, no departure"
        yield change


def test_a_place_with_a_dead_side_is_uncertain_and_never_left() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    told = list(dying(child, 0.02, 2 * UNANSWERED_MAX))
    assert [(change.state, change.place) for change in told] == [("uncertain", None)]
    assert child.settler.tags[1].place == "school"
    back = child.stay(int(HOLD_S) + 4, 0.97, INSIDE, YARD)
    assert [(c.state, c.place) for c in back if isinstance(c, PresenceChange)] == [("at", "school")]


def test_a_side_that_health_knows_as_silent_is_blind_at_once() -> None:
    gates = Gates(zone())
    assert not gates.blind("school")
    gates.set_silent({2}.__contains__)
    assert not gates.blind("school"), "the other post still looks in"
    gates.set_silent({2, 4}.__contains__)
    assert gates.blind("school")


def test_a_gate_with_one_side_alone_is_no_gate() -> None:
    half = Zone(
        readers=tuple(reader for reader in zone().readers if reader.side == "inner"),
        places=zone().places, gates=zone().gates,
    )  # fmt: skip
    gates, crossings = Gates(half), dict[str, AtGates]()
    gates.hear(crossings, Reading(2, -60, 2, 1.0, POWER_DBM))
    assert crossings == {}


def test_the_gateways_page_names_every_constant_with_its_value() -> None:
    page = (ROOT / "docs" / "GATEWAY.md").read_text(encoding="utf-8")
    said: dict[str, list[float]] = {}
    for names, values in re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", page, re.MULTILINE):
        said[names] = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", values)]
    for names, values in said.items():
        each = [getattr(crossing, name) for name in re.findall(r"[A-Z_]+", names) if hasattr(crossing, name)]
        flat = [float(v) for value in each for v in (value if isinstance(value, tuple) else (value,))]
        assert flat in ([], values), names
    wanted = {name for name in vars(crossing) if name.isupper()} - {"GAP_S", "STEP_MAX_S"}
    assert wanted <= {name for names in said for name in re.findall(r"[A-Z_]+", names)}


def test_a_little_outwards_of_the_middle_is_no_departure() -> None:
    child = Child()
    assert words(child.stay(12, 0.95, INSIDE, YARD)) == [Arrived]
    assert words(child.stay(60, 0.05, gate_of(-64, -67), YARD)) == []


def test_who_waits_near_the_gate_needs_more_to_arrive() -> None:
    assert words(Child().stay(20, 0.97, gate_of(-70, -64))) == [Arrived]
    child = Child()
    child.stay(60, 0.5, gate_of(-70, -70))
    assert words(child.stay(60, 0.97, gate_of(-70, -64))) == []
    child.stay(60, 0.5, gate_of(-95, -95))
    assert words(child.stay(20, 0.97, gate_of(-70, -64))) == [Arrived], "it went away and came anew"


def test_who_has_just_left_needs_more_to_come_back() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    child.stay(60, 0.99, gate_of(-95, -95), YARD)
    assert words(child.stay(12, 0.01, OUTSIDE)) == [Left]
    assert words(child.stay(30, 0.97, gate_of(-70, -64))) == []
    assert words(child.stay(12, 0.97, INSIDE)) == [Arrived]


def test_what_spoke_for_an_arrival_does_not_speak_for_a_departure() -> None:
    child = Child()
    assert words(child.stay(12, 0.95, INSIDE, YARD)) == [Arrived]
    assert words(child.stay(30, 0.02, gate_of(-70, -70), YARD)) == []


def test_a_departure_needs_more_than_an_arrival() -> None:
    child = Child()
    assert words(child.stay(30, 0.8, INSIDE)) == [Arrived]
    assert words(child.stay(60, 0.2, OUTSIDE, YARD)) == []


def test_the_levels_of_a_side_are_averaged() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    assert words(child.stay(60, 0.05, {1: -60, 3: -80, 2: -70, 4: -66}, YARD)) == []


def test_the_gate_with_the_loudest_reader_speaks() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    assert words(child.stay(12, 0.01, gate_of(-60, -90) | {OUTER_B: -80, INNER_B: -70})) == [Left]


def test_a_late_reading_replaces_no_newer_one() -> None:
    gates, crossings = Gates(zone()), dict[str, AtGates]()
    for rssi_dbm, at_s in ((-64, 200.0), (-80, 150.0)):
        gates.hear(crossings, Reading(1, rssi_dbm, 2, at_s, POWER_DBM))
    assert crossings["school"].heard == {1: (-16.0, 200.0)}
    assert crossings["school"].close_s == 200.0


def test_only_loud_readings_make_a_silent_side_deaf_and_either_side_blinds() -> None:
    for rssi_dbm, blind in ((-90, False), (-64, True)):
        gates = Gates(zone())
        for n in range(2 * UNANSWERED_MAX):
            gates.hear({}, Reading(INNER[n % 2], rssi_dbm, 2, float(n), POWER_DBM))
        assert gates.blind("school") is blind
    gates = Gates(zone())
    gates.set_silent(set(OUTER).__contains__)
    assert gates.blind("school")
    assert gates._mates == {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}


def test_a_step_back_in_time_is_no_fault() -> None:
    gates, crossing_ = Gates(zone()), AtGates()
    for now_s in (100.0, 98.5):
        assert not gates.crossed(crossing_, "school", False, 0.9, now_s)


def test_a_dead_side_makes_nobody_doubtful_who_seems_inside() -> None:
    child = Child()
    child.stay(12, 0.95, INSIDE, YARD)
    list(child.settler.silence(child.now_s, set(INNER).__contains__))
    where = child.settler.tags[1].where
    assert not child.settler._places.doubtful(where, {"school": 0.97})
    assert child.settler._places.doubtful(where, {"school": 0.02})


def test_a_crossing_leaves_the_other_place_and_forgets_what_spoke_before() -> None:
    fix = Fix(*YARD, 4.0, 10.0, (), 9.0)
    old = About(Evidence(1.0, 20.0), 1.0, 1.0)
    own = Whereabouts("home", {"school": old, "home": old})
    assert words(list(Places._cross(own, "school", 1, fix, 9.0))) == [Left, Arrived]
    assert [own.about[place].evidence.proof for place in ("school", "home")] == [0.0, 0.0]
    own = Whereabouts(anew=Evidence(1.0))
    told = [words(list(Places._cross(own, "school", 1, fix, 9.0))) for _ in range(3)]
    assert told == [[], [Left], [Arrived]], "only the first place after a pause is no arrival"


def test_a_crossing_uses_up_what_spoke_for_it() -> None:
    gates, own = Gates(zone()), AtGates(at_s=99.0, close_s=99.0, total=SUM_MAX, engine=3.5)
    assert gates.crossed(own, "school", False, 0.97, 100.0)
    assert own.total == 0.0
    assert not any(gates.crossed(own, "school", True, 0.02, 101.0 + n) for n in range(15))


def test_who_was_near_the_gate_a_minute_ago_does_not_pass_it_from_afar() -> None:
    child = Child()
    child.stay(4, 0.5, gate_of(-70, -70))
    child.stay(60, 0.5, gate_of(-95, -95))
    assert words(child.stay(20, 0.97, gate_of(-97, -90))) == []


def test_a_weak_tag_makes_no_reader_deaf_whatever_power_it_states() -> None:
    gates = Gates(zone())
    for n in range(2 * UNANSWERED_MAX):
        gates.hear({}, Reading(INNER[n % 2], -90, 2, float(n), -80))
    assert not gates.blind("school")
