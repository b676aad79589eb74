"""Many tabs of one browser: one stream for all, and a press leaves every tab."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.city.bed import City, Gateway, sos, wait_for
from tests.city.screen import Watched

pytestmark = pytest.mark.browser
TABS = 8  # a browser opens six connections to one host
NO_WORKER = "delete window.SharedWorker;"
NOTHING_SHARED = "delete window.SharedWorker; delete window.BroadcastChannel;"


def tabs_of(watched: Watched) -> list[Page]:
    """Log in, open TABS tabs, and wait until each knows the state."""
    first = watched.log_in()
    expect(first.locator("#no-incidents")).to_have_text("No open incident.")
    others = [watched.context.new_page() for _ in range(TABS - 1)]
    for tab in others:
        tab.goto(watched.address + "/")
        expect(tab.locator("#no-incidents")).to_have_text("No open incident.", timeout=20_000)
    return [first, *others]


@pytest.mark.parametrize(("before", "streams"), [("", 1), (NO_WORKER, 1), (NOTHING_SHARED, 0)])
def test_acknowledge_leaves_each_of_eight_tabs(
    city: City, gateway: Gateway, browser: Browser, before: str, streams: int
) -> None:
    watched = Watched(browser, city, 1280, 800, before=before)
    try:
        tabs = tabs_of(watched)
        for i in range(TABS):
            gateway.urgent(i + 1, sos(f"gw1-e1-{i}", tag=f"t-{i:02}"))
        for i, tab in enumerate(tabs):
            card = tab.locator("#incident-list .card", has_text=f"t-{i:02}")
            expect(card).to_be_visible(timeout=10_000)
            tab.bring_to_front()
            tab.wait_for_timeout(700)
            card.get_by_role("button", name="Acknowledge").click()
            expect(card.locator(".state")).to_contain_text("ACKNOWLEDGED", timeout=10_000)
        wait_for("all to be acknowledged", lambda: {i["state"] for i in city.incidents()} == {"acknowledged"})
        for tab in tabs:
            expect(tab.locator("#incident-count")).to_have_text(f"{TABS} acknowledged", timeout=10_000)
        assert city.get("/api/stats")["streams"] == streams
    finally:
        watched.close()


@pytest.mark.parametrize("before", ["", NO_WORKER])
def test_the_stream_outlives_the_tab_that_began_it(city: City, gateway: Gateway, browser: Browser, before: str) -> None:
    watched = Watched(browser, city, 1280, 800, before=before)
    try:
        first = watched.log_in()
        expect(first.locator("#link-words")).to_have_text("live")
        second = watched.context.new_page()
        second.goto(watched.address + "/")
        expect(second.locator("#link-words")).to_have_text("live")
        first.close()
        gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
        expect(second.locator("#incident-list .card")).to_have_count(1, timeout=10_000)
        expect(second.locator("#link-words")).to_have_text("live", timeout=15_000)
        wait_for("one stream", lambda: city.get("/api/stats")["streams"] == 1)
        second.close()
        wait_for("no stream", lambda: city.get("/api/stats")["streams"] == 0)
    finally:
        watched.close()


def test_a_log_out_in_one_tab_ends_the_stream_and_leaves_no_tab_behind(city: City, browser: Browser) -> None:
    watched = Watched(browser, city, 1280, 800)
    try:
        first = watched.log_in()
        second = watched.context.new_page()
        second.goto(watched.address + "/")
        expect(second.locator("#link-words")).to_have_text("live")
        first.get_by_role("button", name="Log out").click()
        expect(first.get_by_label("Passcode")).to_be_visible()
        expect(second.get_by_label("Passcode")).to_be_visible()
        wait_for("no stream", lambda: city.get("/api/stats")["streams"] == 0)
        first.goto(watched.address + "/")
        expect(first.get_by_label("Passcode")).to_be_visible()  # the session is over too
    finally:
        watched.close()


def test_a_state_is_asked_for_after_the_stream_began_however_many_hang(watched: Watched) -> None:
    """What happens between an earlier state and the stream's first message is in neither: only a later state has it."""
    page = watched.log_in()
    asked = page.evaluate("""async () => {
      const { Feed } = await import("/static/feed.js");
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      let source = null;
      let asked = 0;
      window.EventSource = class extends EventTarget {
        static CONNECTING = 0; static OPEN = 1;
        constructor() { super(); this.readyState = 1; source = this; }
        close() {}
      };
      window.fetch = (path, { signal }) => new Promise((_, reject) => { // every request hangs until its limit
        if (path === "/api/state") asked += 1;
        signal.addEventListener("abort", () => reject(signal.reason));
      });
      const feed = new Feed(() => {});
      feed.start();
      feed.read();
      feed.read();
      source.dispatchEvent(new Event("open"));
      const before = asked;
      const tick = setInterval(() => source.dispatchEvent(new MessageEvent("tick", { data: "{}" })), 1000);
      await wait(9500); // two of the three have met their limit of 6 s
      clearInterval(tick);
      feed.stop();
      return [before, asked];
    }""")
    assert asked[0] == 3
    assert asked[1] > 3
