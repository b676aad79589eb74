"""What lies beside a lane's file: a ballast for the full disk, and a mark that knows an old copy of the file.

SQLite needs room even to DELETE, so a full disk would keep an outbox from emptying itself. The ballast is that room.
The mark is the epoch and the last seq: a file that knows less than its mark was put back from an earlier time.
"""

import contextlib
import json
import os
from pathlib import Path

ROOM_FACTOR = 4
"""The ballast comes back when the disk has this many times its size free."""


class Ballast:
    """A file of a certain size that is given up when the disk is full."""

    def __init__(self, path: Path, size_b: int) -> None:
        self.path, self.size_b = path, size_b

    def release(self) -> bool:
        """Give the room free; False if there was none to give."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def restore(self) -> None:
        """Take the room again, if the disk has plenty."""
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
    """Epoch and last seq of a lane's file, in a file of its own. It may lag behind, and never runs ahead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: tuple[str, int] = ("", 0)

    def read(self) -> tuple[str, int] | None:
        """Return (epoch, seq); None if there is no mark that can be read."""
        try:
            mark = json.loads(self.path.read_text("utf-8"))
            return str(mark["epoch"]), int(mark["seq"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, epoch: str, seq: int) -> None:
        """Write it if it changed; a disk that does not take it leaves the old one."""
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
        """Take the mark away: its file is about to be replaced. Raises OSError."""
        self.path.unlink(missing_ok=True)
        self._written = ("", 0)
