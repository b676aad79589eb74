"""The benchmarks of a gate's readers: what they count is what happens, in crowds and meshes small enough for a test."""

from collections import Counter

import pytest

from tests.bench import crowd, duty, gate_duty


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(crowd.CASES, "few", (30, 30.0, 0))
    monkeypatch.setitem(crowd.CASES, "many", (30, 30.0, 220))
    monkeypatch.setattr(crowd, "AFTER_S", 10.0)


def test_a_few_children_are_all_told_and_their_rows_say_what_the_packets_say(few: None) -> None:
    print("seed 6")
    figures = crowd.measure(6, "few", 240).figures()
    assert figures["loud_told_pct"] > 99.5
    assert figures["near_told_pct"] > 99
    assert figures["evictions_a_reader_min"] == figures["queue_drops_pct"] == figures["rounds_cut_pct"] == 0
    assert figures["all_rows_20_s_pct"] > 80
    assert abs(figures["arrivals_20_s_pct"] - figures["all_rows_20_s_pct"]) <= 10, "one child of ten"


def test_a_short_budget_costs_the_quiet_before_the_loud(few: None) -> None:
    print("seed 5")
    rich, poor = (crowd.measure(5, "many", frames).figures() for frames in (240, 60))
    assert poor["rounds_cut_pct"] > 50 > rich["rounds_cut_pct"]
    assert rich["evictions_a_reader_min"] > 0
    assert poor["frames_a_s"] < 4 * 1.3
    assert rich["loud_told_pct"] > poor["loud_told_pct"]
    for figures in (rich, poor):
        assert figures["loud_told_pct"] > figures["all_told_pct"] + 5


def test_outcomes_add_up_and_keep_the_busiest_second() -> None:
    one = crowd.Outcome(Counter(near_heard=10, near_told=9, busiest=7, frames=20, children=4, words=3), 10.0)
    other = crowd.Outcome(Counter(near_heard=10, near_told=10, busiest=5, frames=10, children=4, words=4), 20.0)
    figures = crowd.joined(one, other).figures()
    assert (figures["near_told_pct"], figures["busiest_s_frames"], figures["frames_a_s"]) == (95.0, 7, 1.0)
    assert figures["arrivals_20_s_pct"] == 87.5


@pytest.mark.timeout(200)
def test_a_gate_has_its_own_duty_and_its_lamp_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    print("seed 3")
    for module in (duty, gate_duty):
        for name, value in (("BEGIN_S", 6.0), ("WARM_S", 2.0), ("MEASURED_S", 12.0)):
            monkeypatch.setattr(module, name, value)
    passed = gate_duty.measure(3, "5in12", "near", "ten_ms", False)
    assert len(passed.lamp_ms) >= len(gate_duty.SPOTS), "one press at each, at least"
    assert min(passed.lamp_ms) > 50, "a press is looked at twice, 50 ms apart"
    assert min(passed.lamp_ms) < 500
    assert set(passed.duty_pct) == {41}
    assert {who for who, _, _ in passed.frames} == {"gate", "poles"}
    assert {leg for _, leg, _ in passed.frames} == {"up", "down"}


def test_a_hop_is_safe_while_a_try_fits_between_the_windows_and_lost_when_none_does() -> None:
    found = gate_duty.hops_ok_pct(200)
    assert set(found) == set(gate_duty.DUTIES)
    assert found["5in20"]["stick_ten_ms"] == found["5in20"]["stick_standard"] == 100
    assert set(found["always"].values()) == {0}
    assert found["5in8"]["stick_standard"] == 0, "3.7 ms do not fit into 3"
    assert all(each["pole_ten_ms"] <= each["stick_ten_ms"] for each in found.values())


def test_lost_frames_and_late_lamps_are_shares_and_percentiles() -> None:
    passed = gate_duty.Passed(lamp_ms=[float(n) for n in range(1, 101)], duty_pct=[50, 25])
    passed.frames.update({("gate", "up", True): 97, ("gate", "up", False): 3, ("poles", "down", True): 4})
    figures = passed.figures()
    assert (figures["gate_lost_up_pct"], figures["poles_lost_down_pct"]) == (3.0, 0.0)
    assert (figures["lamp_ms_50pct"], figures["lamp_ms_99pct"], figures["presses"]) == (51, 100, 100)
    assert figures["gate_duty_at_the_end_pct"] == 37.5
