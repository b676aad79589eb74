"""The stick's network: it is formed, opened and left by the rules; scans end; a failed stick does no work."""

from __future__ import annotations

from sim.ncp import zdo
from sim.ncp.ash import FrameKind
from sim.ncp.ezsp import ApsFrame, InitialSecurityState, KeyContext, NetworkParameters, write_request
from sim.ncp.ezsp_ids import Ember, Incoming, KeyType, Sl
from tests.sim.ncp.bed import EUI64, HASHED, NETWORK_KEY, Host


def test_a_blank_stick_has_no_network_and_forms_one_only_with_keys() -> None:
    host = Host()
    assert host("networkInit", 0) == (Ember.NOT_JOINED,)
    assert host("networkState") == (0,)
    assert host("formNetwork", NetworkParameters(channel=15)) == (Ember.SECURITY_STATE_NOT_SET,)
    host("setInitialSecurityState", InitialSecurityState(0x300, HASHED, NETWORK_KEY))
    assert host("formNetwork", NetworkParameters(channel=27)) == (Ember.PHY_INVALID_CHANNEL,)
    assert host("formNetwork", NetworkParameters(channel=15, tx_power_dbm=21)) == (Ember.PHY_INVALID_POWER,)
    assert host("formNetwork", NetworkParameters(channel=15)) == (Ember.SUCCESS,)
    assert host("networkState") == (2,)
    status, node_type, network = host("getNetworkParameters")
    assert (status, node_type, network.channel) == (Ember.SUCCESS, 1, 15)
    assert network.pan_id != 0xFFFF
    assert any(network.extended_pan_id)


def test_a_network_left_is_forgotten() -> None:
    host = Host()
    host.form()
    assert host("leaveNetwork") == (Ember.SUCCESS,)
    assert host.callbacks[-1] == ("stackStatusHandler", (Ember.NETWORK_DOWN,))
    assert host("networkInit", 0) == (Ember.NOT_JOINED,)
    assert host("exportKey", KeyContext(KeyType.NETWORK))[1] == Sl.NOT_FOUND
    assert host("leaveNetwork") == (Ember.INVALID_CALL,)


def test_joining_closes_by_itself_and_keys_expire() -> None:
    host = Host()
    host.form()
    reader = bytes.fromhex("0013a20041f00d01")
    assert host("importTransientKey", reader, HASHED, 0) == (Sl.OK,)
    assert host("exportTransientKeyByEui", reader)[1::2] == (HASHED, Sl.OK)
    host("permitJoining", 60)
    assert host.callbacks[-1] == ("stackStatusHandler", (Ember.NETWORK_OPENED,))
    host.wait(60.5)
    assert host.callbacks[-1] == ("stackStatusHandler", (Ember.NETWORK_CLOSED,))
    assert not host.stick.join(reader, 1, link_key=HASHED)
    host.wait(300)
    host("permitJoining", 0xFF)
    assert not host.stick.join(reader, 1, link_key=HASHED), "its key has expired"
    host("importTransientKey", reader, HASHED, 0)
    assert host.stick.join(reader, 1, link_key=HASHED)


def test_a_secured_rejoin_needs_no_open_window() -> None:
    host = Host()
    host.form()
    assert host.stick.rejoin(EUI64[::-1], 0x77)
    host.take(host.collect())
    assert host.callbacks[-2][1] == (0x77, EUI64[::-1], 0, 3, 0)
    name, values = host.callbacks[-1]
    assert (name, values[0], values[1].cluster_id) == ("incomingMessageHandler", Incoming.BROADCAST, zdo.DEVICE_ANNCE)
    host("setPolicy", 0, 0)
    assert not host.stick.rejoin(EUI64[::-1], 0x77, secured=False)


def test_scans_take_their_time_and_end() -> None:
    host = Host()
    mask = sum(1 << c for c in range(11, 27))
    assert host("startScan", 0, mask, 3) == (Ember.SUCCESS,)
    assert host("startScan", 0, mask, 3) == (Ember.MAC_SCANNING,)
    host.wait(16 * 0.138 - 0.2)
    assert host.callbacks[-1][0] == "energyScanResultHandler"
    host.wait(0.5)
    assert [n for n, _ in host.callbacks] == ["energyScanResultHandler"] * 16 + ["scanCompleteHandler"]
    assert [v[0] for _, v in host.callbacks[:-1]] == list(range(11, 27))
    assert host("startScan", 0, 0, 3) == (Ember.MAC_INVALID_CHANNEL_MASK,)
    assert host("startScan", 1, mask, 0) == (Ember.SUCCESS,)


def test_counters_can_be_read_and_cleared() -> None:
    host = Host()
    host.form()
    host.wait(31)
    (values,) = host("readCounters")
    assert len(values) == 41
    assert values[1] == 2
    assert host("readAndClearCounters") == (values,)
    assert host("readCounters")[0][1] == 0


def test_a_failed_chip_neither_works_nor_keeps_the_clock_busy() -> None:
    host = Host(on_unicast=lambda _: None)
    host.form()
    host("sendUnicast", 0, 1, ApsFrame(0xC105, 0x11, 0xE8, 0xE8, 0x0040), 0, b"")
    host.stick.crash(0x06, dead=True)
    assert [f.kind for f in host.line()] == [FrameKind.ERROR]
    assert host.stick.next_deadline_s() is None
    assert not host.stick.receive(
        nwk=1, profile_id=0, cluster_id=0, source_endpoint=0, destination_endpoint=0, payload=b"", lqi=0, rssi_dbm=0
    )
    host.reset()
    assert host("networkInit", 0) == (Ember.SUCCESS,)


def test_a_hung_stick_acknowledges_and_does_not_answer() -> None:
    host = Host()
    host.stick.hung = True
    assert host.raw(write_request(1, 5, b"")) == []
    host.now_s += 0.1
    assert [(f.kind, f.ack) for f in host.line()] == [(FrameKind.ACK, host.tx)]
