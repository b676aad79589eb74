"""The way to the city: two connections, one a lane, and senders that trust nothing but the city's watermark.

A PUBACK only says that the broker had the message; with brokers killed and consumers away, deleting on it lost a third
of all events. So rows stay in the outbox until the city's watermark passes them, a bounded window of them is on its
way, and everything behind the watermark is sent again after a reconnect or when nothing moves. paho is driven by our
own event loop, and a new client is made for every connection: its queues never hold anything we would miss.
"""

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.config import Mqtt
from gateway.events import Emergency
from gateway.outbox import Source
from gateway.rows import Kept
from gateway.store import Notice, moment
from gateway.uplink import (
    BATCH_MAX,
    POISON_MAX_B,
    Lane,
    Poison,
    StageNotice,
    Status,
    UplinkError,
    Urgent,
    Watermark,
    decode_ack,
    encode_batch,
    encode_status,
    encode_urgent,
    topic,
)

KEEPALIVE_S = 15
CONNECT_TIMEOUT_S = 10.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.2, 10.0
LASTED_S = 10.0
"""A connection that lived this long was a good one: the next back-off starts low again."""
TRY_5_AGAIN_S = 3600.0
WINDOW = {"sos": 50, "events": 8}
"""Messages on their way without a watermark."""
BYTES_MAX = 128 * 1024
REWIND_MIN_S, REWIND_MAX_S = 2.0, 30.0
STALLED_S = 30.0
PUBACK_MAX_S = 20.0
STATUS_S = 30.0
NO_SUBSCRIBER, NOT_AUTHORIZED, TAKEN_OVER, UNSUPPORTED_VERSION = 0x10, 0x87, 0x8E, 0x84
TCP_USER_TIMEOUT_MS = 15_000

_emergency: "msgspec.json.Decoder[Emergency]" = msgspec.json.Decoder(Emergency)


class _Closed(Exception):
    """The connection ended. version_refused: the broker does not speak this version of MQTT."""

    def __init__(self, why: str, *, version_refused: bool = False) -> None:
        super().__init__(why)
        self.version_refused = version_refused


@dataclass
class Address:
    """Where the broker is and who we are there."""

    site: str
    gateway: str
    mqtt: Mqtt
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class Connection:
    """One MQTT connection, made again for ever. `up` is set while messages can be sent."""

    def __init__(
        self,
        address: Address,
        lane: Lane,
        *,
        notice: Notice,
        on_ack: Callable[[Lane, bytes], None],
        status: Callable[[bool], Status] | None = None,
    ) -> None:
        self.address, self.lane = address, lane
        self.up = asyncio.Event()
        self.wake: set[asyncio.Event] = set()
        """Events to set when the connection comes or goes, or a PUBACK came."""
        self.unacked: dict[int, float] = {}
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
        }
        self._notice, self._on_ack, self._status = notice, on_ack, status
        self._client: paho.Client | None = None
        self._ended: asyncio.Future[None] | None = None
        self._subscribed = asyncio.Event()
        self._connected = False
        self._unwell: set[str] = set()
        self._fell_back_at = 0.0
        self._random = random.Random()
        self._stopping = False

    async def run(self, progress: Callable[[], None]) -> None:
        """Keep a connection for ever."""
        tries = 0
        while not self._stopping:
            progress()
            began = time.monotonic()
            try:
                await self._session(progress)
            except (OSError, ssl.SSLError, ValueError, _Closed) as error:
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

    def publish(self, kind: Any, payload: bytes, *, retain: bool = False) -> bool:
        """Hand one message (QoS 1) to the connection; False if it is not up."""
        if self._client is None or not self.up.is_set():
            return False
        info = self._client.publish(self._topic(kind), payload, qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        self.unacked[info.mid] = time.monotonic()
        self.counters["published"] += 1
        return True

    async def stop(self) -> None:
        """Say goodbye (the retained status becomes offline) and end; `run` returns."""
        self._stopping = True
        if self._client is not None and self.up.is_set():
            if self._status is not None:
                self.publish("status", encode_status(self._status(False)), retain=True)
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(2.0):
                    while self.unacked and self.up.is_set():  # noqa: ASYNC110 - two seconds at the most, once
                        await asyncio.sleep(0.02)
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_write()
        self._end(None)

    def publish_status(self) -> None:
        """Say again how this gateway is (retained)."""
        if self._status is not None:
            self.publish("status", encode_status(self._status(True)), retain=True)

    # ---- one session ------------------------------------------------------------------------------------------------

    async def _session(self, progress: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._ended, self._connected = loop.create_future(), False
        self._subscribed.clear()
        client = self._client = self._new_client(loop)
        mqtt = self.address.mqtt
        arguments: dict[str, Any] = {"keepalive": KEEPALIVE_S}
        if self.version == "5":
            arguments |= {"clean_start": True}
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
            if not self._subscribed.is_set() and time.monotonic() > deadline:
                raise _Closed(
                    f"no answer to {'SUBSCRIBE' if self._connected else 'CONNECT'} in {CONNECT_TIMEOUT_S:.0f} s"
                )
            if self.unacked and time.monotonic() - min(self.unacked.values()) > PUBACK_MAX_S:
                raise _Closed(f"a message without PUBACK for {PUBACK_MAX_S:.0f} s")
            if self._subscribed.is_set() and not self.up.is_set():
                self._came_up()
            await asyncio.wait([self._ended], timeout=0.02 if not self.up.is_set() else 1.0)
        self._ended.result()

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> paho.Client:
        address, five = self.address, self.version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"ansim-{address.gateway}-{self.lane}",
            clean_session=None if five else True,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True  # a fault in one message must not end the loop
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_queued_messages_set(4 * WINDOW[self.lane] + 10)
        client.max_inflight_messages_set(4 * WINDOW[self.lane] + 10)
        if address.mqtt.username:
            client.username_pw_set(address.mqtt.username, address.password)
        if address.ca_file:
            client.tls_set(ca_certs=address.ca_file, certfile=address.cert_file, keyfile=address.key_file)
        if self._status is not None:
            client.will_set(self._topic("status"), encode_status(self._status(False)), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = lambda c, userdata, message: self._on_ack(self.lane, bytes(message.payload))
        client.on_socket_register_write = lambda c, userdata, sock: _call(loop, self._want_write, c)
        client.on_socket_close = lambda c, userdata, sock: _forget(loop, sock)
        return client

    def _readable(self, client: paho.Client, sock: Any) -> None:
        client.loop_read()
        while client.socket() is sock and isinstance(sock, ssl.SSLSocket) and sock.pending():
            client.loop_read()

    def _want_write(self, client: paho.Client) -> None:
        sock: Any = client.socket()
        if client is self._client and sock is not None and client.want_write():
            with contextlib.suppress(ValueError, OSError):
                asyncio.get_running_loop().add_writer(sock, self._writable, client, sock)

    def _writable(self, client: paho.Client, sock: Any) -> None:
        client.loop_write()
        if not client.want_write():
            asyncio.get_running_loop().remove_writer(sock)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._end(_Closed(f"the broker refused us: {reason}", version_refused=reason.value == UNSUPPORTED_VERSION))
            return
        self._connected = True
        client.subscribe(self._topic("ack"), qos=1)

    def _on_subscribe(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._say("ack_denied", False, f"the broker will not let us hear {self._topic('ack')}; mend its ACL")
        else:
            self._say("ack_denied", True, "the city's acks can be heard")
        self._subscribed.set()

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.value == TAKEN_OVER:
            self.counters["taken_over"] += 1
            text = (
                f"another client calls itself ansim-{self.address.gateway}-{self.lane}: a copied box? stop one of them"
            )
            self._say("taken_over", False, text)
        before = "" if self._connected else " before it answered"
        self._end(_Closed(f"the broker closed the connection{before} ({reason})", version_refused=not self._connected))

    def _on_publish(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self.unacked.pop(mid, None)
        self.counters["pubacks"] += 1
        if reason.value == NO_SUBSCRIBER:
            self.counters["no_subscriber"] += 1
            self._say("no_subscriber", False, "the broker takes our messages, but no city listens; start its consumer")
        elif reason.value == NOT_AUTHORIZED:
            self.counters["not_authorized"] += 1
            self._say("not_authorized", False, f"the broker will not let {self.address.gateway} publish; mend its ACL")
        elif reason.is_failure:
            self.counters["refused"] += 1
            self._say("refused", False, f"the broker refused a message: {reason}")
        else:
            for what in ("no_subscriber", "not_authorized", "refused"):
                self._say(what, True, "the broker takes our messages again")
        for event in self.wake:
            event.set()

    def _came_up(self) -> None:
        self.counters["connects"] += 1
        self.up.set()
        self._say("broker_away", True, f"connected to {self.address.mqtt.host}, MQTT {self.version}")
        self.publish_status()
        for event in self.wake:
            event.set()

    def _down(self) -> None:
        if self.up.is_set():
            self.counters["disconnects"] += 1
        self.up.clear()
        self.unacked.clear()
        client, self._client = self._client, None
        if client is not None and (sock := client.socket()) is not None:
            _forget(asyncio.get_running_loop(), sock)
            with contextlib.suppress(OSError):
                sock.close()
        for event in self.wake:
            event.set()

    def _end(self, why: _Closed | None) -> None:
        if self._ended is not None and not self._ended.done():
            if why is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(why)

    def _fall_back(self, error: Exception) -> bool:
        """Change the version of MQTT if that may help; return whether to try at once."""
        if self.address.mqtt.protocol != "auto" or not isinstance(error, _Closed):
            return False
        if self.version == "5" and error.version_refused:
            self.version, self._fell_back_at = "3.1.1", time.monotonic()
            return True
        if self.version == "3.1.1" and (error.version_refused or time.monotonic() - self._fell_back_at > TRY_5_AGAIN_S):
            self.version = "5"
        return False

    def _explain(self, error: Exception) -> str:
        where = f"{self.address.mqtt.host}:{self.address.mqtt.port}"
        return f"{where}: {error}; the {self.lane} lane keeps its rows and tries again"

    def _topic(self, kind: Any) -> str:
        return topic(self.address.site, self.address.gateway, kind)

    def _say(self, what: str, ok: bool, detail: str) -> None:
        if ok == (what in self._unwell):
            (self._unwell.discard if ok else self._unwell.add)(what)
            self._notice(f"{self.lane}_{what}", ok, detail)


def _call(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: Any) -> None:
    loop.call_soon_threadsafe(work, *arguments)  # paho connects in another thread


def _forget(loop: asyncio.AbstractEventLoop, sock: Any) -> None:
    with contextlib.suppress(ValueError, OSError):
        loop.remove_reader(sock)
        loop.remove_writer(sock)


class Sender:
    """Sends what a source holds over a connection: in order, a bounded window at a time, again from the watermark."""

    def __init__(self, gateway: str, source: Source, connection: Connection, *, notice: Notice, name: str) -> None:
        self.gateway, self.source, self.connection, self.name = gateway, source, connection, name
        self.watermark = 0
        self.counters = {"sent_rows": 0, "rewinds": 0, "acknowledged_rows": 0, "poison": 0}
        connection.wake.add(source.changed)
        self._notice = notice
        self._epoch = ""
        self._position = 0
        self._flying: deque[int] = deque()
        self._progress_at = time.monotonic()
        self._rewind_s, self._rewind_at = REWIND_MIN_S, 0.0
        self._stalled = False

    async def run(self, progress: Callable[[], None]) -> None:
        """Send for ever."""
        connected = False
        while True:
            progress()
            self.source.changed.clear()
            now_s = time.monotonic()
            if not self.source.backlog:
                self._progress_at = now_s
            if not self.connection.up.is_set():
                connected = False
            else:
                if not connected or self.source.epoch != self._epoch:
                    connected, self._epoch = True, self.source.epoch
                    self._progress_at = max(self._progress_at, now_s - STALLED_S * 2 / 3)
                    self._again(now_s, REWIND_MIN_S)
                await self._fill()
                self._watch(time.monotonic())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.source.changed.wait(), 1.0 if not self._flying else 0.5)

    async def acknowledged(self, epoch: str, upto: int) -> None:
        """Take the city's watermark."""
        gone = await self.source.acknowledged(epoch, upto)
        if epoch != self.source.epoch:
            return
        self.counters["acknowledged_rows"] += gone
        if gone or (self._flying and self._flying[0] <= upto):
            self._progress_at = time.monotonic()
            self._rewind_at, self._rewind_s = self._progress_at + REWIND_MIN_S, REWIND_MIN_S
            self.watermark = max(self.watermark, upto)
            if self._stalled:
                self._stalled = False
                self._notice(f"{self.name}_stalled", True, f"the city acknowledges the {self.name} lane again")
        while self._flying and self._flying[0] <= upto:
            self._flying.popleft()
        self._position = max(self._position, upto)
        self.source.changed.set()

    def _again(self, now_s: float, rewind_s: float) -> None:
        """Start again at the first row, since what the city has is gone from the outbox."""
        self._position = 0
        self._flying.clear()
        self._rewind_s, self._rewind_at = rewind_s, now_s + rewind_s

    async def _fill(self) -> None:
        """Hand messages to the connection until the window is full or nothing is left."""
        window = WINDOW[self.source.lane]
        while (room := min(window - len(self._flying), 2 * window - len(self.connection.unacked))) > 0:
            single = self.source.lane == "sos"
            epoch = self.source.epoch
            page = await self.source.read(self._position, room if single else BATCH_MAX, BYTES_MAX)
            if not page.rows or epoch != self.source.epoch or page.rows[0].seq <= self._position:
                return
            before = page.before
            if not self._flying:
                self._rewind_at = time.monotonic() + self._rewind_s
            for rows in [(row,) for row in page.rows] if single else [page.rows]:
                payload = self._urgent(epoch, before, rows[0]) if single else self._batch(epoch, before, rows)
                if not self.connection.publish(self.source.lane, payload):
                    return
                before = self._position = rows[-1].seq
                self._flying.append(before)
                self.counters["sent_rows"] += len(rows)

    def _watch(self, now_s: float) -> None:
        """Send again when the watermark does not move; tell the operator when it has not for long."""
        quiet_s = now_s - self._progress_at
        if quiet_s > STALLED_S and not self._stalled:
            self._stalled = True
            text = f"the city has not acknowledged for {quiet_s:.0f} s, {self.source.backlog} rows wait"
            self._notice(f"{self.name}_stalled", False, f"{text}; look at the city's consumer and the broker's ACL")
        if self._flying and now_s > self._rewind_at:
            self.counters["rewinds"] += 1
            self._again(now_s, min(self._rewind_s * 2, REWIND_MAX_S))
            self.source.changed.set()

    def _urgent(self, epoch: str, before: int, row: Kept) -> bytes:
        event: Emergency | Poison
        try:
            event = _emergency.decode(row.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.counters["poison"] += 1
            event = Poison(row.body[:POISON_MAX_B], str(error)[:200])
        return encode_urgent(
            Urgent(
                gateway=self.gateway,
                epoch=epoch,
                seq=row.seq,
                after=before,
                queued_at=moment(row.queued_ms),
                event=event,
            )
        )

    def _batch(self, epoch: str, before: int, rows: tuple[Kept, ...]) -> bytes:
        """One broken row must not make its whole message unreadable: it goes as bytes, which the city quarantines."""
        sound = []
        for row in rows:
            try:
                msgspec.msgpack.decode(row.body)
                sound.append((row.seq, row.body))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.counters["poison"] += 1
                sound.append((row.seq, msgspec.msgpack.encode(row.body[:POISON_MAX_B])))
        return encode_batch(gateway=self.gateway, epoch=epoch, after=before, sent_at=datetime.now(UTC), rows=sound)


class Uplink:
    """Both connections and all senders of a gateway."""

    def __init__(
        self,
        address: Address,
        sources: tuple[Source, Source, Source],
        *,
        notice: Notice,
        on_stage: Callable[[StageNotice], None],
        status: Callable[[bool], Status],
    ) -> None:
        """sources: the emergency store, the ring, the routine store. status(online) gives the retained message."""
        self._on_stage = on_stage
        self.unreadable_acks = 0
        self.sos = Connection(address, "sos", notice=notice, on_ack=self._ack, status=status)
        self.events = Connection(address, "events", notice=notice, on_ack=self._ack)
        self.connections = (self.sos, self.events)
        self.senders = tuple(
            Sender(address.gateway, source, connection, notice=notice, name=name)
            for source, connection, name in zip(
                sources, (self.sos, self.sos, self.events), ("sos", "ring", "events"), strict=True
            )
        )
        self._acks: set[asyncio.Task[None]] = set()
        self._newest: dict[tuple[str, str], int] = {}

    def _ack(self, lane: Lane, payload: bytes) -> None:
        """Take a message of the ack topic. Both connections hear it; each believes what is its own lane's."""
        try:
            ack = decode_ack(payload)
        except UplinkError:
            self.unreadable_acks += 1
            return
        if isinstance(ack, StageNotice):
            if lane == "sos" or not self.sos.up.is_set():
                self._on_stage(ack)
        elif ack.lane == lane:
            self._watermark(ack)

    def _watermark(self, ack: Watermark) -> None:
        """Only the newest watermark of an epoch counts; the one in hand takes what came meanwhile with it."""
        for sender in self.senders:
            if sender.source.lane == ack.lane and sender.source.epoch == ack.epoch:
                key = (sender.name, ack.epoch)
                busy = key in self._newest
                self._newest[key] = max(ack.upto, self._newest.get(key, 0))
                if not busy:
                    task = asyncio.ensure_future(self._take(sender, key))
                    self._acks.add(task)
                    task.add_done_callback(self._acks.discard)

    async def _take(self, sender: Sender, key: tuple[str, str]) -> None:
        taken = 0
        try:
            while taken < self._newest[key]:
                taken = self._newest[key]
                await sender.acknowledged(key[1], taken)
        finally:
            del self._newest[key]

    def publish_status(self) -> None:
        """Publish the retained status now, if connected."""
        self.sos.publish_status()

    async def stop(self) -> None:
        """Publish that we are offline, and end both connections."""
        await asyncio.gather(*(connection.stop() for connection in self.connections))

    def counters(self) -> dict[str, int]:
        """Return every count and level, for metrics and health events."""
        found = {f"mqtt_{c.lane}_{name}": n for c in self.connections for name, n in c.counters.items()}
        found |= {f"uplink_{s.name}_{name}": n for s in self.senders for name, n in s.counters.items()}
        found |= {f"uplink_{s.name}_watermark": s.watermark for s in self.senders}
        found |= {f"mqtt_{c.lane}_up": int(c.up.is_set()) for c in self.connections}
        return found | {"uplink_unreadable_acks": self.unreadable_acks}
