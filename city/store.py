"""The city's store: its transactions, the order of its writers, and the deletion of old rows.

One process owns a gateway's watermark. On SQLite all writers of the process take turns (`Turn`), an emergency first,
because SQLite itself waits by polling, and a busy routine lane can starve that. On PostgreSQL there are no turns; it
locks rows. Every statement is SQLAlchemy Core and runs on both. SQLite uses WAL with `synchronous=FULL`: a power cut
loses nothing that was acknowledged. A ballast file next to it keeps room for emergencies on a full disk.
"""

import contextlib
import errno
import fcntl
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, make_url, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from city import tables as t
from city.ballast import StoreBallast
from city.threads import Kept
from gateway.events import ROUTINE_TYPES

BUSY_TIMEOUT_MS = 1000
"""How long a transaction waits for another program that has locked the store. All writers of the city take turns."""
TURN_MAX_S = 2.0
"""How long an emergency or a person's press waits for its turn. Then it goes on in memory (`city.standby`)."""
ROUTINE_TURN_MAX_S = 10.0
POOL_TIMEOUT_S = 3.0
TEND_S = 5.0
SERVER = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c lock_timeout=2000 -c statement_timeout=10000 -c idle_in_transaction_session_timeout=30000",
}
"""A database server that has gone away silently ends a transaction within seconds, as a locked file does."""
GIVE_WAY_MAX_S = 0.25
"""Routine work waits at most this long at each of its stops. A flood of emergencies slows the routine lane, but does
not stop it."""
CHECKPOINT_ROWS = 2000
"""New rows of a lane between two WAL checkpoints. The lane makes them between its transactions. The WAL stays small."""


log = structlog.get_logger()


class StoreError(RuntimeError):
    """The store cannot be opened. The message says what to do."""


class StoreTaken(StoreError):
    """Another city has the store. The message says which, as far as that is known, and the next step."""


class StoreAway(SQLAlchemyError):
    """The store takes no such transaction now. Transient: the same one may work later."""


class Turn:
    """Lets in one writer at a time, an emergency before all others that wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = False
        self._urgent = 0
        self._hurrying = 0

    @contextlib.contextmanager
    def take(self, *, urgent: bool) -> Iterator[None]:
        """Raises StoreAway after TURN_MAX_S, or ROUTINE_TURN_MAX_S if it is not urgent."""
        with self._changed:
            self._urgent += urgent
            try:
                patience_s = TURN_MAX_S if urgent else ROUTINE_TURN_MAX_S
                mine = self._changed.wait_for(lambda: not (self._held or (self._urgent and not urgent)), patience_s)
                if not mine:
                    raise StoreAway(f"another transaction has not ended for {patience_s:.0f} s; look at the disk")
                self._held = True
            finally:
                self._urgent -= urgent
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    @contextlib.contextmanager
    def hurry(self) -> Iterator[None]:
        """Mark that an emergency is being processed, from its arrival to its answer."""
        with self._changed:
            self._hurrying += 1
        try:
            yield
        finally:
            with self._changed:
                self._hurrying -= 1
                if not self._hurrying:
                    self._changed.notify_all()

    def give_way(self) -> None:
        """Wait here while an emergency is being processed. Never call this while you hold the turn.

        Only one thread of an interpreter runs Python at a time. Without this wait, every statement of an emergency
        would wait until the thread of the routine lane is interrupted.
        """
        if self._hurrying:
            with self._changed:
                self._changed.wait_for(lambda: not self._hurrying, GIVE_WAY_MAX_S)


class Store:
    """An open store. `write` and `read` yield a connection inside a transaction."""

    def __init__(self, url: str) -> None:
        """Open the store and make its tables. Raises StoreError."""
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.turn = Turn()
        self._statements: dict[tuple[Any, ...], Any] = {}
        self._tended_at = float("-inf")
        self.ballast: StoreBallast | None = None
        try:
            file = make_url(url).database if self.is_sqlite else None
            if file:
                self.ballast = StoreBallast(Path(f"{file}.ballast"))
            self._writer = self._engine("BEGIN IMMEDIATE")
            self._reader = self._engine("BEGIN")
            try:
                versions = self._prepare()
            except OperationalError as error:  # even opening needs room: for the WAL's index
                if not self.make_room(error):
                    raise
                versions = self._prepare()
        except ModuleNotFoundError as error:
            raise StoreError(f"store {_shown(url)}: no driver: {error}; pip install 'psycopg[binary]'") from None
        except SQLAlchemyError as error:
            with contextlib.suppress(AttributeError):  # a wrong URL is refused before there is an engine
                self.close()
            raise StoreError(
                f"store {_shown(url)}: cannot be opened: {error}; check the path, its owner and the disk"
            ) from None
        if versions not in ([], [t.SCHEMA]):
            self.close()
            raise StoreError(
                f"store {_shown(url)} has schema {versions}, this program writes {t.SCHEMA}: "
                "run the program that made it, or name a new file"
            )
        if self.ballast is not None:
            self.ballast.restore()

    def _prepare(self) -> Sequence[int]:
        with self._writer.begin() as c:
            t.metadata.create_all(c)
            versions = c.execute(select(t.schema_version.c.version)).scalars().all()
            if not versions:
                c.execute(t.schema_version.insert().values(version=t.SCHEMA))
        return versions

    # ---- a full disk -------------------------------------------------------------------------------------------------

    @property
    def low(self) -> bool:
        """Whether the ballast is gone: what room is left is for emergencies and for what people press."""
        return self.ballast is not None and not self.ballast.there

    @property
    def problem(self) -> str:
        """What is wrong with the store's disk, empty if nothing."""
        if self.ballast is None or self.ballast.there:
            return ""
        return (
            f"the disk of {self.ballast.path.parent} is full: only emergencies are written; "
            f"free {self.ballast.room_b // 2**20} MiB, then places and arrivals go on by themselves"
        )

    def make_room(self, error: BaseException) -> bool:
        """Release the ballast if this error is of a full disk. Return whether it freed space: then try again."""
        return self.ballast is not None and _is_full(error, self.ballast.path.parent) and self.ballast.release()

    def tend(self) -> None:
        """While the disk is full: fold the WAL, so that it does not eat the room, and look whether it has ended."""
        now_s = time.monotonic()
        if self.ballast is None or (self.ballast.there and now_s - self._tended_at < TEND_S):
            return
        self._tended_at = now_s
        if self.low:
            with contextlib.suppress(SQLAlchemyError):
                self.checkpoint()
        self.ballast.restore()

    def _engine(self, begin: str) -> Engine:
        if not self.is_sqlite:
            return create_engine(
                self.url, pool_pre_ping=True, pool_size=8, pool_timeout=POOL_TIMEOUT_S, connect_args=SERVER
            )
        engine = create_engine(
            self.url,
            pool_size=8,
            max_overflow=8,
            pool_timeout=POOL_TIMEOUT_S,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we send BEGIN: a write transaction takes its lock at once
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                f"busy_timeout={BUSY_TIMEOUT_MS}",
                "foreign_keys=ON",
                "temp_store=MEMORY",  # sorting needs no disk
                "secure_delete=ON",  # a deleted position leaves no coordinates in free pages
                "wal_autocheckpoint=0",  # `checkpoint` does it, outside every turn
                "journal_size_limit=67108864",
            ):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    @contextlib.contextmanager
    def write(self, *, urgent: bool = False) -> Iterator[Connection]:
        """Yield a connection in a write transaction. It commits at the end and rolls back on any exception."""
        with contextlib.ExitStack() as stack:
            if self.is_sqlite:
                stack.enter_context(self.turn.take(urgent=urgent))
            yield stack.enter_context(self._writer.begin())

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection in a read transaction, which sees the store at one moment."""
        with self._reader.begin() as connection:
            yield connection

    def checkpoint(self) -> None:
        """Move the WAL into the database file as far as no transaction is in the way. No transaction waits for it.

        Raises StoreAway if the disk does not take it.
        """
        if self.is_sqlite:
            connection = self._reader.raw_connection()  # a checkpoint cannot run inside a transaction
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").close()
            except sqlite3.Error as error:
                raise StoreAway(f"checkpoint: {error}; look at the disk") from None
            finally:
                connection.close()

    def close(self) -> None:
        """Close every connection."""
        self._writer.dispose()
        self._reader.dispose()

    # ---- the three statements that differ between the databases ------------------------------------------------------

    def insert_new(self, c: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert the rows that are not stored yet. Return how many were new: the database returns those it inserted."""
        key = next(iter(table.primary_key))
        statement = self._kept(("new", table.name), lambda: self.insert(table).on_conflict_do_nothing().returning(key))
        return len(c.execute(statement, list(rows)).all())

    def upsert(
        self, c: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, newer: str | None = None
    ) -> None:
        """Insert rows, or replace the stored ones. With `newer`, only where the value of that column is not lower."""
        if not rows:
            return

        def make() -> Any:
            statement = self.insert(table)
            keys = [column.name for column in table.primary_key]
            fresh = {column: statement.excluded[column] for column in rows[0] if column not in keys}
            where = statement.excluded[newer] >= table.c[newer] if newer else None
            return statement.on_conflict_do_update(index_elements=keys, set_=fresh, where=where)

        c.execute(self._kept(("upsert", table.name, newer, *rows[0]), make), list(rows))

    def add(
        self,
        c: Connection,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        *,
        sums: Sequence[str],
        sets: Sequence[str] = (),
    ) -> None:
        """Insert rows. If a row is stored already, add to its columns `sums` and set its columns `sets`."""

        def make() -> Any:
            statement = self.insert(table)
            keys = [column.name for column in table.primary_key]
            summed = {name: table.c[name] + statement.excluded[name] for name in sums}
            return statement.on_conflict_do_update(
                index_elements=keys, set_=summed | {name: statement.excluded[name] for name in sets}
            )

        if rows:
            c.execute(self._kept(("add", table.name, *sums, "=", *sets), make), list(rows))

    def count(self, c: Connection, amounts: Mapping[str, int], *, owner: str) -> None:
        """Add to the named counters, in the transaction of what they count. owner: LANE/GATEWAY, or a thread's name."""
        named = sorted(amounts.items())
        rows = [{"name": name[:64], "owner": owner[:48], "value": amount} for name, amount in named if amount]
        self.add(c, t.counter, rows, sums=("value",))

    def _kept(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return a statement that is built only once, because building one costs more than running it."""
        if key not in self._statements:
            self._statements[key] = make()
        return self._statements[key]

    def insert(self, table: Table) -> Any:
        """Return the INSERT of this database, which supports ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


class StoreClaim:
    """The right to a store, which one process has at a time: two cities in one store would answer for each other.

    For a SQLite file it is a lock on the file STORE.lock, which the kernel drops when the process ends, however it
    ends. On PostgreSQL it is an advisory lock of the database's schema; the server drops it within LOST_S after the
    connection, or the machine at its other end, has died.
    """

    def __init__(self, url: str) -> None:
        """Take the store, before anything in it is touched. Raises StoreTaken or StoreError."""
        self.problem = ""
        """What is wrong with the claim while the city runs, and the next step; empty if nothing."""
        self._url = url
        self._name = f"ansim-city on {socket.gethostname()}, pid {os.getpid()}"
        self._file: int | None = None
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._thread = Kept("claim", self._watch, wait=self._stopping.wait)
        self._is_file = url.startswith("sqlite")
        if self._is_file:
            self._lock_file()
        else:
            self._lock_server(CLAIM_WAIT_S)

    def watch(self) -> None:
        """Hold the claim from now on: take it again after the server was away, and report if somebody else has it."""
        if not self._is_file:
            self._thread.start()

    def release(self) -> None:
        """Give the store up."""
        self._stopping.set()
        self._thread.join(CLAIM_WAIT_S)
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._drop()

    # ---- a file ------------------------------------------------------------------------------------------------------

    def _lock_file(self) -> None:
        database = make_url(self._url).database
        if not database:
            return
        store = os.path.realpath(database)
        try:
            try:
                descriptor = os.open(f"{store}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in FULL or not StoreBallast(Path(f"{database}.ballast")).release():
                    raise
                descriptor = os.open(f"{store}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"{store}.lock cannot be made: {error.strerror}; next: a folder of the city's own user, with room"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise StoreTaken(_taken(store, who)) from None
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                f"{store}.lock cannot be locked: {error.strerror}; next: a store on a disk of this machine"
            ) from None
        self._file = descriptor
        with contextlib.suppress(OSError):  # a full disk: then nobody is named, and the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{self._name}\n".encode(), 0)

    # ---- a server ----------------------------------------------------------------------------------------------------

    def _lock_server(self, wait_s: float) -> None:
        """Take the lock on a connection of its own, which stays open."""
        end_s = time.monotonic() + wait_s
        try:
            connection = self._connect()
        except ModuleNotFoundError as error:
            raise StoreError(f"store {_shown(self._url)}: no driver: {error}; pip install 'psycopg[binary]'") from None
        except SQLAlchemyError as error:
            raise StoreError(
                f"store {_shown(self._url)}: cannot be opened: {str(error)[:300]}; check the server and its rights"
            ) from None
        try:
            while not connection.execute(TAKE, KEYS).scalar_one():
                if time.monotonic() >= end_s:  # a city that was just killed is gone within a moment
                    row = connection.execute(HOLDER, KEYS).first()
                    who = "" if row is None else f"{row.application_name}, address {row.address or 'of the server'}"
                    raise StoreTaken(_taken(_shown(self._url), who, f"; a machine that died loses it in {LOST_S} s"))
                time.sleep(0.1)
        except BaseException:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()
            raise
        self._connection = connection

    def _connect(self) -> Connection:
        options = f"{SERVER['options']} {KEEPALIVE}"
        given = SERVER | {"options": options, "application_name": self._name[:63]}
        return create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=given).connect()

    def _watch(self) -> None:
        while not self._stopping.wait(TEND_S):
            self.hold()

    def hold(self) -> None:
        """Look whether the server still has our lock, and take it again if the connection was lost meanwhile."""
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
            else:
                self._lock_server(0.0)
            self.problem = ""
        except StoreTaken as error:
            if not self.problem:
                log.error("store_taken", detail=str(error))
            self.problem = str(error)
        except (SQLAlchemyError, StoreError):  # the server is away, which the standby reports
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()


CLAIM_WAIT_S = 2.0
LOST_S = 11
KEEPALIVE = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
"""Of the server, towards us: so it notices within LOST_S that a city's machine has died, and frees the store."""
FULL = (errno.ENOSPC, errno.EDQUOT)
KEYS = {"key": 0x616E7369}
TAKE = text("SELECT pg_try_advisory_lock(:key, hashtext(current_schema()))")
HOLDER = text(
    "SELECT a.application_name, host(a.client_addr) AS address FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = CAST(:key AS oid) AND l.objsubid = 2 AND l.database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND l.objid = CAST(hashtext(current_schema())::bigint & 4294967295 AS oid)"
)


def _taken(store: str, who: str, more: str = "") -> str:
    return (
        f"{store} belongs to another city that runs: {who or 'of whom nothing can be seen from here'}. Nothing was "
        f"changed; next: stop that one, or give this city a store of its own{more}"
    )


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def counters(c: Connection) -> dict[str, int]:
    """Return every counter by name: the sum over all who count."""
    summed = select(t.counter.c.name, func.sum(t.counter.c.value)).group_by(t.counter.c.name).order_by(t.counter.c.name)
    return {name: int(value) for name, value in c.execute(summed)}


def is_transient(error: BaseException) -> bool:
    """Return whether a later attempt can work: the database is away, busy, full or broken; the row is not at fault."""
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeout, StoreAway)):
        return True
    if isinstance(error, InternalError):
        return getattr(error.orig, "sqlstate", None) == READ_ONLY
    if isinstance(error, DatabaseError) and getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in BROKEN:
        return True
    return bool(getattr(error, "connection_invalidated", False))


READ_ONLY = "25006"
"""SQLSTATE of a database server that is a standby."""
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FULL_B = 256 * 1024
"""A disk with less free space is full, whatever SQLite calls its error."""


def _is_full(error: BaseException, folder: Path) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return True
    with contextlib.suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize < FULL_B
    return False


PLACED = tuple(str(kind.__struct_config__.tag) for kind in ROUTINE_TYPES if "where" in kind.__struct_fields__)
"""Kinds of routine events that say where a tag was."""


def prune(store: Store, now_s: float, *, positions_days: float, events_days: float, chunk: int = 500) -> dict[str, int]:
    """Delete rows that are too old, in small transactions. Return how many rows of each kind were deleted."""
    day_s = 86400.0
    key = (t.event.c.gateway, t.event.c.epoch, t.event.c.lane, t.event.c.seq)
    old_position = (t.event.c.type == "position") & (t.event.c.stored_at < now_s - positions_days * day_s)
    old_routine = (t.event.c.lane == "events") & (t.event.c.stored_at < now_s - events_days * day_s)
    gone = {"event": 0, "latest": 0, "look": 0, "quarantine": 0}
    for condition in (old_position, old_routine):
        while True:
            chosen = select(*key).where(condition).limit(chunk)
            with store.write() as c:
                done = c.execute(delete(t.event).where(tuple_(*key).in_(chosen))).rowcount
            gone["event"] += done
            if done < chunk:
                break
    with store.write() as c:
        placed = t.latest.c.kind.in_(PLACED)
        old = t.latest.c.as_of < now_s - positions_days * day_s
        stale = t.latest.c.as_of < now_s - events_days * day_s
        gone["latest"] = c.execute(delete(t.latest).where((placed & old) | stale)).rowcount
        gone["look"] = c.execute(delete(t.look).where(t.look.c.at < now_s - events_days * day_s)).rowcount
        gone["quarantine"] = c.execute(
            delete(t.quarantine).where(t.quarantine.c.last_at < now_s - events_days * day_s)
        ).rowcount
    return gone


def dumps(value: Any) -> str:
    """Return JSON text for a body column."""
    return msgspec.json.encode(value).decode()


UnixClock = Callable[[], float]
"""Returns unix seconds, UTC. It is an argument everywhere, so that tests control the time."""
