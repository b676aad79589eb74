"""One hop: how MAC tries meet Bluetooth scan windows, and which readers relay."""

import pytest

from sim import chance
from sim.air.hops import BY_THE_STANDARD, HEAL_S, HopResult, Mac, Relays, cross
from tests.sim.air.bed import Scanner

LONG_B = 66
STARTS = 400
"""Starts spread evenly over 40 ms, which every interval here divides."""
PHASES = 10


def duty(window_ms: float, interval_ms: float, phase: float = 0.0) -> Scanner:
    return Scanner((window_ms, interval_ms, phase * interval_ms))


def lost_pct(mac: Mac, sender: Scanner | None, receiver: Scanner | None, payload_b: int = LONG_B) -> float:
    """Return the share of hops that are lost, over every phase between frame and window."""
    crossings = [
        cross(mac, sender, receiver, 1000 + 40 * n / STARTS, payload_b, 0.0, 1, "test", n) for n in range(STARTS)
    ]
    return 100 * sum(not each.ok for each in crossings) / STARTS


def lost_between_pct(mac: Mac, window_ms: float, interval_ms: float) -> float:
    """Return the same between two nodes that scan alike, over every phase between their windows."""
    sender = duty(window_ms, interval_ms)
    return sum(lost_pct(mac, sender, duty(window_ms, interval_ms, phase / PHASES)) for phase in range(PHASES)) / PHASES


def test_four_tries_of_66_bytes_take_ten_ms_and_by_the_standard_more() -> None:
    assert Mac().air_ms(66) == pytest.approx(2.2, abs=0.01)
    assert BY_THE_STANDARD.air_ms(66) == pytest.approx(117 * 8 / 250)
    always = duty(20, 20)
    assert cross(Mac(), None, always, 1000.0, LONG_B, 0.0, 1).end_ms == pytest.approx(1010.0, abs=0.05)
    took_ms = [cross(BY_THE_STANDARD, None, always, 0.0, LONG_B, 0.0, n).end_ms for n in range(300)]
    assert 18.5 < min(took_ms) < 20.5
    assert 23.5 < max(took_ms) < 25.3


def test_without_windows_a_hop_takes_what_it_is_given() -> None:
    assert cross(Mac(), Scanner(), None, 1000.0, 20, 9.0) == HopResult(True, 1009.0, 0, 0)


def test_a_window_that_opens_while_the_frame_is_on_the_air_costs_a_try() -> None:
    opens = Scanner((2.5, 1000.0, 1002.0))
    assert cross(Mac(), None, opens, 1000.0, LONG_B, 0.0, 1) == HopResult(True, pytest.approx(1007.4, abs=0.05), 0, 2)
    assert cross(Mac(), opens, None, 1000.0, LONG_B, 0.0, 1) == HopResult(True, pytest.approx(1007.4, abs=0.05), 2, 0)
    assert cross(Mac(), opens, opens, 1000.0, 2, 0.0, 1).ok, "a short frame is through before"
    assert cross(Mac(own_windows=False), opens, None, 1000.0, LONG_B, 0.0, 1).own == 0


def test_the_shortest_window_is_never_overlooked() -> None:
    for n in range(400):
        start_ms = 1000 + 20 * n / 400
        scans = Scanner((2.5, 20.0, 1005.0))
        lost = cross(Mac(tries=1), None, scans, start_ms, LONG_B, 0.0, 1).theirs
        assert lost == (start_ms < 1007.5 and start_ms + Mac().air_ms(LONG_B) >= 1005.0), start_ms


def test_a_node_that_listens_all_the_time_receives_nothing_and_sends_nothing() -> None:
    always = duty(20, 20)
    for mac in (Mac(), BY_THE_STANDARD):
        assert lost_pct(mac, None, always) == 100
        assert lost_pct(mac, always, None) == 100
    assert lost_pct(Mac(own_windows=False), always, None) == 0
    assert cross(Mac(), always, None, 0.0, 20, 8.0, 1).own == 4


def test_at_the_same_duty_four_tries_straddle_a_short_window_and_not_a_long_one() -> None:
    for sender, receiver in ((1, 0), (0, 1)):
        assert lost_pct(Mac(), duty(10, 40) if sender else None, duty(10, 40) if receiver else None) > 8
        assert lost_pct(Mac(), duty(5, 20) if sender else None, duty(5, 20) if receiver else None) == 0


def test_between_two_readers_that_scan_a_hop_fails_even_at_5_ms_in_20_and_less_at_5_in_40() -> None:
    for mac in (Mac(), BY_THE_STANDARD):
        assert 12 < lost_between_pct(mac, 5, 20) < 20
        assert lost_between_pct(mac, 5, 40) < 5
        assert lost_between_pct(mac, 5, 10) > 60


def test_by_the_standard_a_long_frame_hardly_fits_between_windows_that_follow_too_soon() -> None:
    """At 50 % duty as 5 ms in 10 only 5 ms are left: 3.7 for the frame, the rest for luck. A short frame has more."""
    tight = duty(5, 10)
    assert lost_pct(BY_THE_STANDARD, None, tight) > 40
    assert lost_pct(BY_THE_STANDARD, None, tight, payload_b=14) < 30


def test_the_waits_between_tries_are_drawn_from_the_keys_alone() -> None:
    def ends(*keys: int) -> HopResult:
        return cross(BY_THE_STANDARD, None, duty(10, 20), 1000.0, LONG_B, 0.0, *keys)

    assert ends(1, 2) == ends(1, 2) != ends(1, 3)


# ---- routes ---------------------------------------------------------------------------------------------------------


def routes(*at: tuple[float, float], centre: tuple[float, float] = (0.0, 0.0)) -> Relays:
    made = Relays()
    for n, spot in enumerate(at, 1):
        made.add(n, spot, centre)
    return made


def all_work(_: int) -> bool:
    return True


def test_relays_stand_on_the_way_and_the_neighbour_comes_first() -> None:
    made = routes((50.0, 0.0), (130.0, 0.0), (210.0, 0.0), (110.0, 60.0))
    assert made.ways(all_work) == {1: (), 2: (1,), 3: (2, 1), 4: (1,)}


def test_the_order_in_which_readers_are_added_chooses_no_relay() -> None:
    spots = [(80 * (1 + chance.one(n, "x") * 4), 200 * chance.one(n, "y")) for n in range(30)]
    one, other = Relays(), Relays()
    for n, spot in enumerate(spots):
        one.add(n, spot, (0.0, 0.0))
    for n, spot in reversed(list(enumerate(spots))):
        other.add(n, spot, (0.0, 0.0))
    assert one.ways(all_work) == other.ways(all_work)
    assert len(one.ways(all_work)) == 30


def test_a_pole_far_from_all_others_has_the_link_that_it_needs() -> None:
    assert routes((60.0, 0.0), (190.0, 0.0)).ways(all_work) == {1: (), 2: (1,)}


def test_a_route_lasts_until_it_is_found_broken_and_heals_later() -> None:
    made = routes((70.0, 0.0), (60.0, 30.0), (140.0, 0.0))
    works = {1, 2, 3}
    assert made.way(3, 0.0, works.__contains__) == (1,)
    works.remove(1)
    assert made.way(3, 1.0, works.__contains__) == (1,), "nobody has noticed"
    made.broke(3, 2.0)
    made.broke(3, 4.0)
    assert made.way(3, 2.0 + HEAL_S - 0.1, works.__contains__) == (1,)
    assert made.way(3, 2.0 + HEAL_S, works.__contains__) == (2,)
    works.add(1)
    assert made.way(3, 100.0, works.__contains__) == (2,), "it stays"


def test_a_reader_without_a_route_looks_again_later() -> None:
    made = routes((70.0, 0.0), (140.0, 0.0))
    works: set[int] = set()
    assert made.way(2, 0.0, works.__contains__) is None
    works.add(1)
    assert made.way(2, HEAL_S - 0.1, works.__contains__) is None
    assert made.way(2, HEAL_S, works.__contains__) == (1,)
