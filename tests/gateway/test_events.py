"""The events: what the published schema states about them, and what they can never carry."""

import json
from datetime import datetime
from typing import get_args

import msgspec
import pytest

from gateway import events
from gateway.events import EMERGENCY_TYPES, ROUTINE_TYPES, STAGES, Stage, Told, is_emergency
from gateway.uplink import schema
from readers import wire
from tests.gateway.core.bed import UTC_S

ALL = [*EMERGENCY_TYPES, *ROUTINE_TYPES]


def test_every_event_is_on_one_lane_under_a_tag_of_its_own() -> None:
    defined = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events._Event)}
    assert set(ALL) == defined - {events._Event}, "an event that is in no union is never sent"
    assert not set(EMERGENCY_TYPES) & set(ROUTINE_TYPES)
    tags = [kind.__struct_config__.tag for kind in ALL]
    assert len(set(tags)) == len(tags)


def test_stages_are_the_wires_in_the_wires_order() -> None:
    assert get_args(Stage) == STAGES
    numbers = [wire.RECEIVED, wire.STORED, wire.ACKNOWLEDGED, wire.DISPATCHED, wire.CLOSED]
    assert [STAGES.index(stage) + 1 for stage in STAGES] == numbers


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_event_is_frozen_dated_and_says_how_good_its_clock_is(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
    assert {"observed_at", "clock"} <= set(kind.__struct_fields__)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_event_has_a_place_for_a_name(kind: type[msgspec.Struct]) -> None:
    assert not {"name", "child", "phone", "address", "guardian"} & set(kind.__struct_fields__)


def test_an_event_knows_its_lane() -> None:
    when = msgspec.json.decode(json.dumps("2027-01-15T08:01:40Z"), type=datetime)
    assert when.timestamp() == UTC_S
    assert is_emergency(Told(observed_at=when, clock="good", alarm="a", reader=1, stage="received"))
    assert not is_emergency(events.ReaderHealth(observed_at=when, clock="good", reader=1, state="silent", counters={}))


def test_the_schema_names_every_message_and_is_json() -> None:
    published = json.loads(json.dumps(schema()))
    assert {kind.__name__ for kind in ALL} <= set(published["messages"])
    assert {"Watermark", "StageNotice", "Status"} <= set(published["messages"])
    sos = published["$defs"]["Sos"]
    assert {"alarm", "revision", "tag", "trust", "where", "observed_at", "event"} <= set(sos["required"])
    assert sos["properties"]["event"] == {"enum": ["sos"]}
