"""An SOS button of another maker on an emulated stick: unmodified bellows interviews it, and it says alarm."""

import asyncio
from typing import Any

from sim.air.mesh import link_key
from sim.ncp import zdo
from sim.ncp.messages import Unicast
from sim.xbee.module import install_code
from tests.gateway.box.bed import Stick

HOME_AUTOMATION, ENDPOINT = 0x0104, 1
IAS_ZONE, IAS_ACE, IAS_WD, BASIC = 0x0500, 0x0501, 0x0502, 0x0000
READ, READ_ANSWER, DEFAULT_RESPONSE, UNSUPPORTED = 0x00, 0x01, 0x0B, 0x86


class Button:
    """A sleepy device with the clusters of a personal emergency button."""

    def __init__(self, stick: Stick, eui64: bytes, nwk: int) -> None:
        self.stick, self.eui64, self.nwk = stick, eui64, nwk
        self.sequence = 0
        stick.fate = self._answer

    def join(self, *, joiner: bytes | None = None) -> bool:
        """Join with the install code that a reader of this EUI64 has, as when it was enrolled in a reader's place."""
        endpoint = zdo.Endpoint(ENDPOINT, HOME_AUTOMATION, 0x0402, 0, (BASIC, IAS_ZONE), (IAS_ACE, IAS_WD))
        node = zdo.Node(self.eui64, self.nwk, zdo.END_DEVICE, zdo.MAC_SLEEPY, 0x120B, endpoints={ENDPOINT: endpoint})
        return self.stick.coordinator.join(
            self.eui64, self.nwk, link_key=link_key(install_code(joiner or self.eui64)), node=node
        )

    def says(
        self, body: bytes, cluster_id: int = IAS_ZONE, *, control: int = 0x09, command: int = 0x00, again: bool = False,
        maker: bytes = b"",
    ) -> bool:  # fmt: skip
        """Send one ZCL frame; return whether the stick took it. again: with the sequence of the frame before."""
        self.sequence = (self.sequence + (not again)) % 256
        return self.stick.coordinator.receive(
            nwk=self.nwk, profile_id=HOME_AUTOMATION, cluster_id=cluster_id, source_endpoint=ENDPOINT,
            destination_endpoint=ENDPOINT, payload=bytes((control,)) + maker + bytes((self.sequence, command)) + body,
            lqi=180, rssi_dbm=-65,
        )  # fmt: skip

    def status(self, bits: int, *, again: bool = False) -> bool:
        """Send a Zone Status Change Notification: bit 0 is its alarm."""
        return self.says(bits.to_bytes(2, "little") + b"\x00\x01\x00\x00", again=again)

    def answers(self) -> list[tuple[int, int, int]]:
        """Return (sequence, command, status) of each default response that reached it."""
        found = [m.payload for m in self.stick.zcl if m.nwk == self.nwk and m.cluster_id != BASIC]
        return [(p[1], p[3], p[4]) for p in found if p[0] & 0x03 == 0 and p[2] == DEFAULT_RESPONSE]

    def _answer(self, message: Unicast) -> bool:
        """Say "unsupported" to bellows' questions about maker and model, so that its interview ends soon."""
        payload = message.payload
        if message.nwk == self.nwk and message.cluster_id == BASIC and payload[2] == READ:
            ids = [payload[i : i + 2] for i in range(3, len(payload) - 1, 2)]
            reply = bytes((0x18, payload[1], READ_ANSWER)) + b"".join(i + bytes((UNSUPPORTED,)) for i in ids)
            fields: dict[str, Any] = {
                "nwk": self.nwk,
                "profile_id": HOME_AUTOMATION,
                "cluster_id": BASIC,
                "lqi": 180,
                "rssi_dbm": -65,
            }
            asyncio.get_running_loop().call_soon(
                lambda: self.stick.coordinator.receive(
                    **fields, source_endpoint=ENDPOINT, destination_endpoint=message.source_endpoint, payload=reply
                )
            )
        return True
