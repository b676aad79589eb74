"""From a tag's motion to the core's report of it: simulated tags and air, real firmware, real mesh timing, the core."""

import asyncio
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.core import pipeline
from readers import wire
from sim.air.radio import Channel
from sim.clock import Clock
from sim.demo.running_zone import PinChange, RunningZone
from sim.street.tag import MOVING_FOR_S, Tag
from tests.sim.demo.bed import Gateway, air_of_readers, mac_of, mesh_of_readers, powered

SEED = 8
TAGS = 24
UTC_S = 1_800_000_100.0
BEGIN_S = 40.0
STORY_S = 240.0
STEP_S = 75.0
"""Longer than a tag's flag outlives a movement, so that each rest is told too."""


class Playing:
    """A child in a yard: it sits for 75 s, then runs about near one spot for 75 s. Each is 1 s ahead of the last."""

    def __init__(self, number: int) -> None:
        self.number = number

    def at(self, t_s: float) -> Any:
        moving = int((t_s + self.number) / STEP_S) % 2 == 1
        return SimpleNamespace(x_m=5.0 + 4 * (self.number % 13), y_m=12.0, heading=1.0, moving=moving)


def test_the_core_says_within_seconds_that_a_tag_moves_or_rests(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    clock = Clock(None)
    tags = {n: Tag(SEED, n, f"tag-{n:03d}") for n in range(1, TAGS + 1)}
    gateway = Gateway(clock, {tag.name: tag.keys for tag in tags.values()})
    pipeline.set_clock(gateway.state, UTC_S, 0.0, "good")
    mesh = mesh_of_readers(clock, gateway, tmp_path, SEED)
    air = air_of_readers(Channel(), SEED)
    world = SimpleNamespace(children=[Playing(n) for n in tags])
    zone = RunningZone(clock, world, tags, air, mesh, mac_of=mac_of, bell_pin="D4")  # type: ignore[arg-type]
    words = {tag.name: tag for tag in gateway.state.resolver.tags}
    changed_s: dict[int, float] = {}
    flags: dict[int, bool] = {}
    late_s: list[float] = []
    untold, bound = 0, 0

    def look() -> None:
        nonlocal untold, bound
        for n, tag in tags.items():
            flag = tag._moved_s > zone.story_s - MOVING_FOR_S
            if flag != flags.setdefault(n, flag):
                flags[n] = flag
                untold += n in changed_s
                changed_s[n] = clock.now_s
            if n in changed_s and words[tag.name].moving == flag:
                late_s.append(clock.now_s - changed_s.pop(n))
        if zone.story_s < 30.0:
            bound = zone.counts["bindings"]
        clock.after(0.1, look)

    def begin() -> None:
        zone.begin(UTC_S + BEGIN_S)
        look()

    with powered(mesh):
        clock.after(1.0, gateway.tick)
        clock.after(BEGIN_S, begin)
        asyncio.run(clock.run(BEGIN_S + STORY_S))
        logs = dict(mesh.counts.logs)
    late_s.sort()
    print(f"{len(late_s)} changes told, {untold} not before the next; ", end="")
    print(f"{statistics.median(late_s):.1f} s after, {late_s[int(len(late_s) * 0.95)]:.1f} s (95 %), ", end="")
    print(f"{late_s[-1]:.1f} s at the most; ", end="")
    print(f"{zone.counts['bindings'] - bound} rows bound anew, {zone.counts['rows']} rows")
    assert logs == {}
    assert len(late_s) > 60
    assert not untold
    assert late_s[-1] < 8.0
    assert zone.counts["bindings"] - bound < TAGS, "rows alone tell of it, but for a reader that first hears a tag"
    assert gateway.state.counts[f"frames_kind_{wire.SIGHTINGS}"] > 100


def test_a_reader_without_power_shows_nothing() -> None:
    cuts: list[tuple[int, bool]] = []
    changes: list[PinChange] = []
    mesh: Any = SimpleNamespace(stations={}, power=lambda number, on: cuts.append((number, on)))
    nobody: Any = SimpleNamespace(ears=())
    zone = RunningZone(Clock(None), nobody, {}, nobody, mesh, mac_of=mac_of, bell_pin="D4")
    zone.on_change = changes.append
    for number, pin in ((5, "D2"), (5, "D3"), (6, "D2")):
        mesh.on_pin_change(number, 1.0, pin, 1)
    del changes[:]
    zone.power(5, False)
    assert [(change.reader, change.pin, change.level) for change in changes] == [(5, "D2", 0), (5, "D3", 0)]
    zone.power(5, True)
    assert len(changes) == 2, "its firmware lights the lamp again, if it wants to"
    assert cuts == [(5, False), (5, True)]
