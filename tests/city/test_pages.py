"""The console in a real browser, with the real city and broker: presses go both ways, and a lost city is reported."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.city.bed import City, Gateway, arrival, position, sos, told, wait_for
from tests.city.screen import Watched

pytestmark = pytest.mark.browser


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
    page.mouse.click(box["x"] + 20, box["y"] + 20)  # Close is now under the pointer; the press was not for it
    expect(page.locator(".card.call .state")).to_contain_text("ACKNOWLEDGED")
    page.wait_for_timeout(700)
    assert city.incidents()[0]["state"] == "acknowledged"
    assert page.evaluate("document.activeElement.className").startswith(
        "card"
    )  # so a second Enter does not close the incident
