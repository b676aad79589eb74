"""The city's configuration: one TOML file, checked as a whole at load. Paths in it are relative to its own folder."""

import functools
import ipaddress
import os
import re
import tomllib
import zoneinfo
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65535)]
Days = Annotated[float, Meta(gt=0, le=3650)]
TOKEN_MIN = 32


class CityConfigError(ValueError):
    """The configuration cannot be used. The message names the file and, where known, line, key and a correct value."""


class MqttSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The broker. With `ca_file` the connection is TLS, and the broker's certificate is checked against that file."""

    host: str
    port: Port = 1883
    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    gateway_keys: str = "gateway_keys"
    """The folder with the keys that the city shares with each gateway: NAME.keys."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"


class StoreSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where events are kept, and for how long."""

    url: Annotated[str, Meta(pattern=r"^(sqlite:///|postgresql\+psycopg://).+")]
    positions_days: Days = 3
    """After this time positions are deleted, also the newest position, presence and route deviation of a tag."""
    events_days: Days = 90
    """After this time routine events, the log of who looked, and the quarantine are deleted. Emergencies and their
    incidents are kept."""


class WebSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pages and the HTTP interface."""

    operators_file: str
    host: str = "127.0.0.1"
    port: Port = 8080
    token_file: str | None = None
    """A file whose first line is the bearer token of programs, 32 characters or more. None: programs have no access."""
    timezone: str = "Asia/Seoul"
    """The time zone of all times on the page, whatever zone the browser's machine uses."""
    secure_cookie: bool = False
    """True where the pages are reached by https. That is required everywhere except on this machine."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of the reverse proxies in front. Only from them is a forwarded address believed."""
    metrics_port: Port | None = None
    """A port of 127.0.0.1 where /metrics needs no token. None: only /metrics of the pages, with the token."""


class MapSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The site's streets, buildings and readers as GeoJSON, with the attribution that must be shown."""

    file: str


class CityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    site: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
    mqtt: MqttSection
    store: StoreSection
    web: WebSection
    map: MapSection | None = None


_RIGHT = {
    "site": 'an id of 1-32 letters, digits, _ and -: site = "gongdeok"',
    "mqtt": 'the broker: [mqtt] with host = "127.0.0.1"',
    "mqtt.host": 'a host name or address: host = "127.0.0.1"',
    "mqtt.port": "a port, 1..65535: port = 1883 (8883 with ca_file)",
    "mqtt.protocol": 'one of "auto", "5", "3.1.1"; auto tries 5 first',
    "mqtt.password_file": "the path of a file only you can read, with the password in its first line",
    "mqtt.ca_file": "the path of the broker's CA certificate, PEM",
    "mqtt.cert_file": "the path of this city's certificate, PEM; needs ca_file and key_file",
    "mqtt.gateway_keys": "the folder that `ansim-city gateway enrol` makes, which only the city can read",
    "mqtt.key_file": "the path of this city's private key, PEM; needs ca_file and cert_file",
    "store": 'the store: [store] with url = "sqlite:///city.db"',
    "store.url": '"sqlite:///FILE" or "postgresql+psycopg://USER@HOST/DATABASE"',
    "store.positions_days": "days, more than 0, at most 3650: positions_days = 3",
    "store.events_days": "days, more than 0, at most 3650: events_days = 90",
    "web": 'the pages: [web] with operators_file = "operators.json"',
    "web.host": 'the address to listen on: host = "127.0.0.1"',
    "web.port": "a port, 1..65535: port = 8080",
    "web.operators_file": "a file made by `ansim-city operator NAME --file FILE`",
    "web.token_file": f"the path of a file only you can read, with {TOKEN_MIN} or more characters in its first line",
    "web.timezone": 'a name of the IANA time zones: timezone = "Asia/Seoul"',
    "web.secure_cookie": "true behind https, else false",
    "web.proxies": 'the addresses of the reverse proxies in front of the city: proxies = ["127.0.0.1"]',
    "web.metrics_port": "a port of this machine alone, 1..65535, another than port: metrics_port = 9101",
    "map": 'the map: [map] with file = "site.geojson"',
    "map.file": "the path of the site's GeoJSON FeatureCollection",
}


NO_ZONE = {"localtime", "posixrules", "Factory"}
"""Files among the time zones of a system that are no zone which a browser knows."""
_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")


def load(path: Path) -> CityConfig:
    """Return the configuration of a TOML file, with absolute paths. Raises CityConfigError."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CityConfigError(f"{path}: cannot be read: {error}; name a TOML file, as docs/CITY.md shows") from None
    try:
        config = msgspec.convert(tomllib.loads(text), CityConfig)
    except tomllib.TOMLDecodeError as error:
        raise CityConfigError(f"{path}: not TOML: {error}; see docs/CITY.md for a right one") from None
    except RecursionError:
        raise CityConfigError(
            f"{path}: not this program's: nested too deeply; see docs/CITY.md for a right one"
        ) from None
    except msgspec.ValidationError as error:
        raise CityConfigError(_explain(path, text, str(error))) from None
    return _absolute(path, text, config)


def _explain(path: Path, text: str, reason: str) -> str:
    what, _, where = reason.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    named = re.search(r"field `([^`]+)`", what)
    if named:
        key = f"{key}.{named[1]}".lstrip(".")
    if "unknown field" in what:
        section = key.rpartition(".")[0]
        known = [k.rpartition(".")[2] for k in _RIGHT if k.rpartition(".")[0] == section]
        return f"{path}:{_line(text, key)}: {key}: no such key; known here: {', '.join(known)}"
    return f"{path}:{_line(text, key)}: {key}: {what}; right would be {_RIGHT.get(key, 'see docs/CITY.md')}"


def _line(text: str, key: str) -> int:
    """Return the line of a key; if the key is missing, the line of its table, else 1."""
    section, _, name = key.rpartition(".")
    table, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            table = header[1].strip()
            if table in (key, section):
                found = number
        elif table == section and re.match(rf'\s*"?{re.escape(name)}"?\s*=', line):
            return number
    return found


def _absolute(path: Path, text: str, config: CityConfig) -> CityConfig:
    def at(key: str, name: str | None) -> str | None:
        if name is None:
            return None
        full = path.resolve().parent / os.path.expanduser(name)
        if not os.path.isfile(full) or not os.access(full, os.R_OK):  # no name is too long for these
            raise CityConfigError(
                f"{path}:{_line(text, key)}: {key}: no readable file {str(full)!r}; right would be {_RIGHT[key]}"
            )
        return str(full)

    def wrong(key: str, what: str, right: str = "") -> CityConfigError:
        return CityConfigError(f"{path}:{_line(text, key)}: {key}: {what}; right would be {right or _RIGHT[key]}")

    mqtt, web = config.mqtt, config.web
    for key, host in (("mqtt.host", mqtt.host), ("web.host", web.host)):
        if not is_host(host):
            raise wrong(key, f"{host!r} is no host name and no address; a port, a scheme or a path has no place in it")
    if not is_zone(web.timezone):
        like = zone_like(web.timezone)
        raise wrong(
            "web.timezone",
            f"{web.timezone!r} is not known here, or not to browsers",
            f'timezone = "{like}"' if like else "",
        )
    for each in web.proxies:
        try:
            everybody = ipaddress.ip_network(each).prefixlen == 0
        except ValueError as error:
            raise wrong("web.proxies", str(error)) from None
        if everybody:
            raise wrong("web.proxies", f"{each} is every address: anybody could forge the address they come from")
    if web.metrics_port == web.port:
        raise wrong("web.metrics_port", f"{web.port} is the port of the pages")
    for key in ("cert_file", "key_file"):
        other = "key_file" if key == "cert_file" else "cert_file"
        if getattr(mqtt, key) and not (mqtt.ca_file and getattr(mqtt, other)):
            raise CityConfigError(
                f"{path}:{_line(text, f'mqtt.{key}')}: mqtt.{key}: stands alone; right would be {_RIGHT[f'mqtt.{key}']}"
            )
    url = config.store.url
    if url.startswith("sqlite:///"):
        url = f"sqlite:///{path.resolve().parent / os.path.expanduser(url.removeprefix('sqlite:///'))}"
    paths = {
        name: at(f"mqtt.{name}", getattr(mqtt, name)) for name in ("password_file", "ca_file", "cert_file", "key_file")
    }
    token_file = at("web.token_file", web.token_file)
    if token_file and len(first_line(token_file)) < TOKEN_MIN:
        raise wrong("web.token_file", f"under {TOKEN_MIN} characters")
    if token_file and not re.fullmatch(r"[!-~]+", first_line(token_file)):
        raise wrong("web.token_file", "a space, or a character that no HTTP header carries")
    return msgspec.structs.replace(
        config,
        mqtt=msgspec.structs.replace(
            mqtt, gateway_keys=str(path.resolve().parent / os.path.expanduser(mqtt.gateway_keys)), **paths
        ),
        store=msgspec.structs.replace(config.store, url=url),
        web=msgspec.structs.replace(
            web, operators_file=at("web.operators_file", web.operators_file), token_file=token_file
        ),
        map=MapSection(str(at("map.file", config.map.file))) if config.map else None,
    )


def line_of(path: Path, key: str) -> int:
    """Return the line of a key in a configuration; of its table if the key is missing; else 1."""
    return _line(path.read_text("utf-8-sig"), key)


def is_host(name: str) -> bool:
    """Return whether this is an IP address or the name of a host, without brackets, port, scheme or path."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.removesuffix(".").split(".")
        return len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
    return True


def is_zone(name: str) -> bool:
    """Return whether this is a time zone that this machine and every browser know by this name.

    A machine has more names than IANA: `localtime`, `posixrules`, `posix/...`, `right/...`. A browser refuses them.
    """
    return name in _zones()


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - NO_ZONE)


def zone_like(name: str) -> str | None:
    """Return the zone that was probably meant: of this machine for `localtime`, else by its last words."""
    if name == "localtime":
        _, _, name = os.path.realpath("/etc/localtime").partition("zoneinfo/")
    meant = re.sub(r"^(posix|right)/", "", name.strip().replace(" ", "_")).lower()
    return (
        next((z for z in sorted(_zones()) if meant in (z.lower(), z.lower().rpartition("/")[2])), None)
        if meant
        else None
    )


def first_line(path: str) -> str:
    """Return the first line of a file that holds a secret, without white space around it. Raises CityConfigError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CityConfigError(f"{path}: {error}; write the secret into its first line, as UTF-8 text") from None
