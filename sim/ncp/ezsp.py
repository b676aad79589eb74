"""Conversion of EZSP version 13 frames, bytes <-> values, for both ends of the link.

    first frame after a reset (legacy)    seq, frame control, 00 (version), desired version
                            its answer    seq, 80, 00, version, stack type, stack version (2)
    every other frame                     seq, control low, control high, frame id (2, low byte first), parameters

    control low, NCP to host   1 NN CC P T O    NN network index, CC 00 answer / 10 asynchronous callback,
                                                P callbacks wait, T truncated, O callbacks were lost
    control high               00000001         frame format version 1, no security

Integers are little-endian. In memory an EUI64 and an extended PAN id are 8 bytes, most significant first. In EZSP
frames they are reversed, and only this module does that; `nvm.py` (tokens) and `zdo.py` reverse their own. Layouts of
parameters: `sim/ncp/ezsp_commands.py`. Source: UG100 (EZSP reference guide).

The fifteen dataclasses of `STRUCTS` are left as they are: their annotations are the wire layout, as data that
`encode_value` and `decode_value` read, so no structure has code of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

PROTOCOL_VERSION = 13
STACK_TYPE_MESH = 2
STACK_VERSION = 0x7440
"""EmberZNet 7.4.4.0, of the last series of stacks that speaks EZSP 13."""

LEGACY_ANSWER = 0x80
ANSWER_LOW, CALLBACK_LOW, OVERFLOW, CALLBACK_PENDING = 0x80, 0x90, 0x01, 0x04
CONTROL_HIGH = 0x01
FRAME_FORMAT_MASK = 0x03

U8 = Annotated[int, "u8"]
S8 = Annotated[int, "s8"]
U16 = Annotated[int, "u16"]
U32 = Annotated[int, "u32"]
Eui64 = Annotated[bytes, "eui64"]
Key = Annotated[bytes, "key"]

Value = Any
"""One decoded parameter: int, bool, bytes, a list of int, or one of the structures below."""

_INTEGERS = {"u8": "<B", "s8": "<b", "u16": "<H", "u32": "<I", "bool": "<B"}
_BYTES = {"key": 16, "bytes7": 7, "bytes8": 8, "bytes16": 16}


class EzspError(Exception):
    """The bytes are not a frame of this protocol. `reason` is one word, for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class NetworkParameters:
    """The parameters of a network. `channels` is a mask of the channels 11..26, bit n for channel n."""

    extended_pan_id: Eui64 = bytes(8)
    pan_id: U16 = 0xFFFF
    tx_power_dbm: S8 = 0
    channel: U8 = 0
    join_method: U8 = 0
    nwk_manager_id: U16 = 0
    nwk_update_id: U8 = 0
    channels: U32 = 0


@dataclass(frozen=True)
class ZigbeeNetwork:
    """Another network, as its ZigBee beacon describes it."""

    channel: U8
    pan_id: U16
    extended_pan_id: Eui64
    allowing_join: Annotated[bool, "bool"]
    stack_profile: U8 = 2
    nwk_update_id: U8 = 0


@dataclass(frozen=True)
class ApsFrame:
    """The header of one application message."""

    profile_id: U16
    cluster_id: U16
    source_endpoint: U8
    destination_endpoint: U8
    options: U16 = 0
    group_id: U16 = 0
    sequence: U8 = 0


@dataclass(frozen=True)
class BindingEntry:
    type: U8 = 0
    local: U8 = 0
    cluster_id: U16 = 0
    remote: U8 = 0
    identifier: Eui64 = bytes(8)
    network_index: U8 = 0


@dataclass(frozen=True)
class MulticastEntry:
    multicast_id: U16 = 0
    endpoint: U8 = 0
    network_index: U8 = 0


@dataclass(frozen=True)
class NeighborEntry:
    short_id: U16 = 0xFFFF
    average_lqi: U8 = 0
    in_cost: U8 = 0
    out_cost: U8 = 0
    age: U8 = 0
    long_id: Eui64 = bytes(8)


@dataclass(frozen=True)
class RouteEntry:
    destination: U16 = 0xFFFF
    next_hop: U16 = 0xFFFF
    status: U8 = 3
    age: U8 = 0
    concentrator_type: U8 = 0
    route_record_state: U8 = 0


@dataclass(frozen=True)
class ChildData:
    eui64: Eui64 = bytes(8)
    type: U8 = 0
    id: U16 = 0xFFFF
    phy: U8 = 0
    power: U8 = 0
    timeout: U8 = 0
    timeout_remaining: U32 = 0


@dataclass(frozen=True)
class InitialSecurityState:
    bitmask: U16 = 0
    preconfigured_key: Key = bytes(16)
    network_key: Key = bytes(16)
    network_key_sequence_number: U8 = 0
    trust_center_eui64: Eui64 = bytes(8)


@dataclass(frozen=True)
class CurrentSecurityState:
    bitmask: U16 = 0
    trust_center_eui64: Eui64 = bytes(8)


@dataclass(frozen=True)
class KeyContext:
    """The key that a security command is about. `derived_type` has two bytes in v13; it had one in v12."""

    core_key_type: U8 = 0
    key_index: U8 = 0
    derived_type: U16 = 0
    eui64: Eui64 = bytes(8)
    multi_network_index: U8 = 0
    flags: U8 = 0
    psa_key_alg_permission: U32 = 0


@dataclass(frozen=True)
class KeyMetadata:
    bitmask: U16 = 0
    outgoing_frame_counter: U32 = 0
    incoming_frame_counter: U32 = 0
    ttl_s: U16 = 0


@dataclass(frozen=True)
class NetworkKeyInfo:
    network_key_set: Annotated[bool, "bool"] = False
    alternate_network_key_set: Annotated[bool, "bool"] = False
    sequence_number: U8 = 0
    alternate_sequence_number: U8 = 0
    frame_counter: U32 = 0


@dataclass(frozen=True)
class RadioParameters:
    tx_power_dbm: S8 = 0
    page: U8 = 0
    channel: U8 = 0


@dataclass(frozen=True)
class TokenInfo:
    nvm3_key: U32 = 0
    is_counter: Annotated[bool, "bool"] = False
    is_indexed: Annotated[bool, "bool"] = False
    size: U8 = 0
    array_size: U8 = 0


STRUCTS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        NetworkParameters, ZigbeeNetwork, ApsFrame, BindingEntry, MulticastEntry, NeighborEntry, RouteEntry, ChildData,
        InitialSecurityState, CurrentSecurityState, KeyContext, KeyMetadata, NetworkKeyInfo, RadioParameters, TokenInfo,
    )
}  # fmt: skip


@cache
def struct_schema(name: str) -> tuple[tuple[str, str], ...]:
    """Return (field, wire type) of one of the structures above, in wire order."""
    cls = STRUCTS[name]
    hints = get_type_hints(cls, include_extras=True)
    return tuple((f.name, hints[f.name].__metadata__[0]) for f in fields(cls))


def encode_value(kind: str, value: Value) -> bytes:
    """Return one parameter's bytes. Raise ValueError or struct.error if the value does not fit its wire type."""
    if (code := _INTEGERS.get(kind)) is not None:
        return struct.pack(code, value)
    if kind == "eui64":
        return _sized(value, 8)[::-1]
    if (size := _BYTES.get(kind)) is not None:
        return _sized(value, size)
    if kind == "lv":
        return struct.pack("<B", len(value)) + bytes(value)
    if kind == "lv32":
        return struct.pack("<I", len(value)) + bytes(value)
    if kind == "lv16s":
        return struct.pack(f"<B{len(value)}H", len(value), *value)
    if "*" in kind:
        item = kind.split("*")[0]
        return b"".join(encode_value(item, v) for v in value)
    if type(value) is STRUCTS[kind]:
        return b"".join(encode_value(k, getattr(value, name)) for name, k in struct_schema(kind))
    raise ValueError(f"{value!r} is no {kind}")


def decode_value(kind: str, data: bytes, before: dict[str, Value]) -> tuple[Value, bytes]:
    """Return one parameter and the bytes after it. `before` holds the parameters already read, for counted lists.

    Raise EzspError("truncated") if bytes are missing.
    """
    if (code := _INTEGERS.get(kind)) is not None:
        head, rest = _take(data, struct.calcsize(code), kind)
        value = struct.unpack(code, head)[0]
        return (bool(value) if kind == "bool" else value), rest
    if kind == "eui64":
        head, rest = _take(data, 8, kind)
        return head[::-1], rest
    if (size := _BYTES.get(kind)) is not None:
        return _take(data, size, kind)
    if kind in ("lv", "lv32", "lv16s"):
        head, rest = _take(data, 4 if kind == "lv32" else 1, kind)
        size = int.from_bytes(head, "little") * (2 if kind == "lv16s" else 1)
        body, rest = _take(rest, size, kind)
        return (list(struct.unpack(f"<{size // 2}H", body)) if kind == "lv16s" else body), rest
    if "*" in kind:
        item, _, count = kind.partition("*")
        values = []
        for _ in range(int(count) if count.isdigit() else before[count]):
            value, data = decode_value(item, data, before)
            values.append(value)
        return values, data
    out = []
    for _, k in struct_schema(kind):
        value, data = decode_value(k, data, before)
        out.append(value)
    return STRUCTS[kind](*out), data


Schema = tuple[tuple[str, str], ...]


def encode_fields(schema: Schema, values: tuple[Value, ...]) -> bytes:
    """Return the bytes of a frame's parameters. Raise ValueError if there are too few or too many values.

    A field whose wire type ends in "?" may be left out, together with all fields after it.
    """
    needed = sum(not kind.endswith("?") for _, kind in schema)
    if not needed <= len(values) <= len(schema):
        raise ValueError(f"{len(values)} values for {[name for name, _ in schema]}")
    return b"".join(encode_value(kind.rstrip("?"), v) for (_, kind), v in zip(schema, values, strict=False))


def decode_fields(schema: Schema, data: bytes) -> tuple[tuple[Value, ...], bytes]:
    """Return a frame's parameters and the bytes left over. Raise EzspError("truncated") if bytes are missing."""
    out: dict[str, Value] = {}
    for name, kind in schema:
        if kind.endswith("?") and not data:
            break
        out[name], data = decode_value(kind.rstrip("?"), data, out)
    return tuple(out.values()), data


@dataclass(frozen=True, slots=True)
class Request:
    """The header of one frame from the host, and the bytes of its parameters."""

    sequence: int
    frame_id: int
    legacy: bool
    parameters: bytes


def read_request(data: bytes) -> Request:
    """Split a frame from the host. Raise EzspError("truncated") if it is shorter than its header."""
    if len(data) >= 3 and data[2] & FRAME_FORMAT_MASK != CONTROL_HIGH:
        return Request(data[0], data[2], True, data[3:])
    if len(data) < 5:
        raise EzspError("truncated", f"{len(data)} bytes")
    return Request(data[0], data[3] | data[4] << 8, False, data[5:])


def write_request(sequence: int, frame_id: int, parameters: bytes, *, legacy: bool = False) -> bytes:
    """Return a frame as a host sends it."""
    if legacy:
        return bytes((sequence, 0, frame_id)) + parameters
    return bytes((sequence, 0, CONTROL_HIGH, frame_id & 0xFF, frame_id >> 8)) + parameters


def write_answer(
    sequence: int, frame_id: int, parameters: bytes, *, legacy: bool = False, callback: bool = False, flags: int = 0
) -> bytes:
    """Return a frame as the NCP sends it. `flags` is made of OVERFLOW and CALLBACK_PENDING."""
    if legacy:
        return bytes((sequence, LEGACY_ANSWER | flags, frame_id)) + parameters
    low = (CALLBACK_LOW if callback else ANSWER_LOW) | flags
    return bytes((sequence, low, CONTROL_HIGH, frame_id & 0xFF, frame_id >> 8)) + parameters


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{size} bytes wanted, got {len(value)}")
    return bytes(value)


def _take(data: bytes, size: int, kind: str) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise EzspError("truncated", f"{kind} wants {size} bytes, {len(data)} left")
    return data[:size], data[size:]
