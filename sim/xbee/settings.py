"""The settings of an XBee 3 (Zigbee): what each is from the factory, and which values it takes.

Sources: Digi 90001539 (XBee 3 Zigbee user guide), "AT commands". Ranges of GT, CT, NH, IR and of the pins D0 to P4 are
unverified: no page of them could be read, and a pin may take fewer values than stand here.
"""

HEX_SETTINGS: dict[str, tuple[int, int, int]] = {
    # name: (default, lowest, highest), printed as upper-case hexadecimal without leading zeros
    "ID": (0, 0, 0xFFFF_FFFF_FFFF_FFFF),
    "SC": (0x7FFF, 1, 0xFFFF),
    "SD": (3, 0, 7),
    "ZS": (0, 0, 2),
    "CE": (0, 0, 1),
    "SM": (0, 0, 6),
    "EE": (0, 0, 1),
    "EO": (0, 0, 0xFF),
    "DC": (0, 0, 0xFFFF),
    "JV": (0, 0, 1),
    "NW": (0, 0, 0x64FF),
    "NJ": (0xFE, 0, 0xFF),
    "NH": (0x1E, 0, 0xFF),
    "AO": (0, 0, 0xFF),
    "AR": (0xFF, 0, 0xFF),
    "BT": (0, 0, 1),
    "AP": (0, 0, 4),
    "BD": (3, 0, 10),
    "PS": (0, 0, 1),
    "GT": (0x3E8, 2, 0x6D3),
    "CT": (0x64, 2, 0x1770),
    # Pins. 0 disabled, 1 what the pin is for, 2 analog, 3 digital input, 4 output low, 5 output high, 6 and 7 others.
    "D0": (1, 0, 5),
    "D1": (0, 0, 6),
    "D2": (0, 0, 5),
    "D3": (0, 0, 5),
    "D4": (0, 0, 5),
    "D5": (1, 0, 5),
    "D6": (0, 0, 5),
    "D7": (1, 0, 7),
    "D8": (1, 0, 5),
    "D9": (1, 0, 5),
    "P0": (1, 0, 5),
    "P1": (0, 0, 6),
    "P2": (0, 0, 5),
    "P3": (1, 0, 5),
    "P4": (1, 0, 5),
    "PR": (0x7FFF, 0, 0x7FFF),
    "PD": (0x7FFF, 0, 0x7FFF),
    "IC": (0, 0, 0x7FFF),
    "IR": (0, 0, 0xFFFF),
    # Access. $ is Bluetooth, * the secure session: a salt, and a verifier of 128 bytes in four parts.
    "SA": (0, 0, 0x1F),
    "$S": (0, 0, 0xFFFF_FFFF),
    "*S": (0, 0, 0xFFFF_FFFF),
    **{f"{kind}{part}": (0, 0, (1 << 256) - 1) for kind in "$*" for part in "VWXY"},
}

PUBLIC_KEY_B = 65  # FK: an uncompressed point of P-256
PUBLIC_KEY_UPPER_B = 48  # what FK1 returns; FK2 returns the rest


def public_key_command(stored: str, value: str) -> tuple[str, str]:
    """Return (what FK holds then, the answer) for `ATFK<value>`: 0 clears, 1 and 2 return a part, 65 bytes replace it.

    stored: 130 hexadecimal digits, or "0" for none. The manual does not say what a bare ATFK answers, nor what FK1 and
    FK2 answer if there is no key: both are an ERROR here.
    """
    if value == "0":
        return "0", "OK"
    if value in ("1", "2"):
        cut = 2 * PUBLIC_KEY_UPPER_B
        part = stored[:cut] if value == "1" else stored[cut:]
        return stored, "ERROR" if stored == "0" else part.lstrip("0") or "0"
    try:
        point = bytes.fromhex(value)
    except ValueError:
        return stored, "ERROR"
    if len(point) != PUBLIC_KEY_B or point[0] != 4:
        return stored, "ERROR"
    return value.upper(), "OK"
