"""Duplicate lines: `python -m tests.twice [FOLDER]` counts them, and lists the longest runs.

A run is four or more lines that are the same in two places, apart from white space. Blank lines, comments, imports and
lines without a letter do not count. Product and tests are counted separately; a reader's typings and stand-ins are left
out.
"""

import ast
import itertools
import re
import sys
from collections import defaultdict
from pathlib import Path

from tests.roots import ROOT

RUN_MIN = 4
SHOWN = 12
PRODUCT = ("readers", "gateway", "city", "sim", "firmware")
PASSED = re.compile(r"\s*[#@]|[^A-Za-z]*$")

Place = tuple[str, int]
"""File, and the index of a line in `lines`."""


def lines(path: Path) -> list[tuple[int, str]]:
    """Return (number, text without outer white space) of the lines that count."""
    text = path.read_text(encoding="utf-8")
    passed: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, (ast.Import, ast.ImportFrom)):
            passed.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    numbered = enumerate(text.splitlines(), 1)
    return [(n, line.strip()) for n, line in numbered if n not in passed and not PASSED.match(line)]


def runs(root: Path, folders: tuple[str, ...]) -> tuple[int, int, list[tuple[int, str, str]]]:
    """Return lines read, lines in a run, and the runs as (lines, first place, second place), longest first."""
    files = {
        str(path.relative_to(root)): lines(path)
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        if "device" not in path.parts and "typings" not in path.parts
    }
    where: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for name, rows in files.items():
        for i in range(len(rows) - RUN_MIN + 1):
            where[tuple(text for _, text in rows[i : i + RUN_MIN])].append((name, i))
    twice: set[Place] = set()
    found: list[tuple[int, str, str]] = []
    seen: set[tuple[Place, Place]] = set()
    for places in where.values():
        for place in places if len(places) > 1 else []:
            twice.update((place[0], place[1] + k) for k in range(RUN_MIN))
        for (a, i), (b, j) in itertools.pairwise(places):
            if ((a, i - 1), (b, j - 1)) in seen:
                seen.add(((a, i), (b, j)))
                continue
            seen.add(((a, i), (b, j)))
            size = 0
            while (
                i + size < len(files[a]) and j + size < len(files[b]) and files[a][i + size][1] == files[b][j + size][1]
            ):
                size += 1
            found.append((size, f"{a}:{files[a][i][0]}", f"{b}:{files[b][j][0]}"))
    return sum(map(len, files.values())), len(twice), sorted(found, reverse=True)


def main(root: Path) -> None:
    """Print both counts and the longest runs."""
    for name, folders in (("product", PRODUCT), ("tests", ("tests",))):
        read, twice, found = runs(root, folders)
        share = 100 * twice / max(read, 1)
        print(f"{name}: {twice} of {read} lines stand twice ({share:.1f} %), in {len(found)} pairs of runs")
        for size, one, other in found[:SHOWN]:
            print(f"  {size:3} lines  {one} ~ {other}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
