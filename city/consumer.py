"""Receives one lane from the broker. It has its own MQTT connection and thread, and acknowledges after the commit.

Every connect tries MQTT 5 first, and 3.1.1 only if the broker does not accept 5, because a 3.1.1 broker acknowledges
even a publish that its access list rejected. The emergency lane keeps a session at the broker for an hour, so an
emergency that is sent while the city restarts is delivered at once. The routine lane keeps none: its gateway sends
again from the watermark.

An emergency that the store cannot take is shown from memory (`city.standby`) and has no watermark: its gateway keeps
it. Nothing here ends a lane for good. An exception, in our code or in paho's, ends the connection, and the lane
connects again.

Two cities of one site have one name at the broker, which lets in only the newest of a name. They would throw each
other off for ever. The city that is thrown off reports it and goes on under another name: then both get every message.
"""

import contextlib
import functools
import hashlib
import secrets
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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
from city.link import Link
from city.standby import Standby, StandbyFull
from city.store import CHECKPOINT_ROWS, Store, StoreAway, UnixClock, is_transient
from city.threads import Kept
from gateway import uplink
from gateway.packets import PACKET_MAX_B, Bounded
from gateway.uplink import Ack, Forged, Lane, Status, UplinkError, Watermark

KEEPALIVE_S = 20
SESSION_S = 3600
IN_FLIGHT_MAX = 20
"""Messages that the broker may send to one lane before the first is acknowledged (MQTT 5)."""
QUEUE_MAX = 500
"""Acknowledgements that may wait for the socket. More are dropped, because all are repeated."""
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.25, 5.0
UNACKED_MAX = 10
"""Emergencies in memory that are left unacknowledged at the broker too, so that a city that starts again gets them at
once. Later ones are kept by their gateways alone: the broker sends at most IN_FLIGHT_MAX, and new cries must pass."""
BUSY_S = 5.0
"""A message that takes longer than this is reported: the lane waits for it."""
WATERMARK_REPEAT_S = 5.0
WATERMARK_HEARD_S = 60.0
WATERMARKS_MAX = 4096
TAKEN_OVER = 0x8E
"""The reason of a broker of MQTT 5 when somebody else connected under this name."""
CLOSED_MAX, CLOSED_S = 4, 60.0
"""A broker of 3.1.1 gives no reason, nor does mosquitto 2.0.11 with MQTT 5. If it closes a good connection so often in
this time, it is taken for the same."""
UNSPECIFIED = 0x80
BESIDE_S = 600.0
"""So long the city goes on beside the other one. Then it tries its own name again: the other one may be gone."""
LOG_TEXT_MAX = 200

log = structlog.get_logger()
T = TypeVar("T")


class Listener(Protocol):
    """What a lane calls after the store has committed a message, or memory has taken it. The lane's thread calls."""

    def on_stored(self, stored: Stored, now_s: float) -> None: ...
    def on_held(self, incidents: Sequence[int]) -> None: ...
    def on_unreadable(self, incident: int | None) -> None: ...
    def on_status(self, status: Status, now_s: float) -> None: ...
    def on_doubt(self, gateway: str) -> None: ...
    def is_online(self, gateway: str) -> bool: ...


class _LaneClient(Bounded, Client):
    """paho's client, which holds no more than is bounded."""


class Consumer:
    """One lane: its connection, its thread and its counters."""

    def __init__(
        self,
        lane: Lane,
        *,
        site: str,
        mqtt: MqttSection,
        store: Store,
        standby: Standby,
        clock: UnixClock,
        listener: Listener,
        link: Link,
    ) -> None:
        self.lane: Lane = lane
        self.link = link
        self.site, self.mqtt, self.store, self.standby = site, mqtt, store, standby
        self._clock, self._listener = clock, listener
        self._client: Client | None = None
        self._stopping = threading.Event()
        self._down = threading.Event()
        self.thread = Kept(f"lane-{lane}", self._run, pause_max_s=BACKOFF_MAX_S, wait=self._stopping.wait)
        self._busy_since: float | None = None
        self._unacked: OrderedDict[tuple[Any, ...], tuple[int, int]] = OrderedDict()
        """Messages that are only in memory -> (mid, qos) on this connection, where they wait for their PUBACK."""
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
        self.store_problem = ""
        """Why the store took the last message not; empty while it takes them."""
        self.crashes = 0
        """How often an exception ended a connection. It is a fault of the city or of paho."""
        self.breaches = 0
        """How often the broker broke the rules of MQTT so that it would fill our memory, and was left for it."""
        self._beside = ""
        """What is added to our name at the broker, because somebody else has it; empty if nobody has."""
        self._beside_until_s = 0.0
        self._closed_s: deque[float] = deque(maxlen=CLOSED_MAX)

    def start(self) -> None:
        """Connect, and stay connected until `stop`."""
        self.thread.start()

    def stop(self) -> None:
        """Disconnect. What was not acknowledged is sent again at the next connection."""
        self._stopping.set()
        self._down.set()
        self.thread.join(10)

    @property
    def stuck(self) -> str:
        """Return on what the lane stands still, empty if it does not."""
        since = self._busy_since
        busy_s = time.monotonic() - since if since is not None else 0.0
        return (
            f"lane {self.lane} has worked on one message for {busy_s:.0f} s; look at the disk"
            if busy_s > BUSY_S
            else ""
        )

    @property
    def rival(self) -> str:
        """Return that another city has our name at the broker, and the next step; empty if none has."""
        if not self._beside:
            return ""
        return (
            f"another city of site {self.site} has connected to broker {self.mqtt.host}:{self.mqtt.port}. Both get "
            "every message, and a gateway deletes what either has stored; stop the one that is not meant to run"
        )

    def publish(self, gateway: str, ack: Ack) -> bool:
        """Send an acknowledgement at least once (QoS 1). Return False without a connection; the caller repeats it."""
        client = self._client
        if client is None or not self.connected:
            return False
        try:
            topic = uplink.topic(self.site, gateway, "ack")
            sealed = self.link.seal(gateway, topic, uplink.encode_ack(ack))
            return sealed is not None and client.publish(topic, sealed, qos=1).rc == 0
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

    @property
    def _failures(self) -> int:
        return self.crashes + self.transient_failures + self.breaches

    # ---- connecting --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff_s = BACKOFF_MIN_S
        versions = {"auto": (MQTTv5, MQTTv311), "5": (MQTTv5,), "3.1.1": (MQTTv311,)}[self.mqtt.protocol]
        while not self._stopping.is_set():
            failures = self._failures
            for version in versions:
                was_up, refused = self._connect(version)
                if was_up or not refused:
                    break
            good = was_up and failures == self._failures
            backoff_s = BACKOFF_MIN_S if good else min(2 * backoff_s, BACKOFF_MAX_S)
            self._stopping.wait(backoff_s)

    def _connect(self, version: MQTTProtocolVersion) -> tuple[bool, bool]:
        """Keep one connection until it ends. Return (it was up, the broker did not accept this MQTT version)."""
        self._down.clear()
        self.problem = ""
        if self._beside and time.monotonic() > self._beside_until_s:
            self._beside = ""
        self._unacked.clear()
        was_up = refused = False
        client: Client | None = None
        try:
            client = self._client = self._make(version)
            client.connect(self.mqtt.host, self.mqtt.port, KEEPALIVE_S, **self._session(version))
            client.loop_start()
            network = _network_thread(client)
            next_repeat = self._clock() + WATERMARK_REPEAT_S
            while not self._down.wait(0.5) and not self._stopping.is_set():
                was_up = was_up or self.connected
                if not network.is_alive() and not self._down.is_set():
                    self._crashed("its network thread has ended")
                    break
                if self._beside and time.monotonic() > self._beside_until_s:
                    break
                if self._clock() >= next_repeat:
                    next_repeat = self._clock() + WATERMARK_REPEAT_S
                    self._repeat()
            was_up = was_up or self.subscribed
            refused = not was_up
        except (OSError, ValueError) as error:
            step = "; is it running, and may this machine reach it?" if isinstance(error, OSError) else ""
            self.problem = f"broker {self.mqtt.host}:{self.mqtt.port}: {error}{step}"
        finally:
            self.connected = self.subscribed = False
            self._client = None
            self._busy_since = None
            if client is not None:
                client.disconnect()
                client.loop_stop()
        if not self._stopping.is_set():
            log.warning("lane_down", lane=self.lane, problem=self.problem or "the broker closed the connection")
        return was_up, refused

    def _make(self, version: MQTTProtocolVersion) -> Client:
        clean = None if version == MQTTv5 else not self._keeps_session
        client = _LaneClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"ansim-city-{self.site}-{self.lane}{self._beside}",
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
        client.on_breach = self._breach
        client.on_connect = self._guarded(self._on_connect)
        client.on_subscribe = self._guarded(self._on_subscribe)
        client.on_disconnect = self._guarded(self._on_disconnect)
        client.on_message = self._guarded(self._on_message)
        client.on_socket_open = _send_at_once
        return client

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Return the callback so that an exception in it ends the connection, and not paho's thread."""

        @functools.wraps(callback)
        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:
                self._crashed(f"{callback.__name__}: {type(error).__name__}: {_shown(error)}")

        return guarded

    def _crashed(self, why: str) -> None:
        self.crashes += 1
        self.problem = f"a fault ended the connection, the lane connects again: {why}"
        self._down.set()
        log.error("lane_crashed", lane=self.lane, crashes=self.crashes, detail=why, exc_info=True)

    def _breach(self, why: str) -> None:
        self.problem = why
        self.breaches += 1
        self.link.blame(self.lane, "breach", why)

    def _session(self, version: MQTTProtocolVersion) -> dict[str, Any]:
        if version != MQTTv5:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if self._keeps_session else 0
        properties.ReceiveMaximum = IN_FLIGHT_MAX
        properties.MaximumPacketSize = PACKET_MAX_B
        return {"clean_start": not self._keeps_session, "properties": properties}

    @property
    def _keeps_session(self) -> bool:
        """Whether the broker shall keep what comes while the lane is away. A name for a while leaves nothing there."""
        return self.lane == "sos" and not self._beside

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
            self.problem = f"the broker refused lane {self.lane}: {', '.join(bad)}; let this user read {uplink.ROOT}/#"
            client.disconnect()
            return
        self.subscribed, self.problem = True, ""
        log.info("lane_up", lane=self.lane, protocol=self.protocol)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        was_up = self.subscribed
        self.connected = self.subscribed = False
        if reason.is_failure and not self.problem:
            self.problem = f"broker {self.mqtt.host}:{self.mqtt.port}: {reason}"
            self._look_for_rival(reason.value, was_up)
        self._down.set()

    def _look_for_rival(self, reason: int, was_up: bool) -> None:
        """Find out whether the broker ended the connection because somebody else has connected under our name."""
        now_s = time.monotonic()
        if was_up and (self.protocol == "3.1.1" or reason == UNSPECIFIED):
            self._closed_s.append(now_s)
        often = len(self._closed_s) == CLOSED_MAX and now_s - self._closed_s[0] < CLOSED_S
        if self._beside or not (reason == TAKEN_OVER or often):
            return
        self._closed_s.clear()
        self._beside, self._beside_until_s = f"-{secrets.token_hex(4)}", now_s + BESIDE_S
        log.error("lane_taken_over", lane=self.lane, detail=self.rival)

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        self.messages += 1
        self._busy_since = time.monotonic()
        if self.lane == "sos":
            with self.store.turn.hurry():
                self._handle(client, message)
        else:
            self.store.turn.give_way()
            self._handle(client, message)
        self._busy_since = None

    def _handle(self, client: Client, message: MQTTMessage) -> None:
        """Store one message, then acknowledge it. No content of a message can end the lane."""
        after: Callable[[], None] | None = None
        try:
            after = self._take(message)
            self.store_problem = ""
        except Forged:
            pass  # the link has counted and reported it; it is acknowledged, so that it blocks nothing
        except MessageRefused as refused:
            log.warning("refused", lane=self.lane, reason=refused.reason, detail=_shown(refused))
            name = f"refused.{refused.reason}"
            self._safely(lambda: self.standby.do("count", lambda store: intake.count(store, name, self.lane)))
        except StandbyFull as full:  # its gateway keeps it, and sends it again
            log.error("not_held", lane=self.lane, detail=_shown(full))
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
        if not self._waits(message):
            client.ack(message.mid, message.qos)
        if after is not None:
            self._safely(after)

    def _waits(self, message: MQTTMessage) -> bool:
        """Return whether this message is only in memory, and its broker shall keep it as well."""
        with self._lock:
            return any(mid == message.mid for mid, _ in self._unacked.values())

    def _take(self, message: MQTTMessage) -> Callable[[], None] | None:
        now_s = self._clock()
        try:
            site, gateway, kind = uplink.parse_topic(message.topic)
        except (UplinkError, UnicodeDecodeError) as error:
            self.link.blame(self.lane, "bad_topic", f"the broker sends what nobody subscribed: {_shown(error)}")
            return None  # no row of it: a broker would make as many as it likes
        if site != self.site:
            step = f"this city is {self.site}. A broker that sends what nobody subscribed: look at it and its bridges"
            self.link.blame(self.lane, "wrong_site", f"the broker sends messages of site {site}, {step}")
            return None
        payload = bytes(message.payload)
        if kind == "status" and not payload:  # the retained message was cleared
            return None
        payload = self.link.unseal(gateway, kind, message.topic, payload)
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
            return self._take_urgent(message, decoded, now_s)
        if self.standby.active:  # no routine work gets in the way of what must still be written
            raise StoreAway("emergencies wait to be written")
        stored = intake.store_batch(self.store, message.topic, decoded, now_s)
        return lambda: self._after(stored, now_s)

    def _take_urgent(self, message: MQTTMessage, urgent: uplink.Urgent, now_s: float) -> Callable[[], None]:
        topic, key = message.topic, (urgent.gateway, urgent.epoch, urgent.seq, intake.raw_of(urgent.event))
        stored, held = self._stand_by(
            message,
            key,
            lambda store: intake.store_urgent(store, topic, urgent, now_s),
            numbers=lambda stored: stored.incidents,
            written=lambda stored: self._after(stored, now_s),
        )
        if held:
            return lambda: self._listener.on_held(stored.incidents)
        return lambda: self._after(stored, now_s)

    def _unreadable(self, message: MQTTMessage, gateway: str, error: Exception) -> Callable[[], None]:
        log.warning("unreadable", lane=self.lane, gateway=gateway, detail=_shown(error))
        topic, raw, now_s = message.topic, bytes(message.payload), self._clock()

        def work(store: Store) -> int | None:
            return intake.store_unreadable(store, topic, gateway, self.lane, raw, str(error), now_s)

        if self.lane == "events":
            work(self.store)
            return lambda: None
        number, held = self._stand_by(
            message,
            (topic, hashlib.sha256(raw).digest()),
            work,
            numbers=lambda number: () if number is None else (number,),
            written=self._listener.on_unreadable,
        )
        if held:
            return lambda: self._listener.on_held(() if number is None else (number,))
        return lambda: self._listener.on_unreadable(number)

    def _stand_by(
        self,
        message: MQTTMessage,
        key: tuple[Any, ...],
        work: Callable[[Store], T],
        *,
        numbers: Callable[[T], Sequence[int]],
        written: Callable[[T], None],
    ) -> tuple[T, bool]:
        """Store an emergency, or keep it in memory. What is only there is left unacknowledged, up to UNACKED_MAX."""

        def done(result: T) -> None:
            with self._lock:
                kept, client = self._unacked.pop(key, None), self._client
            if kept is not None and client is not None:
                client.ack(*kept)
            self._safely(lambda: written(result))

        with self._lock:
            waits = key not in self._unacked and len(self._unacked) < UNACKED_MAX
            if waits:
                self._unacked[key] = (message.mid, message.qos)
        held = False
        try:
            result, held = self.standby.do(
                "cry", work, key=key, numbers=numbers, written=done, size_b=len(message.payload)
            )
        finally:
            if waits and not held:
                with self._lock:
                    self._unacked.pop(key, None)
        return result, held

    def _take_status(self, gateway: str, payload: bytes, now_s: float) -> Callable[[], None] | None:
        try:
            status = uplink.decode_status(payload)
        except UplinkError as error:
            raise MessageRefused("bad_status", str(error)) from None
        if status.gateway != gateway or status.site != self.site:
            raise MessageRefused("wrong_gateway", f"topic of {gateway}, status of {status.gateway[:32]!r}")
        if not self.link.believes(status):
            return lambda: self._listener.on_doubt(gateway)
        self.standby.do("status", lambda store: intake.store_status(store, status, now_s), key=(gateway,))
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
        except (SQLAlchemyError, UplinkError, StandbyFull):
            return False
        return True

    def _give_back(self, client: Client, error: Exception) -> None:
        """Disconnect without acknowledging the message, because the store cannot write now. It is sent again later."""
        self.transient_failures += 1
        self.problem = f"store: {_shown(error)}; check its disk, then this lane goes on by itself"
        self.store_problem = _shown(getattr(error, "orig", None) or error).strip('"')
        log.error("given_back", lane=self.lane, detail=_shown(error))
        client.disconnect()

    def _safely(self, function: Callable[[], object]) -> None:
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


def _network_thread(client: Client) -> threading.Thread:
    """Return the thread that `loop_start` has started. paho does not say when it ends; it names it by the client."""
    name = f"paho-mqtt-client-{client._client_id.decode()}"
    return next((thread for thread in threading.enumerate() if thread.name == name), threading.Thread())


def _send_at_once(_client: Client, _data: Any, sock: Any) -> None:
    """Switch Nagle off. With it, an acknowledgement after another waits 40 ms for the broker's delayed ACK."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _shown(error: BaseException) -> str:
    """Return an error text, which may quote a peer, as short ASCII that is safe in a log."""
    text = msgspec.json.encode(str(error)[:LOG_TEXT_MAX]).decode()
    return text.encode("ascii", "backslashreplace").decode()
