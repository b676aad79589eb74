"""Effects: what the core asks the shell to do, in the order it must be done. The core has no disk, radio or clock.

The core's steps are generators. The daemon carries out each effect before it asks for the next one. So an effect after
a `Commit` happens only when that commit is durable: when a reader gets "received", it is true.
"""

from dataclasses import dataclass

from gateway.events import Event


@dataclass(frozen=True, slots=True)
class AlarmMemory:
    """What must survive a power cut, so that one press stays one alarm and a lamp keeps its stage."""

    key: bytes
    """Identity of the press: the same for every reader and for every repetition."""
    alarm: str
    stage: int
    """Highest stage known, with the numbers of `readers.wire`."""
    raised_utc_s: float
    data: bytes = b""
    """Other values the core needs after a restart. The shell does not read them; at most 4 KiB."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Put this event into the outbox of its lane. With a memory: store both in one transaction (emergency lane)."""

    event: Event
    memory: AlarmMemory | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """Store this memory durably, without an event."""

    memory: AlarmMemory


@dataclass(frozen=True, slots=True)
class Downlink:
    """Send these bytes (a frame with its MAC) to a reader. It may get lost: the core repeats what matters."""

    reader: int
    payload: bytes
    urgent: bool = False


Effect = Commit | Remember | Downlink
