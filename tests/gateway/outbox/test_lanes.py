"""The outbox: what is committed survives a kill, a full disk, a broken file, and leaves only by the city's word."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from gateway.effects import AlarmMemory
from gateway.events import GatewayHealth, Point, Position, Routine, Told, Where
from gateway.outbox.lane_file import LaneFile, NotCommitted
from gateway.outbox.lanes import RING_MAX, Outbox, OutboxBusy
from gateway.outbox.rows import ALARMS_MAX, OTHER, POSITION, Entry
from tests.roots import ROOT

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
T = TypeVar("T")


class Told_:
    """What a store said to its operator."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bool, str]] = []

    def __call__(self, what: str, ok: bool, detail: str) -> None:
        self.said.append((what, ok, detail))

    def words(self) -> set[str]:
        return {what for what, _, _ in self.said}


def store(
    folder: Path, lane: str = "sos", max_b: int | None = None, ballast_b: int = 1 << 16
) -> tuple[LaneFile, Told_]:
    told = Told_()
    return LaneFile(folder, lane, on_health=told, utc_now=lambda: NOW, ballast_b=ballast_b, max_b=max_b), told


def entries(n: int, kind: int = OTHER, size: int = 40) -> list[Entry]:
    return [Entry(kind, 1000 + i, b"%06d" % i + b"x" * (size - 6)) for i in range(n)]


def told_event(alarm: str = "gw1-e-1") -> Told:
    return Told(observed_at=NOW, clock="good", alarm=alarm, reader=1, stage="received")


def position(i: int) -> Position:
    where = Where(geometry=Point((127.0, 37.5)), radius_50_m=3.0, accuracy_95_m=9.0)
    return Position(observed_at=NOW, clock="good", tag=f"t{i}", where=where, moving=True)


def in_loop(folder: Path, work: Callable[[Outbox], Coroutine[Any, Any, T]], **over: Any) -> tuple[T, Told_]:
    told = Told_()

    async def main() -> T:
        over_ = {"bulk_max_b": 10_000_000, "ballast_b": 1 << 16} | over
        outbox = Outbox(folder, utc_now=lambda: NOW, on_health=told, **over_)
        groups = asyncio.create_task(outbox.run_groups(lambda: None))
        try:
            return await work(outbox)
        finally:
            groups.cancel()
            await asyncio.gather(groups, return_exceptions=True)
            await outbox.close()

    return asyncio.run(main()), told


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_rows_leave_only_by_the_watermark_of_this_epoch(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    assert kept.commit(entries(5)) == [1, 2, 3, 4, 5]
    assert kept.acknowledged("ffffffff", 5) == 0
    assert kept.acknowledged(kept.epoch, 0) == 0
    assert kept.backlog == 5
    assert kept.acknowledged(kept.epoch, 3) == 3
    assert [row.seq for row in kept.read(0, 10, 10**6).rows] == [4, 5]
    assert kept.acknowledged(kept.epoch, 3) == 0, "the same word again"
    assert kept.backlog == 2


def test_a_seq_is_never_given_twice_though_its_row_has_left(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(3))
    kept.acknowledged(kept.epoch, 3)
    epoch = kept.epoch
    kept.close()
    again, _ = store(tmp_path)
    assert again.epoch == epoch
    assert again.commit(entries(1)) == [4]


def test_a_page_names_the_row_before_it_as_it_is_now(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(6))
    assert kept.read(0, 2, 10**6).before == 0
    assert kept.read(2, 2, 10**6).before == 2
    kept.acknowledged(kept.epoch, 2)
    assert kept.read(2, 2, 10**6).before == 0, "what the city has is no row before"
    assert len(kept.read(0, 10, 50).rows) == 1, "at least one row, however small the bytes allowed"


def test_shed_rows_leave_no_gap_in_the_chain(tmp_path: Path) -> None:
    kept, told = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(10))
    kept.commit(entries(3000, POSITION, 400))
    kept.commit(entries(10))
    kept.shed(kept.used_b() // 2)
    assert kept.counters["shed_positions"] > 0
    assert kept.counters["shed_others"] == 0
    assert "shed" in told.words()
    rows, chain = [], 0
    while page := kept.read(chain, 100, 10**6):
        if not page.rows:
            break
        assert page.before == chain
        chain = page.rows[-1].seq
        rows += page.rows
    assert len(rows) == kept.backlog == 3020 - kept.counters["shed_positions"]
    assert rows[0].seq == 1, "what is no position stays"


def test_positions_go_before_other_rows_and_the_oldest_first(tmp_path: Path) -> None:
    kept, _ = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(5, OTHER, 400) + entries(500, POSITION, 400) + entries(500, OTHER, 400))
    kept.shed(0)
    assert kept.counters["shed_positions"] == 500
    assert kept.counters["shed_others"] == 505
    assert kept.backlog == 0
    assert kept.commit(entries(1)) == [1006]


def test_the_bulk_store_stays_within_its_bytes(tmp_path: Path) -> None:
    kept, _ = store(tmp_path, "events", max_b=2_000_000)
    for _ in range(20):
        kept.commit(entries(500, POSITION, 400))
        kept.tend()
    assert kept.used_b() <= 2_000_000
    assert kept.counters["shed_positions"] > 0
    assert sum(p.stat().st_size for p in tmp_path.glob("events.db*")) < 2_000_000 + 9_000_000


def test_memories_come_back_newest_stage_and_are_bounded(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(1), AlarmMemory(b"k", "a-1", 1, 5.0, b"data"))
    kept.remember(AlarmMemory(b"k", "a-1", 3, 5.0, b"more"))
    kept.close()
    kept, _ = store(tmp_path)
    assert kept.memories() == [AlarmMemory(b"k", "a-1", 3, 5.0, b"more")]
    for i in range(ALARMS_MAX + 10):
        kept.remember(AlarmMemory(b"%d" % i, f"a-{i}", 5 if i % 2 else 1, float(i)))
    left = kept.memories()
    assert len(left) == ALARMS_MAX
    assert not [m for m in left if m.stage == 5 and m.raised_utc_s < 10], "closed ones go first"
    assert [m for m in left if m.alarm == "a-1" and m.key == b"k"]


# ---- kill -9 ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.effects import AlarmMemory
from gateway.outbox.rows import Entry
from gateway.outbox.lane_file import LaneFile
lane, lot = sys.argv[2], int(sys.argv[3])
s = LaneFile(Path(sys.argv[1]), lane, on_health=lambda *a: None, utc_now=lambda: datetime.now(UTC), ballast_b=65536,
          max_b=None if lane == "sos" else 10**9)
i = 0
while True:
    memory = AlarmMemory(b"%d" % (i % 100), str(i), 1, float(i)) if lane == "sos" else None
    seqs = s.commit([Entry(1, i, b"%d" % (i + k)) for k in range(lot)], memory)
    i += lot
    print(seqs[-1], flush=True)
    if i % 50 == 0:
        print(-(seqs[0] - 20), flush=True)  # before it is done: a kill may fall between the two
        s.acknowledged(s.epoch, seqs[0] - 20)
"""


@pytest.mark.parametrize(("lane", "lot"), [("sos", 1), ("events", 40)])
def test_sigkill_loses_no_row_that_was_acknowledged(tmp_path: Path, lane: str, lot: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    acknowledged = gone = 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), lane, str(lot)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        for line in [first, *child.stdout]:
            if line.endswith("\n"):
                acknowledged, gone = max(acknowledged, int(line)), max(gone, -int(line))
        child.wait()
        child.stdout.close()
    kept, told = store(tmp_path, lane, max_b=None if lane == "sos" else 10**9)
    assert told.said == []
    rows = kept.read(0, 10**6, 10**9).rows
    seqs = [row.seq for row in rows]
    assert set(range(gone + 1, acknowledged + 1)) <= set(seqs), "an acknowledged row is missing"
    assert seqs == list(range(seqs[0], seqs[-1] + 1)), "no gap"
    assert acknowledged > 0
    kept.close()


def test_the_mark_never_accuses_a_file_that_was_only_killed(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(7))
    kept.tend()
    kept.commit(entries(7))
    os.close(os.open(kept.path, os.O_RDONLY))
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy"))
    again, told = store(copy)
    assert again.epoch == kept.epoch
    assert told.said == []
    assert again.backlog == 14


# ---- old copies, broken files ----------------------------------------------------------------------------------------


def test_an_old_copy_put_back_starts_a_new_epoch_and_sends_its_rows_again(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(4))
    epoch = kept.epoch
    kept.acknowledged(epoch, 2)
    kept.close()
    old = (tmp_path / "sos.db").read_bytes()
    kept, _ = store(tmp_path)
    kept.commit(entries(3))
    kept.close()
    for path in tmp_path.glob("sos.db*"):
        path.unlink()
    (tmp_path / "sos.db").write_bytes(old)
    again, told = store(tmp_path)
    assert "store_rolled_back" in told.words()
    assert again.epoch != epoch
    assert [row.seq for row in again.read(0, 10, 10**6).rows] == [1, 2], "numbered from 1 in the new epoch"
    assert again.commit(entries(1)) == [3]


def test_a_watermark_ahead_of_us_proves_an_old_copy(tmp_path: Path) -> None:
    kept, told = store(tmp_path)
    kept.commit(entries(3))
    epoch = kept.epoch
    assert kept.acknowledged(epoch, 9) == 0
    assert kept.epoch != epoch
    assert "store_rolled_back" in told.words()
    assert kept.backlog == 3, "nothing is dropped on the word of another life"


def test_a_file_deleted_under_a_running_gateway_costs_no_row(tmp_path: Path) -> None:
    kept, told = store(tmp_path)
    kept.commit(entries(3), AlarmMemory(b"k", "a-1", 1, 5.0))
    epoch = kept.epoch
    for path in tmp_path.glob("sos.db*"):
        path.unlink()
    kept.tend()
    assert "store_lost" in told.words()
    assert kept.epoch != epoch
    kept.commit(entries(1))
    kept.close()
    again, _ = store(tmp_path)
    assert [row.body for row in again.read(0, 10, 10**6).rows] == [e.body for e in entries(3) + entries(1)]
    assert [memory.alarm for memory in again.memories()] == ["a-1"]


@pytest.mark.parametrize("seed", range(12))
def test_a_corrupt_file_is_set_aside_and_what_can_be_read_is_saved(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    kept, _ = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(2000, OTHER, 200))
    epoch = kept.epoch
    kept.close()
    path = tmp_path / "events.db"
    data = bytearray(path.read_bytes())
    for _ in range(3):  # whole pages of rubbish: what a worn flash gives back
        at = chance.randrange(2, len(data) // 4096) * 4096
        data[at : at + 4096] = chance.randbytes(4096)
    path.write_bytes(data)
    again, told = store(tmp_path, "events", max_b=10**9)
    if not told.said:
        pytest.skip("the damage hit a free page")
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
    sqlite3.connect(kept.path).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
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
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096  # an index: every row can still be read
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


# ---- a full disk, a dead disk ----------------------------------------------------------------------------------------

FULL = """
import json, os, sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.outbox.rows import Entry
from gateway.outbox.lane_file import NotCommitted, LaneFile
folder, said = Path(sys.argv[1]), []
note = lambda *a: said.append(a[:2])
now = lambda: datetime.now(UTC)
sos = LaneFile(folder, "sos", on_health=note, utc_now=now, ballast_b=1 << 20)
bulk = LaneFile(folder, "events", on_health=note, utc_now=now, ballast_b=1 << 20, max_b=10**9)
hog = os.open(folder / "hog", os.O_CREAT | os.O_WRONLY)
try:
    while True:
        os.write(hog, b"x" * 4096)
except OSError:
    os.close(hog)
done = 0
for i in range(200):
    sos.commit([Entry(1, i, b"help %d" % i)]); done += 1
ballast_gone = not (folder / "sos.ballast").exists()
lost = 0
try:
    for i in range(4000):
        bulk.commit([Entry(0, i, b"p" * 400) for _ in range(50)])
except NotCommitted:
    lost = 1
sos.commit([Entry(1, 0, b"still")])
os.unlink(folder / "hog")
sos.tend(); bulk.tend()
bulk.commit([Entry(1, 0, b"after")])
print(json.dumps({"done": done, "ballast_gone": ballast_gone, "back": (folder / "sos.ballast").exists(),
    "rows": sos.backlog, "shed": bulk.counters["shed_positions"], "said": said,
    "ok": [s._db.execute("PRAGMA integrity_check").fetchone()[0] for s in (sos, bulk)]}))
"""


def small_disk(folder: Path, script: str) -> dict[str, Any]:
    """Run a script whose folder is a file system of 8 MiB of its own, in a name space of its own."""
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size=8m tmpfs "{folder}" && exec "{sys.executable}" -c "$SCRIPT" "{folder}"'
    probe = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=1m tmpfs "{folder}"'], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"no name space for a small disk here: {probe.stderr.decode()[:100]}")
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


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_full_disk_takes_emergencies_all_the_same(tmp_path: Path) -> None:
    found = small_disk(tmp_path / "disk", FULL)
    assert found["done"] == 200
    assert found["rows"] == 201
    assert found["ballast_gone"], "without it the disk was not full, and the test shows nothing"
    assert found["back"], "the ballast comes back when there is room"
    assert found["shed"] > 0
    assert found["ok"] == ["ok", "ok"]
    assert ["disk_full", False] in found["said"]
    assert ["disk_full", True] in found["said"]


READ_ONLY = """
import json, os, subprocess, sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.outbox.rows import Entry
from gateway.outbox.lane_file import NotCommitted, LaneFile
folder, said = Path(sys.argv[1]), []
def opened():
    return LaneFile(folder, "sos", on_health=lambda *a: said.append(a), utc_now=lambda: datetime.now(UTC),
                    ballast_b=65536)
def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)
found = []
for clean in (False, True):
    child = os.fork()
    if not child:
        first = opened()
        first.commit([Entry(1, 0, b"help")])
        if clean:
            first.close()
        os._exit(0)
    os.waitpid(child, 0)
    remount("ro")
    kept = opened()
    rows, epoch = [row.seq for row in kept.read(0, 10, 1000).rows], kept.epoch
    try:
        kept.commit([Entry(1, 0, b"more")])
        took = True
    except NotCommitted:
        took = False
    gone = kept.acknowledged(epoch, 1)
    again = [row.seq for row in kept.read(0, 10, 1000).rows]
    kept.close()
    kept = opened()
    remount("rw")
    kept.tend()
    seqs = kept.commit([Entry(1, 0, b"well")])
    found.append([rows, took, gone, again, seqs, kept.epoch == epoch])
    kept.close()
print(json.dumps({"found": found, "said": said}))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_read_only_disk_is_still_read_and_written_when_it_can_be_again(tmp_path: Path) -> None:
    answer = small_disk(tmp_path / "disk", READ_ONLY)
    killed, closed = answer["found"]
    assert killed == [[1], False, 0, [1], [2], True]
    assert closed == [[1, 2, 3], False, 0, [1, 2, 3], [4], True]
    said = [(what, ok) for what, ok, _ in answer["said"]]
    assert said == [("not_durable", False), ("not_durable", False), ("not_durable", True)] * 2
    assert "it can be read, no more" in answer["said"][0][2]


def test_a_disk_that_takes_nothing_says_so_and_recovers(tmp_path: Path) -> None:
    kept, told = store(tmp_path)
    kept.commit(entries(1))
    kept._db.execute("PRAGMA query_only=ON")  # type: ignore[union-attr]
    with pytest.raises(NotCommitted, match=r"nothing is kept over a power cut"):
        kept.commit(entries(1))
    assert ("not_durable", False) in [said[:2] for said in told.said]
    assert kept.commit(entries(1)) == [2], "the next try opens the file again"
    assert ("not_durable", True) in [said[:2] for said in told.said]


def test_a_folder_that_is_gone_is_no_crash(tmp_path: Path) -> None:
    kept, _ = store(tmp_path / "nowhere")
    with pytest.raises(NotCommitted):
        kept.commit(entries(1))
    assert kept.epoch
    assert kept.read(0, 10, 1000).rows == ()
    assert kept.memories() == []
    (tmp_path / "nowhere").mkdir()
    assert kept.commit(entries(1)) == [1]


# ---- both lanes ------------------------------------------------------------------------------------------------------


def test_a_second_gateway_on_the_folder_is_refused(tmp_path: Path) -> None:
    async def twice(outbox: Outbox) -> None:
        with pytest.raises(OutboxBusy, match=str(os.getpid())):
            Outbox(tmp_path, utc_now=lambda: NOW, on_health=Told_(), bulk_max_b=10**7, ballast_b=4096)

    in_loop(tmp_path, twice)
    in_loop(tmp_path, lambda outbox: asyncio.sleep(0))


def test_routine_events_are_committed_in_groups(tmp_path: Path) -> None:
    async def many(outbox: Outbox) -> int:
        done = [outbox.queue(position(i)) for i in range(250)]
        assert all(await asyncio.gather(*done))
        return len(outbox.events.commit_s)

    commits, _ = in_loop(tmp_path, many)
    assert 3 <= commits <= 6
    kept, _ = store(tmp_path, "events", max_b=10**7)
    assert kept.backlog == 250


def test_an_emergency_does_not_wait_behind_a_slow_bulk_commit(tmp_path: Path) -> None:
    async def race(outbox: Outbox) -> bool:
        committed = threading.Event()
        slow = asyncio.ensure_future(outbox.events.run(committed.wait, 20.0))
        done = [outbox.queue(position(i)) for i in range(500)]
        await outbox.commit_emergency(told_event(), AlarmMemory(b"k", "gw1-e-1", 1, 0.0))
        committed.set()
        await asyncio.gather(*done)
        return await slow

    before_the_bulk, _ = in_loop(tmp_path, race)
    assert before_the_bulk


def test_an_emergency_no_disk_takes_is_kept_in_the_ring_and_moved_when_it_can_be(tmp_path: Path) -> None:
    async def broken(outbox: Outbox) -> tuple[int, int, int]:
        outbox.sos.store._db.execute("PRAGMA query_only=ON")  # type: ignore[union-attr]
        opened = outbox.sos.store._open
        outbox.sos.store._open = lambda: None  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(NotCommitted):
                await outbox.commit_emergency(told_event())
        in_ring = outbox.ring.backlog
        assert (await outbox.ring.read(0, 10, 10**6)).rows[0].body == msgspec.json.encode(told_event())
        assert outbox.ring.epoch != outbox.sos.epoch
        outbox.sos.store._open = opened  # type: ignore[method-assign]
        await outbox.tend()
        return in_ring, outbox.ring.backlog, outbox.sos.backlog

    found, told = in_loop(tmp_path, broken)
    assert found == (1, 0, 1), "one press said three times is one row"
    assert ("sos_not_durable", False) in [said[:2] for said in told.said]


def test_the_ring_is_bounded_and_counts(tmp_path: Path) -> None:
    async def fill(outbox: Outbox) -> tuple[int, int]:
        for i in range(RING_MAX + 5):
            outbox.ring.keep(i, b"%d" % i)
        assert await outbox.ring.acknowledged("other", RING_MAX) == 0
        assert await outbox.ring.acknowledged(outbox.ring.epoch, RING_MAX + 6) == 0, "more than was ever sent"
        assert [row.seq for row in (await outbox.ring.read(0, 10, 2)).rows] == [6, 7], "two bytes, two rows"
        page = await outbox.ring.read(RING_MAX, 3, 10**6)
        assert page.before == RING_MAX
        gone = await outbox.ring.acknowledged(outbox.ring.epoch, RING_MAX + 5)
        return gone, outbox.ring.dropped

    assert in_loop(tmp_path, fill)[0] == (RING_MAX, 5)


def test_emergencies_dropped_from_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.outbox.lanes.RING_MAX", 2)

    async def fill(outbox: Outbox) -> None:
        def no_disk(*_: object) -> list[int]:
            raise NotCommitted("no disk")

        monkeypatch.setattr(outbox.sos.store, "commit", no_disk)
        for i in range(3):
            with pytest.raises(NotCommitted):
                await outbox.commit_emergency(told_event(f"gw1-e-{i}"))

    _, told = in_loop(tmp_path, fill)
    assert [(what, ok) for what, ok, _ in told.said] == [("ring_full", False)]
    assert told.said[0][2].startswith("1 emergencies dropped: no disk, no city, and 2 more in memory; look at the disk")


def test_a_group_being_committed_is_not_lost_when_its_loop_is_cancelled(tmp_path: Path) -> None:
    async def stop(outbox: Outbox) -> int:
        slow = asyncio.ensure_future(outbox.events.run(time.sleep, 0.2))  # the thread is busy: the group waits for it
        loop = asyncio.create_task(outbox.run_groups(lambda: None))
        done = [outbox.queue(position(i)) for i in range(150)]
        while outbox.counters()["events_waiting"] == 150:  # noqa: ASYNC110 - until the first group is taken
            await asyncio.sleep(0.005)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await outbox.flush()
        await slow
        assert all([await one for one in done])
        return outbox.events.backlog

    told = Told_()

    async def main() -> int:
        outbox = Outbox(tmp_path, utc_now=lambda: NOW, on_health=told, bulk_max_b=10**7, ballast_b=4096)
        try:
            return await stop(outbox)
        finally:
            await outbox.close()

    assert asyncio.run(main()) == 150


def test_a_bulk_commit_that_fails_keeps_its_events_and_tells(tmp_path: Path) -> None:
    async def fail(outbox: Outbox) -> tuple[bool, int]:
        opened = outbox.events.store._open
        outbox.events.store._db.execute("PRAGMA query_only=ON")  # type: ignore[union-attr]
        outbox.events.store._open = lambda: None  # type: ignore[method-assign]
        event: Routine = GatewayHealth(observed_at=NOW, clock="good", what="w", ok=True, detail="d")
        kept = await outbox.queue(event)
        outbox.events.store._open = opened  # type: ignore[method-assign]
        await outbox.flush()
        return kept, outbox.events.backlog

    assert in_loop(tmp_path, fail)[0] == (False, 1)


def test_the_cores_snapshot_comes_back(tmp_path: Path) -> None:
    in_loop(tmp_path, lambda outbox: outbox.save(b"\x00state"))

    async def read(outbox: Outbox) -> bytes | None:
        return outbox.snapshot()

    assert in_loop(tmp_path, read)[0] == b"\x00state"
