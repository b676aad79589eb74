"""Connections that die without a word, and a proxy that holds answers back.

An SOS is on the page within ten seconds of any working path to the city, and a press always says what became of it.
"""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.city.bed import City, Gateway, sos
from tests.city.relay import Relay, relayed
from tests.city.screen import Watched

pytestmark = pytest.mark.browser
BAR_S = 10.0
DEAD_WORKER = """
window.SharedWorker = class extends EventTarget {
  constructor() { super(); this.port = new MessageChannel().port1; }
};
"""


@pytest.fixture
def relay(city: City) -> Iterator[Relay]:
    with relayed(city.port) as relay:
        yield relay


@pytest.fixture
def page(city: City, browser: Browser, relay: Relay) -> Iterator[Page]:
    """A page that reaches the city over the relay, and is live."""
    watched = Watched(browser, city, 1280, 800, address=relay.address)
    page = watched.log_in()
    expect(page.locator("#link-words")).to_have_text("live", timeout=15_000)
    yield page
    watched.close()


def shown_after_s(page: Page, tag: str, since_s: float) -> float:
    page.locator("#incident-list .card", has_text=tag).wait_for(timeout=60_000)
    return time.monotonic() - since_s


def test_an_sos_comes_over_a_new_connection_when_all_old_ones_died(gateway: Gateway, relay: Relay, page: Page) -> None:
    relay.swallow_old()
    since_s = time.monotonic()
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    assert shown_after_s(page, "t-01", since_s) < BAR_S
    expect(page.locator("#link-words")).to_have_text("live", timeout=30_000)


def test_an_sos_comes_soon_after_a_network_is_mended(gateway: Gateway, relay: Relay, page: Page) -> None:
    relay.swallows_all = True
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    expect(page.locator("#lost")).to_contain_text("Connection to the city lost", timeout=30_000)
    expect(page.locator("#link-words")).to_have_text("cut off")
    relay.mend()
    assert shown_after_s(page, "t-01", time.monotonic()) < BAR_S
    expect(page.locator("#lost")).to_be_hidden()


def test_an_sos_comes_though_a_proxy_holds_the_head_of_the_stream(
    city: City, gateway: Gateway, browser: Browser, relay: Relay
) -> None:
    relay.held = (b"GET /events",)
    watched = Watched(browser, city, 1280, 800, address=relay.address)
    try:
        page = watched.log_in()
        expect(page.locator("#no-incidents")).to_have_text("No open incident.")
        gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
        assert shown_after_s(page, "t-01", time.monotonic()) < BAR_S
        expect(page.locator("#link-words")).to_contain_text("asking")
        why = re.compile("does not come through .*the stream did not open within 5 s.*asks for the whole state")
        expect(page.locator("#link")).to_have_attribute("title", why, timeout=15_000)
        relay.mend()
        expect(page.locator("#link-words")).to_have_text("live", timeout=45_000)
    finally:
        watched.close()


def test_a_press_without_an_answer_says_so_and_can_be_pressed_again(
    city: City, gateway: Gateway, relay: Relay, page: Page
) -> None:
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    card = page.locator("#incident-list .card")
    card.wait_for()
    page.wait_for_timeout(700)
    relay.swallows_all = True
    press = card.locator(".acknowledge")
    press.click()
    expect(press).to_have_text("Sending …")
    expect(press).to_be_disabled()
    expect(card.locator(".problem")).to_contain_text("no answer within 4 s; sending it again", timeout=8_000)
    expect(card.locator(".problem")).to_contain_text("Not acknowledged as far as this page knows", timeout=12_000)
    expect(press).to_be_enabled()
    assert city.incidents()[0]["state"] == "new"
    relay.mend()
    press.click()
    expect(card.locator(".state")).to_contain_text("ACKNOWLEDGED", timeout=15_000)
    expect(card.locator(".problem")).to_be_hidden()
    assert city.incidents()[0]["state"] == "acknowledged"


def test_a_press_whose_answer_was_lost_shows_what_the_city_did(
    city: City, gateway: Gateway, relay: Relay, page: Page
) -> None:
    gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
    card = page.locator("#incident-list .card")
    card.wait_for()
    page.wait_for_timeout(700)
    relay.held = (b"POST /api/incidents",)
    card.locator(".acknowledge").click()
    expect(card.locator(".state")).to_contain_text("ACKNOWLEDGED", timeout=5_000)  # from the stream
    expect(card.locator(".acknowledge")).to_be_hidden()
    expect(card.locator(".problem")).to_be_hidden(timeout=15_000)


def test_a_shared_worker_that_never_speaks_hides_no_sos(city: City, gateway: Gateway, browser: Browser) -> None:
    watched = Watched(browser, city, 1280, 800, before=DEAD_WORKER)
    try:
        page = watched.log_in()
        expect(page.locator("#no-incidents")).to_have_text("No open incident.", timeout=15_000)
        gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
        assert shown_after_s(page, "t-01", time.monotonic()) < BAR_S
    finally:
        watched.close()
