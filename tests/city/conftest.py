"""Fixtures of the city's tests: each test has its own broker, store and city, on free ports of loopback."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.city.bed import City, Gateway, free_port, mosquitto, nats

NO_MOSQUITTO = "mosquitto is not installed: apt-get install mosquitto"


def has_mosquitto() -> bool:
    return shutil.which("mosquitto") is not None or Path("/usr/sbin/mosquitto").exists()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked by `on_both_brokers` runs over mosquitto (MQTT 5) and nats (3.1.1), the others over one."""
    if "broker_kind" in metafunc.fixturenames:
        one = ["mosquitto" if has_mosquitto() else "nats"]
        both = getattr(metafunc.function, "on_both_brokers", False)
        metafunc.parametrize("broker_kind", ["mosquitto", "nats"] if both else one)


@pytest.fixture
def broker_port(broker_kind: str, tmp_path: Path) -> Iterator[int]:
    if broker_kind == "mosquitto" and not has_mosquitto():
        pytest.skip(NO_MOSQUITTO)
    with (mosquitto if broker_kind == "mosquitto" else nats)(tmp_path, free_port()) as port:
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
