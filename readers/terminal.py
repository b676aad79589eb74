"""What the four commands do alike at a terminal: exit codes, --version, colours, and the bar of a long work."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from importlib import metadata
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from typer.core import TyperArgument, TyperOption

# Typer shows the Python type of an argument or a flag, too, such as <path> and <bool>, and has no setting against it.
TyperArgument.display_type_rich = lambda self, ctx: None  # type: ignore[method-assign]
TyperOption.display_type_rich = lambda self, ctx: self.metavar  # type: ignore[method-assign]


class Exit(IntEnum):
    """The exit codes of every command: the same number always means the same thing."""

    DONE = 0
    NO = 1
    """It was looked at, and the answer is no: what is wrong is listed."""
    USAGE = 2
    """An option or an argument is wrong. Nothing was done."""
    DEVICE = 3
    """The serial port or the stick is not there, or cannot be opened."""
    REFUSED = 4
    """The device is silent, was lost on the way, or refuses."""
    TAKEN = 5
    """Somebody else has the folder, the store or the port."""
    FAULT = 6
    """The machine or the program failed. A service manager starts it again."""
    ENDED = 130
    """Ended by Ctrl-C or by a signal, and everything started was ended with it."""


MEANS = {
    Exit.DONE: "done",
    Exit.NO: "the answer is no, and what is wrong is listed",
    Exit.USAGE: "wrong option or argument",
    Exit.DEVICE: "no serial port or stick",
    Exit.REFUSED: "the device is silent, lost or refuses",
    Exit.TAKEN: "somebody else has the folder, store or port",
    Exit.FAULT: "the machine or the program failed",
    Exit.ENDED: "ended by Ctrl-C or a signal",
}
Hue = Literal["plain", "good", "bad", "warning", "faint"]
_COLOURS = {"good": typer.colors.GREEN, "bad": typer.colors.RED, "warning": typer.colors.YELLOW}
DISTRIBUTIONS = ("ansim", "ansim-gateway", "ansim-city", "ansim-reader", "ansim-sim")
"""By these names the product may be installed: whole from a checkout, or one role on a box."""


def exits(*codes: Exit) -> str:
    """Return the last line of a command's help. DONE and USAGE need not be named: every command has them."""
    told = sorted({Exit.DONE, Exit.USAGE, *codes})
    return "Exit codes: " + "; ".join(f"{code.value} {MEANS[code]}" for code in told) + "."


def fail(text: str, code: Exit) -> NoReturn:
    """Print what is wrong, where, and the next step on standard error, and end the command with this code."""
    say(text, "bad", err=True)
    raise typer.Exit(int(code))


def say(text: str, hue: Hue = "plain", *, err: bool = False) -> None:
    """Print a line, coloured by its hue on a terminal only. NO_COLOR and TERM=dumb are respected."""
    file = sys.stderr if err else sys.stdout
    if hue == "plain" or not coloured(file.isatty()):
        typer.echo(text, file=file)  # named, so that a bar which runs draws itself below
    else:
        typer.secho(text, file=file, fg=_COLOURS.get(hue), dim=hue == "faint")


def coloured(is_terminal: bool) -> bool:
    """Return whether an output may have colours and moving parts."""
    return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def progress(what: str, total: float, *, in_bytes: bool = False) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error while something long goes on; in a pipe and in a dumb terminal nothing is shown.

    Yields a function that takes how much of `total` is done by now, in the same unit. in_bytes: both are also shown.
    """
    if not coloured(sys.stderr.isatty()):
        yield lambda done: None
        return
    # Lines said while the bar runs go above it in a terminal, and to a file as ever where stdout is one.
    through = sys.stdout.isatty()
    amount: ProgressColumn = DownloadColumn() if in_bytes else TextColumn("{task.percentage:3.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), amount)
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, redirect_stdout=through
    ) as bar:
        task = bar.add_task(what, total=max(total, 1e-9))
        yield lambda done: bar.update(task, completed=done)


def version() -> str:
    """Return the version of what is installed, or "unknown" where only a folder of sources is run."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ansim {version()} (Python {platform.python_version()})")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and end.")
]
"""The type of an option that each application's callback takes: `def main(version: Version = False)`."""
