# What this reader has caught and lives with, and the one rule before anything that may block. And the table of tags:
# this file is loaded first, later the heap may have no piece of that size.
table = bytearray(29 * 128)  # of scan.py
faults = [0]  # bits, by place in wire.FAULTS; since boot


def hush() -> None:
    """Make lamp and buzzer low, before what may block: they would freeze as they are. alarm.py puts its own here."""


def fault(place: int) -> None:
    """Note what was caught, by its place in wire.FAULTS. The heartbeat reports it."""
    faults[0] |= 1 << place
