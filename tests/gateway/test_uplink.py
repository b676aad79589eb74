"""The contract with the city: events there and back, arbitrary bytes, one bad row, topics."""

import json
from datetime import UTC, datetime
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.events import EMERGENCY_TYPES, ROUTINE_TYPES, Arrival, Emergency, Heard, Point, Routine, Told, Where
from gateway.uplink import (
    BATCH_MAX,
    LANES,
    MESSAGE_MAX_B,
    POISON_MAX_B,
    Batch,
    Poison,
    Row,
    StageNotice,
    Status,
    UplinkError,
    Urgent,
    Watermark,
    decode_ack,
    decode_batch,
    decode_status,
    decode_urgent,
    encode_ack,
    encode_batch,
    encode_row,
    encode_status,
    encode_urgent,
    parse_topic,
    topic,
    topic_filter,
)

NOW = datetime(2027, 1, 15, 8, 1, 40, 123000, tzinfo=UTC)

dates = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    datetime: dates,
    float: st.floats(-1e9, 1e9, allow_nan=False),
    int: st.integers(-(2**53), 2**53),
    str: st.text(max_size=30),
    type(None): st.none(),
}


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a type that a field of an event may have, so that a new event is tried without a word here."""
    arguments = get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return st.builds(hint, **{name: anything(of) for name, of in fields(hint).items()})
    if get_origin(hint) is Literal:
        return st.sampled_from(arguments)
    if get_origin(hint) is dict:
        return st.dictionaries(anything(arguments[0]), anything(arguments[1]), max_size=5)
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return st.lists(anything(arguments[0]), max_size=8).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*map(anything, arguments))
    return st.one_of(*map(anything, arguments)) if arguments else SIMPLE[hint]


def fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the fields of an event, or of what it holds, with their types."""
    hints = get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__}


emergencies: st.SearchStrategy[Emergency] = st.one_of(*map(anything, EMERGENCY_TYPES))
routines: st.SearchStrategy[Routine] = st.one_of(*map(anything, ROUTINE_TYPES))


def urgent(event: Emergency) -> Urgent:
    return Urgent(gateway="gw1", epoch="e1", seq=7, after=5, queued_at=NOW, event=event)


def told() -> Told:
    return Told(observed_at=NOW, clock="good", alarm="gw1-e1-1", reader=4, stage="received")


def arrival() -> Arrival:
    where = Where(
        geometry=Point((126.95, 37.54)), radius_50_m=9.0, accuracy_95_m=25.0, evidence=(Heard(2, -70, 3, 0.5),)
    )
    return Arrival(observed_at=NOW, clock="good", tag="tag-003", place="school", where=where)


@given(emergencies)
@settings(max_examples=200, deadline=None)
def test_every_emergency_arrives_as_it_was(event: Emergency) -> None:
    assert decode_urgent(encode_urgent(urgent(event))) == urgent(event)


@given(st.lists(routines, min_size=1, max_size=10))
@settings(max_examples=200, deadline=None)
def test_every_routine_event_arrives_as_it_was(found: list[Routine]) -> None:
    rows = [(n, encode_row(event)) for n, event in enumerate(found, start=3)]
    batch = decode_batch(encode_batch(gateway="gw1", epoch="e1", after=1, sent_at=NOW, rows=rows))
    assert batch == Batch(
        gateway="gw1", epoch="e1", after=1, sent_at=NOW, rows=tuple(Row(n, e) for n, e in enumerate(found, start=3))
    )


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_random_bytes_raise_nothing_but_uplink_error(data: bytes) -> None:
    for decode in (decode_urgent, decode_batch, decode_ack, decode_status):
        try:
            decode(data)
        except UplinkError:
            pass


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_message_is_refused_or_its_damage_is_held(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [
                encode_urgent(urgent(told())),
                encode_batch(gateway="g", epoch="e", after=0, sent_at=NOW, rows=[(1, encode_row(arrival()))] * 3),
            ]
        )
    )
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.integers(1, len(broken))) :]
    for decode in (decode_urgent, decode_batch):
        try:
            decode(bytes(broken))
        except UplinkError:
            pass


def test_a_row_that_cannot_be_read_leaves_the_others() -> None:
    newer = msgspec.msgpack.encode(["forecast", NOW, "good", 1])
    rows = [(1, encode_row(arrival())), (2, newer), (3, b"\xa3bad"), (4, encode_row(arrival()))]
    batch = decode_batch(encode_batch(gateway="gw1", epoch="e1", after=0, sent_at=NOW, rows=rows))
    assert [row.seq for row in batch.rows] == [1, 2, 3, 4]
    assert batch.rows[0].event == batch.rows[3].event == arrival()
    for row, raw in ((batch.rows[1], newer), (batch.rows[2], b"\xa3bad")):
        assert isinstance(row.event, Poison)
        assert row.event.raw == raw
        assert row.event.reason


def test_an_urgent_event_that_cannot_be_read_keeps_its_envelope() -> None:
    message = json.loads(encode_urgent(urgent(told())))
    message["event"] = {"event": "earthquake", "note": "x" * 10_000}
    read = decode_urgent(json.dumps(message).encode())
    assert (read.seq, read.after, read.epoch) == (7, 5, "e1")
    assert isinstance(read.event, Poison)
    assert len(read.event.raw) == POISON_MAX_B


@pytest.mark.parametrize("missing", ["gateway", "epoch", "seq", "after", "queued_at", "event", "protocol"])
def test_an_envelope_lacks_nothing(missing: str) -> None:
    message = json.loads(encode_urgent(urgent(told())))
    del message[missing]
    with pytest.raises(UplinkError):
        decode_urgent(json.dumps(message).encode())


def test_another_protocol_and_a_huge_message_are_refused() -> None:
    message = json.loads(encode_urgent(urgent(told())))
    message["protocol"] = 3
    with pytest.raises(UplinkError, match="protocol 3"):
        decode_urgent(json.dumps(message).encode())
    with pytest.raises(UplinkError, match="at most"):
        decode_urgent(b" " * (MESSAGE_MAX_B + 1))


@pytest.mark.parametrize("rows", [0, BATCH_MAX + 1])
def test_a_batch_has_its_size(rows: int) -> None:
    with pytest.raises(UplinkError):
        encode_batch(gateway="g", epoch="e", after=0, sent_at=NOW, rows=[(1, encode_row(arrival()))] * rows)


def test_a_bulk_row_is_much_smaller_than_its_json() -> None:
    assert len(encode_row(arrival())) < 0.5 * len(msgspec.json.encode(arrival()))


@pytest.mark.parametrize(
    "ack",
    [
        *(Watermark(epoch="e1", lane=lane, upto=9) for lane in LANES),
        StageNotice(alarm="a-1", stage="acknowledged", at=NOW),
    ],
    ids=str,
)
def test_acks_make_the_trip(ack: Watermark | StageNotice) -> None:
    assert decode_ack(encode_ack(ack)) == ack


def test_a_status_makes_the_trip() -> None:
    status = Status(
        online=True, gateway="gw1", site="gongdeok", at=NOW, version="0.1.0", epochs={"sos": "a", "events": "b"},
        backlog={"sos": 0, "events": 12}, clock="good", readers_ok=8, readers_silent=1,
    )  # fmt: skip
    assert decode_status(encode_status(status)) == status


@pytest.mark.parametrize("kind", ["status", "sos", "events", "ack"])
def test_topics_make_the_trip(kind: Any) -> None:
    text = topic("gongdeok", "gw-1", kind)
    assert parse_topic(text) == ("gongdeok", "gw-1", kind)
    mask = topic_filter(kind).split("/")
    assert all(m in ("+", t) for m, t in zip(mask, text.split("/"), strict=True))


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "한강", "-a", "x" * 33, "a b", "a\n"])
def test_a_topic_has_plain_names(bad: str) -> None:
    with pytest.raises(UplinkError):
        topic(bad, "gw1", "sos")
    with pytest.raises(UplinkError):
        topic("site", bad, "sos")


@given(st.text(max_size=80))
def test_any_topic_is_parsed_or_refused(text: str) -> None:
    try:
        site, gateway, kind = parse_topic(text)
    except UplinkError:
        return
    assert topic(site, gateway, kind) == text


@pytest.mark.parametrize(
    "text",
    ["ansim/v2/s/gw/g/cmd", "ansim/v1/s/gw/g/sos", "ansim/v2/s/gw/g", "ansim/v2/s/gw/g/sos/x", "/ansim/v2/s/gw/g/sos"],
)
def test_foreign_topics_are_refused(text: str) -> None:
    with pytest.raises(UplinkError):
        parse_topic(text)
