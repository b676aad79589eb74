"""One MQTT connection that always reconnects. It tries MQTT 5 first: only 5 says that a broker refused a message.

paho does the MQTT protocol only: our own event loop drives it, and every connection gets a new client, so that its
queues never hold a message that we would miss.
"""

import asyncio
import contextlib
import hmac
import random
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.health import OnHealth
from gateway.mqtt.keys import KeyFile
from gateway.options import MqttTable
from gateway.packets import PACKET_MAX_B, Bounded
from gateway.uplink import CityKey, Lane, Status, TopicKind, UplinkError, encode_status, seal, topic

KEEPALIVE_S = 15
CONNECT_TIMEOUT_S = 10.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.2, 10.0
LASTED_S = 10.0
"""A connection that lasted longer than this was a good one: the next back-off starts low again."""
SHORT_MAX = 4
"""After this many connections in a row that did not last (ALONE_S / 2) the operator is informed: some brokers do not
say that another client took one over."""
UNANSWERED_MAX = 2
"""After this many connections in a row on which the broker did not answer CONNECT, SUBSCRIBE or any PUBLISH, another
version of MQTT is tried. A single one may only be a broker that is just ending."""
TRY_5_AGAIN_S = 3600.0
UNACKED_MAX = {"sos": 100, "events": 16}
"""Most messages without a PUBACK; fewer if the broker asks for fewer."""
PUBACK_MAX_S = 20.0
GOODBYE_S = 2.0
ALONE_S = 60.0
"""A connection that lasts this long shows that no other client uses our client id."""
NO_SUBSCRIBER, NOT_AUTHORIZED, TAKEN_OVER, UNSUPPORTED_VERSION = 0x10, 0x87, 0x8E, 0x84
TCP_USER_TIMEOUT_MS = 15_000


class _BrokerClient(Bounded, paho.Client):
    """paho's client, which holds no more than is bounded."""


class _Closed(Exception):
    """The connection ended. refused: the reason code of a CONNACK that let us not in."""

    def __init__(self, why: str, *, refused: int | None = None) -> None:
        super().__init__(why)
        self.refused = refused


@dataclass
class BrokerAccess:
    """Where the broker is, and the names and credentials of this gateway there."""

    site: str
    gateway: str
    mqtt: MqttTable
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class Connection:
    """One MQTT connection that always reconnects. `up` is set while messages can be sent."""

    def __init__(
        self,
        address: BrokerAccess,
        lane: Lane,
        keys: KeyFile,
        *,
        on_health: OnHealth,
        on_ack: Callable[[Lane, bytes], None],
        status: Callable[[bool], Status] | None = None,
    ) -> None:
        self.address, self.lane, self._keys = address, lane, keys
        self.up = asyncio.Event()
        self.wake: set[asyncio.Event] = set()
        """Events to set when the connection comes up or ends, or when a PUBACK arrives."""
        self.session = 0
        """The number of connections so far: messages given to an earlier one may be lost."""
        self._unacked: dict[int, tuple[float, TopicKind]] = {}
        self._receive_max = 65535
        self.version = "5" if address.mqtt.protocol != "3.1.1" else "3.1.1"
        self.counters = {
            "connects": 0,
            "disconnects": 0,
            "published": 0,
            "pubacks": 0,
            "no_subscriber": 0,
            "not_authorized": 0,
            "refused": 0,
            "taken_over": 0,
            "breaches": 0,
        }
        self._on_health, self._on_ack, self._status = on_health, on_ack, status
        self._client: paho.Client | None = None
        self._ended: asyncio.Future[None] | None = None
        self._connected = self._subscribed = self._pubacked = False
        self._mute = False
        """The broker let us in but answered no PUBLISH the last time: only a PUBACK shows that it works again."""
        self._will_key: CityKey | None = None
        self._open_problems: set[str] = set()
        self._up_at = self._fell_back_at = 0.0
        self._unanswered = self._short = 0
        self._random = random.Random()
        self._stopping = False

    async def run(self, progress: Callable[[], None]) -> None:
        """Connect, and reconnect with back-off, until `stop`."""
        tries = 0
        while not self._stopping:
            progress()
            began = time.monotonic()
            try:
                await self._session(progress)
            except (OSError, ValueError, _Closed) as error:
                if not self._stopping:
                    self._say("broker_away", False, self._explain(error))
                fell_back = self._fall_back(error)
            else:
                fell_back = False
            finally:
                self._down()
            tries = 0 if time.monotonic() - began > LASTED_S else tries + 1
            if not fell_back and not self._stopping:
                most = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(tries, 10))
                await asyncio.sleep(self._random.uniform(BACKOFF_MIN_S, most))

    def room(self) -> int:
        """Return how many more messages may be sent before a PUBACK."""
        return min(UNACKED_MAX[self.lane], self._receive_max) - len(self._unacked)

    def publish(self, kind: TopicKind, payload: bytes, *, retain: bool = False) -> bool:
        """Seal one message (QoS 1) and give it to the connection; return False if it is not up, or has no room."""
        if self._client is None or not self.up.is_set() or self.room() <= 0:
            return False
        info = self._client.publish(self._topic(kind), self._sealed(kind, payload), qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        self._unacked[info.mid] = time.monotonic(), kind
        self.counters["published"] += 1
        return True

    async def stop(self) -> None:
        """Publish the offline status (retained), wait up to GOODBYE_S for PUBACKs, and disconnect; `run` returns."""
        self._stopping = True
        said = self._status is None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self.up.is_set() and (self._unacked or not said):
                    if not said and self._status is not None:
                        said = self.publish("status", encode_status(self._status(False)), retain=True)
                    await asyncio.sleep(0.02)
        self._end(None)
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_write()

    def publish_status(self) -> None:
        """Publish the status of this gateway again (retained), if this connection carries it."""
        if self._status is not None:
            self.publish("status", encode_status(self._status(True)), retain=True)

    # ---- one session ------------------------------------------------------------------------------------------------

    async def _session(self, progress: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._connected = self._subscribed = self._pubacked = False
        self._receive_max = 65535
        keys = self._keys.keys()
        if not keys:
            raise UplinkError(f"no key of the city in {self._keys.path}")
        self._will_key = keys[0]
        client = self._client = self._new_client(loop)
        mqtt = self.address.mqtt
        arguments: dict[str, Any] = {"keepalive": KEEPALIVE_S}
        if self.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = PACKET_MAX_B
            arguments |= {"clean_start": True, "properties": properties}
        await asyncio.to_thread(client.connect, mqtt.host, mqtt.port, **arguments)  # name look-up and TLS block
        sock: Any = client.socket()
        if sock is None:
            raise _Closed("closed at once")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        loop.add_reader(sock, self._readable, client, sock)
        self._want_write(client)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while not self._ended.done():
            progress()
            client.loop_misc()
            if not self._subscribed and time.monotonic() > deadline:
                raise _Closed(f"no answer to {self._asked()} in {CONNECT_TIMEOUT_S:.0f} s")
            if self._unacked and time.monotonic() - min(self._unacked.values())[0] > PUBACK_MAX_S:
                raise _Closed(f"a message without PUBACK for {PUBACK_MAX_S:.0f} s")
            if self._status is not None and self._keys.keys()[0] != self._will_key:
                client.disconnect()  # the city will not believe a will of an old key for ever: connect with a new one
                client.loop_write()
                break
            if self._connected and not self.up.is_set():
                self._came_up()  # SUBSCRIBE is on its way before any PUBLISH; a cry does not wait for its answer
            if self.up.is_set() and time.monotonic() - self._up_at > ALONE_S:
                for what in ("taken_over", "flapping"):
                    self._say(what, True, "the connection stands again")
            await asyncio.wait([self._ended], timeout=1.0 if self.up.is_set() and self._subscribed else 0.02)
        else:
            self._ended.result()

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> paho.Client:
        address, five = self.address, self.version == "5"
        client = _BrokerClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id(),
            clean_session=None if five else True,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True  # an error in one message must not end the loop; it is logged
        client.enable_logger()
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages_set(UNACKED_MAX[self.lane])
        client.max_inflight_messages_set(UNACKED_MAX[self.lane])
        if address.mqtt.username:
            client.username_pw_set(address.mqtt.username, address.password)
        if address.ca_file:
            client.tls_set(ca_certs=address.ca_file, certfile=address.cert_file, keyfile=address.key_file)
        if self._status is not None:
            will = self._sealed("status", encode_status(self._status(False)))
            client.will_set(self._topic("status"), will, qos=1, retain=True)
        client.on_breach = self._breach
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = lambda c, userdata, message: self._on_ack(self.lane, bytes(message.payload))
        client.on_socket_register_write = lambda c, userdata, sock: _call(loop, self._want_write, c)
        client.on_socket_close = lambda c, userdata, sock: _forget(loop, sock)
        return client

    def _readable(self, client: paho.Client, sock: Any) -> None:
        try:
            client.loop_read()
            while client.socket() is sock and isinstance(sock, ssl.SSLSocket) and sock.pending():
                client.loop_read()
        except Exception as error:  # if paho cannot read a packet, connect again, whatever it raised
            self._end(_Closed(f"the broker sent what is no MQTT: {error!r}"))

    def _want_write(self, client: paho.Client) -> None:
        sock: Any = client.socket()
        if client is self._client and sock is not None and client.want_write():
            with contextlib.suppress(ValueError, OSError):
                asyncio.get_running_loop().add_writer(sock, self._writable, client, sock)

    def _writable(self, client: paho.Client, sock: Any) -> None:
        client.loop_write()
        if not client.want_write():
            with contextlib.suppress(ValueError, OSError):  # closed in the meantime
                asyncio.get_running_loop().remove_writer(sock)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._end(_Closed(f"the broker refused us: {reason}", refused=reason.value))
            return
        self._connected = True
        self._receive_max = getattr(properties, "ReceiveMaximum", 65535)
        client.subscribe(self._topic("ack"), qos=1)

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._say("ack_denied", False, f"the broker will not let us hear {self._topic('ack')}; mend its ACL")
        else:
            self._say("ack_denied", True, "the city's acks can be heard")
        self._subscribed = True
        if not self._mute:
            self._say_connected()

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.value == TAKEN_OVER:
            self.counters["taken_over"] += 1
            text = f"another client calls itself {self._client_id()}: a copied box? stop one of them"
            self._say("taken_over", False, text)
        before = "" if self._subscribed else f" before it answered {self._asked()}"
        self._end(_Closed(f"the broker closed the connection{before} ({reason})"))

    def _breach(self, why: str) -> None:
        self.counters["breaches"] += 1
        self._end(_Closed(why))

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        _, kind = self._unacked.pop(mid, (0.0, self.lane))
        self.counters["pubacks"] += 1
        self._pubacked, self._mute = True, False
        self._say_connected()
        if reason.value == NO_SUBSCRIBER:
            what, detail = "no_subscriber", f"the broker takes {kind}, but no city listens; start its consumer"
        elif reason.value == NOT_AUTHORIZED:
            name = self._topic(kind)
            what, detail = "not_authorized", f"the broker will not let us publish to {name}; mend its ACL"
        elif reason.is_failure:
            what, detail = "refused", f"the broker refused a message of {kind}: {reason}"
        else:
            what = detail = ""
        for each in ("no_subscriber", "not_authorized", "refused"):
            if each != what:
                self._say(each, True, f"the broker no longer says so of {kind}", kind)
        if what:
            self.counters[what] += 1
            self._say(what, False, detail, kind)
        for event in self.wake:
            event.set()

    def _came_up(self) -> None:
        self.counters["connects"] += 1
        self.session += 1
        self._up_at = time.monotonic()
        self.up.set()
        self.publish_status()
        for event in self.wake:
            event.set()

    def _down(self) -> None:
        if self.up.is_set():
            self.counters["disconnects"] += 1
            self._count_short(time.monotonic() - self._up_at)
        self.up.clear()
        self._unacked.clear()
        if self._ended is not None and self._ended.done():
            self._ended.exception()  # read it, else asyncio logs that it was never read
        client, self._client = self._client, None
        if client is not None and (sock := client.socket()) is not None:
            _forget(asyncio.get_running_loop(), sock)
            with contextlib.suppress(OSError):
                sock.close()
        for event in self.wake:
            event.set()

    def _count_short(self, lasted_s: float) -> None:
        self._short = self._short + 1 if lasted_s < ALONE_S / 2 else 0
        if self._short >= SHORT_MAX:
            text = f"{self._short} connections in a row did not last; another box that calls itself {self._client_id()}"
            self._say("flapping", False, f"{text}? else look at the broker and the line")

    def _end(self, why: _Closed | None) -> None:
        if self._ended is not None and not self._ended.done():
            if why is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(why)

    def _fall_back(self, error: Exception) -> bool:
        """Change the version of MQTT if that may help; return whether to connect again at once.

        A broker, or a box in front of it, that does not know a version may refuse it, close, send rubbish or be silent.
        """
        if not isinstance(error, _Closed):
            return False
        self._mute = self._subscribed and bool(self._unacked) and not self._pubacked
        answered = self._subscribed and not self._mute
        self._unanswered = 0 if answered or error.refused is not None else self._unanswered + 1
        useless = error.refused == UNSUPPORTED_VERSION or self._unanswered >= UNANSWERED_MAX
        if self.address.mqtt.protocol != "auto":
            return False
        if self.version == "5" and useless:
            self.version, self._fell_back_at, self._unanswered = "3.1.1", time.monotonic(), 0
            return True
        if self.version == "3.1.1" and useless:
            self.version, self._unanswered = "5", 0
        elif self.version == "3.1.1" and time.monotonic() - self._fell_back_at > TRY_5_AGAIN_S:
            self.version, self._unanswered = "5", UNANSWERED_MAX - 1  # one try: it did not know 5 an hour ago
        return False

    def _asked(self) -> str:
        return "SUBSCRIBE" if self._connected else "CONNECT"

    def _say_connected(self) -> None:
        self._say("broker_away", True, f"connected to {self.address.mqtt.host}, MQTT {self.version}")

    def _explain(self, error: Exception) -> str:
        where = f"{self.address.mqtt.host}:{self.address.mqtt.port}"
        return f"{where}: {error}; the {self.lane} lane keeps its rows and tries again"

    def _topic(self, kind: TopicKind) -> str:
        return topic(self.address.site, self.address.gateway, kind)

    def _sealed(self, kind: TopicKind, body: bytes) -> bytes:
        return seal(self._keys.keys(), self._topic(kind), body)

    def _client_id(self) -> str:
        """Return a name that no other account of the broker can guess: who knows it can throw us off, again and again.

        It follows from the key of the link, so it is the same at each start, and on a copied box.
        """
        assert self._will_key is not None  # a session begins with it
        name = f"ansim-{self.address.site}-{self.address.gateway}-{self.lane}"
        return f"{name}-{hmac.digest(self._will_key.secret, name.encode(), 'sha256').hex()[:16]}"

    def _say(self, what: str, ok: bool, detail: str, of: str = "") -> None:
        """Report a state of this lane, or of one kind of message, once when it begins and once when it ends."""
        word = f"{of or self.lane}_{what}"
        if ok == (word in self._open_problems):
            (self._open_problems.discard if ok else self._open_problems.add)(word)
            self._on_health(word, ok, detail)


def _call(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: Any) -> None:
    loop.call_soon_threadsafe(work, *arguments)  # paho connects in another thread


def _forget(loop: asyncio.AbstractEventLoop, sock: Any) -> None:
    with contextlib.suppress(ValueError, OSError):
        loop.remove_reader(sock)
        loop.remove_writer(sock)
