"""The wanted state of a reader, as AT settings and as its config.py. Pure functions.

Source, where a comment says "p." or "page": Digi 90001539 (XBee 3 Zigbee user guide). The reason for each value is next
to it below. Hexadecimal text is as the module prints it: upper case, no leading zeros.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from readers.files import printable

READER_MAX = 65_534  # 0 and 0xFFFF stay free on the wire
NAME_MAX = 40
KEY_SIZE = 16
PUBLIC_KEY_SIZE = 65  # an uncompressed point of P-256
VR_MIN = 0x1014  # MicroPython 1.20 and .mpy v6; older modules cannot load what we compile
ZIGBEE_VR = range(0x1000, 0x2000)
XBEE3_HV = {0x41: "XBee 3 Micro/SMT", 0x42: "XBee 3 TH", 0x43: "XBee 3"}  # high byte of HV
CHANNELS_ALL = 0xFFFF  # bit 0 is channel 11
CHANNELS_USUAL = 0x7FFF  # without channel 26, where the module may send 8 dBm only (90001539, "SC")
BAUD_115200 = 7
COMPANY_ID_NONE = 0xFFFF  # Bluetooth SIG: "no company"; what tags carry until one is assigned

PINS = ("D1", "D2", "D3", "D4", "D10", "D11", "D12", "P0", "P1", "P2")
"""Pins for bells, lamp and buzzer, by their MicroPython names (machine.Pin.board of Digi's type hints)."""

PIN_SETTINGS = {"D10": "P0", "D11": "P1", "D12": "P2"}
"""The AT setting of a pin whose setting has another name. DIO10 is pin 6 of a through-hole module and so is P0; that
MicroPython's D10 and P0 are this one pin is inferred from that, and unverified."""

PINS_REFUSED = {
    "D0": "is the commissioning button: two presses open the network to strangers, four restore the factory settings",
    "D5": "is the association light: the module itself makes it blink",
    "D6": "is RTS of the serial line: its level can stop the line, and hold the module in its bootloader",
    "D7": "is CTS of the serial line: the module itself drives it",
    "D8": "is the sleep and bootloader line: its level can send the module to sleep or hold it in its bootloader",
    "D9": "is the ON light: the module itself drives it",
    "P3": "is DOUT, the serial line: no reader could be flashed through it again",
    "P4": "is DIN, the serial line: no reader could be flashed through it again",
    **{f"P{n}": "is of the SPI port, and no pin of MicroPython: the program would stop there" for n in range(5, 10)},
}

JOIN_TEXTS = {0x00: "joined", 0x21: "no network found", 0x22: "no network that fits", 0x23: "joining is closed"}

WHERE_EXT_PAN_ID = (
    'the gateway\'s log has it behind the / of its line "network 0x1A62/a7:74:..." '
    "(journalctl -u ansim-gateway | grep network)"
)


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


class CommandUnknown(ReaderRefused):
    """The module refuses a command that a reader needs, or answers it in a way that this program does not know."""

    def __init__(self, vr: int, command: str, answer: str = "ERROR") -> None:
        super().__init__(
            f"module firmware {vr:04X} answers {answer!r} to AT{command}, which a reader needs; load the newest "
            "'XBee 3 Zigbee' with Digi XCTU, then run this again; if it is the newest, report this line"
        )
        self.vr, self.command = vr, command


class BadPin(ValueError):
    """A pin that a bell, lamp or buzzer cannot have. The text says why, and which pins exist."""

    def __init__(self, use: str, pin: str) -> None:
        why = PINS_REFUSED.get(pin, "is no pin of an XBee 3")
        super().__init__(f"{use} pin {pin!r} {why}; give --{use} one of {', '.join(PINS)}")
        self.use, self.pin = use, pin


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
    channel_mask: bit 0 is channel 11. company_id: of the tags' advertisements. Pins as MicroPython names them ("D4"),
    see PINS. bells may be empty; lamp and buzzer are always driven. update_key: the public key that file system updates
    over the air are signed with, an uncompressed point of P-256; empty: the reader takes no such update.
    """

    number: int
    name: str = ""
    ext_pan_id: int = 0
    channel_mask: int = CHANNELS_USUAL
    company_id: int = COMPANY_ID_NONE
    bells: tuple[str, ...] = ("D4",)
    lamp: str = "D2"
    buzzer: str = "D3"
    update_key: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= READER_MAX:
            raise ValueError(f"reader number {self.number}: give one from 1 to {READER_MAX}")
        if len(self.name) > NAME_MAX:
            raise ValueError(f"reader name of {len(self.name)} characters: at most {NAME_MAX}")
        if not self.name.isprintable():
            raise ValueError(f"reader name {printable(self.name, NAME_MAX)!r}: no tab, line end or control character")
        if not 0 <= self.ext_pan_id < 1 << 64:
            raise ValueError(f"extended PAN id {self.ext_pan_id:X}: at most 16 hexadecimal digits")
        if not 1 <= self.channel_mask <= CHANNELS_ALL:
            raise ValueError(f"channel mask {self.channel_mask:X}: from 1 to FFFF, bit 0 is channel 11")
        if not 0 <= self.company_id <= 0xFFFF:
            raise ValueError(f"company id {self.company_id:X}: at most 4 hexadecimal digits")
        if self.update_key and (len(self.update_key) != PUBLIC_KEY_SIZE or self.update_key[0] != 4):
            raise ValueError(f"update key: {PUBLIC_KEY_SIZE} bytes that begin with 04, not {len(self.update_key)}")
        uses = self.uses()
        for use, pin in uses:
            if pin not in PINS:
                raise BadPin(use, pin)
        taken: dict[str, str] = {}
        for use, pin in uses:
            setting = pin_setting(pin)
            if setting in taken:
                raise ValueError(
                    f"pin {pin} is for {taken[setting]} and for {use}: one pin, two uses"
                    " (D10 is P0, D11 is P1, D12 is P2)"
                )
            taken[setting] = use

    def uses(self) -> list[tuple[str, str]]:
        """Return what each pin is for: ("bell", "D4"), ..., ("lamp", "D2"), ("buzzer", "D3")."""
        return [*(("bell", pin) for pin in self.bells), ("lamp", self.lamp), ("buzzer", self.buzzer)]


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
        # 0x01 join by install code | 0x20 rejoin a lost network, never leave it (page r_cmd_dc)
        Setting("DC", "21"),
        Setting("JV", "0"),
        Setting("NW", "A"),  # 3 x 10 min without the coordinator, then rejoin (with DC bit 5: without end)
        Setting("NJ", "0"),  # a reader never opens the network; the gateway does, attended by a person
        # A send blocks for at most 3 x (50 x NH + 100) ms (p. 119): 1.8 s instead of 4.8 s with the factory's 1E. While
        # it blocks no bell is looked at. Ten hops are enough for a street.
        Setting("NH", "A"),
        Setting("AO", "0"),  # frames reach MicroPython as plain data; the module answers ZDO itself
        Setting("AR", "FF"),  # it announces no many-to-one route of its own
        *_pins(reader),
        *_access(reader),
        Setting("BT", "1"),  # Bluetooth on: it scans for tags
        Setting("NI", f"ansim-{reader.number}"),
        Setting("AP", "4"),  # MicroPython
        Setting("BD", f"{BAUD_115200:X}"),
        Setting("PS", "1"),  # main.py starts at power-up
    ]


def _pins(reader: WantedReader) -> list[Setting]:
    """What the pins do while the program does not run: at boot, in the REPL, after a crash. Values: "I/O support"."""
    levels = {"bell": "3", "lamp": "4", "buzzer": "4"}
    return [
        # The commissioning button is on from the factory. Two presses open the network for a minute even with NJ=0
        # (p. 179), four restore the factory settings (documented for a sister module): anybody at the pole could.
        Setting("D0", "0"),
        # 3 digital input. 4 output low: a lamp that floats or glows before the program runs says what is not so, and P0
        # shows the signal strength from the factory.
        *(Setting(pin_setting(pin), levels[use]) for use, pin in reader.uses()),
        # No I/O samples: now that there are digital inputs, a used module could send a frame at each press (IC) or
        # every few milliseconds (IR).
        Setting("IC", "0"),
        Setting("IR", "0"),
    ]


def _access(reader: WantedReader) -> list[Setting]:
    """Who may change a reader from afar: nobody by remote AT or Bluetooth, and by file updates who holds the key."""
    return [
        # The password of the secure session. SA does nothing before one is set (p. 188). These values were drawn by a
        # hash, so no password belongs to them: the gateway's stick cannot open such a session, and nobody else shall.
        # The verifier stays below the prime of its group (RFC 5054, 1024 bits), which begins with EE.
        Setting("*S", _drawn("salt")[:8]),
        Setting("*V", f"7{_drawn('verifier V')[1:]}"),
        *(Setting(f"*{part}", _drawn(f"verifier {part}")) for part in "WXY"),
        # Remote AT commands in a secure session only: otherwise who has the network key can send PS0 or BT0 (p. 188).
        Setting("SA", "2"),
        # No Bluetooth password, which locks the login (page r_cmd__s): a used module may carry somebody's.
        Setting("$S", "0"),
        # It cannot be set from afar (page r_cmd_fk): a reader without it can only be updated at its pole.
        Setting("FK", reader.update_key.hex().upper() or "0"),
    ]


def _drawn(what: str) -> str:
    """Return 64 hexadecimal digits that nobody chose, the same for every reader and every run."""
    return sha256(f"ansim: no password, {what}".encode()).hexdigest().upper()


def pin_setting(pin: str) -> str:
    """Return the name of the AT setting of a pin."""
    return PIN_SETTINGS.get(pin, pin)


def public_key_text(upper: str, lower: str) -> str:
    """Return the file system key as one hexadecimal number, from its answers to FK1 (48 bytes) and FK2 (17 bytes).

    "0" if either is no number: a module without a key may answer ERROR (unverified).
    """
    try:
        return f"{int(upper, 16) << 136 | int(lower, 16):X}"
    except ValueError:
        return "0"


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
    """Return what an association status means to a technician, in two or three words."""
    return JOIN_TEXTS.get(ai, f"not joined yet (AI={ai:02X})")


def ext_pan_id_of(text: str) -> int:
    """Return the extended PAN id of a text: 16 hexadecimal digits, or 8 bytes with colons, as the gateway's log has it.

    Both are MSB first, and so is ATID. Exactly "0" means any network that admits the reader. Raises ValueError for all
    else: with a digit too few the reader would look for a network that is not there, for ever.
    """
    text = text.strip()
    if text == "0":
        return 0
    digits = text.replace(":", "")
    seen = f"extended PAN id {printable(text, 60)!r}"
    if wrong := re.search(r"[^0-9A-Fa-f]", digits):
        raise ValueError(f"{seen} has {printable(wrong[0], 1)!r}, which is no hexadecimal digit; {WHERE_EXT_PAN_ID}")
    if len(digits) != 16:
        raise ValueError(f"{seen} has {len(digits)} hexadecimal digits, not 16; {WHERE_EXT_PAN_ID}")
    if ":" in text and not re.fullmatch(r"[^:]{2}(:[^:]{2}){7}", text):
        raise ValueError(f"{seen} has colons elsewhere than between its 8 bytes (a7:74:...); {WHERE_EXT_PAN_ID}")
    if int(digits, 16) in (0, (1 << 64) - 1):
        raise ValueError(f"{seen} belongs to no network; {WHERE_EXT_PAN_ID}, or give 0: any network that admits it")
    return int(digits, 16)


def ext_pan_id_text(value: int) -> str:
    """Return an extended PAN id as the gateway's log prints it: 8 bytes with colons, MSB first."""
    return value.to_bytes(8, "big").hex(":")


def channel_mask_of(text: str) -> int:
    """Return a channel mask of hexadecimal text, bit 0 is channel 11. Raises ValueError."""
    mask = _hex_of("channel mask", text)
    if mask == 0:
        raise ValueError("channel mask 0 is no channel; leave --channels out (7FFF), or bit 0 is channel 11")
    if mask > CHANNELS_ALL:
        fits = not mask & 0x7FF and mask >> 11 <= CHANNELS_ALL
        hint = f"; if bit 11 is channel 11 in it, as in ZigBee, give {mask >> 11:X}" if fits else ""
        raise ValueError(
            f"channel mask {mask:X} is above {CHANNELS_ALL:X}: bit 0 is channel 11, bit 15 channel 26{hint}"
        )
    return mask


def channels_text(mask: int) -> str:
    """Return a channel mask as a person says it: "channels 11 to 25"."""
    channels = [bit + 11 for bit in range(16) if mask >> bit & 1]
    if len(channels) == 1:
        return f"channel {channels[0]}"
    if channels and channels[-1] - channels[0] == len(channels) - 1:
        return f"channels {channels[0]} to {channels[-1]}"
    return f"channels {', '.join(map(str, channels))}"


def company_id_of(text: str) -> int:
    """Return a Bluetooth company id of up to four hexadecimal digits. Raises ValueError."""
    value = _hex_of("company id", text)
    if value > 0xFFFF:
        raise ValueError(f"company id {value:X} has {len(f'{value:X}')} hexadecimal digits: at most 4")
    return value


def _hex_of(what: str, text: str) -> int:
    if not re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,16}", text.strip()):
        raise ValueError(f"{what} {printable(text, 40)!r} is not hexadecimal (0 to 9, A to F)")
    return int(text, 16)
