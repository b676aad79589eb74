"""Programs are started, read, killed, restarted and never left behind; brokers keep a gateway to its own topics."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from gateway.uplink import ROOT
from sim.demo import broker
from sim.demo.processes import LOG_MAX_B, Program, StartError, free_ports, listens, until
from tests import programs

PYTHON = sys.executable


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_its_lines_are_kept_and_its_records_handed_on(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    code = "print('{\"event\": \"committed\", \"at\": 1}'); print('{broken'); print('[1]'); print('words')"
    program = Program("one", [PYTHON, "-c", code], tmp_path / "log", on_record=records.append)

    async def story() -> None:
        await program.start()
        await until(lambda: not program.running, "its end")
        await program.stop()

    asyncio.run(story())
    assert records == [{"event": "committed", "at": 1}]
    assert (tmp_path / "log").read_text().splitlines()[-1] == "words"


def test_it_is_killed_and_started_again_and_its_use_adds_up(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.15: pass\nprint('ready')\ntime.sleep(60)"
    program = Program("one", [PYTHON, "-u", "-c", burn], tmp_path / "log")

    def ready(times: int) -> bool:
        return program.log.exists() and program.log.read_text().count("ready") == times

    async def story() -> None:
        await program.start()
        await until(lambda: ready(1), "the first", program)
        first = program.pid
        await program.kill()
        assert not program.running
        await program.start()
        await until(lambda: ready(2), "the second", program)
        assert program.pid != first
        used = program.sample()
        assert used.cpu_s >= 0.2
        assert used.rss_max_mb > 3
        await program.stop()
        assert not program.running

    asyncio.run(story())
    assert program.starts == 2


def test_an_end_nobody_asked_for_is_an_error_that_shows_its_last_words(tmp_path: Path) -> None:
    program = Program("gateway", [PYTHON, "-c", "print('no stick'); raise SystemExit(3)"], tmp_path / "log")

    async def story() -> None:
        await program.start()
        await until(lambda: False, "anything", program)

    with pytest.raises(StartError, match=r"(?s)gateway ended by itself \(exit 3\).*no stick"):
        asyncio.run(story())


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot start"):
        asyncio.run(Program("x", [str(tmp_path / "nothing")], tmp_path / "log").start())


def test_a_log_is_bounded(tmp_path: Path) -> None:
    program = Program("loud", ["x"], tmp_path / "log")
    program._logged_b = LOG_MAX_B - 5
    program._note("123")
    program._note("4567")
    assert (tmp_path / "log").read_text() == "123\n"


def test_programs_end_with_their_parent_even_when_it_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from sim.demo.processes import Program
async def main():
    program = Program("child", [{PYTHON!r}, "-c", "import time; time.sleep(60)"], Path({str(tmp_path / "log")!r}))
    await program.start()
    print(program.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(listens(port) for port in ports)


class Client:
    """An MQTT client of one user that keeps what it receives."""

    def __init__(self, port: int, user: str, word: str, version: int, name: str = "") -> None:
        self.got: list[tuple[str, bytes]] = []
        self.refused = False
        self.subscribed = 0
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"test-{user}{name}", protocol=version)
        self.paho.username_pw_set(user, word)
        self.paho.on_message = lambda _c, _u, m: self.got.append((m.topic, m.payload))
        self.paho.on_connect = lambda _c, _u, _f, reason, _p: setattr(self, "refused", reason.is_failure)
        self.paho.on_subscribe = lambda *_: setattr(self, "subscribed", self.subscribed + 1)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()

    def end(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.mark.parametrize("kind", ["nats", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def test_the_broker_lets_a_gateway_speak_and_hear_as_itself_only(kind: broker.BrokerKind, tmp_path: Path) -> None:
    if kind == "mosquitto":
        programs.find_or_skip("mosquitto")
    words = {"gw1": broker.password(), broker.CITY: broker.password()}
    program, port = broker.make(kind, tmp_path / "broker", "zone", "gw1", words)
    version = mqtt.MQTTv5 if kind == "mosquitto" else mqtt.MQTTv311
    own, other = f"{ROOT}/zone/gw/gw1", f"{ROOT}/zone/gw/gw2"

    async def story() -> None:
        await program.start()
        await until(lambda: listens(port), "the broker", program)
        city = Client(port, broker.CITY, words[broker.CITY], version)
        gateway = Client(port, "gw1", words["gw1"], version)
        stranger = Client(port, "gw1", "guess", version, "-stranger")
        forger = Client(port, "gw1", words["gw1"], version, "-forger")
        try:
            city.paho.subscribe(f"{ROOT}/+/gw/+/sos", 1)
            gateway.paho.subscribe(f"{own}/ack", 1)
            await until(lambda: city.subscribed and gateway.subscribed, "subscriptions", program)  # type: ignore[return-value]
            await until(forger.paho.is_connected, "the forger", program)
            forger.paho.publish(f"{other}/sos", b"forged", 1)
            city.paho.publish(f"{other}/ack", b"not yours", 1)
            gateway.paho.publish(f"{own}/sos", b"mine", 1)
            await until(lambda: bool(city.got), "the cry", program)
            city.paho.publish(f"{own}/ack", b"yours", 1)
            await until(lambda: bool(gateway.got), "the answer", program)
            assert city.got == [(f"{own}/sos", b"mine")]
            assert gateway.got == [(f"{own}/ack", b"yours")]
            assert stranger.refused
        finally:
            for client in (city, gateway, stranger, forger):
                client.end()
            await program.stop()

    asyncio.run(story())


def test_a_broker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_mosquitto", lambda: None)
    assert broker.choose("auto") == "nats"
    with pytest.raises(StartError, match="mosquitto is not installed"):
        broker.choose("mosquitto")
    monkeypatch.setattr(broker, "_nats", lambda: None)
    with pytest.raises(StartError, match="no broker"):
        broker.choose("auto")


def test_secrets_are_readable_by_nobody_else(tmp_path: Path) -> None:
    kind: broker.BrokerKind = "mosquitto" if shutil.which("mosquitto") else "nats"
    word = broker.password()
    broker.make(kind, tmp_path / "broker", "zone", "gw1", {"gw1": word, broker.CITY: broker.password()})
    for path in (tmp_path / "broker").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    if kind == "mosquitto":
        assert word not in "".join(p.read_text() for p in (tmp_path / "broker").iterdir() if p.is_file())
