"""Repair of a broken lane file: its readable rows are copied into a new file, and the broken one is set aside.

sos.part.db          the new file while rows are copied; a power cut now loses nothing, the next start copies again
sos.new.db           the same file, complete: from now on it replaces sos.db with everything that was readable
sos-<time>-<hex>.db  the broken file, kept for a later inspection; SET_ASIDE_MAX of them are kept
"""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from gateway.effects import AlarmMemory
from gateway.outbox import rows
from gateway.outbox.recent import Recent
from gateway.outbox.rows import OTHER, POSITION, Entry, transaction

SET_ASIDE_MAX = 3
BATCH = 1000
BEHIND_MAX_B = 64 * 1024 * 1024
CHECK_MAX_S = 2.0
"""The check of a large file stops after this time: the gateway must start."""
PAGE_B, LOG_HEADER_B = 4096, 32
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def code_of(error: sqlite3.Error) -> int:
    """Return the primary SQLite result code of an error, 0 if it has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def check(db: sqlite3.Connection) -> None:
    """Run quick_check for at most CHECK_MAX_S. Raises sqlite3.DatabaseError (SQLITE_CORRUPT) if it finds damage."""
    end_s = time.monotonic() + CHECK_MAX_S
    db.set_progress_handler(lambda: time.monotonic() > end_s, 10_000)
    try:
        found = [row[0] for row in db.execute("PRAGMA quick_check(1)").fetchall()]
    except sqlite3.OperationalError as error:
        if code_of(error) == sqlite3.SQLITE_INTERRUPT:
            return
        raise
    finally:
        db.set_progress_handler(None, 0)
    if found != ["ok"]:
        corrupt = sqlite3.DatabaseError(f"quick_check: {str(found[0])[:200]}")
        corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise corrupt


def rescue(
    path: Path,
    still_open: sqlite3.Connection | None,
    created: str,
    make_room: Callable[[], bool],
    recent: Recent | None = None,
) -> int:
    """Make the new file next to `path` with everything that can be read; return its number of rows.

    still_open: a connection to a file that is no longer at `path`. make_room is called once when the disk is full.
    recent: rows and memories to add if they cannot be read.
    Raises sqlite3.Error, OSError if no new file can be made; rows that do not fit stay in the broken file.
    """
    part = path.with_suffix(".part.db")
    for end in ("", "-journal"):
        Path(f"{part}{end}").unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_RDWR, 0o600))
    try:
        saved = _copy(path, part, still_open, created, recent)
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_FULL or not make_room():
            raise
        part.unlink(missing_ok=True)
        saved = _copy(path, part, still_open, created, recent)
    os.replace(part, path.with_suffix(".new.db"))
    sync_folder(path.parent)
    return saved


def _copy(path: Path, part: Path, still_open: sqlite3.Connection | None, created: str, recent: Recent | None) -> int:
    """Raises sqlite3.Error when not even the tables and the memories fit: the caller must make room first."""
    saved = 0
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as db:
        for pragma in ("auto_vacuum=INCREMENTAL", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
        rows.prepare(db, created)
        broken = still_open or sqlite3.connect(path if path.exists() else ":memory:", isolation_level=None)
        wreck = _BrokenFile(broken)
        try:
            with transaction(db):
                for memory in [*wreck.memories(), *(recent.memories() if recent else ())]:  # the newest last
                    rows.insert(db, (), memory)
                for key, value in wreck.values():
                    db.execute("INSERT OR REPLACE INTO state(key, value) VALUES(?, ?)", (key, value))
            missing = dict(recent.rows) if recent else {}
            with contextlib.suppress(sqlite3.Error):
                for batch in wreck.entries():
                    with transaction(db):
                        rows.insert(db, [entry for _, entry in batch])
                    saved += len(batch)
                    for seq, _ in batch:
                        missing.pop(seq, None)
                with transaction(db):
                    saved += len(rows.insert(db, list(missing.values())))
        finally:
            if still_open is None:
                with contextlib.suppress(sqlite3.Error):
                    broken.close()
    return saved


def stand_in(path: Path) -> bool:
    """Put an empty page in the place of a file that is missing or emptied, if it left a log. Raises OSError.

    SQLite would delete such a log. But it holds all of a file whose pages were never moved out of it, and SQLite reads
    them behind this page; of any other file it holds a part, for an inspection.
    """
    log = Path(f"{path}-wal")
    if (path.exists() and path.stat().st_size) or not log.exists() or log.stat().st_size <= LOG_HEADER_B:
        return False
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, bytes(PAGE_B), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def swap_in(path: Path, now: datetime) -> str:
    """Replace the broken file by a complete new one, if there is one; return the broken file's new name, or "".

    May be interrupted at any point and called again. Raises OSError.
    """
    fresh = path.with_suffix(".new.db")
    if not fresh.exists():
        return ""
    aside = path.with_name(f"{path.stem}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}.db")
    for end in ("-wal", ""):
        if Path(f"{path}{end}").exists():
            os.replace(f"{path}{end}", f"{aside}{end}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    os.replace(fresh, path)
    sync_folder(path.parent)
    old = sorted(path.parent.glob(f"{path.stem}-*.db"), key=lambda p: p.stat().st_mtime)
    for each in old[:-SET_ASIDE_MAX]:
        for end in ("", "-wal", "-shm"):
            Path(f"{each}{end}").unlink(missing_ok=True)
    return aside.name if aside.exists() else ""


def sync_folder(folder: Path) -> None:
    """Make new and renamed files of a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _BrokenFile:
    """A broken file, opened to read what is still readable. Reading stops at the first error and does not raise."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.text_factory = lambda data: data.decode("utf-8", "replace")

    def entries(self) -> Iterator[list[tuple[int, Entry]]]:
        """Yield (seq, row) in order, in batches: those before the damage, then the newest BEHIND_MAX_B after it."""
        last, batch = 0, []
        for seq, entry in self._rows("ASC", 0):
            last = seq
            batch.append((seq, entry))
            if len(batch) == BATCH:
                yield batch
                batch = []
        size, behind = 0, []
        for seq, entry in self._rows("DESC", last):
            size += len(entry.body)
            if size > BEHIND_MAX_B:
                break
            behind.append((seq, entry))
        behind.reverse()
        for start in range(0, len(behind), BATCH):
            yield batch + behind[start : start + BATCH]
            batch = []
        if batch:
            yield batch

    def _rows(self, order: str, above: int) -> Iterator[tuple[int, Entry]]:
        statement = f"SELECT seq, kind, queued_ms, body FROM outbox WHERE seq > ? ORDER BY seq {order}"
        with contextlib.suppress(sqlite3.Error):
            for seq, kind, queued_ms, body in self._db.execute(statement, (above,)):
                if isinstance(seq, int) and isinstance(queued_ms, int) and isinstance(body, bytes):
                    yield seq, Entry(POSITION if kind == POSITION else OTHER, queued_ms, body)

    def memories(self) -> list[AlarmMemory]:
        found = []
        with contextlib.suppress(sqlite3.Error):
            for key, alarm, stage, raised, data in self._db.execute(
                "SELECT key, alarm, stage, raised, data FROM alarm"
            ):
                if isinstance(key, bytes) and isinstance(alarm, str) and isinstance(stage, int):
                    kept = data if isinstance(data, bytes) else b""
                    found.append(AlarmMemory(key, alarm, stage, raised if isinstance(raised, float) else 0.0, kept))
        return found

    def values(self) -> list[tuple[str, bytes]]:
        with contextlib.suppress(sqlite3.Error):
            found = self._db.execute("SELECT key, value FROM state").fetchall()
            return [(key, value) for key, value in found if isinstance(key, str) and isinstance(value, bytes)]
        return []
