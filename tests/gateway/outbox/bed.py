"""What the outbox tests share: lane files, entries, the health that is reported, and a small disk for a script."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.outbox.lane_file import LaneFile
from gateway.outbox.rows import OTHER, Entry
from tests import programs
from tests.roots import ROOT

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
OPENED: list[LaneFile] = []
"""The lanes that `store` opened in this test; conftest.py closes them."""


class HealthLog:
    """What a lane file or an outbox reported of its health."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bool, str]] = []

    def __call__(self, what: str, ok: bool, detail: str) -> None:
        self.said.append((what, ok, detail))

    def words(self) -> set[str]:
        return {what for what, _, _ in self.said}


def store(
    folder: Path, lane: str = "sos", max_b: int | None = None, ballast_b: int = 1 << 16
) -> tuple[LaneFile, HealthLog]:
    told = HealthLog()
    lane_file = LaneFile(folder, lane, on_health=told, utc_now=lambda: NOW, ballast_b=ballast_b, max_b=max_b)
    OPENED.append(lane_file)
    return lane_file, told


def entries(n: int, kind: int = OTHER, size: int = 40) -> list[Entry]:
    return [Entry(kind, 1000 + i, b"%06d" % i + b"x" * (size - 6)) for i in range(n)]


def small_disk(folder: Path, script: str) -> dict[str, Any]:
    """Run a script in its own namespace, with a disk of 8 MiB at `folder`; return the JSON of its last line."""
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size=8m tmpfs "{folder}" && exec "{sys.executable}" -c "$SCRIPT" "{folder}"'
    probe = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs "{folder}"']
    if programs.find("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip(programs.NO_NAMESPACE)
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mount],
        env={**os.environ, "SCRIPT": script},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]
