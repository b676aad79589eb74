"""The link to the city: one connection for each lane, so that no routine message can delay an emergency.

    outbox sos    --> sender sos    \\
    ring          --> sender ring   --> connection sos    --> broker    status, sos
    outbox events --> sender events --> connection events --> broker    events
                                    <-- both                            ack: watermarks, stages of alarms
"""

import asyncio
import time
from collections.abc import Callable

import msgspec

from gateway.health import OnHealth
from gateway.mqtt.connection import BrokerAccess, Connection
from gateway.mqtt.keys import KeyFile
from gateway.mqtt.sender import Sender
from gateway.outbox.lanes import Source
from gateway.uplink import Ask, Forged, Lane, StageNotice, Status, UplinkError, Watermark, decode_ack, topic, unseal

STATUS_S = 30.0
FORGED_QUIET_S = 600.0
ANSWER_S = 1.0
"""The city's questions are answered at most this often: messages sent again by a stranger must not delay a cry."""
WORD_MAX = 64


class CityLink:
    """Both connections and all senders of a gateway."""

    def __init__(
        self,
        address: BrokerAccess,
        sources: tuple[Source, Source, Source],
        keys: KeyFile,
        *,
        on_health: OnHealth,
        on_stage: Callable[[StageNotice], None],
        status: Callable[[bool], Status],
    ) -> None:
        """sources: the emergency store, the ring, the routine store. status(online) returns the retained message."""
        self._on_stage, self._on_health, self._plain_status = on_stage, on_health, status
        self._keys, self._ack_topic = keys, topic(address.site, address.gateway, "ack")
        self.unreadable_acks = self.forged_acks = 0
        self._forged_at: float | None = None
        self._word, self._answered_at = "", float("-inf")
        self.sos = Connection(address, "sos", keys, on_health=on_health, on_ack=self._ack, status=self._status)
        self.events = Connection(address, "events", keys, on_health=on_health, on_ack=self._ack)
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
            ack = decode_ack(unseal(self._keys.keys(), self._ack_topic, payload))
        except Forged as forged:
            self._forged(forged)
            return
        except UplinkError:
            self.unreadable_acks += 1
            return
        if isinstance(ack, StageNotice):
            if lane == "sos" or not self.sos.up.is_set():
                self._on_stage(ack)
        elif isinstance(ack, Ask):
            if lane == "sos":
                self._answer(ack)
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

    def _answer(self, ask: Ask) -> None:
        self._word = ask.word[:WORD_MAX]
        if time.monotonic() - self._answered_at >= ANSWER_S:  # else with the next status
            self._answered_at = time.monotonic()
            self.sos.publish_status()

    def _status(self, online: bool) -> Status:
        return msgspec.structs.replace(self._plain_status(online), echo=self._word)

    def _forged(self, forged: Forged) -> None:
        """Count a message that the city did not seal, and report the first one. It is as if it had never come."""
        self.forged_acks += 1
        if self._forged_at is None:
            text = (
                f"a message on {self._ack_topic} is not of our city: {forged}. It is ignored. Somebody forges, or the"
            )
            step = f"key files differ: look at the broker's users, and at {self._keys.path}"
            self._on_health("city_forged", False, f"{text} {step}")
        self._forged_at = time.monotonic()

    def publish_status(self) -> None:
        """Publish the retained status now, if connected. Called every STATUS_S."""
        if self._forged_at is not None and time.monotonic() - self._forged_at > FORGED_QUIET_S:
            self._forged_at = None
            self._on_health("city_forged", True, f"no forged message for {FORGED_QUIET_S:.0f} s")
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
        return found | {"uplink_unreadable_acks": self.unreadable_acks, "uplink_forged_acks": self.forged_acks}
