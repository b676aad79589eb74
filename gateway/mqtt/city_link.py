"""The link to the city: one connection for each lane, so that no routine message can delay an emergency.

    outbox sos    --> sender sos    \\
    ring          --> sender ring   --> connection sos    --> broker    status, sos
    outbox events --> sender events --> connection events --> broker    events
                                    <-- both                            ack: watermarks, stages of alarms
"""

import asyncio
from collections.abc import Callable

from gateway.health import OnHealth
from gateway.mqtt.connection import BrokerAccess, Connection
from gateway.mqtt.sender import Sender
from gateway.outbox.lanes import Source
from gateway.uplink import Lane, StageNotice, Status, UplinkError, Watermark, decode_ack

STATUS_S = 30.0


class CityLink:
    """Both connections and all senders of a gateway."""

    def __init__(
        self,
        address: BrokerAccess,
        sources: tuple[Source, Source, Source],
        *,
        on_health: OnHealth,
        on_stage: Callable[[StageNotice], None],
        status: Callable[[bool], Status],
    ) -> None:
        """sources: the emergency store, the ring, the routine store. status(online) returns the retained message."""
        self._on_stage = on_stage
        self.unreadable_acks = 0
        self.sos = Connection(address, "sos", on_health=on_health, on_ack=self._ack, status=status)
        self.events = Connection(address, "events", on_health=on_health, on_ack=self._ack)
        self.connections = (self.sos, self.events)
        self.senders = tuple(
            Sender(address.gateway, source, connection, on_health=on_health, name=name)
            for source, connection, name in zip(
                sources, (self.sos, self.sos, self.events), ("sos", "ring", "events"), strict=True
            )
        )
        self._acks: set[asyncio.Task[None]] = set()
        self._newest: dict[tuple[str, str], int] = {}

    def _ack(self, lane: Lane, payload: bytes) -> None:
        """Take a message of the ack topic. Both connections receive it; each takes only the watermarks of its own lane.

        Stages come from `sos`, and from `events` only while `sos` is down.
        """
        try:
            ack = decode_ack(payload)
        except UplinkError:
            self.unreadable_acks += 1
            return
        if isinstance(ack, StageNotice):
            if lane == "sos" or not self.sos.up.is_set():
                self._on_stage(ack)
        elif ack.lane == lane:
            self._watermark(ack)

    def _watermark(self, ack: Watermark) -> None:
        """Only the newest watermark of an epoch counts; a task that already runs takes the later ones too."""
        for sender in self.senders:
            if sender.source.lane == ack.lane and sender.source.epoch == ack.epoch:
                key = (sender.name, ack.epoch)
                busy = key in self._newest
                self._newest[key] = max(ack.upto, self._newest.get(key, 0))
                if not busy:
                    task = asyncio.ensure_future(self._take(sender, key))
                    self._acks.add(task)
                    task.add_done_callback(self._acks.discard)

    async def _take(self, sender: Sender, key: tuple[str, str]) -> None:
        taken = 0
        try:
            while taken < self._newest[key]:
                taken = self._newest[key]
                await sender.acknowledged(key[1], taken)
        finally:
            del self._newest[key]

    def publish_status(self) -> None:
        """Publish the retained status now, if connected."""
        self.sos.publish_status()

    async def stop(self) -> None:
        """Publish that this gateway is offline, and end both connections."""
        await asyncio.gather(*(connection.stop() for connection in self.connections))

    def counters(self) -> dict[str, int]:
        """Return all counters and levels, for metrics and health events."""
        found = {f"mqtt_{c.lane}_{name}": n for c in self.connections for name, n in c.counters.items()}
        found |= {f"uplink_{s.name}_{name}": n for s in self.senders for name, n in s.counters.items()}
        found |= {f"uplink_{s.name}_watermark": s.watermark for s in self.senders}
        found |= {f"mqtt_{c.lane}_up": int(c.up.is_set()) for c in self.connections}
        return found | {"uplink_unreadable_acks": self.unreadable_acks}
