"""Whether a file is the one that was left here; if not, which rows are gone, and which are still in memory."""

from dataclasses import dataclass

from gateway.outbox.ballast import Marked
from gateway.outbox.rows import Entry


@dataclass(frozen=True, slots=True)
class Loss:
    """A file that is not the one that was left."""

    why: str
    """For the operator, with what is gone."""
    lost: str
    """The rows that are gone, "" if there is none: "rows 3 to 7 of epoch 1a2b3c4d"."""
    back: dict[int, Entry]
    """Rows that are not in the file, and can be put back."""


def compare(known: Marked | None, epoch: str, last_seq: int, recent: dict[int, Entry], *, fresh: bool) -> Loss | None:
    """Compare a file (epoch, last_seq) with what is known of it; None if it is the one that was left, or the first.

    known: from this process or the mark; None: nothing. recent: the newest rows in memory, of the epoch of `known`.
    fresh: there was no file, or an empty one. A file without a mark may be an old copy: in its old epoch, its next row
    could get a number that the city has already, and would be taken for a repetition.
    """
    if known is None:
        return None if fresh else Loss("it has no readable mark, so it may be an old copy", "", {})
    if known.epoch == epoch and known.seq <= last_seq:
        return None
    have = last_seq if known.epoch == epoch else 0
    back = {seq: entry for seq, entry in recent.items() if seq > have}
    first, last = max(have, known.upto) + 1, min(back, default=known.seq + 1) - 1
    lost = f"rows {first} to {last} of epoch {known.epoch}" if first <= last else ""
    gone = f"{lost} are gone, and the city had not acknowledged them" if lost else "no undelivered row is gone"
    gone += f", {len(back)} rows are back from memory" if back else ""
    why = "it was missing or empty" if fresh else "an old copy was put back"
    return Loss(f"{why}: {gone}; known {known.epoch}/{known.seq}, found {epoch}/{last_seq}", lost, back)
