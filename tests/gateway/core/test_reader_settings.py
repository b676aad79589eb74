"""A reader with older settings gets those of the zone; no other reader is sent any."""

import msgspec
import pytest

from gateway.core import pipeline
from gateway.core.reader_settings import frames_per_min
from gateway.effects import Downlink
from gateway.zone import ReaderSettings
from readers import wire
from tests.gateway.core.bed import KEYS, MACS, TAGS, UTC_S, Pole, zone


def sent(version_here: int, version_there: int) -> list[tuple[int, ...]]:
    """Return the SETTINGS that the gateway sends after a heartbeat of a reader."""
    wanted = msgspec.structs.replace(zone(), settings=ReaderSettings(version=version_here, window_ms=3000))
    state = pipeline.State.new(wanted, KEYS, TAGS, gateway="gw1", epoch="e1", now_s=0.0)
    pipeline.set_clock(state, UTC_S, 0.0, "good")
    values = [0] * len(wire.HEARTBEAT_FIELDS)
    values[wire.HEARTBEAT_FIELDS.index("settings_version")] = version_there
    frame = Pole(4).frame(wire.HEARTBEAT, wire.encode_heartbeat(values))
    downlinks = [effect for effect in pipeline.on_frame(state, frame, 1.0) if isinstance(effect, Downlink)]
    assert {downlink.reader for downlink in downlinks} <= {4}
    assert not [e for e in pipeline.on_frame(state, frame, 1.1) if isinstance(e, Downlink)], "a repeated heartbeat"
    return [
        wire.decode_settings(wire.body_of(downlink.payload, MACS[4]))
        for downlink in downlinks
        if wire.peek(downlink.payload)[0] == wire.SETTINGS
    ]


def test_older_settings_are_answered_with_the_zones() -> None:
    assert sent(2, 1) == [(2, 3000, 20, 5, 60, 60, 0xFFFF)]
    assert sent(1, 65535), "a version wraps as the reader's does"


@pytest.mark.parametrize("there", [2, 3])
def test_settings_that_are_not_older_are_left_alone(there: int) -> None:
    assert sent(2, there) == []


def test_a_hundred_readers_stay_within_thirty_frames_a_second() -> None:
    assert frames_per_min(ReaderSettings(), 8) == 60
    for readers in (30, 50, 100, 300):
        assert readers * frames_per_min(ReaderSettings(), readers) / 60 <= 30
    assert frames_per_min(ReaderSettings(frames_per_min=90), 100) == 90


def test_settings_a_reader_would_refuse_are_refused_here() -> None:
    with pytest.raises(ValueError, match="over scan_interval_ms"):
        ReaderSettings(scan_interval_ms=20, scan_window_ms=30)
    with pytest.raises(msgspec.ValidationError, match="500"):
        msgspec.convert({"window_ms": 100}, ReaderSettings)
