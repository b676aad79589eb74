"""The settings for readers, and how they get them: the answer to a heartbeat that names an older version."""

from collections import Counter
from collections.abc import Collection, Iterator

from gateway.core import frames
from gateway.core.frames import ReaderLinks, Report
from gateway.effects import Downlink
from gateway.zone import FRAMES_A_S, Reader, ReaderSettings, Zone
from readers import wire

FRAMES_PER_MIN_MIN, FRAMES_PER_MIN_MAX = 6, 60
"""A reader's share of FRAMES_A_S, unless its own or the zone's setting says otherwise."""
GATE_FRAMES_PER_MIN = 240
"""The same for a gate reader. With 400 tags at a gate it sends about 160; docs/FIRMWARE.md, "A crowd at a gate"."""
GATE_PART = 2 / 3
"""Of FRAMES_A_S for all gate readers together, at most: three gates must not silence the streets."""
GATE_SCAN_MS = (16, 7)
"""Scan interval and window of a gate reader; docs/FIRMWARE.md, "The duty of a gate reader"."""
_VERSION = wire.HEARTBEAT_FIELDS.index("settings_version")


def scan_ms(settings: ReaderSettings, reader: Reader | None) -> tuple[int, int]:
    """Return a reader's scan interval and window in ms: its own; for a gate reader GATE_SCAN_MS; else the zone's."""
    zones = settings.scan_interval_ms, settings.scan_window_ms
    if reader is None:
        return zones
    if reader.scan_interval_ms is not None or reader.scan_window_ms is not None:
        return reader.scan_interval_ms or zones[0], reader.scan_window_ms or zones[1]
    # A zone that listens longer than a gate reader has to stays with its own.
    return (
        GATE_SCAN_MS if reader.gate is not None and zones[1] * GATE_SCAN_MS[0] < zones[0] * GATE_SCAN_MS[1] else zones
    )


def gate_duty_pct(zone: Zone) -> dict[int, int]:
    """Return gate reader -> the share of time in which its settings let it listen, in percent as a heartbeat has it."""
    scans = {reader.number: scan_ms(zone.settings, reader) for reader in zone.readers if reader.gate is not None}
    return {number: window_ms * 100 // interval_ms for number, (interval_ms, window_ms) in scans.items()}


def frames_per_min(zone: Zone, readers: Collection[int]) -> dict[int, int]:
    """Return reader -> how many routine frames a minute it may send. readers: all that have a key.

    Its own number, or the zone's. Else a gate reader gets GATE_FRAMES_PER_MIN, as long as all gate readers together
    take at most GATE_PART of FRAMES_A_S; the others share what is left, 6 to 60 each.
    """
    total = FRAMES_A_S * 60
    known = {reader.number: reader for reader in zone.readers}
    own = {n: r.frames_per_min or zone.settings.frames_per_min for n, r in known.items()}
    found = {n: own.get(n, zone.settings.frames_per_min) or 0 for n in readers}
    gates = [n for n in readers if not found[n] and n in known and known[n].gate is not None]
    if gates:
        share = min(GATE_FRAMES_PER_MIN, int(total * GATE_PART) // len(gates))
        found |= dict.fromkeys(gates, max(FRAMES_PER_MIN_MIN, share))
    others = [n for n in readers if not found[n]]
    if others:
        share = min(FRAMES_PER_MIN_MAX, (total - sum(found.values())) // len(others))
        found |= dict.fromkeys(others, max(FRAMES_PER_MIN_MIN, share))
    return found


class SettingsAnswers:
    """The settings of a zone's readers, one body for each reader that has a key.

    All have the zone's version, because a reader compares nothing else. So who changes one reader's own settings raises
    the zone's version, and every reader is sent its settings once more, at its next heartbeat.
    """

    def __init__(self, zone: Zone, readers: Collection[int], links: ReaderLinks, counts: Counter[str]) -> None:
        self._version, self._links, self._counts = zone.settings.version, links, counts
        known = {reader.number: reader for reader in zone.readers}
        self._bodies = {
            number: wire.encode_settings(
                (
                    zone.settings.version,
                    zone.settings.window_ms,
                    *scan_ms(zone.settings, known.get(number)),
                    zone.settings.heartbeat_s,
                    rate,
                    zone.settings.company_id,
                )
            )
            for number, rate in frames_per_min(zone, readers).items()
        }

    def answer(self, report: Report) -> Iterator[Downlink]:
        """Yield a reader's settings if its heartbeat names an older version. A reader takes only a newer version."""
        if report.kind != wire.HEARTBEAT or report.freshness != "new" or report.reader not in self._bodies:
            return
        if 0 < (self._version - report.content[_VERSION]) & 0xFFFF < 0x8000:
            payload = frames.answer(self._links, report.reader, wire.SETTINGS, self._bodies[report.reader])
            if payload is not None:
                self._counts["settings_sent"] += 1
                yield Downlink(report.reader, payload)
