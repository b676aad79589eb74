"""Strangers crowd the real city, and an operator still sees an SOS and acknowledges it. Real sockets, real broker."""

import contextlib
import json
import resource
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from city.page_stream import STREAMS_ACCOUNT_MAX
from tests import programs
from tests.city.bed import City, Gateway, free_port, sos, wait_for

IDLE = 1000
SOON_S = 5.0
"""Seconds from the press to the screen, and from the operator's press to the answer, on a machine that is crowded."""


@pytest.fixture(autouse=True)
def _files() -> Iterator[None]:
    """This process holds the other ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.skip(programs.FEW_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def crowd(port: int, addresses: list[str]) -> Iterator[None]:
    """Hold IDLE silent connections, and open again what the city closes, until the end."""
    held: list[socket.socket] = []
    stopping = threading.Event()

    def one(i: int) -> None:
        with contextlib.suppress(OSError):
            address = addresses[i % len(addresses)]
            held.append(socket.create_connection(("127.0.0.1", port), 1, source_address=(address, 0)))

    def again() -> None:
        i = 0
        while not stopping.is_set():
            for _ in range(5):
                held.pop(0).close()
                one(i := i + 1)
            stopping.wait(0.05)

    for i in range(IDLE):
        one(i)
    assert len(held) > IDLE * 0.9, "the crowd did not get in"
    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        for each in held:
            each.close()


@contextlib.contextmanager
def operator(city: City) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=city.address, headers={"Origin": city.address}, timeout=SOON_S) as browser:
        form = {"operator": "kim", "passcode": city.passcode}
        wait_for("the operator to be let in", lambda: _logged_in(browser, form))
        yield browser


def _logged_in(browser: httpx.Client, form: dict[str, str]) -> bool:
    with contextlib.suppress(httpx.TransportError):  # closed for another stranger: a person presses again
        return browser.post("/login", data=form).status_code == 303
    return False


def see_and_acknowledge(city: City, gateway: Gateway, press: int = 1) -> None:
    """An operator opens the page anew: the SOS comes by the stream, the press is answered, the lamp is told."""
    gateway.status()
    with operator(city) as browser, browser.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        began = time.monotonic()
        gateway.urgent(press, sos(f"a{press}", press=press))
        number = 0
        for line in lines:
            assert time.monotonic() - began < SOON_S
            if line.startswith("data:") and '"incident":{' in line:
                number = json.loads(line.removeprefix("data:"))["incident"]["number"]
                break
        began = time.monotonic()
        answer = browser.post(f"/api/incidents/{number}/acknowledge")
        assert (answer.status_code, answer.json()["state"]) == (200, "acknowledged")
        assert time.monotonic() - began < SOON_S
    wait_for("the lamp's stage", lambda: "acknowledged" in gateway.stages(f"a{press}"), SOON_S)


def test_an_sos_is_shown_and_acknowledged_while_strangers_hang(city: City, gateway: Gateway) -> None:
    """First a thousand idle connections from the operator's address, then from a thousand others, then slow ones."""
    with crowd(city.port, ["127.0.0.1"]):
        see_and_acknowledge(city, gateway, 1)
    with crowd(city.port, [f"127.0.{i // 200 + 1}.{i % 200 + 1}" for i in range(IDLE)]):
        see_and_acknowledge(city, gateway, 2)
        figures = httpx.get(f"{city.address}/metrics", headers={"Authorization": f"Bearer {city.token}"}).text
    assert 'ansim_city_connections_closed_total{reason="crowded"}' in figures
    assert city.log.read_text().count("connections_closed") <= 2
    slow = [socket.create_connection(("127.0.0.1", city.port)) for _ in range(60)]
    for i, one in enumerate(slow):
        one.sendall((b"GET /leaflet/leaflet.js HTTP/1.1\r\nHost: x\r\n\r\n" * 50, b"POST /login HTTP/1.1\r\nA:")[i % 2])
    try:
        see_and_acknowledge(city, gateway, 3)
    finally:
        for one in slow:
            one.close()


def start_with_files(city: City, files: int) -> None:
    command = f"ulimit -n {files}; exec {shlex.join([sys.executable, '-m', 'city', 'run', str(city.config)])}"
    with city.log.open("ab") as log:
        city.process = subprocess.Popen(["bash", "-c", command], stdout=log, stderr=log)


def test_with_256_files_strangers_cost_a_line_and_no_operator(broker_port: int, tmp_path: Path) -> None:
    city, gateway = City(tmp_path, broker_port), Gateway(broker_port)
    local = free_port()
    with city.config.open("a") as config:
        config.write(f"metrics_port = {local}\n")
    start_with_files(city, 100)
    assert city.process is not None
    assert city.process.wait(60) == 6
    assert "only 100 files may be open, 192 are needed" in city.log.read_text()
    try:
        start_with_files(city, 256)
        wait_for("the city to be healthy", city.healthy)
        with crowd(city.port, ["127.0.0.1"]):
            see_and_acknowledge(city, gateway)
            assert city.healthy()
        figures = httpx.get(f"http://127.0.0.1:{local}/metrics").text
        assert 'ansim_city_connections_closed_total{reason="crowded"}' in figures, "no token is needed on this machine"
        assert httpx.get(f"{city.address}/metrics").status_code == 401
        log = city.log.read_text()
        assert "Traceback" not in log
        assert len([line for line in log.splitlines() if "connections_closed" in line or "out of system" in line]) <= 3
        assert len(log) < 20_000
    finally:
        gateway.close()
        city.stop()


def test_a_burst_of_streams_opens_no_more_than_an_account_may(city: City) -> None:
    request = f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {city.token}\r\n\r\n".encode()
    burst = [socket.create_connection(("127.0.0.1", city.port)) for _ in range(60)]
    for one in burst:
        one.sendall(request)
    codes = [_code(one) for one in burst]
    assert codes.count("200") == STREAMS_ACCOUNT_MAX
    assert codes.count("503") == len(burst) - STREAMS_ACCOUNT_MAX
    for one in burst:
        one.close()
    streams: Callable[[], int] = lambda: int(city.get("/api/stats")["streams"])  # noqa: E731
    wait_for("the places to be free again", lambda: streams() == 0)


def _code(one: socket.socket) -> str:
    one.settimeout(10)
    return one.recv(12).decode()[9:12]
