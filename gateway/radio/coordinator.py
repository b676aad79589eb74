"""The coordinator stick: bellows, kept alive; readers' frames taken at its earliest point; downlinks sent.

bellows never reconnects (it says `connection_lost`, twice), so `Radio.run` rebuilds the whole application from the same
database, with back-off; a stick that hears no reader for long is started anew too. zigpy would answer each packet of an
unknown sender with a broadcast, which alone can jam a mesh; here nothing does so more than once in LOOK_UP_S. The
network opens only for enrolled readers, each with its own install code.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

import bellows.types
import bellows.zigbee.application
import zigpy.application
import zigpy.exceptions
import zigpy.types as zt

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
"""Starts that failed one after another; then the process ends, so that the whole of it is started anew."""
LOOK_UP_S = 30.0
DOWN_MAX = 200
DOWN_WORKERS = 3
SEND_MAX_S = 20.0
"""A unicast ends within about 5 s on a stick that works; a hung one must not hold its worker."""
UP_WAIT_S = 3.0
"""An urgent downlink waits so long for a stack that is starting: frames come in before it can send, and a lamp would
else stay dark until the core repeats its word."""
DEAF_MAX_S = 3600.0
"""While no reader is heard at all, each restart waits twice as long as the one before, up to this."""
BACKUP_MIN = 60

COUNTED = (
    "starts",
    "start_failures",
    "restarts",
    "databases_set_aside",
    "frames",
    "urgent_frames",
    "other_packets",
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
    """The stick could not be started FAILURES_MAX times. The process should end and be started anew."""

    def __init__(self, port: str, why: str) -> None:
        super().__init__(f"no coordinator on {port} after {FAILURES_MAX} tries ({why}); check the plug and the power")
        self.port = port


class Inbox(Protocol):
    """Where frames go."""

    def frame(self, frame: Frame, urgent: bool) -> None: ...


class Application(bellows.zigbee.application.ControllerApplication):  # type: ignore[misc]
    """bellows, with the readers' frames taken out first and its broadcasts held down."""

    radio: "Radio"
    _looked_up_at = float("-inf")

    def packet_received(self, packet: Any) -> None:
        """Take every packet before zigpy looks its sender up or drops repetitions."""
        radio = self.radio
        if packet.profile_id == PROFILE:
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
                self._maybe_parse_zdo(packet)  # it may be announcing itself
            elif packet.src is not None:
                self.create_task(self._discover_unknown_device(packet.src.address), "look up an unknown sender")
            return
        super().packet_received(packet)

    async def _discover_unknown_device(self, nwk: Any) -> None:
        """Ask who an unknown sender is: a broadcast, so once in LOOK_UP_S whoever it is."""
        now_s = time.monotonic()
        if now_s - self._looked_up_at < LOOK_UP_S:
            self.radio.counters["look_ups_saved"] += 1
            return
        self._looked_up_at = now_s
        self.radio.counters["look_ups"] += 1
        await super()._discover_unknown_device(nwk)

    def handle_join(self, nwk: Any, ieee: Any, parent_nwk: Any, *, handle_rejoin: bool = True) -> None:
        """A reader that comes back needs no scan of its groups."""
        known = str(self.radio.hex_of(ieee)) in self.radio.readers_by_eui64
        super().handle_join(nwk, ieee, parent_nwk, handle_rejoin=handle_rejoin and not known)

    async def _reset(self) -> None:
        """A stick forgets its endpoints in a reset, and bellows resets it while it forms: then it would be deaf."""
        await super()._reset()
        self._created_device_endpoints.clear()
        await self.register_endpoints()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take no more calls: bellows would hand them to the thread it is ending, where they are never answered."""
        if self._ezsp is not None:
            self._ezsp.stop_ezsp()
        super().connection_lost(exc)

    async def disconnect(self) -> None:
        """Close the serial line, within a time: when a stick is pulled out bellows may wait for ever for a thread that
        has ended, and zigpy closes its database only behind this."""
        line = getattr(self._ezsp, "_gw", None)
        if line is not None and getattr(line, "_obj", None) is not None and line._obj._transport is None:
            self._ezsp._gw = None  # the line is closed, and its thread ends or has ended: nobody is there to ask
        async with asyncio.timeout(DISCONNECT_MAX_S):
            await super().disconnect()

    async def permit(self, time_s: int = 60, node: Any = None) -> None:
        """Open or shut the network as zigpy does, without what bellows adds: whenever it is called, and it is with 0 at
        every start, it lets anybody with the well-known key in for 300 s, as soon as `admit` opens the network."""
        await zigpy.application.ControllerApplication.permit(self, time_s, node)

    async def permit_gp(self, time_s: int) -> None:
        """Green Power devices have no place here: their door stays shut, and its broadcasts unsent."""

    async def admit(self, joins: Iterable[tuple[Any, Any]], time_s: int) -> int:
        """Open the network for time_s to the devices of these (EUI64, link key) pairs alone; return how many fitted."""
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
        self.lost.set()  # called twice for every loss: an event does not mind


class Radio:
    """The stick, for ever. Frames go to `inbox` on the event loop; `send` queues a downlink."""

    def __init__(self, installation: Installation, inbox: Inbox, *, on_health: OnHealth) -> None:
        self.installation, self._inbox, self._on_health = installation, inbox, on_health
        self.readers_by_eui64 = {reader.eui64: reader.number for reader in installation.config.readers}
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._up = asyncio.Event()
        self._app: Any = None
        self._nwk: dict[int, int] = {}
        self._heard_at_s = float("-inf")
        self._deaf_s = float(installation.config.radio.deaf_after_s)
        self._wish: str | None = None
        self._woken = asyncio.Event()
        self._down: dict[bool, deque[tuple[int, bytes]]] = {True: deque(), False: deque()}
        self._some: dict[bool, asyncio.Event] = {True: asyncio.Event(), False: asyncio.Event()}
        self._unwell = ""
        self._admission = Admission(
            installation.install_codes, self.readers_by_eui64, self.counters, on_health=on_health
        )

    @property
    def up(self) -> bool:
        """Whether the stack runs."""
        return self._up.is_set()

    # ---- frames -----------------------------------------------------------------------------------------------------

    def take(self, packet: Any) -> None:
        """Hand a reader's packet on."""
        payload = bytes(packet.data.serialize())
        lqi = None if packet.lqi is None else int(packet.lqi)
        rssi_dbm = None if packet.rssi is None else int(packet.rssi)
        urgent = is_urgent(payload)
        self._heard_at_s = time.monotonic()
        self.counters["urgent_frames" if urgent else "frames"] += 1
        self._inbox.frame(Frame(int(packet.src.address), lqi, rssi_dbm, payload), urgent)

    def learn(self, reader: int, nwk: int) -> None:
        """Believe that a reader is at this NWK address, since a new frame with its MAC came from there."""
        self._nwk[reader] = nwk
        self._admission.heard(reader)

    def address_of(self, reader: int) -> int | None:
        """Return the NWK address learned from the reader's frames, else zigpy's, else None."""
        if reader in self._nwk:
            return self._nwk[reader]
        eui64 = next((e for e, number in self.readers_by_eui64.items() if number == reader), None)
        if eui64 is None or self._app is None:
            return None
        device = self._app.devices.get(eui64_of(eui64))
        return None if device is None else int(device.nwk)

    def hex_of(self, ieee: Any) -> str:
        """Return an EUI64 of zigpy's as 16 hexadecimal digits, MSB first."""
        return bytes(reversed(zt.EUI64(ieee).serialize())).hex()

    def send(self, reader: int, payload: bytes, urgent: bool) -> None:
        """Queue a downlink; the oldest is dropped when too many wait. The core repeats what matters."""
        queue = self._down[urgent]
        queue.append((reader, payload))
        if len(queue) > DOWN_MAX:
            queue.popleft()
            self.counters["send_dropped"] += 1
        self._some[urgent].set()

    async def run_downlinks(self, urgent: bool, progress: Callable[[], None]) -> None:
        """Send what is queued, for ever. Run DOWN_WORKERS of them for each urgency."""
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
        except Exception:  # DeliveryError, time-out, a stack on its way down: the core repeats what matters
            self.counters["send_failed"] += 1

    # ---- the supervisor ---------------------------------------------------------------------------------------------

    def restart(self, why: str) -> None:
        """Ask for the stack to be started anew."""
        self._wish = why
        self._woken.set()

    async def run(self, progress: Callable[[], None]) -> None:
        """Keep the stack running. Raises RadioGone after FAILURES_MAX starts that failed in a row."""
        failures = 0
        while True:
            progress()
            began, why = time.monotonic(), "stopped"
            app: Any = None
            self._woken.clear()
            try:
                app = await self._open(progress)
                app.radio = self
                app.add_listener(_Listener(self._woken))
                await _patiently(app.startup(auto_form=True), progress)
                self._app = app
                self._started(app)
                why = await self._serve(progress)
            except asyncio.CancelledError:
                await self._shutdown(app, None)
                raise
            except Exception as error:  # whatever a stick, a driver or a library comes up with
                why = _explain(error)
                self.counters["start_failures"] += not self.up
                if app is None and isinstance(error, sqlite3.DatabaseError):
                    self._set_database_aside(error)
            lasted = self.up and time.monotonic() - began > LASTED_S
            failures = 0 if lasted or self._wish else failures + 1
            self._wish = None
            self._say(False, why)
            await self._shutdown(app, progress)
            if failures >= FAILURES_MAX:
                raise RadioGone(self.installation.config.radio.port, why)
            await _sleep(min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(failures, 10) / 2), progress)

    async def _open(self, progress: Callable[[], None]) -> Any:
        """Make an application over the database. Never cut short: a thread of its database would stay behind."""
        opening = asyncio.ensure_future(Application.new(self._conf(), auto_form=False, start_radio=False))
        try:
            return await _patiently(asyncio.shield(opening), progress)
        except (asyncio.CancelledError, TimeoutError):
            await asyncio.wait([opening], timeout=STOP_MAX_S)
            if opening.done() and opening.exception() is None:
                await self._shutdown(opening.result(), None)
            raise

    async def _serve(self, progress: Callable[[], None]) -> str:
        """Wait for the end of a running stack, admitting readers meanwhile; return why it ended."""
        began_s = time.monotonic()
        self._admission.begin()
        while not self._woken.is_set():
            progress()
            self._listen(began_s)
            await self._admission.step(self._app)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):  # not wait_for, which on 3.11 may swallow a cancellation
                    await self._woken.wait()
        if self._wish:
            self.counters["restarts"] += 1
        return self._wish or "the serial link or the stack of the stick was lost; check plug and power"

    def _listen(self, began_s: float) -> None:
        """Have a stick that looks healthy and hears no reader at all started anew."""
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
                await _patiently(app.shutdown(), progress or (lambda: None), STOP_MAX_S)

    def _say(self, ok: bool, detail: str) -> None:
        """Tell every start, and every new reason why there is none."""
        if ok or detail != self._unwell:
            self._unwell = "" if ok else detail
            self._on_health(
                "radio", ok, detail if ok else f"{self.installation.config.radio.port}: {detail}; started anew"
            )

    def _set_database_aside(self, error: Exception) -> None:
        """Go on without an unreadable database: the stick keeps its network, and readers tell where they are."""
        if isinstance(error, sqlite3.OperationalError):
            return  # a full disk, a lock, no such folder: the file is not at fault
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
        radio = self.installation.config.radio
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
            "database_path": str(self.installation.database),
            "use_thread": True,  # a stall of our loop over 6 s would make the stick give up
            "source_routing": True,  # else every reader floods the mesh to find us
            "network": network,
            # No device gets in without a key of its own, whoever opens the network.
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


def _explain(error: Exception) -> str:
    """Return why a start failed and, where it is not the plug, what to do; the same words for the same fault."""
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


async def _patiently(work: Awaitable[T], progress: Callable[[], None], most_s: float = START_MAX_S) -> T:
    """Await something that may take long, within most_s, saying progress meanwhile: it is bounded, not stuck."""
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
