"""Unmodified zigpy and bellows on the emulated stick: messages arrive whole, both ways, and tables can be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zigpy.exceptions
import zigpy.types as zt
from zigpy.zdo import types as zdo_types

from sim.ncp import zdo
from sim.ncp.messages import Broadcast, Unicast
from tests.sim.ncp.bed import EUI64, READER, READER_NWK, Gateway, report, started, stick
from tests.waiting import run, until


async def request(app: Gateway, data: bytes, *, ack: bool = True, nwk: int = READER_NWK) -> None:
    """Send a frame to a reader through zigpy."""
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
