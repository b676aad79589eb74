"""ZigBee device objects: what a node answers about itself on endpoint 0, profile 0.

    request    transaction sequence, parameters          cluster C
    answer     the same sequence, status, parameters     cluster C | 8000

The coordinator answers like this for itself. With `Node`, a host can interview simulated radios (an XBee 3, a button)
in the same way. Integers are little-endian; on the air an EUI64 is reversed. Source: ZigBee specification 05-3474-22,
chapter 2.4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

PROFILE_ID = 0x0000
RESPONSE = 0x8000

NWK_ADDR, IEEE_ADDR, NODE_DESC, POWER_DESC, SIMPLE_DESC, ACTIVE_EP, MATCH_DESC = range(7)
DEVICE_ANNCE, PARENT_ANNCE, BIND, UNBIND = 0x0013, 0x001F, 0x0021, 0x0022
MGMT_LQI, MGMT_RTG, MGMT_BIND, MGMT_LEAVE, MGMT_PERMIT_JOINING, MGMT_NWK_UPDATE = 0x31, 0x32, 0x33, 0x34, 0x36, 0x38

SUCCESS, INVALID_REQUEST, DEVICE_NOT_FOUND, INVALID_EP, NOT_ACTIVE, NOT_SUPPORTED = 0x00, 0x80, 0x81, 0x82, 0x83, 0x84
NEIGHBORS_PER_ANSWER, ROUTES_PER_ANSWER, ENDPOINTS_MAX = 3, 10, 32

COORDINATOR, ROUTER, END_DEVICE = 0, 1, 2
MAC_COORDINATOR, MAC_ROUTER, MAC_SLEEPY = 0x8F, 0x8E, 0x80
XBEE_MANUFACTURER, XBEE_PROFILE, XBEE_DATA_ENDPOINT, XBEE_COMMAND_ENDPOINT = 0x101E, 0xC105, 0xE8, 0xE6


@dataclass(frozen=True)
class Endpoint:
    """The simple descriptor of one endpoint."""

    endpoint: int
    profile_id: int
    device_id: int = 0
    device_version: int = 0
    input_clusters: tuple[int, ...] = ()
    output_clusters: tuple[int, ...] = ()

    def descriptor(self) -> bytes:
        head = struct.pack("<BHHB", self.endpoint, self.profile_id, self.device_id, self.device_version & 0x0F)
        return head + _clusters(self.input_clusters) + _clusters(self.output_clusters)


@dataclass(frozen=True)
class Neighbor:
    """One row of a neighbour table. `relationship`: 0 parent, 1 child, 2 sibling, 3 none."""

    eui64: bytes
    nwk: int
    logical_type: int
    lqi: int
    relationship: int = 2
    depth: int = 1
    rx_on_when_idle: bool = True


@dataclass(frozen=True)
class SourceRoute:
    """One row of a routing table. `status`: 0 active, 3 inactive."""

    destination: int
    next_hop: int
    status: int = 0


@dataclass
class Node:
    """A node that answers ZDO requests. `logical_type` is COORDINATOR, ROUTER or END_DEVICE."""

    eui64: bytes
    nwk: int
    logical_type: int = ROUTER
    mac_capability: int = MAC_ROUTER
    manufacturer_code: int = XBEE_MANUFACTURER
    server_mask: int = 0x2C00
    buffer_size: int = 82
    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    extended_pan_id: bytes = bytes(8)
    neighbors: list[Neighbor] = field(default_factory=list)
    routes: list[SourceRoute] = field(default_factory=list)
    permit_duration_s: int | None = None
    """The duration in the last Mgmt_Permit_Joining_req, None before the first. The owner of the node acts on it."""

    def announcement(self) -> bytes:
        """Return the parameters of a Device_annce without the sequence byte."""
        return struct.pack("<H", self.nwk) + self.eui64[::-1] + bytes((self.mac_capability,))

    def answer(self, cluster_id: int, payload: bytes, *, broadcast: bool = False) -> tuple[int, bytes] | None:
        """Return (cluster, payload) of the answer to one request, None if this node stays silent. Never raise.

        A broadcast never gets an error as answer. So if it asks for one address, only that node answers.
        """
        if not payload or cluster_id & RESPONSE or cluster_id in (DEVICE_ANNCE,):
            return None
        sequence, body = payload[:1], payload[1:]
        try:
            out = self._answer(cluster_id, body)
        except (struct.error, IndexError):
            out = bytes((INVALID_REQUEST,))
        if out is None or (broadcast and out[0] != SUCCESS):
            return None
        return cluster_id | RESPONSE, sequence + out

    def _answer(self, cluster_id: int, body: bytes) -> bytes | None:
        own = self.eui64[::-1] + struct.pack("<H", self.nwk)
        if cluster_id == NWK_ADDR:
            if len(body) < 10:
                raise IndexError
            return bytes((SUCCESS,)) + own if body[:8][::-1] == self.eui64 else None
        if cluster_id == IEEE_ADDR:
            return bytes((SUCCESS,)) + own if _u16(body) == self.nwk else None
        if cluster_id in (NODE_DESC, POWER_DESC, ACTIVE_EP, SIMPLE_DESC, MATCH_DESC):
            nwk = _u16(body)
            found = bytes((SUCCESS if nwk == self.nwk else DEVICE_NOT_FOUND,)) + body[:2]
            if cluster_id == NODE_DESC:
                return found + self._node_descriptor() if nwk == self.nwk else found
            if cluster_id == POWER_DESC:
                return found + b"\x10\xc1" if nwk == self.nwk else found
            if cluster_id == ACTIVE_EP:
                active = bytes(sorted(self.endpoints)) if nwk == self.nwk else b""
                return found + bytes((len(active),)) + active
            if cluster_id == MATCH_DESC:
                matches = bytes(self._matching(body[2:]))
                return found + bytes((len(matches),)) + matches if matches else None
            return self._simple_descriptor(nwk, body)
        if cluster_id == MGMT_LQI:
            return self._table(body[0], [self._neighbor_row(n) for n in self.neighbors], NEIGHBORS_PER_ANSWER)
        if cluster_id == MGMT_RTG:
            rows = [struct.pack("<HBH", r.destination, r.status & 7, r.next_hop) for r in self.routes]
            return self._table(body[0], rows, ROUTES_PER_ANSWER)
        if cluster_id == MGMT_BIND:
            return self._table(body[0], [], 1)
        if cluster_id == MGMT_PERMIT_JOINING:
            self.permit_duration_s = body[0]
            return bytes((SUCCESS,))
        return bytes((NOT_SUPPORTED,))

    def _simple_descriptor(self, nwk: int, body: bytes) -> bytes:
        where, number = body[:2], body[2]
        endpoint = self.endpoints.get(number)
        if nwk != self.nwk:
            return bytes((DEVICE_NOT_FOUND,)) + where + b"\x00"
        if endpoint is None:
            return bytes((INVALID_EP if not 1 <= number <= 254 else NOT_ACTIVE,)) + where + b"\x00"
        descriptor = endpoint.descriptor()
        return bytes((SUCCESS,)) + where + bytes((len(descriptor),)) + descriptor

    def _node_descriptor(self) -> bytes:
        return struct.pack(
            "<BBBHBHHHB",
            self.logical_type,
            0x40,  # no APS flags, 2.4 GHz
            self.mac_capability,
            self.manufacturer_code,
            self.buffer_size,
            self.buffer_size,
            self.server_mask,
            self.buffer_size,
            0,
        )

    def _matching(self, body: bytes) -> Iterator[int]:
        profile_id, inputs = _u16(body), body[2]
        wanted_in = struct.unpack_from(f"<{inputs}H", body, 3)
        outputs = body[3 + 2 * inputs]
        wanted_out = struct.unpack_from(f"<{outputs}H", body, 4 + 2 * inputs)
        for number, endpoint in sorted(self.endpoints.items()):
            hit = set(wanted_in) & set(endpoint.input_clusters) or set(wanted_out) & set(endpoint.output_clusters)
            if hit and profile_id in (endpoint.profile_id, 0xFFFF):
                yield number

    def _neighbor_row(self, n: Neighbor) -> bytes:
        flags = n.logical_type & 3 | n.rx_on_when_idle << 2 | (n.relationship & 7) << 4
        head = self.extended_pan_id[::-1] + n.eui64[::-1] + struct.pack("<H", n.nwk)
        return head + bytes((flags, 2, n.depth & 0x0F, n.lqi & 0xFF))

    @staticmethod
    def _table(start: int, rows: list[bytes], most: int) -> bytes:
        part = rows[start : start + most]
        return bytes((SUCCESS, min(len(rows), 255), start, len(part))) + b"".join(part)


def xbee(eui64: bytes, nwk: int) -> Node:
    """Return a node that answers as a mains-powered XBee 3 (ZigBee firmware): a router with Digi's two endpoints."""
    clusters = (0x0011, 0x0092)
    return Node(
        eui64,
        nwk,
        endpoints={
            XBEE_DATA_ENDPOINT: Endpoint(XBEE_DATA_ENDPOINT, XBEE_PROFILE, 0x0001, 0, clusters, clusters),
            XBEE_COMMAND_ENDPOINT: Endpoint(XBEE_COMMAND_ENDPOINT, XBEE_PROFILE, 0x0001, 0, (0x0021,), (0x00A1,)),
        },
    )


def _clusters(clusters: tuple[int, ...]) -> bytes:
    return struct.pack(f"<B{len(clusters)}H", len(clusters), *clusters)


def _u16(body: bytes) -> int:
    return int(struct.unpack_from("<H", body)[0])
