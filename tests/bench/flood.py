"""Floods of forged advertisements, and the cry of a known child among them: how long until it leaves the reader.

1,000 runs over {cries of nobody, copies of a known id, beacons of nobody, all} x {in step, Poisson} x {sends of 8, of
50, of 8 to 50 ms}, each 1,000 advertisements a second on the air, a scan of 5 ms in 20, forty known tags. The firmware
is the very source of a reader in CPython (tests/firmware/hosted.py): on real MicroPython these runs take an hour, so
tests/firmware/test_flood.py makes 24 there. Time stands while the firmware computes; a module's own speed is not known.
"""

from itertools import cycle, islice, product

from readers import wire
from tests.firmware.flood import KINDS, HostedTrial

RUNS = 1000
A_SECOND = 1000
SENDS_MS = ((8.0, 8.0), (50.0, 50.0), (8.0, 50.0))


def run(runs: int = RUNS) -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    late = drops = 0
    left_ms: list[float] = []
    strangers: list[float] = []
    routine: list[float] = []
    cases = islice(cycle(product(KINDS, (False, True), SENDS_MS)), runs)
    for seed, (kind, poisson, send_ms) in enumerate(cases):
        result = HostedTrial(seed, kind, A_SECOND, poisson, send_ms).run()
        if result.left_ms is None or result.left_ms > 1000:
            late += 1
            print(f"seed {seed}: {kind}, poisson {poisson}, sends {send_ms}: {result.left_ms}")
        left_ms.append(float("inf") if result.left_ms is None else result.left_ms)
        drops += result.drops
        strangers.append(result.strangers / result.flood_s)
        routine.append(sum(count for kind, count in result.frames.items() if kind != wire.SOS) / result.flood_s)
        if seed % 100 == 99:
            print(f"{seed + 1} runs, {late} late", flush=True)
    left_ms.sort()
    return {
        "runs": runs,
        "within_1_s_runs": runs - late,
        "median_ms": round(left_ms[runs // 2], 1),
        "p99_ms": round(left_ms[runs * 99 // 100], 1),
        "longest_ms": round(left_ms[-1], 1),
        "strangers_frames_a_s": round(max(strangers), 2),
        "routine_frames_a_s": round(sum(routine) / runs, 2),
        "queue_drops_a_run": round(drops / runs, 1),
    }
