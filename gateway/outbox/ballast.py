"""The files next to a lane's file: a ballast for a full disk, and a mark that reveals an old copy of the file.

SQLite needs disk space even to DELETE, so a full disk would prevent an outbox from emptying. The ballast reserves that
space. The mark holds the epoch, the last seq and what the city has: a file that knows less than its mark is an old copy
that was put back, or a new file in the place of one that is gone, and the mark says which rows are missing.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

ROOM_FACTOR = 4
"""The ballast is restored when the free disk space is at least this many times its size."""
MARK_B = 128
"""Bytes of a mark: less than a sector, so that a power cut leaves the old one or the new one."""


class Ballast:
    """A file of a fixed size that is deleted when the disk is full."""

    def __init__(self, path: Path, size_b: int) -> None:
        self.path, self.size_b = path, size_b

    def release(self) -> bool:
        """Delete the file to free its space; return False if there was no file to delete."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Create the file again if the disk has enough free space (ROOM_FACTOR)."""
        try:
            if self.path.exists() and self.path.stat().st_size == self.size_b:
                return
            disk = os.statvfs(self.path.parent)
            if disk.f_bavail * disk.f_frsize < ROOM_FACTOR * self.size_b:
                return
            fd = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(fd, 0, self.size_b)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()


class Marked(NamedTuple):
    """What a mark says: the epoch of the file, the last seq in it, and up to which seq the city had its rows."""

    epoch: str
    seq: int
    upto: int


class Mark:
    """`Marked` of a lane's file, in a separate file. It may be behind that file, never ahead of it.

    It is one sector, written in place after each commit, without a sync: after a kill it is exact, after a power cut a
    few seconds old. `sync` makes it durable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: Marked | None = None
        self._synced: Marked | None = None

    def read(self) -> Marked | None:
        """Return what the mark says; None if there is no readable mark."""
        try:
            mark = json.loads(self.path.read_bytes()[: 8 * MARK_B])
            epoch, seq, upto = mark["epoch"], mark["seq"], mark["upto"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not (isinstance(epoch, str) and type(seq) is type(upto) is int and 0 <= upto <= seq):
            return None
        return Marked(epoch, seq, upto)

    def write(self, marked: Marked, *, sync: bool = False) -> None:
        """Write the mark if it changed; sync: also if the file is another one now. If it cannot, the old mark stays."""
        if not sync and self._written == marked:
            return
        if sync and self._synced == marked and self.read() == marked:
            return
        line = json.dumps(marked._asdict()).encode().ljust(MARK_B - 1) + b"\n"
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, line, 0)
                if sync:
                    os.ftruncate(fd, MARK_B)
                    os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            return
        self._written = marked
        if sync:
            self._synced = marked

    def forget(self) -> None:
        """Delete the mark, because its lane's file is about to be replaced. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self._written = self._synced = None
