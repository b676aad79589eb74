"""What each switch of the module does to a reader: real firmware on one pole, and the gateway's own core.

Every row runs for five minutes of virtual time (longer where a send blocks): nine presses of three bells (0.5 s each)
and three cries of tags (10 s) at random moments, three tags that pass by, a city that answers; then the power is cut
for 3 s and comes back. Columns:

- *seen*: presses at which the reader looked twice, 50 ms apart, of all presses. A reader that sends looks at no bell.
- *told*: those of them for which the core committed a Bell, and the longest time from press to commit.
- *SOS*: cries for which the core committed an Sos.
- *heartbeat*: faults that heartbeats named, of those that the core took as new. "none": there was no heartbeat.
- *back*: longest time from power on, a reset, a crash or an interrupt to the next look at a bell.
- *blocked*: longest time without a look because a send or a scan blocked.
- *resets*: by `machine.reset_cause()`: 3 the program's own, 5 watchdog.
- *lamp*: milliseconds in which lamp or buzzer said what was not true (tests/firmware/lamp.py).

Rows whose radio sends nothing at all (transmit raises in 100 of 100 calls) get a working radio for their last fifth.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from readers import wire
from sim.reader.switches import CHOICES, TRANSMIT_ERRORS, parse
from tests.firmware.bed import CONFIG, Trial

SEED = 1208
SECONDS = 300.0
PRESSES = 9
CRIES = 3
PRESS_MS = 500.0
CUT_S = 3.0
AFTER_S = 20.0


@dataclass(frozen=True)
class Row:
    """One module, or one thing that happens to it."""

    name: str
    switches: str = ""
    config: str = CONFIG
    act: Callable[[Trial], None] | None = None
    """What else happens: called before the power is switched on."""
    bells: tuple[int, ...] = (0, 1, 2)
    """Places of the bells that are pressed."""
    pace: float = 1.0
    """So many times as long as the others."""
    repair: str = ""
    """Switches from four fifths of the time on."""


@dataclass(frozen=True)
class Cell:
    """What one row gave."""

    name: str
    pressed: int
    seen: int
    told: int
    told_ms: float
    cried: int
    cries_told: int
    cry_ms: float
    beats: int
    faults: tuple[str, ...]
    back_ms: float | None
    """None: it did not look at a bell at the end."""
    blocked_ms: float
    resets: dict[int, int]
    lamp_ms: int
    lamp_said: tuple[str, ...]
    sent: int
    twice: int
    """Second alarms for a press."""
    log: tuple[str, ...]

    @property
    def rings(self) -> bool:
        """Every press that the reader could see became an alarm, and there was one."""
        return 0 < self.told == self.seen

    def line(self) -> str:
        told = f"{self.told} of {self.seen}" + (f", {_s(self.told_ms)}" if self.told else "")
        cries = f"{self.cries_told} of {self.cried}" + (f", {_s(self.cry_ms)}" if self.cries_told else "")
        beat = ("yes" + "".join(f", {name}" for name in self.faults)) if self.beats else "none"
        back = "never" if self.back_ms is None else _s(self.back_ms)
        resets = ", ".join(f"{count} x {cause}" for cause, count in sorted(self.resets.items())) or "0"
        values = (self.name, f"{self.seen} of {self.pressed}", told, cries, beat, back, _s(self.blocked_ms), resets)
        return f"| {' | '.join(values)} | {self.lamp_ms} |"


HEAD = "| switch | seen | told | SOS | heartbeat | back | blocked | resets | lamp, ms |\n" + "|---" * 9 + "|"


def rows() -> list[Row]:
    """Return every row of the table."""
    found = [Row("a working module")]
    for name, values in CHOICES.items():
        if name == "transmit":
            continue
        for value in values[1:]:
            more = ",flash_b=4096" if value == "never_frees" else ""
            found.append(Row(f"{name}={value}", f"{name}={value}{more}"))
    found += [
        Row(f"gap_scan, gap_scan_again={value}", f"gap_scan={value},gap_scan_again={value}")
        for value in CHOICES["gap_scan"][1:]
    ]
    for ms in (0, 5000, 15000):
        pace = 1.0 + ms / 5000
        if ms:
            found.append(Row(f"transmit_ms={ms}", f"transmit_ms={ms}", pace=pace))
        for error in TRANSMIT_ERRORS:
            text = f"transmit={error},transmit_ms={ms}"
            found.append(Row(f"transmit={error} 50 %, {ms} ms", f"{text},transmit_pct=50", pace=pace))
            found.append(Row(f"transmit={error} always, {ms} ms", text, pace=pace, repair="transmit=works"))
    for text in (
        "gc_threshold=true", "kbd_intr=false", "watchdog=false", "ble_off=false", "boot_ms=100", "boot_ms=10000",
        "call_ms=5", "call_ms=20", "heap_b=40960", "heap_b=36864", "heap_b=34816", "heap_b=32768",
        "payload_none_pct=100", "address_none_pct=100", "stop_late_ms=5000", "receive_queue=1", "scan_queue=1",
        "stdin_b_s=1000",
    ):  # fmt: skip
        found.append(Row(text, text))
    for kept in ("true", "false"):
        for every_s in (2, 0.3):
            found.append(
                Row(f"0x03 every {every_s} s, kbd_intr={kept}", f"kbd_intr={kept},interrupt_every_s={every_s}")
            )
        for step in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 5000):
            text = f"kbd_intr={kept},interrupt_at_step={step}"
            found.append(Row(f"0x03 at step {step} of each boot, kbd_intr={kept}", text))
    found += [
        Row("pins_refused=D12 (second bell)", "pins_refused=D12", bells=(0, 2)),
        Row("pins_refused=D4 (first bell)", "pins_refused=D4", bells=(1, 2)),
        Row("pins_refused=D2 (lamp)", "pins_refused=D2"),
        Row("pins_refused=D3 (buzzer)", "pins_refused=D3"),
        Row("pins_refused=D2,D3 (both)", act=partial(_switch, pins_refused="D2,D3")),
        Row("config: no COMPANY_ID", config=CONFIG + "del COMPANY_ID\n"),
        Row("config: BELLS names D4, P5, D10", config='BELLS = ("D4", "P5", "D10")\n', bells=(0, 2)),
        Row("config: BELLS names D4, 12", config='BELLS = ("D4", 12)\n', bells=(0,)),
        Row("config: LAMP names P9", config=CONFIG + 'LAMP = "P9"\n'),
        Row("config: LAMP is None", config=CONFIG + "LAMP = None\n"),
        Row("config: BELLS missing", config="", bells=(0,)),
        Row("config: a print", config=CONFIG + 'print("hello")\n'),
        Row("config: COMPANY_ID is a text", config=CONFIG + 'COMPANY_ID = "0xffff"\n'),
    ]
    found += [
        Row("scanner stalls for good after 100 s", act=_stall),
        Row("scanner stalls, watchdog=false", "watchdog=false", act=_stall),
        Row("one transmit never returns", act=_hang),
        Row("one transmit never returns, watchdog=false", "watchdog=false", act=_hang),
        Row("power cut every 20 s", act=_cuts),
        Row("mesh loses half of all frames", act=partial(_lose, 0.5)),
        Row("gateway away for 2 min, transmit raises after 1.8 s", act=partial(_away, "raises")),
        Row("gateway away for 2 min, frames vanish", act=partial(_away, "loses")),
        Row("gateway off for 2 min, and restarts", act=partial(_away, "box")),
        Row("eight alarms at once, sends of 15 s", "transmit_ms=15000", act=_eight, bells=(), pace=4),
        Row(
            "eight alarms, sends of 15 s, gateway away for 5 min",
            "transmit_ms=15000",
            act=_eight_away,
            bells=(),
            pace=4,
        ),
    ]
    for text in (
        "flash=full,kbd_intr=false,interrupt_every_s=2",
        "flash=full,gap_scan=ENODEV,gap_scan_again=ENODEV",
        "flash=never_frees,flash_b=6000,gap_advertise=raises,atcmd=raises",
        "flash=no_replace,call_ms=5,receive_queue=1",
        "flash=unreadable,watchdog=false,transmit=EAGAIN,transmit_pct=50",
        "gap_scan=raises,gap_scan_again=raises,transmit=EIO,transmit_pct=50",
        "gap_scan_again=EALREADY,payload_none_pct=50,address_none_pct=50",
        "transmit=ETIMEDOUT,transmit_pct=50,transmit_ms=1800",
        "transmit=EAGAIN,transmit_pct=50,flash=full,atcmd=bytes",
        "kbd_intr=false,interrupt_every_s=0.3,gap_scan=ENODEV,gap_scan_again=ENODEV",
        "kbd_intr=false,interrupt_every_s=2,transmit_ms=1800",
        "kbd_intr=false,interrupt_at_step=200,flash=full",
        "watchdog=false,flash=full,gap_advertise=EINVAL",
    ):
        found.append(Row(text.replace(",", ", "), text, pace=2.0 if "transmit_ms" in text else 1.0))
    return found


def measure(row: Row, *, seed: int = SEED, seconds: float = SECONDS, press_ms: float = PRESS_MS) -> Cell:
    """Run one row. seconds: until the power is cut, at pace 1."""
    seconds *= row.pace
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder) / "flash", seed=seed, switches=parse(row.switches), config=row.config)
        try:
            if row.act is not None:
                row.act(trial)
            for k in range(PRESSES if row.bells else 0):
                at_ms = 1000 * (seconds * (k + trial.random.random()) / PRESSES * 0.9 + 5)
                trial.at(at_ms, partial(trial.press_bell, row.bells[k % len(row.bells)], press_ms))
            for k in range(CRIES if row.bells else 0):
                at_ms = 1000 * (seconds * (k + trial.random.random()) / CRIES * 0.9 + 5)
                trial.at(at_ms, partial(trial.press_tag, trial.tags[k]))
            if row.repair:
                trial.at(800 * seconds, partial(trial.switch, **_changes(row.repair)))
            trial.start()
            trial.run(seconds)
            if trial.powered:
                trial.cut()
            trial.run(CUT_S)
            if not trial.powered:
                trial.start()
            trial.run(AFTER_S * row.pace)
            trial.finish()
            return cell_of(row, trial)
        finally:
            trial.reader.stop()


def cell_of(row: Row, trial: Trial) -> Cell:
    bells = [press for press in trial.presses if press.what == "bell"]
    cries = [press for press in trial.presses if press.what == "sos"]
    bits = 0
    for beat in trial.beats:
        bits |= beat["faults"]
    back = [ms for why, ms in trial.longest_ms.items() if "start" in why or "reset" in why or "nothing" in why]
    blocked = [ms for why, ms in trial.longest_ms.items() if not ("start" in why or "reset" in why or "nothing" in why)]
    return Cell(
        row.name,
        len(bells),
        sum(press.seen for press in bells),
        sum(press.told_ms is not None for press in bells if press.seen),
        max((press.told_ms - press.at_ms for press in bells if press.told_ms is not None), default=0.0),
        len(cries),
        sum(press.told_ms is not None for press in cries),
        max((press.told_ms - press.at_ms for press in cries if press.told_ms is not None), default=0.0),
        len(trial.beats),
        tuple(name for bit, name in enumerate(wire.FAULTS) if bits >> bit & 1),
        max(back, default=0.0) if trial.now_ms - trial.reader.looked_at_ms < 20_000 else None,
        max(blocked, default=0.0),
        dict(trial.resets),
        sum(trial.lamp_judge.false_ms.values()),
        tuple(trial.lamp_judge.said),
        len(trial.sent),
        trial.twice,
        tuple(trial.log[-8:]),
    )


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit. ANSIM_JOBS: how many processes, 1 if it is not set."""
    every = rows()
    with ProcessPoolExecutor(max_workers=int(os.environ.get("ANSIM_JOBS", "1"))) as pool:
        cells = []
        for cell in pool.map(_measure_at, range(len(every))):
            cells.append(cell)
            print(cell.line(), flush=True)
    sending = [cell for cell in cells if cell.pressed and cell.sent]
    return {
        "seed": SEED,
        "rows": len(cells),
        "rows_in_which_the_radio_sends": len(sending),
        "of_these_every_seen_press_is_told": sum(cell.rings for cell in sending),
        "presses": sum(cell.pressed for cell in cells),
        "presses_seen": sum(cell.seen for cell in cells),
        "presses_told": sum(cell.told for cell in cells),
        **{f"seen_where_sends_block_{ms}_ms_pct": _seen_pct(cells, ms) for ms in (1800, 5000, 15000)},
        "second_alarms_for_a_press": sum(cell.twice for cell in cells),
        "back_within_s": max(cell.back_ms for cell in cells if cell.back_ms is not None) / 1000,
        "never_back": sum(cell.back_ms is None for cell in cells),
        "lamp_false_s": sum(cell.lamp_ms for cell in cells) / 1000,
        "_markdown": "\n".join([HEAD, *(cell.line() for cell in cells)]),
    }


def _seen_pct(cells: list[Cell], blocked_ms: float) -> float:
    some = [cell for cell in cells if cell.pressed == PRESSES and blocked_ms <= cell.blocked_ms < blocked_ms + 100]
    return round(100 * sum(cell.seen for cell in some) / sum(cell.pressed for cell in some), 1)


def _measure_at(place: int) -> Cell:
    return measure(rows()[place])


def _changes(text: str) -> dict[str, object]:
    after = parse(text)
    return {part.partition("=")[0]: getattr(after, part.partition("=")[0]) for part in text.split(",")}


def _switch(trial: Trial, **changes: object) -> None:
    trial.reader.switches = trial.reader.switches.but(**changes)


def _stall(trial: Trial) -> None:
    trial.at(100_000, lambda: setattr(trial.reader, "scan_stalled", True))
    trial.at(170_000, lambda: setattr(trial.reader, "scan_stalled", False))


def _hang(trial: Trial) -> None:
    trial.at(100_000, lambda: setattr(trial, "latency_ms", 1e9))
    trial.at(110_000, lambda: setattr(trial, "latency_ms", 8.0))


def _cuts(trial: Trial) -> None:
    def again() -> None:
        if trial.powered:
            trial.cut()
            trial.at(trial.now_ms + 1000, trial.start)
        if trial.now_ms < 270_000:
            trial.at(trial.now_ms + 20_000, again)

    trial.at(20_000, again)


def _lose(part: float, trial: Trial) -> None:
    trial.loss = part


def _away(how: str, trial: Trial) -> None:
    def leave() -> None:
        trial.mesh, trial.latency_ms = how, 1800.0 if how == "raises" else 8.0

    def come() -> None:
        trial.mesh, trial.latency_ms = "up", 8.0
        if how == "box":
            trial.restart_gateway(keep_snapshot=True)

    trial.at(60_000, leave)
    trial.at(180_000, come)


def _eight(trial: Trial) -> None:
    tags = trial.add_tags(7, period_ms=1e9)
    trial.renew_gateway()
    trial.at(20_000, partial(trial.press_bell, 0, 20_000))  # it is held until somebody comes
    for tag in tags:
        trial.at(20_000 + 100 * trial.random.random(), partial(trial.press_tag, tag, 60.0, 600.0))


def _eight_away(trial: Trial) -> None:
    _eight(trial)
    trial.at(15_000, lambda: setattr(trial, "mesh", "raises"))
    trial.at(315_000, lambda: setattr(trial, "mesh", "up"))


def _s(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms else "0"


if __name__ == "__main__":
    run()
