"""What `settle` concludes about one tag, as values: the tag's row, what changed, and the fix to report it with."""

from dataclasses import dataclass

from gateway.events import PresenceState
from gateway.fix import Fix


@dataclass(frozen=True, slots=True)
class Arrived:
    tag: int
    place: str
    fix: Fix


@dataclass(frozen=True, slots=True)
class Left:
    tag: int
    place: str
    fix: Fix


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """A presence changed. still: the tag reports that it has not moved for a long time."""

    tag: int
    state: PresenceState
    place: str | None
    fix: Fix | None
    still: bool = False


@dataclass(frozen=True, slots=True)
class DangerChange:
    tag: int
    area: str
    near: bool
    probability: float
    fix: Fix


@dataclass(frozen=True, slots=True)
class Strayed:
    """A tag is off its agreed route, or back on it. probability: of being off it."""

    tag: int
    route: str
    off: bool
    probability: float
    fix: Fix


Change = Arrived | Left | PresenceChange | DangerChange | Strayed
