"""What all tests share."""

import os
import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest

from tests import connections, programs

EXIT_MAX_S = 15.0

connections.watch()
programs.extend_path()
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        # Under `nohup` or in the background: still ignored here, but not by the programs that tests start and signal.
        signal.signal(_number, lambda *_: None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let the run end: bellows' thread of a stick that hung (a fault under test) never does, and Python would wait.

    The gateway does the same (gateway/box/daemon.py, EXIT_MAX_S).
    """

    def end() -> None:
        sys.stdout.flush()
        os._exit(int(exitstatus))

    last = threading.Timer(EXIT_MAX_S, end)
    last.daemon = True
    session.config.add_cleanup(last.start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that is skipped says what its reader can do about it."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and "next: " not in str(report.longrepr).lower():
        report.outcome = "failed"
        report.longrepr = f"skipped, and the reason names no next step: {report.longrepr}"
    return report
