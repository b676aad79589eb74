"""EZSP 13: our tables against another implementation's, every command answered, and the stick's memory."""

from __future__ import annotations

import inspect
import random
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import bellows.ezsp.v13.commands as theirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zigpy.zdo import types as zdo_types

from sim.ncp import zdo
from sim.ncp.ash import AshFrame, Decoder, FrameKind, encode
from sim.ncp.chip import Coordinator
from sim.ncp.ezsp import (
    STRUCTS,
    ApsFrame,
    EzspError,
    InitialSecurityState,
    KeyContext,
    NetworkParameters,
    decode_fields,
    encode_fields,
    read_request,
    struct_schema,
    write_request,
)
from sim.ncp.ezsp_commands import BY_ID, COMMANDS
from sim.ncp.ezsp_ids import CONFIG_DEFAULTS, Ember, Ezsp, Incoming, KeyType, Sl, Token, ValueId
from sim.ncp.nvm import FRAME_COUNTER_STEP, Nvm, StateFileError, load, save

EUI64 = bytes.fromhex("f4ce360000000001")
HASHED = bytes(range(16))
NETWORK_KEY = bytes(range(100, 116))
SIZES = {"u8": 1, "s8": 1, "bool": 1, "u16": 2, "u32": 4, "eui64": 8, "key": 16, "bytes8": 8, "lv": 1, "lv16s": 1}


class Host:
    """The smallest EZSP host: one command at a time, on a clock that moves when told."""

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
        """Send one frame's payload; give back all payloads that come, acknowledged."""
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
        """Let time pass, deadline by deadline."""
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


def width(schema: Any) -> int:
    """Return the smallest number of bytes of some parameters."""
    total = 0
    for _, kind in schema:
        if kind in STRUCTS:
            total += width(struct_schema(kind))
        elif "*" in kind:
            item, _, count = kind.partition("*")
            total += SIZES[item] * (int(count) if count.isdigit() else 0)
        else:
            total += 4 if kind.startswith("lv32") else SIZES[kind]
    return total


def test_ids_and_number_of_parameters_agree_with_another_implementation() -> None:
    for command in COMMANDS.values():
        number, request, answer = theirs.COMMANDS[command.name]
        assert command.frame_id == number
        for ours, other in ((command.request, request), (command.answer, answer)):
            assert len(ours) == len(other if isinstance(other, dict) else other.fields), command.name


def some_value(kind: str, rng: random.Random) -> Any:
    """Return a value of that wire type in which no two fields are likely to be alike."""
    kind = kind.rstrip("?")
    if kind in STRUCTS:
        return STRUCTS[kind](*(some_value(k, rng) for _, k in struct_schema(kind)))
    if "*" in kind:
        item, _, count = kind.partition("*")
        return [some_value(item, rng) for _ in range(int(count))]
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "lv16s":
        return [rng.randrange(1 << 16) for _ in range(3)]
    if kind in ("lv", "lv32"):
        return rng.randbytes(5)
    if kind in ("u8", "s8", "u16", "u32"):
        return rng.randrange({"u8": 1 << 8, "s8": 1 << 7, "u16": 1 << 16, "u32": 1 << 32}[kind])
    return rng.randbytes(SIZES[kind])


def flat(value: Any) -> list[int]:
    """Return a decoded value of either implementation as a plain list of numbers, addresses most significant first."""
    if isinstance(value, list | tuple | bytes):
        numbers = [n for item in value for n in flat(item)]
        return numbers[::-1] if type(value).__name__ in ("EUI64", "ExtendedPanId") else numbers
    if is_dataclass(value):
        return [n for field in fields(value) for n in flat(getattr(value, field.name))]
    if hasattr(value, "as_dict"):
        return [n for field in value.fields for n in flat(getattr(value, field.name))]
    return [int(value) % 256 if -128 <= int(value) < 0 else int(value)]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_another_implementation_reads_our_bytes_field_by_field(name: str) -> None:
    rng = random.Random(name)
    command = COMMANDS[name]
    _, request, answer = theirs.COMMANDS[name]
    for ours, other in ((command.request, request), (command.answer, answer)):
        if (name == "addEndpoint" and ours is command.request) or not isinstance(other, dict):
            continue  # its lists are greedy there; test_coordinator sends these two from and to the real one
        values = tuple(some_value(kind, rng) for _, kind in ours)
        data = encode_fields(ours, values)
        assert decode_fields(ours, data) == (values, b"")
        for (field, _), wanted, kind in zip(ours, values, other.values(), strict=True):
            got, data = kind.deserialize(data)
            assert flat(got) == flat(wanted), (name, field)
        assert not data, name


def test_every_command_has_an_answer_that_fits_its_layout() -> None:
    for up in (False, True):
        for command in COMMANDS.values():
            if command.callback or command.name in ("invalidCommand", "version", "resetNode"):
                continue
            host = Host()
            if up:
                host.form()
            method = getattr(host.stick, f"do_{command.name}")
            assert len(inspect.signature(method).parameters) == len(command.request), command.name
            for filler in (b"\x00", b"\x01", b"\xff"):
                parameters = filler * width(command.request)
                if command.name == "addEndpoint":
                    parameters = bytes((5, 0, 0, 0, 0, 0, 1, 1, 6, 0, 7, 0))
                elif any(k == "lv" for _, k in command.request):
                    parameters += bytes(300)
                host.sequence = (host.sequence + 1) & 0xFF
                answer = host.take(host.raw(write_request(host.sequence, command.frame_id, parameters[:200])))
                assert answer is not None
                assert answer[0] in (command.name, "invalidCommand"), command.name


@given(data=st.binary(max_size=60))
@settings(max_examples=300)
def test_any_request_is_answered_and_none_raises(data: bytes) -> None:
    host = Host()
    host.raw(data)
    try:
        read_request(data)
    except EzspError:
        assert host.stick.drop_counts["frames_too_short"] >= 1


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=100)
def test_random_commands_with_random_parameters_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    host = Host()
    if rng.random() < 0.7:
        host.form()
    for _ in range(20):
        command = rng.choice(list(COMMANDS.values()))
        if command.name == "resetNode":
            continue
        parameters = rng.randbytes(rng.choice((0, width(command.request), width(command.request) + 20)))
        assert host.raw(write_request(rng.randrange(256), command.frame_id, parameters)), command.name
        host.now_s += rng.random() * 3


def test_nothing_but_version_is_answered_before_version() -> None:
    host = Host()
    host.stick.receive_data(b"\x1a" + encode(AshFrame(FrameKind.RST)), host.now_s)
    host.line()
    host.tx = host.rx = 0
    assert host.raw(write_request(1, 0x05, b"")) == [bytes((1, 0x80, 1, 0x58, 0, Ezsp.VERSION_NOT_SET))]
    assert host.raw(write_request(2, 0x00, b"\x04", legacy=True)) == [bytes((2, 0x80, 0, 13, 2, 0x40, 0x74))]
    assert host.raw(write_request(3, 0x05, b"")) == [bytes((3, 0x80, 1, 0x58, 0, Ezsp.VERSION_NOT_SET))]
    assert host.raw(write_request(4, 0x00, b"\x0d")) == [bytes((4, 0x80, 1, 0, 0, 13, 2, 0x40, 0x74))]
    assert host.raw(write_request(5, 0x05, b"")) == [bytes((5, 0x80, 1, 5, 0))]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (write_request(9, 0x7777, b""), Ezsp.INVALID_FRAME_ID),
        (write_request(9, 0x19, b"\x90"), Ezsp.WRONG_DIRECTION),
        (write_request(9, 0x52, b""), Ezsp.TRUNCATED),
        (write_request(9, 0x02, bytes((1, 0, 0, 0, 0, 0, 9, 9, 1, 0))), Ezsp.TRUNCATED),
    ],
)
def test_a_frame_it_cannot_use_is_an_invalid_command_with_the_reason(frame: bytes, reason: Ezsp) -> None:
    assert Host().raw(frame) == [bytes((9, 0x80, 1, 0x58, 0, reason))]


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


def test_what_survives_a_reset_and_what_does_not() -> None:
    host = Host()
    host("addEndpoint", 0xE8, 0xC105, 0, 0, 1, 0, [0x11], [])
    host("importLinkKey", 2, bytes(8), HASHED)
    host.form()
    network = host("getNetworkParameters")
    host.reset()
    assert host("networkState") == (0,)
    assert host("getExtendedValue", 0, 0xE8) == (Ezsp.INVALID_VALUE, bytes(2)), "two bytes even then"
    assert host("networkInit", 0) == (Ember.SUCCESS,)
    assert host("getNetworkParameters") == network
    assert host("exportLinkKeyByIndex", 2)[1::2] == (HASHED, Sl.OK)
    assert host("exportKey", KeyContext(KeyType.NETWORK)) == (NETWORK_KEY, Sl.OK)
    assert host("exportKey", KeyContext(KeyType.TC_LINK)) == (HASHED, Sl.OK)
    assert host("getCurrentSecurityState")[1].bitmask == 0x0094


def test_the_frame_counter_honours_the_host_grows_and_is_never_used_twice() -> None:
    host = Host()
    assert host("setValue", ValueId.NWK_FRAME_COUNTER, (50_000).to_bytes(4, "little")) == (Ezsp.SUCCESS,)
    host.form()
    assert host("setValue", ValueId.NWK_FRAME_COUNTER, bytes(4)) == (Ezsp.INVALID_CALL,)
    host.wait(61)
    counter = host("getNetworkKeyInfo")[1].frame_counter
    assert 50_004 <= counter <= 50_010, "a link status every 15 s"
    host.reset()
    assert host.stick.nvm.nwk_frame_counter >= counter + FRAME_COUNTER_STEP


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


def test_tokens_move_the_address_and_the_update_id() -> None:
    host = Host()
    other = bytes.fromhex("0011223344556677")
    assert host("getTokenData", 0x12345, 0) == (Ember.FATAL,)
    assert host("getTokenData", Token.NODE_DATA, 0) == (Ember.FATAL,), "no network yet"
    assert host("setTokenData", Token.RESTORED_EUI64, 0, other[::-1]) == (Ember.SUCCESS,)
    assert host("getEui64") == (other,)
    host.form()
    management = host("getTokenData", Token.NETWORK_MANAGEMENT, 0)[1]
    assert host("setTokenData", Token.NETWORK_MANAGEMENT, 0, management[:6] + b"\x07\x00") == (Ember.SUCCESS,)
    assert host("setTokenData", Token.NETWORK_MANAGEMENT, 0, b"short") == (Ember.BAD_ARGUMENT,)
    assert host("getNetworkParameters")[2].nwk_update_id == 7
    for token in Token:
        data = host("getTokenData", token, 0)
        assert len(data) == (1 if token is Token.CHILD_TABLE else 2), token


def test_a_manufacturing_token_is_written_once() -> None:
    host = Host()
    assert host("getMfgToken", 0x0C) == (b"\xff" * 8,)
    assert host("setMfgToken", 0x0C, bytes(range(8))) == (Ember.SUCCESS,)
    assert host("setMfgToken", 0x0C, bytes(range(1, 9))) == (Ember.INVALID_CALL,)
    assert host("getEui64") == (bytes(range(8))[::-1],)


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


def test_counters_can_be_read_and_cleared() -> None:
    host = Host()
    host.form()
    host.wait(31)
    (values,) = host("readCounters")
    assert len(values) == 41
    assert values[1] == 2
    assert host("readAndClearCounters") == (values,)
    assert host("readCounters")[0][1] == 0


def test_the_state_file_brings_the_stick_back_with_a_higher_counter(tmp_path: Path) -> None:
    path = tmp_path / "stick.json"
    host = Host(load(path, eui64=EUI64), state=path)
    host.form()
    host("importLinkKey", 1, EUI64[::-1], HASHED)
    host("permitJoining", 60)
    host("importTransientKey", b"\xff" * 8, b"ZigBeeAlliance09", 0)
    assert host.stick.join(EUI64[::-1], 0x99, logical_type=zdo.END_DEVICE)
    before = host.stick.nvm
    after = load(path, eui64=bytes(8))
    for name in ("eui64", "network", "network_key", "link_key", "link_keys", "children", "security_bitmask"):
        assert getattr(after, name) == getattr(before, name), name
    again = Host(after, state=path)
    assert again.stick.nvm.nwk_frame_counter > before.nwk_frame_counter
    assert again("networkInit", 0) == (Ember.SUCCESS,)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 99}', "\x00", '{"version": 1, "eui64": 3}'])
def test_a_damaged_state_file_says_so_and_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stick.json"
    path.write_text(text)
    with pytest.raises(StateFileError, match="move the file away"):
        load(path, eui64=EUI64)
    assert path.read_text() == text


def test_a_disk_that_is_full_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    host = Host(state=tmp_path / "missing" / "stick.json")
    host.form()
    assert any(name.startswith("state_not_saved") for name in host.stick.drop_counts)
    with pytest.raises(OSError, match="missing"):
        save(tmp_path / "missing" / "stick.json", host.stick.nvm)
