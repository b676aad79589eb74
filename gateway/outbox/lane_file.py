"""One lane's file: rows are on disk when `commit` returns, and stay until the city has them (routine rows may be shed).

It is SQLite in WAL mode with synchronous=FULL: of the stores compared under simulated power cuts, this one lost no
acknowledged row. `rows` holds the tables, `ballast` the files next to this one, `salvage` the repair of a broken file,
`open_files` finds a file that is taken away under us, and `recent` holds the newest rows for that case. When the disk
can no longer be written, the file is still read, so that its rows are sent. Everything here blocks, and one thread at a
time calls it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.effects import AlarmMemory
from gateway.health import OnHealth
from gateway.outbox import recent, rows, salvage
from gateway.outbox.ballast import Ballast, Mark, Marked
from gateway.outbox.losses import Loss, compare
from gateway.outbox.open_files import OpenFiles
from gateway.outbox.recent import Recent
from gateway.outbox.rows import Entry, Page, transaction

SHED_ROWS = 2000
_WHO = "See who works on this disk"
TOLD_TENDS = 3
"""A loss counts as told after this many `tend`: its report is on disk by then. Until then each start tells it again."""


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
        self._demoted = False
        """Whether `_read_only_db` is one that was opened for writing, until a write failed."""
        self._orphaned = ""
        """Why `_read_only_db` is a connection to a file that is no longer there, until its rows are in a new file."""
        self._files = OpenFiles(self.path)
        self._recent = Recent()
        self._left: Marked | None = None
        """The file as this process left it after its last work; None before it had one open."""
        self._is_new = False
        """Whether the file is one that a salvage has just made, so it has no mark."""
        self._untold_tends = 0
        self._open_problems: set[str] = set()
        self.epoch = ""
        self.last_seq = 0
        self.upto = 0
        """Up to this seq the city has the rows."""
        self.backlog = 0
        self.counters = {"shed_positions": 0, "shed_others": 0, "set_aside": 0, "salvaged": 0, "full": 0, "failed": 0}
        self._open()

    # ---- what the lanes call ----------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], memory: AlarmMemory | None = None) -> list[int]:
        """Put rows (and a memory) on disk in one transaction; return the rows' seqs. Raises NotCommitted."""

        def done(seqs: list[int]) -> None:
            self.backlog += len(seqs)
            self.last_seq = seqs[-1] if seqs else self.last_seq
            self._recent.keep(seqs, entries, memory)

        self._persist(lambda db: rows.insert(db, entries, memory), done)
        self._tell("disk_full", True, "room again")
        self._tell("not_durable", True, "rows are on disk again")
        return list(range(self.last_seq - len(entries) + 1, self.last_seq + 1))

    def remember(self, memory: AlarmMemory) -> None:
        """Put a memory on disk. Raises NotCommitted."""
        self._persist(lambda db: rows.insert(db, (), memory), lambda _: self._recent.keep((), (), memory))

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

        def done(gone: list[int]) -> None:
            self.backlog -= gone[0]
            self.upto = max(self.upto, upto)
            self._recent.delivered(upto)

        try:
            return self._persist(lambda db: [db.execute("DELETE FROM outbox WHERE seq <= ?", (upto,)).rowcount], done)[
                0
            ]
        except NotCommitted:
            return 0  # the city repeats its watermark

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
            self._files.worked()
            if shed:
                self._recent.load({})  # what was shed must not come back
                self._on_health(
                    "shed",
                    False,
                    f"{shed} routine rows dropped because there was no room, positions first; the city has not "
                    "acknowledged for long, or the disk is small: look at the uplink, or give store.bulk_max_mb more",
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
        if self._db is None or (not self._intact() and self._db is None):
            return
        self._loss_was_told()
        self.mark.write(self._marked(), sync=True)
        self.ballast.restore()
        if self.max_b is not None:
            with contextlib.suppress(sqlite3.Error):
                if self.used_b() > self.max_b:
                    self.shed(self.max_b * 15 // 16)

    def close(self) -> None:
        """Write the mark and close the file; its rows stay."""
        if self._db is not None:
            self.mark.write(self._marked(), sync=True)
        self._shut()

    # ---- transactions -----------------------------------------------------------------------------------------------

    def _persist(
        self, work: Callable[[sqlite3.Connection], list[int]], done: Callable[[list[int]], None] | None = None
    ) -> list[int]:
        """Run a transaction in at most 3 tries: after an error, try again if `_trouble` helped. Raises NotCommitted.

        done is called after the transaction. When this returns, the files it went to were at their path after it.
        """
        error: sqlite3.Error | None = None
        for _ in range(3):
            if self._db is None:
                self._open()
            if self._db is None:
                break
            if not self._intact():
                continue
            try:
                with transaction(self._db):
                    found = work(self._db)
            except sqlite3.Error as caught:
                error = caught
                if not self._trouble(caught):
                    break
                continue
            if done is not None:
                done(found)
            self._left = self._marked()
            self._files.worked()
            if not self._intact() and self._db is None:
                break
            self.mark.write(self._marked())
            return found
        self.counters["failed"] += 1
        why = str(error) if error else "the file cannot be opened"
        detail = f"{self.path}: {why}; nothing is kept over a power cut until this disk can be written again"
        self._tell("not_durable", False, detail)
        raise NotCommitted(detail)

    def _trouble(self, error: sqlite3.Error) -> bool:
        """React to this error; return whether another try may succeed."""
        if self._db is not None and (lost := self._files.lost()):
            self._take_back(lost)
            return self._db is not None
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
            self._salvage(f"{self.path}: {error}", still_open=self._read_only_db if self._orphaned else None)
            return self._db is not None
        if self._db is not None:  # it can still read the log; the next try opens another one: the disk may work again
            self._db, self._read_only_db, self._demoted = None, self._db, True
        self._open_read_only(error)
        return False

    def _shrink(self) -> None:
        if self._db is not None:
            try:
                self._db.execute("PRAGMA incremental_vacuum").fetchall()
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._files.worked()

    # ---- opening ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._demoted and (lost := self._files.lost()):
            self._orphaned = self._words(lost)
        if self._orphaned:
            self._salvage(self._orphaned, still_open=self._read_only_db)
            return
        error: Exception | None = None
        demoted, self._read_only_db = (self._read_only_db, None) if self._demoted else (None, self._read_only_db)
        self._shut()  # a connection that was opened for reading only would prevent SQLite from writing the file
        for _ in range(2):
            try:
                self._connect()
                break
            except sqlite3.Error as caught:
                error = caught
                if salvage.code_of(caught) in salvage.BROKEN:
                    self._salvage(f"{self.path}: {caught}")
                    break
                if salvage.code_of(caught) != sqlite3.SQLITE_FULL or not self._release_ballast():
                    break
            except OSError as caught:
                error = caught
                break
        if self._db is None:
            self._read_only_db, self._demoted = demoted, demoted is not None
            self._open_read_only(error)
        elif demoted is not None:
            _close(demoted)

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
        stood_in = salvage.stand_in(self.path)
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        if fresh:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite gives its log the mode of this file
        db = rows.connect(self.path, checkpoint_pages=100 if self.max_b is None else 1000)
        try:
            salvage.check(db)
            rows.prepare(db, self._utc_now().isoformat())
            epoch = rows.epoch_of(db) or ""
            known = None if self._is_new else self._left or self.mark.read()
            loss = compare(known, epoch, rows.extent(db)[0], self._recent.rows, fresh=fresh or self._is_new)
            if loss is not None:
                epoch = self._new_epoch(db, loss)
            elif untold := rows.untold(db):
                self._tell_loss(untold)
            self._count_rows(db)
            os.chmod(self.path, 0o600)
            if fresh:
                salvage.sync_folder(self.folder)
            self._files.opened()
        except BaseException:
            db.close()
            raise
        self._db, self._is_new = db, False
        self.epoch = epoch
        if stood_in:
            text = f"{self.path} was missing or emptied, its log had {self.backlog} rows, and they are in it again"
            self._on_health("store_lost", False, f"{text}. {_WHO}")
        self._tell("not_durable", True, "the file can be written again")
        self._left = self._marked()
        self.mark.write(self._left, sync=True)
        self.ballast.restore()

    def _shut(self) -> None:
        for db in (self._db, self._read_only_db):
            if db is not None:
                _close(db)
        self._db = self._read_only_db = None
        self._demoted, self._orphaned = False, ""

    # ---- old copies, lost and broken files ---------------------------------------------------------------------------

    def _marked(self) -> Marked:
        return Marked(self.epoch, self.last_seq, min(self.upto, self.last_seq))

    def _new_epoch(self, db: sqlite3.Connection, loss: Loss) -> str:
        """Keep the rows under a new epoch, numbered from 1 again: the old seqs of this file are no longer valid.

        Raises sqlite3.Error.
        """
        epoch = rows.new_epoch()
        with transaction(db):
            rows.renumber(db, epoch)
            rows.insert(db, list(loss.back.values()))
            for memory in self._recent.memories():
                rows.insert(db, (), memory)
            self._insert_lost_row(db, loss.lost)
            words = f"{self.path}: {loss.why}; new epoch {epoch}, what it holds is sent again"
            before = rows.untold(db)
            rows.set_untold(db, f"{words}; before that, {before}" if before else words)
        self._tell_loss(words)
        return epoch

    def _insert_lost_row(self, db: sqlite3.Connection, lost: str) -> None:
        """Let the city open an incident for emergencies that are gone, within the caller's transaction."""
        if lost and self.max_b is None:
            rows.insert(db, [rows.lost_row(f"{lost} were lost on the gateway", milliseconds(self._utc_now()))])

    def _tell_loss(self, words: str) -> None:
        self._untold_tends = TOLD_TENDS
        self._on_health("store_rolled_back", False, words)

    def _loss_was_told(self) -> None:
        self._untold_tends -= self._untold_tends > 0
        if self._untold_tends == 1 and self._db is not None:
            with contextlib.suppress(sqlite3.Error), transaction(self._db):
                rows.set_untold(self._db, "")

    def _rolled_back(self, detail: str) -> None:
        if self._db is None:
            return  # a file that is only read takes no new epoch; the city repeats its watermark
        try:
            self.epoch = self._new_epoch(self._db, Loss(detail, "", {}))
            self._count_rows(self._db)
        except sqlite3.Error as error:
            self._trouble(error)
        else:
            self._left = self._marked()
            self._files.worked()
            self.mark.write(self._left, sync=True)

    def _count_rows(self, db: sqlite3.Connection) -> None:
        """Read from a file what is kept of it in memory. Raises sqlite3.Error."""
        self.last_seq, self.backlog = rows.extent(db)
        first_seq = rows.first_seq(db)
        self.upto = self.last_seq if first_seq is None else max(first_seq - 1, 0)
        self._recent.load(rows.newest(db, recent.ROWS_MAX, recent.BYTES_MAX))

    def _intact(self) -> bool:
        """Return whether the open files are at their path; if not, take back what they hold, and reopen."""
        lost = self._files.lost()
        if lost:
            self._take_back(lost)
        return not lost

    def _take_back(self, lost: dict[str, str]) -> None:
        """Get what is in files that were taken away under us into files that a restart finds.

        SQLite still has them open. If only its log was unlinked, moving the log into the file loses nothing.
        """
        what = self._words(lost)
        if "" not in lost and self._log_moved():
            self._on_health("store_lost", False, f"{what}; what it held is in the file, no row is lost. {_WHO}")
            self._open()
        else:
            self._salvage(what, still_open=self._db)

    def _words(self, lost: dict[str, str]) -> str:
        return ", ".join(f"{self.path}{end} was {word}" for end, word in lost.items()) + " under a running gateway"

    def _log_moved(self) -> bool:
        """Move the open log into the file and close both; return False, with all as it was, if that is not possible."""
        assert self._db is not None
        try:
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error:
            return False
        if busy:
            return False
        self._shut()
        with contextlib.suppress(OSError):
            for end in ("-wal", "-shm"):  # another log under this name would be read as if it were ours
                Path(f"{self.path}{end}").unlink(missing_ok=True)
        return True

    def _salvage(self, detail: str, still_open: sqlite3.Connection | None = None) -> None:
        """Copy the readable rows into a new file with a new epoch, and set the old file aside."""
        if still_open is None:
            self._shut()
        known = self._left or self.mark.read()
        expected = self.backlog if self._left else known.seq - known.upto if known else 0
        try:
            if still_open is not None:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            created = self._utc_now().isoformat()
            saved = salvage.rescue(self.path, still_open, created, self._release_ballast, self._recent)
            self._shut()
            aside = self._swap_in()
            self._connect()
        except (sqlite3.Error, OSError) as error:
            if still_open is not None and still_open is self._db:
                self._db, self._read_only_db, self._orphaned = None, still_open, detail  # still read; tried again
                self._on_health("store_lost", False, f"{detail}; it is still read, and its rows are sent. {_WHO}")
            elif not self._orphaned:
                self._shut()
            self._tell("not_durable", False, f"{detail}; no new file can be made ({error})")
            return
        self.counters["set_aside"] += 1
        self.counters["salvaged"] += saved
        text = f"{detail}; {saved} rows saved, new epoch {self.epoch}"
        if known is not None and saved < expected:
            lost = f"{expected - saved} of rows {known.upto + 1} to {known.seq} of epoch {known.epoch}"
            text += f"; {lost} are gone"
            if self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    with transaction(self._db):
                        self._insert_lost_row(self._db, lost)
                    self._count_rows(self._db)
                    self._left = self._marked()
        text += f"; set aside as {aside}" if aside else ""
        if still_open is not None:
            self._on_health("store_lost", False, f"{text}. {_WHO}")
        else:
            self._on_health("store_corrupt", False, f"{text}; look at this disk, it is likely worn out")

    def _swap_in(self) -> str:
        if not self.path.with_suffix(".new.db").exists():
            return ""
        self.mark.forget()
        self._is_new = True
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


def _close(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        db.close()


def milliseconds(at: datetime) -> int:
    """Return a UTC time in whole milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def utc_from_ms(queued_ms: int) -> datetime:
    """Return the UTC time of whole milliseconds since 1970; a value out of range becomes 1970."""
    try:
        return datetime.fromtimestamp(queued_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
