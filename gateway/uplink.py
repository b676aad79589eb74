"""Events <-> bytes on each lane: the contract between a gateway and its city, with its topics.

    ansim/v2/{site}/gw/{gateway}/status   gateway -> city   retained, last will; JSON `Status`
    ansim/v2/{site}/gw/{gateway}/sos      gateway -> city   emergency lane: JSON `Urgent`, one event a message, QoS 1
    ansim/v2/{site}/gw/{gateway}/events   gateway -> city   routine lane: MessagePack `Batch` of rows, QoS 1
    ansim/v2/{site}/gw/{gateway}/ack      city -> gateway   JSON `Watermark`, `StageNotice` or `Ask`, QoS 1, repeated

The broker is a postman. Every message is sealed with a key that this gateway and the city share (`seal`, `unseal`):

    body  n bytes | number of the key  1 byte | HMAC-SHA256(key, topic | 0x00 | number | body), its first 16 bytes

An event's name is (gateway, epoch, lane, seq); it needs no clock. seq counts from 1 within an epoch and a lane. A
gateway whose store was lost or set aside starts a new epoch. `after` is the seq of the row before this one in the
gateway's outbox at the time of sending (0: none). So a row that the gateway dropped under pressure leaves no gap, but a
lost message does. The receiver stores every row it gets (INSERT .. ON CONFLICT DO NOTHING). It moves its watermark to
the last seq of a message only if `after` <= watermark. The gateway deletes rows only up to a `Watermark`, and sends
again from there. An event that cannot be read (`Poison`) is stored as it came and never stops the next one.

A row of the routine lane is the event as an array, [tag, field, field, ...] in the order of the class. Nested structs
are arrays too. It has about a third of the bytes of JSON. Its types are made from the classes in `gateway.events`, so
the two always agree.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from gateway.events import EMERGENCY_TYPES, ROUTINE_TYPES, Emergency, Routine, Stage

PROTOCOL = 2
ROOT = "ansim/v2"
Lane = Literal["sos", "events"]
LANES: tuple[Lane, ...] = ("sos", "events")
BATCH_MAX = 100
"""Most rows in one message of the routine lane. The cost per event hardly falls above 50-100 rows."""
MESSAGE_MAX_B = 256 * 1024
"""A longer message is refused without decoding. Our own messages are far shorter."""
POISON_MAX_B = 4096
KEY_B, MAC_B = 32, 16
TRAILER_B = 1 + MAC_B
KEYS_MAX = 4
"""Most keys in a file: the one in use, the next one, and two that a box may still have."""
KEY_NUMBER_MAX = 255
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


class UplinkError(ValueError):
    """These bytes, or this topic, are not of the contract. The message says what was expected."""


class Forged(UplinkError):
    """A message that no key of ours has sealed. reason: "size", "no_key" (of that number), or "wrong_mac"."""

    def __init__(self, reason: Literal["size", "no_key", "wrong_mac"], text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Poison(msgspec.Struct, frozen=True):
    """An event that could not be read: its bytes, capped, and why. A newer gateway, or a fault."""

    raw: bytes
    reason: str


class Urgent(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the emergency lane."""

    protocol: int = PROTOCOL
    gateway: str
    epoch: str
    seq: int
    after: int
    queued_at: datetime
    """When the gateway committed the event."""
    event: Emergency | Poison


class Row(msgspec.Struct, frozen=True):
    """One event of the bulk lane, lifted."""

    seq: int
    event: Routine | Poison


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the bulk lane, lifted."""

    gateway: str
    epoch: str
    after: int
    sent_at: datetime
    rows: tuple[Row, ...]
    protocol: int = PROTOCOL


class Watermark(msgspec.Struct, frozen=True, kw_only=True, tag_field="ack", tag="watermark"):
    """All rows of this epoch and lane up to and including `upto` are committed in the city's store."""

    epoch: str
    lane: Lane
    upto: int


class StageNotice(msgspec.Struct, frozen=True, kw_only=True, tag_field="ack", tag="stage"):
    """How far an alarm has come in the city. Repeated until a `Told` of that stage arrives; a stage only rises."""

    alarm: str
    stage: Stage
    at: datetime


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="ack", tag="ask"):
    """The city asks for the status, with a word drawn for this. An old status that is sent again lacks the word."""

    word: str


Ack = Watermark | StageNotice | Ask


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Retained state of a gateway; the last will is the same with online false.

    The city believes "online" only with the word of a new `Ask` in `echo`. It believes "offline" at once, and asks.
    """

    online: bool
    gateway: str
    site: str
    at: datetime
    version: str
    epochs: dict[Lane, str] = {}
    backlog: dict[Lane, int] = {}
    clock: Literal["good", "unsure"] = "unsure"
    readers_ok: int = 0
    readers_silent: int = 0
    echo: str = ""


# ---- topics ---------------------------------------------------------------------------------------------------------

TopicKind = Literal["status", "sos", "events", "ack"]
UP_KINDS: tuple[TopicKind, ...] = tuple(kind for kind in get_args(TopicKind) if kind != "ack")
"""What a gateway publishes. Of the rest, a city."""


def topic(site: str, gateway: str, kind: TopicKind) -> str:
    """Return a topic. Raise UplinkError unless site and gateway are 1-32 of A-Z a-z 0-9 _ -, not _ or - first."""
    for what, text in (("site", site), ("gateway", gateway)):
        if not _ID.fullmatch(text):
            raise UplinkError(f"{what} {text!r} must be 1-32 of A-Z a-z 0-9 _ - and begin with a letter or digit")
    return f"{ROOT}/{site}/gw/{gateway}/{kind}"


def topic_filter(kind: TopicKind) -> str:
    """Return the topic filter that matches this kind of topic for every gateway of every site."""
    return f"{ROOT}/+/gw/+/{kind}"


def parse_topic(text: str) -> tuple[str, str, TopicKind]:
    """Return (site, gateway, kind). Raise UplinkError if it is not one of our topics."""
    parts = text.split("/")
    if (
        len(parts) == 6
        and "/".join(parts[:2]) == ROOT
        and parts[3] == "gw"
        and parts[5] in get_args(TopicKind)
        and _ID.fullmatch(parts[2])
        and _ID.fullmatch(parts[4])
    ):
        return parts[2], parts[4], cast(TopicKind, parts[5])
    raise UplinkError(f"topic {text[:100]!r} is not {ROOT}/SITE/gw/GATEWAY/({'|'.join(get_args(TopicKind))})")


# ---- seals ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CityKey:
    """A key that a gateway and the city share. number: 1..255; secret: 32 bytes."""

    number: int
    secret: bytes = field(repr=False)


CityKeys = tuple[CityKey, ...]
"""The keys of one file, the newest first."""


def seal(keys: CityKeys, topic: str, body: bytes) -> bytes:
    """Return body with its trailer, made with the first key. Raise UplinkError if there is no key."""
    if not keys:
        raise UplinkError(f"no key for {topic}; enrol the gateway: ansim-city gateway enrol")
    number = bytes([keys[0].number])
    return b"".join((body, number, _mac(keys[0], topic, number, body)))


def unseal(keys: CityKeys, topic: str, data: bytes) -> bytes:
    """Return the body of a message that one of these keys has sealed for this topic. Raise Forged."""
    if not TRAILER_B <= len(data) <= MESSAGE_MAX_B + TRAILER_B:
        raise Forged("size", f"{len(data)} bytes; a sealed message has {TRAILER_B} to {MESSAGE_MAX_B + TRAILER_B}")
    body, number, mac = data[:-TRAILER_B], data[-TRAILER_B:-MAC_B], data[-MAC_B:]
    key = next((key for key in keys if key.number == number[0]), None)
    if key is None:
        held = ", ".join(str(key.number) for key in keys) or "none"
        raise Forged("no_key", f"sealed with key {number[0]}, this side has {held}")
    if not hmac.compare_digest(_mac(key, topic, number, body), mac):
        raise Forged("wrong_mac", f"the MAC is not of key {number[0]} and this topic")
    return body


def sealed_with(data: bytes) -> int:
    """Return the number of the key in the trailer of a message that `unseal` has accepted."""
    return data[-TRAILER_B]


def parse_keys(text: str) -> CityKeys:
    """Return the keys of a key file: a line `NUMBER HEX` for each, the newest first. Lines with # are comments.

    Raise UplinkError. Its text never quotes the file, because that may be a key.
    """
    keys: list[CityKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = re.fullmatch(r"\s*([1-9][0-9]{0,2})\s+([0-9a-fA-F]{64})\s*", line, re.ASCII)
        if found is None or int(found[1]) > KEY_NUMBER_MAX:
            raise UplinkError(f"line {number} is not a key number (1-{KEY_NUMBER_MAX}) and {2 * KEY_B} hex digits")
        key = CityKey(int(found[1]), bytes.fromhex(found[2]))
        if any(key.number == other.number or key.secret == other.secret for other in keys):
            raise UplinkError(f"line {number} has the number or the key of another line")
        keys.append(key)
    if not 0 < len(keys) <= KEYS_MAX:
        raise UplinkError(f"{len(keys)} keys; a key file has 1 to {KEYS_MAX}")
    return tuple(keys)


def format_keys(keys: CityKeys) -> str:
    """Return the text of a key file, as `parse_keys` reads it."""
    return "".join(f"{key.number} {key.secret.hex()}\n" for key in keys)


def with_new_key(keys: CityKeys, secret: bytes) -> CityKeys:
    """Return keys with a new one in front, and at most KEYS_MAX of them. secret: 32 bytes, drawn by the caller."""
    if len(secret) != KEY_B:
        raise UplinkError(f"a key has {KEY_B} bytes, got {len(secret)}")
    number = keys[0].number % KEY_NUMBER_MAX + 1 if keys else 1
    while any(number == key.number for key in keys):
        number = number % KEY_NUMBER_MAX + 1
    return (CityKey(number, secret), *keys)[:KEYS_MAX]


def _mac(key: CityKey, topic: str, number: bytes, body: bytes) -> bytes:
    return hmac.digest(key.secret, b"".join((topic.encode(), b"\0", number, body)), "sha256")[:MAC_B]


# ---- lanes ----------------------------------------------------------------------------------------------------------


def encode_urgent(message: Urgent) -> bytes:
    """Return the bytes of one message of the emergency lane."""
    return _json.encode(message)


def decode_urgent(data: bytes) -> Urgent:
    """Return one message of the emergency lane. Its event is `Poison` if only the envelope can be read.

    Raise UplinkError if the envelope cannot be read either.
    """
    wire = _decode(_urgent, data)
    _speaks(wire.protocol)
    event: Emergency | Poison
    try:
        event = _emergency.decode(wire.event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        event = _own_poison(wire.event) or Poison(bytes(wire.event)[:POISON_MAX_B], str(error)[:200])
    return Urgent(
        gateway=wire.gateway, epoch=wire.epoch, seq=wire.seq, after=wire.after, queued_at=wire.queued_at, event=event
    )


def encode_row(event: Routine) -> bytes:
    """Return one routine event as MessagePack. The outbox stores these bytes and `encode_batch` joins them."""
    return _msgpack.encode(_lower(event))


def encode_batch(
    *, gateway: str, epoch: str, after: int, sent_at: datetime, rows: Sequence[tuple[int, bytes]]
) -> bytes:
    """Return the bytes of one routine message. rows: (seq, bytes of `encode_row`), 1..BATCH_MAX, seq rising."""
    if not 0 < len(rows) <= BATCH_MAX:
        raise UplinkError(f"a batch has 1..{BATCH_MAX} rows, got {len(rows)}")
    return _msgpack.encode([PROTOCOL, gateway, epoch, after, sent_at, [[seq, msgspec.Raw(row)] for seq, row in rows]])


def decode_batch(data: bytes) -> Batch:
    """Return one message of the routine lane. A row that cannot be read has a `Poison` event.

    Raise UplinkError if the envelope cannot be read.
    """
    wire = _decode(_batch, data)
    _speaks(wire.protocol)
    rows = tuple(Row(seq, _event(raw)) for seq, raw in wire.rows)
    return Batch(gateway=wire.gateway, epoch=wire.epoch, after=wire.after, sent_at=wire.sent_at, rows=rows)


def encode_ack(ack: Ack) -> bytes:
    """Return the bytes of one message of the ack topic."""
    return _json.encode(ack)


def decode_ack(data: bytes) -> Ack:
    """Return one message of the ack topic. Raise UplinkError if it cannot be read."""
    ack: Ack = _decode(_ack, data)
    return ack


def encode_status(status: Status) -> bytes:
    """Return the bytes of the retained status message."""
    return _json.encode(status)


def decode_status(data: bytes) -> Status:
    """Return the retained status message. Raise UplinkError if it cannot be read."""
    status: Status = _decode(_status, data)
    return status


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every message, made from the types."""
    types: list[type[msgspec.Struct]] = [*EMERGENCY_TYPES, *ROUTINE_TYPES, Watermark, StageNotice, Ask, Status]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ansim, gateway <-> city",
        "messages": dict(zip([t.__name__ for t in types], schemas, strict=True)),
        "$defs": components,
    }


def _speaks(protocol: int) -> None:
    if protocol != PROTOCOL:
        raise UplinkError(f"protocol {protocol}, this side speaks {PROTOCOL}")


def _own_poison(raw: msgspec.Raw) -> Poison | None:
    """Return what the gateway itself says of a row that it could not read; None if this is no such thing."""
    try:
        poison = _poison.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Poison(poison.raw[:POISON_MAX_B], poison.reason[:200])


def _event(raw: msgspec.Raw) -> Routine | Poison:
    try:
        event: Routine = _lift(_row.decode(raw))
        return event
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Poison(bytes(raw)[:POISON_MAX_B], str(error)[:200])


def _decode(decoder: Any, data: bytes) -> Any:
    if len(data) > MESSAGE_MAX_B:
        raise UplinkError(f"message of {len(data)} bytes, at most {MESSAGE_MAX_B}")
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UplinkError(f"not of the contract: {error}") from None


# A twin of each event class, encoded as an array, with its nested structs: msgspec then decodes and checks in one step.
_twins: dict[type, type[msgspec.Struct]] = {}
_originals: dict[type, type[msgspec.Struct]] = {}


def _twin(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
    if cls not in _twins:
        hints = get_type_hints(cls)
        config = cls.__struct_config__
        fields = [(name, _twin_type(hints[name])) for name in cls.__struct_fields__]
        tag = config.tag if cls in ROUTINE_TYPES else None
        made = msgspec.defstruct(cls.__name__, fields, array_like=True, frozen=True, tag=tag)
        _twins[cls], _originals[made] = made, cls
    return _twins[cls]


def _twin_type(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _twin(hint)
    if get_origin(hint) in (None, Literal, dict):
        return hint
    arguments = tuple(a if a is Ellipsis else _twin_type(a) for a in get_args(hint))
    origin: Any = get_origin(hint)
    return origin[arguments] if origin is tuple else Union[arguments]  # noqa: UP007


def _lower(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        cells = [_lower(getattr(value, name)) for name in value.__struct_fields__]
        return (
            [value.__struct_config__.tag, *cells] if type(value) in _twins and type(value) in ROUTINE_TYPES else cells
        )
    if isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
        return [_lower(item) for item in value]
    return value


def _lift(value: Any) -> Any:
    if type(value) in _originals:
        original = _originals[type(value)]
        return original(**{name: _lift(getattr(value, name)) for name in value.__struct_fields__})
    if isinstance(value, tuple) and value and type(value[0]) in _originals:
        return tuple(_lift(item) for item in value)
    return value


_row_types: Any = Union[tuple(_twin(cls) for cls in ROUTINE_TYPES)]  # noqa: UP007
_batch_type = msgspec.defstruct(
    "BatchWire",
    [
        ("protocol", int),
        ("gateway", str),
        ("epoch", str),
        ("after", int),
        ("sent_at", datetime),
        ("rows", list[tuple[int, msgspec.Raw]]),
    ],
    array_like=True,
)
_urgent_type = msgspec.defstruct(
    "UrgentWire",
    [
        ("protocol", int),
        ("gateway", str),
        ("epoch", str),
        ("seq", int),
        ("after", int),
        ("queued_at", datetime),
        ("event", msgspec.Raw),
    ],
)
_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_urgent = msgspec.json.Decoder(_urgent_type)
_emergency: msgspec.json.Decoder[Emergency] = msgspec.json.Decoder(Emergency)
_poison = msgspec.json.Decoder(Poison)
_ack: msgspec.json.Decoder[Ack] = msgspec.json.Decoder(Ack)
_status: msgspec.json.Decoder[Status] = msgspec.json.Decoder(Status)
_row: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_row_types)
_batch = msgspec.msgpack.Decoder(_batch_type)
