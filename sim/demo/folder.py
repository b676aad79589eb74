"""The private folder of one run: keys, configurations, stores and logs. Small; only the last few runs are kept."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.uplink import KEY_B, format_keys, with_new_key
from gateway.zone import LonLat, Zone
from readers.advertisement import TagKeys
from sim import chance
from sim.demo import technician
from sim.demo.broker import CITY, password, secret
from sim.demo.processes import StartError, console
from sim.street.site import Pole, Site
from sim.street.zone import zone_of
from sim.walks import sites
from sim.xbee.module import install_code

RUNS = Path("run")
KEPT = 3
GATEWAY = "gw1"
OPERATOR = "desk"
READER_KEY_B = 16
CHANNEL = 15
WRITE_S = 60.0


@dataclass(frozen=True)
class Secrets:
    """The secrets that let the parts of a run connect. New for each run; only the operator's passcode is printed."""

    reader_keys: Mapping[int, bytes]
    broker: Mapping[str, str]
    link: str
    """The key file that the gateway and the city share."""
    token: str
    passcode: str


def make(runs: Path = RUNS, *, kept: int = KEPT) -> Path:
    """Make and return a new run folder `demo-<time>`. Only the newest `kept` folders stay. Raise StartError."""
    try:
        runs.mkdir(exist_ok=True)
        name = time.strftime("demo-%Y%m%d-%H%M%S")
        folder = next(f for n in range(100) if not (f := runs / (name if not n else f"{name}-{n}")).exists())
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StartError(
            f"cannot make a folder in {runs.resolve()}: {error.strerror}; start in a folder of yours"
        ) from error
    old = sorted(f for f in runs.iterdir() if f.is_dir() and re.fullmatch(r"demo-\d{8}-\d{6}(-\d+)?", f.name))
    for folder_ in old[:-kept]:
        shutil.rmtree(folder_, ignore_errors=True)
    return folder.resolve()


def eui64_of(seed: int, number: int) -> bytes:
    """Return the EUI64 of a reader: Digi's prefix, then 32 bits drawn from the seed."""
    return bytes.fromhex("0013a200") + (int(chance.words(seed, number, "eui64")[0]) & 0xFFFFFFFF).to_bytes(4, "big")


def make_secrets(folder: Path, readers: Iterable[int]) -> Secrets:
    """Make the secrets of the run. The city's own command makes the operator's passcode. Raise StartError."""
    command = [console("ansim-city"), "operator", OPERATOR, "--file", str(folder / "operators.json")]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WRITE_S)
    if made.returncode != 0:
        raise StartError(f"`{' '.join(command)}` failed: {(made.stderr or made.stdout).strip()[-500:]}")
    return Secrets(
        reader_keys={number: secrets.token_bytes(READER_KEY_B) for number in readers},
        broker={GATEWAY: password(), CITY: password()},
        link=format_keys(with_new_key((), secrets.token_bytes(KEY_B))),
        token=secrets.token_urlsafe(32),
        passcode=made.stdout.strip().splitlines()[-1].split()[-1],
    )


def write_gateway(
    folder: Path,
    site: Site,
    poles: Sequence[Pole],
    tags: Mapping[str, TagKeys],
    secrets_: Secrets,
    *,
    seed: int,
    radio_port: Path,
    broker_port: int,
    metrics_port: int,
    walked: sites.SimulatedSite | None = None,
) -> Path:
    """Write the gateway's configuration, its files of secrets and its walk test; return the path of the TOML file.

    walked: the result of `technician.walk`; None: the zone has no walk test.
    """
    base = folder / "gateway"
    base.mkdir(mode=0o700)
    secret(base / "reader_keys.json", json.dumps({str(n): key.hex() for n, key in secrets_.reader_keys.items()}))
    tag_rows = {name: {"k_id": keys.k_id.hex(), "k_mic": keys.k_mic.hex()} for name, keys in tags.items()}
    secret(base / "tag_keys.json", json.dumps(tag_rows))
    enrolment = {}
    for pole in poles:
        eui64 = eui64_of(seed, pole.number)
        enrolment[str(pole.number)] = {"eui64": eui64.hex(), "install_code": install_code(eui64).hex()}
    secret(base / "enrolment.json", json.dumps(enrolment))
    secret(base / "broker_password", secrets_.broker[GATEWAY] + "\n")
    secret(base / "city.keys", secrets_.link)
    lines = [
        f"site = {_text(site.name)}",
        f"gateway = {_text(GATEWAY)}",
        f"attribution = {_text(site.attribution)}",
        "[radio]",
        f"port = {_text(radio_port)}",
        f"channel = {CHANNEL}",
        'enrolment = "enrolment.json"',
        "[store]",
        'folder = "outbox"',
        "bulk_max_mb = 64",
        "[mqtt]",
        'host = "127.0.0.1"',
        f"port = {broker_port}",
        f"username = {_text(GATEWAY)}",
        'password_file = "broker_password"',
        "[metrics]",
        f"port = {metrics_port}",
        "[clock]",
        "trusted = true",
    ]
    if walked is not None:
        lines += ["[locate]", f"survey = {_text(technician.write(base, walked).name)}"]
    lines += _zone_lines(zone_of(site, poles, partial(eui64_of, seed)))
    (base / "gateway.toml").write_text("\n".join(lines) + "\n")
    return base / "gateway.toml"


def write_city(
    folder: Path,
    site: Site,
    site_file: Path,
    poles: Sequence[Pole],
    secrets_: Secrets,
    *,
    broker_port: int,
    web_port: int,
) -> Path:
    """Write the city's configuration and its map (without homes and unused poles); return the path of the TOML file."""
    base = folder / "city"
    base.mkdir(mode=0o700)
    shown = json.loads(site_file.read_text("utf-8-sig"))
    used = {pole.number for pole in poles}
    shown["features"] = [
        f for f in shown["features"]
        if f["properties"]["kind"] != "home" and f["properties"].get("number", next(iter(used))) in used
    ]  # fmt: skip
    (base / "site.geojson").write_text(json.dumps(shown, separators=(",", ":")))
    (folder / "operators.json").rename(base / "operators.json")
    secret(base / "token", secrets_.token + "\n")
    secret(base / "broker_password", secrets_.broker[CITY] + "\n")
    (base / "gateway_keys").mkdir(mode=0o700)
    secret(base / "gateway_keys" / f"{GATEWAY}.keys", secrets_.link)
    lines = [
        f"site = {_text(site.name)}",
        "[mqtt]",
        'host = "127.0.0.1"',
        f"port = {broker_port}",
        f"username = {_text(CITY)}",
        'password_file = "broker_password"',
        "[store]",
        'url = "sqlite:///city.db"',
        "[web]",
        'operators_file = "operators.json"',
        'token_file = "token"',
        f"port = {web_port}",
        "[map]",
        'file = "site.geojson"',
    ]
    (base / "city.toml").write_text("\n".join(lines) + "\n")
    return base / "city.toml"


def _zone_lines(zone: Zone) -> Iterator[str]:
    """Yield the zone's tables in the gateway's file."""
    for reader in zone.readers:
        yield from ("[[readers]]", f"number = {reader.number}", f"eui64 = {_text(reader.eui64)}")
        yield from (*_at(reader.lon, reader.lat), f"height_m = {reader.height_m}", f"pole = {_text(reader.pole)}")
        if reader.antenna == "patch":
            yield from ('antenna = "patch"', f"look_deg = {reader.look_deg}")
        if reader.gate is not None:
            yield from (f"gate = {_text(reader.gate)}", f"side = {_text(reader.side)}")
        if reader.scan_interval_ms is not None:
            yield f"scan_interval_ms = {reader.scan_interval_ms}"
            yield f"scan_window_ms = {reader.scan_window_ms}"
    for place in zone.places:
        yield from ("[[places]]", f"id = {_text(place.id)}", f"kind = {_text(place.kind)}")
        yield f"polygon = {_lonlats(place.polygon)}"
    for gate in zone.gates:
        yield from ("[[gates]]", f"id = {_text(gate.id)}", f"place = {_text(gate.place)}", *_at(gate.lon, gate.lat))
        yield from (f"inward_deg = {gate.inward_deg}", f"width_m = {gate.width_m}")
    for danger in zone.dangers:
        yield from ("[[dangers]]", f"id = {_text(danger.id)}", f"polygon = {_lonlats(danger.polygon)}")
        yield f"warn_m = {danger.warn_m}"
    for path in zone.footpaths:
        yield from ("[[footpaths]]", f"line = {_lonlats(path.line)}")
    for bell in zone.bells:
        yield from ("[[bells]]", f"id = {_text(bell.id)}", f"reader = {bell.reader}")


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _at(lon: float, lat: float) -> tuple[str, str]:
    return f"lon = {lon:.7f}", f"lat = {lat:.7f}"


def _lonlats(points: Sequence[LonLat]) -> str:
    return "[" + ", ".join(f"[{lon:.7f}, {lat:.7f}]" for lon, lat in points) + "]"
