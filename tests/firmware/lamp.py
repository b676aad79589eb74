"""The judge of a reader's lamp: what it may say follows from the answers that reached this boot of the reader."""

from collections import Counter
from collections.abc import Callable

from readers import wire

STEADY_MS = 1100.0
"""No stage is lit for longer."""
DIP_MS = 40.0
"""A lamp that is dark for less looks lit."""
BUZZ_MS = 300.0
"""No beep is longer."""
PAUSE_MS = 600.0
"""Of the pattern of help, at least."""
CLOSE_MS = 20_000.0
"""So long after CLOSED came the lamp may still be lit: the reader may be in a send that blocks."""


class LampJudge:
    """Reads what lamp and buzzer did, and sums up the milliseconds in which they said what is not true.

    - Lit for longer than STEADY_MS without a pause: no stage does that, but a broken reader may.
    - Lit at all before an answer to an open alarm reached this boot of the reader.
    - Two flashes of 200 ms and a pause ("help is coming"), or a beep, before "acknowledged" reached this boot, or while
      a bell waits for its first answer.
    """

    def __init__(self) -> None:
        self.false_ms: Counter[str] = Counter()
        self.said: list[str] = []
        """The first of them in words."""
        self._stages: dict[int, int] = {}
        """Of this boot: number of an alarm -> highest stage that reached the reader. Closed ones are not in it."""
        self._waiting: set[int] = set()
        """Numbers of bells that were reported and not answered so far."""
        self._closed_ms: dict[int, float] = {}
        self.about: Callable[[], str] = str
        """Adds to what is said in words."""
        self._lit: tuple[float, bool, bool] | None = None
        """Since when, and whether it might be lit then, and show help."""
        self._dark_ms = -1e12
        self._was: tuple[float, float] | None = None
        self._was_allowed = (False, False)
        self._ended_ms = -1e12
        self._flash: float | None = None
        """When a flash began, after a pause: the first of two that look like help."""
        self._buzz: tuple[float, bool] | None = None

    def answered(self, now_ms: float) -> bool:
        """Return whether the lamp may be lit now."""
        self._forget(now_ms)
        return bool(self._stages)

    def told(self, now_ms: float, number: int, stage: int) -> None:
        """A STAGE came to the reader."""
        self._waiting.discard(number)
        if stage == wire.WAITING:
            self._stages.pop(number, None)  # its number means another alarm now
            self._closed_ms.pop(number, None)
            return
        if wire.RECEIVED <= stage < wire.CLOSED:
            self._stages[number] = max(stage, self._stages.get(number, 0))
            self._closed_ms.pop(number, None)
        elif number in self._stages:
            self._closed_ms.setdefault(number, now_ms + CLOSE_MS)

    def shown(self, number: int, stage: int, *, bell: bool = False) -> None:
        """The reader says what its lamp shows for an alarm."""
        if bell and stage == wire.WAITING and number not in self._stages:
            self._waiting.add(number)
        if stage >= wire.CLOSED:
            self._stages.pop(number, None)
            self._closed_ms.pop(number, None)

    def _helped(self) -> bool:
        return not self._waiting and max(self._stages.values(), default=0) >= wire.ACKNOWLEDGED

    def _forget(self, now_ms: float) -> None:
        for number in [number for number, at_ms in self._closed_ms.items() if at_ms <= now_ms]:
            self.shown(number, wire.CLOSED)

    def lamp(self, now_ms: float, level: int) -> None:
        if level and self._lit is None:
            if now_ms - self._dark_ms < DIP_MS and self._was is not None:
                self._lit = (self._was[0], *self._was_allowed)  # it was never dark for an eye
                self._was = None
                return
            self._judge(now_ms)
            self._lit = (now_ms, self.answered(now_ms), self._helped())
        elif not level and self._lit is not None:
            self._was, self._was_allowed = (self._lit[0], now_ms), self._lit[1:]
            self._lit, self._dark_ms = None, now_ms

    def buzzer(self, now_ms: float, level: int) -> None:
        if level and self._buzz is None:
            self._buzz = (now_ms, self._helped())
        elif not level and self._buzz is not None:
            since_ms, helped = self._buzz
            self._buzz = None
            if not helped or now_ms - since_ms > BUZZ_MS:
                self._false("buzzer", since_ms, now_ms)

    def reset(self, now_ms: float) -> None:
        """Power off, or a restart: the pins are low, and the reader knows nothing of its alarms' stages."""
        self.lamp(now_ms, 0)
        self.buzzer(now_ms, 0)
        self._stages.clear()
        self._waiting.clear()
        self._closed_ms.clear()

    def end(self, now_ms: float) -> None:
        """Judge what is still lit."""
        self.lamp(now_ms, 0)
        self.buzzer(now_ms, 0)
        self._judge(now_ms + 10_000)

    def _judge(self, now_ms: float) -> None:
        """Judge the time in which it was lit before now, when the lamp is lit again."""
        if self._was is None:
            return
        (since_ms, until_ms), (answered, helped) = self._was, self._was_allowed
        first, self._flash, self._was = self._flash, None, None
        dark_ms, self._ended_ms = since_ms - self._ended_ms, until_ms
        if not answered:
            self._false("answers nobody", since_ms, until_ms)
        elif until_ms - since_ms > STEADY_MS:
            self._false("steady", since_ms, until_ms)
        elif 150 <= until_ms - since_ms <= 300 and not helped:
            if dark_ms >= PAUSE_MS:
                self._flash = since_ms
            elif first is not None and 150 <= dark_ms <= 300 and now_ms - until_ms >= PAUSE_MS:
                self._false("help", first, until_ms)

    def _false(self, what: str, since_ms: float, until_ms: float) -> None:
        self.false_ms[what] += round(until_ms - since_ms)
        if len(self.said) < 20:
            self.said.append(f"{what}: lit {since_ms:.0f}..{until_ms:.0f} ms {self.about()}".rstrip())
