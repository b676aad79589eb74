#!/usr/bin/env python3
"""Build the wheel of one role: its command, and of the product only the files that this command imports.

    python3 deploy/wheel.py gateway --out dist       prints the wheel's path: dist/ansim_gateway-0.1.0-py3-none-any.whl

Needs Python 3.11 and nothing else, so a bare box can build its own. The same sources give the same bytes. Which files
a role needs is read from their imports; an import inside a function counts as well.
"""

import argparse
import ast
import base64
import hashlib
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"gateway": "gateway", "city": "city", "reader": "readers", "sim": "sim"}
"""Each role with the package that holds its command."""
ALONGSIDE = {
    "readers.build": ("firmware/*.py", "firmware/manifest.txt", "readers/wire.py"),
    "sim.reader.flash": ("sim/reader/device/**/*.py",),
}
"""Sources that are read as files, not imported: what a module of the left column needs."""
LEFT_OUT = ("__pycache__", "typings")
_TIME = (1980, 1, 1, 0, 0, 0)


def modules(role: str, root: Path = ROOT) -> dict[str, Path]:
    """Return what the role's command imports of the product: dotted name -> file, packages' `__init__` among them."""
    found: dict[str, Path] = {}
    wanted = [f"{PACKAGES[role]}.__main__"]
    while wanted:
        name = wanted.pop()
        path = _file(name, root)
        if path is None or name in found:
            continue
        found[name] = path
        wanted += [name.rpartition(".")[0], *_imports(path, name)]
    return found


def files(role: str, root: Path = ROOT) -> list[Path]:
    """Return every file of the product that the role's wheel carries, sorted, relative to the root."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found = modules(role, root)
    carried = set(found.values())
    for pattern in project["tool"]["setuptools"]["package-data"]["*"]:
        carried |= set((root / PACKAGES[role]).rglob(pattern))
    for module, patterns in ALONGSIDE.items():
        if module in found:
            carried |= {path for pattern in patterns for path in root.glob(pattern)}
    return sorted(path.relative_to(root) for path in carried if not set(LEFT_OUT) & set(path.parts))


def build(role: str, out: Path, root: Path = ROOT) -> Path:
    """Write the role's wheel into a folder, which is made where it is missing, and return its path."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = f"ansim-{role}"
    stem = f"ansim_{role}-{project['version']}"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {command}",
        f"Version: {project['version']}",
        f"Summary: {project['description']} ({role})",
        f"Requires-Python: {project['requires-python']}",
        f"License: {project['license']}",
        *(f"Requires-Dist: {each}" for each in project["optional-dependencies"][role]),
    ]
    about = f"{stem}.dist-info"
    content = {str(path): (root / path).read_bytes() for path in files(role, root)}
    content |= {
        f"{about}/METADATA": "\n".join([*metadata, ""]).encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: ansim\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{command} = {project['scripts'][command]}\n".encode(),
        f"{about}/LICENSE": (root / "LICENSE").read_bytes(),
    }
    record = [f"{name},sha256={_hash(data)},{len(data)}" for name, data in content.items()]
    content[f"{about}/RECORD"] = "\n".join([*record, f"{about}/RECORD,,", ""]).encode()
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o100644 << 16
            file.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def _file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    if not name or name.split(".")[0] not in PACKAGES.values():
        return None
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def _imports(path: Path, module: str) -> Iterator[str]:
    """Yield every name that a file imports; of `from a import b` both `a` and `a.b`, which may be a file."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> int:
    """Build the wheel that the command line asks for and print its path."""
    parser = argparse.ArgumentParser(description="Build the wheel of one role of Ansim.")
    parser.add_argument("role", choices=sorted(PACKAGES), help="what the machine is for")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="FOLDER", help="where to write it [dist]")
    wanted = parser.parse_args()
    print(build(wanted.role, wanted.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
