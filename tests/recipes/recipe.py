"""A recipe adds one thing of a kind in a copy of the checkout, by the files that its row of CONTRIBUTING.md names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.roots import ROOT


@dataclass(frozen=True)
class Edit:
    """In this file the text `old`, which stands there once, becomes `new`. Without `old` the file is new."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Recipe:
    """Adds something. what: the first cell of its row. works: raises unless the new thing does what it is for.

    name: what NAME in the row stands for. checks: the tests of this repository that hold such a thing.
    """

    what: str
    edits: tuple[Edit, ...]
    works: Callable[[Path], None]
    """It is given an empty folder, and runs in the copy."""
    checks: tuple[str, ...]
    name: str = ""

    def files(self) -> list[str]:
        """Return the files that it touches, each once, in their order."""
        return list(dict.fromkeys(edit.path for edit in self.edits))


def apply(edits: Sequence[Edit], copy: Path) -> None:
    """Make the changes in a copy. Raises AssertionError if a text to change is not there exactly once."""
    for edit in edits:
        path = copy / edit.path
        if not edit.old:
            assert not path.exists(), f"{edit.path} is there already"
            path.write_text(edit.new, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        assert text.count(edit.old) == 1, f"{edit.path} has {text.count(edit.old)} times: {edit.old}"
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """Return the table of CONTRIBUTING.md: what is added -> the files to touch, in their order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## To add")[2].partition("\n##")[0]
    found = {}
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| what ")):
            what, files, _ = (cell.strip() for cell in line.strip("|").split(" | ", 2))
            found[what] = re.findall(r"`([\w./-]+/[\w.-]+\.\w+)`", files)
    return found
