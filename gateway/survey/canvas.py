"""A map of a zone as SVG text: title, coloured ground, readers, areas, paths, scale, legend. `picture` draws with it.

Made to be shown: one file, no script, no font of its own, readable on a telephone (360 px) and on a wall (1920 px).
Colours go from dark (good) to light, so that people who do not see colours, or who have a photocopy, can tell them
apart.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from gateway.antenna import AHEAD_DB, gain_db
from gateway.recording import Floats, RecordedGate

Points = Sequence[tuple[float, float]]

WIDTH, MARGIN = 800, 24
MAP_WIDTH, MAP_HEIGHT_MAX = WIDTH - 2 * MARGIN, 980
TITLE_CHARS, LINE_CHARS, SMALL_CHARS = 36, 50, 58
"""Sizes are in the picture's own units. Text is 22 units high, 28 on a narrow screen: 12.6 px in a picture of 360 px
width. *_CHARS: how many letters fit into a line of title, text and small text."""
NICE_M = tuple(base * 10**power for power in range(-1, 5) for base in (1, 2, 5))
GOOD_TO_POOR = ("#0b2a5b", "#1d5d8c", "#3e8f9d", "#7dbb9b", "#c3dd9f", "#f6f3c0")
"""Lightness rises evenly; distinct with every kind of colour blindness."""
INK, ROUTE, DANGER, PLACE, LAND = "#16202c", "#6b7280", "#b3261e", "#4a1f6f", "#eceff1"
GATE, READER = "#00694b", "#ff9d2e"
LOBE, LOBE_LARGE = 40.0, 110.0
"""How far a patch's lobe reaches ahead in the map and in the plan of a gate. Its shape is how far the antenna hears in
each direction, with an exponent of LOBE_EXPONENT."""
LOBE_EXPONENT = 2.5
PLAN_M, PLAN_HEIGHT, PLANS_MAX = (24.0, 14.0), 440.0, 4
"""The plan of a gate shows at least so much ground, and is at most so high. Further gates are only counted."""
CLOSE = 26.0
"""Readers nearer to each other than this would cover each other: those of a gate are then drawn small."""
_STYLE = """text{font:22px system-ui,sans-serif;fill:#16202c}.title{font-size:32px;font-weight:700}
.small{font-size:18px}.halo{paint-order:stroke;stroke:#fff;stroke-width:5px;stroke-linejoin:round}
@media(max-width:560px){text{font-size:28px}.title{font-size:34px}.small{font-size:24px}}"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What lies in the zone, in metres; x is east and y north if `north_up`."""

    title: str
    bounds_m: tuple[float, float, float, float]
    readers: Sequence[tuple[str, float, float]]
    places: Sequence[tuple[str, Points]] = ()
    dangers: Sequence[tuple[str, Points]] = ()
    paths: Sequence[Points] = ()
    north_up: bool = False
    attribution: str | None = None
    """The source of the map data for paths and areas; shown if given."""
    gates: Sequence[RecordedGate] = ()
    looks: Sequence[float] = ()
    """Where each reader's antenna looks (`gateway.antenna`); empty: all are dipoles."""
    guards: Sequence[tuple[str, str] | None] = ()
    """The gate that each reader guards, and its side; empty: no reader does."""


class Canvas:
    """A map with a title above it and space for a legend below: metres in, SVG text out."""

    def __init__(self, scene: Scene, lines: Sequence[str] = ()) -> None:
        self.scene = scene
        x0, y0, x1, y1 = scene.bounds_m
        wide_m, high_m = max(x1 - x0, 0.1), max(y1 - y0, 0.1)
        self.scale = min(MAP_WIDTH / wide_m, MAP_HEIGHT_MAX / high_m)
        self.wide, self.high = wide_m * self.scale, high_m * self.scale
        self._x0, self._y1 = x0, y1
        self._parts: list[str] = []
        self._below = 8.0
        for row in textwrap.wrap(scene.title, TITLE_CHARS):
            self._below += 40
            self.text(MARGIN, self._below, row, "title")
        for line in lines:
            self.note(line)
        self.left, self.top = (WIDTH - self.wide) / 2, self._below + 12
        self._below = self.top + self.high + 14
        self._parts.append(f'<clipPath id="map"><rect {self._box()}/></clipPath><g clip-path="url(#map)">')
        self._parts.append(f'<rect {self._box()} fill="{LAND}"/>')

    def xy(self, x_m: float, y_m: float) -> tuple[float, float]:
        """Return the position of a point of the zone in the picture."""
        return self.left + (x_m - self._x0) * self.scale, self.top + (self._y1 - y_m) * self.scale

    def raster(self, classes: Floats, colours: Sequence[str]) -> None:
        """Fill cells [row from the south, column] by their class; a negative class leaves the ground as it is."""
        rows, columns = classes.shape
        side_x, side_y = self.wide / columns, self.high / rows
        runs: dict[int, list[str]] = {}
        for row in range(rows):
            line = classes[row]
            edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), columns]
            top = self.top + self.high - (row + 1) * side_y
            for start, end in pairwise(edges):
                if (kind := int(line[start])) >= 0:
                    left, width = self.left + start * side_x, (end - start) * side_x
                    runs.setdefault(kind, []).append(
                        f"M{left:.1f} {top:.1f}h{width:.1f}v{side_y + 0.3:.1f}h-{width:.1f}z"
                    )
        for kind, found in sorted(runs.items()):
            self._parts.append(f'<path fill="{colours[kind]}" shape-rendering="crispEdges" d="{"".join(found)}"/>')

    def line(self, points: Points, colour: str, width: float, *, dash: str = "", closed: bool = False) -> None:
        """Draw a polyline, or a polygon."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.xy(*point) for point in points))
        kind, dashes = ("polygon" if closed else "polyline"), (f' stroke-dasharray="{dash}"' if dash else "")
        self._parts.append(
            f'<{kind} points="{corners}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes} '
            'stroke-linejoin="round" stroke-linecap="round"/>'
        )

    def circle(self, x_m: float, y_m: float, radius: float, style: str) -> None:
        """Draw a circle; its radius is in the picture's units."""
        x, y = self.xy(x_m, y_m)
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}/>')

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Write words at a position in the picture."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def name(self, ring: Points, words: str) -> None:
        """Write a name in the middle of an area, or as near as the map allows; an area outside the map gets none."""
        x0, y0, x1, y1 = self.scene.bounds_m
        xs, ys = [x for x, _ in ring], [y for _, y in ring]
        if min(xs) > x1 or max(xs) < x0 or min(ys) > y1 or max(ys) < y0:
            return
        x, y = self.xy(*(sum(point[axis] for point in ring) / len(ring) for axis in (0, 1)))
        half = 7.0 * len(words)
        x = min(max(x, self.left + half), self.left + self.wide - half)
        self.text(x, min(max(y, self.top + 30), self.top + self.high - 12), words, "halo", "middle")

    def zone(self) -> None:
        """Draw paths, places, danger areas and readers."""
        scene = self.scene
        for path in scene.paths:
            self.line(path, "#ffffff", 7)
            self.line(path, ROUTE, 3)
        for _, ring in scene.places:
            self.line(ring, "#ffffff", 8, closed=True)
            self.line(ring, PLACE, 4, closed=True)
        for _, ring in scene.dangers:
            self.line(ring, "#ffffff", 8, closed=True)
            self.line(ring, DANGER, 4, dash="14 9", closed=True)
        small = self._crowded()
        for n, ((_, x_m, y_m), look) in enumerate(zip(scene.readers, self._looks(), strict=True)):
            if n not in small:  # the plan of their gate shows them
                self._lobe(x_m, y_m, look, LOBE)
        for n, (_, x_m, y_m) in enumerate(scene.readers):
            self._parts.append(_diamond(*self.xy(x_m, y_m), 5.0 if n in small else 11.0))
        for gate in scene.gates:
            self._gate(gate, 16.0)
        for name, ring in (*scene.places, *scene.dangers):
            self.name(ring, name)
        if len(scene.readers) <= 60:
            for n, (name, x_m, y_m) in enumerate(scene.readers):
                if n not in small:
                    self._label(name, x_m, y_m)

    def _label(self, name: str, x_m: float, y_m: float, *, left: bool = False) -> None:
        """Write the name of a reader beside it."""
        x, y = self.xy(x_m, y_m)
        if not (self.left <= x <= self.left + self.wide and self.top <= y <= self.top + self.high):
            return
        left = left or x > self.left + self.wide - 20 - 13 * len(name)
        below = y < self.top + 34  # a letter is 24 high on a narrow screen
        side, anchor = (-13, "end") if left else (13, "start")
        self.text(x + side, y + (24 if below else -9), name, "halo small", anchor)

    def _looks(self) -> Sequence[float]:
        return self.scene.looks or [math.nan] * len(self.scene.readers)

    def _crowded(self) -> set[int]:
        """Return which readers are of a gate and so close to another one that they would cover each other."""
        at = [self.xy(x_m, y_m) for _, x_m, y_m in self.scene.readers]
        guards = [n for n, guard in enumerate(self.scene.guards) if guard is not None]
        return {n for n in guards if any(m != n and math.dist(at[n], at[m]) < CLOSE for m in range(len(at)))}

    def _gate(self, gate: RecordedGate, least: float) -> None:
        """Draw a gate: a bar as wide as it is, but no smaller than `least`, and an arrow in which one enters."""
        x, y = self.xy(*gate.at_m)
        half = max(gate.width_m * self.scale, least) / 2
        turn = f'transform="translate({x:.1f} {y:.1f}) rotate({-gate.inward_deg % 360:.1f})"'
        bar, arrow = f"M0 {-half:.1f}V{half:.1f}", _arrow(half)
        for colour, width in (("#ffffff", 11), (GATE, 6)):
            self._parts.append(f'<path {turn} d="{bar}" stroke="{colour}" stroke-width="{width}"/>')
        self._parts.append(f'<path {turn} d="{arrow}" fill="{GATE}" stroke="#fff" stroke-width="2"/>')

    def _lobe(self, x_m: float, y_m: float, look: float, ahead: float) -> None:
        """Draw how far a patch antenna hears in each direction, `ahead` units long where it looks."""
        if math.isnan(look):
            return
        angles = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
        gain = gain_db(np.column_stack([np.cos(angles), np.sin(angles)]), np.full(len(angles), look))
        far = ahead * 10 ** ((gain - AHEAD_DB) / (10 * LOBE_EXPONENT))
        x, y = self.xy(x_m, y_m)
        corners = " ".join(
            f"{x + r * math.cos(a):.1f},{y - r * math.sin(a):.1f}"
            for r, a in zip(far.tolist(), angles.tolist(), strict=True)
        )
        style = f'fill="{READER}" fill-opacity="0.3" stroke="{INK}" stroke-width="1.2"'
        self._parts.append(f'<polygon points="{corners}" {style}/>')

    def gate_plans(self) -> None:
        """Draw, below what is there, the plan of each gate: its outline, its readers and where their antennas look."""
        kept = self.left, self.top, self.wide, self.high, self.scale, self._x0, self._y1
        for n, gate in enumerate(self.scene.gates[:PLANS_MAX]):
            bearing = f", one enters to {(90 - gate.inward_deg) % 360:.0f} degrees" if self.scene.north_up else ""
            self.note(f"Gate {gate.id}: {gate.width_m:g} m wide{bearing}")
            self._plan(n, gate)
        self.left, self.top, self.wide, self.high, self.scale, self._x0, self._y1 = kept
        if len(self.scene.gates) > PLANS_MAX:
            self.note(f"{len(self.scene.gates) - PLANS_MAX} more gates have no plan here.", "small")

    def _plan(self, n: int, gate: RecordedGate) -> None:
        scene = self.scene
        guards = scene.guards or [None] * len(scene.readers)
        whose = zip(scene.readers, self._looks(), guards, strict=True)
        mine = [(reader, look, guard[1]) for reader, look, guard in whose if guard is not None and guard[0] == gate.id]
        gx, gy = gate.at_m
        room_m = gate.width_m / 2 + 4
        wide_m = max([PLAN_M[0] / 2, room_m, *(abs(x - gx) + 4 for (_, x, _), _, _ in mine)])
        high_m = max([PLAN_M[1] / 2, room_m, *(abs(y - gy) + 4 for (_, _, y), _, _ in mine)])
        self.scale = min(MAP_WIDTH / (2 * wide_m), PLAN_HEIGHT / (2 * high_m))
        self._x0, self._y1 = gx - MAP_WIDTH / self.scale / 2, gy + high_m
        self.left, self.top, self.wide, self.high = (
            float(MARGIN),
            self._below + 14,
            MAP_WIDTH,
            2 * high_m * self.scale,
        )
        self._below = self.top + self.high + 14
        self._parts.append(f'<clipPath id="gate{n}"><rect {self._box()}/></clipPath><g clip-path="url(#gate{n})">')
        self._parts.append(f'<rect {self._box()} fill="#f8fafb"/>')
        for path in scene.paths:
            self.line(path, ROUTE, 3)
        for _, ring in scene.places:
            self.line(ring, PLACE, 5, closed=True)
        self._gate(gate, 0.0)
        for reader, look, _ in mine:
            self._lobe(reader[1], reader[2], look, LOBE_LARGE)
        for (name, x_m, y_m), _, side in mine:
            self._parts.append(_diamond(*self.xy(x_m, y_m)))
            self._label(f"{name} {side}", x_m, y_m, left=x_m < gx)
        self._scale_bar(4.0)
        self._parts.append(f'</g><rect {self._box()} fill="none" stroke="{INK}" stroke-width="1.5"/>')

    def end_map(self) -> None:
        """Close the map with its scale and, if `north_up`, a north arrow. What is drawn later stands below the map."""
        self._scale_bar(3.0)
        if self.scene.north_up:
            x, y = self.left + self.wide - 34, self.top + 20
            arrow = f"M{x:.1f} {y:.1f}l13 34l-13 -8l-13 8z"
            self._parts.append(f'<path d="{arrow}" fill="{INK}" stroke="#fff" stroke-width="4" paint-order="stroke"/>')
            self.text(x, y + 62, "N", "halo", "middle")
        self._parts.append(f'</g><rect {self._box()} fill="none" stroke="{INK}" stroke-width="1.5"/>')

    def _scale_bar(self, share: float) -> None:
        """Draw a scale, at most one `share`-th of the map long."""
        length_m = max((n for n in NICE_M if n * self.scale <= self.wide / share), default=NICE_M[0])
        x, y, long = self.left + 18, self.top + self.high - 18, length_m * self.scale
        bar = f"M{x:.1f} {y - 10:.1f}v10h{long:.1f}v-10"
        self._parts += [
            f'<path d="{bar}" fill="none" stroke="{c}" stroke-width="{w}"/>' for c, w in (("#fff", 8), (INK, 3))
        ]
        self.text(x + long / 2, y - 14, f"{length_m:g} m", "halo small", "middle")

    def bar(self, title: str, colours: Sequence[str], words: Sequence[str]) -> None:
        """Draw a colour bar with a word below each colour, or below each border if there is one word less."""
        self.note(title)
        top, wide = self._below + 16, MAP_WIDTH / len(colours)
        for n, colour in enumerate(colours):
            box = f'x="{MARGIN + n * wide:.1f}" y="{top:.1f}" width="{wide:.1f}" height="30"'
            self._parts.append(f'<rect {box} fill="{colour}"/>')
        frame = f'x="{MARGIN}" y="{top:.1f}" width="{MAP_WIDTH}" height="30"'
        self._parts.append(f'<rect {frame} fill="none" stroke="{INK}"/>')
        first = 0.5 if len(words) == len(colours) else 1.0
        for n, word in enumerate(words):
            self.text(MARGIN + (n + first) * wide, top + 60, word, "", "middle")
        self._below = top + 84

    def symbols(self, more: Sequence[tuple[str, str]] = ()) -> None:
        """Draw the legend of what the map shows, two in a row. more: (SVG 44 wide, centred at 0,0; words)."""
        scene = self.scene
        found = [(_diamond(0, 0), "reader on its pole")]
        found += [(_stroke(ROUTE, 3), "footpath")] if scene.paths else []
        found += [(_stroke(PLACE, 4), "named place")] if scene.places else []
        found += [(_stroke(DANGER, 4, "14 9"), "danger area")] if scene.dangers else []
        if scene.gates:
            bar = f'<path d="M0 -16V16" stroke="{GATE}" stroke-width="6"/>'
            found.append((f'{bar}<path d="{_arrow(16)}" fill="{GATE}"/>', "gate, and its way in"))
        if any(not math.isnan(look) for look in scene.looks):
            lobe = f'<path d="M-16 0c4 -18 34 -18 38 0c-4 18 -34 18 -38 0z" fill="{READER}" fill-opacity="0.3" '
            found.append((f'{lobe}stroke="{INK}"/>{_diamond(-12, 0, 8)}', "where it hears best"))
        found += more
        for n, (drawing, words) in enumerate(found):
            x, y = MARGIN + (n % 2) * (MAP_WIDTH / 2), self._below + 18 + (n // 2) * 42
            self._parts.append(f'<g transform="translate({x + 24:.1f} {y:.1f})">{drawing}</g>')
            self.text(x + 60, y + 9, words)
        self._below += 42 * ((len(found) + 1) // 2) + 14

    def note(self, words: str, style: str = "") -> None:
        """Write words below what is already there, in as many lines as a narrow screen needs."""
        for line in textwrap.wrap(words, SMALL_CHARS if style == "small" else LINE_CHARS):
            self._below += 36
            self.text(MARGIN, self._below, line, style)

    def svg(self, description: str) -> str:
        """Return the picture. description: its content in words, for people who cannot see it."""
        if self.scene.attribution:
            self.note(f"Map data {self.scene.attribution}", "small")
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._below + 24:.0f}" role="img">'
        about = f"<title>{escape(self.scene.title)}</title><desc>{escape(description)}</desc><style>{_STYLE}</style>"
        return f'{head}{about}<rect width="100%" height="100%" fill="#fff"/>{"".join(self._parts)}</svg>\n'

    def _box(self) -> str:
        return f'x="{self.left:.1f}" y="{self.top:.1f}" width="{self.wide:.1f}" height="{self.high:.1f}"'


def _diamond(x: float, y: float, half: float = 11.0) -> str:
    """Return an orange diamond: it stands out from every colour of the ground."""
    h = f"{half:g}"
    shape = f"M{x:.1f} {y - half:.1f}l{h} {h}l-{h} {h}l-{h} -{h}z"
    return f'<path d="{shape}" fill="{READER}" stroke="{INK}" stroke-width="{2.5 if half > 6 else 1.5:g}"/>'


def _arrow(half: float) -> str:
    """Return an arrow to the right through a bar of this half width; it is no longer than a small bar is wide."""
    size = min(max(half, 12.0), 22.0)
    neck, side = f"{size * 0.6:.1f}", size / 2
    return f"M{-size:.1f} -2.5H{neck}V{-side:.1f}L{size * 1.5:.1f} 0L{neck} {side:.1f}V2.5H{-size:.1f}z"


def _stroke(colour: str, width: float, dash: str = "") -> str:
    return f'<path d="M-22 0h44" stroke="{colour}" stroke-width="{width:g}" stroke-dasharray="{dash}"/>'
