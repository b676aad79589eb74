"""SOS and bells are shown above danger notices, and the page fits every width of screen without sideways scrolling."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.events import Bell, Danger, GatewayHealth, Presence, ReaderHealth
from tests.city.bed import City, Gateway, arrival, danger, place, position, sos, told, when
from tests.city.screen import Watched, shot

pytestmark = pytest.mark.browser


def scene(gateway: Gateway) -> None:
    """Send a morning at the school: tags on their way, some at school, one unseen; and four different emergencies."""
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


def bell(alarm: str) -> Bell:
    at_gate = place(126.9534, 37.5455, 4)
    return Bell(
        observed_at=when(), clock="good", alarm=alarm, revision=0, bell="gate", reader=1, presses=1, where=at_gate
    )


def standing_order(page: Page) -> list[str]:
    """Return the open incidents from top to bottom of the screen, whatever their order in the page's HTML."""
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
        number = next(i["number"] for i in city.incidents() if i["subject"] == "t-03")
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
