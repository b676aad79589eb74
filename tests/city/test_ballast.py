"""The ballast of the store: real disks, that are really full."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from city import intake
from city.ballast import StoreBallast
from city.standby import Standby
from city.store import Store, StoreAway
from tests.city.bed import position, sos
from tests.city.small_disk import fill, small_disk
from tests.city.test_store import NOW_S, TOPIC, batch, urgent

MIB = 1024 * 1024


def test_it_is_made_when_there_is_room_and_comes_back_when_there_is_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as folder:
        one = StoreBallast(folder / "b", MIB)
        assert one.restore()
        assert one.path.stat().st_blocks * 512 >= MIB, "the space is really taken"
        filler = fill(folder)
        assert one.release()
        assert not one.release(), "there is none to release twice"
        assert not one.restore()
        filler.unlink()
        assert one.restore()
        one.path.write_bytes(b"")  # somebody made room by hand
        assert one.restore()
        assert one.path.stat().st_size == MIB


def test_with_it_a_full_disk_takes_emergencies_and_no_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreBallast.__init__, "__defaults__", (MIB,))
    with small_disk(tmp_path / "disk", 16) as folder:
        store = Store(f"sqlite:///{folder / 'city.db'}")
        standby = Standby(store, lambda: NOW_S, lambda *_: None)
        filler = fill(folder)
        took = 0
        while not standby.active:  # until the ballast's room is used up, too
            took += 1
            event = sos(f"a{took}", tag=f"t-{took}")
            standby.do("cry", lambda one, n=took, e=event: intake.store_urgent(one, TOPIC, urgent(n, e), NOW_S))
            store.tend()
            if took == 20:
                assert store.low
                assert "the disk of" in store.problem
                with pytest.raises(StoreAway, match="only emergencies"):
                    intake.store_batch(store, TOPIC, batch(1, position("t-01")), NOW_S)
        print(f"{took - 1} emergencies found room in {MIB} bytes")
        assert took > 100, "an emergency may take 10 KiB at most"
        filler.unlink()
        standby.step()
        store.tend()
        assert not standby.active
        assert (store.low, store.problem) == (False, "")
        assert intake.store_batch(store, TOPIC, batch(1, position("t-01")), NOW_S).new == 1
        standby.close()
        with contextlib.closing(sqlite3.connect(folder / "city.db")) as db, db:
            assert db.execute("SELECT count(*) FROM incident").fetchone() == (took,)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


def test_an_error_that_is_no_full_disk_releases_nothing(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'city.db'}")
    assert store.ballast is not None
    locked = OperationalError("BEGIN", None, sqlite3.OperationalError("database is locked"))
    assert not store.make_room(locked)
    assert store.ballast.path.exists()
    store.close()
