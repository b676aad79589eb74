"""The law and the map learn what a survey shows, and no more: few rows keep the priors, far places keep the law."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.locate import levels
from gateway.locate.levels import Law, Lawful, LevelMap, LevelRows, fit_law, rows_of
from tests.gateway.locate.bed import HEIGHT_M, law, poles

READERS = poles((0.0, 0.0), (20.0, 0.0), (20.0, 15.0), (0.0, 15.0), (10.0, 7.0))
NO_ROWS: LevelRows = (np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), np.zeros(0), np.zeros(0))


def survey(
    rng: np.random.Generator,
    truth: Law,
    places: int,
    *,
    spread_db: float = 3.0,
    facings: bool = True,
    field: Any = None,
) -> LevelRows:
    """LevelRows of a walk all over the room: every reader at every place."""
    xy_m = rng.uniform((0.0, 0.0), (20.0, 15.0), (places, 2))
    facing = rng.uniform(-math.pi, math.pi, places) if facings else np.full(places, np.nan)
    level = truth.expect(xy_m, facing) + spread_db * rng.normal(size=(places, len(truth.readers_m)))
    if field is not None:
        level += field(xy_m)
    return flat(xy_m, facing, level)


def flat(xy_m: Any, facing: Any, level: Any) -> LevelRows:
    places, readers = level.shape
    return (
        np.repeat(xy_m, readers, axis=0),
        np.repeat(facing, readers),
        np.tile(np.arange(readers), places),
        level.ravel(),
        np.ones(places * readers),
    )


def smooth_field(rng: np.random.Generator, spread_db: float = 4.0, length_m: float = 6.0) -> Any:
    """The effect of the things in a room: a smooth random surface for each reader, made of waves."""
    waves = rng.normal(size=(40, 2)) / length_m
    phase, weight = rng.uniform(0, math.tau, (40, len(READERS))), rng.normal(size=(40, len(READERS)))
    scale = spread_db * math.sqrt(2 / 40)
    return lambda xy_m: scale * (np.cos((xy_m @ waves.T)[:, :, None] + phase) * weight).sum(axis=1)


def test_a_law_falls_with_distance_and_knows_before_from_behind() -> None:
    one = law(poles((0.0, 0.0)), p0_dbm=-40.0, exponent=2.0, body_db=3.0)
    east = np.array([[10.0, 0.0]])
    distance = math.hypot(10.0, 3.5 - HEIGHT_M)
    plain = -40.0 - 20 * math.log10(distance)
    assert one.expect(east) == pytest.approx(plain)
    assert one.expect(east, np.array([math.nan])) == pytest.approx(plain)
    assert one.expect(east, np.array([math.pi])) == pytest.approx(plain + 3.0), "the reader is before it"
    assert one.expect(east, np.array([0.0])) == pytest.approx(plain - 3.0)
    assert one.expect(east, np.array([math.pi / 2])) == pytest.approx(plain)
    under = one.expect(np.array([[0.0, 0.0]]), np.array([1.0]))
    assert np.isfinite(under).all()
    steep = law(poles((0.0, 0.0)), p0_dbm=-40.0 + 10 * math.log10(levels.HINGE_M), exponent=3.0)
    assert one.expect(east) + one.steepness(east) == pytest.approx(steep.expect(east))


def test_a_law_as_a_model_is_less_sure_the_farther_from_where_devices_are_tried_out() -> None:
    at_hinge = math.sqrt(levels.HINGE_M**2 - 2.5**2)
    _, sd_db = Lawful(law(poles((0.0, 0.0))), 0.3, 2.0).expect(np.array([[at_hinge, 0.0], [50.0, 0.0], [500.0, 0.0]]))
    assert sd_db[0, 0] == pytest.approx(4.0)
    assert sd_db[1, 0] == pytest.approx(math.hypot(4.0, 3.0 * math.log10(math.hypot(50.0, 2.5) / levels.HINGE_M)))
    assert sd_db[2, 0] > sd_db[1, 0]


def test_a_fit_finds_exponent_body_and_offsets() -> None:
    """From 200 places, over seeds: exponent to 0.25, body to 1 dB, offsets to 2 dB, whatever the true values are."""
    print("seeds 0..19")
    of_n, of_body, of_offsets = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        exponent, body_db = rng.uniform(1.6, 2.8), rng.uniform(1.0, 5.0)
        offsets_db = rng.normal(0.0, 2.5, len(READERS))
        truth = Law(READERS, HEIGHT_M, -50.0 + offsets_db, exponent, body_db, 0.0)
        found = fit_law(READERS, HEIGHT_M, survey(rng, truth, 200), worn=True)
        of_n.append(found.exponent - exponent)
        of_body.append(found.body_db - body_db)
        level = found.expect(np.array([[10.0, 7.0]])) - truth.expect(np.array([[10.0, 7.0]]))
        of_offsets += list(level[0])
        assert found.sigma_db == pytest.approx(3.0, abs=1.0)
    rms = [float(np.sqrt(np.mean(np.square(x)))) for x in (of_n, of_body, of_offsets)]
    print(f"rms: exponent {rms[0]:.3f}, body {rms[1]:.2f} dB, level {rms[2]:.2f} dB")
    assert rms[0] < 0.25
    assert rms[1] < 1.0
    assert rms[2] < 2.0
    assert abs(np.mean(of_n)) < 0.12, "no bias but a little of the prior's"


def test_a_rig_is_not_believed_to_have_a_body() -> None:
    print("seed 1")
    rng = np.random.default_rng(1)
    rows = survey(rng, law(READERS), 100)
    assert abs(fit_law(READERS, HEIGHT_M, rows, worn=False).body_db) < 1.0
    unknown = fit_law(READERS, HEIGHT_M, survey(rng, law(READERS), 100, facings=False), worn=True)
    assert unknown.body_db == pytest.approx(levels.BODY_DB), "no facing, nothing learned of the body"
    assert fit_law(READERS, HEIGHT_M, rows, worn=True, body_db=-3.0).body_db < 1.0


def test_an_empty_survey_gives_the_priors() -> None:
    found = fit_law(READERS, HEIGHT_M, NO_ROWS, worn=True)
    assert (found.exponent, found.body_db, found.sigma_db) == (levels.EXPONENT, levels.BODY_DB, levels.SIGMA_DB)
    assert found.p0_dbm == pytest.approx(np.full(len(READERS), levels.P0_DBM))
    places = np.array([[3.0, 4.0], [300.0, 4.0]])
    level, sd_db = LevelMap(found, NO_ROWS).expect(places, np.zeros(2))
    assert level == pytest.approx(found.expect(places, np.zeros(2)))
    assert (sd_db > 0).all()


def test_a_tiny_survey_moves_the_priors_a_little_and_is_not_sure_of_itself() -> None:
    """Three rows always lie near a law that is fitted to them. That does not make them certain."""
    print("seeds 0..39")
    truth = law(READERS, p0_dbm=-50.0, exponent=levels.EXPONENT)
    of_n, sigmas = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = survey(rng, truth, 3, spread_db=6.0)
        few = tuple(part[rows[2] == 0] for part in rows)
        found = fit_law(READERS, HEIGHT_M, few, worn=True)
        of_n.append(found.exponent - truth.exponent)
        sigmas.append(found.sigma_db)
    assert np.std(of_n) < 0.25 * levels.EXPONENT_SD, "noise of three rows is not believed more than the prior"
    assert min(sigmas) > 3.0
    assert max(sigmas) < 12.0


def test_a_survey_with_rows_far_off_finds_the_same_law() -> None:
    print("seed 2")
    rng = np.random.default_rng(2)
    truth = law(READERS, p0_dbm=-50.0, exponent=2.0)
    clean = survey(rng, truth, 150)
    level = clean[3].copy()
    odd = rng.random(len(level)) < 0.05
    level[odd] += rng.choice([-40.0, 40.0], odd.sum())
    level[:2] = (42.0, -300.0)
    found = fit_law(READERS, HEIGHT_M, (*clean[:3], level, clean[4]), worn=True)
    plain = fit_law(READERS, HEIGHT_M, clean, worn=True)
    assert found.exponent == pytest.approx(plain.exponent, abs=0.15)
    at = np.array([[5.0, 5.0], [15.0, 10.0]])
    assert found.expect(at) == pytest.approx(plain.expect(at), abs=1.0)


def held_out_rms(rng: np.random.Generator, field: Any) -> tuple[float, float]:
    """Return the error of the law and of the map, in dB, at places between those of the survey."""
    truth = law(READERS, p0_dbm=-50.0)
    rows = survey(rng, truth, 120, spread_db=2.0, facings=False, field=field)
    found = fit_law(READERS, HEIGHT_M, rows, worn=False)
    places = rng.uniform((1.0, 1.0), (19.0, 14.0), (200, 2))
    want = truth.expect(places) + (0.0 if field is None else field(places))
    level, _ = LevelMap(found, rows).expect(places)
    return tuple(float(np.sqrt(np.mean((x - want) ** 2))) for x in (found.expect(places), level))  # type: ignore[return-value]


def test_a_map_foretells_places_nobody_measured_where_the_room_has_a_shape() -> None:
    print("seeds 0..5")
    rms = [held_out_rms(rng := np.random.default_rng(seed), smooth_field(rng)) for seed in range(6)]
    by_law, by_map = np.mean(rms, axis=0)
    print(f"law {by_law:.2f} dB, map {by_map:.2f} dB")
    assert by_map < 0.7 * by_law


def test_a_map_of_noise_does_little_harm() -> None:
    print("seeds 0..5")
    by_law, by_map = np.mean([held_out_rms(np.random.default_rng(seed), None) for seed in range(6)], axis=0)
    print(f"law {by_law:.2f} dB, map {by_map:.2f} dB")
    assert by_map < by_law + 1.5


def test_far_from_the_survey_the_map_is_the_law_and_says_how_little_it_knows() -> None:
    print("seed 3")
    rng = np.random.default_rng(3)
    rows = survey(rng, law(READERS), 80, field=smooth_field(rng))
    found = fit_law(READERS, HEIGHT_M, rows, worn=True)
    made = LevelMap(found, rows)
    far = np.array([[200.0, 200.0], [-150.0, 40.0]])
    level, sd_db = made.expect(far, np.zeros(2))
    assert level == pytest.approx(found.expect(far, np.zeros(2)), abs=0.01)
    assert sd_db == pytest.approx(np.full(sd_db.shape, made.spread_db), abs=0.01)
    _, here_db = made.expect(rows[0][:5], rows[1][:5])
    assert (here_db < 0.9 * made.spread_db).all()


def test_only_the_way_walked_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels measured on a walk east are trusted for a child who walks east, and less for one who walks west."""
    print("seed 4")
    rng = np.random.default_rng(4)
    along = np.column_stack([np.linspace(0.0, 20.0, 60), np.full(60, 5.0)])
    both = np.concatenate([along, along])
    facing = np.repeat([0.0, math.pi], 60)
    truth = law(READERS)
    east_m, west_m = smooth_field(rng), smooth_field(rng)
    level = truth.expect(both, facing) + np.concatenate([east_m(along), west_m(along)])
    level += rng.normal(size=level.shape)
    rows = flat(both, facing, level)
    found = fit_law(READERS, HEIGHT_M, rows, worn=True)
    assert LevelMap(found, rows).turned > 0, "both ways measured, and they differ: the map sees it"
    only_east = tuple(part[np.cos(rows[1]) > 0] for part in rows)
    monkeypatch.setattr(levels, "TURNED", (0.6,))  # a walk one way cannot show by itself that facing matters
    made = LevelMap(found, only_east)
    (_, with_walk), (_, against) = made.expect(along, np.zeros(60)), made.expect(along, np.full(60, math.pi))
    (_, nobody_knows) = made.expect(along)
    assert (against > 1.2 * with_walk).all()
    assert (nobody_knows > with_walk).all()
    beside_east = made.expect(along, np.zeros(60))[0] - found.expect(along, np.zeros(60))
    beside_west = made.expect(along, np.full(60, math.pi))[0] - found.expect(along, np.full(60, math.pi))
    assert np.abs(beside_west).mean() < 0.7 * np.abs(beside_east).mean(), "and less of it is taken over"


def test_a_survey_of_one_reader_leaves_the_others_at_the_law() -> None:
    print("seed 5")
    rows = survey(np.random.default_rng(5), law(READERS, p0_dbm=-55.0), 60)
    mine = tuple(part[rows[2] == 2] for part in rows)
    found = fit_law(READERS, HEIGHT_M, mine, worn=True)
    made = LevelMap(found, mine)
    places = np.array([[5.0, 5.0], [12.0, 9.0]])
    level, sd_db = made.expect(places, np.zeros(2))
    others = [0, 1, 3, 4]
    assert level[:, others] == pytest.approx(found.expect(places, np.zeros(2))[:, others])
    assert sd_db[:, others] == pytest.approx(np.full((2, 4), made.spread_db))
    assert (sd_db[:, 2] < made.spread_db).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_handful_of_rows_is_a_survey_too(rows: int) -> None:
    print("seed 6")
    whole = survey(np.random.default_rng(6), law(READERS), 5)
    few = tuple(part[:rows] for part in whole)
    made = LevelMap(fit_law(READERS, HEIGHT_M, few, worn=True), few)
    level, sd_db = made.expect(np.array([[1.0, 1.0], [1e4, 1e4]]), np.array([0.0, math.nan]))
    assert np.isfinite(level).all()
    assert np.isfinite(sd_db).all()
    assert (sd_db > 0).all()


def test_absurd_surveys_give_finite_levels() -> None:
    print("seed 7")
    rng = np.random.default_rng(7)
    xy_m = np.concatenate([READERS[:, :2], rng.uniform(-1e4, 1e4, (30, 2)), np.zeros((65, 2))])
    facing = np.where(rng.random(100) < 0.5, np.nan, rng.uniform(-50, 50, 100))
    level = rng.choice([42.0, -300.0, 0.0, -70.0], 100)
    rows = (xy_m, facing, rng.integers(0, len(READERS), 100), level, rng.uniform(0.5, 1e6, 100))
    found = fit_law(READERS, HEIGHT_M, rows, worn=True)
    for model in (Lawful(found, 0.3, 2.0), LevelMap(found, rows)):
        expected, sd_db = model.expect(np.concatenate([xy_m, [[1e5, 0.0]]]), np.append(facing, 0.0))
        assert np.isfinite(expected).all()
        assert np.isfinite(sd_db).all()
        assert (sd_db > 0).all()


def test_rows_average_what_lies_in_a_cell_faces_alike_and_is_of_one_reader() -> None:
    xy_m = np.array([[1.2, 1.2], [1.25, 1.2], [1.2, 1.2], [1.2, 1.2], [5.0, 5.0]])
    heading_deg = np.array([0.0, 359.0, 180.0, math.nan, 0.0])
    reader = np.array([0, 0, 0, 0, 1])
    level, count = np.array([-60.0, -70.0, -50.0, -40.0, -80.0]), np.array([1.0, 3.0, 1.0, 1.0, 2.0])
    xy, facing, which, mean, total = rows_of(xy_m, heading_deg, reader, level, count)
    order = np.argsort(mean)
    assert mean[order] == pytest.approx([-80.0, -67.5, -50.0, -40.0])
    assert total[order] == pytest.approx([2.0, 4.0, 1.0, 1.0])
    assert which[order].tolist() == [1, 0, 0, 0]
    assert xy[order[1]] == pytest.approx([1.2375, 1.2])
    assert math.degrees(facing[order[1]]) == pytest.approx(-0.75, abs=0.01), "not the mean of 0 and 359"
    assert abs(math.degrees(facing[order[2]])) == pytest.approx(180.0)
    assert math.isnan(facing[order[3]])
    none = rows_of(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), np.zeros(0), np.zeros(0))
    assert [len(part) for part in none] == [0] * 5
