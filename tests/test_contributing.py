"""What CONTRIBUTING.md says of adding something is true: its files are enough, and each of them is needed.

Every recipe of `tests.recipes` is tried in a copy of the checkout: whole, and without each of its files.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.recipes import recipes
from tests.recipes.recipe import Recipe, rows
from tests.recipes.workshop import EVERYTHING
from tests.roots import ROOT
from tests.test_pages import PAGES

COPIED = (".ci", "city", "deploy", "docs", "firmware", "gateway", "locks", "newsfragments", "readers", "sim", "tests")
FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml")
WORKSHOP_MAX_S = 280


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What was added -> the file that was left out ("": none) -> the first complaint."""
    copy = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("shots", "*.log"))
    for name in FILES:
        shutil.copy2(ROOT / name, copy / name)
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipes.workshop", str(copy)],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, timeout=WORKSHOP_MAX_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return results


def test_every_row_has_its_recipe() -> None:
    assert list(rows()) == [recipe.what for recipe in recipes.ALL]


@pytest.mark.parametrize("recipe", recipes.ALL, ids=lambda recipe: recipe.what)
def test_the_row_names_the_files_of_its_recipe_in_their_order(recipe: Recipe) -> None:
    assert [path.replace("NAME", recipe.name) for path in rows()[recipe.what]] == recipe.files()


@pytest.mark.parametrize("recipe", recipes.ALL, ids=lambda recipe: recipe.what)
def test_with_these_files_it_works_and_is_complete(recipe: Recipe, tried: dict[str, dict[str, str]]) -> None:
    assert not tried[recipe.what][""], tried[recipe.what][""]


def test_everything_at_once_leaves_the_house_in_order(tried: dict[str, dict[str, str]]) -> None:
    assert not tried[EVERYTHING][""], tried[EVERYTHING][""]


@pytest.mark.parametrize("recipe", recipes.ALL, ids=lambda recipe: recipe.what)
def test_no_file_of_the_row_is_there_in_vain(recipe: Recipe, tried: dict[str, dict[str, str]]) -> None:
    unmissed = [path for path in recipe.files() if not tried[recipe.what][path]]
    assert not unmissed, f"nothing complains when these are left out: {', '.join(unmissed)}"


def test_no_page_has_an_odd_phrase() -> None:
    """The left column of "How we write": what readers with school English stumble over."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("\n## How we write")[2].partition("\n## ")[0]
    odd = [
        each.strip() for row in re.findall(r"^\| (.+?) \| .+ \|$", table, re.MULTILINE)[1:] for each in row.split(";")
    ]
    assert len(odd) > 15
    found = []
    for page in PAGES:
        words = " ".join(page.read_text(encoding="utf-8").replace(table, "").split())
        found += [
            f"{page.relative_to(ROOT)}: {each}" for each in odd if re.search(rf"\b{re.escape(each)}\b", words, re.I)
        ]
    assert not found, "\n".join(found)
