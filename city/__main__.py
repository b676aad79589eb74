"""The command `ansim-city`: run the city, check its configuration, add an operator."""

import logging
import os
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import structlog
import typer
import uvicorn

from city.config import CityConfig, CityConfigError, load
from city.pages.app import make_app, read_map
from city.pages.login import OperatorsError, add_operator, read_operators
from city.server import City
from city.store import StoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The city's server: takes the gateways' events, shows the dispatcher's page.",
)
CityFile = Annotated[Path, typer.Argument(help="the city's TOML file", metavar="CONFIG")]
STOP_S = 3
SWITCH_S = 0.0005
"""Seconds. The thread of an emergency waits for the interpreter after each database statement. With the default of 5 ms
these waits add up."""


@app.command()
def run(config: CityFile) -> None:
    """Run the city until it is stopped (SIGTERM or Ctrl-C). One JSON line a log entry, on standard output."""
    os.umask(0o077)  # the store holds where children were
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    sys.setswitchinterval(SWITCH_S)
    loaded = _checked(config)
    city = City(loaded, time.time)
    structlog.get_logger().info("page", address=f"http://{loaded.web.host}:{loaded.web.port}/", site=loaded.site)
    server = _Server(
        uvicorn.Config(
            make_app(city),
            host=loaded.web.host,
            port=loaded.web.port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
            limit_concurrency=1000,
            h11_max_incomplete_event_size=32 * 1024,
        )
    )
    server.on_exit = city.stream.close
    server.run()
    if not server.started:
        _fail(f"{config}: web: cannot listen on {loaded.web.host}:{loaded.web.port}; is another city running?")


@app.command()
def check(config: CityFile) -> None:
    """Check the configuration, the files it names, and the store; change nothing else."""
    loaded = _checked(config)
    names = read_operators(Path(loaded.web.operators_file))
    typer.echo(
        f"{config}: good. site {loaded.site}, broker {loaded.mqtt.host}:{loaded.mqtt.port}, {len(names)} operator(s)"
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


class _Server(uvicorn.Server):
    """Ends the open streams on a stop signal. Otherwise the stop waits for them."""

    on_exit: Callable[[], None]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.on_exit()
        super().handle_exit(sig, frame)


def _checked(config: Path) -> CityConfig:
    try:
        loaded = load(config)
        read_operators(Path(loaded.web.operators_file))
        if loaded.map:
            read_map(Path(loaded.map.file))
        return loaded
    except (CityConfigError, OperatorsError, StoreError, ValueError) as error:
        _fail(str(error))


def _fail(message: str) -> typing.NoReturn:
    typer.echo(message, err=True)
    sys.exit(2)


if __name__ == "__main__":
    app()
