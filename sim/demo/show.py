"""What a person at the terminal sees of a run: a live picture, or plain lines where nothing can move.

The picture fits the terminal, whatever its size. What matters most is never left out, in this order: address, name and
passcode; the calls that wait, with what to do next; the newest lines; then as many children as fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO, Literal, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sim.demo.lamp import Sight
from sim.demo.processes import StartError

Tone = Literal["info", "good", "alarm", "warning"]
LINES_KEPT = 200
LINES_MIN, LINES_SHOWN = 6, 12
"""So many lines are drawn before the first child is; and so many before the last child is."""
CHILDREN_MIN, ANSWERED_SHOWN = 3, 3
WIDE, HIGH, LEFT_MIN = 120, 20, 66
"""From this width and height on, the children stand beside the lines, which keep so many columns at least."""
REFRESH_PER_S, PAINT_MIN_S = 4, 0.05
LAG_MS = 250
"""A simulator that is behind by more than this says so: the times shown are less exact."""
GAP, STAMP_WIDE = 3, 60
_ENTER, _LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?1049l\x1b[?25h"
"""The picture's own screen, without a cursor."""
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
_COLUMNS = ("tag", "where it is", "from the gate", "the city says", "within", "seen")
_DROPPED = (4, 5, 2, 1, 3)
"""Columns of children that give way in a narrow terminal, the least important first."""
_WRAPPER = Console(file=io.StringIO())

Drawn = list[Text]


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

    @property
    def waits(self) -> bool:
        """Whether nobody has acknowledged it yet."""
        return dict(self.hops).get("acknowledged", 0.0) is None


@dataclass(frozen=True, slots=True)
class Said:
    """A line, said so many seconds after the begin."""

    at_s: float
    text: str
    tone: Tone = "info"


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown at one moment. seconds None: no end is planned. folder: where the run's files are."""

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
    folder: str = ""


class _Output(Console):
    """A console whose reader may go: rich itself would end the process with code 1, which is an answer of ours."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def in_background(file: IO[str]) -> bool:
    """Return whether another program has this terminal now: a picture would cover it, and no Ctrl-C reaches us."""
    with contextlib.suppress(OSError, ValueError):
        return os.tcgetpgrp(file.fileno()) != os.getpgrp()
    return False


class Show:
    """The terminal. `say` adds a line. `start` begins the live picture; its function returns a `View` when called.

    A pipe, TERM=dumb, no TERM and a start in the background get plain lines, each written out at once. A pipe is never
    given the passcode.
    The picture is drawn by the running event loop, so nothing changes while it is looked at.
    """

    def __init__(self, file: TextIO | None = None, *, live: bool | None = None, quiet: bool = False) -> None:
        file = file or sys.stdout or open(os.devnull, "w")  # noqa: SIM115  None: it was closed before we began
        if isinstance(file, io.TextIOWrapper):
            file.reconfigure(errors="replace")  # a terminal that lacks a letter ends no run
        self._watched = file.isatty()
        moves = self._watched and os.environ.get("TERM", "") not in ("", "dumb") and not in_background(file)
        self._console = _Output(file=file, highlight=False, force_terminal=None if moves else False)
        self._live_wanted = moves if live is None else live
        self._quiet = quiet
        self._lines: deque[Said] = deque(maxlen=LINES_KEPT)
        self._began = time.monotonic()
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._painted_at = 0.0
        self._view: Callable[[], View] | None = None
        self._login_told = False
        self._left = False
        """Whether Ctrl-Z has given the terminal its own screen back."""

    def start(self, view: Callable[[], View]) -> None:
        self._view = view
        if self._live_wanted and not self._quiet:
            self._live = Live(
                console=self._console,
                get_renderable=self._picture,
                auto_refresh=False,
                screen=True,  # a screen of its own: after a resize it is drawn anew, whole
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGTSTP, self._suspend)
            self._paint_soon()

    def stop(self) -> None:
        """End the live picture. The lines, what became of each press, and the run's folder stay on the screen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._live is not None:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._live.stop()
            self._live = None
            view = self._view() if self._view is not None else View("", "", "", 0.0, None)
            width = self._console.width
            for said in self._lines:
                self._print(said)
            for row in view.presses[-ANSWERED_SHOWN:]:
                for line in _answer(row, width, whole=True):
                    self._console.print(line, soft_wrap=True)
            if view.folder:
                self._console.print(Text.assemble(("files of this run: ", "dim"), view.folder), soft_wrap=True)

    def say(self, text: str, kind: Tone = "info") -> None:
        """Add a line."""
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        said = Said(time.monotonic() - self._began, text, kind)
        self._lines.append(said)
        if self._live is not None:
            if time.monotonic() - self._painted_at >= PAINT_MIN_S:
                self._paint()
            self._paint_soon()
        elif not self._quiet:
            self._print(said)
            self._tell_login()

    def _print(self, said: Said) -> None:
        """Write a line out at once: whoever reads a pipe sees it when it is said."""
        try:
            self._console.print(Text(f"{_stamp(said, STAMP_WIDE)}{said.text}", style=_STYLE[said.tone]), soft_wrap=True)
            self._console.file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StartError(f"cannot write what is said here: {error.strerror}") from error

    def _tell_login(self) -> None:
        """Say once where to log in, on a terminal where nothing moves: nobody else reads it."""
        if self._watched and not self._live_wanted and not self._login_told and self._view is not None:
            view = self._view()
            if view.passcode:
                self._login_told = True
                self.say(f"page {view.address}  name {view.operator}  passcode {view.passcode}", "good")

    def _paint_soon(self) -> None:
        if self._live is not None and self._timer is None:
            with contextlib.suppress(RuntimeError):  # no loop runs yet: the next line tries again
                self._timer = asyncio.get_running_loop().call_later(1 / REFRESH_PER_S, self._paint_again)

    def _paint_again(self) -> None:
        self._timer = None
        try:
            self._paint()
        finally:
            self._paint_soon()

    def _paint(self) -> None:
        if self._live is not None:
            if self._watched and not self._console.file.isatty():
                # rich would draw nothing, and the run would go on where nobody sees it
                raise BrokenPipeError
            if in_background(self._console.file):
                return
            if self._left:
                self._left = False
                os.write(self._console.file.fileno(), _ENTER)
            self._painted_at = time.monotonic()
            self._live.refresh()

    def _suspend(self, *_: object) -> None:
        """Stop, as Ctrl-Z asks, on the terminal's own screen; `fg` brings the picture back, `bg` does not."""
        self._left = True
        os.write(self._console.file.fileno(), _LEAVE)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)

    def _picture(self) -> Group:
        view = self._view() if self._view is not None else View("", "", "", 0.0, None)
        width, height = self._console.size
        return Group(*picture(view, self._lines, width, height))


def picture(view: View, said: Sequence[Said], width: int, height: int) -> Drawn:
    """Return the lines of the picture: at most `height`, each at most `width` columns wide.

    From 30 columns and 8 lines on, address, name, passcode, the press that has waited longest and the newest line are
    there wholly, if together they fit. In a smaller terminal the newest line gives way first, then the presses.
    """
    lines, side, left = list(said), Drawn(), width
    if width >= WIDE and height >= HIGH and view.children:
        side = _children(view.children, width - LEFT_MIN - GAP, height)
        left = width - GAP - max(line.cell_len for line in side)
    page = _page(view, width)[:height]
    room = height - len(page)
    lamps = _if_fits(_lamps(view, width), room - _least(view, lines, left, room, 1))
    room -= len(lamps)
    story = _if_fits(_story(view, width), room - _least(view, lines, left, room, LINES_MIN))
    room -= len(story)
    rules = [_rule(width, "Ansim: a simulated school zone"), _rule(width)] if height >= HIGH else []
    room -= len(rules)
    body = _body(view, lines, left, room, children=not side)
    if side:
        body = _joined(body, _children(view.children, width - LEFT_MIN - GAP, room), left)
    return [*rules[:1], *page, *story, *lamps, *rules[1:], *body]


# ---- inside ----------------------------------------------------------------------------------------------------------


def _least(view: View, said: list[Said], width: int, room: int, most: int) -> int:
    """Return how many lines must stand below the head: the calls, and of the newest lines `most` or so."""
    calls = _calls(view, said, width, room)
    return len(calls) + len(_log(said, width, room - len(calls), most))


def _body(view: View, said: list[Said], width: int, room: int, *, children: bool) -> Drawn:
    """Return all that stands below the head: first comes what must, then each part as far as there is room for it."""
    waiting = [row for row in view.presses if row.waits]
    answered = [row for row in view.presses if not row.waits][-ANSWERED_SHOWN:]
    calls = _calls(view, said, width, room)
    room -= len(calls)
    log = _log(said, width, room, LINES_MIN)
    room -= len(log)
    past = _if_fits([line for row in answered for line in _answer(row, width)], room)
    room -= len(past)
    long = [line for row in waiting for line in [*_call(row, width), *_hops(row, width)]]
    if len(long) - len(calls) <= room:
        room -= len(long) - len(calls)
        calls = long
    table = min(len(view.children) + 1, CHILDREN_MIN + 2) if children and view.children else 0
    whole = [line for row in answered for line in _answer(row, width, whole=True)]
    if len(whole) - len(past) <= room - table:
        room -= len(whole) - len(past)
        past = whole
    kids = _children(view.children, width, min(room, CHILDREN_MIN + 2)) if children else []
    room += len(log)
    log = _log(said, width, room - len(kids), LINES_SHOWN)
    kids = _children(view.children, width, room - len(log)) if children else []
    return [*calls, *past, *kids, *_log(said, width, room - len(kids), room)]


def _calls(view: View, said: list[Said], width: int, room: int) -> Drawn:
    """Return what to do next for each press that waits. The one that waits longest comes before the newest line."""
    blocks = [_call(row, width) for row in view.presses if row.waits]
    first = len(blocks[0]) + (len(blocks) > 1) if blocks else 0
    for_calls = max(room - len(_log(said, width, room, 1)), first)
    return _some(blocks, for_calls, "and {} more wait", "bold yellow")[: max(room, 0)]


def _if_fits(lines: Drawn, room: int) -> Drawn:
    return lines if len(lines) <= room else []


def _some(blocks: Sequence[Drawn], room: int, more: str, style: str = "") -> Drawn:
    """Return the lines of as many whole blocks as fit. If not all do, the last line counts the others."""
    taken: Drawn = []
    for number, block in enumerate(blocks):
        others = len(blocks) - number - 1
        if len(taken) + len(block) + (others > 0) > room:
            if len(taken) < room:
                taken.append(Text(more.format(len(blocks) - number), style=style))
            break
        taken += block
    return taken


def _wrapped(text: Text, width: int, indent: int = 0) -> Drawn:
    """Return the text in lines of this width, the second and later ones indented. No letter is left out."""
    indent = indent if width >= 3 * indent else 0
    lines = list(text.wrap(_WRAPPER, max(width - indent, 2), overflow="fold"))
    return [line if not n else Text(" " * indent).append_text(line) for n, line in enumerate(lines)]


def _flow(chunks: Sequence[Text], width: int, hang: int = 0) -> Drawn:
    """Return the chunks side by side, in as many lines as needed, the second and later ones indented by `hang`.

    A chunk is broken only if it is wider than a line.
    """
    lines: Drawn = []
    for chunk in chunks:
        if lines and lines[-1].cell_len + GAP + chunk.cell_len <= width:
            lines[-1].append(" " * GAP).append_text(chunk)
        elif lines:
            lines += [Text(" " * hang).append_text(line) for line in _wrapped(chunk, width - hang)]
        else:
            lines += [Text().append_text(line) for line in _wrapped(chunk, width)]
    return lines


def _joined(left: Drawn, right: Drawn, width: int) -> Drawn:
    """Return two columns side by side, the left one this wide."""
    rows = max(len(left), len(right))
    pairs = zip(left + [Text()] * (rows - len(left)), right + [Text()] * (rows - len(right)), strict=True)
    return [Text.assemble(one, " " * (width + GAP - one.cell_len), other) for one, other in pairs]


def _rule(width: int, title: str = "") -> Text:
    text = Text.assemble(("\u2500\u2500 ", "blue"), (title, "bold"), " ") if 0 < len(title) < width - 3 else Text()
    return text.append("\u2500" * (width - text.cell_len), style="blue")


def _page(view: View, width: int) -> Drawn:
    chunks = [Text.assemble(("page ", "dim"), (view.address or "starting ...", "bold cyan"))]
    if view.passcode:
        chunks.append(Text.assemble(("name ", "dim"), (view.operator, "bold")))
        chunks.append(Text.assemble(("passcode ", "dim"), (view.passcode, "bold")))
    return _flow(chunks, width)


def _story(view: View, width: int) -> Drawn:
    planned = f" of {view.seconds:.0f} s" if view.seconds else " s"
    chunks = [Text.assemble(("story ", "dim"), f"{view.story_s:.0f}{planned}")]
    if not view.seconds:
        chunks.append(Text("Ctrl-C ends it", style="dim"))
    if view.readers:
        down = [number for number, alive in view.readers if not alive]
        chunks.append(Text.assemble(("readers ", "dim"), f"{len(view.readers) - len(down)} of {len(view.readers)}"))
        if down:
            chunks.append(Text(f"without power or network: {_ranges(down)}", style="bold red"))
    if (lag_ms := view.counts.get("lag_ms", 0)) > LAG_MS:
        chunks.append(Text(f"slow: up to {lag_ms / 1000:.1f} s behind", style="yellow"))
    if view.counts and width >= WIDE:
        heard, beacons, up_b = (view.counts.get(name, 0) for name in ("heard", "beacons", "bytes_up"))
        chunks.append(Text.assemble(("heard ", "dim"), f"{heard} packets of {beacons} beacons"))
        chunks.append(Text.assemble(("mesh ", "dim"), f"{up_b} bytes"))
    return _flow(chunks, width)


def _lamps(view: View, width: int) -> Drawn:
    chunks = []
    for sight, (word, style) in _LAMP.items():
        if shining := [number for number, seen in view.lamps.items() if seen == sight]:
            chunks.append(Text(f"{word}: {_ranges(shining)}", style=style))
    if not chunks:
        return []
    chunks[0] = Text.assemble(("lamps ", "dim"), chunks[0])
    return _flow(chunks, width)


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as 1-4 6 9: three and more in a row are one range."""
    words: list[str] = []
    for _, group in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        words += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return " ".join(words)


def _call(row: PressRow, width: int) -> Drawn:
    """Return what to do next for a press that waits."""
    text = Text.assemble((f"{row.kind} {row.who}: ", "bold red"))
    if dict(row.hops).get("page") is None:
        return _wrapped(text.append("on its way to the page", style="yellow"), width)
    return _wrapped(text.append("open the page, log in, press Acknowledge", style="bold yellow"), width)


def _answer(row: PressRow, width: int, *, whole: bool = False) -> Drawn:
    """Return what became of a press: how far it is, or `whole` the time of each hop."""
    chunks = _chunks(row)
    if not whole:
        reached = sum(after_s is not None for _, after_s in row.hops)
        chunks = chunks[max(reached - 1, 0) : reached + 1]
    return _flow([Text(f"{row.kind} {row.who}", style="bold red" if row.waits else "bold green"), *chunks], width, 2)


def _hops(row: PressRow, width: int) -> Drawn:
    return [Text("  ").append_text(line) for line in _flow(_chunks(row), width - 2)]


def _chunks(row: PressRow) -> Drawn:
    """Return the hops of a press, each with its time if it has been reached."""
    chunks = []
    for name, after_s in row.hops:
        if after_s is None:
            chunks.append(Text(f"{name} ...", style="dim"))
        else:
            after = f"+{after_s:.2f} s" if after_s < 10 else f"+{after_s:.0f} s"
            chunks.append(Text.assemble((f"{name} ", "dim"), (after, "green")))
    return chunks


def _stamp(said: Said, width: int) -> str:
    return f"{said.at_s:7.1f} s  " if width >= STAMP_WIDE else f"{said.at_s:.0f} s "


def _log(said: list[Said], width: int, room: int, most: int) -> Drawn:
    """Return the newest lines, each wholly, in `most` lines of the screen; of the newest one the begin at least."""
    lines: Drawn = []
    for entry in reversed(said):
        stamp = _stamp(entry, width)
        block = _wrapped(Text.assemble((stamp, "dim"), (entry.text, _STYLE[entry.tone])), width, len(stamp))
        if lines and len(lines) + len(block) > min(room, most):
            break
        lines = block + lines
    return lines[: max(room, 0)]


def _children(children: Sequence[ChildRow], width: int, room: int) -> Drawn:
    """Return the table of children in at most this many lines; who presses comes first if not all fit."""
    if not children or room < 2 or (room < 3 and len(children) > 1):
        return []
    rows = list(children)
    if len(rows) + 1 > room:
        rows.sort(key=lambda row: not row.crying)
    cells = [[Text(name, style="dim") for name in _COLUMNS], *(_cells(row) for row in rows[:room])]
    widths = [max(row[n].cell_len for row in cells) for n in range(len(_COLUMNS))]
    shown = list(range(len(_COLUMNS)))
    for column in _DROPPED:
        if sum(widths[n] + 2 for n in shown) - 2 > width:
            shown.remove(column)
    blocks = []
    for row in cells:
        text = Text()
        for n in shown:
            text.append_text(row[n]).append(" " * (widths[n] - row[n].cell_len + 2))
        text.rstrip()
        blocks.append(_wrapped(text, width))
    blocks += [[Text()]] * (len(rows) - len(cells) + 1)  # those beyond the room are only counted
    return _some(blocks, room, "and {} more", "dim")


def _cells(row: ChildRow) -> Drawn:
    style = "bold red" if row.crying else "green" if row.arrived else ""
    return [
        Text(row.tag + (" SOS" if row.crying else ""), style=style),
        Text(row.truth),
        Text("" if row.truth == "in school" else f"{row.away_m:.0f} m"),
        Text("arrived" if row.arrived else _STATE.get(row.state or "", "-"), style=style),
        Text("-" if row.accuracy_m is None else f"{row.accuracy_m:.0f} m"),
        Text("-" if row.age_s is None else f"{row.age_s:.0f} s ago"),
    ]
