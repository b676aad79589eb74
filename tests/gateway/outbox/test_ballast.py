"""The files next to a lane's file: with the ballast, a full disk takes emergencies; the mark reveals an old copy."""

import os
import shutil
from pathlib import Path

from tests.gateway.outbox.bed import entries, small_disk, store

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
    rows = again.read(0, 10, 10**6).rows
    assert [row.seq for row in rows] == [1, 2, 3], "numbered from 1 in the new epoch"
    assert [row.body for row in rows[:2]] == [entry.body for entry in entries(4)[2:]]
    assert f"rows 5 to 7 of epoch {epoch} were lost".encode() in rows[2].body, "the city learns what is missing"
    assert again.commit(entries(1)) == [4]
