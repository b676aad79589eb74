"""The benchmark of the hours: its time-lapse changes no answer, and the same seed gives the same hours."""

from functools import partial
from pathlib import Path

from tests.bench import hours
from tests.firmware.bed import Trial


def trial_of(folder: Path, lapse_ms: float) -> Trial:
    trial = Trial(folder / "flash", seed=5, lapse_ms=lapse_ms, tag_count=0)
    trial.add_tags(1, period_ms=1e12)
    trial.renew_gateway()
    for k in range(6):
        trial.at(100_000 * (k + trial.random.random()), partial(trial.press_bell, k % 3, 500))
    trial.at(250_000, partial(trial.press_tag, trial.tags[0]))
    trial.at(300_000, trial.cut)
    trial.at(304_000, trial.start)
    trial.start()
    try:
        trial.run(700)
        trial.finish()
    finally:
        trial.reader.stop()
    return trial


def test_time_lapse_changes_no_answer(tmp_path: Path) -> None:
    real, lapsed = trial_of(tmp_path / "real", 0.0), trial_of(tmp_path / "lapsed", hours.LAPSE_MS)
    assert len(real.presses) == len(lapsed.presses) == 7
    for one, other in zip(real.presses, lapsed.presses, strict=True):
        assert one.told_ms is not None
        assert other.told_ms is not None
        assert other.at_ms == one.at_ms
        if one.what == "bell":
            assert abs(other.told_ms - one.told_ms) < 60
    assert lapsed.dead_ms == real.dead_ms == {"start": 3000, "power": 4000}
    assert lapsed.lamp_judge.false_ms == real.lamp_judge.false_ms == {}
    assert len(lapsed.beats) >= len(real.beats) - 2


def test_the_same_seed_gives_the_same_hours() -> None:
    print("seed 11")
    one, other = hours.live(11, 0, 2), hours.live(11, 0, 2)
    assert one.figures() == other.figures()
    assert one.counts["bells"] == 6
    assert one.hours == 2
    assert one.counts["flash writes"] > 0


def test_figures_add_up() -> None:
    totals = hours.Totals()
    for _ in range(2):
        one = hours.Totals(hours=1, told_ms=[100.0])
        one.counts.update({"bells": 3, "bells_told": 2, "reset 5": 1, "flash writes": 5})
        one.dead_ms.update({"power": 600_000, "sending": 30_000})
        one.not_told["not seen: sending"] += 1
        one.lamp_ms["steady"] += 1500
        totals.add(one)
    figures = totals.figures()
    assert (figures["hours"], figures["bells_pressed"], figures["bells_not_told"]) == (2, 6, 2)
    assert (figures["bell_not_working_s"], figures["bell_not_working_pct"]) == (60, 1.0)
    assert (figures["lamp_lit_falsely_s"], figures["resets"], figures["flash_writes_a_day"]) == (3.0, 2, 120.0)
    assert "| not seen: sending | 2 |" in totals.text()
