"""The cost of one update of one tag with 12 readers, for 1, 40 and 400 tags at once, on one core; and memory per tag.

For comparison, in the same process, what many locators do instead: scipy's least_squares with soft-L1 loss on the
ranges of the same readings, one tag at a time. numpy reads its thread count when it is imported, so all of this runs in
a process of its own with one thread: `python -m tests.bench._speed`.
"""

import json
import os
import subprocess
import sys

from tests.roots import ROOT

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENCE_S = 300


def run() -> dict[str, float | int | str]:
    """Return figures, the unit last in the name; each is a median of several rounds."""
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench._speed"], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    figures: dict[str, float | int | str] = json.loads(done.stdout)
    for name, value in figures.items():
        print(f"  {name:40} {value}")
    return figures


if __name__ == "__main__":
    run()
