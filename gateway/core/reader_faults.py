"""The faults that a reader lives with and reports in its heartbeats, in words for who looks after it."""

WORDS = {
    "pins": (
        "has a pin in its config.py that its module refuses, so what is wired to that pin does nothing",
        "press its bell today to see whether it rings, then provision it with the right pins",
    ),
    "flash": (
        "cannot read or write a file on its flash, so a press that nobody answered is lost if its power fails",
        "replace the module soon. Its bell works",
    ),
    "boot": (
        "draws its boot numbers: its flash keeps none, or for an hour nobody answered the number it had",
        "replace the module soon if this comes back after a restart. Its bell works",
    ),
    "settings": (
        "cannot use the settings on its flash, and gets them by radio after each start",
        "provision it again at the next visit. Its bell works",
    ),
    "scan": (
        "hears no tag, and no tag's SOS: its Bluetooth scanner does not start, or broke",
        "switch its power off and on, and replace the module if this comes back. Its bell works",
    ),
    "advertisement": (
        "met a Bluetooth message that is an error to its program, and went on",
        "update its firmware. Its bell works, and it hears other tags",
    ),
    "beacon": (
        "cannot send its own beacon, so the other readers cannot check where it is",
        "switch its power off and on at the next visit. Its bell works, and it hears tags",
    ),
    "measure": (
        "could not measure a value of its heartbeat, which says 0 instead",
        "do not trust its voltage and temperature; nothing else is needed",
    ),
    "send": (
        "has a module that refused to send a frame, though the mesh was not the reason",
        "look whether its heartbeats come, and replace the module if they do not",
    ),
    "report": (
        "met an error in its report of tags, so tags near it may be missing",
        "update its firmware. Its bell works",
    ),
    "interrupt": (
        "was interrupted by bytes on its serial line, and went on",
        "see that nothing is connected to its pin DIN",
    ),
    "crash": (
        "crashed, and started again",
        "if this comes back, read the crash on its flash with a laptop, and update its firmware",
    ),
    "watchdog": (
        "has no watchdog, so nothing starts it again if its program hangs",
        "update the module's own firmware, or replace the module. Its bell works",
    ),
    "memory": (
        "ran out of memory for a moment, and went on",
        "tell the developers its module's firmware version if this comes back. Its bell works",
    ),
}
"""Name in wire.FAULTS -> what is wrong (goes on from "reader 7 .."), and the next step."""
UNKNOWN = ("reports a fault that this gateway does not know", "update the gateway")
