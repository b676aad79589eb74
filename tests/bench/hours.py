"""Thousands of simulated hours of one pole whose module changes its mind: real firmware, the gateway's own core.

An hour has four to eight spells. In a third of them the module works; in each of the others one to three switches of
sim/reader/switches.py are bad, drawn anew. At any moment the power may fail (also in the middle of a write to flash),
the gateway be away or restart, the scanner stall for good, a transmit never return. Each hour three bells are pressed
once and two tags cry; in every fourth a tag passes by. The last six minutes of an hour are quiet: everything works, so
that what a reader still owes is told. If the reader is dead then, somebody comes and switches its power off and on: a
visit.

What the time-lapse stretches: the sleep between two passes, from 20 ms to LAPSE_MS, while no press, advertisement,
frame or change of a switch is due and no lamp may be lit (200 ms while a press waits for its answer, and never longer
than the time between two interrupts). The firmware then runs as on a module whose passes are slow. From every such
event on it runs at full speed. The gateway ticks every 5 s meanwhile. Bell pins are not refused here: such a bell is
not wired.

    ANSIM_HOURS=10000 ANSIM_JOBS=2 nice .venv/bin/python -m tests.bench hours
"""

import os
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sim.reader.switches import CHOICES, TRANSMIT_ERRORS, Switches
from tests.firmware.bed import Press, Trial

SEED = 31415
HOURS = 24
"""If ANSIM_HOURS is not set."""
LIFE_H = 24
"""A reader and its gateway live so long; then the next begin with an empty flash."""
LAPSE_MS = 5000.0
QUIET_S = 3240.0
HOUR_S = 3600.0
LONGEST = 12


@dataclass
class Totals:
    """What some lives gave."""

    hours: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    dead_ms: Counter[str] = field(default_factory=Counter)
    not_told: Counter[str] = field(default_factory=Counter)
    lamp_ms: Counter[str] = field(default_factory=Counter)
    told_ms: list[float] = field(default_factory=list)
    gaps: list[tuple[float, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What should not have been, with where to find it."""

    def add(self, other: "Totals") -> None:
        self.hours += other.hours
        self.counts += other.counts
        self.dead_ms += other.dead_ms
        self.not_told += other.not_told
        self.lamp_ms += other.lamp_ms
        self.told_ms += other.told_ms
        self.gaps = sorted([*self.gaps, *other.gaps], reverse=True)[:LONGEST]
        self.notes = [*self.notes, *other.notes][:100]

    def figures(self) -> dict[str, float | int | str]:
        c = self.counts
        bells, cries = c["bells"], c["cries"]
        powered_s = self.hours * HOUR_S - self.dead_ms["power"] / 1000
        dead_s = sum(ms for why, ms in self.dead_ms.items() if why != "power") / 1000
        blocked_s = sum(ms for why, ms in self.dead_ms.items() if why == "sending") / 1000
        told = sorted(self.told_ms)
        return {
            "hours": self.hours,
            "powered_pct": round(100 * powered_s / (self.hours * HOUR_S), 2),
            "bell_not_working_s": round(dead_s),
            "bell_not_working_pct": round(100 * dead_s / powered_s, 3),
            "of_it_a_send_blocks_s": round(blocked_s),
            "bells_pressed": bells,
            "bells_told": c["bells_told"],
            "bells_not_told": bells - c["bells_told"],
            "bells_seen_and_not_told": c["bells_lost"],
            "told_ms_50pct": round(told[len(told) // 2]) if told else "none",
            "told_ms_95pct": round(told[len(told) * 95 // 100]) if told else "none",
            "told_s_max": round(told[-1] / 1000) if told else "none",
            "cries": cries,
            "cries_told": c["cries_told"],
            "second_alarms_for_a_press": c["twice"],
            "lamp_lit_falsely_s": sum(self.lamp_ms.values()) / 1000,
            "resets": sum(count for name, count in c.items() if name.startswith("reset ")),
            "power_cuts": c["power cuts"],
            "visits": c["visits"],
            "flash_writes": c["flash writes"],
            "flash_writes_a_day": round(24 * c["flash writes"] / self.hours, 1),
            "interrupts": c["interrupts"],
            "hangs": c["hangs"],
        }

    def text(self) -> str:
        lines = ["| time without a working bell, by what happened in it | s |", "|---|---|"]
        lines += [f"| {why} | {ms / 1000:.0f} |" for why, ms in self.dead_ms.most_common()]
        lines += ["", "| presses of bells that were not told | count |", "|---|---|"]
        lines += [f"| {why} | {count} |" for why, count in self.not_told.most_common()]
        lines += ["", "| resets by cause | count |", "|---|---|"]
        lines += [f"| {name} | {count} |" for name, count in sorted(self.counts.items()) if name.startswith("reset ")]
        lines += ["", "| longest times without a working bell, s | what happened |", "|---|---|"]
        lines += [f"| {ms / 1000:.0f} | {why} |" for ms, why in self.gaps]
        lines += ["", *self.notes]
        return "\n".join(lines)


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit. ANSIM_HOURS, ANSIM_JOBS (processes) and ANSIM_SEED change the run."""
    hours, jobs = int(os.environ.get("ANSIM_HOURS", HOURS)), int(os.environ.get("ANSIM_JOBS", "1"))
    seed = int(os.environ.get("ANSIM_SEED", SEED))
    lives = [min(LIFE_H, hours - begun) for begun in range(0, hours, LIFE_H)]
    totals, began = Totals(), time.perf_counter()
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        for life, one in enumerate(pool.map(partial(live, seed), range(len(lives)), lives)):
            totals.add(one)
            for note in one.notes:
                print(f"  {note}", flush=True)
            if life % 10 == 9 or life == len(lives) - 1:
                print(f"  {totals.hours} h, {time.perf_counter() - began:.0f} s: {totals.figures()}", flush=True)
    return {"seed": seed, **totals.figures(), "_markdown": totals.text()}


def live(seed: int, life: int, hours: int) -> Totals:
    """Run one reader for some hours."""
    dice = random.Random(f"{seed}/{life}")
    totals = Totals()
    with tempfile.TemporaryDirectory() as folder:
        trial = HardLife(Path(folder) / "flash", seed=dice.randrange(1 << 30), tag_count=0, lapse_ms=LAPSE_MS)
        trial.add_tags(4, period_ms=1e12)
        trial.renew_gateway()
        try:
            trial.start()
            for hour in range(hours):
                plan(trial, dice)
                trial.run(QUIET_S + 120)
                if trial.now_ms - trial.reader.looked_at_ms > 60_000 and not trial.reader.transmitting:
                    totals.counts["visits"] += 1
                    totals.notes.append(f"seed {seed} life {life} hour {hour}: dead without a visit, {trial.since()}")
                    trial.fail_power(2.0)
                trial.run(HOUR_S - QUIET_S - 120)
                count(trial, totals, f"seed {seed} life {life} hour {hour}")
            trial.finish()
        finally:
            trial.reader.stop()
        totals.hours = hours
        totals.dead_ms = trial.dead_ms
        totals.gaps = sorted(trial.gaps, reverse=True)[:LONGEST]
        totals.lamp_ms = trial.lamp_judge.false_ms
        totals.notes += [f"seed {seed} life {life}: lamp {said}" for said in trial.lamp_judge.said]
        totals.counts.update({f"reset {cause}": count for cause, count in trial.resets.items()})
        totals.counts["flash writes"] = trial.reader.flash_writes
        totals.counts["interrupts"] = trial.reader.interrupts
        totals.counts["hangs"] = trial.reader.hangs
        totals.counts["power cuts"] = trial.cuts
    return totals


class HardLife(Trial):
    """A trial whose power may fail in the middle of a write, and which remembers its longest gaps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gaps: list[tuple[float, str]] = []
        self.lamp_judge.about = lambda: changed(self.reader.switches)
        self.cuts = 0
        self._torn = False
        self._off_s = 0.0

    def since(self) -> str:
        return f"looked {(self.now_ms - self.reader.looked_at_ms) / 1000:.0f} s ago, {changed(self.reader.switches)}"

    def fail_power(self, off_s: float) -> None:
        """Switch it off for so long. Nothing if it is off."""
        if self.powered:
            self.cut()
            self.cuts += 1
            self.at(self.now_ms + 1000 * off_s, self.start)

    def tear(self, step: int, off_s: float) -> None:
        """The power fails at this step of flash from now on, or in 60 s."""
        if self.powered:
            self.reader.cut_at_flash_step, self._torn, self._off_s = step, True, off_s
            self.at(self.now_ms + 60_000, self._tear_now)

    def _tear_now(self) -> None:
        if self._torn:
            self._torn, self.reader.cut_at_flash_step = False, None
            self.fail_power(self._off_s)

    def cut(self) -> None:
        super().cut()
        self._repair()

    def _repair(self) -> None:
        """What stalled or hung begins anew with the next boot."""
        self.reader.scan_stalled = False
        if self.latency_ms > 1e6:
            self.latency_ms = 8.0

    def _observe(self) -> None:
        if self._torn and self.reader.cut_at_flash_step is None:
            self._torn = False
            self.fail_power(self._off_s)
        resets = sum(self.resets.values())
        super()._observe()
        if sum(self.resets.values()) > resets:
            self._repair()

    def _note(self, what: str) -> None:
        super()._note(what)
        self.note_flash()

    def note_flash(self) -> None:
        """Remember for all presses that wait that flash may not have kept them."""
        if (flash := self.reader.switches.flash) not in ("works", "no_replace"):
            super()._note(f"flash {flash}")

    def _gap(self, until_ms: float) -> None:
        before = self.dead_ms.total()
        super()._gap(until_ms)
        gap_ms = self.dead_ms.total() - before
        if gap_ms > 20_000:
            self.gaps.append((gap_ms, f"{self.newest_why}; {changed(self.reader.switches)}"))


def changed(switches: Switches) -> str:
    """Return the switches that are not as in a working module."""
    fields = Switches.__dataclass_fields__
    return ", ".join(
        f"{name}={getattr(switches, name)}" for name in fields if getattr(switches, name) != fields[name].default
    )


def plan(trial: HardLife, dice: random.Random) -> None:
    """Set one hour on the calendar."""
    start_ms = trial.now_ms

    def at(at_s: float, what: "partial[object]") -> None:
        trial.at(start_ms + 1000 * at_s, what)

    for at_s in [0.0, *(dice.random() * QUIET_S for _ in range(dice.randrange(3, 8)))]:
        at(at_s, partial(_set, trial, spell(dice), 0.3 * dice.random() if dice.random() < 0.3 else 0.0))
        if dice.random() < 0.3:  # many switches count from the next boot on
            at(at_s + 0.001, partial(trial.fail_power, 1.0))
    at(QUIET_S, partial(_set, trial, Switches(), 0.0))
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        off_s = dice.choice((0.5, 3.0, 10.0, 60.0))
        at(dice.random() * QUIET_S, partial(trial.fail_power, off_s))
    if dice.random() < 0.3:
        at(dice.random() * QUIET_S, partial(trial.tear, dice.randrange(6), 3.0))
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        at_s = dice.random() * QUIET_S
        how, gone_s = dice.choice(("raises", "loses", "box")), 5 * 200 ** dice.random()
        at(at_s, partial(_leave, trial, how))
        at(min(at_s + gone_s, QUIET_S), partial(_come, trial, dice.random() < 0.5))
    if dice.random() < 0.1:
        at(dice.random() * QUIET_S, partial(setattr, trial.reader, "scan_stalled", True))
    if dice.random() < 0.1:
        at(dice.random() * QUIET_S, partial(setattr, trial, "latency_ms", 1e9))
    for place in range(3):
        at(dice.random() * QUIET_S, partial(trial.press_bell, place, 1000 * (0.3 + 0.7 * dice.random())))
    for tag in dice.sample(trial.tags[:3], 2):
        at(dice.random() * QUIET_S, partial(trial.press_tag, tag, 5.0, 595.0))
    passes_s = dice.random() * QUIET_S
    for second in range(60 if dice.random() < 0.25 else 0):
        at(passes_s + second + dice.random(), partial(trial.advertise, trial.tags[3]))


def spell(dice: random.Random) -> Switches:
    """Draw a module."""
    if dice.random() < 1 / 3:
        return Switches()
    changes: dict[str, object] = {}
    for _ in range(dice.choice((1, 1, 2, 3))):
        changes |= _bad(dice)
    return Switches().but(**changes)


def _bad(dice: random.Random) -> dict[str, object]:
    name = dice.choice(
        (
            "atcmd", "flash", "flash", "gap_scan", "gap_scan_again", "gap_advertise", "transmit", "transmit",
            "transmit_ms", "kbd_intr", "interrupt_at_step", "watchdog", "call_ms", "payload_none_pct",
            "address_none_pct", "stop_late_ms", "receive_queue", "scan_queue", "boot_ms", "pins_refused", "ble_off",
            "gc_threshold", "stdin_b_s",
        )
    )  # fmt: skip
    match name:
        case "transmit":
            ms = dice.choice((0, 0, 0, 1800, 5000, 15000))
            return {
                "transmit": dice.choice(TRANSMIT_ERRORS),
                "transmit_ms": ms,
                "transmit_pct": dice.choice((5, 50, 100)),
            }
        case "transmit_ms":
            return {"transmit_ms": dice.choice((300, 1800, 5000, 15000))}
        case "flash":
            return {"flash": dice.choice(CHOICES["flash"][1:]), "flash_b": dice.choice((4096, 20_000, 100_000))}
        case "gap_scan_again":
            how = dice.choice(CHOICES["gap_scan"][1:])
            return {"gap_scan": how, "gap_scan_again": how}
        case "kbd_intr":
            return {"kbd_intr": False, "interrupt_every_s": dice.choice((0.3, 2.0, 30.0))}
        case "interrupt_at_step":
            return {"kbd_intr": False, "interrupt_at_step": int(2 ** (12 * dice.random()))}
        case "watchdog" | "ble_off":
            return {name: False}
        case "gc_threshold":
            return {name: True}
        case "pins_refused":
            return {name: dice.choice(("D2", "D3", "D2,D3"))}
        case "receive_queue" | "scan_queue":
            return {name: 1}
        case _ if name in CHOICES:
            return {name: dice.choice(CHOICES[name][1:])}
    values = {
        "call_ms": (5, 20), "payload_none_pct": (10, 100), "address_none_pct": (10, 100), "stop_late_ms": (500, 5000),
        "boot_ms": (100, 5000), "stdin_b_s": (10, 1000),
    }  # fmt: skip
    return {name: dice.choice(values[name])}


def _set(trial: HardLife, switches: Switches, loss: float) -> None:
    trial.note_flash()
    trial.reader.switches, trial.loss = switches, loss
    trial.stir(1000)


def _leave(trial: HardLife, how: str) -> None:
    trial.mesh = how
    if trial.latency_ms < 1e6:
        trial.latency_ms = 1800.0 if how == "raises" else 8.0


def _come(trial: HardLife, keep_snapshot: bool) -> None:
    if trial.mesh == "box":
        trial.restart_gateway(keep_snapshot)
    trial.mesh = "up"
    if trial.latency_ms < 1e6:
        trial.latency_ms = 8.0


def count(trial: HardLife, totals: Totals, where: str) -> None:
    """Take what an hour gave, and forget it."""
    for press in trial.presses:
        kind = "bells" if press.what == "bell" else "cries"
        totals.counts[kind] += 1
        if press.told_ms is not None:
            totals.counts[f"{kind}_told"] += 1
            if kind == "bells":
                totals.told_ms.append(press.told_ms - press.at_ms)
        elif kind == "bells":
            totals.not_told[reason(press)] += 1
            if press.seen:
                totals.counts["bells_lost"] += 1
                totals.notes.append(f"{where}: {reason(press)}, bell {press.number} at {press.at_ms:.0f} ms")
    totals.counts["twice"] += trial.twice
    trial.twice = 0
    trial.presses.clear()
    del trial.sent[:-1], trial.log[:-20], trial.beats[:-1]


def reason(press: Press) -> str:
    why = " and ".join(sorted(press.why)) or "nothing known"
    return f"seen, then {why}" if press.seen else f"not seen: {why}"


if __name__ == "__main__":
    run()
