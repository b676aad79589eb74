"""What a person at a pole sees of its lamp, judged from the levels of its pin. A buzzer is heard the same way.

The firmware blinks 1 s on, 1 s off for "received". For "help is coming" it flashes twice, 200 ms on and 200 ms off, and
pauses for 900 ms. It makes the lamp low before every call that may block and lights it again in its next pass. So the
levels change far more often than what is seen: a moment of light is not seen, and a moment of dark is a flicker.

    lamp = Eye()
    for now_ms, level in changes: lamp.feed(now_ms, level)
    lamp.seen(now_ms)      # "dark", "unclear", "received", "help" or "steady"
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

Sight = Literal["dark", "unclear", "received", "help", "steady"]
"""unclear: light, but no pattern yet, or none at all. steady: lit longer than any pattern; it means nothing."""

BLIP_MS = 10.0
"""Light shorter than this is not counted: the firmware lit the lamp and called something that may block at once."""
DIP_MS = 120.0
"""Dark shorter than this is a flicker. Sending over one or two hops makes dips of 20 to 80 ms; the pattern's own dark
of 200 ms stays above it when each end comes a pass of 20 ms late."""
FLASH_MAX_MS = 300.0
PAIR_MAX_MS = 700.0
"""From the begin of the first flash to the end of the second: 600 ms. One phase of "received" lasts 1000 ms, so no
single gap makes two flashes of it."""
PAUSE_MIN_MS = 600.0
LONG_MS = 500.0
"""Light this long is no flash."""
STEADY_MS = 1500.0
"""Light this long is no pattern: the firmware makes 1 s, and each end may be a pass or two late."""
DARK_MS = 2500.0
"""No light for so long is a dark lamp; both patterns are dark for at most 1 s."""
HELP_KEPT_MS = 3500.0
"""So long after two flashes their meaning stays, if nothing else was seen: the next two may be cut by a send."""
STROKES_MAX = 48


@dataclass(frozen=True, slots=True)
class Spell:
    """From since_ms on this was seen, until the next spell. It was clear somewhat later: a pattern takes its time.

    A dark lamp's answer counts from its first light, also if a send cut that, so that the pattern was clear only after
    the next. after: what was seen before, whatever was unclear left out.
    """

    sight: Sight
    since_ms: float
    after: Sight = "dark"


@dataclass(slots=True)
class Stroke:
    """Light without a dark of DIP_MS. end_ms None: it is lit now."""

    begin_ms: float
    end_ms: float | None = None


class Eye:
    """The eye of one person on one lamp. Times are milliseconds of any clock and never go back."""

    def __init__(self) -> None:
        self.spells: deque[Spell] = deque([Spell("dark", 0.0)], maxlen=STROKES_MAX)
        self._strokes: deque[Stroke] = deque(maxlen=STROKES_MAX)
        self._level = 0
        self._lit_at_ms = 0.0
        self._end_before_ms: float | None = None

    def feed(self, now_ms: float, level: int) -> list[Spell]:
        """Take a level of the pin, changed or not. Return the spells that became clear by it, the oldest first."""
        found = self._clear(now_ms)
        if level == self._level:
            return found
        self._level = level
        last = self._strokes[-1] if self._strokes else None
        if level:
            self._lit_at_ms, self._end_before_ms = now_ms, None
            if last is not None and last.end_ms is not None and now_ms - last.end_ms < DIP_MS:
                self._end_before_ms, last.end_ms = last.end_ms, None
            else:
                self._strokes.append(Stroke(now_ms))
        elif last is not None:
            last.end_ms = now_ms
            if now_ms - self._lit_at_ms < BLIP_MS:  # as if it had not been
                last.end_ms = self._end_before_ms
                if last.end_ms is None:
                    self._strokes.pop()
        return found + self._clear(now_ms)

    def seen(self, now_ms: float) -> Sight:
        """Return what is seen now."""
        return self._judge(now_ms)[0]

    def _clear(self, now_ms: float) -> list[Spell]:
        sight, since_ms = self._judge(now_ms)
        last = self.spells[-1]
        if sight == last.sight:
            return []
        after = last.after if last.sight == "unclear" else last.sight
        if last.sight == "unclear" and after == "dark" != sight:
            since_ms = last.since_ms
        self.spells.append(Spell(sight, since_ms, after))
        return [self.spells[-1]]

    def _judge(self, now_ms: float) -> tuple[Sight, float]:
        """Return what is seen, and since when."""
        strokes = [(s.begin_ms, now_ms if s.end_ms is None else s.end_ms) for s in self._strokes]
        if strokes and self._level and now_ms - strokes[-1][0] < BLIP_MS:
            del strokes[-1]
        if not strokes or now_ms - strokes[-1][1] >= DARK_MS:
            return "dark", strokes[-1][1] if strokes else 0.0
        begin_ms, end_ms = strokes[-1]
        for n in range(len(strokes) - 1, -1, -1):
            begin_ms, end_ms = strokes[n]
            if end_ms - begin_ms >= LONG_MS:
                break
            if now_ms - end_ms < HELP_KEPT_MS and _two_flashes(strokes, n, now_ms):
                return "help", strokes[n - 1][0]
        newest = n == len(strokes) - 1
        if end_ms - begin_ms > STEADY_MS and newest:
            return "steady", begin_ms
        if LONG_MS <= end_ms - begin_ms <= STEADY_MS and now_ms - end_ms < DARK_MS:
            return "received", begin_ms
        return "unclear", strokes[-1][0]


def _two_flashes(strokes: list[tuple[float, float]], n: int, now_ms: float) -> bool:
    """Return whether stroke n is the second of two flashes, with a pause before and after them."""
    if n == 0 or any(strokes[i][1] - strokes[i][0] > FLASH_MAX_MS for i in (n - 1, n)):
        return False
    before_ms = strokes[n - 2][1] if n > 1 else float("-inf")
    after_ms = strokes[n + 1][0] if n + 1 < len(strokes) else now_ms
    pauses = strokes[n - 1][0] - before_ms, after_ms - strokes[n][1]
    return strokes[n][1] - strokes[n - 1][0] <= PAIR_MAX_MS and min(pauses) >= PAUSE_MIN_MS
