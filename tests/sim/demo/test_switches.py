"""Bells on bad modules: real firmware, real mesh timing and the gateway's core. Each is told, and no lamp ever lies."""

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.core import pipeline
from gateway.effects import Commit
from gateway.events import Bell
from readers import wire
from sim.air.radio import Channel
from sim.clock import Clock
from sim.demo.lamp import Eye, Sight
from sim.demo.report import faults_of
from sim.demo.rig import LAMP_PIN
from sim.demo.running_zone import PinChange, RunningZone
from sim.reader import switches
from sim.street.tag import Tag
from tests.sim.demo.bed import Gateway, air_of_readers, mac_of, mesh_of_readers, powered

SEED = 3
UTC_S = 1_800_000_100.0
SWITCHED = {
    2: "flash=full,atcmd=raises",
    3: "gap_scan=ENODEV,gap_scan_again=ENODEV",
    4: "transmit_ms=5000",
    5: "transmit=EAGAIN,transmit_pct=50,gap_advertise=raises",
    6: "call_ms=5,interrupt_every_s=7,payload_none_pct=20",
}
"""Reader 1 is as usual."""
BEGIN_S, PRESS_S, STORED_S, HELP_S, CLOSED_S, END_S = 15.0, 30.0, 45.0, 50.0, 90.0, 125.0
LATE_S = 30.0
"""Within this every lamp shows a new stage: a send blocks for 5 s, and a downlink is repeated with growing pauses."""


class Desk(Gateway):
    """A gateway whose city answers all bells when it is told to."""

    def __init__(self, clock: Clock, tags: dict[str, Any]) -> None:
        super().__init__(clock, tags)
        self.bells: dict[str, int] = {}

    def carry(self, step: Any) -> None:
        effects = list(step)
        for effect in effects:
            if isinstance(effect, Commit) and isinstance(effect.event, Bell):
                self.bells[effect.event.alarm] = effect.event.reader
        super().carry(effects)

    def answer(self, stage: int) -> None:
        for alarm in self.bells:
            self.carry(pipeline.on_stage(self.state, alarm, stage, self.clock.now_s))


def test_every_bell_on_a_bad_module_is_told_and_no_lamp_lies(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    clock = Clock(None)
    tags = {n: Tag(SEED, n, f"tag-{n:03d}") for n in range(1, 13)}
    gateway = Desk(clock, {tag.name: tag.keys for tag in tags.values()})
    pipeline.set_clock(gateway.state, UTC_S, 0.0, "good")
    mesh = mesh_of_readers(clock, gateway, tmp_path, SEED)
    for number, text in SWITCHED.items():
        mesh.stations[number].reader.switches = switches.parse(text)
    children = [SimpleNamespace(number=n, at=lambda t_s, n=n: spot(n)) for n in tags]
    world = SimpleNamespace(children=children)
    air = air_of_readers(Channel(), SEED)
    zone = RunningZone(clock, world, tags, air, mesh, mac_of=mac_of, bell_pin="D4")  # type: ignore[arg-type]
    lamps = {number: Eye() for number in mesh.stations}
    seen: dict[int, list[tuple[float, Sight]]] = {number: [] for number in lamps}

    def on_pin(change: PinChange) -> None:
        if change.pin == LAMP_PIN:
            lamps[change.reader].feed(1000 * change.at_s, change.level)

    def look() -> None:
        for number, lamp in lamps.items():
            seen[number].append((clock.now_s, lamp.seen(1000 * clock.now_s)))
        clock.after(0.1, look)

    def press(number: int) -> None:
        if mesh.stations[number].reader.transmitting:
            clock.after(0.5, lambda: press(number))  # it sees no bell now; a person presses again
        else:
            zone.press_bell(number)

    zone.on_change = on_pin
    with powered(mesh):
        for after_s, what in (
            (1.0, gateway.tick), (1.0, look), (BEGIN_S, lambda: zone.begin(UTC_S + BEGIN_S)),
            (PRESS_S, lambda: [press(number) for number in lamps]),
            (STORED_S, lambda: gateway.answer(wire.STORED)), (HELP_S, lambda: gateway.answer(wire.ACKNOWLEDGED)),
            (CLOSED_S, lambda: gateway.answer(wire.CLOSED)),
        ):  # fmt: skip
            clock.after(after_s, what)
        asyncio.run(clock.run(END_S))
        beats = {number: station.reader.heartbeat for number, station in mesh.stations.items()}
        boots = {number: station.reader.boots for number, station in mesh.stations.items()}
    assert sorted(gateway.bells.values()) == sorted(lamps), "every bell is one alarm"
    assert set(boots.values()) == {1}
    for number, sights in seen.items():
        print(number, SWITCHED.get(number, "as usual"))
        print("  ", *(dict(within(sights, *times)) for times in itertools.pairwise((PRESS_S, HELP_S, CLOSED_S, END_S))))
        assert set(within(sights, 0, PRESS_S)) == {"dark"}
        assert "help" not in within(sights, 0, HELP_S), "nobody has answered"
        assert "steady" not in within(sights, 0, END_S)
        assert within(sights, PRESS_S, HELP_S)["received"] > 10
        assert within(sights, HELP_S, HELP_S + LATE_S)["help"] > 10
        assert set(within(sights, CLOSED_S + LATE_S, END_S)) == {"dark"}
    caught = {number: faults_of(beat or {}) for number, beat in beats.items()}
    print(caught)
    assert (caught[1], caught[3]) == ([], ["scan"])
    assert "flash" in caught[2]


def within(sights: list[tuple[float, Sight]], from_s: float, to_s: float) -> Counter[Sight]:
    """Return how many tenths of a second each sight was seen in this time."""
    return Counter(sight for at_s, sight in sights if from_s <= at_s < to_s)


def spot(number: int) -> SimpleNamespace:
    """Return where a child stands."""
    return SimpleNamespace(x_m=5.0 + 5 * number, y_m=12.0, heading=1.0, moving=True)
