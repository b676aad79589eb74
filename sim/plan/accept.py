"""The figures by which a walk test accepts a plan, and their limits: what 19 simulated walk tests of it all reached.

Three for each gate: how much louder the inner readers hear a tag than the outer ones 3 m inside; the reverse 3 m
outside; both together, in which differences between single readers cancel. Two for the streets: on how much
of the footpath that the plan counts on a reader was heard, and two readers. A wall that is not there, a patch that
looks the wrong way, exchanged cables, a reader behind a tree: each shows in one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.recording import moved
from gateway.survey.calibrate import GATE_ASIDE_M, GATE_FROM_M, GATE_TO_M
from gateway.survey.read import load_site, load_survey
from gateway.zone import Plane, offset_m
from sim import chance
from sim.chance import Floats
from sim.demo import technician
from sim.plan import chain
from sim.plan.chain import Conditions
from sim.plan.layout import called, footpath_points, heard_by
from sim.street.gates import Entrance
from sim.street.site import Pole, Site
from sim.street.tag import BEACON_S, POWER_SIGMA_DB
from sim.street.zone import zone_of

ROWS_MIN = 4
"""Fewer rows of one side's readers say nothing."""
HEARD_NEAR_M = 6.0
"""A point of a footpath was heard if a row lies this near: what a walker goes between some packets, and its error."""
STAND_M, STAND_S = 3.0, 20
PASSES, PASS_M, PASS_ASIDE = 2, 15.0, 0.3
"""What docs/runbooks/walk_test.md asks for at a gate: stand so far before and behind its line for so long, half of it
facing each way; walk through it, PASSES times along each post (so much of the width from the middle), both ways."""
WALKS = 19
"""Simulated walk tests: 19 of 20 more would reach what the poorest of them reached."""


class WalkRows(NamedTuple):
    """Rows of a walk test: (rows, 2) metres on the site's plane, the reader's number, the level in dBm."""

    xy_m: Floats
    reader: NDArray[np.int64]
    rssi_dbm: Floats


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a walk test. value: NaN when too little was walked there."""

    key: str
    words: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure's least value that is accepted, and the usual one (median) of the simulated walk tests."""

    key: str
    words: str
    unit: str
    least: float
    usual: float

    def judge(self, figure: Figure | None) -> str:
        """Return in words whether a figure reaches the limit, and if not, what to look at."""
        if figure is None or math.isnan(figure.value):
            return "not walked: walk there, both ways, and tap your place at the gate"
        if figure.value >= self.least:
            return "reached"
        return "NOT reached: " + _NEXT[self.key.split()[0]]


_NEXT = {
    "inside": "does an inner reader look into the yard, an outer one to the street, and is each in its place?",
    "outside": "does an outer reader look to the street, an inner one into the yard, and is each in its place?",
    "apart": "antennas that do not separate: compare their kind and direction with the plan; is metal before them?",
    "heard": "see NAME.walk.svg for where nobody hears; a dead reader, one in another place, or one more is needed",
    "two": "see NAME.walk.svg; a dead reader, one in another place, or one more is needed",
}


def figures(site: Site, poles: Sequence[Pole], radius_m: float, rows: WalkRows) -> list[Figure]:
    """Return the figures of a walk test. radius_m: how far from the school's outline footpaths count."""
    found: list[Figure] = []
    side = {pole.number: (pole.gate, pole.side) for pole in poles}
    for gate in site.entrances:
        inward_m, right_m = _offsets(gate, rows.xy_m)
        near = np.abs(right_m) <= gate.width_m / 2 + GATE_ASIDE_M
        near &= (np.abs(inward_m) >= GATE_FROM_M) & (np.abs(inward_m) <= GATE_TO_M)
        level: dict[tuple[bool, str], float] = {}
        for within in (True, False):
            for name in ("inner", "outer"):
                own = near & ((inward_m > 0) == within)
                own &= np.isin(rows.reader, [n for n, each in side.items() if each == (gate.id, name)])
                level[within, name] = float(np.median(rows.rssi_dbm[own])) if own.sum() >= ROWS_MIN else math.nan
        inside = level[True, "inner"] - level[True, "outer"]
        outside = level[False, "outer"] - level[False, "inner"]
        name = called(gate.id)
        for key, words, value in (
            ("inside", "3 m inside: inner readers louder than outer ones by", inside),
            ("outside", "3 m outside: outer readers louder than inner ones by", outside),
            ("apart", "both together (dB apart)", inside + outside),
        ):
            found.append(Figure(f"{key} {gate.id}", f"{name}, {words}", "dB", value))
    points = footpath_points(site, radius_m)
    planned = heard_by(site, poles, points)
    heard = _heard(points, rows)
    for key, least, words in (("heard", 1, "one reader"), ("two", 2, "two readers")):
        counted = planned >= least
        share = 100 * float((heard[counted] >= least).mean()) if counted.any() else math.nan
        found.append(Figure(key, f"of the footpath where the plan says so, heard by {words}", "%", share))
    return found


def limits(site: Site, poles: Sequence[Pole], radius_m: float, seed: int, conditions: Conditions) -> list[Limit]:
    """Return the limits of a plan: what all of WALKS simulated walk tests reach, in airs that no promise has."""
    walks = [
        figures(site, poles, radius_m, simulated(site, poles, walk_seed(seed, n), conditions)) for n in range(WALKS)
    ]
    found = []
    for column in zip(*walks, strict=True):
        values = np.array([each.value for each in column])
        if np.isnan(values).any():
            continue  # the simulated technician could not walk there either
        found.append(
            Limit(column[0].key, column[0].words, column[0].unit, round(float(values.min()), 1),
                  round(float(np.median(values)), 1))
        )  # fmt: skip
    return found


def simulated(site: Site, poles: Sequence[Pole], seed: int, conditions: Conditions) -> WalkRows:
    """Return the rows of a simulated walk test: all footpaths of the zone both ways, and the part at each gate."""
    zone = zone_of(site, poles)
    air = chain.air_of(site, zone, seed, conditions)
    ways = [_paced(each, seed, n) for n, each in enumerate(_lines(site, poles))]
    for gate in site.entrances:
        for inward_m in (-STAND_M, STAND_M):
            turned = np.arange(STAND_S) >= STAND_S // 2
            facing: Floats = math.radians(90.0 - gate.inward_deg) + np.pi * turned.astype(np.float64)
            ways.append((np.broadcast_to(np.array(gate.spot(inward_m, 0.0)), (STAND_S, 2)), facing))
    xy, heading, wrong = [], [], []
    for n, (at, to) in enumerate(ways):
        xy.append(at + technician.WANDER_M * _normal(seed, "accept wander", n, np.arange(len(at))))
        wrong.append(np.broadcast_to(technician.TAP_SIGMA_M * _normal(seed, "accept tap", n, np.arange(1)), at.shape))
        heading.append(to)
    places = np.concatenate(xy)
    events = np.arange(len(places), dtype=np.int64)[:, None]
    own_db = POWER_SIGMA_DB * float(chance.normal(seed, technician.TECHNICIAN, "power")[0])
    dbm, readable = air.listen(technician.TECHNICIAN, events, air.means_dbm(places, np.concatenate(heading), own_db))
    numbers = np.array([reader.number for reader in zone.readers], np.int64)
    duty = (1 - conditions.loss) * np.array([chain.duty_of(zone, reader) for reader in zone.readers])
    row, k = np.nonzero(readable & (chance.uniform(seed, "accept scan", events, numbers) < duty))
    return WalkRows((places + np.concatenate(wrong))[row], numbers[k], np.round(dbm[row, k]))


def read_walk(folder: Path, site: Site) -> WalkRows:
    """Return the rows of a recorded site's walk test. Raises RecordingError, or ValueError without map or rows."""
    recorded = load_site(folder)
    survey = load_survey(folder, recorded)
    if recorded.origin_lonlat is None:
        raise ValueError(f"{folder}: it has no origin, so its metres lie nowhere; record it with the gateway")
    if not len(survey):
        raise ValueError(f"{folder}: no walk test is there; make one with `ansim-gateway calibrate`")
    numbers = np.array([int(name) if name.isdecimal() else 0 for name in recorded.reader_ids], np.int64)
    xy_m = moved(survey.xy_m, Plane(*recorded.origin_lonlat), site.plane)
    return WalkRows(xy_m, numbers[survey.reader], survey.rssi_dbm)


def walk_seed(seed: int, n: int) -> int:
    """Return the seed of the n-th simulated walk test of a plan."""
    return 1_000_003 * (seed + 1) + 7 * n


def _lines(site: Site, poles: Sequence[Pole]) -> list[Floats]:
    """Return every line that is walked: both ways of each footpath, and of each passage of a gate."""
    lines = [np.array(line, float) for line in site.footpaths([pole.at for pole in poles])]
    for gate in site.entrances:
        for right_m in (-PASS_ASIDE * gate.width_m, PASS_ASIDE * gate.width_m):
            lines += PASSES * [np.array([gate.spot(-PASS_M, right_m), gate.spot(PASS_M, right_m)])]
    return [each for line in lines for each in (line, line[::-1])]


def _paced(line: Floats, seed: int, n: int) -> tuple[Floats, Floats]:
    """Return where a walker on a line is at each beacon (beacons, 2), and its headings."""
    legs = np.diff(line, axis=0)
    long_m = np.hypot(*legs.T)
    ends_m = np.r_[0.0, np.cumsum(long_m)]
    step_m = technician.SPEED_M_S * BEACON_S
    gone_m = np.arange(chance.one(seed, "accept begins", n) * step_m, ends_m[-1], step_m)
    leg = np.clip(np.searchsorted(ends_m, gone_m, side="right") - 1, 0, len(legs) - 1)
    part = (gone_m - ends_m[leg]) / np.maximum(long_m[leg], 1e-9)
    return line[leg] + part[:, None] * legs[leg], np.arctan2(legs[leg, 1], legs[leg, 0])


def _normal(seed: int, what: str, n: int, k: NDArray[np.int64]) -> Floats:
    return np.stack([chance.normal(seed, what, n, axis, k) for axis in (0, 1)], axis=1)


def _offsets(gate: Entrance, xy_m: Floats) -> tuple[Floats, Floats]:
    pairs = [offset_m(x - gate.at[0], y - gate.at[1], gate.inward_deg) for x, y in xy_m.tolist()]
    inward_m, right_m = np.array(pairs, float).reshape(-1, 2).T
    return inward_m, right_m


def _heard(points: Floats, rows: WalkRows) -> NDArray[np.int64]:
    """Return how many readers have a row near each point."""
    count = np.zeros(len(points), np.int64)
    for number in np.unique(rows.reader):
        own = rows.xy_m[rows.reader == number]
        apart = np.hypot(points[:, None, 0] - own[None, :, 0], points[:, None, 1] - own[None, :, 1])
        count += (apart <= HEARD_NEAR_M).any(axis=1)
    return count
