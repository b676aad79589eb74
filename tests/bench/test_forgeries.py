"""The benchmark of forgeries at a hundredth of its size, and that it would see what is taken."""

import random

import pytest

from gateway.core import frames
from tests.bench import forgeries


def test_nothing_forged_flipped_or_replayed_is_taken() -> None:
    found = forgeries.run(0.01, seed=77)
    assert found["frames"] == 10_000
    for name in ("frames_taken", "replays_taken", "advertisements_taken", "downlinks_taken", "acks_taken"):
        assert found[name] == 0, name


def test_the_count_sees_a_gateway_that_checks_no_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames.wire, "body_of", lambda frame, mac: frame[8:-6])
    assert forgeries.frames_taken(random.Random(1), 500, 500) > 0
