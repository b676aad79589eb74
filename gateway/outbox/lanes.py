"""The outbox of a gateway, two lanes: it holds an event from the moment it happens until the city has it on disk.

    sos.db     emergencies: each commits alone and at once, with what the core must remember of it
    events.db  routine events: committed in groups, after 100 events or 20 ms, whichever comes first
    lock       a second gateway on the same folder is refused

Each lane has its own file, ballast and writer thread, so no routine event can delay an emergency. If an emergency
cannot be committed, it is kept in memory under a separate epoch and sent from there. Its reader does not receive
"received", because a power cut would lose the emergency.
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
"""Routine events kept in memory while the disk is slow; above this, positions are dropped first."""
RING_MAX = 500
RETRY_S = 1.0
STATE = "core"
LATENCIES_KEPT = 512

T = TypeVar("T")


class OutboxBusy(Exception):
    """Another gateway runs on this folder. A retry helps only after it ends: two would send each other's events."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is in use by another gateway (process {holder}); stop it, or give another folder")
        self.folder, self.holder = folder, holder


class Source(Protocol):
    """Where the sender of a lane takes its rows from, and where it reports what the city has."""

    lane: Lane
    changed: asyncio.Event
    """Set when there may be new rows to send."""

    @property
    def epoch(self) -> str: ...
    @property
    def backlog(self) -> int: ...
    async def read(self, after: int, rows_max: int, bytes_max: int) -> Page: ...
    async def acknowledged(self, epoch: str, upto: int) -> int: ...


class StoreSource:
    """A lane's store, used through the one thread that may work on its file."""

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
    """Emergencies that could not be put on disk, in memory: at most RING_MAX, sent from here, lost in a power cut.

    They have their own epoch, since their numbers must not collide with those of the file.
    """

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
        known = epoch == self.epoch and upto <= self._seq  # the city cannot have what was never sent
        gone = [seq for seq in self._rows if seq <= upto] if known else []
        for seq in gone:
            del self._rows[seq]
        return len(gone)


class Outbox:
    """Both lanes of one folder. Create it inside a running event loop; call `close` at the end."""

    def __init__(
        self,
        folder: Path,
        *,
        utc_now: Callable[[], datetime],
        on_health: OnHealth,
        bulk_max_b: int,
        ballast_b: int,
    ) -> None:
        """Lock the folder and open both stores, whatever state they are in. Raises OutboxBusy.

        on_health is also called from the writer threads.
        """
        self._folder, self._utc_now, self._tell = folder, utc_now, on_health
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _take(folder)
        self._shared = False

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
        """Put an emergency, and what the core must remember of it, on disk; return its seq.

        Raises NotCommitted if the disk does not take it: then it is in the ring, and is sent from there.
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
        """Put a memory on disk. Raises NotCommitted."""
        await self.sos.run(self.sos.store.remember, memory)

    def memories(self) -> list[AlarmMemory]:
        """Return the memories of the core. Only for the start, because it blocks."""
        return self.sos.store.memories()

    # ---- routine ----------------------------------------------------------------------------------------------------

    def queue(self, event: Routine) -> "asyncio.Future[bool]":
        """Queue a routine event; the future says whether the first commit with it succeeded (a failed one is retried).

        Above WAITING_MAX the oldest position of the first 1000 events is dropped, else the oldest event. `overflowed`
        counts them; the future of a dropped event says False.
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
        """Commit one group. The commit goes on if the caller is cancelled: its events exist nowhere else."""
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
        """Commit everything that is queued; what the disk does not take stays queued."""
        if self._committing is not None:
            await asyncio.shield(self._committing)
        while self._waiting and await self._next_group():
            pass

    # ---- the core's snapshot, maintenance ---------------------------------------------------------------------------

    def snapshot(self) -> bytes | None:
        """Return the core's last snapshot. Only for the start, because it blocks."""
        return self.events.store.saved(STATE)

    async def save(self, snapshot: bytes) -> None:
        """Put the core's snapshot on disk. Raises NotCommitted."""
        await self.events.run(self.events.store.save, STATE, snapshot)

    async def tend(self) -> None:
        """Do the periodic work, every few seconds; move the ring's rows to disk when the disk works again."""
        await self.sos.run(self.sos.store.tend)
        for row in self.ring.rows():
            if not self.ring.has(row.seq):
                continue  # the city has acknowledged it in the meantime
            try:
                await self.sos.commit([Entry(OTHER, row.queued_ms, row.body)])
            except NotCommitted:
                break
            await self.ring.acknowledged(self.ring.epoch, row.seq)
        await self.events.run(self.events.store.tend)
        self._keep_lock()

    def _keep_lock(self) -> None:
        """Take the lock again if its file is gone, perhaps with the folder: a second gateway must still be refused."""
        path = self._folder / "lock"
        with contextlib.suppress(OSError):
            if self._lock is not None and os.path.samestat(os.fstat(self._lock), os.stat(path)):
                return
        try:
            taken = _take(self._folder)
        except OutboxBusy as busy:
            if not self._shared:
                self._tell("outbox_shared", False, f"the lock was removed, and a second gateway took it: {busy}")
            self._shared = True
            return
        if taken is not None:
            if self._lock is not None:
                os.close(self._lock)
            self._lock = taken
            if self._shared:
                self._tell("outbox_shared", True, f"{self._folder} is used by this gateway alone again")
            self._shared = False

    async def relieve(self) -> None:
        """Free disk space: the routine lane sheds rows until 3/4 of its used bytes are left."""
        await self.events.run(self.events.store.relieve)

    def counters(self) -> dict[str, int]:
        """Return all counters and levels, for metrics and health events."""
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
        """Commit what is queued, close both files and unlock the folder."""
        await self.flush()
        for source in (self.sos, self.events):
            await source.run(source.store.close)
            source.thread.shutdown(wait=False)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _take(folder: Path) -> int | None:
    """Return the locked descriptor of the folder's lock file; None if that file cannot be opened. Raises OutboxBusy."""
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
