"""Pictures of a zone to show to a school: how many readers hear a tag, the error of a fix, where a track went.

Each is one SVG file without a script, readable on a telephone and on a wall. Units are metres, in the frame of `Scene`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gateway.antenna import look_of
from gateway.recording import Floats, RecordedGate, RecordedSite, Survey, TimedFix, Track
from gateway.survey.canvas import DANGER, INK, Canvas, Scene
from gateway.zone import Field, LonLat, Zone

PerPoint = Callable[[Floats], Floats]
"""(points, 2) metres -> one value for each point."""
RASTER = 160
"""Cells along the longer side of the map."""
ERROR_STEPS_M, ROOM_STEPS_M = (3.0, 5.0, 8.0, 12.0, 20.0), (0.5, 1.0, 1.5, 2.0, 3.0)
"""For a zone, and for a room: a map with a median expected error below ROOM_M."""
ROOM_M = 2.0
EDGE_M = 25.0
"""The map of a zone goes this far beyond readers, places and danger areas."""
READER_STEPS = (2.0, 3.0, 4.0, 6.0, 8.0)
READER_WORDS = ("1", "2", "3", "4-5", "6-7", "8 on")
GOOD_TO_POOR = ("#0b2a5b", "#1d5d8c", "#3e8f9d", "#7dbb9b", "#c3dd9f", "#f6f3c0")
"""Dark to light in even steps: distinct with every kind of colour blindness, and in a photocopy."""
CIRCLES_MAX = 18
STEPS_MAX = 400
"""Of one track, at most: 90 % circles drawn, and corners drawn."""


def error_picture(scene: Scene, expected_error_m: PerPoint, readers_in_reach: PerPoint, source: str) -> str:
    """Return a picture of the expected error of a fix. source: one sentence on where the figures come from."""
    error_m, reach = _grid(scene, expected_error_m), _grid(scene, readers_in_reach)
    heard = reach >= 1
    share = 100 * float(heard.mean())
    half_m, most_m = np.percentile(error_m[heard], [50, 90]) if heard.any() else (np.nan, np.nan)
    steps_m = ROOM_STEPS_M if half_m < ROOM_M else ERROR_STEPS_M
    shown = np.where(heard, np.digitize(error_m, steps_m), -1)
    lines = [f"{share:.0f} % of the map is in reach of a reader."]
    if heard.any():
        lines += [f"There a fix is about {half_m:.2g} m off (middle value), {most_m:.2g} m in the worst tenth."]
    canvas = Canvas(scene, lines)
    canvas.raster(shown, GOOD_TO_POOR)
    canvas.zone()
    canvas.end_map()
    canvas.gate_plans()
    canvas.bar("Expected error of a position, metres", GOOD_TO_POOR, [f"{step:g} m" for step in steps_m])
    canvas.symbols([_PALE])
    canvas.note(source, "small")
    return canvas.svg(" ".join(lines))


def reach_picture(scene: Scene, readers_in_reach: PerPoint, source: str) -> str:
    """Return a picture of how many readers are expected to hear a tag. source: as in `error_picture`."""
    reach = _grid(scene, readers_in_reach)
    colours = GOOD_TO_POOR[::-1]
    shown = np.where(reach >= 1, np.digitize(reach, READER_STEPS), -1)
    lines = [
        f"{100 * float((reach >= 1).mean()):.0f} % of the map is in reach of a reader,",
        f"{100 * float((reach >= 3).mean()):.0f} % in reach of three or more, as a good position needs.",
    ]
    canvas = Canvas(scene, lines)
    canvas.raster(shown, colours)
    canvas.zone()
    canvas.end_map()
    canvas.gate_plans()
    canvas.bar("How many readers hear a tag there", colours, READER_WORDS)
    canvas.symbols([_PALE])
    canvas.note(source, "small")
    return canvas.svg(" ".join(lines))


def track_picture(site: RecordedSite, track: Track, fixes: Sequence[TimedFix], words: str) -> str:
    """Return a picture of a track: the path that was walked, the fixes and some of their 90 % circles."""
    canvas = Canvas(scene_of(site, f"{site.name}: {track.name}"), [words])
    walked = track.truth_xy_m if track.truth_xy_m is not None else track.path_xy_m
    kept = [fix for fix in fixes if abs(fix.x_m) < 1e6 and abs(fix.y_m) < 1e6]
    for fix in kept[:: max(1, -(-len(kept) // CIRCLES_MAX))]:
        style = f'fill="{_FIXES}" fill-opacity="0.07" stroke="{_FIXES}" stroke-opacity="0.5" stroke-width="1.5"'
        canvas.circle(fix.x_m, fix.y_m, min(fix.r90_m, 1e5) * canvas.scale, style)
    if walked is not None:
        canvas.line([(x, y) for x, y in _thinned(walked)], "#ffffff", 9)
        canvas.line([(x, y) for x, y in _thinned(walked)], INK, 5)
    way = _thinned(np.array([(fix.x_m, fix.y_m) for fix in kept]).reshape(-1, 2))
    canvas.line([(x, y) for x, y in way], _FIXES, 2.5, dash="2 6")
    for x, y in way:
        canvas.circle(x, y, 4, f'fill="{_FIXES}"')
    canvas.zone()
    canvas.end_map()
    canvas.gate_plans()
    dot = f'<circle r="5" fill="{_FIXES}"/>'
    ring = f'<circle r="15" fill="{_FIXES}" fill-opacity="0.10" stroke="{_FIXES}" stroke-opacity="0.5"/>'
    line = f'<path d="M-22 0h44" stroke="{INK}" stroke-width="5"/>'
    more = [(dot, "fix"), (ring, "90 % circle")]
    canvas.symbols(more + ([(line, "way walked")] if walked is not None else []))
    return canvas.svg(f"The track {track.name}. {words}")


def walk_picture(scene: Scene, survey: Survey, words: Sequence[str]) -> str:
    """Return a picture of a walk test: where it went, and how many readers heard the tag at each place."""
    canvas = Canvas(scene, words)
    side_m = max(0.5, 10 / canvas.scale)
    places, which = np.unique(np.floor(survey.xy_m / side_m), axis=0, return_inverse=True)
    heard = np.array([len(np.unique(survey.reader[which.reshape(-1) == n])) for n in range(len(places))])
    kinds = np.digitize(heard, READER_STEPS)
    canvas.zone()
    for (x, y), kind in zip((places + 0.5) * side_m, kinds, strict=True):
        colour = GOOD_TO_POOR[::-1][int(kind)]
        canvas.circle(x, y, 7, f'fill="{colour}" stroke="{INK}" stroke-width="1"')
    canvas.end_map()
    canvas.gate_plans()
    canvas.bar("How many readers heard the tag there", GOOD_TO_POOR[::-1], READER_WORDS)
    canvas.symbols()
    return canvas.svg(" ".join(words))


def scene_of(site: RecordedSite, title: str) -> Scene:
    """Return the scene of a recorded site: its readers, footpaths, places, gates and danger areas."""
    readers = [(name, float(x), float(y)) for name, (x, y, _) in zip(site.reader_ids, site.readers_m, strict=True)]
    x0, y0, x1, y1 = site.bounds_m
    low, high = site.readers_m[:, :2].min(axis=0), site.readers_m[:, :2].max(axis=0)
    edge_m = 0.03 * max(x1 - x0, y1 - y0)
    bounds_m = (
        min(x0, low[0]) - edge_m,
        min(y0, low[1]) - edge_m,
        max(x1, high[0]) + edge_m,
        max(y1, high[1]) + edge_m,
    )
    paths = [[(float(x), float(y)) for x, y in line] for line in site.footpaths]
    places, dangers = (
        [(area.id, [(float(x), float(y)) for x, y in area.ring_m]) for area in areas or ()]
        for areas in (site.places, site.dangers)
    )
    looks = [] if site.look is None else site.look.tolist()
    return Scene(
        title, bounds_m, readers, places, dangers, paths, site.origin_lonlat is not None, gates=site.gates, looks=looks,
        guards=site.guards,
    )  # fmt: skip


_FIXES = DANGER
_PALE = (f'<rect x="-22" y="-11" width="44" height="22" fill="#eceff1" stroke="{INK}"/>', "not in reach")


def _grid(scene: Scene, value: PerPoint) -> Floats:
    """Return the values at the middles of the cells, [row from the south, column]."""
    x0, y0, x1, y1 = scene.bounds_m
    side_m = max(x1 - x0, y1 - y0, 0.1) / RASTER
    columns, rows = max(1, round((x1 - x0) / side_m)), max(1, round((y1 - y0) / side_m))
    x = x0 + (np.arange(columns) + 0.5) * (x1 - x0) / columns
    y = y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.asarray(value(points), dtype=float).reshape(rows, columns)


def _thinned(points: Floats) -> Floats:
    return points[:: max(1, -(-len(points) // STEPS_MAX))]


def scene_of_zone(zone: Zone, name: str, question: str, attribution: str | None = None) -> Scene:
    """Return the scene of a zone: readers, gates, places, danger areas and footpaths, on its `Field`'s plane.

    attribution: the source of their map data.
    """
    plane = Field(Zone(zone.readers)).plane

    def shape(polygon: Sequence[LonLat]) -> list[tuple[float, float]]:
        return [plane.to_xy_m(lon, lat) for lon, lat in polygon]

    readers = [(str(r.number), *plane.to_xy_m(r.lon, r.lat)) for r in zone.readers]
    places = [(place.id, shape(place.polygon)) for place in zone.places]
    dangers = [(danger.id, shape(danger.polygon)) for danger in zone.dangers]
    points = np.array([(x, y) for _, x, y in readers] + [p for _, corners in (*places, *dangers) for p in corners])
    (x0, y0), (x1, y1) = points.min(axis=0) - EDGE_M, points.max(axis=0) + EDGE_M
    bounds_m = (float(x0), float(y0), float(x1), float(y1))
    paths = [shape(path.line) for path in zone.footpaths]
    gates = [
        RecordedGate(gate.id, gate.place, plane.to_xy_m(gate.lon, gate.lat), (90 - gate.inward_deg) % 360, gate.width_m)
        for gate in zone.gates
    ]
    guards = [(r.gate, r.side) if r.gate is not None and r.side is not None else None for r in zone.readers]
    return Scene(
        f"{name}: {question}", bounds_m, readers, places, dangers, paths, True, attribution, gates,
        [look_of(r) for r in zone.readers], guards,
    )  # fmt: skip
