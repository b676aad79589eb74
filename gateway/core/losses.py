"""How many frames to and from each reader get lost: what a reader cannot see, and what makes it scan less.

A reader that listens for tags is deaf to the mesh. It notices when its own frames find no answer, but not when frames
to it are lost. The gateway sees both: gaps in the reader's sequence numbers, and downlinks that were not acknowledged.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.core.frames import Report

SPAN_S = 60.0
"""Losses of this last time count. A gap between two frames that are further apart is not counted: it has no date."""
LOST_MIN, LOST_PART = 3, 0.1
"""A reader suffers if at least this many of its frames were lost, and this part of them. Chances of being reported for
no reason, and times until a true loss is reported: docs/GATEWAY.md, "Frames that get lost"."""
_BUCKET_S = 10.0


@dataclass(slots=True)
class _Traffic:
    boot: int = -1
    top: int = 0
    heard_at_s: float = float("-inf")
    buckets: deque[list[float]] = field(default_factory=lambda: deque(maxlen=round(SPAN_S / _BUCKET_S)))
    """(begin, frames, lost) of each _BUCKET_S with traffic, the newest last."""


class Losses:
    """The traffic of all readers that have a key in this gateway, in the last SPAN_S."""

    def __init__(self, readers: Iterable[int], counts: Counter[str]) -> None:
        self._readers = {number: _Traffic() for number in readers}
        self._counts = counts

    def heard(self, report: Report, now_s: float) -> None:
        """Count a new frame of a reader, and as lost those that its number shows to be missing before it."""
        traffic = self._readers[report.reader]
        ahead = report.sequence - traffic.top
        dated = report.boot == traffic.boot and now_s - traffic.heard_at_s <= SPAN_S
        if not dated or ahead > 0:
            self._add(traffic, ahead if dated else 1, ahead - 1 if dated else 0, now_s)
            traffic.boot, traffic.top = report.boot, report.sequence
        else:
            self._add(traffic, 0, -1, now_s)  # it was overtaken: counted as lost when the frame after it came
        traffic.heard_at_s = now_s

    def sent(self, reader: int, delivered: bool, now_s: float) -> None:
        """Count a downlink that its reader acknowledged, or did not in spite of all tries."""
        traffic = self._readers.get(reader)
        if traffic is not None:
            self._add(traffic, 1, 0 if delivered else 1, now_s)

    def tell(self, reader: int, now_s: float) -> bool:
        """Return whether this reader is to hear that it loses frames. If so, its losses are counted again from
        here: one loss makes it scan less only once."""
        traffic = self._readers[reader]
        recent = [bucket for bucket in traffic.buckets if now_s - bucket[0] < SPAN_S]
        frames, lost = sum(bucket[1] for bucket in recent), sum(bucket[2] for bucket in recent)
        if lost < LOST_MIN or lost < LOST_PART * frames:
            return False
        traffic.buckets.clear()
        self._counts["losses_told"] += 1
        return True

    def forget(self) -> None:
        """Forget what was counted: the gateway's own radio was away, so all readers miss frames for its sake."""
        self._readers = {number: _Traffic() for number in self._readers}

    def _add(self, traffic: _Traffic, frames: float, lost: float, now_s: float) -> None:
        if not traffic.buckets or now_s - traffic.buckets[-1][0] >= _BUCKET_S:
            traffic.buckets.append([now_s, 0, 0])
        traffic.buckets[-1][1] += frames
        traffic.buckets[-1][2] += lost
