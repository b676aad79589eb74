"""Which ZCL frames say alarm, and what the alarms of unknown buttons become: one a device and minute, bounded."""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from gateway.core import buttons, pipeline
from gateway.core.alarms import Alarms
from gateway.core.buttons import DEVICES_MAX, IAS_ACE, IAS_WD, IAS_ZONE, SAME_S, ButtonFrame, Buttons, default_response
from gateway.core.sightings import WallClock
from gateway.effects import Commit, Effect
from gateway.events import Sos, is_emergency
from readers import wire
from tests.gateway.core.bed import KEYS, TAGS, zone

NOTIFY, STATUS_1 = b"\x09\x07\x00", b"\x01\x00\x00\x05\x00\x00"


def frame(device: str = "1a2b", sequence: int = 1, reader: int | None = None) -> ButtonFrame:
    return ButtonFrame(device, reader, IAS_ZONE, bytes((0x09, sequence, 0x00)) + STATUS_1)


class Desk:
    """The alarms of a gateway, and every emergency that was committed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        wall = WallClock(0.0)
        wall.set(datetime(2026, 11, 23, 9, 0, tzinfo=UTC).timestamp(), 0.0, "good")
        self.alarms = Alarms("gw1", "e1", wall, self.counts)
        self.buttons = Buttons(self.alarms, wall, self.counts)
        self.told: list[Sos] = []

    def press(self, frame: ButtonFrame, now_s: float) -> list[Sos]:
        """Carry out an alarm as the shell does; return what was committed for it."""
        before = len(self.told)
        for effect in self.buttons.alarm(frame, now_s):
            assert isinstance(effect, Commit)
            assert isinstance(effect.event, Sos)
            assert effect.memory is not None
            assert is_emergency(effect.event)
            self.told.append(effect.event)
        return self.told[before:]


@pytest.mark.parametrize(
    ("what", "cluster_id", "payload"),
    [
        ("zone status, alarm 1", IAS_ZONE, NOTIFY + STATUS_1),
        ("zone status, alarm 2 and a low battery", IAS_ZONE, NOTIFY + b"\x0a\x00\x00\x05\x00\x00"),
        ("an old device's short notification", IAS_ZONE, NOTIFY + b"\x01\x00\x00"),
        ("without default response", IAS_ZONE, b"\x19\x07\x00" + STATUS_1),
        ("a maker's variant", IAS_ZONE, b"\x0d\x5f\x11\x07\x00" + STATUS_1),
        ("a report of the status", IAS_ZONE, b"\x18\x07\x0a\x02\x00\x19\x01\x00"),
        ("a report with others before it", IAS_ZONE,
         b"\x18\x07\x0a\x00\x00\x30\x01" b"\x01\x00\x31\x2c\x00" b"\x05\x00\x42\x02ab" b"\x10\x00\xf0" + bytes(8)
         + b"\x02\x00\x19\x02\x00"),
        ("emergency", IAS_ACE, b"\x01\x07\x02"),
        ("fire", IAS_ACE, b"\x01\x07\x03"),
        ("panic", IAS_ACE, b"\x11\x07\x04"),
        ("a panel's zone in alarm", IAS_ACE, b"\x09\x07\x03\x05\x01\x00\x01\x00"),
        ("a panel in alarm", IAS_ACE, b"\x09\x07\x04\x07\x00\x01\x06"),
        ("a panel in alarm, asked", IAS_ACE, b"\x09\x07\x05\x07\x00\x01\x06"),
        ("start warning", IAS_WD, b"\x01\x07\x00\x3c\x0a\x00\x00\x00"),
    ],
)  # fmt: skip
def test_what_says_alarm(what: str, cluster_id: int, payload: bytes) -> None:
    assert buttons.read(cluster_id, payload) == "alarm", what


@pytest.mark.parametrize(
    ("what", "cluster_id", "payload"),
    [
        *((f"bit {bit}", IAS_ZONE, NOTIFY + (1 << bit).to_bytes(2, "little") + bytes(4)) for bit in range(2, 16)),
        ("restored", IAS_ZONE, NOTIFY + bytes(6)),
        ("it wants to be enrolled", IAS_ZONE, b"\x09\x07\x01\x2c\x00\x5f\x11"),
        ("our own direction", IAS_ZONE, b"\x01\x07\x00" + STATUS_1),
        ("a report of the battery", IAS_ZONE, b"\x18\x07\x0a\x21\x00\x20\x01"),
        ("a report of the status, restored", IAS_ZONE, b"\x18\x07\x0a\x02\x00\x19\x30\x00"),
        ("a report with a type nobody knows before it", IAS_ZONE, b"\x18\x07\x0a\x09\x00\x4c\x00\x02\x00\x19\x01\x00"),
        ("a default response", IAS_ZONE, b"\x18\x07\x0b\x00\x00"),
        ("a report on another cluster", IAS_ACE, b"\x18\x07\x0a\x02\x00\x19\x01\x00"),
        ("disarm", IAS_ACE, b"\x01\x07\x00\x00\x00\x00"),
        ("how is the panel", IAS_ACE, b"\x01\x07\x07"),
        ("a panel disarmed", IAS_ACE, b"\x09\x07\x04\x00\x00\x00\x00"),
        ("a panel's zone restored", IAS_ACE, b"\x09\x07\x03\x05\x00\x00\x00\x00"),
        ("stop warning", IAS_WD, b"\x01\x07\x00\x0f\x00\x00\x00\x00"),
        ("squawk", IAS_WD, b"\x01\x07\x01\x10"),
        ("a reader's frame", 0x0011, b"\x09\x07\x00" + STATUS_1),
    ],
)  # fmt: skip
def test_what_is_no_alarm(what: str, cluster_id: int, payload: bytes) -> None:
    assert buttons.read(cluster_id, payload) == "quiet", what


def test_no_bytes_raise_and_torn_alarms_are_counted_as_such() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for cluster_id in buttons.CLUSTERS:
        for _ in range(20_000):
            payload = chance.randbytes(chance.randrange(12))
            if buttons.read(cluster_id, payload) == "alarm":
                default_response(payload)
    for cut in range(5):
        assert buttons.read(IAS_ZONE, (NOTIFY + STATUS_1)[:cut]) == "malformed"
    assert buttons.read(IAS_ZONE, b"\x18\x07\x0a\x02\x00\x19\x01") == "malformed"


def test_success_is_said_as_zcl_has_it_and_only_if_it_is_wanted() -> None:
    assert default_response(NOTIFY + STATUS_1) == b"\x10\x07\x0b\x00\x00", "to the server, no answer to the answer"
    assert default_response(b"\x01\x2a\x02") == b"\x18\x2a\x0b\x02\x00", "to the client"
    assert default_response(b"\x0d\x5f\x11\x07\x00") == b"\x14\x5f\x11\x07\x0b\x00\x00"
    assert default_response(b"\x19\x07\x00" + STATUS_1) is None


def test_a_device_that_repeats_within_a_minute_is_one_alarm_and_counts_its_presses() -> None:
    desk = Desk()
    [first] = desk.press(frame(sequence=1), 0.0)
    assert (first.tag, first.trust, first.revision, first.press) == ("unknown button 1a2b", "unverified", 0, 1)
    assert desk.press(frame(sequence=1), 1.0) == [], "the same frame again: it is on disk"
    [second] = desk.press(frame(sequence=2), SAME_S - 0.1)
    assert (second.alarm, second.revision, second.press) == (first.alarm, 1, 2)
    [other] = desk.press(frame(sequence=3), SAME_S)
    assert other.alarm != first.alarm, "a minute later somebody cries anew"
    assert (other.revision, other.press) == (0, 1)


def test_a_press_after_the_alarm_was_closed_is_a_new_one_and_after_it_was_acknowledged_is_not() -> None:
    desk = Desk()
    [first] = desk.press(frame(sequence=1), 0.0)
    alarm = desk.alarms.by_name[first.alarm]
    alarm.stage = wire.ACKNOWLEDGED
    assert [event.alarm for event in desk.press(frame(sequence=2), 5.0)] == [first.alarm]
    alarm.stage = wire.CLOSED
    [other] = desk.press(frame(sequence=3), 6.0)
    assert other.alarm != first.alarm


def test_five_devices_a_minute_have_alarms_of_their_own_and_the_rest_is_counted() -> None:
    desk = Desk()
    for n in range(100):
        desk.press(frame(f"{n:04x}"), n * 0.1)
    assert len({event.alarm for event in desk.told}) == DEVICES_MAX
    assert {event.tag for event in desk.told} == {f"unknown button {n:04x}" for n in range(DEVICES_MAX)}
    assert desk.counts["buttons_merged"] == 95
    assert desk.counts["button_alarms"] == 100
    desk.press(frame("ffff"), 10.0 + SAME_S)
    assert desk.told[-1].tag == "unknown button ffff", "a minute later there is room again"


def test_a_hostile_device_makes_an_incident_a_minute_and_few_events() -> None:
    desk = Desk()
    for n in range(60_000):  # ten minutes, 100 a second
        desk.press(frame(sequence=n % 256), n * 0.01)
    assert len({event.alarm for event in desk.told}) == 10
    assert len(desk.told) == 10 * 13, "the first, and one each time its count doubles"
    assert len(desk.alarms) == 10


def test_an_alarm_that_no_disk_took_is_tried_again_as_the_same_alarm() -> None:
    desk = Desk()
    step = desk.buttons.alarm(frame(), 0.0)
    first = next(step)
    step.close()  # type: ignore[attr-defined]
    [again] = desk.press(frame(), 2.0)
    assert isinstance(first, Commit)
    assert again == first.event


def test_a_button_in_a_readers_place_says_which_reader_was_enrolled_there() -> None:
    desk = Desk()
    [event] = desk.press(frame(reader=7), 0.0)
    assert event.tag == "unknown button 1a2b, enrolled as reader 7"
    assert (event.readers, event.where) == ((), None)


def test_its_memory_comes_back_and_a_stage_of_the_city_reaches_it() -> None:
    desk = Desk()
    [event] = desk.press(frame(), 0.0)
    memories = [desk.alarms.memory(alarm) for alarm in desk.alarms.by_name.values()]
    state = pipeline.State.new(zone(3), KEYS, TAGS, gateway="gw1", epoch="e1", now_s=100.0, memories=memories)
    done: list[Effect] = list(pipeline.on_stage(state, event.alarm, wire.ACKNOWLEDGED, 101.0))
    assert len(done) == 1, "there is no lamp to light"
    assert list(pipeline.on_tick(state, 200.0)) == [] or state.alarms.by_name[event.alarm].stage == wire.ACKNOWLEDGED
    [new] = [e.event for e in pipeline.on_button(state, frame(sequence=2), 201.0) if isinstance(e, Commit)]
    assert isinstance(new, Sos)
    assert new.alarm != event.alarm, "after a restart nobody knows how long ago the other was: rather twice than never"
