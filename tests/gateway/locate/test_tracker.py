"""Tags come and go: a quiet tag is forgotten, one that returns is found, and many tags share the work in batches."""

import math
import random

import pytest

from gateway.locate import tracker
from gateway.locate.tracker import BATCH, QUIET_S, WINDOW_S
from tests.gateway.core.bed import zone
from tests.gateway.locate.bed_locator import Gateway, loud, off_m


def test_a_tag_that_goes_quiet_is_forgotten_and_its_last_word_stays() -> None:
    gateway = Gateway(zone())
    for reading in loud((4, -60), (5, -72)):
        gateway.locator.hear(7, reading, 1000.0)
    [(fix, late)] = gateway.wait(1.0).values()
    assert late is None
    assert {h.reader for h in fix.evidence} == {4, 5}
    assert gateway.locator.latest(7) is fix
    assert [h.rssi_dbm for h in fix.evidence] == [-60, -72], "the loudest first"
    later = gateway.wait(WINDOW_S + 1)
    assert later[7][0].fixed_at_s <= 1000.0 + WINDOW_S, "nothing heard within the window: no fix"
    last = gateway.locator.latest(7)
    assert gateway.locator.followed() == 1, "a belief is kept a while longer"
    assert gateway.wait(QUIET_S) == {}
    assert gateway.locator.followed() == 0
    assert gateway.locator.deadline_s() == math.inf, "nobody to follow: no work"
    assert gateway.locator.latest(7) is last
    assert gateway.locator.latest(8) is None


def test_a_tag_that_comes_back_elsewhere_is_there() -> None:
    gateway = Gateway(zone())
    for number in (3, 8):
        for _ in range(8):
            levels = ((number - 1, -85), (number, -66), (number + 1, -85))
            fixes = gateway.second({7: loud(*levels, at_s=gateway.now_s)})
        assert off_m(gateway.ground.readers[number][:2], fixes[7][0]) < 15
        gateway.wait(QUIET_S + 10)


def test_a_reading_told_late_or_of_nobody_counts_for_nothing() -> None:
    gateway = Gateway(zone())
    gateway.locator.hear(7, loud((77, -50))[0], 1000.0)
    gateway.locator.hear(7, loud((4, -50), at_s=1000.0 - WINDOW_S - 0.1)[0], 1000.0)
    assert gateway.wait(2.0) == {}
    assert (gateway.counts["readings_unknown_reader"], gateway.counts["readings_too_old"]) == (1, 1)
    gateway.locator.hear(7, loud((5, -60), at_s=1002.0)[0], 1002.0)
    gateway.locator.hear(7, loud((5, -90), at_s=1001.0)[0], 1002.0)
    [(fix, _)] = gateway.wait(1.0).values()
    assert [h.rssi_dbm for h in fix.evidence] == [-60], "the newer one stands"


def test_more_tags_than_fit_are_counted_and_cost_nobody_else_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "TAGS_MAX", 40)
    gateway = Gateway(zone())
    fixes = gateway.second({tag: loud((4, -60), at_s=gateway.now_s) for tag in range(60)})
    assert set(fixes) == set(range(40))
    assert gateway.locator.followed() == 40
    assert gateway.counts["readings_too_many_tags"] == 20


def test_four_hundred_tags_have_their_fix_each_second_one_batch_a_step() -> None:
    gateway = Gateway(zone())
    rng = random.Random(5)
    for second in range(3):
        heard = {
            tag: loud(*((n, rng.randint(-90, -60)) for n in rng.sample(range(1, 11), 3)), at_s=gateway.now_s)
            for tag in range(400)
        }
        before = gateway.steps
        fixes = gateway.second(heard)
        assert set(fixes) == set(range(400))
        assert gateway.steps - before >= 400 // BATCH, "no step is more than a batch"
        assert gateway.counts["fixes"] == 400 * (second + 1)
    assert gateway.locator.followed() == 400
