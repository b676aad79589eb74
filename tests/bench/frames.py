"""What the readers' frames cost: bytes a sighting, compiled sizes, heap. The real firmware in a 32 KB MicroPython heap.

One reader, its tags beaconing once a second, in virtual time. "with headers" counts every byte the reader sent in the
steady state, heartbeats included.
"""

import contextlib
import io
import tempfile
from pathlib import Path

from readers import wire
from readers.build import build
from tests.firmware.conftest import Street

STEADY_S, SETTLE_S = 60, 60


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
    with tempfile.TemporaryDirectory() as folder:
        sizes = {artifact.name: artifact.path.stat().st_size for artifact in build(Path(folder) / "out")}
    found |= {f"{name}_b": size for name, size in sorted(sizes.items())}
    found["all_mpy_b"] = sum(sizes.values())
    return found
