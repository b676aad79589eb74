"""What happened to each press: when gateway, city and page had it, and when the lamp on the pole showed what.

Times are Unix seconds of this machine's clock, each recorded where it happened: at the simulator's pins, in the
gateway's log of its commit, in the city's row, and at the arrival of the page's event. A lamp counts when a person
could tell what it shows (sim/demo/lamp.py): light alone proves nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from readers import wire
from sim.demo.auto_operator import Seen
from sim.demo.lamp import Eye, Sight, Spell
from sim.demo.rig import BUZZER_PIN, LAMP_PIN
from sim.demo.running_zone import PinChange
from sim.demo.scenario import Press

KEPT_MAX = 20_000
BEEPED_S = 4.0
"""Help began at most this long before its pattern is seen: it begins with a pause, and a send may cut a flash."""
ANSWERS: tuple[Sight, ...] = ("received", "help")
_LINES: dict[Sight, str] = {
    "received": "blinks: received",
    "help": "flashes twice and pauses: help is coming",
    "steady": "is lit and does not blink: that means nothing, its reader is stuck",
}


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
        self._lamps: defaultdict[int, Eye] = defaultdict(Eye)
        self._buzzers: defaultdict[int, Eye] = defaultdict(Eye)
        self._answers: deque[tuple[float, int]] = deque(maxlen=KEPT_MAX)
        """When a lamp that was dark began to answer, of which reader."""
        self._beeps: deque[tuple[float, int]] = deque(maxlen=KEPT_MAX)
        """When a buzzer that was silent began, of which reader."""
        self._shown: deque[tuple[float, int, int, int]] = deque(maxlen=KEPT_MAX)
        self._told: set[tuple[int, Sight]] = set()

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
        """Take a change of an output pin."""
        reader = change.reader
        if change.pin == LAMP_PIN:
            for spell in self._lamps[reader].feed(1000 * at, change.level):
                self._on_sight(reader, spell)
        elif change.pin == BUZZER_PIN:
            for spell in self._buzzers[reader].feed(1000 * at, change.level):
                if spell.sight != "dark" and spell.after == "dark":
                    self._beeps.append((spell.since_ms / 1000, reader))

    def _on_sight(self, reader: int, spell: Spell) -> None:
        if spell.sight in ANSWERS and spell.after == "dark":
            self._answers.append((spell.since_ms / 1000, reader))
        if self.all and spell.sight in _LINES and (reader, spell.sight) not in self._told:
            self._told.add((reader, spell.sight))
            beeped = any(r == reader and at > spell.since_ms / 1000 - BEEPED_S for at, r in self._beeps)
            also = "beeps, " if beeped and spell.sight == "help" else ""
            self._say(f"pole {reader} {also}{_LINES[spell.sight]}", "good" if spell.sight in ANSWERS else "warning")

    def lamps(self, at: float) -> dict[int, Sight]:
        """Return what a person at each pole sees of its lamp now. Poles whose lamps never were lit are missing."""
        return {reader: lamp.seen(1000 * at) for reader, lamp in sorted(self._lamps.items())}

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
        received_at, received_by = self._first(pressed, pressed.at, self._answers, wire.RECEIVED, ANSWERS)
        help_at, help_by = None, ""
        if answered is not None:
            help_at, help_by = self._first(pressed, answered, self._beeps, wire.ACKNOWLEDGED, ("help",))
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

    def _first(
        self, pressed: Pressed, since: float, pins: Iterable[tuple[float, int]], stage: int, sights: tuple[Sight, ...]
    ) -> tuple[float | None, str]:
        """Return when this stage first showed, and what proves it.

        The proof is an output that began, or a frame that says so. Neither counts before one of these sights is seen on
        the lamp of that reader; a buzzer that began counts from its begin.
        """
        kind = wire.SOS if pressed.press.kind == "sos" else wire.BELL
        frames = [(at, reader) for at, reader, of, shown in self._shown if of == kind and shown >= stage]
        first, by = float("inf"), ""
        for what, rows in (("pin", pins), ("frame", frames)):
            for at, reader in rows:
                if at >= first:
                    break
                if at < since or pressed.press.reader not in (0, reader):
                    continue
                seen_at = self._seen_at(reader, at, sights)
                if seen_at is not None and (what == "pin" or seen_at < first):
                    first, by = at if what == "pin" else seen_at, f"{what} of reader {reader}"
        return (first, by) if by else (None, "")

    def _seen_at(self, reader: int, at: float, sights: tuple[Sight, ...]) -> float | None:
        """Return when one of these is seen on a lamp, at this time or later."""
        spells = list(self._lamps[reader].spells)
        ends_ms = [*(spell.since_ms for spell in spells[1:]), float("inf")]
        for spell, end_ms in zip(spells, ends_ms, strict=True):
            if spell.sight in sights and end_ms > 1000 * at:
                return max(at, spell.since_ms / 1000)
        return None
