"""A broken lane file is set aside, and everything in it that can be read is saved."""

import contextlib
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.effects import AlarmMemory
from gateway.outbox.rows import OTHER
from tests.gateway.outbox.bed import entries, store
from tests.roots import ROOT


@pytest.mark.parametrize("seed", range(12))
def test_a_corrupt_file_is_set_aside_and_what_can_be_read_is_saved(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    kept, _ = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(2000, OTHER, 200))
    epoch = kept.epoch
    kept.close()
    path = tmp_path / "events.db"
    data = bytearray(path.read_bytes())
    for _ in range(3):  # random bytes in whole pages, as a worn flash returns them
        at = chance.randrange(2, len(data) // 4096) * 4096
        data[at : at + 4096] = chance.randbytes(4096)
    path.write_bytes(data)
    again, told = store(tmp_path, "events", max_b=10**9)
    if not told.said:  # the damage hit free pages
        assert (again.backlog, again.epoch) == (2000, epoch)
        return
    assert "store_corrupt" in told.words()
    assert again.epoch != epoch
    assert 0 < again.backlog <= 2000
    assert again.counters["salvaged"] == again.backlog
    assert list(tmp_path.glob("events-*.db")), "the broken file is kept for whoever looks at it"
    first = again.read(0, 1, 10**6).rows[0]
    assert first.seq == 1
    assert again.commit(entries(1)) == [again.backlog]


def test_a_file_of_rubbish_costs_its_rows_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sos.db").write_bytes(b"this is no database" * 1000)
    kept, told = store(tmp_path)
    assert "store_corrupt" in told.words()
    assert kept.commit(entries(1)) == [1]


def test_corruption_met_while_running_does_not_stop_a_commit(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(500, OTHER, 400))
    with contextlib.closing(sqlite3.connect(kept.path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with open(kept.path, "r+b") as file:
        file.write(b"\0" * 100)
    kept._db.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]
    seqs = kept.commit(entries(1))
    assert len(seqs) == 1
    kept.close()
    again, _ = store(tmp_path)
    assert again.read(0, 1000, 10**7).rows[-1].body == entries(1)[0].body
    assert again.commit(entries(1))


CUT = """
import os, shutil, sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.outbox.lane_file import LaneFile
broken, work = Path(sys.argv[1]), Path(sys.argv[2])
calls, most = 0, 0
def cut(work):
    def then(*a, **k):
        global calls
        calls += 1
        if calls > most:
            os._exit(9)
        return work(*a, **k)
    return then
while True:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(broken, work)
    child = os.fork()
    if not child:
        for name in ("replace", "unlink", "open", "fsync", "chmod"):
            setattr(os, name, cut(getattr(os, name)))
        LaneFile(work, "sos", on_health=lambda *a: None, utc_now=lambda: datetime.now(UTC), ballast_b=65536)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    again = LaneFile(work, "sos", on_health=lambda *a: None, utc_now=lambda: datetime.now(UTC), ballast_b=65536)
    bodies = {row.body for row in again.read(0, 10**6, 10**9).rows}
    print(most, ended, len(bodies), len(again.memories()), again.epoch, flush=True)
    again.close()
    if ended == 0:
        break
    most += 1
"""


def test_a_power_cut_at_any_step_of_a_salvage_costs_no_row(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    kept, _ = store(broken)
    for i in range(50):
        kept.commit(entries(20, OTHER, 200), AlarmMemory(b"%d" % i, f"a-{i}", 1, float(i)))
    epoch = kept.epoch
    kept.close()
    path = broken / "sos.db"
    with sqlite3.connect(path) as db:
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'position'").fetchone()[0]
    db.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096  # the page of an index, so every row can still be read
    path.write_bytes(data)
    command = [sys.executable, "-c", CUT, str(broken), str(tmp_path / "work")]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout.split(
        "\n"
    )
    found = [line.split() for line in lines if line]
    assert len(found) > 10, "cut at this many steps"
    assert {(rows, memories) for _, _, rows, memories, _ in found} == {("20", "50")}, found
    assert epoch not in {line[4] for line in found}


def test_only_so_many_broken_files_are_kept(tmp_path: Path) -> None:
    for _ in range(6):
        (tmp_path / "sos.db").write_bytes(b"rubbish" * 1000)
        store(tmp_path)[0].close()
    assert len(list(tmp_path.glob("sos-*.db"))) == 3
