"""Which room may import which: the table of `tests.rooms`, checked on the source. `python -m tests.rooms` prints it."""

import ast
import re
from pathlib import Path

import pytest

from tests import rooms
from tests.roots import ROOT

CORE_MAY_NOT = {
    "asyncio", "socket", "sqlite3", "time", "random", "logging", "threading", "subprocess", "os", "pathlib", "io",
    "structlog", "paho", "bellows", "zigpy", "serial", "secrets",
}  # fmt: skip
TEST_LINES_MAX = 450
HOUSE = rooms.measure()


def ours(path: Path) -> bool:
    return "device" not in path.parts


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py")) if ours(path)]


def typing_only(path: Path) -> set[int]:
    """Return the lines behind `if TYPE_CHECKING:`, which never run: a type may name what the code may not use."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def strays_of_core(path: Path, may_not: set[str]) -> list[str]:
    hidden = typing_only(path)
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for name, line in rooms.imports(path)
        if name.split(".")[0] in may_not and line not in hidden
    ]


def test_every_room_stands_on_a_floor() -> None:
    missing = [room for room in HOUSE.files if rooms.floor_of(room) is None]
    gone = [room for floor in rooms.FLOORS for room in floor if room not in HOUSE.files]
    assert not missing, f"rooms without a floor in tests/rooms.py: {', '.join(missing)}"
    assert not gone, f"rooms of tests/rooms.py that are no folders: {', '.join(gone)}"


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


@pytest.mark.parametrize("room", rooms.CORE)
def test_a_core_room_knows_no_clock_disk_network_chance_or_log(room: str) -> None:
    paths = HOUSE.files[room]
    assert len(paths) > 1, f"{room} is empty"
    strays = [stray for path in paths for stray in strays_of_core(path, CORE_MAY_NOT)]
    assert not strays, "\n".join(strays)


def test_a_core_room_imports_only_core_rooms_and_readers() -> None:
    strays = [
        f"{one} -> {other}"
        for one, other in HOUSE.between()
        if one in rooms.CORE and other not in (*rooms.CORE, "readers")
    ]
    assert not strays, f"the core does not know the shell: {', '.join(strays)}"


@pytest.mark.parametrize(("part", "other"), rooms.CONTRACTS)
def test_a_part_knows_only_the_contract_of_another(part: str, other: str) -> None:
    may = rooms.CONTRACTS[part, other]
    across = {(a, b) for a, b in HOUSE.arrows if a.split(".")[0] == part and b.split(".")[0] == other}
    assert across
    assert not [f"{a} -> {b}" for a, b in sorted(across) if b not in may]


def test_parts_that_have_no_contract_know_nothing_of_each_other() -> None:
    across = {(a.split(".")[0], b.split(".")[0]) for a, b in HOUSE.arrows}
    assert {pair for pair in across if pair[0] != pair[1]} == set(rooms.CONTRACTS)


def test_nobody_imports_sim_or_tests_and_the_emulator_stands_alone() -> None:
    strays = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources("readers", "gateway", "city", "sim")
        for name, line in rooms.imports(path)
        if name.split(".")[0] == "tests"
        or (name.split(".")[0] == "sim" and path.relative_to(ROOT).parts[0] != "sim")
        or (name.split(".")[0] in ("bellows", "zigpy") and path.relative_to(ROOT).parts[0] == "sim")
    ]
    assert not strays, "\n".join(strays)


def test_the_wire_imports_struct_and_nothing_else() -> None:
    path = ROOT / "readers" / "wire.py"
    hidden = typing_only(path)
    assert {name.split(".")[0] for name, line in rooms.imports(path) if line not in hidden} == {"struct"}


def test_firmware_imports_only_what_a_reader_has() -> None:
    """The allowed modules: its own files, the wire, and those of MicroPython 1.20 on an XBee 3 (Digi's included)."""
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
        for name, line in rooms.imports(path)
        if name.split(".")[0] not in own | device
    ]
    assert not strays, "\n".join(strays)


def test_wire_is_what_the_reader_gets() -> None:
    manifest = (ROOT / "firmware" / "manifest.txt").read_text(encoding="utf-8").split()
    assert "../readers/wire.py" in manifest


def test_a_room_is_small_and_its_files_do_not_repeat_its_name() -> None:
    for room, paths in HOUSE.files.items():
        assert len(paths) <= rooms.FILES_MAX, f"{room} holds {len(paths)} files: two rooms"
        name = room.rpartition(".")[2]
        if name == "__main__":
            continue
        repeats = [path.name for path in paths if re.match(rf"{name}(_|\.py)", path.name)]
        assert not repeats, f"{room}: {', '.join(repeats)}: the folder says it already"


def test_a_rooms_face_says_what_it_is_for_and_defines_nothing() -> None:
    for package in ("gateway", "sim", "city", "readers"):
        for path in sorted((ROOT / package).rglob("__init__.py")):
            if not ours(path):
                continue
            body = ast.parse(path.read_text(encoding="utf-8")).body
            shown = path.relative_to(ROOT)
            assert body, f"{shown} says nothing"
            assert isinstance(body[0], ast.Expr), f"{shown} has no sentence on what the room is for"
            assert not body[1:], f"{shown} does more than say what the room is for"


def test_a_type_has_one_name_and_a_name_means_one_type() -> None:
    """`Floats` and `Ints` are defined twice, because the simulator may import only the contract of the gateway."""
    homes: dict[str, set[str]] = {}
    for path in sources("readers", "gateway", "city", "sim"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            for name in names:
                if name[:1].isupper() and not name.isupper():
                    homes.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    twice = {name: sorted(paths) for name, paths in homes.items() if len(paths) > 1}
    assert set(twice) == {"Floats", "Ints"}, twice


def test_a_name_comes_from_where_it_is_defined() -> None:
    """No room passes on what another room defines: an import leads straight to the definition."""
    strays = []
    for module, path in rooms.modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in rooms.modules():
                known = rooms.defined(rooms.modules()[node.module])
                strays += [
                    f"{module} takes {alias.name} from {node.module}"
                    for alias in node.names
                    if alias.name not in known and f"{node.module}.{alias.name}" not in rooms.modules()
                ]
    assert not strays, "\n".join(strays)


def test_the_tests_mirror_the_tree() -> None:
    for package in ("readers", "gateway", "city", "sim"):
        for folder in sorted((ROOT / "tests" / package).rglob("*")):
            if folder.is_dir() and folder.name != "__pycache__":
                room = ROOT / folder.relative_to(ROOT / "tests")
                assert room.is_dir(), f"{folder.relative_to(ROOT)} tests a room that is not there"


def test_no_test_file_is_about_two_things() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > TEST_LINES_MAX
    ]
    assert not long, f"split by what they are about: {', '.join(long)}"


def test_the_checkers_see_a_stray(tmp_path: Path) -> None:
    for name, text in {
        "gateway/core/__init__.py": "",
        "gateway/core/sos.py": "from gateway.box import daemon\nimport time\n",
        "gateway/box/__init__.py": "",
        "gateway/box/daemon.py": "from gateway.core import sos\nfrom gateway.box.clock import now\n",
        "gateway/box/clock.py": "def f():\n    from gateway.box import daemon\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    house = rooms.measure(tmp_path)
    assert rooms.backward(house) == ["gateway.core.sos -> gateway.box.daemon"]
    assert rooms.circles(set(house.between())) == ["gateway.box -> gateway.core -> gateway.box"]
    assert "gateway.box.clock -> gateway.box.daemon -> gateway.box.clock" in rooms.circles(house.arrows)
    assert ("time", 2) in set(rooms.imports(tmp_path / "gateway" / "core" / "sos.py", tmp_path))
