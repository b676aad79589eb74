"""The tables of a lane's file, and what they hold: rows in order, remembered alarms, values of the core.

meta    key, value                       epoch, created; untold: a loss that the operator may not have heard of yet
outbox  seq, kind, queued_ms, body       kind 0: a position, the first kind to be shed
alarm   key, alarm, stage, raised, data  what the core must remember of each alarm (emergency lane)
state   key, value                       the core's snapshot (routine lane)
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.effects import AlarmMemory

POSITION, OTHER = 0, 1
ALARMS_MAX = 2000
MEMORY_MAX_B = 4096
WAL_MAX_B = 4 * 1024 * 1024
BUSY_TIMEOUT_MS = 2000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL,
                                  queued_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS position ON outbox(seq) WHERE kind = 0;
CREATE TABLE IF NOT EXISTS alarm(key BLOB PRIMARY KEY, alarm TEXT NOT NULL, stage INTEGER NOT NULL,
                                 raised REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS state(key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to commit."""

    kind: int
    queued_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as it is stored."""

    seq: int
    queued_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and the seq of the stored row before the first of them (0: none)."""

    before: int
    rows: tuple[StoredRow, ...]


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run the block in one transaction: after the block, all of it is on disk, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def connect(path: Path, *, checkpoint_pages: int) -> sqlite3.Connection:
    """Open a file for writing, such that what is committed outlives a power cut. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    try:
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"journal_size_limit={WAL_MAX_B}",
            f"wal_autocheckpoint={checkpoint_pages}",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "cell_size_check=ON",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, created: str) -> None:
    """Create the tables that are missing; a new file gets an epoch. Raises sqlite3.Error."""
    with transaction(db):
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        if epoch_of(db) is None:
            db.execute("INSERT INTO meta VALUES('epoch', ?), ('created', ?)", (new_epoch(), created))


def new_epoch() -> str:
    return secrets.token_hex(4)


def epoch_of(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    return str(row[0]) if row else None


def extent(db: sqlite3.Connection) -> tuple[int, int]:
    """Return (the highest seq ever assigned, the number of rows). Raises sqlite3.Error."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return int(row[0]) if row else 0, int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])


def insert(db: sqlite3.Connection, entries: Sequence[Entry], memory: AlarmMemory | None = None) -> list[int]:
    """Insert rows and a memory, within the caller's transaction; return the rows' seqs. Raises sqlite3.Error.

    Above ALARMS_MAX memories the oldest are deleted, those of closed alarms first.
    """
    seqs = []
    for entry in entries:
        row = (entry.kind, entry.queued_ms, entry.body)
        seqs.append(db.execute("INSERT INTO outbox(kind, queued_ms, body) VALUES(?, ?, ?)", row).lastrowid or 0)
    if memory is not None:
        data = memory.data if len(memory.data) <= MEMORY_MAX_B else b""
        db.execute(
            "INSERT INTO alarm(key, alarm, stage, raised, data) VALUES(?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE "
            "SET alarm = excluded.alarm, stage = excluded.stage, raised = excluded.raised, data = excluded.data",
            (memory.key, memory.alarm, memory.stage, memory.raised_utc_s, data),
        )
        db.execute(
            "DELETE FROM alarm WHERE key IN (SELECT key FROM alarm ORDER BY stage < 5, raised "
            "LIMIT max(0, (SELECT count(*) FROM alarm) - ?))",
            (ALARMS_MAX,),
        )
    return seqs


def page(db: sqlite3.Connection, after: int, rows_max: int, bytes_max: int) -> Page:
    """Return up to rows_max rows after seq `after`, at least one if there is one. Raises sqlite3.Error."""
    found = db.execute("SELECT seq, queued_ms, body FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after, rows_max))
    size = 0
    rows: list[StoredRow] = []
    for seq, queued_ms, body in found:
        size += len(body)
        if rows and size > bytes_max:
            break
        rows.append(StoredRow(seq, queued_ms, bytes(body)))
    found.close()
    if not rows:
        return Page(0, ())
    before = db.execute("SELECT max(seq) FROM outbox WHERE seq < ?", (rows[0].seq,)).fetchone()[0]
    return Page(before or 0, tuple(rows))


def lost_row(words: str, queued_ms: int) -> Entry:
    """Return a row that stands for emergencies that are gone. It is no event, on purpose: the city opens an incident
    for an emergency that it cannot read, because a child may have sent it. These may be such."""
    return Entry(OTHER, queued_ms, msgspec.json.encode({"event": words}))


def untold(db: sqlite3.Connection) -> str:
    """Return the loss that the operator may not have heard of yet, or "". Raises sqlite3.Error."""
    row = db.execute("SELECT value FROM meta WHERE key = 'untold'").fetchone()
    return str(row[0]) if row else ""


def set_untold(db: sqlite3.Connection, words: str) -> None:
    """Keep a loss until it is told; "": it is. Within the caller's transaction. Raises sqlite3.Error."""
    db.execute("DELETE FROM meta WHERE key = 'untold'")
    if words:
        db.execute("INSERT INTO meta VALUES('untold', ?)", (words,))


def first_seq(db: sqlite3.Connection) -> int | None:
    """Return the seq of the oldest row, None if there is none. Raises sqlite3.Error."""
    found: int | None = db.execute("SELECT min(seq) FROM outbox").fetchone()[0]
    return found


def newest(db: sqlite3.Connection, rows_max: int, bytes_max: int) -> dict[int, Entry]:
    """Return the newest rows by seq, in order, within both limits. Raises sqlite3.Error."""
    found: list[tuple[int, Entry]] = []
    size = 0
    select = "SELECT seq, kind, queued_ms, body FROM outbox ORDER BY seq DESC LIMIT ?"
    for seq, kind, queued_ms, body in db.execute(select, (rows_max,)):
        size += len(body)
        if size > bytes_max:
            break
        found.append((seq, Entry(kind, queued_ms, bytes(body))))
    return dict(reversed(found))


def renumber(db: sqlite3.Connection, epoch: str) -> None:
    """Put all rows under a new epoch, from 1 again, within the caller's transaction. Raises sqlite3.Error."""
    first = first_seq(db)
    if first is not None and first > 1:
        db.execute("UPDATE outbox SET seq = seq - ?", (first - 1,))
    last = db.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0]
    db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (last,))
    db.execute("INSERT OR REPLACE INTO meta VALUES('epoch', ?)", (epoch,))


def used_b(db: sqlite3.Connection) -> int:
    """Return the bytes of the pages in use. Raises sqlite3.Error."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def read_only(path: Path) -> sqlite3.Connection | None:
    """Open a file for reading on a disk that cannot be written; None if that is not possible.

    Without a log (-wal) next to it, the file is complete: it can be read without the files that SQLite would create.
    """
    for how in ("mode=ro", "mode=ro&immutable=1"):
        if "immutable" in how and Path(f"{path}-wal").exists():
            break
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None,
                                 check_same_thread=False)  # fmt: skip
        except sqlite3.Error:
            continue
        try:
            if epoch_of(db) is not None:
                return db
        except sqlite3.Error:
            pass
        db.close()
    return None
