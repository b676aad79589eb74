"""What a broker may make a connection to it hold in memory. Both ends of the link, gateway and city, use it.

paho sets no limits here: it reads a packet of 256 MB whole, keeps a PUBLISH of QoS 2 until the broker releases it, and
queues an answer to every packet of a broker that reads none.
"""

from collections.abc import Callable
from typing import Any

from gateway.uplink import MESSAGE_MAX_B

PACKET_MAX_B = MESSAGE_MAX_B + 1024
"""Longest packet that we ask a broker of MQTT 5 for. One of 3.1.1 cannot be asked."""
UNSENT_MAX = 2000
"""Packets that may wait for the socket. Our own messages and the answers to them are far fewer."""
SKIP_B = 64 * 1024
PUBLISH_QOS_2, TYPE_AND_QOS = 0x34, 0xF6


class Bounded:
    """Mixin of a paho client: `class Bound(Bounded, Client)`. It overrides paho's only read of the socket.

    - What is longer than PACKET_MAX_B is cut: the rest is read and thrown away, and the message is refused for its
      size. The connection stands: a broker of 3.1.1 would send the message again at the next one, for ever.
    - A PUBLISH of QoS 2 ends the connection, and so do more than UNSENT_MAX packets that the broker does not take.
      We subscribe with QoS 1, so no broker that keeps to MQTT sends one.
    """

    on_breach: Callable[[str], None] = staticmethod(lambda why: None)
    """Called with what the broker did, just before the connection ends for it."""

    def _sock_recv(self, bufsize: int) -> bytes:
        client: Any = self
        packet, read = client._in_packet, super()._sock_recv  # type: ignore[misc]
        if packet["command"] & TYPE_AND_QOS == PUBLISH_QOS_2:
            self._breach("the broker sent a message with QoS 2, which nobody subscribed; look at the broker")
        if len(client._out_packet) > UNSENT_MAX:
            self._breach(f"the broker did not read {UNSENT_MAX} of our packets; look at the broker and the line")
        if not packet["have_remaining"] or packet["remaining_length"] <= PACKET_MAX_B:
            return bytes(read(bufsize))
        room = PACKET_MAX_B - len(packet["packet"])
        if room > 1 or bufsize == 1:  # the last byte is read as ever: with it paho sees the end of the packet
            return bytes(read(max(1, min(bufsize - 1, room - 1))))
        skipped = read(min(bufsize - 1, SKIP_B))
        if not skipped:
            raise ConnectionError("closed by the broker")
        packet["to_process"] -= len(skipped)
        raise BlockingIOError  # for paho: nothing to keep now, come again

    def _breach(self, why: str) -> None:
        self.on_breach(why)
        raise ConnectionError(why)
