"""The emulated NCP's state, and what its commands share: clock, callbacks to the host, configuration, values, tokens.

`Core` and its subclasses in `network`, `security`, `tables` and `messages` make up `sim.ncp.chip.Coordinator`. A method
`do_NAME` answers the EZSP command NAME. It takes the command's parameters in order and returns those of the answer.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sim.ncp import zdo
from sim.ncp.ezsp import BindingEntry, InitialSecurityState, MulticastEntry, Value
from sim.ncp.ezsp_ids import (
    BUFFERS_MAX,
    CONFIG_DEFAULTS,
    COUNTERS,
    MFG_SIZES,
    NWK_UNUSED,
    POLICY_DEFAULTS,
    READ_ONLY_VALUES,
    VALUE_DEFAULTS,
    VERSION_INFO,
    ConfigId,
    Counter,
    Ember,
    Extended,
    Ezsp,
    ValueId,
)
from sim.ncp.nvm import FRAME_COUNTER_STEP, TOKEN_MAX, Nvm

Answer = tuple[Value, ...]

ENDPOINTS_MAX = 16
EVENTS_MAX = 4096
LINK_STATUS_PERIOD_S = 15.0
PROTECTED_CONFIG = frozenset(CONFIG_DEFAULTS) - {0x12, 0x13, 0x1F, 0x36, 0x38}
"""Configuration ids that set sizes of memory or of the stack. While the network is up, a change is refused."""
MFG_STRING, MFG_BOARD = b"Ansim simulator", b"EZSP 13 emulator"


@dataclass
class AddressEntry:
    eui64: bytes = bytes(8)
    nwk: int = NWK_UNUSED
    extended_timeout: bool = False


@dataclass
class TransientKey:
    key: bytes
    flags: int
    expires_s: float


@dataclass
class Ram:
    """The state that a reset of the chip loses."""

    config: dict[int, int] = field(default_factory=lambda: dict(CONFIG_DEFAULTS))
    values: dict[int, bytes] = field(default_factory=lambda: dict(VALUE_DEFAULTS))
    policies: dict[int, int] = field(default_factory=lambda: dict(POLICY_DEFAULTS))
    version_set: bool = False
    up: bool = False
    endpoints: dict[int, zdo.Endpoint] = field(default_factory=dict)
    multicast: dict[int, MulticastEntry] = field(default_factory=dict)
    bindings: dict[int, BindingEntry] = field(default_factory=dict)
    addresses: dict[int, AddressEntry] = field(default_factory=dict)
    extended_timeouts: set[bytes] = field(default_factory=set)
    transient_keys: dict[bytes, TransientKey] = field(default_factory=dict)
    initial_security: InitialSecurityState | None = None
    manufacturer_code: int = 0x1049
    counters: list[int] = field(default_factory=lambda: [0] * COUNTERS)
    permit_until_s: float = -1.0
    routers_permit_until_s: float = -1.0
    concentrator_period_s: int = 0
    concentrator_round: int = 0
    source_routes: dict[int, list[int]] = field(default_factory=dict)
    scanning: bool = False
    mfglib_channel: int | None = None
    broadcast_credit: float = 0.0
    broadcast_credit_s: float = 0.0
    last_sequence: int = 0
    aps_sequence: int = 0


class Core:
    """State, clock and callbacks. `drop_counts` counts, by name, what was dropped or refused."""

    def __init__(self, nvm: Nvm, *, seed: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        self.nvm = nvm
        self.ram = Ram()
        self.drop_counts: Tally[str] = Tally()
        self.responders: dict[int, zdo.Node] = {}
        self.on_many_to_one: Callable[[], None] | None = None
        self._now = now
        self._rng = random.Random(seed)
        self._callbacks: deque[tuple[str, Answer]] = deque()
        self._overflow = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_number = 0
        self._dirty = False
        self._saved_frame_counter = nvm.nwk_frame_counter

    @property
    def buffers(self) -> int:
        """The number of all packet buffers, as configured. Each callback that waits for the host holds one."""
        return min(self.ram.config[ConfigId.PACKET_BUFFER_COUNT], BUFFERS_MAX)

    @property
    def free_buffers(self) -> int:
        return max(self.buffers - len(self._callbacks), 0)

    def emit(self, name: str, *values: Value) -> bool:
        """Queue one callback for the host. Return False, and count it, before `version` or if no buffer is free.

        The host gets the OVERFLOW flag for a lack of buffers.
        """
        if not self.ram.version_set:
            self.drop_counts["callbacks_before_version"] += 1
            return False
        if self.free_buffers == 0:
            self.drop_counts["callbacks_dropped"] += 1
            self.count(Counter.ALLOCATE_BUFFER_FAILURE)
            self._overflow = True
            return False
        self._callbacks.append((name, values))
        return True

    def count(self, counter: int, by: int = 1) -> None:
        self.ram.counters[counter] = min(self.ram.counters[counter] + by, 0xFFFF)

    def transmit(self) -> None:
        """Count one secured frame on the air."""
        self.nvm.nwk_frame_counter = (self.nvm.nwk_frame_counter + 1) & 0xFFFFFFFF
        if self.nvm.nwk_frame_counter - self._saved_frame_counter >= FRAME_COUNTER_STEP:
            self._dirty = True

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Run an action at a time of the clock. Actions run in order of time, then in order of the calls."""
        if len(self._events) >= EVENTS_MAX:
            self.drop_counts["events_dropped"] += 1
            return
        self._event_number += 1
        heapq.heappush(self._events, (when_s, self._event_number, action))

    def soon(self, action: Callable[[], None]) -> None:
        """Run an action after the answer that is now being made."""
        self.at(self._now(), action)

    def run_due(self, now_s: float) -> None:
        for _ in range(EVENTS_MAX):
            if not self._events or self._events[0][0] > now_s:
                return
            heapq.heappop(self._events)[2]()

    def boot_state(self) -> None:
        """Clear what a reset loses, and do what the stack does at a start."""
        self.ram = Ram()
        self._callbacks.clear()
        self._events.clear()
        self._overflow = False
        self.nvm.boot()
        self._dirty = True

    def node(self) -> zdo.Node:
        """Return the node that gives the coordinator's own ZDO answers, as the host configured it."""
        net = self.nvm.network
        return zdo.Node(
            self.nvm.own_eui64,
            0x0000,
            zdo.COORDINATOR,
            zdo.MAC_COORDINATOR,
            self.ram.manufacturer_code,
            server_mask=0x2C41,  # specification revision 22, primary trust centre, network manager
            endpoints=self.ram.endpoints,
            extended_pan_id=bytes(8) if net is None else net.extended_pan_id,
            neighbors=[
                zdo.Neighbor(n.eui64, n.nwk, n.logical_type, 255, 1 if n.logical_type == zdo.END_DEVICE else 2)
                for n in self.responders.values()
            ],
            routes=[zdo.SourceRoute(nwk, nwk) for nwk in self.responders],
        )

    def do_nop(self) -> Answer:
        return ()

    def do_callback(self) -> Answer:
        return ()

    def do_echo(self, data: bytes) -> Answer:
        return (data,)

    def do_customFrame(self, payload: bytes) -> Answer:
        return Ember.LIBRARY_NOT_PRESENT, b""

    def do_getXncpInfo(self) -> Answer:
        return Ember.INVALID_CALL, 0, 0

    def do_getRandomNumber(self) -> Answer:
        return Ember.SUCCESS, self._rng.getrandbits(16)

    def do_resetNode(self) -> Answer:
        return ()

    def do_addEndpoint(
        self, endpoint: int, profile: int, device: int, version: int, _i: int, _o: int, ins: list[int], outs: list[int]
    ) -> Answer:
        if self.ram.up:
            return (Ezsp.INVALID_CALL,)
        if not 1 <= endpoint <= 254 or endpoint in self.ram.endpoints:
            return (Ezsp.INVALID_VALUE,)
        if len(self.ram.endpoints) >= ENDPOINTS_MAX:
            return (Ezsp.OUT_OF_MEMORY,)
        self.ram.endpoints[endpoint] = zdo.Endpoint(endpoint, profile, device, version, tuple(ins), tuple(outs))
        return (Ezsp.SUCCESS,)

    def do_getConfigurationValue(self, config: int) -> Answer:
        value = self.ram.config.get(config)
        return (Ezsp.INVALID_ID, 0) if value is None else (Ezsp.SUCCESS, value)

    def do_setConfigurationValue(self, config: int, value: int) -> Answer:
        if config not in self.ram.config:
            return (Ezsp.INVALID_ID,)
        if self.ram.up and config in PROTECTED_CONFIG:
            return (Ezsp.INVALID_CALL,)
        self.ram.config[config] = BUFFERS_MAX if config == ConfigId.PACKET_BUFFER_COUNT and value == 0xFF else value
        return (Ezsp.SUCCESS,)

    def do_setPolicy(self, policy: int, decision: int) -> Answer:
        if policy not in self.ram.policies:
            return (Ezsp.INVALID_ID,)
        self.ram.policies[policy] = decision
        return (Ezsp.SUCCESS,)

    def do_getPolicy(self, policy: int) -> Answer:
        decision = self.ram.policies.get(policy)
        return (Ezsp.INVALID_ID, 0) if decision is None else (Ezsp.SUCCESS, decision)

    def do_getValue(self, value_id: int) -> Answer:
        computed: dict[int, bytes] = {
            ValueId.FREE_BUFFERS: self.free_buffers.to_bytes(2, "little"),
            ValueId.NODE_SHORT_ID: (0 if self.ram.up else 0xFFFE).to_bytes(2, "little"),
            ValueId.VERSION_INFO: VERSION_INFO,
            ValueId.NEXT_ZIGBEE_SEQUENCE: bytes((self.ram.aps_sequence,)),
            ValueId.NWK_FRAME_COUNTER: self.nvm.nwk_frame_counter.to_bytes(4, "little"),
            ValueId.APS_FRAME_COUNTER: self.nvm.aps_frame_counter.to_bytes(4, "little"),
        }
        value = computed.get(value_id, self.ram.values.get(value_id))
        return (Ezsp.INVALID_ID, b"") if value is None else (Ezsp.SUCCESS, value)

    def do_setValue(self, value_id: int, value: bytes) -> Answer:
        if value_id in READ_ONLY_VALUES:
            return (Ezsp.INVALID_VALUE,)
        if value_id in (ValueId.NWK_FRAME_COUNTER, ValueId.APS_FRAME_COUNTER):
            if self.ram.up:
                return (Ezsp.INVALID_CALL,)
            if len(value) != 4:
                return (Ezsp.INVALID_VALUE,)
            counter = int.from_bytes(value, "little")
            if value_id == ValueId.NWK_FRAME_COUNTER:
                self.nvm.nwk_frame_counter = self._saved_frame_counter = counter
            else:
                self.nvm.aps_frame_counter = counter
            self._dirty = True
        elif value_id == ValueId.CLEAR_COUNTERS:
            self.ram.counters = [0] * COUNTERS
        elif value_id == ValueId.ENDPOINT_FLAGS:
            if len(value) != 3 or value[0] not in self.ram.endpoints:
                return (Ezsp.INVALID_VALUE,)
        elif value_id in self.ram.values:
            self.ram.values[value_id] = value
            if value_id == ValueId.TRANSIENT_KEY_TIMEOUT_S and len(value) == 2:
                self.ram.config[ConfigId.TRANSIENT_KEY_TIMEOUT_S] = int.from_bytes(value, "little")
        else:
            return (Ezsp.INVALID_ID,)
        return (Ezsp.SUCCESS,)

    def do_getExtendedValue(self, value_id: int, characteristics: int) -> Answer:
        if value_id == Extended.ENDPOINT_FLAGS:
            # The error for an unknown endpoint has two bytes, too: hosts read them before the status.
            known = characteristics & 0xFF in self.ram.endpoints
            return (Ezsp.SUCCESS, b"\x01\x00") if known else (Ezsp.INVALID_VALUE, bytes(2))
        if value_id == Extended.LAST_LEAVE_REASON:
            return Ezsp.SUCCESS, bytes(3)
        if value_id == Extended.SOURCE_ROUTE_OVERHEAD:
            relays = self.ram.source_routes.get(characteristics & 0xFFFF)
            return Ezsp.SUCCESS, bytes((0 if relays is None else 2 + 2 * len(relays),))
        return Ezsp.INVALID_ID, b""

    def do_getMfgToken(self, token: int) -> Answer:
        fixed = {1: MFG_STRING.ljust(16, b"\xff"), 2: MFG_BOARD.ljust(16, b"\xff")}
        return (self.nvm.mfg_tokens.get(token) or fixed.get(token) or self.nvm.mfg_token(token),)

    def do_setMfgToken(self, token: int, data: bytes) -> Answer:
        if len(data) != MFG_SIZES.get(token, -1):
            return (Ember.BAD_ARGUMENT,)
        if self.nvm.mfg_token(token).strip(b"\xff"):
            return (Ember.INVALID_CALL,)  # written once; only a flash programmer erases it
        self.nvm.mfg_tokens[token] = data
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_setToken(self, token: int, data: bytes) -> Answer:
        if token >= TOKEN_MAX:
            return (Ember.BAD_ARGUMENT,)
        self.nvm.tokens[token] = data
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_getToken(self, token: int) -> Answer:
        if token >= TOKEN_MAX:
            return Ember.BAD_ARGUMENT, bytes(8)
        return Ember.SUCCESS, self.nvm.tokens.get(token, b"\xff" * 8)

    def do_readCounters(self) -> Answer:
        return (list(self.ram.counters),)

    def do_readAndClearCounters(self) -> Answer:
        values = list(self.ram.counters)
        self.ram.counters = [0] * COUNTERS
        return (values,)

    def do_setManufacturerCode(self, code: int) -> Answer:
        self.ram.manufacturer_code = code
        return ()

    def do_setPowerDescriptor(self, _descriptor: int) -> Answer:
        return ()

    def do_setPassiveAckConfig(self, _config: int, _acks: int) -> Answer:
        return (Ember.SUCCESS,)

    def do_gpSinkTableClearAll(self) -> Answer:
        return ()

    def do_launchStandaloneBootloader(self, _mode: int) -> Answer:
        return (Ember.FATAL,)

    def do_getStandaloneBootloaderVersionPlatMicroPhy(self) -> Answer:
        return 0xFFFF, 0x04, 0x18, 0x03  # no bootloader
