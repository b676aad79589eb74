"""Whether the files of an open database are still at their paths, and no shorter than we left them.

SQLite keeps its files open. If one is unlinked, replaced or cut under a running gateway, commits go on without an error
into a file that no restart will find. Three calls of `stat` show it, so it is asked before and after each commit.
"""

import os
from pathlib import Path

ENDS = ("", "-wal", "-shm")
"""The database, its log, and the log's index."""


class OpenFiles:
    """The three files of one open database. An answer names each file by its ending in ENDS."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._paths = {end: f"{path}{end}" for end in ENDS}
        self._left: dict[str, tuple[int, int, int]] = {}
        """(device, inode, size) of each file as we left it."""

    def opened(self) -> None:
        """Remember the files of a database that was just opened. Raises OSError if one is not there."""
        self._left = {end: _identity(path) for end, path in self._paths.items()}

    def worked(self) -> None:
        """Remember the present sizes after our own work. A file that is another one now is not taken for ours."""
        for end, (device, inode, _) in self._left.items():
            try:
                now = _identity(self._paths[end])
            except OSError:
                continue
            if now[:2] == (device, inode):
                self._left[end] = now

    def lost(self) -> dict[str, str]:
        """Return what became of each file that is no longer as we left it: {ending: "removed"}; {} if all is well."""
        found = {}
        for end, left in self._left.items():
            try:
                now = _identity(self._paths[end])
            except OSError:
                found[end] = "removed"
                continue
            if now[:2] != left[:2]:
                found[end] = "replaced"
            elif now[2] < left[2] and end != "-shm":
                found[end] = "cut short"
        return found


def _identity(path: str) -> tuple[int, int, int]:
    now = os.stat(path)
    return now.st_dev, now.st_ino, now.st_size
