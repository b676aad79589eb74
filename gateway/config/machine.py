"""What `check` looks at and `run` does not: is the stick there, can the folders be written, is this port meant?

`run` waits for a stick, makes the folder of the outboxes, and keeps emergencies in memory while it cannot: none of this
is a reason not to start. Nothing is opened or made here.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.config.files import user
from gateway.config.findings import Findings
from gateway.options import GatewayConfig
from readers.files import is_local, tls_note

STATE_FOLDER = Path("/var/lib/ansim")
"""systemd makes it for the unit of the gateway (StateDirectory=) before the gateway starts."""
PORTS_SHOWN = 5
BY_ID = Path("/dev/serial/by-id")


def stick(findings: Findings, config: GatewayConfig) -> None:
    """Report a port that is none. Note a stick that is not there, for it may be plugged in later, or not ours."""
    port = config.radio.port
    if not findings.right("radio.port") or "://" in port:
        return
    path = Path(port)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        there = [str(one) for one in _ports()]
        listed = f"the serial ports here are {', '.join(there[:PORTS_SHOWN])}" if there else "no serial port is here"
        what = f"radio.port: the stick is not there: {port}; {listed}. Plug it in, or mend the port, before `run`"
        findings.notes.append(f"{what}, which ends with code 3 without it")
        return
    except OSError as error:
        findings.say("radio.port", f"{port} cannot be looked at ({error.strerror})")
        return
    if not stat.S_ISCHR(mode):
        findings.say("radio.port", f"{port} is {'a folder' if stat.S_ISDIR(mode) else 'a file'}, not a serial port")
    elif not os.access(path, os.R_OK | os.W_OK):
        what = f"radio.port: {user()} may not open {port}. The unit ansim-gateway.service adds the group dialout"
        findings.notes.append(f"{what}; without the unit: usermod -aG dialout {user()}, and log in again")
    elif re.fullmatch(r"/dev/tty(USB|ACM)\d+", port):
        same = next((one for one in _ports() if one.parent == BY_ID and one.resolve() == path), None)
        text = "another device may get this name at the next start"
        findings.notes.append(f"radio.port: {text}; better is {same or f'its name in {BY_ID}'}")


def folders(findings: Findings, config: GatewayConfig) -> None:
    """Report a folder that cannot be written, and one that nobody makes. Note one that `run` makes."""
    store = findings.base / config.store.folder
    if findings.right("store.folder"):
        _store(findings, store, config.store.bulk_max_mb)
    database = findings.base / config.radio.database
    if not findings.right("radio.database"):
        return
    folder = database.parent
    fault = ""
    if os.path.isdir(database):
        fault = f"{database} is a folder; name a file in it"
    elif os.path.exists(database) and not os.access(database, os.R_OK | os.W_OK):
        fault = f"{database} may not be written by {user()}; {_give(database)}"
    elif folder != store and not os.path.isdir(folder):  # `run` makes the folder of the outboxes, and no other
        fault = f"there is no folder {folder}; {_make(folder)}"
    elif folder != store and not os.access(folder, os.W_OK | os.X_OK):
        fault = f"{folder} may not be written by {user()}; {_give(folder)}"
    if fault:
        findings.say("radio.database", fault, hint=False)


def ports(findings: Findings, config: GatewayConfig) -> None:
    """Report TLS on the port without TLS, and the reverse. Note figures on the broker's port: there would be none."""
    if findings.right("mqtt.port", "mqtt.ca_file") and (odd := tls_note(config.mqtt.port, config.mqtt.ca_file)):
        findings.say("mqtt.port", odd, hint=False)
    both = config.metrics is not None and findings.right("metrics.port", "mqtt.port", "mqtt.host")
    if both and is_local(config.mqtt.host) and config.metrics is not None and config.metrics.port == config.mqtt.port:
        text = f"{config.metrics.port} is the broker's port on this machine too, so there would be no figures"
        findings.notes.append(f"metrics.port: {text}; give it another, like 9464")


LOOKS = (stick, folders, ports)


def _store(findings: Findings, store: Path, bulk_max_mb: int) -> None:
    near = next(one for one in (store, *store.parents) if os.path.exists(one))
    if not os.path.isdir(near):
        findings.say("store.folder", f"{near} is a file, not a folder; remove it, or name another folder", hint=False)
        return
    if not os.access(near, os.W_OK | os.X_OK):
        if store == STATE_FOLDER and near != store:
            what = f"store.folder: {store} is not there yet; the unit ansim-gateway.service makes it"
            findings.notes.append(f"{what}, and without the unit: {_make(store)}")
        elif near == store:
            findings.say("store.folder", f"{store} may not be written by {user()}; {_give(store)}", hint=False)
        else:
            what = f"{store} is not there, and {user()} may not make it in {near}"
            findings.say("store.folder", f"{what}; {_make(store)}", hint=False)
        return
    if near != store:
        findings.notes.append(f"store.folder: {store} is not there yet; `run` makes it")
    free_mb = shutil.disk_usage(near).free // 1_000_000
    if free_mb < bulk_max_mb and not os.path.exists(store / "events.db"):
        text = f"{free_mb} MB are free on the disk of {store}, less than store.bulk_max_mb = {bulk_max_mb}"
        findings.notes.append(f"{text}; make room, or give a smaller limit")


def _make(folder: Path) -> str:
    return f"do: sudo install -d -o ansim -m 0700 {folder}"


def _give(path: Path) -> str:
    return f"do: sudo chown ansim {path}, or check as the user who runs the gateway"


def _ports() -> Iterator[Path]:
    """Yield the serial ports of this machine, by their permanent names if they have any."""
    named = sorted(BY_ID.glob("*"))
    yield from named
    known = {one.resolve() for one in named}
    for pattern in ("ttyUSB*", "ttyACM*"):
        yield from (one for one in sorted(Path("/dev").glob(pattern)) if one not in known)
