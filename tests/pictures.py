"""The pictures of the terminal in docs/pictures, at three widths: `python -m tests.pictures` makes them anew.

A real run is made, with a program that presses Acknowledge. Two seconds after a bell has reached the page, what the
terminal shows then is drawn in each width. It takes about two minutes.
"""

import asyncio
import io
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from sim.demo.run import Demo, Options
from sim.demo.show import Said, Show, Tone, View, picture
from sim.ending import Ending
from tests.roots import ROOT

FOLDER = ROOT / "docs" / "pictures"
SIZES = ((40, 24), (80, 24), (160, 36))
SNAP_AFTER_S = 1.5
HOME = "~/ansim"
"""What stands in the pictures for the folder of this run."""
THEME = TerminalTheme(
    (24, 28, 36),
    (214, 220, 228),
    [(24, 28, 36), (229, 83, 83), (98, 209, 150), (240, 196, 92), (108, 164, 255), (196, 142, 240), (110, 200, 210),
     (214, 220, 228)],
)  # fmt: skip


class Recorder(Show):
    """A terminal that nobody sees. It keeps what is shown while a bell waits for somebody, and then ends the run."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(io.StringIO(), live=False)
        self._ending = ending
        self.kept: tuple[View, list[Said]] | None = None
        self._look: Callable[[], View] | None = None

    def start(self, view: Callable[[], View]) -> None:
        self._look = view
        super().start(view)

    def say(self, text: str, kind: Tone = "info") -> None:
        super().say(text, kind)
        print(text, flush=True)
        if re.match(r"page: incident \d+, bell of", text) and self.kept is None:
            asyncio.get_running_loop().call_later(SNAP_AFTER_S, self._keep)

    def _keep(self) -> None:
        if self._look is not None and self._ending.ask is not None:
            self.kept = (self._look(), list(self._lines))
            self._ending.name = "the end of the picture"
            self._ending.ask()


def recorded() -> tuple[View, list[Said]]:
    """Return what a real run showed, without a path of this machine."""
    ending = Ending()
    shown = Recorder(ending)
    with tempfile.TemporaryDirectory() as runs:
        asyncio.run(Demo(Options(auto_acknowledge=True, runs=Path(runs)), shown, ending).run())
    assert shown.kept is not None, "no bell reached the page"
    view, said = shown.kept
    home = str(Path(view.folder).parent)
    return (
        replace(view, folder=view.folder.replace(home, HOME)),
        [replace(each, text=each.text.replace(home, HOME)) for each in said],
    )


def svg(view: View, said: list[Said], columns: int, rows: int) -> str:
    """Return the picture as SVG. It names no host: the reader's own monospaced letters are used."""
    console = Console(file=io.StringIO(), width=columns, record=True, force_terminal=True, color_system="truecolor")
    for line in picture(view, said, columns, rows):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    frame = re.sub(r"\s*@font-face \{\{.*?\}\}\n", "\n", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    frame = re.sub(r"\s*<!--.*?-->", "", frame).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
    )
    text = console.export_svg(title="make demo", theme=THEME, code_format=frame, unique_id=f"terminal-{columns}")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def main() -> None:
    view, said = recorded()
    for columns, rows in SIZES:
        path = FOLDER / f"terminal-{columns}.svg"
        path.write_text(svg(view, said, columns, rows), encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
