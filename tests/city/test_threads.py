"""No thread of the city ends for good: each is killed here, in a city that serves real HTTP over a real broker."""

import asyncio
import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from city import consumer, page_stream, server
from city.config import load
from city.pages.app import make_app
from city.pages.login import add_operator
from city.server import City
from city.store import Store
from city.threads import Kept
from tests.city.bed import KEYS, SITE, Gateway, free_port, sos, wait_for, write_keys

TOKEN = "x" * 40
KILLED = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
"""paho's own threads are killed, and end as they do in life: with an exception that nobody catches."""


class Served:
    """A city in this process, so that its threads can be killed, with its pages on a port."""

    def __init__(self, folder: Path, broker_port: int, more: str = "") -> None:
        (folder / "token").write_text(TOKEN)
        add_operator(folder / "operators.json", "kim")
        (folder / "gateway_keys").mkdir(mode=0o700)
        write_keys(folder / "gateway_keys" / "gw1.keys", KEYS)
        path = folder / "city.toml"
        path.write_text(
            f'site = "{SITE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker_port}\n{more}[store]\nurl = "sqlite:///city.db"\n'
            '[web]\noperators_file = "operators.json"\ntoken_file = "token"\n'
        )
        self.city = City(load(path), time.time)
        port = free_port()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
        )
        self._server = uvicorn.Server(uvicorn.Config(make_app(self.city), port=port, log_config=None))
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self) -> "Served":
        self._thread.start()
        wait_for("the pages", lambda: self._server.started)
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.close()
        self._server.should_exit = True
        self.city.stream.close()
        self._thread.join()

    def up(self) -> bool:
        return all(self.http.get("/healthz").json()["lanes"].values())

    def restarts(self, part: str) -> int:
        return int(self.http.get("/api/stats").json()["restarts"].get(part, 0))

    def open_cry(self, tag: str) -> Any:
        return next((i for i in self.http.get("/api/state").json()["incidents"] if i["subject"] == tag), None)


@pytest.fixture
def served(broker_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(server, "PRUNE_S", 0.2)  # a thread dies only when it runs: the retention every hour
    with Served(tmp_path, broker_port) as served:
        wait_for("the lanes", served.up)
        yield served


def kill(name: str) -> None:
    """End a thread of this process as an unexpected exception does, wherever it is."""
    (thread,) = [one for one in threading.enumerate() if one.name == name]
    assert thread.ident is not None
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)) == 1


def kill_and_cry(served: Served, gateway: Gateway, name: str, seq: int) -> None:
    part = f"{name.rpartition('-')[2]}-connection" if name.startswith("paho") else name
    before = served.restarts(part)
    kill(name)
    wait_for(f"{name} to be counted", lambda: served.restarts(part) > before)
    alarm, tag = f"a{seq}", f"t-{seq}"
    gateway.urgent(seq, sos(alarm, tag=tag))
    incident = wait_for(f"the cry after {name}", lambda: served.open_cry(tag), 10)
    answer = served.http.post(f"/api/incidents/{incident['number']}/acknowledge")
    assert answer.json()["state"] == "acknowledged"
    wait_for("the lamp", lambda: "acknowledged" in gateway.stages(alarm), 10)


@KILLED
def test_every_thread_that_is_killed_is_started_again_and_told_and_cries_go_on(
    served: Served, gateway: Gateway
) -> None:
    gateway.status()
    client = f"paho-mqtt-client-ansim-city-{SITE}"
    parts = ["lane-sos", "lane-events", f"{client}-sos", f"{client}-events", "duty", "retention", "standby"]
    ours = {
        one.name for one in threading.enumerate() if one.name.startswith(("lane", "duty", "reten", "standby", client))
    }
    assert ours == set(parts), "a thread that this test does not kill"
    for seq, name in enumerate(parts, 1):
        kill_and_cry(served, gateway, name, seq)
    health = served.http.get("/healthz")
    assert health.status_code == 503
    assert "thread" in health.json()["problems"]
    problems = served.http.get("/api/state").json()["problems"]
    assert any("thread duty ended and was started again (1 times): SystemExit" in problem for problem in problems)


def test_a_callback_that_fails_ends_the_connection_and_not_the_lane(
    served: Served, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended the emergency lane for ever: an error outside all that looks after errors."""
    handle, failed = consumer.Consumer._handle, threading.Event()

    def fail_once(self: Any, client: Any, message: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(28, "No space left on device")
        handle(self, client, message)

    monkeypatch.setattr(consumer.Consumer, "_handle", fail_once)
    gateway.urgent(1, sos("a1", tag="t-1"))
    wait_for("the new connection", lambda: failed.is_set() and served.restarts("sos-connection") == 1 and served.up())
    gateway.urgent(1, sos("a1", tag="t-1"))  # a gateway repeats what the city does not acknowledge; a broker may not
    wait_for("the cry, after a new connection", lambda: served.open_cry("t-1"), 10)
    assert served.restarts("sos-connection") == 1


@KILLED
def test_a_password_file_that_is_gone_ends_no_lane(broker_port: int, tmp_path: Path, gateway: Gateway) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    with Served(tmp_path, broker_port, 'username = "city"\npassword_file = "secret"\n') as served:
        wait_for("the lanes", served.up)
        secret.unlink()
        kill(f"paho-mqtt-client-ansim-city-{SITE}-sos")
        wait_for("the lane to say so", lambda: "secret" in served.city.sos.problem)
        secret.write_text("x")
        gateway.urgent(1, sos("a1", tag="t-1"))
        wait_for("the cry", lambda: served.open_cry("t-1"), 15)


def test_a_kept_thread_begins_again_with_a_pause_that_grows_up_to_a_limit() -> None:
    pauses: list[float] = []

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return len(pauses) == 6

    def fail() -> None:
        raise MemoryError("nothing left")

    kept = Kept("some", fail, pause_max_s=2.0, wait=wait)
    kept.join(1)  # not started: nothing to wait for
    kept.start()
    kept.join(20)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert kept.restarts == 6
    assert kept.problem == "thread some ended and was started again (6 times): MemoryError: nothing left"


def test_work_that_returns_is_over_and_no_problem() -> None:
    done = threading.Event()
    kept = Kept("some", done.set)
    kept.start()
    kept.join(20)
    assert done.is_set()
    assert (kept.restarts, kept.problem) == (0, "")


def test_a_message_that_takes_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_lane = Served(tmp_path, free_port())
    lane = with_lane.city.sos
    assert lane.stuck == ""
    lane._busy_since = time.monotonic() - consumer.BUSY_S - 1
    assert "lane sos has worked on one message for 6 s" in lane.stuck
    assert any(problem.startswith("lane: ") for problem in with_lane.city.problems())
    with_lane.http.close()
    with_lane.city.standby.close()


def test_words_that_cannot_be_sent_end_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stream, "GATHER_S", 0.001)

    async def story() -> page_stream.PageStream:
        stream = page_stream.PageStream(lambda: 1.0, dict)
        stream.attach(asyncio.get_running_loop())
        task = asyncio.create_task(stream.run())
        for subject, value in (("a", object()), ("b", 1)):
            stream.publish_words("word", [{"subject": subject, "kind": "position", "value": value}])
            for _ in range(20):
                await asyncio.sleep(0.002)
            assert not task.done()
        stream.close()
        await task
        return stream

    stream = asyncio.run(story())
    assert stream.failures == 1
    assert '"subject":"b"' in stream._ring[-1][1].data


def test_the_retention_goes_on_after_a_failure(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = threading.Event()
    prune = server.prune

    def fail_once(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(server, "prune", prune_and_say)
        raise ValueError("no reason")

    def prune_and_say(store: Store, *arguments: Any, **named: Any) -> Any:
        pruned.set()
        return prune(store, *arguments, **named)

    monkeypatch.setattr(server, "prune", fail_once)
    assert pruned.wait(20)
