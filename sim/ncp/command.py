"""`ansim-sim coordinator` runs an emulated coordinator on a pseudo-terminal, for any host that speaks EZSP 13."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from readers.terminal import Exit, exits, fail
from sim.ncp.chip import Coordinator, PtyCoordinator
from sim.ncp.nvm import Nvm, StateFileError, load

app = typer.Typer(add_completion=False)


@app.command(name="coordinator", epilog=exits(Exit.NO, Exit.FAULT, Exit.ENDED))
def coordinator_command(
    pty: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to put the serial port: a symbolic link is made here.")
    ],
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that keeps the stick's memory; without it a new stick each time."),
    ] = None,
    eui64: Annotated[
        str,
        typer.Option(metavar="EUI64", help="The stick's address, 16 hexadecimal digits; empty: by the seed."),
    ] = "",
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", help="Seed of all that is random; -1: a new one, which is printed.")
    ] = -1,
    scan_speed: Annotated[
        float,
        typer.Option(metavar="X", min=1.0, help="How many times faster than on the air an energy scan is."),
    ] = 1.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print counters at the end.")] = False,
) -> None:
    """Emulate a ZigBee coordinator stick (EZSP 13 over ASH) on a pseudo-terminal until Ctrl-C.

    Then, in another terminal:  zigpy radio ezsp PTY info
    """
    seed = secrets.randbelow(1 << 32) if seed < 0 else seed
    address = bytes.fromhex("f4ce36") + (seed & 0xFFFFFFFFFF).to_bytes(5, "big")
    if eui64:
        try:
            address = bytes.fromhex(eui64.replace(":", ""))
        except ValueError:
            address = b""
        if len(address) != 8:
            raise typer.BadParameter(f"{eui64!r} is not 16 hexadecimal digits", param_hint="--eui64")
    try:
        asyncio.run(_serve(pty, state, address, seed, scan_speed, verbose))
    except StateFileError as error:
        fail(f"ansim-sim coordinator: {error}", Exit.NO)
    except OSError as error:
        fail(
            f"ansim-sim coordinator: cannot put a serial port at {pty}: {error.strerror}; choose another --pty",
            Exit.FAULT,
        )
    raise typer.Exit(Exit.ENDED)


async def _serve(path: Path, state: Path | None, eui64: bytes, seed: int, scan_speed: float, verbose: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    nvm = load(state, eui64=eui64) if state is not None else Nvm(eui64)
    coordinator = Coordinator(nvm, seed=seed, now=loop.time, state=state)
    coordinator.scan_speed = scan_speed
    async with PtyCoordinator(coordinator, path):
        typer.echo(f"EZSP 13 coordinator {nvm.own_eui64.hex(':')} on {path}, seed {seed}; Ctrl-C ends it")
        sys.stdout.flush()
        await stop.wait()
    if verbose:
        for name, value in {**coordinator.link.counters.as_dict(), **dict(coordinator.drop_counts)}.items():
            typer.echo(f"{name} {value}")


if __name__ == "__main__":
    app()
