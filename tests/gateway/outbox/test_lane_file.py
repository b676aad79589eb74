"""A lane file keeps every committed row after a kill, a deleted file or a failed disk; what it cannot keep, it says."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.effects import AlarmMemory
from gateway.outbox.lane_file import NotCommitted
from tests.gateway.outbox.bed import entries, small_disk, store
from tests.roots import ROOT

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
