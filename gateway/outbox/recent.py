"""The newest rows and memories of a lane, in memory too: what a file loses under us is put back from here.

It is bounded, and only a help: a row that is older than these exists on disk alone.
"""

from collections.abc import Sequence

from gateway.effects import AlarmMemory
from gateway.outbox.rows import Entry

ROWS_MAX = 1000
BYTES_MAX = 1024 * 1024
MEMORIES_MAX = 500


class Recent:
    """Rows that were committed and are not known to be in the city, by seq, the newest ROWS_MAX; and memories."""

    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}
        self._memories: dict[bytes, AlarmMemory] = {}
        self._bytes = 0

    def keep(self, seqs: Sequence[int], entries: Sequence[Entry], memory: AlarmMemory | None = None) -> None:
        """Keep rows and a memory that are on disk now; the oldest leave."""
        for seq, entry in zip(seqs, entries, strict=True):
            self.rows[seq] = entry
            self._bytes += len(entry.body)
        while len(self.rows) > ROWS_MAX or self._bytes > BYTES_MAX:
            self._bytes -= len(self.rows.pop(next(iter(self.rows))).body)
        if memory is not None:
            self._memories.pop(memory.key, None)
            self._memories[memory.key] = memory
            if len(self._memories) > MEMORIES_MAX:
                del self._memories[next(iter(self._memories))]

    def delivered(self, upto: int) -> None:
        """Forget the rows that the city has."""
        self.load({seq: entry for seq, entry in self.rows.items() if seq > upto})

    def memories(self) -> list[AlarmMemory]:
        """Return the memories, the oldest first."""
        return list(self._memories.values())

    def load(self, rows: dict[int, Entry]) -> None:
        """Replace the rows by those of a file that was opened, or got other seqs."""
        self.rows = rows
        self._bytes = sum(len(entry.body) for entry in rows.values())
