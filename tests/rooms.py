"""The rooms of the house: which folder may import which. `python -m tests.rooms` prints them as measured today.

A room is a folder; its files are the `.py` files directly in it. A `__main__.py` is a room of its own: it is what a
person types, and stands above everything. Imports are read from the source with `ast`: nothing is run, and an import
inside a function or behind TYPE_CHECKING counts as well.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.roots import ROOT

PACKAGES = ("readers", "gateway", "city", "sim")
STAND_INS = Path("sim") / "reader" / "device"
"""MicroPython of a simulated reader: it imports the device's own modules, and belongs to no room."""

FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"readers": (), "sim": ()},
    {
        "readers.__main__": ("readers",),
        "gateway": ("readers",),
        "sim.ncp": ("readers", "sim"),
        "sim.reader": ("readers",),
        "sim.walks": ("readers", "sim"),
    },
    {
        "gateway.locate": ("gateway",),
        "gateway.presence": ("gateway",),
        "gateway.outbox": ("gateway",),
        "city": ("gateway", "readers"),
        "sim.street": ("gateway", "readers", "sim"),
        "sim.xbee": ("readers", "sim.reader"),
    },
    {
        "gateway.core": ("gateway", "gateway.locate", "gateway.presence", "readers"),
        "gateway.mqtt": ("gateway", "gateway.outbox"),
        "gateway.survey": ("gateway", "gateway.locate", "gateway.presence", "readers"),
        "city.checks": ("city", "readers"),
        "city.pages": ("city",),
        "sim.air": ("gateway", "sim", "sim.ncp", "sim.reader", "sim.street", "sim.xbee"),
    },
    {
        "gateway.radio": ("gateway", "gateway.core"),
        "gateway.config": ("gateway", "gateway.locate", "gateway.survey", "readers"),
        "city.__main__": ("city", "city.checks", "city.pages", "readers"),
        "sim.demo": (
            "gateway", "readers", "sim", "sim.air", "sim.ncp", "sim.reader", "sim.street", "sim.walks", "sim.xbee",
        ),
    },
    {
        "gateway.box": (
            "gateway", "gateway.core", "gateway.mqtt", "gateway.outbox", "gateway.radio", "gateway.survey", "readers",
        ),
        "sim.plan": (
            "gateway", "gateway.locate", "gateway.presence", "gateway.survey", "readers", "sim", "sim.air", "sim.demo",
            "sim.street",
        ),
    },
    {
        "gateway.__main__": ("gateway", "gateway.box", "gateway.config", "gateway.outbox", "gateway.survey", "readers"),
        "sim.__main__": ("readers", "sim", "sim.demo", "sim.ncp", "sim.plan", "sim.street", "sim.walks", "sim.xbee"),
    },
)  # fmt: skip
"""Each room with the rooms it may import, from the ground floor up. Every import points to a lower floor."""

CORE = ("gateway", "gateway.core", "gateway.locate", "gateway.presence")
"""Rooms of values in, values out: time is passed in, and nothing is read, written, sent or drawn by chance."""

CORE_MAY = {
    "collections", "copy", "dataclasses", "datetime", "functools", "hashlib", "hmac", "itertools", "math", "msgspec",
    "numpy", "re", "statistics", "types", "typing",
}  # fmt: skip
"""Modules of others that a core room may import. What is not here may know a clock, a disk, a network or chance."""

CORE_MAY_NOT_CALL = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}
CORE_MAY_NOT_ASK = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now", "datetime.date.today",
    "np.random", "numpy.random", "np.load", "np.save", "np.savez", "np.loadtxt", "np.savetxt", "np.fromfile",
    "np.memmap", "statistics.random",
}  # fmt: skip
"""By these an allowed module would know the time, chance or a file."""

PLANNER = {
    "gateway.antenna", "gateway.fix", "gateway.locate.ground", "gateway.locate.locator", "gateway.presence.changes",
    "gateway.presence.settle", "gateway.recording", "gateway.survey.calibrate", "gateway.survey.canvas",
    "gateway.survey.expected", "gateway.survey.onto_zone", "gateway.survey.read", "gateway.survey.write",
}  # fmt: skip
"""What `sim.plan` alone knows of the gateway: a promise made with another engine than the gateway's own is none
(ADR 16). The gateway's rooms stand in no other row of `sim` in `FLOORS`."""

CONTRACTS = {
    ("gateway", "readers"): {"readers.wire", "readers.advertisement", "readers.files", "readers.terminal"},
    ("city", "gateway"): {"gateway.cries", "gateway.events", "gateway.packets", "gateway.uplink"},
    ("sim", "gateway"): {"gateway.uplink", "gateway.zone", *PLANNER},
    ("city", "readers"): {"readers.files", "readers.terminal"},
    ("sim", "readers"): {
        "readers.wire",
        "readers.advertisement",
        "readers.build",
        "readers.files",
        "readers.terminal",
    },
}
"""What one part of the product may know of another: these files, and nothing else of it."""

FILES_MAX = 15
"""A room of more files is two rooms."""


@dataclass
class House:
    """What was measured: files by room, and every import between two files of the product."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    arrows: set[tuple[str, str]] = field(default_factory=set)
    """(importing module, imported module), dotted."""
    rooms: dict[str, str] = field(default_factory=dict)
    """module -> its room"""

    def between(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Return the arrows between rooms: (importing room, imported room) -> the files' arrows behind it."""
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for one, other in sorted(self.arrows):
            if self.rooms[one] != self.rooms[other]:
                found.setdefault((self.rooms[one], self.rooms[other]), []).append((one, other))
        return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, root: Path = ROOT) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of every import in a file, relative ones resolved."""
    for node in ast.walk(parsed(path)):
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


@functools.cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return every module of the product by its dotted name, the stand-ins apart."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if STAND_INS not in path.relative_to(root).parents:
                parts = path.relative_to(root).with_suffix("").parts
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


@functools.cache
def defined(path: Path) -> frozenset[str]:
    """Return the names that a file gives a meaning at its top: definitions and assignments, not imports."""
    found: set[str] = set()

    def take(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For)):
                take([each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)])
            else:
                names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
                found.update(each.id for each in names if isinstance(each.ctx, ast.Store))

    take(parsed(path).body)
    return frozenset(found)


def measure(root: Path = ROOT) -> House:
    """Read the house as it stands."""
    house = House()
    paths = modules(root)
    for module, path in paths.items():
        room = module if path.stem == "__main__" else ".".join(path.relative_to(root).parent.parts)
        house.rooms[module] = room
        house.files.setdefault(room, []).append(path)
    for module, path in paths.items():
        for name, _ in imports(path, root):
            target = name if name in paths else name.rpartition(".")[0]
            if target in paths and target != module:
                house.arrows.add((module, target))
    return house


def faces_imported(house: House, root: Path = ROOT) -> list[str]:
    """Return the imports that name a room instead of a file of it: what they reach cannot be read from the source."""
    faces = {module for module, path in modules(root).items() if path.stem == "__init__"}
    return sorted(f"{one} imports the room {other}" for one, other in house.arrows if other in faces)


def floor_of(room: str) -> int | None:
    """Return on which floor a room stands by the table, 0 the ground; None: it is not in the table."""
    return next((n for n, floor in enumerate(FLOORS) if room in floor), None)


def backward(house: House) -> list[str]:
    """Return the arrows between rooms that do not point to a lower floor."""
    found = []
    for (one, other), arrows in house.between().items():
        upper, lower = floor_of(one), floor_of(other)
        if upper is None or lower is None or upper <= lower:
            found += [f"{a} -> {b}" for a, b in arrows]
    return found


def circles(edges: set[tuple[str, str]]) -> list[str]:
    """Return the circles of a graph, each as a text `a -> b -> a`; one for each way back that is met."""
    follow: dict[str, list[str]] = {}
    for one, other in sorted(edges):
        follow.setdefault(one, []).append(other)
    found: list[str] = []
    done: set[str] = set()
    trail: list[str] = []

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
    """Print every room, from the top floor down: files, lines, which rooms it imports and which import it."""
    house = measure()
    between = house.between()
    for number, floor in reversed(list(enumerate(FLOORS))):
        print(f"floor {number}")
        for room in floor:
            paths = house.files[room]
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
            core = "core" if room in CORE else ""
            below = sorted(other for one, other in between if one == room)
            above = sorted(one for one, other in between if other == room)
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
