"""Typical faults of recordings, to put into any recording: rows in, rows out. Hashes of a seed decide each case.

    outliers=P       a share P of the rows is wrong by +-20..40 dB
    reader_off=DB    one reader measures DB too high (below 0: too low) from the first row on
    lose=P           a share P of the rows is missing
    dead             one reader is silent from the start;  dead=T  from T seconds on
    shuffle          rows are in random order
    spikes=P         a share P of the rows has +42 dBm

The seed selects the reader, among the half of the readers with the most rows, so that the fault has an effect.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim import chance
from sim.chance import Floats
from sim.walks.channel import Ints

USAGE = "outliers=P, reader_off=DB, lose=P, dead[=T], shuffle, spikes=P"
DEFAULTS = {"outliers": 0.05, "reader_off": 8.0, "lose": 0.5, "dead": 0.0, "shuffle": 0.0, "spikes": 0.01}
SHARES = ("outliers", "lose", "spikes")
SPIKE_DBM = 42.0
"""This level is in one real recording."""


class FaultError(ValueError):
    """The fault, the recorded site or the folder for the copy is not usable."""


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Sightings as columns. `reader`: each reader has some number, 0 or above."""

    t_s: Floats
    reader: Ints
    rssi_dbm: Floats


def apply(fault: str, rows: TrackRows, seed: int, *, victim: int | None = None) -> TrackRows:
    """Return the rows with one fault. Raises FaultError when the fault is not listed above or its number is wrong.

    victim: the reader that a fault of one reader hits. None: `reader_of(rows, seed)`.
    """
    kind, value = parse(fault)
    n: Ints = np.arange(len(rows.t_s), dtype=np.int64)
    hit = chance.uniform(seed, "fault", kind, n) < value
    if kind == "outliers":
        size = 20.0 + 20.0 * chance.uniform(seed, "fault size", n)
        sign = np.where(chance.uniform(seed, "fault sign", n) < 0.5, -1.0, 1.0)
        return replace(rows, rssi_dbm=rows.rssi_dbm + np.where(hit, sign * size, 0.0))
    if kind == "spikes":
        return replace(rows, rssi_dbm=np.where(hit, SPIKE_DBM, rows.rssi_dbm))
    if kind == "lose":
        return _pick(rows, np.flatnonzero(~hit))
    if kind == "shuffle":
        return _pick(rows, np.argsort(chance.uniform(seed, "fault order", n)))
    of = rows.reader == (reader_of(rows, seed) if victim is None else victim)
    if kind == "dead":
        return _pick(rows, np.flatnonzero(~(of & (rows.t_s >= value))))
    return replace(rows, rssi_dbm=rows.rssi_dbm + np.where(of, value, 0.0))


def parse(fault: str) -> tuple[str, float]:
    """Return the kind and the number of a fault. Raises FaultError."""
    kind, _, text = fault.partition("=")
    if kind not in DEFAULTS:
        raise FaultError(f"fault {fault!r} is none of: {USAGE}")
    try:
        value = float(text) if text else DEFAULTS[kind]
    except ValueError:
        raise FaultError(f"fault {fault!r}: {text!r} is not a number") from None
    if not np.isfinite(value) or (kind in SHARES and not 0 <= value <= 1):
        raise FaultError(f"fault {fault!r}: {'a share is 0 to 1' if kind in SHARES else 'the number is not finite'}")
    return kind, value


def reader_of(rows: TrackRows, seed: int) -> int:
    """Return the reader that a fault of one reader hits; -1 when there are no rows."""
    readers, counts = np.unique(rows.reader, return_counts=True)
    if not len(readers):
        return -1
    often = np.sort(readers[np.argsort(-counts, kind="stable")][: (len(readers) + 1) // 2])
    return int(often[int(chance.one(seed, "fault reader") * len(often))])


def copy(site: Path, out: Path, faults: Sequence[str], seed: int) -> list[tuple[str, int, int]]:
    """Copy a recorded site with faults in every track. Return (file, rows before, rows after) of each track.

    A fault of one reader hits the same reader in all tracks. Survey and truth do not change. Raises FaultError when
    a fault or the site is not usable or when `out` exists, OSError when files cannot be read or written.
    """
    for fault in faults:
        parse(fault)
    if not (site / "site.json").is_file():
        raise FaultError(f"{site} is no recorded site: it has no site.json")
    if out.exists():
        raise FaultError(f"{out} exists; give a new folder")
    files = sorted((site / "tracks").glob("*.sightings.csv"))
    ids: dict[str, int] = {}
    tracks = [_read(path, ids) for path in files]
    names = ['"' + name.replace('"', '""') + '"' if {",", '"'} & set(name) else name for name in ids]
    if not tracks:
        raise FaultError(f"{site} has no tracks/NAME.sightings.csv")
    victim = reader_of(TrackRows(*(np.concatenate(c) for c in zip(*map(_columns, tracks), strict=True))), seed)
    shutil.copytree(site, out)
    counts = []
    for i, (path, rows) in enumerate(zip(files, tracks, strict=True)):
        faulty = rows
        for fault in faults:
            faulty = apply(fault, faulty, seed + i, victim=victim)
        text = [f"{t:.3f},{names[k]},{dbm:.4g}\n" for t, k, dbm in zip(*_columns(faulty), strict=True)]
        target = out / "tracks" / path.name
        target.unlink()  # first: the copy may be a read-only file
        target.write_text("t_s,reader,rssi_dbm\n" + "".join(text), encoding="utf-8")
        counts.append((path.name, len(rows.t_s), len(faulty.t_s)))
    return counts


def _read(path: Path, ids: dict[str, int]) -> TrackRows:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(float(r["t_s"]), r["reader"], float(r["rssi_dbm"])) for r in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise FaultError(f"{path}: not a table of t_s,reader,rssi_dbm: {error!r}") from None
    readers = np.array([ids.setdefault(name, len(ids)) for _, name, _ in rows], np.int64)
    return TrackRows(np.array([t for t, _, _ in rows]), readers, np.array([dbm for _, _, dbm in rows]))


def _columns(rows: TrackRows) -> tuple[Floats, Ints, Floats]:
    return rows.t_s, rows.reader, rows.rssi_dbm


def _pick(rows: TrackRows, index: Ints) -> TrackRows:
    return TrackRows(rows.t_s[index], rows.reader[index], rows.rssi_dbm[index])
