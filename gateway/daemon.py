"""The gateway itself: the loops round the core, each watched, and the one place where effects are carried out.

    radio --> urgent  --\\                      / Commit (emergency) --> outbox sos    --> uplink
    radio --> routine ---> core, one at a time <  Commit (routine)   --> outbox events --> uplink
    city  --> stages  --/                      \\ Downlink           --> radio

An emergency is committed before the core is asked for anything more. Routine events are committed in groups; a downlink
the core asked for after one waits for that commit, and nothing else does. If a commit fails the step ends there: the
reader is not told, and says it again.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog

from gateway import metrics, pipeline
from gateway.clock import ClockWatch, utc_and_now_s
from gateway.config import Loaded
from gateway.coordinator import DOWN_WORKERS, ROUTINE_MAX, URGENT_MAX, Radio, RadioGone
from gateway.effects import Commit, Downlink, Effect, Remember
from gateway.events import STAGES, Emergency, GatewayHealth, is_emergency
from gateway.frames import Frame
from gateway.mqtt import STATUS_S, Address, Uplink
from gateway.notify_systemd import notify, watchdog_s
from gateway.outbox import Outbox
from gateway.store import NotCommitted
from gateway.uplink import StageNotice, Status

STAGES_MAX = 1000
HELD_MAX = 500
SNAPSHOT_S = 10.0
TEND_S = 5.0
HEALTH_QUIET_S = 60.0
FAULTS_MAX_B = 1_000_000
FAULT_BYTES = 128
BEAT_MAX_S = {
    "core": 15.0,
    "groups": 30.0,
    "tend": 90.0,
    "radio": 60.0,
    "down": 60.0,
    "connection": 150.0,
    "sender": 60.0,
}
"""Seconds a loop may go without progress before systemd is told no more that we live."""

log = structlog.get_logger()


def version_text() -> str:
    """Return the version of this software."""
    try:
        return version("ansim")
    except PackageNotFoundError:
        return "0"


class Daemon:
    """One gateway. Make it inside a running event loop and await `run`."""

    def __init__(self, settings: Loaded, *, clock: ClockWatch | None = None) -> None:
        """Open the store and restore the core. Raises OutboxBusy."""
        self.settings = settings
        config = settings.config
        self.counters: Counter[str] = Counter(
            dict.fromkeys(("frame_faults", "frames_dropped", "steps_cut", "stages_dropped", "held_dropped"), 0)
        )
        self._loop = asyncio.get_running_loop()
        self._clock = clock or ClockWatch(trusted=config.clock.trusted)
        self._early: list[tuple[str, bool, str]] = []
        self._told: dict[tuple[str, bool], float] = {}
        self._beats: dict[str, float] = {}
        self._urgent: deque[Frame] = deque()
        self._routine: deque[Frame] = deque()
        self._stages: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop = asyncio.Event()
        self._ready = False
        self.outbox = Outbox(
            settings.folder,
            utc_now=lambda: datetime.now(UTC),
            notice=self.notice,
            bulk_max_b=config.store.bulk_max_mb * 1_000_000,
            ballast_b=config.store.ballast_mb * 1_048_576,
        )
        utc_s, now_s = utc_and_now_s()
        self.quality = self._clock.read(utc_s, now_s)
        self.state = self._core(utc_s, now_s)
        self.radio = Radio(settings, self, notice=self.notice)
        base = settings.base

        def absolute(name: str | None) -> str | None:
            return None if name is None else str(base / name)

        address = Address(
            config.site,
            config.gateway,
            config.mqtt,
            settings.password,
            absolute(config.mqtt.ca_file),
            absolute(config.mqtt.cert_file),
            absolute(config.mqtt.key_file),
        )
        self.uplink = Uplink(
            address, self.outbox.sources, notice=self.notice, on_stage=self.on_stage, status=self.status
        )

    def _core(self, utc_s: float, now_s: float) -> pipeline.State:
        settings = self.settings
        state = pipeline.State.new(
            settings.zone,
            settings.reader_keys,
            settings.tag_keys,
            epoch=self.outbox.sos.epoch,
            memories=self.outbox.memories(),
            gateway=settings.config.gateway,
            now_s=now_s,
        )
        pipeline.set_clock(state, utc_s, now_s, self.quality)
        snapshot = self.outbox.snapshot()
        if snapshot is not None:
            try:
                pipeline.restore(state, snapshot)
            except Exception as error:
                self.notice("snapshot_unreadable", False, f"the core starts without its snapshot: {error!r}")
        return state

    # ---- what comes in ----------------------------------------------------------------------------------------------

    def frame(self, frame: Frame, urgent: bool) -> None:
        """Take a frame from the radio. An urgent one stands before every routine one; the oldest is dropped if full."""
        line, most = (self._urgent, URGENT_MAX) if urgent else (self._routine, ROUTINE_MAX)
        line.append(frame)
        if len(line) > most:
            line.popleft()
            self.counters["frames_dropped"] += 1
        self._wake.set()

    def on_stage(self, stage: StageNotice) -> None:
        """Take the city's word about an alarm; only the highest stage of each waits."""
        if len(self._stages) >= STAGES_MAX and stage.alarm not in self._stages:
            self.counters["stages_dropped"] += 1  # the city repeats it
            return
        self._stages[stage.alarm] = max(self._stages.get(stage.alarm, 0), STAGES.index(stage.stage) + 1)
        self._wake.set()

    def notice(self, what: str, ok: bool, detail: str) -> None:
        """Take a word for the operator, from any thread."""
        if self._loop.is_running() and self._ready:
            self._loop.call_soon_threadsafe(self._health, what, ok, detail)
        else:
            self._early.append((what, ok, detail))

    def _health(self, what: str, ok: bool, detail: str) -> None:
        detail = metrics.printable(detail)
        (log.info if ok else log.warning)("health", what=what, ok=ok, detail=detail)
        now_s = time.monotonic()
        self._told.pop((what, not ok), None)
        if now_s - self._told.get((what, ok), -HEALTH_QUIET_S) < HEALTH_QUIET_S:
            return
        self._told[what, ok] = now_s
        event = GatewayHealth(
            observed_at=datetime.now(UTC),
            clock=self.quality,
            what=what[:64],
            ok=ok,
            detail=detail,
            counters=self.outbox.counters(),
        )
        self.outbox.queue(event)
        if what == "sos_disk_full" and not ok:
            self._spawn(self.outbox.relieve())

    # ---- the core ---------------------------------------------------------------------------------------------------

    async def _run_core(self, progress: Callable[[], None]) -> None:
        while True:
            progress()
            now_s = time.monotonic()
            if self._urgent:
                await self._step_frame(self._urgent.popleft(), now_s)
            elif self._stages:
                alarm = next(iter(self._stages))
                await self._carry(pipeline.on_stage(self.state, alarm, self._stages.pop(alarm), now_s))
            elif now_s >= pipeline.next_deadline_s(self.state):
                await self._carry(pipeline.on_tick(self.state, now_s))
                await asyncio.sleep(0)
            elif self._routine:
                await self._step_frame(self._routine.popleft(), now_s)
                await asyncio.sleep(0)
            else:
                self._wake.clear()
                wait_s = min(max(pipeline.next_deadline_s(self.state) - now_s, 0.001), 1.0)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _step_frame(self, frame: Frame, now_s: float) -> None:
        await self._carry(pipeline.on_frame(self.state, frame, now_s), frame)

    async def _carry(self, step: Iterator[Effect], frame: Frame | None = None) -> None:
        """Carry out one step of the core, effect by effect. The one blanket catch of the gateway is here."""
        waiting: list[asyncio.Future[bool]] = []
        try:
            for effect in step:
                if isinstance(effect, Downlink):
                    self._downlink(effect, waiting)
                elif isinstance(effect, Remember):
                    await self.outbox.remember(effect.memory)
                elif is_emergency(effect.event):
                    await self._commit_emergency(effect)
                else:
                    waiting.append(self.outbox.queue(effect.event))  # type: ignore[arg-type]
        except NotCommitted as error:
            self.counters["steps_cut"] += 1
            log.error("not_committed", detail=str(error))
            _close(step)
        except Exception as error:
            self.counters["frame_faults"] += 1
            log.exception("fault", error=repr(error))
            self._keep_fault(frame, error)
            _close(step)

    async def _commit_emergency(self, effect: Commit) -> None:
        event: Any = effect.event
        seq = await self.outbox.commit_emergency(event, effect.memory)
        log.info("committed", lane="sos", kind=_kind(event), alarm=event.alarm, seq=seq, at=time.time())

    def _downlink(self, effect: Downlink, waiting: list[asyncio.Future[bool]]) -> None:
        if effect.urgent or all(done.done() and done.result() for done in waiting):
            self.radio.send(effect.reader, effect.payload, effect.urgent)
        elif len(self._tasks) > HELD_MAX:
            self.counters["held_dropped"] += 1
        else:
            self._spawn(self._when_durable(effect, list(waiting)))

    async def _when_durable(self, effect: Downlink, waiting: list[asyncio.Future[bool]]) -> None:
        if all(await asyncio.gather(*waiting)):
            self.radio.send(effect.reader, effect.payload, effect.urgent)
        else:
            self.counters["held_dropped"] += 1

    def _keep_fault(self, frame: Frame | None, error: Exception) -> None:
        """Keep the bytes that broke a step: they become a test. Two files of FAULTS_MAX_B at the most."""
        path = self.settings.folder / "faults.jsonl"
        raw = frame.payload[:FAULT_BYTES].hex() if frame is not None else ""
        line = {"at": time.time(), "nwk": frame.nwk if frame else None, "bytes": raw, "error": repr(error)[:300]}
        with contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size > FAULTS_MAX_B:
                os.replace(path, path.with_suffix(".jsonl.1"))
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    # ---- what is due now and then -----------------------------------------------------------------------------------

    async def _run_tend(self, progress: Callable[[], None]) -> None:
        saved_at = status_at = time.monotonic()
        tended_at = 0.0
        while True:
            utc_s, now_s = utc_and_now_s()
            self.quality = self._clock.read(utc_s, now_s)
            pipeline.set_clock(self.state, utc_s, now_s, self.quality)
            if now_s - tended_at >= TEND_S:
                tended_at = now_s
                await self.outbox.tend()
                progress()
            if now_s - saved_at >= SNAPSHOT_S:
                saved_at = now_s
                await self._save()
            if now_s - status_at >= STATUS_S:
                status_at = now_s
                self.uplink.publish_status()
            await asyncio.sleep(1.0)

    async def _save(self) -> None:
        with contextlib.suppress(NotCommitted):
            await self.outbox.save(pipeline.snapshot(self.state))

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

    # ---- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a loop ends that must not. Return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._ready = True
        for early in self._early:
            self._health(*early)
        self._early.clear()
        stop_metrics = self._serve_metrics()
        loops: list[asyncio.Task[Any]] = [
            self._loop_task("core", self._run_core),
            self._loop_task("groups", self.outbox.run_groups),
            self._loop_task("tend", self._run_tend),
            self._loop_task("radio", self.radio.run),
            *(self._loop_task(f"connection {c.lane}", c.run) for c in self.uplink.connections),
            *(self._loop_task(f"sender {s.name}", s.run) for s in self.uplink.senders),
        ]
        for urgent in (True, False):
            for i in range(DOWN_WORKERS):
                name = f"down {'urgent' if urgent else 'routine'} {i}"
                loops.append(self._loop_task(name, functools.partial(self.radio.run_downlinks, urgent)))
        loops.append(asyncio.create_task(self._run_watchdog(), name="watchdog"))
        log.info("started", gateway=self.settings.config.gateway, version=version_text(), pid=os.getpid())
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

    def _verdict(self, loops: list[asyncio.Task[Any]]) -> int:
        if self._stop.is_set():
            return 0
        for task in loops:
            if task.done():
                error = None if task.cancelled() else task.exception()
                log.error("loop_ended", loop=task.get_name(), error=repr(error))
                return 3 if isinstance(error, RadioGone) else 4
        return 4

    async def _end(self, loops: list[asyncio.Task[Any]], stop: asyncio.Task[Any], code: int) -> None:
        """Radio first, then what the core knows, then the goodbye to the city, the files last; each within a time."""
        stop.cancel()
        by_name = {task.get_name(): task for task in loops}
        await _cancel([task for name, task in by_name.items() if not name.startswith(("connection", "sender"))], 8.0)
        self._health("stopped" if code == 0 else "failed", code == 0, f"the gateway ends with code {code}")
        with contextlib.suppress(Exception):
            async with asyncio.timeout(10):
                await self._save()
                await self.outbox.flush()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(4):
                await self.uplink.stop()
        await _cancel([*by_name.values(), *self._tasks], 2.0)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(10):
                await self.outbox.close()

    def _loop_task(self, name: str, run: Callable[[Callable[[], None]], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        def progress() -> None:
            self._beats[name] = time.monotonic()

        progress()
        return asyncio.create_task(run(progress), name=name)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- what others ask --------------------------------------------------------------------------------------------

    def status(self, online: bool) -> Status:
        """Return the retained status as it is now."""
        sos, _, events = self.outbox.sources
        ok, silent = pipeline.readers_ok_and_silent(self.state)
        return Status(
            online=online,
            gateway=self.settings.config.gateway,
            site=self.settings.config.site,
            at=datetime.now(UTC),
            version=version_text(),
            epochs={"sos": sos.epoch, "events": events.epoch},
            backlog={"sos": sos.backlog, "events": events.backlog},
            clock=self.quality,
            readers_ok=ok,
            readers_silent=silent,
        )

    def figures(self) -> dict[str, float]:
        """Return every count and level by the names docs/GATEWAY.md lists."""
        found: dict[str, float] = {f"core_{name}": n for name, n in pipeline.counters(self.state).items()}
        found |= {f"radio_{name}": n for name, n in self.radio.counters.items()}
        found |= {f"daemon_{name}": n for name, n in self.counters.items()}
        found |= self.outbox.counters() | self.uplink.counters()
        ok, silent = pipeline.readers_ok_and_silent(self.state)
        found |= {"readers_ok": ok, "readers_silent": silent, "clock_good": self.quality == "good"}
        found |= {"clock_steps": self._clock.steps, "radio_up": self.radio.up}
        found |= {"urgent_queued": len(self._urgent), "routine_queued": len(self._routine)}
        for source in (self.outbox.sos, self.outbox.events):
            taken = sorted(source.commit_s)
            for name, part in (("p50", 0.5), ("p99", 0.99)):
                found[f"{source.lane}_commit_{name}_ms"] = taken[int(len(taken) * part)] * 1000 if taken else 0.0
        return found

    def _serve_metrics(self) -> Callable[[], None] | None:
        if self.settings.config.metrics is None:
            return None
        try:
            return metrics.serve(self.settings.config.metrics.port, self.figures)
        except OSError as error:
            self._health("metrics", False, f"metrics.port {self.settings.config.metrics.port}: {error.strerror}")
            return None


def _kind(event: Emergency) -> str:
    return str(event.__struct_config__.tag)


def _close(step: Iterator[Effect]) -> None:
    close = getattr(step, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()


async def _cancel(tasks: list[asyncio.Task[Any]], most_s: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=most_s)


def run(settings: Loaded) -> int:
    """Run a gateway in this process; return its exit code. Raises OutboxBusy."""
    lines = metrics.stdout_lines()
    metrics.log_to(lines)
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()], force=True)

    async def main() -> int:
        return await Daemon(settings).run()

    try:
        return asyncio.run(main())
    finally:
        lines.close()


class _Libraries(logging.Handler):
    """zigpy's, bellows' and asyncio's warnings, as lines of our own log."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            log.warning("library", name=record.name, level_name=record.levelname, text=record.getMessage())
