"""The page stream: a page resumes where it stopped, or is reset where it cannot resume, and is never flooded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from city import page_stream
from city.page_stream import Item, PageStream, StreamsFull


def made() -> PageStream:
    return PageStream(lambda: 1000.0, lambda: {"sos": True, "events": True})


async def take(stream: AsyncIterator[Item], count: int) -> list[Item]:
    """Return the next items that are not ticks."""
    items: list[Item] = []
    while len(items) < count:
        item = await asyncio.wait_for(anext(stream), 5)
        if item.event != "tick":
            items.append(item)
    return items


def test_a_page_resumes_after_the_last_event_it_saw() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        for number in (1, 2, 3):
            one.publish_incident(number, {"number": number})
        await asyncio.sleep(0)
        stream: Any = one.listen(None)
        first = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0.01)
        one.publish_incident(4, {"number": 4})
        assert [item.incident for item in await first] == [4]  # a new page has a snapshot, and gets only new items
        await stream.aclose()
        again: Any = one.listen(f"{one.position.partition('-')[0]}-1")
        assert [item.incident for item in await take(again, 3)] == [2, 3, 4]
        await again.aclose()

    asyncio.run(story())


def test_an_id_of_another_boot_a_future_one_or_rubbish_is_reset() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        one.publish_incident(1, {})
        await asyncio.sleep(0)
        boot = one.position.partition("-")[0]
        for after in ("00000000-1", f"{boot}-99", "x", f"{boot}-", f"{boot}-٣", "-1"):
            stream: Any = one.listen(after)
            assert [(i.event, i.id) for i in await take(stream, 1)] == [("reset", one.position)]
            await stream.aclose()

    asyncio.run(story())


def test_ring_is_bounded_and_a_page_that_fell_behind_is_reset() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        boot = one.position.partition("-")[0]
        for number in range(page_stream.RING_MAX + 10):
            one.publish_incident(number, {})
        await asyncio.sleep(0.01)
        assert len(one._ring) == page_stream.RING_MAX
        stream: Any = one.listen(f"{boot}-5")
        assert (await take(stream, 1))[0].event == "reset"
        stream2: Any = one.listen(f"{boot}-10")
        assert (await take(stream2, 1))[0].incident == 10
        await stream.aclose()
        await stream2.aclose()

    asyncio.run(story())


def test_a_flood_of_words_is_gathered_to_the_newest_of_each() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        gathering = asyncio.create_task(one.run())
        stream: Any = one.listen(None)
        waiting = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)
        for round_ in range(1000):
            one.publish_words("word", [{"kind": "position", "subject": f"t-{i}", "n": round_} for i in range(5)])
        (item,) = await waiting
        assert item.data.count('"n":999') == 5
        assert item.data.count('"subject"') == 5
        one.close()
        await gathering
        await stream.aclose()

    asyncio.run(story())


def test_a_quiet_stream_ticks_with_the_citys_time_and_its_lanes() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        stream: Any = one.listen(None)
        tick = await asyncio.wait_for(anext(stream), 2)
        assert (tick.event, tick.id, tick.data) == (
            "tick",
            "",
            '{"at":1000.0,"lanes":{"sos":true,"events":true},"problems":[]}',
        )
        await stream.aclose()

    asyncio.run(story())


def test_a_place_is_taken_before_a_stream_opens_and_given_back_when_it_ends() -> None:
    one = made()
    with contextlib.ExitStack() as all_of_kims:
        for _ in range(page_stream.STREAMS_ACCOUNT_MAX):
            all_of_kims.enter_context(one.seat("kim"))
        with pytest.raises(StreamsFull, match="20 streams of kim are open; close a page"), one.seat("kim"):
            pass
        with contextlib.ExitStack() as others:
            for i in range(page_stream.STREAMS_MAX - page_stream.STREAMS_ACCOUNT_MAX):
                others.enter_context(one.seat(f"operator-{i}"))
            assert one.streams == page_stream.STREAMS_MAX
            with pytest.raises(StreamsFull, match="200 streams are open"), one.seat("lee"):
                pass
        with pytest.raises(ValueError, match="broke off"), one.seat("lee"):
            raise ValueError("broke off")
    assert one.streams == 0


def test_a_number_of_any_length_is_reset() -> None:
    async def story() -> None:
        one = made()
        one.attach(asyncio.get_running_loop())
        stream: Any = one.listen(f"{one.position.partition('-')[0]}-{'9' * 5000}")
        assert [i.event for i in await take(stream, 1)] == ["reset"]
        await stream.aclose()

    asyncio.run(story())
