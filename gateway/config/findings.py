"""Collects what is wrong with a configuration and what may need attention, to report everything at once."""

import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.options import HINTS


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. line: counted from 1; 0: the fault is not in the text of the file."""

    key: str
    line: int
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.key}: {self.text}"


class ConfigError(Exception):
    """The file cannot be used. Permanent until a person edits it. `problems` holds everything that is wrong."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path, self.problems = path, tuple(problems)


class Findings:
    """The problems and notes of one file. `lines`: the line of each key in its text, from `toml_lines.key_lines`."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path, self.lines = path, lines
        self.base = path.resolve().parent
        """The folder where every relative path in the file starts."""
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        """Not wrong, but may need attention."""

    def say(self, key: str, text: str) -> None:
        """Add one problem, with a hint of what is right, at the line of the key or of the nearest table around it."""
        place = key
        while place and place not in self.lines:
            place = re.sub(r"(\[\d+\]|\.?[^.\[\]]*)\Z", "", place)
        hint = HINTS.get(re.sub(r"\[\d+\]", "", key))
        seen = "".join(c if c.isprintable() else "?" for c in key[:100])
        self.problems.append(Problem(seen, self.lines.get(place, 1), text + (f"; right is {hint}" if hint else "")))

    def stop_if_wrong(self) -> None:
        """Raise ConfigError with every problem, if there is any."""
        if self.problems:
            raise ConfigError(self.path, self.problems)


def short(value: Any) -> str:
    """Return a value as a problem text shows it: printable, at most 60 characters."""
    text = _REPR.repr(value)  # which ends also in brackets of a thousand levels
    return "".join(c if c.isprintable() else "?" for c in (text if len(text) <= 60 else text[:57] + "..."))


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100
