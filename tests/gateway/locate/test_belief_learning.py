"""A belief learns a tag's own power, which model to trust and which reader is deaf, and learns nothing from chance."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.locate import belief
from gateway.locate.belief import TRUST_MIN, Beliefs
from gateway.locate.hearing import FLOOR_DBM, FLOOR_WIDTH_DB, Hearing
from tests.gateway.locate.bed import Known, hear, law, mean_m
from tests.gateway.locate.bed_belief import LOUD, PACKETS, READERS, TRUTH, beliefs, follow, ground, walk


@pytest.mark.parametrize("own_db", [-5.0, 5.0])
def test_a_tag_that_sends_otherwise_than_its_kind_is_learned_and_found(own_db: float) -> None:
    print("seeds 0..5")
    powers, knowing, deaf = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        route = walk(rng, 180)
        believed = beliefs(ground())
        knowing += list(follow(believed, rng, route, add_db=own_db))[60:]
        powers.append(float(believed.own[0, 0]))
        rigid = beliefs(ground())
        for n, (place, _) in enumerate(route):
            rigid.own[:], rigid._own_spread[:] = 0.0, rigid._own_prior * 1e-9
            rigid.step(hear(rng, TRUTH, place) + own_db, PACKETS, LOUD, 1)
            if n >= 60:
                deaf.append(math.dist(mean_m(rigid.space, rigid.now[0])[0], place))
    print(f"learned {np.mean(powers):+.1f} dB; error {np.mean(knowing):.2f} m, without {np.mean(deaf):.2f} m")
    assert np.mean(powers) == pytest.approx(own_db, abs=2.0)
    assert np.mean(knowing) < np.mean(deaf)


def test_another_device_than_foreseen_is_learned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers hear each place differently from the law, so the first places are drawn to the wrong power."""
    print("seeds 0..5")
    missed: dict[float, list[float]] = {belief.OTHER_SD_DB: [], 0.0: []}
    for sd_db, found in missed.items():
        monkeypatch.setattr(belief, "OTHER_SD_DB", sd_db)
        for own_db in (-8.0, 8.0):
            for seed in range(6):
                rng = np.random.default_rng(seed)
                space = ground()
                believed = Beliefs(space, [Hearing(space, Known(TRUTH, sd_db=4.0))], 1)
                for _ in follow(believed, rng, walk(rng, 60), add_db=own_db + rng.normal(0.0, 3.0, (1, 5))):
                    pass
                found.append(abs(own_db - float(believed.own[0, 0])))
    learned, half_learned = (float(np.mean(found)) for found in missed.values())
    print(f"off by {learned:.2f} dB after a minute, without {half_learned:.2f} dB")
    assert learned < 0.9 * half_learned


def test_what_only_fades_bring_over_the_floor_makes_no_tag_louder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers hear a tag near the floor only when its signal fades up. This is not a power of its own."""
    print("seeds 0..7")
    faint = law(READERS, p0_dbm=FLOOR_DBM + 24)

    def learned_db() -> float:
        powers = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            space = ground()
            believed = Beliefs(space, [Hearing(space, Known(faint, sd_db=4.0))], 1)
            for place, _ in walk(rng, 90):
                level = hear(rng, faint, place) + rng.normal(0.0, 4.0, (1, 5))
                read = rng.random((1, 5)) < 1 / (1 + np.exp(-(level - FLOOR_DBM) / FLOOR_WIDTH_DB))
                believed.step(np.where(read, level, 0.0), 2.0 * read, LOUD, 1)
            powers.append(float(believed.own[0, 0]))
        return float(np.mean(powers))

    found_db = learned_db()
    monkeypatch.setattr(Hearing, "lift_db", lambda self, level, power_dbm=None: np.zeros_like(level))
    fooled_db = learned_db()
    print(f"learned {found_db:+.1f} dB, without {fooled_db:+.1f} dB")
    assert abs(found_db) < 1.3
    assert fooled_db > found_db + 1.0


def test_a_tag_of_its_kind_is_not_given_a_power_of_its_own() -> None:
    print("seeds 0..5")
    powers = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        believed = beliefs(ground())
        for _ in follow(believed, rng, walk(rng, 120)):
            pass
        powers.append(float(believed.own[0, 0]))
    assert np.abs(powers).max() < 2.0


def test_trust_goes_to_the_model_that_foresees() -> None:
    """A tag on the back: readers in front of the walker hear it worse. There are two laws, one for each side."""
    print("seeds 0..3")
    chest, back = law(READERS, body_db=4.0), law(READERS, body_db=-4.0)
    for right, truth in ((0, chest), (1, back)):
        trust = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            believed = beliefs(ground(), chest, back)
            for _ in follow(believed, rng, walk(rng, 120), truth, facing=True):
                assert believed.trust.sum() == pytest.approx(1.0)
                assert believed.trust.min() >= 0.99 * TRUST_MIN / 2
            trust.append(believed.trust[0, right])
        print(f"trust in the right one {np.round(trust, 2)}")
        assert np.mean(trust) > 0.75


def test_trust_turns_when_the_world_does() -> None:
    print("seed 3")
    rng = np.random.default_rng(3)
    chest, back = law(READERS, body_db=4.0), law(READERS, body_db=-4.0)
    believed = beliefs(ground(), chest, back)
    for _ in follow(believed, rng, walk(rng, 150), chest, facing=True):
        pass
    before = float(believed.trust[0, 1])
    for _ in follow(believed, rng, walk(rng, 150), back, facing=True):
        pass
    assert before < 0.3
    assert believed.trust[0, 1] > 0.7


def test_one_deaf_reader_is_found_out_and_does_less_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    print("seeds 0..5")
    ways = [walk(np.random.default_rng(seed), 160) for seed in range(6)]
    deaf = np.array([[0.0, -12.0, 0.0, 0.0, 0.0]])

    def errors_m(add_db: Any) -> tuple[float, Any]:
        errors, faults = [], []
        for seed, each in enumerate(ways):
            believed = beliefs(ground())
            errors += list(follow(believed, np.random.default_rng(100 + seed), each, add_db=add_db))[60:]
            faults.append(believed.faults_db()[0])
        return float(np.mean(errors)), np.mean(faults, axis=0)

    clean_m, nothing = errors_m(0.0)
    found_m, fault = errors_m(deaf)
    monkeypatch.setattr(belief, "FAULT_KEPT", 0.0)
    monkeypatch.setattr(belief, "FAULT_BEGUN", 1e9)
    believed_m, _ = errors_m(deaf)
    print(f"clean {clean_m:.2f} m; one reader 12 dB deaf {found_m:.2f} m, believed {believed_m:.2f} m; {fault} dB")
    assert found_m < 0.9 * believed_m
    assert fault[1] < -4.0
    assert np.abs(fault[[0, 2, 3, 4]]).max() < 2.5
    assert np.abs(nothing).max() < 1.0


def test_a_reader_that_was_mended_is_believed_again() -> None:
    print("seeds 0..3")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        believed = beliefs(ground())
        deaf = np.array([[0.0, -12.0, 0.0, 0.0, 0.0]])
        for _ in follow(believed, rng, walk(rng, 120), add_db=deaf):
            pass
        assert believed.faults_db()[0, 1] < -3.0
        for _ in follow(believed, rng, walk(rng, 90)):
            pass
        assert believed.faults_db()[0, 1] > -1.0
