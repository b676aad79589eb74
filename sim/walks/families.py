"""Two families of disturbed simulated sites: "train" to choose an engine's constants on, "judge" to judge it on.

They differ in more than the seed. The judge's places have other shapes (crossroads, halls, fields, yards with readers
anywhere), its ranges are wider and lie elsewhere, its shadowing has another correlation and its bodies another law. So
what only fits the training ground shows. Both have sites of every kind, on BLE and 802.15.4, with and without a survey,
with what makes a survey wrong, with few readers, and with tags that walk, that stand and turn, and that hang still.

    street   poles by footpaths; parked cars, trees        yard    open ground with readers round it or anywhere
    room     rig or worn tag, lanes or a lattice walked    field   open ground, 3 or 4 readers at its corners
    zone     a street or yard as a gateway records it: map, stated power, no law of the device

Numbers: docs/SIMULATOR.md, "Disturbed sites". Most of what disturbs is uncalibrated: see `Roughness`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from sim import chance
from sim.chance import Floats
from sim.walks import sites
from sim.walks.channel import WalkChannel
from sim.walks.places import Draw, WalkPlace, place_of
from sim.walks.rough import RoughAir, Roughness
from sim.walks.shapes import crossroads, fewer, field, hall, scattered_yard
from sim.walks.sites import STEP_S, SimulatedSite, SimulatedTrack, SimulatedWalk, SurveyRow

FamilyName = Literal["train", "judge"]
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)
KINDS = ("room", "street", "yard", "room", "zone", "field")
"""In this order, again and again; the first room has a rig, the second a worn tag."""
ORIGIN = (126.95, 37.54)
WALK_S, STILL_S = 200.0, (90.0, 240.0)
"""A walk is cut after WALK_S; a tag hangs still for STILL_S."""
EVEN = {"radio": 11, "few": 5, "survey": 7, "moved": 3, "one way": 2, "fault": 13}
"""What is dealt out evenly over a family's sites: multiples of the square root modulo 1 (Weyl), from a drawn start. So
24 sites have each disturbance about as often as its share says, and no two of them always come together."""
HEARD_MIN = 20
"""Sightings, else a track is left out: nobody heard the tag."""
STATED_ABOVE_DB = 6.0
"""A worn tag is heard this much below the power that it states, mean over facings; uncalibrated."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a family draws from; pairs are the ends of a uniform range."""

    exponent_indoors: tuple[float, float]
    exponent_outdoors: tuple[float, float]
    slow_db: tuple[float, float]
    slow_indoors_m: tuple[float, float]
    slow_outdoors_m: tuple[float, float]
    rice_k_db: tuple[float, float]
    body_db: tuple[float, ...]
    """One of these; below 0 on a bag."""
    dip_db: tuple[float, float]
    reader_sigma_db: tuple[float, float]
    tag_sigma_db: float
    frozen: tuple[float, float]
    sway_m: tuple[float, float]
    companions_max: int
    companion_db: tuple[float, float]
    moved: tuple[float, float]
    quantum_db: tuple[float, ...]
    shadow: str
    speed: tuple[float, float]
    """Factor of the place's own pace."""
    turn_gap_s: tuple[float, float]
    few_share: float
    """Of sites that have 3 or 4 readers only."""


RANGES: dict[FamilyName, Ranges] = {
    "train": Ranges(
        exponent_indoors=(1.6, 2.6), exponent_outdoors=(2.0, 3.0), slow_db=(3.0, 5.0), slow_indoors_m=(1.0, 2.0),
        slow_outdoors_m=(8.0, 13.0), rice_k_db=(3.0, 10.0), body_db=(3.0, 6.0, -3.0, -5.0), dip_db=(0.0, 4.0),
        reader_sigma_db=(1.0, 3.0), tag_sigma_db=2.5, frozen=(0.2, 0.9), sway_m=(0.01, 0.05), companions_max=3,
        companion_db=(3.0, 8.0), moved=(0.1, 0.5), quantum_db=(1.0,), shadow="exponential", speed=(0.8, 1.2),
        turn_gap_s=(10.0, 60.0), few_share=0.3,
    ),
    "judge": Ranges(
        exponent_indoors=(1.4, 3.0), exponent_outdoors=(1.8, 3.4), slow_db=(2.0, 6.5), slow_indoors_m=(0.7, 4.0),
        slow_outdoors_m=(4.0, 20.0), rice_k_db=(0.0, 12.0), body_db=(2.0, 4.5, 8.0, -2.0, -6.0), dip_db=(2.0, 10.0),
        reader_sigma_db=(0.5, 4.0), tag_sigma_db=3.5, frozen=(0.05, 0.98), sway_m=(0.0, 0.1), companions_max=5,
        companion_db=(2.0, 10.0), moved=(0.0, 0.8), quantum_db=(1.0, 2.0), shadow="gaussian", speed=(0.6, 1.6),
        turn_gap_s=(5.0, 120.0), few_share=0.4,
    ),
}  # fmt: skip


def make(family: FamilyName, number: int, seed: int) -> SimulatedSite:
    """Return site `number` (0 or above) of a family. `number` selects the kind, both select what is drawn.

    site.json has `simulated`, the truth of what was drawn: an engine that reads it cheats.
    """
    kind = KINDS[number % len(KINDS)]
    own = int(chance.words(seed, family, number)[0] % np.uint64(2**31))
    u = Draw(own, f"{family} {kind}")
    even = dealt(family, number, seed)
    ranges = RANGES[family]
    worn = "rig" if kind == "room" and number % len(KINDS) == 0 else "body"
    place = replace(_place(family, kind, own, u), worn=worn, radio="802.15.4" if even["radio"] < 0.4 else "ble")
    if kind == "field" or (even["few"] < ranges.few_share and not place.footpaths):  # a street needs its poles
        place = replace(place, readers_m=fewer(place.readers_m, 3 + int(2 * u("how few"))))
    channel, roughness = _air(ranges, kind, place, u)
    rate_hz = round(0.3 + 0.9 * u("rate"), 2) if place.radio == "802.15.4" else round(1.0 + 4.0 * u("rate"), 1)
    height_m = place.height_m + 0.15 * float(chance.normal(own, "height")[0])
    tag_db = ranges.tag_sigma_db * float(chance.normal(own, "tag")[0])
    surveyed = kind != "field" and (kind == "room" or even["survey"] < 0.6)
    wrong = _Deceit.drawn(ranges, place, surveyed, own, u, even)
    rows: tuple[SurveyRow, ...] = ()
    if surveyed:
        then = RoughAir(
            own, place.readers_m, height_m, channel, replace(roughness, moved=0.0, companions=0),
            obstacles=_obstacles(kind, place, Draw(own, "then"), u),
        )  # fmt: skip
        rows = sites.survey_of(then, place, own, wrong.survey_tag_db if wrong.other_tag else tag_db)
        if wrong.one_way:
            rows = tuple(row for row in rows if row[2] is None or math.cos(math.radians(row[2]) - wrong.way) > -0.1)
    now = RoughAir(
        own, place.readers_m + wrong.shift_m, height_m, channel, replace(roughness, moved=wrong.moved),
        obstacles=_obstacles(kind, place, Draw(own, "now" if wrong.moved else "then"), u), gain_db=wrong.gain_db,
    )  # fmt: skip
    tracks = _tracks(now, place, ranges, rate_hz, own, tag_db, u)
    facts = _facts(f"{family}_{kind}_{seed:04d}_{number:03d}", kind, place, surveyed, tag_db, channel, u)
    facts["simulated"] = {
        "family": family, "kind": kind, "seed": seed, "number": number, "rate_hz": rate_hz,
        "tag_height_m": round(height_m, 2), "tag_offset_db": round(tag_db, 2), "channel": asdict(channel),
        "roughness": asdict(now.roughness), "wrong": wrong.words(),
    }  # fmt: skip
    return SimulatedSite(facts, rows, tracks)


def family_of(family: FamilyName, count: int, seed: int) -> Iterator[SimulatedSite]:
    """Yield the first `count` sites of a family, of every kind in turn."""
    for number in range(count):
        yield make(family, number, seed)


def dealt(family: FamilyName, number: int, seed: int) -> dict[str, float]:
    """Return for each disturbance of EVEN a number in [0, 1): below the disturbance's share, the site has it."""
    return {what: (chance.one(seed, family, what) + number * math.sqrt(n)) % 1.0 for what, n in EVEN.items()}


@dataclass(frozen=True, slots=True)
class _Deceit:
    """What the survey, or site.json, does not say as it is on the day of the tracks."""

    other_tag: bool
    survey_tag_db: float
    one_way: bool
    way: float
    moved: float
    shift_m: Floats
    gain_db: Floats

    @classmethod
    def drawn(
        cls, ranges: Ranges, place: WalkPlace, surveyed: bool, seed: int, u: Draw, even: dict[str, float]
    ) -> _Deceit:
        count = len(place.readers_m)
        victim, shift_m, gain_db = int(count * u("victim")), np.zeros((count, 3)), np.zeros(count)
        fault = even["fault"]
        if fault < 0.15:  # a reader was put up elsewhere
            far_m, angle = 1.0 + 0.15 * _span_m(place) * u("far"), 2 * math.pi * u("angle")
            shift_m[victim, :2] = far_m * math.cos(angle), far_m * math.sin(angle)
        elif fault < 0.35:  # a wet plug, a turned or lost antenna, another module
            gain_db[victim] = -8.0 if u("sign") < 0.7 else 8.0
        return cls(
            other_tag=u("other tag") < 0.5,
            survey_tag_db=ranges.tag_sigma_db * float(chance.normal(seed, "survey tag")[0]),
            one_way=surveyed and place.worn == "body" and even["one way"] < 0.3,
            way=2 * math.pi * u("way"),
            moved=_within(ranges.moved, u("moved share")) if surveyed and even["moved"] < 0.6 else 0.0,
            shift_m=shift_m,
            gain_db=gain_db,
        )

    def words(self) -> dict[str, Any]:
        return {
            "other_tag_in_survey": self.other_tag, "survey_one_way": self.one_way, "moved": round(self.moved, 2),
            "reader_shift_m": round(float(np.abs(self.shift_m).max()), 1),
            "reader_gain_db": float(self.gain_db[np.abs(self.gain_db).argmax()]),
        }  # fmt: skip


def _within(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share


def _span_m(place: WalkPlace) -> float:
    x0, y0, x1, y1 = place.bounds_m
    return min(x1 - x0, y1 - y0)


def _place(family: FamilyName, kind: str, seed: int, u: Draw) -> WalkPlace:
    if kind == "field":
        return field(seed)
    if kind == "zone":
        kind = "street" if u("zone") < 0.6 else "yard"
    if family == "train":
        return place_of("room" if kind == "room" else "street" if kind == "street" else "yard", seed)
    return {"room": hall, "street": crossroads, "yard": scattered_yard}[kind](seed)


def _air(ranges: Ranges, kind: str, place: WalkPlace, u: Draw) -> tuple[WalkChannel, Roughness]:
    indoors = kind == "room"
    channel = WalkChannel(
        p0_dbm=round(-50.0 + 6.0 * (u("p0") - 0.5), 1),
        exponent=round(_within(ranges.exponent_indoors if indoors else ranges.exponent_outdoors, u("n")), 2),
        slow_db=round(_within(ranges.slow_db, u("slow")), 1),
        slow_m=round(_within(ranges.slow_indoors_m if indoors else ranges.slow_outdoors_m, u("length")), 1),
        rice_k_db=round(_within(ranges.rice_k_db, u("k")), 1),
        body_db=ranges.body_db[int(len(ranges.body_db) * u("body"))] if place.worn == "body" else 0.0,
        reader_sigma_db=round(_within(ranges.reader_sigma_db, u("readers")), 1),
        quantum_db=ranges.quantum_db[int(len(ranges.quantum_db) * u("quantum"))],
    )
    worn = place.worn == "body"
    roughness = Roughness(
        channels=1 if place.radio == "802.15.4" else 3,
        frozen=round(_within(ranges.frozen, u("frozen")), 2),
        sway_m=round(_within(ranges.sway_m, u("sway")), 3) if worn else 0.0,
        companions=int((ranges.companions_max + 1) * u("companions")) if worn else 0,
        companion_db=round(_within(ranges.companion_db, u("companion")), 1),
        dip_db=round(_within(ranges.dip_db, u("dip")), 1) if worn else 0.0,
        shadow=ranges.shadow,
    )
    return channel, roughness


def _obstacles(kind: str, place: WalkPlace, day: Draw, u: Draw) -> Floats:
    """Return cars (new each day) and trees (always the same) beside what is walked outdoors. Losses: uncalibrated."""
    if kind == "room":
        return np.zeros((0, 6))
    rows: list[tuple[float, float, float, float, float, float]] = []
    x0, y0, x1, y1 = place.bounds_m
    for i in range(int(8 * u("trees"))):  # crowns
        at = x0 + (x1 - x0) * u("tree x", i), y0 + (y1 - y0) * u("tree y", i)
        rows.append((*at, 1.5 + 1.5 * u("crown", i), 2.0, 7.0, 3.0 + 6.0 * u("leaves", i)))
    if place.footpaths:
        for i in range(int(14 * u("cars"))):
            line = place.footpaths[int(2 * day("side", i)) % len(place.footpaths)]
            share = day("car", i)
            at = line[0] + share * (line[-1] - line[0]) + 2.5 * (np.array([day("dx", i), day("dy", i)]) - 0.5)
            rows.append((float(at[0]), float(at[1]), 1.2, 0.0, 1.6 + 0.9 * day("van", i), 4.0 + 6.0 * day("loss", i)))
    return np.array(rows).reshape(-1, 6)


def _tracks(
    air: RoughAir, place: WalkPlace, ranges: Ranges, rate_hz: float, seed: int, offset_db: float, u: Draw
) -> dict[str, SimulatedTrack]:
    """Two walks, one walk with stops of minutes at which the wearer turns, and one tag that hangs still."""
    pace = place.speed_m_s * _within(ranges.speed, u("speed"))
    turn_gap_s = _within(ranges.turn_gap_s, u("turn gap"))
    first = int(len(place.lines) * u("first"))
    walks = {
        f"walk_{i + 1}": sites.along(
            place.lines[(first + i) % len(place.lines)], pace * (0.9 + 0.2 * u("pace", i)), seed, f"walk {i}",
            stop_gap_m=place.stop_gap_m, wander_m=place.wander_m, end_s=WALK_S,
        )
        for i in range(2)
    }  # fmt: skip
    walks["stands_and_turns"] = sites.along(
        place.lines[(first + 2) % len(place.lines)], pace, seed, "stands", stop_gap_m=max(4.0, 12.0 * pace),
        wander_m=place.wander_m, stop_s=(20.0, 90.0), turn_gap_s=turn_gap_s, end_s=1.5 * WALK_S,
    )  # fmt: skip
    on = walks["walk_1"].xy_m[int(len(walks["walk_1"].xy_m) * u("where"))]
    walks["hangs"] = hanging(on, _within(STILL_S, u("how long")), 2 * math.pi * u("facing"))
    tracks = {name: sites.record(air, walk, rate_hz, name, seed, offset_db) for name, walk in walks.items()}
    return {name: track for name, track in tracks.items() if len(track.t_s) >= HEARD_MIN}


def hanging(xy_m: Floats, seconds: float, heading: float) -> SimulatedWalk:
    """Return the "walk" of a tag that does not move."""
    count = int(seconds / STEP_S) + 1
    return SimulatedWalk(
        STEP_S * np.arange(count, dtype=np.float64), np.tile(xy_m, (count, 1)), np.full(count, heading)
    )


def _facts(
    name: str, kind: str, place: WalkPlace, surveyed: bool, tag_db: float, channel: WalkChannel, u: Draw
) -> dict[str, Any]:
    facts = sites.facts_of(name, place)
    if kind == "zone":
        off_db = 4.0 * (u("stated") - 0.5)
        facts["tag"]["power_dbm"] = round(channel.p0_dbm + tag_db + STATED_ABOVE_DB + off_db)
        facts["origin"] = {"lon": ORIGIN[0], "lat": ORIGIN[1]}
        x0, y0, x1, y1 = place.bounds_m
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        facts["places"] = [] if place.footpaths else [{"id": "yard", "polygon": np.round(ring, 3).tolist()}]
    elif not surveyed and u("law known") < 0.6:  # as a data sheet would say; not what was drawn
        facts["channel"] = {"p0_dbm": -50.0, "exponent": 2.3, "sigma_db": 6.0, "note": "law of the simulated type"}
    return facts
