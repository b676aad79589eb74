"""The emulated NCP's networking commands: form, leave, permit joining, scans, radio, tokens."""

from __future__ import annotations

from dataclasses import replace

from sim.ncp.ezsp import NetworkParameters, RadioParameters, TokenInfo, ZigbeeNetwork
from sim.ncp.ezsp_ids import (
    NWK_UNUSED,
    Counter,
    CurrentSecurity,
    Ember,
    InitialSecurity,
    NetworkStatus,
    NodeType,
    Token,
)
from sim.ncp.state import LINK_STATUS_PERIOD_S, Answer, Core

CHANNELS = range(11, 27)
TX_POWER_DBM_MAX = 20
SYMBOL_S, SUPERFRAME_SYMBOLS = 16e-6, 960
TOKENS = (Token.NODE_DATA, Token.TRUST_CENTER, Token.NETWORK_MANAGEMENT, Token.RESTORED_EUI64, Token.NONCE_COUNTER)
NOISE_FLOOR_DBM, WIFI_DBM = -95, {1: -70, 6: -62, 11: -75}
"""The energy that a scan finds if the mesh gives none: a noise floor and three Wi-Fi networks, varied by the seed."""


class Network(Core):
    """The networking commands. An active scan finds `other_networks`; the mesh may fill it.

    With `scan_speed` 1 a scan takes as long as on the air, with 10 a tenth of that.
    """

    scan_speed: float = 1.0
    other_networks: tuple[tuple[ZigbeeNetwork, int, int], ...] = ()

    def energy_dbm(self, channel: int) -> int:
        """Return the energy on one channel, 11..26, in dBm. A mesh may replace this method."""
        centre_mhz = 2405 + 5 * (channel - 11)
        level = NOISE_FLOOR_DBM
        for wifi, dbm in WIFI_DBM.items():
            if abs(centre_mhz - (2407 + 5 * wifi)) <= 9:
                level = max(level, dbm)
        return level + self._rng.randint(-3, 3)

    def do_networkState(self) -> Answer:
        return (NetworkStatus.JOINED if self.ram.up else NetworkStatus.NO_NETWORK,)

    def do_networkInit(self, _bitmask: int) -> Answer:
        if self.ram.up:
            return (Ember.INVALID_CALL,)
        if self.nvm.network is None:
            return (Ember.NOT_JOINED,)
        self._go_up()
        return (Ember.SUCCESS,)

    def do_formNetwork(self, p: NetworkParameters) -> Answer:
        state = self.ram.initial_security
        if self.ram.up or self.nvm.network is not None:
            return (Ember.INVALID_CALL,)
        if state is None:
            return (Ember.SECURITY_STATE_NOT_SET,)
        if p.channel not in CHANNELS:
            return (Ember.PHY_INVALID_CHANNEL,)
        if p.tx_power_dbm > TX_POWER_DBM_MAX:
            return (Ember.PHY_INVALID_POWER,)
        self.nvm.network = replace(
            p,
            pan_id=self._rng.randrange(1, 0xFFF0) if p.pan_id == 0xFFFF else p.pan_id,
            extended_pan_id=p.extended_pan_id if any(p.extended_pan_id) else self._rng.randbytes(8),
            nwk_update_id=0,  # the stack ignores the host's value; hosts write the token
        )
        bits = state.bitmask
        self.nvm.network_key = state.network_key if bits & InitialSecurity.HAVE_NETWORK_KEY else self._rng.randbytes(16)
        self.nvm.network_key_sequence = state.network_key_sequence_number
        if bits & InitialSecurity.HAVE_PRECONFIGURED_KEY:
            self.nvm.link_key = state.preconfigured_key
        given = bits & InitialSecurity.HAVE_TRUST_CENTER_EUI64
        self.nvm.trust_center_eui64 = state.trust_center_eui64 if given else self.nvm.own_eui64
        self.nvm.security_bitmask = (
            CurrentSecurity.HAVE_TRUST_CENTER_LINK_KEY
            | (CurrentSecurity.GLOBAL_LINK_KEY if bits & InitialSecurity.TRUST_CENTER_GLOBAL_LINK_KEY else 0)
            | bits & CurrentSecurity.USES_HASHED_LINK_KEY & ~CurrentSecurity.GLOBAL_LINK_KEY
        )
        if not bits & InitialSecurity.NO_FRAME_COUNTER_RESET:
            self.nvm.nwk_frame_counter = self._saved_frame_counter = 0
        self._dirty = True
        self._go_up()
        return (Ember.SUCCESS,)

    def do_leaveNetwork(self) -> Answer:
        if not self.ram.up:
            return (Ember.INVALID_CALL,)
        self.transmit()
        self.ram.up = False
        self.nvm.forget_network()
        self._dirty = True
        self.soon(lambda: self._status(Ember.NETWORK_DOWN))
        return (Ember.SUCCESS,)

    def do_permitJoining(self, duration_s: int) -> Answer:
        if not self.ram.up:
            return (Ember.NETWORK_DOWN,)
        self.permit_joining(duration_s)
        return (Ember.SUCCESS,)

    def permit_joining(self, duration_s: int) -> None:
        """Open (1..254 s, 255 without limit) or close (0) the coordinator itself for joins."""
        was_open, now_s = self.ram.permit_until_s > self._now(), self._now()
        until_s = float("inf") if duration_s == 0xFF else now_s + duration_s if duration_s else -1.0
        self.ram.permit_until_s = until_s
        if duration_s and not was_open:
            self.soon(lambda: self._status(Ember.NETWORK_OPENED))
        elif not duration_s and was_open:
            self.soon(lambda: self._status(Ember.NETWORK_CLOSED))
        if 0 < duration_s < 0xFF:
            self.at(until_s, lambda: self._close_permit(until_s))

    def do_getEui64(self) -> Answer:
        return (self.nvm.own_eui64,)

    def do_getNodeId(self) -> Answer:
        return (0x0000 if self.ram.up else 0xFFFE,)

    def do_getNetworkParameters(self) -> Answer:
        if not self.ram.up or self.nvm.network is None:
            return Ember.NOT_JOINED, 0, NetworkParameters()
        return Ember.SUCCESS, NodeType.COORDINATOR, self.nvm.network

    def do_getRadioParameters(self, phy: int) -> Answer:
        net = self.nvm.network
        if phy or net is None:
            return Ember.NOT_JOINED, RadioParameters()
        return Ember.SUCCESS, RadioParameters(net.tx_power_dbm, 0, net.channel)

    def do_getPhyInterfaceCount(self) -> Answer:
        return (1,)

    def do_getParentChildParameters(self) -> Answer:
        return len(self.nvm.children), bytes(8), NWK_UNUSED

    def do_startScan(self, kind: int, channels: int, duration: int) -> Answer:
        wanted = [c for c in CHANNELS if channels >> c & 1]
        if kind not in (0, 1):
            return (Ember.MAC_INCORRECT_SCAN_TYPE,)
        if not wanted:
            return (Ember.MAC_INVALID_CHANNEL_MASK,)
        if duration > 14:
            return (Ember.MAC_BAD_SCAN_DURATION,)
        if self.ram.scanning:
            return (Ember.MAC_SCANNING,)
        self.ram.scanning = True
        each_s = SUPERFRAME_SYMBOLS * ((1 << duration) + 1) * SYMBOL_S / self.scan_speed
        self._scan(kind, wanted, each_s)
        return (Ember.SUCCESS,)

    def do_stopScan(self) -> Answer:
        self.ram.scanning = False
        return (Ember.SUCCESS,)

    def do_setRadioPower(self, power_dbm: int) -> Answer:
        if power_dbm > TX_POWER_DBM_MAX:
            return (Ember.PHY_INVALID_POWER,)
        if self.nvm.network is not None:
            self.nvm.network = replace(self.nvm.network, tx_power_dbm=power_dbm)
        return (Ember.SUCCESS,)

    def do_setRadioChannel(self, channel: int) -> Answer:
        if channel not in CHANNELS:
            return (Ember.PHY_INVALID_CHANNEL,)
        if self.nvm.network is None:
            return (Ember.NOT_JOINED,)
        self.nvm.network = replace(self.nvm.network, channel=channel)
        self._dirty = True
        self.soon(lambda: self._status(Ember.CHANNEL_CHANGED))
        return (Ember.SUCCESS,)

    def do_setLogicalAndRadioChannel(self, channel: int) -> Answer:
        return self.do_setRadioChannel(channel)

    def do_getLogicalChannel(self) -> Answer:
        return (0 if self.nvm.network is None else self.nvm.network.channel,)

    def do_setRadioIeee802154CcaMode(self, mode: int) -> Answer:
        return (Ember.SUCCESS if mode <= 4 else Ember.BAD_ARGUMENT,)

    def do_setConcentrator(
        self, on: bool, _type: int, _min_s: int, max_s: int, _route_errors: int, _failures: int, _hops: int
    ) -> Answer:
        self.ram.concentrator_period_s = max(max_s, 1) if on else 0
        self._start_many_to_one()
        return (Ember.SUCCESS,)

    def do_sendManyToOneRouteRequest(self, _type: int, _radius: int) -> Answer:
        if not self.ram.up:
            return (Ember.NETWORK_DOWN,)
        self._many_to_one()
        return (Ember.SUCCESS,)

    def do_setBrokenRouteErrorCode(self, _code: int) -> Answer:
        return (Ember.SUCCESS,)

    def do_setSourceRouteDiscoveryMode(self, mode: int) -> Answer:
        return (1000 * self.ram.concentrator_period_s if mode else 0xFFFFFFFF,)

    def do_getTokenCount(self) -> Answer:
        return (len(TOKENS),)

    def do_getTokenInfo(self, index: int) -> Answer:
        if index >= len(TOKENS):
            return Ember.INDEX_OUT_OF_RANGE, TokenInfo()
        token = TOKENS[index]
        size = len(self.nvm.read_token(token, 0) or b"")
        return Ember.SUCCESS, TokenInfo(token, token == Token.NONCE_COUNTER, False, size, 1)

    def do_getTokenData(self, token: int, index: int) -> Answer:
        data = self.nvm.read_token(token, index)
        return (Ember.FATAL,) if data is None else (Ember.SUCCESS, data)

    def do_setTokenData(self, token: int, index: int, data: bytes) -> Answer:
        if not self.nvm.write_token(token, index, data):
            return (Ember.BAD_ARGUMENT,)
        self._dirty = True
        return (Ember.SUCCESS,)

    def do_tokenFactoryReset(self, keep_frame_counter: bool, keep_boot_counter: bool) -> Answer:
        counter, boots = self.nvm.nwk_frame_counter, self.nvm.boot_counter
        self.nvm.forget_network()
        self.nvm.link_keys.clear()
        self.nvm.tokens.clear()
        self.nvm.restored_eui64 = b"\xff" * 8
        self.nvm.nwk_frame_counter = counter if keep_frame_counter else 0
        self._saved_frame_counter = self.nvm.nwk_frame_counter
        self.nvm.boot_counter = boots if keep_boot_counter else 0
        self.ram.up = False
        self._dirty = True
        return ()

    def do_mfglibStart(self, _callback: bool) -> Answer:
        if self.ram.up or self.ram.mfglib_channel is not None:
            return (Ember.INVALID_CALL,)
        self.ram.mfglib_channel = CHANNELS[0]
        return (Ember.SUCCESS,)

    def do_mfglibEnd(self) -> Answer:
        if self.ram.mfglib_channel is None:
            return (Ember.INVALID_CALL,)
        self.ram.mfglib_channel = None
        return (Ember.SUCCESS,)

    def do_mfglibSetChannel(self, channel: int) -> Answer:
        if self.ram.mfglib_channel is None or channel not in CHANNELS:
            return (Ember.PHY_INVALID_CHANNEL,)
        self.ram.mfglib_channel = channel
        return (Ember.SUCCESS,)

    def do_mfglibGetChannel(self) -> Answer:
        return (self.ram.mfglib_channel or 0,)

    def _go_up(self) -> None:
        self.ram.up = True
        self.soon(lambda: self._status(Ember.NETWORK_UP))
        self.at(self._now() + LINK_STATUS_PERIOD_S, self._link_status)
        self._start_many_to_one()

    def _status(self, status: Ember) -> None:
        self.emit("stackStatusHandler", status)

    def _close_permit(self, until_s: float) -> None:
        if self.ram.permit_until_s == until_s:
            self.ram.permit_until_s = -1.0
            self._status(Ember.NETWORK_CLOSED)

    def _link_status(self) -> None:
        if self.ram.up:
            self.transmit()
            self.count(Counter.MAC_TX_BROADCAST)
            self.at(self._now() + LINK_STATUS_PERIOD_S, self._link_status)

    def _start_many_to_one(self) -> None:
        self.ram.concentrator_round += 1
        mine = self.ram.concentrator_round

        def again() -> None:
            if mine == self.ram.concentrator_round and self.ram.concentrator_period_s and self.ram.up:
                self._many_to_one()
                self.at(self._now() + self.ram.concentrator_period_s, again)

        self.soon(again)

    def _many_to_one(self) -> None:
        self.transmit()
        self.count(Counter.MAC_TX_BROADCAST)
        self.count(Counter.ROUTE_DISCOVERY_INITIATED)
        if self.on_many_to_one is not None:
            self.on_many_to_one()

    def _scan(self, kind: int, left: list[int], each_s: float) -> None:
        def step() -> None:
            if not self.ram.scanning:
                left.clear()
            elif left:
                channel = left.pop(0)
                if kind == 0:
                    self.emit("energyScanResultHandler", channel, self.energy_dbm(channel))
                else:
                    for network, lqi, rssi_dbm in self.other_networks:
                        if network.channel == channel:
                            self.emit("networkFoundHandler", network, lqi, rssi_dbm)
            if left:
                self.at(self._now() + each_s, step)
            else:
                self.ram.scanning = False
                self.emit("scanCompleteHandler", 0, Ember.SUCCESS)

        self.at(self._now() + each_s, step)
