"""The content of a reader's flash: the compiled firmware, its config.py, and the image that MicroPython runs in place.

The image is MicroPython's read-only file system, outside the heap. A record is kind varuint | length varuint | data.
A varuint is big-endian, in groups of 7 bits. Kinds: 2 data, 4 directory and 5 file (name length varuint | name |
records), and the outermost record: its kind is the magic number d2 cd 31.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from readers.build import FIRMWARE, compile_source, read_manifest, wire_numbers

BLOCK_B = 2048  # a file takes whole pages of flash: the page size of the EFR32MG
_DEVICE = Path(__file__).resolve().parent / "device"
_compiled: dict[str, Path] = {}
_folder: tempfile.TemporaryDirectory[str] | None = None
_DATA, _DIRECTORY, _FILE, _IMAGE = 2, 4, 5, 0x14A6B1


def compile_firmware(folder: Path) -> dict[str, int]:
    """Compile the firmware into folder as for a real reader, and return bytes per .mpy. Raises BuildError."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = read_manifest(FIRMWARE)
    numbers = wire_numbers(sources["wire.mpy"])
    for name, source in sources.items():
        shutil.copyfile(_compile(source, f"{source.stem}.py", numbers), folder / name)
    return {name: (folder / name).stat().st_size for name in sources}


def compiling() -> Iterator[None]:
    """Compile all that readers need, one file a step, so that the caller can do something else in between."""
    sources = read_manifest(FIRMWARE)
    numbers = wire_numbers(sources["wire.mpy"])
    for source in sources.values():
        _compile(source, f"{source.stem}.py", numbers)
        yield
    for source in sorted(_DEVICE.rglob("*.py")):
        _compile(source)
        yield


def prepare_flash(
    folder: Path, number: int, key: bytes, *, company_id: int = 0xFFFF, config: str = ""
) -> dict[str, int]:
    """Make a provisioned reader's flash: the compiled firmware and config.py. Returns bytes per .mpy.

    number 0..65535, key 16 bytes or more. config: more lines of config.py (pins). Files that the firmware itself
    keeps on flash (boot count, settings) do not change.
    """
    sizes = compile_firmware(folder)
    lines = f"READER = {number}\nKEY = {key!r}\nCOMPANY_ID = {company_id:#06x}\n{config}"
    (folder / "config.py").write_text(lines)
    return sizes


def _compile(source: Path, shown: str = "sim", numbers: Mapping[str, int] | None = None) -> Path:
    """Return the compiled file; each source is compiled once in a run."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="ansim-mpy-")
    key = str(source.resolve())
    if key not in _compiled:
        target = Path(_folder.name) / f"{len(_compiled)}.mpy"
        compile_source(source, target, shown, numbers)
        _compiled[key] = target
    return _compiled[key]


def boot_folder() -> Path:
    """Return the folder that holds only the compiled _boot."""
    mpy = _compile(_DEVICE / "_boot.py")
    folder = mpy.parent / "boot"
    if not folder.exists():
        folder.mkdir()
        shutil.copyfile(mpy, folder / "_boot.mpy")
    return folder


def image_file(flash_dir: Path, *, in_place: bool = True) -> Path:
    """Write the image: the stand-ins (a device has these modules in flash), and flash's .mpy files as if bundled."""
    sources = [source for source in sorted(_DEVICE.rglob("*.py")) if source.name != "_boot.py"]
    files = {str(s.relative_to(_DEVICE).with_suffix(".mpy")): _compile(s).read_bytes() for s in sources}
    if in_place:
        files |= {f"flash/{mpy.name}": mpy.read_bytes() for mpy in flash_dir.glob("*.mpy")}
    with tempfile.NamedTemporaryFile(prefix="ansim-rom-", delete=False) as file:
        file.write(image(files))
    return Path(file.name)


def image(files: dict[str, bytes]) -> bytes:
    """Return the image of the files, given by path. Folders are at most one level deep."""
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
