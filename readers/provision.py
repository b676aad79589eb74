"""The wanted state of a reader, as AT settings and as its config.py. Pure functions.

Sources: Digi 90001539 (XBee 3 Zigbee user guide), "AT commands" and "Secure networking"; the reason for each value
is next to it below. Hexadecimal text is as the module prints it: upper case, no leading zeros.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

READER_MAX = 65_534  # 0 and 0xFFFF stay free on the wire
NAME_MAX = 40
KEY_SIZE = 16
PIN = re.compile(r"[DP][0-9]")
VR_MIN = 0x1014  # MicroPython 1.20 and .mpy v6; older modules cannot load what we compile
ZIGBEE_VR = range(0x1000, 0x2000)
XBEE3_HV = {0x41: "XBee 3 Micro/SMT", 0x42: "XBee 3 TH", 0x43: "XBee 3"}  # high byte of HV
CHANNELS_ALL = 0xFFFF  # bit 0 is channel 11
CHANNELS_USUAL = 0x7FFF  # without channel 26, where the module may send 8 dBm only (90001539, "SC")
BAUD_115200 = 7
COMPANY_ID_NONE = 0xFFFF  # Bluetooth SIG: "no company"; what tags carry until one is assigned

JOIN_TEXTS = {0x00: "joined", 0x21: "no network found", 0x22: "no network that fits", 0x23: "joining is closed"}


class ReaderRefused(Exception):
    """This module cannot become a reader as it is. Permanent until a person follows the next step in the text."""


class WrongHardware(ReaderRefused):
    """Not an XBee 3: our firmware would not run, and a wrong firmware file can make it unusable."""

    def __init__(self, hv: int) -> None:
        super().__init__(f"hardware version {hv:04X} is not an XBee 3 (41xx, 42xx, 43xx); take an XBee 3 module")
        self.hv = hv


class WrongFirmware(ReaderRefused):
    """The module's own firmware is of another protocol or too old."""

    def __init__(self, vr: int, why: str) -> None:
        super().__init__(
            f"module firmware {vr:04X} {why}; load 'XBee 3 Zigbee' {VR_MIN:X} or newer "
            "with Digi XCTU, then run this again"
        )
        self.vr = vr


class BadInstallCode(ReaderRefused):
    """The checksum of the install code is wrong. The gateway could never admit this reader."""


@dataclass(frozen=True)
class Module:
    """What a module reports of itself. `settings` holds AT settings as printed; `ai` is its association status."""

    hv: int
    vr: int
    eui64: bytes
    install_code: bytes
    ai: int
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WantedReader:
    """The wanted state. Raises ValueError for values that no reader can have.

    number: 1..65534, unique in its gateway's zone. ext_pan_id: the gateway's network, 0: any that admits it.
    channel_mask: bit 0 is channel 11. company_id: of the tags' advertisements. Pins as MicroPython names them ("D4").
    bells may be empty; lamp and buzzer are always driven.
    """

    number: int
    name: str = ""
    ext_pan_id: int = 0
    channel_mask: int = CHANNELS_USUAL
    company_id: int = COMPANY_ID_NONE
    bells: tuple[str, ...] = ("D4",)
    lamp: str = "D2"
    buzzer: str = "D3"

    def __post_init__(self) -> None:
        if not 1 <= self.number <= READER_MAX:
            raise ValueError(f"reader number {self.number}: give one from 1 to {READER_MAX}")
        if len(self.name) > NAME_MAX or not self.name.isprintable():
            raise ValueError(f"reader name {self.name!r}: at most {NAME_MAX} printable characters")
        if not 0 <= self.ext_pan_id < 1 << 64:
            raise ValueError(f"extended PAN id {self.ext_pan_id:X}: at most 16 hexadecimal digits")
        if not 1 <= self.channel_mask <= CHANNELS_ALL:
            raise ValueError(f"channel mask {self.channel_mask:X}: from 1 to FFFF, bit 0 is channel 11")
        if not 0 <= self.company_id <= 0xFFFF:
            raise ValueError(f"company id {self.company_id:X}: at most 4 hexadecimal digits")
        pins = (*self.bells, self.lamp, self.buzzer)
        for pin in pins:
            if not PIN.fullmatch(pin):
                raise ValueError(f"pin {pin!r}: give one like D4 or P0")
        if len(set(pins)) != len(pins):
            raise ValueError(
                f"bells {', '.join(self.bells)}, lamp {self.lamp}, buzzer {self.buzzer}: one pin, two uses"
            )


@dataclass(frozen=True)
class Setting:
    """One AT setting to write: `AT<name> <value>`."""

    name: str
    value: str


def refuse(module: Module) -> None:
    """Raise ReaderRefused if this module cannot become a reader: its hardware, its firmware, its install code."""
    if module.hv >> 8 not in XBEE3_HV:
        raise WrongHardware(module.hv)
    if module.vr not in ZIGBEE_VR:
        raise WrongFirmware(module.vr, "is not the Zigbee firmware (1xxx)")
    if module.vr < VR_MIN:
        raise WrongFirmware(module.vr, f"is older than {VR_MIN:X} (it has MicroPython 1.12)")
    if not install_code_valid(module.install_code):
        raise BadInstallCode(
            f"the install code ({len(module.install_code)} bytes) has a wrong checksum; "
            "run this again, and if it stays so take another module"
        )


def wanted_settings(reader: WantedReader) -> list[Setting]:
    """Return every setting of a reader in the order to write them. PS is last: no half-set reader starts."""
    return [
        Setting("CE", "0"),  # a router, never a coordinator
        Setting("SM", "0"),  # never asleep
        Setting("ID", f"{reader.ext_pan_id:X}"),
        Setting("SC", f"{reader.channel_mask:X}"),
        Setting("ZS", "2"),  # ZigBee PRO stack profile
        Setting("EE", "1"),  # network encryption
        Setting("EO", "2"),  # with a trust centre; EE and EO must match the coordinator's
        Setting("DC", "21"),  # 0x01 join by install code | 0x20 rejoin a lost network, never leave it
        Setting("JV", "0"),
        Setting("NW", "A"),  # 3 x 10 min without the coordinator, then rejoin (with DC bit 5: without end)
        Setting("NJ", "0"),  # a reader never opens the network; the gateway does, attended by a person
        Setting("AO", "0"),  # frames reach MicroPython as plain data; the module answers ZDO itself
        Setting("AR", "FF"),  # it announces no many-to-one route of its own
        Setting("BT", "1"),  # Bluetooth on: it scans for tags
        Setting("NI", f"ansim-{reader.number}"),
        Setting("AP", "4"),  # MicroPython
        Setting("BD", f"{BAUD_115200:X}"),
        Setting("PS", "1"),  # main.py starts at power-up
    ]


def plan(reader: WantedReader, settings: Mapping[str, str]) -> list[Setting]:
    """Return the settings that differ from the module's, in order. A name that `settings` lacks counts as different."""
    return [wish for wish in wanted_settings(reader) if not same(wish, settings.get(wish.name))]


def same(wish: Setting, found: str | None) -> bool:
    """Return whether the printed value means the wanted one. Numbers are compared as numbers, text as text."""
    if found is None:
        return False
    if wish.name == "NI":
        return found.strip() == wish.value
    try:
        return int(found, 16) == int(wish.value, 16)
    except ValueError:
        return False


def leaves_network(changes: list[Setting]) -> bool:
    """Return whether writing these makes a joined reader leave its network and join again (90001539, ID SC ZS EE)."""
    return any(change.name in ("ID", "SC", "ZS", "EE") for change in changes)


def render_config(reader: WantedReader, key: bytes) -> bytes:
    """Return the reader's config.py. It holds the reader's key: a secret, mode 0600 on any disk, never in a log."""
    if len(key) != KEY_SIZE:
        raise ValueError(f"a reader key has {KEY_SIZE} bytes, not {len(key)}")
    escaped = "".join(f"\\x{byte:02x}" for byte in key)
    bells = " ".join(f'"{pin}",' for pin in reader.bells)
    lines = [
        "# Written by ansim-reader. It holds this reader's key: do not copy it.",
        f"READER = {reader.number}",
        f'KEY = b"{escaped}"',
        f"COMPANY_ID = 0x{reader.company_id:04X}",
        f"BELLS = ({bells})",
        f'LAMP = "{reader.lamp}"',
        f'BUZZER = "{reader.buzzer}"',
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def install_code_valid(code: bytes) -> bool:
    """Return True for 16 bytes and their CRC-16/X-25, LSB first (ZigBee Base Device Behavior 3.0, section 10.1)."""
    if len(code) != 18:
        return False
    crc = 0xFFFF
    for byte in code[:16]:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
    return (crc ^ 0xFFFF) == int.from_bytes(code[16:], "little")


def join_text(ai: int) -> str:
    """Return what an association status means to a technician."""
    return JOIN_TEXTS.get(ai, f"not joined yet (AI={ai:02X})")
