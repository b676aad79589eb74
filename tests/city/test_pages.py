"""The dispatcher's page in a real browser, against the real city and a real broker."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Error, Page, Request, expect, sync_playwright

from gateway.events import Bell, Danger, GatewayHealth, Presence, ReaderHealth
from tests.city.peers import City, Gateway, arrival, place, position, sos, told, wait_for, when

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
SITE_MAP = Path(__file__).parents[2] / "sim" / "sites" / "gongdeok.geojson"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-gpu",
    "--no-first-run",
]
SHOTS = os.environ.get("ANSIM_SHOTS")
"""A folder to keep the screenshots in; without it they go to the test's own."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def city(broker_port: int, tmp_path: Path) -> Iterator[City]:
    city = City(tmp_path, broker_port, site_map=SITE_MAP.read_text("utf-8"))
    try:
        yield city.start()
    finally:
        city.stop()


class Watched:
    """A page, and everything it asked for and complained of."""

    def __init__(self, browser: Browser, city: City, width: int, height: int) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        self.page: Page = self.context.new_page()
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", self._on_request)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.city = city

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def log_in(self, passcode: str | None = None) -> Page:
        self.page.goto(self.city.address + "/")
        self.page.get_by_label("Operator").fill("kim")
        self.page.get_by_label("Passcode").fill(passcode or self.city.passcode)
        self.page.get_by_role("button", name="Log in").click()
        return self.page

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def watched(browser: Browser, city: City) -> Iterator[Watched]:
    watched = Watched(browser, city, 1920, 1080)
    yield watched
    watched.close()


def shot(page: Page, folder: Path, name: str, *, whole: bool = False) -> None:
    target = Path(SHOTS or folder) / f"{name}.png"
    for attempts_left in (2, 1, 0):
        try:
            page.screenshot(path=target, full_page=whole)
            break
        except Error:  # "Unable to capture screenshot", on a machine with every core taken
            if not attempts_left:
                raise
            page.wait_for_timeout(500)
    assert target.stat().st_size > 10_000


def test_press_reaches_the_screen_and_the_operators_press_reaches_the_lamp(
    city: City, gateway: Gateway, watched: Watched
) -> None:
    page = watched.log_in()
    expect(page.get_by_text("No open incident.")).to_be_visible()
    expect(page.locator("#link-words")).to_have_text("live")
    gateway.status()
    gateway.urgent(1, sos("gw1-e1-1", tag="t-07", readers=(5, 8)))

    card = page.locator("#incident-list .card")
    expect(card.locator(".kind")).to_have_text("SOS")
    expect(card.locator(".subject")).to_contain_text("t-07")
    expect(card.locator(".lamp-words")).to_have_text("lamp: no word from it yet")
    gateway.urgent(2, told("gw1-e1-1", "received", reader=5))
    expect(card.locator(".lamp-words")).to_contain_text("lamp: received, lit")
    assert wait_for("shown", lambda: city.incidents()[0]["shown_at"]) >= city.incidents()[0]["stored_at"]

    card.get_by_role("button", name="Acknowledge").click()
    wait_for("the notice", lambda: "acknowledged" in gateway.stages("gw1-e1-1"))
    expect(card.locator(".state")).to_contain_text("ACKNOWLEDGED")
    gateway.urgent(3, told("gw1-e1-1", "acknowledged", reader=5))
    expect(card.locator(".lamp-words")).to_contain_text(re.compile(r"help is coming, lit \d\d:\d\d:\d\d"))
    expect(card.locator(".hops")).to_contain_text("Acknowledged by kim")

    card.get_by_role("button", name="Close").click()
    expect(page.get_by_text("No open incident.")).to_be_visible()
    log = [(line["word"], line["who"]) for line in city.incidents()[0]["log"]]
    assert ("acknowledged", "kim") in log
    assert ("closed", "kim") in log
    assert ("shown", "kim") in log
    assert watched.hosts == {urlsplit(city.address).netloc}
    assert watched.complaints == []


def test_words_from_the_street_are_text_and_never_markup(city: City, gateway: Gateway, watched: Watched) -> None:
    page = watched.log_in()
    evil = "<img src=x onerror=alert(1)>"
    gateway.batch(1, [position(evil), arrival(evil)])
    gateway.urgent(1, sos("gw1-e1-1", tag=evil))
    expect(page.locator("#incident-list .subject")).to_contain_text(evil)
    expect(page.locator("#children")).to_contain_text(evil)
    assert page.locator("img[src=x]").count() == 0
    assert watched.complaints == []


def test_a_city_that_dies_is_said_so_and_comes_back_without_a_login(
    city: City, gateway: Gateway, watched: Watched
) -> None:
    page = watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live")
    city.kill()
    expect(page.locator("#lost")).to_contain_text("Connection to the city lost", timeout=25_000)
    city.start()
    gateway.urgent(1, sos("gw1-e1-1"))
    expect(page.locator("#incident-list .card")).to_have_count(1, timeout=20_000)
    expect(page.locator("#lost")).to_be_hidden()


def test_login_is_asked_for_braked_and_bound_to_this_host(city: City, watched: Watched) -> None:
    for path in ("/api/state", "/api/incidents", "/api/stats", "/events", "/map.geojson"):
        assert httpx.get(city.address + path).status_code == 401
        assert httpx.get(city.address + path, headers={"Authorization": "Bearer " + "x" * 40}).status_code == 401
    page = watched.log_in("wrong")
    shot(page, city.folder, "login")
    expect(page.get_by_role("alert")).to_have_text("Name or passcode is wrong.")
    watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live")
    (cookie,) = watched.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    jar = {cookie["name"]: cookie["value"]}
    for origin in (None, "http://evil.example", "null"):
        headers = {"Origin": origin} if origin else {}
        answer = httpx.post(f"{city.address}/api/incidents/1/acknowledge", cookies=jar, headers=headers)
        assert answer.status_code == 403
    form = {"operator": "kim", "passcode": "wrong"}
    own = {"Origin": city.address}
    codes = [httpx.post(f"{city.address}/login", data=form, headers=own, timeout=20).status_code for _ in range(9)]
    assert codes[-1] == 429
    assert httpx.post(f"{city.address}/login", data=form | {"passcode": city.passcode}, headers=own).status_code == 429
    assert httpx.get(f"{city.address}/", cookies=jar).status_code == 200


def scene(gateway: Gateway) -> None:
    """A morning at the school: children on their way, some at school, one unseen; four emergencies of four kinds."""
    now_s = time.time()
    gateway.status(clock="good", readers_ok=30, readers_silent=2, backlog={"sos": 0, "events": 12})
    words: list[Any] = []
    for i in range(24):
        where = place(126.9525 + 0.0003 * (i % 8), 37.5455 + 0.0005 * (i // 8), 6.0 + i)
        words.append(position(f"t-{i:02}", now_s - 4 * i, where))
        if i % 5 == 0:
            words.append(arrival(f"t-{i:02}", now_s - 60 * i))
            words.append(
                Presence(observed_at=when(), clock="good", tag=f"t-{i:02}", state="at", place="school", where=where)
            )
        if i == 7:
            words.append(
                Presence(observed_at=when(), clock="good", tag="t-07", state="unseen", place="school", where=where)
            )
    for number in range(1, 33):
        state: Any = "silent" if number in (9, 21) else "ok"
        words.append(
            ReaderHealth(observed_at=when(now_s - number), clock="good", reader=number, state=state, counters={})
        )
    words.append(
        GatewayHealth(
            observed_at=when(),
            clock="good",
            what="radio_deaf",
            ok=False,
            detail="no frame from any reader for 40 s; check the coordinator's USB cable",
        )
    )
    gateway.batch(1, words)
    near = place(126.9541, 37.5461, 12)
    gateway.urgent(1, sos("gw1-e1-1", tag="t-03", readers=(5, 8), where=near, at_s=now_s - 5))
    gateway.urgent(2, told("gw1-e1-1", "received", reader=5))
    gateway.urgent(
        3,
        Bell(
            observed_at=when(),
            clock="good",
            alarm="gw1-e1-2",
            revision=0,
            bell="gate-bell",
            reader=8,
            presses=2,
            where=place(126.9550, 37.5468, 3),
        ),
    )
    gateway.urgent(
        4,
        Danger(
            observed_at=when(now_s - 9000),
            clock="good",
            alarm="gw1-e1-3",
            revision=0,
            tag="t-11",
            area="road",
            near=True,
            probability=0.93,
            where=place(126.9562, 37.5458, 20),
        ),
    )
    gateway.urgent(5, sos("gw1-e1-4", tag="unknown", trust="unverified", drill=True, where=None, readers=()))


@pytest.mark.parametrize(("width", "height"), [(360, 780), (1024, 768), (1920, 1080)])
def test_every_width_shows_all_without_sideways_scrolling(
    city: City, gateway: Gateway, browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    scene(gateway)
    watched = Watched(browser, city, width, height)
    try:
        page = watched.log_in()
        expect(page.locator("#incident-list .card")).to_have_count(4)
        expect(page.locator("#children tr")).to_have_count(24)
        number = city.incidents()[-1]["number"]
        card = page.locator(f".card[data-number='{number}']")
        card.get_by_role("button", name="Acknowledge").click()
        gateway.urgent(6, told("gw1-e1-1", "acknowledged", reader=5))
        expect(card.locator(".lamp-words")).to_contain_text("help is coming, lit")
        expect(page.locator(".leaflet-control-attribution")).to_contain_text("OpenStreetMap contributors")
        page.wait_for_timeout(300)
        shot(page, tmp_path, f"desk-{width}", whole=width < 1000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            "[...document.querySelectorAll('.presses button, header button')].filter((b) => b.offsetParent)"
            ".map((b) => b.getBoundingClientRect()).filter((r) => r.height < 44 || r.width < 44).length"
        )
        assert small == 0
        assert watched.hosts == {urlsplit(city.address).netloc}
        assert watched.complaints == []
    finally:
        watched.close()
