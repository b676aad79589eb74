"""Who may import whom: the table of `tests.rooms`, held against the source. `python -m tests.rooms` prints it."""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rooms
from tests.roots import ROOT

TEST_LINES_MAX = 450
HOUSE = rooms.measure()
MODULES = rooms.modules()
PARTS = {*rooms.PACKAGES, "deploy", "firmware", "tests"}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def typing_only(path: Path) -> set[int]:
    """Return the lines of the bodies of `if TYPE_CHECKING:`, which never run: a type may name what code may not use."""
    found: set[int] = set()
    for node in ast.walk(rooms.parsed(path)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for each in node.body:
                found.update(range(each.lineno, (each.end_lineno or each.lineno) + 1))
    return found


def strays_of_core(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Yield what a file of a core room may not do: an import, a call, or a question to the clock or to chance."""
    hidden = typing_only(path)
    for name, line in rooms.imports(path, root):
        top = name.split(".")[0]
        allowed = top in {*rooms.CORE_MAY, "gateway", "readers"} and name not in rooms.CORE_MAY_NOT_ASK
        if line not in hidden and not allowed:
            yield f"{shown(path)}:{line} imports {name}"
    for node in ast.walk(rooms.parsed(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in rooms.CORE_MAY_NOT_CALL:
            yield f"{shown(path)}:{node.lineno} uses {node.id}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in rooms.CORE_MAY_NOT_ASK:
            yield f"{shown(path)}:{node.lineno} asks for {ast.unparse(node)}"
        if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING" and isinstance(node.ctx, ast.Store):
            yield f"{shown(path)}:{node.lineno} gives TYPE_CHECKING a value"


# ---- the table ------------------------------------------------------------------------------------------------------


def test_every_room_stands_on_one_floor() -> None:
    listed = [room for floor in rooms.FLOORS for room in floor]
    assert not [room for room in HOUSE.files if room not in listed], "rooms without a floor in tests/rooms.py"
    assert not [room for room in listed if room not in HOUSE.files], "rooms of tests/rooms.py that are no folders"
    assert len(listed) == len(set(listed))


def test_the_table_allows_only_lower_floors() -> None:
    for number, floor in enumerate(rooms.FLOORS):
        for room, below in floor.items():
            for other in below:
                level = rooms.floor_of(other)
                assert level is not None, f"{room} may import {other}, which is no room"
                assert level < number, f"{room} may import {other}, which is not below it"


def test_a_room_imports_only_the_rooms_it_may() -> None:
    allowed = {room: set(below) for floor in rooms.FLOORS for room, below in floor.items()}
    strays = [
        f"{a} imports {b}: {one} may import {', '.join(sorted(allowed[one])) or 'nothing of ours'}"
        for (one, other), arrows in HOUSE.between().items()
        if other not in allowed[one]
        for a, b in arrows
    ]
    assert not strays, "\n".join(strays)


def test_no_permission_is_unused() -> None:
    used = set(HOUSE.between())
    stale = [
        f"{room} -> {other}"
        for floor in rooms.FLOORS
        for room, below in floor.items()
        for other in below
        if (room, other) not in used
    ]
    assert not stale, f"strike from tests/rooms.py: {', '.join(stale)}"


def test_no_arrow_runs_back_up_and_nothing_goes_in_circles() -> None:
    assert not rooms.backward(HOUSE)
    assert not rooms.circles(set(HOUSE.between()))
    assert not rooms.circles(HOUSE.arrows)


def test_a_file_is_imported_and_never_its_room() -> None:
    """`from gateway import box` reaches what nobody can read from the source; so do imports that run as text."""
    assert not rooms.faces_imported(HOUSE)
    strays = []
    for module, path in MODULES.items():
        for node in ast.walk(rooms.parsed(path)):
            if isinstance(node, ast.Import):
                strays += [
                    f"{module} says import {each.name}" for each in node.names if each.name.split(".")[0] in PARTS
                ]
            if isinstance(node, ast.ImportFrom) and (node.level or any(each.name == "*" for each in node.names)):
                strays.append(f"{module}:{node.lineno} has a relative or a star import")
            if isinstance(node, ast.Name) and node.id in {
                "__import__",
                "exec",
                "eval",
                "import_module",
                "resolve_name",
            }:
                strays.append(f"{module}:{node.lineno} uses {node.id}")
            if isinstance(node, ast.Attribute) and node.attr in {"import_module", "resolve_name", "modules"}:
                strays.append(f"{module}:{node.lineno} uses .{node.attr}")
    assert not strays, "\n".join(strays)


def test_every_file_is_imported_by_another_or_is_what_a_person_types() -> None:
    wanted = {other for _, other in HOUSE.arrows}
    alone = [name for name, path in MODULES.items() if name not in wanted and path.stem not in ("__init__", "__main__")]
    assert not alone, f"nobody imports {', '.join(alone)}"


# ---- the core -------------------------------------------------------------------------------------------------------


def test_the_core_is_what_decides_about_a_child() -> None:
    assert set(rooms.CORE) == {"gateway", "gateway.core", "gateway.locate", "gateway.presence"}
    assert sys.stdlib_module_names | {"msgspec", "numpy"} >= rooms.CORE_MAY
    assert not rooms.CORE_MAY & {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "sqlite3", "time"}


@pytest.mark.parametrize("room", rooms.CORE)
def test_a_core_room_knows_no_clock_disk_network_chance_or_log(room: str) -> None:
    paths = [path for path in HOUSE.files[room] if path.stem != "__main__"]
    assert len(paths) > 1, f"{room} is empty"
    strays = [stray for path in paths for stray in strays_of_core(path)]
    assert not strays, "\n".join(strays)


def test_a_core_room_imports_only_core_rooms_and_readers() -> None:
    strays = [
        f"{one} -> {other}"
        for one, other in HOUSE.between()
        if one in rooms.CORE and other not in (*rooms.CORE, "readers")
    ]
    assert not strays, f"the core does not know the shell: {', '.join(strays)}"


# ---- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "other"), rooms.CONTRACTS)
def test_a_part_knows_only_the_contract_of_another(part: str, other: str) -> None:
    across = {(a, b) for a, b in HOUSE.arrows if a.split(".")[0] == part and b.split(".")[0] == other}
    assert {b for _, b in across} == rooms.CONTRACTS[part, other]


def test_parts_that_have_no_contract_know_nothing_of_each_other() -> None:
    across = {(a.split(".")[0], b.split(".")[0]) for a, b in HOUSE.arrows}
    assert {pair for pair in across if pair[0] != pair[1]} == set(rooms.CONTRACTS)


def test_nobody_imports_sim_firmware_or_tests() -> None:
    strays = [
        f"{module}:{line} imports {name}"
        for module, path in MODULES.items()
        for name, line in rooms.imports(path)
        if name.split(".")[0] in {"sim", "firmware", "tests"} - {module.split(".")[0]}
    ]
    assert not strays, "\n".join(strays)


def plain(name: str) -> str:
    """Return a distribution's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("part", rooms.PACKAGES)
def test_a_part_imports_only_what_its_role_installs(part: str) -> None:
    """So a gateway box with `locks/gateway.txt` alone can import every file of `gateway/`, and the emulated stick is
    independent of bellows and zigpy."""
    role = {"readers": "reader"}.get(part, part)
    roles = ("reader", "gateway") if part == "readers" else (role,)  # a gateway uses the wire and the advertisement
    locks = "\n".join((ROOT / "locks" / f"{each}.txt").read_text(encoding="utf-8") for each in roles)
    installed = {plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", locks, re.MULTILINE)}
    homes = importlib.metadata.packages_distributions()
    strays = []
    for module, path in MODULES.items():
        if module.split(".")[0] != part:
            continue
        hidden = typing_only(path)
        for name, line in rooms.imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in PARTS or line in hidden:
                continue
            if not {plain(owner) for owner in homes.get(top, [])} & installed:
                strays.append(f"{module}:{line} imports {name}, which locks/{role}.txt does not install")
    assert not strays, "\n".join(strays)


def test_the_wire_imports_struct_and_nothing_else() -> None:
    path = ROOT / "readers" / "wire.py"
    hidden = typing_only(path)
    assert {name.split(".")[0] for name, line in rooms.imports(path) if line not in hidden} == {"struct"}


def test_firmware_imports_only_what_a_reader_has() -> None:
    """Its own files, the wire, and the modules of MicroPython 1.20 on an XBee 3 (Digi's included)."""
    own = {path.stem for path in (ROOT / "firmware").glob("*.py")} | {"wire", "config"}
    device = {
        "xbee", "digi", "machine", "micropython", "gc", "sys", "struct", "ustruct", "time", "utime", "os", "uos",
        "hashlib", "uhashlib", "binascii", "ubinascii", "errno", "uerrno",
    }  # fmt: skip
    paths = sorted((ROOT / "firmware").rglob("*.py"))
    assert paths
    assert all(path.parent.name == "firmware" for path in paths), "a reader's flash is flat"
    strays = [
        f"{shown(path)}:{line} imports {name}"
        for path in paths
        for name, line in rooms.imports(path)
        if name.split(".")[0] not in own | device
    ]
    assert not strays, "\n".join(strays)


def test_wire_is_what_the_reader_gets() -> None:
    manifest = (ROOT / "firmware" / "manifest.txt").read_text(encoding="utf-8").split()
    assert "../readers/wire.py" in manifest


def test_the_product_lies_in_its_parts() -> None:
    """Code in another folder of the top would stand on no floor."""
    found = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py") if path.parent.name[0] != "."}
    assert found - {"build", "run"} == PARTS
    assert not list(ROOT.glob("*.py"))


# ---- rooms, files and names -----------------------------------------------------------------------------------------


def test_a_room_is_small_and_its_files_do_not_repeat_its_name() -> None:
    assert rooms.FILES_MAX <= 15
    for room, paths in HOUSE.files.items():
        assert len(paths) <= rooms.FILES_MAX, f"{room} holds {len(paths)} files: two rooms"
        name = room.rpartition(".")[2].removesuffix("s")
        repeats = [path.name for path in paths if re.search(rf"(^|_){name}s?(_|$)", path.stem) and name != "__main__"]
        assert not repeats, f"{room}: {', '.join(repeats)}: the folder says it already"


def test_a_rooms_face_says_what_it_is_for_and_does_nothing() -> None:
    for room, paths in HOUSE.files.items():
        if room.endswith("__main__"):
            continue
        face = next((path for path in paths if path.stem == "__init__"), None)
        assert face is not None, f"{room} has no __init__.py"
        tree = rooms.parsed(face)
        assert ast.get_docstring(tree), f"{shown(face)} has no sentence on what the room is for"
        assert len(tree.body) == 1, f"{shown(face)} does more than say what the room is for"


def types_of(tree: ast.AST, outer: bool = True) -> Iterator[str]:
    """Yield the names of types that a file defines, wherever in it: classes, and names that look like a type's."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and getattr(node, "col_offset", 1) == 0:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        elif isinstance(node, ast.alias) and node.asname and node.asname != node.name:
            names = [node.asname]
        yield from (name for name in names if re.fullmatch(r"_?[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name))


def test_a_type_has_one_name_and_a_name_means_one_type() -> None:
    """`Floats` and `Ints` are two: the simulator knows of the gateway only its contract."""
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for name in types_of(rooms.parsed(path)):
            homes.setdefault(name, []).append(module)
    twice = {name: sorted(modules) for name, modules in homes.items() if len(modules) > 1}
    assert set(twice) == {"Floats", "Ints"}, twice


def test_a_name_comes_from_where_it_is_defined() -> None:
    """No file hands on what another made: a reader who follows an import lands at the definition."""
    strays = []
    for module, path in MODULES.items():
        for node in ast.walk(rooms.parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                known = rooms.defined(MODULES[node.module])
                strays += [
                    f"{module} takes {alias.name} from {node.module}"
                    for alias in node.names
                    if alias.name not in known and f"{node.module}.{alias.name}" not in MODULES
                ]
    assert not strays, "\n".join(strays)


# ---- tests ----------------------------------------------------------------------------------------------------------


def test_the_tests_mirror_the_tree() -> None:
    top = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert top == PARTS - {"tests"} | {"bench", "recipes", "story", "vectors"}
    for package in rooms.PACKAGES:
        for folder in sorted((ROOT / "tests" / package).rglob("*")):
            if folder.is_dir() and folder.name != "__pycache__":
                room = ROOT / folder.relative_to(ROOT / "tests")
                assert room.is_dir(), f"{shown(folder)} tests a room that is not there"


def test_no_test_file_is_about_two_things() -> None:
    long = [
        f"{shown(path)}: {lines} lines"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > TEST_LINES_MAX
    ]
    assert not long, f"split by what they are about: {', '.join(long)}"


# ---- the checkers themselves ----------------------------------------------------------------------------------------


def test_the_checkers_see_a_stray(tmp_path: Path) -> None:
    for name, text in {
        "gateway/core/__init__.py": "",
        "gateway/core/sos.py": "from gateway.box import daemon\nfrom gateway import box\n",
        "gateway/core/alarms.py": "from . import sos\n",
        "gateway/box/__init__.py": "",
        "gateway/box/daemon.py": "from gateway.core import sos\nfrom gateway.box.clock import now\n",
        "gateway/box/clock.py": "def f():\n    from gateway.box import daemon\n",
        "gateway/core/device/x.py": "from gateway.box import daemon\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    house = rooms.measure(tmp_path)
    assert set(rooms.backward(house)) >= {"gateway.core.sos -> gateway.box.daemon", "gateway.core.sos -> gateway.box"}
    assert "gateway.core.device.x -> gateway.box.daemon" in rooms.backward(house)
    assert rooms.circles(set(house.between())) == ["gateway.box -> gateway.core -> gateway.box"]
    assert "gateway.box.clock -> gateway.box.daemon -> gateway.box.clock" in rooms.circles(house.arrows)
    assert rooms.faces_imported(house, tmp_path) == ["gateway.core.sos imports the room gateway.box"]
    assert ("gateway.core.alarms", "gateway.core.sos") in house.arrows


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("import time\n", True),
        ("import os.path as p\n", True),
        ("def f():\n    from asyncio import run\n", True),
        ("from datetime import datetime\nWHEN = datetime.now\n", True),
        ("from numpy import random\n", True),
        ("import numpy as np\nX = np.random.rand()\n", True),
        ("print('hello')\n", True),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import time\n", True),
        ("TYPE_CHECKING = True\n", True),
        ("if TYPE_CHECKING:\n    from pathlib import Path\n", False),
        ("import math\nfrom gateway.zone import Zone\n", False),
    ],
)
def test_the_check_of_the_core_sees_what_it_should(tmp_path: Path, text: str, seen: bool) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    assert bool(list(strays_of_core(path, tmp_path))) is seen
