"""Python 3.13 warns of a connection to SQLite that was dropped and not closed. This warns on each Python, and says who
opened it. Warnings are errors in tests, so a store that forgets a connection fails here first, not on the next Python.
"""

import sqlite3
import sqlite3.dbapi2
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.roots import ROOT

CALLERS_MAX = 4


class Watched(sqlite3.Connection):
    """A connection that knows who opened it."""

    opened_by = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.opened_by = _callers()

    def __del__(self) -> None:
        if self.opened_by and _is_open(self):
            warnings.warn(f"unclosed database, opened by {self.opened_by}", ResourceWarning, stacklevel=1, source=self)


def watch() -> None:
    """From now on, each connection of this process is a `Watched`, unless its caller names another class."""
    connect = sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **{"factory": Watched, **options})

    # SQLAlchemy looks for it in the inner module.
    sqlite3.connect = sqlite3.dbapi2.connect = watched  # type: ignore[assignment]


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False


def _callers() -> str:
    """Return the nearest places in our own files from which this was called, the nearest first."""
    found: list[str] = []
    frame = sys._getframe(2)
    while frame is not None and len(found) < CALLERS_MAX:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__) and path.is_relative_to(ROOT) and ".venv" not in path.parts:
            found.append(f"{path.relative_to(ROOT)}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found) or "a library"
