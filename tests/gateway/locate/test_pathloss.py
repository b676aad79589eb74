"""The fitted law of path loss: its stated errors hold over many seeds, and it always gives an answer."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gateway.locate import pathloss
from gateway.locate.pathloss import BeaconLink, Fit, fit, locate

Place = tuple[float, float, float]
POWER_DBM = -30


def street(rng: np.random.Generator, readers: int) -> list[Place]:
    """A pole every 30 m, on a random side of the street."""
    return [(30.0 * i + 3 * rng.normal(), float(rng.choice([-5, 5])), 3.5) for i in range(readers)]


def quarter(rng: np.random.Generator, readers: int) -> list[Place]:
    """Poles at crossings 30 m apart."""
    side = math.isqrt(readers - 1) + 1
    return [(30.0 * (i % side) + 4 * rng.normal(), 30.0 * (i // side) + 4 * rng.normal(), 3.5) for i in range(readers)]


def hear(
    rng: np.random.Generator, at: Sequence[Place], exponent: float, received: np.ndarray, sent: np.ndarray,
    *, shadow_db: float = 4.0, asymmetry_db: float = 2.0, edge_dbm: float = -95.0,
) -> list[BeaconLink]:  # fmt: skip
    """What readers hear of each other: the model's own law, shadowing the same both ways, nothing below the edge."""
    links = []
    for i in range(len(at)):
        for j in range(i):
            b = shadow_db * rng.normal()
            for receiver, sender in ((i, j), (j, i)):
                level = POWER_DBM - 2 - 10 * exponent * math.log10(max(math.dist(at[i], at[j]), 1.0)) + b
                level += received[receiver] + sent[sender] + asymmetry_db * rng.normal() + 0.5 * rng.normal()
                if level > edge_dbm + rng.normal():
                    links.append(BeaconLink(receiver, sender, level, 0.25, POWER_DBM))
    return links


@pytest.mark.parametrize(("readers", "place"), [(5, street), (10, street), (16, quarter), (36, quarter)])
def test_exponent_and_offsets_are_recovered_within_their_own_standard_errors(
    readers: int, place: Callable[[np.random.Generator, int], list[Place]]
) -> None:
    seeds = 30 if readers < 36 else 12
    print(f"seeds 0..{seeds - 1}")
    of_n, of_g, of_t = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        at, exponent = place(rng, readers), 2.5 + 0.4 * rng.normal()
        received, sent = 2.5 * rng.normal(size=readers), 2.5 * rng.normal(size=readers)
        law = fit(at, hear(rng, at, exponent, received, sent))
        of_n.append((law.exponent - exponent) / law.exponent_sd)
        of_g += list((law.received_db - received + received.mean()) / law.received_sd_db)
        of_t += list((law.sent_db - sent + sent.mean()) / law.sent_sd_db)
    for name, z in (("n", of_n), ("g", of_g), ("t", of_t)):
        inside, rms = float(np.mean(np.abs(z) < 2)), float(np.sqrt(np.mean(np.square(z))))
        print(f"{readers} readers, {name}: {inside:.2f} within 2 sd, rms {rms:.2f} sd, mean {np.mean(z):+.2f}")
        assert inside >= 0.88
        assert 0.7 <= rms <= 1.3
    assert abs(np.mean(of_n)) < 0.8


def test_without_links_the_law_is_the_prior_and_says_how_little_it_knows() -> None:
    for at in ([], [(0.0, 0.0, 3.5)], [(0.0, 0.0, 3.5)] * 3):
        law = fit(at, [])
        assert (law.exponent, law.links) == (pathloss.EXPONENT, 0)
        assert law.exponent_sd == pytest.approx(pathloss.EXPONENT_SD, rel=0.06)
        assert list(law.received_db) == [0.0] * len(at)
        assert all(sd == pytest.approx(pathloss.OFFSET_SD_DB, rel=0.2) for sd in law.received_sd_db)
        assert all(locate(law, k) is None for k in range(len(at)))


def test_two_readers_tell_nothing_of_the_exponent_and_half_of_an_offset() -> None:
    at = [(0.0, 0.0, 3.5), (30.0, 0.0, 3.5)]
    law = fit(at, [BeaconLink(0, 1, -70.0, 0.25, POWER_DBM), BeaconLink(1, 0, -76.0, 0.25, POWER_DBM)])
    assert law.exponent_sd > 0.9 * pathloss.EXPONENT_SD
    assert law.received_db[0] > 0.5
    assert law.received_db.sum() == pytest.approx(0.0)
    assert law.links == 2


def test_readers_on_top_of_each_other_in_a_line_or_deaf_one_way_crash_nothing() -> None:
    rng = np.random.default_rng(3)
    line = [(30.0 * i, 0.0, 3.5) for i in range(3)]
    for at in (line, [(0.0, 0.0, 3.5)] * 4, [*line, (0.0, 0.0, 3.5)]):
        links = hear(rng, at, 2.5, np.zeros(len(at)), np.zeros(len(at)))
        for chosen in (links, [link for link in links if link.receiver < link.sender], links[:1], links * 2):
            law = fit(at, chosen)
            for k in range(len(at)):
                found = locate(law, k)
                assert found is None or (math.isfinite(found.error_m) and math.isfinite(found.deviations))
            assert np.isfinite(law.received_db).all()
            assert np.isfinite(law.received_sd_db).all()


def test_a_silent_reader_has_no_say() -> None:
    rng = np.random.default_rng(5)
    at = quarter(rng, 9)
    links = hear(rng, at, 2.3, np.zeros(9), np.zeros(9))
    bad = [
        BeaconLink(x.receiver, x.sender, x.level_dbm - 25 * (4 in (x.receiver, x.sender)), 0.25, POWER_DBM)
        for x in links
    ]
    without = fit(at, [x for x in links if 4 not in (x.receiver, x.sender)])
    silenced = fit(at, bad, [4])
    assert silenced.exponent == pytest.approx(without.exponent)
    assert np.delete(silenced.received_db, 4) == pytest.approx(np.delete(without.received_db, 4))


def test_a_pair_behind_a_lorry_moves_the_law_little() -> None:
    rng = np.random.default_rng(6)
    at = quarter(rng, 16)
    links = hear(rng, at, 2.4, np.zeros(16), np.zeros(16))
    wild = [
        BeaconLink(x.receiver, x.sender, x.level_dbm - 40 * (n % 12 == 0), 0.25, POWER_DBM) for n, x in enumerate(links)
    ]
    clean, dirty = fit(at, links), fit(at, wild)
    moved = abs(dirty.exponent - clean.exponent)
    print(f"1 link in 12 is 40 dB low: exponent {clean.exponent:.2f} -> {dirty.exponent:.2f}")
    assert moved < 0.3
    assert np.abs(dirty.received_db - clean.received_db).max() < 4


def located(law: Fit) -> list[float]:
    return [found.error_m for k in range(len(law.at_m)) if (found := locate(law, k)) is not None]


def test_the_others_locate_a_reader_as_well_as_they_claim() -> None:
    errors, deviations = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        at = quarter(rng, 25)
        law = fit(at, hear(rng, at, 2.3, 2 * rng.normal(size=25), 2 * rng.normal(size=25), shadow_db=3.0))
        found = [f for k in range(25) if (f := locate(law, k)) is not None]
        errors += [f.error_m for f in found]
        deviations += [f.deviations for f in found]
    inside = float(np.mean(np.array(deviations) < math.sqrt(-2 * math.log(0.1))))
    print(f"seeds 0..5: median {np.median(errors):.1f} m, 90 %: {np.quantile(errors, 0.9):.1f} m")
    print(f"{inside:.2f} within the 90 % ellipse; most deviations {max(deviations):.2f}")
    assert np.median(errors) < 12
    assert 0.85 <= inside <= 1.0
    assert max(deviations) < 4


def test_a_hundred_readers_are_fitted_in_slices() -> None:
    rng = np.random.default_rng(1)
    at = quarter(rng, 100)
    links = [
        x for x in hear(rng, at, 2.5, np.zeros(100), np.zeros(100)) if math.dist(at[x.receiver], at[x.sender]) < 75
    ]
    work, slices = pathloss.fitting(at, links), 0
    while True:
        try:
            next(work)
            slices += 1
        except StopIteration as done:
            law = done.value
            break
    assert slices == pathloss.ROUNDS
    assert law.links > 1000
