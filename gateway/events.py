"""The events a gateway tells its city: the types that flow, and the published schema (`ansim-gateway schema`).

Ids only, never a name: `tag` is the pseudonym the city gave the tag, `reader` the number on the pole. Times are UTC.
An event is named by (gateway, epoch, lane, seq), which is its envelope's business (`gateway.uplink`), not its own.
"""

from datetime import datetime
from typing import Literal

import msgspec

ClockQuality = Literal["good", "unsure"]
"""Quality of the wall clock behind `observed_at`: unsure until it was set from outside since the box started."""

PresenceState = Literal["at", "moving", "uncertain", "unseen", "not_covered", "idle", "paused"]
Stage = Literal["received", "stored", "acknowledged", "dispatched", "closed"]
STAGES: tuple[Stage, ...] = ("received", "stored", "acknowledged", "dispatched", "closed")
"""Stages of an alarm in the order a child lives them; `readers.wire` numbers them from 1 in this order."""

UNKNOWN_TAG = "unknown"


class Point(msgspec.Struct, frozen=True, tag_field="type", tag="Point"):
    """A GeoJSON point: (longitude, latitude) in degrees, WGS 84."""

    coordinates: tuple[float, float]


class Heard(msgspec.Struct, frozen=True, gc=False):
    """What one reader contributed to a fix."""

    reader: int
    rssi_dbm: int | None
    """Mean of the packets; None when the radio gave none."""
    packets: int
    age_s: float
    """Age of the newest packet when the fix was made."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was, how sure that is, and why it is believed."""

    geometry: Point
    radius_50_m: float
    accuracy_95_m: float
    """Radius that holds the truth 95 times in 100."""
    evidence: tuple[Heard, ...] = ()


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    observed_at: datetime
    """When it happened in the street, not when it was sent."""
    clock: ClockQuality


# ---- emergency lane -------------------------------------------------------------------------------------------------


class Sos(_Event, frozen=True, kw_only=True, tag="sos"):
    """A tag cried for help. One `alarm` a press; a later event with the same alarm and a higher revision revises it."""

    alarm: str
    """Name of this press, unique for ever: what the city's stages refer to."""
    revision: int
    """0 the first word; higher: the same press, better located or confirmed."""
    tag: str
    """Pseudonym, or "unknown" for a tag that is not enrolled here."""
    trust: Literal["verified", "unverified"]
    """verified: the advertisement's MIC was right. Unverified cries are shown, and never dispatched by themselves."""
    drill: bool
    press: int
    """The tag's press counter."""
    battery_mv: int
    readers: tuple[int, ...]
    """Readers that heard this press so far, the first one first."""
    where: Where | None
    """None only when no reader's position is known."""


class Bell(_Event, frozen=True, kw_only=True, tag="bell"):
    """A fixed bell on a pole was pressed."""

    alarm: str
    revision: int
    bell: str
    """Id of the bell in the zone's configuration."""
    reader: int
    presses: int
    where: Where | None


class Danger(_Event, frozen=True, kw_only=True, tag="danger"):
    """A tag came near a danger area, or is clear of it again."""

    alarm: str
    revision: int
    tag: str
    area: str
    near: bool
    probability: float
    """Probability (0..1) that the tag is within the area's warning distance."""
    where: Where | None


class Told(_Event, frozen=True, kw_only=True, tag="told"):
    """A reader's lamp shows this stage of this alarm: the child can see it. Said by the reader itself."""

    alarm: str
    reader: int
    stage: Stage


# ---- bulk lane ------------------------------------------------------------------------------------------------------


class Position(_Event, frozen=True, kw_only=True, tag="position"):
    """Where a tag was."""

    tag: str
    where: Where
    moving: bool


class Presence(_Event, frozen=True, kw_only=True, tag="presence"):
    """A tag's presence changed. "unseen" is silence, never "left"; "not_covered" is a dead reader's silence."""

    tag: str
    state: PresenceState
    place: str | None
    """Id of the place for "at", the last known place for "unseen"; else None."""
    where: Where | None
    still: bool = False
    """The tag itself has not moved for ten minutes: always so for "idle"; with "at", a bag on its hook, say."""


class Arrival(_Event, frozen=True, kw_only=True, tag="arrival"):
    """A tag entered a named place (the school, say) and stayed long enough to be sure."""

    tag: str
    place: str
    where: Where


class Departure(_Event, frozen=True, kw_only=True, tag="departure"):
    """A tag was positively seen outside a place it had been at."""

    tag: str
    place: str
    where: Where


class RouteDeviation(_Event, frozen=True, kw_only=True, tag="route_deviation"):
    """A tag was positively seen off its agreed route, or is back on it (or at a named place)."""

    tag: str
    route: str
    """Id of the route in the zone's configuration."""
    off: bool
    probability: float
    """Probability (0..1) that the tag is off the route's corridor and at no named place."""
    where: Where


class ReaderHealth(_Event, frozen=True, kw_only=True, tag="reader_health"):
    """A reader's own word, or the gateway's word about a silent one."""

    reader: int
    state: Literal["ok", "silent"]
    counters: dict[str, int]
    """Fields of the reader's heartbeat (`readers.wire.HEARTBEAT_FIELDS`); empty when silent."""


class GatewayHealth(_Event, frozen=True, kw_only=True, tag="gateway_health"):
    """Something the operator of the box should know. `what` is a stable word, `detail` a sentence and the next step."""

    what: str
    ok: bool
    detail: str
    counters: dict[str, int] = {}


Emergency = Sos | Bell | Danger | Told
Routine = Position | Presence | Arrival | Departure | RouteDeviation | ReaderHealth | GatewayHealth
Event = Emergency | Routine
EMERGENCY_TYPES: tuple[type[msgspec.Struct], ...] = (Sos, Bell, Danger, Told)
ROUTINE_TYPES: tuple[type[msgspec.Struct], ...] = (
    Position,
    Presence,
    Arrival,
    Departure,
    RouteDeviation,
    ReaderHealth,
    GatewayHealth,
)


def is_emergency(event: Event) -> bool:
    """Return whether an event travels on the emergency lane."""
    return isinstance(event, EMERGENCY_TYPES)
