"""What the tests of the emulated stick share: a small EZSP host with its own clock, and zigpy on a pseudo-terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bellows.zigbee.application as bellows_application
import zigpy.types as zt

from sim.ncp import zdo
from sim.ncp.ash import AshFrame, Decoder, FrameKind, encode
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.ezsp import InitialSecurityState, NetworkParameters, decode_fields, encode_fields, write_request
from sim.ncp.ezsp_commands import BY_ID, COMMANDS
from sim.ncp.ezsp_ids import Ember, Extended, Ezsp
from sim.ncp.nvm import Nvm

EUI64 = bytes.fromhex("f4ce360000000001")
HASHED = bytes(range(16))
NETWORK_KEY = bytes(range(100, 116))
READER = bytes.fromhex("0013a20041f00d01")
READER_NWK = 0x4A2B
SEED = 20261123


class Host:
    """The smallest EZSP host. It sends one command at a time; its clock moves only when a test moves it."""

    def __init__(self, nvm: Nvm | None = None, **kwargs: Any) -> None:
        self.now_s = 100.0
        self.stick = Coordinator(nvm or Nvm(EUI64), now=lambda: self.now_s, **kwargs)
        self.sequence = 0
        self.callbacks: list[tuple[str, tuple[Any, ...]]] = []
        self.flags: list[int] = []
        self.reset()

    def reset(self) -> None:
        self.stick.receive_data(b"\x1a" * 32 + encode(AshFrame(FrameKind.RST)), self.now_s)
        self.tx = self.rx = 0
        (rstack,) = self.line()
        assert rstack.kind is FrameKind.RSTACK
        assert self("version", 13, legacy=True) == (13, 2, 0x7440)

    def line(self) -> list[AshFrame]:
        decoder, out = Decoder(), []
        decoder.receive_data(self.stick.data_to_send(self.now_s))
        while (frame := decoder.next_frame()) is not None:
            assert isinstance(frame, AshFrame)
            out.append(frame)
        return out

    def raw(self, payload: bytes) -> list[bytes]:
        """Send one frame's payload. Acknowledge all payloads that come, and return them."""
        self.stick.receive_data(encode(AshFrame(FrameKind.DATA, payload, self.tx, False, self.rx)), self.now_s)
        self.tx = (self.tx + 1) & 7
        return self.collect()

    def collect(self) -> list[bytes]:
        got = []
        while True:
            new = [f for f in self.line() if f.kind is FrameKind.DATA]
            if not new:
                return got
            got += [f.data for f in new]
            self.rx = (self.rx + len(new)) & 7
            self.stick.receive_data(encode(AshFrame(FrameKind.ACK, ack=self.rx)), self.now_s)

    def take(self, payloads: list[bytes], legacy: bool = False) -> tuple[str, tuple[Any, ...]] | None:
        answer = None
        for payload in payloads:
            if legacy:
                name, parameters = BY_ID[payload[2]].name, payload[3:]
                assert payload[1] == 0x80
            else:
                name, parameters = BY_ID[payload[3] | payload[4] << 8].name, payload[5:]
                assert payload[2] == 0x01
                self.flags.append(payload[1])
            schema = COMMANDS[name].answer
            values, rest = decode_fields(schema, parameters)
            assert not rest, (name, rest)
            if not legacy and payload[1] & 0x18:
                assert payload[1] & 0x18 == 0x10, "callbacks are asynchronous"
                assert payload[0] == self.sequence, "a callback bears the sequence last answered"
                self.callbacks.append((name, values))
            else:
                assert payload[0] == self.sequence
                assert answer is None
                answer = name, values
        return answer

    def __call__(self, name: str, *values: Any, legacy: bool = False) -> tuple[Any, ...]:
        self.sequence = (self.sequence + 1) & 0xFF
        command = COMMANDS[name]
        parameters = encode_fields(command.request, values)
        answer = self.take(self.raw(write_request(self.sequence, command.frame_id, parameters, legacy=legacy)), legacy)
        assert answer is not None, name
        assert answer[0] == name, answer
        return answer[1]

    def wait(self, seconds: float) -> None:
        """Let time pass, and stop at each deadline of the stick."""
        end_s = self.now_s + seconds
        while (deadline_s := self.stick.next_deadline_s()) is not None and deadline_s <= end_s:
            self.now_s = max(deadline_s, self.now_s)
            self.stick.on_time(self.now_s)
            assert self.take(self.collect()) is None
        self.now_s = end_s

    def form(self, **kwargs: Any) -> None:
        security = InitialSecurityState(0x1000 | 0x0200 | 0x0100 | 0x0084 | 0x0040, HASHED, NETWORK_KEY, 0, EUI64)
        assert self("setInitialSecurityState", security) == (Ember.SUCCESS,)
        network = {"extended_pan_id": bytes(range(8)), "pan_id": 0x1A2B, "tx_power_dbm": 8, "channel": 15}
        assert self("formNetwork", NetworkParameters(**network | kwargs)) == (Ember.SUCCESS,)
        assert ("stackStatusHandler", (Ember.NETWORK_UP,)) in self.callbacks


class Gateway(bellows_application.ControllerApplication):
    """Records every packet before zigpy sees it, and keeps the readers' frames from zigpy, as the gateway does."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.heard: list[zt.ZigbeePacket] = []

    def packet_received(self, packet: zt.ZigbeePacket) -> None:
        self.heard.append(packet)
        if packet.profile_id != zdo.XBEE_PROFILE:
            super().packet_received(packet)


class Listener:
    """Notes what zigpy reports about devices and the connection."""

    def __init__(self) -> None:
        self.joined: list[Any] = []
        self.initialized: list[Any] = []
        self.left: list[Any] = []
        self.lost = asyncio.Event()

    def device_joined(self, device: Any) -> None:
        self.joined.append(device)

    def device_initialized(self, device: Any) -> None:
        self.initialized.append(device)

    def device_left(self, device: Any) -> None:
        self.left.append(device)

    def connection_lost(self, _exc: Exception) -> None:
        self.lost.set()


def endpoint(number: int, ins: list[int], outs: list[int]) -> dict[str, Any]:
    """Return an entry for zigpy's option `additional_endpoints`."""
    return {
        "endpoint": number,
        "profile": zdo.XBEE_PROFILE,
        "device_type": 0,
        "device_version": 0,
        "input_clusters": ins,
        "output_clusters": outs,
    }


@asynccontextmanager
async def started(path: str, database: Path, *, second_start: bool = True) -> AsyncIterator[tuple[Gateway, Listener]]:
    """Start zigpy as the gateway does. `second_start`: start again when the stick has no endpoints."""
    config = {
        "device": {"path": path, "baudrate": 115200, "flow_control": "software"},
        "database_path": str(database),
        "use_thread": True,
        "source_routing": True,
        "network": {"channel": 15, "tx_power": 8, "country_code": "KR"},
        "ota": {"enabled": False},
        "topology_scan_enabled": False,
        "startup_energy_scan": False,
        "backup_enabled": True,
        "backup_period": 60,
        "validate_network_settings": True,
        "max_concurrent_requests": 8,
        "additional_endpoints": [endpoint(0xE8, [0x11, 0x92], [0x11]), endpoint(0xE6, [0xA1], [0x21])],
    }
    for last_try in (False, True) if second_start else (True,):
        app = await Gateway.new(config, auto_form=False, start_radio=False)
        listener = Listener()
        app.add_listener(listener)
        try:
            await app.startup(auto_form=True)
            # bellows adds the endpoints, then forming or restoring resets the stick: it needs a second start.
            status, _ = await app._ezsp.getExtendedValue(valueId=Extended.ENDPOINT_FLAGS, characteristics=0xE8)
            if status == Ezsp.SUCCESS or last_try:
                yield app, listener
                return
        finally:
            await app.shutdown()


@asynccontextmanager
async def stick(nvm: Nvm | None = None, **kwargs: Any) -> AsyncIterator[tuple[Coordinator, PtyCoordinator]]:
    """Run an emulated stick on a pseudo-terminal; yield it and its line."""
    loop = asyncio.get_running_loop()
    faults = kwargs.pop("faults", None)
    coordinator = Coordinator(nvm or Nvm(EUI64), seed=SEED, now=loop.time, **kwargs)
    async with PtyCoordinator(coordinator, faults=faults) as line:
        yield coordinator, line


def report(coordinator: Coordinator, payload: bytes, **kwargs: Any) -> bool:
    """Let the stick hear a reader's frame; return whether it acknowledges it."""
    fields: dict[str, Any] = {
        "nwk": READER_NWK,
        "profile_id": zdo.XBEE_PROFILE,
        "cluster_id": 0x11,
        "source_endpoint": 0xE8,
        "destination_endpoint": 0xE8,
        "payload": payload,
        "lqi": 187,
        "rssi_dbm": -71,
    }
    return coordinator.receive(**fields | kwargs)
