"""Turns each message of a lane into committed rows. One transaction holds a message and its watermark.

A row is named by (gateway, epoch, lane, seq) and is inserted once, even if it comes twice, late or out of order. The
watermark moves only if the message's `after` is not beyond it. An event that cannot be read is kept in quarantine and
leaves a tombstone in its place, and the watermark passes it. An unreadable emergency also opens an incident, because a
child may have sent it. An emergency under a name that another one has is no duplicate: its box lost what it had sent,
and counts again from an older number. It is kept in quarantine and opens its incident too.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from city import incident_store
from city import tables as t
from city.store import Store, StoreAway, dumps, is_transient
from gateway.events import (
    ROUTINE_TYPES,
    Arrival,
    Bell,
    Danger,
    Departure,
    Emergency,
    Event,
    GatewayHealth,
    ReaderHealth,
    Sos,
    Told,
)
from gateway.uplink import BATCH_MAX, POISON_MAX_B, Batch, Lane, Poison, Row, Status, Urgent

QUARANTINE_MAX = 10_000
EPOCH_MAX = 64
NAME_MAX = 128
"""Most characters in the id of a tag, bell, area, place or alarm (a gateway, an epoch and a number)."""
SEQ_MAX = 2**63 - 1
PASSAGES = (Arrival, Departure)
LATEST = tuple(kind for kind in ROUTINE_TYPES if kind not in PASSAGES)
"""Events of which a page shows the newest one of each subject. Of passages it shows all."""


class MessageRefused(ValueError):
    """A message that is not accepted: a wrong topic or gateway, or impossible content. Counted under `reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a message that was committed."""

    gateway: str
    epoch: str
    lane: Lane
    upto: int
    new: int
    duplicates: int
    gap: bool
    incidents: tuple[int, ...] = ()
    changed: tuple[dict[str, Any], ...] = ()
    """Views for the pages: the rows of `latest` that changed, arrivals and departures."""
    reused: bool = False
    """Whether this emergency came under the number of another one."""


def check_envelope(topic_gateway: str, message: Urgent | Batch) -> None:
    """Raise MessageRefused if the message does not fit the gateway of its topic, or has impossible numbers."""
    if message.gateway != topic_gateway:
        raise MessageRefused("wrong_gateway", f"topic of {topic_gateway}, message of {message.gateway[:32]!r}")
    if not 0 < len(message.epoch) <= EPOCH_MAX or not message.epoch.isprintable():
        raise MessageRefused("bad_epoch", f"an epoch is 1-{EPOCH_MAX} printable characters")
    seqs = [message.seq] if isinstance(message, Urgent) else [row.seq for row in message.rows]
    rising = all(a < b for a, b in zip([message.after, *seqs], seqs, strict=False))
    if len(seqs) > BATCH_MAX:
        raise MessageRefused("bad_batch", f"{len(seqs)} rows in a message, at most {BATCH_MAX}")
    if not seqs or not 0 <= message.after <= SEQ_MAX or not rising or seqs[-1] > SEQ_MAX:
        raise MessageRefused("bad_seq", f"after {message.after}, seq {seqs[:3]}: must rise, within 63 bits")


def store_urgent(store: Store, topic: str, message: Urgent, now_s: float) -> Stored:
    """Commit one emergency, its incident and its watermark. Raises SQLAlchemyError if the store cannot write."""
    event = _checked(message.event)
    try:
        return _store_urgent(store, topic, message, event, now_s)
    except SQLAlchemyError as error:
        if is_transient(error):
            raise
        return _store_urgent(store, topic, message, _unstorable(event, error), now_s)


def _store_urgent(store: Store, topic: str, message: Urgent, event: Event | Poison, now_s: float) -> Stored:
    queued_at = _unix_or_none(message.queued_at)
    with store.write(urgent=True) as c:
        row = _row(message.gateway, message.epoch, "sos", message.seq, event, now_s, queued_at)
        new = store.insert_new(c, t.event, [row])
        reused = not new and _is_another(store, c, topic, message, event, now_s)
        touched: list[int | None] = []
        if not new and not reused:
            pass
        elif isinstance(event, Poison):
            if new:
                _quarantine(store, c, topic, message.gateway, "sos", event, now_s, epoch=message.epoch, seq=message.seq)
            detail = f"seq {message.seq}: {event.reason}"
            touched.append(
                incident_store.take_unreadable(
                    store, c, gateway=message.gateway, detail=detail, queued_at=queued_at, now_s=now_s
                )
            )
        elif isinstance(event, Told):
            touched.append(incident_store.take_told(store, c, event, gateway=message.gateway, now_s=now_s))
        elif isinstance(event, Sos | Bell | Danger):
            touched.append(
                incident_store.take(
                    store, c, event, gateway=message.gateway, queued_at=queued_at, now_s=now_s, another=reused
                )
            )
        if new or reused:
            name = f"stored.{row['type']}" if new else "seq_reused"
            store.count(c, {name: 1}, owner=f"sos/{message.gateway}")
        duplicates = 1 - new - reused
        upto, gap = _move(store, c, message, "sos", message.seq, new=new, duplicates=duplicates, now_s=now_s)
    return Stored(
        gateway=message.gateway,
        epoch=message.epoch,
        lane="sos",
        upto=upto,
        new=new,
        duplicates=duplicates,
        gap=gap,
        incidents=tuple(n for n in touched if n is not None),
        reused=reused,
    )


def _is_another(store: Store, c: Connection, topic: str, message: Urgent, event: Event | Poison, now_s: float) -> bool:
    """Return whether the stored row of this name is another emergency, and this one has not been taken yet. Keep it."""
    e = t.event.c
    named = (e.gateway == message.gateway) & (e.epoch == message.epoch) & (e.lane == "sos") & (e.seq == message.seq)
    held = c.execute(select(e.type, e.body).where(named)).one()
    raw = raw_of(event)
    if held.type != "poison":
        if not isinstance(event, Poison) and (
            held.body == dumps(event) or msgspec.json.decode(held.body, type=Emergency) == event
        ):
            return False
    else:
        digest = _digest(topic, message.epoch, message.seq)
        first = c.execute(select(t.quarantine.c.raw).where(t.quarantine.c.digest == digest)).scalar_one_or_none()
        if first is None or bytes(first) == raw:  # nothing is left of the first one: a repetition is likelier
            return False
    why = f"another emergency has its number (epoch {message.epoch}, seq {message.seq}): an old outbox was put back"
    poison = Poison(raw, why)
    return _quarantine(
        store, c, topic, message.gateway, "sos", poison, now_s, epoch=message.epoch, seq=message.seq, another=True
    )


def raw_of(event: Event | Poison) -> bytes:
    """Return what tells this event from another one under the same name."""
    return (event.raw if isinstance(event, Poison) else msgspec.json.encode(event))[:POISON_MAX_B]


def store_batch(store: Store, topic: str, message: Batch, now_s: float) -> Stored:
    """Commit one routine message and its watermark. Raises SQLAlchemyError if the store cannot write."""
    if store.low:
        raise StoreAway(store.problem)
    store.turn.give_way()
    rows = [Row(row.seq, _checked(row.event)) for row in message.rows]  # type: ignore[arg-type]
    try:
        return _store_batch(store, topic, message, rows, now_s)
    except SQLAlchemyError as error:
        if is_transient(error):
            raise
    return _store_batch(store, topic, message, _with_poison(store, message, rows, now_s), now_s)


def _store_batch(store: Store, topic: str, message: Batch, rows: list[Row], now_s: float) -> Stored:
    """Do as much as possible before the write turn is taken, because an emergency may wait for that turn."""
    upto, there = _already(store, message, rows)
    fresh = [
        row for row in rows if row.seq > upto and row.seq not in there
    ]  # up to the watermark: stored once, maybe pruned since
    made = [_row(message.gateway, message.epoch, "events", row.seq, row.event, now_s, None) for row in fresh]
    store.turn.give_way()
    newest = _not_older(store, _newest(message.gateway, fresh, now_s))
    counts = Counter(f"stored.{row['type']}" for row in made)
    store.turn.give_way()
    with store.write() as c:
        new = store.insert_new(c, t.event, made) if made else 0
        for row in fresh:
            if isinstance(row.event, Poison):
                _quarantine(
                    store, c, topic, message.gateway, "events", row.event, now_s, epoch=message.epoch, seq=row.seq
                )
        store.count(c, counts, owner=f"events/{message.gateway}")
        store.upsert(c, t.latest, newest, newer="as_of")
        upto, gap = _move(store, c, message, "events", rows[-1].seq, new=new, duplicates=len(rows) - new, now_s=now_s)
    store.turn.give_way()
    passages = [passage_view(row.event, message.gateway, now_s) for row in fresh if isinstance(row.event, PASSAGES)]
    return Stored(
        gateway=message.gateway,
        epoch=message.epoch,
        lane="events",
        upto=upto,
        new=new,
        duplicates=len(rows) - new,
        gap=gap,
        changed=(*map(latest_view, newest), *passages),
    )


def _already(store: Store, message: Batch, rows: list[Row]) -> tuple[int, set[int]]:
    """Return the watermark, and which of these rows are stored. It stays true until the write: only one thread moves
    this watermark."""
    e = t.event.c
    mine = (e.gateway == message.gateway) & (e.epoch == message.epoch) & (e.lane == "events")
    with store.read() as c:
        upto = _upto(c, message.gateway, message.epoch, "events")
        found = c.execute(select(e.seq).where(mine & e.seq.between(rows[0].seq, rows[-1].seq)))
        return upto, set(found.scalars())


def store_status(store: Store, status: Status, now_s: float) -> None:
    """Store a gateway's newest status."""
    with store.write(urgent=True) as c:
        store.upsert(
            c,
            t.gateway,
            [{"gateway": status.gateway, "online": status.online, "heard_at": now_s, "body": dumps(status)}],
        )


def store_unreadable(
    store: Store, topic: str, gateway: str, lane: Lane, raw: bytes, reason: str, now_s: float
) -> int | None:
    """Quarantine a message whose envelope could not be read. Return the incident, if it is a new one of lane sos.

    No watermark can pass it, because it has no number. The gateway sends it again, and it is counted again.
    """
    with store.write(urgent=lane == "sos") as c:
        first = _quarantine(store, c, topic, gateway, lane, Poison(raw[:POISON_MAX_B], reason), now_s)
        if lane != "sos" or not first:
            return None
        return incident_store.take_unreadable(store, c, gateway=gateway, detail=reason, queued_at=None, now_s=now_s)


def count(store: Store, name: str, lane: Lane) -> None:
    """Add 1 to a lane's counter of refused messages. Their gateways' names may be invented: they are not counted by."""
    with store.write() as c:
        store.count(c, {name: 1}, owner=lane)


# ---- rows -----------------------------------------------------------------------------------------------------------


def _checked(event: Event | Poison) -> Event | Poison:
    """Return the event, or Poison if its values do not fit a table or a page."""
    if isinstance(event, Poison):
        return event
    where = getattr(event, "where", None)
    reason = None
    if where is not None:
        lon, lat = where.geometry.coordinates
        radii = (where.radius_50_m, where.accuracy_95_m)
        if not (-180 <= lon <= 180 and -90 <= lat <= 90 and all(math.isfinite(r) and r >= 0 for r in radii)):
            if isinstance(event, Sos | Bell | Danger):  # an emergency without a place is still one
                event = msgspec.structs.replace(event, where=None)
            else:
                reason = "where: outside the earth, or a radius that is none"
    for name in ("alarm", "tag", "bell", "area", "place", "route", "what"):
        value = getattr(event, name, None)
        if isinstance(value, str) and not (0 < len(value) <= NAME_MAX and value.isprintable()):
            reason = f"{name}: must be 1-{NAME_MAX} printable characters"
    numbers = [getattr(event, name, 0) for name in ("revision", "reader", "press", "presses", "battery_mv")]
    if any(not 0 <= n < 2**31 for n in [*numbers, *getattr(event, "readers", ())]):
        reason = "a number outside 0..2147483647"
    if not math.isfinite(getattr(event, "probability", 0.0)):
        reason = "probability: not a number"
    if _unix_or_none(event.observed_at) is None:
        reason = "observed_at: outside the calendar"
    if reason is not None:
        return Poison(msgspec.json.encode(event)[:POISON_MAX_B], reason)
    if event.observed_at.tzinfo is None:
        return msgspec.structs.replace(event, observed_at=event.observed_at.replace(tzinfo=UTC))
    return event


def _unstorable(event: Event | Poison, error: Exception) -> Poison:
    raw = event.raw if isinstance(event, Poison) else msgspec.json.encode(event)
    return Poison(raw[:POISON_MAX_B], f"the store refused it: {type(error).__name__}: {str(error)[:120]}")


def _with_poison(store: Store, message: Batch, rows: list[Row], now_s: float) -> list[Row]:
    """Try each row alone and roll it back. Put Poison in the place of a row that the database refuses."""
    sieved = []
    for row in rows:
        try:
            with store.write() as c:
                made = _row(message.gateway, message.epoch, "events", row.seq, row.event, now_s, None)
                store.insert_new(c, t.event, [made])
                c.rollback()
        except SQLAlchemyError as error:
            if is_transient(error):
                raise
            sieved.append(Row(row.seq, _unstorable(row.event, error)))
        else:
            sieved.append(row)
    return sieved


def _row(
    gateway: str, epoch: str, lane: Lane, seq: int, event: Event | Poison, now_s: float, queued_at: float | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "gateway": gateway,
        "epoch": epoch,
        "lane": lane,
        "seq": seq,
        "stored_at": now_s,
        "queued_at": queued_at,
    }
    if isinstance(event, Poison):
        return row | {"type": "poison", "subject": "", "observed_at": now_s, "body": dumps({"reason": event.reason})}
    return row | {
        "type": event.__struct_config__.tag,
        "subject": _subject(event),
        "observed_at": min(_unix(event.observed_at), now_s),
        "body": dumps(event),
    }


def _subject(event: Event) -> str:
    match event:
        case Bell():
            return event.bell
        case Told():
            return event.alarm
        case ReaderHealth():
            return str(event.reader)
        case GatewayHealth():
            return event.what
        case _:
            return event.tag


def _unix(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _unix_or_none(moment: datetime) -> float | None:
    try:
        return _unix(moment)
    except (OverflowError, ValueError):
        return None


# ---- what the pages show --------------------------------------------------------------------------------------------


def _newest(gateway: str, rows: Iterable[Row], now_s: float) -> list[dict[str, Any]]:
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        event = row.event
        if isinstance(event, Poison) or not isinstance(event, LATEST):
            continue
        kind = str(event.__struct_config__.tag)
        subject = _subject(event)
        if isinstance(event, GatewayHealth | ReaderHealth):  # each gateway has its own reader 1
            subject = f"{gateway}/{subject}"
        as_of = min(_unix(event.observed_at), now_s)
        if (kind, subject) not in newest or newest[kind, subject]["as_of"] <= as_of:
            newest[kind, subject] = {
                "kind": kind,
                "subject": subject,
                "gateway": gateway,
                "as_of": as_of,
                "stored_at": now_s,
                "body": dumps(event),
            }
    return [newest[key] for key in sorted(newest)]  # all writers use one order: no deadlock on a database server


def _not_older(store: Store, newest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are at least as new as the stored ones. An old row from a backlog changes no page."""
    if not newest:
        return []
    subjects = {row["subject"] for row in newest}
    with store.read() as c:
        held = c.execute(
            select(t.latest.c.kind, t.latest.c.subject, t.latest.c.as_of).where(t.latest.c.subject.in_(subjects))
        )
        as_of = {(row.kind, row.subject): row.as_of for row in held}
    return [row for row in newest if row["as_of"] >= as_of.get((row["kind"], row["subject"]), row["as_of"])]


def latest_view(row: Any) -> dict[str, Any]:
    """Return a row of `latest` in the form of the HTTP interface."""
    body = msgspec.json.decode(row["body"])
    return {
        "kind": row["kind"],
        "subject": row["subject"],
        "gateway": row["gateway"],
        "as_of": row["as_of"],
        "stored_at": row["stored_at"],
        **{key: value for key, value in body.items() if key not in ("event", "observed_at")},
    }


def passage_view(event: Arrival | Departure, gateway: str, stored_at: float) -> dict[str, Any]:
    """Return an arrival or a departure in the form of the HTTP interface."""
    return {
        "kind": event.__struct_config__.tag,
        "subject": event.tag,
        "gateway": gateway,
        "as_of": min(_unix(event.observed_at), stored_at),
        "stored_at": stored_at,
        "place": event.place,
        "where": msgspec.to_builtins(event.where),
        "clock": event.clock,
    }


def passage_of(row: Any) -> dict[str, Any]:
    """Return a stored arrival or departure in the form of the HTTP interface."""
    event = msgspec.json.decode(row["body"], type=Arrival | Departure)
    return passage_view(event, row["gateway"], row["stored_at"])


def status_of(row: Any) -> Status:
    """Return the status in a row of `gateway`."""
    return msgspec.json.decode(row["body"], type=Status)


# ---- watermark and quarantine ---------------------------------------------------------------------------------------


def _upto(c: Connection, gateway: str, epoch: str, lane: Lane) -> int:
    w = t.watermark.c
    found = c.execute(select(w.upto).where((w.gateway == gateway) & (w.epoch == epoch) & (w.lane == lane)))
    return int(found.scalar_one_or_none() or 0)


def _move(
    store: Store,
    c: Connection,
    message: Urgent | Batch,
    lane: Lane,
    last: int,
    *,
    new: int,
    duplicates: int,
    now_s: float,
) -> tuple[int, bool]:
    upto = _upto(c, message.gateway, message.epoch, lane)
    gap = message.after > upto
    if not gap:
        upto = max(upto, last)
    mark = {"gateway": message.gateway, "epoch": message.epoch, "lane": lane, "upto": upto, "heard_at": now_s}
    mark |= {"rows": new, "duplicates": duplicates, "gaps": int(gap)}
    store.add(c, t.watermark, [mark], sums=("rows", "duplicates", "gaps"), sets=("upto", "heard_at"))
    return upto, gap


def _digest(topic: str, epoch: str | None, seq: int | None, raw: bytes = b"") -> str:
    return hashlib.sha256(f"{topic}\0{epoch}\0{seq}\0".encode() + raw).hexdigest()


def _quarantine(
    store: Store,
    c: Connection,
    topic: str,
    gateway: str,
    lane: Lane,
    poison: Poison,
    now_s: float,
    *,
    epoch: str | None = None,
    seq: int | None = None,
    another: bool = False,
) -> bool:
    """Keep the bytes once. Return whether they are new. Over QUARANTINE_MAX rows new bytes are only counted.

    another: this number has another row; so its bytes are a part of its name.
    """
    digest = _digest(topic, epoch, seq, poison.raw if seq is None or another else b"")
    owner = f"{lane}/{gateway}"
    store.count(c, {"quarantine.seen": 1}, owner=owner)
    held = c.execute(select(t.quarantine.c.times).where(t.quarantine.c.digest == digest)).scalar_one_or_none()
    if held is None and c.execute(select(func.count()).select_from(t.quarantine)).scalar_one() >= QUARANTINE_MAX:
        store.count(c, {"quarantine.dropped": 1}, owner=owner)
        return True
    rest = {
        "topic": topic[:200],
        "gateway": gateway,
        "epoch": epoch,
        "seq": seq,
        "reason": poison.reason[:400].replace("\0", "?"),
    }
    statement = store.insert(t.quarantine).values(
        digest=digest, raw=poison.raw[:POISON_MAX_B], first_at=now_s, last_at=now_s, times=1, **rest
    )
    c.execute(
        statement.on_conflict_do_update(
            index_elements=["digest"], set_={"times": t.quarantine.c.times + 1, "last_at": now_s}
        )
    )
    return held is None
