"""The command `ansim-sim demo`: a simulated school zone with the real broker, gateway and city, measured.

The order: broker, city and gateway start. The readers join the network that the gateway formed. The story runs at the
speed of the wall clock. The tags fall silent. What is still on its way arrives. Everything ends. The records are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx

from readers.build import BuildError
from sim import chance
from sim.demo import broker, folder, records, report, scenario, technician
from sim.demo.auto_operator import AutoOperator, Seen
from sim.demo.presses import Pressed, Presses
from sim.demo.processes import STOP_S, Program, StartError, console, free_ports, listens, until
from sim.demo.rig import Rig, set_up
from sim.demo.scenario import Fault, Press, Switching
from sim.demo.show import ChildRow, PressRow, Show, View
from sim.ending import HURRIED_S, Ending
from sim.reader import switches
from sim.reader.switches import Switches
from sim.street import site
from sim.street.children import Child, World
from sim.street.tag import CALM_S, calm_in_s
from sim.street.zone import bell_id
from sim.walks import sites

JOIN_S = 180.0
SWITCHED_S = 30.0
"""A reader with switches may never join or send. The others do not wait longer for it."""
STORY_BEFORE_S = 1.0
ANSWER_S = (2.0, 4.0)
"""How long an operator needs to see an incident and press Acknowledge, from .. to."""
NO_ANSWER_WARN_S = 30.0
SHORT_S = 300.0
"""A story up to this length waits for a time in which no id changes, so that a seed tells the same at any hour."""
DRAIN_S = 30.0
QUIET_S = 3.0
"""The run counts as drained when nothing has waited and no new row was committed for this long."""
SAMPLE_S = 1.0
WATCH_S = 0.25


class Ended(Exception):
    """A signal asked the run to end."""


FORESEEN = (StartError, records.RecordsError, httpx.HTTPError, BuildError, BrokenPipeError, Ended)
"""Errors whose message says it all."""


def needed_calm_s(seconds: float) -> float:
    """Return for how long no tag may change its id when a story of this length begins.

    It is the story and the time in which its last arrival is told. A story longer than SHORT_S, or one without an end,
    only waits until every tag sends.
    """
    return seconds + report.TOLD_S if seconds <= SHORT_S else 0.0


@dataclass(frozen=True)
class Options:
    """The options of `ansim-sim demo`. Everything random follows from the seed."""

    seconds: float = 90.0
    children: int = 20
    readers: int = 12
    seed: int = 1
    once: bool = False
    faults: tuple[Fault, ...] = ()
    switchings: tuple[Switching, ...] = ()
    switches_file: Path | None = None
    broker: broker.Choice = "auto"
    auto_acknowledge: bool = False
    walk_test: bool = True
    site_file: Path = site.GONGDEOK
    runs: Path = folder.RUNS


class Demo:
    """One run. `run` returns when the story is over, or when a signal ends it.

    The run is one task. Whatever must end it, a signal or the end of any of its parts, cancels this task, wherever it
    waits (`_end_with`).
    """

    def __init__(self, options: Options, show: Show, ending: Ending | None = None) -> None:
        self.options, self.show, self.ending = options, show, ending or Ending()
        self.site = site.load(options.site_file)
        if not 1 <= options.readers <= len(self.site.poles):
            raise scenario.ScenarioError(
                f"--readers {options.readers}; {options.site_file.name} has 1..{len(self.site.poles)}"
            )
        self.poles = self.site.poles[: options.readers]
        live = not options.once
        self.world = World(self.site, options.seed, options.children, endless=live)
        seconds = options.seconds if options.once else 1e9
        self.story = scenario.write(
            self.world, self.poles, seconds=seconds, faults=options.faults, switchings=options.switchings, live=live
        )
        self.module = scenario.module_of(options.switches_file)
        self.switches = scenario.at_boot(self.story, [pole.number for pole in self.poles], self.module)
        self.presses = Presses(lambda text, kind: show.say(text, "good" if kind == "good" else "info"))
        self._behind: set[int] = set()
        self._drained: list[records.LaneRecord] = []
        self.figures: Counter[str] = Counter()
        self.setup_s: dict[str, float] = {}
        self.faults_done: list[dict[str, Any]] = []
        self.switched: list[dict[str, Any]] = []
        self.settled_s = 0.0
        self.told_s = report.told_within_s(self.poles)
        self.arrived: set[str] = set()
        self.told: set[tuple[str, bool]] = set()
        """Tags that the city said have arrived (True), and that have left (False)."""
        self.words: dict[str, dict[str, Any]] = {}
        self.folder = options.runs
        self._simulated = AsyncExitStack()
        self._rig: Rig | None = None
        self._operator: AutoOperator | None = None
        self.programs: dict[str, Program] = {}
        self._figures_before: Counter[str] = Counter()
        self._figures_now: Counter[str] = Counter()
        self._metrics = ""
        self._states: dict[int, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._main: asyncio.Task[Any] | None = None
        self._over = asyncio.Event()
        self._ends = False
        self._why: BaseException | None = None
        self._cpu_before_s = self._cpu_s = 0.0
        self._address, self._passcode = "", ""

    @property
    def operator(self) -> AutoOperator:
        assert self._operator is not None
        return self._operator

    @property
    def rig(self) -> Rig:
        """All that is simulated in this run; it is there from the start of the programs on."""
        assert self._rig is not None
        return self._rig

    async def run(self) -> dict[str, Any] | None:
        """Return the report, or None if a signal ended the run.

        Raise StartError (its message is the reason), records.RecordsError or httpx.HTTPError.
        """
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self.ending.ask = lambda: loop.call_soon_threadsafe(self._end_with, Ended())
        loop.set_exception_handler(lambda _, what: self._failed("a callback", what.get("exception")))
        try:
            with folder.made(self.options.runs) as self.folder:
                self.ending.clean = self._clean
                try:
                    return await self._run()
                except (Exception, asyncio.CancelledError) as error:
                    raise self._reason("the run", self._why or error) from error
        except (Exception, asyncio.CancelledError):
            if self.ending.name:
                return None
            raise
        finally:
            self._ends = True
            self.ending.ask = self.ending.clean = None
            loop.set_exception_handler(None)

    async def _run(self) -> dict[str, Any]:
        began, limit_s = time.monotonic(), HURRIED_S
        tempfile.tempdir = str(self.folder / folder.TEMPORARY)
        try:
            Path(tempfile.tempdir).mkdir(mode=0o700)
            self.show.start(self.view)
            self.show.say(f"address, name and passcode of the console: {self.folder / folder.CONSOLE}")
            self._spawn(self._watching(), "the watch over disk and programs", ends=False)
            await self._start(began)
            await self._story()
            await self._settle()
            drained_s = await self._drain()
            stats = await self.operator.get("/api/stats")
            await self._sample()
            limit_s = STOP_S
        finally:
            try:
                await self._end(limit_s)
            finally:
                self._clean()
                tempfile.tempdir = None
                with contextlib.suppress(OSError):  # a terminal that was closed
                    self.show.stop()
        return self._report(drained_s, stats)

    def _clean(self) -> None:
        """Remove what is true only while the run lives: where the console is, and files on their way to a process."""
        (self.folder / folder.CONSOLE).unlink(missing_ok=True)
        shutil.rmtree(self.folder / folder.TEMPORARY, ignore_errors=True)

    def _end_with(self, why: BaseException) -> None:
        """End the run wherever it is, because of this. The first reason counts; while it ends, none does."""
        if self._why is None and not self._ends:
            self._why = why
            if self._main is not None:
                self._main.cancel()

    def _failed(self, what: str, error: BaseException | None) -> None:
        """End the run because a part of it failed."""
        if error is not None:
            self._end_with(self._reason(what, error))

    def _reason(self, what: str, error: BaseException) -> BaseException:
        """Return the error that says in one line why the run ended; keep the traceback of one that nobody foresaw."""
        if isinstance(error, OSError) and error.errno in folder.NO_SPACE:
            return folder.DiskFull(Path(error.filename or self.folder), 0)
        if isinstance(error, OSError | StartError):
            try:
                folder.check_space(self.folder)
            except StartError as full:  # why a program ended, and its last lines, follow from it
                return full
        if isinstance(error, FORESEEN):
            return error
        file = self.folder / "error.txt"
        with contextlib.suppress(OSError):
            file.write_text("".join(traceback.format_exception(error)))
        return StartError(f"{what} failed: {type(error).__name__}: {error}; where: {file}")

    # ---- starting and ending ----

    async def _start(self, began: float) -> None:
        """Start everything. `_end` ends it, as far as it was started."""
        options, show, base = self.options, self.show, self.folder
        self.broker_kind = broker.choose(options.broker)
        show.say(f"seed {options.seed}: {options.children} children, {options.readers} readers; run folder {base}")
        secrets_ = await folder.make_secrets(base, [pole.number for pole in self.poles])
        mqtt, broker_port = broker.make(
            self.broker_kind, base / "broker", self.site.name, folder.GATEWAY, secrets_.broker
        )
        web_port, metrics_port = free_ports(2)
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        self._address, self._passcode = f"http://127.0.0.1:{web_port}/", secrets_.passcode
        folder.write_console(base, self._address, self._passcode)
        self._rig = await self._simulated.enter_async_context(
            set_up(base, self.world, self.poles, secrets_.reader_keys, switches=self.switches)
        )
        if options.switches_file is not None:
            show.say(f"every module is as {options.switches_file} says: {scenario.words(self.module) or 'as usual'}")
            self.switched.append({"changes": scenario.words(self.module), "at_s": None, "reader": 0})
        for each in self.story.switchings:
            if each.at_s is None:
                self._say_switching(each)
        self._wire_up()
        self._operator = AutoOperator(self._address.rstrip("/"), secrets_.token, self._on_incident, self._on_word)
        gateway_toml = folder.write_gateway(
            base, self.site, self.poles, {tag.name: tag.keys for tag in self.rig.zone.tags.values()}, secrets_,
            seed=options.seed, radio_port=base / "coordinator", broker_port=broker_port, metrics_port=metrics_port,
            walked=self._walked(),
        )  # fmt: skip
        city_toml = folder.write_city(
            base, self.site, options.site_file, self.poles, secrets_, broker_port=broker_port, web_port=web_port
        )
        self.setup_s["prepared"] = time.monotonic() - began
        show.say(f"readers' firmware compiled: {sum(self.rig.firmware_sizes.values())} bytes of .mpy each")
        self.programs["broker"] = mqtt
        await mqtt.start()
        await until(lambda: listens(broker_port), f"{self.broker_kind} at port {broker_port}", mqtt)
        show.say(f"broker: {self.broker_kind} at 127.0.0.1:{broker_port}")
        self.programs["city"] = Program("city", [console("ansim-city"), "run", str(city_toml)], base / "city.log")
        self.programs["gateway"] = Program(
            "gateway", [console("ansim-gateway"), "run", str(gateway_toml)], base / "gateway.log",
            on_record=self.presses.on_gateway_record,
        )  # fmt: skip
        for name in ("city", "gateway"):
            await self.programs[name].start()
        self._spawn(self.rig.clock.run(float("inf")), "the simulator's clock", ends=False)
        await self._settle_in(began)

    def _walked(self) -> sites.SimulatedSite | None:
        if not self.options.walk_test:
            self.show.say("nobody walked the zone: its gateway knows no more of the air than any gateway")
            return None
        walked = technician.walk(self.site, self.poles, self.rig.zone.air, self.options.seed)
        self.show.say(f"walk test: a technician with a tag walked every way, {len(walked.survey)} packets heard")
        return walked

    def _wire_up(self) -> None:
        rig_, presses = self.rig, self.presses
        rig_.zone.on_change = lambda change: presses.on_pin(change, rig_.wall_of(change.at_s))
        rig_.zone.on_alarm_frame = lambda reader, sent_s, kind, shown: presses.on_alarm_frame(
            reader, rig_.wall_of(sent_s), kind, shown
        )
        for station in rig_.mesh.stations.values():
            station.reader.on_lost = lambda text: self._end_with(StartError(text))
        rig_.mesh.on_line = lambda reader, now_s, text: self.show.say(f"reader {reader}: {text}", "warning")

    async def _settle_in(self, began: float) -> None:
        """Wait for the network, the joins of the readers, and the city; record when each was ready."""
        gateway, city = self.programs["gateway"], self.programs["city"]
        coordinator, mesh, zone = self.rig.coordinator, self.rig.mesh, self.rig.zone
        self.rig.power_on()
        await until(lambda: coordinator.ram.up, "the gateway's ZigBee network", gateway, limit_s=JOIN_S)
        self.setup_s["network"] = time.monotonic() - began
        self.show.say(f"gateway: ZigBee network formed on channel {folder.CHANNEL}")
        mesh.start_joining()
        await self._each("join", mesh.joined)
        self.setup_s["joined"] = time.monotonic() - began
        deadline = time.monotonic() + JOIN_S
        while not await self.operator.healthy():
            city.check()
            if time.monotonic() > deadline:
                raise StartError(f"the city is not well within {JOIN_S:g} s; log: {city.log}")
            await asyncio.sleep(0.2)
        self._spawn(self.operator.watch(), "the console's watcher", ends=False)
        self._spawn(self._sampling(), "the measuring", ends=False)
        await self._each("send a heartbeat", lambda: zone.beating)
        await until(lambda: self.operator.connects > 0, "the page's stream", city)
        self.setup_s["ready"] = time.monotonic() - began
        self.show.say(f"{len(mesh.joined())} readers joined; ready after {self.setup_s['ready']:.1f} s")

    async def _each(self, what: str, done: Callable[[], Collection[int]]) -> None:
        """Wait until every reader has done this. Those with switches are given up after a while."""
        sound = {number for number, module in self.switches.items() if module == Switches()}
        await until(
            lambda: sound <= set(done()), f"{len(sound)} readers {what}", self.programs["gateway"], limit_s=JOIN_S
        )
        with contextlib.suppress(StartError):
            await until(lambda: self.switches.keys() - self._behind <= set(done()), what, limit_s=SWITCHED_S)
        for number in sorted(self.switches.keys() - self._behind - set(done())):
            self.show.say(f"reader {number} does not {what}: the story begins without it", "warning")
            self._behind.add(number)

    async def _end(self, limit_s: float) -> None:
        """Stop what was started, the last first, whatever happened before. limit_s: for each program."""
        self._ends = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for names in (("gateway", "city"), ("broker",)):
                stops = [self.programs[name].stop(limit_s) for name in names if name in self.programs]
                await asyncio.gather(*stops)
            if self._operator is not None:
                await self._operator.close()
        finally:
            await self._simulated.aclose()

    # ---- the story ----

    async def _story(self) -> None:
        clock = self.rig.clock
        needed_s = needed_calm_s(self.options.seconds if self.options.once else math.inf)
        if wait_s := calm_in_s(self.rig.wall_of(clock.now_s) + STORY_BEFORE_S, needed_s):
            self.show.say(f"the tags change their ids and are silent for it; the story begins in {wait_s:.0f} s")
            await asyncio.sleep(wait_s)
        clock.after(STORY_BEFORE_S, self._begin)
        for press in self.story.presses:
            clock.after(STORY_BEFORE_S + press.at_s, partial(self._press, press))
        for fault in self.story.faults:
            clock.after(STORY_BEFORE_S + fault.at_s, partial(self._break, fault))
        for each in self.story.switchings:
            if each.at_s is not None:
                clock.after(STORY_BEFORE_S + each.at_s, partial(self._switch, each))
        if self.options.once:
            clock.after(STORY_BEFORE_S + self.options.seconds, self._finish)
        self.show.say("the story begins: children on their way")
        await self._over.wait()

    def _finish(self) -> None:
        self._cpu_s = self.programs["gateway"].sample().cpu_s - self._cpu_before_s
        self._over.set()

    def _begin(self) -> None:
        self._cpu_before_s = self.programs["gateway"].sample().cpu_s
        self.rig.zone.begin(self.rig.wall_of(self.rig.clock.now_s))

    def _press(self, press: Press) -> None:
        zone = self.rig.zone
        if press.kind == "sos":
            subject, story_s = zone.child(press.tag).tag, zone.press_tag(press.tag)
        else:
            subject, story_s = bell_id(press.reader), zone.press_bell(press.reader)
        self.presses.add(press, subject, self.rig.wall_of(self.rig.clock.now_s), story_s)
        self.show.say(f"{press.kind.upper()}: {subject} is pressed", "alarm")

    def _break(self, fault: Fault) -> None:
        self.show.say(f"fault: {fault.kind}" + (f" {fault.reader}" if fault.reader else ""), "warning")
        self.faults_done.append({"kind": fault.kind, "at_s": round(self.rig.zone.story_s, 2)})
        clock, air, zone = self.rig.clock, self.rig.zone.air, self.rig.zone
        if fault.kind == "noise":
            air.noise_db += scenario.NOISE_DB
            clock.after(scenario.NOISE_S, lambda: setattr(air, "noise_db", air.noise_db - scenario.NOISE_DB))
        elif fault.kind == "kill-reader":
            zone.power(fault.reader, False)
            clock.after(scenario.RESTART_S, lambda: zone.power(fault.reader, True))
        else:
            # With these types mypy refuses a kind that has no effect of its own above.
            killed: Literal["kill-gateway", "kill-broker", "kill-city"] = fault.kind
            self._spawn(self._kill(killed.removeprefix("kill-"), self.faults_done[-1]), f"fault {killed}")

    def _switch(self, each: Switching) -> None:
        self._say_switching(each)
        for number, station in self.rig.mesh.stations.items():
            if each.reader in (0, number):
                station.reader.switches = switches.parse(each.changes, station.reader.switches)

    def _say_switching(self, each: Switching) -> None:
        whose = f"reader {each.reader}" if each.reader else "all readers"
        self.show.say(f"switch: {each.changes} ({whose})", "warning")
        self.switched.append({"changes": each.changes, "at_s": each.at_s, "reader": each.reader})

    async def _kill(self, name: str, note: dict[str, Any]) -> None:
        program = self.programs[name]
        note["pid"] = program.pid
        await program.kill()
        if name == "gateway":
            self._figures_before += self._figures_now
            self._figures_now = Counter()
        await asyncio.sleep(scenario.RESTART_S)
        await program.start()
        note["down_s"] = round(self.rig.zone.story_s - note["at_s"], 2)
        self.show.say(f"{name} started again", "warning")

    # ---- what comes back ----

    def _on_incident(self, seen: Seen) -> None:
        view, number = seen.view, int(seen.view["number"])
        if number not in self._states:
            self.show.say(f"page: incident {number}, {view['kind']} of {view['subject']}", "alarm")
        elif view["state"] != self._states[number] and view["state"] == "acknowledged":
            self.show.say(f"page: incident {number} acknowledged by {view.get('acknowledged_by')}", "good")
        self._states[number] = view["state"]
        if self.presses.on_incident(seen) is not None:
            self._spawn(self._answer(number), "the operator's answer")

    async def _answer(self, number: int) -> None:
        if self.options.once or self.options.auto_acknowledge:
            low, high = ANSWER_S
            await asyncio.sleep(low + (high - low) * chance.one(self.options.seed, "answer", number))
            await self.operator.acknowledge(number)
            return
        await asyncio.sleep(NO_ANSWER_WARN_S)
        if self._states.get(number) == "new":
            self.show.say(
                f"incident {number}: nobody pressed Acknowledge in {NO_ANSWER_WARN_S:g} s; the child waits", "warning"
            )

    def _on_word(self, word: dict[str, Any]) -> None:
        kind, subject = str(word.get("kind")), str(word.get("subject"))
        if kind in ("arrival", "departure"):
            self.told.add((subject, kind == "arrival"))
        if kind == "arrival" and subject not in self.arrived:
            self.arrived.add(subject)
            self.show.say(f"city: {subject} has arrived at school", "good")
        elif kind == "departure":
            self.arrived.discard(subject)
            self.show.say(f"city: {subject} has left school")
        elif kind in ("position", "presence"):
            self.words.setdefault(subject, {})[kind] = word

    # ---- measuring ----

    async def _sampling(self) -> None:
        while True:
            await self._sample()
            await asyncio.sleep(SAMPLE_S)

    async def _watching(self) -> None:
        while True:
            folder.check_space(self.folder)
            for program in self.programs.values():
                program.check()
            await asyncio.sleep(WATCH_S)

    async def _sample(self) -> None:
        for program in self.programs.values():
            program.sample()
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                text = (await client.get(self._metrics)).text
            found: Counter[str] = Counter()
            for line in text.splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith("ansim_gateway_"):
                    found[name.removeprefix("ansim_gateway_").removesuffix("_total")] = int(float(value))
            self._figures_now = found
        self.figures = self._figures_before + self._figures_now

    async def _settle(self) -> None:
        """Continue until all that is due is told, or its time is over; then silence the tags."""
        zone, end_s = self.rig.zone, self.options.seconds
        due = [one for one in report.passages_until(self.world, end_s, end_s, self.told_s) if one.due]
        began = time.monotonic()

        def waits() -> bool:
            return any(
                (one.tag, one.arrives) not in self.told
                and zone.story_s - one.at_s < report.patience_s(self.told_s, self._unix_of(one.at_s))
                for one in due
            )

        untold = sum((one.tag, one.arrives) not in self.told for one in due)
        self.show.say(f"the story is over: {len(due)} children have arrived or left, {untold} not yet reported")
        limit_s = self.told_s + 2 * CALM_S + SAMPLE_S
        with contextlib.suppress(StartError):
            await until(lambda: not waits(), "what is due", *self.programs.values(), limit_s=limit_s)
        self.settled_s = time.monotonic() - began
        self.rig.zone.end()

    async def _drain(self) -> float | None:
        """Wait until the gateway's outbox is empty and stays empty. Return how long it took, None if it did not."""
        self.show.say("the tags are silent; waiting for what is still under way")
        began, quiet_since, last = time.monotonic(), None, -1
        while (now := time.monotonic()) - began < DRAIN_S:
            with contextlib.suppress(records.RecordsError):
                lanes = self._drained = records.read_gateway(self.folder / "gateway" / "outbox")
                committed = sum(lane.committed for lane in lanes)
                if committed != last or any(lane.waiting for lane in lanes):
                    last, quiet_since = committed, None
                elif quiet_since is None:
                    quiet_since = now
                elif now - quiet_since >= QUIET_S:
                    return quiet_since - began
            await asyncio.sleep(0.25)
        return None

    def _report(self, drained_s: float | None, stats: dict[str, Any]) -> dict[str, Any]:
        gateway, options = self.programs["gateway"], self.options
        return report.build(
            report.Measured(
                options={
                    key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()
                },
                digest=self.story.digest,
                world=self.world,
                rig=self.rig,
                presses=self.presses,
                settled_s=self.settled_s,
                drained=self._drained,
                lanes=records.read_gateway(self.folder / "gateway" / "outbox"),
                city=records.read_city(self.folder / "city" / "city.db"),
                stats=stats,
                figures=self.figures,
                began_unix_s=self._unix_of(0.0),
                seconds=options.seconds,
                told_s=self.told_s,
                gateway_rss_mb=gateway.usage.rss_max_mb,
                gateway_cpu_s=self._cpu_s,
                setup_s=self.setup_s,
                drained_s=drained_s,
                broker=self.broker_kind,
                faults=self.faults_done,
                switches=self.switched,
            )
        )

    def _unix_of(self, story_s: float) -> float:
        """Return the UTC time of an instant of the story."""
        began_s = self.rig.zone.began_s
        assert began_s is not None
        return self.rig.wall_of(began_s + story_s)

    def _spawn(self, work: Coroutine[Any, Any, Any], what: str, *, ends: bool = True) -> None:
        """Start a task. Its error ends the run; ends False: so does any other end of it."""
        task = asyncio.create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, ends))

    def _ended(self, ends: bool, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not ends:
            error = StartError(f"{task.get_name()} ended by itself")
        self._failed(task.get_name(), error)

    # ---- for the terminal ----

    def view(self) -> View:
        """Return what a person at the terminal sees now."""
        if self._rig is None or self._rig.zone.began_s is None:
            return View(self._address, folder.OPERATOR, self._passcode, 0.0, None, folder=str(self.folder))
        zone = self.rig.zone
        t = zone.story_s
        children = [self._child(child, t) for child in self.world.children]
        return View(
            self._address, folder.OPERATOR, self._passcode, t, self.options.seconds if self.options.once else None,
            children, [self._hops(pressed) for pressed in self.presses.all],
            [(n, s.reader.alive and s.joined_at_s is not None) for n, s in self.rig.mesh.stations.items()],
            {**zone.counts, "lag_ms": int(1000 * self.rig.clock.lag_max_s), "incidents": len(self.operator.seen)},
            self.presses.lamps(self.rig.wall_of(self.rig.clock.now_s)), str(self.folder),
        )  # fmt: skip

    def _child(self, child: Child, t: float) -> ChildRow:
        where = child.at(t)
        away_m = ((where.x_m - self.site.gates[0][0]) ** 2 + (where.y_m - self.site.gates[0][1]) ** 2) ** 0.5
        truth = "in school" if self.world.at_school(child, t) else "walking" if where.moving else "standing"
        told = self.words.get(child.tag, {})
        position, presence = told.get("position"), told.get("presence")
        crying = self.rig.zone.tags[child.number].crying
        return ChildRow(
            tag=child.tag, truth=truth, away_m=away_m, crying=crying, arrived=child.tag in self.arrived,
            state=None if presence is None else str(presence.get("state")),
            accuracy_m=None if position is None else float(position["where"]["accuracy_95_m"]),
            age_s=None if position is None else max(0.0, time.time() - float(position["as_of"])),
        )  # fmt: skip

    def _hops(self, pressed: Pressed) -> PressRow:
        h = self.presses.hops(pressed)
        times = (
            ("gateway", h.committed_at), ("city", h.stored_at), ("page", h.page_at), ("lamp: received", h.received_at),
            ("acknowledged", h.acknowledged_at), ("lamp: help is coming", h.help_at),
        )  # fmt: skip
        hops = [(name, None if at is None else at - h.pressed_at) for name, at in times]
        return PressRow(pressed.press.kind.upper(), pressed.subject, hops)
