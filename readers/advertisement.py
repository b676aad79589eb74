"""The advertisements of tags and readers, 19 bytes each. Host side only (AES).

A tag's bytes identify it to its own gateway and to no other:

    offset size field
    0      1    version (high nibble 2), type (low nibble 0)
    1      8    rotating id: bytes 0..7 of the epoch's block
    9      1    flags. In clear: SOS 0x01, moving 0x04. Sealed: battery low 0x02, drill 0x08, clock unsure 0x10
    10     1    press counter, +1 for each press, sealed
    11     2    beacon counter, +1 for each advertisement with new content, wraps, sealed
    13     1    calibrated power at 1 m, dBm, signed, sealed          | a cry has its mark here, 2 bytes,
    14     1    battery, 20 mV steps, sealed                          | and neither power nor battery
    15     4    AES-CMAC(k_mic, epoch + bytes 0..14)[:4]

The epoch is unix time // 900 s as u32; its block is AES-CMAC(k_id, epoch), 16 bytes. The first half is the id. The
second half is the key stream that seals the rest: flags are combined by XOR, and to every number the key stream is
added, modulo its width. So within an epoch numbers rise as they do in the tag, and a reader without keys sees that a
press or a beacon is a new one. But each epoch begins with numbers that only the key tells: nothing in the bytes of one
epoch belongs to those of the next (docs/adr/0014-nobody-follows-a-tag.md).

The mark of a cry is AES-CMAC(k_mic, "cry" + epoch + press counter)[:2] (never 0). Until the tag cries nobody but its
gateway can know it. The gateway gives it to readers in advance: a reader tells a cry that has it from a stranger's.

A reader's own beacon names its sender openly, because readers are mounted in public. Readers are calibrated by these
beacons, and the MAC prevents strangers from making one. It cannot prevent the replay of a true one at another place,
which costs only accuracy:

    offset size field
    0      1    version (high nibble 2), type (low nibble 1)
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

from readers.wire import ADVERTISEMENT_SIZE, ADVERTISEMENT_VERSION, BEACON_VERSION, FLAG_MOVING, FLAG_SOS

EPOCH_S = 900
KEY_SIZE = 16
ID_SIZE = 8
MIC_SIZE = 4
BATTERY_STEP_MV = 20
FLAGS_CLEAR = FLAG_SOS | FLAG_MOVING
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
class Contents:
    """What an advertisement says to those who have the tag's keys."""

    flags: int
    press: int
    """0..255: how often the tag was pressed, wraps."""
    count: int
    """0..65535: the tag's own count of its beacons. It goes on from one epoch to the next."""
    power_dbm: int | None
    """None in a cry, as the battery: a mark is there."""
    battery_mv: int | None


@dataclass(frozen=True, slots=True)
class Advertisement:
    """One advertisement, parsed but not verified. `open` needs the keys of the tag that has this id."""

    rotating_id: bytes
    flags: int
    """Only those in clear: FLAGS_CLEAR."""
    sealed_press: int
    """The press counter as it was heard: within an epoch it rises with each press."""
    counter: int
    """The beacon counter as it was heard: within an epoch it rises with each beacon."""
    mic: bytes
    signed: bytes

    def press(self, keys: TagKeys, epoch: int) -> int:
        """Return the press counter that is claimed. It is proven only if `open` gives contents."""
        return (self.sealed_press - _KeyStream.of(keys.k_id, epoch).press) & 0xFF

    def open(self, keys: TagKeys, epoch: int) -> Contents | None:
        """Return what the tag with these keys says in that epoch; None if it did not make this advertisement then."""
        if not hmac.compare_digest(self.mic, _cmac(keys.k_mic, struct.pack(">I", epoch) + self.signed)[:MIC_SIZE]):
            return None
        stream = _KeyStream.of(keys.k_id, epoch)
        flags = self.signed[9] ^ stream.flags
        count = (self.counter - stream.count) & 0xFFFF
        press = (self.sealed_press - stream.press) & 0xFF
        if flags & FLAG_SOS:
            return Contents(flags, press, count, None, None)
        power_dbm = ((self.signed[13] - stream.power + 0x80) & 0xFF) - 0x80
        return Contents(flags, press, count, power_dbm, ((self.signed[14] - stream.battery) & 0xFF) * BATTERY_STEP_MV)


@dataclass(frozen=True, slots=True)
class _KeyStream:
    """What seals an epoch's advertisements of one tag: the second half of the epoch's block."""

    flags: int
    press: int
    count: int
    power: int
    battery: int

    @classmethod
    def of(cls, k_id: bytes, epoch: int) -> "_KeyStream":
        block = _cmac(k_id, struct.pack(">I", epoch))
        flags, press, count, power, battery = struct.unpack_from(">BBHBB", block, ID_SIZE)
        return cls(flags & ~FLAGS_CLEAR, press, count, power, battery)


def epoch_at(unix_s: float) -> int:
    """Return the epoch of a UTC time in seconds (0 .. 2**32 - 1; times before 1970 count as epoch 0)."""
    return min(max(int(unix_s // EPOCH_S), 0), 0xFFFFFFFF)


def rotating_id(k_id: bytes, epoch: int) -> bytes:
    """Return the 8-byte id of a tag in an epoch."""
    return _cmac(k_id, struct.pack(">I", epoch))[:ID_SIZE]


def mark(keys: TagKeys, epoch: int, press: int) -> int:
    """Return the mark (1..65535) that the cry of this press counter carries in this epoch."""
    return int.from_bytes(_cmac(keys.k_mic, b"cry" + struct.pack(">IB", epoch, press & 0xFF))[:2], "big") or 1


def build(
    keys: TagKeys, epoch: int, *, flags: int = 0, press: int = 0, count: int = 0, power_dbm: int = -59,
    battery_mv: int = 3000,
) -> bytes:  # fmt: skip
    """Return the 19 bytes that a tag with these keys advertises. count and press wrap; battery_mv 0..5100.

    With FLAG_SOS it is a cry: power and battery are not in it.
    """
    stream = _KeyStream.of(keys.k_id, epoch)
    if flags & FLAG_SOS:
        last = struct.pack(">H", mark(keys, epoch, press))
    else:
        battery = min(battery_mv // BATTERY_STEP_MV, 255)
        last = bytes(((power_dbm + stream.power) & 0xFF, (battery + stream.battery) & 0xFF))
    signed = struct.pack(
        ">B8sBBH2s",
        ADVERTISEMENT_VERSION,
        rotating_id(keys.k_id, epoch),
        flags ^ stream.flags,
        (press + stream.press) & 0xFF,
        (count + stream.count) & 0xFFFF,
        last,
    )
    return signed + _cmac(keys.k_mic, struct.pack(">I", epoch) + signed)[:MIC_SIZE]


def parse(body: bytes) -> Advertisement:
    """Return the fields of 19 bytes. Raises AdvertisementError if they are not a tag's, of our version and type."""
    if len(body) != ADVERTISEMENT_SIZE:
        raise AdvertisementError(f"{len(body)} bytes, an advertisement has {ADVERTISEMENT_SIZE}")
    if body[0] != ADVERTISEMENT_VERSION:
        raise AdvertisementError(f"version and type {body[0]:#04x}, this side knows {ADVERTISEMENT_VERSION:#04x}")
    _, identity, flags, press, counter = struct.unpack_from(">B8sBBH", body)
    return Advertisement(identity, flags & FLAGS_CLEAR, press, counter, body[15:], body[:15])


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
