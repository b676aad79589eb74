# Digi's Bluetooth module, the part the firmware uses (typehints/common/digi/ble.pyi; ZigBee firmware >= 1009).
from collections.abc import Iterator
from typing import TypedDict

class _Advertisement(TypedDict):
    address: bytes | None
    addr_type: int
    connectable: bool
    rssi: int
    payload: bytes | None

class _gap_scan:
    def any(self) -> bool: ...
    def stop(self) -> None: ...
    def stopped(self) -> bool: ...
    def __iter__(self) -> Iterator[_Advertisement]: ...

# Without an argument it says whether Bluetooth is on. Every sample of Digi calls active(True) before it scans.
def active(on: bool = ..., /) -> bool: ...

# interval_us and window_us 2500..40959375, window_us <= interval_us
def gap_scan(duration_ms: int = ..., /, interval_us: int = ..., window_us: int = ...) -> _gap_scan: ...

# interval_us 20000..40959375, None: stop. adv_data up to 31 bytes; b"": advertise the product name; None: as last time.
# Whether others may connect is not ours to say: legacy advertising of this module is connectable.
def gap_advertise(interval_us: int | None, /, adv_data: bytes | None = ...) -> None: ...
