"""`make` notices a virtual environment that no longer serves: its Python was replaced, or the checkout was moved."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.roots import ROOT


def plan(checkout: Path) -> str:
    """Return what `make demo` would do, without doing it."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # we may run under make
    made = subprocess.run(
        ["make", "-n", "demo", f"PYTHON={sys.executable}"],
        cwd=checkout, env=alone, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return made.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a whole virtual environment, as far as make looks at it."""
    made = tmp_path / "here"
    (made / "locks").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", made)
    (made / "locks" / "demo.txt").touch()
    (made / "pyproject.toml").touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made / ".venv")], check=True)
    config = made / ".venv" / "pyvenv.cfg"
    config.write_text(config.read_text().replace("--without-pip ", ""))
    (made / ".venv" / "bin" / "pip").touch()
    (made / ".venv" / ".demo.stamp").touch()
    return made


def test_a_whole_one_is_used(checkout: Path) -> None:
    assert plan(checkout).split() == ["exec", "setpriv", "--pdeathsig", "TERM", ".venv/bin/ansim-sim", "demo"]


def test_one_that_is_reached_by_a_link_is_used(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(checkout)
    assert "anew" not in plan(tmp_path / "link")


@pytest.mark.parametrize(
    ("worn", "why"),
    [("gone", "its Python is gone"),
     ("upgraded", "and it was made for 3.10"), ("moved", "it was made in another folder"),
     ("copied", "it was made in another folder"), ("unfinished", "it was not finished")],
)  # fmt: skip
def test_one_that_no_longer_serves_is_made_anew_and_one_line_says_why(checkout: Path, worn: str, why: str) -> None:
    if worn == "gone":
        for link in (checkout / ".venv" / "bin").glob("python*"):
            link.unlink()
        (checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    elif worn == "upgraded":
        config = checkout / ".venv" / "pyvenv.cfg"
        lines = ["version = 3.10.4" if line.startswith("version") else line for line in config.read_text().splitlines()]
        config.write_text("\n".join(lines))
    elif worn == "moved":
        checkout = checkout.rename(checkout.with_name("there"))
    elif worn == "copied":
        checkout = Path(shutil.copytree(checkout, checkout.with_name("there"), symlinks=True))
    else:
        (checkout / ".venv" / "bin" / "pip").unlink()
    steps = plan(checkout)
    assert steps.count(why) == 1
    order = [
        "rm -rf .venv",
        "-m venv .venv",
        "-r locks/demo.txt",
        "touch .venv/.demo.stamp",
        ".venv/bin/ansim-sim demo",
    ]
    assert [steps.index(step) for step in order] == sorted(steps.index(step) for step in order)


def test_clean_keeps_the_folder_of_a_demo_that_runs(checkout: Path) -> None:
    held = checkout / "run" / "demo-20260101-000000" / "held"
    held.parent.mkdir(parents=True)
    with subprocess.Popen(
        ["flock", str(held), "sh", "-c", "echo held; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        made = subprocess.run(["make", "clean"], cwd=checkout, capture_output=True, text=True, check=False)
        assert made.returncode == 2
        assert "a demo runs in run/demo-20260101-000000; end it first" in made.stdout
        assert held.exists()
        assert (checkout / ".venv").exists()
        demo.communicate(b"\n")
    subprocess.run(["make", "clean"], cwd=checkout, capture_output=True, check=True)
    assert not held.exists()
    assert not (checkout / ".venv").exists()
