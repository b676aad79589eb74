"""A cry gets through, or the operator is told why, where a broker does not answer as MQTT says it must."""

import asyncio
from pathlib import Path

import pytest

from gateway.mqtt import connection
from tests.gateway.mqtt.bed import Broker, City, bed, needs_mosquitto
from tests.gateway.mqtt.fake_broker import CONNECT, PUBLISH, SUBSCRIBE, fake_broker, swallows_version_5


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connection, "PUBACK_MAX_S", 0.3)
    monkeypatch.setattr(connection, "BACKOFF_MAX_S", 0.3)


@pytest.mark.parametrize("kind", [CONNECT, SUBSCRIBE, PUBLISH])
@pytest.mark.parametrize("fault", ["silence", "rubbish", "close"])
def test_a_broker_that_fails_at_version_5_gets_the_cry_in_3_1_1(tmp_path: Path, kind: int, fault: str) -> None:
    async def main() -> None:
        async with fake_broker({("5", kind): fault}) as fake, bed(tmp_path / "store", fake.port) as gateway:
            await gateway.cry()
            sos = gateway.uplink.sos
            await gateway.until(
                "a PUBACK of 3.1.1", lambda: sos.version == "3.1.1" and sos._pubacked and not sos._unacked
            )
            await gateway.until("the cry", lambda: any(v == "3.1.1" and t.endswith("/sos") for v, t in fake.published))
            assert fake.connects["5"] >= connection.UNANSWERED_MAX
            assert ("sos_broker_away", False) in gateway.words()
            await gateway.until("the good word", lambda: ("sos_broker_away", True) in gateway.words())
            assert gateway.backlog()["sos"] == 1, "the broker's answer deletes nothing"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        (CONNECT, "silence", "no answer to CONNECT"),
        (CONNECT, "rubbish", "before it answered CONNECT (Protocol error)"),
        (CONNECT, "close", "closed the connection before it answered CONNECT"),
        (SUBSCRIBE, "silence", "no answer to SUBSCRIBE"),
        (SUBSCRIBE, "close", "closed the connection before it answered SUBSCRIBE"),
        (PUBLISH, "silence", "a message without PUBACK"),
        (PUBLISH, "close", "closed the connection"),
    ],
)
def test_a_broker_that_fails_at_both_versions_is_told_of_and_tried_for_ever(
    tmp_path: Path, kind: int, fault: str, said: str
) -> None:
    async def main() -> None:
        async with (
            fake_broker({(v, kind): fault for v in ("5", "3.1.1")}) as fake,
            bed(tmp_path / "store", fake.port) as gateway,
        ):
            await gateway.cry()
            await gateway.until("both, again and again", lambda: min(fake.connects["5"], fake.connects["3.1.1"]) > 4)
            detail = next(d for what, ok, d in gateway.said if (what, ok) == ("sos_broker_away", False))
            assert said in detail
            assert f"127.0.0.1:{fake.port}" in detail
            if kind == PUBLISH:
                assert ("sos_broker_away", True) not in gateway.words(), "a broker that answers no PUBLISH is away"
            fake.faults.clear()
            await gateway.until("its recovery", lambda: ("sos_broker_away", True) in gateway.words())
            await gateway.until("the cry", lambda: any(t.endswith("/sos") for _, t in fake.published))

    asyncio.run(main())


def test_a_cry_does_not_wait_for_the_answer_to_subscribe(tmp_path: Path) -> None:
    """A broker that lets us in and never answers SUBSCRIBE still takes the cry to the city."""

    async def main() -> None:
        async with (
            fake_broker({(v, SUBSCRIBE): "silence" for v in ("5", "3.1.1")}) as fake,
            bed(tmp_path / "store", fake.port) as gateway,
        ):
            await gateway.cry()
            await gateway.until("the cry", lambda: any(t.endswith("/sos") for _, t in fake.published), 5)

    asyncio.run(main())


def test_a_version_asked_for_is_kept_to_whatever_the_broker_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with fake_broker({("5", CONNECT): "silence"}) as fake, bed(tmp_path / "store", fake.port, "5") as gateway:
            await gateway.until("five tries", lambda: fake.connects["5"] > 5)
            assert fake.connects["3.1.1"] == 0
            assert gateway.uplink.sos.version == "5"

    asyncio.run(main())


@needs_mosquitto
def test_a_real_broker_behind_a_box_that_swallows_version_5_delivers_the_cry(tmp_path: Path) -> None:
    async def main() -> None:
        with Broker(tmp_path / "broker") as broker:
            city = City(broker.port)
            try:
                async with swallows_version_5(broker.port) as port, bed(tmp_path / "store", port) as gateway:
                    await gateway.cry(3)
                    await gateway.routine(10)
                    await gateway.until("empty outboxes", lambda: not any(gateway.backlog().values()))
                    assert set(city.seqs("sos")) == {1, 2, 3}
                    assert [each.version for each in gateway.uplink.connections] == ["3.1.1", "3.1.1"]
            finally:
                city.close()

    asyncio.run(main())
