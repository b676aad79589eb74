"""Everything that `check` says about a configuration, at once: each fault has what, where and the next step."""

import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from city import link
from city.checks import store
from city.config import CityConfig, CityConfigError, first_line, line_of
from readers.files import TLS_PORT, is_local, tls_note

KEYS_SHOWN_MAX = 20


def findings(path: Path, config: CityConfig, operators: int | None) -> list[tuple[str, str]]:
    """Return what would fail or be unsafe though it loads: (key, `FILE:LINE: KEY: what; next: step`) each.

    operators: how many are in their file; None if that is not known.
    """
    found = [("store.url", problem) for problem in (store.problem_of(config.store.url),) if problem]
    found += [*_readable(path, config), *_broker(config), *_pages(config)]
    if operators == 0:
        next_ = f"ansim-city operator NAME --file {config.web.operators_file}"
        found.append(("web.operators_file", f"there is no operator: nobody can log in; next: {next_}"))
    return [(key, f"{path}:{line_of(path, key)}: {key}: {what}") for key, what in found]


def _readable(path: Path, config: CityConfig) -> Iterator[tuple[str, str]]:
    """Secrets that others on this machine can read, and what others could replace by their own."""
    mqtt, web = config.mqtt, config.web
    secret = {
        "mqtt.password_file": mqtt.password_file,
        "mqtt.key_file": mqtt.key_file,
        "web.operators_file": web.operators_file,
        "web.token_file": web.token_file,
    }
    if config.store.url.startswith("sqlite:///"):
        secret["store.url"] = config.store.url.removeprefix("sqlite:///")
    elif re.match(r"[^:]+://[^/@]*:[^/@]*@", config.store.url):
        secret["site"] = str(path)
    for key, name in secret.items():
        mode = _mode(name)
        if mode & 0o006:
            why = ", which holds the password of the store," if key == "site" else ""
            yield (
                key,
                f"everybody on this machine can read or write {name}{why} (mode {mode:04o}); next: chmod 600 {name}",
            )
    for key, name in {"site": str(path), "mqtt.ca_file": mqtt.ca_file, "mqtt.cert_file": mqtt.cert_file}.items():
        if _mode(name) & 0o002:
            yield key, f"everybody on this machine can write {name} (mode {_mode(name):04o}); next: chmod 644 {name}"
    keys = Path(mqtt.gateway_keys)
    if not keys.is_dir() and keys != path.resolve().parent / "gateway_keys":
        yield (
            "mqtt.gateway_keys",
            f"no folder {keys}: no gateway is believed; next: ansim-city gateway enrol, or its place",
        )
    if os.path.isdir(keys) and not os.access(keys, os.R_OK | os.X_OK):
        what = f"this user cannot look into {keys}: no gateway is believed; next: chown it to the user of the service"
        yield "mqtt.gateway_keys", what
    for fault in link.faults_of(keys)[:KEYS_SHOWN_MAX]:
        yield "mqtt.gateway_keys", fault


def _mode(name: str | None) -> int:
    """Return the permission bits of a file, 0 if there is none."""
    try:
        return stat.S_IMODE(Path(name).stat().st_mode) if name else 0
    except OSError:
        return 0


def _broker(config: CityConfig) -> Iterator[tuple[str, str]]:
    mqtt = config.mqtt
    if not mqtt.ca_file and not is_local(mqtt.host):
        yield (
            "mqtt.host",
            f"{mqtt.host} is another machine, and the way there is not encrypted: names of children, places and the "
            f'password can be read on it; next: port = {TLS_PORT} and ca_file = "broker-ca.pem"',
        )
    elif odd := tls_note(mqtt.port, mqtt.ca_file):
        yield "mqtt.port", odd
    if mqtt.password_file and not mqtt.username:
        yield "mqtt.password_file", "is never sent without a username; next: add username, or delete this line"
    try:
        if mqtt.password_file and not first_line(mqtt.password_file):
            what = f"the first line of {mqtt.password_file} is empty; next: write the password there"
            yield "mqtt.password_file", what
    except CityConfigError as error:
        yield "mqtt.password_file", str(error)
    if mqtt.ca_file:
        yield from _certificates(mqtt.ca_file, mqtt.cert_file, mqtt.key_file)


def _certificates(ca: str, cert: str | None, key: str | None) -> Iterator[tuple[str, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        yield "mqtt.ca_file", f"{ca} holds no certificate in PEM: {error}; next: the broker's CA certificate"
        return
    ends = [ssl.cert_time_to_seconds(str(one["notAfter"])) for one in context.get_ca_certs() if "notAfter" in one]
    if not ends:
        yield "mqtt.ca_file", f"{ca} holds no certificate of a CA; next: that of the CA which signed the broker's"
    elif max(ends) < time.time():
        ended = time.strftime("%Y-%m-%d", time.gmtime(max(ends)))
        yield (
            "mqtt.ca_file",
            f"{ca} ended on {ended}, and the broker is refused; next: a new one from who runs the broker",
        )
    if cert and key:
        try:
            context.load_cert_chain(cert, key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            yield (
                "mqtt.cert_file",
                f"{cert} and {key} are no pair that can be used: {error}; next: PEM, key without passphrase",
            )


def _pages(config: CityConfig) -> Iterator[tuple[str, str]]:
    web = config.web
    if not is_local(web.host) and not web.secure_cookie:
        yield (
            "web.host",
            f"{web.host} serves other machines without https: the session of an operator can be read and used; next: "
            'host = "127.0.0.1" behind a reverse proxy, and secure_cookie = true',
        )
    if web.proxies and not web.secure_cookie:
        yield "web.proxies", "a proxy is in front, and the cookie would go over http, too; next: secure_cookie = true"
    if web.secure_cookie and not web.proxies:
        yield (
            "web.secure_cookie",
            "https comes from a proxy, and none is named: to the city all operators and all guessers have one address; "
            'next: proxies = ["127.0.0.1"]',
        )
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(web.host, 0, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as one:
            one.bind(address)
    except OSError as error:
        yield (
            "web.host",
            f"{web.host} is no address of this machine: {error.strerror}; next: one that `ip address` lists",
        )
