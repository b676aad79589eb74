"""A broker of sockets only, that does what no real one does when asked: it is silent, sends rubbish, or hangs up."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
VERSIONS = {4: "3.1.1", 5: "5"}


@dataclass
class FakeBroker:
    """Answers as MQTT says, except where `faults` says otherwise: (version, packet type) -> what it does instead.

    "silence": it reads and never answers. "rubbish": bytes that are no MQTT. "close": it ends the connection.
    """

    faults: dict[tuple[str, int], str]
    port: int = 0
    connects: Counter[str] = field(default_factory=Counter)
    published: list[tuple[str, str]] = field(default_factory=list)
    """(version, topic) of each PUBLISH, whether it was answered or not."""
    attack: Iterable[bytes] | None = None
    """What it sends after each SUBACK. It reads nothing until that is sent."""
    attacks: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def hang_up(self) -> None:
        """End all connections."""
        while self.writers:
            self.writers.pop().close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = ""
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await read_packet(reader)
                if kind == CONNECT:
                    version = VERSIONS[body[6]]
                    self.connects[version] += 1
                if kind == PUBLISH:
                    self.published.append((version, body[2 : 2 + int.from_bytes(body[:2])].decode()))
                fault = self.faults.get((version, kind))
                if fault == "close":
                    break
                if fault == "rubbish":
                    writer.write(bytes([CONNACK << 4, 5, 0, 0, 2, 0x11, 0xFF]))  # the properties end too early
                elif fault is None:
                    writer.write(_answer(version, kind, body))
                if kind == SUBSCRIBE and self.attack is not None:
                    self.attacks += 1
                    for piece in self.attack:
                        writer.write(piece)
                        await writer.drain()
        writer.close()


def _answer(version: str, kind: int, body: bytes) -> bytes:
    none = b"\0" if version == "5" else b""  # no properties
    if kind == CONNECT:
        return _packet(CONNACK, b"\0\0" + none)
    if kind == SUBSCRIBE:
        return _packet(SUBACK, body[:2] + none + b"\1")
    if kind == PUBLISH:
        at = 2 + int.from_bytes(body[:2])
        return _packet(PUBACK, body[at : at + 2])
    return b"\xd0\0" if kind == 12 else b""


def publish(name: str, payload: bytes, *, qos: int, version: str, mid: int = 1, size: int | None = None) -> bytes:
    """Return a PUBLISH. size: how many bytes of payload its head promises, if others than these follow."""
    head = len(name).to_bytes(2) + name.encode() + mid.to_bytes(2) + (b"\0" if version == "5" else b"")
    left, length = len(head) + (len(payload) if size is None else size), bytearray()
    while True:
        length.append(left & 0x7F | (0x80 if left > 0x7F else 0))
        left >>= 7
        if not left:
            return bytes([PUBLISH << 4 | qos << 1]) + bytes(length) + head + payload


def _packet(kind: int, body: bytes) -> bytes:
    return bytes([kind << 4, len(body)]) + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return (type, body) of the next packet."""
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return first >> 4, await reader.readexactly(length)


@asynccontextmanager
async def fake_broker(faults: dict[tuple[str, int], str], *, buffer_b: int | None = None) -> AsyncIterator[FakeBroker]:
    """Yield a broker that runs. buffer_b: bytes that the kernel holds for it unread, the system's choice by default."""
    fake = FakeBroker(faults)
    sock = socket.socket()
    if buffer_b is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_b)
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(fake.serve, sock=sock)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()


@asynccontextmanager
async def swallows_version_5(port: int) -> AsyncIterator[int]:
    """Yield the port of a relay to a real broker that answers no CONNECT of version 5 and never hangs up."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(16)
        if b"MQTT\5" in head:
            while await reader.read(65536):
                pass
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        up_writer.write(head)
        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
