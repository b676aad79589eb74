"""The attacker of the bench on a few streets: it follows the old tags, and not the new. And the streets are true."""

from typing import Any

import numpy as np
import pytest

from readers.advertisement import EPOCH_S, TagKeys, _cmac, rotating_id
from sim.street.tag import BEACON_S, JITTER_S, SILENT_S, Tag
from tests.bench import privacy
from tests.bench._follower import links
from tests.bench._strangers import EPOCH_0, NEW, OLD, Ids, Rhythm, Street, of_simulated_tags, old_build

TUNED, JUDGED = range(2000, 2006), range(2100, 2106)


def found(rhythm: Rhythm, parts: tuple[str, ...] = ("bytes", "timing")) -> dict[str, tuple[float, float]]:
    print(f"seeds {TUNED}, {JUDGED}")
    tuned, judged = (
        [
            {epoch: street.hear(epoch) for epoch in range(privacy.LAST + 2)}
            for street in (Street(s, rhythm) for s in seeds)
        ]
        for seeds in (TUNED, JUDGED)
    )
    return privacy.rates(privacy.views(tuned, "0", 1, rhythm), privacy.views(judged, "0", 1, rhythm), parts)


def test_the_attacker_follows_the_old_tags_by_their_bytes_and_by_their_rhythm() -> None:
    old = found(OLD)
    assert old["bytes"][0] > 0.99
    assert old["timing"][0] > 0.85


def test_nobody_follows_the_new_tags() -> None:
    """Six streets of 200: chance is 6 links, the bar of 2 % is 24."""
    new = found(NEW, ("bytes", "moving", "timing"))
    assert {"bytes", "fields", "timing", "both"} == set(new)
    for group, (share, _) in new.items():
        assert share <= 0.02, (group, share)


def test_links_are_counted_as_they_are() -> None:
    rng = np.random.default_rng(1)
    assert links(np.eye(200), rng) == (200, 200)
    assert links(np.roll(np.eye(200), 1, axis=1), rng) == (0, 0)
    by_chance = [links(np.zeros((200, 200)), rng) for _ in range(200)]
    assert np.mean(by_chance) == pytest.approx(1.0, abs=0.25), "ties are not broken in the order of the truth"


def test_an_interval_of_a_share() -> None:
    assert privacy.upper(0, 8000) == pytest.approx(0.00048, abs=1e-5)
    assert privacy.upper(80, 8000) == pytest.approx(0.0124, abs=2e-4)


def test_the_old_format_is_that_of_version_1() -> None:
    """The bytes that version 1 had as its own vector."""
    keys = TagKeys(bytes(range(16)), bytes(range(16, 32)))
    assert old_build(keys, 1_984_000, 1, 7, 65535, -70, 125).hex() == "10529ff10a87475f9d0107ffffba7d28701386"
    assert _cmac(keys.k_id, bytes(4))[:8] == rotating_id(keys.k_id, 0)


def test_the_streets_have_the_rhythm_of_the_simulators_tags() -> None:
    """Moments of silence and intervals of both have the same limits and means."""
    print("seed 5")
    street = Street(5, NEW, 40, only_times=True)
    fast, slow = [street.hear(0), street.hear(1)], of_simulated_tags(5, 2, 40)
    for a, b in zip(fast, slow, strict=True):
        for since in (lambda i: i.first_s - i.epoch * EPOCH_S, lambda i: (i.epoch + 1) * EPOCH_S - i.last_s):
            assert _span(since, a) == pytest.approx(_span(since, b), abs=SILENT_S / 3)
            assert float(np.mean(since(a))) == pytest.approx(float(np.mean(since(b))), abs=SILENT_S / 5)
        for ids in (a, b):
            assert float(np.mean(ids.interval_s)) == pytest.approx(BEACON_S + JITTER_S / 2, abs=2e-4)
    tag = Tag(5, 1, "tag-1", float(EPOCH_0 * EPOCH_S))
    first = tag.advertise(False)
    assert slow[0].first_s[0] == first.sent_s
    assert bytes(slow[0].first[0].tolist()) == first.payload[7:] + first.address


def _span(since: Any, ids: Ids) -> float:
    return float(np.ptp(since(ids)))
