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
    """The file cannot be used. Permanent until a person edits it. `problems` holds everything that is wrong.

    Its text has a line for each problem, which begins with FILE:LINE, as editors open it. `notes` are not wrong, but
    may need attention as well. `rest_unread`: the reading ended at the fault, so there may be more of them behind it.
    """

    def __init__(
        self, path: Path, problems: list[Problem], notes: list[str] | None = None, *, rest_unread: bool = False
    ) -> None:
        super().__init__(
            "\n".join(f"{path}{f':{one.line}' if one.line else ''}: {one.key}: {one.text}" for one in problems)
        )
        self.path, self.problems, self.notes = path, tuple(problems), tuple(notes or ())
        self.rest_unread = rest_unread


class Findings:
    """The problems and notes of one file. `lines`: the line of each key in its text, from `toml_lines.key_lines`."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path, self.lines = path, lines
        self.base = path.resolve().parent
        """The folder where every relative path in the file starts."""
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        """Not wrong, but may need attention."""
        self.kept: dict[str, list[int]] = {}
        """Of each list of tables: where its entries stand in the file. Entries with a fault are left out of the lists
        that later checks see, so that one fault is not reported as three."""

    def say(self, key: str, text: str, *, hint: bool = True) -> None:
        """Add one problem at the line of the key or of the nearest table around it.

        hint: whether the text of what is right for this key follows; False where `text` itself says what to do.
        """
        key = self._in_file(key)
        right = HINTS.get(re.sub(r"\[\d+\]", "", key)) if hint else None
        seen = "".join(c if c.isprintable() else "?" for c in key[:100])
        self.problems.append(Problem(seen, self._line(key), text + (f"; right is {right}" if right else "")))

    def line_of(self, key: str) -> int:
        """Return the line of a key, or of the nearest table around it; 1 if there is none."""
        return self._line(self._in_file(key))

    def right(self, *keys: str) -> bool:
        """Return whether nothing is wrong with these keys, with what is below them or with their whole table, as far as
        was looked."""
        return not any(_within(one.key, key) or _within(key, one.key) for one in self.problems for key in keys)

    def stop_if_wrong(self) -> None:
        """Raise ConfigError with every problem, in the order of the file, if there is any."""
        if self.problems:
            raise ConfigError(self.path, sorted(self.problems, key=lambda one: one.line), self.notes)

    def _in_file(self, key: str) -> str:
        found = re.match(r"(\w+)\[(\d+)\]", key)
        if found is None or found[1] not in self.kept:
            return key
        return f"{found[1]}[{self.kept[found[1]][int(found[2])]}]{key[found.end() :]}"

    def _line(self, key: str) -> int:
        while key and key not in self.lines:
            key = re.sub(r"(\[\d+\]|\.?[^.\[\]]*)\Z", "", key)
        return self.lines.get(key, 1)


def _within(key: str, table: str) -> bool:
    return key.startswith(table) and key[len(table) : len(table) + 1] in ("", ".", "[")


def short(value: Any) -> str:
    """Return a value as a problem text shows it: printable, at most 60 characters."""
    text = _REPR.repr(value)  # which ends also in brackets of a thousand levels
    return "".join(c if c.isprintable() else "?" for c in (text if len(text) <= 60 else text[:57] + "..."))


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100
