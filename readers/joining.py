"""Whether a reader has joined its gateway's network: what the module says (ATAI), in words, with the next step.

Only this tells that a reader is ready: its files and settings may be right, and its gateway not know it yet. The codes
of AI: Digi 90001539, "AI"; digi-xbee has the same list (`AssociationIndicationStatus`). Which of them a module shows
against our stick is unknown.
"""

import time
from dataclasses import dataclass

from readers.flash import SayStep
from readers.inventory import KEYS, RECORDS
from readers.line import CommandRefused, SerialLine
from readers.provision import WantedReader, channels_text, ext_pan_id_text
from readers.terminal import progress

JOINED = 0x00
SCANNING = 0xFF
NOT_ADMITTED = (0x23, 0x24, 0x27, 0xAD, 0xAF, SCANNING)
"""What a module says whose gateway is in reach and does not know it, or that has not looked long enough."""

_CLOSED = f"has its gateway the newest {RECORDS}? It opens the network for an enrolled reader within 3 min"
_CODE = f"hand {RECORDS} to its gateway again, and restart the gateway"
_POWER = "switch its power off and on; if that does not help, flash it again with --full"
_WAIT = "wait a minute, then: ansim-reader verify"
REASONS: dict[int, tuple[str, str]] = {
    0x21: ("it hears no network on {channels}", "switch the gateway on, go nearer, compare --channels with its log"),
    0x22: ("it hears no network {which}", "compare --ext-pan-id with the gateway's log; is the gateway on, and near?"),
    0x23: ("the network is closed", _CLOSED),
    0x24: ("it hears no network that is open", _CLOSED),
    0x25: ("the module did not expect to join now", _POWER),
    0x27: ("the network refused it, usually for its keys", _CODE),
    0x2A: ("it tried to be a coordinator", _POWER),
    0x2B: ("it looks for another coordinator", _POWER),
    0x2C: ("it could not leave its old network", _POWER),
    0x40: ("it is in the network and waits for its own key", _WAIT),
    0x41: ("it has its own key and is not done yet", _WAIT),
    0x44: ("the gateway did not give it a key of its own", _CODE),
    0xAB: ("the gateway or reader that it asked did not answer", "go nearer to the gateway or to another reader"),
    0xAC: ("the network sent its key in the clear", "that is not ours: compare --ext-pan-id with the gateway's log"),
    0xAD: ("the gateway did not send it the network's key: it does not know this install code", _CODE),
    0xAF: ("the gateway has another install code for it", _CODE),
    SCANNING: ("it is still looking for its network", _WAIT),
}


@dataclass(frozen=True)
class Joining:
    """What a module says of its network. ai: as ATAI. pan_id, ext_pan_id, channel: None if it did not say."""

    ai: int
    pan_id: int | None = None
    ext_pan_id: int | None = None
    channel: int | None = None

    def is_in_network_of(self, reader: WantedReader) -> bool:
        """Return whether it has joined, and the network is the wanted one."""
        return self.ai == JOINED and (not reader.ext_pan_id or self.ext_pan_id in (None, reader.ext_pan_id))

    def network(self) -> str:
        """Return the network as the gateway's log prints it, so that the two can be compared."""
        pan_id = "?" if self.pan_id is None else f"0x{self.pan_id:04X}"
        return f"{pan_id}/{'?' if self.ext_pan_id is None else ext_pan_id_text(self.ext_pan_id)}"


def read_joining(line: SerialLine) -> Joining:
    """Ask the module, which is in command mode. Raises LineError; if it refuses ATOI, ATOP or ATCH, that is None."""
    ai = int(line.ask("AI"), 16)
    if ai != JOINED:
        return Joining(ai)
    return Joining(ai, *(_number(line, command) for command in ("OI", "OP", "CH")))


def await_join(line: SerialLine, reader: WantedReader, wait_s: float, say: SayStep) -> Joining:
    """Ask until it has joined the wanted network, for at most `wait_s` seconds. Return the last answer that says why.

    A module that finds no way in looks again and again (AI=FF), so an older reason tells more than "still looking".
    """
    began_s = time.monotonic()
    found = told = read_joining(line)
    if wait_s and not found.is_in_network_of(reader):
        say("join", f"joining ... (this is waited for {wait_s:g} s at most; --wait)")
    with progress("joining", wait_s) as show:
        while not found.is_in_network_of(reader) and (quiet_s := time.monotonic() - began_s) < wait_s:
            show(quiet_s)
            time.sleep(min(line.timing.look_s, wait_s - quiet_s))
            found = read_joining(line)
            told = told if found.ai == SCANNING else found
    return told


def ready_text(reader: WantedReader, joining: Joining) -> str:
    """Return the sentence for a reader that has joined."""
    channel = "?" if joining.channel is None else joining.channel
    return f"reader {reader.number} is ready: it has joined network {joining.network()}, channel {channel}"


def not_yet_texts(reader: WantedReader, joining: Joining, *, unknown_to_gateway: str = "") -> list[str]:
    """Return why a reader has not joined yet, each with its next step.

    unknown_to_gateway: the folder of its enrolment, if it was enrolled just now, so no gateway can have it yet.
    """
    reason, step = _why(reader, joining)
    if not unknown_to_gateway:
        return [f"reader {reader.number}: it has not joined yet because {reason}; {step}"]
    first = (
        f"reader {reader.number}: it has not joined yet because its gateway does not know it: "
        f"hand {RECORDS} and {KEYS} from {unknown_to_gateway} to the gateway"
    )
    return [first] if joining.ai in NOT_ADMITTED else [first, f"besides, {reason}; {step}"]


def _why(reader: WantedReader, joining: Joining) -> tuple[str, str]:
    if joining.ai == JOINED:
        return f"it is still in another network, {joining.network()}", _POWER
    reason, step = REASONS.get(
        joining.ai, (f"the module says AI={joining.ai:02X}, which this program does not know", _WAIT)
    )
    which = f"with the extended PAN id {ext_pan_id_text(reader.ext_pan_id)}" if reader.ext_pan_id else "that fits"
    channels = channels_text(reader.channel_mask)
    return reason.format(which=f"{which} on {channels}", channels=channels), step


def _number(line: SerialLine, command: str) -> int | None:
    try:
        return int(line.ask(command), 16)
    except (CommandRefused, ValueError):
        return None
