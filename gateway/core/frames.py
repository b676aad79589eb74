"""Bytes from a reader -> a `Report`, whose sender is proven and whose freshness is known, or `Malformed`; and back.

There are two checks, in this order: the MAC, with the key of the reader that the header names, then the replay window.
Boots are compared in serial arithmetic (newer by 1..32767). Within a boot, a sequence is accepted once and must be less
than `WINDOW` behind the newest.
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

    reason: Literal["not_ours", "downlink", "unknown_reader", "wrong_mac", "unknown_kind", "wrong_body"]
    detail: str
    raw: bytes
    reader: int | None = None
    """The number that the header claims. It is proven only if the reason is unknown_kind or wrong_body."""


@dataclass(frozen=True, slots=True)
class Report:
    """A frame with a right MAC. `content` is what `readers.wire` decodes for its kind."""

    kind: int
    reader: int
    boot: int
    sequence: int
    freshness: Freshness
    rebooted: bool
    """The first frame of a newer boot; False for the first boot that is heard of a reader."""
    content: Any
    old_boot: bool = False
    """Stale because of an earlier boot: a late frame, a replay, or a reader whose flash was erased."""


@dataclass(slots=True)
class ReaderLink:
    """What the gateway knows about the frames of one reader."""

    reader: int
    mac: "Mac"
    boot: int = _UNHEARD
    top: int = 0
    """Newest sequence of this boot. A downlink repeats it to prove that it is fresh."""
    seen: int = 0
    """Bit n is set if sequence top - n was read."""


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


def read(links: ReaderLinks, payload: bytes) -> Report | Malformed:
    """Return what a payload is. Never raise, whatever the bytes are. Only a frame with a right MAC moves the window."""
    try:
        kind, reader, boot, sequence = wire.peek(payload)
    except wire.WireError as error:
        return Malformed("not_ours", str(error), payload)
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
    rebooted = link.boot != _UNHEARD and 0 < (boot - link.boot) & 0xFFFF < 0x8000
    freshness = _note(link, boot, sequence)
    return Report(kind, reader, boot, sequence, freshness, rebooted, content, boot != link.boot)


def answer(links: ReaderLinks, reader: int, kind: int, body: bytes) -> bytes | None:
    """Return a downlink frame with its MAC, or None if the reader was never heard (it would refuse the frame)."""
    link = links.by_number.get(reader)
    if link is None or link.boot == _UNHEARD:
        return None
    return wire.encode(kind, reader, link.boot, link.top, body, link.mac)


def boot_of(links: ReaderLinks, reader: int) -> int | None:
    """Return the newest boot heard of a reader; None if it was never heard."""
    link = links.by_number.get(reader)
    return None if link is None or link.boot == _UNHEARD else link.boot


def snapshot(links: ReaderLinks) -> list[tuple[int, int, int, int, bytes]]:
    """Return (reader, boot, top, seen, key's fingerprint) of every reader that was heard, for `restore`."""
    return [
        (link.reader, link.boot, link.top, link.seen, _fingerprint(link))
        for link in links.by_number.values()
        if link.boot != _UNHEARD
    ]


def restore(links: ReaderLinks, rows: list[tuple[int, int, int, int, bytes]]) -> None:
    """Restore a snapshot. A reader with a new key starts again, as a new reader; one that was heard already is kept."""
    for reader, boot, top, seen, fingerprint in rows:
        link = links.by_number.get(reader)
        if link is not None and link.boot == _UNHEARD and _fingerprint(link) == fingerprint:
            link.boot, link.top, link.seen = boot & 0xFFFF, top & wire.SEQUENCE_MAX, seen & _SEEN_ALL


def _fingerprint(link: ReaderLink) -> bytes:
    return link.mac(b"fingerprint of the key")[:4]


def _note(link: ReaderLink, boot: int, sequence: int) -> Freshness:
    if link.boot == _UNHEARD or 0 < (boot - link.boot) & 0xFFFF < 0x8000:
        link.boot, link.top, link.seen = boot, sequence, 1
        return "new"
    if boot != link.boot:
        return "stale"
    ahead = sequence - link.top
    if ahead > 0:
        link.seen = (link.seen << ahead | 1) & _SEEN_ALL if ahead < WINDOW else 1
        link.top = sequence
        return "new"
    if -ahead >= WINDOW:
        return "stale"
    if link.seen >> -ahead & 1:
        return "again"
    link.seen |= 1 << -ahead
    return "new"
