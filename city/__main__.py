"""The command `ansim-city`: run the city, check its configuration, add an operator."""

import logging
import os
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import prometheus_client
import structlog
import typer
import uvicorn

from city import link
from city.checks.settings import findings
from city.checks.store import FOREIGN
from city.config import CityConfig, CityConfigError, load
from city.link import LinkError
from city.logbook import open_log
from city.pages.app import make_app
from city.pages.connections import ACCEPT_MAX, Connections, Server, Sparse, TooFewFiles, open_max
from city.pages.login import OperatorsError, add_operator, read_operators
from city.pages.metrics import registry_of
from city.pages.site_map import read_map
from city.server import City
from city.store import StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The city's server: takes the gateways' events, shows the dispatcher's page.",
)
gateways = typer.Typer(no_args_is_help=True, help="The keys that the city shares with each gateway.")
app.add_typer(gateways, name="gateway")
GatewayName = Annotated[str, typer.Argument(help="the gateway's id, as in its own file", metavar="GATEWAY")]
ConfigOption = Annotated[Path, typer.Option("--config", help="the city's TOML file", metavar="CONFIG")]
OutOption = Annotated[Path | None, typer.Option("--out", help="write the file to carry to the box here, too")]
CityFile = Annotated[Path, typer.Argument(help="the city's TOML file", metavar="CONFIG")]
STOP_S = 3
SWITCH_S = 0.0005
"""Seconds. The thread of an emergency waits for the interpreter after each database statement. With the default of 5 ms
these waits add up."""


@app.command()
def run(config: CityFile) -> None:
    """Run the city until it is stopped (SIGTERM or Ctrl-C). One JSON line a log entry, on standard output."""
    os.umask(0o077)  # the store holds where children were
    book = open_log()
    sys.setswitchinterval(SWITCH_S)
    loaded = _checked(config)
    for finding in _findings(config, loaded):
        if FOREIGN in finding:  # before tables are made in it
            _fail(finding)
        structlog.get_logger().warning("finding", detail=finding)
    try:
        city = City(loaded, time.time)
    except StoreError as error:
        _fail(f"{config}: store.url: {error}")
    city.book = book
    for fault in read_map(Path(loaded.map.file)).faults if loaded.map else ():
        structlog.get_logger().warning("map_fault", detail=fault)
    structlog.get_logger().info("page", address=f"http://{loaded.web.host}:{loaded.web.port}/", site=loaded.site)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(Sparse())
    try:
        connections = Connections(loaded.web.proxies, most=open_max())
        if loaded.web.metrics_port:
            prometheus_client.start_http_server(loaded.web.metrics_port, "127.0.0.1", registry_of(city, connections))
    except TooFewFiles as error:
        _fail(f"{config}: {error}")
    except OSError as error:
        _fail(f"{config}: web.metrics_port: cannot listen on 127.0.0.1:{loaded.web.metrics_port}: {error.strerror}")
    city.stream.most = min(city.stream.most, connections.most // 2)
    server = Server(
        uvicorn.Config(
            make_app(city, connections),
            http=connections.protocol,  # type: ignore[arg-type]
            host=loaded.web.host,
            port=loaded.web.port,
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
    server.run()
    book.close()
    if not server.started:
        _fail(f"{config}: web: cannot listen on {loaded.web.host}:{loaded.web.port}; is another city running?")


@app.command()
def check(config: CityFile) -> None:
    """Check the configuration, the files it names, and the store; change nothing."""
    loaded = _checked(config)
    found = [*_findings(config, loaded), *(read_map(Path(loaded.map.file)).faults if loaded.map else ())]
    if found:
        _fail("\n".join(found))
    names = read_operators(Path(loaded.web.operators_file))
    typer.echo(
        f"{config}: good. site {loaded.site}, broker {loaded.mqtt.host}:{loaded.mqtt.port}, {len(names)} operator(s), "
        f"{len(link.enrolled(Path(loaded.mqtt.gateway_keys)))} gateway(s) enrolled"
    )


@app.command()
def operator(
    name: Annotated[str, typer.Argument(help="what the operator logs in as, and is called in every log")],
    file: Annotated[Path, typer.Option("--file", help="the operators' file; made if it is not there")],
) -> None:
    """Give an operator a new passcode. It is printed once, and kept nowhere: only its hash is in the file."""
    try:
        typer.echo(add_operator(file, name))
    except (OperatorsError, OSError) as error:
        _fail(str(error))


@gateways.command()
def enrol(gateway: GatewayName, config: ConfigOption, out: OutOption = None) -> None:
    """Make the key that this city and a new gateway share. Carry the file to the box, as its mqtt.city_key_file."""
    _keys(lambda path: link.enrol(path, out), gateway, config, out)


@gateways.command()
def rotate(
    gateway: GatewayName,
    config: ConfigOption,
    out: OutOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="drop the oldest of four keys, though the box may use it")
    ] = False,
) -> None:
    """Add a new key. Carry the file to the box; both keys are good until `retire`. Nothing is started again."""
    _keys(lambda path: link.rotate(path, out, force=force), gateway, config, out)


@gateways.command()
def retire(gateway: GatewayName, config: ConfigOption, out: OutOption = None) -> None:
    """Drop every key but the newest. Do it when the box has the newest: from then on no older one is good."""
    _keys(lambda path: link.retire(path, out), gateway, config, out)


@gateways.command()
def show(
    gateway: GatewayName,
    config: ConfigOption,
    out: Annotated[Path, typer.Option("--out", help="where to write the file to carry to the box, of mode 0600")],
) -> None:
    """Write the present keys of a gateway for its box once more. Nothing is changed, no key is printed."""
    _keys(lambda path: link.show(path, out), gateway, config, out)


def _keys(change: Callable[[Path], list[int]], gateway: str, config: Path, out: Path | None) -> None:
    try:
        loaded = load(config)
        path = link.key_path(Path(loaded.mqtt.gateway_keys), loaded.site, gateway)
        numbers = change(path)
    except (CityConfigError, LinkError, OSError) as error:
        _fail(str(error))
    held = ", ".join(map(str, numbers))
    typer.echo(f"{out or path}: gateway {gateway}, keys {held}; carry it to the box by a safe way, mode 0600")


def _findings(config: Path, loaded: CityConfig) -> list[str]:
    try:
        return findings(config, loaded, len(read_operators(Path(loaded.web.operators_file))))
    except (CityConfigError, OperatorsError) as error:
        _fail(str(error))


def _checked(config: Path) -> CityConfig:
    try:
        loaded = load(config)
        read_operators(Path(loaded.web.operators_file))
        return loaded
    except (CityConfigError, OperatorsError, StoreError, ValueError) as error:
        _fail(str(error))


def _fail(message: str) -> typing.NoReturn:
    typer.echo(message, err=True)
    sys.exit(2)


if __name__ == "__main__":
    app()
