"""ZDO: a node answers for itself and no other, reads out long tables in pages, and survives damaged requests."""

from __future__ import annotations

import pytest
from zigpy.zdo import types as zdo_types

from sim.ncp import zdo
from sim.ncp.ezsp import ApsFrame
from tests.sim.ncp.bed import EUI64, Host


def test_tables_longer_than_an_answer_are_read_in_pages() -> None:
    node = zdo.xbee(EUI64, 0x1234)
    node.extended_pan_id = bytes(range(8))
    node.neighbors = [zdo.Neighbor(bytes((n,) * 8), n, zdo.ROUTER, 100 + n) for n in range(5)]
    cluster, first = node.answer(zdo.MGMT_LQI, b"\x07\x00") or (0, b"")
    assert (cluster, first[:5], len(first)) == (0x8031, bytes((7, 0, 5, 0, 3)), 5 + 3 * 22)
    _, second = node.answer(zdo.MGMT_LQI, b"\x08\x03") or (0, b"")
    assert (second[:5], len(second)) == (bytes((8, 0, 5, 3, 2)), 5 + 2 * 22)
    rest, table = zdo_types.Neighbors.deserialize(second[2:])[::-1]
    assert not rest
    assert [(n.nwk, n.lqi, n.device_type) for n in table.NeighborTableList] == [(3, 103, 1), (4, 104, 1)]
    assert table.NeighborTableList[0].extended_pan_id.serialize()[::-1] == bytes(range(8))
    _, empty = node.answer(zdo.MGMT_RTG, b"\x09\x00") or (0, b"")
    assert empty == bytes((9, 0, 0, 0, 0))


def test_a_broadcast_is_answered_by_the_node_it_asks_for_and_no_other() -> None:
    host = Host()
    host.form()
    reader = bytes.fromhex("0013a20041f00d01")
    host.stick.responders = {n: zdo.xbee(reader[:7] + bytes((n,)), n) for n in (1, 2, 3)}
    aps = ApsFrame(zdo.PROFILE_ID, zdo.NWK_ADDR, 0, 0)
    host.callbacks.clear()
    host("sendBroadcast", 0xFFFD, aps, 0, 1, b"\x21" + (reader[:7] + b"\x02")[::-1] + b"\x00\x00")
    heard = [v for n, v in host.callbacks if n == "incomingMessageHandler"]
    assert [(v[4], v[1].cluster_id, v[7]) for v in heard] == [
        (2, 0x8000, b"\x21\x00" + (reader[:7] + b"\x02")[::-1] + b"\x02\x00")
    ]


@pytest.mark.parametrize("cluster", [*range(0, 9), *range(0x20, 0x3A)])
def test_a_mutilated_zdo_request_gets_an_error_or_silence(cluster: int) -> None:
    node = zdo.xbee(EUI64, 0x1234)
    for size in range(12):
        for filler in (b"\x00", b"\xff", b"\x34\x12"):
            answer = node.answer(cluster, (b"\x01" + filler * 12)[:size])
            assert answer is None or (answer[0] == cluster | 0x8000 and answer[1][:1] == b"\x01")
    assert node.answer(cluster | 0x8000, b"\x01\x00\x00") is None
