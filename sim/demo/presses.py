"""What happened to each press: when gateway, city and page had it, and when the lamp on the pole showed what.

Times are Unix seconds of this machine's clock, each recorded where it happened: at the simulator's pins, in the
gateway's log of its commit, in the city's row, and at the arrival of the page's event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from readers import wire
from sim.demo.auto_operator import Seen
from sim.demo.rig import BUZZER_PIN, LAMP_PIN
from sim.demo.running_zone import PinChange
from sim.demo.scenario import Press

DARK_S = 2.5
"""A lamp lit less than this before a press blinks for another alarm. Then only the reader's frames are the proof."""
KEPT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Hops:
    """The times of one press, hop by hop. None: it has not happened."""

    pressed_at: float
    committed_at: float | None
    stored_at: float | None
    page_at: float | None
    received_at: float | None
    received_by: str
    acknowledged_at: float | None
    help_at: float | None
    help_by: str

    def ms(self, at: float | None, since: float | None = None) -> float | None:
        """Return milliseconds from the press (or from `since`) to `at`."""
        start = self.pressed_at if since is None else since
        return None if at is None else round(1000 * (at - start), 1)


@dataclass(slots=True)
class Pressed:
    """A press as it happened. `subject`: the tag or bell that the city's incident will name."""

    press: Press
    subject: str
    at: float
    story_s: float
    incidents: list[Seen] = field(default_factory=list)


class Presses:
    """All presses of a run, and what was seen of them. `say(text, kind)` is called with lines for a watching person."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self.all: list[Pressed] = []
        self._say = say
        self._known: set[int] = set()
        self._committed: dict[str, float] = {}
        self._queued: dict[str, float] = {}
        self._lit: deque[tuple[float, int, str]] = deque(maxlen=KEPT_MAX)
        self._shown: deque[tuple[float, int, int, int]] = deque(maxlen=KEPT_MAX)
        self._told: set[tuple[int, str]] = set()

    def add(self, press: Press, subject: str, at: float, story_s: float) -> None:
        self.all.append(Pressed(press, subject, at, story_s))

    def on_gateway_record(self, record: dict[str, Any]) -> None:
        """Take one record of the gateway's log."""
        if (
            record.get("event") == "committed"
            and record.get("kind") in ("sos", "bell")
            and len(self._committed) < KEPT_MAX
        ):
            self._committed.setdefault(str(record.get("alarm")), float(record.get("at", 0.0)))

    def on_incident(self, seen: Seen) -> Pressed | None:
        """Take an incident of the page's stream. Return its press if it is new and about one of our presses."""
        number = int(seen.view["number"])
        if number in self._known:
            return None
        self._known.add(number)
        for pressed in self.all:
            if seen.view["kind"] == pressed.press.kind and seen.view["subject"] == pressed.subject:
                pressed.incidents.append(seen)
                return pressed
        return None

    def on_pin(self, change: PinChange, at: float) -> None:
        """Take a change of an output pin. Only a lamp or a buzzer that goes on counts."""
        if not change.level or change.pin not in (LAMP_PIN, BUZZER_PIN):
            return
        self._lit.append((at, change.reader, change.pin))
        word = "beeps, its lamp is steady: help is coming" if change.pin == BUZZER_PIN else "blinks: received"
        if self.all and (change.reader, change.pin) not in self._told:
            self._told.add((change.reader, change.pin))
            self._say(f"pole {change.reader} {word}", "good")

    def on_alarm_frame(self, reader: int, at: float, kind: int, shown: int) -> None:
        """Take the stage that a reader's lamp shows for an alarm of this kind, as its frame reports it."""
        self._shown.append((at, reader, kind, shown))

    def hops(self, pressed: Pressed) -> Hops:
        """Return what is known of a press now."""
        seen = pressed.incidents[0] if pressed.incidents else None
        view: dict[str, Any] = seen.view if seen is not None else {}
        alarms = [str(alarm["alarm"]) for alarm in view.get("alarms", [])]
        answered = None
        if seen is not None:
            answered = seen.acknowledged_at or view.get("acknowledged_at")
        received_at, received_by = self._lamp(pressed, LAMP_PIN, pressed.at, wire.RECEIVED)
        help_at, help_by = None, ""
        if answered is not None:
            help_at, help_by = self._lamp(pressed, BUZZER_PIN, answered, wire.ACKNOWLEDGED)
        return Hops(
            pressed_at=pressed.at,
            committed_at=min(
                (self._committed[a] for a in alarms if a in self._committed), default=view.get("queued_at")
            ),
            stored_at=view.get("stored_at"),
            page_at=seen.first_at if seen is not None else None,
            received_at=received_at,
            received_by=received_by,
            acknowledged_at=answered,
            help_at=help_at,
            help_by=help_by,
        )

    def _lamp(self, pressed: Pressed, pin: str, since: float, stage: int) -> tuple[float | None, str]:
        """Return when this stage first showed and the proof: a pin that was dark before, or a frame that reports it."""
        kind = wire.SOS if pressed.press.kind == "sos" else wire.BELL
        found: list[tuple[float, str]] = []
        for at, reader, which in self._lit:
            if (
                at >= since
                and pressed.press.reader in (0, reader)
                and which == pin
                and self._was_dark(reader, pin, since)
            ):
                found.append((at, f"pin of reader {reader}"))
                break
        for at, reader, frame_kind, shown in self._shown:
            if at >= since and pressed.press.reader in (0, reader) and frame_kind == kind and shown >= stage:
                found.append((at, f"frame of reader {reader}"))
                break
        return min(found, default=(None, ""))

    def _was_dark(self, reader: int, pin: str, before: float) -> bool:
        """Return whether this output did not go on in the DARK_S before: if it did, it may be on for another alarm."""
        return not any(r == reader and p == pin and before - DARK_S <= at < before for at, r, p in self._lit)
