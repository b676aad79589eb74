"""A TCP relay between a browser and the city, as bad as networks and proxies are: it swallows or holds bytes."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """Forwards connections to a port of loopback until it is told otherwise. It never closes one on its own."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.swallows_all = False
        """Take every byte of every connection, old and new, and forward none."""
        self.held: tuple[bytes, ...] = ()
        """Requests that begin with one of these are forwarded, but nothing of what is answered."""
        self._dead: set[int] = set()
        self._open: dict[int, list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def swallow_old(self) -> None:
        """Let every connection that is open now die without a word; new ones work."""
        with self._lock:
            self._dead |= set(self._open)

    def mend(self) -> None:
        """Forward new connections again. What is dead stays dead."""
        self.swallow_old()
        self.swallows_all, self.held = False, ()

    def close(self) -> None:
        """End everything: each socket is shut down first, which wakes the thread that waits on it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        sockets = [each for pair in self._open.values() for each in pair]
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(10)
        for each in sockets:
            each.close()

    def _accept(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to_port))
                except OSError:
                    near.close()
                    continue
                number += 1
                with self._lock:
                    self._open[number] = [near, far]
                    if self.swallows_all:
                        self._dead.add(number)
                for source, target, upward in ((near, far, True), (far, near, False)):
                    pump = threading.Thread(target=self._pump, args=(number, source, target, upward), daemon=True)
                    self._threads.append(pump)
                    pump.start()

    def _pump(self, number: int, source: socket.socket, target: socket.socket, upward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if upward and self.held and data.startswith(self.held):
                    with self._lock:
                        self._dead.add(-number)  # minus: only the answers die
                if self.swallows_all or number in self._dead or (not upward and -number in self._dead):
                    continue
                target.sendall(data)
        with contextlib.suppress(OSError):
            if not (self.swallows_all or {number, -number} & self._dead):
                target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relayed(to_port: int) -> Iterator[Relay]:
    relay = Relay(to_port)
    try:
        yield relay
    finally:
        relay.close()
