"""What a wheel contains: only a test of the wheel finds a folder that packaging forgot."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import programs
from tests.roots import ROOT

PACKAGES = ("readers", "gateway", "city", "sim", "firmware")
LEFT_OUT = {"firmware/mypy.ini"}
"""Only for a checkout: the type check of the firmware."""
IMPORT_ALL = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), f"{name} came from {module.__file__}"
"""


def tracked() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip(programs.NO_GIT)
    return [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in [*tracked(), "pyproject.toml", "README.md", "LICENSE"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(source / "dist"), str(source)], check=True, capture_output=True, text=True)
    [built] = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_carries_every_file_of_the_product(wheel: Path) -> None:
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.split("/")[0] in PACKAGES}
    assert carried == set(tracked()) - LEFT_OUT


def test_every_module_of_the_wheel_imports_from_it(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    names = [
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.endswith(".py") and "/device/" not in name and not name.startswith("firmware/")
    ]
    assert len(names) > 150
    command = [sys.executable, "-c", IMPORT_ALL, str(tmp_path), *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
