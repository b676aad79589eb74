"""Who may import whom. Read from the source with `ast`, so nothing is run and a lazy import counts as well."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"readers", "gateway", "city", "sim", "firmware", "tests"}

# The shell of the gateway: serial line, disk, network, tasks. Every other file of gateway/ is core.
GATEWAY_SHELL = {
    "bells",
    "coordinator",
    "config",
    "options",
    "outbox",
    "mqtt",
    "daemon",
    "clock",
    "metrics",
    "__main__",
    "admission",
    "store",
    "rows",
    "salvage",
    "ballast",
    "connection",
    "sender",
    "notify_systemd",
    "steps",
    "recording",
    "record_write",
    "record_locate",
    "record_commands",
    "record_server",
    "record_live",
    "record_survey",
    "record_truth",
    "record_calibrate",
}
CORE_MAY_NOT = {
    "asyncio", "socket", "sqlite3", "time", "random", "logging", "threading", "subprocess", "os", "pathlib", "io",
    "structlog", "paho", "bellows", "zigpy", "serial", "secrets",
}  # fmt: skip
SIM_MAY = (
    "gateway.events",
    "gateway.frames",
    "gateway.uplink",
    "gateway.zone",
    "readers.wire",
    "readers.advertisement",
    "readers.build",
)
CITY_MAY = ("gateway.events", "gateway.uplink")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of every import in a file, relative ones resolved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parent.parts
                base = ".".join((*package[: len(package) - node.level + 1], *([base] if base else [])))
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(each + ".") for each in allowed)


def complaint(path: Path, name: str) -> str | None:
    """Return why this file may not import that name, or None."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package, stem, top = parts[0], parts[1], name.split(".")[0]
    if top == package and package != "gateway":
        return None
    if top in ("sim", "tests") and package not in ("sim", "tests"):
        return "nobody imports sim or tests"
    if package == "tests":
        return None
    if package == "readers":
        if stem == "wire" and name != "struct":
            return "readers/wire.py imports struct and nothing else"
        return "readers knows nothing of ours" if top in OURS else None
    if package == "gateway":
        shell = stem in GATEWAY_SHELL
        if top == "gateway":
            target = [*name.split("."), ""][1]
            return "the core does not know the shell" if not shell and target in GATEWAY_SHELL else None
        if not shell and top in CORE_MAY_NOT:
            return f"the core does not know {top}"
        if top == "readers":
            return None if within(name, ("readers.wire", "readers.advertisement")) else "gateway knows the wire only"
        return "gateway knows only readers" if top in OURS else None
    if package == "city":
        return None if top not in OURS or within(name, CITY_MAY) else f"city knows only {', '.join(CITY_MAY)}"
    if package == "sim" and "device" not in parts:
        if top in ("bellows", "zigpy"):
            return "the emulator is independent of bellows and zigpy"
        return None if top not in OURS or within(name, SIM_MAY) else f"sim knows only {', '.join(SIM_MAY)}"
    return None


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["readers", "gateway", "city", "sim"])
def test_imports_point_one_way(package: str) -> None:
    paths = files(package)
    assert paths, f"{package}/ has no Python file"
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: {why}"
        for path in paths
        for name, line in imports(path)
        if path.name != "wire.py" or name.split(".")[0] != "collections"  # behind TYPE_CHECKING, never run
        if (why := complaint(path, name))
    ]
    assert not strays, "\n".join(strays)


def test_firmware_imports_only_what_a_reader_has() -> None:
    """Its own files, the wire, and the modules of MicroPython 1.20 on an XBee 3 (Digi's included)."""
    own = {path.stem for path in (ROOT / "firmware").glob("*.py")} | {"wire", "config"}
    device = {
        "xbee", "digi", "machine", "micropython", "gc", "sys", "struct", "ustruct", "time", "utime", "os", "uos",
        "hashlib", "uhashlib", "binascii", "ubinascii", "errno", "uerrno",
    }  # fmt: skip
    paths = sorted((ROOT / "firmware").glob("*.py"))
    assert paths
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line in imports(path)
        if name.split(".")[0] not in own | device
    ]
    assert not strays, "\n".join(strays)


def test_wire_is_what_the_reader_gets() -> None:
    manifest = (ROOT / "firmware" / "manifest.txt").read_text(encoding="utf-8").split()
    assert "../readers/wire.py" in manifest


def test_imports_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("readers", "gateway", "city", "sim")
        for path in files(package)
        if "device" not in path.parts
    }
    for module, path in modules.items():
        names = {name for name, _ in imports(path)}
        graph[module] = {
            other
            for other in modules
            if other != module and any(n == other or n.startswith(other + ".") for n in names)
        }
        # `from gateway import x` names the package too: only the module itself counts
        graph[module] = {o for o in graph[module] if not any(p != o and p.startswith(o + ".") for p in graph[module])}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "import cycle: " + " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    sys.setrecursionlimit(10_000)
    for module in sorted(graph):
        visit(module, ())


def test_the_checker_sees_a_stray() -> None:
    assert complaint(ROOT / "gateway" / "settle.py", "time") == "the core does not know time"
    assert complaint(ROOT / "gateway" / "settle.py", "gateway.outbox") == "the core does not know the shell"
    assert (
        complaint(ROOT / "gateway" / "locate" / "grid.py", "gateway.mqtt.Client") == "the core does not know the shell"
    )
    assert complaint(ROOT / "city" / "store.py", "gateway.frames.Frame")
    assert complaint(ROOT / "city" / "store.py", "gateway.events.Sos") is None
    assert complaint(ROOT / "sim" / "ezsp.py", "bellows.types")
    assert complaint(ROOT / "gateway" / "daemon.py", "sim.world")
    assert complaint(ROOT / "readers" / "wire.py", "hashlib")
