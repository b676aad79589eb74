"""The coordinator stick: keeps bellows running, takes readers' frames as early as possible, sends downlinks.

bellows never reconnects (it calls `connection_lost`, twice), so `Radio.run` rebuilds the whole application from the
same database, with back-off. A stick that hears no reader for long is restarted too. zigpy would answer each packet of
an unknown sender with a broadcast, which alone can jam a mesh; here this happens at most once in LOOK_UP_S. The network
opens only for enrolled readers, each with its own install code.
"""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import bellows.types
import bellows.zigbee.application
import zigpy.application
import zigpy.exceptions
import zigpy.types as zt

from gateway.core import buttons
from gateway.core.buttons import ButtonFrame
from gateway.core.frames import Frame, is_urgent
from gateway.health import OnHealth
from gateway.options import Installation
from gateway.radio.admission import Admission, eui64_of

PROFILE, CLUSTER, ENDPOINT = 0xC105, 0x0011, 0xE8
ZDO_ENDPOINT = 0
START_MAX_S = 120.0
STOP_MAX_S = 15.0
DISCONNECT_MAX_S = 4.0
BACKOFF_MIN_S, BACKOFF_MAX_S = 1.0, 30.0
LASTED_S = 60.0
FAILURES_MAX = 20
"""After this many starts in a row that failed, or ran less than LASTED_S, the process ends and is started again."""
LOOK_UP_S = 30.0
DOWN_MAX = 200
DOWN_WORKERS = 3
SEND_MAX_S = 20.0
"""A unicast ends within about 5 s on a stick that works; one that never ends must not block its worker."""
UP_WAIT_S = 3.0
"""An urgent downlink waits up to this long for a stack that is starting. Frames come in before the stack can send;
without this wait a lamp would stay dark until the core repeats the downlink."""
DEAF_MAX_S = 3600.0
"""While no reader at all is heard, each restart waits twice as long as the one before, up to this."""
MEMORY = "/dev/shm"
"""A file system in memory that the unit may write; the folder of the copy in it has mode 0700."""
BACKUP_MIN = 60
ANSWERS_MAX = 20
"""Most answers to buttons that are being sent at once. A button without an answer says alarm again."""
BUTTONS_TOLD_MAX = 64
"""Buttons about which the operator is told, once each since the start."""

COUNTED = (
    "starts",
    "start_failures",
    "restarts",
    "databases_set_aside",
    "frames",
    "urgent_frames",
    "other_packets",
    "buttons",
    "buttons_quiet",
    "buttons_malformed",
    "button_answers",
    "unknown_senders",
    "look_ups",
    "look_ups_saved",
    "sent",
    "send_failed",
    "send_unrouted",
    "send_dropped",
    "admitted",
)

T = TypeVar("T")


class RadioGone(Exception):
    """The stack failed FAILURES_MAX times in a row. The process should end and be started again."""

    def __init__(self, port: str, why: str) -> None:
        super().__init__(f"no coordinator on {port} after {FAILURES_MAX} tries ({why}); check the plug and the power")
        self.port = port


@dataclass(frozen=True, slots=True)
class ButtonPacket:
    """An alarm of a button, and its packet, which `Radio.answer` needs once the alarm is on disk."""

    frame: ButtonFrame
    packet: Any


class Inbox(Protocol):
    """What takes the frames, and what became of downlinks."""

    def frame(self, frame: Frame, urgent: bool) -> None: ...

    def button(self, pressed: ButtonPacket) -> None: ...

    def sent(self, reader: int, delivered: bool) -> None:
        """Take the end of a downlink. Not called for an end that shows nothing of the reader, such as a lost stick."""


class Application(bellows.zigbee.application.ControllerApplication):  # type: ignore[misc]
    """bellows, but the readers' frames are taken out first and its broadcasts are limited."""

    radio: "Radio"
    _looked_up_at = float("-inf")

    def packet_received(self, packet: Any) -> None:
        """Take every packet before zigpy looks up its sender or drops repetitions."""
        radio = self.radio
        pressed = packet.cluster_id in buttons.CLUSTERS and radio.take_button(packet)
        if packet.profile_id == PROFILE and not pressed:
            if packet.cluster_id == CLUSTER and packet.dst_ep == ENDPOINT and packet.src is not None:
                radio.take(packet)
            else:
                radio.counters["other_packets"] += 1
            return
        try:
            self.get_device_with_address(packet.src)
        except (KeyError, ValueError):
            radio.counters["unknown_senders"] += 1
            if ZDO_ENDPOINT in (packet.src_ep, packet.dst_ep):
                self._maybe_parse_zdo(packet)  # it may be a device that announces itself
            elif packet.src is not None:
                self.create_task(self._discover_unknown_device(packet.src.address), "look up an unknown sender")
            return
        if not pressed:
            super().packet_received(packet)

    async def _discover_unknown_device(self, nwk: Any) -> None:
        """Ask who an unknown sender is. This is a broadcast, so at most once in LOOK_UP_S for all senders together."""
        now_s = time.monotonic()
        if now_s - self._looked_up_at < LOOK_UP_S:
            self.radio.counters["look_ups_saved"] += 1
            return
        self._looked_up_at = now_s
        self.radio.counters["look_ups"] += 1
        await super()._discover_unknown_device(nwk)

    def handle_join(self, nwk: Any, ieee: Any, parent_nwk: Any, *, handle_rejoin: bool = True) -> None:
        """Handle a join; a known reader that comes back needs no scan of its groups."""
        known = str(self.radio.hex_of(ieee)) in self.radio.readers_by_eui64
        super().handle_join(nwk, ieee, parent_nwk, handle_rejoin=handle_rejoin and not known)

    async def _reset(self) -> None:
        """Reset, and register the endpoints again: a reset clears them, and bellows resets the stick to form a network.

        Without endpoints the stick would hear no reader.
        """
        await super()._reset()
        self._created_device_endpoints.clear()
        await self.register_endpoints()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop taking calls: bellows would pass them to the thread that it ends, where they are never answered."""
        if self._ezsp is not None:
            self._ezsp.stop_ezsp()
        super().connection_lost(exc)

    async def disconnect(self) -> None:
        """Close the serial line, within DISCONNECT_MAX_S: when a stick is pulled out, bellows may wait for ever for a
        thread that has ended, and zigpy closes its database only after this call."""
        line = getattr(self._ezsp, "_gw", None)
        if line is not None and getattr(line, "_obj", None) is not None and line._obj._transport is None:
            self._ezsp._gw = None  # the line is closed, its thread ends or has ended: no answer can come
        async with asyncio.timeout(DISCONNECT_MAX_S):
            await super().disconnect()

    async def permit(self, time_s: int = 60, node: Any = None) -> None:
        """Open or close the network as zigpy does, without the step that bellows adds. That step runs on every call,
        also on the call with 0 at every start: any device with the well-known key could then join for 300 s, as soon as
        `admit` opens the network."""
        await zigpy.application.ControllerApplication.permit(self, time_s, node)

    async def permit_gp(self, time_s: int) -> None:
        """Do nothing: Green Power devices may never join here, and the broadcasts for them are not sent."""

    async def admit(self, joins: Iterable[tuple[Any, Any]], time_s: int) -> int:
        """Open the network for time_s only to these (EUI64, link key) pairs; return how many the stick could hold."""
        fitted = []
        for eui64, key in joins:
            if int(await self._ezsp.add_transient_link_key(eui64, key)) != 0:
                break  # the stick's table is full; its keys expire after 300 s
            fitted.append((eui64, key))
        if fitted:
            await self.permit_with_link_key(*fitted[0], time_s)
        return len(fitted)


class _Listener:
    def __init__(self, lost: asyncio.Event) -> None:
        self.lost = lost

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()  # called twice for every loss; setting an event twice does no harm


class Radio:
    """Keeps the stick running. Frames go to `inbox` on the event loop; `send` queues a downlink."""

    def __init__(self, installation: Installation, inbox: Inbox, *, on_health: OnHealth) -> None:
        self.installation, self._inbox, self._on_health = installation, inbox, on_health
        self.readers_by_eui64 = {reader.eui64: reader.number for reader in installation.config.readers}
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._up = asyncio.Event()
        self._app: Any = None
        self._nwk: dict[int, int] = {}
        self._heard_at_s = float("-inf")
        self._deaf_s = float(installation.config.radio.deaf_after_s)
        self._restart_reason: str | None = None
        self._stack_ended = asyncio.Event()
        self._down: dict[bool, deque[tuple[int, bytes]]] = {True: deque(), False: deque()}
        self._some: dict[bool, asyncio.Event] = {True: asyncio.Event(), False: asyncio.Event()}
        self._unwell = ""
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._copied = False
        """Whether the operators were told that a copy of the database is used, and not yet that it is over."""
        self._answers: set[asyncio.Task[None]] = set()
        self._buttons_told: set[str] = set()
        self._admission = Admission(
            installation.install_codes, self.readers_by_eui64, self.counters, on_health=on_health
        )

    @property
    def up(self) -> bool:
        """True while the stack runs."""
        return self._up.is_set()

    # ---- frames -----------------------------------------------------------------------------------------------------

    def take(self, packet: Any) -> None:
        """Pass a reader's packet to the inbox as a frame."""
        payload = bytes(packet.data.serialize())
        lqi = None if packet.lqi is None else int(packet.lqi)
        rssi_dbm = None if packet.rssi is None else int(packet.rssi)
        urgent = is_urgent(payload)
        self._heard_at_s = time.monotonic()
        self.counters["urgent_frames" if urgent else "frames"] += 1
        self._inbox.frame(Frame(int(packet.src.address), lqi, rssi_dbm, payload), urgent)

    def take_button(self, packet: Any) -> bool:
        """Take a packet on an alarm cluster, if it says alarm; return whether it did. All others are for zigpy.

        zigpy would answer each with "success" at once. An alarm gets this answer by `answer`, when it is on disk.
        """
        if packet.src is None or ZDO_ENDPOINT in (packet.src_ep, packet.dst_ep):
            return False
        payload = bytes(packet.data.serialize())
        word = buttons.read(packet.cluster_id, payload)
        self.counters["buttons" if word == "alarm" else f"buttons_{word}"] += 1
        if word != "alarm":
            return False
        device, reader = self._button_at(packet.src)
        frame = ButtonFrame(device, reader, int(packet.cluster_id), payload)
        if len(self._buttons_told) < BUTTONS_TOLD_MAX and device not in self._buttons_told:
            self._buttons_told.add(device)
            text = f"device {device} says alarm, and is no reader" + (
                f" but has the place of {reader}" if reader else ""
            )
            self._on_health(
                "unknown_button", False, f"{text}; a dispatcher sees it as an unknown button, without a place"
            )
        self._inbox.button(ButtonPacket(frame, packet))
        return True

    def answer(self, pressed: ButtonPacket) -> None:
        """Tell a button that its alarm was taken: it is on disk. At most ANSWERS_MAX at once; else it repeats."""
        app, packet = self._app, pressed.packet
        data = buttons.default_response(pressed.frame.payload)
        unicast = packet.dst is None or packet.dst.addr_mode in (zt.AddrMode.NWK, zt.AddrMode.IEEE)
        if app is None or not self.up or data is None or not unicast or len(self._answers) >= ANSWERS_MAX:
            return
        reply = zt.ZigbeePacket(
            src=zt.AddrModeAddress(addr_mode=zt.AddrMode.NWK, address=app.state.node_info.nwk),
            src_ep=packet.dst_ep,
            dst=packet.src,
            dst_ep=packet.src_ep,
            tsn=data[-4],
            profile_id=packet.profile_id,
            cluster_id=packet.cluster_id,
            data=zt.SerializableBytes(data),
            priority=zt.PacketPriority.CRITICAL,
        )

        async def send() -> None:
            with contextlib.suppress(Exception):  # a button without an answer says alarm again
                async with asyncio.timeout(SEND_MAX_S):
                    await app.send_packet(reply)
                self.counters["button_answers"] += 1

        task = asyncio.create_task(send())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def _button_at(self, address: Any) -> tuple[str, int | None]:
        """Return what is known of a sender: the end of its EUI64, else its NWK address; its reader's number, if any."""
        eui64 = None
        if address.addr_mode == zt.AddrMode.IEEE:
            eui64 = self.hex_of(address.address)
        elif self._app is not None:
            with contextlib.suppress(KeyError, ValueError):
                eui64 = self.hex_of(self._app.get_device_with_address(address).ieee)
        if eui64 is None:
            return f"at {int(address.address):04x}", None
        return eui64[-4:], self.readers_by_eui64.get(eui64)

    def learn(self, reader: int, nwk: int) -> None:
        """Keep a reader's NWK address, since a new frame with its valid MAC came from there."""
        self._nwk[reader] = nwk
        self._admission.heard(reader)

    def address_of(self, reader: int) -> int | None:
        """Return the NWK address learned from the reader's frames, else the one zigpy knows, else None."""
        if reader in self._nwk:
            return self._nwk[reader]
        eui64 = next((e for e, number in self.readers_by_eui64.items() if number == reader), None)
        if eui64 is None or self._app is None:
            return None
        device = self._app.devices.get(eui64_of(eui64))
        return None if device is None else int(device.nwk)

    def hex_of(self, ieee: Any) -> str:
        """Return a zigpy EUI64 as 16 hexadecimal digits, MSB first."""
        return bytes(reversed(zt.EUI64(ieee).serialize())).hex()

    def send(self, reader: int, payload: bytes, urgent: bool) -> None:
        """Queue a downlink; above DOWN_MAX the oldest is dropped. The core repeats what matters."""
        queue = self._down[urgent]
        queue.append((reader, payload))
        if len(queue) > DOWN_MAX:
            queue.popleft()
            self.counters["send_dropped"] += 1
        self._some[urgent].set()

    async def run_downlinks(self, urgent: bool, progress: Callable[[], None]) -> None:
        """Send what is queued, for ever. Run DOWN_WORKERS of these for urgent and as many for routine downlinks."""
        queue, some = self._down[urgent], self._some[urgent]
        while True:
            progress()
            if not queue:
                some.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):  # not wait_for, which on 3.11 may swallow a cancellation
                        await some.wait()
                continue
            reader, payload = queue.popleft()
            await self._send(reader, payload, urgent)

    async def _send(self, reader: int, payload: bytes, urgent: bool) -> None:
        if urgent and not self.up:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UP_WAIT_S):
                    await self._up.wait()
        app, nwk = self._app, self.address_of(reader)
        if app is None or not self.up or nwk is None:
            self.counters["send_unrouted"] += 1
            return
        packet = zt.ZigbeePacket(
            src=zt.AddrModeAddress(addr_mode=zt.AddrMode.NWK, address=app.state.node_info.nwk),
            src_ep=ENDPOINT,
            dst=zt.AddrModeAddress(addr_mode=zt.AddrMode.NWK, address=zt.NWK(nwk)),
            dst_ep=ENDPOINT,
            tsn=app.get_sequence(),
            profile_id=PROFILE,
            cluster_id=CLUSTER,
            data=zt.SerializableBytes(payload),
            tx_options=zt.TransmitOptions.ACK,
            priority=zt.PacketPriority.CRITICAL if urgent else zt.PacketPriority.NORMAL,
        )
        try:
            async with asyncio.timeout(SEND_MAX_S):
                await app.send_packet(packet)
            self.counters["sent"] += 1
            self._inbox.sent(reader, True)
        except Exception as error:  # DeliveryError, time-out, a stack that stops: the core repeats what matters
            self.counters["send_failed"] += 1
            if _is_undelivered(error):
                self._inbox.sent(reader, False)

    # ---- the supervisor ---------------------------------------------------------------------------------------------

    def restart(self, why: str) -> None:
        """Request a restart of the stack; `run` does it."""
        self._restart_reason = why
        self._stack_ended.set()

    async def run(self, progress: Callable[[], None]) -> None:
        """Keep the stack running. Raises RadioGone after FAILURES_MAX failures in a row."""
        failures = 0
        while True:
            progress()
            began, why = time.monotonic(), "stopped"
            app: Any = None
            refused: sqlite3.OperationalError | None = None
            self._stack_ended.clear()
            try:
                app = await self._open(progress)
                app.radio = self
                app.add_listener(_Listener(self._stack_ended))
                await _await_with_progress(app.startup(auto_form=True), progress)
                self._app = app
                self._started(app)
                if self._copied and self._copy is None:
                    self._copied = False
                    self._on_health("zigbee_database", True, f"{self.installation.database} is used again")
                why = await self._serve(progress)
            except asyncio.CancelledError:
                await self._shutdown(app, None)
                self._drop_copy()
                raise
            except Exception as error:  # whatever a stick, a driver or a library raises
                why = _explain(error)
                self.counters["start_failures"] += not self.up
                if isinstance(error, sqlite3.OperationalError):
                    refused = error  # a full disk, a lock, no such folder: the file itself is not broken
                elif app is None and isinstance(error, sqlite3.DatabaseError):
                    self._set_database_aside(error)
            lasted = self.up and time.monotonic() - began > LASTED_S
            failures = 0 if lasted or self._restart_reason else failures + 1
            self._restart_reason = None
            self._say(False, why)
            await self._shutdown(app, progress)
            self._drop_copy()
            if refused is not None:
                self._use_copy(refused)
            if failures >= FAILURES_MAX:
                raise RadioGone(self.installation.config.radio.port, why)
            await _sleep(min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(failures, 10) / 2), progress)

    async def _open(self, progress: Callable[[], None]) -> Any:
        """Create an application on the database. Never interrupted: a thread of its database would stay behind."""
        opening = asyncio.ensure_future(Application.new(self._conf(), auto_form=False, start_radio=False))
        try:
            return await _await_with_progress(asyncio.shield(opening), progress)
        except (asyncio.CancelledError, TimeoutError):
            await asyncio.wait([opening], timeout=STOP_MAX_S)
            if opening.done() and opening.exception() is None:
                await self._shutdown(opening.result(), None)
            raise

    async def _serve(self, progress: Callable[[], None]) -> str:
        """Wait for the end of a running stack, and admit readers until then; return why it ended."""
        began_s = time.monotonic()
        self._admission.begin()
        while not self._stack_ended.is_set():
            progress()
            self._listen(began_s)
            await self._admission.step(self._app)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # not wait_for, which on 3.11 may swallow a cancellation
                    await self._stack_ended.wait()
        if self._restart_reason:
            self.counters["restarts"] += 1
        return self._restart_reason or "the serial link or the stack of the stick was lost; check plug and power"

    def _listen(self, began_s: float) -> None:
        """Restart a stick that looks healthy but hears no reader at all."""
        now_s = time.monotonic()
        if self._heard_at_s >= began_s:
            self._deaf_s = float(self.installation.config.radio.deaf_after_s)
        quiet_s = now_s - max(began_s, self._heard_at_s)
        if quiet_s > self._deaf_s:
            self._deaf_s = min(self._deaf_s * 2, max(DEAF_MAX_S, self._deaf_s))
            self.restart(f"no reader was heard for {quiet_s:.0f} s; if this goes on, unplug the stick and plug it in")

    def _started(self, app: Any) -> None:
        self._up.set()
        self.counters["starts"] += 1
        node, network = app.state.node_info, app.state.network_info
        self._say(
            True,
            f"network {network.pan_id}/{network.extended_pan_id}, channel {network.channel}, "
            f"stick {node.model or '?'} firmware {node.version or '?'}",
        )

    async def _shutdown(self, app: Any, progress: Callable[[], None] | None) -> None:
        self._app = None
        self._up.clear()
        if app is not None:
            with contextlib.suppress(Exception):
                await _await_with_progress(app.shutdown(), progress or (lambda: None), STOP_MAX_S)

    def _say(self, ok: bool, detail: str) -> None:
        """Report every start, and every new reason why there is none."""
        if ok or detail != self._unwell:
            self._unwell = "" if ok else detail
            self._on_health(
                "radio", ok, detail if ok else f"{self.installation.config.radio.port}: {detail}; started again"
            )

    def _use_copy(self, error: Exception) -> None:
        """Let the next start use a copy in memory: on a full or read-only disk the readers must be heard all the same.

        Only of a database that exists: without one, an empty stick would form another network.
        """
        path = self.installation.database
        try:
            self._copy = tempfile.TemporaryDirectory(prefix="ansim-", dir=MEMORY, ignore_cleanup_errors=True)
            shutil.copyfile(path, Path(self._copy.name) / path.name)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}-wal", Path(self._copy.name) / f"{path.name}-wal")
        except OSError:
            self._drop_copy()
            return
        self._copied = True
        self._on_health("zigbee_database", False, f"{path} ({error}): a copy in memory is used; look at this disk")

    def _drop_copy(self) -> None:
        """Let the next start try the database itself."""
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _set_database_aside(self, error: Exception) -> None:
        """Go on without an unreadable database: the stick keeps its network, and frames show the readers' addresses."""
        path = self.installation.database
        aside = path.with_name(path.name + ".aside")
        try:
            path.replace(aside)
            for end in ("-wal", "-shm"):
                path.with_name(path.name + end).unlink(missing_ok=True)
        except OSError as failed:
            self._on_health("zigbee_database", False, f"{path} is unreadable and stays where it is ({failed.strerror})")
            return
        self.counters["databases_set_aside"] += 1
        text = f"{path} is unreadable ({error}); set aside as {aside.name}. Keep this stick: the backup in it is gone"
        self._on_health("zigbee_database", False, text)

    def _conf(self) -> dict[str, Any]:
        radio, database = self.installation.config.radio, self.installation.database
        network: dict[str, Any] = {
            "channel": radio.channel,
            "tx_power": radio.tx_power_dbm,
            "country_code": radio.country,
        }
        if radio.pan_id is not None:
            network["pan_id"] = radio.pan_id

        def endpoint(number: int, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
            return {
                "endpoint": number,
                "profile": PROFILE,
                "device_type": 0,
                "device_version": 0,
                "input_clusters": inputs,
                "output_clusters": outputs,
            }

        return {
            "device": {"path": radio.port, "baudrate": radio.baudrate, "flow_control": radio.flow_control},
            "database_path": str(Path(self._copy.name) / database.name if self._copy else database),
            "use_thread": True,  # without it, a stall of our loop over 6 s would make the stick give up
            "source_routing": True,  # without it, every reader floods the mesh to find us
            "network": network,
            # No device joins without its own key, whoever opens the network.
            "ezsp_policies": {
                "TRUST_CENTER_POLICY": int(
                    bellows.types.EzspDecisionBitmask.ALLOW_JOINS
                    | bellows.types.EzspDecisionBitmask.JOINS_USE_INSTALL_CODE_KEY
                )
            },
            "ota": {"enabled": False},
            "topology_scan_enabled": False,
            "backup_enabled": True,
            "backup_period": BACKUP_MIN,
            "validate_network_settings": True,
            "max_concurrent_requests": 8,
            "additional_endpoints": [endpoint(0xE8, [0x11, 0x92], [0x11]), endpoint(0xE6, [0xA1], [0x21])],
        }


def _is_undelivered(error: Exception) -> bool:
    """Return whether the stick sent a frame, and no acknowledgement came after all tries. A stick that could not take
    the frame raises the same class with another status."""
    status = error.status if isinstance(error, zigpy.exceptions.DeliveryError) else None
    if status is None:
        return False
    known: bool = bellows.types.sl_Status.from_ember_status(status) == bellows.types.sl_Status.ZIGBEE_DELIVERY_FAILED
    return known


def _explain(error: Exception) -> str:
    """Return why a start failed, and what to do; the same text for the same fault, since `_say` compares texts."""
    said = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, zigpy.exceptions.NetworkSettingsInconsistent):
        return (
            "this stick belongs to another network than the database; put the old stick back, or empty this one "
            "(zigpy radio ezsp PORT reset) and it takes the network over"
        )
    if isinstance(
        error, zigpy.exceptions.CannotWriteNetworkSettings | zigpy.exceptions.DestructiveWriteNetworkSettings
    ):
        return f"this stick cannot take the network over, it needs newer firmware: {said}"
    if isinstance(error, sqlite3.Error):
        return f"radio.database cannot be used: {said}"
    return f"{said}; check plug and power"


async def _await_with_progress(work: Awaitable[T], progress: Callable[[], None], most_s: float = START_MAX_S) -> T:
    """Await slow work for at most most_s, and call progress meanwhile: the work has a limit, so it is not stuck."""
    task = asyncio.ensure_future(work)
    deadline = time.monotonic() + most_s
    try:
        while not task.done():
            progress()
            await asyncio.wait([task], timeout=1.0)
            if not task.done() and time.monotonic() > deadline:
                raise TimeoutError(f"took over {most_s:.0f} s")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.wait([task], timeout=5.0)


async def _sleep(seconds: float, progress: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        progress()
        await asyncio.sleep(min(left, 1.0))
