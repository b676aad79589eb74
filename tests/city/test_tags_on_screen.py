"""The page says of each tag where it is and whether it is off its route; the map draws circles for few of them only."""

import re
import time

import pytest
from playwright.sync_api import expect

from gateway.events import Presence
from tests.city.bed import City, Gateway, danger, place, position, sos, strayed, wait_for, when
from tests.city.screen import Watched

pytestmark = pytest.mark.browser
VIEW = "['.leaflet-proxy', '.leaflet-map-pane'].map((name) => document.querySelector(name).style.transform).join()"
"""A value that changes when the map is zoomed (first element) or moved (second element)."""


def test_off_route_still_and_paused_are_said_of_a_tag(city: City, gateway: Gateway, watched: Watched) -> None:
    gateway.batch(1, [strayed("t-01")])  # alone it makes no row, and breaks nothing
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
    expect(page.locator("path.ring.of-tag")).to_have_count(1)  # where the tag of the SOS is now
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
