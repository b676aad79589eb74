"""The health of readers: heartbeats and the faults they report, silence, and frames that cannot be used."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.core import reader_faults
from gateway.core.frames import Malformed, Report
from gateway.core.sightings import WallClock
from gateway.effects import Commit
from gateway.events import GatewayHealth, ReaderHealth
from gateway.locate.crosscheck import ReaderFinding
from readers import wire

SILENT_S = 150.0
OK_S = 300.0
"""Shortest time between two reports of a healthy reader; less if something gets worse."""
NOISE_S = 3600.0
"""One finding about the same reader, tag or group of readers is reported at most once in this time."""
NOISE_MAX = 256
NAMED_MAX = 20
SWEEP_S = 1.0
OLD_BOOTS = 5
"""This many frames of an earlier boot, with no new frame in between, are not just late frames."""
_WORSE = ("evictions", "discards", "transmit_failed", "transmit_busy", "refused")
WORSE_BY = 10
"""A counter in _WORSE that rose this much since its last report is news."""
_WIDTHS = {"H": 16, "I": 32, "B": 8, "b": 8}
_BITS = dict(zip(wire.HEARTBEAT_FIELDS, (_WIDTHS[c] for c in wire.HEARTBEAT_FORMAT[1:]), strict=True))

_NOISE = {
    "unknown_reader": "reader {reader} sends, and there is no key for it; add it to the reader keys or take it down",
    "wrong_mac": "frames said to be of reader {reader} have a wrong MAC: another key, or a forger; provision it again",
    "unknown_kind": "reader {reader} sends a kind of frame this gateway does not know; update the gateway first",
    "wrong_body": "reader {reader} sends frames this gateway cannot read; update the gateway first, then the reader",
    "other_version": "reader {reader} speaks another version of the wire, so it is not heard; flash it again",
    "old_boot": "reader {reader} counts its boots lower than before, so its frames are refused; give it a new key",
}
FAULT_OVER_S = 600.0
"""A fault is over when its reader has run this long since a restart without it. Some faults take minutes to show."""
DUTY_FOR_S = 150.0
"""A gate reader that listens less than its settings say for this long is reported; a calm minute restores its scan."""


@dataclass(slots=True)
class _Watched:
    heard_at_s: float
    silent: bool = False
    old_boots: int = 0
    told_at_s: float = float("-inf")
    told: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    beat: tuple[int, int] = (-1, -1)
    """Boot and sequence of the newest heartbeat."""
    faults: int = 0
    """Bits of wire.FAULTS that were reported and are not over."""
    listens_less: bool | None = None
    """What was reported last: whether it listens less than its settings say. None: nothing since the gateway began."""
    turned_at_s: float | None = None
    """When its heartbeats began to say otherwise."""


class Health:
    """All readers that have a key in this gateway. duty_pct: gate reader -> how much its settings let it listen."""

    def __init__(
        self,
        readers: Iterable[int],
        wall: WallClock,
        counts: Counter[str],
        now_s: float,
        duty_pct: Mapping[int, int] | None = None,
    ) -> None:
        self._duty_pct = dict(duty_pct or {})
        self._readers = {number: _Watched(now_s) for number in readers}
        self._wall, self._counts = wall, counts
        self._reported: dict[tuple[str, int | str], float] = {}
        self._sweep_at_s = now_s + SWEEP_S
        self._heard_at_s = now_s

    def heard(self, report: Report, now_s: float) -> Iterator[Commit]:
        """Note that a reader was heard. Yield its health if that is news."""
        reader = self._readers[report.reader]
        if report.freshness == "stale":
            self._counts["frames_stale"] += 1
            reader.old_boots += report.old_boot
            if reader.old_boots >= OLD_BOOTS:
                yield from self._tell_noise("old_boot", report.reader, now_s)
            return
        if report.freshness == "again":
            self._counts["frames_again"] += 1
            return
        reader.heard_at_s = self._heard_at_s = now_s
        reader.old_boots = 0
        news = reader.silent or report.rebooted
        reader.silent = False
        if report.kind == wire.HEARTBEAT:
            reader.last = dict(zip(wire.HEARTBEAT_FIELDS, report.content, strict=True))
            news = news or now_s - reader.told_at_s >= OK_S or _worse(reader.told, reader.last)
        elif report.rebooted:
            reader.last = {}
            news = False  # its heartbeat reports more, and comes soon
        if news:
            reader.told_at_s, reader.told = now_s, reader.last
            yield self._commit(report.reader, reader, now_s)
        if report.kind == wire.HEARTBEAT and (report.boot != reader.beat[0] or report.sequence > reader.beat[1]):
            reader.beat = report.boot, report.sequence  # one that was overtaken knows less
            yield from self._faults(report.reader, reader, now_s)
            yield from self._duty(report.reader, reader, now_s)

    def noise(self, malformed: Malformed, now_s: float) -> Iterator[Commit]:
        """Count a frame that cannot be used. Report its reader, at most once in NOISE_S."""
        self._counts[f"frames_{malformed.reason}"] += 1
        if malformed.reader is not None and malformed.reason in _NOISE:
            yield from self._tell_noise(malformed.reason, malformed.reader, now_s)

    def two_places(self, tag: str, readers: tuple[int, int], now_s: float) -> Iterator[Commit]:
        """Report a tag that is heard in two places at once: it was copied, or a reader was moved to another pole."""
        self._counts["tags_in_two_places"] += 1
        detail = (
            f"tag {tag} is loud at readers {readers[0]} and {readers[1]} at once, too far apart for one tag; "
            "check the readers' positions, then replace the tag"
        )
        yield from self._tell("tag_in_two_places", tag, detail, now_s)

    def crosscheck(self, word: ReaderFinding, now_s: float) -> Iterator[Commit]:
        """Report what the other readers show about one. Each finding comes here once, and once when it ends."""
        yield self._word(word.what, word.ok, word.detail, {"reader": word.reader}, now_s)

    def unfit(self, readers: Sequence[int], now_s: float) -> Iterator[Commit]:
        """Report that the walk test cannot be used round some readers."""
        some = f"{', '.join(map(str, readers[:NAMED_MAX]))}{' ..' if len(readers) > NAMED_MAX else ''}"
        detail = f"the walk test cannot be fitted round readers {some}; without it errors are larger: walk there again"
        yield from self._tell("walk_test_unusable", some, detail, now_s)

    def tick(self, now_s: float) -> Iterator[Commit]:
        """Yield the health of readers that became silent."""
        if now_s < self._sweep_at_s:
            return
        self._sweep_at_s = now_s + SWEEP_S
        for number, reader in self._readers.items():
            if not reader.silent and now_s - reader.heard_at_s > SILENT_S:
                reader.silent = True
                reader.told = {}
                reader.told_at_s = float("-inf")
                yield self._commit(number, reader, now_s)

    def deadline_s(self) -> float:
        return self._sweep_at_s

    def is_silent(self, reader: int) -> bool:
        """Return whether a reader is silent. True also for one that has no key here: it cannot be heard."""
        known = self._readers.get(reader)
        return known is None or known.silent

    def ok_and_silent(self) -> tuple[int, int]:
        """Return how many readers are heard and how many are silent."""
        silent = sum(reader.silent for reader in self._readers.values())
        return len(self._readers) - silent, silent

    def deaf(self, now_s: float) -> bool:
        """Return whether no reader was heard for SILENT_S. Then the gateway's radio is the cause, not the readers."""
        return bool(self._readers) and now_s - self._heard_at_s > SILENT_S

    def snapshot(self) -> list[tuple[int, int]]:
        """Return (reader, faults reported and not over), for `restore`."""
        return [(number, reader.faults) for number, reader in self._readers.items() if reader.faults]

    def restore(self, faults: Iterable[tuple[int, int]]) -> None:
        for number, bits in faults:
            if number in self._readers:
                self._readers[number].faults = bits & (1 << _BITS["faults"]) - 1

    def _faults(self, number: int, reader: _Watched, now_s: float) -> Iterator[Commit]:
        """Report each fault that a reader's newest heartbeat shows for the first time, and each that is over."""
        for bit in range(_BITS["faults"]):
            now, before = reader.last["faults"] >> bit & 1, reader.faults >> bit & 1
            if now == before:
                continue
            name = wire.FAULTS[bit] if bit < len(wire.FAULTS) else f"bit{bit}"
            what = f"reader_{number}_fault_{name}"  # of one reader: the city keeps the newest word about each `what`
            trouble, step = reader_faults.WORDS.get(name, reader_faults.UNKNOWN)
            if now:
                for word in self._tell(what, number, f"reader {number} {trouble}; {step}", now_s):
                    reader.faults |= 1 << bit
                    yield word
            elif reader.last["uptime_s"] >= FAULT_OVER_S:
                reader.faults &= ~(1 << bit)
                over = f"not true any more since its restart: reader {number} {trouble}"
                yield self._word(what, True, over, {"reader": number}, now_s)

    def _duty(self, number: int, reader: _Watched, now_s: float) -> Iterator[Commit]:
        """Report a gate reader that listens less than its settings say, and when that is over.

        It does so by itself when frames get lost (report.adapt in the firmware), and arrivals there come later.
        """
        wanted_pct, now_pct = self._duty_pct.get(number), reader.last["scan_duty_pct"]
        less = wanted_pct is not None and now_pct < wanted_pct
        if wanted_pct is None or less == reader.listens_less:
            reader.turned_at_s = None
            return
        reader.turned_at_s = now_s if reader.turned_at_s is None else reader.turned_at_s
        if now_s - reader.turned_at_s < DUTY_FOR_S:
            return
        what = f"reader_{number}_duty"
        if less:
            detail = (
                f"gate reader {number} listens {now_pct} % of the time instead of {wanted_pct} %, so arrivals there "
                "are told later; frames to or from it get lost: put a reader between it and the coordinator. If its "
                "settings were changed, raise settings.version"
            )
            for word in self._tell(what, number, detail, now_s):
                reader.listens_less = True
                yield word
        else:
            reader.listens_less = False
            detail = f"gate reader {number} listens {now_pct} % of the time, as its settings say"
            yield self._word(what, True, detail, {"reader": number}, now_s)

    def _commit(self, number: int, reader: _Watched, now_s: float) -> Commit:
        return Commit(
            ReaderHealth(
                observed_at=self._wall.utc(reader.heard_at_s if reader.silent else now_s),
                clock=self._wall.quality,
                reader=number,
                state="silent" if reader.silent else "ok",
                counters={} if reader.silent else dict(reader.last),
            )
        )

    def _tell_noise(self, what: str, reader: int, now_s: float) -> Iterator[Commit]:
        yield from self._tell(f"frames_{what}", reader, _NOISE[what].format(reader=reader), now_s)

    def _tell(self, what: str, whose: int | str, detail: str, now_s: float) -> Iterator[Commit]:
        key = (what, whose)
        if now_s - self._reported.get(key, float("-inf")) < NOISE_S:
            return
        if len(self._reported) >= NOISE_MAX:
            oldest = min(self._reported, key=lambda each: self._reported[each])
            if now_s - self._reported[oldest] < NOISE_S:
                self._counts["noise_untold"] += 1
                return
            del self._reported[oldest]
        self._reported[key] = now_s
        yield self._word(what, False, detail, {"reader": whose} if isinstance(whose, int) else {}, now_s)

    def _word(self, what: str, ok: bool, detail: str, counters: dict[str, int], now_s: float) -> Commit:
        return Commit(
            GatewayHealth(
                observed_at=self._wall.utc(now_s),
                clock=self._wall.quality,
                what=what,
                ok=ok,
                detail=detail,
                counters=counters,
            )
        )


def _worse(told: dict[str, int], last: dict[str, int]) -> bool:
    if not told:
        return True
    risen = (last[name] - told[name] & (1 << _BITS[name]) - 1 for name in _WORSE)
    rebooted = last["uptime_s"] < told["uptime_s"]
    return rebooted or bool(last["faults"] & ~told["faults"]) or any(WORSE_BY <= by < 1 << 15 for by in risen)
