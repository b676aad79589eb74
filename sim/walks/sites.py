"""Simulated recorded sites: streets, rooms and yards, walks with known truth, in the recorded-site format.

`make(kind, seed)` draws a place, a channel, perhaps a survey, and walks that differ from the survey's. `write` puts
them into a folder. Two keys in site.json are our own, and a program may ignore them: `footpaths` (polylines, m) and
`simulated` (the truth about the channel, for reports; an engine that reads it cheats).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim import chance
from sim.chance import Floats
from sim.walks.channel import Ints, WalkAir, smooth
from sim.walks.places import PlaceKind, WalkPlace, channel_of, place_of

STEP_S = 0.1
"""Interval at which truth is made and written."""
WALK_MAX_S = 1800.0
TURN_STEPS = 10
SURVEY_POINTS_MAX = 130


@dataclass(frozen=True, slots=True)
class SimulatedWalk:
    """Where a tag was every STEP_S from 0 on, and which way its wearer faced (radians from +x, counter-clockwise)."""

    t_s: Floats
    xy_m: Floats
    heading: Floats


@dataclass(frozen=True, slots=True)
class SimulatedTrack:
    """What was heard on one walk, in the order of time. `reader` is an index."""

    walk: SimulatedWalk
    t_s: Floats
    reader: Ints
    rssi_dbm: Floats


SurveyRow = tuple[float, float, float | None, int, float, int]
"""x, y, heading in degrees or None, reader, mean dBm, readings."""


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """One site as it is written: site.json, survey rows (empty: no survey), tracks by name."""

    facts: dict[str, Any]
    survey: tuple[SurveyRow, ...]
    tracks: dict[str, SimulatedTrack]

    @property
    def name(self) -> str:
        return str(self.facts["name"])


def collection(count: int, seed: int) -> Iterator[SimulatedSite]:
    """Yield `count` sites of all kinds. Of every four: two rooms (tag on a rig, on a body), a street, a yard."""
    order: tuple[tuple[PlaceKind, str | None], ...] = (
        ("room", "rig"),
        ("street", None),
        ("room", "body"),
        ("yard", None),
    )
    for i in range(count):
        yield make(order[i % 4][0], seed + i, worn=order[i % 4][1])


def make(
    kind: PlaceKind,
    seed: int,
    *,
    worn: str | None = None,
    survey: bool | None = None,
    channel: dict[str, float] | None = None,
) -> SimulatedSite:
    """Return one simulated site. What is not given is drawn from the seed.

    worn: "body" or "rig" (rooms only). survey: whether there is one. channel: fields of `WalkChannel` to set.
    """
    key = f"walks {kind}"
    place = place_of(kind, seed)
    if worn is not None:
        place = replace(place, worn=worn)
    air_numbers = channel_of(kind, place.worn, seed)
    air_numbers = replace(air_numbers, **channel) if channel else air_numbers
    height_m = place.height_m + 0.15 * float(chance.normal(seed, key, "height")[0])
    air = WalkAir(seed, place.readers_m, height_m, air_numbers)
    rate_hz = round(10.0 ** (1.0 * chance.one(seed, key, "rate")), 1)
    surveyed = survey if survey is not None else kind == "room" or chance.one(seed, key, "survey") < 0.5
    other_tag = chance.one(seed, key, "other tag") < 0.5
    offset_db = 2.5 * float(chance.normal(seed, key, "tag")[0])
    survey_offset_db = 2.5 * float(chance.normal(seed, key, "survey tag")[0]) if other_tag else offset_db
    rows = survey_of(air, place, seed, survey_offset_db) if surveyed else ()
    tracks: dict[str, SimulatedTrack] = {}
    for i, line in enumerate(place.lines):
        name = f"walk_{i + 1}"
        speed = place.speed_m_s * (1.0 + 0.12 * float(np.clip(chance.normal(seed, key, "speed", i)[0], -2, 2)))
        walk = along(line, speed, seed, f"{key} {name}", stop_gap_m=place.stop_gap_m, wander_m=place.wander_m)
        tracks[name] = record(air, walk, rate_hz, name, seed, offset_db)
    facts = facts_of(f"{kind}_{seed:04d}", place)
    if not surveyed:  # as a data sheet of the device type would say; not what this seed drew
        facts["channel"] = {"p0_dbm": -50.0, "exponent": 2.3, "sigma_db": 6.0, "note": "law of the simulated type"}
    facts["simulated"] = {
        "seed": seed, "kind": kind, "rate_hz": rate_hz, "tag_offset_db": round(offset_db, 2),
        "survey_tag_offset_db": round(survey_offset_db, 2), "tag_height_m": round(height_m, 2),
        "reader_offset_db": np.round(air.offset_db, 2).tolist(), "channel": asdict(air_numbers),
    }  # fmt: skip
    return SimulatedSite(facts, rows, tracks)


def facts_of(name: str, place: WalkPlace) -> dict[str, Any]:
    """Return what site.json says of a place."""
    facts: dict[str, Any] = {
        "name": name, "frame": "local metres", "bounds": [round(v, 3) for v in place.bounds_m],
        "readers": [
            {"id": f"r{i + 1:02d}", "x_m": round(float(x), 3), "y_m": round(float(y), 3), "z_m": round(float(z), 3)}
            for i, (x, y, z) in enumerate(place.readers_m)
        ],
        "tag": {"worn": place.worn, "height_m": place.height_m}, "radio": place.radio,
    }  # fmt: skip
    if place.footpaths:
        facts["footpaths"] = [np.round(line, 3).tolist() for line in place.footpaths]
    return facts


def survey_of(air: WalkAir, place: WalkPlace, seed: int, offset_db: float) -> tuple[SurveyRow, ...]:
    """Return the rows of a survey: a rig for a minute at each point of a lattice, or a person who walks both ways."""
    if place.worn == "rig":
        return _survey_points(air, place, seed, offset_db)
    return _survey_walk(air, place, seed, offset_db)


def record(
    air: WalkAir, walk: SimulatedWalk, rate_hz: float, tag: str, seed: int, offset_db: float = 0.0
) -> SimulatedTrack:
    """Return what is heard of a tag on a walk. It sends rate_hz packets per second, each up to 10 ms late."""
    count = int(walk.t_s[-1] * rate_hz)
    n: Ints = np.arange(count, dtype=np.int64)
    sent_s = np.sort(np.minimum((n + chance.uniform(seed, tag, "phase")) / rate_hz, walk.t_s[-1] - 0.02))
    sent_s = sent_s + 0.01 * chance.uniform(seed, tag, "late", n)
    xy = np.stack([np.interp(sent_s, walk.t_s, walk.xy_m[:, axis]) for axis in (0, 1)], axis=1)
    facing = np.interp(sent_s, walk.t_s, np.unwrap(walk.heading))
    got, reader, dbm = air.listen(tag, sent_s, xy, facing, offset_db)
    return SimulatedTrack(walk, sent_s[got], reader, dbm)


def along(
    line: Floats,
    speed_m_s: float,
    seed: int,
    key: str,
    *,
    stop_gap_m: float = math.inf,
    wander_m: float = 0.0,
    stop_s: tuple[float, float] = (3.0, 20.0),
    turn_gap_s: float = math.inf,
    end_s: float = WALK_MAX_S,
) -> SimulatedWalk:
    """Return a walk along a polyline. Its speed varies by a fifth, its distance from the line has spread `wander_m`.

    Stops come every `stop_gap_m` on average and last `stop_s`. At a stop the wearer faces another way, and after
    `turn_gap_s` on average yet another one. The walk ends with the line, or after `end_s`.
    """
    piece = np.linalg.norm(np.diff(line, axis=0), axis=1)
    at = np.r_[0.0, np.cumsum(piece)]
    stop_at, stops = 0.0, 0
    distance: list[float] = [0.0]
    turned: list[float] = [0.0]

    def next_stop() -> float:
        return (
            stop_at - stop_gap_m * math.log(chance.one(seed, key, "stop", stops)) if stop_gap_m < math.inf else math.inf
        )

    stop_at, still_s, turn, turns = next_stop(), 0.0, 0.0, 0
    phase = 2.0 * math.pi * chance.one(seed, key, "pace")
    while distance[-1] < at[-1] and len(distance) * STEP_S < min(end_s, WALK_MAX_S):
        if still_s > 0:
            still_s -= STEP_S
            if turn_gap_s < math.inf and chance.one(seed, key, "turns", len(distance)) < STEP_S / turn_gap_s:
                turn, turns = 2.0 * math.pi * (chance.one(seed, key, "turned", turns) - 0.5), turns + 1
            distance.append(distance[-1])
            turned.append(turn)
            continue
        pace = speed_m_s * (1.0 + 0.2 * math.sin(0.7 * len(distance) * STEP_S + phase))
        distance.append(distance[-1] + STEP_S * max(pace, 0.05))
        turned.append(0.0)
        if distance[-1] >= stop_at:
            still_s, turn = (
                stop_s[0] + (stop_s[1] - stop_s[0]) * chance.one(seed, key, "wait", stops),
                1.2 * float(chance.normal(seed, key, stops)[0]),
            )
            stops += 1
            stop_at = next_stop()
    d = np.minimum(np.array(distance), at[-1])
    xy = np.stack([np.interp(d, at, line[:, axis]) for axis in (0, 1)], axis=1)
    i = np.clip(np.searchsorted(at, d, side="right") - 1, 0, len(piece) - 1)
    course = np.arctan2(*np.diff(line, axis=0).T[::-1])[i]
    beside = wander_m * smooth(d / 5.0, seed, key)
    xy = xy + beside[:, None] * np.stack([-np.sin(course), np.cos(course)], axis=1)
    heading = _rounded(np.unwrap(course + np.array(turned)))
    return SimulatedWalk(
        STEP_S * np.arange(len(d), dtype=np.float64), np.stack([_rounded(each) for each in xy.T], axis=1), heading
    )


def _rounded(column: Floats) -> Floats:
    """The running mean over one second: no person turns a corner in an instant."""
    around = np.pad(column, (TURN_STEPS // 2, TURN_STEPS - 1 - TURN_STEPS // 2), mode="edge")
    result: Floats = np.convolve(around, np.full(TURN_STEPS, 1.0 / TURN_STEPS), mode="valid")
    return result


def write(site: SimulatedSite, folder: Path) -> Path:
    """Write folder/NAME in the recorded-site format and return that path. Raises OSError when it cannot be written."""
    home = folder / site.name
    (home / "tracks").mkdir(parents=True, exist_ok=True)
    (home / "site.json").write_text(json.dumps(site.facts, indent=1) + "\n", encoding="utf-8")
    ids = [each["id"] for each in site.facts["readers"]]
    if site.survey:
        (home / "calibration").mkdir(exist_ok=True)
        text = [
            f"{x:.3f},{y:.3f},{'' if heading is None else f'{heading:.0f}'},{ids[k]},{dbm:.1f},{n}\n"
            for x, y, heading, k, dbm, n in site.survey
        ]
        _lines(home / "calibration" / "survey.csv", "x_m,y_m,heading_deg,reader,rssi_dbm,count", text)
    for name, track in site.tracks.items():
        heard = zip(track.t_s, track.reader, track.rssi_dbm, strict=True)
        text = [f"{t:.3f},{ids[k]},{dbm:g}\n" for t, k, dbm in heard]
        _lines(home / "tracks" / f"{name}.sightings.csv", "t_s,reader,rssi_dbm", text)
        truth = zip(track.walk.t_s, track.walk.xy_m, strict=True)
        text = [f"{t:.3f},{x:.3f},{y:.3f}\n" for t, (x, y) in truth]
        _lines(home / "tracks" / f"{name}.truth.csv", "t_s,x_m,y_m", text)
    return home


def _lines(path: Path, header: str, rows: Sequence[str]) -> None:
    path.write_text(header + "\n" + "".join(rows), encoding="utf-8")


# ------------------------------------------------------------------ surveys
def _survey_points(air: WalkAir, place: WalkPlace, seed: int, offset_db: float) -> tuple[SurveyRow, ...]:
    """A rig stands 60 s at each point of a lattice, 2 packets per second. A row is a level and how often it came."""
    x0, y0, x1, y1 = place.bounds_m
    step_m = max(1.0, math.sqrt((x1 - x0) * (y1 - y0) / SURVEY_POINTS_MAX))
    rows: list[SurveyRow] = []
    t_s = np.arange(120) / 2.0
    for i, x in enumerate(np.arange(x0 + step_m / 2, x1, step_m)):
        for j, y in enumerate(np.arange(y0 + step_m / 2, y1, step_m)):
            here = np.tile([x, y], (len(t_s), 1))
            _, reader, dbm = air.listen(f"survey {i} {j}", t_s, here, np.zeros(len(t_s)), offset_db)
            for k in range(len(place.readers_m)):
                levels, counts = np.unique(dbm[reader == k], return_counts=True)
                rows += [(float(x), float(y), None, k, float(v), int(n)) for v, n in zip(levels, counts, strict=True)]
    return tuple(rows)


def _survey_walk(air: WalkAir, place: WalkPlace, seed: int, offset_db: float) -> tuple[SurveyRow, ...]:
    """A person walks the footpaths, or lanes 1-7.5 m apart, both ways, 5 packets per second. A row is a 1 s mean."""
    x0, y0, x1, y1 = place.bounds_m
    lines = list(place.footpaths)
    if not lines:
        lanes = np.linspace(y0, y1, max(3, min(8, round((y1 - y0) / 2.0))) + 2)[1:-1]
        ends = [(x0 + 0.5, x1 - 0.5) if i % 2 else (x1 - 0.5, x0 + 0.5) for i in range(len(lanes))]
        lines = [np.array([(x, y) for y, pair in zip(lanes, ends, strict=True) for x in pair])]
    rows: list[SurveyRow] = []
    for i, line in enumerate([each for one in lines for each in (one, one[::-1])]):
        name = f"survey {i}"
        walk = along(line, 0.9, seed, name, wander_m=0.1)
        track = record(air, walk, 5.0, name, seed, offset_db)
        second = np.ceil(track.t_s).astype(int)
        for s in np.unique(second):
            at = min(int((s - 0.5) / STEP_S), len(walk.t_s) - 1)
            (x, y), heading = walk.xy_m[at], math.degrees(walk.heading[at]) % 360
            for k in np.unique(track.reader[second == s]):
                heard = track.rssi_dbm[(second == s) & (track.reader == k)]
                rows.append((float(x), float(y), round(heading) % 360, int(k), float(heard.mean()), len(heard)))
    return tuple(rows)
