"""Places: slowly in and out. Dangers: quickly in, slowly out. Silence is never "left". Fixes are made by hand here."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from gateway.events import Heard
from gateway.fix import Fix
from gateway.presence.changes import Arrived, Change, DangerChange, Left, PresenceChange
from gateway.presence.settle import HOLD_S, STILL_S, UNSEEN_S, Settler
from gateway.zone import Field, Place
from tests.gateway.core.bed import at, box, zone

FIELD = Field(zone())
IN, EDGE, OUT, FAR = (10.0, 25.0), (62.0, 25.0), (120.0, 0.0), (180.0, 0.0)
RIVER, BANK = (250.0, 0.0), (205.0, 0.0)


def fix(x_m: float, y_m: float, now_s: float, *, spread_m: float = 9.0, reader: int = 2) -> Fix:
    """A round belief about a point of the bed's street (x along it, y north)."""

    def within(x1: float, y1: float, x2: float, y2: float) -> float:
        def share(at_m: float, low_m: float, high_m: float) -> float:
            ends = (math.erf((end_m - at_m) / spread_m / math.sqrt(2)) for end_m in (low_m, high_m))
            return (-next(ends) + next(ends)) / 2

        return share(x_m, x1, x2) * share(y_m, y1, y2)

    return Fix(
        *FIELD.plane.to_xy_m(*at(x_m, y_m)), 1.18 * spread_m, 2.45 * spread_m, (Heard(reader, -70, 2, 0.5),), now_s,
        places={"school": within(-40, -30, 60, 80)}, dangers={"river": within(230, -70, 340, 70)},
    )  # fmt: skip


class Walk:
    """One tag, heard every 2 s."""

    def __init__(self) -> None:
        self.settler = Settler(zone(), FIELD.plane, {})
        self.now_s = 100.0
        self.still_since_s: float | None = None

    def stay(self, spot: tuple[float, float], seconds: float, *, spread_m: float = 9.0) -> list[Change]:
        found: list[Change] = []
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 2.0
            found += self.settler.step(1, fix(*spot, self.now_s, spread_m=spread_m), self.still_since_s, self.now_s)
        return found

    def silent(self, seconds: float, is_silent: Callable[[int], bool] = lambda _: False) -> list[Change]:
        found: list[Change] = []
        for _ in range(int(seconds)):
            self.now_s += 1.0
            found += self.settler.silence(self.now_s, is_silent)
        return found


def only(found: list[Change], *kinds: type) -> list[Change]:
    return [change for change in found if isinstance(change, kinds)]


def test_arrival_takes_time_and_comes_once() -> None:
    walk = Walk()
    assert only(walk.stay(IN, 8), Arrived) == [], "10 s of certainty are asked for"
    [arrived] = only(walk.stay(IN, 20), Arrived)
    assert isinstance(arrived, Arrived)
    assert arrived.place == "school"
    assert only(walk.stay(IN, 600), Arrived, Left) == []
    assert walk.settler.tags[1].state == "at"


def test_who_walks_along_the_fence_has_not_arrived() -> None:
    """100 m along it, 6 m outside; errors of 6 m that last for about 15 m of the way, and of 8 m that do not last."""
    for seed in range(100):
        rng, walk, found = random.Random(seed), Walk(), []
        x_m, wrong = -60.0, [rng.gauss(0, 6), rng.gauss(0, 6)]
        while x_m < 160:
            x_m += 2.4
            wrong = [0.85 * each + rng.gauss(0, 6 * math.sqrt(1 - 0.85**2)) for each in wrong]
            found += walk.stay((x_m + wrong[0] + rng.gauss(0, 8), -36 + wrong[1] + rng.gauss(0, 8)), 2, spread_m=12)
        assert only(found, Arrived) == [], f"seed {seed}"


def test_a_visit_of_ten_seconds_is_no_arrival_and_waiting_at_the_edge_is_none() -> None:
    walk = Walk()
    for _ in range(30):
        found = walk.stay(OUT, 20) + walk.stay(IN, 10)
        assert only(found, Arrived) == []
    assert only(Walk().stay((80.0, 25.0), 1800), Arrived) == []


def test_departure_needs_to_be_seen_outside() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    assert only(walk.stay(EDGE, 300), Left) == [], "at the edge it may as well be inside"
    assert only(walk.stay(OUT, 8), Left) == []
    [left] = only(walk.stay(OUT, 30), Left)
    assert isinstance(left, Left)
    assert left.place == "school"
    assert only(walk.stay(OUT, 100), Left) == []
    assert len(only(walk.stay(IN, 60), Arrived)) == 1


def test_one_wild_fix_is_no_departure() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    for _ in range(100):
        assert only(walk.stay(IN, 10) + walk.stay(FAR, 4), Left) == []


def test_silence_is_unseen_and_never_left() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    assert walk.silent(UNSEEN_S - 2) == []
    [unseen] = walk.silent(4)
    assert isinstance(unseen, PresenceChange)
    assert (unseen.state, unseen.place) == ("unseen", "school")
    assert walk.silent(8 * 3600 // 60) == []
    [back] = walk.stay(IN, 30)
    assert isinstance(back, PresenceChange)
    assert (back.state, back.place) == ("at", "school"), "no second arrival"


def test_unseen_at_school_then_seen_far_away_is_a_departure() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    walk.silent(3600)
    found = walk.stay(FAR, 40)
    assert len(only(found, Left)) == 1


def test_a_dead_reader_is_not_covered_and_says_nothing_of_the_child() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    dead: set[int] = set()
    [unseen] = walk.silent(90, dead.__contains__)
    assert isinstance(unseen, PresenceChange)
    dead.add(2)
    [gone] = walk.silent(5, dead.__contains__)
    assert isinstance(gone, PresenceChange)
    assert (gone.state, gone.place) == ("not_covered", None)
    dead.clear()
    [again] = walk.silent(5, dead.__contains__)
    assert isinstance(again, PresenceChange)
    assert (again.state, again.place) == ("unseen", "school")
    assert only(walk.stay(IN, 10), Arrived, Left) == []


def test_moving_and_uncertain_do_not_flap() -> None:
    walk = Walk()
    first = walk.stay(OUT, 4)
    assert [c.state for c in first if isinstance(c, PresenceChange)] == ["moving"]
    found = []
    for _ in range(60):
        found += walk.stay(OUT, 4) + walk.stay(OUT, 4, spread_m=45)
    assert found == []
    found = walk.stay(OUT, HOLD_S + 4, spread_m=45)
    assert [c.state for c in found if isinstance(c, PresenceChange)] == ["uncertain"]


def test_a_tag_that_does_not_move_away_from_any_place_is_idle() -> None:
    walk = Walk()
    walk.stay(OUT, 10)
    walk.still_since_s = walk.now_s
    found = walk.stay(OUT, STILL_S - 20)
    assert found == []
    found = walk.stay(OUT, 60)
    assert [c.state for c in found if isinstance(c, PresenceChange)] == ["idle"]
    walk.still_since_s = None
    assert [c.state for c in walk.stay(OUT, 2) if isinstance(c, PresenceChange)] == ["moving"], "with the next fix"
    walk.still_since_s = walk.now_s
    assert walk.stay(OUT, STILL_S - 20) == [], "and is not said again before ten more minutes"
    inside = Walk()
    inside.stay(IN, 40)
    inside.still_since_s = inside.now_s
    [hung_up] = inside.stay(IN, STILL_S + 60)
    assert isinstance(hung_up, PresenceChange)
    assert (hung_up.state, hung_up.place, hung_up.still) == ("at", "school", True), "at school, and the bag hangs there"
    inside.still_since_s = None
    assert [(c.state, c.still) for c in inside.stay(IN, 2) if isinstance(c, PresenceChange)] == [("at", False)]


def test_a_tag_that_is_carried_away_is_not_still_whatever_it_said_last() -> None:
    walk = Walk()
    walk.stay(OUT, 10)
    walk.still_since_s = walk.now_s - STILL_S
    assert [c.state for c in walk.stay(OUT, 30) if isinstance(c, PresenceChange)] == ["idle"]
    assert [c.state for c in walk.stay(FAR, 60) if isinstance(c, PresenceChange)] == ["moving"]


def test_a_danger_is_near_at_once_when_sure_and_soon_when_likely() -> None:
    walk = Walk()
    walk.stay(OUT, 20)
    [near] = only(walk.stay(RIVER, 2), DangerChange)
    assert isinstance(near, DangerChange)
    assert (near.near, near.area) == (True, "river")
    likely = Walk()
    likely.stay(OUT, 20)
    [near] = only(likely.stay((231.0, 0.0), 8), DangerChange)
    assert isinstance(near, DangerChange)
    assert 0.4 < near.probability < 0.75
    assert likely.now_s <= 100 + 20 + 8


def test_the_bank_on_the_other_side_of_the_street_is_not_near() -> None:
    walk = Walk()
    assert only(walk.stay(BANK, 600), DangerChange) == []
    wild = Walk()
    for _ in range(50):
        assert only(wild.stay(BANK, 10) + wild.stay((231.0, 0.0), 2), DangerChange) == []


def test_a_danger_is_clear_slowly_and_never_by_silence() -> None:
    walk = Walk()
    walk.stay(RIVER, 4)
    assert only(walk.stay(FAR, 12), DangerChange) == []
    assert only(walk.stay(RIVER, 4), DangerChange) == [], "still the same alarm"
    assert only(walk.silent(1000), DangerChange) == []
    [clear] = only(walk.stay(FAR, 40), DangerChange)
    assert isinstance(clear, DangerChange)
    assert not clear.near
    assert len(only(walk.stay(RIVER, 2), DangerChange)) == 1


def test_what_was_settled_is_taken_back_after_a_restart() -> None:
    settler = Settler(zone(), FIELD.plane, {})
    settler.restore(1, "at", "school", 100.0)
    settler.restore(2, "at", "a place that is gone", 100.0)
    settler.restore_near(3, "river", 100.0)
    walk = Walk()
    walk.settler = settler
    assert walk.stay(IN, 60) == [], "neither arrives nor changes"
    assert settler.tags[2].place is None
    [unseen] = list(settler.silence(100.0 + UNSEEN_S, lambda _: False))[:1]
    assert isinstance(unseen, PresenceChange)
    found: list[Change] = []
    for n in range(30):
        found += settler.step(3, fix(*RIVER, 100.0 + n), None, 100.0 + n)
    assert only(found, DangerChange) == []


def test_the_readers_that_heard_it_best_decide_what_silence_means() -> None:
    settler = Settler(zone(), FIELD.plane, {})
    heard = (Heard(2, -62, 3, 0.2), Heard(3, -66, 3, 0.2), Heard(7, -91, 1, 4.0))
    list(settler.step(1, replace(fix(*OUT, 100.0), evidence=heard), None, 100.0))

    def state(silent: set[int], now_s: float) -> str:
        list(settler.silence(now_s, silent.__contains__))
        return settler.tags[1].state

    assert state({2}, 200.0) == "unseen"
    assert state({2, 3}, 201.0) == "not_covered", "reader 7 hardly heard it"
    assert state({7}, 202.0) == "unseen"


def test_places_side_by_side_and_in_each_other_do_not_flap() -> None:
    """A playground inside the school, and an academy that shares a wall with it."""
    both = zone()
    places = (
        *both.places,
        Place(id="playground", kind="playground", polygon=box(0, 10, 60, 80)),
        Place(id="academy", kind="academy", polygon=box(60, -30, 160, 80)),
    )
    settler, rng, found = Settler(msgspec.structs.replace(both, places=places), FIELD.plane, {}), random.Random(1), []
    for n in range(20_000):
        x_m, now_s = 52 + rng.gauss(0, 9), 100.0 + n
        made = fix(x_m, 40.0, now_s)
        school, academy = made.places["school"], 1 - made.places["school"]
        made = replace(made, places={"school": school, "playground": 0.95 * school, "academy": academy})
        found += settler.step(1, made, None, now_s)
    words = only(found, Arrived, Left)
    assert [type(word) for word in words] in ([], [Arrived]), words


# ---- pauses ------------------------------------------------------------------------------------------------------


def paused(walk: Walk, seconds: float = 600) -> list[Change]:
    walk.settler.pause(1)
    return walk.silent(2) + walk.stay(IN, seconds / 3) + walk.stay(RIVER, seconds / 3) + walk.silent(seconds / 3)


def test_of_a_paused_tag_only_the_pause_is_told() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    [told] = paused(walk)
    assert told == PresenceChange(1, "paused", None, None)
    settled = walk.settler.tags[1]
    assert (settled.fix, settled.place, settled.about_m, settled.where.about) == (None, None, None, {}), "nor kept"
    assert walk.settler.is_paused(1)


@pytest.mark.parametrize("spot", [IN, OUT, EDGE])
def test_after_a_pause_nothing_arrives_and_nothing_leaves(spot: tuple[float, float]) -> None:
    walk = Walk()
    walk.stay(IN, 40)
    paused(walk)
    walk.settler.resume(1, walk.now_s)
    found = walk.stay(spot, 900)
    assert only(found, Arrived, Left, DangerChange) == []
    if spot == IN:
        assert [(c.state, c.place) for c in found if isinstance(c, PresenceChange)][-1] == ("at", "school")


def test_who_was_seen_outside_after_a_pause_arrives_as_ever() -> None:
    walk = Walk()
    walk.stay(IN, 40)
    paused(walk)
    walk.settler.resume(1, walk.now_s)
    assert only(walk.stay(OUT, 60), Arrived) == []
    assert len(only(walk.stay(IN, 60), Arrived)) == 1
    assert len(only(walk.stay(OUT, 60), Left)) == 1


def test_a_danger_goes_on_over_a_pause_as_one_alarm() -> None:
    walk = Walk()
    walk.stay(RIVER, 4)
    assert only(paused(walk), DangerChange) == []
    walk.settler.resume(1, walk.now_s)
    assert only(walk.stay(RIVER, 20), DangerChange) == []
    [clear] = only(walk.stay(OUT, 60), DangerChange)
    assert isinstance(clear, DangerChange)
    assert not clear.near


def test_a_pause_lasts_over_a_restart_and_its_end_too() -> None:
    still_paused, ended = Settler(zone(), FIELD.plane, {}), Settler(zone(), FIELD.plane, {})
    still_paused.pause(1)
    for settler in (still_paused, ended):
        settler.restore(1, "paused", None, 100.0)
    walk = Walk()
    walk.settler = still_paused
    assert walk.stay(IN, 60) + walk.silent(100) == [], "it was told before"
    walk.settler = ended
    found = walk.stay(IN, 60)
    assert only(found, Arrived) == []
    assert [(c.state, c.place) for c in found if isinstance(c, PresenceChange)][-1] == ("at", "school")
