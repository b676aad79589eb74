"""Where a tag is, and how sure that is: the input of the locating engine (`Reading`) and its output (`Fix`).

A fix comes from a belief: a probability for every position. So "inside the school" and "near the river" are
probabilities of the same belief. They never come from comparing a distance with a radius.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as _field
from typing import Protocol

from gateway.events import Heard, Point, Where
from gateway.zone import Field

LOUD_DBM, TOO_FAR_APART_M = -80, 250.0
"""A level that means tens of metres at most, and a distance that no person walks within one fix."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader reports about one tag."""

    reader: int
    rssi_dbm: int | None
    packets: int
    heard_at_s: float
    power_dbm: int
    """The tag's calibrated power at 1 m."""


@dataclass(frozen=True, slots=True)
class Fix:
    """Where a tag was, in metres on the field's plane. The radii hold the true position 50, 90 and 95 times in 100."""

    x_m: float
    y_m: float
    radius_50_m: float
    accuracy_95_m: float
    evidence: tuple[Heard, ...]
    fixed_at_s: float
    radius_90_m: float = 0.0
    lag_s: float = 0.0
    """0: made from what was heard up to `fixed_at_s`. Otherwise: a smoothed fix, made this many seconds later."""
    places: Mapping[str, float] = _field(default_factory=dict)
    """Probability (0..1) that the tag is within each named place; a missing place has 0."""
    dangers: Mapping[str, float] = _field(default_factory=dict)
    """The same for each danger area, extended by its warning distance."""
    on_route: float | None = None
    """Probability (0..1) that the tag is within the corridor of its agreed route; None: it has no route."""


class Locator(Protocol):
    """What an alarm needs of the locating engine. `gateway.locate.locator.ZoneLocator` implements it."""

    def latest(self, tag: int) -> Fix | None:
        """Return the last fix of a tag, or None."""
        ...

    def once(self, heard: Sequence[Reading], now_s: float) -> Fix | None:
        """Return a fix from these readings alone, for a tag without history (it is not enrolled)."""
        ...


def fix_at_reader(field: Field, reading: Reading, now_s: float) -> Fix | None:
    """Return a first estimate of a position: at the reader that heard the tag, with larger radii for a weaker signal.

    It cannot fail and is cheap, because an SOS is sent with it. None when the reader's position is not known.
    """
    at = field.readers.get(reading.reader)
    if at is None:
        return None
    rssi_dbm = -80 if reading.rssi_dbm is None else reading.rssi_dbm
    reach_m = min(max(10 ** ((reading.power_dbm - rssi_dbm) / 25), 6.0), 60.0)
    heard = Heard(reading.reader, reading.rssi_dbm, reading.packets, _age_s(reading, now_s))
    return Fix(at[0], at[1], reach_m, min(3 * reach_m, 150.0), (heard,), now_s)


def where_of(field: Field, fix: Fix) -> Where:
    """Return a fix in the form that events use."""
    lon, lat = field.plane.to_lonlat(fix.x_m, fix.y_m)
    return Where(
        geometry=Point((round(lon, 7), round(lat, 7))),
        radius_50_m=round(fix.radius_50_m, 1),
        accuracy_95_m=round(fix.accuracy_95_m, 1),
        evidence=fix.evidence,
    )


def too_far_apart(field: Field, fix: Fix) -> tuple[int, int] | None:
    """Return two readers that both heard a tag loudly within one fix but are too far apart for one tag, or None."""
    loud = [h.reader for h in fix.evidence if h.rssi_dbm is not None and h.rssi_dbm >= LOUD_DBM]
    for i, one in enumerate(loud):
        for other in loud[:i]:
            (x1, y1, _), (x2, y2, _) = field.readers[one], field.readers[other]
            if (x1 - x2) ** 2 + (y1 - y2) ** 2 > TOO_FAR_APART_M**2:
                return other, one
    return None


def _age_s(reading: Reading, now_s: float) -> float:
    return round(max(now_s - reading.heard_at_s, 0.0), 2)
