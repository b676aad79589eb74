"""Checks of gates and their readers: what would make a gate report something wrong, and what only makes it slower."""

import math
from collections.abc import Iterator, Mapping, Sequence

from gateway.config.findings import Findings
from gateway.config.rules import plane_of
from gateway.options import GatewayConfig
from gateway.zone import FRAMES_A_S, Gate, Plane, Reader, depth_m, direction, offset_m

OFF_OUTLINE_MAX_M = 5.0
"""A gate further from its place's outline is a typing error: maps are off by 1 to 3 m, and a gate may stand back."""
STEP_M, DEEP_MIN_M = 2.0, 0.5
"""After STEP_M in the inward direction one must be so deep in the place: up to 75 degrees from straight in."""
LOOK_OFF_MAX_DEG = 90.0
OUTER_BEFORE_MAX_M, INNER_DEEP_MAX_M = 3.0, 8.0
"""From the wall line. Who waits 2 m before the wall is behind an outer patch 3 m before it: 13 of 1000 waits were told
as arrivals, none with the patch 2 m before it. An inner reader belongs about 3 m behind the wall: at 5 m, and a wall
that costs nothing, 4 of 10 departures were not told from play. Beyond 8 m it hears the yard, not the gate."""
AWAY_MAX_M = 40.0
"""From the middle of its gate: twice the half of the widest gate. A reader further away guards another one."""
WIDE_M = 2.0
"""From this width on, a second post is worth its money: with one, 91 % of arrivals were told in 20 s, with two 97 %."""
LISTENS_MIN = 0.4
"""Share of time: at half the time 95 % of arrivals were told in 20 s, at a quarter 80 %, and false words rose tenfold.
These figures are from simulated gates: docs/LOCATING.md."""
FRAMES_MIN_PER_MIN = 6
"""The least that any reader is given."""
_MORE_DEG = 1e-6


def gates(findings: Findings, config: GatewayConfig) -> None:
    """Report gates of no place, gates away from their place's outline, and directions that do not lead into it."""
    plane = plane_of(config)
    rings = {place.id: [plane.to_xy_m(*corner) for corner in place.polygon] for place in config.places}
    for i, gate in enumerate(config.gates):
        ring = rings.get(gate.place)
        if ring is None and not findings.right("places"):
            continue
        if ring is None:
            findings.say(f"gates[{i}].place", f"there is no place {gate.place}; {_listed(rings)}")
            continue
        at = plane.to_xy_m(gate.lon, gate.lat)
        off_m = abs(depth_m(*at, ring))
        if off_m > OFF_OUTLINE_MAX_M:
            far = f"{off_m:.0f} m" if off_m < 1000 else f"{off_m / 1000:.0f} km"
            what = f"gate {gate.id} is {far} from the outline of {gate.place}, {OFF_OUTLINE_MAX_M:.0f} m are the most"
            exchanged = "; are lon and lat exchanged?" if off_m > 1000 else "; move the gate or the outline"
            findings.say(f"gates[{i}].lon", what + exchanged)
        elif fault := _inward_fault(gate, at, ring):
            findings.say(f"gates[{i}].inward_deg", fault)


def gate_readers(findings: Findings, config: GatewayConfig) -> None:
    """Report a gate or a side without the other, a gate that is not there, an antenna that looks the wrong way."""
    plane = plane_of(config)
    known = {gate.id: gate for gate in config.gates}
    for i, reader in enumerate(config.readers):
        if (reader.gate is None) != (reader.side is None):
            given, other = ("side", "gate") if reader.gate is None else ("gate", "side")
            findings.say(f"readers[{i}].{other}", f"missing beside {given}")
        if (reader.look_deg is None) != (reader.antenna == "dipole"):
            text = "missing beside a patch" if reader.look_deg is None else 'a dipole looks nowhere: antenna = "patch"?'
            findings.say(f"readers[{i}].look_deg", text)
        if reader.gate is None or reader.side is None:
            continue
        gate = known.get(reader.gate)
        if gate is None and not findings.right("gates"):
            continue
        if gate is None:
            findings.say(f"readers[{i}].gate", f"there is no gate {reader.gate}; {_listed(known)}")
            continue
        away_m = math.hypot(*_offset_m(plane, gate, reader))
        if away_m > AWAY_MAX_M:
            text = f"reader {reader.number} is {away_m:.0f} m from gate {gate.id}, {AWAY_MAX_M:.0f} m are the most"
            findings.say(f"readers[{i}].gate", f"{text}; name the gate at its post, or its right lon and lat")
        wanted_deg = _looks_deg(gate, reader.side)
        if reader.antenna == "patch" and reader.look_deg is not None:
            off_deg = abs((reader.look_deg - wanted_deg + 180) % 360 - 180)
            if off_deg > LOOK_OFF_MAX_DEG + _MORE_DEG:
                there = "into" if reader.side == "outer" else "out of"
                text = (
                    f"{reader.look_deg:g} looks {there} {gate.place}; an {reader.side} reader of gate {gate.id} looks"
                )
                findings.say(f"readers[{i}].look_deg", f"{text} to about {wanted_deg:.0f}")


def own_settings(findings: Findings, config: GatewayConfig) -> None:
    """Report half of a reader's own scan settings, a window over its interval, and own frame rates over the zone's."""
    for i, reader in enumerate(config.readers):
        window_ms, interval_ms = reader.scan_window_ms, reader.scan_interval_ms
        if (window_ms is None) != (interval_ms is None):
            given, other = ("interval", "window") if window_ms is None else ("window", "interval")
            findings.say(f"readers[{i}].scan_{other}_ms", f"missing beside scan_{given}_ms: give this reader both")
        elif window_ms is not None and interval_ms is not None and window_ms > interval_ms:
            text = f"scan_window_ms {window_ms} is over scan_interval_ms {interval_ms}"
            findings.say(f"readers[{i}].scan_window_ms", text)
    own = [(i, r.frames_per_min) for i, r in enumerate(config.readers) if r.frames_per_min is not None]
    left = FRAMES_A_S * 60 - FRAMES_MIN_PER_MIN * (len(config.readers) - len(own))
    total = sum(frames for _, frames in own)
    if own and total > left:
        last, most = own[-1][0], max(FRAMES_MIN_PER_MIN, left // len(own))
        text = f"the own rates of {len(own)} readers are {total} frames a minute together, and the coordinator has"
        findings.say(f"readers[{last}].frames_per_min", f"{text} {max(left, 0)} for them; at most {most} each")


def notes(findings: Findings, config: GatewayConfig) -> None:
    """Note what makes a gate slower or less sure. The zone works all the same, so nothing is refused."""
    if findings.problems:
        return  # a reader with a fault would be missing here, and noted as missing
    plane = plane_of(config)
    guards: dict[str, list[Reader]] = {gate.id: [] for gate in config.gates}
    for reader in config.readers:
        if reader.gate in guards:
            guards[reader.gate].append(reader)
    for gate in config.gates:
        for note in _gate_notes(gate, guards[gate.id], plane):
            findings.notes.append(f"gate {gate.id}: {note}")


RULES = (gates, gate_readers, own_settings, notes)
"""Rules as in `rules.RULES`."""


def _gate_notes(gate: Gate, guards: Sequence[Reader], plane: Plane) -> Iterator[str]:
    slow = f"who passes it is reported by the depth inside {gate.place}, after minutes"
    if not guards:
        yield f"no reader guards it, so {slow}; mount readers at its posts"
        return
    numbers = {side: [r.number for r in guards if r.side == side] for side in ("outer", "inner")}
    for side, other in (("outer", "inner"), ("inner", "outer")):
        if not numbers[side] and numbers[other]:
            yield f"only {other} readers ({_joined(numbers[other])}), so {slow}; add an {side} one"
    across_m = []
    for reader in guards:
        inwards_m, right_m = _offset_m(plane, gate, reader)
        across_m.append(right_m)
        name = f"reader {reader.number} ({reader.side})"
        if reader.side == "outer" and inwards_m < -OUTER_BEFORE_MAX_M:
            what = f"stands {-inwards_m:.1f} m before the wall: who waits at the gate is behind it and seems to be in"
            yield f"{name} {what}; move it to the wall line, at most 2 m before it"
        elif reader.side == "outer" and inwards_m > OUTER_BEFORE_MAX_M:
            yield f"{name} stands {inwards_m:.1f} m behind the wall; move it to the wall line, or is it an inner one?"
        elif reader.side == "inner" and inwards_m > INNER_DEEP_MAX_M:
            yield f"{name} stands {inwards_m:.1f} m behind the wall: who leaves is noticed late; move it to about 3 m"
        elif reader.side == "inner" and inwards_m < -1.0:
            yield f"{name} stands {-inwards_m:.1f} m before the wall; move it inside, or is it an outer one?"
        if reader.antenna == "dipole":
            yield f"{name} has a dipole, which hears both sides alike; give it a patch that looks {_way(reader.side)}"
        window_ms, interval_ms = reader.scan_window_ms or 1, reader.scan_interval_ms or 1
        if window_ms < LISTENS_MIN * interval_ms:
            what = f"listens {window_ms / interval_ms:.0%} of the time, so many reports come late"
            yield f"{name} {what}; give it scan_interval_ms = 16 and scan_window_ms = 7, or neither"
    if all(numbers.values()) and gate.width_m >= WIDE_M and max(across_m) - min(across_m) < gate.width_m / 2:
        what = f"its readers stand on one post, and it is {gate.width_m:g} m wide: one arrival in ten is reported late"
        yield f"{what}; put two readers on the other post too"


def _inward_fault(gate: Gate, at: tuple[float, float], ring: Sequence[tuple[float, float]]) -> str:
    x_m, y_m = _nearest_m(at, ring)

    def deep_m(bearing_deg: float) -> float:
        east, north = direction(bearing_deg)
        return depth_m(x_m + STEP_M * east, y_m + STEP_M * north, ring)

    if deep_m(gate.inward_deg) >= DEEP_MIN_M:
        return ""
    leads = "leads out of" if deep_m(gate.inward_deg) < -DEEP_MIN_M else "leads along the edge of"
    text = f"{gate.inward_deg:g} {leads} {gate.place}"
    opposite_deg = (gate.inward_deg + 180) % 360
    if deep_m(opposite_deg) >= DEEP_MIN_M:
        return f"{text}; the opposite is {opposite_deg:g}"
    straight_deg = max(range(0, 360, 5), key=deep_m)
    if deep_m(straight_deg) < DEEP_MIN_M:
        return f"{text}, which is under {STEP_M:g} m deep there; look at its polygon"
    return f"{text}; straight in is about {straight_deg}"


def _nearest_m(at: tuple[float, float], ring: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the point of the outline that is nearest to a point."""
    found: list[tuple[float, float]] = []
    for (x1, y1), (x2, y2) in zip(ring, (*ring[1:], ring[0]), strict=True):
        dx, dy = x2 - x1, y2 - y1
        length2 = dx * dx + dy * dy
        t = max(0.0, min(1.0, ((at[0] - x1) * dx + (at[1] - y1) * dy) / length2)) if length2 else 0.0
        found.append((x1 + t * dx, y1 + t * dy))
    return min(found, key=lambda point: math.dist(point, at))


def _offset_m(plane: Plane, gate: Gate, reader: Reader) -> tuple[float, float]:
    gx, gy = plane.to_xy_m(gate.lon, gate.lat)
    x, y = plane.to_xy_m(reader.lon, reader.lat)
    return offset_m(x - gx, y - gy, gate.inward_deg)


def _looks_deg(gate: Gate, side: str) -> float:
    return gate.inward_deg if side == "inner" else (gate.inward_deg + 180) % 360


def _way(side: str | None) -> str:
    return "in" if side == "inner" else "out"


def _listed(known: Mapping[str, object]) -> str:
    return f"there are {', '.join(list(known)[:20])}" if known else "there are none"


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:10])
