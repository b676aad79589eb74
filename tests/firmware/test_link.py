"""What a reader accepts from the mesh, and what it refuses."""

import hashlib
import hmac
import itertools
from collections.abc import Callable

from readers import wire
from sim.reader.switches import Switches

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
NUMBER = 7
KEY = bytes(range(100, 116))


def mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


def test_the_receive_queue_holds_four_and_loses_the_rest(street: Make) -> None:
    s = street()
    s.start()
    s.run(3)
    taken = [s.downlink(wire.STAGE, wire.encode_stage([(1, 1)])) for _ in range(6)]
    assert taken == [True] * Switches().receive_queue + [False] * 2
    assert s.reader.receive_drops == 2
    s.run(0.1)
    assert s.downlink(wire.STAGE, wire.encode_stage([(1, 1)]))


def test_forged_replayed_and_misdirected_downlinks_are_refused_and_counted(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=300)
    s.start()
    s.run(10)
    s.cry(tag, seconds=0.3)
    s.run(1)
    last = s.sent[-1]
    stage = wire.encode_stage([(1, wire.RECEIVED)])
    frame = wire.encode(wire.STAGE, NUMBER, last.boot, last.sequence, stage, mac)
    other = hmac.new(bytes(16), frame[:-6], hashlib.sha256).digest()[:6]
    refused = [
        (frame[:-6] + other, {}),  # another key
        (frame[:-1], {}),
        (frame + b"\0", {}),
        (b"", {}),
        (bytes(80), {}),
        (bytes([frame[0] + 0x10]) + frame[1:], {}),  # another version
        (wire.encode(wire.STAGE, NUMBER + 1, last.boot, last.sequence, stage, mac), {}),  # to another reader
        (wire.encode(wire.STAGE, NUMBER, last.boot + 1, last.sequence, stage, mac), {}),  # of another boot
        (wire.encode(wire.STAGE, NUMBER, last.boot, last.sequence + 99, stage, mac), {}),  # of a sequence not sent yet
        (wire.encode(wire.SOS, NUMBER, last.boot, last.sequence, stage, mac), {}),  # an uplink kind
        (wire.encode(11, NUMBER, last.boot, last.sequence, stage, mac), {}),  # an unknown kind
        (wire.encode(wire.STAGE, NUMBER, last.boot, last.sequence, b"", mac), {}),
        (wire.encode(wire.ACK, NUMBER, last.boot, last.sequence, bytes(3), mac), {}),
        (wire.encode(wire.SETTINGS, NUMBER, last.boot, last.sequence, s.settings(1, window_ms=499), mac), {}),
        (wire.encode(wire.SETTINGS, NUMBER, last.boot, last.sequence, s.settings(1, scan_window_ms=41), mac), {}),
        (wire.encode(wire.SETTINGS, NUMBER, last.boot, last.sequence, s.settings(1, scan_window_ms=2), mac), {}),
        (wire.encode(wire.SETTINGS, NUMBER, last.boot, last.sequence, s.settings(1, heartbeat_s=9), mac), {}),
        (wire.encode(wire.SETTINGS, NUMBER, last.boot, last.sequence, s.settings(1, frames_per_min=601), mac), {}),
        (frame, {"sender_nwk": 0x1234}),  # from another node of the mesh
    ]
    for payload, sender in refused:
        assert s.reader.deliver(s.now_ms, payload, **sender)
        s.run(0.05)
        assert s.lamp() == 0
    s.run(60)
    beat = s.heartbeats()[-1]
    assert beat["refused"] == len(refused)
    assert beat["settings_version"] == 0
    assert s.reader.deliver(s.now_ms, wire.encode(wire.STAGE, NUMBER, last.boot, s.sent[-1].sequence, stage, mac))
    s.run(0.05)
    assert s.lamp() == 1  # the same content, fresh and authentic


def test_a_downlink_more_than_64_frames_old_is_a_replay(street: Make) -> None:
    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(5)
    s.cry(tag, seconds=0.3)
    s.run(0.2)
    sequence = s.sent[-1].sequence
    while s.sent[-1].sequence < sequence + 65:
        s.run(5)
    assert s.sent[-1].sequence == sequence + 65
    s.downlink(wire.STAGE, wire.encode_stage([(1, 1)]), echoed=sequence)
    s.run(0.1)
    assert s.lamp() == 0
    s.downlink(wire.STAGE, wire.encode_stage([(1, 1)]), echoed=s.sent[-1].sequence - 64)
    s.run(0.1)
    assert s.lamp() == 1


def test_settings_are_taken_once_kept_and_reported_soon(street: Make) -> None:
    s = street()
    s.add_tags(1, period_ms=300)
    s.start()
    s.run(10)
    s.downlink(wire.SETTINGS, s.settings(9, scan_interval_ms=100, scan_window_ms=50, heartbeat_s=30))
    s.run(1)
    assert s.heartbeats()[-1]["settings_version"] == 9
    assert s.heartbeats()[-1]["scan_duty_pct"] == 50
    for version in (9, 8, 1, 9 + 0x8000):  # the same, older, older, half the circle ahead
        s.downlink(wire.SETTINGS, s.settings(version, scan_window_ms=10))
        s.run(0.2)
    s.run(35)
    assert s.heartbeats()[-1]["scan_duty_pct"] == 50
    assert s.heartbeats()[-1]["refused"] == 0
    s.reader.kill()
    s.start()
    s.run(5)
    assert s.heartbeats()[-1]["settings_version"] == 9
    assert s.heartbeats()[-1]["scan_duty_pct"] == 50


def test_a_new_company_id_moves_the_reader_to_other_tags(street: Make) -> None:
    from readers.advertisement import payload

    s = street()
    [tag] = s.add_tags(1, period_ms=1e9)
    s.start()
    s.run(3)
    s.downlink(wire.SETTINGS, s.settings(1, company_id=0x02E5))
    s.run(0.2)
    heard = {0xFFFF: 0, 0x02E5: 0}
    for i in range(200):
        company_id = (0xFFFF, 0x02E5)[i % 2]
        heard[company_id] += s.reader.hear(s.now_ms, bytes(6), -50, payload(tag.body(), company_id))
        s.ids[tag.body()[1:9]] = tag
        s.run(0.0371)
    s.run(62)
    beat = s.heartbeats()[-1]
    assert (beat["heard"], beat["foreign"]) == (heard[0x02E5], heard[0xFFFF])
    assert min(heard.values()) > 10


def test_the_heartbeat_repeats_soon_until_it_is_acknowledged(street: Make) -> None:
    s = street(acks=False)
    s.start()
    s.run(70)
    times = [sent.at_ms - 1500 for sent in s.frames(wire.HEARTBEAT)]
    assert [round(t / 1000) for t in times] == [0, 2, 6, 14, 30, 62]
    s.acks = True
    s.run(180)
    late = [sent.at_ms for sent in s.frames(wire.HEARTBEAT, since_ms=100000)]
    assert all(59000 <= b - a <= 61000 for a, b in itertools.pairwise(late))


def test_every_field_of_the_heartbeat_is_true(street: Make) -> None:
    s = street()
    s.add_tags(12)
    s.reader.supply_mv, s.reader.temperature_c = 3011, -17
    s.start(cause=11)
    s.run(122)
    beat = s.heartbeats()[-1]
    assert abs(beat["uptime_s"] - (s.frames(wire.HEARTBEAT)[-1].at_ms - 1500) / 1000) <= 10
    assert beat["reset_cause"] == 11
    assert beat["tags"] == 12
    assert (beat["supply_mv"], beat["temperature_c"], beat["scan_duty_pct"]) == (3011, -17, 25)
    assert beat["heap_free"] + beat["heap_used"] <= Switches().heap_b
    assert beat["faults"] == 0
    assert beat["heap_free"] > 3000
    assert s.reader.heartbeat == beat


NEARLY = """import xbee
receive = xbee.receive
def late():
    import link
    if not link.sequence:
        link.sequence = 0xFFFFFF - 80
    return receive()
xbee.receive = late
"""


def test_sequences_rise_by_one_and_the_reader_reboots_rather_than_wrap(street: Make) -> None:
    s = street(config=NEARLY)
    s.add_tags(3, period_ms=200)
    s.start()
    s.run(60)
    assert s.reader.boots >= 3
    for boot in range(1, s.reader.boots):
        sequences = [sent.sequence for sent in s.sent if sent.boot == boot]
        assert sequences == list(range(wire.SEQUENCE_MAX - 79, wire.SEQUENCE_MAX - 63))
    assert set(s.reader.causes[1:]) == {3}
    assert s.log == []


def test_ticks_that_wrap_change_nothing(street: Make) -> None:
    s = street(ticks_at_boot_ms=2**30 - 20000, auto_stage=wire.RECEIVED)
    [tag, *_] = s.add_tags(5, period_ms=400)
    s.start()
    s.at(19000, lambda: s.cry(tag, seconds=5))
    s.run(90)
    assert len(s.seen(since_ms=40000)) == 5
    assert s.wrong == []
    assert {number for _, number, *_ in s.sos()} == {1}
    assert s.sos()[-1][2] == wire.RECEIVED
    ages = [(at_ms, age_ms) for at_ms, _, _, age_ms, *_ in s.sos()]
    assert all(abs((b - a) - (y - x)) <= 10 for (a, x), (b, y) in itertools.pairwise(ages))
    assert s.heartbeats()[-1]["uptime_s"] in range(50, 70)
    assert s.reader.boots == 1
