"""Goes on in memory while the store cannot be written: a full disk, a locked file, a database server that is away.

    work -> store                                        the ordinary way: committed, then shown
         -> store fails -> twin in memory + journal      shown, and said to be in memory only
                           journal -> store              in order, as soon as the store can be written; then forgotten

The twin has the same tables and is changed by the same functions. It always holds a copy of what is open, so that a
press or a second cry finds its incident there when even reading fails. An incident that is opened in the twin gets a
number from FIRST_NUMBER on: the store never gives such a number, so no press can ever meet the wrong incident. `moved`
says which number it got in the store.

A cry that is only here is not acknowledged to its gateway: the gateway keeps it and sends it again. What people pressed
is lost if the city ends before the store can be written. The journal is bounded, each kind of its own.
"""

import contextlib
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, delete, event, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from city import incident_store
from city import tables as t
from city.store import Store, StoreAway, UnixClock, is_transient

Kind = Literal["cry", "press", "look", "shown", "status", "count"]
HELD_MAX: dict[Kind, int] = {"cry": 2000, "press": 2000, "look": 20_000, "shown": 4000, "status": 1000, "count": 1000}
"""Most entries of the journal, by kind. A cry above it stays with its gateway, a press is refused with the reason, and
of the rest it is counted what was dropped."""
HELD_MAX_B = 64 * 1024 * 1024
FIRST_NUMBER = 1_000_000_000
MOVED_MAX = 4096
RETRY_S = 0.5
CHUNK = 200

log = structlog.get_logger()
T = TypeVar("T")


class StandbyFull(StoreAway):
    """The store cannot be written, and memory is full too. The message says what to do."""


@dataclass
class HeldWork(Generic[T]):
    """Work that is done in the twin and not yet in the store."""

    kind: Kind
    work: Callable[[Store], T]
    result: T
    at: float
    numbers: Callable[[T], Sequence[int]]
    written: Callable[[T], None] | None
    size_b: int


class MemoryStore(Store):
    """A store in memory: one connection, used in turns for reading too."""

    def __init__(self) -> None:
        super().__init__("sqlite://")
        with self.write(urgent=True) as c:
            c.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('incident', ?)", (FIRST_NUMBER - 1,))

    def _engine(self, begin: str) -> Engine:
        if hasattr(self, "_writer"):
            return self._writer
        engine = create_engine(self.url, poolclass=StaticPool, connect_args={"check_same_thread": False})

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def _on_begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        return engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        with self.write() as connection:  # presses and cries go before pages
            yield connection

    def checkpoint(self) -> None:
        """Do nothing: there is no WAL."""


class Standby:
    """The store, its twin in memory, and the journal of what must still be written. Used from every thread."""

    def __init__(
        self, store: Store, clock: UnixClock, on_written: Callable[[Sequence[int], Sequence[tuple[int, int]]], None]
    ) -> None:
        """on_written: called when the journal is empty again, with the incidents that changed and with those that got
        another number, (in memory, in the store)."""
        self.store, self.twin = store, MemoryStore()
        self.dropped: Counter[Kind] = Counter()
        """What was neither written nor held, by kind."""
        self.failures = 0
        """How often the store refused work for no fault of the work."""
        self._clock, self._on_written = clock, on_written
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._journal: OrderedDict[tuple[Any, ...], HeldWork[Any]] = OrderedDict()
        self._counts: dict[Kind, int] = dict.fromkeys(HELD_MAX, 0)
        self._size_b = 0
        self._serial = 0
        self._news: deque[int] = deque()
        """Incidents that changed in the store. Appended without a lock: who reports an emergency waits for nobody."""
        self._changed: set[int] = set()
        self._touched: set[int] = set()
        self._moved: OrderedDict[int, int] = OrderedDict()
        self._why, self._since, self._read_why = "", 0.0, ""
        self._filled = False

    # ---- doing -------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether something is only in memory."""
        return bool(self._journal)

    @property
    def held(self) -> dict[str, int]:
        """How much is only in memory, by kind."""
        return {kind: n for kind, n in self._counts.items() if n}

    @property
    def problem(self) -> str:
        """What the operators should know, empty if all is written."""
        if self._journal:
            what = ", ".join(f"{n} {WORDS[kind]}" for kind, n in self._counts.items() if n)
            lost = ", ".join(f"{n} {WORDS[kind]}" for kind, n in self.dropped.copy().items())
            return (
                f"nothing can be written for {self._clock() - self._since:.0f} s ({self._why}); kept in memory only: "
                f"{what}{f'; not even there: {lost}' if lost else ''}. Do not stop the city: free its disk, or end "
                "what locks its store, and it is written by itself"
            )
        if self._read_why:
            return f"the store cannot be read ({self._read_why}); what is open is shown from memory"
        return ""

    def do(
        self,
        kind: Kind,
        work: Callable[[Store], T],
        *,
        key: tuple[Any, ...] | None = None,
        numbers: Callable[[T], Sequence[int]] = lambda _: (),
        needs: int | None = None,
        written: Callable[[T], None] | None = None,
        size_b: int = 0,
    ) -> tuple[T, bool]:
        """Do the work in the store, or in memory if the store cannot be written. Return (its result, only in memory).

        work: called with the store or with the twin, and later again with the store. key: work with a key that is held
        already is not held twice. numbers: the incidents in a result. needs: the incident that the work changes.
        written: called when held work was done in the store. Raises what the work raises, or StandbyFull.
        """
        if not self._journal:
            try:
                return self._durably(work), False
            except SQLAlchemyError as error:
                if not is_transient(error):
                    raise
                self._failed(error)
        return self._hold(kind, work, key, numbers, needs, written, size_b), True

    def number(self, store: Store, number: int) -> int:
        """Return the number of an incident in this store; that of one opened in memory has changed on the way."""
        return number if store is self.twin else self._moved.get(number, number)

    def shown_number(self, number: int) -> int:
        """Return the number by which an incident is known now."""
        return number if self._journal else self._moved.get(number, number)

    def follow(self, number: int) -> None:
        """Copy this incident to the twin soon, because it changed in the store."""
        self._news.append(number)
        self._wake.set()

    # ---- reading -----------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Return the answer about open incidents: from the twin while something is only there, else from the store."""
        if not self._journal:
            try:
                with self.store.read() as c:
                    answer = question(c)
                self._read_why = ""
                return answer
            except SQLAlchemyError as error:
                self._unread(error)
        with self.twin.read() as c:
            return question(c)

    def views(self, *, open_only: bool = False, numbers: Sequence[int] = (), limit: int = 100) -> list[dict[str, Any]]:
        """Return incidents as `incident_store.views` does, with `only_in_memory`, from wherever they can be read."""
        asked = {"open_only": open_only, "numbers": numbers, "limit": limit}
        found: dict[int, dict[str, Any]] = {}
        readable = True
        try:
            with self.store.read() as c:
                found = {view["number"]: view for view in incident_store.views(c, **asked)}  # type: ignore[arg-type]
            self._read_why = ""
        except SQLAlchemyError as error:
            readable = False
            self._unread(error)
        if self._journal or not readable:
            with self.twin.read() as c:
                for view in incident_store.views(c, **asked):  # type: ignore[arg-type]
                    if not readable or view["number"] in self._touched:
                        found[view["number"]] = view
            if open_only:
                found = {number: view for number, view in found.items() if view["state"] != "closed"}
        for number, view in found.items():
            view["only_in_memory"] = number in self._touched
        return sorted(found.values(), key=incident_store.view_order)[:limit]

    # ---- the thread --------------------------------------------------------------------------------------------------

    def run(self, stopping: threading.Event) -> None:
        """Copy what changed to the twin, and write what is held, until the city stops."""
        while not stopping.is_set():
            self.step()
            self._wake.wait(RETRY_S)
            self._wake.clear()
        if self._journal:
            self.step()
        if self._journal:
            log.error("stopped_with_held_work", held=self.held, detail=self.problem)

    def close(self) -> None:
        """Close every connection, of the store and of its twin."""
        self.store.close()
        self.twin.close()

    def stop(self) -> None:
        """Wake the thread, so that it sees that the city stops."""
        self._wake.set()

    def step(self) -> None:
        """Do once what `run` repeats."""
        self.store.tend()
        if self._journal:
            self._replay()
        else:
            self.store.turn.give_way()
            with self._lock:
                if not self._journal:  # else the twin has what the store has not: no copy may replace it
                    self._copy_changed()

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _durably(self, work: Callable[[Store], T]) -> T:
        try:
            return work(self.store)
        except SQLAlchemyError as error:
            if not self.store.make_room(error):
                raise
            log.error("disk_full", detail="the ballast is released; only emergencies and presses are written")
            return work(self.store)

    def _failed(self, error: SQLAlchemyError) -> None:
        self.failures += 1
        with self._lock:
            if not self._journal:
                self._since = self._clock()
                log.error("store_failed", detail=_first_line(error))
            self._why = _first_line(error)

    def _unread(self, error: SQLAlchemyError) -> None:
        if not self._read_why:
            log.error("store_unreadable", detail=_first_line(error))
        self._read_why = _first_line(error)

    def _hold(
        self,
        kind: Kind,
        work: Callable[[Store], T],
        key: tuple[Any, ...] | None,
        numbers: Callable[[T], Sequence[int]],
        needs: int | None,
        written: Callable[[T], None] | None,
        size_b: int,
    ) -> T:
        with self._lock:
            if key is not None and (kind, *key) in self._journal and kind != "status":
                return self._journal[kind, *key].result  # type: ignore[no-any-return]
            if not self._journal:
                self._copy_changed()
            if self._counts[kind] >= HELD_MAX[kind] or self._size_b + size_b > HELD_MAX_B:
                self.dropped[kind] += 1
                raise StandbyFull(f"the store cannot be written ({self._why}) and memory is full; free the city's disk")
            if needs is not None:
                self._fetch(needs)
            result = work(self.twin)
            self._serial += 1
            name = (kind, *key) if key is not None else (kind, self._serial)
            if name not in self._journal:
                self._counts[kind] += 1
                self._size_b += size_b
            self._journal[name] = HeldWork(kind, work, result, self._clock(), numbers, written, size_b)
            self._touched.update(numbers(result))
            return result

    def _replay(self) -> None:
        """Do in the store what was done in the twin, in the same order. Stop at the first failure of the store."""
        while True:
            with self._lock:
                if not self._journal:
                    return
                name, entry = next(iter(self._journal.items()))
            try:
                result = self._durably(entry.work)
                if entry.kind == "press":
                    self._durably(lambda store, e=entry: self._say_late(store, e))  # type: ignore[misc]
            except SQLAlchemyError as error:
                if is_transient(error):
                    self._failed(error)
                    return
                self._lost(entry, error)
            except Exception as error:  # the press fits no more, or our own fault: the others must still be written
                self._lost(entry, error)
            else:
                with contextlib.suppress(SQLAlchemyError):
                    self._remember_numbers(entry, result)
                if entry.written is not None:
                    entry.written(result)
            with self._lock:
                if self._journal.get(name) is entry:
                    del self._journal[name]
                    self._counts[entry.kind] -= 1
                    self._size_b -= entry.size_b
                if self._journal:
                    continue
                changed, moved = self._finish()
            self._on_written(changed, moved)
            return

    def _remember_numbers(self, entry: HeldWork[Any], result: Any) -> None:
        """Note which numbers of the store the incidents got that were opened in memory.

        A transaction may have been committed although the store reported a failure. Then the work was a repetition, and
        its result names no incident: it is found by its alarm.
        """
        opened = [number for number in entry.numbers(entry.result) if number >= FIRST_NUMBER]
        given = [number for number in entry.numbers(result) if number < FIRST_NUMBER]
        if opened and not given:
            with self.twin.read() as c:
                names = [tuple(row) for row in c.execute(_alarms(opened))]
            with self.store.read() as c:
                mine = tuple_(t.alarm.c.gateway, t.alarm.c.alarm).in_(names)
                given = list(c.execute(select(t.alarm.c.incident).where(mine).limit(1)).scalars())
        with self._lock:
            for old, new in zip(opened, given, strict=False):
                self._moved[old] = new
            while len(self._moved) > MOVED_MAX:
                self._moved.popitem(last=False)

    def _finish(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Make the twin a copy again. Return the changed incidents, and those with another number."""
        log.info("store_works_again", after_s=round(self._clock() - self._since, 1), failures=self.failures)
        moved = [(n, self._moved[n]) for n in sorted(self._touched) if n in self._moved]
        changed = sorted({self._moved.get(n, n) for n in self._touched})
        versions = {}
        with self.twin.write(urgent=True) as c:
            for row in c.execute(select(t.incident.c.number, t.incident.c.version)):
                versions[self._moved.get(row.number, row.number)] = row.version
            for table in (t.told, t.incident_log, t.alarm, t.incident, t.event, t.watermark, t.look, t.counter):
                c.execute(delete(table))
        self._touched.clear()
        self._filled = False
        # A page keeps the view with the higher version: the store's view must be newer than every view of memory.
        with contextlib.suppress(SQLAlchemyError), self.store.write(urgent=True) as c:
            for number in changed:
                higher = t.incident.c.version <= versions.get(number, 0)
                values = {"version": versions.get(number, 0) + 1}
                c.execute(t.incident.update().where((t.incident.c.number == number) & higher).values(**values))
        self._copy_changed()
        return changed, moved

    def _say_late(self, store: Store, entry: HeldWork[Any]) -> None:
        now_s = self._clock()
        with store.write(urgent=True) as c:
            for number in entry.numbers(entry.result):
                detail = f"this press was kept in memory only for {now_s - entry.at:.0f} s"
                incident_store.write_log(c, self.number(store, number), now_s, "written_late", detail=detail)

    def _lost(self, entry: HeldWork[Any], error: Exception) -> None:
        self.dropped[entry.kind] += 1
        log.error("held_work_lost", kind=entry.kind, error=type(error).__name__, detail=_first_line(error))

    # ---- the copy ----------------------------------------------------------------------------------------------------

    def _copy_changed(self) -> None:
        with self._lock:
            while self._news:
                self._changed.add(self._news.popleft())
            if self._filled and not self._changed:
                return
            changed = self._changed
            try:
                with self.store.read() as source:
                    if not self._filled:
                        open_ = select(t.incident.c.number).where(t.incident.c.state != "closed")
                        changed = changed | set(source.execute(open_.limit(incident_store.OPEN_MAX)).scalars())
                    with self.twin.write(urgent=True) as target:
                        for numbers in _chunks(sorted(changed)):
                            _copy(source, target, numbers)
            except SQLAlchemyError as error:
                self._unread(error)
                return
            self._filled, self._read_why = True, ""
            self._changed = set()

    def _fetch(self, number: int) -> None:
        """Copy an incident that the twin does not have: a closed one. What the store cannot give is then unknown."""
        with self.twin.read() as c:
            if c.execute(select(t.incident.c.number).where(t.incident.c.number == number)).first():
                return
        with contextlib.suppress(SQLAlchemyError), self.store.read() as source, self.twin.write(urgent=True) as target:
            _copy(source, target, [number], closed=True)


WORDS: dict[Kind, str] = {
    "cry": "emergencies",
    "press": "presses",
    "look": "looks",
    "shown": "first views",
    "status": "states of gateways",
    "count": "counts",
}


def _copy(source: Connection, target: Connection, numbers: Sequence[int], *, closed: bool = False) -> None:
    """Replace what the twin has of these incidents by what the store has; of closed ones by nothing."""
    names = tuple_(t.told.c.gateway, t.told.c.alarm)
    mine = [tuple(row) for row in target.execute(_alarms(numbers))]
    target.execute(delete(t.told).where(names.in_(mine)))
    for table, column in ((t.incident_log, t.incident_log.c.incident), (t.alarm, t.alarm.c.incident)):
        target.execute(delete(table).where(column.in_(numbers)))
    target.execute(delete(t.incident).where(t.incident.c.number.in_(numbers)))
    wanted = (
        t.incident.c.number.in_(numbers)
        if closed
        else t.incident.c.number.in_(numbers) & (t.incident.c.state != "closed")
    )
    rows = [dict(row) for row in source.execute(select(t.incident).where(wanted)).mappings()]
    if not rows:
        return
    target.execute(t.incident.insert(), rows)
    there = [row["number"] for row in rows]
    theirs = [tuple(row) for row in source.execute(_alarms(there))]
    logged = [c for c in t.incident_log.c if c.name != "id"]  # the twin's lines have numbers of their own
    for table, query in (
        (t.alarm, select(t.alarm).where(t.alarm.c.incident.in_(there))),
        (t.incident_log, select(*logged).where(t.incident_log.c.incident.in_(there)).order_by(t.incident_log.c.id)),
        (t.told, select(t.told).where(names.in_(theirs))),
    ):
        if copied := [dict(row) for row in source.execute(query).mappings()]:
            target.execute(table.insert(), copied)


def _alarms(numbers: Sequence[int]) -> Any:
    return select(t.alarm.c.gateway, t.alarm.c.alarm).where(t.alarm.c.incident.in_(numbers))


def _chunks(numbers: list[int]) -> Iterator[list[int]]:
    for i in range(0, len(numbers), CHUNK):
        yield numbers[i : i + CHUNK]


def _first_line(error: BaseException) -> str:
    """Return what happened without the statement, whose values may be a child's."""
    orig = getattr(error, "orig", None) or error
    return f"{type(orig).__name__}: {orig}".splitlines()[0][:160]
