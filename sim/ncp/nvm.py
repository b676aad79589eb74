"""The non-volatile memory of an EZSP coordinator, and the JSON file that stores it.

A reset of the chip loses everything else. A new file is written in full next to the old one and then renamed, so that a
crash leaves the old or the new file. The network frame counter is saved in steps of FRAME_COUNTER_STEP. With a network,
it jumps by one step at each boot, as in the real stack, so that a counter value is never used twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from readers.files import bytes_of, table_of, text_of
from sim.ncp.ezsp import ChildData, NetworkParameters
from sim.ncp.ezsp_ids import MFG_SIZES, Mfg, NodeType, Token

FRAME_COUNTER_STEP = 4096
STATE_VERSION = 1
KEY_ENTRIES_MAX = 254
CHILDREN_MAX = 64
TOKEN_MAX = 64


class StateFileError(Exception):
    """The state file cannot be used. The coordinator does not start with it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"coordinator state {path}: {reason}; move the file away to start with a blank coordinator")
        self.path, self.reason = path, reason


@dataclass
class LinkKey:
    """One entry of the link key table."""

    eui64: bytes
    key: bytes
    outgoing_frame_counter: int = 0
    incoming_frame_counter: int = 0


@dataclass
class Nvm:
    """The non-volatile state. `network` is None on a blank coordinator. `eui64` is the chip's own, MSB first."""

    eui64: bytes
    restored_eui64: bytes = b"\xff" * 8
    network: NetworkParameters | None = None
    network_key: bytes = bytes(16)
    network_key_sequence: int = 0
    alternate_key: bytes = bytes(16)
    nwk_frame_counter: int = 0
    aps_frame_counter: int = 0
    link_key: bytes = bytes(16)
    security_bitmask: int = 0
    trust_center_eui64: bytes = bytes(8)
    link_keys: dict[int, LinkKey] = field(default_factory=dict)
    children: dict[int, ChildData] = field(default_factory=dict)
    mfg_tokens: dict[int, bytes] = field(default_factory=dict)
    tokens: dict[int, bytes] = field(default_factory=dict)
    boot_counter: int = 0

    def __post_init__(self) -> None:
        if len(self.eui64) != 8:
            raise ValueError(f"an EUI64 is 8 bytes, not {len(self.eui64)}")

    @property
    def own_eui64(self) -> bytes:
        """The EUI64 in use: from the restore token, else from the manufacturing token, else the chip's own."""
        for other in (self.restored_eui64, self.mfg_token(Mfg.CUSTOM_EUI64)[::-1]):
            if other not in (b"\xff" * 8, b""):
                return other
        return self.eui64

    def mfg_token(self, token: int) -> bytes:
        """Return a manufacturing token as stored. Unset bytes are 0xFF; an unknown token is empty."""
        return self.mfg_tokens.get(token, b"\xff" * MFG_SIZES.get(token, 0))

    def boot(self) -> None:
        """Change the memory as the stack does at each start."""
        self.boot_counter += 1
        if self.network is not None:
            self.nwk_frame_counter = min(self.nwk_frame_counter + FRAME_COUNTER_STEP, 0xFFFFFFFF)

    def forget_network(self) -> None:
        self.network = None
        self.network_key = bytes(16)
        self.link_key = bytes(16)
        self.security_bitmask = 0
        self.children.clear()

    def read_token(self, token: int, index: int) -> bytes | None:
        """Return the bytes of an NVM3 object as a chip stores them, None if there is no such object."""
        net = self.network
        if token == Token.RESTORED_EUI64:
            return self.restored_eui64[::-1]
        if token == Token.BOOT_COUNTER:
            return self.boot_counter.to_bytes(4, "little")
        if token == Token.NONCE_COUNTER:
            return self.nwk_frame_counter.to_bytes(4, "little")
        if token == Token.CHILD_TABLE:
            child = self.children.get(index)
            return None if child is None else child.eui64[::-1] + child.id.to_bytes(2, "little") + b"\x80"
        if token == Token.TRUST_CENTER:
            return self.security_bitmask.to_bytes(2, "little") + self.trust_center_eui64[::-1] + self.link_key
        if net is None:
            return None
        if token == Token.NODE_DATA:
            return (
                net.pan_id.to_bytes(2, "little")
                + net.tx_power_dbm.to_bytes(1, "little", signed=True)
                + bytes((net.channel, 2, NodeType.COORDINATOR, 0, 0))
                + net.extended_pan_id[::-1]
            )
        if token == Token.NETWORK_MANAGEMENT:
            mask_and_manager = net.channels.to_bytes(4, "little") + net.nwk_manager_id.to_bytes(2, "little")
            return mask_and_manager + bytes((net.nwk_update_id, 0))
        return None

    def write_token(self, token: int, index: int, data: bytes) -> bool:
        """Store an NVM3 object. Return False if it does not exist, is read-only, or its size is wrong.

        The emulator uses it at once; a real stack sees it at its next boot.
        """
        old = self.read_token(token, index)
        if old is None or len(old) != len(data):
            return False
        net = self.network
        if token == Token.RESTORED_EUI64:
            self.restored_eui64 = data[::-1]
        elif token == Token.TRUST_CENTER:
            self.security_bitmask = int.from_bytes(data[:2], "little")
            self.trust_center_eui64, self.link_key = data[2:10][::-1], data[10:]
        elif token == Token.NONCE_COUNTER:
            self.nwk_frame_counter = int.from_bytes(data, "little")
        elif token == Token.CHILD_TABLE:
            child = replace(self.children[index], eui64=data[:8][::-1], id=int.from_bytes(data[8:10], "little"))
            self.children[index] = child
        elif token == Token.NODE_DATA and net is not None:
            self.network = replace(
                net,
                pan_id=int.from_bytes(data[:2], "little"),
                tx_power_dbm=int.from_bytes(data[2:3], "little", signed=True),
                channel=data[3],
                extended_pan_id=data[8:][::-1],
            )
        elif token == Token.NETWORK_MANAGEMENT and net is not None:
            channels, manager = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:6], "little")
            self.network = replace(net, channels=channels, nwk_manager_id=manager, nwk_update_id=data[6])
        else:
            return False
        return True

    def to_json(self) -> str:
        return json.dumps({"version": STATE_VERSION} | _jsonable(asdict(self)), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Nvm:
        """Read what `to_json` wrote. Raise ValueError, KeyError, TypeError or AttributeError on anything else."""
        raw = table_of(text.encode())
        if raw.pop("version", None) != STATE_VERSION:
            raise ValueError(f"not version {STATE_VERSION} of the coordinator's state")
        for name in (
            "eui64", "restored_eui64", "network_key", "alternate_key", "link_key", "trust_center_eui64",
        ):  # fmt: skip
            raw[name] = bytes.fromhex(raw[name])
        for name in ("mfg_tokens", "tokens"):
            raw[name] = {int(k): bytes.fromhex(v) for k, v in raw[name].items()}
        raw["link_keys"] = {
            int(k): LinkKey(**v | {"eui64": bytes.fromhex(v["eui64"]), "key": bytes.fromhex(v["key"])})
            for k, v in raw["link_keys"].items()
        }
        raw["children"] = {
            int(k): ChildData(**v | {"eui64": bytes.fromhex(v["eui64"])}) for k, v in raw["children"].items()
        }
        if (net := raw["network"]) is not None:
            raw["network"] = NetworkParameters(**net | {"extended_pan_id": bytes.fromhex(net["extended_pan_id"])})
        return cls(**raw)


def load(path: Path, *, eui64: bytes) -> Nvm:
    """Read a state file, or return blank memory with that EUI64 if there is none. Raise StateFileError if damaged."""
    try:
        return Nvm.from_json(text_of(bytes_of(path)))
    except FileNotFoundError:
        return Nvm(eui64)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateFileError(path, str(error)[:200]) from error


def save(path: Path, nvm: Nvm) -> None:
    """Write the whole state file. Raise OSError if that fails; the old file then stays as it was."""
    neighbour = path.with_name(path.name + ".new")
    fd = os.open(neighbour, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(nvm.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(neighbour, path)


def _jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    return value
