"""What locating costs: one update of one tag for 1, 40 and 400 tags, a gateway of 100 readers and 2000 tags, memory.

Two processes of one thread each, because numpy reads its thread count when it is imported: `python -m
tests.bench._speed engine` and `.. gateway`. Each also times a yardstick, a fixed piece of work that uses nothing of
ours, before and after what it measures; `.._yardsticks` is a cost in units of it, to compare runs and machines by.
All costs are CPU time, the gateway's too (`core` alone measures wall time), so that a busy machine changes them less.

For comparison, in the engine's process, what many locators do instead: scipy's least_squares with soft-L1 loss on the
ranges of the same readings, one tag at a time.
"""

import json
import os
import subprocess
import sys

from tests.roots import ROOT

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PARTS = ("engine", "gateway")
PATIENCE_S = 900
UPDATE_MAX_US = 70.0
"""What an update of one of 400 tags may cost, readings and every fifth smoothed fix included."""


def run() -> dict[str, float | int | str]:
    """Return figures, the unit last in the name; each is a median of several rounds."""
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    figures: dict[str, float | int | str] = {}
    for part in PARTS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench._speed", part], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True,
        )  # fmt: skip
        figures |= json.loads(done.stdout)
    worst = max(
        float(value) for name, value in figures.items() if "_400_" in name and name.endswith("with_readings_us")
    )
    figures["ours_400_tags_worst_us"] = worst
    figures["ours_400_tags_may_cost_us"] = UPDATE_MAX_US
    for name, value in figures.items():
        print(f"  {name:48} {value}")
    return figures


if __name__ == "__main__":
    run()
