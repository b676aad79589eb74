# What a reader keeps on flash: its boot count, its settings, its last crash, and unanswered bell presses (alarm.py).
#
# A record is its bytes and their CRC-32. It is written to a new file, synced, then renamed, so a power cut leaves the
# old record or the new one. The CRC refuses an incomplete one.
#
# Flash may be full, worn out or unreadable: whatever it raises, `load` gives None and `keep` gives False, and the
# heartbeat says so.
import os
import struct
from binascii import crc32

import config
import health
import wire
from micropython import const

_FLASH = const(1)  # places in wire.FAULTS
_BOOT = const(2)
_SETTINGS = const(3)

values: tuple[int, ...] = (0, 2000, 20, 5, 60, 60, getattr(config, "COMPANY_ID", 0xFFFF))  # as in wire.SETTINGS_FORMAT


def load(name: str) -> bytes | None:
    for path in (name, name + ".new"):
        try:
            with open(path, "rb") as file:
                data: bytes = file.read()
        except Exception:
            continue
        if len(data) > 4 and struct.unpack_from(">I", data, len(data) - 4)[0] == crc32(data[:-4]):
            if path != name:
                try:
                    _swap(name)  # else the next write would start by overwriting the only one
                except Exception:
                    health.fault(_FLASH)
            return data[:-4]
    return None


def _swap(name: str) -> None:
    try:
        os.replace(name + ".new", name)
    except OSError:  # a file system that does not replace: between these two, `load` reads the new one
        if name in os.listdir():
            os.remove(name)
        os.rename(name + ".new", name)


def keep(name: str, data: bytes) -> bool:
    """Write a record. Return whether flash took it; nothing is raised, and lamp and buzzer are low meanwhile."""
    health.hush()
    try:
        with open(name + ".new", "wb") as file:
            file.write(data + struct.pack(">I", crc32(data)))
        os.sync()
        with open(name + ".new", "rb") as file:
            if file.read() != data + struct.pack(">I", crc32(data)):
                raise OSError  # flash took less than it was given, or keeps something else
        _swap(name)
        os.sync()
        return True
    except Exception:
        health.fault(_FLASH)
        return False


def calm() -> None:
    """Count crashes from 0 again."""
    crash = load("crash")
    if crash and crash[0]:
        keep("crash", b"\0" + crash[1:])


def restore() -> int:
    """Load the settings from flash, count this boot there, and return its number: 1..32767, then 1 again.

    If flash refuses, the number is drawn, and marked as such: a number that was used before would make the gateway take
    this boot's frames for old ones.
    """
    try:
        data = load("settings")
        if data:
            take(data)
    except Exception:
        health.fault(_SETTINGS)
    data = load("boot")
    try:
        if data or "boot" not in os.listdir():
            boot = int.from_bytes(data, "big") % 0x7FFF + 1 if data else 1
            if keep("boot", struct.pack(">H", boot)):
                return boot
    except Exception:
        pass
    health.fault(_FLASH)
    health.fault(_BOOT)
    return wire.BOOT_DRAWN | int.from_bytes(os.urandom(2), "big")


def take(body: bytes) -> bool:
    """Use the body of a SETTINGS frame if it is newer than ours. Return whether it was. Raises WireError."""
    global values
    new = wire.decode_settings(body)
    version, window_ms, interval_ms, scan_ms, heartbeat_s, frames, _ = new
    if not (
        500 <= window_ms <= 60000 and 3 <= scan_ms <= interval_ms and 10 <= heartbeat_s <= 3600 and 6 <= frames <= 600
    ):
        raise wire.WireError("settings out of range")
    if not 0 < (version - values[0]) & 0xFFFF < 0x8000:
        return False
    values = new
    return True
