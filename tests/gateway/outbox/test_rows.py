"""Rows of a lane file: each has its own number, only the city's watermark removes it, and positions are shed first."""

from pathlib import Path

from gateway.effects import AlarmMemory
from gateway.outbox.rows import ALARMS_MAX, OTHER, POSITION
from tests.gateway.outbox.bed import entries, store


def test_rows_leave_only_by_the_watermark_of_this_epoch(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    assert kept.commit(entries(5)) == [1, 2, 3, 4, 5]
    assert kept.acknowledged("ffffffff", 5) == 0
    assert kept.acknowledged(kept.epoch, 0) == 0
    assert kept.backlog == 5
    assert kept.acknowledged(kept.epoch, 3) == 3
    assert [row.seq for row in kept.read(0, 10, 10**6).rows] == [4, 5]
    assert kept.acknowledged(kept.epoch, 3) == 0, "the same word again"
    assert kept.backlog == 2


def test_a_seq_is_never_given_twice_though_its_row_has_left(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(3))
    kept.acknowledged(kept.epoch, 3)
    epoch = kept.epoch
    kept.close()
    again, _ = store(tmp_path)
    assert again.epoch == epoch
    assert again.commit(entries(1)) == [4]


def test_a_page_names_the_row_before_it_as_it_is_now(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(6))
    assert kept.read(0, 2, 10**6).before == 0
    assert kept.read(2, 2, 10**6).before == 2
    kept.acknowledged(kept.epoch, 2)
    assert kept.read(2, 2, 10**6).before == 0, "what the city has is no row before"
    assert len(kept.read(0, 10, 50).rows) == 1, "at least one row, however small the bytes allowed"


def test_shed_rows_leave_no_gap_in_the_chain(tmp_path: Path) -> None:
    kept, told = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(10))
    kept.commit(entries(3000, POSITION, 400))
    kept.commit(entries(10))
    kept.shed(kept.used_b() // 2)
    assert kept.counters["shed_positions"] > 0
    assert kept.counters["shed_others"] == 0
    assert "shed" in told.words()
    rows, chain = [], 0
    while page := kept.read(chain, 100, 10**6):
        if not page.rows:
            break
        assert page.before == chain
        chain = page.rows[-1].seq
        rows += page.rows
    assert len(rows) == kept.backlog == 3020 - kept.counters["shed_positions"]
    assert rows[0].seq == 1, "what is no position stays"


def test_positions_go_before_other_rows_and_the_oldest_first(tmp_path: Path) -> None:
    kept, _ = store(tmp_path, "events", max_b=10**9)
    kept.commit(entries(5, OTHER, 400) + entries(500, POSITION, 400) + entries(500, OTHER, 400))
    kept.shed(0)
    assert kept.counters["shed_positions"] == 500
    assert kept.counters["shed_others"] == 505
    assert kept.backlog == 0
    assert kept.commit(entries(1)) == [1006]


def test_the_bulk_store_stays_within_its_bytes(tmp_path: Path) -> None:
    kept, _ = store(tmp_path, "events", max_b=2_000_000)
    for _ in range(20):
        kept.commit(entries(500, POSITION, 400))
        kept.tend()
    assert kept.used_b() <= 2_000_000
    assert kept.counters["shed_positions"] > 0
    assert sum(p.stat().st_size for p in tmp_path.glob("events.db*")) < 2_000_000 + 9_000_000


def test_memories_come_back_newest_stage_and_are_bounded(tmp_path: Path) -> None:
    kept, _ = store(tmp_path)
    kept.commit(entries(1), AlarmMemory(b"k", "a-1", 1, 5.0, b"data"))
    kept.remember(AlarmMemory(b"k", "a-1", 3, 5.0, b"more"))
    kept.close()
    kept, _ = store(tmp_path)
    assert kept.memories() == [AlarmMemory(b"k", "a-1", 3, 5.0, b"more")]
    for i in range(ALARMS_MAX + 10):
        kept.remember(AlarmMemory(b"%d" % i, f"a-{i}", 5 if i % 2 else 1, float(i)))
    left = kept.memories()
    assert len(left) == ALARMS_MAX
    assert not [m for m in left if m.stage == 5 and m.raised_utc_s < 10], "closed ones go first"
    assert [m for m in left if m.alarm == "a-1" and m.key == b"k"]
