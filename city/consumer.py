"""Receives one lane from the broker. It has its own MQTT connection and thread, and acknowledges after the commit.

Every connect tries MQTT 5 first, and 3.1.1 only if the broker does not accept 5, because a 3.1.1 broker acknowledges
even a publish that its access list rejected. The emergency lane keeps a session at the broker for an hour, so an
emergency that is sent while the city restarts is delivered at once. The routine lane keeps none: its gateway sends
again from the watermark.
"""

import contextlib
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog
from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from sqlalchemy.exc import SQLAlchemyError

from city import intake
from city.config import MqttSection, first_line
from city.intake import MessageRefused, Stored
from city.store import CHECKPOINT_ROWS, Store, UnixClock, is_transient
from gateway import uplink
from gateway.uplink import Ack, Lane, Status, UplinkError, Watermark

KEEPALIVE_S = 20
SESSION_S = 3600
IN_FLIGHT_MAX = 20
"""Messages that the broker may send to one lane before the first is acknowledged (MQTT 5)."""
QUEUE_MAX = 500
"""Acknowledgements that may wait for the socket. More are dropped, because all are repeated."""
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.25, 10.0
WATERMARK_REPEAT_S = 5.0
WATERMARK_HEARD_S = 60.0
WATERMARKS_MAX = 4096
LOG_TEXT_MAX = 200

log = structlog.get_logger()


class Listener(Protocol):
    """What a lane calls after the store has committed a message. It calls from its own thread."""

    def on_stored(self, stored: Stored, now_s: float) -> None: ...
    def on_unreadable(self, incident: int | None) -> None: ...
    def on_status(self, status: Status, now_s: float) -> None: ...
    def is_online(self, gateway: str) -> bool: ...


class Consumer:
    """One lane: its connection, its thread and its counters."""

    def __init__(
        self, lane: Lane, *, site: str, mqtt: MqttSection, store: Store, clock: UnixClock, listener: Listener
    ) -> None:
        self.lane: Lane = lane
        self.site, self.mqtt, self.store = site, mqtt, store
        self._clock, self._listener = clock, listener
        self._client: Client | None = None
        self._stopping = threading.Event()
        self._down = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lane-{lane}", daemon=True)
        self._lock = threading.Lock()
        self._watermarks: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        """(gateway, epoch) -> (upto, unix seconds when the gateway was last heard)."""
        self._rows = 0
        self.connected = False
        self.subscribed = False
        self.protocol = ""
        self.problem = "not connected yet"
        self.messages = 0
        self.transient_failures = 0

    def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect. What was not acknowledged is sent again at the next connection."""
        self._stopping.set()
        self._down.set()
        self._thread.join(timeout=10)

    def publish(self, gateway: str, ack: Ack) -> bool:
        """Send an acknowledgement at least once (QoS 1). Return False without a connection; the caller repeats it."""
        client = self._client
        if client is None or not self.connected:
            return False
        try:
            return client.publish(uplink.topic(self.site, gateway, "ack"), uplink.encode_ack(ack), qos=1).rc == 0
        except (ValueError, RuntimeError):
            return False

    def remember(self, gateway: str, epoch: str, upto: int, now_s: float) -> None:
        """Publish a watermark now, and again every WATERMARK_REPEAT_S while its gateway is heard or online."""
        with self._lock:
            self._watermarks[gateway, epoch] = (upto, now_s)
            self._watermarks.move_to_end((gateway, epoch))
            while len(self._watermarks) > WATERMARKS_MAX:
                self._watermarks.popitem(last=False)
        self.publish(gateway, Watermark(epoch=epoch, lane=self.lane, upto=upto))

    # ---- connecting --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff_s = BACKOFF_MIN_S
        versions = {"auto": (MQTTv5, MQTTv311), "5": (MQTTv5,), "3.1.1": (MQTTv311,)}[self.mqtt.protocol]
        while not self._stopping.is_set():
            for version in versions:
                was_up, refused = self._connect(version)
                if was_up or not refused:
                    break
            backoff_s = BACKOFF_MIN_S if was_up else min(2 * backoff_s, BACKOFF_MAX_S)
            self._stopping.wait(backoff_s)

    def _connect(self, version: MQTTProtocolVersion) -> tuple[bool, bool]:
        """Keep one connection until it ends. Return (it was up, the broker did not accept this MQTT version)."""
        self._down.clear()
        self.problem = ""
        was_up = refused = False
        client = self._client = self._make(version)
        try:
            client.connect(self.mqtt.host, self.mqtt.port, KEEPALIVE_S, **self._session(version))
            client.loop_start()
            next_repeat = self._clock() + WATERMARK_REPEAT_S
            while not self._down.wait(0.5) and not self._stopping.is_set():
                was_up = was_up or self.connected
                if self._clock() >= next_repeat:
                    next_repeat = self._clock() + WATERMARK_REPEAT_S
                    self._repeat()
            was_up = was_up or self.subscribed
            refused = not was_up
        except (OSError, ValueError) as error:
            self.problem = f"broker {self.mqtt.host}:{self.mqtt.port}: {error}"
        finally:
            self.connected = self.subscribed = False
            self._client = None
            client.disconnect()
            client.loop_stop()
        if not self._stopping.is_set():
            log.warning("lane_down", lane=self.lane, problem=self.problem or "the broker closed the connection")
        return was_up, refused

    def _make(self, version: MQTTProtocolVersion) -> Client:
        clean = None if version == MQTTv5 else self.lane == "events"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ansim-city-{self.site}-{self.lane}",
            clean_session=clean,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_queued_messages_set(QUEUE_MAX)
        client.max_inflight_messages_set(100)
        if self.mqtt.username is not None:
            password = first_line(self.mqtt.password_file) if self.mqtt.password_file else None
            client.username_pw_set(self.mqtt.username, password)
        if self.mqtt.ca_file:
            context = ssl.create_default_context(cafile=self.mqtt.ca_file)
            if self.mqtt.cert_file and self.mqtt.key_file:
                context.load_cert_chain(self.mqtt.cert_file, self.mqtt.key_file)
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once
        return client

    def _session(self, version: MQTTProtocolVersion) -> dict[str, Any]:
        if version != MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if self.lane == "sos" else 0
        properties.ReceiveMaximum = IN_FLIGHT_MAX
        properties.MaximumPacketSize = uplink.MESSAGE_MAX_B + 1024
        return {"clean_start": self.lane == "events", "properties": properties}

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self.problem = f"broker {self.mqtt.host}:{self.mqtt.port} refused the connection: {reason}"
            return
        self.protocol = "5" if client.protocol == MQTTv5 else "3.1.1"
        kinds: tuple[uplink.TopicKind, ...] = ("sos", "status") if self.lane == "sos" else ("events",)
        filters = [uplink.topic_filter(kind).replace("+", self.site, 1) for kind in kinds]
        if client.protocol == MQTTv5:
            client.subscribe([(f, SubscribeOptions(qos=1)) for f in filters])
        else:
            client.subscribe([(f, 1) for f in filters])
        self.connected = True

    def _on_subscribe(self, client: Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        bad = [str(reason) for reason in reasons if reason.is_failure]
        if bad:
            self.problem = f"the broker refused lane {self.lane}: {', '.join(bad)}; let this user read ansim/v1/#"
            client.disconnect()
            return
        self.subscribed, self.problem = True, ""
        log.info("lane_up", lane=self.lane, protocol=self.protocol)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connected = self.subscribed = False
        if reason.is_failure and not self.problem:
            self.problem = f"broker {self.mqtt.host}:{self.mqtt.port}: {reason}"
            if "taken over" in str(reason):
                self.problem += "; another city with this site is running"
        self._down.set()

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        self.messages += 1
        if self.lane == "sos":
            with self.store.turn.hurry():
                self._handle(client, message)
        else:
            self.store.turn.give_way()
            self._handle(client, message)

    def _handle(self, client: Client, message: MQTTMessage) -> None:
        """Store one message, then acknowledge it. No content of a message can end the lane."""
        after: Callable[[], None] | None = None
        try:
            after = self._take(message)
        except MessageRefused as refused:
            log.warning("refused", lane=self.lane, reason=refused.reason, detail=_shown(refused))
            name = f"refused.{refused.reason}"
            self._safely(lambda: intake.count(self.store, name))
        except SQLAlchemyError as error:
            if is_transient(error):
                self._give_back(client, error)
                return
            if not self._keep(message, error):
                self._give_back(client, error)
                return
        except Exception as error:  # one bad message must not stop the next alarm: keep its bytes, go on
            if not self._keep(message, error):
                self._give_back(client, error)
                return
        client.ack(message.mid, message.qos)
        if after is not None:
            self._safely(after)

    def _take(self, message: MQTTMessage) -> Callable[[], None] | None:
        now_s = self._clock()
        try:
            site, gateway, kind = uplink.parse_topic(message.topic)
        except (UplinkError, UnicodeDecodeError) as error:
            raise MessageRefused("bad_topic", str(error)) from None
        if site != self.site:
            raise MessageRefused("wrong_site", f"site {site}, this city is {self.site}")
        payload = bytes(message.payload)
        if kind == "status":
            return self._take_status(gateway, payload, now_s)
        if kind != self.lane:
            raise MessageRefused("bad_topic", f"{kind} on lane {self.lane}")
        try:
            decoded = uplink.decode_urgent(payload) if kind == "sos" else uplink.decode_batch(payload)
        except UplinkError as error:
            return self._unreadable(message, gateway, error)
        try:
            intake.check_envelope(gateway, decoded)
        except MessageRefused as refused:
            if self.lane == "events" or refused.reason == "wrong_gateway":
                raise
            return self._unreadable(message, gateway, refused)  # right gateway, impossible numbers: still an emergency
        if isinstance(decoded, uplink.Urgent):
            stored = intake.store_urgent(self.store, message.topic, decoded, now_s)
        else:
            stored = intake.store_batch(self.store, message.topic, decoded, now_s)
        return lambda: self._after(stored, now_s)

    def _unreadable(self, message: MQTTMessage, gateway: str, error: Exception) -> Callable[[], None]:
        log.warning("unreadable", lane=self.lane, gateway=gateway, detail=_shown(error))
        raw = bytes(message.payload)
        number = intake.store_unreadable(self.store, message.topic, gateway, self.lane, raw, str(error), self._clock())
        return lambda: self._listener.on_unreadable(number)

    def _take_status(self, gateway: str, payload: bytes, now_s: float) -> Callable[[], None] | None:
        if not payload:  # the retained message was cleared
            return None
        try:
            status = uplink.decode_status(payload)
        except UplinkError as error:
            raise MessageRefused("bad_status", str(error)) from None
        if status.gateway != gateway or status.site != self.site:
            raise MessageRefused("wrong_gateway", f"topic of {gateway}, status of {status.gateway[:32]!r}")
        intake.store_status(self.store, status, now_s)
        return lambda: self._listener.on_status(status, now_s)

    def _after(self, stored: Stored, now_s: float) -> None:
        self.remember(stored.gateway, stored.epoch, stored.upto, now_s)
        self._listener.on_stored(stored, now_s)
        self._rows += stored.new
        if self._rows >= CHECKPOINT_ROWS:
            self._rows = 0
            self.store.checkpoint()

    def _keep(self, message: MQTTMessage, error: Exception) -> bool:
        """Keep the bytes of a message on which our own code failed. Return whether that worked."""
        log.error("failed_on_message", lane=self.lane, error=type(error).__name__, detail=_shown(error))
        try:
            _site, gateway, _kind = uplink.parse_topic(message.topic)
            self._safely(self._unreadable(message, gateway, error))
        except (SQLAlchemyError, UplinkError):
            return False
        return True

    def _give_back(self, client: Client, error: Exception) -> None:
        """Disconnect without acknowledging the message, because the store cannot write now. It is sent again later."""
        self.transient_failures += 1
        self.problem = f"store: {_shown(error)}; check its disk, then this lane goes on by itself"
        log.error("store_failed", lane=self.lane, detail=_shown(error))
        client.disconnect()

    def _safely(self, function: Callable[[], None]) -> None:
        """Run what follows a commit. A failure is logged, and a later repeat repairs it. It never ends the lane."""
        try:
            function()
        except Exception as error:
            log.error("after_commit_failed", lane=self.lane, error=type(error).__name__, detail=_shown(error))

    def _repeat(self) -> None:
        now_s = self._clock()
        with self._lock:
            due = list(self._watermarks.items())
        for (gateway, epoch), (upto, heard_at) in due:
            if now_s - heard_at < WATERMARK_HEARD_S or self._listener.is_online(gateway):
                self.publish(gateway, Watermark(epoch=epoch, lane=self.lane, upto=upto))


def _send_at_once(_client: Client, _data: Any, sock: Any) -> None:
    """Switch Nagle off. With it, an acknowledgement after another waits 40 ms for the broker's delayed ACK."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _shown(error: BaseException) -> str:
    """Return an error text, which may quote a peer, as short ASCII that is safe in a log."""
    text = msgspec.json.encode(str(error)[:LOG_TEXT_MAX]).decode()
    return text.encode("ascii", "backslashreplace").decode()
