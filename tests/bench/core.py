"""The gateway's core on one CPU core: sightings per second through `pipeline.on_frame`, microseconds per frame by kind,
and the cost of locating every tag once a second in the ticks between the frames.

The zone has 100 readers on streets and 2000 enrolled tags, each heard by two or three readers. Frames are made before
the clock starts, by the wire's own encoders. Effects are taken and dropped, so this is the core alone, without disk,
radio or network. A tick processes one batch of tags: an emergency waits at most for the longest tick.
"""

import struct
import time
from collections.abc import Callable, Iterable

from gateway.core import frames, pipeline
from gateway.core.frames import Frame
from gateway.core.pipeline import State
from gateway.core.resolve import REACH
from gateway.zone import DangerArea, Footpath, Place, Plane, Reader, Zone
from readers import wire
from readers.advertisement import TagKeys, build, epoch_at

READERS, TAGS, TAGS_A_READER = 100, 2000, 40
SECONDS = 20
"""Simulated seconds of the steady state."""
WINDOW_S = 2.0
UTC_S = 1_800_000_100.0
_PLANE = Plane(126.95, 37.54)


def run() -> dict[str, float | int | str]:
    """Return figures; names end in their unit."""
    keys = {n: struct.pack(">QQ", 9, n) for n in range(1, READERS + 1)}
    macs = {n: frames.mac_of(key) for n, key in keys.items()}
    tags = {f"tag-{n:04d}": TagKeys(struct.pack(">QQ", 1, n), struct.pack(">QQ", 2, n)) for n in range(TAGS)}
    found: dict[str, float | int | str] = {"readers": READERS, "tags": TAGS}
    state, found["start_ms"] = _started(_zone(footpaths=True), keys, tags)
    started = time.perf_counter()
    while state.resolver.unfinished:
        state.resolver.fill()
    found["fill_all_epochs_ms"] = round((time.perf_counter() - started) * 1e3, 1)

    sequences = dict.fromkeys(keys, 0)

    def frame(kind: int, reader: int, body: bytes) -> Frame:
        sequences[reader] += 1
        return Frame(reader, 200, -60, wire.encode(kind, reader, 1, sequences[reader], body, macs[reader]))

    names = sorted(tags)
    near = {n: [names[((n - 1) * 20 + i) % TAGS] for i in range(TAGS_A_READER)] for n in keys}
    epoch = epoch_at(UTC_S)
    raws = {name: build(key, epoch, count=1, power_dbm=-50) for name, key in tags.items()}

    bindings = [
        frame(wire.BINDINGS, n, wire.encode_bindings([(i, -70, 100, 2, raws[near[n][i]]) for i in (at, at + 1)]))
        for n in keys
        for at in range(0, TAGS_A_READER, 2)
    ]
    found["bindings_us_a_frame"] = _each_us(state, bindings, 0.0)

    steady: list[tuple[float, Frame]] = []
    for step in range(int(SECONDS / WINDOW_S)):
        for n in keys:
            for first in range(0, TAGS_A_READER, wire.ROWS_MAX):
                rows = [
                    (i, -70 - (i * 7 + n + step) % 20, 100, 2, 3 + 2 * step, True)
                    for i in range(first, min(first + wire.ROWS_MAX, TAGS_A_READER))
                ]
                steady.append((1.0 + step * WINDOW_S + n * 0.01, frame(wire.SIGHTINGS, n, wire.encode_sightings(rows))))
    found |= _lived(state, steady)
    plain, found["start_open_ground_ms"] = _started(_zone(footpaths=False), keys, tags)
    _each_us(plain, bindings, 0.0)
    found |= {f"open_ground_{name}": value for name, value in _lived(plain, steady).items() if "fix" in name}

    now_s = 1.0 + SECONDS + WINDOW_S
    beats = [frame(wire.HEARTBEAT, n, wire.encode_heartbeat([0] * len(wire.HEARTBEAT_FIELDS))) for n in keys] * 1
    found["heartbeat_us_a_frame"] = _each_us(state, beats, now_s)
    cries = [
        frame(
            wire.SOS,
            1 + n // (TAGS // READERS),  # a reader that hears the tag
            wire.encode_sos(n % 256, 0, 0, -70, 3, build(tags[name], epoch, flags=1, press=7, count=90)),
        )
        for n, name in enumerate(names[:500])
    ]
    found["sos_us_a_new_press"] = _each_us(state, cries, now_s)
    again = [
        frame(wire.SOS, 1, wire.encode_sos(0, 0, 0, -70, 3, build(tags[names[0]], epoch, flags=1, press=7, count=90)))
        for _ in range(500)
    ]
    found["sos_us_a_repetition"] = _each_us(state, again, now_s)
    bells = [frame(wire.BELL, 1 + n % READERS, wire.encode_bell(200, 0, 0, n // READERS, 1)) for n in range(300)]
    found["bell_us_a_new_press"] = _each_us(state, bells, now_s)
    forged = [Frame(1, None, None, each.payload[:-1] + b"\0") for each in cries]
    found["forged_us_a_frame"] = _each_us(state, forged, now_s)
    noise = [Frame(1, None, None, bytes([n & 255]) * 40) for n in range(2000)]
    found["noise_us_a_frame"] = _each_us(state, noise, now_s)

    started = time.perf_counter()
    pipeline.set_clock(state, UTC_S + 900, now_s, "good")
    found["epoch_roll_at_once_ms"] = round((time.perf_counter() - started) * 1e3, 2)
    worst_s, steps = 0.0, 0
    while state.resolver.unfinished:
        started = time.perf_counter()
        state.resolver.fill()
        worst_s, steps = max(worst_s, time.perf_counter() - started), steps + 1
    found["epoch_roll_in_idle_steps"] = steps
    found["epoch_roll_worst_step_ms"] = round(worst_s * 1e3, 2)
    started = time.perf_counter()
    pipeline.set_clock(state, UTC_S + 900 * 1000, now_s, "good")
    found["clock_jump_ms"] = round((time.perf_counter() - started) * 1e3, 1)
    started = time.perf_counter()
    data = pipeline.snapshot(state)
    found["snapshot_ms"] = round((time.perf_counter() - started) * 1e3, 2)
    found["snapshot_kb"] = round(len(data) / 1e3, 1)
    found["ids_held"] = TAGS * (2 * REACH + 1)
    for name, value in found.items():
        print(f"  {name:28} {value}")
    return found


def _started(zone: Zone, keys: dict[int, bytes], tags: dict[str, TagKeys]) -> tuple[State, float]:
    """Return a new core, and the milliseconds that its start took."""
    started = time.perf_counter()
    state = State.new(zone, keys, tags, gateway="gw1", epoch="e1", now_s=0.0)
    pipeline.set_clock(state, UTC_S, 0.0, "good")
    return state, round((time.perf_counter() - started) * 1e3, 1)


def _lived(state: State, steady: list[tuple[float, Frame]]) -> dict[str, float]:
    """Process frames at their time, and every tick at its own time between them; return what they cost."""
    before, frames_s, ticks = dict(state.counts), 0.0, list[float]()
    for now_s, each in steady:
        while (due_s := pipeline.next_deadline_s(state)) <= now_s:
            ticks.append(_timed(lambda: _drain(pipeline.on_tick(state, due_s))))
        frames_s += _timed(lambda: _drain(pipeline.on_frame(state, each, now_s)))  # noqa: B023
    sightings = state.counts["sightings"] - before["sightings"]
    fixes = state.counts["fixes"] - before.get("fixes", 0)
    ticks.sort()
    return {
        "sightings_per_s": round(sightings / frames_s),
        "sightings_us_a_frame": round(frames_s / len(steady) * 1e6, 1),
        "sightings_us_a_row": round(frames_s / sightings * 1e6, 1),
        "fixes": fixes,
        "fixes_per_s": round(fixes / sum(ticks)),
        "us_a_fix": round(sum(ticks) / fixes * 1e6, 1),
        "longest_tick_with_fixes_ms": round(ticks[-1] * 1e3, 1),
        "p99_tick_with_fixes_ms": round(ticks[int(0.99 * len(ticks))] * 1e3, 1),
        "load_of_this_zone_with_fixes_pct": round(100 * (frames_s + sum(ticks)) / SECONDS, 1),
    }


def _zone(*, footpaths: bool) -> Zone:
    def at(x_m: float, y_m: float) -> tuple[float, float]:
        return _PLANE.to_lonlat(x_m, y_m)

    def box(x_m: float, y_m: float, side_m: float) -> tuple[tuple[float, float], ...]:
        return at(x_m, y_m), at(x_m + side_m, y_m), at(x_m + side_m, y_m + side_m), at(x_m, y_m + side_m)

    readers = []
    for n in range(1, READERS + 1):
        lon, lat = at((n - 1) % 10 * 30.0, (n - 1) // 10 * 60.0)
        readers.append(Reader(number=n, eui64=f"{n:016x}", lon=lon, lat=lat))
    along = [((-20.0, 60.0 * row - 3), (290.0, 60.0 * row - 3)) for row in range(10)]
    across = [((60.0 * column + 3, -3.0), (60.0 * column + 3, 537.0)) for column in range(5)]
    ways = tuple(Footpath((at(*one), at(*other))) for one, other in along + across)
    return Zone(
        readers=tuple(readers),
        footpaths=ways if footpaths else (),
        places=tuple(Place(id=f"place{n}", kind="other", polygon=box(n * 50.0, n * 90.0, 60.0)) for n in range(6)),
        dangers=tuple(DangerArea(id=f"danger{n}", polygon=box(n * 80.0, 400.0 - n * 50.0, 40.0)) for n in range(3)),
    )


def _each_us(state: State, each: list[Frame], now_s: float) -> float:
    took_s = _timed(lambda: _drain(effect for frame in each for effect in pipeline.on_frame(state, frame, now_s)))
    _drain(pipeline.on_tick(state, now_s + 0.3))
    return round(took_s / len(each) * 1e6, 1)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _drain(step: Iterable[object]) -> None:
    for _ in step:
        pass
