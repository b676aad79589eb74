"""What a plan promises: words at the gates, false words, and presses on the footpaths, by the gateway's own programs.

Some airs (shadows, spread of readers and tags) are drawn. In each a technician makes the walk test, as before a real
opening; then children have their days, all at the same time, and a gateway with that walk test says what it says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.locate.locator import ZoneLocator
from gateway.zone import Field, ReaderSettings
from sim import chance
from sim.air.radio import Air
from sim.plan import chain
from sim.plan.chain import Conditions, Decider
from sim.plan.coverage import Coverage, press_everywhere
from sim.plan.layout import footpath_points
from sim.plan.scenes import GateScene, Premises, scene
from sim.street.site import Pole, Site
from sim.street.tag import POWER_SIGMA_DB
from sim.street.zone import GATE_SCAN_INTERVAL_MS, GATE_SCAN_WINDOW_MS, zone_of

DAY = (
    ("arrive", 1.0), ("leave", 1.0), ("passer", 0.5), ("plays", 0.2), ("wait", 0.1), ("beside", 0.1),
    ("in_and_out", 0.05), ("runs_outside", 0.05),
)  # fmt: skip
"""Scenes of `sim.plan.scenes` in one child's day. How often children do this is assumed; each wait, stay beside the
gate and play lasts 10 to 15 minutes."""
BARS = (("arrivals", 20, 0.97), ("arrivals", 60, 0.998), ("departures", 30, 0.99))
"""What a parent can set a watch by: (which words, within seconds, share)."""
FALSE_PER_1000_MAX = 1.0
HEARD_MIN, LOCATED_MIN = 0.95, 0.5
"""Of presses on the footpaths near the school. Below the second a plan says that it locates few of them: no bar was
agreed for it, so half is our own choice."""
SURE = 0.95
COMMON_DUTY = ReaderSettings().scan_window_ms / ReaderSettings().scan_interval_ms
PRESS_AIRS_MAX, PRESS_STEP_M = 3, 8.0
"""Presses are tried in so many of the airs, at points this far apart."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What a promise takes for granted: an assumption, its value, and what shows whether it is true."""

    conditions: Conditions

    def rows(self) -> list[tuple[str, str, str]]:
        air = self.conditions.channel
        patch = f"{air.patch_gain_db:g} dB ahead of a dipole, {air.patch_front_back_db:g} dB less behind than ahead"
        return [
            ("antennas at the gates", patch, "the gates' figures under Acceptance"),
            (
                "the school's wall",
                f"{air.wall_db:g} dB between who is inside and a reader outside, except within {air.gate_m:g} m of it",
                "the gates' figures; a fence has about 0 dB: plan with --wall-db 0",
            ),
            ("how the level falls", f"{10 * air.exponent:g} dB a decade", "the footpaths' figures"),
            (
                "shadows of houses, cars, trees",
                f"{air.shadow_sigma_db:g} dB, other ones every {air.shadow_cell_m:g} m",
                "`before` and `after` of ansim-gateway calibrate",
            ),
            (
                "the child's body",
                f"{air.body_min_db:g} to {air.body_max_db:g} dB, bag on the back",
                "the walk, bag on the back",
            ),
            (
                "packets lost",
                f"{100 * air.plateau_loss:g} % whatever the level, and {100 * self.conditions.loss:g} % besides",
                "the footpaths' figures",
            ),
            (
                "spread of devices",
                f"readers {air.reader_sigma_db:g} dB, tags {POWER_SIGMA_DB:g} dB",
                "the gateway compares its readers and says which is deaf",
            ),
            (
                "scanning",
                f"gate readers {100 * GATE_SCAN_WINDOW_MS / GATE_SCAN_INTERVAL_MS:g} % of the time, others "
                f"{100 * COMMON_DUTY:g} %",
                "the first hour on real modules: scan duty and lost frames of the heartbeats",
            ),
            ("the mesh", "its delay is not in the seconds: add 1 to 2 s", "times of arrival in the log"),
            ("the walk test", "made, after mounting, before opening", "ansim-gateway check"),
            ("how children behave", "speed 0.8 to 1.7 m/s; the child-day above", "nothing; it is assumed"),
        ]


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds from each crossing of a gate to its word; inf: none. air: the number of the air that each happened in."""

    delays_s: tuple[float, ...]
    air: tuple[int, ...] = ()

    @property
    def of(self) -> int:
        return len(self.delays_s)

    def within(self, seconds: float) -> int:
        return sum(delay <= seconds for delay in self.delays_s)

    def share(self, seconds: float) -> float:
        """Return the share told within so many seconds, 0..1; 0 of none."""
        return self.within(seconds) / max(self.of, 1)

    def least(self, seconds: float) -> float:
        """Return the share that the true one is above, with SURE, if all these children are alike."""
        return least_share(self.within(seconds), self.of)

    def poorest(self, seconds: float) -> float:
        """Return the share in the air where the fewest are told in time: another street may be like that one."""
        each = [
            Delays(tuple(d for d, a in zip(self.delays_s, self.air, strict=True) if a == air)).share(seconds)
            for air in set(self.air)
        ]
        return min(each, default=self.share(seconds))

    def percentile_s(self, part: float) -> float:
        """Return the delay that `part` of 100 do not exceed; inf when fewer were told."""
        ordered = sorted(self.delays_s)
        return ordered[max(math.ceil(len(ordered) * part / 100) - 1, 0)] if ordered else math.inf


@dataclass(frozen=True, slots=True)
class Promise:
    """The figures of a plan. child_days: how many were simulated, spread over so many airs."""

    arrivals: Delays
    departures: Delays
    false_kinds: tuple[tuple[str, int], ...]
    """False words by the kind of scene, most frequent first."""
    child_days: float
    coverage: Coverage
    airs: int
    seed: int

    @property
    def false_words(self) -> int:
        return sum(count for _, count in self.false_kinds)

    @property
    def false_per_1000(self) -> float:
        return 1000 * self.false_words / self.child_days

    @property
    def false_per_1000_most(self) -> float:
        """What the true rate does not exceed, with SURE, if false words are independent (Poisson)."""
        return 1000 * most_of(self.false_words) / self.child_days

    def of(self, name: str) -> Delays:
        return self.arrivals if name == "arrivals" else self.departures

    def shortfalls(self) -> list[str]:
        """Return in sentences what is not reached, and what was not simulated often enough to be sure."""
        found = []
        for name, seconds, bar in BARS:
            share = self.of(name).share(seconds)
            if share < bar:
                what = f"{name.capitalize()} reported within {seconds} s"
                found.append(f"{what}: {100 * share:.1f} %, the bar is {100 * bar:g} %.")
        if self.false_per_1000 > FALSE_PER_1000_MAX:
            found.append(
                f"False reports: {self.false_per_1000:.1f} per 1000 child-days, the bar is {FALSE_PER_1000_MAX:g}."
            )
        elif self.false_per_1000_most > FALSE_PER_1000_MAX:
            days = 1000 * most_of(self.false_words) / FALSE_PER_1000_MAX
            found.append(
                f"False reports: {self.child_days:.0f} child-days prove no less than {self.false_per_1000_most:.1f} "
                f"per 1000; --days {math.ceil(days / 100) * 100} proves {FALSE_PER_1000_MAX:g}, if no more are found."
            )
        if self.coverage.heard_share < HEARD_MIN:
            found.append(
                f"Presses heard: {100 * self.coverage.heard_share:.1f} %, the bar is {100 * HEARD_MIN:g} %. The grey "
                "and pale points of the picture show where readers are missing; --poles gives more."
            )
        if self.coverage.located_share < LOCATED_MIN:
            found.append(
                f"Presses located within 20 m: {100 * self.coverage.located_share:.0f} %. One reader alone tells how "
                "far a child is and not which way; --poles gives more, where it matters."
            )
        return found


def promise(
    site: Site,
    poles: Sequence[Pole],
    *,
    days: int,
    airs: int,
    seed: int,
    radius_m: float,
    conditions: Conditions | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Promise:
    """Return what a site with readers on these poles promises. Equal arguments give equal promises.

    days: child-days, 1 or more, spread over `airs`. radius_m: how far from the school's outline presses are tried.
    conditions: how the simulated world differs from a good day. progress: called with a line for each air.
    """
    wanted = conditions or Conditions()
    told: dict[str, list[tuple[float, int]]] = {"arrive": [], "leave": []}
    false: Counter[str] = Counter()
    pressed: list[tuple[int, Air, ZoneLocator]] = []
    for n in range(airs):
        air = Trial(site, poles, wanted, air_seed(seed, n))
        scenes = dealt(Premises(site), DAY, seed, days, n, airs)
        words = air.words(scenes)
        false.update(scenes[word.tag].kind for word in chain.judged(scenes, words).false)
        for kind, delays_s in told.items():
            delays_s += [(delay_s, n) for delay_s in delays_of(scenes, words, kind)]
        if n < PRESS_AIRS_MAX:
            pressed.append((air.seed, air.air, air.locator.anew()))
        progress(f"air {n + 1} of {airs}: {len(scenes)} children, {false.total()} false reports so far")
    points = footpath_points(site, radius_m, PRESS_STEP_M)
    duty = [(1 - wanted.loss) * chain.duty_of(air.zone, reader) for reader in air.zone.readers]
    return Promise(
        _delays(told["arrive"]), _delays(told["leave"]), tuple(false.most_common()), days,
        press_everywhere(site, air.zone, points, pressed, duty, radius_m=radius_m), airs, seed,
    )  # fmt: skip


class Trial:
    """A zone in one air, after the walk test in it."""

    def __init__(self, site: Site, poles: Sequence[Pole], conditions: Conditions, seed: int) -> None:
        self._site, self._conditions, self.seed = site, conditions, seed
        self.zone = zone_of(site, poles)
        self.air = chain.air_of(site, self.zone, seed, conditions)
        self.locator = chain.walked(site, poles, self.zone, self.air, seed)

    def words(self, scenes: Sequence[GateScene]) -> list[chain.GateWord]:
        """Return what the gateway says of scenes that all happen at once."""
        if not scenes:
            return []
        rows = chain.reported(scenes, self.zone, self.air, self.seed, self._conditions)
        decider = Decider(self.zone, Field(self.zone).plane, scenes, self._site.school_id)
        return chain.run(rows, [decider], self.locator.anew(), self._conditions.dead_s)[0]


def air_seed(seed: int, n: int) -> int:
    """Return the seed of the n-th air of a plan: no two plans of different seeds share an air."""
    return int(chance.words(seed, "plan", n)[0] >> 33)


def dealt(
    premises: Premises, day: Sequence[tuple[str, float]], seed: int, days: int, n: int, airs: int
) -> list[GateScene]:
    """Return the scenes of the n-th air: those of all days, dealt out to the airs in turn."""
    return [
        scene(kind, premises, seed, number) for kind, share in day for number in range(n, round(share * days), airs)
    ]


def delays_of(scenes: Sequence[GateScene], words: Sequence[chain.GateWord], kind: str) -> tuple[float, ...]:
    """Return the seconds from each crossing of the scenes of a kind to its word; inf: none."""
    own = [n for n, each in enumerate(scenes) if each.kind == kind]
    new = {n: k for k, n in enumerate(own)}
    verdict = chain.judged(
        [scenes[n] for n in own], [word._replace(tag=new[word.tag]) for word in words if word.tag in new]
    )
    return verdict.arrivals_s + verdict.departures_s


def least_share(got: int, of: int) -> float:
    """Return the share that got of `of` exceeds with SURE (the one-sided Clopper-Pearson bound), 0..1."""
    if not got:
        return 0.0

    def at_least(p: float) -> float:
        return sum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(got, of + 1))

    return _solve(lambda p: at_least(p) - (1 - SURE), 0.0, 1.0)


def most_of(events: int) -> float:
    """Return the mean number of events that is not exceeded with SURE when so many were seen (Poisson)."""

    def at_most(mean: float) -> float:
        return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(events + 1))

    return _solve(lambda mean: (1 - SURE) - at_most(mean), 1e-9, 10.0 + 3.0 * events)


# ---- inside ----------------------------------------------------------------------------------------------------------


def _delays(told: Sequence[tuple[float, int]]) -> Delays:
    return Delays(tuple(delay_s for delay_s, _ in told), tuple(air for _, air in told))


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function is 0, by halving."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low
