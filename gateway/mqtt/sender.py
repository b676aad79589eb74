"""Sends the rows of a source over a connection, and trusts only the city's watermark.

A PUBACK only says that the broker had the message. When brokers were killed and consumers were away, deleting on a
PUBACK lost a third of all events. So rows stay in the outbox until the city's watermark passes them. A bounded window
of them is in flight. Every row after the watermark is sent again after a reconnect, or when the watermark stands still.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from gateway.events import Emergency
from gateway.health import OnHealth
from gateway.mqtt.connection import Connection
from gateway.outbox.lane_file import utc_from_ms
from gateway.outbox.lanes import Source
from gateway.outbox.rows import StoredRow
from gateway.uplink import BATCH_MAX, POISON_MAX_B, Poison, Urgent, encode_batch, encode_urgent

WINDOW = {"sos": 50, "events": 8}
"""Most messages in flight, not yet covered by a watermark."""
BYTES_MAX = 128 * 1024
REWIND_MIN_S = 2.0
REWIND_MAX_S = {"sos": 5.0, "events": 30.0}
"""The longest wait before rows are sent again: a city that comes back gets an emergency again within this time."""
STALLED_S = 30.0

_emergency: "msgspec.json.Decoder[Emergency]" = msgspec.json.Decoder(Emergency)


class Sender:
    """Sends the rows of a source over a connection: in order, in a bounded window, again from the watermark."""

    def __init__(self, gateway: str, source: Source, connection: Connection, *, on_health: OnHealth, name: str) -> None:
        self.gateway, self.source, self.connection, self.name = gateway, source, connection, name
        self.watermark = 0
        self.counters = {"sent_rows": 0, "rewinds": 0, "acknowledged_rows": 0, "poison": 0}
        connection.wake.add(source.changed)
        self._on_health = on_health
        self._epoch = ""
        self._position = self._sent = 0
        self._in_flight: deque[int] = deque()
        self._progress_at = time.monotonic()
        self._rewind_s, self._rewind_at = REWIND_MIN_S, 0.0
        self._stalled = False

    async def run(self, progress: Callable[[], None]) -> None:
        """Send what the source holds, for ever."""
        session = 0
        while True:
            progress()
            self.source.changed.clear()
            now_s = time.monotonic()
            if not self.source.backlog:
                self._progress_at = now_s
            if self.connection.up.is_set():
                if session != self.connection.session or self.source.epoch != self._epoch:
                    session = self.connection.session
                    self._progress_at = max(self._progress_at, now_s - STALLED_S * 2 / 3)
                    self._rewind(now_s, REWIND_MIN_S)
                if self.source.epoch != self._epoch:
                    self._epoch, self.watermark, self._sent = self.source.epoch, 0, 0
                await self._fill()
                self._watch(time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0 if not self._in_flight else 0.5):
                    await self.source.changed.wait()

    async def acknowledged(self, epoch: str, upto: int) -> None:
        """Take the city's watermark: delete the rows up to it, and move the window."""
        gone = await self.source.acknowledged(epoch, upto)
        if epoch != self.source.epoch:
            return
        self.counters["acknowledged_rows"] += gone
        if gone or (self._in_flight and self._in_flight[0] <= upto):
            self._progress_at = time.monotonic()
            self._rewind_at, self._rewind_s = self._progress_at + REWIND_MIN_S, REWIND_MIN_S
            self.watermark = max(self.watermark, upto)
            if self._stalled:
                self._stalled = False
                self._on_health(f"{self.name}_stalled", True, f"the city acknowledges the {self.name} lane again")
        while self._in_flight and self._in_flight[0] <= upto:
            self._in_flight.popleft()
        self._position = max(self._position, min(upto, self._sent))
        self.source.changed.set()

    def _rewind(self, now_s: float, rewind_s: float) -> None:
        """Start again at the first row: the outbox no longer holds what the city has."""
        self._position = 0
        self._in_flight.clear()
        self._rewind_s, self._rewind_at = rewind_s, now_s + rewind_s

    async def _fill(self) -> None:
        """Give messages to the connection until the window is full or no row is left."""
        while (room := min(WINDOW[self.source.lane] - len(self._in_flight), self.connection.room())) > 0:
            single = self.source.lane == "sos"
            epoch = self.source.epoch
            page = await self.source.read(self._position, room if single else BATCH_MAX, BYTES_MAX)
            if not page.rows or epoch != self.source.epoch or page.rows[0].seq <= self._position:
                return
            before = page.before
            if not self._in_flight:
                self._rewind_at = time.monotonic() + self._rewind_s
            for rows in [(row,) for row in page.rows] if single else [page.rows]:
                payload = self._urgent(epoch, before, rows[0]) if single else self._batch(epoch, before, rows)
                if not self.connection.publish(self.source.lane, payload):
                    return
                before = self._position = rows[-1].seq
                self._sent = max(self._sent, before)
                self._in_flight.append(before)
                self.counters["sent_rows"] += len(rows)

    def _watch(self, now_s: float) -> None:
        """Send again when the watermark does not move; inform the operator after STALLED_S without progress."""
        quiet_s = now_s - self._progress_at
        if self._in_flight and quiet_s > STALLED_S and not self._stalled:
            self._stalled = True
            text = f"the city has not acknowledged for {quiet_s:.0f} s, {self.source.backlog} rows wait"
            self._on_health(f"{self.name}_stalled", False, f"{text}; look at the city's consumer and the broker's ACL")
        if self._in_flight and now_s > self._rewind_at:
            self.counters["rewinds"] += 1
            self._rewind(now_s, min(self._rewind_s * 2, REWIND_MAX_S[self.source.lane]))
            self.source.changed.set()

    def _urgent(self, epoch: str, before: int, row: StoredRow) -> bytes:
        event: Emergency | Poison
        try:
            event = _emergency.decode(row.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.counters["poison"] += 1
            event = Poison(row.body[:POISON_MAX_B], str(error)[:200])
        return encode_urgent(
            Urgent(
                gateway=self.gateway,
                epoch=epoch,
                seq=row.seq,
                after=before,
                queued_at=utc_from_ms(row.queued_ms),
                event=event,
            )
        )

    def _batch(self, epoch: str, before: int, rows: tuple[StoredRow, ...]) -> bytes:
        """Encode rows. A broken row is sent as bytes, which the city quarantines: the other rows stay readable."""
        sound = []
        for row in rows:
            try:
                msgspec.msgpack.decode(row.body)
                sound.append((row.seq, row.body))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.counters["poison"] += 1
                sound.append((row.seq, msgspec.msgpack.encode(row.body[:POISON_MAX_B])))
        return encode_batch(gateway=self.gateway, epoch=epoch, after=before, sent_at=datetime.now(UTC), rows=sound)
