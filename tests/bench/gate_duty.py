"""What a gate reader's scan duty costs the mesh, and the lamp at the gate: four gate readers between poles of `duty`.

Three poles scan 5 ms in 20, at 40, 80 and 200 m from the coordinator. Four readers stand at a gate, with a duty of
their own, one hop away (`near`, 60 m) or two (`far`, 140 m: there they relay for the last pole). The gateway sends each
a STAGE a second. At each gate reader a bell is pressed every 5 s and held for 2 s (a reader whose send blocks sees no
shorter press): `lamp` is the time from the press to the first light, which is the gateway's word that it has the press.
`gate` and `poles` are frames that were lost in spite of all repetitions. `kept`, `adapts`: see `duty`. First comes a
table of single hops, which needs no firmware and takes seconds.
"""

import asyncio
import os
import random
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gateway.zone import ReaderSettings
from readers.advertisement import COMPANY_ID_TEST
from sim import chance
from sim.air.hops import cross
from sim.air.mesh import HOP_MS
from sim.reader.process import ReaderProcess
from tests.bench.duty import BEGIN_S, KEPT, MEASURED_S, WARM_S, WAYS, Line

SEEDS = tuple(range(21, 29))
DUTIES = {"5in20": (20, 5), "5in15": (15, 5), "5in12": (12, 5), "5in10": (10, 5), "5in8": (8, 5),
          "7in16": (16, 7), "10in20": (20, 10), "always": (20, 20)}  # fmt: skip
POLES = {1: (40.0, 0.0), 2: (80.0, 0.0), 3: (200.0, 0.0)}
GATES = {"near": 60.0, "far": 140.0}
"""Metres from the coordinator; a hop reaches 90."""
SPOTS = {9: (-2.0, 4.0), 10: (-2.0, 9.0), 11: (2.0, 4.0), 12: (2.0, 9.0)}
FIRST = min(SPOTS)
CASES = (
    *((duty, place, way, False) for way in ("ten_ms", "standard") for place in GATES for duty in DUTIES),
    *((duty, "far", way, True) for way in ("ten_ms", "standard") for duty in ("5in20", "7in16", "5in10", "10in20")),
    *((duty, "far", "sender_first", False) for duty in ("5in20", "7in16", "5in10")),
)
TAKEN = "import settings\nsettings.values = (1, 2000) + (({}, {}) if READER >= {} else (20, 5)) + (60, 60, {})\n"
"""Lines of config.py: the settings, as if a gateway had sent them; version 1, as the gateway's."""
PRESS_EVERY_S, PRESS_S, DARK_S = 5.0, 2.0, 1.5
LAMP_CLOSE_S = 1.0
ALARM_S = 2.5
"""For so long after a press an alarm may be open, and its reader listens a quarter of the time: no frame is counted."""
LAMP_WITHIN_S = 5.0
LAMP = "D2"


@dataclass
class Passed:
    """What one or more runs gave."""

    frames: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """Frames by (gate or poles, up or down, whether they arrived)."""
    lamp_ms: list[float] = field(default_factory=list)
    duty_pct: list[int] = field(default_factory=list)
    heard: int = 0

    def add(self, other: "Passed") -> None:
        self.frames += other.frames
        self.lamp_ms += other.lamp_ms
        self.duty_pct += other.duty_pct
        self.heard += other.heard

    def figures(self) -> dict[str, float | int | str]:
        found: dict[str, float | int | str] = {
            f"{who}_lost_{leg}_pct": _lost_pct(self.frames, who, leg)
            for who in ("gate", "poles")
            for leg in ("up", "down")
        }
        lamp = sorted(self.lamp_ms)
        found |= {
            f"lamp_ms_{pct}pct": round(lamp[min(len(lamp) * pct // 100, len(lamp) - 1)], 0) for pct in (50, 95, 99)
        }
        return found | {
            "presses": len(lamp),
            "gate_duty_at_the_end_pct": round(sum(self.duty_pct) / max(len(self.duty_pct), 1), 1),
        }


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {"seeds": str(SEEDS), "measured_s": MEASURED_S}
    rows: list[tuple[str, dict[str, float | int | str]]] = []
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:  # the time in the figures is virtual
        runs = {case: [pool.submit(measure, seed, *case) for seed in SEEDS] for case in CASES}
        for (duty, place, way, adapts), each in runs.items():
            passed = Passed()
            for one in each:
                passed.add(one.result())
            name = f"{duty}_{place}_{way}_{'adapts' if adapts else 'kept'}"
            rows.append((name, passed.figures()))
            print(f"  {name:32} {rows[-1][1]}", flush=True)
            found |= {f"duty_{name}_{figure}": value for figure, value in rows[-1][1].items()}
    hops = hops_ok_pct()
    found |= {f"hop_{duty}_{name}_ok_pct": pct for duty, each in hops.items() for name, pct in each.items()}
    names = list(rows[0][1])
    lines = ["| duty, place, tries, firmware | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(str(figures[each]) for each in names) + " |" for name, figures in rows]
    found["_markdown"] = "\n".join(lines)
    return found


@dataclass(frozen=True)
class _Windows:
    """A node that scans, from a phase on."""

    interval_ms: float
    window_ms: float
    phase_ms: float

    def scanning(self, now_ms: float) -> bool:
        return (now_ms - self.phase_ms) % self.interval_ms < self.window_ms


def hops_ok_pct(frames: int = 1500) -> dict[str, dict[str, float]]:
    """Return duty -> how many frames of 66 bytes cross one hop from a gate reader with that duty, at any phase.

    `stick`: to the coordinator, which never scans; `pole`: to a pole that scans 5 ms in 20. By two of `duty.WAYS`.
    """
    dice = random.Random(SEEDS[0])
    found: dict[str, dict[str, float]] = {}
    for duty, (interval_ms, window_ms) in DUTIES.items():
        found[duty] = {}
        for way in ("ten_ms", "standard"):
            for name, scans in (("stick", False), ("pole", True)):
                crossed = 0
                for n in range(frames):
                    gate = _Windows(interval_ms, window_ms, interval_ms * dice.random())
                    pole = _Windows(20, 5, 20 * dice.random()) if scans else None
                    begin_ms, latency_ms = 1000 * dice.random(), dice.uniform(*HOP_MS)
                    crossed += cross(WAYS[way], gate, pole, begin_ms, 66, latency_ms, SEEDS[0], n).ok
                found[duty][f"{name}_{way}"] = round(100 * crossed / frames, 1)
    return found


def measure(seed: int, duty: str, place: str, way: str, adapts: bool) -> Passed:
    """Run one line of poles with a gate."""
    interval_ms, window_ms = DUTIES[duty]
    config = TAKEN.format(interval_ms, window_ms, FIRST, COMPANY_ID_TEST) + ("" if adapts else KEPT)
    with tempfile.TemporaryDirectory() as folder:
        line = _Gate(Path(folder), seed, place, way, config)
        try:
            asyncio.run(line.clock.run(BEGIN_S + WARM_S + MEASURED_S))
            return line.passed()
        finally:
            for station in line.mesh.stations.values():
                station.reader.stop()


class _Gate(Line):
    """The line of poles, a gate in it, and presses at the gate's readers."""

    def __init__(self, folder: Path, seed: int, place: str, way: str, config: str) -> None:
        at = POLES | {n: (GATES[place] + x, y) for n, (x, y) in SPOTS.items()}
        super().__init__(folder, seed, ReaderSettings(), WAYS[way], config, ReaderProcess, at)
        self.gateway.close_s = LAMP_CLOSE_S
        self.passing: Counter[tuple[str, str, bool]] = Counter()
        self.lamp_ms: list[float] = []
        self._waits: dict[int, float] = {}
        self._lit_s: dict[int, float] = {}
        self._pressed_s: dict[int, float] = {}
        self._on_pin, self.mesh.on_pin_change = self.mesh.on_pin_change, self._pin
        for n in SPOTS:
            first_s = self._begin_s + PRESS_EVERY_S * chance.one(seed, n, "press")
            for k in range(int((MEASURED_S - 2 * PRESS_EVERY_S) / PRESS_EVERY_S) + 1):
                self.clock.after(first_s + k * PRESS_EVERY_S, partial(self._press, n))

    def passed(self) -> Passed:
        seen = self.seen()
        late = [LAMP_WITHIN_S * 1000] * len(self._waits)
        gates = [self.mesh.stations[n].reader.heartbeat or {} for n in SPOTS]
        return Passed(
            self.passing, self.lamp_ms + late, [beat["scan_duty_pct"] for beat in gates if beat], seen.heard
        )  # fmt: skip

    def _press(self, reader: int) -> None:
        """Press a bell and release it; later, if the lamp still shows the press before."""
        if self.clock.now_s - self._lit_s.get(reader, -DARK_S) < DARK_S:
            self.clock.after(DARK_S, partial(self._press, reader))
            return
        if reader in self._waits:
            self.lamp_ms.append(LAMP_WITHIN_S * 1000)
        self._waits[reader] = self._pressed_s[reader] = self.clock.now_s
        station = self.mesh.stations[reader]
        station.reader.pin("D4", 0)
        self.clock.after(PRESS_S, lambda: station.reader.pin("D4", 1))

    def _pin(self, number: int, now_s: float, name: str, level: int) -> None:
        if self._on_pin is not None:
            self._on_pin(number, now_s, name, level)
        if name == LAMP and level:
            self._lit_s[number] = now_s
            if number in self._waits:
                self.lamp_ms.append(1000 * (now_s - self._waits.pop(number)))

    def _up(self, number: int, sent_s: float, payload: bytes, arrived: bool) -> None:
        super()._up(number, sent_s, payload, arrived)
        self._count(number, "up", sent_s, arrived)

    def _down(self, number: int, sent_s: float, payload: bytes, arrived: bool) -> None:
        super()._down(number, sent_s, payload, arrived)
        self._count(number, "down", sent_s, arrived)

    def _count(self, number: int, leg: str, sent_s: float, arrived: bool) -> None:
        if sent_s >= self._begin_s and sent_s - self._pressed_s.get(number, -ALARM_S) > ALARM_S:
            self.passing["gate" if number in SPOTS else "poles", leg, arrived] += 1


def _lost_pct(frames: Counter[tuple[str, str, bool]], who: str, leg: str) -> float:
    lost, came = frames[who, leg, False], frames[who, leg, True]
    return round(100 * lost / max(lost + came, 1), 2)
