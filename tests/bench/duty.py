"""What Bluetooth scanning costs the mesh: eight poles in a line with real firmware, the gateway's own core, every duty.

The coordinator is at one end; two poles are one hop away from it, two are two, and so on to four. Every pole has two
tags near it, each sends its beacon every second, and the gateway sends every reader a STAGE each second besides what
its core sends: short and full (48 bytes) in turn. Every 8 s another tag cries for help for 5 s. `kept` means that
the firmware cannot lower its duty, `adapts` that it does. With `none` the readers scan 5 ms in 20, and the mesh does
not feel it.

`ten_ms` and `standard` are two ways to reckon the MAC's tries (`sim/air/hops.py`), `sender_first` is the first when
ZigBee's own transmissions go before a scan. Two simulated readers keep the phase between their windows for a whole run,
because their clocks are exact. So each run is short, and every figure is over eight seeds with other phases.
"""

import asyncio
import contextlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway import events
from gateway.core import pipeline
from gateway.effects import Commit
from gateway.zone import ReaderSettings
from readers import wire
from readers.advertisement import COMPANY_ID_TEST
from sim import chance
from sim.air.hops import BY_THE_STANDARD, Mac
from sim.air.mesh import Mesh
from sim.air.radio import Channel
from sim.clock import Clock
from sim.demo.running_zone import RunningZone
from sim.reader.process import ReaderProcess
from sim.reader.switches import Switches
from sim.street.paths import Spot
from sim.street.tag import Tag
from tests.sim.demo.bed import Gateway, air_of_readers, mac_of, mesh_of_readers

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
AT = {n: (40.0 * n, 0.0) for n in range(1, 9)}
TAGS = 16
UTC_S = 1_800_000_100.0
BEGIN_S, WARM_S, MEASURED_S = 10.0, 25.0, 40.0
"""Tags begin, then what is measured begins, and for how long."""
CRY_EVERY_S, CRY_S, CLOSE_S = 8.0, 5.0, 8.0
POWER_WITHIN_S = 2.0
DUTIES = {"none": (20, 5), "25_10in40": (40, 10), "25_5in20": (20, 5), "50_10in20": (20, 10), "50_5in10": (10, 5),
          "100": (20, 20)}  # fmt: skip
HEAP_B = 64 * 1024
"""More than a reader has: what is kept in config.py for a benchmark must not decide whether the firmware starts."""
KEPT = """import report
_adapt = report.adapt
def _kept(now):
    _adapt(now)
    report.scan.shift = 0
report.adapt = _kept
"""
"""Lines of config.py: the scan never slows down."""
TAKEN = "import settings\nsettings.values = {}\n"
"""The same: settings without a gateway that sends them, because a reader that is deaf to the mesh could not get them.
The gateway has the same settings, and sends them when it can."""
WAYS = {"ten_ms": Mac(), "standard": BY_THE_STANDARD, "sender_first": replace(Mac(), own_windows=False)}
CASES = (
    *((duty, "ten_ms", adapts) for duty in DUTIES for adapts in (False, True) if duty != "none" or not adapts),
    *((duty, "standard", False) for duty in DUTIES if duty[:2] in ("25", "50")),
    *((duty, "sender_first", False) for duty in ("25_5in20", "50_5in10", "100")),
)
NEVER = math.inf


class Unfelt(ReaderProcess):
    """A reader whose scan windows the mesh does not feel: its scanner asks `scan_channel`."""

    def scanning(self, now_ms: float) -> bool:
        return False


@dataclass
class Seen:
    """What one or more runs gave."""

    counts: Counter[str] = field(default_factory=Counter)
    up_ms: list[float] = field(default_factory=list)
    down_ms: list[float] = field(default_factory=list)
    sos_ms: list[float] = field(default_factory=list)
    frames: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """Frames up by (hops, whether they arrived)."""
    duty_pct: list[int] = field(default_factory=list)
    """Of each reader, in its newest heartbeat."""
    heard: int = 0

    def add(self, other: "Seen") -> None:
        self.counts += other.counts
        self.up_ms += other.up_ms
        self.down_ms += other.down_ms
        self.sos_ms += other.sos_ms
        self.frames += other.frames
        self.duty_pct += other.duty_pct
        self.heard += other.heard

    def figures(self) -> dict[str, float | int | str]:
        c = self.counts
        tries = c["hops"] - c["hops_lost_scanning"] + c["tries_lost_own"] + c["tries_lost_theirs"]
        return {
            "lost_up_pct": _pct(c["lost_up_scanning"], c["frames_up"]),
            "lost_down_pct": _pct(c["lost_down_scanning"], c["frames_down"]),
            "lost_up_after_1_2_3_4_hops_pct": " ".join(f"{_lost_pct(self.frames, hops):g}" for hops in (1, 2, 3, 4)),
            "failed_up_pct": _pct(c["lost_up"] + c["ack_lost"], c["frames_up"]),
            "repeats_pct": _pct(c["aps_repeats"], c["frames_up"] + c["frames_down"]),
            "tries_lost_pct": _pct(c["tries_lost_own"] + c["tries_lost_theirs"], tries),
            "hops_lost_pct": _pct(c["hops_lost_scanning"], c["hops"]),
            "up_ms_mean": _mean(self.up_ms),
            "up_ms_95pct": _percentile(self.up_ms, 95),
            "down_ms_mean": _mean(self.down_ms),
            "down_ms_95pct": _percentile(self.down_ms, 95),
            "sos": f"{sum(ms < NEVER for ms in self.sos_ms)} of {len(self.sos_ms)}",
            "sos_ms_50pct": _percentile(self.sos_ms, 50),
            "sos_ms_95pct": _percentile(self.sos_ms, 95),
            "heard_a_s": round(self.heard / MEASURED_S / len(SEEDS), 1),
            "duty_at_the_end_pct": _mean([float(pct) for pct in self.duty_pct]),
        }


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"seeds": str(SEEDS), "measured_s": MEASURED_S, "readers": len(AT)}
    rows: list[tuple[str, dict[str, float | int | str]]] = []
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:  # the time in the figures is virtual
        runs = {case: [pool.submit(measure, seed, *case) for seed in SEEDS] for case in CASES}
        for (duty, way, adapts), each in runs.items():
            seen = Seen()
            for one in each:
                seen.add(one.result())
            name = f"{duty}_{way}_{'adapts' if adapts else 'kept'}"
            rows.append((name, seen.figures()))
            print(f"  {name:32} {rows[-1][1]}", flush=True)
            found |= {f"{name}_{figure}": value for figure, value in rows[-1][1].items()}
    found["_markdown"] = _table(rows)
    return found


def measure(seed: int, duty: str, way: str, adapts: bool) -> Seen:
    """Run one line of poles."""
    interval_ms, window_ms = DUTIES[duty]
    settings = ReaderSettings(scan_interval_ms=interval_ms, scan_window_ms=window_ms)
    with tempfile.TemporaryDirectory() as folder:
        kind = Unfelt if duty == "none" else ReaderProcess
        config = TAKEN.format((0, 2000, interval_ms, window_ms, 60, 60, COMPANY_ID_TEST)) + ("" if adapts else KEPT)
        line = Line(Path(folder), seed, settings, WAYS[way], config, kind)
        try:
            asyncio.run(line.clock.run(BEGIN_S + WARM_S + MEASURED_S))
            return line.seen()
        finally:
            for station in line.mesh.stations.values():
                station.reader.stop()


class Cries(Gateway):
    """The gateway's core, and when it first said that a tag cries. It closes every alarm CLOSE_S later."""

    def __init__(self, clock: Clock, tags: dict[int, Tag], settings: ReaderSettings, at: Mapping[int, Spot]) -> None:
        super().__init__(clock, {tag.name: tag.keys for tag in tags.values()}, at=at, settings=settings)
        self.cried_s: dict[str, float] = {}
        self.close_s = CLOSE_S
        self.newest: dict[int, tuple[int, int]] = {}
        """Boot and sequence of each reader's newest frame."""

    def receive(self, *, nwk: int, payload: bytes, lqi: int, rssi_dbm: int, **other: Any) -> bool:
        with contextlib.suppress(wire.WireError):
            _, reader, boot, sequence = wire.peek(payload)
            self.newest[reader] = (boot, sequence)
        return super().receive(nwk=nwk, payload=payload, lqi=lqi, rssi_dbm=rssi_dbm, **other)

    def carry(self, step: Any) -> None:
        super().carry(self._watched(step))

    def _watched(self, step: Any) -> Any:
        for effect in step:
            if isinstance(effect, Commit) and isinstance(effect.event, events.Sos | events.Bell):
                if not effect.event.revision:
                    self.clock.after(self.close_s, partial(self._close, effect.event.alarm))
                if isinstance(effect.event, events.Sos) and not effect.event.revision:
                    self.cried_s.setdefault(effect.event.tag, self.clock.now_s)
            yield effect

    def _close(self, alarm: str) -> None:
        self.carry(pipeline.on_stage(self.state, alarm, wire.CLOSED, self.clock.now_s))

    def stage(self, reader: int, rows: int) -> None:
        """Send a reader stages of an alarm that it does not have, also if nothing of it has ever come."""
        if reader in self.nwk:
            boot, sequence = self.newest.get(reader, (1, 0))
            body = wire.encode_stage([(0, wire.RECEIVED)] * rows)
            self.send(reader, wire.encode(wire.STAGE, reader, boot, sequence, body, mac_of(reader)))


class Line:
    """Poles, tags round them, the gateway, and what is measured. at: number -> where a pole stands."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        settings: ReaderSettings,
        mac: Mac,
        config: str,
        kind: type[ReaderProcess],
        at: Mapping[int, Spot] = AT,
    ) -> None:
        self.clock = clock = Clock(None)
        self.tags = {n: Tag(seed, n, f"tag-{n:03d}") for n in range(1, TAGS + 1)}
        self.gateway = Cries(clock, self.tags, settings, at)
        pipeline.set_clock(self.gateway.state, UTC_S, 0.0, "good")
        self.mesh = mesh_of_readers(
            clock,
            self.gateway,
            folder,
            seed,
            at=at,
            centre=(0.0, 0.0),
            mac=mac,
            config=config,
            kind=partial(kind, switches=Switches(heap_b=HEAP_B)),
        )
        world = SimpleNamespace(children=[_Standing(n) for n in self.tags])
        self.zone = RunningZone(
            clock, world, self.tags, air_of_readers(Channel(), seed, at), self.mesh, mac_of=mac_of, bell_pin="D4"  # type: ignore[arg-type]
        )  # fmt: skip
        self.cries: dict[str, float] = {}
        self.up_ms: list[float] = []
        self.down_ms: list[float] = []
        self.frames: Counter[tuple[int, bool]] = Counter()
        self.before: Counter[str] = Counter()
        self._begin_s = BEGIN_S + WARM_S
        self._on_frame, self.mesh.on_frame = self.mesh.on_frame, self._up
        self.mesh.on_delivery = self._down
        for n in at:
            clock.after(POWER_WITHIN_S * chance.one(seed, n, "power"), partial(self.mesh.power, n, True))
            clock.after(BEGIN_S + chance.one(seed, n, "stage"), partial(self._stage, n, 1))
        self.mesh.start_joining()
        clock.after(1.0, self.gateway.tick)
        clock.after(BEGIN_S, lambda: self.zone.begin(UTC_S + BEGIN_S))
        clock.after(self._begin_s, lambda: self.before.update(counts_of(self.mesh, self.zone)))
        for k in range(int((MEASURED_S - CLOSE_S) / CRY_EVERY_S)):
            tag = 1 + (k * 7 + seed) % TAGS
            at_s = self._begin_s + CRY_EVERY_S * (k + chance.one(seed, k, "cry") / 2)
            clock.after(at_s, partial(self._cry, tag))

    def _stage(self, reader: int, rows: int) -> None:
        self.gateway.stage(reader, rows)
        self.clock.after(1.0, partial(self._stage, reader, wire.STAGES_MAX + 1 - rows))

    def _cry(self, tag: int) -> None:
        self.cries[self.tags[tag].name] = self.clock.now_s
        self.zone.press_tag(tag)
        self.clock.after(CRY_S, lambda: setattr(self.tags[tag], "_pressed_s", None))

    def _up(self, number: int, sent_s: float, payload: bytes, arrived: bool) -> None:
        if self._on_frame is not None:
            self._on_frame(number, sent_s, payload, arrived)
        if sent_s >= self._begin_s:
            self.frames[self.mesh.stations[number].hops, arrived] += 1
            if arrived:
                self.up_ms.append(1000 * (self.clock.now_s - sent_s))

    def _down(self, number: int, sent_s: float, payload: bytes, arrived: bool) -> None:
        if arrived and sent_s >= self._begin_s:
            self.down_ms.append(1000 * (self.clock.now_s - sent_s))

    def seen(self) -> Seen:
        if self.mesh.counts.logs:
            raise AssertionError(f"a reader crashed: {self.mesh.counts.logs}")
        told = self.gateway.cried_s
        sos_ms = [1000 * (told.get(tag, NEVER) - at_s) for tag, at_s in self.cries.items()]
        now = counts_of(self.mesh, self.zone)
        now.subtract(self.before)
        beats = [station.reader.heartbeat or {} for station in self.mesh.stations.values()]
        duty_pct = [beat["scan_duty_pct"] for beat in beats if beat]
        return Seen(now, self.up_ms, self.down_ms, sos_ms, self.frames, duty_pct, now["heard"])


class _Standing:
    """A child that stands between two poles, on the footpath."""

    def __init__(self, number: int) -> None:
        self._x_m = 30.0 + 300.0 * (number - 1) / (TAGS - 1)

    def at(self, t_s: float) -> Any:
        return SimpleNamespace(x_m=self._x_m, y_m=4.0, heading=1.0, moving=False)


def counts_of(mesh: Mesh, zone: RunningZone) -> Counter[str]:
    """Return all counts of now."""
    return Counter(mesh.counts.numbers() | {"heard": zone.counts["heard"]})


def _lost_pct(frames: Counter[tuple[int, bool]], hops: int) -> float:
    return _pct(frames[hops, False], frames[hops, False] + frames[hops, True])


def _pct(part: int, whole: int) -> float:
    return round(100 * part / max(whole, 1), 2)


def _mean(values: list[float]) -> float | str:
    return round(sum(values) / len(values), 1) if values else "none"


def _percentile(values: list[float], percent: int) -> float | str:
    """Return the smallest value that so many percent do not exceed."""
    if not values:
        return "none"
    value = sorted(values)[min(len(values) * percent // 100, len(values) - 1)]
    return round(value, 1) if value < NEVER else "never"


def _table(rows: list[tuple[str, dict[str, float | int | str]]]) -> str:
    names = list(rows[0][1])
    lines = ["| duty, tries, firmware | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(figures[each]) for each in names) + " |" for name, figures in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    run()
