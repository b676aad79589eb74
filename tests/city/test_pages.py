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
from tests.city.bed import City, Gateway, arrival, place, position, sos, strayed, told, wait_for, when
from tests.roots import GONGDEOK

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
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
VIEW = "['.leaflet-proxy', '.leaflet-map-pane'].map((name) => document.querySelector(name).style.transform).join()"
"""Changes with the map's zoom (the first element) and when it is moved (the second)."""


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
    city = City(tmp_path, broker_port, site_map=GONGDEOK.read_text("utf-8"))
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


def test_off_route_still_and_paused_are_said_of_a_tag(city: City, gateway: Gateway, watched: Watched) -> None:
    gateway.batch(1, [strayed("t-01")])  # alone it makes no row, and breaks none
    page = watched.log_in()
    row = page.locator("#children tr", has_text="t-01")
    gateway.batch(2, [position("t-01")])
    expect(row).to_contain_text(re.compile(r"moving; off route by-the-park since \d\d:\d\d:\d\d"))
    expect(page.locator(".tag-dot")).to_have_count(1)
    at = Presence(observed_at=when(), clock="good", tag="t-01", state="at", place="school", where=place(), still=True)
    gateway.batch(3, [strayed("t-01", off=False), at])
    expect(row.locator(".words")).to_have_text("at school, tag not moving")
    idle = Presence(observed_at=when(), clock="good", tag="t-01", state="idle", place=None, where=place())
    gateway.batch(5, [idle, position("t-01", time.time() + 1)])
    expect(row.locator(".words")).to_have_text("tag not moving")
    unseen = Presence(observed_at=when(), clock="good", tag="t-01", state="unseen", place=None, where=None)
    gateway.batch(7, [unseen, position("t-01", time.time() + 2)])
    expect(row.locator(".words")).to_have_text("moving")
    paused = Presence(observed_at=when(), clock="good", tag="t-01", state="paused", place=None, where=None)
    gateway.batch(9, [paused])
    expect(row.locator(".words")).to_have_text("paused")
    expect(page.locator(".tag-dot")).to_have_count(0)
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


def danger(alarm: str, tag: str) -> Danger:
    return Danger(
        observed_at=when(),
        clock="good",
        alarm=alarm,
        revision=0,
        tag=tag,
        area="road",
        near=True,
        probability=0.5,
        where=place(126.9528, 37.5455, 60),
    )


def bell(alarm: str) -> Bell:
    at_gate = place(126.9534, 37.5455, 4)
    return Bell(
        observed_at=when(), clock="good", alarm=alarm, revision=0, bell="gate", reader=1, presses=1, where=at_gate
    )


def standing_order(page: Page) -> list[str]:
    """The open incidents from top to bottom, by where they are on the screen and not by where they are in the page."""
    found = page.evaluate(
        "[...document.querySelectorAll('#incident-list .card')].map((c) => [c.getBoundingClientRect().top, "
        "c.querySelector('.kind').textContent, c.querySelector('.subject').textContent.replace(/ +#.*/, '')])"
    )
    return [f"{kind} {subject}" for _, kind, subject in sorted(found)]


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1920, 1080)])
def test_no_danger_notice_stands_above_a_call_whatever_came_last(
    city: City, gateway: Gateway, browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    watched = Watched(browser, city, width, height)
    try:
        page = watched.log_in()
        expect(page.locator("#link-words")).to_have_text("live")
        for i in range(3):
            gateway.urgent(i + 1, danger(f"gw1-e1-{i}", f"t-{i:02}"))
        gateway.urgent(4, sos("gw1-e1-4", tag="t-10", readers=(1, 5), where=place(126.953, 37.5456, 30)))
        for i in (5, 6):
            gateway.urgent(i, danger(f"gw1-e1-{i}", f"t-{i:02}"))
        gateway.urgent(7, bell("gw1-e1-7"))
        expect(page.locator("#incident-list .card")).to_have_count(7)
        notices = [f"Danger t-{i:02}" for i in (0, 1, 2, 5, 6)]
        assert standing_order(page) == ["SOS tag t-10", "Bell bell gate", *notices]
        expect(page.locator("#incident-count")).to_have_text("1 SOS new, 1 bell new, 5 danger notices")
        expect(page.locator("#waiting")).to_be_in_viewport()
        press = page.locator(".card.call").first.get_by_role("button", name="Acknowledge")
        expect(press).to_be_in_viewport(ratio=1)
        heights = page.evaluate("[...document.querySelectorAll('.card.notice')].map((n) => n.offsetHeight)")
        assert max(heights) <= 64, heights

        sizes = page.evaluate("[...document.querySelectorAll('.notice-mark')].map((m) => m.offsetWidth)")
        assert len(sizes) == 5
        assert max(sizes) <= 24
        raised = page.evaluate(
            "['.alarm-mark', '.notice-mark'].map((name) => [...document.querySelectorAll(name)]"
            ".map((m) => Number(m.parentElement.style.zIndex)))"
        )
        assert min(raised[0]) > max(raised[1])

        press.click()
        expect(page.locator(".card.call").first.locator(".kind")).to_have_text("Bell")
        assert standing_order(page) == ["Bell bell gate", "SOS tag t-10", *notices]
        page.locator(".card.call").first.get_by_role("button", name="Acknowledge").click()
        expect(page.locator("#incident-count")).to_have_text("2 acknowledged, 5 danger notices")
        expect(page.locator("#waiting")).to_be_hidden()
        assert standing_order(page) == ["SOS tag t-10", "Bell bell gate", *notices]

        first = page.locator(".card.notice").first
        expect(first.locator(".hops")).to_be_hidden()
        first.locator(".more").click()
        expect(first.locator(".hops")).to_be_visible()
        first.locator(".acknowledge").click()
        expect(page.locator(".card.notice").last.locator(".subject")).to_have_text("t-00")
        shot(page, tmp_path, f"order-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert watched.complaints == []
    finally:
        watched.close()


def test_a_press_meant_for_the_card_before_falls_on_none(city: City, gateway: Gateway, watched: Watched) -> None:
    page = watched.log_in()
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    press = page.locator(".card.call .acknowledge")
    press.wait_for()
    page.wait_for_timeout(700)
    press.click()
    close = page.locator(".card.call .close")
    close.wait_for()
    box = close.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 20, box["y"] + 20)  # Close has come under the pointer, and this press was not for it
    expect(page.locator(".card.call .state")).to_contain_text("ACKNOWLEDGED")
    page.wait_for_timeout(700)
    assert city.incidents()[0]["state"] == "acknowledged"
    assert page.evaluate("document.activeElement.className").startswith("card")  # so a second Enter closes nothing


def test_circles_are_drawn_for_open_incidents_and_the_child_pointed_at(
    city: City, gateway: Gateway, watched: Watched
) -> None:
    page = watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live")
    gateway.batch(1, [position(f"t-{i:02}", where=place(126.953 + 0.0002 * i, 37.5455, 60)) for i in range(20)])
    expect(page.locator("#children tr")).to_have_count(20)
    rings = page.locator("path.ring")
    expect(rings).to_have_count(0)
    expect(page.locator("#children")).to_contain_text("60 m")
    view = page.evaluate(VIEW)

    button = page.get_by_role("button", name="t-07", exact=True)
    row = page.locator("#children tr", has=button)
    row.hover()
    expect(rings).to_have_count(1)
    page.mouse.move(2, 2)
    expect(rings).to_have_count(0)
    row.locator("td").last.click()
    page.mouse.move(2, 2)
    expect(rings).to_have_count(1)
    expect(page.locator("#children tr.selected")).to_contain_text("t-07")
    page.keyboard.press("Escape")
    expect(rings).to_have_count(0)
    row.locator("button").focus()
    expect(rings).to_have_count(1)
    page.keyboard.press("Enter")
    row.locator("button").blur()
    expect(rings).to_have_count(1)
    page.keyboard.press("Escape")
    marker = page.locator(".leaflet-marker-icon[aria-label='t-07']")
    marker.focus()
    page.keyboard.press("Enter")
    marker.blur()
    expect(page.locator("#children tr.selected")).to_contain_text("t-07")
    expect(rings).to_have_count(1)
    page.keyboard.press("Escape")
    expect(rings).to_have_count(0)

    gateway.urgent(1, danger("gw1-e1-1", "t-03"))
    gateway.urgent(2, sos("gw1-e1-2", tag="t-04", where=place(126.9529, 37.5457, 25)))
    expect(page.locator("path.ring.of-notice")).to_have_count(1)
    assert page.locator("path.ring.of-notice").get_attribute("fill") == "none"
    assert page.locator("path.ring.of-notice").get_attribute("stroke-width") == "1"
    expect(page.locator("path.ring.of-call")).to_have_count(1)
    expect(page.locator("path.ring.of-tag")).to_have_count(1)  # where the child who cried is by now
    expect(page.locator("#children tr").first).to_have_class(re.compile("crying"))
    expect(page.locator("#children tr").nth(1)).to_have_class(re.compile("near"))
    assert page.evaluate(VIEW) == view
    page.locator(".card.call .find").click()
    wait_for("another view", lambda: page.evaluate(VIEW) != view)
    assert watched.complaints == []


def test_a_long_name_of_a_tag_keeps_to_one_line(city: City, gateway: Gateway, watched: Watched) -> None:
    page = watched.log_in()
    gateway.batch(1, [position("tag-001"), position("tag-" + "0" * 40)])
    expect(page.locator("#children tr")).to_have_count(2)
    heights = page.evaluate("[...document.querySelectorAll('#children tr')].map((r) => r.offsetHeight)")
    assert max(heights) < 34, heights


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
