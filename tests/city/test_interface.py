"""The interface for programs, with a city in this process, a clock that the test moves, and no broker."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from city import intake
from city.config import load
from city.pages import login
from city.pages.app import make_app
from city.pages.login import add_operator
from city.server import City
from tests.city.bed import free_port, position, sos, told
from tests.city.test_store import NOW_S, batch, urgent

TOKEN = "x" * 40
HOST = "http://testserver"


class TestedApp:
    """A client that calls the app directly, from this address, and keeps cookies. No lifespan: no lanes, no threads."""

    __test__ = False

    def __init__(self, app: FastAPI, headers: dict[str, str] | None = None, address: str = "192.0.2.7") -> None:
        self.app, self.headers, self.address = app, headers or {}, address
        self.cookies = httpx.Cookies()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def one() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(self.address, 1))
            async with httpx.AsyncClient(
                transport=transport, base_url=HOST, headers=self.headers, cookies=self.cookies
            ) as client:
                answer = await client.request(method, path, **more)
                self.cookies = client.cookies
                return answer

        return asyncio.run(one())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made_city(tmp_path: Path, clock: Clock, web: str = "") -> City:
    """A city that is not started, with the operator kim. web: more lines of that table."""
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "passcode").write_text(add_operator(tmp_path / "operators.json", "kim"))
    path = tmp_path / "city.toml"
    path.write_text(
        f'site = "s"\n[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\n[store]\nurl = "sqlite:///city.db"\n'
        f'[web]\noperators_file = "operators.json"\ntoken_file = "token"\n{web}'
    )
    return City(load(path), clock)


@pytest.fixture
def city(tmp_path: Path, clock: Clock) -> Iterator[City]:
    city = made_city(tmp_path, clock)
    yield city
    city.standby.close()


@pytest.fixture
def client(city: City) -> TestedApp:
    return TestedApp(make_app(city), headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def browser(city: City, tmp_path: Path) -> TestedApp:
    browser = TestedApp(make_app(city), headers={"Origin": HOST})
    form = {"operator": "kim", "passcode": (tmp_path / "passcode").read_text()}
    assert browser.post("/login", data=form).status_code == 303
    return browser


def test_incident_has_the_time_of_every_hop(city: City, client: TestedApp, clock: Clock) -> None:
    intake.store_urgent(city.store, "t", urgent(1, sos("a1", at_s=NOW_S - 1)), clock())
    clock.now_s += 5
    assert client.get("/api/state").json()["incidents"][0]["number"] == 1
    clock.now_s += 5
    assert client.post("/api/incidents/1/acknowledge").json()["acknowledged_at"] == NOW_S + 10
    intake.store_urgent(city.store, "t", urgent(2, told("a1", "acknowledged", at_s=NOW_S + 11)), NOW_S + 12)
    (incident,) = client.get("/api/incidents").json()["incidents"]
    hops = {name: incident[name] for name in ("observed_at", "queued_at", "stored_at", "shown_at", "acknowledged_at")}
    assert hops == {
        "observed_at": NOW_S - 1,
        "queued_at": NOW_S,
        "stored_at": NOW_S,
        "shown_at": NOW_S + 5,
        "acknowledged_at": NOW_S + 10,
    }
    (lamp,) = incident["alarms"][0]["told"]
    assert lamp == {"reader": 3, "stage": "acknowledged", "told_at": NOW_S + 11, "stored_at": NOW_S + 12}


def test_wrong_state_and_unknown_incident_say_so(city: City, client: TestedApp, clock: Clock) -> None:
    intake.store_urgent(city.store, "t", urgent(1, sos("a1")), clock())
    for number in ("0", "-1", "9", "2147483648", "9223372036854775808", "9" * 4000):
        answer = client.post(f"/api/incidents/{number}/acknowledge")
        assert (answer.status_code, answer.json()["detail"]) == (404, f"no incident {number[:20]}")
    assert client.post("/api/incidents/first/acknowledge").status_code == 404
    refused = client.post("/api/incidents/1/close")
    assert refused.status_code == 409
    assert "acknowledge it first" in refused.json()["detail"]


def test_overdue_after_a_minute_and_not_twice(city: City, client: TestedApp, clock: Clock) -> None:
    intake.store_urgent(city.store, "t", urgent(1, sos("a1")), clock())
    city.do_duty(NOW_S + 59)
    assert not client.get("/api/incidents").json()["incidents"][0]["overdue"]
    city.do_duty(NOW_S + 61)
    city.do_duty(NOW_S + 62)
    (incident,) = client.get("/api/incidents").json()["incidents"]
    assert incident["overdue"]
    assert [line["word"] for line in incident["log"]].count("overdue") == 1


def test_every_look_and_press_has_a_name(city: City, browser: TestedApp, clock: Clock, tmp_path: Path) -> None:
    intake.store_urgent(city.store, "t", urgent(1, sos("a1")), clock())
    for _ in range(3):
        assert browser.get("/api/state").status_code == 200
    clock.now_s += 61
    browser.get("/api/state")
    browser.post("/api/incidents/1/acknowledge")
    with contextlib.closing(sqlite3.connect(tmp_path / "city.db")) as db, db:
        looks = db.execute("SELECT who, what FROM look ORDER BY id").fetchall()
        log = db.execute("SELECT word, who FROM incident_log ORDER BY id").fetchall()
    assert looks == [("kim", "login"), ("kim", "state"), ("kim", "state")]  # the same request is logged once a minute
    assert log == [("opened", "city"), ("shown", "kim"), ("acknowledged", "kim")]


def test_a_session_ends_with_the_shift_with_logout_and_with_its_operator(
    city: City, browser: TestedApp, clock: Clock, tmp_path: Path
) -> None:
    assert browser.get("/api/stats").status_code == 200
    clock.now_s += login.SESSION_MAX_S + 1
    assert browser.get("/api/stats").status_code == 401
    clock.now_s -= login.SESSION_MAX_S
    assert browser.get("/api/stats").status_code == 200
    (tmp_path / "operators.json").write_text("{}")
    assert browser.get("/api/stats").status_code == 401
    cookie = browser.cookies["ansim_session"]
    assert cookie.encode() not in (tmp_path / "city.db").read_bytes() + (tmp_path / "city.db-wal").read_bytes()


def test_logout_ends_the_session_in_the_store(browser: TestedApp) -> None:
    cookie = browser.cookies["ansim_session"]
    assert browser.post("/logout").status_code == 303
    assert "ansim_session" not in browser.cookies
    browser.cookies.set("ansim_session", cookie)
    assert browser.get("/api/stats").status_code == 401


def test_guessing_is_braked_where_it_is_done_and_keeps_no_operator_out(clock: Clock) -> None:
    brake = login.Brake(clock)
    for _ in range(login.FAILURES_MAX):
        assert brake.wait_s("kim", "192.0.2.1") == 0
        brake.failed("kim", "192.0.2.1")
    assert brake.wait_s("kim", "192.0.2.1") == login.FAILURES_S
    assert brake.wait_s("kim", "192.0.2.2") == 0
    for i in range(1000):
        brake.failed(f"name{i}", "192.0.2.1")
    assert brake.wait_s("fresh", "192.0.2.1") == 0, "an address may be a whole control room"
    clock.now_s += login.FAILURES_S
    assert brake.wait_s("kim", "192.0.2.1") == 0
    for i in range(login.NAMES_MAX + 10):
        brake.failed(f"name{i}", f"address {i}")
    assert len(brake._failures) == login.NAMES_MAX


def test_answers_forbid_other_hosts_frames_and_caches(browser: TestedApp) -> None:
    headers = browser.get("/").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert browser.get("/docs").status_code == 404  # the page would load from another host
    assert "/api/incidents/{number}/acknowledge" in browser.get("/openapi.json").json()["paths"]
    assert browser.get("/static/app.py").status_code == 404
    assert browser.get("/leaflet/leaflet.js").status_code == 200


def test_metrics_are_for_the_token_and_count_what_is_stored(city: City, client: TestedApp) -> None:
    intake.store_batch(city.store, "t", batch(1, position("t-01"), position("t-02")), NOW_S)
    text = client.get("/metrics").text
    assert 'ansim_city_stored_total{type="position"} 2.0' in text
    assert 'ansim_city_lane_up{lane="sos"} 0.0' in text
    assert "t-01" not in text
    assert client.get("/metrics", headers={"Authorization": "Bearer no"}).status_code == 401
    assert TestedApp(client.app).get("/metrics").status_code == 401
    local = TestedApp(client.app, address="127.0.0.1")
    assert local.get("/metrics").status_code == 401, "a proxy of this machine may send no header that says so"


def test_health_is_503_while_a_lane_is_down(client: TestedApp) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json() == {"ok": False, "lanes": {"sos": False, "events": False}, "store": True, "problems": []}
