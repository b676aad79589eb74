"""Bytes from a reader -> a `Report`, whose sender is proven and whose freshness is known, or `Malformed`; and back.

There are two checks, in this order: the MAC, with the key of the reader that the header names, then the replay window.
A boot of a reader is a session: in it, a sequence is accepted once and must be less than `WINDOW` behind the newest.

Boots that a reader keeps on flash are compared in serial arithmetic (newer by 1..16383), and only the newest counts.
Boots that it draws at random, because its flash refuses to keep one, have no order: each is a session of its own, and
the newest `DRAWN_MAX` are remembered. A reader may change between the two kinds in either direction.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from readers import wire

if TYPE_CHECKING:
    from readers.wire import Mac

Freshness = Literal["new", "again", "stale"]
"""again: the same frame was read before. stale: older than the window, or of an earlier boot. Neither proves a replay:
the mesh repeats frames too. Neither may have an effect other than an answer; SOS and BELL are the exceptions."""

WINDOW = 64
DRAWN_MAX = 4
"""Most drawn boots of a reader that are remembered. With each more, a recording is useless for longer; and a reader is
likelier, by 1 in 32768 a boot, to draw a remembered number. Then its routine frames are refused until it has sent as
many as in that session; its bells and SOS are not."""
DOWN_BODY_MAX = wire.DOWN_MAX - wire.HEADER_SIZE - wire.MAC_SIZE
_SEEN_ALL = (1 << WINDOW) - 1
_UNHEARD = -1
_DECODE: dict[int, Callable[[bytes], Any]] = {
    wire.SIGHTINGS: wire.decode_sightings,
    wire.BINDINGS: wire.decode_bindings,
    wire.SOS: wire.decode_sos,
    wire.BELL: wire.decode_bell,
    wire.HEARTBEAT: wire.decode_heartbeat,
    wire.NEIGHBOURS: wire.decode_neighbours,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One APS payload from the radio. lqi: 0..255. None: the radio gave no value."""

    nwk: int
    lqi: int | None
    rssi_dbm: int | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Malformed:
    """A noise, foreign or faulty frame. `reason` is a fixed name for counting. Nothing in `raw` may be trusted."""

    reason: Literal[
        "not_ours", "downlink", "unknown_reader", "wrong_mac", "unknown_kind", "wrong_body", "other_version"
    ]
    detail: str
    raw: bytes
    reader: int | None = None
    """The number that the header claims. It is proven if the reason is unknown_kind, wrong_body or other_version."""


@dataclass(frozen=True, slots=True)
class Report:
    """A frame with a right MAC. `content` is what `readers.wire` decodes for its kind."""

    kind: int
    reader: int
    boot: int
    sequence: int
    freshness: Freshness
    rebooted: bool
    """New, and of another boot than the new frame before it; False for the first boot that is heard of a reader."""
    content: Any
    old_boot: bool = False
    """Stale because of an earlier kept boot: a late frame, a replay, or a reader whose flash was erased."""


@dataclass(slots=True)
class BootSession:
    """The replay window of one boot of a reader."""

    top: int
    """Newest sequence of this boot. A downlink repeats it to prove that it is fresh."""
    seen: int = 1
    """Bit n is set if sequence top - n was read."""


@dataclass(slots=True)
class ReaderLink:
    """What the gateway knows about the frames of one reader."""

    reader: int
    mac: "Mac"
    sessions: dict[int, BootSession] = field(default_factory=dict)
    """By boot: the newest kept one and at most DRAWN_MAX drawn ones, the one with the newest new frame last."""

    @property
    def boot(self) -> int:
        """The boot of the newest new frame. Downlinks are for it."""
        return next(reversed(self.sessions), _UNHEARD)

    def newest(self) -> tuple[int, int, int]:
        """Return (boot, top, seen) of that boot. Every new frame changes it, and no other frame does."""
        session = self.sessions.get(self.boot)
        return (_UNHEARD, 0, 0) if session is None else (self.boot, session.top, session.seen)


@dataclass(slots=True)
class ReaderLinks:
    """All readers that have a key in this gateway, by number."""

    by_number: dict[int, ReaderLink] = field(default_factory=dict)

    @classmethod
    def of(cls, reader_keys: Mapping[int, bytes]) -> "ReaderLinks":
        return cls({number: ReaderLink(number, mac_of(key)) for number, key in reader_keys.items()})


def mac_of(key: bytes) -> "Mac":
    """Return a function that computes HMAC-SHA256 with a key. The two key blocks are hashed only once."""
    keyed = hmac.new(key, None, hashlib.sha256)

    def mac(data: bytes) -> bytes:
        one = keyed.copy()
        one.update(data)
        return one.digest()

    return mac


def is_urgent(payload: bytes) -> bool:
    """Return whether a payload claims to be an SOS or a BELL. Used before the queues, so before any proof."""
    return len(payload) >= wire.HEADER_SIZE and payload[0] in (
        wire.VERSION << 4 | wire.SOS,
        wire.VERSION << 4 | wire.BELL,
    )


def is_drawn(boot: int) -> bool:
    """Return whether a reader drew this boot at random because its flash refused to keep one."""
    return bool(boot & wire.BOOT_DRAWN)


def is_newer(boot: int, than: int) -> bool:
    """Return whether a kept boot is newer than another kept boot, by 1..16383. Drawn boots have no order: False."""
    return not is_drawn(boot | than) and 0 < (boot - than) & 0x7FFF < 0x4000


def read(links: ReaderLinks, payload: bytes) -> Report | Malformed:
    """Return what a payload is. Never raise, whatever the bytes are. Only a frame with a right MAC moves the window."""
    try:
        kind, reader, boot, sequence = wire.peek(payload)
    except wire.WireError as error:
        return _of_another_version(links, payload) or Malformed("not_ours", str(error), payload)
    if kind >= wire.ACK:
        return Malformed("downlink", f"kind {kind} travels to readers, not from them", payload, reader)
    link = links.by_number.get(reader)
    if link is None:
        return Malformed("unknown_reader", f"no key for reader {reader}", payload, reader)
    try:
        body = wire.body_of(payload, link.mac)
    except wire.WireError as error:
        return Malformed("wrong_mac", str(error), payload, reader)
    decode = _DECODE.get(kind)
    if decode is None:
        return Malformed("unknown_kind", f"kind {kind} of reader {reader}: a newer firmware?", payload, reader)
    try:
        content = decode(body)
    except wire.WireError as error:
        return Malformed("wrong_body", f"kind {kind} of reader {reader}: {error}", payload, reader)
    boot_before = link.boot
    freshness = _note(link, boot, sequence)
    rebooted = freshness == "new" and boot_before not in (_UNHEARD, boot)
    return Report(kind, reader, boot, sequence, freshness, rebooted, content, boot not in link.sessions)


def answer(links: ReaderLinks, reader: int, kind: int, body: bytes) -> bytes | None:
    """Return a downlink frame with its MAC, or None if the reader was never heard (it would refuse the frame).

    Raises ValueError if the frame would be longer than wire.DOWN_MAX: behind relays it would not arrive.
    """
    if len(body) > DOWN_BODY_MAX:
        raise ValueError(f"body of {len(body)} bytes for reader {reader}, at most {DOWN_BODY_MAX} fit: split its rows")
    link = links.by_number.get(reader)
    if link is None or not link.sessions:
        return None
    boot, top, _ = link.newest()
    return wire.encode(kind, reader, boot, top, body, link.mac)


def reply(links: ReaderLinks, report: Report, kind: int, body: bytes) -> bytes | None:
    """Return a downlink for the reader and the boot that sent a report, as `answer`; None for a recording of old boots.

    A reader whose flash was erased counts its boots from 1 again. Its boot is none that is remembered, and the report's
    own sequence proves to it that the downlink is fresh. Any other reader refuses a frame of another boot.
    """
    if boot_of(links, report.reader) == report.boot:
        return answer(links, report.reader, kind, body)
    link = links.by_number.get(report.reader)
    if link is None or not report.old_boot or len(body) > DOWN_BODY_MAX:
        return None
    return wire.encode(kind, report.reader, report.boot, report.sequence, body, link.mac)


def boot_of(links: ReaderLinks, reader: int) -> int | None:
    """Return the boot of the newest new frame of a reader; None if it was never heard."""
    link = links.by_number.get(reader)
    return None if link is None or not link.sessions else link.boot


def is_over(links: ReaderLinks, reader: int, boot: int) -> bool:
    """Return whether a reader was heard in other boots and this one is not remembered: it will not be heard again."""
    link = links.by_number.get(reader)
    return link is not None and bool(link.sessions) and boot not in link.sessions


def snapshot(links: ReaderLinks) -> list[tuple[int, int, int, int, bytes]]:
    """Return (reader, boot, top, seen, key's fingerprint) of every remembered boot, a reader's newest last."""
    return [
        (link.reader, boot, session.top, session.seen, _fingerprint(link))
        for link in links.by_number.values()
        for boot, session in link.sessions.items()
    ]


def restore(links: ReaderLinks, rows: list[tuple[int, int, int, int, bytes]]) -> None:
    """Restore a snapshot. A reader with a new key starts again, as a new reader; one that was heard already is kept."""
    heard = {link.reader for link in links.by_number.values() if link.sessions}
    for reader, boot, top, seen, fingerprint in rows:
        link = links.by_number.get(reader)
        if link is not None and reader not in heard and _fingerprint(link) == fingerprint:
            _begin(link, boot & 0xFFFF, BootSession(top & wire.SEQUENCE_MAX, seen & _SEEN_ALL))


def _fingerprint(link: ReaderLink) -> bytes:
    return link.mac(b"fingerprint of the key")[:4]


def _of_another_version(links: ReaderLinks, payload: bytes) -> Malformed | None:
    """Return a finding if one of our readers made this frame, by its key: else nobody would see why it is not heard."""
    if not wire.HEADER_SIZE + wire.MAC_SIZE <= len(payload) <= wire.FRAME_MAX:
        return None
    link = links.by_number.get(int.from_bytes(payload[1:3], "big"))
    if link is None or not hmac.compare_digest(
        link.mac(payload[: -wire.MAC_SIZE])[: wire.MAC_SIZE], payload[-wire.MAC_SIZE :]
    ):
        return None
    detail = f"wire version {payload[0] >> 4} of reader {link.reader}, this gateway speaks {wire.VERSION}"
    return Malformed("other_version", detail, payload, link.reader)


def _note(link: ReaderLink, boot: int, sequence: int) -> Freshness:
    session = link.sessions.get(boot)
    if session is None:
        kept = next((each for each in link.sessions if not is_drawn(each)), None)
        if not is_drawn(boot) and kept is not None and not is_newer(boot, kept):
            return "stale"
        _begin(link, boot, BootSession(sequence))
        return "new"
    freshness = _note_in(session, sequence)
    if freshness == "new":
        link.sessions[boot] = link.sessions.pop(boot)
    return freshness


def _begin(link: ReaderLink, boot: int, session: BootSession) -> None:
    """Remember a boot as the newest. A kept one replaces the last; of too many drawn ones the oldest is dropped."""
    rivals = [each for each in link.sessions if is_drawn(each) == is_drawn(boot)]
    if len(rivals) >= (DRAWN_MAX if is_drawn(boot) else 1):
        del link.sessions[rivals[0]]
    link.sessions[boot] = session


def _note_in(session: BootSession, sequence: int) -> Freshness:
    ahead = sequence - session.top
    if ahead > 0:
        session.seen = (session.seen << ahead | 1) & _SEEN_ALL if ahead < WINDOW else 1
        session.top = sequence
        return "new"
    if -ahead >= WINDOW:
        return "stale"
    if session.seen >> -ahead & 1:
        return "again"
    session.seen |= 1 << -ahead
    return "new"
