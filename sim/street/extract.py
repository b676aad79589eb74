"""An OpenStreetMap extract (.osm): nodes, ways and relations as they stand, and the outline of one school in them.

What was deleted is not there, whatever else the file says of it. A node without a place is not there either. A line is
never drawn over a node that is missing, and an outline with one is refused: a school would shrink, and nobody would see
it.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.zone import LonLat
from readers.files import BadFile, bytes_of, printable

EXTRACT_MAX_B = 256 * 1024 * 1024
"""An export of some square kilometres of a dense city has 50 MB."""
OUTLINE_MAX = 2000
"""Nodes that a way may have on the map."""
_MORE = "export a larger part of the map round the school, with all nodes of its ways"


class OsmError(ValueError):
    """The extract is not usable. The message says what is wrong and, where known, what to give instead."""


@dataclass
class Extract:
    """The parts of an .osm file that are used here. `gone`: (kind, number) of what is deleted."""

    nodes: dict[str, LonLat] = field(default_factory=dict)
    node_tags: dict[str, dict[str, str]] = field(default_factory=dict)
    ways: dict[str, tuple[dict[str, str], list[str]]] = field(default_factory=dict)
    relations: dict[str, tuple[dict[str, str], list[tuple[str, str, str]]]] = field(default_factory=dict)
    """Tags, and (kind, number, role) of each member."""
    gone: set[tuple[str, str]] = field(default_factory=set)

    def pieces(self, refs: Sequence[str]) -> list[list[LonLat]]:
        """Return a way as lines of at least two places. It is cut where a node is missing."""
        lines: list[list[LonLat]] = [[]]
        for ref in refs:
            if ref not in self.nodes:
                lines.append([])
            elif not lines[-1] or lines[-1][-1] != self.nodes[ref]:
                lines[-1].append(self.nodes[ref])
        return [line for line in lines if len(line) > 1]

    def outline(self, school: str, notes: list[str]) -> list[LonLat]:
        """Return the ring of a school, the last place as the first. Raises OsmError.

        school: the number of a closed way or of a multipolygon, or "way/7" or "relation/7".
        """
        kind, _, number = school.strip().rpartition("/")
        known = {"way": number in self.ways, "relation": number in self.relations}
        found = [each for each, there in known.items() if there and kind in ("", each)]
        name = f"{(found or [kind or 'way'])[0]} {printable(number, 40)}"
        if not found:
            gone = any((each, number) in self.gone for each in ("way", "relation"))
            why = "is deleted on this map" if gone else "is not in the extract"
            raise OsmError(f"{name} {why}; give the number of a closed way with amenity=school, or of a multipolygon")
        if len(found) > 1:
            raise OsmError(f"there are a way {number} and a relation {number}; give way/{number} or relation/{number}")
        refs = self.ways[number][1] if found == ["way"] else self._ring(name, number, notes)
        if len(refs) < 4 or refs[0] != refs[-1]:
            raise OsmError(f"{name} is not closed, so it is no school's outline")
        missing = list(dict.fromkeys(ref for ref in refs if ref not in self.nodes))
        if missing:
            raise OsmError(
                f"{name} has nodes that the extract lacks or that have no place: {_listed(missing)}; {_MORE}"
            )
        if len(refs) > OUTLINE_MAX:
            raise OsmError(f"{name} has over {OUTLINE_MAX} nodes; give the outline of the school alone")
        return [self.nodes[ref] for ref in refs]

    def _ring(self, name: str, number: str, notes: list[str]) -> list[str]:
        """Return the nodes of the one outer ring of a multipolygon."""
        tags, members = self.relations[number]
        ways = [ref for kind, ref, role in members if kind == "way" and role in ("outer", "")]
        if tags.get("type") not in ("multipolygon", "boundary") or not ways:
            raise OsmError(f"{name} is no multipolygon with outer ways; give the school's closed way, or draw one")
        if missing := [ref for ref in ways if ref not in self.ways]:
            raise OsmError(f"{name} has ways that the extract lacks: {_listed(missing)}; {_MORE}")
        if short := [ref for ref in ways if len(self.ways[ref][1]) < 2]:
            raise OsmError(f"{name} has ways of fewer than two nodes: {_listed(short)}; mend it on the map")
        rings = list(_rings(name, [self.ways[ref][1] for ref in dict.fromkeys(ways)]))
        if len(rings) > 1:
            closed = [f"way/{ref}" for ref in ways if self.ways[ref][1][0] == self.ways[ref][1][-1]]
            which = f"one of {_listed(closed)}" if closed else "a closed way that you draw round the part with the gate"
            raise OsmError(f"{name} has {len(rings)} outer rings, and a site has one school; give {which}")
        if any(role == "inner" for _, _, role in members):
            notes.append(f"{name} has holes; they count as school")
        return rings[0]


def read_extract(path: Path) -> Extract:
    """Read an .osm file. Raises OsmError."""
    try:
        root = ElementTree.fromstring(bytes_of(path, EXTRACT_MAX_B))
    except OSError as error:
        raise OsmError(f"cannot read {path}: {error.strerror}") from error
    except BadFile as error:
        raise OsmError(f"{path} is no .osm file: {error}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the two others: of its encoding
        raise OsmError(f"{path} is no .osm file: {error}; download one from the map's export page") from error
    if root.tag != "osm":
        begins = f"it begins with <{printable(root.tag, 40)}>, not with <osm>"
        raise OsmError(f"{path} is no .osm file: {begins}; download one from the map's export page")
    extract = Extract()
    seen: dict[tuple[str, str], bytes] = {}
    for element in root:
        if element.tag not in ("node", "way", "relation"):
            continue
        number = element.get("id", "")
        if not re.fullmatch(r"-?[0-9]{1,20}", number):
            raise OsmError(f"{path}: a {element.tag} has the id {printable(number, 40)!r}, which is no number")
        content = ElementTree.tostring(element).strip()
        if seen.setdefault((element.tag, number), content) != content:
            raise OsmError(
                f"{path}: {element.tag} {number} is there twice, and not the same; "
                "give an export of the map as it is today, not one with its history"
            )
        _take(path, extract, element, number)
    return extract


def _take(path: Path, extract: Extract, element: ElementTree.Element, number: str) -> None:
    if element.get("action") == "delete" or element.get("visible") == "false":
        extract.gone.add((element.tag, number))
        return
    tags = {tag.get("k", ""): tag.get("v", "") for tag in element.findall("tag")}
    if element.tag == "node":
        lon, lat = element.get("lon"), element.get("lat")
        if lon is not None and lat is not None:
            extract.nodes[number] = _place(f"{path}: node {number}", lon, lat)
            if tags:
                extract.node_tags[number] = tags
    elif element.tag == "way":
        extract.ways[number] = tags, [nd.get("ref", "") for nd in element.findall("nd")]
    else:
        members = [(m.get("type", ""), m.get("ref", ""), m.get("role", "")) for m in element.findall("member")]
        extract.relations[number] = tags, members


def _place(where: str, lon: str, lat: str) -> LonLat:
    try:
        place = float(lon), float(lat)
    except ValueError:
        place = math.nan, math.nan
    if not (abs(place[0]) <= 180 and abs(place[1]) <= 90):
        swapped = "; are the two exchanged?" if abs(place[0]) <= 90 < abs(place[1]) <= 180 else ""
        said = f"lon={printable(lon, 20)!r} lat={printable(lat, 20)!r}"
        raise OsmError(f"{where} has {said}, which is no place in degrees{swapped}")
    return place


def _rings(name: str, lines: list[list[str]]) -> Iterator[list[str]]:
    """Join ways end to end until each ring is closed."""
    rest = [list(line) for line in lines]
    while rest:
        ring = rest.pop(0)
        while ring[0] != ring[-1]:
            end = ring[-1]
            line = next((line for line in rest if end in (line[0], line[-1])), None)
            if line is None:
                raise OsmError(f"{name}: its outer ways do not close at node {printable(end, 40)}; mend it on the map")
            rest.remove(line)
            ring += line[1:] if line[0] == end else line[-2::-1]
        yield ring


def _listed(some: Sequence[str]) -> str:
    return ", ".join(printable(each, 40) or "(no number)" for each in some[:5]) + (" .." if len(some) > 5 else "")
