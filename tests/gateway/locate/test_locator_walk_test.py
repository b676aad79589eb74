"""A walk test serves tags of every power, and one that cannot be fitted does not prevent locating."""

import math
from collections import Counter

import numpy as np
import pytest

from gateway.fix import Fix, Reading
from gateway.locate.ground import Ground
from gateway.locate.locator import ZoneLocator
from gateway.recording import RecordedSite, Survey
from tests.gateway.core.bed import at, zone
from tests.gateway.locate.bed_locator import FLOOR_DBM, POWER_DBM, block, off_m, walk


@pytest.mark.parametrize("level_dbm", [math.nan, math.inf, 1e200])
def test_a_walk_test_that_cannot_be_fitted_keeps_no_gateway_from_locating(level_dbm: float) -> None:
    ground, counts = Ground(zone()), Counter[str]()
    readers = np.array(list(ground.readers.values()))
    site = RecordedSite("zone", (-200.0, -50.0, 200.0, 50.0), tuple(str(number) for number in ground.readers), readers)
    rows = 200
    survey = Survey(
        readers[np.arange(rows) % len(readers), :2] + 1.0, np.full(rows, np.nan), np.arange(rows) % len(readers),
        np.full(rows, level_dbm), np.ones(rows),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        locator = ZoneLocator(ground, counts, survey=(site, survey))
    assert counts["walk_tests_unusable"] == len(ground.sectors)
    locator.hear(1, Reading(3, -60, 2, 10.0, -50), 10.5)
    [(tag, fix, _)] = list(locator.step(11.0, lambda _: False))
    assert tag == 1
    assert math.dist((fix.x_m, fix.y_m), ground.readers[3][:2]) < 60


def test_a_walk_test_of_one_tag_serves_tags_of_another_power() -> None:
    """The survey's levels are relative to the power of the tag that walked. They include the readers' offsets."""
    ground = Ground(block())
    rng = np.random.default_rng(11)
    spots = np.array([xy for (xy, _) in walk((0.0, 0.0), (120.0, 0.0), (120.0, 60.0), (0.0, 60.0), (0.0, 0.0))])
    spots = spots + ground.plane.to_xy_m(*at(0.0, 0.0))
    readers_m = np.array(list(ground.readers.values()))
    row, reader = np.indices((len(spots), len(readers_m))).reshape(2, -1)
    far_m = np.hypot(np.hypot(*(spots[row] - readers_m[reader, :2]).T), readers_m[reader, 2] - 1.0)
    levels = POWER_DBM - 12 - 25 * np.log10(far_m) + rng.normal(0, 2, len(far_m))
    bounds_m = (-150.0, -150.0, 150.0, 150.0)
    names = tuple(str(number) for number in ground.readers)
    survey = Survey(spots[row], np.full(len(row), np.nan), reader, levels, np.ones(len(row)))

    def located(power_dbm: int, *, quieter_db: int = 0, said_dbm: float | None = POWER_DBM) -> Fix:
        site = RecordedSite("block", bounds_m, names, readers_m, worn="rig", tag_power_dbm=said_dbm)
        locator = ZoneLocator(ground, Counter(), survey=(site, survey))
        locator.set_offsets({1: 20.0})
        for second in range(5):
            for number, (x, y, z) in ground.readers.items():
                level = POWER_DBM - 12 - 25 * math.log10(math.hypot(math.dist((x, y), here), z - 1.0))
                if level > FLOOR_DBM:
                    heard = Reading(number, round(level) - quieter_db, 3, float(second), power_dbm)
                    locator.hear(7, heard, float(second))
            [(_, fix, _)] = locator.step(float(second), lambda _: False)
        return fix

    here = ground.plane.to_xy_m(*at(72.0, 0.0))

    same, quiet = located(POWER_DBM), located(POWER_DBM - 10, quieter_db=10)
    assert off_m((quiet.x_m, quiet.y_m), same) < 1, "only the floor of hearing is nearer"
    assert off_m(here, same) < 6
    assert off_m(here, located(POWER_DBM, said_dbm=POWER_DBM - 12.0)) > 6, "what the site says of the tag counts"
