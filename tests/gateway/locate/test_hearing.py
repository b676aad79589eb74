"""The likelihood equals its formula, is bounded for outliers, and is finite for whatever is heard."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.locate import hearing as h
from gateway.locate.hearing import Hearing
from gateway.locate.levels import Lawful
from gateway.locate.space import Space
from tests.gateway.locate.bed import Known, hear, law, poles, street_and_yard, way, yard

CORNERS = poles((0.0, 0.0), (20.0, 0.0), (20.0, 20.0), (0.0, 20.0))
NOBODY = np.zeros((1, 4))


def looks_of(space: Space) -> tuple[Any, Any]:
    """Return (place, facing) of every look, in the order that `Block` documents."""
    xy_m, facing = [], []
    for block in space.blocks:
        for angles in block.facings:
            xy_m.append(space.xy_m[block.span])
            facing.append(angles)
    return np.concatenate(xy_m), np.concatenate(facing)


def likelihood(
    hearing: Hearing, level: Any, packets: Any, silent: Any, exponent: Any, apart_s: Any = 1.0, **also: float
) -> tuple[Any, Any]:
    """`Hearing.log_likelihood` of readers that heard the tag a second before, unless the caller says otherwise."""
    apart_s = np.broadcast_to(np.asarray(apart_s, float), level.shape)
    got: tuple[Any, Any] = hearing.log_likelihood(level, packets, silent, exponent, apart_s, **also)
    return got


def reference(
    space: Space, model: Any, level: Any, packets: Any, silent: Any, exponent: float, apart_s: Any, power_dbm: float
) -> Any:
    """The log-likelihood of one tag over looks, written directly from the formula, reader by reader."""
    xy_m, facing = looks_of(space)
    expected, sd_db = model.expect(xy_m, facing)
    slope = model.steepness(xy_m)
    total = np.zeros(len(xy_m))
    for k in range(len(level)):
        place2 = sd_db[:, k] ** 2 + h.SLOW_DB**2 + h.FAST_DB**2 / h.PACKETS_USUAL
        if packets[k] > 0:
            more = h.FAST_DB**2 / packets[k] - h.FAST_DB**2 / h.PACKETS_USUAL
            wide = max(1 + more / np.median(np.sqrt(place2)) ** 2, 0.3)
            off = level[k] - expected[:, k] - exponent * slope[:, k]
            # The newest second counts TEMPER, each earlier one (1 - TEMPER) times the next. Unit of `worth`: TEMPER.
            waited = min(max(apart_s[k], 1.0), h.APART_MAX_S)
            worth = (1 - (1 - h.TEMPER) ** waited) / h.TEMPER
            total -= worth * 0.5 * np.log(place2)
            total -= (h.FREEDOM + 1) / 2 * np.log1p(worth * off**2 / (h.FREEDOM * wide * place2))
        if silent[k]:
            read = 1 / (1 + np.exp(-(expected[:, k] + power_dbm - h.FLOOR_DBM) / h.FLOOR_WIDTH_DB))
            total += np.log(1 - h.ATTENTION * read)
    return h.TEMPER * total


@pytest.mark.parametrize("make", [yard, way, street_and_yard])
def test_the_likelihood_is_its_formula(make: Any) -> None:
    space = make()
    print("seed 0")
    rng = np.random.default_rng(0)
    model = Lawful(law(CORNERS, body_db=3.0), 0.3, 2.0)
    hearing = Hearing(space, model, power_dbm=-10.0)
    level = rng.uniform(-90, -40, (6, 4))
    packets = rng.integers(0, 6, (6, 4)).astype(float)
    silent = ((packets == 0) & (rng.random((6, 4)) < 0.5)).astype(float)
    exponent, apart_s = rng.normal(0, 0.2, 6), rng.choice([0.0, 1.0, 2.0, 5.0, 20.0, np.inf], (6, 4))
    got, top = likelihood(hearing, level, packets, silent, exponent, apart_s)
    assert got.shape == (6, space.looks)
    assert got.max(axis=1) == pytest.approx(np.zeros(6), abs=1e-6)
    for i in range(6):
        want = reference(space, model, level[i], packets[i], silent[i], exponent[i], apart_s[i], -10.0)
        assert got[i] + top[i] == pytest.approx(want, abs=2e-3)


def test_temper_is_a_power() -> None:
    hearing = Hearing(yard(), Known(law(CORNERS)))
    level, packets = np.full((1, 4), -70.0), np.ones((1, 4))
    whole, _ = likelihood(hearing, level, packets, NOBODY, np.zeros(1), temper=1.0)
    half, _ = likelihood(hearing, level, packets, NOBODY, np.zeros(1), temper=0.5)
    assert half == pytest.approx(whole / 2, abs=1e-4)


def test_what_is_heard_where_it_is_expected_is_most_likely_there() -> None:
    space = yard()
    truth = law(CORNERS)
    hearing = Hearing(space, Known(truth))
    for place in ((4.0, 7.0), (15.0, 12.0), (10.0, 10.0)):
        level = truth.expect(np.array([place]))
        got, _ = likelihood(hearing, level, np.full((1, 4), 5.0), NOBODY, np.zeros(1))
        best = looks_of(space)[0][np.argmax(got[0])]
        assert tuple(best) == place


def test_one_reader_far_off_moves_the_likelihood_boundedly() -> None:
    """The farther off a level, the less each dB adds: from 40 to 60 dB off, no place gains over another by 3 to 1."""
    space = yard()
    truth = law(CORNERS)
    hearing = Hearing(space, Known(truth))
    level, packets = truth.expect(np.array([[5.0, 5.0]])), np.full((1, 4), 3.0)
    ratios = []
    for odd_db in (0.0, 20.0, 40.0, 60.0):
        got, _ = likelihood(hearing, level + np.array([[0, 0, 0, odd_db]]), packets, NOBODY, np.zeros(1))
        ratios.append(got[0])
    assert np.abs(ratios[3] - ratios[2]).max() < math.log(3.0)
    assert np.abs(ratios[2] - ratios[1]).max() < math.log(4.0)
    # A normal law would make the worst place worse by the square, without limit: (60^2 - 40^2) / (2 sd^2).
    best = looks_of(space)[0][np.argmax(ratios[3])]
    assert math.dist(best, (5.0, 5.0)) < 5.0, "the three others are believed"


def test_more_packets_say_more() -> None:
    hearing = Hearing(yard(), Known(law(CORNERS)))
    level = law(CORNERS).expect(np.array([[5.0, 5.0]]))
    narrow = [
        float(-likelihood(hearing, level, np.full((1, 4), n), NOBODY, np.zeros(1))[0].min()) for n in (1.0, 2.0, 8.0)
    ]
    assert narrow[0] < narrow[1] < narrow[2]
    assert narrow[2] < 2.5 * narrow[0], "but a place's own error stays"


def test_nothing_heard_says_nothing_whatever_the_level() -> None:
    hearing = Hearing(yard(), Known(law(CORNERS)))
    for nothing in (math.nan, -500.0, 0.0):
        got, top = likelihood(hearing, np.full((2, 4), nothing), np.zeros((2, 4)), np.zeros((2, 4)), np.zeros(2))
        assert (got == 0).all()
        assert (top == 0).all()


def test_silence_is_weak_evidence_and_only_of_a_reader_that_would_have_read() -> None:
    space = way(400.0, 4.0)
    hearing = Hearing(space, Known(law(poles((0.0, 0.0)), p0_dbm=-50.0, exponent=2.5)))
    one, none = np.ones((1, 1)), np.zeros((1, 1))
    got, _ = likelihood(hearing, none, none, one, np.zeros(1))
    by_look = got[0]
    at, far = np.argmin(looks_of(space)[0][:, 0]), np.argmax(looks_of(space)[0][:, 0])
    assert by_look[at] == pytest.approx(h.TEMPER * math.log(1 - h.ATTENTION), abs=0.03)
    assert by_look[far] == pytest.approx(0.0, abs=0.05)
    assert by_look[at] > -h.TEMPER, "never a proof"


def test_an_exponent_of_ones_own_is_taken_into_account() -> None:
    space, truth, own = yard(), law(CORNERS, exponent=2.5, p0_dbm=-40.0), 0.3
    hearing = Hearing(space, Known(law(CORNERS, exponent=2.2, p0_dbm=-40.0 - 3 * math.log10(5.0))))
    level = truth.expect(np.array([[4.0, 7.0]]))
    right, top_right = likelihood(hearing, level, np.full((1, 4), 4.0), NOBODY, np.array([own]))
    _, top_wrong = likelihood(hearing, level, np.full((1, 4), 4.0), NOBODY, np.zeros(1))
    assert tuple(looks_of(space)[0][np.argmax(right[0])]) == (4.0, 7.0)
    assert top_right[0] >= top_wrong[0]


@pytest.mark.parametrize("power_dbm", [0.0, -59.0])
def test_what_is_read_lies_above_what_is_sent_at_the_floor(power_dbm: float) -> None:
    """The lift is that of many random packets when only those count that a radio reads."""
    print("seed 3")
    rng = np.random.default_rng(3)
    hearing = Hearing(yard(), Known(law(CORNERS), sd_db=4.0), power_dbm=power_dbm)
    sd_db = float(np.sqrt(hearing.usual_db2[0]))
    for sent_dbm in (h.FLOOR_DBM - 12, h.FLOOR_DBM - 5, h.FLOOR_DBM, h.FLOOR_DBM + 5, h.FLOOR_DBM + 25):
        levels = rng.normal(sent_dbm, sd_db, 400_000)
        chance = 1 / (1 + np.exp(-(levels - h.FLOOR_DBM) / h.FLOOR_WIDTH_DB))
        lift_db = levels[rng.random(len(levels)) < chance].mean() - sent_dbm
        got = hearing.lift_db(np.full((2, 4), sent_dbm - power_dbm))
        assert got == pytest.approx(np.full((2, 4), lift_db), abs=0.15)
    assert hearing.lift_db(np.array([-500.0, 500.0])) == pytest.approx([sd_db**2 / h.FLOOR_WIDTH_DB, 0.0], abs=0.3)


@pytest.mark.parametrize("readers", [1, 12, 60])
def test_absurd_levels_at_many_readers_stay_finite(readers: int) -> None:
    """60 readers, each over 100 dB off everywhere: their product does not fit into a float32."""
    print("seed 1")
    rng = np.random.default_rng(1)
    space = yard(20.0, 2.0)
    hearing = Hearing(space, Known(law(poles(*map(tuple, rng.uniform(-50, 50, (readers, 2)))))))
    for absurd in (42.0, -300.0):
        level = np.full((3, readers), absurd)
        level[1, ::2] = -absurd
        got, top = likelihood(hearing, level, np.full((3, readers), 50.0), np.zeros((3, readers)), np.zeros(3))
        assert np.isfinite(got).all()
        assert np.isfinite(top).all()
        assert got.max(axis=1) == pytest.approx(np.zeros(3), abs=1e-6)


def test_a_batch_is_likely_as_each_alone() -> None:
    print("seed 2")
    rng = np.random.default_rng(2)
    truth = law(CORNERS)
    hearing = Hearing(street_and_yard(), Known(truth))
    level = np.concatenate([hear(rng, truth, (x, 5.0)) for x in (1.0, 5.0, 9.0, 14.0, 19.0)])
    packets = rng.integers(0, 4, (5, 4)).astype(float)
    silent = (packets == 0).astype(float)
    whole, top = likelihood(hearing, level, packets, silent, np.linspace(-0.2, 0.2, 5))
    for i in range(5):
        part = slice(i, i + 1)
        alone, own = likelihood(hearing, level[part], packets[part], silent[part], np.linspace(-0.2, 0.2, 5)[part])
        assert whole[i] == pytest.approx(alone[0], abs=1e-4)
        assert top[i] == pytest.approx(own[0], abs=1e-4)
