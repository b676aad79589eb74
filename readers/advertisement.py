"""The advertisements of tags and readers, 19 bytes each. Host side only (AES).

A tag's bytes identify it to its own gateway and to no other:

    offset size field
    0      1    version (high nibble 1), type (low nibble 0)
    1      8    rotating id: AES-CMAC(k_id, epoch)[:8], epoch = unix time // 900 s as u32
    9      1    flags: SOS 0x01, battery low 0x02, moving 0x04, drill 0x08, clock unsure 0x10
    10     1    press counter, +1 for each press
    11     2    beacon counter, +1 for each advertisement with new content, wraps
    13     1    calibrated power at 1 m, dBm, signed
    14     1    battery, 20 mV steps
    15     4    AES-CMAC(k_mic, epoch + bytes 0..14)[:4]

A reader's own beacon names its sender openly, because readers are mounted in public. Readers are calibrated by these
beacons, and the MAC prevents strangers from making one. It cannot prevent the replay of a true one at another place,
which costs only accuracy:

    offset size field
    0      1    version (high nibble 1), type (low nibble 1)
    1      2    number of the reader
    3      2    boot of the reader
    5      2    counter of its bursts in that boot, from 1, wraps; all packets of a burst are identical
    7      1    power at 1 m, dBm, signed, nominal
    8      7    0; other content has another MAC
    15     4    HMAC-SHA256(the reader's key, "B" + bytes 0..14)[:4]; no frame on the mesh begins with "B"

Both are sent as one manufacturer-data element of a Bluetooth LE advertisement: length, 0xFF, company id
(little-endian), body. Numbers inside the body are big-endian. The tag's model is Eddystone-EID: without the key its
bytes look random.
"""

import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from readers.wire import ADVERTISEMENT_SIZE, ADVERTISEMENT_VERSION, BEACON_VERSION

EPOCH_S = 900
KEY_SIZE = 16
ID_SIZE = 8
MIC_SIZE = 4
BATTERY_STEP_MV = 20
COMPANY_ID_TEST = 0xFFFF  # until one is assigned (Bluetooth SIG: 0xFFFF is for tests)
_AD_MANUFACTURER = 0xFF


class AdvertisementError(ValueError):
    """These bytes are not an advertisement of our format: another length, version or type."""


@dataclass(frozen=True, slots=True)
class TagKeys:
    """The two AES-128 keys of one tag; 16 bytes each."""

    k_id: bytes
    k_mic: bytes

    def __post_init__(self) -> None:
        if len(self.k_id) != KEY_SIZE or len(self.k_mic) != KEY_SIZE:
            raise ValueError(f"a tag key has {KEY_SIZE} bytes, got {len(self.k_id)} and {len(self.k_mic)}")

    def __repr__(self) -> str:
        return "TagKeys(...)"  # a key must not reach a log through a traceback


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One advertisement, parsed but not verified. Call `verify` with the keys of the tag that has this id."""

    rotating_id: bytes
    flags: int
    press: int
    counter: int
    power_dbm: int
    battery_mv: int
    mic: bytes
    signed: bytes

    def verify(self, keys: TagKeys, epoch: int) -> bool:
        """Return whether the tag with these keys made this advertisement in that epoch."""
        return hmac.compare_digest(self.mic, _cmac(keys.k_mic, struct.pack(">I", epoch) + self.signed)[:MIC_SIZE])


def epoch_at(unix_s: float) -> int:
    """Return the epoch of a UTC time in seconds (0 .. 2**32 - 1; times before 1970 count as epoch 0)."""
    return min(max(int(unix_s // EPOCH_S), 0), 0xFFFFFFFF)


def rotating_id(k_id: bytes, epoch: int) -> bytes:
    """Return the 8-byte id of a tag in an epoch."""
    return _cmac(k_id, struct.pack(">I", epoch))[:ID_SIZE]


def build(
    keys: TagKeys, epoch: int, *, flags: int = 0, press: int = 0, counter: int = 0, power_dbm: int = -59,
    battery_mv: int = 3000,
) -> bytes:  # fmt: skip
    """Return the 19 bytes that a tag with these keys advertises. counter and press wrap; battery_mv 0..5100."""
    signed = struct.pack(
        ">B8sBBHbB",
        ADVERTISEMENT_VERSION,
        rotating_id(keys.k_id, epoch),
        flags,
        press & 0xFF,
        counter & 0xFFFF,
        power_dbm,
        min(battery_mv // BATTERY_STEP_MV, 255),
    )
    return signed + _cmac(keys.k_mic, struct.pack(">I", epoch) + signed)[:MIC_SIZE]


def parse(body: bytes) -> Advertisement:
    """Return the fields of 19 bytes. Raises AdvertisementError if they are not a tag's, of our version and type."""
    if len(body) != ADVERTISEMENT_SIZE:
        raise AdvertisementError(f"{len(body)} bytes, an advertisement has {ADVERTISEMENT_SIZE}")
    if body[0] != ADVERTISEMENT_VERSION:
        raise AdvertisementError(f"version and type {body[0]:#04x}, this side knows {ADVERTISEMENT_VERSION:#04x}")
    _, identity, flags, press, counter, power_dbm, battery = struct.unpack_from(">B8sBBHbB", body)
    return Advertisement(
        identity, flags, press, counter, power_dbm, battery * BATTERY_STEP_MV, body[15:], body[:15]
    )  # fmt: skip


def build_beacon(mac: Callable[[bytes], bytes], reader: int, boot: int, counter: int, *, power_dbm: int = -30) -> bytes:
    """Return the 19 bytes of a reader's own beacon. mac: HMAC-SHA256 with its key; counter wraps."""
    signed = struct.pack(">BHHHb7x", BEACON_VERSION, reader, boot, counter & 0xFFFF, power_dbm)
    return signed + mac(b"B" + signed)[:MIC_SIZE]


def beacon_is_true(
    mac: Callable[[bytes], bytes], reader: int, boot: int, counter: int, power_dbm: int, proof: bytes
) -> bool:
    """Return whether a beacon with these fields and this MAC was made with the key behind `mac`."""
    return hmac.compare_digest(build_beacon(mac, reader, boot, counter, power_dbm=power_dbm)[-MIC_SIZE:], proof)


def payload(body: bytes, company_id: int = COMPANY_ID_TEST) -> bytes:
    """Return the Bluetooth LE advertising data that holds the body: flags element, then manufacturer data."""
    element = struct.pack("<BH", _AD_MANUFACTURER, company_id) + body
    return b"\x02\x01\x06" + bytes([len(element)]) + element


def _cmac(key: bytes, data: bytes) -> bytes:
    cmac = CMAC(AES(key))
    cmac.update(data)
    return cmac.finalize()
