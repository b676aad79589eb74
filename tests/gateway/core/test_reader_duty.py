"""A gate reader that listens less than its settings say is reported, because arrivals at its gate come later."""

from typing import Any

import msgspec

from gateway.core import pipeline
from gateway.core.reader_health import DUTY_FOR_S
from gateway.effects import Commit
from gateway.events import GatewayHealth
from gateway.zone import ReaderSettings
from readers import wire
from tests.gateway.core.bed import KEYS, TAGS, UTC_S, Pole, zone

BEAT_S = 60.0


class Beats:
    """A gateway, and heartbeats of its reader 4, one a minute."""

    def __init__(self, **own: Any) -> None:
        made = zone()
        readers = tuple(msgspec.structs.replace(r, **own) if r.number == 4 else r for r in made.readers)
        wanted = msgspec.structs.replace(made, readers=readers, settings=ReaderSettings(version=3))
        self.state = pipeline.State.new(wanted, KEYS, TAGS, gateway="gw1", epoch="e1", now_s=0.0)
        pipeline.set_clock(self.state, UTC_S, 0.0, "good")
        self.pole, self.now_s = Pole(4), 0.0

    def hear(self, *duties_pct: int) -> list[GatewayHealth]:
        """Return what is said about the duty after these heartbeats."""
        words = []
        for duty_pct in duties_pct:
            self.now_s += BEAT_S
            values = dict.fromkeys(wire.HEARTBEAT_FIELDS, 0)
            values |= {"settings_version": 3, "scan_duty_pct": duty_pct, "uptime_s": round(self.now_s)}
            frame = self.pole.frame(wire.HEARTBEAT, wire.encode_heartbeat(list(values.values())))
            for effect in pipeline.on_frame(self.state, frame, self.now_s):
                if isinstance(effect, Commit) and isinstance(effect.event, GatewayHealth):
                    words.append(effect.event)
        return [word for word in words if word.what == "reader_4_duty"]


def test_a_halved_duty_is_told_after_some_heartbeats_and_again_when_it_is_over() -> None:
    beats = Beats(gate="main")
    beats.hear(*[43] * 5)
    assert beats.hear(*[21] * int(DUTY_FOR_S / BEAT_S)) == []
    [word] = beats.hear(*[21] * 5)
    assert not word.ok
    assert "21 % of the time instead of 43 %" in word.detail
    assert word.counters == {"reader": 4}
    assert beats.hear(*[21] * 70) == [], "it is known"
    [over] = beats.hear(*[43] * 5)
    assert over.ok


def test_a_duty_that_comes_and_goes_within_minutes_is_not_told() -> None:
    beats = Beats(gate="main")
    beats.hear(*[43] * 5)
    assert beats.hear(*[21, 21, 43] * 20) == []


def test_after_a_restart_of_the_gateway_the_city_hears_either_word_once() -> None:
    assert [word.ok for word in Beats(gate="main").hear(*[43] * 20)] == [True]
    assert [word.ok for word in Beats(gate="main").hear(*[12] * 20)] == [False]
    assert [word.ok for word in Beats(gate="main").hear(*[0] * 20)] == [False], "a scanner that stands"


def test_own_settings_are_what_a_gate_reader_is_judged_by() -> None:
    assert [word.ok for word in Beats(gate="main", scan_interval_ms=20, scan_window_ms=5).hear(*[25] * 9)] == [True]


def test_a_pole_in_the_street_is_not_judged() -> None:
    assert Beats().hear(*[6] * 20) == []
