"""The files next to a lane's file: a ballast for a full disk, and a mark that reveals an old copy of the file.

SQLite needs disk space even to DELETE, so a full disk would prevent an outbox from emptying. The ballast reserves that
space. The mark holds the epoch and the last seq: a file that knows less than its mark is an old copy that was put back.
"""

import contextlib
import json
import os
from pathlib import Path

ROOM_FACTOR = 4
"""The ballast is restored when the free disk space is at least this many times its size."""


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


class Mark:
    """Epoch and last seq of a lane's file, in a separate file. It may be behind that file, never ahead of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: tuple[str, int] = ("", 0)

    def read(self) -> tuple[str, int] | None:
        """Return (epoch, seq); None if there is no readable mark."""
        try:
            mark = json.loads(self.path.read_text("utf-8"))
            return str(mark["epoch"]), int(mark["seq"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, epoch: str, seq: int) -> None:
        """Write the mark if it changed; if the disk cannot be written, the old mark stays."""
        if self._written == (epoch, seq):
            return
        fresh = self.path.with_suffix(".mark.new")
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump({"epoch": epoch, "seq": seq}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
            self._written = (epoch, seq)
        except OSError:
            pass

    def forget(self) -> None:
        """Delete the mark, because its lane's file is about to be replaced. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self._written = ("", 0)
