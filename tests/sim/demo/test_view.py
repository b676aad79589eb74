"""What a person at the terminal sees of a run: nobody before the story, then every child, reader and press."""

import asyncio
import io
from pathlib import Path

from sim.demo import folder
from sim.demo.auto_operator import AutoOperator
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
            demo._rig, demo.operator = rig, AutoOperator("http://127.0.0.1:9/", "token")
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
