"""A wheel a role: its own command, starts with its own lock's packages, and has nothing of the other roles for show."""

import base64
import hashlib
import importlib.util
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import rooms
from tests.roots import ROOT

ROLES = ("gateway", "city", "reader", "sim")
COMMANDS = {"gateway": ["schema"], "city": ["check", "missing.toml"], "reader": ["build"], "sim": ["site", "--help"]}
"""One that works, or says in words what is missing, without hardware."""
FOREIGN = {
    "gateway": {"city", "sim", "firmware"},
    "city": {"sim", "firmware"},
    "reader": {"gateway", "city", "sim"},
    "sim": {"city"},
}


def script() -> Any:
    spec = importlib.util.spec_from_file_location("deploy_wheel", ROOT / "deploy" / "wheel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WHEEL = script()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_its_command_alone_and_it_starts(role: str, tmp_path: Path) -> None:
    wheel = WHEEL.build(role, tmp_path / "dist")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    [packages] = (tmp_path / "venv" / "lib").glob("python3*/site-packages")
    # the packages of this environment, but not the product, which is in it by a .pth file of its own
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=120)
    assert [path.name for path in (tmp_path / "venv" / "bin").glob("ansim*")] == [f"ansim-{role}"]

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        at = tmp_path / "venv" / "bin" / f"ansim-{role}"
        return subprocess.run([at, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert run("--help").returncode == 0
    assert run("--version").stdout.startswith("ansim 0.")
    done = run(*COMMANDS[role])
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if role == "city" else 0), done.stderr
    names = [name.removesuffix(".__init__") for name in WHEEL.modules(role)]
    imported = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = subprocess.run([python, "-c", imported, *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_carries_what_it_imports_and_nothing_of_the_others(role: str) -> None:
    carried = {path.parts[0] for path in WHEEL.files(role)}
    assert not carried & FOREIGN[role]
    house = rooms.measure()
    modules = WHEEL.modules(role)
    own = f"{WHEEL.PACKAGES[role]}.__main__"
    assert own in modules
    for one, other in house.arrows:
        assert one not in modules or other in modules, f"{role}: {one} imports {other}, which is not carried"
    commands = {f"{package}.__main__" for package in rooms.PACKAGES} - {own}
    assert not commands & set(modules)
    if role == "city":
        assert {"gateway.events", "gateway.uplink"} <= set(modules), "the contract between the two"
        contract = {"gateway", *rooms.CONTRACTS["city", "gateway"]}
        assert {name for name in modules if name.startswith("gateway")} == contract


def test_no_file_of_the_product_is_in_no_wheel() -> None:
    carried = {str(path) for role in ROLES for path in WHEEL.files(role)}
    left = {str(path.relative_to(ROOT)) for path in rooms.modules().values()} - carried
    assert not left, "files that no command imports: is one dead?"


def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    one, other = (WHEEL.build("reader", tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other


@pytest.mark.parametrize("role", ROLES)
def test_a_wheel_says_what_its_role_asks_for(role: str, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheel = zipfile.ZipFile(WHEEL.build(role, tmp_path))
    about = f"ansim_{role}-{project['version']}.dist-info"
    asked = wheel.read(f"{about}/METADATA").decode()
    assert all(f"Requires-Dist: {each}\n" in asked for each in project["optional-dependencies"][role])
    assert f"Requires-Python: {project['requires-python']}\n" in asked
    assert wheel.read(f"{about}/entry_points.txt").decode().count("=") == 1
    rows = [line.split(",") for line in wheel.read(f"{about}/RECORD").decode().splitlines()]
    assert rows.pop() == [f"{about}/RECORD", "", ""]
    assert {name for name, _, _ in rows} == set(wheel.namelist()) - {f"{about}/RECORD"}
    for name, said, size in rows:
        data = wheel.read(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        assert (said, int(size)) == (f"sha256={digest}", len(data)), name
