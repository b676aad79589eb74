"""What the core asks of the shell, in the order it must be done. The core has no disk, no radio and no clock.

The core's steps are generators. The daemon carries out each effect before it asks for the next one, so an effect behind
a `Commit` happens only once that commit is durable: this is how a reader is told "received" truthfully.
"""

from dataclasses import dataclass

from gateway.events import Event


@dataclass(frozen=True, slots=True)
class AlarmMemory:
    """What must survive a power cut so that one press stays one alarm, and a lamp keeps its stage."""

    key: bytes
    """Identity of the press: the same for every reader and every repetition."""
    alarm: str
    stage: int
    """Highest stage known, as `readers.wire` numbers them."""
    raised_utc_s: float
    data: bytes = b""
    """Whatever else the core wants back; opaque to the shell, at most 4 KiB."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Put this event into the outbox of its lane. With a memory: keep both in one transaction (emergency lane)."""

    event: Event
    memory: AlarmMemory | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep this memory durably; no event goes with it."""

    memory: AlarmMemory


@dataclass(frozen=True, slots=True)
class Downlink:
    """Send these bytes (a sealed frame) to a reader. Best effort: the core repeats what matters."""

    reader: int
    payload: bytes
    urgent: bool = False


Effect = Commit | Remember | Downlink
