"""NEIGHBOURS report -> bursts of readers' beacons. Each burst has a proven sender, is fresh and is counted once.

The MAC proves who made a beacon. The boot and the counter prove that it is not old. A beacon that is replayed
at another place within `BEHIND` bursts looks true. This only costs accuracy, and the crosscheck is robust against it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core import frames
from gateway.core.frames import ReaderLinks, Report
from readers.advertisement import beacon_is_true

BEHIND = 4
"""Most bursts that a beacon may be behind the newest known one of its reader: 15 minutes, for slow reports."""
TOLD_MAX = 4096
"""Most pairs whose last burst is remembered. The pair reported longest ago is dropped; it could count twice."""


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst of a sender's beacon, as one receiver heard it."""

    receiver: int
    sender: int
    rssi_dbm: int | None
    """Mean level of the packets; None if the radio gave no level."""
    packets: int
    power_dbm: int
    """Nominal power at 1 m that the sender states."""


class Neighbours:
    """What readers report that they hear of each other."""

    def __init__(self, links: ReaderLinks, counts: Counter[str]) -> None:
        self._links, self._counts = links, counts
        self._newest: dict[int, tuple[int, int]] = {}
        self._reported: dict[tuple[int, int], tuple[int, int]] = {}

    def read(self, report: Report) -> Iterator[Burst]:
        """Yield the bursts of a new report that can be trusted. Count the others by the reason."""
        for sender, boot, counter, power_dbm, proof, rssi_dbm, packets in report.content:
            refused = self._refused(report.reader, sender, boot, counter, power_dbm, proof)
            self._counts[f"beacons_{refused or 'heard'}"] += 1
            if refused is None:
                yield Burst(report.reader, sender, rssi_dbm, packets, power_dbm)

    def _refused(self, receiver: int, sender: int, boot: int, counter: int, power_dbm: int, proof: bytes) -> str | None:
        link = self._links.by_number.get(sender)
        if link is None or sender == receiver:
            return "unknown"
        if not beacon_is_true(link.mac, sender, boot, counter, power_dbm, proof):
            return "forged"
        last_boot, newest = self._newest.get(sender, (boot, counter))
        if not self._is_current(sender, boot) or frames.is_newer(last_boot, boot):
            return "stale"
        if boot != last_boot:
            newest = counter
        ahead = (counter - newest) & 0xFFFF
        if BEHIND < 0x10000 - ahead <= 0x8000:
            return "stale"
        self._newest[sender] = boot, counter if ahead < 0x8000 else newest
        if self._reported.pop((receiver, sender), None) == (boot, counter):
            self._reported[receiver, sender] = boot, counter
            return "repeated"
        self._reported[receiver, sender] = boot, counter
        if len(self._reported) > TOLD_MAX:
            del self._reported[next(iter(self._reported))]
        return None

    def _is_current(self, sender: int, boot: int) -> bool:
        """Return whether a beacon's boot can be the sender's present one: that of its newest frame, or a newer kept one
        whose first frame the beacon overtook. A drawn boot is known only by the sender's own frames."""
        known = frames.boot_of(self._links, sender)
        if known is None:
            return not frames.is_drawn(boot)
        return boot == known or frames.is_newer(boot, known)
