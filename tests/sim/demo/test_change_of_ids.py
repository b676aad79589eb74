"""All tags of a zone change their ids: simulated tags and air, real firmware, the core. Two press in the silence."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

from gateway.core import pipeline
from gateway.events import Presence, Sos
from sim.air.radio import Channel
from sim.clock import Clock
from sim.demo.running_zone import RunningZone
from sim.street.tag import SILENT_S, Tag
from tests.sim.demo.bed import Gateway, air_of_readers, mac_of, mesh_of_readers, powered

SEED = 3
TAGS = 12
CHANGE_S = 100.0
"""The ids change so long after the run's begin."""
UTC_S = 1_800_000_000.0 - CHANGE_S
BEGIN_S, END_S = 40.0, 140.0
PRESSES = {2: CHANGE_S - 2.0, 5: CHANGE_S + 2.0}


def test_a_zone_lives_through_the_change_of_ids_and_a_press_in_the_silence_is_told_at_once(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    clock = Clock(None)
    tags = {n: Tag(SEED, n, f"tag-{n:03d}") for n in range(1, TAGS + 1)}
    told: list[tuple[float, object]] = []

    class Listening(Gateway):
        def carry(self, effects: object) -> None:
            kept = list(effects)  # type: ignore[call-overload]
            told.extend((clock.now_s, effect.event) for effect in kept if hasattr(effect, "event"))
            super().carry(iter(kept))

    gateway = Listening(clock, {tag.name: tag.keys for tag in tags.values()})
    pipeline.set_clock(gateway.state, UTC_S, 0.0, "good")
    mesh = mesh_of_readers(clock, gateway, tmp_path, SEED)
    standing = [
        SimpleNamespace(number=n, at=lambda _s, n=n: SimpleNamespace(x_m=5.0 * n, y_m=12.0, heading=1.0, moving=False))
        for n in tags
    ]
    world = SimpleNamespace(children=standing)
    zone = RunningZone(clock, world, tags, air_of_readers(Channel(), SEED), mesh, mac_of=mac_of, bell_pin="D4")  # type: ignore[arg-type]
    with powered(mesh):
        clock.after(1.0, gateway.tick)
        clock.after(BEGIN_S, lambda: zone.begin(UTC_S + BEGIN_S))
        for number, at_s in PRESSES.items():
            clock.at(at_s, lambda number=number: zone.press_tag(number))
        asyncio.run(clock.run(END_S))
    heard = {tag.name: tag for tag in gateway.state.resolver.tags}
    change = int(UTC_S + CHANGE_S) // 900
    assert {tag.epoch for tag in heard.values()} == {change}, "all are known by their new ids"
    assert END_S - CHANGE_S >= 2 * SILENT_S
    unseen = [event for _, event in told if isinstance(event, Presence) and event.state == "unseen"]
    assert not unseen, "a silence is shorter than what makes a tag unseen"
    for number, at_s in PRESSES.items():
        cries = [(s, e) for s, e in told if isinstance(e, Sos) and e.tag == tags[number].name and e.revision == 0]
        assert len(cries) == 1, told
        assert cries[0][0] - at_s < 1.0
        assert cries[0][1].trust == "verified"
    alarms = {event.alarm for _, event in told if isinstance(event, Sos)}
    assert len(alarms) == len(PRESSES), "one alarm each, also for the cry that went on over the change"
