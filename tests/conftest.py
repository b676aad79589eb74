"""What all tests share."""

import concurrent.futures.thread


def pytest_unconfigure() -> None:
    """Let the run end: bellows' thread of a stick that hung (a fault under test) never does, and Python would wait.

    The gateway itself does not wait for it either (gateway/box/daemon.py, EXIT_MAX_S).
    """
    concurrent.futures.thread._threads_queues.clear()  # type: ignore[attr-defined]
