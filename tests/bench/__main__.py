"""`make bench`: run every benchmark of this folder, write one Markdown table and one JSON file.

Each module in this folder has `run() -> dict[str, float | int | str]`: figure -> value, the unit last in the name.
A text under the key `_markdown` (tables, for example) is not a figure: it follows the table in the Markdown file.
With names as arguments, only those run. Compare figures of one run only, never figures of two machines.
"""

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def known() -> list[str]:
    """Return the names of all benchmarks: the modules of this folder that are neither helpers nor tests."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("_", "test_")))


def main(names: list[str]) -> int:
    if unknown := [name for name in names if name not in known()]:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known())}")
        return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy reads it at its first import: one core for each method
    machine = {"python": platform.python_version(), "cores": os.cpu_count() or 0, "machine": platform.machine()}
    results: dict[str, dict[str, object]] = {}
    texts: list[str] = []
    for name in names or known():
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        results[name] = dict(importlib.import_module(f"tests.bench.{name}").run())
        texts.append(str(results[name].pop("_markdown", "")))
        results[name]["took_s"] = round(time.perf_counter() - started, 1)
    lines = ["| benchmark | figure | value |", "|---|---|---|"]
    lines += [
        f"| {name} | {figure} | {value} |" for name, figures in results.items() for figure, value in figures.items()
    ]
    lines += ["", *filter(None, texts)]
    Path("bench-results.md").write_text("\n".join(lines).rstrip() + "\n")
    Path("bench-results.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    print("\n" + "\n".join(lines) + "\n\nwrote bench-results.md and bench-results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
