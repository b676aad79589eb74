"""Notifications to systemd (sd_notify): ready, alive, stopping. Without NOTIFY_SOCKET nothing is sent."""

import os
import socket


def notify(message: str) -> None:
    """Send one notification, such as "READY=1". Never raises and never blocks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), address)
    except OSError:
        pass  # systemd does not listen: it will miss the signs of life and act


def watchdog_s() -> float | None:
    """Return the period (s) within which systemd expects a sign of life, or None."""
    try:
        period_us = int(os.environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return (
        period_us / 1e6
        if period_us > 0 and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        else None
    )
