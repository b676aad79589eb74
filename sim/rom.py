"""The image of MicroPython's read-only file system: what is in it runs in place, outside the heap. Host side.

A record is kind varuint | length varuint | data; varuints are big-endian groups of 7 bits. Kinds: 2 data, 4 directory
and 5 file (name length varuint | name | records), and the outermost one, whose varuint is the magic d2 cd 31.
"""

_DATA, _DIRECTORY, _FILE, _IMAGE = 2, 4, 5, 0x14A6B1


def image(files: dict[str, bytes]) -> bytes:
    """Return the image of files by path; folders are at most one deep."""
    folders: dict[str, dict[str, bytes]] = {}
    records = []
    for path, data in sorted(files.items()):
        folder, _, name = path.rpartition("/")
        if folder:
            folders.setdefault(folder, {})[name] = data
        else:
            records.append(_file(name, data))
    for folder, inside in folders.items():
        records.append(_record(_DIRECTORY, _name(folder) + b"".join(_file(n, d) for n, d in inside.items())))
    return _record(_IMAGE, b"".join(records))


def _file(name: str, data: bytes) -> bytes:
    return _record(_FILE, _name(name) + _record(_DATA, data))


def _name(name: str) -> bytes:
    return _varuint(len(name)) + name.encode()


def _record(kind: int, data: bytes) -> bytes:
    return _varuint(kind) + _varuint(len(data)) + data


def _varuint(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))
