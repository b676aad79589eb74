"""Unmodified zigpy and bellows against the emulated coordinator, on a pseudo-terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bellows.zigbee.application as bellows_application
import pytest
import zigpy.exceptions
import zigpy.types as zt
from zigpy.zdo import types as zdo_types

from sim.ncp import ash_link, zdo
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.ezsp_ids import Extended, Ezsp
from sim.ncp.messages import Broadcast, Unicast
from sim.ncp.nvm import Nvm
from sim.pty_line import LineFaults

EUI64 = bytes.fromhex("f4ce360000000001")
READER = bytes.fromhex("0013a20041f00d01")
READER_NWK = 0x4A2B
KEY = bytes(range(16))
SEED = 20261123


class Gateway(bellows_application.ControllerApplication):
    """Records every packet before zigpy looks at it, and takes the readers' frames for itself, as the gateway does."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.heard: list[zt.ZigbeePacket] = []

    def packet_received(self, packet: zt.ZigbeePacket) -> None:
        self.heard.append(packet)
        if packet.profile_id != zdo.XBEE_PROFILE:
            super().packet_received(packet)


class Listener:
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
    """An entry of zigpy's option `additional_endpoints`."""
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
    """The gateway's own way to start zigpy."""
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
            # Forming and restoring reset the stick after bellows told it its endpoints; they need a second start.
            status, _ = await app._ezsp.getExtendedValue(valueId=Extended.ENDPOINT_FLAGS, characteristics=0xE8)
            if status == Ezsp.SUCCESS or last_try:
                yield app, listener
                return
        finally:
            await app.shutdown()


@asynccontextmanager
async def stick(nvm: Nvm | None = None, **kwargs: Any) -> AsyncIterator[tuple[Coordinator, PtyCoordinator]]:
    loop = asyncio.get_running_loop()
    faults = kwargs.pop("faults", None)
    coordinator = Coordinator(nvm or Nvm(EUI64), seed=SEED, now=loop.time, **kwargs)
    async with PtyCoordinator(coordinator, faults=faults) as line:
        yield coordinator, line


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(limited())


async def until(condition: Callable[[], object], what: str, limit_s: float = 10.0) -> None:
    for _ in range(int(limit_s / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what}: not within {limit_s} s")


def report(coordinator: Coordinator, payload: bytes, **kwargs: Any) -> bool:
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


async def request(app: Gateway, data: bytes, *, ack: bool = True, nwk: int = READER_NWK) -> None:
    await app.send_packet(
        zt.ZigbeePacket(
            src=zt.AddrModeAddress(zt.AddrMode.NWK, 0x0000),
            src_ep=0xE8,
            dst=zt.AddrModeAddress(zt.AddrMode.NWK, nwk),
            dst_ep=0xE8,
            tsn=7,
            profile_id=zdo.XBEE_PROFILE,
            cluster_id=0x11,
            data=zt.SerializableBytes(data),
            tx_options=zt.TransmitOptions.ACK if ack else zt.TransmitOptions.NONE,
        )
    )


def test_a_raw_report_reaches_the_host_with_all_its_fields(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            assert app.state.network_info.channel == 15
            assert app.state.node_info.ieee.serialize()[::-1] == EUI64
            payload = bytes(range(64))
            assert report(coordinator, payload, sequence=200)
            assert report(coordinator, b"last", rssi_dbm=-128, lqi=0, nwk=0xFFF7, broadcast=True)
            reports = lambda: [p for p in app.heard if p.profile_id == zdo.XBEE_PROFILE]  # noqa: E731
            await until(lambda: len(reports()) == 2, "both reports")
            first, second = reports()
            assert (first.src.address, first.src_ep, first.dst_ep) == (READER_NWK, 0xE8, 0xE8)
            assert (first.cluster_id, first.tsn, first.lqi, first.rssi) == (0x11, 200, 187, -71)
            assert first.data.serialize() == payload
            assert (second.src.address, second.lqi, second.rssi) == (0xFFF7, 0, -128)
            assert second.dst.addr_mode == zt.AddrMode.Broadcast

    run(story)


def test_a_report_to_an_endpoint_nobody_added_is_not_acknowledged(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line):
            assert not report(coordinator, b"too early"), "no network yet"
            async with started(line.device, tmp_path / "z.db"):
                assert not report(coordinator, b"x", destination_endpoint=0x33)
                assert report(coordinator, b"x", destination_endpoint=0xE6)
        assert coordinator.drop_counts["heard_unknown_endpoint"] == 1
        assert coordinator.drop_counts["heard_without_network"] == 1

    run(story)


def test_a_deaf_stick_looks_healthy_to_its_host(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, listener):
            coordinator.deaf = True
            assert not report(coordinator, b"unheard")
            await app._watchdog_feed()
            assert not listener.lost.is_set()
            coordinator.deaf = False
            assert report(coordinator, b"heard")
            await until(lambda: any(p.profile_id == 0xC105 for p in app.heard), "report")

    run(story)


def test_a_unicast_is_delivered_or_fails_as_the_mesh_says(tmp_path: Path) -> None:
    sent: list[Unicast] = []

    async def story() -> None:
        fate = {b"good": True, b"bad": False}

        def mesh(message: Unicast) -> None:
            sent.append(message)
            loop.call_soon(coordinator.delivered, message.handle, fate[message.payload])

        loop = asyncio.get_running_loop()
        async with stick(on_unicast=mesh) as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            await request(app, b"good")
            with pytest.raises(zigpy.exceptions.DeliveryError, match="DELIVERY_FAILED"):
                await request(app, b"bad")
            await request(app, b"good", ack=False)
            with pytest.raises(zigpy.exceptions.DeliveryError, match="MESSAGE_TOO_LONG"):
                await request(app, bytes(83))

    run(story)
    assert [(m.nwk, m.payload, m.wants_ack) for m in sent] == [
        (READER_NWK, b"good", True),
        (READER_NWK, b"bad", True),
        (READER_NWK, b"good", False),
    ]
    assert {(m.profile_id, m.cluster_id, m.source_endpoint, m.destination_endpoint) for m in sent} == {
        (0xC105, 0x11, 0xE8, 0xE8)
    }
    assert len({m.handle for m in sent}) == len({m.sequence for m in sent}) == 3


def test_broadcasts_reach_the_mesh_until_the_broadcast_table_is_full(tmp_path: Path) -> None:
    sent: list[Broadcast] = []

    async def story() -> None:
        async with (
            stick(on_broadcast=sent.append) as (_, line),
            started(line.device, tmp_path / "z.db") as (app, _listener),
        ):
            del sent[:]
            refused = 0
            for number in range(20):
                try:
                    await app.broadcast(0xC105, 0x11, 0xE8, 0xE8, 0, 0, number, bytes((number,)))
                except zigpy.exceptions.DeliveryError:
                    refused += 1
            assert refused, "9 in a burst, then three in 4 s"
            await until(lambda: len(sent) == 20 - refused, "the rest")
            assert sent[0].payload == b"\x00"
            assert (sent[0].destination, sent[0].group_id, sent[0].cluster_id) == (0xFFFD, None, 0x11)

    run(story)


def test_only_the_reader_with_the_right_link_key_joins_and_is_interviewed(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, listener):
            xbee = zdo.xbee(READER, READER_NWK)
            assert not coordinator.join(READER, READER_NWK, link_key=KEY, node=xbee), "nobody permitted it"
            await app.permit_with_link_key(zt.EUI64(READER[::-1]), zt.KeyData(KEY), 60)
            stranger = bytes.fromhex("0013a20041f00d99")
            assert not coordinator.join(stranger, 0x1111), "the well-known key does not open an install-code window"
            assert not coordinator.join(READER, READER_NWK, link_key=bytes(16), node=xbee), "wrong install code"
            assert coordinator.join(READER, READER_NWK, link_key=KEY, node=xbee)
            ieee = zt.EUI64(READER[::-1])
            await until(lambda: ieee in [d.ieee for d in listener.initialized], "interview")
            device = app.get_device(ieee)
            assert device.nwk == READER_NWK
            assert sorted(device.endpoints) == [0, zdo.XBEE_COMMAND_ENDPOINT, zdo.XBEE_DATA_ENDPOINT]
            assert device.node_desc.manufacturer_code == zdo.XBEE_MANUFACTURER
            assert device.endpoints[0xE8].profile_id == 0xC105
            assert coordinator.drop_counts["joins_denied"] == 1
            assert coordinator.drop_counts["joins_wrong_key"] == 1
            coordinator.leave(READER, READER_NWK)
            await until(lambda: listener.left, "leave")

    run(story)


def test_an_attended_window_lets_a_button_with_the_well_known_key_in(tmp_path: Path) -> None:
    async def story() -> None:
        button = bytes.fromhex("00158d0001020304")
        node = zdo.Node(
            button,
            0x2222,
            zdo.END_DEVICE,
            zdo.MAC_SLEEPY,
            0x1002,
            endpoints={1: zdo.Endpoint(1, 0x0104, 0x0401, 0, (0x0000, 0x0500), (0x0501,))},
        )
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, listener):
            await app.permit(60)
            assert coordinator.join(button, 0x2222, logical_type=zdo.END_DEVICE, node=node)
            await until(lambda: listener.joined, "join")
            assert [c.eui64 for c in coordinator.nvm.children.values()] == [button]
            await app.permit(0)
            await until(lambda: coordinator.ram.permit_until_s < 0, "window closed")
            assert not coordinator.join(READER, READER_NWK)

    run(story)


def test_a_blank_stick_takes_over_the_network_of_the_one_that_died(tmp_path: Path) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        async with stick() as (old, line), started(line.device, database):
            pass
        blank = Nvm(bytes.fromhex("f4ce3600000000ff"))
        async with stick(blank) as (new, line), started(line.device, database) as (app, _):
            assert new.nvm.network == old.nvm.network
            assert new.nvm.network_key == old.nvm.network_key
            assert new.nvm.own_eui64 == EUI64, "the readers know their trust centre by its address"
            assert new.nvm.nwk_frame_counter >= old.nvm.nwk_frame_counter
            assert app.state.node_info.ieee.serialize()[::-1] == EUI64

    run(story)


def test_a_network_just_formed_needs_a_second_start_for_its_endpoints(tmp_path: Path) -> None:
    """bellows adds endpoints when it connects; forming resets the stick after that. `started` works round it."""

    async def story() -> None:
        async with stick() as (coordinator, line):
            async with started(line.device, tmp_path / "z.db", second_start=False):
                assert coordinator.ram.up
                assert not report(coordinator, b"unheard")
                assert coordinator.drop_counts["heard_unknown_endpoint"] == 1
            async with started(line.device, tmp_path / "z.db", second_start=False):
                assert report(coordinator, b"heard")

    run(story)


def test_a_stick_that_keeps_its_memory_needs_no_forming(tmp_path: Path) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        nvm = Nvm(EUI64)
        async with stick(nvm) as (_, line), started(line.device, database):
            formed, counter = nvm.network, nvm.nwk_frame_counter
        async with stick(nvm) as (coordinator, line), started(line.device, database) as (app, _):
            assert nvm.network == formed
            assert nvm.nwk_frame_counter > counter
            assert report(coordinator, b"x")
            await until(lambda: any(p.profile_id == 0xC105 for p in app.heard), "report")

    run(story)


@pytest.mark.parametrize("dead", [False, True])
def test_a_reset_out_of_the_blue_is_a_lost_connection_and_a_new_start_recovers(tmp_path: Path, dead: bool) -> None:
    async def story() -> None:
        database = tmp_path / "z.db"
        async with stick() as (coordinator, line):
            async with started(line.device, database) as (_, listener):
                formed = coordinator.nvm.network
                coordinator.crash(ash_link.RESET_WATCHDOG, dead=dead)
                await asyncio.wait_for(listener.lost.wait(), 5)
            async with started(line.device, database) as (app, _):
                assert coordinator.nvm.network == formed
                assert report(coordinator, b"again")
                await until(lambda: any(p.profile_id == 0xC105 for p in app.heard), "report")

    run(story)


def test_a_burst_of_200_reports_arrives_whole_in_order_within_the_window(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            widest = 0
            send = coordinator.data_to_send

            def watched(now_s: float) -> bytes:
                nonlocal widest
                out = send(now_s)
                widest = max(widest, coordinator.link.in_flight)
                return out

            coordinator.data_to_send = watched  # type: ignore[method-assign]
            for number in range(200):
                assert report(coordinator, number.to_bytes(2, "big") * 30)
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= 200, "200 reports")
            assert got() == [number.to_bytes(2, "big") * 30 for number in range(200)]
            assert 2 <= widest <= ash_link.WINDOW_MAX

    run(story)


def test_reports_beyond_the_buffers_are_dropped_counted_and_flagged(tmp_path: Path) -> None:
    async def story() -> None:
        faults = LineFaults()
        async with stick(faults=faults) as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            faults.stall(asyncio.get_running_loop().time() + 0.3)
            taken = sum(report(coordinator, number.to_bytes(2, "big")) for number in range(400))
            assert 240 <= taken <= 260
            assert coordinator.drop_counts["callbacks_dropped"] == 400 - taken
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= taken, "what was taken")
            assert got() == [number.to_bytes(2, "big") for number in range(taken)]

    run(story)


def test_damaged_bytes_on_the_line_cost_time_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        faults = LineFaults(seed=SEED)
        async with stick(faults=faults) as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            faults.corrupt_rate, faults.drop_rate = 0.001, 0.0005
            for number in range(150):
                assert report(coordinator, number.to_bytes(2, "big") * 30)
            got = lambda: [p.data.serialize() for p in app.heard if p.profile_id == 0xC105]  # noqa: E731
            await until(lambda: len(got()) >= 150, "150 reports", 40)
            faults.corrupt_rate = faults.drop_rate = 0.0
            assert got() == [number.to_bytes(2, "big") * 30 for number in range(150)]
            counters = coordinator.link.counters
            assert faults.corrupted > 0
            assert counters.retransmitted > 0, (faults, counters)

    run(story)


def test_counters_move_and_the_frame_counter_grows(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            before = coordinator.nvm.nwk_frame_counter
            report(coordinator, b"one")
            with pytest.raises(zigpy.exceptions.DeliveryError):
                await request(app, b"nobody is there")
            counters = {c.name: v for c, v in (await app._ezsp.read_counters()).items()}
            assert counters["COUNTER_APS_DATA_RX_UNICAST"] >= 1
            assert counters["COUNTER_APS_DATA_TX_UNICAST_FAILED"] == 1
            assert coordinator.nvm.nwk_frame_counter > before

    run(story)


def test_zdo_requests_of_remote_nodes_are_answered_by_the_stick(tmp_path: Path) -> None:
    sent: list[Unicast] = []

    async def story() -> None:
        async with (
            stick(on_unicast=sent.append) as (coordinator, line),
            started(line.device, tmp_path / "z.db"),
        ):
            coordinator.receive(
                nwk=READER_NWK,
                profile_id=0,
                cluster_id=zdo.ACTIVE_EP,
                source_endpoint=0,
                destination_endpoint=0,
                payload=b"\x55\x00\x00",
                lqi=200,
                rssi_dbm=-50,
            )
            await until(lambda: sent, "answer")
            answer = sent[0]
            assert (answer.nwk, answer.cluster_id, answer.handle) == (READER_NWK, 0x8005, 0)
            assert answer.payload[:4] == b"\x55\x00\x00\x00"
            assert {0xE8, 0xE6} <= set(answer.payload[5:])

    run(story)


def test_zigpy_reads_the_sticks_own_descriptors_and_tables(tmp_path: Path) -> None:
    async def story() -> None:
        async with stick() as (coordinator, line), started(line.device, tmp_path / "z.db") as (app, _):
            coordinator.responders[READER_NWK] = zdo.xbee(READER, READER_NWK)
            own = app.get_device(nwk=0x0000)
            status, nwk, endpoints = await own.zdo.Active_EP_req(0x0000)
            assert (status, nwk) == (zdo_types.Status.SUCCESS, 0x0000)
            assert {0xE8, 0xE6} <= set(endpoints)
            status, nwk, descriptor = await own.zdo.Simple_Desc_req(0x0000, 0xE8)
            assert (descriptor.profile, list(descriptor.input_clusters)) == (0xC105, [0x11, 0x92])
            status, table = await own.zdo.Mgmt_Lqi_req(0)
            (neighbor,) = table.NeighborTableList
            assert (neighbor.nwk, neighbor.ieee.serialize()[::-1]) == (READER_NWK, READER)
            assert neighbor.extended_pan_id == app.state.network_info.extended_pan_id
            status, routes = await own.zdo.Mgmt_Rtg_req(0)
            assert [r.DstNWK for r in routes.RoutingTableList] == [READER_NWK]

    run(story)
