"""A real disk that can be filled: a small file system in memory, mounted for one test. Only root can mount it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[Path]:
    """Yield a folder on a disk of its own. Skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(programs.NO_MOUNT)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk has no byte left, and return it. Called again, it takes what has become free."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(block)) == block:
                    pass
    assert os.statvfs(folder).f_bavail == 0
    return path
