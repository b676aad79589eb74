"""What happens to files on their way: damage to bytes, to values, and paths where there is no file to read.

For tests that read what comes out: whatever it is, a reader of files returns or raises its own error, with a text.
"""

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PARTS = (
    b"\xef\xbb\xbf", b"\x00", b"\xff", b"\xc2\xa0", "“".encode(), "”".encode(), b'"', b"'", b"\\", b"[", b"]",
    b"{", b"}", b",", b":", b"=", b"\n", b"\r", b"#", b"<", b">", b"&x;", b"/>", b"-", b"nan", b"NaN", b"1e999",
    b"-1e308", b"9" * 400, b"null", b"true", b"\\ud800", b"[[readers]]", b"[" * 200, b"<a>" * 200, b'"""',
    b"1.3A2E+15", "ü".encode("latin-1"), b"\xed\xa0\x80", b";", b"\t",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -7.5, 1e300, -1e300, 10**30, 2**63, 0.1, "", "x", "7", "nan", "-1", "\x00",
    "\ud800", "“x”", "x" * 300, [], [[]], {}, {"": 0}, [None], [1, 2, 3], float("nan"), float("inf"), 126.95,
    37.5, "0013A20041234567", "1.3A2E+15",
)  # fmt: skip


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to three faults of transport or of an editor."""
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((0, 1, 2, 10, 100)))
        match chance.randrange(8):
            case 0 if data:
                flipped = bytearray(data)
                flipped[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
                data = bytes(flipped)
            case 1:
                data = data[:at] if chance.random() < 0.5 else data[at:]
            case 2:
                data = data[:at] + data[to:]
            case 3:
                data = data[:to] + data[at:]
            case 4 if chance.random() < 0.1:
                codec = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-7"))
                data = data.decode("utf-8", "replace").encode(codec)
            case 5:
                lines = data.split(b"\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                data = b"\n".join(lines)
            case _:
                data = data[:at] + chance.choice(PARTS) + data[to:]
    return data


def changed(chance: random.Random, value: Any) -> Any:
    """Return a JSON value with one node changed: removed, replaced by another kind, doubled, or in deep brackets."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if inner and chance.random() < 0.85:
        key, old = chance.choice(inner)
        copy = dict(value) if isinstance(value, dict) else list(value)
        if chance.random() < 0.15:
            del copy[key]
        elif isinstance(copy, list) and chance.random() < 0.1:
            copy.insert(key, old)
        elif isinstance(copy, dict) and chance.random() < 0.1:
            copy[chance.choice(("", "x", "-1", "01", "٣", "number", str(key) + " "))] = copy.pop(key)
        else:
            copy[key] = changed(chance, old)
        return copy
    if chance.random() < 0.03:
        for _ in range(chance.choice((5, 90, 150))):
            value = [value] if chance.random() < 0.5 else {"x": value}
        return value
    return chance.choice(VALUES)


def json_bytes(chance: random.Random, value: Any) -> bytes:
    """Return a value as JSON, one key a line: changed, sometimes damaged, sometimes with a line twice."""
    for _ in range(chance.randrange(0, 4)):
        value = changed(chance, value)
    data = json.dumps(value, indent=0, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    return damaged(chance, data) if chance.random() < 0.3 else data


def odd_paths(folder: Path) -> Iterator[Path]:
    """Yield paths from which no file can be read. The folder must be empty."""
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    yield from (folder, folder / "nowhere", folder / "empty" / "below", folder / "pipe", folder / "loop")
    yield from (folder / ("n" * 300), Path("/dev/zero"), Path("/dev/null"), Path("/proc/self/mem"))


def outcome(read: Callable[[], T], *own: type[Exception]) -> T | None:
    """Return what a reader of files returns, or None if it refused by its own error, with a text that can be shown."""
    try:
        return read()
    except own as error:
        text = str(error)
        assert text.strip()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text), repr(text)
        assert "Traceback" not in text
        return None


def refused(read: Callable[[], object], *own: type[Exception]) -> bool:
    """Return whether a reader of files refused, as `outcome` has it."""
    return outcome(lambda: [read()], *own) is None
