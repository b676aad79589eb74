"""A reader with older settings gets its own; no other reader is sent any. A gate reader listens and reports more."""

from typing import Any

import msgspec
import pytest

from gateway.core import pipeline
from gateway.core.reader_settings import GATE_FRAMES_PER_MIN, GATE_SCAN_MS, frames_per_min, scan_ms
from gateway.effects import Downlink
from gateway.zone import FRAMES_A_S, Reader, ReaderSettings, Zone
from readers import wire
from tests.gateway.core.bed import KEYS, MACS, TAGS, UTC_S, Pole, zone


def sent(version_here: int, version_there: int, *, reader: int = 4, **own: Any) -> list[tuple[int, ...]]:
    """Return the SETTINGS that the gateway sends after a heartbeat of a reader. own: what reader 4 has of its own."""
    made = zone()
    readers = tuple(msgspec.structs.replace(r, **own) if r.number == 4 else r for r in made.readers)
    settings = ReaderSettings(version=version_here, window_ms=3000)
    wanted = msgspec.structs.replace(made, readers=readers, settings=settings)
    state = pipeline.State.new(wanted, KEYS, TAGS, gateway="gw1", epoch="e1", now_s=0.0)
    pipeline.set_clock(state, UTC_S, 0.0, "good")
    values = [0] * len(wire.HEARTBEAT_FIELDS)
    values[wire.HEARTBEAT_FIELDS.index("settings_version")] = version_there
    frame = Pole(reader).frame(wire.HEARTBEAT, wire.encode_heartbeat(values))
    downlinks = [effect for effect in pipeline.on_frame(state, frame, 1.0) if isinstance(effect, Downlink)]
    assert {downlink.reader for downlink in downlinks} <= {reader}
    assert not [e for e in pipeline.on_frame(state, frame, 1.1) if isinstance(e, Downlink)], "a repeated heartbeat"
    return [
        wire.decode_settings(wire.body_of(downlink.payload, MACS[reader]))
        for downlink in downlinks
        if wire.peek(downlink.payload)[0] == wire.SETTINGS
    ]


def site(gates: int, others: int, **settings: Any) -> Zone:
    readers = [Reader(n, f"{n:016x}", 0.0, 0.0, gate="g" if n <= gates else None) for n in range(1, gates + others + 1)]
    return Zone(tuple(readers), settings=ReaderSettings(**settings))


def rates(made: Zone) -> dict[int, int]:
    return frames_per_min(made, [reader.number for reader in made.readers])


def test_older_settings_are_answered_with_the_zones() -> None:
    assert sent(2, 1) == [(2, 3000, 20, 5, 60, 60, 0xFFFF)]
    assert sent(1, 65535), "a version wraps as the reader's does"


@pytest.mark.parametrize("there", [2, 3])
def test_settings_that_are_not_older_are_left_alone(there: int) -> None:
    assert sent(2, there) == []


def test_a_readers_own_settings_are_for_it_alone_and_come_with_the_zones_version() -> None:
    own = {"scan_interval_ms": 12, "scan_window_ms": 6, "frames_per_min": 90}
    assert sent(2, 1, **own) == [(2, 3000, 12, 6, 60, 90, 0xFFFF)]
    assert sent(2, 1, reader=3, **own) == [(2, 3000, 20, 5, 60, 60, 0xFFFF)]
    assert sent(2, 2, **own) == [], "without a new version nothing is sent"
    assert sent(2, 1, scan_interval_ms=10) == [(2, 3000, 10, 5, 60, 60, 0xFFFF)], "what it does not have is the zone's"


def test_a_gate_reader_listens_and_reports_more_unless_it_says_otherwise() -> None:
    assert sent(2, 1, gate="main") == [(2, 3000, *GATE_SCAN_MS, 60, GATE_FRAMES_PER_MIN, 0xFFFF)]
    assert sent(2, 1, gate="main", scan_interval_ms=40) == [(2, 3000, 40, 5, 60, GATE_FRAMES_PER_MIN, 0xFFFF)]
    assert sent(2, 1, gate="main", frames_per_min=30)[0][5] == 30
    assert sent(2, 1, reader=3, gate="main")[0][2:4] == (20, 5)


@pytest.mark.parametrize(("interval_ms", "window_ms"), [(20, 15), (40, 20), (255, 255)])
def test_a_zone_that_listens_longer_than_a_gate_keeps_its_own_duty_there(interval_ms: int, window_ms: int) -> None:
    made = site(1, 1, scan_interval_ms=interval_ms, scan_window_ms=window_ms)
    assert {scan_ms(made.settings, reader) for reader in made.readers} == {(interval_ms, window_ms)}


def test_a_hundred_readers_stay_within_thirty_frames_a_second() -> None:
    assert set(rates(site(0, 8)).values()) == {60}
    for readers in (30, 50, 100, 300):
        assert sum(rates(site(0, readers)).values()) / 60 <= 30
    assert set(rates(site(0, 100, frames_per_min=90)).values()) == {90}


@pytest.mark.parametrize(("gates", "others"), [(4, 8), (4, 30), (12, 40), (40, 60), (60, 0), (4, 200)])
def test_gate_readers_take_at_most_two_thirds_and_the_others_share_the_rest(gates: int, others: int) -> None:
    found = rates(site(gates, others))
    of_gates, of_others = (list(found.values())[:gates], list(found.values())[gates:])
    assert sum(of_gates) <= FRAMES_A_S * 60 * 2 / 3
    assert all(6 <= rate <= GATE_FRAMES_PER_MIN for rate in of_gates)
    assert all(6 <= rate <= 60 for rate in of_others)
    if 6 not in of_others:
        assert sum(found.values()) <= FRAMES_A_S * 60
    assert min(of_gates) >= max(of_others, default=0), "a gate has more to report"


def test_an_own_rate_is_taken_off_what_the_others_share() -> None:
    made = site(0, 40)
    readers = (msgspec.structs.replace(made.readers[0], frames_per_min=600), *made.readers[1:])
    found = rates(msgspec.structs.replace(made, readers=readers))
    assert found[1] == 600
    assert found[2] == (1800 - 600) // 39


def test_a_reader_with_a_key_that_is_not_in_the_zone_has_the_zones_settings() -> None:
    assert frames_per_min(site(0, 1), [1, 77]) == {1: 60, 77: 60}


def test_settings_a_reader_would_refuse_are_refused_here() -> None:
    with pytest.raises(ValueError, match="over scan_interval_ms"):
        ReaderSettings(scan_interval_ms=20, scan_window_ms=30)
    with pytest.raises(msgspec.ValidationError, match="500"):
        msgspec.convert({"window_ms": 100}, ReaderSettings)
