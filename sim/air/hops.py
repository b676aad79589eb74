"""One hop of the mesh: the MAC's tries, the Bluetooth scan windows that they meet, and which readers relay.

A reader has one radio. While it listens to Bluetooth it hears no ZigBee frame, and what it sends then is broken off.
The scan windows are those of the scanners that the readers' firmware has started. No random number of another reader
has a part in the fate of a frame; the other readers' windows have.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sim import chance
from sim.street.paths import Spot

HOP_M = 90.0
"""How far a hop reaches. Assumed. A pole further than this from every other has a link that is as long as needed."""
HEAL_S = 5.0
"""From the first frame that a dead relay lost until its neighbours have another route. Assumed."""
STEP_MS = 1.0
"""How often a frame looks for a scan window. The shortest is 2.5 ms (Digi's minimum), so none is overlooked."""
COORDINATOR = -1


class Scanner(Protocol):
    """A node of the mesh that may listen to Bluetooth. `sim.reader.process.ReaderProcess` is one."""

    def scanning(self, now_ms: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Mac:
    """How a frame is sent over one hop. The defaults: 66 bytes in 2.2 ms, four tries in 10 ms.

    This is what the review of the module inferred, not what a module was seen to do. `BY_THE_STANDARD` is reckoned from
    IEEE 802.15.4. Both lose about the same at 5 ms in 20; `make bench BENCH=duty` has the rest.
    """

    tries: int = 4
    """macMaxFrameRetries is 3 (IEEE 802.15.4-2006)."""
    header_b: int = 3
    """On the air with the payload."""
    byte_ms: float = 0.032
    """250 kbit/s."""
    spacing_ms: float = 2.6
    """From the start of a try to that of the next, at least. Inferred: four in 10 ms."""
    gap_ms: float = 0.4
    """From the end of a try to the start of the next, at least."""
    backoff_ms: float = 0.0
    """Random time on top, up to this."""
    own_windows: bool = True
    """Whether a try is lost in a scan window of its sender too. Assumed, the worse of two: the review says that
    Bluetooth goes first. As Silicon Labs ships its stacks, ZigBee sends with priority 100, Bluetooth scans with 191 to
    143, ZigBee receives with 255, and the lower number goes first (docs.silabs.com, "Implementing Multiprotocol with
    Bluetooth"; gecko_sdk, lower-mac-rail-802.15.4). What Digi has set is not published."""

    def air_ms(self, payload_b: int) -> float:
        return (self.header_b + payload_b) * self.byte_ms


BY_THE_STANDARD = Mac(header_b=51, spacing_ms=0.0, gap_ms=0.864 + 0.32, backoff_ms=2.24)
"""66 bytes in 3.7 ms, four tries in 19 to 25 ms. Headers: PHY 6, MAC 11, network 8, its security 18, APS 8. After a try
the sender waits for the acknowledgement (macAckWaitDuration, 54 symbols), looks whether the channel is free (8 symbols)
and turns its radio (12), and before that waits 0 to 2**macMinBE - 1 periods of 20 symbols. A symbol is 16 us."""


@dataclass(frozen=True, slots=True)
class HopResult:
    """What became of one hop: when it ended, and how many tries met a window of the sender's own, or the receiver's."""

    ok: bool
    end_ms: float
    own: int
    theirs: int


def cross(
    mac: Mac,
    sender: Scanner | None,
    receiver: Scanner | None,
    now_ms: float,
    payload_b: int,
    undisturbed_ms: float,
    *keys: int | str,
) -> HopResult:
    """Send one frame over one hop. None is a node that never scans. keys: of the random waits between tries.

    undisturbed_ms: from now until the frame is there when no window is in the way.
    """
    air_ms = mac.air_ms(payload_b)
    start_ms = now_ms + max(undisturbed_ms - air_ms, 0.0)
    own = theirs = 0
    for left in reversed(range(mac.tries)):
        mine = mac.own_windows and _scans(sender, start_ms, start_ms + air_ms)
        if not mine and not _scans(receiver, start_ms, start_ms + air_ms):
            return HopResult(True, start_ms + air_ms, own, theirs)
        own += mine
        theirs += not mine
        if left:
            start_ms += max(mac.spacing_ms, air_ms + mac.gap_ms)
            start_ms += mac.backoff_ms * chance.one(*keys, left) if mac.backoff_ms else 0.0
    return HopResult(False, start_ms + air_ms, own, theirs)


def _scans(node: Scanner | None, start_ms: float, end_ms: float) -> bool:
    """Return whether the node scans at any moment of this time, looked at each STEP_MS and at the end."""
    if node is None:
        return False
    at_ms = start_ms
    while at_ms < end_ms:
        if node.scanning(at_ms):
            return True
        at_ms += STEP_MS
    return node.scanning(end_ms)


class Relays:
    """The way of each reader's frames to the coordinator, over other readers, and back.

    A way is the numbers of the relays, the reader's neighbour first. It stays until it is found broken.
    """

    def __init__(self) -> None:
        self._at: dict[int, Spot] = {}
        self._reach_m: float | None = None
        self._known: dict[int, tuple[int, ...] | None] = {}
        self._broken_s: dict[int, float] = {}

    def add(self, number: int, at: Spot, centre: Spot) -> None:
        """Add a reader. centre: where the coordinator is."""
        self._at[number] = (at[0] - centre[0], at[1] - centre[1])
        self._reach_m = None

    def way(self, number: int, now_s: float, works: Callable[[int], bool]) -> tuple[int, ...] | None:
        """Return a reader's relays, or None if it has no route now. works: whether a reader can relay."""
        broken_s = self._broken_s.get(number)
        if number not in self._known or (broken_s is not None and now_s >= broken_s + HEAL_S):
            self._known[number] = found = self.ways(works).get(number)
            self._broken_s.pop(number, None)
            if found is None:
                self._broken_s[number] = now_s
        return self._known[number]

    def look_again(self) -> None:
        """Note that a reader more can relay: those without a way look for one at their next frame."""
        for number in [number for number, way in self._known.items() if way is None]:
            del self._known[number]

    def broke(self, number: int, now_s: float) -> None:
        """Note that a relay of this reader's way did not answer."""
        self._broken_s.setdefault(number, now_s)

    def ways(self, works: Callable[[int], bool]) -> dict[int, tuple[int, ...]]:
        """Return the best way of each reader that has one: the fewest hops, then the shortest ones."""
        if self._reach_m is None:
            self._reach_m = HOP_M
            while len(self._search(lambda _: True, self._reach_m)) < len(self._at):
                self._reach_m *= 1.1
        return self._search(works, self._reach_m)

    def _search(self, works: Callable[[int], bool], reach_m: float) -> dict[int, tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = {}
        queue: list[tuple[int, float, int, tuple[int, ...]]] = [(0, 0.0, COORDINATOR, ())]
        while queue:
            hops, square_m2, number, relays = heapq.heappop(queue)
            if number in found:
                continue
            here = (0.0, 0.0)
            if number != COORDINATOR:
                found[number] = relays
                if not works(number):
                    continue
                here, relays = self._at[number], (number, *relays)
            for other, there in self._at.items():
                length_m = math.dist(here, there)
                if other not in found and length_m < reach_m:
                    heapq.heappush(queue, (hops + 1, square_m2 + length_m**2, other, relays))
        return found
