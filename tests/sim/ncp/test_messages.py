"""Messages between host and mesh: unicasts, broadcasts and groups keep their limits; callbacks wait for the host."""

from __future__ import annotations

from typing import Any

import pytest

from sim.ncp.ash import AshFrame, FrameKind, encode
from sim.ncp.ezsp import ApsFrame, write_request
from sim.ncp.ezsp_ids import CONFIG_DEFAULTS, Ember
from tests.sim.ncp.bed import Host


def test_a_unicast_nobody_answers_for_fails_after_three_tries() -> None:
    sent = []
    host = Host(on_unicast=sent.append)
    host.form()
    aps = ApsFrame(0xC105, 0x11, 0xE8, 0xE8, 0x0040)
    assert host("sendUnicast", 0, 0x1234, aps, 7, b"x")[0] == Ember.SUCCESS
    start_s = host.now_s
    host.wait(10)
    name, (_, destination, _, tag, status, contents) = host.callbacks[-1]
    assert (name, destination, tag, status, contents) == ("messageSentHandler", 0x1234, 7, Ember.DELIVERY_FAILED, b"")
    assert not host.stick.delivered(sent[0].handle, True), "too late"
    assert host.now_s - start_s >= 4.8
    host("setPolicy", 4, 0x41)
    host("sendUnicast", 0, 0x1234, aps, 8, b"hello")
    assert host.stick.delivered(sent[1].handle, True)
    host.take(host.collect())
    assert host.callbacks[-1][1][3:] == (8, Ember.SUCCESS, b"hello")


def test_unicasts_are_limited_and_need_a_network() -> None:
    host = Host(on_unicast=lambda _: None)
    aps = ApsFrame(0xC105, 0x11, 0xE8, 0xE8, 0x0040)
    assert host("sendUnicast", 0, 1, aps, 0, b"")[0] == Ember.NETWORK_DOWN
    host.form()
    statuses = [host("sendUnicast", 0, 1, aps, n, b"")[0] for n in range(40)]
    assert statuses.count(Ember.SUCCESS) == CONFIG_DEFAULTS[3]
    assert statuses[-1] == Ember.MAX_MESSAGE_LIMIT_REACHED
    assert host("sendUnicast", 0, 0xFFFC, aps, 0, b"")[0] == Ember.BAD_ARGUMENT


def test_broadcasts_are_limited_to_a_burst_and_a_rate() -> None:
    host = Host()
    host.form()
    aps = ApsFrame(0xC105, 0x11, 0xE8, 0xE8)
    statuses = [host("sendBroadcast", 0xFFFC, aps, 0, n, b"")[0] for n in range(12)]
    assert statuses == [Ember.SUCCESS] * 9 + [Ember.NETWORK_BUSY] * 3
    host.wait(4.1)
    statuses = [host("sendBroadcast", 0xFFFC, aps, 0, n, b"")[0] for n in range(5)]
    assert statuses == [Ember.SUCCESS] * 3 + [Ember.NETWORK_BUSY] * 2, "0.75 a second"


def test_a_group_is_heard_only_by_its_members() -> None:
    host = Host()
    host.form()
    message = {"nwk": 1, "profile_id": 0x0104, "cluster_id": 6, "source_endpoint": 1, "destination_endpoint": 1}
    common = message | {"payload": b"x", "lqi": 1, "rssi_dbm": -1, "group_id": 5}
    assert not host.stick.receive(**common)
    from sim.ncp.ezsp import MulticastEntry

    assert host("setMulticastTableEntry", 3, MulticastEntry(5, 1)) == (Ember.SUCCESS,)
    assert host("getMulticastTableEntry", 3) == (Ember.SUCCESS, MulticastEntry(5, 1))
    assert host.stick.receive(**common)


@pytest.mark.parametrize("bad", [{"payload": bytes(129)}, {"lqi": 256}, {"rssi_dbm": -129}, {"nwk": 0xFFFC}])
def test_a_message_no_radio_can_bring_is_the_callers_mistake(bad: dict[str, Any]) -> None:
    message = {"nwk": 1, "profile_id": 0xC105, "cluster_id": 6, "source_endpoint": 1, "destination_endpoint": 1}
    with pytest.raises(ValueError, match="message"):
        Host().stick.receive(**message | {"payload": b"", "lqi": 0, "rssi_dbm": 0} | bad)


def test_a_host_that_is_not_ready_gets_answers_and_no_callbacks() -> None:
    host = Host()
    host.form()
    host.callbacks.clear()
    host.stick.receive_data(encode(AshFrame(FrameKind.ACK, ack=host.rx, not_ready=True)), host.now_s)
    host.stick.emit("idConflictHandler", 5)
    assert host.line() == []
    host.stick.receive_data(
        encode(AshFrame(FrameKind.DATA, write_request(99, 5, b""), host.tx, False, host.rx)), host.now_s
    )
    host.tx = (host.tx + 1) & 7
    (answer,) = host.line()
    assert answer.data[:2] == bytes((99, 0x84)), "the answer, and the word that callbacks wait"
    host.rx = (host.rx + 1) & 7
    host.stick.receive_data(encode(AshFrame(FrameKind.ACK, ack=host.rx)), host.now_s)
    host.sequence = 99
    host.take(host.collect())
    assert host.callbacks == [("idConflictHandler", (5,))]


def test_lost_callbacks_are_flagged_in_the_next_frame_only() -> None:
    host = Host()
    host.form()
    host("setManufacturerCode", 1)
    for number in range(300):
        host.stick.emit("idConflictHandler", number)
    host.flags.clear()
    host.take(host.collect())
    assert host.flags[0] & 0x01
    assert not any(flags & 0x01 for flags in host.flags[1:])
    assert host.stick.drop_counts["callbacks_dropped"] == 50
