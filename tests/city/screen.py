"""A page in a real browser that records which hosts it contacted and what it complained of, and takes screenshots."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Error, Page, Request

from tests.city.bed import City

ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-gpu",
    "--no-first-run",
]
SHOTS = os.environ.get("ANSIM_SHOTS")
"""The folder for screenshots; without it, each test uses a folder of its own."""


class Watched:
    """A page, the hosts it contacted, and the errors and warnings it logged."""

    def __init__(
        self,
        browser: Browser,
        city: City,
        width: int = 1920,
        height: int = 1080,
        *,
        address: str = "",
        before: str = "",
    ) -> None:
        """address: where the browser finds the city, if not at its own. before: a script to run before the page's."""
        self.context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        if before:
            self.context.add_init_script(before)
        self.address = address or city.address
        self.page: Page = self.context.new_page()
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", self._on_request)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.city = city

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob"):
            self.hosts.add(parts.netloc)

    def log_in(self, passcode: str | None = None) -> Page:
        self.page.goto(self.address + "/")
        self.page.get_by_label("Operator").fill("kim")
        self.page.get_by_label("Passcode").fill(passcode or self.city.passcode)
        self.page.get_by_role("button", name="Log in").click()
        return self.page

    def close(self) -> None:
        self.context.close()


def shot(page: Page, folder: Path, name: str, *, whole: bool = False) -> None:
    target = Path(SHOTS or folder) / f"{name}.png"
    for attempts_left in (2, 1, 0):
        try:
            page.screenshot(path=target, full_page=whole)
            break
        except Error:  # "Unable to capture screenshot", on a machine with every core busy
            if not attempts_left:
                raise
            page.wait_for_timeout(500)
    assert target.stat().st_size > 10_000
