"""A second city is refused before it touches anything, and a rival elsewhere is reported: no lane is fought for."""

import contextlib
import errno
import os
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paho.mqtt.client import MQTTv5
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, text

from city import consumer
from city.consumer import Consumer
from city.pages import ports
from city.pages.metrics import serve_metrics
from city.pages.ports import WebPortRefused, WebPortTaken
from city.store import StoreClaim, StoreError, StoreTaken
from readers.terminal import Exit
from tests.city import postgres
from tests.city.bed import City, Gateway, end, free_port, on_both_brokers, sos, wait_for

LANES = ('"lane_up"', '"lane_down"', '"lane_taken_over"')


def started(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "city", "run", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def refused(second: subprocess.Popen[str]) -> str:
    """Return the one line of a start that was refused because somebody else has what it needs."""
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (Exit.TAKEN, ""), err
    (line,) = err.splitlines()
    assert "Nothing was changed; next: " in line
    return line


def with_line(city: City, old: str, new: str) -> Path:
    """Return the configuration of this city with one line changed, in the same folder."""
    path = city.folder / f"other-{secrets.token_hex(3)}.toml"
    text_ = city.config.read_text()
    assert old in text_
    path.write_text(text_.replace(old, new, 1))
    return path


@pytest.mark.parametrize("same", ["port", "store"])
def test_a_second_start_is_refused_and_the_first_city_does_not_notice(city: City, gateway: Gateway, same: str) -> None:
    gateway.urgent(1, sos("gw1-e1-1"))
    wait_for("the cry before", lambda: gateway.upto("sos") == 1)
    config = city.config if same == "port" else with_line(city, f"port = {city.port}\n", f"port = {free_port()}\n")
    before = sorted(path.name for path in city.folder.iterdir())
    lanes = [city.log.read_text().count(word) for word in LANES]
    second = started(config)
    gateway.urgent(2, sos("gw1-e1-2", tag="t-02"))  # while it starts
    line = refused(second)
    assert city.process is not None
    assert f"pid {city.process.pid}" in line
    assert (f"web.port: 127.0.0.1:{city.port} is taken by" if same == "port" else "store.url: ") in line
    gateway.urgent(3, sos("gw1-e1-3", tag="t-03"))
    wait_for("the cries during and after it", lambda: gateway.upto("sos") == 3)
    assert len(city.incidents()) == 3
    assert [city.log.read_text().count(word) for word in LANES] == lanes, "no lane was thrown off or connected again"
    assert city.healthy()
    assert sorted(path.name for path in city.folder.iterdir() if "-" not in path.name) == [
        name for name in before if "-" not in name
    ]


def test_of_two_starts_at_the_same_moment_one_runs(city: City) -> None:
    city.stop()
    both = [started(city.config), started(city.config)]
    try:
        loser = wait_for("the end of one", lambda: next((one for one in both if one.poll() is not None), None))
        refused(loser)
        (city.process,) = (one for one in both if one is not loser)  # type: ignore[assignment]
        wait_for("the other to be healthy", city.healthy)
    finally:
        for one in both:
            end(one)  # type: ignore[arg-type]
            one.communicate()


@pytest.mark.parametrize("key", ["port", "metrics_port"])
def test_a_refused_start_makes_nothing(tmp_path: Path, key: str) -> None:
    """No store, no lock, no ballast, no line in the log: the port is looked at first."""
    city = City(tmp_path, free_port())
    config = city.config
    if key == "metrics_port":
        config.write_text(config.read_text().replace("[web]\n", f"[web]\nmetrics_port = {free_port()}\n"))
    port = int(config.read_text().rpartition(f"\n{key} = ")[2].partition("\n")[0])
    before = sorted(tmp_path.iterdir())
    with socket.create_server(("127.0.0.1", port)):
        line = refused(started(config))
    assert f"web.{key}: 127.0.0.1:{port} is taken by " in line
    assert f"(pid {os.getpid()})" in line
    assert sorted(tmp_path.iterdir()) == before


@on_both_brokers
def test_a_rival_at_the_broker_is_reported_and_both_get_every_cry(city: City, gateway: Gateway, tmp_path: Path) -> None:
    """Another store and port, so nothing on this machine is in the way: only the broker knows."""
    gateway.status()
    folder = tmp_path / "rival"
    folder.mkdir()
    rival = City(folder, int(city.config.read_text().partition("\nport = ")[2].partition("\n")[0]))
    try:
        with rival.log.open("ab") as log:
            rival.process = subprocess.Popen(
                [sys.executable, "-m", "city", "run", str(rival.config)], stdout=log, stderr=log
            )

        def settled() -> bool:
            """Both have both lanes, and of each lane one of the two has another name."""
            with contextlib.suppress(Exception):
                said = [one.log.read_text().count('"lane_taken_over"') for one in (city, rival)]
                lanes = [lane["connected"] for one in (city, rival) for lane in one.get("/api/stats")["lanes"].values()]
                return lanes == [True] * 4 and sum(said) == 2
            return False

        wait_for("an end of the quarrel", settled, 60)
        ups = [one.log.read_text().count('"lane_up"') for one in (city, rival)]
        for one in (city, rival):

            def seen(one: City = one) -> bool:
                gateway.urgent(1, sos("gw1-e1-1"))  # again and again, as a gateway without a watermark does
                return len(one.incidents()) == 1

            wait_for("the cry in each", seen)
        assert ups == [one.log.read_text().count('"lane_up"') for one in (city, rival)], "nobody was thrown off again"
        problems = [text_ for one in (city, rival) for text_ in one.get("/api/stats")["problems"]]
        assert any("another city of site testsite has connected to broker" in text_ for text_ in problems)
        assert any("stop the one that is not meant to run" in text_ for text_ in problems)
    finally:
        rival.stop()


def lane(monkeypatch: pytest.MonkeyPatch, protocol: str) -> tuple[Consumer, list[float]]:
    """Return the emergency lane of a city without a broker, and the clock by which it judges: [seconds]."""
    now_s = [1000.0]
    monkeypatch.setattr(consumer, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    nothing: Any = SimpleNamespace()
    mqtt: Any = SimpleNamespace(host="127.0.0.1", port=1, username=None, ca_file=None)
    made = Consumer(
        "sos", site="s", mqtt=mqtt, store=nothing, standby=nothing, clock=lambda: 0.0, listener=nothing, link=nothing
    )
    made.protocol = protocol
    return made, now_s


@pytest.mark.parametrize(
    ("protocol", "reason", "was_up", "every_s", "closed", "rival"),
    [
        ("5", 0x8E, True, 1.0, 1, True),
        ("5", 0x8B, True, 1.0, 9, False),  # the broker ends
        ("3.1.1", 0x80, True, 19.0, 3, False),
        ("3.1.1", 0x80, True, 19.0, 4, True),
        ("3.1.1", 0x80, True, 21.0, 9, False),
        ("3.1.1", 0x80, False, 1.0, 9, False),  # it was never let in
        ("5", 0x80, True, 19.0, 4, True),  # mosquitto 2.0.11 gives no reason
    ],
)
def test_how_a_lane_finds_out_that_somebody_has_its_name(
    monkeypatch: pytest.MonkeyPatch, protocol: str, reason: int, was_up: bool, every_s: float, closed: int, rival: bool
) -> None:
    sos_lane, now_s = lane(monkeypatch, protocol)
    for _ in range(closed):
        now_s[0] += every_s
        sos_lane._look_for_rival(reason, was_up)
    assert bool(sos_lane.rival) == rival
    assert sos_lane._keeps_session != rival, "a name for a while leaves no session at the broker"


def test_a_lane_takes_its_own_name_again_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name the broker keeps no emergency for it while the city restarts."""
    sos_lane, now_s = lane(monkeypatch, "5")
    sos_lane._look_for_rival(0x8E, True)
    for later_s, rival in ((599.0, True), (601.0, False)):
        now_s[0] = 1000.0 + later_s
        sos_lane._connect(MQTTv5)  # nobody listens there
        assert bool(sos_lane.rival) == rival


# ---- ports -----------------------------------------------------------------------------------------------------------


def test_a_bound_port_is_ours_and_answers_nobody_until_it_listens() -> None:
    port = free_port()
    mine = ports.bound("web.port", "127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 2)
    with pytest.raises(WebPortTaken, match=f"^web.port: 127.0.0.1:{port} is taken by "):
        ports.bound("web.port", "127.0.0.1", port)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    ports.listening("web.port", mine, 5)
    socket.create_connection(("127.0.0.1", port), 2).close()
    with pytest.raises(WebPortTaken, match=rf"\(pid {os.getpid()}\)"):
        ports.bound("web.port", "0.0.0.0", port)  # any address of it
    ports.release(mine)


def test_connections_of_the_last_run_are_not_in_the_way() -> None:
    mine = ports.bound("web.port", "127.0.0.1", free_port())
    ports.listening("web.port", mine, 5)
    port = mine[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), 2) as client:
        served, _ = mine[0].accept()
        served.close()  # the server closes first: TIME_WAIT is on its side
        assert client.recv(1) == b""
    ports.release(mine)
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    again = ports.bound("web.port", "127.0.0.1", port)
    ports.listening("web.port", again, 5)
    ports.release(again)


def test_a_host_with_two_addresses_is_taken_on_both_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
    mine = ports.bound("web.port", "localhost", port)
    assert [one.getsockname() for one in mine] == [("127.0.0.1", port), ("127.0.0.2", port)]
    ports.release(mine)
    with socket.create_server(("127.0.0.2", port)), pytest.raises(WebPortTaken):
        ports.bound("web.port", "localhost", port)
    socket.create_server(("127.0.0.1", port)).close()  # it was given back


def test_an_address_that_is_not_here_is_refused_with_a_next_step() -> None:
    with pytest.raises(WebPortRefused, match=r"192\.0\.2\.9:8080.*next: an address that `ip address` lists"):
        ports.bound("web.port", "192.0.2.9", 8080)
    error = OSError(errno.EACCES, "Permission denied")
    assert "may not open a port under 1024" in str(ports._explained("web.port", "127.0.0.1", 80, error))


def test_metrics_are_answered_on_the_socket_that_was_taken() -> None:
    (mine,) = ports.bound("web.metrics_port", "127.0.0.1", free_port())
    ports.listening("web.metrics_port", [mine], 5)
    server = serve_metrics(CollectorRegistry(), mine)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{mine.getsockname()[1]}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
    finally:
        server.shutdown()
        server.server_close()


# ---- the store -------------------------------------------------------------------------------------------------------


def test_a_store_is_one_citys_whatever_its_path_is_called(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    first = StoreClaim(f"sqlite:///{tmp_path}/city.db")
    with pytest.raises(StoreTaken, match=rf"city.db belongs to another city that runs: .*pid {os.getpid()}\."):
        StoreClaim(f"sqlite:///{tmp_path}/link/city.db")
    (tmp_path / "alias.db").symlink_to(tmp_path / "city.db")
    with pytest.raises(StoreTaken):
        StoreClaim(f"sqlite:///{tmp_path}/alias.db")
    assert (tmp_path / "city.db.lock").stat().st_mode & 0o077 == 0, "else another user could keep the city out"
    StoreClaim(f"sqlite:///{tmp_path}/other.db").release()
    first.release()
    StoreClaim(f"sqlite:///{tmp_path}/link/city.db").release()
    assert not (tmp_path / "city.db").exists(), "the claim makes no store"


@pytest.fixture
def database(server: postgres.Server) -> Iterator[tuple[str, Any]]:
    """A database, and a way to run a statement in it."""
    url = server.database()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> Any:
        with engine.connect() as c:
            return c.execute(text(statement)).all()

    yield url, run
    engine.dispose()


def test_a_store_on_a_server_is_one_citys_too(database: tuple[str, Any], server: postgres.Server) -> None:
    url, _ = database
    first = StoreClaim(url)
    with pytest.raises(
        StoreTaken, match=rf"belongs to another city that runs: ansim-city on .*, pid {os.getpid()}, add"
    ):
        StoreClaim(url)
    StoreClaim(server.database()).release()
    first.release()
    StoreClaim(url).release()


def test_a_claim_that_the_server_has_lost_is_taken_again_or_reported(database: tuple[str, Any]) -> None:
    url, run = database
    lost = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ansim-city on %'"
    first = StoreClaim(url)
    run(lost)
    first.hold()  # it finds out
    first.hold()
    assert first.problem == ""
    with pytest.raises(StoreTaken):
        StoreClaim(url)
    run(lost)
    first.hold()
    second = StoreClaim(url)
    first.hold()
    assert "belongs to another city that runs" in first.problem
    second.release()
    first.hold()
    assert first.problem == ""
    first.release()


@pytest.mark.parametrize("ballast", [True, False])
def test_on_a_full_disk_the_claim_takes_the_place_of_the_ballast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ballast: bool
) -> None:
    """A city whose disk is full must start again, or nobody sees the next press."""
    reserve = tmp_path / "city.db.ballast"
    full = [True]
    right, right_unlink = os.open, Path.unlink

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(".lock") and full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return right(path, *arguments, **named)

    def unlinked(path: Path, *arguments: Any, **named: Any) -> None:
        right_unlink(path, *arguments, **named)
        full[0] = full[0] and path != reserve

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(Path, "unlink", unlinked)
    if not ballast:
        with pytest.raises(StoreError, match=r"city.db.lock cannot be made: No space left on device; next: "):
            StoreClaim(f"sqlite:///{tmp_path}/city.db")
        return
    reserve.write_bytes(b"x")
    claim = StoreClaim(f"sqlite:///{tmp_path}/city.db")
    assert not reserve.exists()
    claim.release()
