"""Incidents, their alarms and their logs in the store. `city.incidents` decides; this module reads and writes."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, func, select, update

from city import incidents
from city import tables as t
from city.incidents import AlarmProgress, Incident
from city.store import Store, dumps
from gateway.events import Bell, Danger, Sos, Stage, Told

LOG_MAX = 500
"""Lines in one incident's log. After them, what a tag repeats for hours is no longer logged, and one line says so."""
OPEN_MAX = 500
"""Most incidents given to a page, and most open incidents compared with a new alarm."""
NOTICES_MAX = 500
SYSTEM = "city"
MARK = "~"
"""Between the name of an alarm and a number, if a gateway has given that name to more than one. Gateways use no ~."""
NAMESAKES_MAX = 9
"""Most alarms of one name that are told apart. More are taken for the last one."""


def take(
    store: Store,
    c: Connection,
    event: Sos | Bell | Danger,
    *,
    gateway: str,
    queued_at: float | None,
    now_s: float,
    another: bool = False,
) -> int:
    """Store what a new emergency event changes. Return the number of its incident.

    another: its box counts again from an older number, so an alarm of its name may be another one. It then gets a name
    of its own, with MARK.
    """
    event, known = _named(c, event, gateway, another=another)
    kind = incidents.kind_of(event)
    subject = event.bell if isinstance(event, Bell) else event.tag
    others = () if known else _open_of(c, kind, subject)
    decision = incidents.decide(event, gateway=gateway, queued_at=queued_at, now_s=now_s, known=known, others=others)
    incident = incidents.close_if_over(decision, now_s)
    number = _write(c, incident)
    if known is None:
        stage = incidents.STAGE_OF[incident.state]
        told = _furthest(c, gateway, event.alarm)
        if MARK in event.alarm:  # the name is this child's now: no lamp may show the older one's stages for it
            older = [row["alarm"] for row in _namesakes(c, gateway, plain_name(event.alarm))[1]]
            c.execute(
                update(t.alarm)
                .where((t.alarm.c.gateway == gateway) & t.alarm.c.alarm.in_(older))
                .values(told="closed", waits=False)
            )
        c.execute(
            t.alarm.insert().values(
                gateway=gateway,
                alarm=event.alarm,
                incident=number,
                kind=kind,
                revision=event.revision,
                stage=stage,
                stage_at=now_s,
                told=told,
                open=incident.state != "closed",
                waits=incidents.has_lamp(incident.kind) and incidents.rank(told) < incidents.rank(stage),
            )
        )
    elif event.revision > known[1].revision:
        c.execute(
            update(t.alarm)
            .where((t.alarm.c.gateway == gateway) & (t.alarm.c.alarm == event.alarm))
            .values(revision=event.revision, open=incident.state != "closed")
        )
    write_log(c, number, now_s, decision.word, detail=f"{event.alarm} revision {event.revision}")
    if incident.state == "closed" and decision.incident.state != "closed":
        mine = t.alarm.c.incident == number
        c.execute(update(t.alarm).where(mine).values(stage="closed", stage_at=now_s, open=False, waits=False))
        write_log(c, number, now_s, "over", detail="it came late and is over: closed by the city")
    store.count(c, {f"incidents.{decision.word}": 1}, owner=f"sos/{gateway}")
    return number


def _named(
    c: Connection, event: Sos | Bell | Danger, gateway: str, *, another: bool
) -> tuple[Sos | Bell | Danger, tuple[Incident, AlarmProgress] | None]:
    """Return the event under its alarm's name in the store, and that alarm with its incident; None if it is new."""
    names, rows = _namesakes(c, gateway, event.alarm)
    held = {row["alarm"]: (_one(c, row["incident"]), _alarm(row)) for row in rows}
    for name in reversed(held):
        if _may_be(held[name][0], event, another=another):
            return msgspec.structs.replace(event, alarm=name), held[name]
    free = [name for name in names if name not in held]
    return (msgspec.structs.replace(event, alarm=free[0]), None) if free else (event, held[names[-1]])


def _may_be(incident: Incident, event: Sos | Bell | Danger, *, another: bool) -> bool:
    """Return whether an event may belong to the incident of an alarm of its name.

    A name whose kind or proven tag is another one was given twice, whatever its number says.
    """
    kind = incidents.kind_of(event)
    subject = event.bell if isinstance(event, Bell) else event.tag
    proven = not isinstance(event, Sos) or (event.trust == "verified" == incident.trust)
    if incident.kind != kind or (incident.subject != subject and (another or proven)):
        return False
    if not another:
        return True
    same_press = not isinstance(event, Sos) or incident.press == event.press
    return same_press and (incident.state != "closed" or incident.observed_at == event.observed_at.timestamp())


def _namesakes(c: Connection, gateway: str, alarm: str) -> tuple[list[str], list[RowMapping]]:
    """Return the names that alarms of one name may have, and those that there are, the oldest first."""
    names = [alarm, *(f"{alarm}{MARK}{n}" for n in range(2, NAMESAKES_MAX + 1))]
    rows = c.execute(select(t.alarm).where((t.alarm.c.gateway == gateway) & t.alarm.c.alarm.in_(names))).mappings()
    return names, sorted(rows, key=lambda row: names.index(row["alarm"]))


def plain_name(alarm: str) -> str:
    """Return the name by which the gateway knows this alarm."""
    return alarm.partition(MARK)[0]


def take_unreadable(
    store: Store, c: Connection, *, gateway: str, detail: str, queued_at: float | None, now_s: float
) -> int:
    """Open or reuse the incident of an emergency that could not be read. Return its number."""
    others = _open_of(c, "unreadable", gateway)
    decision = incidents.unreadable(
        gateway=gateway, detail=detail, queued_at=queued_at, now_s=now_s, open_=others[0] if others else None
    )
    number = _write(c, decision.incident)
    write_log(c, number, now_s, decision.word, detail=detail)
    store.count(c, {f"incidents.{decision.word}": 1}, owner=f"sos/{gateway}")
    return number


def take_told(store: Store, c: Connection, event: Told, *, gateway: str, now_s: float) -> int | None:
    """Store that a lamp shows a stage. Return the incident of the alarm, None while the alarm is not known yet."""
    _, namesakes = _namesakes(c, gateway, event.alarm)
    row = namesakes[-1] if namesakes else None
    name = event.alarm if row is None else row["alarm"]
    new = store.insert_new(
        c,
        t.told,
        [
            {
                "gateway": gateway,
                "alarm": name,
                "reader": event.reader,
                "stage": event.stage,
                "told_at": event.observed_at.timestamp(),
                "stored_at": now_s,
            }
        ],
    )
    mine = (t.alarm.c.gateway == gateway) & (t.alarm.c.alarm == name)
    if row is None:
        return None
    alarm = _alarm(row)
    if incidents.rank(event.stage) > incidents.rank(alarm.told):
        waits = incidents.rank(event.stage) < incidents.rank(alarm.stage)
        c.execute(update(t.alarm).where(mine).values(told=event.stage, waits=waits and incidents.has_lamp(alarm.kind)))
    if new:
        mine_too = t.incident.c.number == alarm.incident
        c.execute(update(t.incident).where(mine_too).values(version=t.incident.c.version + 1))
        write_log(c, alarm.incident, now_s, "told", detail=f"reader {event.reader}: {event.stage}")
    return alarm.incident


def acknowledge(c: Connection, number: int, who: str, now_s: float) -> None:
    """Acknowledge an incident. Raises KeyError if there is none, `incidents.WrongState` if it is closed."""
    before = _one(c, number)
    after = incidents.acknowledge(before, who, now_s)
    _advance(c, before, after, now_s)
    write_log(c, number, now_s, "acknowledged" if after is not before else "acknowledged_too", who=who)


def close(c: Connection, number: int, who: str, now_s: float) -> None:
    """Close an incident. Raises KeyError if there is none, `incidents.WrongState` if nobody acknowledged it."""
    before = _one(c, number)
    after = incidents.close(before, who, now_s)
    _advance(c, before, after, now_s)
    write_log(c, number, now_s, "closed" if after is not before else "closed_too", who=who)


def mark_shown(c: Connection, number: int, who: str, now_s: float) -> bool:
    """Store when an incident first reached a screen. Return whether this was the first time."""
    incident = _one(c, number)
    if incident.shown_at is not None:
        return False
    _write(c, msgspec.structs.replace(incident, shown_at=now_s))
    write_log(c, number, now_s, "shown", who=who)
    return True


def overdue(c: Connection, now_s: float) -> list[Incident]:
    """Return the incidents that nobody acknowledged in time and that are not marked yet."""
    new = (t.incident.c.state == "new") & (t.incident.c.stored_at < now_s - incidents.OVERDUE_S)
    found = map(_incident, c.execute(select(t.incident.c.body).where(new)).scalars())
    return [incident for incident in found if not incident.overdue and incidents.is_overdue(incident, now_s)]


def mark_overdue(store: Store, c: Connection, now_s: float) -> list[int]:
    """Mark the incidents that nobody acknowledged in time. Return their numbers."""
    late = overdue(c, now_s)
    for incident in late:
        _write(c, msgspec.structs.replace(incident, overdue=True))
        write_log(c, incident.number, now_s, "overdue", detail=f"not acknowledged for {incidents.OVERDUE_S:.0f} s")
    store.count(c, {"incidents.overdue": len(late)}, owner="duty")
    return [incident.number for incident in late]


def waiting(c: Connection, now_s: float) -> list[AlarmProgress]:
    """Return the alarms whose lamp has not shown their stage, the newest stage first, at most NOTICES_MAX."""
    rows = c.execute(
        select(t.alarm)
        .where(t.alarm.c.waits & (t.alarm.c.stage_at > now_s - incidents.NOTICE_MAX_S))
        .order_by(t.alarm.c.stage_at.desc())
        .limit(NOTICES_MAX)
    )
    return [_alarm(row) for row in rows.mappings()]


def alarms_of(c: Connection, number: int) -> list[AlarmProgress]:
    """Return the alarms of an incident."""
    return [_alarm(row) for row in c.execute(select(t.alarm).where(t.alarm.c.incident == number)).mappings()]


def alarms_of_gateway(c: Connection, gateway: str, now_s: float) -> list[AlarmProgress]:
    """Return the alarms to report to a gateway that comes online: open ones, and those that wait for their lamp."""
    rows = c.execute(
        select(t.alarm)
        .where((t.alarm.c.gateway == gateway) & (t.alarm.c.stage_at > now_s - incidents.NOTICE_MAX_S))
        .where((t.alarm.c.open & (func.coalesce(t.alarm.c.told, "") != "closed")) | t.alarm.c.waits)
        .order_by(t.alarm.c.stage_at.desc())
        .limit(NOTICES_MAX)
    )
    return [_alarm(row) for row in rows.mappings()]


def views(
    c: Connection, *, open_only: bool = False, numbers: Sequence[int] = (), limit: int = 100
) -> list[dict[str, Any]]:
    """Return incidents in the form of the HTTP interface, in the order of `view_order`."""
    query = select(t.incident.c.number, t.incident.c.version, t.incident.c.body)
    if numbers:
        query = query.where(t.incident.c.number.in_(numbers))
    if open_only:
        query = query.where(t.incident.c.state != "closed")
    query = query.order_by(
        t.incident.c.state == "closed", t.incident.c.kind == "danger", t.incident.c.number.desc()
    ).limit(limit)
    found = {row.number: _view(_incident(row.body), row.version) for row in c.execute(query)}
    alarms = t.alarm.join(
        t.told, (t.told.c.alarm == t.alarm.c.alarm) & (t.told.c.gateway == t.alarm.c.gateway), isouter=True
    )
    lamps = select(t.alarm, t.told.c.reader, t.told.c.stage.label("told_stage"), t.told.c.told_at, t.told.c.stored_at)
    by_name: dict[tuple[str, str], dict[str, Any]] = {}
    for row in c.execute(lamps.select_from(alarms).where(t.alarm.c.incident.in_(found))).mappings():
        name = (row["gateway"], row["alarm"])
        if name not in by_name:
            by_name[name] = {key: row[key] for key in ("alarm", "gateway", "revision", "stage", "stage_at")} | {
                "told": []
            }
            found[row["incident"]]["alarms"].append(by_name[name])
        if row["reader"] is not None:
            by_name[name]["told"].append(
                {
                    "reader": row["reader"],
                    "stage": row["told_stage"],
                    "told_at": row["told_at"],
                    "stored_at": row["stored_at"],
                }
            )
    log = select(t.incident_log).where(t.incident_log.c.incident.in_(found)).order_by(t.incident_log.c.id)
    for row in c.execute(log).mappings():
        found[row["incident"]]["log"].append({key: row[key] for key in ("at", "word", "who", "detail")})
    return list(found.values())


def view_order(view: dict[str, Any]) -> tuple[bool, bool, int]:
    """Open ones first, among them calls before danger notices: no number of notices pushes a call off the page. Then
    the newest first."""
    return view["state"] == "closed", view["kind"] == "danger", -int(view["number"])


def write_log(c: Connection, number: int, now_s: float, word: str, *, who: str = SYSTEM, detail: str = "") -> None:
    """Add a line to an incident's log. A person's action is always logged; the system's repeats only up to LOG_MAX."""
    if who == SYSTEM and word in ("heard_again", "revised", "joined"):
        lines = c.execute(select(func.count()).where(t.incident_log.c.incident == number)).scalar_one()
        if lines > LOG_MAX:
            return
        if lines == LOG_MAX:
            word, detail = "log_full", f"over {LOG_MAX} lines: later words of the tag are stored, but not listed here"
    c.execute(t.incident_log.insert().values(incident=number, at=now_s, word=word, who=who[:64], detail=detail[:400]))


def _advance(c: Connection, before: Incident, after: Incident, now_s: float) -> None:
    if after is before:
        return
    _write(c, after)
    stage: Stage = incidents.STAGE_OF[after.state]
    for alarm in alarms_of(c, after.number):
        waits = incidents.has_lamp(alarm.kind) and incidents.rank(alarm.told) < incidents.rank(stage)
        c.execute(
            update(t.alarm)
            .where((t.alarm.c.gateway == alarm.gateway) & (t.alarm.c.alarm == alarm.alarm))
            .values(stage=stage, stage_at=now_s, waits=waits, open=after.state != "closed")
        )


def _one(c: Connection, number: int) -> Incident:
    body = c.execute(select(t.incident.c.body).where(t.incident.c.number == number)).scalar_one_or_none()
    if body is None:
        raise KeyError(number)
    return _incident(body)


def _open_of(c: Connection, kind: str, subject: str) -> list[Incident]:
    rows = c.execute(
        select(t.incident.c.body)
        .where((t.incident.c.kind == kind) & (t.incident.c.subject == subject) & (t.incident.c.state != "closed"))
        .order_by(t.incident.c.number.desc())
        .limit(OPEN_MAX)
    )
    return [_incident(body) for body in rows.scalars()]


def _write(c: Connection, incident: Incident) -> int:
    if incident.number:
        c.execute(
            update(t.incident)
            .where(t.incident.c.number == incident.number)
            .values(
                state=incident.state,
                subject=incident.subject,
                version=t.incident.c.version + 1,
                body=dumps(incident),
            )
        )
        return incident.number
    values = {
        "state": incident.state,
        "kind": incident.kind,
        "gateway": incident.gateway,
        "subject": incident.subject,
        "stored_at": incident.stored_at,
        "version": 0,
        "body": "",
    }
    key = c.execute(t.incident.insert().values(**values)).inserted_primary_key
    number = int(key[0]) if key else 0
    return _write(c, msgspec.structs.replace(incident, number=number))


def _furthest(c: Connection, gateway: str, alarm: str) -> Stage | None:
    stages = c.execute(select(t.told.c.stage).where((t.told.c.gateway == gateway) & (t.told.c.alarm == alarm)))
    return max(stages.scalars().all(), key=incidents.rank, default=None)


def _incident(body: str) -> Incident:
    return msgspec.json.decode(body, type=Incident)


def _alarm(row: RowMapping) -> AlarmProgress:
    names = AlarmProgress.__struct_fields__
    return msgspec.convert({name: row[name] for name in names}, AlarmProgress)


def _view(incident: Incident, version: int) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(incident)
    return view | {"version": version, "alarms": [], "log": []}
