"""docs/LOCATING.md names every constant of the engine with the value that it has in the code."""

import ast
import functools
import importlib
import re
from collections.abc import Iterator
from typing import Any

from tests.roots import ROOT

FIX = ROOT / "gateway" / "fix.py"
ENGINE = [*sorted((ROOT / "gateway" / "locate").glob("[a-z]*.py")), FIX]
PAGE = (ROOT / "docs" / "LOCATING.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+(?:\.\w+)+)` \| ([^|]*) \|", re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def assigned(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield the public upper-case names that a file, or a public class in it, assigns."""
    for node in tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f"{node.name}.{name}" for name in assigned(node))
        for target in targets:
            for each in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(each, ast.Name) and each.id.isupper() and not each.id.startswith("_"):
                    yield each.id


@functools.cache
def constants() -> dict[str, Any]:
    """Return every constant by its name on the page: file.NAME."""
    found = {}
    for path in ENGINE:
        module = importlib.import_module(f"gateway.{'' if path == FIX else 'locate.'}{path.stem}")
        for name in assigned(ast.parse(path.read_text(encoding="utf-8"))):
            value: Any = module
            for part in name.split("."):
                value = getattr(value, part)
            found[f"{path.stem}.{name}"] = value
    return found


def flat(value: Any) -> list[float] | None:
    """Return the numbers of a constant, in order; None if it holds anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, tuple)):
        return None
    if not isinstance(value, tuple):
        return [float(value)]
    parts = [flat(each) for each in value]
    return None if None in parts else [x for part in parts if part for x in part]


def shown(value: Any) -> str:
    return ", ".join(f"{x:.12g}" for x in flat(value) or [])


def told(cell: str, value: Any, module: dict[str, Any]) -> bool:
    """Return whether a cell holds these numbers, or the names of the constants that make up the tuple."""
    numbers = [float(x) for x in NUMBER.findall(cell)]
    if numbers:
        return numbers == flat(value)
    names = [name.strip() for name in cell.split(",")]
    return bool(names[0]) and tuple(module.get(name) for name in names) == value


def test_every_constant_of_the_engine_is_on_the_page_with_its_value() -> None:
    rows, complaints = dict(ROW.findall(PAGE)), []
    for name, value in constants().items():
        if flat(value) is None:
            if f"`{name}`" not in PAGE:
                complaints.append(f"no row for `{name}`")
            continue
        file = name.split(".")[0]
        module = {n.removeprefix(f"{file}."): v for n, v in constants().items() if n.startswith(f"{file}.")}
        if name not in rows:
            complaints.append(f"no row for it: | `{name}` | {shown(value)} | unit | meaning |")
        elif not told(rows[name], value, module):
            complaints.append(f"`{name}` is {shown(value)}, the page says {rows[name]}")
    assert not complaints, "docs/LOCATING.md, Constants:\n" + "\n".join(complaints)


def test_the_page_names_no_constant_that_is_gone() -> None:
    files = {path.stem for path in ENGINE}
    known = constants()
    rows = (name for name, _ in ROW.findall(PAGE) if name.rpartition(".")[2].isupper())
    gone = [name for name in rows if name.split(".")[0] in files and name not in known]
    assert not gone, "docs/LOCATING.md, Constants: not in gateway/locate any more: " + ", ".join(gone)


def test_the_page_has_what_it_promises() -> None:
    for title in ("Accuracy", "Radii", "Street and Cramer-Rao", "Zones", "Speed", "What it cannot do", "Calibration"):
        assert f"\n## {title}\n" in PAGE
    for command in ("record", "calibrate", "locate", "picture"):
        assert f"`ansim-gateway {command}" in PAGE
