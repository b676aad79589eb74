"""The plan on paper: a picture of the zone and of each gate, and the page for the tender.

The page is one HTML file without a script: it opens on a telephone, prints on A4, and holds every number that the walk
test is judged against. Nothing in it comes from the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from gateway.recording import RecordedGate
from gateway.survey.canvas import INK, Canvas, Scene
from sim.plan.accept import WALKS, Limit
from sim.plan.layout import Layout, footpath_points, heard_by
from sim.plan.promise import DAY, Assumed, Delays, Promise
from sim.street.site import Site

EDGE_M = 15.0
"""The map goes this far beyond the outermost reader."""
CLEAR = 24.0
"""Units of the picture round a reader that stay free of points."""
HEARD_COLOURS, HEARD_WORDS = ("#c8ccd2", "#c3dd9f", "#3e8f9d", "#0b2a5b"), ("none", "1", "2", "3 on")
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;color:#16202c;margin:0 auto;padding:1rem;max-width:72rem}
h1{font-size:1.7rem;line-height:1.2}h2{font-size:1.25rem;margin:2rem 0 .5rem;border-bottom:2px solid #16202c}
table{border-collapse:collapse;font-size:.95rem}th,td{border:1px solid #9aa3ad;padding:.3rem .55rem;text-align:left;
vertical-align:top}th{background:#eceff1}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.w{white-space:nowrap}.wide{overflow-x:auto}.picture{max-width:50rem}svg{width:100%;height:auto}
.short{color:#b3261e;font-weight:600}
@media print{body{max-width:none}h2{break-after:avoid}tr,svg{break-inside:avoid}}"""


def picture(site: Site, layout: Layout, radius_m: float) -> str:
    """Return an SVG: every reader, how many are planned to hear a tag on the footpaths, and the plan of each gate.

    radius_m: how far from the school's outline footpaths count.
    """
    poles = layout.poles
    points = footpath_points(site, radius_m)
    at = np.array([pole.at for pole in poles] + [gate.at for gate in layout.gates])
    (x0, y0), (x1, y1) = at.min(axis=0) - EDGE_M, at.max(axis=0) + EDGE_M
    scene = Scene(
        f"{site.name}: where the readers go", (float(x0), float(y0), float(x1), float(y1)),
        [(str(pole.number), *pole.at) for pole in poles], [("school", site.school)],
        [(danger.id, danger.ring) for danger in site.dangers],
        [line for kind, line in site.streets if kind != "primary"], True, site.attribution,
        [RecordedGate(g.id, g.place, g.at, (90.0 - g.inward_deg) % 360.0, g.width_m) for g in layout.gates],
        [math.nan if pole.look_deg is None else math.radians(90.0 - pole.look_deg) for pole in poles],
        [None if pole.gate is None or pole.side is None else (pole.gate, pole.side) for pole in poles],
    )  # fmt: skip
    canvas = Canvas(scene, [f"{_plural(len(poles), 'reader')}, {_plural(len(layout.gates), 'gate')}"])
    canvas.zone()
    for (x, y), heard in zip(points.tolist(), heard_by(site, poles, points).tolist(), strict=True):
        apart = float(np.hypot(*(at - (x, y)).T).min()) * canvas.scale
        if apart > CLEAR and x0 <= x <= x1 and y0 <= y <= y1:
            style = f'fill="{HEARD_COLOURS[min(heard, 3)]}" stroke="{INK}" stroke-width="0.8"'
            canvas.circle(x, y, max(5.0, 1.3 * canvas.scale), style)
    canvas.end_map()
    canvas.bar("Readers planned to hear a tag there", HEARD_COLOURS, HEARD_WORDS)
    canvas.symbols()
    canvas.gate_plans()
    return canvas.svg(f"Where {len(poles)} readers go, and how many hear a tag along the footpaths")


def page(site: Site, layout: Layout, promise: Promise, assumed: Assumed, limits: Sequence[Limit], command: str) -> str:
    """Return the page for the tender as HTML. command: how it was made, for whoever makes it again."""
    parts = [
        f"<h1>Zone {escape(site.name)}: plan of the readers</h1>",
        "<p>This page says what to mount, what it will do, and against which numbers it is accepted. It was computed "
        "before anybody climbed: every figure is of simulated children in simulated air, through the gateway&#8217;s "
        "own programs. None was measured on this street. The walk test decides.</p>",
        f'<div class="picture">{picture(site, layout, promise.coverage.radius_m)}</div>',
        "<h2>What to mount</h2>",
        _mounted(layout),
        _readers(site, layout),
        "<h2>What is promised</h2>",
        _promise(promise),
        "<h2>What is assumed, and what shows whether it is true</h2>",
        _assumptions(assumed),
        "<h2>Acceptance</h2>",
        "<p>After mounting, a person with a tag makes the walk test (runbook &#8220;A walk test&#8221;): every "
        "footpath both ways, and the part for gates, with tapped places. <code>ansim-gateway calibrate</code> fits it "
        "and speaks of each gate at once; <code>ansim-sim accept</code> holds it against these limits. A limit is the "
        f"poorest of {WALKS} simulated walk tests of this plan.</p>",
        _limits(limits),
        "<h2>Not reached, and to look at</h2>",
        _notes(layout, promise),
        "<h2>How it was made</h2>",
        f"<p><code>{escape(command)}</code></p>",
        f"<p>{escape(_made(promise))}</p>",
        f"<p>Map data {escape(site.attribution)}</p>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>{escape(site.name)}: plan of the readers</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def summary(layout: Layout, promise: Promise) -> list[str]:
    """Return the promise in lines for a terminal."""
    lines = [_counts(layout)]
    for name, tally, seconds in _told(promise):
        lines.append(f"{name}: {_per_cent(tally.share(seconds))} reported within {seconds} s (of {tally.of} simulated)")
    lines.append(
        f"false reports: {promise.false_words} in {promise.child_days:.0f} simulated child-days: "
        f"{_rate(promise.false_per_1000)} per 1000, at most {_rate(promise.false_per_1000_most)} (95 % sure)"
    )
    cover = promise.coverage
    lines.append(
        f"presses within {cover.radius_m:.0f} m of the school: {_per_cent(cover.heard_share)} heard in 3 s, "
        f"{_per_cent(cover.located_share)} located within 20 m ({cover.presses} simulated)"
    )
    return lines


# ---- inside ----------------------------------------------------------------------------------------------------------


def _told(promise: Promise) -> list[tuple[str, Delays, int]]:
    return [
        ("arrivals", promise.arrivals, 20),
        ("arrivals", promise.arrivals, 60),
        ("departures", promise.departures, 20),
        ("departures", promise.departures, 30),
        ("departures", promise.departures, 60),
    ]


def _rate(per_1000: float) -> str:
    return f"{per_1000:.0f}" if per_1000 >= 10 else f"{per_1000:.1f}"


def _counts(layout: Layout) -> str:
    kinds = [(layout.count("gate"), "at gates"), (layout.count("flank"), "inside the wall beside a gate")]
    kinds += [(layout.count("street"), "on street poles"), (layout.count("yard"), "in the yard")]
    kinds += [(layout.count("kept"), "already there")]
    said = ", ".join(f"{n} {words}" for n, words in kinds if n)
    return f"{_plural(len(layout.readers), 'reader')}, each on its own post or arm: {said}"


def _mounted(layout: Layout) -> str:
    patches = sum(pole.antenna == "patch" for pole in layout.poles)
    return (
        f"<p>{escape(_counts(layout))}. {patches} have a patch antenna, {len(layout.readers) - patches} a dipole. The "
        "outer and the inner reader on one side of a gate may share a post if its arms reach: outer at most 2 m before "
        "the wall&#8217;s line, inner about 3 m behind it. Bearings are degrees from north, clockwise, as on a "
        "compass.</p>"
    )


def _readers(site: Site, layout: Layout) -> str:
    rows = []
    for r in layout.poles:
        lon, lat = site.plane.to_lonlat(*r.at)
        look = "all round" if r.look_deg is None else f"{r.look_deg:.0f}&deg;"
        guards = "" if r.gate is None else escape(f"{r.gate}, {r.side}")
        rows.append(
            f'<tr><td class="n">{r.number}</td><td class="w">{escape(r.name)}</td><td class="n">{lon:.6f}</td>'
            f'<td class="n">{lat:.6f}</td><td class="n">{r.height_m:g} m</td><td>{r.antenna}</td>'
            f'<td class="n">{look}</td><td>{guards}</td></tr>'
        )
    names = ("no.", "post", "longitude", "latitude", "height", "antenna", "looks to", "gate, side")
    return _table(names, rows)


def _promise(promise: Promise) -> str:
    rows = [
        f'<tr><td>{name} reported within {seconds} s</td><td class="n">{_per_cent(tally.share(seconds))}</td>'
        f'<td class="n">{_per_cent(tally.least(seconds))}</td><td class="n">{_per_cent(tally.poorest(seconds))}</td>'
        f'<td class="n">{tally.of}</td></tr>'
        for name, tally, seconds in _told(promise)
    ]
    rows += [
        f'<tr><td>median / nine in ten {name} reported after</td><td class="n">{_seconds(tally, 50)} / '
        f'{_seconds(tally, 90)}</td><td></td><td></td><td class="n">{tally.of}</td></tr>'
        for name, tally in (("arrivals", promise.arrivals), ("departures", promise.departures))
    ]
    cover = promise.coverage
    rows.append(
        f'<tr><td>false reports per 1000 child-days</td><td class="n">{_rate(promise.false_per_1000)}</td>'
        f'<td class="n">at most {_rate(promise.false_per_1000_most)}</td><td></td>'
        f'<td class="n">{promise.child_days:.0f} days</td></tr>'
    )
    for share, words in ((cover.heard_share, "heard within 3 s"), (cover.located_share, "located within 20 m")):
        rows.append(
            f"<tr><td>presses {words}, on footpaths within {cover.radius_m:.0f} m of the school</td>"
            f'<td class="n">{_per_cent(share)}</td><td></td><td></td><td class="n">{cover.presses}</td></tr>'
        )
    day = ", ".join(f"{count:g} {kind.replace('_', ' ')}" for kind, count in DAY)
    return _table(("figure", "promised", "95 % sure of", "in the poorest air", "simulated"), rows) + (
        "<p>The bounds take the reports as independent. They are not quite: the children of one air share its shadows, "
        "and false reports come in pairs (left, and arrived again). So look at the poorest air too. "
        f"A child-day is: {escape(day)}. False is every report of an arrival or departure that did not happen. "
        f"{escape(_false_kinds(promise))}</p>"
    )


def _false_kinds(promise: Promise) -> str:
    said = ", ".join(f"{count} of who {_DOES.get(kind, kind)}" for kind, count in promise.false_kinds)
    return f"The false reports: {said}." if said else ""


_DOES = {
    "arrive": "arrives", "leave": "leaves", "passer": "passes", "plays": "plays inside at the gate",
    "wait": "waits 3 m outside", "beside": "stands outside beside the gate", "in_and_out": "goes in and straight out",
    "runs_outside": "runs along the outside of the wall",
}  # fmt: skip


def _assumptions(assumed: Assumed) -> str:
    return _table(
        ("assumed", "value", "what shows it"),
        [f"<tr><td>{escape(a)}</td><td>{escape(b)}</td><td>{escape(c)}</td></tr>" for a, b, c in assumed.rows()],
    )


def _limits(limits: Sequence[Limit]) -> str:
    rows = [
        f'<tr><td>{escape(each.words)}</td><td class="n">{each.least:.1f} {each.unit}</td>'
        f'<td class="n">{each.usual:.1f} {each.unit}</td><td></td></tr>'
        for each in limits
    ]
    return _table(("figure of the walk test", "at least", "expected", "measured"), rows)


def _notes(layout: Layout, promise: Promise) -> str:
    found = [f'<li class="short">{escape(text)}</li>' for text in promise.shortfalls()]
    found += [f"<li>{escape(text)}</li>" for text in layout.notes]
    return (
        f"<ul>{''.join(found)}</ul>" if found else "<p>Every bar is reached in simulation, and nothing was noted.</p>"
    )


def _made(promise: Promise) -> str:
    return (
        f"{promise.airs} airs (shadows, readers' and tags' spread drawn again for each), "
        f"{promise.arrivals.of} arrivals, {promise.departures.of} departures, {promise.child_days:.0f} child-days, "
        f"seed {promise.seed}. The same command gives the same page."
    )


def _table(names: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _seconds(tally: Delays, part: float) -> str:
    value = tally.percentile_s(part)
    return "never" if value == float("inf") else f"{value:.0f} s"


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
