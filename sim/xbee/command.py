"""`ansim-sim xbee`: a virtual XBee 3 on a pty, to test the flasher without a reader."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from readers.files import eui64_of
from sim.reader.switches import SwitchError, Switches, parse, read
from sim.xbee.interpreter import Surroundings, VolumeProgram
from sim.xbee.module import Factory, Faults, Pty, VirtualXBee


def xbee_command(
    pty: Annotated[Path, typer.Option(help="Where to make the serial port, e.g. /tmp/xbee0.")],
    flash: Annotated[Path, typer.Option(help="Folder that keeps the module's files and settings between runs.")],
    hv: Annotated[str, typer.Option(help="Hardware version ATHV answers, hexadecimal.")] = "4247",
    vr: Annotated[str, typer.Option(help="Firmware version ATVR answers, hexadecimal.")] = "1014",
    eui64: Annotated[str, typer.Option(help="The module's address, 16 hexadecimal digits.")] = "0013a20041a06e60",
    guard_ms: Annotated[int | None, typer.Option(help="Guard time instead of the module's own GT.")] = None,
    silent: Annotated[bool, typer.Option(help="Fault: never answer.")] = False,
    cut_power_after_put_b: Annotated[int | None, typer.Option(help="Fault: power cut in an upload.")] = None,
    wrong_hashes: Annotated[int, typer.Option(help="Fault: answer so many wrong hashes.")] = 0,
    corrupt_puts: Annotated[int, typer.Option(help="Fault: store so many uploads with a bit flipped.")] = 0,
    unknown: Annotated[list[str] | None, typer.Option(help="Fault: answer ERROR to this command, e.g. NH.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A file of any bytes: code that os.bundle() left behind.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Run its program: main.py or main.mpy, when PS is 1.")] = False,
    switches: Annotated[str, typer.Option(help="With --run: NAME=VALUE,... or a .json of `bringup`.")] = "",
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="With --run: its seconds in one of ours.")] = 1.0,
    joined: Annotated[bool, typer.Option("--joined", help="It is in a network, and a stick answers.")] = False,
) -> None:
    """Run a virtual XBee 3 on a pty until Ctrl-C: command mode, settings, files with YMODEM, perhaps a program."""
    try:
        address = bytes.fromhex(eui64_of(eui64))
        factory = Factory(hv=int(hv, 16), vr=int(vr, 16), eui64=address, **({"ai": 0} if joined else {}))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    faults = Faults(
        silent=silent,
        cut_power_after_put_b=cut_power_after_put_b,
        wrong_hashes=wrong_hashes,
        corrupt_puts=corrupt_puts,
        unknown=frozenset(name.upper() for name in unknown or ()),
    )
    program = None
    if run:
        near = Surroundings(speed=speed, joined=joined)
        program = VolumeProgram(flash / "flash", _switches(switches), near)
    guard_s = None if guard_ms is None else guard_ms / 1000
    module = VirtualXBee(flash, factory, guard_s=guard_s, faults=faults, interpreter=program)
    if bundle is not None:
        module.bundle.write_bytes(bundle.read_bytes())
    with Pty(module, pty):
        typer.echo(f"virtual XBee {factory.eui64.hex()} on {pty}, files in {flash}; Ctrl-C ends it")
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # a background job of a shell starts with SIGINT ignored
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        typer.echo(f"ended: {dict(module.counts)}")


def _switches(text: str) -> Switches:
    try:
        return read(Path(text)) if text.endswith(".json") else parse(text)
    except SwitchError as error:
        raise typer.BadParameter(str(error)) from error
