"""What all tests share."""

import os
import sys
import threading

import pytest

EXIT_MAX_S = 15.0


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
