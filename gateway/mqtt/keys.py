"""The keys of the link to the city, from their file. A changed file is taken while the gateway runs.

A file that cannot be used never takes the keys away that work: the old ones stay, and the operator is informed.
"""

import stat
import time
from collections.abc import Callable
from pathlib import Path

from gateway.health import OnHealth
from gateway.uplink import CityKeys, UplinkError, parse_keys

CHECK_S = 1.0
FILE_MAX_B = 4096


class KeyFile:
    """The key file of this gateway, read again when it changes."""

    def __init__(self, path: Path, *, on_health: OnHealth, now: Callable[[], float] = time.monotonic) -> None:
        """Read the file. now returns seconds of any clock that never steps back."""
        self.path = path
        self._on_health, self._now = on_health, now
        self._keys: CityKeys = ()
        self._seen: tuple[int, ...] | None = None
        self._checked_at = float("-inf")
        self._broken = ""

    def keys(self) -> CityKeys:
        """Return the keys, the one to send with first; none as long as the file could never be read."""
        now_s = self._now()
        if now_s - self._checked_at >= CHECK_S:
            self._checked_at = now_s
            self._check()
        return self._keys

    def _check(self) -> None:
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if seen == self._seen:
                return
            self._seen = seen
            keys = self._read(found.st_mode)
        except OSError as error:
            self._seen = None
            self._say(f"cannot be read ({error.strerror})")
        except UplinkError as error:
            self._say(str(error))
        else:
            changed, self._keys = self._keys and keys != self._keys, keys
            if self._broken or changed:
                self._broken = ""
                self._on_health("city_keys", True, f"{self.path}: {len(keys)} keys, key {keys[0].number} is in use")

    def _read(self, mode: int) -> CityKeys:
        if mode & 0o077 or not stat.S_ISREG(mode):
            raise UplinkError(f"is no file, or can be read by others; do: chmod 600 {self.path}")
        with self.path.open("rb") as file:
            data = file.read(FILE_MAX_B + 1)
        if len(data) > FILE_MAX_B:
            raise UplinkError(f"over {FILE_MAX_B} bytes: another file")
        try:
            return parse_keys(data.decode("ascii"))
        except UnicodeDecodeError:
            raise UplinkError("not ASCII text") from None

    def _say(self, why: str) -> None:
        if why != self._broken:
            self._broken = why
            kept = f"the old keys stay ({len(self._keys)})" if self._keys else "nothing can be sent"
            text = f"{self.path}: {why}; {kept}. Put the file of `ansim-city gateway enrol` there"
            self._on_health("city_keys", False, text)
