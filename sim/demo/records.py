"""The records of the gateway and the city themselves, read from their stores and never written to.

The final figures are read when both have ended. The promise that nothing is lost is checked here from both ends: the
gateway's last sequence number of each epoch and lane (SQLite's own AUTOINCREMENT record) against the city's rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LANES = ("sos", "events")
READ_S = 5.0


class RecordsError(RuntimeError):
    """A store cannot be read. The message names the file. A run without its records proves nothing."""


@dataclass(frozen=True, slots=True)
class LaneRecord:
    """One lane of one epoch in the gateway's outbox."""

    lane: str
    epoch: str
    committed: int
    """The last sequence number, which is the number of committed rows."""
    waiting: frozenset[int]
    """Rows that still wait for the city's watermark."""


@dataclass
class CityRecords:
    """What the city has in its tables."""

    seqs: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    """(epoch, lane) -> sequence numbers of its rows."""
    types: Counter[str] = field(default_factory=Counter)
    same: int = 0
    """Rows equal to another row in type, subject, time and body: the same thing stored twice."""
    arrivals: list[dict[str, Any]] = field(default_factory=list)
    departures: list[dict[str, Any]] = field(default_factory=list)
    dangers: list[dict[str, Any]] = field(default_factory=list)
    """Events that a child is near a danger area. Events that it is clear again are not among them."""
    incidents: list[dict[str, Any]] = field(default_factory=list)
    quarantined: int = 0


def read_gateway(folder: Path) -> list[LaneRecord]:
    """Return the lanes of a gateway's outbox folder. Raise RecordsError when it cannot be read."""
    lanes = []
    for lane in LANES:
        with _open(folder / f"{lane}.db") as db:
            epoch = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
            last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
            waiting = frozenset(row[0] for row in db.execute("SELECT seq FROM outbox"))
        lanes.append(LaneRecord(lane, epoch, last[0] if last else 0, waiting))
    return lanes


def lost(lanes: list[LaneRecord], city: CityRecords) -> int:
    """Return how many committed rows are neither in the city nor still with the gateway."""
    return sum(len(_missing(lane, city) - lane.waiting) for lane in lanes)


def undelivered(drained: list[LaneRecord], city: CityRecords) -> int:
    """Return how many rows were committed at the time of `drained` but had not reached the city when it ended."""
    return sum(len(_missing(lane, city)) for lane in drained)


def _missing(lane: LaneRecord, city: CityRecords) -> set[int]:
    return set(range(1, lane.committed + 1)) - city.seqs.get((lane.epoch, lane.lane), set())


def read_city(path: Path) -> CityRecords:
    """Return what a city's SQLite store holds. Raise RecordsError when it cannot be read."""
    records = CityRecords()
    with _open(path) as db:
        for epoch, lane, seq, type_ in db.execute("SELECT epoch, lane, seq, type FROM event"):
            records.seqs.setdefault((epoch, lane), set()).add(seq)
            records.types[type_] += 1
        same = "SELECT sum(n - 1) FROM (SELECT count(*) AS n FROM event GROUP BY type, subject, observed_at, body)"
        records.same = db.execute(same).fetchone()[0] or 0
        for kind, subject, observed_at, stored_at, body in db.execute(
            "SELECT type, subject, observed_at, stored_at, body FROM event "
            "WHERE type IN ('arrival', 'departure', 'danger') ORDER BY stored_at"
        ):
            row = {**json.loads(body), "tag": subject, "observed_at_unix": observed_at, "stored_at": stored_at}
            if kind == "arrival":
                records.arrivals.append(row)
            elif kind == "departure":
                records.departures.append(row)
            elif row["near"]:
                records.dangers.append(row)
        for (body,) in db.execute("SELECT body FROM incident ORDER BY number"):
            records.incidents.append(json.loads(body))
        records.quarantined = db.execute("SELECT count(*) FROM quarantine").fetchone()[0]
    return records


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise RecordsError(f"{path} is not there: its process never got so far; its log says why")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=READ_S)) as db:
            yield db
    except (sqlite3.Error, TypeError) as error:
        raise RecordsError(f"{path} cannot be read: {error}") from error
