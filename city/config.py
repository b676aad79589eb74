"""The city's configuration: one TOML file, checked as a whole at load. Paths in it are relative to its own folder."""

import copy
import functools
import ipaddress
import os
import re
import tomllib
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from readers import files

Port = Annotated[int, Meta(ge=1, le=65535)]
Days = Annotated[float, Meta(gt=0, le=3650)]
TOKEN_MIN = 32


class CityConfigError(ValueError):
    """The configuration cannot be used. Each fault is a line that names the file and, where known, line, key and a
    correct value."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


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


_STAND_IN: dict[str, Any] = {
    "site": "site",
    "mqtt": {"host": "127.0.0.1"},
    "mqtt.host": "127.0.0.1",
    "store": {"url": "sqlite:///city.db"},
    "store.url": "sqlite:///city.db",
    "web": {"operators_file": ""},
    "web.operators_file": "",
    "map.file": "",
}
"""In the place of a required value that is missing or wrong, so that the others can be checked."""
FAULTS_MAX = 100
NO_ZONE = {"localtime", "posixrules", "Factory"}
"""Files among the time zones of a system that are no zone which a browser knows."""


class ReadConfig(NamedTuple):
    """A configuration as far as it could be read, and all that is wrong with it."""

    config: CityConfig | None
    """With absolute paths. A setting that is wrong has its default or a stand-in here. None: the file is no TOML."""
    faults: list[str]
    """`FILE:LINE: KEY: what; right would be ...` each."""
    wrong: frozenset[str]
    """Keys with a fault, and sections that are missing: nothing more can be said of them."""

    def is_wrong(self, key: str) -> bool:
        """Return whether this setting, or its whole section, has a fault already."""
        return key in self.wrong or key.partition(".")[0] in self.wrong


def load(path: Path) -> CityConfig:
    """Return the configuration of a TOML file, with absolute paths. Raises CityConfigError, which has every fault."""
    read = examine(path)
    if read.config is None or read.faults:
        raise CityConfigError(*read.faults)
    return read.config


def examine(path: Path) -> ReadConfig:
    """Read a TOML file and find all its faults at once. Never raises."""
    try:
        text = files.text_of(files.bytes_of(path))
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+), ", str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        return ReadConfig(None, [f"{where}: not TOML: {error}; see docs/CITY.md for a right one"], frozenset())
    except files.BadFile as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        return ReadConfig(None, [f"{where}: cannot be read: {error.what}"], frozenset())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        what = f"{path}: cannot be read: {why}; name a TOML file, as docs/CITY.md shows"
        return ReadConfig(None, [what], frozenset())
    except RecursionError:
        what = f"{path}: not this program's: nested too deeply; see docs/CITY.md for a right one"
        return ReadConfig(None, [what], frozenset())
    faults = _Faults(path, text)
    for _ in range(FAULTS_MAX):
        try:
            config = msgspec.convert(raw, CityConfig)
            return ReadConfig(_resolved(config, faults), faults.said, frozenset(faults.wrong))
        except msgspec.ValidationError as error:  # msgspec names only the first: mend that one, and look again
            _mend(raw, str(error), faults)
    return ReadConfig(None, [*faults.said, f"{path}: more than {FAULTS_MAX} faults; is it another file?"], frozenset())


class _Faults:
    """The faults found so far in one file."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.said: list[str] = []
        self.wrong: set[str] = set()

    def add(self, key: str, what: str, right: str = "") -> None:
        right = right or _RIGHT.get(key, "as docs/CITY.md shows")
        self.say(key, f"{what}; right would be {right}")

    def say(self, key: str, what: str) -> None:
        if key not in self.wrong:  # one fault a setting: the next one may be a consequence
            self.said.append(f"{self.path}:{_line(self.text, key)}: {key}: {what}")
            self.wrong.add(key)

    def has(self, key: str) -> bool:
        return key in self.wrong or key.partition(".")[0] in self.wrong


def _mend(raw: dict[str, Any], reason: str, faults: _Faults) -> None:
    """Note the fault that msgspec has found, and put its default or a stand-in in the place of the value."""
    what, _, where = reason.partition(" - at `$")
    section, _, name = re.sub(r"\[.*", "", where.rstrip("`").lstrip(".")).partition(".")
    if named := re.search(r"field `([^`]*)`", what):
        section, name = (section, named[1]) if section else (named[1], "")
    key = f"{section}.{name}" if name else section
    if "unknown field" in what:
        known = [k.rpartition(".")[2] for k in _RIGHT if k.rpartition(".")[0] == (section if name else "")]
        faults.say(key, f"no such key; known here: {', '.join(known)}")
    else:
        faults.add(key, what)
    table = raw.get(section) if name else raw
    if isinstance(table, dict):
        table.pop(name or section, None)
        if key in _STAND_IN:
            table[name or section] = copy.deepcopy(_STAND_IN[key])


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


def _resolved(config: CityConfig, faults: _Faults) -> CityConfig:
    """Check what TOML types cannot say, and make the paths absolute."""
    mqtt, web, folder = config.mqtt, config.web, faults.path.resolve().parent

    def at(key: str, name: str | None) -> str | None:
        if name is None or faults.has(key):
            return name
        full = str(folder / os.path.expanduser(name))
        if os.path.isdir(full):
            faults.add(key, f"{full!r} is a folder, not a file")
        elif not os.path.isfile(full):  # no name is too long for this
            faults.add(key, f"no file {full!r}")
        elif not os.access(full, os.R_OK):
            faults.say(key, f"this user cannot read {full!r}; next: give it to the user of the service")
        return full

    for key, host in (("mqtt.host", mqtt.host), ("web.host", web.host)):
        if (what := files.host_fault(host)) and not faults.has(key):
            faults.say(key, what)
    if not is_zone(web.timezone):
        like = zone_like(web.timezone)
        faults.add(
            "web.timezone",
            f"{web.timezone!r} is not known here, or not to browsers",
            f'timezone = "{like}"' if like else "",
        )
    for each in web.proxies:
        try:
            if ipaddress.ip_network(each).prefixlen == 0:
                what = f"{each} is every address: anybody could forge the address they come from"
                faults.add("web.proxies", what)
        except ValueError as error:
            faults.add("web.proxies", str(error))
    if web.metrics_port == web.port:
        faults.add("web.metrics_port", f"{web.port} is the port of the pages")
    for name, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        alone = getattr(mqtt, name) and not (mqtt.ca_file and getattr(mqtt, other))
        if alone and not (faults.has("mqtt.ca_file") or faults.has(f"mqtt.{other}")):
            faults.add(f"mqtt.{name}", "stands alone")
    url = config.store.url
    if url.startswith("sqlite:///"):
        url = f"sqlite:///{folder / os.path.expanduser(url.removeprefix('sqlite:///'))}"
    paths = {
        name: at(f"mqtt.{name}", getattr(mqtt, name)) for name in ("password_file", "ca_file", "cert_file", "key_file")
    }
    token_file = at("web.token_file", web.token_file)
    if token_file and not faults.has("web.token_file"):
        _look_at_token(token_file, faults)
    operators_file = at("web.operators_file", web.operators_file) or ""
    site_map = at("map.file", config.map.file) if config.map else None
    return msgspec.structs.replace(
        config,
        mqtt=msgspec.structs.replace(mqtt, gateway_keys=str(folder / os.path.expanduser(mqtt.gateway_keys)), **paths),
        store=msgspec.structs.replace(config.store, url=url),
        web=msgspec.structs.replace(web, operators_file=operators_file, token_file=token_file),
        map=MapSection(site_map) if site_map and not faults.has("map.file") else None,
    )


def _look_at_token(path: str, faults: _Faults) -> None:
    try:
        token = first_line(path)
    except CityConfigError as error:
        faults.say("web.token_file", str(error))
        return
    if len(token) < TOKEN_MIN:
        faults.add("web.token_file", f"under {TOKEN_MIN} characters")
    elif not re.fullmatch(r"[!-~]+", token):
        faults.add("web.token_file", "a space, or a character that no HTTP header carries")


def line_of(path: Path, key: str) -> int:
    """Return the line of a key in a configuration; of its table if the key is missing; else 1."""
    return _line(path.read_text("utf-8-sig"), key)


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
