"""What deploy/ holds is right by itself: units, samples, and the broker's list of who may do what."""

import configparser
import re
import secrets
import shlex
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from typer.testing import CliRunner

from gateway.__main__ import app as gateway_app
from gateway.config.load import load
from gateway.uplink import ROOT as TOPICS
from gateway.uplink import TopicKind, topic, topic_filter
from readers.terminal import Exit
from sim.demo import broker as demo_broker
from tests import programs
from tests.city.bed import _listening, end, free_port, wait_for
from tests.roots import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
SITE = "gongdeok"
UP: tuple[TopicKind, ...] = ("status", "sos", "events")
WANTED = {
    "gw1": {*(f"write {topic(SITE, 'gw1', kind)}" for kind in UP), f"read {topic(SITE, 'gw1', 'ack')}"},
    "city": {
        *(f"read {topic_filter(kind).replace('+', SITE, 1)}" for kind in UP),
        f"write {topic_filter('ack').replace('+', SITE, 1)}",
    },
}


def rights(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    user = ""
    for line in text.splitlines():
        if line.startswith("user "):
            user = line.removeprefix("user ")
            found[user] = set()
        elif line and not line.startswith("#"):
            found[user].add(line.removeprefix("topic "))
    return found


def test_the_brokers_list_is_that_of_the_contract() -> None:
    assert rights((DEPLOY / "mosquitto" / "ansim.acl").read_text(encoding="utf-8")) == WANTED


@pytest.mark.mosquitto
@programs.needs("mosquitto")
def test_the_demos_broker_has_the_same_list(tmp_path: Path) -> None:
    demo_broker.make("mosquitto", tmp_path / "broker", SITE, "gw1", {"gw1": "a", "city": "b"})
    have = rights((tmp_path / "broker" / "acl").read_text(encoding="utf-8"))
    assert have["gw1"] == WANTED["gw1"]
    assert {right.replace("+", SITE, 1) for right in have["city"]} == WANTED["city"], "the demo's city has any site"


class Account:
    """A client with an account of the broker, and what it has received."""

    def __init__(self, port: int, user: str) -> None:
        self.heard: list[str] = []
        self.subscribed = threading.Event()
        self.connected = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=f"{user}-{secrets.token_hex(4)}")
        if user:
            self.client.username_pw_set(user, f"word of {user}")
        self.refused = False
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda _c, _d, message: self.heard.append(message.topic)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.connected.wait(10)

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.refused = bool(reason.is_failure)
        self.connected.set()

    def subscribe(self, *filters: str) -> None:
        self.subscribed.clear()
        self.client.subscribe([(each, 1) for each in filters])
        assert self.subscribed.wait(10)

    def publish(self, name: str) -> None:
        self.client.publish(name, b"x", qos=1).wait_for_publish(10)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """mosquitto with deploy/mosquitto, two zones, and its list of accounts; without TLS, which test_install tries."""
    port = free_port()
    acl = (DEPLOY / "mosquitto" / "ansim.acl").read_text(encoding="utf-8")
    (tmp_path / "acl").write_text(acl + acl[acl.index("\nuser gw1") :].replace("gw1", "gw2"))
    (tmp_path / "passwd").touch()
    (tmp_path / "acl").chmod(0o600)
    (tmp_path / "passwd").chmod(0o600)
    for user in ("city", "gw1", "gw2"):
        command = [programs.find_or_skip("mosquitto_passwd"), "-b", str(tmp_path / "passwd"), user, f"word of {user}"]
        subprocess.run(command, check=True, capture_output=True, timeout=20)
    text = (DEPLOY / "mosquitto" / "ansim.conf").read_text(encoding="utf-8")
    text = re.sub(r"^(certfile|keyfile|tls_version) .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("listener 8883", f"listener {port} 127.0.0.1")
    text = text.replace("/etc/mosquitto/ansim.", f"{tmp_path}/")
    (tmp_path / "conf").write_text(text + "user root\nlog_dest stdout\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs.find_or_skip("mosquitto"), "-c", str(tmp_path / "conf")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for("mosquitto", lambda: _listening(port))
        yield port
    finally:
        end(process)


@pytest.mark.mosquitto
@programs.needs("mosquitto")
def test_a_gateway_reads_and_writes_its_own_topics_and_nothing_of_another_zone(broker: int) -> None:
    accounts = {user: Account(broker, user) for user in ("city", "gw1", "gw2")}
    everything = ("#", *(f"{TOPICS}/{SITE}/gw/{gateway}/{kind}" for gateway in ("gw1", "gw2") for kind in (*UP, "ack")))
    try:
        for account in accounts.values():
            account.subscribe(*everything, *(topic_filter(kind).replace("+", SITE, 1) for kind in UP))
        for name in everything[1:]:
            for user in ("gw1", "gw2", "city"):
                accounts[user].publish(name)
        accounts["city"].publish(topic(SITE, "gw1", "ack"))  # the last of all: whoever hears it has heard the rest
        accounts["city"].publish(topic(SITE, "gw2", "ack"))
        for gateway in ("gw1", "gw2"):
            own = topic(SITE, gateway, "ack")
            wait_for(f"{gateway}'s answers", lambda own=own, gateway=gateway: accounts[gateway].heard.count(own) >= 2)
            assert set(accounts[gateway].heard) == {own}
            assert accounts[gateway].heard.count(own) == 2, "once from each try of the city, never from a gateway"
        wait_for("the city's messages", lambda: len(set(accounts["city"].heard)) == 6)
        assert set(accounts["city"].heard) == {topic(SITE, g, kind) for g in ("gw1", "gw2") for kind in UP}
    finally:
        for account in accounts.values():
            account.client.disconnect()
            account.client.loop_stop()


@pytest.mark.mosquitto
@programs.needs("mosquitto")
def test_nobody_without_an_account_is_let_in(broker: int) -> None:
    stranger = Account(broker, "")
    try:
        assert stranger.refused
    finally:
        stranger.client.disconnect()
        stranger.client.loop_stop()


def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a CA")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("gates", [False, True], ids=["as it is", "with its gate"])
def test_the_sample_of_a_gateway_is_right(gates: bool, tmp_path: Path) -> None:
    text = (DEPLOY / "gateway.toml").read_text(encoding="utf-8")
    for name in ("/dev/serial/by-id/STICK", "/var/lib/ansim/zigbee.db", "/var/lib/ansim"):
        text = text.replace(f'"{name}"', f'"{tmp_path / name.rpartition("/")[2]}"')
    text = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE) if gates else text
    (tmp_path / "STICK").touch()
    (tmp_path / "ansim").mkdir(mode=0o700)
    (tmp_path / "gateway.toml").write_text(text)
    for name, content in {
        "reader_keys.json": "{" + ", ".join(f'"{n}": "{n:032x}"' for n in (1, 21, 22, 23, 24)) + "}",
        "readers.json": "{}",
        "broker_password": "word\n",
        "city.keys": f"1 {'ab' * 32}\n",
        "ca.crt": certificate(),
    }.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    made = CliRunner().invoke(gateway_app, ["tag", "new", "tag-001", "--file", str(tmp_path / "tag_keys.json")])
    assert made.exit_code == 0, made.output
    zone = load(tmp_path / "gateway.toml").zone
    assert len(zone.readers) == (5 if gates else 1)
    assert len(zone.gates) == gates
    assert zone.places
    assert zone.dangers
    assert zone.routes
    assert zone.bells


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_one_that_systemd_knows_and_little_is_open_to_it(path: Path) -> None:
    analyze = programs.find_or_skip("systemd-analyze")
    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False, timeout=30)
    named = path.name.replace("@", "@i")
    complaints = [line for line in done.stderr.splitlines() if path.name in line or named in line]
    assert [line for line in complaints if "not executable" not in line] == []
    command = [analyze, "security", "--offline=true", "--threshold=45", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("role", ["gateway", "city"])
def test_a_service_never_gives_up_but_a_wrong_file_waits_for_a_person(role: str) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string((DEPLOY / f"ansim-{role}.service").read_text(encoding="utf-8"))
    service = unit["Service"]
    assert (service["Restart"], unit["Unit"]["StartLimitIntervalSec"]) == ("always", "0")
    kept_down = {Exit(int(code)) for code in service["RestartPreventExitStatus"].split()}
    assert kept_down == {Exit.NO, Exit.USAGE}, "all else may pass by itself"
    assert unit["Unit"]["OnFailure"] == "ansim-again@%n.service"
    assert 0 < int(service["RestartSec"]) <= 10, "a child's press waits for it"
    assert service["ExecStart"].startswith(f"/opt/ansim-{role}/bin/ansim-{role} run /etc/")
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"


@pytest.mark.parametrize("failed", [True, False], ids=["still failed", "a person was there"])
def test_a_failed_service_is_tried_again_after_ten_minutes_if_nobody_was_there(failed: bool, tmp_path: Path) -> None:
    text = (DEPLOY / "ansim-again@.service").read_text(encoding="utf-8")
    pause, again = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert pause == "/bin/sleep 600"
    (tmp_path / "systemctl").write_text(
        f'#!/bin/sh\ncase "$1" in is-failed) exit {int(not failed)} ;; *) echo "$@" ;; esac\n'
    )
    (tmp_path / "systemctl").chmod(0o755)
    words = shlex.split(again.replace("%i", "ansim-gateway.service"))
    done = subprocess.run(words, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (0, "start --no-block ansim-gateway.service\n" if failed else "")
