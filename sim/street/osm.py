"""An OpenStreetMap extract -> the site file of one school: its streets, danger road, poles and homes.

Taken from the map: streets and footways, buildings, the school's outline, crossings, the nearest main road. Added by us
and marked with `"origin": "ansim"`: the gate's exact spot and width, poles, homes. Names are left out, except the name
of the danger area. The result is a derived database under ODbL, so the attribution stays in the file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gateway.zone import LonLat, Plane
from readers.files import printable
from sim.street.extract import Extract, OsmError
from sim.street.gates import Entrance, guards, inward_deg
from sim.street.paths import JOIN_M, Paths, Spot, distance_to_edge_m, inside, nearest_on_segment

ATTRIBUTION = "(c) OpenStreetMap contributors, ODbL 1.0 (openstreetmap.org/copyright)"
WALKED = (
    "residential", "living_street", "pedestrian", "footway", "path", "steps", "service", "unclassified", "tertiary",
    "secondary",
)  # fmt: skip
MAIN_ROADS = ("motorway", "trunk", "primary")
CROSSINGS = ("crossing", "traffic_signals")
POLE_GAP_M = 32.0
"""Least distance between poles. At 30-40 m two or three readers hear a tag on the street."""
POLE_ASIDE_M = 2.5
POLE_HEIGHT_M = 3.5
GUARDS = 4
"""Readers that guard a gate. They have the first numbers: the other poles follow, the nearest to the gate first."""
SCHOOL_ID = "school"
GATE_WIDTH_M = 5.0
"""Two wings, wide enough for a lorry. Assumed: maps draw a gate as a point."""
HOME_GAP_M = 18.0
HOME_ASIDE_M = 6.0
HOMES_MAX = 60
POLES_MAX = 32
ROAD_HALF_WIDTH_M = 8.0
"""From the middle of a carriageway to its kerb: half of five lanes of 3.2 m."""
DANGER_REACH_M = 90.0
WARN_M = 12.0
YARD_DEPTH_M = 30.0
SPAN_M = 3000.0
"""No corner of the school, no building near it and no danger road is further from the gate: a node there is wrong."""
LAT_MAX = 85.0
"""Further north or south, metres of a plane are wrong."""
WALL_M = 4.0
"""Maps draw a school to the middle of the streets round it. The wall is this far inside that line."""


def derive(
    extract: Extract,
    school: str,
    gate: tuple[float, float],
    *,
    site: str,
    radius_m: float = 300.0,
    notes: list[str] | None = None,
) -> dict[str, Any]:
    """Return the site file of a school. Its gate is the point of the wall nearest to `gate`.

    school: as `Extract.outline` has it. gate: (longitude, latitude) in degrees. notes: gets what was left out, in
    words. Raises OsmError when the extract has no such outline, no street or no main road, when the school is too
    small, or when the gate is nowhere near it.
    """
    notes = [] if notes is None else notes
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", site):
        raise OsmError(f"--name {printable(site, 40)!r}: 1 to 32 of A-Z a-z 0-9 _ -, a letter or digit first")
    if not (abs(gate[0]) <= 180 and abs(gate[1]) <= LAT_MAX):
        swapped = "; are the two exchanged?" if abs(gate[0]) <= 90 < abs(gate[1]) <= 180 else ""
        raise OsmError(f"--gate {gate[0]:g},{gate[1]:g} is no LON,LAT in degrees, longitude first{swapped}")
    plane = Plane(*gate)
    draft = _Draft(extract, plane, radius_m, notes)
    outline = draft.metres(extract.outline(school, notes))
    _check_outline(school, outline, radius_m)
    ring = _inset(outline, WALL_M)
    edge = list(zip(ring, [*ring[1:], ring[0]], strict=True))
    entrance = min((nearest_on_segment((0.0, 0.0), a, b) for a, b in edge), key=lambda p: math.hypot(*p))
    streets = draft.streets()
    if not any(kind in WALKED for kind, _ in streets):
        raise OsmError(f"no street within {radius_m:.0f} m of the gate; give a larger --radius-m")
    paths = Paths([(line, 1.0) for kind, line in streets if kind in WALKED])
    door = paths.attach(entrance)
    danger_name, danger = draft.danger()
    yard = _yard_points(entrance, ring)
    gate_ = Entrance("gate1", SCHOOL_ID, entrance, inward_deg(entrance, ring), GATE_WIDTH_M)
    notes += [
        f"the wall bends at the gate: reader {n} is on the wrong side of it; move it to the {guard.side} side by hand"
        for n, guard in enumerate(guards(gate_), 1)
        if inside(guard.at, ring) != (guard.side == "inner")
    ]
    poles = [
        ("gate", _inwards(entrance, yard[0], 1.0)),
        *(("yard", point) for point in yard),
        *_street_poles(paths, door, entrance, ring, danger),
    ]
    features = [
        *(_feature("street", "LineString", draft.degrees(line), {"class": kind}) for kind, line in streets),
        *(_feature("building", "Polygon", [draft.degrees(line)], {}) for line in draft.buildings()),
        _feature("school", "Polygon", [draft.degrees([*ring, ring[0]])], {"id": SCHOOL_ID}),
        _feature("danger", "Polygon", [draft.degrees([*danger, danger[0]])],
                 {"id": "road", "what": danger_name, "warn_m": WARN_M}),
        *(_feature("crossing", "Point", draft.degrees([p])[0], {}) for p in draft.crossings(streets)),
        *guarded_gate(gate_, draft.plane),
        *(_feature("reader", "Point", draft.degrees([p])[0],
                   {"number": n, "pole": f"P{n:02d} {name}", "height_m": POLE_HEIGHT_M, "origin": "ansim"})
          for n, (name, p) in enumerate(poles, 1 + GUARDS)),
        *(_feature("home", "Point", draft.degrees([p])[0], {"id": f"home{n:02d}", "origin": "ansim"})
          for n, p in enumerate(_homes(paths, door, ring, danger), 1)),
    ]  # fmt: skip
    return {"type": "FeatureCollection", "site": site, "attribution": ATTRIBUTION, "features": features}


def guarded_gate(gate: Entrance, plane: Plane, first: int = 1) -> list[dict[str, Any]]:
    """Return the features of a gate and of the GUARDS readers that guard it. first: the number of the first of them."""
    at = {"id": gate.id, "place": gate.place, "inward_deg": gate.inward_deg, "width_m": gate.width_m}
    features = [_feature("gate", "Point", _degrees(plane, gate.at), {**at, "origin": "ansim"})]
    for n, guard in enumerate(guards(gate)):
        post = "left" if n < GUARDS // 2 else "right"
        features.append(
            _feature("reader", "Point", _degrees(plane, guard.at), {
                "number": first + n, "pole": f"P{first + n:02d} gate {post} {guard.side}", "height_m": POLE_HEIGHT_M,
                "gate": gate.id, "side": guard.side, "antenna": "patch", "look_deg": round(guard.look_deg, 1),
                "origin": "ansim",
            })
        )  # fmt: skip
    return features


def write(site: dict[str, Any], path: Path) -> None:
    """Write the site file with one feature per line: it is small, and a diff shows a change. Raises OsmError.

    It is written completely, or the old one stays.
    """
    head = {key: value for key, value in site.items() if key != "features"}
    rows = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in site["features"])
    text = json.dumps(head, ensure_ascii=True)[:-1] + ', "features": [\n' + rows + "\n]}\n"
    aside = path.with_name(path.name + ".new")
    try:
        aside.write_text(text, "utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise OsmError(f"cannot write {path}: {error.strerror}; give another --out") from error


def _check_outline(school: str, outline: Sequence[Spot], radius_m: float) -> None:
    """Refuse what a wall cannot be. outline: open, in metres from the gate."""
    edges = list(zip(outline, [*outline[1:], *outline[:1]], strict=True))
    for n, (a, b) in enumerate(edges):
        for c, d in edges[n + 2 : len(edges) - (n == 0)]:
            if _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0:
                raise OsmError(f"{school} crosses itself; mend it on the map, or give another way")
    if len(outline) < 3 or abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in edges)) < 2.0:
        raise OsmError(f"{school} encloses no ground: its nodes lie in one line; mend it on the map")
    far_m = min(math.hypot(*nearest_on_segment((0.0, 0.0), a, b)) for a, b in edges)
    if far_m > radius_m:
        raise OsmError(f"--gate is {far_m:.0f} m from {school}; give LON,LAT in degrees, longitude first")
    if (far_m := max(math.hypot(*spot) for spot in outline)) > SPAN_M:
        raise OsmError(
            f"{school} has a corner {far_m / 1000:.0f} km from the gate; mend its place on the map, or the gate"
        )


class _Draft:
    def __init__(self, extract: Extract, plane: Plane, radius_m: float, notes: list[str]) -> None:
        self.extract, self.plane, self.radius_m, self.notes = extract, plane, radius_m, notes

    def metres(self, places: Sequence[LonLat]) -> list[Spot]:
        """The places in metres from the gate, without repeated ones; a ring without its last, which is its first."""
        spots: list[Spot] = []
        for place in places:
            spot = self.plane.to_xy_m(*place)
            if not spots or math.dist(spot, spots[-1]) > JOIN_M:
                spots.append(spot)
        closed = len(spots) > 1 and math.dist(spots[0], spots[-1]) <= JOIN_M
        return spots[:-1] if closed and places[0] == places[-1] else spots

    def lines(self, refs: Sequence[str]) -> list[list[Spot]]:
        """A way in metres, in pieces where nodes are missing. A closed way ends where it begins."""
        lines = []
        for places in self.extract.pieces(refs):
            spots = self.metres(places)
            if len(spots) > 1:
                lines.append([*spots, spots[0]] if places[0] == places[-1] else spots)
        return lines

    def degrees(self, line: Sequence[Spot]) -> list[list[float]]:
        return [_degrees(self.plane, point) for point in line]

    def streets(self) -> list[tuple[str, list[Spot]]]:
        found, cut = [], 0
        for tags, refs in self.extract.ways.values():
            kind = tags.get("highway", "")
            if (kind in WALKED or kind in MAIN_ROADS) and tags.get("area") != "yes" and "tunnel" not in tags:
                shown = "primary" if kind in MAIN_ROADS else kind
                lines = self.lines(refs)
                near = [(shown, piece) for line in lines for piece in _clip(line, self.radius_m)]
                cut += any(ref not in self.extract.nodes for ref in refs) and bool(near or not lines)
                found += near
        if cut:
            self.notes.append(f"{cut} streets have gaps or are left out: the extract lacks some of their nodes")
        walked = Paths([(line, 1.0) for kind, line in found if kind in WALKED])
        if not walked.points:
            return []
        reached = {_key(walked.points[node]) for node in walked.distances_m(walked.attach((0.0, 0.0)))}
        return [(kind, line) for kind, line in found if kind == "primary" or _key(line[0]) in reached]

    def buildings(self) -> list[list[Spot]]:
        ways = [refs for tags, refs in self.extract.ways.values() if "building" in tags]
        whole = [refs for refs in ways if all(ref in self.extract.nodes for ref in refs)]
        if len(whole) < len(ways):
            self.notes.append(f"{len(ways) - len(whole)} buildings are left out: the extract lacks some of their nodes")
        lines = [line for refs in whole for line in self.lines(refs)]
        near = [line for line in lines if len(line) > 3 and line[0] == line[-1] and self._near(line)]
        good = [line for line in near if max(math.hypot(*spot) for spot in line) <= SPAN_M]
        if len(good) < len(near):
            self.notes.append(f"{len(near) - len(good)} buildings are left out: a corner is over {SPAN_M:.0f} m away")
        return good

    def crossings(self, streets: Sequence[tuple[str, list[Spot]]]) -> list[Spot]:
        """Street points tagged as a crossing, and points where a smaller street ends at a secondary road."""
        tagged = [
            self.plane.to_xy_m(*self.extract.nodes[ref])
            for ref, tags in self.extract.node_tags.items()
            if tags.get("highway") in CROSSINGS
        ]
        big = {_key(p) for kind, line in streets if kind == "secondary" for p in line}
        small = [p for kind, line in streets if kind not in ("secondary", "primary") for p in (line[0], line[-1])]
        on_streets = {_key(p) for _, line in streets for p in line}
        found: dict[tuple[int, int], Spot] = {}
        for p in [*(p for p in tagged if _key(p) in on_streets), *(p for p in small if _key(p) in big)]:
            found.setdefault(_key(p), p)
        return list(found.values())

    def danger(self) -> tuple[str, list[Spot]]:
        """The main road nearest to the gate: its label, and the hull of its carriageways there, kerb to kerb."""
        roads = [
            (tags.get("name:en") or "main road", line)
            for tags, refs in self.extract.ways.values()
            if tags.get("highway") in MAIN_ROADS
            for line in self.lines(refs)
        ]
        pieces = [(name, a, b) for name, line in roads for a, b in pairwise(line)]
        if not pieces:
            raise OsmError("no main road (motorway, trunk, primary) in the extract; a zone needs a danger area")
        name, a, b = min(pieces, key=lambda piece: math.hypot(*nearest_on_segment((0.0, 0.0), piece[1], piece[2])))
        spot = nearest_on_segment((0.0, 0.0), a, b)
        if math.hypot(*spot) > SPAN_M:
            raise OsmError(f"no main road within {SPAN_M:.0f} m of the gate; a zone needs a danger area")
        corners: list[Spot] = []
        for other, a, b in pieces:
            if other == name:
                moved = [(a[0] - spot[0], a[1] - spot[1]), (b[0] - spot[0], b[1] - spot[1])]
                for piece in _clip(moved, DANGER_REACH_M):
                    corners += _widen(piece, spot, ROAD_HALF_WIDTH_M)
        return f"carriageway of {name}", _hull(corners)

    def _near(self, line: Sequence[Spot]) -> bool:
        return min(math.hypot(*point) for point in line) <= self.radius_m


def _yard_points(entrance: Spot, ring: Sequence[Spot]) -> list[Spot]:
    """A point YARD_DEPTH_M from the gate and one 1.4 times as far, each where the wall is furthest away."""
    points: list[Spot] = []
    for depth_m in (YARD_DEPTH_M, 1.4 * YARD_DEPTH_M):
        turns = [a * math.pi / 36 for a in range(72)]
        spots = [(entrance[0] + depth_m * math.cos(a), entrance[1] + depth_m * math.sin(a)) for a in turns]
        fits = [p for p in spots if inside(p, ring) and all(math.dist(p, q) >= 0.9 * YARD_DEPTH_M for q in points)]
        if fits:
            points.append(max(fits, key=lambda spot: (round(distance_to_edge_m(spot, ring), 3), spot)))
    if not points:
        raise OsmError(f"the school is smaller than {YARD_DEPTH_M:.0f} m; it needs a pole of its own by hand")
    return points


def _inwards(a: Spot, b: Spot, by_m: float) -> Spot:
    t = by_m / math.dist(a, b)
    return a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])


def _street_poles(
    paths: Paths, door: int, entrance: Spot, ring: Sequence[Spot], danger: Sequence[Spot]
) -> list[tuple[str, Spot]]:
    """Poles along the walked streets, nearest to the gate first, at least POLE_GAP_M apart."""
    chosen: list[Spot] = [entrance]
    poles: list[tuple[str, Spot]] = []
    for spot, aside in _along(paths, door, 2.0):
        if len(chosen) > POLES_MAX - 3:
            break
        if any(math.dist(spot, other) < POLE_GAP_M for other in chosen) or inside(spot, danger):
            continue
        chosen.append(spot)
        sides = [(spot[0] + s * POLE_ASIDE_M * aside[0], spot[1] + s * POLE_ASIDE_M * aside[1]) for s in (1, -1)]
        free = [side for side in sides if not inside(side, ring)]
        poles.append(("street", (free or sides)[0]))
    return poles


def _homes(paths: Paths, door: int, ring: Sequence[Spot], danger: Sequence[Spot]) -> list[Spot]:
    homes: list[Spot] = []
    for spot, aside in _along(paths, door, 6.0):
        home = (spot[0] + HOME_ASIDE_M * aside[0], spot[1] + HOME_ASIDE_M * aside[1])
        apart = all(math.dist(home, other) >= HOME_GAP_M for other in homes)
        if apart and not inside(home, ring) and not inside(home, danger) and len(homes) < HOMES_MAX:
            homes.append(home)
    return homes


def _along(paths: Paths, door: int, step_m: float) -> list[tuple[Spot, Spot]]:
    """Points every step_m of street, shortest walk to the door first, each with the unit vector across the street."""
    distances = paths.distances_m(door)
    found = []
    for a in sorted(distances):
        for b in paths.neighbours(a):
            if a < b:
                (ax, ay), (bx, by) = paths.points[a], paths.points[b]
                length = math.dist(paths.points[a], paths.points[b])
                aside = ((ay - by) / length, (bx - ax) / length)
                for n in range(int(length // step_m) + 1):
                    t = min(1.0, n * step_m / length)
                    walked = min(distances[a] + t * length, distances[b] + (1 - t) * length)
                    found.append((round(walked, 3), (ax + t * (bx - ax), ay + t * (by - ay)), aside))
    return [(spot, aside) for _, spot, aside in sorted(found)]


def _clip(line: Sequence[Spot], radius_m: float) -> list[list[Spot]]:
    """The parts of a line within radius_m of the origin."""
    pieces: list[list[Spot]] = []
    for a, b in pairwise(line):
        dx, dy = b[0] - a[0], b[1] - a[1]
        qa, qb, qc = dx * dx + dy * dy, 2 * (a[0] * dx + a[1] * dy), a[0] ** 2 + a[1] ** 2 - radius_m**2
        root = qb * qb - 4 * qa * qc
        if qa == 0 or root <= 0:
            continue
        low, high = max(0.0, (-qb - math.sqrt(root)) / (2 * qa)), min(1.0, (-qb + math.sqrt(root)) / (2 * qa))
        if low >= high:
            continue
        start = a if low == 0 else (a[0] + low * dx, a[1] + low * dy)
        end = b if high == 1 else (a[0] + high * dx, a[1] + high * dy)
        if pieces and pieces[-1][-1] == start:
            pieces[-1].append(end)
        else:
            pieces.append([start, end])
    return pieces


def _widen(line: Sequence[Spot], spot: Spot, by_m: float) -> list[Spot]:
    (ax, ay), (bx, by) = line[0], line[-1]
    length = math.dist(line[0], line[-1]) or 1.0
    nx, ny = (ay - by) / length * by_m, (bx - ax) / length * by_m
    return [(spot[0] + x + s * nx, spot[1] + y + s * ny) for x, y in (line[0], line[-1]) for s in (1, -1)]


def _hull(points: Sequence[Spot]) -> list[Spot]:
    """The convex hull, counter-clockwise, rounded to 0.1 m."""
    ordered = sorted({(round(x, 1), round(y, 1)) for x, y in points})

    def half(some: Sequence[Spot]) -> list[Spot]:
        hull: list[Spot] = []
        for p in some:
            while len(hull) > 1 and _turn(hull[-2], hull[-1], p) <= 0:
                hull.pop()
            hull.append(p)
        return hull[:-1]

    return half(ordered) + half(ordered[::-1])


def _inset(ring: Sequence[Spot], by_m: float) -> list[Spot]:
    """The ring with every edge moved inwards by by_m. The same ring when the result does not fit inside it."""
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    sides = []
    for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
        length = math.dist(a, b) * (1 if area > 0 else -1)
        nx, ny = (a[1] - b[1]) / length * by_m, (b[0] - a[0]) / length * by_m
        sides.append(((a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny)))
    moved = []
    for (a, b), (c, d) in zip([sides[-1], *sides[:-1]], sides, strict=True):
        cross = (b[0] - a[0]) * (d[1] - c[1]) - (b[1] - a[1]) * (d[0] - c[0])
        if abs(cross) < 1e-9:
            return list(ring)
        t = ((c[0] - a[0]) * (d[1] - c[1]) - (c[1] - a[1]) * (d[0] - c[0])) / cross
        moved.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
    fits = all(inside(p, ring) and distance_to_edge_m(p, ring) >= by_m - 0.01 for p in moved)
    return moved if fits else list(ring)


def _turn(a: Spot, b: Spot, c: Spot) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _key(point: Spot) -> tuple[int, int]:
    return round(point[0] * 10), round(point[1] * 10)


def _degrees(plane: Plane, point: Spot) -> list[float]:
    return [round(value, 6) for value in plane.to_lonlat(*point)]


def _feature(kind: str, shape: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": {"kind": kind, **properties},
        "geometry": {"type": shape, "coordinates": coordinates},
    }
