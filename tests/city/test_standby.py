"""Work that the store cannot take: it is done in memory, in order, bounded, and written later, each thing once."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from city import incident_store, intake, standby
from city import store as store_module
from city import tables as t
from city.incidents import WrongState
from city.intake import Stored
from city.standby import FIRST_NUMBER, Standby, StandbyFull
from city.store import Store
from gateway.events import Emergency
from tests.city.bed import sos, told
from tests.city.test_store import NOW_S, TOPIC, urgent


class Bed:
    """A store in a file, its standby, and another program that locks the file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "city.db"
        self.store = Store(f"sqlite:///{self.path}")
        self.told: list[tuple[list[int], list[tuple[int, int]]]] = []
        self.now_s = NOW_S
        self.standby = Standby(self.store, lambda: self.now_s, self._on_written)
        self._other: sqlite3.Connection | None = None

    def _on_written(self, numbers: Sequence[int], moved: Sequence[tuple[int, int]]) -> None:
        self.told.append((list(numbers), list(moved)))

    def lock(self, how: str = "IMMEDIATE") -> None:
        self._other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._other.execute(f"BEGIN {how}")

    def unlock(self) -> None:
        assert self._other is not None
        self._other.execute("ROLLBACK")
        self._other.close()
        self._other = None

    def close(self) -> None:
        if self._other is not None:
            self.unlock()
        self.standby.close()

    def cry(self, seq: int, event: Emergency, **more: Any) -> tuple[Stored, bool]:
        return self.standby.do(
            "cry",
            lambda store: intake.store_urgent(store, TOPIC, urgent(seq, event), NOW_S),
            key=("gw1", "e1", seq),
            numbers=lambda stored: stored.incidents,
            **more,
        )

    def press(self, number: int, who: str = "kim", *, close: bool = False) -> bool:
        action, at = incident_store.close if close else incident_store.acknowledge, self.now_s

        def work(store: Store) -> None:
            with store.write(urgent=True) as c:
                action(c, self.standby.number(store, number), who, at)

        return self.standby.do("press", work, numbers=lambda _: (number,), needs=number)[1]

    def states(self) -> dict[str, tuple[int, str, bool]]:
        views = self.standby.views()
        return {view["subject"]: (view["number"], view["state"], view["only_in_memory"]) for view in views}


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(store_module, "BUSY_TIMEOUT_MS", 20)
    bed = Bed(tmp_path)
    yield bed
    bed.close()


def test_what_is_done_in_memory_is_done_in_the_store_in_the_same_order(bed: Bed) -> None:
    bed.cry(1, sos("a1", tag="t-1"))
    bed.standby.step()
    bed.lock()
    assert bed.cry(2, sos("a2", tag="t-2"))[1]
    assert bed.press(1)
    assert bed.press(FIRST_NUMBER)
    assert bed.press(FIRST_NUMBER, "lee", close=True)
    assert bed.states() == {"t-1": (1, "acknowledged", True), "t-2": (FIRST_NUMBER, "closed", True)}
    bed.now_s += 100
    bed.standby.step()
    assert bed.told == []
    bed.unlock()
    bed.standby.step()
    assert not bed.standby.active
    assert bed.told == [([1, 2], [(FIRST_NUMBER, 2)])]
    assert bed.states() == {"t-1": (1, "acknowledged", False), "t-2": (2, "closed", False)}
    (one,) = [view for view in bed.standby.views() if view["number"] == 2]
    assert (one["acknowledged_at"], one["closed_at"], one["closed_by"]) == (NOW_S, NOW_S, "lee")
    assert [line["word"] for line in one["log"]] == ["opened", "acknowledged", "written_late", "closed", "written_late"]
    assert bed.standby.shown_number(FIRST_NUMBER) == 2


def test_a_cry_that_comes_while_the_copy_gives_way_to_it_stays_in_memory(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cry_meanwhile() -> None:
        bed.lock()
        assert bed.cry(1, sos("a1", tag="t-1"))[1]
        bed.standby.follow(FIRST_NUMBER)

    monkeypatch.setattr(bed.store.turn, "give_way", cry_meanwhile)
    bed.standby.step()
    assert bed.states() == {"t-1": (FIRST_NUMBER, "new", True)}
    bed.unlock()
    bed.standby.step()
    assert bed.states() == {"t-1": (1, "new", False)}


def test_a_later_cry_and_a_lamps_report_find_their_incident_in_memory(bed: Bed) -> None:
    bed.cry(1, sos("a1", tag="t-1"))
    bed.standby.follow(1)
    bed.standby.step()
    bed.lock("EXCLUSIVE")
    bed.cry(2, told("a1", "stored"))
    bed.cry(3, sos("a1", tag="t-1", revision=1, readers=(3, 4)))
    (view,) = bed.standby.views()
    assert (view["number"], view["readers"]) == (1, (3, 4))
    assert [one["stage"] for one in view["alarms"][0]["told"]] == ["stored"]
    bed.unlock()
    bed.standby.step()
    (view,) = bed.standby.views()
    assert (view["number"], view["only_in_memory"], len(view["alarms"][0]["told"])) == (1, False, 1)


def test_the_same_cry_again_is_held_once_and_written_once(bed: Bed) -> None:
    bed.lock()
    cry = sos("a1")
    first, _ = bed.cry(1, cry)
    again, held = bed.cry(1, cry)
    assert (held, again) == (True, first)
    assert bed.standby.held == {"cry": 1}
    bed.unlock()
    bed.standby.step()
    stored, held = bed.cry(1, cry)
    assert (held, stored.new, stored.duplicates) == (False, 0, 1)
    with bed.store.read() as c:
        assert c.execute(select(func.count()).select_from(t.incident)).scalar_one() == 1


def test_a_commit_that_was_reported_as_failed_is_found_again(bed: Bed) -> None:
    """A server that goes away in the middle of COMMIT: the press on the number of memory must still arrive."""
    failed = []

    def work(store: Store) -> Stored:
        stored = intake.store_urgent(store, TOPIC, urgent(1, sos("a1")), NOW_S)
        if store is bed.store and not failed:
            failed.append(1)
            raise OperationalError("COMMIT", None, Exception("the connection was lost"))
        return stored

    bed.standby.step()
    _, held = bed.standby.do("cry", work, key=("gw1", "e1", 1), numbers=lambda stored: stored.incidents)
    assert held
    assert bed.press(FIRST_NUMBER)
    bed.standby.step()
    assert bed.told == [([1], [(FIRST_NUMBER, 1)])]
    assert bed.states() == {"t-01": (1, "acknowledged", False)}


def test_a_view_of_the_store_is_newer_than_every_view_of_memory(bed: Bed) -> None:
    """A page keeps the view with the higher version, so a lower one would never be shown again."""
    bed.cry(1, sos("a1"))
    bed.standby.step()
    bed.lock()
    bed.press(1)
    bed.cry(2, sos("a1", revision=1))
    (in_memory,) = bed.standby.views()
    bed.unlock()
    bed.standby.step()
    (written,) = bed.standby.views()
    assert written["version"] > in_memory["version"]


def test_rules_hold_in_memory_too(bed: Bed) -> None:
    bed.cry(1, sos("a1"))
    bed.press(1)
    bed.press(1, close=True)
    bed.cry(2, sos("a2", tag="t-2"))
    bed.standby.step()
    bed.lock()
    bed.press(2)
    with pytest.raises(WrongState):
        bed.press(1)  # a closed one is fetched
    with pytest.raises(KeyError):
        bed.press(77)
    assert bed.standby.held == {"press": 1}


def test_memory_is_bounded_and_says_what_it_could_not_take(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(standby.HELD_MAX, "cry", 3)
    monkeypatch.setattr(standby, "HELD_MAX_B", 1000)
    bed.lock()
    for seq in range(1, 4):
        bed.cry(seq, sos(f"a{seq}", tag=f"t-{seq}"))
    with pytest.raises(StandbyFull, match="free the city's disk"):
        bed.cry(4, sos("a4", tag="t-4"))
    assert bed.press(FIRST_NUMBER), "presses have room of their own"
    with pytest.raises(StandbyFull):
        bed.standby.do("look", lambda _: None, size_b=1001)
    assert "not even there: 1 emergencies, 1 looks" in bed.standby.problem
    assert bed.standby.held == {"cry": 3, "press": 1}
    bed.unlock()
    bed.standby.step()
    assert bed.cry(4, sos("a4", tag="t-4"))[1] is False, "its gateway sent it again"
    assert len(bed.standby.views()) == 4


def test_work_that_no_longer_fits_is_counted_and_does_not_stop_the_next(bed: Bed) -> None:
    bed.cry(1, sos("a1"))
    bed.standby.step()
    bed.lock()
    bed.press(1)
    bed.cry(2, sos("a2", tag="t-2"))
    bed.unlock()
    with bed.store.write() as c:
        for table in (t.incident_log, t.alarm, t.incident):
            c.execute(table.delete())
    bed.standby.step()
    assert bed.standby.dropped == {"press": 1}
    assert [view["subject"] for view in bed.standby.views()] == ["t-2"]


def test_a_store_that_cannot_be_read_is_shown_from_memory(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.cry(1, sos("a1", tag="t-1"))
    bed.standby.step()
    with contextlib.closing(sqlite3.connect(bed.path, isolation_level=None)) as db, db:
        db.execute("ALTER TABLE incident RENAME TO gone")
    assert bed.states() == {"t-1": (1, "new", False)}
    assert "cannot be read" in bed.standby.problem
    assert bed.standby.ask(lambda c: incident_store.alarms_of(c, 1))[0].alarm == "a1"
    assert bed.press(1)
    assert bed.states() == {"t-1": (1, "acknowledged", True)}
    with contextlib.closing(sqlite3.connect(bed.path, isolation_level=None)) as db, db:
        db.execute("ALTER TABLE gone RENAME TO incident")
    bed.standby.step()
    assert bed.states() == {"t-1": (1, "acknowledged", False)}
    assert bed.standby.problem == ""


def test_a_transaction_that_does_not_end_keeps_no_cry_waiting(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs in another thread's commit."""
    monkeypatch.setattr(store_module, "TURN_MAX_S", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def hang() -> None:
        with bed.store.write():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hang)
    thread.start()
    inside.wait(20)
    try:
        assert bed.cry(1, sos("a1"))[1]
        assert "has not ended" in bed.standby.problem
    finally:
        leave.set()
        thread.join()
    bed.standby.step()
    assert not bed.standby.active


def test_what_is_closed_leaves_the_copy_and_what_is_open_at_the_start_is_in_it(bed: Bed, tmp_path: Path) -> None:
    for seq in (1, 2):
        bed.cry(seq, sos(f"a{seq}", tag=f"t-{seq}"))
    bed.press(1)
    bed.press(1, close=True)
    again = Standby(bed.store, lambda: NOW_S, lambda *_: None)
    again.step()
    with again.twin.read() as c:
        assert list(c.execute(select(t.incident.c.number)).scalars()) == [2]
    bed.press(2)
    bed.press(2, close=True)
    again.follow(2)
    again.step()
    with again.twin.read() as c:
        for table in (t.incident, t.alarm, t.told, t.incident_log):
            assert c.execute(select(func.count()).select_from(table)).scalar_one() == 0
    again.twin.close()
