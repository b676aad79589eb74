"""The network that is near a virtual XBee, and what the module says of it (ATAI): joined, or why not.

The codes are Digi's (90001539, "AI"). Which of them a module shows against our stick is unknown; that a network whose
channel is not in SC is not heard at all, and that one with another extended PAN id is heard and left out, follows from
the guide.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

JOINED, NO_NETWORK, NONE_FITS, SCANNING, REFUSED = 0x00, 0x21, 0x22, 0xFF, 0x27
ADMISSION = {"open": JOINED, "closed": 0x23, "stranger": 0xAD, "wrong-code": 0xAF, "no-answer": 0xAB}
"""How the network treats this module: it is open and knows it; it is closed; it does not know its install code; it has
another one for it; nobody answers."""


@dataclass(frozen=True)
class NearNetwork:
    """A ZigBee network within reach. ext_pan_id: a number, MSB first when printed; channel 11 to 26."""

    ext_pan_id: int
    admission: str = "open"
    pan_id: int = 0x1A62
    channel: int = 15
    join_s: float = 1.0
    """From a start of the module to its answer. 2 s of scanning and the exchange of keys on a real one, unverified."""

    def association(self, settings: Mapping[str, int | str], since_boot_s: float) -> int:
        """Return what ATAI answers with these settings, so long after the module was started."""
        if since_boot_s < self.join_s:
            return SCANNING
        if not int(settings["SC"]) >> (self.channel - 11) & 1:
            return NO_NETWORK
        if settings["ID"] not in (0, self.ext_pan_id) or settings["ZS"] != 2:
            return NONE_FITS
        if settings["EE"] != 1:
            return REFUSED
        return ADMISSION[self.admission]


def network_of(text: str) -> NearNetwork:
    """Return the network of EXT_PAN_ID[,ADMISSION], as `ansim-sim xbee --network` takes it. Raises ValueError."""
    ext_pan_id, _, admission = text.partition(",")
    digits = ext_pan_id.replace(":", "")
    if not re.fullmatch(r"[0-9A-Fa-f]{16}", digits) or admission not in ("", *ADMISSION):
        raise ValueError(f"{text!r}: give 16 hexadecimal digits, then perhaps a comma and {', '.join(ADMISSION)}")
    return NearNetwork(int(digits, 16), admission or "open")
