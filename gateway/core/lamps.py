"""The lamps that answer a press: a reader is sent the stage of its alarm until its lamp shows it.

A lamp shows the stage that a person gave its own alarm. If a reader's number meant a stranger's cry before and now
means a proven one, its lamp begins again: stage 0 goes before the stage.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from gateway.core import frames
from gateway.core.alarms import Alarm, Alarms, Lamp, LampKey
from gateway.core.frames import ReaderLinks, Report
from gateway.core.sightings import WallClock
from gateway.effects import Commit, Downlink, Effect
from gateway.events import STAGES, Told
from readers import wire

COPIES_MAX = 30
"""How often a reader is asked for the next cry of a number under which it sends copies of a true one."""
REPEAT_MIN_S, REPEAT_MAX_S, REPEAT_FOR_S = 0.5, 10.0, 600.0
"""A stage is repeated to a lamp with growing pauses until the lamp shows it, for ten minutes at most. After that it is
sent only when the reader asks."""
_NEVER = float("inf")


class Lamps:
    """Sends stages to readers, and reports to the city what their lamps show."""

    def __init__(self, links: ReaderLinks, alarms: Alarms, wall: WallClock, counts: Counter[str]) -> None:
        self._links, self._alarms, self._wall, self._counts = links, alarms, wall, counts

    def answer(
        self, alarm: Alarm, key: LampKey, cause: bytes, shown: int, report: Report, now_s: float
    ) -> Iterator[Effect]:
        """Send a reader the stage if its lamp shows another. Report to the city if it shows more than was reported.

        A report of a boot that is not the newest gets its answer too, in that boot: its reader may have lost its flash.
        """
        lamp = self._alarms.lamp(alarm, key, cause)
        if shown > wire.CLOSED:
            self._counts["stages_refused"] += 1
            shown = lamp.shown
        if lamp.again and shown <= alarm.stage and report.freshness == "new":
            lamp.again = False
        if report.freshness == "new" and not lamp.again:
            lamp.shown = max(lamp.shown, shown)  # frames can come out of order; a lamp never goes back by itself
        if shown < alarm.stage or lamp.again:
            body = wire.encode_stage(_rows(key[2], lamp, alarm))
            payload = frames.reply(self._links, report, wire.STAGE, body)
            if lamp.shown < alarm.stage and lamp.send_at_s == _NEVER:
                light_one(lamp, now_s + REPEAT_MIN_S)
            if payload is not None:
                yield Downlink(key[0], payload, urgent=True)
        if lamp.shown >= alarm.stage:
            lamp.send_at_s = _NEVER
        if lamp.shown > lamp.told:
            lamp.told = lamp.shown
            told = Told(
                observed_at=self._wall.utc(now_s), clock=self._wall.quality, alarm=alarm.name, reader=key[0],
                stage=STAGES[lamp.told - 1],
            )  # fmt: skip
            yield Commit(told, self._alarms.memory(alarm))

    def ask_for_next(self, alarm: Alarm, key: LampKey, cause: bytes, report: Report) -> Iterator[Effect]:
        """A reader sent a copy of a true cry: ask for the next cry of this number, a few times. No stage is lit."""
        lamp = self._alarms.lamp(alarm, key, cause)
        lamp.copies += 1
        payload = frames.reply(self._links, report, wire.STAGE, wire.encode_stage([(key[2], wire.WAITING)]))
        if payload is not None:
            yield Downlink(key[0], payload, urgent=True)

    def light(self, alarm: Alarm, now_s: float) -> None:
        """Send an alarm's stage to each of its lamps that shows less, from now on."""
        for lamp in alarm.lamps.values():
            if lamp.shown < alarm.stage:
                light_one(lamp, now_s)

    def repeat(self, alarms: Iterable[Alarm], now_s: float, *, urgent: bool) -> Iterator[Downlink]:
        """Yield the stages that are due, those of one reader in one frame."""
        rows: dict[int, list[tuple[int, int]]] = {}
        for alarm in alarms:
            for (reader, boot, number), lamp in alarm.lamps.items():
                if lamp.send_at_s > now_s:
                    continue
                over = frames.is_over(self._links, reader, boot)
                if lamp.shown >= alarm.stage or now_s > lamp.until_s or over:
                    lamp.send_at_s = _NEVER
                    continue
                lamp.send_at_s = now_s + lamp.pause_s
                lamp.pause_s = min(2 * lamp.pause_s, REPEAT_MAX_S)
                if frames.boot_of(self._links, reader) == boot:  # the number means another alarm in another boot
                    rows.setdefault(reader, []).extend(_rows(number, lamp, alarm))
        for reader, stages in rows.items():
            for i in range(0, len(stages), wire.STAGES_MAX):
                body = wire.encode_stage(stages[i : i + wire.STAGES_MAX])
                payload = frames.answer(self._links, reader, wire.STAGE, body)
                if payload is not None:
                    yield Downlink(reader, payload, urgent)


def light_one(lamp: Lamp, at_s: float) -> None:
    """Plan the first repetition of a stage to one lamp."""
    lamp.send_at_s, lamp.pause_s, lamp.until_s = at_s, REPEAT_MIN_S, at_s + REPEAT_FOR_S


def _rows(number: int, lamp: Lamp, alarm: Alarm) -> list[tuple[int, int]]:
    """Return the STAGE rows for one lamp. Under the number of a copied cry the true one may still come: it gets no
    stage that a person gave the copy, and begins again when the copy is closed."""
    stage = alarm.stage
    if alarm.copied:
        stage = wire.WAITING if alarm.done else min(stage, wire.STORED)
    proven = wire.PROVEN if stage and alarm.trust == "verified" and alarm.kind == "sos" else 0
    again = [(number, wire.WAITING)] if lamp.again and stage else []
    return [*again, (number, stage | proven)]
