"""What a bring-up's values mean: the emulator's switches, and what differs from what a reader needs. Pure.

The names of the switches are those of `Switches` in sim/reader/switches.py. Only what was measured becomes one.
`heap_b` never does: the emulator's words have 64 bits, the module's 32.
"""

import errno
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from readers.provision import PINS, VR_MIN

Steps = Mapping[str, Mapping[str, Any]]
"""Step -> key -> value, as firmware/probe_parts.py, probe_radio.py, probe_nest.py and probe.py say them."""

BLOCK_B = 2048
"""What a small file takes of the flash; a guess, used for whether space comes back."""
DIGI = 7000
"""An error's number is Linux's plus this. Seen for some; the step `errors` reads the module's own."""
HEARD_MIN = 100
"""Advertisements that say something about a share of 100."""
QUEUE_S = 4
"""How long the step `queue` does not look."""
SENT = 12
"""Frames that somebody sends in the step `receive`."""
NEEDED = {"heap_b": 28_000, "stack_b": 2_000, "payload_b": 66, "mpy": 6, "eagain": 7011, "ticks": 1 << 30, "bite": 5}
"""What our program was made for: docs/FIRMWARE.md and the review it rests on."""


def name_of(problem: Any, measured: Steps) -> str:
    """Return "works" for None, else the error's name: ENODEV, or the exception's type. problem: ("OSError", 7019)."""
    if problem is None:
        return "works"
    kind, *numbers = problem
    if kind != "OSError" or not numbers:
        return str(kind)
    number = numbers[0]
    known = {value: name for name, value in measured.get("errors", {}).items() if value is not None}
    linux = errno.errorcode
    return str(known.get(number) or linux.get(number - DIGI) or linux.get(number) or f"OSError {number}")


def switches_of(measured: Steps, *, joined: bool, boot_s: float | None = None) -> dict[str, Any]:
    """Return the emulator's switches that these values set. joined: whether the module was in a network."""

    def choice(problem: Any, *allowed: str) -> str:
        name = name_of(problem, measured)
        return name if name in ("works", *allowed) else "raises"

    found: dict[str, Any] = {}
    names, scan, cold = (measured.get(step, {}) for step in ("names", "scan", "cold"))
    if boot_s is not None:
        found["boot_ms"] = round(boot_s * 1000)
    for switch, name in (
        ("gc_threshold", "gc.threshold"),
        ("kbd_intr", "micropython.kbd_intr"),
        ("watchdog", "machine.WDT"),
    ):
        if name in names:
            found[switch] = names[name]
    if all(pin in measured.get("pins", {}) for pin in PINS):
        found["pins_refused"] = ",".join(pin for pin in PINS if measured["pins"][pin] is not None)
    if "first" in scan:
        found["gap_scan"] = choice(scan["first"], "ENODEV", "EALREADY")
    if "after_stop" in scan:
        found["gap_scan_again"] = choice(scan["after_stop"], "ENODEV", "EALREADY")
    if scan.get("first", 0) is None and "gap_scan" in cold:
        found["ble_off"] = name_of(cold["gap_scan"], measured) == "ENODEV"
    stop = measured.get("stop", {})
    if "latest_ms" in stop:
        found["stop_late_ms"] = stop["latest_ms"] if stop.get("refused_of_100") else 0
    if "gap_advertise" in measured.get("count", {}):
        found["gap_advertise"] = choice(measured["count"]["gap_advertise"], "ENODEV", "EINVAL")
    found |= _shares(measured) | _atcmd(measured) | _flash(measured) | _calls(measured) | _queues(measured)
    return found | (_transmit(measured) if joined else {})


def _shares(measured: Steps) -> dict[str, Any]:
    rows = [value for key, value in measured.get("count", {}).items() if key.startswith("in_")]
    heard, _, payload_none, address_none, _ = (sum(column) for column in zip(*rows, strict=True)) if rows else [0] * 5
    if heard < HEARD_MIN:
        return {}
    return {
        "payload_none_pct": -(-100 * payload_none // max(heard - payload_none, 1)),
        "address_none_pct": -(-100 * address_none // heard),
    }


def _atcmd(measured: Steps) -> dict[str, Any]:
    told = measured.get("atcmd", {})
    if "%V_raised" in told:
        return {"atcmd": "raises"}
    if "%V" not in told:
        return {}
    kind = {"NoneType": "none"}.get(told["%V"][0], told["%V"][0])
    return {"atcmd": kind} if kind in ("int", "bytes", "str", "none") else {}


def _flash(measured: Steps) -> dict[str, Any]:
    """Return the worst that flash does: the emulator's can do one thing at a time."""
    told = measured.get("flash", {})
    if "write" not in told:
        return {}
    raised = {key: name_of(told[key], measured) for key in ("write", "read", "sync", "replace") if key in told}
    if "ENOSPC" in (raised["write"], name_of(told.get("stopped", (0, None))[1], measured)):
        return {"flash": "full"}
    if raised.get("read", "works") != "works":
        return {"flash": "unreadable"}
    lost_b = lost_by_saving(measured)
    if lost_b is not None and lost_b >= told["saves"] * BLOCK_B / 2:
        return {"flash": "never_frees", "flash_b": told["free_before_b"]}
    if raised.get("replace", "EEXIST") != "works" or told.get("replaced") is not None:
        return {"flash": "no_replace"}
    if raised.get("sync", "EIO") != "works":
        return {"flash": "no_sync"}
    return {"flash": "works"}


def lost_by_saving(measured: Steps) -> int | None:
    """Return how many bytes of the flash the saves of the step `flash` used up; None: the module does not say."""
    told = measured.get("flash", {})
    before_b, after_b = told.get("free_before_b"), told.get("free_after_b")
    return None if before_b is None or after_b is None or not told.get("saves") else int(before_b - after_b)


def _calls(measured: Steps) -> dict[str, Any]:
    """Return what a write to a pin, or one step of a save, takes: the longer of the two."""
    wired = [told / 41 for key, told in measured.get("wired", {}).items() if key.endswith("_41_writes_ms")]
    replaces = measured.get("flash", {}).get("replace", 0) is None
    steps = 10 * (4 if replaces else 6)  # open, sync, replace, sync; else remove and rename after it
    saved = [took_ms / steps for step in ("flash", "wear") for _, took_ms, _ in measured.get(step, {}).get("saved", [])]
    taken = [statistics.mean(each) for each in (wired, saved) if each]
    return {"call_ms": round(max(taken))} if taken else {}


def _queues(measured: Steps) -> dict[str, Any]:
    found = {}
    kept, count = measured.get("queue", {}).get("kept", 0), measured.get("count", {})
    if "in_40_ms_40" in count and "seconds" in count:
        offered = count["in_40_ms_40"][0] * QUEUE_S / count["seconds"]
        if 0 < kept < 0.8 * offered:  # else everything found room
            found["scan_queue"] = kept
    frames = measured.get("receive", {}).get("kept", 0)
    if 0 < frames < SENT:
        found["receive_queue"] = frames
    return found


def _transmit(measured: Steps) -> dict[str, Any]:
    sent = measured.get("transmit", {}).get("sent", [])
    failed = [(took_ms, name_of(why, measured)) for took_ms, why in sent if why is not None]
    if not sent:
        return {}
    if not failed:
        return {"transmit": "works", "transmit_ms": round(statistics.median(took_ms for took_ms, _ in sent))}
    name = statistics.mode(name for _, name in failed)
    return {
        "transmit": name,
        "transmit_ms": round(statistics.median(took_ms for took_ms, _ in failed)),
        "transmit_pct": round(100 * len(failed) / len(sent)),
    }


def notes(measured: Steps, told: Mapping[str, str | None]) -> Iterator[str]:
    """Yield what differs from what our program needs, or could not be measured. told: AT command -> its answer."""
    for step, values in measured.items():
        if "lost_s" in values:
            yield f"{step}: no line for {values['lost_s']:.0f} s: the program hung, or the module reset without a word"
        elif "reset_cause" in values and step not in ("watchdog", "reset", "boot"):
            yield f"{step}: the module reset in the middle of it, cause {values['reset_cause']}"
        elif "not_started" in values:
            yield f"{step}: the program did not start for it"
        elif "skipped" in values:
            yield f"{step}: not measured: {values['skipped']}"
        elif "error" in values:
            yield f"{step}: ended by {name_of(values['error'], measured)}"
    yield from _needed(measured, told)


def _needed(measured: Steps, told: Mapping[str, str | None]) -> Iterator[str]:
    heap_b = measured.get("boot", {}).get("free_b")
    if heap_b is not None and heap_b < NEEDED["heap_b"]:
        yield f"heap: {heap_b} bytes free at the start; our program needs {NEEDED['heap_b']}"
    stack = stack_of(measured)
    if stack is not None and stack[1] < NEEDED["stack_b"]:
        yield f"stack: {stack[1]} bytes; our program needs {NEEDED['stack_b']}"
    if (payload := told.get("NP")) is not None and int(payload, 16) != NEEDED["payload_b"]:
        yield f"NP: a frame takes {int(payload, 16)} bytes, not {NEEDED['payload_b']}"
    if (mpy := measured.get("runtime", {}).get("mpy")) is not None and mpy & 0xFF != NEEDED["mpy"]:
        yield f"runtime: it loads .mpy of version {mpy & 0xFF}, not {NEEDED['mpy']}"
    again = measured.get("errors", {}).get("EAGAIN", NEEDED["eagain"])
    if again != NEEDED["eagain"]:
        yield f"errors: EAGAIN is {again}, not {NEEDED['eagain']}"
    if (period := measured.get("clock", {}).get("ticks_period", NEEDED["ticks"])) != NEEDED["ticks"]:
        yield f"clock: ticks wrap at {period}, not at 2**30"
    if "watchdog" in measured and measured["watchdog"].get("reset_cause", NEEDED["bite"]) != NEEDED["bite"]:
        yield f"watchdog: the reset's cause is {measured['watchdog']['reset_cause']}, not {NEEDED['bite']}"
    if "watchdog" in measured and "reset_cause" not in measured["watchdog"]:
        yield "watchdog: it did not reset the module"
    if told.get("VR") is not None and int(told["VR"] or "0", 16) < VR_MIN:
        yield f"VR: firmware {told['VR']} is older than {VR_MIN:X}"
    if "transmit" in measured and measured["transmit"].get("bytes_66", (0, None))[1] is not None:
        yield "transmit: 66 bytes do not go out"
    for step in ("flash", "wear"):
        if measured.get(step, {}).get("left_record") is not None:
            yield f"{step}: a power cut left a torn record: os.replace is not atomic on this module"
    count = measured.get("count", {})
    if "in_40_ms_40" in count and count["in_40_ms_40"][0] < HEARD_MIN / 4:
        yield "count: too few advertisements to say anything; let the phone advertise every 100 ms, beside the module"


def stack_of(measured: Steps) -> tuple[int, int] | None:
    """Return (bytes in use, size) of the stack, as micropython.mem_info() printed it."""
    for text in measured.get("stack", {}).get("printed", []):
        words = text.replace("stack:", "stack: ").split()
        if words[:1] == ["stack:"] and words[2:4] == ["out", "of"] and words[1].isdigit() and words[4].isdigit():
            return int(words[1]), int(words[4])
    return None
