"""A lane's file that is taken away: under a running gateway no committed row is lost; at a start the loss is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.effects import AlarmMemory
from gateway.outbox import recent
from gateway.outbox.lane_file import TOLD_TENDS, LaneFile, NotCommitted
from gateway.outbox.recent import Recent
from gateway.outbox.rows import POSITION, Entry
from tests.gateway.outbox.bed import HealthLog, entries, store
from tests.roots import ROOT

LANES = {"sos": None, "events": 10**9}
THEFTS = {
    "the log is unlinked": "os.unlink(f'{path}-wal')",
    "the log's index is unlinked": "os.unlink(f'{path}-shm')",
    "the log and its index are unlinked": "os.unlink(f'{path}-wal'); os.unlink(f'{path}-shm')",
    "the log is emptied": "os.truncate(f'{path}-wal', 0)",
    "an older log is put in its place": "shutil.copy(old, f'{path}-new'); os.replace(f'{path}-new', f'{path}-wal')",
    "the file is unlinked": "os.unlink(path)",
    "all its files are unlinked": "[os.unlink(f'{path}{end}') for end in ('', '-wal', '-shm')]",
    "the file is emptied": "os.truncate(path, 0)",
    "the file is moved away": "os.replace(path, f'{path}.bak')",
    "another file is moved over it": "os.replace(other, path)",
    "the folder is removed": "shutil.rmtree(path.parent)",
    "the folder is moved away": "os.replace(path.parent, f'{path.parent}-bak')",
    "the mark is unlinked": "os.unlink(path.with_suffix('.mark'))",
}
CHILD = """
import json, os, shutil, signal, sqlite3, sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.effects import AlarmMemory
from gateway.outbox.rows import Entry
from gateway.outbox.lane_file import LaneFile
folder, lane, theft, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
max_b, said, path = None if lane == "sos" else 10**9, [], folder / f"{lane}.db"
old, other = folder.parent / "old-wal", folder.parent / "other.db"
def opened(folder):
    return LaneFile(folder, lane, on_health=lambda *a: said.append(a), utc_now=lambda: datetime.now(UTC),
                    ballast_b=65536, max_b=max_b)
spare = opened(folder.parent / "spare"); spare.commit([Entry(1, 0, b"of another life")]); spare.close()
os.replace(folder.parent / "spare" / f"{lane}.db", other)
s = opened(folder)
def commit(i):
    s.commit([Entry(1, i, b"%03d" % i * 30)], AlarmMemory(b"%d" % i, str(i), 1, float(i)) if lane == "sos" else None)
for i in range(150):
    commit(i)
    if i == 120:
        shutil.copy(f"{path}-wal", old)
s.acknowledged(s.epoch, 10)
s.tend()
epoch = s.epoch
exec(theft)
if when == "commit":
    for i in range(150, 153):
        commit(i)
elif when == "tend":
    s.tend()
print(json.dumps([epoch, s.epoch, said]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def stolen(folder: Path, lane: str, theft: str, when: str) -> tuple[str, str, list[tuple[str, bool, str]]]:
    """Run a gateway's lane whose files are taken away, then kill it; return its epochs and what it said."""
    (folder / "spare").mkdir(parents=True)
    (folder / "box").mkdir()
    command = [sys.executable, "-c", CHILD, str(folder / "box"), lane, theft, when]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    before, after, said = json.loads(child.stdout.splitlines()[-1])
    return before, after, [tuple(each) for each in said]


def bodies(kept: LaneFile) -> list[bytes]:
    return [row.body for row in kept.read(0, 10**6, 10**9).rows]


def wanted(upto: int) -> list[bytes]:
    return [b"%03d" % i * 30 for i in range(10, upto)]


@pytest.mark.parametrize(("lane", "when"), [("sos", "commit"), ("sos", "tend"), ("events", "commit")])
@pytest.mark.parametrize("theft", THEFTS)
def test_no_committed_row_is_lost_when_its_files_are_taken_away_and_it_is_killed_then(
    tmp_path: Path, theft: str, lane: str, when: str
) -> None:
    before, after, said = stolen(tmp_path, lane, THEFTS[theft], when)
    again, told = store(tmp_path / "box", lane, max_b=LANES[lane])
    assert bodies(again) == wanted(153 if when == "commit" else 150)
    assert again.epoch == after
    assert told.said == [], "what was repaired is no news at the next start"
    if lane == "sos":
        alarms = {memory.alarm for memory in again.memories()}
        assert alarms == {str(i) for i in range(153 if when == "commit" else 150)}
    if "mark" not in theft:
        assert "store_lost" in {what for what, ok, _ in said if not ok}
    if "log" in theft and theft != "the log is emptied":
        assert after == before, "the log was moved into the file: nothing is sent twice"


@pytest.mark.parametrize("lane", LANES)
def test_rows_that_died_with_a_log_before_anybody_looked_are_told_by_number(tmp_path: Path, lane: str) -> None:
    before, after, said = stolen(tmp_path, lane, THEFTS["the log and its index are unlinked"], "never")
    assert (before, said) == (after, []), "killed at once"
    again, told = store(tmp_path / "box", lane, max_b=LANES[lane])
    kept = [int(body[:3]) for body in bodies(again) if not body.startswith(b"{")]
    assert kept == list(range(len(kept))), "what was moved into the file in time; ten of them are sent again"
    assert len(kept) < 150
    [(what, ok, detail)] = told.said
    assert (what, ok) == ("store_rolled_back", False)
    lost = f"rows {max(len(kept), 10) + 1} to 150 of epoch {before}"
    assert f"{lost} are gone" in detail
    if lane == "sos":
        assert f"{lost} were lost".encode() in bodies(again)[-1]


def test_a_row_in_a_log_that_was_unlinked_is_lost_without_this_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that the test above can fail: SQLite itself commits into an unlinked log without an error."""
    monkeypatch.setattr("gateway.outbox.open_files.OpenFiles.lost", lambda self: {})
    kept, _ = store(tmp_path)
    for i in range(3):
        kept.commit([Entry(1, i, b"%d" % i)])
    os.unlink(f"{kept.path}-wal")
    assert kept.commit(entries(1)) == [4]
    copy = tmp_path / "after the kill"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("after*", "*-shm"))
    again, _ = store(copy)
    assert entries(1)[0].body not in bodies(again)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("how", ["missing", "emptied", "a file of an earlier life"])
def test_a_lost_file_is_told_with_the_numbers_that_are_gone(tmp_path: Path, lane: str, how: str) -> None:
    kept, _ = store(tmp_path, lane, max_b=LANES[lane])
    kept.close()
    early = (tmp_path / f"{lane}.db").read_bytes()
    kept, _ = store(tmp_path, lane, max_b=LANES[lane])
    kept.commit(entries(7))
    kept.acknowledged(kept.epoch, 2)
    epoch = kept.epoch
    kept.close()
    (tmp_path / f"{lane}.db").unlink()
    if how != "missing":
        (tmp_path / f"{lane}.db").write_bytes(b"" if how == "emptied" else early)
    again, told = store(tmp_path, lane, max_b=LANES[lane])
    [(what, ok, detail)] = told.said
    assert (what, ok) == ("store_rolled_back", False)
    assert f"rows 3 to 7 of epoch {epoch} are gone, and the city had not acknowledged them" in detail
    assert again.epoch != epoch
    rows = bodies(again)
    if lane == "events":
        assert rows == []
    else:
        lost = f"rows 3 to 7 of epoch {epoch} were lost on the gateway"
        assert [msgspec.json.decode(row) for row in rows] == [{"event": lost}], "no event: the city opens an incident"


def test_a_lost_file_whose_rows_the_city_has_is_told_and_opens_no_incident(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(5))
    kept.acknowledged(kept.epoch, 5)
    kept.close()
    (tmp_path / "sos.db").unlink()
    again, told = store(tmp_path)
    assert [what for what, _, _ in told.said] == ["store_rolled_back"]
    assert "no undelivered row is gone" in told.said[0][2]
    assert again.backlog == 0


def test_a_loss_is_told_again_until_its_report_is_on_disk(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(5))
    epoch = kept.epoch
    kept.close()
    (tmp_path / "sos.db").unlink()
    told = HealthLog()
    for starts in range(3):
        kept, told = store(tmp_path)
        assert [what for what, _, _ in told.said] == ["store_rolled_back"], f"killed {starts} times before it was told"
        assert f"rows 1 to 5 of epoch {epoch}" in told.said[0][2]
        kept._shut()  # as a kill leaves it: no `close`, no mark
    kept, _ = store(tmp_path)
    for _ in range(TOLD_TENDS):
        kept.tend()
    kept._shut()
    _, told = store(tmp_path)
    assert told.said == []


def test_the_first_start_of_a_gateway_says_nothing(tmp_path: Path) -> None:
    kept, told = store(tmp_path)
    kept.close()
    assert told.said == []
    assert store(tmp_path)[1].said == []


@pytest.mark.parametrize("mark", ["missing", "emptied", "garbage", "of other types", "deep"])
def test_a_file_without_a_readable_mark_may_be_an_old_copy(tmp_path: Path, mark: str) -> None:
    """In its old epoch, its next emergency could have a number that the city has, and would be no news there."""
    kept, _ = store(tmp_path)
    kept.commit(entries(3))
    epoch = kept.epoch
    kept.close()
    garbage = {"emptied": b"", "garbage": os.urandom(300), "deep": b"[" * 5000}
    (tmp_path / "sos.mark").unlink()
    if mark != "missing":
        types = json.dumps({"epoch": epoch, "seq": "3", "upto": None}).encode()
        (tmp_path / "sos.mark").write_bytes(garbage.get(mark, types))
    again, told = store(tmp_path)
    assert [what for what, _, _ in told.said] == ["store_rolled_back"]
    assert "no readable mark" in told.said[0][2]
    assert again.epoch != epoch
    assert bodies(again) == [entry.body for entry in entries(3)], "sent again: a repetition is harmless"
    for _ in range(TOLD_TENDS):
        again.tend()
    again.close()
    assert store(tmp_path)[1].said == [], "the mark is there again"


def test_a_log_that_outlived_its_file_gives_all_rows_back_or_is_set_aside(tmp_path: Path) -> None:
    for moved, lane in ((False, "sos"), (True, "events")):
        kept, _ = store(tmp_path, lane, max_b=LANES[lane])
        kept.commit(entries(2000 if moved else 20, size=200))
        if moved:  # most pages are in the file, and the log has only the newest
            kept._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # type: ignore[union-attr]
            kept.commit(entries(1))
        log = Path(f"{kept.path}-wal").read_bytes()
        epoch = kept.epoch
        kept.close()
        Path(f"{kept.path}-wal").write_bytes(log)
        os.truncate(kept.path, 0)
        again, told = store(tmp_path, lane, max_b=LANES[lane])
        if not moved:
            assert bodies(again) == [entry.body for entry in entries(20, size=200)]
            assert again.epoch == epoch
            assert told.words() == {"store_lost"}
        else:
            assert "store_corrupt" in told.words()
            assert f"of rows 1 to 2001 of epoch {epoch} are gone" in told.said[-1][2]
            assert list(tmp_path.glob("events-*.db"))
        assert again.commit(entries(1)) == [again.last_seq]
        again.close()


def test_a_folder_that_cannot_come_back_is_still_read_and_its_rows_are_kept_for_the_day_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir()
    kept, told = store(folder)
    kept.commit(entries(3), AlarmMemory(b"k", "a-1", 1, 5.0))
    shutil.rmtree(folder)
    folder.write_bytes(b"a file where the folder was")
    for _ in range(2):
        with pytest.raises(NotCommitted):
            kept.commit(entries(1))
        assert len(bodies(kept)) >= 3, "the unlinked file is still read, so its rows are sent"
        kept.tend()
    assert ("not_durable", False) in [said[:2] for said in told.said]
    folder.unlink()
    kept.tend()
    kept.commit(entries(1))
    kept._shut()
    again, _ = store(folder)
    assert bodies(again)[:3] == [entry.body for entry in entries(3)]
    assert bodies(again)[-1] == entries(1)[0].body
    assert [memory.alarm for memory in again.memories()] == ["a-1"]


NO_WRITE = """
import json, os, resource, signal, sys
from pathlib import Path
from datetime import datetime, UTC
from gateway.outbox.rows import Entry
from gateway.outbox.lane_file import LaneFile, NotCommitted
said = []
kept = LaneFile(Path(sys.argv[1]), "sos", on_health=lambda *a: said.append(a[:2]), utc_now=lambda: datetime.now(UTC),
                ballast_b=65536)
kept.commit([Entry(1, 0, b"before")])
epoch = kept.epoch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # each write fails, as on a disk gone read-only
refused = 0
for _ in range(3):
    try:
        kept.commit([Entry(1, 0, b"never")])
    except NotCommitted:
        refused += 1
    kept.tend()
read = [bytes(row.body).decode() for row in kept.read(0, 10, 1000).rows]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.tend()
kept.commit([Entry(1, 0, b"after")])
print(json.dumps([refused, read, kept.epoch == epoch, said]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_disk_that_turns_read_only_under_a_running_gateway_is_read_on_and_written_when_it_can_be(
    tmp_path: Path,
) -> None:
    child: Any = subprocess.run(
        [sys.executable, "-c", NO_WRITE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    refused, read, same_epoch, said = json.loads(child.stdout)
    assert (refused, read, same_epoch) == (3, ["before"], True)
    assert ["not_durable", False] in said
    assert said[-1] == ["not_durable", True]
    again, told = store(tmp_path)
    assert bodies(again) == [b"before", b"after"]
    assert told.said == []


def test_recent_rows_are_bounded_and_what_the_city_has_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "ROWS_MAX", 10)
    monkeypatch.setattr(recent, "BYTES_MAX", 400)
    monkeypatch.setattr(recent, "MEMORIES_MAX", 2)
    held = Recent()
    for seq, entry in enumerate(entries(20, POSITION, 50), 1):
        held.keep([seq], [entry], AlarmMemory(b"%d" % (seq // 2), str(seq), 1, 0.0))
    assert list(held.rows) == list(range(13, 21)), "eight of 50 bytes"
    assert [memory.alarm for memory in held.memories()] == ["19", "20"], "the newest of each"
    held.delivered(18)
    assert list(held.rows) == [19, 20]
    held.keep(range(21, 41), entries(20, POSITION, 10))
    assert list(held.rows) == list(range(31, 41)), "ten rows"
