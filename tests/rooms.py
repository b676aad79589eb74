"""The rooms of the code: which folder may import which. `python -m tests.rooms` prints them as measured today.

A room is a folder; its files are the `.py` files directly in it. A `__main__.py` is a room of its own: a person starts
it, and it is above all other rooms. Imports are read from the source with `ast`: nothing is run, and an import inside a
function or behind TYPE_CHECKING counts as well.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.roots import ROOT

PACKAGES = ("readers", "gateway", "city", "sim")

FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"readers": (), "sim": (), "sim.xbee": ()},
    {
        "readers.__main__": ("readers",),
        "gateway": ("readers",),
        "sim.ncp": ("sim",),
        "sim.reader": ("readers",),
        "sim.walks": ("sim",),
    },
    {
        "gateway.locate": ("gateway",),
        "gateway.presence": ("gateway",),
        "gateway.outbox": ("gateway",),
        "city": ("gateway",),
        "sim.street": ("gateway", "readers", "sim"),
    },
    {
        "gateway.core": ("gateway", "gateway.locate", "gateway.presence", "readers"),
        "gateway.mqtt": ("gateway", "gateway.outbox"),
        "gateway.survey": ("gateway", "gateway.locate", "gateway.presence"),
        "city.pages": ("city",),
        "sim.air": ("sim", "sim.ncp", "sim.reader", "sim.street", "sim.xbee"),
    },
    {
        "gateway.radio": ("gateway", "gateway.core"),
        "gateway.config": ("gateway", "gateway.locate", "gateway.survey", "readers"),
        "city.__main__": ("city", "city.pages"),
        "sim.demo": (
            "gateway", "readers", "sim", "sim.air", "sim.ncp", "sim.reader", "sim.street", "sim.walks", "sim.xbee",
        ),
    },
    {
        "gateway.box": (
            "gateway", "gateway.core", "gateway.mqtt", "gateway.outbox", "gateway.radio", "gateway.survey", "readers",
        ),
        "sim.__main__": ("sim.demo", "sim.ncp", "sim.street", "sim.walks", "sim.xbee"),
    },
    {"gateway.__main__": ("gateway", "gateway.box", "gateway.config", "gateway.outbox", "gateway.survey")},
)  # fmt: skip
"""Each room with the rooms it may import, from the ground floor up. Every import points to a lower floor."""

CORE = ("gateway", "gateway.core", "gateway.locate", "gateway.presence")
"""Rooms of pure functions of values: time is passed in; they do not read, write, send or draw random numbers."""

CONTRACTS = {
    ("gateway", "readers"): {"readers.wire", "readers.advertisement"},
    ("city", "gateway"): {"gateway.events", "gateway.uplink"},
    ("sim", "gateway"): {"gateway.events", "gateway.uplink", "gateway.zone"},
    ("sim", "readers"): {"readers.wire", "readers.advertisement"},
}
"""What one part of the product may import from another: these files, and nothing else."""

FILES_MAX = 15
"""A room with more files should become two rooms."""


@dataclass
class House:
    """What was measured: files by room, and every import between two files of the product."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    arrows: set[tuple[str, str]] = field(default_factory=set)
    """(importing module, imported module), dotted."""
    rooms: dict[str, str] = field(default_factory=dict)
    """module -> its room"""

    def between(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Return the arrows between rooms: (importing room, imported room) -> the arrows between their files."""
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for one, other in sorted(self.arrows):
            if self.rooms[one] != self.rooms[other]:
                found.setdefault((self.rooms[one], self.rooms[other]), []).append((one, other))
        return found


def imports(path: Path, root: Path = ROOT) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of every import in a file, with relative imports resolved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(root).parent.parts
                base = ".".join((*package[: len(package) - node.level + 1], *([base] if base else [])))
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module of the product by dotted name. `device` folders are left out: their code is MicroPython."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if "device" not in path.parts:
                parts = path.relative_to(root).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


def defined(path: Path) -> set[str]:
    """Return the names that a file itself defines at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found


def measure(root: Path = ROOT) -> House:
    """Measure the files and imports below `root`."""
    house = House()
    paths = modules(root)
    for module, path in paths.items():
        room = module if path.stem == "__main__" else ".".join(path.relative_to(root).parent.parts)
        house.rooms[module] = room
        house.files.setdefault(room, []).append(path)
    for module, path in paths.items():
        for name, _ in imports(path, root):
            target = name if name in paths and paths[name].stem != "__init__" else name.rpartition(".")[0]
            if target in paths and target != module and paths[target].stem != "__init__":
                house.arrows.add((module, target))
    return house


def floor_of(room: str) -> int | None:
    """Return the floor of a room in the table, 0 for the ground; None if the room is not in the table."""
    return next((n for n, floor in enumerate(FLOORS) if room in floor), None)


def backward(house: House) -> list[str]:
    """Return the file arrows between rooms that do not point to a lower floor."""
    found = []
    for (one, other), arrows in house.between().items():
        upper, lower = floor_of(one), floor_of(other)
        if upper is None or lower is None or upper <= lower:
            found += [f"{a} -> {b}" for a, b in arrows]
    return found


def circles(edges: set[tuple[str, str]]) -> list[str]:
    """Return the circles of a graph, each as a text `a -> b -> a`; one for each back edge found."""
    follow: dict[str, list[str]] = {}
    for one, other in sorted(edges):
        follow.setdefault(one, []).append(other)
    found, done, trail = [], set(), []  # type: ignore[var-annotated]

    def visit(node: str) -> None:
        if node in trail:
            found.append(" -> ".join([*trail[trail.index(node) :], node]))
        elif node not in done:
            trail.append(node)
            for other in follow.get(node, []):
                visit(other)
            trail.pop()
            done.add(node)

    for node in sorted(follow):
        visit(node)
    return found


def main() -> int:
    """Print every room, from the top floor down: files, lines, imports, importers. Return 1 on a violation."""
    house = measure()
    between = house.between()
    for number, floor in reversed(list(enumerate(FLOORS))):
        print(f"floor {number}")
        for room in floor:
            paths = house.files[room]
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
            core = "core" if room in CORE else ""
            below = [other for one, other in between if one == room]
            above = [one for one, other in between if other == room]
            print(f"  {room:17} {len(paths):3} files {lines:5} lines {core:4}  imports {', '.join(below) or 'nothing'}")
            print(f"{'':41}  for     {', '.join(above) or 'a person at a terminal'}")
    for package in ("gateway", "sim"):
        print(f"files directly in {package}/: {sum(path.is_file() for path in (ROOT / package).iterdir())}")
    loops = circles(set(between)) + circles(house.arrows)
    print(f"rooms: {len(house.files)}, arrows between rooms: {len(between)}, of files: {len(house.arrows)}")
    print(f"arrows that run back up: {len(backward(house))}")
    print(f"circles, inside rooms and between them: {len(loops)}")
    return 1 if backward(house) or loops else 0


if __name__ == "__main__":
    sys.exit(main())
