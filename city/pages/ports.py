"""The ports of the city: taken before anything else is touched, and opened last.

A port that is bound and does not listen yet refuses connections, which is the truth: the page cannot answer. It belongs
to this process all the same, so nobody can take it until the page is ready.
"""

import contextlib
import errno
import os
import socket
from pathlib import Path

_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""
HOLDERS_MAX = 20_000
"""Processes that are looked at to find who has a port."""


class WebPortTaken(RuntimeError):
    """Somebody else listens on a port. The message says who, as far as that is known, and the next step."""


class WebPortRefused(ValueError):
    """This machine gives nobody this address or port. The message says what would be right."""


def bound(key: str, host: str, port: int) -> list[socket.socket]:
    """Take a port on every address of a host, without listening.

    key: the setting, for the message. Raises WebPortTaken or WebPortRefused; then no socket is left open.
    """
    taken: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        refused: OSError | None = None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            try:
                _bind(one, address)
            except OSError as error:
                one.close()
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                refused = error  # localhost has an address of IPv6, which this machine may not use
            else:
                taken.append(one)
        if not taken:
            raise refused or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as error:
        release(taken)
        raise _explained(key, host, port, error) from None
    return taken


def _bind(one: socket.socket, address: tuple[object, ...]) -> None:
    """Bind so that nobody else can. Where only old connections of the last run are in the way, bind beside them.

    With SO_REUSEADDR from the start, a second process could bind the same port until one of the two listens.
    """
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        one.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)


def listening(key: str, sockets: list[socket.socket], backlog: int) -> None:
    """Open bound ports. Raises WebPortTaken if somebody was faster, which is possible only beside old connections."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that the next start can bind beside ours
        try:
            one.listen(backlog)
        except OSError as error:
            host, port = one.getsockname()[:2]
            release(sockets)
            raise _explained(key, host, port, error) from None


def release(sockets: list[socket.socket]) -> None:
    """Close the sockets."""
    for one in sockets:
        one.close()


def _explained(key: str, host: str, port: int, error: OSError) -> Exception:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return WebPortTaken(
            f"{key}: {where} is taken by {holder(port)}. Nothing was changed; next: stop that program, or give this "
            "city another port"
        )
    if error.errno == errno.EACCES:
        return WebPortRefused(f"{key}: {where}: this user may not open a port under 1024; next: another port")
    return WebPortRefused(f"{key}: {where}: {error.strerror}; next: an address that `ip address` lists")


def holder(port: int) -> str:
    """Return which program listens on a port of TCP, as "NAME (pid N)", or that it cannot be seen from here."""
    nodes = {f"socket:[{node}]" for node in _nodes(port)}
    for process in _processes() if nodes else ():
        with contextlib.suppress(OSError):  # another user's, or it has ended
            for number in os.listdir(process / "fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(process / "fd" / number) in nodes:
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return f"a program of another user (as root, `ss -ltnp sport = :{port}` shows it)"


def _processes() -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in Path("/proc").iterdir() if path.name.isdigit()][:HOLDERS_MAX]
    return []


def _nodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port, whatever their address."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                field = line.split()
                if field[3] == _LISTEN and int(field[1].rpartition(":")[2], 16) == port:
                    found.add(field[9])
    return found
