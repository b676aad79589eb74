"""The proxies of docs/proxy, as they stand there, in front of the real city: only ports, paths and names are new."""

import contextlib
import json
import os
import resource
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from city.pages.login import FAILURES_MAX
from tests import programs
from tests.city.bed import City, Gateway, end, free_port, sos, wait_for
from tests.city.test_checks import certificate
from tests.roots import ROOT

IDLE = 1000
SOON_S = 5.0


class Proxy:
    """A proxy in front of a city, and clients that come to it from addresses of their own."""

    def __init__(self, folder: Path, kind: str, city: City) -> None:
        self.port, self.folder, self.city, self.kind = free_port(), folder, city, kind
        certificate(folder, "127.0.0.1", 30)
        self.trust = ssl.create_default_context(cafile=str(folder / "127.0.0.1.pem"))
        self.trust.check_hostname = False
        self.process = self._run(self._nginx() if kind == "nginx" else self._caddy())

    def _nginx(self) -> list[str]:
        text = (ROOT / "docs/proxy/nginx.conf").read_text("utf-8")
        text = "\n".join(line for line in text.splitlines() if "[::]" not in line)  # a container may have no IPv6
        for old, new in (
            ("user www-data;", "daemon off;" if os.getuid() else "daemon off; user root;"),
            ("/run/nginx.pid", f"{self.folder}/nginx.pid"),
            ("/var/log/nginx/", f"{self.folder}/"),
            ("listen 80 ", f"listen 127.0.0.1:{free_port()} "),
            ("listen 443 ", f"listen 127.0.0.1:{self.port} "),
            ("/etc/ssl/city.pem", f"{self.folder}/127.0.0.1.pem"),
            ("/etc/ssl/private/city.key", f"{self.folder}/127.0.0.1.key"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.city.port}"),
        ):
            assert old in text, f"docs/proxy/nginx.conf has no {old!r}"
            text = text.replace(old, new)
        config = self.folder / "nginx.conf"
        config.write_text(text)
        return ["nginx", "-p", str(self.folder), "-e", f"{self.folder}/error.log", "-c", str(config)]

    def _caddy(self) -> list[str]:
        text = (ROOT / "docs/proxy/Caddyfile").read_text("utf-8")
        certificates = f"tls {self.folder}/127.0.0.1.pem {self.folder}/127.0.0.1.key"
        for old, new in (
            ("{\n\tservers {", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {"),
            ("city.example {", f"https://127.0.0.1:{self.port} {{\n\t{certificates}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.city.port}"),
        ):
            assert old in text, f"docs/proxy/Caddyfile has no {old!r}"
            text = text.replace(old, new)
        config = self.folder / "Caddyfile"
        config.write_text(text)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        homes = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        with (self.folder / "proxy.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | homes)

    def listens(self) -> bool:
        assert self.process.poll() is None, (self.folder / "proxy.log").read_text()[-2000:]
        with contextlib.suppress(httpx.TransportError), self.client() as client:
            return client.get("/login").status_code == 200
        return False

    def client(self, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            transport=httpx.HTTPTransport(verify=self.trust, local_address=address),
            headers={"Origin": f"https://127.0.0.1:{self.port}"} | headers,
            timeout=10,
        )

    def attempt(self, client: httpx.Client, passcode: str) -> int:
        return client.post("/login", data={"operator": "kim", "passcode": passcode}).status_code


@pytest.fixture
def behind(broker_port: int, tmp_path: Path) -> Iterator[City]:
    city = City(tmp_path, broker_port)
    with city.config.open("a") as file:
        file.write('proxies = ["127.0.0.1"]\nsecure_cookie = true\n')
    try:
        yield city.start()
    finally:
        city.stop()


@pytest.fixture(params=["nginx", "caddy"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    programs.find_or_skip(request.param)
    folder = tmp_path / "proxy"
    folder.mkdir()
    made = Proxy(folder, request.param, request.getfixturevalue("behind"))
    try:
        wait_for(f"{request.param} to listen", made.listens)
        yield made
    finally:
        end(made.process)


@contextlib.contextmanager
def idle(port: int) -> Iterator[list[socket.socket]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.skip(programs.FEW_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    held = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(IDLE)]
    try:
        yield held
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_operator_works_through_the_proxy_of_the_docs(proxy: Proxy, gateway: Gateway) -> None:
    city = proxy.city
    offer = proxy.trust
    offer.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", proxy.port)) as raw, offer.wrap_socket(raw) as one:
        assert one.selected_alpn_protocol() == "h2"
    offer.set_alpn_protocols(["http/1.1"])

    guesser = proxy.client("127.0.0.6", **{"X-Forwarded-For": "127.0.0.5"})
    assert [proxy.attempt(guesser, "wrong") for _ in range(FAILURES_MAX)] == [401] * FAILURES_MAX
    assert proxy.attempt(guesser, city.passcode) == 429
    guesser.close()

    gateway.status()
    with idle(proxy.port) as held, proxy.client("127.0.0.5") as browser:
        assert proxy.attempt(browser, city.passcode) == 303, "the address that the guesser forged is not braked"
        assert browser.get("/metrics").status_code == 404
        with browser.stream("POST", "/login", content=b"a=" + b"b" * 20_000) as answer:
            long = answer.status_code  # its text may be lost: the proxy closes while we still send
        assert long in ((413,) if proxy.kind == "nginx" else (413, 502))  # Caddy stops in the middle of passing it on
        with browser.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            began = time.monotonic()
            next(lines)
            assert time.monotonic() - began < SOON_S, "the head of the stream was held back"
            began = time.monotonic()
            gateway.urgent(1, sos("a1"))
            shown = next(line for line in lines if line.startswith("data:") and '"incident":{' in line)
            assert time.monotonic() - began < SOON_S, "the event was held back"
            number = json.loads(shown.removeprefix("data:"))["incident"]["number"]
            assert browser.post(f"/api/incidents/{number}/acknowledge").json()["state"] == "acknowledged"
        held[0].settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b"", "an idle connection is closed in about 10 s"
    with contextlib.closing(sqlite3.connect(city.folder / "city.db")) as db, db:
        looks = set(db.execute("SELECT what, address FROM look").fetchall())
    assert {("login refused", "127.0.0.6"), ("login", "127.0.0.5"), ("events", "127.0.0.5")} <= looks
    assert "proxy_unknown" not in city.log.read_text()
