"""What a reader's antenna adds to a level, by the direction from which a tag is heard.

A dipole hears all round, a patch best where it looks. A *look* is the direction of a patch in radians anticlockwise
from east; not a number: a dipole. Levels are in dB relative to a dipole.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.zone import Reader

AHEAD_DB, FRONT_BACK_DB = 3.0, 14.0
"""A patch ahead relative to a dipole, and how much less it hears behind. Assumed: data sheets say 5 to 8 dBi relative
to 2 of a dipole, and 10 to 20 dB; not measured on a post. A walk test finds what the readers really have."""
NEAR_M = 0.5
"""Nearer than this to its foot, a patch has less and less direction."""


def look_of(reader: Reader) -> float:
    """Return the look of a reader's antenna; nan for a dipole, and for a patch whose direction is unknown."""
    if reader.antenna != "patch" or reader.look_deg is None:
        return math.nan
    return math.radians(90.0 - reader.look_deg) % math.tau


def looks_of(readers: Sequence[Reader]) -> Any | None:
    """Return the looks of readers, float [readers]; None if all are dipoles."""
    look = np.array([look_of(reader) for reader in readers])
    return look if np.isfinite(look).any() else None


def gain_db(to_m: Any, look: Any) -> Any:
    """Return the gain towards tags, dB: AHEAD_DB - FRONT_BACK_DB (1 - cos) / 2, and 0 for a dipole.

    to_m [.., 2]: from the antenna to the tag, m. look [..]: see above. cos: of the angle between the two on the ground.
    """
    known = np.isfinite(look)
    angle = np.where(known, look, 0.0)
    along = to_m[..., 0] * np.cos(angle) + to_m[..., 1] * np.sin(angle)
    off = along / np.maximum(np.hypot(to_m[..., 0], to_m[..., 1]), NEAR_M)
    return np.where(known, AHEAD_DB - FRONT_BACK_DB * (1 - off) / 2, 0.0)
