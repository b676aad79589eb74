"""A bell rings whatever else is broken: rows of `make bench BENCH=module`, shorter and with another seed."""

import pytest

from sim.reader.process import WATCHDOG
from tests.bench.module import Cell, Row, measure, rows
from tests.firmware.bed import CONFIG

SEED = 4711
SECONDS = 100.0
PRESS_MS = 300.0

ROWS = {row.name: row for row in rows()}
SHORT: dict[str, tuple[str, ...]] = {
    "a working module": (),
    "atcmd=raises": ("measure",),
    "flash=full": ("flash", "boot"),
    "flash=no_replace": (),
    "flash=no_sync": ("flash", "boot"),
    "flash=never_frees": ("flash", "boot"),
    "flash=unreadable": ("flash", "boot"),
    "gap_advertise=raises": ("beacon",),
    "gap_scan, gap_scan_again=ENODEV": ("scan",),
    "gap_scan, gap_scan_again=raises": ("scan",),
    "gap_scan_again=EALREADY": ("scan",),
    "transmit=EIO 50 %, 0 ms": (),
    "transmit=EAGAIN 50 %, 0 ms": (),
    "transmit=TypeError 50 %, 0 ms": ("send",),
    "transmit=ENOTCONN always, 0 ms": (),
    "gc_threshold=true": (),
    "kbd_intr=false": (),
    "watchdog=false": ("watchdog",),
    "call_ms=5": (),
    "payload_none_pct=100": (),
    "address_none_pct=100": (),
    "0x03 every 0.3 s, kbd_intr=false": ("interrupt",),
    "0x03 every 0.3 s, kbd_intr=true": (),
    "0x03 at step 500 of each boot, kbd_intr=false": ("interrupt",),
    "pins_refused=D12 (second bell)": ("pins",),
    "pins_refused=D2 (lamp)": ("pins",),
    "pins_refused=D3 (buzzer)": ("pins",),
    "config: no COMPANY_ID": (),
    "config: BELLS names D4, P5, D10": ("pins",),
    "flash=full, gap_scan=ENODEV, gap_scan_again=ENODEV": ("flash", "boot", "scan"),
    "flash=full, kbd_intr=false, interrupt_every_s=2": ("flash", "boot", "interrupt"),
}
"""Name of a row -> the faults that its heartbeats must name, and no others."""


def run(row: Row, seconds: float = SECONDS) -> Cell:
    print(f"seed {SEED}")
    cell = measure(row, seed=SEED, seconds=seconds, press_ms=PRESS_MS)
    print(cell)
    return cell


@pytest.mark.parametrize("name", SHORT)
def test_every_press_is_told_and_the_lamp_says_what_is_true(name: str) -> None:
    cell = run(ROWS[name])
    assert cell.seen == cell.pressed > 0
    assert cell.rings
    assert cell.faults == SHORT[name]
    assert cell.beats
    assert cell.back_ms is not None
    assert cell.back_ms <= 1600, "after the power cut at the end: the module's 1.5 s"
    assert cell.resets == {}
    assert cell.lamp_ms == 0
    assert cell.twice == 0


@pytest.mark.parametrize("error", ["EIO", "ETIMEDOUT"])
def test_of_sends_that_block_for_5_s_every_press_that_can_be_seen_is_told(error: str) -> None:
    cell = run(ROWS[f"transmit={error} 50 %, 5000 ms"], 150)
    assert cell.rings
    assert cell.resets == {}
    assert cell.lamp_ms == 0


def test_eight_alarms_and_sends_of_15_s_reset_nothing_and_lose_none() -> None:
    cell = run(ROWS["eight alarms at once, sends of 15 s"], 75)
    assert (cell.told, cell.cries_told) == (1, 7)
    assert cell.resets == {}
    assert cell.lamp_ms == 0


def test_power_that_fails_every_20_s_costs_only_what_is_pressed_without_it() -> None:
    cell = run(ROWS["power cut every 20 s"], 280)
    assert cell.rings
    assert cell.seen >= cell.pressed - 2
    assert cell.back_ms is not None
    assert cell.back_ms <= 1600
    assert cell.lamp_ms == 0


def test_a_scanner_that_stalls_costs_a_minute_and_one_reset() -> None:
    cell = run(ROWS["scanner stalls for good after 100 s"], 240)
    assert cell.resets == {WATCHDOG: 1}
    assert cell.rings
    assert cell.back_ms is not None
    assert 60_000 < cell.back_ms < 63_000
    assert cell.lamp_ms == 0


SLOW = "import time\nsleep = time.sleep_ms\ntime.sleep_ms = lambda ms: sleep(ms * 20)\n"
DEAF = "import machine\nmachine.Pin.value = lambda self, level=None: 1\n"
LIAR = """import machine, time
sleep = time.sleep_ms
def liar(ms):
    machine.Pin("D2").value(1)
    sleep(ms)
time.sleep_ms = liar
"""


def test_the_trial_sees_a_reader_that_does_not_ring() -> None:
    """The judge can say no: passes of 400 ms, bells that always look released, a lamp that is lit from the start."""
    slow = run(Row("slow", config=CONFIG + SLOW), 60)
    assert slow.seen < slow.pressed
    assert run(Row("deaf", config=CONFIG + DEAF), 60).rings is False
    assert run(Row("liar", config=CONFIG + LIAR), 60).lamp_ms > 1000
