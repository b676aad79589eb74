"""A reader that listens more than a quarter of the time listens less while a press waits for a person: its answer comes
first."""

import hashlib
import hmac

import pytest

from readers import wire
from tests.firmware.hosted import Hosted

KEY = bytes(range(100, 116))
PRESS_MS, HELP_MS, CLOSE_MS, END_MS = 10_000.0, 14_000.0, 16_000.0, 18_000.0


class Post:
    """A gate's reader, a bell that is pressed once, and what its radio saw: (ms, kind, scan in ms or None)."""

    def __init__(self, interval_ms: int, window_ms: int) -> None:
        self.seen: list[tuple[float, int, tuple[float, float] | None]] = []
        self.reader = Hosted(key=KEY, radio=self._on_frame)
        self.reader.scan.settings.values = (0, 2000, interval_ms, window_ms, 60, 60, 0xFFFF)
        self.scans: list[tuple[float, tuple[float, float] | None]] = []
        for ms in range(2000, int(END_MS), 100):
            self.reader.at(ms, lambda ms=ms: self.scans.append((ms, self.scan())))
        self.reader.at(PRESS_MS, lambda: self.reader.supplied.update(D4=0))
        self.reader.at(PRESS_MS + 300, lambda: self.reader.supplied.clear())
        self.reader.run(END_MS)

    def scan(self) -> tuple[float, float] | None:
        return None if self.reader._scan is None else self.reader._scan[1:]

    def _on_frame(self, now_ms: float, frame: bytes) -> None:
        kind, number, boot, sequence = wire.peek(frame)
        self.seen.append((now_ms, kind, self.scan()))
        if kind == wire.BELL and frame[wire.HEADER_SIZE + 1] < wire.RECEIVED:
            self._answer(now_ms + 50, number, boot, sequence, frame[wire.HEADER_SIZE], wire.RECEIVED)
            self._answer(HELP_MS, number, boot, sequence, frame[wire.HEADER_SIZE], wire.ACKNOWLEDGED)
            self._answer(CLOSE_MS, number, boot, sequence, frame[wire.HEADER_SIZE], wire.CLOSED)

    def _answer(self, ms: float, number: int, boot: int, sequence: int, alarm: int, stage: int) -> None:
        body = wire.encode_stage([(alarm, stage)])
        frame = wire.encode(
            wire.STAGE, number, boot, sequence, body, lambda data: hmac.digest(KEY, data, hashlib.sha256)
        )
        self.reader.at(ms, lambda: self.reader.deliver(frame))

    def between(self, begin_ms: float, end_ms: float) -> set[tuple[float, float] | None]:
        return {scan for ms, scan in self.scans if begin_ms <= ms < end_ms}


@pytest.mark.parametrize(
    ("interval_ms", "window_ms", "meanwhile"), [(10, 5, (20, 5)), (20, 10, (40, 10)), (20, 20, (80, 20))]
)
def test_while_a_press_waits_for_a_person_it_listens_a_quarter_of_the_time(
    interval_ms: int, window_ms: int, meanwhile: tuple[float, float]
) -> None:
    post = Post(interval_ms, window_ms)
    bells = [(ms, scan) for ms, kind, scan in post.seen if kind == wire.BELL]
    assert PRESS_MS < bells[0][0] < PRESS_MS + 120
    assert bells[0][1] is None, "no scan while the first frame leaves"
    assert post.between(2000, PRESS_MS) == {(interval_ms, window_ms)}
    assert post.between(PRESS_MS + 300, HELP_MS) == {meanwhile}
    assert post.between(HELP_MS + 300, END_MS) == {(interval_ms, window_ms)}, "others arrive while help comes"


@pytest.mark.parametrize(("interval_ms", "window_ms"), [(20, 5), (40, 10), (200, 3)])
def test_a_reader_that_listens_no_more_than_that_changes_nothing(interval_ms: int, window_ms: int) -> None:
    post = Post(interval_ms, window_ms)
    assert post.between(2000, END_MS) == {(interval_ms, window_ms)}
    assert {scan for _, kind, scan in post.seen if kind == wire.BELL} == {(interval_ms, window_ms)}


def test_the_mesh_and_an_alarm_make_it_listen_less_together() -> None:
    reader = Hosted(key=KEY)
    reader.scan.settings.values = (0, 2000, 10, 5, 60, 60, 0xFFFF)
    reader.scan.shift = 1
    reader.alarm.lit[4] = 1
    assert reader.call(reader.scan._interval_us) == 40_000
    reader.alarm.lit[2] = wire.ACKNOWLEDGED
    assert reader.call(reader.scan._interval_us) == 20_000
    reader.alarm.lit[4] = reader.alarm.lit[2] = 0
    assert reader.call(reader.scan._interval_us) == 20_000
