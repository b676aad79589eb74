"""Arrivals and departures at a guarded gate: every scene, by the depth rule, the engine, the portal, and both together.

Who decides, on the same readings and fixes: `depth` is the rule for places without a gate (`gateway.presence.places`),
`engine` takes P(inside) of at least 0.9 or at most 0.03 for 3 s, `portal` takes the gate readers' sum alone, and `both`
is what a gateway runs. The airs and children of the default seed were not used to choose a constant.

False words are proven on many more days: in a first pass the gate readers decide with an engine that agrees with every
wrong word as loudly as it may. Who is told rightly even so needs no engine: no belief of it could have changed a word.
All others are run again with the real engine. What the depth rule adds is counted where the engine ran.

    ANSIM_GATES_DAYS   hard child-days of the proof; 5000 is the full one, 500 the default
    ANSIM_GATES_SEED   of the airs and children, 9001 by default; 101-103, 4001-4002, 5101-5110, 6001-6002, 7101-7502,
                       8101-8104 were seen while constants were chosen
    ANSIM_GATES_SCALE  how many times as many children in the two tables, 1 by default

A hard child-day is one hard scene in its full length: ten minutes before the gate, fifteen at play behind it, runs.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from gateway.fix import Fix
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.presence import crossing
from gateway.zone import Zone
from sim.air.radio import Channel
from sim.plan import chain
from sim.plan.chain import Conditions, Decider, GateWord
from sim.plan.scenes import GateScene, Premises, scene
from sim.street import site as sites
from sim.street.gates import Entrance, inward_deg
from sim.street.site import Pole, Site
from sim.street.zone import zone_of

SEED = int(os.environ.get("ANSIM_GATES_SEED", "9001"))
DAYS = int(os.environ.get("ANSIM_GATES_DAYS", "500"))
SCALE = float(os.environ.get("ANSIM_GATES_SCALE", "1"))
AIRS, PROOF_AIRS = 2, 10
"""Airs of the first table, and of the proof; each has its own walk test. A bad air is bad for all who stand in a place
in it, so few airs prove little, however many children they have."""
READERS = 12
HARD = {"wait": 0.24, "beside": 0.24, "plays": 0.16, "passer": 0.12, "runs_outside": 0.12, "in_and_out": 0.12}
"""Shares of the hard child-days."""
SAMPLE = {
    "arrive": 60, "leave": 60, "wait": 20, "beside": 20, "plays": 16, "passer": 20, "runs_outside": 20,
    "in_and_out": 30, "bag": 6, "over_edge": 12, "sits": 3,
}  # fmt: skip
"""Children of the first table, in each air."""
SIT_H, SCHOOL_H = 0.1, 5.0
"""Hours of sitting in the proof for each hard child-day, and in a school day."""
SURE, HELD_S = (0.9, 0.03), 3.0
ALONE = 5.0
"""The sum at which the portal alone speaks."""
BATCH = 100


class _Assumed(Decider):
    """The gate readers with an engine that favours every change. need: the sum that then suffices; None: the engine
    says it as loudly as it may."""

    def __init__(self, zone: Zone, plane: object, scenes: Sequence[GateScene], place: str, need: float | None) -> None:
        super().__init__(zone, plane, scenes, place)  # type: ignore[arg-type]
        self._sure = (
            (4.7, 4.7) if need is None else (crossing.ARRIVED - need, min(crossing.LEFT - need, 4.59))
        )  # log-odds for having arrived, for having left

    def step(self, tag: int, fix: Fix, now_s: float) -> Iterator[GateWord]:
        settled = self.settler.tags.get(tag)
        odds = -self._sure[1] if settled is not None and settled.place is not None else self._sure[0]
        yield from super().step(tag, replace(fix, places={self.place: 1.0 / (1.0 + math.exp(-odds))}), now_s)


class _Engine(Decider):
    """P(inside) alone: at least SURE[0], or at most SURE[1], for HELD_S."""

    def __init__(self, zone: Zone, plane: object, scenes: Sequence[GateScene], place: str) -> None:
        super().__init__(zone, plane, scenes, place)  # type: ignore[arg-type]
        self._at = {tag: one.began_inside for tag, one in enumerate(scenes)}
        self._since_s: dict[int, float] = {}

    def step(self, tag: int, fix: Fix, now_s: float) -> Iterator[GateWord]:
        p = fix.places.get(self.place, 0.0)
        if not (p <= SURE[1] if self._at[tag] else p >= SURE[0]):
            self._since_s.pop(tag, None)
        elif now_s - self._since_s.setdefault(tag, now_s) >= HELD_S:
            self._at[tag] = not self._at[tag]
            del self._since_s[tag]
            yield GateWord(tag, now_s, self._at[tag])


@dataclass
class _Zone:
    """A site with its readers, one air, and the engine after the walk test in it."""

    site: Site
    poles: Sequence[Pole]
    seed: int
    conditions: Conditions = field(default_factory=Conditions)
    _locator: ZoneLocator | None = None

    def __post_init__(self) -> None:
        self.zone = zone_of(self.site, self.poles)
        self.premises = Premises(self.site)
        self.plane = Ground(self.zone).plane

    def locator(self) -> ZoneLocator:
        if self._locator is None:
            healthy = Conditions(channel=self.conditions.channel)
            air = chain.air_of(self.site, self.zone, self.seed, healthy)
            self._locator = chain.walked(self.site, self.poles, self.zone, air, self.seed)
        return self._locator.anew(late_every=0)

    def under(self, conditions: Conditions) -> "_Zone":
        """Return the same zone with the same engine under other conditions."""
        self.locator()
        other = replace(self, conditions=conditions)
        other._locator = self._locator
        return other

    def children(self, kind: str, numbers: Sequence[int]) -> list[GateScene]:
        return [scene(kind, self.premises, self.seed, n) for n in numbers]

    def words(
        self,
        scenes: Sequence[GateScene],
        deciders: Sequence[Decider],
        numbers: Sequence[int] | None = None,
        *,
        engine: bool = True,
    ) -> list[chain.GateVerdict]:
        air = chain.air_of(self.site, self.zone, self.seed, self.conditions)
        rows = chain.reported(
            scenes, self.zone, air, self.seed, self.conditions,
            only=lambda reader: engine or reader.gate is not None, numbers=numbers,
        )  # fmt: skip
        said = chain.run(rows, deciders, self.locator() if engine else None, self.conditions.dead_s)
        return [chain.judged(scenes, words) for words in said]

    def both(self, scenes: Sequence[GateScene]) -> Decider:
        return Decider(self.zone, self.plane, scenes, self.site.school_id)


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"seed": SEED, "airs": AIRS}
    site = sites.load()
    zones = [_Zone(site, site.poles[:READERS], SEED + n) for n in range(AIRS)]
    lines = [*_scenes(zones, found), "", *_proof(found, site), "", *_conditions(zones[0], found)]
    print("\n".join(lines))
    found["_markdown"] = "\n".join(lines)
    return found


# ---- the tables -----------------------------------------------------------------------------------------------------


def _scenes(zones: Sequence[_Zone], found: dict[str, float | int | str]) -> Iterator[str]:
    yield "| scene | children | decider | arrivals: in 20 s, 60 s; 50/90/99 % | departures: in 30 s, 60 s; .. | false |"
    yield "|---|---|---|---|---|---|"
    names = ("depth", "engine", "portal", "both")
    for kind, count in SAMPLE.items():
        all_: dict[str, list[chain.GateVerdict]] = {name: [] for name in names}
        for zone in zones:
            scenes = zone.children(kind, range(_scaled(count)))
            place = zone.site.school_id
            deciders = [
                Decider(msgspec.structs.replace(zone.zone, gates=()), zone.plane, scenes, place),
                _Engine(zone.zone, zone.plane, scenes, place),
                _Assumed(zone.zone, zone.plane, scenes, place, ALONE),
                zone.both(scenes),
            ]
            for name, verdict in zip(names, zone.words(scenes, deciders), strict=True):
                all_[name].append(verdict)
        for name in names:
            yield f"| {kind} | {_scaled(count) * len(zones)} | {name} {_row(all_[name])}"
            if kind in ("arrive", "leave"):
                found |= _shares(f"{kind}_{name}", all_[name])
            found[f"{kind}_{name}_false"] = sum(len(v.false) for v in all_[name])


def _proof(found: dict[str, float | int | str], site: Site) -> Iterator[str]:
    zones = [_Zone(site, site.poles[:READERS], SEED + 100 + n) for n in range(PROOF_AIRS)]
    yield "| child-days | number | run with the engine | false words by crossing | per 1000, 95 % sure at most |"
    yield "|---|---|---|---|---|"
    hard = hard_false = 0
    wanted = {kind: (round(share * DAYS), 1.0) for kind, share in HARD.items()}
    wanted |= {"arrive": (DAYS // 4, 1.0), "leave": (DAYS // 4, 1.0), "sits": (round(SIT_H * DAYS), 1.0 / SCHOOL_H)}
    most = 0.0
    for kind, (count, days_each) in wanted.items():
        suspects = false = 0
        for n, zone in enumerate(zones):
            more = _proven(zone, kind, count * (n + 1) // len(zones) - count * n // len(zones))
            suspects, false = suspects + more[0], false + more[1]
        if kind in HARD:
            hard, hard_false = hard + count, hard_false + false
        days = count * days_each
        what = f"{kind} ({count} h as days of {SCHOOL_H:.0f} h)" if kind == "sits" else kind
        yield f"| {what} | {days:.0f} | {suspects} | {false} | {1000 * _most(false) / max(days, 1):.2f} |"
        found[f"proof_{kind}_false"] = false
        if kind == "sits":
            most = 1000 * _most(false, 0.025) / max(days, 1e-9)
    bound = 1000 * _most(hard_false) / hard
    yield f"| all hard | {hard} | | {hard_false} | {bound:.2f} |"
    found |= {"hard_child_days": hard, "hard_false": hard_false, "hard_false_per_1000_at_most": round(bound, 2)}
    # A normal day: comes, sits, goes, and is in a hard scene every fourth day. The two bounds hold together (95 %).
    normal = 1000 * _most(hard_false, 0.025) / hard / 4 + most
    found["normal_day_false_per_1000_at_most"] = round(normal, 2)
    yield f"| normal: sits {SCHOOL_H:.0f} h, one hard scene in 4 days | | | | {normal:.2f} |"


def _proven(zone: _Zone, kind: str, count: int) -> tuple[int, int]:
    """Return (children that had to be run with the engine, false words of these)."""
    suspects: list[int] = []
    for begin in range(0, count, BATCH):
        numbers = range(10_000 + begin, 10_000 + min(begin + BATCH, count))
        scenes = zone.children(kind, numbers)
        worst = _Assumed(zone.zone, zone.plane, scenes, zone.site.school_id, None)
        [verdict] = zone.words(scenes, [worst], numbers, engine=False)
        suspects += [numbers[tag] for tag in sorted({word.tag for word in verdict.false})]
    false = 0
    for begin in range(0, len(suspects), BATCH):
        numbers_ = suspects[begin : begin + BATCH]
        scenes = zone.children(kind, numbers_)
        false += len(zone.words(scenes, [zone.both(scenes)], numbers_)[0].false)
    return len(suspects), false


def _conditions(zone: _Zone, found: dict[str, float | int | str]) -> Iterator[str]:
    yield "| condition | arrivals: in 20 s, 60 s; 50/90/99 % | departures: in 30 s, 60 s; .. | false words when |"
    yield "|---|---|---|---|"
    for name, at, offsets_db in _all_conditions(zone):
        coming: list[chain.GateVerdict] = []
        false: list[int] = []
        for kind, count in (("arrive", 60), ("leave", 60), ("wait", 12), ("plays", 16)):
            scenes = at.children(kind, range(1000, 1000 + _scaled(count)))
            if name == "open campus" and kind == "arrive":
                scenes = at.children("over_edge", range(1000, 1000 + _scaled(count)))
            decider = at.both(scenes)
            decider.settler.set_offsets(offsets_db)
            [verdict] = at.words(scenes, [decider])
            if kind in ("arrive", "leave"):
                coming.append(verdict)
                found |= _shares(f"{name.replace(' ', '_').replace('%', 'pct')}_{kind}", [verdict])
            false.append(len(verdict.false))
        yield f"| {name} {_row(coming, false=False)} {', '.join(map(str, false))} |"
        print(name, false, flush=True)


def _all_conditions(zone: _Zone) -> Iterator[tuple[str, _Zone, dict[int, float]]]:
    guards = {(p.side, n): p.number for n, p in enumerate(each for each in zone.poles if each.gate is not None)}
    outer = [number for (side, _), number in guards.items() if side == "outer"]
    inner = [number for (side, _), number in guards.items() if side == "inner"]
    for duty in (0.25, 0.5, 1.0):
        yield f"duty {duty:.0%}", zone.under(Conditions(gate_duty=duty)), {}
    yield "2 Hz while moving", zone.under(Conditions(moving_beacon_s=0.5)), {}
    yield "tags silent when ids change", zone.under(Conditions(silences=True)), {}
    yield "30 % lost besides", zone.under(Conditions(loss=0.3)), {}
    yield "inner reader 8 dB deaf", zone.under(Conditions(deaf_db={inner[0]: 8.0})), {}
    yield "inner reader 8 dB deaf, given back", zone.under(Conditions(deaf_db={inner[0]: 8.0})), {inner[0]: -8.0}
    yield "outer reader 8 dB deaf", zone.under(Conditions(deaf_db={outer[0]: 8.0})), {}
    yield "one inner reader dead", zone.under(Conditions(dead_s={inner[0]: 0.0})), {}
    yield "both inner readers die", zone.under(Conditions(dead_s=dict.fromkeys(inner, 60.0))), {}
    yield "both outer readers die", zone.under(Conditions(dead_s=dict.fromkeys(outer, 60.0))), {}
    crowd = Conditions(bodies_db=12.0, loss=0.4)
    yield "crowd, all rows", zone.under(crowd), {}
    yield "crowd, half the rows, loud first", zone.under(replace(crowd, shed=0.5)), {}
    yield "crowd, half the rows, any", zone.under(replace(crowd, shed=0.5, loud_first=False)), {}
    first = [p.number for p in zone.poles if p.gate is not None][:2]
    yield "one post", _Zone(zone.site, [p for p in zone.poles if p.gate is None or p.number in first], zone.seed), {}
    fence = _Zone(zone.site, zone.poles, zone.seed, Conditions(channel=Channel(wall_db=0.0)))
    yield "fence", fence, {}
    yield "open campus", fence, {}
    site = _three_gates(zone.site)
    yield "three gates", _Zone(site, _guarded(site, zone.poles), zone.seed), {}


def _three_gates(site: Site) -> Site:
    """Return a site with two more gates: where the outline is nearest to a street, 30 m from the others at least."""
    spots = [
        (a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1]))
        for a, b in zip(site.school, [*site.school[1:], site.school[0]], strict=True)
        for part in (0.2, 0.35, 0.5, 0.65, 0.8)
    ]
    gates, paths = list(site.entrances), site.paths()
    spots.sort(key=lambda spot: math.dist(spot, paths.points[paths.attach(spot)]))
    for spot in spots:
        if len(gates) < 3 and min(math.dist(spot, gate.at) for gate in gates) >= 30.0:
            gates.append(Entrance(f"gate{len(gates) + 1}", site.school_id, spot, inward_deg(spot, site.school), 4.0))
    return replace(site, entrances=tuple(gates))


def _guarded(site: Site, poles: Sequence[Pole]) -> list[Pole]:
    """Return the poles of the first gate and all others, and the default readers at the gates after the first."""
    more = [pole for n, gate in enumerate(site.entrances[1:]) for pole in chain.gate_poles(gate, 901 + 10 * n)]
    return [*poles, *more]


# ---- figures --------------------------------------------------------------------------------------------------------


def _scaled(count: int) -> int:
    return max(round(count * SCALE), 1)


def _most(count: int, beyond: float = 0.05) -> float:
    """Return the largest mean of a Poisson number that is `count` or less with a chance of at least `beyond`."""
    low, high = 0.0, 10.0 + 3.0 * count
    for _ in range(60):
        middle = (low + high) / 2
        chance = math.exp(-middle) * sum(middle**n / math.factorial(n) for n in range(count + 1))
        low, high = (middle, high) if chance > beyond else (low, middle)
    return high


def _row(verdicts: Sequence[chain.GateVerdict], *, false: bool = True) -> str:
    arrivals = [late for each in verdicts for late in each.arrivals_s]
    departures = [late for each in verdicts for late in each.departures_s]
    text = f"| {_told(arrivals, 20.0)} | {_told(departures, 30.0)} |"
    return text + (f" {sum(len(each.false) for each in verdicts)} |" if false else "")


def _told(late_s: Sequence[float], bar_s: float) -> str:
    if not late_s:
        return "-"
    late = np.array(late_s)
    quantiles = "/".join(_seconds(q) for q in np.percentile(late, (50, 90, 99), method="higher").tolist())
    return f"{100 * np.mean(late <= bar_s):.1f} %, {100 * np.mean(late <= 60.0):.1f} % of {len(late)}; {quantiles} s"


def _seconds(value: float) -> str:
    return "-" if math.isinf(value) else f"{value:.0f}"


def _shares(name: str, verdicts: Sequence[chain.GateVerdict]) -> dict[str, float]:
    found: dict[str, float] = {}
    picks: tuple[tuple[str, float, Callable[[chain.GateVerdict], tuple[float, ...]]], ...] = (
        ("arrivals", 20.0, lambda each: each.arrivals_s),
        ("departures", 30.0, lambda each: each.departures_s),
    )
    for word, bar_s, pick in picks:
        late = np.array([value for each in verdicts for value in pick(each)])
        if len(late):
            found[f"{name}_{word}_in_{bar_s:.0f}_s_pct"] = round(100 * float(np.mean(late <= bar_s)), 1)
            found[f"{name}_{word}_in_60_s_pct"] = round(100 * float(np.mean(late <= 60.0)), 1)
    return found


if __name__ == "__main__":
    run()
