"""Decides what an emergency event means for the dispatchers. Pure functions; they get the time in unix seconds.

An incident is new, then acknowledged, then closed. The stage of its alarms only rises. Each alarm has one incident.
Whether a second alarm belongs to an open incident is decided by the gateway's own table (`gateway.cries`): it may be
the same press, told by two zones or by a gateway that lost its store, or the same bell while nobody has looked yet. A
press that a gateway calls new never joins what a person has acknowledged, and what is proven never joins what is not.
No emergency is refused for its age: an old one opens an incident that is marked late.
"""

from collections.abc import Sequence
from typing import Literal, assert_never

import msgspec

from gateway.cries import Attention, Case, Kin, Proof, belongs
from gateway.events import STAGES, UNKNOWN_BUTTON, UNKNOWN_TAG, Bell, ClockQuality, Danger, Sos, Stage, Where

IncidentKind = Literal["sos", "bell", "danger", "unreadable"]
IncidentState = Literal["new", "acknowledged", "closed"]
STAGE_OF: dict[IncidentState, Stage] = {"new": "stored", "acknowledged": "acknowledged", "closed": "closed"}

LATE_S = 120.0
"""An emergency that is older than this when it is stored is marked late."""
JOIN_S = 20 * 60.0
"""Longest time between two alarms of one press, or of one bell that nobody has looked at."""
TWICE_S = 30.0
"""Two alarms of one press give its time at most this far apart: both take it from a reader's own count."""
OVERDUE_S = 60.0
"""A new incident that nobody acknowledges for longer than this is overdue."""
NOTICE_REPEAT_S = 2.0
NOTICE_SLOW_AFTER_S = 600.0
NOTICE_SLOW_S = 30.0
"""Seconds between repeats of a stage that no lamp has shown for ten minutes. A gateway that comes online gets the stage
at once in any case."""
NOTICE_MAX_S = 24 * 3600.0
READERS_MAX = 64


class WrongState(ValueError):
    """The state of the incident does not allow this action. The message says what to do first."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One emergency as the dispatchers see it. Times are unix seconds, UTC; None: it has not happened."""

    number: int = 0
    """0 until it is stored."""
    kind: IncidentKind
    state: IncidentState = "new"
    gateway: str
    subject: str
    """Pseudonym of the tag, id of the bell, or id of the gateway whose message could not be read."""
    alarm: str | None
    """The newest alarm of this incident; None for an unreadable emergency."""
    area: str | None = None
    press: int | None = None
    presses: int | None = None
    trust: Literal["verified", "replayed", "unverified"] | None = None
    drill: bool = False
    battery_mv: int | None = None
    probability: float | None = None
    readers: tuple[int, ...] = ()
    where: Where | None = None
    where_at: float | None = None
    clock: ClockQuality = "good"
    late_s: float | None = None
    """Age in seconds, when stored, of a late emergency. None: it came in time, or the gateway's clock was unsure."""
    observed_at: float
    last_observed_at: float
    queued_at: float | None
    stored_at: float
    shown_at: float | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    closed_at: float | None = None
    closed_by: str | None = None
    cleared_at: float | None = None
    """Of a danger alarm: when the tag was clear of the area again."""
    overdue: bool = False
    detail: str = ""


class AlarmProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm, and how far the city has come with it."""

    alarm: str
    incident: int
    gateway: str
    kind: IncidentKind
    revision: int
    stage: Stage
    stage_at: float
    told: Stage | None = None
    """The furthest stage that any lamp has shown."""


class Decision(msgspec.Struct, frozen=True):
    """The incident after an event, and what the log says about it."""

    incident: Incident
    word: Literal["opened", "joined", "revised", "proven", "heard_again", "clear_again", "near_again"]


def decide(
    event: Sos | Bell | Danger,
    *,
    gateway: str,
    queued_at: float | None,
    now_s: float,
    known: tuple[Incident, AlarmProgress] | None,
    others: Sequence[Incident],
) -> Decision:
    """Return the incident that an emergency event opens or changes.

    known: the incident of this alarm, and the alarm as stored; None for a new alarm. others: the incidents of the same
    kind and subject that are not closed.
    """
    observed_at = event.observed_at.timestamp()
    if known is not None:
        return _revise_known(known[0], event, observed_at, newer=event.revision > known[1].revision)
    for incident in others:
        if incident.state != "closed" and belongs(_case(incident, event, gateway, observed_at)) != "new":
            newer = observed_at >= incident.last_observed_at
            revised = _revise(incident, event, observed_at, newer=newer).incident
            return Decision(msgspec.structs.replace(revised, alarm=event.alarm), "joined")
    return Decision(_open(event, gateway, observed_at, queued_at, now_s), "opened")


def kind_of(event: Sos | Bell | Danger) -> IncidentKind:
    """Return the kind of an emergency. mypy refuses a new emergency without one: it would pass for a danger notice."""
    match event:
        case Sos():
            return "sos"
        case Bell():
            return "bell"
        case Danger():
            return "danger"
        case _:
            assert_never(event)


def _open(
    event: Sos | Bell | Danger, gateway: str, observed_at: float, queued_at: float | None, now_s: float
) -> Incident:
    age_s = now_s - observed_at
    opened = Incident(
        kind=kind_of(event),
        gateway=gateway,
        subject=event.bell if isinstance(event, Bell) else event.tag,
        alarm=event.alarm,
        drill=isinstance(event, Sos) and event.drill,
        clock=event.clock,
        late_s=age_s if event.clock == "good" and age_s > LATE_S else None,
        observed_at=observed_at,
        last_observed_at=observed_at,
        queued_at=queued_at,
        stored_at=now_s,
    )
    return _revise(opened, event, observed_at, newer=True).incident


def _case(incident: Incident, event: Sos | Bell | Danger, gateway: str, observed_at: float) -> Case:
    """Return what the table of cries asks about a new alarm and an open incident of the same subject."""
    kin = _kin(incident, event, gateway, observed_at)
    return Case(_proof(event), kin, incident.trust or "verified", _ATTENTION[incident.state])


def _proof(event: Sos | Bell | Danger) -> Proof:
    trust = "verified" if isinstance(event, Danger) else event.trust
    return "now" if trust == "verified" else "none" if trust == "unverified" and isinstance(event, Sos) else "old"


def _kin(incident: Incident, event: Sos | Bell | Danger, gateway: str, observed_at: float) -> Kin:
    apart_s = abs(observed_at - incident.observed_at)
    one_store = incident.gateway == gateway and _store_of(incident.alarm) == _store_of(event.alarm)
    if isinstance(event, Bell):  # each gateway names its own bells
        near_s = min(apart_s, abs(observed_at - incident.last_observed_at))
        unseen = incident.state == "new" and near_s <= JOIN_S
        return "same" if incident.gateway == gateway and (unseen or (not one_store and apart_s <= TWICE_S)) else "other"
    if isinstance(event, Danger):
        return "other"
    unknown = event.tag == UNKNOWN_TAG or event.tag.startswith(UNKNOWN_BUTTON)
    if unknown or one_store or incident.press != event.press:  # of one store: its gateway knows that it is another
        return "other"
    return "same" if apart_s <= (JOIN_S if incident.state == "new" else TWICE_S) else "other"


def _store_of(alarm: str | None) -> str:
    """Return the gateway and the epoch of its store, which an alarm's name begins with."""
    return "" if alarm is None else alarm.rpartition("-")[0]


_ATTENTION: dict[IncidentState, Attention] = {"new": "new", "acknowledged": "taken", "closed": "closed"}


def _revise_known(incident: Incident, event: Sos | Bell | Danger, observed_at: float, *, newer: bool) -> Decision:
    """Revise the incident of this very alarm. If its tag is proven only now, and a person has judged it as a stranger's
    before, it is new again: nobody has judged this child's call."""
    decision = _revise(incident, event, observed_at, newer=newer)
    proven = isinstance(event, Sos) and event.trust == "verified" and incident.trust == "unverified"
    if not proven or belongs(Case("now", "same", "unverified", _ATTENTION[incident.state])) != "new":
        return decision
    anew = msgspec.structs.replace(
        decision.incident, state="new", acknowledged_at=None, acknowledged_by=None, closed_at=None, closed_by=None,
        shown_at=None, overdue=False,
    )  # fmt: skip
    return Decision(anew, "proven")


def _revise(incident: Incident, event: Sos | Bell | Danger, observed_at: float, *, newer: bool) -> Decision:
    """Merge what may come in any order (readers, trust), and take the rest only from a newer event."""
    heard = event.readers if isinstance(event, Sos) else (event.reader,) if isinstance(event, Bell) else ()
    readers = incident.readers + tuple(r for r in dict.fromkeys(heard) if r not in incident.readers)
    change: dict[str, object] = {
        "readers": readers[:READERS_MAX],
        "last_observed_at": max(incident.last_observed_at, observed_at),
    }
    word: Literal["revised", "heard_again", "clear_again", "near_again"] = "revised" if newer else "heard_again"
    if newer and event.where is not None:
        change |= {"where": event.where, "where_at": observed_at}
    if isinstance(event, Sos):
        proven = event.trust == "verified" and incident.trust != "verified"
        change["trust"] = event.trust if incident.trust is None or proven else incident.trust
        if proven:
            change["subject"] = event.tag
        change["drill"] = incident.drill and event.drill  # one event that says "real" outweighs all that say "drill"
        if newer:
            change |= {"press": event.press, "battery_mv": event.battery_mv}
    elif isinstance(event, Bell):
        change["presses"] = max(incident.presses or 0, event.presses)
        change["trust"] = "verified" if "verified" in (event.trust, incident.trust) else event.trust
    elif newer:
        change |= {"area": event.area, "probability": event.probability}
        if not event.near:
            change |= {"cleared_at": observed_at, "overdue": False}
            word = "clear_again"
        elif incident.cleared_at is not None:
            change["cleared_at"] = None
            word = "near_again"
    return Decision(msgspec.structs.replace(incident, **change), word)


def unreadable(*, gateway: str, detail: str, queued_at: float | None, now_s: float, open_: Incident | None) -> Decision:
    """Return the incident of an emergency that could not be read. An open one of this gateway is used again."""
    if open_ is not None and open_.state != "closed":
        return Decision(msgspec.structs.replace(open_, last_observed_at=now_s, detail=detail), "joined")
    opened = Incident(
        kind="unreadable",
        gateway=gateway,
        subject=gateway,
        alarm=None,
        clock="unsure",
        observed_at=queued_at or now_s,
        last_observed_at=now_s,
        queued_at=queued_at,
        stored_at=now_s,
        detail=detail,
    )
    return Decision(opened, "opened")


def acknowledge(incident: Incident, who: str, now_s: float) -> Incident:
    """Return the incident, acknowledged by `who`; unchanged if it was already. Raises WrongState if it is closed."""
    if incident.state == "closed":
        raise WrongState(f"incident {incident.number} was closed by {incident.closed_by}; a new cry opens a new one")
    if incident.state == "acknowledged":
        return incident
    return msgspec.structs.replace(
        incident, state="acknowledged", acknowledged_at=now_s, acknowledged_by=who, overdue=False
    )


def close(incident: Incident, who: str, now_s: float) -> Incident:
    """Return the incident, closed by `who`; unchanged if it was already. Raises WrongState if it is new."""
    if incident.state == "new":
        raise WrongState(f"incident {incident.number} is new: acknowledge it first, the child's lamp waits for that")
    if incident.state == "closed":
        return incident
    return msgspec.structs.replace(incident, state="closed", closed_at=now_s, closed_by=who)


def close_if_over(decision: Decision, now_s: float) -> Incident:
    """Return the incident of a decision, closed by the city if it is a danger notice that needs nobody any more.

    That is one that nobody has acknowledged, that is over, and that came late or was over when it was first heard of:
    three hours of an area's notices that come at once are no work for a dispatcher. It stays in the closed list.
    """
    incident = decision.incident
    over = incident.kind == "danger" and incident.state == "new" and incident.cleared_at is not None
    if not (over and (incident.late_s is not None or decision.word == "opened")):
        return incident
    return msgspec.structs.replace(incident, state="closed", closed_at=now_s, closed_by="city", overdue=False)


def is_overdue(incident: Incident, now_s: float) -> bool:
    """Return whether nobody acknowledged this incident in time. Never true for a danger that is clear again."""
    return incident.state == "new" and incident.cleared_at is None and now_s - incident.stored_at > OVERDUE_S


def rank(stage: Stage | None) -> int:
    """Return the index of a stage in `STAGES`, -1 for None."""
    return -1 if stage is None else STAGES.index(stage)


def has_lamp(kind: IncidentKind) -> bool:
    """Return whether a lamp answers alarms of this kind. A danger alarm is for the dispatchers, not for the child."""
    return kind in ("sos", "bell")


def notice_due(alarm: AlarmProgress, sent_at: float | None, now_s: float) -> bool:
    """Return whether to send the stage of this alarm to its gateway now. sent_at: when it was last sent; None: never.

    It is repeated until a lamp shows this stage or a later one, for one day. A kind without a lamp never gets it.
    """
    since_s = now_s - alarm.stage_at
    if not has_lamp(alarm.kind) or rank(alarm.told) >= rank(alarm.stage) or since_s >= NOTICE_MAX_S:
        return False
    if sent_at is None or sent_at < alarm.stage_at:
        return True
    return now_s - sent_at >= (NOTICE_REPEAT_S if since_s < NOTICE_SLOW_AFTER_S else NOTICE_SLOW_S)
