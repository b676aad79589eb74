"""What a client owes the server, and how many may owe it: a real server on real sockets, around a small application."""

import asyncio
import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from city.pages import connections
from city.pages.connections import ACCEPT_MAX, Connections, Server, Sparse, network_of
from tests.city.bed import free_port, wait_for

BIG = 8 * 1024 * 1024


async def small_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers /big with 8 MB, everything else with `ok` after the whole body. /in is a logged-in request."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/in":
        scope["state"]["prove"]("kim")
    while (await receive()).get("more_body"):
        pass
    body = b"x" * BIG if scope["path"] == "/big" else b"ok"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


class Served:
    """A server in a thread, and the sockets that a test opened to it."""

    def __init__(self, **limits: Any) -> None:
        self.port, self.connections = free_port(), Connections(**limits)
        config = uvicorn.Config(
            small_app,
            http=self.connections.protocol,  # type: ignore[arg-type]
            port=self.port,
            lifespan="off",
            log_config=None,
            backlog=ACCEPT_MAX,
            timeout_graceful_shutdown=1,
        )
        self.server = Server(config, on_exit=lambda: None)
        self.sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()))
        self._thread.start()
        wait_for("the server", lambda: self.server.started)

    def open(self, address: str = "127.0.0.1") -> socket.socket:
        one = socket.create_connection(("127.0.0.1", self.port), 5, source_address=(address, 0))
        self.sockets.append(one)
        return one

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    one = Served()
    yield one
    one.close()


def is_closed(one: socket.socket) -> bool:
    one.settimeout(0.01)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def ask(one: socket.socket, path: str = "/") -> bytes:
    one.settimeout(5)
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"ok"):
        more = one.recv(4096)
        assert more, "closed"
        answer += more
    return answer


def drip(one: socket.socket, text: bytes) -> None:
    """Send a byte at a time until the server has had enough."""
    with contextlib.suppress(OSError):
        for byte in text:
            one.sendall(bytes((byte,)))
            time.sleep(0.02)


def test_a_header_that_does_not_end_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.3)
    silent, dripping = served.open(), served.open()
    began = time.monotonic()
    drip(dripping, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 500)
    assert time.monotonic() - began < 5, "more bytes of the same header must not renew its time"
    wait_for("the silent one to be closed", lambda: is_closed(silent))
    assert served.connections.closed == {"header": 2}


def test_a_header_after_an_answer_is_given_up_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.3)
    one = served.open()
    assert b"200 OK" in ask(one)
    one.sendall(b"GET / HT")
    wait_for("the half header to be given up", lambda: is_closed(one))
    assert served.connections.closed == {"header": 1}


def test_a_body_that_does_not_end_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_S", 0.3)
    one = served.open()
    one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    drip(one, b"z" * 999)
    wait_for("the half body to be given up", lambda: is_closed(one))
    assert served.connections.closed == {"body": 1}


def test_an_answer_that_nobody_reads_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_S", 0.3)
    one = served.open()
    one.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for("the unread answer to be given up", lambda: served.connections.closed == {"reading": 1})
    wait_for("the connection to be forgotten", lambda: len(served.connections) == 0)


def test_a_slow_reader_gets_all_of_an_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_S", 0.2)
    one = served.open()
    one.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    had, began = 0, time.monotonic()
    while had < BIG:
        part = one.recv(256 * 1024)
        assert part, f"closed after {had} bytes"
        had += len(part)
        time.sleep(0.02)
    assert time.monotonic() - began > 3 * 0.2
    assert not served.connections.closed


def test_the_address_that_holds_most_gives_up_its_oldest(served: Served) -> None:
    ours = served.open("127.0.0.3")
    theirs = [served.open("127.0.0.2") for _ in range(connections.STRANGERS_ADDRESS_MAX + 40)]
    wait_for("40 to be closed", lambda: served.connections.closed == {"crowded": 40})
    assert [is_closed(one) for one in theirs] == [True] * 40 + [False] * connections.STRANGERS_ADDRESS_MAX
    assert b"200 OK" in ask(ours)


def test_many_addresses_do_not_close_whoever_is_logged_in(served: Served) -> None:
    ours = served.open()
    assert b"200 OK" in ask(ours, "/in")
    wait_for("the connection to be proven", lambda: served.connections.strangers == 0)
    many = [served.open(f"127.0.{i // 50 + 1}.{i % 50 + 1}") for i in range(600)]
    crowded = {"crowded": 600 - connections.STRANGERS_MAX}
    wait_for("the strangers to be limited", lambda: served.connections.closed == crowded)
    assert served.connections.strangers == connections.STRANGERS_MAX
    assert b"200 OK" in ask(ours, "/in")
    assert b"200 OK" in ask(served.open(), "/in"), "and a new one of theirs gets in as well"
    assert len(many) == 600


def test_one_account_cannot_take_all_places(served: Served) -> None:
    for _ in range(connections.ACCOUNT_MAX):
        ask(served.open(), "/in")
    wait_for("all to be proven", lambda: served.connections.strangers == 0)
    one_more = served.open()
    one_more.sendall(b"GET /in HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for("the last to be closed", lambda: served.connections.closed == {"crowded": 1})
    assert len(served.connections) == connections.ACCOUNT_MAX


def test_a_proxy_has_no_limit_of_one_address() -> None:
    served = Served(proxies=("127.0.0.2/32",), most=300)
    try:
        through = [served.open("127.0.0.2") for _ in range(200)]
        wait_for("all to be in", lambda: len(served.connections) == 200)
        assert (served.connections.strangers, served.connections.closed) == (0, {})
        assert b"200 OK" in ask(through[0])
        for _ in range(101):
            served.open("127.0.0.2")
        wait_for("the place after the last", lambda: served.connections.closed == {"full": 1})
    finally:
        served.close()


def test_rubbish_is_refused_and_nothing_breaks(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    starts = (
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * ",
    )
    for i in range(300):
        one = served.open()
        with contextlib.suppress(OSError):
            one.sendall(starts[i % len(starts)] + chance.randbytes(chance.randrange(1, 3000)) + b"\r\n\r\n")
        if i % 2:
            one.close()
    wait_for("the rubbish to be answered", lambda: b"200 OK" in ask(served.open("127.0.0.9")))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_ipv6_person_is_a_network_and_rubbish_is_short() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") != network_of("2001:db8:1:3::9")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("x" * 5000) == "x" * 64


def test_the_same_words_are_logged_once_a_minute_with_their_count() -> None:
    now_s, sparse = [100.0], Sparse(lambda: now_s[0])

    def say(words: str, error: Exception | None = None) -> logging.LogRecord | None:
        info: Any = error and (type(error), error, None)
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, words, None, info)
        return record if sparse.filter(record) else None

    full = "socket.accept() out of system resource\nsocket: <x fd=7>"
    first = say(full, OSError(24, "Too many open files"))
    assert first is not None
    assert (first.exc_info, first.getMessage()) == (
        None,
        "socket.accept() out of system resource: [Errno 24] Too many open files",
    )
    assert [say(full) for _ in range(40_000)] == [None] * 40_000
    assert say("another") is not None
    now_s[0] += 61
    again = say(full)
    assert again is not None
    assert "(and 40000 times more in 61 s)" in again.getMessage()
    for i in range(500):
        say(f"words {i}")
    assert len(sparse._words) == connections.WORDS_MAX


def test_of_strangers_one_whose_answer_is_on_its_way_is_closed_last() -> None:
    """An operator who logs in while strangers crowd in gets the answer."""

    class One:
        def __init__(self, is_answering: bool) -> None:
            self.is_answering = is_answering

    held = connections._Held()
    answered, waiting = One(True), One(False)
    held.add(answered, "198.51.100.1")  # type: ignore[arg-type]
    held.add(waiting, "198.51.100.1")  # type: ignore[arg-type]
    assert held.oldest("198.51.100.1") is waiting  # type: ignore[comparison-overlap]
    waiting.is_answering = True
    assert held.oldest("198.51.100.1") is answered, "if all are answered, the oldest"  # type: ignore[comparison-overlap]
