"""One lane's file: rows that are on disk when `commit` returns, and leave only when the city has them.

    meta    key, value                       epoch, created
    outbox  seq, kind, queued_ms, body       kind 0: a position, the first to be shed
    alarm   key, alarm, stage, raised, data  what the core must remember of each press (emergency lane)
    state   key, value                       the core's snapshot (bulk lane)

SQLite in WAL mode with synchronous=FULL: of the stores compared under simulated power cuts it lost no acknowledged row.
Beside the file lie a ballast (room that a full disk cannot take: even DELETE needs some) and a mark (epoch and last
seq, so that an old copy of the file, put back, is known as such and starts a new epoch). Everything here blocks, and
is called by one thread at a time.
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gateway.effects import AlarmMemory

POSITION, OTHER = 0, 1
WAL_MAX_B = 4 * 1024 * 1024
BUSY_TIMEOUT_MS = 2000
ALARMS_MAX = 2000
MEMORY_MAX_B = 4096
SET_ASIDE_MAX = 3
SHED_ROWS = 2000
SALVAGE_LOT = 1000
SALVAGE_BEHIND_MAX_B = 64 * 1024 * 1024
CHECK_MAX_S = 2.0
"""A long check of a large file stops here: the gateway must start."""
ROOM_FACTOR = 4
"""The ballast comes back when the disk has this many times its size free."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL,
                                  queued_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS position ON outbox(seq) WHERE kind = 0;
CREATE TABLE IF NOT EXISTS alarm(key BLOB PRIMARY KEY, alarm TEXT NOT NULL, stage INTEGER NOT NULL,
                                 raised REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS state(key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class NotCommitted(Exception):
    """These rows are not on disk, and trying again at once is no use. The text names the file and the next step."""


class Notice(Protocol):
    """How a store tells its operator: a stable word, whether it is well again, a sentence."""

    def __call__(self, what: str, ok: bool, detail: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to commit."""

    kind: int
    queued_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A row as it lies there."""

    seq: int
    queued_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and the seq of the row before the first of them (0: none)."""

    before: int
    rows: tuple[Kept, ...]


class Store:
    """A lane's file, its ballast and its mark. Opening never raises: a store that cannot work says so at `commit`."""

    def __init__(
        self,
        folder: Path,
        lane: str,
        *,
        notice: Notice,
        utc_now: Callable[[], datetime],
        ballast_b: int,
        max_b: int | None = None,
    ) -> None:
        self.folder, self.lane, self.max_b = folder, lane, max_b
        self.path = folder / f"{lane}.db"
        self.ballast = folder / f"{lane}.ballast"
        self.mark = folder / f"{lane}.mark"
        self._ballast_b = ballast_b
        self._notice, self._utc_now = notice, utc_now
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._marked: tuple[str, int] = ("", 0)
        self._unwell: set[str] = set()
        self.epoch = ""
        self.last_seq = 0
        self.backlog = 0
        self.counters = {"shed_positions": 0, "shed_others": 0, "set_aside": 0, "salvaged": 0, "full": 0, "failed": 0}
        self._open()

    # ---- what the lanes do ------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], memory: AlarmMemory | None = None) -> list[int]:
        """Put rows (and a memory) on disk in one transaction and return their seqs. Raises NotCommitted."""
        seqs = self._persist(lambda db: self._insert(db, entries, memory))
        self.backlog += len(seqs)
        if seqs:
            self.last_seq = seqs[-1]
        self._tell("disk_full", True, "room again")
        self._tell("not_durable", True, "rows are on disk again")
        return seqs

    def remember(self, memory: AlarmMemory) -> None:
        """Keep a memory. Raises NotCommitted."""
        self._persist(lambda db: self._insert(db, (), memory))

    def save(self, key: str, value: bytes) -> None:
        """Keep a value of the core's. Raises NotCommitted."""
        statement = "INSERT OR REPLACE INTO state(key, value) VALUES(?, ?)"
        self._persist(lambda db: [db.execute(statement, (key, value)).rowcount])

    def read(self, after: int, rows_max: int, bytes_max: int) -> Page:
        """Return up to rows_max rows behind `after`, at least one if there is one. A store in trouble shows none."""
        if self._db is None:
            return Page(0, ())
        try:
            found = self._db.execute(
                "SELECT seq, queued_ms, body FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after, rows_max)
            ).fetchall()
            size = 0
            rows: list[Kept] = []
            for seq, queued_ms, body in found:
                size += len(body)
                if rows and size > bytes_max:
                    break
                rows.append(Kept(seq, queued_ms, bytes(body)))
            if not rows:
                return Page(0, ())
            before = self._db.execute("SELECT max(seq) FROM outbox WHERE seq < ?", (rows[0].seq,)).fetchone()[0]
            return Page(before or 0, tuple(rows))
        except sqlite3.Error as error:
            self._trouble(error)
            return Page(0, ())

    def acknowledged(self, epoch: str, upto: int) -> int:
        """Drop what the city has; return how many rows that was. Another epoch's word is ignored."""
        if epoch != self.epoch or upto <= 0:
            return 0
        if upto > self.last_seq:
            self._renew("rolled back", f"the city has rows up to {upto}, this file knows {self.last_seq}: an old copy")
            return 0
        try:
            gone = self._persist(lambda db: [db.execute("DELETE FROM outbox WHERE seq <= ?", (upto,)).rowcount])[0]
        except NotCommitted:
            return 0  # the city will say it again
        self.backlog -= gone
        return gone

    def memories(self) -> list[AlarmMemory]:
        """Return what was remembered, the oldest first."""
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                rows = self._db.execute("SELECT key, alarm, stage, raised, data FROM alarm ORDER BY raised").fetchall()
                return [
                    AlarmMemory(bytes(key), alarm, stage, raised, bytes(data))
                    for key, alarm, stage, raised, data in rows
                ]
        return []

    def saved(self, key: str) -> bytes | None:
        """Return a value of the core's, or None."""
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                row = self._db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
                return bytes(row[0]) if row else None
        return None

    def used_b(self) -> int:
        """Return the bytes of pages in use."""
        if self._db is None:
            return 0
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def shed(self, target_b: int) -> int:
        """Drop routine rows until at most target_b are used: positions first, the oldest first. Return how many."""
        before = self.counters["shed_positions"] + self.counters["shed_others"]
        db = self._db
        if db is None:
            return 0
        for counter, where in (("shed_positions", "kind = 0"), ("shed_others", "kind <> 0")):
            while self.used_b() > target_b:
                gone = db.execute(
                    f"DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE {where} ORDER BY seq LIMIT ?)",
                    (SHED_ROWS,),
                ).rowcount
                if gone <= 0:
                    break
                self.counters[counter] += gone
                self.backlog -= gone
        shed = self.counters["shed_positions"] + self.counters["shed_others"] - before
        if shed:
            self._notice(
                "shed",
                False,
                f"{shed} routine rows dropped for want of room, positions first; the city has not acknowledged for "
                "long, or the disk is small: look at the uplink, or give store.bulk_max_mb more",
            )
        return shed

    def relieve(self) -> None:
        """Give the disk room: shed a quarter of the routine rows and shrink the file."""
        with contextlib.suppress(sqlite3.Error):
            self._release_ballast()
            self.shed(self.used_b() * 3 // 4)
            self._shrink()

    def tend(self) -> None:
        """Do what is due every few seconds: reopen, write the mark, bring the ballast back, notice a lost file."""
        if self._db is None:
            self._open()
        try:
            lost = self._db is not None and self.path.stat().st_ino != self._inode
        except OSError:
            lost = True
        if lost and self._db is not None:
            self._notice("store_lost", False, f"{self.path} was removed or replaced under a running gateway")
            self._salvage_open()
        self._write_mark()
        self._bring_ballast()
        if self.max_b is not None:
            with contextlib.suppress(sqlite3.Error):
                if self.used_b() > self.max_b:
                    self.shed(self.max_b * 15 // 16)

    def close(self) -> None:
        """Write the mark and close; rows stay."""
        self._write_mark()
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    # ---- transactions -----------------------------------------------------------------------------------------------

    def _insert(self, db: sqlite3.Connection, entries: Sequence[Entry], memory: AlarmMemory | None) -> list[int]:
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

    def _persist(self, work: Callable[[sqlite3.Connection], list[int]]) -> list[int]:
        """Run a transaction; help a full disk or a broken file once each, then give up."""
        error: sqlite3.Error | None = None
        for _ in range(3):
            if self._db is None:
                self._open()
            if self._db is None:
                break
            try:
                with _transaction(self._db):
                    return work(self._db)
            except sqlite3.Error as caught:
                error = caught
                if not self._trouble(caught):
                    break
        self.counters["failed"] += 1
        why = str(error) if error else "the file cannot be opened"
        detail = f"{self.path}: {why}; nothing is kept over a power cut until this disk can be written again"
        self._tell("not_durable", False, detail)
        raise NotCommitted(detail)

    def _trouble(self, error: sqlite3.Error) -> bool:
        """Do what helps against this error; return whether another try has a chance."""
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            self.counters["full"] += 1
            self._tell(
                "disk_full", False, f"{self.folder} is full; free room on this disk. Emergencies use the ballast"
            )
            helped = self._release_ballast()
            if self.max_b is not None and self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    helped = self.shed(self.used_b() * 3 // 4) > 0 or helped
                    self._shrink()
            return helped
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._renew("corrupt", f"{error}")
            return self._db is not None
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.close()
        self._db = None  # the next try opens it again: a disk may come back
        return False

    def _shrink(self) -> None:
        if self._db is not None:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # ---- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.Error as error:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self._renew("corrupt", str(error))
                return
            if code == sqlite3.SQLITE_FULL and self._release_ballast():
                with contextlib.suppress(sqlite3.Error):
                    self._connect()
                    return
            self._db = None
        except OSError:
            self._db = None
        if self._db is None and not self.epoch:
            self.epoch = secrets.token_hex(4)

    def _connect(self) -> None:
        """Open or make the file. Raises sqlite3.Error, OSError."""
        fresh = not self.path.exists()
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            for pragma in (
                "auto_vacuum=INCREMENTAL",
                "journal_mode=WAL",
                "synchronous=FULL",
                f"journal_size_limit={WAL_MAX_B}",
                f"wal_autocheckpoint={100 if self.max_b is None else 1000}",
                f"busy_timeout={BUSY_TIMEOUT_MS}",
                "cell_size_check=ON",
            ):
                db.execute(f"PRAGMA {pragma}").fetchall()
            _check(db)
            with _transaction(db):
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                row = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
                epoch = str(row[0]) if row else secrets.token_hex(4)
                if not row:
                    created = self._utc_now().isoformat()
                    db.execute("INSERT INTO meta VALUES('epoch', ?), ('created', ?)", (epoch, created))
            row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
            last_seq = int(row[0]) if row else 0
            backlog = int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])
        except BaseException:
            db.close()
            raise
        os.chmod(self.path, 0o600)
        if fresh:
            _sync_folder(self.folder)
        self._db, self.epoch, self.last_seq, self.backlog = db, epoch, last_seq, backlog
        self._inode = self.path.stat().st_ino
        marked = self._read_mark()
        if marked is not None and not fresh and (marked[0] != epoch or marked[1] > last_seq):
            text = f"the mark says {marked[0]}/{marked[1]}, the file {epoch}/{last_seq}: an old copy was put back"
            self._new_epoch(text)
        self._write_mark()
        self._bring_ballast()

    def _new_epoch(self, detail: str) -> None:
        """Keep the rows under a new epoch, numbered from 1 again: no seq of this file means what it once meant."""
        assert self._db is not None
        epoch = secrets.token_hex(4)
        with _transaction(self._db) as db:
            first = db.execute("SELECT min(seq) FROM outbox").fetchone()[0]
            if first is not None and first > 1:
                db.execute("UPDATE outbox SET seq = seq - ?", (first - 1,))
            last = db.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0]
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (last,))
            db.execute("INSERT OR REPLACE INTO meta VALUES('epoch', ?)", (epoch,))
        self.epoch, self.last_seq = epoch, int(last)
        self._write_mark()
        self._notice(
            "store_rolled_back", False, f"{self.path}: {detail}; new epoch {epoch}, what it holds is sent again"
        )

    def _renew(self, why: str, detail: str) -> None:
        if why == "rolled back" and self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._new_epoch(detail)
                return
        self._salvage_open(detail)

    def _salvage_open(self, detail: str = "the file is gone") -> None:
        """Set the file aside, start a new one, and carry over every row that can still be read."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None
        self.counters["set_aside"] += 1
        aside = self.folder / f"{self.lane}-{self._utc_now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}.db"
        try:
            for end in ("", "-wal"):
                if (self.folder / f"{self.lane}.db{end}").exists():
                    os.replace(self.folder / f"{self.lane}.db{end}", f"{aside}{end}")
            (self.folder / f"{self.lane}.db-shm").unlink(missing_ok=True)
            self.mark.unlink(missing_ok=True)
            self._connect()
        except (sqlite3.Error, OSError) as error:
            self._db = None
            self._tell("not_durable", False, f"{self.path}: {detail}; no new file can be made ({error})")
            return
        saved = 0
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_Wreck(aside)) as wreck:
            assert self._db is not None
            with _transaction(self._db) as db:
                for memory in wreck.memories():
                    self._insert(db, (), memory)
                for key, value in wreck.values():
                    db.execute("INSERT OR REPLACE INTO state(key, value) VALUES(?, ?)", (key, value))
            for entries in wreck.entries():
                with _transaction(self._db) as db:
                    self._insert(db, entries, None)
                saved += len(entries)
        self.backlog = self.last_seq = saved
        self.counters["salvaged"] += saved
        self._forget_oldest()
        self._write_mark()
        text = f"{self.path}: {detail}; set aside as {aside.name}, {saved} rows saved, new epoch {self.epoch}; "
        self._notice("store_corrupt", False, text + "look at this disk, it is likely worn out")

    def _forget_oldest(self) -> None:
        aside = sorted(self.folder.glob(f"{self.lane}-*.db"), key=lambda p: p.stat().st_mtime)
        for path in aside[:-SET_ASIDE_MAX]:
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)

    # ---- ballast, mark ----------------------------------------------------------------------------------------------

    def _release_ballast(self) -> bool:
        try:
            self.ballast.unlink()
        except OSError:
            return False
        self._notice("ballast_released", False, f"{self.ballast} was given up so that emergencies still fit")
        return True

    def _bring_ballast(self) -> None:
        try:
            if self.ballast.exists() and self.ballast.stat().st_size == self._ballast_b:
                return
            disk = os.statvfs(self.folder)
            if disk.f_bavail * disk.f_frsize < ROOM_FACTOR * self._ballast_b:
                return
            fd = os.open(self.ballast, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._ballast_b)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            with contextlib.suppress(OSError):
                self.ballast.unlink()

    def _read_mark(self) -> tuple[str, int] | None:
        try:
            mark = json.loads(self.mark.read_text("utf-8"))
            return str(mark["epoch"]), int(mark["seq"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write_mark(self) -> None:
        if self._db is None or self._marked == (self.epoch, self.last_seq):
            return
        fresh = self.mark.with_suffix(".mark.new")
        try:
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump({"epoch": self.epoch, "seq": self.last_seq}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.mark)
            self._marked = (self.epoch, self.last_seq)
        except OSError:
            pass  # it only ever lags; the next round writes it

    def _tell(self, what: str, ok: bool, detail: str) -> None:
        """Say a state once when it begins and once when it ends."""
        if ok == (what in self._unwell):
            (self._unwell.discard if ok else self._unwell.add)(what)
            self._notice(what, ok, detail)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _check(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError with the code of a corrupt file unless quick_check finds nothing in CHECK_MAX_S."""
    steps = iter(range(int(CHECK_MAX_S * 1000)))  # a step of the handler is 10,000 instructions, about a millisecond
    db.set_progress_handler(lambda: next(steps, None) is None, 10_000)
    try:
        found = [row[0] for row in db.execute("PRAGMA quick_check(1)").fetchall()]
    except sqlite3.OperationalError as error:
        if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_INTERRUPT:
            return
        raise
    finally:
        db.set_progress_handler(None, 0)
    if found != ["ok"]:
        corrupt = sqlite3.DatabaseError(f"quick_check: {str(found[0])[:200]}")
        corrupt.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise corrupt


class _Wreck:
    """A broken file, read for what can still be read. Every reading stops at the first error, none raises."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.text_factory = lambda data: data.decode("utf-8", "replace")

    def entries(self) -> Iterator[list[Entry]]:
        """Yield rows in order, in lots: from the front up to the damage, then what lies behind it."""
        last, lot = 0, []
        for seq, entry in self._rows("ASC", 0):
            last = seq
            lot.append(entry)
            if len(lot) == SALVAGE_LOT:
                yield lot
                lot = []
        size, behind = 0, []
        for _, entry in self._rows("DESC", last):
            size += len(entry.body)
            if size > SALVAGE_BEHIND_MAX_B:
                break
            behind.append(entry)
        behind.reverse()
        for start in range(0, len(behind), SALVAGE_LOT):
            yield lot + behind[start : start + SALVAGE_LOT]
            lot = []
        if lot:
            yield lot

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
                if (isinstance(key, bytes), isinstance(alarm, str), isinstance(stage, int)) == (True, True, True):
                    kept = data if isinstance(data, bytes) else b""
                    found.append(AlarmMemory(key, alarm, stage, raised if isinstance(raised, float) else 0.0, kept))
        return found

    def values(self) -> list[tuple[str, bytes]]:
        with contextlib.suppress(sqlite3.Error):
            rows = self._db.execute("SELECT key, value FROM state").fetchall()
            return [(key, value) for key, value in rows if isinstance(key, str) and isinstance(value, bytes)]
        return []

    def close(self) -> None:
        self._db.close()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def milliseconds(at: datetime) -> int:
    """Return a UTC time in whole milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def moment(queued_ms: int) -> datetime:
    """Return the UTC time of whole milliseconds since 1970; a value no clock gives becomes 1970."""
    try:
        return datetime.fromtimestamp(queued_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
