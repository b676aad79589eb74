"""The gateway process: its loops and their watchdog, its health and status reports, its start and its end."""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog

from gateway.box import metrics
from gateway.box.clock import ClockWatch
from gateway.box.runner import STOP_MAX_S, Runner
from gateway.box.systemd import notify, watchdog_s
from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.events import GatewayHealth
from gateway.mqtt.city_link import STATUS_S, CityLink
from gateway.mqtt.connection import BrokerAccess
from gateway.mqtt.keys import KeyFile
from gateway.options import Installation
from gateway.outbox.lanes import Outbox, OutboxBusy
from gateway.radio.coordinator import DOWN_WORKERS, ButtonPacket, Radio, RadioGone
from gateway.survey.record_socket import Recorder
from gateway.uplink import Status
from readers.terminal import Exit, version

TEND_S = 5.0
HEALTH_QUIET_S = 60.0
LOOPS_STOP_S, SAVE_MAX_S, GOODBYE_MAX_S, CLOSE_MAX_S = 8.0, 10.0, 4.0, 10.0
END_MAX_S = STOP_MAX_S + LOOPS_STOP_S + SAVE_MAX_S + GOODBYE_MAX_S + 2.0 + CLOSE_MAX_S
"""The longest time to stop, with every part in trouble; a healthy gateway needs a second."""
EXIT_MAX_S = 10.0
BEAT_MAX_S = {
    "core": 15.0,
    "groups": 30.0,
    "tend": 90.0,
    "radio": 60.0,
    "down": 60.0,
    "connection": 150.0,
    "sender": 60.0,
    "record": 60.0,
}
"""Seconds a loop may be without progress before systemd gets no more signs of life."""

log = structlog.get_logger()


def version_text() -> str:
    """Return the version of this software."""
    return version()


class Daemon:
    """One gateway. Create it inside a running event loop and await `run`."""

    def __init__(self, installation: Installation, *, clock: ClockWatch | None = None) -> None:
        """Open the outbox and restore the core. Raises OutboxBusy."""
        self.installation = installation
        config = installation.config
        self.counters: Counter[str] = Counter({"library_lines_dropped": 0})
        self._loop = asyncio.get_running_loop()
        self._clock = clock or ClockWatch(trusted=config.clock.trusted)
        self._early: list[tuple[str, bool, str]] = []
        self._reported_at: dict[tuple[str, bool], float] = {}
        self._beats: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop = asyncio.Event()
        self._ready = False
        self.outbox = Outbox(
            installation.folder,
            utc_now=lambda: datetime.now(UTC),
            on_health=self.on_health,
            bulk_max_b=config.store.bulk_max_mb * 1_000_000,
            ballast_b=config.store.ballast_mb * 1_048_576,
        )
        self.radio = Radio(installation, self, on_health=self.on_health)
        self.runner = Runner(installation, self.outbox, self.radio, self._clock, on_health=self.on_health)
        self.recorder = Recorder(
            installation.folder, config.gateway, on_health=self.on_health, on_change=self._recording_changed
        )
        base = installation.base

        def absolute(name: str | None) -> str | None:
            return None if name is None else str(base / name)

        address = BrokerAccess(
            config.site,
            config.gateway,
            config.mqtt,
            installation.password,
            absolute(config.mqtt.ca_file),
            absolute(config.mqtt.cert_file),
            absolute(config.mqtt.key_file),
        )
        self.uplink = CityLink(
            address,
            self.outbox.sources,
            KeyFile(base / config.mqtt.city_key_file, on_health=self.on_health),
            on_health=self.on_health,
            on_stage=self.runner.on_stage,
            status=self.status,
        )

    # ---- what the other parts report --------------------------------------------------------------------------------

    def frame(self, frame: Frame, urgent: bool) -> None:
        """Take a frame from the radio."""
        self.runner.frame(frame, urgent)

    def button(self, pressed: ButtonPacket) -> None:
        """Take an alarm of a ZigBee button from the radio."""
        self.runner.button(pressed)

    def sent(self, reader: int, delivered: bool) -> None:
        """Take the end of a downlink from the radio."""
        self.runner.sent(reader, delivered)

    def on_health(self, what: str, ok: bool, detail: str) -> None:
        """Take a health report for the operator, from any thread."""
        if self._loop.is_running() and self._ready:
            self._loop.call_soon_threadsafe(self._health, what, ok, detail)
        else:
            self._early.append((what, ok, detail))

    def _health(self, what: str, ok: bool, detail: str) -> None:
        detail = metrics.printable(detail)
        (log.info if ok else log.warning)("health", what=what, ok=ok, detail=detail)
        now_s = time.monotonic()
        self._reported_at.pop((what, not ok), None)
        if now_s - self._reported_at.get((what, ok), -HEALTH_QUIET_S) < HEALTH_QUIET_S:
            return
        self._reported_at[what, ok] = now_s
        event = GatewayHealth(
            observed_at=datetime.now(UTC),
            clock=self.runner.quality,
            what=what[:64],
            ok=ok,
            detail=detail,
            counters=self.outbox.counters(),
        )
        self.outbox.queue(event)
        if what == "sos_disk_full" and not ok:
            self._spawn(self.outbox.relieve())

    def _recording_changed(self, wanted: bool) -> None:
        self.runner.state.tap = self.recorder.reading if wanted else None

    # ---- periodic work ----------------------------------------------------------------------------------------------

    async def _run_tend(self, progress: Callable[[], None]) -> None:
        status_at = time.monotonic()
        while True:
            await self.outbox.tend()
            progress()
            if time.monotonic() - status_at >= STATUS_S:
                status_at = time.monotonic()
                self.uplink.publish_status()
            await asyncio.sleep(TEND_S)

    async def _run_watchdog(self) -> None:
        period_s = watchdog_s()
        late: list[str] = []
        while True:
            now_s = time.monotonic()
            was, late = (
                late,
                [name for name, at_s in self._beats.items() if now_s - at_s > BEAT_MAX_S[name.partition(" ")[0]]],
            )
            if late and late != was:
                log.error("stuck", loops=", ".join(late))
            if not late and period_s:
                notify("WATCHDOG=1")
            await asyncio.sleep(min((period_s or 10.0) / 3, 5.0))

    # ---- start and end ----------------------------------------------------------------------------------------------

    async def run(self) -> Exit:
        """Run until SIGTERM or SIGINT, or until one of the loops ends, which is a fault. Return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop)
        self._ready = True
        for early in self._early:
            self._health(*early)
        self._early.clear()
        stop_metrics = self._serve_metrics()
        loops: list[asyncio.Task[Any]] = [
            self._loop_task("core", self.runner.run),
            self._loop_task("groups", self.outbox.run_groups),
            self._loop_task("tend", self._run_tend),
            self._loop_task("radio", self.radio.run),
            self._loop_task("record", self.recorder.run),
            *(self._loop_task(f"connection {c.lane}", c.run) for c in self.uplink.connections),
            *(self._loop_task(f"sender {s.name}", s.run) for s in self.uplink.senders),
        ]
        for urgent in (True, False):
            for i in range(DOWN_WORKERS):
                name = f"down {'urgent' if urgent else 'routine'} {i}"
                loops.append(self._loop_task(name, functools.partial(self.radio.run_downlinks, urgent)))
        loops.append(asyncio.create_task(self._run_watchdog(), name="watchdog"))
        log.info("started", gateway=self.installation.config.gateway, version=version_text(), pid=os.getpid())
        notify("READY=1")
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stop, *loops], return_when=asyncio.FIRST_COMPLETED)
        code = self._verdict(loops)
        notify("STOPPING=1")
        await self._end(loops, stop, code)
        if stop_metrics is not None:
            await asyncio.to_thread(stop_metrics)
        log.info("stopped", code=code)
        return code

    def stop(self) -> None:
        """Make `run` end."""
        self._stop.set()

    def _verdict(self, loops: list[asyncio.Task[Any]]) -> Exit:
        if self._stop.is_set():
            return Exit.DONE
        for task in loops:
            if task.done():
                error = None if task.cancelled() else task.exception()
                log.error("loop_ended", loop=task.get_name(), error=repr(error))
                return Exit.DEVICE if isinstance(error, RadioGone) else Exit.FAULT
        return Exit.FAULT

    async def _end(self, loops: list[asyncio.Task[Any]], stop: asyncio.Task[Any], code: Exit) -> None:
        """End in this order, each part within a time limit: the core's loop; the radio and other loops; queued events
        and the core's snapshot to disk; the goodbye to the city; the files."""
        stop.cancel()
        by_name = {task.get_name(): task for task in loops}
        core = by_name["core"]
        self.runner.stop()
        await asyncio.wait([core], timeout=STOP_MAX_S)
        whole = core.done() and not core.cancelled() and core.exception() is None
        await _cancel(
            [task for name, task in by_name.items() if not name.startswith(("connection", "sender"))], LOOPS_STOP_S
        )
        self._health("stopped" if code == 0 else "failed", code == 0, f"the gateway ends with code {code}")
        with contextlib.suppress(Exception):
            async with asyncio.timeout(SAVE_MAX_S):
                await self.outbox.flush()
                if whole:
                    await self.runner.close()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(GOODBYE_MAX_S):
                await self.uplink.stop()
        await _cancel([*by_name.values(), *self._tasks], 2.0)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_MAX_S):
                await self.outbox.close()

    def _loop_task(self, name: str, run: Callable[[Callable[[], None]], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        def progress() -> None:
            self._beats[name] = time.monotonic()

        progress()
        return asyncio.create_task(run(progress), name=name)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- what the other parts ask -----------------------------------------------------------------------------------

    def status(self, online: bool) -> Status:
        """Return the current status, for the retained message."""
        sos, _, events = self.outbox.sources
        ok, silent = pipeline.readers_ok_and_silent(self.runner.state)
        return Status(
            online=online,
            gateway=self.installation.config.gateway,
            site=self.installation.config.site,
            at=datetime.now(UTC),
            version=version_text(),
            epochs={"sos": sos.epoch, "events": events.epoch},
            backlog={"sos": sos.backlog, "events": events.backlog},
            clock=self.runner.quality,
            readers_ok=ok,
            readers_silent=silent,
        )

    def figures(self) -> dict[str, float]:
        """Return all counters and levels, by the names in docs/GATEWAY.md."""
        found: dict[str, float] = {f"core_{name}": n for name, n in pipeline.counters(self.runner.state).items()}
        found |= {f"core_{name}": level for name, level in pipeline.figures(self.runner.state).items()}
        found |= {f"radio_{name}": n for name, n in self.radio.counters.items()}
        found |= {f"daemon_{name}": n for name, n in (*self.runner.counters.items(), *self.counters.items())}
        found |= self.outbox.counters() | self.uplink.counters()
        found |= self.recorder.counters | {"record_clients": self.recorder.clients}
        ok, silent = pipeline.readers_ok_and_silent(self.runner.state)
        found |= {"readers_ok": ok, "readers_silent": silent, "clock_good": self.runner.quality == "good"}
        found |= {"clock_steps": self._clock.steps, "radio_up": self.radio.up}
        found["urgent_queued"], found["routine_queued"] = self.runner.queued()
        for source in (self.outbox.sos, self.outbox.events):
            taken = sorted(source.commit_s)
            for name, part in (("p50", 0.5), ("p99", 0.99)):
                found[f"{source.lane}_commit_{name}_ms"] = taken[int(len(taken) * part)] * 1000 if taken else 0.0
        return found

    def _ask_figures(self) -> dict[str, float]:
        """Return `figures` to another thread: the event loop computes them, so that no table changes meanwhile."""

        async def read() -> dict[str, float]:
            return self.figures()

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(5.0)

    def _serve_metrics(self) -> Callable[[], None] | None:
        if self.installation.config.metrics is None:
            return None
        try:
            return metrics.serve(self.installation.config.metrics.port, self._ask_figures)
        except OSError as error:
            self._health("metrics", False, f"metrics.port {self.installation.config.metrics.port}: {error.strerror}")
            return None


async def _cancel(tasks: list[asyncio.Task[Any]], most_s: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=most_s)


def run(installation: Installation) -> Exit:
    """Run a gateway in this process; return its exit code. Raises OutboxBusy.

    The process may end itself EXIT_MAX_S later: a library's thread that never ends must not prevent the next start of
    a closed gateway.
    """
    os.umask(0o077)  # zigpy's database holds the network key
    lines = metrics.stdout_lines()
    metrics.log_to(lines)

    async def main() -> Exit:
        gateway = Daemon(installation)
        logging.basicConfig(level=logging.WARNING, handlers=[metrics.Libraries(gateway.counters)], force=True)
        code = await gateway.run()
        last = threading.Timer(EXIT_MAX_S, os._exit, [code])
        last.daemon = True
        last.start()
        return code

    try:
        return asyncio.run(main())
    except OutboxBusy:
        raise
    except Exception as error:
        log.exception("fault", error=repr(error))
        return Exit.FAULT
    finally:
        lines.close()
