"""The documents as a reader finds them: every path, link and module they name exists, and none is an essay."""

import re
import subprocess
from pathlib import Path

import pytest

from tests import programs, rooms
from tests.roots import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOMES = r"(?:gateway|sim|city|readers|firmware|tests|docs|locks|newsfragments|\.ci)"
PLACEHOLDERS = {"tests/bench/NAME.py", *(f"city/pages/NAME.{kind}" for kind in ("html", "css", "py"))}
"""Names that stand for a file which a developer will make."""
CELL_WORDS_MAX, ADR_WORDS_MAX = 60, 700


def named_paths(text: str) -> set[str]:
    """Return the files and folders that a text names from the root of this repository, such as `docs/adr`."""
    found = re.findall(rf"(?<![\w/.<-])(?:\./)?({HOMES}/[\w./{{}},*-]*[\w}}*])", text)
    return {each for name in found for each in _spread(name.split("::")[0])}


def _spread(name: str) -> list[str]:
    """Return the names that `a/{b,c}.py` stands for."""
    head, brace, rest = name.partition("{")
    inner, _, tail = rest.partition("}")
    return [head + each + tail for each in inner.split(",") if "," in inner] if brace else [name]


def links(page: Path) -> set[tuple[str, str]]:
    """Return (path from the root, heading) of every link and picture of a page that leads to this repository."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(\s*([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)
    targets += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    found = set()
    for target in targets:
        if "://" not in target and not target.startswith("mailto:"):
            path, _, heading = target.partition("#")
            home = (page.parent / path).resolve() if path else page
            found.add((str(home.relative_to(ROOT)), heading))
    return found


def headings(page: Path) -> set[str]:
    """Return the names by which a page's headings can be linked to."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def exists(name: str) -> bool:
    return bool(list(ROOT.glob(name))) if "*" in name else (ROOT / name).exists()


def gone_modules(text: str) -> list[str]:
    """Return the dotted names in code marks or behind `-m` that are no module of ours, nor a name that one defines."""
    found = re.findall(r"`((?:gateway|sim|city|readers|tests)(?:\.\w+)+)[`(]", text)
    found += re.findall(r"-m ((?:gateway|sim|city|readers|tests)(?:\.\w+)*)", text)
    found = [name for name in found if name.rpartition(".")[2] not in {"json", "toml", "db", "log"}]
    return [name for name in found if not _is_module(name) and not _is_module(name.rpartition(".")[0], name)]


def _is_module(name: str, member: str = "") -> bool:
    path = ROOT / Path(*name.split("."))
    home = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if member:
        return home.is_file() and member.rpartition(".")[2] in rooms.defined(home)
    return home.is_file() or path.is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_link_and_module_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    gone = [name for name in sorted(named_paths(text) - PLACEHOLDERS) if not exists(name)]
    gone += [name for name, _ in sorted(links(page)) if not exists(name)]
    gone += [f"{name}#{heading}" for name, heading in links(page) if heading and heading not in headings(ROOT / name)]
    gone += gone_modules(text)
    assert not gone, f"{page.relative_to(ROOT)} names what is not there: {', '.join(gone)}"


def test_every_path_the_code_names_exists() -> None:
    """Comments, docstrings, scripts and settings too: a name that moved must not mislead anybody."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip(programs.NO_GIT)
    gone = []
    for name in listing.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix not in {".py", ".pyi", ".js", ".css", ".html", ".sh", ".toml", ".ini", ""}:
            continue
        if name in {"LICENSE", "tests/test_pages.py", "tests/test_architecture.py"}:
            continue  # the checks hold names that are not there, on purpose
        found = named_paths(path.read_text(encoding="utf-8"))
        gone += [f"{name}: {each}" for each in sorted(found - PLACEHOLDERS) if "." in each and not exists(each)]
    assert not gone, "\n".join(gone)


def test_the_checks_see_what_is_gone(tmp_path: Path) -> None:
    assert named_paths("`gateway/core/gone.py` ./docs/GONE.md tests/x.py::test_y gateway/{zone,gone}.py") == {
        "gateway/core/gone.py", "docs/GONE.md", "tests/x.py", "gateway/zone.py", "gateway/gone.py",
    }  # fmt: skip
    assert gone_modules("`gateway.core.gone` `gateway.zone.Zone` `gateway.zone.Gone` python -m tests.gone") == [
        "gateway.core.gone", "gateway.zone.Gone", "tests.gone",
    ]  # fmt: skip
    page = ROOT / "docs" / "README.md"
    assert ("docs/ARCHITECTURE.md", "") in links(page)
    assert "the-chain" in headings(ROOT / "docs" / "ARCHITECTURE.md")
    assert ("docs/pictures/console.png", "") in links(ROOT / "README.md")


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = {name for name, _ in links(ROOT / "docs" / "README.md")}
    missing = [page for page in PAGES[1:] if str(page.relative_to(ROOT)) not in listed and page.parent.name != "adr"]
    assert [page.name for page in missing] == ["README.md"]
    assert "docs/adr" in listed


def test_an_adr_is_one_page_and_no_cell_is_an_essay() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.parent.name == "adr":
            assert len(text.split()) <= ADR_WORDS_MAX, f"{page.name} is longer than a page"
        for number, line in enumerate(text.splitlines(), 1):
            for cell in line.strip().strip("|").split(" | ") if line.lstrip().startswith("|") else []:
                words = len(cell.replace("<br>", " ").split())
                assert words <= CELL_WORDS_MAX, f"{page.name}:{number}: a cell of {words} words; use sentences below"


def test_the_drawing_of_the_architecture_names_every_room() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    names = [room.rpartition(".")[2] for floor in rooms.FLOORS for room in floor]
    missing = [name for name in names if not re.search(rf"(?<!\w){name}(?!\w)", page)]
    assert not missing, f"rooms without a word in docs/ARCHITECTURE.md: {', '.join(missing)}"


def test_the_words_have_a_sentence_and_a_korean_term() -> None:
    text = (ROOT / "docs" / "WORDS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert 25 <= len(rows) <= 35
    for word, sentence, korean in rows:
        assert sentence.endswith("."), word
        assert re.search(r"[\uac00-\ud7a3]", korean), f"{word} has no Korean term"
