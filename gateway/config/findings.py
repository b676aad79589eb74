"""What is wrong with a configuration, and what is worth a look: collected, so that everything is said at once."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.options import HINTS


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. line counts from 1; 0: the fault is not in this file's text."""

    key: str
    line: int
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.key}: {self.text}"


class ConfigError(Exception):
    """The file cannot be used. Permanent until somebody edits it: `problems` tells what, all of it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.path, self.problems = path, tuple(problems)


class Findings:
    """The problems and notes of one file. `lines`: where each key of its text stands, from `toml_lines.key_lines`."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path, self.lines = path, lines
        self.base = path.resolve().parent
        """Every relative path in the file begins there."""
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        """Nothing wrong, but worth a look."""

    def say(self, key: str, text: str) -> None:
        """Note one problem at the line of the key, or of the nearest thing round it, with what would be right."""
        place = key
        while place and place not in self.lines:
            place = re.sub(r"(\[\d+\]|\.?[^.\[\]]*)\Z", "", place)
        hint = HINTS.get(re.sub(r"\[\d+\]", "", key))
        seen = "".join(c if c.isprintable() else "?" for c in key[:100])
        self.problems.append(Problem(seen, self.lines.get(place, 1), text + (f"; right is {hint}" if hint else "")))

    def stop_if_wrong(self) -> None:
        """Raise ConfigError with every problem, if there is one."""
        if self.problems:
            raise ConfigError(self.path, self.problems)


def short(value: Any) -> str:
    """Return a value as a complaint shows it: printable, at most 60 characters."""
    text = repr(value)
    return "".join(c if c.isprintable() else "?" for c in (text if len(text) <= 60 else text[:57] + "..."))
