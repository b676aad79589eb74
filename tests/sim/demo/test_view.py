"""What a person at the terminal sees of a run: nobody before the story, then every child, reader and press; and for
which readers the story waits."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sim.demo import folder, run, scenario
from sim.demo.auto_operator import AutoOperator
from sim.demo.processes import StartError
from sim.demo.rig import set_up
from sim.demo.run import Demo, Options
from sim.demo.show import Show

READERS, CHILDREN = 3, 4


def test_the_picture_is_empty_before_the_story_and_whole_in_it(tmp_path: Path) -> None:
    demo = Demo(Options(children=CHILDREN, readers=READERS), Show(io.StringIO(), live=False))
    before = demo.view()
    assert (before.story_s, before.children, before.readers) == (0.0, (), ())

    async def story() -> None:
        keys = {pole.number: bytes([pole.number]) * folder.READER_KEY_B for pole in demo.poles}
        async with set_up(tmp_path, demo.world, demo.poles, keys, pty=False) as rig:
            demo._rig, demo._operator = rig, AutoOperator("http://127.0.0.1:9/", "token")
            assert demo.view().children == (), "readers join, and the story has not begun"
            rig.zone.begin(rig.wall_of(rig.clock.now_s))
            demo.presses.add(demo.story.presses[0], "tag-001", rig.wall_of(rig.clock.now_s), 0.0)
            seen = demo.view()
        assert [row.tag for row in seen.children] == [child.tag for child in demo.world.children]
        assert all(row.truth in ("walking", "standing", "in school") and row.away_m >= 0 for row in seen.children)
        assert [number for number, _ in seen.readers] == [pole.number for pole in demo.poles]
        assert [row.who for row in seen.presses] == ["tag-001"]
        assert "incidents" in seen.counts
        await demo.operator._client.aclose()

    asyncio.run(story())


def waiting(monkeypatch: pytest.MonkeyPatch, *texts: str) -> tuple[Demo, io.StringIO]:
    """Return a demo of three readers with these switches, in which nobody waits longer than a moment."""
    monkeypatch.setattr(run, "JOIN_S", 0.05)
    monkeypatch.setattr(run, "SWITCHED_S", 0.05)
    said = io.StringIO()
    switchings = tuple(scenario.parse_switching(text) for text in texts)
    demo = Demo(Options(children=CHILDREN, readers=READERS, switchings=switchings), Show(said, live=False))
    gateway: Any = SimpleNamespace(check=lambda: None, log="gateway.log")
    demo.programs["gateway"] = gateway
    return demo, said


def test_a_reader_with_switches_is_left_behind_and_one_without_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    demo, said = waiting(monkeypatch, "heap_b=1000:2", "flash=full@5:3")
    asyncio.run(demo._each("join", lambda: {1, 3}))
    assert "reader 2 does not join: the story begins without it" in said.getvalue()
    with pytest.raises(StartError, match="2 readers join: not within"):
        asyncio.run(demo._each("join", lambda: {1, 2}))


def test_a_switch_counts_from_its_time_and_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    demo, said = waiting(monkeypatch, "call_ms=5", "flash=full,transmit_ms=5000@20:3", "flash=no_sync@30")
    assert {number: scenario.words(module) for number, module in demo.switches.items()} == dict.fromkeys(
        (1, 2, 3), "call_ms=5"
    )
    stations = {n: SimpleNamespace(reader=SimpleNamespace(switches=module)) for n, module in demo.switches.items()}
    rig: Any = SimpleNamespace(mesh=SimpleNamespace(stations=stations))
    demo._rig = rig
    for each in demo.story.switchings[1:]:
        demo._switch(each)
    assert [scenario.words(station.reader.switches) for station in stations.values()] == [
        "call_ms=5,flash=no_sync", "call_ms=5,flash=no_sync", "call_ms=5,flash=no_sync,transmit_ms=5000",
    ]  # fmt: skip
    assert "switch: flash=full,transmit_ms=5000 (reader 3)" in said.getvalue()
    assert "switch: flash=no_sync (all readers)" in said.getvalue()
    assert [(row["at_s"], row["reader"]) for row in demo.switched] == [(20.0, 3), (30.0, 0)]
