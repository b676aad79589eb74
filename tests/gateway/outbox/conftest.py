"""What each test of the outbox ends with: its lanes are closed, and then no file of its folder is open."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.outbox import bed


def open_files(folder: Path) -> list[str]:
    """Return the files of a folder, deleted ones too, that this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue  # the descriptor of the listing itself
        if path.startswith(f"{folder}/"):
            found.append(path)
    return sorted(found)


@pytest.fixture(autouse=True)
def closed_lanes_leave_no_file_open(tmp_path: Path) -> Iterator[None]:
    """A lane that went through any fault, and a box that lives for years, must not lose a descriptor by it.

    A test may leave a lane without closing it, as a killed gateway does: it is closed here. Nothing is collected before
    the count, so a connection that was dropped and not closed counts.
    """
    gc.disable()
    try:
        yield
        for lane in bed.OPENED:
            lane.close()
        bed.OPENED.clear()
        assert open_files(tmp_path) == []
    finally:
        bed.OPENED.clear()
        gc.enable()
