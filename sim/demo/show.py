"""What a person at the terminal sees of a run: a live picture, or plain lines if there is no terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sim.demo.lamp import Sight

Tone = Literal["info", "good", "alarm", "warning"]
LINES_SHOWN = 12
CHILDREN_SHOWN = 24
LINES_MIN, CHILDREN_MIN = 6, 3
"""In a low terminal lines give way to this many rows of children, and these to what is left."""
REFRESH_PER_S = 4
_STYLE = {"info": "", "good": "green", "alarm": "bold red", "warning": "yellow"}
_LAMP: dict[Sight, tuple[str, str]] = {
    "unclear": ("lit", "dim"),
    "received": ("received", "yellow"),
    "help": ("help is coming", "green"),
    "steady": ("lit and stuck", "bold red"),
}
_STATE = {
    "at": "at school",
    "moving": "moving",
    "uncertain": "uncertain",
    "unseen": "not heard",
    "not_covered": "reader dead",
    "idle": "tag lies still",
    "paused": "paused",
}


@dataclass(frozen=True, slots=True)
class ChildRow:
    """One child: the truth, which only the simulator knows, and what the city believes."""

    tag: str
    truth: str
    away_m: float
    crying: bool
    arrived: bool
    state: str | None
    accuracy_m: float | None
    age_s: float | None


@dataclass(frozen=True, slots=True)
class PressRow:
    """One press, and when it reached each hop, in seconds after the press."""

    kind: str
    who: str
    hops: Sequence[tuple[str, float | None]]


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown at one moment. seconds None: no end is planned."""

    address: str
    operator: str
    passcode: str
    story_s: float
    seconds: float | None
    children: Sequence[ChildRow] = ()
    presses: Sequence[PressRow] = ()
    readers: Sequence[tuple[int, bool]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    lamps: Mapping[int, Sight] = field(default_factory=dict)


class Show:
    """The terminal. `say` adds a line. `start` begins the live picture; its function returns a `View` when called."""

    def __init__(self, file: TextIO | None = None, *, live: bool | None = None, quiet: bool = False) -> None:
        self._console = Console(file=file or sys.stdout, highlight=False)
        self._live_wanted = self._console.is_terminal if live is None else live
        self._quiet = quiet
        self._lines: deque[tuple[str, str, Tone]] = deque(maxlen=200)
        self._began = time.monotonic()
        self._live: Live | None = None
        self._view: Callable[[], View] | None = None

    def start(self, view: Callable[[], View]) -> None:
        self._view = view
        if self._live_wanted and not self._quiet:
            self._live = Live(
                console=self._console,
                get_renderable=self._picture,
                refresh_per_second=REFRESH_PER_S,
                screen=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def stop(self) -> None:
        """End the live picture. Its last state and its last 200 lines stay on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._view is not None:
                self._console.print(self._picture(all_lines=True))

    def say(self, text: str, kind: Tone = "info") -> None:
        """Add a line."""
        stamp = f"{time.monotonic() - self._began:7.1f}"
        self._lines.append((stamp, text, kind))
        if self._live is None and not self._quiet:
            style = _STYLE[kind] if self._console.is_terminal else ""
            self._console.print(Text(f"{stamp} s  {text}", style=style), soft_wrap=True)

    def _picture(self, all_lines: bool = False) -> RenderableType:
        """Return the picture; unless all lines are wanted, as much of it as the terminal is high."""
        view = self._view() if self._view is not None else View("", "", "", 0.0, None)
        above, presses = _head(view), [_press(row) for row in view.presses]
        children, lines = list(view.children), list(self._lines)
        if not all_lines:
            room = self._console.height - self._height(above, *presses) - 1
            shown = min(len(lines), LINES_SHOWN)
            wanted = min(len(children), CHILDREN_MIN) + 1 if children else 0
            while shown > 1 and self._height(_lines(lines[-shown:])) > max(room - wanted, LINES_MIN):
                shown -= 1
            lines = lines[-shown:]
            room -= self._height(_lines(lines))
            if len(children) + 1 > room:
                children.sort(key=lambda row: not row.crying)  # the one who presses is never left out
                children = children[: max(room - 2, 0)]
        children = children[:CHILDREN_SHOWN]
        parts = [above]
        if children:
            parts.append(_children(children, len(view.children)))
        return Group(*parts, *presses, _lines(lines))

    def _height(self, *parts: RenderableType) -> int:
        return sum(len(self._console.render_lines(part, pad=False)) for part in parts)


def _lines(lines: Sequence[tuple[str, str, Tone]]) -> Text:
    text = Text()
    for stamp, line, kind in lines:
        text.append(f"{stamp} s  ", style="dim")
        text.append(line + "\n", style=_STYLE[kind])
    text.rstrip()
    return text


def _head(view: View) -> RenderableType:
    text = Text()
    text.append("page      ", style="dim")
    text.append(view.address or "starting ...", style="bold cyan")
    if view.passcode:
        text.append("   name ", style="dim")
        text.append(view.operator, style="bold")
        text.append("   passcode ", style="dim")
        text.append(view.passcode, style="bold")
    text.append("\nstory     ", style="dim")
    text.append(f"{view.story_s:.0f} s" + (f" of {view.seconds:.0f}" if view.seconds else "   Ctrl-C ends it"))
    if view.readers:
        text.append("   readers ", style="dim")
        for number, alive in view.readers:
            text.append(f"{number} ", style="green" if alive else "bold red")
    shining = {sight: [n for n, seen in view.lamps.items() if seen == sight] for sight in _LAMP}
    if any(shining.values()):
        text.append("\nlamps     ", style="dim")
        for sight, (word, style) in _LAMP.items():
            if shining[sight]:
                text.append(f"{word}: {' '.join(map(str, shining[sight]))}   ", style=style)
    if view.counts:
        c = view.counts
        text.append("\nheard     ", style="dim")
        text.append(
            f"{c.get('heard', 0)} packets of {c.get('beacons', 0)} beacons, reported in "
            f"{c.get('rows', 0) + c.get('bindings', 0)} rows: {c.get('bytes_up', 0)} bytes over the mesh"
        )
        if c.get("lag_ms", 0) > 250:
            text.append(f"\nslow      this machine is busy: the simulator fell {c['lag_ms']} ms behind", style="yellow")
    return Panel(text, title="Ansim: a simulated school zone", title_align="left", border_style="blue")


def _children(rows: Sequence[ChildRow], all_: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("tag", "where it is", "", "the city says", "within", "seen"):
        table.add_column(name, style="dim" if not name else "", header_style="dim", no_wrap=True)
    for row in rows:
        style = "bold red" if row.crying else "green" if row.arrived else ""
        believed = "arrived" if row.arrived else _STATE.get(row.state or "", "-")
        table.add_row(
            Text(row.tag + (" SOS" if row.crying else ""), style=style),
            row.truth,
            "" if row.truth == "in school" else f"{row.away_m:.0f} m from the gate",
            Text(believed, style=style),
            "-" if row.accuracy_m is None else f"{row.accuracy_m:.0f} m",
            "-" if row.age_s is None else f"{row.age_s:.0f} s ago",
        )
    if all_ > len(rows):
        table.add_row(f"and {all_ - len(rows)} more")
    return table


def _press(row: PressRow) -> RenderableType:
    text = Text(overflow="fold")
    text.append(f"{row.kind} ", style="bold red")
    text.append(f"{row.who}   ")
    for name, after_s in row.hops:
        if after_s is None:
            text.append(f"{name} ...   ", style="dim")
        else:
            text.append(f"{name} ", style="dim")
            text.append(f"+{after_s:.2f} s   " if after_s < 10 else f"+{after_s:.0f} s   ", style="green")
    if dict(row.hops).get("page") is not None and dict(row.hops).get("acknowledged", 0.0) is None:
        text.append("<- open the page, log in, press Acknowledge", style="bold yellow")
    return text
