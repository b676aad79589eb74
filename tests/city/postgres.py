"""A real PostgreSQL server of this test run: made with initdb, on a free port of loopback, removed at the end."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import programs
from tests.city.bed import end, free_port, wait_for

BINARIES = [
    *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    *(Path(found).resolve().parent for found in [programs.find("initdb")] if found),
]
USERS = ("postgres", "nobody")
"""The server refuses to run as root, so root runs it as one of these."""
_numbers = itertools.count(1)


def missing() -> str | None:
    """Return why there is no server for the tests, None if there can be one."""
    if not BINARIES or not (BINARIES[0] / "initdb").exists():
        return (
            "PostgreSQL is not installed; next: as root apt-get install postgresql, or put the bin folder of one that "
            "you unpacked on PATH (needs no root)"
        )
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed; next: make venv"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody; next: run as another user"
    return None


class Server:
    """The server, and a database for whoever asks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _user()
            assert user is not None
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            self._run("initdb", "-D", str(data), "-A", "trust", "-U", "city", "-E", "UTF8", "--no-sync")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARIES[0] / "postgres", "-D", data, "-p", str(self.port), "-k", self.folder, "-c", "fsync=off",
                 "-c", "listen_addresses=127.0.0.1"],
                stdout=log, stderr=log, cwd=self.folder, **self._as,
            )  # fmt: skip
        ready = [BINARIES[0] / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        wait_for("PostgreSQL", lambda: subprocess.run(ready, check=False).returncode == 0)

    def stop(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            end(self._process)

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"city{next(_numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "city", name)
        return f"postgresql+psycopg://city@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(BINARIES[0] / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._as)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Yield a running server; remove it and its files at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ansim-pg-"))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> pwd.struct_passwd | None:
    for name in USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None
