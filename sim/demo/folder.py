"""The private folder of one run: keys, configurations, stores and logs. Small; only the last few runs are kept.

A run holds its folder by a lock. A start removes old folders, but none that a run holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.uplink import KEY_B, format_keys, with_new_key
from gateway.zone import LonLat, Zone
from readers.advertisement import TagKeys
from sim import chance
from sim.demo import technician
from sim.demo.broker import CITY, password, secret
from sim.demo.processes import StartError, console, output_of
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
HELD = "held"
"""An empty file. The process of a run has a lock on it (flock), which ends with the process however that ends."""
CONSOLE = "console.txt"
TEMPORARY = "tmp"
NEEDED_B = 100_000_000
"""A run of 90 s takes 20 MB, and a long one more: four logs of at most 8 MB, two stores, the broker's queue."""
LOW_B = 10_000_000
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(StartError):
    """The disk with the run's folder is nearly full. The run ends before a store of it breaks."""

    def __init__(self, folder: Path, free_b: int) -> None:
        super().__init__(
            f"the disk is full: {free_b / 1e6:.0f} MB are free for {folder}; make room there, or choose another folder "
            "with --runs"
        )
        self.folder, self.free_b = folder, free_b


@dataclass(frozen=True)
class Secrets:
    """The secrets that let the parts of a run connect. New for each run; only the operator's passcode is printed."""

    reader_keys: Mapping[int, bytes]
    broker: Mapping[str, str]
    link: str
    """The key file that the gateway and the city share."""
    token: str
    passcode: str


@contextmanager
def made(runs: Path = RUNS, *, kept: int = KEPT) -> Iterator[Path]:
    """Make a new run folder `demo-<time>` and hold it until the end of the block.

    With this one the newest `kept` folders stay, and older ones that a run holds. Raise StartError when none can be
    made, or when too little space is free for a run.
    """
    try:
        runs.mkdir(exist_ok=True)
        runs = runs.resolve()
        _remove_old(runs, kept - 1)
        if (free_b := _free_b(runs)) < NEEDED_B:
            raise StartError(
                f"{runs}: {free_b / 1e6:.0f} MB are free, a run needs {NEEDED_B / 1e6:.0f} MB; make room there, or "
                "choose another folder with --runs"
            )
        folder, held = _new(runs)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull(runs.absolute(), 0) from error
        raise StartError(
            f"cannot make a folder in {runs.absolute()}: {error.strerror}; start in a folder of yours, or choose one "
            "with --runs"
        ) from error
    try:
        yield folder
    finally:
        os.close(held)


def check_space(path: Path) -> None:
    """Raise DiskFull when the programs of a run in this folder will soon fail, StartError when it is gone."""
    try:
        free_b = _free_b(path)
    except FileNotFoundError:
        raise StartError(f"the run's folder {path} was removed; start again") from None
    if free_b < LOW_B:
        raise DiskFull(path, free_b)


def _new(runs: Path) -> tuple[Path, int]:
    """Return a new private folder, and the descriptor that holds it.

    It is held before it has the name of a run's folder, so that no other start takes it for one that nobody holds.
    """
    made = Path(tempfile.mkdtemp(prefix=".new-", dir=runs))
    held = _hold(made)
    assert held is not None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 1 + max((n for _, (then, n) in _runs_in(runs) if then == stamp), default=-1)
    while True:
        folder = runs / (f"demo-{stamp}-{number}" if number else f"demo-{stamp}")
        try:
            made.rename(folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another start was faster
                number += 1
                continue
            os.close(held)
            shutil.rmtree(made, ignore_errors=True)
            raise
        return folder, held


def _runs_in(runs: Path) -> list[tuple[Path, tuple[str, int]]]:
    """Return the folders of runs, the oldest first, each with the time in its name and its number in that second."""
    found = [(path, re.fullmatch(r"demo-(\d{8}-\d{6})(?:-(\d+))?", path.name)) for path in runs.iterdir()]
    ours = [(path, (name[1], int(name[2] or 0))) for path, name in found if name and path.is_dir()]
    return sorted(ours, key=lambda each: each[1])


def _hold(folder: Path) -> int | None:
    """Return a descriptor that holds this folder while it is open, in any process; None if somebody else holds it."""
    held = os.open(folder / HELD, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    except OSError:
        os.close(held)
        raise
    return held


def _remove_old(runs: Path, kept: int) -> None:
    """Remove the folders of runs before the newest `kept`, but none that a run holds."""
    old = _runs_in(runs)
    for n, (folder, _) in enumerate(old):
        with contextlib.suppress(OSError):  # another user's
            if (held := _hold(folder)) is not None:
                if n < len(old) - kept:
                    shutil.rmtree(folder, ignore_errors=True)
                else:  # a killed run left what is true only while it lives
                    (folder / CONSOLE).unlink(missing_ok=True)
                    shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
                os.close(held)


def _free_b(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def write_console(folder: Path, address: str, passcode: str) -> Path:
    """Write where the console is and who may open it (mode 0600), and return the file."""
    path = folder / CONSOLE
    secret(path, f"address   {address}\nname      {OPERATOR}\npasscode  {passcode}\n")
    return path


def eui64_of(seed: int, number: int) -> bytes:
    """Return the EUI64 of a reader: Digi's prefix, then 32 bits drawn from the seed."""
    return bytes.fromhex("0013a200") + (int(chance.words(seed, number, "eui64")[0]) & 0xFFFFFFFF).to_bytes(4, "big")


async def make_secrets(folder: Path, readers: Iterable[int]) -> Secrets:
    """Make the secrets of the run. The city's own command makes the operator's passcode. Raise StartError."""
    command = [console("ansim-city"), "operator", OPERATOR, "--file", str(folder / "operators.json")]
    said = await output_of(command, WRITE_S)
    return Secrets(
        reader_keys={number: secrets.token_bytes(READER_KEY_B) for number in readers},
        broker={GATEWAY: password(), CITY: password()},
        link=format_keys(with_new_key((), secrets.token_bytes(KEY_B))),
        token=secrets.token_urlsafe(32),
        passcode=said.strip().splitlines()[-1].split()[-1],
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
