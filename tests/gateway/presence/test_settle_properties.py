"""Whatever an engine reports, in any order and at any rate, what is settled about a tag makes sense."""

import math
from collections import defaultdict

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import Heard
from gateway.fix import Fix
from gateway.presence.changes import Arrived, Change, DangerChange, Left, PresenceChange, Strayed
from gateway.presence.evidence import Cells
from gateway.presence.settle import UNSEEN_S, Settler
from gateway.zone import DangerArea, Field, Place, Route
from tests.gateway.core.bed import at, box, zone

ZONE = msgspec.structs.replace(
    zone(),
    places=(*zone().places, Place(id="home", kind="home", polygon=box(100, 20, 130, 50))),
    dangers=(*zone().dangers, DangerArea(id="pit", polygon=box(-40, -30, 0, 0))),
    routes=(Route("way", (at(0, 0), at(200, 0)), 25.0, ("tag-1", "tag-2")),),
)
PLANE = Field(ZONE).plane
ROWS = {"tag-0": 0, "tag-1": 1, "tag-2": 2}

odds = st.sampled_from([0.0, 1.0, 0.5, 0.02, 0.98, math.nan, -1.0, 2.0, math.inf]) | st.floats(0, 1)
metres = st.sampled_from([math.nan, math.inf, -math.inf, 1e300]) | st.floats(-400, 400)
paces = st.sampled_from([0.0, 1e-9, 0.5, 1.0, 2.0, 19.0, 21.0, 1e5, 1e9, -1.0]) | st.floats(0, 30)


SPOTS = {
    "yard": ((10.0, 25.0), {"school": 0.99}, {}, 0.1),
    "home": ((115.0, 35.0), {"home": 0.95}, {}, 0.02),
    "street": ((150.0, 0.0), {}, {}, 0.97),
    "river": ((250.0, 0.0), {}, {"river": 0.99}, 0.01),
    "pit": ((-20.0, -15.0), {"school": 0.8}, {"pit": 0.9}, 0.5),
    "astray": ((150.0, -120.0), {}, {}, 0.01),
}  # fmt: skip


@st.composite
def seen(draw: st.DrawFn) -> Fix:
    """A fix as a good engine gives it at one of the spots."""
    (x_m, y_m), places, dangers, on_route = SPOTS[draw(st.sampled_from(sorted(SPOTS)))]
    evidence = (Heard(draw(st.integers(1, 10)), -70, 1, 0.1),)
    at_m = PLANE.to_xy_m(*at(x_m, y_m))
    return Fix(*at_m, 8.0, 20.0, evidence, 0.0, places=places, dangers=dangers, on_route=on_route)


@st.composite
def wild(draw: st.DrawFn) -> Fix:
    return Fix(
        draw(metres), draw(metres), draw(metres), draw(metres),
        tuple(Heard(draw(st.integers(1, 10)), draw(st.none() | st.integers(-110, 0)), 1, 0.1) for _ in range(2)), 0.0,
        places=draw(st.dictionaries(st.sampled_from(["school", "home", "nowhere"]), odds)),
        dangers=draw(st.dictionaries(st.sampled_from(["river", "pit", "nowhere"]), odds)),
        on_route=draw(st.none() | odds),
    )  # fmt: skip


fixes = seen() | wild()
walks = st.tuples(st.just("fix"), seen(), st.integers(10, 60))
events = st.one_of(
    walks,
    walks,
    st.tuples(st.just("fix"), fixes, st.integers(1, 40)),
    st.tuples(st.just("silence"), st.sampled_from(["none", "all", "odd"]), st.integers(1, 5)),
    st.tuples(st.sampled_from(["pause", "resume", "still", "moves"]), st.none(), st.just(1)),
)


@given(st.lists(st.tuples(events, st.sampled_from([1, 1, 1, 2, 0]), st.just(1.0) | paces), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_story_is_told_in_an_order_that_makes_sense(
    story: list[tuple[tuple[str, object, int], int, float]],
) -> None:
    settler, now_s = Settler(ZONE, PLANE, ROWS), 1000.0
    place: dict[int, str | None] = defaultdict(lambda: None)
    near: set[tuple[int, str]] = set()
    off: set[int] = set()
    still: dict[int, float | None] = defaultdict(lambda: None)
    paused: set[int] = set()
    told_paused: set[int] = set()

    def check(change: Change, kind: str) -> None:
        tag = change.tag
        if tag in paused:
            assert isinstance(change, PresenceChange)
            assert (change.state, change.place, change.fix) == ("paused", None, None)
            assert tag not in told_paused, "once"
            told_paused.add(tag)
        elif isinstance(change, Arrived):
            assert kind == "fix"
            assert place[tag] is None, "left before it arrives elsewhere"
            place[tag] = change.place
        elif isinstance(change, Left):
            assert kind == "fix", "never by silence"
            assert place[tag] == change.place, "left only what it was at"
            place[tag] = None
        elif isinstance(change, DangerChange):
            assert kind == "fix"
            assert ((tag, change.area) in near) != change.near, "near and clear in turn"
            (near.add if change.near else near.discard)((tag, change.area))
        elif isinstance(change, Strayed):
            assert tag in (1, 2)
            assert (tag in off) != change.off
            (off.add if change.off else off.discard)(tag)
        else:
            assert (change.state in ("unseen", "not_covered")) == (kind == "silence")
            assert change.place is None or change.state in ("at", "unseen")
            assert not change.still or change.state in ("at", "idle")
            if change.state == "at" and place[tag] is None:
                place[tag] = change.place  # after a pause, without an arrival
            assert change.state != "at" or change.place == place[tag]

    for (kind, what, times), tag, pace_s in story:
        for _ in range(times):
            now_s += pace_s
            if kind == "fix":
                for change in settler.step(tag, what, still[tag], now_s):  # type: ignore[arg-type]
                    check(change, kind)
            elif kind == "silence":
                for change in settler.silence(now_s, {"none": set[int](), "all": set(range(99))}.get(
                    str(what), set(range(1, 99, 2))
                ).__contains__):  # fmt: skip
                    check(change, kind)
            elif kind == "pause":
                settler.pause(tag)
                if tag not in paused:
                    paused.add(tag)
                    place[tag] = None
                    off.discard(tag)
            elif kind == "resume":
                settler.resume(tag, now_s)
                paused.discard(tag)
                told_paused.discard(tag)
            else:
                still[tag] = now_s if kind == "still" else None
    for settled in settler.tags.values():
        assert len(settled.where.about) <= 2
        assert len(settled.near) <= 2
        assert all(about.evidence.proof >= 0 for about in settled.where.about.values())


@given(st.lists(st.tuples(fixes, paces), max_size=60), st.floats(UNSEEN_S, 1e7))
@settings(max_examples=100, deadline=None)
def test_silence_of_any_length_leaves_nothing(before: list[tuple[Fix, float]], seconds: float) -> None:
    settler, now_s = Settler(ZONE, PLANE, ROWS), 0.0
    settler.restore(1, "at", "school", now_s)
    for made, pace_s in before:
        now_s += pace_s
        list(settler.step(1, made, None, now_s))
    here = settler.tags[1].place
    found = [c for n in range(100) for c in settler.silence(now_s + seconds * (n + 1) / 100, lambda _: False)]
    assert all(isinstance(c, PresenceChange) and c.state == "unseen" and c.place == here for c in found)
    assert settler.tags[1].place == here


@given(st.lists(st.tuples(st.lists(odds, min_size=3, max_size=3), paces), max_size=60))
def test_the_zone_is_one_of_the_partition_and_changes_only_for_a_likelier_one(
    story: list[tuple[list[float], float]],
) -> None:
    zones, now_s = Cells(), 0.0
    for mass, pace_s in story:
        now_s += pace_s
        before, zone = zones.cell, zones.step(mass, now_s)
        assert zone in (0, 1, 2)
        if before is not None and zone != before:
            assert mass[zone] > (mass[before] if mass[before] == mass[before] else 0.0)
