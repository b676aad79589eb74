"""The emulated NCP's messages: from the host to the mesh, from the mesh to the host, and ZDO for node 0.

The mesh is the code that sets `on_unicast` and `on_broadcast`. It calls `delivered` once for each unicast whose handle
is not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sim.ncp import zdo
from sim.ncp.ezsp import ApsFrame
from sim.ncp.ezsp_ids import (
    BROADCAST_ALL,
    BROADCAST_MIN,
    CONTENTS_IN_CALLBACK,
    PAYLOAD_MAX,
    ZDO_APP_HANDLES_UNSUPPORTED,
    ZDO_APP_RECEIVES_SUPPORTED,
    Aps,
    ConfigId,
    Counter,
    Ember,
    Incoming,
    Outgoing,
    Policy,
)
from sim.ncp.network import Network
from sim.ncp.state import Answer
from sim.ncp.tables import Tables

NO_INDEX = 0xFF
APS_TRIES = 3
BROADCAST_WINDOW_S = 20.0
BROADCAST_RESERVE = 6
"""EmberZNet sends `table size` broadcasts in about 20 s, `table size - 6` in a burst: 0.75/s and 9 for size 15."""
LOOPBACK_LQI, LOOPBACK_RSSI_DBM = 255, 0
NODE_LQI, NODE_RSSI_DBM = 200, -60
"""The last hop of answers of `responders` and of announcements. A mesh with its own values calls `receive` instead."""


@dataclass(frozen=True, slots=True)
class Unicast:
    """A message from the host to one node. Call `delivered(handle, ok)` when it has arrived or is lost.

    The coordinator makes `handle`, because hosts reuse their tags; 0 is a reply that needs no `delivered`. `wants_ack`:
    the host asked for an APS acknowledgement. Without it, `delivered` means that the first hop took the frame.
    """

    handle: int
    nwk: int
    profile_id: int
    cluster_id: int
    source_endpoint: int
    destination_endpoint: int
    payload: bytes
    sequence: int
    wants_ack: bool
    options: int = 0


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message from the host to many nodes: a group, or if `group_id` is None, 0xFFFC (routers)..0xFFFF (all)."""

    destination: int
    group_id: int | None
    profile_id: int
    cluster_id: int
    source_endpoint: int
    destination_endpoint: int
    payload: bytes
    sequence: int
    radius: int


@dataclass(frozen=True, slots=True)
class _Pending:
    kind: int
    destination: int
    aps: ApsFrame
    tag: int
    contents: bytes


class Messages(Network, Tables):
    """The messaging commands, and the calls of the mesh's side about messages."""

    on_unicast: Callable[[Unicast], None] | None = None
    on_broadcast: Callable[[Broadcast], None] | None = None

    _pending: dict[int, _Pending]
    _handle: int

    def forget_messages(self) -> None:
        self._pending = {}

    def delivered(self, handle: int, ok: bool) -> bool:
        """Report to the host whether one unicast arrived. Return False if nothing waits (any longer) for the handle."""
        pending = self._pending.pop(handle, None)
        if pending is None:
            self.drop_counts["late_delivery_reports"] += 1
            return False
        self.count(Counter.APS_TX_UNICAST_SUCCESS if ok else Counter.APS_TX_UNICAST_FAILED)
        self.count(Counter.MAC_TX_UNICAST_SUCCESS if ok else Counter.MAC_TX_UNICAST_FAILED)
        self._sent(pending, Ember.SUCCESS if ok else Ember.DELIVERY_FAILED)
        return True

    def take_message(
        self,
        nwk: int,
        aps: ApsFrame,
        payload: bytes,
        *,
        lqi: int,
        rssi_dbm: int,
        kind: Incoming,
    ) -> bool:
        """Take one message from the air. Return False if the stack drops it (counted): the sender gets no APS ack."""
        if not self.ram.up:
            self.drop_counts["heard_without_network"] += 1
            return False
        heard = {Incoming.UNICAST: (Counter.MAC_RX_UNICAST, Counter.APS_RX_UNICAST)}
        for counter in heard.get(kind, (Counter.MAC_RX_BROADCAST, Counter.APS_RX_BROADCAST)):
            self.count(counter)
        if kind is Incoming.MULTICAST and not any(
            e.endpoint and e.multicast_id == aps.group_id for e in self.ram.multicast.values()
        ):
            self.drop_counts["heard_other_group"] += 1
            return False
        if aps.destination_endpoint == 0 and aps.profile_id == zdo.PROFILE_ID:
            if not self._take_zdo(nwk, aps, payload, broadcast=kind is not Incoming.UNICAST):
                return True
        elif kind is not Incoming.MULTICAST and aps.destination_endpoint not in (*self.ram.endpoints, 0xFF):
            self.drop_counts["heard_unknown_endpoint"] += 1
            return False
        index = next((i for i, e in self.ram.addresses.items() if e.nwk == nwk), NO_INDEX)
        return self.emit("incomingMessageHandler", kind, aps, lqi, rssi_dbm, nwk, NO_INDEX, index, payload)

    def do_maximumPayloadLength(self) -> Answer:
        return (PAYLOAD_MAX,)

    def do_sendUnicast(self, kind: int, destination: int, aps: ApsFrame, tag: int, contents: bytes) -> Answer:
        nwk = self._resolve(kind, destination)
        refusal = self._refuse(aps, contents)
        if refusal is None and nwk is None:
            refusal = Ember.INVALID_BINDING_INDEX if kind == Outgoing.VIA_BINDING else Ember.BAD_ARGUMENT
        if refusal is None and len(self._pending) >= self.ram.config[ConfigId.APS_UNICAST_MESSAGE_COUNT]:
            refusal = Ember.MAX_MESSAGE_LIMIT_REACHED
        if refusal is not None or nwk is None:
            return refusal, 0
        aps = replace(aps, sequence=self._next_aps())
        self._handle += 1
        handle = self._handle
        self._pending[handle] = _Pending(kind, destination, aps, tag, contents)
        if nwk == 0x0000:
            self.soon(lambda: self._loop_back(handle, aps, contents))
            return Ember.SUCCESS, aps.sequence
        self.transmit()
        message = Unicast(
            handle,
            nwk,
            aps.profile_id,
            aps.cluster_id,
            aps.source_endpoint,
            aps.destination_endpoint,
            contents,
            aps.sequence,
            bool(aps.options & Aps.RETRY),
            aps.options,
        )
        self.at(self._now() + APS_TRIES * self._ack_timeout_s(nwk), lambda: self._give_up(handle))
        self.soon(lambda: self._to_mesh(message))
        return Ember.SUCCESS, aps.sequence

    def do_sendReply(self, nwk: int, aps: ApsFrame, contents: bytes) -> Answer:
        refusal = self._refuse(aps, contents)
        if refusal is not None:
            return (refusal,)
        self.transmit()
        ends = (aps.source_endpoint, aps.destination_endpoint)
        reply = Unicast(0, nwk, aps.profile_id, aps.cluster_id, *ends, contents, aps.sequence, False, aps.options)
        self.soon(lambda: self._to_mesh(reply))
        return (Ember.SUCCESS,)

    def do_sendBroadcast(self, destination: int, aps: ApsFrame, radius: int, tag: int, contents: bytes) -> Answer:
        return self._broadcast(Outgoing.BROADCAST, destination, None, aps, radius, tag, contents)

    def do_proxyBroadcast(
        self, _source: int, destination: int, _nwk_sequence: int, aps: ApsFrame, radius: int, tag: int, contents: bytes
    ) -> Answer:
        return self._broadcast(Outgoing.BROADCAST_WITH_ALIAS, destination, None, aps, radius, tag, contents)

    def do_sendMulticast(self, aps: ApsFrame, hops: int, _nonmember: int, tag: int, contents: bytes) -> Answer:
        return self._broadcast(Outgoing.MULTICAST, BROADCAST_ALL, aps.group_id, aps, hops, tag, contents)

    def do_sendMulticastWithAlias(
        self, aps: ApsFrame, hops: int, _nonmember: int, _alias: int, _nwk_sequence: int, tag: int, contents: bytes
    ) -> Answer:
        return self._broadcast(Outgoing.MULTICAST_WITH_ALIAS, BROADCAST_ALL, aps.group_id, aps, hops, tag, contents)

    def _broadcast(
        self, kind: Outgoing, destination: int, group_id: int | None, aps: ApsFrame, radius: int, tag: int, data: bytes
    ) -> Answer:
        refusal = self._refuse(aps, data)
        if refusal is None and destination < BROADCAST_MIN:
            refusal = Ember.BAD_ARGUMENT
        if refusal is None and not self._broadcast_room():
            self.count(Counter.BROADCAST_TABLE_FULL)
            refusal = Ember.NETWORK_BUSY
        if refusal is not None:
            return refusal, 0
        aps = replace(aps, sequence=self._next_aps())
        self.transmit()
        self.count(Counter.MAC_TX_BROADCAST)
        self.count(Counter.APS_TX_BROADCAST)
        ends = (aps.source_endpoint, aps.destination_endpoint)
        sent = Broadcast(destination, group_id, aps.profile_id, aps.cluster_id, *ends, data, aps.sequence, radius)
        where = destination if group_id is None else group_id
        pending = _Pending(kind, where, aps, tag, data)
        self.soon(lambda: self._sent(pending, Ember.SUCCESS))
        self.soon(lambda: self._broadcast_to_mesh(sent))
        return Ember.SUCCESS, aps.sequence

    def _broadcast_room(self) -> bool:
        size = self.ram.config[ConfigId.BROADCAST_TABLE_SIZE]
        burst = float(max(size - BROADCAST_RESERVE, 1))
        now_s = self._now()
        if self.ram.broadcast_credit_s == 0.0:
            self.ram.broadcast_credit = burst
        earned = (now_s - self.ram.broadcast_credit_s) * size / BROADCAST_WINDOW_S
        self.ram.broadcast_credit = min(self.ram.broadcast_credit + max(earned, 0.0), burst)
        self.ram.broadcast_credit_s = now_s or 1e-9
        if self.ram.broadcast_credit < 1:
            return False
        self.ram.broadcast_credit -= 1
        return True

    def _refuse(self, aps: ApsFrame, contents: bytes) -> Ember | None:
        if not self.ram.up:
            return Ember.NETWORK_DOWN
        room = PAYLOAD_MAX - (9 if aps.options & Aps.ENCRYPTION else 0) - (8 if aps.options & Aps.SOURCE_EUI64 else 0)
        if len(contents) > room - (2 if aps.options & Aps.FRAGMENT else 0):
            return Ember.MESSAGE_TOO_LONG
        if self.free_buffers == 0:
            return Ember.NO_BUFFERS
        return None

    def _resolve(self, kind: int, destination: int) -> int | None:
        if kind == Outgoing.DIRECT:
            return destination if destination < BROADCAST_MIN else None
        if kind == Outgoing.VIA_ADDRESS_TABLE:
            entry = self.ram.addresses.get(destination)
            return entry.nwk if entry is not None and entry.nwk < BROADCAST_MIN else None
        if kind == Outgoing.VIA_BINDING and (binding := self.ram.bindings.get(destination)) is not None:
            known = {node.eui64: nwk for nwk, node in self.responders.items()}
            return known.get(binding.identifier)
        return None

    def _ack_timeout_s(self, nwk: int) -> float:
        slow = any(e.extended_timeout for e in self.ram.addresses.values() if e.nwk == nwk)
        return (self.ram.config[0x12] if slow else 0) / 1000 + self.ram.config[ConfigId.APS_ACK_TIMEOUT_MS] / 1000

    def _next_aps(self) -> int:
        self.ram.aps_sequence = (self.ram.aps_sequence + 1) & 0xFF
        return self.ram.aps_sequence

    def _give_up(self, handle: int) -> None:
        if handle in self._pending:
            self.drop_counts["unicasts_timed_out"] += 1
            self.delivered(handle, False)

    def _sent(self, pending: _Pending, status: Ember) -> None:
        whole = self.ram.policies[Policy.MESSAGE_CONTENTS_IN_CALLBACK] == CONTENTS_IN_CALLBACK
        contents = pending.contents if whole else b""
        self.emit("messageSentHandler", pending.kind, pending.destination, pending.aps, pending.tag, status, contents)

    def _to_mesh(self, message: Unicast) -> None:
        node = self.responders.get(message.nwk)
        if node is not None and message.destination_endpoint == 0 and message.profile_id == zdo.PROFILE_ID:
            self._note_permit(message.cluster_id, message.payload)
            answer = node.answer(message.cluster_id, message.payload)
            self.delivered(message.handle, True)
            if answer is not None:
                self._zdo_from(message.nwk, answer, message.source_endpoint)
        elif self.on_unicast is not None:
            self.on_unicast(message)
        elif message.handle:
            self.delivered(message.handle, node is not None)

    def _broadcast_to_mesh(self, message: Broadcast) -> None:
        if message.profile_id == zdo.PROFILE_ID and message.destination_endpoint == 0:
            self._note_permit(message.cluster_id, message.payload)
            for nwk, node in list(self.responders.items()):
                answer = node.answer(message.cluster_id, message.payload, broadcast=True)
                if answer is not None:
                    self._zdo_from(nwk, answer, message.source_endpoint)
        if self.on_broadcast is not None:
            self.on_broadcast(message)

    def _note_permit(self, cluster_id: int, payload: bytes) -> None:
        if cluster_id == zdo.MGMT_PERMIT_JOINING and len(payload) >= 2:
            seconds = float("inf") if payload[1] == 0xFF else payload[1]
            self.ram.routers_permit_until_s = self._now() + seconds if payload[1] else -1.0

    def _zdo_from(self, nwk: int, answer: tuple[int, bytes], endpoint: int) -> None:
        cluster_id, payload = answer
        aps = ApsFrame(zdo.PROFILE_ID, cluster_id, 0, endpoint, sequence=self._rng.randrange(256))
        self.take_message(nwk, aps, payload, lqi=NODE_LQI, rssi_dbm=NODE_RSSI_DBM, kind=Incoming.UNICAST)

    def _take_zdo(self, nwk: int, aps: ApsFrame, payload: bytes, *, broadcast: bool) -> bool:
        """Answer the ZDO request of a remote node. Return True if the host must get the message, too."""
        if aps.cluster_id & zdo.RESPONSE or aps.cluster_id in (zdo.DEVICE_ANNCE, zdo.PARENT_ANNCE):
            return True
        flags = self.ram.config[ConfigId.APPLICATION_ZDO_FLAGS]
        answer = self.node().answer(aps.cluster_id, payload, broadcast=broadcast)
        unsupported = answer is not None and answer[1][1:2] == bytes((zdo.NOT_SUPPORTED,))
        if unsupported and flags & ZDO_APP_HANDLES_UNSUPPORTED:
            return True
        if answer is not None:
            self.transmit()
            cluster_id, body = answer
            reply = Unicast(0, nwk, zdo.PROFILE_ID, cluster_id, 0, aps.source_endpoint, body, self._next_aps(), False)
            self.soon(lambda: self._to_mesh(reply))
        return bool(flags & ZDO_APP_RECEIVES_SUPPORTED)

    def _loop_back(self, handle: int, aps: ApsFrame, contents: bytes) -> None:
        self.delivered(handle, True)
        if aps.destination_endpoint == 0 and aps.profile_id == zdo.PROFILE_ID:
            node = self.node()
            answer = node.answer(aps.cluster_id, contents)
            if node.permit_duration_s is not None:
                self.permit_joining(node.permit_duration_s)
            if answer is None:
                return
            cluster_id, contents = answer
            aps = ApsFrame(zdo.PROFILE_ID, cluster_id, 0, aps.source_endpoint, sequence=self._next_aps())
        self.emit(
            "incomingMessageHandler",
            Incoming.UNICAST,
            aps,
            LOOPBACK_LQI,
            LOOPBACK_RSSI_DBM,
            0x0000,
            NO_INDEX,
            NO_INDEX,
            contents,
        )
