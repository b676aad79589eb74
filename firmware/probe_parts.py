# Bring-up, the steps without radio: what the module's MicroPython has, pins, flash, resets (see probe.py).
# mypy: allow-untyped-defs, allow-incomplete-defs
import binascii
import errno
import gc
import hashlib
import os
import struct
import sys
import time

import machine
import micropython
import xbee
from digi import ble
from probe import problem, say, tried, waited

_NAMES = (
    "gc.threshold gc.mem_alloc micropython.kbd_intr micropython.stack_use micropython.mem_info machine.WDT "
    "machine.soft_reset os.replace os.rename os.sync os.statvfs os.bundle ble.active ble.config xbee.receive_callback "
    "xbee.modem_status sys.print_exception binascii.crc32 time.ticks_us hashlib.sha1"
)
_ERRORS = "EIO EAGAIN EEXIST ENODEV EINVAL ENOSPC EROFS ENOENT ENOTCONN ETIMEDOUT EALREADY ENOMEM"
_SAVED = "probe.record"
_deepest = [0]


def runtime(plan) -> None:
    """What interpreter this is."""
    say("implementation", tuple(getattr(sys, "implementation")))
    say("mpy", getattr(getattr(sys, "implementation"), "_mpy", None))
    for name in ("version", "platform", "path", "maxsize"):
        say(name, getattr(sys, name, None))
    if hasattr(os, "getcwd"):
        say("folder", getattr(os, "getcwd")())


def names(plan) -> None:
    """Which names exist."""
    homes = {"gc": gc, "micropython": micropython, "machine": machine, "os": os, "ble": ble, "xbee": xbee, "sys": sys,
             "binascii": binascii, "time": time, "hashlib": hashlib}  # fmt: skip
    for dotted in _NAMES.split():
        home, name = dotted.split(".")
        say(dotted, hasattr(homes[home], name))


def errors(plan) -> None:
    """Which numbers the names of errno have."""
    for name in _ERRORS.split():
        say(name, getattr(errno, name, None))
    known = getattr(errno, "errorcode", {})
    for number in known:
        say(known[number], number)


def codes(plan) -> None:
    """Which codes struct reads."""
    for code in "xcbB?hHiIlLqQnNfdspPOSe":
        try:
            say("code_" + code, struct.calcsize("<" + code))
        except Exception as error:
            say("code_" + code, problem(error))


def pins(plan) -> None:
    """Which names are pins. A pin that is only named keeps its mode and its level."""
    board = getattr(machine.Pin, "board", None)
    say("board", [name for name in dir(board) if name[0] in "DP"] if board else None)
    for name in plan.PINS.split():
        say(name, tried(machine.Pin, name))


def wired(plan) -> None:
    """The pins that a person wired: what a write takes, and the bell's level. The lamp flickers, the buzzer beeps."""
    for use, name in (("lamp", plan.LAMP), ("buzzer", plan.BUZZER)):
        if name:
            pin = machine.Pin(name, machine.Pin.OUT, value=0)
            began = time.ticks_ms()
            for level in range(40):
                pin.value(level & 1)
            pin.value(0)
            time.sleep_ms(1)
            say(use + "_41_writes_ms", max(waited(began) - 1, 0))
    if plan.BELL:
        pin = machine.Pin(plan.BELL, machine.Pin.IN, machine.Pin.PULL_UP)
        say("bell_level", pin.value())
        began = time.ticks_ms()
        changes, level = 0, pin.value()
        while waited(began) < 5000:
            changes += pin.value() != level
            level = pin.value()
            time.sleep_ms(20)
        say("bell_changes", changes)


def atcmd(plan) -> None:
    """What type xbee.atcmd gives."""
    for command in ("%V", "TP", "AI"):
        try:
            value = xbee.atcmd(command)
            say(command, (type(value).__name__, value))
        except Exception as error:
            say(command + "_raised", problem(error))


def clock(plan) -> None:
    """What a wait, a collection and a hash take, and when ticks wrap."""
    say("ticks_period", time.ticks_add(0, -1) + 1)
    began = time.ticks_ms()
    for _ in range(50):
        time.sleep_ms(20)
    say("sleep_20_50_times_ms", waited(began))
    began = time.ticks_ms()
    gc.collect()
    say("collect_ms", waited(began))
    began = time.ticks_ms()
    for _ in range(100):
        hashlib.sha256(bytes(64)).digest()
    say("sha256_100_times_ms", waited(began))


def stack(plan) -> None:
    """How large heap and stack are, and how many calls fit into each other."""
    gc.collect()
    say("free_b", gc.mem_free())
    say("used_b", gc.mem_alloc())
    if hasattr(micropython, "mem_info"):
        getattr(micropython, "mem_info")()
    try:
        _deeper(1)
    except RuntimeError:
        say("calls", _deepest[0])


def _deeper(depth: int) -> None:
    _deepest[0] = depth
    _deeper(depth + 1)


def interrupt(plan) -> None:
    """Whether a byte 0x03 on the serial line interrupts the program, before and after kbd_intr(-1). The host sends it
    when it reads `ready`."""
    for key in ("plain", "kbd_intr"):
        if key == "kbd_intr":
            if not hasattr(micropython, "kbd_intr"):
                return
            getattr(micropython, "kbd_intr")(-1)
        try:
            say("ready", key)
            for _ in range(100):
                time.sleep_ms(100)
            say(key, False)
        except KeyboardInterrupt:
            say(key, True)


def flash(plan) -> None:
    """What the file system does with a record that is saved again and again, as firmware/settings.py saves it."""
    data = bytes(range(8))
    there = os.listdir()
    for name, key in ((_SAVED, "left_record"), (_SAVED + ".new", "left_new")):
        if name in there:  # of a run that a power cut ended
            say(key, tried(_read, name, data))
    _space("before_blocks")
    say("write", tried(_write, _SAVED, data))
    say("read", tried(_read, _SAVED, data))
    if hasattr(os, "sync"):
        say("sync", tried(os.sync))
    say("write_new", tried(_write, _SAVED + ".new", data))
    if hasattr(os, "replace"):
        say("replace", tried(os.replace, _SAVED + ".new", _SAVED))
        say("replaced", tried(_read, _SAVED, data))
    say("write_new_again", tried(_write, _SAVED + ".new", data))
    say("rename_to_a_name_that_exists", tried(os.rename, _SAVED + ".new", _SAVED))
    done = slowest_ms = 0
    began = time.ticks_ms()
    while done < plan.SAVES:
        start = time.ticks_ms()
        why = tried(_save, data)
        if why:
            say("stopped", (done, why))
            break
        slowest_ms = max(slowest_ms, waited(start))
        done += 1
        if done % 10 == 0:
            time.sleep_ms(1)
            say("saved", (done, waited(began) - 1, slowest_ms))
            began = time.ticks_ms()
    for name in (_SAVED, _SAVED + ".new"):
        if name in os.listdir():
            say("remove", tried(os.remove, name))
    tried(os.sync)
    _space("after_blocks")


wear = flash  # the same with more saves


def _space(key: str) -> None:
    if hasattr(os, "statvfs"):
        try:
            found = getattr(os, "statvfs")("/flash")
            say(key, (found[0], found[2], found[3]))  # bytes of a block, blocks, free blocks
        except Exception as error:
            say(key, problem(error))


def _write(name: str, data: bytes) -> None:
    with open(name, "wb") as file:
        file.write(data)


def _read(name: str, data: bytes) -> None:
    with open(name, "rb") as file:
        if file.read() != data:
            raise ValueError


def _save(data: bytes) -> None:
    _write(_SAVED + ".new", data)
    tried(os.sync)
    try:
        os.replace(_SAVED + ".new", _SAVED)
    except OSError:
        os.remove(_SAVED)
        os.rename(_SAVED + ".new", _SAVED)
    tried(os.sync)


def watchdog(plan) -> None:
    """Does the watchdog bite? This step should end with a reset."""
    machine.WDT(timeout=5000, response=machine.HARD_RESET)
    time.sleep_ms(20000)


def reset(plan) -> None:
    """Does machine.reset() work? This step should end with a reset."""
    machine.reset()
