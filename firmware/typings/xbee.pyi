# Digi's module, the part the firmware uses (digidotcom/xbee-micropython, typehints/common/xbee; firmware >= 1007).
# Parameters are positional where Digi's are; what is not here is not used, and the stand-in does not have it.
from typing import TypedDict

class _Message(TypedDict):
    sender_nwk: int
    sender_eui64: bytes
    source_ep: int
    dest_ep: int
    cluster: int
    profile: int
    broadcast: bool
    payload: bytes

ADDR_COORDINATOR: bytes
ENDPOINT_DIGI_DATA: int
CLUSTER_DIGI_SERIAL_DATA: int
PROFILE_DIGI_XBEE: int

def atcmd(cmd: str, /) -> int | bytes | str | None: ...
def receive() -> _Message | None: ...
def transmit(
    dest: bytes,
    payload: bytes,
    /,
    *,
    source_ep: int = ...,
    dest_ep: int = ...,
    cluster: int = ...,
    profile: int = ...,
) -> None: ...
