"""Readers that check each other: which reader is reported, which is not, and what the check costs."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gateway.locate import crosscheck
from gateway.locate.crosscheck import Crosscheck, ReaderFinding

Place = tuple[float, float, float]
POWER_DBM, BURST_S = -30, 240.0


class Poles:
    """Readers at crossings 30 m apart, and the air between them. Reader numbers start at 1."""

    def __init__(
        self, seed: int, readers: int, *, exponent: float = 2.3, shadow_db: float = 3.0, spread_db: float = 2.0
    ) -> None:
        print(f"seed {seed}")
        self.random = rng = np.random.default_rng(seed)
        side = math.isqrt(readers - 1) + 1
        self.configured: dict[int, Place] = {
            n + 1: (30.0 * (n % side) + 3 * rng.normal(), 30.0 * (n // side) + 3 * rng.normal(), 3.5)
            for n in range(readers)
        }
        self.true = dict(self.configured)
        self.exponent = exponent
        self.received = {n: spread_db * rng.normal() for n in self.true}
        self.sent = {n: spread_db * rng.normal() for n in self.true}
        self.shadow = {
            (i, j): shadow_db * rng.normal() for i in self.true for j in self.true if i < j
        }  # the same both ways
        self.asymmetry = {(i, j): 2.0 * rng.normal() for i in self.true for j in self.true}
        self.dead: set[int] = set()
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.check = Crosscheck(self.configured, self.counts, 0.0)
        self.words: list[ReaderFinding] = []
        self.slices = 0

    def level_dbm(self, receiver: int, sender: int) -> float:
        distance = max(math.dist(self.true[receiver], self.true[sender]), 1.0)
        law = POWER_DBM - 2 - 10 * self.exponent * math.log10(distance)
        pair = min(receiver, sender), max(receiver, sender)
        return law + self.received[receiver] + self.sent[sender] + self.shadow[pair] + self.asymmetry[receiver, sender]

    def live(
        self, hours: float, spoil: Callable[[int, int, float], float] = lambda i, j, dbm: dbm
    ) -> list[ReaderFinding]:
        """Let every reader beacon once in BURST_S for this many hours; return the findings of that time."""
        before = len(self.words)
        for _ in range(round(hours * 3600 / BURST_S)):
            for sender in self.true:
                for receiver in self.true:
                    if sender == receiver or {sender, receiver} & self.dead:
                        continue
                    dbm = spoil(receiver, sender, self.level_dbm(receiver, sender) + 1.5 * self.random.normal())
                    if dbm > -95:
                        self.check.hear(receiver, sender, round(dbm), 5, POWER_DBM, self.now_s)
            self.tick(self.now_s + BURST_S)
        return self.words[before:]

    def tick(self, until_s: float) -> None:
        while (due_s := self.check.deadline_s()) <= until_s:
            self.now_s = max(self.now_s, due_s)
            self.words += list(self.check.tick(self.now_s))
            self.slices += 1
            assert self.check.deadline_s() > self.now_s
        self.now_s = until_s


@pytest.fixture
def hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one round an hour: these tests cover days, and hourly rounds show as much."""
    monkeypatch.setattr(crosscheck, "ROUND_S", 3600.0)


def named(words: list[ReaderFinding], what: str) -> set[int]:
    return {word.reader for word in words if word.what == what and not word.ok}


@pytest.mark.parametrize("seed", range(4))
def test_healthy_readers_are_calibrated_and_nobody_is_accused(seed: int) -> None:
    poles = Poles(seed, 16, spread_db=1.5)
    assert poles.live(0.75) == []
    known = poles.check.calibration
    assert known is not None
    assert known.pairs > 100
    assert abs(known.exponent - 2.3) < 3 * known.exponent_sd
    mean = sum(poles.received.values()) / 16
    off = [abs(known.offsets_db[n] - poles.received[n] + mean) / known.offsets_sd_db[n] for n in poles.true]
    print(f"offsets: {max(off):.1f} sd at the worst; errors {sorted(round(e) for e in known.loo_error_m.values())} m")
    assert max(off) < 3.5
    assert sum(known.offsets_db.values()) == pytest.approx(0.0, abs=1e-6)
    assert len(known.loo_error_m) == 16
    assert poles.check.figures()["reader_7_error_m"] == known.loo_error_m[7]


@pytest.mark.parametrize("seed", range(4))
def test_one_reader_that_hears_8_db_less_is_found_and_named(seed: int) -> None:
    poles = Poles(seed, 16, spread_db=1.0)
    poles.received[6] = -8.0
    words = poles.live(0.6)
    known = poles.check.calibration
    assert known is not None
    assert min(known.offsets_db, key=lambda n: known.offsets_db[n]) == 6
    mean = sum(poles.received.values()) / 16
    assert known.offsets_db[6] == pytest.approx(-8.0 - mean, abs=3 * known.offsets_sd_db[6])
    assert named(words, "reader_offset") == {6}
    assert named(words, "reader_misplaced") == set()
    assert "reader 6 hears" in words[0].detail
    assert "dB less" in words[0].detail


@pytest.mark.usefixtures("hourly")
def test_a_new_antenna_is_noticed_as_well() -> None:
    poles = Poles(1, 9, spread_db=1.0)
    poles.received[5] = -9.0
    assert named(poles.live(4), "reader_offset") == {5}
    poles.received[5] = 0.0
    assert [(word.what, word.reader, word.ok) for word in poles.live(20)] == [("reader_offset", 5, True)]


def test_a_reader_hung_40_m_off_is_named_and_the_others_are_not() -> None:
    found: Counter[str] = Counter()
    wrongly = 0
    for seed in range(4):
        for moved in (7, 12, 1, 25):  # in the middle with 8 neighbours or more within 45 m; at a corner with 3
            poles = Poles(seed, 16 if moved == 7 else 25, shadow_db=2.5)
            x, y, height = poles.true[moved]
            angle = float(poles.random.uniform(0, 2 * math.pi))
            poles.true[moved] = (x + 40 * math.cos(angle), y + 40 * math.sin(angle), height)
            who = named(poles.live(0.4), "reader_misplaced")
            where = "middle" if moved in (7, 12) else "corner"
            found[where] += moved in who
            wrongly += len(who - {moved})
    print(
        f"40 m off: found {found['middle']} of 8 in the middle, {found['corner']} of 8 at a corner; {wrongly} accused"
    )
    assert found["middle"] >= 7
    assert wrongly == 0


def test_a_misplaced_reader_is_left_out_of_the_law_and_taken_back_when_it_hangs_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poles = Poles(2, 16, shadow_db=2.0)
    right = poles.true[7]
    poles.true[7] = (right[0] + 70, right[1] - 30, right[2])
    assert named(poles.live(0.6), "reader_misplaced") == {7}
    known = poles.check.calibration
    assert known is not None
    assert known.offsets_db[7] == 0.0
    assert known.offsets_sd_db[7] > 2
    assert known.loo_error_m[7] > 30
    assert poles.check.figures()["readers_misplaced"] == 1
    assert max(error for n, error in known.loo_error_m.items() if n != 7) < 45
    poles.true[7] = right
    monkeypatch.setattr(crosscheck, "ROUND_S", 3600.0)
    words = poles.live(24)
    assert [(word.what, word.reader, word.ok) for word in words] == [("reader_misplaced", 7, True)]
    assert poles.check.figures()["readers_misplaced"] == 0


def test_two_misplaced_readers_are_named_one_after_the_other() -> None:
    poles = Poles(4, 25, shadow_db=2.0)
    for n, (dx, dy) in ((7, (60.0, 20.0)), (19, (-50.0, -40.0))):
        x, y, height = poles.true[n]
        poles.true[n] = (x + dx, y + dy, height)
    words = poles.live(1.2)
    assert named(words, "reader_misplaced") == {7, 19}
    assert len({word.reader for word in words}) == len(words)


@pytest.mark.usefixtures("hourly")
def test_a_reader_that_drifts_is_told_and_the_gauge_is_nobodys_drift() -> None:
    poles = Poles(5, 9)
    assert named(poles.live(30), "reader_drift") == set()
    poles.received[5] -= 7  # water in its connector
    poles.dead.add(1)  # and another reader dies, which moves the mean of all
    words = poles.live(14)
    assert named(words, "reader_drift") == {5}
    assert "dB less than in the last days" in next(w.detail for w in words if w.what == "reader_drift")


def test_outliers_and_impossible_levels_do_not_move_a_pair() -> None:
    clean, dirty = Poles(6, 9), Poles(6, 9)
    dice = np.random.default_rng(66)
    clean.live(2)
    dirty.live(2, lambda i, j, dbm: dbm - 25 if dice.random() < 0.1 else dbm)
    for receiver, sender, rssi in ((1, 2, 42), (1, 2, -128), (1, 2, None)):
        dirty.check.hear(receiver, sender, rssi, 5, POWER_DBM, dirty.now_s)
    assert dirty.counts["beacons_without_level"] == 3
    one, other = clean.check.calibration, dirty.check.calibration
    assert one is not None
    assert other is not None
    assert abs(one.exponent - other.exponent) < one.exponent_sd
    moved = max(abs(one.offsets_db[n] - other.offsets_db[n]) for n in one.offsets_db)
    print(f"a tenth of the bursts 25 dB low: offsets move by {moved:.1f} dB at the most")
    assert moved < 1.5


def test_pairs_are_bounded_and_the_farthest_gives_way() -> None:
    at = {n: (10.0 * n, 0.0, 3.5) for n in range(1, 60)}
    counts: Counter[str] = Counter()
    check = Crosscheck(at, counts, 0.0)
    for sender in range(59, 1, -1):
        check.hear(1, sender, -70, 3, POWER_DBM, 0.0)
    kept = sorted(check._pairs[1])
    assert kept == list(range(2, 2 + crosscheck.PAIRS_MAX))
    assert counts["beacon_pairs_dropped"] == 58 - crosscheck.PAIRS_MAX
    check.hear(1, 99, -70, 3, POWER_DBM, 0.0)  # not a reader of this zone
    check.hear(1, 1, -70, 3, POWER_DBM, 0.0)  # its own beacon: a replay
    assert sorted(check._pairs[1]) == kept


@pytest.mark.usefixtures("hourly")
def test_a_dead_reader_three_in_a_line_and_one_alone_crash_nothing() -> None:
    for readers in (1, 2, 3):
        poles = Poles(7, readers)
        for n in poles.true:
            poles.true[n] = poles.configured[n] = (30.0 * n, 0.0, 3.5)
        assert poles.live(1) == []
    poles = Poles(8, 9)
    poles.live(1)
    poles.dead.add(5)
    poles.live(26)
    known = poles.check.calibration
    assert known is not None
    assert (known.offsets_db[5], 5 in known.loo_error_m) == (0.0, False)  # forgotten after a day: back at the prior
    assert known.offsets_sd_db[5] > 2
    assert known.pairs == 8 * 7


def test_silence_fits_nothing_anew() -> None:
    poles = Poles(9, 4)
    poles.live(0.3)
    poles.tick(poles.now_s + 700)
    fits = poles.counts["calibrations"]
    poles.tick(poles.now_s + 7200)
    assert poles.counts["calibrations"] == fits


@pytest.mark.usefixtures("hourly")
def test_what_was_known_survives_a_restart_until_enough_is_heard_again() -> None:
    poles = Poles(10, 9)
    poles.received[3] = -8.0
    poles.live(30)
    rows, known = poles.check.snapshot(), poles.check.calibration
    assert known is not None
    again = Crosscheck(poles.configured, Counter(), poles.now_s)
    again.restore(rows, poles.now_s)
    assert again.calibration is not None
    assert again.calibration.offsets_db == known.offsets_db
    assert again.calibration.loo_error_m == known.loo_error_m
    assert again.calibration.pairs == known.pairs
    poles.check = again
    for _ in range(3):
        again.hear(1, 2, -60, 5, POWER_DBM, poles.now_s)
    poles.tick(poles.now_s + 3595)
    assert again.calibration.offsets_db == known.offsets_db  # one pair is no reason to forget the others
    assert named(poles.live(2), "reader_drift") == set()
    assert again.calibration.pairs == known.pairs
    for junk in ([], [(7, 1.0, 1.0, 1.0, False)], [(0, math.nan, 1.0, 1.0, False)]):
        fresh = Crosscheck(poles.configured, Counter(), 0.0)
        fresh.restore(junk, 0.0)
        assert fresh.calibration is None


def test_a_round_of_a_hundred_readers_is_cut_into_as_many_slices() -> None:
    """Each slice takes 10 to 15 ms, and an alarm waits for at most one."""
    poles = Poles(11, 100)
    poles.live(0.3)
    known = poles.check.calibration
    assert known is not None
    assert len(known.loo_error_m) == 100
    print(f"100 readers, {known.pairs} pairs: {poles.slices} slices")
    assert poles.slices > 100, "the law in steps, then each reader sought by the others"
