"""The command `ansim-city`: run the city, check its configuration, add an operator, share keys with the gateways."""

import contextlib
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvicorn

from city import link
from city.checks.settings import findings
from city.checks.store import is_another
from city.config import CityConfig, CityConfigError, examine, line_of, load
from city.link import LinkError
from city.logbook import Logbook, open_log
from city.pages import ports
from city.pages.app import make_app
from city.pages.connections import ACCEPT_MAX, LISTEN_MAX, Connections, Server, Sparse, TooFewFiles, open_max
from city.pages.login import NAME, OperatorsError, add_operator, read_operators
from city.pages.metrics import registry_of, serve_metrics
from city.pages.ports import WebPortRefused, WebPortTaken
from city.pages.site_map import read_map
from city.server import City
from city.store import StoreClaim, StoreError, StoreTaken
from readers.terminal import Exit, Version, exits, fail, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The city's server: it takes the gateways' events and shows the dispatcher's page.",
)
gateways = typer.Typer(no_args_is_help=True, help="The keys that the city shares with each gateway.")
app.add_typer(gateways, name="gateway")
GatewayName = Annotated[str, typer.Argument(help="The gateway's id, as in its own file.", metavar="GATEWAY")]
ConfigOption = Annotated[Path, typer.Option("--config", help="The city's TOML file.", metavar="FILE")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Where to write the file to carry to the box, of mode 0600.", metavar="FILE"),
]
CityFile = Annotated[Path, typer.Argument(help="The city's TOML file.", metavar="CONFIG")]
STOP_S = 3
SWITCH_S = 0.0005
"""Seconds. The thread of an emergency waits for the interpreter after each database statement. With the default of 5 ms
these waits add up."""


@app.callback()
def main(version: Version = False) -> None:
    """The city's server: it takes the gateways' events and shows the dispatcher's page."""


@app.command(epilog=exits(Exit.NO, Exit.TAKEN, Exit.FAULT, Exit.ENDED))
def run(config: CityFile) -> None:
    """Run the city until it is stopped (SIGTERM or Ctrl-C). Its log is JSON lines on standard output."""
    os.umask(0o077)  # the store holds where children were
    book = open_log()  # before any file: it takes the numbers of closed standard descriptors
    loaded, unsafe = _usable(config)
    try:
        pages = ports.bound("web.port", loaded.web.host, loaded.web.port)
        figures = (
            ports.bound("web.metrics_port", "127.0.0.1", loaded.web.metrics_port) if loaded.web.metrics_port else []
        )
        claim = StoreClaim(loaded.store.url)
    except WebPortTaken as error:
        fail(_at(config, str(error)), Exit.TAKEN)
    except StoreTaken as error:
        fail(_at(config, f"store.url: {error}"), Exit.TAKEN)
    except WebPortRefused as error:
        fail(_at(config, str(error)), Exit.NO)
    except StoreError as error:
        fail(_at(config, f"store.url: {error}"), Exit.FAULT)
    try:
        _serve(loaded, config, claim, book, unsafe, pages, figures)
    except (StoreError, TooFewFiles) as error:
        _end(book, claim, f"{config}: {error}", Exit.FAULT)
    except WebPortTaken as error:
        _end(book, claim, _at(config, str(error)), Exit.TAKEN)
    except KeyboardInterrupt:
        _end(book, claim, "ended by Ctrl-C before the page was open", Exit.ENDED)
    _end(book, claim)


def _at(config: Path, fault: str) -> str:
    """Return "KEY: what" with the file and the line of the key in front."""
    return f"{config}:{line_of(config, fault.partition(':')[0])}: {fault}"


def _serve(
    loaded: CityConfig,
    config: Path,
    claim: StoreClaim,
    book: Logbook,
    unsafe: list[str],
    pages: list[socket.socket],
    figures: list[socket.socket],
) -> None:
    """Run the city that has its ports and its store. The ports listen when all but the lanes is there."""
    sys.setswitchinterval(SWITCH_S)
    log = structlog.get_logger()
    for finding in unsafe:
        log.warning("finding", detail=finding)
    most = open_max()
    city = City(loaded, time.time)
    city.book, city.claim = book, claim
    for fault in read_map(Path(loaded.map.file)).faults if loaded.map else ():
        log.warning("map_fault", detail=fault)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(Sparse())
    connections = Connections(loaded.web.proxies, most=most)
    city.stream.most = min(city.stream.most, connections.most // 2)
    server = Server(
        uvicorn.Config(
            make_app(city, connections),
            http=connections.protocol,  # type: ignore[arg-type]
            log_level="warning",
            log_config=None,  # through our log, which never fails and never waits
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
            backlog=ACCEPT_MAX,
            h11_max_incomplete_event_size=32 * 1024,
        ),
        on_exit=city.stream.close,
    )
    ports.listening("web.port", pages, LISTEN_MAX)
    if figures:
        ports.listening("web.metrics_port", figures, LISTEN_MAX)
        serve_metrics(registry_of(city, connections), figures[0])
    claim.watch()
    log.info("page", address=f"http://{loaded.web.host}:{loaded.web.port}/", site=loaded.site)
    with contextlib.suppress(SystemExit):  # uvicorn's own code of a failed start, which has another meaning here
        server.run(sockets=pages)
    if not server.started:
        raise StoreError("the city could not start; its log says why")


def _end(book: Logbook, claim: StoreClaim, message: str = "", code: Exit = Exit.FAULT) -> None:
    """Give the store up, write what is left of the log, and end with what is wrong, if something is."""
    claim.release()
    book.close()
    if message:
        fail(message, code)


@app.command(epilog=exits(Exit.NO))
def check(config: CityFile) -> None:
    """Find all that is wrong with the configuration, the files it names and the store. Nothing is changed."""
    read, found = _faults(config)
    if found or read is None:
        for fault in found:
            say(fault, err=True)
        many = "1 fault" if len(found) == 1 else f"{len(found)} faults"
        fail(f"{many}; next: mend what is listed, then run `ansim-city check {config}` again", Exit.NO)
    operators = len(read_operators(Path(read.web.operators_file)))
    keyed = len(link.enrolled(Path(read.mqtt.gateway_keys)))
    say(
        f"{config}: good. site {read.site}, broker {read.mqtt.host}:{read.mqtt.port}, {operators} operator(s), "
        f"{keyed} gateway(s) enrolled",
        "good",
    )
    if not keyed:
        say("note: no gateway is believed until `ansim-city gateway enrol` has made its key", "warning")


@app.command(epilog=exits(Exit.NO, Exit.FAULT))
def operator(
    name: Annotated[
        str, typer.Argument(help="What the operator logs in as, and is called in every log.", metavar="NAME")
    ],
    file: Annotated[Path, typer.Option("--file", help="The operators' file; made if it is not there.", metavar="FILE")],
) -> None:
    """Give an operator a new passcode. It is printed once, and kept nowhere: only its hash is in the file."""
    if not file.parent.is_dir():
        fail(f"no folder {file.parent}; next: make it, or name another file", Exit.USAGE)
    try:
        passcode = add_operator(file, name)
    except OperatorsError as error:
        fail(str(error), Exit.NO if NAME.fullmatch(name) else Exit.USAGE)
    except OSError as error:
        fail(f"{file}: cannot be written: {error.strerror}; next: a folder that this user may write", Exit.FAULT)
    if sys.stderr.isatty():
        say(f"The passcode of {name}. It is shown this once; a new one takes its place:", "faint", err=True)
    say(passcode)


@gateways.command(epilog=exits(Exit.NO, Exit.FAULT))
def enrol(gateway: GatewayName, config: ConfigOption, out: OutOption = None) -> None:
    """Make the key that this city and a new gateway share. Carry the file to the box, as its mqtt.city_key_file."""
    _keys(lambda path: link.enrol(path, out), gateway, config, out)


@gateways.command(epilog=exits(Exit.NO, Exit.FAULT))
def rotate(
    gateway: GatewayName,
    config: ConfigOption,
    out: OutOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Drop the oldest of four keys, though the box may use it.")
    ] = False,
) -> None:
    """Add a new key. Carry the file to the box; both keys are good until `retire`. Nothing is started again."""
    _keys(lambda path: link.rotate(path, out, force=force), gateway, config, out)


@gateways.command(epilog=exits(Exit.NO, Exit.FAULT))
def retire(gateway: GatewayName, config: ConfigOption, out: OutOption = None) -> None:
    """Drop every key but the newest. Do it when the box has the newest: from then on no older one is good."""
    _keys(lambda path: link.retire(path, out), gateway, config, out)


@gateways.command(epilog=exits(Exit.NO, Exit.FAULT))
def show(
    gateway: GatewayName,
    config: ConfigOption,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the file to carry to the box, of mode 0600.", metavar="FILE")
    ],
) -> None:
    """Write the present keys of a gateway for its box once more. Nothing is changed, no key is printed."""
    _keys(lambda path: link.show(path, out), gateway, config, out)


def _keys(change: Callable[[Path], list[int]], gateway: str, config: Path, out: Path | None) -> None:
    try:
        loaded = load(config)
        path = link.key_path(Path(loaded.mqtt.gateway_keys), loaded.site, gateway)
    except CityConfigError as error:
        fail(str(error), Exit.NO)
    except LinkError as error:
        fail(str(error), Exit.USAGE)
    try:
        numbers = change(path)
    except LinkError as error:
        fail(str(error), Exit.NO)
    except OSError as error:
        fail(f"{error}; next: as the user of the service, in a folder that it may write", Exit.FAULT)
    held = ", ".join(map(str, numbers))
    say(f"{out or path}: gateway {gateway}, keys {held}; carry it to the box by a safe way, mode 0600")


def _faults(config: Path) -> tuple[CityConfig | None, list[str]]:
    """Return a configuration as far as it can be read, and all that is wrong or unsafe with it and its files."""
    read = examine(config)
    found = list(read.faults)
    if read.config is None:
        return None, found
    operators: int | None = None
    if not read.is_wrong("web.operators_file"):
        try:
            operators = len(read_operators(Path(read.config.web.operators_file)))
        except OperatorsError as error:
            found.append(str(error))
    found += [text for key, text in findings(config, read.config, operators) if not read.is_wrong(key)]
    found += read_map(Path(read.config.map.file)).faults if read.config.map else ()

    def line(fault: str) -> int:
        number = re.match(r":(\d+):", fault.removeprefix(str(config)))
        return int(number[1]) if number else sys.maxsize

    return read.config, sorted(found, key=line)


def _usable(config: Path) -> tuple[CityConfig, list[str]]:
    """Return a configuration with which the city can run, and what is unsafe in it. Ends the command if it cannot."""
    try:
        loaded = load(config)
        operators = len(read_operators(Path(loaded.web.operators_file)))
    except (CityConfigError, OperatorsError) as error:
        fail(str(error), Exit.NO)
    unsafe = [text for _, text in findings(config, loaded, operators)]
    for finding in unsafe:
        if is_another(finding):  # before tables are made in it
            fail(finding, Exit.NO)
    return loaded, unsafe


if __name__ == "__main__":
    app()
