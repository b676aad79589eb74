r"""A socket that gives recording programs what the core hears. It is in the gateway's folder, for its user only.

    core --reading--> Recorder --queue of each client, bounded--> record.sock --> `ansim-gateway record`

It speaks JSON lines. First the client sends what it wants: {"tags": ["t1"]}; an empty list is every tag. Then it gets
{"gateway": .., "now_s": ..}, one line for each reading {"t_s": .., "tag": .., "reader": .., "rssi_dbm": .., "packets":
.., "power_dbm": ..} (the level at 1 m that the tag states), and {"now_s": ..} every second in which nothing waits. When
the client has closed its side or the gateway stops, it gets {"end": true, "sent": .., "dropped": ..}.
Tags appear only by pseudonym. A client that is too slow loses readings, which are counted; the core never waits for it.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from gateway.fix import Reading
from gateway.health import OnHealth

SOCKET = "record.sock"
CLIENTS_MAX = 4
QUEUE_MAX = 5000
"""Lines that may wait for one client: a minute of a full zone."""
WANT_MAX_B, WANT_MAX_S = 65_536, 5.0
TAGS_MAX = 1000
SEND_MAX_S = 10.0
BEAT_S = 1.0
AGAIN_S = 60.0
"""If the socket could not be opened, it is tried again after this long."""

log = structlog.get_logger()


class _Client:
    def __init__(self, tags: frozenset[str]) -> None:
        self.tags = tags
        self.queue: deque[dict[str, Any]] = deque()
        self.wake = asyncio.Event()
        self.sent = self.dropped = 0
        self.over = False

    def put(self, line: dict[str, Any]) -> bool:
        if len(self.queue) >= QUEUE_MAX:
            self.dropped += 1
            return False
        self.queue.append(line)
        self.wake.set()
        return True

    def beat(self) -> None:
        if not self.queue:
            self.put({"now_s": round(time.monotonic(), 3)})

    def end(self) -> None:
        self.over = True
        self.wake.set()


class Recorder:
    """The socket and its clients. `on_change(whether a client records)` is called when a client comes or goes."""

    def __init__(self, folder: Path, gateway: str, *, on_health: OnHealth, on_change: Callable[[bool], None]) -> None:
        self.path = folder / SOCKET
        self._gateway, self._on_health, self._on_change = gateway, on_health, on_change
        self._clients: set[_Client] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self.open = False
        self.counters: Counter[str] = Counter({"record_readings": 0, "record_dropped": 0, "record_refused": 0})

    @property
    def clients(self) -> int:
        """Return how many clients record now."""
        return len(self._clients)

    def reading(self, tag: str, reading: Reading) -> None:
        """Take a reading that the core heard. Never raises, never waits."""
        for client in self._clients:
            if client.tags and tag not in client.tags:
                continue
            line = {"t_s": round(reading.heard_at_s, 3), "tag": tag, "reader": reading.reader,
                    "rssi_dbm": reading.rssi_dbm, "packets": reading.packets,
                    "power_dbm": reading.power_dbm}  # fmt: skip
            self.counters["record_readings" if client.put(line) else "record_dropped"] += 1

    async def run(self, progress: Callable[[], None]) -> None:
        """Serve until cancelled. A socket that cannot be opened is reported, and the gateway goes on without it."""
        server: asyncio.Server | None = None
        opened_s = -AGAIN_S
        try:
            while True:
                progress()
                if server is None and time.monotonic() >= opened_s + AGAIN_S:
                    server, opened_s = await self._open(), time.monotonic()
                for client in self._clients:
                    client.beat()
                await asyncio.sleep(BEAT_S)
        finally:
            if server is not None:
                server.close()
            await self._close()

    async def _open(self) -> asyncio.Server | None:
        try:
            self.path.unlink(missing_ok=True)  # left by a killed gateway: the outbox made sure that no other one runs
            server = await asyncio.start_unix_server(self._accept, self.path, limit=WANT_MAX_B)
            self.open = True
            self.path.chmod(0o600)  # the daemon's umask has made it private from the start
            return server
        except OSError as error:
            self._on_health("record", False, f"{self.path} cannot be opened ({error}); nobody can record")
            return None

    async def _close(self) -> None:
        for client in self._clients:
            client.end()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=1.0)
        for task in self._handlers:
            task.cancel()
        with contextlib.suppress(OSError):
            self.path.unlink()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)
        try:
            await self._serve(reader, writer)
        except OSError:  # the client is gone, or too slow (TimeoutError is an OSError)
            writer.transport.abort()
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tags = await _wanted(reader)
        if tags is None or len(self._clients) >= CLIENTS_MAX:
            self.counters["record_refused"] += 1
            why = f"{CLIENTS_MAX} record already" if tags is not None else 'say first {"tags": []}'
            await _send(writer, [{"error": why}])
            return
        client = _Client(tags)
        client.put({"gateway": self._gateway, "now_s": round(time.monotonic(), 3)})
        self._clients.add(client)
        self._on_change(True)
        log.info("recording", clients=len(self._clients), tags=len(tags) or "all")
        hangs_up = asyncio.create_task(_until_closed(reader, client))
        try:
            while not client.over or client.queue:
                client.wake.clear()
                if client.queue:
                    lines = [client.queue.popleft() for _ in range(min(len(client.queue), 500))]
                    await _send(writer, lines)
                    client.sent += sum("t_s" in line for line in lines)
                elif not client.over:
                    await client.wake.wait()
            await _send(writer, [{"end": True, "sent": client.sent, "dropped": client.dropped}])
        finally:
            hangs_up.cancel()
            self._clients.discard(client)
            self._on_change(bool(self._clients))
            log.info("recorded", clients=len(self._clients), readings=client.sent, dropped=client.dropped)


async def _wanted(reader: asyncio.StreamReader) -> frozenset[str] | None:
    """Return the tags that a client asks for, or None if its request is not valid."""
    try:
        async with asyncio.timeout(WANT_MAX_S):
            line = await reader.readline()
        tags = json.loads(line)["tags"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(tags, list) or len(tags) > TAGS_MAX or not all(isinstance(tag, str) for tag in tags):
        return None
    return frozenset(tags)


async def _send(writer: asyncio.StreamWriter, lines: list[dict[str, Any]]) -> None:
    writer.write("".join(json.dumps(line) + "\n" for line in lines).encode())
    async with asyncio.timeout(SEND_MAX_S):
        await writer.drain()


async def _until_closed(reader: asyncio.StreamReader, client: _Client) -> None:
    """Wait until the client closes its side; ignore whatever else it sends. Then end its recording."""
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass
    client.end()
