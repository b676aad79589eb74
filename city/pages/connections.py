"""Who may hold a connection, how many, and for how long, so that strangers cannot keep an operator out.

uvicorn bounds the size of a header, the idle time after an answer, and the number of all connections together. That
number counts silent ones: a thousand of them would be all that it serves. What it has no option for is here, on its
protocol class: a time for the header, the body and the reading of an answer, and a limit by address.

A connection is *proven* when a session or the token came over it, or when it comes from a proxy in `web.proxies`, which
has such limits of its own. Only the others, the strangers, are limited by number. A new stranger is always let in, and
the oldest of the address that holds most is closed for it. So an operator who opens the page has always a way in, and
one who is in is never closed for a stranger.
"""

import asyncio
import contextlib
import ipaddress
import logging
import resource
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

OPEN_MAX = 1000
STRANGERS_MAX = 256
STRANGERS_ADDRESS_MAX = 64
"""A browser opens six connections to a host; ten people behind one router are served before they have logged in."""
ACCOUNT_MAX = 64
"""Of one operator, or of all programs together: a program that leaks connections must not keep others out."""
HEADER_S = 10.0
BODY_S = 10.0
READ_S = 20.0
READ_MIN = 4096
"""Bytes that a client must take in READ_S while the city waits for it: 0.2 kB/s. A page takes 50 kB in its first s."""
LOST_S = 30
"""Seconds until a connection is given up whose peer acknowledges nothing: a stream's tick goes out every 5 s."""
ACCEPT_MAX = 16
"""Connections taken from the listening socket in one turn of the event loop: asyncio knows no other bound on them."""
LISTEN_MAX = 1024
FILES_KEPT = 144
"""Descriptors kept from connections: 64 for the store, 64 for connections in the act of opening and closing, 16 for the
broker, the log and the page's files."""
FILES_MIN = 192
SAY_S = 60.0
WORDS_MAX = 64

log = structlog.get_logger()


class TooFewFiles(RuntimeError):
    """The process may open too few files to serve anybody. The message says how to raise the limit."""


def open_max() -> int:
    """Raise the limit of open files to what the system allows, and return how many connections that leaves.

    Raises TooFewFiles under FILES_MIN files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_MAX + FILES_KEPT
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    files = wanted if soft == resource.RLIM_INFINITY else soft
    if files < FILES_MIN:
        raise TooFewFiles(
            f"only {files} files may be open, {FILES_MIN} are needed and {wanted} are right; "
            "raise the limit: LimitNOFILE= in the service, or ulimit -n"
        )
    return min(OPEN_MAX, files - FILES_KEPT)


def network_of(address: str) -> str:
    """Return what one person is assumed to hold: an IPv4 address, or the /64 of an IPv6 address; else the text."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))


class Connections:
    """All open connections of the server. Use it only from the event loop, except `closed`, which any thread reads."""

    def __init__(self, proxies: Sequence[str] = (), *, most: int = OPEN_MAX) -> None:
        """proxies: addresses or networks whose connections are proven from the start. most: connections in all."""
        self._proxies = [ipaddress.ip_network(each, strict=False) for each in proxies]
        self.most, self._strangers_most = most, max(1, min(STRANGERS_MAX, most // 2))
        self._open: set[CityProtocol] = set()
        self._strangers, self._accounts = _Held(), _Held()
        self._said_s: float | None = None
        self._unsaid: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        """Connections that the city closed, by reason: `crowded`, `full`, `header`, `body`, `reading`."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def strangers(self) -> int:
        """Open connections over which no session and no token came yet."""
        return len(self._strangers)

    def protocol(self, **given: object) -> "CityProtocol":
        """Make the protocol of a new connection; uvicorn calls this in the place of its own class."""
        return CityProtocol(self, **given)

    def enter(self, one: "CityProtocol", address: str) -> None:
        """Take in a new connection. If there are too many, close the oldest stranger; the new one if all are proven."""
        self._open.add(one)
        network = network_of(address)
        if not self._is_proxy(address):
            self._strangers.add(one, network)
            if self._strangers.count(network) > STRANGERS_ADDRESS_MAX:
                self.end(self._strangers.oldest(network), "crowded")
        if len(self._strangers) > self._strangers_most or len(self._open) > self.most:
            if self._strangers:
                self.end(self._strangers.oldest(self._strangers.largest()), "crowded")
            else:
                self.end(one, "full")

    def prove(self, one: "CityProtocol", account: str) -> None:
        """A session or the token came over this connection: from now on it counts for its account."""
        if self._strangers.drop(one):
            self._accounts.add(one, account)
            if self._accounts.count(account) > ACCOUNT_MAX:  # the older ones are streams, and answers on their way
                self.end(one, "crowded")

    def leave(self, one: "CityProtocol") -> None:
        """A connection has ended."""
        self._strangers.drop(one)
        self._accounts.drop(one)
        self._open.discard(one)

    def end(self, one: "CityProtocol", reason: str) -> None:
        """Close a connection at once, and count it."""
        self.closed[reason] += 1
        self._unsaid[reason] += 1
        self.leave(one)
        one.transport.abort()
        now_s = time.monotonic()
        if self._said_s is None or now_s - self._said_s >= SAY_S:
            log.warning("connections_closed", **self._unsaid, open=len(self._open), strangers=len(self._strangers))
            self._said_s = now_s
            self._unsaid.clear()

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._proxies)


class _Held:
    """Connections by who holds them, each holder's oldest first."""

    def __init__(self) -> None:
        self._holder: dict[CityProtocol, str] = {}
        self._of: dict[str, dict[CityProtocol, None]] = {}

    def __len__(self) -> int:
        return len(self._holder)

    def add(self, one: "CityProtocol", holder: str) -> None:
        self._holder[one] = holder
        self._of.setdefault(holder, {})[one] = None

    def drop(self, one: "CityProtocol") -> bool:
        holder = self._holder.pop(one, None)
        if holder is None:
            return False
        del self._of[holder][one]
        if not self._of[holder]:
            del self._of[holder]
        return True

    def count(self, holder: str) -> int:
        return len(self._of.get(holder, ()))

    def oldest(self, holder: str) -> "CityProtocol":
        """Return the oldest that is not being answered, or the oldest of all."""
        held = self._of[holder]
        return next((one for one in held if not one.is_answering), next(iter(held)))

    def largest(self) -> str:
        return max(self._of, key=lambda holder: len(self._of[holder]))


class CityProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a time for each thing that the client owes."""

    def __init__(self, connections: Connections, **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]
        self._connections = connections
        self._proven = False
        self._owed: tuple[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self.app_state = self.app_state | {"prove": self.prove}

    def prove(self, account: str) -> None:
        """Say whose session or token the request has that is being answered. Call it from any thread."""
        if not self._proven:
            self._proven = True
            with contextlib.suppress(RuntimeError):  # the loop has closed: the city is stopping
                self.loop.call_soon_threadsafe(self._connections.prove, self, account)

    @property
    def is_answering(self) -> bool:
        """Whether the client has sent all of a request and waits for the answer."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with contextlib.suppress(OSError):  # not TCP
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_S * 1000)
        self._connections.enter(self, self.client[0] if self.client else "")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self)
        for timer in (self._timer, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(READ_S, self._is_it_read, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _watch(self) -> None:
        """Start, keep or end the time of what the client owes now. More bytes of the same thing do not renew it."""
        owed = self._owes()
        if owed == self._owed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owed = owed
        if owed is not None:
            limit_s = HEADER_S if owed[0] == "header" else BODY_S
            self._timer = self.loop.call_later(limit_s, self._connections.end, self, owed[0])

    def _owes(self) -> tuple[str, int] | None:
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return "body", id(self.cycle)
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "header", id(self.cycle)
        return None  # an answer is on its way, or the idle time after one runs, which uvicorn watches

    def _is_it_read(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < READ_MIN:
            self._connections.end(self, "reading")
        else:
            self._reading = self.loop.call_later(READ_S, self._is_it_read, left)


class Server(uvicorn.Server):
    """uvicorn, which ends the open streams on a stop signal (it would wait for them), with a longer queue to listen.

    asyncio has one number for the queue of the listening socket and for how many connections it takes from it in a row.
    The second must be small: they take descriptors before any protocol sees them.
    """

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for one in server.sockets:
                with socket.socket(fileno=one.dup().detach()) as same:
                    same.listen(LISTEN_MAX)

    def handle_exit(self, sig: int, frame: object) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]
        self._captured_signals.clear()  # uvicorn would send it to us again; `run` returns and ends the log


class Sparse(logging.Filter):
    """Passes the same words once a minute, with how often they came meanwhile, and no traceback of a full system.

    Strangers cause lines (a request that is none, a connection for which no descriptor is left), and must not fill a
    disk with them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._words: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written; add the count of those that were not."""
        words, now_s = str(record.msg).partition("\n")[0], self._clock()
        said_s, kept_back = self._words.get(words, (None, 0))
        if said_s is not None and now_s - said_s < SAY_S:
            self._words[words] = (said_s, kept_back + 1)
            return False
        self._words[words] = (now_s, 0)
        self._words.move_to_end(words)
        while len(self._words) > WORDS_MAX:
            self._words.popitem(last=False)
        if "out of system resource" in words:
            record.msg, record.exc_info = f"{words}: {record.exc_info and record.exc_info[1]}", None
        if kept_back:
            record.msg = f"{record.msg} (and {kept_back} times more in {now_s - (said_s or 0.0):.0f} s)"
        return True
