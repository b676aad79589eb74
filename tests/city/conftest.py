"""Fixtures of the city's tests: each test has its own broker, store and city, on free ports of loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.city.peers import City, Gateway, free_port, mosquitto, nats

NO_MOSQUITTO = "mosquitto is not installed: apt-get install mosquitto"


def has_mosquitto() -> bool:
    return shutil.which("mosquitto") is not None or Path("/usr/sbin/mosquitto").exists()


@pytest.fixture(params=["mosquitto", "nats"])
def broker_port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    if request.param == "mosquitto" and not has_mosquitto():
        pytest.skip(NO_MOSQUITTO)
    with (mosquitto if request.param == "mosquitto" else nats)(tmp_path, free_port()) as port:
        yield port


@pytest.fixture
def a_broker_port(tmp_path: Path) -> Iterator[int]:
    """One broker, for what is the same over both."""
    with (mosquitto if has_mosquitto() else nats)(tmp_path, free_port()) as port:
        yield port


@pytest.fixture
def city(broker_port: int, tmp_path: Path) -> Iterator[City]:
    city = City(tmp_path, broker_port)
    try:
        yield city.start()
    finally:
        city.stop()


@pytest.fixture
def gateway(broker_port: int) -> Iterator[Gateway]:
    gateway = Gateway(broker_port)
    yield gateway
    gateway.close()
