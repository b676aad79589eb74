"""The two outboxes of a gateway: an event is here from the moment it is true until the city has it on disk.

    sos.db     emergencies: each commits alone and at once, with what the core must remember of it
    events.db  routine events: committed together, up to 100 of them or 20 ms, whichever comes first
    lock       a second gateway on the same folder is refused

Each lane has its own file, ballast and writer thread, so nothing routine can stand before an emergency. If even an
emergency cannot be committed it is kept in memory under an epoch of its own and sent from there; its reader is not
told "received", because a power cut would lose it.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.effects import AlarmMemory
from gateway.events import Emergency, Position, Routine
from gateway.health import OnHealth
from gateway.outbox.lane_file import LaneFile, NotCommitted, milliseconds
from gateway.outbox.rows import OTHER, POSITION, Entry, Page, StoredRow
from gateway.uplink import BATCH_MAX, Lane, encode_row

GROUP_S = 0.020
WAITING_MAX = 20_000
"""Routine events in memory while a disk is slow; positions are dropped above it."""
RING_MAX = 500
RETRY_S = 1.0
STATE = "core"
LATENCIES_KEPT = 512

T = TypeVar("T")


class OutboxBusy(Exception):
    """Another gateway runs on this folder. Permanent until it ends: two would send each other's events."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is in use by another gateway (process {holder}); stop it, or give another folder")
        self.folder, self.holder = folder, holder


class Source(Protocol):
    """Where the sender of a lane takes its rows from, and whom it tells what the city has."""

    lane: Lane
    changed: asyncio.Event
    """Set when there may be something new to send."""

    @property
    def epoch(self) -> str: ...
    @property
    def backlog(self) -> int: ...
    async def read(self, after: int, rows_max: int, bytes_max: int) -> Page: ...
    async def acknowledged(self, epoch: str, upto: int) -> int: ...


class StoreSource:
    """A store, behind the one thread that may touch it."""

    def __init__(self, lane: Lane, store: LaneFile) -> None:
        self.lane, self.store = lane, store
        self.changed = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"outbox-{lane}")
        self.commit_s: deque[float] = deque(maxlen=LATENCIES_KEPT)

    @property
    def epoch(self) -> str:
        return self.store.epoch

    @property
    def backlog(self) -> int:
        return self.store.backlog

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)

    async def read(self, after: int, rows_max: int, bytes_max: int) -> Page:
        return await self.run(self.store.read, after, rows_max, bytes_max)

    async def acknowledged(self, epoch: str, upto: int) -> int:
        return await self.run(self.store.acknowledged, epoch, upto)

    async def commit(self, entries: list[Entry], memory: AlarmMemory | None = None) -> list[int]:
        began = time.monotonic()
        seqs = await self.run(self.store.commit, entries, memory)
        self.commit_s.append(time.monotonic() - began)
        self.changed.set()
        return seqs


class Ring:
    """Emergencies no disk would take: bounded, sent live, gone with the power. An epoch of their own, since their
    numbers must not collide with those of the file."""

    lane: Lane = "sos"

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.changed = asyncio.Event()
        self.dropped = 0
        self._seq = 0
        self._rows: dict[int, StoredRow] = {}

    @property
    def backlog(self) -> int:
        return len(self._rows)

    def keep(self, queued_ms: int, body: bytes) -> int:
        self._seq += 1
        self._rows[self._seq] = StoredRow(self._seq, queued_ms, body)
        while len(self._rows) > RING_MAX:
            del self._rows[next(iter(self._rows))]
            self.dropped += 1
        self.changed.set()
        return self._seq

    def rows(self) -> list[StoredRow]:
        return list(self._rows.values())

    def has(self, seq: int) -> bool:
        return seq in self._rows

    async def read(self, after: int, rows_max: int, bytes_max: int) -> Page:
        rows: list[StoredRow] = []
        before = size = 0
        for row in self._rows.values():
            if row.seq <= after:
                before = row.seq
                continue
            size += len(row.body)
            if len(rows) == rows_max or (rows and size > bytes_max):
                break
            rows.append(row)
        return Page(before if rows else 0, tuple(rows))

    async def acknowledged(self, epoch: str, upto: int) -> int:
        known = epoch == self.epoch and upto <= self._seq  # nobody can have what was never sent
        gone = [seq for seq in self._rows if seq <= upto] if known else []
        for seq in gone:
            del self._rows[seq]
        return len(gone)


class Outbox:
    """Both lanes of one folder. Make it inside a running event loop; `close` it at the end."""

    def __init__(
        self,
        folder: Path,
        *,
        utc_now: Callable[[], datetime],
        on_health: OnHealth,
        bulk_max_b: int,
        ballast_b: int,
    ) -> None:
        """Take the folder and open both stores, whatever state they are in. Raises OutboxBusy.

        on_health is called from the writer threads too.
        """
        self._utc_now, self._tell = utc_now, on_health
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _take(folder)

        def store(lane: Lane, max_b: int | None) -> StoreSource:
            def said(what: str, ok: bool, detail: str) -> None:
                on_health(f"{lane}_{what}", ok, detail)

            opened = LaneFile(folder, lane, on_health=said, utc_now=utc_now, ballast_b=ballast_b, max_b=max_b)
            return StoreSource(lane, opened)

        self.sos = store("sos", None)
        self.events = store("events", bulk_max_b)
        self.ring = Ring()
        self.overflowed = 0
        self._waiting: deque[tuple[Entry, asyncio.Future[bool]]] = deque()
        self._some = asyncio.Event()
        self._full_group = asyncio.Event()
        self._committing: asyncio.Task[bool] | None = None

    @property
    def sources(self) -> tuple[Source, Source, Source]:
        return self.sos, self.ring, self.events

    # ---- emergencies ------------------------------------------------------------------------------------------------

    async def commit_emergency(self, event: Emergency, memory: AlarmMemory | None = None) -> int:
        """Put an emergency, and what must be remembered of it, on disk; return its seq.

        Raises NotCommitted if no disk takes it: then it is in the ring, and will be sent from there.
        """
        entry = Entry(OTHER, milliseconds(self._utc_now()), msgspec.json.encode(event))
        try:
            return (await self.sos.commit([entry], memory))[0]
        except NotCommitted:
            if not any(row.body == entry.body for row in self.ring.rows()):
                self.ring.keep(entry.queued_ms, entry.body)
                if self.ring.dropped:
                    text = f"{self.ring.dropped} emergencies dropped: no disk, no city, and {RING_MAX} more in memory"
                    self._tell("ring_full", False, f"{text}; look at the disk and at the uplink")
            raise

    async def remember(self, memory: AlarmMemory) -> None:
        """Keep a memory on disk. Raises NotCommitted."""
        await self.sos.run(self.sos.store.remember, memory)

    def memories(self) -> list[AlarmMemory]:
        """Return what the core asked to remember. For the start: it blocks."""
        return self.sos.store.memories()

    # ---- routine ----------------------------------------------------------------------------------------------------

    def queue(self, event: Routine) -> "asyncio.Future[bool]":
        """Hand over a routine event; the future tells whether the commit that took it succeeded.

        Above WAITING_MAX the oldest position goes (else the oldest event), counted in `overflowed`.
        """
        kind = POSITION if isinstance(event, Position) else OTHER
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((Entry(kind, milliseconds(self._utc_now()), encode_row(event)), done))
        if len(self._waiting) > WAITING_MAX:
            self._drop_one()
        self._some.set()
        if len(self._waiting) >= BATCH_MAX:
            self._full_group.set()
        return done

    def _drop_one(self) -> None:
        self.overflowed += 1
        for i in range(min(len(self._waiting), 1000)):
            if self._waiting[i][0].kind == POSITION:
                break
        else:
            i = 0
        _, done = self._waiting[i]
        del self._waiting[i]
        if not done.done():
            done.set_result(False)

    async def run_groups(self, progress: Callable[[], None]) -> None:
        """Commit what is queued, group by group, for ever. progress is called at least every few seconds."""
        while True:
            progress()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._some.wait()
            if not self._waiting:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GROUP_S):
                    await self._full_group.wait()
            if not await self._next_group():
                await asyncio.sleep(RETRY_S)

    async def _next_group(self) -> bool:
        """Commit one group. It goes on if the caller is cancelled: what is in it is nowhere else."""
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_group())
        return await asyncio.shield(self._committing)

    async def _commit_group(self) -> bool:
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
        if len(self._waiting) < BATCH_MAX:
            self._full_group.clear()
        if not self._waiting:
            self._some.clear()
        try:
            await self.events.commit([entry for entry, _ in group])
            kept = True
        except NotCommitted:
            kept = False
            self._waiting.extendleft(reversed(group))
            self._some.set()
        for _, done in group:
            if not done.done():
                done.set_result(kept)
        return kept

    async def flush(self) -> None:
        """Commit everything queued now; what no disk takes stays queued."""
        if self._committing is not None:
            await asyncio.shield(self._committing)
        while self._waiting and await self._next_group():
            pass

    # ---- the core's snapshot, care ----------------------------------------------------------------------------------

    def snapshot(self) -> bytes | None:
        """Return the core's last snapshot. For the start: it blocks."""
        return self.events.store.saved(STATE)

    async def save(self, snapshot: bytes) -> None:
        """Keep the core's snapshot. Raises NotCommitted."""
        await self.events.run(self.events.store.save, STATE, snapshot)

    async def tend(self) -> None:
        """Do what is due every few seconds; move what the ring holds to a disk that works again."""
        await self.sos.run(self.sos.store.tend)
        for row in self.ring.rows():
            if not self.ring.has(row.seq):
                continue  # the city had it meanwhile
            try:
                await self.sos.commit([Entry(OTHER, row.queued_ms, row.body)])
            except NotCommitted:
                break
            await self.ring.acknowledged(self.ring.epoch, row.seq)
        await self.events.run(self.events.store.tend)

    async def relieve(self) -> None:
        """Give the disk room: the routine lane lets a quarter of its rows go."""
        await self.events.run(self.events.store.relieve)

    def counters(self) -> dict[str, int]:
        """Return every count and level, for metrics and health events."""
        found = {
            f"{source.lane}_{name}": n
            for source in (self.sos, self.events)
            for name, n in source.store.counters.items()
        }
        return found | {
            "sos_backlog": self.sos.backlog,
            "events_backlog": self.events.backlog,
            "ring_backlog": self.ring.backlog,
            "ring_dropped": self.ring.dropped,
            "events_waiting": len(self._waiting),
            "events_overflowed": self.overflowed,
        }

    async def close(self) -> None:
        """Commit what is queued, close both files and give the folder free."""
        await self.flush()
        for source in (self.sos, self.events):
            await source.run(source.store.close)
            source.thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _take(folder: Path) -> int | None:
    """Return the locked descriptor of the folder's lock file; None on a disk that cannot even hold one."""
    path = folder / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise OutboxBusy(folder, holder) from None
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
