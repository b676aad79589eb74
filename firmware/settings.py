# What a reader keeps on flash: the count of its boots, its settings, its last crash.
#
# A record is its bytes and their CRC-32. It is written beside, synced, then swapped in, so a power cut leaves the old
# one or the new one; a torn one is refused by its CRC.
import os
import struct
from binascii import crc32

import config
import wire

WINDOW_MS = 1  # where each one stands in `values`, the order of wire.SETTINGS_FORMAT
SCAN_INTERVAL_MS = 2
SCAN_WINDOW_MS = 3
HEARTBEAT_S = 4
FRAMES_PER_MIN = 5
COMPANY_ID = 6

values = (0, 2000, 40, 10, 60, 60, config.COMPANY_ID)


def load(name: str) -> bytes | None:
    for path in (name, name + ".new"):
        try:
            with open(path, "rb") as file:
                data = file.read()
            if len(data) > 4 and struct.unpack_from(">I", data, len(data) - 4)[0] == crc32(data[:-4]):
                return data[:-4]
        except OSError:
            pass
    return None


def save(name: str, data: bytes) -> None:
    with open(name + ".new", "wb") as file:
        file.write(data + struct.pack(">I", crc32(data)))
    os.sync()
    os.replace(name + ".new", name)
    os.sync()


def restore() -> int:
    """Take the settings back from flash, count this boot there and return its number, 1..65535."""
    data = load("settings")
    if data:
        _take(data)
    data = load("boot")
    boot = struct.unpack(">H", data)[0] % 0xFFFF + 1 if data else 1
    save("boot", struct.pack(">H", boot))
    return boot


def change(body: bytes) -> bool:
    """Take the settings of a SETTINGS frame if they are newer than ours; return whether they were. Raises WireError."""
    version = wire.decode_settings(body)[0]
    if not 0 < (version - values[0]) & 0xFFFF < 0x8000:
        return False
    _take(body)
    save("settings", body)
    return True


def _take(body: bytes) -> None:
    global values
    new = wire.decode_settings(body)
    _, window_ms, interval_ms, scan_ms, heartbeat_s, frames, _ = new
    if not (
        500 <= window_ms <= 60000
        and 3 <= scan_ms <= interval_ms
        and 10 <= heartbeat_s <= 3600
        and 6 <= frames <= 600
    ):
        raise wire.WireError("settings out of range")
    values = new
