# The main loop: what one pass does, in which order, and what may fail in it without a consequence for a bell.
#
# Bells, alarms, lamp and mesh come first, and nothing else can stop them: settings, scan, beacon, reports and flash are
# each caught by themselves and reported in the heartbeat (`faults`). A pass that ends feeds the watchdog.
import gc
import time

import alarm
import health
import link
import machine
import report
import scan
import settings
import wire
from micropython import const

_PASS_MS = const(20)
_SLEEP_MS = const(5)  # at least: after a send the scanner's queue is nearly full, if somebody floods it
_SPARE = const(64)  # sequences left when the reader reboots, so that they never wrap
_REPORT = const(9)  # places in wire.FAULTS
_INTERRUPT = const(10)
_CRASH = const(11)
_WATCHDOG = const(12)
_MEMORY = const(13)
_BY_WATCHDOG = const(5)  # machine.WDT_RESET


def handle(kind: int, body: bytes, now: int) -> None:
    """Do what one frame of the gateway says. Raises WireError if its body does not fit."""
    if kind == wire.ACK:
        flags, rows = wire.decode_ack(body)
        if flags & wire.ACK_REBIND:
            scan.unbind(-1)
        if flags & wire.ACK_LOSSES:
            report.losses()
        for slot, sequence, mark in rows:
            report.acknowledged(slot, sequence, mark, now)
    elif kind == wire.STAGE:
        for number, stage in wire.decode_stage(body):
            alarm.reach(number, stage, now)
        alarm.show(now)
    elif kind != wire.SETTINGS:
        raise wire.WireError("unknown kind")
    elif settings.take(body):
        settings.keep("settings", body)
        scan.restart()
        report.beat_in(500)


def one_pass(now: int) -> None:
    """Do one pass."""
    message = link.receive()
    while message is not None:
        try:
            handle(message[0], message[1], now)
        except wire.WireError:
            link.counters[4] += 1
        message = link.receive()
    alarm.ring(now)
    scan.drain(now)
    alarm.show(now)
    if not alarm.tick(now):
        try:
            report.tick(now)
        except Exception:
            health.fault(_REPORT)
    scan.beacon(now)
    try:
        report.adapt(now)
    except Exception:
        health.fault(_REPORT)
    alarm.show(time.ticks_ms())  # again: whatever may have blocked made it low


def begin() -> None:
    """Take up what flash has kept, and note what is already known to be broken."""
    now = time.ticks_ms()
    link.boot = link.boot or settings.restore()  # once, also if an interrupt repeats this
    alarm.restore(now)
    scan.restart()
    if machine.reset_cause() == _BY_WATCHDOG:
        scan.later(120000)  # if the scanner hung, it may hang again: the bells get their time first
    report.start(now)
    if link.watchdog is None:
        health.fault(_WATCHDOG)
    if machine.reset_cause() == machine.HARD_RESET and settings.load("crash"):
        health.fault(_CRASH)


def run() -> None:
    """Work until the sequence numbers of this boot are used up, or no scan was possible for an hour."""
    begun = calm = False
    # Sequences used up: reboot, but not while an alarm is open and a sequence is left to report it.
    while link.sequence < wire.SEQUENCE_MAX - (0 if alarm.lit[4] else _SPARE):
        try:
            if not begun:
                begin()
                begun = True
                began = time.ticks_ms()
            now = time.ticks_ms()
            one_pass(now)
            if scan.hopeless(now) and not alarm.lit[4]:
                break
            if not calm and time.ticks_diff(now, began) > 3600000:
                calm = True
                settings.calm()
            if link.watchdog is not None:
                link.watchdog.feed()
            time.sleep_ms(max(_PASS_MS - time.ticks_diff(time.ticks_ms(), now), _SLEEP_MS))
        except KeyboardInterrupt:  # only where the module cannot switch it off
            health.fault(_INTERRUPT)
            scan.forget()
        except MemoryError:  # the next pass tries again; if that never helps, the watchdog resets
            health.fault(_MEMORY)
            gc.collect()
            time.sleep_ms(_PASS_MS)
    settings.calm()  # the reset that follows is no crash
