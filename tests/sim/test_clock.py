"""Virtual time: events in one total order, at any speed."""

import asyncio

import pytest

from sim.clock import Clock


def test_things_happen_in_order_of_time_and_of_planning() -> None:
    clock, seen = Clock(None), []
    for name, at in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
        clock.at(at, lambda name=name: seen.append((name, clock.now_s)))
    asyncio.run(clock.run(10.0))
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 2.0), ("d", 2.0)]
    assert clock.now_s == 10.0


def test_what_is_planned_in_the_past_happens_now_and_never_turns_time_back() -> None:
    clock, seen = Clock(None), []
    clock.at(5.0, lambda: clock.at(1.0, lambda: seen.append(clock.now_s)))
    asyncio.run(clock.run(6.0))
    assert seen == [5.0]


def test_actions_may_wait_and_may_plan_the_next() -> None:
    clock, seen = Clock(None), []

    async def turn() -> None:
        await asyncio.sleep(0)
        seen.append(clock.now_s)
        if len(seen) < 3:
            clock.after(0.5, turn)

    clock.at(0.5, turn)
    asyncio.run(clock.run(10.0))
    assert seen == [0.5, 1.0, 1.5]


def test_a_run_goes_on_where_the_last_one_ended() -> None:
    clock, seen = Clock(None), []
    clock.at(3.0, lambda: seen.append("late"))
    asyncio.run(clock.run(2.0))
    assert not seen
    assert clock.next_due_s() == 3.0
    asyncio.run(clock.run(4.0))
    assert seen == ["late"]


def test_stop_ends_a_run_before_what_is_due_later() -> None:
    clock, seen = Clock(None), []
    clock.at(1.0, clock.stop)
    clock.at(1.0, lambda: seen.append("after"))
    asyncio.run(clock.run(9.0))
    assert not seen
    assert clock.now_s == 1.0


def test_it_keeps_pace_with_the_wall_clock_and_owns_up_to_falling_behind() -> None:
    wall = [100.0]

    def tick() -> float:
        wall[0] += 0.001
        return wall[0]

    clock = Clock(10.0, tick, lambda: 5000.0)
    done_at = []
    clock.at(0.2, lambda: done_at.append(wall[0]))
    clock.at(0.3, lambda: wall.__setitem__(0, wall[0] + 1.0))  # something slow
    clock.at(0.4, lambda: None)
    asyncio.run(clock.run(0.5))
    assert done_at[0] - 100.0 >= 0.02
    assert clock.lag_max_s >= 0.9
    assert clock.started_unix_s == 5000.0


@pytest.mark.parametrize("speed", [0, -1, 1e6])
def test_a_senseless_speed_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Clock(speed)
