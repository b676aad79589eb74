"""Who guesses passcodes is braked, and nobody else: not behind the same proxy, and never in a browser that is known."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from city.pages import login
from city.pages.app import KNOWN_COOKIE, REFUSED_MAX, make_app
from city.pages.login import Busy, Login, OperatorsError, add_operator, read_operators
from city.server import City
from city.tables import look
from tests.city.test_interface import HOST, TOKEN, Clock, TestedApp, made_city

PROXY = "127.0.0.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def behind(tmp_path: Path, clock: Clock) -> Iterator[City]:
    """A city whose configuration names the proxy in front of it."""
    city = made_city(tmp_path, clock, f'proxies = ["{PROXY}"]\n')
    yield city
    city.standby.close()


@pytest.fixture
def passcode(behind: City, tmp_path: Path) -> str:
    return (tmp_path / "passcode").read_text()


def through(app: FastAPI, client: str, forged: str = "") -> TestedApp:
    """A browser at an address of its own, seen through the proxy, which puts that address behind what was forged."""
    forwarded = f"{forged}, {client}" if forged else client
    return TestedApp(app, headers={"Origin": HOST, "X-Forwarded-For": forwarded}, address=PROXY)


def attempt(browser: TestedApp, passcode: str, name: str = "kim") -> int:
    return browser.post("/login", data={"operator": name, "passcode": passcode}).status_code


def test_eight_guessers_behind_the_proxy_lock_themselves_out_and_no_operator(behind: City, passcode: str) -> None:
    app = make_app(behind)
    guessers = [through(app, f"192.0.2.{i}", forged="198.51.100.7") for i in range(8)]
    for guesser in guessers:
        codes = [attempt(guesser, "wrong") for _ in range(login.FAILURES_MAX + 1)]
        assert codes == [401] * login.FAILURES_MAX + [429]
    assert attempt(guessers[0], passcode) == 429
    assert attempt(through(app, "198.51.100.7"), passcode) == 303, "an address that they forged is not theirs"


def test_a_forged_address_counts_nothing_if_no_proxy_is_named(tmp_path: Path, clock: Clock) -> None:
    city = made_city(tmp_path, clock)
    app = make_app(city)
    with structlog.testing.capture_logs() as lines:
        for i in range(login.FAILURES_MAX):
            assert attempt(through(app, f"192.0.2.{i}"), "wrong") == 401
        assert attempt(through(app, "192.0.2.99"), "wrong") == 429
    assert [(line["event"], line["peer"]) for line in lines] == [("proxy_unknown", PROXY)], "said, and said once"
    city.standby.close()


def test_a_known_browser_is_never_locked_out(behind: City, passcode: str, clock: Clock, tmp_path: Path) -> None:
    app = make_app(behind)
    kims = through(app, "192.0.2.1")
    assert attempt(kims, passcode) == 303
    known = kims.cookies[KNOWN_COOKIE]
    kims.post("/logout")
    guesser = through(app, "192.0.2.1")  # from the same room
    for _ in range(login.FAILURES_MAX):
        attempt(guesser, "wrong")
    assert attempt(guesser, passcode) == 429
    assert [attempt(kims, "mistyped") for _ in range(20)] == [401] * 20
    assert attempt(kims, passcode) == 303
    for forged in ("", "kim", "kim:1:0", known.replace("kim", "lee"), known[:-1], known + "0", "kim:٣:x", "x" * 9000):
        assert not Login(behind.store, clock, tmp_path / "operators.json", None).is_known("kim", forged)
    clock.now_s += login.KNOWN_S + 1
    assert not Login(behind.store, clock, tmp_path / "operators.json", None).is_known("kim", known)


def test_a_new_passcode_makes_its_browsers_unknown(behind: City, clock: Clock, tmp_path: Path) -> None:
    one = Login(behind.store, clock, tmp_path / "operators.json", None)
    cookie = one.browser_cookie("kim")
    assert one.is_known("kim", cookie)
    add_operator(tmp_path / "operators.json", "kim")
    assert not Login(behind.store, clock, tmp_path / "operators.json", None).is_known("kim", cookie)


def test_guessing_takes_two_places_and_leaves_the_known_theirs(
    behind: City, clock: Clock, tmp_path: Path, passcode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Login(behind.store, clock, tmp_path / "operators.json", None)
    working, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_: object) -> bytes:
        working.release()
        assert go_on.wait(20)
        return bytes(64)

    monkeypatch.setattr(login, "_scrypt", slow)
    guessers = [threading.Thread(target=one.check, args=("kim", "x", f"192.0.2.{i}")) for i in range(login.HASHING_MAX)]
    for each in guessers:
        each.start()
        assert working.acquire(timeout=10)
    with pytest.raises(Busy):
        one.check("kim", "x", "192.0.2.77")
    monkeypatch.undo()
    assert one.check("kim", passcode, "192.0.2.0", known=True)
    go_on.set()
    for each in guessers:
        each.join(10)
    assert one.check("kim", passcode, "192.0.2.0")


def test_one_address_has_one_place(behind: City, clock: Clock, tmp_path: Path) -> None:
    places = login._Places()
    with places.take("2001:db8::1", known=False):
        with pytest.raises(Busy), places.take("2001:db8::2", known=False):
            pass
        with places.take("192.0.2.1", known=False), places.take("2001:db8::1", known=True):
            pass
    with places.take("2001:db8::2", known=False):
        pass


def test_a_name_that_does_not_exist_takes_the_same_work(
    behind: City, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Login(behind.store, clock, tmp_path / "operators.json", None)
    done: list[tuple[int, int, int]] = []
    monkeypatch.setattr(login, "_scrypt", lambda who, _: done.append((who.n, who.r, who.p)) or bytes(64))
    assert not one.check("kim", "x")
    assert not one.check("nobody", "x")
    assert done[0] == done[1]
    assert len(done) == 2


def test_refused_logins_do_not_fill_the_store(behind: City, clock: Clock) -> None:
    app = make_app(behind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(login, "_scrypt", lambda *_: bytes(64))
        for i in range(REFUSED_MAX * 3):
            assert attempt(through(app, f"192.0.{i // 200}.{i % 200}"), "wrong", f"name{i}") == 401
    with behind.store.read() as c:
        assert len(c.execute(look.select()).all()) == REFUSED_MAX


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"kim"', '"ki m"', "no name"),
        ('"n": 32768', '"n": 32769', "n, r and p"),
        ('"n": 32768', '"n": 1073741824', "n, r and p"),
        ('"salt": "', '"salt": "*', "no base64"),
        ('=="', '="', "no base64"),
        ('"hash": "', '"hash": "AAAA', "has not its length"),
    ],
)
def test_an_entry_that_would_fail_at_login_is_refused_when_read(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "operators.json"
    add_operator(path, "kim")
    assert set(read_operators(path)) == {"kim"}
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(OperatorsError, match=said):
        read_operators(path)


def test_a_store_that_cannot_be_written_keeps_no_operator_out_or_in(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("city.store.BUSY_TIMEOUT_MS", 50)
    city = made_city(tmp_path, clock)
    browser = TestedApp(make_app(city), headers={"Origin": HOST})
    passcode = (tmp_path / "passcode").read_text()
    assert attempt(browser, passcode) == 303
    clock.now_s += login.TOUCH_S + 1
    with contextlib.closing(sqlite3.connect(tmp_path / "city.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert browser.get("/api/incidents").status_code == 200, "a session that the store knows"
        another = TestedApp(browser.app, headers={"Origin": HOST})
        assert attempt(another, passcode) == 303
        assert another.get("/api/incidents").status_code == 200, "a session that only memory knows"
        for one in (browser, another):
            cookie = one.cookies["ansim_session"]
            assert one.post("/logout").status_code == 303
            one.cookies.set("ansim_session", cookie)
            assert one.get("/api/incidents").status_code == 401
        other.execute("ROLLBACK")
    assert browser.get("/api/incidents").status_code == 401, "who logged out stays out"
    city.standby.close()


def test_a_store_that_fails_is_503_and_says_that_nothing_was_done(
    behind: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("SELECT 1", {}, Exception("disk I/O error"))

    monkeypatch.setattr(behind, "stats", away)
    answer = TestedApp(make_app(behind), headers={"Authorization": f"Bearer {TOKEN}"}).get("/api/stats")
    assert (answer.status_code, "nothing was changed" in answer.json()["detail"]) == (503, True)
