"""The cost of readers' frames: bytes per sighting, compiled sizes, heap. Real firmware in a 32 KB MicroPython heap.

One reader, whose tags beacon once a second, in virtual time. "with headers" counts every byte that the reader sent in
the steady state, heartbeats included. "restless": each tag starts and stops every 40 s; "told" is the time until the
gateway knew.
"""

import contextlib
import io
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

from readers import wire
from readers.build import build
from tests.firmware.conftest import Street, Tag

STEADY_S, SETTLE_S = 60, 60
RESTLESS_S, RUNS_S = 240, 40


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    found: dict[str, float | int | str] = {}
    for tags in (1, 10, 40, 120):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            street = Street(Path(folder))
            try:
                street.add_tags(tags)
                street.start()
                street.run(SETTLE_S + STEADY_S)
                sent = [each for each in street.sent if each.at_ms >= SETTLE_S * 1000]
                heap = street.reader.heartbeat or {}
            finally:
                street.reader.stop()
        rows = sum(len(each.body) // wire.ROW_SIZE for each in sent if each.kind == wire.SIGHTINGS)
        bound = sum(len(each.body) for each in sent if each.kind == wire.SIGHTINGS)
        bindings = sum(each.kind == wire.BINDINGS for each in sent)
        found |= {
            f"tags{tags}_row_b": bound / rows,
            f"tags{tags}_with_headers_b_a_sighting": round(sum(len(each.frame) for each in sent) / rows, 2),
            f"tags{tags}_frames_a_min": round(len(sent) * 60 / STEADY_S, 1),
            f"tags{tags}_bindings_frames": bindings,
            f"tags{tags}_longest_frame_b": max(len(each.frame) for each in sent),
            f"tags{tags}_heap_used_b": heap.get("heap_used", -1),
        }
    for tags in (40, 120):
        found |= _restless(tags)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {artifact.name: artifact.path.stat().st_size for artifact in build(Path(folder) / "out")}
    found |= {f"{name}_b": size for name, size in sorted(sizes.items())}
    found["all_mpy_b"] = sum(sizes.values())
    return found


def _restless(tags: int) -> dict[str, float | int]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        street = Street(Path(folder))
        changes: dict[int, list[tuple[float, bool]]] = {tag.number: [] for tag in street.add_tags(tags)}

        def change(tag: Tag) -> None:
            tag.flags ^= wire.FLAG_MOVING
            changes[tag.number].append((street.now_ms, bool(tag.flags & wire.FLAG_MOVING)))

        try:
            for tag in street.tags:
                first_ms = (SETTLE_S + street.random.random() * RUNS_S) * 1000
                for turn in range(RESTLESS_S // RUNS_S):
                    street.at(first_ms + turn * RUNS_S * 1000, partial(change, tag))
            street.start()
            street.run(SETTLE_S + RESTLESS_S + RUNS_S)
        finally:
            street.reader.stop()
    told_ms: list[float] = []
    untold = 0
    for number, moments in changes.items():
        said = [(at_ms, moving) for at_ms, which, moving in street.motions if which == number]
        for (from_ms, moving), (until_ms, _) in pairwise([*moments, (street.now_ms, False)]):
            first_ms = next((at_ms for at_ms, word in said if from_ms < at_ms < until_ms and word == moving), None)
            if first_ms is None:
                untold += 1
            else:
                told_ms.append(first_ms - from_ms)
    told_ms.sort()
    sent = [each for each in street.sent if each.at_ms >= SETTLE_S * 1000]
    return {
        f"restless{tags}_told_s_50pct": round(told_ms[len(told_ms) // 2] / 1000, 1),
        f"restless{tags}_told_s_95pct": round(told_ms[len(told_ms) * 95 // 100] / 1000, 1),
        f"restless{tags}_untold_pct": round(100 * untold / (untold + len(told_ms)), 1),
        f"restless{tags}_frames_a_min": round(len(sent) * 60 / (RESTLESS_S + RUNS_S), 1),
        f"restless{tags}_bindings_frames": sum(each.kind == wire.BINDINGS for each in sent),
    }
