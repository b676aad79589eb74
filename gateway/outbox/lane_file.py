"""One lane's file: rows are on disk when `commit` returns, and stay until the city has them (routine rows may be shed).

It is SQLite in WAL mode with synchronous=FULL: of the stores compared under simulated power cuts, this one lost no
acknowledged row. `rows` holds the tables, `ballast` the files next to this one, `salvage` the repair of a broken file.
When the disk can no longer be written, the file is still read, so that its rows are sent. Everything here blocks, and
one thread at a time calls it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.effects import AlarmMemory
from gateway.health import OnHealth
from gateway.outbox import rows, salvage
from gateway.outbox.ballast import Ballast, Mark
from gateway.outbox.rows import Entry, Page, transaction

WAL_MAX_B = 4 * 1024 * 1024
BUSY_TIMEOUT_MS = 2000
SHED_ROWS = 2000


class NotCommitted(Exception):
    """These rows are not on disk, and an immediate retry cannot help. The text names the file and the next step."""


class LaneFile:
    """A lane's file, its ballast and its mark. Opening never raises: if the file cannot be used, `commit` raises."""

    def __init__(
        self,
        folder: Path,
        lane: str,
        *,
        on_health: OnHealth,
        utc_now: Callable[[], datetime],
        ballast_b: int,
        max_b: int | None = None,
    ) -> None:
        """max_b: above this many bytes the oldest rows are shed (dropped), positions first; None: no row is shed."""
        self.folder, self.lane, self.max_b = folder, lane, max_b
        self.path = folder / f"{lane}.db"
        self.ballast = Ballast(folder / f"{lane}.ballast", ballast_b)
        self.mark = Mark(folder / f"{lane}.mark")
        self._on_health, self._utc_now = on_health, utc_now
        self._db: sqlite3.Connection | None = None
        self._read_only_db: sqlite3.Connection | None = None
        """A connection for reading only, used while there is no `_db`."""
        self._inode = 0
        self._open_problems: set[str] = set()
        self.epoch = ""
        self.last_seq = 0
        self.backlog = 0
        self.counters = {"shed_positions": 0, "shed_others": 0, "set_aside": 0, "salvaged": 0, "full": 0, "failed": 0}
        self._open()

    # ---- what the lanes call ----------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], memory: AlarmMemory | None = None) -> list[int]:
        """Put rows (and a memory) on disk in one transaction; return the rows' seqs. Raises NotCommitted."""
        seqs = self._persist(lambda db: rows.insert(db, entries, memory))
        self.backlog += len(seqs)
        if seqs:
            self.last_seq = seqs[-1]
        self._tell("disk_full", True, "room again")
        self._tell("not_durable", True, "rows are on disk again")
        return seqs

    def remember(self, memory: AlarmMemory) -> None:
        """Put a memory on disk. Raises NotCommitted."""
        self._persist(lambda db: rows.insert(db, (), memory))

    def save(self, key: str, value: bytes) -> None:
        """Put a value of the core on disk. Raises NotCommitted."""
        statement = "INSERT OR REPLACE INTO state(key, value) VALUES(?, ?)"
        self._persist(lambda db: [db.execute(statement, (key, value)).rowcount])

    def read(self, after: int, rows_max: int, bytes_max: int) -> Page:
        """Return up to rows_max rows after seq `after`, at least one if there is one; none if the file has an error."""
        db = self._db or self._read_only_db
        if db is None:
            return Page(0, ())
        try:
            return rows.page(db, after, rows_max, bytes_max)
        except sqlite3.Error as error:
            self._trouble(error)
            return Page(0, ())

    def acknowledged(self, epoch: str, upto: int) -> int:
        """Delete the rows that the city has; return how many. A watermark of another epoch is ignored."""
        if epoch != self.epoch or upto <= 0:
            return 0
        if upto > self.last_seq:
            self._rolled_back(f"the city has rows up to {upto}, this file knows {self.last_seq}: an old copy")
            return 0
        try:
            gone = self._persist(lambda db: [db.execute("DELETE FROM outbox WHERE seq <= ?", (upto,)).rowcount])[0]
        except NotCommitted:
            return 0  # the city repeats its watermark
        self.backlog -= gone
        return gone

    def memories(self) -> list[AlarmMemory]:
        """Return the memories on disk, the oldest first."""
        db = self._db or self._read_only_db
        with contextlib.suppress(sqlite3.Error):
            if db is not None:
                found = db.execute("SELECT key, alarm, stage, raised, data FROM alarm ORDER BY raised").fetchall()
                return [
                    AlarmMemory(bytes(key), alarm, stage, raised, bytes(data))
                    for key, alarm, stage, raised, data in found
                ]
        return []

    def saved(self, key: str) -> bytes | None:
        """Return a value that `save` kept, or None."""
        db = self._db or self._read_only_db
        with contextlib.suppress(sqlite3.Error):
            if db is not None:
                row = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
                return bytes(row[0]) if row else None
        return None

    def used_b(self) -> int:
        """Return the bytes of the pages in use, 0 while the file is not open. Raises sqlite3.Error."""
        return rows.used_b(self._db) if self._db is not None else 0

    def shed(self, target_b: int) -> int:
        """Drop routine rows until at most target_b bytes are used: positions first, the oldest first. Return how many.

        Raises sqlite3.Error; rows dropped before the error stay dropped, and are counted.
        """
        before = self.counters["shed_positions"] + self.counters["shed_others"]
        if self._db is None or self.max_b is None:
            return 0
        try:
            for counter, where in (("shed_positions", "kind = 0"), ("shed_others", "kind <> 0")):
                while self.used_b() > target_b:
                    gone = self._db.execute(
                        f"DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE {where} ORDER BY seq LIMIT ?)",
                        (SHED_ROWS,),
                    ).rowcount
                    if gone <= 0:
                        break
                    self.counters[counter] += gone
                    self.backlog -= gone
        finally:
            shed = self.counters["shed_positions"] + self.counters["shed_others"] - before
            if shed:
                self._on_health(
                    "shed",
                    False,
                    f"{shed} routine rows dropped for want of room, positions first; the city has not acknowledged for "
                    "long, or the disk is small: look at the uplink, or give store.bulk_max_mb more",
                )
        return shed

    def relieve(self) -> None:
        """Free disk space: release the ballast, shed rows until 3/4 of the used bytes are left, shrink the file."""
        with contextlib.suppress(sqlite3.Error):
            self._release_ballast()
            self.shed(self.used_b() * 3 // 4)
            self._shrink()

    def tend(self) -> None:
        """Do the work due every few seconds: reopen, detect a lost file, write the mark, restore the ballast, shed."""
        if self._db is None:
            self._open()
        if self._db is None:
            return
        try:
            lost = self.path.stat().st_ino != self._inode
        except OSError:
            lost = True
        if lost:
            self._on_health("store_lost", False, f"{self.path} was removed or replaced under a running gateway")
            self._salvage("the file is gone", still_open=self._db)
        if self._db is None:
            return
        self.mark.write(self.epoch, self.last_seq)
        self.ballast.restore()
        if self.max_b is not None:
            with contextlib.suppress(sqlite3.Error):
                if self.used_b() > self.max_b:
                    self.shed(self.max_b * 15 // 16)

    def close(self) -> None:
        """Write the mark and close the file; its rows stay."""
        if self._db is not None:
            self.mark.write(self.epoch, self.last_seq)
        self._shut()

    # ---- transactions -----------------------------------------------------------------------------------------------

    def _persist(self, work: Callable[[sqlite3.Connection], list[int]]) -> list[int]:
        """Run a transaction in at most 3 tries: after an error, try again if `_trouble` helped. Raises NotCommitted."""
        error: sqlite3.Error | None = None
        for _ in range(3):
            if self._db is None:
                self._open()
            if self._db is None:
                break
            try:
                with transaction(self._db):
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
        """React to this error; return whether another try may succeed."""
        code = salvage.code_of(error)
        if code == sqlite3.SQLITE_FULL:
            self.counters["full"] += 1
            self._tell(
                "disk_full", False, f"{self.folder} is full; free room on this disk. Emergencies use the ballast"
            )
            helped = self._release_ballast()
            if self.max_b is not None:
                with contextlib.suppress(sqlite3.Error):
                    helped = self.shed(self.used_b() * 3 // 4) > 0 or helped
                    self._shrink()
            return helped
        if code in salvage.BROKEN:
            self._salvage(str(error))
            return self._db is not None
        self._shut()
        self._open_read_only(error)  # the next try opens it again: the disk may work again
        return False

    def _shrink(self) -> None:
        if self._db is not None:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # ---- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        error: Exception | None = None
        self._shut()  # a connection for reading only would prevent SQLite from writing the file
        for _ in range(2):
            try:
                self._connect()
                break
            except sqlite3.Error as caught:
                error = caught
                if salvage.code_of(caught) in salvage.BROKEN:
                    self._salvage(str(caught))
                    break
                if salvage.code_of(caught) != sqlite3.SQLITE_FULL or not self._release_ballast():
                    break
            except OSError as caught:
                error = caught
                break
        if self._db is None:
            self._open_read_only(error)

    def _open_read_only(self, error: Exception | None) -> None:
        """Open the file for reading only, since it cannot be written: its rows are still sent."""
        if self._read_only_db is None:
            self._read_only_db = rows.read_only(self.path)
            with contextlib.suppress(sqlite3.Error):
                if self._read_only_db is not None:
                    self.epoch = rows.epoch_of(self._read_only_db) or self.epoch
                    self.last_seq, self.backlog = rows.extent(self._read_only_db)
        self.epoch = self.epoch or rows.new_epoch()
        said = "it can be read, no more" if self._read_only_db is not None else "it cannot be opened"
        self._tell(
            "not_durable", False, f"{self.path}: {said} ({error}); look at this disk, and at who may write there"
        )

    def _connect(self) -> None:
        """Open or create the file. Raises sqlite3.Error, OSError."""
        self._swap_in()
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite gives its log the mode of this file
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
            salvage.check(db)
            rows.prepare(db, self._utc_now().isoformat())
            epoch = rows.epoch_of(db) or ""
            last_seq, backlog = rows.extent(db)
            marked = self.mark.read()
            if marked is not None and not fresh and (marked[0] != epoch or marked[1] > last_seq):
                text = f"the mark says {marked[0]}/{marked[1]}, the file {epoch}/{last_seq}: an old copy was put back"
                epoch, last_seq = self._new_epoch(db, text)
            os.chmod(self.path, 0o600)
            if fresh:
                salvage.sync_folder(self.folder)
            inode = self.path.stat().st_ino
        except BaseException:
            db.close()
            raise
        self._db, self._inode = db, inode
        self.epoch, self.last_seq, self.backlog = epoch, last_seq, backlog
        self._tell("not_durable", True, "the file can be written again")
        self.mark.write(epoch, last_seq)
        self.ballast.restore()

    def _shut(self) -> None:
        for db in (self._db, self._read_only_db):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
        self._db = self._read_only_db = None

    # ---- old copies, broken files -----------------------------------------------------------------------------------

    def _new_epoch(self, db: sqlite3.Connection, detail: str) -> tuple[str, int]:
        """Keep the rows under a new epoch, numbered from 1 again: the old seqs of this file are no longer valid."""
        epoch = rows.new_epoch()
        with transaction(db):
            first = db.execute("SELECT min(seq) FROM outbox").fetchone()[0]
            if first is not None and first > 1:
                db.execute("UPDATE outbox SET seq = seq - ?", (first - 1,))
            last = db.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()[0]
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (last,))
            db.execute("INSERT OR REPLACE INTO meta VALUES('epoch', ?)", (epoch,))
        self._on_health(
            "store_rolled_back", False, f"{self.path}: {detail}; new epoch {epoch}, what it holds is sent again"
        )
        return epoch, int(last)

    def _rolled_back(self, detail: str) -> None:
        if self._db is None:
            return  # a file that is only read takes no new epoch; the city repeats its watermark
        try:
            self.epoch, self.last_seq = self._new_epoch(self._db, detail)
        except sqlite3.Error as error:
            self._trouble(error)
        else:
            self.mark.write(self.epoch, self.last_seq)

    def _salvage(self, detail: str, still_open: sqlite3.Connection | None = None) -> None:
        """Copy the readable rows into a new file with a new epoch, and set the old file aside."""
        if still_open is None:
            self._shut()
        self.counters["set_aside"] += 1
        try:
            saved = salvage.rescue(self.path, still_open, self._utc_now().isoformat(), self._release_ballast)
            self._shut()
            aside = self._swap_in()
            self._connect()
        except (sqlite3.Error, OSError) as error:
            self._shut()
            self._tell("not_durable", False, f"{self.path}: {detail}; no new file can be made ({error})")
            return
        self.counters["salvaged"] += saved
        text = f"{self.path}: {detail}; {saved} rows saved, new epoch {self.epoch}"
        text += f"; set aside as {aside}" if aside else ""
        self._on_health("store_corrupt", False, f"{text}; look at this disk, it is likely worn out")

    def _swap_in(self) -> str:
        if not self.path.with_suffix(".new.db").exists():
            return ""
        self.mark.forget()
        return salvage.swap_in(self.path, self._utc_now())

    def _release_ballast(self) -> bool:
        released = self.ballast.release()
        if released:
            self._on_health(
                "ballast_released", False, f"{self.ballast.path} was given up so that emergencies still fit"
            )
        return released

    def _tell(self, what: str, ok: bool, detail: str) -> None:
        """Report a state once when it begins and once when it ends."""
        if ok == (what in self._open_problems):
            (self._open_problems.discard if ok else self._open_problems.add)(what)
            self._on_health(what, ok, detail)


def milliseconds(at: datetime) -> int:
    """Return a UTC time in whole milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def utc_from_ms(queued_ms: int) -> datetime:
    """Return the UTC time of whole milliseconds since 1970; a value out of range becomes 1970."""
    try:
        return datetime.fromtimestamp(queued_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
