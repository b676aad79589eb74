"""The log: who logs never waits and gets no error, whatever becomes of the lines."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from city import logbook
from city.logbook import Handler, Logbook, render
from tests.city.bed import wait_for


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass


def test_lines_come_out_in_order_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        book = Logbook(file.fileno()).start()
        for i in range(100):
            book.take(json.dumps({"event": i}))
        book.close()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == list(range(100))
    assert (book.lost, book.problem) == (0, "")


def test_a_full_disk_costs_lines_and_says_how_many() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        book = Logbook(full.fileno()).start()
        for _ in range(3):
            book.take("{}")
        wait_for("the losses", lambda: book.lost == 3)
        assert "3 lines of the log are lost (No space left on device)" in book.problem
        book.close()


def test_a_reader_that_is_gone_costs_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    book = Logbook(writer).start()
    book.take("{}")
    wait_for("the loss", lambda: book.lost == 1)
    assert "Broken pipe" in book.problem
    book.close()


def test_a_reader_that_stands_still_keeps_nobody_waiting(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    monkeypatch.setattr(logbook, "STUCK_S", 0.05)
    book = Logbook(writer).start()
    line = "x" * 1000
    began_s = time.monotonic()
    for _ in range(3 * logbook.LINES_MAX):
        book.take(line)
    assert time.monotonic() - began_s < 5
    assert book.lost >= logbook.LINES_MAX - 70  # a pipe holds 64 KiB
    wait_for("the word", lambda: "stuck" in book.problem)
    began_s = time.monotonic()
    book.close(0.2)
    assert time.monotonic() - began_s < 5
    threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")], daemon=True).start()
    wait_for("the rest", lambda: not book._lines)
    assert "stands still" in book.problem  # what was lost is reported for ten minutes
    os.close(writer)


def test_after_a_loss_the_log_says_it_and_no_line_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        book = Logbook(file.fileno())
        book.lost, book._torn = 7, True
        os.write(file.fileno(), b'{"half')
        book.start()
        book.take('{"event": "next"}')
        book.close()
    assert path.read_text().splitlines() == ['{"half', '{"event": "log_lost", "lines": 7}', '{"event": "next"}']


class Bad:
    def __repr__(self) -> str:
        raise RuntimeError("no name")


def test_an_entry_that_cannot_be_shown_is_no_error_for_who_logs() -> None:
    assert json.loads(render(None, "", {"event": "e", "of": Bad()}))["event"] == "unloggable"
    assert json.loads(render(None, "", {"event": "e", "of": b"\xff"}))["of"] == "b'\\xff'"
    lines: list[str] = []
    book: Any = type("Book", (), {"take": staticmethod(lines.append)})()
    handler = Handler(book)
    handler.emit(logging.LogRecord("uvicorn", logging.ERROR, "f", 1, "%d %s", ("x",), None))
    assert json.loads(lines[0])["logger"] == "uvicorn"


def test_structlog_and_the_standard_library_go_to_the_same_log(tmp_path: Path) -> None:
    path, handlers, hook = tmp_path / "log", logging.getLogger().handlers[:], threading.excepthook
    with path.open("wb") as file:
        book = logbook.open_log(file.fileno())
        try:
            structlog.get_logger().info("ours", detail="1")
            logging.getLogger("asyncio").error("theirs", exc_info=ValueError("bad"))
            thread = threading.Thread(target=lambda: 1 / 0, name="someone")
            thread.start()
            thread.join()
            book.close()
        finally:
            structlog.reset_defaults()
            logging.getLogger().handlers[:] = handlers
            threading.excepthook = hook
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["event"] for entry in entries] == ["ours", "library", "thread_ended"]
    assert "ValueError: bad" in entries[1]["exception"]
    assert entries[2]["thread"] == "someone"
