"""Whether the wall clock of this box can be trusted: it labels events, and selects the epoch of rotating ids."""

import ctypes
import time
from collections.abc import Callable

from gateway.events import ClockQuality

_STA_UNSYNC = 0x0040  # linux/timex.h
_TIME_ERROR = 5
STEP_S = 2.0
"""If the wall clock jumps by more than this relative to the monotonic one, it was set from outside."""
EARLIEST_UTC_S = 1_735_689_600.0  # 2025-01-01: no box of ours was built before


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def kernel_says_synchronised() -> bool:
    """Return whether the kernel's clock is disciplined (adjtimex: NTP, PTP, GPS); False if it cannot be asked."""
    try:
        buffer = _Timex()
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(buffer))
    except (OSError, AttributeError):
        return False
    return state not in (-1, _TIME_ERROR) and not buffer.status & _STA_UNSYNC


class ClockWatch:
    """Quality of the wall clock: "unsure" until the kernel says synchronised, or a step was seen, or it is trusted.

    Once good it stays good (after EARLIEST_UTC_S): the crystal of a box drifts by seconds a day, so the error stays
    small over a day without network.
    """

    def __init__(self, *, trusted: bool, synchronised: Callable[[], bool] = kernel_says_synchronised) -> None:
        self._trusted, self._synchronised = trusted, synchronised
        self._offset_s: float | None = None
        self._good = False
        self.steps = 0

    def read(self, utc_s: float, now_s: float) -> ClockQuality:
        """Return the quality now; call it every second with the time of both clocks."""
        offset_s = utc_s - now_s
        if self._offset_s is not None and abs(offset_s - self._offset_s) > STEP_S:
            self.steps += 1
            self._good = True
        self._offset_s = offset_s
        self._good = self._good or self._trusted or self._synchronised()
        return "good" if self._good and utc_s >= EARLIEST_UTC_S else "unsure"


def utc_and_now_s() -> tuple[float, float]:
    """Return (UTC, monotonic) in seconds, read together."""
    return time.time(), time.monotonic()
