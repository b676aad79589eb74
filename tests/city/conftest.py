"""Fixtures of the city's tests: each test has its own broker, store and city, on free ports of loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from city.store import Store
from tests import programs
from tests.city import postgres
from tests.city.bed import City, Gateway, free_port, mosquitto, nats
from tests.city.screen import ARGUMENTS, Watched
from tests.roots import GONGDEOK


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked by `on_both_brokers` runs over mosquitto (MQTT 5) and nats (3.1.1), the others over one."""
    if "broker_kind" in metafunc.fixturenames:
        one = ["mosquitto" if programs.find("mosquitto") else "nats"]
        both = getattr(metafunc.function, "on_both_brokers", False)
        metafunc.parametrize("broker_kind", ["mosquitto", "nats"] if both else one)


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server, where there can be one."""
    if missing := postgres.missing():
        pytest.skip(missing)
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store in SQLite, then one on a PostgreSQL server."""
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("server").database() if on_server else f"sqlite:///{tmp_path / 'city.db'}"
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def broker_port(broker_kind: str, tmp_path: Path) -> Iterator[int]:
    if broker_kind == "mosquitto":
        programs.find_or_skip("mosquitto")
    with (mosquitto if broker_kind == "mosquitto" else nats)(tmp_path, free_port()) as port:
        yield port


@pytest.fixture
def city(request: pytest.FixtureRequest, broker_port: int, tmp_path: Path) -> Iterator[City]:
    """A running city. A test in the browser sees the map of Gongdeok, the others have no map."""
    site_map = GONGDEOK.read_text("utf-8") if request.node.get_closest_marker("browser") else None
    city = City(tmp_path, broker_port, site_map=site_map)
    try:
        yield city.start()
    finally:
        city.stop()


@pytest.fixture
def gateway(broker_port: int) -> Iterator[Gateway]:
    gateway = Gateway(broker_port)
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = programs.find_or_skip("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: Browser, city: City) -> Iterator[Watched]:
    watched = Watched(browser, city, 1920, 1080)
    yield watched
    watched.close()
