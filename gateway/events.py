"""The events that a gateway sends to its city. `ansim-gateway schema` publishes their schema from these types.

They hold ids, never names: `tag` is the pseudonym that the city gave the tag, `reader` the number of a reader. Times
are UTC. An event's name is (gateway, epoch, lane, seq). The envelope (`gateway.uplink`) holds it, not the event.
"""

from datetime import datetime
from typing import Literal, get_args

import msgspec

ClockQuality = Literal["good", "unsure"]
"""Quality of the wall clock behind `observed_at`: unsure until it is set from outside after the box starts."""

PresenceState = Literal["at", "moving", "uncertain", "unseen", "not_covered", "idle", "paused"]
Stage = Literal["received", "stored", "acknowledged", "dispatched", "closed"]
STAGES: tuple[Stage, ...] = ("received", "stored", "acknowledged", "dispatched", "closed")
"""Stages of an alarm, in the order in which a child sees them; `readers.wire` numbers them from 1 in this order."""

UNKNOWN_TAG = "unknown"
UNKNOWN_BUTTON = "unknown button"
"""How the `tag` of an `Sos` begins that came from a ZigBee button, not from a tag. After it: which device it was."""


class Point(msgspec.Struct, frozen=True, tag_field="type", tag="Point"):
    """A GeoJSON point: (longitude, latitude) in degrees, WGS 84."""

    coordinates: tuple[float, float]


class Heard(msgspec.Struct, frozen=True, gc=False):
    """What one reader contributed to a fix."""

    reader: int
    rssi_dbm: int | None
    """Mean level of the packets; None if the radio gave no level."""
    packets: int
    age_s: float
    """Age of the newest packet at the time of the fix."""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was, how sure that is, and why it is believed."""

    geometry: Point
    radius_50_m: float
    accuracy_95_m: float
    """Radius that holds the true position 95 times in 100."""
    evidence: tuple[Heard, ...] = ()


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    observed_at: datetime
    """When it happened in the street, not when the event was sent."""
    clock: ClockQuality


# ---- emergency lane -------------------------------------------------------------------------------------------------


class Sos(_Event, frozen=True, kw_only=True, tag="sos"):
    """A tag cried for help. One `alarm` a press; a later event with the same alarm and a higher revision revises it."""

    alarm: str
    """Name of this press, never used again. The city's stages refer to it."""
    revision: int
    """0: the first event. Higher: the same press, with more readers, a better position or a proven tag."""
    tag: str
    """Pseudonym; "unknown" for an unverified cry; "unknown button .." for the alarm of a ZigBee button of any maker."""
    trust: Literal["verified", "replayed", "unverified"]
    """verified: a key of the zone made this cry, and it is new. replayed: a key made it, but somebody seems to repeat
    it. unverified: no key of the zone made it. Only a verified cry may be dispatched automatically; all are shown."""
    drill: bool
    press: int
    """The tag's press counter. Of an unknown button: how often it said alarm, so far."""
    battery_mv: int
    readers: tuple[int, ...]
    """Readers that heard this press so far, the first one at the front."""
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
    trust: Literal["verified", "unverified"] = "verified"
    """unverified: its reader's frame could not be shown to be new, as after its flash was erased."""


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


# ---- routine lane ---------------------------------------------------------------------------------------------------


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
    """For "at": id of the place. For "unseen": the last known place, or None. For other states: None."""
    where: Where | None
    still: bool = False
    """The tag reports no motion for ten minutes: always true for "idle"; with "at", for example, a bag on its hook."""


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
    """Fields of the reader's heartbeat (`readers.wire.HEARTBEAT_FIELDS`); empty when it is silent."""


class GatewayHealth(_Event, frozen=True, kw_only=True, tag="gateway_health"):
    """Something the operator of the box should know. `what` is a stable word, `detail` a sentence and the next step."""

    what: str
    ok: bool
    detail: str
    counters: dict[str, int] = {}


Emergency = Sos | Bell | Danger | Told
Routine = Position | Presence | Arrival | Departure | RouteDeviation | ReaderHealth | GatewayHealth
Event = Emergency | Routine
EMERGENCY_TYPES: tuple[type[msgspec.Struct], ...] = get_args(Emergency)
ROUTINE_TYPES: tuple[type[msgspec.Struct], ...] = get_args(Routine)


def is_emergency(event: Event) -> bool:
    """Return whether an event is sent on the emergency lane."""
    return isinstance(event, EMERGENCY_TYPES)
