# The main loop: what one pass does, in which order, and the watchdog, which is fed only while the scanner works.
# ruff: noqa: I001
import config  # modules with fewest imports first: few are half-loaded in the heap at a time  # noqa: F401
import wire
import settings
import link
import alarm
import scan
import report

import machine
import time
from micropython import const

_PASS_MS = const(20)
_WATCHDOG_MS = const(60000)
_SPARE = const(64)  # sequences left when the reader reboots, so that they never wrap

watchdog: machine.WDT | None = None


def handle(kind: int, body: bytes, now: int) -> None:
    """Do what one frame of the gateway says. Raises WireError if its body does not fit."""
    if kind == wire.ACK:
        rebind, sequences = wire.decode_ack(body)
        if rebind:
            scan.bind(0)
        for sequence in sequences:
            report.acknowledged(sequence)
    elif kind == wire.STAGE:
        for number, stage in wire.decode_stage(body):
            alarm.reach(number, stage, now)
        alarm.show(now)
    elif kind != wire.SETTINGS:
        raise wire.WireError("unknown kind")
    elif settings.take(body):
        settings.save("settings", body)
        scan.restart(scan.shift)
        report.beat_in(500)


def run() -> None:
    """Work until the sequence numbers of this boot are used up."""
    global watchdog
    link.boot = settings.restore()
    alarm.restore(time.ticks_ms())
    scan.restart(0)
    report.start(time.ticks_ms())
    watchdog = machine.WDT(timeout=_WATCHDOG_MS, response=machine.HARD_RESET)
    # Sequences used up: reboot, but not while an alarm is open and a sequence is left to report it.
    while link.sequence < wire.SEQUENCE_MAX - (0 if alarm.lit[4] else _SPARE):
        now = time.ticks_ms()
        message = link.receive()
        while message is not None:
            try:
                handle(message[0], message[1], now)
            except wire.WireError:
                link.counters[4] += 1
            message = link.receive()
        works = scan.drain(now)
        alarm.ring(now)
        alarm.show(now)
        if not alarm.tick(now):
            report.tick(now)
        scan.beacon(now)
        report.adapt(now)
        if works:
            watchdog.feed()
        time.sleep_ms(_PASS_MS)
