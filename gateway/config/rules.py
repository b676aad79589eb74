"""Checks that no type can express: numbers given twice, names without an owner, impossible positions."""

import math
import re
import statistics
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from gateway.config.findings import Findings, short
from gateway.options import TABLES, GatewayConfig
from gateway.zone import FOOTPATH_PIECES_MAX, FOOTPATHS_MAX, Plane
from readers.advertisement import TagKeys
from readers.files import host_fault

ZONE_MAX_M = 20_000.0
"""No position may be further from the middle of the zone: this finds a typing error in a degree."""
UNIQUE = (
    ("readers", "number"), ("readers", "eui64"), ("places", "id"), ("dangers", "id"), ("bells", "id"), ("routes", "id"),
    ("gates", "id"),
)  # fmt: skip
"""(list, key): no two entries of the list may have the same value."""
POLYGONS, LINES = ("places", "dangers"), ("routes", "footpaths")
"""Lists with a polygon in each entry, and lists with a line in each."""
Corners = list[tuple[float, float]]
"""Corners in metres east and north of the middle of the zone. The last corner does not repeat the first."""


def unique(findings: Findings, config: GatewayConfig) -> None:
    """Report every number, EUI64 or id that is given twice."""
    for key, name in UNIQUE:
        seen: dict[Any, int] = {}
        for i, item in enumerate(getattr(config, key)):
            value = getattr(item, name)
            if value in seen:
                first = findings.line_of(f"{key}[{seen[value]}].{name}")
                findings.say(f"{key}[{i}].{name}", f"{value!r} is given twice (first in line {first})")
            seen.setdefault(value, i)


def bells(findings: Findings, config: GatewayConfig) -> None:
    """Report a bell at a reader that is not in this file, and a second bell at one input."""
    numbers = {reader.number for reader in config.readers}
    inputs: set[tuple[int, int]] = set()
    for i, bell in enumerate(config.bells):
        if bell.reader not in numbers and findings.right("readers"):
            listed = ", ".join(str(n) for n in sorted(numbers)[:20])
            findings.say(f"bells[{i}].reader", f"there is no reader {bell.reader}; there are {listed}")
        if (bell.reader, bell.input) in inputs:
            findings.say(f"bells[{i}].input", f"input {bell.input} of reader {bell.reader} has a bell already")
        inputs.add((bell.reader, bell.input))


def readers(findings: Findings, config: GatewayConfig) -> None:
    """Report readers too far from the others."""
    plane = plane_of(config)
    for i, reader in enumerate(config.readers):
        far_m = math.hypot(*plane.to_xy_m(reader.lon, reader.lat))
        if far_m > ZONE_MAX_M:
            text = f"{far_m / 1000:.0f} km from the middle of the zone"
            findings.say(f"readers[{i}].lon", text + _exchanged(plane, [(reader.lon, reader.lat)]))


def polygons(findings: Findings, config: GatewayConfig) -> None:
    """Report a polygon that encloses too little, lies too far away, or has edges that cross."""
    plane = plane_of(config)
    for key in POLYGONS:
        for i, item in enumerate(getattr(config, key)):
            ring = [plane.to_xy_m(lon, lat) for lon, lat in item.polygon]
            if ring[0] == ring[-1]:
                ring.pop()
            if fault := _ring_fault(ring):
                findings.say(f"{key}[{i}].polygon", fault)
            elif far := _far(ring):
                findings.say(f"{key}[{i}].polygon", f"a corner is {far}{_exchanged(plane, item.polygon)}")


def lines(findings: Findings, config: GatewayConfig) -> None:
    """Report a line that is too short or lies too far away, and more footpaths than an engine takes."""
    plane = plane_of(config)
    for key in LINES:
        for i, item in enumerate(getattr(config, key)):
            points = [plane.to_xy_m(lon, lat) for lon, lat in item.line]
            if len(set(points)) < 2:
                findings.say(f"{key}[{i}].line", "fewer than 2 different points")
            elif far := _far(points):
                findings.say(f"{key}[{i}].line", f"a point is {far}{_exchanged(plane, item.line)}")
    pieces = sum(len(path.line) - 1 for path in config.footpaths)
    if len(config.footpaths) > FOOTPATHS_MAX or pieces > FOOTPATH_PIECES_MAX:
        most = f"at most {FOOTPATHS_MAX} of {FOOTPATH_PIECES_MAX} in all"
        text = f"{len(config.footpaths)} lines of {pieces} pieces, {most}; take those near readers"
        findings.say("footpaths", text)


def texts(findings: Findings, config: GatewayConfig) -> None:
    """Report a path or a name with a blank at an end or with a character that nobody sees, and a host that is a URL.

    They come with what was copied from a page or a chat, and no file or host has such a name.
    """
    before = len(findings.problems)
    for table, kind in TABLES.items():
        given = getattr(config, table)
        for name in kind.__struct_fields__ if given is not None else ():
            value = getattr(given, name)
            if isinstance(value, str) and (why := _hidden(value)):
                findings.say(f"{table}.{name}", f"{value!a} {why}")
    if findings.problems[before:]:
        return
    if findings.right("mqtt") and (fault := host_fault(config.mqtt.host)):
        findings.say("mqtt.host", fault, hint=False)
    if findings.right("radio.port") and (fault := _port_fault(config.radio.port)):
        findings.say("radio.port", fault)


def _port_fault(port: str) -> str:
    if re.fullmatch(r"COM\d+", port, re.IGNORECASE):
        return f"{short(port)} is a port of Windows; on this box: ls -l /dev/serial/by-id"
    scheme, _, rest = port.partition("://")
    host, _, number = rest.rpartition(":")
    if scheme == "socket" and (not host or not re.fullmatch("[0-9]{1,5}", number) or not 0 < int(number) < 65536):
        return f"{short(port)} has no host or no port"
    return ""


def _hidden(value: str) -> str:
    if value != value.strip():
        return "has a blank at one end"
    hidden = [c for c in value if c != " " and unicodedata.category(c) in ("Zs", "Zl", "Zp", "Cf", "Cc")]
    return f"has {unicodedata.name(hidden[0], 'a control character').lower()}, which nobody sees" if hidden else ""


RULES = (texts, unique, bells, readers, polygons, lines)
"""Every rule that needs no other file, in the order in which problems are shown."""


def tags(findings: Findings, config: GatewayConfig, tag_keys: dict[str, TagKeys]) -> None:
    """Report a tag with more than one route. A tag without keys is only noted: it may have been removed a moment ago,
    and to refuse the configuration would leave the whole zone without its gateway."""
    routes: dict[str, str] = {}
    for i, route in enumerate(config.routes):
        for tag in route.tags:
            if tag in routes:
                findings.say(f"routes[{i}].tags", f"{tag} has the route {routes[tag]} already")
            routes.setdefault(tag, route.id)
    if not findings.right("keys.tags"):
        return
    for key, named in (("routes", routes.keys()), ("paused", set(config.paused))):
        if unknown := sorted(named - tag_keys.keys()):
            text = f"{key} names {len(unknown)} tags without keys, so nothing is done for them"
            findings.notes.append(f"{text}: {', '.join(unknown[:10])}")


def plane_of(config: GatewayConfig) -> Plane:
    """Return a plane round the middle of the zone: a reader or an area that is far off does not move it there."""
    points: list[tuple[float, float]] = [(reader.lon, reader.lat) for reader in config.readers]
    points += [item.polygon[0] for key in POLYGONS for item in getattr(config, key)]
    points += [item.line[0] for key in LINES for item in getattr(config, key)]
    lons, lats = zip(*points or [(0.0, 0.0)], strict=True)
    return Plane(statistics.median_low(lons), statistics.median_low(lats))


def _far(points: Corners) -> str:
    off_m = max(math.hypot(x, y) for x, y in points)
    return f"over {ZONE_MAX_M / 1000:.0f} km from the middle of the zone" if off_m > ZONE_MAX_M else ""


def _exchanged(plane: Plane, points: Iterable[tuple[float, float]]) -> str:
    """Return a question if all points would be near that middle with longitude and latitude exchanged."""
    near = all(math.hypot(*plane.to_xy_m(lat, lon)) <= ZONE_MAX_M for lon, lat in points)
    return "; are lon and lat exchanged?" if near else ""


def _ring_fault(ring: Corners) -> str:
    if len(set(ring)) < 3:
        return "fewer than 3 different corners"
    if len(set(ring)) < len(ring):
        return "the same corner twice"
    if _crosses_itself(ring):
        return "its edges cross each other"
    if abs(_area_m2(ring)) < 1.0:
        return "encloses less than a square metre"
    return ""


def _area_m2(ring: Corners) -> float:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in _edges(ring)) / 2


def _edges(ring: Corners) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    return zip(ring, ring[1:] + ring[:1], strict=True)


def _crosses_itself(ring: Corners) -> bool:
    edges = list(_edges(ring))

    def side(a: tuple[float, float], b: tuple[float, float], p: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    for i, (a, b) in enumerate(edges):
        for j, (c, d) in enumerate(edges[i + 2 :], i + 2):
            if (j + 1) % len(edges) == i:
                continue  # neighbours share a corner
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                return True
    return False
