"""Off the agreed route only if seen well outside its corridor and at no place; back at once; silence has no effect."""

import math
import random
from dataclasses import replace

import msgspec

from gateway.fix import Fix
from gateway.presence.changes import Change, Strayed
from gateway.presence.settle import Settler
from gateway.zone import Field, Route
from tests.gateway.core.bed import at, zone

ROUTE = Route("home", (at(300, 0), at(70, 0), at(30, 10)), 25.0, ("tag-1", "tag-gone"))
ZONE = msgspec.structs.replace(zone(), routes=(ROUTE,))
FIELD = Field(ZONE)


def share(d_m: float, spread_m: float) -> float:
    return (1 + math.erf(d_m / spread_m / math.sqrt(2))) / 2


def fix(x_m: float, y_m: float, now_s: float, *, spread_m: float = 9.0) -> Fix:
    """A fix on the straight part of the route: within 25 m of y = 0. The school is north of y = -30, west of x = 60."""
    on = share(25 - y_m, spread_m) - share(-25 - y_m, spread_m)
    school = share(60 - x_m, spread_m) * share(y_m + 30, spread_m) * share(80 - y_m, spread_m)
    xy_m = FIELD.plane.to_xy_m(*at(x_m, y_m))
    return Fix(*xy_m, 1.18 * spread_m, 2.45 * spread_m, (), now_s, places={"school": school}, on_route=on)


class Walk:
    def __init__(self) -> None:
        self.settler = Settler(ZONE, FIELD.plane, {"tag-1": 1, "tag-2": 2})
        self.now_s = 0.0

    def go(self, x_m: float, y_m: float, seconds: int, *, tag: int = 1, on: float | None = 0.0) -> list[Strayed]:
        found: list[Change] = []
        for _ in range(seconds):
            self.now_s += 1.0
            made = fix(x_m, y_m, self.now_s)
            if on != 0.0:
                made = replace(made, on_route=on)
            found += self.settler.step(tag, made, None, self.now_s)
        return [change for change in found if isinstance(change, Strayed)]


def test_off_and_back_are_told_once_each() -> None:
    walk = Walk()
    assert walk.go(150, 5, 300) == []
    [off] = walk.go(150, 70, 60)
    assert (off.route, off.off) == ("home", True)
    assert off.probability > 0.9
    assert walk.go(150, 70, 600) == []
    [back] = walk.go(150, 10, 20)
    assert not back.off
    assert len(walk.go(150, 70, 60)) == 1


def test_the_other_pavement_and_a_wild_fix_are_no_deviation() -> None:
    walk = Walk()
    assert walk.go(150, 24, 600) == []
    for _ in range(50):
        assert walk.go(150, 5, 10) + walk.go(150, 90, 3) == []


def test_at_a_place_is_no_deviation_and_ends_one() -> None:
    walk = Walk()
    assert walk.go(20, 60, 600) == [], "the school's yard, 50 m off the line"
    assert len(walk.go(150, 70, 60)) == 1
    [back] = walk.go(20, 60, 60)
    assert not back.off


def test_silence_says_nothing_and_a_tag_without_a_route_has_none() -> None:
    walk = Walk()
    walk.go(150, 70, 60)
    walk.now_s += 5 * 3600
    assert [type(c) for c in walk.settler.silence(walk.now_s, lambda _: False)].count(Strayed) == 0
    assert walk.settler.tags[1].way is not None
    assert walk.go(150, 70, 60) == [], "still off, told before"
    assert walk.go(150, 70, 600, tag=2) == []
    assert Walk().go(150, 70, 600, on=None) == [], "an engine without a word on it"
    assert Walk().go(150, 70, 600, on=math.nan) == []


def test_off_is_kept_over_a_restart_and_forgotten_by_a_pause() -> None:
    walk = Walk()
    walk.settler.restore(1, "moving", None, 0.0, off=True)
    assert walk.go(150, 70, 60) == []
    walk.settler.pause(1)
    assert walk.go(150, 0, 60) == []
    walk.settler.resume(1, walk.now_s)
    assert walk.go(150, 0, 60) == []
    assert len(walk.go(150, 70, 60)) == 1


def test_a_month_of_walks_along_the_route_is_no_deviation() -> None:
    """60 walks of 4 min, 8 m off the line; errors of 6 m that last for 15 m of the way, and of 8 m that do not last."""
    rng, walk, found = random.Random(1), Walk(), []
    keep = math.exp(-1.2 / 15)
    for _ in range(60):
        walk.now_s += 3600
        slow = [rng.gauss(0, 6), rng.gauss(0, 6)]
        for second in range(240):
            slow = [keep * each + rng.gauss(0, 6 * math.sqrt(1 - keep**2)) for each in slow]
            walk.now_s += 1
            x_m, y_m = 295 - second, 8 + slow[1] + rng.gauss(0, 8)
            found += walk.settler.step(1, fix(x_m + slow[0], y_m, walk.now_s, spread_m=10), None, walk.now_s)
    assert [change for change in found if isinstance(change, Strayed)] == [], "seed 1"


def test_who_turns_into_another_street_is_told_of_within_two_minutes() -> None:
    walk = Walk()
    found: list[Change] = []
    for second in range(150):
        now_s = float(second)
        found += walk.settler.step(1, fix(150, min(1.2 * second, 60), now_s), None, now_s)
        if any(isinstance(c, Strayed) for c in found):
            break
    assert second * 1.2 - 25 < 60
    assert second < 80
