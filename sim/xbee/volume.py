"""The virtual XBee's file system: /flash in a folder of the host. Names are case-insensitive, 64 characters at most.

Errors look like the module's: a name that begins with E, a space, a sentence (90001539, "File system commands").
"""

import re
import shutil
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
PATH_MAX = 255
BLOCK_B = 2048  # a file takes whole flash pages; this is the page size of the EFR32MG


class FileRefused(Exception):
    """A file command failed. The text is what the module prints."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"{code} {why}")


class Volume:
    """The folder `root` as /flash. `here`: working directory. `lost_b`: space that nothing frees any more.

    Commands return what is printed, or raise FileRefused.
    """

    def __init__(self, root: Path, size_b: int) -> None:
        self.root, self.size_b = root, size_b
        self.here = "/flash"
        self.lost_b = 0
        root.mkdir(parents=True, exist_ok=True)

    def change(self, path: str) -> str:
        if not self._host(path).is_dir():
            raise FileRefused("ENOENT", "no such directory")
        self.here = self._absolute(path)
        return self.here

    def list(self, path: str) -> str:
        host = self._existing(path)
        if host.is_file():
            return f"{host.stat().st_size:8} {host.name}\r"
        rows = ["   <DIR> ./", "   <DIR> ../"]
        for entry in sorted(host.iterdir()):
            rows.append(f"   <DIR> {entry.name}/" if entry.is_dir() else f"{entry.stat().st_size:8} {entry.name}")
        return "\r".join(rows) + "\r"

    def make(self, path: str) -> str:
        host = self._host(path)
        if host.exists():
            raise FileRefused("EEXIST", "the name exists")
        if not host.parent.is_dir():
            raise FileRefused("ENOENT", "no such directory")
        host.mkdir()
        return "OK"

    def remove(self, path: str) -> str:
        host = self._existing(path)
        if host.is_file():
            host.unlink()
        elif any(host.iterdir()) or host == self.root or self._absolute(path) == self.here:
            raise FileRefused("EACCES", "the directory is in use or not empty")
        else:
            host.rmdir()
        return "OK"

    def move(self, source: str, target: str) -> str:
        old, new = self._existing(source), self._host(target)
        if new.exists():
            raise FileRefused("EEXIST", "the new name exists")
        if not new.parent.is_dir():
            raise FileRefused("ENOENT", "no such directory")
        old.rename(new)
        return "OK"

    def info(self) -> str:
        used_b = self._used_b()
        return f"{used_b:8} used\r{self.size_b - used_b:8} free\r{0:8} bad\r{self.size_b:8} total"

    def format(self) -> str:
        shutil.rmtree(self.root)
        self.root.mkdir()
        self.here = "/flash"
        return "OK"

    def is_file(self, path: str) -> bool:
        return self._host(path).is_file()

    def read(self, path: str) -> bytes:
        host = self._host(path)
        if not host.is_file():
            raise FileRefused("ENOENT", "no such file")
        return host.read_bytes()

    def claim(self, path: str) -> str:
        """Return the absolute path of a file that may be created. Raises FileRefused."""
        host = self._host(path)
        if host.exists():
            raise FileRefused("EEXIST", "the name exists")
        if not host.parent.is_dir() or self._absolute(path).count("/") < 2:
            raise FileRefused("ENOENT", "no such directory")
        return self._absolute(path)

    def write(self, path: str, content: bytes) -> None:
        if self._used_b() + _blocks_b(len(content)) > self.size_b:
            raise FileRefused("ENOSPC", "no space left")
        self._host(path).write_bytes(content)

    def _used_b(self) -> int:
        files = (entry.stat().st_size for entry in self.root.rglob("*") if entry.is_file())
        return self.lost_b + sum(map(_blocks_b, files))

    def _absolute(self, path: str) -> str:
        parts: list[str] = [] if path.startswith("/") else self.here.strip("/").split("/")
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ("", "."):
                if not NAME.fullmatch(part):
                    raise FileRefused("EINVAL", "a name has letters, digits, dot, dash, underscore, 64 at most")
                parts.append(part)
        absolute = "/" + "/".join(parts)
        if len(absolute) > PATH_MAX:
            raise FileRefused("ENAMETOOLONG", "a path has 255 characters at most")
        return absolute

    def _existing(self, path: str) -> Path:
        host = self._host(path)
        if not host.exists():
            raise FileRefused("ENOENT", "no such file or directory")
        return host

    def _host(self, path: str) -> Path:
        parts = self._absolute(path).strip("/").split("/")
        if parts[0].lower() != "flash":
            raise FileRefused("ENOENT", "there is only /flash")
        host = self.root
        for part in parts[1:]:
            same = [entry for entry in host.iterdir() if entry.name.lower() == part.lower()] if host.is_dir() else []
            host = same[0] if same else host / part
        return host


def _blocks_b(size_b: int) -> int:
    return -(-size_b // BLOCK_B) * BLOCK_B
