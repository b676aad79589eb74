"""`ansim-sim xbee`: a virtual XBee 3 on a pty, to test the flasher without a reader."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from readers.files import eui64_of
from readers.terminal import Exit, fail, say
from sim.reader.switches import SwitchError, Switches, parse, read
from sim.xbee.interpreter import Surroundings, VolumeProgram
from sim.xbee.module import Factory, Faults, Pty, VirtualXBee
from sim.xbee.network import network_of


def xbee_command(
    pty: Annotated[Path, typer.Option(metavar="FILE", help="Where to make the serial port, e.g. /tmp/xbee0.")],
    flash: Annotated[Path, typer.Option(metavar="FOLDER", help="Keeps the module's files and settings between runs.")],
    hv: Annotated[str, typer.Option(metavar="HEX", help="Hardware version ATHV answers, hexadecimal.")] = "4247",
    vr: Annotated[str, typer.Option(metavar="HEX", help="Firmware version ATVR answers, hexadecimal.")] = "1014",
    eui64: Annotated[
        str, typer.Option(metavar="EUI64", help="The module's address, 16 hexadecimal digits.")
    ] = "0013a20041a06e60",
    guard_ms: Annotated[
        int | None, typer.Option(metavar="MS", help="Guard time instead of the module's own GT.")
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="Fault: never answer.")] = False,
    cut_power_after_put_b: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Fault: power cut after so many bytes of an upload.")
    ] = None,
    wrong_hashes: Annotated[int, typer.Option(metavar="NUMBER", help="Fault: answer so many wrong hashes.")] = 0,
    corrupt_puts: Annotated[
        int, typer.Option(metavar="NUMBER", help="Fault: store so many uploads with a bit flipped.")
    ] = 0,
    unknown: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Fault: answer ERROR to this command, e.g. NH.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of any bytes: code that os.bundle() left behind.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Run its program: main.py or main.mpy, when PS is 1.")] = False,
    switches: Annotated[
        str, typer.Option(metavar="NAME=VALUE", help="With --run: NAME=VALUE,... or a .json file of `bringup`.")
    ] = "",
    speed: Annotated[
        float, typer.Option(metavar="X", min=0.1, max=100, help="With --run: its seconds in one of ours.")
    ] = 1.0,
    joined: Annotated[bool, typer.Option("--joined", help="It is in a network, and a stick answers.")] = False,
    network: Annotated[
        str,
        typer.Option(
            metavar="EXT_PAN_ID,STATE",
            help="The network near it, open unless the state says closed, stranger, wrong-code or no-answer.",
        ),
    ] = "",
) -> None:
    """Run a virtual XBee 3 on a pty until Ctrl-C: command mode, settings, files with YMODEM, perhaps a program."""
    try:
        address = bytes.fromhex(eui64_of(eui64))
        factory = Factory(hv=int(hv, 16), vr=int(vr, 16), eui64=address, **({"ai": 0} if joined else {}))
        near_network = network_of(network) if network else None
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
    try:
        module = VirtualXBee(flash, factory, guard_s=guard_s, faults=faults, interpreter=program, network=near_network)
        if bundle is not None:
            module.bundle.write_bytes(bundle.read_bytes())
        ended = threading.Event()
        before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:  # a background job of a shell starts with SIGINT ignored
            with Pty(module, pty):
                say(f"virtual XBee {factory.eui64.hex()} on {pty}, files in {flash}; Ctrl-C ends it")
                ended.wait()
        finally:
            for number, action in before.items():
                signal.signal(number, action)
    except OSError as error:
        fail(f"ansim-sim xbee: {error}; choose another --pty, --flash or --bundle", Exit.FAULT)
    say(f"ended: {dict(module.counts)}")
    raise typer.Exit(Exit.ENDED)


def _switches(text: str) -> Switches:
    try:
        return read(Path(text)) if text.endswith(".json") else parse(text)
    except SwitchError as error:
        raise typer.BadParameter(str(error)) from error
