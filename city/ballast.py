"""A file next to the store that is deleted when the disk is full, so that emergencies can still be written.

SQLite needs disk space for every transaction. The ballast keeps some: with it a full disk stops only the routine lane.
When it is deleted, its space is for emergencies and for what people press (routine rows are refused until it is back).
"""

import contextlib
import os
from pathlib import Path

BALLAST_B = 16 * 1024 * 1024
"""Some 8000 emergencies (540 fitted into 1 MiB). While it is gone, the WAL is folded into the store all the time."""
ROOM_FACTOR = 4
"""It comes back when the free disk space is at least this many times its size."""


class StoreBallast:
    """The file, its size, and whether it is there."""

    def __init__(self, path: Path, size_b: int = BALLAST_B) -> None:
        self.path, self.size_b = path, size_b
        self.there = False

    @property
    def room_b(self) -> int:
        """The free bytes of the disk with which it comes back."""
        return ROOM_FACTOR * self.size_b

    def release(self) -> bool:
        """Delete the file; return False if there was none to delete."""
        self.there = False
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def restore(self) -> bool:
        """Make the file again if the disk has room. Return whether it is there."""
        try:
            if not (self.path.exists() and self.path.stat().st_size == self.size_b):
                disk = os.statvfs(self.path.parent)
                if disk.f_bavail * disk.f_frsize < self.room_b:
                    self.there = False
                    return False
                self._make()
            self.there = True
        except OSError:
            self.there = False
            with contextlib.suppress(OSError):
                self.path.unlink()
        return self.there

    def _make(self) -> None:
        fd = os.open(self.path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.size_b)
            os.fsync(fd)
        finally:
            os.close(fd)
