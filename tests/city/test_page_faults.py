"""What fails in the page or behind it hides no emergency, and is said: no state, a time zone, a script, an incident,
the store, the map."""

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, Route, expect

from tests.city.bed import City, Gateway, position, sos, wait_for
from tests.city.relay import relayed
from tests.city.screen import Watched, shot
from tests.roots import GONGDEOK

pytestmark = pytest.mark.browser
ALONE = "delete window.SharedWorker; delete window.BroadcastChannel;"
"""The page then asks by itself, where a test can change the answer."""


def changed(page: Page, address: str, old: str, new: str) -> None:
    """Let the browser get one file of the page with a text replaced."""

    def change(route: Route) -> None:
        answer = route.fetch()
        assert old in answer.text(), address
        route.fulfill(response=answer, body=answer.text().replace(old, new))

    page.route(re.compile(re.escape(address) + r"(\?.*)?$"), change)


def plain_frame(page: Page) -> Frame | None:
    """Return the frame of the plain list, None while it is not loaded: that is only while it is in sight."""
    return next((frame for frame in page.frames if frame.url.endswith("/calls")), None)


def test_a_page_that_never_got_the_state_says_that_it_knows_nothing(
    city: City, gateway: Gateway, browser: Browser, tmp_path: Path
) -> None:
    with relayed(city.port) as relay:
        relay.held = (b"GET /api/state", b"GET /events")
        watched = Watched(browser, city, 1280, 800, address=relay.address)
        try:
            page = watched.log_in()
            expect(page.locator("#lost")).to_contain_text("This page knows nothing yet", timeout=15_000)
            expect(page.locator("#no-incidents")).to_contain_text("Not known")
            expect(page.get_by_text("No open incident.")).to_have_count(0)
            expect(page.locator("#child-count")).to_have_text("not known")
            expect(page.locator("#link-words")).to_have_text("connecting")
            gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
            plain = page.frame_locator("#plain iframe")  # it came by itself: its way to the city is not held
            expect(plain.locator("li")).to_contain_text("SOS t-01", timeout=20_000)
            shot(page, tmp_path, "unknown-1280")
            relay.mend()
            expect(page.locator("#incident-list .card")).to_have_count(1, timeout=20_000)
            expect(page.locator("#lost")).to_be_hidden()
            expect(page.locator("#plain")).not_to_be_in_viewport()
        finally:
            watched.close()


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "right/Asia/Seoul"])
def test_a_time_zone_that_the_browser_refuses_falls_back_to_utc(
    city: City, gateway: Gateway, watched: Watched, zone: str
) -> None:
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    page = watched.log_in()
    expect(page.locator("#incident-list .card")).to_have_count(1)
    changed(page, city.address + "/", 'data-timezone="Asia/Seoul"', f'data-timezone="{zone}"')
    page.reload()
    expect(page.locator("#incident-list .card .what")).to_contain_text("UTC", timeout=10_000)
    expect(page.locator("#faults")).to_contain_text(f"does not know the city's time zone {zone}: all times are UTC")
    expect(page.locator("#clock")).to_contain_text("UTC")
    assert watched.complaints == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("phrases.js", "export const", "export export const"),  # no script at all
        ("cards.js", "function drawFully", "function drawFull"),  # each card fails
        ("console.js", "setInterval(beat, 1000);", "throw new Error('in the middle');"),
        (
            "share.js",
            "export function share(take, build) {",
            "export function share(take, build) { throw new Error('x');",
        ),
    ],
)
def test_no_error_in_a_script_hides_a_call_and_its_press(
    city: City, gateway: Gateway, watched: Watched, tmp_path: Path, file: str, old: str, new: str
) -> None:
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    changed(watched.page, f"/static/{file}", old, new)
    page = watched.log_in()
    scripted = page.locator("#incident-list .card", has_text="t-01")
    wait_for("a card or the plain list", lambda: scripted.is_visible() or plain_frame(page), 20)
    plain = plain_frame(page)
    place: Any = plain.locator("li", has_text="t-01") if plain else scripted
    button = place.get_by_role("button", name="Acknowledge")
    page.wait_for_timeout(700)
    shot(page, tmp_path, f"broken-{file}")
    button.click()
    wait_for("the press", lambda: city.incidents()[0]["acknowledged_by"] == "kim")


def test_a_page_without_leaflet_shows_the_calls_and_says_what_is_missing(
    city: City, gateway: Gateway, watched: Watched
) -> None:
    watched.page.route("**/leaflet/leaflet.js", lambda route: route.abort())
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    gateway.batch(1, [position("t-02")])
    page = watched.log_in()
    expect(page.locator("#incident-list .card .subject")).to_contain_text("t-01")
    expect(page.locator("#children")).to_contain_text("t-02")
    expect(page.locator("#left-out")).to_contain_text("the map failed: leaflet.js did not load")
    page.wait_for_timeout(7_000)  # the plain list would have come by now
    expect(page.locator("#plain")).not_to_be_in_viewport()
    assert plain_frame(page) is None


def test_an_incident_that_cannot_be_drawn_takes_no_other_along(city: City, gateway: Gateway, browser: Browser) -> None:
    def spoil(route: Route) -> None:
        answer = route.fetch()
        state: dict[str, Any] = answer.json()
        for incident in state["incidents"]:
            if incident["subject"] == "t-bad":
                incident |= {"alarms": None, "log": None, "where": {"geometry": None, "accuracy_95_m": "wide"}}
        route.fulfill(response=answer, json=state | {"words": [None, *state["words"]]})

    watched = Watched(browser, city, before=ALONE)
    try:
        watched.page.route("**/api/state", spoil)
        for i, tag in enumerate(("t-bad", "t-good")):
            gateway.urgent(i + 1, sos(f"gw1-e1-{i}", tag=tag))
        gateway.batch(1, [position("t-05")])
        page = watched.log_in()
        expect(page.locator("#incident-list .card", has_text="t-good").locator(".lamp-words")).to_contain_text("lamp")
        bad = page.locator("#incident-list .card", has_text="t-bad")
        expect(bad.locator(".problem")).to_contain_text("Not all of this card could be drawn")
        expect(page.locator("#faults")).to_contain_text("cards: not drawn in full: #1")
        expect(page.locator("#children")).to_contain_text("t-05")
        page.wait_for_timeout(700)
        bad.get_by_role("button", name="Acknowledge").click()
        wait_for("the press", lambda: city.incidents()[1]["acknowledged_by"] == "kim")
    finally:
        watched.close()


def test_a_locked_store_is_not_blamed_on_the_broker(city: City, gateway: Gateway, watched: Watched) -> None:
    page = watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live")
    with contextlib.closing(sqlite3.connect(city.folder / "city.db", isolation_level=None)) as store, store:
        store.execute("BEGIN IMMEDIATE")
        gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
        card = page.locator("#incident-list .card")
        expect(card.locator(".marks")).to_contain_text("ONLY IN THE CITY'S MEMORY", timeout=30_000)
        expect(card.locator(".subject")).to_have_text(re.compile(r"tag t-01 +\(no number yet\)"))
        expect(page.locator("#faults")).to_contain_text("database is locked", timeout=30_000)
        assert "broker" not in page.locator("#faults").inner_text() + page.locator("#lost").inner_text()
        store.execute("ROLLBACK")
    store.close()
    # While memory is written, both numbers may stand there for a moment. Then one card is left.
    expect(card.locator(".subject")).to_have_text([re.compile(r"tag t-01 +#1")], timeout=30_000)
    expect(page.locator("#closed")).to_be_hidden()
    expect(page.locator("#faults")).to_be_hidden()


def test_a_bad_feature_leaves_the_rest_of_the_map_drawn(broker_port: int, browser: Browser, tmp_path: Path) -> None:
    site = json.loads(GONGDEOK.read_text("utf-8"))
    readers = [f for f in site["features"] if f["properties"].get("kind") == "reader"]
    readers[4]["properties"]["number"] = "5"
    readers[5]["geometry"]["coordinates"] = []
    readers[6]["geometry"]["coordinates"] = [float("nan"), 37.5]
    readers[7]["geometry"]["coordinates"] = [953898.2, 1951234.5]
    site["features"][0]["properties"] = None
    city = City(tmp_path, broker_port, site_map=json.dumps(site))
    watched = None
    try:
        city.start()
        watched = Watched(browser, city)
        page = watched.log_in()
        expect(page.locator(".reader-name")).to_have_count(len(readers) - 4)
        said = page.locator("#left-out")
        for words in (
            "(reader 5)",
            "(reader 6)",
            "(reader 7)",
            "(reader 8)",
            '"properties" is null',
            "metres (EPSG:5179?)",
        ):
            expect(said).to_contain_text(words)
        shot(page, tmp_path, "left-out-1920")
        assert watched.complaints == []
    finally:
        if watched:
            watched.close()
        city.stop()
