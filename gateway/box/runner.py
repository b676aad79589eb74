r"""Runs the core's steps: one at a time, and each effect is carried out before the next one is requested.

    radio --> urgent  --\                      / Commit (emergency) --> outbox sos
    radio --> buttons ---> core, one at a time <  Commit (routine)   --> outbox events
    city  --> stages  --/                      \ Downlink           --> radio
    radio --> routine -/

An emergency is committed before the core's next effect is requested. Routine events are committed in groups; only a
downlink that is not urgent waits for the events queued before it. If a commit to disk fails, the step ends there:
the reader gets no answer, and sends again. Between two steps, never within one, the core gets the time and a snapshot
is taken; the snapshot goes to disk only after every event that came before it.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from gateway.box.clock import ClockWatch, utc_and_now_s
from gateway.core import pipeline
from gateway.core.frames import Frame
from gateway.effects import Commit, Downlink, Effect, Remember
from gateway.events import STAGES, ClockQuality, is_emergency
from gateway.health import OnHealth
from gateway.options import Installation
from gateway.outbox.lane_file import NotCommitted
from gateway.outbox.lanes import Outbox
from gateway.radio.coordinator import ButtonPacket, Radio
from gateway.uplink import StageNotice
from readers import wire

ROUTINE_MAX = 500
"""Most routine frames waiting for the core; above it the oldest is dropped. A mesh at its limit brings 30 a second."""
URGENT_MAX = 2000
STAGES_MAX = 1000
SENT_MAX = 1000
"""Most ends of downlinks that wait for the core; the oldest is dropped. They only guide how much the readers scan."""
BUTTONS_MAX, BUTTONS_EACH_MAX = 50, 5
"""Most alarms of ZigBee buttons that wait, of all and of one. The newest is dropped and not answered, so its button
repeats it."""
HELD_MAX = 500
CHORES_S = 1.0
SNAPSHOT_S = 10.0
TICK_MIN_S, TICK_AGAIN_S = 0.005, 1.0
"""Pause after a tick, so that routine frames get their turn; a tick that failed is tried again after the longer one."""
FIT_AFTER_S = 10.0
"""The walk test is fitted only this long after a start: the cries of the downtime arrive in these seconds, and a fit
would share the interpreter with them."""
STOP_MAX_S = 5.0
FAULTS_MAX_B = 1_000_000
FAULTS_A_MINUTE = 60
FAULT_BYTES = 128
COUNTED = (
    "frame_faults",
    "frames_dropped",
    "urgent_dropped",
    "buttons_dropped",
    "steps_cut",
    "stages_dropped",
    "held_dropped",
    "snapshots",
)

log = structlog.get_logger()


class Runner:
    """The core and its queues; the only place that carries out effects."""

    def __init__(
        self, installation: Installation, outbox: Outbox, radio: Radio, clock: ClockWatch, *, on_health: OnHealth
    ) -> None:
        """Restore the core from the outbox; this blocks."""
        self._installation, self._outbox, self._radio, self._clock = installation, outbox, radio, clock
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._urgent: deque[Frame] = deque()
        self._routine: deque[Frame] = deque()
        self._buttons: deque[ButtonPacket] = deque()
        self._stages: dict[str, int] = {}
        self._sent: deque[tuple[int, bool]] = deque(maxlen=SENT_MAX)
        self._radio_starts = 0
        self._wake = asyncio.Event()
        self._ending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving: asyncio.Task[None] | None = None
        self._saved_at_s, self._saved_changes = float("-inf"), 0
        self._queued: asyncio.Future[bool] | None = None
        self._faults: deque[float] = deque(maxlen=FAULTS_A_MINUTE)
        self._fitted: deque[tuple[int, Any]] = deque()
        utc_s, now_s = utc_and_now_s()
        self.quality: ClockQuality = clock.read(utc_s, now_s)
        self.state = self._restored(utc_s, now_s, on_health)

    def frame(self, frame: Frame, urgent: bool) -> None:
        """Take a frame from the radio. Urgent ones go before all routine ones; a full queue drops its oldest."""
        line, most = (self._urgent, URGENT_MAX) if urgent else (self._routine, ROUTINE_MAX)
        line.append(frame)
        if len(line) > most:
            line.popleft()
            self.counters["urgent_dropped" if urgent else "frames_dropped"] += 1
        self._wake.set()

    def button(self, pressed: ButtonPacket) -> None:
        """Take an alarm of a ZigBee button; it goes after readers' cries, and before all else."""
        own = sum(waiting.frame.device == pressed.frame.device for waiting in self._buttons)
        if len(self._buttons) >= BUTTONS_MAX or own >= BUTTONS_EACH_MAX:
            self.counters["buttons_dropped"] += 1
            return
        self._buttons.append(pressed)
        self._wake.set()

    def sent(self, reader: int, delivered: bool) -> None:
        """Take the end of a downlink: its reader acknowledged it, or did not."""
        self._sent.append((reader, delivered))

    def on_stage(self, stage: StageNotice) -> None:
        """Take the city's stage of an alarm; only the highest stage of each alarm is kept waiting."""
        if len(self._stages) >= STAGES_MAX and stage.alarm not in self._stages:
            self.counters["stages_dropped"] += 1  # the city repeats it
            return
        self._stages[stage.alarm] = max(self._stages.get(stage.alarm, 0), STAGES.index(stage.stage) + 1)
        self._wake.set()

    def queued(self) -> tuple[int, int]:
        """Return how many urgent and how many routine frames wait."""
        return len(self._urgent), len(self._routine)

    # ---- the loop ---------------------------------------------------------------------------------------------------

    async def run(self, progress: Callable[[], None]) -> None:
        """Run one step after another until `stop`."""
        chores_at_s = tick_at_s = 0.0
        self._spawn(self._fit())
        while not self._ending:
            progress()
            now_s = time.monotonic()
            if now_s >= chores_at_s:
                chores_at_s = now_s + CHORES_S
                self._periodic_work()
            if self._urgent:
                await self._carry_out(self._heard(self._urgent[0], now_s), self._urgent.popleft())
            elif self._buttons:
                pressed = self._buttons.popleft()
                if await self._carry_out(pipeline.on_button(self.state, pressed.frame, now_s)):
                    self._radio.answer(pressed)
            elif self._stages:
                alarm = next(iter(self._stages))
                await self._carry_out(pipeline.on_stage(self.state, alarm, self._stages.pop(alarm), now_s))
            elif self._fitted:
                await self._carry_out(pipeline.learn(self.state, *self._fitted.popleft(), now_s))
            elif now_s >= max(tick_at_s, pipeline.next_deadline_s(self.state)):
                done = await self._carry_out(pipeline.on_tick(self.state, now_s))
                tick_at_s = time.monotonic() + (TICK_MIN_S if done else TICK_AGAIN_S)
                await asyncio.sleep(0)
            elif self._routine:
                await self._carry_out(self._heard(self._routine[0], now_s), self._routine.popleft())
                await asyncio.sleep(0)
            else:
                self._wake.clear()
                due_s = min(max(tick_at_s, pipeline.next_deadline_s(self.state)), chores_at_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(
                        min(max(due_s - now_s, 0.001), 1.0)
                    ):  # not wait_for, which on 3.11 may swallow a cancellation
                        await self._wake.wait()

    def stop(self) -> None:
        """Let the current step finish, and start no other."""
        self._ending = True
        self._wake.set()

    async def close(self) -> None:
        """Put the last snapshot on disk. Call it only after `run` ended: a half-done step must not be kept."""
        for task in self._tasks:
            task.cancel()
        await self._save(pipeline.snapshot(self.state), self._queued)

    def _periodic_work(self) -> None:
        """Do the work of every second on the core, between two of its steps."""
        utc_s, now_s = utc_and_now_s()
        self.quality = self._clock.read(utc_s, now_s)
        pipeline.set_clock(self.state, utc_s, now_s, self.quality)
        if self._radio_starts != (starts := self._radio.counters["starts"]):
            self._radio_starts = starts
            self._sent.clear()
            pipeline.on_radio_start(self.state)
        while self._sent:
            pipeline.on_sent(self.state, *self._sent.popleft(), now_s)
        due = now_s - self._saved_at_s >= SNAPSHOT_S or self.state.changes != self._saved_changes
        if due and (self._saving is None or self._saving.done()):
            self._saved_at_s, self._saved_changes = now_s, self.state.changes
            self._saving = self._spawn(self._save(pipeline.snapshot(self.state), self._queued))

    async def _fit(self) -> None:
        """Fit the walk test while the core runs: an alarm in the first second must not wait for a map."""
        if self._installation.site is None or self._installation.survey is None:
            return
        await asyncio.sleep(FIT_AFTER_S)
        began_s = time.monotonic()
        parts = pipeline.fit(self.state, (self._installation.site, self._installation.survey))
        try:
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                self._fitted.append(part)
                self._wake.set()
        except Exception as error:
            self._keep_fault(None, error)
            return
        log.info("walk_test_fitted", took_s=round(time.monotonic() - began_s, 2))

    async def _save(self, snapshot: bytes, queued: "asyncio.Future[bool] | None") -> None:
        """Put a snapshot on disk after the events queued before it: a crash may repeat an arrival, but loses none."""
        if queued is not None and not await asyncio.shield(queued):
            return
        with contextlib.suppress(NotCommitted):
            await self._outbox.save(snapshot)
            self.counters["snapshots"] += 1

    def _heard(self, frame: Frame, now_s: float) -> Iterator[Effect]:
        """Yield the core's effects for a frame; if the core took it as new, the radio learns its reader's address."""
        link, before = None, None
        with contextlib.suppress(wire.WireError):
            link = self.state.links.by_number.get(wire.peek(frame.payload)[1])
            before = link and link.newest()
        step = pipeline.on_frame(self.state, frame, now_s)
        with contextlib.closing(step):  # type: ignore[type-var]
            effect = next(step, None)
            if link is not None and link.newest() != before:
                self._radio.learn(link.reader, frame.nwk)
            while effect is not None:
                yield effect
                effect = next(step, None)

    # ---- effects ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, step: Iterator[Effect], frame: Frame | None = None) -> bool:
        """Carry out one step of the core, effect by effect; return whether all were. The broad `except` is here."""
        try:
            for effect in step:
                if isinstance(effect, Downlink):
                    self._downlink(effect)
                elif isinstance(effect, Remember):
                    await self._outbox.remember(effect.memory)
                elif is_emergency(effect.event):
                    await self._commit_emergency(effect)
                else:
                    self._queued = self._outbox.queue(effect.event)  # type: ignore[arg-type]
            return True
        except NotCommitted as error:
            self.counters["steps_cut"] += 1
            log.error("not_committed", detail=str(error))
        except Exception as error:
            self.counters["frame_faults"] += 1
            self._keep_fault(frame, error)
        _close(step)
        return False

    async def _commit_emergency(self, effect: Commit) -> None:
        event: Any = effect.event
        seq = await self._outbox.commit_emergency(event, effect.memory)
        log.info("committed", lane="sos", kind=event.__struct_config__.tag, alarm=event.alarm, seq=seq, at=time.time())

    def _downlink(self, effect: Downlink) -> None:
        """Send, or hold until the last routine event queued so far is on disk: the core may acknowledge an event in
        a later step than the one that made it."""
        queued = self._queued
        if effect.urgent or queued is None or (queued.done() and queued.result()):
            self._radio.send(effect.reader, effect.payload, effect.urgent)
        elif len(self._tasks) > HELD_MAX:
            self.counters["held_dropped"] += 1
        else:
            self._spawn(self._when_durable(effect, queued))

    async def _when_durable(self, effect: Downlink, queued: "asyncio.Future[bool]") -> None:
        if await asyncio.shield(queued):
            self._radio.send(effect.reader, effect.payload, effect.urgent)
        else:
            self.counters["held_dropped"] += 1

    def _keep_fault(self, frame: Frame | None, error: Exception) -> None:
        """Keep the bytes that broke a step, for a test. At most two files of FAULTS_MAX_B and FAULTS_A_MINUTE lines."""
        now_s = time.monotonic()
        if len(self._faults) == FAULTS_A_MINUTE and now_s - self._faults[0] < 60:
            return
        self._faults.append(now_s)
        log.exception("fault", error=repr(error))
        path = self._installation.folder / "faults.jsonl"
        raw = frame.payload[:FAULT_BYTES].hex() if frame is not None else ""
        line = {"at": time.time(), "nwk": frame.nwk if frame else None, "bytes": raw, "error": repr(error)[:300]}
        with contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size > FAULTS_MAX_B:
                os.replace(path, path.with_suffix(".jsonl.1"))
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _restored(self, utc_s: float, now_s: float, on_health: OnHealth) -> pipeline.State:
        installation = self._installation
        state = pipeline.State.new(
            installation.zone,
            installation.reader_keys,
            installation.tag_keys,
            epoch=self._outbox.sos.epoch,
            memories=self._outbox.memories(),
            gateway=installation.config.gateway,
            now_s=now_s,
            paused=installation.config.paused,
        )
        pipeline.set_clock(state, utc_s, now_s, self.quality)
        snapshot = self._outbox.snapshot()
        if snapshot is not None:
            try:
                pipeline.restore(state, snapshot)
            except Exception as error:
                on_health("snapshot_unreadable", False, f"the core starts without its snapshot: {error!r}")
        return state


def _close(step: Iterator[Effect]) -> None:
    close = getattr(step, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()
