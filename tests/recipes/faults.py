"""A fault that the demo makes, and one that a reader lives with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.recipes.recipe import Edit, Recipe


def demo_fault_works(folder: Path) -> None:
    """It is read, drawn into the story, and takes the power of every reader for a while."""
    from sim.demo import scenario
    from sim.demo.run import Demo

    fault = scenario.parse_fault("blackout@3")
    switched: list[tuple[int, bool]] = []
    later: list[Any] = []
    zone = SimpleNamespace(story_s=3.0, air=None, power=lambda number, on: switched.append((number, on)))
    clock = SimpleNamespace(after=lambda delay_s, action: later.append((delay_s, action)))
    mesh = SimpleNamespace(stations={1: None, 2: None})
    demo: Any = SimpleNamespace(
        show=SimpleNamespace(say=lambda *_: None),
        rig=SimpleNamespace(zone=zone, clock=clock, mesh=mesh),
        faults_done=[],
        _spawn=lambda *_: None,
        _kill=lambda *_: None,
    )
    Demo._break(demo, fault)
    assert demo.faults_done == [{"kind": "blackout", "at_s": 3.0}]
    assert switched == [(1, False), (2, False)]
    assert {delay_s for delay_s, _ in later} == {scenario.RESTART_S}
    for _, action in later:
        action()
    assert switched[2:] == [(1, True), (2, True)]


DEMO_FAULT = Recipe(
    "a fault of the demo",
    (
        Edit("sim/demo/scenario.py", '"kill-reader", "noise"]\n', '"kill-reader", "noise", "blackout"]\n'),
        Edit(
            "sim/demo/run.py",
            '        elif fault.kind == "kill-reader":\n',
            '        elif fault.kind == "blackout":\n'
            "            for number in self.rig.mesh.stations:\n"
            "                zone.power(number, False)\n"
            "                clock.after(scenario.RESTART_S, partial(zone.power, number, True))\n"
            '        elif fault.kind == "kill-reader":\n',
        ),
        Edit("docs/SIMULATOR.md", "| `noise@T` |", "| `blackout@T` | all readers lose power for 2 s |\n| `noise@T` |"),
    ),
    demo_fault_works,
    ("tests.test_nothing_missing::test_every_fault_of_the_demo_is_explained",),
)


def reader_fault_works(folder: Path) -> None:
    """A heartbeat that carries it becomes one sentence with a next step, for the people who look after the reader."""
    from gateway.events import GatewayHealth
    from readers import wire
    from tests.gateway.core.bed import Pole, Shell, events

    [said] = events(Shell().frame(Pole(7).beat(faults=1 << wire.FAULTS.index("blocked"))), GatewayHealth)
    assert said.what == "reader_7_fault_blocked"
    assert said.detail == "reader 7 sends so slowly that its bells are read late; look at the mesh near it"


READER_FAULT = Recipe(
    "a fault that a reader catches",
    (
        Edit(
            "readers/wire.py",
            '    "memory",  # the heap was full for a moment\n',
            '    "memory",  # the heap was full for a moment\n    "blocked",  # a send took very long\n',
        ),
        Edit(
            "firmware/link.py",
            "_FAULT_SEND = const(8)  # place in wire.FAULTS\n",
            "_FAULT_SEND = const(8)  # places in wire.FAULTS\n_BLOCKED = const(14)\n",
        ),
        Edit(
            "firmware/link.py",
            "    if took > _SLOW_MS:\n",
            "    if took > _REST_MAX_MS:\n        health.fault(_BLOCKED)\n    if took > _SLOW_MS:\n",
        ),
        Edit(
            "gateway/core/reader_faults.py",
            '}\n"""Name in wire.FAULTS -> what is wrong',
            '    "blocked": (\n'
            '        "sends so slowly that its bells are read late",\n'
            '        "look at the mesh near it",\n'
            "    ),\n"
            '}\n"""Name in wire.FAULTS -> what is wrong',
        ),
        Edit(
            "docs/FIRMWARE.md", "| 13 | `memory` |", "| 14 | `blocked` | a send took over 60 s | |\n| 13 | `memory` |"
        ),
    ),
    reader_fault_works,
    (
        "tests.gateway.core.test_reader_faults::test_every_fault_of_the_wire_has_its_sentence_and_next_step",
        "tests.firmware.test_rules::test_the_page_has_a_row_for_every_fault",
        "tests.test_nothing_missing::test_every_fault_of_a_reader_is_reported_by_its_firmware",
    ),
)
