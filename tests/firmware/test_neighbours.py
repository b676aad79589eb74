"""Readers hear each other: a reader's own beacon on the air, its reports of other readers, and what has priority."""

import hashlib
import hmac
import itertools
import random
from collections.abc import Callable

from readers import advertisement, wire

Make = Callable[..., "Street"]  # noqa: F821  - conftest.Street
NUMBER, KEY = 7, bytes(range(100, 116))


def mac(data: bytes) -> bytes:
    return hmac.new(KEY, data, hashlib.sha256).digest()


def other_mac(data: bytes) -> bytes:
    return hmac.new(b"another reader's key", data, hashlib.sha256).digest()


def bursts_of(s: "Street") -> list[tuple[float, float, bytes]]:  # noqa: F821
    """Return a list that gets (from ms, until ms, payload) of every burst that ends."""
    found: list[tuple[float, float, bytes]] = []
    now: list[tuple[float, int, bytes] | None] = [None]

    def on_advertise(reader: object, now_ms: float) -> None:
        if now[0] is not None:
            found.append((now[0][0], now_ms, now[0][2]))
        now[0] = s.reader.advertising

    s.reader.on_advertise = on_advertise
    return found


def beacon(s: "Street", body: bytes, rssi_dbm: int, packets: int) -> None:  # noqa: F821
    """Let this many packets of another reader be heard, each within a scan window."""
    heard = 0
    while heard < packets:
        heard += s.reader.hear(s.now_ms, bytes(6), rssi_dbm, advertisement.payload(body))
        s.run(0.007)


def rows(s: "Street", since_ms: float = 0) -> list[tuple[int, int, int, int, bytes, int | None, int]]:  # noqa: F821
    sent = s.frames(wire.NEIGHBOURS, since_ms=since_ms)
    return [row for frame in sent for row in wire.decode_neighbours(frame.body)]


def test_a_reader_beacons_soon_after_boot_then_seldom_and_every_burst_is_proven(street: Make) -> None:
    s = street()
    bursts = bursts_of(s)
    s.start()
    s.run(1800)
    print(f"{len(bursts)} bursts in half an hour, the first after {bursts[0][0] / 1000:.0f} s")
    assert 12_000 < bursts[0][0] < 25_000
    assert all(1980 <= until - since <= 2060 for since, until, _ in bursts)
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(bursts)]
    assert [round(gap / 1000) for gap in gaps[:3]] == sorted(round(gap / 1000) for gap in gaps[:3])
    assert all(0.79 * 240_000 <= gap <= 1.21 * 240_000 for gap in gaps[4:])
    assert len({round(gap / 100) for gap in gaps[4:]}) > 2  # jittered
    for n, (_, _, payload) in enumerate(bursts, 1):
        assert payload == advertisement.payload(advertisement.build_beacon(mac, NUMBER, 1, n, power_dbm=-30))
    assert s.reader.advertising is None or s.reader.advertising[1] == 100_000
    assert s.log == []


def test_the_modules_own_product_name_is_off_the_air_from_the_first_pass(street: Make) -> None:
    s = street()
    s.reader._advertise((0.0, 100_000, b"\x02\x01\x06"))  # as a module with BT=1 does before its firmware runs
    s.start()
    s.run(2)
    assert s.reader.advertising is None


def test_another_readers_burst_is_one_row_and_no_tag(street: Make) -> None:
    s = street()
    s.start()
    s.run(4)
    body = advertisement.build_beacon(other_mac, 8, 2, 513)
    beacon(s, body, -61, 3)
    beacon(s, body, -65, 1)
    s.run(80)
    assert rows(s) == [(8, 2, 513, -30, body[-4:], -62, 4)]
    beat = s.heartbeats()[-1]
    assert (beat["tags"], beat["evictions"]) == (0, 0)
    s.run(80)
    assert len(rows(s)) == 1  # reported once
    assert s.heartbeats()[-1]["heard"] == 4
    assert s.frames(wire.BINDINGS, wire.SIGHTINGS) == []


def test_only_packets_that_are_the_same_to_the_byte_are_averaged(street: Make) -> None:
    """A forger who sends between two true packets only achieves that their row starts again."""
    s = street()
    s.start()
    s.run(4)
    body = advertisement.build_beacon(other_mac, 8, 2, 513)
    beacon(s, body, -60, 2)
    beacon(s, body[:-1] + bytes([body[-1] ^ 1]), -20, 2)
    beacon(s, body, -60, 2)
    s.run(80)
    assert rows(s) == [(8, 2, 513, -30, body[-4:], -60, 2)]


def test_neighbours_take_neither_rows_nor_budget_from_tags(street: Make) -> None:
    s = street(seed=3)
    s.add_tags(300)
    for n in range(30):
        s.at(20_000 + n * 500, lambda n=n: s.reader.hear(
            s.now_ms, bytes(6), -70, advertisement.payload(advertisement.build_beacon(other_mac, 100 + n % 20, 1, n))
        ))  # fmt: skip
    s.start()
    s.run(120)
    per_min = [len([f for f in s.sent if m * 60000 <= f.at_ms < m * 60000 + 60000]) for m in range(2)]
    assert per_min[1] <= 63
    assert rows(s, since_ms=30_000) == []  # tags have the whole budget and leave none over
    assert s.heartbeats()[-1]["tags"] == 128
    assert s.heartbeats()[-1]["heap_free"] > 2000
    assert s.wrong == []
    assert s.log == []


def test_sixteen_neighbours_cost_about_two_frames_a_minute(street: Make) -> None:
    s = street(seed=4)
    dice = random.Random(4)
    s.add_tags(20)
    count = [0] * 16

    def burst(n: int) -> None:
        count[n] += 1
        body = advertisement.payload(advertisement.build_beacon(other_mac, 20 + n, 1, count[n]))
        for k in range(20):
            s.at(s.now_ms + k * 104, lambda: s.reader.hear(s.now_ms, bytes(6), -70 - n, body))
        s.at(s.now_ms + 240_000 * (0.8 + 0.4 * dice.random()), lambda: burst(n))

    for n in range(16):
        s.at(30_000 + 240_000 * dice.random(), lambda n=n: burst(n))
    s.start()
    s.run(1230)
    told = {(row[0], row[2]) for row in rows(s)}
    frames = s.frames(wire.NEIGHBOURS)
    share = sum(len(f.frame) for f in frames) / sum(len(f.frame) for f in s.sent)
    print(f"{sum(count)} bursts, {len(told)} told in {len(frames)} frames in 20 min, {share:.1%} of all bytes")
    assert len(told) > 0.8 * sum(count)
    assert len(frames) <= 20 * 2.5
    assert all(row[5] == -70 - (row[0] - 20) for row in rows(s))
    assert s.wrong == []


def test_a_cry_is_never_delayed_by_a_beacon_or_by_neighbours(street: Make) -> None:
    """The times of a cry's frames without and with waiting rows of neighbours. A burst is under way in both cases."""
    waited = []
    for near in (False, True):
        s = street(seed=6)
        bursts = bursts_of(s)
        [tag] = s.add_tags(1, period_ms=300)
        s.start()
        while s.reader.advertising is None:
            s.run(0.02)
        if near:
            for n in range(4):
                beacon(s, advertisement.build_beacon(other_mac, 20 + n, 1, 1), -70, 1)
        s.run(0.1)
        tag.flags, tag.press = wire.FLAG_SOS, 1
        while not s.advertise(tag):
            s.run(0.007)
        heard_ms = s.now_ms
        s.run(3)
        first = s.sos()[0][0]
        waited.append(first - heard_ms)
        assert bursts[-1][1] - bursts[-1][0] < 2000  # the burst gave way
        s.run(60)
        assert s.reader.advertising is None  # and no burst begins while the alarm is open
    print(f"SOS sent {waited[0]:.0f} ms after it was heard, {waited[1]:.0f} ms with four neighbours' rows waiting")
    assert max(waited) <= 20 + 8  # one pass, and one frame that may be on the air


def test_a_bluetooth_that_refuses_to_advertise_stops_nothing(street: Make) -> None:
    refuse = "from digi import ble\ndef no(*_):\n    raise OSError(7019)\nble.gap_advertise = no\n"
    s = street(config=refuse)
    s.add_tags(3)
    s.start()
    s.run(60)
    assert s.reader.boots == 1
    assert len(s.seen(since_ms=20_000)) == 3
    assert s.log == []


def test_the_stand_in_refuses_what_the_module_refuses(street: Make) -> None:
    s = street()
    s.start()
    s.run(3)
    ask = s.reader._gap_advertise
    assert [ask(us, b"\x02\x01\x06") for us in (19_999, 20_000, 40_959_375, 40_959_376)] == [
        "ValueError",
        "works",
        "works",
        "ValueError",
    ]
    assert [ask(100_000, bytes(size)) for size in (31, 32)] == ["works", "ValueError"]
    ask(100_300, b"\x02\x01\x06")
    assert s.reader.advertising is not None
    assert s.reader.advertising[1:] == (100_000, b"\x02\x01\x06")  # rounded down to a multiple of 625 us
    ask(0, None)
    assert s.reader.advertising is None
    ask(100_000, None)  # the same payload again
    assert s.reader.advertising[2] == b"\x02\x01\x06"
    ask(100_000, b"")
    assert b"XBee3 Zigbee" in s.reader.advertising[2]
