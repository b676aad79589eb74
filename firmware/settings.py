# What a reader keeps on flash: its boot count, its settings, its last crash, and unanswered bell presses (alarm.py).
#
# A record is its bytes and their CRC-32. It is written to a new file, synced, then renamed, so a power cut leaves the
# old record or the new one. The CRC refuses an incomplete one.
import os
import struct
from binascii import crc32

import config
import wire

values: tuple[int, ...] = (0, 2000, 40, 10, 60, 60, config.COMPANY_ID)  # in the order of wire.SETTINGS_FORMAT


def load(name: str) -> bytes | None:
    for path in (name, name + ".new"):
        try:
            with open(path, "rb") as file:
                data: bytes = file.read()
        except OSError:
            continue
        if len(data) > 4 and struct.unpack_from(">I", data, len(data) - 4)[0] == crc32(data[:-4]):
            if path != name:
                try:
                    os.replace(path, name)  # else the next write would start by overwriting the only one
                except OSError:
                    pass
            return data[:-4]
    return None


def save(name: str, data: bytes) -> None:
    with open(name + ".new", "wb") as file:
        file.write(data + struct.pack(">I", crc32(data)))
    os.sync()
    os.replace(name + ".new", name)
    os.sync()


def restore() -> int:
    """Load the settings from flash, count this boot there, and return its number: 1..65535, then 1 again."""
    data = load("settings")
    if data:
        take(data)
    data = load("boot")
    boot = struct.unpack(">H", data)[0] % 0xFFFF + 1 if data else 1
    save("boot", struct.pack(">H", boot))
    return boot


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
