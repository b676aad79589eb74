"""The settings for readers, and how they get them: the answer to a heartbeat that names an older version."""

from collections import Counter
from collections.abc import Iterator

from gateway.core import frames
from gateway.core.frames import ReaderLinks, Report
from gateway.effects import Downlink
from gateway.zone import ReaderSettings
from readers import wire

FRAMES_A_S = 30
"""Routine frames a second for one coordinator: a third of what its radio channel and its serial line carry."""
_VERSION = wire.HEARTBEAT_FIELDS.index("settings_version")


def frames_per_min(wanted: ReaderSettings, readers: int) -> int:
    """Return how many frames a minute a reader may send: as configured, or its share of FRAMES_A_S, 6 to 60."""
    if wanted.frames_per_min is not None:
        return wanted.frames_per_min
    return max(6, min(60, FRAMES_A_S * 60 // max(readers, 1)))


class SettingsAnswers:
    """The settings of a zone's readers, the same for all."""

    def __init__(self, wanted: ReaderSettings, readers: int, links: ReaderLinks, counts: Counter[str]) -> None:
        self._version, self._links, self._counts = wanted.version, links, counts
        self._body = wire.encode_settings(
            (
                wanted.version,
                wanted.window_ms,
                wanted.scan_interval_ms,
                wanted.scan_window_ms,
                wanted.heartbeat_s,
                frames_per_min(wanted, readers),
                wanted.company_id,
            )
        )

    def answer(self, report: Report) -> Iterator[Downlink]:
        """Yield the settings if the heartbeat names an older version. A reader takes only a newer version."""
        if report.kind != wire.HEARTBEAT or report.freshness != "new":
            return
        if 0 < (self._version - report.content[_VERSION]) & 0xFFFF < 0x8000:
            payload = frames.answer(self._links, report.reader, wire.SETTINGS, self._body)
            if payload is not None:
                self._counts["settings_sent"] += 1
                yield Downlink(report.reader, payload)
