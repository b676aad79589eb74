"""The benchmark of scanning and mesh: its extremes are what they must be, and its figures are counts."""

import pytest

from tests.bench import duty


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BEGIN_S", 8.0), ("WARM_S", 2.0), ("MEASURED_S", 20.0), ("CRY_EVERY_S", 6.0)):
        monkeypatch.setattr(duty, name, value)


@pytest.mark.timeout(200)
def test_no_frame_is_lost_by_scanning_at_no_duty_and_nearly_all_are_at_100_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    print("seed 3")
    unfelt = duty.measure(3, "none", "ten_ms", False)
    monkeypatch.setattr(duty, "CRY_EVERY_S", 1000.0)  # while a press waits for a person, nobody scans all the time
    deaf = duty.measure(3, "100", "ten_ms", False)
    assert unfelt.counts["lost_up_scanning"] == unfelt.counts["lost_down_scanning"] == 0
    assert unfelt.counts["frames_down"] > 8 * 15, "a STAGE a second to each"
    assert unfelt.counts["frames_up"] > 8 * 5
    assert len(unfelt.up_ms) > 0.9 * unfelt.counts["frames_up"]
    assert unfelt.figures()["sos"] == "2 of 2"
    assert set(unfelt.duty_pct) == {25}
    assert {hops for hops, _ in unfelt.frames} == {1, 2, 3, 4}
    assert deaf.up_ms == deaf.down_ms == []
    assert deaf.counts["lost_up_scanning"] > 0.75 * deaf.counts["frames_up"], "but for those under way at the edges"
    assert deaf.counts["frames_down"] > 8 * 15
    assert deaf.counts["lost_down_scanning"] > 0.8 * deaf.counts["frames_down"]
    assert set(deaf.duty_pct) == {100}


def test_figures_are_shares_and_percentiles() -> None:
    seen = duty.Seen(sos_ms=[3.0, duty.NEVER, 1.0], up_ms=[1.0, 2.0, 6.0])
    seen.counts.update(frames_up=200, lost_up=3, lost_up_scanning=2, ack_lost=1, hops=10, hops_lost_scanning=1)
    seen.counts.update(tries_lost_own=4, tries_lost_theirs=2)
    seen.frames.update({(1, True): 99, (1, False): 1})
    figures = seen.figures()
    assert (figures["lost_up_pct"], figures["failed_up_pct"]) == (1.0, 2.0)
    assert figures["tries_lost_pct"] == pytest.approx(100 * 6 / 15)
    assert figures["lost_up_after_1_2_3_4_hops_pct"] == "1 0 0 0"
    assert (figures["up_ms_mean"], figures["up_ms_95pct"], figures["down_ms_mean"]) == (3.0, 6.0, "none")
    assert (figures["sos"], figures["sos_ms_50pct"], figures["sos_ms_95pct"]) == ("2 of 3", 3.0, "never")
