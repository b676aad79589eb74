"""An emulated EZSP coordinator: a ZigBee USB stick as its host sees it, and as the mesh on its radio sees it.

    host (zigpy, bellows, ...) <-- serial bytes --> Coordinator <-- values --> a simulated mesh

`Coordinator` has no clock, file descriptor or task of its own. `PtyCoordinator` puts it on a pseudo-terminal. All calls
come from one thread, that of the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sim.ncp import ash_link, zdo
from sim.ncp.ezsp import (
    CALLBACK_PENDING,
    OVERFLOW,
    PROTOCOL_VERSION,
    STACK_TYPE_MESH,
    STACK_VERSION,
    ApsFrame,
    ChildData,
    EzspError,
    decode_fields,
    encode_fields,
    read_request,
    write_answer,
)
from sim.ncp.ezsp_commands import BY_ID, COMMANDS
from sim.ncp.ezsp_ids import (
    WELL_KNOWN_LINK_KEY,
    Aps,
    ConfigId,
    Counter,
    DecisionId,
    Ember,
    Ezsp,
    Incoming,
    NodeType,
    Policy,
    TrustCenter,
    Update,
)
from sim.ncp.messages import NODE_LQI, NODE_RSSI_DBM, Broadcast, Messages, Unicast
from sim.ncp.nvm import CHILDREN_MAX, Nvm, save
from sim.ncp.security import Security
from sim.ncp.state import Answer
from sim.pty_line import LineFaults, PtyLine

VERSION_ID = COMMANDS["version"].frame_id
INVALID_ID = COMMANDS["invalidCommand"].frame_id


class Coordinator(Security, Messages):
    """One EZSP 13 coordinator.

    Host's side, without input or output of its own: `receive_data`, `data_to_send`, `next_deadline_s`, `on_time`. All
    times are those of the clock `now`. Mesh's side: `join`, `rejoin`, `leave`, `receive`, `delivered`, `route_record`,
    and the callbacks `on_unicast` and `on_broadcast`. A call from the mesh's side can produce data to send: it calls
    `on_output`. With `state` set, changes of the non-volatile memory are written to that file.

    Faults: `deaf` loses every message of `receive` (joins and route records still arrive) while the host sees a healthy
    stick; `hung` acknowledges the host's frames and answers none; `crash` resets. `faults` of `PtyCoordinator` are
    those of the serial line.
    """

    deaf = False
    hung = False

    def __init__(
        self,
        nvm: Nvm,
        *,
        seed: int = 0,
        now: Callable[[], float] = time.monotonic,
        on_unicast: Callable[[Unicast], None] | None = None,
        on_broadcast: Callable[[Broadcast], None] | None = None,
        on_remove: Callable[[int, bytes], None] | None = None,
        state: Path | None = None,
    ) -> None:
        super().__init__(nvm, seed=seed, now=now)
        self.on_unicast, self.on_broadcast, self.on_remove = on_unicast, on_broadcast, on_remove
        self.on_output: Callable[[], None] | None = None
        self.on_reset: Callable[[], None] | None = None
        self.link = ash_link.AshLink()
        self.state = state
        self._handle = 0
        self.forget_messages()
        self._boot(ash_link.RESET_POWER_ON)

    # --- the host's side

    def receive_data(self, data: bytes, now_s: float) -> None:
        """Take bytes from the host and act on every whole frame in them. Never raise, whatever the bytes are."""
        self.link.receive_data(data, now_s)
        while (frame := self.link.next_frame()) is not None:
            if isinstance(frame, ash_link.Reset):
                if self.on_reset is not None:
                    self.on_reset()
                self._boot(ash_link.RESET_SOFTWARE)
            elif self.hung:
                self.drop_counts["commands_while_hung"] += 1
            else:
                self._on_ezsp(frame)
        self._run_due(now_s)
        self._save_if_changed()

    def data_to_send(self, now_s: float) -> bytes:
        """Return all bytes to write to the host now."""
        self._fill_link()
        out = self.link.data_to_send(now_s)
        self._count_link()
        return out

    def next_deadline_s(self) -> float | None:
        """Return the time for the next call of `on_time`, None if no call is needed."""
        waiting = self._events and self.link.failed_code is None
        times = [self.link.next_deadline_s(), self._events[0][0] if waiting else None]
        return min((t for t in times if t is not None), default=None)

    def on_time(self, now_s: float) -> None:
        """Act on every deadline that has passed."""
        self.link.on_time(now_s)
        self._run_due(now_s)
        self._save_if_changed()

    # --- the mesh's side

    def join(
        self,
        eui64: bytes,
        nwk: int,
        *,
        parent: int = 0x0000,
        link_key: bytes = WELL_KNOWN_LINK_KEY,
        logical_type: int = zdo.ROUTER,
        node: zdo.Node | None = None,
        announce: bool = True,
    ) -> bool:
        """Let a device try to join. Return True if it is now in the network.

        The join is refused while the network is down, joining is not permitted at the parent, or no child slot is free.
        It is also refused if the trust centre has no key for the device: only then the host gets a "join denied". A
        device whose own `link_key` differs from the trust centre's is reported as joining, but it cannot read the
        network key and is not in. From now on `node` answers ZDO requests for the device.
        """
        ram = self.ram
        opened_until_s = ram.permit_until_s if parent == 0x0000 else ram.routers_permit_until_s
        if not ram.up or opened_until_s <= self._now():
            self.drop_counts["joins_not_permitted"] += 1
            return False
        if parent == 0x0000 and logical_type == zdo.END_DEVICE and self._free_child(eui64) is None:
            self.drop_counts["joins_no_child_slot"] += 1
            return False
        self.count(Counter.JOIN_INDICATION)
        key = self.joining_key(eui64)
        decision = DecisionId.DENY_JOIN if key is None else DecisionId.USE_PRECONFIGURED_KEY
        self.emit("trustCenterJoinHandler", nwk, eui64, Update.UNSECURED_JOIN, decision, parent)
        if key is None:
            self.drop_counts["joins_denied"] += 1
        elif key != link_key:
            self.drop_counts["joins_wrong_key"] += 1
        else:
            self._enter(eui64, nwk, parent, logical_type, node, announce=announce)
            self._changed()
            return True
        self._changed()
        return False

    def rejoin(
        self,
        eui64: bytes,
        nwk: int,
        *,
        parent: int = 0x0000,
        secured: bool = True,
        logical_type: int = zdo.ROUTER,
        node: zdo.Node | None = None,
        announce: bool = True,
    ) -> bool:
        """Let a device that was in the network come back; unsecured only if the trust centre's policy allows it."""
        if not self.ram.up:
            return False
        allowed = secured or bool(self.ram.policies[Policy.TRUST_CENTER] & TrustCenter.ALLOW_UNSECURED_REJOINS)
        update = Update.SECURED_REJOIN if secured else Update.UNSECURED_REJOIN
        decision = DecisionId.DENY_JOIN if not allowed else DecisionId.NO_ACTION if secured else DecisionId(0)
        self.emit("trustCenterJoinHandler", nwk, eui64, update, decision, parent)
        if allowed:
            self._enter(eui64, nwk, parent, logical_type, node, announce=announce)
        self._changed()
        return allowed

    def leave(self, eui64: bytes, nwk: int) -> None:
        """Forget a device that has left, and report it to the host."""
        for index, child in list(self.nvm.children.items()):
            if child.eui64 == eui64:
                del self.nvm.children[index]
                self._dirty = True
                self.count(Counter.CHILD_REMOVED)
                self.emit("childJoinHandler", index, False, child.id, eui64, child.type)
        if (node := self.responders.get(nwk)) is not None and node.eui64 == eui64:
            del self.responders[nwk]
        if self.ram.up:
            self.emit("trustCenterJoinHandler", nwk, eui64, Update.DEVICE_LEFT, DecisionId.NO_ACTION, 0x0000)
        self._changed()

    def receive(
        self,
        *,
        nwk: int,
        profile_id: int,
        cluster_id: int,
        source_endpoint: int,
        destination_endpoint: int,
        payload: bytes,
        lqi: int,
        rssi_dbm: int,
        sequence: int = 0,
        broadcast: bool = False,
        group_id: int | None = None,
        encrypted: bool = False,
    ) -> bool:
        """Take one message from the radio. Return True if the coordinator takes it, and so acknowledges it.

        `lqi` 0..255 and `rssi_dbm` -128..127 are those of the last hop; `sequence` is the sender's APS counter, 0..255.
        EZSP 13 does not give the host the sender's EUI64. Raise ValueError if `lqi`, `rssi_dbm`, `nwk` or the length of
        the payload does not fit.
        """
        kind = Incoming.MULTICAST if group_id is not None else Incoming.BROADCAST if broadcast else Incoming.UNICAST
        if len(payload) > 128:
            raise ValueError(f"an incoming message has at most 128 bytes of payload, not {len(payload)}")
        if not (0 <= lqi <= 255 and -128 <= rssi_dbm <= 127 and 0 <= nwk <= 0xFFF7):
            raise ValueError(f"no incoming message has lqi {lqi}, rssi_dbm {rssi_dbm}, nwk {nwk:#06x}")
        if self.deaf or self.link.failed_code is not None:
            self.drop_counts["heard_while_deaf"] += 1
            return False
        options = Aps.ENCRYPTION if encrypted else 0
        ends = (source_endpoint, destination_endpoint)
        aps = ApsFrame(profile_id, cluster_id, *ends, options, group_id or 0, sequence & 0xFF)
        taken = self.take_message(nwk, aps, payload, lqi=lqi, rssi_dbm=rssi_dbm, kind=kind)
        self._changed()
        return taken

    def delivered(self, handle: int, ok: bool) -> bool:
        """Report to the host whether one unicast arrived. Return False if nothing waits (any longer) for the handle."""
        known = super().delivered(handle, ok)
        self._changed()
        return known

    def route_record(self, nwk: int, eui64: bytes, relays: list[int], *, lqi: int, rssi_dbm: int) -> None:
        """Take a route record: the relays from the sender's first hop to our last hop."""
        self.ram.source_routes[nwk] = relays
        self.emit("incomingRouteRecordHandler", nwk, eui64, lqi, rssi_dbm, relays)
        self._changed()

    def route_error(self, nwk: int, *, many_to_one: bool = False) -> None:
        """Report to the host that a route to a node is broken."""
        status = Ember.MANY_TO_ONE_ROUTE_FAILURE if many_to_one else Ember.SOURCE_ROUTE_FAILURE
        self.emit("incomingRouteErrorHandler", status, nwk)
        self._changed()

    def sniffed(self, packet: bytes, *, lqi: int, rssi_dbm: int) -> None:
        """Take a raw MAC frame from the air. The host sees it only in manufacturing mode."""
        if self.ram.mfglib_channel is not None:
            self.emit("mfglibRxHandler", lqi, rssi_dbm, packet)
            self._changed()

    def crash(self, code: int = ash_link.RESET_WATCHDOG, *, dead: bool = False) -> None:
        """Reset without a request. The host gets RSTACK with that code; if `dead`, ERROR until it asks for a reset."""
        if dead:
            self.link.fail(code)
            self._callbacks.clear()
        else:
            self._boot(code)
        self._changed()

    # --- inside

    def do_removeDevice(self, nwk: int, _eui64: bytes, target: bytes) -> Answer:
        """Ask a device to leave. Without `on_remove`, a node in `responders` leaves at once."""
        if not self.ram.up:
            return (Ember.NETWORK_DOWN,)
        self.transmit()
        if self.on_remove is not None:
            remove = self.on_remove
            self.soon(lambda: remove(nwk, target))
        elif nwk in self.responders:
            self.soon(lambda: self.leave(target, nwk))
        return (Ember.SUCCESS,)

    def do_version(self, desired: int) -> Answer:
        self.ram.version_set = self.ram.version_set or desired == PROTOCOL_VERSION
        return PROTOCOL_VERSION, STACK_TYPE_MESH, STACK_VERSION

    def _boot(self, code: int) -> None:
        self.boot_state()
        self.forget_messages()
        self.link.reset(code)

    def _on_ezsp(self, data: bytes) -> None:
        try:
            request = read_request(data)
        except EzspError:
            self.drop_counts["frames_too_short"] += 1
            return
        command = BY_ID.get(request.frame_id)
        answer = getattr(self, f"do_{command.name}", None) if command is not None else None
        reason = None
        if not self.ram.version_set and request.frame_id != VERSION_ID:
            reason = Ezsp.VERSION_NOT_SET
        elif command is None or answer is None or (request.legacy and request.frame_id != VERSION_ID):
            reason = Ezsp.WRONG_DIRECTION if command is not None and command.callback else Ezsp.INVALID_FRAME_ID
        values: Answer = ()
        if reason is None and command is not None and answer is not None:
            try:
                parameters, rest = decode_fields(command.request, request.parameters)
            except EzspError:
                reason = Ezsp.TRUNCATED
            else:
                if rest:
                    self.drop_counts["requests_with_trailing_bytes"] += 1
                values = answer(*parameters)
        if reason is not None or command is None:
            self.drop_counts[f"refused_{request.frame_id:04x}"] += 1
            frame_id, parameters_out = INVALID_ID, bytes((reason or Ezsp.INVALID_FRAME_ID,))
        else:
            frame_id, parameters_out = command.frame_id, encode_fields(command.answer, values)
        self.ram.last_sequence = request.sequence
        flags = self._take_flags()
        frame = write_answer(request.sequence, frame_id, parameters_out, legacy=request.legacy, flags=flags)
        if not self.link.send(frame):
            self.drop_counts["answers_dropped"] += 1
        if command is not None and command.name == "resetNode":
            self.soon(lambda: self._boot(ash_link.RESET_SOFTWARE))

    def _run_due(self, now_s: float) -> None:
        if self.link.failed_code is None:  # a chip in the FAILED state waits for its reset and does nothing else
            self.run_due(now_s)

    def _fill_link(self) -> None:
        while self._callbacks and self.link.room and self.link.host_ready:
            name, values = self._callbacks.popleft()
            command = COMMANDS[name]
            frame = write_answer(
                self.ram.last_sequence,
                command.frame_id,
                encode_fields(command.answer, values),
                callback=True,
                flags=self._take_flags(),
            )
            self.link.send(frame)

    def _take_flags(self) -> int:
        flags = (OVERFLOW if self._overflow else 0) | (CALLBACK_PENDING if self._callbacks else 0)
        self._overflow = False
        return flags

    def _enter(
        self, eui64: bytes, nwk: int, parent: int, logical_type: int, node: zdo.Node | None, *, announce: bool
    ) -> None:
        self.transmit()
        for old, known in list(self.responders.items()):
            if known.eui64 == eui64 and old != nwk:
                del self.responders[old]
        if node is not None:
            self.responders[nwk] = node
        if parent == 0x0000 and logical_type == zdo.END_DEVICE and (index := self._free_child(eui64)) is not None:
            self.nvm.children[index] = ChildData(eui64, NodeType.SLEEPY_END_DEVICE, nwk)
            self._dirty = True
            self.emit("childJoinHandler", index, True, nwk, eui64, NodeType.SLEEPY_END_DEVICE)
        if announce:
            capability = zdo.MAC_SLEEPY if logical_type == zdo.END_DEVICE else zdo.MAC_ROUTER
            speaker = node or zdo.Node(eui64, nwk, logical_type, capability)
            aps = ApsFrame(zdo.PROFILE_ID, zdo.DEVICE_ANNCE, 0, 0)
            body = bytes((self._rng.randrange(256),)) + speaker.announcement()
            self.take_message(nwk, aps, body, lqi=NODE_LQI, rssi_dbm=NODE_RSSI_DBM, kind=Incoming.BROADCAST)

    def _free_child(self, eui64: bytes) -> int | None:
        most = min(self.ram.config[ConfigId.MAX_END_DEVICE_CHILDREN], CHILDREN_MAX)
        known = next((i for i, child in self.nvm.children.items() if child.eui64 == eui64), None)
        return known if known is not None else next((i for i in range(most) if i not in self.nvm.children), None)

    def _changed(self) -> None:
        self._save_if_changed()
        if self.on_output is not None:
            self.on_output()

    def _save_if_changed(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        self._saved_frame_counter = self.nvm.nwk_frame_counter
        if self.state is not None:
            try:
                save(self.state, self.nvm)
            except OSError as error:
                # A stick with worn-out flash continues, too. The user sees the count.
                self.drop_counts[f"state_not_saved_{error.errno}"] += 1

    def _count_link(self) -> None:
        counters = self.link.counters
        self.ram.counters[Counter.ASH_FRAMING] = min(counters.malformed, 0xFFFF)
        self.ram.counters[Counter.ASH_OVERFLOW] = min(counters.raw_dropped, 0xFFFF)


class PtyCoordinator(PtyLine):
    """A coordinator on a pseudo-terminal: `async with PtyCoordinator(coordinator, path):`. Hosts then open `path`.

    `path` becomes a symbolic link to the terminal's slave; without a `path`, use `.device`. Hosts may come and go.
    """

    def __init__(self, coordinator: Coordinator, path: Path | None = None, *, faults: LineFaults | None = None) -> None:
        super().__init__(coordinator, path, faults=faults)
        self.coordinator = coordinator
        coordinator.on_output = self.flush
        coordinator.on_reset = self.forget_unread
