"""A page is silent until a person pressed and heard it, and says so; also when the browser takes the sound away."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from gateway.events import Bell
from tests.city.bed import City, Gateway, place, sos, wait_for, when
from tests.city.screen import Watched, shot

pytestmark = pytest.mark.browser
LISTEN = """
window.contexts = []; window.tones = [];
const Real = window.AudioContext;
window.AudioContext = class extends Real {
  constructor(...rest) { super(...rest); window.contexts.push(this); }
  createOscillator() { const tone = super.createOscillator(); window.tones.push(tone); return tone; }
};
"""


@pytest.mark.parametrize(("width", "height"), [(360, 780), (1920, 1080)])
def test_duty_begins_with_a_sound_test_and_silence_is_said(
    city: City, gateway: Gateway, browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    watched = Watched(browser, city, width, height, before=LISTEN)
    try:
        page = watched.log_in()
        silent, sound = page.locator("#silent"), page.locator("#sound")
        expect(silent).to_contain_text("This page is SILENT. Begin your duty with a sound test.")
        expect(sound).to_have_text("Sound: off")
        shot(page, tmp_path, f"silent-{width}")
        page.get_by_role("button", name="Test the sound").click()
        expect(silent).to_contain_text("Did you hear three tones?")
        assert page.evaluate("tones.length") == 3
        expect(sound).to_have_attribute("aria-pressed", "false")  # not before a person has heard it
        page.get_by_role("button", name="No", exact=True).click()
        expect(silent).to_contain_text("Nothing was heard: check the loudspeaker")
        page.get_by_role("button", name="Test the sound").click()
        page.get_by_role("button", name="Yes: begin duty").click()
        expect(silent).to_be_hidden()
        expect(sound).to_have_text("On duty, sound on")
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        before = page.evaluate("tones.length")
        gateway.urgent(1, sos("gw1-e1-1", tag="t-01"))
        wait_for("tones at once, and again after 5 s", lambda: page.evaluate("tones.length") >= before + 6)

        page.evaluate("contexts.at(-1).suspend()")
        expect(silent).to_contain_text("This page is SILENT. The browser has stopped the sound of this page.")
        expect(sound).to_have_text("Sound: off")
        page.get_by_role("button", name="Test the sound").click()
        page.get_by_role("button", name="Yes: begin duty").click()
        expect(silent).to_be_hidden()
        sound.click()
        expect(silent).to_contain_text("This page is SILENT.")
        assert watched.complaints == []
    finally:
        watched.close()


def test_a_repeated_cry_is_a_quiet_card_below_the_calls(
    city: City, gateway: Gateway, browser: Browser, tmp_path: Path
) -> None:
    watched = Watched(browser, city, before=LISTEN)
    try:
        page = watched.log_in()
        page.get_by_role("button", name="Test the sound").click()
        page.get_by_role("button", name="Yes: begin duty").click()
        gateway.urgent(1, sos("gw1-e1-1", tag="t-again", readers=(10,), trust="replayed"))
        again = page.locator(".card.repeated")
        expect(again.locator(".what")).to_contain_text("Somebody repeats this tag's cry near reader 10")
        expect(again.locator(".kind")).to_have_text("Repeated cry")
        expect(page.locator("#waiting")).to_be_hidden()
        expect(page.locator("#incident-count")).to_have_text("1 repeated cry")
        tones = page.evaluate("tones.length")
        page.wait_for_timeout(6_000)
        assert page.evaluate("tones.length") == tones == 4  # three of the test, one low; not again and again
        gateway.urgent(2, sos("gw1-e1-2", tag="t-01"))
        gateway.urgent(3, sos("gw1-e1-3", tag="unknown button", trust="unverified", where=None, readers=()))
        at_gate = place(126.9534, 37.5455, 4)
        bell = Bell(
            observed_at=when(),
            clock="good",
            alarm="gw1-e1-4",
            revision=0,
            bell="gate",
            trust="unverified",
            reader=1,
            presses=1,
            where=at_gate,
        )
        gateway.urgent(4, bell)
        expect(page.locator("#incident-list .card")).to_have_count(4)
        subjects = page.locator("#incident-list .subject")
        expect(subjects.nth(0)).to_contain_text("tag t-01")
        expect(subjects.nth(1)).to_have_text(re.compile(r"^unknown button +#3$"))
        expect(subjects.nth(2)).to_contain_text("bell gate")
        expect(subjects.nth(3)).to_contain_text("t-again")
        expect(page.locator(".card", has_text="bell gate").locator(".marks")).to_contain_text("UNVERIFIED")
        expect(page.locator("tr.crying")).to_have_count(0)
        shot(page, tmp_path, "repeated-1920")
        assert watched.complaints == []
    finally:
        watched.close()
